//! Requests counted by windows of time, several at once: `100/1s, 2000/60s`.
//!
//! A window is a counter of the time that has begun and one of that before it, which counts for as much of it as lies within one period
//! of now. So in each period from one multiple of it to the next no more than the count pass, and what is sent at a steady pace passes up
//! to exactly the count. GCRA, which paces messages, would let an idle caller have twice the count in its first period, which isn't what
//! who writes `100/1s` means. 12 bytes a window and caller.

use super::text::{TextError, count_and_period};

/// Windows that may hold at once.
pub const WINDOWS_MAX: usize = 3;
/// Shorter windows aren't kept: a counter's number has to last for years.
const PERIOD_MS_MIN: u64 = 100;
const PERIOD_MS_MAX: u64 = 30 * 86_400_000;

/// So many requests in each of up to [`WINDOWS_MAX`] windows; none is unlimited. As text, the windows with commas between them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Windows([Option<Window>; WINDOWS_MAX]);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Window {
    count: u32,
    period_ms: u64,
}

impl std::str::FromStr for Windows {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        let mut windows = Self::default();
        if matches!(text.trim(), "" | "unlimited") {
            return Ok(windows);
        }
        let mut places = windows.0.iter_mut();
        for part in text.split(',') {
            let (count, period_ms) = count_and_period(part).ok_or_else(|| TextError::Form(part.trim().to_owned()))?;
            let count = u32::try_from(count).ok().filter(|count| *count > 0);
            let fits = (PERIOD_MS_MIN..=PERIOD_MS_MAX).contains(&period_ms);
            let count = count.filter(|_| fits).ok_or_else(|| TextError::Range(part.trim().to_owned()))?;
            *places.next().ok_or(TextError::TooMany(WINDOWS_MAX))? = Some(Window { count, period_ms });
        }
        Ok(windows)
    }
}

impl Windows {
    /// No limit.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }
}

/// What one caller has had, of each window.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Counts {
    counters: [Counter; WINDOWS_MAX],
    /// From then on nothing of it counts.
    fades_at_ms: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Counter {
    /// The period that `current` counts, modulo 2^32.
    period: u32,
    before: u32,
    current: u32,
}

impl crate::table::Fades for Counts {
    fn weight(&self, now_ms: u64) -> u64 {
        self.fades_at_ms.saturating_sub(now_ms)
    }
}

impl Counts {
    /// Takes one request, if all windows have room; else says in how many milliseconds they will.
    pub(super) fn take(&mut self, windows: &Windows, now_ms: u64) -> Result<(), u64> {
        let all = || windows.0.iter().flatten();
        let wait_ms =
            self.counters.iter_mut().zip(all()).map(|(counter, window)| counter.wait_ms(window, now_ms)).max();
        if let Some(wait_ms) = wait_ms.filter(|wait_ms| *wait_ms > 0) {
            return Err(wait_ms);
        }
        for (counter, _) in self.counters.iter_mut().zip(all()) {
            counter.current += 1;
        }
        let longest_ms = all().map(|window| window.period_ms).max().unwrap_or(0);
        self.fades_at_ms = now_ms.saturating_add(2 * longest_ms);
        Ok(())
    }

    /// Gives back what was taken at the same moment.
    pub(super) fn give_back(&mut self, windows: &Windows) {
        for (counter, _) in self.counters.iter_mut().zip(windows.0.iter().flatten()) {
            counter.current = counter.current.saturating_sub(1);
        }
    }
}

impl Counter {
    /// In how many milliseconds there is room for one more; 0 for now.
    fn wait_ms(&mut self, window: &Window, now_ms: u64) -> u64 {
        let (count, length_ms) = (u64::from(window.count), window.period_ms);
        let elapsed_ms = now_ms % length_ms;
        self.advance((now_ms / length_ms) as u32);
        let current = u64::from(self.current);
        if current < count {
            return fades_in_ms(u64::from(self.before), count - current, length_ms).saturating_sub(elapsed_ms);
        }
        // In the next period: what is current is before then.
        length_ms - elapsed_ms + fades_in_ms(current, count, length_ms)
    }

    fn advance(&mut self, period: u32) {
        let passed = period.wrapping_sub(self.period);
        match passed {
            0 => return,
            1 => self.before = self.current,
            _ => self.before = 0,
        }
        self.current = 0;
        self.period = period;
    }
}

