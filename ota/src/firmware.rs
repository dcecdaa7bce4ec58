//! A firmware: what it is for, what is in its file, how far it has come; and what its product demands of it.
//!
//! ```text
//! Uploading ─▶ Ready ─▶ Withdrawn
//!     └──────▶ Refused
//! ```
//!
//! Only what is `Ready` may be offered. A firmware that was refused stays in the list with the reason until it is deleted; its version may be uploaded again.

use std::collections::{BTreeMap, BTreeSet};

use md5::Md5;
use sha2::{Digest, Sha256};
use turnpike_authz::names::ProductKey;

use crate::ids::FirmwareId;
use crate::signature::{Keys, Signed};
use crate::target::{Hardware, Target, Version};

/// Bytes of a file: offsets of blocks are 32 bits.
pub const BYTES_MAX: u64 = 4 << 30;
/// Hardware versions that a firmware may list, or a target's rule.
pub const HARDWARE_MAX: usize = 64;
/// Bytes of a note.
pub const NOTE_BYTES_MAX: usize = 1024;
/// Targets of a product.
pub const TARGETS_MAX: usize = 32;
/// Bytes of the reason why a firmware was refused.
pub const WHY_BYTES_MAX: usize = 200;

/// What a file is checked by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Digests {
    /// SHA-256, the one that counts.
    pub sha256: [u8; 32],
    /// MD5, which is what old devices check.
    pub md5: [u8; 16],
    /// CRC-32 (ISO-HDLC), for devices that have no more.
    pub crc32: u32,
}

/// A whole file as it came in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Whole {
    /// Its length.
    pub bytes: u64,
    /// What is in it.
    pub digests: Digests,
}

/// Computes [`Digests`] in one pass.
///
/// What it has computed so far can't be stored: the states of SHA-256 and MD5 have no encoding. An upload that goes on after a restart reads the part that is
/// there through a new one, which takes a second or two for each gigabyte.
#[derive(Clone, Default)]
pub struct Digester {
    sha256: Sha256,
    md5: Md5,
    crc32: crc32fast::Hasher,
    bytes: u64,
}

impl Digester {
    /// Takes the next bytes of the file.
    pub fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        self.md5.update(bytes);
        self.crc32.update(bytes);
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
    }

    /// How many bytes it has taken.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The digests of all that it has taken.
    #[must_use]
    pub fn finish(self) -> Whole {
        let digests = Digests {
            sha256: self.sha256.finalize().into(),
            md5: self.md5.finalize().into(),
            crc32: self.crc32.finalize(),
        };
        Whole { bytes: self.bytes, digests }
    }
}

impl std::fmt::Debug for Digester {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Digester").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// What whoever uploads says of the file beforehand. What is said is checked at the end, and the size on the way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Declared {
    /// Its length.
    pub bytes: Option<u64>,
    /// Its SHA-256.
    pub sha256: Option<[u8; 32]>,
    /// Its MD5.
    pub md5: Option<[u8; 16]>,
    /// Its CRC-32.
    pub crc32: Option<u32>,
}

/// Which hardware a firmware runs on. A list has at least one, so that an omission never means everything.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RunsOn {
    /// Said expressly: any, also what devices don't say.
    Any,
    /// One of these: [`RunsOn::listed`].
    Listed(BTreeSet<Hardware>),
}

/// Why a list of hardware isn't taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RunsOnError {
    /// An empty list.
    #[error("a firmware lists the hardware that it runs on, or says expressly that it runs on any")]
    Nothing,
    /// More than [`HARDWARE_MAX`].
    #[error("a list of hardware has {HARDWARE_MAX} versions at most")]
    TooMany,
}

impl RunsOn {
    /// A list of 1 to [`HARDWARE_MAX`].
    ///
    /// # Errors
    /// [`RunsOnError`].
    pub fn listed(hardware: impl IntoIterator<Item = Hardware>) -> Result<Self, RunsOnError> {
        let listed: BTreeSet<_> = hardware.into_iter().take(HARDWARE_MAX + 1).collect();
        match listed.len() {
            0 => Err(RunsOnError::Nothing),
            1..=HARDWARE_MAX => Ok(Self::Listed(listed)),
            _ => Err(RunsOnError::TooMany),
        }
    }

    /// Whether it runs on this, or on what a device doesn't say.
    #[must_use]
    pub fn takes(&self, hardware: Option<&Hardware>) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(listed) => hardware.is_some_and(|hardware| listed.contains(hardware)),
        }
    }

    /// Whether there is hardware that both run on.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) | (_, Self::Any) => true,
            (Self::Listed(one), Self::Listed(other)) => !one.is_disjoint(other),
        }
    }
}

/// What is in a file that was found to be right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Contents {
    /// Length and digests.
    pub whole: Whole,
    /// The signature that was verified, if there is one.
    pub signed: Option<Signed>,
}

/// How far a firmware has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum State {
    /// Its file is on the way.
    Uploading(Declared),
    /// It may be offered.
    Ready(Contents),
    /// Its file wasn't what it should be.
    Refused {
        /// What was wrong, for the operator; up to [`WHY_BYTES_MAX`].
        why: Box<str>,
    },
    /// It was `Ready` and isn't offered any more.
    Withdrawn(Contents),
}

