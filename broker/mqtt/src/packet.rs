//! Packets of all versions, in one internal type. Everything borrows from the buffer that was read.

use std::fmt;

use crate::error::DecodeError;
use crate::property::{
    AckProperties, AuthProperties, ConnAckProperties, ConnectProperties, DisconnectProperties, PublishProperties,
    SubscribeProperties, WillProperties,
};
use crate::reason::{ConnectReason, ReasonCode};
use crate::topic::{TopicFilter, TopicName};

/// Protocol version of a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Version {
    /// MQTT 3.1 (`MQIsdp`, level 3).
    V31 = 3,
    /// MQTT 3.1.1 (`MQTT`, level 4).
    V311 = 4,
    /// MQTT 5.0 (`MQTT`, level 5).
    V5 = 5,
}

impl Version {
    /// The version of a level in CONNECT, without the bridge bit.
    #[must_use]
    pub fn from_level(level: u8) -> Option<Self> {
        match level {
            3 => Some(Self::V31),
            4 => Some(Self::V311),
            5 => Some(Self::V5),
            _ => None,
        }
    }

    /// Whether packets have properties and reason codes.
    #[inline]
    #[must_use]
    pub fn is_v5(self) -> bool {
        self == Self::V5
    }
}

/// Quality of service.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum QoS {
    /// At most once.
    AtMostOnce = 0,
    /// At least once.
    AtLeastOnce = 1,
    /// Exactly once.
    ExactlyOnce = 2,
}

/// A packet identifier, never 0 [MQTT-2.2.1-3].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PacketId(pub std::num::NonZeroU16);

/// Any control packet, of any version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Packet<'a> {
    /// Client requests a connection.
    Connect(Box<Connect<'a>>),
    /// Acknowledges CONNECT.
    ConnAck(Box<ConnAck<'a>>),
    /// A message.
    Publish(Publish<'a>),
    /// Answer to a QoS 1 PUBLISH.
    PubAck(Ack<'a>),
    /// First answer to a QoS 2 PUBLISH.
    PubRec(Ack<'a>),
    /// Answer to PUBREC.
    PubRel(Ack<'a>),
    /// Answer to PUBREL.
    PubComp(Ack<'a>),
    /// Subscribe request.
    Subscribe(Subscribe<'a>),
    /// Answer to SUBSCRIBE.
    SubAck(SubAck<'a>),
    /// Unsubscribe request.
    Unsubscribe(Unsubscribe<'a>),
    /// Answer to UNSUBSCRIBE.
    UnsubAck(SubAck<'a>),
    /// Ping.
    PingReq,
    /// Pong.
    PingResp,
    /// Connection ends in good order.
    Disconnect(Disconnect<'a>),
    /// Enhanced authentication (MQTT 5).
    Auth(Auth<'a>),
}

/// CONNECT. `Debug` leaves out who it is from and what it proves that with.
#[derive(Clone, PartialEq, Eq)]
pub struct Connect<'a> {
    /// The version that the client speaks.
    pub version: Version,
    /// Bit 7 of the level in MQTT 3: the client is a bridge (mosquitto's convention). Loops are then the client's to prevent.
    pub bridge: bool,
    /// Clean session (3.1, 3.1.1) or clean start (5).
    pub clean_start: bool,
    /// Seconds; 0 switches it off.
    pub keep_alive_s: u16,
    /// Client id; empty if the client wants one assigned.
    pub client_id: &'a str,
    /// The will.
    pub will: Option<Will<'a>>,
    /// User name.
    pub user_name: Option<&'a str>,
    /// Password.
    pub password: Option<&'a [u8]>,
    /// MQTT 5 properties; default for MQTT 3.
    pub properties: ConnectProperties<'a>,
}

impl fmt::Debug for Connect<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("version", &self.version)
            .field("clean_start", &self.clean_start)
            .field("keep_alive_s", &self.keep_alive_s)
            .field("client_id_bytes", &self.client_id.len())
            .field("user_name_bytes", &self.user_name.map(str::len))
            .field("password_bytes", &self.password.map(<[u8]>::len))
            .finish_non_exhaustive()
    }
}

/// The will in CONNECT.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Will<'a> {
    /// Where it will be published.
    pub topic: TopicName<'a>,
    /// What.
    pub payload: &'a [u8],
    /// At which QoS.
    pub qos: QoS,
    /// Retained?
    pub retain: bool,
    /// MQTT 5 properties.
    pub properties: WillProperties<'a>,
}

/// CONNACK.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnAck<'a> {
    /// Session present [MQTT-3.2.2-1..6].
    pub session_present: bool,
    /// Success or why not. The encoder maps it to a return code for MQTT 3.
    pub reason: ConnectReason,
    /// MQTT 5 properties.
    pub properties: ConnAckProperties<'a>,
}

/// PUBLISH.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Publish<'a> {
    /// Sent before.
    pub dup: bool,
    /// QoS.
    pub qos: QoS,
    /// RETAIN.
    pub retain: bool,
    /// `None` if the packet has only a topic alias (MQTT 5).
    pub topic: Option<TopicName<'a>>,
    /// Some exactly if QoS is above 0.
    pub id: Option<PacketId>,
    /// MQTT 5 properties.
    pub properties: PublishProperties<'a>,
    /// The application's bytes.
    pub payload: &'a [u8],
}

impl Publish<'_> {
    /// What a server must check besides, since decoding takes the packets of either direction: subscription identifiers are its own
    /// to send (MQTT 5, 3.3.4).
    ///
    /// # Errors
    /// [`DecodeError::IdentifierFromClient`].
    #[inline]
    pub fn check_from_client(&self) -> Result<(), DecodeError> {
        if self.properties.subscription_identifiers.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::IdentifierFromClient)
        }
    }
}

/// PUBACK, PUBREC, PUBREL, PUBCOMP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ack<'a> {
    /// Of the PUBLISH.
    pub id: PacketId,
    /// `Success` for MQTT 3.
    pub reason: ReasonCode,
    /// MQTT 5 properties.
    pub properties: AckProperties<'a>,
}

/// SUBSCRIBE. At least one filter [MQTT-3.8.3-2].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subscribe<'a> {
    /// Identifier of the request.
    pub id: PacketId,
    /// MQTT 5 properties.
    pub properties: SubscribeProperties<'a>,
    /// The requests; decoding has checked every one.
    pub filters: SubscribeFilters<'a>,
}

/// The checked but still encoded list of (filter, options) in a SUBSCRIBE; iterate it with `iter()`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SubscribeFilters<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) version: Version,
}

