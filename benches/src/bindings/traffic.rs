//! The load of the rounds: one worker whose clients stay connected while it is told to go on and to pause.

use std::io;
use std::time::Duration;

use crate::clock::now_ns;
use crate::outcome::{Counts, Outcome};
use crate::plan::STAGES;
use crate::protocol::{Command, Event};
use crate::spec::Spec;
use crate::workers::Workers;

const CONNECT_TIME_MAX_NS: u64 = 30_000_000_000;
/// Until what is under way has arrived.
const ARRIVAL_TIME_MAX_NS: u64 = 10_000_000_000;

pub(super) struct Traffic {
    workers: Workers,
    copies: u64,
    counts: Counts,
    /// At the last pause.
    delivered: u64,
}

impl Traffic {
    /// Connects everybody. `spec` is of one process.
    pub(super) fn start(spec: &Spec) -> anyhow::Result<Self> {
        let copies = spec.copies() as u64;
        let mut traffic = Self { workers: Workers::processes(spec)?, copies, counts: Counts::default(), delivered: 0 };
        for stage in 0..STAGES {
            traffic.workers.send(Command::Connect { stage })?;
            let failed = traffic.wait(CONNECT_TIME_MAX_NS, |_, event| match event {
                Some(Event::Connected { failed, .. }) => Some(*failed),
                _ => None,
            })?;
            if failed > 0 {
                let outcome = traffic.finish()?;
                anyhow::bail!("{failed} clients could not connect: {:?}", outcome.failures);
            }
        }
        Ok(traffic)
    }

    /// Publishes from now on.
    pub(super) fn go_on(&mut self) -> io::Result<()> {
        self.workers.send(Command::Publish { begin_ns: now_ns(), end_ns: u64::MAX })
    }

    /// Publishes no more, and waits until all has arrived. How many deliveries there were since the last pause.
    pub(super) fn pause(&mut self) -> anyhow::Result<u64> {
        let now = now_ns();
        self.workers.send(Command::Publish { begin_ns: now, end_ns: now })?;
        // What it has told meanwhile is past.
        while self.workers.next(Duration::ZERO)?.is_some() {}
        let (copies, mut before) = (self.copies, None);
        // Two ticks that say the same: the first may have been on its way before the worker was told.
        self.wait(ARRIVAL_TIME_MAX_NS, |counts, event| {
            let Some(Event::Tick(_)) = event else { return None };
            let same = before.replace(counts) == Some(counts);
            (same && counts.delivered == counts.published * copies).then_some(())
        })?;
        let delivered = self.counts.delivered - self.delivered;
        self.delivered = self.counts.delivered;
        Ok(delivered)
    }

    /// Disconnects everybody.
    ///
    /// # Errors
    /// A connection that failed, or a message that came twice or out of order: then the figures are those of a broker that is broken.
    pub(super) fn end(mut self) -> anyhow::Result<()> {
        let outcome = self.finish()?;
        anyhow::ensure!(outcome.failures.is_empty(), "connections failed: {:?}", outcome.failures);
        let faults = (outcome.lost(usize::try_from(self.copies)?), outcome.repeated, outcome.reordered, outcome.stalls);
        anyhow::ensure!(faults == (0, 0, 0, 0), "lost, repeated, out of order, stalls: {faults:?}");
        Ok(())
    }

    fn finish(&mut self) -> io::Result<Box<Outcome>> {
        self.workers.send(Command::Finish)?;
        self.wait(ARRIVAL_TIME_MAX_NS, |_, event| match event {
            Some(Event::Outcome(outcome)) => Some(outcome.clone()),
            _ => None,
        })
    }

    /// Takes events until one of them is an answer.
    fn wait<T>(
        &mut self,
        time_max_ns: u64,
        mut answer: impl FnMut(Counts, Option<&Event>) -> Option<T>,
    ) -> io::Result<T> {
        let deadline_ns = now_ns() + time_max_ns;
        while now_ns() < deadline_ns {
            let event = self.workers.next(Duration::from_millis(100))?.map(|(_, event)| event);
            if let Some(Event::Tick(counts)) = &event {
                self.counts = *counts;
            }
            if let Some(answer) = answer(self.counts, event.as_ref()) {
                return Ok(answer);
            }
        }
        Err(io::Error::other(format!("it takes too long; so far {:?}", self.counts)))
    }
}
