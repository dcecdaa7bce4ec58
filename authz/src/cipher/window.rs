//! Which counters of an epoch have been used in one direction: the highest, and a bit for each of the 255 before it.
//!
//! MQTT runs over streams, so what comes out of order is what a device with several tasks sealed in one order and sent in another: a
//! few counters apart. 256 is far more, and 40 bytes.

/// Counters that may still come after a higher one: those less than this below it.
pub const WINDOW: u64 = 256;

/// What became of a counter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(crate) enum Taken {
    /// It is used now for the first time.
    First,
    /// It has been used.
    Again,
    /// It is so far below the highest that nobody knows.
    TooOld,
}

/// Used counters.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Window {
    /// The least counter that is above all used ones.
    next: u64,
    /// Bit `c % 256` for each counter `c` of the 256 below `next`.
    used: [u64; 4],
}

impl Window {
    /// Uses a counter. The caller has found it authentic: a forged one would shut out all below it.
    pub(crate) fn take(&mut self, counter: u64) -> Taken {
        if counter >= self.next {
            self.advance(counter);
        } else if self.next - counter > WINDOW {
            return Taken::TooOld;
        }
        let (word, bit) = place(counter);
        let Some(word) = self.used.get_mut(word) else { return Taken::TooOld };
        let was_used = *word & bit != 0;
        *word |= bit;
        if was_used { Taken::Again } else { Taken::First }
    }

    /// Makes `counter` the highest; what lies between it and the former highest hasn't been used.
    fn advance(&mut self, counter: u64) {
        let first = self.next.max(counter.saturating_sub(WINDOW - 1));
        for skipped in first..=counter {
            let (word, bit) = place(skipped);
            if let Some(word) = self.used.get_mut(word) {
                *word &= !bit;
            }
        }
        // The highest counter of all is never taken: `frame::parse` refuses it.
        self.next = counter.saturating_add(1);
    }
}

fn place(counter: u64) -> (usize, u64) {
    let at = counter % WINDOW;
    (usize::try_from(at / 64).unwrap_or_default(), 1 << (at % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_counter_is_good_once() {
        let mut window = Window::default();
        assert_eq!(window.take(0), Taken::First);
        assert_eq!(window.take(0), Taken::Again);
        assert_eq!(window.take(300), Taken::First);
        assert_eq!(window.take(44), Taken::TooOld);
        assert_eq!(window.take(45), Taken::First);
        assert_eq!(window.take(45), Taken::Again);
        assert_eq!(window.take(300), Taken::Again);
        assert_eq!(window.take(u64::MAX - 1), Taken::First);
        assert_eq!(window.take(300), Taken::TooOld);
        assert_eq!(window.take(u64::MAX - 1), Taken::Again);
        assert_eq!(window.take(u64::MAX - 2), Taken::First);
    }

    proptest! {
        #[test]
        fn as_a_plain_set_has_it(start in prop_oneof![Just(0), 0..u64::MAX - 100_000], steps in proptest::collection::vec(
            prop_oneof![6 => 0_u64..40, 2 => 200_u64..600, 1 => 1000_u64..90_000], 1..300)) {
            let (mut window, mut used, mut highest) = (Window::default(), HashSet::new(), None::<u64>);
            for step in steps {
                let counter = start + step;
                let expected = match highest {
                    Some(highest) if highest >= counter && highest - counter >= WINDOW => Taken::TooOld,
                    _ if used.insert(counter) => Taken::First,
                    _ => Taken::Again,
                };
                highest = highest.max(Some(counter));
                prop_assert_eq!(window.take(counter), expected, "{}", counter);
            }
        }
    }
}
