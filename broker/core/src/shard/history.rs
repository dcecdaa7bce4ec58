//! History: records that a device had stored while it was offline, published in slices that are committed whole.
//!
//! A slice is what happens between two calls of [`Shard::end_turn`]: records, what the desk wants kept with them ([`Shard::keep`]), and a number
//! by which [`Shard::next_taken`] names the slice once all of it is on disk ([`Shard::name_when_kept`]).

use turnpike_mqtt::{QoS, ReasonCode, TopicName};

use super::deliver::Room;
use super::durability::Release;
use super::{Shard, Taken};
use crate::clock::Now;
use crate::durable::Op;
use crate::gate::{Gate, Principal};
use crate::message::MessageParts;

impl<G: Gate> Shard<G> {
    /// Publishes a record as its device, unless a session that is to have it with QoS 1 or 2 hasn't room left below what live messages
    /// need: half of its queue.
    ///
    /// # Errors
    /// [`ReasonCode::QuotaExceeded`] if there is no room, or the store doesn't take it: later. Others: the device may not publish it, ever.
    pub fn publish_record(
        &mut self,
        principal: &Principal,
        parts: &MessageParts<'_>,
        now: Now,
    ) -> Result<(), ReasonCode> {
        let parts = self.permitted(principal, parts)?;
        if parts.qos != QoS::AtMostOnce
            && (!self.shared.store_accepts() || !self.has_room_for_history(parts.topic, parts.qos, parts.payload.len()))
        {
            return Err(ReasonCode::QuotaExceeded);
        }
        let _ = self.publish(&parts, now);
        self.counters.history += 1;
        Ok(())
    }

    /// Has something kept with all else of the open turn.
    pub fn keep(&mut self, op: Op) {
        self.ticket.ops.push(op);
    }

    /// Has [`Self::next_taken`] name a number once all of the open turn is on disk.
    pub fn name_when_kept(&mut self, number: u64) {
        self.ticket.releases.push(Release::Outside(Taken { number, any: true }));
    }

    fn has_room_for_history(&mut self, topic: TopicName<'_>, qos: QoS, bytes: usize) -> bool {
        let mut matches = std::mem::take(&mut self.matches);
        let choice = self.choice;
        self.shared.router.route(topic, choice, &mut matches);
        let has_room = matches.iter().filter(|found| found.qos.min(qos) != QoS::AtMostOnce).all(|found| {
            if found.session.shard == self.id {
                self.queue_has_room(found.session, bytes, Room::Half)
            } else {
                !self.shared.full.contains(found.session)
            }
        });
        self.matches = matches;
        has_room
    }
}

#[cfg(test)]
mod tests;
