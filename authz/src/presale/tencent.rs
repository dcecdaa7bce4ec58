//! Tencent's dynamic registration, over HTTP: the product's secret signs for a device that has none yet, and encrypts the answer.
//!
//! - `POST /register/dev`: JSON `{"deviceName","nonce","productId","timestamp","signature"}`; the signature is base64 of the HMAC-SHA1 or
//!   HMAC-SHA256, as bytes or (what the SDKs send) in hexadecimal digits, of `deviceName={d}&nonce={n}&productId={p}&timestamp={t}`.
//! - `POST /device/register`: JSON `{"ProductId","DeviceName"}`; headers `X-TC-Algorithm` (`hmacsha1` or `hmacsha256`, of either case),
//!   `X-TC-Timestamp`, `X-TC-Nonce`, `X-TC-Signature`: base64 of the HMAC of `POST\n{host}\n{path}\n\n{algorithm}\n{timestamp}\n{nonce}\n{hash}`, where the
//!   hash is the body's, of the same kind, in hexadecimal digits.
//!
//! Devices send 0 where they have no clock, so timestamps aren't looked at: what is repeated finds that the device exists, and, when that was released
//! since, that the request was used ([`RegisterError::Replayed`]).
//!
//! The answer's payload is base64 of AES-128-CBC of `{"encryptionType":2,"psk":"…"}`, padded with zeros; the key is the first 16 characters of the product's
//! secret, the IV is 16 times the character `0`. The vendor has it so; over TLS alone it hides anything from one who has opened a device.

use aes::Aes128;
use aes::cipher::block_padding::ZeroPadding;
use aes::cipher::{BlockModeEncrypt, KeyIvInit};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};
use sha2::Sha256;

use super::register::Proven;
use super::{RegisterError, Registration, Way};
use crate::names::ProductKey;
use crate::profile::SignMethod;
use crate::secret::Secret;
use crate::signed::is_signature;

/// A request, taken apart and not yet believed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claim {
    product: String,
    device: String,
    text: String,
    /// Which hash; none if the signature's length says it.
    method: Option<SignMethod>,
    signature: Vec<u8>,
}

/// What signs a request of the newer kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Headers<'a> {
    /// `Host`, as sent.
    pub host: &'a str,
    /// The path of the request.
    pub path: &'a str,
    /// `X-TC-Algorithm`.
    pub algorithm: &'a str,
    /// `X-TC-Timestamp`.
    pub timestamp: &'a str,
    /// `X-TC-Nonce`.
    pub nonce: &'a str,
    /// `X-TC-Signature`.
    pub signature: &'a str,
}

impl Claim {
    /// From a body of `/register/dev`.
    ///
    /// # Errors
    /// [`RegisterError::Malformed`].
    pub fn from_body(
        (product, device): (&str, &str),
        (nonce, timestamp): (i64, i64),
        signature: &str,
    ) -> Result<Self, RegisterError> {
        let text = format!("deviceName={device}&nonce={nonce}&productId={product}&timestamp={timestamp}");
        let decoded = STANDARD.decode(signature).map_err(|_| RegisterError::Malformed)?;
        // The SDKs encode the digits.
        let signature = hex::decode(&decoded).unwrap_or(decoded);
        Ok(Self { product: product.to_owned(), device: device.to_owned(), text, method: None, signature })
    }

    /// From a request of `/device/register`: its headers, its body as it came, and what the body says.
    ///
    /// # Errors
    /// [`RegisterError::Malformed`].
    pub fn from_headers(
        headers: &Headers<'_>,
        body: &[u8],
        (product, device): (&str, &str),
    ) -> Result<Self, RegisterError> {
        let Headers { host, path, algorithm, timestamp, nonce, signature } = *headers;
        let (method, hash) = match algorithm.to_ascii_lowercase().as_str() {
            "hmacsha1" => (SignMethod::Sha1, hex::encode(Sha1::digest(body))),
            "hmacsha256" => (SignMethod::Sha256, hex::encode(Sha256::digest(body))),
            _ => return Err(RegisterError::Malformed),
        };
        let text = format!("POST\n{host}\n{path}\n\n{algorithm}\n{timestamp}\n{nonce}\n{hash}");
        let signature = STANDARD.decode(signature).map_err(|_| RegisterError::Malformed)?;
        Ok(Self { product: product.to_owned(), device: device.to_owned(), text, method: Some(method), signature })
    }

