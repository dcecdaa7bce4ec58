//! Credentials as a device makes them: for `turnpike credential`, for the load harness, for tests.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
// Its trait: the caller brings the source.
use ring::rand as source;

use crate::keys::{PrivateKey, SignError};
use crate::profile::{Profile, SignMethod};
use crate::secret::Secret;
use crate::signed::{aliyun_text, challenge_text, native_text, sign};

/// What a device sends to log in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Credentials {
    /// Client id.
    pub client_id: String,
    /// User name.
    pub user_name: String,
    /// Password.
    pub password: String,
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

/// Who wants credentials, and with what private key.
#[derive(Clone, Copy, Debug)]
pub struct SignedRequest<'a> {
    /// Product key.
    pub product: &'a str,
    /// Device name.
    pub device: &'a str,
    /// Its private key.
    pub key: &'a PrivateKey,
    /// Client id; none makes it `{product}.{device}`.
    pub client_id: Option<&'a str>,
    /// Milliseconds since 1970 UTC.
    pub timestamp_ms: u64,
    /// 1 to 64 visible ASCII characters without `;`, never used before by this device.
    pub nonce: &'a str,
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

/// Native credentials of a device that has a private key (`v1r`). `random` is what an ECDSA signature takes.
///
/// # Errors
/// [`SignError`].
pub fn native_signed(request: &SignedRequest<'_>, random: &dyn source::SecureRandom) -> Result<Credentials, SignError> {
    let SignedRequest { product, device, key, client_id, timestamp_ms, nonce } = *request;
    let client_id = client_id.map_or_else(|| format!("{product}.{device}"), str::to_owned);
    let text = native_text(&client_id, product, device, timestamp_ms, nonce);
    let signature = STANDARD.encode(key.sign(text.as_bytes(), random)?);
    Ok(Credentials {
        client_id,
        user_name: format!("{product}/{device}"),
        password: format!("v1r;{timestamp_ms};{nonce};{signature}"),
    })
}

/// The answer to a challenge of the methods of [`crate::keys::Method`] that are by key: the signature.
///
/// # Errors
/// [`SignError`].
pub fn answer_signed(
    key: &PrivateKey,
    (client_id, product, device): (&str, &str, &str),
    challenge: &[u8],
    random: &dyn source::SecureRandom,
) -> Result<Vec<u8>, SignError> {
    key.sign(challenge_text(client_id, product, device, challenge).as_bytes(), random)
}
