//! The wheel against an ordered map.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[test]
fn an_entry_is_small() {
    // Two numbers and a tag with values to spare, as a shard has them.
    assert_eq!(Table::<Entry<Option<(u32, u32)>>>::SLOT_BYTES, 24);
}

#[test]
fn nothing_fires_early_or_a_tick_late() {
    let mut wheel = Wheel::new(1_000);
    let mut due = Vec::new();
    wheel.insert(1_250, 'a');
    wheel.insert(900, 'z');
    wheel.advance(1_000, &mut due);
    assert_eq!(due, ['z'], "what has passed fires at once");
    wheel.advance(1_249, &mut due);
    assert_eq!(due, ['z']);
    assert_eq!(wheel.next_deadline(), Some(1_300));
    wheel.advance(1_300, &mut due);
    assert_eq!(due, ['z', 'a']);
    assert_eq!(wheel.next_deadline(), None);
}

#[test]
fn a_keep_alive_that_is_armed_again_uses_the_same_entry() {
    let mut wheel = Wheel::new(0);
    let mut due = Vec::new();
    let mut now = 0;
    for n in 0..1000u32 {
        wheel.insert(u64::from(n) * 60, n);
    }
    let mut fired = 0;
    while fired < 100_000 {
        now = wheel.next_deadline().unwrap();
        wheel.advance(now, &mut due);
        for n in due.drain(..) {
            fired += 1;
            wheel.insert(now + 60_000, n);
        }
    }
    assert_eq!(wheel.len(), 1000);
    assert_eq!(wheel.entries.capacity(), 1024);
    assert!(now >= 99 * 60_000);
}

#[test]
fn the_longest_session_expiry_and_the_end_of_time_are_kept() {
    let mut wheel = Wheel::new(0);
    let mut due = Vec::new();
    let forever = u64::from(u32::MAX) * 1000;
    wheel.insert(forever, 1);
    wheel.insert(u64::MAX, 2);
    wheel.advance(forever - 1, &mut due);
    assert!(due.is_empty());
    wheel.advance(forever, &mut due);
    assert_eq!(due, [1]);
    assert!(wheel.next_deadline().is_some());
    wheel.advance(u64::MAX, &mut due);
    assert_eq!(due, [1], "never early, and there is no later");
}

#[test]
fn memory_goes_when_a_crowd_has_gone() {
    let mut wheel = Wheel::new(0);
    let mut due = Vec::new();
    for n in 0..10_000u64 {
        wheel.insert(n, n);
    }
    wheel.advance(100_000, &mut due);
    assert_eq!((due.len(), wheel.entries.capacity()), (10_000, 0));
    wheel.insert(100_050, 1);
    due.clear();
    wheel.advance(100_100, &mut due);
    assert_eq!(due, [1]);
}

#[derive(Clone, Debug)]
enum Action {
    Insert(u64),
    Advance(u64),
    Sleep,
}

fn any_action() -> impl Strategy<Value = Action> {
    let span = || prop_oneof![0..50u64, 0..5_000u64, 0..500_000u64, 0..400_000_000u64, 0..10_000_000_000_000u64];
    prop_oneof![
        4 => span().prop_map(Action::Insert),
        2 => span().prop_map(Action::Advance),
        2 => Just(Action::Sleep),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_sequence_fires_as_a_map_would(
        start in 0..1_000_000_000u64,
        actions in prop::collection::vec(any_action(), 1..200),
    ) {
        const TICK: u64 = 10;
        let (mut wheel, mut model, mut now) = (Wheel::with_tick(start, TICK), BTreeMap::new(), start);
        for (id, action) in actions.into_iter().enumerate() {
            match action {
                Action::Insert(after) => {
                    wheel.insert(now + after, id);
                    // The present's own tick began before `now`; what is due within it waits for the next.
                    model.insert(((now + after).div_ceil(TICK).max(now / TICK), id), ());
                }
                Action::Advance(_) | Action::Sleep => {
                    now = match action {
                        Action::Advance(by) => now + by,
                        _ => wheel.next_deadline().unwrap_or(now).max(now),
                    };
                    let mut due = Vec::new();
                    wheel.advance(now, &mut due);
                    let later = model.split_off(&(now / TICK + 1, 0));
                    let expected = std::mem::replace(&mut model, later);
                    let ticks: BTreeMap<usize, u64> = expected.keys().map(|(tick, id)| (*id, *tick)).collect();
                    prop_assert!(due.is_sorted_by_key(|id| ticks.get(id).copied()));
                    due.sort_unstable();
                    prop_assert_eq!(due, ticks.keys().copied().collect::<Vec<_>>());
                }
            }
            prop_assert_eq!(wheel.len(), model.len());
            let first = model.keys().next().map(|(tick, _)| tick * TICK);
            prop_assert_eq!(wheel.next_deadline().is_some(), first.is_some());
            prop_assert!(wheel.next_deadline() <= first);
        }
        // Sleeping until the next deadline gets everything out.
        let mut due = Vec::new();
        let mut wakes = 0;
        while let Some(next) = wheel.next_deadline() {
            wheel.advance(next, &mut due);
            wakes += 1;
        }
        prop_assert_eq!(due.len(), model.len());
        prop_assert!(wakes <= (model.len() + 1) * LEVELS);
    }
}
