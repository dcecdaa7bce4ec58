//! The configuration: one TOML file in which every key has a default and an unknown key is a fault. All faults are found at once.

mod access;
mod audit;
mod backfill;
mod callout;
mod commands;
mod listeners;
mod ota;
mod platform;
mod read;
mod registration;
mod s3;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use turnpike_authz::{guard, quota};
use turnpike_core::limits::Limits;

use crate::audit::AuditSettings;
use crate::backfill::BackfillSettings;
use crate::callout::CalloutSettings;
use crate::listener::{ListenerSettings, WebSocketSettings};
use crate::registrar::RegistrationSettings;
use crate::tls::{CertificateSettings, ClientAuth, ClientTrust, TlsSettings, TlsVersion};
use crate::transport::TransportLimits;
use crate::{logging, provision};
pub use commands::CommandSettings;
pub use ota::OtaSettings;
pub use platform::PlatformSettings;
use read::Section;
pub use s3::{S3Credentials, S3Settings};

/// What is wrong with one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Dotted, such as `limits.receive_max` or `listeners[1].address`; empty for the file as a whole.
    pub key: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// Every fault of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Faults {
    /// Which file.
    pub file: PathBuf,
    /// At least one.
    pub faults: Vec<Fault>,
}

impl std::fmt::Display for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            let key = if fault.key.is_empty() { String::new() } else { format!(" {}:", fault.key) };
            write!(f, "{separator}{}:{key} {}", self.file.display(), fault.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// What a listener speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// MQTT over TCP.
    Mqtt,
    /// MQTT over TLS.
    Mqtts,
    /// MQTT over WebSocket.
    Ws,
    /// MQTT over WebSocket over TLS.
    Wss,
}

impl Kind {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::Mqtts => "mqtts",
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }

    /// Whether it speaks TLS.
    #[must_use]
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Mqtts | Self::Wss)
    }

    fn is_websocket(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }
}

/// One listener.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listener {
    /// Unique.
    pub name: String,
    /// Where.
    pub address: SocketAddr,
    /// What it speaks.
    pub kind: Kind,
    /// Its TLS; none for a TLS listener means the development certificate.
    pub tls: Option<TlsSettings>,
    /// WebSocket paths.
    pub paths: Vec<String>,
    /// Whether connections begin with a PROXY header.
    pub proxy_protocol: bool,
}

impl Listener {
    /// A listener with nothing special about it.
    #[must_use]
    pub fn plain(kind: Kind, address: SocketAddr) -> Self {
        let paths = WebSocketSettings::default().paths;
        Self { name: kind.as_str().to_owned(), address, kind, tls: None, paths, proxy_protocol: false }
    }

    /// What the data plane is to open; `development` is the certificate of TLS listeners that name none.
    #[must_use]
    pub fn settings(&self, development: Option<&CertificateSettings>) -> ListenerSettings {
        let tls = self.kind.is_tls().then(|| {
            self.tls.clone().unwrap_or_else(|| TlsSettings {
                certificates: development.cloned().into_iter().collect(),
                client_auth: ClientAuth::None,
                client_trust: ClientTrust::Files,
                client_ca_files: Vec::new(),
                crl_files: Vec::new(),
                min_version: TlsVersion::V1_2,
            })
        });
        ListenerSettings {
            name: self.name.clone(),
            address: self.address,
            tls,
            websocket: self.kind.is_websocket().then(|| WebSocketSettings { paths: self.paths.clone() }),
            proxy_protocol: self.proxy_protocol,
        }
    }
}

/// Where durable state lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Engine {
    /// On disk, in the data folder.
    Embedded,
    /// Nowhere: everything ends with the process.
    Memory,
}

