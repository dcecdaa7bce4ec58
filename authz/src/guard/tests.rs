use proptest::prelude::*;

use super::*;

const LAMP: Who<'static> = Who { product: "lamp", name: "one" };
const FAN: Who<'static> = Who { product: "fan", name: "one" };
const S: u64 = 1_000;
const MINUTE: u64 = 60 * S;
const SMALL: Sizes = Sizes { origins_max: 1000, pairs_max: 1000, identities_max: 1000 };

fn at(mono_ms: u64) -> Now {
    Now { mono_ms, unix_ms: 1_700_000_000_000 + mono_ms }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// One of many that aren't exempt.
fn one_of(n: u32) -> IpAddr {
    std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).into()
}

fn guard() -> Guard {
    Guard::new(Settings { loopback: true, ..Settings::default() }, SMALL)
}

/// Fails so often at one moment; gives the events.
fn fail(guard: &Guard, address: IpAddr, who: Option<Who<'_>>, times: usize, now_ms: u64) -> Vec<SecurityEvent> {
    (0..times).flat_map(|_| guard.failed(address, who, at(now_ms))).collect()
}

#[test]
fn five_failures_a_minute_close_the_door_to_an_address() {
    let guard = guard();
    assert!(fail(&guard, one_of(1), None, 4, 0).is_empty());
    assert!(guard.accepts(one_of(1), at(0)));
    let banned = |for_ms, times| SecurityEvent::Banned {
        network: "10.0.0.1/32".parse().expect("a network"),
        cause: BanCause::Failures,
        for_ms,
        times,
    };
    assert_eq!(fail(&guard, one_of(1), None, 1, 59 * S), [banned(MINUTE, 1)]);
    assert!(!guard.accepts(one_of(1), at(59 * S)) && guard.accepts(one_of(2), at(59 * S)));
    assert_eq!(guard.admits(one_of(1), Some(LAMP), at(59 * S)), Err(Denied::Banned), "who was in already");
    assert!(fail(&guard, one_of(1), None, 100, 60 * S).is_empty(), "a ban isn't prolonged");
    assert!(!guard.accepts(one_of(1), at(119 * S - 1)) && guard.accepts(one_of(1), at(119 * S)));
    assert_eq!(fail(&guard, one_of(1), None, 5, 120 * S), [banned(2 * MINUTE, 2)]);
    assert_eq!(fail(&guard, one_of(1), None, 5, 4 * 60 * MINUTE), [banned(MINUTE, 1)], "peace makes forget");
    let counts = guard.counts();
    assert_eq!((counts.failures, counts.bans, counts.refused_at_accept, counts.denied), (115, 3, 2, 1));
}

#[test]
fn all_of_an_ipv6_64_are_one() {
    let guard = guard();
    for n in 0..5 {
        let _ = guard.failed(ip(&format!("2001:db8:0:1::{n}")), None, at(0));
    }
    assert!(!guard.accepts(ip("2001:db8:0:1:ffff::"), at(0)) && guard.accepts(ip("2001:db8:0:2::"), at(0)));
}

#[test]
fn loopback_and_gateways_are_not_banned_but_identities_wait_there() {
    let guard = guard();
    for address in ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"].map(ip) {
        assert!(fail(&guard, address, Some(LAMP), 20, 0).is_empty());
        assert!(guard.accepts(address, at(0)));
        assert!(matches!(guard.admits(address, Some(LAMP), at(0)), Err(Denied::BackOff(_))));
        assert_eq!(guard.admits(address, Some(FAN), at(0)), Ok(()));
    }
}

#[test]
fn on_loopback_identities_wait_only_if_asked() {
    let guard = Guard::new(Settings::default(), SMALL);
    for address in ["127.0.0.1", "::1", "::ffff:127.0.0.1"].map(ip) {
        assert!(fail(&guard, address, Some(LAMP), 20, 0).is_empty());
        assert_eq!(guard.admits(address, Some(LAMP), at(0)), Ok(()));
        assert!((0..100).all(|_| guard.logged_in(address, LAMP, at(0)).verdict.is_ok()), "it doesn't flap either");
    }
}

