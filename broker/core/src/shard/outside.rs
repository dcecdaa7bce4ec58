//! Messages of those who have no connection here: platforms, which come in over HTTP. The gate judges them like everybody's, and that one is
//! taken is said when it is on disk, if anybody is owed it.

use turnpike_mqtt::{QoS, ReasonCode};

use super::Shard;
use super::durability::Release;
use crate::clock::Now;
use crate::gate::{Gate, Permit, Principal};
use crate::message::MessageParts;

/// A message from outside that has been taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Taken {
    /// What the caller calls it.
    pub number: u64,
    /// Whether anybody wants it.
    pub any: bool,
}

impl<G: Gate> Shard<G> {
    /// Publishes for somebody who has no session. [`Self::next_taken`] says when it is done, by `number`.
    ///
    /// # Errors
    /// Why it isn't taken: the gate says no, the topic has too many levels, it would have to be stored and the store fails or is full, or
    /// nobody who wants it has room.
    pub fn publish_for(
        &mut self,
        principal: &Principal,
        parts: &MessageParts<'_>,
        number: u64,
        now: Now,
    ) -> Result<(), ReasonCode> {
        let parts = self.permitted(principal, parts)?;
        if parts.qos != QoS::AtMostOnce
            && !self.shared.store_accepts()
            && self.needs_store(parts.topic, parts.retain, false)
        {
            self.counters.dropped.store_unavailable += 1;
            return Err(ReasonCode::QuotaExceeded);
        }
        let published = self.publish(&parts, now);
        if published.is_refused() {
            return Err(ReasonCode::QuotaExceeded);
        }
        let taken = Taken { number, any: published.any };
        if published.needs_commit {
            self.ticket.releases.push(Release::Outside(taken));
        } else {
            self.taken.push_back(taken);
        }
        Ok(())
    }

    /// The same message with the gate's leave.
    pub(super) fn permitted<'a>(
        &mut self,
        principal: &Principal,
        parts: &MessageParts<'a>,
    ) -> Result<MessageParts<'a>, ReasonCode> {
        if parts.topic.depth() > usize::from(self.limits.topic_levels_max) {
            return Err(ReasonCode::TopicNameInvalid);
        }
        let permit = Permit::judge(&*self.gate, principal, parts.topic).inspect_err(|_| {
            self.counters.dropped.not_authorized += 1;
        })?;
        Ok(MessageParts { topic: permit.topic(), ..*parts })
    }

    /// A message from outside that may be said to be taken; each is named once. To be asked until there is none, at the end of a turn.
    pub fn next_taken(&mut self) -> Option<Taken> {
        self.taken.pop_front()
    }
}
