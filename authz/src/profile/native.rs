//! `native`: ours, by password and by challenge.
//!
//! - By password: any client id, user name `{product}/{device}`, password `v1;{timestamp_ms};{nonce};{hex}` with the HMAC-SHA256
//!   under the device's secret of `"v1\n{client_id}\n{product}\n{device}\n{timestamp_ms}\n{nonce}"`. The timestamp is
//!   within ten minutes of the broker's clock, and a nonce is good once ([`crate::nonce`]).
//! - By challenge (MQTT 5, authentication method `HMAC-SHA256`, no clock needed): the CONNECT has the same user name and no password; its
//!   authentication data is ignored. The broker's AUTH (0x18) carries a challenge of 32 random bytes. The client's AUTH
//!   (0x18) carries the HMAC-SHA256 under the device's secret of `"v1c\n{client_id}\n{product}\n{device}\n{challenge}"`, where `{challenge}` is
//!   the 32 bytes as 64 lower-case hexadecimal digits; the answer is 32 raw bytes, or 64 hexadecimal digits of either case. `{client_id}` is
//!   as sent in CONNECT, empty if the broker is to assign one; in a re-authentication (AUTH 0x19) it is the session's,
//!   the assigned one then.

use turnpike_core::clock::Now;

use super::{Freshness, Holder, Identity, Login, Profile, SignMethod, digits};
use crate::cut::cut;
use crate::nonce::WINDOW_MS;
use crate::secret::Secret;
use crate::signed::{challenge_text, is_signature, is_signature_hex, native_text};

/// How a password of this profile begins.
pub(super) const PREFIX: &str = "v1;";

/// A password of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Native<'a> {
    pub(crate) product: &'a str,
    pub(crate) device: &'a str,
    /// Any, and signed.
    pub(crate) client_id: &'a str,
    pub(crate) timestamp_ms: u64,
    /// 1 to 64 visible ASCII characters.
    pub(crate) nonce: &'a str,
    pub(crate) signature: &'a str,
}

impl<'a> Native<'a> {
    /// `rest` is what stands behind [`PREFIX`].
    pub(crate) fn parse(client_id: &'a str, user_name: &'a str, rest: &'a str) -> Option<Self> {
        let (product, device) = cut(user_name, b'/')?;
        let (timestamp, rest) = cut(rest, b';')?;
        let (nonce, signature) = cut(rest, b';')?;
        let nonce_fits = (1..=64).contains(&nonce.len()) && nonce.bytes().all(|byte| byte.is_ascii_graphic());
        if signature.as_bytes().contains(&b';') || !nonce_fits {
            return None;
        }
        Some(Self { product, device, client_id, timestamp_ms: digits(timestamp)?, nonce, signature })
    }
}

impl<'a> Login<'a> for Native<'a> {
    fn profile(&self) -> Profile {
        Profile::Native
    }

    fn identity(&self) -> Identity<'a> {
        Identity { named: Some((self.product, self.device)), searched: None }
    }

    fn freshness(&self, now: Now) -> Freshness<'a> {
        if self.timestamp_ms.abs_diff(now.unix_ms) > WINDOW_MS {
            return Freshness::Stale;
        }
        Freshness::Once { nonce: self.nonce, until_ms: self.timestamp_ms.saturating_add(WINDOW_MS) }
    }

    fn is_signed_by(&self, holder: &Holder<'_>) -> bool {
        let text = native_text(self.client_id, self.product, self.device, self.timestamp_ms, self.nonce);
        is_signature_hex(SignMethod::Sha256, holder.secret.expose(), &text, self.signature)
    }
}

/// Whether `answer` answers a challenge.
#[must_use]
pub fn answers(secret: &Secret, client_id: &str, product: &str, device: &str, challenge: &[u8], answer: &[u8]) -> bool {
    let text = challenge_text(client_id, product, device, challenge);
    match (answer.len(), std::str::from_utf8(answer)) {
        (64, Ok(answer)) => is_signature_hex(SignMethod::Sha256, secret.expose(), &text, answer),
        _ => is_signature(SignMethod::Sha256, secret.expose(), &text, answer),
    }
}
