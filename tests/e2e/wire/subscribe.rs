//! SUBSCRIBE, UNSUBSCRIBE, matching.

use turnpike_tests::broker::Broker;
use turnpike_tests::client::{End, expect_fence, fence};
use turnpike_tests::wire::{self, Connect, Prop, Publish, Version};

const NO_LOCAL: u8 = 4;

fn identifiers(publish: &Publish) -> Vec<u32> {
    let mut ids: Vec<u32> = publish
        .props
        .iter()
        .filter_map(|prop| match prop {
            Prop::SubscriptionId(id) => Some(*id),
            _ => None,
        })
        .collect();
    ids.sort_unstable();
    ids
}

#[test]
fn a_code_for_each_filter_in_order() {
    // [MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-3.8.4-6] [MQTT-3.9.3-1]
    let broker = Broker::start();
    for version in Version::ALL {
        let mut client = broker.clean(version, "client");
        assert_eq!(client.subscribe(&[("a", 0), ("b/+", 1), ("c/#", 2), ("+/+", 0)]), [0, 1, 2, 0]);
    }
}

#[test]
fn filters_match_what_the_specification_says() {
    let broker = Broker::start();
    let mut publisher = broker.clean(Version::V311, "publisher");
    let topics = [
        "sport",
        "sport/",
        "sport/tennis",
        "sport/tennis/player1",
        "sport/tennis/player1/ranking",
        "sport/tennis/player2",
        "/finance",
        "finance",
        "/",
        "Sport",
        "SPORT/tennis",
        "$internal",
        "$internal/x",
        "a b/c d",
        "ü/ñ",
    ];
    for (filter, expected) in [
        ("sport/tennis/player1/#", vec!["sport/tennis/player1", "sport/tennis/player1/ranking"]),
        (
            "sport/#",
            vec![
                "sport",
                "sport/",
                "sport/tennis",
                "sport/tennis/player1",
                "sport/tennis/player1/ranking",
                "sport/tennis/player2",
            ],
        ),
        ("sport/tennis/+", vec!["sport/tennis/player1", "sport/tennis/player2"]),
        ("sport/+", vec!["sport/", "sport/tennis"]),
        ("+", vec!["sport", "finance", "Sport"]),
        ("+/+", vec!["sport/", "sport/tennis", "/finance", "/", "SPORT/tennis", "a b/c d", "ü/ñ"]),
        ("/+", vec!["/finance", "/"]),
        (
            "+/tennis/#",
            vec![
                "sport/tennis",
                "sport/tennis/player1",
                "sport/tennis/player1/ranking",
                "sport/tennis/player2",
                "SPORT/tennis",
            ],
        ),
        ("#", topics.iter().copied().filter(|topic| !topic.starts_with('$')).collect()),
        ("$internal/#", vec!["$internal", "$internal/x"]),
        ("$internal/+", vec!["$internal/x"]),
        ("+/x", vec![]),
        ("a b/+", vec!["a b/c d"]),
        ("ü/ñ", vec!["ü/ñ"]),
    ] {
        // [MQTT-4.7.2-1] [MQTT-4.7.3-4]
        let mut client = broker.clean(Version::V311, "client");
        client.subscribe(&[(filter, 0)]);
        expect_fence(&mut client);
        for topic in topics {
            publisher.publish(&Publish::new(topic, "x"));
        }
        let got: Vec<String> = fence(&mut publisher, &mut client)
            .into_iter()
            .map(|publish| publish.topic)
            .filter(|topic| !topic.starts_with("$SYS"))
            .collect();
        assert_eq!(got, expected, "{filter}");
    }
}

#[test]
fn the_qos_is_the_lower_of_both() {
    // [MQTT-3.8.4-8]
    let broker = Broker::start();
    for version in Version::ALL {
        let mut publisher = broker.clean(version, "publisher");
        for granted in 0..=2 {
            let mut client = broker.clean(version, "client");
            client.subscribe(&[("t", granted)]);
            for published in 0..=2 {
                publisher.publish(&Publish::new("t", "x").qos(published, 1));
                assert_eq!(client.take().qos, published.min(granted));
            }
        }
    }
}

#[test]
fn overlapping_subscriptions_bring_one_copy_at_the_highest_qos() {
    // [MQTT-3.3.4-2]
    let broker = Broker::start();
    for version in Version::ALL {
        let mut client = broker.clean(version, "client");
        client.subscribe(&[("t/#", 0), ("t/1", 2), ("t/+", 1), ("#", 0)]);
        expect_fence(&mut client);
        let mut publisher = broker.clean(version, "publisher");
        publisher.publish(&Publish::new("t/1", "x").qos(2, 1));
        let got = fence(&mut publisher, &mut client);
        let got: Vec<_> = got.iter().filter(|publish| !publish.topic.starts_with("$SYS")).collect();
        assert_eq!(got.len(), 1, "{got:?}");
        assert_eq!(got[0].qos, 2);
    }
}

