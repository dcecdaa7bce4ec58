//! Hashes of devices and products. Seeded at start, so that nobody chooses names that collide, but for [`steady`].

use std::hash::{BuildHasher, Hasher};

/// The parts, kept apart by a byte that no name has.
pub(crate) fn seeded(state: &foldhash::quality::RandomState, parts: &[&str]) -> u64 {
    let mut hasher = state.build_hasher();
    for part in parts {
        hasher.write(part.as_bytes());
        hasher.write_u8(0);
    }
    hasher.finish()
}

/// The same in each run (FNV-1a, 64 bits, stirred at the end): it spreads devices over time, and decides nothing that could be abused.
pub(crate) fn steady(parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
    let mut hash =
        bytes.fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3));
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    hash ^ (hash >> 33)
}
