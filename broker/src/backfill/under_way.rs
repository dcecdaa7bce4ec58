//! Whose batches are under way: one of each device, and one that waits for it. And whose devices are no more: nothing of theirs is under way any longer when
//! what is known of them is forgotten, and nothing that they handed in comes after it.
//!
//! ```text
//! a device is no more ─▶ close: what is under way stops, nothing begins ─▶ shards have ended its connections, all has stopped ─▶ ledger forgotten ─▶ open
//! ```
//!
//! **Invariant:** between [`UnderWay::close`] and [`UnderWay::open`] no batch of a device begins; and after it none that an earlier device of that name
//! handed in, since its connection has ended ([`turnpike_core::shard::Errand::is_wanted`]).

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use turnpike_core::concern::Concern;
use turnpike_core::gate::{DeviceIdentity, Principal};

/// Product and device.
pub(super) type Key = (Box<str>, Box<str>);

#[derive(Debug, Default)]
struct Entry {
    is_void: Cell<bool>,
    ended: Notify,
}

/// One of a worker.
#[derive(Debug, Default)]
pub(super) struct UnderWay {
    devices: RefCell<HashMap<Key, Rc<Entry>>>,
    /// Of which a second one waits.
    waiting: RefCell<HashSet<Key>>,
    /// Single devices that are closed, and how many times.
    closed: RefCell<HashMap<Key, usize>>,
    /// Other closed ones.
    closed_many: RefCell<Vec<Concern>>,
    opened: Notify,
}

/// A batch that is under way, until it is dropped.
#[derive(Debug)]
pub(super) struct Claim {
    all: Rc<UnderWay>,
    key: Key,
    entry: Rc<Entry>,
}

impl Claim {
    /// Whether its device is no more: nothing of it goes on.
    pub(super) fn is_void(&self) -> bool {
        self.entry.is_void.get()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.all.devices.borrow_mut().remove(&self.key);
        self.entry.ended.notify_waiters();
    }
}

/// Why a batch can't begin.
enum Held {
    /// Another one of its device is under way.
    Busy(Rc<Entry>),
    /// What was known of a device of its name is being forgotten.
    Closed,
}

impl UnderWay {
    /// Begins a batch of a device. One that has to wait for the one before does, for so long at most; none if that isn't enough, or
    /// another one waits already.
    pub(super) async fn claim(self: &Rc<Self>, device: &DeviceIdentity, wait: Duration) -> Option<Claim> {
        let key = key_of(device);
        if let Ok(claim) = self.begin(&key) {
            return Some(claim);
        }
        if !self.waiting.borrow_mut().insert(key.clone()) {
            return None;
        }
        let waiting = Waiting { all: self, key: &key };
        tokio::time::timeout(wait, waiting.turn()).await.ok()
    }

    fn begin(self: &Rc<Self>, key: &Key) -> Result<Claim, Held> {
        if self.is_closed(key) {
            return Err(Held::Closed);
        }
        let mut devices = self.devices.borrow_mut();
        if let Some(entry) = devices.get(key) {
            return Err(Held::Busy(Rc::clone(entry)));
        }
        let entry = Rc::<Entry>::default();
        devices.insert(key.clone(), Rc::clone(&entry));
        Ok(Claim { all: Rc::clone(self), key: key.clone(), entry })
    }

    fn is_closed(&self, key: &Key) -> bool {
        let many = self.closed_many.borrow();
        self.closed.borrow().contains_key(key) || !many.is_empty() && many.iter().any(|concern| covers(concern, key))
    }

    /// Stops what is under way of devices that are no more, which is named, and lets nothing begin.
    pub(super) fn close(&self, concern: &Concern) -> Vec<Key> {
        match device_of(concern) {
            Some(key) => *self.closed.borrow_mut().entry(key).or_default() += 1,
            None => self.closed_many.borrow_mut().push(concern.clone()),
        }
        let covered = self.covered(concern);
        covered.iter().for_each(|(_, entry)| entry.is_void.set(true));
        covered.into_iter().map(|(key, _)| key).collect()
    }

    /// Waits until nothing of them is under way.
    pub(super) async fn ended(&self, concern: &Concern) {
        for (key, entry) in self.covered(concern) {
            let ended = entry.ended.notified();
            if self.devices.borrow().get(&key).is_some_and(|now| Rc::ptr_eq(now, &entry)) {
                ended.await;
            }
        }
    }

    /// Lets batches begin again: those of whoever has the names now.
    pub(super) fn open(&self, concern: &Concern) {
        if let Some(key) = device_of(concern) {
            let mut closed = self.closed.borrow_mut();
            if let Some(times) = closed.get_mut(&key) {
                *times -= 1;
                if *times == 0 {
                    closed.remove(&key);
                }
            }
        } else {
            let mut many = self.closed_many.borrow_mut();
            if let Some(at) = many.iter().position(|one| one == concern) {
                many.swap_remove(at);
            }
        }
        self.opened.notify_waiters();
    }

    fn covered(&self, concern: &Concern) -> Vec<(Key, Rc<Entry>)> {
        let devices = self.devices.borrow();
        let with = |(key, entry): (&Key, &Rc<Entry>)| (key.clone(), Rc::clone(entry));
        match device_of(concern) {
            Some(key) => devices.get_key_value(&key).map(with).into_iter().collect(),
            None => devices.iter().filter(|(key, _)| covers(concern, key)).map(with).collect(),
        }
    }
}

/// The second batch of a device.
struct Waiting<'a> {
    all: &'a Rc<UnderWay>,
    key: &'a Key,
}

impl Waiting<'_> {
    async fn turn(&self) -> Claim {
        loop {
            let opened = self.all.opened.notified();
            match self.all.begin(self.key) {
                Ok(claim) => return claim,
                // Nothing else runs between the look and the wait: all is on one thread.
                Err(Held::Busy(entry)) => entry.ended.notified().await,
                Err(Held::Closed) => opened.await,
            }
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.all.waiting.borrow_mut().remove(self.key);
    }
}

fn key_of(device: &DeviceIdentity) -> Key {
    (device.product.clone(), device.device.clone())
}

/// The one device that is concerned, if it is one.
pub(super) fn device_of(concern: &Concern) -> Option<Key> {
    match concern {
        Concern::Principal(Principal::Device(device)) => Some(key_of(device)),
        _ => None,
    }
}

/// Whether a device is among those.
pub(super) fn covers(concern: &Concern, (product, device): &Key) -> bool {
    concern.covers(&Principal::Device(Arc::new(DeviceIdentity::new(product.clone(), device.clone()))))
}

#[cfg(test)]
mod tests;
