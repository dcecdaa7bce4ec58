//! Networks that somebody shut out by hand.
//!
//! Looked up for each accepted socket: one look-up in a hash map for each length of prefix that is in use, of which there are few.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

/// More networks aren't taken.
pub const BLOCKED_NETWORKS_MAX: usize = 100_000;
/// A note is cut to this.
const NOTE_BYTES_MAX: usize = 200;

/// A ban by hand.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Block {
    /// Milliseconds of the clock that never goes back; none for ever.
    pub(super) until_ms: Option<u64>,
    /// Why, in the words of who did it.
    pub(super) note: Box<str>,
}

/// The list.
#[derive(Debug, Default)]
pub(super) struct Blocklist {
    blocks: HashMap<IpNet, Block>,
    /// How many networks there are of each family and length.
    lengths: BTreeMap<(bool, u8), usize>,
}

/// The list holds [`BLOCKED_NETWORKS_MAX`] networks already.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("there are {BLOCKED_NETWORKS_MAX} banned networks already")]
pub struct BlocklistFull;

fn length(net: &IpNet) -> (bool, u8) {
    (matches!(net, IpNet::V6(_)), net.prefix_len())
}

impl Block {
    fn holds(&self, now_ms: u64) -> bool {
        self.until_ms.is_none_or(|until_ms| until_ms > now_ms)
    }
}

impl Blocklist {
    pub(super) fn insert(
        &mut self,
        net: IpNet,
        note: &str,
        until_ms: Option<u64>,
        now_ms: u64,
    ) -> Result<(), BlocklistFull> {
        let net = canonical(net);
        if self.blocks.len() >= BLOCKED_NETWORKS_MAX && !self.blocks.contains_key(&net) {
            self.expire(now_ms);
            if self.blocks.len() >= BLOCKED_NETWORKS_MAX {
                return Err(BlocklistFull);
            }
        }
        let most = (0..=NOTE_BYTES_MAX.min(note.len())).rfind(|end| note.is_char_boundary(*end)).unwrap_or(0);
        let note = note.get(..most).unwrap_or_default();
        if self.blocks.insert(net, Block { until_ms, note: note.into() }).is_none() {
            *self.lengths.entry(length(&net)).or_default() += 1;
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, net: IpNet) -> bool {
        let net = canonical(net);
        let found = self.blocks.remove(&net).is_some();
        if found && let Some(count) = self.lengths.get_mut(&length(&net)) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&length(&net));
            }
        }
        found
    }

    pub(super) fn holds(&self, address: IpAddr, now_ms: u64) -> bool {
        let address = address.to_canonical();
        self.lengths.keys().filter(|(v6, _)| *v6 == address.is_ipv6()).any(|(_, length)| {
            let net = IpNet::new(address, *length).expect("a length of this family").trunc();
            self.blocks.get(&net).is_some_and(|block| block.holds(now_ms))
        })
    }

    /// Forgets what is over.
    pub(super) fn expire(&mut self, now_ms: u64) {
        let over: Vec<IpNet> =
            self.blocks.iter().filter(|(_, block)| !block.holds(now_ms)).map(|(net, _)| *net).collect();
        for net in over {
            self.remove(net);
        }
    }

    pub(super) fn iter(&self, now_ms: u64) -> impl Iterator<Item = (&IpNet, &Block)> {
        self.blocks.iter().filter(move |(_, block)| block.holds(now_ms))
    }
}

/// Without host bits, and IPv4 that is written as IPv6 as IPv4.
pub(super) fn canonical(net: IpNet) -> IpNet {
    let v4 = match net {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => {
            v6.addr().to_ipv4_mapped().and_then(|v4| IpNet::new(v4.into(), v6.prefix_len() - 96).ok())
        }
        IpNet::V6(_) | IpNet::V4(_) => None,
    };
    v4.unwrap_or(net).trunc()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().expect("a network")
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn addresses_of_a_network_are_found_and_others_are_not() {
        let mut list = Blocklist::default();
        for text in ["192.0.2.7/24", "198.51.100.1/32", "2001:db8::/32", "::ffff:203.0.113.0/120"] {
            list.insert(net(text), "test", None, 0).expect("room");
        }
        for inside in ["192.0.2.200", "::ffff:192.0.2.1", "198.51.100.1", "2001:db8:1::1", "203.0.113.9"] {
            assert!(list.holds(ip(inside), 0), "{inside}");
        }
        for outside in ["192.0.3.1", "198.51.100.2", "2001:db9::1", "203.0.112.9", "::1"] {
            assert!(!list.holds(ip(outside), 0), "{outside}");
        }
        assert!(list.remove(net("192.0.2.0/24")) && !list.remove(net("192.0.2.0/24")));
        assert!(!list.holds(ip("192.0.2.200"), 0));
        assert_eq!(list.lengths.len(), 2 + 1, "lengths that nobody has any more aren't looked up");
    }

    #[test]
    fn all_of_a_family_can_be_shut_out() {
        let mut list = Blocklist::default();
        list.insert(net("0.0.0.0/0"), "", None, 0).expect("room");
        assert!(list.holds(ip("192.0.2.1"), 0) && !list.holds(ip("2001:db8::1"), 0));
    }

    #[test]
    fn a_ban_ends_with_its_time() {
        let mut list = Blocklist::default();
        list.insert(net("192.0.2.1/32"), "", Some(1000), 0).expect("room");
        assert!(list.holds(ip("192.0.2.1"), 999) && !list.holds(ip("192.0.2.1"), 1000));
        assert_eq!((list.iter(999).count(), list.iter(1000).count()), (1, 0));
        list.expire(1000);
        assert!(list.blocks.is_empty() && list.lengths.is_empty());
    }

    #[test]
    fn the_list_is_bounded_and_what_is_over_makes_room() {
        let mut list = Blocklist::default();
        for n in 0..BLOCKED_NETWORKS_MAX as u32 {
            let address = std::net::Ipv4Addr::from_bits(n).into();
            list.insert(IpNet::new(address, 32).expect("32"), "", Some(1000), 0).expect("room");
        }
        let one_more = net("192.0.2.1/32");
        assert_eq!(list.insert(one_more, "", None, 999), Err(BlocklistFull));
        assert_eq!(list.insert(net("0.0.0.1/32"), "again", Some(5000), 999), Ok(()), "known ones change");
        assert_eq!(list.insert(one_more, "", None, 1000), Ok(()));
        assert_eq!(list.blocks.len(), 2);
    }

    #[test]
    fn a_note_is_cut_between_characters() {
        let mut list = Blocklist::default();
        list.insert(net("192.0.2.1/32"), &"ä".repeat(150), None, 0).expect("room");
        let (_, block) = list.iter(0).next().expect("there");
        assert_eq!(&*block.note, "ä".repeat(100));
    }
}
