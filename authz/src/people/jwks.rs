//! Public keys that tokens are checked with: a JWK set (RFC 7517), as an issuer publishes it.
//!
//! | `kty` | `crv` | algorithm | |
//! |---|---|---|---|
//! | `RSA` | | RS256 | 2048 to 8192 bits |
//! | `EC` | `P-256` | ES256 | |
//! | `OKP` | `Ed25519` | EdDSA | |
//!
//! **Invariant:** a key has one algorithm, which its type decides. What a token says of its algorithm chooses among keys and never how
//! a key is used, so no public key becomes the secret of an HMAC. Keys of other types, for encryption, or whose own `alg` is another
//! are passed over, as the RFC says (5.); secrets (`oct`) have no place in a published set, and are passed over too.

use std::hash::{DefaultHasher, Hash, Hasher};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::Deserialize;

/// Bytes of a set.
pub const DOCUMENT_BYTES_MAX: usize = 64 << 10;
/// Keys that are looked at in a set.
pub const KEYS_MAX: usize = 64;

/// How a token is signed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Algorithm {
    /// HMAC-SHA256, by the app's secret.
    Hs256,
    /// RSA PKCS#1 v1.5 with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// As it is called in a token's header; none of others, and none of `none`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "HS256" => Some(Self::Hs256),
            "RS256" => Some(Self::Rs256),
            "ES256" => Some(Self::Es256),
            "EdDSA" => Some(Self::EdDsa),
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }
}

/// Why a document is no set of keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeySetError {
    /// Above [`DOCUMENT_BYTES_MAX`] or [`KEYS_MAX`].
    #[error("a set of keys has at most 64 KiB and 64 keys")]
    TooLarge,
    /// No JSON, or not of that form.
    #[error("that is no JWK set")]
    Malformed,
    /// None of its keys is one that tokens can be checked with.
    #[error("no key of the set can be used: RSA from 2048 bits, P-256 and Ed25519 can")]
    NoKey,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Jwk>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// The keys of an issuer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeySet {
    keys: Vec<Key>,
}

/// One of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Key {
    id: Option<Box<str>>,
    material: Material,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Material {
    /// Modulus and exponent, without leading zeros.
    Rsa {
        n: Box<[u8]>,
        e: Box<[u8]>,
    },
    /// An uncompressed point.
    P256(Box<[u8]>),
    Ed25519(Box<[u8]>),
}

impl KeySet {
    /// Reads a document.
    ///
    /// # Errors
    /// [`KeySetError`].
    pub fn parse(document: &str) -> Result<Self, KeySetError> {
        if document.len() > DOCUMENT_BYTES_MAX {
            return Err(KeySetError::TooLarge);
        }
        let document: Document = serde_json::from_str(document).map_err(|_| KeySetError::Malformed)?;
        if document.keys.len() > KEYS_MAX {
            return Err(KeySetError::TooLarge);
        }
        let keys: Vec<Key> = document.keys.iter().filter_map(Key::of).collect();
        if keys.is_empty() { Err(KeySetError::NoKey) } else { Ok(Self { keys }) }
    }

    /// How many keys can be used.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether one of the keys has this mark.
    pub(super) fn has(&self, mark: u64) -> bool {
        self.keys.iter().any(|key| key.mark() == mark)
    }

    /// The key of that id and algorithm; without an id the only one of that algorithm, if there is one only.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<&Key> {
        let mut fitting = self.keys.iter().filter(|key| key.algorithm() == algorithm);
        match id {
            Some(id) => fitting.find(|key| key.id.as_deref() == Some(id)),
            None => fitting.next().filter(|_| fitting.next().is_none()),
        }
    }
}

impl Key {
    fn of(jwk: &Jwk) -> Option<Self> {
        let signs = jwk.usage.as_deref().is_none_or(|usage| usage == "sig");
        let verifies = jwk.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        if !signs || !verifies {
            return None;
        }
        let material = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => rsa(jwk)?,
            ("EC", Some("P-256")) => p256(jwk)?,
            ("OKP", Some("Ed25519")) => Material::Ed25519(bytes_of::<32>(&jwk.x)?.into()),
            _ => return None,
        };
        let key = Self { id: jwk.kid.as_deref().map(Box::from), material };
        jwk.alg.as_deref().is_none_or(|alg| alg == key.algorithm().as_str()).then_some(key)
    }

    fn algorithm(&self) -> Algorithm {
        match self.material {
            Material::Rsa { .. } => Algorithm::Rs256,
            Material::P256(_) => Algorithm::Es256,
            Material::Ed25519(_) => Algorithm::EdDsa,
        }
    }

    /// Tells it from others.
    pub(super) fn mark(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.material.hash(&mut hasher);
        hasher.finish()
    }

    /// Whether it signed these bytes.
    pub(super) fn is_signed(&self, text: &[u8], signature: &[u8]) -> bool {
        let verified = match &self.material {
            Material::Rsa { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, text, signature)
            }
            Material::P256(point) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(text, signature),
            Material::Ed25519(point) => UnparsedPublicKey::new(&ED25519, point).verify(text, signature),
        };
        verified.is_ok()
    }
}

fn decode(text: &Option<String>) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text.as_deref()?).ok()
}

fn bytes_of<const N: usize>(text: &Option<String>) -> Option<[u8; N]> {
    decode(text)?.try_into().ok()
}

fn rsa(jwk: &Jwk) -> Option<Material> {
    // Some issuers write a number's sign.
    let number = |text| {
        let bytes = decode(text)?;
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        Some(Box::<[u8]>::from(bytes.get(zeros..)?))
    };
    let (n, e) = (number(&jwk.n)?, number(&jwk.e)?);
    let bits = n.len() * 8 - n.first()?.leading_zeros() as usize;
    ((2048..=8192).contains(&bits) && !e.is_empty()).then_some(Material::Rsa { n, e })
}

fn p256(jwk: &Jwk) -> Option<Material> {
    let (x, y) = (bytes_of::<32>(&jwk.x)?, bytes_of::<32>(&jwk.y)?);
    Some(Material::P256([&[4][..], &x, &y].concat().into()))
}
