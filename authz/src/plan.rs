//! Changes of the registry: what the API asks for becomes a [`Change`], which is committed and then applied.

use std::sync::Arc;

use turnpike_core::durable::Op;

use crate::attest::Expectation;
use crate::cipher::PayloadPolicy;
use crate::keys::Proofs;
use crate::labels::{Labels, LabelsRequest};
use crate::limits::{WrittenFlow, WrittenLimits};
use crate::names::{DeviceName, ProductKey};
use crate::product::ProductPolicy;
use crate::profile::ProfileSet;
use crate::record;
use crate::registry::{Device, Product, Registry, owner};
use crate::secret::{MasterKey, Sealed, Secret};
use crate::verifier::VerifierName;
use crate::x509::Authorities;

mod limits;
mod login;

/// A change of the registry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Create or replace.
    PutProduct(ProductKey, Product),
    /// Remove a product: none of its devices gets in from then on. Their records are removed by [`Registry::plan_sweep`].
    DeleteProduct(ProductKey),
    /// Which log-in formats a product's devices may use: [`ProfileSet::DEFAULT`], until this says otherwise. Independent of [`Self::PutProduct`].
    AllowProfiles(ProductKey, ProfileSet),
    /// Create or replace. The product exists.
    PutDevice(ProductKey, DeviceName, Device),
    /// Remove. [`Self::SetProofs`], [`Self::SetExpectation`], [`Self::SetLabels`] and [`Self::LimitDevice`] go before it, in the same commit: a new device of the
    /// name must not have the old one's.
    DeleteDevice(ProductKey, DeviceName),
    /// Which public keys and certificates a device has, beside its secret. Independent of [`Self::PutDevice`].
    SetProofs(ProductKey, DeviceName, Option<Arc<Proofs>>),
    /// What a product demands of log-ins: nothing, until this says otherwise. Independent of [`Self::PutProduct`].
    SetPolicy(ProductKey, ProductPolicy),
    /// What a product does with payloads: nothing, until this says otherwise. Independent of [`Self::PutProduct`].
    SetPayloads(ProductKey, PayloadPolicy),
    /// Who issues the certificates of a product's devices. Independent of [`Self::PutProduct`].
    SetAuthorities(ProductKey, Option<Arc<Authorities>>),
    /// How fast a product's devices may be, where it isn't as the configuration says for all. Independent of [`Self::PutProduct`].
    LimitProduct(ProductKey, Option<Arc<WrittenLimits>>),
    /// How fast a device may be, where it isn't as its product says. Independent of [`Self::PutDevice`].
    LimitDevice(ProductKey, DeviceName, Option<Arc<WrittenFlow>>),
    /// What a device is expected to state of itself. Independent of [`Self::PutDevice`].
    SetExpectation(ProductKey, DeviceName, Option<Arc<Expectation>>),
    /// Which tags a device has, and in which region it is. Independent of [`Self::PutDevice`].
    SetLabels(ProductKey, DeviceName, Option<Arc<Labels>>),
    /// Who judges a product's devices instead of the broker, if anybody does. Independent of [`Self::PutProduct`].
    SetVerifier(ProductKey, Option<VerifierName>),
    /// Remember that something was done once, such as the demo's provisioning. Without `\0`.
    Mark(Box<str>),
}

impl Change {
    /// What the store is to be told.
    #[must_use]
    pub fn op(&self) -> Op {
        record::encode(self)
    }

    /// Whose live sessions are to be judged again once the change is applied: a product, and of it one device or all.
    #[must_use]
    pub fn concerns(&self) -> Option<(&ProductKey, Option<&DeviceName>)> {
        match self {
            Self::PutProduct(product, _)
            | Self::DeleteProduct(product)
            | Self::AllowProfiles(product, _)
            | Self::SetPolicy(product, _)
            | Self::SetPayloads(product, _)
            | Self::SetAuthorities(product, _)
            | Self::SetVerifier(product, _)
            | Self::LimitProduct(product, _) => Some((product, None)),
            Self::PutDevice(product, name, _)
            | Self::DeleteDevice(product, name)
            | Self::SetProofs(product, name, _)
            | Self::SetExpectation(product, name, _)
            | Self::LimitDevice(product, name, _) => Some((product, Some(name))),
            // By labels nobody is judged.
            Self::SetLabels(..) | Self::Mark(_) => None,
        }
    }
}

