//! Sealed payloads: keys at CONNECT or with a hello, and their renewal. Only connections that have a cipher come here.
//!
//! A payload that doesn't open is dropped, and its PUBLISH answered. MQTT 5 hears why; MQTT 3 hears that it was taken, since it would repeat
//! anything else as it is, on each connection that it makes, and it would be as void there.

use smallvec::SmallVec;
use turnpike_mqtt::{
    AckKind, Connect, ConnectReason, Delivery, Publish, QoS, ReasonCode, Subscribe, TopicName, Version, delivery_len,
    encode_delivery,
};

use super::lifecycle::{Leaving, Timer};
use super::{Shard, touch, writable};
use crate::cipher::{Announcement, PayloadCipher};
use crate::clock::Now;
use crate::connection::{Connection, Sealer, Sealing};
use crate::gate::Gate;
use crate::ids::ConnId;

type Cipher = Box<dyn PayloadCipher>;

impl<G: Gate> Shard<G> {
    /// Makes the keys of a connection that is about to be let in.
    pub(super) fn begin_cipher(
        &mut self,
        connect: &Connect<'_>,
        cipher: Option<Cipher>,
        now: Now,
    ) -> Result<Option<Cipher>, ConnectReason> {
        let Some(mut cipher) = cipher else { return Ok(None) };
        cipher.begin(connect.properties.user, now, &mut self.entropy)?;
        Ok(Some(cipher))
    }

    /// From now on the connection's payloads are sealed.
    pub(super) fn give_cipher(&mut self, conn: ConnId, cipher: Option<Cipher>) {
        let (Some(cipher), Some(connection)) = (cipher, self.conns.get_mut(conn.0 as usize)) else { return };
        connection.sealing = if cipher.is_ready() { Sealing::On } else { Sealing::AwaitingHello };
        let sealer = Box::new(Sealer { cipher, armed_ms: SmallVec::new() });
        connection.extras.get_or_insert_default().sealer = Some(sealer);
    }

    fn sealer(&mut self, conn: ConnId) -> Option<&mut Sealer> {
        self.conns.get_mut(conn.0 as usize)?.extras.as_mut()?.sealer.as_deref_mut()
    }

    /// The payload of a PUBLISH that may be published; none if it isn't to be routed, and has been answered.
    #[cold]
    pub(super) fn open_payload(
        &mut self,
        conn: ConnId,
        publish: &Publish<'_>,
        topic: TopicName<'_>,
        now: Now,
    ) -> Option<Vec<u8>> {
        let topic = topic.as_str();
        let opened = match self.sealer(conn) {
            Some(sealer) if sealer.cipher.is_key_topic(topic) => {
                self.on_hello(conn, publish, now);
                return None;
            }
            Some(sealer) => sealer.cipher.open(topic, publish.payload, now),
            None => Err(ReasonCode::UnspecifiedError),
        };
        // It may have been the last of its epoch, or of one that is over.
        self.renew_keys(conn, now);
        match opened {
            Ok(payload) => Some(payload),
            Err(reason) => {
                self.answer_dropped(conn, publish, reason);
                None
            }
        }
    }

    fn on_hello(&mut self, conn: ConnId, publish: &Publish<'_>, now: Now) {
        let Some(connection) = self.conns.get_mut(conn.0 as usize) else { return };
        let Some(sealer) = connection.extras.as_mut().and_then(|extras| extras.sealer.as_mut()) else { return };
        match sealer.cipher.hello(publish.payload, now, &mut self.entropy) {
            Err(reason) => self.answer_dropped(conn, publish, reason),
            Ok(()) => {
                connection.sealing = Sealing::On;
                let slot = connection.session;
                self.acknowledge_unrouted(conn, publish);
                self.renew_keys(conn, now);
                // What waited for keys.
                if let Some(slot) = slot {
                    self.pump(slot, now);
                }
            }
        }
    }

    fn answer_dropped(&mut self, conn: ConnId, publish: &Publish<'_>, reason: ReasonCode) {
        match publish.id {
            Some(id) if self.version(conn) == Version::V5 && reason.is_error() => {
                // [MQTT-4.3.3-9] a PUBREC of 0x80 or more ends the exchange: the identifier isn't kept.
                let kind = if publish.qos == QoS::ExactlyOnce { AckKind::PubRec } else { AckKind::PubAck };
                self.answer(conn, kind, id, reason, false);
            }
            _ => self.acknowledge_unrouted(conn, publish),
        }
    }

