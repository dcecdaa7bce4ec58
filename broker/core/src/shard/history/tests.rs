//! Records of a device, a durable back end, and what is committed.

use std::sync::Arc;

use turnpike_mqtt::{
    Connect, ConnectProperties, Packet, PacketId, SubscribeOptions, TopicFilter, TopicName, Version, encode,
    encode_subscribe,
};

use super::*;
use crate::durable::Part;
use crate::gate::{Admission, Attempt, DeviceIdentity, ServiceIdentity, Verdict};
use crate::ids::ConnId;
use crate::limits::Limits;
use crate::shard::home;
use crate::shard::testing::{alone, nobody_is_challenged, peer, several};

const NOW: Now = Now { mono_ms: 1_000, unix_ms: 1_700_000_000_000 };

/// `back end` is a service, everybody else a device. They may do everything but publish on `forbidden`.
struct Most;

impl Gate for Most {
    fn authenticate(&self, attempt: &Attempt<'_>, _: Now, _: [u8; 32]) -> Verdict {
        let principal = match attempt.client_id {
            "back end" => Principal::Service(Arc::new(ServiceIdentity { key: "back".into() })),
            name => device(name),
        };
        Verdict::Granted(Admission::new(principal))
    }

    nobody_is_challenged!();

    fn may_publish(&self, _: &Principal, topic: TopicName<'_>) -> bool {
        topic.as_str() != "forbidden"
    }

    fn may_subscribe(&self, _: &Principal, _: TopicFilter<'_>) -> bool {
        true
    }

    fn still_welcome(&self, _: &Principal) -> bool {
        true
    }
}

fn device(name: &str) -> Principal {
    Principal::Device(Arc::new(DeviceIdentity::new("p", name)))
}

/// A shard with a durable back end that subscribes to everything.
fn world(limits: Limits) -> (Shard<Most>, ConnId) {
    let mut shard = alone(&Arc::new(Most), limits, NOW);
    let conn = subscribe(&mut shard, "back end");
    (shard, conn)
}

/// Somebody with a durable session who subscribes to everything.
fn subscribe(shard: &mut Shard<Most>, client_id: &str) -> ConnId {
    let conn = shard.open(peer(false), NOW).expect("room");
    let connect = Connect {
        version: Version::V5,
        bridge: false,
        clean_start: false,
        keep_alive_s: 0,
        client_id,
        will: None,
        user_name: None,
        password: None,
        properties: ConnectProperties { session_expiry_s: Some(60), ..ConnectProperties::default() },
    };
    let mut bytes = Vec::new();
    encode(Version::V5, &Packet::Connect(Box::new(connect)), &mut bytes);
    let _ = shard.receive(conn, &bytes, NOW);
    commit(shard);
    bytes.clear();
    let requests = [(TopicFilter::parse("#").expect("a filter"), SubscribeOptions::qos(QoS::AtLeastOnce))];
    encode_subscribe(Version::V5, PacketId::new(1).expect("not 0"), None, requests, &mut bytes);
    let _ = shard.receive(conn, &bytes, NOW);
    commit(shard);
    conn
}

fn commit(shard: &mut Shard<Most>) -> Vec<Part> {
    let parts = shard.end_turn().parts;
    let tickets: Vec<_> = parts.iter().map(|part| part.ticket).collect();
    shard.committed(&tickets, NOW);
    parts
}

fn record(shard: &mut Shard<Most>, topic: &str) -> Result<(), ReasonCode> {
    let parts = MessageParts {
        topic: TopicName::parse(topic).expect("a name"),
        properties: &[],
        payload: b"21.5",
        qos: QoS::AtLeastOnce,
        retain: false,
        expires_at_ms: None,
        publisher: None,
    };
    shard.publish_record(&device("d"), &Arc::new(Message::new(&parts)), NOW)
}

#[test]
fn records_and_what_is_kept_of_them_are_one_ticket_and_named_after_its_commit() {
    let (mut shard, conn) = world(Limits::default());
    assert_eq!(record(&mut shard, "up/1"), Ok(()));
    assert_eq!(record(&mut shard, "up/2"), Ok(()));
    shard.keep(Op::RegistryPut(Box::from(*b"key"), Box::from(*b"value")));
    shard.name_when_kept(77);
    let parts = shard.end_turn().parts;
    let [part] = &parts[..] else { panic!("{parts:?}") };
    let owed = part.ops.iter().filter(|op| matches!(op, Op::OwedPut { .. })).count();
    let kept = part.ops.iter().filter(|op| matches!(op, Op::RegistryPut(..))).count();
    assert_eq!((owed, kept), (2, 1));
    assert_eq!(shard.next_taken(), None, "it isn't on disk");
    while shard.next_touched().is_some() {}
    shard.wrote(conn, shard.output(conn).bytes.len(), NOW);
    shard.committed(&[part.ticket], NOW);
    assert_eq!(shard.next_taken(), Some(Taken { number: 77, any: true }));
    assert!(!shard.output(conn).bytes.is_empty());
    assert_eq!(shard.counters().history, 2);
}

