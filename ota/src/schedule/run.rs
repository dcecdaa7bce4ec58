//! A campaign with its devices.

use turnpike_core::clock::Now;

use super::directory::ProductKey;
use super::line::{Credit, Line};
use crate::campaign::{Campaign, Errors, State, Why};
use crate::fleet::{Fleet, Slot};
use crate::machine::Kind;
use crate::zone::{self, Zone};

#[derive(Debug)]
pub(super) struct Run {
    pub(super) campaign: Campaign,
    pub(super) product: ProductKey,
    pub(super) fleet: Fleet,
    pub(super) line: Line,
    credit: Credit,
    /// From here on nobody has been looked at who might have to get in line.
    pub(super) scan: Slot,
    /// From here on the failed ones are to be tried again. None: nobody has asked for it.
    pub(super) retry: Option<Slot>,
}

impl Run {
    pub(super) fn new(campaign: Campaign, product: ProductKey, now: Now) -> Self {
        let fleet = Fleet::new(campaign.settings().groups.len(), campaign.settings().limits);
        let (line, credit) = (Line::default(), Credit::new(now.mono_ms));
        Self { campaign, product, fleet, line, credit, scan: Slot(0), retry: None }
    }

    /// After a restart, of which there may be many: no offer is free, and who was being tried again is.
    pub(super) fn take_up(&mut self) {
        self.credit.clear();
        self.retry = self.campaign.life().retrying.then_some(Slot(0));
    }

    pub(super) const fn state(&self) -> State {
        self.campaign.life().state
    }

    pub(super) const fn begun(&self) -> u8 {
        self.campaign.life().begun
    }

    /// Devices that have an offer and haven't finished their download.
    fn taken(&self) -> u32 {
        [Kind::Offered, Kind::Accepted, Kind::Downloading].map(|kind| self.fleet.total(kind)).iter().sum()
    }

    /// Another offer may go out as far as rate and caps are concerned.
    pub(super) fn has_room(&self) -> bool {
        let rated = self.campaign.settings().rate.is_none() || self.credit.allows_one();
        rated && self.taken() < self.campaign.places()
    }

    pub(super) fn earn(&mut self, now: Now) {
        if let Some(rate) = self.campaign.settings().rate {
            self.credit.earn(rate.per_minute(self.fleet.total(Kind::Succeeded)), now.mono_ms);
        }
    }

    pub(super) const fn spend(&mut self) {
        self.credit.spend();
    }

    /// What was spent last has become no offer.
    pub(super) const fn give_back(&mut self) {
        self.credit.give_back();
    }

    /// A device has said that it is in another zone. If it waits, it does so where it is now, behind those who were there before: it is in no line until it is put in one.
    pub(super) fn leave_line(&mut self, slot: Slot, before: Option<Zone>, after: Option<Zone>) {
        let (from, to) = (self.zone(before), self.zone(after));
        let Some(member) = self.fleet.member(slot).filter(|_| from != to && self.fleet.is_waiting(slot)) else {
            return;
        };
        if self.line.remove(member.group, from, slot) {
            self.fleet.set_waiting(slot, false);
        }
    }

    /// In which zone a device waits that has reported one, or none. Without windows all zones are one.
    pub(super) fn zone(&self, reported: Option<Zone>) -> Zone {
        let settings = self.campaign.settings();
        if settings.windows.is_empty() { Zone::UTC } else { reported.unwrap_or(settings.zone) }
    }

    pub(super) fn is_open(&self, zone: Zone, now: Now) -> bool {
        zone::is_open(&self.campaign.settings().windows, zone, now.unix_s())
    }

    fn members(&self, group: u8) -> u32 {
        Kind::ALL.iter().map(|kind| self.fleet.count(group, *kind)).sum()
    }

    /// The group's threshold of success has been reached.
    pub(super) fn has_passed(&self, group: u8) -> bool {
        let settings = self.campaign.settings();
        let Some(wanted) = settings.groups.get(usize::from(group)) else { return false };
        let counted = self.members(group) - self.fleet.count(group, Kind::Cancelled);
        if counted == 0 {
            // Of a dynamic campaign somebody may come yet, and has to be first.
            return !settings.dynamic;
        }
        let succeeded = u64::from(self.fleet.count(group, Kind::Succeeded));
        succeeded * 100 >= u64::from(wanted.success_percent) * u64::from(counted)
    }

    /// The first group that has reached its error threshold.
    pub(super) fn too_many_errors(&self) -> Option<Why> {
        let groups = (0..).zip(&self.campaign.settings().groups);
        let mut reached = groups.filter(|(group, wanted)| {
            let errors = self.fleet.count(*group, Kind::Failed) + self.fleet.count(*group, Kind::TimedOut);
            match wanted.errors {
                None => false,
                Some(Errors::Devices(count)) => errors >= count,
                Some(Errors::Percent(percent)) => {
                    errors > 0 && u64::from(errors) * 100 >= u64::from(percent) * u64::from(self.members(*group))
                }
            }
        });
        reached.next().map(|(group, _)| Why::Errors { group })
    }

    /// Devices between the offer and the end.
    pub(super) fn under_way(&self) -> u32 {
        Kind::ALL.iter().filter(|kind| kind.is_under_way()).map(|kind| self.fleet.total(*kind)).sum()
    }

    /// All groups have begun and all devices are in a final state; nobody can come.
    pub(super) fn is_done(&self) -> bool {
        let settings = self.campaign.settings();
        let begun = usize::from(self.begun()) == settings.groups.len();
        begun && !settings.dynamic && self.retry.is_none() && self.fleet.total(Kind::Queued) + self.under_way() == 0
    }

    /// It waits for a threshold of success that can't be reached any more.
    pub(super) fn is_stuck(&self) -> bool {
        let Some(group) = self.begun().checked_sub(1) else { return false };
        let last = usize::from(self.begun()) == self.campaign.settings().groups.len();
        let open =
            Kind::ALL.iter().filter(|kind| !kind.is_final()).map(|kind| self.fleet.count(group, *kind)).sum::<u32>();
        self.state().is_under_way() && !last && open == 0 && self.members(group) > 0 && !self.has_passed(group)
    }
}
