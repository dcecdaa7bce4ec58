//! Erasures of users: asked for, and what has come of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use turnpike_authz::people::erasure::{Ask, DUE_MAX_S, Erasure, ErasureNumber, KEPT, Kind, WAIT_MAX_S};
use turnpike_authz::people::ids::UserKey;
use utoipa::ToSchema;

use super::super::api::now_s;
use super::super::audit::Desk;
use super::super::extract::{Asked, Bounded, Page, Path, Query, body};
use super::super::{Api, Problem};
use super::{app_id, user_key};

/// What is asked of an erasure.
#[derive(Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct AskErasure {
    /// How long it waits before it begins, in seconds: 0, if it isn't said; 518,400 (six days) at the most.
    wait_s: Option<u64>,
    /// Within how many seconds it has to be done, or an alarm is raised: 604,800 (seven days), if it isn't said, and at the most.
    due_s: Option<u64>,
}

impl Asked for AskErasure {
    const FIELDS: &'static [&'static str] = &["wait_s", "due_s"];
}

/// What stays on purpose.
#[derive(Serialize, ToSchema)]
pub(in super::super) struct KeptView {
    what: &'static str,
    why: &'static str,
}

/// An erasure, from the request to the report.
#[derive(Serialize, ToSchema)]
pub(in super::super) struct ErasureView {
    /// Its number.
    erasure: String,
    app: String,
    /// The user's id; once it is done only a part of it and its length.
    user: String,
    /// `waiting`, `running`, `failing` or `done`.
    state: &'static str,
    /// It should have been done by now.
    overdue: bool,
    /// Who has asked, as the audit names them.
    asked_by: String,
    /// Seconds since 1970 UTC.
    asked_at: u64,
    /// When it begins, or is tried again: seconds since 1970 UTC.
    begins_at: u64,
    /// By when it has to be done: seconds since 1970 UTC.
    due_at: u64,
    /// When it was done, and somebody had looked that nothing is left: seconds since 1970 UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    done_at: Option<u64>,
    /// Attempts that have left something.
    failures: u32,
    /// What the last of them has left.
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<&'static str>,
    /// What was erased, by kind.
    #[schema(value_type = std::collections::BTreeMap<String, u64>)]
    erased: BTreeMap<&'static str, u64>,
    /// What stays on purpose, and why.
    kept: Vec<KeptView>,
}

/// Erasures of an app, the newest first.
#[derive(Serialize, ToSchema)]
pub(in super::super) struct ErasurePage {
    erasures: Vec<ErasureView>,
    /// `after` of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

fn view(number: ErasureNumber, erasure: &Erasure) -> ErasureView {
    let now_s = now_s();
    let user = erasure.user.as_ref().map_or_else(|| erasure.masked.to_string(), ToString::to_string);
    ErasureView {
        erasure: number.to_string(),
        app: erasure.app.to_string(),
        user,
        state: erasure.state(now_s).as_str(),
        overdue: erasure.is_overdue(now_s),
        asked_by: erasure.by.to_string(),
        asked_at: erasure.asked_at_s,
        begins_at: erasure.begins_at_s,
        due_at: erasure.due_at_s,
        done_at: erasure.done_at_s,
        failures: erasure.failures,
        left: erasure.left.map(Kind::as_str),
        erased: erasure.erased.iter().map(|(kind, count)| (kind.as_str(), count)).collect(),
        kept: KEPT.iter().map(|(what, why)| KeptView { what, why }).collect(),
    }
}

fn no_such_erasure() -> Problem {
    Problem::not_found("there is no such erasure")
}

impl Api {
    async fn ask_erasure(&self, user: &UserKey, wait_s: u64, due_s: u64) -> Result<ErasureNumber, Problem> {
        let by = Desk::caller_name();
        let _changing = self.changing.lock().await;
        let ask = Ask { by: &by, wait_s, due_s };
        let (number, change) = self.people().plan_erasure(user, &ask, now_s())?;
        if let Some(change) = change {
            self.commit_people(vec![change]).await?;
        }
        Ok(number)
    }

