//! Users of apps: who is there, where from, and out.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use turnpike_authz::audit::DescribedPeople;
use turnpike_authz::people::bindings::User;
use turnpike_authz::people::erasure::Kind;
use turnpike_authz::people::ids::UserKey;
use turnpike_authz::people::plan::{CODE_TTL_MAX_S, PlanError};
use turnpike_core::concern::Concern;
use turnpike_core::gate::Principal;
use turnpike_core::shard::SessionView as Session;
use utoipa::ToSchema;

use super::super::api::now_s;
use super::super::extract::{Asked, Bodiless, Bounded, Page, Path, Query, body};
use super::super::{Api, Problem};
use super::{app_id, user_key};
use crate::provision::random;

/// How long a session code is good for where it isn't said, in seconds.
const CODE_TTL_S: u32 = 300;

/// A user.
#[derive(Serialize, ToSchema)]
pub(in super::super) struct UserView {
    app: String,
    user: String,
    /// A frozen user isn't let in.
    frozen: bool,
    /// Seconds since 1970 UTC.
    created_at: u32,
}

/// A session of a user.
#[derive(Serialize, ToSchema)]
pub(in super::super) struct SessionView {
    client_id: String,
    /// From where it is connected; absent if it isn't.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    /// Since when it isn't, milliseconds since 1970 UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    disconnected_at_ms: Option<u64>,
    /// How long it outlives its connection, in seconds.
    expiry_s: u32,
    subscriptions: usize,
    /// Messages that wait for it.
    queued: usize,
}

/// A log-in of a user.
#[derive(Serialize, ToSchema)]
pub(in super::super) struct LogInView {
    /// Seconds since 1970 UTC.
    at: u32,
    address: String,
    client_id: String,
    /// `token` or `code`.
    by: &'static str,
}

/// A device that a user has logged in from, among the last log-ins.
#[derive(Serialize, ToSchema)]
pub(in super::super) struct PlaceView {
    client_id: String,
    /// The last time, seconds since 1970 UTC.
    last_at: u32,
    /// From where that was.
    address: String,
    /// How many of the last log-ins.
    count: usize,
}

/// A session code that is out.
#[derive(Serialize, ToSchema)]
pub(in super::super) struct CodeView {
    /// What it is taken back by.
    number: String,
    /// Seconds since 1970 UTC.
    expires_at: u64,
}

/// A user, and where from.
#[derive(Serialize, ToSchema)]
pub(in super::super) struct UserDetails {
    #[serde(flatten)]
    user: UserView,
    sessions: Vec<SessionView>,
    /// Devices, the last used first.
    places: Vec<PlaceView>,
    /// The last thirty, the newest first.
    log_ins: Vec<LogInView>,
    codes: Vec<CodeView>,
}

/// A page of users, in no order that means anything.
#[derive(Serialize, ToSchema)]
pub(in super::super) struct UserPage {
    users: Vec<UserView>,
    /// `after` of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A session code to be issued.
#[derive(Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct IssueCode {
    /// How long it is good for, in seconds: 1 to 86,400; 300, if it isn't said.
    ttl_s: Option<u32>,
}

impl Asked for IssueCode {
    const FIELDS: &'static [&'static str] = &["ttl_s"];
}

/// A session code: a user's password for a while.
#[derive(Serialize, ToSchema)]
pub(in super::super) struct IssuedCode {
    /// It is never shown again.
    code: String,
    /// What it is taken back by.
    number: String,
    /// Seconds since 1970 UTC.
    expires_at: u64,
}

/// What was deleted with a user.
#[derive(Serialize, ToSchema)]
pub(in super::super) struct Deleted {
    /// Sessions, with all that waited for them.
    sessions: usize,
    /// Devices that the user was bound to.
    devices: usize,
    /// Log-ins that were kept.
    log_ins: usize,
    /// Session codes.
    codes: usize,
    /// Number of the erasure, whose report tells more.
    erasure: String,
}

fn number(number: u64) -> String {
    format!("{number:016x}")
}

fn view(key: &UserKey, user: User) -> UserView {
    UserView {
        app: key.app.to_string(),
        user: key.user.to_string(),
        frozen: user.frozen,
        created_at: user.created_at_s,
    }
}

