//! Credentials as a device makes them: for `turnpike credential`, for the load harness, for tests.

use std::fmt;

use crate::profile::{Profile, SignMethod};
use crate::secret::Secret;
use crate::signed::{aliyun_text, challenge_text, native_text, sign};

/// What a device sends to log in. `Debug` shows none of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Client id.
    pub client_id: String,
    /// User name.
    pub user_name: String,
    /// Password.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// Who wants credentials, and with what in them.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Product key.
    pub product: &'a str,
    /// Device name.
    pub device: &'a str,
    /// Its secret.
    pub secret: &'a Secret,
    /// Client id, for aliyun what stands before the first `|`; none makes it `{product}.{device}`.
    pub client_id: Option<&'a str>,
    /// Milliseconds since 1970 UTC.
    pub timestamp_ms: u64,
    /// Native only: 1 to 64 visible ASCII characters without `;`, never used before by this device.
    pub nonce: &'a str,
    /// Aliyun only.
    pub method: SignMethod,
}

impl Credentials {
    /// Makes credentials of a profile. Native ones are good once and for ten minutes, aliyun ones again and again.
    #[must_use]
    pub fn make(profile: Profile, request: &Request<'_>) -> Self {
        let Request { product, device, secret, client_id, timestamp_ms, nonce, method } = *request;
        let client_id = client_id.map_or_else(|| format!("{product}.{device}"), str::to_owned);
        match profile {
            Profile::Native => native(product, device, secret, &client_id, timestamp_ms, nonce),
            Profile::Aliyun => {
                aliyun(product, device, secret, &client_id, method, Some(timestamp_ms.to_string().as_str()))
            }
        }
    }
}

/// Native credentials. `nonce`: 1 to 64 visible ASCII characters without `;`, never used before by this device.
#[must_use]
pub fn native(
    product: &str,
    device: &str,
    secret: &Secret,
    client_id: &str,
    timestamp_ms: u64,
    nonce: &str,
) -> Credentials {
    let text = native_text(client_id, product, device, timestamp_ms, nonce);
    let signature = sign(SignMethod::Sha256, secret, &text);
    Credentials {
        client_id: client_id.to_owned(),
        user_name: format!("{product}/{device}"),
        password: format!("v1;{timestamp_ms};{nonce};{signature}"),
    }
}

/// Aliyun credentials. `id` stands before the first `|`; SDKs use `{product}.{device}` or `{product}&{device}`.
#[must_use]
pub fn aliyun(
    product: &str,
    device: &str,
    secret: &Secret,
    id: &str,
    method: SignMethod,
    timestamp: Option<&str>,
) -> Credentials {
    let password = sign(method, secret, &aliyun_text(id, product, device, timestamp));
    let timestamp = timestamp.map_or(String::new(), |timestamp| format!(",timestamp={timestamp}"));
    Credentials {
        client_id: format!("{id}|securemode=3,signmethod={}{timestamp}|", method.as_str()),
        user_name: format!("{device}&{product}"),
        password,
    }
}

/// The answer to a challenge of the method `HMAC-SHA256`: 64 hexadecimal digits.
#[must_use]
pub fn answer(secret: &Secret, client_id: &str, product: &str, device: &str, challenge: &[u8]) -> String {
    sign(SignMethod::Sha256, secret, &challenge_text(client_id, product, device, challenge))
}
