//! A device, a listener, and a desk that answers when the test says so.

use turnpike_mqtt::{
    Connect, ConnectProperties, Packet, PublishProperties, SubscribeOptions, TopicFilter, TopicName, decode, encode,
    encode_publish, encode_subscribe, frame,
};

use super::*;
use crate::durable::Part;
use crate::gate::{Admission, Attempt, Handling, Principal, Verdict};
use crate::limits::Limits;
use crate::shard::Next;
use crate::shard::testing::{alone, everything_is_allowed, nobody_is_challenged, peer};

const NOW: Now = Now { mono_ms: 1_000, unix_ms: 1_700_000_000_000 };

/// What is published on `desk` and `both` is for the desk; on `both`, for the others as well.
struct Office;

impl Gate for Office {
    fn authenticate(&self, attempt: &Attempt<'_>, _: Now, _: [u8; 32]) -> Verdict {
        Verdict::Granted(Admission::new(Principal::Device(Arc::new(DeviceIdentity::new("p", attempt.client_id)))))
    }

    nobody_is_challenged!();
    everything_is_allowed!();

    fn handling(&self, _: &DeviceIdentity, topic: TopicName<'_>) -> Handling {
        match topic.as_str() {
            "desk" => Handling::Handed { routed: false },
            "both" => Handling::Handed { routed: true },
            _ => Handling::Routed,
        }
    }
}

struct World {
    shard: Shard<Office>,
    version: Version,
    kept: Vec<u8>,
}

impl World {
    fn new(version: Version, limits: Limits) -> Self {
        Self { shard: alone(&Arc::new(Office), limits, NOW), version, kept: Vec::new() }
    }

    fn connect(&mut self, client_id: &str, expiry_s: Option<u32>) -> ConnId {
        let conn = self.shard.open(peer(false), NOW).expect("room");
        let connect = Connect {
            version: self.version,
            bridge: false,
            clean_start: expiry_s.is_none(),
            keep_alive_s: 0,
            client_id,
            will: None,
            user_name: None,
            password: None,
            properties: ConnectProperties { session_expiry_s: expiry_s, ..ConnectProperties::default() },
        };
        let mut bytes = Vec::new();
        encode(self.version, &Packet::Connect(Box::new(connect)), &mut bytes);
        let _ = self.shard.receive(conn, &bytes, NOW);
        self.commit();
        assert!(self.heard(conn)[0].starts_with("ConnAck"));
        conn
    }

    /// Ends the turn, and has what it wants kept committed.
    fn commit(&mut self) -> Vec<Part> {
        let parts = self.shard.end_turn().parts;
        let tickets: Vec<_> = parts.iter().map(|part| part.ticket).collect();
        self.shard.committed(&tickets, NOW);
        parts
    }

    fn publish(&mut self, conn: ConnId, topic: &str, qos: QoS, id: u16) -> Next {
        let publish = Publish {
            dup: false,
            qos,
            retain: false,
            topic: Some(TopicName::parse(topic).expect("a name")),
            id: PacketId::new(id).filter(|_| qos != QoS::AtMostOnce),
            properties: PublishProperties::default(),
            payload: b"m",
        };
        let mut bytes = std::mem::take(&mut self.kept);
        encode_publish(self.version, &publish, &mut bytes);
        let received = self.shard.receive(conn, &bytes, NOW);
        self.kept = bytes.split_off(received.consumed);
        received.next
    }

    /// What a connection is sent, in words.
    fn heard(&mut self, conn: ConnId) -> Vec<String> {
        while self.shard.next_touched().is_some() {}
        let bytes = self.shard.output(conn).bytes.to_vec();
        self.shard.wrote(conn, bytes.len(), NOW);
        let (mut rest, mut heard) = (&bytes[..], Vec::new());
        while let Some(found) = frame(rest, u32::MAX).expect("frames") {
            heard.push(match decode(self.version, found).expect("a packet") {
                Packet::ConnAck(ack) => format!("ConnAck {:?}", ack.reason),
                Packet::PubAck(ack) => format!("PubAck {} {:?}", ack.id.get(), ack.reason),
                Packet::PubRec(ack) => format!("PubRec {} {:?}", ack.id.get(), ack.reason),
                Packet::Publish(publish) => format!("Publish {}", publish.topic.map_or("", |topic| topic.as_str())),
                Packet::Disconnect(disconnect) => format!("Disconnect {:?}", disconnect.reason),
                other => format!("{other:?}").split(['(', ' ', '{']).next().unwrap_or_default().to_owned(),
            });
            rest = &rest[found.len()..];
        }
        heard
    }

