use turnpike_core::meter::{Decision, Excess, FlowRate, Manner, Rate};

use super::*;

const DEVICE: Subject<'static> = Subject::Device { product: "lamp", device: "one" };
const USER: Subject<'static> = Subject::User { app: "home", user: "ada" };

fn at(mono_ms: u64) -> Now {
    Now { mono_ms, unix_ms: 1_700_000_000_000 + mono_ms }
}

fn flow(text: &str) -> FlowRate {
    FlowRate { messages: parse_rate(text).expect("a rate"), ..FlowRate::UNLIMITED }
}

fn quotas(settings: Settings) -> Quotas {
    Quotas::new(settings, Sizes { origins_max: 10_000, owners_max: 10_000, callers_max: 10_000 })
}

fn address(n: u32) -> IpAddr {
    std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).into()
}

/// How many of a thousand messages are taken at one moment.
fn taken(meter: &mut Meter, mono_ms: u64) -> usize {
    let take = |meter: &mut Meter| meter.publish(mono_ms * 1_000_000, 10, Manner::Refuse) == Decision::Pass;
    (0..1000).filter(|_| take(meter)).count()
}

fn metered(quotas: &Quotas, subject: Subject<'_>, mono_ms: u64) -> usize {
    taken(&mut quotas.meter(subject, at(mono_ms)).expect("limited"), mono_ms)
}

#[test]
fn without_limits_there_are_no_meters_and_nothing_is_remembered() {
    let quotas = quotas(Settings::default());
    assert!(quotas.meter(DEVICE, at(0)).is_none() && quotas.meter(USER, at(0)).is_none());
    assert_eq!(quotas.entered(address(1), at(0)), Entry::Free);
    assert!((0..1000).all(|_| quotas.attempt(address(1), at(0))));
    assert!((0..1000).all(|_| quotas.request(&[Caller::Address(address(1))], at(0)).is_ok()));
    assert_eq!(quotas.remembered().map(|(_, count)| count), [0; 3]);
}

#[test]
fn a_device_has_its_own_rate_its_products_or_the_default_in_this_order() {
    let quotas = quotas(Settings { each_device: flow("3/s"), ..Settings::default() });
    assert_eq!(metered(&quotas, DEVICE, 0), 3);
    quotas.limit_product("lamp", ProductLimits { each: Some(flow("5/s")), ..ProductLimits::default() });
    assert_eq!(metered(&quotas, DEVICE, 0), 0, "what was taken stays taken");
    assert_eq!(metered(&quotas, DEVICE, 1000), 5);
    assert_eq!(metered(&quotas, Subject::Device { product: "fan", device: "one" }, 1000), 3);
    quotas.limit_device("lamp", "one", Some(flow("7/s")));
    assert_eq!(metered(&quotas, DEVICE, 2000), 7);
    assert_eq!(metered(&quotas, Subject::Device { product: "lamp", device: "two" }, 2000), 5);
    quotas.limit_device("lamp", "one", None);
    quotas.limit_product("lamp", ProductLimits { each: Some(FlowRate::UNLIMITED), ..ProductLimits::default() });
    assert!(quotas.meter(DEVICE, at(2000)).is_none(), "unlimited is a limit of one's own");
    quotas.limit_product("lamp", ProductLimits::default());
    assert_eq!(metered(&quotas, DEVICE, 2000), 3, "what was owed under limits that were lifted is forgiven");
}

#[test]
fn a_products_devices_share_what_it_may() {
    let quotas = quotas(Settings { product: flow("10/s"), each_device: flow("8/s"), ..Settings::default() });
    assert_eq!(metered(&quotas, DEVICE, 0), 8);
    assert_eq!(metered(&quotas, Subject::Device { product: "lamp", device: "two" }, 0), 2);
    assert_eq!(metered(&quotas, Subject::Device { product: "fan", device: "two" }, 0), 8, "another product");
}

#[test]
fn live_sessions_follow_changes() {
    let quotas = quotas(Settings { each_device: flow("1/s"), product: flow("1000/s"), ..Settings::default() });
    let mut meter = quotas.meter(DEVICE, at(0)).expect("limited");
    assert_eq!(taken(&mut meter, 0), 1);
    let excess = Excess { refuse_acked: true, drop_unacked: false };
    quotas.limit_product("lamp", ProductLimits { each: Some(flow("10/s")), whole: None, excess: Some(excess) });
    assert_eq!((taken(&mut meter, 1000), meter.excess()), (10, excess));
    quotas.limit_product("lamp", ProductLimits::default());
    quotas.set(Settings { each_device: flow("100/s"), product: flow("20/s"), ..Settings::default() });
    assert_eq!(taken(&mut meter, 10_000), 20, "the pool changes, too");
    quotas.set(Settings::default());
    assert_eq!(taken(&mut meter, 10_000), 1000);
}

