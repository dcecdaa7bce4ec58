//! Who may come when, after an outage that kept many devices away.
//!
//! Time is handed out in *turns*: a device that has one may send at its rate until it ends. As many turns run at once as the budget feeds, so the next
//! one begins `turn · device's rate / whole rate` after the last, and the queue is a single number, the moment at which the next turn begins. A device that asks
//! while nobody queues has its turn at once. Who comes before its turn is told again when that is; who asks after its turn queues anew, so
//! a device with much doesn't keep out those with little.
//!
//! ```text
//!         begin − ahead      begin                     end
//! slot:  told to wait ───────▶│ goes, at its rate ──────▶│ queues anew
//! ```
//!
//! Bounded: a turn that is held is 32 bytes, and no turn begins more than [`Settings::ahead_ms_max`] from now: who would be later is told to ask again by then, at a
//! time of its own (by a hash, so that those who were told together don't come together), and nothing is kept.
//!
//! 100,000 devices at 2,000 records a second each, 100,000 of all, and turns of 1 s: 50 turns at once, one more each 20 ms.

use hashbrown::HashMap;

use crate::hash;

/// How turns are handed out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Milliseconds of a turn, at least 1. 1 s: a device with little to hand in wastes what is left of its turn.
    pub turn_ms: u64,
    /// What a device may send in its turn, records a second, at least 1. 2,000.
    pub device_records_per_s: u32,
    /// No turn begins later than so many milliseconds from now. 30 minutes.
    pub ahead_ms_max: u64,
    /// Turns that are held. 131,072.
    pub turns_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { turn_ms: 1_000, device_records_per_s: 2_000, ahead_ms_max: 30 * 60 * 1000, turns_max: 1 << 17 }
    }
}

/// What a device is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// Milliseconds from now on that it is to wait; 0: it may send now.
    pub after_ms: u64,
    /// Then, so many records a second.
    pub records_per_s: u32,
}

#[derive(Clone, Copy, Debug)]
struct Turn {
    begins_ms: u64,
    ends_ms: u64,
}

/// The queue.
#[derive(Debug)]
pub struct Pacer {
    settings: Settings,
    whole_records_per_s: u64,
    /// When the next turn begins, microseconds: turns may be closer than a millisecond.
    next_us: u64,
    turns: HashMap<u64, Turn, foldhash::fast::RandomState>,
    sweep_at_ms: u64,
    state: foldhash::quality::RandomState,
}

impl Pacer {
    /// Nobody queues.
    #[must_use]
    pub fn new(settings: Settings, whole_records_per_s: u64) -> Self {
        Self {
            settings,
            whole_records_per_s,
            next_us: 0,
            turns: HashMap::default(),
            sweep_at_ms: 0,
            state: foldhash::quality::RandomState::default(),
        }
    }

    /// Another rate of the whole, of records a second ([`crate::budget::Budget::records_per_s`]). Turns that were handed out stay: the budget slows them.
    pub fn set_rate(&mut self, whole_records_per_s: u64) {
        self.whole_records_per_s = whole_records_per_s;
    }

    /// When a device that wants to send may. `now_ms` is of the clock that never goes back.
    pub fn slot(&mut self, now_ms: u64, product: &str, device: &str) -> Pace {
        let key = hash::seeded(&self.state, &[product, device]);
        if let Some(turn) = self.turns.get(&key).filter(|turn| now_ms < turn.ends_ms) {
            return self.pace(turn.begins_ms.saturating_sub(now_ms));
        }
        let begins_us = self.next_us.max(now_ms.saturating_mul(1000));
        let begins_ms = begins_us / 1000;
        let is_far = begins_ms.saturating_sub(now_ms) > self.settings.ahead_ms_max;
        if is_far || !self.has_room(now_ms, key) {
            return self.pace(self.later_ms(product, device));
        }
        self.next_us = begins_us.saturating_add(self.apart_us());
        let ends_ms = begins_ms.saturating_add(self.settings.turn_ms.max(1));
        self.turns.insert(key, Turn { begins_ms, ends_ms });
        self.pace(begins_ms.saturating_sub(now_ms))
    }

    /// Turns that are held.
    #[must_use]
    pub fn turns(&self) -> usize {
        self.turns.len()
    }

    fn pace(&self, after_ms: u64) -> Pace {
        Pace { after_ms, records_per_s: self.settings.device_records_per_s.max(1) }
    }

    /// From one turn to the next, microseconds.
    fn apart_us(&self) -> u64 {
        let records = u128::from(self.settings.turn_ms.max(1)) * u128::from(self.settings.device_records_per_s.max(1));
        let apart = records * 1000 / u128::from(self.whole_records_per_s.max(1));
        u64::try_from(apart).unwrap_or(u64::MAX).max(1)
    }

    /// In the second half of the time that may be planned, each device at its own moment of it.
    fn later_ms(&self, product: &str, device: &str) -> u64 {
        let half = (self.settings.ahead_ms_max / 2).max(1);
        half + hash::steady(&[product, device]) % half
    }

    fn has_room(&mut self, now_ms: u64, key: u64) -> bool {
        if self.turns.len() < self.settings.turns_max || self.turns.contains_key(&key) {
            return true;
        }
        if now_ms >= self.sweep_at_ms {
            self.sweep_at_ms = now_ms.saturating_add(1000);
            self.turns.retain(|_, turn| now_ms < turn.ends_ms);
        }
        self.turns.len() < self.settings.turns_max
    }
}

#[cfg(test)]
mod tests;
