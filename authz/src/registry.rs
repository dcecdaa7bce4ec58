//! Products and devices, in memory; what is durable of them goes through the store as `Op::RegistryPut` and `Op::RegistryDelete`.
//!
//! ```text
//! plan_…() ─▶ Change ─▶ Change::op() ─▶ store commits ─▶ apply(Change) ─▶ live sessions judged again
//! ```
//!
//! **Invariant:** memory never knows what a crash would forget: a change is applied after its commit. It is applied before the sessions
//! are judged again, so whoever comes in meanwhile is judged by either the one or the other.
//!
//! **Invariant:** one change at a time. Whoever plans holds the control plane's lock until it has applied; otherwise two plans may be based
//! on the same state. (If a device is put into a product that goes away meanwhile, its record is swept up with the product's.)
//!
//! **Invariant:** a product exists exactly if its record does. Deleting a product deletes its record first, and from then on none of its devices gets in,
//! however many there are; the devices' records go in bounded steps ([`Registry::plan_sweep`]). What a crash leaves of
//! them is found again by [`Registry::swept_products`]. (Deleting the devices first is right too, and leaves nothing to sweep.)
//!
//! Devices of a product are in a B-tree: a page of the list is a range, and a log-in is a look-up under two read locks, which no
//! writer holds for longer than one insertion. A hash map would need a million names sorted for each page.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use parking_lot::RwLock;

use crate::allowed::Allowed;
use crate::attest::Expectation;
use crate::cipher::PayloadPolicy;
use crate::keys::Proofs;
use crate::labels::Labelled;
use crate::limits::{WrittenFlow, WrittenLimits};
use crate::names::{DeviceName, ProductKey};
use crate::plan::Change;
use crate::product::ProductPolicy;
use crate::profile::{Profile, ProfileSet};
use crate::record;
use crate::secret::Sealed;
use crate::verifier::VerifierName;
use crate::x509::{Authorities, Fingerprint};

mod labels;
mod limits;
mod proofs;

pub use crate::record::{RecordError, owner};

/// Devices of one name that are tried where a log-in names no product. Of any more, some don't get in that way.
pub const NAMESAKES_MAX: usize = 4;

/// A product.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Product {
    /// A disabled product lets none of its devices in.
    pub enabled: bool,
    /// Seconds since 1970 UTC.
    pub created_at_s: u64,
}

/// A device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Device {
    /// A disabled device isn't let in.
    pub enabled: bool,
    /// Seconds since 1970 UTC.
    pub created_at_s: u64,
    /// Its secret, sealed for [`owner`]; [`Sealed::none`] if it has none.
    pub secret: Sealed,
}

/// What a log-in is judged by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// The product.
    pub product: Product,
    /// The log-in formats that its devices may use.
    pub profiles: ProfileSet,
    /// The device.
    pub device: Device,
    /// Its public keys and certificates, if it has any.
    pub proofs: Option<Arc<Proofs>>,
    /// What the product demands of log-ins.
    pub policy: ProductPolicy,
    /// What the product does with payloads.
    pub payloads: PayloadPolicy,
    /// Who issues the certificates of the product's devices, if anybody.
    pub authorities: Option<Arc<Authorities>>,
}

/// [`Found`], by reference: for those who look at many.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Glimpse<'a> {
    pub(crate) product: Product,
    pub(crate) profiles: ProfileSet,
    pub(crate) policy: ProductPolicy,
    pub(crate) device: &'a Device,
    pub(crate) proofs: Option<&'a Proofs>,
    pub(crate) authorities: Option<&'a Authorities>,
    pub(crate) verifier: Option<&'a VerifierName>,
}

#[derive(Debug, Default)]
struct Entry {
    head: RwLock<Head>,
    devices: RwLock<BTreeMap<DeviceName, Device>>,
    /// Of the devices that have some: one that has a secret alone, as most do, costs nothing here.
    proofs: RwLock<BTreeMap<DeviceName, Arc<Proofs>>>,
    /// Of the devices of which something is expected.
    expectations: RwLock<BTreeMap<DeviceName, Arc<Expectation>>>,
    /// Of the devices that have some.
    labels: RwLock<Labelled>,
    authorities: RwLock<Option<Arc<Authorities>>>,
    verifier: RwLock<Option<VerifierName>>,
    limits: RwLock<Limits>,
}

