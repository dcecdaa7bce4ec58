//! Keys made for a test.

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SignatureAlgorithm};
use ring::rand::{SecureRandom, SystemRandom};
use turnpike_authz::keys::PrivateKey;

use super::Detached;

pub(crate) fn p256() -> PrivateKey {
    made(&PKCS_ECDSA_P256_SHA256)
}

pub(crate) fn ed25519() -> PrivateKey {
    made(&PKCS_ED25519)
}

fn made(algorithm: &'static SignatureAlgorithm) -> PrivateKey {
    let pem = KeyPair::generate_for(algorithm).expect("makes a key").serialize_pem();
    PrivateKey::from_pem(&pem, &SystemRandom::new()).expect("a private key")
}

pub(crate) fn detached(key: &PrivateKey, sha256: &[u8; 32]) -> Detached {
    Detached { signature: key.sign(sha256, &SystemRandom::new()).expect("signs").into(), key: None }
}

pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("random bytes");
    bytes
}
