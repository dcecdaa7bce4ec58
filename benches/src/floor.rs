//! The floor: a forwarder with no session, no authentication and no store. The least that any broker can cost.
//!
//! One thread, one epoll, one read buffer for all connections, one write a touched connection a turn. It answers CONNECT and
//! SUBSCRIBE with success, acknowledges QoS 1 at once, forwards by exact topic with a copy of the bytes, and ignores what
//! subscribers acknowledge. It trusts its peers: nothing is checked that isn't needed to find the next byte.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use turnpike_mqtt::{
    Frame, PINGRESP, Packet, PacketId, PacketType, QoS, SubAck, Version, decode, decode_connect, encode, frame,
};

const LISTENER: Token = Token(usize::MAX);
const READ_BYTES: usize = 256 << 10;

struct Peer {
    stream: TcpStream,
    version: Version,
    out: Vec<u8>,
    partial: Vec<u8>,
    touched: bool,
    next_id: u16,
}

/// The forwarder.
pub struct Floor {
    poll: Poll,
    listener: TcpListener,
    peers: Slab<Peer>,
    subscribers: HashMap<Box<[u8]>, Vec<(usize, QoS)>, RandomState>,
    touched: Vec<usize>,
}

/// A PUBLISH, cut where its parts begin.
struct Cut<'a> {
    qos: u8,
    topic: &'a [u8],
    id: [u8; 2],
    /// Behind the packet identifier: properties, if it has any, and the payload.
    rest: &'a [u8],
}

impl Floor {
    /// Listens.
    ///
    /// # Errors
    /// What the socket says.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let poll = Poll::new()?;
        let domain = if address.is_ipv4() { socket2::Domain::IPV4 } else { socket2::Domain::IPV6 };
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(4096)?;
        let mut listener = TcpListener::from_std(socket.into());
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self { poll, listener, peers: Slab::new(), subscribers: HashMap::default(), touched: Vec::new() })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the socket says.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Forwards until the process ends.
    ///
    /// # Errors
    /// What epoll says.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(),
                    Token(key) => {
                        if event.is_readable() && !self.read(key, &mut buffer, event.is_read_closed()) {
                            self.close(key);
                        } else if event.is_writable() {
                            touch(&mut self.peers, &mut self.touched, key);
                        }
                    }
                }
            }
            self.flush();
        }
    }

    fn accept(&mut self) {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                // No descriptors are left: those who wait are let in by the next one's edge.
                Err(_) => return,
            };
            let _ = stream.set_nodelay(true);
            let entry = self.peers.vacant_entry();
            let interest = Interest::READABLE | Interest::WRITABLE;
            if self.poll.registry().register(&mut stream, Token(entry.key()), interest).is_ok() {
                entry.insert(Peer {
                    stream,
                    version: Version::V311,
                    out: Vec::new(),
                    partial: Vec::new(),
                    touched: false,
                    next_id: 0,
                });
            }
        }
    }

    /// False when the connection is over.
    fn read(&mut self, key: usize, buffer: &mut [u8], closing: bool) -> bool {
        loop {
            let Some(peer) = self.peers.get_mut(key) else { return true };
            let n = match peer.stream.read(buffer) {
                Ok(0) => return false,
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            };
            let read = &buffer[..n];
            let mut kept = std::mem::take(&mut peer.partial);
            let all = if kept.is_empty() {
                read
            } else {
                kept.extend_from_slice(read);
                &kept
            };
            let Some(consumed) = self.frames(key, all) else { return false };
            if let Some(peer) = self.peers.get_mut(key) {
                if kept.is_empty() {
                    peer.partial.extend_from_slice(&read[consumed..]);
                } else if consumed < kept.len() {
                    kept.drain(..consumed);
                    peer.partial = kept;
                }
            }
            if n < buffer.len() && !closing {
                return true;
            }
        }
    }

    /// How many bytes were whole frames; none if the connection is over.
    fn frames(&mut self, key: usize, bytes: &[u8]) -> Option<usize> {
        let mut consumed = 0;
        while let Some(frame) = frame(&bytes[consumed..], u32::MAX).ok()? {
            let size = frame.len();
            match frame.packet_type() {
                PacketType::Publish => self.forward(key, &bytes[consumed..consumed + size], frame)?,
                PacketType::PubAck => {}
                PacketType::PingReq => {
                    self.peers.get_mut(key)?.out.extend_from_slice(&PINGRESP);
                    touch(&mut self.peers, &mut self.touched, key);
                }
                PacketType::Connect => {
                    let version = decode_connect(frame).ok()?.version;
                    let peer = self.peers.get_mut(key)?;
                    peer.version = version;
                    let connack: &[u8] = if version.is_v5() { &[0x20, 3, 0, 0, 0] } else { &[0x20, 2, 0, 0] };
                    peer.out.extend_from_slice(connack);
                    touch(&mut self.peers, &mut self.touched, key);
                }
                PacketType::Subscribe => self.subscribe(key, frame)?,
                PacketType::Disconnect => return None,
                _ => {}
            }
            consumed += size;
        }
        Some(consumed)
    }

    fn subscribe(&mut self, key: usize, frame: Frame<'_>) -> Option<()> {
        let version = self.peers.get(key)?.version;
        let Packet::Subscribe(subscribe) = decode(version, frame).ok()? else { return None };
        let mut codes = Vec::new();
        for (filter, options) in subscribe.filters.iter() {
            // It forwards QoS 2 no higher than 1, and says so.
            let qos = options.qos.min(QoS::AtLeastOnce);
            self.subscribers.entry(filter.as_str().as_bytes().into()).or_default().push((key, qos));
            codes.push(qos as u8);
        }
        let ack = SubAck { id: subscribe.id, properties: Default::default(), codes: &codes };
        encode(version, &Packet::SubAck(ack), &mut self.peers.get_mut(key)?.out);
        touch(&mut self.peers, &mut self.touched, key);
        Some(())
    }

    fn forward(&mut self, from: usize, bytes: &[u8], frame: Frame<'_>) -> Option<()> {
        let cut = Cut::new(frame)?;
        let version = self.peers.get(from)?.version;
        if cut.qos > 0 {
            let peer = self.peers.get_mut(from)?;
            peer.out.extend_from_slice(&[0x40, 2, cut.id[0], cut.id[1]]);
            touch(&mut self.peers, &mut self.touched, from);
        }
        let Some(subscribers) = self.subscribers.get(cut.topic) else { return Some(()) };
        for &(key, qos) in subscribers {
            let Some(peer) = self.peers.get_mut(key) else { continue };
            let qos = cut.qos.min(qos as u8);
            if qos == cut.qos && peer.version == version {
                // The same bytes, but for the identifier, which is at the same place.
                let at = peer.out.len() + bytes.len() - cut.rest.len();
                peer.out.extend_from_slice(bytes);
                if qos > 0 {
                    let id = peer.id();
                    peer.out[at - 2..at].copy_from_slice(&id);
                }
            } else {
                peer.deliver(&cut, qos, version);
            }
            if !peer.touched {
                peer.touched = true;
                self.touched.push(key);
            }
        }
        Some(())
    }

    fn flush(&mut self) {
        let mut touched = std::mem::take(&mut self.touched);
        for key in touched.drain(..) {
            let Some(peer) = self.peers.get_mut(key) else { continue };
            peer.touched = false;
            if peer.out.is_empty() {
                continue;
            }
            match peer.stream.write(&peer.out) {
                Ok(n) if n == peer.out.len() => peer.out.clear(),
                Ok(n) => drop(peer.out.drain(..n)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => self.close(key),
            }
            if let Some(peer) = self.peers.get_mut(key)
                && peer.out.is_empty()
                && peer.next_id == 0
                && peer.out.capacity() <= 64
            {
                // The buffer of a CONNACK, on a connection that may be silent for ever.
                peer.out = Vec::new();
            }
        }
        self.touched = touched;
    }

    fn close(&mut self, key: usize) {
        if let Some(mut peer) = self.peers.try_remove(key) {
            let _ = self.poll.registry().deregister(&mut peer.stream);
            self.subscribers.retain(|_, subscribers| {
                subscribers.retain(|(known, _)| *known != key);
                !subscribers.is_empty()
            });
        }
    }
}

