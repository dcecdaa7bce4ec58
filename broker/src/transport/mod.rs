//! What stands between a socket and MQTT: PROXY header, TLS, WebSocket. Bytes in, bytes out; no socket here.
//!
//! ```text
//! socket ─▶ PROXY header ─▶ TLS ─▶ WebSocket ─▶ MQTT        (each only where the listener has it)
//!             once           ▲         │
//!                            └─ alerts, pongs, responses ─▶ socket
//! ```

mod proxy;
mod tls;
mod websocket;

use std::net::SocketAddr;
use std::sync::Arc;

use crate::tls::Acceptor;
use tls::TlsStream;
use websocket::{Upgrade, Violation};

/// Unread raw bytes that a layer may leave: a TLS handshake message of 64 KiB in its records.
pub(crate) const RAW_BYTES_MAX: usize = 96 << 10;

/// Bounds of the shell, beside those of the core.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TransportLimits {
    /// PROXY, TLS and WebSocket handshakes under way on one shard. While there are so many, new connections to listeners that need one
    /// wait in the kernel's queue, which has its own bound: whoever got in isn't pushed out, and what is shed is new.
    pub handshakes_max: u32,
    /// From accept to the end of the handshake, milliseconds.
    pub handshake_timeout_ms: u32,
    /// How long a connection that is ending may take to accept its last bytes, milliseconds.
    pub linger_ms: u32,
    /// Bytes submitted to the store and not committed above which shards stop reading sockets.
    pub commit_bytes_high: u64,
}

impl Default for TransportLimits {
    fn default() -> Self {
        Self { handshakes_max: 2048, handshake_timeout_ms: 10_000, linger_ms: 5_000, commit_bytes_high: 256 << 20 }
    }
}

/// Why a connection was cut before or below MQTT.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("PROXY protocol: {0}")]
    Proxy(#[from] proxy::ProxyError),
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("WebSocket: {0}")]
    WebSocket(#[from] Violation),
    #[error("WebSocket handshake refused")]
    Upgrade,
    #[error("a handshake message too large")]
    TooLarge,
}

/// Which layers a connection of a listener begins with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stack {
    pub(crate) proxy: bool,
    pub(crate) tls: Option<Arc<Acceptor>>,
    pub(crate) websocket: Option<Arc<[String]>>,
}

/// The layers of one connection.
#[derive(Debug)]
pub(crate) struct Layers {
    /// Still to come; for WebSocket the paths that it answers to.
    awaits: Awaits,
    tls: Option<TlsStream>,
    websocket: Option<websocket::Decoder>,
    proxied: Option<SocketAddr>,
    /// From the socket, not yet understood: an unfinished header, record or request.
    pub(crate) raw: Vec<u8>,
    /// For the socket.
    pub(crate) wire: Vec<u8>,
    /// Decrypted part of an unfinished WebSocket request.
    request: Vec<u8>,
}

#[derive(Debug, Default)]
struct Awaits {
    proxy: bool,
    upgrade: Option<Arc<[String]>>,
}

/// Buffers of the shard that layers use while they work; empty in between.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// MQTT bytes that came in.
    pub(crate) mqtt: Vec<u8>,
    /// Between TLS and WebSocket.
    middle: Vec<u8>,
    /// Sealed bytes for the socket.
    pub(crate) wire: Vec<u8>,
}

impl Layers {
    pub(crate) fn new(stack: &Stack) -> Result<Self, Fault> {
        Ok(Self {
            awaits: Awaits { proxy: stack.proxy, upgrade: stack.websocket.clone() },
            tls: stack.tls.clone().map(TlsStream::new).transpose()?,
            websocket: None,
            proxied: None,
            raw: Vec::new(),
            wire: Vec::new(),
            request: Vec::new(),
        })
    }

    /// Whether MQTT may begin.
    pub(crate) fn is_established(&self) -> bool {
        !self.awaits.proxy && self.awaits.upgrade.is_none() && self.tls.as_ref().is_none_or(TlsStream::is_established)
    }

    /// Whether nothing is left to do: the header of the proxy was all.
    pub(crate) fn is_spent(&self) -> bool {
        !self.awaits.proxy
            && self.awaits.upgrade.is_none()
            && self.tls.is_none()
            && self.websocket.is_none()
            && self.wire.is_empty()
    }

