//! The gate: log-in of devices, and what they may do then.
//!
//! | what is wrong | MQTT 5 | MQTT 3 |
//! |---|---|---|
//! | no credentials, of no known format, unknown product or device, wrong signature, stale timestamp, nonce used before | 0x86 | 4 |
//! | right credentials of a disabled device or product | 0x87 | 5 |
//! | an authentication method other than `HMAC-SHA256` | 0x8C | – |
//! | no room to remember a nonce | 0x97 | 3 |
//!
//! The client hears no more than that; [`Refusal`] says the rest to metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use turnpike_core::clock::Now;
use turnpike_core::gate::{Attempt, ChallengeState, DeviceIdentity, Gate, Principal, Verdict};
use turnpike_mqtt::{ConnectReason, TopicFilter, TopicName};

use crate::nonce::{Nonces, Use, WINDOW_MS};
use crate::policy;
use crate::profile::{self, Claim};
use crate::registry::{Registry, owner};
use crate::secret::{MasterKey, Secret};

/// The one method of enhanced authentication.
pub const METHOD: &str = "HMAC-SHA256";

/// Why nobody was let in; a label of a metric.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// No user name or password.
    NoCredentials,
    /// Of no known format.
    Malformed,
    /// The product or the device isn't in the registry.
    Unknown,
    /// The signature is another's.
    WrongSignature,
    /// More than ten minutes from the broker's clock.
    StaleTimestamp,
    /// Used before.
    NonceReused,
    /// No room to remember it.
    NoncesFull,
    /// Right credentials, and disabled.
    Disabled,
    /// A method that isn't offered.
    BadMethod,
    /// The sealed secret doesn't open: the master key is another.
    SecretSealed,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::NoCredentials,
        Self::Malformed,
        Self::Unknown,
        Self::WrongSignature,
        Self::StaleTimestamp,
        Self::NonceReused,
        Self::NoncesFull,
        Self::Disabled,
        Self::BadMethod,
        Self::SecretSealed,
    ];

    /// As a label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::NoCredentials => "no_credentials",
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
            Self::WrongSignature => "wrong_signature",
            Self::StaleTimestamp => "stale_timestamp",
            Self::NonceReused => "nonce_reused",
            Self::NoncesFull => "nonces_full",
            Self::Disabled => "disabled",
            Self::BadMethod => "bad_method",
            Self::SecretSealed => "secret_sealed",
        }
    }

    fn reason(self) -> ConnectReason {
        match self {
            Self::NoCredentials
            | Self::Malformed
            | Self::Unknown
            | Self::WrongSignature
            | Self::StaleTimestamp
            | Self::NonceReused => ConnectReason::BadUserNameOrPassword,
            Self::Disabled => ConnectReason::NotAuthorized,
            Self::BadMethod => ConnectReason::BadAuthenticationMethod,
            Self::NoncesFull => ConnectReason::QuotaExceeded,
            Self::SecretSealed => ConnectReason::ServerUnavailable,
        }
    }
}

/// Judges CONNECTs against the registry, and topics against the policy.
#[derive(Debug)]
pub struct Gatekeeper {
    registry: Arc<Registry>,
    key: MasterKey,
    nonces: Nonces,
    /// Lets everybody in, and do everything.
    anonymous: bool,
    /// What an unknown device is checked against, so that it costs what a known one costs.
    decoy: Secret,
    refusals: [AtomicU64; Refusal::ALL.len()],
}

impl Gatekeeper {
    /// A gate for the devices of a registry. `nonces_max`: how many used nonces are remembered in twenty minutes, about 40 bytes each.
    #[must_use]
    pub fn new(registry: Arc<Registry>, key: MasterKey, nonces_max: usize) -> Self {
        Self {
            registry,
            key,
            nonces: Nonces::new(nonces_max),
            anonymous: false,
            decoy: Secret::generate([0; 16]),
            refusals: Default::default(),
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
        Refusal::ALL.into_iter().zip(self.refusals.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    fn refuse(&self, refusal: Refusal) -> Verdict {
        if let Some(count) = self.refusals.get(refusal as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        Verdict::Refused(refusal.reason())
    }

    /// Whether whoever checks with `proof` knows the device's secret. An unknown device is checked too, against the decoy.
    fn prove(&self, product: &str, device: &str, proof: impl Fn(&Secret) -> bool) -> Result<bool, Refusal> {
        let Some((product_state, entry)) = self.registry.find(product, device) else {
            let owner = owner(product, device);
            let sealed = self.key.seal(&owner, &self.decoy, [0; 12]);
            let _ = self.key.open(&owner, &sealed);
            let _ = proof(&self.decoy);
            return Err(Refusal::Unknown);
        };
        let secret = self.key.open(&owner(product, device), &entry.secret).map_err(|_| Refusal::SecretSealed)?;
        if proof(&secret) { Ok(product_state.enabled && entry.enabled) } else { Err(Refusal::WrongSignature) }
    }

    fn log_in(&self, claim: &Claim<'_>, now: Now) -> Result<Principal, Refusal> {
        if let Claim::Native { timestamp_ms, .. } = claim
            && timestamp_ms.abs_diff(now.unix_ms) > WINDOW_MS
        {
            return Err(Refusal::StaleTimestamp);
        }
        let (product, device) = claim.identity();
        let enabled = self.prove(product, device, |secret| claim.is_signed_by(secret))?;
        // After the signature: a stranger must not use up a device's nonces.
        if let Claim::Native { nonce, .. } = claim {
            match self.nonces.take(product, device, nonce, now.unix_ms) {
                Use::First => {}
                Use::Again => return Err(Refusal::NonceReused),
                Use::Full => return Err(Refusal::NoncesFull),
            }
        }
        if enabled { Ok(principal(product, device)) } else { Err(Refusal::Disabled) }
    }
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
        match self.log_in(&claim, now) {
            Ok(principal) => Verdict::Granted { principal, data: None },
            Err(refusal) => self.refuse(refusal),
        }
    }

    fn proceed(&self, attempt: &Attempt<'_>, state: &ChallengeState, data: &[u8], _now: Now) -> Verdict {
        let Some((product, device)) = state.claim.split_once('/') else { return self.refuse(Refusal::Malformed) };
        let proof = |secret: &Secret| profile::answers(secret, attempt.client_id, product, device, &state.data, data);
        match self.prove(product, device, proof) {
            Ok(true) => Verdict::Granted { principal: principal(product, device), data: None },
            Ok(false) => self.refuse(Refusal::Disabled),
            Err(refusal) => self.refuse(refusal),
        }
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
