//! Tags and regions of devices change: campaigns that have drawn their groups keep whom they have, and those that go on taking devices in look again.

use std::sync::Arc;

use tokio::sync::oneshot;
use turnpike_authz::labels::Labels;
use turnpike_authz::names::{DeviceName, ProductKey};
use turnpike_authz::registry::Registry;
use turnpike_core::durable::Op;
use turnpike_ota::schedule::Held;
use turnpike_ota::target::Target;

use super::record::{self, Reported};
use super::state::candidate;
use super::{OtaDesk, State};

impl State {
    /// Records of where a device is, which is about to change.
    pub(super) fn keep_held(&mut self, device: &str, held: Vec<Held>) -> Vec<Op> {
        let record = |held| match held {
            Held::In { campaign, standing, retries } => {
                Some(record::put_standing(campaign, device, standing, retries, None))
            }
            Held::Out { campaign } => {
                let is_new = self.left_out.entry(campaign).or_default().insert(device.into());
                is_new.then(|| record::put_left_out(campaign, device))
            }
        };
        held.into_iter().filter_map(record).collect()
    }

    /// What is to be recorded before a device's report is another one, so that a restart finds the device where it is now.
    pub(super) fn hold_report(
        &mut self,
        registry: &Registry,
        product: &str,
        device: &str,
        reported: &Reported,
    ) -> Vec<Op> {
        if self.report_of(product, device) == Some(reported) {
            return Vec::new();
        }
        let Some(found) = registry.device(product, device) else { return Vec::new() };
        let labels = registry.labels(product, device);
        let whose = (product, device, found.created_at_s);
        let after = |target: &Target| candidate(whose, Some(reported), target, labels.as_deref());
        let held = self.scheduler.hold(product, device, after);
        self.keep_held(device, held)
    }
}

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
            let held = state.scheduler.hold(product, device, after);
            ops.extend(state.keep_held(device, held));
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
        self.say(carried.committed, carried.offers);
    }
}
