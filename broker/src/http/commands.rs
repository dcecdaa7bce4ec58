//! Commands for a device: asked for, looked at, cancelled.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use turnpike_authz::audit::{Action, Key, Subject, Value};
use turnpike_authz::names::{DeviceName, ProductKey};
use turnpike_ota::command::{Command, CommandError, CommandId, Kind};
use utoipa::ToSchema;

use super::api::{page_limit, product_key};
use super::campaigns::NumberedPage;
use super::extract::{Asked, Bodiless, Bounded, Path, Query, whole_body};
use super::{Api, COMMIT_TIME_MAX, Problem};
use crate::audit::now_ms;
use crate::commands::CommandDesk;

/// Seconds until the deadline, unless the caller says otherwise.
const TIMEOUT_S: u64 = 3600;

/// What operators are served, below `/api/v1`.
pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/products/{product}/devices/{device}/commands", get(list_commands).post(ask_command))
        .route("/products/{product}/devices/{device}/commands/{command}", get(show_command))
        .route("/products/{product}/devices/{device}/commands/{command}/cancel", post(cancel_command))
}

/// What a device is to do.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AskCommand {
    /// `reboot`, `reset`, `wipe` or `upload-logs`.
    command: String,
    /// Any JSON of up to 4096 bytes, for the device; null if absent.
    #[schema(value_type = Option<Object>)]
    arguments: Option<serde_json::Value>,
    /// Until when it is of use, seconds since 1970 UTC, a week from now at most. Or `timeout_s`.
    deadline: Option<u64>,
    /// The same in seconds from now; 3600 if neither is said.
    timeout_s: Option<u64>,
}

impl Asked for AskCommand {
    const FIELDS: &'static [&'static str] = &["command", "arguments", "deadline", "timeout_s"];
}

/// A command for a device.
#[derive(Serialize, ToSchema)]
pub(super) struct CommandView {
    /// Its number.
    id: u32,
    /// `reboot`, `reset`, `wipe` or `upload-logs`.
    command: &'static str,
    #[schema(value_type = Object)]
    arguments: serde_json::Value,
    /// `queued` (the device wasn't there, or hasn't subscribed), `sent`, `accepted`, `done`, `failed`, `rejected`, `expired` or `cancelled`.
    state: &'static str,
    /// Seconds since 1970 UTC.
    since: u64,
    /// Seconds since 1970 UTC.
    asked_at: u64,
    /// Seconds since 1970 UTC.
    deadline: u64,
    /// How often it went out: again where the device came back without an answer, three times at most.
    sends: u8,
    /// When it went out last, seconds since 1970 UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    sent_at: Option<u64>,
    /// What the device said to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// What the device said that it has done, after the command had expired or was cancelled: one that went out can't be called back.
    #[serde(skip_serializing_if = "Option::is_none")]
    late: Option<&'static str>,
}

/// A page of commands, the oldest first.
#[derive(Serialize, ToSchema)]
pub(super) struct CommandPage {
    commands: Vec<CommandView>,
    /// `after` of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<u64>,
}

impl From<CommandError> for Problem {
    fn from(error: CommandError) -> Self {
        let (status, code) = match error {
            CommandError::UnknownCommand => (StatusCode::BAD_REQUEST, "unknown_command"),
            CommandError::Arguments => (StatusCode::BAD_REQUEST, "arguments"),
            CommandError::Deadline => (StatusCode::BAD_REQUEST, "deadline"),
            CommandError::DeviceFull { .. } => (StatusCode::CONFLICT, "too_many_for_device"),
            CommandError::Full { .. } | CommandError::NoNumber => (StatusCode::CONFLICT, "too_many_commands"),
            CommandError::NoSuchCommand => (StatusCode::NOT_FOUND, "no_such_command"),
            CommandError::Ended => (StatusCode::CONFLICT, "command_ended"),
        };
        Self::new(status, code, error.to_string())
    }
}

