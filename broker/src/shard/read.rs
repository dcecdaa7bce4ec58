//! From sockets to the core.

use std::io::{self, Read};

use mio::net::TcpStream;
use turnpike_core::gate::Gate;
use turnpike_core::shard::{Next, Received};

use super::link::{Flags, Link};
use super::{POOL_BUFFER_BYTES_MAX, POOL_BUFFERS_MAX, READ_BYTES, ShardThread, TURN_READ_BYTES};
use crate::transport::{Fault, RAW_BYTES_MAX};

/// An unfinished packet up to this size is copied to where the next read lands, so that both are one slice; what is read after a larger
/// one is copied to it.
const HELD_COPY_BYTES_MAX: usize = 16 << 10;
/// Read from one connection in one turn while history is under way: a back end's acknowledgements come by the thousand, and each costs far more
/// than its bytes.
const READ_BYTES_OF_HISTORY: usize = 4 << 10;
/// What lies in front of a read, and the read.
pub(super) const SCRATCH_BYTES: usize = RAW_BYTES_MAX + READ_BYTES;

/// What came of one read.
#[derive(Debug)]
pub(super) enum Outcome {
    /// So many bytes: whether there may be more.
    Some {
        n: usize,
        more: bool,
    },
    Nothing,
    Closed,
}

impl Outcome {
    /// How many have come.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Some { n, .. } => *n,
            Self::Nothing | Self::Closed => 0,
        }
    }
}

