//! The command line.

pub(crate) mod run;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Parser, Subcommand};

use crate::backfill::{self, Backfill};
use crate::bindings::{self, Bindings};
use crate::compare::{self, Compare};
use crate::conduct::{self, Report};
use crate::cpu;
use crate::floor::Floor;
use crate::logins::{self, Logins};
use crate::ota::{self, Ota};
use crate::report::{html, json, text};
use crate::spec::{Scenario, Spec};
use crate::workers::{self, Workers};
use run::{Output, Run};

/// Loads any MQTT broker and measures what it costs.
#[derive(Parser, Debug)]
#[command(name = "turnpike-bench", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Connect: as many a second as --connect-rate says (a ramp), or as fast as --connecting allows (a storm).
    Connect(Run),
    /// Connections that say nothing: memory of each, CPU of an accept.
    Idle(Run),
    /// Each publisher has a subscriber of its own.
    Pair(Run),
    /// All publishers to each subscriber.
    Fanin(Run),
    /// Each message to all subscribers.
    Fanout(Run),
    /// Publishers to one shared subscription.
    Shared(Run),
    /// Store retained messages, then fetch them.
    Retained(Run),
    /// Devices send telemetry at --rate to a shared group of back ends, which send commands down at --down-rate.
    Mixed(Run),
    /// A subscriber that reads, without and then with others beside it that don't.
    Slow(Run),
    /// The bare forwarder: the least that a broker can cost.
    Floor {
        /// Where to listen; port 0 takes a free one, and the first line says which.
        #[arg(long, default_value = "127.0.0.1:1884")]
        listen: SocketAddr,
    },
    /// The same work against this broker, the floor, mosquitto and rumqttd, in turns.
    Compare(Compare),
    /// What each way to log in costs this broker, beyond a log-in by nobody.
    Logins(Logins),
    /// Devices that hand in what they stored, to a durable back end that counts; the broker is killed on the way.
    Backfill(Backfill),
    /// What a delivery costs this broker while bindings change, and how soon they hold.
    Bindings(Bindings),
    /// Firmware: a campaign to its end beside live messages, blocks over MQTT, downloads over HTTP and HTTPS.
    Ota(Box<Ota>),
    /// What a run starts for each of its processes.
    #[command(hide = true)]
    Worker,
}

impl Cli {
    /// Does what the command line says.
    ///
    /// # Errors
    /// Whatever kept it from doing that.
    pub fn run(self) -> anyhow::Result<()> {
        cpu::raise_descriptor_limit();
        match self.command {
            Command::Connect(run) => measure(&run, Scenario::Connect),
            Command::Idle(run) => measure(&run, Scenario::Idle),
            Command::Pair(run) => measure(&run, Scenario::Pair),
            Command::Fanin(run) => measure(&run, Scenario::FanIn),
            Command::Fanout(run) => measure(&run, Scenario::FanOut),
            Command::Shared(run) => measure(&run, Scenario::Shared),
            Command::Retained(run) => measure(&run, Scenario::Retained),
            Command::Mixed(run) => measure(&run, Scenario::Mixed),
            Command::Slow(run) => slow(&run),
            Command::Floor { listen } => floor(listen),
            Command::Compare(compare) => compare::run(&compare),
            Command::Logins(logins) => logins::run(&logins),
            Command::Backfill(backfill) => backfill::run(&backfill),
            Command::Bindings(bindings) => bindings::run(&bindings),
            Command::Ota(ota) => ota::run(&ota),
            Command::Worker => Ok(workers::work()?),
        }
    }
}

fn floor(listen: SocketAddr) -> anyhow::Result<()> {
    let floor = Floor::bind(listen).with_context(|| format!("can't listen on {listen}"))?;
    println!("listening name=floor kind=mqtt address={}", floor.address()?);
    io::stdout().flush()?;
    Ok(floor.run()?)
}

/// Runs a specification in processes.
///
/// # Errors
/// As [`conduct::run`].
pub fn conduct(spec: &Spec, broker_pid: Option<u32>, bar: bool) -> io::Result<Report> {
    conduct::run(spec, broker_pid, Workers::processes(spec)?, bar)
}

fn measure(run: &Run, scenario: Scenario) -> anyhow::Result<()> {
    let spec = run.spec(scenario)?;
    check_pid(&run.output)?;
    let report = conduct(&spec, run.output.broker_pid, !run.output.quiet)?;
    write_reports(&run.output, &[report])
}

fn check_pid(output: &Output) -> anyhow::Result<()> {
    match output.broker_pid {
        Some(pid) => cpu::private_bytes(pid).map(drop).with_context(|| format!("process {pid} can't be measured")),
        None => Ok(()),
    }
}

/// The reader alone, and then beside those that don't read.
fn slow(run: &Run) -> anyhow::Result<()> {
    let with = run.spec(Scenario::Slow)?;
    check_pid(&run.output)?;
    anyhow::ensure!(with.subscribers > 0, "--subscribers says how many don't read");
    let alone = Spec { subscribers: 0, run: with.run.wrapping_add(1), ..with.clone() };
    let mut reports = Vec::new();
    for spec in [&alone, &with] {
        reports.push(conduct(spec, run.output.broker_pid, !run.output.quiet)?);
    }
    write_reports(&run.output, &reports)?;
    let rate = |report: &Report| report.measured.rate(report.outcome.measured.delivered);
    let (alone, with) = (rate(&reports[0]), rate(&reports[1]));
    let change = (with / alone - 1.0) * 100.0;
    println!("reader        {alone:.0}/s alone, {with:.0}/s beside those that don't read: {change:+.1} %");
    if let Some((_, after)) = reports[1].broker_bytes
        && let Some((before, _)) = reports[1].broker_bytes
    {
        println!("broker        {:.1} MB more at the end", (after as f64 - before as f64) / 1e6);
    }
    Ok(())
}

/// Whether a script that looks at the exit status may go on.
fn verdict(report: &Report) -> anyhow::Result<()> {
    let failed: u64 = report.outcome.failures.values().sum();
    anyhow::ensure!(failed == 0, "{failed} connections failed or were ended by the broker");
    let heard = report.spec.copies() == 0 || report.outcome.total.delivered > 0;
    anyhow::ensure!(heard, "nothing of {} messages arrived", report.outcome.total.published);
    Ok(())
}

fn write_reports(output: &Output, reports: &[Report]) -> anyhow::Result<()> {
    for report in reports {
        println!("{}", text::render(report));
    }
    let write = |path: &PathBuf, content: String| {
        std::fs::write(path, content).with_context(|| format!("{} can't be written", path.display()))
    };
    if let Some(path) = &output.json {
        let values: Vec<_> = reports.iter().map(json::render).collect();
        let value = if let [one] = values.as_slice() { one.clone() } else { values.into() };
        write(path, serde_json::to_string_pretty(&value)? + "\n")?;
    }
    if let Some(path) = &output.html {
        write(path, html::render(reports))?;
    }
    reports.iter().try_for_each(verdict)
}
