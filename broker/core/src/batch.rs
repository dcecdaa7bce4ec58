//! What one turn of a shard sends to another: deliveries, their bytes in one arena.
//!
//! Two allocations a batch and none a message, and the buffers keep their size from turn to turn on the sending side's first
//! use. A message that goes to many sessions of the other shard is there once.

use std::sync::Arc;

use turnpike_mqtt::{QoS, TopicName};

use crate::ids::{SessionRef, ShardId, Turn};
use crate::message::MessageParts;

/// Deliveries from one shard to another.
#[derive(Debug)]
pub struct Batch {
    /// Whose turn it was.
    pub from: ShardId,
    /// Set if any of these deliveries is durable: the receiver then adds a part to that ticket, even an empty one.
    pub(crate) turn: Option<Turn>,
    arena: Vec<u8>,
    items: Vec<Item>,
    targets: Vec<Target>,
    identifiers: Vec<u32>,
    shares: Vec<Arc<str>>,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    topic_len: u32,
    properties_len: u32,
    payload_len: u32,
    targets: u32,
    expires_at_ms: Option<u64>,
    publisher: Option<SessionRef>,
    qos: QoS,
    retain: bool,
}

#[derive(Clone, Copy, Debug)]
struct Target {
    slot: u32,
    generation: u32,
    identifiers: u32,
    /// Index into `shares`; `u32::MAX` for none.
    share: u32,
    qos: QoS,
    retain: bool,
}

/// One session that is to have a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recipient<'a> {
    /// Index within the shard.
    pub(crate) slot: u32,
    pub(crate) generation: u32,
    /// The lower of the message's and the subscription's.
    pub(crate) qos: QoS,
    /// RETAIN flag of the delivery.
    pub(crate) retain: bool,
    pub(crate) identifiers: &'a [u32],
    pub(crate) share: Option<&'a Arc<str>>,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub(crate) fn new(from: ShardId) -> Self {
        Self {
            from,
            turn: None,
            arena: Vec::new(),
            items: Vec::new(),
            targets: Vec::new(),
            identifiers: Vec::new(),
            shares: Vec::new(),
        }
    }

    /// Memory that the batch holds, for the bound on inboxes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.arena.len() + self.items.len() * size_of::<Item>() + self.targets.len() * size_of::<Target>()
    }

    /// Nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Begins a message; recipients follow.
    pub(crate) fn message(&mut self, parts: &MessageParts<'_>) {
        let topic = parts.topic.as_str().as_bytes();
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("a packet is at most 256 MiB");
        self.items.push(Item {
            topic_len: length(topic),
            properties_len: length(parts.properties),
            payload_len: length(parts.payload),
            targets: 0,
            expires_at_ms: parts.expires_at_ms,
            publisher: parts.publisher,
            qos: parts.qos,
            retain: parts.retain,
        });
        self.arena.extend_from_slice(topic);
        self.arena.extend_from_slice(parts.properties);
        self.arena.extend_from_slice(parts.payload);
    }

    /// Adds a recipient to the message begun last.
    pub(crate) fn recipient(&mut self, recipient: &Recipient<'_>) {
        let Some(item) = self.items.last_mut() else { return };
        item.targets += 1;
        self.identifiers.extend_from_slice(recipient.identifiers);
        let share = recipient.share.map_or(u32::MAX, |share| {
            self.shares.push(Arc::clone(share));
            u32::try_from(self.shares.len() - 1).expect("a batch is bounded")
        });
        self.targets.push(Target {
            slot: recipient.slot,
            generation: recipient.generation,
            identifiers: u32::try_from(recipient.identifiers.len()).expect("bounded by a session's subscriptions"),
            share,
            qos: recipient.qos,
            retain: recipient.retain,
        });
    }

    /// Every message with its recipients.
    pub(crate) fn for_each(&self, mut f: impl FnMut(&MessageParts<'_>, &mut dyn Iterator<Item = Recipient<'_>>)) {
        let (mut arena, mut targets) = (self.arena.as_slice(), self.targets.as_slice());
        let mut identifiers = self.identifiers.as_slice();
        for item in &self.items {
            let topic = take(&mut arena, item.topic_len);
            let parts = MessageParts {
                topic: TopicName::from_validated(std::str::from_utf8(topic).expect("copied from a topic name")),
                properties: take(&mut arena, item.properties_len),
                payload: take(&mut arena, item.payload_len),
                qos: item.qos,
                retain: item.retain,
                expires_at_ms: item.expires_at_ms,
                publisher: item.publisher,
            };
            let own = take(&mut targets, item.targets);
            f(
                &parts,
                &mut own.iter().map(|target| Recipient {
                    slot: target.slot,
                    generation: target.generation,
                    qos: target.qos,
                    retain: target.retain,
                    identifiers: take(&mut identifiers, target.identifiers),
                    share: self.shares.get(target.share as usize),
                }),
            );
        }
    }
}

/// Cuts `n` off the front. The lengths were counted when the arena was filled.
fn take<'a, T>(from: &mut &'a [T], n: u32) -> &'a [T] {
    let (head, tail) = from.split_at_checked(n as usize).unwrap_or((from, &[]));
    *from = tail;
    head
}
