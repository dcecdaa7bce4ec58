//! Where whole files of firmware are: in the folder, or in a bucket. Devices notice no difference.
//!
//! ```text
//! upload ─▶ folder: {number}.part ─▶ folder: {number}.bin
//!                                └─▶ bucket: {prefix}{number}-{SHA-256}.bin        (`storing.rs`)
//! device ─▶ Opened::next, Opened::read ─▶ the file, or pages of the object that all downloads share
//! ```
//!
//! A file that is in the folder is read there, also where there is a bucket: what was ready before there was one.
//!
//! **Invariant:** an object's name has the SHA-256 of what is in it, so none is ever written over by another file, and pages are never stale.

use std::fmt;
use std::fs::File;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use axum::body::Bytes;
use parking_lot::Mutex;
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::Instant;
use turnpike_ota::firmware::{Digester, Whole};
use turnpike_ota::ids::FirmwareId;

use super::pages::{PAGE_BYTES, Pages};
use super::{OtaDesk, count, files};

/// Bytes that a download holds in memory.
const CHUNK_BYTES: usize = 256 << 10;
/// Bytes that are read at once to compare an object with its file.
const COMPARED_BYTES: u64 = 4 << 20;
/// Pages that are fetched at once, for all devices together.
const FETCHES_MAX: usize = 64;
/// For so long after a bucket couldn't be reached nobody else tries for a page: devices hear at once that they are to come again.
const PAUSE: Duration = Duration::from_secs(1);

/// Why a file can't be read, brought or removed. For an operator each is another thing to do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ShelfError {
    /// No connection, no answer in time, or one that it can't answer now.
    #[error("the bucket can't be reached: {0}")]
    Unreachable(String),
    /// Credentials that are wrong, or may not do this.
    #[error("the bucket denies access: {0}")]
    Denied(String),
    /// No such object, or no such bucket.
    #[error("it isn't in the bucket: {0}")]
    Missing(String),
    /// It isn't what was brought there.
    #[error("what is in the bucket isn't what was brought there")]
    Damaged,
    /// Anything else that it says.
    #[error("the bucket refuses: {0}")]
    Failed(String),
    /// The folder's file.
    #[error("the file can't be read: {0}")]
    File(String),
}

impl ShelfError {
    /// A word for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "bucket_unreachable",
            Self::Denied(_) => "bucket_denied",
            Self::Missing(_) => "bucket_missing",
            Self::Damaged => "bucket_damaged",
            Self::Failed(_) => "bucket_failed",
            Self::File(_) => "unreadable",
        }
    }
}

impl From<io::Error> for ShelfError {
    fn from(error: io::Error) -> Self {
        Self::File(error.to_string())
    }
}

/// What is to come of an operation on a bucket.
pub(super) type Doing<'a, T> = Pin<Box<dyn Future<Output = Result<T, ShelfError>> + Send + 'a>>;

/// A bucket, with the prefix that is this broker's alone. Every operation ends within a bounded time and may be tried again.
pub(super) trait Bucket: fmt::Debug + Send + Sync {
    /// Brings a file there. What has come there of it before a failure may be kept for the next try.
    fn put<'a>(&'a self, name: &'a str, file: &'a Arc<File>, bytes: u64) -> Doing<'a, ()>;
    /// The bytes of an object; none if there is no such object.
    fn size<'a>(&'a self, name: &'a str) -> Doing<'a, Option<u64>>;
    /// A part of an object, whole.
    fn get<'a>(&'a self, name: &'a str, from: u64, length: u64) -> Doing<'a, Bytes>;
    /// Removes an object, and what has come of it; one that isn't there is removed.
    fn remove<'a>(&'a self, name: &'a str) -> Doing<'a, ()>;
    /// Removes what a process that has ended had begun to bring there. Gives how much it was.
    fn clear(&self) -> Doing<'_, usize>;
}

/// What was done with a bucket.
#[derive(Debug, Default)]
pub struct BucketCounts {
    /// Files that were brought there.
    pub stored: AtomicU64,
    /// Objects that were removed.
    pub removed: AtomicU64,
    /// Pages that were fetched.
    pub fetched: AtomicU64,
    /// Bytes of them.
    pub fetched_bytes: AtomicU64,
    /// Pages that were at hand.
    pub shared: AtomicU64,
    unreachable: AtomicU64,
    denied: AtomicU64,
    missing: AtomicU64,
    failed: AtomicU64,
}

