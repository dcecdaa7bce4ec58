//! The same work side by side: this broker, the floor, and mosquitto where it is installed, taking turns.
//!
//! A figure is the median of the rounds, and what counts is its ratio to the floor's in the same run: absolute times move with the
//! machine.

mod brokers;
mod idle_tls;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use turnpike_mqtt::{QoS, Version};

use crate::load::Load;
use crate::spec::{Scenario, Spec};
use brokers::{Broker, Kind};

/// What to compare, and how long.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The broker's program.
    pub turnpike: PathBuf,
    /// mosquitto's, if it is to take part.
    pub mosquitto: Option<PathBuf>,
    /// How often each row runs on each broker.
    pub rounds: usize,
    /// Time of each measurement.
    pub duration: Duration,
    /// Rows whose name contains this; all if it is empty.
    pub only: String,
    /// Run turnpike without authentication.
    pub anonymous: bool,
}

/// How a row is measured.
#[derive(Clone, Copy, Debug)]
enum Measure {
    /// Broker's CPU of a delivery, microseconds.
    Delivery { scenario: Scenario, publishers: usize, subscribers: usize, qos: QoS, window: u32 },
    /// Private memory of an idle connection, bytes; and CPU of accepting it, microseconds.
    Idle { connections: usize, figure: IdleFigure },
    /// The same over TLS: memory.
    IdleTls { connections: usize },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum IdleFigure {
    Bytes,
    AcceptCpu,
}

/// What is to be reached.
#[derive(Clone, Copy, Debug)]
enum Goal {
    /// So many times the floor.
    Floor(f64),
    /// An absolute figure.
    Most(f64),
}

struct Row {
    name: &'static str,
    measure: Measure,
    goal: Goal,
}

fn rows() -> Vec<Row> {
    let delivery = |scenario, publishers, subscribers, qos, window| Measure::Delivery {
        scenario,
        publishers,
        subscribers,
        qos,
        window,
    };
    let row = |name, measure, goal| Row { name, measure, goal };
    let idle = |figure| Measure::Idle { connections: 10_000, figure };
    vec![
        row("20 pairs, QoS 0 (µs)", delivery(Scenario::Pair, 20, 20, QoS::AtMostOnce, 10), Goal::Floor(1.5)),
        row("20 pairs, QoS 1 (µs)", delivery(Scenario::Pair, 20, 20, QoS::AtLeastOnce, 10), Goal::Floor(1.7)),
        row("20 pairs, QoS 2 (µs)", delivery(Scenario::Pair, 20, 20, QoS::ExactlyOnce, 10), Goal::Most(3.0)),
        row("20 → 1, QoS 1 (µs)", delivery(Scenario::FanIn, 20, 1, QoS::AtLeastOnce, 10), Goal::Floor(1.7)),
        row("1 → 100, QoS 0 (µs)", delivery(Scenario::FanOut, 1, 100, QoS::AtMostOnce, 30), Goal::Floor(2.0)),
        row(
            "1,000 pairs, QoS 1, window 4 (µs)",
            delivery(Scenario::Pair, 1000, 1000, QoS::AtLeastOnce, 4),
            Goal::Floor(1.3),
        ),
        row("memory, idle connection (bytes)", idle(IdleFigure::Bytes), Goal::Most(1024.0)),
        row("the same over TLS (bytes)", Measure::IdleTls { connections: 5_000 }, Goal::Most(8192.0)),
        row("CPU to accept one (µs)", idle(IdleFigure::AcceptCpu), Goal::Most(30.0)),
    ]
}

/// Runs everything and gives the table in Markdown. `progress` hears what is being run.
///
/// # Errors
/// A broker that doesn't start or refuses its clients.
pub fn run(comparison: &Comparison, mut progress: impl FnMut(&str)) -> anyhow::Result<String> {
    let mut kinds = vec![Kind::Floor, Kind::Turnpike];
    if comparison.mosquitto.is_some() {
        kinds.push(Kind::Mosquitto);
    }
    let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
    let mut table = format!("| work | {} | turnpike ÷ floor | to reach | reached |\n", names.join(" | "));
    table += &format!("|---|{}---|---|---|\n", "---|".repeat(names.len()));
    for row in rows().iter().filter(|row| row.name.contains(&comparison.only)) {
        let mut figures: Vec<Vec<f64>> = kinds.iter().map(|_| Vec::new()).collect();
        for round in 1..=comparison.rounds {
            for (kind, figures) in kinds.iter().zip(&mut figures) {
                progress(&format!("{}, round {round}, {}", row.name, kind.name()));
                let figure = measure(comparison, *kind, row.measure)
                    .with_context(|| format!("{} on {}", row.name, kind.name()))?;
                figures.extend(figure);
            }
        }
        let medians: Vec<Option<f64>> = figures.iter_mut().map(|figures| median(figures)).collect();
        table += &line(row, &medians);
    }
    Ok(table + &machine())
}

fn line(row: &Row, medians: &[Option<f64>]) -> String {
    let say = |figure: &Option<f64>| figure.map_or("–".to_owned(), number);
    let (floor, own) = (medians.first().copied().flatten(), medians.get(1).copied().flatten());
    let ratio = own.zip(floor).map(|(own, floor)| own / floor);
    let (goal, reached) = match row.goal {
        Goal::Floor(times) => (format!("≤ {times} × floor"), ratio.map(|ratio| ratio <= times)),
        Goal::Most(most) => (format!("≤ {}", number(most)), own.map(|own| own <= most)),
    };
    let reached = reached.map_or("–", |reached| if reached { "yes" } else { "no" });
    let cells: Vec<String> = medians.iter().map(say).collect();
    let ratio = ratio.map_or("–".to_owned(), |ratio| format!("{ratio:.2}"));
    format!("| {} | {} | {ratio} | {goal} | {reached} |\n", row.name, cells.join(" | "))
}

fn number(figure: f64) -> String {
    if figure >= 100.0 { format!("{figure:.0}") } else { format!("{figure:.2}") }
}

fn median(figures: &mut [f64]) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied()
}

