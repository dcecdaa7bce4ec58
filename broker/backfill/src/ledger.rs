//! What each device has handed in, so that nothing is published twice.
//!
//! A record is known by its device, the device's *boot*, a counter that grows with each start of the device, and its *sequence* within the boot, which
//! begins at 1. Of a boot are kept the highest sequence up to which all is taken, and the ranges that are taken beyond the first gap:
//!
//! ```text
//! sequences   1 2 3 4 5 . . 8 9 . 11        (points: not taken)
//! Taken       upto = 5, beyond = 8–9, 11–11
//! ```
//!
//! **Invariant:** whatever was taken once is `Known` or `BootForgotten` for good: the number of what is taken never falls.
//!
//! Bounded: a boot with as many ranges as allowed takes only what fills or touches one ([`Verdict::TooFar`]); the device fills a gap, or
//! declares it lost ([`Ledger::lose`]), and goes on. A device has at most so many boots; one more pushes out the *lowest*, and from then on nothing of it or of a
//! lower one is taken, gaps or not. The lowest, not the one first seen: a device that once counted wrongly upwards then doesn't push out the boots that it really has.
//!
//! A ledger with one boot and no gaps takes 40 bytes. A sequence in order costs a comparison; else a binary search over the ranges.

mod record;
mod table;

use smallvec::SmallVec;

pub use record::{KEY_PREFIX, LedgerError, is_record, key, parse_key};
pub use table::{Full, Ledgers};

use crate::bounds::Bounds;

/// What becomes of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Verdict {
    /// New: to be published, and taken.
    Fresh,
    /// Taken before, or declared lost; or its sequence is 0, which no record has. Not to be published.
    Known,
    /// No room for one more range beyond the gaps of its boot.
    TooFar,
    /// Of a boot that was pushed out, or a lower one.
    BootForgotten,
}

/// What was taken of a boot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Taken {
    boot: u64,
    upto: u64,
    /// Inclusive, in order, neither overlapping nor touching, all beyond `upto + 1`. A thin pointer: most boots have none.
    #[allow(clippy::box_collection, reason = "8 bytes instead of 24, of each boot of each device")]
    beyond: Option<Box<Vec<(u64, u64)>>>,
}

impl Taken {
    fn new(boot: u64) -> Self {
        Self { boot, upto: 0, beyond: None }
    }

    /// Which start of the device.
    #[must_use]
    pub fn boot(&self) -> u64 {
        self.boot
    }

    /// The highest sequence up to which all is taken or lost; 0 if not even the first.
    #[must_use]
    pub fn upto(&self) -> u64 {
        self.upto
    }

    /// What is taken beyond the first gap: inclusive ranges, in order.
    #[must_use]
    pub fn beyond(&self) -> &[(u64, u64)] {
        self.beyond.as_deref().map_or(&[], Vec::as_slice)
    }

    /// What is missing below the highest sequence taken: inclusive ranges, in order.
    pub fn gaps(&self) -> impl Iterator<Item = (u64, u64)> {
        let ends = std::iter::once(self.upto).chain(self.beyond().iter().map(|range| range.1));
        ends.zip(self.beyond()).map(|(end, next)| (end + 1, next.0 - 1))
    }

    fn has(&self, seq: u64) -> bool {
        seq <= self.upto || {
            let after = self.beyond().partition_point(|range| range.0 <= seq);
            after.checked_sub(1).and_then(|at| self.beyond().get(at)).is_some_and(|range| seq <= range.1)
        }
    }

    /// The ranges that `from..=to` overlaps or touches.
    fn touched(&self, from: u64, to: u64) -> std::ops::Range<usize> {
        let first = self.beyond().partition_point(|range| range.1 < from.saturating_sub(1));
        let last = self.beyond().partition_point(|range| range.0 <= to.saturating_add(1));
        first..last.max(first)
    }

    fn has_room(&self, from: u64, to: u64, ranges_max: usize) -> bool {
        from.saturating_sub(1) <= self.upto || self.beyond().len() < ranges_max || !self.touched(from, to).is_empty()
    }

