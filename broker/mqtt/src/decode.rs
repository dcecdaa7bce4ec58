//! From frames to packets. Nothing is copied.

use crate::error::DecodeError;
use crate::frame::{Frame, PacketType};
use crate::packet::{
    Ack, Auth, ConnAck, Connect, Disconnect, FilterRequest, Packet, PacketId, Publish, QoS, RetainHandling, SubAck,
    Subscribe, SubscribeFilters, SubscribeOptions, Unsubscribe, UnsubscribeFilters, Version, Will,
};
use crate::property::{
    AckProperties, AuthProperties, ConnAckProperties, ConnectProperties, DisconnectProperties, PublishProperties,
    SubscribeProperties, WillProperties,
};
use crate::reader::Reader;
use crate::reason::{ConnectReason, ReasonCode};
use crate::topic::{TopicFilter, TopicName};

type Result<T> = std::result::Result<T, DecodeError>;

/// A packet of either direction, of a connection that speaks `version`. (CONNECT says its own.)
///
/// # Errors
/// What is wrong with it; [`DecodeError::reason`] is what to tell the peer.
pub fn decode<'a>(version: Version, frame: Frame<'a>) -> Result<Packet<'a>> {
    check_length(version, frame)?;
    let mut reader = Reader::new(frame.body);
    let packet = match frame.packet_type() {
        PacketType::Connect => return decode_connect(frame).map(|connect| Packet::Connect(Box::new(connect))),
        PacketType::Publish => return decode_publish(version, frame).map(Packet::Publish),
        PacketType::ConnAck => Packet::ConnAck(Box::new(connack(version, &mut reader)?)),
        PacketType::PubAck => Packet::PubAck(ack(version, &mut reader, is_received_reason)?),
        PacketType::PubRec => Packet::PubRec(ack(version, &mut reader, is_received_reason)?),
        PacketType::PubRel => Packet::PubRel(ack(version, &mut reader, is_release_reason)?),
        PacketType::PubComp => Packet::PubComp(ack(version, &mut reader, is_release_reason)?),
        PacketType::Subscribe => Packet::Subscribe(subscribe(version, &mut reader)?),
        PacketType::SubAck => Packet::SubAck(suback(version, &mut reader, is_subscribe_code)?),
        PacketType::Unsubscribe => Packet::Unsubscribe(unsubscribe(version, &mut reader)?),
        PacketType::UnsubAck => Packet::UnsubAck(suback(version, &mut reader, is_unsubscribe_code)?),
        PacketType::PingReq => Packet::PingReq,
        PacketType::PingResp => Packet::PingResp,
        PacketType::Disconnect => Packet::Disconnect(disconnect(version, &mut reader)?),
        PacketType::Auth => Packet::Auth(auth(version, &mut reader)?),
    };
    if reader.is_empty() { Ok(packet) } else { Err(DecodeError::Trailing) }
}

