//! `turnpike audit`: is it as it was written, and what is in it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args, Subcommand, ValueEnum};
use turnpike_authz::audit::chain::{ChainKey, Link, Mac};

use crate::audit::{self, Format, Moment, Pattern, Query, Report, format_ms};
use crate::config::Config;
use crate::provision;

/// Options of `audit`.
#[derive(Args, Debug)]
pub struct Audit {
    /// What to do with it.
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Follow the chain: exit 0 if it is whole, 1 with a line for everything that is changed, missing or out of order, or if it says itself that records were lost, 64 if it can't be read.
    Verify(Verify),
    /// Write records out, oldest first. It doesn't check them: verify first.
    Export(Export),
}

/// Whose audit.
#[derive(Args, Debug)]
struct Place {
    /// Configuration file.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Data folder.
    #[arg(long)]
    data: Option<PathBuf>,
}

#[derive(Args, Debug)]
struct Verify {
    #[command(flatten)]
    place: Place,
    /// File with a former master key, where there is one; may be repeated.
    #[arg(long, value_name = "FILE")]
    former_key_file: Vec<PathBuf>,
    /// A record that it must have, as an earlier `verify`, or the broker's log, has told; may be repeated.
    #[arg(long, value_name = "SEQUENCE:MAC")]
    anchor: Vec<Anchor>,
    /// How many times it may say that it was damaged or begun anew, because somebody has found out why.
    #[arg(long, value_name = "TIMES", default_value_t = 0)]
    accept_damages: u64,
    /// How many events it may say that it could not keep, because somebody has found out why.
    #[arg(long, value_name = "EVENTS", default_value_t = 0)]
    accept_dropped: u64,
}

#[derive(Args, Debug)]
struct Export {
    #[command(flatten)]
    place: Place,
    /// From this time on: 2026-07-31, 2026-07-31T12:00:00Z, or milliseconds since 1970 UTC.
    #[arg(long)]
    from: Option<Moment>,
    /// Before this time.
    #[arg(long)]
    to: Option<Moment>,
    /// Done by whom, such as `device:lamp/one`; `*` at the end takes any ending.
    #[arg(long)]
    actor: Option<String>,
    /// What, such as `log_in`; `*` at the end takes any ending.
    #[arg(long)]
    action: Option<String>,
    /// To whom; `*` at the end takes any ending.
    #[arg(long)]
    target: Option<String>,
    /// The lines as they are, or a table.
    #[arg(long, value_enum, default_value = "jsonl")]
    format: Written,
}

#[derive(Clone, Copy, ValueEnum, Debug)]
enum Written {
    Jsonl,
    Csv,
}

/// A record's number and mac.
#[derive(Clone, Copy, Debug)]
struct Anchor(Link);

impl FromStr for Anchor {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "an anchor is a record's number, a colon, and 64 hexadecimal digits";
        let (sequence, mac) = text.split_once(':').ok_or(EXPECTED)?;
        let sequence = sequence.parse().map_err(|_| EXPECTED)?;
        Ok(Self(Link { sequence, mac: Mac::parse(mac.as_bytes()).ok_or(EXPECTED)? }))
    }
}

impl Audit {
    /// Does it, and prints. Says whether the audit is as it should be.
    ///
    /// # Errors
    /// What keeps it from being read, a line each.
    pub fn run(&self, out: &mut dyn Write) -> Result<bool, String> {
        match &self.command {
            Command::Verify(verify) => verify.run(out),
            Command::Export(export) => export.run(out).map(|()| true),
        }
    }
}

impl Place {
    /// The configuration, as far as it concerns the audit.
    fn config(&self) -> Result<Config, String> {
        let mut config = match &self.config {
            Some(file) => Config::load(file).map_err(|faults| faults.to_string())?,
            None => Config::default(),
        };
        if let Some(data) = &self.data {
            config.data.clone_from(data);
        }
        Ok(config)
    }

    fn folder(config: &Config) -> Result<PathBuf, String> {
        let folder = config.audit.folder(&config.data);
        if folder.is_dir() { Ok(folder) } else { Err(format!("{}: there is no audit", folder.display())) }
    }
}

