//! SUBSCRIBE and UNSUBSCRIBE, and the retained messages that a new subscription is to have.

use turnpike_mqtt::{
    AckProperties, Packet, PacketId, QoS, ReasonCode, RetainHandling, SubAck, Subscribe, SubscribeOptions, TopicFilter,
    Unsubscribe, Version, encode,
};

use super::Shard;
use super::deliver::Kept;
use super::durability::{Release, RetainedRequest};
use crate::batch::Recipient;
use crate::clock::Now;
use crate::durable::Op;
use crate::gate::Gate;
use crate::ids::{ConnId, SessionRef};
use crate::router::Subscriber;
use crate::session::Subscription;

impl<G: Gate> Shard<G> {
    /// SUBSCRIBE: one code a filter, in order [MQTT-3.8.4-6]; a refused filter doesn't end the connection.
    pub(super) fn on_subscribe(&mut self, conn: ConnId, subscribe: &Subscribe<'_>, now: Now) -> Result<(), ReasonCode> {
        let Some(slot) = self.conns.get(conn.0 as usize).and_then(|connection| connection.session) else { return Ok(()) };
        let version = self.version(conn);
        let identifier = subscribe.properties.identifier.unwrap_or(0);
        let ops = self.ticket.ops.len();
        let levels_max = usize::from(self.limits.topic_levels_max);
        if subscribe.filters.iter().any(|(filter, _)| filter.depth() > levels_max) {
            return Err(ReasonCode::MalformedPacket);
        }
        let (mut codes, mut retained) = (Vec::new(), Vec::new());
        for (filter, options) in subscribe.filters.iter() {
            match self.subscribe_one(slot, filter, options, identifier) {
                Ok(new) => {
                    codes.push(options.qos as u8);
                    // [MQTT-3.3.1-9..11]; a shared subscription gets none (MQTT 5, 4.8.2).
                    let wanted = match options.retain_handling {
                        RetainHandling::Send => true,
                        RetainHandling::SendIfNew => new,
                        RetainHandling::DontSend => false,
                    };
                    if wanted && filter.share().is_none() {
                        retained.push(RetainedRequest { filter: filter.as_str().into(), qos: options.qos, identifier });
                    }
                }
                // [MQTT3-3.9.3-2] MQTT 3 knows one failure.
                Err(reason) => codes.push(if version == Version::V5 { reason as u8 } else { 0x80 }),
            }
        }
        let bytes = self.encode_suback(version, subscribe.id, &codes, true);
        if self.ticket.ops.len() == ops {
            self.send_bytes(conn, &bytes);
            self.send_retained(conn, &retained, now);
        } else {
            self.await_commit(conn, |serial| Release::Subscribed { conn, serial, bytes, retained });
        }
        Ok(())
    }

    fn encode_suback(&self, version: Version, id: PacketId, codes: &[u8], subscribe: bool) -> Box<[u8]> {
        let mut bytes = Vec::with_capacity(codes.len() + 8);
        let ack = SubAck { id, properties: AckProperties::default(), codes };
        encode(version, &if subscribe { Packet::SubAck(ack) } else { Packet::UnsubAck(ack) }, &mut bytes);
        bytes.into_boxed_slice()
    }

