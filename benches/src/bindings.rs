//! What a delivery costs the broker while bindings change, beside what it costs when none does.
//!
//! Devices, each bound to a user, publish to a service and to their users' feeds: every message is judged by what the device may, and every
//! delivery to a feed by whom the device is bound to. There are rounds of three kinds:
//!
//! - *quiet*: nothing changes.
//! - *bindings*: clients of the HTTP API bind, share and unbind other devices.
//! - *codes*: the same clients have as many session codes issued, which are audited and committed as bindings are, and are nothing to a message. What a delivery
//!   costs more in these is the machine's: cores and caches that are shared with the API, the audit, the store, and the clients.
//!
//! Every other round is quiet. The connections are the same in all, and so is the broker's one shard, which is kept busy, so that its turns are about as
//! long in each kind of round. A round's cost is the broker's CPU from standstill to standstill over the deliveries in between: that of the shard's
//! thread alone, which is the path of a message, and that of the whole process. It is held against the mean of the quiet rounds before and after it.

mod changes;
mod probe;
mod stage;
mod traffic;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use self::changes::{Changers, Kind};
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
    /// Bindings changed in all rounds together, and codes issued.
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(100..))]
    pub changes: u32,
    /// In so many rounds of each kind.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Clients of the HTTP API that make them.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub clients: u32,
    /// Length of a round without changes, seconds. One with changes takes as long as they do.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=600))]
    pub seconds: u16,
    /// Messages of a device that are under way at once.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1000))]
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
    kind: Kind,
    before: Cost,
    changing: Cost,
    after: Cost,
}

impl Round {
    /// How much more a delivery cost, by one of the two figures.
    fn ratio(&self, of: Part) -> f64 {
        of(&self.changing) / ((of(&self.before) + of(&self.after)) / 2.0)
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
    let mut changers = Changers::new(&stage, bindings.clients, bindings.changes)?;
    let (mut quiets, mut changing, mut changes) = (Vec::new(), Vec::new(), Changes::default());

    // Caches, and what is set up with the first messages.
    quiet(&mut traffic, &stage, bindings)?;
    quiets.push(quiet(&mut traffic, &stage, bindings)?);
    for round in 0..bindings.rounds {
        let count = share(bindings.changes, bindings.rounds, round);
        for kind in order(round) {
            let cost = measure(&mut traffic, &stage, || {
                let elapsed = changers.run(kind, count)?;
                if kind == Kind::Bindings {
                    changes.elapsed += elapsed;
                    changes.count += count;
                    changes.in_force.push(probe.last_change(&mut stage.http()?)?);
                }
                Ok(())
            })?;
            changing.push((kind, cost));
            quiets.push(quiet(&mut traffic, &stage, bindings)?);
        }
    }
    traffic.end()?;
    let around = changing.into_iter().zip(quiets.windows(2));
    let rounds: Vec<Round> = around
        .map(|((kind, changing), around)| Round { kind, before: around[0], changing, after: around[1] })
        .collect();
    print(&rounds, &changes, bindings);
    Ok(())
}

/// Each kind comes first in every other round.
fn order(round: u32) -> [Kind; 2] {
    if round.is_multiple_of(2) { [Kind::Codes, Kind::Bindings] } else { [Kind::Bindings, Kind::Codes] }
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
        "| CPU of a delivery, ns | quiet | codes issued | bindings changed | codes : quiet | bindings : quiet | bindings : codes |\n\
         |---|---|---|---|---|---|---|"
    );
    let of_kind = |kind: Kind| rounds.iter().filter(move |round| round.kind == kind);
    let rows: [(&str, Part); 2] =
        [("the shard's thread", |cost| cost.shards), ("the whole process", |cost| cost.process)];
    for (name, of) in rows {
        let quiet = median(rounds.iter().flat_map(|round| [of(&round.before), of(&round.after)]));
        let cost = |kind| median(of_kind(kind).map(|round| of(&round.changing)));
        let ratio = |kind| median(of_kind(kind).map(|round| round.ratio(of)));
        let pairs = of_kind(Kind::Bindings).zip(of_kind(Kind::Codes));
        let apart = median(pairs.map(|(bindings, codes)| bindings.ratio(of) / codes.ratio(of)));
        let (codes, bindings) = (Kind::Codes, Kind::Bindings);
        println!(
            "| {name} | {quiet:.0} | {:.0} | {:.0} | {:.3} | {:.3} | {apart:.3} |",
            cost(codes),
            cost(bindings),
            ratio(codes),
            ratio(bindings)
        );
    }
    println!();
    for kind in [Kind::Codes, Kind::Bindings] {
        let ratios: Vec<String> = of_kind(kind).map(|round| format!("{:.3}", round.ratio(rows[0].1))).collect();
        println!("the shard's thread by round, {} : quiet: {}", kind.name(), ratios.join(", "));
    }
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
        let round = Round { kind: Kind::Bindings, before: cost(90.0), changing: cost(105.0), after: cost(110.0) };
        assert!((round.ratio(|cost| cost.shards) - 1.05).abs() < 1e-9);
        assert!((round.ratio(|cost| cost.process) - 1.05).abs() < 1e-9);
        assert!((median([3.0, 1.0, 2.0].into_iter()) - 2.0).abs() < 1e-9);
    }
}
