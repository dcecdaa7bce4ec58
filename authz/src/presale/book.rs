//! Packages and allow-lists in memory.
//!
//! A used burn-in key remembers its device, an unused one costs nothing: keys are computed ([`super::burn`]). What a listed identifier costs stands in `lists.rs`.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;

use turnpike_core::durable::Op;

use super::identifier::{Identifier, Kind};
use super::lists::Lists;
use super::{Ways, record};
use crate::names::{DeviceName, ProductKey};
use crate::record::RecordError;
use crate::secret::Sealed;

/// Identifiers on all lists together: what is bounded is memory, at most about 64 bytes each, 90 where serial numbers are long.
pub const LISTED_MAX: usize = 5_000_000;

/// Packages of a product.
pub const PACKAGES_MAX: usize = 1000;

/// A package's number within its product, from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PackageId(u32);

impl PackageId {
    /// The first.
    pub const FIRST: Self = Self(1);

    /// Checks a number: 1 to 2³¹ − 1.
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        (1..=i32::MAX.unsigned_abs()).contains(&number).then_some(Self(number))
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for PackageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A pre-authorization package.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Package {
    /// A disabled one registers nothing.
    pub enabled: bool,
    /// Seconds since 1970 UTC.
    pub created_at_s: u64,
    /// Seconds since 1970 UTC from which it registers nothing.
    pub expires_at_s: Option<u64>,
    /// How many devices it may register.
    pub quota: u32,
    /// How many burn-in keys it has issued: those of the indices below this. At most the quota.
    pub issued: u32,
    /// What its keys are computed from, sealed for [`super::burn::owner`].
    pub secret: Sealed,
}

/// How a product registers devices.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Settings {
    /// The ways that it takes.
    pub ways: Ways,
    /// The package that devices count against which are registered by the product's secret and are on no list.
    pub package: Option<PackageId>,
    /// The product's secret, sealed for [`super::desk::product_owner`].
    pub secret: Option<Sealed>,
}

/// A change of the book.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Replace how a product registers devices; the default ones are none.
    PutSettings(ProductKey, Settings),
    /// Create or replace.
    PutPackage(ProductKey, PackageId, Package),
    /// Remove; what is left of it registers nothing and goes by [`super::list::Sweep`].
    DeletePackage(ProductKey, PackageId),
    /// Put on the list of a package, and say which device it has registered.
    List(ProductKey, Identifier, PackageId, Option<DeviceName>),
    /// Take off the list.
    Unlist(ProductKey, Identifier),
    /// A burn-in key has registered a device.
    UseKey(ProductKey, PackageId, u32, DeviceName),
    /// It may register another.
    ReleaseKey(ProductKey, PackageId, u32),
}

impl Change {
    /// What the store is to be told.
    #[must_use]
    pub fn op(&self) -> Op {
        record::encode(self)
    }
}

#[derive(Default)]
struct Pack {
    /// None while it is swept up, and at start until its record has been loaded.
    head: Option<Package>,
    keys: BTreeMap<u32, DeviceName>,
    listed: usize,
    listed_used: usize,
}

#[derive(Default)]
struct Shelf {
    settings: Option<Settings>,
    packs: BTreeMap<PackageId, Pack>,
    lists: Lists,
}

pub use super::lists::Listed;

/// A package and what has become of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Standing {
    /// The package.
    pub package: Package,
    /// Devices registered.
    pub used: u64,
    /// Identifiers on its list, used or not.
    pub listed: u64,
}

/// All packages and lists.
#[derive(Default)]
pub struct Book {
    products: BTreeMap<ProductKey, Shelf>,
    listed: usize,
}

impl fmt::Debug for Book {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Book({} products, {} identifiers)", self.products.len(), self.listed)
    }
}

