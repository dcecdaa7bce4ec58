//! How the control plane steers the data plane: questions and orders put into the shards' inboxes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use parking_lot::{Mutex, RwLock};
use tokio::sync::oneshot;
use turnpike_core::clock::Now;
use turnpike_core::concern::Concern;
use turnpike_core::durable::{Op, Part};
use turnpike_core::gate::{DeviceIdentity, Principal};
use turnpike_core::ids::{ShardId, Ticket, Turn};
use turnpike_core::limits::Limits;
use turnpike_core::message::Message;
use turnpike_core::shard::{Reach, SessionView, home};
use turnpike_core::shared::Shared;
use turnpike_mqtt::{ReasonCode, TopicFilter, TopicName};
use turnpike_store::group::CONTROL_PLANE;
use turnpike_store::stats::CommitStats;
use turnpike_store::{CommitEvent, CommitterHandle};

use crate::inbox::{Envelope, Inbox};
use crate::listener::ListenerSettings;
use crate::shard::{Clock, Command, Door, OutsideMessage, ShardStats, Slice, SystemMessage};
use crate::tls::TlsError;
use crate::transport::TransportLimits;

/// A shard that shows no sign of life for so long isn't well.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// Nor is a store whose commit takes so long.
const COMMIT_MAX: Duration = Duration::from_secs(5);

/// Steers a running data plane. Cheap to clone; any thread may use it, and none of its calls waits for a shard but those that say so.
#[derive(Clone, Debug)]
pub struct Control {
    plane: Arc<Plane>,
    committer: CommitterHandle,
    shared: Arc<Shared>,
    clock: Clock,
}

/// Figures that no single shard has.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Totals {
    /// Subscriptions, shared ones included.
    pub subscriptions: u64,
    /// Retained messages.
    pub retained_messages: u64,
    /// Their bytes.
    pub retained_bytes: u64,
}

/// How the data plane is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Health {
    /// Whether commits succeed.
    pub store: StoreHealth,
    /// Shards that have shown no sign of life for seconds.
    pub silent_shards: Vec<ShardId>,
    /// A drain has begun.
    pub draining: bool,
    /// A shard's thread has failed; the process is about to end.
    pub dead: bool,
}

impl Health {
    /// Whether clients may be sent here.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.store == StoreHealth::Ok && self.silent_shards.is_empty() && !self.draining && !self.dead
    }
}

/// Whether commits succeed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreHealth {
    /// They do, or none was needed.
    Ok,
    /// They don't, and why.
    Failing(String),
}

/// Why a reload changed nothing.
#[derive(Debug, thiserror::Error)]
#[error("listener `{listener}`: {fault}")]
pub struct ReloadError {
    /// Which listener.
    pub listener: String,
    /// What is wrong.
    pub fault: TlsError,
}

impl Control {
    pub(super) fn new(plane: Arc<Plane>, committer: CommitterHandle, shared: Arc<Shared>, clock: Clock) -> Self {
        Self { plane, committer, shared, clock }
    }

    /// Now, by the clocks that the shards go by.
    #[must_use]
    pub fn now(&self) -> Now {
        self.clock.at(Instant::now())
    }

    /// Figures that no single shard has.
    #[must_use]
    pub fn totals(&self) -> Totals {
        Totals {
            subscriptions: self.shared.router.counts().subscriptions,
            retained_messages: self.shared.retained.len(),
            retained_bytes: self.shared.retained.bytes(),
        }
    }

    /// The registry has changed for a product, or for one device of it: live sessions that it concerns are judged again.
    pub fn rejudge(&self, product: &str, device: Option<&str>) {
        let (product, device) = (Arc::<str>::from(product), device.map(Arc::<str>::from));
        self.tell_all(|| Command::Rejudge(Arc::clone(&product), device.clone()));
    }

    /// Something has changed for these: their live sessions are judged again.
    pub fn judge_again(&self, concern: &Concern) {
        self.tell_all(|| Command::Judge(concern.clone()));
    }

