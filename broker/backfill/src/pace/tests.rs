use super::*;

fn ten_seconds() -> Settings {
    Settings { turn_ms: 10_000, ..Settings::default() }
}

#[test]
fn nobody_waits_while_nobody_queues() {
    let mut pacer = Pacer::new(Settings::default(), 100_000);
    for ms in 0..10 {
        assert_eq!(pacer.slot(ms * 1000, "p", &ms.to_string()), Pace { after_ms: 0, records_per_s: 2000 });
    }
}

#[test]
fn a_device_that_comes_early_is_told_the_same_moment_and_then_goes() {
    let mut pacer = Pacer::new(ten_seconds(), 2000);
    assert_eq!(pacer.slot(0, "p", "a").after_ms, 0);
    assert_eq!(pacer.slot(0, "p", "b").after_ms, 10_000);
    assert_eq!(pacer.slot(4_000, "p", "b").after_ms, 6_000);
    assert_eq!(pacer.slot(10_000, "p", "b").after_ms, 0);
    assert_eq!(pacer.slot(19_999, "p", "b").after_ms, 0);
    // Its turn is over, and nobody else waits.
    assert_eq!(pacer.slot(20_000, "p", "b").after_ms, 0);
    assert_eq!(pacer.slot(20_000, "p", "a").after_ms, 10_000);
}

#[test]
fn a_fleet_that_comes_at_once_is_spread_within_the_rate_and_held_within_bounds() {
    let settings = ten_seconds();
    let mut pacer = Pacer::new(settings, 100_000);
    let mut told: Vec<u64> = (0..100_000).map(|device| pacer.slot(0, "p", &device.to_string()).after_ms).collect();
    // A turn each 200 ms for half an hour; the others come later, each at its moment.
    let held = 30 * 60 * 5 + 1;
    assert_eq!(pacer.turns(), held);
    assert!(told[..held].windows(2).all(|pair| pair[1] - pair[0] == 200));
    let mut later = told.split_off(held);
    assert!(later.iter().all(|after| (settings.ahead_ms_max / 2..settings.ahead_ms_max).contains(after)));
    later.sort_unstable();
    let most = later.chunk_by(|one, other| one / 1000 == other / 1000).map(<[u64]>::len).max();
    assert!(most.is_some_and(|most| most < 200), "{most:?}");
}

#[test]
fn turns_that_have_ended_make_room() {
    let mut pacer = Pacer::new(Settings { turns_max: 10, ..ten_seconds() }, 1_000_000);
    for device in 0..20 {
        let _ = pacer.slot(0, "p", &device.to_string());
    }
    assert_eq!(pacer.turns(), 10);
    assert!(pacer.slot(500, "p", "x").after_ms > 0);
    assert_eq!(pacer.slot(60_000, "p", "x").after_ms, 0);
    assert_eq!(pacer.turns(), 1);
}
