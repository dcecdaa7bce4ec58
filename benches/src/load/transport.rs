//! A connection's bytes: TCP, and TLS and WebSocket above it.

use std::io::{self, Read, Write};
use std::sync::Arc;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::websocket::WebSocket;
use crate::spec::Spec;

/// Bytes read at once.
const READ_BYTES: usize = 256 << 10;

/// Buffers that all connections of a worker share.
pub(crate) struct Scratch {
    raw: Vec<u8>,
    plain: Vec<u8>,
    payload: Vec<u8>,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self { raw: vec![0; READ_BYTES], plain: Vec::new(), payload: Vec::new() }
    }
}

/// What a read brought.
pub(crate) struct Input<'a> {
    /// MQTT.
    pub(crate) bytes: &'a [u8],
    /// Whether there may be more in the socket.
    pub(crate) more: bool,
    /// Whether the peer has closed.
    pub(crate) closed: bool,
}

/// What connections are made with.
pub(crate) struct Connector {
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    websocket: Option<String>,
}

impl Connector {
    pub(crate) fn new(spec: &Spec) -> io::Result<Self> {
        let tls = spec.tls.as_ref().map(|tls| super::tls::config(tls, spec.address.ip())).transpose()?;
        Ok(Self { tls, websocket: spec.websocket.clone() })
    }

    /// Begins to connect.
    pub(crate) fn connect(
        &self,
        spec: &Spec,
        number: usize,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Transport> {
        let domain = if spec.address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if let Some(source) = spec.sources.get(number % spec.sources.len().max(1)) {
            // Ports are told apart by their source address, so binding to one early costs none of another's.
            socket.bind(&SockAddr::from(std::net::SocketAddr::new(*source, 0)))?;
        }
        match socket.connect(&SockAddr::from(spec.address)) {
            Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
                return Err(error);
            }
            _ => {}
        }
        let mut stream = TcpStream::from_std(socket.into());
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        let layers = if self.tls.is_some() || self.websocket.is_some() {
            let tls = match &self.tls {
                Some((config, name)) => {
                    let mut tls = ClientConnection::new(Arc::clone(config), name.clone()).map_err(io::Error::other)?;
                    tls.set_buffer_limit(None);
                    Some(tls)
                }
                None => None,
            };
            let websocket = self.websocket.as_deref().map(|path| WebSocket::new(path, spec.address));
            Some(Box::new(Layers { tls, websocket, raw: Vec::new() }))
        } else {
            None
        };
        Ok(Transport { stream, layers })
    }
}

/// A connection.
pub(crate) struct Transport {
    stream: TcpStream,
    layers: Option<Box<Layers>>,
}

struct Layers {
    tls: Option<ClientConnection>,
    websocket: Option<WebSocket>,
    /// Without TLS: bytes of the WebSocket that the socket hasn't taken.
    raw: Vec<u8>,
}

impl Transport {
    /// Reads once.
    #[inline]
    pub(crate) fn read<'s>(&mut self, scratch: &'s mut Scratch) -> io::Result<Input<'s>> {
        let n = match self.stream.read(&mut scratch.raw) {
            Ok(n) => n,
            Err(error) if is_not_yet(&error) => return Ok(Input { bytes: &[], more: false, closed: false }),
            Err(error) => return Err(error),
        };
        let (more, closed) = (n == scratch.raw.len(), n == 0);
        match &mut self.layers {
            None => Ok(Input { bytes: &scratch.raw[..n], more, closed }),
            Some(layers) => {
                let bytes = layers.open(n, scratch)?;
                Ok(Input { bytes, more, closed })
            }
        }
    }

    /// Writes so much of `out` as the socket takes, or as the layers above it keep.
    #[inline]
    pub(crate) fn write(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        match &mut self.layers {
            None => write_some(&mut self.stream, out),
            Some(layers) => layers.write(&mut self.stream, out),
        }
    }

    /// Ends the connection, and the events with it.
    pub(crate) fn close(mut self, registry: &Registry) {
        let _ = registry.deregister(&mut self.stream);
    }

    /// No more events: the peer is left to itself with a full socket.
    pub(crate) fn forget(&mut self, registry: &Registry) {
        let _ = registry.deregister(&mut self.stream);
    }
}

impl Layers {
    /// From `n` bytes of the socket to MQTT.
    fn open<'s>(&mut self, n: usize, scratch: &'s mut Scratch) -> io::Result<&'s [u8]> {
        let mut raw = &scratch.raw[..n];
        let bytes = match &mut self.tls {
            None => raw,
            Some(tls) => {
                scratch.plain.clear();
                while !raw.is_empty() {
                    tls.read_tls(&mut raw)?;
                    let state = tls.process_new_packets().map_err(io::Error::other)?;
                    let at = scratch.plain.len();
                    scratch.plain.resize(at + state.plaintext_bytes_to_read(), 0);
                    tls.reader().read_exact(&mut scratch.plain[at..])?;
                }
                &scratch.plain
            }
        };
        match &mut self.websocket {
            None => Ok(bytes),
            Some(websocket) => {
                scratch.payload.clear();
                websocket.receive(bytes, &mut scratch.payload)?;
                Ok(&scratch.payload)
            }
        }
    }

    fn write(&mut self, stream: &mut TcpStream, out: &mut Vec<u8>) -> io::Result<()> {
        if let Some(websocket) = &mut self.websocket {
            websocket.send(out, &mut self.raw);
        } else {
            self.raw.append(out);
        }
        let Some(tls) = &mut self.tls else { return write_some(stream, &mut self.raw) };
        if !self.raw.is_empty() {
            tls.writer().write_all(&self.raw)?;
            self.raw.clear();
        }
        while tls.wants_write() {
            match tls.write_tls(stream) {
                Ok(_) => {}
                Err(error) if is_not_yet(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn write_some(stream: &mut TcpStream, out: &mut Vec<u8>) -> io::Result<()> {
    if out.is_empty() {
        return Ok(());
    }
    match stream.write(out) {
        Ok(n) if n == out.len() => out.clear(),
        Ok(n) => drop(out.drain(..n)),
        Err(error) if is_not_yet(&error) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Not readable, not writable, or not connected yet.
fn is_not_yet(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected | io::ErrorKind::Interrupted)
}
