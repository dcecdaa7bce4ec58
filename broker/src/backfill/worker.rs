//! A worker: batches of its devices, one after another of each device. A batch that can't go on within moments is let go and its device told when to come again:
//! its connection isn't read meanwhile, nor are its pings answered.

use std::cell::{Cell, RefCell};
use std::fmt::Write;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;
use turnpike_backfill::answer::{Ack, Stop, Tally, encode_pace};
use turnpike_backfill::batch::{Batch, Encoding, RecordError, Tree, decode};
use turnpike_backfill::bounds::Bounds;
use turnpike_backfill::budget::{Answer, Budget};
use turnpike_backfill::ledger::{self, Ledger, Ledgers, Verdict};
use turnpike_backfill::pace::{Pace, Pacer};
use turnpike_core::durable::Op;
use turnpike_core::gate::{DeviceIdentity, Principal};
use turnpike_core::message::{Message, MessageParts};
use turnpike_core::shard::Errand;
use turnpike_mqtt::{Forwardable, ForwardableItem, QoS, ReasonCode, TopicName, Version};

use super::forget::Leaving;
use super::held::Held;
use super::refusals::Refusals;
use super::under_way::{Claim, UnderWay};
use super::{BackfillSettings, Counts, Work};
use crate::audit::AuditSink;
use crate::desk::Done;
use crate::server::Control;
use crate::shard::{OutsideMessage, Slice, SliceOutcome, SliceRecord};

/// Between two looks at how late live traffic is, while there is history.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Before a record is offered again for which a back end's queue had no room; doubled each time.
const ROOM_WAIT: Duration = Duration::from_millis(5);
const ROOM_WAIT_MAX: Duration = Duration::from_millis(500);
/// Then the rest of the batch is left to the device, which comes again after so many milliseconds if nothing of it was taken.
const ROOM_TIME_MAX: Duration = Duration::from_secs(1);
const ROOM_AFTER_MS: u64 = 10_000;
/// A batch that takes longer is cut between two slices: the device hears how far it came.
const PUBLISH_TIME_MAX: Duration = Duration::from_secs(5);
/// For so long a batch waits for the one before it of the same device.
const CLAIM_TIME_MAX: Duration = Duration::from_secs(1);
/// When to come again who came while there was too much to do.
const AGAIN_MS: u64 = 1_000;
/// For so long an answer that isn't delivered is good: the device asks again anyway.
const ANSWER_MS: u64 = 60_000;

/// How much workers give way to other threads.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// What all workers have in common.
pub(super) struct Shared {
    settings: BackfillSettings,
    pub(super) control: Control,
    counts: Arc<Counts>,
    budget: Mutex<Budget>,
    pacer: Mutex<Pacer>,
    /// A permit for each record under way.
    under_way: Semaphore,
    held: Arc<Held>,
    refusals: Refusals,
}

