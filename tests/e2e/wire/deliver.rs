//! PUBLISH to a client: identifiers, repetition after a reconnection, receive maximum, packet size, topic aliases.

use turnpike_tests::broker::Broker;
use turnpike_tests::client::{Client, End};
use turnpike_tests::wire::{self, Connect, Packet, Prop, Publish, Version};

#[test]
fn identifiers_begin_with_1_and_go_up() {
    // [MQTT-2.2.1-4]
    let broker = Broker::start();
    for version in Version::ALL {
        let mut watcher = broker.clean(version, "watcher");
        watcher.subscribe(&[("t", 2)]);
        let mut client = broker.clean(version, "publisher");
        for n in 1..=20u16 {
            client.publish(&Publish::new("t", "0"));
            client.publish(&Publish::new("t", "1").qos(1 + (n % 2) as u8, n));
            assert_eq!(watcher.take().qos, 0);
            assert_eq!(watcher.take().id, n);
        }
    }
}

#[test]
fn unacknowledged_messages_are_repeated_after_a_reconnection_and_not_before() {
    // [MQTT-4.4.0-1] [MQTT-3.3.1-1]
    let broker = Broker::start();
    for version in Version::ALL {
        let connect = Connect::durable(version, "forgetful", 100);
        let mut client = broker.client(&connect);
        client.subscribe(&[("t", 2)]);
        let mut publisher = broker.clean(version, "publisher");
        for n in 1..=6u16 {
            publisher.publish(&Publish::new("t", format!("{n}")).qos(1 + (n % 2) as u8, n));
        }
        let first: Vec<Publish> = (0..6).map(|_| client.publish_in()).collect();
        assert!(first.iter().all(|publish| !publish.dup));
        client.quiet();
        // Of the third on the broker learns; the second (QoS 2 has odd numbers, so 2 is QoS 1) stays open.
        client.send(&wire::ack(5, first[2].id, 0));
        assert_eq!(client.ack_in(6).id, first[2].id);
        client.send(&wire::ack(4, first[3].id, 0));
        client.quiet();
        client.drop_connection();

        let mut client = broker.client(&connect);
        let again = client.drain();
        let publishes: Vec<&Publish> = again
            .iter()
            .filter_map(|packet| match packet {
                Packet::Publish(publish) => Some(publish),
                _ => None,
            })
            .collect();
        let ids: Vec<u16> = publishes.iter().map(|publish| publish.id).collect();
        // [MQTT-4.6.0-1] The same identifiers in the same order; [MQTT-4.3.3-6] what is past PUBREC is not published again.
        let expected: Vec<u16> = [0, 1, 4, 5].map(|n: usize| first[n].id).to_vec();
        assert_eq!(ids, expected, "{version:?}");
        assert!(publishes.iter().all(|publish| publish.dup));
        assert!(
            again.contains(&Packet::PubRel(wire::Ack { id: first[2].id, codes: vec![0], props: vec![] })),
            "{again:?}"
        );
        client.disconnect();
        broker.clean(version, "forgetful").disconnect();
    }
}

#[test]
fn pubrel_is_repeated_until_pubcomp() {
    let broker = Broker::start();
    for version in Version::ALL {
        let connect = Connect::durable(version, "forgetful", 100);
        let mut client = broker.client(&connect);
        client.subscribe(&[("t", 2)]);
        let mut publisher = broker.clean(version, "publisher");
        publisher.publish(&Publish::new("t", "x").qos(2, 1));
        let id = client.publish_in().id;
        client.send(&wire::ack(5, id, 0));
        assert_eq!(client.ack_in(6).id, id);
        for _ in 0..2 {
            client.drop_connection();
            client = broker.client(&connect);
            assert_eq!(client.ack_in(6).id, id);
            client.quiet();
        }
        // A second PUBREC is answered as the first was.
        client.send(&wire::ack(5, id, 0));
        assert_eq!(client.ack_in(6).id, id);
        client.send(&wire::ack(7, id, 0));
        client.quiet();
        client.disconnect();
        let mut client = broker.client(&connect);
        client.quiet();
        client.disconnect();
        broker.clean(version, "forgetful").disconnect();
    }
}

#[test]
fn the_wrong_acknowledgement_is_a_protocol_error() {
    let broker = Broker::start();
    for version in Version::ALL {
        for (qos, acks) in [(1u8, &[5u8][..]), (1, &[7]), (2, &[4]), (2, &[7]), (2, &[5, 4])] {
            let mut client = broker.clean(version, "confused");
            client.subscribe(&[("t", 2)]);
            let mut publisher = broker.clean(version, "publisher");
            publisher.publish(&Publish::new("t", "x").qos(qos, 1));
            let id = client.publish_in().id;
            for (n, kind) in acks.iter().enumerate() {
                client.send(&wire::ack(*kind, id, 0));
                if n + 1 < acks.len() {
                    let _ = client.ack_in(6);
                }
            }
            client.ends_with(0x82);
        }
    }
}

