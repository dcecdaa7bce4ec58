use proptest::prelude::*;

use super::*;
use crate::cipher::policy::Suite;

const HOUR_MS: u64 = 3_600_000;

fn epochs(mono_ms: u64) -> Epochs {
    let policy = CipherPolicy::new(&[Suite::Gcm], 3600, 100, 60).expect("a policy");
    Epochs::new(7, &policy, mono_ms)
}

fn standings(epochs: &Epochs, mono_ms: u64) -> [Standing; 4] {
    [6, 7, 8, 9].map(|epoch| epochs.standing(epoch, mono_ms))
}

#[test]
fn an_epoch_follows_after_an_hour_and_the_former_has_a_minute() {
    use Standing::{Current, Over, Previous, Unknown};
    let mut epochs = epochs(1000);
    assert_eq!(epochs.poll(1000), Some(Step::Announce));
    epochs.confirm();
    assert_eq!(epochs.poll(1000 + HOUR_MS - 1), None);
    assert_eq!(epochs.deadline_ms(), 1000 + HOUR_MS);
    assert_eq!(standings(&epochs, 1000 + HOUR_MS), [Unknown, Current, Unknown, Unknown]);
    assert_eq!(epochs.poll(1000 + HOUR_MS), Some(Step::Next(8)));
    epochs.confirm();
    assert_eq!(standings(&epochs, 1000 + HOUR_MS + 59_999), [Unknown, Previous, Current, Unknown]);
    assert_eq!(standings(&epochs, 1000 + HOUR_MS + 60_000), [Unknown, Over, Current, Unknown]);
    assert_eq!(epochs.deadline_ms(), 1000 + HOUR_MS + 60_000);
    assert_eq!(epochs.poll(1000 + HOUR_MS + 60_000), None);
    assert!(!epochs.has_previous());
    assert_eq!(epochs.poll(1000 + 2 * HOUR_MS), Some(Step::Next(9)));
    assert_eq!(standings(&epochs, 1000 + 2 * HOUR_MS), [Unknown, Over, Previous, Current]);
}

#[test]
fn an_epoch_follows_after_its_messages_but_not_within_the_grace() {
    let mut epochs = epochs(0);
    assert_eq!(epochs.poll(0), Some(Step::Announce));
    epochs.confirm();
    for _ in 0..99 {
        epochs.count();
        assert_eq!(epochs.poll(0), None);
    }
    epochs.count();
    assert_eq!(epochs.deadline_ms(), 0);
    assert_eq!(epochs.poll(10), Some(Step::Next(8)));
    epochs.confirm();
    (0..1000).for_each(|_| epochs.count());
    assert_eq!(epochs.poll(60_009), None);
    assert_eq!(epochs.deadline_ms(), 60_010);
    assert_eq!(epochs.poll(60_010), Some(Step::Next(9)));
}

#[test]
fn an_announcement_is_repeated_until_the_device_has_heard_it() {
    let mut epochs = epochs(0);
    for at in [0, 15_000, 30_000, 45_000] {
        assert_eq!(epochs.deadline_ms(), at);
        assert_eq!(epochs.poll(at), Some(Step::Announce));
        assert_eq!(epochs.poll(at + 14_999), None);
    }
    assert_eq!(epochs.deadline_ms(), HOUR_MS);
    assert_eq!(epochs.poll(HOUR_MS), Some(Step::Next(8)));
    assert_eq!(epochs.poll(HOUR_MS + 15_000), Some(Step::Announce));
    epochs.confirm();
    assert_eq!(epochs.poll(HOUR_MS + 30_000), None);
    // A message in a former epoch shows that it hasn't; a flood of them brings no flood of announcements.
    for at in [HOUR_MS + 70_000, HOUR_MS + 85_000] {
        epochs.remind(at);
        assert_eq!(epochs.poll(at), Some(Step::Announce));
        epochs.remind(at + 14_999);
        assert_eq!(epochs.poll(at + 14_999), None);
    }
}

#[test]
fn a_long_sleep_gives_one_epoch_and_a_whole_grace() {
    let mut epochs = epochs(0);
    assert_eq!(epochs.poll(0), Some(Step::Announce));
    epochs.confirm();
    let woken = 1000 * HOUR_MS;
    assert_eq!(epochs.standing(7, woken), Standing::Current);
    assert_eq!(epochs.poll(woken), Some(Step::Next(8)));
    assert_eq!(epochs.poll(woken), None);
    assert_eq!(epochs.standing(7, woken + 59_999), Standing::Previous);
}

proptest! {
    #[test]
    fn whatever_the_clock_does(steps in proptest::collection::vec((
        prop_oneof![8 => 0_u64..30_000, 2 => 0_u64..HOUR_MS * 3, 1 => Just(u64::MAX / 64)], 0_u32..150, 0_u8..4), 1..200)) {
        let mut epochs = epochs(0);
        let (mut now, mut turned_at) = (0_u64, None::<u64>);
        for (pause, messages, what) in steps {
            now = now.saturating_add(pause);
            (0..messages).for_each(|_| epochs.count());
            match what {
                0 => epochs.confirm(),
                1 => epochs.remind(now),
                _ => {}
            }
            let before = epochs.current();
            let mut announced = 0;
            while let Some(step) = epochs.poll(now) {
                announced += 1;
                prop_assert!(announced <= 2, "nothing is announced again and again");
                if let Step::Next(next) = step {
                    prop_assert_eq!(next, before + 1);
                    prop_assert!(turned_at.is_none_or(|at| now >= at + 60_000), "the grace is whole");
                    turned_at = Some(now);
                }
            }
            prop_assert!(epochs.deadline_ms() > now || now == u64::MAX);
            let current = epochs.current();
            prop_assert_eq!(epochs.standing(current, now), Standing::Current);
            prop_assert_eq!(epochs.standing(current + 1, now), Standing::Unknown);
            if current > 7 {
                let is_in_grace = turned_at.is_some_and(|at| now < at.saturating_add(60_000));
                let expected = if is_in_grace { Standing::Previous } else { Standing::Over };
                prop_assert_eq!(epochs.standing(current - 1, now), expected);
                prop_assert_eq!(epochs.has_previous(), is_in_grace);
            }
        }
    }
}