/// How the log is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A valid configuration.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// Folder of everything that survives.
    pub data: PathBuf,
    /// Threads that serve clients.
    pub shards: u16,
    /// Lets everybody in; on loopback only.
    pub anonymous: bool,
    /// Where clients come in.
    pub listeners: Vec<Listener>,
    /// Where the HTTP API listens; none switches it off.
    pub http: Option<SocketAddr>,
    /// Bounds of the core.
    pub limits: Limits,
    /// Bounds of the shell.
    pub transport: TransportLimits,
    /// Where durable state lives.
    pub engine: Engine,
    /// Bounds of a group commit.
    pub commit: turnpike_store::Limits,
    /// Free bytes of the data folder's file system below which nothing is written.
    pub free_bytes_min: u64,
    /// Log format.
    pub log_format: LogFormat,
    /// Log filter, such as `info` or `turnpike=debug`.
    pub log_level: String,
    /// File of the master key; none means `master-key` in the data folder.
    pub master_key_file: Option<PathBuf>,
    /// Used nonces that are remembered.
    pub nonces_max: usize,
    /// Between two rounds of `$SYS`; zero switches it off.
    pub sys_interval: Duration,
    /// How long clients may take to leave.
    pub drain_timeout: Duration,
    /// Rate limits of everybody.
    pub rates: quota::Settings,
    /// What becomes of those who fail to log in.
    pub guard: guard::Settings,
    /// How the audit is kept.
    pub audit: AuditSettings,
    /// Who judges devices by an algorithm of their own, over HTTP.
    pub callout: Option<CalloutSettings>,
    /// How devices register over HTTP.
    pub registration: RegistrationSettings,
    /// Where other clouds come in; none switches it off.
    pub platform: Option<PlatformSettings>,
    /// How stored data is taken in.
    pub backfill: BackfillSettings,
    /// How firmware goes out; none switches it off.
    pub ota: Option<OtaSettings>,
    /// What devices are asked to do; none switches it off.
    pub commands: Option<CommandSettings>,
}

impl Default for Config {
    fn default() -> Self {
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            data: PathBuf::from("turnpike-data"),
            shards: default_shards(),
            anonymous: false,
            listeners: [(Kind::Mqtt, 1883), (Kind::Mqtts, 8883), (Kind::Ws, 8083), (Kind::Wss, 8084)]
                .map(|(kind, port)| Listener::plain(kind, loopback(port)))
                .to_vec(),
            http: Some(loopback(18083)),
            limits: Limits::default(),
            transport: TransportLimits::default(),
            engine: Engine::Embedded,
            commit: turnpike_store::Limits::default(),
            free_bytes_min: turnpike_store::embedded::Options::default().free_bytes_min,
            log_format: LogFormat::Text,
            log_level: "info".to_owned(),
            master_key_file: None,
            nonces_max: 1_000_000,
            sys_interval: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(10),
            rates: access::default_rates(),
            guard: guard::Settings::default(),
            audit: AuditSettings::default(),
            callout: None,
            registration: RegistrationSettings::default(),
            platform: None,
            backfill: BackfillSettings::default(),
            ota: Some(OtaSettings::default()),
            commands: Some(CommandSettings::default()),
        }
    }
}

