//! From a configuration to a running broker, and to its end.

mod auditing;
mod bans;
mod chores;
mod clouds;
mod folder;
mod keys;
mod mark;
mod reload;
mod upkeep;
mod watch;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::Context;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;
use turnpike_authz::Gatekeeper;
use turnpike_authz::audit::{Action, Event};
use turnpike_authz::callout::Callout;
use turnpike_authz::gate::Witness;
use turnpike_authz::guard::{self, Guard, KeptBan, SecurityEvent};
use turnpike_authz::guarded::{Guarded, claimed_by_user_name};
use turnpike_authz::people::People;
use turnpike_authz::platform::{self, Platforms};
use turnpike_authz::presale;
use turnpike_authz::quota::{self, Quotas};
use turnpike_authz::registry::{RecordError, Registry};
use turnpike_authz::secret::MasterKey;
use turnpike_backfill::ledger::{self, LedgerError};
use turnpike_core::clock::Now;
use turnpike_core::concern::Concern;
use turnpike_core::gate::Gate;
use turnpike_store::Store;
use turnpike_store::embedded::{EmbeddedStore, Options};
use turnpike_store::memory::MemoryStore;

use self::chores::Chores;
use self::clouds::Clouds;
use self::reload::Doors;
use self::upkeep::Upkeep;
use crate::asker::Asker;
use crate::audit::{Audit, AuditSink, now_ms};
use crate::backfill::Backfill;
use crate::callout::Caller;
use crate::cli::Serve;
use crate::commands::CommandDesk;
use crate::config::{Config, Engine, Fault, Kind};
use crate::desks::{DeskWitness, Desks};
use crate::erasure::Eraser;
use crate::http::platform::Book;
use crate::http::{self, Api, ApiParts, Changing, Connects, Questions};
use crate::nonces::NonceFiles;
use crate::ota::OtaDesk;
use crate::registrar::Registrar;
use crate::server::{Control, Server, ServerParts};
use crate::{descriptors, pki, provision, sys};

