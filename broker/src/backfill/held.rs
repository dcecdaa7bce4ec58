//! How many bytes of unpacked batches there are. Batches are small on their way and large when they are unpacked, up to
//! [`turnpike_backfill::bounds::Bounds::ratio_max`] times: what the shards count as errands is no bound of that.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// One of all workers.
#[derive(Debug)]
pub(super) struct Held {
    bytes: AtomicUsize,
    bytes_max: usize,
}

/// Bytes that are held, until it is dropped.
#[derive(Debug)]
pub(super) struct Hold {
    held: Arc<Held>,
    bytes: usize,
}

impl Held {
    pub(super) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes: AtomicUsize::new(0), bytes_max })
    }

    /// Holds so many bytes. None if that were too many, unless nothing else is held: what is allowed as a batch passes some time.
    pub(super) fn hold(self: &Arc<Self>, bytes: usize) -> Option<Hold> {
        let fits = |held: usize| {
            let sum = held.saturating_add(bytes);
            (held == 0 || sum <= self.bytes_max).then_some(sum)
        };
        self.bytes.fetch_update(Relaxed, Relaxed, fits).ok()?;
        Some(Hold { held: Arc::clone(self), bytes })
    }

    /// How many are held.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.held.bytes.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_has_a_bound_and_is_given_back() {
        let held = Held::new(100);
        let first = held.hold(60).expect("room");
        assert!(held.hold(41).is_none());
        let second = held.hold(40).expect("room");
        assert_eq!(held.bytes(), 100);
        drop(first);
        assert!(held.hold(usize::MAX).is_none());
        drop(second);
        // Alone, the largest passes.
        let whole = held.hold(1_000).expect("nothing else is held");
        assert!(held.hold(1).is_none());
        drop(whole);
        assert_eq!(held.bytes(), 0);
    }
}
