use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::audit::{Action, Event, Key, Value};

fn key(seed: u8) -> ChainKey {
    ChainKey::new(&MasterKey::new([seed; 32]))
}

fn body(action: Action, at_ms: u64, details: &[(Key, Value<'_>)]) -> Vec<u8> {
    let mut body = Vec::new();
    Event::own(at_ms, action, details).encode(&mut body);
    body
}

type Segments = Vec<Vec<Vec<u8>>>;

/// Segments of so many records each, as lines without line feeds, and where the chain ends.
fn written(sizes: &[usize], key: &ChainKey) -> (Segments, Link) {
    let mut link = Link::START;
    let mut segments = Vec::new();
    for size in sizes {
        let mut bytes = Vec::new();
        link.begin_segment(key, &body(Action::SegmentStart, link.sequence, &[]), &mut bytes);
        for _ in 1..*size {
            link.append(key, &body(Action::LogIn, link.sequence, &[]), &mut bytes);
        }
        segments.push(lines(&bytes));
    }
    (segments, link)
}

fn lines(bytes: &[u8]) -> Vec<Vec<u8>> {
    bytes.strip_suffix(b"\n").unwrap_or(bytes).split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

fn verify(segments: &[Vec<Vec<u8>>], keys: &[ChainKey], head: Link) -> (Summary, Vec<Fault>) {
    let mut verifier = Verifier::new(keys);
    verifier.expect(head);
    let mut faults = Vec::new();
    for segment in segments {
        verifier.begin_segment();
        faults.extend(segment.iter().filter_map(|line| verifier.line(line).err()));
    }
    let (summary, rest) = verifier.end();
    faults.extend(rest);
    (summary, faults)
}

#[test]
fn what_was_written_is_found_as_it_was() {
    let key = key(1);
    let (segments, head) = written(&[3, 1, 5], &key);
    let summary = Summary { records: 9, first: 1, last: 9, from_ms: 0, to_ms: 8, dropped: 0, damages: 0 };
    assert_eq!(verify(&segments, std::slice::from_ref(&key), head), (summary, vec![]));
    assert_eq!(verify(&[], &[key], Link::START).1, []);
}

#[test]
fn each_fault_is_told_from_the_others() {
    let key = key(1);
    let keys = [key.clone()];
    let (whole, head) = written(&[4, 4], &key);
    let tampered = |change: &dyn Fn(&mut Segments)| {
        let mut segments = whole.clone();
        change(&mut segments);
        verify(&segments, &keys, head).1
    };
    let first_of = |text: &str, line: &mut Vec<u8>| {
        let at = line.windows(text.len()).position(|part| part == text.as_bytes()).expect("there");
        line[at] ^= 1;
    };
    assert_eq!(tampered(&|all| first_of("broker", &mut all[0][2])), [Fault::Changed { sequence: 3 }]);
    assert_eq!(tampered(&|all| drop(all[1].remove(1))), [Fault::Missing { first: 6, last: 6 }]);
    assert_eq!(tampered(&|all| all[1].truncate(2)), [Fault::Truncated { last: 6, head: 8 }]);
    assert_eq!(tampered(&|all| drop(all.remove(1))), [Fault::Truncated { last: 4, head: 8 }]);
    assert_eq!(tampered(&|all| drop(all.remove(0))), [Fault::RemovedUnsaid { first: 5 }]);
    assert_eq!(tampered(&|all| all[0][1].clear()), [Fault::NoRecord { expected: 2 }]);
    let swapped = tampered(&|all| all[0].swap(1, 2));
    assert_eq!(swapped[0], Fault::Missing { first: 2, last: 2 });
    assert_eq!(swapped[1], Fault::OutOfOrder { expected: 4, found: 2 });
    let no_start = tampered(&|all| drop(all[1].remove(0)));
    assert_eq!(no_start, [Fault::Missing { first: 5, last: 5 }]);
}

#[test]
fn whoever_has_another_key_can_write_nothing_that_passes() {
    let (ours, theirs) = (key(1), key(2));
    let (mut segments, head) = written(&[3, 3], &ours);
    // A segment made anew, with the same events and the right link, under a key of their own, and saying so.
    let mut link = Line::parse(&segments[0][2]).expect("a line").link;
    let mut bytes = Vec::new();
    link.begin_segment(&theirs, &body(Action::SegmentStart, 3, &[]), &mut bytes);
    link.append(&theirs, &body(Action::LogIn, 4, &[]), &mut bytes);
    link.append(&theirs, &body(Action::LogIn, 5, &[]), &mut bytes);
    segments[1] = lines(&bytes);
    let (_, faults) = verify(&segments, std::slice::from_ref(&ours), head);
    assert_eq!(faults, [Fault::OtherKey { id: theirs.id() }, Fault::NotTheSame { sequence: 6 }]);
    // The same, saying that it is ours.
    let (said, told) = (format!("\"key\":{},", theirs.id()), format!("\"key\":{},", ours.id()));
    let first = String::from_utf8(segments[1][0].clone()).expect("text").replace(&said, &told);
    segments[1][0] = first.into_bytes();
    let (_, faults) = verify(&segments, &[ours], head);
    assert_eq!(faults[0], Fault::Changed { sequence: 4 });
}

#[test]
fn the_chain_goes_on_under_a_new_key() {
    let (old, new) = (key(1), key(2));
    let (mut segments, mut link) = written(&[3], &old);
    let mut bytes = Vec::new();
    link.begin_segment(&new, &body(Action::SegmentStart, 3, &[]), &mut bytes);
    link.append(&new, &body(Action::ChainRekeyed, 4, &[]), &mut bytes);
    segments.push(lines(&bytes));
    assert_eq!(verify(&segments, &[new.clone(), old.clone()], link).1, []);
    assert_eq!(verify(&segments, &[new], link).1, [Fault::OtherKey { id: old.id() }]);
}

#[test]
fn what_retention_removed_and_said_so_is_not_missing() {
    let key = key(1);
    let (mut segments, mut link) = written(&[3, 3, 3], &key);
    let removed = |sequence| body(Action::RecordsRemoved, 9, &[(Key::Sequence, Value::Number(sequence))]);
    let mut bytes = Vec::new();
    link.append(&key, &removed(3), &mut bytes);
    segments[2].extend(lines(&bytes));
    let keys = [key];
    // Announced and not done yet.
    assert_eq!(verify(&segments, &keys, link).1, []);
    assert_eq!(verify(&segments[1..], &keys, link).1, []);
    assert_eq!(verify(&segments[2..], &keys, link).1, [Fault::RemovedUnsaid { first: 7 }]);
}

#[test]
fn losses_that_the_broker_noted_are_counted() {
    let key = key(1);
    let (mut segments, mut link) = written(&[2], &key);
    let mut bytes = Vec::new();
    link.append(&key, &body(Action::RecordsDropped, 1, &[(Key::Count, Value::Number(70))]), &mut bytes);
    link.append(&key, &body(Action::DamageFound, 1, &[]), &mut bytes);
    segments[0].extend(lines(&bytes));
    let (summary, faults) = verify(&segments, &[key], link);
    assert_eq!((summary.dropped, summary.damages, faults), (70, 1, vec![]));
}

#[test]
fn an_anchor_finds_a_chain_that_was_cut_and_written_on() {
    let key = key(1);
    let (_, anchor) = written(&[5], &key);
    // The same key, the same numbers, other events: what a thief of the whole machine would write.
    let (mut other, mut head) = written(&[3], &key);
    let mut bytes = Vec::new();
    for _ in 0..3 {
        head.append(&key, &body(Action::LogOut, 1, &[]), &mut bytes);
    }
    other[0].extend(lines(&bytes));
    let keys = [key];
    assert_eq!(verify(&other, &keys, head).1, []);
    assert_eq!(verify(&other, &keys, anchor).1, [Fault::NotTheSame { sequence: 5 }]);
}

/// What is done to an audit by whoever wants a record gone.
#[derive(Clone, Debug)]
enum Tampering {
    Flip(Index, Index, u8),
    Remove(Index),
    Swap(Index, Index),
    Repeat(Index, Index),
    Truncate(Index),
}

fn tampering() -> impl Strategy<Value = Tampering> {
    let index = any::<Index>;
    prop_oneof![
        4 => (index(), index(), 0..8u8).prop_map(|(line, byte, bit)| Tampering::Flip(line, byte, bit)),
        1 => index().prop_map(Tampering::Remove),
        1 => (index(), index()).prop_map(|(a, b)| Tampering::Swap(a, b)),
        1 => (index(), index()).prop_map(|(from, to)| Tampering::Repeat(from, to)),
        1 => index().prop_map(Tampering::Truncate),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Any one byte that is flipped (line feeds included), any line that is removed, moved, repeated or cut off is found.
    #[test]
    fn nothing_can_be_changed_unseen(
        sizes in prop::collection::vec(1..6usize, 1..4),
        tampering in tampering(),
    ) {
        let key = key(1);
        let (segments, head) = written(&sizes, &key);
        // By lines of all segments; which line begins a segment is known by the file it is in.
        let mut all: Vec<(usize, Vec<u8>)> = segments
            .iter()
            .enumerate()
            .flat_map(|(segment, lines)| lines.iter().map(move |line| (segment, [line, b"\n".as_slice()].concat())))
            .collect();
        let before = all.clone();
        match tampering {
            Tampering::Flip(line, byte, bit) => {
                let line = line.index(all.len());
                let byte = byte.index(all[line].1.len());
                all[line].1[byte] ^= 1 << bit;
            }
            Tampering::Remove(line) => drop(all.remove(line.index(before.len()))),
            Tampering::Swap(a, b) => {
                let (a, b) = (a.index(before.len()), b.index(before.len()));
                (all[a].1, all[b].1) = (before[b].1.clone(), before[a].1.clone());
            }
            Tampering::Repeat(from, to) => {
                let (from, to) = (from.index(before.len()), to.index(before.len()));
                all.insert(to, (before[to].0, before[from].1.clone()));
            }
            Tampering::Truncate(at) => all.truncate(at.index(before.len())),
        }
        prop_assume!(all != before);
        let mut files = vec![Vec::new(); segments.len()];
        for (segment, line) in &all {
            files[*segment].extend_from_slice(line);
        }
        files.retain(|file| !file.is_empty());
        let tampered: Segments = files.iter().map(|file| lines(file)).collect();
        let (_, faults) = verify(&tampered, &[key], head);
        // A last line without its line feed is an unfinished write to whoever reads the file, and its record missing.
        let unfinished = files.iter().any(|file| !file.ends_with(b"\n"));
        prop_assert!(!faults.is_empty() || unfinished, "{tampered:?}");
    }

    /// No bytes make the reader of lines panic.
    #[test]
    fn any_bytes_are_read(line in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Line::parse(&line);
        let keys = [key(1)];
        let mut verifier = Verifier::new(&keys);
        prop_assert!(verifier.line(&line).is_err());
    }
}
