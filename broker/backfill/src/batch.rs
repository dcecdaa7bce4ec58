//! Batches: from what a device sent to records that may be published.
//!
//! [`decode`] unpacks and reads; [`Batch::check`] looks at each record's topic and time. Both stop at the first bad record and keep what came before it.
//! A batch owns its bytes, so it can go from a worker to the shard that publishes it; records borrow from it.
//!
//! `cargo run --release -p turnpike-backfill --example decode`, one core of a machine with other work, batches of 4,096 records, payloads of some 30 bytes:
//!
//! | | decoded | and checked |
//! |---|---|---|
//! | CBOR, arrays | 97 ns a record, 10.3 million a second | 127 ns |
//! | CBOR, maps | 136 ns, 7.3 million | 167 ns |
//! | JSON | 212 ns, 4.7 million | |

mod cbor;
mod check;
mod json;

use std::ops::Range;

pub use check::{CLOCK_OFF_MS, Tree};

use crate::bounds::Bounds;
use crate::packed::{PackError, Packing};

/// In which of the two ways a batch is written, and is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Encoding {
    /// RFC 8949.
    #[default]
    Cbor,
    /// RFC 8259.
    Json,
}

/// A field of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Field {
    /// Which start of the device it belongs to.
    Boot,
    /// Its number within the boot.
    Seq,
    /// When it was made.
    Ts,
    /// Where it is published.
    Topic,
    /// What is published.
    Payload,
}

impl Field {
    const ALL: [Self; 5] = [Self::Boot, Self::Seq, Self::Ts, Self::Topic, Self::Payload];

    /// As in a record.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::Seq => "seq",
            Self::Ts => "ts",
            Self::Topic => "topic",
            Self::Payload => "payload",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.name() == name)
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }

    /// The first that isn't among the bits.
    fn missing(bits: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|field| bits & field.bit() == 0)
    }
}

/// Why nothing of a batch can be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BatchError {
    /// The content type is none that batches have.
    #[error("the content type is none of application/cbor and application/json, with +zlib, +zstd, +lz4 or nothing")]
    ContentType,
    /// It can't be unpacked.
    #[error(transparent)]
    Packed(#[from] PackError),
    /// It isn't packed, and longer than a batch may be.
    #[error("the batch is longer than allowed")]
    TooLarge,
    /// Neither CBOR nor JSON, or not a list of records.
    #[error("the batch is neither a list of records nor a map with one")]
    NotABatch,
    /// Its list of lost ranges is no list of `[boot, from, to]`, or too long.
    #[error("the list of lost ranges is malformed or too long")]
    Lost,
}

impl BatchError {
    /// As the answer and counters name it.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::ContentType => "content_type",
            Self::Packed(PackError::Damaged) => "packed_damaged",
            Self::Packed(PackError::TooLarge) | Self::TooLarge => "too_large",
            Self::Packed(PackError::TooDense) => "too_dense",
            Self::Packed(PackError::BlockSize) => "block_size",
            Self::NotABatch => "not_a_batch",
            Self::Lost => "lost_malformed",
        }
    }
}

/// Why a record isn't taken, nor any after it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordError {
    /// The batch ends within it.
    #[error("the batch is cut short")]
    CutShort,
    /// It is no record, or not well-formed.
    #[error("not a record")]
    Malformed,
    /// A field isn't there.
    #[error("the record has no {}", .0.name())]
    Missing(Field),
    /// A field has another type, or a number that is out of range.
    #[error("the record's {} is of another type or out of range", .0.name())]
    Wrong(Field),
    /// A field is there twice.
    #[error("the record has two of {}", .0.name())]
    Twice(Field),
    /// Something follows the list of records.
    #[error("something follows the records")]
    Trailing,
    /// The batch has more records than it may.
    #[error("the batch has too many records")]
    TooMany,
    /// The batch has records of more boots than it may.
    #[error("the batch has records of too many boots")]
    TooManyBoots,
    /// The payload is longer than it may be.
    #[error("the payload is too long")]
    PayloadTooLong,
    /// The topic is longer than it may be.
    #[error("the topic is too long")]
    TopicTooLong,
    /// It is no topic name: empty, with a wildcard or a control character.
    #[error("not a topic name")]
    BadTopic,
    /// Nothing stored is published there: the device's own `backfill`, `ota` and `sys`, and `$SYS`.
    #[error("no topic for stored data")]
    ReservedTopic,
    /// The device may not publish there. Said by whoever asked the gate.
    #[error("the device may not publish there")]
    NotAllowed,
    /// Older than the window.
    #[error("too old")]
    TooOld,
    /// Ahead of the window.
    #[error("in the future")]
    InFuture,
    /// Ten years or more from now: the device's clock was never set.
    #[error("the device's clock was off by years")]
    ClockOff,
    /// The ledger has no room for one more range: the gaps are to be filled or declared lost first.
    #[error("beyond too many gaps")]
    TooFar,
    /// Of a boot before those that are remembered.
    #[error("of a boot that is forgotten")]
    BootForgotten,
}

