//! What a look-up found: reusable scratch, and the merging of overlapping subscriptions.
//!
//! Matches come in runs, one for each filter that matched; within a run each session is there once. So only two runs or
//! more can overlap, and then all runs but the longest are put into an index and the longest is held against it: O(n),
//! where sorting a fan-out of 100,000 because of one `#` would be O(n log n).

use std::sync::Arc;

use hashbrown::HashTable;
use turnpike_mqtt::QoS;

use super::Subscriber;
use crate::ids::SessionRef;

/// Up to how many matches outside the longest run a scan beats an index.
const SCANNED_MAX: usize = if cfg!(test) { 2 } else { 8 };

const NONE: u32 = u32::MAX;

/// A session that wants a message: one delivery.
#[derive(Clone, Copy, Debug)]
pub struct Match {
    /// Who.
    pub session: SessionRef,
    /// The highest of the matching subscriptions [MQTT-3.3.4-2].
    pub qos: QoS,
    /// Whether any of them keeps the RETAIN flag.
    pub retain_as_published: bool,
    /// Whether all of them ask not to get the session's own messages.
    pub no_local: bool,
    /// Whether the session outlives its connection.
    pub durable: bool,
    /// How many subscription identifiers; see [`Matches::identifiers`].
    count: u32,
    /// The identifier if there is one; head of a chain while merging; then where they begin.
    first: u32,
    share: u32,
}

/// The matches of one message, and memory to find the next message's without allocating.
#[derive(Default, Debug)]
pub struct Matches {
    items: Vec<Match>,
    /// Where each filter's matches begin in `items`.
    runs: Vec<u32>,
    /// By shared subscriptions; behind the others at the end.
    shared: Vec<Match>,
    shares: Vec<Arc<str>>,
    identifiers: Vec<u32>,
    merged: Vec<Match>,
    /// Identifiers while merging: each with the next one's place.
    chain: Vec<(u32, u32)>,
    index: HashTable<u32>,
    stack: Vec<(u32, u32)>,
    random: u64,
}

impl Matches {
    /// Empty.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Every match.
    pub fn iter(&self) -> std::slice::Iter<'_, Match> {
        self.items.iter()
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Nobody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The subscription identifiers of one of these matches: of every matching subscription that has one
    /// [MQTT-3.3.4-4].
    #[must_use]
    pub fn identifiers<'a>(&'a self, found: &'a Match) -> &'a [u32] {
        match found.count {
            0 => &[],
            1 => std::slice::from_ref(&found.first),
            count => {
                let from = found.first as usize;
                self.identifiers.get(from..from + count as usize).unwrap_or_default()
            }
        }
    }

    /// The filter, with its `$share/{name}/` prefix, of the shared subscription that one of these matches came by.
    #[must_use]
    pub fn share(&self, found: &Match) -> Option<&Arc<str>> {
        self.shares.get(found.share as usize)
    }

    pub(super) fn begin(&mut self, random: u64) {
        self.items.clear();
        self.runs.clear();
        self.shared.clear();
        self.shares.clear();
        self.random = random;
    }

    pub(super) fn random(&self) -> u64 {
        self.random
    }

    pub(super) fn take_stack(&mut self) -> Vec<(u32, u32)> {
        std::mem::take(&mut self.stack)
    }

    pub(super) fn put_stack(&mut self, stack: Vec<(u32, u32)>) {
        self.stack = stack;
    }

    /// A run of one.
    #[inline]
    pub(super) fn add(&mut self, subscriber: &Subscriber) {
        self.runs.push(place(self.items.len()));
        self.items.push(Match::by(subscriber));
    }

    /// A run.
    pub(super) fn add_all(&mut self, subscribers: &[Subscriber]) {
        self.runs.push(place(self.items.len()));
        self.items.extend(subscribers.iter().map(Match::by));
    }

    pub(super) fn add_shared(&mut self, subscriber: &Subscriber, share: &Arc<str>) {
        self.shared.push(Match { share: place(self.shares.len()), ..Match::by(subscriber) });
        self.shares.push(Arc::clone(share));
    }

    #[inline]
    pub(super) fn finish(&mut self) {
        if self.runs.len() > 1 {
            self.merge();
        }
        if !self.shared.is_empty() {
            self.items.append(&mut self.shared);
        }
    }

