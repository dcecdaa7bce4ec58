//! CONNECT and CONNACK, keep alive, DISCONNECT.

use std::time::{Duration, Instant};

use turnpike_tests::broker::{Broker, Setup};
use turnpike_tests::client::{Client, End};
use turnpike_tests::wire::{self, Connect, Packet, Prop, Version, Will, one};

#[test]
fn every_version_is_let_in() {
    let broker = Broker::start();
    for version in Version::ALL {
        let (mut client, ack) = Client::open(broker.mqtt(), &Connect::new(version, "someone"));
        assert_eq!((ack.code, ack.session_present), (0, false), "{version:?}");
        client.quiet();
        client.disconnect();
    }
}

#[test]
fn the_short_form_is_used_where_nothing_is_to_say() {
    // Old clients and wire tests compare these bytes.
    let broker = Broker::start();
    let mut client = broker.clean(Version::V5, "short");
    client.send(&wire::Publish::new("a", "x").qos(2, 7).encode(Version::V5));
    let _ = client.ack_in(5);
    client.send(&wire::ack(6, 7, 0));
    assert_eq!(client.ack_in(7).codes, [0]);
}

#[test]
fn connack_announces_only_what_differs_from_the_defaults() {
    let broker = Broker::start();
    let (_client, ack) = Client::open(broker.mqtt(), &Connect::new(Version::V5, "someone"));
    for prop in &ack.props {
        match prop {
            Prop::ReceiveMaximum(limit) => assert!(*limit > 0 && *limit < u16::MAX),
            Prop::MaximumPacketSize(limit) => assert!(*limit > 0),
            Prop::TopicAliasMaximum(limit) => assert!(*limit > 0),
            other => panic!("CONNACK says {other:?}, which is the default or nobody's business"),
        }
    }
}

#[test]
fn an_empty_client_id_is_assigned_one_if_the_session_ends_with_the_connection() {
    let broker = Broker::start();
    // [MQTT3-3.1.3-6] [MQTT3-3.1.3-8]
    let (mut client, ack) = Client::open(broker.mqtt(), &Connect::new(Version::V311, ""));
    assert_eq!(ack.code, 0);
    client.quiet();
    let (mut client, ack) = Client::open(broker.mqtt(), &Connect::new(Version::V311, "").clean(false));
    assert_eq!((ack.code, ack.session_present), (2, false));
    assert_eq!(client.end(), End::Closed);
    // 3.1 knows no empty client ids.
    let (mut client, ack) = Client::open(broker.mqtt(), &Connect::new(Version::V31, ""));
    assert_eq!(ack.code, 2);
    assert_eq!(client.end(), End::Closed);
}

#[test]
fn an_assigned_client_id_is_told_and_is_nobody_elses() {
    // [MQTT-3.1.3-6] [MQTT-3.1.3-7] [MQTT-3.2.2-16]
    let broker = Broker::start();
    let assigned = |connect: &Connect| {
        let (client, ack) = Client::open(broker.mqtt(), connect);
        assert_eq!(ack.code, 0);
        let id = one(&ack.props, |prop| match prop {
            Prop::AssignedClientId(id) => Some(id.clone()),
            _ => None,
        });
        (client, id)
    };
    let (first, first_id) = assigned(&Connect::new(Version::V5, ""));
    let (_second, second_id) = assigned(&Connect::durable(Version::V5, "", 60));
    assert_ne!(first_id, second_id);
    assert!(!first_id.is_empty());
    // It is a client id like any other: whoever connects with it takes over.
    let _thief = broker.clean(Version::V5, &first_id);
    let mut first = first;
    assert_eq!(first.end(), End::Disconnected(0x8e));
    // And a session like any other.
    drop(_thief);
    let (_resumed, ack) = Client::open(broker.mqtt(), &Connect::durable(Version::V5, &second_id, 60));
    assert!(ack.session_present);
}

