//! The gate: log-in of devices, and what they may do then.
//!
//! | what is wrong | MQTT 5 | MQTT 3 |
//! |---|---|---|
//! | no credentials, of no known format, unknown product or device, wrong signature, stale timestamp, nonce used before, another's certificate | 0x86 | 4 |
//! | right credentials of a disabled device or product, or of a profile that the product doesn't take | 0x87 | 5 |
//! | right credentials, and what the product demands besides isn't met: TLS, a certificate, a longer key; a certificate out of its time | 0x87 | 5 |
//! | an authentication method other than those of [`crate::keys::Method`] (MQTT 5, 4.12) | 0x8C | – |
//! | right credentials, and no room to remember their nonce | 0x97 | 3 |
//! | a CONNECT that wants a registration ([`crate::presale::connect`]): unknown, wrong; not allowed; expired; exists; capacity; not now | 0x86; 0x87; 0x8A; 0x85; 0x97; 0x88 | 4; 5; 5; 2; 3; 3 |
//! | the device's secret doesn't open: another master key, a damaged record | 0x88 | 3 |
//! | the product's verifier isn't there, can't be asked, or doesn't answer ([`crate::verifier`]) | 0x88 | 3 |
//!
//! The client hears no more than that; [`Refusal`] says the rest to metrics. A stranger can't tell an unknown device from a wrong
//! password: the code is the same, and an unknown device costs the same work, done on a decoy; so does what is malformed or stale. (Where a profile
//! names no product, two devices of the name given cost twice.) The last line is the exception; a
//! shell that asks [`Gatekeeper::check_key`] before it opens its listeners leaves damaged records as its only cause.

mod attest;
mod login;
mod means;
mod passcode;
mod verify;

pub use verify::Asked;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use turnpike_core::cipher::PayloadCipher;
use turnpike_core::clock::Now;
use turnpike_core::feed::Feed;
use turnpike_core::gate::{
    Admission, Answer, Attempt, Attested, ChallengeState, DeviceIdentity, Gate, Handling, Passage, Principal, Stated,
    Verdict, Visit,
};
use turnpike_mqtt::{TopicFilter, TopicName};

use crate::attest::bare_user_name;
use crate::callout::Callout;
use crate::cipher::session::Login;
use crate::cipher::{Counts, PlatformKey, SessionCipher};
use crate::desk::Desks;
use crate::keys::{Method, Signed};
use crate::names::ProductKey;
use crate::nonce::{Holder as NonceHolder, NonceJournal, Nonces, RECORD_BYTES, Restored, Use};
use crate::people::bindings::DeviceKey;
use crate::people::log_in as people;
use crate::people::{People, addressed};
use crate::platform::Platforms;
use crate::policy;
use crate::presale;
use crate::profile::{self, Claim, Freshness, Holder, Profile};
use crate::refusal::Refusal;
use crate::registry::{Found, Glimpse, Registry, owner};
use crate::secret::{MasterKey, SealError, Sealed, Secret};
use crate::verifier::{Verifier, VerifierName};
use means::{By, Proven, is_met};

/// Whom the decoy is sealed for; no record has such a key.
const DECOY: &str = "decoy";

/// The one method of enhanced authentication.
pub const METHOD: &str = "HMAC-SHA256";

/// What stands for the product of nonces of registrations; none is named so.
const REGISTRATIONS: &str = "$register";
/// A device has an eighth of the room for nonces at most: it keeps nobody out but itself, and load tests come in by one device.
const DEVICE_PART: usize = 8;
/// A service a quarter.
const SERVICE_PART: usize = 4;

fn fraction(whole: usize, part: usize) -> u32 {
    u32::try_from(whole.div_ceil(part)).unwrap_or(u32::MAX)
}

