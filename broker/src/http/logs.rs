//! Logs that devices have sent.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use turnpike_authz::audit::{Action, Key, Outcome, Subject, Value};
use turnpike_ota::logs::shelf::{Kept, LogId, Packing};
use utoipa::ToSchema;

use super::api::page_limit;
use super::campaigns::NumberedPage;
use super::extract::{Bodiless, Path, Queried, Query};
use super::{Api, Problem};

/// Logs in memory at once, from when they are read until they are sent; more wait.
pub(super) const READS_MAX: usize = 4;
/// Bytes that are sent at once.
const PIECE_BYTES: usize = 64 << 10;

/// What operators are served, below `/api/v1`.
pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/products/{product}/devices/{device}/logs", get(list_logs))
        .route("/products/{product}/devices/{device}/logs/{log}", get(download_log).delete(delete_log))
}

/// A log that a device has sent.
#[derive(Serialize, ToSchema)]
pub(super) struct LogView {
    /// Its number.
    log: u64,
    /// The device's own number of it.
    number: u32,
    /// The command that asked for it, where that is its number.
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<u32>,
    /// Seconds since 1970 UTC.
    at: u64,
    /// Bytes of the log.
    size: u64,
    /// Bytes as they were sent, and are kept.
    sent_size: u64,
    /// CRC-32 (ISO-HDLC) of these.
    sent_crc32: String,
    /// How it is compressed: `zlib`, `zstd` or `lz4`. Absent: it isn't, or is damaged.
    #[serde(skip_serializing_if = "Option::is_none")]
    packing: Option<&'static str>,
}

/// A page of logs, the oldest first.
#[derive(Serialize, ToSchema)]
pub(super) struct LogPage {
    logs: Vec<LogView>,
    /// `after` of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<u64>,
}

/// In which form.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AsWhat {
    r#as: Option<String>,
}

impl Queried for AsWhat {
    const MESSAGE: &'static str = "the query takes as, which is log or sent, once, and nothing else";
}

fn view(log: &Kept) -> LogView {
    LogView {
        log: log.id.0,
        number: log.number,
        command: log.command,
        at: log.at_ms / 1000,
        size: log.unpacked_bytes,
        sent_size: log.bytes,
        sent_crc32: format!("{:08x}", log.crc32),
        packing: log.packing.map(Packing::as_str),
    }
}

fn no_such_log() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "no_such_log", "the device has no such log")
}

fn log_id(text: &str) -> Result<LogId, Problem> {
    text.parse().map(LogId).map_err(|_| no_such_log())
}

/// Logs of a device, by page.
#[utoipa::path(get, path = "/api/v1/products/{product}/devices/{device}/logs", params(("product" = String, Path), ("device" = String, Path), ("limit" = Option<usize>, Query, description = "1 to 1000; default 100"), ("after" = Option<u64>, Query, description = "`next` of the page before")), responses((status = 200, body = LogPage), (status = 404)), security(("token" = [])))]
pub(super) async fn list_logs(
    State(api): State<Api>,
    Path((product, device)): Path<(String, String)>,
    Query(page): Query<NumberedPage>,
) -> Result<Json<LogPage>, Problem> {
    let limit = page_limit(page.limit)?;
    let (product, device) = api.named_device(&product, &device)?;
    let kept = api.commands()?.logs();
    let is_wanted = |log: &&Kept| page.after.is_none_or(|after| log.id.0 > after);
    let mut left = kept.shelf.of_device(&product, &device).filter(is_wanted);
    let logs: Vec<_> = left.by_ref().take(limit).map(view).collect();
    let next = left.next().and(logs.last().map(|log| log.log));
    Ok(Json(LogPage { logs, next }))
}

/// The bytes of a log: uncompressed, if the device has compressed it; with `as=sent` as they came. That it was given out is on record.
#[utoipa::path(get, path = "/api/v1/products/{product}/devices/{device}/logs/{log}", params(("product" = String, Path), ("device" = String, Path), ("log" = u64, Path), ("as" = Option<String>, Query, description = "`log` (default) or `sent`")), responses((status = 200, content_type = "application/octet-stream", body = String), (status = 404), (status = 500, description = "its file can't be read")), security(("token" = [])))]
pub(super) async fn download_log(
    State(api): State<Api>,
    Path((product, device, log)): Path<(String, String, String)>,
    Query(AsWhat { r#as }): Query<AsWhat>,
) -> Result<Response, Problem> {
    let as_sent = match r#as.as_deref() {
        None | Some("log") => false,
        Some("sent") => true,
        Some(_) => return Err(Problem::invalid(AsWhat::MESSAGE)),
    };
    let (product, device) = api.named_device(&product, &device)?;
    let desk = Arc::clone(api.commands()?);
    let kept = desk.logs().shelf.of(&product, &device, log_id(&log)?).cloned().ok_or_else(no_such_log)?;
    let target = Subject::device(&product, &device);
    api.audit.accept_one(Action::LogRead, target, &[(Key::Log, Value::Number(kept.id.0))]).await?;
    let ending = || Problem::new(StatusCode::SERVICE_UNAVAILABLE, "ending", "the broker is ending");
    let reading = Arc::clone(&api.reading).acquire_owned().await.map_err(|_| ending())?;
    let id = kept.id;
    let read = tokio::task::spawn_blocking(move || desk.read_log(&kept, as_sent)).await;
    let bytes = read.map_err(std::io::Error::other).flatten().map_err(|error| {
        tracing::error!(log = id.0, %error, "a device's log can't be read");
        api.audit.note(Action::LogRead, Some(target), Outcome::Failed("unreadable"));
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "log_unreadable", "the log's file can't be read")
    })?;
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    // It is whatever a device has sent: nobody's browser is to run it.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    let (length, bytes) = (bytes.len(), Bytes::from(bytes));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    let pieces = (0..length).step_by(PIECE_BYTES).map(move |at| {
        let _held_until_all_is_sent = &reading;
        Ok::<_, Infallible>(bytes.slice(at..length.min(at + PIECE_BYTES)))
    });
    Ok((headers, Body::from_stream(futures_util::stream::iter(pieces))).into_response())
}

/// Deletes a log.
#[utoipa::path(delete, path = "/api/v1/products/{product}/devices/{device}/logs/{log}", params(("product" = String, Path), ("device" = String, Path), ("log" = u64, Path)), responses((status = 204, description = "deleted"), (status = 404), (status = 503)), security(("token" = [])))]
pub(super) async fn delete_log(
    State(api): State<Api>,
    Path((product, device, log)): Path<(String, String, String)>,
    _: Bodiless,
) -> Result<StatusCode, Problem> {
    let (product, device) = api.named_device(&product, &device)?;
    let (desk, id) = (api.commands()?, log_id(&log)?);
    desk.logs().shelf.of(&product, &device, id).ok_or_else(no_such_log)?;
    let (action, target) = (Action::LogDelete, Subject::device(&product, &device));
    api.audit.accept_one(action, target, &[(Key::Log, Value::Number(id.0))]).await?;
    let committed = desk.delete_log(&product, &device, id).ok_or_else(no_such_log)?;
    api.await_commit(committed, action, target).await?;
    Ok(StatusCode::NO_CONTENT)
}
