//! Whom devices are bound to.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use turnpike_authz::audit::DescribedPeople;
use turnpike_authz::people::Change;
use turnpike_authz::people::bindings::{Binding, DeviceKey, Role};
use turnpike_authz::people::plan::{PlanError, Share};
use turnpike_authz::people::proofs::{Given, IssuedProof, NotProved, ProofKey, ProofKind, scanned};
use utoipa::ToSchema;

use super::super::api::now_s;
use super::super::extract::{Asked, Bounded, Path, whole_body};
use super::super::{Api, Problem};
use super::{UserRef, device_key, user_key};
use crate::edit::Told;
use crate::provision::random;

/// A device that a user is bound to.
#[derive(Serialize, ToSchema)]
pub(in super::super) struct DeviceBinding {
    product: String,
    device: String,
    #[serde(flatten)]
    binding: BindingView,
}

/// A user whom a device is bound to.
#[derive(Serialize, ToSchema)]
pub(in super::super) struct UserBinding {
    app: String,
    user: String,
    #[serde(flatten)]
    binding: BindingView,
}

/// How.
#[derive(Serialize, ToSchema)]
pub(in super::super) struct BindingView {
    /// `owner`, `control` or `view`.
    role: &'static str,
    /// Seconds since 1970 UTC; absent: for good.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<u32>,
    /// `owner` or `administrator`.
    given_by: &'static str,
}

/// The devices of a user.
#[derive(Serialize, ToSchema)]
pub(in super::super) struct DeviceBindings {
    devices: Vec<DeviceBinding>,
}

/// The users of a device.
#[derive(Serialize, ToSchema)]
pub(in super::super) struct UserBindings {
    users: Vec<UserBinding>,
}

/// A proof to be issued.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct IssueProof {
    /// `passcode`, `qr`, or `presence`: a window that somebody at the device has opened.
    kind: String,
    /// How long it is good for, in seconds, at most 600, 86,400, 300; 300, 3,600, 60, if it isn't said.
    ttl_s: Option<u32>,
}

impl Asked for IssueProof {
    const FIELDS: &'static [&'static str] = &["kind", "ttl_s"];
}

/// A proof, for the device to show.
#[derive(Serialize, ToSchema)]
pub(in super::super) struct ProofView {
    /// `passcode`, `qr`, `presence`.
    kind: &'static str,
    /// The passcode, or the text of the QR code; it is never shown again. Of a window there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// Seconds since 1970 UTC.
    expires_at: u64,
}

/// A device to be bound, and the proof that it is at hand: `qr` alone, or `product` and `device` with `passcode`, or within a window without
/// anything.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Bind {
    product: Option<String>,
    device: Option<String>,
    /// As it was typed.
    passcode: Option<String>,
    /// As it was scanned.
    qr: Option<String>,
}

impl Asked for Bind {
    const FIELDS: &'static [&'static str] = &["product", "device", "passcode", "qr"];
}

/// A share.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct PutShare {
    /// `control` or `view`.
    role: String,
    /// Seconds since 1970 UTC; absent: for good.
    expires_at: Option<u32>,
    /// The owner who shares; absent for an administrator.
    by: Option<UserRef>,
}

impl Asked for PutShare {
    const FIELDS: &'static [&'static str] = &["role", "expires_at", "by"];
}

/// From one owner to another.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Transfer {
    from: UserRef,
    to: UserRef,
}

impl Asked for Transfer {
    const FIELDS: &'static [&'static str] = &["from", "to"];
}

fn view(binding: &Binding) -> BindingView {
    BindingView {
        role: binding.role.as_str(),
        expires_at: binding.expires_at_s,
        given_by: if binding.by_admin { "administrator" } else { "owner" },
    }
}

fn wrong_proof() -> Problem {
    let message = "the device is not proved to be at hand: no such proof, or it is over";
    Problem::new(StatusCode::FORBIDDEN, "wrong_proof", message)
}

impl Api {
    fn users_of(&self, device: &DeviceKey) -> Json<UserBindings> {
        let mut users = self.people().bindings().users_of(device);
        users.sort_by(|a, b| (b.1.role, &a.0).cmp(&(a.1.role, &b.0)));
        let view = |(user, binding): &(_, Binding)| {
            let user: &turnpike_authz::people::ids::UserKey = user;
            UserBinding { app: user.app.to_string(), user: user.user.to_string(), binding: view(binding) }
        };
        Json(UserBindings { users: users.iter().map(view).collect() })
    }
}

