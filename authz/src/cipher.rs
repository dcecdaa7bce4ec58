//! The payload cipher, for devices that have no TLS. Frames, keys and announcements are specified in `authz/PAYLOAD.md`, with vectors.
//!
//! ```text
//! CONNECT ─▶ Terms (nonce, suite) ─▶ Cipher::begin ─▶ poll ─▶ announcement on dev/{p}/{d}/sys/key
//! PUBLISH of the device ─▶ open_up ─▶ plain payload ─▶ router ─▶ subscribers
//! router ─▶ seal_down, in the order of writing ─▶ PUBLISH to the device
//! timer, and after each message ─▶ poll ─▶ a new epoch's announcement
//! ```
//!
//! A [`Cipher`] belongs to a session's connection and dies with it: the next log-in has other nonces, so other keys, and what was sealed
//! before it is refused. Connections over TLS, and products whose policy is no cipher, have none.
//!
//! Neither way of making keys is forward secret: whoever has the device's secret, or the platform's RSA key, and a recording reads it.
//! Where that matters there is TLS.
//!
//! Figures, printed by `cargo run --release -p turnpike-authz --example cipher_figures` (lowest and highest of several runs on the 2-core machine, which had other
//! work beside it): to open or to seal 64 bytes in AES-128-GCM takes 0.4 µs, 1024 bytes 0.7–1.0 µs; in the legacy suites 0.6–1.1 and 1.4–3.4 µs; to begin and
//! announce 1.5–1.8 µs.
//!
//! **Invariant:** a counter is used once under a key. Each log-in's keys depend on 16 random bytes of the broker, and within them the counter only goes up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use turnpike_core::clock::Now;
use turnpike_core::gate::DeviceIdentity;

use crate::secret::Secret;

pub mod device;
pub mod epochs;
mod frame;
mod keys;
pub mod offer;
pub mod policy;
mod window;
pub mod wrap;

use epochs::{Epochs, Standing, Step};
use frame::{Context, Direction, Header};
use keys::{Lane, Root};
use window::{Taken, Window};

pub use frame::{HEADER, TAG};
pub use offer::{Offer, OfferError};
pub use policy::{CipherPolicy, PayloadPolicy, Suite};
pub use window::WINDOW;
pub use wrap::{DeviceKey, PlatformKey};

/// Second byte of an announcement.
const ANNOUNCEMENT: u8 = 0xF0;