fn view_session(session: &Session) -> SessionView {
    SessionView {
        client_id: session.client.as_str().to_owned(),
        address: session.peer.map(|peer| peer.to_string()),
        disconnected_at_ms: session.disconnected_at_ms,
        expiry_s: session.expiry_s,
        subscriptions: session.subscriptions,
        queued: session.queued,
    }
}

fn principal(key: &UserKey) -> Option<Principal> {
    match Concern::user(key.app.as_str(), key.user.as_str()) {
        Concern::Principal(principal) => Some(principal),
        _ => None,
    }
}

impl Api {
    fn existing_user(&self, key: &UserKey) -> Result<UserView, Problem> {
        self.people().app(key.app.as_str()).ok_or(PlanError::NoSuchApp)?;
        let user = self.people().bindings().user(key.app.as_str(), key.user.as_str()).ok_or(PlanError::NoSuchUser)?;
        Ok(view(key, user))
    }

    async fn sessions_of(&self, key: &UserKey) -> Vec<SessionView> {
        let Some(principal) = principal(key) else { return Vec::new() };
        let mut sessions: Vec<_> = self.control.sessions_of(&principal).await.iter().map(view_session).collect();
        sessions.sort_by(|a, b| a.client_id.cmp(&b.client_id));
        sessions
    }

    async fn set_frozen(&self, (app, user): (&str, &str), frozen: bool) -> Result<Json<UserView>, Problem> {
        let key = user_key(app, user)?;
        let _changing = self.changing.lock().await;
        self.commit_people(vec![self.people().plan_freeze_user(&key, frozen)?]).await?;
        Ok(Json(self.existing_user(&key)?))
    }
}

/// Users of an app, by page.
#[utoipa::path(get, path = "/api/v1/apps/{app}/users", params(("app" = String, Path), ("limit" = Option<usize>, Query, description = "1 to 1000; default 100"), ("after" = Option<String>, Query, description = "`next` of the page before")), responses((status = 200, body = UserPage)), security(("token" = [])))]
pub(in super::super) async fn list_users(
    State(api): State<Api>,
    Path(app): Path<String>,
    Query(page): Query<Page>,
) -> Result<Json<UserPage>, Problem> {
    let limit = page.limit()?;
    let id = app_id(&app)?;
    api.people().app(id.as_str()).ok_or(PlanError::NoSuchApp)?;
    let after = page.after.as_deref().map(str::parse::<u32>).transpose();
    let after = after.map_err(|_| Problem::invalid("after must be `next` of the page before"))?;
    let (found, next) = api.people().bindings().users(id.as_str(), after, limit);
    let users = found.iter().map(|(key, user)| view(key, *user)).collect();
    Ok(Json(UserPage { users, next: next.map(|next| next.to_string()) }))
}

/// One user: sessions, devices logged in from, the last log-ins.
#[utoipa::path(get, path = "/api/v1/apps/{app}/users/{user}", params(("app" = String, Path), ("user" = String, Path)), responses((status = 200, body = UserDetails)), security(("token" = [])))]
pub(in super::super) async fn show_user(
    State(api): State<Api>,
    Path((app, user)): Path<(String, String)>,
) -> Result<Json<UserDetails>, Problem> {
    let key = user_key(&app, &user)?;
    let user = api.existing_user(&key)?;
    let sessions = api.sessions_of(&key).await;
    let people = api.people();
    let places = people.places(&key).into_iter().map(|place| PlaceView {
        client_id: place.client.as_str().to_owned(),
        last_at: place.last.at_s,
        address: place.last.address.to_string(),
        count: place.count,
    });
    let log_ins = people.log_ins(&key).into_iter().map(|log_in| LogInView {
        at: log_in.at_s,
        address: log_in.address.to_string(),
        client_id: log_in.client.as_str().to_owned(),
        by: log_in.proof.as_str(),
    });
    let codes = people.codes(&key).into_iter();
    let codes = codes.map(|(hash, expires_at)| CodeView { number: number(hash.number()), expires_at });
    let (places, log_ins, codes) = (places.collect(), log_ins.collect(), codes.collect());
    Ok(Json(UserDetails { user, sessions, places, log_ins, codes }))
}

