//! When sets of keys for tokens are fetched: what there is to fetch, how old it is, and what a log-in has asked for before its time.
//!
//! A set is fetched when it is new and then every five minutes ([`KEYS_AGE_MS`]); after a failure in five seconds, then half as often each time. A token that
//! names a key which isn't in the set has it fetched at once, since its issuer may have changed keys: at most once in [`ASKED_INTERVAL_MS`] from one source,
//! whoever asks how often, and never twice at the same time. Apps with one source share its fetches.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use super::apps::KeySource;

/// How old a set becomes before it is fetched again, in milliseconds.
pub const KEYS_AGE_MS: u64 = 300_000;
/// The first pause after a failure, in milliseconds; it doubles up to [`KEYS_AGE_MS`].
pub const KEYS_PAUSE_MS: u64 = 5_000;
/// Between two fetches of one source that tokens have asked for, in milliseconds.
pub const ASKED_INTERVAL_MS: u64 = 30_000;

/// Figures for metrics.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct KeyFigures {
    /// Fetches that gave a set.
    pub fetched: u64,
    /// Fetches that gave none.
    pub failed: u64,
    /// Fetches that a token had asked for.
    pub asked: u64,
    /// Sources.
    pub sources: u64,
    /// How long ago the set was fetched that is the oldest, in milliseconds; a source that never gave one counts from when it was known.
    pub oldest_ms: u64,
}

/// All sources. Asked by shards, worked off by whoever does I/O. Times are of the clock that never goes back.
#[derive(Debug, Default)]
pub struct KeyDesk {
    sources: Mutex<HashMap<KeySource, Kept, foldhash::fast::RandomState>>,
    fetched: AtomicU64,
    failed: AtomicU64,
    asked: AtomicU64,
}

#[derive(Debug)]
struct Kept {
    due_ms: u64,
    pause_ms: u64,
    busy: bool,
    /// When a token's question was last heeded.
    heeded_ms: Option<u64>,
    /// When it last gave a set, or was new.
    since_ms: u64,
}

impl KeyDesk {
    /// A token names a key that the set of this source doesn't have. True if a fetch is under way, or will be at once: then the log-in may be tried again soon.
    pub(super) fn ask(&self, source: &KeySource, mono_ms: u64) -> bool {
        let mut sources = self.sources.lock();
        // Not known yet: it is about to be.
        let Some(kept) = sources.get_mut(source) else { return true };
        if kept.busy || kept.due_ms <= mono_ms {
            return true;
        }
        if kept.heeded_ms.is_some_and(|at_ms| mono_ms < at_ms.saturating_add(ASKED_INTERVAL_MS)) {
            return false;
        }
        kept.heeded_ms = Some(mono_ms);
        kept.due_ms = mono_ms;
        self.asked.fetch_add(1, Relaxed);
        true
    }

    /// Up to `limit` sources, of those that there are now, that are to be fetched; each is under way until [`Self::done`].
    pub fn take_due(&self, now: &[KeySource], limit: usize, mono_ms: u64) -> Vec<KeySource> {
        let mut sources = self.sources.lock();
        // One that is under way stays, so that it isn't fetched twice at once.
        let there: HashSet<&KeySource> = now.iter().collect();
        sources.retain(|source, kept| kept.busy || there.contains(source));
        let mut due = Vec::new();
        for source in now {
            let new =
                || Kept { due_ms: mono_ms, pause_ms: KEYS_PAUSE_MS, busy: false, heeded_ms: None, since_ms: mono_ms };
            let kept = sources.entry(source.clone()).or_insert_with(new);
            if !kept.busy && kept.due_ms <= mono_ms && due.len() < limit {
                kept.busy = true;
                due.push(source.clone());
            }
        }
        due
    }

    /// A fetch has ended, with a set or without.
    pub fn done(&self, source: &KeySource, fetched: bool, mono_ms: u64) {
        if fetched { &self.fetched } else { &self.failed }.fetch_add(1, Relaxed);
        let mut sources = self.sources.lock();
        let Some(kept) = sources.get_mut(source) else { return };
        kept.busy = false;
        if fetched {
            (kept.pause_ms, kept.since_ms, kept.due_ms) = (KEYS_PAUSE_MS, mono_ms, mono_ms + KEYS_AGE_MS);
        } else {
            kept.due_ms = mono_ms + kept.pause_ms;
            kept.pause_ms = (kept.pause_ms * 2).min(KEYS_AGE_MS);
        }
    }

