//! The gate: log-in of devices, and what they may do then.
//!
//! | what is wrong | MQTT 5 | MQTT 3 |
//! |---|---|---|
//! | no credentials, of no known format, unknown product or device, wrong signature, stale timestamp, nonce used before | 0x86 | 4 |
//! | right credentials of a disabled device or product, or of a profile that the product doesn't take | 0x87 | 5 |
//! | an authentication method other than `HMAC-SHA256` (MQTT 5, 4.12) | 0x8C | – |
//! | right credentials, and no room to remember their nonce | 0x97 | 3 |
//! | the device's secret doesn't open: another master key, a damaged record | 0x88 | 3 |
//!
//! The client hears no more than that; [`Refusal`] says the rest to metrics. A stranger can't tell an unknown device from a wrong
//! password: the code is the same, and an unknown device costs the same work, done on a decoy. The last line is the exception; a
//! shell that asks [`Gatekeeper::check_key`] before it opens its listeners leaves damaged records as its only cause.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use turnpike_core::clock::Now;
use turnpike_core::gate::{Attempt, ChallengeState, DeviceIdentity, Gate, Passage, Principal, Verdict, Visit};
use turnpike_mqtt::{TopicFilter, TopicName};

use crate::nonce::{Nonces, Use, WINDOW_MS};
use crate::policy;
use crate::profile::{self, Claim, Profile};
use crate::refusal::Refusal;
use crate::registry::{Found, Registry, owner};
use crate::secret::{MasterKey, SealError, Sealed, Secret};

/// Whom the decoy is sealed for; no record has such a key.
const DECOY: &str = "decoy";

/// The one method of enhanced authentication.
pub const METHOD: &str = "HMAC-SHA256";

/// Judges CONNECTs against the registry, and topics against the policy.
#[derive(Debug)]
pub struct Gatekeeper {
    registry: Arc<Registry>,
    key: MasterKey,
    nonces: Nonces,
    /// Lets everybody in, and do everything.
    anonymous: bool,
    /// What an unknown device is checked against, so that it costs what a known one costs.
    decoy: Sealed,
    /// In the order of [`Refusal::ALL`].
    refusals: [AtomicU64; Refusal::ALL.len()],
    /// Hears of each log-in, if there is one.
    witness: Option<Box<dyn Witness>>,
}

/// Who hears of log-ins: the audit. Called by the shards' threads: it must not wait.
pub trait Witness: Send + Sync + std::fmt::Debug {
    /// What became of a client.
    fn passed(&self, visit: &Visit<'_>, passage: Passage, now: Now);
}

impl Gatekeeper {
    /// A gate for the devices of a registry. `nonces_max`: how many used nonces are remembered in twenty minutes
    /// ([`Nonces::new`]); with fewer than there are log-ins of the profile `native`, the rest are told to come back.
    #[must_use]
    pub fn new(registry: Arc<Registry>, key: MasterKey, nonces_max: usize) -> Self {
        // This nonce isn't random, and needn't be: the decoy is no secret and never leaves.
        let decoy = key.seal(DECOY, &Secret::generate([0; 16]), [0; 12]);
        Self {
            registry,
            key,
            nonces: Nonces::new(nonces_max),
            anonymous: false,
            decoy,
            refusals: std::array::from_fn(|_| AtomicU64::new(0)),
            witness: None,
        }
    }

    /// The same gate, and somebody who hears of each log-in.
    #[must_use]
    pub fn witnessed_by(self, witness: Box<dyn Witness>) -> Self {
        Self { witness: Some(witness), ..self }
    }

    /// The same gate, open to everybody: for conformance suites and benchmarks on loopback.
    #[must_use]
    pub fn open_to_all(self) -> Self {
        Self { anonymous: true, ..self }
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
        let Some((product, name, device)) = self.registry.any_device() else { return Ok(()) };
        self.key.open(&owner(product.as_str(), name.as_str()), &device.secret).map(drop)
    }

    /// Finds a device whose secret passes `proof`. An unknown device is put to the proof too, with the decoy.
    fn prove(&self, product: &str, device: &str, proof: impl Fn(&Secret) -> bool) -> Result<Found, Refusal> {
        let Some(found) = self.registry.find(product, device) else {
            if let Ok(decoy) = self.key.open(DECOY, &self.decoy) {
                std::hint::black_box(proof(&decoy));
            }
            let known = self.registry.product(product).is_some();
            return Err(if known { Refusal::UnknownDevice } else { Refusal::UnknownProduct });
        };
        let secret = self.key.open(&owner(product, device), &found.device.secret).map_err(|_| Refusal::SecretSealed)?;
        if proof(&secret) { Ok(found) } else { Err(Refusal::WrongSignature) }
    }

