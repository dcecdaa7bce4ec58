//! Downloads over HTTP: a file or a range of it, to whoever has a token (RFC 9110, sections 13 and 14).

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use turnpike_ota::firmware::State as Stage;
use turnpike_ota::ids::FirmwareId;
use turnpike_ota::machine::Kind;
use turnpike_ota::token::TokenError;
use turnpike_ota::wire::gizwits::MD5_HEADER;

use super::state::is_void;
use super::watched::{DEVICE_DOWNLOADS_MAX, DownloadKey, Watched};
use super::{OtaDesk, count, files};
use crate::http::{Shares, refused};

/// Bytes that are read at once: what a download holds in memory.
const CHUNK_BYTES: usize = 256 << 10;

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
    bytes: u64,
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
    let file = match files::open(&downloads.desk.folder, id) {
        Ok(file) => file,
        Err(error) => {
            tracing::error!(firmware = %id, %error, "the file of a firmware can't be opened");
            return refused(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the file can't be read");
        }
    };
    count(&counts.downloads);
    let answer = answer(&downloads.desk, (file, permit), &granted, &method, &headers);
    Watched { desk: downloads.desk, firmware: id, token: token.unwrap_or_default(), _place: place }.answer(answer)
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
                Ok(Granted { device, bytes: contents.whole.bytes, etag, md5 })
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
    let end = granted.bytes.saturating_sub(1);
    match (first, last) {
        ("", "") => Part::Whole,
        ("", last) => match read(last) {
            0 => Part::Unsatisfiable,
            suffix => Part::Range(granted.bytes.saturating_sub(suffix), end),
        },
        (first, _) if read(first) > end => Part::Unsatisfiable,
        (first, "") => Part::Range(read(first), end),
        (first, last) if read(last) < read(first) => Part::Whole,
        (first, last) => Part::Range(read(first), read(last).min(end)),
    }
}

fn answer(
    desk: &Arc<OtaDesk>,
    (file, permit): (File, OwnedSemaphorePermit),
    granted: &Granted,
    method: &Method,
    headers: &HeaderMap,
) -> Response {
    let total = granted.bytes;
    let base = Response::builder()
        .header(header::ETAG, &granted.etag)
        .header(MD5_HEADER, &granted.md5)
        .header(header::CONTENT_DISPOSITION, "attachment; filename=\"firmware.bin\"")
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::CACHE_CONTROL, "private, no-transform");
    let matches = headers.get(header::IF_NONE_MATCH).is_some_and(|tag| tag.as_bytes() == granted.etag.as_bytes());
    // Of a HEAD a range means nothing (RFC 9110, section 14.2).
    let part = if *method == Method::HEAD { Part::Whole } else { part(headers, granted) };
    let built = match part {
        _ if matches => base.status(StatusCode::NOT_MODIFIED).body(Body::empty()),
        Part::Unsatisfiable => base
            .status(StatusCode::RANGE_NOT_SATISFIABLE)
            .header(header::CONTENT_RANGE, format!("bytes */{total}"))
            .body(Body::empty()),
        Part::Whole => {
            let body = if *method == Method::HEAD { Body::empty() } else { stream(desk, file, permit, 0, total) };
            base.status(StatusCode::OK)
                .header(header::CONTENT_TYPE, "application/octet-stream")
                .header(header::CONTENT_LENGTH, total)
                .body(body)
        }
        Part::Range(first, last) => base
            .status(StatusCode::PARTIAL_CONTENT)
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header(header::CONTENT_RANGE, format!("bytes {first}-{last}/{total}"))
            .header(header::CONTENT_LENGTH, last - first + 1)
            .body(stream(desk, file, permit, first, last + 1)),
    };
    built.unwrap_or_else(|_| refused(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the answer can't be made"))
}

/// The file from `from` to before `to`, a chunk at a time. A file that can't be read on breaks the connection off, so that no device takes it for whole.
fn stream(desk: &Arc<OtaDesk>, file: File, permit: OwnedSemaphorePermit, from: u64, to: u64) -> Body {
    let begin = (Arc::clone(desk), Arc::new(file), permit, from);
    let chunks = futures_util::stream::unfold(begin, move |(desk, file, permit, at)| async move {
        let length = usize::try_from(to - at).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        if length == 0 {
            return None;
        }
        let read = files::read(&file, at, length).await;
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
        Some((read, (desk, file, permit, next)))
    });
    Body::from_stream(chunks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(range: &str, if_range: Option<&str>) -> Part {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, range.parse().expect("a value"));
        if let Some(validator) = if_range {
            headers.insert(header::IF_RANGE, validator.parse().expect("a value"));
        }
        part(
            &headers,
            &Granted { device: DownloadKey::default(), bytes: 100, etag: "\"tag\"".to_owned(), md5: String::new() },
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
