//! MQTT packets, encoded and decoded for tests: owned, complete, and free to be wrong where a test wants them wrong.

use std::fmt;

/// Protocol version.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Version {
    /// 3.1
    V31 = 3,
    /// 3.1.1
    V311 = 4,
    /// 5.0
    V5 = 5,
}

impl Version {
    /// All that the broker speaks.
    pub const ALL: [Self; 3] = [Self::V31, Self::V311, Self::V5];
}

/// An MQTT 5 property.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "named as in the specification's table 2-4")]
pub enum Prop {
    PayloadFormat(u8),
    MessageExpiry(u32),
    ContentType(String),
    ResponseTopic(String),
    CorrelationData(Vec<u8>),
    SubscriptionId(u32),
    SessionExpiry(u32),
    AssignedClientId(String),
    ServerKeepAlive(u16),
    AuthMethod(String),
    AuthData(Vec<u8>),
    RequestProblemInfo(u8),
    WillDelay(u32),
    RequestResponseInfo(u8),
    ResponseInfo(String),
    ServerReference(String),
    ReasonString(String),
    ReceiveMaximum(u16),
    TopicAliasMaximum(u16),
    TopicAlias(u16),
    MaximumQos(u8),
    RetainAvailable(u8),
    User(String, String),
    MaximumPacketSize(u32),
    WildcardAvailable(u8),
    IdentifiersAvailable(u8),
    SharedAvailable(u8),
}

/// A user property.
#[must_use]
pub fn user(name: &str, value: &str) -> Prop {
    Prop::User(name.to_owned(), value.to_owned())
}

impl Prop {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::PayloadFormat(v) => out.extend([0x01, *v]),
            Self::MessageExpiry(v) => four(out, 0x02, *v),
            Self::ContentType(v) => text(out, 0x03, v),
            Self::ResponseTopic(v) => text(out, 0x08, v),
            Self::CorrelationData(v) => bytes(out, 0x09, v),
            Self::SubscriptionId(v) => {
                out.push(0x0b);
                variable(out, *v);
            }
            Self::SessionExpiry(v) => four(out, 0x11, *v),
            Self::AssignedClientId(v) => text(out, 0x12, v),
            Self::ServerKeepAlive(v) => two(out, 0x13, *v),
            Self::AuthMethod(v) => text(out, 0x15, v),
            Self::AuthData(v) => bytes(out, 0x16, v),
            Self::RequestProblemInfo(v) => out.extend([0x17, *v]),
            Self::WillDelay(v) => four(out, 0x18, *v),
            Self::RequestResponseInfo(v) => out.extend([0x19, *v]),
            Self::ResponseInfo(v) => text(out, 0x1a, v),
            Self::ServerReference(v) => text(out, 0x1c, v),
            Self::ReasonString(v) => text(out, 0x1f, v),
            Self::ReceiveMaximum(v) => two(out, 0x21, *v),
            Self::TopicAliasMaximum(v) => two(out, 0x22, *v),
            Self::TopicAlias(v) => two(out, 0x23, *v),
            Self::MaximumQos(v) => out.extend([0x24, *v]),
            Self::RetainAvailable(v) => out.extend([0x25, *v]),
            Self::User(name, value) => {
                text(out, 0x26, name);
                string(out, value);
            }
            Self::MaximumPacketSize(v) => four(out, 0x27, *v),
            Self::WildcardAvailable(v) => out.extend([0x28, *v]),
            Self::IdentifiersAvailable(v) => out.extend([0x29, *v]),
            Self::SharedAvailable(v) => out.extend([0x2a, *v]),
        }
    }

    fn decode(cursor: &mut Cursor<'_>) -> Self {
        match cursor.byte() {
            0x01 => Self::PayloadFormat(cursor.byte()),
            0x02 => Self::MessageExpiry(cursor.four()),
            0x03 => Self::ContentType(cursor.string()),
            0x08 => Self::ResponseTopic(cursor.string()),
            0x09 => Self::CorrelationData(cursor.binary().to_vec()),
            0x0b => Self::SubscriptionId(cursor.variable()),
            0x11 => Self::SessionExpiry(cursor.four()),
            0x12 => Self::AssignedClientId(cursor.string()),
            0x13 => Self::ServerKeepAlive(cursor.two()),
            0x15 => Self::AuthMethod(cursor.string()),
            0x16 => Self::AuthData(cursor.binary().to_vec()),
            0x17 => Self::RequestProblemInfo(cursor.byte()),
            0x18 => Self::WillDelay(cursor.four()),
            0x19 => Self::RequestResponseInfo(cursor.byte()),
            0x1a => Self::ResponseInfo(cursor.string()),
            0x1c => Self::ServerReference(cursor.string()),
            0x1f => Self::ReasonString(cursor.string()),
            0x21 => Self::ReceiveMaximum(cursor.two()),
            0x22 => Self::TopicAliasMaximum(cursor.two()),
            0x23 => Self::TopicAlias(cursor.two()),
            0x24 => Self::MaximumQos(cursor.byte()),
            0x25 => Self::RetainAvailable(cursor.byte()),
            0x26 => Self::User(cursor.string(), cursor.string()),
            0x27 => Self::MaximumPacketSize(cursor.four()),
            0x28 => Self::WildcardAvailable(cursor.byte()),
            0x29 => Self::IdentifiersAvailable(cursor.byte()),
            0x2a => Self::SharedAvailable(cursor.byte()),
            other => panic!("the broker sent the unknown property {other:#04x}"),
        }
    }
}