/// Options of one subscription (MQTT 5, 3.8.3.1). MQTT 3 has only the QoS.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SubscribeOptions {
    /// Maximum QoS of deliveries.
    pub qos: QoS,
    /// Don't send me what I published.
    pub no_local: bool,
    /// Keep the RETAIN flag as published.
    pub retain_as_published: bool,
    /// Whether retained messages are sent now.
    pub retain_handling: RetainHandling,
}

/// Retain handling (MQTT 5, 3.8.3.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RetainHandling {
    /// Send at every subscribe.
    Send = 0,
    /// Send only if the subscription is new.
    SendIfNew = 1,
    /// Don't send.
    DontSend = 2,
}

/// SUBACK and UNSUBACK.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SubAck<'a> {
    /// Of the request.
    pub id: PacketId,
    /// MQTT 5 properties.
    pub properties: AckProperties<'a>,
    /// One byte a filter, as on the wire: a granted QoS or a reason. Empty for an MQTT 3 UNSUBACK.
    pub codes: &'a [u8],
}

/// UNSUBSCRIBE. At least one filter [MQTT-3.10.3-2].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unsubscribe<'a> {
    /// Identifier of the request.
    pub id: PacketId,
    /// User properties (MQTT 5), encoded.
    pub properties: AckProperties<'a>,
    /// The filters; decoding has checked every one.
    pub filters: UnsubscribeFilters<'a>,
}

/// The checked but still encoded list of filters in an UNSUBSCRIBE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnsubscribeFilters<'a> {
    pub(crate) bytes: &'a [u8],
}

/// DISCONNECT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Disconnect<'a> {
    /// `Success` (normal) for MQTT 3.
    pub reason: ReasonCode,
    /// MQTT 5 properties.
    pub properties: DisconnectProperties<'a>,
}

/// AUTH (MQTT 5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Auth<'a> {
    /// Success, continue or re-authenticate.
    pub reason: ReasonCode,
    /// Method and data.
    pub properties: AuthProperties<'a>,
}

/// One (filter, options) of a SUBSCRIBE.
pub type FilterRequest<'a> = (TopicFilter<'a>, SubscribeOptions);

impl PacketId {
    /// None for 0.
    #[inline]
    #[must_use]
    pub fn new(id: u16) -> Option<Self> {
        std::num::NonZeroU16::new(id).map(Self)
    }

    /// The number.
    #[inline]
    #[must_use]
    pub fn get(self) -> u16 {
        self.0.get()
    }
}

impl TryFrom<u8> for QoS {
    type Error = u8;

    #[inline]
    fn try_from(value: u8) -> Result<Self, u8> {
        match value {
            0 => Ok(Self::AtMostOnce),
            1 => Ok(Self::AtLeastOnce),
            2 => Ok(Self::ExactlyOnce),
            other => Err(other),
        }
    }
}

impl SubscribeOptions {
    /// What MQTT 3 asks for: a QoS and nothing else.
    #[must_use]
    pub fn qos(qos: QoS) -> Self {
        Self { qos, no_local: false, retain_as_published: false, retain_handling: RetainHandling::Send }
    }
}
