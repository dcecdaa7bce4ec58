//! A history of tickets whose effect can be checked: each leaves five things, and takes those of an earlier one away.

use std::collections::BTreeSet;
use std::sync::Arc;

use turnpike_core::durable::{Body, Op, Part};
use turnpike_core::ids::{MessageId, Seq, SessionKey};

use crate::testing::{Contents, contents, message, owed, session, ticket};
use crate::{Store, StoreError};

/// How long a ticket's things stay.
pub(super) const STAY: u64 = 40;

const SESSIONS: u64 = 5;

/// Makes the sessions; turn 0 of a history.
pub(super) fn first() -> Part {
    ticket(0, (0..SESSIONS).map(|key| Op::SessionPut(SessionKey(key), session("c"))).collect())
}

/// Turn `turn`, from 1.
pub(super) fn part(turn: u64) -> Part {
    let (a, b) = (SessionKey(turn % SESSIONS), SessionKey((turn + 1) % SESSIONS));
    let body = Arc::new(message("dev/p/d/up/x", &vec![turn as u8; 40 + (turn % 7) as usize * 100]));
    let shared = || owed(Body::Shared(MessageId(turn), Arc::clone(&body)));
    let mut ops = vec![
        Op::RegistryPut(turn.to_be_bytes().into(), turn.to_be_bytes().into()),
        Op::MessagePut(MessageId(turn), Arc::clone(&body)),
        Op::OwedPut { session: a, seq: Seq(2 * turn), owed: owed(Body::Inline(Arc::clone(&body))) },
        Op::OwedPut { session: a, seq: Seq(2 * turn + 1), owed: shared() },
        Op::OwedPut { session: b, seq: Seq(2 * turn + 1), owed: shared() },
    ];
    if turn > STAY {
        let old = turn - STAY;
        let (a, b) = (SessionKey(old % SESSIONS), SessionKey((old + 1) % SESSIONS));
        ops.push(Op::RegistryDelete(old.to_be_bytes().into()));
        ops.push(Op::OwedDelete { session: a, seq: Seq(2 * old) });
        ops.push(Op::OwedDelete { session: a, seq: Seq(2 * old + 1) });
        ops.push(Op::OwedDelete { session: b, seq: Seq(2 * old + 1) });
        ops.push(Op::MessageDelete(MessageId(old)));
    }
    ticket(turn, ops)
}

/// Which turn the store is at. Panics unless it is exactly as some turn left it.
pub(super) fn turn_of(store: &mut dyn Store) -> Result<u64, StoreError> {
    // Errors are the caller's; what was found must be consistent.
    store.recover(&mut Contents::default())?;
    let (found, summary) = contents(store);
    assert_eq!(summary.counts.orphans_removed, 0);
    let turns: BTreeSet<u64> =
        found.registry.keys().map(|key| u64::from_be_bytes(key.as_slice().try_into().expect("8 bytes"))).collect();
    let Some(&last) = turns.last() else {
        assert!(found.sessions.iter().all(|session| session.owed.is_empty()));
        return Ok(0);
    };
    let expected: BTreeSet<u64> = (last.saturating_sub(STAY - 1).max(1)..=last).collect();
    assert_eq!(turns, expected, "tickets are a prefix of the history");
    let mut seqs = BTreeSet::new();
    for turn in &turns {
        seqs.insert((turn % SESSIONS, 2 * turn));
        seqs.insert((turn % SESSIONS, 2 * turn + 1));
        seqs.insert(((turn + 1) % SESSIONS, 2 * turn + 1));
    }
    let found_seqs: BTreeSet<(u64, u64)> =
        found.sessions.iter().flat_map(|session| session.owed.iter().map(|(seq, _)| (session.key.0, seq.0))).collect();
    assert_eq!(found_seqs, seqs, "tickets are whole");
    for (seq, owed) in found.sessions.iter().flat_map(|session| &session.owed) {
        let (Body::Inline(message) | Body::Shared(_, message)) = &owed.body else { panic!("a body") };
        assert!(message.parts().payload.iter().all(|byte| *byte == (seq.0 / 2) as u8), "bodies are their own");
    }
    Ok(last)
}
