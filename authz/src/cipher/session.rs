//! The cipher of a connection as the core drives it: from the log-in through CONNECT's properties, or a hello, to keys.
//!
//! ```text
//! Login ──begin: a nonce in CONNECT, and a secret or a wrapped key──▶ Cipher
//!   │  begin: none of it, or not enough                                  ▲
//!   └─────────────▶ hello ───────────────────────────────────────────────┘
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use turnpike_core::cipher::{Announcement, PayloadCipher, Random};
use turnpike_core::clock::Now;
use turnpike_core::gate::DeviceIdentity;
use turnpike_mqtt::{ConnectReason, ReasonCode, UserProperties};

use super::{
    Cipher, CipherError, CipherPolicy, Drops, Material, Offer, OfferError, PlatformKey, Terms, TermsError, key_topic,
};
use crate::secret::Secret;

/// What is counted of all sealed payloads.
#[derive(Debug, Default)]
pub struct Counts {
    /// Payloads that were dropped.
    pub drops: Drops,
    epochs: AtomicU64,
}

impl Counts {
    /// Epochs that were announced, each connection's first among them; repetitions don't count.
    #[must_use]
    pub fn epochs(&self) -> u64 {
        self.epochs.load(Ordering::Relaxed)
    }
}

/// What a log-in leaves for the making of keys.
#[derive(Clone, Debug)]
pub struct Login {
    /// Who has logged in.
    pub who: Arc<DeviceIdentity>,
    /// The product's cipher.
    pub policy: CipherPolicy,
    /// The device's secret, if it has one.
    pub secret: Option<Secret>,
    /// The nonce of a native credential.
    pub nonce: Option<Box<str>>,
    /// What a key of the device's own is wrapped under, if there is such a key.
    pub platform_key: Option<Arc<PlatformKey>>,
}

/// Why a device has no keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum NoKeys {
    /// It may still say hello.
    Yet,
    /// What it said is no offer.
    Malformed,
    /// What it offers isn't taken.
    Refused,
}

impl From<OfferError> for NoKeys {
    fn from(_: OfferError) -> Self {
        Self::Malformed
    }
}

impl From<TermsError> for NoKeys {
    fn from(error: TermsError) -> Self {
        match error {
            TermsError::NoNonce => Self::Yet,
            TermsError::SuiteNotAllowed | TermsError::Unsigned => Self::Refused,
        }
    }
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "the whole is in a box, and is the larger one for nearly all of its life")]
enum Stage {
    Waiting(Login),
    Sealing(Cipher),
}

/// The cipher of a device's connection.
#[derive(Debug)]
pub struct SessionCipher {
    stage: Stage,
    counts: Arc<Counts>,
}

impl SessionCipher {
    /// Of a device that has logged in. It has no keys yet.
    #[must_use]
    pub fn new(login: Login, counts: Arc<Counts>) -> Self {
        Self { stage: Stage::Waiting(login), counts }
    }

    fn who(&self) -> &DeviceIdentity {
        match &self.stage {
            Stage::Waiting(login) => &login.who,
            Stage::Sealing(cipher) => &cipher.who,
        }
    }

    fn make_keys(&mut self, offer: Option<&Offer>, now: Now, random: Random<'_>) -> Result<(), NoKeys> {
        let Stage::Waiting(login) = &self.stage else { return Err(NoKeys::Refused) };
        let terms = Terms::new(offer, login.nonce.as_deref(), &login.policy)?;
        let wrapped = terms.wrapped.as_deref().map(|wrapped| {
            let mut blinding = [0; 32];
            random(&mut blinding);
            let platform_key = login.platform_key.as_ref().ok_or(NoKeys::Refused)?;
            platform_key.open(wrapped, blinding).map_err(|_| NoKeys::Refused)
        });
        let own_key = wrapped.transpose()?;
        let material = match (&own_key, &login.secret) {
            (Some(key), _) => Material::Key(key),
            (None, Some(secret)) => Material::Secret(secret),
            (None, None) => return Err(NoKeys::Yet),
        };
        let mut fresh = [0; 20];
        random(&mut fresh);
        let cipher = Cipher::begin(Arc::clone(&login.who), &login.policy, (&terms, material), (now, fresh));
        self.counts.epochs.fetch_add(1, Ordering::Relaxed);
        self.stage = Stage::Sealing(cipher);
        Ok(())
    }

