//! A device's log, which comes in chunks on `dev/{p}/{d}/sys/log`, in any order and some of them twice.
//!
//! A chunk is a header of 12 bytes and up to [`CHUNK_BYTES_MAX`] bytes of the log, which the device may have compressed as a whole (zlib, zstd or lz4 frames): the broker
//! keeps what it was sent. In the header, most significant byte first: the log's number (4 bytes), the chunk's (2, from 0), how many chunks there are (2), the CRC-32
//! (ISO-HDLC) of this one's bytes (4). A chunk that is broken is sent again.
//!
//! A header alone is a question: what of the log is missing? Its CRC-32 is that of the whole log, so that a log that is kept already is known.
//!
//! A log's number is the device's choice, another one for each log: the `id` of the command that asked for it ([`crate::command`]), or a count.
//!
//! Answers ([`Ack`]) come on `dev/{p}/{d}/sys/log/ack`: to a question, to the chunk with the highest number, to what is refused, and when the log is kept:
//!
//! ```json
//! {"log": 17, "state": "missing", "chunks": [0, 3]}
//! {"log": 17, "state": "refused", "reason": "broken"}
//! {"log": 17, "state": "kept"}
//! ```
//!
//! **Invariant:** `kept` alone says that a log is on disk. What has come of one that isn't whole is in memory, for ten minutes, and a restart forgets it.

use std::collections::{BTreeMap, BTreeSet};

use turnpike_authz::names::{DeviceName, ProductKey};

pub mod shelf;

/// Chunks that one answer names.
pub const MISSING_MAX: usize = 64;
/// Of a chunk.
pub const HEADER_BYTES: usize = 12;
/// Of the log in a chunk.
pub const CHUNK_BYTES_MAX: usize = 128 << 10;

/// How much is put together at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of a log.
    pub log_bytes: usize,
    /// Chunks of a log.
    pub chunks: u16,
    /// Bytes of all logs that are on the way.
    pub bytes: usize,
    /// Logs that are on the way, of all devices.
    pub logs: usize,
    /// Logs that are on the way, of one device.
    pub device_logs: usize,
    /// Milliseconds from a log's first chunk until it is given up.
    pub age_ms: u64,
}

impl Default for Limits {
    /// 4 MiB and 1024 chunks a log, 64 MiB and 1000 logs in all, 2 of a device, 10 minutes.
    fn default() -> Self {
        Self { log_bytes: 4 << 20, chunks: 1024, bytes: 64 << 20, logs: 1000, device_logs: 2, age_ms: 600_000 }
    }
}

/// Why a chunk isn't taken. What was taken before stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LogError {
    /// Shorter than its header.
    #[error("a chunk of a log has {HEADER_BYTES} bytes of header")]
    Malformed,
    /// More than [`CHUNK_BYTES_MAX`].
    #[error("a chunk of a log has {CHUNK_BYTES_MAX} bytes at most")]
    ChunkTooLong,
    /// The CRC isn't that of the bytes.
    #[error("the chunk is broken; send it again")]
    Broken,
    /// Its number isn't below the count, or the count is 0.
    #[error("there is no such chunk in the log")]
    NoSuchChunk,
    /// More than [`Limits::chunks`].
    #[error("a log has {most} chunks at most")]
    TooManyChunks {
        /// How many it may have.
        most: u16,
    },
    /// Chunks of a log disagree on how many there are, or on what is in one.
    #[error("the chunk belongs to another log of the same number")]
    Contradiction,
    /// More than [`Limits::log_bytes`]; the log is given up.
    #[error("a log has {most} bytes at most; it is given up")]
    LogTooLong {
        /// How many it may have.
        most: usize,
    },
    /// [`Limits::device_logs`]: no device takes the room of the others.
    #[error("the device has {most} logs on the way already")]
    DeviceFull {
        /// How many it may have.
        most: usize,
    },
    /// [`Limits::logs`] or [`Limits::bytes`].
    #[error("too many logs are on the way; try again later")]
    Full,
}

impl LogError {
    /// One word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::ChunkTooLong => "chunk_too_long",
            Self::Broken => "broken",
            Self::NoSuchChunk => "no_such_chunk",
            Self::TooManyChunks { .. } => "too_many_chunks",
            Self::Contradiction => "contradiction",
            Self::LogTooLong { .. } => "log_too_long",
            Self::DeviceFull { .. } => "device_full",
            Self::Full => "full",
        }
    }
}

/// What a device is answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ack {
    /// All of it is on disk.
    Kept,
    /// These chunks haven't come, the first [`MISSING_MAX`] of them.
    Missing(Vec<u16>),
    /// For this reason, a word.
    Refused(&'static str),
}

