use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::nonce::{Holder, Nonces, Use};
use crate::people::Change;
use crate::people::apps::TokenRules;
use crate::people::plan::{AppRequest, PlanError, ServiceRequest};
use crate::people::tests::{NOW_S, World, access_key, app_id, key, making, user};
use crate::signed::sign;

const NOW: Now = Now { mono_ms: 5, unix_ms: NOW_S * 1000 };

fn secret() -> Secret {
    Secret::new(b"0123456789abcdef0123456789abcdef").expect("long enough")
}

/// The app `a` with a secret and the user `o`, the service `s` with the same from `10.0.0.0/8`.
struct Door {
    world: World,
    nonces: Nonces,
}

fn door() -> Door {
    let mut world = World::new();
    world.put_app("a", AppRequest { secret: Some(secret()), ..AppRequest::default() });
    let networks = Some(vec!["10.0.0.0/8".parse().expect("a network")]);
    world.put_service("s", ServiceRequest { secret: Some(secret()), networks, ..ServiceRequest::default() });
    Door { world, nonces: Nonces::new(1000) }
}

impl Door {
    fn log_in_from(
        &self,
        peer: [u8; 4],
        tls: bool,
        user_name: &str,
        password: &[u8],
        now: Now,
    ) -> Result<Admission, Refusal> {
        let attempt = Attempt {
            client_id: "c",
            user_name: Some(user_name),
            password: Some(password),
            peer: SocketAddr::from((peer, 1)),
            tls,
            certificate: None,
            enhanced: None,
        };
        let (key, decoy) = (key(), Secret::new(&[b'd'; 32]).expect("long enough"));
        let take_nonce = |key: &str, nonce: &str, until_ms| {
            let holder = Holder { product: SERVICE_PRODUCT, device: key, share: None };
            match self.nonces.take(holder, nonce, until_ms, now.mono_ms) {
                Use::First { .. } => Ok(()),
                Use::Again => Err(Refusal::NonceReused),
                Use::Full | Use::OverShare => Err(Refusal::NoncesFull),
            }
        };
        let tools = Tools { key: &key, decoy: &decoy, take_nonce: &take_nonce };
        let claim = Claim::parse(user_name, password).expect("a user's or a service's");
        self.world.people.log_in(&claim, &attempt, &tools, now)
    }

    fn log_in(&self, user_name: &str, password: &str) -> Result<Admission, Refusal> {
        self.log_in_from([10, 0, 0, 1], true, user_name, password.as_bytes(), NOW)
    }

    fn issue(&mut self, ttl_s: u32, random: u8) -> crate::people::plan::Issued {
        let issued = self.world.people.plan_issue_code(&user("a", "o"), ttl_s, [random; 32], NOW_S).expect("a user");
        self.world.run(issued.change.clone());
        issued
    }
}