    /// The client's address as the proxy gave it.
    pub(crate) fn proxied(&self) -> Option<SocketAddr> {
        self.proxied
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// DER of the client's certificate, verified as the listener's `ClientTrust` says.
    pub(crate) fn certificate(&self) -> Option<Box<[u8]>> {
        self.tls.as_ref()?.certificate()
    }

    /// Judges the client's certificate again, if what is judged by has changed since. Says whether it has.
    pub(crate) fn judge_again(&mut self) -> Result<bool, rustls::Error> {
        self.tls.as_mut().map_or(Ok(false), TlsStream::judge_again)
    }

    /// Takes bytes from the socket, with `self.raw`, what it left the last time, in front. Appends MQTT bytes to `scratch.mqtt`, and to
    /// `self.wire` whatever a handshake or a fault has to say. Says whether the peer has closed in good order.
    pub(crate) fn decode(&mut self, input: &mut [u8], scratch: &mut Scratch) -> Result<bool, Fault> {
        let mut input = input;
        if self.awaits.proxy {
            let Some(header) = proxy::decode(input)? else {
                self.keep(input);
                return Ok(false);
            };
            self.awaits.proxy = false;
            self.proxied = header.source;
            input = input.get_mut(header.len..).unwrap_or_default();
        }
        let Some(tls) = &mut self.tls else {
            self.keep(&[]);
            return self.above_tls(input, scratch);
        };
        let mut plain = std::mem::take(&mut scratch.middle);
        let outcome = tls.decode(input, &mut plain, &mut self.wire);
        let closed = outcome.map_err(Fault::from).and_then(|decoded| {
            let rest = input.get(decoded.consumed..).unwrap_or_default();
            // Before anything is encrypted: rustls needs what is left then.
            self.keep(rest);
            let closed = self.above_tls(&plain, scratch)?;
            if rest.len() > RAW_BYTES_MAX { Err(Fault::TooLarge) } else { Ok(closed || decoded.closed) }
        });
        plain.clear();
        scratch.middle = plain;
        closed
    }

    fn keep(&mut self, rest: &[u8]) {
        if rest.is_empty() {
            self.raw = Vec::new();
        } else {
            self.raw.clear();
            self.raw.extend_from_slice(rest);
        }
    }

    /// Takes all of `plain`. Says whether the peer has closed.
    fn above_tls(&mut self, plain: &[u8], scratch: &mut Scratch) -> Result<bool, Fault> {
        let Some(paths) = &self.awaits.upgrade else { return self.frames(plain, scratch) };
        if plain.is_empty() {
            return Ok(false);
        }
        self.request.extend_from_slice(plain);
        match websocket::upgrade(&self.request, paths) {
            Upgrade::Incomplete => Ok(false),
            Upgrade::Refused { response } => {
                self.seal(&response)?;
                Err(Fault::Upgrade)
            }
            Upgrade::Accepted { len, response } => {
                self.awaits.upgrade = None;
                self.websocket = Some(websocket::Decoder::default());
                self.seal(&response)?;
                let request = std::mem::take(&mut self.request);
                self.frames(request.get(len..).unwrap_or_default(), scratch)
            }
        }
    }

    fn frames(&mut self, plain: &[u8], scratch: &mut Scratch) -> Result<bool, Fault> {
        let Some(decoder) = &mut self.websocket else {
            scratch.mqtt.extend_from_slice(plain);
            return Ok(false);
        };
        let mut reply = Vec::new();
        let outcome = decoder.decode(plain, &mut scratch.mqtt, &mut reply);
        let closed = decoder.is_closed();
        if let Err(violation) = outcome {
            websocket::close(violation as u16, &mut reply);
        }
        if !reply.is_empty() {
            self.seal(&reply)?;
        }
        outcome?;
        Ok(closed)
    }

    /// Appends bytes to `wire`, through TLS if there is any.
    fn seal(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        match &mut self.tls {
            Some(tls) => tls.encrypt(&mut self.raw, bytes, &mut self.wire)?,
            None => self.wire.extend_from_slice(bytes),
        }
        Ok(())
    }

    /// Wraps MQTT bytes for the socket, onto the end of `scratch.wire`. `self.wire` must be empty, or the order is lost.
    pub(crate) fn encode(&mut self, mqtt: &[u8], scratch: &mut Scratch) -> Result<(), Fault> {
        debug_assert!(self.wire.is_empty());
        match (&mut self.tls, &self.websocket) {
            (None, None) => scratch.wire.extend_from_slice(mqtt),
            (None, Some(_)) => websocket::binary(mqtt, &mut scratch.wire),
            (Some(tls), None) => tls.encrypt(&mut self.raw, mqtt, &mut scratch.wire)?,
            (Some(tls), Some(_)) => {
                scratch.middle.clear();
                websocket::binary(mqtt, &mut scratch.middle);
                tls.encrypt(&mut self.raw, &scratch.middle, &mut scratch.wire)?;
                scratch.middle.clear();
            }
        }
        Ok(())
    }

    /// Appends what each layer says at the end to `wire`.
    pub(crate) fn farewell(&mut self) {
        if self.websocket.as_ref().is_some_and(|decoder| !decoder.is_closed()) {
            let mut frame = Vec::new();
            websocket::close(websocket::NORMAL, &mut frame);
            // It would only have told a peer that can't be told.
            let _ = self.seal(&frame);
        }
        if let Some(tls) = &mut self.tls {
            tls.close(&mut self.raw, &mut self.wire);
        }
    }
}

#[cfg(test)]
mod tests;
