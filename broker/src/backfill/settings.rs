//! The settings of the desk for stored data.

use std::time::Duration;

use turnpike_backfill::bounds::Bounds;
use turnpike_backfill::{budget, pace};

/// How stored data is taken in.
#[derive(Clone, PartialEq, Debug)]
pub struct BackfillSettings {
    /// Whether there is a desk. Without one, batches go to whoever subscribes to them, like everything else.
    pub enabled: bool,
    /// Threads.
    pub workers: usize,
    /// What a batch may be, and what is remembered of a device.
    pub bounds: Bounds,
    /// Rates.
    pub budget: budget::Settings,
    /// Turns after an outage.
    pub pace: pace::Settings,
    /// Devices whose ledgers are kept.
    pub devices_max: usize,
    /// Records of a slice: published in one turn of a shard and in one commit.
    pub slice_records_max: usize,
    /// Records under way to the shards.
    pub under_way_max: usize,
    /// Bytes of batches that are unpacked, under way or waiting. Alone, one may be larger.
    pub held_bytes_max: usize,
    /// For so long a batch that came too early waits; a device that would have to wait for longer is told to come later.
    pub hold: Duration,
    /// Whether each record goes out a second time on `dev/{p}/{d}/backfill/history/{ts}/{topic}`, for subscribers that can't read user properties.
    pub parallel: bool,
}

impl Default for BackfillSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            workers: 1,
            bounds: Bounds::default(),
            budget: budget::Settings::default(),
            pace: pace::Settings::default(),
            devices_max: 10_000_000,
            slice_records_max: 64,
            under_way_max: 2_048,
            held_bytes_max: 128 << 20,
            hold: Duration::from_secs(2),
            parallel: false,
        }
    }
}
