//! Private keys, as a device has them: for `turnpike credential`, for the load harness, for tests. The broker has none.

use std::fmt;

// Not a source of randomness: its trait, so that the caller can bring one.
use ring::rand as source;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use rsa::pkcs1::{DecodeRsaPrivateKey, EncodeRsaPublicKey};
use rsa::pkcs1v15::SigningKey;
use rsa::pkcs8::DecodePrivateKey;
use rsa::signature::{SignatureEncoding, Signer};
use rsa::traits::PublicKeyParts;
use sha2::Sha256;

use super::PublicKey;

/// Bytes of a PEM file at the most; RSA with 4096 bits has 3,300.
const INPUT_BYTES_MAX: usize = 16 << 10;

/// Why a text is no private key that can be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PrivateKeyError {
    /// More than any key has.
    #[error("a private key has at most {INPUT_BYTES_MAX} bytes")]
    TooLong,
    /// Not one PEM block of the right kind.
    #[error("a PEM file of a private key has one block, PRIVATE KEY or RSA PRIVATE KEY")]
    Pem,
    /// It needs a pass phrase.
    #[error("the private key is encrypted; decrypt it first (openssl pkey)")]
    Encrypted,
    /// In the older form of elliptic curves.
    #[error("the private key is in the form EC PRIVATE KEY; convert it first (openssl pkcs8 -topk8 -nodes)")]
    Sec1,
    /// Of no kind that the broker takes, or damaged.
    #[error("a private key is RSA with 1024, 2048, 3072 or 4096 bits, ECDSA over P-256 or Ed25519, and this one isn't")]
    Kind,
}

/// Why nothing was signed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the private key signs nothing")]
pub struct SignError;

/// A private key. Never printed.
pub struct PrivateKey {
    pair: Pair,
    public: PublicKey,
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    RsaLegacy(Box<SigningKey<Sha256>>),
    P256(Box<EcdsaKeyPair>),
    Ed25519(Box<Ed25519KeyPair>),
}

impl PrivateKey {
    /// From PEM: `PRIVATE KEY` (PKCS#8) or `RSA PRIVATE KEY` (PKCS#1). `random` is what an ECDSA key is checked with.
    ///
    /// # Errors
    /// [`PrivateKeyError`].
    pub fn from_pem(text: &str, random: &dyn source::SecureRandom) -> Result<Self, PrivateKeyError> {
        if text.len() > INPUT_BYTES_MAX {
            return Err(PrivateKeyError::TooLong);
        }
        let blocks = pem::parse_many(text).map_err(|_| PrivateKeyError::Pem)?;
        let [block] = blocks.as_slice() else {
            let sec1 = blocks.iter().any(|block| block.tag() == "EC PRIVATE KEY");
            return Err(if sec1 { PrivateKeyError::Sec1 } else { PrivateKeyError::Pem });
        };
        let pair = match block.tag() {
            // As old OpenSSL encrypts one.
            _ if block.headers().iter().next().is_some() => return Err(PrivateKeyError::Encrypted),
            "PRIVATE KEY" => Pair::from_pkcs8(block.contents(), random),
            "RSA PRIVATE KEY" => Pair::from_pkcs1(block.contents()),
            "ENCRYPTED PRIVATE KEY" => return Err(PrivateKeyError::Encrypted),
            "EC PRIVATE KEY" => return Err(PrivateKeyError::Sec1),
            _ => return Err(PrivateKeyError::Pem),
        };
        let pair = pair.ok_or(PrivateKeyError::Kind)?;
        let public = pair.public().ok_or(PrivateKeyError::Kind)?;
        Ok(Self { pair, public })
    }

    /// Its public half.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs a text: RSA with PKCS#1 v1.5, ECDSA in ASN.1. Only ECDSA needs randomness.
    ///
    /// # Errors
    /// [`SignError`] if the source of randomness fails, or the key is damaged.
    pub fn sign(&self, text: &[u8], random: &dyn source::SecureRandom) -> Result<Vec<u8>, SignError> {
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, random, text, &mut signature).map_err(|_| SignError)?;
                Ok(signature)
            }
            Pair::RsaLegacy(key) => Ok(key.try_sign(text).map_err(|_| SignError)?.to_vec()),
            Pair::P256(pair) => pair.sign(random, text).map(|made| made.as_ref().to_vec()).map_err(|_| SignError),
            Pair::Ed25519(pair) => Ok(pair.sign(text).as_ref().to_vec()),
        }
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({})", self.public.kind())
    }
}

impl Pair {
    fn from_pkcs8(der: &[u8], random: &dyn source::SecureRandom) -> Option<Self> {
        if let Ok(pair) = RsaKeyPair::from_pkcs8(der) {
            return Some(Self::Rsa(Box::new(pair)));
        }
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der, random) {
            return Some(Self::P256(Box::new(pair)));
        }
        // OpenSSL writes the form that has no public half to check against.
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
            return Some(Self::Ed25519(Box::new(pair)));
        }
        rsa::RsaPrivateKey::from_pkcs8_der(der).ok().and_then(Self::legacy)
    }

    fn from_pkcs1(der: &[u8]) -> Option<Self> {
        if let Ok(pair) = RsaKeyPair::from_der(der) {
            return Some(Self::Rsa(Box::new(pair)));
        }
        rsa::RsaPrivateKey::from_pkcs1_der(der).ok().and_then(Self::legacy)
    }

    /// What `ring` doesn't sign with. That it isn't constant in time is no matter where the key's owner signs for itself.
    fn legacy(key: rsa::RsaPrivateKey) -> Option<Self> {
        (key.size() == 128).then(|| Self::RsaLegacy(Box::new(SigningKey::new(key))))
    }

    fn public(&self) -> Option<PublicKey> {
        let public = match self {
            Self::Rsa(pair) => PublicKey::from_pkcs1(pair.public_key().as_ref()),
            Self::RsaLegacy(key) => {
                let key: &rsa::RsaPrivateKey = (**key).as_ref();
                PublicKey::from_pkcs1(key.to_public_key().to_pkcs1_der().ok()?.as_bytes())
            }
            Self::P256(pair) => PublicKey::from_p256(pair.public_key().as_ref()),
            Self::Ed25519(pair) => PublicKey::from_ed25519(pair.public_key().as_ref()),
        };
        public.ok()
    }
}
