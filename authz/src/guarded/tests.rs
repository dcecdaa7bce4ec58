use std::net::SocketAddr;

use parking_lot::Mutex;
use turnpike_core::gate::{Admission, Departure, DeviceIdentity, ServiceIdentity, UserIdentity};

use super::*;
use crate::guard;
use crate::quota::{self, OriginLimits, parse_rate};

/// Lets in whoever's password is `right`.
struct Passwords;

impl Gate for Passwords {
    fn authenticate(&self, attempt: &Attempt<'_>, _: Now, _: [u8; 32]) -> Verdict {
        let Some(Who { product, name }) = claimed_by_user_name(attempt) else {
            return Verdict::Refused(ConnectReason::BadUserNameOrPassword, "refused");
        };
        match attempt.password {
            Some(b"right") => {
                let identity = DeviceIdentity::new(product, name);
                Verdict::Granted(Admission::new(Principal::Device(Arc::new(identity))))
            }
            Some(b"disabled") => Verdict::Refused(ConnectReason::NotAuthorized, "refused"),
            _ => Verdict::Refused(ConnectReason::BadUserNameOrPassword, "refused"),
        }
    }

    fn proceed(&self, attempt: &Attempt<'_>, _: &ChallengeState, data: &[u8], now: Now) -> Verdict {
        self.authenticate(&Attempt { password: Some(data), ..*attempt }, now, [0; 32])
    }

    fn may_publish(&self, _: &Principal, topic: TopicName<'_>) -> bool {
        topic.as_str() == "allowed"
    }

    fn may_subscribe(&self, _: &Principal, filter: TopicFilter<'_>) -> bool {
        filter.as_str() == "allowed"
    }

    fn still_welcome(&self, _: &Principal) -> bool {
        true
    }
}

struct World {
    gate: Guarded<Passwords>,
    events: Arc<Mutex<Vec<SecurityEvent>>>,
}

fn world(quotas: quota::Settings) -> World {
    let events = Arc::new(Mutex::new(Vec::new()));
    let quotas = Quotas::new(quotas, quota::Sizes::default());
    let guard = Guard::new(guard::Settings { loopback: true, ..guard::Settings::default() }, guard::Sizes::default());
    let told = Arc::clone(&events);
    let tell = Box::new(move |event| told.lock().push(event));
    let gate = Guarded::new(Arc::new(Passwords), Arc::new(quotas), Arc::new(guard), claimed_by_user_name, tell);
    World { gate, events }
}

fn at(mono_ms: u64) -> Now {
    Now { mono_ms, unix_ms: 1_700_000_000_000 }
}

fn address(last: u8) -> IpAddr {
    [192, 0, 2, last].into()
}

fn device() -> Principal {
    Principal::Device(Arc::new(DeviceIdentity::new("lamp", "one")))
}

fn attempt<'a>(from: u8, user_name: &'a str, password: &'a str) -> Attempt<'a> {
    Attempt {
        client_id: "",
        user_name: Some(user_name),
        password: Some(password.as_bytes()),
        peer: SocketAddr::new(address(from), 40_000),
        tls: false,
        certificate: None,
        enhanced: None,
    }
}

impl World {
    /// What a log-in hears; none if it comes in.
    fn log_in(&self, from: u8, user_name: &str, password: &str, ms: u64) -> Option<ConnectReason> {
        match self.gate.authenticate(&attempt(from, user_name, password), at(ms), [0; 32]) {
            Verdict::Granted(_) => None,
            Verdict::Refused(reason, _) => Some(reason),
            Verdict::Challenge { .. } | Verdict::Pending(_) | Verdict::Dismissed(_) => panic!("no challenge"),
        }
    }
}

#[test]
fn user_names_claim_identities() {
    let claimed = |user_name| claimed_by_user_name(&attempt(1, user_name, "")).expect("a claim");
    assert_eq!(claimed("lamp/one"), Who { product: "lamp", name: "one" });
    assert_eq!(claimed("one&lamp"), Who { product: "lamp", name: "one" });
    assert_eq!(claimed("somebody"), Who { product: "", name: "somebody" });
    assert_eq!(claimed_by_user_name(&Attempt { user_name: None, ..attempt(1, "", "") }), None);
}

#[test]
fn failures_lead_from_refusal_to_waiting_to_the_closed_door() {
    let world = world(quota::Settings::default());
    for _ in 0..4 {
        assert_eq!(world.log_in(1, "lamp/one", "wrong", 0), Some(ConnectReason::BadUserNameOrPassword));
    }
    // The fifth of the address; the identity has had its four for nothing.
    assert_eq!(world.log_in(1, "lamp/one", "wrong", 0), Some(ConnectReason::BadUserNameOrPassword));
    assert_eq!(world.log_in(1, "lamp/one", "right", 0), Some(ConnectReason::Banned));
    assert!(!world.gate.accepts(address(1), at(0)));
    assert_eq!(world.gate.entered(address(1), at(0)), Entry::Closed, "behind a proxy");
    assert!(matches!(world.events.lock()[..], [SecurityEvent::Banned { .. }]));
    assert_eq!(world.log_in(2, "lamp/one", "right", 0), None, "the device itself, elsewhere");
    assert_eq!(world.log_in(1, "lamp/one", "right", 60_000), None);
}

#[test]
fn wrong_answers_to_challenges_are_failures_and_disabled_devices_are_not() {
    let world = world(quota::Settings::default());
    let state = ChallengeState { method: "m".into(), data: Vec::new(), claim: "lamp/one".into() };
    for _ in 0..5 {
        assert_eq!(world.log_in(1, "lamp/one", "disabled", 0), Some(ConnectReason::NotAuthorized));
    }
    assert!(world.gate.accepts(address(1), at(0)));
    for _ in 0..5 {
        let verdict = world.gate.proceed(&attempt(1, "lamp/one", ""), &state, b"wrong", at(0));
        assert!(matches!(verdict, Verdict::Refused(ConnectReason::BadUserNameOrPassword, _)));
    }
    assert!(!world.gate.accepts(address(1), at(0)));
}

