//! A worker: a single epoll loop that connects its clients, publishes, receives, acknowledges, and measures.
//!
//! ```text
//! turn:  commands ─▶ connect, publish what is due ─▶ write each touched connection once ─▶ poll ─▶ read what is readable
//! ```
//!
//! Far cheaper than any broker, or it would be what is measured: frames are encoded once and patched in place, reads go through
//! one buffer, a client that is idle is a file descriptor and an entry of a table.

mod client;
mod pacer;
mod publisher;
mod shared;
mod subscriber;
#[cfg(test)]
mod tests;
mod timer;
mod tls;
mod transport;
mod websocket;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use mio::{Events, Poll, Token, Waker};
use rustix::time::{ClockId, clock_gettime};
use turnpike_mqtt::QoS;

use crate::clock::{TICK_NS, nanos, now_ns};
use crate::outcome::{Counts, Outcome};
use crate::plan::Plan;
use crate::protocol::{Command, Event};
use crate::spec::{Credit, Pace, Scenario, Spec};
use client::Client;
use pacer::Pacer;
use shared::Shared;
use timer::Timer;
use transport::{Connector, Scratch};

const WAKER: Token = Token(usize::MAX);
const TIMER: Token = Token(usize::MAX - 1);
/// A publisher without a limit of its own on the way (retained, QoS 0) fills its buffer up to here.
const OUT_BYTES_HIGH: usize = 64 << 10;
/// A window that nothing has opened for so long is opened by force: what was in it is lost.
const STALL_NS: u64 = 3_000_000_000;
/// A drain ends when nothing has come for so long.
const QUIET_NS: u64 = 500_000_000;

/// What to tell the parent with.
pub type Emit = Box<dyn FnMut(Event) + Send>;

/// One worker.
pub struct Load {
    spec: Arc<Spec>,
    worker: usize,
    poll: Poll,
    waker: Arc<Waker>,
    timer: Timer,
    connector: Connector,
    plans: Vec<Plan>,
    clients: Vec<Client>,
    shared: Shared,
    commands: Receiver<Command>,
    emit: Emit,
    phase: Phase,
    pacers: Vec<Pacer>,
    own_cpu_ns: [u64; 2],
    next_tick_ns: u64,
    next_second_ns: u64,
    seconds: u64,
}

/// ```text
/// Waiting ─▶ Connecting ─▶ Waiting ─▶ … ─▶ Publishing ─▶ Draining ─▶ end
/// ```
enum Phase {
    Waiting,
    Connecting(Ramp),
    Publishing,
    Draining { since_ns: u64 },
}

/// Connecting the clients of a stage.
struct Ramp {
    stage: u8,
    /// Of the stage's clients, in the table of plans.
    waiting: std::vec::IntoIter<usize>,
    begun: u64,
    started_ns: u64,
}

