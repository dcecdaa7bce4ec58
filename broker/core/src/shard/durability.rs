//! Tickets: what a turn wants committed, and what is said once it is.

use std::collections::VecDeque;

use turnpike_mqtt::{AckKind, PacketId, ReasonCode, encode_ack};

use super::{Shard, touch, writable};
use crate::clock::Now;
use crate::connection::State;
use crate::durable::{Body, Op, Owed, Part};
use crate::gate::Gate;
use crate::ids::{ConnId, MessageId, Seq, SessionKey, ShardId, Ticket, Turn};
use crate::message::Message;
use crate::outgoing::{Entry, Next};

/// The open part of a ticket.
#[derive(Debug, Default)]
pub(super) struct TicketBuffer {
    pub(super) ops: Vec<Op>,
    pub(super) releases: Vec<Release>,
}

/// What may be said once a ticket is on disk. Built when it was decided, so that a commit costs no thought.
#[derive(Debug)]
pub(super) enum Release {
    /// An answer to a publisher.
    Ack { conn: ConnId, serial: u32, kind: AckKind, id: PacketId, reason: ReasonCode },
    /// UNSUBACK.
    Bytes { conn: ConnId, serial: u32, bytes: Box<[u8]> },
    /// SUBACK, and then the keys of its payloads if it asked for them, and the retained messages of these filters.
    Subscribed { conn: ConnId, serial: u32, bytes: Box<[u8]>, retained: Vec<RetainedRequest>, announces: bool },
    /// CONNACK; the connection is live from here on.
    Connected { conn: ConnId, serial: u32, bytes: Box<[u8]> },
    /// An answer to somebody who has no connection here ([`Shard::publish_for`]).
    Outside(super::Taken),
    /// An entry of a session's queue.
    Entry { slot: u32, generation: u32, seq: Seq },
}

/// A filter whose retained messages a new subscription is to have.
#[derive(Clone, Debug)]
pub(super) struct RetainedRequest {
    pub(super) filter: Box<str>,
    pub(super) qos: turnpike_mqtt::QoS,
    pub(super) identifier: u32,
}

impl<G: Gate> Shard<G> {
    /// These tickets are on disk: what waited for them is said, at once.
    pub fn committed(&mut self, tickets: &[Ticket], now: Now) {
        self.note_committed(tickets);
        while self.has_to_say() {
            self.say_committed(usize::MAX, now);
        }
    }

    /// These tickets are on disk: what waited for them is said by [`Self::say_committed`], in their order. Tickets that this shard has no part in
    /// are passed over.
    pub fn note_committed(&mut self, tickets: &[Ticket]) {
        for ticket in tickets {
            let origin = usize::from(ticket.origin.0);
            while let Some(releases) = self.waiting.get_mut(origin).and_then(|queue| pop_through(queue, ticket.turn)) {
                self.sayable.push_back(releases.into_iter());
            }
        }
    }

    /// Says so much of what waited for tickets that are on disk. A group of the committer's may hold thousands, and a turn should be short.
    pub fn say_committed(&mut self, most: usize, now: Now) {
        for _ in 0..most {
            let Some(releases) = self.sayable.front_mut() else { return };
            match releases.next() {
                Some(release) => self.say(release, now),
                None => drop(self.sayable.pop_front()),
            }
        }
    }

    /// Whether something is on disk and hasn't been said.
    #[must_use]
    pub fn has_to_say(&self) -> bool {
        !self.sayable.is_empty()
    }

    fn say(&mut self, release: Release, now: Now) {
        match release {
            Release::Ack { conn, serial, kind, id, reason } => {
                let Some(connection) = self.conns.get_mut(conn.0 as usize).filter(|c| c.serial == serial) else {
                    return;
                };
                connection.awaited -= 1;
                connection.awaited_pubacks -= u32::from(kind == AckKind::PubAck);
                encode_ack(connection.version, kind, id, reason, writable(connection, &mut self.pool));
                self.touch(conn);
                self.resume(conn);
            }
            Release::Bytes { conn, serial, bytes } => {
                if self.settle(conn, serial, &bytes) {
                    self.resume(conn);
                }
            }
            Release::Subscribed { conn, serial, bytes, retained, announces } => {
                if self.settle(conn, serial, &bytes) {
                    self.announce_if(announces, conn);
                    self.send_retained(conn, &retained, now);
                    self.resume(conn);
                }
            }
            Release::Connected { conn, serial, bytes } => {
                if self.settle(conn, serial, &bytes) {
                    self.go_live(conn, now);
                }
            }
            Release::Outside(taken) => self.taken.push_back(taken),
            Release::Entry { slot, generation, seq } => self.release_entry(slot, generation, seq, now),
        }
    }

    /// Writes an answer that has waited; false if its connection is gone or ending.
    fn settle(&mut self, conn: ConnId, serial: u32, bytes: &[u8]) -> bool {
        let Some(connection) = self.conns.get_mut(conn.0 as usize).filter(|c| c.serial == serial) else { return false };
        connection.awaited -= 1;
        if matches!(connection.state, State::Ending) {
            return false;
        }
        self.send_bytes(conn, bytes);
        true
    }

