//! `azure`: Azure IoT Hub, a device with its own shared access key.
//!
//! Client id `{device}`, user name `{host}/{device}/?api-version=…` (or without what follows the device, as older SDKs have it), password
//! `SharedAccessSignature sr={resource}&sig={signature}&se={expiry}`, in any order, other fields ignored. The resource is
//! `{host}/devices/{device}`, escaped for a URL as the client likes; the signature is the base64, escaped, of the HMAC-SHA256 of `"{sr}\n{se}"`,
//! as these stand there, under the device's key. That key is base64, too, and the registry has it in that form. It opens until `{expiry}`
//! (Unix seconds), as often as one likes.
//!
//! The host is not looked at, and no product is named: the device is looked for by its name. Signatures of a hub's policies, whose resource
//! isn't the device, and modules of a device are refused.

use base64::Engine;
use turnpike_core::clock::Now;

use super::{Freshness, Holder, Identity, Login, Profile, SignMethod, digits};
use crate::signed::{BASE64, azure_text, is_signature, key_of_base64};

/// How a password of this profile begins.
pub(super) const PREFIX: &str = "SharedAccessSignature ";

/// Bytes of a resource or a signature before anything is unescaped.
const ESCAPED_BYTES_MAX: usize = 1024;

/// What an azure SDK sends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Azure<'a> {
    device: &'a str,
    /// As sent, which is what is signed.
    resource: &'a str,
    /// As sent, which is what is signed.
    expiry: &'a str,
    expiry_s: u64,
    /// Empty if it can't be one.
    signature: Vec<u8>,
}

impl<'a> Azure<'a> {
    /// `rest` is what stands behind [`PREFIX`].
    pub(super) fn parse(device: &'a str, user_name: &'a str, rest: &'a str) -> Option<Self> {
        let mut levels = user_name.split('/');
        let (host, named) = (levels.next()?, levels.next()?);
        let version = levels.next().unwrap_or("");
        let fits = !host.is_empty() && !device.is_empty() && named == device && levels.next().is_none();
        if !fits || !(version.is_empty() || version.contains("api-version=")) {
            return None;
        }
        let (mut resource, mut signature, mut expiry) = (None, None, None);
        for pair in rest.split('&') {
            match pair.split_once('=')? {
                ("sr", value) => resource = Some(value),
                ("sig", value) => signature = Some(value),
                ("se", value) => expiry = Some(value),
                _ => {}
            }
        }
        let (resource, expiry) = (resource?, expiry?);
        let path = unescaped(resource)?;
        let owner = path.split(|byte| *byte == b'/').skip(1).collect::<Vec<_>>();
        if owner != [b"devices", device.as_bytes()] {
            return None;
        }
        let signature = unescaped(signature?).and_then(|text| BASE64.decode(text).ok()).unwrap_or_default();
        Some(Self { device, resource, expiry, expiry_s: digits(expiry)?, signature })
    }
}

impl<'a> Login<'a> for Azure<'a> {
    fn profile(&self) -> Profile {
        Profile::Azure
    }

    fn identity(&self) -> Identity<'a> {
        Identity { named: None, searched: Some(self.device) }
    }

    fn freshness(&self, now: Now) -> Freshness<'a> {
        if self.expiry_s > now.unix_s() { Freshness::Enough } else { Freshness::Stale }
    }

    fn is_signed_by(&self, holder: &Holder<'_>) -> bool {
        let (key, is_key) = key_of_base64(holder.secret);
        let text = azure_text(self.resource, self.expiry);
        is_signature(SignMethod::Sha256, &key, &text, &self.signature) && is_key
    }
}

/// Undoes the escapes of a URL.
fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut rest = text.as_bytes();
    let mut bytes = Vec::with_capacity(rest.len().min(ESCAPED_BYTES_MAX));
    if rest.len() > ESCAPED_BYTES_MAX {
        return None;
    }
    loop {
        rest = match rest {
            [] => return Some(bytes),
            [b'%', high, low, rest @ ..] => {
                let mut byte = [0];
                hex::decode_to_slice([*high, *low], &mut byte).ok()?;
                bytes.extend(byte);
                rest
            }
            [b'%', ..] => return None,
            [byte, rest @ ..] => {
                bytes.push(*byte);
                rest
            }
        };
    }
}

/// Escapes for a URL whatever isn't unreserved (RFC 3986, 2.3).
pub(crate) fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |text, byte| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            text + char::from(byte).encode_utf8(&mut [0; 4])
        }
        _ => text + &format!("%{byte:02X}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone() {
        for text in ["", "a", "host.net/devices/d+1 é%", "=/+"] {
            assert_eq!(unescaped(&escaped(text)), Some(text.as_bytes().to_vec()), "{text}");
        }
        assert_eq!(unescaped("a%2fb%2F"), Some(b"a/b/".to_vec()));
        for bad in ["%", "%2", "%zz", "a%", "%%41", &"a".repeat(ESCAPED_BYTES_MAX + 1)] {
            assert_eq!(unescaped(bad), None, "{bad}");
        }
    }
}
