//! The log-in formats that devices speak, as the broker reads them. [`crate::credential`] writes them.
//!
//! - `native`: any client id, user name `{product}/{device}`, password `v1;{timestamp_ms};{nonce};{hex}` with the HMAC-SHA256
//!   under the device's secret of `"v1\n{client_id}\n{product}\n{device}\n{timestamp_ms}\n{nonce}"`. The timestamp is
//!   within ten minutes of the broker's clock, and a nonce is good once ([`crate::nonce`]).
//! - `native` by challenge (MQTT 5, authentication method `HMAC-SHA256`, no clock needed): the CONNECT has the same user name and no password; its
//!   authentication data is ignored. The broker's AUTH (0x18) carries a challenge of 32 random bytes. The client's AUTH
//!   (0x18) carries the HMAC-SHA256 under the device's secret of `"v1c\n{client_id}\n{product}\n{device}\n{challenge}"`, where `{challenge}` is
//!   the 32 bytes as 64 lower-case hexadecimal digits; the answer is 32 raw bytes, or 64 hexadecimal digits of either case. `{client_id}` is
//!   as sent in CONNECT, empty if the broker is to assign one; in a re-authentication (AUTH 0x19) it is the session's,
//!   the assigned one then.
//! - `aliyun`: client id `{id}|securemode=…,signmethod=…,timestamp=…|` (in any order, others ignored), user name `{device}&{product}`, password the hex HMAC,
//!   of either case, of `clientId{id}deviceName{device}productKey{product}timestamp{timestamp}`; without `timestamp…` where the client
//!   id has none. SDKs put constants and seconds there, so it proves nothing about freshness: a captured password opens
//!   until the secret is changed. Products that must not have that allow `native` alone.

use std::fmt;

use crate::secret::Secret;
use crate::signed::{aliyun_text, challenge_text, is_signature, is_signature_hex, native_text};

/// A log-in format.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Profile {
    /// Ours.
    Native = 1,
    /// Alibaba Cloud IoT's one-device-one-secret.
    Aliyun = 2,
}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Native, Self::Aliyun];

    /// As it is called in configuration and in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Aliyun => "aliyun",
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = || Self::ALL.map(Self::as_str).join(" and ");
        let found = Self::ALL.into_iter().find(|profile| profile.as_str() == text);
        found.ok_or_else(|| format!("there is no profile {text:?}; there are {}", known()))
    }
}

/// Which profiles a product takes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProfileSet(u8);

impl ProfileSet {
    /// Every profile that this version knows.
    pub const ALL: Self = Self(Profile::Native as u8 | Profile::Aliyun as u8);

    /// From the bits of a record; none if there is one that this version doesn't know.
    #[must_use]
    pub fn from_bits(bits: u8) -> Option<Self> {
        (bits & !Self::ALL.0 == 0).then_some(Self(bits))
    }

    /// For a record. A profile's bit never changes.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Whether it is in the set.
    #[must_use]
    pub fn contains(self, profile: Profile) -> bool {
        self.0 & profile as u8 != 0
    }

    /// What is in the set.
    pub fn iter(self) -> impl Iterator<Item = Profile> {
        Profile::ALL.into_iter().filter(move |profile| self.contains(*profile))
    }
}

impl FromIterator<Profile> for ProfileSet {
    fn from_iter<I: IntoIterator<Item = Profile>>(profiles: I) -> Self {
        Self(profiles.into_iter().fold(0, |bits, profile| bits | profile as u8))
    }
}

impl fmt::Debug for ProfileSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// The hash of a signature.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SignMethod {
    /// `hmacsha256`.
    Sha256,
    /// `hmacsha1`.
    Sha1,
    /// `hmacmd5`.
    Md5,
}

impl SignMethod {
    /// As it stands in an aliyun client id.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "hmacsha256",
            Self::Sha1 => "hmacsha1",
            Self::Md5 => "hmacmd5",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Sha256, Self::Sha1, Self::Md5].into_iter().find(|method| method.as_str().eq_ignore_ascii_case(text))
    }
}

