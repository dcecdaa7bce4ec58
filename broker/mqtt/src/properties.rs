//! Decoding and encoding of property sections (MQTT 5, 2.2.2).

use crate::encode::variable;
use crate::error::DecodeError;
use crate::property::{
    AckProperties, AuthProperties, ConnAckProperties, ConnectProperties, DisconnectProperties, Forwardable,
    ForwardableItem, PublishProperties, SubscribeProperties, UserProperties, WillProperties,
};
use crate::reader::Reader;
use crate::topic::TopicName;

type Result<T> = std::result::Result<T, DecodeError>;

/// Property identifiers (2.2.2.2).
pub(crate) mod id {
    pub(crate) const PAYLOAD_FORMAT: u8 = 0x01;
    pub(crate) const MESSAGE_EXPIRY: u8 = 0x02;
    pub(crate) const CONTENT_TYPE: u8 = 0x03;
    pub(crate) const RESPONSE_TOPIC: u8 = 0x08;
    pub(crate) const CORRELATION_DATA: u8 = 0x09;
    pub(crate) const SUBSCRIPTION_IDENTIFIER: u8 = 0x0B;
    pub(crate) const SESSION_EXPIRY: u8 = 0x11;
    pub(crate) const ASSIGNED_CLIENT_ID: u8 = 0x12;
    pub(crate) const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub(crate) const AUTHENTICATION_METHOD: u8 = 0x15;
    pub(crate) const AUTHENTICATION_DATA: u8 = 0x16;
    pub(crate) const REQUEST_PROBLEM: u8 = 0x17;
    pub(crate) const WILL_DELAY: u8 = 0x18;
    pub(crate) const REQUEST_RESPONSE: u8 = 0x19;
    pub(crate) const RESPONSE_INFORMATION: u8 = 0x1A;
    pub(crate) const SERVER_REFERENCE: u8 = 0x1C;
    pub(crate) const REASON_STRING: u8 = 0x1F;
    pub(crate) const RECEIVE_MAXIMUM: u8 = 0x21;
    pub(crate) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub(crate) const TOPIC_ALIAS: u8 = 0x23;
    pub(crate) const MAXIMUM_QOS: u8 = 0x24;
    pub(crate) const RETAIN_AVAILABLE: u8 = 0x25;
    pub(crate) const USER: u8 = 0x26;
    pub(crate) const MAXIMUM_PACKET_SIZE: u8 = 0x27;
    pub(crate) const WILDCARD_AVAILABLE: u8 = 0x28;
    pub(crate) const IDENTIFIERS_AVAILABLE: u8 = 0x29;
    pub(crate) const SHARED_AVAILABLE: u8 = 0x2A;
}

/// A property's value by its type.
#[derive(Clone, Copy)]
enum Value<'a> {
    Byte(u8),
    Two(u16),
    Four(u32),
    Variable(u32),
    Text(&'a str),
    Binary(&'a [u8]),
    Pair(&'a str, &'a str),
}

/// The next property, of whatever packet.
fn next<'a>(reader: &mut Reader<'a>) -> Result<(u8, Value<'a>)> {
    // An identifier is a variable byte integer; all that exist have one byte.
    let id = u8::try_from(reader.variable()?).map_err(|_| DecodeError::UnknownProperty)?;
    let value = match id {
        id::PAYLOAD_FORMAT
        | id::REQUEST_PROBLEM
        | id::REQUEST_RESPONSE
        | id::MAXIMUM_QOS
        | id::RETAIN_AVAILABLE
        | id::WILDCARD_AVAILABLE
        | id::IDENTIFIERS_AVAILABLE
        | id::SHARED_AVAILABLE => Value::Byte(reader.u8()?),
        id::SERVER_KEEP_ALIVE | id::RECEIVE_MAXIMUM | id::TOPIC_ALIAS_MAXIMUM | id::TOPIC_ALIAS => {
            Value::Two(reader.u16()?)
        }
        id::MESSAGE_EXPIRY | id::SESSION_EXPIRY | id::WILL_DELAY | id::MAXIMUM_PACKET_SIZE => {
            Value::Four(reader.u32()?)
        }
        id::SUBSCRIPTION_IDENTIFIER => Value::Variable(reader.variable()?),
        id::CONTENT_TYPE
        | id::RESPONSE_TOPIC
        | id::ASSIGNED_CLIENT_ID
        | id::AUTHENTICATION_METHOD
        | id::RESPONSE_INFORMATION
        | id::SERVER_REFERENCE
        // [MQTT-3.3.2-13] [MQTT-3.3.2-19]
        | id::REASON_STRING => Value::Text(reader.string()?),
        id::CORRELATION_DATA | id::AUTHENTICATION_DATA => Value::Binary(reader.binary()?),
        // [MQTT-1.5.7-1]
        id::USER => Value::Pair(reader.string()?, reader.string()?),
        _ => return Err(DecodeError::UnknownProperty),
    };
    Ok((id, value))
}

