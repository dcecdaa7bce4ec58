use std::sync::Arc;

use turnpike_core::durable::{Body, Op};
use turnpike_core::ids::{MessageId, Seq, SessionKey};

use crate::memory::MemoryStore;
use crate::testing::{contents, message, owed, packet_id, session, ticket};
use crate::{RecoveryCounts, Store};

const ONE: SessionKey = SessionKey(1);
const TWO: SessionKey = SessionKey(2);

fn shared(session: SessionKey, seq: u64, id: u64) -> Op {
    let body = Body::Shared(MessageId(id), Arc::new(message("t", b"shared")));
    Op::OwedPut { session, seq: Seq(seq), owed: owed(body) }
}

#[test]
fn what_nothing_refers_to_is_removed_at_recovery() {
    let mut store = MemoryStore::new();
    let body = Arc::new(message("t", b"shared"));
    let ops = vec![
        Op::SessionPut(ONE, session("one")),
        Op::MessagePut(MessageId(5), Arc::clone(&body)),
        Op::MessagePut(MessageId(6), body),
        shared(ONE, 0, 5),
        shared(ONE, 1, 7),
        shared(TWO, 0, 5),
        Op::IncomingPut { session: TWO, id: packet_id(1) },
    ];
    store.commit(&[ticket(0, ops)]).unwrap();
    let (first, summary) = contents(&mut store);
    assert_eq!(
        summary.counts,
        RecoveryCounts { sessions: 1, owed: 1, bodies: 1, orphans_removed: 4, ..Default::default() }
    );
    assert_eq!((summary.next_session_key, summary.next_message_id), (TWO, MessageId(7)));
    let Body::Shared(id, message) = &first.sessions[0].owed[0].1.body else { panic!("shared") };
    assert_eq!((*id, message.shared_id), (MessageId(5), Some(MessageId(5))));
    let (second, summary) = contents(&mut store);
    assert_eq!((second, summary.counts.orphans_removed), (first, 0));
}

#[test]
fn a_snapshot_stays_as_it_was() {
    let mut store = MemoryStore::new();
    store.commit(&[ticket(0, vec![Op::SessionPut(ONE, session("one"))])]).unwrap();
    let mut then = store.snapshot();
    store.commit(&[ticket(1, vec![Op::SessionDelete(ONE)])]).unwrap();
    assert_eq!(contents(&mut then).0.sessions.len(), 1);
    assert_eq!(contents(&mut store).0.sessions.len(), 0);
    // Keys are never used again, so the highest is remembered.
    assert_eq!(contents(&mut store).1.next_session_key, TWO);
}