fn encode_props(props: &[Prop], out: &mut Vec<u8>) {
    let mut body = Vec::new();
    for prop in props {
        prop.encode(&mut body);
    }
    variable(out, u32::try_from(body.len()).expect("small"));
    out.extend(body);
}

/// The one value that `select` finds among the properties.
///
/// # Panics
/// There is none, or more than one.
#[track_caller]
pub fn one<T>(props: &[Prop], select: impl Fn(&Prop) -> Option<T>) -> T {
    let mut found: Vec<T> = props.iter().filter_map(select).collect();
    assert_eq!(found.len(), 1, "properties {props:?}");
    found.remove(0)
}

/// CONNECT.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "named as in the specification")]
pub struct Connect {
    pub version: Version,
    pub clean: bool,
    pub keep_alive: u16,
    pub id: String,
    pub will: Option<Will>,
    pub user: Option<String>,
    pub password: Option<Vec<u8>>,
    pub props: Vec<Prop>,
}

/// The will of a CONNECT.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "named as in the specification")]
pub struct Will {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
    pub props: Vec<Prop>,
}

impl Will {
    /// QoS 0, not retained.
    #[must_use]
    pub fn new(topic: &str, payload: &[u8]) -> Self {
        Self { topic: topic.to_owned(), payload: payload.to_vec(), qos: 0, retain: false, props: Vec::new() }
    }
}

impl Connect {
    /// Clean, keep alive 60 s.
    #[must_use]
    pub fn new(version: Version, id: &str) -> Self {
        let (will, user, password) = (None, None, None);
        Self { version, clean: true, keep_alive: 60, id: id.to_owned(), will, user, password, props: Vec::new() }
    }

    /// Resumes a session, or starts one that outlives the connection (MQTT 5: for `expiry_s`).
    #[must_use]
    pub fn durable(version: Version, id: &str, expiry_s: u32) -> Self {
        let mut connect = Self { clean: false, ..Self::new(version, id) };
        if version == Version::V5 {
            connect.props.push(Prop::SessionExpiry(expiry_s));
        }
        connect
    }

    /// With clean start or clean session as said.
    #[must_use]
    pub fn clean(mut self, clean: bool) -> Self {
        self.clean = clean;
        self
    }

    /// With one more property.
    #[must_use]
    pub fn prop(mut self, prop: Prop) -> Self {
        self.props.push(prop);
        self
    }

    /// With a will.
    #[must_use]
    pub fn will(mut self, will: Will) -> Self {
        self.will = Some(will);
        self
    }

    /// With another keep alive.
    #[must_use]
    pub fn keep_alive(mut self, seconds: u16) -> Self {
        self.keep_alive = seconds;
        self
    }

