//! From a configuration to a running broker, and to its end.

use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;
use turnpike_authz::Gatekeeper;
use turnpike_authz::audit::chain::ChainKey;
use turnpike_authz::audit::{Action, Event, Key, Outcome, Subject, Value, describe};
use turnpike_authz::guard::{self, Guard, SecurityEvent};
use turnpike_authz::guarded::{Guarded, claimed_by_user_name};
use turnpike_authz::plan::Change;
use turnpike_authz::presale;
use turnpike_authz::presale::list::Sweep;
use turnpike_authz::quota::{self, Quotas};
use turnpike_authz::registry::{RecordError, Registry};
use turnpike_authz::secret::MasterKey;
use turnpike_core::clock::Now;
use turnpike_store::Store;
use turnpike_store::embedded::{EmbeddedStore, Options};
use turnpike_store::memory::MemoryStore;

use crate::asker::Asker;
use crate::audit::{Audit, AuditSink, LogInWitness, now_ms};
use crate::cli::Serve;
use crate::config::{Config, Engine, Fault, Faults, Kind};
use crate::http::{self, Api, Auditing, Connects, Questions};
use crate::nonces::NonceFiles;
use crate::registrar::Registrar;
use crate::server::{Control, Server, ServerParts};
use crate::{pki, provision, sys};

/// How long the audit's last records may take to reach the disk.
const AUDIT_TIME_MAX: std::time::Duration = std::time::Duration::from_secs(5);
/// Between two rounds in which what is over is forgotten.
const SWEEP_INTERVAL: std::time::Duration = std::time::Duration::from_secs(60);
/// Mark in the registry: there is an audit.
const AUDIT_MARK: &str = "audit";

/// Serves until SIGTERM or SIGINT; reloads on SIGHUP. Says whether everything ended in good order.
///
/// # Errors
/// Whatever keeps the broker from starting.
pub fn serve(options: &Serve, config: &Config) -> anyhow::Result<bool> {
    warn(config);
    // Messages of devices are in it, in clear.
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&config.data)
        .with_context(|| format!("the data folder {} can't be made", config.data.display()))?;
    // Before anything is open, so that a signal during the start isn't lost.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).context("signals can't be handled")?;
    // A limit on file sizes is a failed write to us, not the end.
    signal_hook::flag::register(SIGXFSZ, Arc::default()).context("signals can't be handled")?;
    let store = open_store(config)?;
    let key = provision::master_key(&config.data, config.master_key_file.as_deref())?;
    let audit = audit(config, &key)?;
    let sink = audit.sink();
    let registry = Arc::new(Registry::new());
    let registrar = Arc::new(Registrar::new(config.registration.clone(), config.rates.exempt.clone()));
    let gate = Gatekeeper::new(Arc::clone(&registry), key, config.nonces_max);
    let gate = if audit.is_kept() { gate.witnessed_by(Box::new(LogInWitness(sink.clone()))) } else { gate };
    let gate = Arc::new(if config.anonymous { gate.open_to_all() } else { keep_nonces(gate, config)? });
    let development = development(config)?;
    let guarded = Arc::new(guarded(config, &gate, &sink));
    let (connects, questions) = Connects::new(None);
    let asker = (config.http.is_some() && config.registration.enabled).then(|| Arc::new(connects) as Arc<dyn Asker>);
    let (server, damaged) = start(config, development.as_ref(), (&guarded, &registrar), (store, asker))?;
    // From here on there is something to put down in good order, whatever goes wrong.
    if let Err(error) = open(config, &server, (&guarded, &registrar), (damaged, questions), &audit) {
        server.drain(config.drain_timeout);
        audit.finish(AUDIT_TIME_MAX);
        return Err(error);
    }
    tell_demo(config, &server, development.as_ref(), &gate);
    tracing::info!(data = %config.data.display(), shards = config.shards, anonymous = config.anonymous, "serving");
    for signal in &mut signals {
        match signal {
            SIGHUP => reload(options, config, &server.control(), &guarded, &sink),
            _ => break,
        }
    }
    tracing::info!("draining");
    let whole = server.drain(config.drain_timeout);
    sink.record(&Event::own(now_ms(), Action::BrokerStop, &[]));
    let audited = audit.finish(AUDIT_TIME_MAX);
    tracing::info!(whole, audited, "ended");
    Ok(whole)
}

