//! Nonces that have been used, so that a captured password opens nothing (profile `native`).
//!
//! A password is acceptable from [`WINDOW_MS`] before its timestamp to [`WINDOW_MS`] after it, so a nonce that is remembered for twice
//! that after its use can't be used again. Two generations of that length take turns, and forgetting is dropping a whole one.
//! Their time is the clock that never goes back: setting the other clock forward and back makes nothing forgotten. What it can't
//! cover is a clock set back by more than the time since a nonce was forgotten: its timestamp is then acceptable again.
//!
//! Memory is bounded: when a generation is full, what can't be remembered isn't let in, since letting it in would let its copy
//! in too (0x97, a device tries again later). Only right credentials use up room, so a stranger can't fill it; and of one holder no more
//! are remembered than its share in a generation ([`Holder::share`]), so a device that logs in all day keeps nobody out but itself. What was restored
//! counts for no share, since a record doesn't say whose it is.
//!
//! A restart: each nonce that is taken gives a record of [`RECORD_BYTES`], which the shell keeps before the device hears that it is in,
//! with those of all others who came in the same turn ([`NonceJournal`]), and gives back at the next start ([`Nonces::restore`]). A record says until when its nonce counts, on the clock of
//! the world, since the other one begins anew; one whose time is over is left out.
//!
//! A look-up is a SHA-256 and two locks of sixteen, at most 0.4 µs.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use turnpike_core::clock::Now;

/// How far a timestamp may be from the broker's clock, in milliseconds.
pub const WINDOW_MS: u64 = 10 * 60 * 1000;

/// How long a nonce is remembered after its use at least, in milliseconds.
pub const REMEMBERED_MS: u64 = 2 * WINDOW_MS;

/// Bytes of a record: 16 of a hash, and until when it counts in milliseconds since 1970 UTC, big-endian.
pub const RECORD_BYTES: usize = 24;

/// Where records of used nonces go.
pub trait NonceJournal: Send + Sync + std::fmt::Debug {
    /// Takes a record that is to be kept.
    fn take(&self, record: [u8; RECORD_BYTES]);

    /// Keeps what was taken. When this returns, all of it survives the end of the process, by whichever thread it was taken; a journal that
    /// can't do it says so to its operator, and the devices are let in.
    fn keep(&self);
}

const GENERATION_MS: u64 = REMEMBERED_MS;
const PARTS: usize = 16;

/// Bytes of a hash that are kept: nobody finds a nonce that meets another device's.
type Key = [u8; 16];
type Keys = HashSet<Key, foldhash::fast::RandomState>;
/// A holder's hash, of this process's own: two of a million that meet share a share, and nothing worse.
type HolderKey = u64;
/// After a log-in that found no room it counts as full for so long, milliseconds.
const FULL_MS: u64 = 60 * 1000;

/// Whose nonce it is.
#[derive(Clone, Copy, Debug)]
pub struct Holder<'a> {
    /// Product, or what stands for one.
    pub product: &'a str,
    /// Unique within it.
    pub device: &'a str,
    /// How many of its nonces are remembered in twenty minutes at most; none for as many as there is room for.
    pub share: Option<u32>,
}

/// Used nonces.
#[derive(Debug)]
pub struct Nonces {
    parts: [Mutex<Part>; PARTS],
    shares: [Mutex<Shares>; PARTS],
    /// Of holders. Nothing of it is kept.
    hash: foldhash::quality::RandomState,
    per_part_max: usize,
    /// One more than the moment of the last nonce that found no room, on the clock that never goes back; 0 for never.
    full_ms: AtomicU64,
}

/// How many nonces of each holder are in the current generation: never more holders than nonces.
#[derive(Debug, Default)]
struct Shares {
    generation: u64,
    taken: HashMap<HolderKey, u32, foldhash::fast::RandomState>,
}

#[derive(Debug, Default)]
struct Part {
    generation: u64,
    current: Keys,
    previous: Keys,
}

/// What became of a nonce.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Use {
    /// It is used now for the first time.
    First {
        /// For the journal.
        record: [u8; RECORD_BYTES],
    },
    /// It has been used.
    Again,
    /// There is no room to remember it.
    Full,
    /// Its holder has used its share up.
    OverShare,
}

/// What became of records that were given back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Restored {
    /// Remembered again.
    pub kept: u64,
    /// Their time is over.
    pub expired: u64,
    /// There was no room: each of these passwords could be used once more.
    pub lost: u64,
}

