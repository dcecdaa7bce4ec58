use proptest::prelude::*;
use turnpike_core::gate::DeviceIdentity;
use turnpike_mqtt::ConnectReason;

use super::*;
use crate::credential::Request;
use crate::credential::{self, Credentials};
use crate::names::{DeviceName, ProductKey};
use crate::nonce::WINDOW_MS;
use crate::plan::{Change, DeviceRequest, Making};
use crate::profile::{ProfileSet, SignMethod};

const NOW: Now = Now { mono_ms: 5, unix_ms: 1_700_000_000_000 };

fn secret() -> Secret {
    Secret::new(b"a secret of the test").expect("long enough")
}

/// Devices `d` and `off` (disabled) of product `p`, `d` of `closed` (disabled) and of `aliyun` (which takes that profile alone).
fn gate() -> Gatekeeper {
    let key = MasterKey::new([7; 32]);
    let registry = Arc::new(Registry::new());
    let aliyun = ProfileSet::from_iter([Profile::Aliyun]);
    for (product, name, closed, off, profiles) in [
        ("p", "d", false, false, ProfileSet::DEFAULT),
        ("p", "off", false, true, ProfileSet::DEFAULT),
        ("closed", "d", true, false, ProfileSet::DEFAULT),
        ("aliyun", "d", false, false, aliyun),
    ] {
        let product = ProductKey::parse(product).expect("a name");
        registry.apply(registry.plan_put_product(&product, Some(!closed), 1).expect("nothing is being deleted").0);
        registry.apply(registry.plan_allow_profiles(&product, profiles).expect("a product"));
        let name = DeviceName::parse(name).expect("a name");
        let request = DeviceRequest { secret: Some(secret()), enabled: Some(!off) };
        let making = Making { key: &key, random: [1; 28], now_s: 1 };
        registry.apply(registry.plan_put_device(&product, &name, request, &making).expect("a product").change);
    }
    Gatekeeper::new(registry, key, 1000)
}

fn attempt<'a>(client_id: &'a str, user_name: Option<&'a str>, password: Option<&'a [u8]>) -> Attempt<'a> {
    let peer = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    Attempt { client_id, user_name, password, peer, tls: false, certificate: None, enhanced: None }
}

fn judge(gate: &Gatekeeper, made: &Credentials) -> Result<Principal, ConnectReason> {
    let attempt = attempt(&made.client_id, Some(&made.user_name), Some(made.password.as_bytes()));
    match gate.authenticate(&attempt, NOW, [9; 32]) {
        Verdict::Granted(admission) => Ok(admission.principal),
        Verdict::Refused(reason, _) => Err(reason),
        Verdict::Challenge { .. } | Verdict::Pending(_) | Verdict::Dismissed(_) => panic!("no method was named"),
    }
}

fn count(gate: &Gatekeeper, refusal: Refusal) -> u64 {
    gate.refusals().find(|(known, _)| *known == refusal).map_or(0, |(_, count)| count)
}

/// Native credentials of a device, as `(product, device, secret, timestamp, nonce)` says.
fn native(product: &str, device: &str, secret: &Secret, ms: u64, nonce: &str) -> Credentials {
    credential::native(product, device, secret, "c", ms, nonce)
}

