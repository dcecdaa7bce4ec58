//! Keys of users for personal data (4.1.3.1): made by a hash of user, time and random bytes, 256 bits, good for an hour; a new one voids the old.
//!
//! The cipher is AES-256 in CFB mode with a random IV in front, as the standard has it. That hides and doesn't protect from change: what is encrypted
//! is a field of a request whose HMAC covers it, or of an answer that is signed.

use std::collections::HashMap;
use std::fmt;

use aes::Aes256;
use cfb_mode::cipher::KeyIvInit;
use cfb_mode::{Decryptor, Encryptor};
use parking_lot::Mutex;
use zeroize::Zeroizing;

use super::token::Stream;
use super::{Cause, DATA_KEY_MS, DATA_KEYS_MAX, PlatId, UserId};

/// Bytes of the IV in front of what is encrypted.
pub const IV_BYTES: usize = 16;

/// A user's key. Never printed; wiped when dropped.
#[derive(Clone)]
pub struct DataKey(Zeroizing<[u8; 32]>);

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(…)")
    }
}

impl DataKey {
    /// Makes one of 32 random bytes (4.1.3.1 a 3).
    #[must_use]
    pub(super) fn make(random: &[u8; 32], platform: PlatId, user: &UserId, unix_ms: u64) -> Self {
        let whose = format!("{platform}/{}", user.as_str());
        let mut stream = Stream::new(random, "data key", &whose, unix_ms);
        Self(Zeroizing::new(std::array::from_fn(|_| stream.byte())))
    }

    /// From its bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, for the platform.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Encrypts: the IV, which must be random, and then as many bytes as `plain` has.
    #[must_use]
    pub fn encrypt(&self, iv: [u8; IV_BYTES], plain: &[u8]) -> Vec<u8> {
        let mut out = iv.to_vec();
        out.extend_from_slice(plain);
        let body = out.get_mut(IV_BYTES..).unwrap_or_default();
        Encryptor::<Aes256>::new((&*self.0).into(), &iv.into()).encrypt(body);
        out
    }

    /// Decrypts; none if there is no IV. Under another key it gives other bytes: there is nothing to tell by.
    #[must_use]
    pub fn decrypt(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let (iv, body) = bytes.split_first_chunk::<IV_BYTES>()?;
        let mut out = body.to_vec();
        Decryptor::<Aes256>::new((&*self.0).into(), iv.into()).decrypt(&mut out);
        Some(out)
    }
}

/// A key for a platform's user.
#[derive(Clone, Debug)]
pub struct IssuedKey {
    /// The key.
    pub key: DataKey,
    /// How long it is good, in milliseconds.
    pub for_ms: u64,
}

/// The data keys of one platform.
#[derive(Debug, Default)]
pub(super) struct DataKeys(Mutex<HashMap<UserId, Kept, foldhash::fast::RandomState>>);

#[derive(Debug)]
struct Kept {
    key: DataKey,
    /// Of the clock that never goes back.
    until_mono_ms: u64,
}

impl DataKeys {
    /// Keeps a user's new key; the old one is void.
    pub(super) fn put(&self, user: UserId, key: DataKey, mono_ms: u64) -> Result<(), Cause> {
        let mut keys = self.0.lock();
        if keys.len() >= DATA_KEYS_MAX && !keys.contains_key(&user) {
            keys.retain(|_, kept| kept.until_mono_ms > mono_ms);
            if keys.len() >= DATA_KEYS_MAX {
                return Err(Cause::DataKeysFull);
            }
        }
        keys.insert(user, Kept { key, until_mono_ms: mono_ms.saturating_add(DATA_KEY_MS) });
        Ok(())
    }

    pub(super) fn of(&self, user: &UserId, mono_ms: u64) -> Option<DataKey> {
        let mut keys = self.0.lock();
        match keys.get(user) {
            Some(kept) if kept.until_mono_ms > mono_ms => Some(kept.key.clone()),
            Some(_) => {
                keys.remove(user);
                None
            }
            None => None,
        }
    }

    pub(super) fn drop_key(&self, user: &UserId) -> bool {
        self.0.lock().remove(user).is_some()
    }

    pub(super) fn clear(&self) {
        *self.0.lock() = HashMap::default();
    }
}
