//! TLS over bytes: records in, plaintext out, and the other way round. rustls keeps no buffers of ours between calls.
//!
//! **Invariant:** every call gives rustls the bytes that the last one left, even a call that only encrypts: rustls remembers how far
//! into them it has read (a handshake message may span records), and would index past the end of a shorter slice.

use std::fmt;
use std::sync::Arc;

use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus};

use crate::tls::{Acceptor, Live};

/// Room that a record adds to its plaintext, at most: header, explicit nonce, tag, content type.
const RECORD_OVERHEAD_BYTES: usize = 64;
/// Plaintext in one record.
const RECORD_PLAIN_BYTES: usize = 16 << 10;
/// Enough for most handshake flights, so that one try suffices.
const FLIGHT_BYTES: usize = 4 << 10;

/// A connection's TLS.
pub(crate) struct TlsStream {
    conn: UnbufferedServerConnection,
    acceptor: Arc<Acceptor>,
    /// Until the handshake is done.
    live: Option<Arc<Live>>,
    /// The edition by which the client's certificate was judged last.
    edition: u64,
}

impl fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream").field("established", &self.is_established()).finish_non_exhaustive()
    }
}

/// What decoding came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Decoded {
    /// Bytes to be taken off the front of the input; what is left must be given again, with more behind it.
    pub(crate) consumed: usize,
    /// The peer has closed its side.
    pub(crate) closed: bool,
}

impl TlsStream {
    pub(crate) fn new(acceptor: Arc<Acceptor>) -> Result<Self, rustls::Error> {
        let live = acceptor.live();
        let conn = UnbufferedServerConnection::new(live.config())?;
        Ok(Self { conn, acceptor, edition: live.edition(), live: Some(live) })
    }

    /// Takes records from the front of `raw`. Appends plaintext to `plain` and what must go to the peer to `wire`, an alert included if
    /// the outcome is an error.
    pub(crate) fn decode(
        &mut self,
        raw: &mut [u8],
        plain: &mut Vec<u8>,
        wire: &mut Vec<u8>,
    ) -> Result<Decoded, rustls::Error> {
        let mut decoded = Decoded::default();
        loop {
            let rest = raw.get_mut(decoded.consumed..).unwrap_or_default();
            let UnbufferedStatus { mut discard, state } = self.conn.process_tls_records(rest);
            let mut blocked = false;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        plain.extend_from_slice(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, wire)?,
                // It is in `wire`, whose owner sends it.
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::BlockedHandshake) => blocked = true,
                Ok(ConnectionState::WriteTraffic(_)) => {
                    blocked = true;
                    if let Some(live) = self.live.take() {
                        live.judge(&self.conn)?;
                        // What is judged by may have changed while the handshake was under way.
                        self.judge_again()?;
                    }
                }
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                    decoded.closed = true;
                    blocked = true;
                }
                // Never offered.
                Ok(ConnectionState::ReadEarlyData(_)) | Ok(_) => {
                    return Err(rustls::Error::General("unexpected state".to_owned()));
                }
                Err(error) => {
                    self.alert(raw.get_mut(decoded.consumed + discard..).unwrap_or_default(), wire);
                    return Err(error);
                }
            }
            decoded.consumed += discard;
            if blocked {
                return Ok(decoded);
            }
        }
    }

    /// Holds the certificate that the client has shown, if it has, against what is judged by now. Says whether there was anything to
    /// judge: not if nothing has changed, and not before the handshake is done, whose end asks again.
    pub(crate) fn judge_again(&mut self) -> Result<bool, rustls::Error> {
        let Some(shown) = self.conn.peer_certificates().filter(|_| self.live.is_none()) else { return Ok(false) };
        let live = self.acceptor.live();
        if live.edition() == self.edition {
            return Ok(false);
        }
        live.judge_shown(shown)?;
        self.edition = live.edition();
        Ok(true)
    }

    /// Whether plaintext may be sent.
    pub(crate) fn is_established(&self) -> bool {
        self.live.is_none()
    }

    /// Encrypts `plain` onto the end of `wire`. `raw` is what [`Self::decode`] has left: rustls knows its position in there.
    pub(crate) fn encrypt(&mut self, raw: &mut [u8], plain: &[u8], wire: &mut Vec<u8>) -> Result<(), rustls::Error> {
        let start = wire.len();
        let mut room = plain.len() + (plain.len() / RECORD_PLAIN_BYTES + 1) * RECORD_OVERHEAD_BYTES;
        loop {
            match self.conn.process_tls_records(raw).state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    let start = wire.len();
                    wire.resize(start + room, 0);
                    match traffic.encrypt(plain, wire.get_mut(start..).unwrap_or_default()) {
                        Ok(written) => {
                            wire.truncate(start + written);
                            return Ok(());
                        }
                        Err(EncryptError::InsufficientSize(needed)) => {
                            wire.truncate(start);
                            room = needed.required_size;
                        }
                        Err(EncryptError::EncryptExhausted) => return Err(rustls::Error::EncryptError),
                    }
                }
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, wire)?,
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(_) => {
                    wire.truncate(start);
                    return Err(rustls::Error::HandshakeNotComplete);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Appends close_notify.
    pub(crate) fn close(&mut self, raw: &mut [u8], wire: &mut Vec<u8>) {
        if let Ok(ConnectionState::WriteTraffic(mut traffic)) = self.conn.process_tls_records(raw).state {
            let start = wire.len();
            wire.resize(start + RECORD_OVERHEAD_BYTES, 0);
            let written = traffic.queue_close_notify(wire.get_mut(start..).unwrap_or_default()).unwrap_or(0);
            wire.truncate(start + written);
        }
    }

    /// DER of the client's certificate. It has been verified as the listener's `ClientTrust` says: at the least, its private key is the client's.
    pub(crate) fn certificate(&self) -> Option<Box<[u8]>> {
        Some(self.conn.peer_certificates()?.first()?.as_ref().into())
    }

    /// After an error: what was queued before it, and the alert that tells the peer. No more than that: rustls would look at `raw` again.
    fn alert(&mut self, raw: &mut [u8], wire: &mut Vec<u8>) {
        while self.conn.wants_write()
            && let Ok(ConnectionState::EncodeTlsData(data)) = self.conn.process_tls_records(raw).state
            && encode(data, wire).is_ok()
        {}
    }
}

fn encode(
    mut data: EncodeTlsData<'_, rustls::server::ServerConnectionData>,
    wire: &mut Vec<u8>,
) -> Result<(), rustls::Error> {
    let start = wire.len();
    let mut room = FLIGHT_BYTES;
    loop {
        wire.resize(start + room, 0);
        match data.encode(wire.get_mut(start..).unwrap_or_default()) {
            Ok(written) => {
                wire.truncate(start + written);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(needed)) => room = needed.required_size,
            Err(EncodeError::AlreadyEncoded) => {
                wire.truncate(start);
                return Err(rustls::Error::General("encoded twice".to_owned()));
            }
        }
    }
}
