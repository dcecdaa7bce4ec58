//! The book: segments and head, written so that they are right after any interruption, and checked when they are opened.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use turnpike_authz::audit::chain::{ChainKey, Fault, Line, Link, Verifier};
use turnpike_authz::audit::head::{self, Head};
use turnpike_authz::audit::{Action, Event, Key, Value};

use super::batch::Batch;
use super::files::{self, Index, Lines, Medium, Output, Place, Read1, Segment};

const DAY_MS: u64 = 24 * 3600 * 1000;
/// Bytes of lines that are made before they are written: a group needs no memory for all of its own.
const PIECE_BYTES: usize = 32 << 10;
/// Bytes at the end of a segment in which its last line is looked for.
const TAIL_BYTES: u64 = 4096;

/// What was found when the book was opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Note {
    /// Bytes of a write that was interrupted, and that nobody was told had succeeded.
    Unfinished { bytes: u64 },
    /// Something is missing or changed. What is written from now on begins a segment behind `sequence`.
    Damage { segment: String, fault: Fault, sequence: u64 },
    /// What is there is under another master key.
    OtherKey { sequence: u64 },
}

/// Segments and head of one audit.
#[derive(Debug)]
pub(super) struct Book {
    folder: PathBuf,
    medium: Box<dyn Medium>,
    key: ChainKey,
    segment_bytes_max: u64,
    /// The last record on disk.
    link: Link,
    /// The segment in use; without one the next write begins one.
    current: Option<Current>,
    /// Where lines are made.
    lines: Vec<u8>,
    index: Index,
    head: HeadFile,
    /// Keeps other brokers out of the folder.
    lock: Option<File>,
    loss: Option<Loss>,
}

/// Files of the audit were removed, moved away or replaced while it was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Loss {
    /// The last record that had been on disk when that was found.
    pub(super) sequence: u64,
}

#[derive(Debug)]
struct Current {
    file: Box<dyn Output>,
    segment: Segment,
    /// Days since 1970 UTC when it was begun.
    day: u64,
    records: u64,
    /// A failed write may have left bytes behind the end.
    dirty: bool,
}

#[derive(Debug, Default)]
struct HeadFile {
    file: Option<Box<dyn Output>>,
    writes: u64,
    /// Why the last write failed.
    fault: Option<String>,
}

impl Book {
    /// Opens what is there, or begins anew.
    pub(super) fn open(
        folder: PathBuf,
        key: ChainKey,
        segment_bytes_max: u64,
        medium: Box<dyn Medium>,
    ) -> io::Result<(Self, Vec<Note>)> {
        let found = files::segments(&folder)?;
        let head = head::decode(std::slice::from_ref(&key), &files::read_small(&files::head(&folder))?);
        let mut segments = Vec::new();
        for (index, (first, path)) in found.iter().enumerate() {
            let next = found.get(index + 1).map(|(first, _)| *first);
            segments.push(describe(*first, path.clone(), next)?);
        }
        let mut book = Self {
            folder,
            medium,
            key,
            segment_bytes_max,
            link: Link::START,
            current: None,
            lines: Vec::new(),
            index: Index::default(),
            head: HeadFile::default(),
            lock: None,
            loss: None,
        };
        let unbegun = book.drop_unbegun(&mut segments)?;
        let mut notes = book.take_up(&mut segments, head)?;
        notes.extend((unbegun > 0).then_some(Note::Unfinished { bytes: unbegun }));
        *book.index.write() = segments;
        // Before any record, so that no record is ever without a head. If the disk is full, the first write tries again.
        book.write_head();
        Ok((book, notes))
    }

    /// Removes a last segment that has no record: the write that was to begin it was interrupted. Says of how many bytes.
    fn drop_unbegun(&self, segments: &mut Vec<Segment>) -> io::Result<u64> {
        let Some(last) = segments.last() else { return Ok(0) };
        if matches!(Lines::open(&last.path, 0)?.next()?, Read1::Line(_)) {
            return Ok(0);
        }
        self.medium.remove(&last.path)?;
        Ok(segments.pop().map_or(0, |last| last.bytes))
    }

