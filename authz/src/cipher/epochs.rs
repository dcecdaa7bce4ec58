//! When the keys of a session change. Sans-IO: moments go in, steps come out.
//!
//! ```text
//!            begin                       rekey_after_s or rekey_messages
//!              │  announce e                  │  announce e + 1
//!  up in e     ├──────────────────────────────┼─────── grace ───────┤ refused
//!  up in e + 1 │                  (unknown)   ├──────────────────────────────── …
//!  down        ├────────── e ─────────────────┼────────── e + 1 ────────────── …
//! ```
//!
//! An announcement is repeated up to three times, a quarter of the grace apart, until the device uses the epoch. Afterwards it is
//! repeated when the device shows that it has missed it: by a message in an epoch that is over.
//!
//! **Invariant:** at most two epochs are alive. So the next one waits until the grace of the one before the current is over, however
//! many messages there have been.
//!
//! All time is that of the clock that never goes back. A machine that slept for a day announces one epoch, not twenty-four, and
//! what the device had sent before is taken: the grace begins with the announcement.

use super::policy::CipherPolicy;

/// Announcements of an epoch beyond the first.
const REPEATS: u8 = 3;

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Step {
    /// Make the keys of this epoch and announce it; the one that was current is the previous one now.
    Next(u32),
    /// Announce the current epoch.
    Announce,
}

/// How an epoch stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Standing {
    /// It is the current one.
    Current,
    /// It is the one before, and its grace isn't over.
    Previous,
    /// It was one of this session.
    Over,
    /// It is none of this session, or none yet.
    Unknown,
}

/// The epochs of a session.
#[derive(Clone, Debug)]
pub struct Epochs {
    first: u32,
    current: u32,
    /// When the current epoch is to be followed by the next.
    due_ms: u64,
    /// Messages in the current epoch.
    messages: u32,
    previous_until_ms: Option<u64>,
    announce_at_ms: Option<u64>,
    announcements_left: u8,
    /// No announcement that a message in a former epoch asks for before this.
    reminder_from_ms: u64,
    rekey_messages: u32,
    rekey_after_ms: u64,
    grace_ms: u64,
}

impl Epochs {
    /// Begins with an epoch, which [`Self::poll`] announces at once. `mono_ms`: the clock that never goes back.
    #[must_use]
    pub fn new(first: u32, policy: &CipherPolicy, mono_ms: u64) -> Self {
        let rekey_after_ms = u64::from(policy.rekey_after_s()) * 1000;
        Self {
            first,
            current: first,
            due_ms: mono_ms.saturating_add(rekey_after_ms),
            messages: 0,
            previous_until_ms: None,
            announce_at_ms: Some(mono_ms),
            announcements_left: REPEATS + 1,
            reminder_from_ms: 0,
            rekey_messages: policy.rekey_messages(),
            rekey_after_ms,
            grace_ms: u64::from(policy.grace_s()) * 1000,
        }
    }

    /// The epoch in which the broker seals.
    #[must_use]
    pub fn current(&self) -> u32 {
        self.current
    }

    /// Whether the keys of the previous epoch are still needed, as of the last [`Self::poll`].
    #[must_use]
    pub fn has_previous(&self) -> bool {
        self.previous_until_ms.is_some()
    }

    /// How an epoch stands at a moment, whether or not [`Self::poll`] has been asked since.
    pub fn standing(&self, epoch: u32, mono_ms: u64) -> Standing {
        if epoch == self.current {
            return Standing::Current;
        }
        if !(self.first..self.current).contains(&epoch) {
            return Standing::Unknown;
        }
        let in_grace = self.previous_until_ms.is_some_and(|until| mono_ms < until);
        if in_grace && epoch.checked_add(1) == Some(self.current) { Standing::Previous } else { Standing::Over }
    }

    /// Counts a message of either direction.
    pub fn count(&mut self) {
        self.messages = self.messages.saturating_add(1);
    }

    /// The device has used the current epoch: it needn't be told again.
    pub fn confirm(&mut self) {
        self.announce_at_ms = None;
        self.announcements_left = 0;
    }

    /// The device has used an epoch that is over: it is to be told again, if it hasn't just been.
    pub fn remind(&mut self, mono_ms: u64) {
        if self.announce_at_ms.is_none() && mono_ms >= self.reminder_from_ms {
            self.announce_at_ms = Some(mono_ms);
        }
    }

    /// What is to be done at a moment; again until there is nothing.
    pub fn poll(&mut self, mono_ms: u64) -> Option<Step> {
        self.previous_until_ms = self.previous_until_ms.filter(|until| mono_ms < *until);
        let is_due = mono_ms >= self.due_ms || self.messages >= self.rekey_messages;
        if is_due && self.previous_until_ms.is_none() {
            // There is always a next one: the first is below 2³¹, and each lasts 10 seconds at least or half of it.
            if let Some(next) = self.current.checked_add(1) {
                return Some(self.turn(next, mono_ms));
            }
        }
        if self.announce_at_ms.is_none_or(|at| mono_ms < at) {
            return None;
        }
        self.announced(mono_ms);
        Some(Step::Announce)
    }

    fn turn(&mut self, next: u32, mono_ms: u64) -> Step {
        self.current = next;
        self.due_ms = mono_ms.saturating_add(self.rekey_after_ms);
        self.messages = 0;
        self.previous_until_ms = Some(mono_ms.saturating_add(self.grace_ms));
        self.announcements_left = REPEATS + 1;
        self.announced(mono_ms);
        Step::Next(next)
    }

    fn announced(&mut self, mono_ms: u64) {
        let again_ms = mono_ms.saturating_add(self.grace_ms / 4);
        self.announcements_left = self.announcements_left.saturating_sub(1);
        self.announce_at_ms = (self.announcements_left > 0).then_some(again_ms);
        self.reminder_from_ms = again_ms;
    }

    /// When [`Self::poll`] has something to do, if nothing happens until then.
    #[must_use]
    pub fn deadline_ms(&self) -> u64 {
        let due_ms = if self.messages >= self.rekey_messages { 0 } else { self.due_ms };
        let turn_ms = due_ms.max(self.previous_until_ms.unwrap_or(0));
        [self.previous_until_ms, self.announce_at_ms].into_iter().flatten().fold(turn_ms, u64::min)
    }
}

#[cfg(test)]
mod tests;