    fn merge(&mut self) {
        let longest = self.longest();
        let items = std::mem::take(&mut self.items);
        let (before, rest) = items.split_at_checked(longest.start).unwrap_or((&items, &[]));
        let (base, after) = rest.split_at_checked(longest.len()).unwrap_or((rest, &[]));
        self.merged.clear();
        self.chain.clear();
        self.index.clear();
        let indexed = before.len() + after.len() > SCANNED_MAX;
        for item in before.iter().chain(after) {
            if !self.absorb(item, self.merged.len(), indexed) {
                if indexed {
                    let merged = &self.merged;
                    let hash = |at: &u32| merged.get(*at as usize).map_or(0, |item| session_hash(item.session));
                    self.index.insert_unique(session_hash(item.session), place(merged.len()), hash);
                }
                self.merged.push(*item);
            }
        }
        let candidates = self.merged.len();
        for item in base {
            if !self.absorb(item, candidates, indexed) {
                self.merged.push(*item);
            }
        }
        self.items = items;
        std::mem::swap(&mut self.items, &mut self.merged);
        self.unchain();
    }

    fn longest(&self) -> std::ops::Range<usize> {
        let starts = self.runs.iter().map(|start| *start as usize);
        let ends = starts.clone().skip(1).chain([self.items.len()]);
        starts.zip(ends).map(|(start, end)| start..end).max_by_key(ExactSizeIterator::len).unwrap_or_default()
    }

    /// Adds to the match of the same session among the first `candidates`; false if there is none.
    fn absorb(&mut self, item: &Match, candidates: usize, indexed: bool) -> bool {
        let merged = &self.merged;
        let is_same = |at: usize| merged.get(at).is_some_and(|known| known.session == item.session);
        let at = if indexed {
            self.index.find(session_hash(item.session), |at| is_same(*at as usize)).map(|at| *at as usize)
        } else {
            (0..candidates).find(|at| is_same(*at))
        };
        let Some(known) = at.and_then(|at| self.merged.get_mut(at)) else { return false };
        known.qos = known.qos.max(item.qos);
        known.retain_as_published |= item.retain_as_published;
        known.no_local &= item.no_local;
        if item.count == 1 {
            match known.count {
                0 => known.first = item.first,
                1 => {
                    self.chain.push((known.first, NONE));
                    self.chain.push((item.first, place(self.chain.len() - 1)));
                    known.first = place(self.chain.len() - 1);
                }
                _ => {
                    self.chain.push((item.first, known.first));
                    known.first = place(self.chain.len() - 1);
                }
            }
            known.count += 1;
        }
        true
    }

    /// Lays chained identifiers out one after another.
    fn unchain(&mut self) {
        self.identifiers.clear();
        if self.chain.is_empty() {
            return;
        }
        for item in self.items.iter_mut().filter(|item| item.count > 1) {
            let mut at = std::mem::replace(&mut item.first, place(self.identifiers.len()));
            while let Some((identifier, next)) = self.chain.get(at as usize) {
                self.identifiers.push(*identifier);
                at = *next;
            }
        }
    }
}

impl<'a> IntoIterator for &'a Matches {
    type Item = &'a Match;
    type IntoIter = std::slice::Iter<'a, Match>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Match {
    #[inline]
    fn by(subscriber: &Subscriber) -> Self {
        Self {
            session: subscriber.session,
            qos: subscriber.qos(),
            retain_as_published: subscriber.retain_as_published(),
            no_local: subscriber.no_local(),
            durable: subscriber.durable,
            count: u32::from(subscriber.identifier != 0),
            first: subscriber.identifier,
            share: NONE,
        }
    }
}

fn place(at: usize) -> u32 {
    u32::try_from(at).expect("matches are subscriptions, fewer than 2^32")
}

/// Not seeded: the broker, not a peer, numbers sessions.
#[inline]
pub(super) fn session_hash(session: SessionRef) -> u64 {
    let key = u64::from(session.slot) | u64::from(session.shard.0) << 32;
    let product = u128::from(key ^ u64::from(session.generation).rotate_left(44)) * 0x9e37_79b9_7f4a_7c15;
    (product as u64) ^ (product >> 64) as u64
}
