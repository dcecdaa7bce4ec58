//! A gate with the limits and the guard around it: what is asked of whom, in which order, and what the client hears.
//!
//! ```text
//! accept ─▶ Guard::accepts ─▶ (TLS …) ─▶ Quotas::entered ─▶ CONNECT ─▶ Quotas: crowded? too often? ─▶ Guard::admits
//!        ─▶ the gate: who is it? ─▶ Guard::logged_in, or Guard::failed ─▶ Guard::taken_over ─▶ Guard::arrives ─▶ Quotas::meter ─▶ live
//! ```
//!
//! | | at accept | CONNACK 5 | CONNACK 3 |
//! |---|---|---|---|
//! | a banned address | closed | 0x8A | 5 |
//! | an address with too many connections | closed, above twice as many | 0x97 | 3 |
//! | an address that connects too often | | 0x9F | 3 |
//! | an identity that waits after failures, or flaps | | 0x9F | 3 |
//! | an identity that is suspected to have a clone, right credentials | | 0x8A | 5 |
//! | a device that is connected from another network, where its product refuses clones | | 0x8A | 5 |
//! | an identity that states another firmware or module than is expected, where its product refuses clones | | 0x8A | 5 |
//!
//! What a client sees of its rate once it is in is told in [`turnpike_core::meter`].

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use turnpike_core::clock::Now;
use turnpike_core::feed::Feed;
use turnpike_core::gate::{
    Admission, Answer, Arrival, Attempt, Attested, ChallengeState, DeviceIdentity, Entry, Gate, Handling, Passage,
    Principal, Stated, TakeOver, Verdict, Visit,
};
use turnpike_core::meter::Meter;
use turnpike_mqtt::{ConnectReason, TopicFilter, TopicName};

use crate::attest::bare_user_name;
use crate::cut::cut;
use crate::guard::{Denied, Guard, Judged, SecurityEvent, Who};
use crate::people::log_in::SERVICE_PRODUCT;
use crate::plan::Change;
use crate::quota::{Quotas, Subject};

/// Cause of a refusal for a statement of firmware and module.
const MISMATCH: &str = "attestation_mismatch";

/// Whom credentials claim to be of, before anybody has looked whether they are right.
pub type Claimed = for<'a> fn(&Attempt<'a>) -> Option<Who<'a>>;

/// Is told of events. Called on a shard's thread: it hands them on and returns.
pub type Tell = Box<dyn Fn(SecurityEvent) + Send + Sync>;

/// A gate, its limits and its guard.
pub struct Guarded<G> {
    gate: Arc<G>,
    quotas: Arc<Quotas>,
    guard: Arc<Guard>,
    claimed: Claimed,
    tell: Tell,
    /// The latest moment that it was told of, for questions that come without one.
    latest_ms: AtomicU64,
}

impl<G> std::fmt::Debug for Guarded<G> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guarded").field("quotas", &self.quotas).field("guard", &self.guard).finish_non_exhaustive()
    }
}

/// The claim of a user name of the form `{product}/{name}` or `{device}&{product}`; of any other the user name, of no product.
#[must_use]
pub fn claimed_by_user_name<'a>(attempt: &Attempt<'a>) -> Option<Who<'a>> {
    let user_name = bare_user_name(attempt.user_name?);
    let named = cut(user_name, b'/');
    let (product, name) =
        named.or_else(|| cut(user_name, b'&').map(|(device, product)| (product, device))).unwrap_or(("", user_name));
    Some(Who { product, name })
}

fn who(principal: &Principal) -> Option<Who<'_>> {
    match principal {
        Principal::Device(identity) => Some(Who { product: &identity.product, name: &identity.device }),
        // As their user names read.
        Principal::User(user) => Some(Who { product: &user.app, name: &user.user }),
        Principal::Service(service) => Some(Who { product: SERVICE_PRODUCT, name: &service.key }),
        Principal::Anonymous | Principal::Platform(_) | Principal::Broker => None,
    }
}

/// Devices alone: users and services may be in many places.
fn device(principal: &Principal) -> Option<Who<'_>> {
    who(principal).filter(|_| matches!(principal, Principal::Device(_)))
}

