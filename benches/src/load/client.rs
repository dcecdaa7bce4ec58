//! One client: its connection, and what it does with it.

use std::io::{self, Read, Write};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use turnpike_mqtt::{
    Ack, AckKind, Connect, ConnectProperties, ConnectReason, Packet, PacketId, PacketType, Publish, PublishProperties,
    QoS, ReasonCode, SubscribeOptions, TopicFilter, TopicName, Version, decode, decode_publish, encode, encode_ack,
    encode_publish, encode_subscribe, frame,
};

use super::STAMP_BYTES;
use crate::spec::{Scenario, Spec};

/// What a client is for.
pub(super) enum Role {
    Publisher(Publisher),
    Subscriber(Subscriber),
    Idle,
}

pub(super) struct Publisher {
    pub(super) index: usize,
    /// Messages published.
    pub(super) sent: u64,
    frame: Vec<u8>,
    id_at: Option<usize>,
    stamp_at: usize,
    next_id: u16,
}

pub(super) struct Subscriber {
    /// By publisher: the last sequence number.
    last: Vec<u32>,
    pub(super) lost: u64,
    pub(super) repeated: u64,
}

/// What a read brought that concerns others.
pub(super) enum Heard {
    /// Connected, and subscribed if it subscribes.
    Ready,
    Delivery {
        publisher: usize,
        at_ns: u64,
    },
}

pub(super) struct Client {
    stream: TcpStream,
    pub(super) out: Vec<u8>,
    partial: Vec<u8>,
    pub(super) touched: bool,
    pub(super) role: Role,
    index: usize,
    version: Version,
}

impl Publisher {
    fn new(spec: &Spec, index: usize) -> Self {
        let topic = spec.topic(index);
        let payload = vec![b'x'; spec.payload.max(STAMP_BYTES)];
        let publish = Publish {
            dup: false,
            qos: spec.qos,
            retain: false,
            topic: TopicName::parse(&topic).ok(),
            id: if spec.qos == QoS::AtMostOnce { None } else { PacketId::new(1) },
            properties: PublishProperties::default(),
            payload: &payload,
        };
        let mut frame = Vec::new();
        encode_publish(spec.version, &publish, &mut frame);
        let stamp_at = frame.len() - payload.len();
        let properties = usize::from(spec.version == Version::V5);
        let id_at = publish.id.map(|_| stamp_at - properties - 2);
        Self { index, sent: 0, frame, id_at, stamp_at, next_id: 0 }
    }

    /// Appends the next message.
    pub(super) fn publish(&mut self, out: &mut Vec<u8>, now_ns: u64) {
        self.sent += 1;
        if let Some(at) = self.id_at {
            self.next_id = self.next_id % u16::MAX + 1;
            self.frame[at..at + 2].copy_from_slice(&self.next_id.to_be_bytes());
        }
        let stamp = &mut self.frame[self.stamp_at..self.stamp_at + STAMP_BYTES];
        stamp[0..4].copy_from_slice(&(self.index as u32).to_le_bytes());
        stamp[4..8].copy_from_slice(&(self.sent as u32).to_le_bytes());
        stamp[8..16].copy_from_slice(&now_ns.to_le_bytes());
        out.extend_from_slice(&self.frame);
    }
}

impl Subscriber {
    /// Takes note of a message; says who published it and when.
    fn note(&mut self, payload: &[u8]) -> Option<(usize, u64)> {
        let (stamp, _) = payload.split_first_chunk::<STAMP_BYTES>()?;
        let publisher = u32::from_le_bytes(stamp[0..4].try_into().ok()?) as usize;
        let number = u32::from_le_bytes(stamp[4..8].try_into().ok()?);
        let last = self.last.get_mut(publisher)?;
        if number > *last {
            self.lost += u64::from(number - *last - 1);
            *last = number;
        } else {
            self.repeated += 1;
        }
        Some((publisher, u64::from_le_bytes(stamp[8..16].try_into().ok()?)))
    }
}

impl Client {
    /// Begins to connect. Subscribers have the first numbers.
    pub(super) fn connect(spec: &Spec, index: usize, registry: &Registry) -> io::Result<Self> {
        let mut stream = TcpStream::connect(spec.address)?;
        stream.set_nodelay(true)?;
        registry.register(&mut stream, Token(index), Interest::READABLE | Interest::WRITABLE)?;
        let role = if spec.scenario == Scenario::Idle {
            Role::Idle
        } else if index < spec.subscribers {
            Role::Subscriber(Subscriber { last: vec![0; spec.publishers], lost: 0, repeated: 0 })
        } else {
            Role::Publisher(Publisher::new(spec, index - spec.subscribers))
        };
        let mut client =
            Self { stream, out: Vec::new(), partial: Vec::new(), touched: false, role, index, version: spec.version };
        client.say_hello(spec);
        Ok(client)
    }

