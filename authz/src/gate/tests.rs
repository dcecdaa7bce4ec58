use super::*;
use crate::names::{DeviceName, ProductKey};
use crate::profile::SignMethod;
use crate::registry::{Change, Device, Product};

const NOW: Now = Now { mono_ms: 5, unix_ms: 1_700_000_000_000 };

fn secret() -> Secret {
    Secret::new(b"a secret of the test").expect("long enough")
}

fn gate() -> Gatekeeper {
    let key = MasterKey::new([7; 32]);
    let registry = Arc::new(Registry::new());
    let product = ProductKey::parse("p").expect("a name");
    registry.apply(Change::PutProduct(product.clone(), Product { enabled: true, created_at_s: 1 }));
    for (name, enabled) in [("d", true), ("off", false)] {
        let sealed = key.seal(&owner("p", name), &secret(), [1; 12]);
        let device = Device { enabled, created_at_s: 1, secret: sealed };
        registry.apply(Change::PutDevice(product.clone(), DeviceName::parse(name).expect("a name"), device));
    }
    Gatekeeper::new(registry, key, 1000)
}

fn attempt<'a>(client_id: &'a str, user_name: Option<&'a str>, password: Option<&'a [u8]>) -> Attempt<'a> {
    let peer = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    Attempt { client_id, user_name, password, peer, tls: false, certificate: None, enhanced: None }
}

fn judge(gate: &Gatekeeper, made: &profile::Credentials) -> Result<Principal, ConnectReason> {
    let attempt = attempt(&made.client_id, Some(&made.user_name), Some(made.password.as_bytes()));
    match gate.authenticate(&attempt, NOW, [9; 32]) {
        Verdict::Granted { principal, .. } => Ok(principal),
        Verdict::Refused(reason) => Err(reason),
        Verdict::Challenge { .. } => panic!("no method was named"),
    }
}

fn count(gate: &Gatekeeper, refusal: Refusal) -> u64 {
    gate.refusals().find(|(known, _)| *known == refusal).map_or(0, |(_, count)| count)
}

#[test]
fn each_refusal_has_its_code_and_its_count() {
    let gate = gate();
    let native =
        |device: &str, secret: &Secret, ms: u64, nonce: &str| profile::native("p", device, secret, "c", ms, nonce);
    let other = Secret::new(b"another secret").expect("long enough");
    let stale = NOW.unix_ms - WINDOW_MS - 1;
    for (made, expected, refusal) in [
        (native("d", &secret(), NOW.unix_ms, "1"), Ok(principal("p", "d")), None),
        (
            native("d", &secret(), NOW.unix_ms, "1"),
            Err(ConnectReason::BadUserNameOrPassword),
            Some(Refusal::NonceReused),
        ),
        (native("d", &secret(), stale, "2"), Err(ConnectReason::BadUserNameOrPassword), Some(Refusal::StaleTimestamp)),
        (
            native("d", &other, NOW.unix_ms, "3"),
            Err(ConnectReason::BadUserNameOrPassword),
            Some(Refusal::WrongSignature),
        ),
        (native("x", &secret(), NOW.unix_ms, "4"), Err(ConnectReason::BadUserNameOrPassword), Some(Refusal::Unknown)),
        (native("off", &secret(), NOW.unix_ms, "5"), Err(ConnectReason::NotAuthorized), Some(Refusal::Disabled)),
        (
            native("off", &other, NOW.unix_ms, "6"),
            Err(ConnectReason::BadUserNameOrPassword),
            Some(Refusal::WrongSignature),
        ),
        (profile::aliyun("p", "d", &secret(), "i", SignMethod::Sha256, None), Ok(principal("p", "d")), None),
        (
            profile::aliyun("p", "d", &other, "i", SignMethod::Sha256, None),
            Err(ConnectReason::BadUserNameOrPassword),
            Some(Refusal::WrongSignature),
        ),
    ] {
        let before = refusal.map(|refusal| count(&gate, refusal));
        assert_eq!(judge(&gate, &made), expected, "{}", made.user_name);
        assert_eq!(refusal.map(|refusal| count(&gate, refusal)), before.map(|count| count + 1));
    }
    for (user_name, password) in
        [(None, None), (Some("p/d"), None), (None, Some(&b"x"[..])), (Some("p/d"), Some(&b"x"[..]))]
    {
        let verdict = gate.authenticate(&attempt("c", user_name, password), NOW, [0; 32]);
        assert!(matches!(verdict, Verdict::Refused(ConnectReason::BadUserNameOrPassword)));
    }
}

#[test]
fn a_strangers_attempt_uses_up_no_nonce() {
    let gate = gate();
    let other = Secret::new(b"another secret").expect("long enough");
    assert!(judge(&gate, &profile::native("p", "d", &other, "c", NOW.unix_ms, "n")).is_err());
    assert!(judge(&gate, &profile::native("p", "d", &secret(), "c", NOW.unix_ms, "n")).is_ok());
}

#[test]
fn a_challenge_lets_in_who_knows_the_secret() {
    let gate = gate();
    let attempt = Attempt { enhanced: Some((METHOD, b"")), ..attempt("c", Some("p/d"), None) };
    let Verdict::Challenge { data, state } = gate.authenticate(&attempt, NOW, [3; 32]) else { panic!("a challenge") };
    let right = profile::answer(&secret(), "c", "p", "d", &data);
    assert!(matches!(gate.proceed(&attempt, &state, right.as_bytes(), NOW), Verdict::Granted { .. }));
    for wrong in [&b""[..], b"x", &[0; 32], &[b'0'; 64]] {
        assert!(matches!(
            gate.proceed(&attempt, &state, wrong, NOW),
            Verdict::Refused(ConnectReason::BadUserNameOrPassword)
        ));
    }
    let attempt = Attempt { enhanced: Some(("SCRAM", b"")), ..attempt };
    let verdict = gate.authenticate(&attempt, NOW, [3; 32]);
    assert!(matches!(verdict, Verdict::Refused(ConnectReason::BadAuthenticationMethod)));
}

#[test]
fn another_master_key_opens_nothing() {
    let gate = gate();
    let other = Gatekeeper::new(Arc::clone(gate.registry()), MasterKey::new([8; 32]), 10);
    let made = profile::aliyun("p", "d", &secret(), "i", SignMethod::Sha256, None);
    assert_eq!(judge(&other, &made), Err(ConnectReason::ServerUnavailable));
    assert_eq!(count(&other, Refusal::SecretSealed), 1);
}

#[test]
fn records_come_back_as_they_were() {
    let gate = gate();
    let registry = Registry::new();
    let key = ProductKey::parse("p").expect("a name");
    let mut changes = vec![Change::PutProduct(key.clone(), gate.registry().product("p").expect("there"))];
    for (name, device) in gate.registry().devices("p", None, 10) {
        changes.insert(0, Change::PutDevice(key.clone(), name, device));
    }
    changes.push(Change::Mark("demo".into()));
    for change in &changes {
        let turnpike_core::durable::Op::RegistryPut(key, value) = change.op() else { panic!("a put") };
        registry.load(&key, &value).expect("a record");
        assert!(registry.load(&key, &[9]).is_err());
        assert!(registry.load(&key, &[]).is_err());
    }
    assert_eq!(registry.devices("p", None, 10), gate.registry().devices("p", None, 10));
    assert_eq!(registry.devices("p", Some("d"), 10).len(), 1);
    assert!(registry.is_marked("demo") && !registry.is_marked("other"));
    assert!(registry.is_enabled("p", "d") && !registry.is_enabled("p", "off") && !registry.is_enabled("q", "d"));
}
