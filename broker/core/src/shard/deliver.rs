//! Deliver-out: a message into a session, and a session's queue onto its connection.

use std::sync::Arc;

use turnpike_mqtt::{AckKind, Delivery, PacketId, QoS, ReasonCode, Version, delivery_len, encode_ack, encode_delivery};

use super::durability::Release;
use super::history::holds_history_back;
use super::{Shard, touch, writable};
use crate::batch::{Batch, Recipient};
use crate::clock::Now;
use crate::connection::{Connection, Sealing};
use crate::counters::Counters;
use crate::gate::Gate;
use crate::ids::{MessageId, SessionRef};
use crate::limits::Limits;
use crate::message::{Message, MessageParts};
use crate::outgoing::{Entry, Identifiers, Next, Outgoing, Phase, packet_id};
use crate::session::queue_of;
use crate::shared::Shared;

/// The one kept copy of a message that several sessions of a shard share, made when the first of them needs it.
#[derive(Debug)]
pub(super) struct Kept {
    message: Option<Arc<Message>>,
    /// Several durable sessions are owed it: its body is stored once.
    shared_body: bool,
}

impl Kept {
    pub(super) fn new(shared_body: bool) -> Self {
        Self { message: None, shared_body }
    }

    /// A message that is kept already.
    pub(super) fn of(message: &Arc<Message>) -> Self {
        Self { message: Some(Arc::clone(message)), shared_body: false }
    }

    fn message(&mut self, parts: &MessageParts<'_>, shared: &Shared) -> Arc<Message> {
        let shared_body = self.shared_body;
        Arc::clone(self.message.get_or_insert_with(|| {
            let mut message = Message::new(parts);
            message.shared_id = shared_body.then(|| -> MessageId { shared.new_message_id() });
            Arc::new(message)
        }))
    }
}

/// How far a queue may be filled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Room {
    /// To half of its bounds: the rest is for live messages.
    Half,
    /// To its bounds: the publisher hears at once if it is full.
    Bounds,
    /// A quarter beyond: what was under way between shards when it became full has been, or will be, acknowledged.
    Overrun,
}

/// What became of a delivery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// Sent, queued, or nobody's any more.
    Taken,
    /// Thrown away: the session's queue is full.
    Full,
}

/// Full sessions looked at again at the end of a turn.
pub(super) const FULL_LOOKS: usize = 64;

/// One PUBLISH to encode.
struct Sending<'a> {
    parts: &'a MessageParts<'a>,
    qos: QoS,
    retain: bool,
    dup: bool,
    id: Option<PacketId>,
    identifiers: &'a [u32],
}

/// What became of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sent {
    Yes,
    /// [MQTT-3.3.2-5]
    Expired,
    /// [MQTT-3.1.2-24]
    TooLarge,
}

impl<G: Gate> Shard<G> {
    /// Everything of a batch to its sessions.
    pub(super) fn deliver_batch(&mut self, batch: &Batch, now: Now) {
        let durable = batch.turn.is_some();
        batch.for_each(|parts, recipients| {
            let mut kept = Kept::new(durable && recipients.size_hint().0 > 1);
            for recipient in recipients {
                self.deliver_one(parts, &mut kept, &recipient, Room::Overrun, now);
            }
        });
    }

    /// One message to one session of this shard.
    #[inline]
    pub(super) fn deliver_one(
        &mut self,
        parts: &MessageParts<'_>,
        kept: &mut Kept,
        to: &Recipient<'_>,
        room: Room,
        now: Now,
    ) -> Fate {
        if to.qos == QoS::AtMostOnce && self.deliver_at_once(parts, to, now) {
            return Fate::Taken;
        }
        self.owe(parts, kept, to, room, now)
    }

    /// Whether a session of this shard could take so many bytes more.
    pub(super) fn queue_has_room(&self, session: SessionRef, bytes: usize, room: Room) -> bool {
        let found = self.sessions.get(session.slot).filter(|found| found.generation == session.generation);
        let outgoing = found.and_then(|found| found.outgoing.as_deref());
        outgoing.is_none_or(|outgoing| has_room(outgoing, bytes, &self.limits, room))
    }

