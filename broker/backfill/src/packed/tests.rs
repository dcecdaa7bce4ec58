use std::io::Write;

use lz4_flex::frame::{BlockSize, FrameEncoder, FrameInfo};
use proptest::prelude::*;

use super::*;

pub(crate) fn pack(packing: Packing, bytes: &[u8]) -> Vec<u8> {
    match packing {
        Packing::Zlib => miniz_oxide::deflate::compress_to_vec_zlib(bytes, 6),
        Packing::Zstd => {
            let mut out = Vec::with_capacity(zstd_safe::compress_bound(bytes.len()));
            zstd_safe::compress(&mut out, bytes, 3).unwrap();
            out
        }
        Packing::Lz4 => {
            // Of its own accord it takes large blocks for large inputs.
            let info = FrameInfo::new().block_size(BlockSize::Max64KB);
            let mut frame = FrameEncoder::with_frame_info(info, Vec::new());
            frame.write_all(bytes).unwrap();
            frame.finish().unwrap()
        }
    }
}

pub(crate) const ALL: [Packing; 3] = [Packing::Zlib, Packing::Zstd, Packing::Lz4];

#[test]
fn bombs_are_refused() {
    let bounds = Bounds { ratio_max: 1_000_000, ..Bounds::default() };
    let zeroes = vec![0; 32 << 20];
    for packing in ALL {
        let bomb = pack(packing, &zeroes);
        assert_eq!(packing.unpack(&bomb, &bounds), Err(PackError::TooLarge), "{packing:?}");
        let bounds = Bounds { unpacked_bytes_max: 64 << 20, ratio_max: 20, ..bounds };
        assert_eq!(packing.unpack(&bomb, &bounds), Err(PackError::TooDense), "{packing:?}");
    }
}

#[test]
fn what_fits_exactly_is_taken_and_a_byte_more_is_not() {
    let bounds = Bounds { unpacked_bytes_max: 100_000, ratio_max: 1_000_000, ..Bounds::default() };
    let bytes: Vec<u8> = (0..100_001_u32).map(|at| (at % 251) as u8).collect();
    for packing in ALL {
        let unpacked = packing.unpack(&pack(packing, &bytes[..100_000]), &bounds);
        assert!(unpacked.is_ok_and(|unpacked| unpacked == bytes[..100_000]), "{packing:?}");
        assert_eq!(packing.unpack(&pack(packing, &bytes), &bounds), Err(PackError::TooLarge), "{packing:?}");
    }
}

#[test]
fn a_zstd_frame_that_lies_about_its_size_or_window_gets_no_more_memory() {
    // Single segment, content size 2^40, then a block of one byte repeated 128 KiB times.
    let mut frame = ZSTD_MAGIC.to_vec();
    frame.push(0b1110_0000);
    frame.extend((1_u64 << 40).to_le_bytes());
    frame.extend([0x03, 0x00, 0x10, 0]);
    assert_eq!(Packing::Zstd.unpack(&frame, &Bounds::default()), Err(PackError::TooDense));
    // No content size, a window of 2^31 bytes, one raw last block of one byte.
    let frame = [&ZSTD_MAGIC[..], &[0, 21 << 3, 0x09, 0, 0, b'x']].concat();
    let unpacked = Packing::Zstd.unpack(&frame, &Bounds::default()).unwrap();
    assert_eq!((unpacked.as_slice(), unpacked.capacity()), (&b"x"[..], frame.len() * 100));
}

#[test]
fn lz4_blocks_larger_than_a_batch_are_refused_before_memory_is_asked_for() {
    let mut frame = pack(Packing::Lz4, &[7; 100]);
    frame[5] = 0x70;
    assert_eq!(Packing::Lz4.unpack(&frame, &Bounds::default()), Err(PackError::BlockSize));
}

#[test]
fn formats_are_told_by_their_first_bytes() {
    for packing in ALL {
        assert_eq!(Packing::sniff(&pack(packing, b"hello")), Some(packing));
    }
    for plain in [&b"[]"[..], b"{}", b"\x80", b"\x9F\xFF", b"\xA0", b" [", b"", b"\x78", b"\x78\x00"] {
        assert_eq!(Packing::sniff(plain), None, "{plain:?}");
    }
}

proptest! {
    #[test]
    fn garbage_and_truncation_never_panic_nor_exceed_the_bound(
        bytes in proptest::collection::vec(0_u8..4, 0..3000), cut in 0.0..1.0_f64, flip in any::<(u16, u8)>()
    ) {
        let bounds = Bounds { unpacked_bytes_max: 2000, ..Bounds::default() };
        for packing in ALL {
            let mut packed = pack(packing, &bytes);
            let at = usize::from(flip.0) % packed.len();
            packed[at] ^= flip.1;
            packed.truncate(1 + (packed.len() as f64 * cut) as usize);
            if let Ok(unpacked) = packing.unpack(&packed, &bounds) {
                prop_assert!(unpacked.len() <= 2000);
            }
        }
    }
}
