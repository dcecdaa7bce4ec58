//! Where a record may go, and of what time it may be.

use turnpike_mqtt::TopicName;

use super::RecordError;
use crate::bounds::Bounds;

/// From this far on, either way, a time says nothing of the record: ten years in milliseconds.
pub const CLOCK_OFF_MS: u64 = 3_653 * 24 * 3600 * 1000;

/// What of its own tree a device doesn't hand in later: the exchange itself, and what the broker answers at once or not at all. So with
/// [`Tree::is_of_firmware`].
const RESERVED: [&str; 3] = ["backfill", "ota", "sys"];

/// A device's own topics, `dev/{product}/{device}/…`.
#[derive(Clone, Copy, Debug)]
pub struct Tree<'a> {
    product: &'a str,
    device: &'a str,
}

impl<'a> Tree<'a> {
    /// Of a device.
    #[must_use]
    pub fn new(product: &'a str, device: &'a str) -> Self {
        Self { product, device }
    }

    /// Writes the topic that a record is published on into `out`, without what was there.
    pub fn topic(&self, written: &str, out: &mut String) {
        out.clear();
        if written.starts_with("up/") {
            out.extend(["dev/", self.product, "/", self.device, "/"]);
        }
        out.push_str(written);
    }

    pub(super) fn check(&self, written: &str, bounds: &Bounds) -> Result<(), RecordError> {
        let is_short = written.starts_with("up/");
        let prefix = if is_short { "dev///".len() + self.product.len() + self.device.len() } else { 0 };
        if written.len() + prefix > bounds.topic_bytes_max {
            return Err(RecordError::TopicTooLong);
        }
        TopicName::parse(written).map_err(|_| RecordError::BadTopic)?;
        if written.starts_with('$') && written.split('/').next() == Some("$SYS")
            || self.is_reserved(written)
            || self.is_of_firmware(written)
        {
            return Err(RecordError::ReservedTopic);
        }
        Ok(())
    }

    fn is_reserved(&self, whole: &str) -> bool {
        let mut levels = whole.split('/');
        let own =
            levels.next() == Some("dev") && levels.next() == Some(self.product) && levels.next() == Some(self.device);
        own && levels.next().is_some_and(|level| RESERVED.contains(&level))
    }

    /// The exchange about firmware on the topics of Aliyun's devices: `/ota/…` and `/sys/{product}/{device}/thing/ota/…`.
    fn is_of_firmware(&self, whole: &str) -> bool {
        if whole.starts_with("/ota/") {
            return true;
        }
        let Some(rest) = whole.strip_prefix("/sys/") else { return false };
        let rest = rest.strip_prefix(self.product).and_then(|rest| rest.strip_prefix('/'));
        let rest = rest.and_then(|rest| rest.strip_prefix(self.device));
        rest.is_some_and(|rest| rest == "/thing/ota" || rest.starts_with("/thing/ota/"))
    }
}

pub(super) fn time(ts_ms: i64, now_unix_ms: u64, bounds: &Bounds) -> Result<(), RecordError> {
    let now = i64::try_from(now_unix_ms).unwrap_or(i64::MAX);
    let off = ts_ms.abs_diff(now);
    match ts_ms <= now {
        _ if off >= CLOCK_OFF_MS => Err(RecordError::ClockOff),
        true if off > bounds.past_ms_max => Err(RecordError::TooOld),
        false if off > bounds.ahead_ms_max => Err(RecordError::InFuture),
        _ => Ok(()),
    }
}
