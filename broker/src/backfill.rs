//! The desk for stored data: batches of records that devices kept while they were offline.
//!
//! ```text
//! shard ─▶ take ─▶ worker of the device: decode ─▶ pace, budget ─▶ slices ─▶ home shard of the device ─▶ one ticket a slice
//!                                                                                          │
//!              device ◀─ `…/backfill/ack`, PUBACK ◀─ all slices are on disk ◀──────────────┘
//! ```
//!
//! `turnpike_backfill` decides; `../backfill/DESIGN.md` has the invariants. A device always has the same worker, a thread with a runtime of its own, which owns
//! the device's ledger and does one batch of a device after another; batches of different devices are under way together.
//!
//! **Invariant:** what batches take of memory has a bound, whoever comes, goes and comes again: packed, as errands of the shards; unpacked, as
//! [`BackfillSettings::held_bytes_max`]. One of a device is under way and one more waits; who comes beyond any of this is told to come again.

mod forget;
mod held;
mod refusals;
mod settings;
mod under_way;
mod worker;

use std::hash::{BuildHasher, Hasher};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use turnpike_backfill::ledger::{LedgerError, Ledgers};
use turnpike_core::concern::Concern;
use turnpike_core::durable::Op;
use turnpike_core::gate::{DeviceIdentity, Principal};
use turnpike_core::shard::Errand;

pub use settings::BackfillSettings;

use crate::audit::AuditSink;
use crate::desk::{ByCode, Done};
use crate::server::Control;

/// What a worker is given.
enum Work {
    /// A batch.
    Batch(Box<Errand>, Done),
    /// These are no more, and nor is what is known of them.
    Forget(Concern),
}

/// What was done.
#[derive(Debug, Default)]
pub struct Counts {
    /// Batches of which nothing is left to do.
    pub batches: AtomicU64,
    /// Records published.
    pub taken: AtomicU64,
    /// Records that had been taken before.
    pub known: AtomicU64,
    /// Records, and batches as a whole, that were bad.
    pub refused: AtomicU64,
    /// Batches whose device was told to come later.
    pub paced: AtomicU64,
    /// Batches whose connection had gone before their turn came.
    pub left: AtomicU64,
    /// What was refused, by why.
    pub refusals: ByCode,
}

impl Counts {
    /// With the outcome that each counts.
    #[must_use]
    pub fn all(&self) -> [(&'static str, u64); 6] {
        [
            ("batches", &self.batches),
            ("taken", &self.taken),
            ("known", &self.known),
            ("refused", &self.refused),
            ("paced", &self.paced),
            ("left", &self.left),
        ]
        .map(|(name, count)| (name, count.load(Relaxed)))
    }
}

/// The desk.
pub struct Backfill {
    settings: BackfillSettings,
    senders: Vec<UnboundedSender<Work>>,
    /// What the workers begin with, until they do.
    beginning: Mutex<Vec<(Ledgers, UnboundedReceiver<Work>)>>,
    counts: Arc<Counts>,
}

impl std::fmt::Debug for Backfill {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backfill").field("workers", &self.senders.len()).finish_non_exhaustive()
    }
}

impl Backfill {
    /// A desk that takes up what there is of ledgers, and batches, which wait until it starts.
    #[must_use]
    pub fn new(settings: BackfillSettings) -> Self {
        let workers = settings.workers.max(1);
        let (mut senders, mut beginning) = (Vec::new(), Vec::new());
        for _ in 0..workers {
            let (sender, receiver) = unbounded_channel();
            senders.push(sender);
            beginning.push((Ledgers::new(settings.devices_max.div_ceil(workers)), receiver));
        }
        Self { settings, senders, beginning: Mutex::new(beginning), counts: Arc::default() }
    }

    /// Takes a record of the store back, before the start.
    ///
    /// # Errors
    /// [`LedgerError`]: the broker doesn't start on it.
    pub fn load(&self, key: &[u8], value: &[u8]) -> Result<(), LedgerError> {
        let (product, device) = turnpike_backfill::ledger::parse_key(key)?;
        let worker = self.worker_of(product, device);
        match self.beginning.lock().get_mut(worker) {
            Some((ledgers, _)) => ledgers.load(key, value),
            None => Ok(()),
        }
    }

    /// Starts the workers. What devices handed in that are no more is forgotten first: whoever gets their names begins anew.
    ///
    /// # Errors
    /// A thread can't be started.
    pub fn start(&self, control: &Control, audit: AuditSink, is_gone: &dyn Fn(&Principal) -> bool) -> io::Result<()> {
        let mut beginning = std::mem::take(&mut *self.beginning.lock());
        for (ledgers, _) in &mut beginning {
            let gone = |product: &str, device: &str| {
                is_gone(&Principal::Device(Arc::new(DeviceIdentity::new(product, device))))
            };
            let keys = ledgers.remove_all(gone);
            if !keys.is_empty() {
                drop(control.commit_registry(keys.into_iter().map(Op::RegistryDelete).collect()));
            }
        }
        let shared = worker::Shared::new(&self.settings, control, &self.counts, audit);
        for (ledgers, receiver) in beginning {
            worker::start(Arc::clone(&shared), ledgers, receiver)?;
        }
        Ok(())
    }

    /// Takes a batch. Never waits: how many there are the shards bound, until it is done.
    pub fn take(&self, errand: Errand, done: Done) {
        let worker = self.worker_of(&errand.device.product, &errand.device.device);
        if let Some(sender) = self.senders.get(worker) {
            // A worker that is gone drops it, which refuses the message.
            let _ = sender.send(Work::Batch(Box::new(errand), done));
        }
    }

    /// Devices that are no more: whoever gets their names begins anew.
    pub fn forget(&self, concern: &Concern) {
        for sender in &self.senders {
            let _ = sender.send(Work::Forget(concern.clone()));
        }
    }

    /// What was done.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    fn worker_of(&self, product: &str, device: &str) -> usize {
        // Any hash that is the same for as long as the process lives.
        let mut hasher = foldhash::fast::FixedState::default().build_hasher();
        hasher.write(product.as_bytes());
        hasher.write_u8(0);
        hasher.write(device.as_bytes());
        hasher.finish() as usize % self.senders.len().max(1)
    }
}