#[test]
fn each_refusal_has_its_code_and_its_count() {
    let gate = gate();
    let (right, other) = (secret(), Secret::new(b"another secret").expect("long enough"));
    let ms = NOW.unix_ms;
    let aliyun = |product, secret| credential::aliyun(product, "d", secret, "i", SignMethod::Sha256, None);
    for (made, expected) in [
        (native("p", "d", &right, ms, "1"), None),
        (native("p", "d", &right, ms, "1"), Some(Refusal::NonceReused)),
        (native("p", "d", &right, ms - WINDOW_MS, "2"), None),
        (native("p", "d", &right, ms + WINDOW_MS, "3"), None),
        (native("p", "d", &right, ms - WINDOW_MS - 1, "4"), Some(Refusal::StaleTimestamp)),
        (native("p", "d", &right, ms + WINDOW_MS + 1, "4"), Some(Refusal::StaleTimestamp)),
        (native("p", "d", &right, u64::MAX, "4"), Some(Refusal::StaleTimestamp)),
        (native("p", "d", &other, ms, "5"), Some(Refusal::WrongSignature)),
        (native("p", "x", &right, ms, "6"), Some(Refusal::UnknownDevice)),
        (native("q", "d", &right, ms, "6"), Some(Refusal::UnknownProduct)),
        (native("p", "d/", &right, ms, "6"), Some(Refusal::UnknownDevice)),
        // What is disabled or not allowed is said to those alone who know the secret.
        (native("p", "off", &right, ms, "7"), Some(Refusal::Disabled)),
        (native("p", "off", &other, ms, "8"), Some(Refusal::WrongSignature)),
        (native("closed", "d", &right, ms, "9"), Some(Refusal::Disabled)),
        (native("closed", "d", &other, ms, "9"), Some(Refusal::WrongSignature)),
        (native("aliyun", "d", &right, ms, "10"), Some(Refusal::ProfileNotAllowed)),
        (native("aliyun", "d", &other, ms, "10"), Some(Refusal::WrongSignature)),
        (aliyun("p", &right), None),
        (aliyun("p", &right), None),
        (aliyun("aliyun", &right), None),
        (aliyun("p", &other), Some(Refusal::WrongSignature)),
        (aliyun("closed", &right), Some(Refusal::Disabled)),
    ] {
        let before = expected.map(|refusal| count(&gate, refusal));
        assert_eq!(judge(&gate, &made).err(), expected.map(Refusal::reason), "{} {expected:?}", made.user_name);
        assert_eq!(expected.map(|refusal| count(&gate, refusal)), before.map(|count| count + 1));
    }
}

#[test]
fn a_refusal_has_the_code_that_the_table_says() {
    for refusal in Refusal::ALL.iter().copied() {
        let expected = match refusal {
            Refusal::Disabled | Refusal::ProfileNotAllowed | Refusal::TokenExpired | Refusal::WrongNetwork => (0x87, 5),
            Refusal::WeakKey | Refusal::TlsRequired | Refusal::CertificateRequired => (0x87, 5),
            Refusal::CertificateExpired => (0x87, 5),
            Refusal::AttestationMissing | Refusal::AttestationMismatch => (0x87, 5),
            Refusal::BadMethod => (0x8C, 4),
            Refusal::NoncesFull => (0x97, 3),
            Refusal::TooManyLogIns => (0x9F, 3),
            Refusal::SecretSealed | Refusal::VerifierMissing | Refusal::KeysAwaited => (0x88, 3),
            Refusal::CalloutBroken | Refusal::CalloutBusy | Refusal::CalloutFailed => (0x88, 3),
            Refusal::CalloutTimedOut | Refusal::CalloutGarbage => (0x88, 3),
            _ => (0x86, 4),
        };
        let reason = refusal.reason();
        assert_eq!((reason as u8, reason.return_code()), expected, "{refusal:?}");
    }
    let labels: std::collections::BTreeSet<_> = Refusal::ALL.iter().map(|refusal| refusal.label()).collect();
    assert_eq!(labels.len(), Refusal::ALL.len());
}

#[test]
fn what_is_no_credentials_is_refused() {
    let gate = gate();
    for (user_name, password, refusal) in [
        (None, None, Refusal::NoCredentials),
        (Some("p/d"), None, Refusal::NoCredentials),
        (None, Some(&b"x"[..]), Refusal::NoCredentials),
        (Some("p/d"), Some(&b"x"[..]), Refusal::Malformed),
        (Some("p/d"), Some(&b"v1;\xFF"[..]), Refusal::Malformed),
        (Some(""), Some(&b""[..]), Refusal::Malformed),
    ] {
        let before = count(&gate, refusal);
        let verdict = gate.authenticate(&attempt("c", user_name, password), NOW, [0; 32]);
        assert!(matches!(verdict, Verdict::Refused(ConnectReason::BadUserNameOrPassword, _)));
        assert_eq!(count(&gate, refusal), before + 1);
    }
}

#[test]
fn a_full_memory_of_nonces_lets_nobody_in_unremembered() {
    let gate = Gatekeeper::new(Arc::clone(gate().registry()), MasterKey::new([7; 32]), 1);
    let verdicts: Vec<_> =
        (0..100).map(|n| judge(&gate, &native("p", "d", &secret(), NOW.unix_ms, &n.to_string()))).collect();
    let count = |wanted: Result<(), ConnectReason>| {
        verdicts.iter().filter(|verdict| verdict.as_ref().map(|_| ()).map_err(|reason| *reason) == wanted).count()
    };
    let (allowed, full) = (count(Ok(())), count(Err(ConnectReason::QuotaExceeded)));
    let over_share = count(Err(ConnectReason::ConnectionRateExceeded));
    assert!((1..=16).contains(&allowed) && allowed + full + over_share == 100, "{verdicts:?}");
}