impl Shared {
    pub(super) fn new(
        settings: &BackfillSettings,
        control: &Control,
        counts: &Arc<Counts>,
        audit: AuditSink,
    ) -> Arc<Self> {
        let budget = Budget::new(settings.budget);
        let pacer = Pacer::new(settings.pace, budget.records_per_s());
        Arc::new(Self {
            settings: settings.clone(),
            control: control.clone(),
            counts: Arc::clone(counts),
            budget: Mutex::new(budget),
            pacer: Mutex::new(pacer),
            under_way: Semaphore::new(settings.under_way_max.max(settings.slice_records_max)),
            held: Held::new(settings.held_bytes_max),
            refusals: Refusals::new(audit),
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

    /// Tells a device when to come again instead of taking its batch.
    fn turn_away(&self, errand: &Errand, pace: Pace, encoding: Encoding) -> Result<(), ReasonCode> {
        self.counts.paced.fetch_add(1, Relaxed);
        self.tell(&errand.device, "pace", encode_pace(pace, encoding));
        // MQTT 3 has no word for it but the end of the connection, and a device that comes back at once is what a pace is to prevent.
        if errand.version == Version::V5 { Err(ReasonCode::QuotaExceeded) } else { Ok(()) }
    }

    /// Its turn, but not before so many milliseconds: those who are told together get turns, so that they don't come together.
    fn later(&self, device: &DeviceIdentity, after_ms: u64) -> Pace {
        let turn = self.pacer.lock().slot(self.control.now().mono_ms, &device.product, &device.device);
        Pace { after_ms: after_ms.max(turn.after_ms), ..turn }
    }

    fn refused(&self, device: &DeviceIdentity, code: &'static str) {
        self.counts.refused.fetch_add(1, Relaxed);
        self.refusals.note(&self.counts.refusals, device, code, self.control.now().unix_ms);
    }
}

/// Starts a worker, which ends when the desk is dropped.
pub(super) fn start(shared: Arc<Shared>, ledgers: Ledgers, receiver: UnboundedReceiver<Work>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let work = move || {
        give_way();
        let worker = Rc::new(Worker {
            shared,
            ledgers: RefCell::new(ledgers),
            under_way: Rc::default(),
            leaving: RefCell::default(),
            is_sweeping: Cell::new(false),
        });
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

pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) ledgers: RefCell<Ledgers>,
    pub(super) under_way: Rc<UnderWay>,
    /// Devices that are no more, of which something may still be under way.
    pub(super) leaving: RefCell<Leaving>,
    pub(super) is_sweeping: Cell<bool>,
}

impl Worker {
    async fn run(self: Rc<Self>, mut receiver: UnboundedReceiver<Work>) {
        let looking = Arc::clone(&self.shared);
        tokio::task::spawn_local(async move { looking.look().await });
        while let Some(work) = receiver.recv().await {
            match work {
                Work::Batch(errand, done) => self.begin(errand, done),
                Work::Forget(concern) => self.forget(concern),
            }
        }
    }

    fn begin(self: &Rc<Self>, errand: Box<Errand>, done: Done) {
        let worker = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let outcome = worker.serve(&errand).await;
            done.say(outcome);
        });
    }

    /// Does one batch. The outcome is of the MQTT message: that it was heard, and what there is to be answered has been.
    async fn serve(&self, errand: &Errand) -> Result<(), ReasonCode> {
        let (shared, device) = (&*self.shared, &*errand.device);
        let Some(batch) = self.read(errand) else { return Ok(()) };
        let encoding = batch.encoding();
        let Some(_hold) = shared.held.hold(batch.heap_bytes() + batch.len() * size_of::<(u32, u64, u64)>()) else {
            return shared.turn_away(errand, shared.later(device, AGAIN_MS), encoding);
        };
        let Some(claim) = self.under_way.claim(device, CLAIM_TIME_MAX).await else {
            return shared.turn_away(errand, shared.later(device, AGAIN_MS), encoding);
        };
        if !errand.is_wanted() {
            // It isn't acknowledged, so its device has it still. Or that is no more, and somebody else has its name.
            shared.counts.left.fetch_add(1, Relaxed);
            return Err(ReasonCode::UnspecifiedError);
        }
        let mut going = match Going::new(&self.ledgers.borrow(), device, batch, &shared.settings) {
            Ok(going) => going,
            Err(ack) => {
                ack.error.iter().for_each(|stop| shared.refused(device, stop.code));
                shared.tell(device, "ack", ack.encode(encoding));
                return Ok(());
            }
        };
        let early = self.too_early(device, &going).await;
        if claim.is_void() {
            return Err(ReasonCode::NotAuthorized);
        }
        if let Some(pace) = early {
            return shared.turn_away(errand, pace, encoding);
        }
        let principal = Principal::Device(Arc::clone(&errand.device));
        let published = self.publish(&principal, device, &mut going, &claim).await;
        going.count(&shared.counts);
        let rest = published?;
        if claim.is_void() {
            return Err(ReasonCode::NotAuthorized);
        }
        if let Some(pace) = rest.filter(|_| !going.has_changed_anything()) {
            return shared.turn_away(errand, pace, encoding);
        }
        going.stop.iter().for_each(|stop| shared.refused(device, stop.code));
        for ack in going.acks() {
            shared.tell(device, "ack", ack.encode(encoding));
        }
        if let Some(pace) = rest {
            shared.tell(device, "pace", encode_pace(pace, encoding));
        }
        shared.counts.batches.fetch_add(1, Relaxed);
        Ok(())
    }

    /// The batch, its records checked. None if it can't be read, which is answered.
    fn read(&self, errand: &Errand) -> Option<Batch> {
        let (shared, device) = (&*self.shared, &*errand.device);
        let (parts, bounds) = (errand.message.parts(), &shared.settings.bounds);
        let content_type = content_type(parts.properties);
        match decode(parts.payload, content_type, bounds) {
            Ok(mut batch) => {
                let tree = Tree::new(&device.product, &device.device);
                batch.check(&tree, shared.control.now().unix_ms, bounds);
                Some(batch)
            }
            Err(error) => {
                shared.refused(device, error.code());
                let ack = Ack { error: Some(error.into()), ..Ack::default() };
                shared.tell(device, "ack", ack.encode(Encoding::guess(parts.payload, content_type)));
                None
            }
        }
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
                return Some(shared.later(device, wait_ms));
            }
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        }
    }

    /// Publishes what is new, and keeps what was lost. Gives a pace if the rest is left to the device.
    async fn publish(
        &self,
        principal: &Principal,
        device: &DeviceIdentity,
        going: &mut Going,
        claim: &Claim,
    ) -> Result<Option<Pace>, ReasonCode> {
        let rest = self.publish_fresh(principal, device, going, claim).await?;
        // What was lost is kept with the first slice. Where there is none, it is kept alone: it is confirmed, and what is confirmed is on disk.
        if going.done == 0 && going.lost_any && !claim.is_void() {
            self.keep(device, going, claim).await?;
        }
        Ok(rest)
    }

    /// Slice by slice, until all is done, back ends have no room, or it takes too long.
    async fn publish_fresh(
        &self,
        principal: &Principal,
        device: &DeviceIdentity,
        going: &mut Going,
        claim: &Claim,
    ) -> Result<Option<Pace>, ReasonCode> {
        let shared = &*self.shared;
        let until = Instant::now() + PUBLISH_TIME_MAX;
        let (mut wait, mut waited) = (ROOM_WAIT, Duration::ZERO);
        while going.done < going.fresh.len() {
            if claim.is_void() {
                return Err(ReasonCode::NotAuthorized);
            }
            let Some(outcome) = self.slice(principal, device, going, until).await? else {
                return Ok(Some(shared.later(device, AGAIN_MS)));
            };
            going.advance(outcome.taken, &shared.settings.bounds);
            if outcome.taken > 0 {
                self.remember(device, going, claim);
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
                    let after_ms = if going.done == 0 { ROOM_AFTER_MS } else { AGAIN_MS };
                    return Ok(Some(shared.later(device, after_ms)));
                }
                Some(_) => {
                    going.refuse("not_allowed");
                    break;
                }
            }
        }
        Ok(None)
    }

    /// The next one; none if its turn doesn't come in time.
    async fn slice(
        &self,
        principal: &Principal,
        device: &DeviceIdentity,
        going: &Going,
        until: Instant,
    ) -> Result<Option<SliceOutcome>, ReasonCode> {
        let shared = &*self.shared;
        if Instant::now() >= until {
            return Ok(None);
        }
        let records = going.slice(device, &shared.settings);
        let permits = u32::try_from(records.len()).unwrap_or(u32::MAX);
        let Ok(permits) = tokio::time::timeout_at(until, shared.under_way.acquire_many(permits)).await else {
            return Ok(None);
        };
        let gone = |_| ReasonCode::ServerShuttingDown;
        let _permits = permits.map_err(|_| ReasonCode::ServerShuttingDown)?;
        let (reply, outcome) = oneshot::channel();
        let keep = going.keeper(device, shared.settings.bounds);
        shared.control.publish_slice(device, Slice { principal: principal.clone(), records, keep, reply });
        outcome.await.map(Some).map_err(gone)
    }

    /// Has a ledger kept that has changed without a record being published.
    async fn keep(&self, device: &DeviceIdentity, going: &Going, claim: &Claim) -> Result<(), ReasonCode> {
        let (reply, outcome) = oneshot::channel();
        let principal = Principal::Broker;
        let keep = going.keeper(device, self.shared.settings.bounds);
        self.shared.control.publish_slice(device, Slice { principal, records: Vec::new(), keep, reply });
        outcome.await.map_err(|_| ReasonCode::ServerShuttingDown)?;
        self.remember(device, going, claim);
        Ok(())
    }

    /// What is on disk is known from now on, unless the device is no more.
    fn remember(&self, device: &DeviceIdentity, going: &Going, claim: &Claim) {
        if claim.is_void() {
            return;
        }
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
    /// Of which boot the record is at which it stopped.
    stop_boot: Option<u64>,
}

