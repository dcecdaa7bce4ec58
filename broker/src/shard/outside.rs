//! What comes in without a connection, and what is handed out to desks.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;
use turnpike_core::durable::Op;
use turnpike_core::gate::{Gate, Principal};
use turnpike_core::message::{Message, MessageParts};
use turnpike_mqtt::{QoS, ReasonCode, TopicName};

use super::{PHASE_TIME, ShardThread};
use crate::desk::Done;

/// A message of somebody who has no session: a platform.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutsideMessage {
    /// Who.
    pub principal: Principal,
    /// A topic name.
    pub topic: String,
    /// The payload.
    pub payload: Vec<u8>,
    /// At most once or at least once.
    pub qos: QoS,
    /// When it is no longer to be delivered, milliseconds since 1970 UTC.
    pub expires_at_ms: u64,
}

/// Stored records of one device, published in order and in one commit with what is kept about them.
pub struct Slice {
    /// The device.
    pub principal: Principal,
    /// The records.
    pub records: Vec<SliceRecord>,
    /// What to keep, given how many records were taken. Not asked if that is none.
    pub keep: Box<dyn FnOnce(usize) -> Vec<Op> + Send>,
    /// Hears what came of it.
    pub reply: oneshot::Sender<SliceOutcome>,
}

/// One of them.
#[derive(Debug)]
pub struct SliceRecord {
    /// On its own topic.
    pub message: Arc<Message>,
    /// The same on another, for those who can't tell by its properties that it is history.
    pub also: Option<Arc<Message>>,
}

impl std::fmt::Debug for Slice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slice")
            .field("principal", &self.principal)
            .field("records", &self.records.len())
            .finish_non_exhaustive()
    }
}

/// What came of a [`Slice`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SliceOutcome {
    /// Records that were published, from the first on; they are on disk, with what is kept about them.
    pub taken: usize,
    /// Why the next one wasn't: [`ReasonCode::QuotaExceeded`] if there was no room for it yet, anything else if the device may not publish it.
    pub stopped: Option<ReasonCode>,
}

impl<G: Gate> ShardThread<G> {
    pub(super) fn publish_outside(
        &mut self,
        message: &OutsideMessage,
        reply: oneshot::Sender<Result<bool, ReasonCode>>,
    ) {
        self.next_number += 1;
        let number = self.next_number;
        let taken = TopicName::parse(&message.topic).map_err(|_| ReasonCode::TopicNameInvalid).and_then(|topic| {
            let parts = MessageParts {
                topic,
                properties: &[],
                payload: &message.payload,
                qos: message.qos,
                retain: false,
                expires_at_ms: Some(message.expires_at_ms),
                publisher: None,
            };
            self.core.publish_for(&message.principal, &parts, number, self.now)
        });
        match taken {
            Ok(()) => drop(self.publishing.insert(number, reply)),
            // Whoever asked may have given up waiting.
            Err(reason) => drop(reply.send(Err(reason))),
        }
    }

    /// Answers those whose messages are taken.
    pub(super) fn tell_taken(&mut self) {
        while let Some(taken) = self.core.next_taken() {
            // Whoever asked may have given up waiting.
            if let Some(reply) = self.publishing.remove(&taken.number) {
                let _ = reply.send(Ok(taken.any));
            } else if let Some((outcome, reply)) = self.slices.remove(&taken.number) {
                let _ = reply.send(outcome);
            }
        }
    }

    /// Hands messages of devices to the desk.
    pub(super) fn hand_out(&mut self) {
        while let Some(errand) = self.core.next_errand() {
            let done = Done::new(Arc::clone(&self.inboxes), self.id, errand.id, self.clock);
            // Where there is no desk, the message is refused.
            if let Some(desk) = &self.desk {
                desk.take(errand, done);
            }
        }
    }

    /// Publishes slices of history, as many as the phase has time for.
    pub(super) fn publish_history(&mut self) {
        let begun = Instant::now();
        // While the store or another shard is behind, more would only wait there.
        while !self.stalled
            && let Some(slice) = self.history.pop_front()
        {
            self.publish_slice(slice);
            self.unflushed = true;
            if begun.elapsed() >= PHASE_TIME {
                return;
            }
        }
    }

    /// Publishes all that waits, however long that takes.
    pub(super) fn publish_all_history(&mut self) {
        while let Some(slice) = self.history.pop_front() {
            self.publish_slice(slice);
        }
    }

    /// Publishes a slice of history, and has its answer sent when all of it is on disk.
    fn publish_slice(&mut self, slice: Slice) {
        let Slice { principal, records, keep, reply } = slice;
        let mut taken = 0;
        let mut stopped = None;
        for record in &records {
            if let Err(reason) = self.core.publish_record(&principal, &record.message, self.now) {
                stopped = Some(reason);
                break;
            }
            taken += 1;
            if let Some(also) = &record.also {
                // Whoever reads both has the record; this one is a convenience, and stops nothing.
                let _ = self.core.publish_record(&Principal::Broker, also, self.now);
            }
        }
        let outcome = SliceOutcome { taken, stopped };
        if taken == 0 && !records.is_empty() {
            let _ = reply.send(outcome);
            return;
        }
        keep(taken).into_iter().for_each(|op| self.core.keep(op));
        self.next_number += 1;
        self.core.name_when_kept(self.next_number);
        self.slices.insert(self.next_number, (outcome, reply));
    }
}