/// The audit of the data folder.
fn audit(config: &Config, key: &MasterKey) -> anyhow::Result<Audit> {
    let audit = Audit::start(&config.audit, &config.data, &ChainKey::new(key))
        .with_context(|| format!("the audit in {} can't be read", config.audit.folder(&config.data).display()))?;
    let anchor = audit.sink().status().anchor;
    match anchor.sequence {
        _ if !audit.is_kept() => {}
        0 => tracing::info!("an audit begins"),
        sequence => tracing::info!(sequence, mac = %anchor.mac, "the audit goes on; its anchor"),
    }
    Ok(audit)
}

/// Begins this run's part of the audit, and tells from the registry whether there should have been one before.
fn begin_audit(control: &Control, gate: &Gatekeeper, audit: &Audit) {
    let sink = audit.sink();
    if !audit.is_kept() {
        return;
    }
    sink.record(&Event::own(now_ms(), Action::BrokerStart, &[]));
    let registry = gate.registry();
    if registry.is_marked(AUDIT_MARK) {
        if audit.is_new() {
            tracing::error!("this broker had an audit before, and it is gone; a new one begins");
            sink.record(&Event::own(now_ms(), Action::ChainLost, &[]));
        }
        return;
    }
    let change = Change::Mark(AUDIT_MARK.into());
    match control.commit_registry(vec![change.op()]).blocking_recv() {
        Ok(()) => registry.apply(change),
        Err(_) => tracing::warn!("that there is an audit could not be noted in the store"),
    }
}

/// What comes after the data plane: the registry's own affairs, the addresses, the HTTP API, `$SYS`.
fn open(
    config: &Config,
    server: &Server,
    (guarded, registrar): (&Arc<Guarded<Gatekeeper>>, &Arc<Registrar>),
    (damaged, questions): (Option<RecordError>, Questions),
    audit: &Audit,
) -> anyhow::Result<()> {
    let (control, gate) = (server.control(), guarded.gate());
    if let Some(error) = damaged {
        return Err(error).context("the registry can't be read");
    }
    gate.check_key().context("the registry was sealed under another master key")?;
    begin_audit(&control, gate, audit);
    sweep(&control, gate);
    sweep_packages(&control, registrar);
    provision_demo(&control, gate, &audit.sink());
    for (listener, (name, address)) in config.listeners.iter().zip(server.addresses()) {
        tracing::info!(%name, kind = %listener.kind.as_str(), %address, "listening");
    }
    if let Some(address) = config.http {
        let token = provision::admin_token(&config.data)?;
        let auditing = auditing(config, gate, audit);
        let api = Api::new(control.clone(), guarded, &token, auditing, Arc::clone(registrar));
        let bound = http::serve(address, api.clone(), questions)
            .with_context(|| format!("the HTTP API can't listen on {address}"))?;
        tracing::info!(name = %"http", kind = %"http", address = %bound, "listening");
        if let Some(address) = config.registration.address.filter(|_| config.registration.enabled) {
            let bound = http::serve_registration(address, api)
                .with_context(|| format!("devices can't register on {address}"))?;
            tracing::info!(name = %"registration", kind = %"http", address = %bound, "listening");
        }
    }
    forget(control.clone(), Arc::clone(guarded), Arc::clone(registrar)).context("a thread can't be started")?;
    sys::start(control, config.sys_interval).context("a thread can't be started")
}

/// The gate with limits and a guard around it, whose events go into the log and into the audit.
fn guarded(config: &Config, gate: &Arc<Gatekeeper>, audit: &AuditSink) -> Guarded<Gatekeeper> {
    let quotas = Arc::new(Quotas::new(config.rates.clone(), quota::Sizes::default()));
    let guard = Arc::new(Guard::new(config.guard.clone(), guard::Sizes::default()));
    let audit = audit.clone();
    let tell = Box::new(move |event: SecurityEvent| audit.record_security(&event));
    Guarded::new(Arc::clone(gate), quotas, guard, claimed_by_user_name, tell)
}

/// Has limits and guard forget what is over, on a thread of its own, until the process ends.
fn forget(control: Control, guarded: Arc<Guarded<Gatekeeper>>, registrar: Arc<Registrar>) -> std::io::Result<()> {
    let sweep = move || {
        loop {
            std::thread::sleep(SWEEP_INTERVAL);
            guarded.quotas().sweep(control.now());
            guarded.guard().sweep(control.now());
            registrar.sweep(control.now());
        }
    };
    std::thread::Builder::new().name("sweep".to_owned()).spawn(sweep).map(drop)
}

