//! From packets to bytes. Everything appends to what is there.

use crate::frame::PacketType;
use crate::packet::{
    Auth, ConnAck, Connect, Disconnect, FilterRequest, Packet, PacketId, Publish, QoS, SubAck, Subscribe, Unsubscribe,
    Version,
};
use crate::properties::{id, variable_len};
use crate::property::AckProperties;
use crate::reason::{ConnectReason, ReasonCode};
use crate::topic::{TopicFilter, TopicName};

/// PINGREQ.
pub const PINGREQ: [u8; 2] = [0xC0, 0];
/// PINGRESP.
pub const PINGRESP: [u8; 2] = [0xD0, 0];

/// A PUBLISH to one subscriber, as the broker sends it: forwarded properties are bytes.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// Sent before.
    pub dup: bool,
    /// QoS of the delivery.
    pub qos: QoS,
    /// RETAIN of the delivery.
    pub retain: bool,
    /// The topic.
    pub topic: TopicName<'a>,
    /// Its alias (MQTT 5).
    pub topic_alias: Option<u16>,
    /// The subscriber knows the alias: the topic is left out.
    pub omit_topic: bool,
    /// Some exactly if QoS is above 0.
    pub id: Option<PacketId>,
    /// What is left of it, in seconds (MQTT 5).
    pub message_expiry_s: Option<u32>,
    /// Subscription identifiers (MQTT 5).
    pub identifiers: &'a [u32],
    /// Encoded properties that are handed on (MQTT 5).
    pub forwardable: &'a [u8],
    /// The application's bytes.
    pub payload: &'a [u8],
}

impl Delivery<'_> {
    #[inline]
    fn property_bytes(&self) -> usize {
        let mut bytes = self.forwardable.len();
        if self.topic_alias.is_some() {
            bytes += 3;
        }
        if self.message_expiry_s.is_some() {
            bytes += 5;
        }
        for identifier in self.identifiers {
            bytes += 1 + variable_len(*identifier);
        }
        bytes
    }

    /// Properties' length without their prefix, and the remaining length.
    #[inline]
    fn lengths(&self, version: Version) -> (usize, usize) {
        let topic = if self.omit_topic { 0 } else { self.topic.as_str().len() };
        let fixed = 2 + topic + id_len(self.qos, self.id) + self.payload.len();
        if version.is_v5() {
            let properties = self.property_bytes();
            (properties, fixed + variable_len(length(properties)) + properties)
        } else {
            (0, fixed)
        }
    }
}

/// Bytes that [`encode_delivery`] appends.
#[inline]
#[must_use]
pub fn delivery_len(version: Version, delivery: &Delivery<'_>) -> usize {
    let (_, remaining) = delivery.lengths(version);
    1 + variable_len(length(remaining)) + remaining
}

/// Appends a PUBLISH to a subscriber.
#[inline]
pub fn encode_delivery(version: Version, delivery: &Delivery<'_>, out: &mut Vec<u8>) {
    let (properties, remaining) = delivery.lengths(version);
    out.reserve(remaining + 5);
    out.push(publish_first(delivery.dup, delivery.qos, delivery.retain));
    variable(out, length(remaining));
    binary(out, if delivery.omit_topic { b"" } else { delivery.topic.as_str().as_bytes() });
    if let Some(id) = delivery.id {
        out.extend_from_slice(&id.get().to_be_bytes());
    }
    if version.is_v5() {
        variable(out, length(properties));
        if properties > 0 {
            if let Some(alias) = delivery.topic_alias {
                out.push(id::TOPIC_ALIAS);
                out.extend_from_slice(&alias.to_be_bytes());
            }
            if let Some(expiry_s) = delivery.message_expiry_s {
                out.push(id::MESSAGE_EXPIRY);
                out.extend_from_slice(&expiry_s.to_be_bytes());
            }
            out.extend_from_slice(delivery.forwardable);
            for identifier in delivery.identifiers {
                out.push(id::SUBSCRIPTION_IDENTIFIER);
                variable(out, *identifier);
            }
        }
    }
    out.extend_from_slice(delivery.payload);
}

/// The acknowledgements that look alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AckKind {
    /// PUBACK.
    PubAck,
    /// PUBREC.
    PubRec,
    /// PUBREL.
    PubRel,
    /// PUBCOMP.
    PubComp,
}

impl AckKind {
    fn first(self) -> u8 {
        match self {
            Self::PubAck => 0x40,
            Self::PubRec => 0x50,
            // [MQTT-3.6.1-1]
            Self::PubRel => 0x62,
            Self::PubComp => 0x70,
        }
    }
}

/// Appends an acknowledgement in its shortest form.
/// Implements [MQTT-2.2.1-5].
#[inline]
pub fn encode_ack(version: Version, kind: AckKind, id: PacketId, reason: ReasonCode, out: &mut Vec<u8>) {
    let [high, low] = id.get().to_be_bytes();
    if version.is_v5() && reason != ReasonCode::Success {
        out.extend_from_slice(&[kind.first(), 3, high, low, reason as u8]);
    } else {
        out.extend_from_slice(&[kind.first(), 2, high, low]);
    }
}

