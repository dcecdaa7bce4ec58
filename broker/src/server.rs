//! The data plane as a whole: started from a store and settings, steered through [`Control`], ended by a drain.
//!
//! A shard whose thread fails takes the process with it ([`EXIT_SOFTWARE`]): the sessions whose home it is would be out of reach while
//! the process looks alive. What was acknowledged is on disk.

mod control;
mod recovery;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::{Poll, Waker};
use turnpike_core::gate::Gate;
use turnpike_core::ids::ShardId;
use turnpike_core::limits::Limits;
use turnpike_core::shard::{self, Shard};
use turnpike_core::shared::Shared;
use turnpike_store::{CommitEvent, Committer, CommitterHandle, Store, StoreError};

pub use control::{Control, Health, ReloadError, StoreHealth, Totals};

use crate::asker::Asker;
use crate::desk::Desk;
use crate::inbox::Inbox;
use crate::listener::{self, BindError, ListenerSettings};
use crate::shard::{Clock, Door, Entrance, Setup, ShardThread, WAKE};
use crate::tls::{Acceptor, TlsError};
use crate::transport::TransportLimits;
use control::Plane;

/// Exit code after a fault of the program itself (`sysexits.h`).
pub const EXIT_SOFTWARE: i32 = 70;
/// Of a drain's time, what is left to the store whatever the clients do.
const FLUSH_TIME_MIN: Duration = Duration::from_secs(5);

/// Takes the key and the value of a record of the registry.
pub type OnRecord = Box<dyn FnMut(&[u8], &[u8])>;

/// What a server is made of.
pub struct ServerParts<G> {
    /// Where clients come in.
    pub listeners: Vec<ListenerSettings>,
    /// Bounds of the core.
    pub limits: Limits,
    /// Bounds of the shell.
    pub transport: TransportLimits,
    /// Bounds of the committer.
    pub commit: turnpike_store::Limits,
    /// Threads that serve clients; at least one is started.
    pub shards: u16,
    /// The first descriptor that is kept from clients; who would get it is closed at once.
    pub first_descriptor_kept: u32,
    /// Who may come in, and what they may do.
    pub gate: Arc<G>,
    /// Where durable state lives.
    pub store: Box<dyn Store>,
    /// Has questions of the gate answered; none where the gate asks nobody.
    pub asker: Option<Arc<dyn Asker>>,
    /// Has what devices publish for the broker itself. Where there is nobody, such messages are refused.
    pub desk: Option<Arc<dyn Desk>>,
    /// Gets every record of the registry that the store holds, before any client comes in.
    pub registry: OnRecord,
}

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// What the store holds can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An address can't be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// TLS of a listener can't be set up.
    #[error("listener `{listener}`: {}", said(faults))]
    Tls {
        /// Its name.
        listener: String,
        /// All that is wrong.
        faults: Vec<TlsError>,
    },
    /// The operating system refused a thread or a poll.
    #[error("can't start a thread: {0}")]
    Thread(#[from] io::Error),
}

