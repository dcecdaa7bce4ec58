//! Proofs that a device is at a user's hands: what binding asks for.
//!
//! | proof | what the user does | good for |
//! |---|---|---|
//! | passcode | types eight characters that the device shows | 10 minutes at most |
//! | QR code | scans a text that names the device, too | a day at most |
//! | presence | nothing: somebody has pressed the device's button, which opened a window | 5 minutes at most |
//!
//! Each is issued for one device, opens once, and is replaced by the next of its kind. A passcode, 40 bits, is void after
//! [`ATTEMPTS_MAX`] wrong ones for its device, and with it the window and the QR code: who guesses finds nothing left to guess at.
//!
//! A passcode or a QR code is a record of the store, so that what was printed or is shown still opens after a restart: an HMAC under a key that is derived
//! from the master key, since the hash of a passcode could be guessed at by whoever has a copy of the store. A window is in memory alone, and ends
//! with a restart. So does the count of wrong proofs; that they have voided a device's proofs is durable.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use parking_lot::Mutex;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::bindings::DeviceKey;
use super::change::Change;
use crate::names::{DeviceName, ProductKey};
use crate::secret::MasterKey;

/// Wrong proofs for one device, after which it has none any more.
pub const ATTEMPTS_MAX: u8 = 5;
/// Devices that have proofs.
pub const DEVICES_MAX: usize = 1_000_000;
/// What a QR code's text begins with.
pub const QR_PREFIX: &str = "turnpike:bind/";

/// Crockford's base 32: no two characters that look alike.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const PASSCODE_CHARS: usize = 8;

/// A kind of proof.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ProofKind {
    /// Typed.
    Passcode,
    /// Scanned.
    Qr,
    /// A window in time.
    Presence,
}

impl ProofKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Passcode, Self::Qr, Self::Presence];

    /// As it is called in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passcode => "passcode",
            Self::Qr => "qr",
            Self::Presence => "presence",
        }
    }

    /// The longest that it may be good for, in seconds.
    #[must_use]
    pub fn ttl_max_s(self) -> u32 {
        match self {
            Self::Passcode => 600,
            Self::Qr => 24 * 3600,
            Self::Presence => 300,
        }
    }

    /// How long it is good for where it isn't said, in seconds.
    #[must_use]
    pub fn ttl_s(self) -> u32 {
        match self {
            Self::Passcode => 300,
            Self::Qr => 3600,
            Self::Presence => 60,
        }
    }
}

/// A passcode or the text of a QR code, as the user has it. Never printed; wiped when dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct ProofText(String);

impl ProofText {
    /// The text.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ProofText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProofText(…)")
    }
}

/// What a user gives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Given<'a> {
    /// What was typed: spaces and hyphens between the characters and their case don't matter, and neither does who reads an O for a 0, or an I or L for a 1.
    Passcode(&'a str),
    /// The part of a scanned text behind the device ([`scanned`]).
    Qr(&'a str),
    /// Nothing, within a window.
    Presence,
}

impl fmt::Debug for Given<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind().as_str())
    }
}

impl Given<'_> {
    fn kind(&self) -> ProofKind {
        match self {
            Self::Passcode(_) => ProofKind::Passcode,
            Self::Qr(_) => ProofKind::Qr,
            Self::Presence => ProofKind::Presence,
        }
    }

    fn hash(&self, key: &ProofKey, device: &DeviceKey) -> [u8; 32] {
        match self {
            Self::Passcode(typed) => key.hash(device, self.kind(), &normal(typed)),
            Self::Qr(code) => key.hash(device, self.kind(), code),
            Self::Presence => key.hash(device, self.kind(), ""),
        }
    }
}

/// Why nothing is proved. Said to nobody but the audit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotProved {
    /// There is no such proof, or it is over.
    None,
    /// There is one, and that isn't it.
    Wrong,
    /// The same, once too often: the device has no proof any more, and its record is to be deleted.
    Voided,
}

/// What proofs are kept under. Wiped when dropped.
#[derive(Clone)]
pub struct ProofKey(Zeroizing<[u8; 32]>);

impl fmt::Debug for ProofKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProofKey(…)")
    }
}

impl ProofKey {
    /// Derived from the master key: under another one, none that was issued opens.
    #[must_use]
    pub fn of(key: &MasterKey) -> Self {
        Self(key.derive("turnpike proofs of binding"))
    }

