//! A map with a bound, of things that fade: what is as good as forgotten goes, and when there is no room, what matters least.
//!
//! 64 parts with a lock each. A look-up is one hash, one lock (uncontended about 10 ns) and no allocation; a key that is new looks at
//! eight places on its way in and frees those that have faded, so that a table in use needs nobody to sweep it. When its part is full, the
//! lightest of sixteen entries makes room: an exact order of all would cost a second structure, and the attacker who fills a
//! table fills it with entries that are light.
//!
//! Memory: an entry and one byte, by the power of two above their number times 8/7: between 1.15 and 2.3 of them. A million keys of 24
//! bytes (addresses) are 29 to 58 MB, of 32 bytes 38 to 76 MB.

use std::hash::{BuildHasher, Hash};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use hashbrown::HashTable;
use parking_lot::Mutex;

const PARTS: usize = 64;
/// Places looked at when a key is new.
const SWEEP_STEP: usize = 8;
/// Entries of which the lightest makes room.
const SAMPLE: usize = 16;
/// Places looked at to find them.
const SAMPLE_PLACES: usize = 128;

/// What a table holds.
pub(crate) trait Fades: Default {
    /// How much it would matter to forget it; nothing at 0.
    fn weight(&self, now: u64) -> u64;
}

/// A map of at most so many keys. Time is whatever `V` takes it for.
#[derive(Debug)]
pub(crate) struct Table<K, V> {
    parts: Box<[Mutex<Part<K, V>>]>,
    /// Parts that aren't empty. Changed under their locks.
    occupied: AtomicUsize,
    hash: foldhash::fast::RandomState,
    per_part_max: usize,
}

#[derive(Debug)]
struct Part<K, V> {
    entries: HashTable<(K, V)>,
    /// Where the sweep goes on.
    cursor: usize,
}

impl<K: Hash + Eq + Copy, V: Fades> Table<K, V> {
    /// Room for about `max` keys.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            parts: (0..PARTS).map(|_| Mutex::new(Part { entries: HashTable::new(), cursor: 0 })).collect(),
            occupied: AtomicUsize::new(0),
            hash: foldhash::fast::RandomState::default(),
            per_part_max: max.div_ceil(PARTS).max(1),
        }
    }

    /// Does something to a key's value, a new one if it has none. It is kept if it has a weight then.
    pub(crate) fn with<R>(&self, key: K, now: u64, act: impl FnOnce(&mut V) -> R) -> R {
        let hash = self.hash.hash_one(key);
        let mut part = self.part(hash).lock();
        if let Some((_, value)) = part.entries.find_mut(hash, |(known, _)| *known == key) {
            return act(value);
        }
        let mut value = V::default();
        let result = act(&mut value);
        if value.weight(now) > 0 {
            let was_empty = part.entries.is_empty();
            part.sweep_step(now);
            if part.entries.len() >= self.per_part_max {
                part.evict(now);
            }
            part.entries.insert_unique(hash, (key, value), |(known, _)| self.hash.hash_one(known));
            self.occupied.fetch_add(usize::from(was_empty), Relaxed);
        }
        result
    }

    /// Whether there is nothing in it, not even what has faded. One load: a key that would be looked for in vain needn't be made.
    pub(crate) fn is_empty(&self) -> bool {
        self.occupied.load(Relaxed) == 0
    }

    /// Looks at a key's value, if it has one. (It may have faded.)
    pub(crate) fn peek<R>(&self, key: K, look: impl FnOnce(&V) -> R) -> Option<R> {
        let hash = self.hash.hash_one(key);
        let part = self.part(hash).lock();
        part.entries.find(hash, |(known, _)| *known == key).map(|(_, value)| look(value))
    }

    /// Does something to a key's value, if it has one; it stays.
    pub(crate) fn change<R>(&self, key: K, act: impl FnOnce(&mut V) -> R) -> Option<R> {
        let hash = self.hash.hash_one(key);
        let mut part = self.part(hash).lock();
        part.entries.find_mut(hash, |(known, _)| *known == key).map(|(_, value)| act(value))
    }

    /// Forgets a key.
    pub(crate) fn remove(&self, key: K) -> Option<V> {
        let hash = self.hash.hash_one(key);
        let mut part = self.part(hash).lock();
        let (_, value) = part.entries.find_entry(hash, |(known, _)| *known == key).ok()?.remove().0;
        self.occupied.fetch_sub(usize::from(part.entries.is_empty()), Relaxed);
        Some(value)
    }

    /// Frees all that has faded, and memory that is hardly used. Holds each of 64 locks in turn: a million keys are 16,000 at a
    /// time, about 0.1 ms.
    pub(crate) fn sweep(&self, now: u64) {
        for part in &self.parts {
            let mut part = part.lock();
            let was_empty = part.entries.is_empty();
            part.entries.retain(|(_, value)| value.weight(now) > 0);
            self.occupied.fetch_sub(usize::from(!was_empty && part.entries.is_empty()), Relaxed);
            if part.entries.len() < part.entries.capacity() / 4 {
                part.entries.shrink_to_fit(|(known, _)| self.hash.hash_one(known));
            }
        }
    }

    /// Gathers what `pick` makes of the entries, `most` at most.
    pub(crate) fn collect<R>(&self, most: usize, mut pick: impl FnMut(&K, &V) -> Option<R>) -> Vec<R> {
        let mut found = Vec::new();
        for part in &self.parts {
            let part = part.lock();
            found.extend(part.entries.iter().filter_map(|(key, value)| pick(key, value)).take(most - found.len()));
        }
        found
    }

    /// How many keys there are, faded ones included.
    pub(crate) fn len(&self) -> usize {
        self.parts.iter().map(|part| part.lock().entries.len()).sum()
    }

    fn part(&self, hash: u64) -> &Mutex<Part<K, V>> {
        // The low bits and the highest seven choose the place within a part.
        let index = (hash >> 48) as usize % PARTS;
        self.parts.get(index).expect("one of 64")
    }
}

impl<K, V: Fades> Part<K, V> {
    fn next_place(&mut self) -> usize {
        self.cursor = if self.cursor + 1 < self.entries.num_buckets() { self.cursor + 1 } else { 0 };
        self.cursor
    }

    fn sweep_step(&mut self, now: u64) {
        for _ in 0..SWEEP_STEP {
            let place = self.next_place();
            if self.entries.get_bucket(place).is_some_and(|(_, value)| value.weight(now) == 0)
                && let Ok(entry) = self.entries.get_bucket_entry(place)
            {
                entry.remove();
            }
        }
    }

    fn evict(&mut self, now: u64) {
        let (mut lightest, mut seen) = (None, 0);
        for _ in 0..SAMPLE_PLACES.max(self.entries.num_buckets().min(SAMPLE)) {
            let place = self.next_place();
            if let Some((_, value)) = self.entries.get_bucket(place) {
                let weight = value.weight(now);
                lightest = Some(lightest.map_or((weight, place), |known: (u64, usize)| known.min((weight, place))));
                seen += 1;
            }
            if seen == SAMPLE {
                break;
            }
        }
        if let Some((_, place)) = lightest
            && let Ok(entry) = self.entries.get_bucket_entry(place)
        {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests;