    /// The sessions of a principal, in no order.
    pub async fn sessions_of(&self, principal: &Principal) -> Vec<SessionView> {
        let answers = self.ask(|reply| Command::SessionsOf(principal.clone(), reply));
        let mut sessions = Vec::new();
        for answer in answers {
            sessions.extend(answer.await.unwrap_or_default());
        }
        sessions
    }

    /// Whether a principal is connected, and hears what is published on a topic.
    pub async fn reach(&self, principal: &Principal, topic: &str) -> Reach {
        let topic = Arc::<str>::from(topic);
        let mut reach = Reach::Absent;
        for answer in self.ask(|reply| Command::Reach(principal.clone(), Arc::clone(&topic), reply)) {
            reach = reach.max(answer.await.unwrap_or(Reach::Absent));
        }
        reach
    }

    /// Signs a principal out of the session of a client, which ends with all that it was owed. False if there is no such session.
    pub async fn sign_out(&self, principal: &Principal, client: &str) -> bool {
        let client = Arc::<str>::from(client);
        let answers = self.ask(|reply| Command::SignOut(principal.clone(), Arc::clone(&client), reply));
        let mut found = false;
        for answer in answers {
            found |= answer.await.unwrap_or(false);
        }
        found
    }

    /// Ends every session of these, with all that it was owed.
    pub async fn forget(&self, concern: &Concern) {
        for answer in self.ask(|reply| Command::Forget(concern.clone(), reply)) {
            // A shard that is ending has no sessions any more that anybody sees.
            let _ = answer.await;
        }
    }

    /// The same, without waiting: each shard does it before it takes anything that comes later.
    pub fn forget_soon(&self, concern: &Concern) {
        // Shards first: what they are asked by whoever hears of it comes after that.
        drop(self.ask(|reply| Command::Forget(concern.clone(), reply)));
        self.plane.gone.read().iter().for_each(|Hearer(tell)| tell(concern));
    }

    /// Has somebody hear of devices that are no more ([`Self::forget_soon`]): whatever else is known of them is to go as well. Whoever
    /// listens is called on the thread that has deleted them, which mustn't wait, in the order in which they have said so.
    pub fn when_gone(&self, tell: impl Fn(&Concern) + Send + Sync + 'static) {
        self.plane.gone.write().push(Hearer(Box::new(tell)));
    }

    /// Ends the sessions of those who exist no more.
    pub fn forget_gone(&self) {
        self.tell_all(|| Command::ForgetGone);
    }

    /// Closes the connections that come from a network. What is under way to one (TLS) is closed when its address is looked at again.
    pub fn shut_out(&self, network: IpNet) {
        self.tell_all(|| Command::ShutOut(network));
    }

    /// Has all shards ask the gate for the meters of their sessions again: rate limits have changed for everybody.
    pub fn remeter(&self) {
        self.tell_all(|| Command::Remeter);
    }

    /// Has the retained messages of these filters removed, durably, soon.
    pub fn forget_retained(&self, filters: Vec<Box<str>>) {
        if let Some(inbox) = self.plane.inboxes.first() {
            inbox.push(Envelope::Control(Command::ForgetRetained(filters)));
        }
    }

    /// Takes away what waits on these filters for whoever is concerned.
    pub fn withdraw(&self, concern: &Concern, filters: &[Box<str>]) {
        self.tell_all(|| Command::Withdraw(concern.clone(), filters.to_vec()));
    }

    /// Publishes messages of the broker's own.
    pub fn publish_system(&self, messages: Vec<SystemMessage>) {
        if let Some(inbox) = self.plane.inboxes.first() {
            inbox.push(Envelope::Control(Command::System(messages)));
        }
    }

    /// Publishes for somebody who has no session. The receiver resolves when the message is taken, and on disk if anybody is owed it; it says whether
    /// anybody wants it. Messages on one topic stay in order.
    #[must_use]
    pub fn publish_outside(&self, message: OutsideMessage) -> oneshot::Receiver<Result<bool, ReasonCode>> {
        let (reply, taken) = oneshot::channel();
        let shards = u16::try_from(self.plane.inboxes.len()).unwrap_or(u16::MAX);
        // Any shard would do; the same one for the same topic keeps the order.
        let shard = home(&message.topic, shards);
        if let Some(inbox) = self.plane.inboxes.get(usize::from(shard.0)) {
            inbox.push(Envelope::Control(Command::Publish(Box::new(message), reply)));
        }
        taken
    }