/// How fast devices may be, where somebody has said so.
#[derive(Debug, Default)]
struct Limits {
    product: Option<Arc<WrittenLimits>>,
    devices: BTreeMap<DeviceName, Arc<WrittenFlow>>,
}

#[derive(Clone, Copy, Debug)]
struct Head {
    /// None while what is left of a deleted product is swept up, and at start until its record has been loaded.
    product: Option<Product>,
    /// A record of its own: whoever replaces the product and knows nothing of profiles doesn't widen them.
    profiles: ProfileSet,
    /// The same.
    policy: ProductPolicy,
    /// The same.
    payloads: PayloadPolicy,
}

impl Default for Head {
    fn default() -> Self {
        Self {
            product: None,
            profiles: ProfileSet::DEFAULT,
            policy: ProductPolicy::default(),
            payloads: PayloadPolicy::Plain,
        }
    }
}

/// All products and devices. Read by every shard, changed by the control plane.
#[derive(Debug, Default)]
pub struct Registry {
    products: RwLock<BTreeMap<ProductKey, Arc<Entry>>>,
    marks: RwLock<BTreeSet<Box<str>>>,
    /// Whose a certificate is. A hint: the device's own proofs decide.
    certificates: RwLock<HashMap<Fingerprint, (ProductKey, DeviceName), foldhash::fast::RandomState>>,
    /// How many products name a verifier. While it is none, no log-in looks for one.
    verified: AtomicUsize,
    /// What the heads say of profiles, for those who must not wait.
    allowed: Allowed,
}

impl Registry {
    /// Nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a record back at start, in any order.
    ///
    /// # Errors
    /// [`RecordError`]; the caller refuses to start on it, since a device that isn't known would be locked out.
    pub fn load(&self, key: &[u8], value: &[u8]) -> Result<(), RecordError> {
        record::decode(key, value).map(|change| self.apply(change))
    }

    /// Makes a committed change visible.
    pub fn apply(&self, change: Change) {
        match change {
            Change::PutProduct(key, product) => self.entry_or_new(key).head.write().product = Some(product),
            Change::DeleteProduct(key) => {
                if let Some(entry) = self.entry(key.as_str()) {
                    entry.head.write().product = None;
                    self.forget_if_empty(&key, &entry);
                }
            }
            Change::AllowProfiles(key, profiles) => {
                let entry = self.entry_or_new(key.clone());
                entry.head.write().profiles = profiles;
                self.allowed.set(&key, profiles, entry.devices.read().keys());
                self.forget_if_empty(&key, &entry);
            }
            Change::PutDevice(product, name, device) => {
                self.allowed.add(&product, &name);
                self.entry_or_new(product).devices.write().insert(name, device);
            }
            Change::DeleteDevice(product, name) => {
                self.allowed.remove(&product, &name);
                if let Some(entry) = self.entry(product.as_str()) {
                    entry.devices.write().remove(&name);
                    self.forget_if_empty(&product, &entry);
                }
            }
            Change::SetProofs(product, name, proofs) => self.set_proofs(product, name, proofs),
            Change::SetPolicy(key, policy) => {
                let entry = self.entry_or_new(key.clone());
                entry.head.write().policy = policy;
                self.forget_if_empty(&key, &entry);
            }
            Change::SetPayloads(key, policy) => {
                let entry = self.entry_or_new(key.clone());
                entry.head.write().payloads = policy;
                self.forget_if_empty(&key, &entry);
            }
            Change::SetAuthorities(key, authorities) => {
                let entry = self.entry_or_new(key.clone());
                *entry.authorities.write() = authorities;
                self.forget_if_empty(&key, &entry);
            }
            Change::SetExpectation(product, name, expectation) => self.set_expectation(&product, name, expectation),
            Change::SetLabels(product, name, labels) => self.set_labels(&product, name, labels),
            Change::SetVerifier(key, verifier) => self.set_verifier(&key, verifier),
            Change::LimitProduct(product, limits) => self.set_product_limits(&product, limits),
            Change::LimitDevice(product, name, flow) => self.set_device_limit(&product, name, flow),
            Change::Mark(mark) => {
                self.marks.write().insert(mark);
            }
        }
    }

