//! `tuya`: TuyaLink, the standard MQTT protocol of Tuya.
//!
//! Client id `tuyalink_{device}`, user name `{device}|signMethod=hmacSha256,timestamp={t},secureMode=1,accessType=1`, password the hex
//! HMAC-SHA256 of `deviceId={device},timestamp={t},secureMode=1,accessType=1`. The timestamp is in seconds, in the vendor's Java demo in
//! milliseconds; it is within ten minutes of the broker's clock, and until then the password opens as often as one likes.
//!
//! No product is named: the device is looked for by its name.

use turnpike_core::clock::Now;

use super::{Freshness, Holder, Identity, Login, Profile, SignMethod, digits};
use crate::nonce::WINDOW_MS;
use crate::signed::{is_signature_hex, tuya_text};

/// How a client id of this profile begins.
pub(super) const PREFIX: &str = "tuyalink_";

/// From here on it is milliseconds: seconds of the year 5138, milliseconds of 1973.
const MILLISECONDS_FROM: u64 = 100_000_000_000;

/// What a tuya SDK sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tuya<'a> {
    device: &'a str,
    /// As sent, which is what is signed.
    timestamp: &'a str,
    timestamp_ms: u64,
    secure_mode: &'a str,
    access_type: &'a str,
    signature: &'a str,
}

impl<'a> Tuya<'a> {
    /// `device` is what stands behind [`PREFIX`].
    pub(super) fn parse(device: &'a str, user_name: &'a str, signature: &'a str) -> Option<Self> {
        let parameters = user_name.strip_prefix(device)?.strip_prefix('|')?;
        let (mut method, mut timestamp, mut secure_mode, mut access_type) = (None, None, None, None);
        for pair in parameters.trim_end_matches('|').split(',') {
            match pair.split_once('=')? {
                ("signMethod", value) => method = Some(value),
                ("timestamp", value) => timestamp = Some(value),
                ("secureMode", value) => secure_mode = Some(value),
                ("accessType", value) => access_type = Some(value),
                _ => {}
            }
        }
        let timestamp = timestamp?;
        let number = digits(timestamp)?;
        let timestamp_ms = if number < MILLISECONDS_FROM { number * 1000 } else { number };
        let (secure_mode, access_type) = (secure_mode?, access_type?);
        let fits = method?.eq_ignore_ascii_case("hmacSha256") && !device.is_empty();
        fits.then_some(Self { device, timestamp, timestamp_ms, secure_mode, access_type, signature })
    }
}

impl<'a> Login<'a> for Tuya<'a> {
    fn profile(&self) -> Profile {
        Profile::Tuya
    }

    fn identity(&self) -> Identity<'a> {
        Identity { named: None, searched: Some(self.device) }
    }

    fn freshness(&self, now: Now) -> Freshness<'a> {
        if self.timestamp_ms.abs_diff(now.unix_ms) > WINDOW_MS { Freshness::Stale } else { Freshness::Enough }
    }

    fn is_signed_by(&self, holder: &Holder<'_>) -> bool {
        let text = tuya_text(self.device, self.timestamp, self.secure_mode, self.access_type);
        is_signature_hex(SignMethod::Sha256, holder.secret.expose(), &text, self.signature)
    }
}
