//! Public keys, as they are given and as they are kept.

use std::fmt;

use rsa::pkcs1::{self, RsaPublicKeyRef};
use x509_cert::der::asn1::{AnyRef, BitStringRef};
use x509_cert::der::{Decode, Encode};
use x509_cert::spki::{AlgorithmIdentifierRef, ObjectIdentifier, SubjectPublicKeyInfoRef};

use crate::x509::Fingerprint;

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// Bytes of a key in PEM or DER; RSA with 4096 bits has 800 in PEM.
const INPUT_BYTES_MAX: usize = 4096;

/// What `ring` takes.
const RSA_EXPONENT_MAX: u64 = (1 << 33) - 1;

/// An algorithm with its size.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum KeyKind {
    /// RSA with a modulus of so many bits: 1024, 2048, 3072 or 4096.
    Rsa(u16),
    /// ECDSA over P-256.
    P256,
    /// Ed25519.
    Ed25519,
}

impl KeyKind {
    /// Whether it is of a size that only old devices have.
    #[must_use]
    pub fn is_legacy(self) -> bool {
        matches!(self, Self::Rsa(bits) if bits < 2048)
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rsa(bits) => write!(f, "rsa-{bits}"),
            Self::P256 => f.write_str("ecdsa-p256"),
            Self::Ed25519 => f.write_str("ed25519"),
        }
    }
}

/// Why something is no public key that can be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyError {
    /// More than any key has.
    #[error("a public key has at most {INPUT_BYTES_MAX} bytes")]
    TooLong,
    /// Not one PEM block of the right kind.
    #[error("a PEM file of a public key has one block, PUBLIC KEY or RSA PUBLIC KEY")]
    Pem,
    /// The broker must not have it.
    #[error("this is a private key, which is the device's alone; give the public key")]
    Private,
    /// Not the DER of a `SubjectPublicKeyInfo`, or of an `RSAPublicKey` where that was said.
    #[error("the public key is damaged")]
    Der,
    /// Neither RSA, nor ECDSA, nor Ed25519.
    #[error("a public key is RSA, ECDSA over P-256 or Ed25519")]
    Algorithm,
    /// ECDSA over another curve.
    #[error("an ECDSA key is over P-256")]
    Curve,
    /// ECDSA with a compressed point, or none.
    #[error("an ECDSA key has an uncompressed point")]
    Point,
    /// RSA of another size.
    #[error("an RSA key has 1024, 2048, 3072 or 4096 bits, not {0}")]
    RsaBits(usize),
    /// RSA with numbers that no key has.
    #[error("an RSA key has an odd modulus and an odd exponent from 3 to {RSA_EXPONENT_MAX}")]
    RsaNumbers,
}

/// A public key: the DER of its `SubjectPublicKeyInfo`, checked.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    kind: KeyKind,
    /// Where the algorithm's own encoding begins, which is the last thing in it.
    at: u16,
    der: Box<[u8]>,
}

