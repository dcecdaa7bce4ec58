//! A device's log, which comes in chunks on `dev/{p}/{d}/sys/log`, in any order and some of them twice.
//!
//! A chunk is a header of 12 bytes and up to [`CHUNK_BYTES_MAX`] bytes of the log, which the device may have compressed (zlib, say): the broker keeps what it was sent. In
//! the header, most significant byte first: the log's number (4 bytes), the chunk's (2, from 0), how many chunks there are (2), the CRC-32 (ISO-HDLC) of this one's
//! bytes (4). A chunk that is broken is sent again; which ones are missing, [`Assembler::missing`] says.
//!
//! A log's number is the device's choice, another one for each log: the `id` of the command that asked for it ([`crate::command`]), or a count.

use std::collections::{BTreeMap, BTreeSet};

use turnpike_authz::names::{DeviceName, ProductKey};

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
    /// Shorter than its header, or with nothing behind it.
    #[error("a chunk of a log has {HEADER_BYTES} bytes of header and at least one more")]
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

/// What came of a chunk.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub enum Taken {
    /// It was here before.
    Again,
    /// So many are still to come.
    Missing(u16),
    /// All are here: the log's number and its bytes, which are forgotten by the assembler.
    Whole(u32, Vec<u8>),
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

struct Read<'a> {
    log: u32,
    number: u16,
    count: u16,
    bytes: &'a [u8],
}

