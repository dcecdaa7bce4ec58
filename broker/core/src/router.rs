//! The routing index: who wants what. One value for all shards; every method takes `&self`.
//!
//! ```text
//! filter  dev/p/+/up/#   prefix `dev/p` (depth 2), suffix `+/up/#`
//! filter  dev/p/d/down   prefix = the whole text, no suffix
//! topic   dev/p/d/down   looks up itself, and each of its prefixes at whose depth any wildcard filter exists
//! ```
//!
//! A hash table, cut into 256 parts with a lock each, maps the literal prefix of a filter (all of it, if it has
//! no wildcard) to a node, which holds the subscribers by what follows the prefix: nothing, `+`, `#`, or a
//! longer suffix, for which it has a small trie. Filters that begin with a wildcard live in a node of their own, which
//! only topics that don't begin with `$` come to.
//!
//! Costs, for a topic of *l* levels and *m* matches:
//!
//! - [`Router::route`]: 1 + (depths with wildcards, at most *l*) look-ups, each O(1), plus the tries' visited nodes,
//!   plus *m*. Read locks only, one at a time; nothing is allocated once the scratch in [`Matches`] has grown.
//! - [`Router::subscribe`], [`Router::unsubscribe`]: O(length of the filter), one write lock on a 1/256 of the index. A
//!   filter's own subscribers are indexed when they are many, so leaving a filter with 100,000 members is O(1) too.
//! - Merging the matches of one session is paid for only when two filters matched.
//!
//! What lost: *one trie under a lock*: devices subscribe to wildcards of their own (`dev/p/d/down/#`) all day, and each
//! of those would stop every publish. *A persistent trie, swapped*: every subscribe copies a path of nodes, and all
//! writers meet at the root. *A hash table for exact filters and a trie for wildcards*: wildcards with a literal prefix
//! are as many as exact filters, so the trie would be the hot structure. *An index a shard*: every shard would route
//! every publish.
//!
//! A node under a hot prefix (`dev/p` of a back end's `dev/p/+/up/#`) has one lock word that all shards' readers touch.
//!
//! Hashing is seeded, so a peer can't choose filters that collide.
//!
//! Measured (release build, one thread of a busy two-core machine, filters and topics of 30 bytes, one match a message;
//! the last column leaves the prefix's text out):
//!
//! | filters | route, 1,000 | route, 1,000,000 | subscribe, 1,000,000 | bytes each |
//! |---|---|---|---|---|
//! | `dev/p/d/down` | 31 ns | 390 to 580 ns | 500 ns | 54 to 86 |
//! | `dev/p/d/down/#` | 70 ns | 760 ns | 780 ns | 54 to 86 |
//! | `dev/p/d/down/+` | 82 ns | 590 ns | 620 ns | 54 to 86 |
//! | `dev/p/d/down/+/set` | 157 ns | 1.6 µs | 3.9 µs | 713 |
//!
//! The work is the same at a million; what is added is about three misses of every cache (bucket, node, its text), and
//! 55 ns for the benchmark's own cold topics. 1,000 filters and one back end's `dev/p/+/up/#` that doesn't match: 96 ns;
//! one that does, merged: 140 ns. A fan-out of 100,000: 2.3 ns a match, 20 ns if another filter overlaps it for one
//! session. Leaving it: 140 ns. One of a share of 1,000: 61 ns.

mod audience;
mod matches;
mod node;
mod trie;

#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use parking_lot::{Mutex, RwLock};
use turnpike_mqtt::{QoS, SubscribeOptions, TopicFilter, TopicName};

use crate::ids::SessionRef;
use node::{Full, Node, Place};

pub use matches::{Match, Matches};

/// Parts of the hash table, each with its lock. Far above the number of shards, so that two of them seldom meet.
const STRIPES: usize = 256;

/// Depths of prefixes that are told apart; deeper ones count as the deepest.
const DEPTHS: usize = 64;

/// One session's subscription, as the index keeps it: 20 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subscriber {
    /// Whose.
    pub session: SessionRef,
    /// Subscription identifier; 0 for none.
    pub identifier: u32,
    /// Whether the session outlives its connection.
    pub durable: bool,
    flags: u8,
}

impl Subscriber {
    const NO_LOCAL: u8 = 4;
    const RETAIN_AS_PUBLISHED: u8 = 8;

    /// Packs a subscription. Retain handling isn't kept: it matters only while subscribing.
    #[must_use]
    pub fn new(session: SessionRef, options: SubscribeOptions, identifier: u32, durable: bool) -> Self {
        let mut flags = options.qos as u8;
        if options.no_local {
            flags |= Self::NO_LOCAL;
        }
        if options.retain_as_published {
            flags |= Self::RETAIN_AS_PUBLISHED;
        }
        Self { session, identifier, durable, flags }
    }

    /// The QoS that was granted.
    #[must_use]
    pub fn qos(&self) -> QoS {
        match self.flags & 3 {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            _ => QoS::ExactlyOnce,
        }
    }

    /// Don't send the session what it published.
    #[must_use]
    pub fn no_local(&self) -> bool {
        self.flags & Self::NO_LOCAL != 0
    }

