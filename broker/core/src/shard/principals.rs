//! Which sessions are whose: a hash of the principal, and the slots of its sessions. 5 bytes and a part of a session's own record.
//!
//! Finding a principal's sessions is O(1); without it, each change of a binding would visit every session. What lost: *a map from principals
//! to lists of slots*: it keeps every identity a second time, for lists that nearly always have one element.

use hashbrown::HashTable;

use crate::concern::Concern;
use crate::gate::Principal;
use crate::sessions::Sessions;

/// The index. Whoever is anonymous isn't in it.
#[derive(Default, Debug)]
pub(super) struct Principals {
    slots: HashTable<u32>,
    hasher: foldhash::fast::RandomState,
}

impl Principals {
    fn hash(hasher: &foldhash::fast::RandomState, principal: &Principal) -> u64 {
        std::hash::BuildHasher::hash_one(hasher, principal)
    }

    fn is_indexed(principal: &Principal) -> bool {
        !matches!(principal, Principal::Anonymous | Principal::Broker)
    }

    /// A session that is in the table now.
    pub(super) fn insert(&mut self, slot: u32, sessions: &Sessions) {
        let Some(session) = sessions.get(slot).filter(|session| Self::is_indexed(&session.principal)) else {
            return;
        };
        let hasher = &self.hasher;
        let rehash = |slot: &u32| sessions.get(*slot).map_or(0, |session| Self::hash(hasher, &session.principal));
        self.slots.insert_unique(Self::hash(hasher, &session.principal), slot, rehash);
    }

    /// A session that isn't any more.
    pub(super) fn remove(&mut self, slot: u32, principal: &Principal) {
        let hash = Self::hash(&self.hasher, principal);
        if let Ok(entry) = self.slots.find_entry(hash, |known| *known == slot) {
            entry.remove();
        }
    }

    /// The sessions that a change concerns.
    pub(super) fn concerned(&self, concern: &Concern, sessions: &Sessions) -> Vec<u32> {
        let covers = |slot: &u32| sessions.get(*slot).is_some_and(|session| concern.covers(&session.principal));
        match concern {
            Concern::Principal(principal) => {
                let hash = Self::hash(&self.hasher, principal);
                self.slots.iter_hash(hash).copied().filter(|slot| covers(slot)).collect()
            }
            Concern::Product(_) | Concern::App(_) | Concern::Users | Concern::Services => {
                self.slots.iter().copied().filter(|slot| covers(slot)).collect()
            }
        }
    }
}
