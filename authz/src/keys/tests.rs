use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PSS_SHA256, RsaKeyPair};
use rsa::pkcs1::{EncodeRsaPrivateKey, EncodeRsaPublicKey, UintRef};
use rsa::pkcs8::{EncodePrivateKey, EncodePublicKey};
use rsa::signature::{RandomizedSigner, SignatureEncoding};
use sha2::Sha256;
use x509_cert::der::Encode;

use super::testing::{ed25519_pem, p256_pem, private, rsa, rsa_pem};
use super::*;
use crate::x509::Fingerprint;

const TEXT: &[u8] = b"what is signed";

fn pem_of(tag: &str, der: &[u8]) -> String {
    pem::encode(&pem::Pem::new(tag, der))
}

/// An RSA key of that modulus, which nobody has the private half of.
fn rsa_of(modulus: &[u8], exponent: &[u8]) -> Result<PublicKey, KeyError> {
    let numbers = ::rsa::pkcs1::RsaPublicKey {
        modulus: UintRef::new(modulus).expect("a number"),
        public_exponent: UintRef::new(exponent).expect("a number"),
    };
    PublicKey::parse(pem_of("RSA PUBLIC KEY", &numbers.to_der().expect("encodes")).as_bytes())
}

/// A modulus of so many bits.
fn modulus(bits: usize) -> Vec<u8> {
    let mut bytes = vec![0xA5; bits.div_ceil(8)];
    bytes[0] = 1 << ((bits - 1) % 8);
    bytes
}

/// Whether a key takes a signature, and neither a changed one, nor part of one, nor one of another text.
fn is_right(key: &PublicKey, signature: &[u8]) -> bool {
    for at in [0, signature.len() / 2, signature.len() - 1] {
        let mut changed = signature.to_vec();
        changed[at] ^= 1;
        assert!(!key.verify(TEXT, &changed), "{key:?}, byte {at}");
    }
    assert!(!key.verify(TEXT, &signature[1..]) && !key.verify(TEXT, b"") && !key.verify(b"another text", signature));
    key.verify(TEXT, signature)
}

#[test]
fn a_key_takes_its_own_signatures_in_each_form() {
    let random = SystemRandom::new();
    let mut signed = Vec::new();
    let (small, large) = (rsa(1024), rsa(2048));
    for pem in [rsa_pem(&small), rsa_pem(&large), p256_pem(), ed25519_pem()] {
        let key = private(&pem);
        signed.push((key.public().clone(), key.sign(TEXT, &random).expect("signs")));
    }
    let pss = ::rsa::pss::SigningKey::<Sha256>::new(small.clone());
    let pss = pss.sign_with_rng(&mut testing::numbers(), TEXT).to_vec();
    assert!(is_right(&signed[0].0, &pss), "PSS by 1024 bits");

    let pair = RsaKeyPair::from_pkcs8(large.to_pkcs8_der().expect("encodes").as_bytes()).expect("a key");
    let mut pss = vec![0; 256];
    pair.sign(&RSA_PSS_SHA256, &random, TEXT, &mut pss).expect("signs");
    assert!(is_right(&signed[1].0, &pss), "PSS by 2048 bits");

    let pair = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
    let key = private(&pem_of("PRIVATE KEY", pair.as_ref()));
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pair.as_ref(), &random).expect("a key");
    let fixed = pair.sign(&random, TEXT).expect("signs");
    assert!(fixed.as_ref().len() == 64 && is_right(key.public(), fixed.as_ref()), "r and s");

    for (at, (key, signature)) in signed.iter().enumerate() {
        assert!(is_right(key, signature), "{key:?}");
        for (_, other) in signed.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, other)| other) {
            assert!(!key.verify(TEXT, other), "{key:?}");
        }
        // The keys of a device, whichever it used; and a decoy, whichever it pretends to.
        assert_eq!(signer(signed.iter().map(|(key, _)| key), TEXT, signature), Some(key));
        assert_eq!(signer([].into_iter(), TEXT, signature), None);
    }
    for (key, signature) in &signed {
        assert!(!key.verify(TEXT, &vec![0xFF; signature.len()]), "larger than a modulus");
        assert!(!key.verify(TEXT, &vec![0; signature.len()]));
    }
    let kinds: Vec<String> = signed.iter().map(|(key, _)| key.kind().to_string()).collect();
    assert_eq!(kinds, ["rsa-1024", "rsa-2048", "ecdsa-p256", "ed25519"]);
    assert_eq!(signed.iter().filter(|(key, _)| key.kind().is_legacy()).count(), 1);
}

