use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use turnpike_core::durable::{Body, Op, Part};

use super::*;
use crate::Store;
use crate::embedded::{EmbeddedStore, Options};
use crate::memory::MemoryStore;
use crate::testing::{contents, message, owed, session, ticket};

const A: SessionKey = SessionKey(1);
const B: SessionKey = SessionKey(2);

fn open(folder: &Path) -> EmbeddedStore {
    // So small that tables are written and merged.
    let small = Options {
        owed_memtable_bytes: 4 << 10,
        other_memtable_bytes: 4 << 10,
        free_bytes_min: 0,
        threads: 1,
        ..Options::default()
    };
    EmbeddedStore::open(folder, small).unwrap()
}

fn put(session: SessionKey, seq: u64, bytes: usize) -> Op {
    let body = Body::Inline(Arc::new(message("dev/p/d/up/x", &vec![seq as u8; bytes])));
    Op::OwedPut { session, seq: Seq(seq), owed: owed(body) }
}

fn puts(session: SessionKey, seqs: Range<u64>) -> Vec<Op> {
    seqs.map(|seq| put(session, seq, 20)).collect()
}

fn deletes(session: SessionKey, seqs: Range<u64>) -> Vec<Op> {
    seqs.map(|seq| Op::OwedDelete { session, seq: Seq(seq) }).collect()
}

/// Keys of the keyspace of owed messages: single ones, runs, marks.
fn keys(store: &EmbeddedStore) -> (usize, usize, usize) {
    let mut found = (0, 0, 0);
    for entry in store.engine().unwrap().space(Space::Owed).iter() {
        let key = entry.key().unwrap();
        match record::parse_owed_key(record::split_session(&key).unwrap().1).unwrap() {
            record::OwedKey::One(_) => found.0 += 1,
            record::OwedKey::Run { .. } => found.1 += 1,
            record::OwedKey::Marks { .. } => found.2 += 1,
        }
    }
    found
}

fn owed_seqs(store: &mut EmbeddedStore) -> Vec<u64> {
    let (found, _) = contents(store);
    found.sessions.iter().flat_map(|session| session.owed.iter().map(|(seq, _)| seq.0)).collect()
}

#[test]
fn many_in_a_row_are_few_items_and_none_when_all_are_done() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path());
    store.commit(&[ticket(0, vec![Op::SessionPut(A, session("c"))])]).unwrap();
    store.commit(&[ticket(1, puts(A, 10..10 + 100))]).unwrap();
    assert_eq!(keys(&store), (0, 2, 0));
    store.commit(&[ticket(2, deletes(A, 10..40))]).unwrap();
    assert_eq!(keys(&store), (0, 2, 1));
    drop(store);
    let mut store = open(folder.path());
    assert_eq!(owed_seqs(&mut store), (40..110).collect::<Vec<_>>());
    store.commit(&[ticket(3, deletes(A, 40..110))]).unwrap();
    assert_eq!(keys(&store), (0, 0, 0));
    assert_eq!(owed_seqs(&mut store), [0; 0]);
}

#[test]
fn a_few_are_kept_one_by_one_and_so_are_places_below_others() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path());
    store.commit(&[ticket(0, vec![Op::SessionPut(A, session("c")), put(A, 50, 1)])]).unwrap();
    drop(store);
    let mut store = open(folder.path());
    store.commit(&[ticket(1, puts(A, 0..RUN_MIN as u64 - 1))]).unwrap();
    store.commit(&[ticket(2, puts(A, 20..40))]).unwrap();
    assert_eq!(keys(&store), (1 + RUN_MIN - 1 + 20, 0, 0));
    store.commit(&[ticket(3, puts(A, 51..71))]).unwrap();
    assert_eq!(keys(&store).1, 1);
}

#[test]
fn a_store_of_the_format_before_runs_is_read_and_is_of_this_one_then() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path());
    store.commit(&[ticket(0, vec![Op::SessionPut(A, session("c")), put(A, 5, 1)])]).unwrap();
    drop(store);
    std::fs::write(folder.path().join("FORMAT"), "turnpike-store 1\n").unwrap();
    let mut store = open(folder.path());
    assert_eq!(owed_seqs(&mut store), [5]);
    assert_eq!(std::fs::read_to_string(folder.path().join("FORMAT")).unwrap(), "turnpike-store 2\n");
}