/// Judges CONNECTs against the registry, and topics against the policy.
#[derive(Debug)]
pub struct Gatekeeper {
    registry: Arc<Registry>,
    key: MasterKey,
    nonces: Nonces,
    /// Nonces of one device in twenty minutes.
    device_share: u32,
    /// The same of one service, which has many connections.
    service_share: u32,
    people: Arc<People>,
    journal: Option<Box<dyn NonceJournal>>,
    /// Lets everybody in, and do everything.
    anonymous: bool,
    /// What an unknown device is checked against, so that it costs what a known one costs.
    decoy: Sealed,
    /// In the order of [`Refusal::ALL`].
    refusals: [AtomicU64; Refusal::ALL.len()],
    /// Hears of each log-in, if there is one.
    witness: Option<Box<dyn Witness>>,
    /// Of payloads without TLS.
    payload_counts: Arc<Counts>,
    /// What devices without a secret wrap the keys of their payloads under, if there is one.
    platform_key: Option<Arc<PlatformKey>>,
    /// Who else may publish, if anybody.
    platforms: Option<Arc<Platforms>>,
    /// What devices publish for the broker itself.
    desks: Desks,
    /// Algorithms that are compiled in.
    verifiers: Vec<Box<dyn Verifier>>,
    /// Who is asked over HTTP.
    callout: Option<Arc<Callout>>,
}

/// Who hears of log-ins: the audit. Called by the shards' threads: it must not wait.
pub trait Witness: Send + Sync + std::fmt::Debug {
    /// What became of a client.
    fn passed(&self, visit: &Visit<'_>, passage: Passage, now: Now);

    /// A service tells a device something.
    fn controlled(&self, service: &Principal, device: &DeviceKey, now: Now);
}

impl Gatekeeper {
    /// A gate for the devices of a registry. `nonces_max`: how many used nonces are remembered in twenty minutes
    /// ([`Nonces::new`]); with fewer than there are log-ins of the profiles `native` and `gizwits`, the rest are told to come back.
    #[must_use]
    pub fn new(registry: Arc<Registry>, key: MasterKey, nonces_max: usize) -> Self {
        // This nonce isn't random, and needn't be: the decoy is no secret and never leaves.
        let decoy = key.seal(DECOY, &Secret::generate([0; 16]), [0; 12]);
        Self {
            registry,
            key,
            nonces: Nonces::new(nonces_max),
            device_share: fraction(nonces_max, DEVICE_PART),
            service_share: fraction(nonces_max, SERVICE_PART),
            people: Arc::default(),
            journal: None,
            anonymous: false,
            decoy,
            refusals: std::array::from_fn(|_| AtomicU64::new(0)),
            witness: None,
            payload_counts: Arc::default(),
            platform_key: None,
            platforms: None,
            desks: Desks::default(),
            verifiers: Vec::new(),
            callout: None,
        }
    }

    /// Other clouds, if there are to be any.
    #[must_use]
    pub fn platforms(&self) -> Option<&Arc<Platforms>> {
        self.platforms.as_ref()
    }

    /// The same gate, which lets these platforms publish to the devices that they are granted.
    #[must_use]
    pub fn with_platforms(self, platforms: Arc<Platforms>) -> Self {
        Self { platforms: Some(platforms), ..self }
    }

    /// The same gate, which hands messages to these desks.
    #[must_use]
    pub fn with_desks(self, desks: Desks) -> Self {
        Self { desks, ..self }
    }

    /// The same gate, and somebody who hears of each log-in.
    #[must_use]
    pub fn witnessed_by(self, witness: Box<dyn Witness>) -> Self {
        Self { witness: Some(witness), ..self }
    }

    /// The same gate, which opens keys of payloads that devices have wrapped under the platform's.
    #[must_use]
    pub fn unwrapping_with(self, key: PlatformKey) -> Self {
        Self { platform_key: Some(Arc::new(key)), ..self }
    }

    /// What has been counted of sealed payloads.
    #[must_use]
    pub fn payload_counts(&self) -> &Counts {
        &self.payload_counts
    }

