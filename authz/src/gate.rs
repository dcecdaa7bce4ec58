//! The gate: log-in of devices, and what they may do then. By secret here, by key and certificate in `login`.
//!
//! | what is wrong | MQTT 5 | MQTT 3 |
//! |---|---|---|
//! | no credentials, of no known format, unknown product or device, wrong signature, stale timestamp, nonce used before, another's certificate | 0x86 | 4 |
//! | right credentials of a disabled device or product, or of a profile that the product doesn't take | 0x87 | 5 |
//! | right credentials, and what the product demands besides isn't met: TLS, a certificate, a longer key; a certificate out of its time | 0x87 | 5 |
//! | an authentication method other than those of [`crate::keys::Method`] (MQTT 5, 4.12) | 0x8C | – |
//! | right credentials, and no room to remember their nonce | 0x97 | 3 |
//! | the device's secret doesn't open: another master key, a damaged record | 0x88 | 3 |
//!
//! The client hears no more than that; [`Refusal`] says the rest to metrics. A stranger can't tell an unknown device from a wrong
//! password: the code is the same, and an unknown device costs the same work, done on a decoy. The last line is the exception; a
//! shell that asks [`Gatekeeper::check_key`] before it opens its listeners leaves damaged records as its only cause.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use turnpike_core::clock::Now;
use turnpike_core::gate::{Admission, Attempt, ChallengeState, DeviceIdentity, Gate, Principal, Verdict};
use turnpike_mqtt::{TopicFilter, TopicName};

use crate::keys::{Method, Signed};
use crate::nonce::{Nonces, Use, WINDOW_MS};
use crate::policy;
use crate::profile::{self, Claim, Profile};
use crate::refusal::Refusal;
use crate::registry::{Found, Registry, owner};
use crate::secret::{MasterKey, SealError, Sealed, Secret};

mod login;

/// Whom the decoy is sealed for; no record has such a key.
const DECOY: &str = "decoy";

/// The method of enhanced authentication by a secret; [`crate::keys::Method`] has the others.
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
        }
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
        Verdict::Refused(refusal.reason())
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
        if found.device.secret.is_none() {
            // It has a key instead, which must show no more than that there is no such device.
            if let Ok(decoy) = self.key.open(DECOY, &self.decoy) {
                std::hint::black_box(proof(&decoy));
            }
            return Err(Refusal::WrongSignature);
        }
        let secret = self.key.open(&owner(product, device), &found.device.secret).map_err(|_| Refusal::SecretSealed)?;
        if proof(&secret) { Ok(found) } else { Err(Refusal::WrongSignature) }
    }

    fn log_in(&self, claim: &Claim<'_>, attempt: &Attempt<'_>, now: Now) -> Result<Admission, Refusal> {
        if let Claim::Native { timestamp_ms, .. } = claim {
            check_fresh(*timestamp_ms, now)?;
        }
        let (product, device) = claim.identity();
        let found = self.prove(product, device, |secret| claim.is_signed_by(secret))?;
        // After the signature: a stranger must not use up a device's nonces, nor the room for them.
        if let Claim::Native { nonce, .. } = claim {
            self.take_nonce(product, device, nonce, now)?;
        }
        admit((product, device), &found, claim.profile(), attempt, now)
    }

    fn take_nonce(&self, product: &str, device: &str, nonce: &str, now: Now) -> Result<(), Refusal> {
        match self.nonces.take(product, device, nonce, now.mono_ms) {
            Use::First => Ok(()),
            Use::Again => Err(Refusal::NonceReused),
            Use::Full => Err(Refusal::NoncesFull),
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
        let proof = |secret: &Secret| profile::answers(secret, attempt.client_id, product, device, &state.data, data);
        let found = self.prove(product, device, proof)?;
        admit((product, device), &found, Profile::Native, attempt, now)
    }

    fn verdict(&self, result: Result<Admission, Refusal>) -> Verdict {
        match result {
            Ok(admission) => Verdict::Granted(admission),
            Err(refusal) => self.refuse(refusal),
        }
    }
}

fn check_fresh(timestamp_ms: u64, now: Now) -> Result<(), Refusal> {
    if timestamp_ms.abs_diff(now.unix_ms) > WINDOW_MS { Err(Refusal::StaleTimestamp) } else { Ok(()) }
}

/// Whether a device that has proved who it is comes in, and on what terms.
fn admit(
    (product, device): (&str, &str),
    found: &Found,
    profile: Profile,
    attempt: &Attempt<'_>,
    now: Now,
) -> Result<Admission, Refusal> {
    if !found.product.enabled || !found.device.enabled {
        return Err(Refusal::Disabled);
    }
    if !found.profiles.contains(profile) {
        return Err(Refusal::ProfileNotAllowed);
    }
    let until_ms = login::check_demands((product, device), found, attempt, now)?;
    Ok(Admission { until_ms, ..Admission::new(principal(product, device)) })
}

fn principal(product: &str, device: &str) -> Principal {
    Principal::Device(Arc::new(DeviceIdentity { product: product.into(), device: device.into() }))
}

impl Gate for Gatekeeper {
    fn authenticate(&self, attempt: &Attempt<'_>, now: Now, random: [u8; 32]) -> Verdict {
        if self.anonymous {
            return match attempt.enhanced {
                Some(_) => self.refuse(Refusal::BadMethod),
                None => Verdict::Granted(Admission::new(Principal::Anonymous)),
            };
        }
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
            return self.verdict(self.log_in_by_certificate(attempt, now));
        }
        let (Some(user_name), Some(password)) = (attempt.user_name, attempt.password) else {
            return self.refuse(Refusal::NoCredentials);
        };
        if let Some(signed) = Signed::parse(attempt.client_id, user_name, password) {
            let signed = signed.ok_or(Refusal::Malformed);
            return self.verdict(signed.and_then(|signed| self.log_in_signed(&signed, attempt, now)));
        }
        let Some(claim) = Claim::parse(attempt.client_id, user_name, password) else {
            return self.refuse(Refusal::Malformed);
        };
        self.verdict(self.log_in(&claim, attempt, now))
    }

    fn proceed(&self, attempt: &Attempt<'_>, state: &ChallengeState, data: &[u8], now: Now) -> Verdict {
        self.verdict(self.answer(attempt, state, data, now))
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
}

#[cfg(test)]
mod tests;
