use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, date_time_ymd};
use ring::rand::SystemRandom;
use turnpike_core::gate::{ChallengeState, Gate, Principal, Verdict};
use turnpike_mqtt::ConnectReason;

use super::*;
use crate::cipher::{CipherPolicy, PayloadPolicy};
use crate::credential::{self, Credentials, SignedRequest};
use crate::keys::testing::{ed25519_pem, p256_pem, private, rsa, rsa_pem};
use crate::keys::{PrivateKey, Proof, Proofs};
use crate::names::{DeviceName, ProductKey};
use crate::nonce::WINDOW_MS;
use crate::plan::{Change, DeviceRequest, Making, PlanError};
use crate::product::ProductPolicy;
use crate::profile::ProfileSet;
use crate::secret::{MasterKey, Secret};
use crate::x509::Fingerprint;
use crate::x509::testing::{Authority, client, named};

pub(in crate::gate) const NOW: Now = Now { mono_ms: 5, unix_ms: 1_700_000_000_000 };
const PEER: std::net::SocketAddr =
    std::net::SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 1));

/// A gate, and devices of a product `p`.
pub(in crate::gate) struct World {
    pub(in crate::gate) gate: Gatekeeper,
    pub(in crate::gate) product: ProductKey,
}

pub(in crate::gate) fn name(name: &str) -> DeviceName {
    DeviceName::parse(name).expect("a name")
}

pub(in crate::gate) fn secret() -> Secret {
    Secret::new(b"a secret of the test").expect("long enough")
}

impl World {
    pub(in crate::gate) fn new() -> Self {
        let (registry, product) = (Arc::new(Registry::new()), ProductKey::parse("p").expect("a name"));
        registry.apply(registry.plan_put_product(&product, None, 1).expect("new").0);
        Self { gate: Gatekeeper::new(registry, MasterKey::new([7; 32]), 1000), product }
    }

    pub(in crate::gate) fn apply(&self, changes: impl IntoIterator<Item = Change>) {
        changes.into_iter().for_each(|change| self.gate.registry().apply(change));
    }

    pub(in crate::gate) fn policy(&self, policy: ProductPolicy) {
        self.apply(self.gate.registry().plan_set_policy(&self.product, policy));
    }

    /// A device with these proofs and no secret.
    pub(in crate::gate) fn put(&self, device: &str, proofs: Vec<Proof>) -> Result<(), PlanError> {
        let proofs = Proofs::new(proofs).expect("a list");
        let plan = self.gate.registry().plan_put_keyed_device(&self.product, &name(device), proofs, None, 1);
        plan.map(|(changes, _)| self.apply(changes))
    }

    pub(in crate::gate) fn put_secret(&self, device: &str) {
        let making = Making { key: self.gate.master_key(), random: [1; 28], now_s: 1 };
        let request = DeviceRequest { secret: Some(secret()), enabled: None };
        let made = self.gate.registry().plan_put_device(&self.product, &name(device), request, &making);
        self.apply(made.map(|made| made.change));
    }

    pub(in crate::gate) fn enter(&self, attempt: &Attempt<'_>, now: Now) -> Result<Admission, Refusal> {
        let before: Vec<_> = self.gate.refusals().collect();
        match self.gate.authenticate(attempt, now, [9; 32]) {
            Verdict::Granted(admission) => Ok(admission),
            Verdict::Challenge { .. } | Verdict::Pending(_) | Verdict::Dismissed(_) => panic!("no method was named"),
            Verdict::Refused(reason, _) => Err(self.refused(&before, reason)),
        }
    }

    /// The refusal that has been counted since.
    fn refused(&self, before: &[(Refusal, u64)], reason: ConnectReason) -> Refusal {
        let counted: Vec<_> = self.gate.refusals().zip(before).filter(|(now, before)| now != *before).collect();
        let [((refusal, _), _)] = counted[..] else { panic!("{counted:?}") };
        assert_eq!(refusal.reason(), reason);
        refusal
    }

    fn log_in(&self, made: &Credentials, now: Now) -> Result<(), Refusal> {
        let password = made.password.as_bytes();
        let attempt = Attempt {
            client_id: &made.client_id,
            user_name: Some(&made.user_name),
            password: Some(password),
            ..bare()
        };
        self.enter(&attempt, now).map(|admission| {
            assert_eq!((admission.until_ms, admission.data, admission.client_id), (None, None, None));
            assert!(matches!(admission.principal, Principal::Device(of) if made.user_name == format!("{}/{}", of.product, of.device)));
        })
    }

