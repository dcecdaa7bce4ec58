//! Credentials as devices make them, from the formats that the documents give.

use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};

/// Product of the tests' devices.
pub const PRODUCT: &str = "lamp";
/// Their secret.
pub const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// What a device sends in CONNECT.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "named as in the specification")]
pub struct Credential {
    pub client_id: String,
    pub user: String,
    pub password: String,
}

/// Milliseconds since 1970.
///
/// # Panics
/// The clock stands before that.
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_millis()).expect("fits")
}

/// HMAC-SHA256 in lower-case hexadecimal digits.
#[must_use]
pub fn hmac_sha256(secret: &str, text: &str) -> String {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).expect("any key");
    mac.update(text.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

/// HMAC-SHA1 in lower-case hexadecimal digits.
#[must_use]
pub fn hmac_sha1(secret: &str, text: &str) -> String {
    let mut mac = Hmac::<sha1::Sha1>::new_from_slice(secret.as_bytes()).expect("any key");
    mac.update(text.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

/// The native profile, with a nonce that wasn't used before.
#[must_use]
pub fn native(client_id: &str, device: &str, secret: &str) -> Credential {
    native_at(client_id, device, secret, now_ms(), &fresh_nonce())
}

fn fresh_nonce() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};

    static NONCE: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", std::process::id(), NONCE.fetch_add(1, Ordering::Relaxed))
}

/// The native profile at a given time.
#[must_use]
pub fn native_at(client_id: &str, device: &str, secret: &str, timestamp_ms: u64, nonce: &str) -> Credential {
    let signature = hmac_sha256(secret, &format!("v1\n{client_id}\n{PRODUCT}\n{device}\n{timestamp_ms}\n{nonce}"));
    Credential {
        client_id: client_id.to_owned(),
        user: format!("{PRODUCT}/{device}"),
        password: format!("v1;{timestamp_ms};{nonce};{signature}"),
    }
}

/// A service's, with a nonce that wasn't used before.
#[must_use]
pub fn service(client_id: &str, key: &str, secret: &str) -> Credential {
    let (now, nonce) = (now_ms(), fresh_nonce());
    let signature = hmac_sha256(secret, &format!("v1\n{client_id}\n$svc\n{key}\n{now}\n{nonce}"));
    Credential {
        client_id: client_id.to_owned(),
        user: format!("$svc/{key}"),
        password: format!("v1;{now};{nonce};{signature}"),
    }
}

/// The aliyun profile with HMAC-SHA256, as its C SDK does it.
#[must_use]
pub fn aliyun(device: &str, secret: &str) -> Credential {
    let id = format!("{PRODUCT}.{device}");
    let text = format!("clientId{id}deviceName{device}productKey{PRODUCT}timestamp2524608000000");
    Credential {
        client_id: format!("{id}|timestamp=2524608000000,_v=sdk-c-4.0.0,securemode=3,signmethod=hmacsha256|"),
        user: format!("{device}&{PRODUCT}"),
        password: hmac_sha256(secret, &text).to_uppercase(),
    }
}

/// The aliyun profile with HMAC-SHA1, as its Python SDK does it.
#[must_use]
pub fn aliyun_sha1(device: &str, secret: &str) -> Credential {
    let id = format!("{PRODUCT}&{device}");
    let text = format!("clientId{id}deviceName{device}productKey{PRODUCT}timestamp1795231143");
    Credential {
        client_id: format!(
            "{id}|securemode=3,signmethod=hmacsha1,ext=1,_ss=1,lan=Python,_v=1.2.13,timestamp=1795231143|"
        ),
        user: format!("{device}&{PRODUCT}"),
        password: hmac_sha1(secret, &text),
    }
}

/// The answer to a challenge of MQTT 5's enhanced authentication.
#[must_use]
pub fn answer(client_id: &str, device: &str, secret: &str, challenge: &[u8]) -> String {
    hmac_sha256(secret, &format!("v1c\n{client_id}\n{PRODUCT}\n{device}\n{}", hex::encode(challenge)))
}