    /// The same gate, open to everybody: for conformance suites and benchmarks on loopback.
    #[must_use]
    pub fn open_to_all(self) -> Self {
        Self { anonymous: true, ..self }
    }

    /// The same gate, which keeps the nonces that it takes. Before anybody comes in, it is to be given what earlier
    /// processes have kept ([`Self::restore_nonces`]).
    #[must_use]
    pub fn keeping_nonces(self, journal: Box<dyn NonceJournal>) -> Self {
        Self { journal: Some(journal), ..self }
    }

    /// Remembers nonces that earlier processes have taken.
    pub fn restore_nonces(&self, records: impl IntoIterator<Item = [u8; RECORD_BYTES]>, now: Now) -> Restored {
        self.nonces.restore(records, now)
    }

    /// Nonces that have been used.
    #[must_use]
    pub fn nonces(&self) -> &Nonces {
        &self.nonces
    }

    /// The registry.
    #[must_use]
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// The key that secrets are sealed under.
    #[must_use]
    pub fn master_key(&self) -> &MasterKey {
        &self.key
    }

    /// With users and services.
    #[must_use]
    pub fn with_people(self, people: Arc<People>) -> Self {
        Self { people, ..self }
    }

    /// Users and services.
    #[must_use]
    pub fn people(&self) -> &Arc<People> {
        &self.people
    }

