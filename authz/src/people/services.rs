//! Services, the back ends: they read and control whole fleets of their tenant, from known networks, as far as they were granted.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use parking_lot::RwLock;

use super::ids::{AccessKey, TenantId};
use crate::names::ProductKey;
use crate::secret::Sealed;

/// What a grant lets a service do with the devices of a product.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Right {
    /// Read `dev/{p}/{d}/up/…`: what devices publish.
    ReadUp = 1,
    /// Read `dev/{p}/{d}/down/…`: what they are told.
    ReadDown = 2,
    /// Publish on `dev/{p}/{d}/down/…`: control.
    WriteDown = 4,
    /// Read `dev/{p}/{d}/{ota,backfill,sys}/…`.
    ReadSystem = 8,
    /// Read the topics of device SDKs in the field: `/sys/{p}/{d}/…`, `/{p}/{d}/user/…`.
    ReadVendor = 16,
    /// Publish there.
    WriteVendor = 32,
}

impl Right {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::ReadUp, Self::ReadDown, Self::WriteDown, Self::ReadSystem, Self::ReadVendor, Self::WriteVendor];

    /// As it is called in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadUp => "read_up",
            Self::ReadDown => "read_down",
            Self::WriteDown => "write_down",
            Self::ReadSystem => "read_system",
            Self::ReadVendor => "read_vendor",
            Self::WriteVendor => "write_vendor",
        }
    }
}

/// A set of rights.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Rights(u8);

impl Rights {
    /// What it takes to read everything under `dev/{p}/…`.
    pub(crate) const READ_DEVICE: Self = Self(Right::ReadUp as u8 | Right::ReadDown as u8 | Right::ReadSystem as u8);

    /// From the bits of a record; none if there is one that this version doesn't know.
    #[must_use]
    pub fn from_bits(bits: u8) -> Option<Self> {
        (bits & !Self::from_iter(Right::ALL).0 == 0).then_some(Self(bits))
    }

    /// For a record. A right's bit never changes.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Whether it has all of these.
    #[must_use]
    pub fn contains(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// What is in the set.
    pub fn iter(self) -> impl Iterator<Item = Right> {
        Right::ALL.into_iter().filter(move |right| self.contains((*right).into()))
    }
}

impl From<Right> for Rights {
    fn from(right: Right) -> Self {
        Self(right as u8)
    }
}

impl FromIterator<Right> for Rights {
    fn from_iter<I: IntoIterator<Item = Right>>(rights: I) -> Self {
        Self(rights.into_iter().fold(0, |bits, right| bits | right as u8))
    }
}

impl std::fmt::Debug for Rights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// What a service may do, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    /// A product of the service's tenant; none for all of them.
    pub product: Option<ProductKey>,
    /// What it may do there.
    pub rights: Rights,
}

/// A service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// Whose it is: it sees nothing of other tenants, whatever it is granted.
    pub tenant: TenantId,
    /// Its secret, sealed for its record.
    pub secret: Sealed,
    /// A service that isn't enabled doesn't get in.
    pub enabled: bool,
    /// Seconds since 1970 UTC.
    pub created_at_s: u64,
    /// Where it may come from; from anywhere if there are none.
    pub networks: Vec<IpNet>,
    /// What it may do.
    pub grants: Vec<Grant>,
}

impl Service {
    /// Whether it may come from an address. IPv4 in IPv6 counts as IPv4.
    #[must_use]
    pub fn may_come_from(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.networks.is_empty() || self.networks.iter().any(|network| network.contains(&peer))
    }

    /// Whether the grants give these rights for a product, whosever it is.
    pub(crate) fn is_granted(&self, product: &str, rights: Rights) -> bool {
        let covers = |grant: &&Grant| grant.product.as_ref().is_none_or(|granted| granted.as_str() == product);
        let given = self.grants.iter().filter(covers).fold(0, |bits, grant| bits | grant.rights.0);
        Rights(given).contains(rights)
    }
}

/// All services, and whose the products are.
#[derive(Debug, Default)]
pub(crate) struct Services {
    /// Read with each topic of a service, and hardly ever changed: a change copies the map.
    services: ArcSwap<Map>,
    /// Of products that aren't the default tenant's.
    tenants: RwLock<HashMap<ProductKey, TenantId, foldhash::fast::RandomState>>,
}

