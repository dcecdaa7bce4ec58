//! Packets that have begun and haven't ended: how many bytes of them a shard may hold, and for how long.
//!
//! A connection without one has no entry here and no timer; one that sends much has at most one timer, however many of its packets
//! are cut by reads.

use hashbrown::HashMap;
use turnpike_mqtt::ReasonCode;

use super::Shard;
use super::lifecycle::Timer;
use crate::clock::Now;
use crate::gate::Gate;
use crate::ids::ConnId;
use crate::limits::Limits;

/// What a packet must bring on average, bytes a second, once its time is over.
const RATE_MIN: u64 = 1024;

/// An unfinished packet of a connection, or the timer that one has left behind.
#[derive(Clone, Copy, Debug)]
struct Partial {
    since_ms: u64,
    /// 0: there is none.
    bytes: usize,
    /// Before CONNACK.
    early: bool,
    /// A timer is set, and its owner's entry stays until it fires.
    timed: bool,
}

/// The unfinished packets of a shard.
#[derive(Debug, Default)]
pub(super) struct Partials {
    of: HashMap<ConnId, Partial, foldhash::fast::RandomState>,
    bytes: u64,
    early_bytes: u64,
}

impl Partials {
    /// Bytes held.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn insert(&mut self, conn: ConnId, partial: Partial) {
        self.remove(conn);
        self.bytes += partial.bytes as u64;
        self.early_bytes += if partial.early { partial.bytes as u64 } else { 0 };
        self.of.insert(conn, partial);
    }

    /// Takes an entry out, or what it says about a packet if its timer is still set. Says whether it is out.
    fn clear(&mut self, conn: ConnId) -> bool {
        match self.of.get_mut(&conn) {
            // Only clients that are let in have timers, so the bytes aren't early ones.
            Some(partial) if partial.timed => {
                self.bytes -= std::mem::take(&mut partial.bytes) as u64;
                false
            }
            _ => {
                self.remove(conn);
                true
            }
        }
    }

    fn remove(&mut self, conn: ConnId) {
        if let Some(partial) = self.of.remove(&conn) {
            self.bytes -= partial.bytes as u64;
            self.early_bytes -= if partial.early { partial.bytes as u64 } else { 0 };
            if self.of.is_empty() {
                self.of.shrink_to(1024);
            }
        }
    }

    /// Whether there is room for it. Who isn't let in yet gets half, so that strangers can't push out clients.
    fn has_room(&self, limits: &Limits, shards: u16) -> bool {
        let whole = (limits.partial_bytes_max / u64::from(shards.max(1))).max(u64::from(limits.packet_bytes_max));
        let early = (whole / 2).max(u64::from(limits.connect_bytes_max));
        self.bytes <= whole && self.early_bytes <= early
    }
}

impl Partial {
    /// When the connection is given up, unless more comes.
    fn due_ms(&self, limits: &Limits) -> u64 {
        self.since_ms + u64::from(limits.packet_time_max_s) * 1000 + self.bytes as u64 * 1000 / RATE_MIN
    }
}

impl<G: Gate> Shard<G> {
    /// Everything that has come of a connection was whole packets.
    #[inline]
    pub(super) fn no_partial(&mut self, conn: ConnId) {
        if let Some(connection) = self.conns.get_mut(conn.0 as usize)
            && connection.partial
        {
            connection.partial = !self.partials.clear(conn);
        }
    }

    /// The connection is gone; a timer of it means nothing any more.
    pub(super) fn forget_partial(&mut self, conn: ConnId) {
        self.partials.remove(conn);
    }

    /// `bytes` of an unfinished packet have come. `goes_on`: it is the one of which some had come before. Says whether the shell may keep
    /// them; if not, the connection is at its end.
    pub(super) fn note_partial(&mut self, conn: ConnId, bytes: usize, goes_on: bool, now: Now) -> bool {
        let Some(connection) = self.conns.get_mut(conn.0 as usize) else { return false };
        let early = !connection.is_live();
        let known = self.partials.of.get(&conn).copied();
        let since_ms = known.filter(|known| goes_on && known.bytes > 0).map_or(now.mono_ms, |known| known.since_ms);
        let was_timed = known.is_some_and(|known| known.timed);
        // Before CONNACK the time for CONNECT is limit enough.
        let arms = !early && !was_timed;
        let partial = Partial { since_ms, bytes, early, timed: arms || was_timed };
        connection.partial = true;
        let serial = connection.serial;
        self.partials.insert(conn, partial);
        if arms {
            self.wheel.insert(partial.due_ms(&self.limits), Timer::Partial { conn, serial });
        }
        if !self.partials.has_room(&self.limits, self.shards) {
            self.counters.partials_shed += 1;
            self.fail(conn, ReasonCode::QuotaExceeded, now);
            self.no_partial(conn);
            return false;
        }
        true
    }

    /// The packet that was unfinished when the timer was set may be whole by now, and another be under way.
    pub(super) fn partial_due(&mut self, conn: ConnId, serial: u32, now: Now) {
        let Some(connection) = self.conns.get_mut(conn.0 as usize).filter(|c| c.serial == serial) else { return };
        let Some(partial) = self.partials.of.get_mut(&conn) else { return };
        if partial.bytes == 0 || !connection.is_live() {
            partial.timed = false;
            return self.no_partial(conn);
        }
        let due_ms = partial.due_ms(&self.limits);
        if due_ms > now.mono_ms || connection.paused {
            // What we don't read can't come.
            self.wheel.insert(due_ms.max(now.mono_ms + 1000), Timer::Partial { conn, serial });
            return;
        }
        partial.timed = false;
        self.counters.packets_timed_out += 1;
        self.no_partial(conn);
        self.fail(conn, ReasonCode::ImplementationSpecificError, now);
    }
}
