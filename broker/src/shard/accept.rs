//! Connections that come in, and those that come over from another shard.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Token};
use turnpike_core::gate::Gate;
use turnpike_core::ids::ShardId;

use super::link::{Flags, Link, MovedLink, peer};
use super::newcomer::Newcomer;
use super::{ShardThread, WAKE};
use crate::inbox::Envelope;
use crate::tls::Acceptor;
use crate::transport::{Layers, Stack};

/// Connections accepted at one entrance in one turn.
const ACCEPTS_PER_TURN: usize = 256;
/// Connections that are accepted and read before the core hears of them.
const GROUP: usize = 64;
/// Wait after the kernel has run out of descriptors or memory.
const ACCEPT_RETRY_MS: u64 = 100;
/// The same complaint isn't logged more often.
const COMPLAINT_INTERVAL_MS: u64 = 1000;

/// What all shards know of a listener.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) name: String,
    pub(crate) proxy: bool,
    pub(crate) tls: Option<Arc<Acceptor>>,
    pub(crate) websocket: Option<Arc<[String]>>,
}

impl Door {
    fn has_handshake(&self) -> bool {
        self.proxy || self.tls.is_some() || self.websocket.is_some()
    }

    fn stack(&self) -> Stack {
        Stack { proxy: self.proxy, tls: self.tls.clone(), websocket: self.websocket.clone() }
    }
}

/// One shard's socket of a listener.
#[derive(Debug)]
pub(crate) struct Entrance {
    listener: TcpListener,
    door: Arc<Door>,
    /// The kernel has said that somebody waits, and hasn't said otherwise since.
    pub(crate) ready: bool,
    pub(crate) retry_at_ms: Option<u64>,
}

impl Entrance {
    /// Registers the socket as the `index`-th of its shard.
    pub(crate) fn new(
        registry: &mio::Registry,
        listener: std::net::TcpListener,
        door: Arc<Door>,
        index: usize,
    ) -> io::Result<Self> {
        let mut listener = TcpListener::from_std(listener);
        registry.register(&mut listener, Token(WAKE.0 - 1 - index), Interest::READABLE)?;
        Ok(Self { listener, door, ready: true, retry_at_ms: None })
    }

    /// Whether somebody waits who may come in at once. `room`: for another handshake.
    pub(crate) fn is_due(&self, room: bool, now_ms: u64) -> bool {
        self.ready && (room || !self.door.has_handshake()) && self.retry_at_ms.is_none_or(|at_ms| at_ms <= now_ms)
    }
}

impl<G: Gate> ShardThread<G> {
    pub(super) fn accept(&mut self) {
        let mut scratch = std::mem::take(&mut self.scratch);
        for index in 0..self.entrances.len() {
            let (room, now_ms) = (self.has_room(), self.now.mono_ms);
            if let Some(entrance) = self.entrances.get_mut(index).filter(|entrance| entrance.is_due(room, now_ms)) {
                entrance.retry_at_ms = None;
                self.accept_at(index, &mut scratch);
            }
        }
        self.scratch = scratch;
    }

    /// For another handshake.
    pub(super) fn has_room(&self) -> bool {
        self.handshaking < self.transport.handshakes_max
    }

    /// In groups: all of a group are accepted, then read, then shown to the core, then registered. Each of these is code of its own, some of it
    /// the kernel's, and what the processor has loaded of it serves a group instead of one connection.
    fn accept_at(&mut self, index: usize, scratch: &mut [u8]) {
        let mut group = std::mem::take(&mut self.newcomers);
        for _ in 0..ACCEPTS_PER_TURN / GROUP {
            let goes_on = self.gather(index, &mut group, scratch);
            self.admit(&mut group, scratch);
            if !goes_on {
                break;
            }
        }
        self.newcomers = group;
    }

