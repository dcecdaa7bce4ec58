//! `gizwits` and `gizwits-legacy`: the devices of Gizwits, since 2025 and before.
//!
//! - `gizwits-legacy`: client id and user name are the device's id (`did`), the password is its passcode, ten characters that the device
//!   made itself. Nothing is hashed: whoever sees one log-in has the secret. Some of these devices speak MQTT 3.1.
//! - `gizwits`: client id `{did}`, user name `{did}|signmethod=sha256,signnonce={nonce}`, password the hex SHA-256 of
//!   `{product},{mac},{auth key},{nonce}`; some firmware puts what follows the `|` into the client id instead. **A device's secret
//!   in the registry is `{mac},{auth key}`**, as the device writes them (`{mac},{product secret}` where it has no auth key): that is what has
//!   to be known of it, it is sealed as a whole, and no other record is needed. A MAC address is twelve lower-case
//!   hexadecimal digits in the vendor's SDK.
//!
//! The client picks the nonce, and no time is signed. It is remembered for twenty minutes at least ([`crate::nonce`]), so within
//! these a captured password opens nothing; later it does. TLS is what keeps it from being captured.
//!
//! No product is named: the device is looked for by its name, the `did`.

use turnpike_core::clock::Now;

use super::{Freshness, Holder, Identity, Login, Profile};
use crate::nonce::REMEMBERED_MS;
use crate::signed::{is_gizwits_hash, is_same};

/// What a device of before 2025 sends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct GizwitsLegacy<'a> {
    device: &'a str,
    passcode: &'a [u8],
}

impl std::fmt::Debug for GizwitsLegacy<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GizwitsLegacy(…)")
    }
}

impl<'a> GizwitsLegacy<'a> {
    pub(super) fn parse(device: &'a str, password: &'a str) -> Option<Self> {
        (!device.is_empty()).then_some(Self { device, passcode: password.as_bytes() })
    }
}

impl<'a> Login<'a> for GizwitsLegacy<'a> {
    fn profile(&self) -> Profile {
        Profile::GizwitsLegacy
    }

    fn identity(&self) -> Identity<'a> {
        Identity { named: None, searched: Some(self.device) }
    }

    fn is_signed_by(&self, holder: &Holder<'_>) -> bool {
        is_same(self.passcode, holder.secret.expose())
    }
}

/// What a device of 2025 sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gizwits<'a> {
    device: &'a str,
    /// 1 to 64 ASCII letters and digits; SDKs send ten capitals.
    nonce: &'a str,
    signature: &'a str,
}

impl<'a> Gizwits<'a> {
    /// `plain` is whichever of client id and user name has no parameters, `signed` is the other.
    pub(super) fn parse(plain: &'a str, signed: &'a str, signature: &'a str) -> Option<Self> {
        let (device, parameters) = signed.split_once('|')?;
        let (mut method, mut nonce) = (None, None);
        for pair in parameters.trim_end_matches('|').split(',') {
            match pair.split_once('=')? {
                ("signmethod", value) => method = Some(value),
                ("signnonce", value) => nonce = Some(value),
                _ => {}
            }
        }
        let nonce = nonce?;
        // Without a comma, and nothing that could go on with a hash where it ends.
        let nonce_fits = (1..=64).contains(&nonce.len()) && nonce.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let fits = nonce_fits && device == plain && !device.is_empty() && method?.eq_ignore_ascii_case("sha256");
        fits.then_some(Self { device, nonce, signature })
    }
}

impl<'a> Login<'a> for Gizwits<'a> {
    fn profile(&self) -> Profile {
        Profile::Gizwits
    }

    fn identity(&self) -> Identity<'a> {
        Identity { named: None, searched: Some(self.device) }
    }

    fn freshness(&self, now: Now) -> Freshness<'a> {
        Freshness::Once { nonce: self.nonce, until_ms: now.unix_ms.saturating_add(REMEMBERED_MS) }
    }

    fn is_signed_by(&self, holder: &Holder<'_>) -> bool {
        is_gizwits_hash(holder.product, holder.secret, self.nonce, self.signature)
    }

    fn lasting_client_id(&self) -> Option<&'a str> {
        Some(self.device)
    }
}