fn read(payload: &[u8]) -> Result<Read<'_>, LogError> {
    let (log, rest) = payload.split_first_chunk::<4>().ok_or(LogError::Malformed)?;
    let (number, rest) = rest.split_first_chunk::<2>().ok_or(LogError::Malformed)?;
    let (count, rest) = rest.split_first_chunk::<2>().ok_or(LogError::Malformed)?;
    let (crc, bytes) = rest.split_first_chunk::<4>().ok_or(LogError::Malformed)?;
    let (number, count) = (u16::from_be_bytes(*number), u16::from_be_bytes(*count));
    match bytes.len() {
        0 => return Err(LogError::Malformed),
        1..=CHUNK_BYTES_MAX => {}
        _ => return Err(LogError::ChunkTooLong),
    }
    if crc32fast::hash(bytes) != u32::from_be_bytes(*crc) {
        return Err(LogError::Broken);
    }
    if number >= count {
        return Err(LogError::NoSuchChunk);
    }
    Ok(Read { log: u32::from_be_bytes(*log), number, count, bytes })
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
        let Read { log, number, count, bytes } = read(payload)?;
        let limits = self.limits;
        if count > limits.chunks {
            return Err(LogError::TooManyChunks { most: limits.chunks });
        }
        let key = (product.clone(), device.clone(), log);
        let known = self.logs.get(&key);
        if let Some(known) = known {
            if known.count != count {
                return Err(LogError::Contradiction);
            }
            if let Some(before) = known.chunks.get(&number) {
                return if **before == *bytes { Ok(Taken::Again) } else { Err(LogError::Contradiction) };
            }
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
            missing => Ok(Taken::Missing(missing)),
        }
    }

    /// The chunks of a log that haven't come, up to `limit`. None of a log that isn't on the way.
    #[must_use]
    pub fn missing(&self, product: &ProductKey, device: &DeviceName, log: u32, limit: usize) -> Vec<u16> {
        let partial = self.logs.get(&(product.clone(), device.clone(), log));
        let missing = partial.map(|partial| (0..partial.count).filter(|number| !partial.chunks.contains_key(number)));
        missing.into_iter().flatten().take(limit).collect()
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names() -> (ProductKey, DeviceName) {
        (ProductKey::parse("lamp").expect("a name"), DeviceName::parse("one").expect("a name"))
    }

    fn small() -> Assembler {
        Assembler::new(Limits { log_bytes: 8, chunks: 4, bytes: 12, logs: 3, device_logs: 2, age_ms: 10 })
    }

    fn take(assembler: &mut Assembler, payload: &[u8], now_ms: u64) -> Result<Taken, LogError> {
        let (product, device) = names();
        assembler.take(&product, &device, payload, now_ms)
    }

    #[test]
    fn a_log_is_put_together_from_its_chunks() {
        let mut assembler = small();
        assert_eq!(take(&mut assembler, &chunk(7, 2, 3, b"c"), 0), Ok(Taken::Missing(2)));
        assert_eq!(take(&mut assembler, &chunk(7, 2, 3, b"c"), 0), Ok(Taken::Again));
        assert_eq!(take(&mut assembler, &chunk(7, 0, 3, b"aa"), 0), Ok(Taken::Missing(1)));
        let (product, device) = names();
        assert_eq!(assembler.missing(&product, &device, 7, 9), [1]);
        assert!(assembler.missing(&product, &device, 8, 9).is_empty());
        assert_eq!(take(&mut assembler, &chunk(7, 1, 3, b"b"), 0), Ok(Taken::Whole(7, b"aabc".to_vec())));
        assert_eq!((assembler.bytes(), assembler.next_due_ms()), (0, None));
    }

    #[test]
    fn each_fault_has_its_name_and_what_was_taken_stays() {
        let mut assembler = small();
        assert_eq!(take(&mut assembler, &chunk(7, 0, 3, b"aa"), 0), Ok(Taken::Missing(2)));
        let mut broken = chunk(7, 1, 3, b"b");
        broken[HEADER_BYTES] ^= 1;
        for (payload, error) in [
            (vec![], LogError::Malformed),
            (chunk(7, 1, 3, b""), LogError::Malformed),
            (broken, LogError::Broken),
            (chunk(7, 3, 3, b"b"), LogError::NoSuchChunk),
            (chunk(7, 0, 0, b"b"), LogError::NoSuchChunk),
            (chunk(7, 1, 5, b"b"), LogError::TooManyChunks { most: 4 }),
            (chunk(7, 1, 4, b"b"), LogError::Contradiction),
            (chunk(7, 0, 3, b"ab"), LogError::Contradiction),
        ] {
            assert_eq!(take(&mut assembler, &payload, 0), Err(error));
        }
        let mut long = chunk(7, 1, 3, &[0; CHUNK_BYTES_MAX]);
        long.push(0);
        assert_eq!(take(&mut assembler, &long, 0), Err(LogError::ChunkTooLong));
        assert_eq!(assembler.bytes(), 2);
        assert_eq!(take(&mut assembler, &chunk(8, 0, 3, b"12345678"), 0), Ok(Taken::Missing(2)));
        assert_eq!(take(&mut assembler, &chunk(9, 0, 3, b"1"), 0), Err(LogError::DeviceFull { most: 2 }));
        assert_eq!(take(&mut assembler, &chunk(7, 1, 3, b"123"), 0), Err(LogError::Full), "bytes");
        let (product, _) = names();
        let mut other =
            |name, payload: &[u8]| assembler.take(&product, &DeviceName::parse(name).expect("a name"), payload, 0);
        assert_eq!(other("two", &chunk(7, 0, 2, b"1")), Ok(Taken::Missing(1)), "another device's has that number too");
        assert_eq!(other("three", &chunk(7, 0, 2, b"1")), Err(LogError::Full), "logs");
        assert_eq!(other("two", &chunk(7, 1, 2, b"2")), Ok(Taken::Whole(7, b"12".to_vec())));
        assert_eq!(take(&mut assembler, &chunk(8, 1, 3, b"9"), 0), Err(LogError::LogTooLong { most: 8 }));
        assert_eq!(assembler.bytes(), 2, "the long one is given up");
    }

    #[test]
    fn an_old_one_is_given_up() {
        let mut assembler = small();
        assert_eq!(take(&mut assembler, &chunk(7, 0, 3, b"aa"), 5), Ok(Taken::Missing(2)));
        assert_eq!(take(&mut assembler, &chunk(7, 1, 3, b"b"), 14), Ok(Taken::Missing(1)));
        assert_eq!((assembler.due(14, 9), assembler.next_due_ms()), (vec![], Some(15)));
        let (product, device) = names();
        assert_eq!(assembler.due(15, 9), [GivenUp { product, device, log: 7, missing: 1 }]);
        assert_eq!(assembler.bytes(), 0);
    }

    proptest! {
        #[test]
        fn in_any_order_it_is_the_log(
            log in proptest::collection::vec(any::<u8>(), 1..400),
            size in 20..90_usize,
            order in proptest::collection::vec(any::<prop::sample::Index>(), 0..60),
        ) {
            let parts: Vec<_> = log.chunks(size).collect();
            let count = u16::try_from(parts.len()).expect("few");
            let mut assembler = Assembler::default();
            let all = (0..parts.len()).rev();
            let mut whole = None;
            for at in order.into_iter().map(|index| index.index(parts.len())).chain(all) {
                let number = u16::try_from(at).expect("few");
                if let Ok(Taken::Whole(1, bytes)) = take(&mut assembler, &chunk(1, number, count, parts[at]), 0) {
                    whole = Some(bytes);
                    break;
                }
            }
            prop_assert_eq!(whole, Some(log));
            prop_assert_eq!(assembler.bytes(), 0);
        }

        #[test]
        fn anything_stays_within_limits(payloads in proptest::collection::vec(
            (0..4_u32, 0..5_u16, 0..5_u16, proptest::collection::vec(any::<u8>(), 0..9)), 0..60)) {
            let mut assembler = small();
            for (log, number, count, bytes) in payloads {
                let _ = take(&mut assembler, &chunk(log, number, count, &bytes), 0);
                prop_assert!(assembler.bytes() <= 12 && assembler.logs.len() <= 2, "one device's");
                prop_assert_eq!(assembler.bytes(), assembler.logs.values().map(|partial| partial.bytes).sum::<usize>());
                prop_assert_eq!(assembler.ages.len(), assembler.logs.len());
            }
        }

        #[test]
        fn no_bytes_panic(payload in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = take(&mut small(), &payload, 0);
        }
    }
}
