//! How connections and sessions end: DISCONNECT, errors, take-over, wills, expiry, drain; and the timers.

use std::sync::Arc;

use turnpike_mqtt::{
    ConnAck, ConnAckProperties, ConnectReason, Disconnect, DisconnectProperties, Packet, QoS, ReasonCode, TopicFilter,
    Version,
};

use super::Shard;
use super::deliver::Kept;
use crate::batch::Recipient;
use crate::clock::Now;
use crate::connection::State;
use crate::durable::Op;
use crate::gate::{Departure, Gate, Passage, Principal, Visit};
use crate::ids::{ConnId, SessionRef};
use crate::message::{Message, MessageParts};
use crate::outgoing::{Entry, Phase};
use crate::session::{Session, Will};

/// How often expired retained messages are looked for, in milliseconds.
pub(super) const SWEEP_MS: u64 = 1_000;
/// Retained messages looked at in one sweep.
const SWEEP_MESSAGES: usize = 10_000;

/// A timer. Nothing cancels one: when it fires, it is held against what is true by then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Timer {
    /// A whole CONNECT must have come.
    Connect { conn: ConnId, serial: u32 },
    /// An answer from outside must have come.
    Answer { conn: ConnId, serial: u32 },
    /// Something must have come within 1.5 × keep alive [MQTT-3.1.2-22].
    KeepAlive { conn: ConnId, serial: u32 },
    /// A session without a connection: its will or its end is due.
    Session { slot: u32, generation: u32 },
    /// What let it in is good until then.
    Authentication { conn: ConnId, serial: u32 },
    /// Expired retained messages go.
    Sweep,
}

/// How a client leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Leaving {
    /// DISCONNECT 0x00: the will is discarded [MQTT-3.14.4-3].
    Cleanly,
    /// Any other way: the will is published.
    Abruptly,
    /// The same client has connected again and goes on with the session: the will is deleted, since the new connection was
    /// opened before any delay was over [MQTT-3.1.2-8].
    TakenOver,
    /// The same client has connected again, and its session doesn't go on: the will is published.
    Replaced,
}

impl From<Leaving> for Departure {
    fn from(leaving: Leaving) -> Self {
        match leaving {
            Leaving::Cleanly => Self::Cleanly,
            Leaving::Abruptly => Self::Abruptly,
            Leaving::TakenOver | Leaving::Replaced => Self::TakenOver,
        }
    }
}

impl<G: Gate> Shard<G> {
    /// DISCONNECT from the client.
    pub(super) fn on_disconnect(
        &mut self,
        conn: ConnId,
        disconnect: &Disconnect<'_>,
        now: Now,
    ) -> Result<(), ReasonCode> {
        let Some(slot) = self.conns.get(conn.0 as usize).and_then(|connection| connection.session) else {
            return Ok(());
        };
        if let Some(session) = self.sessions.get_mut(slot)
            && let Some(expiry_s) = disconnect.properties.session_expiry_s
        {
            if session.expiry_s == 0 && expiry_s != 0 {
                // MQTT 5, 3.14.2.2.2
                return Err(ReasonCode::ProtocolError);
            }
            session.expiry_s = expiry_s.min(self.limits.session_expiry_max_s);
        }
        let leaving = if disconnect.reason == ReasonCode::Success { Leaving::Cleanly } else { Leaving::Abruptly };
        self.detach(conn, leaving, now);
        self.end(conn);
        Ok(())
    }

    /// Ends a connection for what its peer did: MQTT 5 is told why, before CONNACK by CONNACK [MQTT-4.13.1-1].
    pub(super) fn fail(&mut self, conn: ConnId, reason: ReasonCode, now: Now) {
        let Some(connection) = self.conns.get(conn.0 as usize) else { return };
        if reason != ReasonCode::KeepAliveTimeout {
            self.counters.protocol_errors += 1;
        }
        match connection.state {
            State::Opened | State::Challenged(_) | State::Asking(_) | State::Settling | State::Ending => {}
            State::Live | State::Reauthenticating(_) => self.say_disconnect(conn, reason),
        }
        self.detach(conn, Leaving::Abruptly, now);
        self.end(conn);
    }

    /// CONNACK with a reason, and the end.
    /// Implements [MQTT-3.2.2-7].
    pub(super) fn refuse(&mut self, conn: ConnId, reason: ConnectReason) {
        self.counters.refuse(reason);
        // [MQTT-3.2.2-6] session present is 0.
        let properties = ConnAckProperties::default();
        self.send(conn, &Packet::ConnAck(Box::new(ConnAck { session_present: false, reason, properties })));
        self.end(conn);
    }

