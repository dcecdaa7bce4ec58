//! Offers: which file, to whom, in whose words.

use turnpike_authz::profile::Profile;
use turnpike_core::clock::Now;
use turnpike_core::gate::Principal;
use turnpike_mqtt::QoS;
use turnpike_ota::catalog::Unsuited;
use turnpike_ota::fleet::DeviceKey;
use turnpike_ota::ids::{CampaignId, FirmwareId};
use turnpike_ota::machine::Reason;
use turnpike_ota::schedule::{Action, Report};
use turnpike_ota::token::Grant;
use turnpike_ota::wire::aliyun::{SignMethod, Upgrade};
use turnpike_ota::wire::native::{Answer, Link, Offer};
use turnpike_ota::wire::{RequestId, gizwits};

use super::push::{self, Push};
use super::record::{Reported, Speaks};
use super::state::Carried;
use super::{OtaDesk, State, count};
use crate::shard::OutsideMessage;

/// Milliseconds for which an offer waits in a session.
const OFFER_MS: u64 = 24 * 3_600_000;

/// An offer that is to go out.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) product: Box<str>,
    pub(super) device: Box<str>,
    pub(super) campaign: CampaignId,
    pub(super) file: FirmwareId,
    pub(super) url: Option<(String, u64)>,
}

/// A device that is to have an offer.
pub(super) struct Offered {
    pub(super) campaign: CampaignId,
    pub(super) device: DeviceKey,
    pub(super) product: Box<str>,
    pub(super) name: Box<str>,
    pub(super) again: bool,
}

impl OtaDesk {
    /// Has a device offered what suits it, or reports why it isn't; what follows from that.
    pub(super) fn offer(
        &self,
        state: &mut State,
        Offered { campaign, device, product, name, again }: Offered,
        answered: Option<(&str, &str)>,
        carried: &mut Carried,
        now: Now,
    ) -> Vec<Action> {
        if self.shell().registry.device(&product, &name).is_none() {
            return state.scheduler.device_gone(&product, &name, now);
        }
        if !again && state.awaits_zone(campaign, &product, &name) {
            return state.scheduler.withhold(campaign, device, Reason::ZONE_UNKNOWN, now);
        }
        let file = match state.suited(campaign, (&product, &name), again) {
            Ok(suited) => suited.firmware.id,
            Err(unsuited) => {
                tracing::debug!(%campaign, %unsuited, "a device isn't offered a campaign's firmware");
                if let Some(reason) = mendable(unsuited, state.report_of(&product, &name)) {
                    return state.scheduler.withhold(campaign, device, reason, now);
                }
                let target = state.scheduler.campaign(campaign).map(|campaign| campaign.settings().target.clone());
                let rejected = Report::Reject(Reason::UNSUITABLE);
                let report =
                    target.and_then(|target| state.scheduler.report(&product, &name, &target, rejected, now).ok());
                return report.unwrap_or_default();
            }
        };
        carried.ops.extend(state.note_file(campaign, &name, file));
        let outgoing = Outgoing {
            campaign,
            file,
            url: self.link_for(campaign, file, (&product, &name), now),
            product,
            device: name,
        };
        count(&self.counts.offers);
        if answered == Some((&*outgoing.product, &*outgoing.device)) {
            if !carried.answer.iter().any(|other| other.campaign == campaign) {
                carried.answer.push(outgoing);
            }
        } else {
            carried.offers.extend(self.pushed(state, &outgoing, now));
        }
        Vec::new()
    }

    fn link_for(
        &self,
        campaign: CampaignId,
        firmware: FirmwareId,
        (product, device): (&str, &str),
        now: Now,
    ) -> Option<(String, u64)> {
        let link = self.link.get()?;
        let expires_at_s = now.unix_s() + self.settings.token_s;
        let grant = Grant { firmware, campaign, product: product.into(), device: device.into(), expires_at_s };
        Some((format!("{link}/ota/v1/{firmware}?token={}", self.tokens.seal(&grant)), expires_at_s))
    }