/// One core is left to the committer, the engine's compaction, the control plane and the kernel's share of the network. On two cores
/// a single shard costs 15 to 25 % less CPU a delivery than two, since nothing crosses threads; `../DESIGN.md` has the figures.
fn default_shards() -> u16 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    u16::try_from(cores.saturating_sub(1).clamp(1, 1024)).unwrap_or(1)
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// Every fault in it.
    pub fn load(file: &Path) -> Result<Self, Faults> {
        let whole =
            |message: String| Faults { file: file.to_owned(), faults: vec![Fault { key: String::new(), message }] };
        let text = std::fs::read_to_string(file).map_err(|error| whole(format!("can't be read: {error}")))?;
        Self::parse(&text).map_err(|faults| Faults { file: file.to_owned(), faults })
    }

    /// Checks a text.
    ///
    /// # Errors
    /// Every fault in it.
    pub fn parse(text: &str) -> Result<Self, Vec<Fault>> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            vec![Fault { key: String::new(), message: error.to_string().trim_end().to_owned() }]
        })?;
        let mut faults = Vec::new();
        let mut config = Self::default();
        let mut root = Section::new(table, String::new(), &mut faults);
        root.path("data", &mut config.data);
        root.integer("shards", &mut config.shards, 1..=1024);
        root.boolean("anonymous", &mut config.anonymous);
        root.seconds("sys_interval_s", &mut config.sys_interval, 0..=3600);
        root.seconds("drain_timeout_s", &mut config.drain_timeout, 0..=3600);
        root.optional_path("master_key_file", &mut config.master_key_file);
        root.integer("nonces_max", &mut config.nonces_max, 1_000..=1_000_000_000);
        root.section("http", |http| {
            let mut enabled = true;
            http.boolean("enabled", &mut enabled);
            if let Some(address) = &mut config.http {
                http.parsed("address", address, "an address such as \"127.0.0.1:18083\"");
            }
            if !enabled {
                config.http = None;
            }
        });
        root.section("log", |log| {
            let formats = &[("text", LogFormat::Text), ("json", LogFormat::Json)];
            log.choice("format", &mut config.log_format, formats);
            log.text("level", &mut config.log_level);
            if let Err(message) = logging::filter(&config.log_level) {
                log.fault("level", message);
            }
        });
        root.section("store", |store| {
            let engines = &[("embedded", Engine::Embedded), ("memory", Engine::Memory)];
            store.choice("engine", &mut config.engine, engines);
            store.integer("group_ops_max", &mut config.commit.group_ops_max, 1..=1_000_000);
            store.integer("group_bytes_max", &mut config.commit.group_bytes_max, 1024..=1 << 30);
            store.integer("free_bytes_min", &mut config.free_bytes_min, 0..=u64::MAX);
        });
        root.section("platform", |section| config.platform = Some(platform::read(section)));
        root.section("ota", |section| config.ota = ota::read(section));
        root.section("commands", |section| config.commands = commands::read(section));
        root.section("audit", |section| audit::read(section, &mut config.audit));
        root.section("transport", |section| transport(section, &mut config.transport));
        root.section("limits", |section| {
            limits(section, &mut config.limits);
            access::rates(section, &mut config.rates);
        });
        root.section("callout", |section| config.callout = callout::read(section));
        root.section("registration", |section| registration::read(section, &mut config.registration));
        root.section("backfill", |section| backfill::read(section, &mut config.backfill));
        root.section("guard", |section| access::guard(section, &mut config.guard));
        root.sections("listeners", |sections| {
            config.listeners = sections.iter_mut().map(listeners::listener).collect();
        });
        root.finish();
        faults.extend(config.faults());
        if faults.is_empty() { Ok(config) } else { Err(faults) }
    }
}

impl Config {
    /// What works and is unwise: private keys that others on the machine can read, an audit that is kept for too short a time.
    #[must_use]
    pub fn warnings(&self) -> Vec<Fault> {
        let mut warnings = listeners::warnings(self);
        warnings.extend(audit::warning(&self.audit));
        warnings
    }

    /// Keys, other than those of listeners, in which this one differs from `running` and which only a restart takes over.
    #[must_use]
    pub fn restart_needed(&self, running: &Self) -> Vec<&'static str> {
        [
            ("data", self.data != running.data),
            ("shards", self.shards != running.shards),
            ("anonymous", self.anonymous != running.anonymous),
            ("sys_interval_s", self.sys_interval != running.sys_interval),
            ("drain_timeout_s", self.drain_timeout != running.drain_timeout),
            ("master_key_file", self.master_key_file != running.master_key_file),
            ("nonces_max", self.nonces_max != running.nonces_max),
            ("http", self.http != running.http),
            ("audit", self.audit != running.audit),
            ("callout", self.callout != running.callout),
            ("registration", self.registration != running.registration),
            ("backfill", self.backfill != running.backfill),
            ("platform", PlatformSettings::restart_needed(self.platform.as_ref(), running.platform.as_ref())),
            ("ota", OtaSettings::restart_needed(self.ota.as_ref(), running.ota.as_ref())),
            ("commands", self.commands != running.commands),
            ("log", (self.log_format, &self.log_level) != (running.log_format, &running.log_level)),
            (
                "store",
                (self.engine, self.commit, self.free_bytes_min)
                    != (running.engine, running.commit, running.free_bytes_min),
            ),
        ]
        .into_iter()
        .filter_map(|(key, differs)| differs.then_some(key))
        .collect()
    }

    /// What no single key shows to be wrong. Of a configuration that was read it has been asked already.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = listeners::check_together(self);
        faults.extend(platform::check(self));
        faults.extend(ota::check(self));
        faults.extend(self.anonymous_fault());
        faults.extend(self.master_key_fault());
        faults
    }

    /// A master key that is given and can't be used.
    fn master_key_fault(&self) -> Option<Fault> {
        let in_environment = std::env::var_os(provision::MASTER_KEY).is_some_and(|text| !text.is_empty());
        // One that isn't given is made at the first start; looking must not make it.
        if !in_environment && self.master_key_file.is_none() {
            return None;
        }
        let error = provision::master_key(&self.data, self.master_key_file.as_deref()).err()?;
        Some(Fault { key: "master_key_file".to_owned(), message: error.to_string() })
    }

    /// `anonymous` with a listener that others can reach.
    fn anonymous_fault(&self) -> Option<Fault> {
        let open = self.listeners.iter().find(|listener| !listener.address.ip().is_loopback())?;
        self.anonymous.then(|| Fault {
            key: "anonymous".to_owned(),
            message: format!(
                "lets everybody in, which is allowed on loopback alone; listener {} is at {}",
                open.name, open.address
            ),
        })
    }
}