#[test]
fn subscription_identifiers_come_with_what_they_brought() {
    // [MQTT-3.3.4-3] [MQTT-3.3.4-4]
    let broker = Broker::start();
    let mut client = broker.clean(Version::V5, "client");
    client.subscribe_with(&[("t/#", 1)], &[Prop::SubscriptionId(1)]);
    client.subscribe_with(&[("t/1", 2), ("t/2", 0)], &[Prop::SubscriptionId(268_435_455)]);
    client.subscribe_with(&[("+/1", 0)], &[]);
    client.subscribe_with(&[("#", 0)], &[Prop::SubscriptionId(300)]);
    let mut publisher = broker.clean(Version::V5, "publisher");
    for (topic, expected) in [
        ("t/1", vec![1, 300, 268_435_455]),
        ("t/2", vec![1, 300, 268_435_455]),
        ("t/3", vec![1, 300]),
        ("x/1", vec![300]),
    ] {
        publisher.publish(&Publish::new(topic, "x").qos(1, 1));
        let got = client.take();
        assert_eq!((got.topic.as_str(), identifiers(&got)), (topic, expected));
    }
    // A new SUBSCRIBE replaces the identifier, or takes it away.
    client.subscribe_with(&[("#", 0)], &[Prop::SubscriptionId(5)]);
    publisher.publish(&Publish::new("y", "x"));
    assert_eq!(identifiers(&client.take()), [5]);
    client.subscribe_with(&[("#", 0)], &[]);
    publisher.publish(&Publish::new("y", "x"));
    assert_eq!(identifiers(&client.take()).len(), 0);
}

#[test]
fn identifiers_come_with_retained_messages_and_out_of_the_queue() {
    let broker = Broker::start();
    let mut publisher = broker.clean(Version::V5, "publisher");
    publisher.publish(&Publish::new("t", "kept").qos(1, 1).retain());
    let connect = Connect::durable(Version::V5, "client", 100);
    let mut client = broker.client(&connect);
    client.subscribe_with(&[("t", 1)], &[Prop::SubscriptionId(9)]);
    assert_eq!(identifiers(&client.take()), [9]);
    client.disconnect();
    publisher.publish(&Publish::new("t", "queued").qos(1, 1));
    let mut client = broker.client(&connect);
    assert_eq!(identifiers(&client.take()), [9]);
}

#[test]
fn no_local_keeps_ones_own_messages_away() {
    // [MQTT-3.8.3-3]
    let broker = Broker::start();
    let mut client = broker.clean(Version::V5, "client");
    client.subscribe(&[("t", 2 | NO_LOCAL)]);
    expect_fence(&mut client);
    let mut other = broker.clean(Version::V5, "other");
    for qos in 0..=2 {
        client.publish(&Publish::new("t", "mine").qos(qos, 1));
        other.publish(&Publish::new("t", "theirs").qos(qos, 1));
        let got = fence(&mut other, &mut client);
        assert_eq!(got.iter().map(Publish::text).collect::<Vec<_>>(), ["theirs"]);
    }
    // Without it they come.
    client.subscribe(&[("t", 2)]);
    client.send(&Publish::new("t", "mine").encode(Version::V5));
    assert_eq!(client.take().text(), "mine");
}

#[test]
fn no_local_of_one_filter_does_not_silence_another() {
    let broker = Broker::start();
    let mut client = broker.clean(Version::V5, "client");
    client.subscribe(&[("t", NO_LOCAL), ("#", 0)]);
    client.send(&Publish::new("t", "mine").encode(Version::V5));
    assert_eq!(client.take().text(), "mine");
}

#[test]
fn subscribing_again_replaces_the_subscription() {
    // [MQTT-3.8.4-3]
    let broker = Broker::start();
    for version in Version::ALL {
        let mut client = broker.clean(version, "client");
        client.subscribe(&[("t", 2)]);
        client.subscribe(&[("t", 0)]);
        let mut publisher = broker.clean(version, "publisher");
        publisher.publish(&Publish::new("t", "x").qos(2, 1));
        assert_eq!(client.take().qos, 0);
        client.quiet();
        client.unsubscribe(&["t"]);
        expect_fence(&mut client);
        publisher.publish(&Publish::new("t", "x"));
        assert_eq!(fence(&mut publisher, &mut client), []);
    }
}