#[test]
fn whoever_is_in_is_judged_again_by_what_holds_now() {
    let gate = gate();
    let (product, name) = (ProductKey::parse("p").expect("a name"), DeviceName::parse("d").expect("a name"));
    let made = native("p", "d", &secret(), NOW.unix_ms, "1");
    let device = judge(&gate, &made).expect("right credentials");
    assert!(gate.still_welcome(&device));
    let set =
        |enabled| gate.registry().apply(gate.registry().plan_enable_device(&product, &name, enabled).expect("there"));
    set(false);
    assert!(!gate.still_welcome(&device));
    set(true);
    assert!(gate.still_welcome(&device));
    gate.registry().apply(gate.registry().plan_enable_product(&product, false).expect("there"));
    assert!(!gate.still_welcome(&device));
    gate.registry().apply(gate.registry().plan_enable_product(&product, true).expect("there"));
    gate.registry().apply(Change::DeleteDevice(product, name));
    assert!(!gate.still_welcome(&device));
}

#[test]
fn topics_are_judged_by_who_asks() {
    let (closed, open) = (gate(), gate().open_to_all());
    let device = judge(&closed, &native("p", "d", &secret(), NOW.unix_ms, "1")).expect("right credentials");
    let topic = |text: &'static str| TopicName::parse(text).expect("a topic");
    let filter = |text: &'static str| TopicFilter::parse(text).expect("a filter");
    assert!(closed.may_publish(&device, topic("dev/p/d/up/x")) && !closed.may_publish(&device, topic("dev/p/e/up/x")));
    assert!(closed.may_subscribe(&device, filter("dev/p/d/down/#")) && !closed.may_subscribe(&device, filter("#")));
    assert!(closed.may_publish(&Principal::Broker, topic("$SYS/x")));
    for (gate, may) in [(&closed, false), (&open, true)] {
        assert_eq!(gate.may_publish(&Principal::Anonymous, topic("a")), may);
        assert_eq!(gate.may_subscribe(&Principal::Anonymous, filter("#")), may);
        assert_eq!(gate.still_welcome(&Principal::Anonymous), may);
    }
    let verdict = open.authenticate(&attempt("c", None, None), NOW, [0; 32]);
    assert!(matches!(verdict, Verdict::Granted(Admission { principal: Principal::Anonymous, .. })));
}

#[test]
fn a_strangers_attempt_uses_up_no_nonce() {
    let gate = gate();
    let other = Secret::new(b"another secret").expect("long enough");
    assert!(judge(&gate, &credential::native("p", "d", &other, "c", NOW.unix_ms, "n")).is_err());
    assert!(judge(&gate, &credential::native("p", "d", &secret(), "c", NOW.unix_ms, "n")).is_ok());
}

#[test]
fn a_challenge_lets_in_who_knows_the_secret() {
    let gate = gate();
    for (user_name, expected) in [
        ("p/off", ConnectReason::NotAuthorized),
        ("aliyun/d", ConnectReason::NotAuthorized),
        ("p/x", ConnectReason::BadUserNameOrPassword),
        ("p", ConnectReason::BadUserNameOrPassword),
    ] {
        let attempt = Attempt { enhanced: Some((METHOD, b"")), ..attempt("c", Some(user_name), None) };
        let verdict = gate.authenticate(&attempt, NOW, [4; 32]);
        let Verdict::Challenge { data, state } = verdict else { panic!("a challenge, whoever asks") };
        let (product, device) = user_name.split_once('/').unwrap_or_default();
        let answer = credential::answer(&secret(), "c", product, device, &data);
        let verdict = gate.proceed(&attempt, &state, answer.as_bytes(), NOW);
        assert!(matches!(verdict, Verdict::Refused(reason, _) if reason == expected), "{user_name}");
    }
    let attempt = Attempt { enhanced: Some((METHOD, b"")), ..attempt("c", Some("p/d"), None) };
    let Verdict::Challenge { data, state } = gate.authenticate(&attempt, NOW, [3; 32]) else { panic!("a challenge") };
    let right = credential::answer(&secret(), "c", "p", "d", &data);
    assert!(matches!(gate.proceed(&attempt, &state, right.as_bytes(), NOW), Verdict::Granted(_)));
    for wrong in [&b""[..], b"x", &[0; 32], &[b'0'; 64]] {
        assert!(matches!(
            gate.proceed(&attempt, &state, wrong, NOW),
            Verdict::Refused(ConnectReason::BadUserNameOrPassword, _)
        ));
    }
    let attempt = Attempt { enhanced: Some(("SCRAM", b"")), ..attempt };
    let verdict = gate.authenticate(&attempt, NOW, [3; 32]);
    assert!(matches!(verdict, Verdict::Refused(ConnectReason::BadAuthenticationMethod, _)));
}

