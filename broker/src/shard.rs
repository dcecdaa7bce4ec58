//! A shard's thread: sockets on one side, the sans-IO core on the other.
//!
//! ```text
//! turn:  poll ─▶ accept ─▶ read what is readable, feed the core ─▶ inbox ─▶ say what was committed ─▶ timers
//!             ─▶ write each touched connection once ─▶ history ─▶ hand batches to other shards, parts to the committer
//! ```
//!
//! Sockets are registered once, edge-triggered, for reading and writing, so a turn costs no other system calls than one poll, and a
//! read and a write for each connection that has something. What a connection may take of a turn is bounded
//! (`READ_BYTES`), and so is the turn (`TURN_READ_BYTES`, `TURN_WRITE_BYTES`, `PHASE_TIME`); who wasn't served stands in a queue. History comes last,
//! when what this turn has read for others is written.
//!
//! **Invariant:** a shard never waits but in poll. It opens no file, resolves no name, and holds no lock over a system call.
//!
//! **Invariant:** what the core says it keeps: every connection that it opened is closed once (`ShardThread::drop_link`,
//! `ShardThread::finish` and `ShardThread::move_link` are the only places).

mod accept;
mod certificates;
mod link;
mod newcomer;
mod outside;
mod read;
mod stats;
mod write;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ipnet::IpNet;
use mio::{Events, Poll, Token};
use tokio::sync::oneshot;
use turnpike_core::clock::Now;
use turnpike_core::concern::Concern;
use turnpike_core::durable::Part;
use turnpike_core::gate::{Answer, Gate, Principal};
use turnpike_core::ids::ShardId;
use turnpike_core::limits::Limits;
use turnpike_core::shard::{Inquiry, Reach, SessionView, Shard};
use turnpike_core::table::Table;
use turnpike_mqtt::{ReasonCode, TopicName};
use turnpike_store::CommitterHandle;

pub(crate) use accept::{Door, Entrance};
pub(crate) use link::MovedLink;
use link::{Deadlines, Flags, Link};
use newcomer::Newcomer;
pub use outside::{OutsideMessage, Slice, SliceOutcome, SliceRecord};
pub use stats::{HISTOGRAM_BUCKETS, Histogram, NetCounters, ShardStats};

use crate::asker::{Asker, Reply};
use crate::desk::Desk;
use crate::inbox::{Envelope, Inbox, Outbox};
use crate::transport::{Scratch, TransportLimits};

/// Read from one connection in one turn.
const READ_BYTES: usize = 32 << 10;
/// Read in one turn. Small enough that what one turn publishes to one subscriber fits its queue.
const TURN_READ_BYTES: usize = 256 << 10;
/// Written in one turn.
const TURN_WRITE_BYTES: usize = 4 << 20;
/// While history is under way, each phase of a turn begins nothing more after so long: what comes meanwhile waits for a turn to end. Without history a turn is as long as its
/// bounds in bytes let it be: the shorter it is, the more turns, and the clock's readings, each message pays for.
const PHASE_TIME: Duration = Duration::from_micros(50);
/// When a phase began, where its time is bounded.
#[derive(Clone, Copy)]
struct Phase(Option<Instant>);

impl Phase {
    fn is_over(self) -> bool {
        self.0.is_some_and(|begun| begun.elapsed() >= PHASE_TIME)
    }
}

/// Said of what was committed between two looks at the clock.
const SAY_AT_ONCE: usize = 64;
/// Events taken from the kernel in one turn.
const EVENTS: usize = 1024;
/// A shard shows that it lives at least this often.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Buffers for unfinished packets that are kept for reuse, and the largest of them.
const POOL_BUFFERS_MAX: usize = 256;
const POOL_BUFFER_BYTES_MAX: usize = 4 << 10;

/// The eventfd of the inbox. Listeners have the tokens below it, connections count up from 0.
pub(crate) const WAKE: Token = Token(usize::MAX);

