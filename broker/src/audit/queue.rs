//! The queue between those who record and the writer: bounded in records and in bytes, a lock that is held for as long as an event takes to encode.
//!
//! A push takes a lock and no system call, but where the writer sleeps: the first record of a group wakes it, and so does one that makes the
//! group large. A channel of boxed events would allocate for each, and free on another thread.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;
use turnpike_authz::audit::Event;
use turnpike_authz::audit::chain::Link;

use super::AuditSettings;
use super::batch::Batch;
use super::book::Book;
use super::files::{Index, Segment};

/// Records that make the writer begin before the interval is over.
pub(super) const GROUP_RECORDS: usize = 512;
/// Bytes that wait to be written.
const QUEUE_BYTES_MAX: usize = 64 << 20;
/// Seconds of the rate that refused log-ins may use up at once.
const BURST_S: u64 = 100;

/// Why a record isn't on disk.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AuditError {
    /// It could not be written.
    #[error("the audit can't be written: {0}")]
    Unwritable(String),
    /// Too many wait.
    #[error("too many records wait to be written")]
    Full,
    /// The broker is ending.
    #[error("the audit has ended")]
    Ended,
}

/// How the audit is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuditStatus {
    /// Why nothing, or not the head, can be written at the moment.
    pub fault: Option<String>,
    /// The last record on disk, and its mac: kept elsewhere, an anchor for `turnpike audit verify`.
    pub anchor: Link,
    /// Records written since the start.
    pub written: u64,
    /// Records dropped since the start.
    pub dropped: u64,
    /// Refused log-ins that were counted and not kept.
    pub suppressed: u64,
    /// Writes that failed.
    pub failures: u64,
    /// Records that wait.
    pub queued: u64,
    /// Segments.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Records events. Cheap to clone; any thread may use it.
#[derive(Clone, Debug)]
pub struct AuditSink(Option<Arc<Shared>>);

/// What those who record share with the writer.
#[derive(Debug)]
pub(super) struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    records_max: usize,
    refusals_per_s_max: u64,
    pub(super) fault: Mutex<Option<String>>,
    pub(super) anchor: Mutex<Link>,
    pub(super) written: AtomicU64,
    pub(super) failures: AtomicU64,
    dropped: AtomicU64,
    suppressed: AtomicU64,
    index: Index,
}

#[derive(Debug)]
struct Queue {
    batch: Batch,
    /// Who waits for which of them.
    waiting: Waiting,
    /// Records that the writer holds and hasn't written.
    held: usize,
    since: Instant,
    losses: Losses,
    refusals: Bucket,
    ended: bool,
}

/// By index in the batch.
pub(super) type Waiting = HashMap<usize, oneshot::Sender<Result<(), AuditError>>>;

/// What was not kept since it was last asked.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Losses {
    pub(super) dropped: u64,
    pub(super) suppressed: u64,
    /// When the first of them happened.
    pub(super) from_ms: u64,
}

impl Losses {
    pub(super) fn is_none(&self) -> bool {
        self.dropped == 0 && self.suppressed == 0
    }

    fn note(&mut self, at_ms: u64) {
        if self.is_none() {
            self.from_ms = at_ms;
        }
    }

    /// Adds later ones.
    pub(super) fn add(&mut self, later: Self) {
        if !later.is_none() {
            self.note(later.from_ms);
        }
        self.dropped += later.dropped;
        self.suppressed += later.suppressed;
    }
}

/// Tokens in thousandths, refilled by the clock of the events.
#[derive(Debug)]
struct Bucket {
    millitokens: u64,
    at_ms: u64,
}

impl Bucket {
    fn take(&mut self, now_ms: u64, per_s: u64) -> bool {
        // A clock that goes back gives nothing and takes nothing.
        let gained = now_ms.saturating_sub(self.at_ms).saturating_mul(per_s);
        self.at_ms = self.at_ms.max(now_ms);
        self.millitokens = self.millitokens.saturating_add(gained).min(per_s * BURST_S * 1000);
        let has = self.millitokens >= 1000;
        self.millitokens -= if has { 1000 } else { 0 };
        has
    }
}

/// What the writer is given.
pub(super) struct Taken {
    pub(super) waiting: Waiting,
    pub(super) losses: Losses,
    pub(super) ended: bool,
}

impl AuditSink {
    /// Records nothing, and says that all is well.
    #[must_use]
    pub fn disabled() -> Self {
        Self(None)
    }

    pub(super) fn new(settings: &AuditSettings, book: &Book) -> Self {
        let refusals_per_s_max = u64::from(settings.refusals_per_s_max);
        let queue = Queue {
            batch: Batch::default(),
            waiting: Waiting::new(),
            held: 0,
            since: Instant::now(),
            losses: Losses::default(),
            refusals: Bucket { millitokens: refusals_per_s_max * BURST_S * 1000, at_ms: 0 },
            ended: false,
        };
        Self(Some(Arc::new(Shared {
            queue: Mutex::new(queue),
            wake: Condvar::new(),
            records_max: settings.queue_records_max,
            refusals_per_s_max,
            fault: Mutex::new(book.head_fault().map(str::to_owned)),
            anchor: Mutex::new(book.link()),
            written: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            suppressed: AtomicU64::new(0),
            index: book.index(),
        })))
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(self.0.as_ref().expect("only of an audit that is kept"))
    }

    /// Records an event: in time, and without waiting. It is dropped and counted if too much waits already.
    pub fn record(&self, event: &Event<'_>) {
        if let Some(shared) = &self.0 {
            let _ = shared.push(event, None);
        }
    }

