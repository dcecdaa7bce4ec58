//! Burn-in keys, and how a secret gets to a device that has no TLS.
//!
//! A key is `{package}-{index}-{32 hexadecimal digits}`: the digits are the first 16 bytes of HMAC-SHA256 under the package's secret over
//! `"turnpike burn-in key v1\n{product}\n{package}\n{index}"`. So a million keys are a million lines of a file for the production line, and nothing in the
//! broker; what it remembers is which have been used.
//!
//! Over TLS a device sends the key. Without TLS it must not, or whoever listens has it; it sends `{package}-{index}`, a nonce of 8 to 64 visible
//! characters, and as signature 64 hexadecimal digits of HMAC-SHA256 under the key's 16 bytes over
//! `"turnpike registration v1\n{product}\n{name}\n{package}-{index}\n{nonce}"`, the name empty if it leaves that to the broker. The answer's secret is
//! encrypted: 16 random bytes, then the secret in AES-128-GCM with its tag of 16 bytes, the associated data `"{product}\n{name}"` with the name that was
//! given. Key (16 bytes) and nonce (12 bytes) are the 28 bytes of HKDF-SHA256 with the key's 16 bytes as input, the device's nonce and then the
//! random bytes as salt, and the info `"turnpike registration v1"`. A nonce is good once in twenty minutes at least, so that a
//! recorded request doesn't register again what an operator has released in that time; only the answer may be asked for again by it.

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes128Gcm, KeyInit, Nonce};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::book::PackageId;
use crate::names::ProductKey;
use crate::secret::Secret;

const SIGNED: &str = "turnpike registration v1";

/// Whom a package's secret is sealed for.
#[must_use]
pub fn owner(product: &str, id: PackageId) -> String {
    format!("pp\0{product}\0{id}")
}

/// Which key it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyId {
    /// Its package.
    pub package: PackageId,
    /// Its number within that.
    pub index: u32,
}

impl KeyId {
    /// Parses `{package}-{index}`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (package, index) = text.split_once('-')?;
        let number = |text: &str| text.parse::<u32>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
        Some(Self { package: PackageId::new(number(package)?)?, index: number(index)? })
    }
}

impl std::fmt::Display for KeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.package, self.index)
    }
}

/// The secret part of a burn-in key.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct BurnKey([u8; 16]);

impl std::fmt::Debug for BurnKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BurnKey(…)")
    }
}

impl PartialEq for BurnKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl BurnKey {
    /// Computes a key.
    #[must_use]
    pub fn derive(package_secret: &Secret, product: &ProductKey, id: KeyId) -> Self {
        let text = format!("turnpike burn-in key v1\n{product}\n{}\n{}", id.package, id.index);
        let bytes: [u8; 32] = keyed(package_secret.expose(), &text).finalize().into_bytes().into();
        Self(*bytes.first_chunk().expect("16 of 32 bytes"))
    }

    /// Parses a whole key.
    #[must_use]
    pub fn parse(text: &str) -> Option<(KeyId, Self)> {
        let (id, digits) = text.rsplit_once('-')?;
        let mut key = Self([0; 16]);
        hex::decode_to_slice(digits, &mut key.0).ok()?;
        Some((KeyId::parse(id)?, key))
    }

    /// As it is burnt into a device.
    #[must_use]
    pub fn to_text(&self, id: KeyId) -> String {
        format!("{id}-{}", hex::encode(self.0))
    }

    /// A device's signature.
    #[must_use]
    pub fn sign(&self, product: &str, name: &str, id: KeyId, nonce: &str) -> String {
        hex::encode(keyed(&self.0, &text(product, name, id, nonce)).finalize().into_bytes())
    }

    /// Whether this key made a signature.
    #[must_use]
    pub fn signed(&self, (product, name, id, nonce): (&str, &str, KeyId, &str), signature: &str) -> bool {
        let mut bytes = [0; 32];
        let is_hex = hex::decode_to_slice(signature, &mut bytes).is_ok();
        keyed(&self.0, &text(product, name, id, nonce)).verify_slice(&bytes).is_ok() && is_hex
    }

    /// Encrypts a device's secret for it. `random` is fresh.
    #[must_use]
    pub fn seal(&self, nonce: &str, (product, name): (&str, &str), secret: &Secret, random: [u8; 16]) -> Vec<u8> {
        let (cipher, iv) = self.cipher(nonce, &random);
        let associated = format!("{product}\n{name}");
        let payload = Payload { msg: secret.expose(), aad: associated.as_bytes() };
        let text = cipher.encrypt(&Nonce::from(iv), payload).expect("AES-GCM takes a message of 256 bytes");
        [&random[..], &text].concat()
    }

