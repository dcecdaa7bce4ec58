//! Sessions as the store gives them back.

use std::num::NonZeroU64;

use turnpike_mqtt::{SubscribeOptions, TopicFilter};

use super::Shard;
use crate::clock::Now;
use crate::durable::{Body, Owed, RecoveredSession};
use crate::gate::Gate;
use crate::ids::{Seq, SessionRef};
use crate::outgoing::{Entry, Identifiers, Phase};
use crate::router::Subscriber;
use crate::session::{Session, Subscription, Will, principal_of, queue_of};

impl<G: Gate> Shard<G> {
    /// Takes a session back. Only for sessions whose home this shard is, before any input.
    pub fn restore(&mut self, recovered: RecoveredSession, now: Now) {
        let record = recovered.record;
        self.next_generation = self.next_generation.wrapping_add(1);
        let will = record.will.map(|(message, due_ms)| {
            Box::new(Will { message, delay_s: 0, expiry_s: None, due_ms: NonZeroU64::new(due_ms.max(1)) })
        });
        let connected_before = record.disconnected_at_ms.is_none();
        let slot = self.sessions.insert(Session {
            key: Some(recovered.key),
            generation: self.next_generation,
            expiry_s: record.expiry_s,
            mqtt3: record.mqtt3,
            subscriptions: Vec::with_capacity(recovered.subscriptions.len()),
            will,
            disconnected_at_ms: record.disconnected_at_ms.unwrap_or(now.unix_ms),
            ..Session::new(record.client, principal_of(&record.principal))
        });
        self.principals.insert(slot, &mut self.sessions);
        for (filter, options, identifier) in recovered.subscriptions {
            self.restore_subscription(slot, filter, options, identifier);
        }
        for (seq, owed) in recovered.owed {
            self.restore_owed(slot, seq, owed);
        }
        if let Some(session) = self.sessions.get_mut(slot) {
            for id in recovered.incoming {
                session.add_incoming(id);
            }
        }
        if connected_before {
            // From here on its expiry counts; the next start must not begin again.
            self.record_session(slot);
        }
        self.arm_session(slot, now);
    }

    fn restore_subscription(&mut self, slot: u32, filter: Box<str>, options: u8, identifier: u32) {
        let (Ok(parsed), Ok(options)) = (TopicFilter::parse(&filter), SubscribeOptions::from_byte(options)) else {
            return;
        };
        let Some(session) = self.sessions.get_mut(slot) else { return };
        let (share, inner) = parsed.share().map_or((None, parsed), |(name, inner)| (Some(name), inner));
        let reference = SessionRef { shard: self.id, slot, generation: session.generation };
        self.shared.router.subscribe(inner, share, Subscriber::new(reference, options, identifier, true), false);
        session.subscriptions.push(Subscription { filter, options, identifier });
    }

    fn restore_owed(&mut self, slot: u32, seq: Seq, owed: Owed) {
        let Some(session) = self.sessions.get_mut(slot) else { return };
        let (message, phase) = match owed.body {
            Body::Inline(message) => (Some(message), Phase::Ready),
            Body::Shared(id, message) => {
                *self.bodies.entry(id).or_insert(0) += 1;
                (Some(message), Phase::Ready)
            }
            Body::Released => (None, Phase::Released),
        };
        // Whether it was sent before the restart isn't known, and DUP on a first delivery harms nobody [MQTT-3.3.1-1].
        let entry = Entry {
            message,
            share: owed.share,
            identifiers: Identifiers::from_slice(&owed.identifiers),
            qos: owed.qos,
            retain: owed.retain,
            phase,
            dup: true,
        };
        queue_of(&mut session.outgoing, session.next_seq).push_recovered(seq, entry);
        self.counters.queued_messages += 1;
    }
}
