//! Secrets of devices, and how they are kept: sealed with AES-256-GCM under the master key.

use std::fmt;

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Bytes of a secret, as the device has them. Never printed; wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret(Vec<u8>);

/// Why a text is no secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SecretError {
    /// Too easily guessed, or too long to be one.
    #[error("a device secret has 8 to 256 bytes")]
    Length,
}

impl Secret {
    /// Takes a secret that was given.
    ///
    /// # Errors
    /// [`SecretError::Length`].
    pub fn new(bytes: &[u8]) -> Result<Self, SecretError> {
        if (8..=256).contains(&bytes.len()) { Ok(Self(bytes.to_vec())) } else { Err(SecretError::Length) }
    }

    /// Makes one of 32 hexadecimal digits from random bytes.
    #[must_use]
    pub fn generate(random: [u8; 16]) -> Self {
        Self(hex::encode(random).into_bytes())
    }

    /// The bytes.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Why a master key or a sealed secret can't be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SealError {
    /// Not 32 bytes, in none of the ways to write them.
    #[error("a master key is 32 random bytes, or these as 64 hexadecimal digits or in base64")]
    Key,
    /// Sealed under another master key.
    #[error("a secret was sealed under another master key")]
    OtherKey,
    /// Sealed for another record, or changed since.
    #[error("a secret doesn't open: it was sealed for another record, or it has been changed")]
    Open,
}

/// The key that all secrets are sealed under.
///
/// Its id is a byte derived from it, and stands in front of what it sealed. So after a rotation it is known without trying which key
/// opens what (two keys in 256 share an id; then the wrong one fails to open).
#[derive(Clone)]
pub struct MasterKey {
    cipher: Aes256Gcm,
    /// HMAC-SHA256 under it: what other keys are derived by.
    root: Hmac<Sha256>,
    id: u8,
}

impl MasterKey {
    /// From 32 bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        let bytes = Zeroizing::new(bytes);
        let root = <Hmac<Sha256> as KeyInit>::new_from_slice(&*bytes).expect("HMAC takes a key of any length");
        let mut key = Self { cipher: Aes256Gcm::new((&*bytes).into()), root, id: 0 };
        key.id = key.derive("turnpike master key id").first().copied().expect("SHA-256 has 32 bytes");
        key
    }

    /// A key for one purpose, named by `label`: HMAC-SHA256 of the label under this key, which is uniformly random. From it neither this
    /// key nor that of another label can be told.
    #[must_use]
    pub fn derive(&self, label: &str) -> Zeroizing<[u8; 32]> {
        let mut mac = self.root.clone();
        mac.update(label.as_bytes());
        Zeroizing::new(mac.finalize().into_bytes().into())
    }

    /// From 64 hexadecimal digits, white space around them allowed.
    ///
    /// # Errors
    /// [`SealError::Key`].
    pub fn from_hex(text: &str) -> Result<Self, SealError> {
        let mut bytes = Zeroizing::new([0; 32]);
        hex::decode_to_slice(text.trim(), &mut *bytes).map_err(|_| SealError::Key)?;
        Ok(Self::new(*bytes))
    }

    /// From the text of an environment variable: 64 hexadecimal digits or base64, white space around it allowed.
    ///
    /// # Errors
    /// [`SealError::Key`].
    pub fn from_text(text: &str) -> Result<Self, SealError> {
        let text = text.trim();
        if text.len() == 64 {
            return Self::from_hex(text);
        }
        let bytes = Zeroizing::new(STANDARD.decode(text).map_err(|_| SealError::Key)?);
        <[u8; 32]>::try_from(bytes.as_slice()).map(Self::new).map_err(|_| SealError::Key)
    }

    /// From what a file contains: 32 raw bytes, or the text that [`Self::from_text`] takes.
    ///
    /// # Errors
    /// [`SealError::Key`], also for 32 printable characters: that is a passphrase, or half a key in hexadecimal, not 32 random bytes.
    pub fn from_file(content: &[u8]) -> Result<Self, SealError> {
        match <[u8; 32]>::try_from(content) {
            Ok(bytes) if !content.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) => {
                Ok(Self::new(bytes))
            }
            _ => Self::from_text(std::str::from_utf8(content).map_err(|_| SealError::Key)?),
        }
    }

    /// What tells it from another key.
    #[must_use]
    pub fn id(&self) -> u8 {
        self.id
    }

    /// Seals a secret for the record named by `owner`, so that it opens nowhere else. `nonce` must be random.
    #[must_use]
    pub fn seal(&self, owner: &str, secret: &Secret, nonce: [u8; 12]) -> Sealed {
        let payload = Payload { msg: secret.expose(), aad: owner.as_bytes() };
        let text = self.cipher.encrypt(&Nonce::from(nonce), payload).expect("AES-GCM takes a message of 256 bytes");
        Sealed([&[self.id], nonce.as_slice(), &text].concat().into_boxed_slice())
    }

    /// Opens what was sealed for `owner`.
    ///
    /// # Errors
    /// [`SealError::OtherKey`], [`SealError::Open`].
    pub fn open(&self, owner: &str, sealed: &Sealed) -> Result<Secret, SealError> {
        let (&id, rest) = sealed.0.split_first().ok_or(SealError::Open)?;
        if id != self.id {
            return Err(SealError::OtherKey);
        }
        let (nonce, text) = rest.split_first_chunk::<12>().ok_or(SealError::Open)?;
        let payload = Payload { msg: text, aad: owner.as_bytes() };
        self.cipher.decrypt(&Nonce::from(*nonce), payload).map(Secret).map_err(|_| SealError::Open)
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKey(id {})", self.id)
    }
}