    /// Records an event; the future ends when it is on disk, or can't be brought there.
    pub fn record_durable(&self, event: &Event<'_>) -> impl Future<Output = Result<(), AuditError>> + Send + use<> {
        let pushed = self.0.as_ref().map(|shared| {
            let (reply, written) = oneshot::channel();
            shared.push(event, Some(reply)).map(|()| written)
        });
        async move {
            match pushed {
                None => Ok(()),
                Some(written) => written?.await.unwrap_or(Err(AuditError::Ended)),
            }
        }
    }

    /// How it is; none where no audit is kept.
    #[must_use]
    pub fn status(&self) -> AuditStatus {
        let Some(shared) = &self.0 else { return AuditStatus::none() };
        let queued = {
            let queue = shared.queue.lock();
            queue.batch.len() + queue.held
        };
        let (segments, bytes) = {
            let index = shared.index.read();
            (index.len() as u64, index.iter().map(|segment| segment.bytes).sum())
        };
        AuditStatus {
            fault: shared.fault.lock().clone(),
            anchor: *shared.anchor.lock(),
            written: shared.written.load(Relaxed),
            dropped: shared.dropped.load(Relaxed),
            suppressed: shared.suppressed.load(Relaxed),
            failures: shared.failures.load(Relaxed),
            queued: queued as u64,
            segments,
            bytes,
        }
    }

    /// Why nothing can be written at the moment, if so.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        self.0.as_ref().and_then(|shared| shared.fault.lock().clone())
    }

    /// Whether records are kept at all.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    /// Segments as they are now, oldest first, for [`super::search`].
    #[must_use]
    pub fn segments(&self) -> Vec<Segment> {
        self.0.as_ref().map(|shared| shared.index.read().clone()).unwrap_or_default()
    }

    /// Nothing more is taken; the writer ends when it has written what waits.
    pub(super) fn end(&self) {
        if let Some(shared) = &self.0 {
            shared.queue.lock().ended = true;
            shared.wake.notify_one();
        }
    }
}

impl AuditStatus {
    fn none() -> Self {
        Self {
            fault: None,
            anchor: Link::START,
            written: 0,
            dropped: 0,
            suppressed: 0,
            failures: 0,
            queued: 0,
            segments: 0,
            bytes: 0,
        }
    }
}

impl Shared {
    fn push(
        &self,
        event: &Event<'_>,
        reply: Option<oneshot::Sender<Result<(), AuditError>>>,
    ) -> Result<(), AuditError> {
        let mut guard = self.queue.lock();
        let queue = &mut *guard;
        if queue.ended {
            return Err(AuditError::Ended);
        }
        if reply.is_none() && event.is_unsolicited() && !queue.refusals.take(event.at_ms, self.refusals_per_s_max) {
            queue.losses.note(event.at_ms);
            queue.losses.suppressed += 1;
            self.suppressed.fetch_add(1, Relaxed);
            return Ok(());
        }
        if queue.batch.len() + queue.held >= self.records_max || queue.batch.bytes() >= QUEUE_BYTES_MAX {
            // Whoever waits for the answer is told; nobody else is there to be told.
            if reply.is_none() {
                queue.losses.note(event.at_ms);
                queue.losses.dropped += 1;
                self.dropped.fetch_add(1, Relaxed);
            }
            return Err(AuditError::Full);
        }
        if queue.batch.is_empty() {
            queue.since = Instant::now();
        }
        queue.batch.push(event);
        let wakes = reply.is_some() || matches!(queue.batch.len(), 1 | GROUP_RECORDS);
        if let Some(reply) = reply {
            queue.waiting.insert(queue.batch.len() - 1, reply);
        }
        drop(guard);
        if wakes {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Waits until there is something to write or `until` has come, and appends what waits to `held`. Records wait `interval` to become a
    /// group, less if it is large, or if somebody waits for one of them. Without an interval they wait `until` that moment, however many.
    pub(super) fn take(&self, held: &mut Batch, interval: Option<Duration>, until: Instant) -> Taken {
        let mut queue = self.queue.lock();
        loop {
            let is_group = interval.is_some() && queue.batch.len() >= GROUP_RECORDS;
            let due = match interval {
                Some(interval) if !queue.batch.is_empty() => until.min(queue.since + interval),
                _ => until,
            };
            if queue.ended || !queue.waiting.is_empty() || is_group || Instant::now() >= due {
                break;
            }
            self.wake.wait_until(&mut queue, due);
        }
        let offset = held.len();
        if held.is_empty() {
            std::mem::swap(held, &mut queue.batch);
        } else {
            held.append(&queue.batch);
            queue.batch.clear();
        }
        queue.held = held.len();
        let waiting = std::mem::take(&mut queue.waiting);
        Taken {
            waiting: waiting.into_iter().map(|(index, reply)| (offset + index, reply)).collect(),
            losses: std::mem::take(&mut queue.losses),
            ended: queue.ended,
        }
    }

    /// So many records the writer still holds.
    pub(super) fn hold(&self, records: usize) {
        self.queue.lock().held = records;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut bucket = Bucket { millitokens: 10 * BURST_S * 1000, at_ms: 5000 };
        let mut taken = |at_ms: u64, tries: u32| (0..tries).filter(|_| bucket.take(at_ms, 10)).count();
        assert_eq!(taken(5000, 5000), 1000);
        assert_eq!(taken(5000, 1), 0);
        assert_eq!(taken(5100, 10), 1);
        assert_eq!(taken(6100, 100), 10);
        // The clock has gone back.
        assert_eq!(taken(1000, 10), 0);
        assert_eq!(taken(u64::MAX, 5000), 1000);
    }
}
