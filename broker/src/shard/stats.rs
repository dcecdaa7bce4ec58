//! What a shard tells about itself.

use std::time::Duration;

use turnpike_core::counters::Counters;
use turnpike_core::ids::ShardId;

/// Buckets of [`Histogram`].
pub const HISTOGRAM_BUCKETS: usize = 24;

/// Durations by powers of two: bucket `i` counts those below `2^i` microseconds that are in no earlier one; the last counts the rest too.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Histogram {
    /// Counts.
    pub buckets: [u64; HISTOGRAM_BUCKETS],
    /// Sum of the durations, microseconds.
    pub sum_us: u64,
}

impl Histogram {
    pub(crate) fn record(&mut self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - us.leading_zeros()) as usize;
        if let Some(count) = self.buckets.get_mut(bucket.min(HISTOGRAM_BUCKETS - 1)) {
            *count += 1;
        }
        self.sum_us = self.sum_us.saturating_add(us);
    }

    /// How many were recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// Figures of one shard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShardStats {
    /// Which.
    pub shard: ShardId,
    /// What its core has counted.
    pub core: Counters,
    /// What its sockets have counted.
    pub net: NetCounters,
    /// How long turns took that had something to do.
    pub turns: Histogram,
    /// Bytes of batches in its inbox.
    pub inbox_bytes: u64,
    /// Gauge: sockets open, in handshakes and ending ones included.
    pub links: u64,
    /// Gauge: handshakes under way.
    pub handshakes: u64,
}

/// What a shard's sockets count. All but the gauges grow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NetCounters {
    /// Connections accepted from the kernel.
    pub accepted: u64,
    /// Of these, dropped at once because there were too many.
    pub shed: u64,
    /// Failed accepts (no descriptors, no memory).
    pub accept_errors: u64,
    /// Handshakes (PROXY, TLS, WebSocket) completed.
    pub handshakes_done: u64,
    /// Handshakes that failed.
    pub handshakes_failed: u64,
    /// Handshakes that took too long.
    pub handshakes_timed_out: u64,
    /// Connections that came from or went to another shard, counted where they arrived.
    pub adopted: u64,
    /// Turns in which sockets were not read because another shard or the store was behind.
    pub stalled_turns: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_powers_of_two() {
        let mut histogram = Histogram::default();
        for us in [0, 1, 2, 3, 4, u64::from(u32::MAX)] {
            histogram.record(Duration::from_micros(us));
        }
        assert_eq!(histogram.buckets[..4], [1, 1, 2, 1]);
        assert_eq!(histogram.buckets[HISTOGRAM_BUCKETS - 1], 1);
        assert_eq!(histogram.count(), 6);
    }
}