/// What the control plane asks of a shard.
#[derive(Debug)]
pub(crate) enum Command {
    /// Tell your figures.
    Stats(oneshot::Sender<ShardStats>),
    /// Use these bounds from now on.
    Limits(Arc<Limits>, TransportLimits),
    /// The registry has changed for a product, or for one of its devices.
    Rejudge(Arc<str>, Option<Arc<str>>),
    /// Something has changed for these: judge their sessions again.
    Judge(Concern),
    /// What client certificates are judged by has changed: judge again those that live connections have shown.
    JudgeCertificates,
    /// Tell of the sessions of these.
    SessionsOf(Principal, oneshot::Sender<Vec<SessionView>>),
    /// Tell whether these hear what is published on a topic.
    Reach(Principal, Arc<str>, oneshot::Sender<Reach>),
    /// Sign these out of the session of a client. Answer whether there was one.
    SignOut(Principal, Arc<str>, oneshot::Sender<bool>),
    /// End the sessions of these for good. Answer when that is done.
    Forget(Concern, oneshot::Sender<()>),
    /// Close the connections that come from there.
    ShutOut(IpNet),
    /// Rate limits have changed for everybody.
    Remeter,
    /// Remove the retained messages of these filters.
    ForgetRetained(Vec<Box<str>>),
    /// Take away what waits on these filters.
    Withdraw(Concern, Vec<Box<str>>),
    /// End the sessions of those who exist no more.
    ForgetGone,
    /// Publish as the broker.
    System(Vec<SystemMessage>),
    /// Publish for somebody who has no session, and say whether anybody wants it, or why it isn't taken.
    Publish(Box<OutsideMessage>, oneshot::Sender<Result<bool, ReasonCode>>),
    /// Answer, when it is its turn, when that was.
    Ping(oneshot::Sender<Instant>),
    /// Publish stored records of a device, and say how far that went, once it is on disk.
    Slice(Box<Slice>),
    /// Take no connections any more, part with those there are, and answer when they are gone.
    Drain(Sender<()>),
    /// Answer when all that came before has been dealt with, and handed on.
    Barrier(Sender<()>),
    /// End.
    Stop,
}

/// A message of the broker's own (`$SYS`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SystemMessage {
    /// A topic name; an invalid one is a fault of the caller's, and is logged.
    pub topic: String,
    /// The payload.
    pub payload: Vec<u8>,
    /// Whether it is retained.
    pub retain: bool,
}

/// The clocks of a broker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { start: Instant::now() }
    }

    pub(crate) fn at(&self, instant: Instant) -> Now {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Now {
            mono_ms: millis(instant.duration_since(self.start)),
            unix_ms: millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()),
        }
    }
}

/// What a shard's thread is made of.
pub(crate) struct Setup<G> {
    pub(crate) id: ShardId,
    pub(crate) core: Shard<G>,
    pub(crate) poll: Poll,
    pub(crate) inboxes: Arc<[Inbox]>,
    pub(crate) entrances: Vec<Entrance>,
    pub(crate) committer: CommitterHandle,
    pub(crate) limits: Arc<Limits>,
    pub(crate) transport: TransportLimits,
    pub(crate) first_descriptor_kept: u32,
    pub(crate) clock: Clock,
    /// Counts up while the shard lives.
    pub(crate) heartbeat: Arc<AtomicU64>,
    /// Has the gate's questions answered, if anybody has.
    pub(crate) asker: Option<Arc<dyn Asker>>,
    /// Has messages of devices for the broker itself, if anybody has.
    pub(crate) desk: Option<Arc<dyn Desk>>,
}

/// A shard's thread.
pub(crate) struct ShardThread<G> {
    id: ShardId,
    core: Shard<G>,
    poll: Poll,
    inboxes: Arc<[Inbox]>,
    entrances: Vec<Entrance>,
    committer: CommitterHandle,
    limits: Arc<Limits>,
    transport: TransportLimits,
    first_descriptor_kept: u32,
    clock: Clock,
    now: Now,
    heartbeat: Arc<AtomicU64>,
    asker: Option<Arc<dyn Asker>>,
    desk: Option<Arc<dyn Desk>>,

    links: Table<Link>,
    next_serial: u32,
    /// Index in `links` by the core's name of a connection.
    by_conn: Vec<u32>,
    /// Links to be read, each once.
    ready: VecDeque<u32>,
    /// Links that have something to write of which the core doesn't know.
    to_flush: Vec<u32>,
    handshakes: Deadlines,
    handshaking: u32,
    endings: Deadlines,

    /// Those that come in, what was read of them, and their keys; each is empty between two groups.
    newcomers: Vec<Newcomer>,
    outcomes: Vec<read::Outcome>,
    admitted: Vec<u32>,

    /// Where reads land.
    scratch: Vec<u8>,
    layer_scratch: Scratch,
    pool: Vec<Vec<u8>>,

    /// By shard.
    outboxes: Vec<Outbox>,
    taken: Vec<Envelope>,
    refused: Vec<ShardId>,
    parts: Vec<Part>,
    /// Another shard or the store is behind: sockets aren't read.
    stalled: bool,
    /// The core has touched connections that this turn had no time for.
    unflushed: bool,
    /// Through the links, whose certificates are judged again.
    judging: Option<certificates::Walk>,

