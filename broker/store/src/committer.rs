//! The thread that owns the store and commits in groups: while one sync runs, the next group gathers.
//!
//! ```text
//!            submit            all parts there          commit + sync ok
//! (shards) ─────────▶ inbox ─────────────────▶ ready ──────────────────▶ Committed(tickets)
//!                                                │ ▲
//!                             commit failed      ▼ │ healed, same group again
//!                                        Failed ─ waiting (100 ms … 5 s) ─▶ Recovered, after the group's Committed
//! ```
//!
//! Invariant: `Committed` names a ticket only after `Store::commit` returned `Ok` for a group that contains all of it; a failed group is
//! tried again, unchanged, before any other.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use turnpike_core::durable::Part;
use turnpike_core::ids::Ticket;

use crate::group::{Assembler, Complete, part_bytes};
use crate::stats::CommitStats;
use crate::{Store, StoreError};

/// How often a store that runs out of space is asked whether it still does, while there is nothing to commit.
const LOW_LOOK_EVERY: Duration = Duration::from_secs(1);

/// Bounds of the committer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// A group takes no further ticket when it has this many operations.
    pub group_ops_max: usize,
    /// A group takes no further ticket when it has about this many bytes.
    pub group_bytes_max: usize,
    /// Wait before the first retry of a failed commit; doubles with each.
    pub retry_min: Duration,
    /// Longest wait between retries.
    pub retry_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            group_ops_max: 4_096,
            group_bytes_max: 4 << 20,
            retry_min: Duration::from_millis(100),
            retry_max: Duration::from_secs(5),
        }
    }
}

/// What the committer says. It says it on its own thread: the receiver hands it on and returns.
#[derive(Clone, Copy, Debug)]
pub enum CommitEvent<'a> {
    /// These tickets are on disk. Once per group; tickets of one origin are in the order of its turns.
    Committed(&'a [Ticket]),
    /// A commit failed and will be tried again. Said once, until `Recovered`.
    Failed {
        /// Why.
        error: &'a StoreError,
    },
    /// Commits succeed again.
    Recovered,
    /// Commits succeed, but space runs out: nothing more should be taken in. Said once, until `Ample`.
    Low,
    /// There is space again.
    Ample,
}

/// Receives [`CommitEvent`]s.
pub type OnEvent = Box<dyn Fn(CommitEvent<'_>) + Send>;

/// Why [`CommitterHandle::flush`] or [`CommitterHandle::shutdown`] did not do all of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FlushError {
    /// The time limit passed.
    #[error("{tickets} tickets are not on disk after {waited:?}; none of them was acknowledged")]
    TimedOut {
        /// How many are complete and not on disk.
        tickets: u64,
        /// The limit.
        waited: Duration,
    },
    /// The committer has ended.
    #[error("the committer has stopped")]
    Stopped,
}

/// Starts committer threads.
#[derive(Debug)]
pub struct Committer;

impl Committer {
    /// Starts a thread that owns `store` and calls `on_event` from there.
    ///
    /// # Errors
    ///
    /// The thread could not be started.
    pub fn start(store: Box<dyn Store>, limits: Limits, on_event: OnEvent) -> io::Result<CommitterHandle> {
        let shared = Arc::new(Shared {
            inbox: Mutex::new(Inbox::default()),
            wake: Condvar::new(),
            settled: Condvar::new(),
            stats: CommitStats::new(),
        });
        let ready = VecDeque::new();
        let worker = Worker { shared: Arc::clone(&shared), store, limits, on_event, ready, low: false };
        let thread = std::thread::Builder::new().name("turnpike-store".into()).spawn(move || worker.run())?;
        Ok(CommitterHandle { shared, thread: Arc::new(Mutex::new(Some(thread))) })
    }
}