/// Calls `take` for each property of a section; `Ok(false)` from it says that the property doesn't belong there.
fn each<'a>(section: &'a [u8], mut take: impl FnMut(u8, Value<'a>) -> Result<bool>) -> Result<()> {
    let mut reader = Reader::new(section);
    while !reader.is_empty() {
        let (id, value) = next(&mut reader)?;
        if !take(id, value)? {
            return Err(DecodeError::MisplacedProperty);
        }
    }
    Ok(())
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<bool> {
    match slot.replace(value) {
        None => Ok(true),
        Some(_) => Err(DecodeError::RepeatedProperty),
    }
}

fn above_zero<T: PartialEq + From<u8>>(value: T) -> Result<T> {
    if value == T::from(0) { Err(DecodeError::PropertyValue) } else { Ok(value) }
}

fn boolean(value: u8) -> Result<bool> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::PropertyValue),
    }
}

impl<'a> ConnectProperties<'a> {
    pub(crate) fn decode(section: &'a [u8]) -> Result<Self> {
        let mut p = Self { user: UserProperties { bytes: section }, ..Self::default() };
        let mut response = None;
        each(section, |id, value| match (id, value) {
            (id::SESSION_EXPIRY, Value::Four(v)) => once(&mut p.session_expiry_s, v),
            (id::RECEIVE_MAXIMUM, Value::Two(v)) => once(&mut p.receive_maximum, above_zero(v)?),
            (id::MAXIMUM_PACKET_SIZE, Value::Four(v)) => once(&mut p.maximum_packet_size, above_zero(v)?),
            (id::TOPIC_ALIAS_MAXIMUM, Value::Two(v)) => once(&mut p.topic_alias_maximum, v),
            (id::REQUEST_RESPONSE, Value::Byte(v)) => once(&mut response, boolean(v)?),
            (id::REQUEST_PROBLEM, Value::Byte(v)) => once(&mut p.request_problem_information, boolean(v)?),
            (id::USER, _) => Ok(true),
            (id::AUTHENTICATION_METHOD, Value::Text(v)) => once(&mut p.authentication_method, v),
            (id::AUTHENTICATION_DATA, Value::Binary(v)) => once(&mut p.authentication_data, v),
            _ => Ok(false),
        })?;
        p.request_response_information = response.unwrap_or(false);
        if p.authentication_data.is_some() && p.authentication_method.is_none() {
            return Err(DecodeError::AuthenticationData);
        }
        Ok(p)
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        four(out, id::SESSION_EXPIRY, self.session_expiry_s);
        two(out, id::RECEIVE_MAXIMUM, self.receive_maximum);
        four(out, id::MAXIMUM_PACKET_SIZE, self.maximum_packet_size);
        two(out, id::TOPIC_ALIAS_MAXIMUM, self.topic_alias_maximum);
        flag(out, id::REQUEST_RESPONSE, self.request_response_information.then_some(true));
        flag(out, id::REQUEST_PROBLEM, self.request_problem_information);
        text(out, id::AUTHENTICATION_METHOD, self.authentication_method);
        data(out, id::AUTHENTICATION_DATA, self.authentication_data);
        self.user.encode(out);
    }
}

