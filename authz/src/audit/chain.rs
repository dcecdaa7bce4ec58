//! The chain: how lines are written, and how it is found out that one isn't as it was written.
//!
//! A line is `{"seq":7,` + the members of an [`super::Event`] + `,"mac":"…"}`. The first of a segment has two members more after its number:
//! `"prev":"…"`, the mac of the line before, and `"key":5`, which tells the key that the segment is under from others.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::LINE_BYTES_MAX;
use super::event::number;
use crate::secret::MasterKey;

/// Hexadecimal digits of a mac.
const HEX: usize = 64;
/// What stands between a line's text and its mac, and after that.
const BEFORE_MAC: &[u8] = b",\"mac\":\"";
const AFTER_MAC: &[u8] = b"\"}";

/// The keys of the audit, derived from the master key.
#[derive(Clone)]
pub struct ChainKey {
    lines: Hmac<Sha256>,
    head: Hmac<Sha256>,
    tokens: Hmac<Sha256>,
    id: u8,
}

impl ChainKey {
    /// From the master key.
    #[must_use]
    pub fn new(master: &MasterKey) -> Self {
        let key = |label| {
            let bytes = master.derive(label);
            <Hmac<Sha256> as KeyInit>::new_from_slice(&*bytes).expect("HMAC takes a key of any length")
        };
        Self {
            lines: key("turnpike audit lines"),
            head: key("turnpike audit head"),
            tokens: key("turnpike audit tokens"),
            id: master.id(),
        }
    }

    /// That of the master key: tells it from another, but for one in 256.
    #[must_use]
    pub fn id(&self) -> u8 {
        self.id
    }

    fn line(&self, before: &Mac, text: &[u8]) -> Mac {
        Mac(self.lines.clone().chain_update(before.0).chain_update(text).finalize().into_bytes().into())
    }

    pub(super) fn head(&self, text: &[u8]) -> Mac {
        Mac(self.head.clone().chain_update(text).finalize().into_bytes().into())
    }

    pub(super) fn pseudonym(&self, token: &[u8]) -> u32 {
        let bytes: [u8; 32] = self.tokens.clone().chain_update(token).finalize().into_bytes().into();
        let [a, b, c, d, ..] = bytes;
        u32::from_be_bytes([a, b, c, d])
    }
}

impl fmt::Debug for ChainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChainKey(id {})", self.id)
    }
}

/// The mac of a line. No secret: it stands in the file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Mac([u8; 32]);

impl Mac {
    /// From 64 lower-case hexadecimal digits. No others: each byte of a line counts.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut bytes = [0; 32];
        let lower = text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        (lower && hex::decode_to_slice(text, &mut bytes).is_ok()).then_some(Self(bytes))
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where a chain stands: its last line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// Number of the line, from 1; 0 before the first.
    pub sequence: u64,
    /// Its mac.
    pub mac: Mac,
}

impl Link {
    /// Before the first line.
    pub const START: Self = Self { sequence: 0, mac: Mac([0; 32]) };

    /// Appends a line with its line feed; `body` is what [`super::Event::encode`] wrote.
    pub fn append(&mut self, key: &ChainKey, body: &[u8], out: &mut Vec<u8>) {
        let begin = self.begin(out);
        self.close(key, body, begin, out);
    }

    /// Appends the first line of a segment.
    pub fn begin_segment(&mut self, key: &ChainKey, body: &[u8], out: &mut Vec<u8>) {
        let begin = self.begin(out);
        out.extend_from_slice(format!("\"prev\":\"{}\",\"key\":{},", self.mac, key.id).as_bytes());
        self.close(key, body, begin, out);
    }

    fn begin(&mut self, out: &mut Vec<u8>) -> usize {
        let begin = out.len();
        self.sequence += 1;
        out.extend_from_slice(b"{\"seq\":");
        number(self.sequence, out);
        out.push(b',');
        begin
    }

