//! Sessions: present or not, expiry, take-over.

use std::time::Duration;

use turnpike_tests::broker::{Broker, Setup};
use turnpike_tests::client::{Client, End};
use turnpike_tests::time::{SOON, pass, until};
use turnpike_tests::wire::{self, Connect, Prop, Publish, Version, one};

fn present(broker: &Broker, connect: &Connect) -> bool {
    let (client, ack) = Client::open(broker.mqtt(), connect);
    assert_eq!(ack.code, 0);
    client.drop_connection();
    ack.session_present
}

#[test]
fn a_session_is_present_where_one_was_kept() {
    // [MQTT-3.2.2-2] [MQTT-3.2.2-3]
    let broker = Broker::start();
    for version in Version::ALL {
        let id = &format!("keeper-{version:?}");
        let durable = Connect::durable(version, id, 100);
        // 3.1 has no such flag: always 0.
        let kept = version != Version::V31;
        assert!(!present(&broker, &durable), "{version:?}");
        assert_eq!(present(&broker, &durable), kept, "{version:?}");
        assert_eq!(present(&broker, &durable), kept, "{version:?}");
        // [MQTT-3.1.2-4] A clean start discards it.
        assert!(!present(&broker, &Connect::new(version, id)), "{version:?}");
        assert!(!present(&broker, &durable), "{version:?}");
    }
}

#[test]
fn without_an_expiry_a_session_of_mqtt_5_ends_with_its_connection() {
    let broker = Broker::start();
    let connect = Connect::new(Version::V5, "brief").clean(false);
    assert!(!present(&broker, &connect));
    assert!(!present(&broker, &connect));
}

#[test]
fn a_session_of_one_version_is_resumed_in_another() {
    let broker = Broker::start();
    let mut client = broker.client(&Connect::durable(Version::V311, "changer", 0));
    client.subscribe(&[("news", 1)]);
    client.disconnect();
    let (mut client, ack) = Client::open(broker.mqtt(), &Connect::durable(Version::V5, "changer", 100));
    assert!(ack.session_present);
    let mut publisher = broker.clean(Version::V5, "publisher");
    publisher.publish(&Publish::new("news", "x").qos(1, 1));
    assert_eq!(client.take().text(), "x");
}

#[test]
fn a_session_expires() {
    // [MQTT-4.1.0-2]
    let broker = Broker::start();
    let connect = Connect::durable(Version::V5, "expiring", 1);
    let mut client = broker.client(&connect);
    client.subscribe(&[("news", 1)]);
    client.drop_connection();
    assert!(present(&broker, &connect), "at once it's there");
    pass(Duration::from_millis(2500));
    assert!(!present(&broker, &connect), "after more than a second it isn't");
}

#[test]
fn disconnect_changes_the_expiry() {
    let broker = Broker::start();
    let connect = Connect::durable(Version::V5, "changing", 1);
    broker.client(&connect).disconnect_with(0, &[Prop::SessionExpiry(100)]);
    pass(Duration::from_millis(2500));
    let (client, ack) = Client::open(broker.mqtt(), &connect);
    assert!(ack.session_present, "a longer expiry holds");
    client.disconnect_with(0, &[Prop::SessionExpiry(0)]);
    assert!(!present(&broker, &connect), "0 ends it at once");
}

#[test]
fn the_longest_expiry_is_told_where_it_cuts() {
    let broker = Setup::anonymous().config("[limits]\nsession_expiry_max_s = 10\n").start();
    let (_client, ack) = Client::open(broker.mqtt(), &Connect::durable(Version::V5, "greedy", u32::MAX));
    let told = one(&ack.props, |prop| match prop {
        Prop::SessionExpiry(seconds) => Some(*seconds),
        _ => None,
    });
    assert_eq!(told, 10);
    let (_client, ack) = Client::open(broker.mqtt(), &Connect::durable(Version::V5, "modest", 5));
    assert!(!ack.props.iter().any(|prop| matches!(prop, Prop::SessionExpiry(_))), "{ack:?}");
}

#[test]
fn another_connection_takes_over() {
    // [MQTT-3.1.4-3]
    let broker = Broker::start();
    for old in Version::ALL {
        for new in Version::ALL {
            let mut first = broker.clean(old, "contested");
            let mut second = broker.clean(new, "contested");
            first.ends_with(0x8e);
            second.quiet();
            second.disconnect();
        }
    }
}

#[test]
fn a_crowd_that_fights_for_one_client_id_leaves_one_winner() {
    let broker = Broker::start();
    let connect = Connect::durable(Version::V5, "contested", 100);
    let clients: Vec<Client> = std::thread::scope(|scope| {
        let started: Vec<_> =
            (0..8).map(|_| scope.spawn(|| (0..20).fold(None, |_, _| fight(&broker, &connect)))).collect();
        started.into_iter().filter_map(|thread| thread.join().expect("a client")).collect()
    });
    let alive = clients
        .into_iter()
        .filter_map(|mut client| {
            client.try_send(&wire::PINGREQ);
            match client.recv_or_end() {
                Some(wire::Packet::PingResp) => Some(client),
                Some(wire::Packet::Disconnect { code: 0x8e, .. }) | None => None,
                other => panic!("{other:?}"),
            }
        })
        .count();
    assert_eq!(alive, 1);
}

