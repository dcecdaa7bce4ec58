//! A full queue isn't acknowledged as if it had taken the message.

use super::*;

const BOUND: u32 = 32;

fn broker(shards: u16) -> Broker {
    Broker::new(shards, Limits { queued_messages_max: BOUND, ..Limits::default() })
}

/// A session without a connection that wants everything below `t`, at home on that shard.
fn sleeper(broker: &mut Broker, shard: u16) -> String {
    let id = broker.id_at(shard);
    let client = broker.connect(&id, Version::V5, 3_600);
    broker.subscribe(client, "t/#");
    broker.close(client);
    id
}

fn publisher(broker: &mut Broker, version: Version) -> Client {
    let shards = u16::try_from(broker.shards.len()).unwrap();
    let id = (0..).map(|n| format!("p{n}")).find(|id| home(id, shards) == ShardId(0)).unwrap();
    broker.connect(&id, version, 0)
}

/// Messages that were queued for durable sessions.
fn owed(broker: &Broker) -> usize {
    broker.committed.iter().filter(|op| matches!(op, Op::OwedPut { .. })).count()
}

#[test]
fn a_publisher_hears_that_the_only_queue_is_full() {
    for (shards, at) in [(1, 0), (2, 0), (2, 1)] {
        let mut broker = broker(shards);
        sleeper(&mut broker, at);
        let publisher = publisher(&mut broker, Version::V5);
        let mut taken = 0;
        for id in 1..=200 {
            let qos = if id % 2 == 0 { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
            match broker.publish(publisher, "t/x", qos, id, false) {
                Some(ReasonCode::Success) => taken += 1,
                Some(ReasonCode::QuotaExceeded) => {}
                other => panic!("{other:?}"),
            }
        }
        let owed = owed(&broker);
        assert_eq!(taken, owed, "{shards} shards: acknowledged, and owed");
        assert!((32..=40).contains(&owed), "{owed}");
        let dropped: u64 = broker.shards.iter().map(|shard| shard.counters().dropped.queue_full).sum();
        assert_eq!(dropped, 200 - owed as u64);
    }
}

#[test]
fn a_refused_identifier_of_qos_2_is_free_again() {
    let mut broker = broker(1);
    let id = sleeper(&mut broker, 0);
    let publisher = publisher(&mut broker, Version::V5);
    while broker.publish(publisher, "t/x", QoS::AtLeastOnce, 1, false) == Some(ReasonCode::Success) {}
    assert_eq!(broker.publish(publisher, "t/x", QoS::ExactlyOnce, 9, false), Some(ReasonCode::QuotaExceeded));
    let owner = broker.connect(&id, Version::V5, 3_600);
    for seq in 0..8 {
        broker.acknowledge(owner, crate::outgoing::packet_id(crate::ids::Seq(seq)));
    }
    let before = owed(&broker);
    assert_eq!(broker.publish(publisher, "t/x", QoS::ExactlyOnce, 9, false), Some(ReasonCode::Success));
    assert_eq!(owed(&broker), before + 1, "a new message, not a repetition of the refused one");
}

#[test]
fn one_session_with_room_is_enough() {
    let mut broker = broker(2);
    sleeper(&mut broker, 1);
    let publisher = publisher(&mut broker, Version::V5);
    while broker.publish(publisher, "t/x", QoS::AtLeastOnce, 1, false) == Some(ReasonCode::Success) {}
    let reader = broker.connect("reader", Version::V5, 0);
    broker.subscribe(reader, "t/y");
    assert_eq!(broker.publish(publisher, "t/y", QoS::AtLeastOnce, 1, false), Some(ReasonCode::Success));
    assert_eq!(broker.publish(publisher, "t/x", QoS::AtLeastOnce, 1, false), Some(ReasonCode::QuotaExceeded));
}

#[test]
fn mqtt_3_is_acknowledged_all_the_same() {
    let mut broker = broker(2);
    sleeper(&mut broker, 1);
    let publisher = publisher(&mut broker, Version::V311);
    for _ in 0..100 {
        assert_eq!(broker.publish(publisher, "t/x", QoS::AtLeastOnce, 1, false), Some(ReasonCode::Success));
    }
    assert!(broker.shards[0].counters().dropped.queue_full > 0);
}

#[test]
fn a_queue_that_empties_or_ends_takes_messages_again() {
    for at in [0, 1] {
        for ends in [false, true] {
            let mut broker = broker(2);
            let id = sleeper(&mut broker, at);
            let publisher = publisher(&mut broker, Version::V5);
            while broker.publish(publisher, "t/x", QoS::AtLeastOnce, 1, false) == Some(ReasonCode::Success) {}
            let owner = broker.connect(&id, Version::V5, if ends { 0 } else { 3_600 });
            if !ends {
                broker.heard(owner);
                for seq in 0..8 {
                    let id = crate::outgoing::packet_id(crate::ids::Seq(seq));
                    broker.acknowledge(owner, id);
                }
            }
            let reason = broker.publish(publisher, "t/x", QoS::AtLeastOnce, 1, false);
            let expected = if ends { ReasonCode::NoMatchingSubscribers } else { ReasonCode::Success };
            assert_eq!(reason, Some(expected), "home {at}");
            for shard in &mut broker.shards {
                shard.look_at_full(usize::MAX);
                assert!(ends || shard.full.len() <= 1);
                assert!(!ends || shard.full.is_empty());
            }
        }
    }
}
