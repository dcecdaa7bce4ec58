//! Secrets of devices, and how they are kept: sealed with AES-256-GCM under the master key.

use std::fmt;

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes of a secret, as the device has them. Never printed.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
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

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Why a master key or a sealed secret can't be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SealError {
    /// Neither 32 bytes nor 64 hexadecimal digits.
    #[error("a master key is 32 bytes, written as 64 hexadecimal digits")]
    Key,
    /// Sealed under another key, for another record, or changed since.
    #[error(
        "a secret doesn't open: it was sealed under another master key or for another record, or it has been changed"
    )]
    Open,
}

/// The key that all secrets are sealed under.
#[derive(Clone)]
pub struct MasterKey(Aes256Gcm);

impl MasterKey {
    /// From 32 bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Aes256Gcm::new(&bytes.into()))
    }

    /// From 64 hexadecimal digits, white space around them allowed.
    ///
    /// # Errors
    /// [`SealError::Key`].
    pub fn from_hex(text: &str) -> Result<Self, SealError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text.trim(), &mut bytes).map_err(|_| SealError::Key)?;
        let key = Self::new(bytes);
        bytes.zeroize();
        Ok(key)
    }

    /// Seals a secret for the record named by `owner`, so that it opens nowhere else. `nonce` must be random.
    #[must_use]
    pub fn seal(&self, owner: &str, secret: &Secret, nonce: [u8; 12]) -> Sealed {
        let payload = Payload { msg: secret.expose(), aad: owner.as_bytes() };
        let text = self.0.encrypt(&Nonce::from(nonce), payload).expect("AES-GCM takes a message of 256 bytes");
        Sealed([nonce.as_slice(), &text].concat().into_boxed_slice())
    }

    /// Opens what was sealed for `owner`.
    ///
    /// # Errors
    /// [`SealError::Open`].
    pub fn open(&self, owner: &str, sealed: &Sealed) -> Result<Secret, SealError> {
        let (nonce, text) = sealed.0.split_first_chunk::<12>().ok_or(SealError::Open)?;
        let payload = Payload { msg: text, aad: owner.as_bytes() };
        self.0.decrypt(&Nonce::from(*nonce), payload).map(Secret).map_err(|_| SealError::Open)
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(…)")
    }
}

/// A sealed secret: nonce, ciphertext, tag.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(Box<[u8]>);

impl Sealed {
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
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes)", self.0.len())
    }
}