#[test]
fn pss_may_have_a_salt_of_any_length() {
    for (bits, longest) in [(1024, 94), (2048, 222)] {
        let pair = rsa(bits);
        let key = private(&rsa_pem(&pair)).public().clone();
        for length in [0, 1, 20, 32, 64, longest] {
            let signing = ::rsa::pss::SigningKey::<Sha256>::new_with_salt_len(pair.clone(), length);
            let signature = signing.sign_with_rng(&mut testing::numbers(), TEXT).to_vec();
            assert!(is_right(&key, &signature), "{bits} bits, a salt of {length}");
        }
        let other = ::rsa::pss::SigningKey::<::sha1::Sha1>::new_with_salt_len(pair, longest);
        let signature = other.sign_with_rng(&mut testing::numbers(), TEXT).to_vec();
        assert!(!key.verify(TEXT, &signature), "{bits} bits, another hash");
    }
}

#[test]
fn long_rsa_keys_sign_too() {
    let key = private(&rsa_pem(&rsa(3072)));
    assert_eq!(key.public().kind(), KeyKind::Rsa(3072));
    assert!(is_right(key.public(), &key.sign(TEXT, &SystemRandom::new()).expect("signs")));
}

/// RFC 8032, 7.1, test 2.
#[test]
fn ed25519_is_that_of_the_standard() {
    let key = hex::decode("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c").expect("hex");
    let signature = hex::decode(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    );
    let key = PublicKey::from_ed25519(&key).expect("a key");
    assert!(key.verify(&[0x72], &signature.expect("hex")));
}

#[test]
fn a_public_key_is_given_in_several_ways_and_kept_in_one() {
    let key = rsa(1024);
    let public = key.to_public_key();
    let spki = public.to_public_key_der().expect("encodes").into_vec();
    let pkcs1 = public.to_pkcs1_der().expect("encodes").into_vec();
    let parsed = PublicKey::parse(&spki).expect("a key");
    assert_eq!((parsed.kind(), parsed.as_der()), (KeyKind::Rsa(1024), &*spki));
    assert_eq!(parsed.fingerprint(), Fingerprint::of(&spki));
    for text in [
        pem_of("PUBLIC KEY", &spki),
        pem_of("RSA PUBLIC KEY", &pkcs1),
        format!("\r\n  {}", pem_of("PUBLIC KEY", &spki).replace('\n', "\r\n")),
    ] {
        assert_eq!(PublicKey::parse(text.as_bytes()), Ok(parsed.clone()), "{text}");
    }
    let private = private(&rsa_pem(&key));
    assert_eq!(private.public(), &parsed);
    let pkcs1 = key.to_pkcs1_der().expect("encodes");
    let private = PrivateKey::from_pem(&pem_of("RSA PRIVATE KEY", pkcs1.as_bytes()), &SystemRandom::new());
    assert_eq!(private.expect("a key").public(), &parsed);
    let printed = format!("{parsed:?}");
    assert_eq!(printed, "PublicKey(rsa-1024)");
}

#[test]
fn each_size_of_rsa_is_taken_or_named() {
    for bits in [1024_u16, 2048, 3072, 4096] {
        let key = rsa_of(&modulus(usize::from(bits)), &[1, 0, 1]);
        assert_eq!(key.map(|key| key.kind()), Ok(KeyKind::Rsa(bits)));
    }
    for bits in [512, 1023, 1025, 1536, 2047, 2049, 4095, 4097, 8192] {
        assert_eq!(rsa_of(&modulus(bits), &[1, 0, 1]), Err(KeyError::RsaBits(bits)));
    }
    let right = modulus(2048);
    let mut even = right.clone();
    even[255] = 2;
    assert_eq!(rsa_of(&even, &[1, 0, 1]), Err(KeyError::RsaNumbers));
    for exponent in [&[0][..], &[1], &[2], &[2, 0, 0, 0, 1], &[1; 9]] {
        assert_eq!(rsa_of(&right, exponent), Err(KeyError::RsaNumbers), "{exponent:?}");
    }
    assert!(rsa_of(&right, &[3]).is_ok() && rsa_of(&right, &[1, 0xFF, 0xFF, 0xFF, 0xFF]).is_ok());
}