fn said(faults: &[TlsError]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A running data plane.
pub struct Server {
    control: Control,
    addresses: Addresses,
    threads: Vec<JoinHandle<()>>,
    committer: CommitterHandle,
}

impl Server {
    /// Recovers what the store holds, binds the listeners, and starts the threads.
    ///
    /// # Errors
    /// See [`StartError`]; nothing runs then.
    pub fn start<G: Gate + 'static>(mut parts: ServerParts<G>) -> Result<Self, StartError> {
        let shards = parts.shards.max(1);
        let doors = doors(&parts.listeners)?;
        let clock = Clock::start();
        let limits = Arc::new(parts.limits);
        let shared = Arc::new(Shared::new(&limits));
        let mut cores = cores(shards, &shared, &parts.gate, &limits, clock);
        recovery::recover(&mut *parts.store, &shared, &mut cores, &mut *parts.registry, clock.at(Instant::now()))?;
        let (addresses, sockets) = bind(&parts.listeners, shards)?;

        let polls = (0..shards).map(|_| Poll::new()).collect::<io::Result<Vec<_>>>()?;
        let inboxes: Arc<[Inbox]> =
            polls.iter().map(|poll| Waker::new(poll.registry(), WAKE).map(Inbox::new)).collect::<io::Result<_>>()?;
        let beats: Vec<_> = (0..shards).map(|_| Arc::new(AtomicU64::new(0))).collect();
        let plane = Arc::new(Plane::new(Arc::clone(&inboxes), beats.clone(), parts.listeners, doors.clone()));
        let on_event = {
            let (plane, shared) = (Arc::clone(&plane), Arc::clone(&shared));
            Box::new(move |event: CommitEvent<'_>| plane.on_commit(event, &shared))
        };
        let committer = Committer::start(parts.store, parts.commit, on_event)?;

        let mut threads = Vec::new();
        for (((id, core), (poll, own)), heartbeat) in (0..).zip(cores).zip(polls.into_iter().zip(sockets)).zip(beats) {
            let entrances = own
                .into_iter()
                .zip(&doors)
                .enumerate()
                .map(|(index, (socket, door))| Entrance::new(poll.registry(), socket, Arc::clone(door), index))
                .collect::<io::Result<Vec<_>>>()?;
            let thread = ShardThread::new(Setup {
                id: ShardId(id),
                core,
                poll,
                inboxes: Arc::clone(&inboxes),
                entrances,
                committer: committer.clone(),
                limits: Arc::clone(&limits),
                transport: parts.transport,
                first_descriptor_kept: parts.first_descriptor_kept,
                clock,
                heartbeat,
                asker: parts.asker.clone(),
                desk: parts.desk.clone(),
            });
            let plane = Arc::clone(&plane);
            threads.push(std::thread::Builder::new().name(format!("shard-{id}")).spawn(move || run(thread, &plane))?);
        }
        let control = Control::new(plane, committer.clone(), shared, clock);
        Ok(Self { control, addresses, threads, committer })
    }

    /// Name and address of each listener, in the order of the settings.
    #[must_use]
    pub fn addresses(&self) -> &[(String, SocketAddr)] {
        &self.addresses
    }

    /// The handle to steer it by.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Ends it: accepts nobody any more, says good-bye to clients, lets what is under way come to rest, and closes the store. Takes `limit`
    /// at most, and a few seconds for the store. Says whether all of it was done in time.
    pub fn drain(self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let parted = self.control.drain_shards(deadline);
        // What one shard's last words made another do comes to rest in the second round.
        let rested = (0..2).all(|_| self.control.settle(deadline.max(Instant::now() + Duration::from_secs(1))));
        self.control.stop_shards();
        for thread in self.threads {
            let _ = thread.join();
        }
        let left = deadline.saturating_duration_since(Instant::now()).max(FLUSH_TIME_MIN);
        let flushed =
            self.committer.shutdown(left).map_err(|error| tracing::error!(%error, "the store was not flushed"));
        parted && rested && flushed.is_ok()
    }
}

/// The sans-IO half of each shard.
fn cores<G: Gate>(
    shards: u16,
    shared: &Arc<Shared>,
    gate: &Arc<G>,
    limits: &Arc<Limits>,
    clock: Clock,
) -> Vec<Shard<G>> {
    let core = |id| {
        Shard::new(shard::Setup {
            id: ShardId(id),
            shards,
            shared: Arc::clone(shared),
            gate: Arc::clone(gate),
            limits: Arc::clone(limits),
            entropy: Box::new(|bytes| getrandom::fill(bytes).expect("the kernel has random numbers")),
            now: clock.at(Instant::now()),
        })
    };
    (0..shards).map(core).collect()
}

/// Name and address of each listener.
type Addresses = Vec<(String, SocketAddr)>;

/// Binds all listeners; gives the sockets by shard, each in the order of the settings.
fn bind(listeners: &[ListenerSettings], shards: u16) -> Result<(Addresses, Vec<Vec<TcpListener>>), BindError> {
    let mut addresses = Vec::new();
    let mut sockets: Vec<Vec<_>> = (0..shards).map(|_| Vec::new()).collect();
    for settings in listeners {
        let (address, bound) = listener::bind(settings, shards)?;
        addresses.push((settings.name.clone(), address));
        for (own, socket) in sockets.iter_mut().zip(bound) {
            own.push(socket);
        }
    }
    Ok((addresses, sockets))
}

/// The doors of all listeners, with their certificates loaded.
fn doors(listeners: &[ListenerSettings]) -> Result<Vec<Arc<Door>>, StartError> {
    let door = |settings: &ListenerSettings| {
        let acceptor = |tls| Acceptor::load(tls, settings.websocket.is_some()).map(Arc::new);
        let tls = settings.tls.as_ref().map(acceptor).transpose();
        Ok(Arc::new(Door {
            name: settings.name.clone(),
            proxy: settings.proxy_protocol,
            tls: tls.map_err(|faults| StartError::Tls { listener: settings.name.clone(), faults })?,
            websocket: settings.websocket.as_ref().map(|websocket| websocket.paths.as_slice().into()),
        }))
    };
    listeners.iter().map(door).collect()
}

/// The body of a shard's thread.
fn run<G: Gate>(thread: ShardThread<G>, plane: &Plane) {
    // A shard that panicked is not used again: nothing sees what it left half done.
    let fault = match catch_unwind(AssertUnwindSafe(|| thread.run())) {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        // The panic hook has said what and where.
        Err(_) => "panic".to_owned(),
    };
    plane.mark_dead();
    tracing::error!(thread = std::thread::current().name(), fault, "a shard has failed; the process ends");
    std::process::exit(EXIT_SOFTWARE);
}

#[cfg(test)]
mod tests;
