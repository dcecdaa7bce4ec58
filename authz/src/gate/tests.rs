use proptest::prelude::*;
use turnpike_mqtt::ConnectReason;

use super::*;
use crate::credential::{self, Credentials};
use crate::names::{DeviceName, ProductKey};
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
        ("p", "d", false, false, ProfileSet::ALL),
        ("p", "off", false, true, ProfileSet::ALL),
        ("closed", "d", true, false, ProfileSet::ALL),
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
        Verdict::Granted { principal, .. } => Ok(principal),
        Verdict::Refused(reason, _) => Err(reason),
        Verdict::Challenge { .. } => panic!("no method was named"),
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
            Refusal::Disabled | Refusal::ProfileNotAllowed => (0x87, 5),
            Refusal::BadMethod => (0x8C, 4),
            Refusal::NoncesFull => (0x97, 3),
            Refusal::SecretSealed => (0x88, 3),
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
    assert!(verdicts.contains(&Err(ConnectReason::QuotaExceeded)));
    assert!(verdicts.iter().filter(|verdict| verdict.is_ok()).count() <= 16);
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
    assert!(matches!(verdict, Verdict::Granted { principal: Principal::Anonymous, .. }));
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
    assert!(matches!(gate.proceed(&attempt, &state, right.as_bytes(), NOW), Verdict::Granted { .. }));
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