impl BucketCounts {
    /// With the words that tell them apart.
    #[must_use]
    pub fn all(&self) -> [(&'static str, u64); 9] {
        [
            ("stored", &self.stored),
            ("removed", &self.removed),
            ("fetched", &self.fetched),
            ("fetched_bytes", &self.fetched_bytes),
            ("shared", &self.shared),
            ("unreachable", &self.unreachable),
            ("denied", &self.denied),
            ("missing", &self.missing),
            ("failed", &self.failed),
        ]
        .map(|(name, count)| (name, count.load(Relaxed)))
    }

    fn fault(&self, error: &ShelfError) {
        count(match error {
            ShelfError::Unreachable(_) => &self.unreachable,
            ShelfError::Denied(_) => &self.denied,
            ShelfError::Missing(_) => &self.missing,
            ShelfError::Damaged | ShelfError::Failed(_) | ShelfError::File(_) => &self.failed,
        });
    }
}

/// A bucket and what is remembered of it.
#[derive(Debug)]
pub(super) struct Remote {
    bucket: Box<dyn Bucket>,
    pages: Pages,
    pause: Duration,
    fetches: Semaphore,
    cleared: OnceCell<()>,
    /// When it couldn't be reached the last time, and why.
    out_of_reach: Mutex<Option<(Instant, ShelfError)>>,
    pub(super) counts: BucketCounts,
}

impl Remote {
    /// `cache_bytes`: of pages that are kept for other devices.
    #[cfg_attr(not(feature = "s3"), allow(dead_code, reason = "there is no bucket to make one of"))]
    pub(super) fn new(bucket: Box<dyn Bucket>, cache_bytes: u64) -> Self {
        Self {
            bucket,
            pages: Pages::new(cache_bytes),
            pause: PAUSE,
            fetches: Semaphore::new(FETCHES_MAX),
            cleared: OnceCell::new(),
            out_of_reach: Mutex::new(None),
            counts: BucketCounts::default(),
        }
    }

    /// Counts what goes wrong.
    fn noted<T>(&self, outcome: Result<T, ShelfError>) -> Result<T, ShelfError> {
        outcome.inspect_err(|error| self.counts.fault(error))
    }

    /// Removes what an earlier process left half brought, once. Where it may not look for that, it is left to the bucket's own rules.
    pub(super) async fn clear(&self) -> Result<(), ShelfError> {
        let clear = || async {
            match self.bucket.clear().await {
                Ok(0) => Ok(()),
                Ok(uploads) => {
                    tracing::info!(uploads, "unfinished uploads to the bucket have been aborted");
                    Ok(())
                }
                Err(error @ ShelfError::Unreachable(_)) => Err(error),
                Err(error) => {
                    tracing::warn!(%error, "unfinished uploads to the bucket can't be looked for");
                    Ok(())
                }
            }
        };
        self.noted(self.cleared.get_or_try_init(clear).await.copied())
    }

    /// Brings a file there, if it isn't there already, and reads it back: what is there has its size and digests.
    pub(super) async fn bring(&self, name: &str, file: &Arc<File>, whole: &Whole) -> Result<(), ShelfError> {
        self.noted(self.bring_unnoted(name, file, whole).await)?;
        count(&self.counts.stored);
        Ok(())
    }

    async fn bring_unnoted(&self, name: &str, file: &Arc<File>, whole: &Whole) -> Result<(), ShelfError> {
        if self.is_there(name, whole).await? {
            return Ok(());
        }
        self.bucket.put(name, file, whole.bytes).await?;
        if self.is_there(name, whole).await? {
            return Ok(());
        }
        self.bucket.remove(name).await?;
        Err(ShelfError::Damaged)
    }

    async fn is_there(&self, name: &str, whole: &Whole) -> Result<bool, ShelfError> {
        if self.bucket.size(name).await? != Some(whole.bytes) {
            return Ok(false);
        }
        let mut digester = Digester::default();
        let mut at = 0;
        while at < whole.bytes {
            let length = COMPARED_BYTES.min(whole.bytes - at);
            digester.update(&self.bucket.get(name, at, length).await?);
            at += length;
        }
        Ok(digester.finish() == *whole)
    }

    /// Removes an object and what has come of it.
    pub(super) async fn remove(&self, name: &str) -> Result<(), ShelfError> {
        self.noted(self.bucket.remove(name).await)?;
        count(&self.counts.removed);
        Ok(())
    }