    /// Tells an MQTT 5 client that it is to go; MQTT 3 has no such packet.
    /// Implements [MQTT-3.14.2-2] [MQTT-4.13.2-1].
    pub(super) fn say_disconnect(&mut self, conn: ConnId, reason: ReasonCode) {
        if self.version(conn) == Version::V5 {
            self.send(conn, &Packet::Disconnect(Disconnect { reason, properties: DisconnectProperties::default() }));
        }
    }

    /// Nothing more is read; what is encoded is written, then the shell closes.
    /// Implements [MQTT-3.14.4-2] [MQTT3-4.8.0-1] [MQTT3-4.8.0-2].
    pub(super) fn end(&mut self, conn: ConnId) {
        if let Some(connection) = self.conns.get_mut(conn.0 as usize) {
            connection.state = State::Ending;
            self.touch(conn);
        }
    }

    /// Parts a connection from its session.
    pub(super) fn detach(&mut self, conn: ConnId, leaving: Leaving, now: Now) {
        let Some(slot) = self.conns.get_mut(conn.0 as usize).and_then(|connection| connection.session.take()) else {
            return;
        };
        self.counters.clients -= 1;
        self.settle_meter(slot, now);
        let Some(session) = self.sessions.get_mut(slot).filter(|session| session.conn == Some(conn)) else {
            return;
        };
        session.conn = None;
        session.disconnected_at_ms = now.unix_ms;
        self.tell_passage(conn, slot, Passage::Out(leaving.into()), now);
        let Some(session) = self.sessions.get_mut(slot) else { return };
        if let Some(outgoing) = session.outgoing.as_mut() {
            self.counters.queued_messages -= outgoing.transient.len() as u64;
            outgoing.rewind();
        }
        session.release_empty_queue();
        match leaving {
            Leaving::Cleanly | Leaving::TakenOver => session.will = None,
            Leaving::Abruptly | Leaving::Replaced => {}
        }
        let ends = session.expiry_s == 0;
        // [MQTT-3.1.3-9] a delayed will waits for the delay or the end of the session, whichever is first.
        let will_now = session.will.take_if(|will| will.delay_s == 0 || ends);
        session.will_due_ms = session.will.as_ref().map(|will| now.unix_ms + u64::from(will.delay_s) * 1000);
        if let Some(will) = will_now {
            self.publish_will(&will, now);
        }
        if ends {
            self.end_session(slot, now);
        } else {
            self.set_online(slot, false);
            self.record_session(slot);
            self.arm_session(slot, now);
        }
    }

    /// Tells the gate of a client that came in or went.
    pub(super) fn tell_passage(&self, conn: ConnId, slot: u32, passage: Passage, now: Now) {
        let (Some(connection), Some(session)) = (self.conns.get(conn.0 as usize), self.sessions.get(slot)) else {
            return;
        };
        let visit = Visit {
            client_id: session.client.as_str(),
            principal: Some(&session.principal),
            user_name: None,
            peer: connection.addr,
            tls: connection.tls,
        };
        self.gate.passed(&visit, passage, now);
    }

    /// [MQTT-3.1.2-8] [MQTT-3.1.2-14] [MQTT-3.1.2-15] its publisher was judged at CONNECT.
    /// Implements [MQTT-3.1.2-10].
    pub(super) fn publish_will(&mut self, will: &Will, now: Now) {
        let parts = will.message.parts();
        let expires_at_ms = will.expiry_s.map(|s| now.unix_ms + u64::from(s) * 1000).or(parts.expires_at_ms);
        let _ = self.publish(&MessageParts { expires_at_ms, ..parts }, now);
    }

    /// Says to the router whether the session's memberships of shared subscriptions can be picked.
    pub(super) fn set_online(&mut self, slot: u32, online: bool) {
        let Some(session) = self.sessions.get(slot) else { return };
        let reference = SessionRef { shard: self.id, slot, generation: session.generation };
        for subscription in &session.subscriptions {
            if let Some((name, inner)) = TopicFilter::from_validated(&subscription.filter).share() {
                self.shared.router.set_online(inner, name, reference, online);
            }
        }
    }

    /// Records the session's header, if it is durable.
    pub(super) fn record_session(&mut self, slot: u32) {
        if let Some(session) = self.sessions.get(slot)
            && let Some(key) = session.key
        {
            self.ticket.ops.push(Op::SessionPut(key, session.record()));
        }
    }

