//! Payloads that are sealed between the broker and a device without TLS. `authz` implements it and `authz/PAYLOAD.md` specifies it; the core asks: what
//! comes in is opened before it is routed, and what goes out is sealed when it is encoded. So queues, retained messages, the store and
//! other clients know plain payloads alone.
//!
//! A cipher comes with an [`crate::gate::Admission`], belongs to a connection and dies with it.

use std::fmt;

use turnpike_mqtt::{ConnectReason, ReasonCode, UserProperties};

use crate::clock::Now;

/// Fills a slice with random bytes that nobody can foretell.
pub type Random<'a> = &'a mut dyn FnMut(&mut [u8]);

/// A message for the device on its topic of keys, QoS 0. It isn't sealed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Announcement {
    /// A topic name.
    pub topic: String,
    /// What it says.
    pub payload: Vec<u8>,
}

/// The cipher of a connection's payloads.
pub trait PayloadCipher: Send + fmt::Debug {
    /// Makes keys from what CONNECT says, once, before anything else. Without an error there may still be none: the device has to say
    /// hello first ([`Self::is_ready`]).
    ///
    /// # Errors
    /// What the CONNACK says.
    fn begin(&mut self, properties: UserProperties<'_>, now: Now, random: Random<'_>) -> Result<(), ConnectReason>;

    /// Whether there are keys. Until then nothing is sent to the device: it waits in the session's queue.
    fn is_ready(&self) -> bool;

    /// Whether the topic is that of the device's keys: what the device publishes there is a hello, and isn't routed.
    fn is_key_topic(&self, topic: &str) -> bool;

    /// The topic of the device's keys.
    fn key_topic(&self) -> String;

    /// Makes keys from a hello of the device.
    ///
    /// # Errors
    /// What MQTT 5 hears on the acknowledgement.
    fn hello(&mut self, payload: &[u8], now: Now, random: Random<'_>) -> Result<(), ReasonCode>;

    /// Opens what the device has published.
    ///
    /// # Errors
    /// What MQTT 5 hears on the acknowledgement of a payload that is dropped; [`ReasonCode::Success`] for one that has been taken before.
    fn open(&mut self, topic: &str, payload: &[u8], now: Now) -> Result<Vec<u8>, ReasonCode>;

    /// Seals what goes to the device, in the order of writing; none if there are no keys.
    fn seal(&mut self, topic: &str, payload: &[u8]) -> Option<Vec<u8>>;

    /// What is to be announced now, again until there is nothing.
    fn poll(&mut self, now: Now) -> Option<Announcement>;

    /// The current keys' announcement once more, if there are keys.
    fn announce(&mut self) -> Option<Announcement>;

    /// When [`Self::poll`] has something to do if no message comes before, on the monotonic clock in milliseconds.
    fn deadline_ms(&self) -> Option<u64>;
}
