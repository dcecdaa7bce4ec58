//! Products and devices, in memory; what is durable of them goes through the store as [`Op::RegistryPut`].
//!
//! A change is decided ([`Change`]), committed by the caller ([`Change::op`]), and only then applied ([`Registry::apply`]), so memory never
//! knows what a crash would forget.
//!
//! Devices of a product are in a B-tree: a page of the list is a range, and a log-in is a look-up under a read lock. A device costs
//! about 200 bytes at a million (`examples/registry_memory.rs`).

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::RwLock;
use turnpike_core::durable::Op;

use crate::names::{DeviceName, ProductKey};
use crate::secret::Sealed;

/// First byte of each record's value: the layout.
const LAYOUT: u8 = 1;
const ENABLED: u8 = 1;

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
    /// Its secret, sealed for [`owner`].
    pub secret: Sealed,
}

/// Whom a device's secret is sealed for.
#[must_use]
pub fn owner(product: &str, device: &str) -> String {
    format!("{product}\0{device}")
}

/// A change of the registry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Create or replace.
    PutProduct(ProductKey, Product),
    /// Remove a product, and from memory its devices; their records are removed by changes of their own before.
    DeleteProduct(ProductKey),
    /// Create or replace. The product exists.
    PutDevice(ProductKey, DeviceName, Device),
    /// Remove.
    DeleteDevice(ProductKey, DeviceName),
    /// Remember that something was done once, such as the demo's provisioning.
    Mark(Box<str>),
}

impl Change {
    /// What the store is to be told.
    #[must_use]
    pub fn op(&self) -> Op {
        match self {
            Self::PutProduct(key, product) => {
                Op::RegistryPut(product_record(key.as_str()), value(product.enabled, product.created_at_s, &[]))
            }
            Self::DeleteProduct(key) => Op::RegistryDelete(product_record(key.as_str())),
            Self::PutDevice(product, name, device) => Op::RegistryPut(
                device_record(product.as_str(), name.as_str()),
                value(device.enabled, device.created_at_s, device.secret.as_bytes()),
            ),
            Self::DeleteDevice(product, name) => Op::RegistryDelete(device_record(product.as_str(), name.as_str())),
            Self::Mark(mark) => Op::RegistryPut(format!("m\0{mark}").into_bytes().into(), Box::from([LAYOUT])),
        }
    }
}

fn product_record(product: &str) -> Box<[u8]> {
    format!("p\0{product}").into_bytes().into()
}

fn device_record(product: &str, device: &str) -> Box<[u8]> {
    format!("d\0{product}\0{device}").into_bytes().into()
}

fn value(enabled: bool, created_at_s: u64, secret: &[u8]) -> Box<[u8]> {
    let mut bytes = vec![LAYOUT, if enabled { ENABLED } else { 0 }];
    bytes.extend_from_slice(&created_at_s.to_be_bytes());
    bytes.extend_from_slice(secret);
    bytes.into_boxed_slice()
}

/// Why a record of the store can't be taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordError {
    /// Written by a later version.
    #[error("a registry record has layout {0}; this version reads layout {LAYOUT}")]
    Layout(u8),
    /// It isn't what such a record is.
    #[error("a registry record is damaged: {0}")]
    Damaged(String),
}

#[derive(Debug)]
struct Entry {
    product: RwLock<Product>,
    devices: RwLock<BTreeMap<DeviceName, Device>>,
}

