//! Downloads that are under way: each device has a few at once, and what gave it the file is asked for again and again.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use futures_util::StreamExt;
use tokio::time::Instant;
use turnpike_ota::ids::FirmwareId;

use super::OtaDesk;
use crate::http::Share;

/// Downloads of a device at once. Some clients ask for the next part before the last one has gone.
pub(super) const DEVICE_DOWNLOADS_MAX: usize = 2;
/// Bytes after which it is looked again whether the device may have the file,
const LOOK_BYTES: usize = 1 << 20;
/// or the time after which it is, if that comes first.
const LOOK_TIME: Duration = Duration::from_secs(1);

/// A download that has been granted.
pub(super) struct Watched {
    pub(super) desk: Arc<OtaDesk>,
    pub(super) firmware: FirmwareId,
    pub(super) token: String,
    /// Its part of what the device may have at once, until it ends.
    pub(super) _place: Share<DownloadKey>,
}

/// Whose downloads count together.
pub(super) type DownloadKey = (Box<str>, Box<str>);

/// When it was looked last, and what has gone since.
struct Looked {
    at: Instant,
    bytes: usize,
}

impl Looked {
    /// Whether it is time to look again, before so many bytes go.
    fn is_due(&mut self, bytes: usize, now: Instant) -> bool {
        self.bytes += bytes;
        let is_due = self.bytes >= LOOK_BYTES || now.duration_since(self.at) >= LOOK_TIME;
        if is_due {
            *self = Self { at: now, bytes: 0 };
        }
        is_due
    }
}

impl Watched {
    /// The answer, whose connection breaks off when the device may have the file no more: its campaign has stopped, its token has expired, the firmware was
    /// withdrawn.
    pub(super) fn answer(self, response: Response) -> Response {
        if response.body().size_hint().exact() == Some(0) {
            return response;
        }
        let mut looked = Looked { at: Instant::now(), bytes: 0 };
        response.map(|body| {
            Body::from_stream(body.into_data_stream().map(move |chunk| {
                let chunk = chunk.map_err(io::Error::other)?;
                self.judge(chunk, &mut looked)
            }))
        })
    }

    fn judge(&self, chunk: Bytes, looked: &mut Looked) -> io::Result<Bytes> {
        let Self { desk, firmware, token, _place } = self;
        if looked.is_due(chunk.len(), Instant::now())
            && let Err(denied) = desk.granted(*firmware, Some(token))
        {
            tracing::info!(%firmware, %denied, "a download is broken off");
            desk.deny(denied);
            return Err(io::Error::other(denied));
        }
        Ok(chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_looked_again_after_a_mebibyte_or_a_second() {
        let begin = Instant::now();
        let mut looked = Looked { at: begin, bytes: 0 };
        assert!(!looked.is_due(LOOK_BYTES - 1, begin));
        assert!(looked.is_due(1, begin));
        assert!(!looked.is_due(LOOK_BYTES - 1, begin), "it begins anew");
        let later = begin + LOOK_TIME;
        assert!(looked.is_due(0, later) && !looked.is_due(0, later));
    }
}