    fn say_hello(&mut self, spec: &Spec) {
        let login = spec.login(self.index);
        let connect = Connect {
            version: spec.version,
            bridge: false,
            clean_start: true,
            keep_alive_s: spec.keep_alive_s,
            client_id: &login.client_id,
            will: None,
            user_name: login.user_name.as_deref(),
            password: login.password.as_deref().map(str::as_bytes),
            properties: ConnectProperties::default(),
        };
        encode(spec.version, &Packet::Connect(Box::new(connect)), &mut self.out);
    }

    /// Reads once; true if there may be more.
    pub(super) fn read(&mut self, spec: &Spec, buffer: &mut [u8], mut heard: impl FnMut(Heard)) -> io::Result<bool> {
        let n = match self.stream.read(buffer) {
            Ok(0) => {
                return Err(io::Error::other(format!("the broker closed the connection of client {}", self.index)));
            }
            Ok(n) => n,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => {
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        let read = &buffer[..n];
        let mut kept = std::mem::take(&mut self.partial);
        if kept.is_empty() {
            let consumed = self.packets(spec, read, &mut heard)?;
            self.partial.extend_from_slice(&read[consumed..]);
        } else {
            kept.extend_from_slice(read);
            let consumed = self.packets(spec, &kept, &mut heard)?;
            kept.drain(..consumed);
            self.partial = kept;
        }
        Ok(n == buffer.len())
    }

    fn packets(&mut self, spec: &Spec, bytes: &[u8], heard: &mut impl FnMut(Heard)) -> io::Result<usize> {
        let mut consumed = 0;
        while let Some(frame) = frame(&bytes[consumed..], u32::MAX).map_err(io::Error::other)? {
            consumed += frame.len();
            if frame.packet_type() == PacketType::Publish {
                let publish = decode_publish(self.version, frame).map_err(io::Error::other)?;
                self.delivery(&publish, heard);
                continue;
            }
            match decode(self.version, frame).map_err(io::Error::other)? {
                Packet::ConnAck(ack) if ack.reason != ConnectReason::Success => {
                    return Err(io::Error::other(format!("client {} is refused: {:?}", self.index, ack.reason)));
                }
                Packet::ConnAck(_) => self.connected(spec, heard),
                Packet::SubAck(ack) if ack.codes.iter().any(|code| *code > 2) => {
                    return Err(io::Error::other(format!("the subscription of client {} is refused", self.index)));
                }
                Packet::SubAck(_) => heard(Heard::Ready),
                Packet::PubRec(Ack { id, .. }) => self.ack(AckKind::PubRel, id),
                Packet::PubRel(Ack { id, .. }) => self.ack(AckKind::PubComp, id),
                _ => {}
            }
        }
        Ok(consumed)
    }

    fn ack(&mut self, kind: AckKind, id: PacketId) {
        encode_ack(self.version, kind, id, ReasonCode::Success, &mut self.out);
    }

    fn connected(&mut self, spec: &Spec, heard: &mut impl FnMut(Heard)) {
        let Role::Subscriber(_) = self.role else {
            heard(Heard::Ready);
            return;
        };
        let topics: Vec<String> = match spec.scenario {
            Scenario::Pair => vec![spec.topic(self.index)],
            Scenario::FanIn | Scenario::FanOut | Scenario::Idle => {
                (0..spec.publishers).map(|n| spec.topic(n)).collect()
            }
        };
        let requests =
            topics.iter().filter_map(|t| Some((TopicFilter::parse(t).ok()?, SubscribeOptions::qos(spec.qos))));
        if let Some(id) = PacketId::new(1) {
            encode_subscribe(self.version, id, None, requests, &mut self.out);
        }
    }

    fn delivery(&mut self, publish: &Publish<'_>, heard: &mut impl FnMut(Heard)) {
        match (publish.qos, publish.id) {
            (QoS::AtLeastOnce, Some(id)) => self.ack(AckKind::PubAck, id),
            (QoS::ExactlyOnce, Some(id)) => self.ack(AckKind::PubRec, id),
            _ => {}
        }
        if let Role::Subscriber(subscriber) = &mut self.role
            && let Some((publisher, at_ns)) = subscriber.note(publish.payload)
        {
            heard(Heard::Delivery { publisher, at_ns });
        }
    }

    /// Writes what is encoded, as far as the socket takes it.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        match self.stream.write(&self.out) {
            Ok(n) if n == self.out.len() => self.out.clear(),
            Ok(n) => drop(self.out.drain(..n)),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
