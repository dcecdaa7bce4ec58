//! Platforms, their log-ins and their users' keys, in memory.
//!
//! **Invariant:** memory never knows what a crash would forget: what is durable changes by [`Platforms::apply`] alone, after its commit. Whoever plans holds
//! the platforms' lock of the control plane until it has applied.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::RwLock;
use turnpike_core::clock::Now;

use super::counts::Outcomes;
use super::data_key::DataKeys;
use super::record::{Change, RecordError};
use super::token::Family;
use super::{Cause, DATA_KEY_MS, DataKey, IssuedKey, PlatId, UserId};
use crate::names::ProductKey;
use crate::nonce::{NonceJournal, Nonces, RECORD_BYTES, Restored};
use crate::secret::{MasterKey, Sealed, Secret};
use crate::x509::Fingerprint;

/// Whom the decoy is sealed for; no record has such a key.
const DECOY: &str = "xp decoy";

/// A product that a platform may read, and perhaps control (4.1.2.3).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    /// The product.
    pub product: ProductKey,
    /// Whether it may send its devices messages.
    pub control: bool,
}

/// A platform.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Platform {
    /// What the operator calls it: 1 to 64 characters.
    pub name: Box<str>,
    /// A disabled one is let in to nothing.
    pub enabled: bool,
    /// Seconds since 1970 UTC.
    pub created_at_s: u64,
    /// Its certificates.
    pub certificates: Vec<Fingerprint>,
    /// Its products, each once.
    pub grants: Vec<Grant>,
    /// The AuthToken, sealed for the record's key.
    pub(super) auth: Sealed,
}

#[derive(Debug, Default)]
pub(super) struct Entry {
    /// None at start until its record has been loaded.
    pub(super) head: RwLock<Option<Arc<Platform>>>,
    /// The oldest first.
    pub(super) families: RwLock<Vec<Family>>,
    pub(super) data_keys: DataKeys,
}

/// All platforms. One value for the whole broker.
#[derive(Debug)]
pub struct Platforms {
    entries: RwLock<BTreeMap<PlatId, Arc<Entry>>>,
    pub(super) key: MasterKey,
    pub(super) nonces: Nonces,
    pub(super) journal: Option<Box<dyn NonceJournal>>,
    /// What an unknown platform is checked against, so that it costs what a known one costs.
    pub(super) decoy: Secret,
    outcomes: Outcomes,
}

impl Platforms {
    /// None yet. `nonces_max`: requests of all platforms in twenty minutes whose nonces are remembered ([`Nonces::new`]); more are told to come
    /// back.
    #[must_use]
    pub fn new(key: MasterKey, nonces_max: usize) -> Self {
        let decoy = Secret::new(&key.derive(DECOY)[..]).expect("32 bytes are a secret");
        let nonces = Nonces::new(nonces_max);
        Self { entries: RwLock::default(), key, nonces, journal: None, decoy, outcomes: Outcomes::default() }
    }

    /// The same, which keeps the nonces that it takes. Before anybody comes in, it is to be given what earlier processes have kept.
    #[must_use]
    pub fn keeping_nonces(self, journal: Box<dyn NonceJournal>) -> Self {
        Self { journal: Some(journal), ..self }
    }

    /// Remembers nonces that earlier processes have taken.
    pub fn restore_nonces(&self, records: impl IntoIterator<Item = [u8; RECORD_BYTES]>, now: Now) -> Restored {
        self.nonces.restore(records, now)
    }

    /// Takes a record back at start, in any order.
    ///
    /// # Errors
    /// [`RecordError`]; the caller refuses to start on it.
    pub fn load(&self, key: &[u8], value: &[u8]) -> Result<(), RecordError> {
        Change::decode(key, value).map(|change| self.apply(change))
    }

    /// Makes a committed change visible.
    pub fn apply(&self, change: Change) {
        match change {
            Change::PutPlatform(id, platform) => {
                let entry = self.entry_or_new(id);
                if !platform.enabled {
                    entry.data_keys.clear();
                }
                *entry.head.write() = Some(platform);
            }
            Change::DeletePlatform(id) => drop(self.entries.write().remove(&id)),
            Change::PutFamily(id, family) => {
                let entry = self.entry_or_new(id);
                let mut families = entry.families.write();
                // In its place: a refresh makes it no younger.
                match families.iter_mut().find(|known| known.id == family.id) {
                    Some(known) => *known = family,
                    None => families.push(family),
                }
            }
            Change::EndFamily(id, family) => {
                let Some(entry) = self.entry(id) else { return };
                let mut families = entry.families.write();
                families.retain(|known| known.id != family);
                if families.is_empty() {
                    entry.data_keys.clear();
                }
            }
        }
    }

