//! Which profiles products take, for the two who ask without a lock of the registry: the policy, for each publish on a topic of a vendor, and
//! log-ins that name no product.
//!
//! Only products that say something are here; all others take [`ProfileSet::DEFAULT`]. Reading is a hash, an atomic load, and a look at the few products of
//! a bucket. A change copies its bucket, so loading a registry stays linear; one map behind one pointer would make it quadratic.
//!
//! The names of devices are here for the products that take a profile whose devices are searched for ([`Profile::is_searched`]): a hash and a number, some
//! 24 bytes of a B-tree for each. Asking all these products in turn cost 0.5 µs for each of them, which is a lot for a stranger to spend.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::RwLock;

use crate::names::{DeviceName, ProductKey};
use crate::profile::{Profile, ProfileSet};

/// Ten thousand products that say something are ten in a bucket.
const BUCKETS: usize = 1024;

/// Names added or removed under one lock, which log-ins wait for.
const NAMES_AT_ONCE: usize = 1000;

/// Products of one name that are looked at.
const NAMESAKES_SEEN: usize = 64;

/// Names are an operator's: nobody picks them to collide.
type Hasher = foldhash::fast::FixedState;
type Bucket = Vec<(ProductKey, ProfileSet)>;

#[derive(Debug)]
pub(crate) struct Allowed {
    hasher: Hasher,
    buckets: Box<[ArcSwap<Bucket>]>,
    names: RwLock<Names>,
}

/// **Invariant:** a device's name is here exactly if its product takes a profile whose devices are searched for.
#[derive(Debug, Default)]
struct Names {
    /// Of a name the hash, and the number of a product that has it.
    owners: BTreeSet<(u64, u32)>,
    numbers: BTreeMap<ProductKey, u32>,
    /// By their numbers. A product keeps its number.
    products: Vec<ProductKey>,
}

impl Default for Allowed {
    fn default() -> Self {
        let empty = Arc::new(Bucket::new());
        let buckets = (0..BUCKETS).map(|_| ArcSwap::new(Arc::clone(&empty))).collect();
        Self { hasher: Hasher::default(), buckets, names: RwLock::default() }
    }
}

impl Allowed {
    fn bucket(&self, product: &str) -> &ArcSwap<Bucket> {
        let index = self.hasher.hash_one(product) as usize % BUCKETS;
        self.buckets.get(index).expect("less than the number of buckets")
    }

    /// What a product takes.
    pub(crate) fn of(&self, product: &str) -> ProfileSet {
        let bucket = self.bucket(product).load();
        let known = bucket.iter().find(|(key, _)| key.as_str() == product);
        known.map_or(ProfileSet::DEFAULT, |(_, profiles)| *profiles)
    }

    fn is_searched(&self, product: &ProductKey) -> bool {
        is_searched(self.of(product.as_str()))
    }

    /// Says what a product takes, and which devices it has. Only one at a time may change anything here, as with the registry.
    pub(crate) fn set<'a>(
        &self,
        product: &ProductKey,
        profiles: ProfileSet,
        devices: impl Iterator<Item = &'a DeviceName>,
    ) {
        let before = self.is_searched(product);
        let bucket = self.bucket(product.as_str());
        let mut changed = Bucket::clone(&bucket.load());
        changed.retain(|(key, _)| key != product);
        if profiles != ProfileSet::DEFAULT {
            changed.push((product.clone(), profiles));
        }
        bucket.store(Arc::new(changed));
        if is_searched(profiles) != before {
            let mut devices = devices.peekable();
            while devices.peek().is_some() {
                self.change(product, devices.by_ref().take(NAMES_AT_ONCE), !before);
            }
        }
    }

    /// A device has come, or has been replaced.
    pub(crate) fn add(&self, product: &ProductKey, device: &DeviceName) {
        if self.is_searched(product) {
            self.change(product, [device].into_iter(), true);
        }
    }

    /// A device is gone.
    pub(crate) fn remove(&self, product: &ProductKey, device: &DeviceName) {
        if self.is_searched(product) {
            self.change(product, [device].into_iter(), false);
        }
    }

    fn change<'a>(&self, product: &ProductKey, devices: impl Iterator<Item = &'a DeviceName>, is_there: bool) {
        let mut names = self.names.write();
        let number = names.number(product);
        for device in devices {
            let owner = (self.hasher.hash_one(device.as_str()), number);
            if is_there {
                names.owners.insert(owner)
            } else {
                names.owners.remove(&owner)
            };
        }
    }

    /// Products that take a profile and may have a device of that name (those that it has meet in a hash, at the least), in no order. Of
    /// [`NAMESAKES_SEEN`] of all that have one.
    pub(crate) fn owners(&self, profile: Profile, device: &str) -> Vec<ProductKey> {
        let hash = self.hasher.hash_one(device);
        let names = self.names.read();
        let owners = names.owners.range((hash, 0)..=(hash, u32::MAX)).take(NAMESAKES_SEEN);
        owners
            .filter_map(|(_, number)| names.products.get(*number as usize))
            .filter(|product| self.of(product.as_str()).contains(profile))
            .cloned()
            .collect()
    }
}

