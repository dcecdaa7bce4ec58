//! Which sessions' queues are full, for shards that aren't their home: who publishes to such a session learns it before it says
//! that the message was taken.
//!
//! Only a session's home shard changes its mark. Nearly always nothing is marked, and then asking costs one load.

use std::sync::atomic::{AtomicUsize, Ordering};

use hashbrown::HashMap;
use parking_lot::RwLock;

use crate::ids::SessionRef;

/// One value for all shards. At most one mark a session.
#[derive(Debug, Default)]
pub(crate) struct FullQueues {
    marks: AtomicUsize,
    /// Whether each holds history back.
    sessions: RwLock<HashMap<SessionRef, bool, foldhash::fast::RandomState>>,
}

impl FullQueues {
    /// Marks a session, which holds history back or lets it pass; false if it is marked already.
    pub(crate) fn mark(&self, session: SessionRef, holds_back: bool) -> bool {
        if self.contains(session) {
            return false;
        }
        let mut sessions = self.sessions.write();
        let new = sessions.insert(session, holds_back).is_none();
        self.marks.store(sessions.len(), Ordering::Relaxed);
        new
    }

    /// Takes the mark away.
    pub(crate) fn clear(&self, session: SessionRef) {
        let mut sessions = self.sessions.write();
        sessions.remove(&session);
        if sessions.is_empty() {
            sessions.shrink_to_fit();
        }
        self.marks.store(sessions.len(), Ordering::Relaxed);
    }

    /// Whether it is marked.
    pub(crate) fn contains(&self, session: SessionRef) -> bool {
        self.marks.load(Ordering::Relaxed) > 0 && self.sessions.read().contains_key(&session)
    }

    /// Whether it is marked, and holds history back.
    pub(crate) fn holds_back(&self, session: SessionRef) -> bool {
        self.marks.load(Ordering::Relaxed) > 0 && self.sessions.read().get(&session).copied().unwrap_or(false)
    }
}
