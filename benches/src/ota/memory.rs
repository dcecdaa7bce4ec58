//! How much memory a process has meanwhile, and the CPU that it takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context;

use super::report::Row;
use crate::cpu;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// Looks at a process until it is finished.
pub(super) struct Watch {
    pid: u32,
    before: u64,
    cpu: Duration,
    peak: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// What was seen.
pub(super) struct Seen {
    before: u64,
    peak: u64,
    /// Of all threads that live at the end.
    pub(super) cpu: Duration,
}

impl Watch {
    pub(super) fn start(pid: u32) -> anyhow::Result<Self> {
        let gone = "the broker can't be looked at";
        let before = cpu::resident_bytes(pid).context(gone)?;
        let cpu = cpu::cpu_time(pid).context(gone)?;
        let (peak, over) = (Arc::new(AtomicU64::new(before)), Arc::new(AtomicBool::new(false)));
        let (highest, end) = (Arc::clone(&peak), Arc::clone(&over));
        let thread = thread::Builder::new().name("memory".to_owned()).spawn(move || {
            while !end.load(Relaxed) {
                highest.fetch_max(cpu::resident_bytes(pid).unwrap_or(0), Relaxed);
                thread::sleep(LOOK);
            }
        })?;
        Ok(Self { pid, before, cpu, peak, over, thread })
    }

    pub(super) fn finish(self) -> Seen {
        let now = cpu::cpu_time(self.pid).unwrap_or_default();
        self.over.store(true, Relaxed);
        let _ = self.thread.join();
        let last = cpu::resident_bytes(self.pid).unwrap_or(0);
        let peak = self.peak.load(Relaxed).max(last);
        Seen { before: self.before, peak, cpu: now.saturating_sub(self.cpu) }
    }
}

impl Seen {
    pub(super) fn rows(&self) -> [Row; 2] {
        let mb = |bytes: u64| bytes as f64 / 1e6;
        [
            Row::new("broker's memory before, MB", mb(self.before)),
            Row::new("broker's memory at most, MB", mb(self.peak)),
        ]
    }
}