    /// How often each refusal happened.
    pub fn refusals(&self) -> impl Iterator<Item = (Refusal, u64)> + '_ {
        Refusal::ALL.iter().copied().zip(self.refusals.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    fn refuse(&self, refusal: Refusal) -> Verdict {
        if let Some(count) = self.refusals.get(refusal as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        Verdict::Refused(refusal.reason(), refusal.label())
    }

    /// Whether the master key opens what is in the registry, tried on one device.
    ///
    /// # Errors
    /// [`SealError`]; the caller doesn't start on it, since no device could log in.
    pub fn check_key(&self) -> Result<(), SealError> {
        self.people.check_key(&self.key)?;
        let Some((product, name, device)) = self.registry.any_device() else { return Ok(()) };
        self.key.open(&owner(product.as_str(), name.as_str()), &device.secret).map(drop)
    }

    /// The device among these whose secret passes `proof`. If there is none at all, the decoy is put to the proof.
    fn prove<'a>(
        &self,
        candidates: Vec<Candidate<'a>>,
        proof: impl Fn(&Holder<'_>) -> bool,
    ) -> Result<Option<(Device<'a>, Found)>, Refusal> {
        if candidates.is_empty() {
            self.spend(proof);
            return Ok(None);
        }
        let mut refusal = Refusal::WrongSignature;
        for Candidate { product, device, found } in candidates {
            if found.device.secret.is_none() {
                // It has a key instead, which must show no more than that there is no such device.
                self.spend(&proof);
                continue;
            }
            let Ok(secret) = self.key.open(&owner(&product, device), &found.device.secret) else {
                refusal = Refusal::SecretSealed;
                continue;
            };
            if proof(&Holder { product: &product, secret: &secret }) {
                return Ok(Some((Device { product, device }, found)));
            }
        }
        Err(refusal)
    }

    /// Does on the decoy what a wrong signature would cost.
    fn spend(&self, proof: impl Fn(&Holder<'_>) -> bool) {
        if let Ok(decoy) = self.key.open(DECOY, &self.decoy) {
            std::hint::black_box(proof(&Holder { product: DECOY, secret: &decoy }));
        }
    }

    /// Whom a claim may be of: those that take its profile before the one that it may also be read as.
    fn candidates<'a>(&self, claim: &Claim<'a>) -> Vec<Candidate<'a>> {
        let identity = claim.identity();
        let searched = identity.searched.into_iter().flat_map(|device| {
            let found = self.registry.find_by_device_name(claim.profile(), device);
            found.into_iter().map(move |(product, found)| Candidate::new(&product, device, found))
        });
        let named = identity.named.and_then(|(product, device)| self.candidate(product, device));
        searched.chain(named).collect()
    }

    fn candidate<'a>(&self, product: &'a str, device: &'a str) -> Option<Candidate<'a>> {
        let found = self.registry.find(product, device)?;
        Some(Candidate { product: product.into(), device, found })
    }

    fn log_in(&self, claim: &Claim<'_>, attempt: &Attempt<'_>, now: Now) -> Result<Admission, Refusal> {
        let freshness = claim.freshness(now);
        if freshness == Freshness::Stale {
            self.spend(|holder| claim.is_signed_by(holder));
            return Err(Refusal::StaleTimestamp);
        }
        let proven = self.prove(self.candidates(claim), |holder| claim.is_signed_by(holder))?;
        let Some((of, found)) = proven else { return Err(self.unknown(claim.identity().named)) };
        if claim.shows_secret() && !attempt.tls {
            return Err(Refusal::TlsRequired);
        }
        // After the signature: a stranger must not use up a device's nonces, nor the room for them.
        if let Freshness::Once { nonce, until_ms } = freshness {
            self.take_nonce(of.identity(), nonce, until_ms, now)?;
        }
        let login_nonce = match (claim, freshness) {
            (Claim::Native(_), Freshness::Once { nonce, .. }) => Some(nonce),
            _ => None,
        };
        let proven = Proven { identity: of.identity(), found: &found, profile: claim.profile(), by: By::Secret };
        let admission = self.admit(&proven, login_nonce, attempt, now)?;
        let lasting = claim.lasting_client_id().filter(|id| *id != attempt.client_id);
        Ok(Admission { client_id: lasting.map(Box::from), ..admission })
    }

    fn log_in_people(&self, claim: &people::Claim<'_>, attempt: &Attempt<'_>, now: Now) -> Result<Admission, Refusal> {
        let decoy = self.key.open(DECOY, &self.decoy).map_err(|_| Refusal::SecretSealed)?;
        let take_nonce =
            |key: &str, nonce: &str, until_ms| self.take_nonce((people::SERVICE_PRODUCT, key), nonce, until_ms, now);
        let tools = people::Tools { key: &self.key, decoy: &decoy, take_nonce: &take_nonce };
        self.people.log_in(claim, attempt, &tools, now)
    }

    /// Uses the nonce of a registration by its product, its key or device, and the nonce. What is told apart from log-ins is their product.
    ///
    /// # Errors
    /// As at a log-in: it was used before, or there is no room for it.
    pub fn use_registration(&self, (product, subject, nonce): (&str, &str, &str), now: Now) -> Result<(), Refusal> {
        let holder = format!("{product}/{subject}");
        let until_ms = now.unix_ms.saturating_add(crate::nonce::REMEMBERED_MS);
        self.take_nonce((REGISTRATIONS, &holder), nonce, until_ms, now)?;
        self.journal.iter().for_each(|journal| journal.keep());
        Ok(())
    }

    fn take_nonce(&self, (product, device): (&str, &str), nonce: &str, until_ms: u64, now: Now) -> Result<(), Refusal> {
        let share = if product == people::SERVICE_PRODUCT { self.service_share } else { self.device_share };
        let holder = NonceHolder { product, device, share: Some(share) };
        match self.nonces.take(holder, nonce, until_ms, now.mono_ms) {
            Use::First { record } => {
                self.journal.iter().for_each(|journal| journal.take(record));
                Ok(())
            }
            Use::Again => Err(Refusal::NonceReused),
            Use::Full => Err(Refusal::NoncesFull),
            Use::OverShare => Err(Refusal::TooManyLogIns),
        }
    }

    /// Why nobody was found.
    fn unknown(&self, named: Option<(&str, &str)>) -> Refusal {
        match named {
            Some((product, _)) if self.registry.product(product).is_none() => Refusal::UnknownProduct,
            _ => Refusal::UnknownDevice,
        }
    }

    fn answer(
        &self,
        attempt: &Attempt<'_>,
        state: &ChallengeState,
        data: &[u8],
        now: Now,
    ) -> Result<Admission, Refusal> {
        let (product, device) = state.claim.split_once('/').ok_or(Refusal::Malformed)?;
        let method = Method::parse(&state.method).ok_or(Refusal::BadMethod)?;
        if method != Method::Hmac {
            return self.answer_signed((product, device), method, attempt, (&state.data, data), now);
        }
        let proof = |holder: &Holder<'_>| {
            profile::answers(holder.secret, attempt.client_id, product, device, &state.data, data)
        };
        let proven = self.prove(self.candidate(product, device).into_iter().collect(), proof)?;
        let Some((of, found)) = proven else { return Err(self.unknown(Some((product, device)))) };
        let proven = Proven { identity: of.identity(), found: &found, profile: Profile::Native, by: By::Secret };
        self.admit(&proven, None, attempt, now)
    }

