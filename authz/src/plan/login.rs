//! Changes of how devices prove who they are.

use std::sync::Arc;

use crate::attest::Expectation;
use crate::cipher::PayloadPolicy;
use crate::keys::Proofs;
use crate::names::{DeviceName, ProductKey};
use crate::plan::{Change, PlanError};
use crate::product::ProductPolicy;
use crate::registry::{Device, Registry};
use crate::secret::Sealed;
use crate::verifier::VerifierName;
use crate::x509::Authorities;

impl Registry {
    /// Says which public keys and certificates a device has, instead of those that it had. Its secret stays.
    ///
    /// # Errors
    /// [`PlanError::NoSuchDevice`], [`PlanError::WeakKey`], [`PlanError::CertificateTaken`].
    pub fn plan_set_device_keys(
        &self,
        product: &ProductKey,
        name: &DeviceName,
        proofs: Option<Proofs>,
    ) -> Result<Change, PlanError> {
        self.device(product.as_str(), name.as_str()).ok_or(PlanError::NoSuchDevice)?;
        if let Some(proofs) = &proofs {
            self.check_proofs(product, name, proofs)?;
        }
        Ok(Change::SetProofs(product.clone(), name.clone(), proofs.map(Arc::new)))
    }

    /// Creates a device that has public keys or certificates, and no secret; or gives these to a device that is there, which keeps its
    /// secret. If `enabled` isn't said, it stays as it is. All of the changes go into one commit. Also says whether the device is new.
    ///
    /// # Errors
    /// [`PlanError::NoSuchProduct`], [`PlanError::NameTaken`], [`PlanError::WeakKey`], [`PlanError::CertificateTaken`].
    pub fn plan_put_keyed_device(
        &self,
        product: &ProductKey,
        name: &DeviceName,
        proofs: Proofs,
        enabled: Option<bool>,
        now_s: u64,
    ) -> Result<(Vec<Change>, bool), PlanError> {
        self.product(product.as_str()).ok_or(PlanError::NoSuchProduct)?;
        self.check_proofs(product, name, &proofs)?;
        let existing = self.device(product.as_str(), name.as_str());
        let is_new = existing.is_none();
        self.check_name(product, name, is_new)?;
        let device = existing.unwrap_or(Device { enabled: true, created_at_s: now_s, secret: Sealed::none() });
        let device = Device { enabled: enabled.unwrap_or(device.enabled), ..device };
        let changes = vec![
            Change::PutDevice(product.clone(), name.clone(), device),
            Change::SetProofs(product.clone(), name.clone(), Some(Arc::new(proofs))),
        ];
        Ok((changes, is_new))
    }

    /// Takes a device's secret away: it logs in by key or certificate from then on, or not at all.
    ///
    /// # Errors
    /// [`PlanError::NoSuchDevice`].
    pub fn plan_drop_secret(&self, product: &ProductKey, name: &DeviceName) -> Result<Change, PlanError> {
        let device = self.device(product.as_str(), name.as_str()).ok_or(PlanError::NoSuchDevice)?;
        Ok(Change::PutDevice(product.clone(), name.clone(), Device { secret: Sealed::none(), ..device }))
    }

    /// Says what a product demands of its devices' log-ins.
    ///
    /// # Errors
    /// [`PlanError::NoSuchProduct`].
    pub fn plan_set_policy(&self, key: &ProductKey, policy: ProductPolicy) -> Result<Change, PlanError> {
        self.product(key.as_str()).ok_or(PlanError::NoSuchProduct)?;
        Ok(Change::SetPolicy(key.clone(), policy))
    }

    /// Says what a product does with its devices' payloads.
    ///
    /// # Errors
    /// [`PlanError::NoSuchProduct`].
    pub fn plan_set_payloads(&self, key: &ProductKey, policy: PayloadPolicy) -> Result<Change, PlanError> {
        self.product(key.as_str()).ok_or(PlanError::NoSuchProduct)?;
        Ok(Change::SetPayloads(key.clone(), policy))
    }

    /// Says who issues the certificates of a product's devices.
    ///
    /// # Errors
    /// [`PlanError::NoSuchProduct`].
    pub fn plan_set_authorities(
        &self,
        key: &ProductKey,
        authorities: Option<Authorities>,
    ) -> Result<Change, PlanError> {
        self.product(key.as_str()).ok_or(PlanError::NoSuchProduct)?;
        Ok(Change::SetAuthorities(key.clone(), authorities.map(Arc::new)))
    }

    /// Says what a device is expected to state of itself; none: nothing.
    ///
    /// # Errors
    /// [`PlanError::NoSuchDevice`].
    pub fn plan_set_expectation(
        &self,
        product: &ProductKey,
        name: &DeviceName,
        expectation: Option<Expectation>,
    ) -> Result<Change, PlanError> {
        self.device(product.as_str(), name.as_str()).ok_or(PlanError::NoSuchDevice)?;
        Ok(Change::SetExpectation(product.clone(), name.clone(), expectation.map(Arc::new)))
    }

    /// Says who judges a product's devices; none: the broker.
    ///
    /// # Errors
    /// [`PlanError::NoSuchProduct`].
    pub fn plan_set_verifier(&self, key: &ProductKey, verifier: Option<VerifierName>) -> Result<Change, PlanError> {
        self.product(key.as_str()).ok_or(PlanError::NoSuchProduct)?;
        Ok(Change::SetVerifier(key.clone(), verifier))
    }

    fn check_proofs(&self, product: &ProductKey, name: &DeviceName, proofs: &Proofs) -> Result<(), PlanError> {
        let policy = self.policy(product.as_str()).unwrap_or_default();
        if !policy.allow_rsa_1024 && proofs.keys().any(|key| key.kind().is_legacy()) {
            return Err(PlanError::WeakKey);
        }
        let others = |(of, owner): (ProductKey, DeviceName)| of != *product || owner != *name;
        if proofs.certificates().any(|print| self.certificate_owner(&print).is_some_and(others)) {
            return Err(PlanError::CertificateTaken);
        }
        Ok(())
    }
}