    /// How long the slowest shard takes to come round to what it is asked: what a message that came now would wait for its turn.
    pub async fn turn_around(&self) -> Duration {
        let asked = Instant::now();
        let mut slowest = Duration::ZERO;
        for answer in self.ask(Command::Ping) {
            // One that is ending makes nobody late. How late this task is woken is no message's concern.
            if let Ok(answered) = answer.await {
                slowest = slowest.max(answered.saturating_duration_since(asked));
            }
        }
        slowest
    }

    /// Publishes stored records of a device, in order with all others of its: slices of one device are taken in the order of these calls. The
    /// receiver resolves when what was taken is on disk.
    pub fn publish_slice(&self, device: &DeviceIdentity, slice: Slice) {
        let shards = u16::try_from(self.plane.inboxes.len()).unwrap_or(u16::MAX);
        // Always the same shard for a device, whatever client id it has: tickets of one shard are committed in order.
        let shard = home(&format!("{}/{}", device.product, device.device), shards);
        if let Some(inbox) = self.plane.inboxes.get(usize::from(shard.0)) {
            inbox.push(Envelope::Control(Command::Slice(Box::new(slice))));
        }
    }

    /// The retained message of a topic.
    #[must_use]
    pub fn retained(&self, topic: TopicName<'_>) -> Option<Arc<Message>> {
        self.shared.retained.get(topic, self.now().unix_ms)
    }

    /// Topics of up to `limit` retained messages that a filter takes, expired ones included.
    #[must_use]
    pub fn retained_topics(&self, filter: &str, limit: usize) -> Vec<Box<str>> {
        let mut topics = Vec::new();
        let Ok(filter) = TopicFilter::parse(filter) else { return topics };
        // As of the beginning of time: what has expired is found as well.
        self.shared.retained.matching(filter, 0, &mut |message| {
            if topics.len() < limit {
                topics.push(message.topic().as_str().into());
            }
        });
        topics
    }

    /// Figures of all shards, in their order; a shard that is ending is left out.
    pub async fn stats(&self) -> Vec<ShardStats> {
        let mut stats = Vec::new();
        for answer in self.ask_stats() {
            stats.extend(answer.await);
        }
        stats
    }

    /// The same for a thread that may wait. Not from within an async task.
    #[must_use]
    pub fn stats_blocking(&self) -> Vec<ShardStats> {
        self.ask_stats().into_iter().filter_map(|answer| answer.blocking_recv().ok()).collect()
    }

    fn ask_stats(&self) -> Vec<oneshot::Receiver<ShardStats>> {
        self.ask(Command::Stats)
    }

    /// Asks all shards something that each answers by itself.
    fn ask<T>(&self, question: impl Fn(oneshot::Sender<T>) -> Command) -> Vec<oneshot::Receiver<T>> {
        let mut answers = Vec::new();
        self.tell_all(|| {
            let (reply, answer) = oneshot::channel();
            answers.push(answer);
            question(reply)
        });
        answers
    }

    /// Figures of the committer.
    #[must_use]
    pub fn commit_stats(&self) -> &CommitStats {
        self.committer.stats()
    }

    /// Commits changes of the registry. The receiver resolves when they are on disk; while the store fails it stays pending, and it fails
    /// if the broker ends first. Calls are committed in their order.
    #[must_use]
    pub fn commit_registry(&self, ops: Vec<Op>) -> oneshot::Receiver<()> {
        let (reply, committed) = oneshot::channel();
        // Held until the part is submitted: turns reach the committer in order.
        let mut registry = self.plane.registry.lock();
        registry.turn += 1;
        let ticket = Ticket { origin: CONTROL_PLANE, turn: Turn(registry.turn) };
        registry.waiting.insert(ticket.turn, reply);
        self.committer.submit(Part { ticket, parts: Some(1), ops });
        committed
    }

