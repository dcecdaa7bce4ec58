//! The clock that all processes share.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Workers tell their counts at multiples of this time, so that the counts of all are of the same moment.
pub const TICK_NS: u64 = 250_000_000;

/// Nanoseconds of `CLOCK_MONOTONIC`.
#[inline]
#[must_use]
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// How long it is until then; nothing if it is past.
#[must_use]
pub fn until(at_ns: u64) -> Duration {
    Duration::from_nanos(at_ns.saturating_sub(now_ns()))
}

/// As nanoseconds.
#[must_use]
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