    /// Sets the timer of a session without a connection.
    pub(super) fn arm_session(&mut self, slot: u32, now: Now) {
        let Some(session) = self.sessions.get(slot) else { return };
        let due_ms = match (session.expires_at_ms(), session.will_due_ms) {
            (Some(expiry), Some(will)) => expiry.min(will),
            (Some(due), None) | (None, Some(due)) => due,
            (None, None) => return,
        };
        let after_ms = due_ms.saturating_sub(now.unix_ms);
        let timer = Timer::Session { slot, generation: session.generation };
        self.wheel.insert(now.mono_ms.saturating_add(after_ms), timer);
    }

    /// A session's end: its will, if one is pending; its subscriptions; what it was owed by shared subscriptions goes to others.
    /// Implements [MQTT-4.1.0-1] [MQTT3-3.1.2-7].
    pub(super) fn end_session(&mut self, slot: u32, now: Now) {
        let Some(mut session) = self.sessions.remove(slot) else { return };
        let reference = SessionRef { shard: self.id, slot, generation: session.generation };
        for subscription in &session.subscriptions {
            let filter = TopicFilter::from_validated(&subscription.filter);
            let (share, inner) = filter.share().map_or((None, filter), |(name, inner)| (Some(name), inner));
            self.shared.router.unsubscribe(inner, share, reference);
        }
        if let Some(key) = session.key {
            self.ticket.ops.push(Op::SessionDelete(key));
        }
        if let Some(mut outgoing) = session.outgoing.take() {
            self.counters.queued_messages -= outgoing.messages() as u64;
            for (_, entry) in outgoing.drain() {
                self.forget_body(entry.message.as_ref().and_then(|message| message.shared_id));
                self.hand_on(&entry, now);
            }
        }
        if let Some(will) = session.will.take() {
            self.publish_will(&will, now);
        }
    }

    /// Gives what a dead member of a shared subscription left unacknowledged to another member (MQTT 5, 4.8.2). A QoS 2 message
    /// that has been sent goes to nobody else [MQTT-4.8.2-5].
    /// Implements [MQTT-4.8.2-4] [MQTT-4.8.2-6].
    fn hand_on(&mut self, entry: &Entry, now: Now) {
        let (Some(share), Some(message)) = (&entry.share, &entry.message) else { return };
        if entry.qos == QoS::ExactlyOnce && (entry.dup || !matches!(entry.phase, Phase::Ready | Phase::AwaitingCommit))
        {
            return;
        }
        let Some((name, inner)) = TopicFilter::from_validated(share).share() else { return };
        let choice = self.choose();
        let Some(member) = self.shared.router.pick(inner, name, choice, None) else { return };
        let mut body = Message::clone(message);
        body.shared_id = None;
        let recipient = Recipient {
            slot: member.session.slot,
            generation: member.session.generation,
            qos: member.qos().min(message.qos),
            retain: entry.retain,
            identifiers: &entry.identifiers,
            share: Some(share),
        };
        if member.session.shard == self.id {
            self.deliver_one(&body.parts(), &mut Kept::of(&Arc::new(body.clone())), &recipient, now);
        } else {
            self.routed += 1;
            let _ = self.forward(&body.parts(), member.session, member.durable, &recipient);
        }
    }