/// What a group does with a queue. Places are told from its end, so that most meet what is there.
#[derive(Clone, Debug)]
enum Step {
    Put { a: bool, count: u64, bytes: usize },
    Delete { a: bool, back: u64, count: u64, every: usize },
    Again { a: bool, back: u64 },
    Release { a: bool, back: u64 },
    End { a: bool },
}

fn any_step() -> impl Strategy<Value = Step> {
    let a = any::<bool>();
    prop_oneof![
        6 => (a, 1u64..150, prop_oneof![4 => Just(20usize), 1 => Just(4_000)])
            .prop_map(|(a, count, bytes)| Step::Put { a, count, bytes }),
        6 => (a, 0u64..200, 1u64..150, 1usize..4)
            .prop_map(|(a, back, count, every)| Step::Delete { a, back, count, every }),
        1 => (a, 0u64..100).prop_map(|(a, back)| Step::Again { a, back }),
        1 => (a, 0u64..100).prop_map(|(a, back)| Step::Release { a, back }),
        1 => a.prop_map(|a| Step::End { a }),
    ]
}

fn ops(steps: &[Step], next: &mut [u64; 2]) -> Vec<Op> {
    let mut ops = Vec::new();
    for step in steps {
        let (Step::Put { a, .. }
        | Step::Delete { a, .. }
        | Step::Again { a, .. }
        | Step::Release { a, .. }
        | Step::End { a }) = step;
        let (session_key, end) = if *a { (A, &mut next[0]) } else { (B, &mut next[1]) };
        let place = |back: u64| end.saturating_sub(back);
        match *step {
            Step::Put { count, bytes, .. } => {
                ops.extend((*end..*end + count).map(|seq| put(session_key, seq, bytes)));
                *end += count;
            }
            Step::Delete { back, count, every, .. } => {
                ops.extend(deletes(session_key, place(back)..place(back) + count).into_iter().step_by(every));
            }
            Step::Again { back, .. } => ops.push(put(session_key, place(back), 7)),
            Step::Release { back, .. } => {
                ops.push(Op::OwedReleased { session: session_key, seq: Seq(place(back)) });
            }
            Step::End { .. } => {
                ops.push(Op::SessionDelete(session_key));
                ops.push(Op::SessionPut(session_key, session("again")));
            }
        }
    }
    ops
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn runs_hold_what_the_model_holds(
        groups in proptest::collection::vec((proptest::collection::vec(any_step(), 1..5), 0u8..8), 1..14),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut model = MemoryStore::new();
        let mut store = open(folder.path());
        let mut next = [3, 1_000_000];
        let first = ticket(0, vec![Op::SessionPut(A, session("a")), Op::SessionPut(B, session("b"))]);
        model.commit(std::slice::from_ref(&first)).unwrap();
        store.commit(&[first]).unwrap();
        for (turn, (steps, then)) in groups.into_iter().enumerate() {
            let parts: Vec<Part> =
                ops(&steps, &mut next).chunks(33).map(|ops| ticket(turn as u64 + 1, ops.to_vec())).collect();
            model.commit(&parts).unwrap();
            if then == 3 {
                // It takes effect, and the store doesn't hear of it: the same group again, encoded from what was there before.
                store.write(&parts).unwrap();
            }
            store.commit(&parts).unwrap();
            match then {
                0 => {
                    drop(store);
                    store = open(folder.path());
                }
                // An outcome that was taken for a failure: the same group again, as it is and after the engine was opened again.
                1 => store.commit(&parts).unwrap(),
                2 => {
                    store.close().unwrap();
                    store.heal().unwrap();
                    store.commit(&parts).unwrap();
                }
                4 => prop_assert_eq!(contents(&mut store), contents(&mut model)),
                _ => {}
            }
        }
        prop_assert_eq!(contents(&mut store), contents(&mut model));
        drop(store);
        let mut store = open(folder.path());
        prop_assert_eq!(contents(&mut store), contents(&mut model));
    }
}
