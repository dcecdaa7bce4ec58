//! The store against a plain map and a matcher that goes level by level.

use std::collections::BTreeMap;

use proptest::prelude::*;
use turnpike_mqtt::QoS;

use super::*;
use crate::message::MessageParts;

fn message(topic: &str, payload: &[u8], expires_at_ms: Option<u64>) -> Arc<Message> {
    Arc::new(Message::new(&MessageParts {
        topic: TopicName::from_validated(topic),
        properties: &[],
        payload,
        qos: QoS::AtLeastOnce,
        retain: true,
        expires_at_ms,
        publisher: None,
    }))
}

fn name(text: &str) -> TopicName<'_> {
    TopicName::from_validated(text)
}

fn store() -> RetainedStore {
    RetainedStore::new(1_000_000, 1 << 30)
}

fn matching(store: &RetainedStore, filter: &str, now: u64) -> Vec<String> {
    let mut found = Vec::new();
    store.matching(TopicFilter::from_validated(filter), now, &mut |message| {
        found.push(message.topic().as_str().to_owned());
    });
    found
}

fn naive_match(filter: &str, topic: &str) -> bool {
    fn levels(filter: &[&str], topic: &[&str]) -> bool {
        match (filter, topic) {
            (["#"], _) | ([], []) => true,
            ([f, filter @ ..], [t, topic @ ..]) => (*f == "+" || f == t) && levels(filter, topic),
            _ => false,
        }
    }
    let hidden = topic.starts_with('$') && filter.starts_with(['+', '#']);
    !hidden && levels(&filter.split('/').collect::<Vec<_>>(), &topic.split('/').collect::<Vec<_>>())
}

#[test]
fn a_topic_has_one_message() {
    let store = store();
    assert_eq!(store.set(message("a/b", b"1", None), 0), Ok(false));
    assert_eq!(store.set(message("a/b", b"22", None), 0), Ok(true));
    assert_eq!(store.len(), 1);
    assert_eq!(store.bytes(), message("a/b", b"22", None).cost() as u64);
    assert_eq!(store.get(name("a/b"), 0).unwrap().parts().payload, b"22");
    assert!(store.remove(name("a/b")));
    assert!(!store.remove(name("a/b")));
    assert_eq!((store.len(), store.bytes()), (0, 0));
    assert!(store.topics.read().is_empty());
}

#[test]
fn bounds_refuse_and_change_nothing() {
    let cost = message("a", b"1", None).cost() as u64;
    let store = RetainedStore::new(2, 2 * cost + 1);
    store.set(message("a", b"1", None), 0).unwrap();
    assert_eq!(store.set(message("b", b"333", None), 0), Err(RetainFull), "bytes");
    store.set(message("b", b"1", None), 0).unwrap();
    assert_eq!(store.set(message("c", b"", None), 0), Err(RetainFull), "messages");
    assert_eq!((store.len(), store.bytes()), (2, 2 * cost));
    assert_eq!(store.set(message("a", b"333", None), 0), Err(RetainFull), "growth");
    assert_eq!(store.get(name("a"), 0).unwrap().parts().payload, b"1");
    assert_eq!(store.set(message("a", b"22", None), 0), Ok(true));
    assert_eq!(matching(&store, "#", 0), ["a", "b"]);
}

#[test]
fn what_has_expired_is_hidden_and_then_swept() {
    let store = store();
    for n in 0..500 {
        store.set(message(&format!("t/{n}"), b"x", (n % 2 == 0).then_some(100 + n)), 0).unwrap();
    }
    assert_eq!(matching(&store, "t/+", 99).len(), 500);
    assert_eq!(matching(&store, "t/#", 299).len(), 400);
    assert!(store.get(name("t/10"), 110).is_none());
    assert_eq!(store.set(message("t/10", b"y", None), 110), Ok(false), "the former one had expired");
    assert!(store.sweep(99, 1000).is_empty());
    let mut swept = Vec::new();
    for _ in 0..STRIPES {
        swept.extend(store.sweep(1000, 7));
    }
    assert_eq!(swept.len(), 249);
    assert_eq!(store.len(), 251);
    assert_eq!(store.topics.read().len(), 251);
    assert!(store.sweep(u64::MAX, usize::MAX).is_empty());
}

#[test]
fn levels_that_sort_before_a_slash_do_not_mislead_a_scan() {
    let store = store();
    for topic in
        ["a", "a!", "a!/x", "a/", "a/!", "a/x", "a/x!", "a/x/y", "a/\u{1}/x", "b/x", "$SYS/x", "$x", "%/x", "/x"]
    {
        store.set(message(topic, b"1", None), 0).unwrap();
    }
    assert_eq!(matching(&store, "+/x", 0), ["/x", "%/x", "a/x", "a!/x", "b/x"]);
    assert_eq!(matching(&store, "a/+/x", 0), ["a/\u{1}/x"]);
    assert_eq!(matching(&store, "a/#", 0), ["a", "a/", "a/\u{1}/x", "a/!", "a/x", "a/x/y", "a/x!"]);
    assert_eq!(matching(&store, "$SYS/#", 0), ["$SYS/x"]);
    assert_eq!(matching(&store, "#", 0).len(), 12);
}

