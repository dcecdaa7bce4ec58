//! Stored data of many devices, handed in at once: how fast it comes in, whether each record reaches a durable back end once and in order, across
//! batches that are sent twice and a broker that is killed, and what live messages feel of it.

mod back_end;
mod broker;
pub(crate) mod client;
mod device;
mod live;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use self::back_end::BackEnd;
use self::broker::Killable;
use self::live::Live;
use crate::behind::{self, Back};

/// How many, and how often.
#[derive(Args, Clone, Debug)]
pub struct Backfill {
    /// This broker's program [default: `turnpike` beside this program].
    #[arg(long, value_name = "PATH")]
    pub turnpike: Option<PathBuf>,
    /// Devices.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub devices: u32,
    /// Records of each.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub records: u32,
    /// Records of a batch.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=4_096))]
    pub batch: u32,
    /// Devices that are connected at once.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub connections: u32,
    /// Each how-manieth batch is sent twice; 0 for none.
    #[arg(long, default_value_t = 10)]
    pub twice: u32,
    /// How often the broker is killed on the way, by SIGKILL.
    #[arg(long, default_value_t = 0)]
    pub kills: u32,
    /// Live messages a second beside it.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub live: u32,
    /// How long live messages are watched before history begins.
    #[arg(long, default_value_t = 10)]
    pub calm_s: u64,
    /// How far devices and back end give way to others (`nice`, 0 to 19). Live clients never do: in the field all these have machines of their own.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(i32).range(0..=19))]
    pub nice: i32,
    /// Devices and back end have what nobody else wants (`SCHED_IDLE`).
    #[arg(long)]
    pub idle: bool,
    /// More of the broker's configuration, TOML.
    #[arg(long, default_value = "")]
    pub config: String,
}

impl Backfill {
    fn back(&self) -> Back {
        if self.idle { Back::Idle } else { Back::Nice(self.nice) }
    }
}

/// What the devices have in common.
struct Fleet {
    plan: Backfill,
    broker: Killable,
    /// The next device that nobody plays yet.
    next: AtomicUsize,
    /// Records that were acknowledged as new.
    taken: AtomicU64,
    /// Batches that were answered by a pace.
    paced: AtomicU64,
    failed: AtomicBool,
}

/// Runs it and prints what came of it.
///
/// # Errors
/// The broker doesn't run, or a record was lost, doubled or out of order.
#[allow(clippy::print_stdout, reason = "it is the report")]
pub fn run(plan: &Backfill) -> anyhow::Result<()> {
    let program = match &plan.turnpike {
        Some(program) => program.clone(),
        None => std::env::current_exe()?.with_file_name("turnpike"),
    };
    let broker = Killable::start(&program, plan)?;
    let fleet = Arc::new(Fleet {
        plan: plan.clone(),
        broker,
        next: AtomicUsize::new(0),
        taken: AtomicU64::new(0),
        paced: AtomicU64::new(0),
        failed: AtomicBool::new(false),
    });
    let total = u64::from(plan.devices) * u64::from(plan.records);
    let back_end = BackEnd::start(&fleet, total)?;
    let live = Live::start(&fleet)?;
    let calm = Duration::from_secs(plan.calm_s);
    // Caches, and what the store still does with the registrations.
    thread::sleep(calm / 5);
    live.take();
    thread::sleep(calm);
    let calm = live.take();
    let begun = Instant::now();
    let players: Vec<_> = (0..plan.connections)
        .map(|_| {
            let fleet = Arc::clone(&fleet);
            behind::spawn("device", plan.back(), move || {
                let played = device::play(&fleet);
                if played.is_err() {
                    fleet.failed.store(true, Relaxed);
                }
                played
            })
        })
        .collect::<anyhow::Result<_>>()?;
    for kill in 1..=u64::from(plan.kills) {
        let due = total * kill / (u64::from(plan.kills) + 1);
        while fleet.taken.load(Relaxed) < due && !fleet.failed.load(Relaxed) {
            thread::sleep(Duration::from_millis(5));
        }
        fleet.broker.kill_and_restart()?;
    }
    behind::join(players)?;
    let handed_in = begun.elapsed();
    let counted = back_end.finish()?;
    let delivered = begun.elapsed();
    let busy = live.finish();
    let rate = |time: Duration| total as f64 / time.as_secs_f64();
    println!("records            {total} of {} devices, {} a batch", plan.devices, plan.batch);
    println!("handed in          {:.2} s, {:.0} a second", handed_in.as_secs_f64(), rate(handed_in));
    println!("delivered, QoS 1   {:.2} s, {:.0} a second", delivered.as_secs_f64(), rate(delivered));
    println!("paced              {} batches", fleet.paced.load(Relaxed));
    println!("killed             {} times", plan.kills);
    println!("live, p50 and p99  before {} and {} us, meanwhile {} and {} us", calm.0, calm.1, busy.0, busy.1);
    println!("lost {}, repeated {}, out of order {}", counted.lost, counted.repeated, counted.reordered);
    println!("redelivered with DUP, as QoS 1 may {}", counted.redelivered);
    anyhow::ensure!(counted.is_clean(), "records were lost, repeated or out of order");
    Ok(())
}