    /// With a user name and password.
    #[must_use]
    pub fn login(mut self, user: &str, password: &str) -> Self {
        self.user = Some(user.to_owned());
        self.password = Some(password.as_bytes().to_vec());
        self
    }

    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        string(&mut body, if self.version == Version::V31 { "MQIsdp" } else { "MQTT" });
        body.push(self.version as u8);
        let mut flags = u8::from(self.clean) << 1;
        if let Some(will) = &self.will {
            flags |= 0x04 | (will.qos << 3) | (u8::from(will.retain) << 5);
        }
        flags |= (u8::from(self.password.is_some()) << 6) | (u8::from(self.user.is_some()) << 7);
        body.push(flags);
        body.extend(self.keep_alive.to_be_bytes());
        if self.version == Version::V5 {
            encode_props(&self.props, &mut body);
        }
        string(&mut body, &self.id);
        if let Some(will) = &self.will {
            if self.version == Version::V5 {
                encode_props(&will.props, &mut body);
            }
            string(&mut body, &will.topic);
            binary(&mut body, &will.payload);
        }
        if let Some(user) = &self.user {
            string(&mut body, user);
        }
        if let Some(password) = &self.password {
            binary(&mut body, password);
        }
        frame(0x10, &body)
    }
}

/// PUBLISH, either way.
#[derive(Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in the specification")]
pub struct Publish {
    pub dup: bool,
    pub qos: u8,
    pub retain: bool,
    pub topic: String,
    pub id: u16,
    pub props: Vec<Prop>,
    pub payload: Vec<u8>,
}

impl fmt::Debug for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dup, qos, retain, topic, id, props, payload } = self;
        let shown = &payload[..payload.len().min(48)];
        write!(f, "PUBLISH({topic:?} {} {} bytes", shown.escape_ascii(), payload.len())?;
        write!(f, " qos={qos} id={id} dup={dup} retain={retain} {props:?})")
    }
}

impl Publish {
    /// QoS 0, not retained.
    #[must_use]
    pub fn new(topic: &str, payload: impl AsRef<[u8]>) -> Self {
        let payload = payload.as_ref().to_vec();
        Self { dup: false, qos: 0, retain: false, topic: topic.to_owned(), id: 0, props: Vec::new(), payload }
    }

    /// With a QoS above 0 and a packet identifier.
    #[must_use]
    pub fn qos(mut self, qos: u8, id: u16) -> Self {
        self.qos = qos;
        self.id = id;
        self
    }

    /// Retained.
    #[must_use]
    pub fn retain(mut self) -> Self {
        self.retain = true;
        self
    }

    /// Marked as sent before.
    #[must_use]
    pub fn dup(mut self) -> Self {
        self.dup = true;
        self
    }

    /// With one more property.
    #[must_use]
    pub fn prop(mut self, prop: Prop) -> Self {
        self.props.push(prop);
        self
    }

    /// The payload as text.
    ///
    /// # Panics
    /// It isn't.
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).expect("a text payload")
    }

    /// As bytes.
    #[must_use]
    pub fn encode(&self, version: Version) -> Vec<u8> {
        let mut body = Vec::new();
        string(&mut body, &self.topic);
        if self.qos > 0 {
            body.extend(self.id.to_be_bytes());
        }
        if version == Version::V5 {
            encode_props(&self.props, &mut body);
        }
        body.extend(&self.payload);
        frame(0x30 | (u8::from(self.dup) << 3) | (self.qos << 1) | u8::from(self.retain), &body)
    }
}

/// CONNACK.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "named as in the specification")]
pub struct ConnAck {
    pub session_present: bool,
    pub code: u8,
    pub props: Vec<Prop>,
}

/// PUBACK, PUBREC, PUBREL, PUBCOMP; SUBACK and UNSUBACK with a code for each filter.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "named as in the specification")]
pub struct Ack {
    pub id: u16,
    pub codes: Vec<u8>,
    pub props: Vec<Prop>,
}