impl PublicKey {
    /// From PEM (`PUBLIC KEY`, `RSA PUBLIC KEY`) or from the DER of a `SubjectPublicKeyInfo`.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn parse(input: &[u8]) -> Result<Self, KeyError> {
        if input.len() > INPUT_BYTES_MAX {
            return Err(KeyError::TooLong);
        }
        // DER begins with the byte of a sequence, which is a `0`.
        if input.trim_ascii_start().starts_with(b"-----") { Self::from_pem(input) } else { Self::from_der(input) }
    }

    fn from_pem(input: &[u8]) -> Result<Self, KeyError> {
        let blocks = pem::parse_many(input).map_err(|_| KeyError::Pem)?;
        if blocks.iter().any(|block| block.tag().ends_with("PRIVATE KEY")) {
            return Err(KeyError::Private);
        }
        let [block] = blocks.as_slice() else { return Err(KeyError::Pem) };
        match block.tag() {
            "PUBLIC KEY" => Self::from_der(block.contents()),
            "RSA PUBLIC KEY" => Self::from_pkcs1(block.contents()),
            _ => Err(KeyError::Pem),
        }
    }

    /// From the DER of a `SubjectPublicKeyInfo` (RFC 5280, 4.1.2.7).
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        if der.len() > INPUT_BYTES_MAX {
            return Err(KeyError::TooLong);
        }
        let info = SubjectPublicKeyInfoRef::from_der(der).map_err(|_| KeyError::Der)?;
        let raw = info.subject_public_key.as_bytes().ok_or(KeyError::Der)?;
        let parameters = info.algorithm.parameters;
        let kind = match info.algorithm.oid {
            RSA if parameters.is_none_or(|any| any == AnyRef::NULL) => rsa_kind(raw)?,
            EC => {
                let curve = parameters.and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
                if curve != Some(P256) {
                    return Err(KeyError::Curve);
                }
                if raw.len() != 65 || raw.first() != Some(&4) {
                    return Err(KeyError::Point);
                }
                KeyKind::P256
            }
            ED25519 if parameters.is_none() && raw.len() == 32 => KeyKind::Ed25519,
            RSA | ED25519 => return Err(KeyError::Der),
            _ => return Err(KeyError::Algorithm),
        };
        let at = u16::try_from(der.len() - raw.len()).map_err(|_| KeyError::TooLong)?;
        Ok(Self { kind, at, der: der.into() })
    }

    /// From the DER of an `RSAPublicKey` (RFC 8017, A.1.1).
    pub(super) fn from_pkcs1(der: &[u8]) -> Result<Self, KeyError> {
        RsaPublicKeyRef::from_der(der).map_err(|_| KeyError::Der)?;
        Self::wrap(pkcs1::ALGORITHM_ID, der)
    }

    /// From an uncompressed point of P-256.
    pub(super) fn from_p256(point: &[u8]) -> Result<Self, KeyError> {
        Self::wrap(AlgorithmIdentifierRef { oid: EC, parameters: Some((&P256).into()) }, point)
    }

    /// From the 32 bytes of an Ed25519 key.
    pub(super) fn from_ed25519(bytes: &[u8]) -> Result<Self, KeyError> {
        Self::wrap(AlgorithmIdentifierRef { oid: ED25519, parameters: None }, bytes)
    }

    fn wrap(algorithm: AlgorithmIdentifierRef<'_>, raw: &[u8]) -> Result<Self, KeyError> {
        let subject_public_key = BitStringRef::from_bytes(raw).map_err(|_| KeyError::Der)?;
        let info = SubjectPublicKeyInfoRef { algorithm, subject_public_key };
        Self::from_der(&info.to_der().map_err(|_| KeyError::Der)?)
    }

    /// The algorithm.
    #[must_use]
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The DER of the `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn as_der(&self) -> &[u8] {
        &self.der
    }

    /// SHA-256 of [`Self::as_der`]: what an operator knows the key by.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.der)
    }

    /// The key in its algorithm's own encoding: an `RSAPublicKey`, a point, 32 bytes.
    pub(super) fn raw(&self) -> &[u8] {
        self.der.get(usize::from(self.at)..).unwrap_or_default()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.kind)
    }
}

/// Modulus and exponent, both without leading zeros.
pub(super) fn rsa_numbers(pkcs1: &[u8]) -> Option<(&[u8], &[u8])> {
    let key = RsaPublicKeyRef::from_der(pkcs1).ok()?;
    Some((key.modulus.as_bytes(), key.public_exponent.as_bytes()))
}

fn rsa_kind(pkcs1: &[u8]) -> Result<KeyKind, KeyError> {
    let (modulus, exponent) = rsa_numbers(pkcs1).ok_or(KeyError::Der)?;
    let unused = modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
    let bits = (modulus.len() * 8).saturating_sub(unused);
    let is_odd = |number: &[u8]| number.last().is_some_and(|byte| byte % 2 == 1);
    let mut wide = [0; 8];
    let fits = wide.len().checked_sub(exponent.len()).and_then(|at| wide.get_mut(at..));
    if let Some(fits) = fits {
        fits.copy_from_slice(exponent);
    }
    if !is_odd(modulus) || !is_odd(exponent) || !(3..=RSA_EXPONENT_MAX).contains(&u64::from_be_bytes(wide)) {
        return Err(KeyError::RsaNumbers);
    }
    match bits {
        1024 | 2048 | 3072 | 4096 => u16::try_from(bits).map(KeyKind::Rsa).map_err(|_| KeyError::RsaBits(bits)),
        _ => Err(KeyError::RsaBits(bits)),
    }
}
