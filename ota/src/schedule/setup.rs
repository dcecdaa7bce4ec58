//! Campaigns come and go.

use turnpike_core::clock::Now;

use super::run::Run;
use super::{Action, LIVE_MAX, Scheduler};
use crate::campaign::{Campaign, Refusal, State};
use crate::filter::{Candidate, hash};
use crate::fleet::{DEVICES_MAX, DeviceKey, Slot, unix_s};
use crate::ids::CampaignId;
use crate::machine::Standing;

/// Why a campaign wasn't taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AddError {
    /// There is one of that number.
    #[error("there is a campaign of that number")]
    Exists,
    /// Too many aren't over.
    #[error("{LIVE_MAX} campaigns aren't over, and there can't be more")]
    TooManyLive,
    /// Too many devices.
    #[error("a campaign has at most {DEVICES_MAX} devices")]
    TooManyDevices,
    /// The filter matches nobody, and nobody may come later.
    #[error("no device matches the filter")]
    Nobody,
    /// Devices of the trial that don't match the filter.
    #[error("devices of the trial don't match the filter: {}", .0.join(", "))]
    TrialAbsent(Vec<Box<str>>),
    /// Drafts are added, all others are restored.
    #[error(transparent)]
    State(#[from] Refusal),
}

/// A device's record in a campaign.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recorded {
    /// The device's name; the product is the campaign's.
    pub device: Box<str>,
    /// How it stood.
    pub standing: Standing,
    /// How often it had been tried again.
    pub retries: u8,
}

/// A device that is about to be a member: of the trial, its hash, its key.
type Drawn = (bool, u64, DeviceKey);