#[test]
fn reconnecting_buys_nothing() {
    for subject in [DEVICE, USER] {
        let quotas = quotas(Settings { each_device: flow("2/s"), each_user: flow("2/s"), ..Settings::default() });
        let mut meter = quotas.meter(subject, at(0)).expect("limited");
        assert_eq!(taken(&mut meter, 0), 2);
        quotas.settle(subject, &meter, at(0));
        drop(meter);
        quotas.sweep(at(0));
        let mut meter = quotas.meter(subject, at(0)).expect("limited");
        assert_eq!((taken(&mut meter, 0), taken(&mut meter, 500)), (0, 1));
        quotas.settle(subject, &meter, at(5000));
        drop(meter);
        quotas.sweep(at(5000));
        assert_eq!(quotas.remembered()[1], ("owners", 0), "what is paid isn't kept");
    }
}

#[test]
fn sessions_of_one_subject_share_its_rate() {
    for subject in [DEVICE, USER] {
        let quotas = quotas(Settings { each_device: flow("2/s"), each_user: flow("2/s"), ..Settings::default() });
        let mut sessions: Vec<Meter> = (0..20).map(|_| quotas.meter(subject, at(0)).expect("limited")).collect();
        assert_eq!(sessions.iter_mut().map(|meter| taken(meter, 0)).sum::<usize>(), 2);
        // Whichever of them ends takes nothing with it, nor gives others what it owed.
        quotas.settle(subject, &sessions.swap_remove(0), at(0));
        let fresh = [(); 3].map(|()| quotas.meter(subject, at(0)).expect("limited"));
        assert_eq!(fresh.each_ref().map(|meter| meter.wait_ns(0)), [500_000_000; 3], "not read before one is due");
        assert_eq!(sessions.iter_mut().map(|meter| taken(meter, 1000)).sum::<usize>(), 2);
        quotas.sweep(at(60_000));
        assert_eq!(quotas.remembered()[1], ("owners", 1), "held by sessions");
        drop((sessions, fresh));
        quotas.sweep(at(60_000));
        assert_eq!(quotas.remembered()[1], ("owners", 0));
    }
}

#[test]
fn reconnecting_buys_nothing_of_a_product_or_an_app_either() {
    let others = [Subject::Device { product: "lamp", device: "two" }, Subject::User { app: "home", user: "bob" }];
    for (subject, other) in [DEVICE, USER].into_iter().zip(others) {
        let quotas = quotas(Settings { product: flow("1/2s"), app: flow("1/2s"), ..Settings::default() });
        let mut now_ms = 0;
        for _ in 0..10 {
            let mut meter = quotas.meter(subject, at(now_ms)).expect("limited");
            assert_eq!(meter.wait_ns(now_ms * 1_000_000), 0, "its turn has come");
            let decision = meter.publish(now_ms * 1_000_000, 10, Manner::Slow);
            assert_eq!(decision, Decision::Wait { ns: 2_000_000_000 });
            quotas.settle(subject, &meter, at(now_ms));
            drop(meter);
            quotas.sweep(at(now_ms));
            let again = quotas.meter(subject, at(now_ms)).expect("limited");
            assert_eq!(again.wait_ns(now_ms * 1_000_000), 2_000_000_000);
            let another = quotas.meter(other, at(now_ms)).expect("limited");
            assert_eq!(another.wait_ns(now_ms * 1_000_000), 0, "it has sent nothing");
            now_ms += 2000;
        }
    }
}

#[test]
fn an_apps_users_share_what_it_may() {
    let quotas = quotas(Settings { each_user: flow("4/s"), ..Settings::default() });
    quotas.limit_app("home", AppLimits { whole: Some(flow("6/s")), ..AppLimits::default() });
    let mut sessions = [(); 2].map(|()| quotas.meter(USER, at(0)).expect("limited"));
    assert_eq!(sessions.each_mut().map(|meter| taken(meter, 0)), [4, 0]);
    assert_eq!(metered(&quotas, Subject::User { app: "home", user: "bob" }, 0), 2, "what the app has left");
    assert_eq!(metered(&quotas, Subject::User { app: "shop", user: "ada" }, 0), 4, "another app's ada");
    let pings = (0..100).take_while(|_| sessions[1].packet(1_000_000_000) == Decision::Pass).count();
    assert_eq!(pings, 3, "the fourth is the last before it waits");
    quotas.limit_app("home", AppLimits { each: Some(flow("1/s")), ..AppLimits::default() });
    assert_eq!(metered(&quotas, USER, 10_000), 1);
    quotas.limit_app("home", AppLimits { each: Some(FlowRate::UNLIMITED), ..AppLimits::default() });
    assert!(quotas.meter(USER, at(10_000)).is_none());
}

