//! Waiting: for an event, with a deadline. The one place of the tests that sleeps.

use std::time::{Duration, Instant};

/// How long anything may take that should happen at once. Generous: the machine may be busy with the other tests.
pub const SOON: Duration = Duration::from_secs(20);

const STEP: Duration = Duration::from_millis(10);

/// Asks again and again until there is an answer.
///
/// # Panics
/// There is none before the deadline.
#[track_caller]
pub fn until<T>(what: &str, within: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "within {within:?}: {what}");
        std::thread::sleep(STEP);
    }
}

/// Lets time pass. Only for what the protocol itself measures in seconds (expiry, delays); never to wait for an event.
pub fn pass(duration: Duration) {
    let end = Instant::now() + duration;
    until("the clock goes on", duration + SOON, || (Instant::now() >= end).then_some(()));
}
