//! Reads the engine's journals before the engine does, because the engine takes the first unreadable byte for the end of
//! the journal, cuts the file there and goes on. After a crash that is right: only the last batch can be unfinished. When a
//! byte has gone bad in the middle it would silently drop everything after it.
//!
//! Invariant: a batch is written only after the one before it has been synced. So a journal is a run of readable batches, then at
//! most one unreadable stretch without a readable batch after it. Anything else is damage, and is said, not cut.
//!
//! It also writes the last batch of the newest journal again, in place. If an earlier sync of that batch failed, the operating system may hold its pages as
//! clean though they never reached the disk, and a sync now would say "done"; batches that follow would then stand behind a hole.
//!
//! Format (fjall 3): `1 count:u32 seqno:u64` { `2 type:u8 compression:u8 keyspace:u64 key_len:u16 len:u32 disk_len:u32 key value` }*
//! `3 xxh3(items):u64 "FJL\x03"`, or `4 keyspace:u64` for an item; little-endian; the rest of the file is zeros.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use crate::StoreError;

const MAGIC: [u8; 4] = *b"FJL\x03";
const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
/// Memory for a batch while it is checked or written again.
const CHUNK: usize = 64 << 10;

/// Checks all journals in `folder`; mends the end of the newest.
pub(super) fn check(folder: &Path) -> Result<(), StoreError> {
    let journals = journals(folder).map_err(|e| StoreError::io(folder, "list the journals", e))?;
    let Some(&(newest, _)) = journals.last() else {
        return Err(StoreError::Damaged {
            path: folder.into(),
            place: "*.jnl".into(),
            reason: "there is no journal".into(),
        });
    };
    // The oldest goes first, so what is left has no gap.
    if let Some((id, missing)) = (journals.iter().zip(journals.iter().skip(1))).find_map(|((id, path), (next, _))| {
        (id + 1 != *next).then(|| (id + 1, path.with_file_name(format!("{}.jnl", id + 1))))
    }) {
        let reason = "a journal is missing".into();
        return Err(StoreError::Damaged { path: missing, place: format!("journal {id}"), reason });
    }
    for (id, path) in journals {
        check_one(&path, id == newest)?;
    }
    Ok(())
}

/// Whether any journal in `folder` holds a batch.
pub(super) fn holds_data(folder: &Path) -> io::Result<bool> {
    for (_, path) in journals(folder)? {
        let mut scan = Scan::open(&path)?;
        if scan.batch()?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn journals(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let id = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".jnl")?.parse().ok());
        found.extend(id.map(|id: u64| (id, path)));
    }
    found.sort_unstable();
    Ok(found)
}

fn check_one(path: &Path, newest: bool) -> Result<(), StoreError> {
    let io = |e| StoreError::io(path, "read the journal", e);
    let mut scan = Scan::open(path).map_err(io)?;
    let mut last = None;
    while let Some(batch) = scan.batch().map_err(io)? {
        if last.is_some_and(|before: Batch| batch.seqno <= before.seqno) {
            return Err(damaged(path, batch.start, "a batch is out of order"));
        }
        last = Some(batch);
    }
    let end = last.map_or(0, |batch| batch.end);
    let written_to = scan.last_nonzero(end).map_err(io)?;
    if written_to > end {
        if let Some(after) = scan.find_batch(end + 1, last.map_or(0, |batch| batch.seqno)).map_err(io)? {
            let reason = format!("unreadable, though batch {} at byte {} is whole", after.seqno, after.start);
            return Err(damaged(path, end, &reason));
        }
        if !newest {
            return Err(damaged(path, end, "unreadable to the end, in a journal that was closed whole"));
        }
        tracing::warn!(
            path = %path.display(), at = end, bytes = written_to - end,
            "the last write to the journal was not finished; it was never acknowledged and is dropped"
        );
        // The engine refuses some unfinished batches (those whose end is there and whose middle isn't), so cut here.
        scan.cut(end).map_err(|e| StoreError::io(path, "cut the unfinished end of the journal", e))?;
    }
    if let Some(batch) = last.filter(|_| newest) {
        scan.rewrite(batch).map_err(|e| StoreError::io(path, "write the end of the journal again", e))?;
    }
    Ok(())
}

fn damaged(path: &Path, at: u64, reason: &str) -> StoreError {
    StoreError::Damaged { path: path.into(), place: format!("byte {at}"), reason: reason.into() }
}

#[derive(Clone, Copy, Debug)]
struct Batch {
    start: u64,
    end: u64,
    seqno: u64,
}

/// A pass over one journal.
struct Scan {
    reader: BufReader<File>,
    at: u64,
    len: u64,
    chunk: Vec<u8>,
}