#[test]
fn a_negative_acknowledgement_ends_the_exchange() {
    // [MQTT-4.4.0-2]
    let broker = Broker::start();
    let connect = Connect::durable(Version::V5, "picky", 100).prop(Prop::ReceiveMaximum(1));
    let mut client = broker.client(&connect);
    client.subscribe(&[("t", 2)]);
    let mut publisher = broker.clean(Version::V5, "publisher");
    for (n, text) in ["1", "2", "3"].iter().enumerate() {
        publisher.publish(&Publish::new("t", text).qos(2 - (n % 2) as u8, 1));
    }
    let first = client.publish_in();
    client.send(&wire::ack(5, first.id, 0x80));
    let second = client.publish_in();
    assert_eq!(second.text(), "2");
    client.send(&wire::ack(4, second.id, 0x83));
    let third = client.publish_in();
    client.send(&wire::ack(5, third.id, 0x97));
    client.quiet();
    client.disconnect();
    let mut client = broker.client(&connect);
    client.quiet();
}

#[test]
fn no_more_than_the_receive_maximum_is_under_way() {
    // [MQTT-3.3.4-9] [MQTT-4.9.0-2]
    let broker = Broker::start();
    for qos in [1u8, 2] {
        let mut client = broker.client(&Connect::new(Version::V5, "slow").prop(Prop::ReceiveMaximum(3)));
        client.subscribe(&[("t", 2)]);
        let mut publisher = broker.clean(Version::V5, "publisher");
        for n in 1..=10u16 {
            publisher.publish(&Publish::new("t", format!("{n}")).qos(qos, n));
        }
        let mut under_way: Vec<Publish> = (0..3).map(|_| client.publish_in()).collect();
        // [MQTT-4.9.0-3] The rest goes on.
        client.quiet();
        for n in 4..=10 {
            let done = under_way.remove(0);
            if qos == 1 {
                client.send(&wire::ack(4, done.id, 0));
            } else {
                client.send(&wire::ack(5, done.id, 0));
                assert_eq!(client.ack_in(6).id, done.id);
                // PUBREC alone frees nothing.
                client.quiet();
                client.send(&wire::ack(7, done.id, 0));
            }
            let next = client.publish_in();
            assert_eq!(next.text(), n.to_string());
            under_way.push(next);
            client.quiet();
        }
    }
}

#[test]
fn qos_0_passes_while_the_window_is_full() {
    let broker = Broker::start();
    let mut client = broker.client(&Connect::new(Version::V5, "slow").prop(Prop::ReceiveMaximum(1)));
    client.subscribe(&[("one", 1), ("zero", 0)]);
    let mut publisher = broker.clean(Version::V5, "publisher");
    publisher.publish(&Publish::new("one", "a").qos(1, 1));
    assert_eq!(client.publish_in().text(), "a");
    publisher.publish(&Publish::new("zero", "b"));
    assert_eq!(client.publish_in().text(), "b");
}

#[test]
fn a_message_too_large_for_one_client_goes_to_the_others() {
    // [MQTT-3.1.2-24] [MQTT-3.1.2-25]
    let broker = Broker::start();
    let mut small = broker.client(&Connect::new(Version::V5, "small").prop(Prop::MaximumPacketSize(40)));
    let mut large = broker.clean(Version::V5, "large");
    small.subscribe(&[("t", 1)]);
    large.subscribe(&[("t", 1)]);
    let mut publisher = broker.clean(Version::V5, "publisher");
    for payload in ["x".repeat(10), "x".repeat(40), "y".repeat(10)] {
        assert_eq!(publisher.publish(&Publish::new("t", &payload).qos(1, 1)), 0);
        assert_eq!(large.take().text(), payload);
    }
    assert_eq!(small.take().text(), "x".repeat(10));
    assert_eq!(small.take().text(), "y".repeat(10));
    small.quiet();
}

#[test]
fn a_message_that_is_too_large_does_not_block_the_queue_of_an_absent_client() {
    let broker = Broker::start();
    let connect = Connect::durable(Version::V5, "small", 100);
    let mut client = broker.client(&connect);
    client.subscribe(&[("t", 2)]);
    client.disconnect();
    let mut publisher = broker.clean(Version::V5, "publisher");
    for payload in ["a".to_owned(), "x".repeat(100), "b".to_owned()] {
        publisher.publish(&Publish::new("t", payload).qos(2, 1));
    }
    let mut client = broker.client(&connect.clone().prop(Prop::MaximumPacketSize(50)));
    assert_eq!(client.take().text(), "a");
    assert_eq!(client.take().text(), "b");
    client.quiet();
    client.disconnect();
    let mut client = broker.client(&connect);
    client.quiet();
}

