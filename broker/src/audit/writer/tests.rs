use std::path::PathBuf;

use tempfile::TempDir;
use turnpike_authz::audit::{Outcome, Subject};

use super::super::testing::{Filling, NOON_MS, key, number, texts, whole};
use super::*;
use crate::audit::{Audit, AuditSink};

const BIG: u64 = 1 << 30;

fn event<'a>(count: &'a [(Key, Value<'static>)]) -> Event<'a> {
    Event::own(NOON_MS, Action::LogIn, count)
}

fn count(n: u64) -> [(Key, Value<'static>); 1] {
    [(Key::Count, Value::Number(n))]
}

fn refused() -> Event<'static> {
    Event { actor: Subject::Unknown, outcome: Outcome::Refused("wrong_signature"), ..event(&[]) }
}

/// A writer that isn't on a thread of its own, and writes when it is told to.
struct Bench {
    folder: TempDir,
    disk: Filling,
    sink: AuditSink,
    writer: Writer,
}

impl Bench {
    fn new(settings: &AuditSettings) -> Self {
        let (folder, disk) = (tempfile::tempdir().expect("a folder"), Filling::new(BIG));
        let (book, _) = Book::open(folder.path().join("audit"), key(1), BIG, Box::new(disk.clone())).expect("opened");
        let sink = AuditSink::new(settings, &book);
        let writer = Writer::new(book, sink.shared(), settings);
        Self { folder, disk, sink, writer }
    }

    fn audit(&self) -> PathBuf {
        self.folder.path().join("audit")
    }

    fn turn(&mut self) {
        let taken = self.writer.shared.take(&mut self.writer.held, Some(Duration::ZERO), Instant::now());
        self.writer.write(taken.waiting, taken.losses);
    }

    fn log_ins(&self) -> Vec<u64> {
        super::super::testing::counts(&self.audit())
    }

    fn told(&self, action: &str) -> Vec<u64> {
        let lines = texts(&self.audit()).concat();
        lines.lines().filter(|line| line.contains(&format!("\"{action}\""))).map(|line| number(line, "count")).collect()
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

#[test]
fn who_waits_is_answered_when_it_is_on_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let audit = Audit::start(&AuditSettings::default(), folder.path(), &key(1)).expect("started");
    let sink = audit.sink();
    for n in 0..20 {
        sink.record(&event(&count(n * 2)));
        assert_eq!(block_on(sink.record_durable(&event(&count(n * 2 + 1)))), Ok(()));
        let counts = super::super::testing::counts(&folder.path().join("audit"));
        assert_eq!(counts, (0..n * 2 + 2).collect::<Vec<_>>());
    }
    let anchor = sink.status().anchor;
    assert!(audit.finish(Duration::from_secs(20)));
    let report = whole(&folder.path().join("audit"));
    assert_eq!(report.anchor, Some(anchor));
    // Nobody writes any more.
    assert_eq!(block_on(sink.record_durable(&event(&[]))), Err(AuditError::Ended));
}

#[test]
fn what_waits_is_written_at_the_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = AuditSettings { sync_interval: Duration::from_secs(3600), ..AuditSettings::default() };
    let audit = Audit::start(&settings, folder.path(), &key(1)).expect("started");
    (0..5000).for_each(|n| audit.sink().record(&event(&count(n))));
    assert!(audit.finish(Duration::from_secs(20)));
    assert_eq!(super::super::testing::counts(&folder.path().join("audit")), (0..5000).collect::<Vec<_>>());
    assert!(Audit::start(&settings, folder.path(), &key(1)).is_ok_and(|audit| !audit.is_new()));
}

#[test]
fn many_threads_lose_nothing_and_order_nothing_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let audit = Audit::start(&AuditSettings::default(), folder.path(), &key(1)).expect("started");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let sink = audit.sink();
            scope.spawn(move || (0..2000).for_each(|n| sink.record(&event(&count(thread * 10_000 + n)))));
        }
    });
    assert_eq!(audit.sink().status().dropped, 0);
    assert!(audit.finish(Duration::from_secs(20)));
    whole(&folder.path().join("audit"));
    let counts = super::super::testing::counts(&folder.path().join("audit"));
    for thread in 0..4 {
        let own: Vec<u64> = counts.iter().copied().filter(|count| count / 10_000 == thread).collect();
        assert_eq!(own, (thread * 10_000..thread * 10_000 + 2000).collect::<Vec<_>>());
    }
}

#[test]
fn a_full_queue_drops_and_says_how_much() {
    let settings = AuditSettings { queue_records_max: 1000, ..AuditSettings::default() };
    let mut bench = Bench::new(&settings);
    (0..1300).for_each(|n| bench.sink.record(&event(&count(n))));
    let waiting = bench.sink.record_durable(&event(&[]));
    assert_eq!(block_on(waiting), Err(AuditError::Full));
    assert_eq!((bench.sink.status().queued, bench.sink.status().dropped), (1000, 300));
    bench.turn();
    assert_eq!(bench.log_ins(), (0..1000).collect::<Vec<_>>());
    assert_eq!(bench.told("records_dropped"), [300]);
    assert_eq!(whole(&bench.audit()).summary.dropped, 300);
    // Once told, not told again.
    bench.sink.record(&event(&count(1000)));
    bench.turn();
    assert_eq!(bench.told("records_dropped"), [300]);
    assert_eq!(bench.sink.status().queued, 0);
}