    /// Keep the RETAIN flag as published.
    #[must_use]
    pub fn retain_as_published(&self) -> bool {
        self.flags & Self::RETAIN_AS_PUBLISHED != 0
    }
}

/// How many subscriptions there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// All of them, members of shared subscriptions included.
    pub subscriptions: u64,
    /// Members of shared subscriptions.
    pub shared: u64,
}

/// The routing index.
#[derive(Debug)]
pub struct Router {
    stripes: Box<[Stripe]>,
    /// Filters that begin with a wildcard.
    root: RwLock<Full>,
    hasher: RandomState,
    depths: Depths,
    tally: Tally,
}

/// On a cache line of its own, since its lock word is written by every reader.
#[derive(Default, Debug)]
#[repr(align(64))]
struct Stripe(RwLock<HashTable<Node>>);

/// At which depths of prefix there are wildcard filters: a bit each, in a word that is hardly ever written.
#[derive(Debug)]
struct Depths {
    active: AtomicU64,
    /// A count may be −1 for a moment, when two threads subscribe and unsubscribe the same session.
    counts: Mutex<[i64; DEPTHS]>,
}

#[derive(Default, Debug)]
#[repr(align(64))]
struct Tally {
    subscriptions: AtomicI64,
    shared: AtomicI64,
}

/// A filter, cut before its first wildcard.
struct Cut<'a> {
    /// None if the filter begins with the wildcard.
    prefix: Option<&'a str>,
    place: Place<'a>,
    /// Levels of the prefix; none for a filter without wildcards.
    depth: Option<usize>,
}

/// A subscription on its way in.
#[derive(Clone, Copy)]
struct Joining<'a> {
    filter: &'a str,
    share: Option<&'a str>,
    subscriber: Subscriber,
    online: bool,
}

impl Default for Router {
    fn default() -> Self {
        Self::new()
    }
}

impl Router {
    /// An empty index.
    #[must_use]
    pub fn new() -> Self {
        Self {
            stripes: std::iter::repeat_with(Stripe::default).take(STRIPES).collect(),
            root: RwLock::new(Full::default()),
            hasher: RandomState::default(),
            depths: Depths { active: AtomicU64::new(0), counts: Mutex::new([0; DEPTHS]) },
            tally: Tally::default(),
        }
    }

    /// Adds a subscription or replaces the session's own to the same filter and share [MQTT-3.8.4-3]; true if it is
    /// new. `filter` is without its `$share/{name}/` prefix, `share` is that name. `online` says whether the member of
    /// a share can be picked; it means nothing for other subscriptions.
    pub fn subscribe(
        &self,
        filter: TopicFilter<'_>,
        share: Option<&str>,
        subscriber: Subscriber,
        online: bool,
    ) -> bool {
        let filter = filter.as_str();
        let cut = cut(filter);
        let joining = Joining { filter, share, subscriber, online };
        let new = match cut.prefix {
            None => self.root.write().subscribe(cut.place, &joining),
            Some(prefix) => {
                let hash = self.hash(prefix);
                let Some(stripe) = self.stripe(hash) else { return false };
                let mut table = stripe.0.write();
                match table.entry(hash, |node| node.is_at(prefix), |node| self.hash(node.prefix())) {
                    Entry::Occupied(mut node) => node.get_mut().subscribe(cut.place, &joining),
                    Entry::Vacant(vacant) => {
                        vacant.insert(Node::first(prefix, cut.place, &joining));
                        true
                    }
                }
            }
        };
        if new {
            self.count(&cut, share, 1);
        }
        new
    }

    /// Takes a session's subscription away [MQTT-3.10.4-1]; false if there was none.
    pub fn unsubscribe(&self, filter: TopicFilter<'_>, share: Option<&str>, session: SessionRef) -> bool {
        let cut = cut(filter.as_str());
        let removed = match cut.prefix {
            None => self.root.write().unsubscribe(cut.place, share, session),
            Some(prefix) => self.unsubscribe_at(prefix, cut.place, share, session),
        };
        if removed {
            self.count(&cut, share, -1);
        }
        removed
    }

    fn unsubscribe_at(&self, prefix: &str, place: Place<'_>, share: Option<&str>, session: SessionRef) -> bool {
        let hash = self.hash(prefix);
        let Some(stripe) = self.stripe(hash) else { return false };
        let mut table = stripe.0.write();
        let Ok(mut entry) = table.find_entry(hash, |node| node.is_at(prefix)) else { return false };
        let removed = entry.get_mut().unsubscribe(place, share, session);
        if entry.get().is_empty() {
            entry.remove();
            if table.capacity() > 64 && table.len() < table.capacity() / 8 {
                let twice = table.len() * 2;
                table.shrink_to(twice, |node| self.hash(node.prefix()));
            }
        }
        removed
    }

    /// Says whether a member of a shared subscription has a connection. Nothing happens if it isn't a member.
    pub fn set_online(&self, filter: TopicFilter<'_>, share: &str, session: SessionRef, online: bool) {
        let cut = cut(filter.as_str());
        let Some(prefix) = cut.prefix else {
            self.root.write().set_online(cut.place, share, session, online);
            return;
        };
        let hash = self.hash(prefix);
        let Some(stripe) = self.stripe(hash) else { return };
        if let Some(node) = stripe.0.write().find_mut(hash, |node| node.is_at(prefix)) {
            node.set_online(cut.place, share, session, online);
        }
    }