    /// Lets a paused connection be read again.
    pub(super) fn resume(&mut self, conn: ConnId) {
        if let Some(connection) = self.conns.get_mut(conn.0 as usize)
            && connection.paused
            && connection.throttled == 0
            && !connection.handed
            && connection.awaited <= u32::from(self.limits.receive_max)
        {
            connection.paused = false;
            self.resumed.push_back(conn);
        }
    }

    fn release_entry(&mut self, slot: u32, generation: u32, seq: Seq, now: Now) {
        let Some(session) = self.sessions.get_mut(slot).filter(|s| s.generation == generation) else { return };
        if let Some(entry) = session.outgoing.as_mut().and_then(|outgoing| outgoing.finish_withdrawn(seq)) {
            let key = session.key;
            self.counters.queued_messages -= 1;
            self.counters.dropped.not_authorized += u64::from(entry.share.is_none());
            self.record_done(key, seq, entry.message.as_deref());
            self.hand_on(&entry, now);
            self.pump(slot, now);
            return;
        }
        match session.outgoing.as_mut().and_then(|outgoing| outgoing.commit(seq)) {
            Some(Next::Publish(_)) => self.pump(slot, now),
            Some(Next::Release(seq)) => {
                if let Some(conn) = session.conn {
                    self.send_ack(conn, AckKind::PubRel, crate::outgoing::packet_id(seq), ReasonCode::Success);
                }
            }
            None => {}
        }
    }

    /// Adds an answer to the open ticket.
    pub(super) fn await_commit(&mut self, conn: ConnId, release: impl FnOnce(u32) -> Release) {
        let Some(connection) = self.conns.get_mut(conn.0 as usize) else { return };
        connection.awaited += 1;
        let release = release(connection.serial);
        if let Release::Ack { kind: AckKind::PubAck, .. } = release {
            connection.awaited_pubacks += 1;
        }
        self.ticket.releases.push(release);
    }

    /// The origin's own part of the turn's ticket, if the turn needs one.
    pub(super) fn close_ticket(&mut self, durable_batches: u16) -> Option<Part> {
        if self.ticket.ops.is_empty() && self.ticket.releases.is_empty() && durable_batches == 0 {
            return None;
        }
        let TicketBuffer { ops, releases } = std::mem::take(&mut self.ticket);
        let turn = self.turn;
        self.turn = Turn(turn.0 + 1);
        if let Some(queue) = self.waiting.get_mut(usize::from(self.id.0)) {
            queue.push_back((turn, releases));
        }
        Some(Part { ticket: Ticket { origin: self.id, turn }, parts: Some(1 + durable_batches), ops })
    }

    /// This shard's part of another shard's ticket.
    pub(super) fn part_of_foreign(&mut self, origin: ShardId, turn: Turn, ticket: TicketBuffer) -> Part {
        if let Some(queue) = self.waiting.get_mut(usize::from(origin.0)) {
            queue.push_back((turn, ticket.releases));
        }
        Part { ticket: Ticket { origin, turn }, parts: None, ops: ticket.ops }
    }

    /// Records that a durable session is owed a message.
    pub(super) fn record_owed(&mut self, key: SessionKey, seq: Seq, entry: &Entry) {
        let Some(message) = &entry.message else { return };
        let body = match message.shared_id {
            Some(id) => {
                let references = self.bodies.entry(id).or_insert(0);
                *references += 1;
                if *references == 1 {
                    self.ticket.ops.push(Op::MessagePut(id, message.clone()));
                }
                Body::Shared(id, message.clone())
            }
            None => Body::Inline(message.clone()),
        };
        self.ticket.ops.push(Op::OwedPut {
            session: key,
            seq,
            owed: Owed {
                qos: entry.qos,
                retain: entry.retain,
                identifiers: entry.identifiers.as_slice().into(),
                share: entry.share.clone(),
                body,
            },
        });
    }

    /// Records that an owed message is done with.
    pub(super) fn record_done(&mut self, key: Option<SessionKey>, seq: Seq, message: Option<&Message>) {
        if let Some(key) = key {
            self.ticket.ops.push(Op::OwedDelete { session: key, seq });
        }
        self.forget_body(message.and_then(|message| message.shared_id));
    }

    /// One entry fewer refers to a shared body.
    pub(super) fn forget_body(&mut self, id: Option<MessageId>) {
        let Some(id) = id else { return };
        if let Some(references) = self.bodies.get_mut(&id) {
            *references -= 1;
            if *references == 0 {
                self.bodies.remove(&id);
                self.ticket.ops.push(Op::MessageDelete(id));
            }
        }
    }

    /// Encodes an acknowledgement for a connection.
    pub(super) fn send_ack(&mut self, conn: ConnId, kind: AckKind, id: PacketId, reason: ReasonCode) {
        let Some(connection) = self.conns.get_mut(conn.0 as usize) else { return };
        encode_ack(connection.version, kind, id, reason, writable(connection, &mut self.pool));
        touch(connection, conn, &mut self.touched);
    }
}

fn pop_through(queue: &mut VecDeque<(Turn, Vec<Release>)>, turn: Turn) -> Option<Vec<Release>> {
    queue.front().is_some_and(|(first, _)| *first <= turn).then(|| queue.pop_front())?.map(|(_, releases)| releases)
}
