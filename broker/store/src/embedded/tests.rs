use std::sync::Arc;

use proptest::prelude::*;
use turnpike_core::durable::{Body, Op};
use turnpike_core::ids::{MessageId, Seq, SessionKey};

use super::*;
use crate::memory::MemoryStore;
use crate::testing::{Contents, any_op, contents, message, owed, packet_id, session, ticket};

mod crash;
mod damage;
mod history;

fn options() -> Options {
    Options { free_bytes_min: 0, threads: 1, ..Options::default() }
}

/// So small that tables are written and merged in a short test.
fn tiny() -> Options {
    Options { owed_memtable_bytes: 4 << 10, other_memtable_bytes: 4 << 10, ..options() }
}

fn open(folder: &Path) -> EmbeddedStore {
    EmbeddedStore::open(folder, options()).unwrap()
}

fn inline(session: SessionKey, seq: u64, payload: &[u8]) -> Op {
    let body = Body::Inline(Arc::new(message("t/x", payload)));
    Op::OwedPut { session, seq: Seq(seq), owed: owed(body) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn it_holds_what_the_model_holds(
        groups in proptest::collection::vec((proptest::collection::vec(any_op(), 1..40), 0u8..8), 1..12),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut model = MemoryStore::new();
        let mut store = EmbeddedStore::open(folder.path(), tiny()).unwrap();
        for (turn, (ops, then)) in groups.into_iter().enumerate() {
            // Several parts to a group; what matters is the order of operations.
            let parts: Vec<Part> = ops.chunks(7).map(|ops| ticket(turn as u64, ops.to_vec())).collect();
            model.commit(&parts).unwrap();
            store.commit(&parts).unwrap();
            match then {
                0 => {
                    drop(store);
                    store = EmbeddedStore::open(folder.path(), tiny()).unwrap();
                }
                1 => {
                    store.close().unwrap();
                    store.heal().unwrap();
                }
                // An outcome that was taken for a failure: the same group again.
                2 => store.commit(&parts).unwrap(),
                3 => {
                    // Bring the tables into play.
                    for space in &store.engine.as_ref().unwrap().spaces {
                        space.rotate_memtable_and_wait().unwrap();
                    }
                }
                4 => prop_assert_eq!(contents(&mut store), contents(&mut model)),
                _ => {}
            }
        }
        drop(store);
        let mut store = EmbeddedStore::open(folder.path(), tiny()).unwrap();
        let expected = contents(&mut model);
        prop_assert_eq!(contents(&mut store), expected);
        let again = contents(&mut store);
        prop_assert_eq!(again.1.counts.orphans_removed, 0);
    }
}

#[test]
fn a_session_takes_everything_that_is_its_own_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path());
    let (gone, stays) = (SessionKey(1), SessionKey(2));
    let all = |key| {
        vec![
            Op::SessionPut(key, session("c")),
            Op::SubscriptionPut { session: key, filter: "a/#".into(), options: 1, identifier: 7 },
            inline(key, 0, b"x"),
            Op::IncomingPut { session: key, id: packet_id(9) },
        ]
    };
    store.commit(&[ticket(0, all(gone)), ticket(1, all(stays))]).unwrap();
    // Part of it earlier, part of it in the same group.
    store.commit(&[ticket(2, vec![inline(gone, 1, b"y"), Op::SessionDelete(gone)])]).unwrap();
    let (found, summary) = contents(&mut store);
    assert_eq!(summary.counts.orphans_removed, 0);
    assert_eq!(found.sessions.len(), 1);
    assert_eq!(found.sessions[0].key, stays);
    assert_eq!(found.sessions[0].subscriptions, [("a/#".into(), 1, 7)]);
    assert_eq!(found.sessions[0].incoming, [packet_id(9)]);
    assert_eq!(found.sessions[0].owed.len(), 1);
}

#[test]
fn keys_and_ids_are_not_used_again_after_their_owner_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path());
    let body = Arc::new(message("t", b"x"));
    store
        .commit(&[ticket(0, vec![Op::SessionPut(SessionKey(40), session("c")), Op::MessagePut(MessageId(9), body)])])
        .unwrap();
    store.commit(&[ticket(1, vec![Op::SessionDelete(SessionKey(40)), Op::MessageDelete(MessageId(9))])]).unwrap();
    drop(store);
    let (_, summary) = contents(&mut open(folder.path()));
    assert_eq!((summary.next_session_key, summary.next_message_id), (SessionKey(41), MessageId(10)));
}

#[test]
fn a_folder_has_one_owner() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    assert!(matches!(EmbeddedStore::open(folder.path(), options()), Err(StoreError::Locked { .. })));
    drop(store);
    open(folder.path());
}

#[test]
fn another_format_is_refused_with_its_number() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()));
    std::fs::write(folder.path().join(FORMAT_FILE), "turnpike-store 7\n").unwrap();
    let error = EmbeddedStore::open(folder.path(), options()).unwrap_err();
    assert!(matches!(&error, StoreError::Format { found, supported: FORMAT, .. } if found == "7"), "{error}");
    assert!(error.to_string().contains("format 7"));
}

#[test]
fn a_store_that_was_never_finished_is_made_anew_but_never_at_the_cost_of_data() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()));
    std::fs::remove_file(folder.path().join(FORMAT_FILE)).unwrap();
    std::fs::remove_file(folder.path().join(ENGINE_FOLDER).join("version")).unwrap();
    let mut store = open(folder.path());
    store.commit(&[ticket(0, vec![Op::SessionPut(SessionKey(1), session("c"))])]).unwrap();
    drop(store);
    std::fs::remove_file(folder.path().join(FORMAT_FILE)).unwrap();
    let error = EmbeddedStore::open(folder.path(), options()).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
}

#[test]
fn writes_stop_before_the_disk_is_full_and_go_on_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path());
    let put = [ticket(0, vec![Op::SessionPut(SessionKey(1), session("c"))])];
    store.free_space = FreeSpace::new(folder.path().into(), u64::MAX / 2);
    assert!(matches!(store.commit(&put), Err(StoreError::Full { .. })));
    assert!(matches!(store.heal(), Err(StoreError::Full { .. })));
    store.free_space = FreeSpace::new(folder.path().into(), 1);
    store.heal().unwrap();
    store.commit(&put).unwrap();
    assert_eq!(contents(&mut store).0.sessions.len(), 1);
}

#[test]
fn a_record_that_does_not_decode_is_damage_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path());
    let engine = store.engine.as_ref().unwrap();
    engine.space(Space::Retained).insert("some/topic", [0x17, 0xff]).unwrap();
    let error = store.recover(&mut Contents::default()).unwrap_err();
    assert!(matches!(&error, StoreError::Damaged { place, .. } if place == "retained/some/topic"), "{error}");
}
