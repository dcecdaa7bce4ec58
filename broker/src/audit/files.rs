//! The files of an audit: their names, how they are written, how their lines are read.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
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

/// What the path of an open file leads to by now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// To that file.
    Kept,
    /// To nothing, or to another file: whatever is written is lost.
    Gone,
}

/// A file that is written.
pub(super) trait Output: Send + std::fmt::Debug {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    fn set_len(&mut self, bytes: u64) -> io::Result<()>;

    fn sync(&mut self) -> io::Result<()>;

    /// Whether it can still be found where it was opened. Two system calls.
    fn place(&self) -> io::Result<Place>;
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
        Ok(Box::new(DiskFile { file: opened, path: file.to_owned() }))
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        std::fs::remove_file(file)
    }
}

#[derive(Debug)]
struct DiskFile {
    file: File,
    path: PathBuf,
}

impl Output for DiskFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn set_len(&mut self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn place(&self) -> io::Result<Place> {
        place(&self.file, &self.path)
    }
}

/// Whether a path still leads to an open file: one that was unlinked, moved away or replaced takes what is written, and nobody finds it again.
pub(super) fn place(file: &File, path: &Path) -> io::Result<Place> {
    let at_path = match std::fs::metadata(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Place::Gone);
        }
        found => found?,
    };
    let open = file.metadata()?;
    let same = (at_path.dev(), at_path.ino()) == (open.dev(), open.ino());
    Ok(if same { Place::Kept } else { Place::Gone })
}

/// Keeps others from writing to a folder for as long as the file is open; the folder is made if it isn't there.
pub(super) fn lock(folder: &Path) -> io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(lock_file(folder))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(io::Error::other("another broker writes to it")),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The file that is locked.
pub(super) fn lock_file(folder: &Path) -> PathBuf {
    folder.join("lock")
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