/// Message properties of PUBLISH and of the will.
#[derive(Default)]
struct MessageSection {
    format: Option<bool>,
    expiry: Option<u32>,
    delay: Option<u32>,
    alias: Option<u16>,
    content_type: Option<()>,
    response_topic: Option<()>,
    correlation: Option<()>,
    /// Bytes of properties that aren't forwarded.
    kept_back: usize,
    identifiers: bool,
}

impl MessageSection {
    fn decode(section: &[u8]) -> Result<Self> {
        let mut found = Self::default();
        each(section, |id, value| match (id, value) {
            (id::PAYLOAD_FORMAT, Value::Byte(v)) => once(&mut found.format, boolean(v)?),
            (id::MESSAGE_EXPIRY, Value::Four(v)) => {
                found.kept_back += 5;
                once(&mut found.expiry, v)
            }
            (id::WILL_DELAY, Value::Four(v)) => {
                found.kept_back += 5;
                once(&mut found.delay, v)
            }
            (id::TOPIC_ALIAS, Value::Two(v)) => {
                // [MQTT-3.3.2-8]
                if v == 0 {
                    return Err(DecodeError::TopicAlias);
                }
                found.kept_back += 3;
                once(&mut found.alias, v)
            }
            (id::CONTENT_TYPE, _) => once(&mut found.content_type, ()),
            (id::RESPONSE_TOPIC, Value::Text(v)) => {
                // [MQTT-3.3.2-14]
                TopicName::parse(v).map_err(|_| DecodeError::PropertyValue)?;
                once(&mut found.response_topic, ())
            }
            (id::CORRELATION_DATA, _) => once(&mut found.correlation, ()),
            (id::USER, _) => Ok(true),
            (id::SUBSCRIPTION_IDENTIFIER, Value::Variable(v)) => {
                above_zero(v)?;
                found.identifiers = true;
                found.kept_back += 1 + variable_len(v);
                Ok(true)
            }
            _ => Ok(false),
        })?;
        Ok(found)
    }
}

impl<'a> PublishProperties<'a> {
    pub(crate) fn decode(section: &'a [u8]) -> Result<Self> {
        let found = MessageSection::decode(section)?;
        if found.delay.is_some() {
            return Err(DecodeError::MisplacedProperty);
        }
        Ok(Self {
            message_expiry_s: found.expiry,
            topic_alias: found.alias,
            forwardable: Forwardable { raw: section, len: section.len() - found.kept_back },
            subscription_identifiers: if found.identifiers { section } else { &[] },
        })
    }

    /// Subscription identifiers, in order.
    pub fn identifiers(&self) -> impl Iterator<Item = u32> + use<'a> {
        let mut reader = Reader::new(self.subscription_identifiers);
        std::iter::from_fn(move || next(&mut reader).ok()).filter_map(|(id, value)| match (id, value) {
            (id::SUBSCRIPTION_IDENTIFIER, Value::Variable(v)) => Some(v),
            _ => None,
        })
    }

    /// How many bytes [`PublishProperties::encode`] appends.
    pub(crate) fn encoded_len(&self) -> usize {
        let identifiers: usize = self.identifiers().map(|identifier| 1 + variable_len(identifier)).sum();
        self.topic_alias.map_or(0, |_| 3) + self.message_expiry_s.map_or(0, |_| 5) + identifiers + self.forwardable.len
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        two(out, id::TOPIC_ALIAS, self.topic_alias);
        four(out, id::MESSAGE_EXPIRY, self.message_expiry_s);
        for identifier in self.identifiers() {
            out.push(id::SUBSCRIPTION_IDENTIFIER);
            variable(out, identifier);
        }
        self.forwardable.copy_to(out);
    }
}

impl<'a> WillProperties<'a> {
    pub(crate) fn decode(section: &'a [u8]) -> Result<Self> {
        let found = MessageSection::decode(section)?;
        if found.alias.is_some() || found.identifiers {
            return Err(DecodeError::MisplacedProperty);
        }
        Ok(Self {
            delay_s: found.delay.unwrap_or(0),
            message_expiry_s: found.expiry,
            forwardable: Forwardable { raw: section, len: section.len() - found.kept_back },
        })
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        four(out, id::WILL_DELAY, (self.delay_s != 0).then_some(self.delay_s));
        four(out, id::MESSAGE_EXPIRY, self.message_expiry_s);
        self.forwardable.copy_to(out);
    }
}

