//! Commands for devices, followed to their end, and the logs that devices send.
//!
//! ```text
//! HTTP API ─ plan, commit, apply ─▶ State (book of commands) ─▶ thread `commands`: is the device there? ─▶ shards ─▶ `…/sys/cmd`
//!                                       ▲            └─▶ records, in the order of the changes ─▶ store
//! shard ─▶ take (`…/sys/cmd/reply`), came ────┘
//!   └────▶ take (`…/sys/log`) ─▶ thread `logs`: Logs (chunks, shelf) ─▶ file ─▶ record ─▶ `…/sys/log/ack`
//! ```
//!
//! `turnpike_ota::command` decides; `../../ota/DESIGN.md` has the invariants. All that is decided is decided under one lock, and handed to the committer under it, so
//! that records are committed in the order of what they record. Nothing waits under it.
//!
//! **Invariant:** what the API has answered is on disk, and so is what a device's answer has changed before the answer is acknowledged.

mod files;
mod logs;
mod replies;
mod sending;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use turnpike_authz::audit::{Action, Event, Key, Outcome, Subject, Value};
use turnpike_authz::desk::Matter;
use turnpike_authz::names::{DeviceName, ProductKey};
use turnpike_authz::registry::{RecordError, Registry};
use turnpike_core::concern::Concern;
use turnpike_core::durable::Op;
use turnpike_core::gate::{DeviceIdentity, Passage, Principal, Visit};
use turnpike_core::shard::Errand;
use turnpike_mqtt::ReasonCode;
use turnpike_ota::command::{Book, Change, Command, CommandId, State as Stage};
use turnpike_ota::logs::Assembler;
use turnpike_ota::logs::shelf::Shelf;
use turnpike_ota::record;

use crate::audit::{AuditSink, now_ms};
use crate::config::CommandSettings;
use crate::desk::{Done, Shell};
use crate::server::Control;
use files::Files;
use logs::LogWork;
pub use logs::{LogCounts, Logs};

/// Between two looks at what is due.
const STEP_INTERVAL: Duration = Duration::from_millis(100);
/// What one turn takes on.
const AT_ONCE: usize = 1000;

/// What the thread is given.
enum Work {
    Errand(Matter, Box<Errand>, Done),
    /// The device has come.
    Came(ProductKey, DeviceName),
    /// A command was asked for.
    Asked(CommandId),
}

/// What was done.
#[derive(Debug, Default)]
pub struct Counts {
    counts: [AtomicU64; Counted::ALL.len()],
}

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the words say it")]
pub enum Counted {
    Asked,
    Sent,
    Accepted,
    Done,
    Failed,
    Rejected,
    Expired,
    Cancelled,
    ReplyAgain,
    ReplyLate,
    ReplyMalformed,
    ReplyUnknown,
    ReplyToOthers,
    ReplyOutOfPlace,
}

impl Counted {
    const ALL: [(Self, &'static str); 14] = [
        (Self::Asked, "asked"),
        (Self::Sent, "sent"),
        (Self::Accepted, "accepted"),
        (Self::Done, "done"),
        (Self::Failed, "failed"),
        (Self::Rejected, "rejected"),
        (Self::Expired, "expired"),
        (Self::Cancelled, "cancelled"),
        (Self::ReplyAgain, "reply_again"),
        (Self::ReplyLate, "reply_late"),
        (Self::ReplyMalformed, "reply_malformed"),
        (Self::ReplyUnknown, "reply_unknown"),
        (Self::ReplyToOthers, "reply_to_others"),
        (Self::ReplyOutOfPlace, "reply_out_of_place"),
    ];
}

impl Counts {
    fn add(&self, counted: Counted) {
        let at = Counted::ALL.iter().position(|(one, _)| *one == counted);
        if let Some(count) = at.and_then(|at| self.counts.get(at)) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// With the words that tell them apart.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Counted::ALL.iter().zip(&self.counts).map(|((_, word), count)| (*word, count.load(Relaxed)))
    }
}

/// All that is known.
#[derive(Debug)]
pub struct State {
    /// All commands.
    pub book: Book,
}

/// The desk.
pub struct CommandDesk {
    settings: CommandSettings,
    files: Files,
    state: Mutex<State>,
    logs: Mutex<Logs>,
    counts: Counts,
    log_counts: LogCounts,
    work: UnboundedSender<Work>,
    log_work: UnboundedSender<LogWork>,
    beginning: Mutex<Option<(UnboundedReceiver<Work>, UnboundedReceiver<LogWork>)>>,
    shell: OnceLock<Shell>,
}

impl std::fmt::Debug for CommandDesk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CommandDesk").finish_non_exhaustive()
    }
}

