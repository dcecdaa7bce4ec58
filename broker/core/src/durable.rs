//! What the store is asked to keep, and what it gives back at start. The store knows no more of a broker than this.

use std::sync::Arc;

use turnpike_mqtt::{PacketId, QoS};

use crate::ids::{ClientId, MessageId, Seq, SessionKey, Ticket};
use crate::message::Message;

/// One durable change. A [`Part`] carries them in the order in which they were made.
#[derive(Clone, PartialEq, Debug)]
pub enum Op {
    /// Create or replace the header of a session.
    SessionPut(SessionKey, Arc<SessionRecord>),
    /// The session and everything under its key: subscriptions, owed entries, incoming identifiers.
    SessionDelete(SessionKey),
    /// Create or replace a subscription. `filter` is as subscribed, with its `$share/…` prefix.
    SubscriptionPut {
        /// Whose.
        session: SessionKey,
        /// The filter.
        filter: Box<str>,
        /// Options as encoded in SUBSCRIBE (QoS, no local, retain as published, retain handling).
        options: u8,
        /// Subscription identifier; 0 for none.
        identifier: u32,
    },
    /// Remove a subscription.
    SubscriptionDelete {
        /// Whose.
        session: SessionKey,
        /// The filter.
        filter: Box<str>,
    },
    /// A body that several owed entries refer to.
    MessagePut(MessageId, Arc<Message>),
    /// The last entry that referred to it is gone.
    MessageDelete(MessageId),
    /// A session is owed a message.
    OwedPut {
        /// Whose.
        session: SessionKey,
        /// Which place in its sequence.
        seq: Seq,
        /// The entry.
        owed: Owed,
    },
    /// QoS 2: the client has answered PUBREC; only PUBREL is still owed, the message isn't.
    OwedReleased {
        /// Whose.
        session: SessionKey,
        /// Which.
        seq: Seq,
    },
    /// Done with.
    OwedDelete {
        /// Whose.
        session: SessionKey,
        /// Which.
        seq: Seq,
    },
    /// QoS 2: this identifier of the client has been taken [MQTT-4.3.3-9].
    IncomingPut {
        /// Whose.
        session: SessionKey,
        /// Which.
        id: PacketId,
    },
    /// QoS 2: the client has released it.
    IncomingDelete {
        /// Whose.
        session: SessionKey,
        /// Which.
        id: PacketId,
    },
    /// Create or replace the retained message of its topic.
    RetainedPut(Arc<Message>),
    /// Remove a topic's retained message.
    RetainedDelete(Box<str>),
    /// A record of the registry (`authz` says what is in it).
    RegistryPut(Box<[u8]>, Box<[u8]>),
    /// Remove a record of the registry.
    RegistryDelete(Box<[u8]>),
}

/// The header of a durable session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionRecord {
    /// Whose session it is.
    pub client: ClientId,
    /// Session expiry interval in seconds; `u32::MAX` never expires (MQTT 5, 3.1.2.11.2).
    pub expiry_s: u32,
    /// When the client was last connected, milliseconds since 1970 UTC; the expiry counts from here. `None` while it is connected;
    /// after a crash it counts from the restart.
    pub disconnected_at_ms: Option<u64>,
    /// Whether it was made by an MQTT 3 client with clean session 0.
    pub mqtt3: bool,
    /// Who the client proved to be: empty for anonymous, `product\0device`, `\0u\0app\0user` or `\0s\0key`.
    pub principal: Box<str>,
    /// A will that waits for its delay, with the moment it is due (milliseconds since 1970 UTC).
    pub will: Option<(Arc<Message>, u64)>,
}

/// A message that a session is owed.
#[derive(Clone, PartialEq, Debug)]
pub struct Owed {
    /// QoS of the delivery: 1 or 2.
    pub qos: QoS,
    /// RETAIN flag of the delivery.
    pub retain: bool,
    /// Subscription identifiers of the delivery.
    pub identifiers: Box<[u32]>,
    /// The filter, with its `$share/…` prefix, of the shared subscription that it came by, if any.
    pub share: Option<Arc<str>>,
    /// The message.
    pub body: Body,
}

/// Where an owed message's bytes are.
#[derive(Clone, PartialEq, Debug)]
pub enum Body {
    /// Kept with the entry.
    Inline(Arc<Message>),
    /// Kept once for several entries, by [`Op::MessagePut`].
    Shared(MessageId, Arc<Message>),
    /// QoS 2 after PUBREC: no longer needed.
    Released,
}

/// What one shard adds to a ticket.
#[derive(Clone, PartialEq, Debug)]
pub struct Part {
    /// The ticket.
    pub ticket: Ticket,
    /// How many parts the ticket has in all; only the origin's own part says, and the origin always sends one.
    pub parts: Option<u16>,
    /// The changes, in order.
    pub ops: Vec<Op>,
}

/// A session as the store gives it back at start.
#[derive(Clone, PartialEq, Debug)]
pub struct RecoveredSession {
    /// Its durable identity.
    pub key: SessionKey,
    /// Its header.
    pub record: SessionRecord,
    /// Filter, options, identifier.
    pub subscriptions: Vec<(Box<str>, u8, u32)>,
    /// In the order of their sequence numbers.
    pub owed: Vec<(Seq, Owed)>,
    /// Incoming QoS 2 identifiers that have been taken and not yet released.
    pub incoming: Vec<PacketId>,
}

/// Takes what a store holds, when the broker starts.
pub trait Recovery {
    /// A session with all that is its own. Entries whose shared body is gone have been left out.
    fn session(&mut self, session: RecoveredSession);
    /// A retained message.
    fn retained(&mut self, message: Message);
    /// A record of the registry.
    fn registry(&mut self, key: &[u8], value: &[u8]);
}