/// Makes a product that takes a profile, with a device and a secret that it can have. The secret.
fn add(gate: &Gatekeeper, profile: Profile, product: &str, device: &str, n: u8) -> Secret {
    let secret = match profile {
        Profile::Tencent | Profile::Azure => format!("c2VjcmV0IG51bWJlciAx{n:04}"),
        Profile::Gizwits => format!("8caaaa8b11e0,auth key number {n}"),
        _ => format!("secret number {n}"),
    };
    let secret = Secret::new(secret.as_bytes()).expect("long enough");
    let (registry, key) = (gate.registry(), ProductKey::parse(product).expect("a name"));
    registry.apply(registry.plan_put_product(&key, None, 1).expect("new").0);
    registry.apply(registry.plan_allow_profiles(&key, ProfileSet::from_iter([profile])).expect("a product"));
    let request = DeviceRequest { secret: Some(secret.clone()), enabled: None };
    let making = Making { key: gate.master_key(), random: [n; 28], now_s: 1 };
    let name = DeviceName::parse(device).expect("a name");
    registry.apply(registry.plan_put_device(&key, &name, request, &making).expect("a product").change);
    secret
}

fn credentials(profile: Profile, product: &str, device: &str, secret: &Secret, unix_ms: u64) -> Credentials {
    let nonce = unix_ms.to_string();
    let request = Request {
        product,
        device,
        secret,
        client_id: None,
        timestamp_ms: unix_ms,
        nonce: &nonce,
        method: SignMethod::Sha256,
    };
    Credentials::make(profile, &request).expect("all that it takes")
}

fn device(product: &str, device: &str) -> Principal {
    Principal::Device(Arc::new(DeviceIdentity::new(product, device)))
}

#[test]
fn every_profile_lets_its_device_in_and_nobody_else() {
    for profile in Profile::ALL {
        let gate = gate();
        let (one, two) = ("PRODUCT001", "PRODUCT002");
        let right = add(&gate, profile, one, "serial-1", 1);
        let wrong = add(&gate, profile, two, "serial-2", 2);
        let judge = |product, device, secret, ms| judge(&gate, &credentials(profile, product, device, secret, ms));
        let now = NOW.unix_ms;
        assert_eq!(judge(one, "serial-1", &right, now), Ok(device(one, "serial-1")), "{profile}");
        let refused = Err(ConnectReason::BadUserNameOrPassword);
        assert_eq!(judge(one, "serial-1", &wrong, now + 1), refused, "{profile}");
        assert_eq!(judge(one, "serial-3", &right, now + 2), refused, "{profile}");
        assert_eq!(judge(two, "serial-3", &right, now + 3), refused, "{profile}");
        // What is long over, and what another device's secret opens.
        let is_timeless = matches!(profile, Profile::Aliyun | Profile::GizwitsLegacy | Profile::Gizwits);
        assert_eq!(judge(one, "serial-1", &right, now - 7_200_000).is_ok(), is_timeless, "{profile}");
        assert_eq!(judge(two, "serial-2", &wrong, now + 4), Ok(device(two, "serial-2")), "{profile}");
        // The product changes its mind.
        let key = ProductKey::parse(one).expect("a name");
        let none = gate.registry().plan_allow_profiles(&key, ProfileSet::from_iter([])).expect("a product");
        gate.registry().apply(none);
        let verdict = judge(one, "serial-1", &right, now + 5);
        // Where the product isn't named, it isn't looked for there any more.
        let expected = match profile {
            Profile::Tuya | Profile::Azure | Profile::GizwitsLegacy | Profile::Gizwits => refused,
            _ => Err(ConnectReason::NotAuthorized),
        };
        assert_eq!(verdict, expected, "{profile}");
    }
}

