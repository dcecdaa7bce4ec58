//! Credentials as a device makes them: for `turnpike credential`, for the load harness, for tests.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
// Its trait: the caller brings the source.
use ring::rand as source;
use sha2::{Digest, Sha256};

use crate::keys::{PrivateKey, SignError};
use crate::profile::{PRODUCT_CHARS, Profile, SignMethod, escaped, hour_of};
use crate::secret::Secret;
use crate::signed::{
    aliyun_text, azure_text, challenge_text, gizwits_hash, key_of_base64, native_text, sign, tuya_text,
};

/// How long the credentials of tencent and azure are good, which say it themselves, in seconds.
pub const EXPIRY_S: u64 = 3600;

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
    /// Its secret, as the registry has it: for tencent and azure in base64, for gizwits `{mac},{auth key}`.
    pub secret: &'a Secret,
    /// Client id, for aliyun what stands before the first `|`; none makes it `{product}.{device}`. The other profiles than these two
    /// have a client id of their own.
    pub client_id: Option<&'a str>,
    /// Milliseconds since 1970 UTC.
    pub timestamp_ms: u64,
    /// Native: 1 to 64 visible ASCII characters without `;`, never used before by this device. Gizwits' nonce and tencent's
    /// connection id are made from it.
    pub nonce: &'a str,
    /// Aliyun and tencent (which has no MD5 and takes SHA-256 instead).
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

/// Why there are no such credentials.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MakeError {
    /// The device's user name couldn't be cut.
    #[error("a product key of the profile tencent has {PRODUCT_CHARS} characters")]
    ProductLength,
    /// It is the key itself.
    #[error("a secret of the profile {0} is the base64 of a key")]
    NotBase64(Profile),
    /// It is the wrong part alone.
    #[error("a secret of the profile gizwits is the device's MAC address and its auth key, with a comma between them")]
    NoMac,
    /// It can't be chosen.
    #[error("the client id of the profile {0} can't be chosen")]
    OwnClientId(Profile),
}