    /// Accepts a group. Those with a handshake before them begin it at once. Says whether there may be more.
    fn gather(&mut self, index: usize, group: &mut Vec<Newcomer>, scratch: &mut [u8]) -> bool {
        for _ in 0..GROUP {
            let room = self.has_room();
            let Some(entrance) = self.entrances.get_mut(index) else { return false };
            if entrance.door.has_handshake() && !room {
                return false;
            }
            match entrance.listener.accept() {
                Ok((stream, addr)) => {
                    self.net.accepted += 1;
                    if stream.as_raw_fd().cast_unsigned() >= self.first_descriptor_kept {
                        // All below are taken, and the rest is for others. To be closed is an answer; the kernel's queue is none.
                        self.net.shed += 1;
                        continue;
                    }
                    // Behind a proxy everybody has its address; the header tells the client's, and the core asks then.
                    if !entrance.door.proxy && !self.core.accepts(addr.ip(), self.now) {
                        continue;
                    }
                    if entrance.door.has_handshake() {
                        let door = Arc::clone(&entrance.door);
                        self.begin_handshake(stream, &door, scratch);
                    } else {
                        group.push(Newcomer { stream, addr });
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    entrance.ready = false;
                    return false;
                }
                Err(error) if is_exhaustion(&error) => {
                    entrance.retry_at_ms = Some(self.now.mono_ms + ACCEPT_RETRY_MS);
                    let listener = entrance.door.name.clone();
                    self.net.accept_errors += 1;
                    self.complain(&listener, &error);
                    return false;
                }
                // The peer has gone meanwhile, or a signal came.
                Err(_) => {}
            }
        }
        true
    }

    fn complain(&mut self, listener: &str, error: &io::Error) {
        if self.now.mono_ms >= self.accept_complaint_ms {
            self.accept_complaint_ms = self.now.mono_ms + COMPLAINT_INTERVAL_MS;
            tracing::error!(listener, %error, "can't accept connections; raise the limit on open files");
        }
    }

    fn begin_handshake(&mut self, stream: TcpStream, door: &Door, scratch: &mut [u8]) {
        let layers = match Layers::new(&door.stack()) {
            Ok(layers) => Box::new(layers),
            Err(fault) => {
                tracing::error!(listener = door.name, %fault, "can't begin a handshake");
                return;
            }
        };
        let key = self.insert(stream, Some(layers));
        self.handshaking += 1;
        let link = &mut self.links[key as usize];
        link.flags.set(Flags::HANDSHAKING);
        let at_ms = self.now.mono_ms + u64::from(self.transport.handshake_timeout_ms);
        self.handshakes.push(at_ms, key, link.serial);
        self.read_link(key, scratch);
        self.register(key);
    }

    /// Has the poll watch the socket. Nothing that lies in it is missed: registration reports what is there.
    pub(super) fn register(&mut self, key: u32) {
        let Some(link) = self.links.get_mut(key as usize) else { return };
        let interest = Interest::READABLE | Interest::WRITABLE;
        match self.poll.registry().register(&mut link.stream, Token(key as usize), interest) {
            Ok(()) => link.flags.set(Flags::REGISTERED),
            Err(error) => {
                self.net.accept_errors += 1;
                self.complain("", &error);
                self.drop_link(key);
            }
        }
    }

    pub(super) fn insert(&mut self, stream: TcpStream, layers: Option<Box<Layers>>) -> u32 {
        self.next_serial = self.next_serial.wrapping_add(1);
        let key = self.links.insert(Link {
            stream,
            conn: None,
            serial: self.next_serial,
            flags: Flags::default(),
            held: Vec::new(),
            layers,
        });
        u32::try_from(key).expect("a table's keys are below 2^32")
    }

    /// Shows the connection to the core. `addr` is the socket's peer, where that is known. Says whether the core took it; else it is gone.
    pub(super) fn open(&mut self, key: u32, addr: Option<SocketAddr>) -> bool {
        let Some(link) = self.links.get_mut(key as usize) else { return false };
        let known = addr.map_or_else(|| link.stream.peer_addr(), Ok);
        let conn = known.ok().and_then(|addr| self.core.open(peer(link.layers.as_deref(), addr), self.now));
        let Some(conn) = conn else {
            self.net.shed += 1;
            self.drop_link(key);
            return false;
        };
        link.conn = Some(conn);
        let index = conn.0 as usize;
        if self.by_conn.len() <= index {
            self.by_conn.resize(index + 1, u32::MAX);
        }
        self.by_conn[index] = key;
        true
    }

    /// Takes a connection over from another shard.
    pub(super) fn adopt(&mut self, moved: MovedLink) {
        let MovedLink { stream, addr, held, mut layers } = moved;
        // No shard saw it while it was on its way.
        if let Some(Err(error)) = layers.as_mut().map(|layers| layers.judge_again()) {
            tracing::debug!(shard = self.id.0, %error, peer = %addr, "connection cut");
            return;
        }
        let key = self.insert(stream, layers);
        if !self.open(key, Some(addr)) {
            return;
        }
        self.net.adopted += 1;
        self.to_flush.push(key);
        self.feed(key, &held);
        self.recycle(held);
        self.register(key);
    }

    /// Sends a connection to another shard, with the bytes that the core hasn't taken.
    pub(super) fn move_link(&mut self, key: u32, to: ShardId, rest: &[u8]) {
        let Some(mut link) = self.links.remove(key as usize) else { return };
        if let Some(conn) = link.conn {
            self.core.closed(conn, self.now);
        }
        if link.flags.has(Flags::REGISTERED) && self.poll.registry().deregister(&mut link.stream).is_err() {
            return;
        }
        let Ok(addr) = link.stream.peer_addr() else { return };
        let Link { stream, layers, .. } = link;
        let moved = MovedLink { stream, addr, held: rest.to_vec(), layers };
        if let Some(outbox) = self.outboxes.get_mut(usize::from(to.0)) {
            outbox.others.push(Envelope::Adopt(Box::new(moved)));
        }
    }
}

/// The process or the machine has run out of something.
fn is_exhaustion(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}
