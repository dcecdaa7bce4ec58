//! The log-in formats that devices speak, both ways: what a broker reads of a CONNECT, and what a device would send.
//!
//! - `native`: user name `{product}/{device}`, password `v1;{timestamp_ms};{nonce};{hex}` with the HMAC-SHA256 of
//!   `"v1\n{client_id}\n{product}\n{device}\n{timestamp_ms}\n{nonce}"`. A nonce is good once.
//! - `native` by challenge (MQTT 5 method `HMAC-SHA256`): the same user name; the broker's AUTH carries 32 random bytes, and the answer is the
//!   HMAC-SHA256, 32 bytes or 64 hexadecimal digits, of `"v1c\n{client_id}\n{product}\n{device}\n{hex of the challenge}"`.
//! - `aliyun`: client id `{id}|securemode=…,signmethod=…,timestamp=…|`, user name `{device}&{product}`, password the hex HMAC of
//!   `clientId{id}deviceName{device}productKey{product}timestamp{timestamp}`; without `timestamp…` where the client id has none.

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use sha1::Sha1;
use sha2::Sha256;

use crate::secret::Secret;

/// A log-in format.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Profile {
    /// Ours.
    Native,
    /// Alibaba Cloud IoT's one-device-one-secret.
    Aliyun,
}

impl std::str::FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "native" => Ok(Self::Native),
            "aliyun" => Ok(Self::Aliyun),
            other => Err(format!("there is no profile {other:?}; there are native and aliyun")),
        }
    }
}

/// The hash of an aliyun signature.
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
    /// As it stands in the client id.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "hmacsha256",
            Self::Sha1 => "hmacsha1",
            Self::Md5 => "hmacmd5",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Sha256, Self::Sha1, Self::Md5].into_iter().find(|method| method.as_str() == text)
    }
}

/// What a CONNECT says of itself, taken apart and not yet believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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
        /// 1 to 64 characters.
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
        let nonce_fits = (1..=64).contains(&nonce.len());
        if fields.next().is_some() || !nonce_fits {
            return None;
        }
        // `parse` would take a sign; the signed text has none.
        let digits = !timestamp.is_empty() && timestamp.bytes().all(|byte| byte.is_ascii_digit());
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
                verify::<Hmac<Sha256>>(secret, &text, signature)
            }
            Self::Aliyun { product, device, id, method, timestamp, signature } => {
                let text = aliyun_text(id, product, device, timestamp);
                match method {
                    SignMethod::Sha256 => verify::<Hmac<Sha256>>(secret, &text, signature),
                    SignMethod::Sha1 => verify::<Hmac<Sha1>>(secret, &text, signature),
                    SignMethod::Md5 => verify::<Hmac<Md5>>(secret, &text, signature),
                }
            }
        }
    }
}

fn native_text(client_id: &str, product: &str, device: &str, timestamp_ms: u64, nonce: &str) -> String {
    format!("v1\n{client_id}\n{product}\n{device}\n{timestamp_ms}\n{nonce}")
}

fn aliyun_text(id: &str, product: &str, device: &str, timestamp: Option<&str>) -> String {
    let timestamp = timestamp.map_or(String::new(), |timestamp| format!("timestamp{timestamp}"));
    format!("clientId{id}deviceName{device}productKey{product}{timestamp}")
}

fn challenge_text(client_id: &str, product: &str, device: &str, challenge: &[u8]) -> String {
    format!("v1c\n{client_id}\n{product}\n{device}\n{}", hex::encode(challenge))
}

fn keyed<M: Mac + KeyInit>(secret: &Secret, text: &str) -> M {
    let mut mac = <M as KeyInit>::new_from_slice(secret.expose()).expect("HMAC takes a key of any length");
    mac.update(text.as_bytes());
    mac
}

/// Any letter case: the C SDK of aliyun writes capitals.
fn verify<M: Mac + KeyInit>(secret: &Secret, text: &str, signature: &str) -> bool {
    let mac = keyed::<M>(secret, text);
    hex::decode(signature).is_ok_and(|bytes| mac.verify_slice(&bytes).is_ok())
}

fn sign<M: Mac + KeyInit>(secret: &Secret, text: &str) -> String {
    hex::encode(keyed::<M>(secret, text).finalize().into_bytes())
}

/// Whether `answer` answers a challenge.
#[must_use]
pub fn answers(secret: &Secret, client_id: &str, product: &str, device: &str, challenge: &[u8], answer: &[u8]) -> bool {
    let mac = keyed::<Hmac<Sha256>>(secret, &challenge_text(client_id, product, device, challenge));
    match answer.len() {
        64 => hex::decode(answer).is_ok_and(|bytes| mac.verify_slice(&bytes).is_ok()),
        _ => mac.verify_slice(answer).is_ok(),
    }
}

