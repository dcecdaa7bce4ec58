//! From a device to a firmware.

use std::sync::Arc;

use super::Catalog;
use crate::firmware::{Contents, Demands, Firmware, State, TargetRule};
use crate::ids::FirmwareId;
use crate::target::{Hardware, Target, Version};

/// Why a firmware isn't for a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unsuited {
    /// There is none of that number, or it is a patch, which is chosen by [`Catalog::suits`] alone.
    #[error("there is no such firmware")]
    NoSuchFirmware,
    /// Another product's.
    #[error("the firmware is another product's")]
    Product,
    /// For another part of the device, or for one that the product doesn't have any more.
    #[error("the firmware is for another target")]
    Target,
    /// It doesn't list the device's hardware, or the device doesn't say what it has.
    #[error("the firmware isn't for the device's hardware")]
    Hardware,
    /// On the way, refused or withdrawn.
    #[error("the firmware isn't ready")]
    NotReady,
    /// The device runs a version whose release counter is greater.
    #[error("the device runs a newer version")]
    Older,
    /// Its release counter is below the one that the product has come to demand.
    #[error("the firmware's release counter is below what the product demands")]
    Rollback,
    /// It has no signature, and the product has come to require one.
    #[error("the firmware isn't signed by a key of the product, which it demands")]
    Unsigned,
}

/// A device, as far as firmware goes.
#[derive(Clone, Copy, Debug)]
pub struct Fitting<'a> {
    /// Its product key.
    pub product: &'a str,
    /// The part in question.
    pub target: &'a Target,
    /// Its hardware, if it says.
    pub hardware: Option<&'a Hardware>,
    /// The version that it reports.
    pub version: Option<&'a Version>,
}

/// What a device is offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Suited<'a> {
    /// The whole firmware, or a patch from the device's version to it.
    pub firmware: &'a Arc<Firmware>,
    /// What is in its file.
    pub contents: &'a Contents,
}

impl Catalog {
    /// What a campaign for a firmware offers a device: the patch from the version that the device reports, where there is one, or the whole firmware. The only
    /// way from a device to a firmware.
    ///
    /// # Errors
    /// [`Unsuited`].
    pub fn suits(&self, id: FirmwareId, device: &Fitting<'_>) -> Result<Suited<'_>, Unsuited> {
        let whole = self.get(id).filter(|firmware| firmware.base.is_none()).ok_or(Unsuited::NoSuchFirmware)?;
        let demands = self.demands(whole.product.as_str());
        let suited = fits(whole, &demands, device)?;
        let patches = self.of_product(device.product).rev().filter(|patch| is_patch(patch, whole, device));
        let patch = patches.filter_map(|patch| fits(patch, &demands, device).ok()).next();
        Ok(patch.unwrap_or(suited))
    }
}

impl Catalog {
    /// What stands against a firmware as a campaign's, whatever devices there are.
    ///
    /// # Errors
    /// [`Unsuited`]: what an operator has to mend.
    pub fn judge(&self, id: FirmwareId) -> Result<(), Unsuited> {
        let whole = self.get(id).filter(|firmware| firmware.base.is_none()).ok_or(Unsuited::NoSuchFirmware)?;
        let demands = self.demands(whole.product.as_str());
        let rule = demands.targets.get(&whole.target).ok_or(Unsuited::Target)?;
        may_go(whole, &demands, rule).map(|_| ())
    }

    /// Whether a whole firmware is older, by its release counter, than the version that a device reports. A file that was never ready says nothing of that
    /// version, and a patch's counter is of no account.
    #[must_use]
    pub fn is_older(&self, whole: &Firmware, version: &Version) -> bool {
        self.of_product(whole.product.as_str()).any(|other| {
            other.base.is_none()
                && other.target == whole.target
                && other.version == *version
                && other.release > whole.release
                && matches!(other.state, State::Ready(_) | State::Withdrawn(_))
        })
    }

    /// [`Catalog::suits`] for a device that has begun with a file: that one, as long as it may go out and leads there from what the device runs, whatever
    /// patches have come meanwhile.
    ///
    /// # Errors
    /// [`Unsuited`].
    pub fn suits_again(&self, id: FirmwareId, begun: FirmwareId, device: &Fitting<'_>) -> Result<Suited<'_>, Unsuited> {
        let suited = self.suits(id, device)?;
        let (Some(whole), Some(begun)) = (self.get(id), self.get(begun)) else { return Ok(suited) };
        let leads = begun.id == id || is_patch(begun, whole, device);
        let again = leads.then(|| fits(begun, &self.demands(device.product), device).ok()).flatten();
        Ok(again.unwrap_or(suited))
    }
}

/// Whether a firmware leads from what a device runs to this whole one.
fn is_patch(patch: &Firmware, whole: &Firmware, device: &Fitting<'_>) -> bool {
    patch.base.is_some()
        && patch.base.as_ref() == device.version
        && patch.version == whole.version
        && patch.target == whole.target
}

fn fits<'a>(firmware: &'a Arc<Firmware>, demands: &Demands, device: &Fitting<'_>) -> Result<Suited<'a>, Unsuited> {
    if firmware.product.as_str() != device.product {
        return Err(Unsuited::Product);
    }
    let rule = demands.targets.get(&firmware.target).filter(|_| firmware.target == *device.target);
    let rule = rule.ok_or(Unsuited::Target)?;
    if !firmware.runs_on.takes(device.hardware) {
        return Err(Unsuited::Hardware);
    }
    let contents = may_go(firmware, demands, rule)?;
    Ok(Suited { firmware, contents })
}

/// Whether a firmware may go to any device.
fn may_go<'a>(firmware: &'a Firmware, demands: &Demands, rule: &TargetRule) -> Result<&'a Contents, Unsuited> {
    let contents = firmware.ready().ok_or(Unsuited::NotReady)?;
    if firmware.release < rule.release_min {
        return Err(Unsuited::Rollback);
    }
    let is_by = |key| demands.keys.as_slice().iter().any(|one| one.fingerprint() == key);
    if demands.signature_required && !contents.signed.as_ref().is_some_and(|signed| is_by(signed.key)) {
        return Err(Unsuited::Unsigned);
    }
    Ok(contents)
}
