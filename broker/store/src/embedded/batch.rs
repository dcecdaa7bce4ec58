//! Operations of a group become items of one batch.
//!
//! The engine gives all items of a batch the same sequence number, so a key may stand in a batch once: the last
//! operation on it wins here. Sorting also lets the engine insert in key order.

use std::collections::{HashMap, HashSet};

use fjall::{UserKey, UserValue};
use turnpike_core::durable::{Body, Op, Part};
use turnpike_core::ids::{Seq, SessionKey};

use super::runs::{Change, Place, Runs};
use super::{Engine, META_MESSAGE_HIGH, META_SESSION_HIGH, OF_SESSION, Space, record};
use crate::StoreError;

/// A key's new value; none deletes it.
pub(super) struct Item {
    pub(super) space: Space,
    pub(super) key: UserKey,
    pub(super) value: Option<UserValue>,
}

/// A group, ready to be written.
pub(super) struct Encoded {
    pub(super) items: Vec<Item>,
    /// Highest session key and message id, this group included.
    pub(super) highs: (u64, u64),
    /// What becomes of the runs once it is on disk.
    pub(super) changes: Vec<Change>,
}

/// Encodes a group. Reads the engine only for deletions of sessions, and for the end of a queue that has its first run.
pub(super) fn encode(engine: &Engine, runs: &Runs, group: &[Part], highs: (u64, u64)) -> Result<Encoded, StoreError> {
    let ops = || group.iter().flat_map(|part| &part.ops);
    let mut encoder = Encoder {
        engine,
        items: Vec::with_capacity(group.iter().map(|part| part.ops.len()).sum::<usize>() + 2),
        session_high: highs.0,
        message_high: highs.1,
        deleted: ops().filter_map(|op| if let Op::SessionDelete(key) = op { Some(*key) } else { None }).collect(),
        of_deleted: HashMap::new(),
        places: Vec::new(),
    };
    for op in ops() {
        encoder.op(op)?;
    }
    if encoder.session_high != highs.0 {
        encoder.put(Space::Meta, META_SESSION_HIGH, record::encode_counter(encoder.session_high));
    }
    if encoder.message_high != highs.1 {
        encoder.put(Space::Meta, META_MESSAGE_HIGH, record::encode_counter(encoder.message_high));
    }
    let highs = (encoder.session_high, encoder.message_high);
    let Encoder { mut items, places, deleted, .. } = encoder;
    let mut changes = runs.encode(engine, places, &mut items)?;
    changes.extend(deleted.into_iter().map(|session| Change::Gone { session }));
    Ok(Encoded { items: last_of_each_key(items), highs, changes })
}

struct Encoder<'a> {
    engine: &'a Engine,
    items: Vec<Item>,
    session_high: u64,
    message_high: u64,
    /// Sessions that this group deletes, and where in `items` something of theirs is: a deletion also undoes what the group put
    /// before it.
    deleted: HashSet<SessionKey>,
    of_deleted: HashMap<SessionKey, Vec<usize>>,
    /// What becomes of places in the queues of all other sessions.
    places: Vec<Place>,
}

impl Encoder<'_> {
    fn op(&mut self, op: &Op) -> Result<(), StoreError> {
        match op {
            Op::SessionPut(session, header) => {
                self.session_high = self.session_high.max(session.0);
                self.put_of(*session, Space::Sessions, record::session_key(*session), record::encode_session(header));
            }
            Op::SessionDelete(session) => self.delete_session(*session)?,
            Op::SubscriptionPut { session, filter, options, identifier } => {
                let key = record::text_key(&record::session_key(*session), filter.as_bytes());
                let value = record::encode_subscription(filter, *options, *identifier);
                self.put_of(*session, Space::Subscriptions, key, value);
            }
            Op::SubscriptionDelete { session, filter } => {
                let key = record::text_key(&record::session_key(*session), filter.as_bytes());
                self.delete(Space::Subscriptions, key);
            }
            Op::MessagePut(id, message) => {
                self.message_high = self.message_high.max(id.0);
                self.put(Space::Bodies, id.0.to_be_bytes(), record::encode_message(message));
            }
            Op::MessageDelete(id) => self.delete(Space::Bodies, id.0.to_be_bytes()),
            Op::OwedPut { session, seq, owed } => {
                let joins = matches!(owed.body, Body::Inline(_));
                self.place(*session, *seq, Some(record::encode_owed(owed)), joins);
            }
            Op::OwedReleased { session, seq } => {
                self.place(*session, *seq, Some(record::encode_released().to_vec()), false);
            }
            Op::OwedDelete { session, seq } => self.place(*session, *seq, None, false),
            Op::IncomingPut { session, id } => {
                self.put_of(*session, Space::Incoming, record::incoming_key(*session, *id), record::encode_incoming());
            }
            Op::IncomingDelete { session, id } => self.delete(Space::Incoming, record::incoming_key(*session, *id)),
            Op::RetainedPut(message) => {
                let key = record::text_key(&[], message.topic().as_str().as_bytes());
                self.put(Space::Retained, key, record::encode_message(message));
            }
            Op::RetainedDelete(topic) => self.delete(Space::Retained, record::text_key(&[], topic.as_bytes())),
            Op::RegistryPut(key, value) => {
                self.put(Space::Registry, record::text_key(&[], key), record::encode_registry(key, value));
            }
            Op::RegistryDelete(key) => self.delete(Space::Registry, record::text_key(&[], key)),
        }
        Ok(())
    }

    fn place(&mut self, session: SessionKey, seq: Seq, value: Option<Vec<u8>>, joins: bool) {
        if !self.deleted.contains(&session) {
            return self.places.push(Place { session, seq: seq.0, value, joins });
        }
        // Its runs go with it.
        match value {
            Some(value) => self.put_of(session, Space::Owed, record::owed_key(session, seq), value),
            None => self.delete(Space::Owed, record::owed_key(session, seq)),
        }
    }

    fn put(&mut self, space: Space, key: impl AsRef<[u8]>, value: impl Into<UserValue>) {
        self.items.push(Item { space, key: UserKey::from(key.as_ref()), value: Some(value.into()) });
    }

    fn put_of(&mut self, session: SessionKey, space: Space, key: impl AsRef<[u8]>, value: impl Into<UserValue>) {
        if self.deleted.contains(&session) {
            self.of_deleted.entry(session).or_default().push(self.items.len());
        }
        self.put(space, key, value);
    }

    fn delete(&mut self, space: Space, key: impl AsRef<[u8]>) {
        self.items.push(Item { space, key: UserKey::from(key.as_ref()), value: None });
    }

    fn delete_session(&mut self, session: SessionKey) -> Result<(), StoreError> {
        for at in self.of_deleted.remove(&session).unwrap_or_default() {
            if let Some(item) = self.items.get_mut(at) {
                item.value = None;
            }
        }
        for space in OF_SESSION {
            for entry in self.engine.space(space).prefix(record::session_key(session)) {
                let key = entry.key().map_err(|e| self.engine.error("read a session", e))?;
                self.items.push(Item { space, key, value: None });
            }
        }
        Ok(())
    }
}

fn last_of_each_key(mut items: Vec<Item>) -> Vec<Item> {
    items.sort_by(|a, b| (a.space, &a.key).cmp(&(b.space, &b.key)));
    // The sort is stable, so the last of equal keys is the latest; `dedup_by` keeps the first and is shown neighbours.
    items.dedup_by(|later, kept| {
        let same = (later.space, &later.key) == (kept.space, &kept.key);
        if same {
            std::mem::swap(later, kept);
        }
        same
    });
    items
}