    /// Opens what [`Self::seal`] made, as the device does.
    #[must_use]
    pub fn open(&self, nonce: &str, (product, name): (&str, &str), sealed: &[u8]) -> Option<Secret> {
        let (random, text) = sealed.split_first_chunk::<16>()?;
        let (cipher, iv) = self.cipher(nonce, random);
        let associated = format!("{product}\n{name}");
        let opened = cipher.decrypt(&Nonce::from(iv), Payload { msg: text, aad: associated.as_bytes() }).ok()?;
        Secret::new(&Zeroizing::new(opened)).ok()
    }

    fn cipher(&self, nonce: &str, random: &[u8; 16]) -> (Aes128Gcm, [u8; 12]) {
        let salt = [nonce.as_bytes(), random].concat();
        let mut keys = Zeroizing::new([0; 28]);
        Hkdf::<Sha256>::new(Some(&salt), &self.0)
            .expand(SIGNED.as_bytes(), &mut *keys)
            .expect("HKDF-SHA256 gives up to 8160 bytes");
        let (mut key, mut iv) = (Zeroizing::new([0_u8; 16]), [0; 12]);
        key.iter_mut().zip(keys.iter()).for_each(|(to, from)| *to = *from);
        iv.iter_mut().zip(keys.iter().skip(16)).for_each(|(to, from)| *to = *from);
        (Aes128Gcm::new((&*key).into()), iv)
    }
}

fn keyed(key: &[u8], text: &str) -> Hmac<Sha256> {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(text.as_bytes());
    mac
}

fn text(product: &str, name: &str, id: KeyId, nonce: &str) -> String {
    format!("{SIGNED}\n{product}\n{name}\n{id}\n{nonce}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(index: u32) -> (KeyId, BurnKey) {
        let product = ProductKey::parse("p").expect("a name");
        let id = KeyId { package: PackageId::FIRST, index };
        (id, BurnKey::derive(&Secret::generate([7; 16]), &product, id))
    }

    #[test]
    fn a_key_is_read_back_as_it_was_burnt() {
        let (id, key) = key(1042);
        let text = key.to_text(id);
        assert!(text.starts_with("1-1042-") && text.len() == 39);
        let (read_id, read) = BurnKey::parse(&text).expect("a key");
        assert!(read_id == id && read == key);
        assert!(BurnKey::parse(&text.to_uppercase()).is_some_and(|(_, read)| read == key));
        for bad in [
            "",
            "1-2",
            "0-2-",
            "1-+2-00000000000000000000000000000000",
            &text[..38],
            &format!("{text}0"),
            &format!("x{text}"),
        ] {
            assert!(BurnKey::parse(bad).is_none(), "{bad}");
        }
        assert_eq!(format!("{key:?}"), "BurnKey(…)");
    }

    #[test]
    fn keys_differ_by_package_product_and_index() {
        let secret = Secret::generate([7; 16]);
        let derive = |product: &str, package, index| {
            let id = KeyId { package: PackageId::new(package).expect("a number"), index };
            BurnKey::derive(&secret, &ProductKey::parse(product).expect("a name"), id).0
        };
        let keys = [derive("p", 1, 0), derive("p", 1, 1), derive("p", 2, 0), derive("q", 1, 0), derive("p", 11, 0)];
        assert_eq!(keys.iter().collect::<std::collections::HashSet<_>>().len(), keys.len());
    }

    #[test]
    fn a_signature_and_a_sealed_secret_are_bound_to_what_they_say() {
        let ((id, key), (other_id, other)) = (key(1), key(2));
        let signature = key.sign("p", "d", id, "12345678");
        assert!(key.signed(("p", "d", id, "12345678"), &signature));
        assert!(key.signed(("p", "d", id, "12345678"), &signature.to_uppercase()));
        for (fields, signature) in [
            (("q", "d", id, "12345678"), signature.as_str()),
            (("p", "", id, "12345678"), &signature),
            (("p", "d", other_id, "12345678"), &signature),
            (("p", "d", id, "12345679"), &signature),
            (("p", "d", id, "12345678"), ""),
            (("p", "d", id, "12345678"), &signature[..62]),
        ] {
            assert!(!key.signed(fields, signature));
        }
        assert!(!other.signed(("p", "d", id, "12345678"), &signature));

        let secret = Secret::generate([1; 16]);
        let sealed = key.seal("12345678", ("p", "d"), &secret, [2; 16]);
        assert_eq!(sealed.len(), 16 + 32 + 16);
        assert_eq!(key.open("12345678", ("p", "d"), &sealed), Some(secret));
        assert_eq!(key.open("12345679", ("p", "d"), &sealed), None);
        assert_eq!(key.open("12345678", ("p", "e"), &sealed), None);
        assert_eq!(other.open("12345678", ("p", "d"), &sealed), None);
        for at in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            assert_eq!(key.open("12345678", ("p", "d"), &altered), None, "byte {at}");
            assert_eq!(key.open("12345678", ("p", "d"), &sealed[..at]), None);
        }
    }
}
