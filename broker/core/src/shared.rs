//! What all shards of a broker share: the routing index, the retained messages, and the counters of durable identities.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::full::FullQueues;
use crate::ids::{MessageId, SessionKey};
use crate::limits::Limits;
use crate::retain::RetainedStore;
use crate::router::Router;

/// One value for all shards.
#[derive(Debug)]
pub struct Shared {
    /// Who wants what.
    pub router: Router,
    /// The retained message of each topic.
    pub retained: RetainedStore,
    /// Sessions whose queue is full.
    pub(crate) full: FullQueues,
    next_session: AtomicU64,
    next_message: AtomicU64,
    store_serving: AtomicBool,
    store_low: AtomicBool,
}

impl Shared {
    /// Empty, with a store that serves.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self {
            router: Router::new(),
            retained: RetainedStore::new(limits.retained_messages_max, limits.retained_bytes_max),
            full: FullQueues::default(),
            next_session: AtomicU64::new(1),
            next_message: AtomicU64::new(1),
            store_serving: AtomicBool::new(true),
            store_low: AtomicBool::new(false),
        }
    }

    /// Continues the numbering of what a store has given back; call it before any shard runs.
    pub fn continue_from(&self, session: SessionKey, message: MessageId) {
        self.next_session.fetch_max(session.0, Ordering::Relaxed);
        self.next_message.fetch_max(message.0, Ordering::Relaxed);
    }

    /// Whether commits succeed. While they don't, what needs the store is refused.
    #[must_use]
    pub fn store_serving(&self) -> bool {
        self.store_serving.load(Ordering::Relaxed)
    }

    /// Set by the shell when the committer says so.
    pub fn set_store_serving(&self, serving: bool) {
        self.store_serving.store(serving, Ordering::Relaxed);
    }

    /// Whether more may be asked to be kept: commits succeed, and there is space. Without space, sessions that exist go on: what they
    /// acknowledge makes room.
    #[must_use]
    pub fn store_accepts(&self) -> bool {
        self.store_serving() && !self.store_low.load(Ordering::Relaxed)
    }

    /// Set by the shell when the committer says so.
    pub fn set_store_low(&self, low: bool) {
        self.store_low.store(low, Ordering::Relaxed);
    }

    pub(crate) fn new_session_key(&self) -> SessionKey {
        SessionKey(self.next_session.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn new_message_id(&self) -> MessageId {
        MessageId(self.next_message.fetch_add(1, Ordering::Relaxed))
    }
}
