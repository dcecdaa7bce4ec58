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
    let mut digits = [0; DECIMAL_DIGITS_MAX];
    let timestamp = decimal(timestamp_ms, &mut digits);
    // Most log-ins are of this kind, and to format it would cost half of what its HMAC does.
    ["v1\n", client_id, "\n", product, "\n", device, "\n", timestamp, "\n", nonce].concat()
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

/// Of a `u64`.
const DECIMAL_DIGITS_MAX: usize = 20;

/// A number as `Display` writes it.
fn decimal(mut number: u64, space: &mut [u8; DECIMAL_DIGITS_MAX]) -> &str {
    let mut begin = space.len();
    for place in space.iter_mut().rev() {
        *place = b'0' + (number % 10) as u8;
        begin -= 1;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    space.get(begin..).and_then(|digits| std::str::from_utf8(digits).ok()).unwrap_or_default()
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
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let Some(bytes) = bytes.get_mut(..pairs.len()).filter(|_| rest.is_empty()) else { return &[] };
    // Judged at the end and not digit by digit: a processor can't guess which digit comes next, and a wrong guess costs as much as ten of them.
    let mut faults = 0;
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        let (high, low) = (worth(*high), worth(*low));
        faults |= high | low;
        *byte = high << 4 | low & 0xf;
    }
    if faults & NO_DIGIT == 0 { bytes } else { &[] }
}

const NO_DIGIT: u8 = 0x80;

/// What a byte is worth as a hexadecimal digit.
fn worth(byte: u8) -> u8 {
    const WORTH: [u8; 256] = {
        let (mut all, mut byte) = ([NO_DIGIT; 256], 0_u32);
        while let Some((_, rest)) = all.split_at_mut_checked(byte as usize)
            && let Some((worth, _)) = rest.split_first_mut()
        {
            *worth = match byte as u8 {
                digit @ b'0'..=b'9' => digit - b'0',
                letter @ b'a'..=b'f' => letter - b'a' + 10,
                letter @ b'A'..=b'F' => letter - b'A' + 10,
                _ => NO_DIGIT,
            };
            byte += 1;
        }
        all
    };
    WORTH.get(usize::from(byte)).copied().unwrap_or(NO_DIGIT)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_are_written_as_display_does(number in any::<u64>(), shift in 0_u32..64) {
            let number = number >> shift;
            let mut space = [0; DECIMAL_DIGITS_MAX];
            prop_assert_eq!(decimal(number, &mut space), number.to_string());
        }

        #[test]
        fn what_is_signed_is_as_documented(
            client_id in ".{0,40}", product in "[a-z]{1,8}", device in "[a-z]{1,8}", timestamp_ms in any::<u64>(), nonce in "[!-~]{1,64}",
        ) {
            let text = format!("v1\n{client_id}\n{product}\n{device}\n{timestamp_ms}\n{nonce}");
            prop_assert_eq!(native_text(&client_id, &product, &device, timestamp_ms, &nonce), text);
        }

        #[test]
        fn digits_are_read_as_others_read_them(text in prop_oneof!["[0-9a-fA-F]{0,66}", "[0-9a-g]{60,64}", ".{0,64}"]) {
            let read = hex::decode(&text).ok().filter(|bytes| bytes.len() <= 32).unwrap_or_default();
            let mut space = [0; 32];
            prop_assert_eq!(unhexed(&text, &mut space), read);
        }
    }

    #[test]
    fn each_byte_is_a_digit_or_none() {
        for byte in 0..=u8::MAX {
            let expected = char::from(byte).to_digit(16).map_or(NO_DIGIT, |digit| digit as u8);
            assert_eq!(worth(byte), expected, "{byte}");
        }
        assert_eq!(decimal(0, &mut [0; DECIMAL_DIGITS_MAX]), "0");
        assert_eq!(decimal(u64::MAX, &mut [0; DECIMAL_DIGITS_MAX]), "18446744073709551615");
    }
}
