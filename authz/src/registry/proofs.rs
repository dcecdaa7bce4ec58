//! Public keys, certificates and what a product says of them: separate from devices and products, since few have any.

use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire};

use crate::attest::Expectation;
use crate::cipher::PayloadPolicy;
use crate::keys::Proofs;
use crate::names::{DeviceName, ProductKey};
use crate::plan::Change;
use crate::product::ProductPolicy;
use crate::registry::{Entry, Registry};
use crate::verifier::VerifierName;
use crate::x509::{Authorities, Fingerprint};

impl Registry {
    /// Public keys and certificates of a device.
    #[must_use]
    pub fn proofs(&self, product: &str, name: &str) -> Option<Arc<Proofs>> {
        self.find(product, name)?.proofs
    }

    /// What a product demands of log-ins.
    #[must_use]
    pub fn policy(&self, product: &str) -> Option<ProductPolicy> {
        self.live(product).map(|(entry, _)| entry.head.read().policy)
    }

    /// What a product does with payloads.
    #[must_use]
    pub fn payloads(&self, product: &str) -> Option<PayloadPolicy> {
        self.live(product).map(|(entry, _)| entry.head.read().payloads)
    }

    /// The CA certificates of a product, if it has any.
    #[must_use]
    pub fn authorities(&self, product: &str) -> Option<Arc<Authorities>> {
        self.live(product).and_then(|(entry, _)| entry.authorities.read().clone())
    }

    /// The device that has a certificate of that fingerprint.
    #[must_use]
    pub fn certificate_owner(&self, fingerprint: &Fingerprint) -> Option<(ProductKey, DeviceName)> {
        self.certificates.read().get(fingerprint).cloned()
    }

    /// Who judges a product's devices, if it isn't the broker.
    #[must_use]
    pub fn verifier(&self, product: &str) -> Option<VerifierName> {
        if !self.has_verifiers() {
            return None;
        }
        self.live(product).and_then(|(entry, _)| entry.verifier.read().clone())
    }

    /// Whether any product names a verifier.
    #[must_use]
    pub fn has_verifiers(&self) -> bool {
        self.verified.load(Acquire) > 0
    }

    pub(super) fn set_verifier(&self, key: &ProductKey, verifier: Option<VerifierName>) {
        let entry = self.entry_or_new(key.clone());
        {
            let mut held = entry.verifier.write();
            // Counted before it holds and after it doesn't any more: who sees no verifiers misses none.
            match (held.is_some(), verifier.is_some()) {
                (false, true) => drop(self.verified.fetch_add(1, AcqRel)),
                (true, false) => drop(self.verified.fetch_sub(1, AcqRel)),
                _ => {}
            }
            *held = verifier;
        }
        self.forget_if_empty(key, &entry);
    }

    pub(super) fn set_proofs(&self, product: ProductKey, name: DeviceName, proofs: Option<Arc<Proofs>>) {
        let entry = self.entry_or_new(product.clone());
        let before = match proofs.clone() {
            Some(proofs) => entry.proofs.write().insert(name.clone(), proofs),
            None => entry.proofs.write().remove(&name),
        };
        self.forget_if_empty(&product, &entry);
        let listed = |proofs: Option<Arc<Proofs>>| proofs.map_or(Vec::new(), |proofs| proofs.certificates().collect());
        let (gone, come) = (listed(before), listed(proofs));
        if gone.is_empty() && come.is_empty() {
            return;
        }
        let owner = (product, name);
        let mut certificates = self.certificates.write();
        for fingerprint in gone {
            if certificates.get(&fingerprint) == Some(&owner) {
                certificates.remove(&fingerprint);
            }
        }
        for fingerprint in come {
            certificates.insert(fingerprint, owner.clone());
        }
    }

    /// What a device is expected to state of itself.
    #[must_use]
    pub fn expectation(&self, product: &str, name: &str) -> Option<Arc<Expectation>> {
        self.live(product).and_then(|(entry, _)| entry.expectations.read().get(name).cloned())
    }

    pub(super) fn set_expectation(&self, product: &ProductKey, name: DeviceName, expected: Option<Arc<Expectation>>) {
        let entry = self.entry_or_new(product.clone());
        match expected {
            Some(expected) => drop(entry.expectations.write().insert(name, expected)),
            None => drop(entry.expectations.write().remove(&name)),
        }
        self.forget_if_empty(product, &entry);
    }

    /// What removes what was expected of a deleted product's devices.
    pub(crate) fn left_expectations(&self, product: &ProductKey, limit: usize) -> Vec<Change> {
        let Some(entry) = self.swept(product) else { return Vec::new() };
        let expected = entry.expectations.read();
        expected.keys().take(limit).map(|name| Change::SetExpectation(product.clone(), name.clone(), None)).collect()
    }

    /// What removes the proofs of a deleted product's devices.
    pub(crate) fn left_proofs(&self, product: &ProductKey, limit: usize) -> Vec<Change> {
        let Some(entry) = self.swept(product) else { return Vec::new() };
        let proofs = entry.proofs.read();
        proofs.keys().take(limit).map(|name| Change::SetProofs(product.clone(), name.clone(), None)).collect()
    }

    /// What removes a deleted product's demands, what it does with payloads, and authorities.
    pub(crate) fn left_settings(&self, product: &ProductKey) -> Vec<Change> {
        let Some(entry) = self.swept(product) else { return Vec::new() };
        let policy = entry.head.read().policy != ProductPolicy::default();
        let policy = policy.then(|| Change::SetPolicy(product.clone(), ProductPolicy::default()));
        let payloads = entry.head.read().payloads != PayloadPolicy::Plain;
        let payloads = payloads.then(|| Change::SetPayloads(product.clone(), PayloadPolicy::Plain));
        let authorities = entry.authorities.read().is_some().then(|| Change::SetAuthorities(product.clone(), None));
        let verifier = entry.verifier.read().is_some().then(|| Change::SetVerifier(product.clone(), None));
        policy.into_iter().chain(payloads).chain(authorities).chain(verifier).collect()
    }

    pub(super) fn swept(&self, product: &ProductKey) -> Option<Arc<Entry>> {
        self.entry(product.as_str()).filter(|entry| entry.head.read().product.is_none())
    }
}