/// CONNECT (3.1).
///
/// # Errors
/// [`DecodeError::UnsupportedProtocolVersion`] for MQTT of another level; else what is wrong.
pub fn decode_connect(frame: Frame<'_>) -> Result<Connect<'_>> {
    let mut reader = Reader::new(frame.body);
    let name = reader.binary()?;
    let level = reader.u8()?;
    // [MQTT-3.1.2-1] [MQTT-3.1.2-2] [MQTT3-3.1.2-2]
    let (version, bridge) = match (name, level) {
        (b"MQTT", 5) => (Version::V5, false),
        (b"MQTT", 4 | 0x84) => (Version::V311, level > 0x80),
        (b"MQIsdp", 3 | 0x83) => (Version::V31, level > 0x80),
        (b"MQTT" | b"MQIsdp", _) => return Err(DecodeError::UnsupportedProtocolVersion),
        _ => return Err(DecodeError::ProtocolName),
    };
    check_length(version, frame)?;
    let flags = reader.u8()?;
    let has = |bit: u8| flags & bit != 0;
    // [MQTT-3.1.2-3]
    if has(0x01) {
        return Err(DecodeError::ConnectFlags);
    }
    let keep_alive_s = reader.u16()?;
    let properties = match version {
        Version::V5 => ConnectProperties::decode(reader.section()?)?,
        Version::V31 | Version::V311 => ConnectProperties::default(),
    };
    // [MQTT-3.1.3-1] [MQTT-3.1.3-3] from here on the order is that of the fields.
    let client_id = reader.string()?;
    // [MQTT-3.1.2-9] [MQTT3-3.1.2-11]
    let will = if has(0x04) {
        let properties = match version {
            Version::V5 => WillProperties::decode(reader.section()?)?,
            Version::V31 | Version::V311 => WillProperties::default(),
        };
        // [MQTT-3.1.3-11]
        let topic = TopicName::parse(reader.raw_string()?)?;
        let payload = reader.binary()?;
        // [MQTT-3.1.2-12]
        let qos = QoS::try_from((flags >> 3) & 0b11).map_err(|_| DecodeError::ConnectFlags)?;
        Some(Will { topic, payload, qos, retain: has(0x20), properties })
    } else if flags & 0x38 != 0 {
        // [MQTT-3.1.2-11] [MQTT-3.1.2-13]
        return Err(DecodeError::ConnectFlags);
    } else {
        None
    };
    // [MQTT3-3.1.2-22] a password needs a user name, until MQTT 5. MQTT 3.1 lets the fields be missing at the end of the packet.
    if has(0x40) && !has(0x80) && version == Version::V311 {
        return Err(DecodeError::ConnectFlags);
    }
    // What the flags announce has to come, and nothing else: [MQTT-3.1.2-16] [MQTT-3.1.2-17] [MQTT-3.1.2-18] [MQTT-3.1.2-19].
    let lenient = version == Version::V31;
    // [MQTT-3.1.3-12]
    let user_name = if has(0x80) && !(lenient && reader.is_empty()) { Some(reader.string()?) } else { None };
    let password = if has(0x40) && !(lenient && reader.is_empty()) { Some(reader.binary()?) } else { None };
    if !reader.is_empty() {
        return Err(DecodeError::Trailing);
    }
    Ok(Connect {
        version,
        bridge,
        clean_start: has(0x02),
        keep_alive_s,
        client_id,
        will,
        user_name,
        password,
        properties,
    })
}

/// PUBLISH (3.3).
///
/// # Errors
/// What is wrong with it.
#[inline]
pub fn decode_publish(version: Version, frame: Frame<'_>) -> Result<Publish<'_>> {
    check_length(version, frame)?;
    // [MQTT-3.3.1-4]
    let qos = QoS::try_from((frame.first >> 1) & 0b11).map_err(|_| DecodeError::QoS)?;
    let dup = frame.first & 0x08 != 0;
    if dup && qos == QoS::AtMostOnce {
        return Err(DecodeError::DupWithoutQoS);
    }
    let mut reader = Reader::new(frame.body);
    let text = reader.raw_string()?;
    let id = match qos {
        QoS::AtMostOnce => None,
        QoS::AtLeastOnce | QoS::ExactlyOnce => Some(PacketId::new(reader.u16()?).ok_or(DecodeError::PacketIdentifier)?),
    };
    let properties = match version {
        Version::V5 => match reader.section()? {
            [] => PublishProperties::default(),
            section => PublishProperties::decode(section)?,
        },
        Version::V31 | Version::V311 => PublishProperties::default(),
    };
    let topic = if !text.is_empty() {
        // [MQTT-3.3.2-1] [MQTT-3.3.2-2]
        Some(TopicName::parse(text)?)
    } else if version.is_v5() {
        if properties.topic_alias.is_none() {
            return Err(DecodeError::NoTopic);
        }
        None
    } else {
        return Err(DecodeError::Topic(crate::topic::TopicError::Empty));
    };
    Ok(Publish { dup, qos, retain: frame.first & 0x01 != 0, topic, id, properties, payload: reader.rest() })
}

/// [MQTT-1.5.5-1]
#[inline]
fn check_length(version: Version, frame: Frame<'_>) -> Result<()> {
    if version.is_v5() && !frame.is_shortest() { Err(DecodeError::RemainingLength) } else { Ok(()) }
}

fn connack<'a>(version: Version, reader: &mut Reader<'a>) -> Result<ConnAck<'a>> {
    let flags = reader.u8()?;
    // [MQTT-3.2.2-1]
    if flags > 1 {
        return Err(DecodeError::Flags);
    }
    let code = reader.u8()?;
    let (reason, properties) = if version.is_v5() {
        let reason = ConnectReason::try_from(code).map_err(|_| DecodeError::ReasonCode)?;
        (reason, ConnAckProperties::decode(reader.section()?)?)
    } else {
        let reason = match code {
            0 => ConnectReason::Success,
            1 => ConnectReason::UnsupportedProtocolVersion,
            2 => ConnectReason::ClientIdentifierNotValid,
            3 => ConnectReason::ServerUnavailable,
            4 => ConnectReason::BadUserNameOrPassword,
            5 => ConnectReason::NotAuthorized,
            _ => return Err(DecodeError::ReasonCode),
        };
        (reason, ConnAckProperties::default())
    };
    Ok(ConnAck { session_present: flags == 1, reason, properties })
}

