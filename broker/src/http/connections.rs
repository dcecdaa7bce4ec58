//! HTTP connections: how many at once, and how long each may say nothing.

use std::collections::HashMap;
use std::hash::Hash;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep};
use tower_service::Service;

/// What connections are held to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Connections at once; those beyond are closed. One address may have half of them, so that it can't keep out all others.
    pub(super) connections_max: usize,
    /// How long a request's head may take to come, the first's as that of any later one.
    pub(super) head_time_max: Duration,
    /// How long nothing may come or go while a request is under way: longer than any answer takes to be made.
    pub(super) quiet_time_max: Duration,
}

impl Bounds {
    pub(super) const DEFAULT: Self =
        Self { connections_max: 1024, head_time_max: Duration::from_secs(10), quiet_time_max: Duration::from_secs(60) };
}

/// After a failed accept, such as for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until the runtime ends.
pub(super) async fn serve(listener: TcpListener, router: Router, bounds: Bounds) {
    let room = Arc::new(Semaphore::new(bounds.connections_max));
    let shares = <Shares>::default();
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "an HTTP connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let held = Arc::clone(&room).try_acquire_owned().ok().zip(shares.take(peer.ip(), bounds.connections_max / 2));
        let Some(held) = held else {
            tracing::debug!("an HTTP connection too many was closed");
            continue;
        };
        let router = router.clone();
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            // How it ends is the peer's affair.
            let _ = converse(stream, peer, router, bounds).await;
            drop(held);
        });
    }
}

/// How many of something, such as connections, each has: an address, or a device.
#[derive(Clone)]
pub(crate) struct Shares<K: Eq + Hash = IpAddr>(Arc<Mutex<HashMap<K, usize>>>);

/// One part of somebody's share, until it is dropped.
pub(crate) struct Share<K: Eq + Hash = IpAddr> {
    of: Shares<K>,
    whose: K,
}

impl<K: Eq + Hash> Default for Shares<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Eq + Hash + Clone> Shares<K> {
    /// One more, of so many at most, but of at least one.
    pub(crate) fn take(&self, whose: K, most: usize) -> Option<Share<K>> {
        let mut counts = self.0.lock();
        let count = counts.entry(whose.clone()).or_insert(0);
        // Whoever has none yet gets one.
        if *count >= most.max(1) {
            return None;
        }
        *count += 1;
        Some(Share { of: self.clone(), whose })
    }
}

impl<K: Eq + Hash> Drop for Share<K> {
    fn drop(&mut self) {
        let mut counts = self.of.0.lock();
        if let Some(count) = counts.get_mut(&self.whose) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.whose);
            }
        }
    }
}

/// Serves one connection, of TLS or without.
pub(super) async fn converse<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    peer: SocketAddr,
    router: Router,
    bounds: Bounds,
) -> Result<(), hyper::Error> {
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        router.clone().call(request)
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        // Some devices look for `Content-Length` byte by byte.
        .title_case_headers(true)
        .header_read_timeout(bounds.head_time_max)
        .serve_connection(TokioIo::new(Quiet::new(stream, bounds.quiet_time_max)), service)
        .await
}

/// A stream, of TLS or without, that fails when nothing has come or gone for a time.
pub(super) struct Quiet<S> {
    stream: S,
    time_max: Duration,
    over: Pin<Box<Sleep>>,
}

impl<S> Quiet<S> {
    pub(super) fn new(stream: S, time_max: Duration) -> Self {
        Self { stream, time_max, over: Box::pin(tokio::time::sleep(time_max)) }
    }

    fn judge<T>(&mut self, moved: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if moved.is_ready() {
            self.over.as_mut().reset(Instant::now() + self.time_max);
            return moved;
        }
        ready!(self.over.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Quiet<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let moved = Pin::new(&mut self.stream).poll_read(context, into);
        self.judge(moved, context)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Quiet<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let moved = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(moved, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let moved = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.judge(moved, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests;