impl Load {
    /// Nobody is connected yet.
    ///
    /// # Errors
    /// What epoll says, or what TLS says about its files.
    pub fn new(spec: Spec, worker: usize, commands: Receiver<Command>, emit: Emit) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let timer = Timer::new(poll.registry(), TIMER)?;
        let spec = Arc::new(spec);
        let plans = Plan::of_worker(&spec, worker);
        Ok(Self {
            connector: Connector::new(&spec)?,
            shared: Shared::new(Arc::clone(&spec), &plans),
            clients: Vec::with_capacity(plans.len()),
            plans,
            worker,
            poll,
            waker,
            timer,
            commands,
            emit,
            phase: Phase::Waiting,
            pacers: Vec::new(),
            own_cpu_ns: [0; 2],
            next_tick_ns: 0,
            next_second_ns: 0,
            seconds: 0,
            spec,
        })
    }

    /// What wakes the loop when a command has been sent.
    #[must_use]
    pub fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// Obeys until the end, and tells it.
    pub fn run(mut self) {
        let result = self.obey();
        let last = match result {
            Ok(()) => Event::Outcome(Box::new(self.outcome())),
            Err(error) => Event::Failed(error.to_string()),
        };
        (self.emit)(last);
    }

    fn obey(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(4096);
        let mut scratch = Scratch::new();
        loop {
            loop {
                match self.commands.try_recv() {
                    Ok(command) => self.command(command),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return Err(io::Error::other("the parent has gone")),
                }
            }
            if self.step() {
                self.say_goodbye();
                return Ok(());
            }
            self.flush();
            // Somebody who filled its buffer goes on as soon as the sockets have had their turn.
            let wait_ns =
                if self.shared.refill.is_empty() { self.next_tick_ns.saturating_sub(self.shared.now_ns) } else { 0 };
            match self.poll.poll(&mut events, Some(Duration::from_nanos(wait_ns.min(100_000_000)))) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            self.clock();
            for event in &events {
                match event.token() {
                    WAKER => {}
                    TIMER => self.timer.clear(),
                    Token(slot) => {
                        if event.is_readable() || event.is_error() {
                            self.read(slot, &mut scratch, event.is_read_closed());
                        }
                        if event.is_writable() {
                            self.shared.touch(slot);
                        }
                    }
                }
            }
        }
    }

    fn command(&mut self, command: Command) {
        self.clock();
        match command {
            Command::Connect { stage } => {
                let of_stage: Vec<usize> =
                    self.plans.iter().enumerate().filter(|(_, plan)| plan.stage == stage).map(|(at, _)| at).collect();
                let started_ns = self.shared.now_ns;
                self.phase = Phase::Connecting(Ramp { stage, waiting: of_stage.into_iter(), begun: 0, started_ns });
            }
            Command::Subscribe => {
                self.shared.subscribed_ns = self.shared.now_ns;
                for (slot, client) in self.clients.iter_mut().enumerate() {
                    client.subscribe(&self.spec, &self.plans[client.plan]);
                    self.shared.touch(slot);
                }
            }
            Command::Publish { begin_ns, end_ns } => {
                (self.shared.begin_ns, self.shared.end_ns) = (begin_ns, end_ns);
                self.phase = Phase::Publishing;
                self.begin_publishing();
            }
            Command::Leave => {
                for client in &mut self.clients {
                    if client.subscriber.is_some() {
                        client.leave(&self.spec, self.poll.registry(), false);
                    }
                }
            }
            Command::Finish => {
                self.phase = Phase::Draining { since_ns: self.shared.now_ns };
                self.shared.end_ns = self.shared.end_ns.min(self.shared.now_ns);
            }
        }
    }

    fn begin_publishing(&mut self) {
        let slots = || self.shared.publishers().collect::<Vec<usize>>();
        if let Pace::Rate(rate) = self.spec.pace {
            // Back ends publish on many topics in turn, and at a rate of their own.
            let is_back_end = |slot: &usize| {
                let publication = self.plans[self.clients[*slot].plan].publication.as_ref();
                publication.is_some_and(|publication| publication.topics > 1)
            };
            let (up, down) = slots().into_iter().partition::<Vec<usize>, _>(|slot| !is_back_end(slot));
            let now_ns = self.shared.now_ns;
            for (slots, rate, all) in
                [(up, rate, self.spec.publishers), (down, self.spec.down_rate, self.spec.subscribers)]
            {
                self.pacers.extend(Pacer::new(slots, rate, all, now_ns, &mut self.clients));
            }
        } else {
            self.shared.refill = slots();
        }
    }

    /// What the clock and the phase ask for. True at the end.
    fn step(&mut self) -> bool {
        match &mut self.phase {
            Phase::Waiting => {}
            Phase::Connecting(_) => self.connect(),
            Phase::Publishing => self.publish(),
            Phase::Draining { since_ns } => {
                let (now_ns, last) = (self.shared.now_ns, self.shared.last_ns);
                let quiet_since = last.acked.max(last.delivered).max(*since_ns);
                let waited = now_ns.saturating_sub(*since_ns);
                let done =
                    self.shared.is_all_there(self.spec.processes == 1) || now_ns - quiet_since.min(now_ns) > QUIET_NS;
                if done || waited > nanos(self.spec.drain) {
                    return true;
                }
            }
        }
        self.tick();
        false
    }

    fn tick(&mut self) {
        let now_ns = self.shared.now_ns;
        if now_ns >= self.next_tick_ns {
            self.next_tick_ns = (now_ns / TICK_NS + 1) * TICK_NS;
            (self.emit)(Event::Tick(self.shared.total));
        }
        if now_ns >= self.next_second_ns {
            self.next_second_ns = now_ns + 1_000_000_000;
            self.seconds += 1;
            self.ping();
            self.open_stalled_windows();
        }
    }

    fn ping(&mut self) {
        // At three quarters of the keep alive, each client in its own second.
        let every = u64::from(self.spec.keep_alive_s) * 3 / 4;
        if every == 0 {
            return;
        }
        for (slot, client) in self.clients.iter_mut().enumerate() {
            if (slot as u64 + self.seconds).is_multiple_of(every) && client.ping() {
                self.shared.touch(slot);
            }
        }
    }

    fn open_stalled_windows(&mut self) {
        if !matches!(self.phase, Phase::Publishing) || matches!(self.shared.credit, Credit::None) {
            return;
        }
        let last = self.shared.last_ns;
        if self.shared.now_ns.saturating_sub(last.acked.max(last.delivered).max(self.shared.begin_ns)) < STALL_NS {
            return;
        }
        for slot in self.shared.publishers().collect::<Vec<_>>() {
            if let Some(publisher) = &mut self.clients[slot].publisher {
                self.shared.forgive(publisher);
                self.shared.refill.push(slot);
            }
        }
    }

    /// Begins as many connections as the ramp and the bound allow.
    fn connect(&mut self) {
        let Phase::Connecting(ramp) = &mut self.phase else { return };
        let processes = self.spec.processes as u64;
        let outstanding_max = (self.spec.connecting.outstanding_max as u64 / processes).max(1);
        loop {
            if self.shared.connecting >= outstanding_max {
                return;
            }
            let mut due_ns = self.shared.now_ns;
            if let Some(rate) = self.spec.connecting.rate {
                due_ns = ramp.started_ns + (ramp.begun as f64 * 1e9 * processes as f64 / rate) as u64;
                if due_ns > self.shared.now_ns {
                    self.timer.set(due_ns);
                    return;
                }
            }
            let Some(at) = ramp.waiting.next() else { break };
            ramp.begun += 1;
            let slot = self.clients.len();
            let (plan, registry) = (&self.plans[at], self.poll.registry());
            match Client::connect(&self.connector, &self.spec, (at, plan), due_ns, registry, Token(slot)) {
                Ok(client) => {
                    if let Some(publisher) = &client.publisher {
                        self.shared.slots[publisher.number as usize] = slot as u32;
                    }
                    self.clients.push(client);
                    self.shared.connecting += 1;
                }
                Err(error) => self.shared.fail(&error),
            }
        }
        if self.shared.connecting == 0 {
            let stage = ramp.stage;
            self.phase = Phase::Waiting;
            (self.emit)(Event::Connected { stage, failed: self.shared.failed });
            (self.emit)(Event::Tick(self.shared.total));
        }
    }

    fn publish(&mut self) {
        if self.shared.now_ns >= self.shared.end_ns {
            self.shared.refill.clear();
            return;
        }
        if !self.pacers.is_empty() {
            let next_ns = self.pacers.iter_mut().map(|pacer| pacer.publish(&mut self.clients, &mut self.shared)).min();
            self.timer.set(next_ns.unwrap_or(u64::MAX).min(self.shared.end_ns));
            return;
        }
        let mut refill = std::mem::take(&mut self.shared.refill);
        for slot in refill.drain(..) {
            let client = &mut self.clients[slot];
            let is_closed = client.is_closed();
            let Some(publisher) = client.publisher.as_mut().filter(|_| !is_closed) else { continue };
            let mut room = self.shared.room(publisher);
            let bounded = self.spec.scenario == Scenario::Retained && self.spec.qos == QoS::AtMostOnce;
            while room > 0 && !(bounded && client.out.len() > OUT_BYTES_HIGH) {
                publisher.publish(&self.spec, &mut client.out, self.shared.now_ns);
                self.shared.count_published();
                room -= 1;
            }
            if bounded && room > 0 {
                self.shared.later.push(slot);
            }
            self.shared.touch(slot);
        }
        // The one buffer goes back, with its capacity.
        refill.append(&mut self.shared.later);
        self.shared.refill = refill;
    }

    fn read(&mut self, slot: usize, scratch: &mut Scratch, closing: bool) {
        loop {
            let client = &mut self.clients[slot];
            let Some(transport) = &mut client.transport else { return };
            let result = match transport.read(scratch) {
                Ok(input) if input.closed => Err(io::Error::other("the broker closed the connection")),
                Ok(input) => {
                    let plan = &self.plans[client.plan];
                    client
                        .receive(input.bytes, plan, &mut self.shared)
                        .map(|()| (input.more || closing) && !input.bytes.is_empty())
                }
                Err(error) => Err(error),
            };
            match result {
                Ok(more) => {
                    self.shared.touch(slot);
                    if !more {
                        break;
                    }
                }
                Err(error) => {
                    self.end(slot, &error);
                    return;
                }
            }
        }
        let client = &mut self.clients[slot];
        if client.wants_close(&self.spec) {
            client.leave(&self.spec, self.poll.registry(), false);
        } else if client.is_deaf() && client.is_ready() {
            client.forget(self.poll.registry());
        }
    }

    fn end(&mut self, slot: usize, error: &io::Error) {
        let client = &mut self.clients[slot];
        self.shared.fail(error);
        if client.is_ready() {
            self.shared.total.ready -= 1;
        } else {
            self.shared.connecting -= 1;
        }
        client.close(self.poll.registry());
    }

    fn flush(&mut self) {
        let mut touched = std::mem::take(&mut self.shared.touched);
        for slot in touched.drain(..) {
            self.shared.is_touched[slot] = false;
            let Some(client) = self.clients.get_mut(slot) else { continue };
            if let Err(error) = client.flush() {
                self.end(slot, &error);
            }
        }
        self.shared.touched = touched;
    }

    /// Reads the clock once a turn, and notes the borders of the measured time.
    fn clock(&mut self) {
        let shared = &mut self.shared;
        shared.now_ns = now_ns();
        let measuring = (shared.begin_ns..shared.end_ns).contains(&shared.now_ns);
        if measuring != shared.measuring {
            shared.measuring = measuring;
            let cpu = clock_gettime(ClockId::ThreadCPUTime);
            self.own_cpu_ns[usize::from(!measuring)] =
                cpu.tv_sec.unsigned_abs() * 1_000_000_000 + cpu.tv_nsec.unsigned_abs();
        }
    }

    /// What was retained is taken away, and sessions that would outlive the run end with it.
    fn say_goodbye(&mut self) {
        self.flush();
        for client in &mut self.clients {
            if let (Scenario::Retained, Some(publisher)) = (self.spec.scenario, &mut client.publisher) {
                publisher.clear_retained(&self.spec, &mut client.out);
            }
            client.leave(&self.spec, self.poll.registry(), true);
        }
    }

    fn outcome(&mut self) -> Outcome {
        let unsent = self.pacers.iter().map(|pacer| pacer.unsent(&self.clients, self.shared.end_ns)).sum();
        let own_cpu_ns = self.own_cpu_ns[1].saturating_sub(self.own_cpu_ns[0]);
        let mut outcome = self.shared.take_outcome();
        (outcome.unsent, outcome.own_cpu_ns) = (unsent, own_cpu_ns);
        outcome
    }

    /// Which worker this is.
    #[must_use]
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// What was counted so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.total
    }
}
