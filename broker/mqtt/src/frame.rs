//! Where one packet ends and the next begins (2.1).

use crate::error::DecodeError;

/// Types of control packets.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are the packets'")]
pub enum PacketType {
    Connect = 1,
    ConnAck = 2,
    Publish = 3,
    PubAck = 4,
    PubRec = 5,
    PubRel = 6,
    PubComp = 7,
    Subscribe = 8,
    SubAck = 9,
    Unsubscribe = 10,
    UnsubAck = 11,
    PingReq = 12,
    PingResp = 13,
    Disconnect = 14,
    Auth = 15,
}

impl PacketType {
    fn of(first: u8) -> Result<Self, DecodeError> {
        Ok(match first >> 4 {
            1 => Self::Connect,
            2 => Self::ConnAck,
            3 => Self::Publish,
            4 => Self::PubAck,
            5 => Self::PubRec,
            6 => Self::PubRel,
            7 => Self::PubComp,
            8 => Self::Subscribe,
            9 => Self::SubAck,
            10 => Self::Unsubscribe,
            11 => Self::UnsubAck,
            12 => Self::PingReq,
            13 => Self::PingResp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            _ => return Err(DecodeError::PacketType),
        })
    }

    /// [MQTT-2.1.3-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1] [MQTT-3.14.1-1] [MQTT-3.15.1-1] the flags of all but PUBLISH are fixed.
    fn flags(self) -> Option<u8> {
        match self {
            Self::Publish => None,
            Self::PubRel | Self::Subscribe | Self::Unsubscribe => Some(0b0010),
            _ => Some(0),
        }
    }
}

/// A whole packet: its first byte and what follows the remaining length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame<'a> {
    packet_type: PacketType,
    /// Type and flags.
    pub first: u8,
    /// Variable header and payload.
    pub body: &'a [u8],
    header: u8,
}

impl<'a> Frame<'a> {
    /// Bytes of the whole packet.
    #[inline]
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a frame has at least two bytes")]
    pub fn len(&self) -> usize {
        usize::from(self.header) + self.body.len()
    }

    /// The type.
    #[inline]
    #[must_use]
    pub fn packet_type(&self) -> PacketType {
        self.packet_type
    }

    /// [MQTT-1.5.5-1] whether the remaining length has as few bytes as it can. MQTT 3 doesn't ask for that, and there are devices
    /// that set aside a fixed number of bytes.
    #[inline]
    pub(crate) fn is_shortest(&self) -> bool {
        self.header == 2 || self.body.len() >> (7 * (u32::from(self.header) - 2)) != 0
    }

    /// Appends the packet, with the shortest remaining length.
    pub fn copy_to(&self, out: &mut Vec<u8>) {
        out.push(self.first);
        let length = u32::try_from(self.body.len()).expect("a body is at most 256 MiB");
        crate::encode::variable(out, length);
        out.extend_from_slice(self.body);
    }
}

/// The first packet in `buf`; `None` if it isn't all there. What the header gives away is refused before the body has come.
///
/// # Errors
/// A type, flags or a remaining length that can't be, or more than `max_packet_size` bytes, header included.
/// Implements [MQTT-3.2.2-15] [MQTT3-2.2.2-2].
#[inline]
pub fn frame(buf: &[u8], max_packet_size: u32) -> Result<Option<Frame<'_>>, DecodeError> {
    let Some((&first, rest)) = buf.split_first() else { return Ok(None) };
    let packet_type = PacketType::of(first)?;
    if packet_type.flags().is_some_and(|flags| flags != first & 0x0F) {
        return Err(DecodeError::Flags);
    }
    let Some((length, header)) = remaining_length(rest)? else { return Ok(None) };
    if length as usize + usize::from(header) > max_packet_size as usize {
        return Err(DecodeError::TooLarge);
    }
    let end = usize::from(header) + length as usize;
    Ok(buf.get(usize::from(header)..end).map(|body| Frame { packet_type, first, body, header }))
}

/// How many bytes the packet at the front of `buf` has in all, once its header is there.
#[must_use]
pub fn frame_size(buf: &[u8]) -> Option<usize> {
    let (length, header) = remaining_length(buf.get(1..)?).ok()??;
    Some(length as usize + usize::from(header))
}

/// The remaining length and the size of the fixed header; `None` if the length isn't all there.
#[inline]
fn remaining_length(bytes: &[u8]) -> Result<Option<(u32, u8)>, DecodeError> {
    match bytes.first() {
        None => return Ok(None),
        Some(&byte) if byte < 0x80 => return Ok(Some((u32::from(byte), 2))),
        Some(_) => {}
    }
    let mut length = 0;
    for (index, size) in (0..4_u32).zip(2_u8..) {
        let Some(&byte) = bytes.get(index as usize) else { return Ok(None) };
        length |= u32::from(byte & 0x7F) << (7 * index);
        if byte < 0x80 {
            return Ok(Some((length, size)));
        }
    }
    Err(DecodeError::RemainingLength)
}