    /// Whether a device that has proved who it is comes in, and on what terms. `login_nonce`: that of a native credential, if it was one.
    fn admit(
        &self,
        proven: &Proven<'_>,
        login_nonce: Option<&str>,
        attempt: &Attempt<'_>,
        now: Now,
    ) -> Result<Admission, Refusal> {
        let admission = proven.admit(attempt, now)?;
        let Principal::Device(who) = &admission.principal else { return Ok(admission) };
        let cipher = self.cipher(who, proven.found, login_nonce, attempt.tls)?;
        Ok(Admission { cipher, ..admission })
    }

    /// What seals the payloads of a connection, if anything does.
    fn cipher(
        &self,
        who: &Arc<DeviceIdentity>,
        found: &Found,
        login_nonce: Option<&str>,
        is_tls: bool,
    ) -> Result<Option<Box<dyn PayloadCipher>>, Refusal> {
        let Some(policy) = found.payloads.cipher(is_tls) else { return Ok(None) };
        let open = || self.key.open(&owner(&who.product, &who.device), &found.device.secret);
        let secret = (!found.device.secret.is_none()).then(open).transpose().map_err(|_| Refusal::SecretSealed)?;
        let (nonce, platform_key) = (login_nonce.map(Box::from), self.platform_key.clone());
        let login = Login { who: Arc::clone(who), policy: *policy, secret, nonce, platform_key };
        Ok(Some(Box::new(SessionCipher::new(login, Arc::clone(&self.payload_counts)))))
    }

    /// Judges an attempt by the formats that the broker knows.
    fn judge(&self, attempt: &Attempt<'_>, now: Now, random: [u8; 32], passed_over: Option<&VerifierName>) -> Verdict {
        if let Some((method, _)) = attempt.enhanced {
            if Method::parse(method).is_none() {
                return self.refuse(Refusal::BadMethod);
            }
            let Some(user_name) = attempt.user_name else { return self.refuse(Refusal::NoCredentials) };
            let state = ChallengeState { method: method.into(), data: random.to_vec(), claim: user_name.into() };
            return Verdict::Challenge { data: random.to_vec(), state: Box::new(state) };
        }
        // A client that must send a password, and has none, sends an empty one.
        if attempt.certificate.is_some() && attempt.password.is_none_or(<[u8]>::is_empty) {
            return self.verdict(self.log_in_by_certificate(attempt, now), passed_over);
        }
        let (Some(user_name), Some(password)) = (attempt.user_name, attempt.password) else {
            return self.refuse(Refusal::NoCredentials);
        };
        if let Some(claim) = people::Claim::parse(user_name, password) {
            return self.verdict(self.log_in_people(&claim, attempt, now), passed_over);
        }
        if let Some(signed) = Signed::parse(attempt.client_id, user_name, password) {
            let signed = signed.ok_or(Refusal::Malformed);
            return self.verdict(signed.and_then(|signed| self.log_in_signed(&signed, attempt, now)), passed_over);
        }
        let Some(claim) = Claim::parse(attempt.client_id, user_name, password) else {
            // What it would cost if it were a password of ours.
            self.spend(|holder| profile::answers(holder.secret, attempt.client_id, user_name, "", &[], &[]));
            return self.refuse(Refusal::Malformed);
        };
        self.verdict(self.log_in(&claim, attempt, now), passed_over)
    }