impl Nonces {
    /// Remembers about `max` nonces in twenty minutes, and those of the twenty minutes before: about 100 bytes
    /// in all for each of `max`, and up to 40 more if each is of another holder.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self {
            parts: std::array::from_fn(|_| Mutex::default()),
            shares: std::array::from_fn(|_| Mutex::default()),
            hash: foldhash::quality::RandomState::default(),
            per_part_max: max.div_ceil(PARTS),
            full_ms: AtomicU64::new(0),
        }
    }

    /// Uses a nonce of a holder. `until_ms`: until when a password with it could be acceptable, milliseconds since 1970 UTC, at most
    /// [`REMEMBERED_MS`] from now; it goes into the record.
    pub fn take(&self, holder: Holder<'_>, nonce: &str, until_ms: u64, mono_ms: u64) -> Use {
        let (of, key) = (self.hash.hash_one((holder.product, holder.device)), key(holder, nonce));
        // Held until it is taken, so that no two of a holder take the last of its share.
        let mut shares = self.shares.get(usize::from(of.to_le_bytes()[0]) % PARTS).map(|shares| shares.lock());
        let mut is_over = false;
        if let (Some(shares), Some(share)) = (&mut shares, holder.share) {
            shares.advance(mono_ms / GENERATION_MS);
            is_over = shares.taken.get(&of).copied().unwrap_or(0) >= share;
        }
        match self.remember(key, mono_ms, !is_over) {
            Remembered::Now => {
                if let Some(shares) = shares.as_mut().filter(|_| holder.share.is_some()) {
                    *shares.taken.entry(of).or_default() += 1;
                }
                Use::First { record: record(key, until_ms) }
            }
            Remembered::Before => Use::Again,
            Remembered::Not if is_over => Use::OverShare,
            Remembered::Not => {
                self.full_ms.fetch_max(mono_ms.saturating_add(1), Relaxed);
                Use::Full
            }
        }
    }

    /// Whether somebody was told within the last minute that there is no room.
    #[must_use]
    pub fn is_full(&self, mono_ms: u64) -> bool {
        let full_ms = self.full_ms.load(Relaxed);
        full_ms > 0 && mono_ms < full_ms.saturating_add(FULL_MS)
    }

    /// How many are remembered of those that were used in the twenty minutes that run at that moment of the clock that never goes back, of how many at most.
    #[must_use]
    pub fn room(&self, mono_ms: u64) -> (usize, usize) {
        let generation = mono_ms / GENERATION_MS;
        // A part that nobody has come to since the twenty minutes began still has those of before.
        let used = |part: &Mutex<Part>| {
            Some(part.lock()).filter(|part| part.generation == generation).map(|part| part.current.len())
        };
        let used = self.parts.iter().filter_map(used).sum();
        (used, self.per_part_max.saturating_mul(PARTS))
    }

    /// Remembers what an earlier process has used, in any order; the same record may come twice.
    pub fn restore(&self, records: impl IntoIterator<Item = [u8; RECORD_BYTES]>, now: Now) -> Restored {
        let mut restored = Restored::default();
        for record in records {
            // A time far ahead is remembered, too: the clock may have been set back.
            if until_ms(&record) < now.unix_ms {
                restored.expired += 1;
                continue;
            }
            let key = *record.first_chunk().expect("16 of 24 bytes");
            match self.remember(key, now.mono_ms, true) {
                Remembered::Now | Remembered::Before => restored.kept += 1,
                Remembered::Not => restored.lost += 1,
            }
        }
        restored
    }

    fn remember(&self, key: Key, mono_ms: u64, may_take: bool) -> Remembered {
        let index = key.first().map_or(0, |byte| usize::from(*byte) % PARTS);
        let Some(part) = self.parts.get(index) else { return Remembered::Not };
        let mut part = part.lock();
        part.advance(mono_ms / GENERATION_MS);
        if part.current.contains(&key) || part.previous.contains(&key) {
            return Remembered::Before;
        }
        if !may_take || part.current.len() >= self.per_part_max {
            return Remembered::Not;
        }
        part.current.insert(key);
        Remembered::Now
    }
}

enum Remembered {
    Now,
    Before,
    Not,
}

fn record(key: Key, until_ms: u64) -> [u8; RECORD_BYTES] {
    let mut record = [0; RECORD_BYTES];
    let (hash, until) = record.split_at_mut(key.len());
    hash.copy_from_slice(&key);
    until.copy_from_slice(&until_ms.to_be_bytes());
    record
}

/// Until when the nonce of a record counts, this moment included, milliseconds since 1970 UTC.
#[must_use]
pub fn until_ms(record: &[u8; RECORD_BYTES]) -> u64 {
    u64::from_be_bytes(*record.last_chunk().expect("8 of 24 bytes"))
}

/// No part has a `\0`: names can't, and a nonce is visible characters.
fn key(holder: Holder<'_>, nonce: &str) -> Key {
    let mut hash = Sha256::new();
    for part in [holder.product, holder.device, nonce] {
        hash.update(part);
        hash.update([0]);
    }
    let hash: [u8; 32] = hash.finalize().into();
    *hash.first_chunk().expect("16 of 32 bytes")
}

impl Shares {
    fn advance(&mut self, generation: u64) {
        if generation > self.generation {
            *self = Self { generation, ..Self::default() };
        }
    }
}

impl Part {
    fn advance(&mut self, generation: u64) {
        if generation <= self.generation {
            return;
        }
        let current = std::mem::take(&mut self.current);
        self.previous = if generation == self.generation + 1 { current } else { Keys::default() };
        self.generation = generation;
    }
}

#[cfg(test)]
mod tests;
