//! What is a request, whose it is, and whether it is asked once.

use proptest::prelude::*;

use super::*;
use crate::quota::RequestLimits;

/// A request of each kind, but for what all have.
fn examples() -> Vec<(Operation, Vec<(&'static str, Value)>)> {
    let token = || text(&format!("{}{}", "0123456789abcdef", "Aa0-".repeat(12)));
    let access = || ("access_token", token());
    let user = || ("user", text(&"ab".repeat(32)));
    let device = || [("product", text("lamp")), ("device", text("one"))];
    let message = |payload: &str| {
        [
            ("topic", text("set/power")),
            ("qos", Value::Number(1)),
            ("expires_s", Value::Number(60)),
            ("payload", text(payload)),
        ]
    };
    vec![
        (Operation::LogIn, vec![]),
        (Operation::Refresh, vec![("refresh_token", token())]),
        (Operation::LogOut, vec![access()]),
        (Operation::UserLogIn, vec![access(), user()]),
        (Operation::UserLogOut, vec![access(), user()]),
        (
            Operation::ListDevices,
            vec![access(), ("product", text("lamp")), ("after", text("")), ("limit", Value::Number(100))],
        ),
        (Operation::DeviceStatus, [&[access()][..], &device()].concat()),
        (Operation::ControlDevice, [&[access()][..], &device(), &message("aGVsbG8=")].concat()),
        (
            Operation::ControlForUser,
            [&[access(), user()][..], &device(), &message("AAAAAAAAAAAAAAAAAAAAAAE=")].concat(),
        ),
        (Operation::StateForUser, [&[access(), user()][..], &device(), &[("topic", text("state"))]].concat()),
    ]
}

fn head() -> Vec<(&'static str, Value)> {
    vec![
        ("plat_id", Value::Number(PlatId::LEAST)),
        ("timestamp", Value::Number(START_MS)),
        ("nonce", text(&"0f".repeat(16))),
        ("sign", text(&"0f".repeat(32))),
    ]
}

fn read(operation: Operation, fields: &[(&str, Value)]) -> Result<Request, Cause> {
    let mut all = Fields::new();
    for (name, value) in fields {
        all.put(name, value.clone())?;
    }
    Request::read(operation, Method::Post, all)
}

#[test]
fn each_request_has_its_fields_and_no_others() {
    for (operation, own) in examples() {
        let whole = [head(), own].concat();
        assert!(read(operation, &whole).is_ok(), "{operation:?}");
        assert_eq!(Operation::at(operation.path()), Some(operation));
        for (index, (name, value)) in whole.iter().enumerate() {
            let mut without = whole.clone();
            without.remove(index);
            assert_eq!(read(operation, &without).err(), Some(Cause::Malformed), "{operation:?} without {name}");
            let mut other = whole.clone();
            // Of the other type, and what a careless parser would take all the same.
            other[index].1 = match value {
                Value::Number(number) => text(&number.to_string()),
                Value::Text(_) => Value::Number(1),
            };
            assert_eq!(read(operation, &other).err(), Some(Cause::Malformed), "{operation:?}, type of {name}");
        }
        let more = [&whole[..], &[("more", text("x"))]].concat();
        assert_eq!(read(operation, &more).err(), Some(Cause::Malformed), "{operation:?} with an unknown field");
    }
    assert_eq!(examples().len(), Operation::ALL.len());
    assert_eq!(Operation::at("/platform/v1/login/"), None);
}

#[test]
fn each_field_is_held_to_its_range_and_characters() {
    let long = "x".repeat(129);
    let too_much = {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.encode(vec![0; PAYLOAD_BYTES_MAX + IV_BYTES + 1])
    };
    let bad: Vec<(&str, Value)> = vec![
        ("plat_id", Value::Number(PlatId::LEAST - 1)),
        ("plat_id", Value::Number(u64::MAX)),
        ("nonce", text(&"0F".repeat(16))),
        ("nonce", text(&"0f".repeat(17))),
        ("sign", text(&"0g".repeat(32))),
        ("sign", text(&"0f".repeat(31))),
        ("access_token", text("short")),
        ("access_token", text(&"/".repeat(64))),
        ("user", text("+8613800138000")),
        ("product", text("la/mp")),
        ("product", text("")),
        ("device", text("+")),
        ("device", text(&"d".repeat(65))),
        ("topic", text("")),
        ("topic", text("a//b")),
        ("topic", text("#")),
        ("topic", text("a/+")),
        ("topic", text("../up")),
        ("topic", text("a b")),
        ("topic", text(&long)),
        ("qos", Value::Number(2)),
        ("expires_s", Value::Number(0)),
        ("expires_s", Value::Number(604_801)),
        ("payload", text("aGVsbG8")),
        ("payload", text("not base64!")),
        ("payload", text(&too_much)),
        ("limit", Value::Number(0)),
        ("limit", Value::Number(101)),
        ("after", text("a/b")),
    ];
    // `..` is a level of allowed characters, and harmless: topics aren't paths.
    for (name, value) in bad.into_iter().filter(|(_, value)| *value != text("../up")) {
        let mut tried = 0;
        for (operation, own) in examples() {
            let mut fields = [head(), own].concat();
            let Some(field) = fields.iter_mut().find(|(known, _)| *known == name) else { continue };
            field.1 = value.clone();
            assert_eq!(read(operation, &fields).err(), Some(Cause::Malformed), "{operation:?}, {name}");
            tried += 1;
        }
        assert!(tried > 0, "{name} is of some request");
    }
    let short = "AAAAAAAAAAAAAAAAAAAA";
    let (operation, mut own) = examples().remove(8);
    own.last_mut().expect("a payload").1 = text(short);
    assert_eq!(read(operation, &[head(), own].concat()).err(), Some(Cause::Malformed), "no room for an IV");
}

#[test]
fn number_certificate_and_signature_must_fit_together_and_nobody_hears_which_does_not() {
    let world = World::new();
    let now = at(0);
    let refused = |request: &Request, certificate: &Leaf| {
        let refused = world.platforms.admit(request, certificate, &world.quotas, now).expect_err("refused");
        assert_eq!((refused.cause.code(), refused.platform), (Code::Identity, None));
        refused.cause
    };
    let request = || world.request(Operation::LogIn, &[], now);
    assert_eq!(refused(&request(), &leaf(b"two", 730)), Cause::WrongCertificate);
    assert_eq!(refused(&request(), &leaf(b"one", 800)), Cause::LongCertificate);
    assert_eq!(refused(&request(), &leaf(b"one", 0)), Cause::ExpiredCertificate);
    let mut other = request();
    other.platform = PlatId::new(PlatId::LEAST).expect("a number");
    assert_eq!(refused(&other, &world.certificate), Cause::UnknownPlatform);
    let mut other = request();
    other.signature[31] ^= 1;
    assert_eq!(refused(&other, &world.certificate), Cause::WrongSignature);
    // A signature of one request on the fields of another.
    let mut other = world.fields(Operation::LogIn, &[], now);
    other.take("nonce");
    other.put("nonce", text(&"5".repeat(32))).expect("a field");
    let altered = Request::read(Operation::LogIn, Method::Post, other).expect("a request");
    assert_eq!(refused(&altered, &world.certificate), Cause::WrongSignature);
    assert!(world.admit(&request(), now).is_ok());
}

#[test]
fn a_signature_is_for_one_path() {
    let world = World::new();
    let access = format!("{}{}", "0123456789abcdef", "Aa0-".repeat(12));
    let more = [("access_token", text(&access)), ("user", text(user(1).as_str()))];
    let fields = world.fields(Operation::UserLogIn, &more, at(0));
    let moved = Request::read(Operation::UserLogOut, Method::Post, fields).expect("the same fields");
    assert_eq!(world.admit(&moved, at(0)).expect_err("refused"), Cause::WrongSignature);
}

#[test]
fn a_request_is_good_once_and_for_ten_minutes_either_way() {
    let world = World::new();
    let request = world.request(Operation::LogIn, &[], at(WINDOW_MS));
    for (now, expected) in [
        (at(0), Ok(())),
        (at(0), Err(Cause::NonceReused)),
        (at(2 * WINDOW_MS), Err(Cause::NonceReused)),
        (at(2 * WINDOW_MS + 1), Err(Cause::StaleTimestamp)),
    ] {
        assert_eq!(world.admit(&request, now).map(drop), expected);
    }
    let early = world.request(Operation::LogIn, &[], at(WINDOW_MS + 1));
    assert_eq!(world.admit(&early, at(0)).expect_err("refused"), Cause::StaleTimestamp);
    assert!(world.admit(&early, at(1)).is_ok(), "what is refused for its time hasn't used its nonce");
}

#[test]
fn a_nonce_that_can_not_be_remembered_is_not_taken() {
    let mut world = World::new();
    world.platforms.nonces = crate::nonce::Nonces::new(1);
    let mut seen = Vec::new();
    for _ in 0..100 {
        let request = world.request(Operation::LogIn, &[], at(0));
        seen.push(world.admit(&request, at(0)).err());
    }
    assert!(seen.contains(&None) && seen.contains(&Some(Cause::NoncesFull)));
    assert_eq!(Cause::NoncesFull.code(), Code::TooMany);
}

#[test]
fn a_platform_has_so_many_requests_and_those_above_use_no_nonce() {
    let world = World::new();
    let platform = "3/1s, 4/60s".parse().expect("windows");
    let requests = RequestLimits { platform, ..RequestLimits::default() };
    world.quotas.set(Settings { requests, ..Settings::default() });
    let request = || world.request(Operation::LogIn, &[], at(0));
    let admitted = |now| (0..20).filter(|_| world.admit(&request(), now).is_ok()).count();
    for _ in 0..20 {
        let mut forged = request();
        forged.signature = [0; 32];
        assert_eq!(world.admit(&forged, at(0)).expect_err("refused"), Cause::WrongSignature, "and not at its cost");
    }
    assert_eq!(admitted(at(0)), 3);
    let later = request();
    let refused = world.platforms.admit(&later, &world.certificate, &world.quotas, at(0)).expect_err("refused");
    assert_eq!((refused.cause.code(), refused.platform), (Code::TooMany, Some(world.id)));
    assert!(world.admit(&later, at(3000)).is_ok(), "its nonce is good still");
    assert_eq!(admitted(at(6000)), 0, "the longer window");
    let Created { id, auth_token, changes } =
        world.platforms.plan_create(edit("other", b"other"), &making(2)).expect("made");
    world.apply(changes);
    let other = World { id, auth: auth_token, certificate: leaf(b"other", 730), ..world };
    let request = other.request(Operation::LogIn, &[], at(6000));
    assert!(other.admit(&request, at(6000)).is_ok(), "each has its own");
}

#[test]
fn a_disabled_platform_hears_so_only_if_it_is_the_platform() {
    let world = World::new();
    let off = Edit { enabled: Some(false), ..Edit::default() };
    world.apply(world.platforms.plan_edit(world.id, off).expect("planned"));
    let request = world.request(Operation::LogIn, &[], at(0));
    assert_eq!(world.admit(&request, at(0)).expect_err("refused"), Cause::Disabled);
    let mut forged = world.request(Operation::LogIn, &[], at(0));
    forged.signature = [0; 32];
    assert_eq!(world.admit(&forged, at(0)).expect_err("refused"), Cause::WrongSignature);
}

#[test]
fn an_answer_is_signed_for_one_request() {
    let world = World::new();
    let admitted = |n| {
        let request = world.request(Operation::LogIn, &[], at(n));
        (world.admit(&request, at(n)).expect("admitted"), request.nonce)
    };
    let ((one, nonce), (two, _)) = (admitted(0), admitted(1));
    let expected = format!("turnpike-platform-1\nanswer\n/platform/v1/login\n{nonce}\n{{}}");
    assert_eq!(one.sign(b"{}"), sign(world.auth.expose().as_bytes(), &[expected.as_bytes()]));
    assert_ne!(one.sign(b"{}"), two.sign(b"{}"));
    assert_ne!(one.sign(b"{}"), one.sign(b"{ }"));
}

/// The vector of `PLATFORM.md`.
#[test]
fn the_vector_of_the_page_for_partners() {
    let mut fields = Fields::new();
    let token = "4f1d2c3b4a596877HqzW.B6tKc~Nw0xYv-Rj9_EaLuG5dSPfMhO1iTkQ3bVZy47X";
    for (name, value) in [
        ("plat_id", Value::Number(4_503_599_627_370_496)),
        ("timestamp", Value::Number(1_800_000_000_000)),
        ("nonce", text("00112233445566778899aabbccddeeff")),
        ("access_token", text(token)),
        ("product", text("lamp")),
        ("device", text("one")),
        ("topic", text("set")),
        ("qos", Value::Number(1)),
        ("expires_s", Value::Number(60)),
        ("payload", text("eyJvbiI6dHJ1ZX0=")),
    ] {
        fields.put(name, value).expect("a field");
    }
    let canonical = fields.canonical(Method::Post, Operation::ControlDevice.path());
    let page = include_str!("../../../PLATFORM.md");
    assert!(page.contains(&canonical), "{canonical}");
    let key = b"Qm7sT2vX9cLdR4fHk0ZwB8nYpJ3gA6eU1iOxVtSMhNrCuKzE";
    let signature = sign(key, &[canonical.as_bytes()]);
    assert!(page.contains(&signature), "{signature}");
    let answer = "turnpike-platform-1\nanswer\n/platform/v1/devices/control\n00112233445566778899aabbccddeeff\n{\"code\":0,\"subscribed\":true}";
    let signature = sign(key, &[answer.as_bytes()]);
    assert!(page.contains(&signature), "{signature}");
    let key = DataKey::from_bytes(std::array::from_fn(|n| n as u8));
    let sealed = hex::encode(key.encrypt(std::array::from_fn(|n| 0xf0 + n as u8), b"{\"on\":true}"));
    assert!(page.contains(&sealed), "{sealed}");
}

proptest! {
    #[test]
    fn no_fields_panic(
        operation in 0..Operation::ALL.len(),
        fields in proptest::collection::vec(
            (
                prop_oneof![
                    Just("plat_id"), Just("timestamp"), Just("nonce"), Just("sign"), Just("access_token"), Just("refresh_token"),
                    Just("user"), Just("product"), Just("device"), Just("topic"), Just("qos"), Just("payload"), Just("limit"),
                ],
                prop_oneof![any::<u64>().prop_map(Value::Number), ".{0,70}".prop_map(|text| Value::Text(text.into()))],
            ),
            0..14,
        ),
    ) {
        let _ = read(Operation::ALL[operation], &fields);
    }
}
