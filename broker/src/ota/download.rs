//! Downloads over HTTP: a file or a range of it, to whoever has a token (RFC 9110, sections 13 and 14).

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use turnpike_ota::firmware::{State as Stage, Whole};
use turnpike_ota::ids::FirmwareId;
use turnpike_ota::machine::Kind;
use turnpike_ota::token::TokenError;
use turnpike_ota::wire::gizwits::MD5_HEADER;

use super::shelf::{Opened, ShelfError};
use super::state::is_void;
use super::watched::{DEVICE_DOWNLOADS_MAX, DownloadKey, Watched};
use super::{OtaDesk, count};
use crate::http::{Shares, refused};

/// What every download needs.
#[derive(Clone)]
pub(super) struct Downloads {
    desk: Arc<OtaDesk>,
    places: Shares<DownloadKey>,
    room: Arc<Semaphore>,
}

impl Downloads {
    pub(super) fn new(desk: Arc<OtaDesk>) -> Self {
        let room = Arc::new(Semaphore::new(desk.settings.downloads_max));
        Self { desk, places: Shares::default(), room }
    }
}

/// The token of a query. Of two it can't be said which one is meant.
fn only_token(query: Vec<(String, String)>) -> Option<String> {
    let mut tokens = query.into_iter().filter(|(name, _)| name == "token").map(|(_, token)| token);
    tokens.next().filter(|_| tokens.next().is_none())
}

/// Why there is nothing to download.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Denied {
    #[error("a token is needed: the link that the device was offered has one")]
    NoToken,
    #[error("the token isn't one of this firmware")]
    Invalid,
    #[error("the token has expired; a new check gives a new one")]
    Expired,
    #[error("the campaign has stopped, or the device is no longer in it")]
    Stopped,
    #[error("the firmware was withdrawn")]
    Withdrawn,
    #[error("too many download at the moment; try again later")]
    Busy,
    #[error("this device has {DEVICE_DOWNLOADS_MAX} downloads already; try again when one has ended")]
    DeviceBusy,
}

impl Denied {
    const fn code(self) -> &'static str {
        match self {
            Self::NoToken => "token_missing",
            Self::Invalid => "token_invalid",
            Self::Expired => "token_expired",
            Self::Stopped => "campaign_stopped",
            Self::Withdrawn => "firmware_withdrawn",
            Self::Busy => "busy",
            Self::DeviceBusy => "device_busy",
        }
    }

    fn answer(self) -> Response {
        let status = match self {
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::DeviceBusy => StatusCode::TOO_MANY_REQUESTS,
            _ => StatusCode::FORBIDDEN,
        };
        let answer = refused(status, self.code(), &self.to_string());
        if matches!(self, Self::Busy | Self::DeviceBusy) {
            ([(header::RETRY_AFTER, "30")], answer).into_response()
        } else {
            answer
        }
    }
}

/// What is sent, and what it is.
pub(super) struct Granted {
    /// To whom.
    device: DownloadKey,
    whole: Whole,
    etag: String,
    /// In hexadecimal digits, for devices that check no other.
    md5: String,
}

pub(super) async fn serve(
    State(downloads): State<Downloads>,
    Path(firmware): Path<String>,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    let counts = &downloads.desk.counts;
    let denied = |denied: Denied| {
        downloads.desk.deny(denied);
        denied.answer()
    };
    let token = query.ok().and_then(|Query(asked)| only_token(asked));
    let Ok(id) = firmware.parse().map(FirmwareId) else { return denied(Denied::Invalid) };
    let granted = match downloads.desk.granted(id, token.as_deref()) {
        Ok(granted) => granted,
        Err(why) => return denied(why),
    };
    let Some(place) = downloads.places.take(granted.device.clone(), DEVICE_DOWNLOADS_MAX) else {
        return denied(Denied::DeviceBusy);
    };
    let Ok(permit) = Arc::clone(&downloads.room).try_acquire_owned() else { return denied(Denied::Busy) };
    let asked = asked(&method, &headers, &granted);
    let opened = match downloads.desk.open(id, &granted.whole) {
        Ok(opened) => begin(opened, asked.bytes(&granted)).await,
        Err(error) => Err(error),
    };
    let (opened, first) = match opened {
        Ok(begun) => begun,
        Err(error) => return unreadable(id, &error),
    };
    count(&counts.downloads);
    let answer = answer(&downloads.desk, (opened, first, permit), &granted, asked);
    Watched { desk: downloads.desk, firmware: id, token: token.unwrap_or_default(), _place: place }.answer(answer)
}

/// Reads where the answer begins, before it says that all is well.
async fn begin(opened: Opened, bytes: Option<(u64, u64)>) -> Result<(Opened, Bytes), ShelfError> {
    let first = match bytes {
        Some((from, to)) => opened.next(from, to).await?,
        None => Bytes::new(),
    };
    Ok((opened, first))
}