/// How long a start waits for the registry's own affairs before it goes on without.
const CHORES_WAIT: Duration = Duration::from_secs(2);
/// How long the audit's last records may take to reach the disk.
const AUDIT_TIME_MAX: Duration = Duration::from_secs(5);
/// Between two rounds in which what is over is forgotten.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// Serves until SIGTERM or SIGINT; reloads on SIGHUP. Says whether everything ended in good order.
///
/// # Errors
/// Whatever keeps the broker from starting.
pub fn serve(options: &Serve, config: &Config) -> anyhow::Result<bool> {
    warn(config);
    folder::keep_to_ourselves();
    folder::prepare(&config.data)
        .with_context(|| format!("the data folder {} can't be made", config.data.display()))?;
    // Before anything is open, so that a signal during the start isn't lost.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).context("signals can't be handled")?;
    // Until somebody is let in there is nothing to put down: whatever the start is at (a large store, a slow disk), it ends at once.
    let starting = Arc::new(AtomicBool::new(true));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register_conditional_shutdown(signal, 0, Arc::clone(&starting))
            .context("signals can't be handled")?;
    }
    // A limit on file sizes is a failed write to us, not the end.
    signal_hook::flag::register(SIGXFSZ, Arc::default()).context("signals can't be handled")?;
    let store = open_store(config)?;
    let provision::FoundKey { key, made } = provision::master_key(&config.data, config.master_key_file.as_deref())?;
    let token = config.http.map(|_| provision::admin_token(&config.data)).transpose()?;
    made.check(auditing::is_there(config)?)?;
    let audit = auditing::start(config, &key)?;
    let sink = audit.sink();
    let registry = Arc::new(Registry::new());
    let registrar = Arc::new(Registrar::new(config.registration.clone(), config.rates.exempt.clone()));
    let clouds = Arc::new(Clouds::prepare(config, key.clone())?);
    let desks = Desks {
        backfill: config.backfill.enabled.then(|| Arc::new(Backfill::new(config.backfill.clone()))),
        ota: firmware(config, &key)?,
        commands: commands(config)?,
    };
    let people = Arc::new(People::new());
    // Before anybody is let in: what has ended by now counts for nothing.
    let _ = people.advance(now_ms() / 1000, 0);
    let gate = Gatekeeper::new(Arc::clone(&registry), key, config.nonces_max).with_people(people);
    let gate = gate.with_platforms(Arc::clone(&clouds.platforms));
    let (gate, asker) = call_out(gate, config, &sink)?;
    let gate = match provision::platform_key(&config.data)? {
        Some(key) => gate.unwrapping_with(key),
        None => gate,
    };
    let downloads = desks.ota.clone();
    let gate = match witness(&desks, clouds.witness(&audit)) {
        Some(witness) => gate.witnessed_by(witness),
        None => gate,
    };
    let gate = gate.with_desks(desks.open());
    let gate = Arc::new(if config.anonymous { gate.open_to_all() } else { keep_nonces(gate, config)? });
    let development = development(config)?;
    let steering = Arc::new(std::sync::OnceLock::new());
    let guarded = Arc::new(guarded(config, &gate, &sink, Arc::clone(&steering)));
    let (connects, questions) = Connects::new(asker);
    let parts = (store, Arc::new(connects) as Arc<dyn Asker>);
    let mark = mark::Found::default();
    let bans = bans::Found::default();
    let loaders = Loaders {
        registrar: Arc::clone(&registrar),
        platforms: Arc::clone(&clouds.platforms),
        mark: mark.clone(),
        bans: bans.clone(),
        desks: desks.clone(),
    };
    let (server, damaged) = start(config, development.as_ref(), &guarded, loaders, parts)?;
    // Nobody else sets it.
    let _ = steering.set(server.control());
    starting.store(false, Relaxed);
    // From here on there is something to put down in good order, whatever goes wrong.
    let own = Own {
        made,
        token,
        damaged,
        development,
        registrar,
        clouds: Arc::clone(&clouds),
        desks,
        questions,
        mark,
        bans,
        demo: options.config.is_none(),
    };
    let keeper = match open(config, &server, &guarded, &audit, own) {
        Ok(keeper) => keeper,
        Err(error) => {
            server.drain(config.drain_timeout);
            audit.finish(AUDIT_TIME_MAX);
            return Err(error);
        }
    };
    tracing::info!(data = %config.data.display(), shards = config.shards, anonymous = config.anonymous, "serving");
    for signal in &mut signals {
        match signal {
            SIGHUP => {
                let doors = Doors { clouds: &clouds, ota: downloads.as_deref() };
                reload::run(options, config, &server.control(), &guarded, (&sink, doors));
            }
            _ => break,
        }
    }
    tracing::info!("draining");
    keeper.iter().for_each(|keeper| keeper.keep_last());
    let whole = server.drain(config.drain_timeout);
    sink.record(&Event::own(now_ms(), Action::BrokerStop, &[]));
    let audited = audit.finish(AUDIT_TIME_MAX);
    tracing::info!(whole, audited, "ended");
    Ok(whole)
}

/// What a start has found or made.
struct Own {
    made: provision::MadeKey,
    /// The administrator's. None where there is no HTTP API.
    token: Option<String>,
    /// A record of the registry that can't be read.
    damaged: Option<RecordError>,
    development: Option<pki::Development>,
    registrar: Arc<Registrar>,
    clouds: Arc<Clouds>,
    /// Who is handed messages of devices.
    desks: Desks,
    /// Registrations by CONNECT. Where nobody takes them, they are answered so.
    questions: Questions,
    /// What the store knew of the audit.
    mark: mark::Found,
    /// Bans by hand that it knew.
    bans: bans::Found,
    /// Somebody looks around: whoever has a configuration has devices of their own.
    demo: bool,
}