#[test]
fn namesakes_are_told_apart_by_their_secrets() {
    for profile in Profile::ALL.into_iter().filter(|profile| profile.is_searched()) {
        let gate = gate();
        let secrets: Vec<Secret> = (0..4).map(|n| add(&gate, profile, &format!("p_{n}"), "name", n)).collect();
        for (n, secret) in secrets.iter().enumerate() {
            let product = format!("p_{n}");
            let made = credentials(profile, &product, "name", secret, NOW.unix_ms);
            assert_eq!(judge(&gate, &made), Ok(device(&product, "name")), "{profile}");
        }
        assert_eq!(gate.refusals().map(|(_, count)| count).sum::<u64>(), 0);
    }
}

#[test]
fn a_huawei_id_is_product_and_node_or_a_name() {
    let gate = gate();
    let split = add(&gate, Profile::Huawei, "6203cc94", "88888888", 1);
    let whole = add(&gate, Profile::Huawei, "other", "6203cc94_77777777", 2);
    for (id, secret, expected) in [
        ("6203cc94_88888888", &split, Some(device("6203cc94", "88888888"))),
        ("6203cc94_77777777", &whole, Some(device("other", "6203cc94_77777777"))),
        ("88888888", &split, Some(device("6203cc94", "88888888"))),
        ("6203cc94_77777777", &split, None),
        ("6203cc94_", &split, None),
        ("_88888888", &split, None),
    ] {
        // Without a product, the name is the id.
        let made = credential::huawei("_", id, secret, "2025041401", false);
        assert_eq!((judge(&gate, &made).ok(), &*made.user_name), (expected, id), "{id}");
    }
}

#[test]
fn a_passcode_outside_of_mqtt_is_held_to_the_same() {
    let gate = gate();
    let kept = add(&gate, Profile::GizwitsLegacy, "pk", "did", 1);
    let passcode = std::str::from_utf8(kept.expose()).expect("text");
    let owner = |device, passcode, tls| gate.passcode_owner(device, passcode, tls).map(|owner| owner.to_string());
    assert_eq!(owner("did", passcode, false).as_deref(), Some("pk"));
    assert_eq!(owner("did", "another", true), None);
    assert_eq!(owner("nobody", passcode, true), None);
    let other = std::str::from_utf8(secret().expose()).expect("text").to_owned();
    assert_eq!(owner("d", &other, true), None, "of a product that doesn't take that profile");

    let (product, name) = (ProductKey::parse("pk").expect("a name"), DeviceName::parse("did").expect("a name"));
    let strict = crate::product::ProductPolicy { require_tls: true, ..Default::default() };
    gate.registry().apply(Change::SetPolicy(product.clone(), strict));
    assert_eq!([false, true].map(|tls| owner("did", passcode, tls).is_some()), [false, true]);
    gate.registry().apply(gate.registry().plan_enable_device(&product, &name, false).expect("there"));
    assert_eq!(owner("did", passcode, true), None);
}

#[test]
fn a_nonce_of_gizwits_is_good_once() {
    let gate = gate();
    let secret = add(&gate, Profile::Gizwits, "pk", "did", 1);
    let made = credential::gizwits("pk", "did", &secret, "ABCDEFGHIJ").expect("a MAC");
    assert!(judge(&gate, &made).is_ok());
    assert_eq!(judge(&gate, &made), Err(ConnectReason::BadUserNameOrPassword));
    assert_eq!(count(&gate, Refusal::NonceReused), 1);
    assert!(judge(&gate, &credential::gizwits("pk", "did", &secret, "ABCDEFGHIK").expect("a MAC")).is_ok());
}

