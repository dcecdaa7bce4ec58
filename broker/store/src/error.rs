//! What can go wrong in a store: what, where, and what the operator does about it.

use std::io;
use std::path::PathBuf;

/// An operation of the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The medium is full, or close enough that going on would make it so.
    #[error(
        "the disk of {path} is full: {free_bytes} bytes are free, {reserve_bytes} must stay free; free some space, \
         the broker goes on by itself"
    )]
    Full {
        /// Folder of the store.
        path: PathBuf,
        /// What is left.
        free_bytes: u64,
        /// What has to be left.
        reserve_bytes: u64,
    },
    /// The operating system had no room for a write, whatever it says is free: a quota, a limit, or the disk is full to the last byte.
    #[error("the disk of {path} is full: a write failed ({source}); free some space, the broker goes on by itself")]
    NoSpace {
        /// Folder or file.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The operating system refused.
    #[error("can't {action} in {path}: {source}; check the disk and the permissions")]
    Io {
        /// Folder or file.
        path: PathBuf,
        /// What was tried, as a verb.
        action: &'static str,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The engine has stopped working and must be opened again; the reason stands in an earlier error.
    #[error("the storage engine in {path} has stopped ({reason}); it will be opened again")]
    Stopped {
        /// Folder of the store.
        path: PathBuf,
        /// What the engine said.
        reason: String,
    },
    /// What is on disk is not what was written.
    #[error(
        "the data in {path} is damaged at {place}: {reason}; nothing was changed: restore a backup, or move the folder away to \
         start empty"
    )]
    Damaged {
        /// Folder or file.
        path: PathBuf,
        /// Keyspace and key, or position in a file.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Written by a version of the broker whose format this one doesn't know.
    #[error(
        "the data in {path} has format {found}, this broker reads format {supported}; use the version that wrote it"
    )]
    Format {
        /// Folder of the store.
        path: PathBuf,
        /// What the data says.
        found: String,
        /// What this build reads and writes.
        supported: u32,
    },
    /// Another process has the folder open.
    #[error("the data folder {path} is in use by another process; stop that one, or use another folder")]
    Locked {
        /// Folder of the store.
        path: PathBuf,
    },
}

impl StoreError {
    /// Wraps an error of the operating system; a full disk becomes [`StoreError::NoSpace`].
    pub(crate) fn io(path: impl Into<PathBuf>, action: &'static str, source: io::Error) -> Self {
        let path = path.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::NoSpace { path, source }
            }
            _ => Self::Io { path, action, source },
        }
    }
}