/// Appends a packet of either direction. MQTT 3 has no properties: they are left out.
pub fn encode(version: Version, packet: &Packet<'_>, out: &mut Vec<u8>) {
    match packet {
        Packet::Connect(packet) => connect(packet, out),
        Packet::ConnAck(packet) => connack(version, packet, out),
        Packet::Publish(packet) => encode_publish(version, packet, out),
        Packet::PubAck(packet) => ack(version, AckKind::PubAck, packet.id, packet.reason, &packet.properties, out),
        Packet::PubRec(packet) => ack(version, AckKind::PubRec, packet.id, packet.reason, &packet.properties, out),
        Packet::PubRel(packet) => ack(version, AckKind::PubRel, packet.id, packet.reason, &packet.properties, out),
        Packet::PubComp(packet) => ack(version, AckKind::PubComp, packet.id, packet.reason, &packet.properties, out),
        Packet::Subscribe(packet) => subscribe(version, packet, out),
        Packet::SubAck(packet) => suback(version, PacketType::SubAck, packet, out),
        Packet::Unsubscribe(packet) => unsubscribe(version, packet, out),
        Packet::UnsubAck(packet) => suback(version, PacketType::UnsubAck, packet, out),
        Packet::PingReq => out.extend_from_slice(&PINGREQ),
        Packet::PingResp => out.extend_from_slice(&PINGRESP),
        Packet::Disconnect(packet) => disconnect(version, packet, out),
        Packet::Auth(packet) => auth(packet, out),
    }
}

/// Appends a PUBLISH of either direction.
pub fn encode_publish(version: Version, publish: &Publish<'_>, out: &mut Vec<u8>) {
    let topic = publish.topic.map_or("", TopicName::as_str);
    let mut remaining = 2 + topic.len() + id_len(publish.qos, publish.id) + publish.payload.len();
    let properties = if version.is_v5() { publish.properties.encoded_len() } else { 0 };
    if version.is_v5() {
        remaining += variable_len(length(properties)) + properties;
    }
    out.reserve(remaining + 5);
    out.push(publish_first(publish.dup, publish.qos, publish.retain));
    variable(out, length(remaining));
    binary(out, topic.as_bytes());
    if let Some(id) = publish.id {
        out.extend_from_slice(&id.get().to_be_bytes());
    }
    if version.is_v5() {
        variable(out, length(properties));
        publish.properties.encode(out);
    }
    out.extend_from_slice(publish.payload);
}

/// Appends a SUBSCRIBE of these requests.
pub fn encode_subscribe<'a>(
    version: Version,
    id: PacketId,
    identifier: Option<u32>,
    requests: impl IntoIterator<Item = FilterRequest<'a>>,
    out: &mut Vec<u8>,
) {
    framed(0x82, out, |body| {
        body.extend_from_slice(&id.get().to_be_bytes());
        let properties = crate::property::SubscribeProperties { identifier, ..Default::default() };
        section(version, body, |out| properties.encode(out));
        for (filter, options) in requests {
            binary(body, filter.as_str().as_bytes());
            body.push(if version.is_v5() { options.to_byte() } else { options.qos as u8 });
        }
    });
}

/// Appends an UNSUBSCRIBE of these filters.
pub fn encode_unsubscribe<'a>(
    version: Version,
    id: PacketId,
    filters: impl IntoIterator<Item = TopicFilter<'a>>,
    out: &mut Vec<u8>,
) {
    framed(0xA2, out, |body| {
        body.extend_from_slice(&id.get().to_be_bytes());
        section(version, body, |_| {});
        for filter in filters {
            binary(body, filter.as_str().as_bytes());
        }
    });
}

/// Bytes of a PUBLISH's packet identifier.
#[inline]
fn id_len(qos: QoS, id: Option<PacketId>) -> usize {
    debug_assert_eq!(qos != QoS::AtMostOnce, id.is_some(), "[MQTT-2.2.1-2] an identifier above QoS 0 and only there");
    if id.is_some() { 2 } else { 0 }
}

#[inline]
fn publish_first(dup: bool, qos: QoS, retain: bool) -> u8 {
    0x30 | u8::from(dup) << 3 | (qos as u8) << 1 | u8::from(retain)
}

