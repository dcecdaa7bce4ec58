use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::machine::Running;

fn at(s: u64) -> Now {
    Now { mono_ms: s * 1000, unix_ms: (1_000_000 + s) * 1000 }
}

const LIMITS: Limits =
    Limits { offered_s: 10, accepted_s: 20, downloading_s: 30, downloaded_s: 40, verified_s: 50, applying_s: 60 };

fn fleet(devices: u32) -> Fleet {
    let mut fleet = Fleet::new(2, LIMITS);
    for device in 0..devices {
        assert_eq!(fleet.insert(DeviceKey(device), (device % 2) as u8, 1_000_000), Some(Slot(device)));
    }
    fleet
}

#[test]
fn a_member_is_small() {
    assert!(size_of::<Entry>() <= 28, "{}", size_of::<Entry>());
}

#[test]
fn a_device_is_in_a_fleet_once_and_in_a_group_that_exists() {
    let mut fleet = fleet(3);
    assert_eq!(fleet.insert(DeviceKey(1), 0, 0), None);
    assert_eq!(fleet.insert(DeviceKey(9), 2, 0), None);
    assert_eq!((fleet.len(), fleet.count(0, Kind::Queued), fleet.count(1, Kind::Queued)), (3, 2, 1));
    assert_eq!((fleet.find(DeviceKey(2)), fleet.find(DeviceKey(9))), (Some(Slot(2)), None));
}

#[test]
fn whoever_is_too_long_in_a_state_is_overdue_whatever_the_order() {
    let mut fleet = fleet(3);
    fleet.apply(Slot(0), Event::Offered, at(0)).expect("offered");
    fleet.apply(Slot(1), Event::Offered, at(1)).expect("offered");
    fleet.apply(Slot(2), Event::Offered, at(2)).expect("offered");
    fleet.apply(Slot(0), Event::Applying, at(3)).expect("applying");
    assert_eq!(fleet.overdue(at(10)), None);
    assert_eq!(fleet.overdue(at(11)), Some(Slot(1)));
    fleet.apply(Slot(1), Event::Timeout, at(11)).expect("timeout");
    assert_eq!((fleet.overdue(at(11)), fleet.overdue(at(12))), (None, Some(Slot(2))));
    fleet.apply(Slot(2), Event::Accept, at(12)).expect("accept");
    assert_eq!((fleet.overdue(at(31)), fleet.overdue(at(32))), (None, Some(Slot(2))));
    fleet.apply(Slot(2), Event::Reported(Running::New), at(32)).expect("reported");
    assert_eq!((fleet.overdue(at(62)), fleet.overdue(at(63))), (None, Some(Slot(0))));
}

#[test]
fn a_restart_leaves_what_is_left_of_a_limit() {
    let mut fleet = fleet(2);
    let standing = |state, since_s| Standing { state, reason: Reason::NONE, since_s };
    let now = Now { mono_ms: 5000, unix_ms: 1_000_100_000 };
    fleet.restore(Slot(0), standing(State::Applying, 1_000_050), 1, now);
    fleet.restore(Slot(1), standing(State::Downloading(7), 1_000_090), 0, now);
    assert_eq!(fleet.member(Slot(0)).map(|member| member.retries), Some(1));
    assert_eq!(
        (fleet.count(0, Kind::Applying), fleet.count(1, Kind::Downloading), fleet.total(Kind::Queued)),
        (1, 1, 0)
    );
    let later = |s: u64| Now { mono_ms: (5 + s) * 1000, unix_ms: now.unix_ms };
    // The first has spent 50 of 60 seconds, longer than this process has been there; the other one 10 of 30.
    assert_eq!((fleet.overdue(later(9)), fleet.overdue(later(10))), (None, Some(Slot(0))));
    fleet.apply(Slot(0), Event::Timeout, later(10)).expect("timeout");
    assert_eq!((fleet.overdue(later(19)), fleet.overdue(later(20))), (None, Some(Slot(1))));
}

#[test]
fn a_cancelled_queue_is_seen_as_such_without_being_touched() {
    let mut fleet = fleet(4);
    fleet.apply(Slot(0), Event::Offered, at(0)).expect("offered");
    fleet.cancel_queue(77);
    assert_eq!((fleet.total(Kind::Queued), fleet.total(Kind::Cancelled), fleet.total(Kind::Offered)), (0, 3, 1));
    let cancelled = Standing { state: State::Cancelled, reason: Reason::STOPPED, since_s: 77 };
    assert_eq!(fleet.member(Slot(3)).map(|member| member.standing), Some(cancelled));
    assert!(fleet.apply(Slot(3), Event::Offered, at(1)).is_err());
    assert_eq!(fleet.apply(Slot(3), Event::Cancel(Reason::GONE), at(1)), Ok(None));
    assert_eq!(fleet.members(Slot(1)).count(), 3);
}

fn event() -> impl Strategy<Value = Event> {
    prop::sample::select(vec![
        Event::Offered,
        Event::Offered,
        Event::Offered,
        Event::Accept,
        Event::Progress(3),
        Event::Progress(70),
        Event::Downloaded,
        Event::Verified,
        Event::Applying,
        Event::Reported(Running::New),
        Event::Fail { retryable: true, reason: Reason::SPACE },
        Event::Cancel(Reason::GONE),
        Event::Retry,
        Event::Retry,
    ])
}

proptest! {
    /// Against a map of standings and the seconds at which they were entered.
    #[test]
    fn counts_and_deadlines_are_those_of_the_naive_model(
        events in prop::collection::vec((0..6u32, event(), 0..8u64), 0..200),
    ) {
        let mut fleet = fleet(6);
        let mut model: BTreeMap<u32, (Standing, u64)> =
            (0..6).map(|device| (device, (Standing::queued(1_000_000), 0))).collect();
        let mut now = 0;
        for (device, event, pause) in events {
            now += pause;
            let entry = model.get_mut(&device).expect("a device");
            let expected = step(entry.0, event, unix_s(at(now)));
            let got = fleet.apply(Slot(device), event, at(now));
            prop_assert_eq!(got.map(|_| ()), expected.map(|_| ()));
            if let Ok(to) = expected {
                let same = to.state.kind() == entry.0.state.kind();
                *entry = (to, if same { entry.1 } else { now });
            }
            for (device, (standing, _)) in &model {
                prop_assert_eq!(fleet.member(Slot(*device)).map(|member| member.standing), Some(*standing));
            }
            for kind in Kind::ALL {
                for group in 0..2u8 {
                    let count = model.iter().filter(|(device, (standing, _))| {
                        **device % 2 == u32::from(group) && standing.state.kind() == kind
                    });
                    prop_assert_eq!(fleet.count(group, kind) as usize, count.count());
                }
            }
            let mut overdue = Vec::new();
            while let Some(slot) = fleet.overdue(at(now)) {
                fleet.apply(slot, Event::Timeout, at(now)).expect("timeout");
                overdue.push(slot.0);
            }
            overdue.sort_unstable();
            let due = model.iter_mut().filter_map(|(device, (standing, since))| {
                let limit = LIMITS.of(standing.state.kind())?;
                if *since + u64::from(limit) > now {
                    return None;
                }
                *standing = step(*standing, Event::Timeout, unix_s(at(now))).expect("timeout");
                *since = now;
                Some(*device)
            });
            prop_assert_eq!(overdue, due.collect::<Vec<_>>());
        }
    }
}