impl Peer {
    fn id(&mut self) -> [u8; 2] {
        self.next_id = self.next_id % u16::MAX + 1;
        self.next_id.to_be_bytes()
    }

    /// What can't be copied as it is, since the versions or the QoS differ: without properties.
    fn deliver(&mut self, cut: &Cut<'_>, qos: u8, version: Version) {
        let Some(payload) = cut.payload(version) else { return };
        let Ok(topic) = std::str::from_utf8(cut.topic) else { return };
        let id = if qos > 0 { PacketId::new(u16::from_be_bytes(self.id())) } else { None };
        let publish = turnpike_mqtt::Publish {
            dup: false,
            qos: if qos > 0 { QoS::AtLeastOnce } else { QoS::AtMostOnce },
            retain: false,
            topic: Some(turnpike_mqtt::TopicName::from_validated(topic)),
            id,
            properties: Default::default(),
            payload,
        };
        turnpike_mqtt::encode_publish(self.version, &publish, &mut self.out);
    }
}

impl<'a> Cut<'a> {
    #[inline]
    fn new(frame: Frame<'a>) -> Option<Self> {
        let qos = (frame.first >> 1) & 3;
        let (length, body) = frame.body.split_first_chunk::<2>()?;
        let (topic, rest) = body.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        if qos == 0 {
            return Some(Self { qos, topic, id: [0; 2], rest });
        }
        let (id, rest) = rest.split_first_chunk::<2>()?;
        Some(Self { qos, topic, id: *id, rest })
    }

    fn payload(&self, version: Version) -> Option<&'a [u8]> {
        if !version.is_v5() {
            return Some(self.rest);
        }
        // Properties of 128 bytes and more are beyond a forwarder.
        let length = usize::from(*self.rest.first()?);
        self.rest.get(1 + length..)
    }
}

#[inline]
fn touch(peers: &mut Slab<Peer>, touched: &mut Vec<usize>, key: usize) {
    if let Some(peer) = peers.get_mut(key)
        && !peer.touched
    {
        peer.touched = true;
        touched.push(key);
    }
}
