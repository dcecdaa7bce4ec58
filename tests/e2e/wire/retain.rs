//! Retained messages.

use turnpike_tests::broker::Broker;
use turnpike_tests::client::{expect_fence, fence};
use turnpike_tests::wire::{self, Publish, Version};

/// Options of a subscription: QoS, retain as published, retain handling.
fn options(qos: u8, as_published: bool, handling: u8) -> u8 {
    qos | (u8::from(as_published) << 3) | (handling << 4)
}

#[test]
fn the_last_message_is_kept_for_those_who_come_later() {
    // [MQTT-3.3.1-5] [MQTT-3.3.1-9] [MQTT3-3.3.1-6] [MQTT3-3.3.1-8]
    let broker = Broker::start();
    for version in Version::ALL {
        let mut publisher = broker.clean(version, "publisher");
        for qos in 0..=2 {
            let topic = format!("kept/{version:?}/{qos}");
            for text in ["old", "new"] {
                publisher.publish(&Publish::new(&topic, text).qos(qos, 1).retain());
            }
            // Not retained: doesn't replace it. [MQTT-3.3.1-8]
            publisher.publish(&Publish::new(&topic, "passing").qos(qos, 1));
            for granted in 0..=2 {
                let mut late = broker.clean(version, "late");
                assert_eq!(late.subscribe(&[(&topic, granted)]), [granted]);
                let got = late.take();
                assert_eq!((got.text(), got.retain, got.qos, got.dup), ("new", true, qos.min(granted), false));
                late.quiet();
            }
        }
    }
}

#[test]
fn an_empty_message_clears_the_topic() {
    // [MQTT-3.3.1-6] [MQTT-3.3.1-7]
    let broker = Broker::start();
    for version in Version::ALL {
        let mut watcher = broker.clean(version, "watcher");
        watcher.subscribe(&[("kept", 0)]);
        let mut publisher = broker.clean(version, "publisher");
        for qos in 0..=2 {
            publisher.publish(&Publish::new("kept", "x").qos(qos, 1).retain());
            assert_eq!(watcher.take().text(), "x");
            publisher.publish(&Publish::new("kept", "").qos(qos, 1).retain());
            let cleared = watcher.take();
            assert_eq!((cleared.payload.len(), cleared.retain), (0, false));
            let mut late = broker.clean(version, "late");
            late.subscribe(&[("kept", 0)]);
            late.quiet();
        }
    }
}

#[test]
fn wildcards_find_all_and_only_what_matches() {
    let broker = Broker::start();
    let mut publisher = broker.clean(Version::V311, "publisher");
    for topic in ["a", "a/b", "a/b/c", "b/b", "/b", "a/", "$dollar/b"] {
        publisher.publish(&Publish::new(topic, topic).qos(1, 1).retain());
    }
    for (filter, expected) in [
        ("#", vec!["/b", "a", "a/", "a/b", "a/b/c", "b/b"]),
        ("+", vec!["a"]),
        ("a/#", vec!["a", "a/", "a/b", "a/b/c"]),
        ("+/b", vec!["/b", "a/b", "b/b"]),
        ("a/+", vec!["a/", "a/b"]),
        ("+/+/#", vec!["/b", "a/", "a/b", "a/b/c", "b/b"]),
        ("$dollar/#", vec!["$dollar/b"]),
        ("a/b/c/#", vec!["a/b/c"]),
        ("a/x", vec![]),
    ] {
        let mut late = broker.clean(Version::V311, "late");
        late.subscribe(&[(filter, 0)]);
        expect_fence(&mut late);
        let mut got: Vec<String> = fence(&mut publisher, &mut late)
            .into_iter()
            .filter(|publish| !publish.topic.starts_with("$SYS"))
            .map(|publish| publish.topic)
            .collect();
        got.sort();
        assert_eq!(got, expected, "{filter}");
    }
}