fn view(command: &Command) -> CommandView {
    CommandView {
        id: command.id.0,
        command: command.kind.as_str(),
        arguments: serde_json::from_str(&command.arguments).unwrap_or_default(),
        state: command.state.as_str(),
        since: command.state_at_ms / 1000,
        asked_at: command.asked_at_ms / 1000,
        deadline: command.deadline_ms / 1000,
        sends: command.sends,
        sent_at: command.sent_at_ms.map(|at_ms| at_ms / 1000),
        reason: Some(command.reason.to_string()).filter(|reason| !reason.is_empty()),
        late: command.late.map(turnpike_ota::command::State::as_str),
    }
}

fn command_id(text: &str) -> Result<CommandId, Problem> {
    text.parse().map(CommandId).map_err(|_| CommandError::NoSuchCommand.into())
}

impl AskCommand {
    /// Until when, milliseconds since 1970 UTC.
    fn deadline_ms(&self, now_ms: u64) -> Result<u64, Problem> {
        let until = match (self.deadline, self.timeout_s) {
            (Some(deadline), None) => deadline.checked_mul(1000),
            (None, timeout_s) => timeout_s.unwrap_or(TIMEOUT_S).checked_mul(1000).and_then(|ms| ms.checked_add(now_ms)),
            (Some(_), Some(_)) => return Err(Problem::invalid("deadline and timeout_s exclude each other")),
        };
        Ok(until.ok_or(CommandError::Deadline)?)
    }
}

impl Api {
    /// The desk for commands.
    pub(super) fn commands(&self) -> Result<&Arc<CommandDesk>, Problem> {
        self.desks.commands.as_ref().ok_or_else(|| {
            let message = "commands.enabled is false in this broker's configuration";
            Problem::new(StatusCode::NOT_FOUND, "commands_disabled", message)
        })
    }

    /// A device by its names.
    pub(super) fn named_device(&self, product: &str, device: &str) -> Result<(ProductKey, DeviceName), Problem> {
        let (name, _) = self.existing_device(product, device)?;
        Ok((product_key(product)?, name))
    }

    fn view_command(
        &self,
        product: &ProductKey,
        device: &DeviceName,
        id: CommandId,
    ) -> Result<Json<CommandView>, Problem> {
        let state = self.commands()?.state();
        Ok(Json(view(state.book.of(product, device, id).ok_or(CommandError::NoSuchCommand)?)))
    }
}

/// Commands of a device, by page: those that haven't ended, and those that have and are kept.
#[utoipa::path(get, path = "/api/v1/products/{product}/devices/{device}/commands", params(("product" = String, Path), ("device" = String, Path), ("limit" = Option<usize>, Query, description = "1 to 1000; default 100"), ("after" = Option<u64>, Query, description = "`next` of the page before")), responses((status = 200, body = CommandPage), (status = 404)), security(("token" = [])))]
pub(super) async fn list_commands(
    State(api): State<Api>,
    Path((product, device)): Path<(String, String)>,
    Query(page): Query<NumberedPage>,
) -> Result<Json<CommandPage>, Problem> {
    let limit = page_limit(page.limit)?;
    let (product, device) = api.named_device(&product, &device)?;
    let state = api.commands()?.state();
    let is_wanted = |command: &&Command| page.after.is_none_or(|after| u64::from(command.id.0) > after);
    let mut left = state.book.of_device(&product, &device).filter(is_wanted);
    let commands: Vec<_> = left.by_ref().take(limit).map(view).collect();
    let next = left.next().and(commands.last().map(|command| command.id.into()));
    Ok(Json(CommandPage { commands, next }))
}

/// One command: how far it is, and what the device said.
#[utoipa::path(get, path = "/api/v1/products/{product}/devices/{device}/commands/{command}", params(("product" = String, Path), ("device" = String, Path), ("command" = u32, Path)), responses((status = 200, body = CommandView), (status = 404)), security(("token" = [])))]
pub(super) async fn show_command(
    State(api): State<Api>,
    Path((product, device, command)): Path<(String, String, String)>,
) -> Result<Json<CommandView>, Problem> {
    let (product, device) = api.named_device(&product, &device)?;
    api.view_command(&product, &device, command_id(&command)?)
}