    /// By challenge, with an answer made of the challenge.
    fn answer(
        &self,
        user_name: &str,
        method: &str,
        answer: impl Fn(&ChallengeState) -> Vec<u8>,
    ) -> Result<Admission, Refusal> {
        let attempt = Attempt { user_name: Some(user_name), enhanced: Some((method, b"")), ..bare() };
        let Verdict::Challenge { state, .. } = self.gate.authenticate(&attempt, NOW, [9; 32]) else {
            panic!("a challenge, whoever asks")
        };
        let before: Vec<_> = self.gate.refusals().collect();
        match self.gate.proceed(&attempt, &state, &answer(&state), NOW) {
            Verdict::Granted(admission) => Ok(admission),
            Verdict::Challenge { .. } | Verdict::Pending(_) | Verdict::Dismissed(_) => panic!("one is enough"),
            Verdict::Refused(reason, _) => Err(self.refused(&before, reason)),
        }
    }
}

pub(in crate::gate) fn bare() -> Attempt<'static> {
    Attempt {
        client_id: "c",
        user_name: None,
        password: None,
        peer: PEER,
        tls: false,
        certificate: None,
        enhanced: None,
    }
}

pub(in crate::gate) fn with_certificate<'a>(der: &'a [u8], user_name: Option<&'a str>) -> Attempt<'a> {
    Attempt { user_name, tls: true, certificate: Some(der), ..bare() }
}

pub(in crate::gate) fn signed(key: &PrivateKey, device: &str, nonce: &str) -> Credentials {
    signed_at(key, device, nonce, NOW.unix_ms)
}

fn signed_at(key: &PrivateKey, device: &str, nonce: &str, timestamp_ms: u64) -> Credentials {
    let request = SignedRequest { product: "p", device, key, client_id: None, timestamp_ms, nonce };
    credential::native_signed(&request, &SystemRandom::new()).expect("signs")
}

pub(in crate::gate) fn key_of(key: &PrivateKey) -> Proof {
    Proof::Key(key.public().clone())
}

pub(in crate::gate) fn print_of(der: &[u8]) -> Proof {
    Proof::Certificate(Fingerprint::of(der))
}

#[test]
fn each_kind_of_key_logs_in_once_a_nonce_and_in_time() {
    let world = World::new();
    let keys = [private(&rsa_pem(&rsa(2048))), private(&p256_pem()), private(&ed25519_pem())];
    world.put("d", keys.iter().map(key_of).collect()).expect("a device");
    let stranger = private(&p256_pem());
    for (n, key) in keys.iter().enumerate() {
        let made = signed(key, "d", &n.to_string());
        assert_eq!(world.log_in(&made, NOW), Ok(()), "{key:?}");
        assert_eq!(world.log_in(&made, NOW), Err(Refusal::NonceReused));
    }
    let key = &keys[2];
    assert_eq!(world.log_in(&signed(&stranger, "d", "n"), NOW), Err(Refusal::WrongSignature));
    assert_eq!(world.log_in(&signed(key, "d", "n"), NOW), Ok(()), "a stranger's attempt uses up no nonce");
    for (ms, expected) in [
        (NOW.unix_ms - WINDOW_MS, Ok(())),
        (NOW.unix_ms + WINDOW_MS, Ok(())),
        (NOW.unix_ms - WINDOW_MS - 1, Err(Refusal::StaleTimestamp)),
        (NOW.unix_ms + WINDOW_MS + 1, Err(Refusal::StaleTimestamp)),
    ] {
        assert_eq!(world.log_in(&signed_at(key, "d", &ms.to_string(), ms), NOW), expected);
    }
    assert_eq!(world.log_in(&signed(key, "x", "1"), NOW), Err(Refusal::UnknownDevice));
    let other = Credentials { user_name: "q/d".to_owned(), ..signed(key, "d", "m") };
    assert_eq!(world.log_in(&other, NOW), Err(Refusal::UnknownProduct));
    let damaged = Credentials { password: "v1r;1700000000000;n;*".to_owned(), ..other };
    assert_eq!(world.log_in(&damaged, NOW), Err(Refusal::Malformed));
    for changed in [
        Credentials { client_id: "another".to_owned(), ..signed(key, "d", "o") },
        Credentials { password: signed(key, "d", "o").password.replace(";o;", ";p;"), ..signed(key, "d", "o") },
    ] {
        assert_eq!(world.log_in(&changed, NOW), Err(Refusal::WrongSignature), "everything is signed");
    }
}

