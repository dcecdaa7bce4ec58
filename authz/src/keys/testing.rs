//! Keys made for a test.

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
use ring::rand::SystemRandom;
use rsa::RsaPrivateKey;
use rsa::pkcs8::EncodePrivateKey;
use rsa::rand_core::OsRng;

use super::PrivateKey;

pub(crate) fn rsa(bits: usize) -> RsaPrivateKey {
    RsaPrivateKey::new(&mut OsRng, bits).expect("makes a key")
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
