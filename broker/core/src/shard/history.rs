//! History: records that a device had stored while it was offline, published in slices that are committed whole.
//!
//! A slice is what happens between two calls of [`Shard::end_turn`]: records, what the desk wants kept with them ([`Shard::keep`]), and a number
//! by which [`Shard::next_taken`] names the slice once all of it is on disk ([`Shard::name_when_kept`]).
//!
//! **Invariant:** only a service's session holds history back. It is a back end, which is to have every record, and the device waits for it. Anybody else's, such as
//! that of a phone that is away, has none of a record for which its half is full, which is counted like a live message that finds a queue full: nobody who may
//! see a device can keep its records from those who gather them.

use std::sync::Arc;

use turnpike_mqtt::{QoS, ReasonCode};

use super::deliver::Room;
use super::durability::Release;
use super::{Shard, Taken};
use crate::clock::Now;
use crate::durable::Op;
use crate::gate::{Gate, Principal};
use crate::ids::SessionRef;
use crate::message::{Message, MessageParts};
use crate::router::Matches;

impl<G: Gate> Shard<G> {
    /// Publishes a record as its device, unless a service's session that is to have it with QoS 1 or 2 hasn't room left below what live messages
    /// need: half of its queue. Sessions of others that have no room are passed over.
    ///
    /// # Errors
    /// [`ReasonCode::QuotaExceeded`] if there is no room, or the store doesn't take it: later. Others: the device may not publish it, ever.
    pub fn publish_record(
        &mut self,
        principal: &Principal,
        message: &Arc<Message>,
        now: Now,
    ) -> Result<(), ReasonCode> {
        let parts = message.parts();
        let permitted = self.permitted(principal, &parts)?;
        if permitted.qos != QoS::AtMostOnce && !self.shared.store_accepts() {
            return Err(ReasonCode::QuotaExceeded);
        }
        let mut matches = std::mem::take(&mut self.matches);
        let choice = self.choose();
        self.shared.router.route(permitted.topic, choice, &mut matches);
        let has_room = permitted.qos == QoS::AtMostOnce || self.has_room_for_history(&matches, &permitted);
        if has_room {
            if permitted.retain {
                self.retain(&permitted, now);
            }
            // The gate may have another name for the topic.
            let kept = (permitted.topic == parts.topic).then_some(message);
            let room = std::mem::replace(&mut self.room, Room::Half);
            let _ = self.hand_to(&matches, &permitted, kept, now);
            self.room = room;
            self.counters.history += 1;
        }
        self.matches = matches;
        if has_room { Ok(()) } else { Err(ReasonCode::QuotaExceeded) }
    }

    /// Has something kept with all else of the open turn.
    pub fn keep(&mut self, op: Op) {
        self.ticket.ops.push(op);
    }

    /// Has [`Self::next_taken`] name a number once all of the open turn is on disk.
    pub fn name_when_kept(&mut self, number: u64) {
        self.ticket.releases.push(Release::Outside(Taken { number, any: true }));
    }

    fn has_room_for_history(&self, matches: &Matches, parts: &MessageParts<'_>) -> bool {
        matches.iter().filter(|found| found.qos.min(parts.qos) != QoS::AtMostOnce).all(|found| {
            if found.session.shard == self.id {
                !self.waits_for(found.session) || self.queue_has_room(found.session, parts.payload.len(), Room::Half)
            } else {
                !self.shared.full.holds_back(found.session)
            }
        })
    }

    /// Whether history waits for a session of this shard.
    fn waits_for(&self, session: SessionRef) -> bool {
        let found = self.sessions.get(session.slot).filter(|found| found.generation == session.generation);
        found.is_some_and(|found| holds_history_back(&found.principal))
    }
}

/// Whether history waits until a session of this one has room.
pub(super) fn holds_history_back(principal: &Principal) -> bool {
    matches!(principal, Principal::Service(_))
}

#[cfg(test)]
mod tests;
