//! PUBLISH from a client: the three QoS, repetitions, receive maximum, packet size.

use turnpike_tests::broker::{Broker, Setup};
use turnpike_tests::client::{Client, End, expect_fence, fence};
use turnpike_tests::wire::{self, Connect, Packet, Prop, Publish, Version, one};

#[test]
fn each_qos_is_acknowledged_as_it_should() {
    // [MQTT-4.3.2-4] [MQTT-4.3.3-8] [MQTT-4.3.3-11]
    let broker = Broker::start();
    for version in Version::ALL {
        let mut watcher = broker.clean(version, "watcher");
        watcher.subscribe(&[("t", 2)]);
        let mut client = broker.clean(version, "publisher");
        for qos in 0..=2 {
            assert_eq!(client.publish(&Publish::new("t", format!("{qos}")).qos(qos, u16::from(qos) * 300)), 0);
            let publish = watcher.take();
            assert_eq!((publish.qos, publish.text()), (qos, format!("{qos}").as_str()), "{version:?}");
            assert_eq!((publish.dup, publish.retain), (false, false));
        }
        client.quiet();
    }
}

#[test]
fn one_is_told_that_nobody_listens() {
    let broker = Broker::start();
    let mut client = broker.clean(Version::V5, "publisher");
    assert_eq!(client.publish(&Publish::new("nobody", "x").qos(1, 1)), 0x10);
    assert_eq!(client.publish(&Publish::new("nobody", "x").qos(1, 2).retain()), 0x10);
    assert_eq!(client.publish(&Publish::new("nobody", "x").qos(1, 3)), 0x10);
    // QoS 2 may be told, too; wire tests of other brokers expect the short form without a reason.
    assert_eq!(client.publish(&Publish::new("nobody", "x").qos(2, 4)), 0);
    let mut watcher = broker.clean(Version::V5, "watcher");
    watcher.subscribe(&[("+", 0)]);
    assert_eq!(client.publish(&Publish::new("nobody", "x").qos(1, 5)), 0);
}

#[test]
fn qos_2_is_delivered_once_however_often_it_is_sent() {
    // [MQTT-4.3.3-10]
    let broker = Broker::start();
    for version in Version::ALL {
        let mut watcher = broker.clean(version, "watcher");
        watcher.subscribe(&[("t", 2)]);
        expect_fence(&mut watcher);
        let mut client = broker.clean(version, "publisher");
        let publish = Publish::new("t", "once").qos(2, 7);
        for publish in [publish.clone(), publish.clone().dup(), publish.clone().dup()] {
            client.send(&publish.encode(version));
            assert_eq!(client.ack_in(5).id, 7);
        }
        assert_eq!(fence(&mut client, &mut watcher).len(), 1);
        client.send(&wire::ack(6, 7, 0));
        assert_eq!(client.ack_in(7).id, 7);
        // [MQTT-4.3.3-12] From here on the identifier means another message.
        assert_eq!(client.publish(&Publish::new("t", "again").qos(2, 7)), 0);
        let got = fence(&mut client, &mut watcher);
        assert_eq!(got.len(), 1);
        assert_eq!(got[0].text(), "again");
    }
}

#[test]
fn qos_1_with_a_known_identifier_is_another_message() {
    // [MQTT-4.3.2-5]
    let broker = Broker::start();
    let mut watcher = broker.clean(Version::V311, "watcher");
    watcher.subscribe(&[("t", 1)]);
    let mut client = broker.clean(Version::V311, "publisher");
    for text in ["1", "2"] {
        client.publish(&Publish::new("t", text).qos(1, 7));
        assert_eq!(watcher.take().text(), text);
    }
    client.publish(&Publish::new("t", "3").qos(1, 7).dup());
    let third = watcher.take();
    // [MQTT-3.3.1-3]
    assert_eq!((third.text(), third.dup), ("3", false));
}

#[test]
fn an_unreleased_qos_2_message_survives_the_connection() {
    let broker = Broker::start();
    for version in Version::ALL {
        let mut watcher = broker.clean(version, "watcher");
        watcher.subscribe(&[("t", 2)]);
        expect_fence(&mut watcher);
        let connect = Connect::durable(version, "publisher", 100);
        let mut client = broker.client(&connect);
        client.send(&Publish::new("t", "once").qos(2, 7).encode(version));
        assert_eq!(client.ack_in(5).id, 7);
        client.drop_connection();
        let mut client = broker.client(&connect);
        client.send(&Publish::new("t", "once").qos(2, 7).dup().encode(version));
        assert_eq!(client.ack_in(5).id, 7);
        assert_eq!(fence(&mut client, &mut watcher).len(), 1, "{version:?}");
        client.send(&wire::ack(6, 7, 0));
        assert_eq!(client.ack_in(7).id, 7);
        client.disconnect();
        broker.clean(version, "publisher").disconnect();
    }
}

