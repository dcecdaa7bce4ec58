use proptest::prelude::*;

use super::*;

const STATES: [State; 13] = [
    State::Queued,
    State::Offered,
    State::Accepted,
    State::Downloading(40),
    State::Downloaded,
    State::Verified,
    State::Applying,
    State::Succeeded,
    State::Rejected,
    State::Cancelled,
    State::Failed { retryable: false },
    State::Failed { retryable: true },
    State::TimedOut,
];

/// A line of the table: a letter for each of [`STATES`]; `=` stays, `!` is impossible.
const TABLE: [(Event, &str); 16] = [
    (Event::Offered, "o======!!!!!!"),
    (Event::Accept, "!a==========="),
    (Event::Progress(39), "!33=========="),
    (Event::Progress(41), "!444========="),
    (Event::Downloaded, "!ddd========="),
    (Event::Verified, "!vvvv========"),
    (Event::Applying, "!yyyyy======="),
    (Event::Reported(Running::New), "sssssss======"),
    (Event::Reported(Running::Other), "======F======"),
    (Event::Fail { retryable: true, reason: Reason::DIGEST }, "!FFFFFF======"),
    (Event::Fail { retryable: false, reason: Reason::DIGEST }, "!ffffff======"),
    (Event::Reject(Reason::BUSY), "!rrrrr!======"),
    (Event::Timeout, "!tttttt======"),
    (Event::Cancel(Reason::STOPPED), "cccccc!======"),
    (Event::Retry, "!!!!!!!!!!!qq"),
    (Event::Withhold(Reason::HARDWARE_UNKNOWN), "=q==========="),
];

fn of(letter: char) -> State {
    match letter {
        'q' => State::Queued,
        'o' => State::Offered,
        'a' => State::Accepted,
        '3' => State::Downloading(39),
        '4' => State::Downloading(41),
        'd' => State::Downloaded,
        'v' => State::Verified,
        'y' => State::Applying,
        's' => State::Succeeded,
        'r' => State::Rejected,
        'c' => State::Cancelled,
        'f' => State::Failed { retryable: false },
        'F' => State::Failed { retryable: true },
        't' => State::TimedOut,
        other => panic!("{other} is no state"),
    }
}

#[test]
fn every_event_does_in_every_state_what_the_table_says() {
    for (event, line) in TABLE {
        for (state, letter) in STATES.into_iter().zip(line.chars()) {
            let from = Standing { state, reason: Reason(7), since_s: 100 };
            let to = step(from, event, 200);
            match letter {
                '=' => assert_eq!(to, Ok(from), "{state:?} {event:?}"),
                '!' => assert_eq!(to, Err(Impossible { from: state, event }), "{state:?} {event:?}"),
                letter => assert_eq!(to.map(|to| to.state), Ok(of(letter)), "{state:?} {event:?}"),
            }
        }
    }
}

#[test]
fn progress_leaves_the_time_at_which_the_download_began_and_is_at_most_all_of_it() {
    let from = Standing { state: State::Downloading(1), reason: Reason::NONE, since_s: 5 };
    let to = step(from, Event::Progress(250), 9).expect("progress");
    assert_eq!(to, Standing { state: State::Downloading(100), ..from });
}

#[test]
fn reasons_go_along() {
    let applying = Standing { state: State::Applying, reason: Reason::NONE, since_s: 5 };
    let reason = |from, event| step(from, event, 6).map(|to| to.reason);
    assert_eq!(reason(applying, Event::Reported(Running::Other)), Ok(Reason::OLD_VERSION));
    assert_eq!(reason(applying, Event::Timeout), Ok(Reason(106)));
    assert_eq!(reason(Standing::queued(1), Event::Reported(Running::New)), Ok(Reason::ALREADY));
    let failed = step(applying, Event::Fail { retryable: true, reason: Reason::SPACE }, 6).expect("it can fail");
    assert_eq!(reason(failed, Event::Retry), Ok(Reason::SPACE));
    let offered = Standing { state: State::Offered, reason: Reason::NONE, since_s: 5 };
    assert_eq!(reason(offered, Event::Withhold(Reason::NOT_READY)), Ok(Reason::NOT_READY));
}

fn event() -> impl Strategy<Value = Event> {
    let reason = (0..2000u16).prop_map(Reason);
    prop_oneof![
        3 => Just(Event::Offered),
        1 => Just(Event::Accept),
        1 => any::<u8>().prop_map(Event::Progress),
        1 => Just(Event::Downloaded),
        1 => Just(Event::Verified),
        1 => Just(Event::Applying),
        1 => prop_oneof![Just(Running::New), Just(Running::Other)].prop_map(Event::Reported),
        1 => (any::<bool>(), reason.clone()).prop_map(|(retryable, reason)| Event::Fail { retryable, reason }),
        1 => reason.clone().prop_map(Event::Reject),
        1 => Just(Event::Timeout),
        1 => reason.clone().prop_map(Event::Cancel),
        1 => reason.prop_map(Event::Withhold),
        2 => Just(Event::Retry),
    ]
}

proptest! {
    #[test]
    fn final_states_stay_time_never_goes_back_and_nothing_else_does(
        events in prop::collection::vec((event(), 0..1000u32), 0..60),
    ) {
        let mut at = Standing::queued(500);
        for (event, now_s) in events {
            let Ok(to) = step(at, event, now_s) else { continue };
            prop_assert!(to.since_s >= at.since_s);
            if at.state.kind().is_final() {
                let again = event == Event::Retry && at.state.is_retryable() && to.state == State::Queued;
                prop_assert!(to == at || again, "{at:?} {event:?} {to:?}");
            } else {
                let withheld = matches!(event, Event::Withhold(_)) && to.state == State::Queued;
                prop_assert!(to.state.kind() >= at.state.kind() || withheld, "{at:?} {event:?} {to:?}");
            }
            if let (State::Downloading(before), State::Downloading(after)) = (at.state, to.state) {
                prop_assert!(before <= after && after <= 100);
            }
            prop_assert_eq!(Standing::from_bytes(to.to_bytes()), Some(to));
            at = to;
        }
    }

    #[test]
    fn bytes_that_no_standing_gives_are_none(bytes in any::<[u8; 8]>()) {
        if let Some(standing) = Standing::from_bytes(bytes) {
            prop_assert_eq!(standing.to_bytes(), bytes);
        }
    }
}
