//! What is signed, and the signing of it. Both sides use these, so that they can't differ.

use base64::alphabet;
use base64::engine::{DecodePaddingMode, Engine, GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::profile::SignMethod;
use crate::secret::Secret;

/// As vendors write keys: with padding, which some people lose on the way.
pub(crate) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

pub(crate) fn native_text(client_id: &str, product: &str, device: &str, timestamp_ms: u64, nonce: &str) -> String {
    format!("v1\n{client_id}\n{product}\n{device}\n{timestamp_ms}\n{nonce}")
}

pub(crate) fn challenge_text(client_id: &str, product: &str, device: &str, challenge: &[u8]) -> String {
    format!("v1c\n{client_id}\n{product}\n{device}\n{}", hex::encode(challenge))
}

pub(crate) fn aliyun_text(id: &str, product: &str, device: &str, timestamp: Option<&str>) -> String {
    let (key, value) = timestamp.map_or(("", ""), |value| ("timestamp", value));
    format!("clientId{id}deviceName{device}productKey{product}{key}{value}")
}

pub(crate) fn tuya_text(device: &str, timestamp: &str, secure_mode: &str, access_type: &str) -> String {
    format!("deviceId={device},timestamp={timestamp},secureMode={secure_mode},accessType={access_type}")
}

pub(crate) fn azure_text(resource: &str, expiry: &str) -> String {
    format!("{resource}\n{expiry}")
}

/// The key that a secret is the base64 of, and whether it is; if not, some bytes that cost the same.
pub(crate) fn key_of_base64(secret: &Secret) -> (Zeroizing<Vec<u8>>, bool) {
    match BASE64.decode(secret.expose()) {
        Ok(key) => (Zeroizing::new(key), true),
        Err(_) => (Zeroizing::new(secret.expose().to_vec()), false),
    }
}

fn keyed<M: Mac + KeyInit>(key: &[u8], message: &[u8]) -> M {
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(message);
    mac
}

fn is_mac<M: Mac + KeyInit>(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    keyed::<M>(key, message).verify_slice(signature).is_ok()
}

fn mac<M: Mac + KeyInit>(key: &[u8], message: &[u8]) -> Vec<u8> {
    keyed::<M>(key, message).finalize().into_bytes().to_vec()
}

/// The HMAC of a message.
pub(crate) fn sign(method: SignMethod, key: &[u8], message: impl AsRef<[u8]>) -> Vec<u8> {
    match method {
        SignMethod::Sha256 => mac::<Hmac<Sha256>>(key, message.as_ref()),
        SignMethod::Sha1 => mac::<Hmac<Sha1>>(key, message.as_ref()),
        SignMethod::Md5 => mac::<Hmac<Md5>>(key, message.as_ref()),
    }
}

/// Whether these bytes sign the message. Takes the same time wherever they differ.
pub(crate) fn is_signature(method: SignMethod, key: &[u8], message: impl AsRef<[u8]>, signature: &[u8]) -> bool {
    match method {
        SignMethod::Sha256 => is_mac::<Hmac<Sha256>>(key, message.as_ref(), signature),
        SignMethod::Sha1 => is_mac::<Hmac<Sha1>>(key, message.as_ref(), signature),
        SignMethod::Md5 => is_mac::<Hmac<Md5>>(key, message.as_ref(), signature),
    }
}

/// The same for hexadecimal digits, of either case: the C SDK of aliyun writes capitals. What is no signature is compared
/// too, so that it costs the same.
pub(crate) fn is_signature_hex(method: SignMethod, key: &[u8], message: impl AsRef<[u8]>, signature: &str) -> bool {
    is_signature(method, key, message, unhexed(signature, &mut [0; 32]))
}

/// Up to 32 bytes of hexadecimal digits; nothing if they are none.
fn unhexed<'a>(text: &str, bytes: &'a mut [u8; 32]) -> &'a [u8] {
    match bytes.get_mut(..text.len() / 2) {
        Some(bytes) => hex::decode_to_slice(text, bytes).map(|()| &*bytes).unwrap_or_default(),
        None => &[],
    }
}

/// The hash of a gizwits log-in; the secret is `{mac},{auth key}`.
pub(crate) fn gizwits_hash(product: &str, secret: &Secret, nonce: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [product.as_bytes(), b",", secret.expose(), b",", nonce.as_bytes()] {
        hash.update(part);
    }
    hash.finalize().into()
}

/// Whether these hexadecimal digits are [`gizwits_hash`]. Takes the same time wherever they differ.
pub(crate) fn is_gizwits_hash(product: &str, secret: &Secret, nonce: &str, signature: &str) -> bool {
    is_same(&gizwits_hash(product, secret, nonce), unhexed(signature, &mut [0; 32]))
}

/// Whether two texts are the same. Takes the same time wherever they differ, and whatever the length of the other.
pub(crate) fn is_same(given: &[u8], other: &[u8]) -> bool {
    // The lengths of their hashes are the same always.
    let [given, other]: [[u8; 32]; 2] = [given, other].map(|text| Sha256::digest(text).into());
    given.as_slice().ct_eq(other.as_slice()).into()
}
