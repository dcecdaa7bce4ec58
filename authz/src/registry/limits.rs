//! How fast single products and devices may be: separate from these, since few have limits of their own.

use std::sync::Arc;

use crate::limits::{WrittenFlow, WrittenLimits};
use crate::names::{DeviceName, ProductKey};
use crate::plan::Change;
use crate::registry::Registry;

impl Registry {
    /// A product's own limits, if it has any.
    #[must_use]
    pub fn product_limits(&self, product: &str) -> Option<Arc<WrittenLimits>> {
        self.live(product).and_then(|(entry, _)| entry.limits.read().product.clone())
    }

    /// A device's own limit, if it has one.
    #[must_use]
    pub fn device_limit(&self, product: &str, name: &str) -> Option<Arc<WrittenFlow>> {
        self.live(product).and_then(|(entry, _)| entry.limits.read().devices.get(name).cloned())
    }

    /// The changes that limits and guard follow: for [`crate::guarded::Guarded::follow`], at start.
    #[must_use]
    pub fn followed(&self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (product, entry) in self.products.read().iter() {
            let policy = entry.head.read().policy;
            changes.extend(policy.refuse_clones.map(|_| Change::SetPolicy(product.clone(), policy)));
            let limits = entry.limits.read();
            let own = limits.product.clone();
            changes.extend(own.map(|limits| Change::LimitProduct(product.clone(), Some(limits))));
            let device = |(name, flow): (&DeviceName, &Arc<WrittenFlow>)| {
                Change::LimitDevice(product.clone(), name.clone(), Some(Arc::clone(flow)))
            };
            changes.extend(limits.devices.iter().map(device));
        }
        changes
    }

    pub(super) fn set_product_limits(&self, product: &ProductKey, limits: Option<Arc<WrittenLimits>>) {
        let entry = self.entry_or_new(product.clone());
        entry.limits.write().product = limits;
        self.forget_if_empty(product, &entry);
    }

    pub(super) fn set_device_limit(&self, product: &ProductKey, name: DeviceName, flow: Option<Arc<WrittenFlow>>) {
        let entry = self.entry_or_new(product.clone());
        match flow {
            Some(flow) => drop(entry.limits.write().devices.insert(name, flow)),
            None => drop(entry.limits.write().devices.remove(&name)),
        }
        self.forget_if_empty(product, &entry);
    }

    /// What removes the limits of a deleted product and of its devices.
    pub(crate) fn left_limits(&self, product: &ProductKey, limit: usize) -> Vec<Change> {
        let Some(entry) = self.swept(product) else { return Vec::new() };
        let limits = entry.limits.read();
        let devices = limits.devices.keys().map(|name| Change::LimitDevice(product.clone(), name.clone(), None));
        let own = limits.product.iter().map(|_| Change::LimitProduct(product.clone(), None));
        own.chain(devices).take(limit).collect()
    }
}
