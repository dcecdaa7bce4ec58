//! How connections and sessions end: DISCONNECT, errors, take-over, wills, expiry, drain; and the timers.

use std::num::NonZeroU64;
use std::sync::Arc;

use turnpike_mqtt::{
    ConnAck, ConnAckProperties, ConnectReason, Disconnect, DisconnectProperties, Packet, QoS, ReasonCode, TopicFilter,
    Version,
};

use super::Shard;
use super::deliver::{Kept, Room};
use crate::batch::Recipient;
use crate::clock::Now;
use crate::connection::State;
use crate::durable::Op;
use crate::gate::{Departure, Gate, Passage, Permit, Principal, Visit};
use crate::ids::{ConnId, SessionRef};
use crate::message::{Message, MessageParts};
use crate::meter::Manner;
use crate::outgoing::{Entry, Phase};
use crate::retain::Walk;
use crate::session::Will;

/// How often expired retained messages are looked for, in milliseconds.
pub(super) const SWEEP_MS: u64 = 1_000;
/// Retained messages looked at in one sweep.
const SWEEP_MESSAGES: usize = 10_000;
/// Topics looked at in one turn, and filters, to forget retained messages.
const FORGET_TOPICS: usize = 512;
const FORGET_WALKS: usize = 64;
/// What whoever left a will may owe, in nanoseconds, for it to be published.
const WILL_DEBT_MAX_NS: u64 = 10_000_000_000;
/// Full sessions looked at in one sweep.
const SWEEP_FULL: usize = 10_000;