macro_rules! errors {
    ($($(#[$doc:meta])* $name:ident = $label:literal, $text:literal;)*) => {
        /// Why a payload is dropped.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
        pub enum CipherError { $($(#[$doc])* #[error($text)] $name,)* }

        impl CipherError {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// As a label of a metric.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

errors! {
    /// No frame: too short, another version, an unknown suite. A device that doesn't seal sends these.
    Malformed = "malformed", "a payload is no sealed frame";
    /// A suite that the session doesn't use.
    Suite = "suite", "a payload is sealed in another suite than the session's";
    /// An epoch that is none of this session: sealed before the last log-in, or before its announcement.
    EpochUnknown = "epoch_unknown", "a payload is sealed in an epoch that isn't the session's";
    /// An epoch whose grace is over.
    EpochOver = "epoch_over", "a payload is sealed in an epoch whose grace is over";
    /// It isn't what was sealed for this direction, device and topic under this key.
    Altered = "altered", "a payload has been altered";
    /// It has been taken before.
    Replayed = "replayed", "a payload has been replayed";
    /// So old that nobody knows whether it has been taken before.
    TooOld = "too_old", "a payload is older than what is remembered";
}

/// How often payloads were dropped, by reason.
#[derive(Debug, Default)]
pub struct Drops([AtomicU64; CipherError::ALL.len()]);

impl Drops {
    /// Counts one.
    pub fn count(&self, error: CipherError) {
        if let Some(count) = self.0.get(error as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// All counts.
    pub fn iter(&self) -> impl Iterator<Item = (CipherError, u64)> + '_ {
        CipherError::ALL.iter().copied().zip(self.0.iter().map(|count| count.load(Ordering::Relaxed)))
    }
}

/// Why a session has no keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TermsError {
    /// The device has said no nonce of 8 bytes or more: it has to say hello before anything else.
    #[error("the device has sent no nonce")]
    NoNonce,
    /// The product doesn't take it.
    #[error("the product doesn't take this suite")]
    SuiteNotAllowed,
    /// A key under the platform's, and the log-in isn't signed over its hash: anybody could have put it there.
    #[error("the log-in isn't signed over the wrapped key")]
    Unsigned,
}

/// What a session's keys are to be made with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Terms {
    /// The device's nonce.
    pub nonce: Box<[u8]>,
    /// The suite.
    pub suite: Suite,
    /// To be opened with [`PlatformKey::open`]; the key in it is used in place of the device's secret.
    pub wrapped: Option<Box<[u8]>>,
}

impl Terms {
    /// Takes together what came with a log-in. `offer`: from the user properties of CONNECT, or later from a hello; `login_nonce`:
    /// the nonce of a native credential that was found right.
    ///
    /// # Errors
    /// [`TermsError`].
    pub fn new(offer: Option<&Offer>, login_nonce: Option<&str>, policy: &CipherPolicy) -> Result<Self, TermsError> {
        let nothing = Offer::default();
        let offer = offer.unwrap_or(&nothing);
        let login = login_nonce.and_then(|nonce| Offer::from_login_nonce(nonce).ok()).unwrap_or_default();
        let suite = offer.suite.or(login.suite).unwrap_or(policy.default_suite());
        if !policy.suites().contains(&suite) {
            return Err(TermsError::SuiteNotAllowed);
        }
        if offer.wrapped.is_some() && !login_nonce.is_some_and(|nonce| offer.is_signed(nonce)) {
            return Err(TermsError::Unsigned);
        }
        let nonce = offer.nonce.clone().or(login.nonce).ok_or(TermsError::NoNonce)?;
        Ok(Self { nonce, suite, wrapped: offer.wrapped.clone() })
    }
}

/// What only the device and the broker know.
#[derive(Clone, Copy, Debug)]
pub enum Material<'a> {
    /// The device's secret.
    Secret(&'a Secret),
    /// The key that came under the platform's.
    Key(&'a DeviceKey),
}

impl Material<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Secret(secret) => secret.expose(),
            Self::Key(key) => &key.0,
        }
    }
}

/// A message for the device on its topic of keys, QoS 0, whether or not it has subscribed. It isn't sealed again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Announcement {
    /// `dev/{product}/{device}/sys/key`.
    pub topic: String,
    /// As `authz/PAYLOAD.md` has it.
    pub payload: Vec<u8>,
}

/// The topic of a device's keys: announcements to it, and its hello. Neither is sealed as other payloads are, and neither is routed.
#[must_use]
pub fn key_topic(who: &DeviceIdentity) -> String {
    format!("dev/{}/{}/sys/key", who.product, who.device)
}

/// One direction of an epoch, where it is received.
struct Receiving {
    lane: Lane,
    window: Window,
}

impl Receiving {
    fn new(lane: Lane) -> Self {
        Self { lane, window: Window::default() }
    }

    /// Opens a frame of this epoch, once.
    fn open(&mut self, header: Header, context: Context<'_>, body: &[u8]) -> Result<Vec<u8>, CipherError> {
        let payload = frame::open(&self.lane, header, context, body)?;
        match self.window.take(header.counter) {
            Taken::First => Ok(payload),
            Taken::Again => Err(CipherError::Replayed),
            Taken::TooOld => Err(CipherError::TooOld),
        }
    }
}

/// One direction of an epoch, where it is sent.
struct Sending {
    lane: Lane,
    counter: u64,
}

impl Sending {
    fn new(lane: Lane) -> Self {
        Self { lane, counter: 0 }
    }

    fn seal(&mut self, suite: Suite, epoch: u32, context: Context<'_>, payload: &[u8]) -> Vec<u8> {
        let header = Header { suite, epoch, counter: self.counter };
        // 2⁶⁴ messages take longer than any epoch.
        self.counter = self.counter.saturating_add(1);
        frame::seal(&self.lane, header, context, payload)
    }
}

/// The cipher of a session's connection, 360 bytes; in a box, so that a session without one pays for a pointer.
pub struct Cipher {
    who: Arc<DeviceIdentity>,
    suite: Suite,
    policy: CipherPolicy,
    broker_nonce: [u8; 16],
    root: Root,
    epochs: Epochs,
    up: Receiving,
    previous_up: Option<Receiving>,
    down: Sending,
}

impl std::fmt::Debug for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cipher({}, epoch {})", self.suite, self.epochs.current())
    }
}

impl Cipher {
    /// Begins, at each log-in. `random` is fresh: the broker's nonce, and the number of the first epoch, so that what was sealed
    /// before the log-in is told from what was altered.
    #[must_use]
    pub fn begin(
        who: Arc<DeviceIdentity>,
        policy: &CipherPolicy,
        (terms, material): (&Terms, Material<'_>),
        (now, random): (Now, [u8; 20]),
    ) -> Self {
        let [broker_nonce @ .., e0, e1, e2, e3] = random;
        let first = u32::from_be_bytes([e0, e1, e2, e3]) >> 1;
        let root = Root::new(material.bytes(), &terms.nonce, &broker_nonce);
        let (up, down) = root.lanes(&who, terms.suite, first);
        Self {
            who,
            suite: terms.suite,
            policy: *policy,
            broker_nonce,
            root,
            epochs: Epochs::new(first, policy, now.mono_ms),
            up: Receiving::new(up),
            previous_up: None,
            down: Sending::new(down),
        }
    }

    /// Opens what the device published. A payload that doesn't open is dropped and counted; its PUBLISH is acknowledged all the same, since a client
    /// that repeats one within a connection repeats the frame.
    ///
    /// # Errors
    /// [`CipherError`].
    pub fn open_up(&mut self, topic: &str, payload: &[u8], now: Now) -> Result<Vec<u8>, CipherError> {
        let (header, body) = Header::parse(payload)?;
        if header.suite != self.suite {
            return Err(CipherError::Suite);
        }
        let context = Context { direction: Direction::Up, who: &self.who, topic };
        let opened = match self.epochs.standing(header.epoch, now.mono_ms) {
            Standing::Current => {
                let opened = self.up.open(header, context, body)?;
                self.epochs.confirm();
                opened
            }
            Standing::Previous => {
                self.previous_up.as_mut().ok_or(CipherError::EpochOver)?.open(header, context, body)?
            }
            Standing::Over => {
                self.epochs.remind(now.mono_ms);
                return Err(CipherError::EpochOver);
            }
            Standing::Unknown => return Err(CipherError::EpochUnknown),
        };
        self.epochs.count();
        Ok(opened)
    }

    /// Seals what goes to the device. What has been sealed is written before what is sealed or announced after it.
    pub fn seal_down(&mut self, topic: &str, payload: &[u8]) -> Vec<u8> {
        self.epochs.count();
        let context = Context { direction: Direction::Down, who: &self.who, topic };
        self.down.seal(self.suite, self.epochs.current(), context, payload)
    }

    /// What is to be announced: right after `begin`, then on the timer ([`Self::deadline_ms`]) and after each message. Costs a few
    /// comparisons when there is nothing.
    #[must_use]
    pub fn poll(&mut self, now: Now) -> Option<Announcement> {
        let step = self.epochs.poll(now.mono_ms);
        if !self.epochs.has_previous() {
            self.previous_up = None;
        }
        match step? {
            Step::Next(epoch) => {
                let (up, down) = self.root.lanes(&self.who, self.suite, epoch);
                self.previous_up = Some(std::mem::replace(&mut self.up, Receiving::new(up)));
                self.down = Sending::new(down);
            }
            Step::Announce => {}
        }
        Some(self.announce())
    }

    /// When [`Self::poll`] has something to do if no message comes before: milliseconds of the clock that never goes back.
    #[must_use]
    pub fn deadline_ms(&self) -> u64 {
        self.epochs.deadline_ms()
    }

    /// The announcement of the current epoch once more: when the device subscribes to its topic of keys.
    #[must_use]
    pub fn announce(&mut self) -> Announcement {
        let topic = key_topic(&self.who);
        let numbers = [self.policy.rekey_after_s(), self.policy.rekey_messages(), self.policy.grace_s()];
        let context = Context { direction: Direction::Down, who: &self.who, topic: &topic };
        let frame = self.down.seal(self.suite, self.epochs.current(), context, &numbers.map(u32::to_be_bytes).concat());
        let payload = [&[frame::VERSION, ANNOUNCEMENT], &self.broker_nonce[..], &frame].concat();
        Announcement { topic, payload }
    }

    /// The suite of the session.
    #[must_use]
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The epoch in which the broker seals.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epochs.current()
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;
