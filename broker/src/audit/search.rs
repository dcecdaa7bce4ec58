//! Search: segments are read as they are, forwards or backwards, no more of them than one request may cost.
//!
//! A segment whose times don't meet what is asked isn't opened. What is left is read line by line; there is no index within a segment, since
//! it would have to be as trustworthy as the segment. A page ends when it is full, when its bytes are used up, or with the audit; in the first
//! two cases it says where the next one begins.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::files::{Lines, Read1, Segment};

/// Read at once when going backwards.
const CHUNK_BYTES: u64 = 64 << 10;

/// A record, as it is given out.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Entry {
    /// Number of the record.
    pub seq: u64,
    /// Milliseconds since 1970 UTC.
    pub time: u64,
    /// Who did it, such as `operator:1b0c2d3e` or `device:lamp/one`.
    pub actor: String,
    /// From which address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// What.
    pub action: String,
    /// To whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// `ok`, `accepted`, `refused` or `failed`.
    pub result: String,
    /// Why it was refused or failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// What else is known.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    #[schema(value_type = Object)]
    pub detail: serde_json::Map<String, serde_json::Value>,
}

/// What is looked at to see whether a line is wanted.
#[derive(Deserialize)]
struct Probe<'a> {
    time: u64,
    #[serde(borrow)]
    actor: Cow<'a, str>,
    #[serde(borrow)]
    action: Cow<'a, str>,
    #[serde(borrow, default)]
    target: Cow<'a, str>,
}

/// A text, or with `*` at its end, the beginning of one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pattern {
    text: String,
    is_prefix: bool,
}

impl Pattern {
    /// Reads one.
    #[must_use]
    pub fn new(text: &str) -> Self {
        match text.strip_suffix('*') {
            Some(prefix) => Self { text: prefix.to_owned(), is_prefix: true },
            None => Self { text: text.to_owned(), is_prefix: false },
        }
    }

    fn takes(&self, text: &str) -> bool {
        if self.is_prefix { text.starts_with(&self.text) } else { text == self.text }
    }
}

/// What is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Query {
    /// From this moment on, milliseconds since 1970 UTC.
    pub from_ms: u64,
    /// Before this moment.
    pub to_ms: u64,
    /// Done by whom.
    pub actor: Option<Pattern>,
    /// What.
    pub action: Option<Pattern>,
    /// To whom.
    pub target: Option<Pattern>,
    /// Records of a page.
    pub limit: usize,
    /// Whether the newest come first.
    pub newest_first: bool,
    /// Where the page before ended.
    pub after: Option<Cursor>,
    /// Bytes that may be read for a page.
    pub bytes_max: u64,
}

impl Default for Query {
    /// Everything, newest first, a hundred records at most and as many as 16 MiB hold.
    fn default() -> Self {
        Self {
            from_ms: 0,
            to_ms: u64::MAX,
            actor: None,
            action: None,
            target: None,
            limit: 100,
            newest_first: true,
            after: None,
            bytes_max: 16 << 20,
        }
    }
}

/// A page.
#[derive(Clone, PartialEq, Debug)]
pub struct Page {
    /// What was found.
    pub records: Vec<Entry>,
    /// Where the next page begins, if there may be one. A page can be empty and not the last.
    pub next: Option<Cursor>,
}

/// A place between two records: the segment's first record, and an offset in its file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cursor {
    segment: u64,
    offset: u64,
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.segment, self.offset)
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (segment, offset) = text.split_once('-').ok_or(())?;
        Ok(Self { segment: segment.parse().map_err(drop)?, offset: offset.parse().map_err(drop)? })
    }
}

impl Query {
    /// The record in a line, if it is wanted.
    pub(super) fn take(&self, line: &[u8]) -> Option<Entry> {
        let probe: Probe<'_> = serde_json::from_slice(line).ok()?;
        let wanted = (self.from_ms..self.to_ms).contains(&probe.time)
            && self.action.as_ref().is_none_or(|pattern| pattern.takes(&probe.action))
            && self.actor.as_ref().is_none_or(|pattern| pattern.takes(&probe.actor))
            && self.target.as_ref().is_none_or(|pattern| pattern.takes(&probe.target));
        wanted.then(|| serde_json::from_slice(line).ok()).flatten()
    }

