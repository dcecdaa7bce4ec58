//! The files of an audit: their names, how they are written, how their lines are read.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use turnpike_authz::audit::LINE_BYTES_MAX;

/// What writes: files, or in a test files that fail.
pub(super) trait Medium: Send + Sync + std::fmt::Debug {
    /// Opens a file for writing; makes it, and the folder, if they aren't there. A file that is new survives a power failure.
    fn open(&self, file: &Path) -> io::Result<Box<dyn Output>>;

    fn remove(&self, file: &Path) -> io::Result<()>;
}

/// A file that is written.
pub(super) trait Output: Send + std::fmt::Debug {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    fn set_len(&mut self, bytes: u64) -> io::Result<()>;

    fn sync(&mut self) -> io::Result<()>;
}

/// Real files.
#[derive(Debug)]
pub(super) struct Disk;

impl Medium for Disk {
    fn open(&self, file: &Path) -> io::Result<Box<dyn Output>> {
        let folder = file.parent().unwrap_or(Path::new("."));
        let is_new = !file.exists();
        if is_new {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(file)?;
        if is_new {
            File::open(folder)?.sync_all()?;
        }
        Ok(Box::new(opened))
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        std::fs::remove_file(file)
    }
}

impl Output for File {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn set_len(&mut self, bytes: u64) -> io::Result<()> {
        File::set_len(self, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Keeps others from writing to a folder for as long as the file is open; the folder is made if it isn't there.
pub(super) fn lock(folder: &Path) -> io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(folder.join("lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(io::Error::other("another broker writes to it")),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The head's file.
pub(super) fn head(folder: &Path) -> PathBuf {
    folder.join("head")
}

/// The segment that begins with a record; names sort as the records do.
pub(super) fn segment(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{first:020}.jsonl"))
}

/// The segments of a folder: number of the first record, and file, in order. None if there is no such folder.
pub(super) fn segments(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let number = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".jsonl")?.parse().ok());
        found.extend(number.map(|first| (first, path)));
    }
    found.sort();
    Ok(found)
}

/// The bytes of a small file; none if it isn't there.
pub(super) fn read_small(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match File::open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => drop(opened?.take(64 << 10).read_to_end(&mut bytes)?),
    }
    Ok(bytes)
}

/// What is known of a segment without reading it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Number of its first record.
    pub(super) first: u64,
    pub(super) path: PathBuf,
    /// Of which all are on disk.
    pub(super) bytes: u64,
    /// Number of its last record, as far as is known.
    pub(super) last: u64,
    pub(super) from_ms: u64,
    pub(super) to_ms: u64,
}

/// All segments, oldest first; the last is the one in use.
pub(super) type Index = Arc<RwLock<Vec<Segment>>>;

/// Lines of a file from an offset on. What it holds in memory is bounded whatever the file holds.
#[derive(Debug)]
pub(super) struct Lines {
    reader: BufReader<File>,
    /// Where the next line begins.
    pub(super) offset: u64,
    line: Vec<u8>,
}

/// A line that was read.
pub(super) enum Read1<'a> {
    /// Without its line feed. One too long to be a record is given in part, which isn't one either.
    Line(&'a [u8]),
    /// So many bytes without a line feed at the end of the file.
    Unfinished(u64),
    End,
}

impl Lines {
    pub(super) fn open(file: &Path, offset: u64) -> io::Result<Self> {
        let mut file = File::open(file)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(Self { reader: BufReader::with_capacity(64 << 10, file), offset, line: Vec::new() })
    }

    pub(super) fn next(&mut self) -> io::Result<Read1<'_>> {
        self.line.clear();
        let mut length = 0;
        loop {
            let buffer = self.reader.fill_buf()?;
            if buffer.is_empty() {
                return Ok(if length == 0 { Read1::End } else { Read1::Unfinished(length) });
            }
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let part = &buffer[..end.unwrap_or(buffer.len())];
            let room = (LINE_BYTES_MAX + 1).saturating_sub(self.line.len());
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            let taken = part.len() + usize::from(end.is_some());
            length += taken as u64;
            self.reader.consume(taken);
            if end.is_some() {
                self.offset += length;
                return Ok(Read1::Line(&self.line));
            }
        }
    }
}