/// Submits parts to a committer. Cheap to clone; the committer runs until [`shutdown`](Self::shutdown).
#[derive(Clone, Debug)]
pub struct CommitterHandle {
    shared: Arc<Shared>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl CommitterHandle {
    /// Hands over a part. A push on a vector; wakes the committer only if it sleeps.
    pub fn submit(&self, part: Part) {
        self.submit_many([part]);
    }

    /// Hands over several parts under one lock.
    pub fn submit_many(&self, parts: impl IntoIterator<Item = Part>) {
        let mut bytes = 0;
        let mut inbox = self.shared.inbox.lock();
        let before = inbox.parts.len();
        inbox.parts.extend(parts.into_iter().inspect(|part| bytes += part_bytes(part)));
        inbox.submitted += (inbox.parts.len() - before) as u64;
        let wake = std::mem::take(&mut inbox.sleeping);
        drop(inbox);
        self.shared.stats.pending_bytes.fetch_add(bytes as u64, Relaxed);
        if wake {
            self.shared.wake.notify_one();
        }
    }

    /// Figures.
    #[must_use]
    pub fn stats(&self) -> &CommitStats {
        &self.shared.stats
    }

    /// Waits until every ticket that is complete with what was submitted before this call is on disk.
    ///
    /// # Errors
    ///
    /// The limit passed, or the committer has stopped.
    pub fn flush(&self, limit: Duration) -> Result<(), FlushError> {
        let mut inbox = self.shared.inbox.lock();
        let target = inbox.submitted;
        self.shared.wait_until(&mut inbox, limit, |inbox| inbox.settled_parts >= target)
    }

    /// Commits every complete ticket, closes the store and ends the thread. Parts submitted later are ignored.
    ///
    /// # Errors
    ///
    /// The limit passed. The thread then ends as soon as the disk lets it, without another attempt.
    pub fn shutdown(&self, limit: Duration) -> Result<(), FlushError> {
        let mut inbox = self.shared.inbox.lock();
        inbox.stop_by = Some(Instant::now() + limit);
        self.shared.wake.notify_one();
        // A little longer than the thread's own limit, so that it is the thread that gives up, in good order.
        let grace = limit + Duration::from_millis(250);
        let ended = self.shared.wait_until(&mut inbox, grace, |inbox| inbox.ended);
        let unwritten = inbox.unwritten;
        drop(inbox);
        match ended {
            Err(FlushError::TimedOut { tickets, .. }) => Err(FlushError::TimedOut { tickets, waited: limit }),
            _ => {
                if let Some(thread) = self.thread.lock().take() {
                    let _ = thread.join();
                }
                if unwritten > 0 { Err(FlushError::TimedOut { tickets: unwritten, waited: limit }) } else { Ok(()) }
            }
        }
    }
}

#[derive(Debug)]
struct Shared {
    inbox: Mutex<Inbox>,
    /// For the committer: there is something to do.
    wake: Condvar,
    /// For `flush` and `shutdown`: something has been done.
    settled: Condvar,
    stats: CommitStats,
}

#[derive(Default, Debug)]
struct Inbox {
    parts: Vec<Part>,
    /// The committer waits for `wake` and must be woken.
    sleeping: bool,
    /// Parts ever submitted.
    submitted: u64,
    /// Of these, the first so many have been taken and the tickets that they completed are on disk.
    settled_parts: u64,
    stop_by: Option<Instant>,
    ended: bool,
    /// Complete tickets that were given up at the end.
    unwritten: u64,
}

impl Shared {
    fn wait_until(
        &self,
        inbox: &mut parking_lot::MutexGuard<'_, Inbox>,
        limit: Duration,
        done: impl Fn(&Inbox) -> bool,
    ) -> Result<(), FlushError> {
        let deadline = Instant::now() + limit;
        while !done(inbox) {
            if inbox.ended {
                return Err(FlushError::Stopped);
            }
            if self.settled.wait_until(inbox, deadline).timed_out() && !done(inbox) {
                return Err(FlushError::TimedOut { tickets: self.stats.ready_tickets.load(Relaxed), waited: limit });
            }
        }
        Ok(())
    }
}

struct Worker {
    shared: Arc<Shared>,
    store: Box<dyn Store>,
    limits: Limits,
    on_event: OnEvent,
    ready: VecDeque<Complete>,
    /// `Low` was said last.
    low: bool,
}

/// What comes next for the worker.
enum Next {
    Work,
    Stop,
}

impl Worker {
    fn run(mut self) {
        let guard = EndGuard(Arc::clone(&self.shared));
        let mut assembler = Assembler::default();
        let mut taken = Vec::new();
        // (parts taken, tickets that they had completed): settled when so many tickets are on disk.
        let mut checkpoint: Option<(u64, u64)> = None;
        let (mut parts_taken, mut completed, mut committed) = (0u64, 0u64, 0u64);
        let mut group = Group::default();
        loop {
            self.look_at_space();
            if let Next::Stop = self.take(&mut taken) {
                break;
            }
            parts_taken += taken.len() as u64;
            let before = self.ready.len();
            for part in taken.drain(..) {
                assembler.add(part, &mut self.ready);
            }
            completed += (self.ready.len() - before) as u64;
            checkpoint = checkpoint.or(Some((parts_taken, completed)));
            self.shared.stats.ready_tickets.store(self.ready.len() as u64, Relaxed);
            self.shared.stats.incomplete_tickets.store(assembler.pending_tickets() as u64, Relaxed);

            group.fill(&mut self.ready, &self.limits);
            if !group.tickets.is_empty() {
                if let Next::Stop = self.commit(&group) {
                    break;
                }
                committed += group.tickets.len() as u64;
                self.committed(&group);
            }
            if let Some((parts, _)) = checkpoint.take_if(|(_, tickets)| *tickets <= committed) {
                self.shared.inbox.lock().settled_parts = parts;
                self.shared.settled.notify_all();
            }
        }
        self.end(&assembler, &group);
        drop(guard);
    }

    fn look_at_space(&mut self) {
        let low = self.store.is_low();
        if low != self.low {
            self.low = low;
            if low {
                tracing::error!("the disk is nearly full: nothing more is taken in until there is room");
            } else {
                tracing::info!("the disk has room again");
            }
            (self.on_event)(if low { CommitEvent::Low } else { CommitEvent::Ample });
        }
    }