impl<'a> Forwardable<'a> {
    /// Bytes that were forwardable properties before, and nothing else.
    #[must_use]
    pub fn from_encoded(raw: &'a [u8]) -> Self {
        Self { raw, len: raw.len() }
    }

    /// How many bytes [`Forwardable::copy_to`] writes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// No properties.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes, where nothing else stands between them.
    #[must_use]
    pub fn as_slice(&self) -> Option<&'a [u8]> {
        if self.len == 0 { Some(&[]) } else { (self.len == self.raw.len()).then_some(self.raw) }
    }

    /// Appends the encoded properties.
    pub fn copy_to(&self, out: &mut Vec<u8>) {
        if let Some(slice) = self.as_slice() {
            out.extend_from_slice(slice);
            return;
        }
        let mut reader = Reader::new(self.raw);
        loop {
            let before = reader.rest();
            let Ok((id, _)) = next(&mut reader) else { return };
            let kept_back =
                [id::MESSAGE_EXPIRY, id::WILL_DELAY, id::TOPIC_ALIAS, id::SUBSCRIPTION_IDENTIFIER].contains(&id);
            if !kept_back {
                out.extend_from_slice(before.get(..before.len() - reader.rest().len()).unwrap_or_default());
            }
        }
    }

    /// The properties, in order.
    pub fn iter(&self) -> impl Iterator<Item = ForwardableItem<'a>> + use<'a> {
        let mut reader = Reader::new(self.raw);
        std::iter::from_fn(move || next(&mut reader).ok()).filter_map(|(id, value)| match (id, value) {
            (id::PAYLOAD_FORMAT, Value::Byte(v)) => Some(ForwardableItem::PayloadFormat(v)),
            (id::CONTENT_TYPE, Value::Text(v)) => Some(ForwardableItem::ContentType(v)),
            (id::RESPONSE_TOPIC, Value::Text(v)) => Some(ForwardableItem::ResponseTopic(v)),
            (id::CORRELATION_DATA, Value::Binary(v)) => Some(ForwardableItem::CorrelationData(v)),
            (id::USER, Value::Pair(name, value)) => Some(ForwardableItem::User(name, value)),
            _ => None,
        })
    }
}

impl ForwardableItem<'_> {
    /// Appends the encoded property.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Self::PayloadFormat(v) => out.extend_from_slice(&[id::PAYLOAD_FORMAT, v]),
            Self::ContentType(v) => text(out, id::CONTENT_TYPE, Some(v)),
            Self::ResponseTopic(v) => text(out, id::RESPONSE_TOPIC, Some(v)),
            Self::CorrelationData(v) => data(out, id::CORRELATION_DATA, Some(v)),
            Self::User(name, value) => {
                text(out, id::USER, Some(name));
                string(out, value);
            }
        }
    }
}

impl<'a> UserProperties<'a> {
    /// Bytes that were a checked property section before.
    #[must_use]
    pub fn from_encoded(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// Names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let mut reader = Reader::new(self.bytes);
        std::iter::from_fn(move || next(&mut reader).ok()).filter_map(|(_, value)| match value {
            Value::Pair(name, value) => Some((name, value)),
            _ => None,
        })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        for (name, value) in self.iter() {
            ForwardableItem::User(name, value).encode(out);
        }
    }
}

