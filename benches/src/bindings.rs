//! What a delivery costs the broker while bindings change, beside what it costs when none does.
//!
//! Devices, each bound to a user, publish to a service and to their users' feeds: every message is judged by what the device may, and every
//! delivery to a feed by whom the device is bound to. Rounds in which nothing changes alternate with rounds in which clients of the HTTP API bind,
//! share and unbind other devices. The connections are the same in all rounds. A round's cost is the broker's CPU from standstill to standstill over
//! the deliveries in between: that of the shards' threads alone, which is the path of a message, and that of the whole process, in which the
//! API's work, the audit and the store are too. It is held against the mean of the quiet rounds before and after it. Those against each other say how far
//! the machine can be trusted.

mod changes;
mod probe;
mod stage;
mod traffic;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use self::changes::Changers;
use self::probe::InForce;
use self::stage::Stage;
use self::traffic::Traffic;
use crate::cpu;

/// How much of what.
#[derive(Args, Clone, Debug)]
pub struct Bindings {
    /// This broker's program [default: `turnpike` beside this program].
    #[arg(long, value_name = "PATH")]
    pub turnpike: Option<PathBuf>,
    /// Devices that publish, each bound to a user who is connected.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub devices: u16,
    /// Bindings changed in all rounds together.
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(100..))]
    pub changes: u32,
    /// In so many rounds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Clients of the HTTP API that make them.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub clients: u32,
    /// Length of a round without changes, seconds. One with changes takes as long as they do.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=600))]
    pub seconds: u16,
    /// Messages of a device that are under way at once.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub window: u32,
}

/// CPU of one delivery, nanoseconds.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Cost {
    /// Of the shards' threads.
    shards: f64,
    /// Of all threads.
    process: f64,
}

/// One of the two figures.
type Part = fn(&Cost) -> f64;

/// A round with changes, and what it is held against.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Round {
    before: Cost,
    changing: Cost,
    after: Cost,
}

impl Round {
    /// How much more a delivery cost, by one of the two figures.
    fn ratio(&self, of: Part) -> f64 {
        of(&self.changing) / ((of(&self.before) + of(&self.after)) / 2.0)
    }

    /// What the quiet rounds say of each other.
    fn noise(&self, of: Part) -> f64 {
        of(&self.after) / of(&self.before)
    }
}

/// Measures, and prints a table in Markdown.
///
/// # Errors
/// A broker that doesn't start, or refuses a client or a change.
pub fn run(bindings: &Bindings) -> anyhow::Result<()> {
    let program = match &bindings.turnpike {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("turnpike"),
    };
    let stage = Stage::new(&program, bindings)?;
    let mut traffic = Traffic::start(&stage.spec()?)?;
    let mut probe = stage.probe()?;
    let mut changers = Changers::new(&stage, bindings.clients)?;
    let mut changes = Changes::default();

    // Caches, and what is set up with the first messages.
    quiet(&mut traffic, &stage, bindings)?;
    let mut quiets = vec![quiet(&mut traffic, &stage, bindings)?];
    let mut changing = Vec::new();
    for round in 0..bindings.rounds {
        let count = share(bindings.changes, bindings.rounds, round);
        changing.push(measure(&mut traffic, &stage, || {
            changes.elapsed += changers.run(count)?;
            changes.count += count;
            changes.in_force.push(probe.last_change()?);
            Ok(())
        })?);
        quiets.push(quiet(&mut traffic, &stage, bindings)?);
    }
    traffic.end()?;
    let rounds: Vec<Round> = changing
        .into_iter()
        .zip(quiets.windows(2))
        .map(|(changing, around)| Round { before: around[0], changing, after: around[1] })
        .collect();
    print(&rounds, &changes, bindings);
    Ok(())
}

/// What was changed.
#[derive(Default)]
struct Changes {
    count: u32,
    elapsed: Duration,
    in_force: Vec<InForce>,
}

