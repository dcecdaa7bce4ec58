//! The subscribers of one filter: a set of sessions, and groups that share.
//!
//! Most filters have one subscriber, so one is kept inline. A set grows into a vector (a fan-out is a sequential read),
//! which gets an index of positions by session when it is large, so that leaving it is O(1) at any size. A hash map of
//! subscribers would give the same, at three times the memory and with a scattered fan-out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use hashbrown::HashTable;

use super::matches::{Matches, session_hash};
use super::{Joining, Subscriber};
use crate::ids::SessionRef;

/// From how many members on there is an index.
const INDEXED_FROM: usize = if cfg!(test) { 3 } else { 32 };

/// Who subscribed to one filter.
#[derive(Default, Debug)]
pub(super) struct Audience {
    normal: Set,
    groups: Option<Box<Groups>>,
}

/// Boxed: shared subscriptions are rare.
#[derive(Default, Debug)]
struct Groups(Vec<Group>);

#[derive(Default, Debug)]
enum Set {
    #[default]
    Empty,
    One(Subscriber),
    Many(Box<Members>),
}

/// Subscribers at positions, found by session.
#[derive(Default, Debug)]
struct Members {
    list: Vec<Subscriber>,
    index: Option<Box<HashTable<u32>>>,
}

/// One shared subscription. Members are ordered by rank: first those online, then durable ones offline, then the rest,
/// which can't be picked.
#[derive(Debug)]
struct Group {
    /// As subscribed: `$share/{name}/{filter}`.
    text: Arc<str>,
    members: Members,
    /// Where the second and the third rank begin.
    bounds: [usize; 2],
    /// Round-robin.
    cursor: AtomicU32,
}

impl Audience {
    pub(super) fn is_empty(&self) -> bool {
        matches!(self.normal, Set::Empty) && self.groups.is_none()
    }

    /// The one subscriber, if there is just one and it shares with nobody.
    pub(super) fn single(&self) -> Option<Subscriber> {
        match (&self.normal, &self.groups) {
            (Set::One(subscriber), None) => Some(*subscriber),
            _ => None,
        }
    }

    /// True if the subscription is new.
    pub(super) fn subscribe(&mut self, joining: &Joining<'_>) -> bool {
        let Some(share) = joining.share else { return self.normal.insert(joining.subscriber) };
        let groups = &mut self.groups.get_or_insert_default().0;
        match groups.iter_mut().find(|group| group.name() == share) {
            Some(group) => group.insert(joining.subscriber, joining.online),
            None => {
                let mut group = Group {
                    text: format!("$share/{share}/{}", joining.filter).into(),
                    members: Members::default(),
                    bounds: [0; 2],
                    cursor: AtomicU32::new(0),
                };
                group.insert(joining.subscriber, joining.online);
                groups.push(group);
                true
            }
        }
    }

    pub(super) fn unsubscribe(&mut self, share: Option<&str>, session: SessionRef) -> bool {
        let Some(share) = share else { return self.normal.remove(session) };
        let Some(groups) = self.groups.as_mut().map(|groups| &mut groups.0) else { return false };
        let Some(at) = groups.iter().position(|group| group.name() == share) else { return false };
        let Some(group) = groups.get_mut(at) else { return false };
        let removed = group.remove(session).is_some();
        if group.members.list.is_empty() {
            groups.swap_remove(at);
        }
        if groups.is_empty() {
            self.groups = None;
        }
        removed
    }

    pub(super) fn set_online(&mut self, share: &str, session: SessionRef, online: bool) {
        if let Some(group) =
            self.groups.as_mut().and_then(|groups| groups.0.iter_mut().find(|group| group.name() == share))
            && let Some(subscriber) = group.remove(session)
        {
            group.insert(subscriber, online);
        }
    }

    pub(super) fn pick(&self, share: &str, random: u64, except: Option<SessionRef>) -> Option<Subscriber> {
        self.groups.as_ref()?.0.iter().find(|group| group.name() == share)?.pick(random, except)
    }

    /// Adds everybody to `out`, and one member of each share.
    #[inline]
    pub(super) fn collect(&self, out: &mut Matches) {
        match &self.normal {
            Set::Empty => {}
            Set::One(subscriber) => out.add(subscriber),
            Set::Many(members) => out.add_all(&members.list),
        }
        if let Some(groups) = &self.groups {
            for group in &groups.0 {
                if let Some(member) = group.pick(out.random(), None) {
                    out.add_shared(&member, &group.text);
                }
            }
        }
    }
}

impl Set {
    fn insert(&mut self, subscriber: Subscriber) -> bool {
        match self {
            Self::Empty => *self = Self::One(subscriber),
            Self::One(one) if one.session == subscriber.session => {
                *one = subscriber;
                return false;
            }
            Self::One(one) => {
                let mut members = Members::default();
                members.push(*one);
                members.push(subscriber);
                *self = Self::Many(Box::new(members));
            }
            Self::Many(members) => match members.position(subscriber.session) {
                Some(at) => {
                    members.set(at, subscriber);
                    return false;
                }
                None => members.push(subscriber),
            },
        }
        true
    }