/// Asks a device to do something: at once if it is there, or when it comes before the deadline.
#[utoipa::path(post, path = "/api/v1/products/{product}/devices/{device}/commands", params(("product" = String, Path), ("device" = String, Path)), request_body = AskCommand, responses((status = 201, body = CommandView), (status = 400), (status = 404), (status = 409), (status = 503)), security(("token" = [])))]
pub(super) async fn ask_command(
    State(api): State<Api>,
    Path((product, device)): Path<(String, String)>,
    Bounded(bytes): Bounded,
) -> Result<(StatusCode, Json<CommandView>), Problem> {
    let asked: AskCommand = whole_body(&bytes)?;
    let desk = Arc::clone(api.commands()?);
    let kind: Kind = asked.command.parse()?;
    let now_ms = now_ms();
    let deadline_ms = asked.deadline_ms(now_ms)?;
    let arguments = asked.arguments.map(|arguments| arguments.to_string());
    // The device is there until the command is.
    let _changing = api.changing.lock().await;
    let (product, device) = api.named_device(&product, &device)?;
    let (id, changes) = desk.state().book.plan((&product, &device), kind, arguments.as_deref(), deadline_ms, now_ms)?;
    let (action, target) = (Action::CommandAsk, Subject::device(&product, &device));
    let details = [
        (Key::Command, Value::Number(id.0.into())),
        (Key::Kind, Value::Word(kind.as_str())),
        (Key::ExpiresMs, Value::Number(deadline_ms)),
    ];
    api.audit.accept_one(action, target, &details).await?;
    let mut committed = desk.commit(&changes);
    match tokio::time::timeout(COMMIT_TIME_MAX, &mut committed).await {
        Ok(Ok(())) => desk.asked(id, changes, &product, &device),
        Ok(Err(_)) => {
            api.audit.fail_one(action, target, "store_unavailable");
            return Err(Problem::store());
        }
        Err(_) => {
            api.audit.fail_one(action, target, "store_unavailable");
            // Nothing is confirmed; but if it does reach the disk, memory has to follow.
            tokio::spawn(async move {
                if committed.await.is_ok() {
                    desk.asked(id, changes, &product, &device);
                }
            });
            return Err(Problem::store());
        }
    }
    Ok((StatusCode::CREATED, api.view_command(&product, &device, id)?))
}

/// Has a command not sent any more. One that went out can't be called back: what the device says to it then is shown as `late`.
#[utoipa::path(post, path = "/api/v1/products/{product}/devices/{device}/commands/{command}/cancel", params(("product" = String, Path), ("device" = String, Path), ("command" = u32, Path)), responses((status = 200, body = CommandView), (status = 404), (status = 409), (status = 503)), security(("token" = [])))]
pub(super) async fn cancel_command(
    State(api): State<Api>,
    Path((product, device, command)): Path<(String, String, String)>,
    _: Bodiless,
) -> Result<Json<CommandView>, Problem> {
    let (product, device) = api.named_device(&product, &device)?;
    let (desk, id) = (api.commands()?, command_id(&command)?);
    let found = desk.state().book.of(&product, &device, id).map(|command| (command.kind, command.state));
    let (kind, state) = found.ok_or(CommandError::NoSuchCommand)?;
    if state.is_end() {
        return Err(CommandError::Ended.into());
    }
    let (action, target) = (Action::CommandCancel, Subject::device(&product, &device));
    let details = [(Key::Command, Value::Number(id.0.into())), (Key::Kind, Value::Word(kind.as_str()))];
    api.audit.accept_one(action, target, &details).await?;
    match desk.cancel(&product, &device, id) {
        Ok(committed) => api.await_commit(committed, action, target).await?,
        Err(error) => {
            api.audit.fail_one(action, target, "command_ended");
            return Err(error.into());
        }
    }
    api.view_command(&product, &device, id)
}
