//! From the core to sockets, and the ends of connections.

use std::io::{self, Write};
use std::net::Shutdown;

use mio::net::TcpStream;
use turnpike_core::gate::Gate;
use turnpike_core::ids::ConnId;

use super::link::{Flags, Link};
use super::{ShardThread, TURN_WRITE_BYTES};
use crate::transport::{Layers, Scratch};

/// MQTT bytes sealed at once for a layered connection; bounds what a link keeps when its socket blocks.
const SEAL_BYTES: usize = 64 << 10;

impl<G: Gate> ShardThread<G> {
    /// Writes what there is to write, each connection once, as far as the turn's budget goes.
    pub(super) fn flush(&mut self) {
        while let Some(key) = self.to_flush.pop() {
            self.flush_link(key);
        }
        let mut budget = TURN_WRITE_BYTES;
        let phase = self.phase();
        self.unflushed = false;
        while let Some(conn) = self.core.next_touched() {
            let key = self.by_conn.get(conn.0 as usize).copied();
            if let Some(key) = key.filter(|key| self.is_conn_of(*key, conn)) {
                budget = budget.saturating_sub(self.flush_link(key));
            }
            // What was written makes room for more, so this may go on for long.
            if budget == 0 || phase.is_over() {
                self.unflushed = true;
                return;
            }
        }
    }

    fn is_conn_of(&self, key: u32, conn: ConnId) -> bool {
        self.links.get(key as usize).is_some_and(|link| link.conn == Some(conn))
    }

    /// Gives the number of bytes written.
    pub(super) fn flush_link(&mut self, key: u32) -> usize {
        // Whoever came in hears it now.
        self.core.keep_judged();
        match self.links.get(key as usize) {
            Some(link) if link.flags.has(Flags::BLOCKED.with(Flags::LINGERING)) => {
                self.time_end(key);
                0
            }
            Some(Link { layers: None, .. }) => self.flush_plain(key),
            Some(_) => self.flush_layered(key),
            None => 0,
        }
    }

    fn flush_plain(&mut self, key: u32) -> usize {
        let link = &mut self.links[key as usize];
        let Some(conn) = link.conn else { return 0 };
        let output = self.core.output(conn);
        let close = output.close;
        let mut written = 0;
        if !output.bytes.is_empty() {
            let length = output.bytes.len();
            if close {
                link.flags.set(Flags::SAID);
            }
            match write(&link.stream, output.bytes) {
                Ok(n) => {
                    written = n;
                    if n < length {
                        link.flags.set(Flags::BLOCKED);
                    }
                    self.core.wrote(conn, n, self.now);
                }
                Err(_) => {
                    self.drop_link(key);
                    return 0;
                }
            }
        }
        if close {
            self.end_if_written(key, conn);
        }
        written
    }

    fn flush_layered(&mut self, key: u32) -> usize {
        let mut total = 0;
        loop {
            match self.write_wire(key) {
                Ok(true) => {}
                Ok(false) => {
                    self.time_end(key);
                    return total;
                }
                Err(_) => {
                    self.drop_link(key);
                    return total;
                }
            }
            let link = &mut self.links[key as usize];
            let (Some(conn), Some(layers)) = (link.conn, &mut link.layers) else { return total };
            let output = self.core.output(conn);
            let some = output.bytes.get(..SEAL_BYTES).unwrap_or(output.bytes);
            if some.is_empty() {
                if output.close {
                    self.finish(key);
                }
                return total;
            }
            if output.close {
                link.flags.set(Flags::SAID);
            }
            match seal(layers, &link.stream, some, &mut self.layer_scratch) {
                Some(written) => total += written,
                None => {
                    self.drop_link(key);
                    return total;
                }
            }
            let taken = some.len();
            self.core.wrote(conn, taken, self.now);
        }
    }

