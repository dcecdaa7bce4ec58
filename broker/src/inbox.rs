//! What other threads hand to a shard, and how they wake it.
//!
//! A sender takes the lock once for all that it has, and writes to the eventfd only if the shard sleeps.
//!
//! Invariant: a shard never sleeps while something lies in its inbox. It announces sleep *before* it looks a last time, a
//! sender looks for the announcement *after* it has put its things in, and both look and put under the lock: so either the
//! shard sees the things, or the sender sees the announcement.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};

use parking_lot::Mutex;
use turnpike_core::batch::Batch;
use turnpike_core::gate::Answer;
use turnpike_core::ids::{ShardId, Ticket};
use turnpike_core::shard::{ErrandId, InquiryId};
use turnpike_mqtt::ReasonCode;

use crate::shard::{Command, MovedLink};

/// One thing handed over.
#[derive(Debug)]
pub(crate) enum Envelope {
    /// Deliveries from another shard; those of one sender stay in order.
    Batch(Batch),
    /// These tickets are on disk.
    Committed(Arc<[Ticket]>),
    /// A connection whose client is at home here.
    Adopt(Box<MovedLink>),
    /// To a question that the shard had asked somebody outside.
    Answered(InquiryId, Answer),
    /// A desk is done with a message.
    ErrandDone(ErrandId, Result<(), ReasonCode>),
    /// A desk will answer a client on these topics, and the client relies on being subscribed to them.
    ErrandTopics(ErrandId, Box<[Box<str>]>),
    /// From the control plane.
    Control(Command),
}

/// A shard's inbox. Batches are bounded by their bytes; connections by the sender's limit on connections; tickets by what the shards
/// have submitted; answers by the connections that wait for one; what desks are done with by the connections whose message they had.
#[derive(Debug)]
pub(crate) struct Inbox {
    queue: Mutex<Queue>,
    /// For the metrics; the queue's own count is what decides.
    bytes: AtomicUsize,
    sleeping: AtomicBool,
    waker: mio::Waker,
}

#[derive(Debug, Default)]
struct Queue {
    envelopes: Vec<Envelope>,
    batch_bytes: usize,
    /// Shards that have a batch for which there was no room.
    refused: Vec<ShardId>,
}

/// What one shard has for another and hasn't handed over yet.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// In order; more than one only while the other's inbox is full.
    pub(crate) batches: VecDeque<Batch>,
    /// Everything else; there is always room for it.
    pub(crate) others: Vec<Envelope>,
}

impl Outbox {
    fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.others.is_empty()
    }
}

impl Inbox {
    pub(crate) fn new(waker: mio::Waker) -> Self {
        Self { queue: Mutex::default(), bytes: AtomicUsize::new(0), sleeping: AtomicBool::new(false), waker }
    }

    /// Puts one thing in.
    pub(crate) fn push(&self, envelope: Envelope) {
        self.queue.lock().envelopes.push(envelope);
        self.wake();
    }

    /// Puts in what there is room for: all of `others`, and batches as long as less than `bytes_high` wait here. Says whether the outbox
    /// is empty now; if it isn't, `from` will be woken when there is room.
    pub(crate) fn hand_over(&self, from: ShardId, outbox: &mut Outbox, bytes_high: usize) -> bool {
        if outbox.is_empty() {
            return true;
        }
        let mut queue = self.queue.lock();
        let before = queue.envelopes.len();
        queue.envelopes.append(&mut outbox.others);
        while queue.batch_bytes < bytes_high {
            let Some(batch) = outbox.batches.pop_front() else { break };
            queue.batch_bytes += batch.bytes();
            queue.envelopes.push(Envelope::Batch(batch));
        }
        if !outbox.batches.is_empty() && !queue.refused.contains(&from) {
            queue.refused.push(from);
        }
        self.bytes.store(queue.batch_bytes, Relaxed);
        let added = queue.envelopes.len() > before;
        drop(queue);
        if added {
            self.wake();
        }
        outbox.batches.is_empty()
    }

