//! Signatures: whether a key made one, and a decoy's work where there is no key.

use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256,
    RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use rsa::signature::Verifier;
use rsa::{BoxedUint, RsaPublicKey, pkcs1v15, pss};
use sha2::Sha256;

use super::public::rsa_numbers;
use super::{KeyKind, PublicKey};

/// Bytes of an RSA signature at the most.
pub(super) const SIGNATURE_BYTES_MAX: usize = 512;

/// An ASN.1 sequence of two numbers of up to 33 bytes.
const P256_ASN1_BYTES: std::ops::RangeInclusive<usize> = 8..=72;

/// A modulus of nobody's, odd and with its top bit set: checking against it is as much work as against a real one with the usual exponent.
const DECOY_MODULUS: [u8; SIGNATURE_BYTES_MAX] = [0xA5; SIGNATURE_BYTES_MAX];
const DECOY_EXPONENT: &[u8] = &[1, 0, 1];
/// The base point of the curve (RFC 8032, 5.1), for the same.
const DECOY_ED25519: [u8; 32] = {
    let mut bytes = [0x66; 32];
    bytes[0] = 0x58;
    bytes
};
/// The base point of the curve (SEC 2, 2.4.2), for the same.
const DECOY_P256: [u8; 65] = *b"\x04\
    \x6b\x17\xd1\xf2\xe1\x2c\x42\x47\xf8\xbc\xe6\xe5\x63\xa4\x40\xf2\x77\x03\x7d\x81\x2d\xeb\x33\xa0\xf4\xa1\x39\x45\xd8\x98\xc2\x96\
    \x4f\xe3\x42\xe2\xfe\x1a\x7f\x9b\x8e\xe7\xeb\x4a\x7c\x0f\x9e\x16\x2b\xce\x33\x57\x6b\x31\x5e\xce\xcb\xb6\x40\x68\x37\xbf\x51\xf5";

impl PublicKey {
    /// Whether this key signed the text.
    #[must_use]
    pub fn verify(&self, text: &[u8], signature: &[u8]) -> bool {
        if !self.fits(signature) {
            return false;
        }
        match self.kind() {
            KeyKind::Rsa(_) => rsa_numbers(self.raw()).is_some_and(|(n, e)| verify_rsa(n, e, text, signature)),
            KeyKind::P256 => verify_p256(self.raw(), text, signature),
            KeyKind::Ed25519 => verify_with(&ED25519, self.raw(), text, signature),
        }
    }

    /// Whether a signature of that length can be this key's.
    fn fits(&self, signature: &[u8]) -> bool {
        match self.kind() {
            KeyKind::Rsa(bits) => signature.len() == usize::from(bits / 8),
            KeyKind::P256 => P256_ASN1_BYTES.contains(&signature.len()),
            KeyKind::Ed25519 => signature.len() == 64,
        }
    }
}

/// The key that signed a text. Where none of the keys could have, a decoy is checked, which takes as long as one of them.
pub(crate) fn signer<'k>(
    keys: impl Iterator<Item = &'k PublicKey>,
    text: &[u8],
    signature: &[u8],
) -> Option<&'k PublicKey> {
    let mut fitting = keys.filter(|key| key.fits(signature)).peekable();
    if fitting.peek().is_none() {
        std::hint::black_box(decoy(text, signature));
        return None;
    }
    fitting.find(|key| key.verify(text, signature))
}

fn decoy(text: &[u8], signature: &[u8]) -> bool {
    match signature.len() {
        64 => verify_with(&ED25519, &DECOY_ED25519, text, signature),
        length if P256_ASN1_BYTES.contains(&length) => verify_p256(&DECOY_P256, text, signature),
        length @ (128 | 256 | 384 | 512) => {
            DECOY_MODULUS.get(..length).is_some_and(|modulus| verify_rsa(modulus, DECOY_EXPONENT, text, signature))
        }
        // No key has such a signature, and of none is it checked.
        _ => false,
    }
}

fn verify_with(algorithm: &'static dyn VerificationAlgorithm, key: &[u8], text: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(algorithm, key).verify(text, signature).is_ok()
}

fn verify_p256(point: &[u8], text: &[u8], signature: &[u8]) -> bool {
    // An ASN.1 signature of 64 bytes is one in ten thousand millions, and right all the same.
    (signature.len() == 64 && verify_with(&ECDSA_P256_SHA256_FIXED, point, text, signature))
        || verify_with(&ECDSA_P256_SHA256_ASN1, point, text, signature)
}

/// Both numbers are as long as each other.
fn verify_rsa(modulus: &[u8], exponent: &[u8], text: &[u8], signature: &[u8]) -> bool {
    if signature < modulus {
        return check_rsa(modulus, exponent, text, signature);
    }
    // No signature by this key, and it must not be seen at once: which numbers are too large would tell one key from another, and a key
    // from the decoy.
    let mut smaller = signature.to_vec();
    if let Some(first) = smaller.first_mut() {
        *first = 0;
    }
    std::hint::black_box(check_rsa(modulus, exponent, text, &smaller));
    false
}

fn check_rsa(modulus: &[u8], exponent: &[u8], text: &[u8], signature: &[u8]) -> bool {
    if modulus.len() < 256 {
        return verify_rsa_legacy(modulus, exponent, text, signature);
    }
    let key = RsaPublicKeyComponents { n: modulus, e: exponent };
    key.verify(&RSA_PKCS1_2048_8192_SHA256, text, signature).is_ok()
        || key.verify(&RSA_PSS_2048_8192_SHA256, text, signature).is_ok()
        // `ring` takes salts that are as long as the hash, and no other; OpenSSL makes the longest that there is room for.
        || rsa_key(modulus, exponent).is_some_and(|key| verify_pss(key, text, signature))
}

fn rsa_key(modulus: &[u8], exponent: &[u8]) -> Option<RsaPublicKey> {
    let [n, e] = [modulus, exponent].map(BoxedUint::from_be_slice_vartime);
    RsaPublicKey::new(n, e).ok()
}

/// With a salt of any length: what the signature says of it is part of what is checked.
fn verify_pss(key: RsaPublicKey, text: &[u8], signature: &[u8]) -> bool {
    pss::Signature::try_from(signature)
        .is_ok_and(|made| pss::VerifyingKey::<Sha256>::new_with_auto_salt_len(key).verify(text, &made).is_ok())
}

fn verify_rsa_legacy(modulus: &[u8], exponent: &[u8], text: &[u8], signature: &[u8]) -> bool {
    let Some(key) = rsa_key(modulus, exponent) else { return false };
    let pkcs1 = pkcs1v15::Signature::try_from(signature)
        .is_ok_and(|made| pkcs1v15::VerifyingKey::<Sha256>::new(key.clone()).verify(text, &made).is_ok());
    pkcs1 || verify_pss(key, text, signature)
}
