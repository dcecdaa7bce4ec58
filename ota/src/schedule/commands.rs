//! What an operator may do to a campaign.

use turnpike_core::clock::Now;

use super::{Action, LIVE_MAX, Scheduler};
use crate::campaign::{Life, Refusal, State, Why};
use crate::fleet::{Slot, unix_s};
use crate::ids::CampaignId;

impl Scheduler {
    /// Approves a campaign that awaits it.
    ///
    /// # Errors
    /// There is none of that number, or it doesn't.
    pub fn approve(&mut self, id: CampaignId, by: &str, now: Now) -> Result<Vec<Action>, Refusal> {
        self.change(id, |life| life.approve(by, now.unix_s()))
    }

    /// No more offers. Devices that have one go on.
    ///
    /// # Errors
    /// There is none of that number, or it isn't running.
    pub fn pause(&mut self, id: CampaignId, now: Now) -> Result<Vec<Action>, Refusal> {
        self.change(id, |life| life.pause(now.unix_s()))
    }

    /// Offers again.
    ///
    /// # Errors
    /// There is none of that number, or it isn't paused.
    pub fn resume(&mut self, id: CampaignId, now: Now) -> Result<Vec<Action>, Refusal> {
        self.change(id, |life| life.resume(now.unix_s()))
    }

    /// Stops a campaign: its tokens are void, who hasn't begun to apply is cancelled (within the next steps), the others may finish.
    ///
    /// # Errors
    /// There is none of that number, or it is over, or stopping already.
    pub fn stop(&mut self, id: CampaignId, now: Now) -> Result<Vec<Action>, Refusal> {
        let now = self.clock(now);
        let mut out = Vec::new();
        self.stop_for(id, Why::ByHand, now, &mut out)?;
        self.settle(id, now, &mut out);
        Ok(out)
    }

    /// Tries all devices again that have failed retryably or timed out, as if for the first time, within the next steps. A completed campaign runs again.
    ///
    /// # Errors
    /// There is none of that number, or it has stopped, or hasn't started; or it is completed and [`LIVE_MAX`] others aren't.
    pub fn retry_failed(&mut self, id: CampaignId, now: Now) -> Result<Vec<Action>, Refusal> {
        let state = self.runs.get(&id).ok_or(Refusal::Unknown)?.state();
        if state == State::Completed && self.live.len() >= LIVE_MAX {
            return Err(Refusal::State(state));
        }
        let out = self.change(id, |life| life.retry(now.unix_s()))?;
        if let Some(run) = self.runs.get_mut(&id) {
            run.retry = Some(Slot(0));
        }
        self.rank_in(id);
        Ok(out)
    }

    fn change(
        &mut self,
        id: CampaignId,
        change: impl FnOnce(&mut Life) -> Result<(), Refusal>,
    ) -> Result<Vec<Action>, Refusal> {
        let run = self.runs.get_mut(&id).ok_or(Refusal::Unknown)?;
        change(run.campaign.life_mut())?;
        Ok(vec![Action::Changed { campaign: id }])
    }

    pub(super) fn stop_for(
        &mut self,
        id: CampaignId,
        why: Why,
        now: Now,
        out: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
        let run = self.runs.get_mut(&id).ok_or(Refusal::Unknown)?;
        run.campaign.life_mut().stop(why, now.unix_s())?;
        run.fleet.cancel_queue(unix_s(now));
        run.line.clear();
        run.retry = None;
        self.release(id);
        out.extend([
            Action::VoidTokens { campaign: id },
            Action::Stopped { campaign: id, why },
            Action::Changed { campaign: id },
        ]);
        Ok(())
    }
}
