//! One request for blocks of each device at a time: the last one. Who asks again has given up what it asked for before.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// A device: product and name.
type Key = (Box<str>, Box<str>);

#[derive(Debug, Default)]
struct Current {
    last: u64,
    by_device: HashMap<Key, u64>,
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
        current.by_device.insert(key.clone(), number);
        Turn { of: self.clone(), key, number }
    }
}

impl Turn {
    /// Whether the device hasn't asked again since.
    pub(super) fn is_current(&self) -> bool {
        self.of.0.lock().by_device.get(&self.key) == Some(&self.number)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut current = self.of.0.lock();
        if current.by_device.get(&self.key) == Some(&self.number) {
            current.by_device.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_devices_last_request_is_its_only_one_and_nothing_is_left_of_those_before() {
        let turns = Turns::default();
        let (first, other) = (turns.take("lamp", "a"), turns.take("lamp", "b"));
        assert!(first.is_current() && other.is_current());
        let second = turns.take("lamp", "a");
        assert!(!first.is_current() && second.is_current() && other.is_current());
        drop(first);
        assert!(second.is_current(), "who comes first goes first");
        drop((second, other));
        assert!(turns.0.lock().by_device.is_empty());
    }
}
