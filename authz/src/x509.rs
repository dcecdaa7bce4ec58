//! Log-in by certificate: TLS has verified it against the listener's anchors, and here is judged whose it is.
//!
//! A certificate is a device's
//!
//! - if its fingerprint, the SHA-256 of its DER, is registered for the device ([`crate::keys::Proof::Certificate`]): whoever issued it; or
//! - if one of the CA certificates that are registered for the product ([`Authorities`]) has issued it, for clients, and it names the device: a
//!   common name of its subject, or a DNS name or URI among its alternative names, is `{device}` or `{product}/{device}`, letter
//!   for letter.
//!
//! The issuer must be registered itself: of the chain that the client has shown only its own certificate comes here, so an intermediate CA
//! that issues is registered in the place of its root, or beside it. Whoever registers the same CA for two products lets
//! a certificate for `{device}` be that of either's device of the name; `{product}/{device}` tells them apart.
//!
//! The user name is `{product}/{device}`. Without one the certificate says who it is for: by its fingerprint, else by a name with a product in it.
//!
//! It must be within its time of validity, and when that ends the connection does ([`turnpike_core::gate::Admission::until_ms`]). Revocation
//! is the listener's business, which has the lists; a fingerprint that is taken away or a device that is disabled is enough here.

mod authorities;
mod leaf;

use std::fmt;

use sha2::{Digest, Sha256};

pub use authorities::{Authorities, AuthorityError};
pub use leaf::Leaf;

/// A SHA-256 that a certificate or a key is known by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of a DER.
    #[must_use]
    pub fn of(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }

    /// From the bytes of a record.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({}…)", hex::encode(&self.0[..4]))
    }
}

/// Why a text is no fingerprint.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a fingerprint is a SHA-256: 64 hexadecimal digits, with or without colons between the bytes")]
pub struct FingerprintError;

impl std::str::FromStr for Fingerprint {
    type Err = FingerprintError;

    /// 64 hexadecimal digits of either case, or with colons, as OpenSSL prints it.
    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let mut bytes = [0; 32];
        if text.len() == 64 {
            hex::decode_to_slice(text, &mut bytes).map_err(|_| FingerprintError)?;
            return Ok(Self(bytes));
        }
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or(FingerprintError)?;
            hex::decode_to_slice(part, std::slice::from_mut(byte)).map_err(|_| FingerprintError)?;
        }
        if parts.next().is_none() { Ok(Self(bytes)) } else { Err(FingerprintError) }
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