#[test]
fn a_scan_leaps_over_what_lies_below() {
    let mut keys = BTreeSet::new();
    for device in 0..100 {
        for n in 0..100 {
            keys.insert(scan::key(&format!("dev/{device}/data/{n}")));
        }
        keys.insert(scan::key(&format!("dev/{device}/status")));
    }
    let (mut scan, mut found, mut runs) = (Scan::new("dev/+/status"), Vec::new(), 0);
    while !scan.is_done() {
        scan.run(&keys, 10, &mut found);
        runs += 1;
    }
    assert_eq!(found.len(), 100);
    assert!(runs < 100, "{runs} runs of 10 steps over 10,100 topics");
}

#[test]
fn a_walk_goes_on_where_it_was_left() {
    let store = store();
    for n in 0..20 {
        store.set(message(&format!("t/{n:02}"), b"x", None), 0).unwrap();
    }
    let (mut walk, mut found) = (Walk::new(TopicFilter::from_validated("t/+")), Vec::new());
    assert!(store.step(&mut walk, 2, 0, &mut |message| found.push(message.topic().as_str().to_owned())));
    assert_eq!(found, ["t/00", "t/01"]);
    store.remove(name("t/02"));
    while store.step(&mut walk, 2, 0, &mut |message| found.push(message.topic().as_str().to_owned())) {}
    assert_eq!(found.len(), 19);
    assert!(!store.step(&mut walk, 2, 0, &mut |_| unreachable!()));
}

#[derive(Clone, Debug)]
enum Action {
    Set(String, Option<u64>),
    Remove(String),
    Sweep(u64),
    Matching(String, u64),
}

fn path(of: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(of), 1..=4)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("empty", |text| !text.is_empty())
}

fn any_topic() -> impl Strategy<Value = String> {
    path(&["", "a", "a!", "b", "c", "$S", "z"])
}

fn any_filter() -> impl Strategy<Value = String> {
    (path(&["", "a", "b", "c", "$S", "+", "+", "+"]), prop::bool::weighted(0.4)).prop_map(|(text, below)| match below {
        true if text == "+" => "#".to_owned(),
        true => text + "/#",
        false => text,
    })
}

fn any_action() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => (any_topic(), prop::option::of(0..50u64)).prop_map(|(topic, expires)| Action::Set(topic, expires)),
        1 => any_topic().prop_map(Action::Remove),
        1 => (0..50u64).prop_map(Action::Sweep),
        4 => (any_filter(), 0..50u64).prop_map(|(filter, now)| Action::Matching(filter, now)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_sequence_of_changes_matches_as_a_map_would(actions in prop::collection::vec(any_action(), 1..150)) {
        let (store, mut model) = (store(), BTreeMap::new());
        for action in actions {
            match action {
                Action::Set(topic, expires) => {
                    let former = model.insert(topic.clone(), expires);
                    let live = former.is_some_and(|expires| expires.is_none_or(|at| at > 20));
                    prop_assert_eq!(store.set(message(&topic, b"x", expires), 20), Ok(live));
                }
                Action::Remove(topic) => prop_assert_eq!(store.remove(name(&topic)), model.remove(&topic).is_some()),
                Action::Sweep(now) => {
                    let mut swept: Vec<String> = store.sweep(now, usize::MAX).into_iter().map(String::from).collect();
                    swept.sort();
                    let due = |expires: &Option<u64>| expires.is_some_and(|at| at <= now);
                    let expected: Vec<String> = model.iter().filter(|(_, e)| due(e)).map(|(t, _)| t.clone()).collect();
                    model.retain(|_, expires| !due(expires));
                    prop_assert_eq!(swept, expected);
                }
                Action::Matching(filter, now) => {
                    let mut found = matching(&store, &filter, now);
                    found.sort();
                    let expected: Vec<String> = model
                        .iter()
                        .filter(|(topic, expires)| naive_match(&filter, topic) && expires.is_none_or(|at| at > now))
                        .map(|(topic, _)| topic.clone())
                        .collect();
                    prop_assert_eq!(found, expected, "{}", filter);
                }
            }
            prop_assert_eq!(store.len(), model.len() as u64);
        }
        let bytes: usize = model.iter().map(|(topic, expires)| message(topic, b"x", *expires).cost()).sum();
        prop_assert_eq!(store.bytes(), bytes as u64);
        prop_assert_eq!(store.topics.read().len(), model.len());
    }
}

#[test]
fn setting_removing_and_scanning_at_once_leaves_a_consistent_store() {
    let store = store();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for n in 0..5000u32 {
                    let topic = format!("t/{}", n * 7 % 97);
                    if n % 3 == 0 {
                        store.remove(name(&topic));
                    } else {
                        store.set(message(&topic, b"x", None), 0).unwrap();
                    }
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..200 {
                assert!(matching(&store, "+/+", 0).len() <= 97);
            }
        });
    });
    assert_eq!(matching(&store, "#", 0).len() as u64, store.len());
    assert_eq!(store.topics.read().len() as u64, store.len());
}
