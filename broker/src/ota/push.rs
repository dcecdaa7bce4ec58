//! Messages to devices, and again to those who haven't subscribed yet.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use turnpike_ota::ids::CampaignId;
use turnpike_ota::machine::Kind;

use super::{OtaDesk, State};
use crate::shard::OutsideMessage;

/// Seconds before it is sent again that nobody has subscribed to: a device that has just come in subscribes in a moment.
const AGAIN_S: [u64; 4] = [1, 2, 4, 8];

/// A message for a device.
#[derive(Debug)]
pub(super) struct Push {
    message: OutsideMessage,
    /// The offer that it is, if it is one.
    offer: Option<Offered>,
}

/// How the device stood when it was sent the offer.
#[derive(Debug)]
pub(super) struct Offered {
    pub(super) campaign: CampaignId,
    pub(super) product: Box<str>,
    pub(super) device: Box<str>,
    pub(super) kind: Option<Kind>,
}

impl From<OutsideMessage> for Push {
    fn from(message: OutsideMessage) -> Self {
        Self { message, offer: None }
    }
}

impl Push {
    pub(super) fn offer(message: OutsideMessage, offered: Offered) -> Self {
        Self { message, offer: Some(offered) }
    }

    /// Whether the device still waits for it. One that has gone is sent it when it comes, and one that has gone on has heard it as the answer to its check.
    fn is_awaited(&self, state: &State) -> bool {
        let Some(Offered { campaign, product, device, kind }) = &self.offer else { return true };
        let is_here = state.here.contains_key(&(product.clone(), device.clone()));
        is_here && state.kind(*campaign, device) == *kind
    }
}

impl State {
    /// How a device stands in a campaign.
    pub(super) fn kind(&self, campaign: CampaignId, device: &str) -> Option<Kind> {
        self.scheduler.member(campaign, device).map(|member| member.standing.state.kind())
    }
}

impl OtaDesk {
    /// Sends messages. Where nobody has subscribed yet, once more a little later, as long as the device waits for it.
    pub(super) fn push(&self, messages: Vec<Push>) {
        for push in messages {
            let (control, state): (_, Arc<Mutex<State>>) = (self.shell().control.clone(), Arc::clone(&self.state));
            tokio::spawn(async move {
                for wait_s in AGAIN_S.map(Some).into_iter().chain([None]) {
                    match control.publish_outside(push.message.clone()).await {
                        Ok(Ok(true)) | Err(_) => return,
                        Ok(Ok(false) | Err(_)) => {}
                    }
                    let Some(wait_s) = wait_s else { return };
                    tokio::time::sleep(Duration::from_secs(wait_s)).await;
                    if !push.is_awaited(&state.lock()) {
                        return;
                    }
                }
            });
        }
    }
}