#[test]
fn an_identity_on_loopback_waits_and_others_do_not() {
    let world = world(quota::Settings::default());
    let local = |user_name, password, ms| {
        let attempt = Attempt { peer: ([127, 0, 0, 1], 40_000).into(), ..attempt(0, user_name, password) };
        match world.gate.authenticate(&attempt, at(ms), [0; 32]) {
            Verdict::Refused(reason, _) => Some(reason),
            Verdict::Granted(_) | Verdict::Challenge { .. } | Verdict::Pending(_) | Verdict::Dismissed(_) => None,
        }
    };
    for _ in 0..5 {
        assert_eq!(local("lamp/one", "wrong", 0), Some(ConnectReason::BadUserNameOrPassword));
    }
    assert_eq!(local("lamp/one", "right", 999), Some(ConnectReason::ConnectionRateExceeded));
    assert_eq!(local("lamp/two", "right", 999), None);
    assert_eq!(local("lamp/one", "right", 1000), None);
}

#[test]
fn an_address_connects_so_often_and_has_so_many_connections() {
    let attempts = parse_rate("3/s").expect("a rate");
    let origin = OriginLimits { connections_max: Some(2), attempts };
    let world = world(quota::Settings { origin, ..quota::Settings::default() });
    let gate = &world.gate;
    let heard: Vec<_> = (0..4).map(|_| gate.attempted(address(1), at(0))).collect();
    assert_eq!(heard, [Ok(()), Ok(()), Ok(()), Err(ConnectReason::ConnectionRateExceeded)]);
    assert!((0..3).all(|_| gate.entered(address(1), at(0)) == Entry::Counted));
    assert_eq!(gate.attempted(address(1), at(5000)), Err(ConnectReason::QuotaExceeded));
    gate.left(address(1));
    assert_eq!(gate.attempted(address(1), at(5000)), Ok(()));
    assert_eq!(gate.attempted(address(2), at(0)), Ok(()));
}

#[test]
fn what_the_gate_says_of_topics_stands_and_meters_are_the_quotas() {
    let each_device = turnpike_core::meter::FlowRate {
        messages: parse_rate("1/s").expect("a rate"),
        ..turnpike_core::meter::FlowRate::UNLIMITED
    };
    let world = world(quota::Settings { each_device, ..quota::Settings::default() });
    for topic in ["allowed", "forbidden"] {
        let allowed = topic == "allowed";
        assert_eq!(world.gate.may_publish(&device(), TopicName::parse(topic).expect("a topic")), allowed);
        assert_eq!(world.gate.may_subscribe(&device(), TopicFilter::parse(topic).expect("a filter")), allowed);
    }
    let mut meter = world.gate.meter(&device(), at(0)).expect("limited");
    let _ = meter.packet(0);
    world.gate.settle(&device(), &meter, at(0));
    assert_eq!(world.gate.meter(&device(), at(0)).expect("limited").debt(), meter.debt());
    assert!(world.gate.meter(&Principal::Anonymous, at(0)).is_none());
}

#[test]
fn a_clone_is_refused_with_both_its_sessions() {
    let world = world(quota::Settings::default());
    world.gate.guard().refuse_clones("lamp", Some(true));
    let principal = device();
    let mut heard = Vec::new();
    for n in 0..5_u8 {
        let take_over = TakeOver { principal: &principal, from: address(1 + n % 2), to: address(1 + (n + 1) % 2) };
        heard.push(world.gate.taken_over(take_over, at(u64::from(n) * 1000)));
        assert_eq!(world.gate.still_welcome(&principal), n < 4);
    }
    assert_eq!(heard.last(), Some(&Err(ConnectReason::Banned)));
    assert!(matches!(world.events.lock()[..], [SecurityEvent::CloneSuspected { .. }]));
    assert_eq!(world.log_in(9, "lamp/one", "right", 5000), Some(ConnectReason::Banned));
    assert_eq!(world.log_in(9, "lamp/one", "wrong", 5000), Some(ConnectReason::BadUserNameOrPassword));
}

#[test]
fn only_devices_are_looked_for_in_two_places_at_once() {
    let World { gate, events } = world(quota::Settings::default());
    gate.guard().refuse_clones("p", Some(true));
    let device = Principal::Device(Arc::new(DeviceIdentity::new("p", "d")));
    let user = Principal::User(Arc::new(UserIdentity { app: "p".into(), user: "d".into(), by: None }));
    let service = Principal::Service(Arc::new(ServiceIdentity { key: "d".into() }));
    let [here, there] = ["192.0.2.1:1", "198.51.100.7:1"].map(|text| text.parse::<SocketAddr>().expect("an address"));
    for (principal, is_refused) in [(&user, false), (&service, false), (&device, true)] {
        let pass = |peer, passage| {
            let visit = Visit { client_id: "c", principal: Some(principal), user_name: None, peer, tls: false };
            gate.passed(&visit, passage, at(0));
        };
        let arrives = || gate.arrives(Arrival { principal, address: there.ip(), instead_of: None }, at(0));
        pass(here, Passage::In);
        assert_eq!(arrives(), if is_refused { Err(ConnectReason::Banned) } else { Ok(()) });
        assert_eq!(events.lock().len(), usize::from(is_refused));
        pass(here, Passage::Out(Departure::TakenOver));
        assert_eq!(arrives(), Ok(()));
    }
}
