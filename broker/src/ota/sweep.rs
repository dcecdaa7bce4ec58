//! Devices and products that are no more: nothing of theirs is left, whoever has deleted them, and whenever the broker ends meanwhile.
//!
//! A product goes in bounded steps, each with its commit: its campaigns, then its firmware with the files, then what its devices have reported. What a crash leaves is of a
//! product that the registry doesn't have, and goes on being removed at the next start.

use std::sync::Arc;
use std::time::Duration;

use turnpike_authz::names::ProductKey;
use turnpike_authz::registry::Registry;
use turnpike_core::concern::Concern;
use turnpike_core::durable::Op;
use turnpike_core::gate::Principal;
use turnpike_ota::campaign::Campaign;
use turnpike_ota::catalog::Change;

use super::state::DELETED_AT_ONCE;
use super::{OtaDesk, State, Work, record};

/// Before a step is tried again that couldn't be committed.
const PAUSE: Duration = Duration::from_secs(1);

/// How far a sweep is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Swept {
    /// There may be more.
    Some,
    /// Nothing is left.
    All,
}

/// The store takes nothing.
struct NotCommitted;

impl State {
    /// Products of which something is known, and which the registry doesn't have. Where there may be devices that it never had, what these have reported stays.
    pub(super) fn find_swept(&mut self, registry: &Registry, strangers: bool) {
        let of_catalog = self.catalog.products().cloned();
        let of_reports = self.reported.keys().filter(|_| !strangers);
        let of_reports = of_reports.filter_map(|product| ProductKey::parse(product).ok());
        let swept: Vec<_> = of_catalog.chain(of_reports).collect();
        self.swept.extend(swept.into_iter().filter(|product| registry.product(product.as_str()).is_none()));
    }
}

impl OtaDesk {
    /// Hears of devices that are no more. Never waits.
    pub(super) fn gone(&self, concern: &Concern) {
        match concern {
            Concern::Principal(Principal::Device(identity)) => {
                // In its place among what devices of that name say.
                let _ = self.work.send(Work::Gone(Arc::clone(identity)));
            }
            Concern::Product(product) => {
                if let Ok(product) = ProductKey::parse(product) {
                    self.state.lock().swept.insert(product);
                    self.to_sweep.notify_one();
                }
            }
            Concern::Principal(_) | Concern::App(_) | Concern::Users | Concern::Services => {}
        }
    }

    /// A device is no more: it is taken out of its campaigns, and what it reported is forgotten.
    pub(super) fn forget_device(&self, product: &str, device: &str) {
        let now = self.shell().control.now();
        let mut state = self.state.lock();
        let actions = state.scheduler.device_gone(product, device, now);
        let op = state.forget_device(product, device);
        let carried = self.carry_out_with(&mut state, actions, None, op.into_iter().collect(), now);
        drop(state);
        self.say(carried.committed, carried.offers);
    }

    /// Whether something is left of a product that was deleted: no other may have its name until then.
    #[must_use]
    pub fn is_swept(&self, product: &ProductKey) -> bool {
        self.state.lock().swept.contains(product)
    }

    /// Waits until nothing is left of a product that was deleted.
    pub async fn wait_until_swept(&self, product: &ProductKey) {
        loop {
            let next = self.swept.notified();
            tokio::pin!(next);
            // Before it is looked: what ends in between isn't missed.
            next.as_mut().enable();
            if !self.is_swept(product) {
                return;
            }
            next.await;
        }
    }

    /// Removes what is left of deleted products, until the process ends.
    pub(super) async fn sweep(self: Arc<Self>) {
        loop {
            let next = self.state.lock().swept.first().cloned();
            let Some(product) = next else {
                self.to_sweep.notified().await;
                continue;
            };
            match self.sweep_some(&product).await {
                Ok(Swept::Some) => {}
                Ok(Swept::All) => {
                    self.state.lock().swept.remove(&product);
                    self.swept.notify_waiters();
                }
                Err(NotCommitted) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    async fn sweep_some(self: &Arc<Self>, product: &ProductKey) -> Result<Swept, NotCommitted> {
        let _changing = self.changing.lock().await;
        let is_its = |campaign: &&Campaign| *campaign.settings().filter.product == *product.as_str();
        let parts = {
            let mut state = self.state.lock();
            let campaign = state.scheduler.campaigns().find(is_its).map(Campaign::id);
            let campaign = campaign.or_else(|| state.invalid_of(product));
            campaign
                .and_then(|id| state.take_campaign(id, |scheduler| scheduler.discard(id).then_some(()).ok_or(())).ok())
        };
        if let Some(parts) = parts {
            for part in parts {
                self.committed(part).await?;
            }
            return Ok(Swept::Some);
        }
        let changes = self.state.lock().catalog.plan_sweep(product, DELETED_AT_ONCE);
        if !changes.is_empty() {
            for change in &changes {
                // What a crash leaves of the file in a bucket is found by this.
                if let Change::Delete(id) = change {
                    self.mark_gone(*id).map_err(|_| NotCommitted)?;
                }
            }
            self.commit_catalog(&changes).await.map_err(|_| NotCommitted)?;
            for change in changes {
                let file = if let Change::Delete(id) = &change { Some(*id) } else { None };
                self.state.lock().catalog.apply(change);
                file.into_iter().for_each(|id| self.discard(id));
            }
            return Ok(Swept::Some);
        }
        let forgotten: Vec<_> = {
            let mut state = self.state.lock();
            let Some(reported) = state.reported.get_mut(product.as_str()) else { return Ok(Swept::All) };
            let some: Vec<_> = reported.keys().take(DELETED_AT_ONCE).cloned().collect();
            some.iter().for_each(|device| drop(reported.remove(device)));
            if reported.is_empty() {
                state.reported.remove(product.as_str());
            }
            some.iter().map(|device| record::delete_reported(product.as_str(), device)).collect()
        };
        self.committed(forgotten).await?;
        Ok(Swept::Some)
    }

    async fn committed(&self, ops: Vec<Op>) -> Result<(), NotCommitted> {
        self.shell().control.commit_registry(ops).await.map_err(|_| NotCommitted)
    }
}
