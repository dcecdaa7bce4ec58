//! Publish-in, the other half: what a device publishes goes to the feeds of its users too.
//!
//! A session knows whether its principal has feeds at all: the gate is asked when it connects and when it is judged again, so whoever has
//! none pays for a flag. Whose feeds they are is asked with each message; a user who isn't bound any more gets nothing from then on.
//!
//! The message is routed once more for each feed, in the same turn and so in the same ticket. It isn't retained there: what is retained
//! is read on the device's own topic, by the same users.

use turnpike_mqtt::QoS;

use super::Shard;
use super::publish::Published;
use crate::clock::Now;
use crate::gate::{Gate, Principal};
use crate::message::MessageParts;

impl<G: Gate> Shard<G> {
    /// Whether what a session publishes may go to feeds.
    pub(super) fn is_fed(&self, slot: u32) -> bool {
        self.sessions.get(slot).is_some_and(|session| session.fed)
    }

    /// Hands a message that a session has published to the feeds that it goes to.
    pub(super) fn publish_to_feeds(&mut self, slot: u32, parts: &MessageParts<'_>, now: Now) -> Published {
        let Some(principal) = self.sessions.get(slot).map(|session| session.principal.clone()) else {
            return Published::NONE;
        };
        self.feed_of(&principal, parts, now)
    }

    /// The same for whoever published it.
    pub(super) fn feed_of(&mut self, principal: &Principal, parts: &MessageParts<'_>, now: Now) -> Published {
        let mut feed = std::mem::take(&mut self.feed);
        feed.clear();
        self.gate.feed(principal, parts.topic, &mut feed);
        let mut published = Published::NONE;
        let ops = self.ticket.ops.len();
        for topic in feed.topics() {
            let one = self.dispatch(&MessageParts { topic, retain: false, ..*parts }, now);
            published = published.and(one);
        }
        published.needs_commit |= self.ticket.ops.len() != ops;
        self.feed = feed;
        published
    }

    /// Whether a durable session is owed what goes to the feeds. Only asked while the store fails.
    pub(super) fn feeds_need_store(&mut self, slot: u32, parts: &MessageParts<'_>) -> bool {
        let Some(session) = self.sessions.get(slot).filter(|session| session.fed) else { return false };
        let mut feed = std::mem::take(&mut self.feed);
        feed.clear();
        self.gate.feed(&session.principal, parts.topic, &mut feed);
        let mut matches = std::mem::take(&mut self.matches);
        let durable = feed.topics().any(|topic| {
            self.shared.router.route(topic, 0, &mut matches);
            matches.iter().any(|found| found.durable && found.qos != QoS::AtMostOnce)
        });
        (self.matches, self.feed) = (matches, feed);
        durable
    }
}
