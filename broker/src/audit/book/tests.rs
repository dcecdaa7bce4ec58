use std::path::Path;

use tempfile::TempDir;
use turnpike_authz::audit::chain::Fault;

use super::super::files::Disk;
use super::super::testing::{Filling, NOON_MS, batch, counts, faults, key, texts, verified, whole};
use super::*;
use crate::audit::verify;

const BIG: u64 = 1 << 30;

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn open(folder: &Path) -> (Book, Vec<Note>) {
    Book::open(folder.join("audit"), key(1), 4096, Box::new(Disk)).expect("opened")
}

fn audit(folder: &TempDir) -> PathBuf {
    folder.path().join("audit")
}

fn last_segment(folder: &TempDir) -> PathBuf {
    files::segments(&audit(folder)).expect("a folder").pop().expect("a segment").1
}

#[test]
fn records_go_on_over_segments_and_restarts() {
    let folder = folder();
    for run in 0..5 {
        let (mut book, notes) = open(folder.path());
        assert_eq!(notes, []);
        for n in 0..7 {
            let first = run * 70 + n * 10;
            book.write(&batch(NOON_MS, first..first + 10), NOON_MS + first).expect("written");
            assert_eq!(book.head_fault(), None);
        }
        let report = whole(&audit(&folder));
        assert_eq!(report.anchor, Some(book.link()));
        assert_eq!(report.summary.last, book.link().sequence);
    }
    assert_eq!(counts(&audit(&folder)), (0..350).collect::<Vec<_>>());
    let segments = texts(&audit(&folder));
    assert!(segments.len() > 10, "{} segments", segments.len());
    let (ended, in_use) = segments.split_at(segments.len() - 1);
    assert!(ended.iter().all(|text| text.lines().last().is_some_and(|line| line.contains("segment_end"))));
    assert!(!in_use.concat().contains("segment_end"));
    // What is known of them without reading them is what is in them.
    let (book, _) = open(folder.path());
    let index = book.index.read().clone();
    assert_eq!(index.len(), segments.len());
    assert!(index.windows(2).all(|pair| pair[0].last + 1 == pair[1].first && pair[0].to_ms < pair[1].to_ms));
    assert_eq!((index[0].from_ms, index[segments.len() - 1].to_ms), (NOON_MS, NOON_MS + 349));
}

#[test]
fn a_segment_ends_with_its_day() {
    let folder = folder();
    let (mut book, _) = open(folder.path());
    for day in 0..3 {
        let at_ms = NOON_MS + day * DAY_MS;
        book.write(&batch(at_ms, 0..1), at_ms).expect("written");
        book.write(&batch(at_ms, 1..2), at_ms).expect("written");
    }
    assert_eq!(texts(&audit(&folder)).len(), 3);
    // A clock that goes back ends nothing.
    book.write(&batch(NOON_MS, 0..1), NOON_MS).expect("written");
    assert_eq!(texts(&audit(&folder)).len(), 3);
    whole(&audit(&folder));
}

#[test]
fn others_cannot_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder();
    let (mut book, _) = open(folder.path());
    book.write(&batch(NOON_MS, 0..1), NOON_MS).expect("written");
    let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&audit(&folder)), 0o700);
    assert_eq!((mode(&last_segment(&folder)), mode(&files::head(&audit(&folder)))), (0o600, 0o600));
}

#[test]
fn a_write_that_fails_anywhere_changes_nothing() {
    let mut outcomes = [0; 2];
    for bytes in (0..8000).step_by(97) {
        let folder = folder();
        let disk = Filling::new(BIG);
        let medium = Box::new(disk.clone());
        let (mut book, _) = Book::open(audit(&folder), key(1), 2000, medium).expect("opened");
        book.write(&batch(NOON_MS, 0..5), NOON_MS).expect("written");
        disk.set(bytes);
        let (mut next, mut failed) = (5, false);
        for _ in 0..6 {
            let before = book.link();
            match book.write(&batch(NOON_MS, next..next + 3), NOON_MS) {
                Ok(()) => next += 3,
                // A segment may have ended meanwhile: that is the book's own record.
                Err(_) => {
                    failed = true;
                    assert!(book.link().sequence <= before.sequence + 1);
                }
            }
        }
        let _ = verified(&audit(&folder));
        disk.set(BIG);
        book.write(&batch(NOON_MS, next..next + 3), NOON_MS).expect("written");
        assert_eq!(book.head_fault(), None);
        assert_eq!(counts(&audit(&folder)), (0..next + 3).collect::<Vec<_>>(), "{bytes} bytes");
        whole(&audit(&folder));
        outcomes[usize::from(failed)] += 1;
        drop(book);
        assert_eq!(open(folder.path()).1, [], "{bytes} bytes");
    }
    assert!(outcomes.iter().all(|times| *times > 10), "{outcomes:?}");
}

