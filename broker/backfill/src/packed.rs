//! Packed batches, unpacked within bounds.
//!
//! | format | magic | crate |
//! |---|---|---|
//! | zlib (RFC 1950) | 78, a multiple of 31 with the next byte | `miniz_oxide` |
//! | zstd (RFC 8878) | 28 B5 2F FD | `zstd-safe`: the C library, by far the longest to build |
//! | lz4 frame | 04 22 4D 18 | `lz4_flex`, which the store has anyway |
//!
//! No magic is the beginning of a batch in CBOR (an array or map: 80–BF) or JSON (`[`, `{` or white space).
//!
//! What unpacking allocates, whatever the input says: the bytes allowed (the lesser of bytes and ratio), and
//!
//! - zlib: 43 KB of tables; while the buffer grows, half as much again;
//! - zstd: a context of 96 KB. The output is the window, so a frame's claim of a large one costs nothing, and a block that goes on past its 128 KiB is refused;
//! - lz4: three blocks and 64 KiB, of the size that the header says; a size beyond the bytes allowed of a batch is refused unless it is the smallest, 64 KiB.
//!
//! `ruzstd` isn't used: version 0.8 writes the whole of a block before it looks at how long it got, and 128 KiB of sequences make gigabytes.

use std::io::Read;

use crate::bounds::Bounds;

const ZSTD_MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];
const LZ4_MAGIC: [u8; 4] = [0x04, 0x22, 0x4D, 0x18];
/// Of the zstd library, `ZSTD_error_dstSize_tooSmall`: part of its stable interface.
const ZSTD_DST_SIZE_TOO_SMALL: usize = 70;
const LZ4_SMALLEST_BLOCK: usize = 64 << 10;

/// How a batch is packed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Packing {
    /// RFC 1950.
    Zlib,
    /// RFC 8878, without a dictionary.
    Zstd,
    /// The frame format of lz4, without a dictionary.
    Lz4,
}

/// Why a packed batch isn't unpacked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PackError {
    /// Its end is missing, or it is no such stream, or a checksum differs.
    #[error("the packed batch is damaged or cut short")]
    Damaged,
    /// It has more bytes than a batch may have.
    #[error("the batch unpacks to more bytes than allowed")]
    TooLarge,
    /// It unpacks to more than it may for its size.
    #[error("the batch is packed more densely than allowed")]
    TooDense,
    /// An lz4 frame with blocks larger than a batch may be.
    #[error("the frame's blocks are larger than a batch may be")]
    BlockSize,
}

impl Packing {
    /// By the first bytes. None: not packed.
    #[must_use]
    pub fn sniff(payload: &[u8]) -> Option<Self> {
        match *payload {
            [0x78, flags, ..] if (0x7800 + u16::from(flags)).is_multiple_of(31) => Some(Self::Zlib),
            _ if payload.starts_with(&ZSTD_MAGIC) => Some(Self::Zstd),
            _ if payload.starts_with(&LZ4_MAGIC) => Some(Self::Lz4),
            _ => None,
        }
    }

    /// By the part of a content type after its plus sign.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let named = |expected: &str| name.eq_ignore_ascii_case(expected);
        match () {
            () if named("zlib") => Some(Self::Zlib),
            () if named("zstd") => Some(Self::Zstd),
            () if named("lz4") => Some(Self::Lz4),
            () => None,
        }
    }

    /// Unpacks. What follows the stream isn't looked at.
    ///
    /// # Errors
    /// [`PackError`].
    pub fn unpack(self, packed: &[u8], bounds: &Bounds) -> Result<Vec<u8>, PackError> {
        let by_ratio = packed.len().saturating_mul(bounds.ratio_max);
        let limit = by_ratio.min(bounds.unpacked_bytes_max);
        let over = if by_ratio < bounds.unpacked_bytes_max { PackError::TooDense } else { PackError::TooLarge };
        match self {
            Self::Zlib => unpack_zlib(packed, limit, over),
            Self::Zstd => unpack_zstd(packed, limit, over),
            Self::Lz4 => unpack_lz4(packed, limit, over, bounds.unpacked_bytes_max),
        }
    }
}

fn unpack_zlib(packed: &[u8], limit: usize, over: PackError) -> Result<Vec<u8>, PackError> {
    use miniz_oxide::inflate::{TINFLStatus, decompress_to_vec_zlib_with_limit};
    decompress_to_vec_zlib_with_limit(packed, limit).map_err(|error| match error.status {
        TINFLStatus::HasMoreOutput => over,
        _ => PackError::Damaged,
    })
}

fn unpack_zstd(packed: &[u8], limit: usize, over: PackError) -> Result<Vec<u8>, PackError> {
    // A frame may say how much it holds. It may lie: what counts is what there is room for.
    let claimed = match zstd_safe::get_frame_content_size(packed) {
        Ok(claimed) => claimed.map(|claimed| usize::try_from(claimed).unwrap_or(usize::MAX)),
        Err(_) => return Err(PackError::Damaged),
    };
    if claimed.is_some_and(|claimed| claimed > limit) {
        return Err(over);
    }
    let mut unpacked = Vec::with_capacity(claimed.unwrap_or(limit));
    match zstd_safe::DCtx::try_create().ok_or(PackError::Damaged)?.decompress(&mut unpacked, first_frame(packed)?) {
        Ok(_) => Ok(unpacked),
        // An error's code is the negative of its number.
        Err(code) if code.wrapping_neg() == ZSTD_DST_SIZE_TOO_SMALL && claimed.is_none() => Err(over),
        Err(_) => Err(PackError::Damaged),
    }
}

fn first_frame(packed: &[u8]) -> Result<&[u8], PackError> {
    let bytes = zstd_safe::find_frame_compressed_size(packed).map_err(|_| PackError::Damaged)?;
    packed.get(..bytes).ok_or(PackError::Damaged)
}

fn unpack_lz4(packed: &[u8], limit: usize, over: PackError, largest: usize) -> Result<Vec<u8>, PackError> {
    // The fifth byte has flags, the sixth the size of blocks: 4 is 64 KiB, and each next one four times as much.
    let size = packed.get(5).map(|byte| (byte >> 4) & 7).filter(|code| *code >= 4).ok_or(PackError::Damaged)?;
    let size = LZ4_SMALLEST_BLOCK << (2 * (u32::from(size) - 4));
    if size > largest.max(LZ4_SMALLEST_BLOCK) {
        return Err(PackError::BlockSize);
    }
    // Room for one byte more, by which it is seen that there is too much. Zeroes that are never touched cost no memory.
    let mut unpacked = vec![0; limit + 1];
    let mut frame = lz4_flex::frame::FrameDecoder::new(packed);
    let mut filled = 0;
    loop {
        match frame.read(unpacked.get_mut(filled..).unwrap_or_default()) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(_) => return Err(PackError::Damaged),
        }
    }
    if filled > limit {
        return Err(over);
    }
    unpacked.truncate(filled);
    Ok(unpacked)
}

#[cfg(test)]
pub(crate) mod tests;
