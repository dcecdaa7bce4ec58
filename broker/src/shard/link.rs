//! A connection as the shell sees it: the socket, and the bytes that can't go on yet.

use std::net::SocketAddr;

use mio::net::TcpStream;
use turnpike_core::ids::ConnId;
use turnpike_core::shard::Peer;

use crate::transport::Layers;

/// One connection. For an idle one over TCP this is all that the shell has, 56 bytes.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) stream: TcpStream,
    /// The core's name for it; none before the handshake is done and after the core has let go of it.
    pub(crate) conn: Option<ConnId>,
    /// Tells it from others that had or will have its place, for deadlines.
    pub(crate) serial: u32,
    pub(crate) flags: Flags,
    /// Bytes for the core that it has not consumed: an unfinished packet, or what came while it was paused.
    pub(crate) held: Vec<u8>,
    /// PROXY, TLS, WebSocket; none for plain TCP.
    pub(crate) layers: Option<Box<Layers>>,
}

/// States of a link that may hold at once.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Flags(u16);

impl Flags {
    /// In the list of links to be read.
    pub(crate) const QUEUED: Self = Self(1);
    /// The core wants no bytes for now.
    pub(crate) const PAUSED: Self = Self(1 << 1);
    /// The socket took less than it was given; an event will say when it takes more.
    pub(crate) const BLOCKED: Self = Self(1 << 2);
    /// The peer has said that it sends no more: read until the end, since no further event will come.
    pub(crate) const READ_CLOSED: Self = Self(1 << 3);
    /// The core wants no bytes any more.
    pub(crate) const ENDING: Self = Self(1 << 4);
    /// Something was written for the end; the peer gets time to take it.
    pub(crate) const SAID: Self = Self(1 << 5);
    /// Everything is written and shut down; what still comes is thrown away until the peer closes.
    pub(crate) const LINGERING: Self = Self(1 << 6);
    /// A deadline for its end is in the queue.
    pub(crate) const TIMED: Self = Self(1 << 7);
    /// The poll knows the socket.
    pub(crate) const REGISTERED: Self = Self(1 << 9);
    /// PROXY, TLS or WebSocket has still to come to an end.
    pub(crate) const HANDSHAKING: Self = Self(1 << 8);

    pub(crate) fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(crate) fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn set(&mut self, other: Self) {
        self.0 |= other.0;
    }

    pub(crate) fn clear(&mut self, other: Self) {
        self.0 &= !other.0;
    }
}

impl Link {
    pub(crate) fn is_handshaking(&self) -> bool {
        self.flags.has(Flags::HANDSHAKING)
    }
}

/// A connection on its way to another shard. Whether its socket is readable, writable or closed isn't kept: registration with the other
/// poll says it again.
#[derive(Debug)]
pub(crate) struct MovedLink {
    pub(crate) stream: TcpStream,
    /// The socket's peer.
    pub(crate) addr: SocketAddr,
    pub(crate) held: Vec<u8>,
    pub(crate) layers: Option<Box<Layers>>,
}

/// Who is at the other end of a link, from what its layers know.
pub(crate) fn peer(layers: Option<&Layers>, addr: SocketAddr) -> Peer {
    // A socket for both families gives IPv4 as a part of IPv6.
    let addr = SocketAddr::new(addr.ip().to_canonical(), addr.port());
    match layers {
        None => Peer { addr, tls: false, certificate: None },
        Some(layers) => {
            Peer { addr: layers.proxied().unwrap_or(addr), tls: layers.is_tls(), certificate: layers.certificate() }
        }
    }
}

/// Deadlines that are all equally far off when they are set, so a queue keeps them in order.
#[derive(Debug, Default)]
pub(crate) struct Deadlines(std::collections::VecDeque<(u64, u32, u32)>);

impl Deadlines {
    /// `at_ms` is no earlier than that of any push before.
    pub(crate) fn push(&mut self, at_ms: u64, key: u32, serial: u32) {
        self.0.push_back((at_ms, key, serial));
    }

    /// The earliest.
    pub(crate) fn next(&self) -> Option<u64> {
        self.0.front().map(|(at_ms, ..)| *at_ms)
    }

    /// One that is due.
    pub(crate) fn pop_due(&mut self, now_ms: u64) -> Option<(u32, u32)> {
        self.0.front().filter(|(at_ms, ..)| *at_ms <= now_ms)?;
        self.0.pop_front().map(|(_, key, serial)| (key, serial))
    }

    /// Takes those off the front that no longer matter, so that finished ones don't pile up.
    pub(crate) fn trim(&mut self, live: impl Fn(u32, u32) -> bool) {
        while self.0.front().is_some_and(|(_, key, serial)| !live(*key, *serial)) {
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_link_is_small() {
        // mio adds a word to a socket in a debug build.
        let spare = if cfg!(debug_assertions) { 8 } else { 0 };
        assert!(size_of::<Link>() <= 56 + spare, "{}", size_of::<Link>());
    }

    #[test]
    fn deadlines_fall_due_in_order() {
        let mut deadlines = Deadlines::default();
        deadlines.push(10, 1, 1);
        deadlines.push(20, 2, 1);
        assert_eq!(deadlines.pop_due(9), None);
        assert_eq!(deadlines.pop_due(15), Some((1, 1)));
        assert_eq!(deadlines.next(), Some(20));
        deadlines.trim(|key, _| key != 2);
        assert_eq!(deadlines.next(), None);
    }
}