#[test]
fn topic_aliases_are_used_from_the_first_message_on_where_the_client_allows_them() {
    // [MQTT-3.1.2-26]
    let broker = Broker::start();
    let mut client = broker.client(&Connect::new(Version::V5, "thrifty").prop(Prop::TopicAliasMaximum(2)));
    client.subscribe(&[("t/#", 2)]);
    let mut publisher = broker.clean(Version::V5, "publisher");
    let mut seen = Vec::new();
    for topic in ["t/1", "t/2", "t/1", "t/3", "t/2", "t/3"] {
        for qos in 0..=2 {
            publisher.publish(&Publish::new(topic, topic).qos(qos, 1));
            let publish = client.take();
            let alias = publish.props.iter().find_map(|prop| match prop {
                Prop::TopicAlias(alias) => Some(*alias),
                _ => None,
            });
            assert_eq!(publish.text(), topic);
            assert!(publish.topic == topic || publish.topic.is_empty() && alias.is_some());
            seen.push((topic, alias, publish.topic.is_empty()));
        }
    }
    assert_eq!(seen[0], ("t/1", Some(1), false));
    assert_eq!(seen[1], ("t/1", Some(1), true));
    assert_eq!(seen[2], ("t/1", Some(1), true));
    assert_eq!(seen[3], ("t/2", Some(2), false));
    assert_eq!(seen[6], ("t/1", Some(1), true));
    assert!(seen[9..12].iter().all(|(_, alias, _)| alias.is_none()), "there is no third alias: {seen:?}");
}

#[test]
fn topic_aliases_are_not_used_where_the_client_does_not_allow_them() {
    // [MQTT-3.1.2-27]
    let broker = Broker::start();
    for connect in
        [Connect::new(Version::V5, "plain"), Connect::new(Version::V5, "plain").prop(Prop::TopicAliasMaximum(0))]
    {
        let mut client = broker.client(&connect);
        client.subscribe(&[("t", 2)]);
        let mut publisher = broker.clean(Version::V5, "publisher");
        for qos in 0..=2 {
            publisher.publish(&Publish::new("t", "x").qos(qos, 1));
            assert_eq!(client.take().props, []);
        }
    }
}

#[test]
fn an_alias_ends_with_the_connection() {
    // [MQTT-3.3.2-7]
    let broker = Broker::start();
    let connect = Connect::durable(Version::V5, "thrifty", 100).prop(Prop::TopicAliasMaximum(5));
    let mut client = broker.client(&connect);
    client.subscribe(&[("t", 1)]);
    let mut publisher = broker.clean(Version::V5, "publisher");
    publisher.publish(&Publish::new("t", "1").qos(1, 1));
    assert_eq!(client.take().topic, "t");
    publisher.publish(&Publish::new("t", "2").qos(1, 1));
    assert_eq!(client.publish_in().topic, "");
    client.drop_connection();
    let mut client = broker.client(&connect);
    let again = client.take();
    assert_eq!((again.topic.as_str(), again.text(), again.dup), ("t", "2", true));
}

#[test]
fn a_full_window_holds_everything_back_in_order() {
    let broker = Broker::start();
    let connect = Connect::durable(Version::V5, "away", 100);
    let mut client = broker.client(&connect);
    client.subscribe(&[("t", 2)]);
    client.disconnect();
    let mut publisher = broker.clean(Version::V5, "publisher");
    for n in 1..=200u16 {
        publisher.publish(&Publish::new("t", format!("{n}")).qos(1 + (n % 2) as u8, n));
    }
    let mut client = broker.client(&connect.prop(Prop::ReceiveMaximum(7)));
    for n in 1..=200 {
        let mut publish = None;
        // While an exchange of QoS 2 is under way, the next messages may come in between.
        while publish.is_none() {
            match client.recv() {
                Packet::Publish(got) => publish = Some(got),
                Packet::PubRel(ack) => client.send(&wire::ack(7, ack.id, 0)),
                other => panic!("{other:?}"),
            }
        }
        let publish = publish.expect("some");
        assert_eq!(publish.text(), n.to_string());
        client.send(&wire::ack(3 + publish.qos, publish.id, 0));
    }
}

#[test]
fn a_client_that_ends_with_messages_open_is_not_bothered_again() {
    let broker = Broker::start();
    let mut client = broker.clean(Version::V311, "brief");
    client.subscribe(&[("t", 1)]);
    let mut publisher = broker.clean(Version::V311, "publisher");
    publisher.publish(&Publish::new("t", "x").qos(1, 1));
    let _ = client.publish_in();
    client.send(&wire::disconnect(0, &[]));
    assert_eq!(client.end(), End::Closed);
    let (mut client, ack) = Client::open(broker.mqtt(), &Connect::durable(Version::V311, "brief", 0));
    assert!(!ack.session_present);
    client.quiet();
}
