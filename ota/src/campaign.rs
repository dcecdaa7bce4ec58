//! A campaign: what an operator wants ([`Settings`]), and how far it has come ([`Life`]).
//!
//! ```text
//! draft ──▶ awaiting approval ──▶ scheduled ──▶ running ◀──▶ paused
//!   │               │                 │            │ └──▶ completed ──(retry failed)──▶ running
//!   └───────────────┴─────────────────┴────────────┴──▶ stopping ──▶ stopped
//! ```
//!
//! **Groups.** Devices that a group names are in it. The others are in the order of their hashes ([`crate::filter::hash`]), and each group takes its size
//! of it; [`Life::bounds`] are the first hashes beyond each group. They are kept with the campaign, so that a device's group follows from its name
//! alone, whatever comes, goes or is updated meanwhile; a device that appears later falls into a group in the same way.
//!
//! **Thresholds.** A group begins when, of the devices of the one before that aren't cancelled, its percentage has succeeded; it need not be over. A campaign
//! stops when in one group as many devices as its error threshold says have failed or timed out for good (tries that are left don't count). A device
//! that rejects is neither success nor error. Where a threshold of success can no longer be reached the campaign waits: for an operator who has the
//! failed ones tried again or stops it, or for its end.

mod fault;
mod life;
#[cfg(test)]
pub(crate) mod tests;

use crate::filter::{Candidate, Filter};
use crate::ids::{CampaignId, FirmwareId};
use crate::machine::Limits;
use crate::target::{Target, Version};
use crate::zone::{Window, Zone};

pub use fault::Fault;
pub use life::{Approval, Life, Refusal, State, Why};

/// Groups of a campaign.
pub const GROUPS_MAX: usize = 32;
/// Windows of a campaign.
pub const WINDOWS_MAX: usize = 8;
/// Devices that a group names.
pub const TRIAL_MAX: usize = 100;
/// Bytes of a campaign's name.
pub const NAME_BYTES_MAX: usize = 256;
/// Devices a minute.
pub const RATE_MAX: u32 = 10_000_000;
/// How often a device is tried again.
pub const RETRIES_MAX: u8 = 100;

/// How many devices a group has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Size {
    /// These alone; the first group only. Each has to match the filter.
    Trial(Vec<Box<str>>),
    /// So many, 1 or more.
    Devices(u32),
    /// So many percent of the devices that no trial names, 1 to 100, rounded up. The percentages of all groups are at most 100; if they are
    /// 100 the last group takes what rounding leaves.
    Percent(u8),
    /// All that are left; the last group only.
    Rest,
}

/// How many devices of a group may fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Errors {
    /// The campaign stops at so many, 1 or more.
    Devices(u32),
    /// The campaign stops at so many percent of the group, 1 to 100.
    Percent(u8),
}

/// A group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    /// How many devices it has.
    pub size: Size,
    /// Percent of it that have to succeed before the next group begins, 1 to 100. Of the last group it is of no consequence.
    pub success_percent: u8,
    /// How many may fail. None: as many as do.
    pub errors: Option<Errors>,
}

/// How fast offers go out, in devices a minute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rate {
    /// The same all the time, 1 to [`RATE_MAX`].
    Constant(u32),
    /// Faster with success: `base × factor ^ (succeeded ÷ every)`, the division without its rest, at most `max`.
    Growing {
        /// To begin with, 1 to `max`.
        base: u32,
        /// In thousandths, 1,001 to 10,000.
        factor_permille: u32,
        /// Successes from step to step, 1 or more.
        every: u32,
        /// Up to [`RATE_MAX`].
        max: u32,
    },
}

impl Rate {
    /// Devices a minute after so many successes.
    #[must_use]
    pub fn per_minute(&self, succeeded: u32) -> u32 {
        match *self {
            Self::Constant(rate) => rate,
            Self::Growing { base, factor_permille, every, max } => {
                let max_permille = u64::from(max) * 1000;
                let mut permille = u64::from(base) * 1000;
                // The factor is at least 1.001 and rounds up, so this ends at `max` in some thousand turns at most.
                for _ in 0..succeeded / every.max(1) {
                    permille = (permille * u64::from(factor_permille)).div_ceil(1000);
                    if permille >= max_permille {
                        return max;
                    }
                    if factor_permille <= 1000 {
                        break;
                    }
                }
                u32::try_from(permille / 1000).unwrap_or(max)
            }
        }
    }
}

/// Bytes that all downloads of a campaign take together. Each device is granted a fixed rate, and no more have an offer than that fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bandwidth {
    /// Bytes a second of all.
    pub total_bytes_s: u64,
    /// Bytes a second of each, 1 to `total_bytes_s`.
    pub device_bytes_s: u64,
}

/// What an operator wants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// For people.
    pub name: Box<str>,
    /// What goes out.
    pub firmware: FirmwareId,
    /// To which part of the devices.
    pub target: Target,
    /// What they report when they have it.
    pub version: Version,
    /// To which devices.
    pub filter: Filter,
    /// The seed of [`crate::filter::hash`].
    pub salt: u64,
    /// At least one, up to [`GROUPS_MAX`].
    pub groups: Vec<Group>,
    /// Somebody has to approve before it starts.
    pub approval: bool,
    /// Not before, seconds since 1970 UTC.
    pub start_s: Option<u64>,
    /// Stops then, seconds since 1970 UTC.
    pub end_s: Option<u64>,
    /// Offers go out within these alone, in the device's zone. None: at any time.
    pub windows: Vec<Window>,
    /// Of devices that have reported none.
    pub zone: Zone,
    /// How fast. None: as fast as it goes.
    pub rate: Option<Rate>,
    /// Devices that have an offer and haven't finished their download, at most. None: any number.
    pub downloads_max: Option<u32>,
    /// Bytes a second. None: any number.
    pub bandwidth: Option<Bandwidth>,
    /// Of several campaigns for a target of a device the one with the highest has it.
    pub priority: u8,
    /// Devices that match later come in, until the campaign is stopped or ends.
    pub dynamic: bool,
    /// How long a device may be in each state.
    pub limits: Limits,
    /// How often a device that has failed retryably or timed out is tried again by itself, up to [`RETRIES_MAX`].
    pub retries_max: u8,
    /// The device shall not ask its user, and one that has the version already takes it again. Of such a campaign a device has to report that it
    /// applies, before its version counts as success.
    pub force: bool,
    /// The firmware may be older than what the device has, as far as its product allows.
    pub downgrade: bool,
}

