//! Figures of the committer, as plain atomics; the shell exports them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Upper bounds of the latency buckets, in microseconds. A last bucket, which isn't listed, takes the rest.
pub const LATENCY_BOUNDS_US: [u64; 14] =
    [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 125_000, 250_000, 500_000, 1_000_000, 5_000_000];

/// What the committer has done and what it has before it.
#[derive(Debug)]
pub struct CommitStats {
    started: Instant,
    /// Groups on disk.
    pub commits: AtomicU64,
    /// Attempts that failed.
    pub failures: AtomicU64,
    /// Tickets on disk.
    pub tickets: AtomicU64,
    /// Operations on disk.
    pub ops: AtomicU64,
    /// Bytes of these operations, about.
    pub bytes: AtomicU64,
    /// Tickets that are complete and not on disk.
    pub ready_tickets: AtomicU64,
    /// Tickets that wait for a part.
    pub incomplete_tickets: AtomicU64,
    /// Bytes that were submitted and are not on disk, about.
    pub pending_bytes: AtomicU64,
    latency_sum_us: AtomicU64,
    latency_buckets: [AtomicU64; LATENCY_BOUNDS_US.len() + 1],
    failed: AtomicBool,
    /// Microseconds after `started`, plus one; 0 while no commit runs.
    commit_began_us: AtomicU64,
}

impl CommitStats {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            commits: AtomicU64::default(),
            failures: AtomicU64::default(),
            tickets: AtomicU64::default(),
            ops: AtomicU64::default(),
            bytes: AtomicU64::default(),
            ready_tickets: AtomicU64::default(),
            incomplete_tickets: AtomicU64::default(),
            pending_bytes: AtomicU64::default(),
            latency_sum_us: AtomicU64::default(),
            latency_buckets: Default::default(),
            failed: AtomicBool::default(),
            commit_began_us: AtomicU64::default(),
        }
    }

    /// Whether the last attempt succeeded, or none was made yet.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        !self.failed.load(Relaxed)
    }

    /// For how long the commit that runs now has been running. A disk that hangs shows here and nowhere else: readiness
    /// should go off when this exceeds some seconds.
    #[must_use]
    pub fn running_for(&self) -> Option<Duration> {
        let began_us = self.commit_began_us.load(Relaxed).checked_sub(1)?;
        Some(self.started.elapsed().saturating_sub(Duration::from_micros(began_us)))
    }

    /// Latency of successful commits: count per bucket (not cumulative; bounds in [`LATENCY_BOUNDS_US`]) and sum in microseconds.
    #[must_use]
    pub fn latency(&self) -> ([u64; LATENCY_BOUNDS_US.len() + 1], u64) {
        let mut counts = [0; LATENCY_BOUNDS_US.len() + 1];
        for (count, bucket) in counts.iter_mut().zip(&self.latency_buckets) {
            *count = bucket.load(Relaxed);
        }
        (counts, self.latency_sum_us.load(Relaxed))
    }

    pub(crate) fn commit_begins(&self) {
        self.commit_began_us.store(micros(self.started.elapsed()) + 1, Relaxed);
    }

    /// Ends what [`commit_begins`](Self::commit_begins) began.
    pub(crate) fn commit_ends(&self, took: Option<Duration>) {
        self.commit_began_us.store(0, Relaxed);
        let Some(took) = took else {
            self.failures.fetch_add(1, Relaxed);
            return;
        };
        let us = micros(took);
        let bucket = LATENCY_BOUNDS_US.partition_point(|&bound| bound < us);
        if let Some(bucket) = self.latency_buckets.get(bucket) {
            bucket.fetch_add(1, Relaxed);
        }
        self.latency_sum_us.fetch_add(us, Relaxed);
        self.commits.fetch_add(1, Relaxed);
    }

    pub(crate) fn set_failed(&self, failed: bool) {
        self.failed.store(failed, Relaxed);
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX - 1)
}