    /// Finds where the chain goes on.
    fn take_up(&mut self, segments: &mut [Segment], head: Head) -> io::Result<Vec<Note>> {
        let known = match head {
            Head::Known(link) | Head::OtherKey(link) => Some(link),
            Head::None => None,
        };
        let Some(last) = segments.last_mut() else {
            self.link = known.unwrap_or(Link::START);
            let sequence = self.link.sequence;
            let fault = Fault::Truncated { last: 0, head: sequence };
            let damage = Note::Damage { segment: "head".to_owned(), fault, sequence };
            return Ok(if sequence > 0 { vec![damage] } else { vec![] });
        };
        let tail = Tail::read(last, &self.key, head)?;
        (last.from_ms, last.to_ms) = (tail.from_ms, tail.to_ms);
        last.last = tail.link.map_or(last.last, |link| link.sequence);
        // Whatever is right, no number is given twice.
        let furthest = [tail.link, known].into_iter().flatten().max_by_key(|link| link.sequence);
        self.link = furthest.unwrap_or(Link { sequence: last.first, ..Link::START });
        let sequence = self.link.sequence;
        if let Some(id) = tail.other_key {
            tracing::debug!(id, "the audit's last segment is under another master key");
            return Ok(vec![Note::OtherKey { sequence }]);
        }
        let segment = last.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if let Some(fault) = tail.fault {
            return Ok(vec![Note::Damage { segment, fault, sequence }]);
        }
        last.bytes = tail.whole_bytes;
        if !tail.is_ended {
            let mut file = self.medium.open(&last.path)?;
            let dirty = tail.unfinished > 0 && file.set_len(tail.whole_bytes).is_err();
            let day = tail.begun_ms / DAY_MS;
            self.current = Some(Current { file, segment: last.clone(), day, records: tail.records, dirty });
        }
        Ok(if tail.unfinished > 0 { vec![Note::Unfinished { bytes: tail.unfinished }] } else { vec![] })
    }

    /// The last record on disk.
    pub(super) fn link(&self) -> Link {
        self.link
    }

    pub(super) fn index(&self) -> Index {
        Index::clone(&self.index)
    }

    /// Has it hold the lock of its folder, which it takes again when the folder is made again.
    pub(super) fn hold(&mut self, lock: File) {
        self.lock = Some(lock);
    }

    /// What was lost and isn't on record yet.
    pub(super) fn loss(&self) -> Option<Loss> {
        self.loss
    }

    /// It is on record now.
    pub(super) fn told_loss(&mut self) {
        self.loss = None;
    }

    /// Looks whether all files are where they were left. What is gone becomes a [`Self::loss`], and what is in use is begun anew by the next write.
    ///
    /// # Errors
    /// What is gone that is in use, or a file can't be looked at.
    pub(super) fn look(&mut self) -> io::Result<()> {
        self.forget_gone_segments();
        if let Some(current) = &self.current
            && current.file.place()? == Place::Gone
        {
            let path = current.segment.path.display().to_string();
            self.current = None;
            return Err(self.lose(&path));
        }
        if let Some(file) = &self.head.file
            && file.place()? == Place::Gone
        {
            return Err(self.lose(&files::head(&self.folder).display().to_string()));
        }
        Ok(())
    }

    /// Segments that ended long ago are as lost as the one in use; but what comes now can be written.
    fn forget_gone_segments(&mut self) {
        let in_use = self.current.as_ref().map(|current| current.segment.first);
        let gone = |segment: &Segment| {
            let found = std::fs::symlink_metadata(&segment.path);
            Some(segment.first) != in_use && found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        };
        let gone: Vec<Segment> = self.index.read().iter().filter(|segment| gone(segment)).cloned().collect();
        for segment in gone {
            tracing::error!(path = %segment.path.display(), "a segment of the audit has been removed");
            self.index.write().retain(|known| known.first != segment.first);
            self.loss = Some(Loss { sequence: self.link.sequence });
        }
    }