#[test]
fn a_client_id_of_23_characters_is_accepted() {
    // [MQTT-3.1.3-5]
    let broker = Broker::start();
    for version in Version::ALL {
        for id in ["0123456789abcdefghijklm", "nopqrstuvwxyzABCDEFGHIJ", "KLMNOPQRSTUVWXYZ"] {
            broker.clean(version, id).disconnect();
        }
    }
}

#[test]
fn an_unknown_level_is_refused() {
    // [MQTT-3.1.2-2] [MQTT3-3.1.2-2]
    let broker = Broker::start();
    for (name, level) in [("MQTT", 6u8), ("MQTT", 2), ("MQIsdp", 7)] {
        let mut body = u16::try_from(name.len()).expect("short").to_be_bytes().to_vec();
        body.extend(name.as_bytes());
        body.extend([level, 2, 0, 60, 0, 1, b'x']);
        let mut client = Client::raw(broker.mqtt(), Version::V5);
        client.send(&wire::frame(0x10, &body));
        let end = client.end();
        assert!(matches!(end, End::Refused(0x84 | 1) | End::Closed), "{name} {level}: {end:?}");
    }
}

#[test]
fn another_protocol_is_not_served() {
    // [MQTT-3.1.2-1]
    let broker = Broker::start();
    for name in ["hj", "MQT", "MQTTT", "mqtt", ""] {
        let mut body = u16::try_from(name.len()).expect("short").to_be_bytes().to_vec();
        body.extend(name.as_bytes());
        body.extend([4, 2, 0, 60, 0, 1, b'x']);
        let mut client = Client::raw(broker.mqtt(), Version::V311);
        client.send(&wire::frame(0x10, &body));
        let end = client.end();
        assert!(matches!(end, End::Closed | End::Refused(_)), "{name:?}: {end:?}");
    }
}

#[test]
fn a_second_connect_is_a_protocol_error() {
    // [MQTT-3.1.0-2]
    let broker = Broker::start();
    for version in Version::ALL {
        let mut client = broker.clean(version, "twice");
        client.send(&Connect::new(version, "twice").encode());
        client.ends_with(0x82);
    }
}

#[test]
fn flags_of_connect_are_checked() {
    let broker = Broker::start();
    let connect = |flags: u8, payload: &[u8]| {
        for version in [Version::V311, Version::V5] {
            let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', version as u8, flags, 0, 60];
            if version == Version::V5 {
                body.push(0);
            }
            body.extend([0, 1, b'x']);
            body.extend(payload);
            let mut client = Client::raw(broker.mqtt(), version);
            client.send(&wire::frame(0x10, &body));
            let end = client.end();
            let expected = match version {
                // [MQTT3-3.1.4-1]
                Version::V31 | Version::V311 => end == End::Closed,
                Version::V5 => matches!(end, End::Closed | End::Refused(0x81 | 0x82)),
            };
            assert!(expected, "flags {flags:#04x} in {version:?}: {end:?}");
        }
    };
    connect(0x03, &[]); // reserved bit [MQTT-3.1.2-3]
    connect(0x0a, &[]); // will QoS without a will [MQTT-3.1.2-11]
    connect(0x22, &[]); // will retain without a will [MQTT-3.1.2-13]
    connect(0x06, &[]); // a will that is not there [MQTT-3.1.2-9]
    connect(0x82, &[]); // a user name that is not there [MQTT-3.1.2-17]
    connect(0xc2, &[0, 1, b'u']); // a password that is not there [MQTT-3.1.2-19]
    connect(0x02, &[0, 1, b'u']); // a user name without its flag [MQTT-3.1.2-16]
    connect(0x82, &[0, 1, b'u', 0, 1, b'p']); // a password without its flag [MQTT-3.1.2-18]
}

#[test]
fn will_qos_3_is_malformed() {
    // [MQTT-3.1.2-12]
    let broker = Broker::start();
    for version in Version::ALL {
        let mut connect = Connect::new(version, "will");
        connect.will = Some(Will { qos: 3, ..Will::new("a", b"b") });
        let mut client = Client::raw(broker.mqtt(), version);
        client.send(&connect.encode());
        let end = client.end();
        assert!(matches!(end, End::Closed | End::Refused(0x81)), "{end:?}");
    }
}

