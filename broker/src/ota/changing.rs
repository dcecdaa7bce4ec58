//! Changes by the API, one at a time. Whoever changes something holds [`Changing`] until it is known whether the change is on disk, so that the next one is
//! judged by what will be there; also where whoever asked has given up meanwhile, or has gone.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedMutexGuard, oneshot};
use tokio::task::JoinHandle;
use turnpike_ota::catalog::{Change, Unsuited};
use turnpike_ota::ids::{CampaignId, FirmwareId};

use super::state::{Order, Unknown};
use super::{CampaignRequest, OtaDesk};

/// The right to change catalog and campaigns.
pub type Changing = OwnedMutexGuard<()>;

impl OtaDesk {
    /// Held by whoever changes catalog or campaigns, from the plan until it is known what has become of it. While the store takes nothing that may be long.
    pub async fn changing(&self) -> Changing {
        Arc::clone(&self.changing).lock_owned().await
    }

    /// Commits changes of the catalog, and applies them when they are on disk; `then` hears whether they are. The task says the same, and goes on without
    /// whoever waits for it.
    pub fn change_catalog(
        self: &Arc<Self>,
        changing: Changing,
        changes: Vec<Change>,
        then: impl FnOnce(&Arc<Self>, bool) + Send + 'static,
    ) -> JoinHandle<bool> {
        let (desk, committed) = (Arc::clone(self), self.commit_catalog(&changes));
        tokio::spawn(async move {
            let is_on_disk = committed.await.is_ok();
            if is_on_disk {
                let mut state = desk.state.lock();
                changes.into_iter().for_each(|change| state.catalog.apply(change));
            }
            then(&desk, is_on_disk);
            drop(changing);
            is_on_disk
        })
    }

    /// Makes a campaign, which begins once it is on disk. If it isn't within `patience`, there never was one.
    pub fn create_campaign(
        self: &Arc<Self>,
        changing: Changing,
        request: CampaignRequest,
        salt: u64,
        patience: Duration,
    ) -> JoinHandle<Result<CampaignId, Unknown>> {
        let desk = Arc::clone(self);
        tokio::spawn(async move {
            // All devices of the product are looked at: beside this thread.
            let drawing = Arc::clone(&desk);
            let prepared = tokio::task::spawn_blocking(move || drawing.prepare_campaign(request, salt)).await;
            let (id, committed) = prepared.map_err(|_| Unknown::Store)??;
            if let Ok(Ok(())) = tokio::time::timeout(patience, committed).await {
                desk.state.lock().scheduler.admit(id);
                drop(changing);
                return Ok(id);
            }
            let undone = desk.withdraw_campaign(id);
            tokio::spawn(async move {
                let _ = undone.await;
                drop(changing);
            });
            Err(Unknown::Store)
        })
    }

    /// Does to a campaign what an operator wants, as [`OtaDesk::order`] does. `changing` is held until it is on disk; the receiver resolves then.
    ///
    /// # Errors
    /// There is none, or it can't be done to it now.
    pub fn order_held(
        &self,
        changing: Changing,
        id: CampaignId,
        order: Order,
        by: &str,
    ) -> Result<oneshot::Receiver<()>, turnpike_ota::campaign::Refusal> {
        let committed = self.order(id, order, by)?;
        Ok(hold(changing, committed))
    }

    /// Forgets a campaign that is over, in the same way.
    ///
    /// # Errors
    /// There is none, or it isn't over.
    pub fn delete_held(
        &self,
        changing: Changing,
        id: CampaignId,
    ) -> Result<oneshot::Receiver<()>, turnpike_ota::campaign::Refusal> {
        Ok(hold(changing, Some(self.delete_campaign(id)?)))
    }
}

/// Passes on what has become of a commit, and gives the right back then.
fn hold(changing: Changing, committed: Option<oneshot::Receiver<()>>) -> oneshot::Receiver<()> {
    let (said, outcome) = oneshot::channel();
    tokio::spawn(async move {
        let is_on_disk = match committed {
            Some(committed) => committed.await.is_ok(),
            None => true,
        };
        drop(changing);
        if is_on_disk {
            // Whoever waited may have gone.
            let _ = said.send(());
        }
    });
    outcome
}

/// Why a firmware can't be a campaign's, whatever devices there are.
pub(super) fn judged(state: &super::State, firmware: FirmwareId) -> Result<(), Unknown> {
    state.catalog.judge(firmware).map_err(|unsuited| match unsuited {
        Unsuited::NotReady => Unknown::NotReady,
        Unsuited::NoSuchFirmware => Unknown::Firmware,
        other => Unknown::Unsuited(other),
    })
}
