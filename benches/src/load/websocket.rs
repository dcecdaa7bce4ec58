//! The client's side of a WebSocket (RFC 6455), so far as MQTT needs it: binary messages, pings answered.
//!
//! The mask is 0, which the RFC can't tell from a random one, so that masking costs the harness nothing; the key is the RFC's
//! example, so that the answer is known and no SHA-1 is needed.

use std::io;
use std::net::SocketAddr;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// Longest answer to the upgrade.
const HEAD_BYTES_MAX: usize = 16 << 10;

const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0x8A;

/// One WebSocket.
pub(crate) struct WebSocket {
    is_open: bool,
    /// What goes out before anything else: the upgrade, and later pongs.
    urgent: Vec<u8>,
    /// An unfinished head or frame.
    partial: Vec<u8>,
}

impl WebSocket {
    pub(crate) fn new(path: &str, host: SocketAddr) -> Self {
        let upgrade = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
        );
        Self { is_open: false, urgent: upgrade.into_bytes(), partial: Vec::new() }
    }

    /// Moves `out` into `raw` as one message, once the upgrade is through.
    pub(crate) fn send(&mut self, out: &mut Vec<u8>, raw: &mut Vec<u8>) {
        raw.append(&mut self.urgent);
        if self.is_open && !out.is_empty() {
            header(BINARY, out.len(), raw);
            raw.append(out);
        }
    }

    /// Takes bytes, and appends payload to `to`.
    pub(crate) fn receive(&mut self, bytes: &[u8], to: &mut Vec<u8>) -> io::Result<()> {
        if self.partial.is_empty() && self.is_open {
            let consumed = self.frames(bytes, to)?;
            self.partial.extend_from_slice(&bytes[consumed..]);
            return Ok(());
        }
        let mut all = std::mem::take(&mut self.partial);
        all.extend_from_slice(bytes);
        let mut consumed = 0;
        if !self.is_open {
            match memchr::memmem::find(&all, b"\r\n\r\n") {
                None if all.len() > HEAD_BYTES_MAX => return Err(io::Error::other("the upgrade has no end")),
                None => {}
                Some(end) => {
                    check(&all[..end])?;
                    self.is_open = true;
                    consumed = end + 4;
                }
            }
        }
        if self.is_open {
            consumed += self.frames(&all[consumed..], to)?;
        }
        all.drain(..consumed);
        self.partial = all;
        Ok(())
    }

    fn frames(&mut self, bytes: &[u8], to: &mut Vec<u8>) -> io::Result<usize> {
        let mut consumed = 0;
        while let Some((opcode, payload, size)) = frame(&bytes[consumed..]) {
            consumed += size;
            match opcode {
                0..=2 => to.extend_from_slice(payload),
                PING => {
                    header(PONG, payload.len(), &mut self.urgent);
                    self.urgent.extend_from_slice(payload);
                }
                CLOSE => return Err(io::Error::other("the broker closed the WebSocket")),
                _ => {}
            }
        }
        Ok(consumed)
    }
}

fn check(head: &[u8]) -> io::Result<()> {
    let head = String::from_utf8_lossy(head);
    let first = head.lines().next().unwrap_or_default();
    if first.split(' ').nth(1) != Some("101") {
        return Err(io::Error::other(format!("the WebSocket is refused: {first}")));
    }
    let accepts = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .any(|(name, value)| name.eq_ignore_ascii_case("sec-websocket-accept") && value.trim() == ACCEPT);
    if accepts { Ok(()) } else { Err(io::Error::other("the WebSocket's key is answered wrongly")) }
}

/// Appends a frame's header with a mask of 0.
fn header(first: u8, length: usize, out: &mut Vec<u8>) {
    out.push(first);
    match length {
        0..=125 => out.push(0x80 | length as u8),
        126..=0xFFFF => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
}

/// Opcode, payload and size of the first frame, if it is all there. Servers don't mask.
fn frame(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    let (length, at): (usize, usize) = match second & 0x7F {
        126 => (usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
        127 => (usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?, 10),
        short => (usize::from(short), 2),
    };
    let end = at.checked_add(length)?;
    Some((first & 0x0F, bytes.get(at..end)?, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_by_byte_is_the_same_as_at_once() {
        let mut bytes = format!("HTTP/1.1 101 Switching\r\nsec-websocket-accept: {ACCEPT}\r\n\r\n").into_bytes();
        bytes.extend_from_slice(&[0x82, 3, 1, 2, 3, 0x89, 1, 7, 0x82, 126, 0, 200]);
        bytes.extend_from_slice(&[9; 200]);
        let address = "127.0.0.1:1".parse().expect("an address");
        for size in [1, 7, bytes.len()] {
            let mut socket = WebSocket::new("/mqtt", address);
            let (mut out, mut raw, mut payload) = (vec![5], Vec::new(), Vec::new());
            socket.send(&mut out, &mut raw);
            assert!(raw.starts_with(b"GET /mqtt "));
            assert_eq!(out, [5], "it waits for the answer");
            for part in bytes.chunks(size) {
                socket.receive(part, &mut payload).expect("valid");
            }
            assert_eq!(payload.len(), 203);
            raw.clear();
            socket.send(&mut out, &mut raw);
            assert_eq!(raw, [PONG, 0x81, 0, 0, 0, 0, 7, BINARY, 0x81, 0, 0, 0, 0, 5]);
        }
    }

    #[test]
    fn a_refusal_is_told() {
        let mut socket = WebSocket::new("/", "127.0.0.1:1".parse().expect("an address"));
        let error = socket.receive(b"HTTP/1.1 404 Not Found\r\n\r\n", &mut Vec::new()).expect_err("refused");
        assert!(error.to_string().contains("404"), "{error}");
        let mut socket = WebSocket::new("/", "127.0.0.1:1".parse().expect("an address"));
        assert!(socket.receive(b"HTTP/1.1 101 OK\r\n\r\n", &mut Vec::new()).is_err(), "no answer to the key");
    }
}
