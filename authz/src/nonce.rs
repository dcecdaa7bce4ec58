//! Nonces that have been used, so that a captured password opens nothing (profile `native`).
//!
//! A nonce is remembered for as long as its timestamp is acceptable: two windows, in two generations that take turns, so forgetting is
//! dropping a whole map. Memory is bounded: when a generation is full, what can't be remembered isn't let in, since letting it in
//! would let its copy in too. Nothing survives a restart; a password of the last minutes can be used once more after one.

use std::hash::{BuildHasher, RandomState};

use parking_lot::Mutex;

/// How far a timestamp may be from the broker's clock, in milliseconds.
pub const WINDOW_MS: u64 = 10 * 60 * 1000;

const PARTS: usize = 16;

/// Used nonces. Each is kept as a hash of 128 bits under keys that nobody else knows: a collision would cost one log-in.
#[derive(Debug)]
pub struct Nonces {
    parts: [Mutex<Part>; PARTS],
    hashers: [RandomState; 2],
    per_part_max: usize,
}

#[derive(Debug, Default)]
struct Part {
    /// Which span of [`WINDOW_MS`] × 2 `current` belongs to.
    span: u64,
    current: std::collections::HashSet<(u64, u64), foldhash::fast::RandomState>,
    previous: std::collections::HashSet<(u64, u64), foldhash::fast::RandomState>,
}

/// What became of a nonce.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    /// It is used now for the first time.
    First,
    /// It has been used.
    Again,
    /// There is no room to remember it.
    Full,
}

impl Nonces {
    /// Remembers about `max` nonces a window.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self {
            parts: std::array::from_fn(|_| Mutex::default()),
            hashers: [RandomState::new(), RandomState::new()],
            per_part_max: max.div_ceil(PARTS),
        }
    }

    /// Uses a nonce of a device.
    #[must_use]
    pub fn take(&self, product: &str, device: &str, nonce: &str, now_ms: u64) -> Use {
        let key = (product, device, nonce);
        let [first, second] = &self.hashers;
        let hash = (first.hash_one(key), second.hash_one(key));
        let index = usize::try_from(hash.0 % PARTS as u64).expect("less than 16");
        let Some(part) = self.parts.get(index) else { return Use::Full };
        let mut part = part.lock();
        part.advance(now_ms / (2 * WINDOW_MS));
        if part.current.contains(&hash) || part.previous.contains(&hash) {
            return Use::Again;
        }
        if part.current.len() >= self.per_part_max {
            return Use::Full;
        }
        part.current.insert(hash);
        Use::First
    }
}

impl Part {
    /// A nonce is acceptable from a window before its timestamp to a window after: at most one span, so two generations cover it. A
    /// clock that goes back changes nothing.
    fn advance(&mut self, span: u64) {
        if span > self.span {
            self.previous = if span == self.span + 1 { std::mem::take(&mut self.current) } else { Default::default() };
            self.current.clear();
            self.span = span;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_good_once_while_its_timestamp_could_be() {
        let nonces = Nonces::new(1000);
        let start = 1_700_000_000_000;
        assert_eq!(nonces.take("p", "d", "n", start), Use::First);
        for later in [0, 1, WINDOW_MS, 2 * WINDOW_MS] {
            assert_eq!(nonces.take("p", "d", "n", start + later), Use::Again, "{later}");
        }
        assert_eq!(nonces.take("p", "e", "n", start), Use::First);
        assert_eq!(nonces.take("p", "d", "m", start), Use::First);
        assert_eq!(nonces.take("p", "d", "n", start + 10 * WINDOW_MS), Use::First);
    }

    #[test]
    fn what_cannot_be_remembered_is_not_let_in() {
        let nonces = Nonces::new(PARTS);
        let uses: Vec<Use> = (0..1000).map(|n| nonces.take("p", "d", &n.to_string(), 1)).collect();
        assert_eq!(uses.iter().filter(|used| **used == Use::First).count(), PARTS);
        assert!(uses.contains(&Use::Full));
    }
}