#[test]
fn a_flood_of_refusals_is_a_number() {
    let settings = AuditSettings { refusals_per_s_max: 2, ..AuditSettings::default() };
    let mut bench = Bench::new(&settings);
    (0..1000).for_each(|_| bench.sink.record(&refused()));
    bench.sink.record(&event(&count(1)));
    bench.turn();
    assert_eq!(bench.told("records_suppressed"), [800]);
    assert_eq!(bench.log_ins().len(), 1, "who comes in is never left out");
    assert_eq!(texts(&bench.audit()).concat().matches("wrong_signature").count(), 200);
    assert_eq!((bench.sink.status().suppressed, bench.sink.status().dropped), (800, 0));
    whole(&bench.audit());
}

#[test]
fn a_full_disk_refuses_who_waits_and_keeps_the_rest() {
    let mut bench = Bench::new(&AuditSettings::default());
    bench.sink.record(&event(&count(0)));
    bench.turn();
    bench.disk.set(500);
    (1..20).for_each(|n| bench.sink.record(&event(&count(n))));
    let waiting = bench.sink.record_durable(&event(&count(1000)));
    bench.turn();
    assert!(matches!(block_on(waiting), Err(AuditError::Unwritable(_))));
    let status = bench.sink.status();
    assert!(status.fault.is_some() && status.failures == 1 && status.queued == 19, "{status:?}");
    assert_eq!(bench.log_ins(), [0]);
    // Another try fails, too; what comes meanwhile waits behind the rest.
    bench.sink.record(&event(&count(20)));
    bench.turn();
    assert_eq!(bench.sink.status().failures, 2);
    bench.disk.set(BIG);
    bench.turn();
    let status = bench.sink.status();
    assert!(status.fault.is_none() && status.queued == 0, "{status:?}");
    assert_eq!(bench.log_ins(), (0..21).collect::<Vec<_>>());
    // The change that was refused isn't there; that something was, is.
    assert_eq!(bench.told("records_dropped"), [1]);
    whole(&bench.audit());
}

#[test]
fn a_full_disk_alone_with_a_change_recovers_by_itself() {
    let mut bench = Bench::new(&AuditSettings::default());
    bench.turn();
    bench.disk.set(0);
    let waiting = bench.sink.record_durable(&event(&count(1)));
    bench.turn();
    assert!(block_on(waiting).is_err() && bench.sink.fault().is_some());
    assert!(bench.writer.is_behind(), "it is tried again although nothing waits");
    bench.turn();
    assert!(bench.sink.fault().is_some());
    bench.disk.set(BIG);
    bench.turn();
    assert_eq!(bench.sink.fault(), None);
    assert!(!bench.writer.is_behind());
    whole(&bench.audit());
}

#[test]
fn the_queue_stays_bounded_while_the_disk_is_full() {
    let settings = AuditSettings { queue_records_max: 1000, ..AuditSettings::default() };
    let mut bench = Bench::new(&settings);
    bench.disk.set(0);
    for _ in 0..5 {
        (0..700).for_each(|n| bench.sink.record(&event(&count(n))));
        bench.turn();
    }
    assert_eq!((bench.sink.status().queued, bench.sink.status().dropped), (1000, 2500));
    bench.disk.set(BIG);
    bench.turn();
    assert_eq!((bench.log_ins().len(), bench.told("records_dropped")), (1000, vec![2500]));
}

#[test]
fn two_do_not_write_one_chain() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = AuditSettings::default();
    let first = Audit::start(&settings, folder.path(), &key(1)).expect("started");
    assert!(Audit::start(&settings, folder.path(), &key(1)).is_err());
    assert!(first.finish(Duration::from_secs(20)));
    assert!(Audit::start(&settings, folder.path(), &key(1)).is_ok());
}

#[test]
fn a_switched_off_audit_is_in_nobodys_way() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = AuditSettings { enabled: false, ..AuditSettings::default() };
    let audit = Audit::start(&settings, folder.path(), &key(1)).expect("started");
    audit.sink().record(&event(&[]));
    assert_eq!(block_on(audit.sink().record_durable(&event(&[]))), Ok(()));
    assert!(audit.finish(Duration::ZERO));
    assert!(!folder.path().join("audit").exists());
}

#[test]
fn files_that_went_are_on_record_once() {
    let mut bench = Bench::new(&AuditSettings::default());
    bench.sink.record(&event(&count(0)));
    bench.turn();
    let before = bench.sink.status().anchor.sequence;
    std::fs::remove_dir_all(bench.audit()).expect("removed");
    bench.sink.record(&event(&count(1)));
    let mut refused = std::pin::pin!(bench.sink.record_durable(&event(&count(2))));
    bench.turn();
    assert!(matches!(block_on(refused.as_mut()), Err(AuditError::Unwritable(_))));
    assert!(bench.sink.fault().is_some() && bench.writer.is_behind());
    for _ in 0..3 {
        bench.turn();
    }
    assert_eq!((bench.sink.fault(), bench.writer.is_behind(), bench.log_ins()), (None, false, vec![1]));
    let text = texts(&bench.audit()).concat();
    let told: Vec<&str> = text.lines().filter(|line| line.contains("\"damage_found\"")).collect();
    assert!(told.len() == 1 && told[0].contains("files_gone") && number(told[0], "sequence") == before, "{text}");
    assert_eq!(bench.told("records_dropped"), [1], "whoever was told that it isn't written");
    // While nothing is written, a look finds it out.
    std::fs::remove_dir_all(bench.audit()).expect("removed");
    bench.writer.look();
    assert!(bench.sink.fault().is_some() && bench.writer.is_behind());
    bench.turn();
    bench.writer.look();
    assert_eq!((bench.sink.fault(), bench.writer.is_behind()), (None, false));
    assert_eq!(
        super::super::testing::verified(&bench.audit()).summary.damages,
        1,
        "the one before went with the folder"
    );
}
