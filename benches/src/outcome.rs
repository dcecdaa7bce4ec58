//! What workers measured, and how their parts become one.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};
use serde::{Deserialize, Serialize, de, ser};

/// Longest latency that is told apart, nanoseconds.
const LATENCY_NS_MAX: u64 = 600_000_000_000;

/// Latencies in nanoseconds, to three digits.
#[derive(Clone, PartialEq, Debug)]
pub struct Latency(Histogram<u64>);

impl Default for Latency {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1000, LATENCY_NS_MAX, 3).expect("these bounds are valid"))
    }
}

impl Latency {
    /// Counts one.
    #[inline]
    pub fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns);
    }

    /// Counts another's.
    pub fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("the bounds are the same");
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// In microseconds: that part of all is as fast or faster.
    #[must_use]
    pub fn quantile_us(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1000.0
    }

    /// In microseconds.
    #[must_use]
    pub fn max_us(&self) -> f64 {
        self.0.max() as f64 / 1000.0
    }

    /// In microseconds.
    #[must_use]
    pub fn mean_us(&self) -> f64 {
        self.0.mean() / 1000.0
    }
}

impl Serialize for Latency {
    fn serialize<S: ser::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::new();
        V2Serializer::new().serialize(&self.0, &mut bytes).map_err(ser::Error::custom)?;
        serializer.serialize_str(&STANDARD.encode(bytes))
    }
}

impl<'de> Deserialize<'de> for Latency {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = STANDARD.decode(String::deserialize(deserializer)?).map_err(de::Error::custom)?;
        let read: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).map_err(de::Error::custom)?;
        // The serialised form may have other bounds than ours; adding makes them ours.
        let mut latency = Self::default();
        latency.0.add(read).map_err(de::Error::custom)?;
        Ok(latency)
    }
}

/// What was counted since the start of a worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Messages sent.
    pub published: u64,
    /// Messages whose last acknowledgement came.
    pub acked: u64,
    /// Messages that reached a subscriber.
    pub delivered: u64,
    /// Clients that are connected, and subscribed if they subscribe.
    pub ready: u64,
}

impl Counts {
    /// What came after `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            published: self.published - earlier.published,
            acked: self.acked - earlier.acked,
            delivered: self.delivered - earlier.delivered,
            ready: self.ready.saturating_sub(earlier.ready),
        }
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.published += other.published;
        self.acked += other.acked;
        self.delivered += other.delivered;
        self.ready += other.ready;
    }
}

/// What was measured by one worker, or by all.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// In the measured time.
    pub measured: Counts,
    /// In the whole run.
    pub total: Counts,
    /// Deliveries with a sequence number that was there before.
    pub repeated: u64,
    /// Deliveries after one with a higher sequence number, not repeated.
    pub reordered: u64,
    /// Open loop: messages that were due and not sent, since the broker didn't take or acknowledge what was sent before.
    pub unsent: u64,
    /// Closed loop: windows that stood still for seconds and were opened again.
    pub stalls: u64,
    /// From publication, or from when it was due, to delivery; to the last acknowledgement where nobody receives.
    pub latency: Latency,
    /// From the beginning of a connection, or from when it was due, to CONNACK.
    pub connecting: Latency,
    /// Connections that failed or ended, by reason.
    pub failures: BTreeMap<String, u64>,
    /// CPU of the worker in the measured time, nanoseconds.
    pub own_cpu_ns: u64,
    /// When the last publication was acknowledged and the last message delivered, on the common clock.
    pub last_ns: Last,
}

/// When something happened last.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Last {
    /// An acknowledgement.
    pub acked: u64,
    /// A delivery.
    pub delivered: u64,
}

impl Outcome {
    /// Counts another worker's part.
    pub fn add(&mut self, other: &Self) {
        self.measured += other.measured;
        self.total += other.total;
        self.repeated += other.repeated;
        self.reordered += other.reordered;
        self.unsent += other.unsent;
        self.stalls += other.stalls;
        self.latency.add(&other.latency);
        self.connecting.add(&other.connecting);
        for (reason, count) in &other.failures {
            *self.failures.entry(reason.clone()).or_default() += count;
        }
        self.own_cpu_ns += other.own_cpu_ns;
        self.last_ns.acked = self.last_ns.acked.max(other.last_ns.acked);
        self.last_ns.delivered = self.last_ns.delivered.max(other.last_ns.delivered);
    }

    /// Messages that should have been delivered and weren't, if each has `copies` subscribers.
    #[must_use]
    pub fn lost(&self, copies: usize) -> u64 {
        let unique = self.total.delivered - self.repeated.min(self.total.delivered);
        (self.total.published * copies as u64).saturating_sub(unique)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_become_one() {
        let mut latency = Latency::default();
        (1..=1000).for_each(|n| latency.record(n * 10_000));
        let counts = Counts { published: 10, acked: 9, delivered: 8, ready: 2 };
        let failures = BTreeMap::from([("refused".to_owned(), 2)]);
        let part = Outcome { measured: counts, total: counts, repeated: 1, latency, failures, ..Outcome::default() };
        let json = serde_json::to_string(&part).expect("JSON");
        let mut all: Outcome = serde_json::from_str(&json).expect("read");
        assert_eq!(all.latency.count(), 1000);
        all.add(&part);
        assert_eq!(all.latency.count(), 2000);
        assert!((all.latency.quantile_us(0.5) - 5000.0).abs() < 10.0, "{}", all.latency.quantile_us(0.5));
        assert_eq!((all.total.published, all.repeated, all.failures["refused"]), (20, 2, 4));
        assert_eq!(all.lost(1), 20 - (16 - 2));
    }
}