    fn insert(&mut self, from: u64, to: u64) {
        let touched = self.touched(from, to);
        if from.saturating_sub(1) <= self.upto {
            let joined = self.beyond().get(..touched.end).and_then(<[_]>::last).map_or(0, |range| range.1);
            self.upto = self.upto.max(to).max(joined);
            if let Some(beyond) = &mut self.beyond {
                beyond.drain(..touched.end);
            }
            if self.beyond().is_empty() {
                self.beyond = None;
            }
            return;
        }
        let beyond = self.beyond.get_or_insert_default();
        let range = beyond
            .get(touched.clone())
            .unwrap_or_default()
            .iter()
            .fold((from, to), |(low, high), range| (low.min(range.0), high.max(range.1)));
        beyond.splice(touched, [range]);
    }
}

/// What one device handed in.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ledger {
    /// Boots below it are forgotten.
    floor: u64,
    /// In the order of their numbers.
    boots: SmallVec<[Taken; 1]>,
}

impl Ledger {
    /// The boots that are remembered, the lowest first.
    #[must_use]
    pub fn boots(&self) -> &[Taken] {
        &self.boots
    }

    /// What was taken of a boot.
    #[must_use]
    pub fn boot(&self, boot: u64) -> Option<&Taken> {
        self.find(boot).ok().and_then(|at| self.boots.get(at))
    }

    /// The lowest boot that may still be taken, if it isn't lower than all while there is no room.
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// What becomes of a record. Changes nothing.
    pub fn judge(&self, boot: u64, seq: u64, bounds: &Bounds) -> Verdict {
        match self.find(boot) {
            _ if boot < self.floor => Verdict::BootForgotten,
            Ok(at) => self.boots.get(at).map_or(Verdict::Known, |taken| verdict(taken, seq, bounds)),
            Err(0) if self.boots.len() >= bounds.boots_max.max(1) => Verdict::BootForgotten,
            Err(_) => verdict(&Taken::new(boot), seq, bounds),
        }
    }

    /// Takes a record if it is [`Verdict::Fresh`], which is said.
    pub fn take(&mut self, boot: u64, seq: u64, bounds: &Bounds) -> Verdict {
        let verdict = self.judge(boot, seq, bounds);
        if verdict == Verdict::Fresh {
            self.taken(boot, bounds).insert(seq, seq);
        }
        verdict
    }

    /// Takes the device's word that it has nothing of these sequences any more: from now on they are known. `Fresh` if anything changed.
    pub fn lose(&mut self, boot: u64, from: u64, to: u64, bounds: &Bounds) -> Verdict {
        let from = from.max(1);
        if self.judge(boot, from, bounds) == Verdict::BootForgotten {
            return Verdict::BootForgotten;
        }
        if to < from {
            return Verdict::Known;
        }
        let before = self.boot(boot).cloned().unwrap_or_else(|| Taken::new(boot));
        if !before.has_room(from, to, bounds.ranges_max) {
            return Verdict::TooFar;
        }
        let taken = self.taken(boot, bounds);
        taken.insert(from, to);
        if *taken == before { Verdict::Known } else { Verdict::Fresh }
    }

    /// Bytes on the heap, as asked for.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let own = if self.boots.spilled() { self.boots.capacity() * size_of::<Taken>() } else { 0 };
        let ranges = self.boots.iter().filter_map(|taken| taken.beyond.as_ref());
        own + ranges
            .map(|ranges| size_of::<Vec<(u64, u64)>>() + ranges.capacity() * size_of::<(u64, u64)>())
            .sum::<usize>()
    }

    #[inline]
    fn find(&self, boot: u64) -> Result<usize, usize> {
        self.boots.binary_search_by_key(&boot, |taken| taken.boot)
    }

    /// The entry of a boot that [`Self::judge`] doesn't call forgotten. If there is none yet and no room, the lowest goes.
    fn taken(&mut self, boot: u64, bounds: &Bounds) -> &mut Taken {
        let at = match self.find(boot) {
            Ok(at) => at,
            Err(at) if self.boots.len() >= bounds.boots_max.max(1) => {
                let lowest = self.boots.remove(0);
                self.floor = lowest.boot.saturating_add(1);
                self.boots.insert(at.saturating_sub(1), Taken::new(boot));
                at.saturating_sub(1)
            }
            Err(at) => {
                self.boots.insert(at, Taken::new(boot));
                at
            }
        };
        self.boots.get_mut(at).expect("it was found or put there")
    }
}

fn verdict(taken: &Taken, seq: u64, bounds: &Bounds) -> Verdict {
    match () {
        () if taken.has(seq) => Verdict::Known,
        () if taken.has_room(seq, seq, bounds.ranges_max) => Verdict::Fresh,
        () => Verdict::TooFar,
    }
}

#[cfg(test)]
mod tests;
