//! All firmware of all products: what is asked for becomes a [`Change`], which is committed and then applied; and which file suits a device.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use turnpike_authz::names::ProductKey;

use crate::cut::cut;
use crate::firmware::{
    BYTES_MAX, Contents, Declared, Demands, DemandsError, Firmware, NOTE_BYTES_MAX, RunsOn, State, TargetRule,
    WHY_BYTES_MAX, Whole,
};
use crate::ids::FirmwareId;
use crate::signature::{Detached, SignatureError};
use crate::target::{Target, Version};

mod suits;

pub use suits::{Fitting, Suited, Unsuited};

/// Firmware in all.
pub const FIRMWARE_MAX: usize = 20_000;
/// Firmware of a product.
pub const PRODUCT_FIRMWARE_MAX: usize = 1_000;

/// A change of the catalog.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Create or replace.
    Put(Arc<Firmware>),
    /// Remove. [`Self::Given`] goes before it in the same commit.
    Delete(FirmwareId),
    /// Numbers up to this one have been given, also where their firmware is gone.
    Given(FirmwareId),
    /// What a product demands; none: [`Demands::default`].
    SetDemands(ProductKey, Option<Arc<Demands>>),
}

/// Why nothing is changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CatalogError {
    /// There is none of that number.
    #[error("there is no such firmware")]
    NoSuchFirmware,
    /// The product's demands list no such target.
    #[error("the product has no target of that name")]
    UnknownTarget,
    /// The target's rule lists the hardware that there is, and this isn't it; or "any" was said.
    #[error("the target's hardware is listed, and the firmware says something else")]
    UnknownHardware,
    /// The same version, for the same target, hardware and base.
    #[error("firmware {0} is that version already")]
    VersionExists(FirmwareId),
    /// A patch from a version to itself.
    #[error("a patch leads from its base to another version")]
    BaseIsVersion,
    /// Below what the product demands of the target.
    #[error("the release counter is {release}, and the product demands {required} at least")]
    Rollback {
        /// Of this firmware.
        release: u64,
        /// The smallest that may be.
        required: u64,
    },
    /// A patch's, and not that of the whole firmware to which it leads.
    #[error("the release counter is {release}, and that of the whole firmware of this version is {whole}")]
    ReleaseDiffers {
        /// Of this firmware.
        release: u64,
        /// Of the whole one.
        whole: u64,
    },
    /// More than [`BYTES_MAX`].
    #[error("a firmware has {BYTES_MAX} bytes at most")]
    TooLarge,
    /// Nothing in it.
    #[error("a firmware has at least one byte")]
    Empty,
    /// More than [`NOTE_BYTES_MAX`].
    #[error("a note has {NOTE_BYTES_MAX} bytes at most")]
    NoteTooLong,
    /// [`FIRMWARE_MAX`] or [`PRODUCT_FIRMWARE_MAX`].
    #[error("there is too much firmware already; delete some")]
    TooMany,
    /// Not as long as was declared.
    #[error("the file has {have} bytes, and {declared} were declared")]
    WrongSize {
        /// What has come.
        have: u64,
        /// What should have.
        declared: u64,
    },
    /// Another SHA-256 than was declared.
    #[error("the file's SHA-256 isn't the declared one")]
    WrongSha256,
    /// Another MD5 than was declared.
    #[error("the file's MD5 isn't the declared one")]
    WrongMd5,
    /// Another CRC-32 than was declared.
    #[error("the file's CRC-32 isn't the declared one")]
    WrongCrc32,
    /// Missing, wrong, or by nobody who is known.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// Only what is on the way can be finished or refused.
    #[error("the firmware isn't being uploaded")]
    NotUploading,
    /// Only what is ready can be withdrawn.
    #[error("the firmware isn't ready")]
    NotReady,
    /// A campaign has it.
    #[error("a campaign uses the firmware")]
    InUse,
    /// They can't be met.
    #[error(transparent)]
    Demands(#[from] DemandsError),
}