/// A sealed secret: the key's id, the nonce, the ciphertext, the tag.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(Box<[u8]>);

impl Sealed {
    /// In the place of a secret that there is none of: nothing opens it. See [`Self::is_none`].
    #[must_use]
    pub fn none() -> Self {
        Self(Box::default())
    }

    /// Whether there is no secret.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// From the bytes of a record; they are checked when they are opened.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// For a record.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// [`MasterKey::id`] of the key that sealed it.
    #[must_use]
    pub fn key_id(&self) -> Option<u8> {
        self.0.first().copied()
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_for_its_record_under_its_key_and_unchanged() {
        let (key, secret) = (MasterKey::new([7; 32]), Secret::generate([1; 16]));
        let sealed = key.seal("a", &secret, [2; 12]);
        assert_eq!(sealed.as_bytes().len(), 1 + 12 + 32 + 16);
        assert_eq!(sealed.key_id(), Some(key.id()));
        assert_eq!(key.open("a", &sealed), Ok(secret));
        assert_eq!(key.open("b", &sealed), Err(SealError::Open));
        assert_eq!(MasterKey::new([8; 32]).open("a", &sealed), Err(SealError::OtherKey));
        for at in 0..sealed.as_bytes().len() {
            let mut bytes = sealed.as_bytes().to_vec();
            bytes[at] ^= 1;
            assert!(key.open("a", &Sealed::from_bytes(&bytes)).is_err(), "byte {at}");
            assert!(key.open("a", &Sealed::from_bytes(&bytes[..at])).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_master_key_is_written_in_hexadecimal_base64_or_as_it_is() {
        let bytes: [u8; 32] = std::array::from_fn(|n| u8::try_from(n).expect("small") * 7);
        let id = MasterKey::new(bytes).id();
        let (hex, base64) = (hex::encode(bytes), STANDARD.encode(bytes));
        for text in [hex.clone(), format!(" {hex}\n"), hex.to_uppercase(), base64] {
            assert_eq!(MasterKey::from_text(&text).map(|key| key.id()), Ok(id));
            assert_eq!(MasterKey::from_file(text.as_bytes()).map(|key| key.id()), Ok(id));
        }
        assert_eq!(MasterKey::from_file(&bytes).map(|key| key.id()), Ok(id));
        for bad in ["", "00", &hex[..32], &hex[..63], "a passphrase of thirty-two chars", &"zz".repeat(32)] {
            assert_eq!(MasterKey::from_file(bad.as_bytes()).map(|key| key.id()), Err(SealError::Key), "{bad}");
        }
    }

    #[test]
    fn nothing_secret_is_printed() {
        let (key, secret) = (MasterKey::new([7; 32]), Secret::generate([0xAB; 16]));
        let printed = format!("{key:?} {secret:?} {:?}", key.seal("a", &secret, [0xCD; 12]));
        assert!(!printed.contains("ab") && !printed.contains("cd"), "{printed}");
    }
}