    /// Verifies it under the product's secret ([`super::Desk::product_secret`]). `is_listed`: whether the name has to be on a list, which is the
    /// product's choice of [`Way::Tencent`] or [`Way::TencentUnlisted`].
    ///
    /// # Errors
    /// [`RegisterError::WrongKey`], [`RegisterError::Malformed`].
    pub fn prove(&self, product_secret: &Secret, is_listed: bool) -> Result<Proven, RegisterError> {
        let by_length = if self.signature.len() == 32 { SignMethod::Sha256 } else { SignMethod::Sha1 };
        let method = self.method.unwrap_or(by_length);
        if !is_signature(method, product_secret.expose(), &self.text, &self.signature) {
            return Err(RegisterError::WrongKey);
        }
        let product = ProductKey::parse(&self.product).map_err(|_| RegisterError::Malformed)?;
        let way = if is_listed { Way::Tencent } else { Way::TencentUnlisted };
        Ok(Proven {
            product,
            way,
            subject: self.device.as_str().into(),
            secret: None,
            once: Some(self.text.as_str().into()),
        })
    }
}

/// A device's secret in the vendor's form: base64 of 16 bytes.
pub(super) fn psk(random: [u8; 16]) -> Secret {
    Secret::new(STANDARD.encode(random).as_bytes()).expect("24 characters are a secret")
}