/// The users of a device, its owner first. Shares that have expired may still be among them.
#[utoipa::path(get, path = "/api/v1/products/{product}/devices/{device}/users", params(("product" = String, Path), ("device" = String, Path)), responses((status = 200, body = UserBindings)), security(("token" = [])))]
pub(in super::super) async fn list_of_device(
    State(api): State<Api>,
    Path((product, device)): Path<(String, String)>,
) -> Result<Json<UserBindings>, Problem> {
    api.existing_device(&product, &device)?;
    Ok(api.users_of(&device_key(&product, &device)?))
}

/// The devices of a user.
#[utoipa::path(get, path = "/api/v1/apps/{app}/users/{user}/devices", params(("app" = String, Path), ("user" = String, Path)), responses((status = 200, body = DeviceBindings)), security(("token" = [])))]
pub(in super::super) async fn list_of_user(
    State(api): State<Api>,
    Path((app, user)): Path<(String, String)>,
) -> Result<Json<DeviceBindings>, Problem> {
    let key = user_key(&app, &user)?;
    let bindings = api.people().bindings();
    bindings.user(key.app.as_str(), key.user.as_str()).ok_or(PlanError::NoSuchUser)?;
    let mut devices = bindings.devices_of(&key);
    devices.sort_by(|a, b| a.0.cmp(&b.0));
    let view = |(device, binding): &(DeviceKey, Binding)| DeviceBinding {
        product: device.product.to_string(),
        device: device.device.to_string(),
        binding: view(binding),
    };
    Ok(Json(DeviceBindings { devices: devices.iter().map(view).collect() }))
}

/// Issues a proof that a device is at hand, which the device has to show; or opens a window, because somebody has pressed its button.
#[utoipa::path(post, path = "/api/v1/products/{product}/devices/{device}/proofs", params(("product" = String, Path), ("device" = String, Path)), request_body = IssueProof, responses((status = 201, body = ProofView), (status = 409)), security(("token" = [])))]
pub(in super::super) async fn issue_proof(
    State(api): State<Api>,
    Path((product, device)): Path<(String, String)>,
    Bounded(bytes): Bounded,
) -> Result<(StatusCode, Json<ProofView>), Problem> {
    let asked: IssueProof = whole_body(&bytes)?;
    let kind = ProofKind::ALL.into_iter().find(|kind| kind.as_str() == asked.kind);
    let kind = kind.ok_or_else(|| Problem::invalid("kind must be passcode, qr or presence"))?;
    let ttl_s = asked.ttl_s.unwrap_or(kind.ttl_s());
    if !(1..=kind.ttl_max_s()).contains(&ttl_s) {
        return Err(Problem::invalid(format!("ttl_s must be from 1 to {}", kind.ttl_max_s())));
    }
    api.existing_device(&product, &device)?;
    let key = device_key(&product, &device)?;
    let _changing = api.changing.lock().await;
    if kind == ProofKind::Presence {
        api.accept_deed(DescribedPeople::proof(&key)).await?;
    }
    let proof_key = ProofKey::of(api.gate.master_key());
    let issued = api.people().proofs().issue(&proof_key, &key, (kind, ttl_s), random(), now_s());
    let full = |error: turnpike_authz::people::proofs::ProofsFull| {
        Problem::new(StatusCode::CONFLICT, "too_many", error.to_string())
    };
    let IssuedProof { text, expires_at_s, change } = issued.map_err(full)?;
    if let Some(change) = change {
        api.commit_people(vec![change]).await?;
    }
    let text = text.map(|text| text.expose().to_owned());
    Ok((StatusCode::CREATED, Json(ProofView { kind: kind.as_str(), text, expires_at: expires_at_s })))
}

