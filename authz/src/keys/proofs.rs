//! What a device proves itself by, other than its secret.

use crate::keys::PublicKey;
use crate::x509::Fingerprint;

/// One way to prove who one is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Proof {
    /// A signature of its private key.
    Key(PublicKey),
    /// TLS with that certificate.
    Certificate(Fingerprint),
}

/// Why a list of proofs isn't one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProofsError {
    /// None, or too many.
    #[error("a device has 1 to {} public keys and certificates", Proofs::MAX)]
    Count,
    /// The same twice.
    #[error("a public key or certificate is there twice")]
    Twice,
}

/// The proofs of a device: at least one, so that two are there while a key is being changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proofs(Box<[Proof]>);

const KEY: u8 = 1;
const CERTIFICATE: u8 = 2;

impl Proofs {
    /// How many a device has at the most.
    pub const MAX: usize = 4;

    /// Checks a list.
    ///
    /// # Errors
    /// [`ProofsError`].
    pub fn new(proofs: Vec<Proof>) -> Result<Self, ProofsError> {
        if !(1..=Self::MAX).contains(&proofs.len()) {
            return Err(ProofsError::Count);
        }
        if proofs.iter().enumerate().any(|(at, proof)| proofs.iter().take(at).any(|earlier| earlier == proof)) {
            return Err(ProofsError::Twice);
        }
        Ok(Self(proofs.into()))
    }

    /// The proofs, in the order in which they were given.
    pub fn iter(&self) -> impl Iterator<Item = &Proof> {
        self.0.iter()
    }

    /// The public keys among them.
    pub fn keys(&self) -> impl Iterator<Item = &PublicKey> {
        self.0.iter().filter_map(|proof| match proof {
            Proof::Key(key) => Some(key),
            Proof::Certificate(_) => None,
        })
    }

    /// The certificates among them.
    pub fn certificates(&self) -> impl Iterator<Item = Fingerprint> {
        self.0.iter().filter_map(|proof| match proof {
            Proof::Key(_) => None,
            Proof::Certificate(fingerprint) => Some(*fingerprint),
        })
    }

    /// For a record: each with its kind and its length (2 bytes).
    pub(crate) fn to_record(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for proof in &self.0 {
            let (kind, value) = match proof {
                Proof::Key(key) => (KEY, key.as_der()),
                Proof::Certificate(fingerprint) => (CERTIFICATE, &fingerprint.as_bytes()[..]),
            };
            let length = u16::try_from(value.len()).expect("a key has at most 4096 bytes");
            bytes.push(kind);
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(value);
        }
        bytes
    }

    /// From a record.
    pub(crate) fn from_record(mut bytes: &[u8]) -> Option<Self> {
        let mut proofs = Vec::new();
        while let Some((&kind, rest)) = bytes.split_first() {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
            let proof = match kind {
                KEY => Proof::Key(PublicKey::from_der(value).ok()?),
                CERTIFICATE => Proof::Certificate(Fingerprint::from_bytes(value.try_into().ok()?)),
                _ => return None,
            };
            if proofs.len() == Self::MAX {
                return None;
            }
            proofs.push(proof);
            bytes = rest;
        }
        Self::new(proofs).ok()
    }
}
