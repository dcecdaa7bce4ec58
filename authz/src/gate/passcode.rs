//! A device that shows its passcode outside of MQTT: gizwits' devices of before 2025 do, when they ask for firmware over HTTP.

use crate::gate::Gatekeeper;
use crate::names::ProductKey;
use crate::profile::Profile;
use crate::registry::owner;
use crate::signed::is_same;

impl Gatekeeper {
    /// The product of a device of the profile `gizwits-legacy` that shows its passcode. None if it isn't one of these, isn't enabled, or shows another; or if its
    /// product takes log-ins through TLS alone and the passcode came without.
    #[must_use]
    pub fn passcode_owner(&self, device: &str, passcode: &str, tls: bool) -> Option<ProductKey> {
        let found = self.registry().find_by_device_name(Profile::GizwitsLegacy, device);
        found.into_iter().find_map(|(product, found)| {
            let may = found.product.enabled && found.device.enabled && (tls || !found.policy.require_tls);
            let secret = self.master_key().open(&owner(product.as_str(), device), &found.device.secret).ok()?;
            (may && is_same(passcode.as_bytes(), secret.expose())).then_some(product)
        })
    }
}