/// What comes after the data plane: the audit's mark in the store, which this gives, the registry's own affairs, the addresses, the HTTP API, `$SYS`.
fn open(
    config: &Config,
    server: &Server,
    guarded: &Arc<Guarded<Gatekeeper>>,
    audit: &Audit,
    own: Own,
) -> anyhow::Result<Option<Arc<mark::Keeper>>> {
    let (control, gate) = (server.control(), guarded.gate());
    if let Some(error) = own.damaged {
        return Err(error).context("the registry can't be read");
    }
    own.made.keep(gate.registry().any_device().is_some() || gate.people().has_secrets())?;
    gate.check_key().context("the registry was sealed under another master key")?;
    let keeper = auditing::begin(gate, audit, &control, &own.mark).context("a thread can't be started")?;
    own.bans.enforce(guarded, &control);
    // Sessions that began before this get their meters now.
    gate.registry().followed().iter().for_each(|change| guarded.follow(change));
    control.remeter();
    for (listener, (name, address)) in config.listeners.iter().zip(server.addresses()) {
        tracing::info!(%name, kind = %listener.kind.as_str(), %address, "listening");
    }
    if let Some(backfill) = &own.desks.backfill {
        start_backfill(backfill, &control, audit, (gate, config)).context("a thread can't be started")?;
    }
    let (changing, registrar) = (Changing::default(), own.registrar);
    let chores = Chores {
        control: control.clone(),
        gate: Arc::clone(gate),
        registrar: Arc::clone(&registrar),
        changing: Arc::clone(&changing),
        audit: audit.sink(),
        demo: own.demo,
    };
    let book = Book::new(Arc::clone(&own.clouds.platforms), control.clone());
    let opening = begin_chores(config, server, chores, own.development)?;
    let eraser = Eraser::new(control.clone(), Arc::clone(guarded), Arc::clone(&changing), audit.sink());
    let upkeep = Upkeep {
        control: control.clone(),
        guarded: Arc::clone(guarded),
        changing: Arc::clone(&changing),
        audit: audit.sink(),
        eraser: eraser.clone(),
    };
    upkeep.start().context("a thread can't be started")?;
    own.clouds.open(config, guarded, audit, &book)?;
    if let Some(commands) = &own.desks.commands {
        commands.start(&control, gate.registry(), audit.sink()).context("commands can't be followed")?;
    }
    if let Some(ota) = &own.desks.ota {
        let bound = ota
            .start(&control, gate.registry(), audit.sink(), has_strangers(config))
            .context("firmware can't go out")?;
        if let Some(address) = bound {
            let kind = if ota.settings().tls.is_some() { "https" } else { "http" };
            tracing::info!(name = %"ota", kind = %kind, %address, "listening");
        }
    }
    if let Some((address, token)) = config.http.zip(own.token) {
        let api = Api::new(ApiParts {
            control: control.clone(),
            guarded: Arc::clone(guarded),
            token: &token,
            changing,
            auditing: auditing::of_api(config, gate, audit),
            registrar: Arc::clone(&registrar),
            desks: own.desks,
            book,
            eraser,
        });
        let bound = http::serve(address, api.clone(), own.questions)
            .with_context(|| format!("the HTTP API can't listen on {address}"))?;
        tracing::info!(name = %"http", kind = %"http", address = %bound, "listening");
        if let Some(address) = config.registration.address.filter(|_| config.registration.enabled) {
            let bound = http::serve_registration(address, api)
                .with_context(|| format!("devices can't register on {address}"))?;
            tracing::info!(name = %"registration", kind = %"http", address = %bound, "listening");
        }
    }
    // Kept until here: now there is all that the lines for the terminal speak of.
    drop(opening);
    forget(control.clone(), Arc::clone(guarded), registrar).context("a thread can't be started")?;
    watch(control.clone(), Arc::clone(gate), audit.sink()).context("a thread can't be started")?;
    sys::start(control, config.sys_interval).context("a thread can't be started")?;
    Ok(keeper)
}

/// Whether devices that only the call-out knows are in no registry, and are there all the same.
fn has_strangers(config: &Config) -> bool {
    config.callout.as_ref().is_some_and(|callout| callout.bounds.strangers)
}

/// Begins to take stored data in. What devices handed in that are no more is forgotten, now and when they go.
fn start_backfill(
    backfill: &Arc<Backfill>,
    control: &Control,
    audit: &Audit,
    (gate, config): (&Arc<Gatekeeper>, &Config),
) -> std::io::Result<()> {
    let strangers = has_strangers(config);
    backfill.start(control, audit.sink(), &|device| !strangers && gate.is_gone(device))?;
    let backfill = Arc::clone(backfill);
    control.when_gone(move |concern| backfill.forget(concern));
    Ok(())
}

/// A record of a device's ledger. Where nothing is taken in, it stays in the store.
fn load_ledger(backfill: Option<&Backfill>, key: &[u8], value: &[u8]) -> Result<(), RecordError> {
    let Some(backfill) = backfill else { return Ok(()) };
    backfill.load(key, value).map_err(|error| match error {
        LedgerError::Layout(layout) => RecordError::Layout(layout),
        LedgerError::Damaged(of) => RecordError::Damaged(of),
        LedgerError::Full(_) => RecordError::Foreign(format!("{error}: raise backfill.devices_max")),
    })
}