    /// Adds or replaces one subscription [MQTT-3.8.4-3]; true if it is new.
    fn subscribe_one(
        &mut self,
        slot: u32,
        filter: TopicFilter<'_>,
        options: SubscribeOptions,
        identifier: u32,
    ) -> Result<bool, ReasonCode> {
        let (share, inner) = match filter.share() {
            Some((name, inner)) => (Some(name), inner),
            None => (None, filter),
        };
        let Some(session) = self.sessions.get_mut(slot as usize) else { return Err(ReasonCode::UnspecifiedError) };
        if !self.gate.may_subscribe(&session.principal, inner) {
            return Err(ReasonCode::NotAuthorized);
        }
        if session.key.is_some() && !self.shared.store_serving() {
            return Err(ReasonCode::QuotaExceeded);
        }
        let subscription = Subscription { filter: filter.as_str().into(), options, identifier };
        let known = session.subscriptions.iter().position(|known| known.filter == subscription.filter);
        if known.is_none() && session.subscriptions.len() >= self.limits.subscriptions_max as usize {
            return Err(ReasonCode::QuotaExceeded);
        }
        match known.and_then(|index| session.subscriptions.get_mut(index)) {
            Some(known) => *known = subscription,
            None => session.subscriptions.push(subscription),
        }
        let subscriber = Subscriber::new(
            SessionRef { shard: self.id, slot, generation: session.generation },
            options,
            identifier,
            session.key.is_some(),
        );
        self.shared.router.subscribe(inner, share, subscriber, true);
        if let Some(key) = session.key {
            self.ticket.ops.push(Op::SubscriptionPut {
                session: key,
                filter: filter.as_str().into(),
                options: options.to_byte(),
                identifier,
            });
        }
        Ok(known.is_none())
    }

    /// UNSUBSCRIBE: a code a filter, whether it was there or not [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.11.3-1].
    pub(super) fn on_unsubscribe(&mut self, conn: ConnId, unsubscribe: &Unsubscribe<'_>) -> Result<(), ReasonCode> {
        let Some(slot) = self.conns.get(conn.0 as usize).and_then(|connection| connection.session) else { return Ok(()) };
        let ops = self.ticket.ops.len();
        let codes: Vec<u8> = unsubscribe
            .filters
            .iter()
            .map(|filter| match self.unsubscribe_one(slot, filter) {
                true => ReasonCode::Success as u8,
                false => ReasonCode::NoSubscriptionExisted as u8,
            })
            .collect();
        let bytes = self.encode_suback(self.version(conn), unsubscribe.id, &codes, false);
        if self.ticket.ops.len() == ops {
            self.send_bytes(conn, &bytes);
        } else {
            self.await_commit(conn, |serial| Release::Bytes { conn, serial, bytes });
        }
        Ok(())
    }

    /// Takes one subscription away [MQTT-3.10.4-1]; false if there was none.
    pub(super) fn unsubscribe_one(&mut self, slot: u32, filter: TopicFilter<'_>) -> bool {
        let Some(session) = self.sessions.get_mut(slot as usize) else { return false };
        let Some(index) = session.subscriptions.iter().position(|known| *known.filter == *filter.as_str()) else {
            return false;
        };
        session.subscriptions.swap_remove(index);
        let reference = SessionRef { shard: self.id, slot, generation: session.generation };
        let (share, inner) = filter.share().map_or((None, filter), |(name, inner)| (Some(name), inner));
        self.shared.router.unsubscribe(inner, share, reference);
        if let Some(key) = session.key {
            self.ticket.ops.push(Op::SubscriptionDelete { session: key, filter: filter.as_str().into() });
        }
        true
    }

    /// The retained messages of new subscriptions, RETAIN set [MQTT-3.3.1-8].
    pub(super) fn send_retained(&mut self, conn: ConnId, requests: &[RetainedRequest], now: Now) {
        let Some(slot) = self.conns.get(conn.0 as usize).and_then(|connection| connection.session) else { return };
        let Some(generation) = self.sessions.get(slot as usize).map(|session| session.generation) else { return };
        for request in requests {
            let mut messages = Vec::new();
            let filter = TopicFilter::from_validated(&request.filter);
            self.shared.retained.matching(filter, now.unix_s(), &mut |message| messages.push(message));
            for message in messages {
                let identifiers = [request.identifier];
                let recipient = Recipient {
                    slot,
                    generation,
                    qos: request.qos.min(message.qos),
                    retain: true,
                    identifiers: if request.identifier == 0 { &[] } else { &identifiers },
                    share: None,
                };
                if recipient.qos == QoS::AtMostOnce {
                    self.deliver_one(&message.parts(), &mut Kept::new(false), &recipient, now);
                } else {
                    self.deliver_one(&message.parts(), &mut Kept::of(&message), &recipient, now);
                }
            }
        }
    }
}
