//! What can be wrong with settings.

use std::collections::BTreeSet;

use super::{
    Bandwidth, Errors, GROUPS_MAX, Group, NAME_BYTES_MAX, RATE_MAX, RETRIES_MAX, Rate, Settings, Size, TRIAL_MAX,
    WINDOWS_MAX,
};
use crate::filter::{DEVICES_MAX, NAMES_MAX, Versions, WHOLE};
use crate::machine::{Kind, Limits};

/// A fault of settings. Groups count from 1.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// The name.
    #[error("name: 1 to {NAME_BYTES_MAX} bytes")]
    Name,
    /// The filter's product.
    #[error("filter.product: one must be named")]
    Product,
    /// The filter's share.
    #[error("filter.share: 1 to {WHOLE} hundredths of a percent")]
    Share,
    /// A list of the filter is too long.
    #[error("filter.{0}: at most {NAMES_MAX} names ({DEVICES_MAX} devices)")]
    TooManyNames(&'static str),
    /// No version could match.
    #[error("filter.versions: a list has at least one version")]
    NoVersions,
    /// None, or too many.
    #[error("groups: 1 to {GROUPS_MAX}")]
    Groups,
    /// A trial that isn't the first group.
    #[error("group {0}: devices are named by the first group only")]
    TrialNotFirst(usize),
    /// Nobody in the trial, too many, or one twice.
    #[error("group 1: a trial names 1 to {TRIAL_MAX} devices, each once")]
    Trial,
    /// A trial names a device that the filter's list doesn't have.
    #[error("group 1: the trial's device {0} isn't in filter.devices")]
    TrialNotListed(Box<str>),
    /// A size of zero or above the whole.
    #[error("group {0}: a size is at least 1 device, or 1 to 100 percent")]
    Size(usize),
    /// The rest isn't the last group.
    #[error("group {0}: the rest is the last group")]
    RestNotLast(usize),
    /// More than there are.
    #[error("groups: the percentages are {0} together, which is above 100")]
    PercentAbove(u32),
    /// Some devices would be in no group.
    #[error("groups: the last must be the rest, or the percentages be 100 together")]
    LeavesSome,
    /// A success threshold.
    #[error("group {0}: the success threshold is 1 to 100 percent")]
    Success(usize),
    /// An error threshold.
    #[error("group {0}: the error threshold is at least 1 device, or 1 to 100 percent")]
    Errors(usize),
    /// It would end before it starts.
    #[error("end: after the start")]
    Ends,
    /// Too many windows.
    #[error("windows: at most {WINDOWS_MAX}")]
    Windows,
    /// A rate.
    #[error(
        "rate: 1 to {RATE_MAX} devices a minute, from base to max, a factor of 1.001 to 10, every 1 success or more"
    )]
    Rate,
    /// Nobody could download.
    #[error("downloads_max: at least 1")]
    Downloads,
    /// Nobody could download.
    #[error("bandwidth: a device gets at least 1 byte a second and at most what all get")]
    Bandwidth,
    /// A time limit.
    #[error("limits.{}: 1 to {} seconds", .0.as_str(), Limits::SECONDS_MAX)]
    Limit(Kind),
    /// Too often.
    #[error("retries_max: at most {RETRIES_MAX}")]
    Retries,
    /// A record's state of a campaign that doesn't go with its settings.
    #[error("the recorded groups aren't those of the settings")]
    Life,
}

