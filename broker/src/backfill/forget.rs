//! Devices that are no more: nothing is left of what they handed in when somebody else gets their names.

use std::rc::Rc;

use turnpike_backfill::ledger;
use turnpike_core::concern::Concern;
use turnpike_core::durable::Op;
use turnpike_core::gate::{DeviceIdentity, Principal};

use super::under_way::{Key, device_of};
use super::worker::Worker;

/// Who is no more, and which devices of theirs had a batch under way.
pub(super) type Leaving = Vec<(Concern, Vec<Key>)>;

impl Worker {
    /// Stops what is under way of these and forgets what is known of them: now, and once more when all of it has stopped.
    pub(super) fn forget(self: &Rc<Self>, concern: Concern) {
        if !matches!(concern, Concern::Product(_) | Concern::Principal(Principal::Device(_))) {
            return;
        }
        let stopped = self.under_way.close(&concern);
        let keys = self.remove(&concern);
        if !keys.is_empty() {
            drop(self.shared.control.commit_registry(keys.into_iter().map(Op::RegistryDelete).collect()));
        }
        self.leaving.borrow_mut().push((concern, stopped));
        if !self.is_sweeping.replace(true) {
            tokio::task::spawn_local(Rc::clone(self).sweep());
        }
    }

    async fn sweep(self: Rc<Self>) {
        loop {
            let round = std::mem::take(&mut *self.leaving.borrow_mut());
            if round.is_empty() {
                self.is_sweeping.set(false);
                return;
            }
            // Then shards have ended the connections of all of them: what they have handed in, nobody wants any more.
            self.shared.control.turn_around().await;
            let mut keys = Vec::new();
            for (concern, stopped) in &round {
                self.under_way.ended(concern).await;
                // A slice that was under way has kept a ledger once more, and is on disk by now.
                keys.extend(stopped.iter().map(|(product, device)| ledger::key(product, device)));
                keys.extend(self.remove(concern));
            }
            if !keys.is_empty() {
                // It fails when the broker ends. While the store fails it stays pending, and nothing could be taken anyway.
                let ops = keys.into_iter().map(Op::RegistryDelete).collect();
                let _ = self.shared.control.commit_registry(ops).await;
            }
            round.iter().for_each(|(concern, _)| self.under_way.open(concern));
        }
    }

    /// Removes ledgers; the keys of their records.
    fn remove(&self, concern: &Concern) -> Vec<Box<[u8]>> {
        let mut ledgers = self.ledgers.borrow_mut();
        if let Some((product, device)) = device_of(concern) {
            let found = ledgers.remove(&product, &device);
            return found.iter().map(|_| ledger::key(&product, &device)).collect();
        }
        ledgers.remove_all(|product, device| {
            concern.covers(&Principal::Device(std::sync::Arc::new(DeviceIdentity::new(product, device))))
        })
    }
}
