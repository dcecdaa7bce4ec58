use proptest::prelude::*;

use super::*;
use crate::people::Change;
use crate::people::bindings::Role;
use crate::people::plan::PlanError;
use crate::people::tests::{NOW_S, World, app_id, device, user};

const AT_ONCE: Ask<'_> = Ask { by: "operator:1", wait_s: 0, due_s: DUE_MAX_S };

fn ask(world: &mut World, user: &UserKey, ask: &Ask<'_>) -> ErasureNumber {
    let (number, change) = world.people.plan_erasure(user, ask, NOW_S).expect("a user");
    change.into_iter().for_each(|change| world.run(change));
    number
}

/// As the shell does it, with what it sees outside and what is left there afterwards.
fn attempt(world: &mut World, number: ErasureNumber, seen: &Counts, left: &Counts, now_s: u64) -> State {
    let changes = world.people.plan_erase(number, seen);
    world.run_all(changes);
    let change = world.people.plan_conclude(number, left, now_s).expect("it is open");
    world.run(change);
    world.people.erasure(number).expect("a report").state(now_s)
}

#[test]
fn what_a_user_had_is_erased_counted_and_named_no_more() {
    let mut world = World::new();
    let (o, c) = (user("a", "o"), user("a", "c"));
    for name in ["d", "e"] {
        world.bind(&device("p", name), &o);
    }
    world.share(&device("p", "d"), &c, Role::View, None);
    let issued = world.people.plan_issue_code(&o, 60, [1; 32], NOW_S).expect("a plan");
    world.run(issued.change);
    let number = ask(&mut world, &o, &AT_ONCE);
    assert_eq!(world.people.erasures_to_do(NOW_S, 9), [number]);
    let seen = Counts::default().with(Kind::Session, 2).with(Kind::Queued, 7);
    assert_eq!(attempt(&mut world, number, &seen, &Counts::default(), NOW_S + 1), State::Done);
    let report = world.people.erasure(number).expect("a report");
    let erased: Vec<u64> = report.erased.iter().map(|(_, count)| count).collect();
    assert_eq!(erased, [1, 2, 1, 1, 0, 0, 2, 7, 0]);
    assert_eq!((report.user_key(), report.done_at_s, &*report.masked), (None, Some(NOW_S + 1), "…(1)"));
    assert_eq!(world.people.kept_of(&o), Counts::default());
    assert!(world.people.bindings().users_of(&device("p", "d")).is_empty());
    assert!(world.people.erasures_to_do(u64::MAX, 9).is_empty() && !world.people.is_to_be_erased(&o));
    assert_eq!(world.people.plan_conclude(number, &Counts::default(), NOW_S), None);
    assert!(world.people.plan_erase(number, &seen).is_empty());
}

#[test]
fn what_is_left_is_tried_again_and_a_new_user_waits_for_it() {
    let mut world = World::new();
    let o = user("a", "o");
    let number = ask(&mut world, &o, &AT_ONCE);
    let left = Counts::default().with(Kind::Retained, 3);
    let mut now_s = NOW_S;
    for (nth, pause_s) in [1, 2, 4, 8].into_iter().enumerate() {
        assert_eq!(attempt(&mut world, number, &Counts::default(), &left, now_s), State::Failing);
        let report = world.people.erasure(number).expect("it is open");
        assert_eq!((report.failures as usize, report.left), (nth + 1, Some(Kind::Retained)));
        assert!(world.people.erasures_to_do(now_s + pause_s - 1, 9).is_empty());
        assert_eq!(world.people.erasures_to_do(now_s + pause_s, 9), [number]);
        now_s += pause_s;
    }
    assert_eq!(world.people.plan_put_user(&o, NOW_S).map(drop), Err(PlanError::BeingErased));
    assert_eq!(world.people.erasure_tally(now_s), Tally { failing: 1, ..Tally::default() });
    let late_s = NOW_S + DUE_MAX_S + 1;
    assert_eq!(world.people.erasures_overdue(late_s, 9).len(), 1);
    assert_eq!(world.people.erasure_tally(late_s).overdue, 1);
    assert_eq!(attempt(&mut world, number, &Counts::default(), &Counts::default(), late_s), State::Done);
    assert_eq!(world.people.erasure(number).expect("a report").erased.of(Kind::Account), 1, "once");
    assert!(world.people.plan_put_user(&o, late_s).is_ok());
    assert!(world.people.erasures_overdue(u64::MAX, 9).is_empty());
}