#[test]
fn an_interrupted_write_is_cut_off_and_the_chain_goes_on() {
    let folder = folder();
    let (mut book, _) = open(folder.path());
    book.write(&batch(NOON_MS, 0..4), NOON_MS).expect("written");
    let (segment, head) = (last_segment(&folder), files::head(&audit(&folder)));
    let before = (std::fs::read(&segment).expect("read"), std::fs::read(&head).expect("read"));
    book.write(&batch(NOON_MS, 4..7), NOON_MS).expect("written");
    drop(book);
    let after = std::fs::read(&segment).expect("read");
    // The power fails somewhere within the second write, before the head was brought up to it.
    for cut in before.0.len()..=after.len() {
        std::fs::write(&segment, &after[..cut]).expect("written");
        std::fs::write(&head, &before.1).expect("written");
        let (mut book, notes) = open(folder.path());
        let lines = after[before.0.len()..cut].iter().filter(|byte| **byte == b'\n').count() as u64;
        let unfinished = after[..cut].len() - after[..cut].iter().rposition(|byte| *byte == b'\n').expect("lines") - 1;
        let expected = (unfinished > 0).then_some(Note::Unfinished { bytes: unfinished as u64 });
        assert_eq!(notes, expected.into_iter().collect::<Vec<_>>(), "cut at {cut}");
        book.write(&batch(NOON_MS, 4 + lines..7), NOON_MS).expect("written");
        assert_eq!(counts(&audit(&folder)), (0..7).collect::<Vec<_>>(), "cut at {cut}");
        whole(&audit(&folder));
    }
}

#[test]
fn a_segment_that_was_never_begun_is_no_segment() {
    let folder = folder();
    let (mut book, _) = open(folder.path());
    while texts(&audit(&folder)).len() < 2 {
        let next = counts(&audit(&folder)).len() as u64;
        book.write(&batch(NOON_MS, next..next + 5), NOON_MS).expect("written");
    }
    let last = book.link().sequence;
    drop(book);
    // As if the second segment had been the one whose first write was interrupted.
    for left in [b"".as_slice(), b"{\"seq\":"] {
        std::fs::write(files::segment(&audit(&folder), last + 1), left).expect("written");
        let (book, notes) = open(folder.path());
        let expected = Note::Unfinished { bytes: left.len() as u64 };
        assert_eq!(notes, if left.is_empty() { vec![] } else { vec![expected] });
        assert_eq!(book.link().sequence, last);
        whole(&audit(&folder));
    }
}

#[test]
fn an_end_that_was_cut_off_is_noticed_and_stays_so() {
    let folder = folder();
    let (mut book, _) = open(folder.path());
    book.write(&batch(NOON_MS, 0..6), NOON_MS).expect("written");
    let last = book.link().sequence;
    drop(book);
    let segment = last_segment(&folder);
    let text = std::fs::read_to_string(&segment).expect("text");
    let kept: Vec<&str> = text.lines().take(4).collect();
    std::fs::write(&segment, kept.join("\n") + "\n").expect("written");
    assert_eq!(faults(&verified(&audit(&folder))), [Fault::Truncated { last: 4, head: last }]);
    let (mut book, notes) = open(folder.path());
    let [Note::Damage { fault, sequence, .. }] = notes.as_slice() else { panic!("{notes:?}") };
    assert_eq!((*fault, *sequence), (Fault::Truncated { last: 4, head: last }, last));
    // What follows doesn't cover it up.
    book.write(&batch(NOON_MS, 6..9), NOON_MS).expect("written");
    assert_eq!(faults(&verified(&audit(&folder))), [Fault::Missing { first: 5, last }]);
    assert_eq!(open(folder.path()).1, []);
}