/// A firmware.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Firmware {
    /// Its number.
    pub id: FirmwareId,
    /// Whose devices it is for.
    pub product: ProductKey,
    /// Which part of these.
    pub target: Target,
    /// The version that a device reports once it runs.
    pub version: Version,
    /// The hardware that it runs on.
    pub runs_on: RunsOn,
    /// The release counter: a greater one is newer, and what is below the one that the product demands is never offered.
    pub release: u64,
    /// It is a patch for devices that have this version; none: it is whole.
    pub base: Option<Version>,
    /// What the operator wrote, up to [`NOTE_BYTES_MAX`].
    pub note: Box<str>,
    /// Seconds since 1970 UTC.
    pub created_at_s: u64,
    /// How far it has come.
    pub state: State,
}

impl Firmware {
    /// What is in the file, if it is `Ready`.
    #[must_use]
    pub fn ready(&self) -> Option<&Contents> {
        match &self.state {
            State::Ready(contents) => Some(contents),
            State::Uploading(_) | State::Refused { .. } | State::Withdrawn(_) => None,
        }
    }
}

/// What a product demands of the firmware of a target.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TargetRule {
    /// The smallest release counter that may be uploaded and offered.
    pub release_min: u64,
    /// The hardware that there is: a firmware lists some of it, and can't say "any". Empty: whatever the firmware says.
    pub hardware: BTreeSet<Hardware>,
}

/// What a product demands of its firmware.
///
/// By default there are the targets `module`, `mcu` and `default` ([`Target::DEFAULT`]), any release and any hardware, and signatures are verified where there are
/// keys, but not required.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Demands {
    /// Whether a firmware without a signature is refused.
    pub signature_required: bool,
    /// Who signs.
    pub keys: Keys,
    /// The targets that a device of the product has, up to [`TARGETS_MAX`]. There is firmware for no other.
    pub targets: BTreeMap<Target, TargetRule>,
}

impl Default for Demands {
    fn default() -> Self {
        let targets =
            ["module", "mcu", Target::DEFAULT].map(|name| (name.parse().expect("a name"), TargetRule::default()));
        Self { signature_required: false, keys: Keys::default(), targets: targets.into() }
    }
}

/// Why demands aren't taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DemandsError {
    /// A product without targets would have no firmware.
    #[error("a product has at least one target")]
    NoTarget,
    /// More than [`TARGETS_MAX`].
    #[error("a product has {TARGETS_MAX} targets at most")]
    TooManyTargets,
    /// More than [`HARDWARE_MAX`].
    #[error("a target has {HARDWARE_MAX} hardware versions at most")]
    TooMuchHardware,
    /// Nothing could be uploaded.
    #[error("signatures are required and there is no key to verify them with")]
    NoKey,
}

impl Demands {
    /// Whether they can be met, and within limits.
    ///
    /// # Errors
    /// [`DemandsError`].
    pub fn check(&self) -> Result<(), DemandsError> {
        match self.targets.len() {
            0 => return Err(DemandsError::NoTarget),
            1..=TARGETS_MAX => {}
            _ => return Err(DemandsError::TooManyTargets),
        }
        if self.targets.values().any(|rule| rule.hardware.len() > HARDWARE_MAX) {
            return Err(DemandsError::TooMuchHardware);
        }
        if self.signature_required && self.keys.is_empty() { Err(DemandsError::NoKey) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hardware(text: &str) -> Hardware {
        text.parse().expect("a name")
    }

    #[test]
    fn digests_are_those_of_the_vectors() {
        let mut digester = Digester::default();
        digester.update(b"1234");
        digester.update(b"56789");
        let whole = digester.finish();
        assert_eq!(whole.bytes, 9);
        assert_eq!(whole.digests.crc32, 0xcbf4_3926);
        assert_eq!(hex::encode(whole.digests.md5), "25f9e794323b453885f5181f1b624d0b");
        let sha256 = "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225";
        assert_eq!(hex::encode(whole.digests.sha256), sha256);
    }

    #[test]
    fn a_list_of_hardware_is_never_empty_and_any_is_said() {
        assert_eq!(RunsOn::listed([]), Err(RunsOnError::Nothing));
        let many = (0..65).map(|number| hardware(&number.to_string()));
        assert_eq!(RunsOn::listed(many), Err(RunsOnError::TooMany));
        let listed = RunsOn::listed([hardware("A1"), hardware("A2")]).expect("a list");
        assert!(listed.takes(Some(&hardware("A2"))) && !listed.takes(Some(&hardware("B1"))) && !listed.takes(None));
        assert!(RunsOn::Any.takes(None) && RunsOn::Any.overlaps(&listed) && listed.overlaps(&RunsOn::Any));
        assert!(!listed.overlaps(&RunsOn::listed([hardware("B1")]).expect("a list")));
    }

    #[test]
    fn demands_that_nothing_meets_are_refused() {
        assert_eq!(Demands::default().check(), Ok(()));
        let none = Demands { targets: BTreeMap::new(), ..Demands::default() };
        assert_eq!(none.check(), Err(DemandsError::NoTarget));
        let keyless = Demands { signature_required: true, ..Demands::default() };
        assert_eq!(keyless.check(), Err(DemandsError::NoKey));
        let many = (0..33).map(|number| (number.to_string().parse().expect("a name"), TargetRule::default()));
        let many = Demands { targets: many.collect(), ..Demands::default() };
        assert_eq!(many.check(), Err(DemandsError::TooManyTargets));
    }

    proptest! {
        #[test]
        fn digests_dont_depend_on_how_the_file_is_cut(bytes in proptest::collection::vec(any::<u8>(), 0..500), at in any::<prop::sample::Index>()) {
            let (one, other) = bytes.split_at(at.index(bytes.len() + 1));
            let [mut cut, mut uncut] = [Digester::default(), Digester::default()];
            cut.update(one);
            cut.update(other);
            uncut.update(&bytes);
            prop_assert_eq!(cut.finish(), uncut.finish());
        }
    }
}