    /// Figures for metrics.
    #[must_use]
    pub fn figures(&self, mono_ms: u64) -> KeyFigures {
        let sources = self.sources.lock();
        let oldest = sources.values().map(|kept| mono_ms.saturating_sub(kept.since_ms)).max();
        KeyFigures {
            fetched: self.fetched.load(Relaxed),
            failed: self.failed.load(Relaxed),
            asked: self.asked.load(Relaxed),
            sources: sources.len() as u64,
            oldest_ms: oldest.unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn url(name: &str) -> KeySource {
        KeySource::Url(name.into())
    }

    #[test]
    fn a_set_is_fetched_when_new_when_old_and_sooner_after_a_failure() {
        let (desk, one) = (KeyDesk::default(), [url("one")]);
        assert_eq!(desk.take_due(&one, 9, 0), one);
        assert!(desk.take_due(&one, 9, 1).is_empty(), "under way");
        desk.done(&one[0], true, 10);
        assert!(desk.take_due(&one, 9, KEYS_AGE_MS + 9).is_empty());
        assert_eq!(desk.take_due(&one, 9, KEYS_AGE_MS + 10), one);
        let mut now_ms = KEYS_AGE_MS + 10;
        for pause_ms in [5_000, 10_000, 20_000, 40_000, 80_000, 160_000, 300_000, 300_000] {
            desk.done(&one[0], false, now_ms);
            assert!(desk.take_due(&one, 9, now_ms + pause_ms - 1).is_empty(), "{pause_ms}");
            now_ms += pause_ms;
            assert_eq!(desk.take_due(&one, 9, now_ms), one, "{pause_ms}");
        }
        let figures = desk.figures(now_ms);
        assert_eq!((figures.fetched, figures.failed, figures.sources), (1, 8, 1));
        assert_eq!(figures.oldest_ms, now_ms - 10);
    }

    #[test]
    fn an_unknown_key_has_the_set_fetched_at_once_and_not_too_often() {
        let (desk, one) = (KeyDesk::default(), [url("one")]);
        assert!(desk.ask(&one[0], 0), "it is about to be fetched");
        desk.take_due(&one, 9, 0);
        assert!(desk.ask(&one[0], 1), "it is under way");
        desk.done(&one[0], true, 2);
        assert!(desk.ask(&one[0], 3) && desk.ask(&one[0], 3));
        assert_eq!(desk.take_due(&one, 9, 3), one);
        desk.done(&one[0], true, 4);
        assert!(!desk.ask(&one[0], 5) && !desk.ask(&one[0], ASKED_INTERVAL_MS + 2));
        assert!(desk.take_due(&one, 9, ASKED_INTERVAL_MS + 2).is_empty());
        assert!(desk.ask(&one[0], ASKED_INTERVAL_MS + 3));
        assert_eq!(desk.take_due(&one, 9, ASKED_INTERVAL_MS + 3), one);
        assert_eq!(desk.figures(0).asked, 2);
        desk.done(&one[0], true, ASKED_INTERVAL_MS + 4);
        assert!(desk.take_due(&[], 9, ASKED_INTERVAL_MS + 5).is_empty());
        assert_eq!(desk.figures(0).sources, 0);
    }

    proptest! {
        /// Whoever asks how often: one source is never fetched twice at once, and what tokens ask for keeps its interval.
        #[test]
        fn asking_is_bounded(steps in proptest::collection::vec((0_u8..4, 0_u64..20_000), 1..200)) {
            let (desk, one) = (KeyDesk::default(), [url("one")]);
            let (mut now_ms, mut busy, mut fetches) = (0, false, 0_u64);
            for (step, pause_ms) in steps {
                now_ms += pause_ms;
                match step {
                    0 | 1 => drop(desk.ask(&one[0], now_ms)),
                    2 => {
                        let due = desk.take_due(&one, 9, now_ms);
                        prop_assert!(due.is_empty() || !busy);
                        busy |= !due.is_empty();
                        fetches += due.len() as u64;
                    }
                    _ if busy => {
                        desk.done(&one[0], true, now_ms);
                        busy = false;
                    }
                    _ => {}
                }
            }
            prop_assert!(desk.figures(now_ms).asked <= now_ms / ASKED_INTERVAL_MS + 1);
            prop_assert!(fetches <= now_ms / ASKED_INTERVAL_MS + now_ms / KEYS_AGE_MS + 2);
        }
    }
}