/// Connects; none if another took the session before the CONNACK. Then the connection is closed without a word, since no DISCONNECT may
/// come before CONNACK [MQTT-3.14.0-1].
fn fight(broker: &Broker, connect: &Connect) -> Option<Client> {
    let mut client = Client::raw(broker.mqtt(), Version::V5);
    client.send(&connect.encode());
    match client.recv_or_end() {
        Some(wire::Packet::ConnAck(ack)) => {
            assert_eq!(ack.code, 0);
            Some(client)
        }
        None => None,
        other => panic!("{other:?} before CONNACK"),
    }
}

#[test]
fn taking_over_keeps_the_subscriptions_and_what_is_under_way() {
    let broker = Broker::start();
    let connect = Connect::durable(Version::V5, "moving", 100);
    let mut first = broker.client(&connect);
    first.subscribe(&[("news", 2)]);
    let mut publisher = broker.clean(Version::V5, "publisher");
    publisher.publish(&Publish::new("news", "1").qos(1, 1));
    let unanswered = first.publish_in();
    let (mut second, ack) = Client::open(broker.mqtt(), &connect);
    assert!(ack.session_present);
    first.ends_with(0x8e);
    let again = second.take();
    assert_eq!((again.id, again.dup, again.text()), (unanswered.id, true, "1"));
    publisher.publish(&Publish::new("news", "2").qos(1, 1));
    assert_eq!(second.take().text(), "2");
}

#[test]
fn what_comes_while_a_durable_client_is_away_waits_for_it() {
    // [MQTT3-3.1.2-5] [MQTT-4.5.0-1]
    let broker = Broker::start();
    for version in Version::ALL {
        let connect = Connect::durable(version, "away", 100);
        let mut client = broker.client(&connect);
        client.subscribe(&[("queue/#", 2)]);
        client.disconnect();
        let mut publisher = broker.clean(version, "publisher");
        for n in 1..=50u16 {
            assert_eq!(publisher.publish(&Publish::new("queue/1", format!("{n}")).qos(1, n)), 0);
            assert_eq!(publisher.publish(&Publish::new("queue/2", format!("{n}")).qos(2, n)), 0);
        }
        let mut client = broker.client(&connect);
        for topic in ["queue/1", "queue/2"].iter().cycle().take(100).enumerate() {
            let expected = (topic.0 / 2 + 1).to_string();
            let publish = client.take();
            assert_eq!((publish.topic.as_str(), publish.text(), publish.dup), (*topic.1, expected.as_str(), false));
        }
        client.quiet();
        // [MQTT-3.1.2-4]
        broker.clean(version, "away").disconnect();
    }
}

#[test]
fn the_queue_of_an_absent_client_is_bounded() {
    let broker = Setup::anonymous().config("[limits]\nqueued_messages_max = 10\n").start();
    let connect = Connect::durable(Version::V5, "away", 100);
    let mut client = broker.client(&connect);
    client.subscribe(&[("queue", 1)]);
    client.disconnect();
    let mut publisher = broker.clean(Version::V5, "publisher");
    for n in 1..=30u16 {
        publisher.publish(&Publish::new("queue", format!("{n}")).qos(1, n));
    }
    let mut client = broker.client(&connect);
    let mut got = Vec::new();
    for _ in 0..10 {
        got.push(client.take().text().to_owned());
    }
    client.quiet();
    assert_eq!(got[0], "1", "the newest is dropped, not the oldest: {got:?}");
}

#[test]
fn subscriptions_outlive_the_connection_only_in_a_durable_session() {
    let broker = Broker::start();
    for version in Version::ALL {
        let mut client = broker.clean(version, "brief");
        client.subscribe(&[("news", 0)]);
        client.disconnect();
        let mut client = broker.client(&Connect::durable(version, "brief", 10));
        let mut publisher = broker.clean(version, "publisher");
        publisher.publish(&Publish::new("news", "x").qos(1, 1));
        client.quiet();
        client.disconnect();
        broker.clean(version, "brief").disconnect();
    }
}

#[test]
fn a_connection_that_breaks_is_noticed() {
    let broker = Broker::start();
    let client = broker.clean(Version::V311, "breaking");
    client.drop_connection();
    until("the connection is no longer counted", SOON, || {
        let metrics = broker.http().get("/metrics").body;
        let line = metrics
            .lines()
            .find(|line| line.starts_with("turnpike_connections ") || line.starts_with("turnpike_connections{"))?;
        line.ends_with(" 0").then_some(())
    });
}

#[test]
fn an_end_by_the_client_with_bytes_unread_still_counts() {
    let broker = Broker::start();
    let mut client = broker.clean(Version::V5, "hasty");
    let mut bytes = Publish::new("a", "x").qos(1, 1).encode(Version::V5);
    bytes.extend(wire::disconnect(0, &[]));
    client.send(&bytes);
    let _ = client.ack_in(4);
    assert_eq!(client.end(), End::Closed);
}