impl Credentials {
    /// Makes credentials of a profile. Native and gizwits ones are good once, native and tuya ones for ten minutes, tencent and azure ones for
    /// [`EXPIRY_S`], huawei ones in this hour, aliyun and gizwits-legacy ones again and again.
    ///
    /// # Errors
    /// [`MakeError`].
    pub fn make(profile: Profile, request: &Request<'_>) -> Result<Self, MakeError> {
        let Request { product, device, secret, client_id, timestamp_ms, nonce, method } = *request;
        let chosen = client_id.map_or_else(|| format!("{product}.{device}"), str::to_owned);
        if client_id.is_some() && !matches!(profile, Profile::Native | Profile::Aliyun) {
            return Err(MakeError::OwnClientId(profile));
        }
        match profile {
            Profile::Native => Ok(native(product, device, secret, &chosen, timestamp_ms, nonce)),
            Profile::Aliyun => {
                Ok(aliyun(product, device, secret, &chosen, method, Some(timestamp_ms.to_string().as_str())))
            }
            Profile::Tencent => tencent(request),
            Profile::Huawei => Ok(huawei(product, device, secret, &hour_of(timestamp_ms), true)),
            Profile::Tuya => Ok(tuya(device, secret, timestamp_ms / 1000)),
            Profile::Azure => {
                azure(&format!("{product}.azure-devices.net"), device, secret, timestamp_ms / 1000 + EXPIRY_S)
            }
            Profile::GizwitsLegacy => Ok(gizwits_legacy(device, secret)),
            Profile::Gizwits => gizwits(product, device, secret, &capitals(nonce)),
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
    let signature = sign_hex(SignMethod::Sha256, secret.expose(), text);
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
    let password = sign_hex(method, secret.expose(), aliyun_text(id, product, device, timestamp));
    let timestamp = timestamp.map_or(String::new(), |timestamp| format!(",timestamp={timestamp}"));
    Credentials {
        client_id: format!("{id}|securemode=3,signmethod={}{timestamp}|", method.as_str()),
        user_name: format!("{device}&{product}"),
        password,
    }
}

/// Tencent credentials, good for [`EXPIRY_S`].
///
/// # Errors
/// [`MakeError::ProductLength`], [`MakeError::NotBase64`].
pub fn tencent(request: &Request<'_>) -> Result<Credentials, MakeError> {
    let Request { product, device, secret, timestamp_ms, nonce, .. } = *request;
    if product.len() != PRODUCT_CHARS {
        return Err(MakeError::ProductLength);
    }
    let (key, true) = key_of_base64(secret) else { return Err(MakeError::NotBase64(Profile::Tencent)) };
    let method = if request.method == SignMethod::Sha1 { SignMethod::Sha1 } else { SignMethod::Sha256 };
    let expiry_s = timestamp_ms / 1000 + EXPIRY_S;
    // The application id of the vendor's SDKs.
    let user_name = format!("{product}{device};12010126;{};{expiry_s}", capitals(nonce));
    let password = format!("{};{}", sign_hex(method, &key, &user_name), method.as_str());
    Ok(Credentials { client_id: format!("{product}{device}"), user_name, password })
}

/// Huawei credentials. `hour`: `YYYYMMDDHH`, in UTC; `is_checked`: whether the server is to look at it.
#[must_use]
pub fn huawei(product: &str, device: &str, secret: &Secret, hour: &str, is_checked: bool) -> Credentials {
    // A device id is cut at its first underscore; where that would be the wrong one, the name alone will do.
    let id = if product.contains('_') { device.to_owned() } else { format!("{product}_{device}") };
    let flag = u8::from(is_checked);
    let password = sign_hex(SignMethod::Sha256, hour.as_bytes(), secret.expose());
    Credentials { client_id: format!("{id}_0_{flag}_{hour}"), user_name: id, password }
}

/// Tuya credentials, of a time in Unix seconds.
#[must_use]
pub fn tuya(device: &str, secret: &Secret, timestamp_s: u64) -> Credentials {
    let text = tuya_text(device, &timestamp_s.to_string(), "1", "1");
    Credentials {
        client_id: format!("tuyalink_{device}"),
        user_name: format!("{device}|signMethod=hmacSha256,timestamp={timestamp_s},secureMode=1,accessType=1"),
        password: sign_hex(SignMethod::Sha256, secret.expose(), text),
    }
}

/// Azure credentials, good until a time in Unix seconds.
///
/// # Errors
/// [`MakeError::NotBase64`].
pub fn azure(host: &str, device: &str, secret: &Secret, expiry_s: u64) -> Result<Credentials, MakeError> {
    let (key, true) = key_of_base64(secret) else { return Err(MakeError::NotBase64(Profile::Azure)) };
    let resource = escaped(&format!("{host}/devices/{device}"));
    let signature = STANDARD.encode(sign(SignMethod::Sha256, &key, azure_text(&resource, &expiry_s.to_string())));
    Ok(Credentials {
        client_id: device.to_owned(),
        user_name: format!("{host}/{device}/?api-version=2021-04-12"),
        password: format!("SharedAccessSignature sr={resource}&sig={}&se={expiry_s}", escaped(&signature)),
    })
}

/// Credentials of a gizwits device of before 2025: the secret itself.
#[must_use]
pub fn gizwits_legacy(device: &str, secret: &Secret) -> Credentials {
    let password = String::from_utf8_lossy(secret.expose()).into_owned();
    Credentials { client_id: device.to_owned(), user_name: device.to_owned(), password }
}

/// Credentials of a gizwits device of 2025. `nonce`: ten capitals, never used before by this device.
///
/// # Errors
/// [`MakeError::NoMac`].
pub fn gizwits(product: &str, device: &str, secret: &Secret, nonce: &str) -> Result<Credentials, MakeError> {
    if !secret.expose().contains(&b',') {
        return Err(MakeError::NoMac);
    }
    Ok(Credentials {
        client_id: device.to_owned(),
        user_name: format!("{device}|signmethod=sha256,signnonce={nonce}"),
        password: hex::encode(gizwits_hash(product, secret, nonce)),
    })
}

/// The answer to a challenge of the method `HMAC-SHA256`: 64 hexadecimal digits.
#[must_use]
pub fn answer(secret: &Secret, client_id: &str, product: &str, device: &str, challenge: &[u8]) -> String {
    sign_hex(SignMethod::Sha256, secret.expose(), challenge_text(client_id, product, device, challenge))
}

/// In lower case.
fn sign_hex(method: SignMethod, key: &[u8], message: impl AsRef<[u8]>) -> String {
    hex::encode(sign(method, key, message))
}

/// Ten capitals that are another's only if the nonce is.
fn capitals(nonce: &str) -> String {
    Sha256::digest(nonce).iter().take(10).map(|byte| char::from(b'A' + byte % 26)).collect()
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
