//! A worker: batches of its devices, one after another of each device.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::fmt::Write;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{Semaphore, oneshot};
use turnpike_backfill::answer::{Ack, Stop, Tally, encode_pace};
use turnpike_backfill::batch::{Batch, Encoding, RecordError, Tree, decode};
use turnpike_backfill::bounds::Bounds;
use turnpike_backfill::budget::{Answer, Budget};
use turnpike_backfill::ledger::{self, Ledger, Ledgers, Verdict};
use turnpike_backfill::pace::{Pace, Pacer};
use turnpike_core::concern::Concern;
use turnpike_core::durable::Op;
use turnpike_core::gate::{DeviceIdentity, Principal};
use turnpike_core::message::{Message, MessageParts};
use turnpike_core::shard::Errand;
use turnpike_mqtt::{Forwardable, ForwardableItem, QoS, ReasonCode, TopicName, Version};

use super::{BackfillSettings, Counts, Work};
use crate::desk::Done;
use crate::server::Control;
use crate::shard::{OutsideMessage, Slice, SliceOutcome, SliceRecord};

/// Between two looks at how late live traffic is, while there is history.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Before a record is offered again for which a back end's queue had no room; doubled each time.
const ROOM_WAIT: Duration = Duration::from_millis(5);
const ROOM_WAIT_MAX: Duration = Duration::from_millis(500);
/// Then the rest of the batch is left to the device.
const ROOM_TIME_MAX: Duration = Duration::from_secs(30);
/// For so long an answer that isn't delivered is good: the device asks again anyway.
const ANSWER_MS: u64 = 60_000;

/// How much workers give way to other threads.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// What all workers have in common.
pub(super) struct Shared {
    settings: BackfillSettings,
    control: Control,
    counts: Arc<Counts>,
    budget: Mutex<Budget>,
    pacer: Mutex<Pacer>,
    /// A permit for each record under way.
    under_way: Semaphore,
}

impl Shared {
    pub(super) fn new(settings: &BackfillSettings, control: &Control, counts: &Arc<Counts>) -> Arc<Self> {
        let budget = Budget::new(settings.budget);
        let pacer = Pacer::new(settings.pace, budget.records_per_s());
        Arc::new(Self {
            settings: settings.clone(),
            control: control.clone(),
            counts: Arc::clone(counts),
            budget: Mutex::new(budget),
            pacer: Mutex::new(pacer),
            under_way: Semaphore::new(settings.under_way_max.max(settings.slice_records_max)),
        })
    }

    /// Tells the budget how late live traffic is: how long a shard takes to come round to what it is asked.
    async fn look(&self) {
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            if self.under_way.available_permits() >= self.settings.under_way_max {
                continue;
            }
            let late = self.control.turn_around().await;
            let late_ns = u64::try_from(late.as_nanos()).unwrap_or(u64::MAX);
            let now_ns = self.control.now().mono_ns();
            let mut budget = self.budget.lock();
            if budget.live(now_ns, late_ns) {
                self.pacer.lock().set_rate(budget.records_per_s());
            }
        }
    }

    /// Sends a device something of the exchange.
    fn tell(&self, device: &DeviceIdentity, what: &str, payload: Vec<u8>) {
        drop(self.control.publish_outside(OutsideMessage {
            principal: Principal::Broker,
            topic: format!("dev/{}/{}/backfill/{what}", device.product, device.device),
            payload,
            qos: QoS::AtLeastOnce,
            expires_at_ms: self.control.now().unix_ms + ANSWER_MS,
        }));
    }
}

/// Starts a worker, which ends when the desk is dropped.
pub(super) fn start(shared: Arc<Shared>, ledgers: Ledgers, receiver: UnboundedReceiver<Work>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let work = move || {
        give_way();
        let worker = Rc::new(Worker { shared, ledgers: RefCell::new(ledgers), waiting: RefCell::default() });
        tokio::task::LocalSet::new().block_on(&runtime, worker.run(receiver));
    };
    std::thread::Builder::new().name("backfill".to_owned()).spawn(work).map(drop)
}

/// Lets shards, and everybody else, come first where there are fewer cores than threads: history can wait.
fn give_way() {
    // On Linux this is the calling thread's, not the process's (setpriority(2), "C library/kernel differences").
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::debug!(%error, "workers for stored data have no lower priority");
    }
}

type Key = (Box<str>, Box<str>);
/// Batches of a device, in the order in which they came.
type Queue = VecDeque<(Box<Errand>, Done)>;

struct Worker {
    shared: Arc<Shared>,
    ledgers: RefCell<Ledgers>,
    /// Devices of which a batch is under way, and those that have come meanwhile.
    waiting: RefCell<HashMap<Key, Queue>>,
}