    /// Announces what is to be announced, and sets a timer for what comes next.
    pub(super) fn renew_keys(&mut self, conn: ConnId, now: Now) {
        let Some(connection) = self.conns.get(conn.0 as usize) else { return };
        if connection.sealing != Sealing::On || !connection.is_live() {
            return;
        }
        let serial = connection.serial;
        while let Some(announcement) = self.sealer(conn).and_then(|sealer| sealer.cipher.poll(now)) {
            self.send_announcement(conn, &announcement);
        }
        let Some(sealer) = self.sealer(conn) else { return };
        let Some(due_ms) = sealer.cipher.deadline_ms() else { return };
        if sealer.armed_ms.last().is_none_or(|armed_ms| due_ms < *armed_ms) {
            sealer.armed_ms.push(due_ms);
            self.wheel.insert(due_ms, Timer::Keys { conn, serial });
        }
    }

    /// A timer has fired, for what was due then; it may be done by now.
    pub(super) fn keys_due(&mut self, conn: ConnId, serial: u32, now: Now) {
        if self.conns.get(conn.0 as usize).is_none_or(|connection| connection.serial != serial) {
            return;
        }
        if let Some(sealer) = self.sealer(conn) {
            sealer.armed_ms.pop();
        }
        self.renew_keys(conn, now);
    }

    /// Whether a SUBSCRIBE asks for what is announced.
    pub(super) fn covers_keys(&mut self, conn: ConnId, subscribe: &Subscribe<'_>) -> bool {
        let Some(sealer) = self.sealer(conn) else { return false };
        let topic = sealer.cipher.key_topic();
        let topic = TopicName::from_validated(&topic);
        subscribe.filters.iter().any(|(filter, _)| filter.share().is_none() && filter.matches(topic))
    }

    /// Announces the current keys once more, to a device that has just subscribed.
    pub(super) fn announce_if(&mut self, announces: bool, conn: ConnId) {
        if announces && let Some(announcement) = self.sealer(conn).and_then(|sealer| sealer.cipher.announce()) {
            self.send_announcement(conn, &announcement);
        }
    }

    fn send_announcement(&mut self, conn: ConnId, announcement: &Announcement) {
        let Some(connection) = self.conns.get_mut(conn.0 as usize) else { return };
        let delivery = Delivery {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            topic: TopicName::from_validated(&announcement.topic),
            topic_alias: None,
            omit_topic: false,
            id: None,
            message_expiry_s: None,
            identifiers: &[],
            forwardable: &[],
            payload: &announcement.payload,
        };
        let version = connection.version;
        if delivery_len(version, &delivery) > connection.packet_bytes_max as usize {
            // [MQTT-3.1.2-24] such a client can't be talked to.
            self.counters.dropped.too_large += 1;
            return;
        }
        self.counters.sent.count(QoS::AtMostOnce, announcement.payload.len());
        encode_delivery(version, &delivery, writable(connection, &mut self.pool));
        touch(connection, conn, &mut self.touched);
    }

    /// Whether a session's connection is sealed and shouldn't be any more, or the other way round.
    pub(super) fn has_other_terms(&self, slot: u32) -> bool {
        let Some(session) = self.sessions.get(slot) else { return false };
        let Some(connection) = session.conn.and_then(|conn| self.conns.get(conn.0 as usize)) else { return false };
        self.gate.seals(&session.principal, connection.tls) != (connection.sealing != Sealing::Never)
    }

    /// Ends a connection that was made on other terms.
    pub(super) fn end_for_other_terms(&mut self, slot: u32, now: Now) {
        let Some(conn) = self.sessions.get(slot).and_then(|session| session.conn) else { return };
        if self.conns.get(conn.0 as usize).is_some_and(Connection::is_live) {
            self.say_disconnect(conn, ReasonCode::AdministrativeAction);
        }
        self.detach(conn, Leaving::Abruptly, now);
        self.end(conn);
    }
}

#[cfg(test)]
mod tests;