/// Who sends firmware out, if anybody is to.
fn firmware(config: &Config, key: &MasterKey) -> anyhow::Result<Option<Arc<OtaDesk>>> {
    let Some(settings) = &config.ota else { return Ok(None) };
    let folder = settings.folder.clone().unwrap_or_else(|| config.data.join("firmware"));
    let desk = OtaDesk::new(settings.clone(), folder.clone(), key);
    desk.map(Some).with_context(|| format!("the folder {} can't be made, or the bucket not be used", folder.display()))
}

/// Who follows commands and keeps logs, if anybody is to.
fn commands(config: &Config) -> anyhow::Result<Option<Arc<CommandDesk>>> {
    let Some(settings) = &config.commands else { return Ok(None) };
    let folder = settings.folder.clone().unwrap_or_else(|| config.data.join("logs"));
    let desk = CommandDesk::new(settings.clone(), folder.clone());
    desk.map(Some).with_context(|| format!("the folder {} can't be made", folder.display()))
}

/// Who hears of log-ins, and before them the desks that are to.
fn witness(desks: &Desks, then: Option<Box<dyn Witness>>) -> Option<Box<dyn Witness>> {
    match desks.ota.is_some() || desks.commands.is_some() {
        true => Some(Box::new(DeskWitness { desks: desks.clone(), then })),
        false => then,
    }
}

/// The gate with its call-out, and who makes the calls; as it is, if there is none.
fn call_out(
    gate: Gatekeeper,
    config: &Config,
    audit: &AuditSink,
) -> anyhow::Result<(Gatekeeper, Option<Arc<dyn Asker>>)> {
    let Some(settings) = &config.callout else { return Ok((gate, None)) };
    let callout = Arc::new(Callout::new(settings.bounds.clone(), provision::random()));
    let caller = Caller::start(settings, Arc::clone(&callout), audit.clone()).context("nobody can be called out to")?;
    Ok((gate.calling_out(callout), Some(Arc::new(caller))))
}

/// Has the registry's own affairs done, on a thread of their own: the store may be in no state to take anything, for as long as it likes.
/// Waits a moment, so that the demo device is there when the broker says that it is ready. When what it gives is dropped, lines for the
/// terminal follow.
fn begin_chores(
    config: &Config,
    server: &Server,
    chores: Chores,
    development: Option<pki::Development>,
) -> anyhow::Result<Sender<()>> {
    let (opening, opened) = channel::<()>();
    let (finish, finished) = channel::<()>();
    let (config, addresses) = (config.clone(), server.addresses().to_vec());
    let work = move || {
        chores.run();
        drop(finish);
        // Nothing is ever sent: it ends when the other side goes.
        let _ = opened.recv();
        tell_demo(&config, &addresses, development.as_ref(), &chores.gate);
    };
    std::thread::Builder::new().name("chores".to_owned()).spawn(work).context("a thread can't be started")?;
    if finished.recv_timeout(CHORES_WAIT) == Err(RecvTimeoutError::Timeout) {
        tracing::warn!("the store is slow or fails; the demo device and what is left to delete have to wait for it");
    }
    Ok(opening)
}

/// The gate with limits and a guard around it, whose events go into the log and into the audit. `steering` is there once the shards are.
fn guarded(
    config: &Config,
    gate: &Arc<Gatekeeper>,
    audit: &AuditSink,
    steering: Arc<std::sync::OnceLock<Control>>,
) -> Guarded<Gatekeeper> {
    let quotas = Arc::new(Quotas::new(config.rates.clone(), quota::Sizes::default()));
    let guard = Arc::new(Guard::new(config.guard.clone(), guard::Sizes::default()));
    let audit = audit.clone();
    let tell = Box::new(move |event: SecurityEvent| {
        audit.record_security(&event);
        // Whoever is refused from now on is closed, too: the gate says no to what it has open when it is asked again.
        if let (Some(identity), Some(control)) = (event.bars(), steering.get()) {
            let (product, name) = (&*identity.product, &*identity.name);
            let concerns = [Concern::device(product, name), Concern::user(product, name), Concern::service(name)];
            concerns.iter().for_each(|concern| control.judge_again(concern));
        }
    });
    Guarded::new(Arc::clone(gate), quotas, guard, claimed_by_user_name, tell)
}