#[test]
fn what_is_no_public_key_is_told_why() {
    let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("a key").public_key_pem();
    let p256 = private(&p256_pem());
    let der = p256.public().as_der().to_vec();
    // The same point, and the header of another form: OID and bit string stay, 33 bytes are left.
    let mut compressed = der.clone();
    compressed.truncate(der.len() - 32);
    (compressed[1], compressed[24], compressed[26]) = (der[1] - 32, 34, 2);
    let mut unknown = PublicKey::from_ed25519(&[7; 32]).expect("a key").as_der().to_vec();
    unknown[8] = 110; // X25519
    let good = pem_of("PUBLIC KEY", &der);
    for (input, expected) in [
        (p384.into_bytes(), KeyError::Curve),
        (compressed, KeyError::Point),
        (unknown, KeyError::Algorithm),
        (Vec::new(), KeyError::Der),
        (b"\x30\x00".to_vec(), KeyError::Der),
        ([&der[..], &[0]].concat(), KeyError::Der),
        (der[..der.len() - 1].to_vec(), KeyError::Der),
        (p256_pem().into_bytes(), KeyError::Private),
        (rsa_pem(&rsa(1024)).into_bytes(), KeyError::Private),
        ([good.as_bytes(), good.as_bytes()].concat(), KeyError::Pem),
        (pem_of("CERTIFICATE", &der).into_bytes(), KeyError::Pem),
        (pem_of("RSA PUBLIC KEY", &der).into_bytes(), KeyError::Der),
        (b"-----BEGIN PUBLIC KEY-----".to_vec(), KeyError::Pem),
        (vec![b'-'; 5000], KeyError::TooLong),
    ] {
        assert_eq!(PublicKey::parse(&input), Err(expected));
    }
    assert_eq!(PublicKey::from_der(&vec![0x30; 5000]), Err(KeyError::TooLong));
}

#[test]
fn what_is_no_private_key_is_told_why() {
    let random = SystemRandom::new();
    let p256 = p256_pem();
    let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("a key").serialize_pem();
    let encrypted = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    for (text, expected) in [
        ("", PrivateKeyError::Pem),
        ("hello", PrivateKeyError::Pem),
        (&*p384, PrivateKeyError::Kind),
        (&pem_of("PRIVATE KEY", b"x"), PrivateKeyError::Kind),
        (&pem_of("RSA PRIVATE KEY", b"x"), PrivateKeyError::Kind),
        (&pem_of("EC PRIVATE KEY", b"x"), PrivateKeyError::Sec1),
        (&(pem_of("EC PARAMETERS", b"x") + &pem_of("EC PRIVATE KEY", b"x")), PrivateKeyError::Sec1),
        (&pem_of("ENCRYPTED PRIVATE KEY", b"x"), PrivateKeyError::Encrypted),
        (encrypted, PrivateKeyError::Encrypted),
        (&pem_of("PUBLIC KEY", b"x"), PrivateKeyError::Pem),
        (&format!("{p256}{p256}"), PrivateKeyError::Pem),
        (&rsa_pem(&rsa(1536)), PrivateKeyError::Kind),
        (&"x".repeat(20_000), PrivateKeyError::TooLong),
    ] {
        assert_eq!(PrivateKey::from_pem(text, &random).map(drop), Err(expected), "{text}");
    }
    assert_eq!(format!("{:?}", private(&p256)), "PrivateKey(ecdsa-p256)");
}