impl CommandDesk {
    /// A desk that takes up records, and errands, which wait until it starts. Makes the folder of logs.
    ///
    /// # Errors
    /// The folder can't be made.
    pub fn new(settings: CommandSettings, folder: PathBuf) -> std::io::Result<Arc<Self>> {
        let (work, receiver) = unbounded_channel();
        let (log_work, log_receiver) = unbounded_channel();
        let logs = Logs { assembler: Assembler::new(settings.assembly), shelf: Shelf::new(settings.shelf) };
        Ok(Arc::new(Self {
            files: Files::prepare(folder)?,
            state: Mutex::new(State { book: Book::new(settings.limits) }),
            logs: Mutex::new(logs),
            counts: Counts::default(),
            log_counts: LogCounts::default(),
            work,
            log_work,
            beginning: Mutex::new(Some((receiver, log_receiver))),
            shell: OnceLock::new(),
            settings,
        }))
    }

    /// Whether a record of the store is for this desk.
    #[must_use]
    pub fn is_record(key: &[u8]) -> bool {
        record::is_command(key)
    }

    /// Takes a record of the store back, before the start.
    ///
    /// # Errors
    /// [`RecordError`]: the broker doesn't start on it.
    pub fn load(&self, key: &[u8], value: &[u8]) -> Result<(), RecordError> {
        let change = record::decode(key, value).map_err(|error| match error {
            record::RecordError::Layout(layout) => RecordError::Layout(layout),
            record::RecordError::Damaged(what) => RecordError::Damaged(what),
        })?;
        match change {
            record::Change::Command(change) => self.state.lock().book.apply(change),
            record::Change::Log(change) => self.logs.lock().shelf.apply(change),
            // Not this desk's.
            record::Change::Catalog(_) => {}
        }
        Ok(())
    }

    /// Forgets what is left of devices that are no more, and starts the threads.
    ///
    /// # Errors
    /// The folder of logs can't be read, or a thread not be started.
    pub fn start(
        self: &Arc<Self>,
        control: &Control,
        registry: &Arc<Registry>,
        audit: AuditSink,
    ) -> std::io::Result<()> {
        let Some((work, log_work)) = self.beginning.lock().take() else { return Ok(()) };
        let shell = Shell { control: control.clone(), registry: Arc::clone(registry), audit };
        let shell = self.shell.get_or_init(|| shell);
        self.forget(|product, device| shell.registry.device(product.as_str(), device.as_str()).is_none());
        self.match_files()?;
        let desk = Arc::clone(self);
        control.when_gone(move |concern| desk.gone(concern));
        let desk = Arc::clone(self);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        std::thread::Builder::new().name("commands".to_owned()).spawn(move || runtime.block_on(desk.run(work)))?;
        let desk = Arc::clone(self);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        std::thread::Builder::new()
            .name("logs".to_owned())
            .spawn(move || runtime.block_on(desk.keep_logs(log_work)))?;
        Ok(())
    }

