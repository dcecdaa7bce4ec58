//! The parent's part of a run: phases, the broker's CPU and memory, the progress bar.
//!
//! ```text
//! memory ─▶ connect, stage by stage ─▶ warm up ─▶ CPU ─▶ measured time ─▶ CPU, memory ─▶ stragglers ─▶ outcome
//! ```

use std::io;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::clock::{TICK_NS, nanos, now_ns, until};
use crate::cpu;
use crate::outcome::{Counts, Outcome};
use crate::plan::{Plan, STAGES};
use crate::protocol::{Command, Event};
use crate::spec::{Scenario, Spec};
use crate::workers::Workers;

/// After a tick, until the counts of all workers have come.
const ARRIVAL_NS: u64 = 60_000_000;
/// A stage of connecting in which nobody gets ready for so long is given up.
const CONNECT_QUIET: Duration = Duration::from_secs(30);

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was run.
    pub spec: Spec,
    /// What the workers measured.
    pub outcome: Outcome,
    /// Clients.
    pub connections: usize,
    /// From the first connect to the last CONNACK or SUBACK.
    pub connecting: Usage,
    /// The measured time.
    pub measured: Usage,
    /// `Retained`: publishing, until the last acknowledgement; fetching, until the last delivery.
    pub retained: Option<(Usage, Usage)>,
    /// Private memory of the broker, before connecting and at the end of the measured time or the hold.
    pub broker_bytes: Option<(u64, u64)>,
    /// How it went.
    pub samples: Vec<Sample>,
}

/// A length of time, and the CPU that the broker used in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// The time.
    pub elapsed: Duration,
    /// The CPU, if the broker's process is known.
    pub cpu: Option<Duration>,
}

impl Usage {
    /// CPU of one of `n`, in microseconds.
    #[must_use]
    pub fn cpu_us_per(&self, n: u64) -> Option<f64> {
        self.cpu.filter(|_| n > 0).map(|cpu| cpu.as_secs_f64() * 1e6 / n as f64)
    }

    /// So many of `n` a second.
    #[must_use]
    pub fn rate(&self, n: u64) -> f64 {
        n as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Cores that were busy.
    #[must_use]
    pub fn cores(&self) -> Option<f64> {
        self.cpu.map(|cpu| cpu.as_secs_f64() / self.elapsed.as_secs_f64().max(1e-9))
    }
}

/// Where things stood.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Sample {
    /// Seconds since the start.
    pub at_s: f64,
    /// All workers together.
    pub counts: Counts,
    /// The broker's CPU so far.
    pub cpu: Option<Duration>,
    /// The broker's resident memory.
    pub resident_bytes: Option<u64>,
}

/// A run under way.
struct Conductor<'a> {
    spec: &'a Spec,
    broker_pid: Option<u32>,
    workers: Workers,
    bar: ProgressBar,
    started_ns: u64,
    next_sample_ns: u64,
    counts: Vec<Counts>,
    stages_done: usize,
    failed: Vec<u64>,
    outcomes: Vec<Outcome>,
    samples: Vec<Sample>,
}

/// Runs it. `bar`: shows progress on a terminal.
///
/// # Errors
/// A worker can't go on, or clients that the scenario needs were refused.
pub fn run(spec: &Spec, broker_pid: Option<u32>, workers: Workers, bar: bool) -> io::Result<Report> {
    let bar = if bar { ProgressBar::new(0) } else { ProgressBar::hidden() };
    let style =
        ProgressStyle::with_template("{prefix:10} {bar:40} {elapsed_precise}  {msg}").map_err(io::Error::other)?;
    bar.set_style(style);
    let count = workers.count();
    let conductor = Conductor {
        spec,
        broker_pid,
        workers,
        bar,
        started_ns: now_ns(),
        next_sample_ns: 0,
        counts: vec![Counts::default(); count],
        stages_done: 0,
        failed: vec![0; count],
        outcomes: Vec::new(),
        samples: Vec::new(),
    };
    conductor.run()
}