#[test]
fn what_changes_in_a_client_id_is_no_part_of_the_session() {
    let gate = gate();
    let huawei = add(&gate, Profile::Huawei, "pk", "d", 1);
    let gizwits = add(&gate, Profile::Gizwits, "giz", "did", 1);
    let mut other = credential::gizwits("giz", "did", &gizwits, "B").expect("a MAC");
    std::mem::swap(&mut other.client_id, &mut other.user_name);
    for (made, expected) in [
        (credential::aliyun("p", "d", &secret(), "p&d", SignMethod::Sha256, Some("1")), Some("p&d")),
        (credential::aliyun("p", "d", &secret(), "", SignMethod::Sha256, Some("1")), None),
        (credential::huawei("pk", "d", &huawei, "2025041401", false), Some("pk_d")),
        (credential::gizwits("giz", "did", &gizwits, "A").expect("a MAC"), None),
        (other, Some("did")),
        (credential::native("p", "d", &secret(), "c|1|", NOW.unix_ms, "n"), None),
    ] {
        let attempt = attempt(&made.client_id, Some(&made.user_name), Some(made.password.as_bytes()));
        let Verdict::Granted(Admission { client_id, .. }) = gate.authenticate(&attempt, NOW, [0; 32]) else {
            panic!("{made:?}")
        };
        assert_eq!(client_id.as_deref(), expected, "{made:?}");
        let home = |id: &str| turnpike_core::shard::home(id, 64);
        assert_eq!(expected.map_or(home(&made.client_id), home), home(&made.client_id), "its session is out of reach");
    }
}

/// Keeps records where a test can see them.
#[derive(Debug, Default)]
struct Kept {
    taken: parking_lot::Mutex<Vec<[u8; RECORD_BYTES]>>,
    kept: Arc<parking_lot::Mutex<Vec<[u8; RECORD_BYTES]>>>,
}

impl NonceJournal for Kept {
    fn take(&self, record: [u8; RECORD_BYTES]) {
        self.taken.lock().push(record);
    }

    fn keep(&self) {
        self.kept.lock().append(&mut self.taken.lock());
    }
}

#[test]
fn a_nonce_is_kept_when_its_device_is_to_hear_that_it_is_in() {
    let kept = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let journal = Kept { kept: Arc::clone(&kept), ..Kept::default() };
    let gate = gate().keeping_nonces(Box::new(journal));
    let made = native("p", "d", &secret(), NOW.unix_ms + 1, "n");
    assert!(judge(&gate, &made).is_ok());
    gate.keep_judged();
    assert_eq!(kept.lock().len(), 1, "and not later");
    assert!(judge(&gate, &made).is_err());
    assert!(
        judge(&gate, &native("p", "d", &Secret::new(b"another secret").expect("long enough"), NOW.unix_ms, "m"))
            .is_err()
    );
    assert!(judge(&gate, &credential::aliyun("p", "d", &secret(), "i", SignMethod::Sha256, None)).is_ok());
    gate.keep_judged();
    assert_eq!(kept.lock().len(), 1, "only what was taken for the first time");
    let record = kept.lock()[0];
    assert_eq!(crate::nonce::until_ms(&record), NOW.unix_ms + 1 + WINDOW_MS, "as long as its timestamp is acceptable");

    // After a restart.
    let next = Gatekeeper::new(Arc::clone(gate.registry()), MasterKey::new([7; 32]), 1000);
    let now = Now { mono_ms: 0, ..NOW };
    assert_eq!(next.restore_nonces([record], now), Restored { kept: 1, ..Restored::default() });
    assert_eq!(judge(&next, &made), Err(ConnectReason::BadUserNameOrPassword));
    assert_eq!(count(&next, Refusal::NonceReused), 1);
    assert!(judge(&next, &native("p", "d", &secret(), NOW.unix_ms, "m")).is_ok());
}

#[test]
fn a_vendors_topics_come_and_go_with_its_profile() {
    let gate = gate();
    add(&gate, Profile::Tuya, "t", "d", 1);
    let topic = |text: &'static str| TopicName::parse(text).expect("a topic");
    let filter = |text: &'static str| TopicFilter::parse(text).expect("a filter");
    let may = |product: &str| {
        let who = device(product, "d");
        (gate.may_publish(&who, topic("tylink/d/x")), gate.may_subscribe(&who, filter("tylink/d/#")))
    };
    assert_eq!((may("t"), may("p")), ((true, true), (false, false)));
    assert!(
        !gate.may_publish(&device("t", "d"), topic("/t/d/user/x"))
            && gate.may_publish(&device("p", "d"), topic("/p/d/user/x"))
    );
    let (registry, key) = (gate.registry(), ProductKey::parse("t").expect("a name"));
    registry.apply(registry.plan_allow_profiles(&key, ProfileSet::DEFAULT).expect("a product"));
    assert_eq!(may("t"), (false, false));
}