    /// `passed_over`: a verifier that has said that it isn't its to judge.
    fn verdict(&self, result: Result<Admission, Refusal>, passed_over: Option<&VerifierName>) -> Verdict {
        let result = result.and_then(|admission| self.check_verifier(admission, passed_over));
        match result {
            Ok(admission) => Verdict::Granted(admission),
            Err(refusal) => self.refuse(refusal),
        }
    }
}

/// A device that a claim may be of.
struct Candidate<'a> {
    product: Cow<'a, str>,
    device: &'a str,
    found: Found,
}

impl<'a> Candidate<'a> {
    fn new(product: &ProductKey, device: &'a str, found: Found) -> Self {
        Self { product: product.as_str().to_owned().into(), device, found }
    }
}

/// A device that has shown that it knows its secret.
struct Device<'a> {
    product: Cow<'a, str>,
    device: &'a str,
}

impl Device<'_> {
    fn identity(&self) -> login::Identity<'_> {
        (&self.product, self.device)
    }
}

impl Gate for Gatekeeper {
    fn authenticate(&self, attempt: &Attempt<'_>, now: Now, random: [u8; 32]) -> Verdict {
        if self.anonymous {
            return match attempt.enhanced {
                Some(_) => self.refuse(Refusal::BadMethod),
                None => Verdict::Granted(Admission::new(Principal::Anonymous)),
            };
        }
        if let Some(question) = presale::connect::question(attempt) {
            return Verdict::Pending(question);
        }
        // What a device states of itself behind its user name is nobody's but `attest`'s.
        let attempt = &Attempt { user_name: attempt.user_name.map(bare_user_name), ..*attempt };
        match self.consult(attempt, now) {
            Some(verdict) => verdict,
            None => self.judge(attempt, now, random, None),
        }
    }

    fn proceed(&self, attempt: &Attempt<'_>, state: &ChallengeState, data: &[u8], now: Now) -> Verdict {
        self.verdict(self.answer(attempt, state, data, now), None)
    }

    fn conclude(&self, attempt: &Attempt<'_>, answer: Answer, now: Now) -> Verdict {
        let attempt = &Attempt { user_name: attempt.user_name.map(bare_user_name), ..*attempt };
        presale::connect::verdict(answer).unwrap_or_else(|answer| self.answered(attempt, answer, now))
    }

    fn may_publish(&self, principal: &Principal, topic: TopicName<'_>) -> bool {
        match principal {
            Principal::Broker => true,
            Principal::Anonymous => self.anonymous,
            Principal::Platform(identity) => {
                self.platforms.as_ref().is_some_and(|platforms| platforms.may_publish(&identity.id, topic.as_str()))
            }
            Principal::Device(identity) => {
                let (product, device) = (&*identity.product, &*identity.device);
                policy::may_publish(product, device, topic.as_str(), || self.registry.allowed(product))
            }
            Principal::User(user) => self.people.user_may_publish(user, topic.as_str()),
            Principal::Service(service) => self.people.service_may_publish(service, topic.as_str()),
        }
    }

    fn may_subscribe(&self, principal: &Principal, filter: TopicFilter<'_>) -> bool {
        match principal {
            Principal::Broker => true,
            Principal::Anonymous => self.anonymous,
            Principal::Platform(_) => false,
            Principal::Device(identity) => {
                let (product, device) = (&*identity.product, &*identity.device);
                policy::may_subscribe(product, device, filter.as_str(), || self.registry.allowed(product))
            }
            Principal::User(user) => self.people.user_may_subscribe(user, filter.as_str()),
            Principal::Service(service) => self.people.service_may_subscribe(service, filter.as_str()),
        }
    }