impl Conductor<'_> {
    fn run(mut self) -> io::Result<Report> {
        let bytes_before = self.broker_pid.and_then(cpu::private_bytes);
        let is_retained = self.spec.scenario == Scenario::Retained;
        let begin = self.mark();
        for stage in 0..if is_retained { 1 } else { STAGES } {
            self.connect(stage)?;
        }
        let mut connecting = begin.to(self.mark());
        let (mut measured, mut retained) = (Usage::default(), None);
        match self.spec.scenario {
            Scenario::Connect => {}
            Scenario::Idle => {
                let hold = now_ns() + nanos(self.spec.duration);
                let begin = self.mark();
                self.pump("holding", Some(hold), |_| false)?;
                measured = begin.to(self.mark());
            }
            Scenario::Retained => {
                let (stored, connected, fetched) = self.retained()?;
                connecting.elapsed += connected.elapsed;
                connecting.cpu = connecting.cpu.zip(connected.cpu).map(|(a, b)| a + b);
                retained = Some((stored, fetched));
            }
            _ => measured = self.measure()?,
        }
        let bytes_after = self.broker_pid.and_then(cpu::private_bytes);
        self.workers.send(Command::Finish)?;
        let all = self.workers.count();
        let deadline = now_ns() + nanos(self.spec.drain) + 10_000_000_000;
        self.pump("finishing", Some(deadline), |run| run.outcomes.len() == all)?;
        self.bar.finish_and_clear();
        if self.outcomes.len() < all {
            return Err(io::Error::other("a worker doesn't end"));
        }
        let mut outcome = Outcome::default();
        self.outcomes.iter().for_each(|part| outcome.add(part));
        if let Some((stored, fetched)) = &mut retained {
            // The workers know the moment of the last message; what they tell now and then is too coarse.
            stored.end(outcome.last_ns.acked);
            fetched.end(outcome.last_ns.delivered);
            measured = fetched.usage;
        }
        Ok(Report {
            spec: self.spec.clone(),
            outcome,
            connections: Plan::clients(self.spec),
            connecting,
            measured,
            retained: retained.map(|(stored, fetched)| (stored.usage, fetched.usage)),
            broker_bytes: bytes_before.zip(bytes_after),
            samples: self.samples,
        })
    }

    fn mark(&self) -> Mark {
        Mark { at_ns: now_ns(), cpu: self.broker_pid.and_then(cpu::cpu_time) }
    }

    /// Connects everybody of a stage.
    fn connect(&mut self, stage: u8) -> io::Result<()> {
        let target = self.workers.count();
        self.stages_done = 0;
        self.workers.send(Command::Connect { stage })?;
        let mut progress = (0, now_ns());
        while self.stages_done < target {
            self.pump("connecting", Some(now_ns() + TICK_NS), |run| run.stages_done == target)?;
            let ready = self.sum().ready;
            if ready > progress.0 {
                progress = (ready, now_ns());
            } else if now_ns() - progress.1 > nanos(CONNECT_QUIET) {
                return Err(io::Error::other(format!("{ready} clients are connected, and no more come")));
            }
        }
        let failed: u64 = self.failed.iter().sum();
        let may_fail = matches!(self.spec.scenario, Scenario::Connect | Scenario::Idle);
        if failed > 0 && !(may_fail && self.sum().ready > 0) {
            return Err(self.explain(failed));
        }
        Ok(())
    }

    /// The workers know the reasons, and tell them with their outcomes.
    fn explain(&mut self, failed: u64) -> io::Error {
        let all = self.workers.count();
        let asked = self
            .workers
            .send(Command::Finish)
            .and_then(|()| self.pump("finishing", Some(now_ns() + 10_000_000_000), |run| run.outcomes.len() == all));
        let mut outcome = Outcome::default();
        self.outcomes.iter().for_each(|part| outcome.add(part));
        let reasons: Vec<String> =
            outcome.failures.iter().map(|(reason, count)| format!("{reason} ({count})")).collect();
        match asked {
            Ok(()) => io::Error::other(format!("{failed} clients could not connect: {}", reasons.join("; "))),
            Err(error) => error,
        }
    }

    fn measure(&mut self) -> io::Result<Usage> {
        if self.spec.offline {
            self.workers.send(Command::Leave)?;
        }
        let begin_ns = now_ns() + nanos(self.spec.warmup);
        let end_ns = begin_ns + nanos(self.spec.duration);
        self.workers.send(Command::Publish { begin_ns, end_ns })?;
        self.pump("warming up", Some(begin_ns), |_| false)?;
        let begin = self.mark();
        self.pump("measuring", Some(end_ns), |_| false)?;
        Ok(begin.to(self.mark()))
    }

    /// Publishing, connecting the subscribers, fetching.
    fn retained(&mut self) -> io::Result<(Span, Usage, Span)> {
        let stored = (self.spec.publishers * self.spec.messages) as u64;
        let limit_ns = || Some(now_ns() + 600_000_000_000);
        let acked = self.spec.qos as u8 > 0;
        let begin = self.mark();
        self.workers.send(Command::Publish { begin_ns: now_ns(), end_ns: u64::MAX })?;
        self.pump("storing", limit_ns(), |run| {
            let counts = run.sum();
            (if acked { counts.acked } else { counts.published }) >= stored
        })?;
        let stored_mark = self.mark();
        self.connect(1)?;
        let connected = self.mark();
        self.workers.send(Command::Subscribe)?;
        let wanted = stored * self.spec.subscribers as u64;
        // The last of them may be lost: then it is over when nothing comes any more.
        let mut last = (0, now_ns());
        self.pump("fetching", limit_ns(), |run| {
            let delivered = run.sum().delivered;
            if delivered > last.0 {
                last = (delivered, now_ns());
            }
            delivered >= wanted || now_ns() - last.1 > 5_000_000_000
        })?;
        let stored = Span { since_ns: begin.at_ns, usage: begin.to(stored_mark) };
        let fetched = Span { since_ns: connected.at_ns, usage: connected.to(self.mark()) };
        Ok((stored, stored_mark.to(connected), fetched))
    }

    fn sum(&self) -> Counts {
        let mut sum = Counts::default();
        self.counts.iter().for_each(|counts| sum += *counts);
        sum
    }

    /// Takes events until something is so or it is so late.
    fn pump(
        &mut self,
        phase: &'static str,
        end_ns: Option<u64>,
        mut done: impl FnMut(&Self) -> bool,
    ) -> io::Result<()> {
        self.bar.set_prefix(phase);
        let (begin_ns, end_ns) = (now_ns(), end_ns.unwrap_or(u64::MAX));
        loop {
            let now = now_ns();
            if now >= end_ns || done(self) {
                return Ok(());
            }
            self.sample(now);
            self.show(now - begin_ns, end_ns - begin_ns);
            let timeout = until(end_ns.min(self.next_sample_ns)).min(Duration::from_millis(100));
            match self.workers.next(timeout)? {
                Some((worker, Event::Tick(counts))) => self.counts[worker] = counts,
                Some((worker, Event::Connected { failed, .. })) => {
                    self.failed[worker] = failed;
                    self.stages_done += 1;
                }
                Some((_, Event::Outcome(outcome))) => self.outcomes.push(*outcome),
                Some((_, Event::Failed(why))) => return Err(io::Error::other(why)),
                None => {}
            }
        }
    }

    fn sample(&mut self, now: u64) {
        if now < self.next_sample_ns {
            return;
        }
        let tick_ns = now / TICK_NS * TICK_NS;
        self.next_sample_ns = tick_ns + TICK_NS + ARRIVAL_NS;
        self.samples.push(Sample {
            at_s: tick_ns.saturating_sub(self.started_ns) as f64 / 1e9,
            counts: self.sum(),
            cpu: self.broker_pid.and_then(cpu::cpu_time),
            resident_bytes: self.broker_pid.and_then(cpu::resident_bytes),
        });
        if let [.., before, last] = self.samples.as_slice() {
            let (counts, span_s) = (last.counts.since(before.counts), last.at_s - before.at_s);
            let rate = |n: u64| n as f64 / span_s;
            self.bar.set_message(format!(
                "{} connected, {:.0} published/s, {:.0} delivered/s",
                last.counts.ready,
                rate(counts.published),
                rate(counts.delivered)
            ));
        }
    }

    fn show(&self, passed_ns: u64, length_ns: u64) {
        // What takes no known time shows how many are connected.
        let (position, length) = match self.spec.scenario {
            _ if length_ns < 100_000_000_000 && length_ns > TICK_NS => (passed_ns, length_ns),
            _ => (self.sum().ready, Plan::clients(self.spec) as u64),
        };
        self.bar.set_length(length);
        self.bar.set_position(position);
    }
}

/// A moment, and the CPU that the broker had used by then.
#[derive(Clone, Copy)]
struct Mark {
    at_ns: u64,
    cpu: Option<Duration>,
}

impl Mark {
    fn to(self, later: Self) -> Usage {
        let cpu = later.cpu.zip(self.cpu).map(|(now, then)| now.saturating_sub(then));
        Usage { elapsed: Duration::from_nanos(later.at_ns - self.at_ns), cpu }
    }
}

/// A part of a run whose end is known better afterwards.
#[derive(Clone, Copy)]
struct Span {
    since_ns: u64,
    usage: Usage,
}

impl Span {
    /// It ended then, if anything happened in it.
    fn end(&mut self, at_ns: u64) {
        if let Some(elapsed_ns) = at_ns.checked_sub(self.since_ns).filter(|ns| *ns > 0) {
            self.usage.elapsed = self.usage.elapsed.min(Duration::from_nanos(elapsed_ns));
        }
    }
}