    /// Fetches what was submitted; sleeps when there is nothing to do at all.
    fn take(&mut self, taken: &mut Vec<Part>) -> Next {
        let mut inbox = self.shared.inbox.lock();
        loop {
            if !inbox.parts.is_empty() {
                std::mem::swap(&mut inbox.parts, taken);
                return Next::Work;
            }
            if !self.ready.is_empty() || inbox.settled_parts < inbox.submitted {
                return Next::Work;
            }
            if inbox.stop_by.is_some() {
                return Next::Stop;
            }
            inbox.sleeping = true;
            if self.low {
                // Nobody may have anything to commit until room is there again: that has to be looked for.
                let timed_out = self.shared.wake.wait_for(&mut inbox, LOW_LOOK_EVERY).timed_out();
                inbox.sleeping = false;
                if timed_out {
                    return Next::Work;
                }
            } else {
                self.shared.wake.wait(&mut inbox);
                inbox.sleeping = false;
            }
        }
    }

    /// Commits the group, however often it takes.
    fn commit(&mut self, group: &Group) -> Next {
        let mut wait = self.limits.retry_min;
        let mut failed = false;
        loop {
            self.shared.stats.commit_begins();
            let began = Instant::now();
            let outcome = self.store.commit(&group.parts);
            self.shared.stats.commit_ends(outcome.is_ok().then(|| began.elapsed()));
            let Err(mut error) = outcome else {
                break;
            };
            if !failed {
                failed = true;
                self.shared.stats.set_failed(true);
                (self.on_event)(CommitEvent::Failed { error: &error });
            }
            loop {
                tracing::error!(%error, retry_in = ?wait, tickets = group.tickets.len(), "the store can't commit");
                if let Next::Stop = self.pause(wait) {
                    return Next::Stop;
                }
                wait = (wait * 2).min(self.limits.retry_max);
                match self.store.heal() {
                    Ok(()) => break,
                    Err(still) => error = still,
                }
            }
        }
        if failed {
            tracing::info!("the store commits again");
            self.shared.stats.set_failed(false);
            (self.on_event)(CommitEvent::Committed(&group.tickets));
            // Before everything is let in again.
            self.look_at_space();
            (self.on_event)(CommitEvent::Recovered);
        } else {
            (self.on_event)(CommitEvent::Committed(&group.tickets));
        }
        Next::Work
    }

    /// Waits before the next attempt; stops when the time limit of a shutdown passes.
    fn pause(&self, wait: Duration) -> Next {
        let until = Instant::now() + wait;
        let mut inbox = self.shared.inbox.lock();
        loop {
            let now = Instant::now();
            if inbox.stop_by.is_some_and(|stop_by| stop_by <= now) {
                return Next::Stop;
            }
            if until <= now {
                return Next::Work;
            }
            let wake_at = inbox.stop_by.map_or(until, |stop_by| stop_by.min(until));
            self.shared.wake.wait_until(&mut inbox, wake_at);
        }
    }

    fn committed(&self, group: &Group) {
        let stats = &self.shared.stats;
        stats.tickets.fetch_add(group.tickets.len() as u64, Relaxed);
        stats.ops.fetch_add(group.ops as u64, Relaxed);
        stats.bytes.fetch_add(group.bytes as u64, Relaxed);
        stats.pending_bytes.fetch_sub(group.bytes as u64, Relaxed);
        stats.ready_tickets.store(self.ready.len() as u64, Relaxed);
    }

    fn end(&mut self, assembler: &Assembler, group: &Group) {
        for ticket in assembler.oldest() {
            tracing::warn!(?ticket, "stopped with a ticket whose parts did not all arrive; it was not acknowledged");
        }
        let unwritten = if self.shared.stats.is_healthy() { 0 } else { group.tickets.len() + self.ready.len() };
        if unwritten > 0 {
            tracing::error!(unwritten, "stopped with tickets that could not be committed; none was acknowledged");
        }
        if let Err(error) = self.store.close() {
            tracing::error!(%error, "the store did not close in good order");
        }
        self.shared.inbox.lock().unwritten = unwritten as u64;
    }
}

/// Tells whoever waits that the thread has ended, even if it panicked.
struct EndGuard(Arc<Shared>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stats.set_failed(true);
        }
        self.0.inbox.lock().ended = true;
        self.0.settled.notify_all();
    }
}

/// Tickets that are committed with one sync.
#[derive(Default)]
struct Group {
    tickets: Vec<Ticket>,
    parts: Vec<Part>,
    ops: usize,
    bytes: usize,
}

impl Group {
    /// Starts anew with what is ready, up to the limits; at least one ticket if there is one.
    fn fill(&mut self, ready: &mut VecDeque<Complete>, limits: &Limits) {
        self.tickets.clear();
        self.parts.clear();
        (self.ops, self.bytes) = (0, 0);
        while self.ops < limits.group_ops_max && self.bytes < limits.group_bytes_max {
            let Some(complete) = ready.pop_front() else { break };
            self.tickets.push(complete.ticket);
            self.parts.extend(complete.parts);
            self.ops += complete.ops;
            self.bytes += complete.bytes;
        }
    }
}

#[cfg(test)]
mod tests;