fn transport(section: &mut Section<'_>, transport: &mut TransportLimits) {
    section.integer("handshakes_max", &mut transport.handshakes_max, 1..=10_000_000);
    section.integer("handshake_timeout_ms", &mut transport.handshake_timeout_ms, 100..=600_000);
    section.integer("linger_ms", &mut transport.linger_ms, 0..=600_000);
    section.integer("commit_bytes_high", &mut transport.commit_bytes_high, 1 << 20..=1 << 40);
}

fn limits(section: &mut Section<'_>, limits: &mut Limits) {
    section.integer("packet_bytes_max", &mut limits.packet_bytes_max, 128..=268_435_460);
    section.integer("connect_bytes_max", &mut limits.connect_bytes_max, 128..=268_435_460);
    section.integer("partial_bytes_max", &mut limits.partial_bytes_max, 1 << 20..=1 << 40);
    section.integer("packet_time_max_s", &mut limits.packet_time_max_s, 1..=86_400);
    section.integer("topic_levels_max", &mut limits.topic_levels_max, 1..=1024);
    section.integer("client_id_bytes_max", &mut limits.client_id_bytes_max, 23..=65_535);
    section.integer("receive_max", &mut limits.receive_max, 1..=65_535);
    section.integer("inflight_max", &mut limits.inflight_max, 1..=65_535);
    section.integer("queued_messages_max", &mut limits.queued_messages_max, 1..=100_000_000);
    section.integer("queued_bytes_max", &mut limits.queued_bytes_max, 1024..=u32::MAX);
    section.integer("out_bytes_high", &mut limits.out_bytes_high, 1024..=1 << 30);
    section.integer("topic_alias_in_max", &mut limits.topic_alias_in_max, 0..=65_535);
    section.integer("topic_alias_out_max", &mut limits.topic_alias_out_max, 0..=1024);
    section.integer("subscriptions_max", &mut limits.subscriptions_max, 1..=1_000_000);
    section.integer("sessions_max", &mut limits.sessions_max, 1..=100_000_000);
    section.integer("connections_max", &mut limits.connections_max, 1..=100_000_000);
    section.integer("connect_timeout_ms", &mut limits.connect_timeout_ms, 100..=600_000);
    section.integer("answer_timeout_ms", &mut limits.answer_timeout_ms, 1_000..=600_000);
    section.integer("errands_max", &mut limits.errands_max, 1..=10_000_000);
    section.integer("errand_bytes_max", &mut limits.errand_bytes_max, 1 << 20..=u32::MAX);
    section.integer("keep_alive_max_s", &mut limits.keep_alive_max_s, 1..=65_535);
    section.integer("session_expiry_max_s", &mut limits.session_expiry_max_s, 0..=u32::MAX);
    section.integer("session_expiry_mqtt3_s", &mut limits.session_expiry_mqtt3_s, 0..=u32::MAX);
    section.integer("retained_messages_max", &mut limits.retained_messages_max, 0..=u64::MAX);
    section.integer("retained_bytes_max", &mut limits.retained_bytes_max, 0..=u64::MAX);
    section.integer("batch_bytes_high", &mut limits.batch_bytes_high, 1 << 16..=1 << 30);
}