#[test]
fn history_leaves_half_of_a_queue_to_live_messages() {
    let (mut shard, conn) = world(Limits { queued_messages_max: 10, ..Limits::default() });
    shard.closed(conn, NOW);
    commit(&mut shard);
    let taken: Vec<_> = (0..7).map(|_| record(&mut shard, "up/1")).collect();
    assert_eq!(taken.iter().filter(|taken| taken.is_ok()).count(), 5);
    assert_eq!(taken[5..], [Err(ReasonCode::QuotaExceeded); 2]);
    assert_eq!(shard.counters().dropped.queue_full, 0, "nothing was thrown away");
}

#[test]
fn a_record_that_its_device_may_not_publish_is_refused_for_good() {
    let (mut shard, _) = world(Limits::default());
    assert_eq!(record(&mut shard, "forbidden"), Err(ReasonCode::NotAuthorized));
    shard.shared.set_store_serving(false);
    assert_eq!(record(&mut shard, "up/1"), Err(ReasonCode::QuotaExceeded));
}

#[test]
fn what_is_on_disk_is_said_in_portions_and_in_its_order() {
    let (mut shard, conn) = world(Limits::default());
    while shard.next_touched().is_some() {}
    shard.wrote(conn, shard.output(conn).bytes.len(), NOW);
    let mut tickets = Vec::new();
    for number in 1..=3 {
        assert_eq!(record(&mut shard, &format!("up/{number}")), Ok(()));
        shard.name_when_kept(number);
        tickets.extend(shard.end_turn().parts.into_iter().map(|part| part.ticket));
    }
    shard.note_committed(&tickets);
    assert_eq!((shard.next_taken(), shard.next_touched()), (None, None), "nothing is said by itself");
    let mut said = Vec::new();
    while shard.has_to_say() {
        let before = shard.output(conn).bytes.len();
        shard.say_committed(1, NOW);
        said.extend(shard.next_taken().map(|taken| taken.number.to_string()));
        let new = String::from_utf8_lossy(&shard.output(conn).bytes[before..]).into_owned();
        said.extend(new.find("up/").and_then(|at| new.get(at..at + 4)).map(str::to_owned));
    }
    assert_eq!(said, ["up/1", "1", "up/2", "2", "up/3", "3"]);
}

#[test]
fn only_a_service_holds_history_back_whoever_else_has_no_room_goes_without() {
    let mut shard = alone(&Arc::new(Most), Limits { queued_messages_max: 10, ..Limits::default() }, NOW);
    let phone = subscribe(&mut shard, "phone");
    shard.closed(phone, NOW);
    commit(&mut shard);
    let mut taken = || (0..7).filter(|_| record(&mut shard, "up/1").is_ok()).count();
    assert_eq!(taken(), 7, "nobody waits for a phone");
    assert_eq!((shard.counters().dropped.queue_full, shard.counters().queued_messages), (2, 5));
    let back_end = subscribe(&mut shard, "back end");
    shard.closed(back_end, NOW);
    commit(&mut shard);
    let taken: Vec<_> = (0..7).map(|_| record(&mut shard, "up/1")).collect();
    assert_eq!(taken.iter().filter(|taken| taken.is_ok()).count(), 5, "the back end has what the phone hasn't");
    assert_eq!(taken[5..], [Err(ReasonCode::QuotaExceeded); 2]);
    assert_eq!((shard.counters().dropped.queue_full, shard.counters().queued_messages), (7, 10));
    // The other half is for live messages.
    let topic = TopicName::parse("live").expect("a name");
    let live = MessageParts {
        topic,
        properties: &[],
        payload: b"x",
        qos: QoS::AtLeastOnce,
        retain: false,
        expires_at_ms: None,
        publisher: None,
    };
    for _ in 0..5 {
        let _ = shard.publish(&live, NOW);
    }
    assert_eq!((shard.counters().dropped.queue_full, shard.counters().queued_messages), (7, 20));
}

#[test]
fn a_full_session_of_another_shard_holds_history_back_if_it_is_a_service_s() {
    for (name, expected) in [("phone", Ok(())), ("back end", Err(ReasonCode::QuotaExceeded))] {
        let limits = Limits { queued_messages_max: 10, ..Limits::default() };
        let (mut shards, _) = several(2, &Arc::new(Most), limits, NOW);
        let at = usize::from(home(name, 2).0);
        let conn = subscribe(&mut shards[at], name);
        shards[at].closed(conn, NOW);
        commit(&mut shards[at]);
        let mut last = Ok(());
        for _ in 0..30 {
            last = record(&mut shards[1 - at], "up/1");
            for (to, batch) in shards[1 - at].end_turn().batches {
                let _ = shards[usize::from(to.0)].deliver(&batch, NOW);
            }
        }
        assert_eq!(last, expected, "{name}");
    }
}
