//! Options of a run, and the specification that they make.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use turnpike_authz::profile::Profile;
use turnpike_mqtt::{QoS, Version};

use crate::identity::{Device, Identity};
use crate::plan::Plan;
use crate::spec::{Certificate, Connecting, Pace, Scenario, Spec, Tls, parse_sources};

/// Options of a run.
#[derive(Args, Debug)]
pub(crate) struct Run {
    /// The broker, as host:port.
    #[arg(long, default_value = "127.0.0.1:1883")]
    address: String,
    #[command(flatten)]
    clients: Clients,
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    transport: Transport,
    #[command(flatten)]
    login: Login,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Clients")]
struct Clients {
    /// How many publish; of `mixed`, devices; of `connect` and `idle`, clients [default: 20, fanout and slow 1, retained 10, connect, idle and mixed 1000].
    #[arg(long, short = 'n', visible_alias = "connections", visible_alias = "pairs")]
    publishers: Option<usize>,
    /// How many subscribe; of `mixed`, back ends; of `slow`, those that don't read [default: as many as publish, fanin, retained and slow 1, shared and mixed 4, fanout 100].
    #[arg(long)]
    subscribers: Option<usize>,
    /// MQTT version: 3 (3.1), 4 (3.1.1) or 5.
    #[arg(long = "mqtt-version", default_value_t = 4, value_parser = clap::value_parser!(u8).range(3..=5))]
    version: u8,
    /// Seconds; 0 for none.
    #[arg(long, default_value_t = 300)]
    keep_alive: u16,
    /// CONNECTs under way at once.
    #[arg(long, default_value_t = 64)]
    connecting: usize,
    /// CONNECTs begun a second: a ramp instead of a storm.
    #[arg(long)]
    connect_rate: Option<f64>,
    /// `connect`: disconnect as soon as connected.
    #[arg(long)]
    close: bool,
    /// Subscribers have sessions that outlive the connection.
    #[arg(long)]
    durable: bool,
    /// Durable subscribers leave before the first message.
    #[arg(long, requires = "durable")]
    offline: bool,
    /// Worker processes; 0 for as many as the limit on descriptors asks for.
    #[arg(long, default_value_t = 0)]
    processes: usize,
    /// Addresses to connect from: a count of loopback addresses (127.0.0.1 and up), or a list of addresses and ranges.
    #[arg(long)]
    sources: Option<String>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Load")]
struct Load {
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: u8,
    /// Closed loop: messages of one publisher under way at once.
    #[arg(long, default_value_t = 16)]
    window: u32,
    /// Open loop: messages a second, all publishers together; latency counts from when a message was due.
    #[arg(long, conflicts_with = "window")]
    rate: Option<f64>,
    /// `mixed`: commands a second, all back ends together.
    #[arg(long, default_value_t = 100.0)]
    down_rate: f64,
    /// `retained`: messages a publisher.
    #[arg(long, default_value_t = 1000)]
    messages: usize,
    /// Bytes of a message, at least 16.
    #[arg(long, default_value_t = 64)]
    payload: usize,
    /// Seconds to measure; of `idle`, to hold.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Seconds before that.
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
    /// Seconds to wait for stragglers at most.
    #[arg(long, default_value_t = 5.0)]
    drain: f64,
    /// Topic of a publisher, with {i}, {product}, {device} [default: bench/{i}, or dev/{product}/{device}/sys/bench/{i}].
    #[arg(long)]
    topic: Option<String>,
    /// Name of the shared subscription.
    #[arg(long, default_value = "bench")]
    group: String,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Transport")]
struct Transport {
    /// Speak TLS.
    #[arg(long)]
    tls: bool,
    /// PEM file of the authorities to trust.
    #[arg(long, requires = "tls")]
    ca: Option<PathBuf>,
    /// Take any certificate.
    #[arg(long, requires = "tls", conflicts_with = "ca")]
    insecure: bool,
    /// PEM file of a certificate that all clients show.
    #[arg(long, requires_all = ["tls", "key"])]
    cert: Option<PathBuf>,
    /// PEM file of its private key.
    #[arg(long, requires = "cert")]
    key: Option<PathBuf>,
    /// Name that the certificate must have, instead of the address.
    #[arg(long, requires = "tls")]
    server_name: Option<String>,
    /// Speak WebSocket, at this path.
    #[arg(long, num_args = 0..=1, default_missing_value = "/mqtt")]
    ws: Option<String>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Log-in")]
struct Login {
    /// Log in as devices that sign: native or aliyun.
    #[arg(long, default_value = "native")]
    profile: Profile,
    /// Their product.
    #[arg(long, requires_all = ["device", "secret"])]
    product: Option<String>,
    /// Their name; {i} is a number below --devices.
    #[arg(long)]
    device: Option<String>,
    /// How many there are.
    #[arg(long, default_value_t = 1)]
    devices: usize,
    /// Their secret.
    #[arg(long, env = "TURNPIKE_DEVICE_SECRET", hide_env_values = true)]
    secret: Option<String>,
    /// CSV with a header: client_id,username,password, or product,device,secret.
    #[arg(long, conflicts_with = "product")]
    credentials: Option<PathBuf>,
    /// The same user name for all.
    #[arg(long, conflicts_with_all = ["product", "credentials"])]
    username: Option<String>,
    /// The password that goes with it.
    #[arg(long, requires = "username", env = "TURNPIKE_BENCH_PASSWORD", hide_env_values = true)]
    password: Option<String>,
    /// `mixed`: user name of the back ends.
    #[arg(long)]
    back_end: Option<String>,
    /// The password that goes with it.
    #[arg(long, requires = "back_end", env = "TURNPIKE_BENCH_BACK_END_PASSWORD", hide_env_values = true)]
    back_end_password: Option<String>,
}

/// Where results go, and what is watched.
#[derive(Args, Debug)]
#[command(next_help_heading = "Output")]
pub(crate) struct Output {
    /// The broker's process id, to measure its CPU and memory.
    #[arg(long)]
    pub(crate) broker_pid: Option<u32>,
    /// Write the results as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write a report with plots, in one file.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// No progress bar.
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

impl Run {
    /// The specification, checked.
    pub(crate) fn spec(&self, scenario: Scenario) -> anyhow::Result<Spec> {
        let (clients, load) = (&self.clients, &self.load);
        let (publishers, subscribers) = self.counts(scenario);
        let mut spec = Spec {
            tls: self.transport.tls.then(|| Tls {
                ca: self.transport.ca.clone(),
                insecure: self.transport.insecure,
                server_name: self.transport.server_name.clone(),
                certificate: self.transport.certificate(),
            }),
            websocket: self.transport.ws.clone(),
            sources: clients.sources.as_deref().map(parse_sources).transpose()?.unwrap_or_default(),
            publishers,
            subscribers,
            qos: QoS::try_from(load.qos).map_err(|qos| anyhow::anyhow!("there is no QoS {qos}"))?,
            version: Version::from_level(clients.version).context("there is no such version")?,
            pace: load.rate.map_or(Pace::Window(load.window), Pace::Rate),
            down_rate: load.down_rate,
            messages: load.messages,
            payload: load.payload,
            warmup: seconds("warmup", load.warmup)?,
            duration: seconds("seconds", load.seconds)?,
            drain: seconds("drain", load.drain)?,
            keep_alive_s: clients.keep_alive,
            connecting: Connecting {
                outstanding_max: clients.connecting,
                rate: clients.connect_rate,
                close: clients.close,
            },
            identity: self.login.identity()?,
            back_end: match &self.login.back_end {
                Some(name) => fixed(name, self.login.back_end_password.as_deref()),
                None => Identity::Anonymous,
            },
            topic: load.topic.clone(),
            group: load.group.clone(),
            durable: clients.durable,
            offline: clients.offline,
            ..Spec::new(scenario, resolve(&self.address)?)
        };
        if clients.processes > 0 {
            spec.processes = clients.processes;
        } else {
            // Some descriptors are for other things.
            let limit =
                usize::try_from(crate::cpu::descriptor_limit()).unwrap_or(usize::MAX).saturating_sub(100).max(1);
            spec.processes = Plan::clients(&spec).div_ceil(limit);
        }
        Ok(spec.check()?)
    }