    fn hash(&self, device: &DeviceKey, kind: ProofKind, text: &str) -> [u8; 32] {
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&*self.0).expect("HMAC takes a key of any length");
        // No name has a NUL.
        for part in [device.product.as_str(), device.device.as_str(), kind.as_str(), text] {
            mac.update(part.as_bytes());
            mac.update(&[0]);
        }
        mac.finalize().into_bytes().into()
    }
}

/// A proof that was issued.
#[derive(Clone, Debug)]
pub struct IssuedProof {
    /// What is to reach the user by way of the device; of a window there is nothing to tell.
    pub text: Option<ProofText>,
    /// When it ends, seconds since 1970 UTC.
    pub expires_at_s: u64,
    /// To be committed and applied; it opens then. None of a window, which is open.
    pub change: Option<Change>,
}

/// There are [`DEVICES_MAX`] devices with proofs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("too many proofs are open")]
pub struct ProofsFull;

/// Device and code of a scanned text.
#[must_use]
pub fn scanned(text: &str) -> Option<(DeviceKey, &str)> {
    let mut parts = text.strip_prefix(QR_PREFIX)?.split('/');
    let (product, device, code) = (parts.next()?, parts.next()?, parts.next()?);
    let product = ProductKey::parse(product).ok()?;
    let device = DeviceName::parse(device).ok()?;
    parts.next().is_none().then_some((DeviceKey { product, device }, code))
}

/// A proof that is out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Open {
    pub(super) hash: [u8; 32],
    pub(super) expires_at_s: u64,
}

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Open").field("expires_at_s", &self.expires_at_s).finish_non_exhaustive()
    }
}

/// The proofs of a device that the store keeps: passcode and QR code.
pub type Stored = [Option<Open>; 2];

#[derive(Debug, Default)]
struct OfDevice {
    open: [Option<Open>; 3],
    failed: u8,
}

impl OfDevice {
    fn stored(&self) -> Stored {
        let [passcode, qr, _] = self.open;
        [passcode, qr]
    }

    fn last_s(&self) -> u64 {
        self.open.iter().flatten().map(|open| open.expires_at_s).max().unwrap_or(0)
    }
}

#[derive(Debug, Default)]
struct Tables {
    devices: HashMap<DeviceKey, OfDevice, foldhash::fast::RandomState>,
    /// When the last of a device's proofs ends.
    by_expiry: BTreeSet<(u64, DeviceKey)>,
}

impl Tables {
    fn forget(&mut self, device: &DeviceKey) {
        if let Some(of_device) = self.devices.remove(device) {
            self.by_expiry.remove(&(of_device.last_s(), device.clone()));
        }
    }

    fn has_room(&self, device: &DeviceKey) -> bool {
        self.devices.len() < DEVICES_MAX || self.devices.contains_key(device)
    }

    /// Changes what a device has, and begins to count wrong ones anew.
    fn put(&mut self, device: &DeviceKey, change: impl FnOnce(&mut OfDevice)) {
        let mut of_device = OfDevice::default();
        if let Some(before) = self.devices.remove(device) {
            self.by_expiry.remove(&(before.last_s(), device.clone()));
            of_device = before;
        }
        of_device.failed = 0;
        change(&mut of_device);
        self.by_expiry.insert((of_device.last_s(), device.clone()));
        self.devices.insert(device.clone(), of_device);
    }
}

/// All that are out.
#[derive(Debug, Default)]
pub struct Proofs {
    tables: Mutex<Tables>,
}