#[test]
fn mqtt_5_allows_a_password_without_a_user_name() {
    let broker = Broker::start();
    let mut connect = Connect::new(Version::V5, "someone");
    connect.password = Some(b"secret\0with a zero".to_vec());
    broker.client(&connect).quiet();
    // [MQTT3-3.1.2-22]
    let mut connect = Connect { version: Version::V311, ..connect };
    connect.props.clear();
    let mut client = Client::raw(broker.mqtt(), Version::V311);
    client.send(&connect.encode());
    assert_eq!(client.end(), End::Closed);
}

#[test]
fn a_will_with_wildcards_is_refused() {
    let broker = Broker::start();
    for version in Version::ALL {
        let mut client = Client::raw(broker.mqtt(), version);
        client.send(&Connect::new(version, "will").will(Will::new("a/#", b"b")).encode());
        let end = client.end();
        assert!(matches!(end, End::Closed | End::Refused(0x81 | 0x82 | 0x90)), "{end:?}");
    }
}

#[test]
fn silence_beyond_the_keep_alive_ends_the_connection() {
    // [MQTT-3.1.2-22]
    let broker = Broker::start();
    for version in Version::ALL {
        let mut client = broker.client(&Connect::new(version, "silent").keep_alive(1));
        let begin = Instant::now();
        client.ends_with(0x8d);
        assert!(begin.elapsed() >= Duration::from_millis(1400), "not before one and a half times the keep alive");
    }
}

#[test]
fn any_packet_counts_as_a_sign_of_life() {
    let broker = Broker::start();
    let mut client = broker.client(&Connect::new(Version::V311, "lively").keep_alive(1));
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(3) {
        client.send(&wire::Publish::new("a", "x").encode(Version::V311));
        assert_eq!(client.recv_within(Duration::from_millis(300)), None);
    }
    client.quiet();
}

#[test]
fn the_server_keep_alive_is_told_and_kept() {
    // [MQTT-3.2.2-21]
    let broker = Setup::anonymous().config("[limits]\nkeep_alive_max_s = 1\n").start();
    for asked in [0, 120] {
        let connect = Connect::new(Version::V5, "silent").keep_alive(asked);
        let (mut client, ack) = Client::open(broker.mqtt(), &connect);
        let told = one(&ack.props, |prop| match prop {
            Prop::ServerKeepAlive(seconds) => Some(*seconds),
            _ => None,
        });
        assert_eq!(told, 1, "asked for {asked}");
        assert_eq!(client.end(), End::Disconnected(0x8d));
    }
    let (_client, ack) = Client::open(broker.mqtt(), &Connect::new(Version::V5, "modest").keep_alive(1));
    assert!(!ack.props.iter().any(|prop| matches!(prop, Prop::ServerKeepAlive(_))), "{ack:?}");
}

#[test]
fn a_packet_limit_below_any_connack_ends_the_connection() {
    // [MQTT-3.1.2-24]
    let broker = Broker::start();
    let mut client = Client::raw(broker.mqtt(), Version::V5);
    client.send(&Connect::new(Version::V5, "tiny").prop(Prop::MaximumPacketSize(2)).encode());
    assert_eq!(client.end(), End::Closed);
}