impl<'a> ConnAckProperties<'a> {
    pub(crate) fn decode(section: &'a [u8]) -> Result<Self> {
        let mut p = Self { user: UserProperties { bytes: section }, ..Self::default() };
        each(section, |id, value| match (id, value) {
            (id::SESSION_EXPIRY, Value::Four(v)) => once(&mut p.session_expiry_s, v),
            (id::RECEIVE_MAXIMUM, Value::Two(v)) => once(&mut p.receive_maximum, above_zero(v)?),
            (id::MAXIMUM_QOS, Value::Byte(v)) => once(&mut p.maximum_qos, u8::from(boolean(v)?)),
            (id::RETAIN_AVAILABLE, Value::Byte(v)) => once(&mut p.retain_available, boolean(v)?),
            (id::MAXIMUM_PACKET_SIZE, Value::Four(v)) => once(&mut p.maximum_packet_size, above_zero(v)?),
            (id::ASSIGNED_CLIENT_ID, Value::Text(v)) => once(&mut p.assigned_client_id, v),
            (id::TOPIC_ALIAS_MAXIMUM, Value::Two(v)) => once(&mut p.topic_alias_maximum, v),
            (id::REASON_STRING, Value::Text(v)) => once(&mut p.reason_string, v),
            (id::USER, _) => Ok(true),
            (id::WILDCARD_AVAILABLE, Value::Byte(v)) => once(&mut p.wildcard_available, boolean(v)?),
            (id::IDENTIFIERS_AVAILABLE, Value::Byte(v)) => once(&mut p.identifiers_available, boolean(v)?),
            (id::SHARED_AVAILABLE, Value::Byte(v)) => once(&mut p.shared_available, boolean(v)?),
            (id::SERVER_KEEP_ALIVE, Value::Two(v)) => once(&mut p.server_keep_alive_s, v),
            (id::RESPONSE_INFORMATION, Value::Text(v)) => once(&mut p.response_information, v),
            (id::SERVER_REFERENCE, Value::Text(v)) => once(&mut p.server_reference, v),
            (id::AUTHENTICATION_METHOD, Value::Text(v)) => once(&mut p.authentication_method, v),
            (id::AUTHENTICATION_DATA, Value::Binary(v)) => once(&mut p.authentication_data, v),
            _ => Ok(false),
        })?;
        if p.authentication_data.is_some() && p.authentication_method.is_none() {
            return Err(DecodeError::AuthenticationData);
        }
        Ok(p)
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        two(out, id::TOPIC_ALIAS_MAXIMUM, self.topic_alias_maximum);
        four(out, id::SESSION_EXPIRY, self.session_expiry_s);
        text(out, id::ASSIGNED_CLIENT_ID, self.assigned_client_id);
        two(out, id::SERVER_KEEP_ALIVE, self.server_keep_alive_s);
        four(out, id::MAXIMUM_PACKET_SIZE, self.maximum_packet_size);
        two(out, id::RECEIVE_MAXIMUM, self.receive_maximum);
        byte(out, id::MAXIMUM_QOS, self.maximum_qos);
        flag(out, id::RETAIN_AVAILABLE, self.retain_available);
        flag(out, id::WILDCARD_AVAILABLE, self.wildcard_available);
        flag(out, id::IDENTIFIERS_AVAILABLE, self.identifiers_available);
        flag(out, id::SHARED_AVAILABLE, self.shared_available);
        text(out, id::RESPONSE_INFORMATION, self.response_information);
        text(out, id::SERVER_REFERENCE, self.server_reference);
        text(out, id::AUTHENTICATION_METHOD, self.authentication_method);
        data(out, id::AUTHENTICATION_DATA, self.authentication_data);
        text(out, id::REASON_STRING, self.reason_string);
        self.user.encode(out);
    }
}

impl<'a> AckProperties<'a> {
    pub(crate) fn decode(section: &'a [u8]) -> Result<Self> {
        let mut p = Self { user: UserProperties { bytes: section }, ..Self::default() };
        each(section, |id, value| match (id, value) {
            (id::REASON_STRING, Value::Text(v)) => once(&mut p.reason_string, v),
            (id::USER, _) => Ok(true),
            _ => Ok(false),
        })?;
        Ok(p)
    }

    /// UNSUBSCRIBE has user properties alone.
    pub(crate) fn decode_request(section: &'a [u8]) -> Result<Self> {
        each(section, |id, _| Ok(id == id::USER)).map_err(misplaced_in_request)?;
        Ok(Self { reason_string: None, user: UserProperties { bytes: section } })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.reason_string.is_none() && self.user.bytes.is_empty()
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        text(out, id::REASON_STRING, self.reason_string);
        self.user.encode(out);
    }
}

fn misplaced_in_request(error: DecodeError) -> DecodeError {
    if error == DecodeError::MisplacedProperty { DecodeError::MisplacedRequestProperty } else { error }
}