#[test]
fn a_device_has_a_secret_or_keys_or_both() {
    let world = World::new();
    let key = private(&ed25519_pem());
    let by_secret = |nonce: &str| credential::native("p", "d", &secret(), "c", NOW.unix_ms, nonce);
    world.put("d", vec![key_of(&key)]).expect("a device");
    assert_eq!(world.log_in(&by_secret("1"), NOW), Err(Refusal::WrongSignature), "it has none");
    assert_eq!(world.gate.check_key(), Ok(()), "nothing is sealed that could fail to open");
    world.put_secret("d");
    assert_eq!(world.log_in(&by_secret("2"), NOW), Ok(()));
    assert_eq!(world.log_in(&signed(&key, "d", "3"), NOW), Ok(()), "a secret takes no key away");

    let registry = world.gate.registry();
    world.apply(registry.plan_set_device_keys(&world.product, &name("d"), None));
    assert_eq!(world.log_in(&signed(&key, "d", "4"), NOW), Err(Refusal::WrongSignature));
    assert_eq!(world.log_in(&by_secret("5"), NOW), Ok(()));
    world.apply(registry.plan_drop_secret(&world.product, &name("d")));
    assert_eq!(world.log_in(&by_secret("6"), NOW), Err(Refusal::WrongSignature));

    world.put("d", vec![key_of(&key)]).expect("a device");
    world.apply(registry.plan_enable_device(&world.product, &name("d"), false));
    assert_eq!(world.log_in(&signed(&key, "d", "7"), NOW), Err(Refusal::Disabled));
    world.apply(registry.plan_delete_device(&world.product, &name("d")).expect("there"));
    world.put_secret("d");
    assert_eq!(
        world.log_in(&signed(&key, "d", "8"), NOW),
        Err(Refusal::WrongSignature),
        "the keys went with the device"
    );
    let none = registry.plan_allow_profiles(&world.product, ProfileSet::from_iter([]));
    world.apply(none);
    world.put("d", vec![key_of(&key)]).expect("a device");
    assert_eq!(world.log_in(&signed(&key, "d", "9"), NOW), Err(Refusal::ProfileNotAllowed));
}

#[test]
fn a_short_key_is_taken_where_the_product_allows_it() {
    let world = World::new();
    let key = private(&rsa_pem(&rsa(1024)));
    assert_eq!(world.put("d", vec![key_of(&key)]), Err(PlanError::WeakKey));
    world.policy(ProductPolicy { allow_rsa_1024: true, ..ProductPolicy::default() });
    assert_eq!(world.put("d", vec![key_of(&key)]), Ok(()));
    assert_eq!(world.log_in(&signed(&key, "d", "1"), NOW), Ok(()));
    world.policy(ProductPolicy::default());
    assert_eq!(world.log_in(&signed(&key, "d", "2"), NOW), Err(Refusal::WeakKey));
    let stranger = private(&rsa_pem(&rsa(1024)));
    assert_eq!(world.log_in(&signed(&stranger, "d", "3"), NOW), Err(Refusal::WrongSignature));
}