fn ack<'a>(version: Version, reader: &mut Reader<'a>, belongs: fn(ReasonCode) -> bool) -> Result<Ack<'a>> {
    let id = PacketId::new(reader.u16()?).ok_or(DecodeError::PacketIdentifier)?;
    let (mut reason, mut properties) = (ReasonCode::Success, AckProperties::default());
    if version.is_v5() && !reader.is_empty() {
        reason = ReasonCode::try_from(reader.u8()?).map_err(|_| DecodeError::ReasonCode)?;
        if !belongs(reason) {
            return Err(DecodeError::ReasonCode);
        }
        if !reader.is_empty() {
            properties = AckProperties::decode(reader.section()?)?;
        }
    }
    Ok(Ack { id, reason, properties })
}

/// [MQTT-3.4.2-1] [MQTT-3.5.2-1]
fn is_received_reason(reason: ReasonCode) -> bool {
    matches!(
        reason,
        ReasonCode::Success
            | ReasonCode::NoMatchingSubscribers
            | ReasonCode::UnspecifiedError
            | ReasonCode::ImplementationSpecificError
            | ReasonCode::NotAuthorized
            | ReasonCode::TopicNameInvalid
            | ReasonCode::PacketIdentifierInUse
            | ReasonCode::QuotaExceeded
            | ReasonCode::PayloadFormatInvalid
    )
}

/// [MQTT-3.6.2-1] [MQTT-3.7.2-1]
fn is_release_reason(reason: ReasonCode) -> bool {
    matches!(reason, ReasonCode::Success | ReasonCode::PacketIdentifierNotFound)
}

fn request_id(reader: &mut Reader<'_>) -> Result<PacketId> {
    PacketId::new(reader.u16()?).ok_or(DecodeError::RequestIdentifier)
}

fn subscribe<'a>(version: Version, reader: &mut Reader<'a>) -> Result<Subscribe<'a>> {
    let id = request_id(reader)?;
    let properties = match version {
        Version::V5 => SubscribeProperties::decode(reader.section()?)?,
        Version::V31 | Version::V311 => SubscribeProperties::default(),
    };
    let filters = SubscribeFilters { bytes: reader.take(reader.rest().len())?, version };
    let mut list = Reader::new(filters.bytes);
    // [MQTT-3.8.3-2]
    if list.is_empty() {
        return Err(DecodeError::NoFilters);
    }
    while !list.is_empty() {
        let (filter, options) = filter_request(version, &mut list)?;
        // [MQTT-3.8.3-4]
        if options.no_local && filter.share().is_some() {
            return Err(DecodeError::SharedNoLocal);
        }
    }
    Ok(Subscribe { id, properties, filters })
}

fn filter_request<'a>(version: Version, list: &mut Reader<'a>) -> Result<FilterRequest<'a>> {
    // [MQTT-3.8.3-1]
    let filter = TopicFilter::parse(list.raw_string()?)?;
    let byte = list.u8()?;
    // [MQTT3-3.8.3-4] MQTT 3 has the QoS alone.
    if !version.is_v5() && byte > 2 {
        return Err(DecodeError::SubscribeOptions);
    }
    Ok((filter, SubscribeOptions::from_byte(byte)?))
}

impl<'a> SubscribeFilters<'a> {
    /// The requests, in order.
    pub fn iter(&self) -> impl Iterator<Item = FilterRequest<'a>> + use<'a> {
        let (mut list, version) = (Reader::new(self.bytes), self.version);
        std::iter::from_fn(move || filter_request(version, &mut list).ok())
    }
}

impl SubscribeOptions {
    /// Reads the options byte (3.8.3.1).
    ///
    /// # Errors
    /// Reserved bits or values [MQTT-3.8.3-5].
    pub fn from_byte(byte: u8) -> Result<Self> {
        let retain_handling = match (byte >> 4) & 0b11 {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DontSend,
            _ => return Err(DecodeError::SubscribeOptions),
        };
        if byte & 0xC0 != 0 {
            return Err(DecodeError::SubscribeOptions);
        }
        Ok(Self {
            qos: QoS::try_from(byte & 0b11).map_err(|_| DecodeError::SubscribeOptions)?,
            no_local: byte & 0x04 != 0,
            retain_as_published: byte & 0x08 != 0,
            retain_handling,
        })
    }

