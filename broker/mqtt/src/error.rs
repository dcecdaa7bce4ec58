//! What can be wrong with bytes.

use std::fmt;

use crate::reason::ReasonCode;
use crate::topic::TopicError;

/// Why bytes are no packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DecodeError {
    /// A remaining length of more than four bytes [MQTT-1.5.5-1].
    RemainingLength,
    /// More than the maximum packet size.
    TooLarge,
    /// Packet type 0, or 15 before MQTT 5.
    PacketType,
    /// Reserved flags of the fixed header [MQTT-2.1.3-1].
    Flags,
    /// QoS 3 [MQTT-3.3.1-4].
    QoS,
    /// DUP with QoS 0 [MQTT-3.3.1-2].
    DupWithoutQoS,
    /// The packet ends in the middle of a field.
    Truncated,
    /// Bytes behind the last field.
    Trailing,
    /// Not UTF-8, or with characters that a string must not have [MQTT-1.5.4-1] [MQTT-1.5.4-2].
    Utf8,
    /// A variable byte integer that is too long [MQTT-1.5.5-1].
    VariableInteger,
    /// Packet identifier 0 [MQTT-2.2.1-3] in SUBSCRIBE or UNSUBSCRIBE.
    RequestIdentifier,
    /// Packet identifier 0 [MQTT-2.2.1-4] elsewhere.
    PacketIdentifier,
    /// CONNECT with another protocol's name [MQTT-3.1.2-1].
    ProtocolName,
    /// CONNECT with a level that isn't spoken [MQTT-3.1.2-2].
    UnsupportedProtocolVersion,
    /// CONNECT's reserved flag [MQTT-3.1.2-3], or flags that contradict each other.
    ConnectFlags,
    /// A topic name or filter.
    Topic(TopicError),
    /// Neither topic nor alias (MQTT 5, 3.3.2.1).
    NoTopic,
    /// Alias 0 [MQTT-3.3.2-8].
    TopicAlias,
    /// No filter at all [MQTT-3.8.3-2] [MQTT-3.10.3-2].
    NoFilters,
    /// Reserved bits or values of subscription options [MQTT-3.8.3-5].
    SubscribeOptions,
    /// No local on a shared subscription [MQTT-3.8.3-4].
    SharedNoLocal,
    /// Not a reason code of this packet.
    ReasonCode,
    /// A property that isn't known (MQTT 5, 2.2.2.2).
    UnknownProperty,
    /// A property of another packet.
    MisplacedProperty,
    /// A property of another packet, in SUBSCRIBE or UNSUBSCRIBE.
    MisplacedRequestProperty,
    /// A property that may be there once.
    RepeatedProperty,
    /// A value that the property can't have.
    PropertyValue,
    /// Authentication data without a method (MQTT 5, 3.1.2.11.10).
    AuthenticationData,
    /// A client's PUBLISH with a subscription identifier (MQTT 5, 3.3.4).
    IdentifierFromClient,
}

impl DecodeError {
    /// What an MQTT 5 peer is told.
    #[must_use]
    pub fn reason(self) -> ReasonCode {
        match self {
            Self::RemainingLength
            | Self::PacketType
            | Self::Flags
            | Self::QoS
            | Self::DupWithoutQoS
            | Self::Truncated
            | Self::Trailing
            | Self::Utf8
            | Self::VariableInteger
            | Self::RequestIdentifier
            | Self::ConnectFlags
            | Self::SubscribeOptions
            | Self::NoFilters
            | Self::UnknownProperty
            | Self::MisplacedRequestProperty => ReasonCode::MalformedPacket,
            Self::Topic(TopicError::BadShare) => ReasonCode::ProtocolError,
            Self::Topic(_) => ReasonCode::MalformedPacket,
            Self::PacketIdentifier
            | Self::NoTopic
            | Self::SharedNoLocal
            | Self::ReasonCode
            | Self::MisplacedProperty
            | Self::RepeatedProperty
            | Self::PropertyValue
            | Self::AuthenticationData
            | Self::IdentifierFromClient => ReasonCode::ProtocolError,
            Self::TopicAlias => ReasonCode::TopicAliasInvalid,
            Self::TooLarge => ReasonCode::PacketTooLarge,
            Self::ProtocolName | Self::UnsupportedProtocolVersion => ReasonCode::UnsupportedProtocolVersion,
        }
    }
}

impl From<TopicError> for DecodeError {
    fn from(error: TopicError) -> Self {
        Self::Topic(error)
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RemainingLength => "the remaining length has more than four bytes",
            Self::TooLarge => "the packet is larger than the maximum packet size",
            Self::PacketType => "the packet type doesn't exist in this version",
            Self::Flags => "reserved flags of the fixed header are set or required ones aren't",
            Self::QoS => "QoS 3 doesn't exist",
            Self::DupWithoutQoS => "DUP is set on a QoS 0 message",
            Self::Truncated => "the packet ends in the middle of a field",
            Self::Trailing => "there are bytes behind the last field",
            Self::Utf8 => "a string isn't well-formed UTF-8 or contains control characters",
            Self::VariableInteger => "a variable byte integer isn't in its shortest form of at most four bytes",
            Self::RequestIdentifier | Self::PacketIdentifier => "the packet identifier is 0",
            Self::ProtocolName => "the protocol name isn't MQTT or MQIsdp",
            Self::UnsupportedProtocolVersion => "the protocol version isn't 3.1, 3.1.1 or 5",
            Self::ConnectFlags => "the connect flags contradict each other or use the reserved bit",
            Self::Topic(error) => return error.fmt(f),
            Self::NoTopic => "there is neither a topic name nor a topic alias",
            Self::TopicAlias => "the topic alias is 0",
            Self::NoFilters => "there is no topic filter",
            Self::SubscribeOptions => "the subscription options use reserved bits or values",
            Self::SharedNoLocal => "no local can't be set on a shared subscription",
            Self::ReasonCode => "the reason code doesn't belong to this packet",
            Self::UnknownProperty => "a property has an unknown identifier",
            Self::MisplacedProperty | Self::MisplacedRequestProperty => "a property doesn't belong to this packet",
            Self::RepeatedProperty => "a property is there twice",
            Self::PropertyValue => "a property has a value that it can't have",
            Self::AuthenticationData => "there is authentication data without a method",
            Self::IdentifierFromClient => "a client must not send subscription identifiers",
        })
    }
}

impl std::error::Error for DecodeError {}
