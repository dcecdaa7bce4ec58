//! From which networks the devices are connected at this moment, so that one identity in two places at once is seen.
//!
//! A connected device is one entry for each network that it is connected from, nearly always one: 12 bytes and one more for the hash table, 15
//! to 30 with its spare places. There are no more entries than live connections. An entry is looked at when a device comes and when it
//! goes, never in between.
//!
//! Networks are coarse (IPv4: /24, IPv6: /56), since one device may come from several addresses of one: behind a carrier's
//! translation, or by another address of its own.
//!
//! What lost: *a field of the session*: the sessions of a device with several client ids live on several shards, which can't see each other's.

use std::hash::BuildHasher;
use std::net::IpAddr;

use hashbrown::HashTable;
use parking_lot::Mutex;

use super::Key;

const PARTS: usize = 64;
/// Networks of one identity that are told apart. Connections from more of them aren't counted.
const NETWORKS_MAX: usize = 8;
/// Capacity below which a part isn't made smaller.
const CAPACITY_MIN: usize = 64;

/// A network. IPv4 as it is; IPv6 in 31 bits, so two of one identity are taken for one, one time in two billion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Network(u32);

const V6: u32 = 1 << 31;

impl Network {
    pub(super) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self(v4.to_bits() >> 8),
            IpAddr::V6(v6) => {
                let prefix = (v6.to_bits() >> 72) as u64;
                Self((prefix.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) as u32 | V6)
            }
        }
    }
}

/// The connections of an identity from one network.
#[derive(Debug)]
struct Entry {
    /// With the part that it is in 62 bits of a hash: two of a million devices are taken for one, one time in ten million.
    id: [u8; 7],
    /// Stops at 255: a device with more counts as gone too early.
    connections: u8,
    network: Network,
}

/// The table. One for all shards.
#[derive(Debug)]
pub(super) struct Presence {
    parts: Box<[Mutex<HashTable<Entry>>]>,
    hash: foldhash::fast::RandomState,
}

impl Presence {
    pub(super) fn new() -> Self {
        Self {
            parts: (0..PARTS).map(|_| Mutex::new(HashTable::new())).collect(),
            hash: foldhash::fast::RandomState::default(),
        }
    }

    /// A connection of an identity has begun. True if it is the only one from there, and there are others from elsewhere.
    pub(super) fn came(&self, key: Key, network: Network) -> bool {
        let (id, hash) = self.id(key);
        let mut part = self.part(key).lock();
        if let Some(known) = part.find_mut(hash, |entry| entry.id == id && entry.network == network) {
            known.connections = known.connections.saturating_add(1);
            return false;
        }
        let elsewhere = part.iter_hash(hash).filter(|entry| entry.id == id).take(NETWORKS_MAX).count();
        if elsewhere < NETWORKS_MAX {
            part.insert_unique(hash, Entry { id, connections: 1, network }, |entry| self.hash.hash_one(entry.id));
        }
        elsewhere > 0
    }

    /// One has ended.
    pub(super) fn went(&self, key: Key, network: Network) {
        let (id, hash) = self.id(key);
        let mut part = self.part(key).lock();
        if let Ok(mut known) = part.find_entry(hash, |entry| entry.id == id && entry.network == network) {
            match known.get().connections {
                0 | 1 => drop(known.remove()),
                _ => known.get_mut().connections -= 1,
            }
        }
    }

    /// Whether an identity has connections, and none from this network. One from `but` is left out, which is about to end; if that is this
    /// network, the newcomer is none.
    pub(super) fn is_elsewhere(&self, key: Key, network: Network, but: Option<Network>) -> bool {
        if but == Some(network) {
            return false;
        }
        let (id, hash) = self.id(key);
        let part = self.part(key).lock();
        let mut elsewhere = false;
        for entry in part.iter_hash(hash).filter(|entry| entry.id == id) {
            let ending = u8::from(but == Some(entry.network));
            let stays = entry.connections > ending;
            if stays && entry.network == network {
                return false;
            }
            elsewhere |= stays;
        }
        elsewhere
    }

