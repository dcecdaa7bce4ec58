//! Brute force, flapping and clones: who is kept out for what he did, where, and for how long.
//!
//! | counted by | reached at (by default) | what happens | what it looks like |
//! |---|---|---|---|
//! | address (IPv6: /64) | 5 failures a minute | banned 1 minute, 2, 4 … 60 | closed at accept |
//! | identity at an address | each failure after the 4th | that identity waits there 1 s, 2, 4 … 300 | CONNACK 0x9F, 3 |
//! | identity, wherever | 100 failures in ten minutes | an alarm | nothing |
//! | product | 1,000 failures a minute | an alarm | nothing |
//! | identity at an address | 30 log-ins a minute | flapping: kept out there 1 minute, 2, 4 … 60 | CONNACK 0x9F, 3 |
//! | identity, wherever | its session goes back and forth 4 times in ten minutes | an alarm; by product, refused for an hour | CONNACK 0x8A, 5 |
//! | device, wherever | it is connected from two networks (/24, /56) at once | an alarm; by product, the later connection is refused | CONNACK 0x8A, 5 |
//! | identity, wherever | an attestation value that isn't the expected one ([`crate::attest`]) | the same | CONNACK 0x8A, 5 |
//!
//! **Nobody is locked out by somebody else.** Failures say nothing about the device whose name was claimed, so they hold that name back only
//! where they came from, and what they add up to over all addresses is an alarm and never a refusal. Whoever shares an address
//! with an attacker (behind one gateway) does share its ban: gateways belong in [`Settings::exempt`]. What does refuse an identity everywhere,
//! a clone, takes right credentials; whoever has them can then keep the original out, so a product has to choose it.
//!
//! **A session that goes back and forth and a device in two places at once** are what a clone looks like that uses the original's client id
//! and one that uses another. The first takes some times to be told from a device that moves; of the second the guard
//! knows which networks devices are connected from (`guard/presence.rs`). Users and services may well be in many places. A device that moves and comes
//! back under another client id before its old connection is missed looks like two, too: that is why it is only the later connection that is refused,
//! and only as long as the other one lasts.
//!
//! On loopback identities aren't held back, unless [`Settings::loopback`] says so.
//!
//! A refusal costs nothing: attempts while waiting or banned aren't counted and prolong nothing, so a device that was given another
//! secret gets in when its time is over. Success ends a back-off; an address has its failures forgiven by time alone, or else
//! an attacker with one device of his own could guess on for ever.
//!
//! Everything is bounded ([`Sizes`]); when a table is full, who has done least is forgotten, and who is banned last of all.
//! Nothing survives a restart but what the shell stores of bans by hand.

mod attestation;
mod blocklist;
mod event;
mod presence;
mod record;
mod settings;
mod state;
mod tally;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use ipnet::IpNet;
use parking_lot::RwLock;
use sha2::{Digest, Sha256};
use turnpike_core::clock::Now;
use turnpike_mqtt::ConnectReason;

pub use attestation::{Attestation, NotAttestation};
pub use blocklist::{BLOCKED_NETWORKS_MAX, BlocklistFull};
pub use event::{BanCause, SecurityEvent};
pub use record::KeptBan;
pub use settings::{Settings, Sizes};
pub use tally::{NotThreshold, Terms, Threshold};

use crate::origin::Origin;
use crate::table::Table;
use blocklist::Blocklist;
use presence::{Network, Presence};
use state::{OfIdentity, OfOrigin, OfPair, OfProduct};

type Key = [u8; 16];

/// Who somebody is, or claims to be: a product's device, or an app's user.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Who<'a> {
    /// The product, or the app.
    pub product: &'a str,
    /// The device, or the user.
    pub name: &'a str,
}

/// The same, kept.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Identity {
    /// The product, or the app.
    pub product: Box<str>,
    /// The device, or the user.
    pub name: Box<str>,
}

/// Why somebody isn't let in, and for how many milliseconds more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Denied {
    /// The address is banned.
    Banned,
    /// The identity waits at this address after failures.
    BackOff(u64),
    /// The identity is kept out at this address, since it flaps.
    Flapping(u64),
    /// The identity is suspected to have a clone, and its product refuses that.
    Suspected(u64),
    /// The device is connected from another network, and its product refuses that. As long as it is.
    Elsewhere,
}