#[test]
fn an_address_has_so_many_connections_and_is_told_of_so_many_more() {
    let origin = OriginLimits { connections_max: Some(3), ..OriginLimits::default() };
    let quotas = quotas(Settings { origin, ..Settings::default() });
    let open = |n| (0..n).filter(|_| quotas.entered(address(1), at(0)) == Entry::Counted).count();
    assert_eq!((open(3), quotas.is_crowded(address(1))), (3, false));
    assert_eq!((open(1), quotas.is_crowded(address(1))), (1, true));
    assert_eq!(open(1000), 18, "twice as many, and 16");
    assert_eq!(quotas.entered(address(2), at(0)), Entry::Counted);
    assert!(!quotas.is_crowded(address(2)));
    (0..19).for_each(|_| quotas.left(address(1)));
    assert!(!quotas.is_crowded(address(1)));
    (0..100).for_each(|_| quotas.left(address(1)));
    assert_eq!(quotas.entered(address(1), at(0)), Entry::Counted, "one too many taken back harms nobody");
    quotas.left(address(1));
    quotas.left(address(2));
    quotas.sweep(at(0));
    assert_eq!(quotas.remembered()[0], ("origins", 0));
}

#[test]
fn an_address_has_so_many_attempts_and_a_64_is_one_address() {
    let origin = OriginLimits { attempts: parse_rate("5/s burst 10").expect("a rate"), ..OriginLimits::default() };
    let exempt = vec!["10.1.0.0/16".parse().expect("a network")];
    let quotas = quotas(Settings { origin, exempt, ..Settings::default() });
    let attempts = |text: &str, ms| {
        let address = text.parse().expect("an address");
        (0..100).filter(|_| quotas.attempt(address, at(ms))).count()
    };
    assert_eq!(attempts("10.0.0.1", 0), 10);
    assert_eq!(attempts("::ffff:10.0.0.1", 0), 0);
    assert_eq!(attempts("10.0.0.1", 1000), 5);
    assert_eq!(attempts("2001:db8::1", 0), 10);
    assert_eq!(attempts("2001:db8::2", 0), 0);
    assert_eq!(attempts("10.1.2.3", 0), 100, "exempt");
}

#[test]
fn a_request_takes_of_all_its_callers_or_of_none() {
    let windows = |text: &str| text.parse::<Windows>().expect("windows");
    let requests = RequestLimits {
        address: windows("5/s"),
        user: windows("3/s, 4/60s"),
        platform: windows("2/s"),
        ..RequestLimits::default()
    };
    let quotas = quotas(Settings { requests, ..Settings::default() });
    let ada = [Caller::Address(address(1)), Caller::User("home", "ada")];
    let taken = |callers: &[Caller<'_>], ms| (0..100).filter(|_| quotas.request(callers, at(ms)).is_ok()).count();
    assert_eq!(taken(&ada, 0), 3);
    assert_eq!(quotas.request(&ada, at(0)), Err(RetryAfter { after_ms: 1000 }));
    assert_eq!(taken(&ada[..1], 0), 2, "what the refused had taken is given back");
    assert_eq!(taken(&ada, 5000), 1, "the longer window");
    assert_eq!(taken(&[Caller::Service("key")], 0), 100);
    assert_eq!(taken(&[Caller::Platform("key")], 0), 2, "a name of another kind");
    assert_eq!(taken(&[Caller::Platform("other")], 0), 2, "each has its own");
    quotas.limit_app("home", AppLimits { user_requests: Some(windows("50/s")), ..AppLimits::default() });
    assert_eq!(taken(&[Caller::User("home", "bob")], 0), 50);
}

#[test]
fn tables_stay_within_their_sizes() {
    let origin = OriginLimits { attempts: Rate::per_second(1).expect("a rate"), ..OriginLimits::default() };
    let quotas = quotas(Settings { origin, each_device: flow("1/s"), ..Settings::default() });
    for n in 0..50_000 {
        quotas.attempt(address(n), at(0));
        let name = n.to_string();
        let subject = Subject::Device { product: "lamp", device: &name };
        let mut meter = quotas.meter(subject, at(0)).expect("limited");
        let _ = meter.packet(0);
        quotas.settle(subject, &meter, at(0));
    }
    assert!(quotas.remembered().iter().all(|(_, count)| *count <= 10_048), "{:?}", quotas.remembered());
    quotas.sweep(at(2000));
    assert_eq!(quotas.remembered().map(|(_, count)| count), [0; 3]);
}
