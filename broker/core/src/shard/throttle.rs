//! Rate limits as a connection feels them: refused messages, and pauses in which it isn't read.
//!
//! A pause is a number of the connection's and an entry in a wheel of its own, which has finer ticks than the others; a connection that isn't
//! paused has neither. What to say to whom is the table in [`crate::meter`].

use turnpike_mqtt::{Frame, PacketType, Publish, QoS, ReasonCode, Version};

use super::Shard;
use crate::clock::Now;
use crate::gate::Gate;
use crate::ids::ConnId;
use crate::meter::{Decision, Excess, Manner};

/// A pause is up to this much too long: at a burst of one, a client gets so much less than its rate.
pub(super) const TICK_MS: u64 = 10;

/// The end of a pause: which connection, and which of its pauses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PauseEnd {
    conn: ConnId,
    number: u32,
}

/// Whether a client sends it when it likes, PUBLISH apart, rather than as an answer.
fn is_at_will(packet: PacketType) -> bool {
    match packet {
        PacketType::PingReq | PacketType::Subscribe | PacketType::Unsubscribe | PacketType::Auth => true,
        PacketType::Publish
        | PacketType::Connect
        | PacketType::ConnAck
        | PacketType::PubAck
        | PacketType::PubRec
        | PacketType::PubRel
        | PacketType::PubComp
        | PacketType::SubAck
        | PacketType::UnsubAck
        | PacketType::PingResp
        | PacketType::Disconnect => false,
    }
}

impl<G: Gate> Shard<G> {
    /// Charges a PUBLISH of so many bytes. An error is the reason for which it isn't taken.
    pub(super) fn meter_publish(
        &mut self,
        conn: ConnId,
        version: Version,
        publish: &Publish<'_>,
        bytes: usize,
        now: Now,
    ) -> Result<(), ReasonCode> {
        let slot = self.conns.get(conn.0 as usize).and_then(|connection| connection.session);
        let session = slot.and_then(|slot| self.sessions.get_mut(slot));
        let Some(meter) = session.and_then(|session| session.meter.as_deref_mut()) else { return Ok(()) };
        let manner = meter.excess().manner(version, publish.qos);
        match meter.publish(now.mono_ns(), bytes, manner) {
            Decision::Pass => Ok(()),
            Decision::Wait { ns } => {
                self.pause(conn, ns, now);
                Ok(())
            }
            Decision::Refuse => {
                debug_assert_eq!(manner, Manner::Refuse);
                self.counters.dropped.rate_limited += 1;
                Err(ReasonCode::QuotaExceeded)
            }
        }
    }

    /// Charges a packet that a client sends when it likes. Acknowledgements answer something and cost nothing.
    pub(super) fn meter_packet(&mut self, conn: ConnId, packet: PacketType, now: Now) {
        // A PUBLISH is a repetition of what was taken.
        if !is_at_will(packet) && packet != PacketType::Publish {
            return;
        }
        let slot = self.conns.get(conn.0 as usize).and_then(|connection| connection.session);
        let session = slot.and_then(|slot| self.sessions.get_mut(slot));
        if let Some(meter) = session.and_then(|session| session.meter.as_deref_mut())
            && let Decision::Wait { ns } = meter.packet(now.mono_ns())
        {
            self.pause(conn, ns, now);
        }
    }

    /// Nothing more of the connection is read for so long.
    fn pause(&mut self, conn: ConnId, ns: u64, now: Now) {
        let Some(connection) = self.conns.get_mut(conn.0 as usize) else { return };
        self.next_pause = self.next_pause.checked_add(1).unwrap_or(1);
        connection.throttled = self.next_pause;
        let due_ms = now.mono_ms.saturating_add(ns.div_ceil(1_000_000));
        self.pauses.insert(due_ms, PauseEnd { conn, number: self.next_pause });
        self.counters.throttled += 1;
    }

    /// Lets connections be read again whose pauses are over.
    pub(super) fn end_pauses(&mut self, now: Now) {
        let mut due = std::mem::take(&mut self.pauses_due);
        self.pauses.advance(now.mono_ms, &mut due);
        for end in due.drain(..) {
            let connection = self.conns.get(end.conn.0 as usize);
            if connection.is_some_and(|connection| connection.throttled == end.number) {
                self.end_pause(end.conn, now);
            }
        }
        self.pauses_due = due;
    }

    fn end_pause(&mut self, conn: ConnId, now: Now) {
        if let Some(connection) = self.conns.get_mut(conn.0 as usize) {
            connection.throttled = 0;
            // It could not be heard meanwhile.
            connection.last_heard_ms = now.mono_ms;
            self.resume(conn);
        }
    }

    /// Whether this packet, of a connection that began while its owner owed something, has to wait in the client's buffer until that is paid.
    pub(super) fn waits_for_debt(&mut self, conn: ConnId, version: Version, frame: &Frame<'_>, now: Now) -> bool {
        let Some(connection) = self.conns.get_mut(conn.0 as usize) else { return false };
        let session = connection.session.and_then(|slot| self.sessions.get(slot));
        let Some(meter) = session.and_then(|session| session.meter.as_deref()) else {
            connection.owes = false;
            return false;
        };
        let slowed = match frame.packet_type() {
            PacketType::Publish => match QoS::try_from((frame.first >> 1) & 3) {
                Ok(qos) => meter.excess().manner(version, qos) == Manner::Slow,
                Err(_) => false,
            },
            kind => is_at_will(kind),
        };
        if !slowed {
            return false;
        }
        connection.owes = false;
        let wait_ns = meter.wait_ns(now.mono_ns());
        if wait_ns > 0 {
            connection.paused = true;
            self.pause(conn, wait_ns, now);
        }
        wait_ns > 0
    }

    /// Asks the gate for a session's meter: at CONNECT, and when limits have changed. What the session owes goes with it. A
    /// pause ends; one begins if the owner still owes, from whichever of its sessions: a new connection is no new burst. Who may be refused
    /// is paused only when it sends what isn't.
    pub(super) fn remeter_one(&mut self, slot: u32, now: Now) {
        let Some(session) = self.sessions.get_mut(slot) else { return };
        let Some(conn) = session.conn else { return };
        let meter = self.gate.meter(&session.principal, now);
        let debt = session.meter.take().map(|before| before.debt()).unwrap_or_default();
        session.meter = meter.map(|meter| Box::new(meter.owing(debt)));
        let wait_ns = session.meter.as_ref().map_or(0, |meter| meter.wait_ns(now.mono_ns()));
        let excess = session.meter.as_ref().map(|meter| meter.excess()).unwrap_or_default();
        let Some(connection) = self.conns.get_mut(conn.0 as usize) else { return };
        let refused = connection.version == Version::V5 && excess != Excess::default();
        connection.owes = wait_ns > 0 && refused;
        let throttled = connection.throttled != 0;
        if wait_ns > 0 && !refused {
            self.pause(conn, wait_ns, now);
        } else if throttled {
            self.end_pause(conn, now);
        }
    }

    /// Limits have changed for everybody: each connected session's meter is asked for anew.
    pub fn remeter(&mut self, now: Now) {
        let slots: Vec<u32> = self.sessions.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            self.remeter_one(slot, now);
        }
    }

    /// A session's connection ends: the gate keeps what it owes.
    pub(super) fn settle_meter(&mut self, slot: u32, now: Now) {
        if let Some(session) = self.sessions.get_mut(slot)
            && let Some(meter) = session.meter.take()
        {
            self.gate.settle(&session.principal, &meter, now);
        }
    }
}

#[cfg(test)]
mod tests;