    /// Removes what a crash has left of a log's file without its record, or the other way round.
    fn match_files(&self) -> std::io::Result<()> {
        let mut logs = self.logs.lock();
        let known: BTreeSet<_> = logs.shelf.all().map(|log| log.id).collect();
        let found: BTreeSet<_> = self.files.sweep(|id| known.contains(&id))?.into_iter().collect();
        let lost = logs.shelf.drop_all(|log| !found.contains(&log.id));
        if !lost.is_empty() {
            let folder = self.files.folder().display();
            tracing::warn!(logs = lost.len(), %folder, "logs are gone whose files are");
            self.commit_forgotten(&lost);
        }
        Ok(())
    }

    /// Takes a message of a device. Never waits: how many there are the shards bound.
    pub fn take(&self, matter: Matter, errand: Errand, done: Done) {
        // If the thread is gone it is dropped, which refuses the message.
        if matter == Matter::Log {
            let _ = self.log_work.send(LogWork::Chunk(Box::new(errand), done));
        } else {
            let _ = self.work.send(Work::Errand(matter, Box::new(errand), done));
        }
    }

    /// Hears of comings. Never waits.
    pub fn passed(&self, visit: &Visit<'_>, passage: Passage) {
        let (Some(Principal::Device(identity)), Passage::In) = (visit.principal, passage) else { return };
        // Few devices have any, and often none has.
        if self.state.lock().book.counts() == (0, 0) {
            return;
        }
        if let Some((product, device)) = names(identity)
            && self.state.lock().book.has(&product, &device)
        {
            let _ = self.work.send(Work::Came(product, device));
        }
    }

    /// What was done.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Held for as long as it takes to look something up, or to plan.
    pub fn state(&self) -> parking_lot::MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Commits changes that were planned. The receiver resolves when they are on disk; then they are to be applied.
    #[must_use]
    pub fn commit(&self, changes: &[Change]) -> oneshot::Receiver<()> {
        self.shell().control.commit_registry(changes.iter().map(op).collect())
    }

    /// A command that was asked for is on disk: it goes out, if its device is there. If the device is no more, it is forgotten.
    pub fn asked(&self, id: CommandId, changes: Vec<Change>, product: &ProductKey, device: &DeviceName) {
        self.counts.add(Counted::Asked);
        let mut state = self.state.lock();
        changes.into_iter().for_each(|change| state.book.apply(change));
        drop(state);
        if self.shell().registry.device(product.as_str(), device.as_str()).is_none() {
            return self.forget_device(product, device);
        }
        let _ = self.work.send(Work::Asked(id));
    }

    /// Cancels a command. The receiver resolves when that is on disk.
    ///
    /// # Errors
    /// There is none of that number, or it has ended.
    pub fn cancel(
        &self,
        product: &ProductKey,
        device: &DeviceName,
        id: CommandId,
    ) -> Result<oneshot::Receiver<()>, turnpike_ota::command::CommandError> {
        let now = self.shell().control.now();
        let mut state = self.state.lock();
        let changes = state.book.cancel(product, device, id, now.unix_ms)?;
        self.counts.add(Counted::Cancelled);
        Ok(self.commit(&changes))
    }

    /// Devices are no more: nothing is left of them.
    fn gone(&self, concern: &Concern) {
        match concern {
            Concern::Principal(Principal::Device(identity)) => {
                names(identity).into_iter().for_each(|(product, device)| self.forget_device(&product, &device));
            }
            Concern::Product(gone) => self.forget(|product, _| product.as_str() == &**gone),
            Concern::Principal(_) | Concern::App(_) | Concern::Users | Concern::Services => {}
        }
    }

    fn forget_device(&self, product: &ProductKey, device: &DeviceName) {
        let mut state = self.state.lock();
        let changes = state.book.drop_device(product, device);
        if !changes.is_empty() {
            drop(self.commit(&changes));
        }
        drop(state);
        let mut logs = self.logs.lock();
        logs.assembler.drop_device(product, device);
        let changes = logs.shelf.drop_device(product, device);
        self.commit_forgotten(&changes);
    }

