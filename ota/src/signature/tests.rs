//! Keys of each kind, made when the test runs.

use chacha20::ChaCha20Rng;
use chacha20::rand_core::SeedableRng;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair};
use rsa::RsaPrivateKey;
use rsa::pkcs8::{EncodePrivateKey, EncodePublicKey};
use sha2::{Digest, Sha256};

use super::testing::{detached, ed25519, p256, random};
use super::*;

fn rsa(bits: usize) -> RsaPrivateKey {
    RsaPrivateKey::new(&mut ChaCha20Rng::from_seed(random()), bits).expect("makes a key")
}

fn public(key: &RsaPrivateKey) -> PublicKey {
    PublicKey::from_der(key.to_public_key().to_public_key_der().expect("encodes").as_bytes()).expect("a key")
}

fn signed(key: &RsaPrivateKey, padding: &'static dyn RsaEncoding, message: &[u8]) -> Detached {
    let pair = RsaKeyPair::from_pkcs8(key.to_pkcs8_der().expect("encodes").as_bytes()).expect("a key");
    let mut signature = vec![0; pair.public().modulus_len()];
    pair.sign(padding, &SystemRandom::new(), message, &mut signature).expect("signs");
    Detached { signature: signature.into(), key: None }
}

#[test]
fn each_kind_of_key_signs_the_digest_and_nothing_else() {
    let file = b"a firmware";
    let sha256: [u8; 32] = Sha256::digest(file).into();
    let rsa = rsa(2048);
    let [p256, ed25519] = [p256(), ed25519()];
    let all = vec![public(&rsa), p256.public().clone(), ed25519.public().clone()];
    let keys = Keys::new(all.clone()).expect("keys");
    let made = [
        (0, signed(&rsa, &RSA_PKCS1_SHA256, &sha256)),
        (0, signed(&rsa, &RSA_PSS_SHA256, &sha256)),
        (1, detached(&p256, &sha256)),
        (2, detached(&ed25519, &sha256)),
    ];
    for (key, made) in made {
        let signer = all[key].fingerprint();
        assert_eq!(keys.verify(&sha256, &made), Ok(Signed { signature: made.signature.clone(), key: signer }));
        let named = Detached { key: Some(signer), ..made.clone() };
        assert!(keys.verify(&sha256, &named).is_ok());
        let other = Detached { key: Some(all[(key + 1) % 3].fingerprint()), ..made.clone() };
        assert_eq!(keys.verify(&sha256, &other), Err(SignatureError::Wrong), "of another key");
        let nobody = Detached { key: Some(Fingerprint::of(b"nobody")), ..made.clone() };
        assert_eq!(keys.verify(&sha256, &nobody), Err(SignatureError::UnknownKey));
        assert_eq!(Keys::default().verify(&sha256, &made), Err(SignatureError::UnknownKey));
        let without: Vec<_> = all.iter().filter(|one| one.fingerprint() != signer).cloned().collect();
        let others = Keys::new(without).expect("keys");
        assert_eq!(others.verify(&sha256, &made), Err(SignatureError::Wrong));
        for at in [0, made.signature.len() / 2, made.signature.len() - 1] {
            let mut changed = made.clone();
            changed.signature[at] ^= 1;
            assert_eq!(keys.verify(&sha256, &changed), Err(SignatureError::Wrong), "{at}");
        }
        let mut longer = made.signature.to_vec();
        longer.push(0);
        let longer = Detached { signature: longer.into(), key: None };
        assert_eq!(keys.verify(&sha256, &longer), Err(SignatureError::Wrong));
        assert_eq!(keys.verify(&Sha256::digest(b"another").into(), &made), Err(SignatureError::Wrong));
    }
    let of_the_file = signed(&rsa, &RSA_PKCS1_SHA256, file);
    assert_eq!(keys.verify(&sha256, &of_the_file), Err(SignatureError::Wrong), "of the file itself");
    let huge = Detached { signature: vec![0; 513].into(), key: None };
    assert_eq!(keys.verify(&sha256, &huge), Err(SignatureError::Wrong));
}

#[test]
fn weak_keys_and_too_many_are_refused() {
    assert_eq!(Keys::new(vec![public(&rsa(1024))]), Err(KeysError::Weak));
    let key = ed25519().public().clone();
    assert_eq!(Keys::new(vec![key.clone(), key]), Err(KeysError::Twice));
    let many = (0..=KEYS_MAX).map(|_| ed25519().public().clone()).collect();
    assert_eq!(Keys::new(many), Err(KeysError::TooMany));
}