    /// A file in use is gone. The chain goes on from what is known in memory, in files that the next write makes.
    fn lose(&mut self, path: &str) -> io::Error {
        tracing::error!(
            path,
            sequence = self.link.sequence,
            "a file of the audit was removed or replaced under the broker; `turnpike audit verify` tells what is missing"
        );
        self.head.file = None;
        self.forget_gone_segments();
        self.loss = Some(Loss { sequence: self.link.sequence });
        io::Error::other(format!("{path} was removed or replaced"))
    }

    /// In a folder that was made again, others must be kept out again.
    fn lock_again(&mut self) -> io::Result<()> {
        let Some(lock) = &self.lock else { return Ok(()) };
        if files::place(lock, &files::lock_file(&self.folder))? == Place::Gone {
            self.lock = Some(files::lock(&self.folder)?);
        }
        Ok(())
    }

    /// Why the head, as opposed to records, could not be written the last time.
    pub(super) fn head_fault(&self) -> Option<&str> {
        self.head.fault.as_deref()
    }

    /// Writes records: afterwards they are on disk, or nothing has changed. Begins a new segment where that is due.
    pub(super) fn write(&mut self, batch: &Batch, now_ms: u64) -> io::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        if self.head.writes == 0 {
            self.write_head();
            if let Some(fault) = &self.head.fault {
                return Err(io::Error::other(fault.clone()));
            }
        }
        if self.loss.is_some() {
            self.lock_again()?;
        }
        self.end_segment_if_due(now_ms)?;
        let mut link = self.link;
        let mut lines = std::mem::take(&mut self.lines);
        lines.clear();
        let mut current = match self.current.take() {
            Some(current) => current,
            None => self.begin_segment(&mut link, now_ms, &mut lines)?,
        };
        let mut segment = current.segment.clone();
        let mut written = Ok(());
        for (body, at_ms) in batch.iter() {
            link.append(&self.key, body, &mut lines);
            segment.from_ms = segment.from_ms.min(at_ms);
            segment.to_ms = segment.to_ms.max(at_ms);
            if lines.len() >= PIECE_BYTES {
                written = current.append(&mut segment.bytes, &lines);
                lines.clear();
                if written.is_err() {
                    break;
                }
            }
        }
        segment.last = link.sequence;
        let written = written
            .and_then(|()| current.append(&mut segment.bytes, &lines))
            .and_then(|()| current.file.sync())
            .and_then(|()| current.file.place());
        self.lines = lines;
        match written {
            Ok(Place::Kept) => {}
            Ok(Place::Gone) => return Err(self.lose(&current.segment.path.display().to_string())),
            Err(error) => {
                current.take_back();
                self.give_back(current);
                return Err(error);
            }
        }
        current.records += link.sequence - self.link.sequence;
        current.segment = segment;
        self.link = link;
        self.publish(&current.segment);
        self.current = Some(current);
        self.write_head();
        Ok(())
    }

    fn begin_segment(&self, link: &mut Link, now_ms: u64, bytes: &mut Vec<u8>) -> io::Result<Current> {
        let first = link.sequence + 1;
        let path = files::segment(&self.folder, first);
        let file = self.medium.open(&path)?;
        let mut body = Vec::new();
        Event::own(now_ms, Action::SegmentStart, &[]).encode(&mut body);
        link.begin_segment(&self.key, &body, bytes);
        let segment = Segment { first, path, bytes: 0, last: first, from_ms: now_ms, to_ms: now_ms };
        // A file of that name can only be what a write left that failed.
        Ok(Current { file, segment, day: now_ms / DAY_MS, records: 0, dirty: true })
    }

    /// After a failed write: a segment that has nothing yet is no segment.
    fn give_back(&mut self, current: Current) {
        if current.records > 0 {
            self.current = Some(current);
        } else if let Err(error) = self.medium.remove(&current.segment.path) {
            tracing::warn!(%error, path = %current.segment.path.display(), "an empty segment of the audit stays");
        }
    }

    fn end_segment_if_due(&mut self, now_ms: u64) -> io::Result<()> {
        let Some(current) = &mut self.current else { return Ok(()) };
        let segment = &current.segment;
        let is_full = segment.bytes >= self.segment_bytes_max;
        if !is_full && now_ms / DAY_MS <= current.day {
            return Ok(());
        }
        let details = [
            (Key::Count, Value::Number(current.records + 1)),
            (Key::FromMs, Value::Number(segment.from_ms)),
            (Key::ToMs, Value::Number(segment.to_ms)),
        ];
        let (mut body, mut bytes, mut link) = (Vec::new(), Vec::new(), self.link);
        Event::own(now_ms, Action::SegmentEnd, &details).encode(&mut body);
        link.append(&self.key, &body, &mut bytes);
        if current.write(&bytes)? == Place::Gone {
            let path = current.segment.path.display().to_string();
            self.current = None;
            return Err(self.lose(&path));
        }
        current.segment.bytes += bytes.len() as u64;
        current.segment.last = link.sequence;
        self.link = link;
        let ended = current.segment.clone();
        self.current = None;
        self.publish(&ended);
        self.write_head();
        tracing::info!(sequence = link.sequence, mac = %link.mac, "a segment of the audit has ended; its anchor");
        Ok(())
    }

    /// Makes what was written known to those who search.
    fn publish(&self, segment: &Segment) {
        let mut index = self.index.write();
        match index.last_mut() {
            Some(last) if last.first == segment.first => *last = segment.clone(),
            _ => index.push(segment.clone()),
        }
    }

    /// Brings the head up to the last record. A failure leaves it behind, and is told by [`Self::head_fault`].
    pub(super) fn write_head(&mut self) {
        let slot = head::encode(&self.key, self.link);
        let head = &mut self.head;
        let mut write = || {
            let file = match &mut head.file {
                Some(file) => file,
                none => none.insert(self.medium.open(&files::head(&self.folder))?),
            };
            file.write_at(head::offset(head.writes), &slot)?;
            file.sync()?;
            file.place()
        };
        match write() {
            Ok(Place::Kept) => {
                head.writes += 1;
                head.fault = None;
            }
            Ok(Place::Gone) => {
                let fault = self.lose(&files::head(&self.folder).display().to_string());
                self.head.fault = Some(fault.to_string());
            }
            Err(error) => head.fault = Some(format!("the audit's head can't be written: {error}")),
        }
    }

    /// Removes the oldest segments that have nothing from `cutoff_ms` on, after a record that says so. Says how many.
    pub(super) fn remove_before(&mut self, cutoff_ms: u64, now_ms: u64) -> io::Result<usize> {
        let old: Vec<Segment> = {
            let index = self.index.read();
            let in_use = index.len().saturating_sub(1);
            index.iter().take(in_use).take_while(|segment| segment.to_ms < cutoff_ms).cloned().collect()
        };
        let Some(next) = self.index.read().get(old.len()).map(|segment| segment.first).filter(|_| !old.is_empty())
        else {
            return Ok(0);
        };
        let to_ms = old.iter().map(|segment| segment.to_ms).max().unwrap_or(0);
        let mut batch = Batch::default();
        let details = [
            (Key::Sequence, Value::Number(next - 1)),
            (Key::Count, Value::Number(old.len() as u64)),
            (Key::ToMs, Value::Number(to_ms)),
        ];
        batch.push(&Event::own(now_ms, Action::RecordsRemoved, &details));
        self.write(&batch, now_ms)?;
        for segment in &old {
            self.medium.remove(&segment.path)?;
            self.index.write().retain(|known| known.first != segment.first);
        }
        Ok(old.len())
    }
}

