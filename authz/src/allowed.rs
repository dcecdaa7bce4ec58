//! Which profiles products take, for the two who ask without a lock of the registry: the policy, for each publish on a topic of a vendor, and
//! log-ins that name no product.
//!
//! Only products that say something are here; all others take [`ProfileSet::DEFAULT`]. Reading is a hash and an atomic load. A change copies the bucket
//! that it is in, an entry for each product in 64 of those that are here; one map would make loading the registry quadratic in
//! earnest.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::BuildHasher;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::RwLock;

use crate::names::ProductKey;
use crate::profile::{Profile, ProfileSet};

const BUCKETS: usize = 64;

/// Product keys are an operator's: nobody picks them to collide.
type Hasher = foldhash::fast::FixedState;
type Bucket = HashMap<ProductKey, ProfileSet, Hasher>;

#[derive(Debug)]
pub(crate) struct Allowed {
    hasher: Hasher,
    buckets: [ArcSwap<Bucket>; BUCKETS],
    /// Who takes a profile whose devices are searched for.
    searched: RwLock<BTreeMap<Profile, BTreeSet<ProductKey>>>,
}

impl Default for Allowed {
    fn default() -> Self {
        Self {
            hasher: Hasher::default(),
            buckets: std::array::from_fn(|_| ArcSwap::default()),
            searched: RwLock::default(),
        }
    }
}

impl Allowed {
    fn bucket(&self, product: &str) -> &ArcSwap<Bucket> {
        let index = self.hasher.hash_one(product) as usize % BUCKETS;
        self.buckets.get(index).expect("less than the number of buckets")
    }

    /// What a product takes.
    pub(crate) fn of(&self, product: &str) -> ProfileSet {
        self.bucket(product).load().get(product).copied().unwrap_or(ProfileSet::DEFAULT)
    }

    /// Only one at a time may change it, as with the registry.
    pub(crate) fn set(&self, product: &ProductKey, profiles: ProfileSet) {
        let bucket = self.bucket(product.as_str());
        let mut changed = Bucket::clone(&bucket.load());
        if profiles == ProfileSet::DEFAULT {
            changed.remove(product);
        } else {
            changed.insert(product.clone(), profiles);
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
