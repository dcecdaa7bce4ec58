use proptest::prelude::*;

use super::*;

/// On both clocks.
fn at(ms: u64) -> Now {
    Now { mono_ms: ms, unix_ms: 1_700_000_000_000 + ms }
}

/// A device without a share of its own.
fn of(device: &str) -> Holder<'_> {
    Holder { product: "p", device, share: None }
}

/// Takes a nonce with a password of this moment.
fn take(nonces: &Nonces, device: &str, nonce: &str, ms: u64) -> Use {
    nonces.take(of(device), nonce, at(ms).unix_ms + WINDOW_MS, ms)
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
    let Use::First { record } = before.take(of("d"), "n", 5000, 77) else { panic!("new") };
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
            let used = after.take(of("d"), "n", 5000, mono_ms);
            assert_eq!(used == Use::Again, kept || mono_ms > 3, "{now_ms} {mono_ms}");
        }
        assert!(is_first(after.take(of("d"), "m", 5000, 3)));
    }
}

/// Files outlive the program: what one version keeps the next one has to know.
#[test]
fn a_record_is_what_it_has_always_been() {
    let holder = Holder { product: "lamp", device: "one", share: Some(1) };
    let Use::First { record } = Nonces::new(10).take(holder, "n", 5000, 77) else { panic!("new") };
    let hash = Sha256::digest("lamp\0one\0n\0");
    assert_eq!(record, *[&hash[..16], &5000_u64.to_be_bytes()].concat());
}

#[test]
fn what_is_restored_is_bounded_and_what_is_lost_is_counted() {
    let before = Nonces::new(100_000);
    let records = (0..1000).map(|n| match before.take(of("d"), &n.to_string(), 5000, 0) {
        Use::First { record } => record,
        other => panic!("{other:?}"),
    });
    let restored = Nonces::new(PARTS).restore(records, Now::default());
    assert_eq!(restored, Restored { kept: PARTS as u64, expired: 0, lost: 1000 - PARTS as u64 });
}

#[test]
fn a_holder_has_no_more_than_its_share() {
    let nonces = Nonces::new(100_000);
    let take = |device, nonce: u32, share, ms| {
        let holder = Holder { product: "p", device, share };
        nonces.take(holder, &nonce.to_string(), u64::MAX, ms)
    };
    for start in [0, GENERATION_MS] {
        let uses: Vec<Use> = (0..50).map(|n| take("d", n + 1000 * u32::from(start > 0), Some(10), start)).collect();
        assert_eq!(uses.iter().filter(|used| is_first(**used)).count(), 10);
        assert!(uses.iter().skip(10).all(|used| *used == Use::OverShare));
    }
    assert_eq!(take("d", 1003, Some(10), GENERATION_MS), Use::Again, "what was used is told from what is too much");
    assert_eq!(take("d", 3, Some(10), GENERATION_MS), Use::Again);
    assert!(is_first(take("e", 1, Some(10), GENERATION_MS)) && is_first(take("d", 77, None, GENERATION_MS)));
    assert!(!nonces.is_full(GENERATION_MS), "nobody was kept out but itself");
    assert_eq!(nonces.room(GENERATION_MS), (12, 100_000));
}

#[test]
fn who_found_no_room_is_known_for_a_minute() {
    let nonces = Nonces::new(PARTS);
    assert!(!nonces.is_full(0));
    assert!((0..1000).any(|n| take(&nonces, "d", &n.to_string(), 5) == Use::Full));
    assert!(nonces.is_full(5) && nonces.is_full(5 + FULL_MS) && !nonces.is_full(6 + FULL_MS));
}

proptest! {
    /// Of no holder there are more than its share, and what is counted is bounded by what is remembered.
    #[test]
    fn shares_hold(steps in proptest::collection::vec((0..4_u8, 0..200_u8, 0..GENERATION_MS), 1..200)) {
        let (nonces, mut ms, mut taken) = (Nonces::new(1000), 0, HashMap::<(u8, u64), u32>::new());
        for (device, nonce, pause_ms) in steps {
            ms += pause_ms / 20;
            let name = device.to_string();
            let holder = Holder { product: "p", device: &name, share: Some(3) };
            let count = taken.entry((device, ms / GENERATION_MS)).or_default();
            match nonces.take(holder, &nonce.to_string(), u64::MAX, ms) {
                Use::First { .. } => *count += 1,
                Use::OverShare => prop_assert_eq!(*count, 3),
                Use::Again => {}
                Use::Full => prop_assert!(false, "there is room"),
            }
            prop_assert!(*count <= 3);
        }
        let generation = ms / GENERATION_MS;
        let shares = nonces.shares.iter().map(|shares| shares.lock()).filter(|shares| shares.generation == generation);
        let counted: usize = shares.map(|shares| shares.taken.len()).sum();
        prop_assert!(counted <= nonces.room(ms).0);
    }

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
                match nonces.take(of("d"), &name, until_ms, now(started_ms).mono_ms) {
                    Use::First { record } => {
                        prop_assert!(opened.insert(name.clone()), "{} twice", name);
                        journal.push(record);
                    }
                    Use::Again => prop_assert!(opened.contains(&name)),
                    Use::Full | Use::OverShare => prop_assert!(false, "there is room"),
                }
            }
        }
    }
}