/// All products and devices. Read by every shard, changed by the control plane.
#[derive(Debug, Default)]
pub struct Registry {
    products: RwLock<BTreeMap<ProductKey, Arc<Entry>>>,
    marks: RwLock<Vec<Box<str>>>,
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
        let damaged = || RecordError::Damaged(String::from_utf8_lossy(key).replace('\0', "/"));
        let text = std::str::from_utf8(key).map_err(|_| damaged())?;
        let (&layout, rest) = value.split_first().ok_or_else(damaged)?;
        if layout != LAYOUT {
            return Err(RecordError::Layout(layout));
        }
        let mut parts = text.split('\0');
        let (kind, first, second) = (parts.next(), parts.next(), parts.next());
        if let (Some("m"), Some(mark)) = (kind, first) {
            self.apply(Change::Mark(mark.into()));
            return Ok(());
        }
        let (&flags, rest) = rest.split_first().ok_or_else(damaged)?;
        let (created, secret) = rest.split_first_chunk::<8>().ok_or_else(damaged)?;
        let (enabled, created_at_s) = (flags & ENABLED != 0, u64::from_be_bytes(*created));
        let product = ProductKey::parse(first.ok_or_else(damaged)?).map_err(|_| damaged())?;
        match (kind, second) {
            (Some("p"), None) => self.apply(Change::PutProduct(product, Product { enabled, created_at_s })),
            (Some("d"), Some(device)) => {
                let name = DeviceName::parse(device).map_err(|_| damaged())?;
                self.ensure(&product, created_at_s);
                let secret = Sealed::from_bytes(secret);
                self.apply(Change::PutDevice(product, name, Device { enabled, created_at_s, secret }));
            }
            _ => return Err(damaged()),
        }
        Ok(())
    }

    /// A device's record may be loaded before its product's.
    fn ensure(&self, product: &ProductKey, created_at_s: u64) {
        if self.product(product.as_str()).is_none() {
            self.apply(Change::PutProduct(product.clone(), Product { enabled: true, created_at_s }));
        }
    }

    /// Makes a committed change visible.
    pub fn apply(&self, change: Change) {
        match change {
            Change::PutProduct(key, product) => {
                let mut products = self.products.write();
                match products.get(&key) {
                    Some(entry) => *entry.product.write() = product,
                    None => {
                        let entry = Entry { product: RwLock::new(product), devices: RwLock::default() };
                        products.insert(key, Arc::new(entry));
                    }
                }
            }
            Change::DeleteProduct(key) => drop(self.products.write().remove(&key)),
            Change::PutDevice(product, name, device) => {
                if let Some(entry) = self.entry(product.as_str()) {
                    entry.devices.write().insert(name, device);
                }
            }
            Change::DeleteDevice(product, name) => {
                if let Some(entry) = self.entry(product.as_str()) {
                    entry.devices.write().remove(&name);
                }
            }
            Change::Mark(mark) => self.marks.write().push(mark),
        }
    }

    fn entry(&self, product: &str) -> Option<Arc<Entry>> {
        self.products.read().get(product).cloned()
    }

    /// Whether [`Change::Mark`] was applied, now or in an earlier run.
    #[must_use]
    pub fn is_marked(&self, mark: &str) -> bool {
        self.marks.read().iter().any(|known| **known == *mark)
    }

    /// A product.
    #[must_use]
    pub fn product(&self, key: &str) -> Option<Product> {
        self.entry(key).map(|entry| *entry.product.read())
    }

    /// A device.
    #[must_use]
    pub fn device(&self, product: &str, name: &str) -> Option<Device> {
        self.entry(product)?.devices.read().get(name).cloned()
    }

    /// A product and one of its devices, in one look-up.
    #[must_use]
    pub fn find(&self, product: &str, name: &str) -> Option<(Product, Device)> {
        let entry = self.entry(product)?;
        let device = entry.devices.read().get(name)?.clone();
        let product = *entry.product.read();
        Some((product, device))
    }

    /// Whether a device exists and both it and its product are enabled.
    #[must_use]
    pub fn is_enabled(&self, product: &str, name: &str) -> bool {
        self.entry(product).is_some_and(|entry| {
            entry.product.read().enabled && entry.devices.read().get(name).is_some_and(|device| device.enabled)
        })
    }

    /// How many devices a product has.
    #[must_use]
    pub fn device_count(&self, product: &str) -> usize {
        self.entry(product).map_or(0, |entry| entry.devices.read().len())
    }

    /// Up to `limit` products after a key, in order.
    #[must_use]
    pub fn products(&self, after: Option<&str>, limit: usize) -> Vec<(ProductKey, Product)> {
        let products = self.products.read();
        products
            .range::<str, _>((after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded))
            .take(limit)
            .map(|(key, entry)| (key.clone(), *entry.product.read()))
            .collect()
    }

    /// Up to `limit` devices of a product after a name, in order.
    #[must_use]
    pub fn devices(&self, product: &str, after: Option<&str>, limit: usize) -> Vec<(DeviceName, Device)> {
        let Some(entry) = self.entry(product) else { return Vec::new() };
        let devices = entry.devices.read();
        devices
            .range::<str, _>((after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded))
            .take(limit)
            .map(|(name, device)| (name.clone(), device.clone()))
            .collect()
    }
}