#[test]
fn all_segments_or_the_head_gone_is_noticed() {
    let folder = folder();
    let (mut book, _) = open(folder.path());
    book.write(&batch(NOON_MS, 0..3), NOON_MS).expect("written");
    let last = book.link().sequence;
    drop(book);
    let (segment, head) = (last_segment(&folder), files::head(&audit(&folder)));
    let kept = (std::fs::read(&segment).expect("read"), std::fs::read(&head).expect("read"));
    std::fs::remove_file(&segment).expect("removed");
    assert_eq!(faults(&verified(&audit(&folder))), [Fault::Truncated { last: 0, head: last }]);
    assert!(matches!(open(folder.path()).1[..], [Note::Damage { sequence, .. }] if sequence == last));
    std::fs::write(&segment, &kept.0).expect("written");
    let mut forged = kept.1.clone();
    [0, 512].iter().for_each(|slot| forged[slot + 25] ^= 1);
    for bad in [None, Some(vec![b' '; 1024]), Some(forged)] {
        drop(std::fs::remove_file(&head));
        bad.iter().for_each(|bytes| std::fs::write(&head, bytes).expect("written"));
        assert_eq!(faults(&verified(&audit(&folder))), [Fault::NoHead]);
        assert!(matches!(open(folder.path()).1[..], [Note::Damage { fault: Fault::NoHead, .. }]));
    }
}

#[test]
fn the_audit_outlives_the_master_key() {
    let folder = folder();
    let (mut book, _) = open(folder.path());
    book.write(&batch(NOON_MS, 0..3), NOON_MS).expect("written");
    let last = book.link().sequence;
    drop(book);
    let (mut book, notes) = Book::open(audit(&folder), key(2), 4096, Box::new(Disk)).expect("opened");
    assert_eq!(notes, [Note::OtherKey { sequence: last }]);
    book.write(&batch(NOON_MS, 3..6), NOON_MS).expect("written");
    drop(book);
    assert_eq!(Book::open(audit(&folder), key(2), 4096, Box::new(Disk)).expect("opened").1, []);
    let problems = |keys: &[ChainKey]| faults(&verify(&audit(&folder), keys, &[]).expect("readable"));
    assert_eq!(problems(&[key(2), key(1)]), []);
    assert_eq!(problems(&[key(2)]), [Fault::OtherKey { id: key(1).id() }]);
    assert_eq!(counts(&audit(&folder)), (0..6).collect::<Vec<_>>());
}

#[test]
fn what_is_old_goes_in_whole_segments_and_the_rest_can_be_followed() {
    let folder = folder();
    let (mut book, _) = open(folder.path());
    for day in 0..6 {
        let at_ms = NOON_MS + day * DAY_MS;
        book.write(&batch(at_ms, day * 10..day * 10 + 10), at_ms).expect("written");
    }
    let now_ms = NOON_MS + 6 * DAY_MS;
    assert_eq!(book.remove_before(NOON_MS, now_ms).expect("done"), 0);
    // A segment of which one record is young enough stays.
    assert_eq!(book.remove_before(NOON_MS + 2 * DAY_MS + 1, now_ms).expect("done"), 2);
    assert_eq!(counts(&audit(&folder)), (20..60).collect::<Vec<_>>());
    whole(&audit(&folder));
    // The last one stays, however old.
    let index = book.index.read().len();
    assert_eq!(book.remove_before(u64::MAX, now_ms).expect("done"), index - 1);
    assert_eq!(book.index.read().len(), 1);
    let report = whole(&audit(&folder));
    assert!(report.summary.first > 40, "{report:?}");
    drop(book);
    assert_eq!(open(folder.path()).1, []);
    // Whoever removes one more than that is found out.
    let (mut book, _) = open(folder.path());
    book.write(&batch(now_ms, 60..61), now_ms + DAY_MS).expect("written");
    let (first, oldest) = files::segments(&audit(&folder)).expect("a folder").remove(0);
    std::fs::remove_file(oldest).expect("removed");
    let [Fault::RemovedUnsaid { first: kept }] = faults(&verified(&audit(&folder)))[..] else { panic!("not found") };
    assert!(kept > first);
}