    /// The options byte.
    #[must_use]
    pub fn to_byte(self) -> u8 {
        self.qos as u8
            | u8::from(self.no_local) << 2
            | u8::from(self.retain_as_published) << 3
            | (self.retain_handling as u8) << 4
    }
}

fn suback<'a>(version: Version, reader: &mut Reader<'a>, belongs: fn(Version, u8) -> bool) -> Result<SubAck<'a>> {
    let id = request_id(reader)?;
    let properties = match version {
        Version::V5 => AckProperties::decode(reader.section()?)?,
        Version::V31 | Version::V311 => AckProperties::default(),
    };
    let codes = reader.take(reader.rest().len())?;
    if codes.iter().all(|code| belongs(version, *code)) {
        Ok(SubAck { id, properties, codes })
    } else {
        Err(DecodeError::ReasonCode)
    }
}

/// [MQTT-3.9.3-2] [MQTT3-3.9.3-2]
fn is_subscribe_code(version: Version, code: u8) -> bool {
    match code {
        0..=2 | 0x80 => true,
        0x83 | 0x87 | 0x8F | 0x91 | 0x97 | 0x9E | 0xA1 | 0xA2 => version.is_v5(),
        _ => false,
    }
}

/// [MQTT-3.11.3-2] an MQTT 3 UNSUBACK has none.
fn is_unsubscribe_code(version: Version, code: u8) -> bool {
    version.is_v5() && matches!(code, 0x00 | 0x11 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91)
}

fn unsubscribe<'a>(version: Version, reader: &mut Reader<'a>) -> Result<Unsubscribe<'a>> {
    let id = request_id(reader)?;
    let properties = match version {
        Version::V5 => AckProperties::decode_request(reader.section()?)?,
        Version::V31 | Version::V311 => AckProperties::default(),
    };
    let filters = UnsubscribeFilters { bytes: reader.take(reader.rest().len())? };
    let mut list = Reader::new(filters.bytes);
    // [MQTT-3.10.3-2]
    if list.is_empty() {
        return Err(DecodeError::NoFilters);
    }
    while !list.is_empty() {
        // [MQTT-3.10.3-1]
        TopicFilter::parse(list.raw_string()?)?;
    }
    Ok(Unsubscribe { id, properties, filters })
}

impl<'a> UnsubscribeFilters<'a> {
    /// The filters, in order.
    pub fn iter(&self) -> impl Iterator<Item = TopicFilter<'a>> + use<'a> {
        let mut list = Reader::new(self.bytes);
        std::iter::from_fn(move || list.raw_string().ok().map(TopicFilter::from_validated))
    }
}

fn disconnect<'a>(version: Version, reader: &mut Reader<'a>) -> Result<Disconnect<'a>> {
    let (mut reason, mut properties) = (ReasonCode::Success, DisconnectProperties::default());
    if version.is_v5() && !reader.is_empty() {
        // [MQTT-3.14.2-1]
        reason = ReasonCode::try_from(reader.u8()?).map_err(|_| DecodeError::ReasonCode)?;
        if !is_disconnect_reason(reason) {
            return Err(DecodeError::ReasonCode);
        }
        if !reader.is_empty() {
            properties = DisconnectProperties::decode(reader.section()?)?;
        }
    }
    Ok(Disconnect { reason, properties })
}

/// [MQTT-3.14.2-1] of either side (MQTT 5, 2.4).
fn is_disconnect_reason(reason: ReasonCode) -> bool {
    let of_connect = [0x84..=0x86, 0x88..=0x88, 0x8A..=0x8A];
    let of_acks = 0x91..=0x92;
    let code = reason as u8;
    matches!(reason, ReasonCode::Success | ReasonCode::DisconnectWithWill)
        || (reason.is_error() && !of_acks.contains(&code) && !of_connect.iter().any(|codes| codes.contains(&code)))
}

fn auth<'a>(version: Version, reader: &mut Reader<'a>) -> Result<Auth<'a>> {
    if !version.is_v5() {
        return Err(DecodeError::PacketType);
    }
    if reader.is_empty() {
        return Ok(Auth { reason: ReasonCode::Success, properties: AuthProperties::default() });
    }
    // [MQTT-3.15.2-1]
    let reason = match reader.u8()? {
        0x00 => ReasonCode::Success,
        0x18 => ReasonCode::ContinueAuthentication,
        0x19 => ReasonCode::ReAuthenticate,
        _ => return Err(DecodeError::ReasonCode),
    };
    let properties =
        if reader.is_empty() { AuthProperties::default() } else { AuthProperties::decode(reader.section()?)? };
    Ok(Auth { reason, properties })
}