/// One figure; `None` where a broker can't do the work (the floor has no TLS and no QoS 2).
fn measure(comparison: &Comparison, kind: Kind, measure: Measure) -> anyhow::Result<Option<f64>> {
    let beyond_floor = matches!(measure, Measure::IdleTls { .. } | Measure::Delivery { qos: QoS::ExactlyOnce, .. });
    if kind == Kind::Floor && beyond_floor {
        return Ok(None);
    }
    let broker = Broker::start(comparison, kind, matches!(measure, Measure::IdleTls { .. }))?;
    if broker.tls.is_none() && matches!(measure, Measure::IdleTls { .. }) {
        return Ok(None);
    }
    let mut spec = Spec {
        scenario: Scenario::Idle,
        address: broker.address,
        publishers: 0,
        subscribers: 0,
        qos: QoS::AtMostOnce,
        version: Version::V311,
        window: 1,
        payload: 64,
        warmup: Duration::from_millis(700),
        duration: comparison.duration,
        keep_alive_s: 300,
        connecting_max: 64,
        broker_pid: Some(broker.pid()),
        device: broker.device.clone(),
    };
    let figure = match measure {
        Measure::Delivery { scenario, publishers, subscribers, qos, window } => {
            spec = Spec { scenario, publishers, subscribers, qos, window, ..spec };
            let outcome = Load::new(&spec)?.run()?;
            anyhow::ensure!(outcome.lost == 0 && outcome.repeated == 0, "messages were lost or repeated");
            outcome.broker_cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / outcome.deliveries.max(1) as f64)
        }
        Measure::Idle { connections, figure } => {
            spec = Spec { publishers: connections, ..spec };
            let outcome = Load::new(&spec)?.run()?;
            let count = outcome.connections as f64;
            match figure {
                IdleFigure::Bytes => outcome.broker_bytes.map(|(before, after)| (after as f64 - before as f64) / count),
                IdleFigure::AcceptCpu => outcome.connecting.1.map(|cpu| cpu.as_secs_f64() * 1e6 / count),
            }
        }
        Measure::IdleTls { connections } => Some(idle_tls::bytes(&spec, &broker, connections)?),
    };
    Ok(figure)
}

/// Where it was measured.
fn machine() -> String {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model =
        cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim()));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("\n{cores} cores, {}, Linux {}\n", model.unwrap_or("unknown processor"), kernel.trim())
}