/// Makes a user the owner of a device that has none, by a proof that it is at hand. Five wrong ones void those that the device has.
#[utoipa::path(post, path = "/api/v1/apps/{app}/users/{user}/devices", params(("app" = String, Path), ("user" = String, Path)), request_body = Bind, responses((status = 200, body = UserBindings), (status = 403, description = "no such proof"), (status = 409)), security(("token" = [])))]
pub(in super::super) async fn bind(
    State(api): State<Api>,
    Path((app, user)): Path<(String, String)>,
    Bounded(bytes): Bounded,
) -> Result<Json<UserBindings>, Problem> {
    let asked: Bind = whole_body(&bytes)?;
    let key = user_key(&app, &user)?;
    let (device, given) = match (&asked.product, &asked.device, &asked.passcode, &asked.qr) {
        (None, None, None, Some(text)) => {
            let (device, code) = scanned(text).ok_or_else(|| Problem::invalid("qr is none of this broker's"))?;
            (device, Given::Qr(code))
        }
        (Some(product), Some(device), Some(typed), None) => (device_key(product, device)?, Given::Passcode(typed)),
        (Some(product), Some(device), None, None) => (device_key(product, device)?, Given::Presence),
        _ => return Err(Problem::invalid("qr alone, or product and device, and passcode if there is one")),
    };
    let _changing = api.changing.lock().await;
    let people = api.people();
    let proof_key = ProofKey::of(api.gate.master_key());
    if let Err(fault) = people.proofs().check(&proof_key, &device, given, now_s()) {
        if fault == NotProved::Voided {
            // A restart must not bring back what guesses have voided.
            api.commit_people(vec![Change::DeleteProofs(device.clone())]).await?;
        }
        api.audit.refuse(&[Told::People(DescribedPeople::bind(&device, &key))], "wrong_proof");
        return Err(wrong_proof());
    }
    let change = people.plan_bind(api.gate.registry(), &device, &key, false)?;
    // In one commit: what has bound a device opens no more, whatever happens then.
    api.commit_people([change].into_iter().chain(people.plan_use_up(&device)).collect()).await?;
    Ok(api.users_of(&device))
}

/// Shares a device with a user, or changes the share.
#[utoipa::path(put, path = "/api/v1/products/{product}/devices/{device}/users/{app}/{user}", params(("product" = String, Path), ("device" = String, Path), ("app" = String, Path), ("user" = String, Path)), request_body = PutShare, responses((status = 200, body = UserBindings), (status = 409)), security(("token" = [])))]
pub(in super::super) async fn share(
    State(api): State<Api>,
    Path((product, device, app, user)): Path<(String, String, String, String)>,
    Bounded(bytes): Bounded,
) -> Result<Json<UserBindings>, Problem> {
    let asked: PutShare = whole_body(&bytes)?;
    let role = [Role::View, Role::Control].into_iter().find(|role| role.as_str() == asked.role);
    let role = role.ok_or_else(|| Problem::invalid("role must be control or view"))?;
    let (device, with) = (device_key(&product, &device)?, user_key(&app, &user)?);
    let by = asked.by.as_ref().map(UserRef::key).transpose()?;
    let share = Share { with: &with, role, expires_at_s: asked.expires_at };
    let _changing = api.changing.lock().await;
    let change = api.people().plan_share(api.gate.registry(), &device, by.as_ref(), &share, now_s())?;
    api.commit_people(vec![change]).await?;
    Ok(api.users_of(&device))
}

/// Unbinds a user from a device; if it is the owner, everybody. What the user reads of it ends at once.
#[utoipa::path(delete, path = "/api/v1/products/{product}/devices/{device}/users/{app}/{user}", params(("product" = String, Path), ("device" = String, Path), ("app" = String, Path), ("user" = String, Path)), responses((status = 204, description = "unbound")), security(("token" = [])))]
pub(in super::super) async fn unbind(
    State(api): State<Api>,
    Path((product, device, app, user)): Path<(String, String, String, String)>,
) -> Result<StatusCode, Problem> {
    let (device, key) = (device_key(&product, &device)?, user_key(&app, &user)?);
    let _changing = api.changing.lock().await;
    api.commit_people(api.people().plan_unbind(&device, &key)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Passes a device on to another owner. Shares end: the new owner decides anew.
#[utoipa::path(post, path = "/api/v1/products/{product}/devices/{device}/transfer", params(("product" = String, Path), ("device" = String, Path)), request_body = Transfer, responses((status = 200, body = UserBindings), (status = 409)), security(("token" = [])))]
pub(in super::super) async fn transfer(
    State(api): State<Api>,
    Path((product, device)): Path<(String, String)>,
    Bounded(bytes): Bounded,
) -> Result<Json<UserBindings>, Problem> {
    let asked: Transfer = whole_body(&bytes)?;
    let (device, from, to) = (device_key(&product, &device)?, asked.from.key()?, asked.to.key()?);
    let _changing = api.changing.lock().await;
    let changes = api.people().plan_transfer(api.gate.registry(), &device, &from, &to, false)?;
    api.commit_people(changes).await?;
    Ok(api.users_of(&device))
}
