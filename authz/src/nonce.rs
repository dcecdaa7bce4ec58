//! Nonces that have been used, so that a captured password opens nothing (profile `native`).
//!
//! A password is acceptable from [`WINDOW_MS`] before its timestamp to [`WINDOW_MS`] after it, so a nonce that is remembered for twice
//! that after its use can't be used again. Two generations of that length take turns, and forgetting is dropping a whole one.
//! Their time is the clock that never goes back: setting the other clock forward and back makes nothing forgotten. What it can't
//! cover is a clock set back by more than the time since a nonce was forgotten: its timestamp is then acceptable again.
//!
//! Memory is bounded: when a generation is full, what can't be remembered isn't let in, since letting it in would let its copy
//! in too (0x97, a device tries again later). Only right credentials use up room, so a stranger can't fill it; a device that
//! logs in all day can, until there are rate limits.
//!
//! Nothing survives a restart: a password captured in the ten minutes before one can be used once more after it. Refusing timestamps
//! from before the start would close that, and would shut out every device whose clock is slow, and all that reconnect with a password made
//! while the broker was down.
//!
//! A look-up is a SHA-256 and one lock of sixteen, about 0.3 µs.

use std::collections::HashSet;

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

/// How far a timestamp may be from the broker's clock, in milliseconds.
pub const WINDOW_MS: u64 = 10 * 60 * 1000;

const GENERATION_MS: u64 = 2 * WINDOW_MS;
const PARTS: usize = 16;

/// Bytes of a hash that are kept: nobody finds a nonce that meets another device's.
type Key = [u8; 16];
type Keys = HashSet<Key, foldhash::fast::RandomState>;

/// Used nonces.
#[derive(Debug)]
pub struct Nonces {
    parts: [Mutex<Part>; PARTS],
    per_part_max: usize,
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
    First,
    /// It has been used.
    Again,
    /// There is no room to remember it.
    Full,
}

impl Nonces {
    /// Remembers about `max` nonces in twenty minutes, and those of the twenty minutes before: about 100 bytes
    /// in all for each of `max`.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { parts: std::array::from_fn(|_| Mutex::default()), per_part_max: max.div_ceil(PARTS) }
    }

    /// Uses a nonce of a device, at a moment of the clock that never goes back.
    pub fn take(&self, product: &str, device: &str, nonce: &str, mono_ms: u64) -> Use {
        let key = key(product, device, nonce);
        let index = key.first().map_or(0, |byte| usize::from(*byte) % PARTS);
        let Some(part) = self.parts.get(index) else { return Use::Full };
        let mut part = part.lock();
        part.advance(mono_ms / GENERATION_MS);
        if part.current.contains(&key) || part.previous.contains(&key) {
            return Use::Again;
        }
        if part.current.len() >= self.per_part_max {
            return Use::Full;
        }
        part.current.insert(key);
        Use::First
    }
}

/// No part has a `\0`: names can't, and a nonce is visible characters.
fn key(product: &str, device: &str, nonce: &str) -> Key {
    let mut hash = Sha256::new();
    for part in [product, device, nonce] {
        hash.update(part);
        hash.update([0]);
    }
    let hash: [u8; 32] = hash.finalize().into();
    *hash.first_chunk().expect("16 of 32 bytes")
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
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_good_once_while_its_timestamp_could_be() {
        for start in [0, 1, GENERATION_MS - 1, GENERATION_MS, 12_345_678] {
            let nonces = Nonces::new(1000);
            assert_eq!(nonces.take("p", "d", "n", start), Use::First);
            for later in [0, 1, WINDOW_MS, GENERATION_MS - 1, GENERATION_MS] {
                assert_eq!(nonces.take("p", "d", "n", start + later), Use::Again, "{start} + {later}");
            }
            assert_eq!(nonces.take("p", "e", "n", start), Use::First);
            assert_eq!(nonces.take("p", "d", "m", start), Use::First);
            assert_eq!(nonces.take("p", "d", "n", start + 5 * GENERATION_MS), Use::First);
        }
    }

    #[test]
    fn what_cannot_be_remembered_is_not_let_in() {
        let nonces = Nonces::new(PARTS);
        let uses: Vec<Use> = (0..1000).map(|n| nonces.take("p", "d", &n.to_string(), 1)).collect();
        assert_eq!(uses.iter().filter(|used| **used == Use::First).count(), PARTS);
        assert!(uses.contains(&Use::Full));
        let next: Vec<Use> = (0..1000).map(|n| nonces.take("p", "d", &n.to_string(), GENERATION_MS)).collect();
        assert_eq!(next.iter().filter(|used| **used == Use::First).count(), PARTS, "room comes back with time");
        assert_eq!(next.iter().filter(|used| **used == Use::Again).count(), PARTS, "what was used stays used");
    }
}
