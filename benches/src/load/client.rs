//! One client: its connection, and what it does with what comes.
//!
//! ```text
//! CONNECT sent ── CONNACK ─▶ (SUBSCRIBE sent ── SUBACK ─▶) ready ── error, close ─▶ closed
//! ```

use std::io;

use mio::{Registry, Token};
use turnpike_mqtt::{
    AckKind, Connect, ConnectProperties, ConnectReason, Disconnect, DisconnectProperties, Frame, PINGREQ, Packet,
    PacketId, PacketType, ReasonCode, SubscribeOptions, TopicFilter, Version, decode, encode, encode_ack,
    encode_subscribe, frame,
};

use super::publisher::Publisher;
use super::shared::Shared;
use super::subscriber::Subscriber;
use super::transport::{Connector, Transport};
use crate::plan::Plan;
use crate::spec::{Scenario, Spec};

/// How long a durable session of MQTT 5 outlives a run that didn't end it, seconds.
const SESSION_EXPIRY_S: u32 = 600;

pub(super) struct Client {
    pub(super) transport: Option<Transport>,
    pub(super) out: Vec<u8>,
    partial: Vec<u8>,
    /// In the worker's table.
    pub(super) plan: usize,
    pub(super) publisher: Option<Box<Publisher>>,
    pub(super) subscriber: Option<Box<Subscriber>>,
    version: Version,
    state: State,
    /// When connecting began, or should have.
    since_ns: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Connecting,
    Subscribing,
    Ready,
}

impl Client {
    /// Begins to connect.
    pub(super) fn connect(
        connector: &Connector,
        spec: &Spec,
        (at, plan): (usize, &Plan),
        since_ns: u64,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Self> {
        let mut client = Self {
            transport: Some(connector.connect(spec, plan.index, registry, token)?),
            out: Vec::new(),
            partial: Vec::new(),
            plan: at,
            publisher: plan.publication.as_ref().map(|publication| Box::new(Publisher::new(spec, publication))),
            subscriber: plan.subscription.as_ref().map(|subscription| Box::new(Subscriber::new(spec, subscription))),
            version: spec.version,
            state: State::Connecting,
            since_ns,
        };
        client.say_hello(spec, plan);
        Ok(client)
    }

    fn say_hello(&mut self, spec: &Spec, plan: &Plan) {
        let login = plan.login(spec, self.since_ns);
        let durable = spec.durable && plan.subscription.is_some();
        let is_v5 = spec.version.is_v5();
        let connect = Connect {
            version: spec.version,
            bridge: false,
            clean_start: is_v5 || !durable,
            keep_alive_s: if self.is_deaf() { 0 } else { spec.keep_alive_s },
            client_id: &login.client_id,
            will: None,
            user_name: login.user_name.as_deref(),
            password: login.password.as_deref().map(str::as_bytes),
            properties: ConnectProperties {
                session_expiry_s: (is_v5 && durable).then_some(SESSION_EXPIRY_S),
                ..ConnectProperties::default()
            },
        };
        encode(spec.version, &Packet::Connect(Box::new(connect)), &mut self.out);
    }

    pub(super) fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    pub(super) fn is_closed(&self) -> bool {
        self.transport.is_none()
    }

    pub(super) fn is_deaf(&self) -> bool {
        self.subscriber.as_ref().is_some_and(|subscriber| subscriber.deaf)
    }

    /// Takes what was read.
    #[inline]
    pub(super) fn receive(&mut self, bytes: &[u8], plan: &Plan, shared: &mut Shared) -> io::Result<()> {
        if self.partial.is_empty() {
            let consumed = self.packets(bytes, plan, shared)?;
            self.partial.extend_from_slice(&bytes[consumed..]);
        } else {
            let mut all = std::mem::take(&mut self.partial);
            all.extend_from_slice(bytes);
            let consumed = self.packets(&all, plan, shared)?;
            all.drain(..consumed);
            self.partial = all;
        }
        if self.partial.is_empty() {
            // The unfinished frame of a client that falls silent would stay for ever.
            self.partial = Vec::new();
        }
        Ok(())
    }

    fn packets(&mut self, bytes: &[u8], plan: &Plan, shared: &mut Shared) -> io::Result<usize> {
        let mut consumed = 0;
        while let Some(frame) = frame(&bytes[consumed..], u32::MAX).map_err(io::Error::other)? {
            consumed += frame.len();
            match frame.packet_type() {
                PacketType::Publish => self.delivery(frame, shared).ok_or_else(|| malformed("PUBLISH"))?,
                PacketType::PubAck | PacketType::PubComp => self.acked(shared),
                PacketType::PubRec => {
                    let id = id(frame.body).ok_or_else(|| malformed("PUBREC"))?;
                    // MQTT 5: the message isn't taken, so there is nothing to release.
                    if frame.body.get(2).is_some_and(|reason| *reason >= 0x80) {
                        self.acked(shared);
                    } else {
                        self.ack(AckKind::PubRel, id);
                    }
                }
                PacketType::PubRel => {
                    let id = id(frame.body).ok_or_else(|| malformed("PUBREL"))?;
                    self.ack(AckKind::PubComp, id);
                }
                PacketType::PingResp => {}
                _ => self.rare(frame, plan, shared)?,
            }
        }
        Ok(consumed)
    }

    fn rare(&mut self, frame: Frame<'_>, plan: &Plan, shared: &mut Shared) -> io::Result<()> {
        match decode(self.version, frame).map_err(io::Error::other)? {
            Packet::ConnAck(ack) if ack.reason != ConnectReason::Success => {
                Err(io::Error::other(format!("refused: {:?}", ack.reason)))
            }
            Packet::ConnAck(ack) => {
                if let (Some(publisher), Some(max)) = (&mut self.publisher, ack.properties.receive_maximum) {
                    publisher.limit(max);
                }
                self.connected(plan, shared);
                Ok(())
            }
            Packet::SubAck(ack) if ack.codes.iter().any(|code| *code > 2) => {
                Err(io::Error::other("a subscription is refused"))
            }
            Packet::SubAck(_) => {
                if self.state == State::Subscribing {
                    self.state = State::Ready;
                    shared.count_ready();
                }
                Ok(())
            }
            Packet::Disconnect(disconnect) => {
                Err(io::Error::other(format!("the broker ended the connection: {:?}", disconnect.reason)))
            }
            _ => Ok(()),
        }
    }

    fn connected(&mut self, plan: &Plan, shared: &mut Shared) {
        if self.state != State::Connecting {
            return;
        }
        shared.count_connected(self.since_ns);
        if self.subscriber.is_some() && shared.spec.scenario != Scenario::Retained {
            self.state = State::Subscribing;
            let spec = std::sync::Arc::clone(&shared.spec);
            self.subscribe(&spec, plan);
        } else {
            self.state = State::Ready;
            shared.count_ready();
        }
    }

    /// Asks for what the plan says.
    pub(super) fn subscribe(&mut self, spec: &Spec, plan: &Plan) {
        let Some(subscription) = &plan.subscription else { return };
        let requests = subscription
            .filters
            .iter()
            .filter_map(|filter| Some((TopicFilter::parse(filter).ok()?, SubscribeOptions::qos(spec.qos))));
        if let Some(id) = PacketId::new(1) {
            encode_subscribe(self.version, id, None, requests, &mut self.out);
        }
    }

    /// A message. Its bytes are looked at no further than needed: a broker is what is measured, not checked.
    #[inline]
    fn delivery(&mut self, frame: Frame<'_>, shared: &mut Shared) -> Option<()> {
        let body = frame.body;
        let mut at = 2 + usize::from(u16::from_be_bytes(body.get(..2)?.try_into().ok()?));
        let qos = (frame.first >> 1) & 3;
        if qos > 0 {
            let id = id(body.get(at..)?)?;
            at += 2;
            self.ack(if qos == 1 { AckKind::PubAck } else { AckKind::PubRec }, id);
        }
        if self.version.is_v5() {
            at += properties(body.get(at..)?)?;
        }
        if let Some(subscriber) = &mut self.subscriber {
            subscriber.note(body.get(at..)?, shared);
        }
        Some(())
    }

    #[inline]
    fn acked(&mut self, shared: &mut Shared) {
        if let Some(publisher) = &mut self.publisher {
            let at_ns = publisher.acked();
            shared.count_acked(publisher, at_ns);
        }
    }

    #[inline]
    fn ack(&mut self, kind: AckKind, id: PacketId) {
        encode_ack(self.version, kind, id, ReasonCode::Success, &mut self.out);
    }

    /// False if there is nobody to ping.
    pub(super) fn ping(&mut self) -> bool {
        let pings = self.is_ready() && !self.is_closed() && !self.is_deaf();
        if pings {
            self.out.extend_from_slice(&PINGREQ);
        }
        pings
    }

    /// Writes what is encoded, as far as the socket takes it.
    #[inline]
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let Some(transport) = &mut self.transport else { return Ok(()) };
        transport.write(&mut self.out)?;
        if self.out.is_empty() && self.publisher.is_none() && self.subscriber.is_none() {
            // It has said what it had to say.
            self.out = Vec::new();
        }
        Ok(())
    }