fn subject(principal: &Principal) -> Option<Subject<'_>> {
    match principal {
        Principal::Device(identity) => Some(Subject::Device { product: &identity.product, device: &identity.device }),
        Principal::User(user) => Some(Subject::User { app: &user.app, user: &user.user }),
        // A back end speaks for a fleet; its rate is the fleet's.
        Principal::Service(_) | Principal::Anonymous | Principal::Platform(_) | Principal::Broker => None,
    }
}

fn refused(denied: Denied) -> Verdict {
    Verdict::Refused(denied.reason(), denied.label())
}

impl<G> Guarded<G> {
    /// Puts limits and a guard around a gate.
    #[must_use]
    pub fn new(gate: Arc<G>, quotas: Arc<Quotas>, guard: Arc<Guard>, claimed: Claimed, tell: Tell) -> Self {
        Self { gate, quotas, guard, claimed, tell, latest_ms: AtomicU64::new(0) }
    }

    /// The gate within.
    #[must_use]
    pub fn gate(&self) -> &Arc<G> {
        &self.gate
    }

    /// The limits.
    #[must_use]
    pub fn quotas(&self) -> &Arc<Quotas> {
        &self.quotas
    }

    /// The guard.
    #[must_use]
    pub fn guard(&self) -> &Arc<Guard> {
        &self.guard
    }

    /// Has limits and guard keep to a change of the registry. To be called before the sessions that it concerns are judged again.
    pub fn follow(&self, change: &Change) {
        self.quotas.follow(change);
        if let Change::SetPolicy(product, policy) = change {
            self.guard.refuse_clones(product.as_str(), policy.refuse_clones);
        }
    }

    fn saw(&self, now: Now) {
        self.latest_ms.fetch_max(now.mono_ms, Relaxed);
    }

    fn heed(&self, judged: Judged) -> Result<(), Denied> {
        judged.events.into_iter().for_each(&self.tell);
        judged.verdict
    }

    /// Has the guard hear of what the gate said.
    fn after(&self, verdict: Verdict, attempt: &Attempt<'_>, now: Now) -> Verdict {
        let address = attempt.peer.ip();
        match &verdict {
            Verdict::Granted(Admission { principal, .. }) => {
                let judged = who(principal).map_or(Ok(()), |who| self.heed(self.guard.logged_in(address, who, now)));
                if let Err(denied) = judged {
                    return refused(denied);
                }
            }
            Verdict::Refused(ConnectReason::BadUserNameOrPassword, _) => {
                self.guard.failed(address, (self.claimed)(attempt), now).into_iter().for_each(&self.tell);
            }
            // Right credentials that may not come in, or no credentials at all.
            // Of one about whom somebody is asked, there is nothing to say yet.
            Verdict::Refused(..) | Verdict::Challenge { .. } | Verdict::Pending(_) | Verdict::Dismissed(_) => {}
        }
        verdict
    }
}

impl<G: Gate> Gate for Guarded<G> {
    fn accepts(&self, address: IpAddr, now: Now) -> bool {
        self.guard.accepts(address, now) && self.gate.accepts(address, now)
    }

    fn entered(&self, address: IpAddr, now: Now) -> Entry {
        // Again, since behind a proxy this is the first that is known of the address.
        if self.guard.accepts(address, now) { self.quotas.entered(address, now) } else { Entry::Closed }
    }

    fn left(&self, address: IpAddr) {
        self.quotas.left(address);
    }

    fn attempted(&self, address: IpAddr, now: Now) -> Result<(), ConnectReason> {
        self.saw(now);
        if self.quotas.is_crowded(address) {
            return Err(ConnectReason::QuotaExceeded);
        }
        if !self.quotas.attempt(address, now) {
            return Err(ConnectReason::ConnectionRateExceeded);
        }
        Ok(())
    }

    fn authenticate(&self, attempt: &Attempt<'_>, now: Now, random: [u8; 32]) -> Verdict {
        if let Err(denied) = self.guard.admits(attempt.peer.ip(), (self.claimed)(attempt), now) {
            return refused(denied);
        }
        self.after(self.gate.authenticate(attempt, now, random), attempt, now)
    }

