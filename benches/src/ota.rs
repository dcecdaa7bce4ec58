//! Firmware to many devices: a campaign to its end with live messages beside it, blocks over MQTT, downloads over HTTP and HTTPS.
//!
//! Each part has a broker of its own, whose memory and CPU are looked at from outside. Every byte that comes is held against the file that was uploaded, and
//! at a campaign's end the API says of every device how it stands.
//!
//! Devices and downloads share the machine with the broker. So the threads that play them step back ([`Ota::nice`], [`Ota::idle`]), as if they were on a machine of
//! their own whenever the broker wants the CPU; the live messages' threads don't.

mod blocks;
mod campaign;
mod device;
mod downloads;
mod live;
mod memory;
mod report;
mod stage;

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, ValueEnum};

use self::report::Row;
use crate::behind::Back;
use crate::cpu;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
pub enum Part {
    /// Devices download a file over MQTT, all at once.
    Blocks,
    /// Clients download ranges of a file over plain HTTP.
    Http,
    /// The same over TLS.
    Https,
    /// A campaign from its creation to its end, with live messages beside it.
    Campaign,
}

/// How a device of a campaign gets its firmware.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Way {
    /// Over MQTT.
    Blocks,
    /// Over HTTP.
    Http,
    /// Not at all: it says that it has it.
    None,
}

/// How many of what.
#[derive(Args, Clone, Debug)]
pub struct Ota {
    /// What to measure [default: all].
    #[arg(value_name = "PART")]
    pub parts: Vec<Part>,
    /// This broker's program [default: `turnpike` beside this program].
    #[arg(long, value_name = "PATH")]
    pub turnpike: Option<PathBuf>,
    /// Devices of the campaign.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub devices: u32,
    /// Devices of the campaign that come each second; 0: as fast as they find room.
    #[arg(long, default_value_t = 0)]
    pub rate: u32,
    /// Devices of the campaign that are connected at once, at most; 0: as many as descriptors allow.
    #[arg(long, default_value_t = 0)]
    pub connections: u32,
    /// How long a device of the campaign keeps its offer before it begins to download, milliseconds.
    #[arg(long, default_value_t = 0)]
    pub stay_ms: u64,
    /// How a device of the campaign gets its firmware.
    #[arg(long, value_enum, default_value_t = Way::Blocks)]
    pub way: Way,
    /// Bytes of the campaign's firmware, up to what one request may be for.
    #[arg(long, default_value_t = 16 << 10, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub firmware_bytes: u32,
    /// Each how-manieth device of the campaign says that it has failed; 0: none.
    #[arg(long, default_value_t = 0)]
    pub failing: u32,
    /// Live messages a second beside the campaign.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub live: u32,
    /// How long live messages are watched before the campaign, and again after it.
    #[arg(long, default_value_t = 10)]
    pub calm_s: u64,
    /// MiB of the file that is downloaded in blocks and over HTTP.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub file_mib: u32,
    /// Devices that download in blocks, all at once.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub block_devices: u32,
    /// Bytes of a block, in the campaign too: 256 to 131,072.
    #[arg(long, default_value_t = 64 << 10, value_parser = clap::value_parser!(u32).range(256..=128 << 10))]
    pub block_bytes: u32,
    /// Clients that download over HTTP, all at once.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub clients: u32,
    /// How often each of them downloads the file.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub times: u32,
    /// MiB of a range.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub range_mib: u32,
    /// By how much devices and downloads step back behind the broker and the live messages; 0: not at all.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(i32).range(0..=19))]
    pub nice: i32,
    /// They have only what nobody else wants, in place of --nice: whoever wakes up interrupts them at once.
    #[arg(long)]
    pub idle: bool,
    /// More of the broker's configuration, TOML.
    #[arg(long, default_value = "")]
    pub config: String,
    /// Keeps the results, as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl Ota {
    fn back(&self) -> Back {
        if self.idle { Back::Idle } else { Back::Nice(self.nice) }
    }
}

/// Measures and prints a table in Markdown for each part.
///
/// # Errors
/// A broker that doesn't start, or something was lost, came wrong, or ended as it shouldn't have.
pub fn run(plan: &Ota) -> anyhow::Result<()> {
    let program = match &plan.turnpike {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("turnpike"),
    };
    let mut parts = plan.parts.clone();
    if parts.is_empty() {
        parts.extend(Part::value_variants());
    }
    parts.sort_unstable();
    parts.dedup();
    println!("{}; devices and downloads at {}\n", cpu::machine(), plan.back());
    let mut results = Vec::new();
    for part in parts {
        let name = part.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        let rows = match part {
            Part::Blocks => blocks::run(&program, plan),
            Part::Http => downloads::run(&program, plan, false),
            Part::Https => downloads::run(&program, plan, true),
            Part::Campaign => campaign::run(&program, plan),
        };
        let rows = rows.with_context(|| name.clone())?;
        report::print(&name, &rows);
        results.push((name, rows));
        // What was measured stays, whatever comes after it.
        if let Some(path) = &plan.json {
            let text = report::json(&results, plan.back())?;
            std::fs::write(path, text).with_context(|| format!("{} can't be written", path.display()))?;
        }
    }
    let wrong: Vec<&Row> = results.iter().flat_map(|(_, rows)| rows).filter(|row| row.is_wrong).collect();
    anyhow::ensure!(wrong.is_empty(), "{}", wrong.iter().map(|row| row.says()).collect::<Vec<_>>().join("; "));
    Ok(())
}