#[test]
fn a_clean_start_forgets_unreleased_identifiers() {
    let broker = Broker::start();
    let mut watcher = broker.clean(Version::V311, "watcher");
    watcher.subscribe(&[("t", 2)]);
    for _ in 0..2 {
        let mut client = broker.clean(Version::V311, "publisher");
        client.send(&Publish::new("t", "x").qos(2, 7).encode(Version::V311));
        assert_eq!(client.ack_in(5).id, 7);
        assert_eq!(watcher.take().text(), "x");
        client.drop_connection();
    }
}

#[test]
fn a_pubrel_for_nothing_is_completed() {
    let broker = Broker::start();
    for version in Version::ALL {
        let mut client = broker.clean(version, "publisher");
        client.send(&wire::ack(6, 77, 0));
        let complete = client.ack_in(7);
        assert_eq!(complete.id, 77);
        assert!(matches!(complete.code(), 0 | 0x92), "{complete:?}");
        client.quiet();
    }
}

#[test]
fn acknowledgements_of_nothing_are_ignored() {
    let broker = Broker::start();
    for version in Version::ALL {
        let mut client = broker.clean(version, "confused");
        client.send(&wire::ack(4, 77, 0));
        client.quiet();
        client.send(&wire::ack(7, 77, 0));
        client.quiet();
        // A PUBREC may belong to an exchange that the broker has forgotten: answered, so that the client can forget it too.
        client.send(&wire::ack(5, 77, 0));
        match client.recv() {
            Packet::PubRel(ack) => {
                assert_eq!(ack.id, 77);
                assert!(version != Version::V5 || ack.code() == 0x92, "{ack:?}");
            }
            other => panic!("{other:?}"),
        }
        client.quiet();
    }
}

#[test]
fn acknowledgements_come_in_the_order_of_the_messages() {
    let broker = Broker::start();
    for version in Version::ALL {
        let mut client = broker.clean(version, "publisher");
        let mut bytes = Vec::new();
        for id in 1..=200u16 {
            bytes.extend(Publish::new("t", "x").qos(1 + u8::from(id % 3 == 0), id).encode(version));
        }
        client.send(&bytes);
        for id in 1..=200u16 {
            assert_eq!(client.ack_in(if id % 3 == 0 { 5 } else { 4 }).id, id);
        }
    }
}

#[test]
fn more_than_the_receive_maximum_ends_the_connection() {
    let broker = Setup::anonymous().config("[limits]\nreceive_max = 5\n").start();
    let (mut client, ack) = Client::open(broker.mqtt(), &Connect::new(Version::V5, "flood"));
    let limit = one(&ack.props, |prop| match prop {
        Prop::ReceiveMaximum(limit) => Some(*limit),
        _ => None,
    });
    assert_eq!(limit, 5);
    for id in 1..=limit {
        client.send(&Publish::new("t", "x").qos(2, id).encode(Version::V5));
        let _ = client.ack_in(5);
    }
    // Not more while none is released; a repetition is not more.
    client.send(&Publish::new("t", "x").qos(2, 1).dup().encode(Version::V5));
    let _ = client.ack_in(5);
    client.send(&wire::ack(6, 1, 0));
    let _ = client.ack_in(7);
    client.send(&Publish::new("t", "x").qos(2, 6).encode(Version::V5));
    let _ = client.ack_in(5);
    client.send(&Publish::new("t", "x").qos(2, 7).encode(Version::V5));
    assert_eq!(client.end(), End::Disconnected(0x93));
}

#[test]
fn the_reason_arrives_even_if_the_client_goes_on_sending() {
    // A close with unread bytes would reset the connection and take the DISCONNECT with it.
    let broker = Setup::anonymous().config("[limits]\nreceive_max = 20\n").start();
    let mut client = broker.clean(Version::V5, "flood");
    let mut bytes = Vec::new();
    for id in 1..=2000u16 {
        bytes.extend(Publish::new("t", vec![b'x'; 200]).qos(2, id).encode(Version::V5));
    }
    client.try_send(&bytes);
    assert_eq!(client.end(), End::Disconnected(0x93));
}