    /// One message of QoS 0; false if it must wait for room.
    fn deliver_at_once(&mut self, parts: &MessageParts<'_>, to: &Recipient<'_>, now: Now) -> bool {
        let Some(session) = self.sessions.get(to.slot).filter(|s| s.generation == to.generation) else { return true };
        // [MQTT-4.3.1-1] without a connection a QoS 0 message has nowhere to go.
        let Some(conn) = session.conn else { return true };
        let Some(connection) = self.conns.get_mut(conn.0 as usize).filter(|connection| connection.is_live()) else {
            return true;
        };
        let waiting = session.outgoing.as_ref().is_some_and(|outgoing| !outgoing.transient.is_empty());
        if waiting || !connection.has_room(self.limits.out_bytes_high as usize) {
            return false;
        }
        let sending = Sending {
            parts,
            qos: QoS::AtMostOnce,
            retain: to.retain,
            dup: false,
            id: None,
            identifiers: to.identifiers,
        };
        note(send_publish(connection, &mut self.pool, &mut self.counters, &sending, now), &mut self.counters);
        touch(connection, conn, &mut self.touched);
        if connection.sealing != Sealing::Never {
            self.renew_keys(conn, now);
        }
        true
    }

    /// One message into a session's queue, and onto its connection if it is its turn.
    fn owe(&mut self, parts: &MessageParts<'_>, kept: &mut Kept, to: &Recipient<'_>, room: Room, now: Now) -> Fate {
        let Some(session) = self.sessions.get_mut(to.slot).filter(|s| s.generation == to.generation) else {
            return Fate::Taken;
        };
        let connection = match session.conn {
            Some(conn) => self.conns.get_mut(conn.0 as usize).filter(|connection| connection.is_live()),
            None => None,
        };
        let high = self.limits.out_bytes_high as usize;
        let outgoing = queue_of(&mut session.outgoing, session.next_seq);
        if room == Room::Half
            && !holds_history_back(&session.principal)
            && !has_room(outgoing, parts.payload.len(), &self.limits, room)
        {
            // History has been waited for where it is to be.
            self.counters.dropped.queue_full += 1;
            return Fate::Full;
        }
        if !has_room(outgoing, parts.payload.len(), &self.limits, Room::Bounds) {
            if self.shards > 1 && !is_low(outgoing, &self.limits) {
                let full = SessionRef { shard: self.id, slot: to.slot, generation: to.generation };
                if self.shared.full.mark(full, holds_history_back(&session.principal)) {
                    self.full.push_back(full);
                }
            }
            if room == Room::Bounds || !has_room(outgoing, parts.payload.len(), &self.limits, room) {
                self.counters.dropped.queue_full += 1;
                return Fate::Full;
            }
        }
        let mut entry = Entry {
            message: None,
            share: to.share.cloned(),
            identifiers: Identifiers::from_slice(to.identifiers),
            qos: to.qos,
            retain: to.retain,
            phase: Phase::Ready,
            dup: false,
        };
        self.counters.queued_messages += 1;
        if to.qos == QoS::AtMostOnce {
            entry.message = Some(kept.message(parts, &self.shared));
            outgoing.push_transient(entry);
            return Fate::Taken;
        }
        if let Some(key) = session.key {
            entry.phase = Phase::AwaitingCommit;
            entry.message = Some(kept.message(parts, &self.shared));
            let seq = outgoing.push(entry.clone());
            let (slot, generation) = (to.slot, to.generation);
            self.record_owed(key, seq, &entry);
            self.ticket.releases.push(Release::Entry { slot, generation, seq });
            return Fate::Taken;
        }
        // The session ends with its connection, so nothing is sent twice, and the bytes needn't be kept once they are encoded.
        if let (Some(connection), Some(conn)) = (connection, session.conn)
            && to.share.is_none()
            && outgoing.is_caught_up()
            && outgoing.has_window(connection.window)
            && connection.has_room(high)
        {
            let id = Some(packet_id(outgoing.next_seq()));
            let sending =
                Sending { parts, qos: to.qos, retain: to.retain, dup: false, id, identifiers: to.identifiers };
            let sent = send_publish(connection, &mut self.pool, &mut self.counters, &sending, now);
            if sent == Sent::Yes {
                outgoing.push_sent(entry);
                touch(connection, conn, &mut self.touched);
            } else {
                self.counters.queued_messages -= 1;
                note(sent, &mut self.counters);
            }
            if connection.sealing != Sealing::Never {
                self.renew_keys(conn, now);
            }
            return Fate::Taken;
        }
        entry.message = Some(kept.message(parts, &self.shared));
        outgoing.push(entry);
        self.pump(to.slot, now);
        Fate::Taken
    }

