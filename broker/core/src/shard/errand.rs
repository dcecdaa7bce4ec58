//! Messages that a desk of the broker's own is to have: checks for firmware, progress, stored data.
//!
//! ```text
//! PUBLISH ─▶ gate: Handed ─▶ next_errand ─▶ the shell, a desk ─▶ errand_done ─▶ PUBACK or PUBREC, after what is being committed
//!                               └── the connection closes meanwhile: the desk's answer finds nobody
//! ```
//!
//! Meanwhile the connection isn't read. So a client has one errand under way at most, its acknowledgements keep their order
//! [MQTT-4.6.0-2], and a desk that is slow slows down those who come to it and nobody else.

use std::sync::Arc;

use turnpike_mqtt::{AckKind, PacketId, Publish, QoS, ReasonCode, SubscribeOptions, TopicFilter, TopicName, Version};

use super::Shard;
use crate::clock::Now;
use crate::durable::Op;
use crate::gate::{DeviceIdentity, Gate};
use crate::ids::ConnId;
use crate::message::{Message, MessageParts};

/// Which connection an errand is of: this one and no other that gets its place.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ErrandId {
    conn: ConnId,
    serial: u32,
}

/// A message for a desk, which answers it once, by [`Shard::errand_done`].
#[derive(Debug)]
#[must_use]
pub struct Errand {
    /// Goes with the answer.
    pub id: ErrandId,
    /// Whose message it is.
    pub device: Arc<DeviceIdentity>,
    /// What MQTT the device speaks.
    pub version: Version,
    /// Whether nobody on the way can read what is answered: the device's connection is under TLS, or its payloads are sealed.
    pub private: bool,
    /// The message, its payload in the clear.
    pub message: Arc<Message>,
}

/// What is to be acknowledged when the desk is done.
#[derive(Debug)]
pub(super) struct Handed {
    serial: u32,
    bytes: usize,
    ack: Option<(AckKind, PacketId)>,
    /// It was routed as well, and that is being committed.
    needs_commit: bool,
}

impl<G: Gate> Shard<G> {
    /// An errand of this turn. To be asked until there is none.
    pub fn next_errand(&mut self) -> Option<Errand> {
        self.errands.pop_front()
    }

    /// Errands under way, and their bytes.
    #[must_use]
    pub fn errands_under_way(&self) -> (usize, usize) {
        (self.handed.len(), self.handed_bytes)
    }

    /// Takes a message for a desk. An error ends the connection with that reason.
    pub(super) fn hand_over(
        &mut self,
        conn: ConnId,
        (publish, parts): (&Publish<'_>, &MessageParts<'_>),
        (device, routed): (Arc<DeviceIdentity>, bool),
        now: Now,
    ) -> Result<(), ReasonCode> {
        let bytes = parts.topic.as_str().len() + parts.properties.len() + parts.payload.len();
        let is_full = self.handed.len() >= self.limits.errands_max as usize
            || self.handed_bytes + bytes > self.limits.errand_bytes_max as usize;
        if is_full {
            self.counters.dropped.desk_full += 1;
            return self.refuse_publish(conn, publish, ReasonCode::QuotaExceeded);
        }
        let needs_commit = routed && self.publish(parts, now).needs_commit;
        let Some(connection) = self.conns.get_mut(conn.0 as usize) else { return Ok(()) };
        connection.handed = true;
        let ack = publish.id.map(|id| match publish.qos {
            QoS::ExactlyOnce => (AckKind::PubRec, id),
            QoS::AtLeastOnce | QoS::AtMostOnce => (AckKind::PubAck, id),
        });
        let serial = connection.serial;
        self.handed_bytes += bytes;
        self.handed.insert(conn, Handed { serial, bytes, ack, needs_commit });
        self.counters.errands += 1;
        self.errands.push_back(Errand {
            id: ErrandId { conn, serial },
            device,
            version: connection.version,
            private: connection.tls || connection.sealing != crate::connection::Sealing::Never,
            message: Arc::new(Message::new(parts)),
        });
        Ok(())
    }

