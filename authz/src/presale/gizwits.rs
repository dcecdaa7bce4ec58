//! Gizwits' registration, over HTTP: the device makes its own secret, the passcode, and is given its id, the did.
//!
//! - In the clear: `POST /dev/devices`, a form `passcode=&mac=&product_key=`; the answer is 201 with `did={did}`. Modems send their IMEI as `mac`.
//! - Encrypted: `POST /dev/{product_key}/device`, a form `data={hex}`; AES-128 under the product's secret (32 hexadecimal digits), block by block, of
//!   `mac=&passcode=&type=normal`; the answer is hexadecimal digits of `did={did}`, encrypted in the same way. ECB, and no check that it is unaltered: the devices
//!   have it so.
//!
//! Then the device asks where to connect to: [`provision`].

use aes::Aes128;
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};

use super::register::Proven;
use super::{RegisterError, Registration, Way};
use crate::names::ProductKey;
use crate::secret::Secret;

/// Bytes of a request's encrypted part.
const DATA_MAX: usize = 512;

/// The fields of a form: percent-encoding and `+` decoded, up to 16 of them. None if it isn't text.
#[must_use]
pub fn form(body: &[u8]) -> Option<Vec<(String, String)>> {
    let text = std::str::from_utf8(body).ok()?;
    let pairs = text.split('&').take(16).filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| Some((decoded(key)?, decoded(value)?))).collect()
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                let mut value = [0];
                hex::decode_to_slice(digits, &mut value).ok()?;
                let [value] = value;
                value
            }
            other => other,
        });
    }
    String::from_utf8(out).ok()
}

/// Takes a request in the clear.
///
/// # Errors
/// [`RegisterError::Malformed`].
pub fn prove(body: &[u8]) -> Result<Proven, RegisterError> {
    let fields = form(body).ok_or(RegisterError::Malformed)?;
    let product = field(&fields, "product_key")?.to_owned();
    proven(&product, &fields, Way::Gizwits)
}

/// Opens an encrypted request: the product of its path, its body, the product's secret ([`super::Desk::product_secret`]).
///
/// # Errors
/// [`RegisterError::Malformed`]; [`RegisterError::WrongKey`] if it isn't encrypted under this secret; [`RegisterError::NotAllowed`]
/// if the secret isn't 32 hexadecimal digits.
pub fn prove_sealed(product: &str, body: &[u8], product_secret: &Secret) -> Result<Proven, RegisterError> {
    let cipher = cipher(product_secret).ok_or(RegisterError::NotAllowed)?;
    let fields = form(body).ok_or(RegisterError::Malformed)?;
    let data = field(&fields, "data").ok().filter(|data| data.len() <= 2 * DATA_MAX);
    let data = data.and_then(|data| hex::decode(data).ok()).ok_or(RegisterError::Malformed)?;
    let opened = opened(&cipher, &data).ok_or(RegisterError::Malformed)?;
    let fields = form(&opened).ok_or(RegisterError::WrongKey)?;
    proven(product, &fields, Way::GizwitsSealed).map_err(|_| RegisterError::WrongKey)
}

fn field<'a>(fields: &'a [(String, String)], name: &str) -> Result<&'a str, RegisterError> {
    fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()).ok_or(RegisterError::Malformed)
}

fn proven(product: &str, fields: &[(String, String)], way: Way) -> Result<Proven, RegisterError> {
    let product = ProductKey::parse(product).map_err(|_| RegisterError::Malformed)?;
    let secret = Secret::new(field(fields, "passcode")?.as_bytes()).map_err(|_| RegisterError::Malformed)?;
    Ok(Proven { product, way, subject: field(fields, "mac")?.into(), secret: Some(secret), once: None })
}

/// The body that answers, with status 201.
///
/// # Errors
/// [`RegisterError::NotAllowed`] if it has to be encrypted and the product's secret isn't 32 hexadecimal digits.
pub fn body(registration: &Registration, product_secret: Option<&Secret>) -> Result<String, RegisterError> {
    answer(&format!("did={}", registration.name), product_secret)
}

/// The body that tells a device where to connect to, encrypted if a product's secret is given. `host` and `port` are of the MQTT listener.
///
/// # Errors
/// As [`body`].
pub fn provision(host: &str, port: u16, now_s: u64, product_secret: Option<&Secret>) -> Result<String, RegisterError> {
    answer(
        &format!("host={host}&port={port}&server_ts={now_s}&log_host=&log_port=0&biz_log=0&sys_log=0"),
        product_secret,
    )
}

fn answer(text: &str, product_secret: Option<&Secret>) -> Result<String, RegisterError> {
    let Some(secret) = product_secret else { return Ok(text.to_owned()) };
    let cipher = cipher(secret).ok_or(RegisterError::NotAllowed)?;
    Ok(hex::encode(sealed(&cipher, text.as_bytes())))
}

fn cipher(product_secret: &Secret) -> Option<Aes128> {
    let mut key = zeroize::Zeroizing::new([0_u8; 16]);
    hex::decode_to_slice(product_secret.expose(), &mut *key).ok()?;
    Some(Aes128::new((&*key).into()))
}

fn sealed(cipher: &Aes128, text: &[u8]) -> Vec<u8> {
    let padding = 16 - text.len() % 16;
    let mut bytes = [text, &vec![u8::try_from(padding).unwrap_or(16); padding]].concat();
    for block in bytes.as_chunks_mut::<16>().0 {
        cipher.encrypt_block(block.into());
    }
    bytes
}

