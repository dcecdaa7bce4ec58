//! All campaigns: who gets which offer, and when.
//!
//! ```text
//! add, approve, pause, resume, stop, retry_failed ─┐
//! device_online, device_offline, report, … ────────┼─▶ Scheduler ─▶ Vec<Action>: offers, records to keep, tokens that are void
//! step(now), every second or so ───────────────────┘
//! ```
//!
//! A connected device gets its offer as soon as its group has begun, its window is open, and rate and caps have room; one that isn't connected, when it
//! comes. Whoever has to wait stands in line; a step serves the lines, oldest group first.
//!
//! **A device and target have one active campaign**: of those that run or are paused and have the device, the one with the highest priority, then
//! the oldest, even while the device is queued there. One that has offered it the firmware already keeps it to the end.
//!
//! A step's work is bounded ([`WORK_MAX`]): what is left is done in the next one. Creating and restoring a campaign look at all of its devices.
//!
//! Measured with a million devices (`examples/fleet.rs`, 16 letters a name, a busy machine of two cores): 130 bytes each, names included, and 90 for
//! each further campaign that a device is in; creation 0.7 s; a step at most 20 ms, with two campaigns for the same devices.

mod commands;
mod devices;
mod directory;
mod line;
#[cfg(test)]
mod model;
mod run;
mod setup;
mod steps;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::BTreeMap;

use turnpike_core::clock::Now;

use crate::campaign::{Campaign, Why};
use crate::fleet::{DeviceKey, Member, Slot};
use crate::ids::CampaignId;
use crate::machine::{Event, Impossible, Kind, Reason, Standing};
use crate::target::Target;
use crate::zone::Zone;

use directory::{Directory, ProductKey};
use run::Run;

pub use setup::{AddError, Recorded};

/// Campaigns that aren't over.
pub const LIVE_MAX: usize = 256;

/// Devices whose state changes in a step, of all campaigns together (each may have [`WORK_MIN`]).
pub const WORK_MAX: usize = 5000;
/// Devices whose state changes in a step, of each campaign.
pub const WORK_MIN: usize = 64;
/// Devices that are looked at for each that may change: a look at the fleet alone is quick,
const LOOKS: usize = 8;
/// one at everything that an offer depends on is not.
const LOOKS_IN_LINE: usize = 2;

/// What the shell has to do. Names of devices: [`Scheduler::name`], before anything else is asked of the scheduler.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub enum Action {
    /// Send the device the campaign's offer.
    Offer {
        /// Which campaign.
        campaign: CampaignId,
        /// Which device.
        device: DeviceKey,
        /// It was sent it before, and came back without having finished.
        again: bool,
    },
    /// No download token of the campaign is good any more.
    VoidTokens {
        /// Which campaign.
        campaign: CampaignId,
    },
    /// The campaign's record is to be written.
    Changed {
        /// Which campaign.
        campaign: CampaignId,
    },
    /// The device's record in the campaign is to be written. Percentages alone don't come here.
    DeviceChanged {
        /// Which campaign.
        campaign: CampaignId,
        /// Which device.
        device: DeviceKey,
        /// How it stands now.
        standing: Standing,
        /// How often it has been tried again.
        retries: u8,
    },
    /// The campaign stops: tell its operator.
    Stopped {
        /// Which campaign.
        campaign: CampaignId,
        /// Why.
        why: Why,
    },
    /// A group begins.
    GroupBegins {
        /// Which campaign.
        campaign: CampaignId,
        /// Which group, counted from 0.
        group: u8,
    },
}

/// What is to be recorded of a device in a campaign before it changes ([`Scheduler::hold`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Held {
    /// It is in it, though it won't match any more: its record.
    In {
        /// Which campaign.
        campaign: CampaignId,
        /// How it stands.
        standing: Standing,
        /// How often it has been tried again.
        retries: u8,
    },
    /// It isn't in it, though it will match: it isn't to be among the candidates of [`Scheduler::restore`].
    Out {
        /// Which campaign.
        campaign: CampaignId,
    },
}

/// What a device, or the shell for it, reports of an offer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Report<'a> {
    /// It takes it.
    Accept,
    /// It has so many percent.
    Progress(u8),
    /// It has all bytes.
    Downloaded,
    /// It has checked them.
    Verified,
    /// It begins to apply them.
    Applying,
    /// It runs this version, as it says after each boot.
    Version(&'a str),
    /// It has failed.
    Fail {
        /// Another try may do better.
        retryable: bool,
        /// Why.
        reason: Reason,
    },
    /// It doesn't want it.
    Reject(Reason),
}