/// A round in which nothing changes.
fn quiet(traffic: &mut Traffic, stage: &Stage, bindings: &Bindings) -> anyhow::Result<Cost> {
    let length = Duration::from_secs(u64::from(bindings.seconds));
    measure(traffic, stage, || {
        std::thread::sleep(length);
        Ok(())
    })
}

/// What a delivery costs while something is done.
fn measure(traffic: &mut Traffic, stage: &Stage, during: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Cost> {
    let used = || {
        let shards = cpu::cpu_time_of(stage.pid(), |name| name.starts_with("shard-"));
        shards.zip(cpu::cpu_time(stage.pid())).context("the broker's CPU can't be read")
    };
    let before = used()?;
    traffic.go_on()?;
    during()?;
    let delivered = traffic.pause()?;
    let after = used()?;
    anyhow::ensure!(delivered > 0, "nothing arrived");
    let each = |now: Duration, then: Duration| now.saturating_sub(then).as_nanos() as f64 / delivered as f64;
    Ok(Cost { shards: each(after.0, before.0), process: each(after.1, before.1) })
}

/// The part of `all` that round number `round` of `rounds` has: together they are all.
fn share(all: u32, rounds: u32, round: u32) -> u32 {
    all / rounds + u32::from(round < all % rounds)
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

fn print(rounds: &[Round], changes: &Changes, bindings: &Bindings) {
    let rate = f64::from(changes.count) / changes.elapsed.as_secs_f64();
    println!(
        "{} bindings changed in {} rounds under the traffic of {} devices, {rate:.0} a second; {}\n",
        changes.count,
        bindings.rounds,
        bindings.devices,
        cpu::machine()
    );
    println!(
        "| CPU of a delivery, ns | quiet | while bindings change | ratio | quiet to quiet |\n|---|---|---|---|---|"
    );
    let rows: [(&str, Part); 2] =
        [("the shards' threads", |cost| cost.shards), ("the whole process", |cost| cost.process)];
    for (name, of) in rows {
        let quiet = median(rounds.iter().flat_map(|round| [of(&round.before), of(&round.after)]));
        let changing = median(rounds.iter().map(|round| of(&round.changing)));
        let (ratio, noise) =
            (median(rounds.iter().map(|round| round.ratio(of))), median(rounds.iter().map(|round| round.noise(of))));
        println!("| {name} | {quiet:.0} | {changing:.0} | {ratio:.3} | {noise:.3} |");
    }
    let ratios: Vec<String> = rounds.iter().map(|round| format!("{:.3}", round.ratio(rows[0].1))).collect();
    println!("\nratio of the shards' threads by round: {}", ratios.join(", "));
    let ms = |of: fn(&InForce) -> Duration| {
        let of = |in_force: &InForce| of(in_force).as_secs_f64() * 1e3;
        let most = changes.in_force.iter().map(of).fold(0.0, f64::max);
        format!("{:.1} ms (at most {most:.1})", median(changes.in_force.iter().map(of)))
    };
    println!("the last change of a round: answered after {}", ms(|in_force| in_force.answered));
    println!("  a share: its first message there after {}", ms(|in_force| in_force.shared));
    println!(
        "  taken back: the last message there after {}, counted from the request",
        ms(|in_force| in_force.unshared)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rounds_share_all_changes() {
        assert_eq!((0..3).map(|round| share(50_000, 3, round)).collect::<Vec<_>>(), [16_667, 16_667, 16_666]);
        assert_eq!((0..7).map(|round| share(100, 7, round)).sum::<u32>(), 100);
    }

    #[test]
    fn a_round_is_held_against_both_around_it() {
        let cost = |shards| Cost { shards, process: shards * 2.0 };
        let round = Round { before: cost(90.0), changing: cost(105.0), after: cost(110.0) };
        assert!((round.ratio(|cost| cost.shards) - 1.05).abs() < 1e-9);
        assert!((round.ratio(|cost| cost.process) - 1.05).abs() < 1e-9);
        assert!((round.noise(|cost| cost.shards) - 110.0 / 90.0).abs() < 1e-9);
        assert!((median([3.0, 1.0, 2.0].into_iter()) - 2.0).abs() < 1e-9);
    }
}