    fn forget_if_empty(&self, key: &ProductKey, entry: &Entry) {
        let head = *entry.head.read();
        let Head { product, profiles, policy, payloads } = head;
        let is_bare = product.is_none()
            && profiles == ProfileSet::DEFAULT
            && policy == ProductPolicy::default()
            && payloads == PayloadPolicy::Plain;
        let is_empty = || {
            entry.devices.read().is_empty()
                && entry.proofs.read().is_empty()
                && entry.expectations.read().is_empty()
                && entry.labels.read().is_empty()
        };
        let has_settings = || entry.authorities.read().is_some() || entry.verifier.read().is_some();
        let is_unlimited = || {
            let limits = entry.limits.read();
            limits.product.is_none() && limits.devices.is_empty()
        };
        if is_bare && is_empty() && !has_settings() && is_unlimited() {
            self.products.write().remove(key);
        }
    }

    fn entry_or_new(&self, key: ProductKey) -> Arc<Entry> {
        match self.entry(key.as_str()) {
            Some(entry) => entry,
            None => Arc::clone(self.products.write().entry(key).or_default()),
        }
    }

    fn entry(&self, product: &str) -> Option<Arc<Entry>> {
        self.products.read().get(product).cloned()
    }

    /// An entry whose product exists.
    fn live(&self, product: &str) -> Option<(Arc<Entry>, Product)> {
        let entry = self.entry(product)?;
        let product = entry.head.read().product?;
        Some((entry, product))
    }

    /// Whether `Change::Mark` was applied, now or in an earlier run.
    #[must_use]
    pub fn is_marked(&self, mark: &str) -> bool {
        self.marks.read().contains(mark)
    }

    /// A product.
    #[must_use]
    pub fn product(&self, key: &str) -> Option<Product> {
        self.live(key).map(|(_, product)| product)
    }

    /// A device.
    #[must_use]
    pub fn device(&self, product: &str, name: &str) -> Option<Device> {
        self.find(product, name).map(|found| found.device)
    }

    /// A product and one of its devices, in one look-up.
    #[must_use]
    pub fn find(&self, product: &str, name: &str) -> Option<Found> {
        let entry = self.entry(product)?;
        let head = *entry.head.read();
        let device = entry.devices.read().get(name)?.clone();
        let proofs = entry.proofs.read().get(name).cloned();
        let authorities = entry.authorities.read().clone();
        Some(Found {
            product: head.product?,
            profiles: head.profiles,
            device,
            proofs,
            policy: head.policy,
            payloads: head.payloads,
            authorities,
        })
    }