/// A report that was of no use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReportError {
    /// The device has no offer for that target.
    #[error("the device has no offer for that target")]
    NoOffer,
    /// Not in the state that the device is in.
    #[error(transparent)]
    Impossible(#[from] Impossible),
}

/// A campaign that isn't over.
#[derive(Debug)]
struct Live {
    rank: (Reverse<u8>, u64, CampaignId),
    product: ProductKey,
    target: Target,
}

impl Live {
    const fn id(&self) -> CampaignId {
        self.rank.2
    }
}

/// All campaigns and their devices.
#[derive(Debug, Default)]
pub struct Scheduler {
    directory: Directory,
    runs: BTreeMap<CampaignId, Run>,
    /// By rank.
    live: Vec<Live>,
    mono_ms: u64,
}

impl Scheduler {
    /// No campaigns, and nobody is connected.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A campaign.
    #[must_use]
    pub fn campaign(&self, id: CampaignId) -> Option<&Campaign> {
        self.runs.get(&id).map(|run| &run.campaign)
    }

    /// All campaigns, by number.
    pub fn campaigns(&self) -> impl Iterator<Item = &Campaign> {
        self.runs.values().map(|run| &run.campaign)
    }

    /// Devices of a campaign's group in a state.
    #[must_use]
    pub fn count(&self, id: CampaignId, group: u8, kind: Kind) -> u32 {
        self.runs.get(&id).map_or(0, |run| run.fleet.count(group, kind))
    }

    /// Devices of a campaign, from the `from`th on, with the position of each.
    pub fn members(&self, id: CampaignId, from: u32) -> impl Iterator<Item = (u32, Member)> {
        let members = self.runs.get(&id).into_iter().flat_map(move |run| run.fleet.members(Slot(from)));
        members.map(|(slot, member)| (slot.0, member))
    }

    /// A device in a campaign.
    #[must_use]
    pub fn member(&self, id: CampaignId, device: &str) -> Option<Member> {
        let run = self.runs.get(&id)?;
        run.fleet.member(run.fleet.find(self.directory.find_in(run.product, device)?)?)
    }

    /// Product and name of a device.
    #[must_use]
    pub fn name(&self, device: DeviceKey) -> Option<(&str, &str)> {
        self.directory.name(device)
    }

    /// The campaign whose offer a device has for a target.
    #[must_use]
    pub fn active(&self, product: &str, device: &str, target: &Target) -> Option<CampaignId> {
        let device = self.directory.find(product, device)?;
        let product = self.directory.product(product)?;
        self.of_subject(product, target).find(|id| self.kind(*id, device).is_some_and(Kind::is_under_way))
    }

    /// A campaign waits for a threshold of success that its group can't reach any more, unless failed devices are tried again.
    #[must_use]
    pub fn is_stuck(&self, id: CampaignId) -> bool {
        self.runs.get(&id).is_some_and(Run::is_stuck)
    }

    /// Campaigns that aren't over, by rank, for a target of a product.
    fn of_subject(&self, product: ProductKey, target: &Target) -> impl Iterator<Item = CampaignId> {
        let live = self.live.iter().filter(move |live| live.product == product && live.target == *target);
        live.map(Live::id)
    }

    /// Campaigns that aren't over, by rank, of a product.
    fn of_product(&self, product: ProductKey) -> Vec<CampaignId> {
        self.live.iter().filter(|live| live.product == product).map(Live::id).collect()
    }

    /// The others for the same target of the same product.
    fn rivals(&self, id: CampaignId) -> Vec<CampaignId> {
        let Some(run) = self.runs.get(&id) else { return Vec::new() };
        self.of_subject(run.product, &run.campaign.settings().target).filter(|other| *other != id).collect()
    }

    fn kind(&self, id: CampaignId, device: DeviceKey) -> Option<Kind> {
        let fleet = &self.runs.get(&id)?.fleet;
        fleet.member(fleet.find(device)?).map(|member| member.standing.state.kind())
    }

