//! Names of the devices that are in a campaign or connected, and who is connected: about 80 bytes each, the name included, once for all campaigns.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashTable};
use turnpike_core::table::Table;

use crate::fleet::DeviceKey;
use crate::zone::Zone;

/// A product, by the order of coming. Products aren't forgotten; there are few.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct ProductKey(u32);

#[derive(Debug)]
struct Entry {
    name: Box<str>,
    product: ProductKey,
    /// In how many campaigns it is.
    campaigns: u32,
    zone: Option<Zone>,
    connected: bool,
}

#[derive(Debug, Default)]
pub(super) struct Directory {
    products: Vec<Box<str>>,
    products_by_name: HashMap<Box<str>, ProductKey, FixedState>,
    devices: Table<Entry>,
    /// Keys with a part of the hash: the table grows without looking at names.
    by_name: HashTable<(u32, DeviceKey)>,
}

impl Directory {
    pub(super) fn product(&self, name: &str) -> Option<ProductKey> {
        self.products_by_name.get(name).copied()
    }

    pub(super) fn product_or_add(&mut self, name: &str) -> ProductKey {
        if let Some(key) = self.product(name) {
            return key;
        }
        let key = ProductKey(u32::try_from(self.products.len()).expect("fewer products than 2^32"));
        self.products.push(name.into());
        self.products_by_name.insert(name.into(), key);
        key
    }

    pub(super) fn reserve(&mut self, devices: usize) {
        self.by_name.reserve(devices, |(hash, _)| spread(*hash));
    }

    pub(super) fn find(&self, product: &str, device: &str) -> Option<DeviceKey> {
        self.find_in(self.product(product)?, device)
    }

    pub(super) fn find_in(&self, product: ProductKey, device: &str) -> Option<DeviceKey> {
        let hash = hash(product, device);
        let same = |(other, key): &(u32, DeviceKey)| {
            let entry = self.devices.get(key.0 as usize);
            *other == hash && entry.is_some_and(|entry| entry.product == product && *entry.name == *device)
        };
        self.by_name.find(spread(hash), same).map(|(_, key)| *key)
    }

    pub(super) fn find_or_add(&mut self, product: ProductKey, device: &str) -> DeviceKey {
        if let Some(key) = self.find_in(product, device) {
            return key;
        }
        let entry = Entry { name: device.into(), product, campaigns: 0, zone: None, connected: false };
        let key = DeviceKey(u32::try_from(self.devices.insert(entry)).expect("a table's keys are below 2^32"));
        let hash = hash(product, device);
        self.by_name.insert_unique(spread(hash), (hash, key), |(hash, _)| spread(*hash));
        key
    }

    /// A device is in one more campaign.
    pub(super) fn enlist(&mut self, key: DeviceKey) {
        if let Some(entry) = self.devices.get_mut(key.0 as usize) {
            entry.campaigns += 1;
        }
    }

    /// A device is in one campaign less.
    pub(super) fn discharge(&mut self, key: DeviceKey) {
        if let Some(entry) = self.devices.get_mut(key.0 as usize) {
            entry.campaigns = entry.campaigns.saturating_sub(1);
        }
        self.forget_if_idle(key);
    }

    /// A device is connected. A zone that it doesn't report is the one that it reported last.
    pub(super) fn connect(&mut self, key: DeviceKey, zone: Option<Zone>) {
        if let Some(entry) = self.devices.get_mut(key.0 as usize) {
            entry.connected = true;
            entry.zone = zone.or(entry.zone);
        }
    }

    pub(super) fn disconnect(&mut self, key: DeviceKey) {
        if let Some(entry) = self.devices.get_mut(key.0 as usize) {
            entry.connected = false;
        }
        self.forget_if_idle(key);
    }

    /// Forgets a device that is neither connected nor in a campaign.
    pub(super) fn forget_if_idle(&mut self, key: DeviceKey) {
        let Some(entry) = self.devices.get(key.0 as usize) else { return };
        if entry.connected || entry.campaigns > 0 {
            return;
        }
        let hash = hash(entry.product, &entry.name);
        if let Ok(found) = self.by_name.find_entry(spread(hash), |(_, other)| *other == key) {
            found.remove();
        }
        self.devices.remove(key.0 as usize);
    }

    pub(super) fn is_connected(&self, key: DeviceKey) -> bool {
        self.devices.get(key.0 as usize).is_some_and(|entry| entry.connected)
    }

    pub(super) fn zone(&self, key: DeviceKey) -> Option<Zone> {
        self.devices.get(key.0 as usize)?.zone
    }

    pub(super) fn name(&self, key: DeviceKey) -> Option<(&str, &str)> {
        let entry = self.devices.get(key.0 as usize)?;
        Some((self.products.get(entry.product.0 as usize)?, &entry.name))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.devices.len()
    }
}

fn hash(product: ProductKey, device: &str) -> u32 {
    let hash = FixedState::default().hash_one((product, device));
    (hash ^ hash >> 32) as u32
}

/// The table uses the lowest and the highest bits.
const fn spread(hash: u32) -> u64 {
    (hash as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
