//! The sessions of a shard, by slot and by client.
//!
//! A client is a client id and who proved to have it: a client id is a name that anybody may choose, so each principal has its own, and nobody
//! keeps another out by coming first. (The protocol knows of one client for an id [MQTT-3.1.4-2]; it knows nothing of who that is.)
//!
//! A slot is a key of a [`Table`]. By client, a hash table says the slot and nothing more, 5 bytes with its control byte; client id and
//! principal are the session's own. A look-up therefore reads one session, which the CONNECT that asked needs anyway.
//!
//! The hash table is cut in 64 parts, whose shares of the hashes grow geometrically: the last is nearly twice as large as
//! the first. So as sessions come, the parts double one after another instead of all at once: whatever their number, two thirds of the
//! buckets are in use, 8 bytes a session, and a CONNECT that meets a doubling hashes a 64th of the sessions again, not all of them.
//!
//! To hash a session again is to read it: 32 bits of its hash are kept in it, which know nothing of a client that it could be taken for, but spare
//! a look at its client id and its principal, each at a place of its own.
//!
//! What lost: *a map with client ids as keys*: 25 bytes a bucket, 29 to 57 a session, and a million sessions hashed again in one turn.
//! *A hash kept with the slot* spares reading the sessions then, for 6 bytes more a session at all times.

#[cfg(test)]
mod tests;

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::gate::Principal;
use crate::session::Session;
use crate::table::Table;

/// Parts of the index by client.
const PARTS: usize = 64;

/// Sessions by slot and by client.
#[derive(Debug)]
pub(crate) struct Sessions {
    table: Table<Session>,
    by_client: Box<[HashTable<u32>]>,
    hasher: RandomState,
}

impl Sessions {
    pub(crate) fn new() -> Self {
        Self {
            table: Table::new(),
            by_client: std::iter::repeat_with(HashTable::new).take(PARTS).collect(),
            hasher: RandomState::default(),
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// The session in a slot.
    #[inline]
    pub(crate) fn get(&self, slot: u32) -> Option<&Session> {
        self.table.get(slot as usize)
    }

    /// The same, to be changed; its client id stays, and its principal stays equal.
    #[inline]
    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut Session> {
        self.table.get_mut(slot as usize)
    }

    /// The slot of a client's session.
    pub(crate) fn find(&self, client: &str, principal: &Principal) -> Option<u32> {
        let short = self.hash(client, principal);
        let is_it = |slot: &u32| {
            self.get(*slot).is_some_and(|session| {
                session.hash == short && session.client.as_str() == client && session.principal == *principal
            })
        };
        let hash = spread(short);
        self.by_client.get(part(hash))?.find(hash, is_it).copied()
    }

    /// Adds a session, whose client has none, and gives its slot.
    pub(crate) fn insert(&mut self, session: Session) -> u32 {
        let short = self.hash(session.client.as_str(), &session.principal);
        let Self { table, by_client, .. } = self;
        let slot = table.insert(Session { hash: short, ..session });
        let slot = u32::try_from(slot).expect("a table's keys are below 2^32");
        let hash = spread(short);
        if let Some(part) = by_client.get_mut(part(hash)) {
            part.insert_unique(hash, slot, |slot| table.get(*slot as usize).map_or(0, |session| spread(session.hash)));
        }
        slot
    }

    /// Takes a session out.
    pub(crate) fn remove(&mut self, slot: u32) -> Option<Session> {
        let session = self.table.remove(slot as usize)?;
        let hash = spread(session.hash);
        if let Some(part) = self.by_client.get_mut(part(hash))
            && let Ok(entry) = part.find_entry(hash, |known| *known == slot)
        {
            entry.remove();
        }
        Some(session)
    }

    fn hash(&self, client: &str, principal: &Principal) -> u32 {
        (self.hasher.hash_one((client, principal)) >> 32) as u32
    }

    /// All sessions with their slots.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Session)> {
        self.table.iter().filter_map(|(key, session)| Some((u32::try_from(key).ok()?, session)))
    }
}

/// All 64 bits that the index wants, from those that a session keeps.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The part that a hash belongs to. Part *i* has a share of 2^((i + 1) / 64) − 2^(i / 64).
fn part(hash: u64) -> usize {
    // A number from 1 up to 2 with bits from the middle of the hash: the table uses the lowest and the highest.
    let number = f64::from_bits(1_f64.to_bits() | hash.rotate_left(32) >> 12);
    ((number.log2() * PARTS as f64) as usize).min(PARTS - 1)
}