    fn log_in(&self, claim: &Claim<'_>, now: Now) -> Result<Principal, Refusal> {
        if let Claim::Native { timestamp_ms, .. } = claim
            && timestamp_ms.abs_diff(now.unix_ms) > WINDOW_MS
        {
            return Err(Refusal::StaleTimestamp);
        }
        let (product, device) = claim.identity();
        let found = self.prove(product, device, |secret| claim.is_signed_by(secret))?;
        // After the signature: a stranger must not use up a device's nonces, nor the room for them.
        if let Claim::Native { nonce, .. } = claim {
            match self.nonces.take(product, device, nonce, now.mono_ms) {
                Use::First => {}
                Use::Again => return Err(Refusal::NonceReused),
                Use::Full => return Err(Refusal::NoncesFull),
            }
        }
        admit(product, device, &found, claim.profile())
    }

    fn answer(&self, client_id: &str, state: &ChallengeState, data: &[u8]) -> Result<Principal, Refusal> {
        let (product, device) = state.claim.split_once('/').ok_or(Refusal::Malformed)?;
        let proof = |secret: &Secret| profile::answers(secret, client_id, product, device, &state.data, data);
        let found = self.prove(product, device, proof)?;
        admit(product, device, &found, Profile::Native)
    }

    fn verdict(&self, result: Result<Principal, Refusal>) -> Verdict {
        match result {
            Ok(principal) => Verdict::Granted { principal, data: None },
            Err(refusal) => self.refuse(refusal),
        }
    }
}

/// Whether a device that has proved who it is comes in.
fn admit(product_key: &str, name: &str, found: &Found, profile: Profile) -> Result<Principal, Refusal> {
    if !found.product.enabled || !found.device.enabled {
        return Err(Refusal::Disabled);
    }
    if !found.profiles.contains(profile) {
        return Err(Refusal::ProfileNotAllowed);
    }
    Ok(principal(product_key, name))
}

fn principal(product: &str, device: &str) -> Principal {
    Principal::Device(Arc::new(DeviceIdentity { product: product.into(), device: device.into() }))
}

impl Gate for Gatekeeper {
    fn authenticate(&self, attempt: &Attempt<'_>, now: Now, random: [u8; 32]) -> Verdict {
        if self.anonymous {
            return match attempt.enhanced {
                Some(_) => self.refuse(Refusal::BadMethod),
                None => Verdict::Granted { principal: Principal::Anonymous, data: None },
            };
        }
        if let Some((method, _)) = attempt.enhanced {
            if method != METHOD {
                return self.refuse(Refusal::BadMethod);
            }
            let Some(user_name) = attempt.user_name else { return self.refuse(Refusal::NoCredentials) };
            let state = ChallengeState { method: method.into(), data: random.to_vec(), claim: user_name.into() };
            return Verdict::Challenge { data: random.to_vec(), state: Box::new(state) };
        }
        let (Some(user_name), Some(password)) = (attempt.user_name, attempt.password) else {
            return self.refuse(Refusal::NoCredentials);
        };
        let Some(claim) = Claim::parse(attempt.client_id, user_name, password) else {
            return self.refuse(Refusal::Malformed);
        };
        self.verdict(self.log_in(&claim, now))
    }

    fn proceed(&self, attempt: &Attempt<'_>, state: &ChallengeState, data: &[u8], _now: Now) -> Verdict {
        self.verdict(self.answer(attempt.client_id, state, data))
    }

    fn may_publish(&self, principal: &Principal, topic: TopicName<'_>) -> bool {
        match principal {
            Principal::Broker => true,
            Principal::Anonymous => self.anonymous,
            Principal::Device(identity) => policy::may_publish(&identity.product, &identity.device, topic.as_str()),
        }
    }

    fn may_subscribe(&self, principal: &Principal, filter: TopicFilter<'_>) -> bool {
        match principal {
            Principal::Broker => true,
            Principal::Anonymous => self.anonymous,
            Principal::Device(identity) => policy::may_subscribe(&identity.product, &identity.device, filter.as_str()),
        }
    }

    fn still_welcome(&self, principal: &Principal) -> bool {
        match principal {
            Principal::Broker => true,
            Principal::Anonymous => self.anonymous,
            Principal::Device(identity) => self.registry.is_enabled(&identity.product, &identity.device),
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
