//! A table that grows a chunk at a time: connections, sessions, timers, links.
//!
//! An entry gets a key, small and reused after it has gone, and stays where it is: nothing moves when the table grows, so
//! growth costs one allocation of a chunk whatever the size, and never a copy. Vacant entries are chained through the table
//! itself, the last one vacated first. Everything is O(1) but [`Table::iter`]. Memory isn't given back: a fleet that has gone
//! comes back.
//!
//! What lost: *`slab::Slab`*, one vector. It doubles when it is full, so just above a power of two an entry costs twice its
//! size and, until the allocator has returned the old half, three times; and the entry that meets a doubling waits for the copy of all others.
//! *A chunk filled when it is made* (an array) spares `get` a comparison and touches memory that nobody has asked for; the figures are in
//! `broker/DESIGN.md`.

#[cfg(test)]
mod tests;

use std::ops::{Index, IndexMut};

/// Entries in a chunk. With the largest `T`, some 160 bytes, a chunk is 20 KiB: small beside what a hundred entries cost, and so large
/// that the list of chunks of a million entries is small.
const CHUNK: usize = 128;

/// No entry.
const NONE: u32 = u32::MAX;

/// Entries by key. At most 2³² − 1.
#[derive(Debug)]
pub struct Table<T> {
    /// Each is allocated whole and filled as entries come; all but the last are full.
    chunks: Vec<Vec<Slot<T>>>,
    /// The vacant slot to be used next.
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
    /// If there are 2³² − 1 entries.
    pub fn insert(&mut self, entry: T) -> usize {
        self.len += 1;
        let key = self.free as usize;
        if let Some(slot) = self.slot_mut(key)
            && let Slot::Vacant { next } = *slot
        {
            *slot = Slot::Taken(entry);
            self.free = next;
            return key;
        }
        self.push(entry)
    }

    /// Adds an entry where none has been.
    fn push(&mut self, entry: T) -> usize {
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let at = self.chunks.len() - 1;
        let chunk = self.chunks.last_mut().expect("one was pushed if there was none");
        let key = at * CHUNK + chunk.len();
        assert!(key < NONE as usize, "a table has fewer than 2^32 entries");
        chunk.push(Slot::Taken(entry));
        key
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
        let slots = self.chunks.iter().flatten().enumerate();
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