impl RecordError {
    /// As the answer and counters name it.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::CutShort => "cut_short",
            Self::Malformed => "malformed",
            Self::Missing(_) => "field_missing",
            Self::Wrong(_) => "field_wrong",
            Self::Twice(_) => "field_twice",
            Self::Trailing => "trailing",
            Self::TooMany => "too_many",
            Self::TooManyBoots => "too_many_boots",
            Self::PayloadTooLong => "payload_too_long",
            Self::TopicTooLong => "topic_too_long",
            Self::BadTopic => "bad_topic",
            Self::ReservedTopic => "reserved_topic",
            Self::NotAllowed => "not_allowed",
            Self::TooOld => "too_old",
            Self::InFuture => "in_future",
            Self::ClockOff => "clock_off",
            Self::TooFar => "too_far",
            Self::BootForgotten => "boot_forgotten",
        }
    }
}

/// One record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    /// Which start of the device it belongs to; a counter that grows.
    pub boot: u64,
    /// Its number within the boot, from 1 on.
    pub seq: u64,
    /// Milliseconds since 1970 UTC.
    pub ts_ms: i64,
    /// As written: below the device's own tree if it begins with `up/`, else whole ([`Tree::topic`]).
    pub topic: &'a str,
    /// What to publish.
    pub payload: &'a [u8],
}

/// Where a record's parts lie in the batch's bytes.
#[derive(Clone, Copy, Debug)]
struct Slot {
    boot: u64,
    seq: u64,
    ts_ms: i64,
    topic: (u32, u32),
    payload: (u32, u32),
}

/// A device's word that it has no record of these numbers any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lost {
    /// Of which boot.
    pub boot: u64,
    /// The first, at least 1.
    pub from: u64,
    /// The last, at least `from`.
    pub to: u64,
}

/// Records in the order in which they came.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    slots: Vec<Slot>,
    lost: Vec<Lost>,
    stopped: Option<(usize, RecordError)>,
    /// Of the record at which it stopped, where that could be read.
    stopped_boot: Option<u64>,
    encoding: Encoding,
}

impl Batch {
    /// How many records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// One record, from 0 on.
    #[must_use]
    pub fn record(&self, index: usize) -> Option<Record<'_>> {
        self.slots.get(index).map(|slot| self.resolve(slot))
    }

    /// All records.
    pub fn records(&self) -> impl ExactSizeIterator<Item = Record<'_>> {
        self.slots.iter().map(|slot| self.resolve(slot))
    }

    /// What the device declared lost. To be told to the ledger before the records.
    #[must_use]
    pub fn lost(&self) -> &[Lost] {
        &self.lost
    }

    /// The first bad record and what is wrong with it. It isn't among the records, nor is any after it.
    #[must_use]
    pub fn stopped(&self) -> Option<(usize, RecordError)> {
        self.stopped
    }

    /// Of which boot the first bad record is; none if there is none, or that could not be read.
    #[must_use]
    pub fn stopped_boot(&self) -> Option<u64> {
        self.stopped_boot
    }

    /// Bytes on the heap, as asked for.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.bytes.capacity() + self.slots.capacity() * size_of::<Slot>() + self.lost.capacity() * size_of::<Lost>()
    }

    /// In what the answer is to be written.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Bytes of topics and payloads, what the budget asks for.
    #[must_use]
    pub fn content_bytes(&self) -> u64 {
        self.slots.iter().map(|slot| u64::from(slot.topic.1) + u64::from(slot.payload.1)).sum()
    }

    /// Drops the record at `index` and all after it, for this reason. Nothing if there are no so many: an earlier reason stays.
    pub fn stop_at(&mut self, index: usize, error: RecordError) {
        if let Some(slot) = self.slots.get(index) {
            self.stopped_boot = Some(slot.boot);
            self.slots.truncate(index);
            self.stopped = Some((index, error));
        }
    }

    /// Stops at the first record whose topic or time is bad. Whether the device may publish there is the gate's to say.
    pub fn check(&mut self, tree: &Tree<'_>, now_unix_ms: u64, bounds: &Bounds) {
        let bad = self.records().enumerate().find_map(|(index, record)| {
            let checked =
                tree.check(record.topic, bounds).and_then(|()| check::time(record.ts_ms, now_unix_ms, bounds));
            checked.err().map(|error| (index, error))
        });
        if let Some((index, error)) = bad {
            self.stop_at(index, error);
        }
    }

    fn resolve(&self, slot: &Slot) -> Record<'_> {
        let part = |(start, bytes): (u32, u32)| {
            let range: Range<usize> = start as usize..start as usize + bytes as usize;
            self.bytes.get(range).unwrap_or_default()
        };
        // It was text when the slot was made, of the same bytes.
        let topic = std::str::from_utf8(part(slot.topic)).unwrap_or_default();
        Record { boot: slot.boot, seq: slot.seq, ts_ms: slot.ts_ms, topic, payload: part(slot.payload) }
    }
}

