//! Which sessions are whose: a hash of the principal and the slot of one of its sessions, 5 to 10 bytes; the others of the same principal are
//! linked to it, through the sessions themselves.
//!
//! Adding and removing a session is O(1), and so is finding a principal's; without it, each change of a binding would visit every session.
//! What lost: *a map from principals to lists of slots*: it keeps every identity a second time, for lists that nearly always have one element.
//! *The slots of all sessions in the hash table*: those of one principal have one hash, so a back end with 10,000 connections would
//! have a probe walk past half of them each time that one comes or goes.

#[cfg(test)]
mod tests;

use hashbrown::HashTable;

use crate::concern::Concern;
use crate::gate::Principal;
use crate::session::Kin;
use crate::sessions::Sessions;

/// The index. Whoever is anonymous isn't in it.
#[derive(Default, Debug)]
pub(super) struct Principals {
    /// The first session of each.
    first: HashTable<u32>,
    hasher: foldhash::fast::RandomState,
}

impl Principals {
    fn hash(hasher: &foldhash::fast::RandomState, principal: &Principal) -> u64 {
        std::hash::BuildHasher::hash_one(hasher, principal)
    }

    fn is_indexed(principal: &Principal) -> bool {
        !matches!(principal, Principal::Anonymous | Principal::Broker)
    }

    fn first_of(&self, hash: u64, principal: &Principal, sessions: &Sessions) -> Option<u32> {
        let is_its = |slot: &u32| sessions.get(*slot).is_some_and(|session| session.principal == *principal);
        self.first.find(hash, is_its).copied()
    }

    /// A session that is in the table now.
    pub(super) fn insert(&mut self, slot: u32, sessions: &mut Sessions) {
        let Some(session) = sessions.get(slot).filter(|session| Self::is_indexed(&session.principal)) else {
            return;
        };
        let hash = Self::hash(&self.hasher, &session.principal);
        if let Some(first) = self.first_of(hash, &session.principal, sessions) {
            let second = sessions.get(first).and_then(|first| first.kin.next());
            link(Some(first), Some(slot), sessions);
            link(Some(slot), second, sessions);
            return;
        }
        let hasher = &self.hasher;
        let rehash = |slot: &u32| sessions.get(*slot).map_or(0, |session| Self::hash(hasher, &session.principal));
        self.first.insert_unique(hash, slot, rehash);
    }

    /// A session that won't be in it any more, and still is.
    pub(super) fn remove(&mut self, slot: u32, sessions: &mut Sessions) {
        let Some(session) = sessions.get_mut(slot) else { return };
        let kin = std::mem::take(&mut session.kin);
        if kin.previous().is_none()
            && let hash = Self::hash(&self.hasher, &session.principal)
            && let Ok(mut entry) = self.first.find_entry(hash, |known| *known == slot)
        {
            match kin.next() {
                Some(next) => *entry.get_mut() = next,
                None => _ = entry.remove(),
            }
        }
        link(kin.previous(), kin.next(), sessions);
    }

    /// The sessions that a change concerns.
    pub(super) fn concerned(&self, concern: &Concern, sessions: &Sessions) -> Vec<u32> {
        let covers = |slot: &u32| sessions.get(*slot).is_some_and(|session| concern.covers(&session.principal));
        let next = |slot: &u32| sessions.get(*slot)?.kin.next();
        let all = |first: u32| std::iter::successors(Some(first), next);
        match concern {
            Concern::Principal(principal) => {
                let hash = Self::hash(&self.hasher, principal);
                self.first_of(hash, principal, sessions).filter(covers).into_iter().flat_map(all).collect()
            }
            Concern::Product(_) | Concern::App(_) | Concern::Users | Concern::Services => {
                self.first.iter().copied().filter(covers).flat_map(all).collect()
            }
        }
    }
}

/// One is followed by the other from now on; none is an end.
fn link(one: Option<u32>, other: Option<u32>, sessions: &mut Sessions) {
    if let Some(session) = one.and_then(|slot| sessions.get_mut(slot)) {
        session.kin = Kin::new(session.kin.previous(), other);
    }
    if let Some(session) = other.and_then(|slot| sessions.get_mut(slot)) {
        session.kin = Kin::new(one, session.kin.next());
    }
}