/// A file that should be there and can't be read. Where that passes, the device is told so.
fn unreadable(id: FirmwareId, error: &ShelfError) -> Response {
    tracing::error!(firmware = %id, %error, "the file of a firmware can't be read");
    let message = "the file can't be read at the moment; try again later";
    match error {
        ShelfError::Unreachable(_) => {
            let answer = refused(StatusCode::SERVICE_UNAVAILABLE, error.code(), message);
            ([(header::RETRY_AFTER, "30")], answer).into_response()
        }
        ShelfError::Denied(_) | ShelfError::Missing(_) | ShelfError::Damaged | ShelfError::Failed(_) => {
            refused(StatusCode::BAD_GATEWAY, error.code(), message)
        }
        ShelfError::File(_) => refused(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the file can't be read"),
    }
}

impl OtaDesk {
    /// Counts a download that isn't granted.
    pub(super) fn deny(&self, denied: Denied) {
        count(&self.counts.downloads_refused);
        self.denied.add(denied.code());
    }

    /// What a token gives at this moment.
    pub(super) fn granted(&self, id: FirmwareId, token: Option<&str>) -> Result<Granted, Denied> {
        let now_s = self.shell().control.now().unix_s();
        let grant = self.tokens.open(token.ok_or(Denied::NoToken)?, now_s).map_err(|error| match error {
            TokenError::Invalid => Denied::Invalid,
            TokenError::Expired => Denied::Expired,
        })?;
        if grant.firmware != id {
            return Err(Denied::Invalid);
        }
        let state = self.state.lock();
        let campaign = state.scheduler.campaign(grant.campaign).ok_or(Denied::Stopped)?;
        let member = state.scheduler.member(grant.campaign, &grant.device).ok_or(Denied::Stopped)?;
        if is_void(campaign.life().state) || member.standing.state.kind() == Kind::Cancelled {
            return Err(Denied::Stopped);
        }
        match state.catalog.get(id).map(|firmware| &firmware.state) {
            Some(Stage::Ready(contents)) => {
                let etag = format!("\"{}\"", hex::encode(contents.whole.digests.sha256));
                let md5 = hex::encode(contents.whole.digests.md5);
                let device = (grant.product.clone(), grant.device.clone());
                Ok(Granted { device, whole: contents.whole, etag, md5 })
            }
            _ => Err(Denied::Withdrawn),
        }
    }
}

/// Which part of a file is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    Whole,
    /// From the first to the last byte of it.
    Range(u64, u64),
    /// None of the file's.
    Unsatisfiable,
}

/// A single range of bytes. What isn't one is passed over, as RFC 9110 wants it: then the whole is sent, and so it is for several ranges.
fn part(headers: &HeaderMap, granted: &Granted) -> Part {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    // Strong comparison: dates are never sent, so none matches.
    if text(header::IF_RANGE).is_some_and(|validator| validator != granted.etag) {
        return Part::Whole;
    }
    let Some(range) = text(header::RANGE).and_then(|range| range.strip_prefix("bytes=")) else { return Part::Whole };
    let Some((first, last)) = range.trim().split_once('-') else { return Part::Whole };
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(first) || !is_number(last) {
        return Part::Whole;
    }
    // Numbers beyond any file's are beyond this one's.
    let read = |text: &str| text.parse::<u64>().unwrap_or(u64::MAX);
    let bytes = granted.whole.bytes;
    let end = bytes.saturating_sub(1);
    match (first, last) {
        ("", "") => Part::Whole,
        ("", last) => match read(last) {
            0 => Part::Unsatisfiable,
            suffix => Part::Range(bytes.saturating_sub(suffix), end),
        },
        (first, _) if read(first) > end => Part::Unsatisfiable,
        (first, "") => Part::Range(read(first), end),
        (first, last) if read(last) < read(first) => Part::Whole,
        (first, last) => Part::Range(read(first), read(last).min(end)),
    }
}

/// What is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Answer {
    NotModified,
    Unsatisfiable,
    /// To a HEAD: of the whole.
    Head,
    Whole,
    /// The bytes from the first to before the second.
    Range(u64, u64),
}

impl Answer {
    /// Which bytes go out, from the first to before the second.
    fn bytes(self, granted: &Granted) -> Option<(u64, u64)> {
        match self {
            Self::Whole => Some((0, granted.whole.bytes)),
            Self::Range(from, to) => Some((from, to)),
            Self::NotModified | Self::Unsatisfiable | Self::Head => None,
        }
    }
}

fn asked(method: &Method, headers: &HeaderMap, granted: &Granted) -> Answer {
    if headers.get(header::IF_NONE_MATCH).is_some_and(|tag| tag.as_bytes() == granted.etag.as_bytes()) {
        return Answer::NotModified;
    }
    // Of a HEAD a range means nothing (RFC 9110, section 14.2).
    if *method == Method::HEAD {
        return Answer::Head;
    }
    match part(headers, granted) {
        Part::Whole => Answer::Whole,
        Part::Range(first, last) => Answer::Range(first, last + 1),
        Part::Unsatisfiable => Answer::Unsatisfiable,
    }
}