    /// Subscribes the client whose errand it is, at QoS 1, before its desk is done: there are SDKs that rely on a server which knows what answers they
    /// want, and subscribe to none themselves. A topic that one of the client's own filters matches stays with that one; one that it may not read is left out.
    pub fn subscribe_errand(&mut self, id: ErrandId, topics: &[Box<str>]) {
        let ErrandId { conn, serial } = id;
        if self.handed.get(&conn).is_none_or(|handed| handed.serial != serial) {
            return;
        }
        let Some(slot) = self.conns.get(conn.0 as usize).and_then(|connection| connection.session) else { return };
        for topic in topics.iter().filter_map(|topic| TopicName::parse(topic).ok()) {
            let Some(session) = self.sessions.get(slot) else { return };
            let mut known = session.subscriptions.iter().map(|known| TopicFilter::from_validated(&known.filter));
            if known.any(|filter| filter.share().is_none() && filter.matches(topic)) {
                continue;
            }
            let options = SubscribeOptions::qos(QoS::AtLeastOnce);
            // A session that has no room for it has told what it wants itself.
            let _ = TopicFilter::parse(topic.as_str()).map(|filter| self.subscribe_one(slot, filter, options, 0));
        }
    }

    /// The desk is done: the message is acknowledged, or refused as the gate refuses one. What the desk has had committed by this shard before
    /// is on disk before the acknowledgement leaves if `needs_commit`. An errand of a connection that is gone is dropped.
    pub fn errand_done(&mut self, id: ErrandId, outcome: Result<(), ReasonCode>, needs_commit: bool, now: Now) {
        let ErrandId { conn, serial } = id;
        if self.handed.get(&conn).is_none_or(|handed| handed.serial != serial) {
            return;
        }
        let Some(handed) = self.forget_errand(conn) else { return };
        let Some(connection) = self.conns.get_mut(conn.0 as usize) else { return };
        connection.handed = false;
        // It could not be heard meanwhile.
        connection.last_heard_ms = now.mono_ms;
        if connection.is_live() {
            self.acknowledge_errand(conn, &handed, outcome, needs_commit, now);
        }
        self.resume(conn);
    }

    fn acknowledge_errand(
        &mut self,
        conn: ConnId,
        handed: &Handed,
        outcome: Result<(), ReasonCode>,
        needs_commit: bool,
        now: Now,
    ) {
        let Some((kind, id)) = handed.ack else { return };
        let needs_commit = needs_commit || handed.needs_commit;
        match outcome {
            Ok(()) => {
                let kept = kind == AckKind::PubRec && self.note_incoming(conn, id);
                self.answer(conn, kind, id, ReasonCode::Success, needs_commit || kept);
            }
            Err(reason) if self.version(conn) == Version::V5 => self.answer(conn, kind, id, reason, false),
            // To acknowledge what wasn't taken would be a lie; MQTT 3 has no other way to say no.
            Err(reason) => self.fail(conn, reason, now),
        }
    }

    /// Keeps a QoS 2 identifier until PUBREL; true if that is to be committed.
    fn note_incoming(&mut self, conn: ConnId, id: PacketId) -> bool {
        let slot = self.conns.get(conn.0 as usize).and_then(|connection| connection.session);
        let Some(session) = slot.and_then(|slot| self.sessions.get_mut(slot)) else { return false };
        session.add_incoming(id);
        let Some(key) = session.key else { return false };
        self.ticket.ops.push(Op::IncomingPut { session: key, id });
        true
    }

    /// The errand of a connection that ends, or is done.
    pub(super) fn forget_errand(&mut self, conn: ConnId) -> Option<Handed> {
        let handed = self.handed.remove(&conn)?;
        self.handed_bytes -= handed.bytes;
        Some(handed)
    }
}

#[cfg(test)]
mod tests;