impl Denied {
    /// What the client hears.
    #[must_use]
    pub fn reason(self) -> ConnectReason {
        match self {
            Self::Banned | Self::Suspected(_) | Self::Elsewhere => ConnectReason::Banned,
            Self::BackOff(_) | Self::Flapping(_) => ConnectReason::ConnectionRateExceeded,
        }
    }

    /// As the cause of a refusal.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Banned => "banned",
            Self::BackOff(_) => "back_off",
            Self::Flapping(_) => "flapping",
            Self::Suspected(_) | Self::Elsewhere => "clone_suspected",
        }
    }
}

/// A judgement, and what there is to tell of it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub struct Judged {
    /// Whether it may go on.
    pub verdict: Result<(), Denied>,
    /// Nearly always none.
    pub events: Vec<SecurityEvent>,
}

/// A ban in force.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ban {
    /// What is banned.
    pub network: IpNet,
    /// Why.
    pub cause: BanCause,
    /// Milliseconds that are left; none for ever.
    pub left_ms: Option<u64>,
    /// Of a ban by hand.
    pub note: Box<str>,
}

/// Counts since start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Failed log-ins.
    pub failures: u64,
    /// Bans for failures.
    pub bans: u64,
    /// Sockets refused at accept.
    pub refused_at_accept: u64,
    /// Log-ins refused, whatever for.
    pub denied: u64,
    /// Identities kept out for flapping.
    pub flapping: u64,
    /// Clones suspected.
    pub clones: u64,
    /// Attestation values that weren't right.
    pub attestation_mismatches: u64,
    /// Alarms of identities and products under attack.
    pub alarms: u64,
}

#[derive(Debug, Default)]
struct Counters {
    failures: AtomicU64,
    bans: AtomicU64,
    refused_at_accept: AtomicU64,
    denied: AtomicU64,
    flapping: AtomicU64,
    clones: AtomicU64,
    attestation_mismatches: AtomicU64,
    alarms: AtomicU64,
}

/// Watches log-ins. One value for all shards.
#[derive(Debug)]
pub struct Guard {
    settings: RwLock<Arc<Settings>>,
    /// Products that have said whether they refuse clones.
    refuse_clones: RwLock<HashMap<Box<str>, bool>>,
    blocked: RwLock<Blocklist>,
    origins: Table<Origin, OfOrigin>,
    pairs: Table<Key, OfPair>,
    identities: Table<Key, OfIdentity>,
    products: Table<Key, OfProduct>,
    presence: Presence,
    counters: Counters,
}

impl Who<'_> {
    fn identity(&self) -> Identity {
        Identity { product: self.product.into(), name: self.name.into() }
    }

    fn key(&self, origin: Option<Origin>) -> Key {
        let mut hash = Sha256::new();
        hash.update((self.product.len() as u64).to_le_bytes());
        hash.update(self.product);
        hash.update((self.name.len() as u64).to_le_bytes());
        hash.update(self.name);
        if let Some(origin) = origin {
            hash.update(origin.bits().to_le_bytes());
        }
        let hash: [u8; 32] = hash.finalize().into();
        *hash.first_chunk().expect("16 of 32 bytes")
    }
}