#[test]
fn a_challenge_is_answered_by_the_key_of_its_method() {
    let world = World::new();
    let keys = [private(&rsa_pem(&rsa(2048))), private(&p256_pem()), private(&ed25519_pem())];
    world.put("d", keys.iter().map(key_of).collect()).expect("a device");
    let methods = ["RSA-SHA256", "ECDSA-SHA256", "ED25519"];
    let by = |key: &PrivateKey, device: &str, state: &ChallengeState| {
        let of = ("c", "p", device);
        credential::answer_signed(key, of, &state.data, &SystemRandom::new()).expect("signs")
    };
    for (n, method) in methods.into_iter().enumerate() {
        for (k, key) in keys.iter().enumerate() {
            let raw = world.answer("p/d", method, |state| by(key, "d", state)).map(|of| of.until_ms);
            let base64 = world.answer("p/d", method, |state| STANDARD.encode(by(key, "d", state)).into_bytes());
            let expected = if n == k { Ok(None) } else { Err(Refusal::WrongSignature) };
            assert_eq!((raw, base64.map(|of| of.until_ms)), (expected, expected), "{method} {key:?}");
        }
        let key = &keys[n];
        let unknown = world.answer("p/x", method, |state| by(key, "x", state));
        assert_eq!(unknown, Err(Refusal::UnknownDevice));
        assert_eq!(world.answer("q/d", method, |state| by(key, "d", state)), Err(Refusal::UnknownProduct));
        assert_eq!(world.answer("d", method, |state| by(key, "d", state)), Err(Refusal::Malformed));
        assert_eq!(world.answer("p/d", method, |_| Vec::new()), Err(Refusal::WrongSignature));
        let old = |_: &ChallengeState| {
            by(key, "d", &ChallengeState { method: method.into(), data: vec![8; 32], claim: "p/d".into() })
        };
        assert_eq!(world.answer("p/d", method, old), Err(Refusal::WrongSignature), "another challenge");
    }
    let by_secret = |state: &ChallengeState| credential::answer(&secret(), "c", "p", "d", &state.data).into_bytes();
    assert_eq!(world.answer("p/d", "HMAC-SHA256", by_secret), Err(Refusal::WrongSignature));
    world.put_secret("d");
    assert!(world.answer("p/d", "HMAC-SHA256", by_secret).is_ok());
    assert_eq!(world.answer("p/d", methods[0], by_secret), Err(Refusal::WrongSignature));
    let attempt = Attempt { user_name: Some("p/d"), enhanced: Some(("rsa-sha256", b"")), ..bare() };
    assert_eq!(world.enter(&attempt, NOW), Err(Refusal::BadMethod));
}

#[test]
fn a_connection_gets_a_cipher_where_the_product_has_one_and_there_is_no_tls() {
    let world = World::new();
    let key = private(&ed25519_pem());
    world.put("d", vec![key_of(&key)]).expect("a device");
    world.put_secret("s");
    let mut number = 0;
    let mut has_cipher = |is_tls: bool, is_keyed: bool| {
        number += 1;
        let nonce = format!("nonce{number}");
        let made = match is_keyed {
            true => signed(&key, "d", &nonce),
            false => credential::native("p", "s", &secret(), "c", NOW.unix_ms, &nonce),
        };
        let (user_name, password) = (Some(&*made.user_name), Some(made.password.as_bytes()));
        let attempt = Attempt { client_id: &made.client_id, user_name, password, tls: is_tls, ..bare() };
        let admission = world.enter(&attempt, NOW).expect("right credentials");
        assert_eq!(world.gate.seals(&admission.principal, is_tls), admission.cipher.is_some());
        admission.cipher.is_some()
    };
    let cipher = PayloadPolicy::Cipher(CipherPolicy::default());
    for (policy, expected) in [(PayloadPolicy::Plain, false), (PayloadPolicy::Transparent, false), (cipher, true)] {
        world.apply(world.gate.registry().plan_set_payloads(&world.product, policy));
        for is_keyed in [false, true] {
            assert_eq!((has_cipher(false, is_keyed), has_cipher(true, is_keyed)), (expected, false), "{policy:?}");
        }
    }
    let answer = |state: &ChallengeState| credential::answer(&secret(), "c", "p", "s", &state.data).into_bytes();
    let admission = world.answer("p/s", "HMAC-SHA256", answer).expect("right");
    assert!(admission.cipher.is_some_and(|cipher| !cipher.is_ready()));
    assert!(!world.gate.seals(&Principal::Broker, false));
}