/// The answer to a challenge: 64 hexadecimal digits.
#[must_use]
pub fn answer(secret: &Secret, client_id: &str, product: &str, device: &str, challenge: &[u8]) -> String {
    sign::<Hmac<Sha256>>(secret, &challenge_text(client_id, product, device, challenge))
}

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

/// Native credentials. `nonce`: 1 to 64 characters without `;`, never used before by this device.
#[must_use]
pub fn native(
    product: &str,
    device: &str,
    secret: &Secret,
    client_id: &str,
    timestamp_ms: u64,
    nonce: &str,
) -> Credentials {
    let signature = sign::<Hmac<Sha256>>(secret, &native_text(client_id, product, device, timestamp_ms, nonce));
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
    let text = aliyun_text(id, product, device, timestamp);
    let password = match method {
        SignMethod::Sha256 => sign::<Hmac<Sha256>>(secret, &text),
        SignMethod::Sha1 => sign::<Hmac<Sha1>>(secret, &text),
        SignMethod::Md5 => sign::<Hmac<Md5>>(secret, &text),
    };
    let timestamp = timestamp.map_or(String::new(), |timestamp| format!(",timestamp={timestamp}"));
    Credentials {
        client_id: format!("{id}|securemode=3,signmethod={}{timestamp}|", method.as_str()),
        user_name: format!("{device}&{product}"),
        password,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secret() -> Secret {
        Secret::new(b"0123456789abcdef0123456789abcdef").expect("a secret")
    }

    fn signed(client_id: &str, password: &str) -> bool {
        Claim::parse(client_id, "dev001&a1B2c3D4e5F", password.as_bytes())
            .is_some_and(|claim| claim.is_signed_by(&secret()))
    }

    #[test]
    fn aliyun_sdks_are_understood() {
        let python = "a1B2c3D4e5F&dev001|securemode=3,signmethod=hmacsha1,ext=1,_ss=1,lan=Python,_v=1.2.13,timestamp=1795231143|";
        assert!(signed(python, "671d800016e8a3d3a771b54d74a4b36a32c851be"));
        assert!(signed(python, "671D800016E8A3D3A771B54D74A4B36A32C851BE"));
        assert!(!signed(python, "671d800016e8a3d3a771b54d74a4b36a32c851bf"));
        assert!(!signed(python, "671d80"));
        assert!(!signed(python, ""));
        let node = "a1B2c3D4e5F&dev001|securemode=3,signmethod=hmacsha1,timestamp=1795231053661,lan=NodeJS,_v=1.2.8|";
        assert!(signed(node, "dfd8b31201ad990d814e44a83eeb40d554390ad6"));
        let c =
            aliyun("a1B2c3D4e5F", "dev001", &secret(), "a1B2c3D4e5F.dev001", SignMethod::Sha256, Some("2524608000000"));
        assert!(signed(&c.client_id, &c.password.to_uppercase()));
        for method in [SignMethod::Sha256, SignMethod::Sha1, SignMethod::Md5] {
            let made = aliyun("a1B2c3D4e5F", "dev001", &secret(), "x", method, None);
            assert!(signed(&made.client_id, &made.password), "{method:?} without a timestamp");
        }
    }

    #[test]
    fn native_signs_every_field() {
        let made = native("p", "d", &secret(), "c", 1_700_000_000_000, "n");
        let check = |client_id: &str, user_name: &str, password: &str| {
            Claim::parse(client_id, user_name, password.as_bytes()).is_some_and(|claim| claim.is_signed_by(&secret()))
        };
        assert!(check("c", "p/d", &made.password));
        assert!(!check("c2", "p/d", &made.password));
        assert!(!check("c", "p/d2", &made.password));
        assert!(!check("c", "q/d", &made.password));
        assert!(!check("c", "p/d", &made.password.replace(";n;", ";m;")));
        assert!(!check("c", "p/d", &made.password.replace("1700000000000", "1700000000001")));
        for bad in ["v1;", "v1;1;n", "v1;x;n;00", "v1;+1;n;00", "v1;1;;00", "v1;1;n;00;x", "v2;1;n;00"] {
            assert!(!check("c", "p/d", bad), "{bad}");
        }
    }

    #[test]
    fn a_challenge_is_answered_raw_or_in_hex() {
        let text = answer(&secret(), "c", "p", "d", b"challenge");
        assert!(answers(&secret(), "c", "p", "d", b"challenge", text.as_bytes()));
        assert!(answers(&secret(), "c", "p", "d", b"challenge", &hex::decode(&text).expect("hex")));
        assert!(!answers(&secret(), "c", "p", "d", b"other", text.as_bytes()));
        assert!(!answers(&secret(), "c", "p", "d", b"challenge", b""));
    }

    proptest! {
        #[test]
        fn no_text_panics(client_id in ".{0,40}", user_name in ".{0,40}", password in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(claim) = Claim::parse(&client_id, &user_name, &password) {
                prop_assert!(!claim.is_signed_by(&secret()));
            }
        }
    }
}