    /// A page of an object: one that is at hand, or is being fetched already, or else fetched.
    async fn page(&self, object: &Object, page: u64) -> Result<Bytes, ShelfError> {
        let mut is_fetched = false;
        let fetch = || {
            is_fetched = true;
            self.fetch(object, page)
        };
        let bytes = self.pages.page((object.id, page), fetch).await?;
        if !is_fetched {
            count(&self.counts.shared);
        }
        Ok(bytes)
    }

    async fn fetch(&self, object: &Object, page: u64) -> Result<Bytes, ShelfError> {
        self.within_reach()?;
        let _place = self.fetches.acquire().await.map_err(|_| ShelfError::Failed("it is closed".to_owned()))?;
        // Whoever waited for a place may have been overtaken by what those before found out.
        self.within_reach()?;
        let from = page * PAGE_BYTES;
        let length = PAGE_BYTES.min(object.bytes.saturating_sub(from));
        let outcome = self.noted(self.bucket.get(&object.name, from, length).await);
        match &outcome {
            Ok(bytes) => {
                count(&self.counts.fetched);
                self.counts.fetched_bytes.fetch_add(bytes.len() as u64, Relaxed);
            }
            Err(error @ ShelfError::Unreachable(_)) => {
                *self.out_of_reach.lock() = Some((Instant::now(), error.clone()));
            }
            Err(_) => {}
        }
        outcome
    }

    fn within_reach(&self) -> Result<(), ShelfError> {
        match &*self.out_of_reach.lock() {
            Some((since, error)) if since.elapsed() < self.pause => Err(error.clone()),
            _ => Ok(()),
        }
    }
}

/// What a firmware's object is called.
pub(super) fn name(id: FirmwareId, sha256: &[u8; 32]) -> String {
    format!("{id}-{}.bin", hex::encode(sha256))
}

/// An object of a bucket.
#[derive(Debug)]
pub(super) struct Object {
    id: FirmwareId,
    name: String,
    bytes: u64,
}

/// A whole file, to be read.
#[derive(Clone, Debug)]
pub(super) enum Opened {
    /// In the folder.
    File(Arc<File>),
    /// In a bucket.
    Object(Arc<Remote>, Arc<Object>),
}

impl Opened {
    /// What comes from `at` on, at least a byte, and at most what a download may hold; never beyond `to`.
    pub(super) async fn next(&self, at: u64, to: u64) -> Result<Bytes, ShelfError> {
        let left = usize::try_from(to.saturating_sub(at)).unwrap_or(usize::MAX);
        match self {
            Self::File(file) => Ok(files::read(file, at, left.min(CHUNK_BYTES)).await?.into()),
            Self::Object(remote, object) => {
                let page = remote.page(object, at / PAGE_BYTES).await?;
                let within = usize::try_from(at % PAGE_BYTES).unwrap_or(usize::MAX);
                let end = within.saturating_add(left).min(page.len());
                if within >= end { Err(ShelfError::Damaged) } else { Ok(page.slice(within..end)) }
            }
        }
    }

    /// So many bytes from `offset` on.
    pub(super) async fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, ShelfError> {
        if let Self::File(file) = self {
            return Ok(files::read(file, offset, length).await?);
        }
        let to = offset + length as u64;
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.next(offset + bytes.len() as u64, to).await?);
        }
        Ok(bytes)
    }
}

impl OtaDesk {
    /// The file of a firmware that is whole.
    pub(super) fn open(&self, id: FirmwareId, whole: &Whole) -> Result<Opened, ShelfError> {
        match (files::open(&self.folder, id), &self.remote) {
            (Ok(file), _) => Ok(Opened::File(Arc::new(file))),
            (Err(error), Some(remote)) if error.kind() == io::ErrorKind::NotFound => {
                let object = Object { id, name: name(id, &whole.digests.sha256), bytes: whole.bytes };
                Ok(Opened::Object(Arc::clone(remote), Arc::new(object)))
            }
            (Err(error), _) => Err(error.into()),
        }
    }

    /// What was done with the bucket, if there is one, and how many files are on their way there.
    #[must_use]
    pub fn bucket(&self) -> Option<(&BucketCounts, usize)> {
        Some((&self.remote.as_ref()?.counts, self.storings.len()))
    }
}

#[cfg(test)]
mod tests;
