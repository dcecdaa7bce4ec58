use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn bounds(boots_max: usize, ranges_max: usize) -> Bounds {
    Bounds { boots_max, ranges_max, ..Bounds::default() }
}

#[test]
fn a_sequence_that_goes_back_is_known() {
    let (mut ledger, bounds) = (Ledger::default(), Bounds::default());
    for seq in 1..=5 {
        assert_eq!(ledger.take(1, seq, &bounds), Verdict::Fresh);
    }
    for seq in 0..=5 {
        assert_eq!(ledger.take(1, seq, &bounds), Verdict::Known);
    }
    assert_eq!(ledger.take(1, 9, &bounds), Verdict::Fresh);
    assert_eq!(ledger.take(1, 7, &bounds), Verdict::Fresh);
    assert_eq!(ledger.boot(1).unwrap().gaps().collect::<Vec<_>>(), [(6, 6), (8, 8)]);
    assert_eq!(ledger.take(1, u64::MAX, &bounds), Verdict::Fresh);
    assert_eq!(ledger.lose(1, 8, u64::MAX, &bounds), Verdict::Fresh);
    assert_eq!(ledger.take(1, 6, &bounds), Verdict::Fresh);
    assert_eq!((ledger.boot(1).unwrap().upto(), ledger.boot(1).unwrap().beyond()), (u64::MAX, &[][..]));
}

#[test]
fn too_many_gaps_are_to_be_filled_or_declared_lost() {
    let (mut ledger, bounds) = (Ledger::default(), bounds(2, 2));
    assert_eq!(ledger.take(1, 3, &bounds), Verdict::Fresh);
    assert_eq!(ledger.take(1, 6, &bounds), Verdict::Fresh);
    assert_eq!(ledger.take(1, 9, &bounds), Verdict::TooFar);
    assert_eq!(ledger.lose(1, 9, 9, &bounds), Verdict::TooFar);
    // What touches a range makes no new one, nor does the next one in order.
    assert_eq!(ledger.take(1, 7, &bounds), Verdict::Fresh);
    assert_eq!(ledger.take(1, 1, &bounds), Verdict::Fresh);
    assert_eq!(ledger.lose(1, 2, 4, &bounds), Verdict::Fresh);
    assert_eq!(ledger.lose(1, 2, 4, &bounds), Verdict::Known);
    assert_eq!(ledger.take(1, 4, &bounds), Verdict::Known);
    assert_eq!(ledger.take(1, 9, &bounds), Verdict::Fresh);
}

#[test]
fn the_lowest_boot_is_pushed_out_and_never_comes_back() {
    let (mut ledger, bounds) = (Ledger::default(), bounds(2, 4));
    for boot in [5, 3, 9] {
        assert_eq!(ledger.take(boot, 1, &bounds), Verdict::Fresh);
    }
    assert_eq!((ledger.floor(), ledger.boots().len()), (4, 2));
    assert_eq!(ledger.take(3, 1, &bounds), Verdict::BootForgotten);
    assert_eq!(ledger.take(3, 2, &bounds), Verdict::BootForgotten);
    assert_eq!(ledger.lose(3, 2, 2, &bounds), Verdict::BootForgotten);
    // Not below the floor, but lower than all that are kept.
    assert_eq!(ledger.take(4, 1, &bounds), Verdict::BootForgotten);
    assert_eq!(ledger.take(5, 1, &bounds), Verdict::Known);
}

#[test]
fn a_ledger_of_one_boot_takes_40_bytes() {
    assert_eq!(size_of::<Ledger>(), 40);
    let mut ledger = Ledger::default();
    let _ = ledger.take(1, 1, &Bounds::default());
    assert_eq!(ledger.heap_bytes(), 0);
}

#[test]
fn records_of_32_gaps_are_short_and_damaged_ones_are_refused() {
    let (mut ledger, bounds) = (Ledger::default(), Bounds::default());
    for seq in 0..33 {
        let _ = ledger.take(1, 1 + seq * 3, &bounds);
    }
    let value = ledger.encode();
    assert!(value.len() < 80, "{}", value.len());
    assert_eq!(Ledger::decode(&value, "p").as_ref(), Ok(&ledger));
    let damaged = Err(LedgerError::Damaged("p".to_owned()));
    for bad in [
        &[][..],
        &[1],
        &[1, 0, 1, 1],
        &[1, 0, 0, 9],
        &[1, 0, 1, 1, 5, 1, 1, 0],
        &[1, 9, 1, 8, 0, 0],
        &[1, 0, 2, 4, 0, 0, 4, 0, 0],
    ] {
        assert_eq!(Ledger::decode(bad, "p"), damaged, "{bad:?}");
    }
    assert_eq!(Ledger::decode(&[2], "p"), Err(LedgerError::Layout(2)));
}