#[test]
fn values_that_make_no_sense_are_protocol_errors() {
    let broker = Broker::start();
    for prop in [
        Prop::ReceiveMaximum(0),
        Prop::MaximumPacketSize(0),
        Prop::RequestProblemInfo(2),
        Prop::RequestResponseInfo(2),
        Prop::AuthData(b"without a method".to_vec()),
        Prop::WillDelay(1),
        Prop::TopicAlias(1),
    ] {
        let mut client = Client::raw(broker.mqtt(), Version::V5);
        client.send(&Connect::new(Version::V5, "odd").prop(prop.clone()).encode());
        let end = client.end();
        assert!(matches!(end, End::Refused(0x82 | 0x81)), "{prop:?}: {end:?}");
    }
    for prop in [
        Prop::SessionExpiry(1),
        Prop::ReceiveMaximum(1),
        Prop::MaximumPacketSize(100),
        Prop::TopicAliasMaximum(1),
        Prop::RequestProblemInfo(1),
        Prop::RequestResponseInfo(1),
    ] {
        let mut client = Client::raw(broker.mqtt(), Version::V5);
        client.send(&Connect::new(Version::V5, "odd").prop(prop.clone()).prop(prop.clone()).encode());
        assert_eq!(client.end(), End::Refused(0x82), "{prop:?} twice");
    }
}

#[test]
fn a_refusing_connack_says_no_more_than_its_reason() {
    // [MQTT-3.2.2-6] [MQTT-3.2.2-7]
    let broker = Broker::start();
    let mut client = Client::raw(broker.mqtt(), Version::V5);
    client.send(&Connect::new(Version::V5, "odd").prop(Prop::ReceiveMaximum(0)).encode());
    match client.recv() {
        Packet::ConnAck(ack) => assert_eq!((ack.session_present, ack.code), (false, 0x82)),
        other => panic!("{other:?}"),
    }
    assert_eq!(client.end(), End::Closed);
}

#[test]
fn what_follows_a_refused_connect_is_not_processed() {
    // [MQTT-3.1.4-6]
    let broker = Broker::start();
    let mut watcher = broker.clean(Version::V311, "watcher");
    watcher.subscribe(&[("stray", 0)]);
    turnpike_tests::client::expect_fence(&mut watcher);
    let mut client = Client::raw(broker.mqtt(), Version::V311);
    let mut bytes = Connect::new(Version::V311, "").clean(false).encode();
    bytes.extend(wire::Publish::new("stray", "x").encode(Version::V311));
    client.send(&bytes);
    assert_eq!(client.end(), End::Refused(2));
    let mut publisher = broker.clean(Version::V311, "publisher");
    assert!(turnpike_tests::client::fence(&mut publisher, &mut watcher).is_empty());
}

#[test]
fn packets_may_follow_connect_at_once() {
    let broker = Broker::start();
    for version in Version::ALL {
        let mut client = Client::raw(broker.mqtt(), version);
        let mut bytes = Connect::new(version, "eager").encode();
        bytes.extend(wire::subscribe(version, 1, &[("eager", 0)], &[]));
        bytes.extend(wire::Publish::new("eager", "x").encode(version));
        bytes.extend(wire::PINGREQ);
        client.send(&bytes);
        assert!(matches!(client.recv(), Packet::ConnAck(_)));
        assert_eq!(client.ack_in(9).codes, [0]);
        assert_eq!(client.publish_in().text(), "x");
        assert_eq!(client.recv(), Packet::PingResp);
    }
}

#[test]
fn many_user_properties_in_connect_are_taken() {
    let broker = Setup::anonymous().start();
    let mut connect = Connect::new(Version::V5, "talkative");
    connect.props.extend((0..5000).map(|_| wire::user("key", "value")));
    for _ in 0..20 {
        broker.client(&connect).disconnect();
    }
}

#[test]
fn disconnect_is_answered_by_the_close_alone() {
    let broker = Broker::start();
    for version in Version::ALL {
        broker.clean(version, "leaver").disconnect();
    }
    for code in [0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99] {
        broker.clean(Version::V5, "leaver").disconnect_with(code, &[Prop::ReasonString("tired".to_owned())]);
    }
}

#[test]
fn disconnect_may_not_give_a_session_to_a_connection_that_asked_for_none() {
    let broker = Broker::start();
    let mut client = broker.clean(Version::V5, "leaver");
    client.send(&wire::disconnect(0, &[Prop::SessionExpiry(10)]));
    assert_eq!(client.end(), End::Disconnected(0x82));
}