fn open_store(config: &Config) -> anyhow::Result<Box<dyn Store>> {
    Ok(match config.engine {
        Engine::Memory => Box::new(MemoryStore::new()),
        Engine::Embedded => {
            let options = Options { free_bytes_min: config.free_bytes_min, ..Options::default() };
            Box::new(EmbeddedStore::open(config.data.join("store"), options)?)
        }
    })
}

/// The gate with the nonces that were used before this start, and a place for those to come.
fn keep_nonces(gate: Gatekeeper, config: &Config) -> anyhow::Result<Gatekeeper> {
    // Nobody has come in, so on the clock that never goes back it is the beginning.
    let unix_ms = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as u64);
    let now = Now { mono_ms: 0, unix_ms };
    let (files, records) = NonceFiles::open(&config.data, unix_ms)
        .with_context(|| format!("used nonces can't be kept in {}", config.data.display()))?;
    let restored = gate.restore_nonces(records, now);
    if restored.lost > 0 {
        let lost = restored.lost;
        tracing::warn!(lost, "nonces_max is too low for what was used before; these passwords could be used once more");
    }
    Ok(gate.keeping_nonces(Box::new(files)))
}

/// The development certificate, if a TLS listener names none of its own.
fn development(config: &Config) -> anyhow::Result<Option<pki::Development>> {
    let wanted = config.listeners.iter().any(|listener| listener.kind.is_tls() && listener.tls.is_none());
    let made = wanted.then(|| pki::development(&config.data)).transpose();
    made.with_context(|| format!("no development certificate can be made in {}", config.data.join("pki").display()))
}

/// The data plane, and a record of the registry that could not be read, if there is one.
fn start(
    config: &Config,
    development: Option<&pki::Development>,
    (gate, registrar): (&Arc<Guarded<Gatekeeper>>, &Arc<Registrar>),
    (store, asker): (Box<dyn Store>, Option<Arc<dyn Asker>>),
) -> anyhow::Result<(Server, Option<RecordError>)> {
    let (registry, registrar) = (Arc::clone(gate.gate().registry()), Arc::clone(registrar));
    let damaged = Arc::new(std::sync::OnceLock::new());
    let found = Arc::clone(&damaged);
    let certificate = development.map(|development| &development.server);
    let server = Server::start(ServerParts {
        listeners: config.listeners.iter().map(|listener| listener.settings(certificate)).collect(),
        limits: config.limits.clone(),
        transport: config.transport,
        commit: config.commit,
        shards: config.shards,
        gate: Arc::clone(gate),
        store,
        asker,
        registry: Box::new(move |key, value| {
            let loaded = match presale::is_record(key) {
                true => registrar.load(key, value),
                false => registry.load(key, value),
            };
            if let Err(error) = loaded {
                let _ = found.set(error);
            }
        }),
    })?;
    Ok((server, damaged.get().cloned()))
}

/// Goes on removing the devices of products whose deletion a crash has interrupted.
fn sweep(control: &Control, gate: &Gatekeeper) {
    let registry = gate.registry();
    for product in registry.swept_products() {
        loop {
            let changes = registry.plan_sweep(&product, 1000);
            let committed = control.commit_registry(changes.iter().map(Change::op).collect());
            if changes.is_empty() || committed.blocking_recv().is_err() {
                break;
            }
            changes.into_iter().for_each(|change| registry.apply(change));
        }
    }
}

/// The same for packages: their keys and lists.
fn sweep_packages(control: &Control, registrar: &Registrar) {
    let commit = |changes: Vec<presale::Change>| {
        let committed = control.commit_registry(changes.iter().map(presale::Change::op).collect());
        let is_committed = committed.blocking_recv().is_ok();
        if is_committed {
            registrar.apply(changes);
        }
        is_committed
    };
    let left = registrar.book().swept_packages();
    for (product, package) in left {
        let mut sweep = Sweep::new(product, package);
        let mut next = || {
            let book = registrar.book();
            sweep.step(&book, 1000)
        };
        while let Some(changes) = next() {
            if !changes.is_empty() && !commit(changes) {
                break;
            }
        }
    }
}