impl Verify {
    fn run(&self, out: &mut dyn Write) -> Result<bool, String> {
        let config = self.place.config()?;
        let folder = Place::folder(&config)?;
        let mut keys = vec![ChainKey::new(&in_use(&config)?)];
        for file in &self.former_key_file {
            let key = provision::existing_key(file).map_err(|error| error.to_string())?;
            keys.push(ChainKey::new(&key));
        }
        let anchors: Vec<Link> = self.anchor.iter().map(|anchor| anchor.0).collect();
        let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
        let report = audit::verify(&folder, &keys, &anchors).map_err(failed)?;
        print(&folder, &report, self, out).map_err(failed)?;
        let told = &report.summary;
        let is_accepted = told.damages <= self.accept_damages && told.dropped <= self.accept_dropped;
        Ok(report.problem_count == 0 && is_accepted)
    }
}

/// The master key in use. Looking must not make one.
fn in_use(config: &Config) -> Result<turnpike_authz::secret::MasterKey, String> {
    let file = config.master_key_file.clone().unwrap_or_else(|| config.data.join("master-key"));
    let in_environment = std::env::var_os(provision::MASTER_KEY).is_some_and(|text| !text.is_empty());
    if !in_environment && !file.exists() {
        return Err(format!("{}: there is no master key; the chain can't be followed without it", file.display()));
    }
    let found = provision::master_key(&config.data, config.master_key_file.as_deref());
    found.map(|found| found.key).map_err(|error| error.to_string())
}

fn print(folder: &Path, report: &Report, accepted: &Verify, out: &mut dyn Write) -> std::io::Result<()> {
    let Report { summary, segments, problems, problem_count, unfinished_bytes, anchor } = report;
    for problem in problems {
        writeln!(out, "{problem}")?;
    }
    let listed = problems.len() as u64;
    if *problem_count > listed {
        writeln!(out, "and {} more", problem_count - listed)?;
    }
    if *problem_count > 0 {
        writeln!(out, "{}: {problem_count} problems, {} records that are right", folder.display(), summary.records)?;
    } else {
        // What was there before the broker began anew nobody can tell from what is there now.
        let verdict = match summary.damages {
            0 => "nothing is changed or missing",
            _ => "nothing of these is changed",
        };
        writeln!(
            out,
            "{}: {} records in {segments} segments, {} to {}, from {} to {}; {verdict}",
            folder.display(),
            summary.records,
            summary.first,
            summary.last,
            format_ms(summary.from_ms),
            format_ms(summary.to_ms),
        )?;
    }
    if summary.dropped > 0 {
        let events = summary.dropped;
        writeln!(out, "by its own account {events} events could not be kept")?;
        if events > accepted.accept_dropped {
            writeln!(out, "once it is known why, --accept-dropped {events} makes it no fault")?;
        }
    }
    if summary.damages > 0 {
        writeln!(out, "by its own account it was damaged or begun anew {} times", summary.damages)?;
        if summary.damages > accepted.accept_damages {
            let times = summary.damages;
            writeln!(out, "records may be missing; once it is known why, --accept-damages {times} makes it no fault")?;
        }
    }
    if *unfinished_bytes > 0 {
        writeln!(out, "{unfinished_bytes} bytes at the end are of a write under way, or of one that was interrupted")?;
    }
    match anchor.filter(|_| *problem_count == 0) {
        Some(Link { sequence, mac }) => writeln!(out, "anchor {sequence}:{mac}"),
        None => Ok(()),
    }
}

impl Export {
    fn run(&self, out: &mut dyn Write) -> Result<(), String> {
        let config = self.place.config()?;
        let folder = Place::folder(&config)?;
        let pattern = |text: &Option<String>| text.as_deref().map(Pattern::new);
        let query = Query {
            from_ms: self.from.map_or(0, |moment| moment.0),
            to_ms: self.to.map_or(u64::MAX, |moment| moment.0),
            actor: pattern(&self.actor),
            action: pattern(&self.action),
            target: pattern(&self.target),
            ..Query::default()
        };
        let format = match self.format {
            Written::Jsonl => Format::JsonLines,
            Written::Csv => Format::Csv,
        };
        match audit::export(&folder, &query, format, out) {
            // Whoever reads has seen enough.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            exported => exported.map(drop).map_err(|error| format!("{}: {error}", folder.display())),
        }
    }
}