    pub(super) fn entry(&self, id: PlatId) -> Option<Arc<Entry>> {
        self.entries.read().get(&id).cloned()
    }

    fn entry_or_new(&self, id: PlatId) -> Arc<Entry> {
        match self.entry(id) {
            Some(entry) => entry,
            None => Arc::clone(self.entries.write().entry(id).or_default()),
        }
    }

    /// A platform.
    #[must_use]
    pub fn platform(&self, id: PlatId) -> Option<Arc<Platform>> {
        self.entry(id)?.head.read().clone()
    }

    /// How many log-ins of a platform there are.
    #[must_use]
    pub fn log_ins(&self, id: PlatId) -> usize {
        self.entry(id).map_or(0, |entry| entry.families.read().len())
    }

    /// How many platforms there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.read().len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Up to `limit` platforms after one, in the order of their numbers.
    #[must_use]
    pub fn list(&self, after: Option<PlatId>, limit: usize) -> Vec<(PlatId, Arc<Platform>)> {
        let entries = self.entries.read();
        entries
            .range((after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded))
            .filter_map(|(id, entry)| entry.head.read().clone().map(|platform| (*id, platform)))
            .take(limit)
            .collect()
    }

    /// Whether a platform is granted a product, and for control if that is asked for.
    #[must_use]
    pub fn may(&self, id: PlatId, product: &str, control: bool) -> bool {
        self.platform(id).is_some_and(|platform| {
            platform.enabled
                && platform.grants.iter().any(|grant| grant.product.as_str() == product && (grant.control || !control))
        })
    }

    /// Whether a platform may publish there: `dev/{product}/{device}/down/…` of a product that it controls. For the gate.
    #[must_use]
    pub fn may_publish(&self, id: &str, topic: &str) -> bool {
        let (Some(id), Some((product, _))) = (PlatId::parse(id), down(topic)) else { return false };
        self.may(id, product, true)
    }

    /// A request has been answered, or was refused for this.
    pub fn note_outcome(&self, refused: Option<Cause>) {
        self.outcomes.count(refused);
    }

    /// How requests have ended since the start: `ok`, or the label of the cause.
    pub fn outcomes(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.outcomes.all()
    }

    /// Makes a user's new data key; the old one is void (4.1.3.1 a 4).
    ///
    /// # Errors
    /// [`Cause::UnknownPlatform`], [`Cause::DataKeysFull`].
    pub fn issue_data_key(&self, id: PlatId, user: &UserId, random: &[u8; 32], now: Now) -> Result<IssuedKey, Cause> {
        let entry = self.entry(id).ok_or(Cause::UnknownPlatform)?;
        let key = DataKey::make(random, id, user, now.unix_ms);
        entry.data_keys.put(user.clone(), key.clone(), now.mono_ms)?;
        Ok(IssuedKey { key, for_ms: DATA_KEY_MS })
    }

    /// A user's data key, if it is good.
    ///
    /// # Errors
    /// [`Cause::NoDataKey`].
    pub fn data_key(&self, id: PlatId, user: &UserId, now: Now) -> Result<DataKey, Cause> {
        self.entry(id).and_then(|entry| entry.data_keys.of(user, now.mono_ms)).ok_or(Cause::NoDataKey)
    }

    /// Voids a user's data key; says whether there was one.
    pub fn drop_data_key(&self, id: PlatId, user: &UserId) -> bool {
        self.entry(id).is_some_and(|entry| entry.data_keys.drop_key(user))
    }
}

/// Product and device of a topic on which a device is spoken to.
pub(super) fn down(topic: &str) -> Option<(&str, &str)> {
    let (product, rest) = topic.strip_prefix("dev/")?.split_once('/')?;
    let (device, rest) = rest.split_once('/')?;
    let rest = rest.strip_prefix("down/")?;
    (!product.is_empty() && !device.is_empty() && !rest.is_empty()).then_some((product, device))
}