    fn close(&mut self, key: &ChainKey, body: &[u8], begin: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(body);
        self.mac = key.line(&self.mac, out.get(begin..).unwrap_or_default());
        let mut digits = [0; HEX];
        hex::encode_to_slice(self.mac.0, &mut digits).expect("two digits a byte");
        out.extend_from_slice(BEFORE_MAC);
        out.extend_from_slice(&digits);
        out.extend_from_slice(AFTER_MAC);
        out.push(b'\n');
    }
}

/// A line, taken apart and not yet believed.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// Its number and its mac, as they are written.
    pub link: Link,
    /// Of the first of a segment: the mac of the line before it, and the id of its key.
    pub start: Option<(Mac, u8)>,
    /// The event's members.
    pub body: &'a [u8],
    text: &'a [u8],
}

impl<'a> Line<'a> {
    /// Takes a line apart; without its line feed. None if it is none of ours.
    #[must_use]
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        if line.len() > LINE_BYTES_MAX {
            return None;
        }
        let rest = line.strip_suffix(AFTER_MAC)?;
        let (rest, mac) = rest.split_at_checked(rest.len().checked_sub(HEX)?)?;
        let text = rest.strip_suffix(BEFORE_MAC)?;
        let (sequence, body) = digits(text.strip_prefix(b"{\"seq\":")?)?;
        let mut body = body.strip_prefix(b",")?;
        let mut start = None;
        if let Some(rest) = body.strip_prefix(b"\"prev\":\"") {
            let (mac, rest) = rest.split_at_checked(HEX)?;
            let (key, rest) = digits(rest.strip_prefix(b"\",\"key\":")?)?;
            body = rest.strip_prefix(b",")?;
            start = Some((Mac::parse(mac)?, u8::try_from(key).ok()?));
        }
        Some(Self { link: Link { sequence, mac: Mac::parse(mac)? }, start, body, text })
    }

    /// When it was written down for, milliseconds since 1970 UTC; 0 where that isn't to be told.
    #[must_use]
    pub fn at_ms(&self) -> u64 {
        self.body.strip_prefix(b"\"time\":").and_then(digits).map_or(0, |(ms, _)| ms)
    }

    /// Whether it tells of this action. An id can't feign it: its quotation marks are escaped.
    #[must_use]
    pub fn is(&self, action: super::Action) -> bool {
        let wanted = format!(",\"action\":\"{}\"", action.label());
        self.body.windows(wanted.len()).any(|part| part == wanted.as_bytes())
    }

    /// A number of its details.
    #[must_use]
    pub fn number(&self, key: super::Key) -> Option<u64> {
        let wanted = format!("\"{}\":", key.label());
        let at = self.body.windows(wanted.len()).position(|part| part == wanted.as_bytes())?;
        digits(self.body.get(at + wanted.len()..)?).map(|(number, _)| number)
    }
}

/// A decimal number without leading zeros at the beginning of a text, and what follows it.
fn digits(text: &[u8]) -> Option<(u64, &[u8])> {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at_checked(end)?;
    if number.len() > 1 && number.starts_with(b"0") {
        return None;
    }
    Some((std::str::from_utf8(number).ok()?.parse().ok()?, rest))
}

/// What is wrong with an audit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// Bytes that aren't a line of an audit.
    #[error("record {expected} should be here, and these bytes are none")]
    NoRecord {
        /// The number that was due.
        expected: u64,
    },
    /// The mac is another's: the line isn't as it was written.
    #[error("record {sequence} has been changed")]
    Changed {
        /// Its number.
        sequence: u64,
    },
    /// Numbers that don't come.
    #[error("records {first} to {last} are missing")]
    Missing {
        /// The first of them.
        first: u64,
        /// The last of them.
        last: u64,
    },
    /// A number that has been before, or should have come earlier.
    #[error("record {found} stands where record {expected} should")]
    OutOfOrder {
        /// Which was due.
        expected: u64,
        /// Which is there.
        found: u64,
    },
    /// The segment doesn't begin with the record that every segment begins with.
    #[error("the segment doesn't begin with the record that links it to the one before")]
    NoStart,
    /// The segment goes on from another line than the last of the segment before.
    #[error("record {sequence} doesn't follow the last record of the segment before")]
    Unlinked {
        /// Its number.
        sequence: u64,
    },
    /// The segment was written under a key that isn't at hand.
    #[error("the segment is under another master key (id {id}); give that one too")]
    OtherKey {
        /// What tells that key from others.
        id: u8,
    },
    /// The last records are missing.
    #[error("the last records are missing: it ends with {last}, and the head knows of {head}")]
    Truncated {
        /// The last that is there.
        last: u64,
        /// The last that was on disk once.
        head: u64,
    },
    /// A record isn't the one that the head, or an anchor, knows.
    #[error("record {sequence} is another than the head or the anchor says")]
    NotTheSame {
        /// Its number.
        sequence: u64,
    },
    /// The oldest records are missing, and retention didn't remove them.
    #[error("the records before {first} are missing, and no record says that they were removed")]
    RemovedUnsaid {
        /// The first that is there.
        first: u64,
    },
    /// There is no head, or it is not genuine.
    #[error("the head is missing, or it has been changed")]
    NoHead,
}