    /// Everybody who wants a message on `topic`, into `out`, whose former content goes. A session whose subscriptions
    /// overlap is there once [MQTT-3.3.4-2]; each shared subscription yields one member, besides and independently of
    /// that. `random` chooses among members of a share without a connection.
    // [MQTT-4.7.3-4] topic and filters are compared as they are.
    pub fn route(&self, topic: TopicName<'_>, random: u64, out: &mut Matches) {
        let topic = topic.as_str();
        out.begin(random);
        let depths = self.depths.active.load(Ordering::Relaxed);
        if depths != 0 {
            // [MQTT-4.7.2-1]
            if depths & 1 != 0 && !topic.starts_with('$') {
                self.root.read().collect(Some(topic), out);
            }
            self.probe_prefixes(topic, depths, out);
        }
        self.probe(topic, None, out);
        out.finish();
    }

    /// Looks up the proper prefixes of a topic at whose depths there are wildcard filters.
    fn probe_prefixes(&self, topic: &str, depths: u64, out: &mut Matches) {
        let mut deeper = depths;
        let mut depth = 0;
        for (at, byte) in topic.bytes().enumerate() {
            if byte != b'/' {
                continue;
            }
            // The last bit stands for all depths from there on.
            if depth < DEPTHS - 1 {
                deeper >>= 1;
                depth += 1;
            }
            if deeper == 0 {
                return;
            }
            if deeper & 1 != 0 {
                self.probe(topic.get(..at).unwrap_or_default(), topic.get(at + 1..), out);
            }
        }
    }

    #[inline]
    fn probe(&self, prefix: &str, rest: Option<&str>, out: &mut Matches) {
        let hash = self.hash(prefix);
        let Some(stripe) = self.stripe(hash) else { return };
        if let Some(node) = stripe.0.read().find(hash, |node| node.is_at(prefix)) {
            node.collect(rest, out);
        }
    }

    /// Another member of a shared subscription than `except`, to have what that one leaves undone.
    #[must_use]
    pub fn pick(
        &self,
        filter: TopicFilter<'_>,
        share: &str,
        random: u64,
        except: Option<SessionRef>,
    ) -> Option<Subscriber> {
        let cut = cut(filter.as_str());
        let Some(prefix) = cut.prefix else { return self.root.read().pick(cut.place, share, random, except) };
        let hash = self.hash(prefix);
        self.stripe(hash)?.0.read().find(hash, |node| node.is_at(prefix))?.pick(cut.place, share, random, except)
    }

    /// How many subscriptions there are.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let read = |count: &AtomicI64| u64::try_from(count.load(Ordering::Relaxed)).unwrap_or(0);
        Counts { subscriptions: read(&self.tally.subscriptions), shared: read(&self.tally.shared) }
    }

    fn count(&self, cut: &Cut<'_>, share: Option<&str>, by: i64) {
        self.tally.subscriptions.fetch_add(by, Ordering::Relaxed);
        if share.is_some() {
            self.tally.shared.fetch_add(by, Ordering::Relaxed);
        }
        if let Some(depth) = cut.depth {
            self.depths.count(depth, by);
        }
    }

    #[inline]
    fn hash(&self, prefix: &str) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(prefix.as_bytes());
        hasher.finish()
    }

    /// By bits in the middle: the table uses the lowest and the highest.
    #[inline]
    fn stripe(&self, hash: u64) -> Option<&Stripe> {
        self.stripes.get((hash >> 32) as usize % STRIPES)
    }
}

impl Depths {
    fn count(&self, depth: usize, by: i64) {
        let depth = depth.min(DEPTHS - 1);
        let mut counts = self.counts.lock();
        let Some(count) = counts.get_mut(depth) else { return };
        let was = *count > 0;
        *count += by;
        match (was, *count > 0) {
            (false, true) => _ = self.active.fetch_or(1 << depth, Ordering::Relaxed),
            (true, false) => _ = self.active.fetch_and(!(1 << depth), Ordering::Relaxed),
            _ => {}
        }
    }
}

/// Cuts a filter before its first wildcard. In a valid filter a wildcard character is a level of its own.
fn cut(filter: &str) -> Cut<'_> {
    let Some(at) = filter.bytes().position(|byte| byte == b'+' || byte == b'#') else {
        return Cut { prefix: Some(filter), place: Place::Exact, depth: None };
    };
    let suffix = filter.get(at..).unwrap_or_default();
    let place = match suffix {
        "+" => Place::Plus,
        "#" => Place::Below,
        _ => Place::Suffix(suffix),
    };
    let prefix = at.checked_sub(1).and_then(|slash| filter.get(..slash));
    Cut {
        prefix,
        place,
        depth: Some(prefix.map_or(0, |prefix| prefix.bytes().filter(|byte| *byte == b'/').count() + 1)),
    }
}