#[test]
fn unsubscribing_says_for_each_filter_whether_it_was_there() {
    // [MQTT-3.10.4-4] [MQTT-3.11.3-1]
    let broker = Broker::start();
    let mut client = broker.clean(Version::V5, "client");
    client.subscribe(&[("a", 0), ("b/#", 0), ("c/+", 0)]);
    assert_eq!(client.unsubscribe(&["a", "b", "b/#", "c/x", "a"]), [0, 0x11, 0, 0x11, 0x11]);
    for version in [Version::V31, Version::V311] {
        let mut client = broker.clean(version, "client");
        // [MQTT3-3.10.4-5]
        assert_eq!(client.unsubscribe(&["never"]).len(), 0);
    }
}

#[test]
fn unsubscribing_stops_the_flow_and_nothing_else() {
    // [MQTT-3.10.4-1] [MQTT-3.10.4-2]
    let broker = Broker::start();
    for version in Version::ALL {
        let mut client = broker.clean(version, "client");
        client.subscribe(&[("t/1", 1), ("t/2", 1)]);
        expect_fence(&mut client);
        client.unsubscribe(&["t/1"]);
        let mut publisher = broker.clean(version, "publisher");
        publisher.publish(&Publish::new("t/1", "x").qos(1, 1));
        publisher.publish(&Publish::new("t/2", "x").qos(1, 2));
        let got = fence(&mut publisher, &mut client);
        assert_eq!(got.len(), 1);
        assert_eq!(got[0].topic, "t/2");
    }
}

#[test]
fn what_is_under_way_is_finished_after_unsubscribing() {
    // [MQTT-3.10.4-3]
    let broker = Broker::start();
    let connect = Connect::durable(Version::V5, "client", 100);
    let mut client = broker.client(&connect);
    client.subscribe(&[("t", 2)]);
    let mut publisher = broker.clean(Version::V5, "publisher");
    publisher.publish(&Publish::new("t", "x").qos(2, 1));
    let open = client.publish_in();
    client.unsubscribe(&["t"]);
    client.send(&wire::ack(5, open.id, 0));
    assert_eq!(client.ack_in(6).id, open.id);
    client.send(&wire::ack(7, open.id, 0));
    client.quiet();
}

#[test]
fn sys_topics_can_be_read() {
    let broker = Broker::start();
    for version in Version::ALL {
        let mut client = broker.clean(version, "client");
        assert_eq!(client.subscribe(&[("$SYS/broker/nothing/of/this/name", 0)]), [0]);
        assert_eq!(client.subscribe(&[("$SYS/#", 0)]), [0]);
        let publish = client.take();
        assert!(publish.topic.starts_with("$SYS/"), "{publish:?}");
    }
}

#[test]
fn a_filter_that_is_wrong_ends_the_connection() {
    let broker = Broker::start();
    for version in Version::ALL {
        for filter in ["", "#/a", "a/#/b", "a#", "#a", "a+", "+a", "a/+b/c", "a/b#"] {
            let mut client = broker.clean(version, "client");
            client.send(&wire::subscribe(version, 1, &[(filter, 0)], &[]));
            let end = client.end();
            match version {
                Version::V5 => assert_eq!(end, End::Disconnected(0x81), "{filter:?}"),
                _ => assert_eq!(end, End::Closed, "{filter:?} in {version:?}"),
            }
        }
    }
}

#[test]
fn more_levels_than_the_limit_are_refused() {
    let broker = Broker::start();
    let long = "/".repeat(65_535);
    for version in Version::ALL {
        let mut client = broker.clean(version, "client");
        let is_v5 = version == Version::V5;
        assert_eq!(client.subscribe(&[(&long, 0)]), [if is_v5 { 0x8F } else { 0x80 }]);
        let publish = Publish::new(&long, "x").qos(1, 1);
        if is_v5 {
            assert_eq!(client.publish(&publish), 0x90);
        } else {
            client.try_send(&publish.encode(version));
            assert_eq!(client.end(), End::Closed);
        }
    }
}

#[test]
fn a_long_topic_is_a_topic() {
    let broker = Broker::start();
    let long = "x".repeat(65_535);
    for version in Version::ALL {
        let mut client = broker.clean(version, "client");
        client.subscribe(&[(&long, 0)]);
        client.send(&Publish::new(&long, "y").encode(version));
        assert_eq!(client.take().text(), "y");
    }
}

#[test]
fn many_filters_in_one_packet() {
    let broker = Broker::start();
    let names: Vec<String> = (0..500).map(|n| format!("t/{n}")).collect();
    let filters: Vec<(&str, u8)> = names.iter().map(|name| (name.as_str(), 1)).collect();
    let mut client = broker.clean(Version::V5, "client");
    assert!(client.subscribe(&filters).iter().all(|code| *code == 1));
    let mut publisher = broker.clean(Version::V5, "publisher");
    for name in &names {
        publisher.publish(&Publish::new(name, "x").qos(1, 1));
        assert_eq!(client.take().topic, *name);
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert!(client.unsubscribe(&names).iter().all(|code| *code == 0));
}