impl Current {
    /// Appends bytes and has them on disk. If that fails, the end is where it was. Says whether they can be found again.
    fn write(&mut self, bytes: &[u8]) -> io::Result<Place> {
        let mut end = self.segment.bytes;
        let written = self.append(&mut end, bytes).and_then(|()| self.file.sync()).and_then(|()| self.file.place());
        if written.is_err() {
            self.take_back();
        }
        written
    }

    /// Writes bytes at an end, which moves on; they are not on disk yet.
    fn append(&mut self, end: &mut u64, bytes: &[u8]) -> io::Result<()> {
        if self.dirty {
            self.file.set_len(self.segment.bytes)?;
            self.dirty = false;
        }
        self.file.write_at(*end, bytes)?;
        *end += bytes.len() as u64;
        Ok(())
    }

    /// After a failure: the end is where it was.
    fn take_back(&mut self) {
        self.dirty = self.file.set_len(self.segment.bytes).is_err();
    }
}

/// A segment from its first and its last line; of one without a proper end all lines are looked at.
fn describe(first: u64, path: PathBuf, next: Option<u64>) -> io::Result<Segment> {
    let bytes = std::fs::metadata(&path)?.len();
    let mut segment = Segment { first, path, bytes, last: first, from_ms: u64::MAX, to_ms: 0 };
    let Some(next) = next else { return Ok(segment) };
    segment.last = next.saturating_sub(1);
    let mut lines = Lines::open(&segment.path, bytes.saturating_sub(TAIL_BYTES))?;
    while let Read1::Line(line) = lines.next()? {
        let Some(line) = Line::parse(line).filter(|line| line.is(Action::SegmentEnd)) else { continue };
        if let (Some(from_ms), Some(to_ms)) = (line.number(Key::FromMs), line.number(Key::ToMs)) {
            (segment.from_ms, segment.to_ms) = (from_ms, to_ms);
            return Ok(segment);
        }
    }
    let mut lines = Lines::open(&segment.path, 0)?;
    while let Read1::Line(line) = lines.next()? {
        if let Some(line) = Line::parse(line) {
            segment.from_ms = segment.from_ms.min(line.at_ms());
            segment.to_ms = segment.to_ms.max(line.at_ms());
        }
    }
    if segment.from_ms > segment.to_ms {
        // Nothing in it can be read: it might be of any time, and is never old enough to be removed.
        (segment.from_ms, segment.to_ms) = (0, u64::MAX);
    }
    Ok(segment)
}

