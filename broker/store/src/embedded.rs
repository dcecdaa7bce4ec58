//! The embedded store: fjall, a log-structured merge tree with a journal.
//!
//! ```text
//! <folder>/LOCK      held while open
//! <folder>/FORMAT    written last when the store is made: without it nothing was ever committed here
//! <folder>/engine/   the engine's: journals, one folder of sorted tables per keyspace
//! ```

mod batch;
mod journal;
mod record;
mod recover;
mod runs;
mod space;
mod tables;

use std::fs::File;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fjall::config::{BlockSizePolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry};
use fjall::{AbstractTree, CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use turnpike_core::durable::{Part, Recovery};

use self::runs::{Change, Runs};
use self::space::FreeSpace;
use crate::{RecoverySummary, Store, StoreError};

/// What this build reads and writes.
pub const FORMAT: u32 = 2;
/// The same without runs: it is read, and is [`FORMAT`] from then on.
const FORMAT_WITHOUT_RUNS: u32 = 1;

const FORMAT_FILE: &str = "FORMAT";
const LOCK_FILE: &str = "LOCK";
const ENGINE_FOLDER: &str = "engine";

/// Sizes of the embedded store. The default keeps it below about 64 MB of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Memory for the newest entries of the busiest keyspace; three such can be alive at once.
    pub owed_memtable_bytes: u64,
    /// The same for each of the other keyspaces, which are seldom near it.
    pub other_memtable_bytes: u64,
    /// Memory for blocks of tables; only recovery and deletions of sessions read.
    pub cache_bytes: u64,
    /// Disk that journals may take, at least 64 MiB.
    pub journal_bytes_max: u64,
    /// Bytes of the disk that stay free: below this nothing more is taken in, below half of it nothing is written. The upper half is
    /// for what makes room, acknowledgements and deletions; the lower for the engine, which needs some to clean up.
    pub free_bytes_min: u64,
    /// Threads that write and merge tables.
    pub threads: usize,
    /// How long a commit waits for these threads before it gives up.
    pub stall_max: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            owed_memtable_bytes: 12 << 20,
            other_memtable_bytes: 4 << 20,
            cache_bytes: 8 << 20,
            journal_bytes_max: 128 << 20,
            free_bytes_min: 64 << 20,
            threads: 2,
            stall_max: Duration::from_secs(20),
        }
    }
}

/// The keyspaces, in the order of [`Space`].
const NAMES: [&str; 8] = ["meta", "sessions", "subscriptions", "owed", "incoming", "bodies", "retained", "registry"];

/// A keyspace of the engine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Space {
    /// Counters, by name.
    Meta,
    /// Session → header.
    Sessions,
    /// Session, filter → options.
    Subscriptions,
    /// Session, sequence number → entry, or several ([`runs`]).
    Owed,
    /// Session, packet identifier → nothing.
    Incoming,
    /// Message id → shared body.
    Bodies,
    /// Topic → message.
    Retained,
    /// As `authz` likes.
    Registry,
}

/// Keyspaces whose keys begin with a session.
const OF_SESSION: [Space; 4] = [Space::Sessions, Space::Subscriptions, Space::Owed, Space::Incoming];

const META_SESSION_HIGH: &[u8] = b"session_high";
const META_MESSAGE_HIGH: &[u8] = b"message_high";

/// Keeps everything in a folder, in this process.
pub struct EmbeddedStore {
    folder: PathBuf,
    options: Options,
    free_space: FreeSpace,
    engine: Option<Engine>,
    /// Highest session key and message id that are on disk.
    session_high: u64,
    message_high: u64,
    /// Where runs are in the engine.
    runs: Runs,
    /// Released last.
    _lock: File,
}