impl Guard {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(settings: Settings, sizes: Sizes) -> Self {
        Self {
            settings: RwLock::new(Arc::new(settings)),
            refuse_clones: RwLock::default(),
            blocked: RwLock::default(),
            origins: Table::new(sizes.origins_max),
            pairs: Table::new(sizes.pairs_max),
            identities: Table::new(sizes.identities_max),
            products: Table::new(sizes.identities_max / 16),
            presence: Presence::new(),
            counters: Counters::default(),
        }
    }

    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read())
    }

    /// Other settings from now on. Bans in force stay.
    pub fn set(&self, settings: Settings) {
        *self.settings.write() = Arc::new(settings);
    }

    /// Whether a product refuses identities that are suspected to have a clone; none for what the settings say.
    pub fn refuse_clones(&self, product: &str, refuse: Option<bool>) {
        let mut products = self.refuse_clones.write();
        match refuse {
            Some(refuse) => drop(products.insert(product.into(), refuse)),
            None => drop(products.remove(product)),
        }
    }

    /// Whether anybody at an address may connect. For each accepted socket: two read locks and a look-up.
    #[must_use]
    pub fn accepts(&self, address: IpAddr, now: Now) -> bool {
        let accepts = !self.is_banned(address, now.mono_ms);
        if !accepts {
            self.counters.refused_at_accept.fetch_add(1, Relaxed);
        }
        accepts
    }

    fn is_banned(&self, address: IpAddr, now_ms: u64) -> bool {
        self.blocked.read().holds(address, now_ms) || self.is_banned_for_failures(address, now_ms)
    }

    fn is_banned_for_failures(&self, address: IpAddr, now_ms: u64) -> bool {
        if self.origins.is_empty() {
            return false;
        }
        self.origins.peek(Origin::of(address), |origin| origin.ban.left_ms(now_ms) > 0).unwrap_or(false)
    }

    /// Whether an operator at an address is listened to: unless it is banned for failures. A ban by hand keeps devices out, not whoever has to lift it.
    ///
    /// # Errors
    /// [`Denied::Banned`]
    pub fn admits_operator(&self, address: IpAddr, now: Now) -> Result<(), Denied> {
        let banned = self.is_banned_for_failures(address, now.mono_ms);
        self.count_denied(if banned { Err(Denied::Banned) } else { Ok(()) })
    }

    /// Whether credentials are to be looked at. `who` is claimed, none if nothing could be read from them.
    ///
    /// # Errors
    /// [`Denied`]
    pub fn admits(&self, address: IpAddr, who: Option<Who<'_>>, now: Now) -> Result<(), Denied> {
        let now_ms = now.mono_ms;
        // Banned since it was accepted.
        let mut verdict = if self.is_banned(address, now_ms) { Err(Denied::Banned) } else { Ok(()) };
        if let Some(who) = who.filter(|_| verdict.is_ok() && !self.pairs.is_empty()) {
            let waits = |pair: &OfPair| match (pair.back_off.left_ms(now_ms), pair.flapping.left_ms(now_ms)) {
                (0, 0) => Ok(()),
                (0, left_ms) => Err(Denied::Flapping(left_ms)),
                (left_ms, _) => Err(Denied::BackOff(left_ms)),
            };
            verdict = self.pairs.peek(who.key(Some(Origin::of(address))), waits).unwrap_or(Ok(()));
        }
        self.count_denied(verdict)
    }

    fn count_denied(&self, verdict: Result<(), Denied>) -> Result<(), Denied> {
        if verdict.is_err() {
            self.counters.denied.fetch_add(1, Relaxed);
        }
        verdict
    }

    /// Credentials were wrong.
    pub fn failed(&self, address: IpAddr, who: Option<Who<'_>>, now: Now) -> Vec<SecurityEvent> {
        self.counters.failures.fetch_add(1, Relaxed);
        let (settings, now_ms) = (self.settings(), now.mono_ms);
        let mut events = Vec::new();
        if let Some(threshold) = settings.origin_failures.filter(|_| !settings.is_exempt(address)) {
            events.extend(self.origin_failed(Origin::of(address), threshold, &settings, now_ms));
        }
        let Some(who) = who else { return events };
        if let Some(terms) = settings.back_off.as_ref().filter(|_| settings.holds_back(address)) {
            self.pairs.with(who.key(Some(Origin::of(address))), now_ms, |pair| {
                pair.back_off.pass(terms, settings.free_failures, now_ms);
                pair.keep_until_ms = pair.keep_until_ms.max(pair.back_off.fades_at_ms(terms));
            });
        }
        let mut alarm = |event| {
            self.counters.alarms.fetch_add(1, Relaxed);
            events.push(event);
        };
        if let Some(threshold) = settings.identity_failures {
            let reached = self.identities.with(who.key(None), now_ms, |identity| {
                let reached = identity.failures.add(threshold, now_ms);
                let fades_at_ms = identity.failures.fades_at_ms(threshold.window_ms);
                identity.keep_until_ms = identity.keep_until_ms.max(fades_at_ms);
                reached
            });
            if reached {
                alarm(SecurityEvent::IdentityUnderAttack { identity: who.identity(), failures: threshold.count });
            }
        }
        if let Some(threshold) = settings.product_failures {
            let whole = Who { name: "", ..who };
            let reached = self.products.with(whole.key(None), now_ms, |product| {
                let reached = product.failures.add(threshold, now_ms);
                product.keep_until_ms = product.failures.fades_at_ms(threshold.window_ms);
                reached
            });
            if reached {
                alarm(SecurityEvent::ProductUnderAttack { product: who.product.into(), failures: threshold.count });
            }
        }
        events
    }

    fn origin_failed(
        &self,
        origin: Origin,
        threshold: Threshold,
        settings: &Settings,
        now_ms: u64,
    ) -> Option<SecurityEvent> {
        let terms = &settings.origin_bans;
        let (for_ms, times) = self.origins.with(origin, now_ms, |state| {
            // Attempts that were under way when the ban began prolong nothing.
            let reached = state.ban.left_ms(now_ms) == 0 && state.failures.add(threshold, now_ms);
            let for_ms = reached.then(|| state.ban.pass(terms, 0, now_ms));
            state.keep_until_ms = state.ban.fades_at_ms(terms).max(state.failures.fades_at_ms(threshold.window_ms));
            for_ms.map(|for_ms| (for_ms, state.ban.times))
        })?;
        self.counters.bans.fetch_add(1, Relaxed);
        Some(SecurityEvent::Banned { network: origin.network(), cause: BanCause::Failures, for_ms, times })
    }

    /// Credentials were right; whether their owner comes in all the same.
    pub fn logged_in(&self, address: IpAddr, who: Who<'_>, now: Now) -> Judged {
        let (settings, now_ms, origin) = (self.settings(), now.mono_ms, Origin::of(address));
        let mut events = Vec::new();
        let mut verdict = self.suspicion(who, now);
        if verdict.is_ok()
            && let Some(threshold) = settings.flapping.filter(|_| settings.holds_back(address))
        {
            let terms = &settings.flapping_bans;
            let flaps = self.pairs.with(who.key(Some(origin)), now_ms, |pair| {
                pair.back_off = tally::Sentence::default();
                let flaps = pair.log_ins.add(threshold, now_ms).then(|| pair.flapping.pass(terms, 0, now_ms));
                let fades_at_ms = pair.log_ins.fades_at_ms(threshold.window_ms);
                pair.keep_until_ms = pair.flapping.fades_at_ms(terms).max(fades_at_ms);
                flaps
            });
            if let Some(for_ms) = flaps {
                self.counters.flapping.fetch_add(1, Relaxed);
                let (identity, network) = (who.identity(), origin.network());
                events.push(SecurityEvent::Flapping { identity, network, for_ms });
                verdict = Err(Denied::Flapping(for_ms));
            }
        } else if verdict.is_ok() && !self.pairs.is_empty() {
            self.pairs.change(who.key(Some(origin)), |pair| pair.back_off = tally::Sentence::default());
        }
        Judged { verdict: self.count_denied(verdict), events }
    }

    /// Whether an identity is refused, being suspected to have a clone. For live sessions when that has changed.
    ///
    /// # Errors
    /// [`Denied::Suspected`]
    pub fn suspicion(&self, who: Who<'_>, now: Now) -> Result<(), Denied> {
        if self.identities.is_empty() {
            return Ok(());
        }
        let left_ms =
            self.identities.peek(who.key(None), |identity| identity.refused_until_ms.saturating_sub(now.mono_ms));
        match left_ms {
            None | Some(0) => Ok(()),
            Some(left_ms) => Err(Denied::Suspected(left_ms)),
        }
    }

    /// A new connection of an identity takes the session over from an older one.
    pub fn taken_over(&self, who: Who<'_>, from: IpAddr, to: IpAddr, now: Now) -> Judged {
        let (settings, now_ms) = (self.settings(), now.mono_ms);
        let (from, to) = (Origin::of(from), Origin::of(to));
        let calm = Judged { verdict: Ok(()), events: Vec::new() };
        let Some(threshold) = settings.clones.filter(|_| from != to) else { return calm };
        let refused_ms = self.refuses_clones(who.product, &settings).then_some(settings.refuse_clones_ms);
        let suspected = self.identities.with(who.key(None), now_ms, |identity| {
            if identity.swaps.fades_at_ms(threshold.window_ms) <= now_ms && identity.keep_until_ms <= now_ms {
                identity.forget_places();
            }
            let suspected = identity.swapped(from, to) && identity.swaps.add(threshold, now_ms);
            if suspected {
                identity.refused_until_ms = now_ms.saturating_add(refused_ms.unwrap_or(0));
            }
            let places_ms = now_ms.saturating_add(threshold.window_ms);
            identity.keep_until_ms = identity.keep_until_ms.max(places_ms).max(identity.refused_until_ms);
            suspected
        });
        if !suspected {
            return calm;
        }
        self.counters.clones.fetch_add(1, Relaxed);
        let networks = [from.network(), to.network()];
        let verdict = refused_ms.map_or(Ok(()), |left_ms| Err(Denied::Suspected(left_ms)));
        let events = vec![SecurityEvent::CloneSuspected { identity: who.identity(), networks, refused_ms }];
        Judged { verdict: self.count_denied(verdict), events }
    }

    /// A device is about to come in, in place of a connection from `instead_of` if it takes one over. Where its product refuses clones,
    /// it may not while it is connected from another network. (Two that come on two shards at the same moment may both get in: [`Self::came`]
    /// tells of them.)
    pub fn arrives(&self, address: IpAddr, who: Who<'_>, instead_of: Option<IpAddr>, now: Now) -> Judged {
        let settings = self.settings();
        let calm = Judged { verdict: Ok(()), events: Vec::new() };
        let refuses = settings.sees_clones_at_once() && self.refuses_clones(who.product, &settings);
        if !refuses || !self.presence.is_elsewhere(who.key(None), Network::of(address), instead_of.map(Network::of)) {
            return calm;
        }
        let events = self.tell_connected_twice(address, who, true, &settings, now).into_iter().collect();
        Judged { verdict: self.count_denied(Err(Denied::Elsewhere)), events }
    }

    /// A connection of a device has begun. To be told for each, and [`Self::went`] once for each of them.
    pub fn came(&self, address: IpAddr, who: Who<'_>, now: Now) -> Option<SecurityEvent> {
        if !self.presence.came(who.key(None), Network::of(address)) {
            return None;
        }
        let settings = self.settings();
        if settings.sees_clones_at_once() {
            self.tell_connected_twice(address, who, false, &settings, now)
        } else {
            None
        }
    }

    /// A connection of a device has ended.
    pub fn went(&self, address: IpAddr, who: Who<'_>) {
        self.presence.went(who.key(None), Network::of(address));
    }

    /// Once in the time in which take-overs are counted, so that a device that comes from everywhere all day doesn't fill the audit.
    fn tell_connected_twice(
        &self,
        address: IpAddr,
        who: Who<'_>,
        refused: bool,
        settings: &Settings,
        now: Now,
    ) -> Option<SecurityEvent> {
        let window_ms = settings.clones.map_or(0, |threshold| threshold.window_ms.max(1));
        let is_news = self.identities.with(who.key(None), now.mono_ms, |identity| {
            let is_news = identity.told_until_ms <= now.mono_ms;
            if is_news {
                identity.told_until_ms = now.mono_ms.saturating_add(window_ms);
                identity.keep_until_ms = identity.keep_until_ms.max(identity.told_until_ms);
            }
            is_news
        });
        if !is_news {
            return None;
        }
        self.counters.clones.fetch_add(1, Relaxed);
        let network = Origin::of(address).network();
        Some(SecurityEvent::CloneConnected { identity: who.identity(), network, refused })
    }

    /// An identity has presented an attestation value. A refusal is for the session as well as for those that follow.
    pub fn attested(
        &self,
        address: IpAddr,
        who: Who<'_>,
        registered: &Attestation,
        presented: &Attestation,
        now: Now,
    ) -> Judged {
        match registered.is(presented) {
            true => Judged { verdict: Ok(()), events: Vec::new() },
            false => self.misattested(address, who, now),
        }
    }

    /// The same, where somebody else has seen that the value isn't right.
    pub fn misattested(&self, address: IpAddr, who: Who<'_>, now: Now) -> Judged {
        self.counters.attestation_mismatches.fetch_add(1, Relaxed);
        let settings = self.settings();
        let refused_ms = self.refuses_clones(who.product, &settings).then_some(settings.refuse_clones_ms);
        if let Some(refused_ms) = refused_ms {
            self.identities.with(who.key(None), now.mono_ms, |identity| {
                identity.refused_until_ms = now.mono_ms.saturating_add(refused_ms);
                identity.keep_until_ms = identity.keep_until_ms.max(identity.refused_until_ms);
            });
        }
        let network = Origin::of(address).network();
        let verdict = refused_ms.map_or(Ok(()), |left_ms| Err(Denied::Suspected(left_ms)));
        let events = vec![SecurityEvent::AttestationMismatch { identity: who.identity(), network, refused_ms }];
        Judged { verdict: self.count_denied(verdict), events }
    }

    fn refuses_clones(&self, product: &str, settings: &Settings) -> bool {
        self.refuse_clones.read().get(product).copied().unwrap_or(settings.refuse_clones)
    }

    /// Forgets what is held against an identity: the suspicion at once, and waits at addresses with their time. Says whether it was refused.
    pub fn pardon(&self, who: Who<'_>, now: Now) -> bool {
        self.identities.remove(who.key(None)).is_some_and(|identity| identity.refused_until_ms > now.mono_ms)
    }

    /// Bans a network by hand, for so long or for ever. None is accepted any more; the connections that it has are the shell's to close: those
    /// whose canonical address is in the network that this gives.
    ///
    /// # Errors
    /// [`BlocklistFull`]
    pub fn ban(&self, network: IpNet, note: &str, for_ms: Option<u64>, now: Now) -> Result<IpNet, BlocklistFull> {
        let until_ms = for_ms.map(|for_ms| now.mono_ms.saturating_add(for_ms));
        let network = blocklist::canonical(network);
        self.blocked.write().insert(network, note, until_ms, now.mono_ms)?;
        Ok(network)
    }

    /// Lifts bans: that network's by hand, and those of its addresses for failures, with all that is held against them.
    /// Says whether there was one.
    pub fn unban(&self, network: IpNet, now: Now) -> bool {
        let by_hand = self.blocked.write().remove(network);
        let meant = |origin: &Origin| {
            let own = origin.network();
            network.contains(&own) || own.contains(&network)
        };
        let found = self.origins.collect(usize::MAX, |origin, _| meant(origin).then_some(*origin));
        let lifted = found.into_iter().filter_map(|origin| self.origins.remove(origin));
        let banned = lifted.filter(|state| state.ban.left_ms(now.mono_ms) > 0).count();
        by_hand || banned > 0
    }

    /// The bans in force, `most` of each cause at most, in no order.
    #[must_use]
    pub fn bans(&self, most: usize, now: Now) -> Vec<Ban> {
        let now_ms = now.mono_ms;
        let mut bans = self.origins.collect(most, |origin, state| {
            let left_ms = state.ban.left_ms(now_ms);
            let ban = || Ban {
                network: origin.network(),
                cause: BanCause::Failures,
                left_ms: Some(left_ms),
                note: Box::default(),
            };
            (left_ms > 0).then(ban)
        });
        let blocked = self.blocked.read();
        bans.extend(blocked.iter(now_ms).take(most).map(|(network, block)| Ban {
            network: *network,
            cause: BanCause::Manual,
            left_ms: block.until_ms.map(|until_ms| until_ms.saturating_sub(now_ms)),
            note: block.note.clone(),
        }));
        bans
    }

    /// Frees what is over. Tables in use do that by themselves; call it now and then (a minute).
    pub fn sweep(&self, now: Now) {
        self.blocked.write().expire(now.mono_ms);
        self.origins.sweep(now.mono_ms);
        self.pairs.sweep(now.mono_ms);
        self.identities.sweep(now.mono_ms);
        self.products.sweep(now.mono_ms);
        self.presence.sweep();
    }

    /// Counts since start.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let counters = &self.counters;
        Counts {
            failures: counters.failures.load(Relaxed),
            bans: counters.bans.load(Relaxed),
            refused_at_accept: counters.refused_at_accept.load(Relaxed),
            denied: counters.denied.load(Relaxed),
            flapping: counters.flapping.load(Relaxed),
            clones: counters.clones.load(Relaxed),
            attestation_mismatches: counters.attestation_mismatches.load(Relaxed),
            alarms: counters.alarms.load(Relaxed),
        }
    }

    /// How many addresses, identities at addresses, identities and products are remembered, and from how many networks devices are connected,
    /// each by itself; for metrics.
    #[must_use]
    pub fn remembered(&self) -> [(&'static str, usize); 5] {
        [
            ("origins", self.origins.len()),
            ("pairs", self.pairs.len()),
            ("identities", self.identities.len()),
            ("products", self.products.len()),
            ("presence", self.presence.len()),
        ]
    }
}

#[cfg(test)]
mod tests;