impl Worker {
    async fn run(self: Rc<Self>, mut receiver: UnboundedReceiver<Work>) {
        let looking = Arc::clone(&self.shared);
        tokio::task::spawn_local(async move { looking.look().await });
        while let Some(work) = receiver.recv().await {
            match work {
                Work::Batch(errand, done) => self.begin(errand, done),
                Work::Forget(concern) => self.forget(&concern),
            }
        }
    }

    fn begin(self: &Rc<Self>, errand: Box<Errand>, done: Done) {
        let key = (errand.device.product.clone(), errand.device.device.clone());
        if let Some(queue) = self.waiting.borrow_mut().get_mut(&key) {
            return queue.push_back((errand, done));
        }
        self.waiting.borrow_mut().insert(key.clone(), Queue::new());
        let worker = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let mut next = Some((errand, done));
            while let Some((errand, done)) = next {
                let outcome = worker.serve(&errand).await;
                done.say(outcome);
                let mut waiting = worker.waiting.borrow_mut();
                next = waiting.get_mut(&key).and_then(Queue::pop_front);
                if next.is_none() {
                    waiting.remove(&key);
                }
            }
        });
    }

    fn forget(&self, concern: &Concern) {
        let mut ledgers = self.ledgers.borrow_mut();
        let gone = |product: &str, device: &str| {
            concern.covers(&Principal::Device(Arc::new(DeviceIdentity::new(product, device))))
        };
        let keys = ledgers.remove_all(gone);
        if !keys.is_empty() {
            // Whoever has the name next waits for nothing of this: its own record comes after it.
            drop(self.shared.control.commit_registry(keys.into_iter().map(Op::RegistryDelete).collect()));
        }
    }

    /// Does one batch. The outcome is of the MQTT message: that it was heard, and what there is to be answered has been.
    async fn serve(&self, errand: &Errand) -> Result<(), ReasonCode> {
        let (shared, device) = (&*self.shared, &*errand.device);
        let now = shared.control.now();
        let parts = errand.message.parts();
        let content_type = content_type(parts.properties);
        let bounds = &shared.settings.bounds;
        let mut batch = match decode(parts.payload, content_type, bounds) {
            Ok(batch) => batch,
            Err(error) => {
                shared.counts.refused.fetch_add(1, Relaxed);
                let encoding = Encoding::guess(parts.payload);
                let ack = Ack { error: Some(error.into()), ..Ack::default() };
                shared.tell(device, "ack", ack.encode(encoding));
                return Ok(());
            }
        };
        batch.check(&Tree::new(&device.product, &device.device), now.unix_ms, bounds);
        let mut going = match Going::new(&self.ledgers.borrow(), device, batch, &shared.settings) {
            Ok(going) => going,
            Err(ack) => {
                shared.counts.refused.fetch_add(1, Relaxed);
                shared.tell(device, "ack", ack.1.encode(ack.0));
                return Ok(());
            }
        };
        if let Some(pace) = self.too_early(device, &going).await {
            shared.counts.paced.fetch_add(1, Relaxed);
            shared.tell(device, "pace", encode_pace(pace, going.batch.encoding()));
            // MQTT 3 has no word for it but the end of the connection, and a device that comes back at once is what a pace is to prevent.
            return if errand.version == Version::V5 { Err(ReasonCode::QuotaExceeded) } else { Ok(()) };
        }
        let principal = Principal::Device(Arc::clone(&errand.device));
        let published = self.publish(&principal, device, &mut going).await;
        going.count(&shared.counts);
        let rest = published?;
        for ack in going.acks() {
            shared.tell(device, "ack", ack.encode(going.batch.encoding()));
        }
        if let Some(pace) = rest {
            shared.tell(device, "pace", encode_pace(pace, going.batch.encoding()));
        }
        shared.counts.batches.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Waits for the budget, if that isn't long; else when to come again.
    async fn too_early(&self, device: &DeviceIdentity, going: &Going) -> Option<Pace> {
        let shared = &*self.shared;
        let hold_ms = u64::try_from(shared.settings.hold.as_millis()).unwrap_or(u64::MAX);
        let (records, bytes) = (going.fresh.len() as u64, going.batch.content_bytes());
        if records == 0 {
            return None;
        }
        let until_ms = shared.control.now().mono_ms.saturating_add(hold_ms);
        loop {
            let now = shared.control.now();
            let asked = shared.budget.lock().ask(now.mono_ns(), &device.product, &device.device, records, bytes);
            let wait_ms = match asked {
                Answer::Go => return None,
                Answer::Wait { ns } => ns.div_ceil(1_000_000),
            };
            if now.mono_ms.saturating_add(wait_ms) > until_ms {
                // Those who are told together get turns, so that they don't come together.
                let turn = shared.pacer.lock().slot(now.mono_ms, &device.product, &device.device);
                return Some(Pace { after_ms: wait_ms.max(turn.after_ms), ..turn });
            }
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        }
    }

    /// Publishes what is new, slice by slice, and keeps what was lost. Gives a pace if back ends have no room for the rest.
    async fn publish(
        &self,
        principal: &Principal,
        device: &DeviceIdentity,
        going: &mut Going,
    ) -> Result<Option<Pace>, ReasonCode> {
        if going.fresh.is_empty() {
            if going.lost_any {
                self.keep(device, going).await?;
            }
            return Ok(None);
        }
        let (mut wait, mut waited) = (ROOM_WAIT, Duration::ZERO);
        while going.done < going.fresh.len() {
            let outcome = self.slice(principal, device, going).await?;
            going.advance(outcome.taken, &self.shared.settings.bounds);
            if outcome.taken > 0 {
                self.remember(device, going);
                (wait, waited) = (ROOM_WAIT, Duration::ZERO);
            }
            match outcome.stopped {
                None => {}
                Some(ReasonCode::QuotaExceeded) if waited < ROOM_TIME_MAX => {
                    tokio::time::sleep(wait).await;
                    waited += wait;
                    wait = (wait * 2).min(ROOM_WAIT_MAX);
                }
                Some(ReasonCode::QuotaExceeded) => {
                    let after_ms = u64::try_from(ROOM_TIME_MAX.as_millis()).unwrap_or(u64::MAX);
                    return Ok(Some(Pace { after_ms, records_per_s: self.shared.settings.pace.device_records_per_s }));
                }
                Some(_) => {
                    going.refuse("not_allowed");
                    break;
                }
            }
        }
        Ok(None)
    }

    async fn slice(
        &self,
        principal: &Principal,
        device: &DeviceIdentity,
        going: &Going,
    ) -> Result<SliceOutcome, ReasonCode> {
        let shared = &*self.shared;
        let records = going.slice(device, &shared.settings);
        let permits = u32::try_from(records.len()).unwrap_or(u32::MAX);
        let gone = |_| ReasonCode::ServerShuttingDown;
        let _permits = shared.under_way.acquire_many(permits).await.map_err(|_| ReasonCode::ServerShuttingDown)?;
        let (reply, outcome) = oneshot::channel();
        let keep = going.keeper(device, shared.settings.bounds);
        shared.control.publish_slice(device, Slice { principal: principal.clone(), records, keep, reply });
        outcome.await.map_err(gone)
    }

    /// Has a ledger kept that has changed without a record being published.
    async fn keep(&self, device: &DeviceIdentity, going: &mut Going) -> Result<(), ReasonCode> {
        let (reply, outcome) = oneshot::channel();
        let principal = Principal::Broker;
        let keep = going.keeper(device, self.shared.settings.bounds);
        self.shared.control.publish_slice(device, Slice { principal, records: Vec::new(), keep, reply });
        outcome.await.map_err(|_| ReasonCode::ServerShuttingDown)?;
        self.remember(device, going);
        Ok(())
    }

    /// What is on disk is known from now on.
    fn remember(&self, device: &DeviceIdentity, going: &Going) {
        let mut ledgers = self.ledgers.borrow_mut();
        if let Ok(ledger) = ledgers.get_or_create(&device.product, &device.device) {
            ledger.clone_from(&going.ledger);
        }
    }
}