    /// The next moment at which [`Shard::tick`] has something to do, on the monotonic clock in milliseconds.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        if !self.walking.is_empty() {
            return Some(0);
        }
        self.wheel.next_deadline().into_iter().chain(self.pauses.next_deadline()).min()
    }

    /// Acts on the timers that are due.
    pub fn tick(&mut self, now: Now) {
        for _ in 0..self.walking.len() {
            if let Some(slot) = self.walking.pop_front() {
                self.walk(slot, now);
            }
        }
        self.end_pauses(now);
        let mut due = std::mem::take(&mut self.due);
        self.wheel.advance(now.mono_ms, &mut due);
        for timer in due.drain(..) {
            match timer {
                Timer::Connect { conn, serial } => self.connect_overdue(conn, serial, now),
                Timer::Answer { conn, serial } => self.answer_overdue(conn, serial, now),
                Timer::KeepAlive { conn, serial } => self.keep_alive_due(conn, serial, now),
                Timer::Session { slot, generation } => self.session_due(slot, generation, now),
                Timer::Authentication { conn, serial } => self.authentication_due(conn, serial, now),
                Timer::Sweep => self.sweep(now),
            }
        }
        self.due = due;
    }

    fn connect_overdue(&mut self, conn: ConnId, serial: u32, now: Now) {
        let Some(connection) = self.conns.get(conn.0 as usize).filter(|c| c.serial == serial) else { return };
        if matches!(connection.state, State::Opened | State::Challenged(_)) {
            // [MQTT-3.1.4-1] silently: nobody has said what they speak.
            self.fail(conn, ReasonCode::KeepAliveTimeout, now);
        }
    }

    fn keep_alive_due(&mut self, conn: ConnId, serial: u32, now: Now) {
        let Some(connection) = self.conns.get(conn.0 as usize).filter(|c| c.serial == serial) else { return };
        if matches!(connection.state, State::Ending) || connection.idle_max_ms == 0 {
            return;
        }
        let due_ms = connection.last_heard_ms + u64::from(connection.idle_max_ms);
        // A connection that we don't read can't be heard.
        if due_ms <= now.mono_ms && !connection.paused {
            self.counters.keep_alive_timeouts += 1;
            self.fail(conn, ReasonCode::KeepAliveTimeout, now);
            return;
        }
        self.wheel.insert(due_ms.max(now.mono_ms + 1), Timer::KeepAlive { conn, serial });
        if let Some(slot) = connection.session
            && let Some(session) = self.sessions.get_mut(slot)
        {
            session.release_empty_queue();
        }
    }

    fn session_due(&mut self, slot: u32, generation: u32, now: Now) {
        let Some(session) = self.sessions.get_mut(slot) else { return };
        if session.generation != generation || session.conn.is_some() {
            return;
        }
        if session.expires_at_ms().is_some_and(|at_ms| at_ms <= now.unix_ms) {
            // [MQTT-4.1.0-2] the will, if it waits, goes with the session.
            self.end_session(slot, now);
            return;
        }
        if let Some(will) = session.take_due_will(now) {
            self.record_session(slot);
            self.publish_will(&will, now);
        }
        self.arm_session(slot, now);
    }

    fn sweep(&mut self, now: Now) {
        self.wheel.insert(now.mono_ms + SWEEP_MS, Timer::Sweep);
        if self.id.0 == 0 {
            for topic in self.shared.retained.sweep(now.unix_ms, SWEEP_MESSAGES) {
                self.ticket.ops.push(Op::RetainedDelete(topic));
            }
        }
    }

    /// The registry has changed: whoever isn't welcome any more is closed, and subscriptions that aren't allowed are taken away.
    /// `device` none means the whole product.
    pub fn rejudge(&mut self, product: &str, device: Option<&str>, now: Now) {
        let concerned = |session: &Session| match &session.principal {
            Principal::Device(identity) => {
                *identity.product == *product && device.is_none_or(|device| *identity.device == *device)
            }
            Principal::Anonymous | Principal::Broker => false,
        };
        let slots: Vec<u32> =
            self.sessions.iter().filter(|(_, session)| concerned(session)).map(|(slot, _)| slot).collect();
        for slot in slots {
            let Some(session) = self.sessions.get(slot) else { continue };
            if !self.gate.still_welcome(&session.principal) {
                if let Some(conn) = session.conn {
                    self.say_disconnect(conn, ReasonCode::NotAuthorized);
                    self.detach(conn, Leaving::Abruptly, now);
                    self.end(conn);
                }
                continue;
            }
            self.remeter_one(slot, now);
            let Some(session) = self.sessions.get(slot) else { continue };
            let taken: Vec<Box<str>> = session
                .subscriptions
                .iter()
                .filter(|subscription| {
                    let filter = TopicFilter::from_validated(&subscription.filter);
                    let inner = filter.share().map_or(filter, |(_, inner)| inner);
                    !self.gate.may_subscribe(&session.principal, inner)
                })
                .map(|subscription| subscription.filter.clone())
                .collect();
            for filter in taken {
                self.unsubscribe_one(slot, TopicFilter::from_validated(&filter));
            }
        }
    }

    /// The broker is going down: MQTT 5 clients are told [MQTT-3.14.4-1], every connection ends, none is opened.
    pub fn drain(&mut self, now: Now) {
        self.draining = true;
        let conns: Vec<ConnId> = self.conns.iter().filter_map(|(key, _)| u32::try_from(key).ok().map(ConnId)).collect();
        for conn in conns {
            let Some(connection) = self.conns.get(conn.0 as usize) else { continue };
            if connection.is_live() {
                self.say_disconnect(conn, ReasonCode::ServerShuttingDown);
            }
            self.detach(conn, Leaving::Abruptly, now);
            self.end(conn);
        }
    }
}
