//! Logs that are kept: of which devices, how large, for how long. Their bytes are the caller's.

use std::collections::{BTreeMap, BTreeSet};

use turnpike_authz::names::{DeviceName, ProductKey};

/// A kept log's number. Given once and never again, a later one is greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LogId(pub u64);

impl std::fmt::Display for LogId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// How much is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Logs of a device; the oldest ones make room.
    pub device_logs: usize,
    /// Bytes of a device's logs; the oldest ones make room.
    pub device_bytes: u64,
    /// Logs of all devices. There none makes room: no device pushes out what another one has left.
    pub logs: usize,
    /// Bytes of them.
    pub bytes: u64,
    /// Milliseconds for which a log is kept.
    pub kept_ms: u64,
}

impl Default for Limits {
    /// 16 logs and 16 MiB of a device, 100,000 and 1 GiB in all, 30 days.
    fn default() -> Self {
        Self { device_logs: 16, device_bytes: 16 << 20, logs: 100_000, bytes: 1 << 30, kept_ms: 30 * 24 * 3_600_000 }
    }
}

/// How a log is compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the words say it")]
pub enum Packing {
    Zlib,
    Zstd,
    Lz4,
}

impl Packing {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Zlib, Self::Zstd, Self::Lz4];

    /// One word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Zlib => "zlib",
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
        }
    }
}

/// A kept log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kept {
    /// Its number.
    pub id: LogId,
    /// Whose.
    pub product: ProductKey,
    /// Whose.
    pub device: DeviceName,
    /// The device's own number of it.
    pub number: u32,
    /// The command that asked for it.
    pub command: Option<u32>,
    /// Bytes, as they came.
    pub bytes: u64,
    /// Of these, CRC-32 (ISO-HDLC).
    pub crc32: u32,
    /// How they are compressed; none: they aren't, or are damaged.
    pub packing: Option<Packing>,
    /// Bytes of the log itself.
    pub unpacked_bytes: u64,
    /// Milliseconds since 1970 UTC at which it was whole.
    pub at_ms: u64,
}

/// Why a log isn't kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ShelfError {
    /// It is kept already.
    #[error("log {0} is the same")]
    Known(LogId),
    /// Longer than what a device may have.
    #[error("the log is longer than all logs of a device may be")]
    TooLong,
    /// [`Limits::logs`] or [`Limits::bytes`].
    #[error("there is no room for more logs; delete some")]
    Full,
}

/// A change of the shelf, to be committed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// It is kept.
    Put(Box<Kept>),
    /// It isn't any more. Its bytes are to be removed.
    Forget(ProductKey, DeviceName, LogId),
    /// Numbers up to this one have been given.
    Given(LogId),
}

/// All kept logs.
#[derive(Clone, Debug, Default)]
pub struct Shelf {
    limits: Limits,
    logs: BTreeMap<LogId, Kept>,
    devices: BTreeMap<(ProductKey, DeviceName), BTreeSet<LogId>>,
    /// When each came.
    ages: BTreeSet<(u64, LogId)>,
    bytes: u64,
    given: u64,
}

impl Shelf {
    /// Within these limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Room for a log, whose number is given here, whatever it says; what makes room for it is among the changes.
    ///
    /// # Errors
    /// [`ShelfError`].
    pub fn plan(&mut self, mut kept: Kept) -> Result<(LogId, Vec<Change>), ShelfError> {
        let Limits { device_logs, device_bytes, logs, bytes, .. } = self.limits;
        if let Some(same) = self.find(&kept.product, &kept.device, kept.number, kept.crc32) {
            return Err(ShelfError::Known(same));
        }
        if kept.bytes > device_bytes {
            return Err(ShelfError::TooLong);
        }
        let of_device: Vec<_> = self.of_device(&kept.product, &kept.device).collect();
        let (mut left, mut left_bytes) = (of_device.len(), of_device.iter().map(|log| log.bytes).sum::<u64>());
        let (mut changes, mut freed) = (Vec::new(), 0);
        for oldest in of_device {
            if left < device_logs && left_bytes + kept.bytes <= device_bytes {
                break;
            }
            left -= 1;
            left_bytes -= oldest.bytes;
            freed += oldest.bytes;
            changes.push(forgotten(oldest));
        }
        if self.logs.len() - changes.len() >= logs || self.bytes - freed + kept.bytes > bytes {
            return Err(ShelfError::Full);
        }
        self.given = self.given.saturating_add(1);
        kept.id = LogId(self.given);
        changes.extend([Change::Given(kept.id), Change::Put(Box::new(kept))]);
        Ok((LogId(self.given), changes))
    }

