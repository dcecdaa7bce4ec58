//! A session: what the broker keeps for a client id, with or without a connection.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::sync::Arc;

use hashbrown::HashSet;
use turnpike_mqtt::{PacketId, QoS, SubscribeOptions};

use crate::clock::Now;
use crate::durable::SessionRecord;
use crate::gate::{DeviceIdentity, Principal, ServiceIdentity, UserIdentity};
use crate::ids::{ClientId, ConnId, Seq, SessionKey};
use crate::message::Message;
use crate::meter::Meter;
use crate::outgoing::Outgoing;
use crate::retain::Walk;

/// One subscription, as subscribed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Subscription {
    /// With its `$share/{name}/` prefix.
    pub(crate) filter: Box<str>,
    pub(crate) options: SubscribeOptions,
    /// 0 for none.
    pub(crate) identifier: u32,
}

/// A will: published when the connection ends without DISCONNECT 0x00, or when its delay is over or the session ends,
/// whichever comes first [MQTT-3.1.2-8].
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Will {
    pub(crate) message: Arc<Message>,
    pub(crate) delay_s: u32,
    /// Expiry of the message in seconds; it counts from publication.
    pub(crate) expiry_s: Option<u32>,
    /// When it is due, milliseconds since 1970 UTC, if it is pending without a connection.
    pub(crate) due_ms: Option<NonZeroU64>,
}

/// A walk through the retained messages of a new subscription.
#[derive(Debug)]
pub(crate) struct RetainedWalk {
    pub(crate) filter: Box<str>,
    pub(crate) walk: Walk,
    pub(crate) qos: QoS,
    /// 0 for none.
    pub(crate) identifier: u32,
}

/// Neighbours in the list of the sessions of one principal, by slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Kin {
    previous: u32,
    next: u32,
}

/// No slot: a table has fewer.
const NO_SLOT: u32 = u32::MAX;

impl Default for Kin {
    fn default() -> Self {
        Self::new(None, None)
    }
}

impl Kin {
    pub(crate) fn new(previous: Option<u32>, next: Option<u32>) -> Self {
        Self { previous: previous.unwrap_or(NO_SLOT), next: next.unwrap_or(NO_SLOT) }
    }

    pub(crate) fn previous(self) -> Option<u32> {
        Some(self.previous).filter(|slot| *slot != NO_SLOT)
    }

    pub(crate) fn next(self) -> Option<u32> {
        Some(self.next).filter(|slot| *slot != NO_SLOT)
    }
}

/// The state of one client id on its home shard.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) client: ClientId,
    pub(crate) principal: Principal,
    /// While it is connected, if anything limits it.
    pub(crate) meter: Option<Box<Meter>>,
    /// Some if the session outlives its connection.
    pub(crate) key: Option<SessionKey>,
    pub(crate) generation: u32,
    pub(crate) kin: Kin,
    /// Seconds that the session outlives its connection; `u32::MAX` for ever.
    pub(crate) expiry_s: u32,
    pub(crate) conn: Option<ConnId>,
    /// Of client and principal, for the index by client ([`crate::sessions`]). Takes up what alignment leaves.
    pub(crate) hash: u32,
    pub(crate) mqtt3: bool,
    /// What it publishes may go to users' feeds.
    pub(crate) fed: bool,
    /// Sequence number that the next `outgoing` starts at, while there is none.
    pub(crate) next_seq: Seq,
    pub(crate) outgoing: Option<Box<Outgoing>>,
    /// QoS 2 identifiers of the client that have been taken and not released.
    pub(crate) incoming: Option<Box<HashSet<PacketId, foldhash::fast::RandomState>>>,
    pub(crate) subscriptions: Vec<Subscription>,
    pub(crate) will: Option<Box<Will>>,
    /// Retained messages that its new subscriptions have still to be given, a part at a time.
    #[allow(
        clippy::box_collection,
        reason = "every session has one, and nearly always it is none: 8 bytes instead of 32"
    )]
    pub(crate) walks: Option<Box<VecDeque<RetainedWalk>>>,
    /// Since when it has no connection, milliseconds since 1970 UTC.
    pub(crate) disconnected_at_ms: u64,
}

impl Session {
    /// One that is empty, ends with its connection, and has none yet.
    pub(crate) fn new(client: ClientId, principal: Principal) -> Self {
        Self {
            client,
            principal,
            meter: None,
            key: None,
            generation: 0,
            kin: Kin::default(),
            expiry_s: 0,
            conn: None,
            hash: 0,
            mqtt3: false,
            fed: false,
            next_seq: Seq(0),
            outgoing: None,
            incoming: None,
            subscriptions: Vec::new(),
            will: None,
            walks: None,
            disconnected_at_ms: 0,
        }
    }

    /// Gives the queue's memory back if nothing is in it.
    pub(crate) fn release_empty_queue(&mut self) {
        if let Some(outgoing) = self.outgoing.take_if(|outgoing| outgoing.is_empty()) {
            self.next_seq = outgoing.next_seq();
        }
        drop(self.incoming.take_if(|incoming| incoming.is_empty()));
    }