    /// Takes everything out. `into` is empty before; `refused` gets the shards that have waited for room and are to be woken.
    pub(crate) fn take(&self, into: &mut Vec<Envelope>, refused: &mut Vec<ShardId>) {
        let mut queue = self.queue.lock();
        std::mem::swap(&mut queue.envelopes, into);
        std::mem::swap(&mut queue.refused, refused);
        queue.batch_bytes = 0;
        self.bytes.store(0, Relaxed);
    }

    /// Announces that the shard is about to sleep. If it says no, there is something here: don't.
    #[must_use]
    pub(crate) fn may_sleep(&self) -> bool {
        self.sleeping.store(true, SeqCst);
        let empty = self.queue.lock().envelopes.is_empty();
        if !empty {
            self.awake();
        }
        empty
    }

    /// The shard is awake; nobody needs to wake it.
    pub(crate) fn awake(&self) {
        self.sleeping.store(false, SeqCst);
    }

    /// Wakes the shard if it sleeps.
    pub(crate) fn wake(&self) {
        // The load spares the cache line when the shard is awake, which is when it matters.
        if self.sleeping.load(SeqCst)
            && self.sleeping.swap(false, SeqCst)
            && let Err(error) = self.waker.wake()
        {
            tracing::error!(%error, "can't wake a shard");
        }
    }

    /// Bytes of batches that wait.
    pub(crate) fn batch_bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use mio::{Events, Poll, Token, Waker};
    use turnpike_core::ids::Turn;

    use super::*;

    fn inbox() -> (Poll, Inbox) {
        let poll = Poll::new().expect("polls");
        let waker = Waker::new(poll.registry(), Token(0)).expect("wakes");
        (poll, Inbox::new(waker))
    }

    fn ticket() -> Envelope {
        Envelope::Committed([Ticket { origin: ShardId(0), turn: Turn(1) }].into())
    }

    /// Whether somebody wrote to the eventfd.
    fn was_woken(poll: &mut Poll) -> bool {
        let mut events = Events::with_capacity(4);
        poll.poll(&mut events, Some(Duration::ZERO)).expect("polls");
        !events.is_empty()
    }

    #[test]
    fn a_shard_that_is_awake_is_not_woken() {
        let (mut poll, inbox) = inbox();
        inbox.push(ticket());
        assert!(!was_woken(&mut poll));
        assert!(!inbox.may_sleep(), "something is there");
        let (mut taken, mut refused) = (Vec::new(), Vec::new());
        inbox.take(&mut taken, &mut refused);
        assert_eq!(taken.len(), 1);
        assert!(inbox.may_sleep());
    }

    #[test]
    fn a_shard_that_sleeps_is_woken_once() {
        let (mut poll, inbox) = inbox();
        assert!(inbox.may_sleep());
        inbox.push(ticket());
        assert!(was_woken(&mut poll));
        inbox.push(ticket());
        assert!(!was_woken(&mut poll), "it is awake already");
    }

    #[test]
    fn nothing_is_slept_through() {
        const PUSHES: usize = 20_000;
        let (mut poll, inbox) = inbox();
        let deadline = Instant::now() + Duration::from_secs(20);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..PUSHES {
                    inbox.push(ticket());
                }
            });
            let (mut events, mut seen) = (Events::with_capacity(4), 0);
            let (mut taken, mut refused) = (Vec::new(), Vec::new());
            while seen < PUSHES {
                // Were a wake-up lost, this would sleep until the deadline.
                let left = deadline.saturating_duration_since(Instant::now());
                let timeout = if inbox.may_sleep() { left } else { Duration::ZERO };
                poll.poll(&mut events, Some(timeout)).expect("polls");
                inbox.awake();
                inbox.take(&mut taken, &mut refused);
                seen += taken.drain(..).count();
                assert!(Instant::now() < deadline, "{seen} of {PUSHES}");
            }
        });
    }
}