    /// Whether it should go as soon as it has come.
    pub(super) fn wants_close(&self, spec: &Spec) -> bool {
        spec.connecting.close && self.is_ready()
    }

    /// Disconnects in good order, as far as the socket takes it at once. `for_good`: a durable session of MQTT 5 ends, too.
    pub(super) fn leave(&mut self, spec: &Spec, registry: &Registry, for_good: bool) {
        let session_expiry_s = (for_good && spec.durable && spec.version.is_v5()).then_some(0);
        let properties = DisconnectProperties { session_expiry_s, ..DisconnectProperties::default() };
        // An expiry may not be set where there was none (MQTT 5, 3.14.2.2.2).
        let properties = if self.subscriber.is_some() { properties } else { DisconnectProperties::default() };
        if self.is_ready() {
            let packet = Packet::Disconnect(Disconnect { reason: ReasonCode::Success, properties });
            encode(self.version, &packet, &mut self.out);
            let _ = self.flush();
        }
        self.close(registry);
    }

    /// Ends the connection.
    pub(super) fn close(&mut self, registry: &Registry) {
        if let Some(transport) = self.transport.take() {
            transport.close(registry);
        }
    }

    /// Hears nothing from now on, without a word to the broker.
    pub(super) fn forget(&mut self, registry: &Registry) {
        if let Some(transport) = &mut self.transport {
            transport.forget(registry);
        }
    }
}

#[inline]
fn id(body: &[u8]) -> Option<PacketId> {
    PacketId::new(u16::from_be_bytes(body.get(..2)?.try_into().ok()?))
}

/// Bytes of a property section, its length included.
#[inline]
fn properties(body: &[u8]) -> Option<usize> {
    let mut length = 0;
    for (index, byte) in body.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7F) << (7 * index);
        if *byte < 0x80 {
            return Some(length + index + 1);
        }
    }
    None
}

fn malformed(what: &str) -> io::Error {
    io::Error::other(format!("a {what} that can't be"))
}
