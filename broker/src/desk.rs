//! Desks: who is handed messages of devices in place of, or beside, those who subscribe ([`turnpike_core::gate::Handling`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use turnpike_authz::registry::Registry;
use turnpike_core::clock::Now;
use turnpike_core::ids::ShardId;
use turnpike_core::shard::{Errand, ErrandId};
use turnpike_mqtt::ReasonCode;

use crate::audit::AuditSink;
use crate::inbox::{Envelope, Inbox};
use crate::server::Control;
use crate::shard::Clock;

/// Does errands.
pub trait Desk: Send + Sync {
    /// Takes an errand, on a shard's thread: it must not wait. It may be done at once.
    fn take(&self, errand: Errand, done: Done);
}

/// What a desk hasn't taken, by what was wrong with it: as many counters as there are such words.
#[derive(Debug, Default)]
pub struct ByCode(Mutex<BTreeMap<&'static str, u64>>);

impl ByCode {
    /// Counts one.
    pub fn add(&self, code: &'static str) {
        *self.0.lock().entry(code).or_default() += 1;
    }

    /// Each word that there was, and how often.
    #[must_use]
    pub fn all(&self) -> Vec<(&'static str, u64)> {
        self.0.lock().iter().map(|(code, count)| (*code, *count)).collect()
    }
}

/// What a desk of the platform's works with, once the broker runs.
pub(crate) struct Shell {
    pub(crate) control: Control,
    pub(crate) registry: Arc<Registry>,
    pub(crate) audit: AuditSink,
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
