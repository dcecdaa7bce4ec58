//! From where users logged in: the last thirty of each, and word of new places.
//!
//! A user's log-ins are one packed record of a `Shelf`, some thirty bytes each. Memory is bounded: above [`BYTES_MAX`] the older half of
//! somebody's goes, in turn, so that nobody's history is taken for another's. A log-in is noted when the gate has let it in; the
//! control plane collects what has changed and commits it, a user's at once, so a crash forgets about a second of it.

use std::collections::{HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use turnpike_core::ids::ClientId;

use super::ids::UserKey;
use super::shelf::{Ref, Shelf};

/// Log-ins that are kept of a user.
pub const LOG_INS_MAX: usize = 30;
/// Bytes of all users' log-ins.
pub const BYTES_MAX: usize = 256 << 20;
/// Bytes of a client id that are kept.
pub const CLIENT_BYTES_MAX: usize = 64;
/// Users whose log-ins wait to be committed, and events that wait to be taken; beyond it, the newest are left out and counted.
pub const WAITING_MAX: usize = 100_000;

/// How a user proved who it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proof {
    /// By a token.
    Token,
    /// By a session code.
    Code,
}

impl Proof {
    /// As it is called in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Code => "code",
        }
    }
}

/// One log-in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogIn {
    /// Seconds since 1970 UTC, up to the year 2106.
    pub at_s: u32,
    /// From where.
    pub address: IpAddr,
    /// The client id as sent, at most [`CLIENT_BYTES_MAX`] bytes of it: the device logged in from. Empty where one was assigned.
    pub client: ClientId,
    /// By what.
    pub proof: Proof,
}

/// A user has logged in from a device or an address that its last log-ins don't have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewPlace {
    /// Who.
    pub user: UserKey,
    /// From where.
    pub log_in: LogIn,
    /// The device is new.
    pub new_client: bool,
    /// The address is new.
    pub new_address: bool,
}

/// A device that a user has logged in from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// Its client id.
    pub client: ClientId,
    /// When it was last.
    pub last: LogIn,
    /// How many of the last log-ins.
    pub count: usize,
}

const CODE: u8 = 1;
const V6: u8 = 2;

/// The log-ins of all users.
#[derive(Debug, Default)]
pub(super) struct LogIns {
    records: Shelf,
    bytes: AtomicUsize,
    /// Where the next history is that loses its older half.
    hand: Mutex<Option<Ref>>,
    /// Users whose record isn't committed.
    changed: Mutex<HashSet<UserKey, foldhash::fast::RandomState>>,
    events: Mutex<VecDeque<NewPlace>>,
    left_out: AtomicU64,
}

impl LogIns {
    /// Notes a log-in.
    pub(super) fn note(&self, user: &UserKey, log_in: &LogIn) {
        self.note_within(user, log_in, BYTES_MAX);
    }