/// A text whose length is a multiple of 16 comes without padding: the devices add none.
fn opened(cipher: &Aes128, bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.is_empty() || !bytes.len().is_multiple_of(16) {
        return None;
    }
    let mut text = bytes.to_vec();
    for block in text.as_chunks_mut::<16>().0 {
        cipher.decrypt_block(block.into());
    }
    let padding = text.last().map_or(0, |byte| usize::from(*byte));
    let kept = text.len().checked_sub(padding).filter(|_| (1..=16).contains(&padding));
    let is_padded = kept.is_some_and(|kept| text.iter().skip(kept).all(|byte| usize::from(*byte) == padding));
    if let Some(kept) = kept.filter(|_| is_padded) {
        text.truncate(kept);
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::names::DeviceName;

    fn secret() -> Secret {
        Secret::new(b"000102030405060708090a0b0c0d0e0f").expect("a secret")
    }

    fn data(text: &str) -> String {
        format!("data={}", hex::encode(sealed(&cipher(&secret()).expect("hex"), text.as_bytes())))
    }

    #[test]
    fn a_request_in_the_clear() {
        let proven = prove(b"passcode=QWERTYUIOP&mac=001A2B3C4D5E&product_key=abcdef").expect("a request");
        assert_eq!((proven.way, &*proven.subject, proven.product.as_str()), (Way::Gizwits, "001A2B3C4D5E", "abcdef"));
        assert_eq!(proven.secret, Secret::new(b"QWERTYUIOP").ok());
        let encoded =
            prove(b"passcode=QWERTY%55IOP&mac=00%3a1A%3A2B%3A3C%3A4D%3A5E&product_key=abcdef").expect("a request");
        assert_eq!((&*encoded.subject, encoded.secret), ("00:1A:2B:3C:4D:5E", Secret::new(b"QWERTYUIOP").ok()));
        for bad in [
            &b""[..],
            b"passcode=QWERTYUIOP&mac=1",
            b"passcode=short&mac=1&product_key=p",
            b"mac=1&product_key=p",
            b"passcode=QWERTYUIOP&mac=1&product_key=a/b",
            b"passcode=QWERTYUIO%5&mac=1&product_key=p",
            b"\xFF",
        ] {
            assert_eq!(prove(bad), Err(RegisterError::Malformed));
        }
    }

    #[test]
    fn an_encrypted_request() {
        let text = "mac=001A2B3C4D5E&passcode=QWERTYUIOP&type=normal";
        assert_eq!(text.len() % 16, 0, "the length at which devices don't pad");
        let padded = data(text);
        let unpadded = &padded[..padded.len() - 32];
        for body in [padded.as_str(), unpadded] {
            let proven = prove_sealed("abcdef", body.as_bytes(), &secret()).expect("a request");
            assert_eq!((proven.way, &*proven.subject), (Way::GizwitsSealed, "001A2B3C4D5E"));
        }
        let other = Secret::new(b"000102030405060708090a0b0c0d0e00").expect("a secret");
        assert_eq!(prove_sealed("abcdef", padded.as_bytes(), &other), Err(RegisterError::WrongKey));
        let no_key = Secret::new(b"not hexadecimal").expect("a secret");
        assert_eq!(prove_sealed("abcdef", padded.as_bytes(), &no_key), Err(RegisterError::NotAllowed));
        for bad in ["", "data=", "data=00", "data=zz", &format!("data={}", "0".repeat(2048))] {
            assert_eq!(prove_sealed("abcdef", bad.as_bytes(), &secret()), Err(RegisterError::Malformed), "{bad}");
        }
    }

    /// FIPS 197, C.1.
    #[test]
    fn the_block_cipher_is_aes() {
        let block = hex::decode("00112233445566778899aabbccddeeff").expect("hex");
        let sealed = sealed(&cipher(&secret()).expect("hex"), &block);
        assert_eq!(hex::encode(&sealed[..16]), "69c4e0d86a7b0430d8cdb78070b4c55a");
    }

    #[test]
    fn answers_are_what_devices_look_for() {
        let registration = Registration {
            name: DeviceName::parse("AbCdEfGhIjKlMnOpQrStUv").expect("a name"),
            secret: Secret::new(b"QWERTYUIOP").expect("a secret"),
            way: Way::Gizwits,
            sealed: None,
            device: None,
            package: None,
            changes: Vec::new(),
        };
        assert_eq!(body(&registration, None).as_deref(), Ok("did=AbCdEfGhIjKlMnOpQrStUv"));
        let sealed = body(&registration, Some(&secret())).expect("a key");
        assert_eq!(sealed.len(), 64, "devices take exactly this");
        let text = opened(&cipher(&secret()).expect("hex"), &hex::decode(sealed).expect("hex"));
        assert_eq!(text.as_deref(), Some(&b"did=AbCdEfGhIjKlMnOpQrStUv"[..]));
        let provisioned = provision("mqtt.example", 1883, 7, None).expect("plain");
        assert!(provisioned.starts_with("host=mqtt.example&port=1883&server_ts=7&"));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(body in proptest::collection::vec(any::<u8>(), 0..100), text in "data=[0-9a-f]{0,96}") {
            let _ = prove(&body);
            let _ = prove_sealed("p", &body, &secret());
            let _ = prove_sealed("p", text.as_bytes(), &secret());
        }
    }
}
