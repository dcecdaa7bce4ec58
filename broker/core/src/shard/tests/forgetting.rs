//! What a deleted device left behind.

use super::*;

#[test]
fn retained_messages_go_a_part_at_a_time_and_durably() {
    let mut broker = Broker::new(1, Limits::default());
    let client = broker.connect("p", Version::V5, 0);
    for n in 0..1_500 {
        broker.publish(client, &format!("dev/p/a/sys/{n}"), QoS::AtMostOnce, 1, true);
    }
    broker.publish(client, "/shadow/update/p/a", QoS::AtMostOnce, 1, true);
    let others = ["dev/p/ab/sys/x", "dev/q/a/sys/x", "/shadow/update/p/b"];
    for other in others {
        broker.publish(client, other, QoS::AtMostOnce, 1, true);
    }
    assert_eq!(broker.shared.retained.len(), 1_504);
    broker.shards[0].forget_retained(&["dev/p/a/#", "/shadow/+/p/a"].map(Box::from));
    let mut ticks = 0;
    while broker.shards[0].next_deadline() == Some(0) {
        let before = broker.shared.retained.len();
        broker.shards[0].tick(NOW);
        broker.turn();
        assert!(before - broker.shared.retained.len() <= 1_024, "bounded work a turn");
        ticks += 1;
    }
    assert!(ticks > 1);
    assert_eq!(broker.shared.retained.len(), others.len() as u64);
    let deleted = broker.committed.iter().filter(|op| matches!(op, Op::RetainedDelete(_))).count();
    assert_eq!(deleted, 1_501);
    for other in others {
        assert!(broker.shared.retained.get(TopicName::parse(other).unwrap(), NOW.unix_ms).is_some(), "{other}");
    }
}
