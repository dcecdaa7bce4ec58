//! A table that grows a chunk at a time: connections, sessions, timers, links.
//!
//! An entry gets a key, small and reused after it has gone, and stays where it is: nothing moves when the table grows, so
//! growth costs one allocation of a chunk whatever the size, and never a copy. Vacant slots are chained through the table
//! itself, the last one vacated first. Everything is O(1) but [`Table::iter`]. Memory isn't given back: a fleet that has gone
//! comes back.
//!
//! What lost: *`slab::Slab`*, one vector. It doubles when it is full, so just above a power of two an entry costs twice its
//! size and, until the allocator has returned the old half, three times; and the entry that meets a doubling waits for the copy
//! of all others. *Chunks filled as entries come*, vectors, touch no memory early and have `get` read and compare a length
//! more, on the path of every delivery. The figures are in `broker/DESIGN.md`.

#[cfg(test)]
mod tests;

use std::ops::{Index, IndexMut};

/// Slots in a chunk. With the largest `T`, 160 bytes, a chunk is 20 KiB: little beside what a hundred connections cost, and so
/// much that the list of chunks of a million entries, 64 KiB, stays in a cache.
const CHUNK: usize = 128;

/// No entry.
const NONE: u32 = u32::MAX;

/// Entries by key.
#[derive(Debug)]
pub struct Table<T> {
    chunks: Vec<Box<[Slot<T>; CHUNK]>>,
    /// The vacant slot to be used next. The chain comes last to the slots that have never been used, the lowest first.
    free: u32,
    len: usize,
}

/// As large as `T`, if `T` has a niche (a reference, an enum).
#[derive(Debug)]
enum Slot<T> {
    Taken(T),
    Vacant {
        /// In the chain of vacant slots.
        next: u32,
    },
}

impl<T> Slot<T> {
    #[inline]
    fn entry(&self) -> Option<&T> {
        match self {
            Self::Taken(entry) => Some(entry),
            Self::Vacant { .. } => None,
        }
    }
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Table<T> {
    /// What an entry takes.
    #[cfg(test)]
    pub(crate) const SLOT_BYTES: usize = size_of::<Slot<T>>();

    /// An empty table, without any memory.
    #[must_use]
    pub const fn new() -> Self {
        Self { chunks: Vec::new(), free: NONE, len: 0 }
    }

    /// How many entries there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// No entries.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many entries have memory.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.chunks.len() * CHUNK
    }

    /// The entry of a key.
    #[inline]
    #[must_use]
    pub fn get(&self, key: usize) -> Option<&T> {
        self.chunks.get(key / CHUNK)?.get(key % CHUNK)?.entry()
    }

    /// The same, to be changed.
    #[inline]
    #[must_use]
    pub fn get_mut(&mut self, key: usize) -> Option<&mut T> {
        match self.slot_mut(key)? {
            Slot::Taken(entry) => Some(entry),
            Slot::Vacant { .. } => None,
        }
    }

    #[inline]
    fn slot_mut(&mut self, key: usize) -> Option<&mut Slot<T>> {
        self.chunks.get_mut(key / CHUNK)?.get_mut(key % CHUNK)
    }

    /// Whether a key has an entry.
    #[inline]
    #[must_use]
    pub fn contains(&self, key: usize) -> bool {
        self.get(key).is_some()
    }

    /// Adds an entry and gives its key: that of the entry that went last, or one above all.
    ///
    /// # Panics
    /// If there are 2³² − 128 entries.
    pub fn insert(&mut self, entry: T) -> usize {
        if self.free == NONE {
            self.grow();
        }
        let key = self.free as usize;
        let slot = self.slot_mut(key).expect("the chain of vacant slots leads to slots");
        let Slot::Vacant { next } = std::mem::replace(slot, Slot::Taken(entry)) else {
            unreachable!("the chain of vacant slots leads to vacant ones")
        };
        self.free = next;
        self.len += 1;
        key
    }

    /// Adds a chunk of vacant slots. There must be none.
    #[cold]
    fn grow(&mut self) {
        let first = u32::try_from(self.capacity()).expect("a table has fewer than 2^32 entries");
        let last = first.checked_add(CHUNK as u32 - 1).filter(|last| *last < NONE);
        let last = last.expect("a table has fewer than 2^32 entries");
        let slots: Vec<_> =
            (first..=last).map(|key| Slot::Vacant { next: if key == last { NONE } else { key + 1 } }).collect();
        self.chunks.push(slots.try_into().unwrap_or_else(|_| unreachable!("a chunk has {CHUNK} slots")));
        self.free = first;
    }

    /// Takes an entry out.
    pub fn remove(&mut self, key: usize) -> Option<T> {
        let next = self.free;
        let slot = self.slot_mut(key).filter(|slot| slot.entry().is_some())?;
        let Slot::Taken(entry) = std::mem::replace(slot, Slot::Vacant { next }) else { return None };
        self.free = u32::try_from(key).expect("keys are below 2^32");
        self.len -= 1;
        Some(entry)
    }

    /// All entries with their keys, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        let slots = self.chunks.iter().flat_map(|chunk| chunk.iter()).enumerate();
        slots.filter_map(|(key, slot)| Some((key, slot.entry()?)))
    }
}

/// For keys that are known to have an entry.
impl<T> Index<usize> for Table<T> {
    type Output = T;

    /// # Panics
    /// If there is no such entry.
    #[inline]
    fn index(&self, key: usize) -> &T {
        self.get(key).expect("the key has an entry")
    }
}

impl<T> IndexMut<usize> for Table<T> {
    #[inline]
    fn index_mut(&mut self, key: usize) -> &mut T {
        self.get_mut(key).expect("the key has an entry")
    }
}