impl Ack {
    /// The only code.
    ///
    /// # Panics
    /// There isn't exactly one.
    #[must_use]
    pub fn code(&self) -> u8 {
        assert_eq!(self.codes.len(), 1, "{self:?}");
        self.codes[0]
    }
}

/// What a broker may send.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "named as in the specification")]
pub enum Packet {
    ConnAck(ConnAck),
    Publish(Publish),
    PubAck(Ack),
    PubRec(Ack),
    PubRel(Ack),
    PubComp(Ack),
    SubAck(Ack),
    UnsubAck(Ack),
    PingResp,
    Disconnect { code: u8, props: Vec<Prop> },
    Auth { code: u8, props: Vec<Prop> },
}

/// PUBACK (4), PUBREC (5), PUBREL (6) or PUBCOMP (7), in the shortest form.
#[must_use]
pub fn ack(kind: u8, id: u16, code: u8) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if code != 0 {
        body.push(code);
    }
    frame((kind << 4) | if kind == 6 { 2 } else { 0 }, &body)
}

/// SUBSCRIBE; each filter with its options byte.
#[must_use]
pub fn subscribe(version: Version, id: u16, filters: &[(&str, u8)], props: &[Prop]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if version == Version::V5 {
        encode_props(props, &mut body);
    }
    for (filter, options) in filters {
        string(&mut body, filter);
        body.push(*options);
    }
    frame(0x82, &body)
}

/// UNSUBSCRIBE.
#[must_use]
pub fn unsubscribe(version: Version, id: u16, filters: &[&str]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if version == Version::V5 {
        body.push(0);
    }
    for filter in filters {
        string(&mut body, filter);
    }
    frame(0xa2, &body)
}

/// PINGREQ.
pub const PINGREQ: [u8; 2] = [0xc0, 0];

/// DISCONNECT; in MQTT 3, or with code 0 and no property, the two-byte form.
#[must_use]
pub fn disconnect(code: u8, props: &[Prop]) -> Vec<u8> {
    coded(0xe0, code, props)
}

/// AUTH.
#[must_use]
pub fn auth(code: u8, props: &[Prop]) -> Vec<u8> {
    coded(0xf0, code, props)
}

fn coded(first: u8, code: u8, props: &[Prop]) -> Vec<u8> {
    let mut body = Vec::new();
    if code != 0 || !props.is_empty() {
        body.push(code);
    }
    if !props.is_empty() {
        encode_props(props, &mut body);
    }
    frame(first, &body)
}

/// A packet from its first byte and its body.
#[must_use]
pub fn frame(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    variable(&mut out, u32::try_from(body.len()).expect("a packet's length"));
    out.extend(body);
    out
}

/// The first whole packet of a buffer and its length; none if it isn't whole yet.
///
/// # Panics
/// The broker has sent what the specification forbids.
#[must_use]
pub fn decode(version: Version, buffer: &[u8]) -> Option<(Packet, usize)> {
    let mut length = 0usize;
    let mut header = 1;
    loop {
        let byte = *buffer.get(header)?;
        length |= usize::from(byte & 0x7f) << (7 * (header - 1));
        header += 1;
        if byte & 0x80 == 0 {
            break;
        }
        assert!(header <= 4, "remaining length of more than four bytes");
    }
    let body = buffer.get(header..header + length)?;
    Some((decode_body(version, buffer[0], &mut Cursor(body)), header + length))
}

