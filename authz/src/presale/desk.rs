//! The desk: what operators ask for becomes changes, or an error that says why not. Devices: [`super::register`].

use super::book::{Book, Change, Package, PackageId, Settings};
use super::burn::{self, BurnKey, KeyId};
use super::identifier::Identifier;
use super::{RegisterError, Ways};
use crate::names::ProductKey;
use crate::plan::{self, Making};
use crate::registry::Registry;
use crate::secret::{MasterKey, Secret};

/// Burn-in keys that one call issues or shows.
pub const KEYS_MAX: u32 = 10_000;

/// Whom a product's secret is sealed for.
#[must_use]
pub fn product_owner(product: &str) -> String {
    format!("ps\0{product}")
}

/// Why nothing is changed at an operator's request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DeskError {
    /// It isn't in the registry.
    #[error("there is no such product")]
    NoSuchProduct,
    /// The product has none of that number.
    #[error("there is no such package")]
    NoSuchPackage,
    /// [`super::book::PACKAGES_MAX`].
    #[error("the product has too many packages")]
    TooManyPackages,
    /// Less than the keys that have been issued.
    #[error("the quota is less than the keys issued")]
    Quota,
    /// More keys than the quota leaves, or than [`KEYS_MAX`] at once.
    #[error("the package has no room for so many keys")]
    Capacity,
    /// It has registered a device: that is to be released first.
    #[error("the identifier has registered a device")]
    InUse,
    /// It isn't on the list.
    #[error("the identifier isn't listed")]
    NotListed,
    /// It has registered nothing.
    #[error("there is nothing to release")]
    NothingToRelease,
    /// A secret doesn't open: another master key, a damaged record.
    #[error("a secret doesn't open under the master key")]
    Sealed,
}

/// What is asked of a package.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PackageRequest {
    /// How many devices it may register.
    pub quota: u32,
    /// Seconds since 1970 UTC from which it registers nothing.
    pub expires_at_s: Option<u64>,
    /// A disabled one registers nothing.
    pub enabled: bool,
}

/// A registration taken back: the device is deleted, and what registered it may register another.
#[derive(Clone, Debug)]
#[must_use]
pub struct Release {
    /// The device and its keys, if it is still there. All of the changes go into one commit.
    pub device: Vec<plan::Change>,
    /// What is free again.
    pub change: Change,
}

/// Plans against the registry and the book, under the control plane's lock.
#[derive(Clone, Copy, Debug)]
pub struct Desk<'a> {
    /// Products and devices.
    pub registry: &'a Registry,
    /// Packages and lists.
    pub book: &'a Book,
    /// Seals secrets.
    pub key: &'a MasterKey,
}

