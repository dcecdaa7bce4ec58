//! Time as an argument. Nothing in this crate reads a clock.

/// A moment, on both of the clocks that a broker needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// Milliseconds of a clock that never goes back; for keep alive and time limits.
    pub mono_ms: u64,
    /// Milliseconds since 1970 UTC; for whatever survives a restart (expiry). May jump.
    pub unix_ms: u64,
}

impl Now {
    /// Nanoseconds of the clock that never goes back, the unit of rates.
    #[must_use]
    pub fn mono_ns(self) -> u64 {
        self.mono_ms.saturating_mul(1_000_000)
    }

    /// Seconds since 1970 UTC, the unit in which expiries are kept.
    #[must_use]
    pub fn unix_s(self) -> u64 {
        self.unix_ms / 1000
    }
}
