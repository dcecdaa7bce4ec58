//! What is wrong with messages of devices: each has a code, by which it is counted.

use std::fmt::Display;

use turnpike_ota::block::BlockError;
use turnpike_ota::schedule::ReportError;
use turnpike_ota::wire::WireError;

use super::{OtaDesk, count};

/// Something wrong, which is counted by its code.
pub(super) trait Coded: Display {
    /// One of few words.
    fn code(&self) -> &'static str;
}

impl Coded for WireError {
    fn code(&self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::TooManyVersions => "too_many_versions",
            Self::Twice => "version_twice",
            Self::Name { .. } => "invalid_name",
            Self::Range { .. } => "out_of_range",
        }
    }
}

impl Coded for BlockError {
    fn code(&self) -> &'static str {
        match self {
            Self::Malformed => "block_malformed",
            Self::Size => "block_size",
            Self::Unaligned => "block_unaligned",
            Self::Nothing => "block_nothing",
            Self::TooMuch => "block_too_much",
        }
    }
}

impl Coded for ReportError {
    fn code(&self) -> &'static str {
        match self {
            Self::NoOffer => "no_offer",
            Self::Impossible(_) => "impossible",
        }
    }
}

impl OtaDesk {
    /// Counts a message of a device that was of no use.
    pub(super) fn count_fault(&self, product: &str, error: &dyn Coded) {
        count(&self.counts.faults);
        self.faults.add(error.code());
        tracing::debug!(product, code = error.code(), %error, "a message of a device about firmware is of no use");
    }
}
