use std::path::PathBuf;

use tempfile::TempDir;
use turnpike_authz::audit::chain::Fault;

use super::super::book::Book;
use super::super::files::Disk;
use super::super::search::Pattern;
use super::super::testing::{NOON_MS, batch, faults, key, texts, verified, whole};
use super::*;

/// An audit of forty log-ins in several segments.
fn written() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let audit = folder.path().join("audit");
    let (mut book, _) = Book::open(audit.clone(), key(1), 2500, Box::new(Disk)).expect("opened");
    (0..40).for_each(|n| book.write(&batch(NOON_MS, n..n + 1), NOON_MS + n).expect("written"));
    (folder, audit)
}

fn segment_paths(audit: &Path) -> Vec<PathBuf> {
    files::segments(audit).expect("a folder").into_iter().map(|(_, path)| path).collect()
}

#[test]
fn a_problem_says_where_it_is() {
    let (_folder, audit) = written();
    let report = whole(&audit);
    assert_eq!((report.segments, report.summary.first), (segment_paths(&audit).len(), 1));
    assert_eq!((report.summary.from_ms, report.summary.to_ms), (NOON_MS, NOON_MS + 39));
    let second = &segment_paths(&audit)[1];
    let text = std::fs::read_to_string(second).expect("text");
    let line = text.lines().nth(2).expect("lines");
    let sequence = super::super::testing::number(line, "seq");
    std::fs::write(second, text.replace(line, &line.replace("log_in", "log_xx"))).expect("written");
    let report = verified(&audit);
    let name = second.file_name().expect("a name").to_string_lossy().into_owned();
    assert_eq!(report.problems, [Problem { place: Some((name.clone(), 3)), fault: Fault::Changed { sequence } }]);
    assert_eq!(report.problems[0].to_string(), format!("{name}, line 3: record {sequence} has been changed"));
}

#[test]
fn whole_segments_that_go_or_change_places_are_found() {
    let (_folder, audit) = written();
    let paths = segment_paths(&audit);
    assert!(paths.len() > 3);
    let contents: Vec<Vec<u8>> = paths.iter().map(|path| std::fs::read(path).expect("read")).collect();
    let restore =
        || paths.iter().zip(&contents).for_each(|(path, bytes)| std::fs::write(path, bytes).expect("written"));
    for path in &paths {
        std::fs::remove_file(path).expect("removed");
        assert!(verified(&audit).problem_count > 0, "{} is gone", path.display());
        restore();
    }
    std::fs::write(&paths[0], &contents[1]).expect("written");
    std::fs::write(&paths[1], &contents[0]).expect("written");
    assert!(verified(&audit).problem_count > 0);
    restore();
    // Half a line at the end of a segment that isn't the last was left by nobody's interrupted write.
    std::fs::write(&paths[0], [&contents[0][..], b"{\"seq\":"].concat()).expect("written");
    assert!(matches!(faults(&verified(&audit))[..], [Fault::NoRecord { .. }, ..]));
    restore();
    whole(&audit);
}

#[test]
fn problems_are_counted_and_not_all_listed() {
    let (_folder, audit) = written();
    let path = &segment_paths(&audit)[0];
    std::fs::write(path, "x\n".repeat(1000)).expect("written");
    let report = verified(&audit);
    assert_eq!(report.problems.len(), LISTED_MAX);
    assert!(report.problem_count >= 1000);
}

#[test]
fn bytes_without_end_are_read_in_little_memory() {
    let (_folder, audit) = written();
    let last = segment_paths(&audit).pop().expect("segments");
    let mut bytes = std::fs::read(&last).expect("read");
    bytes.resize(bytes.len() + (4 << 20), b'x');
    std::fs::write(&last, &bytes).expect("written");
    let report = whole(&audit);
    assert_eq!(report.unfinished_bytes, 4 << 20);
}

#[test]
fn an_anchor_is_held_against_what_is_there() {
    let (_folder, audit) = written();
    let anchor = whole(&audit).anchor.expect("records");
    assert_eq!(verify(&audit, &[key(1)], &[anchor]).expect("readable").problem_count, 0);
    let later = Link { sequence: anchor.sequence + 1, ..anchor };
    let report = verify(&audit, &[key(1)], &[later]).expect("readable");
    assert_eq!(faults(&report), [Fault::Truncated { last: anchor.sequence, head: anchor.sequence + 1 }]);
    let other = Link { sequence: anchor.sequence - 1, ..anchor };
    let report = verify(&audit, &[key(1)], &[other]).expect("readable");
    assert_eq!(faults(&report), [Fault::NotTheSame { sequence: anchor.sequence - 1 }]);
}

#[test]
fn records_are_written_out_as_lines_and_as_a_table() {
    let (_folder, audit) = written();
    let mut lines = Vec::new();
    let count = export(&audit, &Query::default(), Format::JsonLines, &mut lines).expect("written");
    assert_eq!(String::from_utf8(lines).expect("text"), texts(&audit).concat());
    assert_eq!(count, whole(&audit).summary.records);
    let range = Query {
        from_ms: NOON_MS + 5,
        to_ms: NOON_MS + 7,
        action: Some(Pattern::new("log_*")),
        limit: 1,
        ..Query::default()
    };
    let mut table = Vec::new();
    assert_eq!(export(&audit, &range, Format::Csv, &mut table).expect("written"), 2);
    let table = String::from_utf8(table).expect("text");
    let rows: Vec<&str> = table.lines().collect();
    assert_eq!(rows[0], "seq,time,actor,source,action,target,result,cause,detail");
    assert!(rows[1].ends_with(",2026-07-31T12:00:00.005Z,broker,,log_in,,ok,,\"{\"\"count\"\":5}\""), "{}", rows[1]);
    assert_eq!(rows.len(), 3);
}