    net: NetCounters,
    turns: Histogram,
    accept_complaint_ms: u64,
    drained: Vec<Sender<()>>,
    barriers: Vec<Sender<()>>,
    /// Who waits for a message from outside to be taken, by its number.
    publishing: HashMap<u64, oneshot::Sender<Result<bool, ReasonCode>>>,
    /// Slices of history that are being committed.
    slices: HashMap<u64, (SliceOutcome, oneshot::Sender<SliceOutcome>)>,
    /// Slices that wait for a turn with time for them.
    history: VecDeque<Slice>,
    next_number: u64,
    draining: bool,
    stopping: bool,
}

impl<G: Gate> ShardThread<G> {
    pub(crate) fn new(setup: Setup<G>) -> Self {
        Self {
            id: setup.id,
            core: setup.core,
            poll: setup.poll,
            outboxes: setup.inboxes.iter().map(|_| Outbox::default()).collect(),
            inboxes: setup.inboxes,
            entrances: setup.entrances,
            committer: setup.committer,
            limits: setup.limits,
            transport: setup.transport,
            first_descriptor_kept: setup.first_descriptor_kept,
            now: setup.clock.at(Instant::now()),
            clock: setup.clock,
            heartbeat: setup.heartbeat,
            asker: setup.asker,
            desk: setup.desk,
            links: Table::new(),
            next_serial: 0,
            by_conn: Vec::new(),
            ready: VecDeque::new(),
            to_flush: Vec::new(),
            handshakes: Deadlines::default(),
            handshaking: 0,
            endings: Deadlines::default(),
            newcomers: Vec::new(),
            outcomes: Vec::new(),
            admitted: Vec::new(),
            scratch: vec![0; read::SCRATCH_BYTES],
            layer_scratch: Scratch::default(),
            pool: Vec::new(),
            taken: Vec::new(),
            refused: Vec::new(),
            parts: Vec::new(),
            stalled: false,
            unflushed: false,
            judging: None,
            net: NetCounters::default(),
            turns: Histogram::default(),
            accept_complaint_ms: 0,
            drained: Vec::new(),
            barriers: Vec::new(),
            publishing: HashMap::new(),
            slices: HashMap::new(),
            history: VecDeque::new(),
            next_number: 0,
            draining: false,
            stopping: false,
        }
    }

    /// Turns until told to stop.
    ///
    /// # Errors
    /// The kernel refused to poll: nothing can go on.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        while !self.stopping {
            self.wait(&mut events)?;
            let begun = Instant::now();
            self.now = self.clock.at(begun);
            self.heartbeat.fetch_add(1, Relaxed);

