//! Who waits for an offer, and how many may have one now.

use std::collections::{BTreeMap, VecDeque};

use crate::fleet::Slot;
use crate::zone::Zone;

/// Connected devices of groups that have begun, by group and zone: a window is open for all of a zone or for none. A device that goes away stays in
/// line until its turn, and is passed over then.
#[derive(Debug, Default)]
pub(super) struct Line {
    queues: BTreeMap<(u8, Zone), VecDeque<Slot>>,
}

impl Line {
    pub(super) fn push(&mut self, group: u8, zone: Zone, slot: Slot) {
        self.queues.entry((group, zone)).or_default().push_back(slot);
    }

    pub(super) fn pop(&mut self, group: u8, zone: Zone) -> Option<Slot> {
        let queue = self.queues.get_mut(&(group, zone))?;
        let slot = queue.pop_front();
        if queue.is_empty() {
            self.queues.remove(&(group, zone));
        }
        slot
    }

    /// Says whether it stood there. Looks at all who do.
    pub(super) fn remove(&mut self, group: u8, zone: Zone, slot: Slot) -> bool {
        let Some(queue) = self.queues.get_mut(&(group, zone)) else { return false };
        let Some(at) = queue.iter().position(|waiting| *waiting == slot) else { return false };
        queue.remove(at);
        if queue.is_empty() {
            self.queues.remove(&(group, zone));
        }
        true
    }

    /// Groups and zones where somebody waits, earlier groups first.
    pub(super) fn places(&self) -> Vec<(u8, Zone)> {
        self.queues.keys().copied().collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.queues.clear();
    }
}

/// What an offer costs: a rate is in devices a minute, and the credit of a minute is 60,000 milliseconds.
const OFFER_MS: u64 = 60_000;

/// Up to the offers of so many milliseconds may go out at once: steps that come late lose nothing.
const BURST_MS: u64 = 5000;

/// Offers that may go out now: those that the rate has earned and that haven't been made.
#[derive(Debug)]
pub(super) struct Credit {
    credit_ms: u64,
    at_ms: u64,
}

impl Credit {
    /// One offer to begin with.
    pub(super) const fn new(mono_ms: u64) -> Self {
        Self { credit_ms: OFFER_MS, at_ms: mono_ms }
    }

    /// Earns what has come since the last time. In any stretch of time no more offers go out than `per_minute` allows in it, and those of five seconds (or
    /// one, if that is more) on top.
    pub(super) fn earn(&mut self, per_minute: u32, mono_ms: u64) {
        let passed_ms = mono_ms.saturating_sub(self.at_ms);
        self.at_ms = self.at_ms.max(mono_ms);
        let most_ms = (u64::from(per_minute) * BURST_MS).max(OFFER_MS);
        self.credit_ms = self.credit_ms.saturating_add(passed_ms.saturating_mul(u64::from(per_minute))).min(most_ms);
    }

    /// None to begin with.
    pub(super) const fn clear(&mut self) {
        self.credit_ms = 0;
    }

    pub(super) const fn allows_one(&self) -> bool {
        self.credit_ms >= OFFER_MS
    }

    pub(super) const fn spend(&mut self) {
        self.credit_ms = self.credit_ms.saturating_sub(OFFER_MS);
    }

    /// An offer wasn't made after all.
    pub(super) const fn give_back(&mut self) {
        self.credit_ms = self.credit_ms.saturating_add(OFFER_MS);
    }
}
