//! The listener: who gets to speak.
//!
//! **Invariant:** every connection has a certificate that was verified in its own handshake: there are no tickets, so nothing is resumed that was
//! verified before a list of revoked ones came. A connection ends after [`CONNECTION_TIME_MAX`], so what is revoked is out by then.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use rustls::server::ProducesTickets;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use turnpike_authz::x509::Leaf;

use super::super::connections::Quiet;
use super::desk::{Desk, Peer};
use crate::tls::{Acceptor, Live, TlsError, TlsSettings};

/// Connections at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 1024;
/// How long a handshake may take.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// How long the next request's head may take, from the end of the last answer.
const HEAD_TIME_MAX: Duration = Duration::from_secs(30);
/// How long nothing may come or go: longer than any answer takes to be made.
const QUIET_TIME_MAX: Duration = Duration::from_secs(60);
/// How long a connection lasts.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(600);
/// How long its last answer may take then.
const LAST_ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
/// Bytes of a head.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// Headers of a head.
const HEADERS_MAX: usize = 32;
/// After a failed accept, such as for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// TLS of the listener, which a reload replaces.
#[derive(Debug)]
pub struct Door {
    acceptor: Acceptor,
    config: ArcSwap<ServerConfig>,
}

impl Door {
    /// Reads all files.
    ///
    /// # Errors
    /// Every fault that was found.
    pub fn load(settings: &TlsSettings) -> Result<Self, Vec<TlsError>> {
        let acceptor = Acceptor::load(settings, true)?;
        let config = ArcSwap::from(without_tickets(&acceptor.live()));
        Ok(Self { acceptor, config })
    }

    /// Reads all files again, and changes nothing yet.
    ///
    /// # Errors
    /// Every fault that was found.
    pub fn prepare(&self, settings: &TlsSettings) -> Result<Live, Vec<TlsError>> {
        self.acceptor.prepare(settings)
    }

    /// New handshakes use `live` from now on.
    pub fn install(&self, live: Live) {
        self.config.store(without_tickets(&live));
        self.acceptor.install(live);
    }

    /// Serves a desk on a thread of its own until the process ends. Gives the address.
    ///
    /// # Errors
    /// The address can't be bound, or the thread not be started.
    pub fn serve(self: &Arc<Self>, address: SocketAddr, desk: Desk) -> io::Result<SocketAddr> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let door = Arc::clone(self);
        std::thread::Builder::new().name("platforms".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let served = runtime.and_then(|runtime| {
                runtime.block_on(async {
                    door.accept(TcpListener::from_std(listener)?, &desk).await;
                    Ok(())
                })
            });
            if let Err(error) = served {
                tracing::error!(%error, "the listener for platforms has ended");
            }
        })?;
        Ok(address)
    }

    async fn accept(&self, listener: TcpListener, desk: &Desk) {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        while let Ok(permit) = Arc::clone(&room).acquire_owned().await {
            let (socket, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection of a platform can't be accepted");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            if desk.accepts(address) {
                let (config, desk) = (self.config.load_full(), desk.clone());
                tokio::spawn(async move {
                    serve_one(socket, address, config, desk).await;
                    drop(permit);
                });
            }
        }
    }
}

async fn serve_one(socket: TcpStream, address: SocketAddr, config: Arc<ServerConfig>, desk: Desk) {
    // Answers are one write each.
    let _ = socket.set_nodelay(true);
    let handshake = tokio::time::timeout(HANDSHAKE_TIME_MAX, TlsAcceptor::from(config).accept(socket));
    let Ok(Ok(stream)) = handshake.await else {
        return tracing::debug!("a handshake with a platform has failed");
    };
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let Some(certificate) = shown.and_then(|der| Leaf::read(der)) else {
        return tracing::debug!("a platform's certificate can't be read");
    };
    let peer = Arc::new(Peer { address, certificate });
    let service = service_fn(move |request| {
        let (desk, peer) = (desk.clone(), Arc::clone(&peer));
        async move { Ok::<_, std::convert::Infallible>(desk.answer(request, &peer).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_headers(HEADERS_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(Quiet::new(stream, QUIET_TIME_MAX)), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = tokio::time::sleep(CONNECTION_TIME_MAX) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(LAST_ANSWER_TIME_MAX, connection).await;
}

fn without_tickets(live: &Live) -> Arc<ServerConfig> {
    let mut config = (*live.config()).clone();
    config.ticketer = Arc::new(NoTickets);
    config.send_tls13_tickets = 0;
    Arc::new(config)
}

#[derive(Debug)]
struct NoTickets;

impl ProducesTickets for NoTickets {
    fn enabled(&self) -> bool {
        false
    }

    fn lifetime(&self) -> u32 {
        0
    }

    fn encrypt(&self, _plain: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn decrypt(&self, _cipher: &[u8]) -> Option<Vec<u8>> {
        None
    }
}
