//! One request for blocks of each device at a time: the last one. Who asks again has given up what it asked for before.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

/// A device: product and name.
type Key = (Box<str>, Box<str>);

#[derive(Debug, Default)]
struct Current {
    last: u64,
    by_device: HashMap<Key, Place>,
}

/// The request of a device that is served.
#[derive(Debug)]
struct Place {
    number: u64,
    /// When its next block may go, which those before it may have been waiting for: however often a device asks, it waits for one.
    granted: Option<Instant>,
}

/// Which request of each device is served.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns(Arc<Mutex<Current>>);

/// A request's turn, which ends with it or with the device's next one.
#[derive(Debug)]
pub(super) struct Turn {
    of: Turns,
    key: Key,
    number: u64,
}

impl Turns {
    /// A device asks.
    pub(super) fn take(&self, product: &str, device: &str) -> Turn {
        let key: Key = (product.into(), device.into());
        let mut current = self.0.lock();
        current.last += 1;
        let number = current.last;
        let place = current.by_device.entry(key.clone()).or_insert(Place { number, granted: None });
        place.number = number;
        Turn { of: self.clone(), key, number }
    }
}

impl Turn {
    /// None: the device has asked again since.
    fn with_place<R>(&self, act: impl FnOnce(&mut Place) -> R) -> Option<R> {
        let mut current = self.of.0.lock();
        current.by_device.get_mut(&self.key).filter(|place| place.number == self.number).map(act)
    }

    /// When its next block may go, by `grant` unless that was asked already for a request that was given up. None: it isn't current any more.
    pub(super) fn grant(&self, grant: impl FnOnce() -> Instant) -> Option<Instant> {
        self.with_place(|place| *place.granted.get_or_insert_with(grant))
    }

    /// Takes what was granted. False: it isn't current any more, and the next one has it.
    pub(super) fn take_granted(&self) -> bool {
        self.with_place(|place| place.granted.take().is_some()).unwrap_or(false)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut current = self.of.0.lock();
        if current.by_device.get(&self.key).is_some_and(|place| place.number == self.number) {
            current.by_device.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_current(turn: &Turn) -> bool {
        turn.with_place(|_| ()).is_some()
    }

    #[test]
    fn a_devices_last_request_is_its_only_one_and_nothing_is_left_of_those_before() {
        let turns = Turns::default();
        let (first, other) = (turns.take("lamp", "a"), turns.take("lamp", "b"));
        assert!(is_current(&first) && is_current(&other));
        let second = turns.take("lamp", "a");
        assert!(!is_current(&first) && is_current(&second) && is_current(&other));
        drop(first);
        assert!(is_current(&second), "who comes first goes first");
        drop((second, other));
        assert!(turns.0.lock().by_device.is_empty());
    }

    #[test]
    fn what_was_granted_to_a_request_that_is_given_up_the_next_one_has() {
        let (turns, at) = (Turns::default(), Instant::now());
        let first = turns.take("lamp", "a");
        assert_eq!(first.grant(|| at), Some(at));
        let second = turns.take("lamp", "a");
        assert_eq!((first.grant(|| at), first.take_granted()), (None, false));
        assert_eq!(second.grant(|| unreachable!("it was granted before")), Some(at));
        assert!(second.take_granted() && !second.take_granted(), "once");
        let later = at + std::time::Duration::from_secs(1);
        assert_eq!(second.grant(|| later), Some(later));
    }
}