fn answer(
    desk: &Arc<OtaDesk>,
    (opened, first, permit): (Opened, Bytes, OwnedSemaphorePermit),
    granted: &Granted,
    asked: Answer,
) -> Response {
    let total = granted.whole.bytes;
    let base = Response::builder()
        .header(header::ETAG, &granted.etag)
        .header(MD5_HEADER, &granted.md5)
        .header(header::CONTENT_DISPOSITION, "attachment; filename=\"firmware.bin\"")
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::CACHE_CONTROL, "private, no-transform");
    let built = match asked {
        Answer::NotModified => base.status(StatusCode::NOT_MODIFIED).body(Body::empty()),
        Answer::Unsatisfiable => base
            .status(StatusCode::RANGE_NOT_SATISFIABLE)
            .header(header::CONTENT_RANGE, format!("bytes */{total}"))
            .body(Body::empty()),
        Answer::Head => base
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header(header::CONTENT_LENGTH, total)
            .body(Body::empty()),
        Answer::Whole => base
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header(header::CONTENT_LENGTH, total)
            .body(stream(desk, (opened, first), permit, (0, total))),
        Answer::Range(from, to) => base
            .status(StatusCode::PARTIAL_CONTENT)
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header(header::CONTENT_RANGE, format!("bytes {from}-{}/{total}", to - 1))
            .header(header::CONTENT_LENGTH, to - from)
            .body(stream(desk, (opened, first), permit, (from, to))),
    };
    built.unwrap_or_else(|_| refused(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the answer can't be made"))
}

/// The file from `from` to before `to`, a chunk at a time, of which the first has been read. A file that can't be read on breaks the connection off, so that no
/// device takes it for whole.
fn stream(
    desk: &Arc<OtaDesk>,
    (opened, first): (Opened, Bytes),
    permit: OwnedSemaphorePermit,
    (from, to): (u64, u64),
) -> Body {
    let begin = (Arc::clone(desk), opened, Some(first), permit, from);
    let chunks = futures_util::stream::unfold(begin, move |(desk, opened, first, permit, at)| async move {
        if at >= to {
            return None;
        }
        let read = match first {
            Some(first) => Ok(first),
            None => opened.next(at, to).await,
        };
        let next = match &read {
            Ok(bytes) => {
                desk.counts.download_bytes.fetch_add(bytes.len() as u64, Relaxed);
                at + bytes.len() as u64
            }
            Err(error) => {
                tracing::error!(%error, "the file of a firmware can't be read on");
                to
            }
        };
        Some((read, (desk, opened, None, permit, next)))
    });
    Body::from_stream(chunks)
}

#[cfg(test)]
mod tests {
    use turnpike_ota::firmware::Digests;

    use super::*;

    fn of(range: &str, if_range: Option<&str>) -> Part {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, range.parse().expect("a value"));
        if let Some(validator) = if_range {
            headers.insert(header::IF_RANGE, validator.parse().expect("a value"));
        }
        let digests = Digests { sha256: [0; 32], md5: [0; 16], crc32: 0 };
        let whole = Whole { bytes: 100, digests };
        part(
            &headers,
            &Granted { device: DownloadKey::default(), whole, etag: "\"tag\"".to_owned(), md5: String::new() },
        )
    }

    #[test]
    fn a_range_is_single_and_within_the_file() {
        for (range, expected) in [
            ("bytes=0-0", Part::Range(0, 0)),
            ("bytes=37-", Part::Range(37, 99)),
            ("bytes=37-1000", Part::Range(37, 99)),
            ("bytes=-10", Part::Range(90, 99)),
            ("bytes=-1000", Part::Range(0, 99)),
            ("bytes=99-", Part::Range(99, 99)),
            ("bytes=100-", Part::Unsatisfiable),
            ("bytes=99999999999999999999-", Part::Unsatisfiable),
            ("bytes=-0", Part::Unsatisfiable),
            ("bytes=5-4", Part::Whole),
            ("bytes=-", Part::Whole),
            ("bytes=0-1,3-4", Part::Whole),
            ("bytes=+1-", Part::Whole),
            ("lines=0-1", Part::Whole),
        ] {
            assert_eq!(of(range, None), expected, "{range}");
        }
        assert_eq!(of("bytes=37-", Some("\"tag\"")), Part::Range(37, 99));
        for other in ["\"gat\"", "W/\"tag\"", "Wed, 21 Oct 2015 07:28:00 GMT"] {
            assert_eq!(of("bytes=37-", Some(other)), Part::Whole, "{other}");
        }
    }
}
