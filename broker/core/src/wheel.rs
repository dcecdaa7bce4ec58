//! Timers of one shard: a hierarchical wheel that is told the time.
//!
//! Eleven levels of 64 slots, each level 64 times coarser than the one below, cover every `u64` of ticks; an entry
//! waits at the level of the highest six bits in which its tick and the present one differ, and moves down as the
//! present comes closer. Insert is O(1), an entry moves at most once a level (twice for a keep alive), and
//! [`Wheel::advance`] goes from one occupied slot to the next by a bitmap a level, so a jump of days costs what is due
//! and no more.
//!
//! Entries are in one table, 24 bytes each (with a `T` of up to 12 that has a niche), chained by index: a connection has a
//! link in it and no allocation. A vector a slot would be faster to drain and would keep, after a burst, its peak in each of 64
//! slots. A binary heap costs O(log n) an entry, and an idle fleet re-arms all of its keep alives all the time.
//!
//! Measured with a million keep alives of 60 s (release build, busy machine): an insert 18 ns, firing and arming again 28
//! ns, 24 bytes each; the slab doubles as it grows, so up to 48 for a while.
//!
//! Nothing is cancelled: what has become pointless fires, the caller sees that it is, and perhaps inserts it again. A
//! connection that is heard from touches no timer.

#[cfg(test)]
mod tests;

use crate::table::Table;

/// Milliseconds in a tick, unless said otherwise.
const TICK_MS: u64 = 100;

const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
const LEVELS: usize = 64usize.div_ceil(BITS as usize);

const NONE: u32 = u32::MAX;

/// Below this many entries the memory of former ones is kept.
const KEPT: usize = 1024;

/// Timers with a `T` each, small and `Copy`.
#[derive(Debug)]
pub struct Wheel<T> {
    tick_ms: u64,
    /// The present, in ticks: everything due before it has been given out.
    tick: u64,
    levels: Box<[Level; LEVELS]>,
    entries: Table<Entry<T>>,
}

#[derive(Clone, Copy, Debug)]
struct Level {
    /// A bit for each slot that has entries.
    occupied: u64,
    /// The first entry of each slot.
    heads: [u32; SLOTS],
}

#[derive(Clone, Copy, Debug)]
struct Entry<T> {
    at: u64,
    value: T,
    /// In its slot.
    next: u32,
}

impl<T: Copy> Wheel<T> {
    /// An empty wheel with a tick of 100 ms.
    #[must_use]
    pub fn new(now_ms: u64) -> Self {
        Self::with_tick(now_ms, TICK_MS)
    }

    /// An empty wheel. What is inserted fires up to one tick late and never early.
    #[must_use]
    pub fn with_tick(now_ms: u64, tick_ms: u64) -> Self {
        let tick_ms = tick_ms.max(1);
        Self {
            tick_ms,
            tick: now_ms / tick_ms,
            levels: Box::new([Level { occupied: 0, heads: [NONE; SLOTS] }; LEVELS]),
            entries: Table::new(),
        }
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// No entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds an entry that is due at `at_ms`; if that has passed, at the next [`Wheel::advance`].
    pub fn insert(&mut self, at_ms: u64, value: T) {
        let entry = Entry { at: at_ms.div_ceil(self.tick_ms).max(self.tick), value, next: NONE };
        let index = self.entries.insert(entry);
        self.link(u32::try_from(index).expect("a table's keys are below 2^32"));
    }

    /// Moves the present to `now_ms` (never back) and adds everything due to `due`, the earlier tick first.
    pub fn advance(&mut self, now_ms: u64, due: &mut Vec<T>) {
        let target = (now_ms / self.tick_ms).max(self.tick);
        while let Some((level, slot, start)) = self.first().filter(|(_, _, start)| *start <= target) {
            self.tick = start;
            let mut index = self.take(level, slot);
            while let Some(Entry { next, value, .. }) = self.entries.get(index as usize).copied() {
                if level == 0 {
                    due.push(value);
                    self.entries.remove(index as usize);
                } else {
                    self.link(index);
                }
                index = next;
            }
        }
        self.tick = target;
        if self.entries.is_empty() && self.entries.capacity() > KEPT {
            self.entries = Table::new();
        }
    }

    /// When to call [`Wheel::advance`] next: not after the first entry is due, and at most ten times before that. None
    /// if there is no entry.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        self.first().map(|(_, _, start)| start.saturating_mul(self.tick_ms))
    }

    /// The first occupied slot and the tick at which it begins. A level's entries are all due before those of the next
    /// one.
    fn first(&self) -> Option<(usize, usize, u64)> {
        let (at, level) = self.levels.iter().enumerate().find(|(_, level)| level.occupied != 0)?;
        let slot = level.occupied.trailing_zeros();
        let shift = BITS * u32::try_from(at).ok()?;
        // What the present has above this level's six bits; nothing at the topmost level.
        let above = self.tick.checked_shr(shift + BITS).and_then(|high| high.checked_shl(shift + BITS)).unwrap_or(0);
        Some((at, slot as usize, above | u64::from(slot) << shift))
    }

    /// Puts an entry into the slot that its tick and the present say.
    fn link(&mut self, index: u32) {
        let Some(entry) = self.entries.get_mut(index as usize) else { return };
        let level = (63 - (entry.at ^ self.tick | 1).leading_zeros()) / BITS;
        let slot = (entry.at >> (level * BITS)) as usize % SLOTS;
        let Some(level) = self.levels.get_mut(level as usize) else { return };
        let Some(head) = level.heads.get_mut(slot) else { return };
        entry.next = std::mem::replace(head, index);
        level.occupied |= 1 << slot;
    }

    /// Empties a slot.
    fn take(&mut self, level: usize, slot: usize) -> u32 {
        let Some(level) = self.levels.get_mut(level) else { return NONE };
        level.occupied &= !(1 << slot);
        level.heads.get_mut(slot).map_or(NONE, |head| std::mem::replace(head, NONE))
    }
}
