//! Session codes: passwords of users that the API issues, for a short time, and takes back.
//!
//! A code is 32 random bytes, shown once; what is kept is its SHA-256, and of that the first eight bytes are the code's number, by which it is
//! listed and taken back. It opens as often as it is used, until it ends; whoever came in by it is out when it ends or is taken back.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::RwLock;
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::ids::UserKey;

/// What a code begins with. No other password of a user does.
pub const PREFIX: &str = "c1;";

/// A code, as its user has it: `c1;` and 43 characters. Never printed; wiped when dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct SessionCode(String);

impl SessionCode {
    /// From random bytes.
    #[must_use]
    pub fn new(random: [u8; 32]) -> Self {
        Self(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random)))
    }

    /// The text.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SessionCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionCode(…)")
    }
}

/// What is kept of a code.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CodeHash(pub(super) [u8; 32]);

impl CodeHash {
    /// Of whatever was sent.
    #[must_use]
    pub fn of(password: &str) -> Self {
        Self(Sha256::digest(password).into())
    }

    /// What it is listed and taken back by; it opens nothing.
    #[must_use]
    pub fn number(self) -> u64 {
        u64::from_be_bytes(*self.0.first_chunk().expect("8 of 32 bytes"))
    }
}

impl fmt::Debug for CodeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CodeHash({:016x})", self.number())
    }
}

/// A code that was issued.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Code {
    /// Whose.
    pub user: UserKey,
    /// When it ends, seconds since 1970 UTC.
    pub expires_at_s: u64,
}

/// All that are out.
#[derive(Debug, Default)]
pub(super) struct Codes {
    codes: RwLock<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    by_hash: HashMap<CodeHash, Code, foldhash::fast::RandomState>,
    by_user: HashMap<UserKey, Vec<CodeHash>, foldhash::fast::RandomState>,
    by_expiry: BTreeSet<(u64, CodeHash)>,
}

impl Codes {
    pub(super) fn put(&self, hash: CodeHash, code: Code) {
        self.delete(hash);
        let mut tables = self.codes.write();
        tables.by_user.entry(code.user.clone()).or_default().push(hash);
        tables.by_expiry.insert((code.expires_at_s, hash));
        tables.by_hash.insert(hash, code);
    }

    pub(super) fn delete(&self, hash: CodeHash) {
        let mut tables = self.codes.write();
        let Some(code) = tables.by_hash.remove(&hash) else { return };
        tables.by_expiry.remove(&(code.expires_at_s, hash));
        if let Some(hashes) = tables.by_user.get_mut(&code.user) {
            hashes.retain(|known| *known != hash);
            if hashes.is_empty() {
                tables.by_user.remove(&code.user);
            }
        }
    }

    /// The code that was sent. Found by a hash of all of it, so how long a look takes tells nothing of a code that is out.
    pub(super) fn find(&self, hash: CodeHash) -> Option<Code> {
        self.codes.read().by_hash.get(&hash).cloned()
    }

    /// Whether a user still has the code of a number.
    pub(super) fn has(&self, app: &str, user: &str, number: u64, now_s: u64) -> bool {
        let Ok(key) = UserKey::parse(app, user) else { return false };
        let tables = self.codes.read();
        let hashes = tables.by_user.get(&key).map(Vec::as_slice).unwrap_or_default();
        hashes
            .iter()
            .filter(|hash| hash.number() == number)
            .any(|hash| tables.by_hash.get(hash).is_some_and(|code| code.expires_at_s > now_s))
    }

    /// A user's, each with when it ends.
    pub(super) fn of(&self, user: &UserKey) -> Vec<(CodeHash, u64)> {
        let tables = self.codes.read();
        let hashes = tables.by_user.get(user).map(Vec::as_slice).unwrap_or_default();
        hashes.iter().filter_map(|hash| Some((*hash, tables.by_hash.get(hash)?.expires_at_s))).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.codes.read().by_hash.len()
    }

    pub(super) fn next_expiry_s(&self) -> Option<u64> {
        self.codes.read().by_expiry.first().map(|(at_s, _)| *at_s)
    }

    /// Up to `limit` codes that have ended.
    pub(super) fn expired(&self, now_s: u64, limit: usize) -> Vec<CodeHash> {
        let tables = self.codes.read();
        tables.by_expiry.iter().take_while(|(at_s, _)| *at_s <= now_s).take(limit).map(|(_, hash)| *hash).collect()
    }
}
