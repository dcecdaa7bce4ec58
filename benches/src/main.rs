//! The `turnpike-bench` binary.
#![allow(clippy::print_stdout, reason = "it is a command that prints")]

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use turnpike_bench::compare::{self, Comparison};
use turnpike_bench::floor::Floor;
use turnpike_bench::load::{Load, Outcome};
use turnpike_bench::spec::{Device, Scenario, Spec};
use turnpike_mqtt::{QoS, Version};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Loads any MQTT broker and measures what it costs.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Each publisher has a subscriber of its own.
    Pair(Run),
    /// All publishers to each subscriber.
    Fanin(Run),
    /// Each message to all subscribers.
    Fanout(Run),
    /// Connections that say nothing: memory of each, CPU of an accept.
    Idle(Run),
    /// The same work on this broker, the floor and mosquitto, taking turns; prints a table with ratios.
    Compare(Compare),
    /// The bare forwarder: the least that a broker can cost.
    Floor {
        /// Where to listen.
        #[arg(long, default_value = "127.0.0.1:1884")]
        listen: SocketAddr,
    },
}

#[derive(Args)]
struct Run {
    /// The broker, as host:port.
    #[arg(long, default_value = "127.0.0.1:1883")]
    address: String,
    #[arg(long, default_value_t = 20)]
    publishers: usize,
    #[arg(long, default_value_t = 20)]
    subscribers: usize,
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: u8,
    /// MQTT version: 3 (3.1), 4 (3.1.1) or 5.
    #[arg(long = "mqtt-version", default_value_t = 4, value_parser = clap::value_parser!(u8).range(3..=5))]
    version: u8,
    /// Messages of one publisher under way at once.
    #[arg(long, default_value_t = 100)]
    window: u32,
    /// Bytes of a message.
    #[arg(long, default_value_t = 64)]
    payload: usize,
    /// Seconds to measure.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Seconds before that.
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
    /// Seconds; 0 for none.
    #[arg(long, default_value_t = 300)]
    keep_alive: u16,
    /// CONNECTs under way at once.
    #[arg(long, default_value_t = 64)]
    connecting: usize,
    /// The broker's process id, to measure its CPU and memory.
    #[arg(long)]
    broker_pid: Option<u32>,
    /// Log in as a device of this product.
    #[arg(long, requires_all = ["device", "secret"])]
    product: Option<String>,
    /// The device's name.
    #[arg(long)]
    device: Option<String>,
    /// The device's secret.
    #[arg(long, env = "TURNPIKE_DEVICE_SECRET", hide_env_values = true)]
    secret: Option<String>,
}

#[derive(Args)]
struct Compare {
    /// The broker's program; without it, the one beside this program.
    #[arg(long)]
    turnpike: Option<PathBuf>,
    /// mosquitto's program; without it, where Debian puts it, if it is there.
    #[arg(long)]
    mosquitto: Option<PathBuf>,
    /// How often each row runs on each broker.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Only rows whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Without authentication and policy.
    #[arg(long)]
    anonymous: bool,
}

fn compare_brokers(options: Compare) -> anyhow::Result<()> {
    let beside = std::env::current_exe()?.with_file_name("turnpike");
    let debian = PathBuf::from("/usr/sbin/mosquitto");
    let comparison = Comparison {
        turnpike: options.turnpike.unwrap_or(beside),
        mosquitto: options.mosquitto.or_else(|| debian.exists().then_some(debian)),
        rounds: options.rounds.max(1),
        duration: Duration::from_secs_f64(options.seconds),
        only: options.only,
        anonymous: options.anonymous,
    };
    let bar = indicatif::ProgressBar::new_spinner();
    let table = compare::run(&comparison, |what| {
        bar.set_message(what.to_owned());
        bar.tick();
    })?;
    bar.finish_and_clear();
    println!("{table}");
    Ok(())
}

impl Run {
    fn spec(&self, scenario: Scenario) -> anyhow::Result<Spec> {
        let address = self.address.to_socket_addrs().with_context(|| format!("no such address: {}", self.address))?;
        let device = match (&self.product, &self.device, &self.secret) {
            (Some(product), Some(name), Some(secret)) => Some(Device {
                product: product.clone(),
                name: name.clone(),
                secret: turnpike_authz::secret::Secret::new(secret.as_bytes())?,
            }),
            _ => None,
        };
        Ok(Spec {
            scenario,
            address: address.into_iter().next().with_context(|| format!("no such address: {}", self.address))?,
            publishers: self.publishers,
            subscribers: self.subscribers,
            qos: QoS::try_from(self.qos).map_err(|qos| anyhow::anyhow!("QoS {qos}"))?,
            version: match self.version {
                3 => Version::V31,
                4 => Version::V311,
                _ => Version::V5,
            },
            window: self.window,
            payload: self.payload,
            warmup: Duration::from_secs_f64(self.warmup),
            duration: Duration::from_secs_f64(self.seconds),
            keep_alive_s: self.keep_alive,
            connecting_max: self.connecting,
            broker_pid: self.broker_pid,
            device,
        })
    }
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Floor { listen } => {
            let floor = Floor::bind(listen).with_context(|| format!("can't listen on {listen}"))?;
            println!("listening name=floor kind=mqtt address={}", floor.address()?);
            Ok(floor.run()?)
        }
        Command::Compare(options) => compare_brokers(options),
        Command::Pair(run) => measure(&run.spec(Scenario::Pair)?),
        Command::Fanin(run) => measure(&run.spec(Scenario::FanIn)?),
        Command::Fanout(run) => measure(&run.spec(Scenario::FanOut)?),
        Command::Idle(run) => measure(&run.spec(Scenario::Idle)?),
    }
}

fn measure(spec: &Spec) -> anyhow::Result<()> {
    let outcome = Load::new(spec)?.run()?;
    print(spec, &outcome);
    Ok(())
}

fn print(spec: &Spec, outcome: &Outcome) {
    let micros = |time: Duration, n: u64| time.as_secs_f64() * 1e6 / n.max(1) as f64;
    let (time, cpu) = outcome.connecting;
    println!("connected     {} in {:.3} s", outcome.connections, time.as_secs_f64());
    if let Some(cpu) = cpu {
        println!("accept CPU    {:.1} µs", micros(cpu, outcome.connections as u64));
    }
    if let Some((before, after)) = outcome.broker_bytes {
        println!("memory        {:.0} bytes a connection", (after as f64 - before as f64) / outcome.connections as f64);
    }
    if spec.scenario == Scenario::Idle {
        return;
    }
    let rate = outcome.deliveries as f64 / outcome.elapsed.as_secs_f64();
    println!("delivered     {} ({rate:.0}/s), published {}", outcome.deliveries, outcome.published);
    println!("lost          {}, repeated {}", outcome.lost, outcome.repeated);
    if let Some(cpu) = outcome.broker_cpu {
        let share = cpu.as_secs_f64() / outcome.elapsed.as_secs_f64() * 100.0;
        println!("broker CPU    {:.3} µs a delivery, {share:.0} % of a core", micros(cpu, outcome.deliveries));
    }
    println!("own CPU       {:.3} µs a delivery", micros(outcome.own_cpu, outcome.deliveries));
    let latency = |quantile| outcome.latency_us.value_at_quantile(quantile);
    println!(
        "latency (µs)  p50 {}  p90 {}  p99 {}  p99.9 {}  max {}",
        latency(0.5),
        latency(0.9),
        latency(0.99),
        latency(0.999),
        outcome.latency_us.max()
    );
}
