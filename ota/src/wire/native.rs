//! Our own messages.
//!
//! A device checks, at its boot and when it likes; `hardware` and `zone` are left out where it doesn't know them:
//!
//! ```json
//! {"id": 1, "versions": {"mcu": "1.2.0", "module": "3.0.1"}, "hardware": "A1", "zone": "+08:00"}
//! ```
//!
//! It is offered something, for its check (then with its `id`) or unasked. `signature`, `url` with `expires`, `base` and `mqtt` are there where they apply: a
//! signature that was verified, HTTPS, a patch, blocks over MQTT ([`crate::block`]).
//!
//! ```json
//! {"id": 1, "offer": {"offer": 17, "target": "mcu", "version": "1.2.1", "size": 300000, "sha256": "…", "md5": "…", "crc32": "cbf43926",
//!  "signature": "base64", "url": "https://…", "expires": 1795273800, "base": "1.2.0", "mqtt": {"min": 256, "max": 131072, "request": 1048576}}}
//! {"id": 1, "offer": null}
//! {"id": 1, "offer": null, "failed": {"offer": 16, "reason": "came back with the old version"}}
//! ```
//!
//! It says how far it is. `percent` goes with `downloading`; `reason` is a number or a text: [`Why`]. That it has succeeded, its next check says.
//!
//! ```json
//! {"offer": 17, "state": "downloading", "percent": 40}
//! {"offer": 17, "state": "failed", "reason": "space"}
//! ```

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::{Pairs, RequestId, Scalar, Step, VERSIONS_MAX, Why, WireError, name, read};
use crate::block;
use crate::firmware::{Contents, Firmware};
use crate::target::{Hardware, Target, Version};

/// Bytes of a zone as a device writes it.
const ZONE_BYTES_MAX: usize = 32;

/// A device's check.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Check {
    /// What the answer repeats.
    pub id: Option<RequestId>,
    /// What it runs.
    pub versions: BTreeMap<Target, Version>,
    /// What it is.
    pub hardware: Option<Hardware>,
    /// Its time zone as it wrote it, up to 32 bytes.
    pub zone: Option<Box<str>>,
}

#[derive(Deserialize)]
struct WrittenCheck {
    id: Option<Scalar>,
    versions: Pairs,
    hardware: Option<String>,
    zone: Option<String>,
}

impl Check {
    /// Reads a check.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn read(payload: &[u8]) -> Result<Self, WireError> {
        let WrittenCheck { id, versions: Pairs(pairs), hardware, zone } = read(payload)?;
        if pairs.len() > VERSIONS_MAX {
            return Err(WireError::TooManyVersions);
        }
        let mut versions = BTreeMap::new();
        for (target, version) in pairs {
            if versions.insert(name("versions", &target)?, name("versions", &version)?).is_some() {
                return Err(WireError::Twice);
            }
        }
        let zone = zone.map(|zone| {
            if zone.len() <= ZONE_BYTES_MAX { Ok(zone.into()) } else { Err(WireError::Range { field: "zone" }) }
        });
        Ok(Self {
            id: id.map(Scalar::id).transpose()?,
            versions,
            hardware: hardware.map(|hardware| name("hardware", &hardware)).transpose()?,
            zone: zone.transpose()?,
        })
    }
}

/// Where a file is fetched over HTTPS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link<'a> {
    /// With the token in it.
    pub url: &'a str,
    /// Seconds since 1970 UTC from which on the token is void.
    pub expires_s: u64,
}

/// An offer.
#[derive(Clone, Copy, Debug)]
pub struct Offer<'a> {
    /// Its number, which progress and requests for blocks name.
    pub offer: u32,
    /// What is offered: [`crate::catalog::Suited`].
    pub firmware: &'a Firmware,
    /// What is in it.
    pub contents: &'a Contents,
    /// Over HTTPS, if that is served.
    pub link: Option<Link<'a>>,
    /// Over MQTT, if that is served.
    pub blocks: bool,
}

/// What goes to a device on `dev/{p}/{d}/ota/offer`.
#[derive(Clone, Debug, Default)]
pub struct Answer<'a> {
    /// Of the check that it answers.
    pub id: Option<RequestId>,
    /// What there is.
    pub offer: Option<Offer<'a>>,
    /// The offer that the device has failed, and why, which it is told by the next answer.
    pub failed: Option<(u32, &'a str)>,
}

#[derive(Serialize)]
struct WrittenAnswer<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a RequestId>,
    offer: Option<WrittenOffer<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<WrittenFailed<'a>>,
}

#[derive(Serialize)]
struct WrittenFailed<'a> {
    offer: u32,
    reason: &'a str,
}

#[derive(Serialize)]
struct WrittenOffer<'a> {
    offer: u32,
    target: &'a str,
    version: &'a str,
    size: u64,
    sha256: String,
    md5: String,
    crc32: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    signature: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mqtt: Option<WrittenBlocks>,
}

#[derive(Serialize)]
struct WrittenBlocks {
    min: u32,
    max: u32,
    request: u32,
}

impl Answer<'_> {
    /// As JSON.
    #[must_use]
    pub fn payload(&self) -> String {
        let offer = self.offer.as_ref().map(written);
        let failed = self.failed.map(|(offer, reason)| WrittenFailed { offer, reason });
        let answer = WrittenAnswer { id: self.id.as_ref(), offer, failed };
        serde_json::to_string(&answer).expect("texts and numbers have a JSON")
    }
}

fn written<'a>(offer: &Offer<'a>) -> WrittenOffer<'a> {
    let Offer { offer, firmware, contents, link, blocks } = *offer;
    let digests = &contents.whole.digests;
    let sizes = WrittenBlocks { min: block::SIZE_MIN, max: block::SIZE_MAX, request: block::REQUEST_BYTES_MAX };
    WrittenOffer {
        offer,
        target: firmware.target.as_str(),
        version: firmware.version.as_str(),
        size: contents.whole.bytes,
        sha256: hex::encode(digests.sha256),
        md5: hex::encode(digests.md5),
        crc32: format!("{:08x}", digests.crc32),
        signature: contents.signed.as_ref().map(|signed| STANDARD.encode(&signed.signature)),
        url: link.map(|link| link.url),
        expires: link.map(|link| link.expires_s),
        base: firmware.base.as_ref().map(Version::as_str),
        mqtt: blocks.then_some(sizes),
    }
}

/// How far a device says it is with an offer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Progress {
    /// With which.
    pub offer: u32,
    /// How far.
    pub step: Step,
    /// Why, where it says.
    pub why: Option<Why>,
}

#[derive(Deserialize)]
struct WrittenProgress {
    offer: u32,
    state: String,
    percent: Option<u8>,
    reason: Option<Scalar>,
}

impl Progress {
    /// Reads a report.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn read(payload: &[u8]) -> Result<Self, WireError> {
        let WrittenProgress { offer, state, percent, reason } = read(payload)?;
        let why = reason.map(Scalar::why).transpose()?.flatten();
        if percent.is_some_and(|percent| percent > 100) {
            return Err(WireError::Range { field: "percent" });
        }
        let step = match state.as_str() {
            "accepted" => Step::Accepted,
            "downloading" => Step::Downloading(percent.unwrap_or(0)),
            "downloaded" => Step::Downloaded,
            "verified" => Step::Verified,
            "applying" => Step::Applying,
            "failed" => Step::Failed { retryable: why.as_ref().is_none_or(Why::is_retryable) },
            "rejected" => Step::Rejected,
            _ => return Err(WireError::Range { field: "state" }),
        };
        Ok(Self { offer, step, why })
    }
}

#[cfg(test)]
mod tests;