    /// Looks at a device under locks, so `look` is to be short. `None`: there is no such product or device.
    pub(crate) fn look<R>(&self, product: &str, name: &str, look: impl FnOnce(&Glimpse<'_>) -> R) -> Option<R> {
        let entry = self.entry(product)?;
        let head = *entry.head.read();
        let (devices, proofs, authorities) = (entry.devices.read(), entry.proofs.read(), entry.authorities.read());
        let verifier = entry.verifier.read();
        Some(look(&Glimpse {
            product: head.product?,
            profiles: head.profiles,
            policy: head.policy,
            device: devices.get(name)?,
            proofs: proofs.get(name).map(Arc::as_ref),
            authorities: authorities.as_deref(),
            verifier: verifier.as_ref(),
        }))
    }

    /// The devices of a name in the products that take a profile whose credentials may name none ([`Profile::is_searched`]): up to
    /// [`NAMESAKES_MAX`], enabled or not.
    #[must_use]
    pub fn find_by_device_name(&self, profile: Profile, name: &str) -> Vec<(ProductKey, Found)> {
        let find = |key: ProductKey| self.find(key.as_str(), name).map(|found| (key, found));
        self.allowed.owners(profile, name).into_iter().filter_map(find).take(NAMESAKES_MAX).collect()
    }

    /// The log-in formats of a product that exists, without waiting for anybody.
    #[must_use]
    pub fn allowed(&self, product: &str) -> ProfileSet {
        self.allowed.of(product)
    }

    /// The log-in formats that a product's devices may use.
    #[must_use]
    pub fn profiles(&self, product: &str) -> Option<ProfileSet> {
        self.live(product).map(|(entry, _)| entry.head.read().profiles)
    }

    /// Whether a device exists and both it and its product are enabled.
    #[must_use]
    pub fn is_enabled(&self, product: &str, name: &str) -> bool {
        self.live(product).is_some_and(|(entry, product)| {
            product.enabled && entry.devices.read().get(name).is_some_and(|device| device.enabled)
        })
    }

    /// How many devices a product has.
    #[must_use]
    pub fn device_count(&self, product: &str) -> usize {
        self.live(product).map_or(0, |(entry, _)| entry.devices.read().len())
    }

    /// Up to `limit` products after a key, in order. The last one's key asks for the next page.
    #[must_use]
    pub fn products(&self, after: Option<&str>, limit: usize) -> Vec<(ProductKey, Product)> {
        let products = self.products.read();
        products
            .range::<str, _>((after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded))
            .filter_map(|(key, entry)| entry.head.read().product.map(|product| (key.clone(), product)))
            .take(limit)
            .collect()
    }

    /// Up to `limit` devices of a product after a name, in order. The last one's name asks for the next page.
    #[must_use]
    pub fn devices(&self, product: &str, after: Option<&str>, limit: usize) -> Vec<(DeviceName, Device)> {
        let Some((entry, _)) = self.live(product) else { return Vec::new() };
        let devices = entry.devices.read();
        devices
            .range::<str, _>((after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded))
            .take(limit)
            .map(|(name, device)| (name.clone(), device.clone()))
            .collect()
    }

    /// Any device that has a secret: what is tried with the master key at start.
    #[must_use]
    pub fn any_device(&self) -> Option<(ProductKey, DeviceName, Device)> {
        let products = self.products.read();
        products.iter().find_map(|(key, entry)| {
            let devices = entry.devices.read();
            let found = devices.iter().find(|(_, device)| !device.secret.is_none());
            found.map(|(name, device)| (key.clone(), name.clone(), device.clone()))
        })
    }

    /// Deleted products of which something is left: what [`Self::plan_sweep`] has to do, at start too.
    #[must_use]
    pub fn swept_products(&self) -> Vec<ProductKey> {
        let products = self.products.read();
        products.iter().filter(|(_, entry)| entry.head.read().product.is_none()).map(|(key, _)| key.clone()).collect()
    }

    /// Whether something is left of a deleted product.
    pub(crate) fn is_swept(&self, product: &str) -> bool {
        self.entry(product).is_some_and(|entry| entry.head.read().product.is_none())
    }

    /// Whether a deleted product has left behind which profiles it took.
    pub(crate) fn has_left_profiles(&self, product: &str) -> bool {
        let head = self.entry(product).map(|entry| *entry.head.read());
        head.is_some_and(|head| head.product.is_none() && head.profiles != ProfileSet::DEFAULT)
    }

    /// Names of a deleted product's devices.
    pub(crate) fn left_of(&self, product: &str, limit: usize) -> Vec<DeviceName> {
        let Some(entry) = self.entry(product).filter(|entry| entry.head.read().product.is_none()) else {
            return Vec::new();
        };
        let devices = entry.devices.read();
        devices.keys().take(limit).cloned().collect()
    }
}

#[cfg(test)]
mod tests;