impl std::fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedStore").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl EmbeddedStore {
    /// Opens the store in `folder`; makes it if there is none.
    ///
    /// # Errors
    ///
    /// [`StoreError::Locked`], [`StoreError::Format`], [`StoreError::Damaged`], or the operating system's.
    pub fn open(folder: impl Into<PathBuf>, options: Options) -> Result<Self, StoreError> {
        let folder = folder.into();
        std::fs::create_dir_all(&folder).map_err(|e| StoreError::io(&folder, "create the data folder", e))?;
        let lock = lock(&folder)?;
        let format = check_format(&folder)?;
        let made = format.is_some();
        if !made {
            clear_unfinished(&folder)?;
        }
        let engine = Engine::open(&folder, &options, made)?;
        let session_high = engine.counter(META_SESSION_HIGH)?;
        let message_high = engine.counter(META_MESSAGE_HIGH)?;
        let runs = guarded(&folder, || Runs::load(&engine))?;
        if format != Some(FORMAT) {
            write_format(&folder).map_err(|e| StoreError::io(&folder, "write the format", e))?;
        }
        let free_space = FreeSpace::new(folder.clone(), options.free_bytes_min);
        Ok(Self { folder, options, free_space, engine: Some(engine), session_high, message_high, runs, _lock: lock })
    }

    /// The folder it was opened in.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the highest session key and message id that are on disk now, and what has become of the runs.
    fn write(&self, group: &[Part]) -> Result<((u64, u64), Vec<Change>), StoreError> {
        let engine = self.engine()?;
        engine.wait_for_background(self.options.stall_max)?;
        guarded(&self.folder, || {
            let batch::Encoded { items, highs, changes } =
                batch::encode(engine, &self.runs, group, (self.session_high, self.message_high))?;
            engine.write(items).map(|()| (highs, changes))
        })
    }

    fn engine(&self) -> Result<&Engine, StoreError> {
        self.engine.as_ref().ok_or_else(|| StoreError::Stopped {
            path: self.folder.clone(),
            reason: "it could not be opened again yet".into(),
        })
    }
}

impl Store for EmbeddedStore {
    fn commit(&mut self, group: &[Part]) -> Result<(), StoreError> {
        self.free_space.check()?;
        match self.write(group) {
            Ok((highs, changes)) => {
                (self.session_high, self.message_high) = highs;
                self.runs.apply(changes);
                Ok(())
            }
            // The engine's threads keep their reasons to themselves; a full disk is the one that the operator can mend.
            Err(StoreError::Stopped { .. }) if self.free_space.is_exhausted() => Err(self.free_space.full()),
            Err(error) => Err(error),
        }
    }

    fn recover(&mut self, into: &mut dyn Recovery) -> Result<RecoverySummary, StoreError> {
        let engine = self.engine()?;
        let summary = guarded(&self.folder, || recover::recover(engine, into, (self.session_high, self.message_high)))?;
        tracing::info!(folder = %self.folder.display(), counts = ?summary.counts, "the store was read");
        Ok(summary)
    }

    fn heal(&mut self) -> Result<(), StoreError> {
        self.free_space.check_now()?;
        if self.engine.as_ref().is_some_and(Engine::works) {
            return Ok(());
        }
        // Its files must be closed before they are opened again.
        drop(self.engine.take());
        let engine = Engine::open(&self.folder, &self.options, true)?;
        // The group that failed may be there all the same.
        self.runs = guarded(&self.folder, || Runs::load(&engine))?;
        self.engine = Some(engine);
        tracing::info!(folder = %self.folder.display(), "the storage engine was opened again");
        Ok(())
    }

    fn is_low(&mut self) -> bool {
        self.free_space.is_low()
    }

    fn close(&mut self) -> Result<(), StoreError> {
        let Some(engine) = self.engine.take() else { return Ok(()) };
        let outcome = engine.db.persist(PersistMode::SyncAll).map_err(|e| engine.error("close the journal", e));
        drop(engine);
        outcome
    }
}

/// The engine's handles.
struct Engine {
    folder: PathBuf,
    db: Database,
    spaces: [Keyspace; NAMES.len()],
}