type Map = HashMap<AccessKey, Arc<Service>, foldhash::fast::RandomState>;

impl Services {
    pub(crate) fn get(&self, key: &str) -> Option<Arc<Service>> {
        self.services.load().get(key).cloned()
    }

    pub(crate) fn put(&self, key: AccessKey, service: Service) {
        let mut services = Map::clone(&self.services.load());
        services.insert(key, Arc::new(service));
        self.services.store(Arc::new(services));
    }

    pub(crate) fn delete(&self, key: &AccessKey) {
        let mut services = Map::clone(&self.services.load());
        services.remove(key);
        self.services.store(Arc::new(services));
    }

    /// Up to `limit` services after a key, in order.
    pub(crate) fn page(&self, after: Option<&str>, limit: usize) -> Vec<(AccessKey, Arc<Service>)> {
        let services = self.services.load();
        let behind = services.iter().filter(|(key, _)| after.is_none_or(|after| key.as_str() > after));
        let mut page: Vec<_> = behind.map(|(key, service)| (key.clone(), Arc::clone(service))).collect();
        page.sort_by(|a, b| a.0.cmp(&b.0));
        page.truncate(limit);
        page
    }

    pub(crate) fn set_tenant(&self, product: ProductKey, tenant: TenantId) {
        let mut tenants = self.tenants.write();
        if tenant == TenantId::default() {
            tenants.remove(&product);
        } else {
            tenants.insert(product, tenant);
        }
    }

    pub(crate) fn tenant_of(&self, product: &str) -> TenantId {
        self.tenants.read().get(product).cloned().unwrap_or_default()
    }

    /// Whether a product is a tenant's.
    #[inline]
    pub(crate) fn is_of(&self, product: &str, tenant: &TenantId) -> bool {
        match self.tenants.read().get(product) {
            Some(owner) => owner == tenant,
            None => tenant.as_str() == "default",
        }
    }

    /// Whether a service, right now, has these rights for a product.
    #[inline]
    pub(crate) fn may(&self, key: &str, product: &str, rights: Rights) -> bool {
        let services = self.services.load();
        let Some(service) = services.get(key) else { return false };
        service.enabled && service.is_granted(product, rights) && self.is_of(product, &service.tenant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(networks: &[&str]) -> Service {
        Service {
            tenant: TenantId::default(),
            secret: Sealed::from_bytes(&[]),
            enabled: true,
            created_at_s: 0,
            networks: networks.iter().map(|text| text.parse().expect("a network")).collect(),
            grants: Vec::new(),
        }
    }

    #[test]
    fn a_service_comes_from_its_networks_only() {
        let service_of = service(&["10.1.0.0/16", "2001:db8::/32"]);
        for (peer, may) in [
            ("10.1.2.3", true),
            ("10.2.2.3", false),
            ("::ffff:10.1.2.3", true),
            ("::ffff:10.2.2.3", false),
            ("2001:db8::1", true),
            ("2001:db9::1", false),
        ] {
            assert_eq!(service_of.may_come_from(peer.parse().expect("an address")), may, "{peer}");
        }
        assert!(service(&[]).may_come_from([1, 2, 3, 4].into()));
    }

    #[test]
    fn rights_are_given_by_several_grants_together() {
        let (up, down) = (Rights::from(Right::ReadUp), Rights::from(Right::WriteDown));
        let product = ProductKey::parse("p").ok();
        let grants = vec![Grant { product: None, rights: up }, Grant { product, rights: down }];
        let service = Service { grants, ..service(&[]) };
        let both = Rights::from_iter([Right::ReadUp, Right::WriteDown]);
        assert!(service.is_granted("p", both) && service.is_granted("q", up));
        assert!(!service.is_granted("q", both) && !service.is_granted("p", Rights::READ_DEVICE));
        assert_eq!(both.iter().collect::<Vec<_>>(), [Right::ReadUp, Right::WriteDown]);
        assert_eq!((Rights::from_bits(0x80), Rights::from_bits(5)), (None, Some(both)));
    }
}