/// What an audit that was verified has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// How many records.
    pub records: u64,
    /// Number of the first.
    pub first: u64,
    /// Number of the last.
    pub last: u64,
    /// The earliest time in it, milliseconds since 1970 UTC.
    pub from_ms: u64,
    /// The latest.
    pub to_ms: u64,
    /// Events that were dropped, by its own account.
    pub dropped: u64,
    /// How often it notes that records were lost or damaged before.
    pub damages: u64,
}

/// Follows a chain line by line. Its memory doesn't grow with the chain.
#[derive(Debug)]
pub struct Verifier<'a> {
    keys: &'a [ChainKey],
    /// Of the segment; none if it isn't at hand.
    key: Option<&'a ChainKey>,
    at: Option<u64>,
    /// What the next mac may go on from: as written and, where that was wrong, as it should have been. None where it can't be known.
    macs: [Option<Mac>; 2],
    in_segment: bool,
    removed: u64,
    expected: Vec<Link>,
    summary: Summary,
}

impl<'a> Verifier<'a> {
    /// With the key of the audit, and former ones.
    #[must_use]
    pub fn new(keys: &'a [ChainKey]) -> Self {
        Self {
            keys,
            key: None,
            at: None,
            macs: [None; 2],
            in_segment: false,
            removed: 0,
            expected: Vec::new(),
            summary: Summary::default(),
        }
    }

    /// The chain must have this line: the head says so, or an anchor that was kept elsewhere.
    pub fn expect(&mut self, link: Link) {
        if link.sequence > 0 {
            self.expected.push(link);
        }
    }

    /// The next line is the first of a segment.
    pub fn begin_segment(&mut self) {
        self.in_segment = false;
    }

    /// Where the chain stands, as it is written.
    #[must_use]
    pub fn link(&self) -> Option<Link> {
        let [written, _] = self.macs;
        Some(Link { sequence: self.at?, mac: written? })
    }

    /// The next line, without its line feed.
    ///
    /// # Errors
    /// What is wrong with it. The lines after it can be checked nevertheless.
    pub fn line(&mut self, line: &[u8]) -> Result<(), Fault> {
        let expected = self.at.map_or(1, |at| at + 1);
        let Some(line) = Line::parse(line) else {
            self.at = Some(expected);
            self.macs = [None; 2];
            self.in_segment = true;
            return Err(Fault::NoRecord { expected });
        };
        let is_first = self.at.is_none();
        let order = self.check_order(&line);
        let start = self.check_start(&line, order.is_ok());
        let mac = self.check_mac(&line, order.is_ok() || line.start.is_some());
        let known = self.check_expected(&line);
        let link = line.link;
        self.at = Some(link.sequence);
        order.and(start).and(mac).and(known)?;
        self.count(&line, is_first);
        Ok(())
    }

    fn check_order(&self, line: &Line<'_>) -> Result<(), Fault> {
        let Some(at) = self.at else { return Ok(()) };
        let (expected, found) = (at + 1, line.link.sequence);
        match found {
            _ if found == expected => Ok(()),
            _ if found > expected => Err(Fault::Missing { first: expected, last: found - 1 }),
            _ => Err(Fault::OutOfOrder { expected, found }),
        }
    }