fn decode_body(version: Version, first: u8, cursor: &mut Cursor<'_>) -> Packet {
    let v5 = version == Version::V5;
    let flags = first & 0x0f;
    let packet = match first >> 4 {
        2 => {
            let session = cursor.byte();
            // [MQTT-3.2.2-1]
            assert!(session <= 1, "reserved bits in CONNACK: {session:#04x}");
            let code = cursor.byte();
            let props = if v5 && !cursor.0.is_empty() { cursor.props() } else { Vec::new() };
            Packet::ConnAck(ConnAck { session_present: session == 1, code, props })
        }
        3 => {
            let qos = (flags >> 1) & 3;
            let topic = cursor.string();
            let id = if qos > 0 { cursor.two() } else { 0 };
            assert!(qos == 0 || id != 0, "packet identifier 0");
            let props = if v5 { cursor.props() } else { Vec::new() };
            let payload = std::mem::take(&mut cursor.0).to_vec();
            Packet::Publish(Publish { dup: flags & 8 != 0, qos, retain: flags & 1 != 0, topic, id, props, payload })
        }
        kind @ 4..=7 => {
            let id = cursor.two();
            let codes = vec![if cursor.0.is_empty() { 0 } else { cursor.byte() }];
            let props = if cursor.0.is_empty() { Vec::new() } else { cursor.props() };
            let ack = Ack { id, codes, props };
            match kind {
                4 => Packet::PubAck(ack),
                5 => Packet::PubRec(ack),
                6 => Packet::PubRel(ack),
                _ => Packet::PubComp(ack),
            }
        }
        kind @ (9 | 11) => {
            let id = cursor.two();
            let props = if v5 { cursor.props() } else { Vec::new() };
            let ack = Ack { id, codes: std::mem::take(&mut cursor.0).to_vec(), props };
            if kind == 9 { Packet::SubAck(ack) } else { Packet::UnsubAck(ack) }
        }
        13 => Packet::PingResp,
        kind @ (14 | 15) => {
            assert!(v5, "MQTT 3 has no packet {first:#04x} from the server");
            let code = if cursor.0.is_empty() { 0 } else { cursor.byte() };
            let props = if cursor.0.is_empty() { Vec::new() } else { cursor.props() };
            if kind == 14 { Packet::Disconnect { code, props } } else { Packet::Auth { code, props } }
        }
        _ => panic!("a server doesn't send packets of type {first:#04x}"),
    };
    assert!(first >> 4 == 3 || flags == if first >> 4 == 6 { 2 } else { 0 }, "reserved flags in {first:#04x}");
    assert!(cursor.0.is_empty(), "{} bytes after {packet:?}", cursor.0.len());
    packet
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> &'a [u8] {
        assert!(self.0.len() >= length, "the broker's packet ends too early");
        let (head, rest) = self.0.split_at(length);
        self.0 = rest;
        head
    }

    fn byte(&mut self) -> u8 {
        self.take(1)[0]
    }

    fn two(&mut self) -> u16 {
        u16::from_be_bytes(self.take(2).try_into().expect("two"))
    }

    fn four(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().expect("four"))
    }

    fn variable(&mut self) -> u32 {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.byte();
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return value;
            }
        }
        panic!("a variable byte integer of more than four bytes");
    }

    fn binary(&mut self) -> &'a [u8] {
        let length = self.two();
        self.take(usize::from(length))
    }

    fn string(&mut self) -> String {
        String::from_utf8(self.binary().to_vec()).expect("UTF-8 from the broker")
    }

    fn props(&mut self) -> Vec<Prop> {
        let length = self.variable();
        let mut section = Cursor(self.take(length as usize));
        let mut props = Vec::new();
        while !section.0.is_empty() {
            props.push(Prop::decode(&mut section));
        }
        props
    }
}

fn variable(out: &mut Vec<u8>, mut value: u32) {
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        out.push(byte | if value > 0 { 0x80 } else { 0 });
        if value == 0 {
            return;
        }
    }
}

fn two(out: &mut Vec<u8>, id: u8, value: u16) {
    out.push(id);
    out.extend(value.to_be_bytes());
}

fn four(out: &mut Vec<u8>, id: u8, value: u32) {
    out.push(id);
    out.extend(value.to_be_bytes());
}

fn text(out: &mut Vec<u8>, id: u8, value: &str) {
    bytes(out, id, value.as_bytes());
}

fn bytes(out: &mut Vec<u8>, id: u8, value: &[u8]) {
    out.push(id);
    binary(out, value);
}

fn string(out: &mut Vec<u8>, value: &str) {
    binary(out, value.as_bytes());
}

fn binary(out: &mut Vec<u8>, value: &[u8]) {
    out.extend(u16::try_from(value.len()).expect("at most 65,535 bytes").to_be_bytes());
    out.extend(value);
}