/// A batch under way.
struct Going {
    batch: Batch,
    /// Records that are new: which of the batch, boot and sequence.
    fresh: Arc<[(u32, u64, u64)]>,
    lost_any: bool,
    /// Of the fresh ones, how many are on disk.
    done: usize,
    /// The device's, with what the batch declares lost and those that are done.
    ledger: Ledger,
    tally: Tally,
    known: u64,
    stop: Option<Stop>,
}

impl Going {
    /// Judges each record by the ledger. An error is the whole answer.
    fn new(
        ledgers: &Ledgers,
        device: &DeviceIdentity,
        mut batch: Batch,
        settings: &BackfillSettings,
    ) -> Result<Self, (Encoding, Ack)> {
        let bounds = &settings.bounds;
        let found = ledgers.get(&device.product, &device.device);
        if found.is_none() && ledgers.len() >= settings.devices_max.div_ceil(settings.workers.max(1)) {
            let stop = Stop { index: None, code: "full" };
            return Err((batch.encoding(), Ack { error: Some(stop), ..Ack::default() }));
        }
        let mut ledger = found.cloned().unwrap_or_default();
        let mut tally = Tally::default();
        let (mut fresh, mut known, mut lost_any) = (Vec::new(), 0, false);
        let mut stop: Option<(usize, RecordError)> = None;
        for lost in batch.lost() {
            lost_any |= ledger.lose(lost.boot, lost.from, lost.to, bounds) == Verdict::Fresh;
            tally.touch(lost.boot);
        }
        let mut after = ledger.clone();
        for (index, record) in batch.records().enumerate() {
            match after.take(record.boot, record.seq, bounds) {
                Verdict::Fresh => fresh.push((u32::try_from(index).unwrap_or(u32::MAX), record.boot, record.seq)),
                Verdict::Known => {
                    known += 1;
                    tally.known(record.boot);
                }
                Verdict::TooFar => {
                    tally.touch(record.boot);
                    stop = Some((index, RecordError::TooFar));
                    break;
                }
                Verdict::BootForgotten => {
                    tally.touch(record.boot);
                    stop = Some((index, RecordError::BootForgotten));
                    break;
                }
            }
        }
        if let Some((index, error)) = stop {
            batch.stop_at(index, error);
        }
        let stop = batch.stopped().map(Stop::from);
        Ok(Self { batch, fresh: fresh.into(), lost_any, done: 0, ledger, tally, known, stop })
    }

