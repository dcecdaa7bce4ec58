//! The section `[commands]`: what devices are asked to do, and the logs that they send.

use std::path::PathBuf;

use turnpike_backfill::bounds::Bounds;
use turnpike_ota::command;
use turnpike_ota::logs::{self, shelf};

use super::read::Section;

const HOUR_MS: u64 = 3_600_000;

/// What devices are asked to do, and the logs that they send.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommandSettings {
    /// How many commands there may be, and how long ended ones are kept.
    pub limits: command::Limits,
    /// Where logs are kept; none: `logs` in the data folder.
    pub folder: Option<PathBuf>,
    /// How much of logs may be on the way.
    pub assembly: logs::Limits,
    /// How much of logs is kept, and for how long.
    pub shelf: shelf::Limits,
    /// What a log may unpack to.
    pub unpacking: Bounds,
}

impl Default for CommandSettings {
    fn default() -> Self {
        Self {
            limits: command::Limits::default(),
            folder: None,
            assembly: logs::Limits::default(),
            shelf: shelf::Limits::default(),
            unpacking: Bounds { unpacked_bytes_max: 32 << 20, ..Bounds::default() },
        }
    }
}

pub(super) fn read(section: &mut Section<'_>) -> Option<CommandSettings> {
    let mut settings = CommandSettings::default();
    let mut enabled = true;
    section.boolean("enabled", &mut enabled);
    let limits = &mut settings.limits;
    section.integer("device_open_max", &mut limits.device_open, 1..=1_000);
    section.integer("device_kept_max", &mut limits.device_kept, 1..=1_000);
    section.integer("commands_max", &mut limits.commands, 1..=1_000_000);
    hours(section, "kept_h", &mut limits.kept_ms);
    section.section("logs", |section| {
        section.optional_path("folder", &mut settings.folder);
        let assembly = &mut settings.assembly;
        section.integer("bytes_max", &mut assembly.log_bytes, 1024..=256 << 20);
        section.integer("under_way_bytes_max", &mut assembly.bytes, 1 << 20..=16 << 30);
        section.integer("under_way_max", &mut assembly.logs, 1..=1_000_000);
        section.integer("unpacked_bytes_max", &mut settings.unpacking.unpacked_bytes_max, 1024..=1 << 30);
        section.integer("ratio_max", &mut settings.unpacking.ratio_max, 1..=10_000);
        let shelf = &mut settings.shelf;
        section.integer("device_logs_max", &mut shelf.device_logs, 1..=10_000);
        section.integer("device_bytes_max", &mut shelf.device_bytes, 1024..=1 << 40);
        section.integer("logs_max", &mut shelf.logs, 1..=10_000_000);
        section.integer("total_bytes_max", &mut shelf.bytes, 1024..=1 << 50);
        hours(section, "kept_h", &mut shelf.kept_ms);
        if shelf.device_bytes < assembly.log_bytes as u64 || shelf.bytes < shelf.device_bytes {
            section.fault("device_bytes_max", "must not be below bytes_max, nor above total_bytes_max");
        }
    });
    enabled.then_some(settings)
}

fn hours(section: &mut Section<'_>, key: &str, ms: &mut u64) {
    let mut hours = *ms / HOUR_MS;
    section.integer(key, &mut hours, 1..=24 * 3660);
    *ms = hours * HOUR_MS;
}