            self.dispatch(&events);
            self.accept();
            self.read_ready();
            self.drain_inbox();
            self.say_committed();
            self.timers();
            self.judge_certificates();
            self.resume();
            self.flush();
            self.publish_history();
            // Written bytes make room, and room may resume connections: they are served in the next turn, which comes at once.
            self.unflushed |= self.resume();
            self.end_turn();
            self.turns.record(begun.elapsed());
        }
        Ok(())
    }

    fn inbox(&self) -> &Inbox {
        &self.inboxes[usize::from(self.id.0)]
    }

    /// Sleeps until there is something to do.
    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        let timeout = self.timeout();
        let timeout = if timeout.is_zero() || self.inbox().may_sleep() { timeout } else { Duration::ZERO };
        let polled = self.poll.poll(events, Some(timeout));
        self.inbox().awake();
        match polled {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }

    fn timeout(&mut self) -> Duration {
        let links = &self.links;
        let same = |key: u32, serial| links.get(key as usize).filter(|link: &&Link| link.serial == serial);
        self.handshakes.trim(|key, serial| same(key, serial).is_some_and(Link::is_handshaking));
        self.endings.trim(|key, serial| same(key, serial).is_some());
        let readable = !self.ready.is_empty() && !self.stalled;
        if readable
            || self.unflushed
            || (!self.history.is_empty() && !self.stalled)
            || self.core.has_to_say()
            || self.judging.is_some()
            || self.entrances.iter().any(|entrance| entrance.is_due(self.has_room(), self.now.mono_ms))
        {
            return Duration::ZERO;
        }
        let retries = self.entrances.iter().filter_map(|entrance| entrance.retry_at_ms);
        let deadlines = [self.core.next_deadline(), self.handshakes.next(), self.endings.next()];
        let next = deadlines.into_iter().flatten().chain(retries).min();
        let wait = next.map(|at_ms| Duration::from_millis(at_ms.saturating_sub(self.now.mono_ms)));
        wait.unwrap_or(HEARTBEAT).min(HEARTBEAT)
    }

    /// Notes what the kernel says.
    fn dispatch(&mut self, events: &Events) {
        for event in events {
            let token = event.token();
            if token == WAKE {
                continue;
            }
            if let Some(entrance) = self.entrances.get_mut(WAKE.0 - 1 - token.0) {
                entrance.ready = true;
                continue;
            }
            let key = u32::try_from(token.0).expect("tokens of connections are keys");
            let Some(link) = self.links.get_mut(token.0) else { continue };
            if event.is_read_closed() || event.is_error() {
                link.flags.set(Flags::READ_CLOSED);
            }
            if link.flags.has(Flags::PAUSED) && event.is_write_closed() {
                // Reading, which is paused, won't find out.
                self.drop_link(key);
                continue;
            }
            if event.is_writable() && link.flags.has(Flags::BLOCKED) {
                link.flags.clear(Flags::BLOCKED);
                self.to_flush.push(key);
            }
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                self.queue(key);
            }
        }
    }

    /// Has a link read in its turn.
    fn queue(&mut self, key: u32) {
        if let Some(link) = self.links.get_mut(key as usize)
            && !link.flags.has(Flags::QUEUED)
        {
            link.flags.set(Flags::QUEUED);
            self.ready.push_back(key);
        }
    }

    fn drain_inbox(&mut self) {
        let mut taken = std::mem::take(&mut self.taken);
        let mut refused = std::mem::take(&mut self.refused);
        self.inbox().take(&mut taken, &mut refused);
        for shard in refused.drain(..) {
            if let Some(inbox) = self.inboxes.get(usize::from(shard.0)) {
                inbox.wake();
            }
        }
        for envelope in taken.drain(..) {
            match envelope {
                Envelope::Batch(batch) => self.parts.extend(self.core.deliver(&batch, self.now)),
                Envelope::Committed(tickets) => self.core.note_committed(&tickets),
                Envelope::Answered(id, answer) => self.core.answered(id, answer, self.now),
                Envelope::ErrandDone(id, outcome) => self.core.errand_done(id, outcome, false, self.now),
                Envelope::ErrandTopics(id, topics) => self.core.subscribe_errand(id, &topics),
                Envelope::Adopt(moved) => self.adopt(*moved),
                Envelope::Control(command) => self.obey(command),
            }
        }
        self.taken = taken;
        self.refused = refused;
    }

    /// As much of it as the phase has time for.
    fn say_committed(&mut self) {
        let phase = self.phase();
        while self.core.has_to_say() && !phase.is_over() {
            self.core.say_committed(SAY_AT_ONCE, self.now);
        }
    }

    /// A phase begins.
    fn phase(&self) -> Phase {
        let has_history = !self.history.is_empty() || !self.slices.is_empty();
        Phase(has_history.then(Instant::now))
    }

    fn obey(&mut self, command: Command) {
        // These are about everything that came before them.
        if let Command::Forget(..) | Command::ForgetGone | Command::Drain(_) | Command::Barrier(_) | Command::Stop =
            command
        {
            self.publish_all_history();
        }
        match command {
            // Whoever asked may have given up waiting: then nobody misses the answer.
            Command::Stats(reply) => drop(reply.send(self.stats())),
            Command::Limits(limits, transport) => {
                self.core.set_limits(Arc::clone(&limits));
                self.limits = limits;
                self.transport = transport;
            }
            Command::Rejudge(product, device) => self.core.rejudge(&product, device.as_deref(), self.now),
            Command::JudgeCertificates => self.judging = Some(certificates::Walk::default()),
            Command::Judge(concern) => self.core.judge_again(&concern, self.now),
            // Whoever asked may have given up waiting.
            Command::SessionsOf(principal, reply) => drop(reply.send(self.core.sessions_of(&principal))),
            Command::Reach(principal, topic, reply) => {
                let reach = TopicName::parse(&topic).map_or(Reach::Absent, |topic| self.core.reach(&principal, topic));
                let _ = reply.send(reach);
            }
            Command::SignOut(principal, client, reply) => {
                let _ = reply.send(self.core.sign_out(&principal, &client, self.now));
            }
            Command::Forget(concern, reply) => {
                self.core.forget(&concern, self.now);
                let _ = reply.send(());
            }
            Command::ShutOut(network) => {
                self.core.shut_out(&|address| network.contains(&address.to_canonical()), self.now);
            }
            Command::Remeter => self.core.remeter(self.now),
            Command::ForgetGone => self.core.forget_gone(self.now),
            Command::ForgetRetained(filters) => self.core.forget_retained(&filters),
            Command::Withdraw(concern, filters) => self.core.withdraw(&concern, &filters, self.now),
            Command::System(messages) => self.publish_system(&messages),
            Command::Publish(message, reply) => self.publish_outside(&message, reply),
            Command::Ping(reply) => drop(reply.send(Instant::now())),
            Command::Slice(slice) => self.history.push_back(*slice),
            Command::Drain(reply) => {
                self.drain();
                self.drained.push(reply);
            }
            Command::Barrier(reply) => self.barriers.push(reply),
            Command::Stop => {
                while self.core.has_to_say() {
                    self.core.say_committed(SAY_AT_ONCE, self.now);
                }
                self.stopping = true;
            }
        }
    }

    fn publish_system(&mut self, messages: &[SystemMessage]) {
        for message in messages {
            match TopicName::parse(&message.topic) {
                Ok(topic) => self.core.publish_system(topic, &message.payload, message.retain, self.now),
                Err(_) => tracing::error!(topic = message.topic, "not a topic name; the message isn't published"),
            }
        }
    }

    fn drain(&mut self) {
        self.draining = true;
        self.entrances.clear();
        self.core.drain(self.now);
        let handshaking: Vec<_> =
            self.links.iter().filter(|(_, link)| link.is_handshaking()).map(|(key, _)| key).collect();
        for key in handshaking {
            self.drop_link(u32::try_from(key).expect("bounded by connections_max"));
        }
    }

    fn stats(&self) -> ShardStats {
        ShardStats {
            shard: self.id,
            core: self.core.counters(),
            net: self.net,
            turns: self.turns,
            inbox_bytes: self.inbox().batch_bytes() as u64,
            links: self.links.len() as u64,
            handshakes: u64::from(self.handshaking),
        }
    }

    fn timers(&mut self) {
        let now_ms = self.now.mono_ms;
        if self.core.next_deadline().is_some_and(|at_ms| at_ms <= now_ms) {
            self.core.tick(self.now);
        }
        while let Some((key, serial)) = self.handshakes.pop_due(now_ms) {
            if self.links.get(key as usize).is_some_and(|link| link.serial == serial && link.is_handshaking()) {
                self.net.handshakes_timed_out += 1;
                self.drop_link(key);
            }
        }
        while let Some((key, serial)) = self.endings.pop_due(now_ms) {
            if self.links.get(key as usize).is_some_and(|link| link.serial == serial) {
                self.drop_link(key);
            }
        }
    }

    fn end_turn(&mut self) {
        self.tell_taken();
        self.ask();
        self.hand_out();
        let output = self.core.end_turn();
        for (to, batch) in output.batches {
            if let Some(outbox) = self.outboxes.get_mut(usize::from(to.0)) {
                outbox.batches.push_back(batch);
            }
        }
        self.parts.extend(output.parts);
        if !self.parts.is_empty() {
            self.committer.submit_many(self.parts.drain(..));
        }
        let bytes_high = self.limits.batch_bytes_high as usize;
        let mut handed_over = true;
        for (inbox, outbox) in self.inboxes.iter().zip(&mut self.outboxes) {
            handed_over &= inbox.hand_over(self.id, outbox, bytes_high);
        }
        // A commit may be counted before its submission: then the figure is below zero for a moment.
        let committing = self.committer.stats().pending_bytes.load(Relaxed).cast_signed();
        self.stalled = !handed_over || committing > self.transport.commit_bytes_high.cast_signed();
        self.net.stalled_turns += u64::from(self.stalled);
        if handed_over {
            self.answer();
        }
    }

    /// Has the gate's questions answered, or says at once that nobody will.
    fn ask(&mut self) {
        while let Some(Inquiry { id, question }) = self.core.next_inquiry() {
            let reply = Reply::new(Arc::clone(&self.inboxes), self.id, id, self.clock);
            match &self.asker {
                Some(asker) => asker.ask(question, reply),
                None => reply.send(Answer::new(())),
            }
        }
    }

    /// Answers those who wait for the shard to come to rest.
    fn answer(&mut self) {
        if !self.core.has_to_say() {
            for reply in self.barriers.drain(..) {
                let _ = reply.send(());
            }
        }
        if self.draining && self.links.is_empty() {
            for reply in self.drained.drain(..) {
                let _ = reply.send(());
            }
        }
    }
}
