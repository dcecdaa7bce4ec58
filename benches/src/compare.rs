//! The same work side by side: this broker, the floor, and others where they are there, taking turns.
//!
//! A figure is the median of the rounds, and what counts is its ratio to the floor's in the same run: absolute times move with the
//! machine. In each round the brokers take turns, each started anew, and each round begins with another one.

pub(crate) mod brokers;
mod table;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use turnpike_mqtt::QoS;

use crate::cli::conduct;
use crate::identity::Identity;
use crate::report::text;
use crate::spec::{Pace, Scenario, Spec, Tls};
use brokers::{Broker, Kind, Programs};
use table::{Goal, Row, Table};

/// Connections of the rows about idle ones: within the usual limit of 20,000 descriptors for both ends.
const IDLE_CONNECTIONS: usize = 10_000;

/// What to compare, and how long.
#[derive(Args, Clone, Debug)]
pub struct Compare {
    /// This broker's program [default: `turnpike` beside this program].
    #[arg(long, value_name = "PATH")]
    pub turnpike: Option<PathBuf>,
    /// mosquitto's [default: where it is installed].
    #[arg(long, value_name = "PATH")]
    pub mosquitto: Option<PathBuf>,
    /// `compare-rumqttd`, built from benches/compare.
    #[arg(long, value_name = "PATH")]
    pub rumqttd: Option<PathBuf>,
    /// Who takes part, of floor, turnpike, mosquitto, rumqttd [default: all whose program is there].
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub brokers: Vec<Kind>,
    /// How often each row runs on each broker; the median counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
    /// Write all figures as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Print the table in Markdown.
    #[arg(long)]
    pub markdown: bool,
    /// Rows whose name contains this.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "SUBSTRING")]
    pub only: String,
    /// Run turnpike without authentication.
    #[arg(long)]
    pub anonymous: bool,
}

/// Which of a run's results is the figure.
#[derive(Clone, Copy, Debug)]
enum Figure {
    /// The broker's CPU of a delivery, microseconds.
    DeliveryCpu,
    /// The broker's private memory of a connection, bytes.
    Bytes,
    /// The broker's CPU of accepting a connection, microseconds.
    AcceptCpu,
}

/// A run, and what is taken from it.
struct Work {
    spec: Spec,
    tls: bool,
    rows: Vec<(Row, Figure)>,
}

/// Runs everything and prints the table.
///
/// # Errors
/// A broker that doesn't start or refuses its clients, or a file that can't be written.
pub fn run(compare: &Compare) -> anyhow::Result<()> {
    let duration = Duration::try_from_secs_f64(compare.seconds).context("--seconds")?;
    let programs = Programs::find(compare)?;
    let kinds = programs.kinds(&compare.brokers)?;
    let works = works(duration, &compare.only);
    anyhow::ensure!(!works.is_empty(), "no row's name contains {:?}", compare.only);
    let bar = ProgressBar::new((works.len() * kinds.len()) as u64 * u64::from(compare.rounds));
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed_precise}  {msg}")?);
    let mut table = Table::new(kinds.clone(), compare.rounds);
    for work in works {
        let mut figures = vec![vec![Vec::new(); kinds.len()]; work.rows.len()];
        for round in 0..compare.rounds as usize {
            for turn in 0..kinds.len() {
                let at = (turn + round) % kinds.len();
                bar.set_message(format!("{}, {}", work.rows[0].0.name, kinds[at]));
                let measured = work.measure(&programs, kinds[at]);
                let measured = measured.with_context(|| format!("{} on {}", work.rows[0].0.name, kinds[at]))?;
                for (row, figure) in measured.into_iter().enumerate() {
                    figures[row][at].extend(figure);
                }
                bar.inc(1);
            }
        }
        for ((row, _), figures) in work.rows.into_iter().zip(figures) {
            table.add(row, figures);
        }
    }
    bar.finish_and_clear();
    println!("{}", if compare.markdown { table.markdown() } else { table.text() });
    if let Some(path) = &compare.json {
        let json = serde_json::to_string_pretty(&table.json())? + "\n";
        std::fs::write(path, json).with_context(|| format!("{} can't be written", path.display()))?;
    }
    Ok(())
}