#[test]
fn a_product_that_demands_tls_takes_nobody_without() {
    let world = World::new();
    let key = private(&ed25519_pem());
    world.put("d", vec![key_of(&key)]).expect("a device");
    world.put_secret("s");
    world.policy(ProductPolicy { require_tls: true, ..ProductPolicy::default() });
    let by_secret = |secret: &Secret, nonce: &str| credential::native("p", "s", secret, "c", NOW.unix_ms, nonce);
    let other = Secret::new(b"another secret").expect("long enough");
    for (made, refusal) in [
        (signed(&key, "d", "1"), Refusal::TlsRequired),
        (by_secret(&secret(), "1"), Refusal::TlsRequired),
        // Strangers hear what they always hear.
        (by_secret(&other, "2"), Refusal::WrongSignature),
    ] {
        assert_eq!(world.log_in(&made, NOW), Err(refusal));
    }
    let answer = |state: &ChallengeState| credential::answer(&secret(), "c", "p", "s", &state.data).into_bytes();
    assert_eq!(world.answer("p/s", "HMAC-SHA256", answer), Err(Refusal::TlsRequired));
    assert_eq!((Refusal::TlsRequired.reason() as u8, Refusal::TlsRequired.reason().return_code()), (0x87, 5));
    let made = signed(&key, "d", "2");
    let attempt = Attempt {
        client_id: &made.client_id,
        user_name: Some(&made.user_name),
        password: Some(made.password.as_bytes()),
        tls: true,
        ..bare()
    };
    assert!(world.enter(&attempt, NOW).is_ok());
}

/// From 2023 to 2024.
fn short(params: CertificateParams) -> CertificateParams {
    let mut params = params;
    (params.not_before, params.not_after) = (date_time_ymd(2023, 1, 1), date_time_ymd(2024, 1, 1));
    params
}

#[test]
fn a_registered_certificate_is_its_devices_whoever_issued_it() {
    let world = World::new();
    let ca = Authority::new("of the listener");
    let (der, other) = (ca.issue(&short(client())), ca.issue(&short(client())));
    world.put("d", vec![print_of(&der)]).expect("a device");
    world.put_secret("s");
    for user_name in [None, Some(""), Some("p/d")] {
        let entered = world.enter(&with_certificate(&der, user_name), NOW).expect("enters");
        assert_eq!(entered.until_ms, Some(1_704_067_200_999), "it ends with the certificate");
        assert!(matches!(entered.principal, Principal::Device(of) if (&*of.product, &*of.device) == ("p", "d")));
    }
    let empty = Attempt { password: Some(b""), ..with_certificate(&der, Some("p/d")) };
    assert!(world.enter(&empty, NOW).is_ok());
    for (attempt, now_ms, refusal) in [
        (with_certificate(&other, Some("p/d")), NOW.unix_ms, Refusal::WrongCertificate),
        (with_certificate(&other, None), NOW.unix_ms, Refusal::WrongCertificate),
        (with_certificate(&der, Some("p/s")), NOW.unix_ms, Refusal::WrongCertificate),
        (with_certificate(&der, Some("p/x")), NOW.unix_ms, Refusal::UnknownDevice),
        (with_certificate(&der, Some("q/d")), NOW.unix_ms, Refusal::UnknownProduct),
        (with_certificate(&der, Some("d")), NOW.unix_ms, Refusal::Malformed),
        (with_certificate(b"x", Some("p/d")), NOW.unix_ms, Refusal::WrongCertificate),
        (with_certificate(&der, None), 1_704_067_201_000, Refusal::CertificateExpired),
        (with_certificate(&der, None), 1_672_531_199_999, Refusal::CertificateExpired),
    ] {
        assert_eq!(world.enter(&attempt, Now { unix_ms: now_ms, ..NOW }), Err(refusal), "{attempt:?}");
    }
    let registry = world.gate.registry();
    let taken = Proofs::new(vec![print_of(&der)]).expect("a list");
    let taken = registry.plan_set_device_keys(&world.product, &name("s"), Some(taken));
    assert_eq!(taken, Err(PlanError::CertificateTaken));
    world.apply(registry.plan_enable_device(&world.product, &name("d"), false));
    assert_eq!(world.enter(&with_certificate(&der, None), NOW), Err(Refusal::Disabled));
    world.apply(registry.plan_delete_device(&world.product, &name("d")).expect("there"));
    assert_eq!(world.enter(&with_certificate(&der, None), NOW), Err(Refusal::WrongCertificate));
}

