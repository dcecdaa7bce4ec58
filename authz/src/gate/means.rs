//! How a device has come in: kept with its session, so that a session can be judged again by what let it in.
//!
//! | what changes | whose sessions are closed |
//! |---|---|
//! | a device or its product is disabled or deleted | all |
//! | a product takes a log-in format no more | those that came in by it |
//! | a device's secret is taken away (not: replaced) | those that came in by it |
//! | a public key or a certificate is taken away, an authority, RSA of 1024 bits | those that came in by it |
//! | a product's devices are judged by another verifier, or by the broker again | those that a verifier let in |
//! | a product demands TLS | those without |
//! | a product demands certificates | those that had to show none, even if they did |

use std::sync::Arc;

use turnpike_core::clock::Now;
use turnpike_core::gate::{Admission, Attempt, DeviceIdentity, Means, Principal};

use super::login::{self, Identity};
use crate::keys::PublicKey;
use crate::profile::{Profile, ProfileSet};
use crate::refusal::Refusal;
use crate::registry::{Found, Glimpse};
use crate::verifier::VerifierName;
use crate::x509::Fingerprint;

const KNOWN: u32 = 1;
const TLS: u32 = 1 << 1;
const SECRET: u32 = 1 << 2;
const KEY: u32 = 1 << 3;
const REGISTERED: u32 = 1 << 4;
const ISSUED: u32 = 1 << 5;
const VERIFIED: u32 = 1 << 6;
/// Above it is the profile's bit.
const PROFILE_SHIFT: u32 = 16;

/// By what a device has proved who it is.
#[derive(Clone, Copy)]
pub(super) enum By {
    Secret,
    /// The private key of this public one.
    Key(Fingerprint),
    Certificate(Binding),
    /// Its product's verifier knows it, which goes by the name of this fingerprint ([`verifier_print`]).
    Verifier(Fingerprint),
}

/// Why a certificate is a device's.
#[derive(Clone, Copy)]
pub(super) enum Binding {
    /// It is registered for the device.
    Registered(Fingerprint),
    /// It names the device, and this authority of the product has issued it.
    Issued(Fingerprint),
}

/// A device that has proved who it is.
pub(super) struct Proven<'a> {
    pub(super) identity: Identity<'a>,
    pub(super) found: &'a Found,
    /// The format of its credentials; of no account where a verifier has judged.
    pub(super) profile: Profile,
    pub(super) by: By,
}

impl Proven<'_> {
    /// Whether it comes in, and on what terms.
    pub(super) fn admit(&self, attempt: &Attempt<'_>, now: Now) -> Result<Admission, Refusal> {
        if !self.found.product.enabled || !self.found.device.enabled {
            return Err(Refusal::Disabled);
        }
        if !matches!(self.by, By::Verifier(_)) && !self.found.profiles.contains(self.profile) {
            return Err(Refusal::ProfileNotAllowed);
        }
        let demanded = login::check_demands(self.identity, self.found, attempt, now)?;
        let (until_ms, binding) = demanded.unzip();
        let (product, device) = self.identity;
        let means = self.means(attempt.tls, binding);
        let identity = DeviceIdentity { product: product.into(), device: device.into(), means };
        Ok(Admission { until_ms, ..Admission::new(Principal::Device(Arc::new(identity))) })
    }

    fn means(&self, tls: bool, demanded: Option<Binding>) -> Means {
        let mut flags = KNOWN | (self.profile as u32) << PROFILE_SHIFT;
        flags |= if tls { TLS } else { 0 };
        let mut marks = [None; 2];
        let binding = match self.by {
            By::Secret => {
                flags |= SECRET;
                demanded
            }
            By::Key(key) => {
                flags |= KEY;
                marks[0] = Some(mark(&key));
                demanded
            }
            By::Certificate(binding) => Some(binding),
            By::Verifier(name) => {
                flags |= VERIFIED;
                marks[0] = Some(mark(&name));
                demanded
            }
        };
        match binding {
            Some(Binding::Registered(certificate)) => {
                flags |= REGISTERED;
                marks[1] = Some(mark(&certificate));
            }
            Some(Binding::Issued(authority)) => {
                flags |= ISSUED;
                marks[1] = Some(mark(&authority));
            }
            None => {}
        }
        let is_marked = marks.iter().any(Option::is_some);
        Means { flags, marks: is_marked.then(|| Box::new(marks.map(Option::unwrap_or_default))) }
    }
}

/// What a verifier's name is known by.
pub(super) fn verifier_print(name: &VerifierName) -> Fingerprint {
    Fingerprint::of(name.as_str().as_bytes())
}

/// Enough to tell a device's few keys from each other; they are no stranger's choice.
fn mark(fingerprint: &Fingerprint) -> u64 {
    u64::from_be_bytes(*fingerprint.as_bytes().first_chunk().expect("8 of 32 bytes"))
}

/// Whether what let a device in would let it in now.
pub(super) fn is_met(means: &Means, seen: &Glimpse<'_>) -> bool {
    if !seen.product.enabled || !seen.device.enabled {
        return false;
    }
    let has = |flag: u32| means.flags & flag != 0;
    if !has(KNOWN) {
        return true;
    }
    let [key_mark, certificate_mark] = means.marks.as_deref().copied().unwrap_or_default();
    let is_the_key = |key: &PublicKey| {
        mark(&key.fingerprint()) == key_mark && (seen.policy.allow_rsa_1024 || !key.kind().is_legacy())
    };
    let is_registered = || {
        let mut certificates = seen.proofs.iter().flat_map(|proofs| proofs.certificates());
        has(REGISTERED) && certificates.any(|certificate| mark(&certificate) == certificate_mark)
    };
    let is_issued = || {
        let mut authorities = seen.authorities.iter().flat_map(|authorities| authorities.iter());
        has(ISSUED) && authorities.any(|der| mark(&Fingerprint::of(der)) == certificate_mark)
    };
    let is_verified = || seen.verifier.is_some_and(|name| mark(&verifier_print(name)) == key_mark);
    let needs_certificate = seen.policy.require_certificate || !(has(SECRET) || has(KEY) || has(VERIFIED));
    (if has(VERIFIED) { is_verified() } else { takes(seen.profiles, means) })
        && (has(TLS) || !seen.policy.require_tls)
        && (!has(SECRET) || !seen.device.secret.is_none())
        && (!has(KEY) || seen.proofs.iter().flat_map(|proofs| proofs.keys()).any(is_the_key))
        && (!needs_certificate || is_registered() || is_issued())
}

fn takes(profiles: ProfileSet, means: &Means) -> bool {
    u32::from(profiles.bits()) & (means.flags >> PROFILE_SHIFT) != 0
}

#[cfg(test)]
mod tests;
