//! What time does to campaigns.

use turnpike_core::clock::Now;

use super::{Action, LOOKS, LOOKS_IN_LINE, Scheduler, WORK_MAX, WORK_MIN};
use crate::campaign::{State, Why};
use crate::fleet::Slot;
use crate::ids::CampaignId;
use crate::machine::{Event, Kind, Limits, Reason};

impl Scheduler {
    /// Does what is due, at most so much that the caller isn't kept (see [`WORK_MAX`]). To be called every second or so; the offers of up to five seconds
    /// catch up.
    pub fn step(&mut self, now: Now) -> Vec<Action> {
        let now = self.clock(now);
        let mut out = Vec::new();
        let live: Vec<CampaignId> = self.live.iter().map(super::Live::id).collect();
        let share = (WORK_MAX / live.len().max(1)).max(WORK_MIN);
        for id in live {
            self.keep_time(id, now, &mut out);
            self.cancel_some(id, share, now, &mut out);
            self.time_out_some(id, share, now, &mut out);
            self.retry_some(id, share, now, &mut out);
            // Before the offers: what has timed out may stop the campaign.
            self.settle(id, now, &mut out);
            self.line_up_some(id, share);
            self.offer_some(id, share, now, &mut out);
        }
        out
    }

    /// Starts and ends.
    fn keep_time(&mut self, id: CampaignId, now: Now, out: &mut Vec<Action>) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let settings = run.campaign.settings();
        if settings.end_s.is_some_and(|end_s| end_s <= now.unix_s()) {
            // Refused to one that stops already, which is as well.
            let _ = self.stop_for(id, Why::Ended, now, out);
        } else if run.state() == State::Scheduled && settings.start_s.is_none_or(|start_s| start_s <= now.unix_s()) {
            run.campaign.life_mut().start(now.unix_s());
            run.scan = Slot(0);
            out.extend([Action::Changed { campaign: id }, Action::GroupBegins { campaign: id, group: 0 }]);
        }
    }

    /// Of a campaign that stops, whoever hasn't begun to apply.
    fn cancel_some(&mut self, id: CampaignId, share: usize, now: Now, out: &mut Vec<Action>) {
        for _ in 0..share {
            let Some(run) = self.runs.get(&id).filter(|run| matches!(run.state(), State::Stopping(_))) else { return };
            let mut kinds = Limits::KINDS.into_iter().filter(|kind| *kind != Kind::Applying);
            let Some(slot) = kinds.find_map(|kind| run.fleet.first(kind)) else { return };
            if self.happen(id, slot, Event::Cancel(Reason::STOPPED), now, out).is_err() {
                return;
            }
        }
    }

    fn time_out_some(&mut self, id: CampaignId, share: usize, now: Now, out: &mut Vec<Action>) {
        for _ in 0..share {
            let Some(slot) = self.runs.get(&id).and_then(|run| run.fleet.overdue(now)) else { return };
            if self.happen(id, slot, Event::Timeout, now, out).is_err() {
                return;
            }
        }
    }

    fn retry_some(&mut self, id: CampaignId, share: usize, now: Now, out: &mut Vec<Action>) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let Some(from) = run.retry else { return };
        let members = run.fleet.members(from).take(share * LOOKS);
        let failed: Vec<Slot> = members
            .filter(|(_, member)| member.standing.state.is_retryable())
            .map(|(slot, _)| slot)
            .take(share)
            .collect();
        // Up to the last of them if there may be more, else up to where it has been looked.
        let looked = from.0.saturating_add(u32::try_from(share * LOOKS).unwrap_or(u32::MAX));
        let next = if failed.len() == share { failed.last().map_or(looked, |slot| slot.0 + 1) } else { looked };
        run.retry = ((next as usize) < run.fleet.len()).then_some(Slot(next));
        let is_last = run.retry.is_none();
        for slot in failed {
            if let Some(run) = self.runs.get_mut(&id) {
                run.fleet.set_retries(slot, 0);
            }
            // It is retryable: nothing has happened to it since.
            let _ = self.happen(id, slot, Event::Retry, now, out);
        }
        // After the devices' records: a crash before this one has all looked at once more.
        if is_last && let Some(run) = self.runs.get_mut(&id) {
            run.campaign.life_mut().retried();
            out.push(Action::Changed { campaign: id });
        }
    }

    /// Looks for devices that should be in line: a group has begun, or another campaign has let them go.
    fn line_up_some(&mut self, id: CampaignId, share: usize) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        if !run.state().is_under_way() || run.scan.0 as usize >= run.fleet.len() {
            return;
        }
        let (from, begun) = (run.scan, run.begun());
        run.scan = Slot(from.0.saturating_add(u32::try_from(share * LOOKS).unwrap_or(u32::MAX)));
        let members = run.fleet.members(from).take(share * LOOKS);
        let ready = members.filter(|(_, member)| member.group < begun && member.standing.state.kind() == Kind::Queued);
        for slot in ready.map(|(slot, _)| slot).collect::<Vec<_>>() {
            self.line_up(id, slot);
        }
    }

    fn offer_some(&mut self, id: CampaignId, share: usize, now: Now, out: &mut Vec<Action>) {
        let Some(run) = self.runs.get_mut(&id).filter(|run| run.state() == State::Running) else { return };
        run.earn(now);
        let places = run.line.places();
        let (mut offers, mut looks) = (share, share.saturating_mul(LOOKS_IN_LINE));
        for (group, zone) in places {
            if !self.runs.get(&id).is_some_and(|run| run.is_open(zone, now)) {
                continue;
            }
            while offers > 0 && looks > 0 {
                let Some(run) = self.runs.get_mut(&id).filter(|run| run.has_room()) else { return };
                let Some(slot) = run.line.pop(group, zone) else { break };
                run.fleet.set_waiting(slot, false);
                looks -= 1;
                if self.is_ripe(id, slot, zone) {
                    offers -= 1;
                    self.offer(id, slot, now, out);
                }
            }
        }
    }

    /// What follows from how the devices stand: the next group begins, the campaign stops or is over.
    pub(super) fn settle(&mut self, id: CampaignId, now: Now, out: &mut Vec<Action>) {
        let Some(run) = self.runs.get(&id) else { return };
        if run.state().is_under_way()
            && let Some(why) = run.too_many_errors()
        {
            let _ = self.stop_for(id, why, now, out);
        }
        let Some(run) = self.runs.get_mut(&id) else { return };
        match run.state() {
            State::Running => {
                let groups = run.campaign.settings().groups.len();
                while usize::from(run.begun()) < groups
                    && run.begun().checked_sub(1).is_some_and(|last| run.has_passed(last))
                {
                    let group = run.begun();
                    run.campaign.life_mut().begun += 1;
                    run.scan = Slot(0);
                    out.extend([Action::Changed { campaign: id }, Action::GroupBegins { campaign: id, group }]);
                }
                if run.is_done() {
                    run.campaign.life_mut().complete(now.unix_s());
                    out.push(Action::Changed { campaign: id });
                    self.rank_out(id);
                }
            }
            State::Stopping(why) if run.under_way() == 0 => {
                run.campaign.life_mut().stopped(why, now.unix_s());
                out.push(Action::Changed { campaign: id });
                self.rank_out(id);
            }
            _ => {}
        }
    }
}
