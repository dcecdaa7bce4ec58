use std::collections::HashMap;

use proptest::prelude::*;
use turnpike_mqtt::ConnectReason;

use super::*;
use crate::names::{DeviceName, ProductKey};
use crate::verifier::Grant;

const SETTINGS: Settings = Settings {
    calls_max: 2,
    waiting_max: 1,
    breaker: BreakerTerms { failures: 2, open_ms: 100, open_most_ms: 400, probe_ms: 50 },
    cache_ms: 0,
    cache_most_ms: 10_000,
    cache_entries_max: 1000,
    strangers: false,
};

fn at(mono_ms: u64) -> Now {
    Now { mono_ms, unix_ms: 1_700_000_000_000 + mono_ms }
}

fn attempt<'a>(user_name: &'a str, password: &'a [u8]) -> Attempt<'a> {
    Attempt {
        client_id: "c",
        user_name: Some(user_name),
        password: Some(password),
        peer: ([192, 0, 2, 1], 1).into(),
        tls: false,
        certificate: None,
        enhanced: None,
    }
}

fn callout(settings: Settings) -> Callout {
    Callout::new(settings, [3; 32])
}

fn granted(until_ms: Option<u64>) -> Opinion {
    let (product, device) = (ProductKey::parse("lamp"), DeviceName::parse("one"));
    Opinion::Granted(Grant { product: product.expect("a name"), device: device.expect("a name"), until_ms })
}

fn answered(opinion: Opinion, cache_ms: Option<u64>) -> Outcome {
    Outcome::Answered { opinion, cache_ms }
}

#[track_caller]
fn call(callout: &Callout, user_name: &str, ms: u64) -> Call {
    match callout.consult(&attempt(user_name, b"password"), Some("lamp"), at(ms)) {
        Consulted::Ask(call) => call,
        other => panic!("{other:?}"),
    }
}

/// What is known of an attempt.
fn known(callout: &Callout, user_name: &str, ms: u64) -> Option<Opinion> {
    match callout.consult(&attempt(user_name, b"password"), Some("lamp"), at(ms)) {
        Consulted::Known(opinion) => Some(opinion),
        Consulted::Ask(_) | Consulted::Refused(_) => None,
    }
}

#[test]
fn nothing_is_kept_that_nobody_wants_kept() {
    let callout = callout(SETTINGS);
    let first = call(&callout, "a", 0);
    assert_eq!(callout.settle(&first, answered(granted(None), None), at(0)), (Ok(granted(None)), None));
    assert_eq!(known(&callout, "a", 0), None);
    let _ = callout.settle(&first, answered(granted(None), Some(5)), at(0));
    assert_eq!((known(&callout, "a", 4), known(&callout, "a", 5)), (Some(granted(None)), None));
    let _ = callout.settle(&first, answered(Opinion::Refused, Some(u64::MAX)), at(0));
    let kept = [9_999, 10_000].map(|ms| known(&callout, "a", ms));
    assert_eq!(kept, [Some(Opinion::Refused), None], "no longer than is configured");
}

#[test]
fn an_answer_is_kept_no_longer_than_it_is_good() {
    let callout = callout(Settings { cache_ms: 1000, ..SETTINGS });
    let opinion = granted(Some(at(300).unix_ms));
    let _ = callout.settle(&call(&callout, "a", 0), answered(opinion.clone(), None), at(0));
    assert_eq!((known(&callout, "a", 299), known(&callout, "a", 300)), (Some(opinion), None));
}

#[test]
fn whatever_is_asked_about_makes_another_question() {
    let callout = callout(Settings { cache_ms: 1000, ..SETTINGS });
    let first = attempt("a", b"password");
    let _ = callout.settle(&call(&callout, "a", 0), answered(granted(None), None), at(0));
    let is_known = |attempt: &Attempt<'_>, product: Option<&str>| {
        matches!(callout.consult(attempt, product, at(0)), Consulted::Known(_))
    };
    assert!(is_known(&first, Some("lamp")));
    assert!(is_known(&Attempt { peer: ([192, 0, 2, 1], 2).into(), ..first }, Some("lamp")), "another port");
    let certificate = [1];
    let others = [
        Attempt { client_id: "", user_name: Some("ca"), ..first },
        Attempt { user_name: None, ..first },
        Attempt { user_name: Some("apassword"), password: Some(b""), ..first },
        Attempt { password: Some(b"Password"), ..first },
        Attempt { password: None, ..first },
        Attempt { peer: ([192, 0, 2, 2], 1).into(), ..first },
        Attempt { tls: true, ..first },
        Attempt { certificate: Some(&certificate), ..first },
    ];
    for other in &others {
        assert!(!is_known(other, Some("lamp")));
    }
    assert!(!is_known(&first, Some("lam")) && !is_known(&first, None));
}

#[test]
fn another_process_has_other_keys_and_no_key_shows_a_password() {
    let (one, other) = (callout(SETTINGS), Callout::new(SETTINGS, [4; 32]));
    let attempt = attempt("a", b"password");
    assert_ne!(one.key(&attempt, None), other.key(&attempt, None));
    assert!(!format!("{:?}", call(&one, "lamp/one", 0)).contains("one"));
}