    fn errand(&mut self) -> Errand {
        self.shard.next_errand().expect("one")
    }
}

#[test]
fn a_message_for_a_desk_is_acknowledged_when_the_desk_is_done() {
    for version in [Version::V31, Version::V311, Version::V5] {
        for (qos, ack) in
            [(QoS::AtMostOnce, None), (QoS::AtLeastOnce, Some("PubAck")), (QoS::ExactlyOnce, Some("PubRec"))]
        {
            let mut world = World::new(version, Limits::default());
            let conn = world.connect("d", None);
            assert_eq!(world.publish(conn, "desk", qos, 7), Next::Pause, "it isn't read meanwhile");
            let errand = world.errand();
            assert_eq!((&*errand.device.device, errand.version, errand.private), ("d", version, false));
            assert_eq!((errand.message.topic().as_str(), errand.message.parts().payload), ("desk", &b"m"[..]));
            assert!(world.shard.next_errand().is_none() && world.heard(conn).is_empty());
            assert_eq!(world.shard.errands_under_way().0, 1);
            world.shard.errand_done(errand.id, Ok(()), false, NOW);
            assert_eq!(world.shard.next_resumed(), Some(conn));
            let expected: Vec<_> = ack.iter().map(|ack| format!("{ack} 7 Success")).collect();
            assert_eq!(world.heard(conn), expected);
            assert_eq!(world.shard.errands_under_way(), (0, 0));
            // It is said once.
            world.shard.errand_done(errand.id, Ok(()), false, NOW);
            assert!(world.heard(conn).is_empty());
            if qos == QoS::ExactlyOnce {
                // The repetition is known, and the desk doesn't hear of it.
                assert_eq!(world.publish(conn, "desk", qos, 7), Next::Continue);
                assert!(world.shard.next_errand().is_none());
                assert_eq!(world.heard(conn), ["PubRec 7 Success"]);
            }
        }
    }
}

#[test]
fn what_comes_behind_waits_and_keeps_its_place() {
    let mut world = World::new(Version::V5, Limits::default());
    let conn = world.connect("d", None);
    assert_eq!(world.publish(conn, "desk", QoS::AtLeastOnce, 1), Next::Pause);
    assert_eq!(world.publish(conn, "other", QoS::AtLeastOnce, 2), Next::Pause);
    let errand = world.errand();
    world.shard.errand_done(errand.id, Err(ReasonCode::QuotaExceeded), false, NOW);
    assert_eq!(world.shard.next_resumed(), Some(conn));
    let kept = std::mem::take(&mut world.kept);
    assert_eq!(world.shard.receive(conn, &kept, NOW).next, Next::Continue);
    assert_eq!(world.heard(conn), ["PubAck 1 QuotaExceeded", "PubAck 2 NoMatchingSubscribers"]);
}

#[test]
fn mqtt_3_is_told_no_by_the_end_of_its_connection() {
    let mut world = World::new(Version::V311, Limits::default());
    let conn = world.connect("d", None);
    let _ = world.publish(conn, "desk", QoS::AtLeastOnce, 1);
    let errand = world.errand();
    world.shard.errand_done(errand.id, Err(ReasonCode::QuotaExceeded), false, NOW);
    assert!(world.heard(conn).is_empty() && world.shard.output(conn).close);
}

#[test]
fn what_is_for_both_reaches_both_and_is_acknowledged_after_its_commit() {
    let mut world = World::new(Version::V5, Limits::default());
    let listener = world.connect("listener", Some(60));
    let mut bytes = Vec::new();
    let requests = [(TopicFilter::parse("#").expect("a filter"), SubscribeOptions::qos(QoS::AtLeastOnce))];
    encode_subscribe(Version::V5, PacketId::new(1).expect("not 0"), None, requests, &mut bytes);
    let _ = world.shard.receive(listener, &bytes, NOW);
    world.commit();
    assert_eq!(world.heard(listener), ["SubAck"]);
    let conn = world.connect("d", None);
    assert_eq!(world.publish(conn, "desk", QoS::AtLeastOnce, 1), Next::Pause);
    let errand = world.errand();
    world.shard.errand_done(errand.id, Ok(()), false, NOW);
    assert_eq!((world.heard(conn), world.heard(listener)), (vec!["PubAck 1 Success".to_owned()], vec![]));
    assert_eq!(world.publish(conn, "both", QoS::AtLeastOnce, 2), Next::Pause);
    let errand = world.errand();
    world.shard.errand_done(errand.id, Ok(()), false, NOW);
    assert!(world.heard(conn).is_empty(), "it isn't on disk");
    assert_eq!(world.commit().len(), 1);
    assert_eq!(world.heard(conn), ["PubAck 2 Success"]);
    assert_eq!(world.heard(listener), ["Publish both"]);
}

