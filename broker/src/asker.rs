//! Questions of the gate that somebody outside of the shards answers ([`turnpike_core::gate::Verdict::Pending`]).

use std::sync::Arc;
use std::time::Instant;

use turnpike_core::clock::Now;
use turnpike_core::gate::{Answer, Question};
use turnpike_core::ids::ShardId;
use turnpike_core::shard::InquiryId;

use crate::inbox::{Envelope, Inbox};
use crate::shard::Clock;

/// Has questions answered.
pub trait Asker: Send + Sync {
    /// Takes a question, on a shard's thread: it must not wait. It may answer at once. Whoever never answers leaves the client to its
    /// time limit; how many questions are open is the gate's affair.
    fn ask(&self, question: Question, reply: Reply);
}

/// Where an answer goes.
#[derive(Debug)]
pub struct Reply {
    inboxes: Arc<[Inbox]>,
    shard: ShardId,
    id: InquiryId,
    clock: Clock,
}

impl Reply {
    pub(crate) fn new(inboxes: Arc<[Inbox]>, shard: ShardId, id: InquiryId, clock: Clock) -> Self {
        Self { inboxes, shard, id, clock }
    }

    /// Now, by the clock of the shards.
    #[must_use]
    pub fn now(&self) -> Now {
        self.clock.at(Instant::now())
    }

    /// Answers. If the client has gone meanwhile, nothing comes of it.
    pub fn send(self, answer: Answer) {
        if let Some(inbox) = self.inboxes.get(usize::from(self.shard.0)) {
            inbox.push(Envelope::Answered(self.id, answer));
        }
    }
}
