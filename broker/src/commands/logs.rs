//! Logs of devices: chunks are put together, judged, written, recorded, and only then the device hears that its log is kept.
//!
//! One at a time, on a thread of their own: so that what is held of whole ones is bounded, and nothing else waits for the disk.
//!
//! **Invariant:** a log's file is on disk before its record is. What a crash leaves of either without the other is removed at the next start.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use turnpike_authz::audit::{Action, Event, Key, Subject, Value};
use turnpike_authz::names::{DeviceName, ProductKey};
use turnpike_backfill::bounds::Bounds;
use turnpike_backfill::packed::{self, PackError};
use turnpike_core::durable::Op;
use turnpike_core::gate::Principal;
use turnpike_core::shard::Errand;
use turnpike_mqtt::{QoS, ReasonCode, Version};
use turnpike_ota::command::{CommandId, Kind};
use turnpike_ota::logs::shelf::{Change, Kept, LogId, Packing, Shelf, ShelfError};
use turnpike_ota::logs::{Ack, Assembler, LogError, Taken, crc32, number};
use turnpike_ota::record;

use super::{AT_ONCE, CommandDesk, names};
use crate::audit::now_ms;
use crate::desk::Done;
use crate::shard::OutsideMessage;

/// Between two looks at what is old.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// For so long an answer that isn't delivered is good: the device asks again anyway.
const ANSWER_MS: u64 = 60_000;

/// What the thread is given.
pub(super) enum LogWork {
    /// A chunk.
    Chunk(Box<Errand>, Done),
    /// Files of logs whose records are gone.
    Remove(Vec<LogId>),
}

/// All that is known.
#[derive(Debug)]
pub struct Logs {
    pub(super) assembler: Assembler,
    /// Those that are kept.
    pub shelf: Shelf,
}

/// What was done.
#[derive(Debug, Default)]
pub struct LogCounts {
    chunks: AtomicU64,
    again: AtomicU64,
    questions: AtomicU64,
    kept: AtomicU64,
    known: AtomicU64,
    given_up: AtomicU64,
    pushed_out: AtomicU64,
    refused: [AtomicU64; REASONS.len()],
}

/// Why chunks and logs are refused.
const REASONS: [&str; 14] = [
    "malformed",
    "chunk_too_long",
    "broken",
    "no_such_chunk",
    "too_many_chunks",
    "contradiction",
    "log_too_long",
    "device_full",
    "full",
    "unpacked_too_long",
    "too_dense",
    "no_room",
    "unwritable",
    "unknown_device",
];

impl LogCounts {
    fn refuse(&self, reason: &str) {
        let at = REASONS.iter().position(|one| *one == reason);
        if let Some(count) = at.and_then(|at| self.refused.get(at)) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// With the words that tell them apart.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = [
            ("chunk", &self.chunks),
            ("chunk_again", &self.again),
            ("question", &self.questions),
            ("kept", &self.kept),
            ("known", &self.known),
            ("given_up", &self.given_up),
            ("pushed_out", &self.pushed_out),
        ];
        counts.into_iter().map(|(what, count)| (what, count.load(Relaxed)))
    }

    /// Chunks and logs that were refused, by reason.
    pub fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        REASONS.iter().zip(&self.refused).map(|(reason, count)| (*reason, count.load(Relaxed)))
    }
}

/// Why a log that is whole isn't kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Unkept(&'static str);

/// How a log is compressed, and its bytes uncompressed. One that begins like a compressed one and isn't, or is damaged, is taken as it is: of a device that fails a
/// part of its log is better than none.
fn judged(bytes: &[u8], bounds: &Bounds) -> Result<(Option<Packing>, u64), Unkept> {
    let Some(found) = packed::Packing::sniff(bytes) else { return Ok((None, bytes.len() as u64)) };
    match found.unpack(bytes, bounds) {
        Ok(unpacked) => Ok((Some(kept_packing(found)), unpacked.len() as u64)),
        Err(PackError::Damaged) => Ok((None, bytes.len() as u64)),
        Err(PackError::TooLarge | PackError::BlockSize) => Err(Unkept("unpacked_too_long")),
        Err(PackError::TooDense) => Err(Unkept("too_dense")),
    }
}