impl<'a> SubscribeProperties<'a> {
    pub(crate) fn decode(section: &'a [u8]) -> Result<Self> {
        let mut p = Self { user: UserProperties { bytes: section }, ..Self::default() };
        each(section, |id, value| match (id, value) {
            (id::SUBSCRIPTION_IDENTIFIER, Value::Variable(v)) => once(&mut p.identifier, above_zero(v)?),
            (id::USER, _) => Ok(true),
            _ => Ok(false),
        })
        .map_err(misplaced_in_request)?;
        Ok(p)
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        if let Some(identifier) = self.identifier {
            out.push(id::SUBSCRIPTION_IDENTIFIER);
            variable(out, identifier);
        }
        self.user.encode(out);
    }
}

impl<'a> DisconnectProperties<'a> {
    pub(crate) fn decode(section: &'a [u8]) -> Result<Self> {
        let mut p = Self { user: UserProperties { bytes: section }, ..Self::default() };
        each(section, |id, value| match (id, value) {
            (id::SESSION_EXPIRY, Value::Four(v)) => once(&mut p.session_expiry_s, v),
            (id::REASON_STRING, Value::Text(v)) => once(&mut p.reason_string, v),
            (id::USER, _) => Ok(true),
            (id::SERVER_REFERENCE, Value::Text(v)) => once(&mut p.server_reference, v),
            _ => Ok(false),
        })?;
        Ok(p)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.session_expiry_s.is_none()
            && self.reason_string.is_none()
            && self.server_reference.is_none()
            && self.user.bytes.is_empty()
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        four(out, id::SESSION_EXPIRY, self.session_expiry_s);
        text(out, id::REASON_STRING, self.reason_string);
        text(out, id::SERVER_REFERENCE, self.server_reference);
        self.user.encode(out);
    }
}

impl<'a> AuthProperties<'a> {
    pub(crate) fn decode(section: &'a [u8]) -> Result<Self> {
        let mut p = Self { user: UserProperties { bytes: section }, ..Self::default() };
        each(section, |id, value| match (id, value) {
            (id::AUTHENTICATION_METHOD, Value::Text(v)) => once(&mut p.method, v),
            (id::AUTHENTICATION_DATA, Value::Binary(v)) => once(&mut p.data, v),
            (id::REASON_STRING, Value::Text(v)) => once(&mut p.reason_string, v),
            (id::USER, _) => Ok(true),
            _ => Ok(false),
        })?;
        if p.data.is_some() && p.method.is_none() {
            return Err(DecodeError::AuthenticationData);
        }
        Ok(p)
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        text(out, id::AUTHENTICATION_METHOD, self.method);
        data(out, id::AUTHENTICATION_DATA, self.data);
        text(out, id::REASON_STRING, self.reason_string);
        self.user.encode(out);
    }
}

fn byte(out: &mut Vec<u8>, id: u8, value: Option<u8>) {
    out.extend(value.into_iter().flat_map(|value| [id, value]));
}

fn flag(out: &mut Vec<u8>, id: u8, value: Option<bool>) {
    byte(out, id, value.map(u8::from));
}

fn two(out: &mut Vec<u8>, id: u8, value: Option<u16>) {
    if let Some(value) = value {
        out.push(id);
        out.extend_from_slice(&value.to_be_bytes());
    }
}

fn four(out: &mut Vec<u8>, id: u8, value: Option<u32>) {
    if let Some(value) = value {
        out.push(id);
        out.extend_from_slice(&value.to_be_bytes());
    }
}

fn text(out: &mut Vec<u8>, id: u8, value: Option<&str>) {
    data(out, id, value.map(str::as_bytes));
}

fn data(out: &mut Vec<u8>, id: u8, value: Option<&[u8]>) {
    if let Some(value) = value {
        out.push(id);
        crate::encode::binary(out, value);
    }
}

fn string(out: &mut Vec<u8>, value: &str) {
    crate::encode::binary(out, value.as_bytes());
}

/// Bytes of a variable byte integer.
#[inline]
pub(crate) fn variable_len(value: u32) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}