/// Has limits and guard forget what is over, on a thread of its own, until the process ends.
fn forget(control: Control, guarded: Arc<Guarded<Gatekeeper>>, registrar: Arc<Registrar>) -> std::io::Result<()> {
    let sweep = move || {
        loop {
            std::thread::sleep(SWEEP_INTERVAL);
            guarded.quotas().sweep(control.now());
            guarded.guard().sweep(control.now());
            if let Some(callout) = guarded.gate().callout() {
                callout.sweep(control.now());
            }
            registrar.sweep(control.now());
        }
    };
    std::thread::Builder::new().name("sweep".to_owned()).spawn(sweep).map(drop)
}

/// Has the log and the audit say when used nonces find no room, on a thread of its own, until the process ends.
fn watch(control: Control, gate: Arc<Gatekeeper>, audit: AuditSink) -> std::io::Result<()> {
    let look = move || {
        let mut watch = watch::Watch::default();
        loop {
            std::thread::sleep(watch::INTERVAL);
            watch.look(&gate, &audit, control.now().mono_ms, Instant::now());
        }
    };
    std::thread::Builder::new().name("watch".to_owned()).spawn(look).map(drop)
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

/// Who takes records of the store back.
struct Loaders {
    registrar: Arc<Registrar>,
    platforms: Arc<Platforms>,
    mark: mark::Found,
    bans: bans::Found,
    desks: Desks,
}

/// The data plane, and a record of the registry that could not be read, if there is one.
fn start(
    config: &Config,
    development: Option<&pki::Development>,
    gate: &Arc<Guarded<Gatekeeper>>,
    loaders: Loaders,
    (store, asker): (Box<dyn Store>, Arc<dyn Asker>),
) -> anyhow::Result<(Server, Option<RecordError>)> {
    let (registry, people) = (Arc::clone(gate.gate().registry()), Arc::clone(gate.gate().people()));
    let Loaders { registrar, platforms, mark, bans, desks } = loaders;
    let loading = desks.clone();
    let damaged = Arc::new(std::sync::OnceLock::new());
    let found = Arc::clone(&damaged);
    let certificate = development.map(|development| &development.server);
    let limit = descriptors::limit();
    let server = Server::start(ServerParts {
        listeners: config.listeners.iter().map(|listener| listener.settings(certificate)).collect(),
        limits: descriptors::fitted(&config.limits, limit),
        first_descriptor_kept: descriptors::first_kept_back(limit),
        transport: config.transport,
        commit: config.commit,
        shards: config.shards,
        gate: Arc::clone(gate),
        store,
        asker: Some(asker),
        desk: Some(Arc::new(desks)),
        registry: Box::new(move |key, value| {
            let loaded = match () {
                () if mark.load(key, value) => Ok(()),
                () if KeptBan::is_record(key) => bans.load(key, value),
                () if presale::is_record(key) => registrar.load(key, value),
                () if People::is_record(key) => people.load(key, value),
                () if platform::is_ours(key) => platforms.load(key, value),
                () if ledger::is_record(key) => load_ledger(loading.backfill.as_deref(), key, value),
                // Where a desk isn't open, what is known there stays as it is.
                () if CommandDesk::is_record(key) => {
                    loading.commands.as_ref().map_or(Ok(()), |desk| desk.load(key, value))
                }
                () if OtaDesk::is_record(key) => loading.ota.as_ref().map_or(Ok(()), |ota| ota.load(key, value)),
                () => registry.load(key, value),
            };
            if let Err(error) = loaded {
                let _ = found.set(error);
            }
        }),
    })?;
    Ok((server, damaged.get().cloned()))
}

/// Lines to paste, for whoever starts a broker by hand. Not in the log: they have a password in them.
#[allow(clippy::print_stdout, reason = "it is for the person at the terminal")]
fn tell_demo(
    config: &Config,
    addresses: &[(String, SocketAddr)],
    development: Option<&pki::Development>,
    gate: &Gatekeeper,
) {
    use std::io::IsTerminal;
    let is_default = config.listeners == Config::default().listeners;
    if !is_default && !std::io::stdout().is_terminal() {
        return;
    }
    let address = |kind: Kind| {
        let index = config.listeners.iter().position(|listener| listener.kind == kind && !listener.proxy_protocol)?;
        addresses.get(index).map(|(_, address)| *address)
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
