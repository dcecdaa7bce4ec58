//! PUBACK, PUBREC and PUBCOMP of what we sent; PUBREL of what we took.

use turnpike_mqtt::{Ack, AckKind, ReasonCode};

use super::Shard;
use crate::clock::Now;
use crate::durable::Op;
use crate::gate::Gate;
use crate::ids::{ConnId, Seq};
use crate::outgoing::Acked;

impl<G: Gate> Shard<G> {
    fn slot_of(&self, conn: ConnId) -> Option<u32> {
        self.conns.get(conn.0 as usize)?.session
    }

    /// PUBACK: the message is done with. One that names nothing under way is ignored: its exchange has ended some other way.
    pub(super) fn on_puback(&mut self, conn: ConnId, ack: &Ack<'_>, now: Now) -> Result<(), ReasonCode> {
        let Some(slot) = self.slot_of(conn) else { return Ok(()) };
        let Some(session) = self.sessions.get_mut(slot) else { return Ok(()) };
        let Some(outgoing) = session.outgoing.as_mut() else { return Ok(()) };
        match outgoing.puback(ack.id) {
            Acked::Known(seq) => self.finish(slot, seq, now),
            Acked::Unknown | Acked::Again(_) => {}
            Acked::Wrong => return Err(ReasonCode::ProtocolError),
        }
        Ok(())
    }

    /// An exchange is over: the next may begin.
    /// Implements [MQTT-4.4.0-2].
    fn finish(&mut self, slot: u32, seq: Seq, now: Now) {
        let Some(session) = self.sessions.get_mut(slot) else { return };
        let Some(outgoing) = session.outgoing.as_mut() else { return };
        let Some(entry) = outgoing.finish(seq) else { return };
        let waiting = !outgoing.is_caught_up() || session.walks.is_some();
        self.counters.queued_messages -= 1;
        if let Some(key) = session.key {
            self.record_done(Some(key), seq, entry.message.as_deref());
        } else if let Some(message) = &entry.message {
            self.forget_body(message.shared_id);
        }
        if waiting {
            self.pump(slot, now);
        }
    }

    /// PUBREC: PUBREL follows, for a durable session after it is recorded [MQTT-4.3.3-4].
    pub(super) fn on_pubrec(&mut self, conn: ConnId, ack: &Ack<'_>, now: Now) -> Result<(), ReasonCode> {
        let Some(slot) = self.slot_of(conn) else { return Ok(()) };
        let Some(session) = self.sessions.get_mut(slot) else { return Ok(()) };
        let acked = session.outgoing.as_ref().map_or(Acked::Unknown, |outgoing| outgoing.pubrec(ack.id));
        let key = session.key;
        match acked {
            // [MQTT-4.3.3-4] the receiver refuses it: the exchange is over.
            Acked::Known(seq) if ack.reason.is_error() => self.finish(slot, seq, now),
            Acked::Known(seq) => {
                let generation = session.generation;
                let message = session.outgoing.as_mut().and_then(|outgoing| outgoing.release(seq, key.is_some()));
                if let Some(key) = key {
                    self.ticket.ops.push(Op::OwedReleased { session: key, seq });
                    self.forget_body(message.and_then(|message| message.shared_id));
                    self.ticket.releases.push(super::Release::Entry { slot, generation, seq });
                } else {
                    self.send_ack(conn, AckKind::PubRel, ack.id, ReasonCode::Success);
                }
            }
            Acked::Again(seq) => {
                let committed = session.outgoing.as_ref().is_some_and(|outgoing| outgoing.is_released(seq));
                if committed {
                    self.send_ack(conn, AckKind::PubRel, ack.id, ReasonCode::Success);
                }
            }
            Acked::Wrong => return Err(ReasonCode::ProtocolError),
            // An exchange that we know nothing of: the client may end it (MQTT 5: it hears why).
            Acked::Unknown if ack.reason.is_error() => {}
            Acked::Unknown => self.send_ack(conn, AckKind::PubRel, ack.id, ReasonCode::PacketIdentifierNotFound),
        }
        Ok(())
    }

    /// PUBCOMP: the exchange is over.
    pub(super) fn on_pubcomp(&mut self, conn: ConnId, ack: &Ack<'_>, now: Now) -> Result<(), ReasonCode> {
        let Some(slot) = self.slot_of(conn) else { return Ok(()) };
        let Some(session) = self.sessions.get_mut(slot) else { return Ok(()) };
        let Some(outgoing) = session.outgoing.as_mut() else { return Ok(()) };
        match outgoing.pubcomp(ack.id) {
            Acked::Known(seq) => self.finish(slot, seq, now),
            Acked::Unknown | Acked::Again(_) => {}
            Acked::Wrong => return Err(ReasonCode::ProtocolError),
        }
        Ok(())
    }

    /// PUBREL: the client has released its identifier. PUBCOMP waits until that is recorded, since the next message with this
    /// identifier would otherwise be taken for a repetition after a crash [MQTT-4.3.3-11].
    pub(super) fn on_pubrel(&mut self, conn: ConnId, ack: &Ack<'_>) -> Result<(), ReasonCode> {
        let Some(slot) = self.slot_of(conn) else { return Ok(()) };
        let Some(session) = self.sessions.get_mut(slot) else { return Ok(()) };
        let known = session.remove_incoming(ack.id);
        let key = session.key.filter(|_| known);
        if let Some(key) = key {
            self.ticket.ops.push(Op::IncomingDelete { session: key, id: ack.id });
        }
        // One that isn't known has most likely been released before, and its PUBCOMP got lost: the exchange is over either way, and MQTT 5
        // says which (3.7.2.1). MQTT 3 hears no reason.
        let reason = if known { ReasonCode::Success } else { ReasonCode::PacketIdentifierNotFound };
        self.answer(conn, AckKind::PubComp, ack.id, reason, key.is_some());
        Ok(())
    }
}