#[test]
fn mqtt_3_clients_have_no_receive_maximum() {
    let broker = Setup::anonymous().config("[limits]\nreceive_max = 5\n").start();
    let mut client = broker.clean(Version::V311, "flood");
    for id in 1..=30 {
        client.send(&Publish::new("t", "x").qos(2, id).encode(Version::V311));
        let _ = client.ack_in(5);
    }
    client.quiet();
}

#[test]
fn a_packet_beyond_the_limit_is_refused_at_its_header() {
    let broker = Setup::anonymous().config("[limits]\npacket_bytes_max = 2000\n").start();
    for version in Version::ALL {
        let (mut client, ack) = Client::open(broker.mqtt(), &Connect::new(version, "big"));
        if version == Version::V5 {
            let limit = one(&ack.props, |prop| match prop {
                Prop::MaximumPacketSize(limit) => Some(*limit),
                _ => None,
            });
            assert_eq!(limit, 2000);
        }
        // Just within: header 3, topic 3, properties 1.
        let within = 2000 - 3 - 3 - usize::from(version == Version::V5);
        client.publish(&Publish::new("t", vec![b'x'; within]));
        client.quiet();
        // The header alone is enough to be refused.
        client.send(&[0x30, 0xff, 0xff, 0x7f]);
        client.ends_with(0x95);
    }
}

#[test]
fn dollar_topics_of_the_broker_are_not_for_clients() {
    let broker = Broker::start();
    let mut client = broker.clean(Version::V5, "forger");
    for topic in ["$SYS/broker/uptime", "$SYS/forged", "$share/group/topic"] {
        for qos in [1, 2] {
            assert_eq!(client.publish(&Publish::new(topic, "x").qos(qos, 1)), 0x87, "{topic}");
        }
    }
    assert!(client.publish(&Publish::new("$own/topic", "x").qos(1, 1)) < 0x80);
    client.quiet();
    let mut client = broker.clean(Version::V311, "forger");
    client.publish(&Publish::new("$own/topic", "x").qos(1, 1));
    client.quiet();
}

#[test]
fn messages_of_one_publisher_keep_their_order() {
    // [MQTT-4.6.0-5] [MQTT-4.6.0-6]
    let broker = Broker::start();
    for qos in 0..=2u8 {
        let mut watcher = broker.clean(Version::V5, "watcher");
        watcher.subscribe(&[("t", 2)]);
        let mut client = broker.clean(Version::V5, "publisher");
        for n in 1..=300u16 {
            client.publish(&Publish::new("t", format!("{n}")).qos(qos, n));
        }
        for n in 1..=300 {
            assert_eq!(watcher.take().text(), n.to_string(), "QoS {qos}");
        }
    }
}

#[test]
fn payloads_pass_unchanged() {
    let broker = Broker::start();
    for version in Version::ALL {
        let mut client = broker.clean(version, "echo");
        client.subscribe(&[("t", 0)]);
        for length in [0, 1, 2, 126, 127, 128, 16_383, 16_384, 65_535, 65_536, 1_000_000] {
            let payload: Vec<u8> = (0..length).map(|n: u32| (n % 251) as u8).collect();
            client.send(&Publish::new("t", &payload).encode(version));
            assert!(client.publish_in().payload == payload, "{length} bytes in {version:?}");
        }
    }
}

#[test]
fn versions_understand_each_other() {
    let broker = Broker::start();
    for from in Version::ALL {
        for to in Version::ALL {
            let mut watcher = broker.clean(to, "watcher");
            watcher.subscribe(&[("t", 2)]);
            let mut client = broker.clean(from, "publisher");
            for qos in 0..=2 {
                let mut publish = Publish::new("t", "x").qos(qos, u16::from(qos));
                if from == Version::V5 {
                    publish.props = vec![Prop::MessageExpiry(600), wire::user("a", "b")];
                }
                assert_eq!(client.publish(&publish), 0);
                let got = watcher.take();
                assert_eq!((got.text(), got.qos), ("x", qos), "{from:?} to {to:?}");
                let carried = from == Version::V5 && to == Version::V5;
                assert_eq!(got.props.len(), if carried { 2 } else { 0 });
            }
        }
    }
}
