//! A disk that is nearly full: nothing more comes in, and what is there can be collected.

use super::*;

#[test]
fn a_session_that_exists_collects_what_it_is_owed_and_nothing_is_added() {
    let mut broker = Broker::new(1, Limits::default());
    let owner = broker.connect("owner", Version::V5, 3_600);
    broker.subscribe(owner, "t");
    broker.close(owner);
    let publisher = broker.connect("publisher", Version::V5, 0);
    assert_eq!(broker.publish(publisher, "t", QoS::AtLeastOnce, 1, false), Some(ReasonCode::Success));
    broker.shared.set_store_low(true);

    assert_eq!(broker.publish(publisher, "t", QoS::AtLeastOnce, 1, false), Some(ReasonCode::QuotaExceeded));
    assert_eq!(broker.publish(publisher, "u", QoS::AtLeastOnce, 1, true), Some(ReasonCode::QuotaExceeded));
    let before = broker.shards[0].counters().sessions;
    broker.connect("newcomer", Version::V5, 3_600);
    assert_eq!(broker.shards[0].counters().sessions, before, "no new durable session");

    let owner = broker.connect("owner", Version::V5, 3_600);
    broker.acknowledge(owner, crate::outgoing::packet_id(crate::ids::Seq(0)));
    assert!(matches!(broker.committed.last(), Some(Op::OwedDelete { .. })), "{:?}", broker.committed.last());
    broker.shared.set_store_low(false);
    assert_eq!(broker.publish(publisher, "t", QoS::AtLeastOnce, 1, false), Some(ReasonCode::Success));
}
