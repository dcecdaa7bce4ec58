//! When the guard does what.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Terms, Threshold};

const SECOND_MS: u64 = 1_000;
const MINUTE_MS: u64 = 60 * SECOND_MS;
const HOUR_MS: u64 = 60 * MINUTE_MS;

/// Thresholds and terms. None of a threshold switches what it is for off.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Failed log-ins of one address after which it is banned; 5 a minute.
    pub origin_failures: Option<Threshold>,
    /// For how long; a minute, doubling to an hour, one time forgotten in an hour of peace.
    pub origin_bans: Terms,
    /// Failed log-ins as one identity from one address that cost nothing; 4.
    pub free_failures: u32,
    /// For how long the next attempt as that identity from that address waits then; a second, doubling to five minutes.
    pub back_off: Option<Terms>,
    /// Failed log-ins as one identity, from wherever, after which there is an alarm, and nothing else; 100 in ten minutes.
    pub identity_failures: Option<Threshold>,
    /// Failed log-ins as identities of one product after which there is an alarm, and nothing else; 1,000 a minute.
    pub product_failures: Option<Threshold>,
    /// Log-ins with right credentials of one identity from one address after which it is kept out there; 30 a minute.
    pub flapping: Option<Threshold>,
    /// For how long; a minute, doubling to an hour.
    pub flapping_bans: Terms,
    /// How often a session is taken back by a place that had it before until the identity is suspected to have a clone; 4 in ten minutes.
    pub clones: Option<Threshold>,
    /// Whether a device that is connected from two networks at once is taken for two; true. Not where one device is meant to hold several connections
    /// that come from different networks. Off with `clones`.
    pub clones_at_once: bool,
    /// Whether products that don't say refuse an identity that is suspected; false, since then whoever has a clone can keep the
    /// original out.
    pub refuse_clones: bool,
    /// For how long, milliseconds; an hour.
    pub refuse_clones_ms: u64,
    /// Networks whose addresses are never banned for failures, since many clients are behind one: gateways, proxies. Loopback.
    /// (Identities are held back from there as from anywhere.)
    pub exempt: Vec<IpNet>,
    /// Whether identities are held back on loopback, too, after failures and for flapping; false, since who is on the machine are its
    /// services, its tests and its load harness.
    pub loopback: bool,
}

impl Default for Settings {
    fn default() -> Self {
        let bans = Terms { first_ms: MINUTE_MS, most_ms: HOUR_MS, forget_ms: HOUR_MS };
        Self {
            origin_failures: Some(Threshold { count: 5, window_ms: MINUTE_MS }),
            origin_bans: bans,
            free_failures: 4,
            back_off: Some(Terms { first_ms: SECOND_MS, most_ms: 5 * MINUTE_MS, forget_ms: MINUTE_MS }),
            identity_failures: Some(Threshold { count: 100, window_ms: 10 * MINUTE_MS }),
            product_failures: Some(Threshold { count: 1_000, window_ms: MINUTE_MS }),
            flapping: Some(Threshold { count: 30, window_ms: MINUTE_MS }),
            flapping_bans: bans,
            clones: Some(Threshold { count: 4, window_ms: 10 * MINUTE_MS }),
            clones_at_once: true,
            refuse_clones: false,
            refuse_clones_ms: HOUR_MS,
            exempt: vec![loopback_v4(), loopback_v6()],
            loopback: false,
        }
    }
}

fn loopback_v4() -> IpNet {
    IpNet::new(std::net::Ipv4Addr::new(127, 0, 0, 0).into(), 8).expect("8 is a length of a prefix")
}

fn loopback_v6() -> IpNet {
    IpNet::new(std::net::Ipv6Addr::LOCALHOST.into(), 128).expect("128 is a length of a prefix")
}

impl Settings {
    pub(super) fn is_exempt(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.exempt.iter().any(|net| net.contains(&address))
    }

    /// Nobody is banned or held back, and nothing is told, but for bans by hand.
    pub fn switch_off(&mut self) {
        let Self { origin_failures, back_off, identity_failures, product_failures, flapping, clones, .. } = self;
        for threshold in [origin_failures, identity_failures, product_failures, flapping, clones] {
            *threshold = None;
        }
        *back_off = None;
    }

    /// Whether a device in two networks at once is looked for.
    pub(super) fn sees_clones_at_once(&self) -> bool {
        self.clones_at_once && self.clones.is_some()
    }

    /// Whether identities are held back at an address.
    pub(super) fn holds_back(&self, address: IpAddr) -> bool {
        self.loopback || !address.to_canonical().is_loopback()
    }
}

/// How much is remembered at most. Beyond it the least harmful is forgotten first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sizes {
    /// Addresses that have failed, 56 to 112 bytes each.
    pub origins_max: usize,
    /// Identities at an address that have failed or logged in within a minute, 103 to 205 bytes each.
    pub pairs_max: usize,
    /// Identities that have failed or were taken over, 110 to 220 bytes each; and products that have failed.
    pub identities_max: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { origins_max: 1 << 17, pairs_max: 1 << 17, identities_max: 1 << 16 }
    }
}