    /// Takes the marks from full sessions that have room again or are gone. Looks at `most` and goes on from there the next time.
    pub(super) fn look_at_full(&mut self, most: usize) {
        for _ in 0..most.min(self.full.len()) {
            let Some(full) = self.full.pop_front() else { return };
            let session = self.sessions.get(full.slot).filter(|session| session.generation == full.generation);
            let outgoing = session.and_then(|session| session.outgoing.as_ref());
            if outgoing.is_some_and(|outgoing| !is_low(outgoing, &self.limits)) {
                self.full.push_back(full);
            } else {
                self.shared.full.clear(full);
            }
        }
    }

    /// Whether a session has something that could be sent, given room.
    pub(super) fn has_backlog(&self, slot: u32) -> bool {
        let Some(session) = self.sessions.get(slot) else { return false };
        let queued = session.outgoing.as_ref().is_some_and(|o| !o.is_caught_up() || !o.transient.is_empty());
        queued || session.walks.is_some()
    }

    /// Sends what a session is owed, as far as its window and its connection's buffer allow.
    /// Implements [MQTT-3.1.2-25] [MQTT-3.3.4-10] [MQTT-4.9.0-3].
    pub(super) fn pump(&mut self, slot: u32, now: Now) {
        let high = self.limits.out_bytes_high as usize;
        let mut dropped = Vec::new();
        let Some(session) = self.sessions.get_mut(slot) else { return };
        let (Some(conn), Some(outgoing)) = (session.conn, session.outgoing.as_mut()) else { return };
        let Some(connection) = self.conns.get_mut(conn.0 as usize).filter(|connection| connection.is_live()) else {
            return;
        };
        let before = outgoing.messages();
        while connection.has_room(high) {
            match outgoing.next(connection.window) {
                None => break,
                Some(Next::Release(seq)) => {
                    let version = connection.version;
                    let out = writable(connection, &mut self.pool);
                    encode_ack(version, AckKind::PubRel, packet_id(seq), ReasonCode::Success, out);
                    outgoing.mark_sent(seq);
                }
                Some(Next::Publish(seq)) => {
                    let sent = outgoing.peek(seq).and_then(|entry| {
                        let parts = entry.message.as_ref()?.parts();
                        let sending = Sending {
                            parts: &parts,
                            qos: entry.qos,
                            retain: entry.retain,
                            dup: entry.dup,
                            id: Some(packet_id(seq)),
                            identifiers: &entry.identifiers,
                        };
                        Some(send_publish(connection, &mut self.pool, &mut self.counters, &sending, now))
                    });
                    if sent == Some(Sent::Yes) {
                        outgoing.mark_sent(seq);
                    } else {
                        note(sent.unwrap_or(Sent::Expired), &mut self.counters);
                        dropped.extend(outgoing.finish(seq).map(|entry| (seq, entry)));
                    }
                }
            }
        }
        while connection.has_room(high) {
            let Some(entry) = outgoing.pop_transient() else { break };
            if let Some(message) = &entry.message {
                let parts = message.parts();
                let (qos, retain, identifiers) = (QoS::AtMostOnce, entry.retain, entry.identifiers.as_slice());
                let sending = Sending { parts: &parts, qos, retain, dup: false, id: None, identifiers };
                note(send_publish(connection, &mut self.pool, &mut self.counters, &sending, now), &mut self.counters);
            }
        }
        self.counters.queued_messages -= (before - outgoing.messages()) as u64;
        touch(connection, conn, &mut self.touched);
        let is_sealed = connection.sealing != Sealing::Never;
        let key = session.key;
        for (seq, entry) in dropped {
            self.record_done(key, seq, entry.message.as_deref());
        }
        if is_sealed {
            self.renew_keys(conn, now);
        }
        if self.may_walk(slot) {
            self.walk_later(slot);
        }
    }
}

