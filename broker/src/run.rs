//! From a configuration to a running broker, and to its end.

use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;
use turnpike_authz::Gatekeeper;
use turnpike_authz::plan::Change;
use turnpike_authz::registry::{RecordError, Registry};
use turnpike_store::Store;
use turnpike_store::embedded::{EmbeddedStore, Options};
use turnpike_store::memory::MemoryStore;

use crate::cli::Serve;
use crate::config::{Config, Engine, Fault, Faults, Kind};
use crate::http::{self, Api};
use crate::server::{Control, Server, ServerParts};
use crate::{pki, provision, sys};

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
    let provision::FoundKey { key, made } = provision::master_key(&config.data, config.master_key_file.as_deref())?;
    let token = config.http.map(|_| provision::admin_token(&config.data)).transpose()?;
    let registry = Arc::new(Registry::new());
    let gate = Gatekeeper::new(Arc::clone(&registry), key, config.nonces_max);
    let gate = Arc::new(if config.anonymous { gate.open_to_all() } else { gate });
    let development = development(config)?;
    let (server, damaged) = start(config, development.as_ref(), &gate, store)?;
    // From here on there is something to put down in good order, whatever goes wrong.
    if let Err(error) = open(config, &server, &gate, Secrets { made, token }, damaged) {
        server.drain(config.drain_timeout);
        return Err(error);
    }
    tell_demo(config, &server, development.as_ref(), &gate);
    tracing::info!(data = %config.data.display(), shards = config.shards, anonymous = config.anonymous, "serving");
    for signal in &mut signals {
        match signal {
            SIGHUP => reload(options, config, &server.control()),
            _ => break,
        }
    }
    tracing::info!("draining");
    let whole = server.drain(config.drain_timeout);
    tracing::info!(whole, "ended");
    Ok(whole)
}

/// The broker's own, as they were found before anything was opened.
struct Secrets {
    made: provision::MadeKey,
    /// None where there is no HTTP API.
    token: Option<String>,
}

/// What comes after the data plane: the registry's own affairs, the addresses, the HTTP API, `$SYS`.
fn open(
    config: &Config,
    server: &Server,
    gate: &Arc<Gatekeeper>,
    secrets: Secrets,
    damaged: Option<RecordError>,
) -> anyhow::Result<()> {
    let control = server.control();
    if let Some(error) = damaged {
        return Err(error).context("the registry can't be read");
    }
    secrets.made.keep(gate.registry().any_device().is_some())?;
    gate.check_key().context("the registry was sealed under another master key")?;
    sweep(&control, gate);
    provision_demo(&control, gate);
    for (listener, (name, address)) in config.listeners.iter().zip(server.addresses()) {
        tracing::info!(%name, kind = %listener.kind.as_str(), %address, "listening");
    }
    if let Some((address, token)) = config.http.zip(secrets.token) {
        let bound = http::serve(address, Api::new(control.clone(), Arc::clone(gate), &token))
            .with_context(|| format!("the HTTP API can't listen on {address}"))?;
        tracing::info!(name = %"http", kind = %"http", address = %bound, "listening");
    }
    sys::start(control, config.sys_interval).context("a thread can't be started")
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
    gate: &Arc<Gatekeeper>,
    store: Box<dyn Store>,
) -> anyhow::Result<(Server, Option<RecordError>)> {
    let registry = Arc::clone(gate.registry());
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
        registry: Box::new(move |key, value| {
            if let Err(error) = registry.load(key, value) {
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

/// The demo device, once in the life of a store.
fn provision_demo(control: &Control, gate: &Gatekeeper) {
    let registry = gate.registry();
    let changes = provision::demo(registry, gate.master_key(), now_s());
    if changes.is_empty() {
        return;
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

/// Reads configuration and certificates again. If anything is wrong, everything stays as it is.
fn reload(options: &Serve, running: &Config, control: &Control) {
    let config = match options.configure() {
        Ok(config) => config,
        Err(Faults { file, faults }) => {
            for Fault { key, message } in faults {
                tracing::error!(file = %file.display(), key, "not reloaded: {message}");
            }
            return;
        }
    };
    warn(&config);
    let development = match development(&config) {
        Ok(development) => development,
        Err(error) => return tracing::error!("not reloaded: {}", told(&error)),
    };
    let certificate = development.as_ref().map(|development| &development.server);
    let listeners: Vec<_> = config.listeners.iter().map(|listener| listener.settings(certificate)).collect();
    match control.reload(&listeners, config.limits.clone(), config.transport) {
        Ok(listeners) => {
            let keys = config.restart_needed(running);
            if listeners.is_empty() && keys.is_empty() {
                return tracing::info!("reloaded");
            }
            let (listeners, keys) = (listeners.join(", "), keys.join(", "));
            tracing::warn!(listeners, keys, "reloaded; some of what has changed needs a restart");
        }
        Err(faults) => faults.iter().for_each(|fault| tracing::error!("not reloaded: {fault}")),
    }
}

/// An error and its causes in one line. A cause that the text before it ends with already isn't said twice.
#[must_use]
pub fn told(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |text, cause| {
        let cause = cause.to_string();
        match text.as_str() {
            "" => cause,
            before if before.ends_with(&cause) => text,
            before => format!("{before}: {cause}"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_with_its_causes_and_none_twice() {
        let taken = || std::io::Error::other("taken");
        let bind = crate::listener::BindError {
            name: "mqtt".to_owned(),
            address: ([127, 0, 0, 1], 1883).into(),
            source: taken(),
        };
        let bind = anyhow::Error::new(bind).context("it can't start");
        assert_eq!(told(&bind), "it can't start: listener `mqtt`: can't listen on 127.0.0.1:1883: taken");
        assert_eq!(told(&anyhow::Error::new(taken()).context("http")), "http: taken");
    }
}
