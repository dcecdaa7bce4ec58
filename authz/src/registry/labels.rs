//! Tags and regions of devices: separate from these, since few have any.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::labels::{Labels, Wanted};
use crate::names::{DeviceName, ProductKey};
use crate::plan::Change;
use crate::registry::{Device, Registry};

impl Registry {
    /// A device's labels, if it has any.
    #[must_use]
    pub fn labels(&self, product: &str, name: &str) -> Option<Arc<Labels>> {
        self.live(product).and_then(|(entry, _)| entry.labels.read().get(name).cloned())
    }

    /// The labels of all devices of a product that have some.
    #[must_use]
    pub fn all_labels(&self, product: &str) -> BTreeMap<DeviceName, Arc<Labels>> {
        self.live(product).map(|(entry, _)| entry.labels.read().all().clone()).unwrap_or_default()
    }

    /// Up to `limit` devices of a product after a name that have such labels, in order, of the next `looks` that have any; and the name after which to go on,
    /// if there are more.
    #[must_use]
    pub fn labelled(
        &self,
        product: &str,
        wanted: &Wanted,
        after: Option<&str>,
        (limit, looks): (usize, usize),
    ) -> (Vec<(DeviceName, Device)>, Option<DeviceName>) {
        let Some((entry, _)) = self.live(product) else { return (Vec::new(), None) };
        let (names, next) = entry.labels.read().find(wanted, after, (limit, looks));
        let devices = entry.devices.read();
        let found = names.into_iter().filter_map(|name| devices.get(&name).cloned().map(|device| (name, device)));
        (found.collect(), next)
    }

    pub(super) fn set_labels(&self, product: &ProductKey, name: DeviceName, labels: Option<Arc<Labels>>) {
        let entry = self.entry_or_new(product.clone());
        entry.labels.write().set(name, labels);
        self.forget_if_empty(product, &entry);
    }

    /// What removes the labels of a deleted product's devices.
    pub(crate) fn left_labels(&self, product: &ProductKey, limit: usize) -> Vec<Change> {
        let Some(entry) = self.swept(product) else { return Vec::new() };
        let labels = entry.labels.read();
        labels.names().take(limit).map(|name| Change::SetLabels(product.clone(), name.clone(), None)).collect()
    }
}