#[test]
fn a_password_is_taken_apart() {
    let password = |text: &str| format!("v1r;1700000000000;n;{text}").into_bytes();
    for text in [STANDARD.encode([0xFB; 64]), STANDARD_NO_PAD.encode([0xFB; 64])] {
        let password = password(&text);
        let signed = Signed::parse("c", "p/d", &password).expect("of this format").expect("whole");
        assert_eq!((signed.product, signed.device, signed.nonce), ("p", "d", "n"));
        assert_eq!((signed.timestamp_ms, &*signed.signature), (1_700_000_000_000, &[0xFB; 64][..]));
        assert_eq!(signed.text(), "v1\nc\np\nd\n1700000000000\nn");
    }
    for damaged in ["*", "AA AA", "A", &"A".repeat(688), "AAAA;x", "-_-_"] {
        assert_eq!(Signed::parse("c", "p/d", &password(damaged)), Some(None), "{damaged}");
    }
    assert_eq!(Signed::parse("c", "p", &password("AAAA")), Some(None));
    assert_eq!(Signed::parse("c", "p/d", b"v1r;\xFF"), Some(None));
    assert_eq!(Signed::parse("c", "p/d", b"v1;1;n;00"), None);
}

#[test]
fn an_answer_is_bytes_or_base64() {
    for bytes in [&[0xFB; 64][..], &[0x30; 8], &[0x80; 512]] {
        let text = STANDARD.encode(bytes);
        assert_eq!(answer_bytes(text.as_bytes()), bytes);
    }
    assert_eq!(answer_bytes(&[0xFB; 64]), [0xFB; 64]);
    assert_eq!(answer_bytes(&[0xFB; 5000]).len(), 512);
}

#[test]
fn a_list_of_proofs_is_short_and_without_doubles() {
    let key = |n: u8| Proof::Key(PublicKey::from_ed25519(&[n; 32]).expect("a key"));
    let print = |n: u8| Proof::Certificate(Fingerprint::from_bytes([n; 32]));
    let proofs = Proofs::new(vec![key(1), print(1), key(2), print(2)]).expect("four");
    assert_eq!((proofs.keys().count(), proofs.certificates().count(), proofs.iter().count()), (2, 2, 4));
    assert_eq!(Proofs::from_record(&proofs.to_record()), Some(proofs));
    assert_eq!(Proofs::new(vec![]), Err(ProofsError::Count));
    assert_eq!(Proofs::new((0..5).map(print).collect()), Err(ProofsError::Count));
    assert_eq!(Proofs::new(vec![key(1), key(2), key(1)]), Err(ProofsError::Twice));
    let twice = Proofs::new(vec![print(1)]).expect("one").to_record().repeat(2);
    let five: Vec<u8> = (0..5).flat_map(|n| Proofs::new(vec![print(n)]).expect("one").to_record()).collect();
    for bad in [&twice[..], &five, &[], &[3, 0, 0], &[2, 0, 32], &[2, 0, 1, 9], &[1, 0, 1, 9]] {
        assert_eq!(Proofs::from_record(bad), None);
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let _ = PublicKey::parse(&bytes);
        let _ = Proofs::from_record(&bytes);
        let _ = Signed::parse("c", "p/d", &[b"v1r;1;n;", &bytes[..]].concat());
        prop_assert!(answer_bytes(&bytes).len() <= 512);
        let keys = [rsa_of(&modulus(1024), &[3]), rsa_of(&modulus(2048), &[3]), PublicKey::from_ed25519(&[9; 32])];
        for key in keys {
            let key = key.expect("a key");
            prop_assert!(!key.verify(&bytes, &bytes));
            let mut der = key.as_der().to_vec();
            for (at, bits) in &flips {
                let at = at.index(der.len());
                der[at] ^= bits;
            }
            // What is taken is kept as it is, and used without another look.
            if let Ok(taken) = PublicKey::from_der(&der) {
                prop_assert_eq!(taken.as_der(), &*der);
                prop_assert!(!taken.verify(b"x", &vec![1; taken.raw().len().min(512)]));
            }
            der.truncate(cut.index(der.len()));
            prop_assert!(PublicKey::from_der(&der).is_err());
        }
    }
}