impl Desk<'_> {
    /// Says how a product registers devices. The product's secret stays if none is given. `nonce` is random.
    ///
    /// # Errors
    /// [`DeskError::NoSuchProduct`], [`DeskError::NoSuchPackage`].
    pub fn plan_put_settings(
        &self,
        product: &ProductKey,
        (ways, package): (Ways, Option<PackageId>),
        secret: Option<&Secret>,
        nonce: [u8; 12],
    ) -> Result<Change, DeskError> {
        self.registry.product(product.as_str()).ok_or(DeskError::NoSuchProduct)?;
        if let Some(id) = package {
            self.book.package(product.as_str(), id).ok_or(DeskError::NoSuchPackage)?;
        }
        let sealed = secret.map(|secret| self.key.seal(&product_owner(product.as_str()), secret, nonce));
        let secret = sealed.or(self.book.settings(product.as_str()).secret);
        Ok(Change::PutSettings(product.clone(), Settings { ways, package, secret }))
    }

    /// Creates a package, or changes one whose number is given.
    ///
    /// # Errors
    /// [`DeskError`].
    pub fn plan_put_package(
        &self,
        product: &ProductKey,
        id: Option<PackageId>,
        request: PackageRequest,
        making: &Making<'_>,
    ) -> Result<(PackageId, Change), DeskError> {
        self.registry.product(product.as_str()).ok_or(DeskError::NoSuchProduct)?;
        let PackageRequest { quota, expires_at_s, enabled } = request;
        let (id, package) = match id {
            Some(id) => {
                let before = self.book.package(product.as_str(), id).ok_or(DeskError::NoSuchPackage)?.package;
                (id, Package { quota, expires_at_s, enabled, ..before })
            }
            None => {
                let id = self.book.next_package(product.as_str()).ok_or(DeskError::TooManyPackages)?;
                let secret = Secret::generate(*making.random.first_chunk().expect("16 of 28 bytes"));
                let nonce = *making.random.last_chunk().expect("12 of 28 bytes");
                let secret = making.key.seal(&burn::owner(product.as_str(), id), &secret, nonce);
                (id, Package { quota, expires_at_s, enabled, created_at_s: making.now_s, issued: 0, secret })
            }
        };
        if package.quota < package.issued {
            Err(DeskError::Quota)
        } else {
            Ok((id, Change::PutPackage(product.clone(), id, package)))
        }
    }

    /// Deletes a package; then [`super::list::Sweep`] removes what it has left. The devices that it registered stay.
    ///
    /// # Errors
    /// [`DeskError::NoSuchPackage`].
    pub fn plan_delete_package(&self, product: &ProductKey, id: PackageId) -> Result<Change, DeskError> {
        self.book.package(product.as_str(), id).ok_or(DeskError::NoSuchPackage)?;
        Ok(Change::DeletePackage(product.clone(), id))
    }

    /// Deletes all of a product that is deleted itself. [`super::list::Sweep`] removes what its packages have left.
    #[must_use]
    pub fn plan_delete_product(&self, product: &ProductKey) -> Vec<Change> {
        let packages = self.book.packages(product.as_str()).into_iter();
        let mut changes: Vec<Change> = packages.map(|(id, _)| Change::DeletePackage(product.clone(), id)).collect();
        if self.book.settings(product.as_str()) != Settings::default() {
            changes.push(Change::PutSettings(product.clone(), Settings::default()));
        }
        changes
    }

    /// Issues `count` burn-in keys, the ones after those that have been: commit and apply the change before they leave the house.
    ///
    /// # Errors
    /// [`DeskError`].
    pub fn plan_issue(
        &self,
        product: &ProductKey,
        id: PackageId,
        count: u32,
    ) -> Result<(Change, Vec<String>), DeskError> {
        let package = self.book.package(product.as_str(), id).ok_or(DeskError::NoSuchPackage)?.package;
        let from = package.issued;
        let issued = from.checked_add(count).filter(|issued| count <= KEYS_MAX && *issued <= package.quota);
        let issued = issued.ok_or(DeskError::Capacity)?;
        let keys = self.key_texts(product, id, &package, from..issued)?;
        Ok((Change::PutPackage(product.clone(), id, Package { issued, ..package }), keys))
    }

    /// Shows up to `limit` keys that have been issued, from an index on.
    ///
    /// # Errors
    /// [`DeskError`].
    pub fn issued_keys(
        &self,
        product: &ProductKey,
        id: PackageId,
        from: u32,
        limit: u32,
    ) -> Result<Vec<String>, DeskError> {
        let package = self.book.package(product.as_str(), id).ok_or(DeskError::NoSuchPackage)?.package;
        let to = from.saturating_add(limit.min(KEYS_MAX)).min(package.issued);
        self.key_texts(product, id, &package, from..to)
    }

    fn key_texts(
        &self,
        product: &ProductKey,
        id: PackageId,
        package: &Package,
        range: std::ops::Range<u32>,
    ) -> Result<Vec<String>, DeskError> {
        let sealed = self.key.open(&burn::owner(product.as_str(), id), &package.secret);
        let secret = sealed.map_err(|_| DeskError::Sealed)?;
        let text = |index| {
            let key = KeyId { package: id, index };
            BurnKey::derive(&secret, product, key).to_text(key)
        };
        Ok(range.map(text).collect())
    }

    /// Takes an identifier off its list. ([`super::list::ListImport`] puts them on.)
    ///
    /// # Errors
    /// [`DeskError::NotListed`], [`DeskError::InUse`].
    pub fn plan_unlist(&self, product: &ProductKey, identifier: &Identifier) -> Result<Change, DeskError> {
        let listed = self.book.listed(product.as_str(), identifier).ok_or(DeskError::NotListed)?;
        if listed.device.is_some() {
            Err(DeskError::InUse)
        } else {
            Ok(Change::Unlist(product.clone(), identifier.clone()))
        }
    }

    /// Takes back what a burn-in key has registered.
    ///
    /// # Errors
    /// [`DeskError::NothingToRelease`].
    pub fn plan_release_key(&self, product: &ProductKey, id: KeyId) -> Result<Release, DeskError> {
        let user = self.book.key_user(product.as_str(), id.package, id.index).ok_or(DeskError::NothingToRelease)?;
        let change = Change::ReleaseKey(product.clone(), id.package, id.index);
        Ok(Release { device: self.registry.plan_delete_device(product, user).unwrap_or_default(), change })
    }

    /// Takes back what an identifier has registered; it stays on the list.
    ///
    /// # Errors
    /// [`DeskError::NothingToRelease`].
    pub fn plan_release_identifier(&self, product: &ProductKey, identifier: &Identifier) -> Result<Release, DeskError> {
        let listed = self.book.listed(product.as_str(), identifier).ok_or(DeskError::NothingToRelease)?;
        let device = listed.device.ok_or(DeskError::NothingToRelease)?;
        let change = Change::List(product.clone(), identifier.clone(), listed.package, None);
        Ok(Release { device: self.registry.plan_delete_device(product, &device).unwrap_or_default(), change })
    }

    /// The product's secret, for the verification of a vendor's request.
    ///
    /// # Errors
    /// [`RegisterError::NotAllowed`] if it has none, [`RegisterError::Sealed`].
    pub fn product_secret(&self, product: &str) -> Result<Secret, RegisterError> {
        let sealed = self.book.settings(product).secret.ok_or(RegisterError::NotAllowed)?;
        self.key.open(&product_owner(product), &sealed).map_err(|_| RegisterError::Sealed)
    }
}

#[cfg(test)]
mod tests;