impl Scan {
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let len = file.metadata()?.len();
        Ok(Self { reader: BufReader::with_capacity(CHUNK, file), at: 0, len, chunk: vec![0; CHUNK] })
    }

    /// The batch that begins here, or `None` if what is here is none; the position is then unspecified.
    fn batch(&mut self) -> io::Result<Option<Batch>> {
        let start = self.at;
        match self.try_batch() {
            Ok(found) => Ok(found.map(|seqno| Batch { start, end: self.at, seqno })),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn try_batch(&mut self) -> io::Result<Option<u64>> {
        let [START, count @ .., s0, s1, s2, s3, s4, s5, s6, s7] = self.take::<13>()? else { return Ok(None) };
        let seqno = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let mut hasher = Xxh3::new();
        for _ in 0..u32::from_le_bytes(count) {
            if !self.item(&mut hasher)? {
                return Ok(None);
            }
        }
        let [END, sum @ .., m0, m1, m2, m3] = self.take::<13>()? else { return Ok(None) };
        let whole = u64::from_le_bytes(sum) == hasher.digest() && [m0, m1, m2, m3] == MAGIC;
        Ok(whole.then_some(seqno))
    }

    fn item(&mut self, hasher: &mut Xxh3) -> io::Result<bool> {
        let [tag] = self.take()?;
        hasher.update(&[tag]);
        match tag {
            ITEM => {
                let head = self.take::<20>()?;
                hasher.update(&head);
                let [value_type, compression, _, _, _, _, _, _, _, _, k0, k1, _, _, _, _, d0, d1, d2, d3] = head;
                if !matches!(value_type, 0..=4) || compression > 1 {
                    return Ok(false);
                }
                let key = u64::from(u16::from_le_bytes([k0, k1]));
                self.hash(key + u64::from(u32::from_le_bytes([d0, d1, d2, d3])), hasher)?;
                Ok(true)
            }
            CLEAR => {
                hasher.update(&self.take::<8>()?);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes)?;
        self.at += N as u64;
        Ok(bytes)
    }

    fn hash(&mut self, len: u64, hasher: &mut Xxh3) -> io::Result<()> {
        if len > self.len.saturating_sub(self.at) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut left = len;
        while left > 0 {
            let size = self.chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let chunk = self.chunk.get_mut(..size).unwrap_or_default();
            self.reader.read_exact(chunk)?;
            hasher.update(chunk);
            left -= size as u64;
        }
        self.at += len;
        Ok(())
    }

    fn seek(&mut self, to: u64) -> io::Result<()> {
        self.reader.seek(SeekFrom::Start(to))?;
        self.at = to;
        Ok(())
    }

    /// Position after the last byte that isn't zero, at or after `from`.
    fn last_nonzero(&mut self, from: u64) -> io::Result<u64> {
        self.seek(from)?;
        let mut last = from;
        loop {
            let read = self.reader.read(&mut self.chunk)?;
            if read == 0 {
                return Ok(last);
            }
            if let Some(i) = self.chunk.get(..read).and_then(|chunk| chunk.iter().rposition(|byte| *byte != 0)) {
                last = self.at + i as u64 + 1;
            }
            self.at += read as u64;
        }
    }

    /// The first whole batch at or after `from`, newer than `seqno`. Its end is looked for first, as that has more to recognize.
    fn find_batch(&mut self, from: u64, seqno: u64) -> io::Result<Option<Batch>> {
        let mut candidates = Vec::new();
        self.seek(from)?;
        // A window of the last 13 bytes: a start has its tag, a plausible count and a seqno a little above the last one.
        let mut window = [0u8; 13];
        let mut byte = [0u8; 1];
        let mut seen = 0;
        while self.reader.read(&mut byte)? == 1 {
            self.at += 1;
            seen += 1;
            window.copy_within(1.., 0);
            if let Some(last) = window.last_mut() {
                *last = byte[0];
            }
            let [START, c0, c1, c2, c3, s0, s1, s2, s3, s4, s5, s6, s7] = window else { continue };
            let count = u32::from_le_bytes([c0, c1, c2, c3]);
            let found = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
            if seen >= 13 && count > 0 && u64::from(count) <= self.len && found > seqno && found - seqno < 1 << 40 {
                candidates.push(self.at - 13);
            }
        }
        for start in candidates {
            self.seek(start)?;
            if let Some(batch) = self.batch()? {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }

    fn cut(&mut self, end: u64) -> io::Result<()> {
        let file = self.reader.get_mut();
        file.set_len(end)?;
        file.sync_all()
    }

    fn rewrite(&mut self, batch: Batch) -> io::Result<()> {
        let mut at = batch.start;
        while at < batch.end {
            let size = self.chunk.len().min(usize::try_from(batch.end - at).unwrap_or(usize::MAX));
            let chunk = self.chunk.get_mut(..size).unwrap_or_default();
            let file = self.reader.get_mut();
            file.seek(SeekFrom::Start(at))?;
            file.read_exact(chunk)?;
            file.seek(SeekFrom::Start(at))?;
            file.write_all(chunk)?;
            at += size as u64;
        }
        self.reader.get_mut().sync_all()
    }
}

#[cfg(test)]
mod tests;
