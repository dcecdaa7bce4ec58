//! The ledgers of all devices that one shard publishes for.
//!
//! Nothing is evicted: a ledger that is forgotten would let records through twice. So the table has an end, and a device too many is refused until
//! others are removed (with their registration).
//!
//! A device with one boot and no gaps: 100 bytes, the name of 26 and the table's spare room included (100,000 of them); a record taken, found by name: 169 ns.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::record::{key, parse_key};
use super::{Ledger, LedgerError};
use crate::hash;

/// No room for one more device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("as many devices as there is room for have handed in stored data")]
pub struct Full;

#[derive(Debug)]
struct Device {
    /// Product and name with a NUL between: one allocation.
    name: Box<str>,
    ledger: Ledger,
}

impl Device {
    fn parts(&self) -> [&str; 2] {
        self.name.split_once('\0').map_or([&self.name, ""], |(product, device)| [product, device])
    }
}

/// Ledgers by product and device. Owned by one shard.
#[derive(Debug)]
pub struct Ledgers {
    devices: HashTable<Device>,
    devices_max: usize,
    state: foldhash::quality::RandomState,
}

impl Ledgers {
    /// Room for so many devices, none yet.
    #[must_use]
    pub fn new(devices_max: usize) -> Self {
        Self { devices: HashTable::new(), devices_max, state: foldhash::quality::RandomState::default() }
    }

    /// How many devices.
    #[must_use]
    pub fn len(&self) -> usize {
        self.devices.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    /// A device's ledger, if it ever handed anything in.
    #[must_use]
    pub fn get(&self, product: &str, device: &str) -> Option<&Ledger> {
        let hash = hash::seeded(&self.state, &[product, device]);
        self.devices.find(hash, |entry| entry.parts() == [product, device]).map(|entry| &entry.ledger)
    }

    /// A device's ledger, an empty one if it has none.
    ///
    /// # Errors
    /// [`Full`] if it has none and there is no room.
    pub fn get_or_create(&mut self, product: &str, device: &str) -> Result<&mut Ledger, Full> {
        let hash = hash::seeded(&self.state, &[product, device]);
        let has_room = self.devices.len() < self.devices_max;
        let state = &self.state;
        let same = |entry: &Device| entry.parts() == [product, device];
        match self.devices.entry(hash, same, |entry| hash::seeded(state, &entry.parts())) {
            Entry::Occupied(entry) => Ok(&mut entry.into_mut().ledger),
            Entry::Vacant(entry) if has_room => {
                let name = [product, "\0", device].concat().into_boxed_str();
                Ok(&mut entry.insert(Device { name, ledger: Ledger::default() }).into_mut().ledger)
            }
            Entry::Vacant(_) => Err(Full),
        }
    }

    /// Takes a record back at start, in any order.
    ///
    /// # Errors
    /// [`LedgerError`]; the caller refuses to start on it.
    pub fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), LedgerError> {
        let (product, device) = parse_key(key)?;
        let ledger = Ledger::decode(value, product)?;
        let max = self.devices_max;
        *self.get_or_create(product, device).map_err(|Full| LedgerError::Full(max))? = ledger;
        Ok(())
    }

    /// Forgets a device that is no more. What it handed in could come in again.
    pub fn remove(&mut self, product: &str, device: &str) -> Option<Ledger> {
        let hash = hash::seeded(&self.state, &[product, device]);
        let entry = self.devices.find_entry(hash, |entry| entry.parts() == [product, device]).ok()?;
        Some(entry.remove().0.ledger)
    }

    /// Forgets the devices that are no more. Gives the keys of their records.
    pub fn remove_all(&mut self, is_gone: impl Fn(&str, &str) -> bool) -> Vec<Box<[u8]>> {
        let mut keys = Vec::new();
        self.devices.retain(|entry| {
            let [product, device] = entry.parts();
            let gone = is_gone(product, device);
            if gone {
                keys.push(key(product, device));
            }
            !gone
        });
        keys
    }

    /// Bytes that it takes, without what the allocator rounds up.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let own: usize = self.devices.iter().map(|entry| entry.name.len() + entry.ledger.heap_bytes()).sum();
        own + self.devices.allocation_size()
    }
}
