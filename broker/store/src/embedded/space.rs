//! Refuses to write when the disk is nearly full, while there is still room to recover.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::StoreError;

/// How old an answer of the operating system may be.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// More than one table takes.
const EXHAUSTED_BYTES: u64 = 8 << 20;

/// Free bytes of the filesystem that holds a folder, against a reserve.
pub(super) struct FreeSpace {
    folder: PathBuf,
    reserve_bytes: u64,
    looked: Option<Instant>,
    low: bool,
}

impl FreeSpace {
    pub(super) fn new(folder: PathBuf, reserve_bytes: u64) -> Self {
        Self { folder, reserve_bytes, looked: None, low: false }
    }

    /// Looks about once a second, and at once while space is low. An error once half of the reserve is used.
    pub(super) fn check(&mut self) -> Result<(), StoreError> {
        if !self.low && self.looked.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            return Ok(());
        }
        self.check_now()
    }

    pub(super) fn check_now(&mut self) -> Result<(), StoreError> {
        if self.reserve_bytes == 0 {
            return Ok(());
        }
        let free_bytes = self.free_bytes()?;
        self.looked = Some(Instant::now());
        // Once low, a quarter more is asked for, so that the state doesn't flicker.
        let reserve_bytes = if self.low { self.reserve_bytes + self.reserve_bytes / 4 } else { self.reserve_bytes };
        self.low = free_bytes < reserve_bytes;
        if free_bytes < self.reserve_bytes / 2 {
            return Err(StoreError::Full { path: self.folder.clone(), free_bytes, reserve_bytes });
        }
        Ok(())
    }

    /// Whether less than the reserve is free: nothing more is to be taken in, what makes room may still be written.
    pub(super) fn is_low(&mut self) -> bool {
        // Not knowing is for the next commit to say.
        let _ = self.check();
        self.low
    }

    /// Whether so little is left that writing a table may have failed of it.
    pub(super) fn is_exhausted(&self) -> bool {
        self.free_bytes().is_ok_and(|free_bytes| free_bytes < self.reserve_bytes.max(EXHAUSTED_BYTES))
    }

    /// The error that says so.
    pub(super) fn full(&self) -> StoreError {
        let free_bytes = self.free_bytes().unwrap_or_default();
        StoreError::Full { path: self.folder.clone(), free_bytes, reserve_bytes: self.reserve_bytes }
    }

    fn free_bytes(&self) -> Result<u64, StoreError> {
        let stat = rustix::fs::statvfs(&self.folder)
            .map_err(|e| StoreError::io(&self.folder, "ask for the free space", e.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}