/// The rows of DESIGN's "Numbers to reach", those that are asked for.
fn works(duration: Duration, only: &str) -> Vec<Work> {
    use Scenario::{FanIn, FanOut, Idle, Pair};
    let base = |scenario| Spec {
        payload: 64,
        warmup: Duration::from_millis(700),
        duration,
        ..Spec::new(scenario, ([127, 0, 0, 1], 0).into())
    };
    let deliver = |number, name, (scenario, publishers, subscribers), qos, window, goal| Work {
        spec: Spec { publishers, subscribers, qos, pace: Pace::Window(window), ..base(scenario) },
        tls: false,
        rows: vec![(Row { number, name, unit: "µs", goal }, Figure::DeliveryCpu)],
    };
    let idle = || Spec { publishers: IDLE_CONNECTIONS, subscribers: 0, ..base(Idle) };
    let bytes = |number, name, most| (Row { number, name, unit: "bytes", goal: Goal::Most(most) }, Figure::Bytes);
    let accept = Row { number: 8, name: "CPU to accept one", unit: "µs", goal: Goal::Most(30.0) };
    let pairs = (Pair, 20, 20);
    let mut works = vec![
        deliver(0, "20 pairs, QoS 0", pairs, QoS::AtMostOnce, 10, Goal::Floor(1.5)),
        deliver(1, "20 pairs, QoS 1", pairs, QoS::AtLeastOnce, 10, Goal::Floor(1.7)),
        // The floor has no QoS 2; FlashMQ needed 3.0 µs where the floor needed 0.7 µs for QoS 0.
        deliver(2, "20 pairs, QoS 2", pairs, QoS::ExactlyOnce, 10, Goal::FloorOfQos0(3.0 / 0.7)),
        deliver(3, "20 → 1, QoS 1", (FanIn, 20, 1), QoS::AtLeastOnce, 10, Goal::Floor(1.7)),
        deliver(4, "1 → 100, QoS 0", (FanOut, 1, 100), QoS::AtMostOnce, 30, Goal::Floor(2.0)),
        deliver(5, "1,000 pairs, QoS 1, window 4", (Pair, 1000, 1000), QoS::AtLeastOnce, 4, Goal::Floor(1.3)),
        Work {
            spec: idle(),
            tls: false,
            rows: vec![bytes(6, "user memory, idle connection", 1024.0), (accept, Figure::AcceptCpu)],
        },
        Work { spec: idle(), tls: true, rows: vec![bytes(7, "user memory, idle connection over TLS", 8192.0)] },
    ];
    works.iter_mut().for_each(|work| work.rows.retain(|(row, _)| row.name.contains(only)));
    works.retain(|work| !work.rows.is_empty());
    works
}

impl Work {
    /// A figure of each row; none where a broker can't do the work.
    fn measure(&self, programs: &Programs, kind: Kind) -> anyhow::Result<Vec<Option<f64>>> {
        let none = || vec![None; self.rows.len()];
        if self.tls && !kind.has_tls() {
            return Ok(none());
        }
        let broker = Broker::start(programs, kind, self.tls)?;
        let mut spec = Spec { address: broker.address, ..self.spec.clone() };
        if kind == Kind::Floor && spec.qos == QoS::ExactlyOnce {
            spec.qos = QoS::AtMostOnce;
        }
        if let Some(tls) = &broker.tls {
            spec.address = tls.address;
            let (ca, server_name) = (Some(tls.ca.clone()), Some("localhost".to_owned()));
            spec.tls = Some(Tls { ca, insecure: false, server_name, certificate: None });
        }
        spec.identity = broker.device.clone().map_or(Identity::Anonymous, |device| Identity::Family {
            profile: "native".to_owned(),
            device,
            count: 1,
        });
        let report = conduct(&spec.check()?, Some(broker.pid()), false)?;
        let outcome = &report.outcome;
        let failures: Vec<String> = outcome.failures.iter().map(|(why, n)| format!("{why} ({n})")).collect();
        anyhow::ensure!(failures.is_empty(), "{}", failures.join("; "));
        let lost = outcome.lost(report.spec.copies());
        let faults = (lost, outcome.repeated, outcome.stalls);
        anyhow::ensure!(faults == (0, 0, 0), "lost, repeated, stalled: {faults:?}");
        let figure = |figure: &Figure| match figure {
            Figure::DeliveryCpu => Some(text::cpu_us(&report)).filter(|us| us.is_finite()),
            Figure::Bytes => text::bytes_per_connection(&report),
            Figure::AcceptCpu => report.connecting.cpu_us_per(outcome.connecting.count()),
        };
        Ok(self.rows.iter().map(|(_, kind)| figure(kind)).collect())
    }
}