#[test]
fn files_that_go_while_they_are_written_are_missed_at_once() {
    type Removal = fn(&TempDir);
    let gone: [(&str, Removal); 4] = [
        ("the folder", |folder| std::fs::remove_dir_all(audit(folder)).expect("removed")),
        ("the folder, moved", |folder| std::fs::rename(audit(folder), folder.path().join("away")).expect("moved")),
        ("the segment", |folder| std::fs::remove_file(last_segment(folder)).expect("removed")),
        ("the segment, replaced by its copy", |folder| {
            let (segment, copy) = (last_segment(folder), folder.path().join("copy"));
            std::fs::copy(&segment, &copy).expect("copied");
            std::fs::rename(copy, segment).expect("replaced");
        }),
    ];
    for (what, go) in gone {
        let folder = folder();
        let (mut book, _) = open(folder.path());
        book.hold(files::lock(&audit(&folder)).expect("locked"));
        book.write(&batch(NOON_MS, 0..3), NOON_MS).expect("written");
        book.look().expect("all is there");
        assert_eq!(book.loss(), None);
        let before = book.link();
        go(&folder);
        assert!(book.write(&batch(NOON_MS, 3..6), NOON_MS).is_err(), "{what}");
        let loss = Loss { sequence: before.sequence };
        assert_eq!((book.link(), book.loss()), (before, Some(loss)), "{what}");
        // The chain goes on from what was known in memory, and other brokers are kept out of the folder as before.
        book.write(&batch(NOON_MS, 3..6), NOON_MS).expect(what);
        assert!(files::lock(&audit(&folder)).is_err(), "{what}");
        assert_eq!((book.head_fault(), book.link().sequence), (None, before.sequence + 4), "{what}");
        book.told_loss();
        book.write(&batch(NOON_MS, 6..9), NOON_MS).expect(what);
        book.look().expect("all is there");
        assert_eq!((book.loss(), book.index.read().last().map(|last| last.first)), (None, Some(before.sequence + 1)));
        let is_whole = what.contains("copy");
        assert_eq!(counts(&audit(&folder)), (if is_whole { 0 } else { 3 }..9).collect::<Vec<_>>(), "{what}");
        let expected = [Fault::RemovedUnsaid { first: before.sequence + 1 }];
        assert_eq!(faults(&verified(&audit(&folder))), if is_whole { &[][..] } else { &expected }, "{what}");
    }
}

#[test]
fn a_look_misses_what_nobody_writes_to() {
    let folder = folder();
    let (mut book, _) = open(folder.path());
    for day in 0..3 {
        let at_ms = NOON_MS + day * DAY_MS;
        book.write(&batch(at_ms, 0..1), at_ms).expect("written");
    }
    let sequence = book.link().sequence;
    // An old segment: that is to be told, and keeps nothing from being written.
    let (_, old) = files::segments(&audit(&folder)).expect("a folder").remove(1);
    std::fs::remove_file(old).expect("removed");
    book.look().expect("all in use is there");
    assert_eq!((book.loss(), book.index.read().len()), (Some(Loss { sequence }), 2));
    book.told_loss();
    book.look().expect("nothing new");
    assert_eq!(book.loss(), None);
    for file in [last_segment(&folder), files::head(&audit(&folder))] {
        std::fs::remove_file(file).expect("removed");
        book.look().expect_err("gone");
        let sequence = book.link().sequence;
        assert_eq!(book.loss(), Some(Loss { sequence }));
        book.told_loss();
        book.write(&batch(NOON_MS + 2 * DAY_MS, 1..2), NOON_MS + 2 * DAY_MS).expect("written");
        assert_eq!(book.head_fault(), None);
        book.look().expect("there again");
    }
    assert!(matches!(faults(&verified(&audit(&folder)))[..], [Fault::Missing { .. }, ..]));
}
