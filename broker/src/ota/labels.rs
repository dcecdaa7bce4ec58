//! Tags and regions of devices change: campaigns that have drawn their groups keep whom they have, and those that go on taking devices in look again.

use std::sync::Arc;

use tokio::sync::oneshot;
use turnpike_authz::labels::Labels;
use turnpike_authz::names::{DeviceName, ProductKey};
use turnpike_ota::schedule::Held;
use turnpike_ota::target::Target;

use super::OtaDesk;
use super::record;
use super::state::candidate;

impl OtaDesk {
    /// Labels of devices are about to change: has recorded where these are in campaigns that have drawn their groups. The receiver resolves when that is on
    /// disk; none where there is nothing to record. The caller holds [`OtaDesk::changing`], and changes the labels then.
    pub fn hold(&self, devices: &[(ProductKey, DeviceName, Option<Arc<Labels>>)]) -> Option<oneshot::Receiver<()>> {
        let shell = self.shell();
        let mut state = self.state.lock();
        let mut ops = Vec::new();
        for (product, device, labels) in devices {
            let (product, device) = (product.as_str(), device.as_str());
            // One that is new was in none of them.
            let Some(found) = shell.registry.device(product, device) else { continue };
            let said = state.report_of(product, device);
            let whose = (product, device, found.created_at_s);
            let after = |target: &Target| candidate(whose, said, target, labels.as_deref());
            for held in state.scheduler.hold(product, device, after) {
                match held {
                    Held::In { campaign, standing, retries } => {
                        ops.push(record::put_standing(campaign, device, standing, retries));
                    }
                    Held::Out { campaign } => {
                        if state.left_out.entry(campaign).or_default().insert(device.into()) {
                            ops.push(record::put_left_out(campaign, device));
                        }
                    }
                }
            }
        }
        (!ops.is_empty()).then(|| shell.control.commit_registry(ops))
    }

    /// Labels of a device have changed: campaigns that still take devices in may want it.
    pub fn relabelled(&self, product: &str, device: &str) {
        let now = self.shell().control.now();
        let mut state = self.state.lock();
        let actions = self.appeared(&mut state, product, device, now);
        let carried = self.carry_out(&mut state, actions, None, now);
        drop(state);
        self.push(carried.offers);
    }
}