impl Going {
    /// Judges each record by the ledger. An error is the whole answer.
    fn new(
        ledgers: &Ledgers,
        device: &DeviceIdentity,
        mut batch: Batch,
        settings: &BackfillSettings,
    ) -> Result<Self, Ack> {
        let bounds = &settings.bounds;
        let found = ledgers.get(&device.product, &device.device);
        if found.is_none() && ledgers.len() >= settings.devices_max.div_ceil(settings.workers.max(1)) {
            let stop = Stop { index: None, code: "full" };
            return Err(Ack { error: Some(stop), ..Ack::default() });
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
                    stop = Some((index, RecordError::TooFar));
                    break;
                }
                Verdict::BootForgotten => {
                    stop = Some((index, RecordError::BootForgotten));
                    break;
                }
            }
        }
        if let Some((index, error)) = stop {
            batch.stop_at(index, error);
        }
        let stop = batch.stopped().map(Stop::from);
        let stop_boot = batch.stopped_boot();
        Ok(Self { batch, fresh: fresh.into(), lost_any, done: 0, ledger, tally, known, stop, stop_boot })
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
        let refused = self.fresh.get(self.done);
        self.stop = Some(Stop { index: refused.map(|(index, ..)| u64::from(*index)), code });
        self.stop_boot = refused.map(|(_, boot, _)| *boot);
    }

    /// Whether there is something to confirm: records, or what was lost.
    fn has_changed_anything(&self) -> bool {
        self.done > 0 || self.lost_any
    }

    fn acks(&mut self) -> Vec<Ack> {
        for (_, boot, _) in self.fresh.iter().take(self.done) {
            self.tally.taken(*boot);
        }
        if let Some(boot) = self.stop_boot {
            self.tally.stop_in(boot);
        }
        self.tally.acks(&self.ledger, self.stop)
    }

    fn count(&self, counts: &Counts) {
        counts.taken.fetch_add(self.done as u64, Relaxed);
        counts.known.fetch_add(self.known, Relaxed);
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
