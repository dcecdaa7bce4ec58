//! What the guard remembers of an address, of an identity at an address, of an identity, and of a product.

use std::num::NonZeroU32;

use super::tally::{Sentence, Tally};
use crate::origin::Origin;
use crate::table::Fades;

/// Somebody who is kept out weighs more than anybody who isn't.
const KEPT_OUT: u64 = 1 << 40;

/// Places of an identity that are remembered.
const PLACES: usize = 4;

/// An address.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OfOrigin {
    pub(super) failures: Tally,
    pub(super) ban: Sentence,
    pub(super) keep_until_ms: u64,
}

/// An identity at an address.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OfPair {
    pub(super) back_off: Sentence,
    pub(super) log_ins: Tally,
    pub(super) flapping: Sentence,
    pub(super) keep_until_ms: u64,
}

/// An identity, wherever.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OfIdentity {
    pub(super) failures: Tally,
    pub(super) swaps: Tally,
    pub(super) refused_until_ms: u64,
    pub(super) keep_until_ms: u64,
    /// It was told of that it is in two places at once, and isn't told again until then.
    pub(super) told_until_ms: u64,
    /// The last that had the session, the latest first.
    places: [Option<Place>; PLACES],
}

/// A product.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OfProduct {
    pub(super) failures: Tally,
    pub(super) keep_until_ms: u64,
}

/// An address in four bytes: two of one identity that are taken for one make a clone harder to see, one time in four billion.
type Place = NonZeroU32;

fn place(origin: Origin) -> Place {
    let bits = origin.bits().wrapping_mul(0x9e37_79b9_7f4a_7c15);
    NonZeroU32::new((bits >> 32) as u32).unwrap_or(NonZeroU32::MIN)
}

impl OfIdentity {
    /// A session went from one place to another. True if the other has had it before, within what is remembered.
    pub(super) fn swapped(&mut self, from: Origin, to: Origin) -> bool {
        let (from, to) = (place(from), place(to));
        if from == to {
            return false;
        }
        let before = self.places.iter().flatten().any(|known| *known == to);
        for latest in [from, to] {
            let last = self.places.iter().position(|known| *known == Some(latest)).unwrap_or(PLACES - 1);
            if let Some(moved) = self.places.get_mut(..=last) {
                moved.rotate_right(1);
            }
            if let Some(first) = self.places.first_mut() {
                *first = Some(latest);
            }
        }
        before
    }

    /// None of what is remembered of places counts any more.
    pub(super) fn forget_places(&mut self) {
        self.places = [None; PLACES];
    }
}

/// 0 if it is over; else the more the longer it is kept out, or has been, or the more it has failed.
fn weight(keep_until_ms: u64, kept_out_ms: u64, times: u32, count: u32, now_ms: u64) -> u64 {
    if keep_until_ms <= now_ms {
        return 0;
    }
    let kept_out = if kept_out_ms > 0 { KEPT_OUT + kept_out_ms.min(KEPT_OUT) } else { 0 };
    1 + kept_out + 1000 * u64::from(times) + u64::from(count)
}

impl Fades for OfOrigin {
    fn weight(&self, now_ms: u64) -> u64 {
        weight(self.keep_until_ms, self.ban.left_ms(now_ms), self.ban.times, self.failures.count(), now_ms)
    }
}

impl Fades for OfPair {
    fn weight(&self, now_ms: u64) -> u64 {
        let kept_out_ms = self.back_off.left_ms(now_ms).max(self.flapping.left_ms(now_ms));
        let times = self.back_off.times.max(self.flapping.times);
        weight(self.keep_until_ms, kept_out_ms, times, self.log_ins.count(), now_ms)
    }
}

impl Fades for OfIdentity {
    fn weight(&self, now_ms: u64) -> u64 {
        let refused_ms = self.refused_until_ms.saturating_sub(now_ms);
        weight(self.keep_until_ms, refused_ms, self.swaps.count(), self.failures.count(), now_ms)
    }
}

impl Fades for OfProduct {
    fn weight(&self, now_ms: u64) -> u64 {
        weight(self.keep_until_ms, 0, 0, self.failures.count(), now_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(last: u8) -> Origin {
        Origin::of([192, 0, 2, last].into())
    }

    #[test]
    fn going_back_and_forth_is_seen_and_moving_on_is_not() {
        let mut state = OfIdentity::default();
        assert!(!state.swapped(origin(1), origin(2)), "moved");
        assert!(state.swapped(origin(2), origin(1)), "back");
        assert!(state.swapped(origin(1), origin(2)));
        assert!(!state.swapped(origin(2), origin(2)), "reconnected");
        let mut roaming = OfIdentity::default();
        assert!((1..100).all(|n| !roaming.swapped(origin(n), origin(n + 1))));
    }

    #[test]
    fn three_in_turn_are_seen_too() {
        let mut state = OfIdentity::default();
        let swaps = [(1, 2), (2, 3), (3, 1), (1, 2), (2, 3)].map(|(from, to)| state.swapped(origin(from), origin(to)));
        assert_eq!(swaps, [false, false, true, true, true]);
        state.forget_places();
        assert!(!state.swapped(origin(3), origin(1)));
    }

    #[test]
    fn whoever_is_kept_out_weighs_more_than_whoever_has_failed_most() {
        let banned = OfOrigin { ban: Sentence { until_ms: 10, times: 1 }, keep_until_ms: 100, ..OfOrigin::default() };
        let free = OfOrigin { ban: Sentence { until_ms: 5, times: 1_000_000 }, ..banned };
        assert!(banned.weight(5) > free.weight(5) && free.weight(5) > 0);
        assert_eq!(banned.weight(100), 0);
    }

    #[test]
    fn states_are_as_small_as_said() {
        assert!(size_of::<(Origin, OfOrigin)>() <= 48);
        assert!(size_of::<([u8; 16], OfPair)>() <= 88);
        assert!(size_of::<([u8; 16], OfIdentity)>() <= 96);
    }
}