fn is_searched(profiles: ProfileSet) -> bool {
    profiles.iter().any(Profile::is_searched)
}

impl Names {
    fn number(&mut self, product: &ProductKey) -> u32 {
        match self.numbers.get(product) {
            Some(number) => *number,
            None => {
                let number = u32::try_from(self.products.len()).expect("fewer products than that");
                self.numbers.insert(product.clone(), number);
                self.products.push(product.clone());
                number
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> ProductKey {
        ProductKey::parse(&format!("p{n:03}")).expect("a name")
    }

    fn name(n: usize) -> DeviceName {
        DeviceName::parse(&format!("d{n}")).expect("a name")
    }

    fn owners(allowed: &Allowed, profile: Profile, device: &str) -> Vec<ProductKey> {
        let mut owners = allowed.owners(profile, device);
        owners.sort();
        owners
    }

    #[test]
    fn what_was_said_last_holds() {
        let allowed = Allowed::default();
        let tuya = ProfileSet::from_iter([Profile::Tuya, Profile::Native]);
        assert_eq!(allowed.of("p001"), ProfileSet::DEFAULT);
        for n in 0..3000 {
            allowed.set(&key(n), if n % 3 == 0 { tuya } else { ProfileSet::from_iter([]) }, [].iter());
        }
        for n in 0..3000 {
            assert_eq!(allowed.of(key(n).as_str()), if n % 3 == 0 { tuya } else { ProfileSet::from_iter([]) });
        }
        allowed.set(&key(0), ProfileSet::DEFAULT, [].iter());
        assert_eq!(allowed.of("p000"), ProfileSet::DEFAULT);
        assert_eq!(allowed.of("p003"), tuya);
    }

    #[test]
    fn names_are_known_while_their_product_is_searched() {
        let allowed = Allowed::default();
        let [tuya, azure] = [Profile::Tuya, Profile::Azure].map(|profile| ProfileSet::from_iter([profile]));
        let devices: Vec<DeviceName> = (0..2 * NAMES_AT_ONCE + 1).map(name).collect();
        allowed.add(&key(1), &devices[0]);
        assert_eq!(owners(&allowed, Profile::Tuya, "d0"), []);
        allowed.set(&key(1), tuya, devices.iter());
        allowed.set(&key(2), azure, devices.iter().take(1));
        for device in &devices {
            assert_eq!(owners(&allowed, Profile::Tuya, device.as_str()), [key(1)]);
        }
        assert_eq!(owners(&allowed, Profile::Azure, "d0"), [key(2)]);
        allowed.add(&key(2), &name(99));
        allowed.remove(&key(1), &name(0));
        allowed.set(&key(2), ProfileSet::ALL, [].iter());
        assert_eq!(owners(&allowed, Profile::Tuya, "d99"), [key(1), key(2)]);
        assert_eq!(owners(&allowed, Profile::Tuya, "d0"), [key(2)]);
        allowed.set(&key(1), ProfileSet::DEFAULT, devices.iter());
        allowed.set(&key(2), ProfileSet::DEFAULT, [name(0), name(99)].iter());
        assert!(allowed.names.read().owners.is_empty());
    }

    #[test]
    fn a_name_that_everybody_has_costs_no_more() {
        let allowed = Allowed::default();
        for n in 0..2 * NAMESAKES_SEEN {
            allowed.set(&key(n), ProfileSet::from_iter([Profile::Tuya]), [name(0)].iter());
        }
        assert_eq!(allowed.owners(Profile::Tuya, "d0").len(), NAMESAKES_SEEN);
    }
}
