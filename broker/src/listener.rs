//! Where clients come in: what a listener is, and its sockets, one for each shard.

mod defer;

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::tls::TlsSettings;

/// Connections that the kernel keeps for us while we are busy; `net.core.somaxconn` caps it.
const BACKLOG: i32 = 4096;

/// One address at which clients come in. The layers stand in this order on the wire: PROXY header, TLS, WebSocket, MQTT.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListenerSettings {
    /// Unique name, for logs, metrics and reload.
    pub name: String,
    /// Where to bind; port 0 takes a free one.
    pub address: SocketAddr,
    /// TLS, if the listener speaks it.
    pub tls: Option<TlsSettings>,
    /// WebSocket, if the listener speaks it.
    pub websocket: Option<WebSocketSettings>,
    /// Every connection begins with a PROXY header, version 1 or 2. Only for listeners that nobody but the proxy can reach: the
    /// header says who the client is.
    pub proxy_protocol: bool,
}

impl ListenerSettings {
    /// Whether anything comes before MQTT's first byte.
    #[must_use]
    pub fn has_handshake(&self) -> bool {
        self.tls.is_some() || self.websocket.is_some() || self.proxy_protocol
    }
}

/// What a WebSocket listener answers to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WebSocketSettings {
    /// Request paths, without a query; any other gets 404.
    pub paths: Vec<String>,
}

impl Default for WebSocketSettings {
    fn default() -> Self {
        Self { paths: vec!["/mqtt".to_owned()] }
    }
}

/// An address that could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("listener `{name}`: can't listen on {address}: {source}")]
pub struct BindError {
    /// The listener's name.
    pub name: String,
    /// The address.
    pub address: SocketAddr,
    /// The operating system's answer.
    pub source: io::Error,
}

/// Binds one socket for each shard to the listener's address, and says which address it is.
///
/// The kernel spreads connections over the sockets (SO_REUSEPORT). An address that another process listens on is an error, even
/// if that process allows sharing it.
///
/// # Errors
/// The address is taken, isn't ours, or needs a privilege.
pub fn bind(settings: &ListenerSettings, shards: u16) -> Result<(SocketAddr, Vec<TcpListener>), BindError> {
    let fail = |source| BindError { name: settings.name.clone(), address: settings.address, source };
    if settings.address.port() != 0 {
        probe(settings.address).map_err(fail)?;
    }
    let first = socket(settings.address).map_err(fail)?;
    let address = first.local_addr().map_err(fail)?;
    let mut sockets = vec![first];
    for _ in 1..shards {
        sockets.push(socket(address).map_err(fail)?);
    }
    Ok((address, sockets))
}

/// Fails if somebody listens on the address: with SO_REUSEPORT two brokers of one user would silently share it.
fn probe(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    only_v6(&socket, address)?;
    socket.bind(&address.into())
}

fn socket(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    only_v6(&socket, address)?;
    // Accepted sockets inherit it, which saves a system call for each of them.
    socket.set_tcp_nodelay(true)?;
    defer::defer_accept(&socket)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// `[::]` takes IPv4 too, as operators expect; any other IPv6 address is itself.
fn only_v6(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    match address {
        SocketAddr::V6(v6) => socket.set_only_v6(!v6.ip().is_unspecified()),
        SocketAddr::V4(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(address: SocketAddr) -> ListenerSettings {
        ListenerSettings { name: "mqtt".to_owned(), address, tls: None, websocket: None, proxy_protocol: false }
    }

    #[test]
    fn all_shards_share_the_port_that_the_first_was_given() {
        let (address, sockets) = bind(&settings(([127, 0, 0, 1], 0).into()), 3).expect("loopback");
        assert_ne!(address.port(), 0);
        assert!(sockets.iter().all(|socket| socket.local_addr().expect("bound") == address));
    }

    #[test]
    fn a_port_in_use_is_an_error_although_ports_are_shared() {
        let (address, _sockets) = bind(&settings(([127, 0, 0, 1], 0).into()), 2).expect("loopback");
        let error = bind(&settings(address), 2).expect_err("in use");
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
    }
}
