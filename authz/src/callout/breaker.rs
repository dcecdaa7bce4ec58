//! A circuit breaker: whoever has failed several times on end isn't asked for a while, and then by one call alone.
//!
//! ```text
//!            failures on end            time is over
//!  Closed ────────────────────▶ Open ──────────────────▶ Probing
//!    ▲                           ▲   twice as long, up      │ │
//!    │                           └───── to the most ────────┘ │   failed, or not heard of
//!    └─────────────────────────────────────────────────────────┘   succeeded
//! ```
//!
//! Calls under way when it opens change nothing when they end: a [`Permit`] counts in the epoch that it was given in.

/// When it opens, and for how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BreakerTerms {
    /// Failures without a success between them after which it opens; at least 1.
    pub failures: u32,
    /// For how long it stays open the first time, milliseconds.
    pub open_ms: u64,
    /// And at most, since the time doubles with each probe that fails; milliseconds.
    pub open_most_ms: u64,
    /// After how many milliseconds a probe that wasn't heard of is given up.
    pub probe_ms: u64,
}

/// Leave to make one call. What became of it is told to [`Breaker::succeeded`] or [`Breaker::failed`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Permit {
    epoch: u64,
}

/// The breaker. Closed at first.
#[derive(Clone, Debug)]
pub struct Breaker {
    terms: BreakerTerms,
    state: State,
    /// Counts up with each change of `state`.
    epoch: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Everybody may call.
    Closed { failures: u32 },
    /// Nobody may.
    Open { until_ms: u64, for_ms: u64 },
    /// One call is under way.
    Probing { until_ms: u64, for_ms: u64 },
}

impl Breaker {
    /// A closed one.
    #[must_use]
    pub fn new(terms: BreakerTerms) -> Self {
        Self { terms, state: State::Closed { failures: 0 }, epoch: 0 }
    }

    /// Leave to call, or none.
    pub fn permit(&mut self, now_ms: u64) -> Option<Permit> {
        match self.state {
            State::Closed { .. } => {}
            State::Open { until_ms, .. } | State::Probing { until_ms, .. } if now_ms < until_ms => return None,
            State::Open { for_ms, .. } | State::Probing { for_ms, .. } => {
                let until_ms = now_ms.saturating_add(self.terms.probe_ms);
                self.enter(State::Probing { until_ms, for_ms });
            }
        }
        Some(Permit { epoch: self.epoch })
    }

    /// A call was answered. Says whether that has closed the breaker.
    pub fn succeeded(&mut self, permit: Permit) -> bool {
        if permit.epoch != self.epoch {
            return false;
        }
        match &mut self.state {
            State::Closed { failures } => {
                *failures = 0;
                false
            }
            State::Open { .. } | State::Probing { .. } => {
                self.enter(State::Closed { failures: 0 });
                true
            }
        }
    }

    /// A call wasn't answered. Says for how many milliseconds the breaker is open now, if that has opened it.
    pub fn failed(&mut self, permit: Permit, now_ms: u64) -> Option<u64> {
        if permit.epoch != self.epoch {
            return None;
        }
        let for_ms = match &mut self.state {
            State::Closed { failures } => {
                *failures = failures.saturating_add(1);
                if *failures < self.terms.failures {
                    return None;
                }
                self.terms.open_ms.min(self.terms.open_most_ms)
            }
            State::Open { for_ms, .. } | State::Probing { for_ms, .. } => {
                for_ms.saturating_mul(2).min(self.terms.open_most_ms)
            }
        };
        self.enter(State::Open { until_ms: now_ms.saturating_add(for_ms), for_ms });
        Some(for_ms)
    }

    /// Whether calls are made freely.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.epoch += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TERMS: BreakerTerms = BreakerTerms { failures: 3, open_ms: 100, open_most_ms: 350, probe_ms: 50 };

    /// Fails as often as it takes, at that time.
    fn opened(now_ms: u64) -> Breaker {
        let mut breaker = Breaker::new(TERMS);
        let opened = [(); 3].map(|()| {
            let permit = breaker.permit(now_ms).expect("closed");
            breaker.failed(permit, now_ms)
        });
        assert_eq!(opened, [None, None, Some(100)]);
        breaker
    }

    #[test]
    fn a_success_between_failures_keeps_it_closed() {
        let mut breaker = Breaker::new(TERMS);
        for _ in 0..10 {
            for _ in 0..2 {
                let permit = breaker.permit(0).expect("closed");
                assert_eq!(breaker.failed(permit, 0), None);
            }
            let permit = breaker.permit(0).expect("closed");
            assert!(!breaker.succeeded(permit), "it was closed");
        }
        assert!(breaker.is_closed());
    }