/// The demo device, once in the life of a store.
fn provision_demo(control: &Control, gate: &Gatekeeper, audit: &AuditSink) {
    let registry = gate.registry();
    let changes = provision::demo(registry, gate.master_key(), now_s());
    if changes.is_empty() {
        return;
    }
    for described in describe(registry, &changes) {
        described.tell(now_ms(), (Subject::Broker, None), Outcome::Accepted, |event| audit.record(event));
    }
    let committed = control.commit_registry(changes.iter().map(Change::op).collect());
    match committed.blocking_recv() {
        Ok(()) => changes.into_iter().for_each(|change| registry.apply(change)),
        Err(_) => tracing::warn!("the demo device could not be stored"),
    }
}

fn now_s() -> u64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs())
}

/// Lines to paste, for whoever starts a broker by hand. Not in the log: they have a password in them.
#[allow(clippy::print_stdout, reason = "it is for the person at the terminal")]
fn tell_demo(config: &Config, server: &Server, development: Option<&pki::Development>, gate: &Gatekeeper) {
    use std::io::IsTerminal;
    let is_default = config.listeners == Config::default().listeners;
    if !is_default && !std::io::stdout().is_terminal() {
        return;
    }
    let address = |kind: Kind| {
        let index = config.listeners.iter().position(|listener| listener.kind == kind && !listener.proxy_protocol)?;
        server.addresses().get(index).map(|(_, address)| *address)
    };
    let tls: Option<(_, &Path)> = address(Kind::Mqtts).zip(development.map(|development| development.ca.as_path()));
    if let Some(lines) = provision::demo_lines(gate.registry(), gate.master_key(), address(Kind::Mqtt), tls) {
        println!("A demo device is registered. To listen and to publish:\n\n{lines}");
        let token = config.data.join("admin-token");
        if config.http.is_some() && token.exists() {
            println!("The HTTP API's token is in {}.", token.display());
        }
    }
}

fn warn(config: &Config) {
    for Fault { key, message } in config.warnings() {
        tracing::warn!(key, "{message}");
    }
}

/// What the API needs of the audit.
fn auditing(config: &Config, gate: &Gatekeeper, audit: &Audit) -> Auditing {
    Auditing { sink: audit.sink(), key: ChainKey::new(gate.master_key()), required: config.audit.required }
}

/// Reads configuration and certificates again, and puts on record that it was asked to.
fn reload(options: &Serve, running: &Config, control: &Control, guarded: &Guarded<Gatekeeper>, audit: &AuditSink) {
    let (outcome, restart) = match reload_all(options, running, control, guarded) {
        Some(restart_needed) => (Outcome::Ok, restart_needed),
        None => (Outcome::Failed("faults"), false),
    };
    let details = [(Key::RestartNeeded, Value::Flag(restart))];
    audit.record(&Event { outcome, ..Event::own(now_ms(), Action::ConfigReload, &details) });
}

/// If anything is wrong, everything stays as it is, and nothing is said. Else whether some of what has changed needs a restart.
fn reload_all(options: &Serve, running: &Config, control: &Control, guarded: &Guarded<Gatekeeper>) -> Option<bool> {
    let config = match options.configure() {
        Ok(config) => config,
        Err(Faults { file, faults }) => {
            for Fault { key, message } in faults {
                tracing::error!(file = %file.display(), key, "not reloaded: {message}");
            }
            return None;
        }
    };
    warn(&config);
    let development = match development(&config) {
        Ok(development) => development,
        Err(error) => {
            tracing::error!("not reloaded: {error:#}");
            return None;
        }
    };
    let certificate = development.as_ref().map(|development| &development.server);
    let listeners: Vec<_> = config.listeners.iter().map(|listener| listener.settings(certificate)).collect();
    match control.reload(&listeners, config.limits.clone(), config.transport) {
        Ok(listeners) => {
            guarded.quotas().set(config.rates.clone());
            guarded.guard().set(config.guard.clone());
            control.remeter();
            let keys = config.restart_needed(running);
            if listeners.is_empty() && keys.is_empty() {
                tracing::info!("reloaded");
                return Some(false);
            }
            let (listeners, keys) = (listeners.join(", "), keys.join(", "));
            tracing::warn!(listeners, keys, "reloaded; some of what has changed needs a restart");
            Some(true)
        }
        Err(faults) => {
            faults.iter().for_each(|fault| tracing::error!("not reloaded: {fault}"));
            None
        }
    }
}
