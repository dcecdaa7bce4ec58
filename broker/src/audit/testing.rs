//! For tests: a disk that fills up, and the usual events.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use turnpike_authz::audit::chain::{ChainKey, Fault};
use turnpike_authz::audit::{Action, Event, Key, Value};
use turnpike_authz::secret::MasterKey;

use super::batch::Batch;
use super::files::{self, Disk, Medium, Output, Place};
use super::{Report, verify};

/// A day in the middle of the year 2026, milliseconds since 1970 UTC.
pub(super) const NOON_MS: u64 = 1_785_499_200_000;

/// A disk on which so many bytes may still be written; then each write takes what fits and fails.
#[derive(Clone, Debug)]
pub(super) struct Filling(pub(super) Arc<AtomicU64>);

impl Filling {
    pub(super) fn new(bytes: u64) -> Self {
        Self(Arc::new(AtomicU64::new(bytes)))
    }

    pub(super) fn set(&self, bytes: u64) {
        self.0.store(bytes, Relaxed);
    }
}

#[derive(Debug)]
struct FillingFile(Box<dyn Output>, Filling);

impl Medium for Filling {
    fn open(&self, file: &Path) -> io::Result<Box<dyn Output>> {
        Ok(Box::new(FillingFile(Disk.open(file)?, self.clone())))
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        Disk.remove(file)
    }
}

impl Output for FillingFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let left = self.1.0.load(Relaxed);
        let fits = left.min(bytes.len() as u64);
        self.1.set(left - fits);
        self.0.write_at(offset, &bytes[..usize::try_from(fits).expect("of a slice")])?;
        if fits < bytes.len() as u64 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn set_len(&mut self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync()
    }

    fn place(&self) -> io::Result<Place> {
        self.0.place()
    }
}

pub(super) fn key(seed: u8) -> ChainKey {
    ChainKey::new(&MasterKey::new([seed; 32]))
}

/// Log-ins that can be told from each other by their counts.
pub(super) fn batch(at_ms: u64, counts: std::ops::Range<u64>) -> Batch {
    let mut batch = Batch::default();
    for count in counts {
        batch.push(&Event::own(at_ms + count, Action::LogIn, &[(Key::Count, Value::Number(count))]));
    }
    batch
}

/// The counts of all log-ins in a folder, in their order.
pub(super) fn counts(folder: &Path) -> Vec<u64> {
    let is_ours = |line: &&str| line.contains("\"log_in\"") && line.contains("\"count\":");
    texts(folder).concat().lines().filter(is_ours).map(|line| number(line, "count")).collect()
}

pub(super) fn number(line: &str, key: &str) -> u64 {
    let (_, rest) = line.split_once(&format!("\"{key}\":")).expect("a number");
    rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().expect("a number")
}

/// The segments' texts.
pub(super) fn texts(folder: &Path) -> Vec<String> {
    let segments = files::segments(folder).expect("a folder");
    segments.iter().map(|(_, path)| std::fs::read_to_string(path).expect("text")).collect()
}

#[track_caller]
pub(super) fn verified(folder: &Path) -> Report {
    verify(folder, &[key(1)], &[]).expect("readable")
}

#[track_caller]
pub(super) fn whole(folder: &Path) -> Report {
    let report = verified(folder);
    assert_eq!((report.problem_count, &report.problems[..]), (0, &[][..]));
    report
}

pub(super) fn faults(report: &Report) -> Vec<Fault> {
    report.problems.iter().map(|problem| problem.fault).collect()
}