impl Scheduler {
    /// Takes a draft: draws its groups from the devices that there are (all of the product, in any order; those that don't match are passed
    /// over). It starts with a step, after it has been approved if it needs that.
    ///
    /// # Errors
    /// [`AddError`]; nothing has changed then.
    pub fn add<'a>(
        &mut self,
        campaign: Campaign,
        candidates: impl IntoIterator<Item = Candidate<'a>>,
        now: Now,
    ) -> Result<Vec<Action>, AddError> {
        let id = campaign.id();
        self.prepare(campaign, candidates, now)?;
        self.admit(id);
        Ok(vec![Action::Changed { campaign: id }])
    }

    /// [`Scheduler::add`], but nothing comes of it before [`Scheduler::admit`]: its record isn't on disk yet. What happens to devices meanwhile is held
    /// ([`Scheduler::hold`]). One at a time.
    ///
    /// # Errors
    /// As of [`Scheduler::add`].
    pub fn prepare<'a>(
        &mut self,
        mut campaign: Campaign,
        candidates: impl IntoIterator<Item = Candidate<'a>>,
        now: Now,
    ) -> Result<(), AddError> {
        let now = self.clock(now);
        self.check_new(&campaign)?;
        if campaign.life().state != State::Draft {
            return Err(Refusal::State(campaign.life().state).into());
        }
        let mut drawn = self.draw(&campaign, candidates, Campaign::takes);
        if let Err(error) = self.check_drawn(&campaign, &drawn) {
            drawn.iter().for_each(|(_, _, device)| self.directory.discharge(*device));
            return Err(error);
        }
        drawn.sort_unstable();
        let trial = drawn.partition_point(|(tried, ..)| !tried);
        let mut hashes: Vec<u64> = drawn.iter().take(trial).map(|(_, hash, _)| *hash).collect();
        hashes.dedup();
        let bounds = campaign.bounds(&hashes);
        let settings = campaign.settings().clone();
        campaign.life_mut().submit(&settings, bounds, now.unix_s())?;
        self.populate(campaign, drawn, now);
        Ok(())
    }

    /// A campaign that was prepared is on disk: it goes its way.
    pub fn admit(&mut self, id: CampaignId) {
        if self.is_prepared(id) {
            self.rank_in(id);
        }
    }

    /// A campaign that was prepared couldn't be recorded: there never was one. Of any other nothing changes.
    pub fn withdraw(&mut self, id: CampaignId) {
        if self.is_prepared(id) {
            self.forget(id);
        }
    }

    /// It is prepared, and not admitted yet.
    #[must_use]
    pub fn is_prepared(&self, id: CampaignId) -> bool {
        let runs = self.runs.get(&id).is_some_and(|run| !run.state().is_final());
        runs && !self.live.iter().any(|live| live.id() == id)
    }

    /// Takes a campaign back at start: `candidates` as in [`Scheduler::add`], of which those are drawn that [`Campaign::takes_again`], and the records of
    /// devices in any order.
    ///
    /// # Errors
    /// [`AddError::Exists`], [`AddError::TooManyLive`], [`AddError::TooManyDevices`], and [`AddError::State`] of a draft.
    pub fn restore<'a>(
        &mut self,
        campaign: Campaign,
        candidates: impl IntoIterator<Item = Candidate<'a>>,
        mut records: Vec<Recorded>,
        now: Now,
    ) -> Result<(), AddError> {
        let now = self.clock(now);
        self.check_new(&campaign)?;
        let (id, life) = (campaign.id(), campaign.life().clone());
        if life.state == State::Draft {
            return Err(Refusal::State(life.state).into());
        }
        let mut drawn = self.draw(&campaign, candidates, Campaign::takes_again);
        let product = self.directory.product_or_add(&campaign.settings().filter.product);
        for record in &records {
            let device = self.directory.find_or_add(product, &record.device);
            self.directory.enlist(device);
            drawn.push((is_tried(&campaign, &record.device), hash(campaign.settings().salt, &record.device), device));
        }
        if drawn.len() - records.len() > DEVICES_MAX {
            drawn.iter().for_each(|(_, _, device)| self.directory.discharge(*device));
            return Err(AddError::TooManyDevices);
        }
        drawn.sort_unstable();
        self.populate(campaign, drawn, now);
        records.sort_by_key(|record| record.standing.since_s);
        let Some(run) = self.runs.get_mut(&id) else { return Ok(()) };
        for Recorded { device, standing, retries } in records {
            let device = self.directory.find_in(product, &device);
            if let Some(slot) = device.and_then(|device| run.fleet.find(device)) {
                run.fleet.restore(slot, standing, retries, now);
            }
        }
        run.take_up();
        if let State::Stopping(_) | State::Stopped(_) = life.state {
            run.fleet.cancel_queue(u32::try_from(life.since_s).unwrap_or(u32::MAX));
        }
        if !life.state.is_final() {
            self.rank_in(id);
        }
        Ok(())
    }

    /// Forgets a campaign that is over.
    ///
    /// # Errors
    /// There is none of that number, or it isn't over.
    pub fn remove(&mut self, id: CampaignId) -> Result<(), Refusal> {
        let state = self.runs.get(&id).ok_or(Refusal::Unknown)?.state();
        if !state.is_final() {
            return Err(Refusal::State(state));
        }
        self.forget(id);
        Ok(())
    }

    fn forget(&mut self, id: CampaignId) {
        if let Some(run) = self.runs.remove(&id) {
            run.fleet.members(Slot(0)).for_each(|(_, member)| self.directory.discharge(member.device));
        }
    }

    /// Forgets a campaign whose product is gone, however far it is: there is nobody left who could be told anything. False if there is none of that number.
    pub fn discard(&mut self, id: CampaignId) -> bool {
        if !self.runs.contains_key(&id) {
            return false;
        }
        self.rank_out(id);
        if let Some(run) = self.runs.remove(&id) {
            run.fleet.members(Slot(0)).for_each(|(_, member)| self.directory.discharge(member.device));
        }
        true
    }

    fn check_new(&self, campaign: &Campaign) -> Result<(), AddError> {
        if self.runs.contains_key(&campaign.id()) {
            return Err(AddError::Exists);
        }
        let over = campaign.life().state.is_final();
        if self.live.len() >= LIVE_MAX && !over { Err(AddError::TooManyLive) } else { Ok(()) }
    }

    /// Who belongs in a campaign. Each is enlisted in the directory, one that comes twice twice.
    fn draw<'a>(
        &mut self,
        campaign: &Campaign,
        candidates: impl IntoIterator<Item = Candidate<'a>>,
        takes: impl Fn(&Campaign, &Candidate<'a>) -> bool,
    ) -> Vec<Drawn> {
        let candidates = candidates.into_iter();
        let product = self.directory.product_or_add(&campaign.settings().filter.product);
        let expected = candidates.size_hint().0.min(DEVICES_MAX);
        self.directory.reserve(expected);
        let mut drawn = Vec::with_capacity(expected);
        for candidate in candidates.filter(|candidate| takes(campaign, candidate)) {
            let device = self.directory.find_or_add(product, candidate.device);
            self.directory.enlist(device);
            drawn.push((
                is_tried(campaign, candidate.device),
                hash(campaign.settings().salt, candidate.device),
                device,
            ));
            if drawn.len() > DEVICES_MAX {
                break;
            }
        }
        drawn
    }

    fn check_drawn(&self, campaign: &Campaign, drawn: &[Drawn]) -> Result<(), AddError> {
        if drawn.len() > DEVICES_MAX {
            return Err(AddError::TooManyDevices);
        }
        if drawn.is_empty() && !campaign.settings().dynamic && campaign.trial().is_empty() {
            return Err(AddError::Nobody);
        }
        let tried: Vec<_> = drawn.iter().filter(|(tried, ..)| *tried).collect();
        let is_there = |name: &str| {
            tried.iter().any(|(.., key)| self.directory.name(*key).is_some_and(|(_, other)| other == name))
        };
        let absent: Vec<_> = campaign.trial().iter().filter(|name| !is_there(name)).cloned().collect();
        if absent.is_empty() { Ok(()) } else { Err(AddError::TrialAbsent(absent)) }
    }

    fn populate(&mut self, campaign: Campaign, drawn: Vec<Drawn>, now: Now) {
        let product = self.directory.product_or_add(&campaign.settings().filter.product);
        let mut run = Run::new(campaign, product, now);
        run.fleet.reserve(drawn.len());
        for (tried, hash, device) in drawn {
            let group = if tried { 0 } else { run.campaign.group_at(hash) };
            if run.fleet.insert(device, group, unix_s(now)).is_none() {
                self.directory.discharge(device);
            }
        }
        self.runs.insert(run.campaign.id(), run);
    }
}

fn is_tried(campaign: &Campaign, device: &str) -> bool {
    campaign.trial().iter().any(|name| **name == *device)
}
