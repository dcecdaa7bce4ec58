//! How requests of platforms have ended, counted for metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Cause;

/// Since the start. The labels are of a closed set: nothing of a platform is in them.
#[derive(Debug)]
pub(super) struct Outcomes {
    ok: AtomicU64,
    /// In the order of [`Cause::ALL`].
    refused: [AtomicU64; Cause::ALL.len()],
}

impl Default for Outcomes {
    fn default() -> Self {
        Self { ok: AtomicU64::new(0), refused: std::array::from_fn(|_| AtomicU64::new(0)) }
    }
}

impl Outcomes {
    pub(super) fn count(&self, refused: Option<Cause>) {
        let counter = refused.map_or(Some(&self.ok), |cause| self.refused.get(cause as usize));
        if let Some(counter) = counter {
            counter.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let refused = Cause::ALL.iter().zip(&self.refused).map(|(cause, count)| (cause.label(), count.load(Relaxed)));
        std::iter::once(("ok", self.ok.load(Relaxed))).chain(refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_counts_under_its_own_word() {
        let outcomes = Outcomes::default();
        outcomes.count(None);
        for (times, cause) in (1..).zip(Cause::ALL) {
            (0..times).for_each(|_| outcomes.count(Some(*cause)));
        }
        let found: Vec<_> = outcomes.all().collect();
        assert_eq!(found.first(), Some(&("ok", 1)));
        for ((times, cause), found) in (1..).zip(Cause::ALL).zip(found.iter().skip(1)) {
            assert_eq!(*found, (cause.label(), times));
        }
    }
}
