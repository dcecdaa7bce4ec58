//! Where a connection comes from, as far as counting goes: an IPv4 address, or the /64 of an IPv6 one, since whoever has one
//! address of a /64 has all of them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// An IPv4 address or an IPv6 /64, in eight bytes. IPv4 stands where `0:ffff::/32` would, which is nobody's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin(u64);

const V4: u64 = 0x0000_ffff_0000_0000;

impl Origin {
    /// Of an address. IPv4 that is written as IPv6 (`::ffff:192.0.2.1`) is IPv4.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self(V4 | u64::from(v4.to_bits())),
            IpAddr::V6(v6) => Self(u64::try_from(v6.to_bits() >> 64).expect("64 of 128 bits")),
        }
    }

    /// The addresses that it stands for: a /32 or a /64.
    #[must_use]
    pub fn network(self) -> IpNet {
        let net = match u32::try_from(self.0 ^ V4) {
            Ok(v4) => IpNet::new(Ipv4Addr::from_bits(v4).into(), 32),
            Err(_) => IpNet::new(Ipv6Addr::from_bits(u128::from(self.0) << 64).into(), 64),
        };
        net.expect("32 and 64 are lengths of prefixes")
    }

    /// For hashing together with other things.
    pub(crate) fn bits(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.network().fmt(f)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        Origin::of(text.parse().expect("an address"))
    }

    #[test]
    fn an_ipv4_address_is_itself_however_it_is_written() {
        assert_eq!(origin("192.0.2.1"), origin("::ffff:192.0.2.1"));
        assert_ne!(origin("192.0.2.1"), origin("192.0.2.2"));
        assert_eq!(origin("192.0.2.1").to_string(), "192.0.2.1/32");
        assert_eq!(origin("255.255.255.255").to_string(), "255.255.255.255/32");
        assert_eq!(origin("0.0.0.0").to_string(), "0.0.0.0/32");
    }

    #[test]
    fn an_ipv6_address_is_its_64() {
        assert_eq!(origin("2001:db8:1:2::1"), origin("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(origin("2001:db8:1:2::1"), origin("2001:db8:1:3::1"));
        assert_eq!(origin("2001:db8:1:2:3::").to_string(), "2001:db8:1:2::/64");
        assert_eq!(origin("::1").to_string(), "::/64");
    }
}