#[test]
fn calls_are_bounded_and_their_places_given_back() {
    let callout = callout(SETTINGS);
    let calls: Vec<Call> = ["a", "b", "c"].iter().map(|name| call(&callout, name, 0)).collect();
    let fourth = callout.consult(&attempt("d", b""), None, at(0));
    assert!(matches!(fourth, Consulted::Refused(Refusal::CalloutBusy)), "{fourth:?}");
    assert_eq!((callout.counts().under_way, callout.counts().busy), (3, 1));
    drop(calls);
    assert_eq!(callout.counts().under_way, 0);
    drop(call(&callout, "d", 0));
}

#[test]
fn a_breaker_that_is_open_refuses_what_is_not_known() {
    let callout = callout(Settings { cache_ms: 1000, ..SETTINGS });
    let _ = callout.settle(&call(&callout, "known", 0), answered(granted(None), None), at(0));
    let failures = [Outcome::TimedOut, Outcome::Garbage].map(|outcome| {
        let (said, change) = callout.settle(&call(&callout, "a", 0), outcome, at(0));
        assert_eq!(said.as_ref().map_err(|refusal| refusal.reason()), Err(ConnectReason::ServerUnavailable));
        (said, change)
    });
    assert_eq!(
        failures,
        [(Err(Refusal::CalloutTimedOut), None), (Err(Refusal::CalloutGarbage), Some(Change::Opened { for_ms: 100 }))]
    );
    let refused = callout.consult(&attempt("a", b"password"), Some("lamp"), at(99));
    assert!(matches!(refused, Consulted::Refused(Refusal::CalloutBroken)), "{refused:?}");
    assert_eq!(known(&callout, "known", 99), Some(granted(None)));
    let (said, change) = callout.settle(&call(&callout, "a", 100), answered(Opinion::Refused, Some(0)), at(100));
    assert_eq!((said, change), (Ok(Opinion::Refused), Some(Change::Closed)));
    let counts = callout.counts();
    assert_eq!((counts.opened, counts.broken, counts.open, counts.under_way), (1, 1, false, 0));
    assert_eq!((counts.answered, counts.timed_out, counts.garbage, counts.cached), ([1, 1, 0], 1, 1, 1));
}

#[test]
fn a_call_that_was_not_made_says_nothing_of_the_other_end() {
    let callout = callout(SETTINGS);
    for _ in 0..10 {
        let settled = callout.settle(&call(&callout, "a", 0), Outcome::NotMade, at(0));
        assert_eq!(settled, (Err(Refusal::CalloutBusy), None));
    }
    assert!(!callout.counts().open);
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Answer(u8, bool, u64),
    Look(u8),
    Sweep,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0_u64..500).prop_map(Step::Wait),
        (0_u8..20, any::<bool>(), 0_u64..1000).prop_map(|(who, well, ms)| Step::Answer(who, well, ms)),
        (0_u8..20).prop_map(Step::Look),
        Just(Step::Sweep),
    ];
    proptest::collection::vec(step, 0..100)
}

proptest! {
    /// Against a plain map: what is known is what was said last, and no longer than it was said to be good.
    #[test]
    fn the_cache_knows_what_a_map_knows(steps in steps()) {
        let callout = callout(Settings { cache_most_ms: 700, ..SETTINGS });
        let (mut now_ms, mut map) = (0_u64, HashMap::<u8, (Opinion, u64)>::new());
        for step in steps {
            match step {
                Step::Wait(ms) => now_ms += ms,
                Step::Answer(who, well, ms) => {
                    let opinion = if well { granted(None) } else { Opinion::Refused };
                    let Consulted::Ask(call) = callout.consult(&attempt(&who.to_string(), b"password"), Some("lamp"), at(now_ms))
                    else { continue };
                    let _ = callout.settle(&call, answered(opinion.clone(), Some(ms)), at(now_ms));
                    map.insert(who, (opinion, now_ms + ms.min(700)));
                }
                Step::Look(who) => {
                    let expected = map.get(&who).filter(|(_, until_ms)| *until_ms > now_ms);
                    prop_assert_eq!(known(&callout, &who.to_string(), now_ms), expected.map(|(opinion, _)| opinion.clone()));
                }
                Step::Sweep => callout.sweep(at(now_ms)),
            }
            prop_assert_eq!(callout.counts().under_way, 0);
        }
    }

    #[test]
    fn the_cache_is_bounded(names in proptest::collection::vec("[a-z]{1,8}", 0..500)) {
        let callout = callout(Settings { cache_ms: 1000, cache_entries_max: 64, ..SETTINGS });
        for name in &names {
            if let Consulted::Ask(call) = callout.consult(&attempt(name, b"password"), Some("lamp"), at(0)) {
                let _ = callout.settle(&call, answered(Opinion::Refused, None), at(0));
            }
        }
        // 64 parts with one place each.
        prop_assert!(callout.counts().kept <= 64);
    }
}