/// Creates a user. One that is there stays as it is.
#[utoipa::path(put, path = "/api/v1/apps/{app}/users/{user}", params(("app" = String, Path), ("user" = String, Path)), responses((status = 200, body = UserView, description = "it is there"), (status = 201, body = UserView, description = "created"), (status = 409)), security(("token" = [])))]
pub(in super::super) async fn put_user(
    State(api): State<Api>,
    Path((app, user)): Path<(String, String)>,
    _: Bodiless,
) -> Result<(StatusCode, Json<UserView>), Problem> {
    let key = user_key(&app, &user)?;
    let _changing = api.changing.lock().await;
    let (change, is_new) = api.people().plan_put_user(&key, now_s())?;
    api.commit_people(vec![change]).await?;
    Ok((if is_new { StatusCode::CREATED } else { StatusCode::OK }, Json(api.existing_user(&key)?)))
}

/// Freezes a user: closed, and not let in, until unfrozen. Bindings stay.
#[utoipa::path(post, path = "/api/v1/apps/{app}/users/{user}/freeze", params(("app" = String, Path), ("user" = String, Path)), responses((status = 200, body = UserView)), security(("token" = [])))]
pub(in super::super) async fn freeze_user(
    State(api): State<Api>,
    Path((app, user)): Path<(String, String)>,
    _: Bodiless,
) -> Result<Json<UserView>, Problem> {
    api.set_frozen((&app, &user), true).await
}

/// Lets a user in again.
#[utoipa::path(post, path = "/api/v1/apps/{app}/users/{user}/unfreeze", params(("app" = String, Path), ("user" = String, Path)), responses((status = 200, body = UserView)), security(("token" = [])))]
pub(in super::super) async fn unfreeze_user(
    State(api): State<Api>,
    Path((app, user)): Path<(String, String)>,
    _: Bodiless,
) -> Result<Json<UserView>, Problem> {
    api.set_frozen((&app, &user), false).await
}

/// All that is kept of a user, for the user.
#[utoipa::path(get, path = "/api/v1/apps/{app}/users/{user}/export", params(("app" = String, Path), ("user" = String, Path)), responses((status = 200, description = "JSON of all that is kept", content_type = "application/json")), security(("token" = [])))]
pub(in super::super) async fn export_user(
    State(api): State<Api>,
    Path((app, user)): Path<(String, String)>,
) -> Result<Json<serde_json::Value>, Problem> {
    let key = user_key(&app, &user)?;
    api.existing_user(&key)?;
    api.accept_deed(DescribedPeople::export(&key)).await?;
    let sessions = serde_json::to_value(api.sessions_of(&key).await).unwrap_or_default();
    let mut export = api.people().export_user(&key).ok_or(PlanError::NoSuchUser)?;
    if let Some(fields) = export.as_object_mut() {
        fields.insert("sessions".to_owned(), sessions);
    }
    Ok(Json(export))
}

/// Deletes a user with all data, at once: an erasure that is done when this answers.
#[utoipa::path(delete, path = "/api/v1/apps/{app}/users/{user}", params(("app" = String, Path), ("user" = String, Path)), responses((status = 200, body = Deleted), (status = 202, body = Deleted, description = "it is being deleted: something is left, and is tried again")), security(("token" = [])))]
pub(in super::super) async fn delete_user(
    State(api): State<Api>,
    Path((app, user)): Path<(String, String)>,
) -> Result<(StatusCode, Json<Deleted>), Problem> {
    let erasure = api.erase_now(&user_key(&app, &user)?).await?;
    let count = |kind| usize::try_from(erasure.1.erased.of(kind)).unwrap_or(usize::MAX);
    let deleted = Deleted {
        sessions: count(Kind::Session),
        devices: count(Kind::Binding),
        log_ins: count(Kind::LogIn),
        codes: count(Kind::Code),
        erasure: erasure.0.to_string(),
    };
    let status = if erasure.1.done_at_s.is_some() { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(deleted)))
}