impl<G: Gate> ShardThread<G> {
    /// Reads each queued link once, as far as the turn's budget goes.
    pub(super) fn read_ready(&mut self) {
        if self.stalled {
            return;
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut budget = TURN_READ_BYTES;
        let phase = self.phase();
        for _ in 0..self.ready.len() {
            let Some(key) = self.ready.pop_front() else { break };
            let Some(link) = self.links.get_mut(key as usize) else { continue };
            link.flags.clear(Flags::QUEUED);
            // When the core resumes it, it is queued again.
            if !link.flags.has(Flags::PAUSED) {
                budget = budget.saturating_sub(self.read_link(key, &mut scratch));
            }
            if budget == 0 || phase.is_over() {
                break;
            }
        }
        self.scratch = scratch;
    }

    /// One read. Gives the number of bytes.
    pub(super) fn read_link(&mut self, key: u32, scratch: &mut [u8]) -> usize {
        let Some(link) = self.links.get_mut(key as usize) else { return 0 };
        // What is ending is still read, so that the kernel doesn't answer unread bytes with a reset.
        let discards = link.flags.has(Flags::ENDING.with(Flags::LINGERING));
        let kept = match &link.layers {
            _ if discards => 0,
            Some(layers) => copy_in(scratch, &layers.raw),
            None if link.held.len() <= HELD_COPY_BYTES_MAX => copy_in(scratch, &link.held),
            None => 0,
        };
        let most = if self.slices.is_empty() { READ_BYTES } else { READ_BYTES_OF_HISTORY };
        let outcome = read(&link.stream, link.flags.has(Flags::READ_CLOSED), &mut scratch[kept..kept + most]);
        let Outcome::Some { n, more } = outcome else {
            if matches!(outcome, Outcome::Closed) {
                self.peer_closed(key);
            }
            return 0;
        };
        if more {
            self.queue(key);
        }
        let bytes = &mut scratch[..kept + n];
        if !discards {
            match &self.links[key as usize] {
                Link { layers: Some(_), .. } => self.take_layered(key, bytes),
                Link { held, .. } if kept < held.len() => self.take_large(key, bytes),
                _ => {
                    self.empty_held(key);
                    self.feed(key, bytes);
                }
            }
        }
        n
    }

    /// What came of the first read of a link that has no layers.
    pub(super) fn take_read(&mut self, key: u32, outcome: &Outcome, bytes: &[u8]) {
        match outcome {
            Outcome::Some { more, .. } => {
                if *more {
                    self.queue(key);
                }
                self.feed(key, bytes);
            }
            Outcome::Nothing => {}
            Outcome::Closed => self.peer_closed(key),
        }
    }

    /// Bytes that stand in front of `bytes` are too many to copy there.
    fn take_large(&mut self, key: u32, bytes: &[u8]) {
        let mut held = std::mem::take(&mut self.links[key as usize].held);
        held.extend_from_slice(bytes);
        // The core looks at the first bytes alone until the packet is whole, so this costs nothing.
        self.feed_vec(key, held);
    }

    fn take_layered(&mut self, key: u32, raw: &mut [u8]) {
        let link = &mut self.links[key as usize];
        let Some(layers) = &mut link.layers else { return };
        let outcome = layers.decode(raw, &mut self.layer_scratch);
        let established = layers.is_established();
        if !layers.wire.is_empty() {
            self.to_flush.push(key);
        }
        let is_new = link.is_handshaking() && established && outcome.is_ok();
        if is_new {
            link.flags.clear(Flags::HANDSHAKING);
            self.handshaking -= 1;
            self.net.handshakes_done += 1;
            if !self.open(key, None) {
                self.layer_scratch.mqtt.clear();
                return;
            }
        }
        let mut mqtt = std::mem::take(&mut self.layer_scratch.mqtt);
        if !mqtt.is_empty() {
            let mut held = std::mem::take(&mut self.links[key as usize].held);
            if held.is_empty() {
                self.feed(key, &mqtt);
            } else {
                held.extend_from_slice(&mqtt);
                self.feed_vec(key, held);
            }
        }
        mqtt.clear();
        self.layer_scratch.mqtt = mqtt;
        match outcome {
            Ok(false) => {}
            Ok(true) => self.peer_closed(key),
            Err(fault) => self.cut(key, &fault),
        }
    }

    /// The peer broke the rules of a layer below MQTT.
    fn cut(&mut self, key: u32, fault: &Fault) {
        let Some(link) = self.links.get_mut(key as usize) else { return };
        tracing::debug!(shard = self.id.0, %fault, peer = ?link.stream.peer_addr().ok(), "connection cut");
        if link.is_handshaking() {
            self.net.handshakes_failed += 1;
        }
        self.say_last(key);
    }

    /// The peer sends nothing more.
    fn peer_closed(&mut self, key: u32) {
        // A client that closes right after its last request may still wait for the answer; this turn's are not written yet.
        self.flush_link(key);
        self.drop_link(key);
    }

    /// Gives the core bytes of a link that holds none, and keeps what it doesn't take.
    pub(super) fn feed(&mut self, key: u32, bytes: &[u8]) {
        let Some(received) = self.receive(key, bytes) else { return };
        let rest = bytes.get(received.consumed..).unwrap_or_default();
        if self.follow(key, received, rest) && !rest.is_empty() {
            let mut held = self.pool.pop().unwrap_or_default();
            held.extend_from_slice(rest);
            self.links[key as usize].held = held;
        }
    }

    /// The same with bytes that the link can go on holding without a copy.
    pub(super) fn feed_vec(&mut self, key: u32, mut bytes: Vec<u8>) {
        let Some(received) = self.receive(key, &bytes) else { return self.recycle(bytes) };
        if !self.follow(key, received, bytes.get(received.consumed..).unwrap_or_default()) {
            return self.recycle(bytes);
        }
        bytes.drain(..received.consumed);
        if bytes.is_empty() {
            self.recycle(bytes);
        } else {
            if bytes.capacity() / 4 > bytes.len() {
                bytes.shrink_to_fit();
            }
            self.links[key as usize].held = bytes;
        }
    }

    fn receive(&mut self, key: u32, bytes: &[u8]) -> Option<Received> {
        let conn = self.links.get(key as usize)?.conn?;
        Some(self.core.receive(conn, bytes, self.now))
    }

    /// Does what the core says. Says whether the link is to hold the rest.
    fn follow(&mut self, key: u32, received: Received, rest: &[u8]) -> bool {
        let link = &mut self.links[key as usize];
        // The core has accepted the CONNECT, so the link stays here and nobody will ask again for the address that the proxy gave.
        if received.consumed > 0 && link.layers.as_ref().is_some_and(|layers| layers.is_spent()) {
            link.layers = None;
        }
        match received.next {
            Next::Continue => true,
            Next::Pause => {
                link.flags.set(Flags::PAUSED);
                true
            }
            Next::Ending => {
                link.flags.set(Flags::ENDING);
                false
            }
            Next::Move(to) => {
                self.move_link(key, to, rest);
                false
            }
        }
    }

    /// Feeds what was held back from connections that may go on. Says whether there were any.
    pub(super) fn resume(&mut self) -> bool {
        let mut any = false;
        while let Some(conn) = self.core.next_resumed() {
            any = true;
            let Some(&key) = self.by_conn.get(conn.0 as usize) else { continue };
            let Some(link) = self.links.get_mut(key as usize).filter(|link| link.conn == Some(conn)) else { continue };
            link.flags.clear(Flags::PAUSED);
            let held = std::mem::take(&mut link.held);
            // Even if it holds nothing: edges may have passed while it was paused.
            self.queue(key);
            if !held.is_empty() {
                self.feed_vec(key, held);
            }
        }
        any
    }

    fn empty_held(&mut self, key: u32) {
        let held = std::mem::take(&mut self.links[key as usize].held);
        self.recycle(held);
    }

    pub(super) fn recycle(&mut self, mut buffer: Vec<u8>) {
        let useful = buffer.capacity() > 0 && buffer.capacity() <= POOL_BUFFER_BYTES_MAX;
        if useful && self.pool.len() < POOL_BUFFERS_MAX {
            buffer.clear();
            self.pool.push(buffer);
        }
    }
}

fn copy_in(scratch: &mut [u8], bytes: &[u8]) -> usize {
    scratch[..bytes.len()].copy_from_slice(bytes);
    bytes.len()
}

/// `closed`: the kernel has said that the peer has.
pub(super) fn read(mut stream: &TcpStream, closed: bool, space: &mut [u8]) -> Outcome {
    loop {
        return match stream.read(space) {
            Ok(0) => Outcome::Closed,
            // A short read has emptied the socket, and the kernel will say when more comes; unless the peer has closed, of which it has
            // spoken already.
            Ok(n) => Outcome::Some { n, more: n == space.len() || closed },
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => Outcome::Nothing,
                io::ErrorKind::Interrupted => continue,
                _ => Outcome::Closed,
            },
        };
    }
}