    fn proceed(&self, attempt: &Attempt<'_>, state: &ChallengeState, data: &[u8], now: Now) -> Verdict {
        self.after(self.gate.proceed(attempt, state, data, now), attempt, now)
    }

    fn conclude(&self, attempt: &Attempt<'_>, answer: Answer, now: Now) -> Verdict {
        self.after(self.gate.conclude(attempt, answer, now), attempt, now)
    }

    fn keep_judged(&self) {
        self.gate.keep_judged();
    }

    fn may_publish(&self, principal: &Principal, topic: TopicName<'_>) -> bool {
        self.gate.may_publish(principal, topic)
    }

    fn may_subscribe(&self, principal: &Principal, filter: TopicFilter<'_>) -> bool {
        self.gate.may_subscribe(principal, filter)
    }

    fn may_receive(&self, principal: &Principal, topic: TopicName<'_>) -> bool {
        self.gate.may_receive(principal, topic)
    }

    fn is_gone(&self, principal: &Principal) -> bool {
        self.gate.is_gone(principal)
    }

    fn seals(&self, principal: &Principal, tls: bool) -> bool {
        self.gate.seals(principal, tls)
    }

    fn attest(&self, stated: &Stated<'_>, now: Now) -> Attested {
        let said = self.gate.attest(stated, now);
        let Some(who) = who(stated.principal).filter(|_| said.wrong) else { return said };
        let denied = self.heed(self.guard.misattested(stated.address, who, now)).err();
        // What its product refuses by itself, it refuses in its own words.
        Attested { refused: said.refused.or(denied.map(|denied| (denied.reason(), MISMATCH))), ..said }
    }

    fn still_welcome(&self, principal: &Principal) -> bool {
        let latest = Now { mono_ms: self.latest_ms.load(Relaxed), unix_ms: 0 };
        let suspected = || who(principal).is_some_and(|who| self.guard.suspicion(who, latest).is_err());
        self.gate.still_welcome(principal) && !suspected()
    }

    fn still_welcome_from(&self, principal: &Principal, peer: Option<SocketAddr>) -> bool {
        self.still_welcome(principal) && self.gate.still_welcome_from(principal, peer)
    }

    fn has_feed(&self, principal: &Principal) -> bool {
        self.gate.has_feed(principal)
    }

    fn feed(&self, principal: &Principal, topic: TopicName<'_>, feed: &mut Feed) {
        self.gate.feed(principal, topic, feed);
    }

    fn meter(&self, principal: &Principal, now: Now) -> Option<Meter> {
        self.quotas.meter(subject(principal)?, now)
    }

    fn settle(&self, principal: &Principal, meter: &Meter, now: Now) {
        if let Some(subject) = subject(principal) {
            self.quotas.settle(subject, meter, now);
        }
    }

    fn taken_over(&self, take_over: TakeOver<'_>, now: Now) -> Result<(), ConnectReason> {
        self.saw(now);
        let TakeOver { principal, from, to } = take_over;
        let judged = who(principal).map_or(Ok(()), |who| self.heed(self.guard.taken_over(who, from, to, now)));
        judged.map_err(Denied::reason)
    }

    fn handling(&self, device: &DeviceIdentity, topic: TopicName<'_>) -> Handling {
        self.gate.handling(device, topic)
    }

    fn arrives(&self, arrival: Arrival<'_>, now: Now) -> Result<(), ConnectReason> {
        let Arrival { principal, address, instead_of } = arrival;
        let Some(who) = device(principal) else { return Ok(()) };
        self.heed(self.guard.arrives(address, who, instead_of, now)).map_err(Denied::reason)
    }

    fn controlled(&self, service: &Principal, topic: TopicName<'_>, now: Now) {
        self.gate.controlled(service, topic, now);
    }

    fn passed(&self, visit: &Visit<'_>, passage: Passage, now: Now) {
        if let Some(who) = visit.principal.and_then(device) {
            match passage {
                Passage::In => self.guard.came(visit.peer.ip(), who, now).into_iter().for_each(&self.tell),
                Passage::Out(_) => self.guard.went(visit.peer.ip(), who),
                Passage::Refused(_) | Passage::TurnedAway(_) => {}
            }
        }
        self.gate.passed(visit, passage, now);
    }
}

#[cfg(test)]
mod tests;
