//! Which profiles products take, for the two who ask without a lock of the registry: the policy, for each publish on a topic of a vendor, and
//! log-ins that name no product.
//!
//! Only products that say something are here; all others take [`ProfileSet::DEFAULT`]. Reading is a hash, an atomic load, and a look at the few products of
//! a bucket. A change copies its bucket, so loading a registry stays linear; one map behind one pointer would make it quadratic.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::RwLock;

use crate::names::ProductKey;
use crate::profile::{Profile, ProfileSet};

/// Ten thousand products that say something are ten in a bucket.
const BUCKETS: usize = 1024;

/// Product keys are an operator's: nobody picks them to collide.
type Hasher = foldhash::fast::FixedState;
type Bucket = Vec<(ProductKey, ProfileSet)>;

#[derive(Debug)]
pub(crate) struct Allowed {
    hasher: Hasher,
    buckets: Box<[ArcSwap<Bucket>]>,
    /// Who takes a profile whose devices are searched for.
    searched: RwLock<BTreeMap<Profile, BTreeSet<ProductKey>>>,
}

impl Default for Allowed {
    fn default() -> Self {
        let empty = Arc::new(Bucket::new());
        let buckets = (0..BUCKETS).map(|_| ArcSwap::new(Arc::clone(&empty))).collect();
        Self { hasher: Hasher::default(), buckets, searched: RwLock::default() }
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

    /// Only one at a time may change it, as with the registry.
    pub(crate) fn set(&self, product: &ProductKey, profiles: ProfileSet) {
        let bucket = self.bucket(product.as_str());
        let mut changed = Bucket::clone(&bucket.load());
        changed.retain(|(key, _)| key != product);
        if profiles != ProfileSet::DEFAULT {
            changed.push((product.clone(), profiles));
        }
        bucket.store(Arc::new(changed));
        let mut searched = self.searched.write();
        for profile in Profile::ALL.into_iter().filter(|profile| profile.is_searched()) {
            let products = searched.entry(profile).or_default();
            if profiles.contains(profile) {
                products.insert(product.clone());
            } else {
                products.remove(product);
            }
        }
    }

    /// How many products take a profile whose devices are searched for.
    pub(crate) fn searched_count(&self, profile: Profile) -> usize {
        self.searched.read().get(&profile).map_or(0, BTreeSet::len)
    }

    /// What is found in the first `products_max` products that take a profile whose devices are searched for, in the order of their keys; up to
    /// `found_max`.
    pub(crate) fn search<T>(
        &self,
        profile: Profile,
        (products_max, found_max): (usize, usize),
        find: impl FnMut(&ProductKey) -> Option<T>,
    ) -> Vec<T> {
        let searched = self.searched.read();
        let products = searched.get(&profile).into_iter().flatten().take(products_max);
        products.filter_map(find).take(found_max).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> ProductKey {
        ProductKey::parse(&format!("p{n:03}")).expect("a name")
    }

    #[test]
    fn what_was_said_last_holds() {
        let allowed = Allowed::default();
        let tuya = ProfileSet::from_iter([Profile::Tuya, Profile::Native]);
        assert_eq!(allowed.of("p001"), ProfileSet::DEFAULT);
        for n in 0..300 {
            allowed.set(&key(n), if n % 3 == 0 { tuya } else { ProfileSet::from_iter([]) });
        }
        for n in 0..300 {
            assert_eq!(allowed.of(key(n).as_str()), if n % 3 == 0 { tuya } else { ProfileSet::from_iter([]) });
        }
        let first = |profile, limits| allowed.search(profile, limits, |key| Some(key.clone()));
        assert_eq!(first(Profile::Tuya, (2, 9)), [key(0), key(3)]);
        assert_eq!(first(Profile::Tuya, (9, 1)), [key(0)]);
        assert_eq!((allowed.searched_count(Profile::Tuya), allowed.searched_count(Profile::Azure)), (100, 0));
        allowed.set(&key(0), ProfileSet::DEFAULT);
        assert_eq!(allowed.of("p000"), ProfileSet::DEFAULT);
        assert_eq!(first(Profile::Tuya, (1, 1)), [key(3)]);
        assert_eq!(first(Profile::Native, (9, 9)), [], "it names its product");
    }
}