/// Whether a message of so many bytes may be queued.
fn has_room(outgoing: &Outgoing, bytes: usize, limits: &Limits, room: Room) -> bool {
    let bound = |most: u32| match room {
        Room::Half => most as usize / 2,
        Room::Bounds => most as usize,
        Room::Overrun => most as usize + most as usize / 4,
    };
    outgoing.messages() < bound(limits.queued_messages_max) && outgoing.bytes() + bytes < bound(limits.queued_bytes_max)
}

/// Whether a full queue has emptied so far, by a sixteenth, that it counts as full no more.
fn is_low(outgoing: &Outgoing, limits: &Limits) -> bool {
    let low = |most: u32| most as usize - most as usize / 16;
    outgoing.messages() < low(limits.queued_messages_max) && outgoing.bytes() < low(limits.queued_bytes_max)
}

fn note(sent: Sent, counters: &mut Counters) {
    match sent {
        Sent::Yes => {}
        Sent::Expired => counters.dropped.expired += 1,
        Sent::TooLarge => counters.dropped.too_large += 1,
    }
}

/// Encodes one PUBLISH into a connection's buffer.
/// Implements [MQTT-3.3.1-3] [MQTT-4.3.2-2] [MQTT-4.3.3-2] [MQTT-4.3.3-13].
fn send_publish(
    connection: &mut Connection,
    pool: &mut Vec<Vec<u8>>,
    counters: &mut Counters,
    sending: &Sending<'_>,
    now: Now,
) -> Sent {
    let parts = sending.parts;
    let message_expiry_s = match parts.expires_at_ms {
        // [MQTT-3.3.2-6] what is left of it; a second that has begun counts whole.
        Some(expires_at_ms) => match expires_at_ms.saturating_sub(now.unix_ms).div_ceil(1000) {
            // [MQTT-4.3.3-7] what was sent once is brought to its end, expired or not.
            0 if !sending.dup => return Sent::Expired,
            left_s => Some(u32::try_from(left_s).unwrap_or(u32::MAX)),
        },
        None => None,
    };
    let mut delivery = Delivery {
        dup: sending.dup,
        qos: sending.qos,
        retain: sending.retain,
        topic: parts.topic,
        topic_alias: None,
        omit_topic: false,
        id: sending.id,
        message_expiry_s,
        identifiers: sending.identifiers,
        forwardable: parts.properties,
        payload: parts.payload,
    };
    let version = connection.version;
    let sealed;
    if connection.sealing != Sealing::Never {
        // What is sent again is sealed again: on another connection the old keys are void.
        let Some(bytes) = seal(connection, parts) else { return Sent::Expired };
        sealed = bytes;
        delivery.payload = &sealed;
    }
    if version == Version::V5
        && let Some(extras) = connection.extras.as_mut()
        && extras.aliases_out_max > 0
    {
        (delivery.topic_alias, delivery.omit_topic) = extras.alias_out(parts.topic);
    }
    if connection.packet_bytes_max != u32::MAX
        && delivery_len(version, &delivery) > connection.packet_bytes_max as usize
    {
        return Sent::TooLarge;
    }
    counters.sent.count(sending.qos, parts.payload.len());
    encode_delivery(version, &delivery, writable(connection, pool));
    Sent::Yes
}

/// The payload as a device without TLS is to have it; none if there are no keys, which nothing is sent without.
#[cold]
fn seal(connection: &mut Connection, parts: &MessageParts<'_>) -> Option<Vec<u8>> {
    let sealer = connection.extras.as_mut()?.sealer.as_mut()?;
    sealer.cipher.seal(parts.topic.as_str(), parts.payload)
}
