//! The index against a list of subscriptions and a matcher that goes level by level.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use turnpike_mqtt::RetainHandling;

use super::*;
use crate::ids::ShardId;

fn session(n: u32) -> SessionRef {
    SessionRef { shard: ShardId((n % 3) as u16), slot: n, generation: 1 }
}

fn subscriber(n: u32, qos: QoS, identifier: u32) -> Subscriber {
    let options =
        SubscribeOptions { qos, no_local: false, retain_as_published: false, retain_handling: RetainHandling::Send };
    Subscriber::new(session(n), options, identifier, n.is_multiple_of(2))
}

fn filter(text: &str) -> TopicFilter<'_> {
    TopicFilter::from_validated(text)
}

fn topic(text: &str) -> TopicName<'_> {
    TopicName::from_validated(text)
}

/// Slots of everybody that a topic goes to, sorted; twice for two copies.
fn slots(router: &Router, name: &str) -> Vec<u32> {
    let mut matches = Matches::new();
    router.route(topic(name), 0, &mut matches);
    let mut slots: Vec<u32> = matches.iter().map(|found| found.session.slot).collect();
    slots.sort_unstable();
    slots
}

fn naive_match(filter: &str, topic: &str) -> bool {
    fn levels(filter: &[&str], topic: &[&str]) -> bool {
        match (filter, topic) {
            (["#"], _) | ([], []) => true,
            ([f, filter @ ..], [t, topic @ ..]) => (*f == "+" || f == t) && levels(filter, topic),
            _ => false,
        }
    }
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    levels(&filter.split('/').collect::<Vec<_>>(), &topic.split('/').collect::<Vec<_>>())
}

#[test]
fn the_entry_of_a_subscriber_is_small() {
    assert!(size_of::<Subscriber>() <= 20);
    assert!(size_of::<Node>() <= 40);
    assert!(size_of::<Match>() <= 28);
}

#[test]
fn wildcards_take_what_the_specification_says() {
    for (pattern, name, takes) in [
        ("sport/tennis/player1/#", "sport/tennis/player1", true),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
        ("sport/#", "sport", true),
        ("#", "a/b", true),
        ("+", "/finance", false),
        ("/+", "/finance", true),
        ("+/+", "/finance", true),
        ("sport/+", "sport", false),
        ("sport/+", "sport/", true),
        ("sport/tennis/+", "sport/tennis/player1/ranking", false),
        ("+/tennis/#", "sport/tennis", true),
        ("+/#", "sport", true),
        ("#", "$SYS/x", false),
        ("+/monitor/Clients", "$SYS/monitor/Clients", false),
        ("$SYS/#", "$SYS/x", true),
        ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
        ("/#", "a", false),
        ("/#", "/", true),
        ("a//+", "a//", true),
    ] {
        let router = Router::new();
        assert!(router.subscribe(filter(pattern), None, subscriber(1, QoS::AtMostOnce, 0), true));
        assert_eq!(!slots(&router, name).is_empty(), takes, "{pattern} {name}");
        assert!(router.unsubscribe(filter(pattern), None, session(1)));
        assert!(slots(&router, name).is_empty());
        assert_eq!(router.depths.active.load(Ordering::Relaxed), 0);
        assert_eq!(router.counts(), Counts::default());
        assert!(router.stripes.iter().all(|stripe| stripe.0.read().is_empty()));
    }
}

#[test]
fn a_share_goes_round_those_online_and_then_to_durable_members() {
    let router = Router::new();
    for n in 0..4 {
        router.subscribe(filter("a/+"), Some("g"), subscriber(n, QoS::AtLeastOnce, 0), n < 3);
    }
    let mut taken: Vec<u32> = (0..6).flat_map(|_| slots(&router, "a/b")).collect();
    taken.sort_unstable();
    assert_eq!(taken, [0, 0, 1, 1, 2, 2]);
    for n in 0..3 {
        router.set_online(filter("a/+"), "g", session(n), false);
    }
    for random in 0..8 {
        let picked = router.pick(filter("a/+"), "g", random, Some(session(0))).map(|member| member.session.slot);
        assert_eq!(picked, Some(2), "0 is excepted, 1 and 3 don't outlive their connection");
    }
    router.set_online(filter("a/+"), "g", session(3), true);
    assert_eq!(slots(&router, "a/b"), [3]);
    let mut matches = Matches::new();
    router.route(topic("a/b"), 0, &mut matches);
    assert_eq!(matches.iter().map(|found| &**matches.share(found).unwrap()).collect::<Vec<_>>(), ["$share/g/a/+"]);
}

