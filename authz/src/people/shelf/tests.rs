use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[test]
fn a_record_is_found_by_name_and_by_ref_until_its_tail_is_empty() {
    let shelf = Shelf::default();
    let one = shelf.change("p", "a", |tail| tail.push(1));
    let other = shelf.change("q", "a", |tail| tail.extend([2; 300]));
    assert_ne!(one, other);
    assert_eq!(shelf.with("p", "a", |at, tail| (at, tail.to_vec())), Some((one, vec![1])));
    assert_eq!(shelf.at(other, |group, name, tail| (group.to_owned(), name.to_owned(), tail.len())), {
        Some(("q".to_owned(), "a".to_owned(), 300))
    });
    assert_eq!(shelf.with("p", "b", |_, _| ()), None);
    assert_eq!((shelf.group_len("p"), shelf.group_len("x")), (1, 0));
    shelf.change_at(one, Vec::clear);
    assert_eq!((shelf.with("p", "a", |_, _| ()), shelf.at(one, |_, _, _| ())), (None, None));
    assert_eq!(shelf.group_len("p"), 0);
    shelf.change_at(one, |tail| tail.push(1));
    assert_eq!(shelf.at(one, |_, _, _| ()), None, "what isn't there isn't made by its ref");
}

#[test]
fn what_is_in_another_group_or_runs_on_into_the_name_is_another_record() {
    let shelf = Shelf::default();
    for (n, (group, name)) in [("ab", "c"), ("a", "bc"), ("", "abc"), ("abc", "")].into_iter().enumerate() {
        shelf.change(group, name, |tail| tail.push(u8::try_from(n).expect("small")));
    }
    assert_eq!(shelf.with("ab", "c", |_, tail| tail.to_vec()), Some(vec![0]));
    assert_eq!(shelf.with("a", "bc", |_, tail| tail.to_vec()), Some(vec![1]));
}

#[test]
fn many_groups_have_numbers_of_several_bytes() {
    let shelf = Shelf::default();
    let groups: Vec<String> = (0..20_000).map(|n| format!("g{n}")).collect();
    for group in &groups {
        shelf.change(group, "n", |tail| tail.push(7));
    }
    assert!(groups.iter().all(|group| shelf.with(group, "n", |_, tail| tail == [7]) == Some(true)));
}

proptest! {
    /// Against a plain map: whatever is changed, by name or by ref, and listed in pages.
    #[test]
    fn a_shelf_is_a_map(steps in proptest::collection::vec((0..4_u8, 0..30_u8, 0..3_usize, any::<bool>()), 1..300)) {
        let (shelf, mut map) = (Shelf::default(), BTreeMap::new());
        for (group, name, length, by_ref) in steps {
            let key = (format!("g{group}"), format!("n{name}"));
            let tail = vec![group ^ name; length];
            let set = |to: &mut Vec<u8>| to.clone_from(&tail);
            match shelf.with(&key.0, &key.1, |at, _| at) {
                Some(at) if by_ref => shelf.change_at(at, set),
                _ => drop(shelf.change(&key.0, &key.1, set)),
            }
            if tail.is_empty() { map.remove(&key) } else { map.insert(key, tail) };
        }
        let mut seen = BTreeMap::new();
        let mut after = None;
        loop {
            let mut page = 0;
            shelf.scan(after, |at, group, name, tail| {
                assert!(seen.insert((group.to_owned(), name.to_owned()), tail.to_vec()).is_none());
                after = Some(at);
                page += 1;
                page < 7
            });
            if page == 0 {
                break;
            }
        }
        prop_assert_eq!(&seen, &map);
        for group in 0..4 {
            let group = format!("g{group}");
            let expected = map.keys().filter(|(of, _)| *of == group).count() as u64;
            prop_assert_eq!(shelf.group_len(&group), expected);
        }
    }
}
