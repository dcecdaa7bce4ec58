use proptest::prelude::*;
use tempfile::TempDir;
use turnpike_authz::audit::{Action, Event, Key, Value};

use super::super::batch::Batch;
use super::super::book::Book;
use super::super::files::Disk;
use super::super::testing::{NOON_MS, key};
use super::*;

/// An audit of so many records in segments of a few, of two kinds that take turns.
fn written(records: u64) -> (TempDir, Vec<Segment>) {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut book, _) = Book::open(folder.path().join("audit"), key(1), 3000, Box::new(Disk)).expect("opened");
    for n in 0..records {
        let mut batch = Batch::default();
        let action = if n % 2 == 0 { Action::LogIn } else { Action::Ban };
        batch.push(&Event::own(NOON_MS + n, action, &[(Key::Count, Value::Number(n))]));
        book.write(&batch, NOON_MS + n).expect("written");
    }
    let segments = book.index().read().clone();
    (folder, segments)
}

/// All pages: the counts of the records, how many pages, and the most that a page had.
fn pages(segments: &[Segment], query: &Query) -> (Vec<u64>, usize, usize) {
    let (mut counts, mut pages, mut most) = (Vec::new(), 0, 0);
    let mut query = query.clone();
    loop {
        let page = search(segments, &query).expect("readable");
        (pages, most) = (pages + 1, most.max(page.records.len()));
        // A segment's end tells of its records how many they are.
        let ours = page.records.iter().filter(|entry| entry.action != "segment_end");
        counts.extend(ours.filter_map(|entry| entry.detail.get("count")?.as_u64()));
        let Some(next) = page.next else { return (counts, pages, most) };
        assert_ne!(query.after, Some(next), "a page gets on");
        query.after = Some(next.to_string().parse().expect("a cursor"));
    }
}

#[test]
fn the_newest_come_first_and_a_page_is_bounded() {
    let (_folder, segments) = written(60);
    assert!(segments.len() > 3);
    let query = Query { action: Some(Pattern::new("log_in")), limit: 7, ..Query::default() };
    let page = search(&segments, &query).expect("readable");
    let counts: Vec<u64> = page.records.iter().filter_map(|entry| entry.detail.get("count")?.as_u64()).collect();
    assert_eq!(counts, [58, 56, 54, 52, 50, 48, 46]);
    let first = &page.records[0];
    assert_eq!((first.time, first.actor.as_str(), first.result.as_str()), (NOON_MS + 58, "broker", "ok"));
    let (all, _, most) = pages(&segments, &query);
    assert_eq!((all, most), ((0..30).rev().map(|n| n * 2).collect::<Vec<_>>(), 7));
    // Few bytes a page: more pages, and the same records.
    let query = Query { bytes_max: 700, ..query };
    let (all, number, _) = pages(&segments, &query);
    assert_eq!(all.len(), 30);
    assert!(number > 10, "{number} pages");
}

#[test]
fn segments_of_other_times_are_not_opened() {
    let (_folder, mut segments) = written(60);
    let of = |segments: &[Segment], n: u64| {
        segments.iter().find(|segment| (segment.from_ms..=segment.to_ms).contains(&(NOON_MS + n))).cloned()
    };
    let wanted = of(&segments, 30).expect("there");
    let range = Query { from_ms: NOON_MS + 30, to_ms: NOON_MS + 31, ..Query::default() };
    for segment in segments.iter_mut().filter(|segment| **segment != wanted) {
        segment.path.push("can't be opened");
    }
    assert_eq!(pages(&segments, &range).0, [30]);
    assert!(search(&segments, &Query::default()).is_err());
}

#[test]
fn patterns_are_exact_but_for_a_star() {
    let takes = |pattern: &str, text: &str| Pattern::new(pattern).takes(text);
    assert!(takes("device:lamp/one", "device:lamp/one") && !takes("device:lamp/on", "device:lamp/one"));
    assert!(takes("device:lamp/*", "device:lamp/one") && !takes("device:lamp/*", "device:lamps/one"));
    assert!(takes("*", "") && !takes("", "x"));
}

#[test]
fn a_cursor_of_nowhere_harms_nobody() {
    let (_folder, segments) = written(20);
    for text in ["0-0", "1-1", "1-99999999", "18446744073709551615-18446744073709551615", "7-5"] {
        for newest_first in [true, false] {
            let after = Some(text.parse().expect("a cursor"));
            let page = search(&segments, &Query { after, newest_first, ..Query::default() }).expect("readable");
            assert!(page.records.len() <= 40);
        }
    }
    for text in ["", "-", "1", "1-", "a-b", "-1-1"] {
        assert!(text.parse::<Cursor>().is_err(), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Whatever is asked, in pages of whatever size: each record that fits comes once, in order.
    #[test]
    fn pages_together_are_everything(
        limit in 1..30usize,
        bytes_max in prop_oneof![1..2000u64, Just(1 << 20)],
        newest_first in any::<bool>(),
        from in 0..50u64,
        length in 0..60u64,
        bans in any::<bool>(),
    ) {
        let (_folder, segments) = written(40);
        let action = bans.then(|| Pattern::new("ban"));
        let (from_ms, to_ms) = (NOON_MS + from, NOON_MS + from + length);
        let query = Query { from_ms, to_ms, action, limit, newest_first, bytes_max, ..Query::default() };
        let mut expected: Vec<u64> = (from..(from + length).min(40)).filter(|n| !bans || n % 2 == 1).collect();
        if newest_first {
            expected.reverse();
        }
        prop_assert_eq!(pages(&segments, &query).0, expected);
    }
}
