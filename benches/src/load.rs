//! One process's clients: a single epoll loop that publishes, receives, acknowledges, and measures.
//!
//! Far cheaper than any broker, or it would be what is measured: frames are encoded once and patched in place, reads go through
//! one buffer, and each touched connection is written once a turn.

mod client;

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::{Events, Poll};

use crate::cpu;
use crate::spec::{Scenario, Spec};
use client::{Client, Heard, Role};

/// Bytes at the front of each payload: publisher, sequence number, time.
pub const STAMP_BYTES: usize = 16;

/// What was measured.
#[derive(Debug)]
pub struct Outcome {
    /// Messages that reached a subscriber in the measured time.
    pub deliveries: u64,
    /// Messages that publishers sent in it.
    pub published: u64,
    /// Its length.
    pub elapsed: Duration,
    /// From publication to delivery, in microseconds.
    pub latency_us: Histogram<u64>,
    /// Deliveries with a sequence number that was skipped, in the whole run.
    pub lost: u64,
    /// Deliveries with a sequence number at or below the last.
    pub repeated: u64,
    /// CPU that the broker used in the measured time, if its pid was given.
    pub broker_cpu: Option<Duration>,
    /// CPU that this process used.
    pub own_cpu: Duration,
    /// Private memory of the broker: before connecting, and at the end of the hold.
    pub broker_bytes: Option<(u64, u64)>,
    /// Time and broker's CPU from the first connect to the last CONNACK.
    pub connecting: (Duration, Option<Duration>),
    /// Connections.
    pub connections: usize,
}

/// The clients and what they share.
pub struct Load<'a> {
    spec: &'a Spec,
    poll: Poll,
    clients: Vec<Client>,
    touched: Vec<usize>,
    refill: VecDeque<usize>,
    ready: usize,
    started: Instant,
    measuring: bool,
    stopped: bool,
    deliveries: u64,
    published: u64,
    latency_us: Histogram<u64>,
    /// Per publisher: deliveries so far.
    delivered: Vec<u64>,
}

impl<'a> Load<'a> {
    /// Nobody is connected yet.
    ///
    /// # Errors
    /// What epoll says.
    pub fn new(spec: &'a Spec) -> io::Result<Self> {
        Ok(Self {
            spec,
            poll: Poll::new()?,
            clients: Vec::with_capacity(spec.publishers + spec.subscribers),
            touched: Vec::new(),
            refill: VecDeque::new(),
            ready: 0,
            started: Instant::now(),
            measuring: false,
            stopped: false,
            deliveries: 0,
            published: 0,
            latency_us: Histogram::new_with_bounds(1, 60_000_000, 3).map_err(io::Error::other)?,
            delivered: vec![0; spec.publishers],
        })
    }