    fn counts(&self, scenario: Scenario) -> (usize, usize) {
        let publishers = match scenario {
            Scenario::Connect | Scenario::Idle => 1000,
            Scenario::FanOut | Scenario::Slow => 1,
            Scenario::Retained => 10,
            Scenario::Mixed => 1000,
            _ => 20,
        };
        let publishers = self.clients.publishers.unwrap_or(publishers);
        let subscribers = match scenario {
            Scenario::Connect | Scenario::Idle => return (publishers, 0),
            Scenario::FanIn | Scenario::Retained | Scenario::Slow => 1,
            Scenario::FanOut => 100,
            Scenario::Shared | Scenario::Mixed => 4,
            Scenario::Pair => publishers,
            Scenario::Feed => publishers + 1,
        };
        (publishers, self.clients.subscribers.unwrap_or(subscribers))
    }
}

impl Transport {
    fn certificate(&self) -> Option<Certificate> {
        let (chain, key) = self.cert.clone().zip(self.key.clone())?;
        Some(Certificate { chain, key })
    }
}

impl Login {
    fn identity(&self) -> anyhow::Result<Identity> {
        if let Some(file) = &self.credentials {
            return Ok(Identity::read_csv(file, self.profile)?);
        }
        if let Some(name) = &self.username {
            return Ok(fixed(name, self.password.as_deref()));
        }
        let (Some(product), Some(name), Some(secret)) = (&self.product, &self.device, &self.secret) else {
            return Ok(Identity::Anonymous);
        };
        let device = Device { product: product.clone(), name: name.clone(), secret: secret.clone() };
        let profile = self.profile.as_str().to_owned();
        Ok(Identity::Family { profile, device, count: self.devices.max(1) }.check()?)
    }
}

fn fixed(name: &str, password: Option<&str>) -> Identity {
    Identity::Fixed { user_name: name.to_owned(), password: password.unwrap_or_default().to_owned() }
}

fn seconds(name: &str, value: f64) -> anyhow::Result<Duration> {
    Duration::try_from_secs_f64(value).with_context(|| format!("--{name} {value}"))
}

fn resolve(address: &str) -> anyhow::Result<SocketAddr> {
    let mut found = address.to_socket_addrs().with_context(|| format!("{address} is no host:port"))?;
    found.next().with_context(|| format!("{address} has no address"))
}
