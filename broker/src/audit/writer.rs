//! The writer's thread: groups to disk, answers to those who wait, what was lost, and retention.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use turnpike_authz::audit::{Action, Event, Key, Value};

use super::batch::Batch;
use super::book::{Book, Loss};
use super::queue::{AuditError, Losses, Shared, Waiting};
use super::{AuditSettings, now_ms};

/// How often a disk that refuses to write is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How often it is looked for segments that are old enough to go.
const RETENTION: Duration = Duration::from_secs(3600);
/// How often it is looked whether all files are still there, where nothing is written that would show it.
const LOOK: Duration = Duration::from_secs(5);
const DAY_MS: u64 = 24 * 3600 * 1000;

pub(super) struct Writer {
    book: Book,
    shared: Arc<Shared>,
    interval: Duration,
    retention_ms: u64,
    /// What is to be written, and wasn't yet.
    held: Batch,
    /// What was lost, and isn't on record yet.
    losses: Losses,
}

impl Writer {
    pub(super) fn new(book: Book, shared: Arc<Shared>, settings: &AuditSettings) -> Self {
        Self {
            book,
            shared,
            interval: settings.sync_interval,
            retention_ms: u64::from(settings.retention_days) * DAY_MS,
            held: Batch::default(),
            losses: Losses::default(),
        }
    }

    /// Writes until the sink has ended.
    pub(super) fn run(mut self) {
        let mut next_retention = Instant::now();
        let mut next_look = Instant::now() + LOOK;
        loop {
            // While the disk refuses, only somebody who waits for an answer has it tried sooner.
            let (interval, until) = match self.is_behind() {
                true => (None, Instant::now() + RETRY),
                false => (Some(self.interval), next_retention.min(next_look)),
            };
            let taken = self.shared.take(&mut self.held, interval, until);
            self.write(taken.waiting, taken.losses);
            if taken.ended {
                return;
            }
            if Instant::now() >= next_look {
                self.look();
                next_look = Instant::now() + LOOK;
            }
            if Instant::now() >= next_retention {
                self.retain(now_ms());
                next_retention = Instant::now() + RETENTION;
            }
        }
    }

    fn is_behind(&self) -> bool {
        let has_to_tell = !self.losses.is_none() || self.book.loss().is_some();
        !self.held.is_empty() || has_to_tell || self.book.head_fault().is_some()
    }

    /// One group. What can't be written stays, but for what somebody waits for: they are told that it isn't written, and so it must not be.
    pub(super) fn write(&mut self, waiting: Waiting, losses: Losses) {
        self.losses.add(losses);
        let events = self.held.len();
        self.tell_losses();
        if self.held.is_empty() {
            if self.book.head_fault().is_some() {
                self.book.write_head();
                self.set_fault(self.book.head_fault().map(str::to_owned));
            }
            return;
        }
        let (before, told) = (self.book.link().sequence, self.book.loss());
        let written = self.book.write(&self.held, now_ms());
        let outcome = match written {
            Ok(()) => {
                self.held.clear();
                self.losses = Losses::default();
                // What was found only while this was written is another.
                if self.book.loss() == told {
                    self.book.told_loss();
                }
                self.set_fault(self.book.head_fault().map(str::to_owned));
                Ok(())
            }
            Err(error) => {
                self.shared.failures.fetch_add(1, Relaxed);
                self.set_fault(Some(error.to_string()));
                self.take_back(&waiting, events);
                Err(AuditError::Unwritable(error.to_string()))
            }
        };
        let link = self.book.link();
        self.shared.written.fetch_add(link.sequence - before, Relaxed);
        *self.shared.anchor.lock() = link;
        self.shared.hold(self.held.len());
        // Whoever asks after the answer finds everything as it is said to be.
        waiting.into_values().for_each(|reply| drop(reply.send(outcome.clone())));
    }

    /// Takes out of what is held what must not be written later: what somebody waits for, and the account of what was lost.
    fn take_back(&mut self, waiting: &Waiting, events: usize) {
        let mut refused: Vec<usize> = waiting.keys().copied().chain(events..self.held.len()).collect();
        refused.sort_unstable();
        self.held = self.held.without(&refused);
        self.losses.add(Losses { dropped: waiting.len() as u64, suppressed: 0, from_ms: now_ms() });
    }

    /// What could not be kept is kept as a number.
    fn tell_losses(&mut self) {
        let Losses { dropped, suppressed, from_ms } = self.losses;
        let told = [(Action::RecordsDropped, dropped), (Action::RecordsSuppressed, suppressed)];
        for (action, count) in told.into_iter().filter(|(_, count)| *count > 0) {
            let details = [(Key::Count, Value::Number(count)), (Key::FromMs, Value::Number(from_ms))];
            self.held.push(&Event::own(now_ms(), action, &details));
        }
        if let Some(Loss { sequence }) = self.book.loss() {
            let details = [(Key::Sequence, Value::Number(sequence)), (Key::How, Value::Word("files_gone"))];
            self.held.push(&Event::own(now_ms(), Action::DamageFound, &details));
        }
    }

    /// Finds out what has gone while nothing was written.
    pub(super) fn look(&mut self) {
        match self.book.look() {
            Err(error) => {
                self.shared.failures.fetch_add(1, Relaxed);
                self.set_fault(Some(error.to_string()));
            }
            Ok(()) if !self.is_behind() => self.set_fault(None),
            Ok(()) => {}
        }
    }

    fn set_fault(&self, fault: Option<String>) {
        let mut known = self.shared.fault.lock();
        match (&*known, &fault) {
            (None, Some(fault)) => {
                tracing::error!(%fault, "the audit can't be written; it is tried again every second");
            }
            (Some(_), None) => tracing::info!("the audit is written again"),
            _ => {}
        }
        *known = fault;
    }

    /// Removes segments that are old enough.
    pub(super) fn retain(&mut self, now_ms: u64) {
        match self.book.remove_before(now_ms.saturating_sub(self.retention_ms), now_ms) {
            Ok(0) => {}
            Ok(segments) => tracing::info!(segments, "segments of the audit were old enough to be removed"),
            Err(error) => tracing::warn!(%error, "old segments of the audit can't be removed"),
        }
        *self.shared.anchor.lock() = self.book.link();
    }
}

#[cfg(test)]
mod tests;