impl Engine {
    /// `made`: the store was finished once, so all keyspaces must be there.
    fn open(folder: &Path, options: &Options, made: bool) -> Result<Self, StoreError> {
        let path = folder.join(ENGINE_FOLDER);
        if made {
            // Before the engine sees the files: it repairs by deleting.
            if !path.join("version").exists() {
                return Err(damaged(&path, "version".into(), "the engine's version file is missing"));
            }
            // One more than ours: the engine's own, of names.
            tables::check(&path.join("keyspaces"), NAMES.len() + 1)?;
            journal::check(&path)?;
        }
        guarded(folder, || {
            let db = Database::builder(&path)
                .cache_size(options.cache_bytes)
                .worker_threads(options.threads.max(1))
                .max_journaling_size(options.journal_bytes_max.max(64 << 20))
                .journal_compression(CompressionType::None)
                .open()
                .map_err(|e| engine_error(folder, "open the storage engine", e))?;
            if made && let Some(missing) = NAMES.iter().find(|name| !db.keyspace_exists(name)) {
                return Err(damaged(folder, format!("keyspace {missing}"), "it is missing"));
            }
            let mut spaces = Vec::with_capacity(NAMES.len());
            for name in NAMES {
                let space = db.keyspace(name, || keyspace_options(name, options));
                spaces.push(space.map_err(|e| engine_error(folder, "open a keyspace", e))?);
            }
            let spaces = <[Keyspace; NAMES.len()]>::try_from(spaces)
                .map_err(|_| damaged(folder, "keyspaces".into(), "a wrong number of them"))?;
            Ok(Self { folder: folder.into(), db, spaces })
        })
    }

    fn space(&self, space: Space) -> &Keyspace {
        let [meta, sessions, subscriptions, owed, incoming, bodies, retained, registry] = &self.spaces;
        match space {
            Space::Meta => meta,
            Space::Sessions => sessions,
            Space::Subscriptions => subscriptions,
            Space::Owed => owed,
            Space::Incoming => incoming,
            Space::Bodies => bodies,
            Space::Retained => retained,
            Space::Registry => registry,
        }
    }

    fn counter(&self, name: &[u8]) -> Result<u64, StoreError> {
        let value = self.space(Space::Meta).get(name).map_err(|e| self.error("read a counter", e))?;
        value
            .map_or(Ok(0), |bytes| record::decode_counter(&bytes).map_err(|why| self.malformed(Space::Meta, name, why)))
    }

    /// One batch, one sync.
    fn write(&self, items: Vec<batch::Item>) -> Result<(), StoreError> {
        let mut batch =
            fjall::OwnedWriteBatch::with_capacity(self.db.clone(), items.len()).durability(Some(PersistMode::SyncData));
        for item in items {
            match item.value {
                Some(value) => batch.insert(self.space(item.space), item.key, value),
                None => batch.remove(self.space(item.space), item.key),
            }
        }
        batch.commit().map_err(|e| self.error("write", e))
    }

    /// Whether the engine still takes writes.
    fn works(&self) -> bool {
        self.db.persist(PersistMode::Buffer).is_ok()
    }

    /// Waits while too many memtables or tables wait for the engine's threads. The engine would wait by itself after the write,
    /// but without an end, even when its threads have died of a full disk.
    fn wait_for_background(&self, limit: Duration) -> Result<(), StoreError> {
        let busy = |space: &Keyspace| space.tree.sealed_memtable_count() >= 3 || space.tree.l0_run_count() >= 20;
        let began = Instant::now();
        while self.spaces.iter().any(busy) {
            self.db.persist(PersistMode::Buffer).map_err(|e| self.error("write tables", e))?;
            if began.elapsed() > limit {
                let reason = format!("it has not written its tables for {limit:?}");
                return Err(StoreError::Stopped { path: self.folder.clone(), reason });
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn error(&self, action: &'static str, error: fjall::Error) -> StoreError {
        engine_error(&self.folder, action, error)
    }

    fn malformed(&self, space: Space, key: &[u8], why: record::Malformed) -> StoreError {
        let name = self.space(space).name();
        damaged(&self.folder, format!("{}/{}", &**name, key.escape_ascii()), why)
    }
}

fn keyspace_options(name: &str, options: &Options) -> KeyspaceCreateOptions {
    let memtable = if name == "owed" { options.owed_memtable_bytes } else { options.other_memtable_bytes };
    // What is owed and its bodies live for seconds: not worth compressing. The rest stays for months.
    let compression = match name {
        "owed" | "bodies" | "incoming" | "meta" => CompressionType::None,
        _ => CompressionType::Lz4,
    };
    let options = KeyspaceCreateOptions::default()
        .max_memtable_size(memtable)
        .data_block_compression_policy(CompressionPolicy::all(compression))
        .data_block_size_policy(BlockSizePolicy::all(16 << 10));
    // Filters serve point reads, and there are none but the counters'.
    if name == "meta" { options } else { options.filter_policy(FilterPolicy::all(FilterPolicyEntry::None)) }
}

fn engine_error(folder: &Path, action: &'static str, error: fjall::Error) -> StoreError {
    use fjall::{Error, LsmError};
    match error {
        Error::Io(e) | Error::Storage(LsmError::Io(e)) => match e.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::NotFound => {
                damaged(folder, ENGINE_FOLDER.into(), &format!("can't {action}: {e}"))
            }
            _ => StoreError::io(folder, action, e),
        },
        Error::Locked => StoreError::Locked { path: folder.into() },
        Error::InvalidVersion(found) => {
            StoreError::Format { path: folder.into(), found: format!("{FORMAT}, engine {found:?}"), supported: FORMAT }
        }
        Error::Poisoned => {
            StoreError::Stopped { path: folder.into(), reason: "an earlier write or merge of its files failed".into() }
        }
        other => damaged(folder, ENGINE_FOLDER.into(), &format!("can't {action}: {other}")),
    }
}

fn damaged(folder: &Path, place: String, reason: &str) -> StoreError {
    StoreError::Damaged { path: folder.into(), place, reason: reason.into() }
}

/// The engine asserts where bytes on disk should have been otherwise; that is damage, not a reason to end the process.
fn guarded<T>(folder: &Path, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(damaged(folder, ENGINE_FOLDER.into(), text.unwrap_or("the engine gave up")))
    })
}