    fn forget(&self, is_gone: impl Fn(&ProductKey, &DeviceName) -> bool) {
        let control = &self.shell().control;
        let mut state = self.state.lock();
        let ops: Vec<_> = state.book.drop_devices(&is_gone).iter().map(op).collect();
        // What a crash leaves is removed at the next start. Whoever has the name next waits for nothing of this: its own records come after it.
        ops.chunks(AT_ONCE).for_each(|part| drop(control.commit_registry(part.to_vec())));
        drop(state);
        let mut logs = self.logs.lock();
        logs.assembler.drop_devices(&is_gone);
        let changes = logs.shelf.drop_all(|log| is_gone(&log.product, &log.device));
        self.commit_forgotten(&changes);
    }

    fn shell(&self) -> &Shell {
        self.shell.get().expect("whoever works at the desk has started it")
    }

    async fn run(self: Arc<Self>, mut work: UnboundedReceiver<Work>) {
        let mut steps = tokio::time::interval(STEP_INTERVAL);
        steps.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = steps.tick() => self.step(),
                next = work.recv() => match next {
                    Some(Work::Errand(matter, errand, done)) => self.errand(matter, &errand, done),
                    Some(Work::Came(product, device)) => {
                        let now = self.shell().control.now();
                        self.state.lock().book.came(&product, &device, now.unix_ms);
                        self.send();
                    }
                    Some(Work::Asked(id)) => {
                        let now = self.shell().control.now();
                        self.state.lock().book.asked(id, now.unix_ms);
                        self.send();
                    }
                    None => return,
                },
            }
        }
    }

    fn step(self: &Arc<Self>) {
        self.expire();
        self.send();
    }

    /// Ends what is over, and forgets what has been kept long enough.
    fn expire(&self) {
        let shell = self.shell();
        let now_ms = shell.control.now().unix_ms;
        let mut state = self.state.lock();
        loop {
            let due = state.book.due(now_ms, AT_ONCE);
            if due.is_empty() {
                return;
            }
            for id in due.iter().filter_map(|due| due.expired) {
                self.counts.add(Counted::Expired);
                if let Some(command) = state.book.get(id) {
                    self.tell(command);
                }
            }
            let ops = due.iter().flat_map(|due| &due.changes).map(op).collect();
            // Nobody waits for it: a crash before it has it done again.
            drop(shell.control.commit_registry(ops));
        }
    }

    /// Puts on record what has become of a command.
    fn tell(&self, command: &Command) {
        let device = Subject::device(&command.product, &command.device);
        let by_device =
            matches!(command.state, Stage::Done | Stage::Failed | Stage::Rejected) || command.late.is_some();
        let action = if command.late.is_some() { Action::CommandLate } else { Action::CommandEnd };
        let how = command.late.unwrap_or(command.state);
        let details = [
            (Key::Command, Value::Number(command.id.0.into())),
            (Key::Kind, Value::Word(command.kind.as_str())),
            (Key::How, Value::Word(how.as_str())),
        ];
        let outcome = if how == Stage::Done { Outcome::Ok } else { Outcome::Failed(how.as_str()) };
        self.shell().audit.record(&Event {
            actor: if by_device { device } else { Subject::Broker },
            target: Some(device),
            outcome,
            ..Event::own(now_ms(), action, &details)
        });
    }

    /// Says that an errand is done once what it has changed is on disk.
    fn finish(&self, committed: oneshot::Receiver<()>, done: Done) {
        tokio::spawn(async move {
            done.say(committed.await.map_err(|_| ReasonCode::ImplementationSpecificError));
        });
    }
}

fn op(change: &Change) -> Op {
    record::encode(&change.clone().into())
}

/// A device's names; of a device without ones, which the registry doesn't have, none.
fn names(identity: &DeviceIdentity) -> Option<(ProductKey, DeviceName)> {
    Some((ProductKey::parse(&identity.product).ok()?, DeviceName::parse(&identity.device).ok()?))
}
