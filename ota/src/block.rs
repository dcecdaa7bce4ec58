//! Firmware over MQTT, for devices that have nothing else: blocks that the device asks for, a few at a time, as it has room for them.
//!
//! A request is JSON on `dev/{p}/{d}/ota/get`, in one of two forms:
//!
//! ```json
//! {"offer": 17, "size": 4096, "offset": 65536, "count": 16}
//! {"offer": 17, "size": 4096, "from": 16, "missing": "gAE="}
//! ```
//!
//! `size` is the block's, 256 bytes to 128 KiB. The first form asks for `count` blocks from `offset` on, a multiple of `size`. The second asks for
//! those blocks from number `from` on whose bit is set, the first being the highest bit of the first byte of `missing` (base64): what a device
//! that has restarted, or has lost some, still lacks. A request is for 1 MiB at the most; the rest is asked for when this has come.
//!
//! A block is a message on `dev/{p}/{d}/ota/block`, in binary: the offer, the offset, the length and the CRC-32 (ISO-HDLC) of the bytes, each 4 bytes, most
//! significant first; then the bytes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// The smallest block.
pub const SIZE_MIN: u32 = 256;
/// The largest block.
pub const SIZE_MAX: u32 = 128 << 10;
/// What one request may be for, in bytes.
pub const REQUEST_BYTES_MAX: u32 = 1 << 20;
/// Of a block's header.
pub const HEADER_BYTES: usize = 16;
/// Longer requests aren't looked at: a bitmap of all blocks that one request may be for is a few hundred bytes.
const TEXT_BYTES_MAX: usize = 2048;

/// Why a request isn't answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BlockError {
    /// No JSON, or neither of the two forms.
    #[error("the request is not of one of the two forms")]
    Malformed,
    /// Outside of [`SIZE_MIN`] and [`SIZE_MAX`].
    #[error("a block has {SIZE_MIN} to {SIZE_MAX} bytes")]
    Size,
    /// The offset is no multiple of the size.
    #[error("the offset is not a multiple of the block's size")]
    Unaligned,
    /// It begins behind the file's end, or asks for nothing.
    #[error("there are no such blocks")]
    Nothing,
    /// More than [`REQUEST_BYTES_MAX`].
    #[error("a request is for {REQUEST_BYTES_MAX} bytes at most")]
    TooMuch,
}

/// What isn't known is passed over, as everywhere in messages of devices: one of tomorrow may say more.
#[derive(Deserialize)]
struct Written<'a> {
    offer: u32,
    size: u32,
    offset: Option<u64>,
    count: Option<u32>,
    from: Option<u32>,
    #[serde(borrow)]
    missing: Option<&'a str>,
}

/// A request that can be answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// Which offer it is about.
    pub offer: u32,
    size: u32,
    /// Numbers of blocks, ascending.
    blocks: Vec<u32>,
    file_bytes: u64,
}

/// The offer that a request is about, before the file's size is known.
///
/// # Errors
/// [`BlockError::Malformed`].
pub fn offer_of(payload: &[u8]) -> Result<u32, BlockError> {
    written(payload).map(|written| written.offer)
}

fn written(payload: &[u8]) -> Result<Written<'_>, BlockError> {
    if payload.len() > TEXT_BYTES_MAX {
        return Err(BlockError::Malformed);
    }
    serde_json::from_slice(payload).map_err(|_| BlockError::Malformed)
}

impl Request {
    /// Reads a request for a file of so many bytes.
    ///
    /// # Errors
    /// [`BlockError`].
    pub fn read(payload: &[u8], file_bytes: u64) -> Result<Self, BlockError> {
        let written = written(payload)?;
        let size = written.size;
        if !(SIZE_MIN..=SIZE_MAX).contains(&size) {
            return Err(BlockError::Size);
        }
        let blocks = match written {
            Written { offset: Some(offset), count: Some(count), from: None, missing: None, .. } => {
                if offset % u64::from(size) != 0 {
                    return Err(BlockError::Unaligned);
                }
                if u64::from(count) * u64::from(size) > u64::from(REQUEST_BYTES_MAX) {
                    return Err(BlockError::TooMuch);
                }
                let first = u32::try_from(offset / u64::from(size)).map_err(|_| BlockError::Nothing)?;
                (first..first.saturating_add(count)).collect::<Vec<_>>()
            }
            Written { offset: None, count: None, from: Some(from), missing: Some(missing), .. } => {
                let bits = STANDARD.decode(missing).map_err(|_| BlockError::Malformed)?;
                let is_set = |(byte, bit): (u8, u32)| byte & (0x80 >> bit) != 0;
                let bits = bits.iter().flat_map(|byte| (0..8).map(|bit| is_set((*byte, bit))));
                (from..=u32::MAX).zip(bits).filter_map(|(number, wanted)| wanted.then_some(number)).collect()
            }
            _ => return Err(BlockError::Malformed),
        };
        let mut blocks = blocks;
        blocks.retain(|number| u64::from(*number) * u64::from(size) < file_bytes);
        match u64::try_from(blocks.len()).unwrap_or(u64::MAX) * u64::from(size) {
            0 => Err(BlockError::Nothing),
            bytes if bytes > u64::from(REQUEST_BYTES_MAX) => Err(BlockError::TooMuch),
            _ => Ok(Self { offer: written.offer, size, blocks, file_bytes }),
        }
    }

    /// The blocks' places in the file: offset and length, ascending. The file's last one may be shorter than the others.
    pub fn places(&self) -> impl Iterator<Item = (u64, u32)> + '_ {
        self.blocks.iter().map(|number| {
            let offset = u64::from(*number) * u64::from(self.size);
            let length = (self.file_bytes - offset).min(u64::from(self.size));
            (offset, u32::try_from(length).unwrap_or(self.size))
        })
    }
}