fn token(by: &Secret, sub: &str, aud: &str) -> String {
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({ "sub": sub, "aud": aud, "exp": NOW_S + 60 });
    let signed = format!("{}.{}", part(json!({ "alg": "HS256" })), part(claims));
    let signature = sign(SignMethod::Sha256, by.expose(), &signed);
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn signed(by: &Secret, key: &str, timestamp_ms: u64, nonce: &str) -> String {
    let signature = sign(SignMethod::Sha256, by.expose(), native_text("c", "$svc", key, timestamp_ms, nonce));
    format!("v1;{timestamp_ms};{nonce};{}", hex::encode(signature))
}

#[test]
fn a_token_with_an_unknown_key_has_the_set_fetched_and_is_told_to_come_again() {
    let mut door = door();
    let with_keys = |keys: KeySource| {
        let tokens = Some(TokenRules { keys, ..TokenRules::default() });
        AppRequest { secret: Some(secret()), tokens, ..AppRequest::default() }
    };
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let token = |header: Value| {
        format!("{}.{}.{}", part(header), part(json!({ "sub": "o", "aud": "a", "exp": NOW_S + 60 })), part(json!("x")))
    };
    let named = token(json!({ "alg": "EdDSA", "kid": "new" }));
    assert_eq!(door.log_in("a/o", &named).map(drop), Err(Refusal::UnknownTokenKey), "there is nothing to fetch");
    let url = KeySource::Url("https://id.example/keys".into());
    door.world.put_app("a", with_keys(url.clone()));
    let desk = |door: &Door, now_ms| door.world.people.key_desk().take_due(std::slice::from_ref(&url), 9, now_ms);
    assert_eq!(desk(&door, 0).len(), 1);
    door.world.people.key_desk().done(&url, true, 1);
    assert_eq!(door.log_in("a/o", &named).map(drop), Err(Refusal::KeysAwaited));
    assert_eq!(desk(&door, NOW.mono_ms), std::slice::from_ref(&url));
    door.world.people.key_desk().done(&url, true, NOW.mono_ms);
    assert_eq!(door.log_in("a/o", &named).map(drop), Err(Refusal::UnknownTokenKey), "not so soon again");
    for header in [json!({ "alg": "EdDSA" }), json!({ "alg": "none", "kid": "new" })] {
        assert_eq!(door.log_in("a/o", &token(header)).map(drop), Err(Refusal::UnknownTokenKey));
    }
    assert!(desk(&door, NOW.mono_ms).is_empty());
}

#[test]
fn a_user_comes_in_with_a_token_of_the_app() {
    let mut door = door();
    let right = token(&secret(), "o", "a");
    let admission = door.log_in("a/o", &right).expect("right");
    let Principal::User(identity) = &admission.principal else { panic!("a user") };
    assert_eq!((&*identity.app, &*identity.user, matches!(identity.by, Some(CameBy::Key(_)))), ("a", "o", true));
    assert_eq!(admission.until_ms, Some((NOW_S + 90) * 1000), "the token's end and the leeway");
    let other = Secret::new(&[b'x'; 32]).expect("long enough");
    for (user_name, token, refusal) in [
        ("a/o", token(&other, "o", "a"), Refusal::WrongSignature),
        ("a/c", right.clone(), Refusal::ForeignToken),
        ("a/o", token(&secret(), "o", "b"), Refusal::ForeignToken),
        ("a/nobody", token(&secret(), "nobody", "a"), Refusal::UnknownUser),
        ("b/o", right.clone(), Refusal::UnknownApp),
        ("a/o/x", right.clone(), Refusal::ForeignToken),
        ("/", right.clone(), Refusal::UnknownApp),
        ("a/o", "eyJ9.e30.".to_owned(), Refusal::Malformed),
    ] {
        assert_eq!(door.log_in(user_name, &token).err(), Some(refusal), "{user_name}");
    }
    let late = Now { unix_ms: (NOW_S + 90) * 1000, ..NOW };
    let outcome = door.log_in_from([10, 0, 0, 1], true, "a/o", right.as_bytes(), late);
    assert_eq!(outcome.err(), Some(Refusal::TokenExpired));
    // Who is frozen or cut off proves who it is first.
    let change = door.world.people.plan_freeze_user(&user("a", "o"), true).expect("there");
    door.world.run(change);
    assert_eq!(door.log_in("a/o", &right).err(), Some(Refusal::Disabled));
    door.world.put_app("a", AppRequest { enabled: Some(false), ..AppRequest::default() });
    assert_eq!(door.log_in("a/c", &token(&secret(), "c", "a")).err(), Some(Refusal::Disabled));
    assert_eq!(door.log_in("a/c", &token(&other, "c", "a")).err(), Some(Refusal::WrongSignature));
    let rules = TokenRules { hs256: false, ..TokenRules::default() };
    door.world.put_app("a", AppRequest { enabled: Some(true), tokens: Some(rules), ..AppRequest::default() });
    assert_eq!(door.log_in("a/c", &token(&secret(), "c", "a")).err(), Some(Refusal::UnknownTokenKey));
}

#[test]
fn a_session_code_opens_until_it_ends_or_is_taken_back() {
    let mut door = door();
    let issued = door.issue(60, 1);
    let text = issued.code.expose().to_owned();
    assert_eq!((text.len(), issued.expires_at_s), (46, NOW_S + 60));
    let admission = door.log_in("a/o", &text).expect("right");
    assert_eq!(admission.until_ms, Some((NOW_S + 60) * 1000));
    let Principal::User(identity) = &admission.principal else { panic!("a user") };
    assert_eq!(identity.by, Some(CameBy::Code(issued.number)));
    assert!(door.world.people.is_user_welcome(identity));
    assert!(door.world.reloaded().is_user_welcome(identity));
    for (user_name, code) in
        [("a/c", text.as_str()), ("b/o", &text), ("a/o", "c1;"), ("a/o", "c1;xxx"), ("a/o", &text[..45])]
    {
        assert_eq!(door.log_in(user_name, code).err(), Some(Refusal::UnknownCode), "{user_name} {code}");
    }
    let late = Now { unix_ms: (NOW_S + 60) * 1000, ..NOW };
    let outcome = door.log_in_from([10, 0, 0, 1], true, "a/o", text.as_bytes(), late);
    assert_eq!(outcome.err(), Some(Refusal::UnknownCode));

    let second = door.issue(1000, 2);
    assert_eq!(door.world.people.codes(&user("a", "o")).len(), 2);
    let changes = door.world.people.plan_revoke_codes(&user("a", "o"), Some(issued.number));
    assert_eq!(changes[0].concerns(), [turnpike_core::concern::Concern::user("a", "o")]);
    door.world.run_all(changes);
    assert!(!door.world.people.is_user_welcome(identity), "who came in by it is out");
    assert_eq!(door.log_in("a/o", &text).err(), Some(Refusal::UnknownCode));
    assert!(door.log_in("a/o", second.code.expose()).is_ok());
    // It ends, is swept up, and nothing is left.
    assert_eq!(door.world.people.next_expiry_s(), Some(NOW_S + 1000));
    let _ = door.world.people.advance(NOW_S + 1000, 10);
    let changes = door.world.people.plan_expire(10);
    door.world.run_all(changes);
    assert!(door.world.people.codes(&user("a", "o")).is_empty() && door.world.people.next_expiry_s().is_none());
    // A deleted user's codes go along.
    let third = door.issue(86_400, 3);
    let changes = door.world.people.plan_delete_user(&user("a", "o")).expect("there");
    door.world.run_all(changes);
    assert_eq!(door.log_in("a/o", third.code.expose()).err(), Some(Refusal::UnknownCode));
    assert!(door.world.reloaded().codes(&user("a", "o")).is_empty());
}

#[test]
fn codes_are_bounded_and_of_users_who_are_there() {
    let mut door = door();
    let issue = |door: &Door, ttl_s| {
        door.world.people.plan_issue_code(&user("a", "o"), ttl_s, [9; 32], NOW_S).map(|issued| issued.number)
    };
    assert_eq!((issue(&door, 0), issue(&door, 86_401)), (Err(PlanError::TooMuch), Err(PlanError::TooMuch)));
    for n in 0..20 {
        door.issue(60, n);
    }
    assert_eq!(issue(&door, 60), Err(PlanError::TooMuch));
    let nobody = door.world.people.plan_issue_code(&user("a", "nobody"), 60, [9; 32], NOW_S);
    assert_eq!(nobody.map(drop), Err(PlanError::NoSuchUser));
    let printed = format!("{:?}", door.issue_debug());
    assert!(!printed.contains("c1;"), "{printed}");
}

impl Door {
    fn issue_debug(&self) -> crate::people::plan::Issued {
        self.world.people.plan_issue_code(&user("a", "c"), 60, [9; 32], NOW_S).expect("a user")
    }
}

#[test]
fn a_service_signs_or_says_its_secret_through_tls() {
    let mut door = door();
    let other = Secret::new(&[b'x'; 32]).expect("long enough");
    let plain = std::str::from_utf8(secret().expose()).expect("ASCII").to_owned();
    let ms = NOW.unix_ms;
    let from = |door: &Door, peer, tls, password: &str| {
        let admission = door.log_in_from(peer, tls, "$svc/s", password.as_bytes(), NOW)?;
        let Principal::Service(identity) = &admission.principal else { panic!("a service") };
        assert_eq!((&*identity.key, admission.until_ms), ("s", None));
        Ok::<_, Refusal>(())
    };
    const INSIDE: [u8; 4] = [10, 9, 8, 7];
    assert_eq!(from(&door, INSIDE, false, &signed(&secret(), "s", ms, "1")), Ok(()));
    assert_eq!(from(&door, INSIDE, false, &signed(&secret(), "s", ms, "1")), Err(Refusal::NonceReused));
    assert_eq!(from(&door, INSIDE, true, &plain), Ok(()));
    assert_eq!(from(&door, INSIDE, false, &plain), Err(Refusal::PlainSecret));
    for (password, refusal) in [
        (signed(&other, "s", ms, "2"), Refusal::WrongSignature),
        (signed(&secret(), "t", ms, "2"), Refusal::WrongSignature),
        (signed(&secret(), "s", ms + WINDOW_MS + 1, "2"), Refusal::StaleTimestamp),
        ("x".to_owned(), Refusal::WrongSignature),
        (String::new(), Refusal::WrongSignature),
        ("v1;x;y;z".to_owned(), Refusal::WrongSignature),
        (plain[..31].to_owned(), Refusal::WrongSignature),
    ] {
        assert_eq!(from(&door, INSIDE, true, &password), Err(refusal), "{password}");
    }
    let outside = [11, 9, 8, 7];
    assert_eq!(from(&door, outside, true, &plain), Err(Refusal::WrongNetwork));
    assert_eq!(from(&door, outside, true, "x"), Err(Refusal::WrongSignature), "said to those alone who know it");
    let unknown = door.log_in("$svc/t", &signed(&secret(), "t", ms, "3"));
    assert_eq!(unknown.err(), Some(Refusal::UnknownService));
    door.world.put_service("s", ServiceRequest { enabled: Some(false), ..ServiceRequest::default() });
    assert_eq!(from(&door, INSIDE, true, &plain), Err(Refusal::Disabled));
    let made = door.world.people.plan_put_service(
        &access_key("s"),
        ServiceRequest { renew_secret: true, enabled: Some(true), ..ServiceRequest::default() },
        &making(&key()),
    );
    let made = made.expect("a plan");
    door.world.run(made.change);
    assert_eq!(from(&door, INSIDE, true, &plain), Err(Refusal::WrongSignature), "the old secret is void");
    let renewed = made.secret.expect("renewed");
    assert_eq!(from(&door, INSIDE, true, std::str::from_utf8(renewed.expose()).expect("ASCII")), Ok(()));
}

#[test]
fn what_a_device_sends_is_no_user_and_no_service() {
    let device = crate::credential::native("p", "d", &secret(), "c", NOW.unix_ms, "1");
    let aliyun = crate::credential::aliyun("p", "d", &secret(), "i", SignMethod::Sha256, None);
    for made in [device, aliyun] {
        assert_eq!(Claim::parse(&made.user_name, made.password.as_bytes()), None);
    }
    // Tencent, tuya, azure, gizwits.
    for (user_name, password) in [
        ("PD;12010126;abcde;1795231053", "0123456789abcdef0123456789abcdef01234567;hmacsha1"),
        ("id|signMethod=hmacSha256,timestamp=1,secureMode=1,accessType=1", "0123abcd"),
        ("hub/device/?api-version=2021-04-12", "SharedAccessSignature sr=a&sig=b%2Fc.d.e&se=1"),
        ("abcdefghijklmnopqrstuv", "ABCDEFGHIJ"),
        ("p/d", ""),
        ("p/d", "ey.."),
        ("p/d", "eyJ.e30"),
    ] {
        assert_eq!(Claim::parse(user_name, password.as_bytes()), None, "{user_name}");
    }
}

#[test]
fn the_gate_knows_devices_users_and_services() {
    use turnpike_core::feed::Feed;
    use turnpike_core::gate::{DeviceIdentity, Gate, Verdict};
    use turnpike_mqtt::{ConnectReason, TopicFilter, TopicName};
    let mut door = door();
    let d = crate::people::tests::device("p", "d");
    door.world.bind(&d, &user("a", "o"));
    let code = door.issue(60, 1).code;
    let gate = crate::Gatekeeper::new(Arc::default(), key(), 10).with_people(Arc::clone(&door.world.people));
    let log_in = |user_name: &str, password: &[u8], peer: [u8; 4]| {
        let attempt = Attempt {
            client_id: "c",
            user_name: Some(user_name),
            password: Some(password),
            peer: SocketAddr::from((peer, 1)),
            tls: true,
            certificate: None,
            enhanced: None,
        };
        match gate.authenticate(&attempt, NOW, [0; 32]) {
            Verdict::Granted(admission) => Ok(admission.principal),
            Verdict::Refused(reason, _) => Err(reason),
            Verdict::Challenge { .. } | Verdict::Pending(_) | Verdict::Dismissed(_) => panic!("no method was named"),
        }
    };
    let o = log_in("a/o", code.expose().as_bytes(), [10, 0, 0, 1]).expect("right");
    let s = log_in("$svc/s", secret().expose(), [10, 0, 0, 1]).expect("right");
    assert_eq!(log_in("a/c", code.expose().as_bytes(), [10, 0, 0, 1]), Err(ConnectReason::BadUserNameOrPassword));
    assert_eq!(log_in("$svc/s", secret().expose(), [11, 0, 0, 1]), Err(ConnectReason::NotAuthorized));
    let topic = |text: &'static str| TopicName::parse(text).expect("a topic");
    let filter = |text: &'static str| TopicFilter::parse(text).expect("a filter");
    assert!(gate.may_publish(&o, topic("dev/p/d/down/x")) && !gate.may_publish(&s, topic("dev/p/d/down/x")));
    assert!(gate.may_subscribe(&o, filter("user/a:o/#")) && !gate.may_subscribe(&s, filter("dev/p/+/up/#")));
    assert!(gate.still_welcome(&o) && gate.still_welcome(&s));
    assert!(gate.still_welcome_from(&s, Some(SocketAddr::from(([10, 0, 0, 1], 1)))));
    assert!(!gate.still_welcome_from(&s, Some(SocketAddr::from(([11, 0, 0, 1], 1)))));
    let device = |name: &str| Principal::Device(Arc::new(DeviceIdentity::new("p", name)));
    assert!(gate.has_feed(&device("d")) && !gate.has_feed(&device("e")) && !gate.has_feed(&o));
    let mut feed = Feed::default();
    gate.feed(&device("d"), topic("dev/p/d/up/x"), &mut feed);
    assert_eq!(feed.topics().collect::<Vec<_>>(), [topic("user/a:o/dev/p/d/up/x")]);
    door.world.run_all(door.world.people.plan_revoke_codes(&user("a", "o"), None));
    assert!(!gate.still_welcome(&o) && gate.still_welcome(&s));
}

#[test]
fn keys_come_with_the_app_or_from_where_it_says() {
    use crate::people::apps::KeySource;
    let mut door = door();
    let set = |x: &str| format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","x":"{x}"}}]}}"#);
    let document = set("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
    let request =
        |keys| AppRequest { tokens: Some(TokenRules { keys, ..TokenRules::default() }), ..AppRequest::default() };
    let bad = request(KeySource::Document("{}".into()));
    let bad = door.world.people.plan_put_app(&app_id("a"), bad, &making(&key()));
    assert_eq!(bad.map(drop), Err(PlanError::BadKeys));
    door.world.put_app("a", request(KeySource::Document(document.as_str().into())));
    assert!(door.world.people.apps.keys("a").is_some() && door.world.reloaded().apps.keys("a").is_some());
    assert!(door.world.people.key_sources().is_empty());
    let url = KeySource::Url("https://issuer.example/jwks".into());
    door.world.put_app("a", request(url.clone()));
    assert!(door.world.people.apps.keys("a").is_none(), "those of another source are void");
    assert_eq!(door.world.people.key_sources(), [(app_id("a"), url)]);
    let keys = crate::people::jwks::KeySet::parse(&document).expect("a key");
    door.world.people.set_keys(app_id("a"), keys.clone());
    door.world.put_app("a", AppRequest { users_max: Some(7), ..AppRequest::default() });
    assert!(door.world.people.apps.keys("a").is_some(), "a change of something else keeps them");
    door.world.run(Change::DeleteApp(app_id("a")));
    door.world.people.set_keys(app_id("a"), keys);
    assert!(door.world.people.apps.keys("a").is_none());
}

#[test]
fn a_log_in_is_remembered_exported_and_forgotten() {
    let mut door = door();
    let (o, c) = (user("a", "o"), user("a", "c"));
    let d = crate::people::tests::device("p", "d");
    door.world.bind(&d, &o);
    door.world.share(&d, &c, crate::people::bindings::Role::View, Some(1_800_000_000));
    let issued = door.issue(60, 1);
    assert!(door.log_in("a/o", issued.code.expose()).is_ok());
    assert!(door.log_in("a/o", &token(&secret(), "o", "a")).is_ok());
    assert!(door.log_in("a/o", &token(&secret(), "c", "a")).is_err());
    let people = Arc::clone(&door.world.people);
    let log_ins = people.log_ins(&o);
    assert_eq!(log_ins.iter().map(|log_in| log_in.proof).collect::<Vec<_>>(), [Proof::Token, Proof::Code]);
    assert_eq!((people.places(&o).len(), people.take_new_places(10).len()), (1, 1));
    for change in people.take_log_ins(10) {
        door.world.commit(&change);
    }
    assert_eq!(door.world.reloaded().log_ins(&o), log_ins);

    let exported = people.export_user(&o).expect("registered");
    assert_eq!(exported["user"], "a:o");
    assert_eq!(
        exported["devices"],
        json!([{ "product": "p", "device": "d", "role": "owner", "expires_at": null, "by": "owner" }])
    );
    assert_eq!(exported["shares_given"][0]["user"], "a:c");
    assert_eq!(exported["shares_given"][0]["expires_at"], 1_800_000_000);
    assert_eq!(exported["log_ins"][1], json!({ "at": NOW_S, "address": "10.0.0.1", "client_id": "c", "by": "code" }));
    assert_eq!(exported["session_codes"][0]["expires_at"], NOW_S + 60);
    assert!(!exported.to_string().contains(&issued.code.expose()[3..]), "no secret in it");
    assert_eq!(people.export_user(&c).expect("registered")["shares_given"], json!([]));
    assert_eq!(people.export_user(&user("a", "nobody")), None);

    let changes = people.plan_delete_user(&o).expect("there");
    door.world.run_all(changes);
    for people in [&*people, &door.world.reloaded()] {
        assert!(people.log_ins(&o).is_empty() && people.export_user(&o).is_none() && people.codes(&o).is_empty());
        assert!(people.bindings().users_of(&d).is_empty());
    }
}

proptest! {
    #[test]
    fn no_credentials_panic_or_get_in(
        user_name in "\\PC{0,12}|a/o|\\$svc/(s|t)?|[a-z/$]{0,8}",
        bytes in proptest::collection::vec(any::<u8>(), 0..90),
        text in "c1;[A-Za-z0-9_-]{0,44}|v1;1700000000000;[a-f;]{1,4};[0-9a-f]{0,64}|ey[A-Za-z0-9._-]{0,60}|\\PC{0,30}",
        tls in any::<bool>(),
    ) {
        let door = door();
        for password in [&bytes[..], text.as_bytes()] {
            if Claim::parse(&user_name, password).is_some() {
                prop_assert!(door.log_in_from([10, 0, 0, 1], tls, &user_name, password, NOW).is_err());
            }
        }
    }
}

#[test]
fn who_came_in_by_a_key_that_the_app_gives_up_is_welcome_no_more() {
    let mut door = door();
    let pair = ring::signature::Ed25519KeyPair::from_seed_unchecked(&[3; 32]).expect("a seed");
    let x = URL_SAFE_NO_PAD.encode(ring::signature::KeyPair::public_key(&pair).as_ref());
    let set =
        |x: &str| KeySource::Document(format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","x":"{x}"}}]}}"#).into());
    let rules = |hs256, keys| AppRequest {
        tokens: Some(TokenRules { hs256, keys, ..TokenRules::default() }),
        ..AppRequest::default()
    };
    door.world.put_app("a", rules(true, set(&x)));
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({ "sub": "o", "aud": "a", "exp": NOW_S + 60 });
    let text = format!("{}.{}", part(json!({ "alg": "EdDSA" })), part(claims));
    let by_key = format!("{text}.{}", URL_SAFE_NO_PAD.encode(pair.sign(text.as_bytes())));
    let identity = |door: &Door, token: &str| match door.log_in("a/o", token).expect("right").principal {
        Principal::User(identity) => identity,
        other => panic!("{other:?}"),
    };
    let (signed, shared) = (identity(&door, &by_key), identity(&door, &token(&secret(), "o", "a")));
    let welcome = |door: &Door| [&signed, &shared].map(|who| door.world.people.is_user_welcome(who));
    assert_eq!(welcome(&door), [true, true]);
    door.world.put_app("a", rules(true, set(&URL_SAFE_NO_PAD.encode([9; 32]))));
    assert_eq!(welcome(&door), [false, true], "the key is another's");
    door.world.put_app("a", rules(true, set(&x)));
    assert_eq!(welcome(&door), [true, true]);
    door.world.put_app("a", rules(false, set(&x)));
    assert_eq!(welcome(&door), [true, false], "the secret signs no tokens any more");
    let other = Secret::new(&[b'x'; 32]).expect("long enough");
    door.world.put_app("a", AppRequest { secret: Some(other), ..rules(true, KeySource::None) });
    assert_eq!(welcome(&door), [false, false], "it is another secret");
}
