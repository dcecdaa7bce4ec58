//! Detached signatures of firmware.
//!
//! **What is signed is the SHA-256 of the file, as a message of 32 bytes.** So a file of gigabytes is read once, while it comes in, and Ed25519, which hashes its
//! message twice, needs it no second time. The algorithms hash that message once more with SHA-256 (Ed25519: with SHA-512): a signature made with
//! `openssl dgst -sha256 -sign key.pem firmware.bin`, of the file itself, isn't one of these and is refused.
//!
//! ```text
//! openssl dgst -sha256 -binary -out firmware.sha256 firmware.bin
//!
//! # Ed25519: openssl genpkey -algorithm ed25519 -out key.pem
//! openssl pkeyutl -sign -inkey key.pem -rawin -in firmware.sha256 -out firmware.sig
//! # ECDSA P-256, ASN.1: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem
//! openssl dgst -sha256 -sign key.pem -out firmware.sig firmware.sha256
//! # RSA, PKCS#1 v1.5: openssl genrsa -out key.pem 3072
//! openssl dgst -sha256 -sign key.pem -out firmware.sig firmware.sha256
//! # RSA-PSS, with a salt of 32 bytes
//! openssl dgst -sha256 -sign key.pem -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest -out firmware.sig firmware.sha256
//!
//! # What the product is given:
//! openssl pkey -in key.pem -pubout
//! ```
//!
//! The key says how a signature is verified; nothing in the signature does. `ring` verifies, through [`PublicKey::verify`].

use turnpike_authz::keys::PublicKey;
use turnpike_authz::x509::Fingerprint;

/// Keys of a product.
pub const KEYS_MAX: usize = 8;
/// Of a signature: RSA with 4096 bits.
pub const SIGNATURE_BYTES_MAX: usize = 512;

/// A signature that came with a file, not verified.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Detached {
    /// As it was made: 64 bytes of Ed25519, ASN.1 of ECDSA, or as long as the RSA key.
    pub signature: Box<[u8]>,
    /// Whose it is said to be: SHA-256 of the key's `SubjectPublicKeyInfo`. None: any of the product's.
    pub key: Option<Fingerprint>,
}

/// A signature that was verified.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Signed {
    /// The signature, for devices that verify it too.
    pub signature: Box<[u8]>,
    /// Whose it is.
    pub key: Fingerprint,
}

/// Why a signature isn't one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SignatureError {
    /// There is none, and the product requires one.
    #[error("the product requires a signature of the firmware's SHA-256, and there is none")]
    Missing,
    /// The key that is named isn't the product's, or the product has none at all.
    #[error("the signature is by a key that the product doesn't have")]
    UnknownKey,
    /// No key that it may be by made it.
    #[error("the signature isn't one of this firmware's SHA-256 by a key of the product")]
    Wrong,
}

/// Why a list of keys isn't taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeysError {
    /// More than [`KEYS_MAX`].
    #[error("a product has {KEYS_MAX} keys at most for its firmware")]
    TooMany,
    /// RSA below 2048 bits.
    #[error("an RSA key for firmware has 2048 bits or more")]
    Weak,
    /// The same key twice.
    #[error("a key is given twice")]
    Twice,
}

/// The keys that a product's firmware may be signed with.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Keys(Box<[PublicKey]>);

impl Keys {
    /// Up to [`KEYS_MAX`] keys.
    ///
    /// # Errors
    /// [`KeysError`].
    pub fn new(keys: Vec<PublicKey>) -> Result<Self, KeysError> {
        if keys.len() > KEYS_MAX {
            return Err(KeysError::TooMany);
        }
        if keys.iter().any(|key| key.kind().is_legacy()) {
            return Err(KeysError::Weak);
        }
        let is_twice = |(at, key): (usize, &PublicKey)| keys.iter().skip(at + 1).any(|other| other == key);
        if keys.iter().enumerate().any(is_twice) { Err(KeysError::Twice) } else { Ok(Self(keys.into())) }
    }

    /// The keys.
    #[must_use]
    pub fn as_slice(&self) -> &[PublicKey] {
        &self.0
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Verifies a signature of a file's SHA-256. What is public needs no constant time.
    ///
    /// # Errors
    /// [`SignatureError::UnknownKey`], [`SignatureError::Wrong`].
    pub fn verify(&self, sha256: &[u8; 32], detached: &Detached) -> Result<Signed, SignatureError> {
        let is_named = |key: &&PublicKey| detached.key.is_none_or(|named| key.fingerprint() == named);
        let mut candidates = self.0.iter().filter(is_named).peekable();
        if candidates.peek().is_none() {
            return Err(SignatureError::UnknownKey);
        }
        if detached.signature.len() > SIGNATURE_BYTES_MAX {
            return Err(SignatureError::Wrong);
        }
        let signer = candidates.find(|key| key.verify(sha256, &detached.signature)).ok_or(SignatureError::Wrong)?;
        Ok(Signed { signature: detached.signature.clone(), key: signer.fingerprint() })
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
