//! The floor: a forwarder with no session, no authentication and no store. The least that any broker can cost.
//!
//! One thread, one epoll, one read buffer for all connections, one write a touched connection a turn. It answers CONNECT and
//! SUBSCRIBE with success, acknowledges QoS 1 at once, forwards by exact topic, and ignores what subscribers acknowledge.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use turnpike_mqtt::{
    AckKind, Delivery, PacketId, PacketType, QoS, ReasonCode, Version, decode_connect, decode_publish, encode_ack,
    encode_delivery, frame,
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
    subscribers: HashMap<Box<str>, Vec<(usize, QoS)>>,
    touched: Vec<usize>,
    /// Out buffers that nobody uses: an idle peer owns none.
    pool: Vec<Vec<u8>>,
}

impl Floor {
    /// Listens.
    ///
    /// # Errors
    /// What the socket says.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut listener = TcpListener::bind(address)?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            poll,
            listener,
            peers: Slab::new(),
            subscribers: HashMap::new(),
            touched: Vec::new(),
            pool: Vec::new(),
        })
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
                    LISTENER => self.accept()?,
                    Token(key) => {
                        if event.is_readable() && !self.read(key, &mut buffer) {
                            self.close(key);
                        } else if event.is_writable() {
                            self.touch(key);
                        }
                    }
                }
            }
            self.flush();
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let (mut stream, _) = match self.listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(_) => continue,
            };
            stream.set_nodelay(true)?;
            let entry = self.peers.vacant_entry();
            self.poll.registry().register(&mut stream, Token(entry.key()), Interest::READABLE | Interest::WRITABLE)?;
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

    /// False when the connection is over.
    fn read(&mut self, key: usize, buffer: &mut [u8]) -> bool {
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
            let consumed = if kept.is_empty() {
                self.frames(key, read)
            } else {
                kept.extend_from_slice(read);
                self.frames(key, &kept)
            };
            let Some(consumed) = consumed else { return false };
            if let Some(peer) = self.peers.get_mut(key) {
                if kept.is_empty() {
                    peer.partial.extend_from_slice(&read[consumed..]);
                } else {
                    kept.drain(..consumed);
                    peer.partial = kept;
                }
            }
            if n < buffer.len() {
                return true;
            }
        }
    }

    fn frames(&mut self, key: usize, bytes: &[u8]) -> Option<usize> {
        let mut consumed = 0;
        while let Some(frame) = frame(&bytes[consumed..], u32::MAX).ok()? {
            consumed += frame.len();
            match frame.packet_type() {
                PacketType::Publish => {
                    let version = self.peers.get(key)?.version;
                    self.forward(key, &decode_publish(version, frame).ok()?);
                }
                PacketType::Connect => {
                    let version = decode_connect(frame).ok()?.version;
                    let peer = self.peers.get_mut(key)?;
                    peer.version = version;
                    peer.out.extend_from_slice(if version == Version::V5 {
                        &[0x20, 3, 0, 0, 0]
                    } else {
                        &[0x20, 2, 0, 0]
                    });
                    self.touch(key);
                }
                PacketType::Subscribe => self.subscribe(key, frame)?,
                PacketType::PingReq => {
                    self.peers.get_mut(key)?.out.extend_from_slice(&turnpike_mqtt::PINGRESP);
                    self.touch(key);
                }
                PacketType::Disconnect => return None,
                _ => {}
            }
        }
        Some(consumed)
    }

    fn subscribe(&mut self, key: usize, frame: turnpike_mqtt::Frame<'_>) -> Option<()> {
        let version = self.peers.get(key)?.version;
        let turnpike_mqtt::Packet::Subscribe(subscribe) = turnpike_mqtt::decode(version, frame).ok()? else {
            return None;
        };
        let mut codes = Vec::new();
        for (filter, options) in subscribe.filters.iter() {
            self.subscribers.entry(filter.as_str().into()).or_default().push((key, options.qos));
            codes.push(options.qos as u8);
        }
        let ack = turnpike_mqtt::SubAck { id: subscribe.id, properties: Default::default(), codes: &codes };
        turnpike_mqtt::encode(version, &turnpike_mqtt::Packet::SubAck(ack), &mut self.peers.get_mut(key)?.out);
        self.touch(key);
        Some(())
    }

    fn forward(&mut self, from: usize, publish: &turnpike_mqtt::Publish<'_>) {
        let Some(topic) = publish.topic else { return };
        if let (Some(id), Some(peer)) = (publish.id, self.peers.get_mut(from)) {
            encode_ack(peer.version, AckKind::PubAck, id, ReasonCode::Success, &mut peer.out);
            self.touch(from);
        }
        let Some(subscribers) = self.subscribers.get(topic.as_str()) else { return };
        for &(key, qos) in subscribers {
            let Some(peer) = self.peers.get_mut(key) else { continue };
            let qos = qos.min(publish.qos);
            let id = if qos == QoS::AtMostOnce {
                None
            } else {
                peer.next_id = peer.next_id % u16::MAX + 1;
                PacketId::new(peer.next_id)
            };
            let delivery = Delivery {
                dup: false,
                qos,
                retain: false,
                topic,
                topic_alias: None,
                omit_topic: false,
                id,
                message_expiry_s: None,
                identifiers: &[],
                forwardable: &[],
                payload: publish.payload,
            };
            if peer.out.capacity() == 0 {
                peer.out = self.pool.pop().unwrap_or_default();
            }
            encode_delivery(peer.version, &delivery, &mut peer.out);
            if !peer.touched {
                peer.touched = true;
                self.touched.push(key);
            }
        }
    }

    fn touch(&mut self, key: usize) {
        if let Some(peer) = self.peers.get_mut(key)
            && !peer.touched
        {
            peer.touched = true;
            self.touched.push(key);
        }
    }

    fn flush(&mut self) {
        for key in std::mem::take(&mut self.touched) {
            let Some(peer) = self.peers.get_mut(key) else { continue };
            peer.touched = false;
            if peer.out.is_empty() {
                continue;
            }
            match peer.stream.write(&peer.out) {
                Ok(n) if n == peer.out.len() => {
                    let mut buffer = std::mem::take(&mut peer.out);
                    buffer.clear();
                    self.pool.push(buffer);
                }
                Ok(n) => drop(peer.out.drain(..n)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => self.close(key),
            }
        }
    }

    fn close(&mut self, key: usize) {
        if let Some(mut peer) = self.peers.try_remove(key) {
            let _ = self.poll.registry().deregister(&mut peer.stream);
            for subscribers in self.subscribers.values_mut() {
                subscribers.retain(|(known, _)| *known != key);
            }
        }
    }
}