impl Book {
    /// Nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a record back at start, in any order.
    ///
    /// # Errors
    /// [`RecordError`]; the caller refuses to start on it, since a key could be used twice.
    pub fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), RecordError> {
        record::decode(key, value).map(|change| self.apply(change))
    }

    /// Makes a committed change visible.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::PutSettings(product, settings) => {
                let settings = (settings != Settings::default()).then_some(settings);
                self.products.entry(product.clone()).or_default().settings = settings;
                self.forget_if_empty(&product);
            }
            Change::PutPackage(product, id, package) => {
                self.products.entry(product).or_default().packs.entry(id).or_default().head = Some(package);
            }
            Change::DeletePackage(product, id) => {
                self.pack_changed(&product, id, |pack| pack.head = None);
            }
            Change::List(product, identifier, package, device) => self.list(product, identifier, package, device),
            Change::Unlist(product, identifier) => self.unlist(&product, &identifier),
            Change::UseKey(product, id, index, device) => {
                self.products.entry(product).or_default().packs.entry(id).or_default().keys.insert(index, device);
            }
            Change::ReleaseKey(product, id, index) => {
                self.pack_changed(&product, id, |pack| drop(pack.keys.remove(&index)));
            }
        }
    }

    fn list(&mut self, product: ProductKey, identifier: Identifier, package: PackageId, device: Option<DeviceName>) {
        self.unlist(&product, &identifier);
        let shelf = self.products.entry(product).or_default();
        let pack = shelf.packs.entry(package).or_default();
        pack.listed += 1;
        pack.listed_used += usize::from(device.is_some());
        self.listed += 1;
        shelf.lists.insert(identifier, package, device);
    }

    fn unlist(&mut self, product: &ProductKey, identifier: &Identifier) {
        let Some(shelf) = self.products.get_mut(product) else { return };
        let Some(was) = shelf.lists.remove(identifier) else { return };
        self.listed -= 1;
        self.pack_changed(product, was.package, |pack| {
            pack.listed -= 1;
            pack.listed_used -= usize::from(was.device.is_some());
        });
    }

    fn pack_changed(&mut self, product: &ProductKey, id: PackageId, change: impl FnOnce(&mut Pack)) {
        let Some(shelf) = self.products.get_mut(product) else { return };
        let Some(pack) = shelf.packs.get_mut(&id) else { return };
        change(pack);
        if pack.head.is_none() && pack.keys.is_empty() && pack.listed == 0 {
            shelf.packs.remove(&id);
        }
        self.forget_if_empty(product);
    }

    fn forget_if_empty(&mut self, product: &ProductKey) {
        if self.products.get(product).is_some_and(|shelf| shelf.settings.is_none() && shelf.packs.is_empty()) {
            self.products.remove(product);
        }
    }

    /// How a product registers devices.
    #[must_use]
    pub fn settings(&self, product: &str) -> Settings {
        self.products.get(product).and_then(|shelf| shelf.settings.clone()).unwrap_or_default()
    }

    /// A package.
    #[must_use]
    pub fn package(&self, product: &str, id: PackageId) -> Option<Standing> {
        self.products.get(product)?.packs.get(&id).and_then(standing)
    }

    /// A product's packages, [`PACKAGES_MAX`] at most.
    #[must_use]
    pub fn packages(&self, product: &str) -> Vec<(PackageId, Standing)> {
        let packs = self.products.get(product).into_iter().flat_map(|shelf| &shelf.packs);
        packs.filter_map(|(id, pack)| Some((*id, standing(pack)?))).collect()
    }

    /// The number of a product's next package; none if there are too many.
    #[must_use]
    pub fn next_package(&self, product: &str) -> Option<PackageId> {
        let Some(shelf) = self.products.get(product) else { return Some(PackageId::FIRST) };
        if shelf.packs.len() >= PACKAGES_MAX {
            return None;
        }
        shelf.packs.last_key_value().map_or(Some(PackageId::FIRST), |(last, _)| PackageId::new(last.0 + 1))
    }

    /// The device that a burn-in key has registered.
    #[must_use]
    pub fn key_user(&self, product: &str, id: PackageId, index: u32) -> Option<&DeviceName> {
        self.products.get(product)?.packs.get(&id)?.keys.get(&index)
    }

    /// What is known of an identifier; none if it isn't listed.
    #[must_use]
    pub fn listed(&self, product: &str, identifier: &Identifier) -> Option<Listed> {
        self.products.get(product)?.lists.get(identifier)
    }

    /// Up to `limit` identifiers of a kind after one, in order, long serial numbers last. The last one asks for the next page.
    #[must_use]
    pub fn list_of(
        &self,
        product: &str,
        kind: Kind,
        after: Option<&Identifier>,
        limit: usize,
    ) -> Vec<(Identifier, Listed)> {
        self.products.get(product).map_or_else(Vec::new, |shelf| shelf.lists.page(kind, after, limit))
    }

    /// Identifiers on all lists.
    #[must_use]
    pub fn listed_count(&self) -> usize {
        self.listed
    }

    /// Up to `limit` used keys of a package.
    #[must_use]
    pub fn used_keys(&self, product: &str, id: PackageId, after: Option<u32>, limit: usize) -> Vec<(u32, DeviceName)> {
        let Some(pack) = self.products.get(product).and_then(|shelf| shelf.packs.get(&id)) else { return Vec::new() };
        let range = pack.keys.range((after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded));
        range.take(limit).map(|(index, device)| (*index, device.clone())).collect()
    }

    /// Deleted packages of which something is left: what [`super::list::Sweep`] has to do, at start too.
    #[must_use]
    pub fn swept_packages(&self) -> Vec<(ProductKey, PackageId)> {
        let packs =
            self.products.iter().flat_map(|(product, shelf)| shelf.packs.iter().map(move |pack| (product, pack)));
        packs.filter(|(_, (_, pack))| pack.head.is_none()).map(|(product, (id, _))| (product.clone(), *id)).collect()
    }
}

fn standing(pack: &Pack) -> Option<Standing> {
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let used = count(pack.keys.len() + pack.listed_used);
    pack.head.clone().map(|package| Standing { package, used, listed: count(pack.listed) })
}
