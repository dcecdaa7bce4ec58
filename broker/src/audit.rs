//! The audit's files, and the thread that writes them. What a record is, and how records are chained, is in [`turnpike_authz::audit`].
//!
//! ```text
//! shard   ─record──────────▶ queue ─▶ writer ─▶ 00000000000000000001.jsonl … the segment in use     search, export: read segments
//! API     ─record_durable──▶           │       write, fsync, head, fsync                              verify: follows the chain
//!                       ◀──answer──────┘
//! ```
//!
//! **Invariant:** who records never waits for the disk, but who asked to ([`AuditSink::record_durable`]). When the queue is full the
//! record is dropped, counted, and the count becomes a record itself.
//!
//! **Invariant:** a record is on disk whole or not at all, and the head never knows of a record that isn't: segment first, then head, each with
//! its fsync. What a failed write has left is cut off before the next one.
//!
//! **Invariant:** what is written can be found again: a write to a file whose path leads elsewhere by now has failed. Then the chain goes on in new files,
//! and a record says so.
//!
//! A segment ends at its size or with the day (UTC). Only whole segments are ever removed, oldest first, after a record says so.

mod batch;
mod book;
mod files;
mod moment;
mod queue;
mod search;
#[cfg(test)]
mod testing;
mod verify;
mod witness;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use turnpike_authz::audit::chain::{ChainKey, Link};
use turnpike_authz::audit::{Action, Event, Key, Value};

use book::{Book, Note};
use files::{Disk, Medium};
pub use moment::{Moment, format_ms};
pub use queue::{AuditError, AuditSink, AuditStatus};
pub use search::{Cursor, Entry, Page, Pattern, Query, search};
pub use verify::{Format, Problem, Report, export, verify};
pub use witness::LogInWitness;
use writer::Writer;

/// Days that the standard for platforms of this class asks for: six months.
pub const SIX_MONTHS_DAYS: u32 = 184;

/// How an audit is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuditSettings {
    /// Whether one is kept.
    pub enabled: bool,
    /// Its folder; none means `audit` in the data folder.
    pub folder: Option<PathBuf>,
    /// Days that records are kept at least; whole segments are removed then.
    pub retention_days: u32,
    /// Bytes of a segment above which a new one begins.
    pub segment_bytes_max: u64,
    /// How long a log-in may wait for its fsync.
    pub sync_interval: Duration,
    /// Records that wait to be written; what comes beyond is dropped and counted.
    pub queue_records_max: usize,
    /// Refused log-ins a second that are kept one by one; a hundred times as many at once. The rest is counted.
    pub refusals_per_s_max: u32,
    /// Whether changes by administrators are refused while they can't be audited.
    pub required: bool,
}

impl Default for AuditSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            folder: None,
            retention_days: 190,
            segment_bytes_max: 64 << 20,
            sync_interval: Duration::from_millis(200),
            queue_records_max: 65_536,
            refusals_per_s_max: 100,
            required: true,
        }
    }
}

impl AuditSettings {
    /// Where it is, given the data folder.
    #[must_use]
    pub fn folder(&self, data: &Path) -> PathBuf {
        self.folder.clone().unwrap_or_else(|| data.join("audit"))
    }
}

/// A running audit: what was opened, and the thread that writes.
#[derive(Debug)]
pub struct Audit {
    sink: AuditSink,
    thread: Option<JoinHandle<()>>,
    /// The last record that was found.
    opened: Link,
    is_damaged: bool,
}

impl Audit {
    /// Opens the audit of a data folder, checks its last segment against the head, and starts to write. What was found goes into the log and
    /// into the audit itself.
    ///
    /// # Errors
    /// What is there can't be read, or a thread not be started. A disk that is full is no error: see [`AuditStatus::fault`].
    pub fn start(settings: &AuditSettings, data: &Path, key: &ChainKey) -> io::Result<Self> {
        match settings.enabled {
            true => Self::start_on(Box::new(Disk), settings, data, key),
            false => Ok(Self { sink: AuditSink::disabled(), thread: None, opened: Link::START, is_damaged: false }),
        }
    }

    fn start_on(medium: Box<dyn Medium>, settings: &AuditSettings, data: &Path, key: &ChainKey) -> io::Result<Self> {
        let folder = settings.folder(data);
        let lock = files::lock(&folder)?;
        let (mut book, notes) = Book::open(folder, key.clone(), settings.segment_bytes_max, medium)?;
        // Two that write one chain would break it.
        book.hold(lock);
        let opened = book.link();
        let is_damaged = notes.iter().any(|note| matches!(note, Note::Damage { .. }));
        let sink = AuditSink::new(settings, &book);
        notes.iter().for_each(|note| tell(note, &sink));
        let writer = Writer::new(book, sink.shared(), settings);
        let thread = std::thread::Builder::new().name("audit".to_owned()).spawn(move || writer.run())?;
        Ok(Self { sink, thread: Some(thread), opened, is_damaged })
    }

    /// The handle to record with.
    #[must_use]
    pub fn sink(&self) -> AuditSink {
        self.sink.clone()
    }

    /// Whether one is kept.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.sink.is_kept()
    }

    /// Whether there was nothing before.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.opened.sequence == 0
    }

    /// The last record that was there at the start.
    #[must_use]
    pub fn opened(&self) -> Link {
        self.opened
    }

    /// Whether it was found damaged at the start, which is on record then.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.is_damaged
    }

    /// Writes what waits and ends, by `limit`. Says whether all of it is on disk.
    pub fn finish(mut self, limit: Duration) -> bool {
        let Some(thread) = self.thread.take() else { return true };
        self.sink.end();
        let deadline = Instant::now() + limit;
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        let status = self.sink.status();
        thread.is_finished() && status.fault.is_none() && status.queued == 0
    }
}

/// Whether there are records in a folder.
///
/// # Errors
/// It can't be read.
pub fn has_records(folder: &Path) -> io::Result<bool> {
    Ok(!files::segments(folder)?.is_empty())
}

/// Milliseconds since 1970 UTC.
#[must_use]
pub fn now_ms() -> u64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Says what was found at the start.
fn tell(note: &Note, sink: &AuditSink) {
    let at_ms = now_ms();
    match note {
        Note::Unfinished { bytes } => {
            tracing::warn!(bytes, "the audit's last write was interrupted; what it left is removed");
            let details = [(Key::Bytes, Value::Number(*bytes))];
            sink.record(&Event::own(at_ms, Action::UnfinishedRemoved, &details));
        }
        Note::Damage { segment, fault, sequence } => {
            tracing::error!(segment, %fault, "the audit is damaged; `turnpike audit verify` lists everything");
            let details = [(Key::Sequence, Value::Number(*sequence))];
            sink.record(&Event::own(at_ms, Action::DamageFound, &details));
        }
        Note::OtherKey { sequence } => {
            tracing::warn!("the audit goes on under another master key; keep the former one to verify what is older");
            let details = [(Key::Sequence, Value::Number(*sequence))];
            sink.record(&Event::own(at_ms, Action::ChainRekeyed, &details));
        }
    }
}