    /// Erases a user, and gives what has come of it.
    pub(super) async fn erase_now(&self, user: &UserKey) -> Result<(ErasureNumber, Arc<Erasure>), Problem> {
        let number = self.ask_erasure(user, 0, DUE_MAX_S).await?;
        Ok((number, self.eraser.run(number).await.ok_or_else(no_such_erasure)?))
    }
}

/// Has all that is kept of a user erased: a job that survives a restart, is done within seven days, by default at once, looks afterwards whether
/// anything is left, and leaves a report. Asked again, it is the same job, which may become sooner by that.
#[utoipa::path(post, path = "/api/v1/apps/{app}/users/{user}/erasure", params(("app" = String, Path), ("user" = String, Path)), request_body = Option<AskErasure>, responses((status = 202, body = ErasureView), (status = 409, description = "too many are open")), security(("token" = [])))]
pub(in super::super) async fn erase_user(
    State(api): State<Api>,
    Path((app, user)): Path<(String, String)>,
    Bounded(bytes): Bounded,
) -> Result<(StatusCode, Json<ErasureView>), Problem> {
    let asked: AskErasure = body(&bytes)?;
    let (wait_s, due_s) = (asked.wait_s.unwrap_or(0), asked.due_s.unwrap_or(DUE_MAX_S));
    if !(Ask { by: "", wait_s, due_s }).is_valid() {
        let message = format!("wait_s is at most {WAIT_MAX_S} and due_s, due_s at most {DUE_MAX_S}");
        return Err(Problem::invalid(message));
    }
    let number = api.ask_erasure(&user_key(&app, &user)?, wait_s, due_s).await?;
    let erasure = api.people().erasure(number).ok_or_else(no_such_erasure)?;
    Ok((StatusCode::ACCEPTED, Json(view(number, &erasure))))
}

/// Erasures of an app's users, open ones and reports, the newest first. The app itself may be gone.
#[utoipa::path(get, path = "/api/v1/apps/{app}/erasures", params(("app" = String, Path), ("limit" = Option<usize>, Query, description = "1 to 1000; default 100"), ("after" = Option<String>, Query, description = "`next` of the page before")), responses((status = 200, body = ErasurePage)), security(("token" = [])))]
pub(in super::super) async fn list_erasures(
    State(api): State<Api>,
    Path(app): Path<String>,
    Query(page): Query<Page>,
) -> Result<Json<ErasurePage>, Problem> {
    let limit = page.limit()?;
    let id = app_id(&app)?;
    let after = page.after.as_deref().map(str::parse::<ErasureNumber>).transpose();
    let after = after.map_err(|_| Problem::invalid("after must be `next` of the page before"))?;
    let found = api.people().erasures(id.as_str(), after, limit);
    let next = found.last().filter(|_| found.len() == limit).map(|(number, _)| number.to_string());
    Ok(Json(ErasurePage { erasures: found.iter().map(|(number, erasure)| view(*number, erasure)).collect(), next }))
}

/// One erasure: where it stands, or the report.
#[utoipa::path(get, path = "/api/v1/apps/{app}/erasures/{erasure}", params(("app" = String, Path), ("erasure" = String, Path, description = "its number")), responses((status = 200, body = ErasureView)), security(("token" = [])))]
pub(in super::super) async fn show_erasure(
    State(api): State<Api>,
    Path((app, erasure)): Path<(String, String)>,
) -> Result<Json<ErasureView>, Problem> {
    let id = app_id(&app)?;
    let number = erasure.parse::<ErasureNumber>().map_err(|_| Problem::invalid("an erasure's number is a number"))?;
    let found = api.people().erasure(number).filter(|found| found.app == id).ok_or_else(no_such_erasure)?;
    Ok(Json(view(number, &found)))
}