#[test]
fn another_master_key_opens_nothing() {
    let gate = gate();
    let other = Gatekeeper::new(Arc::clone(gate.registry()), MasterKey::new([8; 32]), 10);
    let made = credential::aliyun("p", "d", &secret(), "i", SignMethod::Sha256, None);
    assert_eq!(judge(&other, &made), Err(ConnectReason::ServerUnavailable));
    assert_eq!(count(&other, Refusal::SecretSealed), 1);
    assert_eq!(other.check_key(), Err(SealError::OtherKey));
    assert_eq!(gate.check_key(), Ok(()));
}

proptest! {
    #[test]
    fn no_credentials_panic_or_get_in(
        client_id in "\\PC{0,20}|[a-z|=,]{0,30}",
        user_name in "\\PC{0,10}|p/d|d&p|[pd/&]{0,5}",
        password in proptest::collection::vec(any::<u8>(), 0..70),
        native in "v1;1700000000000;[0-9a-f]{1,4};[0-9a-fA-F;]{0,64}",
    ) {
        let gate = gate();
        for password in [&password[..], native.as_bytes()] {
            let attempt = attempt(&client_id, Some(&user_name), Some(password));
            prop_assert!(matches!(gate.authenticate(&attempt, NOW, [0; 32]), Verdict::Refused(..)));
            let state = ChallengeState { method: METHOD.into(), data: vec![3; 32], claim: user_name.as_str().into() };
            prop_assert!(matches!(gate.proceed(&attempt, &state, password, NOW), Verdict::Refused(..)));
        }
    }
}

#[test]
fn a_platform_publishes_where_it_is_granted_and_reads_nothing() {
    use turnpike_core::gate::PlatformIdentity;

    use crate::platform::{AuthMaking, Edit, Grant};
    use crate::x509::Fingerprint;

    let platforms = Arc::new(Platforms::new(MasterKey::new([7; 32]), 16));
    let edit = Edit {
        name: Some("cloud".into()),
        certificates: Some(vec![Fingerprint::of(b"x")]),
        grants: Some(vec![Grant { product: ProductKey::parse("p").expect("a name"), control: true }]),
        enabled: None,
    };
    let making = AuthMaking { number: [1; 32], token: [1; 32], seal: [1; 12], now_ms: 0 };
    let made = platforms.plan_create(edit, &making).expect("made");
    made.changes.into_iter().for_each(|change| platforms.apply(change));
    let principal = Principal::Platform(Arc::new(PlatformIdentity { id: made.id.as_str().into() }));
    let publishes = |gate: &Gatekeeper, topic| gate.may_publish(&principal, TopicName::parse(topic).expect("a topic"));
    let with = gate().with_platforms(Arc::clone(&platforms));
    assert!(publishes(&with, "dev/p/d/down/set"));
    assert!(!publishes(&with, "dev/p/d/up/set") && !publishes(&with, "dev/closed/d/down/set"));
    assert!(!publishes(&gate(), "dev/p/d/down/set"), "a gate that knows no platforms");
    for filter in ["dev/p/d/down/set", "#"] {
        assert!(!with.may_subscribe(&principal, TopicFilter::parse(filter).expect("a filter")));
    }
    assert!(!with.still_welcome(&principal));
    platforms.plan_delete(made.id).expect("planned").into_iter().for_each(|change| platforms.apply(change));
    assert!(!publishes(&with, "dev/p/d/down/set"));
}

#[test]
fn a_token_of_aliyun_opens_through_tls_alone() {
    let gate = gate();
    let client_id = "c1|authType=connwl,securemode=-2,_v=1|";
    let right = secret();
    let enter = |tls, token: &[u8]| {
        let attempt = Attempt { tls, ..attempt(client_id, Some("d&p"), Some(token)) };
        gate.authenticate(&attempt, NOW, [9; 32])
    };
    let Verdict::Granted(admission) = enter(true, right.expose()) else { panic!("the token is right") };
    assert_eq!(admission.client_id.as_deref(), Some("c1"));
    let before = count(&gate, Refusal::TlsRequired);
    assert!(matches!(enter(false, right.expose()), Verdict::Refused(..)));
    assert_eq!(count(&gate, Refusal::TlsRequired), before + 1);
    for wrong in [&b""[..], b"another token", &right.expose()[1..]] {
        assert!(matches!(enter(true, wrong), Verdict::Refused(ConnectReason::BadUserNameOrPassword, _)));
    }
}