/// Writes a block. The offset is below 4 GiB, which no firmware exceeds.
#[must_use]
pub fn frame(offer: u32, offset: u32, bytes: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER_BYTES + bytes.len());
    let length = u32::try_from(bytes.len()).expect("a block has at most 128 KiB");
    for field in [offer, offset, length, crc32fast::hash(bytes)] {
        frame.extend(field.to_be_bytes());
    }
    frame.extend_from_slice(bytes);
    frame
}

/// Reads a block, as a device does: the offer, the offset and the bytes; none if it isn't whole.
#[must_use]
pub fn opened(frame: &[u8]) -> Option<(u32, u32, &[u8])> {
    let (header, bytes) = frame.split_first_chunk::<HEADER_BYTES>()?;
    let (fields, _) = header.as_chunks::<4>();
    let [offer, offset, length, crc] = fields else { return None };
    let [offer, offset, length, crc] = [offer, offset, length, crc].map(|field| u32::from_be_bytes(*field));
    let is_whole = bytes.len() == length as usize && crc32fast::hash(bytes) == crc;
    is_whole.then_some((offer, offset, bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn places(text: &str, file_bytes: u64) -> Result<Vec<(u64, u32)>, BlockError> {
        Request::read(text.as_bytes(), file_bytes).map(|request| request.places().collect())
    }

    #[test]
    fn both_forms_name_the_same_blocks() {
        let expected = Ok(vec![(512, 256), (768, 232)]);
        assert_eq!(places(r#"{"offer":1,"size":256,"offset":512,"count":9}"#, 1_000), expected);
        assert_eq!(places(r#"{"offer":1,"size":256,"from":1,"missing":"YA=="}"#, 1_000), expected);
        assert_eq!(places(r#"{"offer":1,"size":256,"offset":512,"count":9,"x":{"of":"tomorrow"}}"#, 1_000), expected);
        let scattered = places(r#"{"offer":1,"size":256,"from":0,"missing":"gAE="}"#, 1 << 20);
        assert_eq!(scattered, Ok(vec![(0, 256), (15 * 256, 256)]));
    }

    #[test]
    fn each_fault_has_its_name() {
        for (text, error) in [
            ("", BlockError::Malformed),
            (r#"{"offer":1,"size":256}"#, BlockError::Malformed),
            (r#"{"offer":1,"size":256,"offset":0,"count":1,"from":0}"#, BlockError::Malformed),
            (r#"{"offer":-1,"size":256,"offset":0,"count":1}"#, BlockError::Malformed),
            (r#"{"offer":1,"size":256,"from":0,"missing":"%"}"#, BlockError::Malformed),
            (r#"{"offer":1,"size":255,"offset":0,"count":1}"#, BlockError::Size),
            (r#"{"offer":1,"size":131073,"offset":0,"count":1}"#, BlockError::Size),
            (r#"{"offer":1,"size":256,"offset":100,"count":1}"#, BlockError::Unaligned),
            (r#"{"offer":1,"size":256,"offset":1024,"count":1}"#, BlockError::Nothing),
            (r#"{"offer":1,"size":256,"offset":0,"count":0}"#, BlockError::Nothing),
            (r#"{"offer":1,"size":256,"from":0,"missing":"AA=="}"#, BlockError::Nothing),
            (r#"{"offer":1,"size":131072,"offset":0,"count":9}"#, BlockError::TooMuch),
            (r#"{"offer":1,"size":256,"offset":0,"count":4294967295}"#, BlockError::TooMuch),
        ] {
            assert_eq!(places(text, 1_000), Err(error), "{text}");
        }
        let all = STANDARD.encode([0xFF; 2]);
        let text = format!(r#"{{"offer":1,"size":131072,"from":0,"missing":"{all}"}}"#);
        assert_eq!(places(&text, 1 << 32), Err(BlockError::TooMuch));
    }

    #[test]
    fn a_block_is_whole_or_nothing() {
        let frame = frame(7, 512, b"bytes");
        assert_eq!(opened(&frame), Some((7, 512, &b"bytes"[..])));
        assert_eq!(hex::encode(&frame[..16]), "000000070000020000000005b19943ce");
        for at in 8..frame.len() {
            let mut changed = frame.clone();
            changed[at] ^= 1;
            assert_eq!(opened(&changed), None, "{at}");
            assert_eq!(opened(&frame[..at]), None);
        }
    }

    proptest! {
        #[test]
        fn what_is_granted_is_in_the_file_and_bounded(payload in proptest::collection::vec(any::<u8>(), 0..200), size in 0..1_u64 << 33) {
            if let Ok(request) = Request::read(&payload, size) {
                let total: u64 = request.places().map(|(_, length)| u64::from(length)).sum();
                prop_assert!(total <= u64::from(REQUEST_BYTES_MAX));
                prop_assert!(request.places().all(|(offset, length)| offset + u64::from(length) <= size));
            }
        }

        #[test]
        fn any_request_of_the_first_form_is_bounded(offset in any::<u64>(), count in any::<u32>(), size in any::<u32>(), bytes in 0..1_u64 << 33) {
            let text = format!(r#"{{"offer":1,"size":{size},"offset":{offset},"count":{count}}}"#);
            if let Ok(request) = Request::read(text.as_bytes(), bytes) {
                prop_assert!(request.places().all(|(offset, length)| length > 0 && offset + u64::from(length) <= bytes));
            }
        }
    }
}
