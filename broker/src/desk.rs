//! Desks: who is handed messages of devices in place of, or beside, those who subscribe ([`turnpike_core::gate::Handling`]).

use std::sync::Arc;
use std::time::Instant;

use turnpike_core::clock::Now;
use turnpike_core::ids::ShardId;
use turnpike_core::shard::{Errand, ErrandId};
use turnpike_mqtt::ReasonCode;

use crate::inbox::{Envelope, Inbox};
use crate::shard::Clock;

/// Does errands.
pub trait Desk: Send + Sync {
    /// Takes an errand, on a shard's thread: it must not wait. It may be done at once.
    fn take(&self, errand: Errand, done: Done);
}

/// Says that an errand is done: dropped without a word, it refuses the message, so that no device waits for ever.
#[derive(Debug)]
pub struct Done {
    inboxes: Arc<[Inbox]>,
    shard: ShardId,
    id: ErrandId,
    clock: Clock,
    is_said: bool,
}

impl Done {
    pub(crate) fn new(inboxes: Arc<[Inbox]>, shard: ShardId, id: ErrandId, clock: Clock) -> Self {
        Self { inboxes, shard, id, clock, is_said: false }
    }

    /// Now, by the clock of the shards.
    #[must_use]
    pub fn now(&self) -> Now {
        self.clock.at(Instant::now())
    }

    /// The message is acknowledged, or refused with a reason (MQTT 3: the connection is closed). All that the desk has had committed
    /// for it is on disk by now. If the device has gone meanwhile, nothing comes of it.
    pub fn say(mut self, outcome: Result<(), ReasonCode>) {
        self.send(outcome);
    }

    /// Subscribes the device to topics on which it is answered, unless it has done so itself.
    pub fn subscribe(&self, topics: Box<[Box<str>]>) {
        if let Some(inbox) = self.inboxes.get(usize::from(self.shard.0)) {
            inbox.push(Envelope::ErrandTopics(self.id, topics));
        }
    }

    fn send(&mut self, outcome: Result<(), ReasonCode>) {
        self.is_said = true;
        if let Some(inbox) = self.inboxes.get(usize::from(self.shard.0)) {
            inbox.push(Envelope::ErrandDone(self.id, outcome));
        }
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        if !self.is_said {
            self.send(Err(ReasonCode::ImplementationSpecificError));
        }
    }
}