    fn may_receive(&self, principal: &Principal, topic: TopicName<'_>) -> bool {
        match principal {
            Principal::User(user) => self.people.user_may_receive(user, topic.as_str()),
            _ => self.may_subscribe(principal, TopicFilter::from_validated(topic.as_str())),
        }
    }

    fn is_gone(&self, principal: &Principal) -> bool {
        match principal {
            Principal::Device(identity) => self.registry.device(&identity.product, &identity.device).is_none(),
            // An app's users come and go with their tokens, known here or not.
            Principal::Anonymous
            | Principal::Broker
            | Principal::User(_)
            | Principal::Service(_)
            | Principal::Platform(_) => false,
        }
    }

    fn seals(&self, principal: &Principal, tls: bool) -> bool {
        match principal {
            Principal::Device(identity) => {
                let payloads = self.registry.payloads(&identity.product);
                payloads.is_some_and(|payloads| payloads.cipher(tls).is_some())
            }
            Principal::Anonymous
            | Principal::Broker
            | Principal::User(_)
            | Principal::Service(_)
            | Principal::Platform(_) => false,
        }
    }

    fn keep_judged(&self) {
        self.journal.iter().for_each(|journal| journal.keep());
    }

    fn attest(&self, stated: &Stated<'_>, _now: Now) -> Attested {
        self.judge_statement(stated)
    }

    fn still_welcome(&self, principal: &Principal) -> bool {
        match principal {
            Principal::Broker => true,
            Principal::Anonymous => self.anonymous,
            Principal::Platform(_) => false,
            Principal::Device(identity) => {
                let judge = |seen: &Glimpse<'_>| is_met(&identity.means, seen);
                self.registry.look(&identity.product, &identity.device, judge).unwrap_or(false)
            }
            Principal::User(user) => self.people.is_user_welcome(user),
            Principal::Service(service) => self.people.is_service_welcome(service, None),
        }
    }

    fn still_welcome_from(&self, principal: &Principal, peer: Option<std::net::SocketAddr>) -> bool {
        match principal {
            Principal::Service(service) => self.people.is_service_welcome(service, peer.map(|peer| peer.ip())),
            Principal::Broker
            | Principal::Anonymous
            | Principal::Platform(_)
            | Principal::Device(_)
            | Principal::User(_) => self.still_welcome(principal),
        }
    }

    fn has_feed(&self, principal: &Principal) -> bool {
        match principal {
            Principal::Device(identity) => self.people.has_feed(&identity.product, &identity.device),
            Principal::Broker
            | Principal::Anonymous
            | Principal::Platform(_)
            | Principal::User(_)
            | Principal::Service(_) => false,
        }
    }

    fn feed(&self, principal: &Principal, topic: TopicName<'_>, feed: &mut Feed) {
        if let Principal::Device(identity) = principal {
            let add = |app: &str, user: &str| feed.add(format_args!("{app}:{user}"), topic);
            self.people.feed(&identity.product, &identity.device, topic.as_str(), add);
        }
    }

    fn handling(&self, device: &DeviceIdentity, topic: TopicName<'_>) -> Handling {
        self.desks.handling(device, topic.as_str())
    }

    fn controlled(&self, service: &Principal, topic: TopicName<'_>, now: Now) {
        if let Some(witness) = &self.witness
            && let Some(device) = addressed(topic.as_str())
        {
            witness.controlled(service, &device, now);
        }
    }

    fn passed(&self, visit: &Visit<'_>, passage: Passage, now: Now) {
        if let Some(witness) = &self.witness {
            witness.passed(visit, passage, now);
        }
    }
}

#[cfg(test)]
mod tests;