/// Why nothing is changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PlanError {
    /// It isn't in the registry.
    #[error("there is no such product")]
    NoSuchProduct,
    /// It isn't in the registry.
    #[error("there is no such device")]
    NoSuchDevice,
    /// The devices of a deleted product of that name are still being removed; a new product must not get them.
    #[error("a product of that key is still being deleted")]
    BeingDeleted,
    /// [`ProductPolicy::allow_rsa_1024`] isn't set.
    #[error("the product allows no RSA keys of 1024 bits")]
    WeakKey,
    /// A certificate without a user name must say whose it is.
    #[error("another device has that certificate")]
    CertificateTaken,
}

/// What is asked of a device.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DeviceRequest {
    /// Its secret; if none is given, the device keeps the one that it has, and a new device gets one made.
    pub secret: Option<Secret>,
    /// Whether it gets in. If it isn't said, it stays as it is, so a new secret doesn't let a disabled device in.
    pub enabled: Option<bool>,
}

/// What making a device takes.
#[derive(Clone, Copy, Debug)]
pub struct Making<'a> {
    /// Seals the secret.
    pub key: &'a MasterKey,
    /// Fresh for each device: the secret and the seal's nonce come from it.
    pub random: [u8; 28],
    /// Seconds since 1970 UTC.
    pub now_s: u64,
}

impl Making<'_> {
    /// The secret given, or one that is made, and how it is kept.
    pub(crate) fn secret(&self, product: &ProductKey, name: &DeviceName, given: Option<Secret>) -> (Secret, Sealed) {
        let made = self.random.first_chunk().expect("16 of 28 bytes");
        let nonce = self.random.last_chunk().expect("12 of 28 bytes");
        let secret = given.unwrap_or_else(|| Secret::generate(*made));
        let sealed = self.key.seal(&owner(product.as_str(), name.as_str()), &secret, *nonce);
        (secret, sealed)
    }
}

/// A device to be made.
#[derive(Clone, Debug)]
pub struct MadeDevice {
    /// To be committed and applied.
    pub change: Change,
    /// The secret that was made, which is shown once; none where it was given or kept.
    pub secret: Option<Secret>,
    /// Whether there was none of that name.
    pub is_new: bool,
}

impl Registry {
    /// Creates or replaces a product; if `enabled` isn't said, it stays as it is. Also says whether the product is new.
    ///
    /// # Errors
    /// [`PlanError::BeingDeleted`].
    pub fn plan_put_product(
        &self,
        key: &ProductKey,
        enabled: Option<bool>,
        now_s: u64,
    ) -> Result<(Change, bool), PlanError> {
        if self.is_swept(key.as_str()) {
            return Err(PlanError::BeingDeleted);
        }
        let existing = self.product(key.as_str());
        let before = existing.unwrap_or(Product { enabled: true, created_at_s: now_s });
        let product = Product { enabled: enabled.unwrap_or(before.enabled), ..before };
        Ok((Change::PutProduct(key.clone(), product), existing.is_none()))
    }

    /// Says which log-in formats a product's devices may use.
    ///
    /// # Errors
    /// [`PlanError::NoSuchProduct`].
    pub fn plan_allow_profiles(&self, key: &ProductKey, profiles: ProfileSet) -> Result<Change, PlanError> {
        self.product(key.as_str()).ok_or(PlanError::NoSuchProduct)?;
        Ok(Change::AllowProfiles(key.clone(), profiles))
    }

    /// Deletes a product. After this has been applied, [`Self::plan_sweep`] removes its devices.
    ///
    /// # Errors
    /// [`PlanError::NoSuchProduct`].
    pub fn plan_delete_product(&self, key: &ProductKey) -> Result<Change, PlanError> {
        self.product(key.as_str()).ok_or(PlanError::NoSuchProduct)?;
        Ok(Change::DeleteProduct(key.clone()))
    }

    /// Removes up to `limit` records of a deleted product; nothing is left of it when there is nothing to remove.
    #[must_use]
    pub fn plan_sweep(&self, key: &ProductKey, limit: usize) -> Vec<Change> {
        let mut changes = self.left_proofs(key, limit);
        changes.extend(self.left_expectations(key, limit.saturating_sub(changes.len())));
        changes.extend(self.left_limits(key, limit.saturating_sub(changes.len())));
        changes.extend(self.left_labels(key, limit.saturating_sub(changes.len())));
        let names = self.left_of(key.as_str(), limit.saturating_sub(changes.len()));
        changes.extend(names.into_iter().map(|name| Change::DeleteDevice(key.clone(), name)));
        if changes.len() < limit && self.has_left_profiles(key.as_str()) {
            changes.push(Change::AllowProfiles(key.clone(), ProfileSet::DEFAULT));
        }
        let room = limit.saturating_sub(changes.len());
        changes.extend(self.left_settings(key).into_iter().take(room));
        changes
    }

