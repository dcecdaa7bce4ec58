//! A store that keeps nothing beyond the process: for brokers that want none, for simulation, and as the model in tests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use turnpike_core::durable::{Body, Op, Owed, Part, RecoveredSession, Recovery, SessionRecord};
use turnpike_core::ids::{MessageId, Seq, SessionKey};
use turnpike_core::message::Message;
use turnpike_mqtt::QoS;

use crate::{RecoveryCounts, RecoverySummary, Store, StoreError};

/// What the store holds after its last commit. Cloning shares it: a simulation keeps a clone, drops the broker with its store
/// and starts another on the clone; what was submitted and not committed is gone, as after a crash.
#[derive(Clone, Default, Debug)]
pub struct MemoryStore(Arc<Mutex<State>>);

#[derive(Clone, Default, Debug)]
struct State {
    sessions: BTreeMap<u64, SessionRecord>,
    subscriptions: BTreeMap<(u64, Box<str>), (u8, u32)>,
    owed: BTreeMap<(u64, u64), Owed>,
    incoming: BTreeSet<(u64, turnpike_mqtt::PacketId)>,
    bodies: BTreeMap<u64, Arc<Message>>,
    retained: BTreeMap<Box<str>, Message>,
    registry: BTreeMap<Box<[u8]>, Box<[u8]>>,
    session_high: u64,
    message_high: u64,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A copy that goes its own way from here: what a crash at this moment would leave.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        Self(Arc::new(Mutex::new(self.0.lock().clone())))
    }
}

impl Store for MemoryStore {
    fn commit(&mut self, group: &[Part]) -> Result<(), StoreError> {
        let mut state = self.0.lock();
        for op in group.iter().flat_map(|part| &part.ops) {
            state.apply(op);
        }
        Ok(())
    }

    fn recover(&mut self, into: &mut dyn Recovery) -> Result<RecoverySummary, StoreError> {
        Ok(self.0.lock().recover(into))
    }

    fn heal(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

impl State {
    fn apply(&mut self, op: &Op) {
        match op {
            Op::SessionPut(key, record) => {
                self.session_high = self.session_high.max(key.0);
                let mut record = SessionRecord::clone(record);
                record.will = record.will.map(|(message, due)| (Arc::new(as_recovered(&message, None)), due));
                self.sessions.insert(key.0, record);
            }
            Op::SessionDelete(key) => {
                self.sessions.remove(&key.0);
                self.subscriptions.retain(|(session, _), _| *session != key.0);
                self.owed.retain(|(session, _), _| *session != key.0);
                self.incoming.retain(|(session, _)| *session != key.0);
            }
            Op::SubscriptionPut { session, filter, options, identifier } => {
                self.subscriptions.insert((session.0, filter.clone()), (*options, *identifier));
            }
            Op::SubscriptionDelete { session, filter } => {
                self.subscriptions.remove(&(session.0, filter.clone()));
            }
            Op::MessagePut(id, message) => {
                self.message_high = self.message_high.max(id.0);
                self.bodies.insert(id.0, Arc::new(as_recovered(message, Some(*id))));
            }
            Op::MessageDelete(id) => {
                self.bodies.remove(&id.0);
            }
            Op::OwedPut { session, seq, owed } => {
                let mut owed = owed.clone();
                match &mut owed.body {
                    Body::Inline(message) => *message = Arc::new(as_recovered(message, None)),
                    Body::Released => owed = released(),
                    Body::Shared(..) => {}
                }
                self.owed.insert((session.0, seq.0), owed);
            }
            Op::OwedReleased { session, seq } => {
                self.owed.insert((session.0, seq.0), released());
            }
            Op::OwedDelete { session, seq } => {
                self.owed.remove(&(session.0, seq.0));
            }
            Op::IncomingPut { session, id } => {
                self.incoming.insert((session.0, *id));
            }
            Op::IncomingDelete { session, id } => {
                self.incoming.remove(&(session.0, *id));
            }
            Op::RetainedPut(message) => {
                let message = as_recovered(message, None);
                self.retained.insert(message.topic().as_str().into(), message);
            }
            Op::RetainedDelete(topic) => {
                self.retained.remove(topic);
            }
            Op::RegistryPut(key, value) => {
                self.registry.insert(key.clone(), value.clone());
            }
            Op::RegistryDelete(key) => {
                self.registry.remove(key);
            }
        }
    }

    fn recover(&mut self, into: &mut dyn Recovery) -> RecoverySummary {
        let records =
            |state: &Self| state.subscriptions.len() + state.owed.len() + state.incoming.len() + state.bodies.len();
        let before = records(self);
        self.remove_orphans();
        let counts = RecoveryCounts {
            sessions: self.sessions.len() as u64,
            subscriptions: self.subscriptions.len() as u64,
            owed: self.owed.len() as u64,
            incoming: self.incoming.len() as u64,
            bodies: self.bodies.len() as u64,
            retained: self.retained.len() as u64,
            registry: self.registry.len() as u64,
            orphans_removed: (before - records(self)) as u64,
        };
        for (key, value) in &self.registry {
            into.registry(key, value);
        }
        for message in self.retained.values() {
            into.retained(message.clone());
        }
        for (&key, record) in &self.sessions {
            into.session(self.session(key, record));
        }
        RecoverySummary {
            next_session_key: SessionKey(self.session_high + 1),
            next_message_id: MessageId(self.message_high + 1),
            counts,
        }
    }

    fn remove_orphans(&mut self) {
        let (sessions, bodies) = (&self.sessions, &mut self.bodies);
        self.subscriptions.retain(|(session, _), _| sessions.contains_key(session));
        self.incoming.retain(|(session, _)| sessions.contains_key(session));
        let mut used = BTreeSet::new();
        self.owed.retain(|(session, _), owed| {
            if let Body::Shared(id, _) = &owed.body
                && sessions.contains_key(session)
            {
                used.insert(id.0);
                return bodies.contains_key(&id.0);
            }
            sessions.contains_key(session)
        });
        bodies.retain(|id, _| used.contains(id));
    }

    fn session(&self, key: u64, record: &SessionRecord) -> RecoveredSession {
        let owed = self.owed.range((key, 0)..=(key, u64::MAX)).map(|(&(_, seq), owed)| {
            let mut owed = owed.clone();
            if let Body::Shared(id, message) = &mut owed.body
                && let Some(body) = self.bodies.get(&id.0)
            {
                *message = Arc::clone(body);
            }
            (Seq(seq), owed)
        });
        let subscriptions =
            self.subscriptions.range((key, Box::from(""))..).take_while(|((session, _), _)| *session == key);
        let incoming = self.incoming.iter().filter(|(session, _)| *session == key);
        RecoveredSession {
            key: SessionKey(key),
            record: record.clone(),
            subscriptions: subscriptions.map(|((_, filter), &(options, id))| (filter.clone(), options, id)).collect(),
            owed: owed.collect(),
            incoming: incoming.map(|&(_, id)| id).collect(),
        }
    }
}

/// What an owed entry becomes when only its PUBREL is still owed.
pub(crate) fn released() -> Owed {
    Owed { qos: QoS::ExactlyOnce, retain: false, identifiers: Box::default(), share: None, body: Body::Released }
}

/// A message as a store gives it back: the publishing session is forgotten.
fn as_recovered(message: &Message, shared_id: Option<MessageId>) -> Message {
    let mut message = message.clone();
    message.publisher = None;
    message.shared_id = shared_id;
    message
}

#[cfg(test)]
mod tests;