    fn dropped(&self, error: CipherError) -> ReasonCode {
        self.counts.drops.count(error);
        match error {
            // It was taken the first time, and says so again.
            CipherError::Replayed => ReasonCode::Success,
            CipherError::EpochUnknown | CipherError::EpochOver => ReasonCode::NotAuthorized,
            CipherError::Malformed | CipherError::Suite | CipherError::Altered | CipherError::TooOld => {
                ReasonCode::PayloadFormatInvalid
            }
        }
    }
}

impl PayloadCipher for SessionCipher {
    fn begin(&mut self, properties: UserProperties<'_>, now: Now, random: Random<'_>) -> Result<(), ConnectReason> {
        let made = Offer::from_properties(properties.iter())
            .map_err(NoKeys::from)
            .and_then(|offer| self.make_keys(offer.as_ref(), now, random));
        match made {
            Ok(()) | Err(NoKeys::Yet) => Ok(()),
            Err(NoKeys::Malformed | NoKeys::Refused) => Err(ConnectReason::NotAuthorized),
        }
    }

    fn is_ready(&self) -> bool {
        matches!(self.stage, Stage::Sealing(_))
    }

    fn is_key_topic(&self, topic: &str) -> bool {
        let who = self.who();
        let rest = topic.strip_prefix("dev/").and_then(|rest| rest.strip_prefix(&*who.product));
        let rest = rest.and_then(|rest| rest.strip_prefix('/')).and_then(|rest| rest.strip_prefix(&*who.device));
        rest == Some("/sys/key")
    }

    fn key_topic(&self) -> String {
        key_topic(self.who())
    }

    fn hello(&mut self, payload: &[u8], now: Now, random: Random<'_>) -> Result<(), ReasonCode> {
        let made = Offer::from_hello(payload)
            .map_err(NoKeys::from)
            .and_then(|offer| self.make_keys(Some(&offer), now, random));
        made.map_err(|no_keys| match no_keys {
            NoKeys::Malformed => ReasonCode::PayloadFormatInvalid,
            NoKeys::Yet | NoKeys::Refused => ReasonCode::NotAuthorized,
        })
    }

    fn open(&mut self, topic: &str, payload: &[u8], now: Now) -> Result<Vec<u8>, ReasonCode> {
        let opened = match &mut self.stage {
            Stage::Sealing(cipher) => cipher.open_up(topic, payload, now),
            Stage::Waiting(_) => Err(CipherError::EpochUnknown),
        };
        opened.map_err(|error| self.dropped(error))
    }

    fn seal(&mut self, topic: &str, payload: &[u8]) -> Option<Vec<u8>> {
        match &mut self.stage {
            Stage::Sealing(cipher) => Some(cipher.seal_down(topic, payload)),
            Stage::Waiting(_) => None,
        }
    }

    fn poll(&mut self, now: Now) -> Option<Announcement> {
        let Stage::Sealing(cipher) = &mut self.stage else { return None };
        let before = cipher.epoch();
        let announcement = cipher.poll(now);
        if cipher.epoch() != before {
            self.counts.epochs.fetch_add(1, Ordering::Relaxed);
        }
        announcement
    }

    fn announce(&mut self) -> Option<Announcement> {
        match &mut self.stage {
            Stage::Sealing(cipher) => Some(cipher.announce()),
            Stage::Waiting(_) => None,
        }
    }

    fn deadline_ms(&self) -> Option<u64> {
        match &self.stage {
            Stage::Sealing(cipher) => Some(cipher.deadline_ms()),
            Stage::Waiting(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