impl Proofs {
    /// Issues a proof for a device, in place of the one of that kind that it had. `ttl_s` is cut to the kind's longest. `random` is fresh. The caller
    /// holds the control plane's lock until it has applied the change.
    ///
    /// # Errors
    /// [`ProofsFull`].
    pub fn issue(
        &self,
        key: &ProofKey,
        device: &DeviceKey,
        (kind, ttl_s): (ProofKind, u32),
        random: [u8; 32],
        now_s: u64,
    ) -> Result<IssuedProof, ProofsFull> {
        let (text, hash) = match kind {
            ProofKind::Passcode => {
                let code = passcode(&random);
                let hash = key.hash(device, kind, &code);
                (Some(ProofText(code)), hash)
            }
            ProofKind::Qr => {
                let code = URL_SAFE_NO_PAD.encode(random);
                let hash = key.hash(device, kind, &code);
                (Some(ProofText(format!("{QR_PREFIX}{}/{}/{code}", device.product, device.device))), hash)
            }
            ProofKind::Presence => (None, key.hash(device, kind, "")),
        };
        let expires_at_s = now_s.saturating_add(u64::from(ttl_s.min(kind.ttl_max_s())));
        let mut tables = self.tables.lock();
        if !tables.has_room(device) {
            return Err(ProofsFull);
        }
        let open = Some(Open { hash, expires_at_s });
        let change = match kind {
            ProofKind::Passcode | ProofKind::Qr => {
                let mut stored = tables.devices.get(device).map(OfDevice::stored).unwrap_or_default();
                stored.get_mut(kind as usize).into_iter().for_each(|before| *before = open);
                Some(Change::PutProofs(device.clone(), stored))
            }
            ProofKind::Presence => {
                tables.put(device, |of_device| {
                    let [passcode, qr, _] = of_device.open;
                    of_device.open = [passcode, qr, open];
                });
                None
            }
        };
        Ok(IssuedProof { text, expires_at_s, change })
    }

    /// What the store keeps of a device's proofs.
    pub(super) fn put(&self, device: &DeviceKey, stored: Stored) {
        self.tables.lock().put(device, |of_device| {
            let [passcode, qr] = stored;
            let [_, _, window] = of_device.open;
            of_device.open = [passcode, qr, window];
        });
    }

    /// Up to `limit` devices whose last proof is over.
    pub(super) fn expired(&self, now_s: u64, limit: usize) -> Vec<DeviceKey> {
        let tables = self.tables.lock();
        tables.by_expiry.iter().take_while(|(at_s, _)| *at_s <= now_s).take(limit).map(|due| due.1.clone()).collect()
    }

    /// Up to `limit` devices of a product that have proofs.
    pub(super) fn of_product(&self, product: &ProductKey, limit: usize) -> Vec<DeviceKey> {
        let tables = self.tables.lock();
        tables.devices.keys().filter(|device| device.product == *product).take(limit).cloned().collect()
    }

    /// When the next of a device's last proofs ends.
    pub(super) fn next_expiry_s(&self) -> Option<u64> {
        self.tables.lock().by_expiry.first().map(|(at_s, _)| *at_s)
    }

    /// Whether a device has proofs.
    pub(super) fn has(&self, device: &DeviceKey) -> bool {
        self.tables.lock().devices.contains_key(device)
    }

    /// Whether this proves that the device is at hand. It still does afterwards: [`super::People::plan_use_up`] goes with the binding.
    ///
    /// # Errors
    /// [`NotProved`].
    pub fn check(&self, key: &ProofKey, device: &DeviceKey, given: Given<'_>, now_s: u64) -> Result<(), NotProved> {
        let hash = given.hash(key, device);
        let mut tables = self.tables.lock();
        let of_device = tables.devices.get_mut(device).ok_or(NotProved::None)?;
        let found = of_device.open.get(given.kind() as usize).copied().flatten();
        let open = found.filter(|open| open.expires_at_s > now_s).ok_or(NotProved::None)?;
        if bool::from(open.hash.ct_eq(&hash)) {
            return Ok(());
        }
        of_device.failed += 1;
        if of_device.failed >= ATTEMPTS_MAX {
            tables.forget(device);
            return Err(NotProved::Voided);
        }
        Err(NotProved::Wrong)
    }

    /// A device has been bound, or is gone: none of its proofs proves anything any more.
    pub(super) fn use_up(&self, device: &DeviceKey) {
        self.tables.lock().forget(device);
    }

    /// How many devices have proofs, those that are over but not forgotten included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tables.lock().devices.len()
    }

    /// Whether none has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn passcode(random: &[u8; 32]) -> String {
    let character = |byte: &u8| ALPHABET.get(usize::from(byte & 31)).copied().map_or('0', char::from);
    random.iter().take(PASSCODE_CHARS).map(character).collect()
}

/// A passcode as it was issued, from how it was typed.
fn normal(typed: &str) -> String {
    let is_between = |c: &char| c.is_ascii_whitespace() || *c == '-';
    let character = |c: char| match c.to_ascii_uppercase() {
        'O' => '0',
        'I' | 'L' => '1',
        other => other,
    };
    // Nothing longer was ever issued.
    typed.chars().filter(|c| !is_between(c)).take(PASSCODE_CHARS + 1).map(character).collect()
}

#[cfg(test)]
mod tests;
