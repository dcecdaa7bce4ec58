//! What is signed, and the signing of it. Both sides use these, so that they can't differ.

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use sha1::Sha1;
use sha2::Sha256;

use crate::profile::SignMethod;
use crate::secret::Secret;

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

fn keyed<M: Mac + KeyInit>(secret: &Secret, text: &str) -> M {
    let mut mac = <M as KeyInit>::new_from_slice(secret.expose()).expect("HMAC takes a key of any length");
    mac.update(text.as_bytes());
    mac
}

fn is_mac<M: Mac + KeyInit>(secret: &Secret, text: &str, signature: &[u8]) -> bool {
    keyed::<M>(secret, text).verify_slice(signature).is_ok()
}

fn mac<M: Mac + KeyInit>(secret: &Secret, text: &str) -> String {
    hex::encode(keyed::<M>(secret, text).finalize().into_bytes())
}

/// In lower case.
pub(crate) fn sign(method: SignMethod, secret: &Secret, text: &str) -> String {
    match method {
        SignMethod::Sha256 => mac::<Hmac<Sha256>>(secret, text),
        SignMethod::Sha1 => mac::<Hmac<Sha1>>(secret, text),
        SignMethod::Md5 => mac::<Hmac<Md5>>(secret, text),
    }
}

/// Whether these bytes sign the text. Takes the same time wherever they differ.
pub(crate) fn is_signature(method: SignMethod, secret: &Secret, text: &str, signature: &[u8]) -> bool {
    match method {
        SignMethod::Sha256 => is_mac::<Hmac<Sha256>>(secret, text, signature),
        SignMethod::Sha1 => is_mac::<Hmac<Sha1>>(secret, text, signature),
        SignMethod::Md5 => is_mac::<Hmac<Md5>>(secret, text, signature),
    }
}

/// The same for hexadecimal digits, of either case: the C SDK of aliyun writes capitals. What is no signature is compared
/// too, so that it costs the same.
pub(crate) fn is_signature_hex(method: SignMethod, secret: &Secret, text: &str, signature: &[u8]) -> bool {
    let mut bytes = [0; 32];
    let decoded = match bytes.get_mut(..signature.len() / 2) {
        Some(bytes) => hex::decode_to_slice(signature, bytes).map(|()| &*bytes).unwrap_or_default(),
        None => &[],
    };
    is_signature(method, secret, text, decoded)
}