#[test]
fn a_desk_subscribes_for_a_client_that_relies_on_it() {
    for expiry_s in [None, Some(60)] {
        let mut world = World::new(Version::V311, Limits::default());
        let conn = world.connect("d", expiry_s);
        let mut bytes = Vec::new();
        let own = [(TopicFilter::parse("own/+").expect("a filter"), SubscribeOptions::qos(QoS::AtMostOnce))];
        encode_subscribe(Version::V311, PacketId::new(1).expect("not 0"), None, own, &mut bytes);
        let _ = world.shard.receive(conn, &bytes, NOW);
        world.commit();
        assert_eq!(world.heard(conn), ["SubAck"]);
        let _ = world.publish(conn, "desk", QoS::AtMostOnce, 0);
        let errand = world.errand();
        let topics = ["answer", "own/answer", "no/#/topic"].map(Box::from);
        world.shard.subscribe_errand(errand.id, &topics);
        // The second time changes nothing.
        world.shard.subscribe_errand(errand.id, &topics);
        let kept: usize = world.commit().iter().map(|part| part.ops.len()).sum();
        assert_eq!(kept, usize::from(expiry_s.is_some()), "one subscription is new, and kept where the session is");
        world.shard.errand_done(errand.id, Ok(()), false, NOW);
        assert!(world.heard(conn).is_empty(), "nobody has asked for a SUBACK");
        let other = world.connect("other", None);
        for topic in ["answer", "own/answer"] {
            assert_eq!(world.publish(other, topic, QoS::AtMostOnce, 0), Next::Continue);
            assert_eq!(world.heard(conn), [format!("Publish {topic}")], "once");
        }
        // Of an errand that is done nobody is subscribed any more.
        world.shard.subscribe_errand(errand.id, &["late".into()]);
        let _ = world.publish(other, "late", QoS::AtMostOnce, 0);
        assert!(world.heard(conn).is_empty());
    }
}

#[test]
fn an_answer_for_a_connection_that_is_gone_finds_nobody() {
    let mut world = World::new(Version::V5, Limits::default());
    let conn = world.connect("d", None);
    let _ = world.publish(conn, "desk", QoS::AtLeastOnce, 1);
    let errand = world.errand();
    world.shard.closed(conn, NOW);
    assert_eq!(world.shard.errands_under_way(), (0, 0));
    let next = world.connect("d", None);
    assert_eq!(conn, next, "it has the place of the one that is gone");
    let _ = world.publish(next, "desk", QoS::AtLeastOnce, 2);
    world.shard.errand_done(errand.id, Ok(()), false, NOW);
    assert!(world.heard(next).is_empty());
}

#[test]
fn a_desk_with_too_much_to_do_gets_no_more() {
    for limits in [Limits { errands_max: 1, ..Limits::default() }, Limits { errand_bytes_max: 9, ..Limits::default() }]
    {
        let mut world = World::new(Version::V5, limits);
        let (first, second) = (world.connect("one", None), world.connect("two", None));
        let _ = world.publish(first, "desk", QoS::AtLeastOnce, 1);
        world.kept.clear();
        assert_eq!(world.publish(second, "desk", QoS::AtLeastOnce, 1), Next::Continue);
        assert_eq!(world.heard(second), ["PubAck 1 QuotaExceeded"]);
        assert_eq!(world.shard.counters().dropped.desk_full, 1);
        let errand = world.errand();
        world.shard.errand_done(errand.id, Ok(()), false, NOW);
        assert_eq!(world.publish(second, "desk", QoS::AtLeastOnce, 2), Next::Pause);
    }
}