#[test]
fn a_large_fan_out_that_overlaps_a_small_one_is_merged() {
    let router = Router::new();
    for n in 0..5000 {
        router.subscribe(filter("a/b"), None, subscriber(n, QoS::AtMostOnce, 7), true);
    }
    for n in (0..40).map(|n| n * 200) {
        router.subscribe(filter("a/#"), None, subscriber(n, QoS::ExactlyOnce, 9), true);
        router.subscribe(filter("#"), None, subscriber(n, QoS::AtLeastOnce, 0), true);
    }
    let mut matches = Matches::new();
    router.route(topic("a/b"), 0, &mut matches);
    assert_eq!(matches.len(), 5000 + 15);
    for found in &matches {
        let n = found.session.slot;
        let mut identifiers = matches.identifiers(found).to_vec();
        identifiers.sort_unstable();
        let expected: &[u32] = match (n < 5000, n % 200 == 0) {
            (true, true) => &[7, 9],
            (true, false) => &[7],
            (false, _) => &[9],
        };
        assert_eq!(identifiers, expected);
        assert_eq!(found.qos, if n % 200 == 0 { QoS::ExactlyOnce } else { QoS::AtMostOnce });
    }
    for n in 0..5000 {
        assert!(router.unsubscribe(filter("a/b"), None, session(n)));
    }
    assert_eq!(slots(&router, "a/b").len(), 40);
}

#[test]
fn every_session_can_leave_in_any_order() {
    let router = Router::new();
    for n in 0..1000 {
        router.subscribe(filter("a"), None, subscriber(n, QoS::AtMostOnce, 0), true);
        router.subscribe(filter("a"), Some("g"), subscriber(n, QoS::AtMostOnce, 0), n % 2 == 0);
    }
    for n in (0..1000).map(|n| n * 607 % 1000) {
        assert!(router.unsubscribe(filter("a"), None, session(n)));
        assert!(!router.unsubscribe(filter("a"), None, session(n)));
        assert!(router.unsubscribe(filter("a"), Some("g"), session(n)));
        assert!(!router.unsubscribe(filter("a"), Some("g"), session(n)));
    }
    assert_eq!(router.counts(), Counts::default());
    assert!(slots(&router, "a").is_empty());
}

#[test]
fn the_deepest_topics_and_filters_use_no_stack() {
    let slashes = "/".repeat(65_535);
    let router = Router::new();
    router.subscribe(filter(&slashes), None, subscriber(1, QoS::AtMostOnce, 0), true);
    let plus = "+/".repeat(32_767) + "+";
    router.subscribe(filter(&plus), None, subscriber(2, QoS::AtMostOnce, 0), true);
    router.subscribe(filter(&("a/".repeat(32_000) + "#")), None, subscriber(3, QoS::AtMostOnce, 0), true);
    router.subscribe(filter("+/#"), None, subscriber(4, QoS::AtMostOnce, 0), true);
    assert_eq!(slots(&router, &slashes), [1, 4]);
    assert_eq!(slots(&router, &"/".repeat(32_767)), [2, 4]);
    assert_eq!(slots(&router, &("a/".repeat(32_700) + "a")), [3, 4]);
    assert!(router.unsubscribe(filter(&plus), None, session(2)));
    drop(router);
}

#[derive(Clone, Debug)]
enum Action {
    Subscribe {
        filter: String,
        share: Option<&'static str>,
        session: u32,
        options: (u8, bool, bool, u32),
        online: bool,
    },
    Unsubscribe {
        filter: String,
        share: Option<&'static str>,
        session: u32,
    },
    /// Of a subscription that there is.
    Leave(prop::sample::Index),
    SetOnline(prop::sample::Index, bool),
    Pick {
        like: prop::sample::Index,
        random: u64,
        except: Option<u32>,
    },
    Route {
        topic: String,
        random: u64,
    },
}

fn levels(of: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    prop::collection::vec(prop::sample::select(of), 1..=4)
}

fn any_topic() -> impl Strategy<Value = String> {
    levels(&["", "a", "a", "b", "b", "c", "$SYS"])
        .prop_map(|levels| levels.join("/"))
        .prop_filter("empty", |s| !s.is_empty())
}

