//! Counting what fades, and terms that grow.

use crate::quota::count_and_period;

/// How many of something in a time. What was counted halves with each window, so a steady pace of more than half of it reaches it, too, in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Threshold {
    /// With so many it is reached; 0 is taken for 1.
    pub count: u32,
    /// Milliseconds, from the first of them; 0 is taken for 1.
    pub window_ms: u64,
}

/// Why a text isn't a threshold.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("must be a count and a time, as in \"5/1m\", or \"off\"; times have ms, s, m, h or d")]
pub struct NotThreshold;

/// `{count}/{time}`.
impl std::str::FromStr for Threshold {
    type Err = NotThreshold;

    fn from_str(text: &str) -> Result<Self, NotThreshold> {
        let (count, window_ms) = count_and_period(text).ok_or(NotThreshold)?;
        let count = u32::try_from(count).ok().filter(|count| *count > 0).ok_or(NotThreshold)?;
        if window_ms == 0 { Err(NotThreshold) } else { Ok(Self { count, window_ms }) }
    }
}

/// How long somebody is kept out: the first time, twice that the second, and so on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Terms {
    /// Milliseconds, the first time.
    pub first_ms: u64,
    /// Milliseconds; no term is longer.
    pub most_ms: u64,
    /// Milliseconds of peace after which one time is forgotten; 0 is taken for 1.
    pub forget_ms: u64,
}

impl Terms {
    /// The term after so many before it.
    fn after(&self, times: u32) -> u64 {
        let factor = 1_u64.checked_shl(times).unwrap_or(u64::MAX);
        self.first_ms.saturating_mul(factor).min(self.most_ms)
    }
}

/// A count that halves with each window.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Tally {
    since_ms: u64,
    count: u32,
}

impl Tally {
    /// One more; true if that reaches the threshold, and then it begins anew.
    pub(super) fn add(&mut self, threshold: Threshold, now_ms: u64) -> bool {
        let window_ms = threshold.window_ms.max(1);
        let windows = now_ms.saturating_sub(self.since_ms) / window_ms;
        self.count = self.count.checked_shr(u32::try_from(windows).unwrap_or(u32::MAX)).unwrap_or(0);
        if self.count == 0 {
            self.since_ms = now_ms;
        } else {
            self.since_ms += windows * window_ms;
        }
        self.count += 1;
        let reached = self.count >= threshold.count.max(1);
        if reached {
            *self = Self::default();
        }
        reached
    }

    /// How many there are.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// When none of them is left.
    pub(super) fn fades_at_ms(&self, window_ms: u64) -> u64 {
        let windows = u64::from(u32::BITS - self.count.leading_zeros());
        self.since_ms.saturating_add(windows.saturating_mul(window_ms.max(1)))
    }
}

/// Being kept out, or having been.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Sentence {
    pub(super) until_ms: u64,
    /// So many times, less those forgotten.
    pub(super) times: u32,
}

impl Sentence {
    /// Keeps out from now on; gives for how long, milliseconds. The first `free` times cost nothing.
    pub(super) fn pass(&mut self, terms: &Terms, free: u32, now_ms: u64) -> u64 {
        let forgotten = now_ms.saturating_sub(self.until_ms) / terms.forget_ms.max(1);
        let times = self.times.saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX));
        let for_ms = times.checked_sub(free).map_or(0, |times| terms.after(times));
        *self = Self { until_ms: now_ms.saturating_add(for_ms), times: times.saturating_add(1) };
        for_ms
    }

    /// Milliseconds that are left of it.
    pub(super) fn left_ms(&self, now_ms: u64) -> u64 {
        self.until_ms.saturating_sub(now_ms)
    }

    /// When all times are forgotten.
    pub(super) fn fades_at_ms(&self, terms: &Terms) -> u64 {
        self.until_ms.saturating_add(u64::from(self.times).saturating_mul(terms.forget_ms))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIVE_A_MINUTE: Threshold = Threshold { count: 5, window_ms: 60_000 };
    const TERMS: Terms = Terms { first_ms: 60_000, most_ms: 3_600_000, forget_ms: 600_000 };

    #[test]
    fn five_within_a_minute_reach_it() {
        let mut tally = Tally::default();
        let reached = [0, 10, 20, 30, 59].map(|s| tally.add(FIVE_A_MINUTE, 1000 * s));
        assert_eq!(reached, [false, false, false, false, true]);
        assert_eq!(tally.count(), 0, "it begins anew");
    }

    #[test]
    fn a_count_halves_with_each_window_until_it_is_gone() {
        let mut tally = Tally::default();
        for _ in 0..4 {
            assert!(!tally.add(FIVE_A_MINUTE, 0));
        }
        assert_eq!(tally.fades_at_ms(60_000), 180_000);
        assert!(!tally.add(FIVE_A_MINUTE, 60_000), "two and one");
        assert_eq!(tally.count(), 3);
        assert!(!tally.add(FIVE_A_MINUTE, 600_000));
        assert_eq!(tally.count(), 1);
        let slow = (1..1000).any(|n| tally.add(FIVE_A_MINUTE, 600_000 + n * 30_000));
        assert!(!slow, "two a minute never reach five");
    }

    #[test]
    fn terms_double_up_to_the_most_and_peace_makes_forget() {
        let mut sentence = Sentence::default();
        let mut now_ms = 0;
        let terms: Vec<u64> = (0..8)
            .map(|_| {
                let for_ms = sentence.pass(&TERMS, 0, now_ms);
                now_ms += for_ms;
                for_ms / 60_000
            })
            .collect();
        assert_eq!(terms, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(sentence.fades_at_ms(&TERMS), now_ms + 8 * 600_000);
        assert_eq!(sentence.pass(&TERMS, 0, now_ms + 7 * 600_000), 120_000, "one of eight is left");
    }

    #[test]
    fn the_first_times_may_be_free() {
        let mut sentence = Sentence::default();
        let terms = [0; 5].map(|now_ms| sentence.pass(&TERMS, 3, now_ms) / 60_000);
        assert_eq!(terms, [0, 0, 0, 1, 2]);
    }

    proptest! {
        #[test]
        fn no_numbers_overflow(
            times in any::<u32>(), until_ms in any::<u64>(), now_ms in any::<u64>(),
            first_ms in any::<u64>(), most_ms in any::<u64>(), forget_ms in any::<u64>(),
            count in any::<u32>(), window_ms in any::<u64>(),
        ) {
            let terms = Terms { first_ms, most_ms, forget_ms };
            let mut sentence = Sentence { until_ms, times };
            prop_assert!(sentence.pass(&terms, 0, now_ms) <= most_ms);
            let _ = (sentence.fades_at_ms(&terms), sentence.left_ms(now_ms));
            let mut tally = Tally::default();
            for at_ms in [now_ms, until_ms, 0, u64::MAX] {
                let _ = tally.add(Threshold { count, window_ms }, at_ms);
                let _ = tally.fades_at_ms(window_ms);
            }
        }
    }
}
