//! What an operator asks of a campaign, as JSON; it is kept as it was asked for.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use turnpike_ota::campaign::{Bandwidth, Errors, Group, Rate, Settings, Size};
use turnpike_ota::filter::{Filter, Versions};
use turnpike_ota::firmware::Firmware;
use turnpike_ota::machine::Limits;
use turnpike_ota::zone::Zone;
use utoipa::ToSchema;

/// A campaign as it is asked for. What chooses devices has to hold at once; by tags and region it chooses those that have them when its groups are drawn.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CampaignRequest {
    /// For people.
    pub name: String,
    /// The whole firmware that goes out; its product and target are the campaign's. Patches for it are found by themselves.
    pub firmware: u64,
    /// These devices alone; empty: all of the product.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub devices: BTreeSet<String>,
    /// Devices that run one of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub versions: Option<BTreeSet<String>>,
    /// Devices that run another one than these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub versions_not: Option<BTreeSet<String>>,
    /// Devices of one of these hardware versions; empty: any.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub hardware: BTreeSet<String>,
    /// Devices that have one of these tags; empty: any.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub tags: BTreeSet<String>,
    /// Devices that have all of these tags.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub tags_all: BTreeSet<String>,
    /// Devices in one of these regions; empty: anywhere.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub regions: BTreeSet<String>,
    /// A part of them, in hundredths of a percent, by a stable hash of the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<u16>,
    /// Devices created before, seconds since 1970 UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_before: Option<u64>,
    /// In their order; empty: one of all devices.
    pub groups: Vec<GroupRequest>,
    /// Whether somebody has to approve before it starts.
    pub approval: bool,
    /// Not before, seconds since 1970 UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<u64>,
    /// Stops then, seconds since 1970 UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<u64>,
    /// Times of day such as `01:00-05:00`, in the device's zone, within which offers go out; empty: at any time.
    pub windows: Vec<String>,
    /// Of devices that report none, such as `+08:00`; UTC if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// How fast.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<RateRequest>,
    /// Devices that have an offer and haven't finished their download, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub downloads_max: Option<u32>,
    /// Bytes a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<BandwidthRequest>,
    /// Of several campaigns for a target of a device the one with the highest has it.
    pub priority: u8,
    /// Whether devices that match later come in.
    pub dynamic: bool,
    /// How long a device may be in each state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsRequest>,
    /// How often a device that has failed is tried again by itself.
    pub retries_max: u8,
    /// Whether devices take the version again that have it already.
    pub force: bool,
    /// Whether the firmware may be older than what the device has.
    pub downgrade: bool,
}

/// A group: exactly one of `trial`, `count`, `percent` and `rest`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GroupRequest {
    /// These devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trial: Option<Vec<String>>,
    /// So many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// So many percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
    /// All that are left.
    pub rest: bool,
    /// Percent that have to succeed before the next begins; 100 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success_percent: Option<u8>,
    /// The campaign stops at so many failures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors: Option<u32>,
    /// The campaign stops at so many percent of failures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors_percent: Option<u8>,
}

/// Devices a minute: `per_minute`, or growing with success from `base` to `max`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RateRequest {
    /// The same all the time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_minute: Option<u32>,
    /// To begin with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<u32>,
    /// Thousandths by which it is multiplied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub factor_permille: Option<u32>,
    /// After so many successes each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<u32>,
    /// At the most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
}

/// Bytes a second.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BandwidthRequest {
    /// Of all.
    pub total_bytes_s: u64,
    /// Of each.
    pub device_bytes_s: u64,
}

/// Seconds in each state; what is absent has its default.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "as in `Limits`")]
pub struct LimitsRequest {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offered_s: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted_s: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub downloading_s: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub downloaded_s: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified_s: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applying_s: Option<u32>,
}

impl CampaignRequest {
    /// One for all devices at once.
    #[cfg(test)]
    pub(super) fn plain(name: &str, firmware: u64) -> Self {
        Self { name: name.to_owned(), firmware, ..Self::default() }
    }