#[test]
fn a_certificate_by_a_products_ca_is_the_devices_that_it_names() {
    let world = World::new();
    let (ca, other) = (Authority::new("ca"), Authority::new("ca"));
    for device in ["d", "e"] {
        world.put_secret(device);
    }
    let (short_name, full_name) = (ca.issue(&short(named("d"))), ca.issue(&named("p/d")));
    let refusal = |der: &[u8], user_name| world.enter(&with_certificate(der, user_name), NOW).err();
    assert_eq!(refusal(&short_name, Some("p/d")), Some(Refusal::WrongCertificate), "no CA is registered");
    let registry = world.gate.registry();
    world.apply(registry.plan_set_authorities(&world.product, Some(ca.authorities())));
    assert_eq!(refusal(&short_name, Some("p/d")), None);
    assert_eq!(refusal(&full_name, Some("p/d")), None);
    assert_eq!(refusal(&full_name, None), None);
    assert_eq!(refusal(&short_name, None), Some(Refusal::WrongCertificate), "it names no product");
    assert_eq!(refusal(&full_name, Some("p/e")), Some(Refusal::WrongCertificate));
    assert_eq!(refusal(&ca.issue(&named("p/x")), None), Some(Refusal::UnknownDevice));
    assert_eq!(refusal(&ca.issue(&named("q/d")), None), Some(Refusal::UnknownProduct));
    assert_eq!(refusal(&other.issue(&named("p/d")), None), Some(Refusal::WrongCertificate), "the listener trusts it");
    let entered = world.enter(&with_certificate(&short_name, Some("p/d")), NOW).expect("enters");
    assert_eq!(entered.until_ms, Some(1_704_067_200_999));

    // A product of the same CA: a name without a product is good there too, one with it isn't.
    let q = ProductKey::parse("q").expect("a name");
    world.apply(registry.plan_put_product(&q, None, 1).map(|(change, _)| change));
    world.apply(registry.plan_set_authorities(&q, Some(ca.authorities())));
    let proofs = Proofs::new(vec![key_of(&private(&ed25519_pem()))]).expect("a list");
    world.apply(registry.plan_put_keyed_device(&q, &name("d"), proofs, None, 1).expect("a product").0);
    assert_eq!(refusal(&short_name, Some("q/d")), None);
    assert_eq!(refusal(&full_name, Some("q/d")), Some(Refusal::WrongCertificate));

    world.apply(registry.plan_set_authorities(&world.product, None));
    assert_eq!(refusal(&full_name, None), Some(Refusal::WrongCertificate));
}

#[test]
fn a_demanded_certificate_comes_beside_whatever_else_is_shown() {
    let world = World::new();
    let (ca, key) = (Authority::new("ca"), private(&ed25519_pem()));
    let (der, others) = (ca.issue(&short(named("p/d"))), ca.issue(&short(named("p/e"))));
    world.put("d", vec![key_of(&key)]).expect("a device");
    let registry = world.gate.registry();
    world.apply(registry.plan_set_authorities(&world.product, Some(ca.authorities())));
    world.policy(ProductPolicy { require_certificate: true, ..ProductPolicy::default() });
    let enter = |certificate, nonce: &str| {
        let made = signed(&key, "d", nonce);
        let (user_name, password) = (Some(&*made.user_name), Some(made.password.as_bytes()));
        let attempt = Attempt { client_id: &made.client_id, user_name, password, tls: true, certificate, ..bare() };
        world.enter(&attempt, NOW).map(|admission| admission.until_ms)
    };
    assert_eq!(enter(None, "1"), Err(Refusal::CertificateRequired));
    assert_eq!(enter(Some(&others), "2"), Err(Refusal::WrongCertificate));
    assert_eq!(enter(Some(b"x"), "3"), Err(Refusal::WrongCertificate));
    assert_eq!(enter(Some(&der), "4"), Ok(Some(1_704_067_200_999)));
    assert_eq!(world.enter(&with_certificate(&der, None), NOW).map(|of| of.until_ms), Ok(Some(1_704_067_200_999)));
    let answer = |state: &ChallengeState| {
        credential::answer_signed(&key, ("c", "p", "d"), &state.data, &SystemRandom::new()).expect("signs")
    };
    assert_eq!(world.answer("p/d", "ED25519", answer), Err(Refusal::CertificateRequired));

    // Where none is demanded, a password is judged as ever, whatever TLS was shown.
    world.policy(ProductPolicy::default());
    assert_eq!(enter(Some(&others), "5"), Ok(None));
}
