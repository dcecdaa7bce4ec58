//! Messages to devices, and again to those who haven't subscribed yet.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use turnpike_ota::ids::CampaignId;
use turnpike_ota::machine::Kind;

use super::State;
use crate::server::Control;
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

impl Push {
    /// Sends it. Where nobody has subscribed yet, once more a little later, as long as the device waits for it.
    pub(super) async fn send(self, control: Control, state: Arc<Mutex<State>>) {
        for wait_s in AGAIN_S.map(Some).into_iter().chain([None]) {
            match control.publish_outside(self.message.clone()).await {
                Ok(Ok(true)) | Err(_) => return,
                Ok(Ok(false) | Err(_)) => {}
            }
            let Some(wait_s) = wait_s else { return };
            tokio::time::sleep(Duration::from_secs(wait_s)).await;
            if !self.is_awaited(&state.lock()) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use turnpike_core::clock::Now;
    use turnpike_core::gate::Principal;
    use turnpike_mqtt::QoS;
    use turnpike_ota::campaign::Campaign;
    use turnpike_ota::firmware::{Declared, Firmware, RunsOn, State as Stage};
    use turnpike_ota::ids::FirmwareId;
    use turnpike_ota::schedule::Report;
    use turnpike_ota::target::Target;

    use super::*;
    use crate::ota::CampaignRequest;
    use crate::ota::state::candidate;

    const ID: CampaignId = CampaignId(1);
    const NOW: Now = Now { mono_ms: 0, unix_ms: 1_000_000_000_000 };

    fn target() -> Target {
        "mcu".parse().expect("a target")
    }

    /// A device that is there and has an offer.
    fn offered() -> State {
        let firmware = Firmware {
            id: FirmwareId(4),
            product: turnpike_authz::names::ProductKey::parse("p").expect("a product"),
            target: target(),
            version: "2.0".parse().expect("a version"),
            runs_on: RunsOn::Any,
            release: 0,
            base: None,
            note: "".into(),
            created_at_s: 0,
            state: Stage::Uploading(Declared::default()),
        };
        let settings = CampaignRequest::plain("spring", 4).settings(&firmware, 0).expect("settings");
        let campaign = Campaign::new(ID, settings, NOW.unix_s()).expect("no fault");
        let mut state = State::default();
        let target = target();
        let device = candidate(("p", "d", 0), None, &target, None);
        drop(state.scheduler.add(campaign, [device], NOW).expect("added"));
        drop(state.scheduler.step(NOW));
        state.here.insert(("p".into(), "d".into()), 1);
        drop(state.scheduler.device_online("p", "d", None, NOW));
        assert_eq!(state.kind(ID, "d"), Some(Kind::Offered));
        state
    }

    fn push(state: &State) -> Push {
        let message = OutsideMessage {
            principal: Principal::Broker,
            topic: "dev/p/d/ota/offer".to_owned(),
            payload: Vec::new(),
            qos: QoS::AtLeastOnce,
            expires_at_ms: u64::MAX,
        };
        let offered = Offered { campaign: ID, product: "p".into(), device: "d".into(), kind: state.kind(ID, "d") };
        Push::offer(message, offered)
    }

    #[test]
    fn an_offer_is_awaited_until_the_device_has_gone_on() {
        let mut state = offered();
        let push = push(&state);
        assert!(push.is_awaited(&state));
        drop(state.scheduler.report("p", "d", &target(), Report::Accept, NOW).expect("it has an offer"));
        assert!(!push.is_awaited(&state), "it has heard it");
        assert!(Push::from(push.message).is_awaited(&state), "an answer is sent whatever comes");
    }

    #[test]
    fn one_that_has_gone_is_sent_it_when_it_comes() {
        let mut state = offered();
        let push = push(&state);
        state.here.clear();
        assert!(!push.is_awaited(&state));
    }
}