/// After how much of a period, of which `length` is all, no more than `spare` of `before` is left.
fn fades_in_ms(before: u64, spare: u64, length_ms: u64) -> u64 {
    match before {
        0 => 0,
        // before · (length − elapsed) / length ≤ spare
        before => length_ms.saturating_sub(spare * length_ms / before),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::table::Fades;

    fn windows(text: &str) -> Windows {
        text.parse().expect("windows")
    }

    fn taken(counts: &mut Counts, windows: &Windows, now_ms: u64, tries: usize) -> usize {
        (0..tries).filter(|_| counts.take(windows, now_ms).is_ok()).count()
    }

    #[test]
    fn windows_are_read() {
        assert!(windows("").is_unlimited() && windows("unlimited").is_unlimited());
        let both = Windows([
            Some(Window { count: 100, period_ms: 1000 }),
            Some(Window { count: 2000, period_ms: 60_000 }),
            None,
        ]);
        assert_eq!(windows("100/1s, 2000/60s"), both);
        assert_eq!(windows("100/s,2000/m"), both);
        let error = |text: &str| text.parse::<Windows>().expect_err("no windows");
        assert_eq!(error("1/s,2/m,3/h,4/d"), TextError::TooMany(3));
        assert_eq!(error("100/1s,"), TextError::Form(String::new()));
        assert_eq!(error("100/1s;2000/60s"), TextError::Form("100/1s;2000/60s".to_owned()));
        for text in ["0/1s", "1/99ms", "1/31d", "4294967296/1s"] {
            assert_eq!(error(text), TextError::Range(text.to_owned()));
        }
    }

    #[test]
    fn the_one_too_many_is_refused_and_told_when() {
        let (windows, mut counts) = (windows("100/1s, 150/60s"), Counts::default());
        assert_eq!(taken(&mut counts, &windows, 120_000, 1000), 100);
        assert_eq!(counts.take(&windows, 120_000), Err(1000), "when the second is over");
        assert_eq!(counts.take(&windows, 121_000), Ok(()));
        assert_eq!(counts.take(&windows, 121_000), Err(10), "when one of a hundred is out of the window");
        assert_eq!(taken(&mut counts, &windows, 122_900, 1000), 49, "the other window is full");
        let wait_ms = counts.take(&windows, 122_900).expect_err("full");
        assert!(counts.take(&windows, 122_900 + wait_ms - 1).is_err());
        assert_eq!(counts.take(&windows, 122_900 + wait_ms), Ok(()));
    }

    #[test]
    fn what_was_refused_costs_nothing_and_what_is_given_back_neither() {
        let (windows, mut counts) = (windows("1/1s"), Counts::default());
        assert_eq!(taken(&mut counts, &windows, 0, 1000), 1);
        assert!(counts.take(&windows, 500).is_err());
        assert_eq!(counts.take(&windows, 2000), Ok(()));
        counts.give_back(&windows);
        assert_eq!(counts.take(&windows, 2000), Ok(()));
    }

    #[test]
    fn it_fades() {
        let (windows, mut counts) = (windows("1/1s"), Counts::default());
        assert_eq!(counts.weight(0), 0);
        assert_eq!(counts.take(&windows, 700), Ok(()));
        assert!(counts.weight(2699) > 0 && counts.weight(2700) == 0);
    }

    #[test]
    fn a_limit_that_shrinks_is_kept_at_once() {
        let mut counts = Counts::default();
        assert_eq!(taken(&mut counts, &windows("100/1s"), 0, 50), 50);
        assert!(counts.take(&windows("10/1s"), 0).is_err());
    }

    proptest! {
        /// No period has more than its count, and a wait that was told is neither too short nor too long.
        #[test]
        fn no_period_has_more_than_its_count(
            count in 1..50_u64, period_ms in 100..2000_u64, steps in prop::collection::vec(0..300_u64, 1..300),
        ) {
            let windows = windows(&format!("{count}/{period_ms}ms"));
            let (mut counts, mut now_ms, mut had) = (Counts::default(), 0, std::collections::BTreeMap::new());
            for step in steps {
                now_ms += step;
                match counts.take(&windows, now_ms) {
                    Ok(()) => *had.entry(now_ms / period_ms).or_insert(0) += 1,
                    Err(wait_ms) => {
                        prop_assert!(wait_ms > 0 && wait_ms <= 2 * period_ms);
                        let (mut then, mut earlier) = (counts, counts);
                        prop_assert!(then.take(&windows, now_ms + wait_ms).is_ok());
                        prop_assert!(earlier.take(&windows, now_ms + wait_ms - 1).is_err());
                    }
                }
            }
            prop_assert!(had.values().all(|had| *had <= count));
        }

        /// Who keeps to the count at a steady pace is never refused.
        #[test]
        fn a_steady_pace_passes(count in 1..50_u64, step_ms in 10..100_u64) {
            let windows = windows(&format!("{count}/{}ms", (count * step_ms).max(100)));
            let step_ms = (count * step_ms).max(100).div_ceil(count);
            let mut counts = Counts::default();
            for n in 0..200 {
                prop_assert_eq!(counts.take(&windows, n * step_ms), Ok(()));
            }
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = text.parse::<Windows>();
        }
    }
}
