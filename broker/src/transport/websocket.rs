//! WebSocket, the server's side (RFC 6455), with MQTT inside: bytes in, bytes out.
//!
//! Frames are taken apart as they come; none is buffered whole, so a frame's length needs no bound of ours: the bound is that of an
//! MQTT packet. MQTT packets may span frames, and a frame may hold several [MQTT-6.0.0-2].

mod upgrade;

pub(crate) use upgrade::{Upgrade, upgrade};

/// Payload of a control frame (RFC 6455, 5.5).
const CONTROL_BYTES_MAX: u64 = 125;

/// Why we close, as sent in the close frame (RFC 6455, 7.4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Violation {
    #[error("a frame that breaks RFC 6455")]
    Protocol = 1002,
    /// [MQTT-6.0.0-1] MQTT goes in binary frames.
    #[error("a text frame")]
    Text = 1003,
}

/// The code of a close without a fault.
pub(crate) const NORMAL: u16 = 1000;

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;
const FIN: u8 = 0x80;

/// Takes the frames of a client apart.
///
/// ```text
///   Header ──whole──▶ Payload ──remaining 0──▶ Header
///                        └─ close frame ──▶ Closed
/// ```
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    state: State,
    /// A data message has begun and its last frame hasn't come.
    fragmented: bool,
    /// Header bytes so far: at most 2, 8 of extended length, 4 of mask.
    header: [u8; 14],
    header_len: u8,
    /// Payload so far of a control frame.
    control: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Header,
    Payload {
        opcode: u8,
        remaining: u64,
        mask: [u8; 4],
    },
    Closed,
}

impl Decoder {
    /// Takes all of `input`. Appends the payload of data frames to `data`, and frames that answer control frames to `reply`.
    pub(crate) fn decode(
        &mut self,
        mut input: &[u8],
        data: &mut Vec<u8>,
        reply: &mut Vec<u8>,
    ) -> Result<(), Violation> {
        loop {
            match self.state {
                State::Closed => return Ok(()),
                State::Header => {
                    let Some((&byte, rest)) = input.split_first() else { return Ok(()) };
                    input = rest;
                    self.header_byte(byte)?;
                }
                State::Payload { opcode, remaining, mask } => {
                    let n = usize::try_from(remaining).unwrap_or(usize::MAX).min(input.len());
                    let (now, later) = input.split_at(n);
                    input = later;
                    let into = if opcode & 0x8 == 0 { &mut *data } else { &mut self.control };
                    unmask(now, mask, into);
                    let remaining = remaining - n as u64;
                    if remaining > 0 {
                        let mut mask = mask;
                        mask.rotate_left(n % 4);
                        self.state = State::Payload { opcode, remaining, mask };
                        return Ok(());
                    }
                    self.state = State::Header;
                    if opcode & 0x8 != 0 {
                        self.control_frame(opcode, reply)?;
                    }
                }
            }
        }
    }

    /// The client has closed; nothing more comes from it.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    fn header_byte(&mut self, byte: u8) -> Result<(), Violation> {
        let at = usize::from(self.header_len);
        self.header[at] = byte;
        self.header_len += 1;
        let have = usize::from(self.header_len);
        if have < 2 {
            return Ok(());
        }
        let [first, second, ..] = self.header;
        let extended = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if have == 2 {
            self.check(first, second)?;
        }
        if have < 2 + extended + 4 {
            return Ok(());
        }
        let short = u64::from(second & 0x7f);
        let length = self.header[2..2 + extended].iter().fold(0, |length, byte| length << 8 | u64::from(*byte));
        let length = if extended == 0 { short } else { length };
        // The most significant bit must be 0 (5.2).
        if length >> 63 != 0 {
            return Err(Violation::Protocol);
        }
        let mut mask = [0; 4];
        mask.copy_from_slice(&self.header[2 + extended..2 + extended + 4]);
        self.header_len = 0;
        self.state = State::Payload { opcode: first & 0xf, remaining: length, mask };
        Ok(())
    }

    /// What the first two bytes of a header must satisfy.
    fn check(&mut self, first: u8, second: u8) -> Result<(), Violation> {
        let (fin, reserved, opcode) = (first & FIN != 0, first & 0x70, first & 0xf);
        let masked = second & 0x80 != 0;
        if reserved != 0 || !masked {
            return Err(Violation::Protocol);
        }
        match opcode {
            CONTINUATION if self.fragmented => self.fragmented = !fin,
            BINARY if !self.fragmented => self.fragmented = !fin,
            TEXT if !self.fragmented => return Err(Violation::Text),
            CLOSE | PING | PONG if fin && u64::from(second & 0x7f) <= CONTROL_BYTES_MAX => {}
            _ => return Err(Violation::Protocol),
        }
        Ok(())
    }

    fn control_frame(&mut self, opcode: u8, reply: &mut Vec<u8>) -> Result<(), Violation> {
        let payload = std::mem::take(&mut self.control);
        match opcode {
            PING => frame(FIN | PONG, &payload, reply),
            CLOSE => {
                let code = close_code(&payload)?;
                self.state = State::Closed;
                close(code, reply);
            }
            _ => {}
        }
        Ok(())
    }
}

/// The code that a close frame names, if it is one that may be sent (7.4).
fn close_code(payload: &[u8]) -> Result<u16, Violation> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() { Ok(NORMAL) } else { Err(Violation::Protocol) };
    };
    let code = u16::from_be_bytes(*code);
    let allowed = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
    if allowed && std::str::from_utf8(reason).is_ok() { Ok(code) } else { Err(Violation::Protocol) }
}

/// Appends a close frame.
pub(crate) fn close(code: u16, out: &mut Vec<u8>) {
    frame(FIN | CLOSE, &code.to_be_bytes(), out);
}

/// Appends a binary frame with `payload`.
pub(crate) fn binary(payload: &[u8], out: &mut Vec<u8>) {
    frame(FIN | BINARY, payload, out);
}

fn frame(first: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(first);
    let length = payload.len();
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..=125), _) => out.push(short),
        (_, Ok(medium)) => {
            out.push(126);
            out.extend(medium.to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

/// Appends `masked` with its mask taken off, eight bytes at a time.
fn unmask(masked: &[u8], mask: [u8; 4], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(masked);
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut chunks = out[start..].chunks_exact_mut(8);
    for chunk in &mut chunks {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        chunk.copy_from_slice(&(u64::from_ne_bytes(word) ^ wide).to_ne_bytes());
    }
    for (byte, mask) in chunks.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests;
