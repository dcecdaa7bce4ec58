//! Firmware out: the desk that devices' checks and reports come to, the thread that steps the campaigns, the files.
//!
//! ```text
//! shard ─▶ take, came, went ─▶ thread `ota`: State (catalog, scheduler, what devices reported) ─▶ offers ─▶ shards
//!                                   ▲                       │
//! HTTP API ── plans, changes ───────┘                       └─▶ records, in the order of the changes ─▶ store
//! ```
//!
//! `turnpike_ota` decides; `../../ota/DESIGN.md` has the invariants. All that is decided is decided under one lock, and handed to the committer and to the
//! shards under it, so that records are committed in the order of what they record. Nothing waits under it.
//!
//! **Invariant:** an offer's number is the firmware's whose file is offered: a device that asks for blocks gets those of the file that it began with, also
//! after a restart of the broker, whatever patches have come meanwhile.

mod blocks;
mod changing;
mod devices;
mod door;
mod download;
mod faults;
mod files;
mod gizwits;
mod invalid;
mod labels;
mod offers;
mod pages;
mod push;
mod record;
#[cfg(feature = "s3")]
mod s3;
mod said;
mod settings;
mod shelf;
mod spelled;
mod state;
mod storing;
mod sweep;
mod turns;
mod watched;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use turnpike_authz::desk::Matter;
use turnpike_authz::registry::{RecordError, Registry};
use turnpike_authz::secret::MasterKey;
use turnpike_core::gate::{DeviceIdentity, Passage, Principal, Visit};
use turnpike_core::shard::Errand;
use turnpike_ota::campaign::Life;
use turnpike_ota::ids::CampaignId;
use turnpike_ota::schedule::Recorded;
use turnpike_ota::token::TokenKey;

pub use changing::Changing;
pub use files::{FileError, Writing};
pub use invalid::Invalid;
#[cfg(feature = "s3")]
pub(crate) use s3::check as check_bucket;
pub use settings::CampaignRequest;
pub use shelf::{BucketCounts, ShelfError};
pub use state::{Order, State, Unknown};
pub use storing::Stage;

use crate::audit::AuditSink;
use crate::config::OtaSettings;
use crate::desk::{ByCode, Desk, Done, Shell};
use crate::server::Control;
use crate::tls::{Acceptor, Live, TlsError};
use record::{Read, Wanted};

/// Between two steps of the scheduler, and the longest that a coming or going waits to be noticed.
const STEP_INTERVAL: Duration = Duration::from_millis(200);

/// What the thread is given.
enum Work {
    Errand(Matter, Box<Errand>, Done),
    /// It is no more.
    Gone(Arc<DeviceIdentity>),
}

/// What a device's connection did.
enum Move {
    Came,
    Went,
}

/// What was done.
#[derive(Debug, Default)]
pub struct Counts {
    /// Offers that went out, those sent again included.
    pub offers: AtomicU64,
    /// Checks that were answered.
    pub checks: AtomicU64,
    /// Reports that were of use.
    pub reports: AtomicU64,
    /// Messages of devices that couldn't be read, or had no place.
    pub faults: AtomicU64,
    /// Blocks that were sent over MQTT.
    pub blocks: AtomicU64,
    /// Bytes that were sent over MQTT.
    pub block_bytes: AtomicU64,
    /// Downloads over HTTP that began, parts of files included.
    pub downloads: AtomicU64,
    /// Downloads over HTTP that were refused.
    pub downloads_refused: AtomicU64,
    /// Bytes that were sent over HTTP.
    pub download_bytes: AtomicU64,
}

