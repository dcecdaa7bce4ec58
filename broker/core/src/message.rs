//! A published message, as sessions, the retained store and the durable store share it.

use turnpike_mqtt::{QoS, TopicName};

use crate::ids::{MessageId, SessionRef};

/// An application message that somebody needs to keep: topic, forwardable properties and payload in one buffer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    buf: Box<[u8]>,
    topic_len: u16,
    properties_len: u32,
    /// The publisher's QoS. A delivery's is the lower of this and the subscription's [MQTT-3.8.4-8].
    pub qos: QoS,
    /// The RETAIN flag as published.
    pub retain: bool,
    /// When the message expires, milliseconds since 1970 UTC, if it does (MQTT 5, 3.3.2.3.3).
    pub expires_at_ms: Option<u64>,
    /// The publishing session, for *no local*; none for wills of ended sessions, `$SYS` and recovered messages.
    pub publisher: Option<SessionRef>,
    /// Identity in the store of a body that several durable sessions share; none when the body is kept with its one entry.
    pub shared_id: Option<MessageId>,
}

/// What goes into a [`Message`], borrowed.
#[derive(Clone, Copy, Debug)]
pub struct MessageParts<'a> {
    /// Where it was published.
    pub topic: TopicName<'a>,
    /// Encoded MQTT 5 properties that are forwarded unaltered: payload format, content type, response topic,
    /// correlation data, user properties. No length prefix. Empty for MQTT 3.
    pub properties: &'a [u8],
    /// The application's bytes.
    pub payload: &'a [u8],
    /// The publisher's QoS.
    pub qos: QoS,
    /// RETAIN as published.
    pub retain: bool,
    /// Milliseconds since 1970 UTC.
    pub expires_at_ms: Option<u64>,
    /// The publishing session.
    pub publisher: Option<SessionRef>,
}

impl Message {
    /// Copies the parts into a buffer of their own.
    #[must_use]
    pub fn new(parts: &MessageParts<'_>) -> Self {
        let topic = parts.topic.as_str().as_bytes();
        let mut buf = Vec::with_capacity(topic.len() + parts.properties.len() + parts.payload.len());
        buf.extend_from_slice(topic);
        buf.extend_from_slice(parts.properties);
        buf.extend_from_slice(parts.payload);
        Self {
            buf: buf.into_boxed_slice(),
            topic_len: u16::try_from(topic.len()).expect("a topic name is at most 65,535 bytes"),
            properties_len: u32::try_from(parts.properties.len()).expect("properties fit a packet of at most 256 MiB"),
            qos: parts.qos,
            retain: parts.retain,
            expires_at_ms: parts.expires_at_ms,
            publisher: parts.publisher,
            shared_id: None,
        }
    }

    /// The parts again, borrowed.
    #[must_use]
    pub fn parts(&self) -> MessageParts<'_> {
        let (topic, rest) = self.buf.split_at(usize::from(self.topic_len));
        let (properties, payload) = rest.split_at(self.properties_len as usize);
        MessageParts {
            topic: TopicName::from_validated(std::str::from_utf8(topic).expect("copied from a topic name")),
            properties,
            payload,
            qos: self.qos,
            retain: self.retain,
            expires_at_ms: self.expires_at_ms,
            publisher: self.publisher,
        }
    }

    /// The topic name.
    #[must_use]
    pub fn topic(&self) -> TopicName<'_> {
        self.parts().topic
    }

    /// Bytes that keeping this message costs, counted against queue limits.
    #[must_use]
    pub fn cost(&self) -> usize {
        self.buf.len() + size_of::<Self>()
    }
}