/// A timer. Nothing cancels one: when it fires, it is held against what is true by then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Timer {
    /// A whole CONNECT must have come.
    Connect { conn: ConnId, serial: u32 },
    /// An answer from outside must have come.
    Answer { conn: ConnId, serial: u32 },
    /// Something must have come within 1.5 × keep alive [MQTT-3.1.2-22].
    KeepAlive { conn: ConnId, serial: u32 },
    /// An unfinished packet must have ended.
    Partial { conn: ConnId, serial: u32 },
    /// A session without a connection: its will or its end is due.
    Session { slot: u32, generation: u32 },
    /// What let it in is good until then.
    Authentication { conn: ConnId, serial: u32 },
    /// Keys of its payloads are to be announced, or forgotten.
    Keys { conn: ConnId, serial: u32 },
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
        let is_limit = matches!(
            reason,
            ReasonCode::KeepAliveTimeout | ReasonCode::QuotaExceeded | ReasonCode::ImplementationSpecificError
        );
        if !is_limit {
            self.counters.protocol_errors += 1;
        }
        match connection.state {
            State::Opened | State::Challenged(_) | State::Asking(_) | State::Settling | State::Ending => {}
            State::Live | State::Reauthenticating(_) => self.say_disconnect(conn, reason),
        }
        self.detach(conn, Leaving::Abruptly, now);
        self.end(conn);
    }

    /// Ends a connection for a reason that isn't its client's fault and that the shell has found: an MQTT 5 client that is in is told it.
    pub fn part_with(&mut self, conn: ConnId, reason: ReasonCode, now: Now) {
        let Some(connection) = self.conns.get(conn.0 as usize) else { return };
        if matches!(connection.state, State::Ending) {
            return;
        }
        if connection.is_live() {
            self.say_disconnect(conn, reason);
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
        self.abandon_errand(conn);
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
        // What let a user or service in for a time lets a will out for that time alone: nobody commands a device days after a code of a minute.
        let until_ms =
            self.conns.get(conn.0 as usize).and_then(|connection| connection.extras.as_ref()?.until.as_ref()?.unix_ms);
        let outlives =
            |will: &Will| until_ms.is_some_and(|until_ms| now.unix_ms + u64::from(will.delay_s) * 1000 >= until_ms);
        if session.principal.has_lent_rights() && session.will.take_if(|will| outlives(will)).is_some() {
            self.counters.dropped.not_authorized += 1;
        }
        let ends = session.expiry_s == 0;
        // [MQTT-3.1.3-9] a delayed will waits for the delay or the end of the session, whichever is first.
        let will_now = session.will.take_if(|will| will.delay_s == 0 || ends);
        let due_ms = |will: &Will| NonZeroU64::new((now.unix_ms + u64::from(will.delay_s) * 1000).max(1));
        if let Some(will) = session.will.as_deref_mut() {
            will.due_ms = due_ms(will);
        }
        if let Some(will) = will_now {
            let principal = session.principal.clone();
            self.publish_will(&will, &principal, now);
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

    /// [MQTT-3.1.2-8] [MQTT-3.1.2-14] [MQTT-3.1.2-15] its publisher was judged at CONNECT, and is judged again: who is closed because a
    /// right is gone doesn't use it once more.
    /// Implements [MQTT-3.1.2-10].
    pub(super) fn publish_will(&mut self, will: &Will, principal: &Principal, now: Now) {
        let parts = will.message.parts();
        let is_over = principal.has_lent_rights() && !self.gate.still_welcome(principal);
        if is_over || Permit::judge(&*self.gate, principal, parts.topic).is_err() {
            self.counters.dropped.not_authorized += 1;
            return;
        }
        if !self.will_conforms(&parts, principal, now) {
            self.counters.dropped.rate_limited += 1;
            return;
        }
        if matches!(principal, Principal::Service(_)) {
            self.gate.controlled(principal, parts.topic, now);
        }
        let expires_at_ms = will.expiry_s.map(|s| now.unix_ms + u64::from(s) * 1000).or(parts.expires_at_ms);
        let parts = MessageParts { expires_at_ms, ..parts };
        let _ = self.publish(&parts, now);
        if self.gate.has_feed(principal) {
            let _ = self.feed_of(principal, &parts, now);
        }
    }

    /// Charges a will to whoever left it. Nobody can be slowed by that any more, so a will of somebody who owes too much isn't published: connecting, leaving one
    /// and going would have no rate at all.
    fn will_conforms(&self, will: &MessageParts<'_>, principal: &Principal, now: Now) -> bool {
        let Some(mut meter) = self.gate.meter(principal, now) else { return true };
        let now_ns = now.mono_ms.saturating_mul(1_000_000);
        if meter.wait_ns(now_ns) > WILL_DEBT_MAX_NS {
            return false;
        }
        let bytes = will.topic.as_str().len() + will.properties.len() + will.payload.len();
        let _ = meter.publish(now_ns, bytes, Manner::Slow);
        self.gate.settle(principal, &meter, now);
        true
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
        let will_due = session.will.as_ref().and_then(|will| will.due_ms);
        let due_ms = match (session.expires_at_ms(), will_due.map(NonZeroU64::get)) {
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
        self.principals.remove(slot, &mut self.sessions);
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
            self.publish_will(&will, &session.principal, now);
        }
    }

    /// Gives what a dead member of a shared subscription left unacknowledged to another member (MQTT 5, 4.8.2). A QoS 2 message
    /// that has been sent goes to nobody else [MQTT-4.8.2-5].
    /// Implements [MQTT-4.8.2-4] [MQTT-4.8.2-6].
    pub(super) fn hand_on(&mut self, entry: &Entry, now: Now) {
        let (Some(share), Some(message)) = (&entry.share, &entry.message) else { return };
        if entry.qos == QoS::ExactlyOnce
            && (entry.dup || !matches!(entry.phase, Phase::Ready | Phase::AwaitingCommit | Phase::Withdrawn))
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
            let mut kept = Kept::of(&Arc::new(body.clone()));
            let _ = self.deliver_one(&body.parts(), &mut kept, &recipient, Room::Overrun, now);
        } else {
            self.routed += 1;
            let _ = self.forward(&body.parts(), member.session, member.durable, &recipient);
        }
    }

    /// The next moment at which [`Shard::tick`] has something to do, on the monotonic clock in milliseconds.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        if !self.walking.is_empty() || !self.forgetting.is_empty() {
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
        self.forget_some();
        let mut due = std::mem::take(&mut self.due);
        self.wheel.advance(now.mono_ms, &mut due);
        for timer in due.drain(..) {
            match timer {
                Timer::Connect { conn, serial } => self.connect_overdue(conn, serial, now),
                Timer::Answer { conn, serial } => self.answer_overdue(conn, serial, now),
                Timer::KeepAlive { conn, serial } => self.keep_alive_due(conn, serial, now),
                Timer::Partial { conn, serial } => self.partial_due(conn, serial, now),
                Timer::Session { slot, generation } => self.session_due(slot, generation, now),
                Timer::Authentication { conn, serial } => self.authentication_due(conn, serial, now),
                Timer::Keys { conn, serial } => self.keys_due(conn, serial, now),
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
        let Some(connection) = self.conns.get_mut(conn.0 as usize).filter(|c| c.serial == serial) else { return };
        if matches!(connection.state, State::Ending) || connection.idle_max_ms == 0 {
            return;
        }
        if connection.paused {
            // A connection that we don't read can't be heard.
            connection.last_heard_ms = now.mono_ms;
        }
        let due_ms = connection.last_heard_ms + u64::from(connection.idle_max_ms);
        if due_ms <= now.mono_ms {
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
            let principal = session.principal.clone();
            self.record_session(slot);
            self.publish_will(&will, &principal, now);
        }
        self.arm_session(slot, now);
    }

    fn sweep(&mut self, now: Now) {
        self.wheel.insert(now.mono_ms + SWEEP_MS, Timer::Sweep);
        self.look_at_full(SWEEP_FULL);
        if self.id.0 == 0 {
            for topic in self.shared.retained.sweep(now.unix_ms, SWEEP_MESSAGES) {
                self.ticket.ops.push(Op::RetainedDelete(topic));
            }
        }
    }

    /// Has the retained messages of these filters removed, durably, a part in each of the coming turns. What is retained on them
    /// meanwhile may go, too.
    pub fn forget_retained(&mut self, filters: &[Box<str>]) {
        self.forgetting.extend(filters.iter().map(|filter| Walk::new(TopicFilter::from_validated(filter))));
    }

    fn forget_some(&mut self) {
        let mut found = Vec::new();
        for _ in 0..FORGET_WALKS {
            let Some(mut walk) = self.forgetting.pop_front() else { break };
            // As of the beginning of time: what has expired goes as well.
            if self.shared.retained.step(&mut walk, FORGET_TOPICS, 0, &mut |message| found.push(message)) {
                self.forgetting.push_front(walk);
                break;
            }
            if found.len() >= FORGET_TOPICS / 2 {
                break;
            }
        }
        for message in found {
            if self.shared.retained.remove(message.topic()) {
                self.ticket.ops.push(Op::RetainedDelete(message.topic().as_str().into()));
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