/// The encrypted part of an answer, and how long it is before that. None if the product's secret has less than 16 bytes.
fn payload(registration: &Registration, product_secret: &Secret) -> Option<(usize, String)> {
    let psk = std::str::from_utf8(registration.secret.expose()).ok()?;
    let plain = format!(r#"{{"encryptionType":2,"psk":"{psk}"}}"#);
    let key = product_secret.expose().first_chunk::<16>()?;
    let mut text = plain.as_bytes().to_vec();
    text.resize(plain.len().next_multiple_of(16), 0);
    cbc::Encryptor::<Aes128>::new(key.into(), &[b'0'; 16].into())
        .encrypt_padded::<ZeroPadding>(&mut text, plain.len())
        .ok()?;
    Some((plain.len(), STANDARD.encode(text)))
}

/// The body that answers `/register/dev`. None if the product's secret has less than 16 bytes.
#[must_use]
pub fn body(registration: &Registration, product_secret: &Secret) -> Option<String> {
    let (len, payload) = payload(registration, product_secret)?;
    Some(format!(r#"{{"code":0,"message":"","len":{len},"payload":"{payload}"}}"#))
}

/// The body that answers `/device/register`. `request_id`: letters, digits and `-`. None if the product's secret has less than 16 bytes.
#[must_use]
pub fn response(registration: &Registration, product_secret: &Secret, request_id: &str) -> Option<String> {
    let (len, payload) = payload(registration, product_secret)?;
    Some(format!(r#"{{"Response":{{"Len":{len},"Payload":"{payload}","RequestId":"{request_id}"}}}}"#))
}

#[cfg(test)]
mod tests {
    use aes::cipher::BlockModeDecrypt;

    use super::*;
    use crate::names::DeviceName;
    use crate::signed::sign;

    fn secret() -> Secret {
        Secret::new(b"0123456789abcdefXYZ").expect("a secret")
    }

    #[test]
    fn the_older_kind() {
        let text = "deviceName=SN-0001&nonce=77&productId=ABCDEFGHIJ&timestamp=1551000000";
        for method in [SignMethod::Sha1, SignMethod::Sha256] {
            let bytes = sign(method, secret().expose(), text);
            let digits = hex::encode(&bytes);
            for signature in [STANDARD.encode(&digits), STANDARD.encode(bytes)] {
                let claim =
                    Claim::from_body(("ABCDEFGHIJ", "SN-0001"), (77, 1_551_000_000), &signature).expect("base64");
                let proven = claim.prove(&secret(), true).expect("signed");
                assert_eq!((proven.way, &*proven.subject), (Way::Tencent, "SN-0001"));
                assert_eq!(claim.prove(&secret(), false).expect("signed").way, Way::TencentUnlisted);
                assert_eq!(claim.prove(&Secret::generate([1; 16]), true), Err(RegisterError::WrongKey));
                let other =
                    Claim::from_body(("ABCDEFGHIJ", "SN-0002"), (77, 1_551_000_000), &signature).expect("base64");
                assert_eq!(other.prove(&secret(), true), Err(RegisterError::WrongKey));
            }
        }
        assert_eq!(Claim::from_body(("p", "d"), (1, 2), "*").map(drop), Err(RegisterError::Malformed));
        assert_eq!(
            Claim::from_body(("p", "d"), (1, 2), "").expect("base64").prove(&secret(), true),
            Err(RegisterError::WrongKey)
        );
    }

    #[test]
    fn the_newer_kind() {
        let body = br#"{"ProductId":"ABCDEFGHIJ","DeviceName":"SN-0001"}"#;
        for (algorithm, method, hash) in [
            ("hmacsha1", SignMethod::Sha1, hex::encode(Sha1::digest(body))),
            ("HmacSha256", SignMethod::Sha256, hex::encode(Sha256::digest(body))),
        ] {
            let text = format!("POST\nhost.example\n/device/register\n\n{algorithm}\n1551\n5456\n{hash}");
            let signature = STANDARD.encode(sign(method, secret().expose(), &text));
            let headers = Headers {
                host: "host.example",
                path: "/device/register",
                algorithm,
                timestamp: "1551",
                nonce: "5456",
                signature: &signature,
            };
            let claim =
                |headers: &Headers<'_>, body: &[u8]| Claim::from_headers(headers, body, ("ABCDEFGHIJ", "SN-0001"));
            assert!(claim(&headers, body).expect("headers").prove(&secret(), true).is_ok());
            let altered = claim(&headers, b"{}").expect("headers").prove(&secret(), true);
            assert_eq!(altered, Err(RegisterError::WrongKey));
            let unknown = Headers { algorithm: "rsa-sha256", ..headers };
            assert_eq!(claim(&unknown, body).map(drop), Err(RegisterError::Malformed));
        }
    }

    #[test]
    fn the_answer_opens_as_sdks_open_it() {
        let registration = Registration {
            name: DeviceName::parse("SN-0001").expect("a name"),
            secret: psk([7; 16]),
            way: Way::Tencent,
            sealed: None,
            device: None,
            package: None,
            changes: Vec::new(),
        };
        let answer = body(&registration, &secret()).expect("long enough");
        let (head, payload) = answer.split_once(r#""payload":""#).expect("a payload");
        assert_eq!(head, r#"{"code":0,"message":"","len":53,"#);
        let mut text = STANDARD.decode(payload.trim_end_matches(r#""}"#)).expect("base64");
        let plain = cbc::Decryptor::<Aes128>::new(b"0123456789abcdef".into(), &[b'0'; 16].into())
            .decrypt_padded::<ZeroPadding>(&mut text)
            .expect("padded");
        assert_eq!(plain, br#"{"encryptionType":2,"psk":"BwcHBwcHBwcHBwcHBwcHBw=="}"#);
        let response = response(&registration, &secret(), "f4da-1").expect("long enough");
        assert!(
            response.starts_with(r#"{"Response":{"Len":53,"Payload":""#)
                && response.ends_with(r#"","RequestId":"f4da-1"}}"#)
        );
        assert_eq!(body(&registration, &Secret::new(b"too short").expect("a secret")), None);
    }
}
