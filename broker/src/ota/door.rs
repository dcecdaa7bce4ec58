//! The address at which devices download: plain HTTP, or TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::spelled::Spelled;
use super::{OtaDesk, download};
use crate::http::{Shares, converse};
use crate::tls::Acceptor;

/// How long a handshake may take.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// Connections at once for each download: those that wait for an answer that they are too many.
const CONNECTIONS_A_DOWNLOAD: usize = 2;
/// After a failed accept, such as for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves on a thread of its own until the process ends. Gives the address.
pub(super) fn serve(desk: &Arc<OtaDesk>, address: SocketAddr) -> anyhow::Result<SocketAddr> {
    let tls = desk.settings.tls.as_ref().map(|settings| Acceptor::load(settings, true).map(Arc::new)).transpose();
    let tls = tls.map_err(|faults| {
        let said: Vec<_> = faults.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("listener `ota`: {}", said.join("; "))
    })?;
    if let Some(acceptor) = &tls {
        let _ = desk.tls.set(Arc::clone(acceptor));
    }
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let router = Router::new()
        .route("/ota/v1/{firmware}", get(download::serve).head(download::serve))
        .with_state(download::Downloads::new(Arc::clone(desk)));
    let connections_max = desk.settings.downloads_max * CONNECTIONS_A_DOWNLOAD;
    std::thread::Builder::new().name("ota-http".to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let served = runtime.and_then(|runtime| {
            runtime.block_on(async {
                accept(TcpListener::from_std(listener)?, tls.as_deref(), router, connections_max).await;
                Ok(())
            })
        });
        if let Err(error) = served {
            tracing::error!(%error, "downloads of firmware aren't served any more");
        }
    })?;
    Ok(address)
}

async fn accept(listener: TcpListener, tls: Option<&Acceptor>, router: Router, connections_max: usize) {
    let room = Arc::new(Semaphore::new(connections_max));
    let shares = <Shares>::default();
    while let Ok(permit) = Arc::clone(&room).acquire_owned().await {
        let (socket, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection for a download can't be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        // One address may have half of them, so that it can't keep out all others.
        let Some(share) = shares.take(peer.ip(), connections_max / 2) else {
            tracing::debug!("a connection too many for a download was closed");
            continue;
        };
        let (tls, router) = (tls.map(|acceptor| TlsAcceptor::from(acceptor.live().config())), router.clone());
        tokio::spawn(async move {
            serve_one(socket, peer, tls, router).await;
            drop((permit, share));
        });
    }
}

async fn serve_one(socket: TcpStream, peer: SocketAddr, tls: Option<TlsAcceptor>, router: Router) {
    let _ = socket.set_nodelay(true);
    // How it ends is the device's affair.
    let Some(tls) = tls else { return drop(converse(Spelled::new(socket), peer, router).await) };
    match tokio::time::timeout(HANDSHAKE_TIME_MAX, tls.accept(socket)).await {
        Ok(Ok(stream)) => drop(converse(stream, peer, router).await),
        Ok(Err(_)) | Err(_) => tracing::debug!("a handshake for a download has failed"),
    }
}