fn any_filter() -> impl Strategy<Value = String> {
    (levels(&["", "a", "a", "b", "c", "$SYS", "+", "+", "+"]), prop::bool::weighted(0.3))
        .prop_map(|(mut levels, below)| {
            if below {
                *levels.last_mut().unwrap() = "#";
            }
            levels.join("/")
        })
        .prop_filter("empty", |s| !s.is_empty())
}

fn any_action() -> impl Strategy<Value = Action> {
    let index = any::<prop::sample::Index>;
    let maybe_share = || prop_oneof![3 => Just(None), 1 => prop::sample::select(&[Some("g"), Some("h")][..])];
    prop_oneof![
        6 => (any_filter(), maybe_share(), 0..8u32, (0..3u8, any::<bool>(), any::<bool>(), 0..4u32), any::<bool>())
            .prop_map(|(filter, share, session, options, online)| {
                Action::Subscribe { filter, share, session, options, online }
            }),
        1 => (any_filter(), maybe_share(), 0..8u32)
            .prop_map(|(filter, share, session)| Action::Unsubscribe { filter, share, session }),
        3 => index().prop_map(Action::Leave),
        2 => (index(), any::<bool>()).prop_map(|(which, online)| Action::SetOnline(which, online)),
        1 => (index(), any::<u64>(), prop::option::of(0..8u32))
            .prop_map(|(like, random, except)| Action::Pick { like, random, except }),
        6 => (any_topic(), any::<u64>()).prop_map(|(topic, random)| Action::Route { topic, random }),
    ]
}

