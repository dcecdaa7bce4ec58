//! Devices that would share a vendor's topics.
//!
//! Some vendors' topics name a device and no product, since names are unique in their clouds (see `policy::vendors`). Here two products, even of two tenants, may
//! take such a profile, and a device may choose its name when it registers. So who comes second is refused: nobody gets a name by which another device's topics are
//! its own.
//!
//! | topics | of a device's own |
//! |---|---|
//! | `tylink/{device}`, `devices/{device}`, `dev2app/{device}` | the name |
//! | `$oc/devices/{id}` | the name, and `{product}_{device}`, which may be another's name, or another's product and name parted elsewhere |

use crate::names::{DeviceName, ProductKey};
use crate::profile::{Profile, ProfileSet};
use crate::registry::Registry;

/// Profiles by the topics that they share.
const FAMILIES: [&[Profile]; 4] =
    [&[Profile::Huawei], &[Profile::Tuya], &[Profile::Azure], &[Profile::Gizwits, Profile::GizwitsLegacy]];

impl Registry {
    /// Another device that has topics which a device of that name would have in a product that takes these profiles. Reads, and few of them; where a product
    /// takes no such profile, nothing at all.
    #[must_use]
    pub fn namesake(
        &self,
        product: &ProductKey,
        device: &DeviceName,
        profiles: ProfileSet,
    ) -> Option<(ProductKey, DeviceName)> {
        let taken = FAMILIES.iter().filter(|family| family.iter().any(|profile| profiles.contains(*profile)));
        taken.flat_map(|family| family.iter()).find_map(|profile| self.namesake_by(*profile, product, device))
    }

    /// The first device of a product for which [`Self::namesake`] finds another one. Reads all names: for what an operator does once.
    #[must_use]
    pub fn any_namesake(&self, product: &ProductKey, profiles: ProfileSet) -> Option<DeviceName> {
        if !FAMILIES.iter().flat_map(|family| family.iter()).any(|profile| profiles.contains(*profile)) {
            return None;
        }
        let names = self.devices(product.as_str(), None, usize::MAX).into_iter().map(|(name, _)| name);
        names.into_iter().find(|name| self.namesake(product, name, profiles).is_some())
    }

