//! What devices do to campaigns.

use turnpike_core::clock::Now;

use super::{Action, Held, Report, ReportError, Scheduler};
use crate::campaign::State;
use crate::filter::Candidate;
use crate::fleet::{DeviceKey, Member, Slot, unix_s};
use crate::ids::CampaignId;
use crate::machine::{Event, Kind, Reason, Running};
use crate::target::Target;
use crate::zone::Zone;

impl Scheduler {
    /// A device is connected, or says (in a check) that it is there, and perhaps in which zone. It gets its offer at once if nobody waits before it,
    /// and the one that it has once more if it hasn't begun to apply.
    pub fn device_online(&mut self, product: &str, device: &str, zone: Option<Zone>, now: Now) -> Vec<Action> {
        let now = self.clock(now);
        let product = self.directory.product_or_add(product);
        let key = self.directory.find_or_add(product, device);
        let before = self.directory.zone(key);
        self.directory.connect(key, zone);
        let after = self.directory.zone(key);
        let mut out = Vec::new();
        for id in self.of_product(product) {
            let Some(run) = self.runs.get_mut(&id) else { continue };
            let Some(slot) = run.fleet.find(key) else { continue };
            if before != after {
                run.leave_line(slot, before, after);
            }
            if !run.state().is_under_way() {
                continue;
            }
            match self.kind(id, key) {
                Some(Kind::Queued) => self.come(id, slot, now, &mut out),
                Some(Kind::Applying) | None => {}
                Some(kind) if kind.is_final() => {}
                Some(_) => out.push(Action::Offer { campaign: id, device: key, again: true }),
            }
        }
        out
    }

    /// A device isn't connected any more.
    pub fn device_offline(&mut self, product: &str, device: &str) {
        if let Some(key) = self.directory.find(product, device) {
            self.directory.disconnect(key);
        }
    }

    /// What a device reports of the offer that it has for a target. Versions are to be given after every boot, whether it has an offer or not.
    ///
    /// # Errors
    /// [`ReportError`]; nothing has changed then.
    pub fn report(
        &mut self,
        product: &str,
        device: &str,
        target: &Target,
        report: Report<'_>,
        now: Now,
    ) -> Result<Vec<Action>, ReportError> {
        let now = self.clock(now);
        let mut out = Vec::new();
        if let Some(id) = self.active(product, device, target) {
            let key = self.directory.find(product, device).ok_or(ReportError::NoOffer)?;
            let run = self.runs.get(&id).ok_or(ReportError::NoOffer)?;
            let slot = run.fleet.find(key).ok_or(ReportError::NoOffer)?;
            let settings = run.campaign.settings();
            let mut event = event(report, settings.version.as_str());
            if settings.force && self.kind(id, key) != Some(Kind::Applying) && matches!(event, Event::Reported(_)) {
                // It may have had the version before: not until it has begun to apply does that say anything.
                event = Event::Reported(Running::Other);
            }
            self.happen(id, slot, event, now, &mut out)?;
            self.settle(id, now, &mut out);
        } else if !matches!(report, Report::Version(_)) {
            return Err(ReportError::NoOffer);
        }
        if let Report::Version(version) = report {
            self.has_already(product, device, target, version, now, &mut out);
        }
        Ok(out)
    }