/// The last segment, verified.
struct Tail {
    link: Option<Link>,
    fault: Option<Fault>,
    other_key: Option<u8>,
    records: u64,
    /// Up to the last line feed.
    whole_bytes: u64,
    /// Behind it.
    unfinished: u64,
    is_ended: bool,
    begun_ms: u64,
    from_ms: u64,
    to_ms: u64,
}

impl Tail {
    fn read(segment: &Segment, key: &ChainKey, head: Head) -> io::Result<Self> {
        let mut verifier = Verifier::new(std::slice::from_ref(key));
        let mut tail = Self {
            link: None,
            fault: (head == Head::None).then_some(Fault::NoHead),
            other_key: None,
            records: 0,
            whole_bytes: 0,
            unfinished: 0,
            is_ended: false,
            begun_ms: 0,
            from_ms: u64::MAX,
            to_ms: 0,
        };
        let mut lines = Lines::open(&segment.path, 0)?;
        loop {
            match lines.next()? {
                Read1::Line(line) => tail.line(line, &mut verifier),
                Read1::Unfinished(bytes) => tail.unfinished = bytes,
                Read1::End => break,
            }
        }
        tail.whole_bytes = lines.offset;
        tail.link = verifier.link();
        let last = tail.link.map_or(0, |link| link.sequence);
        // What the head knows of an older segment isn't looked for here.
        if let Head::Known(head) = head
            && head.sequence > last
        {
            tail.fault.get_or_insert(Fault::Truncated { last, head: head.sequence });
        }
        Ok(tail)
    }

    fn line(&mut self, line: &[u8], verifier: &mut Verifier<'_>) {
        match verifier.line(line) {
            Ok(()) => self.records += 1,
            Err(Fault::OtherKey { id }) => self.other_key = Some(id),
            Err(fault) => {
                self.fault.get_or_insert(fault);
            }
        }
        if let Some(line) = Line::parse(line) {
            self.is_ended = line.is(Action::SegmentEnd);
            self.begun_ms = if line.start.is_some() { line.at_ms() } else { self.begun_ms };
            self.from_ms = self.from_ms.min(line.at_ms());
            self.to_ms = self.to_ms.max(line.at_ms());
        }
    }
}

#[cfg(test)]
mod tests;