    fn concerns(&self, segment: &Segment) -> bool {
        segment.from_ms < self.to_ms && segment.to_ms >= self.from_ms
    }
}

/// Reads a page.
///
/// # Errors
/// A segment can't be read. One that is gone, since it was old enough, is left out.
pub fn search(segments: &[Segment], query: &Query) -> io::Result<Page> {
    let mut page = Reading { query, records: Vec::new(), left: query.bytes_max };
    let after = query.after;
    let reached = |segment: &&Segment| match after {
        None => true,
        Some(cursor) if query.newest_first => segment.first <= cursor.segment,
        Some(cursor) => segment.first >= cursor.segment,
    };
    let mut wanted: Vec<&Segment> = segments.iter().filter(reached).filter(|s| query.concerns(s)).collect();
    if query.newest_first {
        wanted.reverse();
    }
    for segment in wanted {
        let offset = after.filter(|cursor| cursor.segment == segment.first).map(|cursor| cursor.offset);
        let read = match query.newest_first {
            true => page.backwards(segment, offset.unwrap_or(u64::MAX).min(segment.bytes)),
            false => page.forwards(segment, offset.unwrap_or(0)),
        };
        match read {
            Ok(None) => {}
            Ok(Some(offset)) => {
                return Ok(Page { records: page.records, next: Some(Cursor { segment: segment.first, offset }) });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Page { records: page.records, next: None })
}

struct Reading<'a> {
    query: &'a Query,
    records: Vec<Entry>,
    left: u64,
}

impl Reading<'_> {
    /// Takes a line of so many bytes. Says whether another one may be read.
    fn line(&mut self, line: &[u8], bytes: u64) -> bool {
        self.left = self.left.saturating_sub(bytes);
        self.records.extend(self.query.take(line));
        self.left > 0 && self.records.len() < self.query.limit
    }

    /// Reads on from an offset. Gives the offset where it had to stop.
    fn forwards(&mut self, segment: &Segment, offset: u64) -> io::Result<Option<u64>> {
        let mut lines = Lines::open(&segment.path, offset)?;
        // No further than what is known to be on disk.
        while lines.offset < segment.bytes {
            let begin = lines.offset;
            let Read1::Line(line) = lines.next()? else { break };
            // The line is borrowed of what is asked for its offset next.
            let line = line.to_vec();
            if !self.line(&line, lines.offset - begin) {
                return Ok(Some(lines.offset));
            }
        }
        Ok(None)
    }

    /// Reads backwards from an offset. Gives the offset where it had to stop.
    fn backwards(&mut self, segment: &Segment, offset: u64) -> io::Result<Option<u64>> {
        let file = File::open(&segment.path)?;
        // `buffer` holds the bytes from `begin` on; up to its end nothing has been taken.
        let (mut buffer, mut begin) = (Vec::new(), offset);
        loop {
            while let Some(at) = line_before_last_feed(&buffer) {
                let bytes = (buffer.len() - at) as u64;
                let more = self.line(buffer.get(at..buffer.len() - 1).unwrap_or_default(), bytes);
                buffer.truncate(at);
                if !more {
                    return Ok(Some(begin + buffer.len() as u64));
                }
            }
            if begin == 0 {
                let more = buffer.is_empty() || self.line(buffer.trim_ascii_end(), buffer.len() as u64);
                return Ok((!more).then_some(0));
            }
            let chunk = begin.min(CHUNK_BYTES);
            if buffer.len() as u64 > self.query.bytes_max {
                return Ok(None);
            }
            let mut longer = vec![0; usize::try_from(chunk).unwrap_or(0)];
            file.read_exact_at(&mut longer, begin - chunk)?;
            longer.extend_from_slice(&buffer);
            (buffer, begin) = (longer, begin - chunk);
        }
    }
}

/// Where the last line of a buffer begins, if the line before it ends in the buffer, too.
fn line_before_last_feed(buffer: &[u8]) -> Option<usize> {
    let body = buffer.strip_suffix(b"\n").unwrap_or(buffer);
    body.iter().rposition(|byte| *byte == b'\n').map(|at| at + 1).filter(|at| *at < buffer.len())
}

#[cfg(test)]
mod tests;