    fn namesake_by(
        &self,
        profile: Profile,
        product: &ProductKey,
        device: &DeviceName,
    ) -> Option<(ProductKey, DeviceName)> {
        let is_other = |key: &ProductKey, name: &str| (key.as_str(), name) != (product.as_str(), device.as_str());
        let named = |name: &str| {
            let owners = self.allowed.owners(profile, name).into_iter();
            let known = |key: &ProductKey| is_other(key, name) && self.device(key.as_str(), name).is_some();
            Some((owners.into_iter().find(known)?, DeviceName::parse(name).ok()?))
        };
        if profile != Profile::Huawei {
            return named(device.as_str());
        }
        let whole = format!("{product}_{device}");
        // Of the same product, too, which may not take the profile yet.
        let own = DeviceName::parse(&whole).ok().filter(|name| self.device(product.as_str(), name.as_str()).is_some());
        let parted = |id: &str| {
            id.match_indices('_').find_map(|(at, _)| {
                let (key, name) = (ProductKey::parse(id.get(..at)?).ok()?, id.get(at + 1..)?);
                let takes = key == *product || self.allowed.of(key.as_str()).contains(profile);
                let is_known = takes && is_other(&key, name) && self.device(key.as_str(), name).is_some();
                Some((key, DeviceName::parse(name).ok()?)).filter(|_| is_known)
            })
        };
        let own = own.map(|name| (product.clone(), name));
        own.or_else(|| named(device.as_str()))
            .or_else(|| named(&whole))
            .or_else(|| parted(device.as_str()))
            .or_else(|| parted(&whole))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{DeviceRequest, Making, PlanError};
    use crate::secret::MasterKey;

    fn key(text: &str) -> ProductKey {
        ProductKey::parse(text).expect("a name")
    }

    fn name(text: &str) -> DeviceName {
        DeviceName::parse(text).expect("a name")
    }

    fn put(registry: &Registry, product: &str, device: &str) -> Result<(), PlanError> {
        let sealing = MasterKey::new([7; 32]);
        let making = Making { key: &sealing, random: [3; 28], now_s: 9 };
        let made = registry.plan_put_device(&key(product), &name(device), DeviceRequest::default(), &making)?;
        registry.apply(made.change);
        Ok(())
    }

    fn product(registry: &Registry, product: &str, profiles: &[Profile]) -> Result<(), PlanError> {
        registry.apply(registry.plan_put_product(&key(product), None, 1)?.0);
        registry.apply(registry.plan_allow_profiles(&key(product), profiles.iter().copied().collect())?);
        Ok(())
    }

    #[test]
    fn a_name_comes_once_in_the_products_that_take_a_profile_without_products() {
        let registry = Registry::new();
        for (text, profiles) in [
            ("t1", &[Profile::Tuya][..]),
            ("t2", &[Profile::Tuya, Profile::Native]),
            ("a1", &[Profile::Azure]),
            ("g1", &[Profile::Gizwits]),
            ("g2", &[Profile::GizwitsLegacy]),
            ("n1", &[Profile::Native, Profile::Aliyun, Profile::Tencent]),
            ("n2", &[Profile::Native]),
        ] {
            product(&registry, text, profiles).expect("new");
        }
        assert_eq!(put(&registry, "t1", "x"), Ok(()));
        assert_eq!(put(&registry, "t1", "x"), Ok(()), "it is there already");
        assert_eq!(put(&registry, "t2", "x"), Err(PlanError::NameTaken));
        for elsewhere in ["a1", "g1", "n1", "n2"] {
            assert_eq!(put(&registry, elsewhere, "x"), Ok(()), "{elsewhere}: other topics");
        }
        assert_eq!(put(&registry, "g2", "x"), Err(PlanError::NameTaken), "both have gizwits' topics");
        // And who has the name doesn't come to take the profile.
        let tuya = [Profile::Native, Profile::Tuya].into_iter().collect();
        assert_eq!(registry.plan_allow_profiles(&key("n1"), tuya).map(drop), Err(PlanError::NameTaken));
        assert_eq!(registry.plan_allow_profiles(&key("n1"), ProfileSet::DEFAULT).map(drop), Ok(()));
    }

    #[test]
    fn huaweis_ids_are_nobody_elses_however_they_are_parted() {
        let registry = Registry::new();
        for text in ["bank", "evil", "a", "a_b", "n"] {
            product(&registry, text, &[if text == "n" { Profile::Native } else { Profile::Huawei }]).expect("new");
        }
        assert_eq!(put(&registry, "bank", "safe1"), Ok(()));
        assert_eq!(put(&registry, "evil", "bank_safe1"), Err(PlanError::NameTaken));
        assert_eq!(put(&registry, "bank", "bank_safe1"), Err(PlanError::NameTaken));
        assert_eq!(put(&registry, "evil", "safe1"), Err(PlanError::NameTaken));
        assert_eq!(put(&registry, "n", "bank_safe1"), Ok(()), "it has no such topics");
        assert_eq!(put(&registry, "a", "b_c"), Ok(()));
        assert_eq!(put(&registry, "a_b", "c"), Err(PlanError::NameTaken));
        assert_eq!(put(&registry, "a_b", "d"), Ok(()));
        // The other way round: the name that is another's whole id was there first.
        assert_eq!(put(&registry, "evil", "bank_safe2"), Ok(()));
        assert_eq!(put(&registry, "bank", "safe2"), Err(PlanError::NameTaken));
        let huawei = [Profile::Huawei].into_iter().collect();
        assert_eq!(registry.plan_allow_profiles(&key("n"), huawei).map(drop), Err(PlanError::NameTaken));
    }
}