    /// Writes the sealed bytes that a link kept. Says whether none are left.
    fn write_wire(&mut self, key: u32) -> io::Result<bool> {
        let link = &mut self.links[key as usize];
        let Some(layers) = link.layers.as_mut().filter(|layers| !layers.wire.is_empty()) else { return Ok(true) };
        let n = write(&link.stream, &layers.wire)?;
        if n == layers.wire.len() {
            layers.wire = Vec::new();
            return Ok(true);
        }
        layers.wire.drain(..n);
        link.flags.set(Flags::BLOCKED);
        Ok(false)
    }

    /// The core wants the connection closed when all is written.
    fn end_if_written(&mut self, key: u32, conn: ConnId) {
        if self.core.output(conn).bytes.is_empty() && !self.links[key as usize].flags.has(Flags::BLOCKED) {
            self.finish(key);
        } else {
            self.time_end(key);
        }
    }

    /// A link that is to end gets a time limit, once.
    fn time_end(&mut self, key: u32) {
        let Some(link) = self.links.get_mut(key as usize) else { return };
        let ends = match link.conn {
            Some(conn) => self.core.output(conn).close,
            None => !link.is_handshaking(),
        };
        if ends && !link.flags.has(Flags::TIMED) {
            link.flags.set(Flags::TIMED.with(Flags::ENDING));
            let at_ms = self.now.mono_ms + u64::from(self.transport.linger_ms);
            self.endings.push(at_ms, key, link.serial);
        }
    }

    /// Everything is written.
    fn finish(&mut self, key: u32) {
        let link = &mut self.links[key as usize];
        if let Some(layers) = &mut link.layers {
            layers.farewell();
            // If there is no room for it, the peer sees the end of the stream all the same.
            let _ = write(&link.stream, &layers.wire);
        }
        if link.flags.has(Flags::SAID) && !link.flags.has(Flags::READ_CLOSED) {
            self.linger(key);
        } else {
            self.drop_link(key);
        }
    }

    /// Writes what a layer has to say about a fault, and parts with the connection.
    pub(super) fn say_last(&mut self, key: u32) {
        match self.write_wire(key) {
            Ok(true) => self.linger(key),
            Ok(false) | Err(_) => self.drop_link(key),
        }
    }

    /// Closes our side and waits for the peer to close its own. Were the socket closed while bytes of the peer are on their way, the kernel
    /// would answer them with a reset, and the peer might lose what we said last.
    fn linger(&mut self, key: u32) {
        self.release(key);
        let link = &mut self.links[key as usize];
        link.flags.set(Flags::LINGERING);
        // What it was paused for doesn't matter any more, and its end has to be seen.
        link.flags.clear(Flags::PAUSED);
        link.held = Vec::new();
        link.layers = None;
        if link.stream.shutdown(Shutdown::Write).is_err() {
            return self.drop_link(key);
        }
        self.time_end(key);
        self.queue(key);
    }

    /// Forgets a link at once, and closes its socket.
    pub(super) fn drop_link(&mut self, key: u32) {
        if self.links.contains(key as usize) {
            self.release(key);
            self.links.remove(key as usize);
        }
    }

    /// The core, or the count of handshakes, no longer has to do with the link.
    fn release(&mut self, key: u32) {
        let link = &mut self.links[key as usize];
        if link.is_handshaking() {
            link.flags.clear(Flags::HANDSHAKING);
            self.handshaking -= 1;
        } else if let Some(conn) = link.conn.take() {
            self.core.closed(conn, self.now);
        }
        link.flags.set(Flags::ENDING);
    }
}

/// Seals MQTT bytes and writes them; what the socket doesn't take, the layers keep. None if the connection is beyond use.
fn seal(layers: &mut Layers, stream: &TcpStream, mqtt: &[u8], scratch: &mut Scratch) -> Option<usize> {
    scratch.wire.clear();
    if let Err(fault) = layers.encode(mqtt, scratch) {
        tracing::debug!(%fault, "can't seal");
        return None;
    }
    let written = write(stream, &scratch.wire).ok()?;
    layers.wire.extend_from_slice(scratch.wire.get(written..).unwrap_or_default());
    Some(written)
}

/// What the socket takes now: nothing if it is full.
fn write(mut stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match stream.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            written => return written,
        }
    }
}