    /// Gives memory back that is hardly used.
    pub(super) fn sweep(&self) {
        for part in &self.parts {
            let mut part = part.lock();
            if part.capacity() > CAPACITY_MIN && part.len() < part.capacity() / 4 {
                part.shrink_to_fit(|entry| self.hash.hash_one(entry.id));
            }
        }
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(|part| part.lock().len()).sum()
    }

    fn id(&self, key: Key) -> ([u8; 7], u64) {
        let id = *key.first_chunk().expect("7 of 16 bytes");
        (id, self.hash.hash_one(id))
    }

    fn part(&self, key: Key) -> &Mutex<HashTable<Entry>> {
        let [.., last] = key;
        self.parts.get(usize::from(last) % PARTS).expect("one of 64")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn network(text: &str) -> Network {
        Network::of(text.parse().expect("an address"))
    }

    #[test]
    fn a_network_is_a_24_or_a_56() {
        assert_eq!(network("192.0.2.1"), network("::ffff:192.0.2.254"));
        assert_ne!(network("192.0.2.1"), network("192.0.3.1"));
        assert_eq!(network("2001:db8:0:100::1"), network("2001:db8:0:1ff::2"));
        assert_ne!(network("2001:db8:0:100::1"), network("2001:db8:0:200::1"));
        assert_ne!(network("::"), network("0.0.0.0"));
    }

    #[test]
    fn an_entry_is_as_small_as_said() {
        assert_eq!(size_of::<Entry>(), 12);
    }

    #[test]
    fn no_more_networks_are_told_apart_than_said() {
        let presence = Presence::new();
        let all: Vec<_> = (0..20).map(Network).collect();
        let came: Vec<_> = all.iter().map(|network| presence.came([1; 16], *network)).collect();
        assert!(!came[0] && came[1..].iter().all(|other| *other));
        assert_eq!(presence.len(), NETWORKS_MAX);
        all.iter().for_each(|network| presence.went([1; 16], *network));
        assert_eq!(presence.len(), 0);
    }

    proptest! {
        /// Against a plain map of counts: connections come and go, and nothing is left when all have gone.
        #[test]
        fn it_knows_who_is_where(steps in prop::collection::vec((0_u8..3, 0_u32..4, any::<bool>()), 1..200)) {
            let presence = Presence::new();
            let mut model: HashMap<(u8, u32), u32> = HashMap::new();
            for (who, place, comes) in steps {
                let (key, network) = ([who; 16], Network(place));
                let here = model.get(&(who, place)).copied().unwrap_or(0);
                let others = |but: Option<u32>| model.iter().any(|((known, at), count)| {
                    *known == who && *at != place && *count > u32::from(but == Some(*at))
                });
                prop_assert_eq!(presence.is_elsewhere(key, network, None), here == 0 && others(None));
                let but = (place + 1) % 4;
                if model.get(&(who, but)).is_some_and(|count| *count > 0) {
                    let elsewhere = presence.is_elsewhere(key, network, Some(Network(but)));
                    prop_assert_eq!(elsewhere, here == 0 && others(Some(but)));
                }
                prop_assert!(!presence.is_elsewhere(key, network, Some(network)));
                if comes {
                    let expected = here == 0 && others(None);
                    prop_assert_eq!(presence.came(key, network), expected);
                    *model.entry((who, place)).or_default() += 1;
                } else if here > 0 {
                    presence.went(key, network);
                    model.insert((who, place), here - 1);
                }
                prop_assert_eq!(presence.len(), model.values().filter(|count| **count > 0).count());
            }
            for ((who, place), count) in model {
                (0..count).for_each(|_| presence.went([who; 16], Network(place)));
            }
            prop_assert_eq!(presence.len(), 0);
        }
    }
}