    #[test]
    fn one_probe_decides_and_failed_ones_double_the_time() {
        let mut breaker = opened(0);
        assert_eq!(breaker.permit(99), None);
        let mut now_ms = 100;
        for for_ms in [200, 350, 350] {
            let probe = breaker.permit(now_ms).expect("its time is over");
            assert_eq!(breaker.permit(now_ms), None, "one alone");
            assert_eq!(breaker.failed(probe, now_ms), Some(for_ms));
            assert_eq!(breaker.permit(now_ms + for_ms - 1), None);
            now_ms += for_ms;
        }
        let probe = breaker.permit(now_ms).expect("its time is over");
        assert!(breaker.succeeded(probe) && breaker.is_closed());
        assert!(breaker.permit(now_ms).is_some() && breaker.permit(now_ms).is_some());
    }

    #[test]
    fn a_lost_probe_is_followed_by_another_and_late_ends_change_nothing() {
        let mut breaker = Breaker::new(TERMS);
        let early = breaker.permit(0).expect("closed");
        for _ in 0..3 {
            let permit = breaker.permit(0).expect("closed");
            breaker.failed(permit, 0);
        }
        assert!(!breaker.succeeded(early) && !breaker.is_closed(), "from before it opened");
        assert_eq!(breaker.failed(early, 0), None);
        let lost = breaker.permit(100).expect("a probe");
        assert_eq!(breaker.permit(149), None);
        let probe = breaker.permit(150).expect("another");
        assert_eq!(breaker.failed(lost, 150), None, "it was given up");
        assert!(breaker.succeeded(probe));
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Wait(u64),
        Ask,
        End(usize, bool),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0_u64..200).prop_map(Step::Wait),
            Just(Step::Ask),
            (any::<usize>(), any::<bool>()).prop_map(|(which, well)| Step::End(which, well)),
        ];
        proptest::collection::vec(step, 0..200)
    }

    proptest! {
        /// Against the sentences: in any `failures` ends on end there is a success, or nobody calls for the time said; while not closed,
        /// there is one probe for each time; a probe's success lets everybody call.
        #[test]
        fn it_keeps_its_word(steps in steps()) {
            let mut breaker = Breaker::new(TERMS);
            let (mut now_ms, mut under_way) = (0_u64, Vec::<(Permit, bool)>::new());
            let (mut on_end, mut shut_until_ms, mut open, mut probe) = (0_u32, 0_u64, false, None::<(Permit, u64)>);
            for step in steps {
                match step {
                    Step::Wait(ms) => now_ms += ms,
                    Step::Ask => {
                        let permit = breaker.permit(now_ms);
                        let given_up = probe.is_none_or(|(_, since_ms)| now_ms >= since_ms + TERMS.probe_ms);
                        prop_assert_eq!(permit.is_some(), !open || (now_ms >= shut_until_ms && given_up));
                        if let Some(permit) = permit {
                            under_way.push((permit, open));
                            if open {
                                probe = Some((permit, now_ms));
                            } else {
                                prop_assert!(probe.is_none());
                            }
                        }
                    }
                    Step::End(which, well) if !under_way.is_empty() => {
                        let (permit, was_probe) = under_way.swap_remove(which % under_way.len());
                        let counts = if open {
                            was_probe && probe.is_some_and(|(current, _)| current == permit)
                        } else {
                            permit.epoch == breaker.epoch
                        };
                        if well {
                            prop_assert_eq!(breaker.succeeded(permit), open && counts);
                            if counts {
                                (on_end, open, probe) = (0, false, None);
                            }
                        } else {
                            let opened = breaker.failed(permit, now_ms);
                            if counts {
                                on_end += 1;
                                prop_assert_eq!(opened.is_some(), open || on_end >= TERMS.failures);
                            } else {
                                prop_assert_eq!(opened, None);
                            }
                            if let Some(for_ms) = opened {
                                prop_assert!((TERMS.open_ms..=TERMS.open_most_ms).contains(&for_ms));
                                (shut_until_ms, open, probe, on_end) = (now_ms + for_ms, true, None, 0);
                            }
                        }
                        prop_assert_eq!(breaker.is_closed(), !open);
                    }
                    Step::End(..) => {}
                }
            }
        }

        #[test]
        fn no_numbers_overflow(failures in 1_u32..3, open_ms: u64, open_most_ms: u64, probe_ms: u64, times in any::<[u64; 8]>()) {
            let mut breaker = Breaker::new(BreakerTerms { failures, open_ms, open_most_ms, probe_ms });
            for now_ms in times {
                if let Some(permit) = breaker.permit(now_ms) {
                    breaker.failed(permit, now_ms);
                }
            }
        }
    }
}
