//! Used nonces in files of their own, so that a captured password opens nothing after a restart either.
//!
//! ```text
//! nonces.current ──as old as a nonce counts──▶ nonces.previous ──as old again──▶ gone
//! ```
//!
//! Each file is a header and records of [`RECORD_BYTES`]. The records of a shard's turn are one `pwrite`, done before the first CONNACK of the
//! turn is written, so they survive the end of the process; there is no sync, so what the kernel had not yet written is lost with the power. An end of a record at the end of
//! a file is what such a loss leaves, and is left out. A file with another header is none of ours, or damaged: that is said, and
//! the start goes on without it.
//!
//! At a start, what still counts goes into a new `nonces.previous`, and a new `nonces.current` begins: so however often a broker starts, the
//! files hold what was used in the last forty minutes and nothing else.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use turnpike_authz::nonce::{NonceJournal, RECORD_BYTES, REMEMBERED_MS, until_ms};

const HEADER: &[u8; 16] = b"turnpike nonce 1";

/// The files, in a data folder.
#[derive(Debug)]
pub struct NonceFiles {
    folder: PathBuf,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    file: File,
    /// Where the next record goes: behind the last one that is whole.
    end: u64,
    /// When another file begins.
    due: Instant,
    /// Records that are to be kept: at most as many as the shards let in in one turn.
    taken: Vec<u8>,
    /// Whether the last record could not be kept; said once.
    failing: bool,
}

impl NonceFiles {
    /// Opens the files of a data folder, made if they aren't there, and gives back the records that count at `unix_ms` (milliseconds since
    /// 1970 UTC).
    ///
    /// # Errors
    /// The files can't be read or written. What is wrong inside one of them is logged instead.
    pub fn open(folder: &Path, unix_ms: u64) -> io::Result<(Self, Vec<[u8; RECORD_BYTES]>)> {
        let mut records = Vec::new();
        for file in [previous(folder), current(folder)] {
            read(&file, &mut records)?;
        }
        records.retain(|record| until_ms(record) >= unix_ms);
        // Complete before it takes the place of another, which has some of the records.
        let (file, mut all) = (folder.join("nonces.new"), HEADER.to_vec());
        all.extend(records.iter().flatten());
        create(&file)?.write_all(&all)?;
        fs::rename(&file, previous(folder))?;
        let current = Mutex::new(Current::begin(folder)?);
        Ok((Self { folder: folder.to_owned(), current }, records))
    }

    fn write(&self, current: &mut Current, records: &[u8]) -> io::Result<()> {
        if Instant::now() >= current.due {
            fs::rename(self::current(&self.folder), previous(&self.folder))?;
            *current = Current { failing: current.failing, ..Current::begin(&self.folder)? };
        }
        current.file.write_all_at(records, current.end)?;
        current.end += records.len() as u64;
        Ok(())
    }
}

impl NonceJournal for NonceFiles {
    fn take(&self, record: [u8; RECORD_BYTES]) {
        self.current.lock().taken.extend_from_slice(&record);
    }

    fn keep(&self) {
        // Locked while it writes: whoever finds nothing left to write knows that all is written.
        let mut current = self.current.lock();
        if current.taken.is_empty() {
            return;
        }
        let mut records = std::mem::take(&mut current.taken);
        let kept = self.write(&mut current, &records);
        records.clear();
        current.taken = records;
        if let Err(error) = &kept
            && !current.failing
        {
            let folder = self.folder.display();
            tracing::error!(%folder, %error, "used nonces can't be kept; after a restart their passwords could be used once more");
        }
        current.failing = kept.is_err();
    }
}

impl Current {
    fn begin(folder: &Path) -> io::Result<Self> {
        let file = create(&current(folder))?;
        file.write_all_at(HEADER, 0)?;
        let due = Instant::now() + Duration::from_millis(REMEMBERED_MS);
        Ok(Self { file, end: HEADER.len() as u64, due, taken: Vec::new(), failing: false })
    }
}

fn current(folder: &Path) -> PathBuf {
    folder.join("nonces.current")
}

fn previous(folder: &Path) -> PathBuf {
    folder.join("nonces.previous")
}

fn create(file: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file)
}

/// Adds the records of a file.
fn read(file: &Path, records: &mut Vec<[u8; RECORD_BYTES]>) -> io::Result<()> {
    let content = match fs::read(file) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let Some(whole) = content.strip_prefix(HEADER) else {
        // A file whose header the power took before anything was in it has lost nothing.
        if !HEADER.starts_with(&content) {
            let file = file.display();
            tracing::error!(%file, "is no file of used nonces, or damaged; passwords of the last minutes could be used once more");
        }
        return Ok(());
    };
    let (whole, rest) = whole.as_chunks::<RECORD_BYTES>();
    if !rest.is_empty() {
        tracing::warn!(file = %file.display(), bytes = rest.len(), "the last record of used nonces is not whole, and is left out");
    }
    records.extend(whole);
    Ok(())
}

#[cfg(test)]
mod tests;