/// A firmware to be uploaded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Planned {
    /// Whose devices it is for. That there is such a product, the caller knows.
    pub product: ProductKey,
    /// Which part of these.
    pub target: Target,
    /// What it is.
    pub version: Version,
    /// The hardware that it runs on.
    pub runs_on: RunsOn,
    /// The release counter. None: that of the whole firmware to which a patch leads, else 0.
    pub release: Option<u64>,
    /// The version that it is a patch for.
    pub base: Option<Version>,
    /// What the operator wrote.
    pub note: Box<str>,
    /// What is known of the file.
    pub declared: Declared,
}

/// All firmware, in memory.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Catalog {
    firmware: BTreeMap<FirmwareId, Arc<Firmware>>,
    products: BTreeMap<ProductKey, BTreeSet<FirmwareId>>,
    demands: BTreeMap<ProductKey, Arc<Demands>>,
    /// The greatest number that was given.
    given: u64,
}

impl Catalog {
    /// Applies a change that was committed, or that was read back.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Put(firmware) => {
                self.given = self.given.max(firmware.id.0);
                self.products.entry(firmware.product.clone()).or_default().insert(firmware.id);
                self.firmware.insert(firmware.id, firmware);
            }
            Change::Delete(id) => {
                let Some(firmware) = self.firmware.remove(&id) else { return };
                if let Some(of_product) = self.products.get_mut(&firmware.product) {
                    of_product.remove(&id);
                    if of_product.is_empty() {
                        self.products.remove(&firmware.product);
                    }
                }
            }
            Change::Given(id) => self.given = self.given.max(id.0),
            Change::SetDemands(product, Some(demands)) => {
                self.demands.insert(product, demands);
            }
            Change::SetDemands(product, None) => {
                self.demands.remove(&product);
            }
        }
    }

    /// The firmware of a number.
    #[must_use]
    pub fn get(&self, id: FirmwareId) -> Option<&Arc<Firmware>> {
        self.firmware.get(&id)
    }

    /// The firmware of a product, the oldest first.
    pub fn of_product(&self, product: &str) -> impl DoubleEndedIterator<Item = &Arc<Firmware>> {
        self.products.get(product).into_iter().flatten().filter_map(|id| self.firmware.get(id))
    }

    /// Products that have firmware, or demands; those that have both, twice.
    pub fn products(&self) -> impl Iterator<Item = &ProductKey> {
        self.products.keys().chain(self.demands.keys())
    }

    /// All firmware after a number, the oldest first.
    pub fn after(&self, id: FirmwareId) -> impl Iterator<Item = &Arc<Firmware>> {
        self.firmware.range(FirmwareId(id.0.saturating_add(1))..).map(|(_, firmware)| firmware)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.firmware.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.firmware.is_empty()
    }

    /// What a product demands.
    #[must_use]
    pub fn demands(&self, product: &str) -> Arc<Demands> {
        self.demands.get(product).cloned().unwrap_or_default()
    }

    /// A firmware of which nothing has come yet.
    ///
    /// # Errors
    /// [`CatalogError`].
    pub fn plan_create(&self, planned: Planned, now_s: u64) -> Result<(FirmwareId, Change), CatalogError> {
        let Planned { product, target, version, runs_on, release, base, note, declared } = planned;
        let of_product = self.products.get(&product).map_or(0, BTreeSet::len);
        if self.firmware.len() >= FIRMWARE_MAX || of_product >= PRODUCT_FIRMWARE_MAX {
            return Err(CatalogError::TooMany);
        }
        if note.len() > NOTE_BYTES_MAX {
            return Err(CatalogError::NoteTooLong);
        }
        match declared.bytes {
            Some(0) => return Err(CatalogError::Empty),
            Some(bytes) if bytes > BYTES_MAX => return Err(CatalogError::TooLarge),
            _ => {}
        }
        if base.as_ref() == Some(&version) {
            return Err(CatalogError::BaseIsVersion);
        }
        let id = FirmwareId(self.given.saturating_add(1));
        let state = State::Uploading(declared);
        let whole = base.as_ref().and_then(|_| self.whole_of(&product, &target, &version, &runs_on));
        let release = match (release, whole) {
            (Some(release), Some(whole)) if release != whole => {
                return Err(CatalogError::ReleaseDiffers { release, whole });
            }
            (release, whole) => release.or(whole).unwrap_or(0),
        };
        let firmware =
            Firmware { id, product, target, version, runs_on, release, base, note, created_at_s: now_s, state };
        judged(&self.demands(firmware.product.as_str()), &firmware)?;
        if let Some(same) = self.same_version(&firmware) {
            return Err(CatalogError::VersionExists(same));
        }
        Ok((id, Change::Put(Arc::new(firmware))))
    }

    /// The whole file has come: it is ready, if it is what was declared and what the product demands. Where it isn't, it is to be refused:
    /// [`Self::plan_refuse`].
    ///
    /// # Errors
    /// [`CatalogError`].
    pub fn plan_finish(
        &self,
        id: FirmwareId,
        whole: &Whole,
        detached: Option<&Detached>,
    ) -> Result<Change, CatalogError> {
        let firmware = self.get(id).ok_or(CatalogError::NoSuchFirmware)?;
        let State::Uploading(declared) = &firmware.state else { return Err(CatalogError::NotUploading) };
        as_declared(declared, whole)?;
        let demands = self.demands(firmware.product.as_str());
        judged(&demands, firmware)?;
        let signed = match detached {
            Some(detached) => Some(demands.keys.verify(&whole.digests.sha256, detached)?),
            None if demands.signature_required => return Err(SignatureError::Missing.into()),
            None => None,
        };
        Ok(self.moved(firmware, State::Ready(Contents { whole: *whole, signed })))
    }

    /// What came wasn't right.
    ///
    /// # Errors
    /// [`CatalogError::NoSuchFirmware`], [`CatalogError::NotUploading`].
    pub fn plan_refuse(&self, id: FirmwareId, why: &str) -> Result<Change, CatalogError> {
        let firmware = self.get(id).ok_or(CatalogError::NoSuchFirmware)?;
        let State::Uploading(_) = &firmware.state else { return Err(CatalogError::NotUploading) };
        Ok(self.moved(firmware, State::Refused { why: cut(why, WHY_BYTES_MAX).into() }))
    }

    /// It isn't to be offered any more. Campaigns that have it are the caller's to stop.
    ///
    /// # Errors
    /// [`CatalogError::NoSuchFirmware`], [`CatalogError::NotReady`].
    pub fn plan_withdraw(&self, id: FirmwareId) -> Result<Change, CatalogError> {
        let firmware = self.get(id).ok_or(CatalogError::NoSuchFirmware)?;
        let contents = firmware.ready().ok_or(CatalogError::NotReady)?;
        Ok(self.moved(firmware, State::Withdrawn(contents.clone())))
    }

    /// Removes a firmware, of whatever state. Both changes go into one commit; the file is removed after it.
    ///
    /// # Errors
    /// [`CatalogError::NoSuchFirmware`], [`CatalogError::InUse`].
    pub fn plan_delete(&self, id: FirmwareId, in_use: bool) -> Result<[Change; 2], CatalogError> {
        self.get(id).ok_or(CatalogError::NoSuchFirmware)?;
        if in_use {
            return Err(CatalogError::InUse);
        }
        Ok([Change::Given(FirmwareId(self.given)), Change::Delete(id)])
    }

    /// Says what a product demands. What was uploaded before stays, and is offered only if it meets this too.
    ///
    /// # Errors
    /// [`CatalogError::Demands`].
    pub fn plan_demands(&self, product: &ProductKey, demands: Demands) -> Result<Change, CatalogError> {
        demands.check()?;
        let demands = (demands != Demands::default()).then(|| Arc::new(demands));
        Ok(Change::SetDemands(product.clone(), demands))
    }

    /// Removes up to `limit` records, at least 2, of a deleted product; nothing is left of it when there is nothing to remove. The files are the caller's to remove.
    #[must_use]
    pub fn plan_sweep(&self, product: &ProductKey, limit: usize) -> Vec<Change> {
        let limit = limit.max(2);
        let mut changes = Vec::new();
        let left = self.of_product(product.as_str()).map(|firmware| Change::Delete(firmware.id));
        changes.extend(left.take(limit - 1));
        if !changes.is_empty() {
            changes.insert(0, Change::Given(FirmwareId(self.given)));
        }
        if changes.len() < limit && self.demands.contains_key(product) {
            changes.push(Change::SetDemands(product.clone(), None));
        }
        changes
    }

    /// The release counter of a whole firmware of a version that runs on some of this hardware.
    fn whole_of(&self, product: &ProductKey, target: &Target, version: &Version, runs_on: &RunsOn) -> Option<u64> {
        let is_whole = |other: &&Arc<Firmware>| {
            other.base.is_none()
                && other.target == *target
                && other.version == *version
                && other.runs_on.overlaps(runs_on)
                && !matches!(other.state, State::Refused { .. })
        };
        self.of_product(product.as_str()).find(is_whole).map(|whole| whole.release)
    }

    fn moved(&self, firmware: &Firmware, state: State) -> Change {
        Change::Put(Arc::new(Firmware { state, ..firmware.clone() }))
    }

    /// A firmware that a device couldn't tell from this one. A refused one never was that version.
    fn same_version(&self, firmware: &Firmware) -> Option<FirmwareId> {
        let is_same = |other: &&Arc<Firmware>| {
            other.target == firmware.target
                && other.version == firmware.version
                && other.base == firmware.base
                && other.runs_on.overlaps(&firmware.runs_on)
                && !matches!(other.state, State::Refused { .. })
        };
        self.of_product(firmware.product.as_str()).find(is_same).map(|other| other.id)
    }
}