    fn note_within(&self, user: &UserKey, log_in: &LogIn, bytes_max: usize) {
        let client = cut(log_in.client.as_str());
        let log_in = LogIn { client: ClientId::new(client), ..*log_in };
        let (mut new_client, mut new_address) = (true, true);
        self.change(user, |tail| {
            for known in unpack(tail) {
                new_client &= known.client != log_in.client;
                new_address &= known.address != log_in.address;
            }
            pack(tail, &log_in);
            let surplus = unpack(tail).count().saturating_sub(LOG_INS_MAX);
            drop_oldest(tail, surplus);
        });
        let mut changed = self.changed.lock();
        if changed.len() < WAITING_MAX || changed.contains(user) {
            changed.insert(user.clone());
        } else {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
        drop(changed);
        if new_client || new_address {
            self.raise(NewPlace { user: user.clone(), log_in, new_client, new_address });
        }
        self.trim(bytes_max);
    }

    fn raise(&self, event: NewPlace) {
        let mut events = self.events.lock();
        if events.len() < WAITING_MAX {
            events.push_back(event);
        } else {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn change(&self, user: &UserKey, f: impl FnOnce(&mut Vec<u8>)) {
        self.records.change(user.app.as_str(), user.user.as_str(), |tail| self.counted(tail, f));
    }

    fn counted(&self, tail: &mut Vec<u8>, f: impl FnOnce(&mut Vec<u8>)) {
        let before = tail.len();
        f(tail);
        if tail.len() >= before {
            self.bytes.fetch_add(tail.len() - before, Ordering::Relaxed);
        } else {
            self.bytes.fetch_sub(before - tail.len(), Ordering::Relaxed);
        }
    }

    /// Takes the older half of somebody's, until there is room.
    fn trim(&self, bytes_max: usize) {
        while self.bytes.load(Ordering::Relaxed) > bytes_max {
            let mut hand = self.hand.lock();
            let mut next = None;
            self.records.scan(*hand, |at, _, _, _| {
                next = Some(at);
                false
            });
            *hand = next;
            // At the end it begins again. What is trimmed here is trimmed in the store with the user's next log-in.
            if let Some(at) = next {
                self.records.change_at(at, |tail| {
                    self.counted(tail, |tail| {
                        let half = unpack(tail).count().div_ceil(2);
                        drop_oldest(tail, half);
                    });
                });
            }
        }
    }

    /// A user's, the newest first.
    pub(super) fn of(&self, user: &UserKey) -> Vec<LogIn> {
        let read = |_, tail: &[u8]| unpack(tail).collect::<Vec<_>>();
        let mut found = self.records.with(user.app.as_str(), user.user.as_str(), read).unwrap_or_default();
        found.reverse();
        found
    }

    /// Where a user has logged in from, by client id, the newest first.
    pub(super) fn places(&self, user: &UserKey) -> Vec<Place> {
        let mut places: Vec<Place> = Vec::new();
        for log_in in self.of(user) {
            match places.iter_mut().find(|place| place.client == log_in.client) {
                Some(place) => place.count += 1,
                None => places.push(Place { client: log_in.client.clone(), last: log_in, count: 1 }),
            }
        }
        places
    }

    /// The records of up to `limit` users that have changed; they count as committed from here on.
    pub(super) fn take_changed(&self, limit: usize) -> Vec<(UserKey, Box<[u8]>)> {
        let mut changed = self.changed.lock();
        let users: Vec<UserKey> = changed.iter().take(limit).cloned().collect();
        users.iter().for_each(|user| drop(changed.take(user)));
        drop(changed);
        let record = |user: UserKey| {
            let bytes = self.records.with(user.app.as_str(), user.user.as_str(), |_, tail| tail.into())?;
            Some((user, bytes))
        };
        users.into_iter().filter_map(record).collect()
    }

    pub(super) fn take_events(&self, limit: usize) -> Vec<NewPlace> {
        let mut events = self.events.lock();
        let count = events.len().min(limit);
        events.drain(..count).collect()
    }

    pub(super) fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }

    /// Takes a record back at start, unless something newer is there.
    pub(super) fn load(&self, user: &UserKey, record: &[u8]) {
        self.change(user, |tail| {
            if tail.is_empty() {
                tail.extend_from_slice(record);
            }
        });
        self.trim(BYTES_MAX);
    }

    pub(super) fn forget(&self, user: &UserKey) {
        self.change(user, Vec::clear);
        self.changed.lock().remove(user);
        self.events.lock().retain(|event| event.user != *user);
    }
}

/// Whether these bytes are a record's: log-ins, and nothing else.
pub(super) fn is_record(bytes: &[u8]) -> bool {
    let mut again = Vec::new();
    let log_ins: Vec<LogIn> = unpack(bytes).collect();
    log_ins.iter().for_each(|log_in| pack(&mut again, log_in));
    !log_ins.is_empty() && log_ins.len() <= LOG_INS_MAX && again == bytes
}

/// As much of a client id as is kept.
fn cut(client: &str) -> &str {
    let mut end = client.len().min(CLIENT_BYTES_MAX);
    while !client.is_char_boundary(end) {
        end -= 1;
    }
    client.get(..end).unwrap_or_default()
}

fn pack(tail: &mut Vec<u8>, log_in: &LogIn) {
    let proof = match log_in.proof {
        Proof::Token => 0,
        Proof::Code => CODE,
    };
    let (family, address) = match log_in.address {
        IpAddr::V4(address) => (0, address.octets().to_vec()),
        IpAddr::V6(address) => (V6, address.octets().to_vec()),
    };
    let client = log_in.client.as_str().as_bytes();
    tail.push(proof | family);
    tail.extend_from_slice(&log_in.at_s.to_be_bytes());
    tail.extend_from_slice(&address);
    tail.push(u8::try_from(client.len()).expect("cut to 64 bytes"));
    tail.extend_from_slice(client);
}

/// The first log-in of a record, and what follows it.
fn unpack_one(bytes: &[u8]) -> Option<(LogIn, &[u8])> {
    let (&flags, rest) = bytes.split_first()?;
    let (at_s, rest) = rest.split_first_chunk::<4>()?;
    let (address, rest) = if flags & V6 == 0 {
        let (address, rest) = rest.split_first_chunk::<4>()?;
        (IpAddr::from(*address), rest)
    } else {
        let (address, rest) = rest.split_first_chunk::<16>()?;
        (IpAddr::from(*address), rest)
    };
    let (&length, rest) = rest.split_first()?;
    let (client, rest) = rest.split_at_checked(usize::from(length))?;
    let client = std::str::from_utf8(client).ok().filter(|client| client.len() <= CLIENT_BYTES_MAX)?;
    let proof = if flags & CODE == 0 { Proof::Token } else { Proof::Code };
    (flags & !(CODE | V6) == 0).then_some(())?;
    Some((LogIn { at_s: u32::from_be_bytes(*at_s), address, client: ClientId::new(client), proof }, rest))
}

/// The oldest first.
fn unpack(mut bytes: &[u8]) -> impl Iterator<Item = LogIn> + '_ {
    std::iter::from_fn(move || {
        let (log_in, rest) = unpack_one(bytes)?;
        bytes = rest;
        Some(log_in)
    })
}

fn drop_oldest(tail: &mut Vec<u8>, count: usize) {
    let mut rest = tail.as_slice();
    for _ in 0..count {
        rest = unpack_one(rest).map_or(&[], |(_, rest)| rest);
    }
    let from = tail.len() - rest.len();
    tail.drain(..from);
}

#[cfg(test)]
mod tests;