    /// The messages of the next slice.
    fn slice(&self, device: &DeviceIdentity, settings: &BackfillSettings) -> Vec<SliceRecord> {
        let tree = Tree::new(&device.product, &device.device);
        let (mut topic, mut ts, mut properties) = (String::new(), String::new(), Vec::new());
        let rest = self.fresh.get(self.done..).unwrap_or_default();
        let records = rest.iter().take(settings.slice_records_max.max(1)).filter_map(|(index, ..)| {
            let record = self.batch.record(*index as usize)?;
            tree.topic(record.topic, &mut topic);
            ts.clear();
            // Text takes it always.
            let _ = write!(ts, "{}", record.ts_ms);
            properties.clear();
            ForwardableItem::User("ts", &ts).encode(&mut properties);
            ForwardableItem::User("historical", "1").encode(&mut properties);
            let message = publication(&topic, &properties, record.payload)?;
            let also = settings.parallel.then(|| {
                let own = format!("dev/{}/{}/", device.product, device.device);
                let rest = topic.strip_prefix(&own).unwrap_or(&topic);
                publication(&format!("{own}backfill/history/{}/{rest}", record.ts_ms), &properties, record.payload)
            });
            Some(SliceRecord { message, also: also.flatten() })
        });
        records.collect()
    }

    /// What is kept with a slice, of which so many records were taken.
    fn keeper(&self, device: &DeviceIdentity, bounds: Bounds) -> Box<dyn FnOnce(usize) -> Vec<Op> + Send> {
        let key = ledger::key(&device.product, &device.device);
        let (mut ledger, fresh, done) = (self.ledger.clone(), Arc::clone(&self.fresh), self.done);
        Box::new(move |taken| {
            take(&mut ledger, &fresh, done, taken, &bounds);
            vec![Op::RegistryPut(key, ledger.encode())]
        })
    }

    /// So many more are on disk.
    fn advance(&mut self, taken: usize, bounds: &Bounds) {
        take(&mut self.ledger, &self.fresh, self.done, taken, bounds);
        self.done += taken;
    }

    /// The record after those that are done isn't taken, ever.
    fn refuse(&mut self, code: &'static str) {
        let index = self.fresh.get(self.done).map(|(index, ..)| u64::from(*index));
        self.stop = Some(Stop { index, code });
    }

    fn acks(&mut self) -> Vec<Ack> {
        for (_, boot, _) in self.fresh.iter().take(self.done) {
            self.tally.taken(*boot);
        }
        self.tally.acks(&self.ledger, self.stop)
    }

    fn count(&self, counts: &Counts) {
        counts.taken.fetch_add(self.done as u64, Relaxed);
        counts.known.fetch_add(self.known, Relaxed);
        counts.refused.fetch_add(u64::from(self.stop.is_some()), Relaxed);
    }
}

/// Marks so many of the new records as taken, after those that are done.
fn take(ledger: &mut Ledger, fresh: &[(u32, u64, u64)], done: usize, taken: usize, bounds: &Bounds) {
    for (_, boot, seq) in fresh.iter().skip(done).take(taken) {
        let _ = ledger.take(*boot, *seq, bounds);
    }
}

/// What MQTT 5 says that a batch is.
fn content_type(properties: &[u8]) -> Option<&str> {
    Forwardable::from_encoded(properties).iter().find_map(|item| match item {
        ForwardableItem::ContentType(text) => Some(text),
        _ => None,
    })
}

/// None if the topic isn't one, which the batch's check has ruled out.
fn publication(topic: &str, properties: &[u8], payload: &[u8]) -> Option<Arc<Message>> {
    let topic = TopicName::parse(topic).ok()?;
    Some(Arc::new(Message::new(&MessageParts {
        topic,
        properties,
        payload,
        qos: QoS::AtLeastOnce,
        retain: false,
        expires_at_ms: None,
        publisher: None,
    })))
}