/// Whether a firmware may be there at all.
fn judged(demands: &Demands, firmware: &Firmware) -> Result<(), CatalogError> {
    let rule = demands.targets.get(&firmware.target).ok_or(CatalogError::UnknownTarget)?;
    if !is_listed(rule, &firmware.runs_on) {
        return Err(CatalogError::UnknownHardware);
    }
    let (release, required) = (firmware.release, rule.release_min);
    if release < required { Err(CatalogError::Rollback { release, required }) } else { Ok(()) }
}

fn is_listed(rule: &TargetRule, runs_on: &RunsOn) -> bool {
    match runs_on {
        _ if rule.hardware.is_empty() => true,
        RunsOn::Any => false,
        RunsOn::Listed(listed) => listed.is_subset(&rule.hardware),
    }
}

fn as_declared(declared: &Declared, whole: &Whole) -> Result<(), CatalogError> {
    let differs = |one: bool, error| if one { Err(error) } else { Ok(()) };
    let Whole { bytes, digests } = whole;
    if let Some(declared) = declared.bytes.filter(|declared| declared != bytes) {
        return Err(CatalogError::WrongSize { have: *bytes, declared });
    }
    differs(*bytes == 0, CatalogError::Empty)?;
    differs(*bytes > BYTES_MAX, CatalogError::TooLarge)?;
    differs(declared.sha256.is_some_and(|sha256| sha256 != digests.sha256), CatalogError::WrongSha256)?;
    differs(declared.md5.is_some_and(|md5| md5 != digests.md5), CatalogError::WrongMd5)?;
    differs(declared.crc32.is_some_and(|crc32| crc32 != digests.crc32), CatalogError::WrongCrc32)
}

#[cfg(test)]
mod tests;
