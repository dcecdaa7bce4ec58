//! The device's side of the payload cipher: for the load harness, for tests, and as what firmware has to do.

use std::sync::Arc;

use turnpike_core::gate::DeviceIdentity;
use zeroize::Zeroizing;

use super::frame::{self, Context, Direction, Header};
use super::keys::Root;
use super::policy::Suite;
use super::{ANNOUNCEMENT, CipherError, Material, Receiving, Sending, key_topic};

/// The cipher of a device's connection. A new log-in takes a new nonce, and begins a new one.
pub struct DeviceCipher {
    who: Arc<DeviceIdentity>,
    suite: Suite,
    material: Zeroizing<Vec<u8>>,
    nonce: Box<[u8]>,
    heard: Option<Heard>,
}

/// What the last announcement gave.
struct Heard {
    broker_nonce: [u8; 16],
    epoch: u32,
    up: Sending,
    down: Receiving,
}

impl std::fmt::Debug for DeviceCipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DeviceCipher({}, epoch {:?})", self.suite, self.epoch())
    }
}

impl DeviceCipher {
    /// Begins. `nonce`: the device's, as it goes into the log-in or the hello, never used before.
    #[must_use]
    pub fn new(who: Arc<DeviceIdentity>, suite: Suite, material: Material<'_>, nonce: &[u8]) -> Self {
        let material = Zeroizing::new(material.bytes().to_vec());
        Self { who, suite, material, nonce: nonce.into(), heard: None }
    }

    /// The epoch that was last announced.
    #[must_use]
    pub fn epoch(&self) -> Option<u32> {
        self.heard.as_ref().map(|heard| heard.epoch)
    }

    /// Hears an announcement. Says whether it is a new epoch; from then on the device seals in that.
    ///
    /// # Errors
    /// [`CipherError`]: it isn't the broker's, or it is a former one.
    pub fn hear(&mut self, payload: &[u8]) -> Result<bool, CipherError> {
        let &[frame::VERSION, ANNOUNCEMENT, ref rest @ ..] = payload else { return Err(CipherError::Malformed) };
        let (broker_nonce, sealed) = rest.split_first_chunk::<16>().ok_or(CipherError::Malformed)?;
        let (header, body) = Header::parse(sealed)?;
        if header.suite != self.suite {
            return Err(CipherError::Suite);
        }
        let topic = key_topic(&self.who);
        let context = Context { direction: Direction::Down, who: &self.who, topic: &topic };
        if let Some(heard) = &mut self.heard {
            // A connection has one nonce of the broker's.
            if heard.broker_nonce != *broker_nonce {
                return Err(CipherError::EpochUnknown);
            }
            if header.epoch == heard.epoch {
                return heard.down.open(header, context, body).map(|_| false);
            }
            if header.epoch < heard.epoch {
                return Err(CipherError::EpochOver);
            }
        }
        let root = Root::new(&self.material, &self.nonce, broker_nonce);
        let (up, down) = root.lanes(&self.who, self.suite, header.epoch);
        let mut down = Receiving::new(down);
        down.open(header, context, body)?;
        let (broker_nonce, epoch) = (*broker_nonce, header.epoch);
        self.heard = Some(Heard { broker_nonce, epoch, up: Sending::new(up), down });
        Ok(true)
    }

    /// Seals what the device publishes; none before the first announcement.
    #[must_use]
    pub fn seal_up(&mut self, topic: &str, payload: &[u8]) -> Option<Vec<u8>> {
        let heard = self.heard.as_mut()?;
        let context = Context { direction: Direction::Up, who: &self.who, topic };
        Some(heard.up.seal(self.suite, heard.epoch, context, payload))
    }

    /// Opens what the broker sends.
    ///
    /// # Errors
    /// [`CipherError`].
    pub fn open_down(&mut self, topic: &str, payload: &[u8]) -> Result<Vec<u8>, CipherError> {
        let (header, body) = Header::parse(payload)?;
        if header.suite != self.suite {
            return Err(CipherError::Suite);
        }
        let heard = self.heard.as_mut().ok_or(CipherError::EpochUnknown)?;
        if header.epoch != heard.epoch {
            return Err(if header.epoch < heard.epoch { CipherError::EpochOver } else { CipherError::EpochUnknown });
        }
        let context = Context { direction: Direction::Down, who: &self.who, topic };
        heard.down.open(header, context, body)
    }
}
