//! Keys made for a test.

use chacha20::ChaCha20Rng;
use chacha20::rand_core::SeedableRng;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
use ring::rand::{SecureRandom, SystemRandom};
use rsa::RsaPrivateKey;
use rsa::pkcs8::EncodePrivateKey;

use super::PrivateKey;

/// Random numbers for keys.
pub(crate) fn numbers() -> ChaCha20Rng {
    let mut seed = [0; 32];
    SystemRandom::new().fill(&mut seed).expect("random bytes");
    ChaCha20Rng::from_seed(seed)
}

pub(crate) fn rsa(bits: usize) -> RsaPrivateKey {
    RsaPrivateKey::new(&mut numbers(), bits).expect("makes a key")
}

pub(crate) fn rsa_pem(key: &RsaPrivateKey) -> String {
    pem::encode(&pem::Pem::new("PRIVATE KEY", key.to_pkcs8_der().expect("encodes").as_bytes()))
}

pub(crate) fn p256_pem() -> String {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("makes a key").serialize_pem()
}

pub(crate) fn ed25519_pem() -> String {
    KeyPair::generate_for(&PKCS_ED25519).expect("makes a key").serialize_pem()
}

pub(crate) fn private(pem: &str) -> PrivateKey {
    PrivateKey::from_pem(pem, &SystemRandom::new()).expect("a private key")
}
