use proptest::prelude::*;

use super::*;

/// Fades at its time; matters more the later that is.
#[derive(Default, Debug)]
struct Until(u64);

impl Fades for Until {
    fn weight(&self, now: u64) -> u64 {
        self.0.saturating_sub(now)
    }
}

fn put(table: &Table<u64, Until>, key: u64, until: u64, now: u64) {
    table.with(key, now, |value| value.0 = until);
}

#[test]
fn what_is_put_is_found_changed_and_removed() {
    let table = Table::new(1000);
    put(&table, 1, 10, 0);
    assert_eq!(table.peek(1, |value| value.0), Some(10));
    assert_eq!(table.change(1, |value| std::mem::replace(&mut value.0, 20)), Some(10));
    assert_eq!(table.with(1, 0, |value| value.0), 20);
    assert_eq!(table.remove(1).map(|value| value.0), Some(20));
    assert!(table.remove(1).is_none() && table.peek(1, |_| ()).is_none() && table.change(1, |_| ()).is_none());
    assert_eq!(table.len(), 0);
}

#[test]
fn what_weighs_nothing_takes_no_room() {
    let table = Table::new(1000);
    for key in 0..100 {
        put(&table, key, 5, 5);
    }
    assert_eq!(table.len(), 0);
}

#[test]
fn a_table_in_use_forgets_by_itself() {
    let table = Table::new(1 << 20);
    for key in 0..100_000 {
        put(&table, key, key + 1000, key);
    }
    assert!(table.len() < 20_000, "{} of 1,000 that haven't faded", table.len());
    table.sweep(100_000);
    assert_eq!(table.len(), 999);
    table.sweep(200_000);
    assert_eq!(table.len(), 0);
}

#[test]
fn the_bound_holds_and_the_light_go_first() {
    let table = Table::new(6400);
    for key in 0..1000 {
        put(&table, key, 1_000_000, 0);
    }
    for key in 1000..200_000 {
        put(&table, key, 10, 0);
        assert!(table.len() <= 6400);
    }
    let heavy = table.collect(usize::MAX, |key, _| (*key < 1000).then_some(*key));
    assert!(heavy.len() > 990, "{} of 1,000 are left", heavy.len());
    assert_eq!(table.collect(7, |key, _| Some(*key)).len(), 7);
}

#[test]
fn a_table_of_one_holds_one_a_part() {
    let table = Table::new(1);
    for key in 0..1000 {
        put(&table, key, 10, 0);
        assert_eq!(table.peek(key, |value| value.0), Some(10), "the newest is there");
    }
    assert!(table.len() <= PARTS);
}

proptest! {
    #[test]
    fn it_knows_that_it_is_empty(steps in prop::collection::vec((0_u8..4, 0_u64..100, 0_u64..50), 1..100)) {
        let (table, mut now) = (Table::new(64), 0);
        for (step, key, passes) in steps {
            now += passes;
            match step {
                0 | 1 => put(&table, key, now + 20 * u64::from(step), now),
                2 => drop(table.remove(key)),
                _ => table.sweep(now),
            }
            let entries = table.len();
            prop_assert_eq!(table.is_empty(), entries == 0);
        }
        table.sweep(u64::MAX);
        prop_assert!(table.is_empty());
    }
}