#[test]
fn a_table_keeps_all_and_refuses_one_too_many() {
    let mut ledgers = Ledgers::new(2);
    for device in ["a", "b"] {
        let _ = ledgers.get_or_create("p", device).unwrap().take(1, 1, &Bounds::default());
    }
    assert_eq!(ledgers.get_or_create("p", "c"), Err(Full));
    assert!(ledgers.get("p", "c").is_none() && ledgers.get("p", "a").is_some());
    let value = ledgers.get("p", "a").unwrap().encode();
    assert_eq!(ledgers.load(&key("p", "c"), &value), Err(LedgerError::Full(2)));
    assert!(ledgers.remove("p", "b").is_some() && ledgers.remove("p", "b").is_none());
    ledgers.load(&key("p", "c"), &value).unwrap();
    assert_eq!(ledgers.get("p", "c"), ledgers.get("p", "a"));
    for bad in [&b"b\0p"[..], b"b\0\0d", b"b\0p\0d\0x", b"b\0p\0\xFF"] {
        assert!(is_record(bad) && matches!(ledgers.load(bad, &value), Err(LedgerError::Damaged(_))));
    }
    assert!(!is_record(b"p\0b") && !is_record(b"b") && !is_record(b"d\0p\0d"));
}

/// What a ledger should say, from a plain set.
#[derive(Default)]
struct Model {
    floor: u64,
    boots: BTreeMap<u64, BTreeSet<u64>>,
}

impl Model {
    fn ranges(set: &BTreeSet<u64>) -> usize {
        set.iter().filter(|seq| **seq > 1 && !set.contains(&(**seq - 1))).count()
    }

    fn add(&mut self, boot: u64, range: std::ops::RangeInclusive<u64>, bounds: &Bounds) -> Verdict {
        let is_lowest = self.boots.keys().next().is_some_and(|lowest| boot < *lowest);
        let is_new = !self.boots.contains_key(&boot);
        let is_full = self.boots.len() >= bounds.boots_max;
        if boot < self.floor || is_new && is_full && is_lowest {
            return Verdict::BootForgotten;
        }
        let before = self.boots.get(&boot).cloned().unwrap_or_default();
        let mut after = before.clone();
        after.extend(range.filter(|seq| *seq > 0));
        if after == before {
            return Verdict::Known;
        }
        if Self::ranges(&after) > Self::ranges(&before) && Self::ranges(&before) >= bounds.ranges_max {
            return Verdict::TooFar;
        }
        if is_new && is_full {
            self.floor = self.boots.pop_first().unwrap().0 + 1;
        }
        self.boots.insert(boot, after);
        Verdict::Fresh
    }
}

proptest! {
    #[test]
    fn a_ledger_says_what_a_set_says(
        steps in proptest::collection::vec((0_u64..6, 0_u64..40, 0_u64..6, any::<bool>()), 0..200), boots_max in 1_usize..5, ranges_max in 1_usize..6
    ) {
        let bounds = bounds(boots_max, ranges_max);
        let (mut ledger, mut model) = (Ledger::default(), Model::default());
        for (boot, seq, more, is_lost) in steps {
            if is_lost {
                let expected = model.add(boot, seq.max(1)..=seq.max(1) + more, &bounds);
                prop_assert_eq!(ledger.lose(boot, seq, seq.max(1) + more, &bounds), expected);
            } else {
                let judged = ledger.judge(boot, seq, &bounds);
                let expected = model.add(boot, seq..=seq, &bounds);
                prop_assert_eq!((judged, ledger.take(boot, seq, &bounds)), (expected, expected));
            }
            prop_assert_eq!(ledger.floor(), model.floor);
            prop_assert_eq!(Ledger::decode(&ledger.encode(), "p"), Ok(ledger.clone()));
            for (taken, (boot, set)) in ledger.boots().iter().zip(&model.boots) {
                prop_assert_eq!(taken.boot(), *boot);
                let beyond = taken.beyond().iter().flat_map(|range| range.0..=range.1);
                prop_assert_eq!(&(1..=taken.upto()).chain(beyond).collect::<BTreeSet<_>>(), set);
                let missing: BTreeSet<u64> = taken.gaps().flat_map(|gap| gap.0..=gap.1).collect();
                prop_assert!(missing.is_disjoint(set));
                prop_assert_eq!(missing.len() + set.len(), set.last().map_or(0, |last| *last as usize));
            }
        }
    }

    #[test]
    fn garbage_never_panics(value in proptest::collection::vec(any::<u8>(), 0..60)) {
        if let Ok(ledger) = Ledger::decode(&[&[1], &value[..]].concat(), "p") {
            prop_assert_eq!(Ledger::decode(&ledger.encode(), "p"), Ok(ledger));
        }
    }
}