/// Reads a batch. Without a content type, packing and encoding are told by the first bytes.
///
/// # Errors
/// [`BatchError`] if there isn't a list of records; what is wrong with a record is [`Batch::stopped`].
pub fn decode(payload: &[u8], content_type: Option<&str>, bounds: &Bounds) -> Result<Batch, BatchError> {
    let (encoding, packing) = match content_type {
        Some(text) => {
            let (encoding, packing) = parse_content_type(text)?;
            (Some(encoding), packing)
        }
        None => (None, Packing::sniff(payload)),
    };
    let bytes = match packing {
        Some(packing) => packing.unpack(payload, bounds)?,
        None if payload.len() > bounds.unpacked_bytes_max => return Err(BatchError::TooLarge),
        None => payload.to_vec(),
    };
    let encoding = encoding.or_else(|| sniff(&bytes)).ok_or(BatchError::NotABatch)?;
    let mut draft = Draft::new(bounds, bytes.len());
    match encoding {
        Encoding::Cbor => cbor::read(&bytes, &mut draft)?,
        Encoding::Json => json::read(&bytes, &mut draft)?,
    }
    Ok(draft.finish(bytes, encoding))
}

impl Encoding {
    /// In what to answer a batch that couldn't be read: what its content type says, if that is one; else CBOR, unless it looks like JSON.
    #[must_use]
    pub fn guess(payload: &[u8], content_type: Option<&str>) -> Self {
        let said = content_type.map(kind_and_packing).and_then(|(kind, _)| Self::named(kind));
        said.or_else(|| sniff(payload)).unwrap_or_default()
    }

    fn named(kind: &str) -> Option<Self> {
        match () {
            () if kind.eq_ignore_ascii_case("application/cbor") => Some(Self::Cbor),
            () if kind.eq_ignore_ascii_case("application/json") => Some(Self::Json),
            () => None,
        }
    }
}

fn sniff(bytes: &[u8]) -> Option<Encoding> {
    match bytes.iter().find(|byte| !byte.is_ascii_whitespace())? {
        b'[' | b'{' => Some(Encoding::Json),
        0x80..=0xBF => Some(Encoding::Cbor),
        _ => None,
    }
}

/// `application/json+zlib` in two, without parameters.
fn kind_and_packing(text: &str) -> (&str, Option<&str>) {
    let essence = text.split(';').next().unwrap_or_default().trim();
    essence.split_once('+').map_or((essence, None), |(kind, packing)| (kind, Some(packing)))
}

fn parse_content_type(text: &str) -> Result<(Encoding, Option<Packing>), BatchError> {
    let (kind, packing) = kind_and_packing(text);
    let encoding = Encoding::named(kind).ok_or(BatchError::ContentType)?;
    let packing = packing.map(|name| Packing::named(name).ok_or(BatchError::ContentType)).transpose()?;
    Ok((encoding, packing))
}

/// A batch while it is read.
struct Draft<'b> {
    bounds: &'b Bounds,
    /// Of the bytes that are read: what is added to them begins there.
    base: usize,
    /// Texts without their escapes, payloads without base64.
    added: Vec<u8>,
    slots: Vec<Slot>,
    lost: Vec<Lost>,
    boots: Vec<u64>,
    stopped: Option<RecordError>,
    stopped_boot: Option<u64>,
}

impl<'b> Draft<'b> {
    fn new(bounds: &'b Bounds, base: usize) -> Self {
        // The shortest record is about 16 bytes.
        let slots = Vec::with_capacity((base / 16).min(bounds.records_max));
        Self {
            bounds,
            base,
            added: Vec::new(),
            slots,
            lost: Vec::new(),
            boots: Vec::new(),
            stopped: None,
            stopped_boot: None,
        }
    }

    fn push(&mut self, slot: Slot) -> Result<(), RecordError> {
        let boot = slot.boot;
        self.add(slot).inspect_err(|_| self.stopped_boot = Some(boot))
    }

    fn add(&mut self, slot: Slot) -> Result<(), RecordError> {
        if self.slots.len() >= self.bounds.records_max {
            return Err(RecordError::TooMany);
        }
        if slot.seq == 0 {
            return Err(RecordError::Wrong(Field::Seq));
        }
        if slot.payload.1 as usize > self.bounds.payload_bytes_max {
            return Err(RecordError::PayloadTooLong);
        }
        if self.boots.last() != Some(&slot.boot) && !self.boots.contains(&slot.boot) {
            if self.boots.len() >= self.bounds.boots_max {
                return Err(RecordError::TooManyBoots);
            }
            self.boots.push(slot.boot);
        }
        self.slots.push(slot);
        Ok(())
    }

    fn push_lost(&mut self, lost: Lost) -> Result<(), BatchError> {
        if lost.from == 0 || lost.to < lost.from || self.lost.len() >= self.bounds.ranges_max {
            return Err(BatchError::Lost);
        }
        self.lost.push(lost);
        Ok(())
    }

    fn finish(self, mut bytes: Vec<u8>, encoding: Encoding) -> Batch {
        bytes.extend_from_slice(&self.added);
        let stopped = self.stopped.map(|error| (self.slots.len(), error));
        Batch { bytes, slots: self.slots, lost: self.lost, stopped, stopped_boot: self.stopped_boot, encoding }
    }
}

#[cfg(test)]
mod tests;