    /// Connects everybody, runs the warm-up and the measured time, and drains.
    ///
    /// # Errors
    /// A connection that is refused or ends, with the client's number.
    pub fn run(mut self) -> io::Result<Outcome> {
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; 256 << 10];
        let bytes_before = self.spec.broker_pid.and_then(cpu::private_bytes);
        let connecting = self.connect_all(&mut events, &mut buffer)?;
        if self.spec.scenario == Scenario::Idle {
            self.turns(&mut events, &mut buffer, self.spec.duration)?;
            let bytes_after = self.spec.broker_pid.and_then(cpu::private_bytes);
            return Ok(self.outcome(Duration::ZERO, None, Duration::ZERO, bytes_before.zip(bytes_after), connecting));
        }
        for index in 0..self.clients.len() {
            self.refill.push_back(index);
        }
        self.fill();
        self.turns(&mut events, &mut buffer, self.spec.warmup)?;
        self.measuring = true;
        let (begun, cpu_before) = (Instant::now(), self.spec.broker_pid.and_then(cpu::cpu_time));
        let own_before = cpu::cpu_time(std::process::id()).unwrap_or_default();
        self.turns(&mut events, &mut buffer, self.spec.duration)?;
        self.measuring = false;
        let elapsed = begun.elapsed();
        let cpu_after = self.spec.broker_pid.and_then(cpu::cpu_time);
        let own_cpu = cpu::cpu_time(std::process::id()).unwrap_or_default() - own_before;
        self.stopped = true;
        self.turns(&mut events, &mut buffer, Duration::from_millis(200))?;
        let broker_cpu = cpu_before.zip(cpu_after).map(|(before, after)| after.saturating_sub(before));
        Ok(self.outcome(elapsed, broker_cpu, own_cpu, None, connecting))
    }

    fn outcome(
        self,
        elapsed: Duration,
        broker_cpu: Option<Duration>,
        own_cpu: Duration,
        broker_bytes: Option<(u64, u64)>,
        connecting: (Duration, Option<Duration>),
    ) -> Outcome {
        let (lost, repeated) = self.clients.iter().fold((0, 0), |(lost, repeated), client| match &client.role {
            Role::Subscriber(subscriber) => (lost + subscriber.lost, repeated + subscriber.repeated),
            Role::Publisher(_) | Role::Idle => (lost, repeated),
        });
        Outcome {
            deliveries: self.deliveries,
            published: self.published,
            elapsed,
            latency_us: self.latency_us,
            lost,
            repeated,
            broker_cpu,
            own_cpu,
            broker_bytes,
            connecting,
            connections: self.clients.len(),
        }
    }

    /// Subscribers first. At most `connecting_max` are under way at once.
    fn connect_all(&mut self, events: &mut Events, buffer: &mut [u8]) -> io::Result<(Duration, Option<Duration>)> {
        let total = self.spec.publishers + self.spec.subscribers;
        let (begun, cpu_before) = (Instant::now(), self.spec.broker_pid.and_then(cpu::cpu_time));
        let deadline = begun + Duration::from_secs(60);
        while self.ready < total {
            // Publishers wait until everybody who subscribes has subscribed.
            let subscribed = self.ready >= self.spec.subscribers;
            let limit = if subscribed { total } else { self.spec.subscribers };
            while self.clients.len() < limit && self.clients.len() - self.ready < self.spec.connecting_max {
                let index = self.clients.len();
                let client = Client::connect(self.spec, index, self.poll.registry())?;
                self.clients.push(client);
            }
            self.turn(events, buffer, Duration::from_millis(100))?;
            if Instant::now() > deadline {
                return Err(io::Error::other(format!(
                    "{} of {total} clients are connected after a minute",
                    self.ready
                )));
            }
        }
        let cpu = cpu_before.zip(self.spec.broker_pid.and_then(cpu::cpu_time)).map(|(before, after)| after - before);
        Ok((begun.elapsed(), cpu))
    }

    fn turns(&mut self, events: &mut Events, buffer: &mut [u8], duration: Duration) -> io::Result<()> {
        let end = Instant::now() + duration;
        loop {
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            self.turn(events, buffer, end - now)?;
        }
    }

    fn turn(&mut self, events: &mut Events, buffer: &mut [u8], timeout: Duration) -> io::Result<()> {
        self.flush()?;
        match self.poll.poll(events, Some(timeout)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in events.iter() {
            let index = event.token().0;
            if event.is_writable() {
                self.touch(index);
            }
            if event.is_readable() {
                self.read(index, buffer)?;
            }
        }
        if !self.stopped {
            self.fill();
        }
        self.flush()
    }

    fn read(&mut self, index: usize, buffer: &mut [u8]) -> io::Result<()> {
        loop {
            let now_ns = nanos(self.started);
            let spec = self.spec;
            let client = &mut self.clients[index];
            let (measuring, latency_us) = (self.measuring, &mut self.latency_us);
            let (deliveries, refill, delivered) = (&mut self.deliveries, &mut self.refill, &mut self.delivered);
            let mut became_ready = false;
            let more = client.read(spec, buffer, |heard| match heard {
                Heard::Ready => became_ready = true,
                Heard::Delivery { publisher, at_ns } => {
                    if measuring {
                        *deliveries += 1;
                        latency_us.saturating_record(now_ns.saturating_sub(at_ns) / 1000);
                    }
                    if let Some(count) = delivered.get_mut(publisher) {
                        *count += 1;
                        refill.push_back(spec.subscribers + publisher);
                    }
                }
            })?;
            self.ready += usize::from(became_ready);
            self.touch(index);
            if !more {
                return Ok(());
            }
        }
    }

    /// Lets publishers with room in their windows publish.
    fn fill(&mut self) {
        let copies = match self.spec.scenario {
            Scenario::FanOut => self.spec.subscribers as u64,
            Scenario::Pair | Scenario::FanIn | Scenario::Idle => 1,
        };
        while let Some(index) = self.refill.pop_front() {
            let now_ns = nanos(self.started);
            let Some(Client { role: Role::Publisher(publisher), out, .. }) = self.clients.get_mut(index) else {
                continue;
            };
            let done = self.delivered[publisher.index] / copies;
            let room = u64::from(self.spec.window).saturating_sub(publisher.sent.saturating_sub(done));
            if room == 0 {
                continue;
            }
            for _ in 0..room {
                publisher.publish(out, now_ns);
            }
            if self.measuring {
                self.published += room;
            }
            self.touch(index);
        }
    }

    fn touch(&mut self, index: usize) {
        let client = &mut self.clients[index];
        if !client.touched {
            client.touched = true;
            self.touched.push(index);
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        for index in std::mem::take(&mut self.touched) {
            let client = &mut self.clients[index];
            client.touched = false;
            client.flush()?;
        }
        Ok(())
    }
}

fn nanos(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
