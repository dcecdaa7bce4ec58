//! Files of firmware: `{number}.part` while it comes in, `{number}.bin` when it is whole. Memory doesn't grow with them.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use turnpike_ota::firmware::{State, Whole};
use turnpike_ota::ids::FirmwareId;
use turnpike_ota::upload::{Upload, UploadError};

use super::OtaDesk;
use super::shelf::ShelfError;

/// Bytes that are read at once.
const READ_BYTES: usize = 1 << 20;

/// How long a request waits for the one before.
const WAIT_TIME_MAX: Duration = Duration::from_millis(100);

/// Why a part of a file isn't taken.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// There is no such firmware, or it isn't being uploaded.
    #[error("the firmware isn't being uploaded")]
    NotUploading,
    /// Another request is at it.
    #[error("another request uploads this firmware at the moment")]
    Busy,
    /// All of it has come, and is being brought to the bucket.
    #[error("the upload is finished, and is being brought to the bucket")]
    Storing,
    /// The part doesn't fit.
    #[error(transparent)]
    Upload(#[from] UploadError),
    /// The disk.
    #[error("the file can't be written: {0}")]
    Io(#[from] io::Error),
}

/// A file that comes in.
#[derive(Debug)]
pub(super) struct Spool {
    file: File,
    upload: Upload,
}

/// Files that come in, as far as somebody has asked for them since the start.
#[derive(Debug, Default)]
pub(super) struct Spools(Mutex<HashMap<FirmwareId, Arc<tokio::sync::Mutex<Option<Spool>>>>>);

pub(super) fn prepare(folder: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn part(folder: &Path, id: FirmwareId) -> PathBuf {
    folder.join(format!("{id}.part"))
}

fn whole(folder: &Path, id: FirmwareId) -> PathBuf {
    folder.join(format!("{id}.bin"))
}

/// A whole file.
pub(super) fn open(folder: &Path, id: FirmwareId) -> io::Result<File> {
    File::open(whole(folder, id))
}

/// A part of a file, read beside the runtime's thread.
pub(super) async fn read(file: &Arc<File>, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let file = Arc::clone(file);
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    });
    read.await.map_err(io::Error::other)?
}

impl Spool {
    /// Opens what there is of a file, and reads it through for its digests.
    fn open(path: &Path, declared: Option<u64>, now_s: u64) -> Result<Self, FileError> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
        let mut upload = Upload::new(declared, now_s);
        let mut bytes = vec![0; READ_BYTES];
        loop {
            let read = file.read(&mut bytes)?;
            let Some(read @ [_, ..]) = bytes.get(..read) else { break };
            upload.written(read, now_s)?;
        }
        Ok(Self { file, upload })
    }

    fn write(&mut self, bytes: &[u8], now_s: u64) -> Result<(), FileError> {
        self.upload.accept(self.upload.have(), bytes.len() as u64, now_s)?;
        let have = self.upload.have();
        if let Err(error) = self.file.write_all(bytes) {
            // What was written of it isn't in the digests.
            self.file.set_len(have)?;
            return Err(error.into());
        }
        self.upload.written(bytes, now_s)?;
        Ok(())
    }
}

/// A request's hold on a file that comes in: nobody else writes to it meanwhile.
pub struct Writing {
    held: tokio::sync::OwnedMutexGuard<Option<Spool>>,
}

impl Writing {
    /// Where to go on.
    #[must_use]
    pub fn have(&self) -> u64 {
        self.held.as_ref().map_or(0, |spool| spool.upload.have())
    }

    /// The file, to be read.
    pub(super) fn file(&self) -> Result<File, ShelfError> {
        let spool = self.held.as_ref().ok_or_else(|| ShelfError::File("it isn't held".to_owned()))?;
        Ok(spool.file.try_clone()?)
    }

    /// Whether a part may come.
    ///
    /// # Errors
    /// [`FileError::Upload`].
    pub fn accept(&self, offset: u64, length: u64, now_s: u64) -> Result<(), FileError> {
        let spool = self.held.as_ref().ok_or(FileError::NotUploading)?;
        Ok(spool.upload.accept(offset, length, now_s)?)
    }

    /// Takes the next bytes, beside the runtime's thread.
    ///
    /// # Errors
    /// [`FileError`]; nothing of them is taken then.
    pub async fn write(self, bytes: Vec<u8>, now_s: u64) -> Result<Self, FileError> {
        let mut writing = self;
        let written = tokio::task::spawn_blocking(move || {
            let outcome = match writing.held.as_mut() {
                Some(spool) => spool.write(&bytes, now_s),
                None => Err(FileError::NotUploading),
            };
            outcome.map(|()| writing)
        });
        written.await.map_err(io::Error::other)?
    }