fn kept_packing(packing: packed::Packing) -> Packing {
    match packing {
        packed::Packing::Zlib => Packing::Zlib,
        packed::Packing::Zstd => Packing::Zstd,
        packed::Packing::Lz4 => Packing::Lz4,
    }
}

fn unpacking(packing: Packing) -> packed::Packing {
    match packing {
        Packing::Zlib => packed::Packing::Zlib,
        Packing::Zstd => packed::Packing::Zstd,
        Packing::Lz4 => packed::Packing::Lz4,
    }
}

/// MQTT 3 has no word for it but the end of the connection.
fn outcome(version: Version, reason: ReasonCode) -> Result<(), ReasonCode> {
    match version {
        Version::V31 | Version::V311 => Ok(()),
        Version::V5 => Err(reason),
    }
}

fn code(error: LogError) -> ReasonCode {
    match error {
        LogError::DeviceFull { .. } | LogError::Full | LogError::LogTooLong { .. } => ReasonCode::QuotaExceeded,
        LogError::Malformed
        | LogError::ChunkTooLong
        | LogError::Broken
        | LogError::NoSuchChunk
        | LogError::TooManyChunks { .. }
        | LogError::Contradiction => ReasonCode::PayloadFormatInvalid,
    }
}

impl CommandDesk {
    pub(super) async fn keep_logs(self: Arc<Self>, mut work: UnboundedReceiver<LogWork>) {
        let mut looks = tokio::time::interval(SWEEP_INTERVAL);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = looks.tick() => self.age_logs(),
                next = work.recv() => match next {
                    Some(LogWork::Chunk(errand, done)) => self.chunk(&errand, done),
                    Some(LogWork::Remove(ids)) => ids.into_iter().for_each(|id| self.files.remove(id)),
                    None => return,
                },
            }
        }
    }

    fn chunk(self: &Arc<Self>, errand: &Errand, done: Done) {
        let payload = errand.message.parts().payload;
        let log = number(payload).unwrap_or_default();
        let known = names(&errand.device).filter(|(product, device)| self.is_registered(product, device));
        let Some((product, device)) = known else {
            // Of a device that only the call-out knows nobody could read it.
            self.log_counts.refuse("unknown_device");
            return done.say(outcome(errand.version, ReasonCode::ImplementationSpecificError));
        };
        let taken = self.logs.lock().assembler.take(&product, &device, payload, done.now().unix_ms);
        let answer = |ack: &Ack| self.answer(&product, &device, log, ack);
        match taken {
            Ok(Taken::Again) => {
                self.log_counts.again.fetch_add(1, Relaxed);
                done.say(Ok(()));
            }
            Ok(Taken::Missing(missing)) => {
                self.log_counts.chunks.fetch_add(1, Relaxed);
                if !missing.is_empty() {
                    answer(&Ack::Missing(missing));
                }
                done.say(Ok(()));
            }
            Ok(Taken::Asked { log, crc32, missing }) => {
                self.log_counts.questions.fetch_add(1, Relaxed);
                let is_kept = self.logs.lock().shelf.find(&product, &device, log, crc32).is_some();
                if is_kept {
                    // Its record may be under way: what is committed after it comes after it.
                    let committed = self.shell().control.commit_registry(Vec::new());
                    return self.answer_when_kept((product, device, log), committed, done);
                }
                answer(&Ack::Missing(missing));
                done.say(Ok(()));
            }
            Ok(Taken::Whole(log, bytes)) => {
                self.log_counts.chunks.fetch_add(1, Relaxed);
                match self.keep(&product, &device, log, &bytes) {
                    Ok(committed) => self.answer_when_kept((product, device, log), committed, done),
                    Err(Unkept(reason)) => {
                        self.log_counts.refuse(reason);
                        answer(&Ack::Refused(reason));
                        done.say(outcome(errand.version, ReasonCode::QuotaExceeded));
                    }
                }
            }
            Err(error) => {
                tracing::debug!(product = product.as_str(), %error, "a chunk of a log is of no use");
                self.log_counts.refuse(error.as_str());
                answer(&Ack::Refused(error.as_str()));
                done.say(outcome(errand.version, code(error)));
            }
        }
    }

    /// Has a whole log kept. The receiver resolves when it is on disk with its record.
    fn keep(
        &self,
        product: &ProductKey,
        device: &DeviceName,
        log: u32,
        bytes: &[u8],
    ) -> Result<oneshot::Receiver<()>, Unkept> {
        let (packing, unpacked_bytes) = judged(bytes, &self.settings.unpacking)?;
        let asked = self.state.lock().book.of(product, device, CommandId(log)).map(|command| command.kind);
        let kept = Kept {
            id: LogId(0),
            product: product.clone(),
            device: device.clone(),
            number: log,
            command: asked.filter(|kind| *kind == Kind::UploadLogs).map(|_| log),
            bytes: bytes.len() as u64,
            crc32: crc32(bytes),
            packing,
            unpacked_bytes,
            at_ms: now_ms(),
        };
        let planned = self.logs.lock().shelf.plan(kept);
        let (id, changes) = match planned {
            Ok(planned) => planned,
            Err(ShelfError::Known(_)) => {
                // Its device hasn't heard that it is kept.
                self.log_counts.known.fetch_add(1, Relaxed);
                return Ok(self.shell().control.commit_registry(Vec::new()));
            }
            Err(ShelfError::TooLong) => return Err(Unkept("log_too_long")),
            Err(ShelfError::Full) => {
                tracing::warn!("a device's log isn't kept: there are as many as may be; delete some");
                return Err(Unkept("no_room"));
            }
        };
        if let Err(error) = self.files.write(id, bytes) {
            tracing::error!(%error, "a device's log can't be written");
            return Err(Unkept("unwritable"));
        }
        let committed = {
            let mut logs = self.logs.lock();
            // Whoever deletes the device sees the log from here on.
            if !self.is_registered(product, device) {
                drop(logs);
                self.files.remove(id);
                return Err(Unkept("unknown_device"));
            }
            let committed = self.shell().control.commit_registry(changes.iter().map(op).collect());
            changes.iter().cloned().for_each(|change| logs.shelf.apply(change));
            committed
        };
        let forgotten = changes.iter().filter(|change| matches!(change, Change::Forget(..))).count();
        self.log_counts.pushed_out.fetch_add(forgotten as u64, Relaxed);
        self.log_counts.kept.fetch_add(1, Relaxed);
        self.remove_files(&changes);
        let mut details = vec![(Key::Log, Value::Number(id.0)), (Key::Bytes, Value::Number(bytes.len() as u64))];
        if asked == Some(Kind::UploadLogs) {
            details.push((Key::Command, Value::Number(log.into())));
        }
        let subject = Subject::device(product, device);
        let event = Event::own(now_ms(), Action::LogTake, &details);
        self.shell().audit.record(&Event { actor: subject, target: Some(subject), ..event });
        Ok(committed)
    }

    fn answer_when_kept(
        self: &Arc<Self>,
        (product, device, log): (ProductKey, DeviceName, u32),
        committed: oneshot::Receiver<()>,
        done: Done,
    ) {
        let desk = Arc::clone(self);
        tokio::spawn(async move {
            let outcome = committed.await.map_err(|_| ReasonCode::ImplementationSpecificError);
            if outcome.is_ok() {
                desk.answer(&product, &device, log, &Ack::Kept);
            }
            done.say(outcome);
        });
    }

    fn answer(&self, product: &ProductKey, device: &DeviceName, log: u32, ack: &Ack) {
        let control = &self.shell().control;
        drop(control.publish_outside(OutsideMessage {
            principal: Principal::Broker,
            topic: format!("dev/{product}/{device}/sys/log/ack"),
            payload: ack.payload(log).into_bytes(),
            qos: QoS::AtLeastOnce,
            expires_at_ms: control.now().unix_ms + ANSWER_MS,
        }));
    }

    fn is_registered(&self, product: &ProductKey, device: &DeviceName) -> bool {
        self.shell().registry.device(product.as_str(), device.as_str()).is_some()
    }

    /// Forgets what has been kept, or on the way, for too long.
    fn age_logs(&self) {
        let now_ms = self.shell().control.now().unix_ms;
        loop {
            let mut logs = self.logs.lock();
            let given_up = logs.assembler.due(now_ms, AT_ONCE).len();
            let old = logs.shelf.due(now_ms, AT_ONCE);
            self.log_counts.given_up.fetch_add(given_up as u64, Relaxed);
            self.commit_forgotten(&old);
            if given_up.max(old.len()) < AT_ONCE {
                return;
            }
        }
    }

    /// What is forgotten is committed, and its files go.
    pub(super) fn commit_forgotten(&self, changes: &[Change]) {
        // What a crash leaves is removed at the next start. Each part is a commit of its own.
        for part in changes.chunks(AT_ONCE) {
            drop(self.shell().control.commit_registry(part.iter().map(op).collect()));
        }
        self.remove_files(changes);
    }

    fn remove_files(&self, changes: &[Change]) {
        let gone = changes.iter().filter_map(|change| match change {
            Change::Forget(_, _, id) => Some(*id),
            Change::Put(_) | Change::Given(_) => None,
        });
        let gone: Vec<_> = gone.collect();
        if !gone.is_empty() {
            let _ = self.log_work.send(LogWork::Remove(gone));
        }
    }

    /// Deletes a log. The receiver resolves when that is on disk. None if there is no such log.
    pub fn delete_log(&self, product: &ProductKey, device: &DeviceName, id: LogId) -> Option<oneshot::Receiver<()>> {
        let mut logs = self.logs.lock();
        let change = logs.shelf.drop_log(product, device, id)?;
        let committed = self.shell().control.commit_registry(vec![op(&change)]);
        self.remove_files(&[change]);
        Some(committed)
    }

    /// The bytes of a log: as they came, or uncompressed. Reads a file: not on a thread that others wait for.
    ///
    /// # Errors
    /// The file can't be read, or isn't what it was.
    pub fn read_log(&self, log: &Kept, as_sent: bool) -> std::io::Result<Vec<u8>> {
        let bytes = self.files.read(log.id)?;
        if crc32(&bytes) != log.crc32 {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "the file isn't what was written"));
        }
        match log.packing.filter(|_| !as_sent) {
            None => Ok(bytes),
            Some(packing) => {
                // Within what was allowed when it came, which may have been more than now. No block of lz4 is longer than 4 MiB.
                let unpacked_bytes_max = usize::try_from(log.unpacked_bytes).unwrap_or(usize::MAX).max(4 << 20);
                let bounds = Bounds { unpacked_bytes_max, ratio_max: usize::MAX, ..Bounds::default() };
                unpacking(packing).unpack(&bytes, &bounds).map_err(std::io::Error::other)
            }
        }
    }

    /// Kept logs. Held for as long as it takes to look something up.
    pub fn logs(&self) -> parking_lot::MutexGuard<'_, Logs> {
        self.logs.lock()
    }

    /// What was done with logs.
    #[must_use]
    pub fn log_counts(&self) -> &LogCounts {
        &self.log_counts
    }
}

pub(super) fn op(change: &Change) -> Op {
    record::encode(&change.clone().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_counted_by_its_own_name() {
        let errors = [
            LogError::Malformed,
            LogError::ChunkTooLong,
            LogError::Broken,
            LogError::NoSuchChunk,
            LogError::TooManyChunks { most: 1 },
            LogError::Contradiction,
            LogError::LogTooLong { most: 1 },
            LogError::DeviceFull { most: 1 },
            LogError::Full,
        ];
        let counts = LogCounts::default();
        errors.iter().for_each(|error| counts.refuse(error.as_str()));
        assert_eq!(counts.refused().filter(|(_, count)| *count == 1).count(), errors.len());
    }

    #[test]
    fn what_only_looks_compressed_is_taken_as_it_is() {
        let bounds = Bounds::default();
        assert_eq!(judged(b"x^ a text that begins like zlib", &bounds), Ok((None, 31)));
        assert_eq!(judged(b"a text", &bounds), Ok((None, 6)));
        assert_eq!(judged(&[0x28, 0xB5, 0x2F, 0xFD, 1, 2, 3], &bounds), Ok((None, 7)));
    }
}