    /// A device is new, or has changed (its version, tags, region): dynamic campaigns that it matches take it in. `candidate` says what it is for a target,
    /// of which each has a version of its own.
    pub fn candidate_appeared<'a>(
        &mut self,
        product: &str,
        candidate: impl Fn(&Target) -> Candidate<'a>,
        now: Now,
    ) -> Vec<Action> {
        let now = self.clock(now);
        let Some(product) = self.directory.product(product) else { return Vec::new() };
        let mut out = Vec::new();
        for id in self.of_product(product) {
            let Some(run) = self.runs.get(&id).filter(|run| run.campaign.settings().dynamic) else { continue };
            let candidate = candidate(&run.campaign.settings().target);
            if matches!(run.state(), State::Stopping(_)) || !run.campaign.takes(&candidate) {
                continue;
            }
            let group = run.campaign.group_of(candidate.device);
            let key = self.directory.find_or_add(product, candidate.device);
            let Some(run) = self.runs.get_mut(&id) else { continue };
            match run.fleet.insert(key, group, unix_s(now)) {
                Some(slot) => {
                    self.directory.enlist(key);
                    self.come(id, slot, now, &mut out);
                }
                None => self.directory.forget_if_idle(key),
            }
        }
        out
    }

    /// What is to be recorded before a device's tags or region, or what it reports, change, so that a restart, which draws by what devices are then, finds it where it is now:
    /// whoever is in a campaign stays in it, and whoever isn't stays out of it, unless it is dynamic and goes on. `candidate` says what the device will be.
    #[must_use]
    pub fn hold<'a>(&self, product: &str, device: &str, candidate: impl Fn(&Target) -> Candidate<'a>) -> Vec<Held> {
        let Some(product) = self.directory.product(product) else { return Vec::new() };
        let key = self.directory.find_in(product, device);
        let mut held = Vec::new();
        for (campaign, run) in self.runs.iter().filter(|(_, run)| run.product == product) {
            let settings = run.campaign.settings();
            let takes = run.campaign.takes_again(&candidate(&settings.target));
            let is_open = settings.dynamic && !run.state().is_final() && !matches!(run.state(), State::Stopping(_));
            let slot = key.and_then(|key| run.fleet.find(key));
            match slot.and_then(|slot| run.fleet.member(slot)) {
                // All others have a record.
                Some(member) if !takes && matches!(member.standing.state.kind(), Kind::Queued | Kind::Cancelled) => {
                    held.push(Held::In { campaign: *campaign, standing: member.standing, retries: member.retries });
                }
                None if takes && !is_open => held.push(Held::Out { campaign: *campaign }),
                Some(_) | None => {}
            }
        }
        held
    }

    /// A device has been deleted: it is taken out of everything where it hasn't begun to apply.
    pub fn device_gone(&mut self, product: &str, device: &str, now: Now) -> Vec<Action> {
        let now = self.clock(now);
        let mut out = Vec::new();
        let (Some(product), Some(key)) = (self.directory.product(product), self.directory.find(product, device)) else {
            return out;
        };
        self.directory.disconnect(key);
        for id in self.of_product(product) {
            if let Some(slot) = self.runs.get(&id).and_then(|run| run.fleet.find(key)) {
                // One that applies has its time limit.
                let _ = self.happen(id, slot, Event::Cancel(Reason::GONE), now, &mut out);
                self.settle(id, now, &mut out);
            }
        }
        out
    }

    /// A queued device comes: it gets its offer at once unless somebody waits, and is in line otherwise.
    fn come(&mut self, id: CampaignId, slot: Slot, now: Now, out: &mut Vec<Action>) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let Some(member) = run.fleet.member(slot) else { return };
        run.earn(now);
        let zone = run.zone(self.directory.zone(member.device));
        let free = run.state() == State::Running && run.line.is_empty() && run.has_room() && run.is_open(zone, now);
        if free && self.is_ripe(id, slot, zone) {
            self.offer(id, slot, now, out);
        } else {
            self.line_up(id, slot);
        }
    }

    /// The offer that a campaign has just asked for ([`Action::Offer`]) can't be made yet. The device is queued, and not in line before it
    /// comes or reports again ([`Scheduler::device_online`]): asking at each step would ask for ever. Campaigns that can offer it something may.
    pub fn withhold(&mut self, id: CampaignId, device: DeviceKey, reason: Reason, now: Now) -> Vec<Action> {
        let now = self.clock(now);
        let Some(run) = self.runs.get_mut(&id) else { return Vec::new() };
        let Some(slot) = run.fleet.find(device) else { return Vec::new() };
        let Ok(Some(_)) = run.fleet.apply(slot, Event::Withhold(reason), now) else { return Vec::new() };
        run.give_back();
        let Some(Member { standing, retries, .. }) = run.fleet.member(slot) else { return Vec::new() };
        let mut out = vec![Action::DeviceChanged { campaign: id, device, standing, retries }];
        for rival in self.rivals(id) {
            // Not those that had to withhold theirs: two would ask by turns for ever.
            if !self.is_withheld(rival, device)
                && let Some(slot) = self.runs.get(&rival).and_then(|run| run.fleet.find(device))
            {
                self.line_up(rival, slot);
            }
        }
        self.settle(id, now, &mut out);
        out
    }

    /// Whoever has a version already needn't be offered it.
    fn has_already(
        &mut self,
        product: &str,
        device: &str,
        target: &Target,
        version: &str,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        let (Some(product), Some(key)) = (self.directory.product(product), self.directory.find(product, device)) else {
            return;
        };
        for id in self.of_subject(product, target).collect::<Vec<_>>() {
            let Some(run) = self.runs.get(&id) else { continue };
            let settings = run.campaign.settings();
            let same = settings.version.as_str() == version && !settings.force;
            let Some(slot) = run.fleet.find(key).filter(|_| same && run.state().is_under_way()) else { continue };
            if self.kind(id, key) == Some(Kind::Queued)
                && self.happen(id, slot, Event::Reported(Running::New), now, out).is_ok()
            {
                self.settle(id, now, out);
            }
        }
    }
}

fn event(report: Report<'_>, wanted: &str) -> Event {
    match report {
        Report::Accept => Event::Accept,
        Report::Progress(percent) => Event::Progress(percent),
        Report::Downloaded => Event::Downloaded,
        Report::Verified => Event::Verified,
        Report::Applying => Event::Applying,
        Report::Version(version) => Event::Reported(if version == wanted { Running::New } else { Running::Other }),
        Report::Fail { retryable, reason } => Event::Fail { retryable, reason },
        Report::Reject(reason) => Event::Reject(reason),
    }
}