/// Signs a user out of one session, which ends with all that waits for it.
#[utoipa::path(delete, path = "/api/v1/apps/{app}/users/{user}/sessions/{client}", params(("app" = String, Path), ("user" = String, Path), ("client" = String, Path, description = "client id, percent-encoded")), responses((status = 204, description = "signed out")), security(("token" = [])))]
pub(in super::super) async fn sign_out(
    State(api): State<Api>,
    Path((app, user, client)): Path<(String, String, String)>,
) -> Result<StatusCode, Problem> {
    let key = user_key(&app, &user)?;
    api.existing_user(&key)?;
    let principal = principal(&key).ok_or(PlanError::NoSuchUser)?;
    let client_id = client.as_str();
    let is_there = api.control.sessions_of(&principal).await.iter().any(|session| session.client.as_str() == client_id);
    if !is_there {
        return Err(Problem::not_found("there is no such session"));
    }
    api.accept_deed(DescribedPeople::sign_out(&key)).await?;
    match api.control.sign_out(&principal, &client).await {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Problem::not_found("there is no such session")),
    }
}

/// Issues a session code: a password for the user that is good for a while and can be taken back.
#[utoipa::path(post, path = "/api/v1/apps/{app}/users/{user}/codes", params(("app" = String, Path), ("user" = String, Path)), request_body = IssueCode, responses((status = 201, body = IssuedCode), (status = 409)), security(("token" = [])))]
pub(in super::super) async fn issue_code(
    State(api): State<Api>,
    Path((app, user)): Path<(String, String)>,
    Bounded(bytes): Bounded,
) -> Result<(StatusCode, Json<IssuedCode>), Problem> {
    let asked: IssueCode = body(&bytes)?;
    let ttl_s = asked.ttl_s.unwrap_or(CODE_TTL_S);
    if !(1..=CODE_TTL_MAX_S).contains(&ttl_s) {
        return Err(Problem::invalid(format!("ttl_s must be from 1 to {CODE_TTL_MAX_S}")));
    }
    let key = user_key(&app, &user)?;
    let _changing = api.changing.lock().await;
    let issued = api.people().plan_issue_code(&key, ttl_s, random(), now_s())?;
    api.commit_people(vec![issued.change]).await?;
    let (code, number) = (issued.code.expose().to_owned(), number(issued.number));
    Ok((StatusCode::CREATED, Json(IssuedCode { code, number, expires_at: issued.expires_at_s })))
}

/// Takes all session codes of a user back. Whoever came in by one is out.
#[utoipa::path(delete, path = "/api/v1/apps/{app}/users/{user}/codes", params(("app" = String, Path), ("user" = String, Path)), responses((status = 204, description = "there is none any more")), security(("token" = [])))]
pub(in super::super) async fn revoke_codes(
    State(api): State<Api>,
    Path((app, user)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let key = user_key(&app, &user)?;
    api.existing_user(&key)?;
    let _changing = api.changing.lock().await;
    let changes = api.people().plan_revoke_codes(&key, None);
    if !changes.is_empty() {
        api.commit_people(changes).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Takes a session code back. Whoever came in by it is out.
#[utoipa::path(delete, path = "/api/v1/apps/{app}/users/{user}/codes/{code}", params(("app" = String, Path), ("user" = String, Path), ("code" = String, Path, description = "the code's number")), responses((status = 204, description = "taken back")), security(("token" = [])))]
pub(in super::super) async fn revoke_code(
    State(api): State<Api>,
    Path((app, user, code)): Path<(String, String, String)>,
) -> Result<StatusCode, Problem> {
    let key = user_key(&app, &user)?;
    api.existing_user(&key)?;
    let is_number = code.len() == 16 && code.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = u64::from_str_radix(&code, 16).ok().filter(|_| is_number);
    let none = || Problem::not_found("there is no such code");
    let _changing = api.changing.lock().await;
    let changes = api.people().plan_revoke_codes(&key, Some(number.ok_or_else(none)?));
    if changes.is_empty() {
        return Err(none());
    }
    api.commit_people(changes).await?;
    Ok(StatusCode::NO_CONTENT)
}