fn connect(packet: &Connect<'_>, out: &mut Vec<u8>) {
    framed(0x10, out, |body| {
        binary(body, if packet.version == Version::V31 { b"MQIsdp" } else { b"MQTT" });
        body.push(packet.version as u8 | u8::from(packet.bridge && !packet.version.is_v5()) << 7);
        let will = packet.will.as_ref();
        body.push(
            u8::from(packet.clean_start) << 1
                | will.map_or(0, |will| 0x04 | (will.qos as u8) << 3 | u8::from(will.retain) << 5)
                | u8::from(packet.password.is_some()) << 6
                | u8::from(packet.user_name.is_some()) << 7,
        );
        body.extend_from_slice(&packet.keep_alive_s.to_be_bytes());
        section(packet.version, body, |out| packet.properties.encode(out));
        binary(body, packet.client_id.as_bytes());
        if let Some(will) = will {
            section(packet.version, body, |out| will.properties.encode(out));
            binary(body, will.topic.as_str().as_bytes());
            binary(body, will.payload);
        }
        if let Some(user_name) = packet.user_name {
            binary(body, user_name.as_bytes());
        }
        if let Some(password) = packet.password {
            binary(body, password);
        }
    });
}

fn connack(version: Version, packet: &ConnAck<'_>, out: &mut Vec<u8>) {
    framed(0x20, out, |body| {
        // [MQTT-3.2.2-6] not with a refusal. MQTT 3.1 has no session present flag.
        let session_present = packet.session_present && packet.reason == ConnectReason::Success;
        body.push(u8::from(session_present && version != Version::V31));
        // [MQTT-3.2.2-8]
        body.push(if version.is_v5() { packet.reason as u8 } else { packet.reason.return_code() });
        section(version, body, |out| packet.properties.encode(out));
    });
}

fn ack(
    version: Version,
    kind: AckKind,
    id: PacketId,
    reason: ReasonCode,
    properties: &AckProperties<'_>,
    out: &mut Vec<u8>,
) {
    if !version.is_v5() || properties.is_empty() {
        encode_ack(version, kind, id, reason, out);
        return;
    }
    framed(kind.first(), out, |body| {
        body.extend_from_slice(&id.get().to_be_bytes());
        body.push(reason as u8);
        section(version, body, |out| properties.encode(out));
    });
}

fn subscribe(version: Version, packet: &Subscribe<'_>, out: &mut Vec<u8>) {
    framed(0x82, out, |body| {
        body.extend_from_slice(&packet.id.get().to_be_bytes());
        section(version, body, |out| packet.properties.encode(out));
        body.extend_from_slice(packet.filters.bytes);
    });
}

/// Implements [MQTT-2.2.1-6].
fn suback(version: Version, packet_type: PacketType, packet: &SubAck<'_>, out: &mut Vec<u8>) {
    framed((packet_type as u8) << 4, out, |body| {
        body.extend_from_slice(&packet.id.get().to_be_bytes());
        section(version, body, |out| packet.properties.encode(out));
        // MQTT 3's UNSUBACK has no codes (3.11.3).
        if version.is_v5() || packet_type == PacketType::SubAck {
            body.extend_from_slice(packet.codes);
        }
    });
}

fn unsubscribe(version: Version, packet: &Unsubscribe<'_>, out: &mut Vec<u8>) {
    framed(0xA2, out, |body| {
        body.extend_from_slice(&packet.id.get().to_be_bytes());
        section(version, body, |out| packet.properties.encode(out));
        body.extend_from_slice(packet.filters.bytes);
    });
}

fn disconnect(version: Version, packet: &Disconnect<'_>, out: &mut Vec<u8>) {
    framed(0xE0, out, |body| {
        if !version.is_v5() {
            return;
        }
        if !packet.properties.is_empty() {
            body.push(packet.reason as u8);
            section(version, body, |out| packet.properties.encode(out));
        } else if packet.reason != ReasonCode::Success {
            body.push(packet.reason as u8);
        }
    });
}

fn auth(packet: &Auth<'_>, out: &mut Vec<u8>) {
    framed(0xF0, out, |body| {
        body.push(packet.reason as u8);
        section(Version::V5, body, |out| packet.properties.encode(out));
    });
}

/// Writes a packet whose length isn't known beforehand: the body first, then the length in front of it.
fn framed(first: u8, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(first);
    prefixed(out, write);
}

/// Writes a property section, in MQTT 5; without properties it is its length alone [MQTT-2.2.2-1].
fn section(version: Version, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    if version.is_v5() {
        prefixed(out, write);
    }
}

/// Writes a variable byte integer and as many bytes. One byte is set aside for it, which nearly always is enough.
fn prefixed(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.push(0);
    write(out);
    let value = length(out.len() - at - 1);
    let size = variable_len(value);
    let prefix: [u8; 4] = std::array::from_fn(|index| {
        let more = if index + 1 < size { 0x80 } else { 0 };
        ((value >> (7 * index)) & 0x7F) as u8 | more
    });
    out.splice(at..=at, prefix.into_iter().take(size));
}

/// Appends a length-prefixed string or binary data.
#[inline]
pub(crate) fn binary(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).expect("strings and binary data have at most 65,535 bytes");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Appends a variable byte integer (1.5.5).
#[inline]
pub(crate) fn variable(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[inline]
fn length(bytes: usize) -> u32 {
    debug_assert!(bytes < 1 << 28, "the caller bounds its packets");
    u32::try_from(bytes).expect("a packet has at most 256 MiB")
}
