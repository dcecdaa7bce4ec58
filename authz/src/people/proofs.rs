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
//! They are kept in memory alone, as hashes: a restart voids them, and the device is asked for another.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::bindings::DeviceKey;
use crate::names::{DeviceName, ProductKey};

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

    fn hash(&self) -> [u8; 32] {
        match self {
            Self::Passcode(typed) => hash(&normal(typed)),
            Self::Qr(code) => hash(code),
            Self::Presence => hash(""),
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

#[derive(Clone, Copy, Debug)]
struct Open {
    hash: [u8; 32],
    expires_at_s: u64,
}

#[derive(Debug, Default)]
struct OfDevice {
    open: [Option<Open>; 3],
    failed: u8,
}

impl OfDevice {
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

    fn forget_expired(&mut self, now_s: u64) {
        while let Some((_, device)) = self.by_expiry.first().filter(|(at_s, _)| *at_s <= now_s).cloned() {
            self.forget(&device);
        }
    }
}

/// All that are out.
#[derive(Debug, Default)]
pub struct Proofs {
    tables: Mutex<Tables>,
}

impl Proofs {
    /// Issues a proof for a device, in place of the one of that kind that it had. `ttl_s` is cut to the kind's longest. What is given has to reach
    /// the user by way of the device; of a window there is nothing to tell. `random` is fresh.
    ///
    /// # Errors
    /// [`ProofsFull`].
    pub fn issue(
        &self,
        device: &DeviceKey,
        kind: ProofKind,
        ttl_s: u32,
        random: [u8; 32],
        now_s: u64,
    ) -> Result<(Option<ProofText>, u64), ProofsFull> {
        let (text, hash) = match kind {
            ProofKind::Passcode => {
                let code = passcode(&random);
                let hash = hash(&code);
                (Some(ProofText(code)), hash)
            }
            ProofKind::Qr => {
                let code = URL_SAFE_NO_PAD.encode(random);
                let hash = hash(&code);
                (Some(ProofText(format!("{QR_PREFIX}{}/{}/{code}", device.product, device.device))), hash)
            }
            ProofKind::Presence => (None, hash("")),
        };
        let expires_at_s = now_s.saturating_add(u64::from(ttl_s.min(kind.ttl_max_s())));
        let mut tables = self.tables.lock();
        tables.forget_expired(now_s);
        if tables.devices.len() >= DEVICES_MAX && !tables.devices.contains_key(device) {
            return Err(ProofsFull);
        }
        let mut of_device = OfDevice::default();
        if let Some(before) = tables.devices.remove(device) {
            tables.by_expiry.remove(&(before.last_s(), device.clone()));
            of_device = before;
        }
        of_device.failed = 0;
        if let Some(open) = of_device.open.get_mut(kind as usize) {
            *open = Some(Open { hash, expires_at_s });
        }
        tables.by_expiry.insert((of_device.last_s(), device.clone()));
        tables.devices.insert(device.clone(), of_device);
        Ok((text, expires_at_s))
    }

    /// Whether this proves that the device is at hand. It still does afterwards: [`Self::use_up`] it when the user is bound.
    ///
    /// # Errors
    /// [`NotProved`].
    pub fn check(&self, device: &DeviceKey, given: Given<'_>, now_s: u64) -> Result<(), NotProved> {
        let mut tables = self.tables.lock();
        let hash = given.hash();
        let of_device = tables.devices.get_mut(device).ok_or(NotProved::None)?;
        let found = of_device.open.get(given.kind() as usize).copied().flatten();
        let open = found.filter(|open| open.expires_at_s > now_s).ok_or(NotProved::None)?;
        if bool::from(open.hash.ct_eq(&hash)) {
            return Ok(());
        }
        of_device.failed += 1;
        if of_device.failed >= ATTEMPTS_MAX {
            tables.forget(device);
        }
        Err(NotProved::Wrong)
    }

    /// A device has been bound, or is gone: none of its proofs proves anything any more.
    pub fn use_up(&self, device: &DeviceKey) {
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

fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
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