/// All faults.
pub(super) fn of(settings: &Settings) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut check = |fine: bool, fault: Fault| {
        if !fine {
            faults.push(fault);
        }
    };
    check((1..=NAME_BYTES_MAX).contains(&settings.name.len()), Fault::Name);
    let filter = &settings.filter;
    check(!filter.product.is_empty(), Fault::Product);
    check(filter.share.is_none_or(|share| (1..=WHOLE).contains(&share)), Fault::Share);
    if let Versions::Of(list) | Versions::Not(list) = &filter.versions {
        check(!list.is_empty(), Fault::NoVersions);
        check(list.len() <= NAMES_MAX, Fault::TooManyNames("versions"));
    }
    let lists = [("tags", &filter.tags), ("tags_all", &filter.tags_all), ("regions", &filter.regions)];
    for (name, list) in lists.into_iter().chain([("hardware", &filter.hardware)]) {
        check(list.len() <= NAMES_MAX, Fault::TooManyNames(name));
    }
    check(filter.devices.len() <= DEVICES_MAX, Fault::TooManyNames("devices"));
    check(settings.end_s.is_none_or(|end_s| end_s > settings.start_s.unwrap_or(0)), Fault::Ends);
    check(settings.windows.len() <= WINDOWS_MAX, Fault::Windows);
    check(settings.rate.is_none_or(rate_is_fine), Fault::Rate);
    check(settings.downloads_max != Some(0), Fault::Downloads);
    let fits = |Bandwidth { total_bytes_s, device_bytes_s }| (1..=total_bytes_s).contains(&device_bytes_s);
    check(settings.bandwidth.is_none_or(fits), Fault::Bandwidth);
    for kind in Limits::KINDS {
        let fine = settings.limits.of(kind).is_some_and(|limit_s| (1..=Limits::SECONDS_MAX).contains(&limit_s));
        check(fine, Fault::Limit(kind));
    }
    check(settings.retries_max <= RETRIES_MAX, Fault::Retries);
    of_groups(settings, &mut faults);
    faults
}

fn rate_is_fine(rate: Rate) -> bool {
    match rate {
        Rate::Constant(rate) => (1..=RATE_MAX).contains(&rate),
        Rate::Growing { base, factor_permille, every, max } => {
            max <= RATE_MAX && (1..=max).contains(&base) && (1001..=10_000).contains(&factor_permille) && every > 0
        }
    }
}

fn of_groups(settings: &Settings, faults: &mut Vec<Fault>) {
    let groups = &settings.groups;
    if !(1..=GROUPS_MAX).contains(&groups.len()) {
        faults.push(Fault::Groups);
    }
    let mut percents = 0u32;
    for (number, group) in (1..).zip(groups) {
        match &group.size {
            Size::Trial(_) if number > 1 => faults.push(Fault::TrialNotFirst(number)),
            Size::Trial(devices) => of_trial(settings, devices, faults),
            Size::Devices(0) => faults.push(Fault::Size(number)),
            Size::Devices(_) => {}
            Size::Percent(percent) => {
                percents += u32::from(*percent);
                if !(1..=100).contains(percent) {
                    faults.push(Fault::Size(number));
                }
            }
            Size::Rest if number < groups.len() => faults.push(Fault::RestNotLast(number)),
            Size::Rest => {}
        }
        if !(1..=100).contains(&group.success_percent) {
            faults.push(Fault::Success(number));
        }
        let errors = match group.errors {
            None => true,
            Some(Errors::Devices(count)) => count > 0,
            Some(Errors::Percent(percent)) => (1..=100).contains(&percent),
        };
        if !errors {
            faults.push(Fault::Errors(number));
        }
    }
    if percents > 100 {
        faults.push(Fault::PercentAbove(percents));
    }
    // A trial alone is a whole campaign if the filter names no other device.
    let all_tried = matches!(groups.as_slice(), [Group { size: Size::Trial(devices), .. }]
        if !settings.dynamic && settings.filter.devices.iter().eq(&devices.iter().cloned().collect::<BTreeSet<_>>()));
    let rest = matches!(groups.last(), Some(Group { size: Size::Rest, .. }));
    if !groups.is_empty() && !rest && percents < 100 && !all_tried {
        faults.push(Fault::LeavesSome);
    }
}

fn of_trial(settings: &Settings, devices: &[Box<str>], faults: &mut Vec<Fault>) {
    let distinct: BTreeSet<_> = devices.iter().collect();
    if !(1..=TRIAL_MAX).contains(&devices.len()) || distinct.len() < devices.len() {
        faults.push(Fault::Trial);
    }
    let listed = &settings.filter.devices;
    if !listed.is_empty() {
        let strangers = distinct.into_iter().filter(|device| !listed.contains(*device));
        faults.extend(strangers.map(|device| Fault::TrialNotListed(device.clone())));
    }
}