    /// Whether changes of the registry that were handed in aren't on disk yet.
    #[must_use]
    pub fn is_committing(&self) -> bool {
        !self.plane.registry.lock().waiting.is_empty()
    }

    /// How it is now.
    #[must_use]
    pub fn health(&self) -> Health {
        let stats = self.committer.stats();
        let store = if let Some(fault) = self.plane.store_fault.lock().clone() {
            StoreHealth::Failing(fault)
        } else if !stats.is_healthy() {
            StoreHealth::Failing("the committer has stopped".to_owned())
        } else if let Some(time) = stats.running_for().filter(|time| *time > COMMIT_MAX) {
            StoreHealth::Failing(format!("a commit has been running for {} s", time.as_secs()))
        } else {
            StoreHealth::Ok
        };
        Health {
            store,
            silent_shards: self.plane.silent_shards(),
            draining: self.plane.draining.load(Relaxed),
            dead: self.plane.dead.load(Relaxed),
        }
    }

    /// Takes new bounds, and reads certificates, keys, trust anchors and revocation lists again. All of it or nothing. Handshakes that
    /// begin from now on use what was read. If anything has changed by which client certificates are judged, those that live connections have
    /// shown are judged again, soon, and connections whose certificate isn't good any more are closed; no other is dropped. Gives the names of listeners that have changed in ways
    /// that only a restart takes over.
    ///
    /// # Errors
    /// Every fault in the files; nothing has changed then.
    pub fn reload(
        &self,
        listeners: &[ListenerSettings],
        limits: Limits,
        transport: TransportLimits,
    ) -> Result<Vec<String>, Vec<ReloadError>> {
        let (mut prepared, mut faults) = (Vec::new(), Vec::new());
        for door in &self.plane.doors {
            let tls =
                listeners.iter().find(|settings| settings.name == door.name).and_then(|settings| settings.tls.as_ref());
            let (Some(acceptor), Some(tls)) = (&door.tls, tls) else { continue };
            match acceptor.prepare(tls) {
                Ok(live) => prepared.push((acceptor, live)),
                Err(found) => {
                    let name = |fault| ReloadError { listener: door.name.clone(), fault };
                    faults.extend(found.into_iter().map(name));
                }
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let judges_anew = prepared.iter().any(|(acceptor, live)| acceptor.judges_anew(live));
        for (acceptor, live) in prepared {
            acceptor.install(live);
        }
        if judges_anew {
            self.tell_all(|| Command::JudgeCertificates);
        }
        let limits = Arc::new(limits);
        self.tell_all(|| Command::Limits(Arc::clone(&limits), transport));
        Ok(restart_needed(&self.plane.listeners, listeners))
    }

    /// Has all shards part with their clients. Says whether they have by the deadline.
    pub(super) fn drain_shards(&self, deadline: Instant) -> bool {
        self.plane.draining.store(true, Relaxed);
        self.await_all(Command::Drain, deadline)
    }

    /// Waits until each shard has dealt with what is in its inbox now. Says whether they have by the deadline.
    pub(super) fn settle(&self, deadline: Instant) -> bool {
        self.await_all(Command::Barrier, deadline)
    }

    /// Ends the threads.
    pub(super) fn stop_shards(&self) {
        self.tell_all(|| Command::Stop);
    }

    fn await_all(&self, command: impl Fn(Sender<()>) -> Command, deadline: Instant) -> bool {
        let (reply, answers) = channel();
        self.tell_all(|| command(reply.clone()));
        self.plane
            .inboxes
            .iter()
            .all(|_| answers.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok())
    }

    fn tell_all(&self, mut command: impl FnMut() -> Command) {
        for inbox in self.plane.inboxes.iter() {
            inbox.push(Envelope::Control(command()));
        }
    }
}

/// Listeners that are new, gone, or changed in what a reload doesn't take over.
fn restart_needed(before: &[ListenerSettings], after: &[ListenerSettings]) -> Vec<String> {
    let fixed = |settings: &ListenerSettings| ListenerSettings {
        // Only whether there is TLS is fixed.
        tls: None,
        ..settings.clone()
    };
    let same = |a: &ListenerSettings, b: &ListenerSettings| fixed(a) == fixed(b) && a.tls.is_some() == b.tls.is_some();
    let known_to = |all: &[ListenerSettings], one: &ListenerSettings| all.iter().any(|other| same(other, one));
    let changed = after.iter().filter(|settings| !known_to(before, settings));
    let gone = before.iter().filter(|old| !after.iter().any(|new| new.name == old.name));
    changed.chain(gone).map(|settings| settings.name.clone()).collect()
}

/// What [`Control`], the committer's thread and the shards' threads share.
#[derive(Debug)]
pub(super) struct Plane {
    inboxes: Arc<[Inbox]>,
    listeners: Vec<ListenerSettings>,
    doors: Vec<Arc<Door>>,
    beats: Vec<Arc<AtomicU64>>,
    /// Of each shard, the count that was seen last and when it was new.
    seen: Mutex<Vec<(u64, Instant)>>,
    registry: Mutex<Registry>,
    store_fault: Mutex<Option<String>>,
    draining: AtomicBool,
    dead: AtomicBool,
    /// Hear of devices that are no more.
    gone: RwLock<Vec<Hearer>>,
}

/// Who hears of a concern.
pub(super) struct Hearer(Box<dyn Fn(&Concern) + Send + Sync>);

impl std::fmt::Debug for Hearer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hearer(…)")
    }
}