    /// Another campaign has the device.
    fn is_taken(&self, id: CampaignId, device: DeviceKey) -> bool {
        let Some(run) = self.runs.get(&id) else { return true };
        let mut outranks = true;
        for other in self.of_subject(run.product, &run.campaign.settings().target) {
            if other == id {
                outranks = false;
                continue;
            }
            let under_way = self.runs.get(&other).is_some_and(|run| run.state().is_under_way());
            match self.kind(other, device) {
                Some(kind) if kind.is_under_way() => return true,
                Some(Kind::Queued) if outranks && under_way => return true,
                _ => {}
            }
        }
        false
    }

    fn rank_in(&mut self, id: CampaignId) {
        let Some(run) = self.runs.get(&id) else { return };
        let settings = run.campaign.settings();
        let rank = (Reverse(settings.priority), run.campaign.life().created_at_s, id);
        if let Err(at) = self.live.binary_search_by(|live| live.rank.cmp(&rank)) {
            self.live.insert(at, Live { rank, product: run.product, target: settings.target.clone() });
        }
    }

    /// A campaign is over: its devices are free for others.
    fn rank_out(&mut self, id: CampaignId) {
        self.release(id);
        self.live.retain(|live| live.id() != id);
    }

    /// Has all rivals look anew at everybody who may have been waiting for this one.
    fn release(&mut self, id: CampaignId) {
        for rival in self.rivals(id) {
            if let Some(run) = self.runs.get_mut(&rival) {
                run.scan = Slot(0);
            }
        }
    }

    /// The clock that never goes back never does.
    fn clock(&mut self, now: Now) -> Now {
        self.mono_ms = self.mono_ms.max(now.mono_ms);
        Now { mono_ms: self.mono_ms, ..now }
    }

    /// Puts a queued device in line, if its group has begun, it is connected, and it isn't in line already.
    fn line_up(&mut self, id: CampaignId, slot: Slot) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let Some(member) = run.fleet.member(slot) else { return };
        let ready = member.standing.state.kind() == Kind::Queued && member.group < run.begun();
        if ready && self.directory.is_connected(member.device) && !run.fleet.set_waiting(slot, true) {
            let zone = run.zone(self.directory.zone(member.device));
            run.line.push(member.group, zone, slot);
        }
    }

    /// Whether a device that stood in line of a zone may have its offer. One that has moved gets in line where it is now.
    fn is_ripe(&mut self, id: CampaignId, slot: Slot, zone: Zone) -> bool {
        let Some(run) = self.runs.get(&id) else { return false };
        let Some(member) = run.fleet.member(slot) else { return false };
        let queued = member.standing.state.kind() == Kind::Queued && member.group < run.begun();
        if !queued || !self.directory.is_connected(member.device) {
            return false;
        }
        if run.zone(self.directory.zone(member.device)) != zone {
            self.line_up(id, slot);
            return false;
        }
        !self.is_taken(id, member.device)
    }

    fn offer(&mut self, id: CampaignId, slot: Slot, now: Now, out: &mut Vec<Action>) {
        if self.happen(id, slot, Event::Offered, now, out).is_err() {
            return;
        }
        let Some(run) = self.runs.get_mut(&id) else { return };
        run.spend();
        if let Some(Member { device, .. }) = run.fleet.member(slot) {
            out.push(Action::Offer { campaign: id, device, again: false });
        }
    }

    /// The only way in which a device's state changes. Who fails and has tries left is queued again at once.
    fn happen(
        &mut self,
        id: CampaignId,
        slot: Slot,
        event: Event,
        now: Now,
        out: &mut Vec<Action>,
    ) -> Result<(), Impossible> {
        let Some(run) = self.runs.get_mut(&id) else { return Ok(()) };
        let Some(to) = run.fleet.apply(slot, event, now)? else { return Ok(()) };
        let Some(mut member) = run.fleet.member(slot) else { return Ok(()) };
        let tries_left = member.retries < run.campaign.settings().retries_max;
        if to.state.is_retryable() && tries_left && run.state().is_under_way() {
            run.fleet.set_retries(slot, member.retries + 1);
            run.fleet.apply(slot, Event::Retry, now)?;
            member = run.fleet.member(slot).unwrap_or(member);
        }
        let Member { device, standing, retries, .. } = member;
        out.push(Action::DeviceChanged { campaign: id, device, standing, retries });
        if !standing.state.kind().is_under_way() {
            self.line_up(id, slot);
            for rival in self.rivals(id) {
                if let Some(slot) = self.runs.get(&rival).and_then(|run| run.fleet.find(device)) {
                    self.line_up(rival, slot);
                }
            }
        }
        Ok(())
    }
}