impl Ack {
    /// What goes to the device, about a log of its.
    #[must_use]
    pub fn payload(&self, log: u32) -> String {
        match self {
            Self::Kept => format!(r#"{{"log":{log},"state":"kept"}}"#),
            Self::Missing(chunks) => format!(r#"{{"log":{log},"state":"missing","chunks":{chunks:?}}}"#),
            Self::Refused(reason) => format!(r#"{{"log":{log},"state":"refused","reason":"{reason}"}}"#),
        }
    }
}

/// The checksum of a log, and of a chunk.
#[must_use]
pub fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// The number of the log that a payload is about, if it has one.
#[must_use]
pub fn number(payload: &[u8]) -> Option<u32> {
    payload.first_chunk().map(|log| u32::from_be_bytes(*log))
}

/// What came of a chunk.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub enum Taken {
    /// It was here before.
    Again,
    /// Some are still to come; which ones, the first [`MISSING_MAX`], if this was the chunk with the highest number.
    Missing(Vec<u16>),
    /// All are here: the log's number and its bytes, which are forgotten by the assembler.
    Whole(u32, Vec<u8>),
    /// A question about the log of this number.
    Asked {
        /// Which.
        log: u32,
        /// CRC-32 of all of it.
        crc32: u32,
        /// Those that haven't come, the first [`MISSING_MAX`].
        missing: Vec<u16>,
    },
}

/// A log that was given up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GivenUp {
    /// Whose.
    pub product: ProductKey,
    /// Whose.
    pub device: DeviceName,
    /// Which.
    pub log: u32,
    /// How many chunks were missing.
    pub missing: u16,
}

/// Writes a chunk, as a device does.
///
/// # Panics
/// With more than [`CHUNK_BYTES_MAX`].
#[must_use]
pub fn chunk(log: u32, number: u16, count: u16, bytes: &[u8]) -> Vec<u8> {
    assert!(bytes.len() <= CHUNK_BYTES_MAX, "a chunk has its limit");
    let mut chunk = Vec::with_capacity(HEADER_BYTES + bytes.len());
    chunk.extend(log.to_be_bytes());
    chunk.extend(number.to_be_bytes());
    chunk.extend(count.to_be_bytes());
    chunk.extend(crc32fast::hash(bytes).to_be_bytes());
    chunk.extend_from_slice(bytes);
    chunk
}

/// Asks what is missing of a log, as a device does.
#[must_use]
pub fn question(log: u32, count: u16, crc32: u32) -> Vec<u8> {
    [&log.to_be_bytes()[..], &[0; 2], &count.to_be_bytes(), &crc32.to_be_bytes()].concat()
}

struct Read<'a> {
    log: u32,
    number: u16,
    count: u16,
    crc32: u32,
    /// None of a question.
    bytes: &'a [u8],
}

fn read(payload: &[u8]) -> Result<Read<'_>, LogError> {
    let (log, rest) = payload.split_first_chunk::<4>().ok_or(LogError::Malformed)?;
    let (number, rest) = rest.split_first_chunk::<2>().ok_or(LogError::Malformed)?;
    let (count, rest) = rest.split_first_chunk::<2>().ok_or(LogError::Malformed)?;
    let (crc, bytes) = rest.split_first_chunk::<4>().ok_or(LogError::Malformed)?;
    let (number, count) = (u16::from_be_bytes(*number), u16::from_be_bytes(*count));
    let crc32 = u32::from_be_bytes(*crc);
    if bytes.len() > CHUNK_BYTES_MAX {
        return Err(LogError::ChunkTooLong);
    }
    if !bytes.is_empty() && crc32fast::hash(bytes) != crc32 {
        return Err(LogError::Broken);
    }
    if number >= count {
        return Err(LogError::NoSuchChunk);
    }
    Ok(Read { log: u32::from_be_bytes(*log), number, count, crc32, bytes })
}

type Key = (ProductKey, DeviceName, u32);

#[derive(Clone, Debug)]
struct Partial {
    count: u16,
    chunks: BTreeMap<u16, Box<[u8]>>,
    bytes: usize,
    since_ms: u64,
}

impl Partial {
    fn missing(&self) -> u16 {
        self.count.saturating_sub(u16::try_from(self.chunks.len()).unwrap_or(u16::MAX))
    }
}

/// Puts logs together.
#[derive(Clone, Debug, Default)]
pub struct Assembler {
    limits: Limits,
    logs: BTreeMap<Key, Partial>,
    /// Since when, and which.
    ages: BTreeSet<(u64, Key)>,
    bytes: usize,
}

