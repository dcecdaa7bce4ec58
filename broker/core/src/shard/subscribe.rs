//! SUBSCRIBE and UNSUBSCRIBE, and the retained messages that a new subscription is to have.

use turnpike_mqtt::{
    AckProperties, Packet, PacketId, ReasonCode, RetainHandling, SubAck, Subscribe, SubscribeOptions, TopicFilter,
    Unsubscribe, Version, encode,
};

use super::Shard;
use super::deliver::{Kept, Room};
use super::durability::{Release, RetainedRequest};
use crate::batch::Recipient;
use crate::clock::Now;
use crate::durable::Op;
use crate::gate::Gate;
use crate::ids::{ConnId, SessionRef};
use crate::retain::Walk;
use crate::router::Subscriber;
use crate::session::{RetainedWalk, Subscription};

/// Retained topics looked at before the room is looked at again.
const WALK_STEP: usize = 64;
/// Retained topics looked at for one session in one turn.
const WALK_TURN: usize = 2048;

impl<G: Gate> Shard<G> {
    /// SUBSCRIBE: one code a filter, in order [MQTT-3.8.4-6]; a refused filter doesn't end the connection.
    /// Implements [MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-3.8.4-4] [MQTT-3.8.4-5] [MQTT-3.8.4-7] [MQTT-3.9.3-1].
    pub(super) fn on_subscribe(&mut self, conn: ConnId, subscribe: &Subscribe<'_>, now: Now) -> Result<(), ReasonCode> {
        let Some(slot) = self.conns.get(conn.0 as usize).and_then(|connection| connection.session) else {
            return Ok(());
        };
        let version = self.version(conn);
        let identifier = subscribe.properties.identifier.unwrap_or(0);
        let ops = self.ticket.ops.len();
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
        let announces = self.covers_keys(conn, subscribe);
        let bytes = self.encode_suback(version, subscribe.id, &codes, true);
        if self.ticket.ops.len() == ops {
            self.send_bytes(conn, &bytes);
            self.announce_if(announces, conn);
            self.send_retained(conn, &retained, now);
        } else {
            self.await_commit(conn, |serial| Release::Subscribed { conn, serial, bytes, retained, announces });
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
    pub(super) fn subscribe_one(
        &mut self,
        slot: u32,
        filter: TopicFilter<'_>,
        options: SubscribeOptions,
        identifier: u32,
    ) -> Result<bool, ReasonCode> {
        if filter.depth() > usize::from(self.limits.topic_levels_max) {
            return Err(ReasonCode::TopicFilterInvalid);
        }
        let (share, inner) = match filter.share() {
            Some((name, inner)) => (Some(name), inner),
            None => (None, filter),
        };
        let Some(session) = self.sessions.get_mut(slot) else { return Err(ReasonCode::UnspecifiedError) };
        if !self.gate.may_subscribe(&session.principal, inner) {
            return Err(ReasonCode::NotAuthorized);
        }
        if session.key.is_some() && !self.shared.store_accepts() {
            return Err(ReasonCode::QuotaExceeded);
        }
        let subscription = Subscription { filter: filter.as_str().into(), options, identifier };
        let known = session.subscriptions.iter().position(|known| known.filter == subscription.filter);
        if known.is_none() && session.subscriptions.len() >= self.limits.subscriptions_max as usize {
            return Err(ReasonCode::QuotaExceeded);
        }
        match known.and_then(|index| session.subscriptions.get_mut(index)) {
            Some(known) => *known = subscription,
            None => {
                // Most devices have one; a vector begins with room for four.
                if session.subscriptions.is_empty() {
                    session.subscriptions.reserve_exact(1);
                }
                session.subscriptions.push(subscription);
            }
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
    /// Implements [MQTT-3.10.4-2] [MQTT-3.10.4-3] [MQTT-3.10.4-6].
    pub(super) fn on_unsubscribe(&mut self, conn: ConnId, unsubscribe: &Unsubscribe<'_>) -> Result<(), ReasonCode> {
        let Some(slot) = self.conns.get(conn.0 as usize).and_then(|connection| connection.session) else {
            return Ok(());
        };
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
        let Some(session) = self.sessions.get_mut(slot) else { return false };
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

    /// Begins to send the retained messages of new subscriptions.
    /// Implements [MQTT3-3.3.1-6] [MQTT3-3.3.1-8].
    pub(super) fn send_retained(&mut self, conn: ConnId, requests: &[RetainedRequest], now: Now) {
        let Some(slot) = self.conns.get(conn.0 as usize).and_then(|connection| connection.session) else { return };
        let Some(session) = self.sessions.get_mut(slot) else { return };
        if requests.is_empty() || self.shared.retained.is_empty() {
            return;
        }
        // What was allowed when it was asked for may have waited for a commit.
        let (gate, principal) = (&self.gate, &session.principal);
        let allowed = requests
            .iter()
            .filter(|request| gate.may_subscribe(principal, TopicFilter::from_validated(&request.filter)));
        let walks = allowed.map(|request| RetainedWalk {
            filter: request.filter.clone(),
            walk: Walk::new(TopicFilter::from_validated(&request.filter)),
            qos: request.qos,
            identifier: request.identifier,
        });
        session.walks.get_or_insert_default().extend(walks);
        self.walk(slot, now);
    }

    /// Goes on with a session's walks, as far as its connection and its queue have room and this turn has time. A subscription to a
    /// million retained messages neither stops the shard nor loses what doesn't fit a queue.
    pub(super) fn walk(&mut self, slot: u32, now: Now) {
        let mut budget = WALK_TURN;
        while budget > 0 && self.may_walk(slot) {
            let Some(session) = self.sessions.get_mut(slot) else { return };
            let generation = session.generation;
            let Some(current) = session.walks.as_mut().and_then(|walks| walks.front_mut()) else { return };
            let (qos, identifiers) = (current.qos, [current.identifier]);
            let mut found = Vec::new();
            let goes_on = self
                .shared
                .retained
                .step(&mut current.walk, WALK_STEP, now.unix_ms, &mut |message| found.push(message));
            budget = budget.saturating_sub(WALK_STEP);
            if !goes_on {
                session.walks = session.walks.take().filter(|walks| walks.len() > 1).map(|mut walks| {
                    walks.pop_front();
                    walks
                });
            }
            for message in found {
                let recipient = Recipient {
                    slot,
                    generation,
                    qos: qos.min(message.qos),
                    // [MQTT-3.3.1-8]
                    retain: true,
                    identifiers: if identifiers == [0] { &[] } else { &identifiers },
                    share: None,
                };
                let _ = self.deliver_one(&message.parts(), &mut Kept::of(&message), &recipient, Room::Bounds, now);
            }
        }
        if self.may_walk(slot) {
            self.walk_later(slot);
        }
    }

    /// Has a session's walks go on with the next [`Shard::tick`].
    pub(super) fn walk_later(&mut self, slot: u32) {
        if !self.walking.contains(&slot) {
            self.walking.push_back(slot);
        }
    }

    /// Whether there is a walk to go on with, and room for what it finds.
    pub(super) fn may_walk(&self, slot: u32) -> bool {
        let Some(session) = self.sessions.get(slot) else { return false };
        let connection = session.conn.and_then(|conn| self.conns.get(conn.0 as usize));
        let room = connection
            .is_some_and(|connection| connection.is_live() && connection.has_room(self.limits.out_bytes_high as usize));
        let queued = session.outgoing.as_ref().map_or(0, |outgoing| outgoing.messages());
        session.walks.is_some() && room && queued < (self.limits.queued_messages_max as usize / 2).min(WALK_TURN)
    }
}
