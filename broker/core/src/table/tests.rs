//! The table against `slab::Slab`.

use proptest::prelude::*;
use slab::Slab;

use super::*;
use crate::connection::Connection;
use crate::session::Session;

#[test]
fn keys_are_reused_the_last_vacated_first() {
    let mut table = Table::new();
    let keys: Vec<usize> = (0..5).map(|n| table.insert(n)).collect();
    assert_eq!(keys, [0, 1, 2, 3, 4]);
    assert_eq!((table.remove(1), table.remove(3), table.remove(3)), (Some(1), Some(3), None));
    assert_eq!((table.insert(10), table.insert(11), table.insert(12)), (3, 1, 5));
    assert_eq!(table.iter().collect::<Vec<_>>(), [(0, &0), (1, &11), (2, &2), (3, &10), (4, &4), (5, &12)]);
}

#[test]
fn it_grows_by_a_chunk_and_nothing_moves() {
    let mut table = Table::new();
    assert_eq!(table.capacity(), 0);
    let first = table.insert(0_u64);
    let before: *const u64 = &raw const table[first];
    for n in 1..10 * CHUNK as u64 + 1 {
        table.insert(n);
        assert!(table.capacity() - table.len() < CHUNK, "{n}");
    }
    assert!(std::ptr::eq(before, &raw const table[first]));
    assert_eq!(table.capacity(), 11 * CHUNK);
    for key in 0..table.len() {
        assert_eq!(table.remove(key), Some(key as u64));
    }
    assert!(table.is_empty());
    for n in 0..11 * CHUNK as u64 {
        table.insert(n);
    }
    assert_eq!(table.capacity(), 11 * CHUNK, "what has been vacated is used again");
}

#[test]
fn what_is_not_there_is_not_found() {
    let mut table = Table::new();
    assert!(table.get(0).is_none() && table.remove(0).is_none());
    let key = table.insert(String::from("a"));
    assert!(table.get(key + 1).is_none() && table.get(CHUNK).is_none() && table.get(usize::MAX).is_none());
    table.remove(key);
    assert!(!table.contains(key) && table.get_mut(key).is_none());
}

#[test]
fn a_slot_costs_nothing_where_the_entry_has_a_niche() {
    assert_eq!(Table::<Connection>::SLOT_BYTES, size_of::<Connection>());
    assert_eq!(Table::<Session>::SLOT_BYTES, size_of::<Session>());
    // Every idle connection pays for both.
    assert!(size_of::<Connection>() <= 160 && size_of::<Session>() <= 160);
}

#[derive(Clone, Debug)]
enum Action {
    Insert,
    Remove(usize),
    Change(usize),
}

/// Keys a little beyond what fits one chunk, so that growth and reuse meet.
fn any_action() -> impl Strategy<Value = Action> {
    let key = || 0..2 * CHUNK + 10;
    prop_oneof![3 => Just(Action::Insert), 2 => key().prop_map(Action::Remove), 1 => key().prop_map(Action::Change)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_sequence_does_what_a_slab_does(actions in prop::collection::vec(any_action(), 1..1500)) {
        let (mut table, mut model) = (Table::new(), Slab::new());
        for (n, action) in actions.into_iter().enumerate() {
            match action {
                Action::Insert => prop_assert_eq!(table.insert(n), model.insert(n)),
                Action::Remove(key) => prop_assert_eq!(table.remove(key), model.try_remove(key)),
                Action::Change(key) => {
                    prop_assert_eq!(table.get_mut(key).is_some(), model.get_mut(key).is_some());
                    if let (Some(ours), Some(theirs)) = (table.get_mut(key), model.get_mut(key)) {
                        (*ours, *theirs) = (n, n);
                    }
                    prop_assert_eq!(table.get(key), model.get(key));
                }
            }
            prop_assert_eq!((table.len(), table.is_empty()), (model.len(), model.is_empty()));
        }
        prop_assert!(table.iter().eq(model.iter()));
    }
}
