//! Names of things. Newtypes, so that one can't stand in for another.

use std::fmt;
use std::sync::Arc;

use crate::mask::{Identifier, fmt_masked};

/// Index of a shard, from 0. A shard is a thread with its own connections and sessions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ShardId(pub u16);

/// Index of a connection within its shard. Reused after the connection has ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ConnId(pub u32);

/// Where a session lives. `generation` tells a session from an earlier one that had the same slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SessionRef {
    /// The home shard.
    pub shard: ShardId,
    /// Index within the shard.
    pub slot: u32,
    /// Counts the sessions that have had this slot.
    pub generation: u32,
}

/// Durable identity of a session: unique for the life of the store, never reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SessionKey(pub u64);

/// Durable identity of a message body that several sessions are owed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct MessageId(pub u64);

/// Number of a message within what a session is owed (QoS 1 and 2), from 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Seq(pub u64);

/// A turn of a shard that had durable work; counts up by one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Turn(pub u64);

/// A unit of durability: what one turn of one shard caused, on whichever shard. On disk whole or not at all.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Ticket {
    /// The shard whose turn it was.
    pub origin: ShardId,
    /// Which turn.
    pub turn: Turn,
}

/// A client identifier, UTF-8, 0 to 65,535 bytes [MQTT-3.1.3-4]. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(Arc<str>);

impl ClientId {
    /// Takes the identifier as the client sent it.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(Arc::from(text))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for ClientId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Identifier for ClientId {
    fn identifier(&self) -> &str {
        &self.0
    }
}

/// Masked, since a client id names a device or a person.
impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_masked(&self.0, f)
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