    /// Creates or replaces a device.
    ///
    /// # Errors
    /// [`PlanError::NoSuchProduct`].
    pub fn plan_put_device(
        &self,
        product: &ProductKey,
        name: &DeviceName,
        request: DeviceRequest,
        making: &Making<'_>,
    ) -> Result<MadeDevice, PlanError> {
        self.product(product.as_str()).ok_or(PlanError::NoSuchProduct)?;
        let existing = self.device(product.as_str(), name.as_str());
        let (enabled, created_at_s) = existing.as_ref().map_or((true, making.now_s), |d| (d.enabled, d.created_at_s));
        let (is_new, is_given) = (existing.is_none(), request.secret.is_some());
        let (made, sealed) = match existing {
            Some(device) if !is_given => (None, device.secret),
            _ => {
                let (secret, sealed) = making.secret(product, name, request.secret);
                ((!is_given).then_some(secret), sealed)
            }
        };
        let device = Device { enabled: request.enabled.unwrap_or(enabled), created_at_s, secret: sealed };
        let change = Change::PutDevice(product.clone(), name.clone(), device);
        Ok(MadeDevice { change, secret: made, is_new })
    }

    /// Makes a new secret for a device. The old one isn't good any more once this has been applied.
    ///
    /// # Errors
    /// [`PlanError::NoSuchProduct`], [`PlanError::NoSuchDevice`].
    pub fn plan_renew_secret(
        &self,
        product: &ProductKey,
        name: &DeviceName,
        making: &Making<'_>,
    ) -> Result<MadeDevice, PlanError> {
        self.product(product.as_str()).ok_or(PlanError::NoSuchProduct)?;
        let device = self.device(product.as_str(), name.as_str()).ok_or(PlanError::NoSuchDevice)?;
        let (secret, sealed) = making.secret(product, name, None);
        let change = Change::PutDevice(product.clone(), name.clone(), Device { secret: sealed, ..device });
        Ok(MadeDevice { change, secret: Some(secret), is_new: false })
    }

    /// Gives a device other labels; nothing where it has these. The device exists, or is made in the same commit.
    #[must_use]
    pub fn plan_label_device(
        &self,
        product: &ProductKey,
        name: &DeviceName,
        request: &LabelsRequest,
    ) -> Option<Change> {
        let before = self.labels(product.as_str(), name.as_str());
        let after = request.onto(before.as_deref());
        (after != before).then(|| Change::SetLabels(product.clone(), name.clone(), after))
    }

    /// Disables or enables a device.
    ///
    /// # Errors
    /// [`PlanError::NoSuchDevice`].
    pub fn plan_enable_device(
        &self,
        product: &ProductKey,
        name: &DeviceName,
        enabled: bool,
    ) -> Result<Change, PlanError> {
        let device = self.device(product.as_str(), name.as_str()).ok_or(PlanError::NoSuchDevice)?;
        Ok(Change::PutDevice(product.clone(), name.clone(), Device { enabled, ..device }))
    }

    /// Disables or enables a product.
    ///
    /// # Errors
    /// [`PlanError::NoSuchProduct`].
    pub fn plan_enable_product(&self, key: &ProductKey, enabled: bool) -> Result<Change, PlanError> {
        let product = self.product(key.as_str()).ok_or(PlanError::NoSuchProduct)?;
        Ok(Change::PutProduct(key.clone(), Product { enabled, ..product }))
    }

    /// Deletes a device, with its keys, its limit, its labels and what is expected of it. All of the changes go into one commit.
    ///
    /// # Errors
    /// [`PlanError::NoSuchDevice`].
    pub fn plan_delete_device(&self, product: &ProductKey, name: &DeviceName) -> Result<Vec<Change>, PlanError> {
        let found = self.find(product.as_str(), name.as_str()).ok_or(PlanError::NoSuchDevice)?;
        let proofs = found.proofs.map(|_| Change::SetProofs(product.clone(), name.clone(), None));
        let limit = self.device_limit(product.as_str(), name.as_str());
        let limit = limit.map(|_| Change::LimitDevice(product.clone(), name.clone(), None));
        let device = Change::DeleteDevice(product.clone(), name.clone());
        let expected = self.expectation(product.as_str(), name.as_str());
        let expected = expected.map(|_| Change::SetExpectation(product.clone(), name.clone(), None));
        let labels = self.labels(product.as_str(), name.as_str());
        let labels = labels.map(|_| Change::SetLabels(product.clone(), name.clone(), None));
        Ok(proofs.into_iter().chain(limit).chain(expected).chain(labels).chain([device]).collect())
    }
}