fn lock(folder: &Path) -> Result<File, StoreError> {
    let path = folder.join(LOCK_FILE);
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|e| StoreError::io(&path, "open the lock", e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(StoreError::Locked { path: folder.into() }),
        Err(std::fs::TryLockError::Error(e)) => Err(StoreError::io(&path, "lock the data folder", e)),
    }
}

/// Of which format a store was made here, if one was; an error if it is one that can't be read.
fn check_format(folder: &Path) -> Result<Option<u32>, StoreError> {
    let path = folder.join(FORMAT_FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) if e.kind() == io::ErrorKind::InvalidData => {
            return Err(damaged(folder, FORMAT_FILE.into(), "not a format file"));
        }
        Err(e) => return Err(StoreError::io(&path, "read the format", e)),
    };
    let number = text.strip_prefix("turnpike-store ").and_then(|rest| rest.trim_end().parse::<u32>().ok());
    match number {
        Some(known @ (FORMAT | FORMAT_WITHOUT_RUNS)) => Ok(Some(known)),
        Some(other) => Err(StoreError::Format { path: folder.into(), found: other.to_string(), supported: FORMAT }),
        None => Err(damaged(folder, FORMAT_FILE.into(), "not a format file")),
    }
}

fn write_format(folder: &Path) -> io::Result<()> {
    let temporary = folder.join("FORMAT.new");
    let mut file = File::create(&temporary)?;
    file.write_all(format!("turnpike-store {FORMAT}\n").as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&temporary, folder.join(FORMAT_FILE))?;
    File::open(folder)?.sync_all()
}

/// The process died while it made the store: there is no format, so nothing was committed, and the engine may be half there.
fn clear_unfinished(folder: &Path) -> Result<(), StoreError> {
    let path = folder.join(ENGINE_FOLDER);
    match path.try_exists() {
        Ok(false) => return Ok(()),
        Ok(true) => {}
        Err(e) => return Err(StoreError::io(&path, "look for the engine", e)),
    }
    // Unless somebody removed the format file: then the journal has batches, or keyspaces have more tables than a new one.
    if journal::holds_data(&path).map_err(|e| StoreError::io(&path, "read the journals", e))? || holds_tables(&path) {
        return Err(damaged(folder, FORMAT_FILE.into(), "it is missing, but there is data"));
    }
    tracing::warn!(path = %path.display(), "a store that was never finished is made anew");
    std::fs::remove_dir_all(&path).map_err(|e| StoreError::io(&path, "remove an unfinished store", e))
}

/// Whether any keyspace but the engine's own (folder `0`) has a table.
fn holds_tables(engine: &Path) -> bool {
    let Ok(keyspaces) = std::fs::read_dir(engine.join("keyspaces")) else { return false };
    keyspaces.flatten().filter(|keyspace| keyspace.file_name() != "0").any(|keyspace| {
        std::fs::read_dir(keyspace.path().join("tables")).is_ok_and(|mut tables| tables.next().is_some())
    })
}

#[cfg(test)]
mod tests;
