//! Log-in by private key and by certificate, and what a product demands of either.

use turnpike_core::clock::Now;
use turnpike_core::gate::{Admission, Attempt};

use super::Gatekeeper;
use super::means::{Binding, By, Proven};
use crate::keys::{Method, PublicKey, Signed, answer_bytes, signer};
use crate::nonce::WINDOW_MS;
use crate::profile::Profile;
use crate::refusal::Refusal;
use crate::registry::{Found, Registry};
use crate::signed::challenge_text;
use crate::x509::Leaf;

/// Product and device.
pub(super) type Identity<'a> = (&'a str, &'a str);

impl Gatekeeper {
    pub(super) fn log_in_signed(
        &self,
        signed: &Signed<'_>,
        attempt: &Attempt<'_>,
        now: Now,
    ) -> Result<Admission, Refusal> {
        if signed.timestamp_ms.abs_diff(now.unix_ms) > WINDOW_MS {
            return Err(Refusal::StaleTimestamp);
        }
        let identity = (signed.product, signed.device);
        let (found, key) = self.prove_signed(identity, |_| true, &signed.text(), &signed.signature)?;
        // After the signature, as with a secret.
        self.take_nonce(identity, signed.nonce, signed.timestamp_ms.saturating_add(WINDOW_MS), now)?;
        admit_key(identity, &found, &key, attempt, now)
    }

    pub(super) fn answer_signed(
        &self,
        identity: Identity<'_>,
        method: Method,
        attempt: &Attempt<'_>,
        (challenge, answer): (&[u8], &[u8]),
        now: Now,
    ) -> Result<Admission, Refusal> {
        let text = challenge_text(attempt.client_id, identity.0, identity.1, challenge);
        let (found, key) = self.prove_signed(identity, |key| method.takes(key.kind()), &text, &answer_bytes(answer))?;
        admit_key(identity, &found, &key, attempt, now)
    }

    /// Finds a device one of whose keys signed the text, and the key. Whoever is unknown, or has no such key, costs as much.
    fn prove_signed(
        &self,
        (product, device): Identity<'_>,
        takes: impl Fn(&PublicKey) -> bool,
        text: &str,
        signature: &[u8],
    ) -> Result<(Found, PublicKey), Refusal> {
        let found = self.registry.find(product, device);
        let proofs = found.as_ref().and_then(|found| found.proofs.as_ref());
        let keys = proofs.into_iter().flat_map(|proofs| proofs.keys()).filter(|key| takes(key));
        let key = signer(keys, text.as_bytes(), signature).cloned();
        let found = found.ok_or_else(|| unknown(&self.registry, product))?;
        Ok((found, key.ok_or(Refusal::WrongSignature)?))
    }

    /// A certificate alone: the user name says whose it is, or the certificate does.
    pub(super) fn log_in_by_certificate(&self, attempt: &Attempt<'_>, now: Now) -> Result<Admission, Refusal> {
        let leaf = attempt.certificate.and_then(Leaf::read).ok_or(Refusal::WrongCertificate)?;
        let registered;
        let (product, device) = match attempt.user_name.filter(|name| !name.is_empty()) {
            Some(user_name) => user_name.split_once('/').ok_or(Refusal::Malformed)?,
            None => {
                registered = self.registry.certificate_owner(&leaf.fingerprint);
                let registered = registered.as_ref().map(|(product, device)| (product.as_str(), device.as_str()));
                registered.or_else(|| leaf.whose()).ok_or(Refusal::WrongCertificate)?
            }
        };
        let found = self.registry.find(product, device).ok_or_else(|| unknown(&self.registry, product))?;
        // Before anything is said of the device, which may be disabled.
        let binding = binding((product, device), &found, &leaf, attempt, now).ok_or(Refusal::WrongCertificate)?;
        let by = By::Certificate(binding);
        let proven = Proven { identity: (product, device), found: &found, profile: Profile::Native, by };
        let admission = proven.admit(attempt, now)?;
        Ok(Admission { until_ms: Some(good_until(&leaf, now)?), ..admission })
    }
}

fn unknown(registry: &Registry, product: &str) -> Refusal {
    if registry.product(product).is_some() { Refusal::UnknownDevice } else { Refusal::UnknownProduct }
}

fn admit_key(
    identity: Identity<'_>,
    found: &Found,
    key: &PublicKey,
    attempt: &Attempt<'_>,
    now: Now,
) -> Result<Admission, Refusal> {
    if key.kind().is_legacy() && !found.policy.allow_rsa_1024 {
        return Err(Refusal::WeakKey);
    }
    Proven { identity, found, profile: Profile::Native, by: By::Key(key.fingerprint()) }.admit(attempt, now)
}

/// What the product demands beside the proof. Gives back when a certificate that it demands ends, and why it is the device's.
pub(super) fn check_demands(
    identity: Identity<'_>,
    found: &Found,
    attempt: &Attempt<'_>,
    now: Now,
) -> Result<Option<(u64, Binding)>, Refusal> {
    if found.policy.require_tls && !attempt.tls {
        return Err(Refusal::TlsRequired);
    }
    if !found.policy.require_certificate {
        return Ok(None);
    }
    let der = attempt.certificate.ok_or(Refusal::CertificateRequired)?;
    let leaf = Leaf::read(der).ok_or(Refusal::WrongCertificate)?;
    let binding = binding(identity, found, &leaf, attempt, now).ok_or(Refusal::WrongCertificate)?;
    Ok(Some((good_until(&leaf, now)?, binding)))
}

/// Why the certificate is the device's, if it is: registered for it, or issued to it by an authority of the product.
fn binding(
    (product, device): Identity<'_>,
    found: &Found,
    leaf: &Leaf,
    attempt: &Attempt<'_>,
    now: Now,
) -> Option<Binding> {
    let mut registered = found.proofs.iter().flat_map(|proofs| proofs.certificates());
    if registered.any(|fingerprint| fingerprint == leaf.fingerprint) {
        return Some(Binding::Registered(leaf.fingerprint));
    }
    let (der, authorities) = attempt.certificate.zip(found.authorities.as_ref())?;
    let issuer = if leaf.names(product, device) { authorities.issuer(der, now.unix_ms) } else { None };
    issuer.map(Binding::Issued)
}

fn good_until(leaf: &Leaf, now: Now) -> Result<u64, Refusal> {
    if leaf.is_good_at(now.unix_ms) { Ok(leaf.not_after_ms) } else { Err(Refusal::CertificateExpired) }
}

#[cfg(test)]
pub(super) mod tests;
