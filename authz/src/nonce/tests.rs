use proptest::prelude::*;

use super::*;

/// On both clocks.
fn at(ms: u64) -> Now {
    Now { mono_ms: ms, unix_ms: 1_700_000_000_000 + ms }
}

/// Takes a nonce with a password of this moment.
fn take(nonces: &Nonces, device: &str, nonce: &str, ms: u64) -> Use {
    nonces.take("p", device, nonce, at(ms).unix_ms + WINDOW_MS, ms)
}

fn is_first(used: Use) -> bool {
    matches!(used, Use::First { .. })
}

#[test]
fn a_nonce_is_good_once_while_its_timestamp_could_be() {
    for start in [0, 1, GENERATION_MS - 1, GENERATION_MS, 12_345_678] {
        let nonces = Nonces::new(1000);
        assert!(is_first(take(&nonces, "d", "n", start)));
        for later in [0, 1, WINDOW_MS, GENERATION_MS - 1, GENERATION_MS] {
            assert_eq!(take(&nonces, "d", "n", start + later), Use::Again, "{start} + {later}");
        }
        assert!(is_first(take(&nonces, "e", "n", start)));
        assert!(is_first(take(&nonces, "d", "m", start)));
        assert!(is_first(take(&nonces, "d", "n", start + 5 * GENERATION_MS)));
    }
}

#[test]
fn what_cannot_be_remembered_is_not_let_in() {
    let nonces = Nonces::new(PARTS);
    let uses: Vec<Use> = (0..1000).map(|n| take(&nonces, "d", &n.to_string(), 1)).collect();
    assert_eq!(uses.iter().filter(|used| is_first(**used)).count(), PARTS);
    assert!(uses.contains(&Use::Full));
    let next: Vec<Use> = (0..1000).map(|n| take(&nonces, "d", &n.to_string(), GENERATION_MS)).collect();
    assert_eq!(next.iter().filter(|used| is_first(**used)).count(), PARTS, "room comes back with time");
    assert_eq!(next.iter().filter(|used| **used == Use::Again).count(), PARTS, "what was used stays used");
}

#[test]
fn a_restart_forgets_nothing_that_counts() {
    let before = Nonces::new(1000);
    let Use::First { record } = before.take("p", "d", "n", 5000, 77) else { panic!("new") };
    assert_eq!(until_ms(&record), 5000);
    for (now_ms, kept) in [(0, true), (5000, true), (5001, false), (u64::MAX, false)] {
        let after = Nonces::new(1000);
        let now = Now { mono_ms: 3, unix_ms: now_ms };
        let restored = after.restore([record, record], now);
        let both = if kept {
            Restored { kept: 2, ..Restored::default() }
        } else {
            Restored { expired: 2, ..Restored::default() }
        };
        assert_eq!(restored, both, "{now_ms}");
        for mono_ms in [3, GENERATION_MS, GENERATION_MS + 3] {
            let used = after.take("p", "d", "n", 5000, mono_ms);
            assert_eq!(used == Use::Again, kept || mono_ms > 3, "{now_ms} {mono_ms}");
        }
        assert!(is_first(after.take("p", "d", "m", 5000, 3)));
    }
}

#[test]
fn what_is_restored_is_bounded_and_what_is_lost_is_counted() {
    let before = Nonces::new(100_000);
    let records = (0..1000).map(|n| match before.take("p", "d", &n.to_string(), 5000, 0) {
        Use::First { record } => record,
        other => panic!("{other:?}"),
    });
    let restored = Nonces::new(PARTS).restore(records, Now::default());
    assert_eq!(restored, Restored { kept: PARTS as u64, expired: 0, lost: 1000 - PARTS as u64 });
}

proptest! {
    /// Whenever the process ends, no password opens twice.
    #[test]
    fn no_password_opens_twice(
        steps in proptest::collection::vec((0..6_u8, 0..3 * WINDOW_MS, any::<bool>()), 1..40),
    ) {
        let mut nonces = Nonces::new(1000);
        let (mut now_ms, mut started_ms) = (WINDOW_MS, 0);
        let mut journal = Vec::new();
        let mut opened = HashSet::new();
        for (nonce, pause_ms, restart) in steps {
            now_ms += pause_ms;
            let now = |started_ms| Now { mono_ms: now_ms - started_ms, unix_ms: at(now_ms).unix_ms };
            if restart {
                started_ms = now_ms;
                nonces = Nonces::new(1000);
                let _ = nonces.restore(journal.iter().copied(), now(started_ms));
            }
            // A password is one of a nonce and a timestamp that doesn't change; both clocks of the device are right or off by up to the window.
            for timestamp_ms in (0..now_ms + WINDOW_MS).step_by(WINDOW_MS as usize / 2).filter(|ms| ms.abs_diff(now_ms) <= WINDOW_MS) {
                let until_ms = at(timestamp_ms).unix_ms + WINDOW_MS;
                let name = format!("{nonce}-{timestamp_ms}");
                match nonces.take("p", "d", &name, until_ms, now(started_ms).mono_ms) {
                    Use::First { record } => {
                        prop_assert!(opened.insert(name.clone()), "{} twice", name);
                        journal.push(record);
                    }
                    Use::Again => prop_assert!(opened.contains(&name)),
                    Use::Full => prop_assert!(false, "there is room"),
                }
            }
        }
    }
}