impl Assembler {
    /// Within these limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Takes a chunk that a device sent.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn take(
        &mut self,
        product: &ProductKey,
        device: &DeviceName,
        payload: &[u8],
        now_ms: u64,
    ) -> Result<Taken, LogError> {
        let Read { log, number, count, crc32, bytes } = read(payload)?;
        let limits = self.limits;
        if count > limits.chunks {
            return Err(LogError::TooManyChunks { most: limits.chunks });
        }
        let key = (product.clone(), device.clone(), log);
        let known = self.logs.get(&key);
        if known.is_some_and(|known| known.count != count) {
            return Err(LogError::Contradiction);
        }
        if bytes.is_empty() {
            return Ok(Taken::Asked { log, crc32, missing: missing(known, count) });
        }
        if let Some(before) = known.and_then(|known| known.chunks.get(&number)) {
            return if **before == *bytes { Ok(Taken::Again) } else { Err(LogError::Contradiction) };
        }
        let is_new = known.is_none();
        if known.map_or(0, |known| known.bytes) + bytes.len() > limits.log_bytes {
            self.remove(&key);
            return Err(LogError::LogTooLong { most: limits.log_bytes });
        }
        if self.bytes + bytes.len() > limits.bytes || (is_new && self.logs.len() >= limits.logs) {
            return Err(LogError::Full);
        }
        if is_new && self.of_device(product, device) >= limits.device_logs {
            return Err(LogError::DeviceFull { most: limits.device_logs });
        }
        if is_new {
            self.ages.insert((now_ms, key.clone()));
        }
        let new = || Partial { count, chunks: BTreeMap::new(), bytes: 0, since_ms: now_ms };
        let partial = self.logs.entry(key.clone()).or_insert_with(new);
        partial.chunks.insert(number, bytes.into());
        partial.bytes += bytes.len();
        self.bytes += bytes.len();
        match partial.missing() {
            0 => {
                let whole = self.remove(&key).map(|partial| partial.chunks.into_values().collect::<Vec<_>>().concat());
                Ok(Taken::Whole(log, whole.unwrap_or_default()))
            }
            // Others may still be on the way, but after the last one the device waits.
            _ => Ok(Taken::Missing(if number + 1 == count { missing(Some(&*partial), count) } else { Vec::new() })),
        }
    }

    /// A device is gone: so is what is on its way.
    pub fn drop_device(&mut self, product: &ProductKey, device: &DeviceName) {
        let key = |log| (product.clone(), device.clone(), log);
        let gone: Vec<_> = self.logs.range(key(0)..=key(u32::MAX)).map(|(key, _)| key.clone()).collect();
        gone.iter().for_each(|key| drop(self.remove(key)));
    }

    /// The same of many.
    pub fn drop_devices(&mut self, is_gone: impl Fn(&ProductKey, &DeviceName) -> bool) {
        let gone = self.logs.keys().filter(|(product, device, _)| is_gone(product, device)).cloned();
        gone.collect::<Vec<_>>().iter().for_each(|key| drop(self.remove(key)));
    }

    /// Gives up what has been on the way for too long: up to `limit` at a time; call again while it gives that many.
    pub fn due(&mut self, now_ms: u64, limit: usize) -> Vec<GivenUp> {
        let age_ms = self.limits.age_ms;
        let is_old = |(since_ms, _): &&(u64, Key)| since_ms.saturating_add(age_ms) <= now_ms;
        let old: Vec<_> = self.ages.iter().take_while(is_old).take(limit).map(|(_, key)| key.clone()).collect();
        let given_up = |key: Key| {
            let partial = self.remove(&key)?;
            let (product, device, log) = key;
            Some(GivenUp { product, device, log, missing: partial.missing() })
        };
        old.into_iter().filter_map(given_up).collect()
    }

    /// Milliseconds at which [`Self::due`] has something to do.
    #[must_use]
    pub fn next_due_ms(&self) -> Option<u64> {
        self.ages.first().map(|(since_ms, _)| since_ms.saturating_add(self.limits.age_ms))
    }

    /// Bytes of what is on the way.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn of_device(&self, product: &ProductKey, device: &DeviceName) -> usize {
        let key = |log| (product.clone(), device.clone(), log);
        self.logs.range(key(0)..=key(u32::MAX)).count()
    }

    fn remove(&mut self, key: &Key) -> Option<Partial> {
        let partial = self.logs.remove(key)?;
        self.ages.remove(&(partial.since_ms, key.clone()));
        self.bytes -= partial.bytes;
        Some(partial)
    }
}

/// Chunks that haven't come.
fn missing(partial: Option<&Partial>, count: u16) -> Vec<u16> {
    let has = |number: &u16| partial.is_some_and(|partial| partial.chunks.contains_key(number));
    (0..count).filter(|number| !has(number)).take(MISSING_MAX).collect()
}

#[cfg(test)]
mod tests;