#[test]
fn every_subscribe_brings_them_again_unless_told_not_to() {
    // [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11]
    let broker = Broker::start();
    let mut publisher = broker.clean(Version::V5, "publisher");
    publisher.publish(&Publish::new("kept", "x").qos(1, 1).retain());
    let mut client = broker.clean(Version::V5, "client");
    let mut comes = |handling: u8, expected: bool| {
        assert_eq!(client.subscribe(&[("kept", options(1, false, handling))]), [1]);
        if expected {
            assert_eq!(client.take().text(), "x");
        }
        client.quiet();
    };
    comes(2, false);
    comes(1, false);
    comes(0, true);
    comes(0, true);
    let mut fresh = broker.clean(Version::V5, "fresh");
    for (n, expected) in [true, false, false].into_iter().enumerate() {
        fresh.subscribe(&[("kept", options(1, false, 1))]);
        if expected {
            assert_eq!(fresh.take().text(), "x", "{n}");
        }
        fresh.quiet();
    }
    fresh.unsubscribe(&["kept"]);
    fresh.subscribe(&[("kept", options(1, false, 1))]);
    assert_eq!(fresh.take().text(), "x", "after unsubscribing the subscription is new");
    let mut old = broker.clean(Version::V311, "old");
    for _ in 0..2 {
        old.subscribe(&[("kept", 1)]);
        assert!(old.take().retain);
    }
}

#[test]
fn the_flag_is_kept_where_the_subscriber_asks_for_it() {
    // [MQTT-3.3.1-12] [MQTT-3.3.1-13]
    let broker = Broker::start();
    let mut publisher = broker.clean(Version::V5, "publisher");
    for as_published in [false, true] {
        let mut client = broker.clean(Version::V5, "client");
        client.subscribe(&[("kept", options(2, as_published, 2))]);
        for retain in [false, true] {
            for qos in 0..=2 {
                let mut publish = Publish::new("kept", "x").qos(qos, 1);
                publish.retain = retain;
                publisher.publish(&publish);
                assert_eq!(client.take().retain, retain && as_published);
            }
        }
        // What is sent because of the subscription is marked in any case.
        client.subscribe(&[("kept", options(2, as_published, 0))]);
        assert!(client.take().retain);
    }
}

#[test]
fn retained_messages_come_after_the_suback() {
    let broker = Broker::start();
    let mut publisher = broker.clean(Version::V5, "publisher");
    for n in 0..100 {
        publisher.publish(&Publish::new(&format!("kept/{n}"), "x").qos(1, 1).retain());
    }
    let mut client = broker.clean(Version::V5, "client");
    client.send(&wire::subscribe(Version::V5, 1, &[("kept/#", 0)], &[]));
    assert_eq!(client.ack_in(9).codes, [0]);
    for _ in 0..100 {
        assert!(client.take().retain);
    }
    client.quiet();
}

#[test]
fn retained_messages_survive_their_publisher_and_a_restart() {
    // [MQTT3-3.1.2-7]
    let mut broker = Broker::start();
    let mut publisher = broker.clean(Version::V311, "publisher");
    publisher.publish(&Publish::new("kept/1", "one").qos(1, 1).retain());
    publisher.publish(&Publish::new("kept/2", "two").qos(2, 2).retain());
    publisher.publish(&Publish::new("kept/gone", "three").qos(1, 3).retain());
    publisher.publish(&Publish::new("kept/gone", "").qos(1, 4).retain());
    publisher.disconnect();
    broker.restart();
    let mut late = broker.clean(Version::V311, "late");
    late.subscribe(&[("kept/#", 2)]);
    let mut got = [late.take(), late.take()];
    got.sort_by(|a, b| a.topic.cmp(&b.topic));
    assert_eq!(got.iter().map(|publish| (publish.text(), publish.qos)).collect::<Vec<_>>(), [("one", 1), ("two", 2)]);
    late.quiet();
}

#[test]
fn overlapping_filters_bring_each_retained_message_for_each_filter_at_most() {
    let broker = Broker::start();
    let mut publisher = broker.clean(Version::V311, "publisher");
    publisher.publish(&Publish::new("kept/1", "x").qos(1, 1).retain());
    let mut client = broker.clean(Version::V311, "client");
    client.subscribe(&[("kept/#", 1), ("kept/+", 0)]);
    let first = client.take();
    assert!(first.retain);
    let more = client.drain();
    assert!(more.len() <= 1, "{more:?}");
}
