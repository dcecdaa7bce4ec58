//! What a device that has a private key sends.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::KeyKind;
use super::verify::SIGNATURE_BYTES_MAX;
use crate::profile::Native;
use crate::signed::native_text;

/// Standard base64, with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A method of MQTT 5's enhanced authentication.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Method {
    /// By the device's secret.
    Hmac,
    /// By an RSA key.
    Rsa,
    /// By a P-256 key.
    Ecdsa,
    /// By an Ed25519 key.
    Ed25519,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Hmac, Self::Rsa, Self::Ecdsa, Self::Ed25519];

    /// As it stands in CONNECT.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hmac => crate::gate::METHOD,
            Self::Rsa => "RSA-SHA256",
            Self::Ecdsa => "ECDSA-SHA256",
            Self::Ed25519 => "ED25519",
        }
    }

    /// The method of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.as_str() == name)
    }

    /// Whether a key answers by this method.
    #[must_use]
    pub fn takes(self, kind: KeyKind) -> bool {
        match kind {
            KeyKind::Rsa(_) => self == Self::Rsa,
            KeyKind::P256 => self == Self::Ecdsa,
            KeyKind::Ed25519 => self == Self::Ed25519,
        }
    }
}

/// A log-in with a password `v1r;…`, taken apart and not yet believed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Signed<'a> {
    pub(crate) product: &'a str,
    pub(crate) device: &'a str,
    pub(crate) timestamp_ms: u64,
    pub(crate) nonce: &'a str,
    pub(crate) signature: Vec<u8>,
    client_id: &'a str,
}

impl<'a> Signed<'a> {
    /// Takes credentials apart. `None` if they are of another format; `Some(None)` if they are of this one and damaged.
    pub(crate) fn parse(client_id: &'a str, user_name: &'a str, password: &'a [u8]) -> Option<Option<Self>> {
        let rest = password.strip_prefix(b"v1r;")?;
        Some(std::str::from_utf8(rest).ok().and_then(|rest| Self::parse_rest(client_id, user_name, rest)))
    }

    fn parse_rest(client_id: &'a str, user_name: &'a str, rest: &'a str) -> Option<Self> {
        let Native { product, device, client_id, timestamp_ms, nonce, signature } =
            Native::parse(client_id, user_name, rest)?;
        let signature = decode(signature.as_bytes())?;
        Some(Self { product, device, timestamp_ms, nonce, signature, client_id })
    }

    /// What is signed.
    pub(crate) fn text(&self) -> String {
        native_text(self.client_id, self.product, self.device, self.timestamp_ms, self.nonce)
    }
}

/// The signature in the answer to a challenge, which is sent as it is or in base64. (One in 4⁶⁴ is both.)
pub(crate) fn answer_bytes(data: &[u8]) -> Vec<u8> {
    decode(data).unwrap_or_else(|| data.get(..SIGNATURE_BYTES_MAX).unwrap_or(data).to_vec())
}

fn decode(text: &[u8]) -> Option<Vec<u8>> {
    if text.len() > SIGNATURE_BYTES_MAX.div_ceil(3) * 4 {
        return None;
    }
    BASE64.decode(text).ok()
}
