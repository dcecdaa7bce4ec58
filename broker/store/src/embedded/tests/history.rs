//! A history of tickets whose effect can be checked: each leaves five things and a run of messages, and takes those of an earlier one away.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use turnpike_core::durable::{Body, Op, Part, RecoveredSession};
use turnpike_core::ids::{MessageId, Seq, SessionKey};

use crate::testing::{Contents, contents, message, owed, session, ticket};
use crate::{Store, StoreError};

/// How long a ticket's things stay.
pub(super) const STAY: u64 = 40;

const SESSIONS: u64 = 5;
/// Owed a run by each ticket, of which the first half goes when it is half as old as the rest.
const RUNS_OF: SessionKey = SessionKey(SESSIONS);
const RUN: u64 = 12;

fn place_in_run(turn: u64, n: u64) -> Seq {
    Seq(RUN * turn + n)
}

/// Makes the sessions; turn 0 of a history.
pub(super) fn first() -> Part {
    ticket(0, (0..=SESSIONS).map(|key| Op::SessionPut(SessionKey(key), session("c"))).collect())
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
    let inline = || owed(Body::Inline(Arc::clone(&body)));
    ops.extend((0..RUN).map(|n| Op::OwedPut { session: RUNS_OF, seq: place_in_run(turn, n), owed: inline() }));
    let mut done = |turn: u64, half: Range<u64>| {
        ops.extend(half.map(|n| Op::OwedDelete { session: RUNS_OF, seq: place_in_run(turn, n) }));
    };
    if turn > STAY / 2 {
        done(turn - STAY / 2, 0..RUN / 2);
    }
    if turn > STAY {
        done(turn - STAY, RUN / 2..RUN);
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
        let first = if turn + STAY / 2 <= last { RUN / 2 } else { 0 };
        seqs.extend((first..RUN).map(|n| (RUNS_OF.0, place_in_run(*turn, n).0)));
    }
    let found_seqs: BTreeSet<(u64, u64)> =
        found.sessions.iter().flat_map(|session| session.owed.iter().map(|(seq, _)| (session.key.0, seq.0))).collect();
    assert_eq!(found_seqs, seqs, "tickets are whole");
    let entries = |session: &RecoveredSession| {
        let each = if session.key == RUNS_OF { RUN } else { 2 };
        session.owed.iter().map(move |(seq, owed)| (seq.0 / each, owed.clone())).collect::<Vec<_>>()
    };
    for (turn, owed) in found.sessions.iter().flat_map(entries) {
        let (Body::Inline(message) | Body::Shared(_, message)) = &owed.body else { panic!("a body") };
        assert!(message.parts().payload.iter().all(|byte| *byte == turn as u8), "bodies are their own");
    }
    Ok(last)
}