impl Counts {
    /// With the words that tell them apart.
    #[must_use]
    pub fn all(&self) -> [(&'static str, u64); 9] {
        [
            ("offers", &self.offers),
            ("checks", &self.checks),
            ("reports", &self.reports),
            ("faults", &self.faults),
            ("blocks", &self.blocks),
            ("block_bytes", &self.block_bytes),
            ("downloads", &self.downloads),
            ("downloads_refused", &self.downloads_refused),
            ("download_bytes", &self.download_bytes),
        ]
        .map(|(name, count)| (name, count.load(Relaxed)))
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

/// What was read back, and what comes in before the start.
struct Beginning {
    work: UnboundedReceiver<Work>,
    campaigns: Vec<(CampaignId, Wanted, Life)>,
    standings: HashMap<CampaignId, Vec<Recorded>>,
}

/// The desk.
pub struct OtaDesk {
    settings: OtaSettings,
    folder: PathBuf,
    tokens: TokenKey,
    /// Shared with what is sent again later.
    state: Arc<Mutex<State>>,
    spools: files::Spools,
    /// The bucket, where files go to one.
    remote: Option<Arc<shelf::Remote>>,
    storings: storing::Storings,
    /// Where they are brought there.
    storer: OnceLock<tokio::runtime::Handle>,
    counts: Counts,
    refused: ByCode,
    campaigns_refused: ByCode,
    denied: ByCode,
    faults: ByCode,
    work: UnboundedSender<Work>,
    /// Comings and goings since the thread last looked. It isn't woken for them: that would cost a log-in more than all else that is done for it here.
    moves: Mutex<Vec<(Arc<DeviceIdentity>, Move)>>,
    beginning: Mutex<Option<Beginning>>,
    shell: OnceLock<Shell>,
    /// What links begin with; none where devices don't download over HTTP.
    link: OnceLock<String>,
    /// TLS of the address for downloads.
    tls: OnceLock<Arc<Acceptor>>,
    budget: blocks::Budget,
    turns: turns::Turns,
    /// Held by whoever changes catalog or campaigns by the API, from the plan to the commit.
    changing: Arc<tokio::sync::Mutex<()>>,
    /// A product is to be swept.
    to_sweep: Notify,
    /// One has been.
    swept: Notify,
}

impl std::fmt::Debug for OtaDesk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OtaDesk").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl OtaDesk {
    /// A desk that takes up records, and errands, which wait until it starts. Makes the folder.
    ///
    /// # Errors
    /// The folder can't be made, or a file that the bucket's settings name can't be used.
    pub fn new(settings: OtaSettings, folder: PathBuf, key: &MasterKey) -> io::Result<Arc<Self>> {
        files::prepare(&folder)?;
        let remote = remote(&settings)?.map(Arc::new);
        let (work, receiver) = unbounded_channel();
        Ok(Arc::new(Self {
            tokens: TokenKey::new(&key.derive("turnpike firmware downloads")),
            state: Arc::default(),
            spools: files::Spools::default(),
            remote,
            storings: storing::Storings::default(),
            storer: OnceLock::new(),
            counts: Counts::default(),
            refused: ByCode::default(),
            campaigns_refused: ByCode::default(),
            denied: ByCode::default(),
            faults: ByCode::default(),
            work,
            moves: Mutex::default(),
            beginning: Mutex::new(Some(Beginning { work: receiver, campaigns: Vec::new(), standings: HashMap::new() })),
            shell: OnceLock::new(),
            link: OnceLock::new(),
            tls: OnceLock::new(),
            budget: blocks::Budget::new(settings.blocks_bytes_s),
            turns: turns::Turns::default(),
            changing: Arc::default(),
            to_sweep: Notify::new(),
            swept: Notify::new(),
            settings,
            folder,
        }))
    }

    /// Whether a record of the store is for this desk.
    #[must_use]
    pub fn is_record(key: &[u8]) -> bool {
        record::is_ours(key) || turnpike_ota::record::is_record(key)
    }

    /// Takes a record of the store back, before the start.
    ///
    /// # Errors
    /// [`RecordError`]: the broker doesn't start on it.
    pub fn load(&self, key: &[u8], value: &[u8]) -> Result<(), RecordError> {
        if !record::is_ours(key) {
            let change = turnpike_ota::record::decode(key, value).map_err(|error| match error {
                turnpike_ota::record::RecordError::Layout(layout) => RecordError::Layout(layout),
                turnpike_ota::record::RecordError::Damaged(what) => RecordError::Damaged(what),
            })?;
            if let turnpike_ota::record::Change::Catalog(change) = change {
                self.state.lock().catalog.apply(change);
            }
            return Ok(());
        }
        let read = record::read(key, value)?;
        let mut beginning = self.beginning.lock();
        let Some(beginning) = beginning.as_mut() else { return Ok(()) };
        match read {
            Read::Campaign(id, wanted, life) => beginning.campaigns.push((id, *wanted, life)),
            Read::Standing(id, recorded, file) => {
                if let Some(file) = file {
                    self.state.lock().patched.entry(id).or_default().insert(recorded.device.clone(), file);
                }
                beginning.standings.entry(id).or_default().push(recorded);
            }
            Read::Given(id) => {
                let mut state = self.state.lock();
                state.given = state.given.max(id.0);
            }
            Read::LeftOut(id, device) => {
                self.state.lock().left_out.entry(id).or_default().insert(device);
            }
            Read::Reported(product, device, reported) => {
                self.state.lock().reported.entry(product).or_default().insert(device, reported);
            }
        }
        Ok(())
    }

    /// Takes campaigns up again, goes on removing what is left of deleted products, opens the address for downloads, and starts the thread. `strangers`: whether there may
    /// be devices that the registry doesn't have.
    ///
    /// # Errors
    /// The address can't be bound, TLS not be set up, or a thread not be started.
    pub fn start(
        self: &Arc<Self>,
        control: &Control,
        registry: &Arc<Registry>,
        audit: AuditSink,
        strangers: bool,
    ) -> anyhow::Result<Option<SocketAddr>> {
        let Some(beginning) = self.beginning.lock().take() else { return Ok(None) };
        let shell = Shell { control: control.clone(), registry: Arc::clone(registry), audit };
        let shell = self.shell.get_or_init(|| shell);
        let left = {
            let mut state = self.state.lock();
            state.find_swept(&shell.registry, strangers);
            state.restore(beginning.campaigns, beginning.standings, &shell.registry, control.now())
        };
        // Nobody waits for it: where it fails, the next start does it again.
        left.chunks(state::DELETED_AT_ONCE).for_each(|part| drop(control.commit_registry(part.to_vec())));
        self.start_storer()?;
        self.sweep_files();
        let desk = Arc::clone(self);
        control.when_gone(move |concern| desk.gone(concern));
        let bound = match self.settings.address {
            Some(address) => Some(
                door::serve(self, address)
                    .with_context(|| format!("downloads of firmware can't be served on {address}"))?,
            ),
            None => None,
        };
        if let Some(bound) = bound {
            let scheme = if self.settings.tls.is_some() { "https" } else { "http" };
            let link = self.settings.public_url.clone().unwrap_or_else(|| format!("{scheme}://{bound}"));
            let _ = self.link.set(link);
        }
        let (desk, work) = (Arc::clone(self), beginning.work);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("ota".to_owned()).spawn(move || runtime.block_on(desk.run(work)))?;
        Ok(bound)
    }

    /// Starts the thread on which files are brought to the bucket, if there is one. It ends with the process.
    fn start_storer(self: &Arc<Self>) -> io::Result<()> {
        if self.remote.is_none() {
            return Ok(());
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let _ = self.storer.set(runtime.handle().clone());
        let desk = Arc::clone(self);
        std::thread::Builder::new().name("ota-bucket".to_owned()).spawn(move || {
            runtime.block_on(async {
                desk.clear_bucket().await;
                std::future::pending::<()>().await;
            });
        })?;
        Ok(())
    }

    /// Reads the files of the TLS for downloads again, and changes nothing yet. None where there is none now or none in `settings`: that needs a restart.
    ///
    /// # Errors
    /// Every fault that was found.
    pub fn reread(&self, settings: Option<&OtaSettings>) -> Result<Option<Live>, Vec<TlsError>> {
        let wanted = self.tls.get().zip(settings.and_then(|settings| settings.tls.as_ref()));
        wanted.map(|(acceptor, tls)| acceptor.prepare(tls)).transpose()
    }

    /// New handshakes of downloads use `live` from now on.
    pub fn install(&self, live: Live) {
        if let Some(acceptor) = self.tls.get() {
            acceptor.install(live);
        }
    }

    /// Takes a message of a device. Never waits: how many there are the shards bound.
    pub fn take(&self, matter: Matter, errand: Errand, done: Done) {
        // If the thread is gone it is dropped, which refuses the message.
        let _ = self.work.send(Work::Errand(matter, Box::new(errand), done));
    }

    /// Hears of comings and goings. Never waits.
    pub fn passed(&self, visit: &Visit<'_>, passage: Passage) {
        if let Some(Principal::Device(identity)) = visit.principal {
            let did = match passage {
                Passage::In => Move::Came,
                Passage::Out(_) => Move::Went,
                Passage::Refused(_) | Passage::TurnedAway(_) => return,
            };
            self.moves.lock().push((Arc::clone(identity), did));
        }
    }

    /// What was done.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// What wasn't taken.
    #[must_use]
    pub fn refused(&self) -> &ByCode {
        &self.refused
    }

    /// Campaigns that weren't made, by why.
    #[must_use]
    pub fn campaigns_refused(&self) -> &ByCode {
        &self.campaigns_refused
    }

    /// Downloads that were refused or broken off, by why.
    #[must_use]
    pub fn denied(&self) -> &ByCode {
        &self.denied
    }

    /// Messages of devices that were of no use, by what was wrong with them.
    #[must_use]
    pub fn faults(&self) -> &ByCode {
        &self.faults
    }

    /// Its settings.
    #[must_use]
    pub fn settings(&self) -> &OtaSettings {
        &self.settings
    }

    /// Catalog and campaigns. Held for as long as it takes to look something up.
    pub fn state(&self) -> parking_lot::MutexGuard<'_, State> {
        self.state.lock()
    }

    fn shell(&self) -> &Shell {
        self.shell.get().expect("whoever works at the desk has started it")
    }

    async fn run(self: Arc<Self>, mut work: UnboundedReceiver<Work>) {
        tokio::spawn(Arc::clone(&self).sweep());
        let mut steps = tokio::time::interval(STEP_INTERVAL);
        steps.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = steps.tick() => self.step(),
                next = work.recv() => match next {
                    Some(Work::Errand(matter, errand, done)) => {
                        // Who sends something came before.
                        self.follow();
                        self.errand(matter, *errand, done);
                    }
                    Some(Work::Gone(identity)) => {
                        self.follow();
                        self.forget_device(&identity.product, &identity.device);
                    }
                    None => return,
                },
            }
        }
    }