    /// What the scheduler takes, for this firmware.
    ///
    /// # Errors
    /// What can't be read, in a sentence. Faults of what can are the scheduler's to find.
    pub fn settings(&self, firmware: &Firmware, salt: u64) -> Result<Settings, String> {
        let boxed = |names: &BTreeSet<String>| names.iter().map(|name| name.as_str().into()).collect();
        let versions = match (&self.versions, &self.versions_not) {
            (None, None) => Versions::Any,
            (Some(of), None) => Versions::Of(boxed(of)),
            (None, Some(not)) => Versions::Not(boxed(not)),
            (Some(_), Some(_)) => return Err("versions and versions_not exclude each other".to_owned()),
        };
        let groups = self.groups.iter().enumerate().map(|(at, group)| group.group(at + 1));
        let mut groups = groups.collect::<Result<Vec<_>, _>>()?;
        if groups.is_empty() {
            groups.push(Group { size: Size::Rest, success_percent: 100, errors: None });
        }
        let windows = self.windows.iter().map(|window| window.parse().map_err(|fault| format!("windows: {fault}")));
        let zone =
            self.zone.as_deref().map(|zone| zone.parse().map_err(|fault| format!("zone: {fault}"))).transpose()?;
        Ok(Settings {
            name: self.name.as_str().into(),
            firmware: firmware.id,
            target: firmware.target.clone(),
            version: firmware.version.clone(),
            filter: Filter {
                product: firmware.product.as_str().into(),
                versions,
                devices: boxed(&self.devices),
                hardware: boxed(&self.hardware),
                tags: boxed(&self.tags),
                tags_all: boxed(&self.tags_all),
                regions: boxed(&self.regions),
                share: self.share,
                created_before_s: self.created_before,
            },
            salt,
            groups,
            approval: self.approval,
            start_s: self.start,
            end_s: self.end,
            windows: windows.collect::<Result<_, _>>()?,
            zone: zone.unwrap_or(Zone::UTC),
            rate: self.rate.map(|rate| rate.rate()).transpose()?,
            downloads_max: self.downloads_max,
            bandwidth: self.bandwidth.map(|bandwidth| Bandwidth {
                total_bytes_s: bandwidth.total_bytes_s,
                device_bytes_s: bandwidth.device_bytes_s,
            }),
            priority: self.priority,
            dynamic: self.dynamic,
            limits: self.limits.unwrap_or_default().limits(),
            retries_max: self.retries_max,
            force: self.force,
            downgrade: self.downgrade,
        })
    }
}

impl GroupRequest {
    fn group(&self, number: usize) -> Result<Group, String> {
        let size = match (&self.trial, self.count, self.percent, self.rest) {
            (Some(devices), None, None, false) => {
                Size::Trial(devices.iter().map(|device| device.as_str().into()).collect())
            }
            (None, Some(count), None, false) => Size::Devices(count),
            (None, None, Some(percent), false) => Size::Percent(percent),
            (None, None, None, true) => Size::Rest,
            _ => return Err(format!("group {number}: exactly one of trial, count, percent and rest says its size")),
        };
        let errors = match (self.errors, self.errors_percent) {
            (None, None) => None,
            (Some(count), None) => Some(Errors::Devices(count)),
            (None, Some(percent)) => Some(Errors::Percent(percent)),
            (Some(_), Some(_)) => return Err(format!("group {number}: errors and errors_percent exclude each other")),
        };
        Ok(Group { size, success_percent: self.success_percent.unwrap_or(100), errors })
    }
}

impl RateRequest {
    fn rate(&self) -> Result<Rate, String> {
        match (self.per_minute, self.base, self.factor_permille, self.every, self.max) {
            (Some(rate), None, None, None, None) => Ok(Rate::Constant(rate)),
            (None, Some(base), Some(factor_permille), Some(every), Some(max)) => {
                Ok(Rate::Growing { base, factor_permille, every, max })
            }
            _ => Err("rate: either per_minute, or base, factor_permille, every and max".to_owned()),
        }
    }
}

impl LimitsRequest {
    fn limits(&self) -> Limits {
        let default = Limits::default();
        Limits {
            offered_s: self.offered_s.unwrap_or(default.offered_s),
            accepted_s: self.accepted_s.unwrap_or(default.accepted_s),
            downloading_s: self.downloading_s.unwrap_or(default.downloading_s),
            downloaded_s: self.downloaded_s.unwrap_or(default.downloaded_s),
            verified_s: self.verified_s.unwrap_or(default.verified_s),
            applying_s: self.applying_s.unwrap_or(default.applying_s),
        }
    }
}