    fn check_start(&mut self, line: &Line<'_>, in_order: bool) -> Result<(), Fault> {
        let is_first = !std::mem::replace(&mut self.in_segment, true);
        let Some((before, id)) = line.start else {
            if is_first && self.key.is_none() {
                self.key = self.keys.first();
            }
            return if is_first { Err(Fault::NoStart) } else { Ok(()) };
        };
        let follows = self.macs.iter().flatten().any(|mac| mac.is(&before));
        let linked = !in_order || self.macs == [None; 2] || follows;
        self.macs = [Some(before), None];
        self.key = self.keys.iter().find(|key| key.id == id);
        match self.key {
            None => Err(Fault::OtherKey { id }),
            Some(_) if !linked => Err(Fault::Unlinked { sequence: line.link.sequence }),
            Some(_) => Ok(()),
        }
    }

    fn check_mac(&mut self, line: &Line<'_>, comparable: bool) -> Result<(), Fault> {
        let written = line.link.mac;
        let Some(key) = self.key.filter(|_| comparable) else {
            self.macs = [Some(written), None];
            return Ok(());
        };
        let made = self.macs.map(|before| before.map(|before| key.line(&before, line.text)));
        if made == [None; 2] || made.iter().flatten().any(|made| made.is(&written)) {
            self.macs = [Some(written), None];
            return Ok(());
        }
        let [first, _] = made;
        self.macs = [Some(written), first];
        Err(Fault::Changed { sequence: line.link.sequence })
    }

    fn check_expected(&mut self, line: &Line<'_>) -> Result<(), Fault> {
        let link = line.link;
        let differs = |known: &Link| known.sequence == link.sequence && !known.mac.is(&link.mac);
        let wrong = self.expected.iter().any(differs);
        self.expected.retain(|known| known.sequence != link.sequence);
        if wrong { Err(Fault::NotTheSame { sequence: link.sequence }) } else { Ok(()) }
    }

    fn count(&mut self, line: &Line<'_>, is_first: bool) {
        use super::{Action, Key};
        let (summary, at_ms) = (&mut self.summary, line.at_ms());
        if summary.records == 0 {
            (summary.from_ms, summary.to_ms) = (at_ms, at_ms);
        }
        if is_first {
            summary.first = line.link.sequence;
        }
        summary.records += 1;
        summary.last = line.link.sequence;
        summary.from_ms = summary.from_ms.min(at_ms);
        summary.to_ms = summary.to_ms.max(at_ms);
        // All that is looked for below is the broker's own account.
        if !line.body.windows(OWN.len()).any(|part| part == OWN) {
            return;
        }
        if line.is(Action::RecordsRemoved) {
            self.removed = self.removed.max(line.number(Key::Sequence).unwrap_or(0));
        } else if line.is(Action::RecordsDropped) {
            summary.dropped += line.number(Key::Count).unwrap_or(0);
        } else if line.is(Action::DamageFound) || line.is(Action::ChainLost) {
            summary.damages += 1;
        }
    }

    /// After the last line: what the audit has, and what can only be told now.
    #[must_use]
    pub fn end(self) -> (Summary, Vec<Fault>) {
        let mut faults = Vec::new();
        let last = self.at.unwrap_or(0);
        faults.extend(self.expected.iter().map(|known| match known.sequence > last {
            true => Fault::Truncated { last, head: known.sequence },
            false => Fault::NotTheSame { sequence: known.sequence },
        }));
        let first = self.summary.first;
        // What an anchor knows of older records, retention may have removed since.
        faults.retain(|fault| !matches!(fault, Fault::NotTheSame { sequence } if *sequence < first));
        if first > 1 && self.removed + 1 < first {
            faults.push(Fault::RemovedUnsaid { first });
        }
        (self.summary, faults)
    }
}

/// In whatever the broker says of itself.
const OWN: &[u8] = b",\"actor\":\"broker\",";

#[cfg(test)]
mod tests;
