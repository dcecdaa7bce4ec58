//! What a batch may be, and what is remembered of a device.

/// The limits. `Default` is for devices of some hundred kilobytes of memory and a broker of many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Bytes of a batch, unpacked. 1 MiB.
    pub unpacked_bytes_max: usize,
    /// Bytes unpacked for one packed. 100.
    pub ratio_max: usize,
    /// Records of a batch. 4,096.
    pub records_max: usize,
    /// Bytes of a record's payload. 64 KiB.
    pub payload_bytes_max: usize,
    /// Bytes of a topic, as published. 256.
    pub topic_bytes_max: usize,
    /// How old a record may be, in milliseconds. 90 days.
    pub past_ms_max: u64,
    /// How far ahead of the broker's clock a record may be, in milliseconds. 10 minutes.
    pub ahead_ms_max: u64,
    /// Boots that a device is remembered by, and that one batch may have records of. 8; at least 1.
    pub boots_max: usize,
    /// Ranges beyond the first gap that are remembered of a boot, and ranges that one batch may declare lost. 32.
    pub ranges_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            unpacked_bytes_max: 1 << 20,
            ratio_max: 100,
            records_max: 4096,
            payload_bytes_max: 64 << 10,
            topic_bytes_max: 256,
            past_ms_max: 90 * 24 * 3600 * 1000,
            ahead_ms_max: 10 * 60 * 1000,
            boots_max: 8,
            ranges_max: 32,
        }
    }
}