#[test]
fn one_that_waits_goes_on_after_a_restart_and_may_be_hastened() {
    let mut world = World::new();
    let o = user("a", "o");
    let later = Ask { wait_s: WAIT_MAX_S, ..AT_ONCE };
    let number = ask(&mut world, &o, &later);
    let restarted = world.reloaded();
    assert_eq!(restarted.erasure(number), world.people.erasure(number));
    assert!(restarted.erasures_to_do(NOW_S + WAIT_MAX_S - 1, 9).is_empty());
    assert_eq!(restarted.erasures_to_do(NOW_S + WAIT_MAX_S, 9), [number]);
    assert_eq!(world.people.erasure_tally(NOW_S).waiting, 1);
    assert_eq!(ask(&mut world, &o, &later), number, "the same job");
    assert_eq!(ask(&mut world, &o, &AT_ONCE), number);
    assert_eq!(world.people.erasures_to_do(NOW_S, 9), [number]);
    let plan = |ask: &Ask<'_>, user: &UserKey| world.people.plan_erasure(user, ask, NOW_S).map(drop);
    assert_eq!(plan(&AT_ONCE, &user("a", "nobody")), Err(PlanError::NoSuchUser));
    assert_eq!(plan(&AT_ONCE, &user("b", "o")), Err(PlanError::NoSuchApp));
    for wrong in [
        Ask { due_s: DUE_MAX_S + 1, ..AT_ONCE },
        Ask { wait_s: WAIT_MAX_S + 1, ..AT_ONCE },
        Ask { wait_s: 2, due_s: 1, ..AT_ONCE },
    ] {
        assert_eq!(plan(&wrong, &user("a", "c")), Err(PlanError::TooMuch), "{wrong:?}");
    }
}

#[test]
fn an_app_that_goes_takes_nothing_from_the_report() {
    let mut world = World::new();
    let number = ask(&mut world, &user("a", "o"), &AT_ONCE);
    let gone = world.people.plan_delete_app(&app_id("a")).expect("an app");
    world.run(gone);
    let swept = world.people.plan_sweep(&app_id("a"), 9);
    world.run_all(swept);
    assert_eq!(attempt(&mut world, number, &Counts::default(), &Counts::default(), NOW_S), State::Done);
    assert_eq!(world.people.erasures("a", None, 9).len(), 1);
}

#[test]
fn reports_are_kept_for_a_time_and_a_number() {
    let erasures = Erasures::default();
    let done = |at_s| {
        let new = Erasure::new(&user("a", "o"), &AT_ONCE, at_s);
        new.concluded(&Counts::default(), at_s)
    };
    for number in 1..=REPORTS_MAX as u64 + 3 {
        erasures.put(number, done(NOW_S + number));
    }
    assert_eq!(erasures.outlived(NOW_S, 9), [1, 2, 3], "too many");
    [1, 2, 3].into_iter().for_each(|number| erasures.delete(number));
    assert!(erasures.outlived(NOW_S + REPORT_KEPT_S, 9).is_empty());
    assert_eq!(erasures.outlived(NOW_S + REPORT_KEPT_S + 5, 9), [4, 5], "too old");
    let page: Vec<_> = erasures.page("a", Some(8), 2).into_iter().map(|(number, _)| number).collect();
    assert_eq!((page, erasures.page("b", None, 2).len()), (vec![7, 6], 0));
    assert_eq!(erasures.next_number(NOW_S), NOW_S);
    assert_eq!(erasures.next_number(1), REPORTS_MAX as u64 + 4, "a clock that went back");
}

proptest! {
    /// Whatever attempts leave: it is done with the first that leaves nothing, never before, and what was erased is what there was.
    #[test]
    fn it_is_done_when_nothing_is_left(
        lefts in proptest::collection::vec(proptest::collection::vec(0_u64..3, KINDS), 0..6),
        waits in proptest::collection::vec(0_u64..100_000, 6),
    ) {
        let mut world = World::new();
        let number = ask(&mut world, &user("a", "o"), &AT_ONCE);
        let (mut now_s, mut is_done) = (NOW_S, false);
        for (left, wait_s) in lefts.iter().zip(waits) {
            let left = Counts::from_numbers(left).expect("as many");
            let state = attempt(&mut world, number, &Counts::default(), &left, now_s);
            let report = world.people.erasure(number).expect("it is kept");
            is_done = left == Counts::default();
            prop_assert_eq!(state == State::Done, is_done);
            prop_assert_eq!(report.user_key().is_none(), is_done);
            prop_assert_eq!(world.reloaded().erasure(number), Some(report.clone()));
            if is_done {
                break;
            }
            prop_assert!(report.begins_at_s > now_s && report.begins_at_s <= now_s + PAUSE_MAX_S);
            now_s += wait_s;
        }
        let report = world.people.erasure(number).expect("it is kept");
        prop_assert_eq!(report.erased.of(Kind::Account), u64::from(!lefts.is_empty()));
        prop_assert_eq!(world.people.is_to_be_erased(&user("a", "o")), !is_done);
        prop_assert!(world.people.erasures_to_do(u64::MAX, 9).is_empty() == is_done);
        let is_change = matches!(world.people.plan_conclude(number, &Counts::default(), now_s), Some(Change::PutErasure(..)));
        prop_assert_eq!(is_change, !is_done);
    }
}