    fn remove(&mut self, session: SessionRef) -> bool {
        match self {
            Self::One(one) if one.session == session => *self = Self::Empty,
            Self::Empty | Self::One(_) => return false,
            Self::Many(members) => {
                let Some(at) = members.position(session) else { return false };
                members.swap_remove(at);
                if let [one] = members.list.as_slice() {
                    *self = Self::One(*one);
                }
            }
        }
        true
    }
}

impl Members {
    fn position(&self, session: SessionRef) -> Option<usize> {
        let is_at = |at: usize| self.list.get(at).is_some_and(|member| member.session == session);
        match &self.index {
            None => self.list.iter().position(|member| member.session == session),
            Some(index) => index.find(session_hash(session), |at| is_at(*at as usize)).map(|at| *at as usize),
        }
    }

    fn set(&mut self, at: usize, subscriber: Subscriber) {
        if let Some(member) = self.list.get_mut(at) {
            *member = subscriber;
        }
    }

    fn push(&mut self, subscriber: Subscriber) {
        self.list.push(subscriber);
        let list = &self.list;
        let hash = |at: &u32| list.get(*at as usize).map_or(0, |member| session_hash(member.session));
        match &mut self.index {
            Some(index) => {
                index.insert_unique(session_hash(subscriber.session), position(list.len() - 1), hash);
            }
            None if list.len() >= INDEXED_FROM => {
                let mut index = HashTable::with_capacity(list.len());
                for (at, member) in list.iter().enumerate() {
                    index.insert_unique(session_hash(member.session), position(at), hash);
                }
                self.index = Some(Box::new(index));
            }
            None => {}
        }
    }

    fn swap_remove(&mut self, at: usize) {
        self.swap(at, self.list.len().saturating_sub(1));
        let Some(gone) = self.list.pop() else { return };
        let length = self.list.len();
        if length < INDEXED_FROM / 2 {
            self.index = None;
        } else if let Some(index) = &mut self.index
            && let Ok(entry) = index.find_entry(session_hash(gone.session), |at| *at as usize == length)
        {
            entry.remove();
        }
        if self.list.capacity() > 8 && length < self.list.capacity() / 4 {
            self.list.shrink_to(length * 2);
            if let Some(index) = &mut self.index {
                let list = &self.list;
                let hash = |at: &u32| list.get(*at as usize).map_or(0, |member| session_hash(member.session));
                index.shrink_to(length * 2, hash);
            }
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        /// Stands for a position while two entries change theirs.
        const PENDING: u32 = u32::MAX;
        if a == b {
            return;
        }
        let (Some(at_a), Some(at_b)) = (self.list.get(a).copied(), self.list.get(b).copied()) else { return };
        self.set(a, at_b);
        self.set(b, at_a);
        let Some(index) = &mut self.index else { return };
        let (a, b) = (position(a), position(b));
        let (hash_a, hash_b) = (session_hash(at_a.session), session_hash(at_b.session));
        for (hash, from, to) in [(hash_a, a, PENDING), (hash_b, b, a), (hash_a, PENDING, b)] {
            if let Some(at) = index.find_mut(hash, |at| *at == from) {
                *at = to;
            }
        }
    }
}

fn position(at: usize) -> u32 {
    u32::try_from(at).expect("sessions of all shards are fewer than 2^32")
}

impl Group {
    fn name(&self) -> &str {
        self.text.split('/').nth(1).unwrap_or_default()
    }

    fn rank(subscriber: &Subscriber, online: bool) -> usize {
        match (online, subscriber.durable) {
            (true, _) => 0,
            (false, true) => 1,
            (false, false) => 2,
        }
    }

    /// True if it is new.
    fn insert(&mut self, subscriber: Subscriber, online: bool) -> bool {
        let new = self.remove(subscriber.session).is_none();
        self.members.push(subscriber);
        let mut at = self.members.list.len() - 1;
        for bound in self.bounds.iter_mut().skip(Self::rank(&subscriber, online)).rev() {
            self.members.swap(at, *bound);
            at = *bound;
            *bound += 1;
        }
        new
    }

    fn remove(&mut self, session: SessionRef) -> Option<Subscriber> {
        let mut at = self.members.position(session)?;
        let subscriber = self.members.list.get(at).copied();
        for bound in &mut self.bounds {
            if at < *bound {
                *bound -= 1;
                self.members.swap(at, *bound);
                at = *bound;
            }
        }
        self.members.swap_remove(at);
        subscriber
    }

    /// A member with a connection, in turn; if there is none, any durable one.
    fn pick(&self, random: u64, except: Option<SessionRef>) -> Option<Subscriber> {
        let [online, durable] = self.bounds;
        let (ready, away) = self.members.list.split_at_checked(online)?;
        let turn = if ready.is_empty() { 0 } else { self.cursor.fetch_add(1, Ordering::Relaxed) };
        pick_from(ready, u64::from(turn), except).or_else(|| pick_from(away.get(..durable - online)?, random, except))
    }
}

/// The member whose turn it is, or the one after it.
fn pick_from(members: &[Subscriber], turn: u64, except: Option<SessionRef>) -> Option<Subscriber> {
    let length = members.len() as u64;
    let first = turn.checked_rem(length)?;
    [first, (first + 1) % length]
        .into_iter()
        .filter_map(|at| members.get(usize::try_from(at).ok()?))
        .find(|member| Some(member.session) != except)
        .copied()
}
