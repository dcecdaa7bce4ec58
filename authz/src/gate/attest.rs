//! What a device states of itself, held against what is expected of it ([`crate::attest`]).

use std::sync::atomic::Ordering::Relaxed;

use turnpike_core::gate::{Attested, DeviceIdentity, Principal, Stated};

use super::Gatekeeper;
use crate::attest::Statement;
use crate::refusal::Refusal;

impl Gatekeeper {
    pub(super) fn judge_statement(&self, stated: &Stated<'_>) -> Attested {
        let Principal::Device(identity) = stated.principal else { return Attested::default() };
        let demanded = self.registry.policy(&identity.product).unwrap_or_default().require_attestation;
        let (wrong, refusal) = match self.hold_against(identity, stated) {
            Held::Met => (false, None),
            Held::Nothing => (false, demanded.then_some(Refusal::AttestationMissing)),
            Held::Wrong => (true, demanded.then_some(Refusal::AttestationMismatch)),
            // That the broker can't tell is nothing against the device; but nobody comes in untold where it matters.
            Held::Unknown => (false, demanded.then_some(Refusal::SecretSealed)),
        };
        if let Some(count) = refusal.and_then(|refusal| self.refusals.get(refusal as usize)) {
            count.fetch_add(1, Relaxed);
        }
        Attested { wrong, refused: refusal.map(|refusal| (refusal.reason(), refusal.label())) }
    }

    fn hold_against(&self, identity: &DeviceIdentity, stated: &Stated<'_>) -> Held {
        let device = (&*identity.product, &*identity.device);
        let Some(expectation) = self.registry.expectation(device.0, device.1) else { return Held::Nothing };
        let Some(statement) = Statement::of(stated.user_name, &stated.properties) else { return Held::Nothing };
        match expectation.is_met(device, &statement, &self.key) {
            Ok(true) => Held::Met,
            Ok(false) => Held::Wrong,
            Err(_) => Held::Unknown,
        }
    }
}

enum Held {
    Met,
    Wrong,
    /// There is nothing expected, or nothing stated.
    Nothing,
    /// The factor doesn't open.
    Unknown,
}

#[cfg(test)]
mod tests;