/// Every subscription by filter, share and session.
#[derive(Default)]
struct Model(BTreeMap<(String, Option<&'static str>, u32), (Subscriber, bool)>);

impl Model {
    /// Who of a group may be picked.
    fn candidates(&self, filter: &str, share: &str, except: Option<u32>) -> Vec<u32> {
        let members = || {
            self.0
                .iter()
                .filter(|((f, s, n), _)| f == filter && *s == Some(share) && Some(*n) != except)
                .map(|((.., n), (member, online))| (*n, *member, *online))
        };
        let ready: Vec<u32> = members().filter(|(.., online)| *online).map(|(n, ..)| n).collect();
        if !ready.is_empty() {
            return ready;
        }
        members().filter(|(_, member, _)| member.durable).map(|(n, ..)| n).collect()
    }

    fn key(&self, which: prop::sample::Index, shared: bool) -> Option<(String, Option<&'static str>, u32)> {
        let keys: Vec<_> = self.0.keys().filter(|(_, share, _)| !shared || share.is_some()).collect();
        (!keys.is_empty()).then(|| (*which.get(&keys)).clone())
    }

    fn check_route(&self, name: &str, matches: &Matches) {
        let mut expected: BTreeMap<u32, (QoS, bool, bool, bool, Vec<u32>)> = BTreeMap::new();
        let mut groups = BTreeSet::new();
        for ((filter, share, n), (by, _)) in self.0.iter().filter(|((filter, ..), _)| naive_match(filter, name)) {
            if let Some(share) = share {
                if !self.candidates(filter, share, None).is_empty() {
                    groups.insert(format!("$share/{share}/{filter}"));
                }
                continue;
            }
            let entry = expected.entry(*n).or_insert((QoS::AtMostOnce, false, true, by.durable, Vec::new()));
            entry.0 = entry.0.max(by.qos());
            entry.1 |= by.retain_as_published();
            entry.2 &= by.no_local();
            if by.identifier != 0 {
                entry.4.push(by.identifier);
                entry.4.sort_unstable();
            }
        }
        for found in matches {
            let mut identifiers = matches.identifiers(found).to_vec();
            identifiers.sort_unstable();
            assert_eq!(found.session, session(found.session.slot));
            let got = (found.qos, found.retain_as_published, found.no_local, found.durable, identifiers);
            match matches.share(found) {
                None => assert_eq!(expected.remove(&found.session.slot), Some(got)),
                Some(text) => {
                    assert!(groups.remove(&**text), "{text} twice or not at all");
                    let (share, filter) = text.strip_prefix("$share/").unwrap().split_once('/').unwrap();
                    let share = if share == "g" { "g" } else { "h" };
                    assert!(self.candidates(filter, share, None).contains(&found.session.slot));
                    let (by, _) = self.0[&(filter.to_owned(), Some(share), found.session.slot)];
                    let ids = if by.identifier == 0 { vec![] } else { vec![by.identifier] };
                    assert_eq!(got, (by.qos(), by.retain_as_published(), by.no_local(), by.durable, ids));
                }
            }
        }
        assert!(expected.is_empty(), "missing on {name}: {expected:?}");
        assert!(groups.is_empty(), "missing on {name}: {groups:?}");
    }

    fn apply(&mut self, router: &Router, matches: &mut Matches, action: Action) {
        match action {
            Action::Subscribe {
                filter: text,
                share,
                session: n,
                options: (qos, no_local, rap, identifier),
                online,
            } => {
                let options = SubscribeOptions {
                    qos: [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(qos)],
                    no_local,
                    retain_as_published: rap,
                    retain_handling: RetainHandling::Send,
                };
                let by = Subscriber::new(session(n), options, identifier, n.is_multiple_of(2));
                let new = router.subscribe(filter(&text), share, by, online);
                assert_eq!(new, self.0.insert((text, share, n), (by, online)).is_none());
            }
            Action::Unsubscribe { filter: text, share, session: n } => {
                let removed = router.unsubscribe(filter(&text), share, session(n));
                assert_eq!(removed, self.0.remove(&(text, share, n)).is_some());
            }
            Action::Leave(which) => {
                if let Some((text, share, n)) = self.key(which, false) {
                    self.apply(router, matches, Action::Unsubscribe { filter: text, share, session: n });
                }
            }
            Action::SetOnline(which, online) => {
                if let Some((text, Some(share), n)) = self.key(which, true) {
                    router.set_online(filter(&text), share, session(n), online);
                    self.0.get_mut(&(text, Some(share), n)).unwrap().1 = online;
                    // Nobody's business.
                    router.set_online(filter("a/+/nobody"), share, session(n), online);
                }
            }
            Action::Pick { like, random, except } => {
                if let Some((text, Some(share), _)) = self.key(like, true) {
                    let picked = router.pick(filter(&text), share, random, except.map(session)).map(|m| m.session.slot);
                    let candidates = self.candidates(&text, share, except);
                    assert_eq!(picked.is_some(), !candidates.is_empty());
                    assert!(picked.is_none_or(|n| candidates.contains(&n)));
                }
            }
            Action::Route { topic: name, random } => {
                router.route(topic(&name), random, matches);
                self.check_route(&name, matches);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_sequence_of_changes_routes_as_a_list_would(actions in prop::collection::vec(any_action(), 1..200)) {
        let (router, mut matches, mut model) = (Router::new(), Matches::new(), Model::default());
        for action in actions {
            model.apply(&router, &mut matches, action);
        }
        let shared = model.0.keys().filter(|(_, share, _)| share.is_some()).count() as u64;
        assert_eq!(router.counts(), Counts { subscriptions: model.0.len() as u64, shared });
        for (text, share, n) in model.0.keys() {
            assert!(router.unsubscribe(filter(text), *share, session(*n)));
        }
        assert_eq!(router.counts(), Counts::default());
        assert_eq!(router.depths.active.load(Ordering::Relaxed), 0);
        assert!(router.stripes.iter().all(|stripe| stripe.0.read().is_empty()));
    }
}

#[test]
fn routing_sees_a_steady_subscription_while_others_come_and_go() {
    let router = Router::new();
    router.subscribe(filter("dev/p/+/up"), None, subscriber(1, QoS::AtMostOnce, 0), true);
    router.subscribe(filter("dev/p/d/up"), None, subscriber(2, QoS::AtMostOnce, 0), true);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let churn = |base: u32| {
            let router = &router;
            move || {
                for round in 0..3000u32 {
                    let n = base + round % 50;
                    for text in ["dev/p/d/up", "dev/p/+/up", "dev/#", "+/p/#"] {
                        router.subscribe(filter(text), None, subscriber(n, QoS::AtLeastOnce, 0), true);
                        router.subscribe(filter(text), Some("g"), subscriber(n, QoS::AtLeastOnce, 0), true);
                    }
                    for text in ["dev/p/d/up", "dev/p/+/up", "dev/#", "+/p/#"] {
                        assert!(router.unsubscribe(filter(text), None, session(n)));
                        assert!(router.unsubscribe(filter(text), Some("g"), session(n)));
                    }
                }
            }
        };
        let writers = [scope.spawn(churn(100)), scope.spawn(churn(200))];
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let slots = slots(&router, "dev/p/d/up");
                assert!(slots.starts_with(&[1, 2]), "{slots:?}");
            }
        });
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(router.counts().subscriptions, 2);
    assert_eq!(slots(&router, "dev/p/d/up"), [1, 2]);
}