/// Commits of the control plane under way.
#[derive(Debug, Default)]
struct Registry {
    turn: u64,
    waiting: HashMap<Turn, oneshot::Sender<()>>,
}

impl Plane {
    pub(super) fn new(
        inboxes: Arc<[Inbox]>,
        beats: Vec<Arc<AtomicU64>>,
        listeners: Vec<ListenerSettings>,
        doors: Vec<Arc<Door>>,
    ) -> Self {
        Self {
            inboxes,
            listeners,
            doors,
            seen: Mutex::new(vec![(0, Instant::now()); beats.len()]),
            beats,
            registry: Mutex::default(),
            store_fault: Mutex::default(),
            draining: AtomicBool::new(false),
            dead: AtomicBool::new(false),
            gone: RwLock::default(),
        }
    }

    /// What the committer says, on its thread.
    pub(super) fn on_commit(&self, event: CommitEvent<'_>, shared: &Shared) {
        match event {
            CommitEvent::Committed(tickets) => self.committed(tickets),
            CommitEvent::Failed { error } => {
                shared.set_store_serving(false);
                *self.store_fault.lock() = Some(error.to_string());
            }
            CommitEvent::Recovered => {
                *self.store_fault.lock() = None;
                shared.set_store_serving(true);
            }
            CommitEvent::Low => shared.set_store_low(true),
            CommitEvent::Ample => shared.set_store_low(false),
        }
    }

    fn committed(&self, tickets: &[Ticket]) {
        let ours = tickets.iter().filter(|ticket| ticket.origin == CONTROL_PLANE).count();
        if ours > 0 {
            let mut registry = self.registry.lock();
            for ticket in tickets.iter().filter(|ticket| ticket.origin == CONTROL_PLANE) {
                if let Some(reply) = registry.waiting.remove(&ticket.turn) {
                    // Whoever asked may have given up waiting.
                    let _ = reply.send(());
                }
            }
        }
        if ours < tickets.len() {
            let tickets: Arc<[Ticket]> = tickets.into();
            for inbox in self.inboxes.iter() {
                inbox.push(Envelope::Committed(Arc::clone(&tickets)));
            }
        }
    }

    pub(super) fn mark_dead(&self) {
        self.dead.store(true, Relaxed);
    }

    fn silent_shards(&self) -> Vec<ShardId> {
        let now = Instant::now();
        let mut silent = Vec::new();
        for ((id, beat), seen) in (0..).zip(&self.beats).zip(self.seen.lock().iter_mut()) {
            let count = beat.load(Relaxed);
            if count != seen.0 {
                *seen = (count, now);
            } else if now.duration_since(seen.1) > SILENCE_MAX {
                silent.push(ShardId(id));
            }
        }
        silent
    }
}