/// A campaign: settings without a fault, and how far it has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Campaign {
    id: CampaignId,
    settings: Settings,
    life: Life,
}

impl Campaign {
    /// A draft.
    ///
    /// # Errors
    /// All faults of the settings.
    pub fn new(id: CampaignId, settings: Settings, created_at_s: u64) -> Result<Self, Vec<Fault>> {
        Self::restored(id, settings, Life::draft(created_at_s))
    }

    /// From a record.
    ///
    /// # Errors
    /// All faults of the settings, and [`Fault::Life`] if `life` isn't of these settings.
    pub fn restored(id: CampaignId, settings: Settings, life: Life) -> Result<Self, Vec<Fault>> {
        let mut faults = fault::of(&settings);
        let groups = settings.groups.len();
        let drawn = life.state != State::Draft;
        if usize::from(life.begun) > groups || drawn && life.bounds.len() != groups || !life.bounds.is_sorted() {
            faults.push(Fault::Life);
        }
        if faults.is_empty() { Ok(Self { id, settings, life }) } else { Err(faults) }
    }

    /// Its number.
    #[must_use]
    pub const fn id(&self) -> CampaignId {
        self.id
    }

    /// What is wanted.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How far it has come.
    #[must_use]
    pub const fn life(&self) -> &Life {
        &self.life
    }

    pub(crate) const fn life_mut(&mut self) -> &mut Life {
        &mut self.life
    }

    /// A device belongs in it: it matches the filter, was there before the campaign (unless that is dynamic), and doesn't have the
    /// version already (unless it is forced).
    #[must_use]
    pub fn takes(&self, candidate: &Candidate<'_>) -> bool {
        let settings = &self.settings;
        (settings.dynamic || candidate.created_at_s <= self.life.created_at_s)
            && (settings.force || candidate.version != Some(settings.version.as_str()))
            && settings.filter.matches(candidate, settings.salt)
    }

    /// A restart takes it back without a record of its own: it belongs in it, and was surely there when groups were drawn. Of a device that is as old as the
    /// campaign, to the second, its record tells.
    #[must_use]
    pub fn takes_again(&self, candidate: &Candidate<'_>) -> bool {
        (self.settings.dynamic || candidate.created_at_s < self.life.created_at_s) && self.takes(candidate)
    }

    /// Devices that the trial names, if there is one.
    #[must_use]
    pub fn trial(&self) -> &[Box<str>] {
        match self.settings.groups.first() {
            Some(Group { size: Size::Trial(devices), .. }) => devices,
            _ => &[],
        }
    }

    /// The group of a device, once groups have been drawn.
    #[must_use]
    pub fn group_of(&self, device: &str) -> u8 {
        if self.trial().iter().any(|name| **name == *device) {
            return 0;
        }
        self.group_at(crate::filter::hash(self.settings.salt, device))
    }

    /// The group of a hash, of a device that no trial names.
    pub(crate) fn group_at(&self, hash: u64) -> u8 {
        let group = self.life.bounds.partition_point(|bound| *bound <= hash);
        // A hash at the very end is beyond the last bound.
        let last = self.settings.groups.len().saturating_sub(1);
        u8::try_from(group.min(last)).unwrap_or(u8::MAX)
    }

    /// Draws the groups' bounds: from the sorted hashes of the devices that no trial names, or, where there are none yet, from the share of all hashes.
    #[must_use]
    pub fn bounds(&self, hashes: &[u64]) -> Vec<u64> {
        let whole = hashes.len() as u64;
        let (mut devices, mut percents, mut end) = (0u64, 0u64, 0u64);
        let last = self.settings.groups.len().saturating_sub(1);
        let groups = self.settings.groups.iter().enumerate();
        let bounds = groups.map(|(at, group)| {
            match group.size {
                Size::Trial(_) if last > 0 => return 0,
                Size::Devices(count) => devices += u64::from(count),
                Size::Percent(percent) => percents += u64::from(percent),
                Size::Trial(_) | Size::Rest => {}
            }
            if at == last {
                return u64::MAX;
            }
            if hashes.is_empty() {
                // Nobody can say what a count of nothing is: what comes first goes into the first group of that kind.
                let share = if matches!(group.size, Size::Devices(_)) { 100 } else { percents };
                end = end.max(u64::MAX / 100 * share.min(100));
            } else {
                let rank = devices + (whole * percents).div_ceil(100);
                end = usize::try_from(rank).ok().and_then(|rank| hashes.get(rank)).copied().unwrap_or(u64::MAX);
            }
            end
        });
        bounds.collect()
    }

    /// How many devices may have an offer and not have finished their download.
    #[must_use]
    pub fn places(&self) -> u32 {
        let by_bandwidth = self.settings.bandwidth.map_or(u32::MAX, |bandwidth| {
            u32::try_from(bandwidth.total_bytes_s / bandwidth.device_bytes_s.max(1)).unwrap_or(u32::MAX)
        });
        by_bandwidth.min(self.settings.downloads_max.unwrap_or(u32::MAX))
    }
}
