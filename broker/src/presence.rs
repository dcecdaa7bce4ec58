//! Which devices are connected, for those who ask by name. Kept by what the gate hears of comings and goings, so that asking costs a look-up and
//! not a walk through all sessions; only where somebody may ask.
//!
//! About 60 bytes a connected device. A device that is gone is forgotten.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use turnpike_authz::gate::Witness;
use turnpike_authz::people::bindings::DeviceKey;
use turnpike_core::clock::Now;
use turnpike_core::gate::{Passage, Principal, Visit};

const PARTS: usize = 16;

/// Bytes of a hash: nobody finds a device that meets another's.
type Key = [u8; 16];

/// Connected devices.
#[derive(Debug, Default)]
pub struct Presence {
    parts: [Mutex<HashMap<Key, Seen>>; PARTS],
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    /// A device may have several, under several client ids.
    connections: u32,
    since_ms: u64,
}

impl Presence {
    /// Nobody is there.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Since when a device is connected, milliseconds since 1970 UTC; none if it isn't.
    #[must_use]
    pub fn since_ms(&self, product: &str, device: &str) -> Option<u64> {
        let key = key(product, device);
        self.part(key).lock().get(&key).map(|seen| seen.since_ms)
    }

    fn part(&self, key: Key) -> &Mutex<HashMap<Key, Seen>> {
        &self.parts[usize::from(key[0]) % PARTS]
    }

    fn came(&self, product: &str, device: &str, now: Now) {
        let key = key(product, device);
        let mut part = self.part(key).lock();
        part.entry(key).or_insert(Seen { connections: 0, since_ms: now.unix_ms }).connections += 1;
    }

    fn went(&self, product: &str, device: &str) {
        let key = key(product, device);
        let mut part = self.part(key).lock();
        if let Some(seen) = part.get_mut(&key) {
            seen.connections -= 1;
            if seen.connections == 0 {
                part.remove(&key);
            }
        }
    }
}

/// No part has a `\0`.
fn key(product: &str, device: &str) -> Key {
    let hash: [u8; 32] = Sha256::new().chain_update(product).chain_update([0]).chain_update(device).finalize().into();
    *hash.first_chunk().expect("16 of 32 bytes")
}

/// Hears of comings and goings, and passes them on.
#[derive(Debug)]
pub struct PresenceWitness {
    /// Where they are kept.
    pub presence: Arc<Presence>,
    /// Who else hears of them.
    pub then: Option<Box<dyn Witness>>,
}

impl Witness for PresenceWitness {
    fn passed(&self, visit: &Visit<'_>, passage: Passage, now: Now) {
        if let Some(Principal::Device(identity)) = visit.principal {
            match passage {
                Passage::In => self.presence.came(&identity.product, &identity.device, now),
                Passage::Out(_) => self.presence.went(&identity.product, &identity.device),
                Passage::Refused(_) | Passage::TurnedAway(_) => {}
            }
        }
        if let Some(then) = &self.then {
            then.passed(visit, passage, now);
        }
    }

    fn controlled(&self, service: &Principal, device: &DeviceKey, now: Now) {
        if let Some(then) = &self.then {
            then.controlled(service, device, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use turnpike_core::gate::{Departure, DeviceIdentity};
    use turnpike_mqtt::ConnectReason;

    use super::*;

    #[test]
    fn a_device_is_there_from_its_first_connection_to_its_last() {
        let presence = Arc::new(Presence::new());
        let witness = PresenceWitness { presence: Arc::clone(&presence), then: None };
        let device = Principal::Device(Arc::new(DeviceIdentity::new("lamp", "one")));
        let tell = |passage, ms| {
            let peer = ([127, 0, 0, 1], 1).into();
            let visit = Visit { client_id: "c", principal: Some(&device), user_name: None, peer, tls: false };
            witness.passed(&visit, passage, Now { mono_ms: ms, unix_ms: ms });
            presence.since_ms("lamp", "one")
        };
        assert_eq!(tell(Passage::TurnedAway(ConnectReason::ServerUnavailable), 1), None);
        assert_eq!(tell(Passage::In, 2), Some(2));
        // A take-over, in either order.
        assert_eq!(tell(Passage::In, 3), Some(2));
        assert_eq!(tell(Passage::Out(Departure::TakenOver), 4), Some(2));
        assert_eq!(presence.since_ms("lamp", "two"), None);
        assert_eq!(tell(Passage::Out(Departure::Cleanly), 5), None);
        assert_eq!(tell(Passage::Out(Departure::Cleanly), 6), None, "one too many");
        assert_eq!(tell(Passage::In, 7), Some(7));
    }
}
