//! MQTT 3.1, 3.1.1 and 5.0 on the wire, without I/O: packets, codec, topics and reason codes.
//!
//! Both directions of every packet decode and encode, since the broker, the harness and the tests share this crate.
//!
//! ```text
//! bytes ─▶ frame() ─▶ Frame ─▶ decode(version, frame) ─▶ Packet<'_> (borrows)      encode(version, &packet, &mut Vec<u8>)
//! ```

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing))]

pub mod alias;
mod decode;
mod encode;
mod error;
mod frame;
pub mod packet;
mod properties;
pub mod property;
mod reader;
pub mod reason;
#[cfg(test)]
mod tests;
pub mod topic;

pub use alias::{AliasError, TopicAliases};
pub use decode::{decode, decode_connect, decode_publish};
pub use encode::{
    AckKind, Delivery, PINGREQ, PINGRESP, delivery_len, encode, encode_ack, encode_delivery, encode_publish,
    encode_subscribe, encode_unsubscribe,
};
pub use error::DecodeError;
pub use frame::{Frame, PacketType, frame, frame_size};
pub use packet::{
    Ack, Auth, ConnAck, Connect, Disconnect, FilterRequest, Packet, PacketId, Publish, QoS, RetainHandling, SubAck,
    Subscribe, SubscribeFilters, SubscribeOptions, Unsubscribe, UnsubscribeFilters, Version, Will,
};
pub use property::{
    AckProperties, AuthProperties, ConnAckProperties, ConnectProperties, DisconnectProperties, Forwardable,
    ForwardableItem, PublishProperties, SubscribeProperties, UserProperties, WillProperties,
};
pub use reason::{ConnectReason, ReasonCode};
pub use topic::{TopicError, TopicFilter, TopicName};