    /// Takes note of comings and goings, in their order.
    fn follow(&self) {
        let moves = std::mem::take(&mut *self.moves.lock());
        for (identity, did) in moves {
            match did {
                Move::Came => self.came(&identity),
                Move::Went => self.went(&identity),
            }
        }
    }

    fn step(&self) {
        self.follow();
        let now = self.shell().control.now();
        let mut state = self.state.lock();
        let actions = state.scheduler.step(now);
        let carried = self.carry_out(&mut state, actions, None, now);
        drop(state);
        self.say(carried.committed, carried.offers);
    }
}

/// The bucket that files go to, if there is one.
#[cfg(feature = "s3")]
fn remote(settings: &OtaSettings) -> io::Result<Option<shelf::Remote>> {
    let Some(settings) = &settings.s3 else { return Ok(None) };
    let bucket = s3::S3::new(settings).map_err(io::Error::other)?;
    Ok(Some(shelf::Remote::new(Box::new(bucket), settings.cache_bytes)))
}

#[cfg(not(feature = "s3"))]
fn remote(_: &OtaSettings) -> io::Result<Option<shelf::Remote>> {
    Ok(None)
}

/// Why no bucket can be used.
#[cfg(not(feature = "s3"))]
pub(crate) fn check_bucket(_: &crate::config::S3Settings) -> Result<(), (&'static str, String)> {
    Err(("", "this program was built without buckets: the feature `s3`".to_owned()))
}

impl Desk for OtaDesk {
    fn take(&self, errand: Errand, done: Done) {
        let topic = errand.message.topic();
        match Matter::of(&errand.device, topic.as_str()) {
            Some(matter) => self.take(matter, errand, done),
            None => drop(done),
        }
    }
}