    /// The file is whole: it is brought to the disk, and its digests are known. It can't be written to any more.
    ///
    /// # Errors
    /// [`FileError`].
    pub async fn finish(mut self, now_s: u64) -> Result<(Self, Whole), FileError> {
        let finished = tokio::task::spawn_blocking(move || {
            let spool = self.held.as_mut().ok_or(FileError::NotUploading)?;
            let size = spool.upload.declared();
            if let Some(size) = size.filter(|size| spool.upload.have() < *size) {
                return Err(UploadError::Incomplete { have: spool.upload.have(), size }.into());
            }
            spool.file.sync_all()?;
            let whole = spool.upload.finish(now_s)?;
            Ok((self, whole))
        });
        finished.await.map_err(io::Error::other)?
    }
}

impl OtaDesk {
    /// Holds the file of a firmware that is being uploaded, for one request.
    ///
    /// # Errors
    /// [`FileError`].
    pub async fn spool(&self, id: FirmwareId, now_s: u64) -> Result<Writing, FileError> {
        if self.stage(id).is_some() { Err(FileError::Storing) } else { self.open_spool(id, now_s).await }
    }

    /// The same for who brings it to the bucket.
    pub(super) async fn open_spool(&self, id: FirmwareId, now_s: u64) -> Result<Writing, FileError> {
        let declared = {
            let state = self.state.lock();
            match state.catalog.get(id).map(|firmware| &firmware.state) {
                Some(State::Uploading(declared)) => declared.bytes,
                _ => return Err(FileError::NotUploading),
            }
        };
        let slot = Arc::clone(self.spools.0.lock().entry(id).or_default());
        // Whoever only looks is gone in a moment.
        let held = tokio::time::timeout(WAIT_TIME_MAX, slot.lock_owned()).await;
        let mut held = held.map_err(|_| FileError::Busy)?;
        if held.is_none() {
            // Whole already, where its end was verified and couldn't be committed.
            let path = Some(whole(&self.folder, id)).filter(|path| path.exists());
            let path = path.unwrap_or_else(|| part(&self.folder, id));
            let opened = tokio::task::spawn_blocking(move || Spool::open(&path, declared, now_s));
            *held = Some(opened.await.map_err(io::Error::other)??);
        }
        Ok(Writing { held })
    }

    /// How much of a file has come, without keeping anybody from sending more. None: while somebody does, nobody knows.
    #[must_use]
    pub fn uploaded(&self, id: FirmwareId) -> Option<u64> {
        let slot = self.spools.0.lock().get(&id).cloned();
        if let Some(slot) = &slot {
            let held = slot.try_lock().ok()?;
            if let Some(spool) = held.as_ref() {
                return Some(spool.upload.have());
            }
        }
        // Nobody has asked for it since the start.
        let paths = [whole(&self.folder, id), part(&self.folder, id)];
        let found = paths.iter().find_map(|path| std::fs::metadata(path).ok());
        Some(found.map_or(0, |found| found.len()))
    }

    /// A file has become a firmware's. Before the catalog says so.
    ///
    /// # Errors
    /// The disk's.
    pub fn keep(&self, id: FirmwareId) -> io::Result<()> {
        let path = whole(&self.folder, id);
        if !path.exists() {
            std::fs::rename(part(&self.folder, id), path)?;
        }
        File::open(&self.folder)?.sync_all()
    }

    /// Removes what there is of a firmware's file, in the folder and in the bucket.
    pub fn discard(self: &Arc<Self>, id: FirmwareId) {
        self.discard_part(id);
        remove(&whole(&self.folder, id));
        self.give_up(id);
    }

    /// Removes what has come of a firmware's file.
    pub(super) fn discard_part(&self, id: FirmwareId) {
        self.let_go(id);
        remove(&part(&self.folder, id));
    }

    /// Nobody writes to it any more.
    pub fn let_go(&self, id: FirmwareId) {
        self.spools.0.lock().remove(&id);
    }

    /// Removes files that no firmware has: what a crash has left between a commit and a removal, or the other way round.
    pub(super) fn sweep_files(self: &Arc<Self>) {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some((number, ending)) = name.to_str().and_then(|name| name.rsplit_once('.')) else { continue };
            let Ok(number) = number.parse().map(FirmwareId) else { continue };
            if matches!(ending, "storing" | "gone") {
                self.take_up(number, &entry.path(), ending);
                continue;
            }
            let is_needed = {
                let state = self.state.lock();
                match (state.catalog.get(number).map(|firmware| &firmware.state), ending) {
                    (Some(State::Ready(_) | State::Withdrawn(_)), "bin") => true,
                    (Some(State::Uploading(_)), "bin") => {
                        // It was about to be finished: it is uploaded as far as all of it.
                        std::fs::rename(entry.path(), part(&self.folder, number)).is_ok()
                    }
                    (Some(State::Uploading(_)), "part") => true,
                    (_, "bin" | "part" | "note") => false,
                    _ => true,
                }
            };
            if !is_needed {
                remove(&entry.path());
            }
        }
    }
}

fn remove(path: &Path) {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(file = %path.display(), %error, "a file of a firmware can't be removed");
        }
        _ => {}
    }
}