    /// Whether a QoS 2 identifier has been taken.
    pub(crate) fn has_incoming(&self, id: PacketId) -> bool {
        self.incoming.as_ref().is_some_and(|set| set.contains(&id))
    }

    /// Takes a QoS 2 identifier.
    pub(crate) fn add_incoming(&mut self, id: PacketId) {
        self.incoming.get_or_insert_default().insert(id);
    }

    /// Releases a QoS 2 identifier; false if it wasn't taken.
    pub(crate) fn remove_incoming(&mut self, id: PacketId) -> bool {
        self.incoming.as_mut().is_some_and(|set| set.remove(&id))
    }

    /// How many QoS 2 identifiers are taken.
    pub(crate) fn incoming_len(&self) -> usize {
        self.incoming.as_ref().map_or(0, |set| set.len())
    }

    /// When the session expires, milliseconds since 1970 UTC; none while connected or if it never does.
    pub(crate) fn expires_at_ms(&self) -> Option<u64> {
        (self.conn.is_none() && self.expiry_s != u32::MAX)
            .then(|| self.disconnected_at_ms.saturating_add(u64::from(self.expiry_s) * 1000))
    }

    /// The header, as the store keeps it.
    pub(crate) fn record(&self) -> Arc<SessionRecord> {
        Arc::new(SessionRecord {
            client: self.client.clone(),
            expiry_s: self.expiry_s,
            disconnected_at_ms: self.conn.is_none().then_some(self.disconnected_at_ms),
            mqtt3: self.mqtt3,
            principal: principal_text(&self.principal),
            will: self.lasting_will().and_then(|will| Some((Arc::clone(&will.message), will.due_ms?.get()))),
        })
    }

    /// The will, if it may come after a restart: by what its user came in isn't kept, so nobody could tell then that it was taken back.
    fn lasting_will(&self) -> Option<&Will> {
        let is_taken_back = matches!(&self.principal, Principal::User(user) if user.by.is_some());
        self.will.as_deref().filter(|_| !is_taken_back)
    }

    /// A will that is due at `now`.
    pub(crate) fn take_due_will(&mut self, now: Now) -> Option<Box<Will>> {
        self.will.take_if(|will| will.due_ms.is_some_and(|due_ms| due_ms.get() <= now.unix_ms))
    }
}

/// A session's queue, made when it is first needed. (A function of the fields, so that the others can still be read.)
pub(crate) fn queue_of(outgoing: &mut Option<Box<Outgoing>>, next: Seq) -> &mut Outgoing {
    outgoing.get_or_insert_with(|| Box::new(Outgoing::starting_at(next)))
}

/// A principal as text: empty for anonymous, `product\0device`, `\0u\0app\0user` or `\0s\0key`. No product is empty, so
/// no device's text is a user's or a service's.
pub(crate) fn principal_text(principal: &Principal) -> Box<str> {
    match principal {
        Principal::Anonymous | Principal::Platform(_) | Principal::Broker => Box::from(""),
        Principal::Device(identity) => format!("{}\0{}", identity.product, identity.device).into(),
        Principal::User(identity) => format!("\0u\0{}\0{}", identity.app, identity.user).into(),
        Principal::Service(identity) => format!("\0s\0{}", identity.key).into(),
    }
}

/// The principal of such a text; anonymous, who may do nothing unless everybody may do everything, if it is none.
pub(crate) fn principal_of(text: &str) -> Principal {
    let mut parts = text.splitn(4, '\0');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(""), Some("u"), Some(app), Some(user)) => {
            Principal::User(Arc::new(UserIdentity { app: app.into(), user: user.into(), by: None }))
        }
        (Some(""), Some("s"), Some(key), None) => Principal::Service(Arc::new(ServiceIdentity { key: key.into() })),
        (Some(product), Some(device), None, None) if !product.is_empty() => {
            Principal::Device(Arc::new(DeviceIdentity::new(product, device)))
        }
        _ => Principal::Anonymous,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_is_restored_from_its_text() {
        let device = |product: &str, device: &str| Principal::Device(Arc::new(DeviceIdentity::new(product, device)));
        for principal in [
            Principal::Anonymous,
            device("p", "d"),
            // Neither a user nor a service.
            device("u", "app"),
            device("s", "key"),
            Principal::User(Arc::new(UserIdentity { app: "a".into(), user: "u".into(), by: None })),
            Principal::Service(Arc::new(ServiceIdentity { key: "k".into() })),
        ] {
            assert_eq!(principal_of(&principal_text(&principal)), principal);
        }
        for text in ["x", "\0", "\0x\0y", "\0u\0a", "\0s\0k\0l", "p\0d\0e", "\0d"] {
            assert_eq!(principal_of(text), Principal::Anonymous, "{text:?}");
        }
    }
}