/// What a CONNECT says of itself, taken apart and not yet believed. `Debug` shows its format alone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Claim<'a> {
    /// `native`.
    Native {
        /// Product key.
        product: &'a str,
        /// Device name.
        device: &'a str,
        /// The client id, which is signed.
        client_id: &'a str,
        /// Milliseconds since 1970 UTC.
        timestamp_ms: u64,
        /// 1 to 64 visible ASCII characters.
        nonce: &'a str,
        /// Hexadecimal.
        signature: &'a str,
    },
    /// `aliyun`.
    Aliyun {
        /// Product key.
        product: &'a str,
        /// Device name.
        device: &'a str,
        /// What stands before the first `|`.
        id: &'a str,
        /// Which hash.
        method: SignMethod,
        /// As sent, if it was.
        timestamp: Option<&'a str>,
        /// Hexadecimal.
        signature: &'a str,
    },
}

impl fmt::Debug for Claim<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Claim({}, …)", self.profile())
    }
}

impl<'a> Claim<'a> {
    /// Takes credentials apart; `None` if they are of no known format.
    #[must_use]
    pub fn parse(client_id: &'a str, user_name: &'a str, password: &'a [u8]) -> Option<Self> {
        let password = std::str::from_utf8(password).ok()?;
        match password.strip_prefix("v1;") {
            Some(rest) => Self::parse_native(client_id, user_name, rest),
            None => Self::parse_aliyun(client_id, user_name, password),
        }
    }

    fn parse_native(client_id: &'a str, user_name: &'a str, rest: &'a str) -> Option<Self> {
        let (product, device) = user_name.split_once('/')?;
        let mut fields = rest.split(';');
        let (timestamp, nonce, signature) = (fields.next()?, fields.next()?, fields.next()?);
        let nonce_fits = (1..=64).contains(&nonce.len()) && nonce.bytes().all(|byte| byte.is_ascii_graphic());
        if fields.next().is_some() || !nonce_fits {
            return None;
        }
        // `parse` would take a sign; the signed text has none.
        let digits = timestamp.bytes().all(|byte| byte.is_ascii_digit());
        let timestamp_ms = timestamp.parse().ok().filter(|_| digits)?;
        Some(Self::Native { product, device, client_id, timestamp_ms, nonce, signature })
    }

    fn parse_aliyun(client_id: &'a str, user_name: &'a str, signature: &'a str) -> Option<Self> {
        let (device, product) = user_name.split_once('&')?;
        let (id, rest) = client_id.split_once('|')?;
        let (mut method, mut timestamp) = (None, None);
        for pair in rest.trim_end_matches('|').split(',') {
            match pair.split_once('=') {
                Some(("signmethod", value)) => method = Some(SignMethod::parse(value)?),
                Some(("timestamp", value)) => timestamp = Some(value),
                _ => {}
            }
        }
        // The vendor's documents make hmacmd5 the default.
        let method = method.unwrap_or(SignMethod::Md5);
        Some(Self::Aliyun { product, device, id, method, timestamp, signature })
    }

    /// The format.
    #[must_use]
    pub fn profile(&self) -> Profile {
        match self {
            Self::Native { .. } => Profile::Native,
            Self::Aliyun { .. } => Profile::Aliyun,
        }
    }

    /// The identity claimed: product and device.
    #[must_use]
    pub fn identity(&self) -> (&'a str, &'a str) {
        match *self {
            Self::Native { product, device, .. } | Self::Aliyun { product, device, .. } => (product, device),
        }
    }

    /// Whether the signature was made with this secret. Takes the same time wherever the difference is.
    #[must_use]
    pub fn is_signed_by(&self, secret: &Secret) -> bool {
        match *self {
            Self::Native { product, device, client_id, timestamp_ms, nonce, signature } => {
                let text = native_text(client_id, product, device, timestamp_ms, nonce);
                is_signature_hex(SignMethod::Sha256, secret, &text, signature.as_bytes())
            }
            Self::Aliyun { product, device, id, method, timestamp, signature } => {
                let text = aliyun_text(id, product, device, timestamp);
                is_signature_hex(method, secret, &text, signature.as_bytes())
            }
        }
    }
}

/// Whether `answer` answers a challenge.
#[must_use]
pub fn answers(secret: &Secret, client_id: &str, product: &str, device: &str, challenge: &[u8], answer: &[u8]) -> bool {
    let text = challenge_text(client_id, product, device, challenge);
    match answer.len() {
        64 => is_signature_hex(SignMethod::Sha256, secret, &text, answer),
        _ => is_signature(SignMethod::Sha256, secret, &text, answer),
    }
}

#[cfg(test)]
mod tests;