#[test]
fn an_identity_waits_longer_with_each_failure_and_no_more_after_success() {
    let guard = guard();
    let home = ip("127.0.0.1");
    let mut now_ms = 0;
    let waits: Vec<u64> = (0..14)
        .map(|_| {
            let _ = guard.failed(home, Some(LAMP), at(now_ms));
            let wait_ms = match guard.admits(home, Some(LAMP), at(now_ms)) {
                Ok(()) => 0,
                Err(Denied::BackOff(left_ms)) => left_ms,
                Err(other) => panic!("{other:?}"),
            };
            now_ms += wait_ms;
            wait_ms / S
        })
        .collect();
    assert_eq!(waits, [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
    assert_eq!(guard.admits(home, Some(LAMP), at(now_ms)), Ok(()), "its time is over");
    assert_eq!(guard.logged_in(home, LAMP, at(now_ms)).verdict, Ok(()));
    assert!(fail(&guard, home, Some(LAMP), 4, now_ms).is_empty());
    assert_eq!(guard.admits(home, Some(LAMP), at(now_ms)), Ok(()), "it begins anew");
}

#[test]
fn failures_elsewhere_never_keep_a_device_out() {
    let guard = guard();
    let home = ip("192.0.2.1");
    let mut alarms = Vec::new();
    for n in 0..1000 {
        alarms.extend(fail(&guard, one_of(n), Some(LAMP), 4, 0));
    }
    let identity = LAMP.identity();
    assert_eq!(alarms.iter().filter(|event| matches!(event, SecurityEvent::Banned { .. })).count(), 0);
    assert_eq!(
        alarms
            .iter()
            .filter(|event| **event == SecurityEvent::IdentityUnderAttack { identity: identity.clone(), failures: 100 })
            .count(),
        40
    );
    let product = SecurityEvent::ProductUnderAttack { product: "lamp".into(), failures: 1000 };
    assert_eq!(alarms.iter().filter(|event| **event == product).count(), 4);
    assert_eq!(guard.counts().alarms, 44);
    assert!(guard.accepts(home, at(0)));
    assert_eq!(guard.admits(home, Some(LAMP), at(0)), Ok(()));
    assert_eq!(guard.logged_in(home, LAMP, at(0)), Judged { verdict: Ok(()), events: Vec::new() });
}

#[test]
fn a_device_of_ones_own_buys_no_guesses() {
    let guard = guard();
    let mut banned = false;
    for n in 0..10 {
        banned |= !fail(&guard, one_of(1), Some(LAMP), 1, n * S).is_empty();
        let _ = guard.logged_in(one_of(1), FAN, at(n * S));
    }
    assert!(banned);
}

#[test]
fn who_logs_in_again_and_again_is_kept_out_there_and_nowhere_else() {
    let guard = guard();
    let log_in = |address, now_ms| guard.logged_in(address, LAMP, at(now_ms));
    assert!((0..29).all(|n| log_in(one_of(1), n * S).verdict.is_ok()));
    let judged = log_in(one_of(1), 29 * S);
    assert_eq!(judged.verdict, Err(Denied::Flapping(MINUTE)));
    let network = "10.0.0.1/32".parse().expect("a network");
    assert_eq!(judged.events, [SecurityEvent::Flapping { identity: LAMP.identity(), network, for_ms: MINUTE }]);
    assert_eq!(guard.admits(one_of(1), Some(LAMP), at(30 * S)), Err(Denied::Flapping(59 * S)));
    assert_eq!(guard.admits(one_of(1), Some(FAN), at(30 * S)), Ok(()));
    assert_eq!(guard.admits(one_of(2), Some(LAMP), at(30 * S)), Ok(()));
    assert_eq!(guard.admits(one_of(1), Some(LAMP), at(89 * S)), Ok(()));
    let again = (0..30).map(|n| log_in(one_of(1), 90 * S + n)).find_map(|judged| judged.verdict.err());
    assert_eq!(again, Some(Denied::Flapping(2 * MINUTE)));
    assert!((0..100).all(|n| log_in(one_of(3), n * 5 * S).verdict.is_ok()), "twelve a minute are no flapping");
    assert_eq!(guard.counts().flapping, 2);
}

/// Two places that take a session from each other, one step a second.
fn fight(guard: &Guard, steps: u64) -> Vec<Judged> {
    let places = [one_of(1), one_of(2)];
    (0..steps)
        .map(|n| guard.taken_over(LAMP, places[(n % 2) as usize], places[((n + 1) % 2) as usize], at(n * S)))
        .collect()
}

#[test]
fn a_session_that_goes_back_and_forth_has_a_clone() {
    let guard = guard();
    let judged = fight(&guard, 10);
    assert!(judged.iter().all(|judged| judged.verdict.is_ok()), "the product only wants to know");
    let events: Vec<(usize, &SecurityEvent)> =
        judged.iter().enumerate().flat_map(|(n, judged)| judged.events.iter().map(move |event| (n, event))).collect();
    let networks = |a, b| [a, b].map(|n| Origin::of(one_of(n)).network());
    let suspected =
        |a, b| SecurityEvent::CloneSuspected { identity: LAMP.identity(), networks: networks(a, b), refused_ms: None };
    assert_eq!(events, [(4, &suspected(1, 2)), (8, &suspected(1, 2))]);
    assert!(events.iter().all(|(_, event)| event.bars().is_none()));
    assert_eq!(guard.counts().clones, 2);
}

#[test]
fn a_product_may_refuse_clones_for_a_time() {
    let guard = guard();
    guard.refuse_clones("lamp", Some(true));
    let judged = fight(&guard, 5);
    assert_eq!(judged[4].verdict, Err(Denied::Suspected(60 * MINUTE)));
    assert!(matches!(judged[4].events[..], [SecurityEvent::CloneSuspected { refused_ms: Some(3_600_000), .. }]));
    assert_eq!(judged[4].events[0].bars(), Some(&LAMP.identity()), "what it has open is closed");
    assert_eq!(guard.suspicion(LAMP, at(5 * S)), Err(Denied::Suspected(60 * MINUTE - S)));
    assert_eq!(guard.suspicion(FAN, at(5 * S)), Ok(()));
    let judged = guard.logged_in(one_of(3), LAMP, at(5 * S));
    assert_eq!(judged.verdict, Err(Denied::Suspected(60 * MINUTE - S)), "wherever it comes from");
    assert_eq!(guard.admits(one_of(1), Some(LAMP), at(5 * S)), Ok(()), "strangers aren't told");
    assert_eq!(guard.logged_in(one_of(1), LAMP, at(61 * MINUTE)).verdict, Ok(()));
    let _ = fight(&guard, 5);
    assert!(guard.suspicion(LAMP, at(0)).is_err() && guard.pardon(LAMP, at(0)) && !guard.pardon(LAMP, at(0)));
    assert_eq!(guard.suspicion(LAMP, at(0)), Ok(()));
    guard.refuse_clones("lamp", None);
    assert!(fight(&guard, 20).iter().all(|judged| judged.verdict.is_ok()));
}

#[test]
fn roaming_and_reconnecting_are_no_clones() {
    let guard = guard();
    for n in 0..500 {
        assert!(guard.taken_over(LAMP, one_of(n), one_of(n + 1), at(u64::from(n) * S)).events.is_empty());
        assert!(guard.taken_over(FAN, one_of(1), one_of(1), at(u64::from(n) * S)).events.is_empty());
        // Between Wi-Fi at home and the mobile network, twice a day.
        let (from, to) = if n % 2 == 0 { (1, 2) } else { (2, 1) };
        let commuter = Who { product: "car", name: "one" };
        let now = at(u64::from(n) * 12 * 60 * MINUTE);
        assert!(guard.taken_over(commuter, one_of(from), one_of(to), now).events.is_empty());
    }
}

#[test]
fn a_wrong_attestation_value_is_told_and_by_product_refused() {
    let guard = guard();
    let registered = Attestation::of(b"factor", "1.0", [1; 6]);
    let other = Attestation::of(b"factor", "1.0", [2; 6]);
    let right = guard.attested(one_of(1), LAMP, &registered, &registered, at(0));
    assert_eq!(right, Judged { verdict: Ok(()), events: Vec::new() });
    let told = guard.attested(one_of(1), LAMP, &registered, &other, at(0));
    assert!(told.verdict.is_ok() && guard.suspicion(LAMP, at(0)).is_ok());
    assert!(matches!(told.events[..], [SecurityEvent::AttestationMismatch { refused_ms: None, .. }]));
    guard.refuse_clones("lamp", Some(true));
    let refused = guard.attested(one_of(1), LAMP, &registered, &other, at(0));
    assert_eq!(refused.verdict, Err(Denied::Suspected(60 * MINUTE)));
    assert!(guard.suspicion(LAMP, at(0)).is_err());
    assert_eq!(guard.counts().attestation_mismatches, 2);
}

#[test]
fn bans_are_listed_made_and_lifted_by_hand() {
    let guard = guard();
    let net = |text: &str| text.parse::<IpNet>().expect("a network");
    fail(&guard, one_of(1), None, 5, 0);
    fail(&guard, ip("2001:db8::1"), None, 5, 0);
    guard.ban(net("192.0.2.0/24"), "abuse", None, at(0)).expect("room");
    guard.ban(net("127.0.0.1/32"), "", Some(10 * S), at(0)).expect("room");
    let listed = |now_ms| {
        let bans = guard.bans(100, at(now_ms));
        let mut bans: Vec<_> = bans.into_iter().map(|ban| (ban.network.to_string(), ban.cause, ban.left_ms)).collect();
        bans.sort_by(|a, b| a.0.cmp(&b.0));
        bans
    };
    let (failures, manual) = (BanCause::Failures, BanCause::Manual);
    let expected = [
        ("10.0.0.1/32", failures, Some(MINUTE)),
        ("127.0.0.1/32", manual, Some(10 * S)),
        ("192.0.2.0/24", manual, None),
        ("2001:db8::/64", failures, Some(MINUTE)),
    ];
    assert_eq!(listed(0), expected.map(|(net, cause, left)| (net.to_owned(), cause, left)));
    assert!(!guard.accepts(ip("192.0.2.9"), at(0)), "by hand");
    assert!(!guard.accepts(ip("127.0.0.1"), at(0)), "exempt from failures is not exempt from hands");
    assert!(guard.accepts(ip("127.0.0.1"), at(10 * S)));
    assert!(guard.unban(net("2001:db8::1/128"), at(0)), "any address of a /64 lifts its ban");
    assert!(guard.unban(net("10.0.0.0/8"), at(0)) && guard.unban(net("192.0.2.0/24"), at(0)));
    assert!(!guard.unban(net("192.0.2.0/24"), at(0)));
    assert!(guard.accepts(one_of(1), at(0)) && guard.accepts(ip("192.0.2.9"), at(0)));
    assert_eq!(listed(10 * S), []);
    fail(&guard, one_of(1), None, 4, 0);
    assert!(guard.accepts(one_of(1), at(0)), "what was held against it is forgotten");
    assert_eq!(guard.bans(0, at(0)), []);
}

#[test]
fn an_operator_is_kept_out_by_failures_and_not_by_a_ban_that_has_to_be_lifted() {
    let guard = guard();
    guard.ban("10.0.0.0/8".parse().expect("a network"), "", None, at(0)).expect("room");
    assert!(!guard.accepts(one_of(1), at(0)));
    assert_eq!(guard.admits_operator(one_of(1), at(0)), Ok(()));
    fail(&guard, one_of(1), None, 5, 0);
    assert_eq!(guard.admits_operator(one_of(1), at(MINUTE - 1)), Err(Denied::Banned));
    assert_eq!(guard.admits_operator(one_of(1), at(MINUTE)), Ok(()));
    assert_eq!(guard.admits_operator(one_of(2), at(0)), Ok(()));
}

#[test]
fn what_is_switched_off_does_nothing() {
    let settings = Settings {
        origin_failures: None,
        back_off: None,
        identity_failures: None,
        product_failures: None,
        flapping: None,
        clones: None,
        ..Settings::default()
    };
    let guard = Guard::new(Settings::default(), SMALL);
    guard.set(settings);
    assert!(fail(&guard, one_of(1), Some(LAMP), 10_000, 0).is_empty());
    assert_eq!(guard.admits(one_of(1), Some(LAMP), at(0)), Ok(()));
    assert!((0..1000).all(|_| guard.logged_in(one_of(1), LAMP, at(0)).verdict.is_ok()));
    assert!(fight(&guard, 100).iter().all(|judged| judged.events.is_empty()));
    assert_eq!(guard.remembered().map(|(_, count)| count), [0; 5]);
}

#[test]
fn tables_stay_within_their_sizes_and_bans_outlast_a_flood() {
    let guard = guard();
    fail(&guard, ip("192.0.2.1"), None, 5, 0);
    for n in 0..20_000_u32 {
        let name = n.to_string();
        let who = Who { product: &name, name: &name };
        fail(&guard, one_of(n), Some(who), 1, 0);
        let _ = guard.taken_over(who, one_of(n), one_of(n + 1), at(0));
    }
    assert!(guard.remembered().iter().all(|(_, count)| *count <= 1024), "{:?}", guard.remembered());
    assert!(!guard.accepts(ip("192.0.2.1"), at(0)));
    guard.sweep(at(24 * 60 * MINUTE));
    assert_eq!(guard.remembered().map(|(_, count)| count), [0; 5]);
}

/// What an attacker can do; the device itself is at 192.0.2.1 and does nothing wrong.
#[derive(Clone, Copy, Debug)]
enum Step {
    Fail(u32),
    Wait(u64),
    Sweep,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![(0..20_u32).prop_map(Step::Fail), (0..2 * MINUTE).prop_map(Step::Wait), Just(Step::Sweep)]
}

proptest! {
    /// Whatever strangers without credentials do, a device gets in from its own address.
    #[test]
    fn no_stranger_locks_a_device_out(steps in prop::collection::vec(step(), 0..300)) {
        let guard = guard();
        let home = ip("192.0.2.1");
        let mut now_ms = 0;
        for step in steps {
            match step {
                Step::Fail(n) => drop(guard.failed(one_of(n), Some(LAMP), at(now_ms))),
                Step::Wait(ms) => now_ms += ms,
                Step::Sweep => guard.sweep(at(now_ms)),
            }
            prop_assert!(guard.accepts(home, at(now_ms)));
            prop_assert_eq!(guard.admits(home, Some(LAMP), at(now_ms)), Ok(()));
            prop_assert_eq!(guard.suspicion(LAMP, at(now_ms)), Ok(()));
        }
        prop_assert_eq!(guard.logged_in(home, LAMP, at(now_ms)).verdict, Ok(()));
    }

    /// However failures are spread, an address that is let in has not failed five times in a row within half a minute.
    #[test]
    fn no_address_guesses_faster_than_the_threshold(gaps in prop::collection::vec(0..20 * S, 1..200)) {
        let guard = guard();
        let (mut now_ms, mut let_in) = (0, Vec::new());
        for gap in gaps {
            now_ms += gap;
            if guard.accepts(one_of(1), at(now_ms)) {
                let_in.push(now_ms);
                let _ = guard.failed(one_of(1), None, at(now_ms));
            }
        }
        // A window halves a count, so at worst four fall at the end of one and three at the beginning of the next.
        prop_assert!(let_in.windows(9).all(|nine| nine[8] - nine[0] >= 30 * S));
    }
}

#[test]
fn a_device_in_two_networks_at_once_is_told_of_once_in_a_while() {
    let guard = guard();
    let [home, neighbour, away] = ["192.0.2.1", "192.0.2.200", "198.51.100.7"].map(ip);
    assert_eq!(guard.came(home, LAMP, at(0)), None);
    assert_eq!(guard.came(neighbour, LAMP, at(0)), None, "the same network");
    assert_eq!(guard.came(away, FAN, at(0)), None, "another device");
    assert_eq!(guard.arrives(away, LAMP, None, at(0)).verdict, Ok(()), "nobody refuses");
    let network = Origin::of(away).network();
    let told = |refused| SecurityEvent::CloneConnected { identity: LAMP.identity(), network, refused };
    assert_eq!(guard.came(away, LAMP, at(0)), Some(told(false)));
    guard.went(away, LAMP);
    assert_eq!(guard.came(away, LAMP, at(10 * MINUTE - 1)), None, "it was told");
    guard.went(away, LAMP);
    assert_eq!(guard.came(away, LAMP, at(10 * MINUTE)), Some(told(false)));
    assert_eq!(guard.counts().clones, 2);
    guard.went(home, LAMP);
    guard.went(neighbour, LAMP);
    assert_eq!(guard.came(away, LAMP, at(60 * MINUTE)), None, "all its connections come from there now");
}

#[test]
fn where_clones_are_refused_the_later_connection_is_while_the_other_lasts() {
    let guard = guard();
    guard.refuse_clones("lamp", Some(true));
    let [home, neighbour, away] = ["2001:db8::1", "2001:db8:0:ff::1", "2001:db8:0:100::1"].map(ip);
    assert_eq!(guard.came(home, LAMP, at(0)), None);
    let judged = guard.arrives(away, LAMP, None, at(0));
    assert_eq!(judged.verdict, Err(Denied::Elsewhere));
    assert!(matches!(judged.events[..], [SecurityEvent::CloneConnected { refused: true, .. }]), "{judged:?}");
    let again = guard.arrives(away, LAMP, None, at(1));
    assert!(again.verdict.is_err() && again.events.is_empty(), "{again:?}");
    assert_eq!(guard.suspicion(LAMP, at(1)), Ok(()), "the one that is there stays");
    assert!(guard.arrives(neighbour, LAMP, None, at(1)).verdict.is_ok());
    assert!(guard.arrives(away, LAMP, Some(home), at(1)).verdict.is_ok(), "it moves, and takes its session along");
    assert_eq!(guard.came(neighbour, LAMP, at(1)), None);
    assert!(guard.arrives(away, LAMP, Some(home), at(2)).verdict.is_err(), "another of its connections stays");
    guard.went(neighbour, LAMP);
    guard.went(home, LAMP);
    assert!(guard.arrives(away, LAMP, None, at(2)).verdict.is_ok());
    assert_eq!(guard.counts().clones, 1);
}

#[test]
fn a_device_may_be_allowed_to_be_in_several_networks() {
    let both =
        [Settings { clones_at_once: false, ..Settings::default() }, Settings { clones: None, ..Settings::default() }];
    for settings in both {
        let guard = Guard::new(Settings { refuse_clones: true, ..settings }, SMALL);
        assert_eq!(guard.came(ip("192.0.2.1"), LAMP, at(0)), None);
        assert!(guard.arrives(ip("198.51.100.7"), LAMP, None, at(0)).verdict.is_ok());
        assert_eq!(guard.came(ip("198.51.100.7"), LAMP, at(0)), None);
        // It is known all the same where it is, for when that changes.
        guard.set(Settings { refuse_clones: true, ..Settings::default() });
        assert!(guard.arrives(ip("203.0.113.1"), LAMP, None, at(0)).verdict.is_err());
    }
}