    /// Applies a change that was planned, or that was read back.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Put(kept) => {
                self.forget(kept.id);
                self.given = self.given.max(kept.id.0);
                self.bytes += kept.bytes;
                self.ages.insert((kept.at_ms, kept.id));
                self.devices.entry((kept.product.clone(), kept.device.clone())).or_default().insert(kept.id);
                self.logs.insert(kept.id, *kept);
            }
            Change::Forget(_, _, id) => self.forget(id),
            Change::Given(id) => self.given = self.given.max(id.0),
        }
    }

    /// A log of a device.
    #[must_use]
    pub fn of(&self, product: &ProductKey, device: &DeviceName, id: LogId) -> Option<&Kept> {
        self.logs.get(&id).filter(|log| log.product == *product && log.device == *device)
    }

    /// A device's log by the number that the device has given it, and its CRC-32.
    #[must_use]
    pub fn find(&self, product: &ProductKey, device: &DeviceName, number: u32, crc32: u32) -> Option<LogId> {
        let mut of_device = self.of_device(product, device);
        of_device.find(|log| log.number == number && log.crc32 == crc32).map(|log| log.id)
    }

    /// A device's logs, the oldest first.
    pub fn of_device(&self, product: &ProductKey, device: &DeviceName) -> impl Iterator<Item = &Kept> {
        let ids = self.devices.get(&(product.clone(), device.clone()));
        ids.into_iter().flatten().filter_map(|id| self.logs.get(id))
    }

    /// All logs.
    pub fn all(&self) -> impl Iterator<Item = &Kept> {
        self.logs.values()
    }

    /// Forgets a log of a device.
    pub fn drop_log(&mut self, product: &ProductKey, device: &DeviceName, id: LogId) -> Option<Change> {
        let change = self.of(product, device, id).map(forgotten)?;
        self.apply(change.clone());
        Some(change)
    }

    /// A device is gone from the registry: so are its logs.
    pub fn drop_device(&mut self, product: &ProductKey, device: &DeviceName) -> Vec<Change> {
        let changes: Vec<_> = self.of_device(product, device).map(forgotten).collect();
        changes.iter().cloned().for_each(|change| self.apply(change));
        changes
    }

    /// The same of many, or of what is lost. Looks at every log.
    pub fn drop_all(&mut self, is_gone: impl Fn(&Kept) -> bool) -> Vec<Change> {
        let changes: Vec<_> = self.logs.values().filter(|log| is_gone(log)).map(forgotten).collect();
        changes.iter().cloned().for_each(|change| self.apply(change));
        changes
    }

    /// Forgets what has been kept long enough, up to `limit` at a time; call again while it gives that many.
    pub fn due(&mut self, now_ms: u64, limit: usize) -> Vec<Change> {
        let kept_ms = self.limits.kept_ms;
        let is_old = |(at_ms, _): &&(u64, LogId)| at_ms.saturating_add(kept_ms) <= now_ms;
        let old = self.ages.iter().take_while(is_old).take(limit).filter_map(|(_, id)| self.logs.get(id));
        let changes: Vec<_> = old.map(forgotten).collect();
        changes.iter().cloned().for_each(|change| self.apply(change));
        changes
    }

    /// How many there are, and their bytes.
    #[must_use]
    pub fn counts(&self) -> (usize, u64) {
        (self.logs.len(), self.bytes)
    }

    fn forget(&mut self, id: LogId) {
        let Some(log) = self.logs.remove(&id) else { return };
        self.bytes -= log.bytes;
        self.ages.remove(&(log.at_ms, id));
        let device = (log.product, log.device);
        if let Some(ids) = self.devices.get_mut(&device) {
            ids.remove(&id);
            if ids.is_empty() {
                self.devices.remove(&device);
            }
        }
    }
}

fn forgotten(log: &Kept) -> Change {
    Change::Forget(log.product.clone(), log.device.clone(), log.id)
}

#[cfg(test)]
mod tests;