    /// The message by which a device is offered something unasked.
    pub(super) fn pushed(&self, state: &State, outgoing: &Outgoing, now: Now) -> Option<Push> {
        let Outgoing { product, device, campaign, .. } = outgoing;
        let kind = state.kind(*campaign, device);
        let offered = push::Offered { campaign: *campaign, product: product.clone(), device: device.clone(), kind };
        let message = match self.speaks(state, product, device) {
            Speaks::Native => {
                let payload = native(state, Some(outgoing), None, None)?;
                message(offer_topic(product, device), payload, now)
            }
            Speaks::Aliyun => {
                let number = u32::try_from(now.unix_s()).unwrap_or(u32::MAX);
                let payload = upgrade(state, outgoing, |upgrade| upgrade.pushed(number))?;
                message(upgrade_topic(product, device), payload, now)
            }
            Speaks::Gizwits => {
                let part = gizwits::Part::of(&state.catalog.get(outgoing.file)?.target)?;
                message(format!("ser2cli_res/{device}"), gizwits::notice(part), now)
            }
        };
        Some(Push::offer(message, offered))
    }

    /// How a device is told of firmware: as it spoke last. One that hasn't spoken yet, of a product that takes gizwits' log-ins, is sent the notice: these devices
    /// have none of our topics.
    fn speaks(&self, state: &State, product: &str, device: &str) -> Speaks {
        let silent = || {
            let allowed = self.shell().registry.allowed(product);
            let is_gizwits = allowed.contains(Profile::Gizwits) || allowed.contains(Profile::GizwitsLegacy);
            if is_gizwits { Speaks::Gizwits } else { Speaks::Native }
        };
        state.report_of(product, device).map_or_else(silent, |reported| reported.speaks)
    }
}

/// Why an offer is to wait rather than never to be made: of a device that hasn't said what hardware it has, none knows that it is the wrong one.
fn mendable(unsuited: Unsuited, reported: Option<&Reported>) -> Option<Reason> {
    match unsuited {
        Unsuited::Hardware if reported.is_none_or(|reported| reported.hardware.is_none()) => {
            Some(Reason::HARDWARE_UNKNOWN)
        }
        // An operator may mend it.
        Unsuited::NotReady | Unsuited::Unsigned | Unsuited::Target | Unsuited::Rollback => Some(Reason::NOT_READY),
        _ => None,
    }
}

/// What goes to a device on the offer's topic: an offer, or that there is none. None if the file is gone.
pub(super) fn native(
    state: &State,
    outgoing: Option<&Outgoing>,
    id: Option<RequestId>,
    failed: Option<(u32, &str)>,
) -> Option<String> {
    let Some(outgoing) = outgoing else { return Some(Answer { id, offer: None, failed }.payload()) };
    let firmware = state.catalog.get(outgoing.file)?;
    let link = outgoing.url.as_ref().map(|(url, expires_s)| Link { url, expires_s: *expires_s });
    let offer = Offer { offer: number(outgoing.file), firmware, contents: firmware.ready()?, link, blocks: true };
    Some(Answer { id, offer: Some(offer), failed }.payload())
}

/// The same for Aliyun's devices, which download over HTTP alone.
pub(super) fn upgrade(state: &State, outgoing: &Outgoing, write: impl FnOnce(Upgrade<'_>) -> String) -> Option<String> {
    let firmware = state.catalog.get(outgoing.file)?;
    let Some((url, _)) = &outgoing.url else {
        tracing::warn!("a device that downloads over HTTP alone is offered nothing: ota.address isn't set");
        return None;
    };
    Some(write(Upgrade { firmware, contents: firmware.ready()?, url, method: SignMethod::Md5 }))
}

/// An offer's number is its file's; there are never so many that 32 bits were too few.
pub(super) fn number(file: FirmwareId) -> u32 {
    u32::try_from(file.0).unwrap_or(u32::MAX)
}

pub(super) fn offer_topic(product: &str, device: &str) -> String {
    format!("dev/{product}/{device}/ota/offer")
}

/// Where Aliyun's devices are told of an upgrade.
pub(super) fn upgrade_topic(product: &str, device: &str) -> String {
    format!("/ota/device/upgrade/{product}/{device}")
}

pub(super) fn message(topic: String, payload: impl Into<Vec<u8>>, now: Now) -> OutsideMessage {
    OutsideMessage {
        principal: Principal::Broker,
        topic,
        payload: payload.into(),
        qos: QoS::AtLeastOnce,
        expires_at_ms: now.unix_ms + OFFER_MS,
    }
}
