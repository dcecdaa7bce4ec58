//! Publish-in: from a PUBLISH to the sessions that want it.

use std::borrow::Cow;
use std::sync::Arc;

use turnpike_mqtt::{AckKind, PacketType, Publish, QoS, ReasonCode, TopicName, Version, encode_ack};

use super::deliver::{Fate, Kept};
use super::durability::Release;
use super::{Shard, touch, writable};
use crate::batch::Recipient;
use crate::clock::Now;
use crate::connection::Sealing;
use crate::durable::Op;
use crate::gate::{Gate, Handling, Permit, Principal};
use crate::ids::{ConnId, SessionRef};
use crate::message::{Message, MessageParts};
use crate::router::Matches;

impl<G: Gate> Shard<G> {
    /// PUBLISH from a client, of so many bytes. An error ends the connection with that reason.
    /// Implements [MQTT-3.3.4-1] [MQTT-4.3.2-4] [MQTT-4.3.2-5] [MQTT-4.3.3-12].
    pub(super) fn on_publish(
        &mut self,
        conn: ConnId,
        publish: &Publish<'_>,
        bytes: usize,
        now: Now,
    ) -> Result<(), ReasonCode> {
        self.counters.received.count(publish.qos, publish.payload.len());
        // [MQTT-3.3.4-6]
        publish.check_from_client().map_err(turnpike_mqtt::DecodeError::reason)?;
        let topic = match publish.topic {
            Some(topic) if publish.properties.topic_alias.is_none() => Cow::Borrowed(topic.as_str()),
            _ => self.resolve_alias(conn, publish)?,
        };
        let topic = TopicName::from_validated(&topic);
        if topic.depth() > usize::from(self.limits.topic_levels_max) {
            // Well-formed, and more than we take: MQTT 5 has a word for that.
            return match publish.id {
                Some(_) => self.refuse_publish(conn, publish, ReasonCode::TopicNameInvalid),
                None => Err(ReasonCode::TopicNameInvalid),
            };
        }
        let Some(connection) = self.conns.get(conn.0 as usize) else { return Ok(()) };
        let Some(slot) = connection.session else { return Ok(()) };
        let (version, awaited, sealing) = (connection.version, connection.awaited_pubacks, connection.sealing);
        let Some(session) = self.sessions.get(slot) else { return Ok(()) };
        if let Some(id) = publish.id {
            if publish.qos == QoS::ExactlyOnce && session.has_incoming(id) {
                // [MQTT-4.3.3-10] it has been taken; say so again, after the first PUBREC if that still waits.
                self.answer(conn, AckKind::PubRec, id, ReasonCode::Success, false);
                self.meter_packet(conn, PacketType::Publish, now);
                return Ok(());
            }
            // [MQTT-3.3.4-9] the client must not have more under way than we said [MQTT-3.3.4-7].
            let under_way = session.incoming_len() + awaited as usize;
            if version == Version::V5 && under_way >= usize::from(self.limits.receive_max) {
                return Err(ReasonCode::ReceiveMaximumExceeded);
            }
        }
        if session.meter.is_some()
            && let Err(reason) = self.meter_publish(conn, version, publish, bytes, now)
        {
            return self.refuse_publish(conn, publish, reason);
        }
        let Some(session) = self.sessions.get(slot) else { return Ok(()) };
        let publisher = SessionRef { shard: self.id, slot, generation: session.generation };
        let reserved = topic.as_str().starts_with("$SYS/") || topic.as_str().starts_with("$share/");
        let permit = match Permit::judge(&*self.gate, &session.principal, topic) {
            Ok(permit) if !reserved => permit,
            // `$SYS` is the broker's to publish on, whoever asks (MQTT 5, 4.7.2).
            Ok(_) => return self.refuse_publish(conn, publish, ReasonCode::NotAuthorized),
            Err(reason) => return self.refuse_publish(conn, publish, reason),
        };
        let mut desk = None;
        match &session.principal {
            Principal::Device(device) => {
                if let Handling::Handed { routed } = self.gate.handling(device, topic) {
                    desk = Some((Arc::clone(device), routed));
                }
            }
            Principal::Service(_) => self.gate.controlled(&session.principal, topic, now),
            Principal::Anonymous | Principal::User(_) | Principal::Platform(_) | Principal::Broker => {}
        }
        let durable_publisher = publish.qos == QoS::ExactlyOnce && session.key.is_some();
        if publish.qos != QoS::AtMostOnce
            && !self.shared.store_accepts()
            && (self.needs_store(topic, publish.retain, durable_publisher) || self.feeds_need_store(slot, topic))
        {
            self.counters.dropped.store_unavailable += 1;
            return self.refuse_publish(conn, publish, ReasonCode::QuotaExceeded);
        }
        // Last, since what has been opened can't be opened again.
        let opened;
        let payload = if sealing == Sealing::Never {
            publish.payload
        } else {
            match self.open_payload(conn, publish, topic, now) {
                Some(payload) => {
                    opened = payload;
                    &opened
                }
                None => return Ok(()),
            }
        };
        let mut scratch = std::mem::take(&mut self.scratch);
        let parts = MessageParts {
            topic: permit.topic(),
            properties: match publish.properties.forwardable.as_slice() {
                Some(slice) => slice,
                None => {
                    scratch.clear();
                    publish.properties.forwardable.copy_to(&mut scratch);
                    &scratch
                }
            },
            payload,
            qos: publish.qos,
            retain: publish.retain,
            expires_at_ms: publish.properties.message_expiry_s.map(|s| now.unix_ms + u64::from(s) * 1000),
            publisher: Some(publisher),
        };
        let outcome = match desk {
            Some(desk) => self.hand_over(conn, (publish, &parts), desk, now),
            None => self.take_message(conn, slot, publish, &parts, durable_publisher, now),
        };
        self.scratch = scratch;
        outcome
    }

    /// Routes a message that may be published, and answers its publisher.
    fn take_message(
        &mut self,
        conn: ConnId,
        slot: u32,
        publish: &Publish<'_>,
        parts: &MessageParts<'_>,
        durable_publisher: bool,
        now: Now,
    ) -> Result<(), ReasonCode> {
        let mut matched = self.publish(parts, now);
        if self.is_fed(slot) {
            matched = matched.and(self.publish_to_feeds(slot, parts, now));
        }
        let Some(id) = publish.id else { return Ok(()) };
        if matched.is_refused() && self.version(conn) == Version::V5 {
            // [MQTT-4.3.3-9] QoS 2: the exchange is over, the identifier isn't kept.
            let kind = if publish.qos == QoS::ExactlyOnce { AckKind::PubRec } else { AckKind::PubAck };
            self.answer(conn, kind, id, ReasonCode::QuotaExceeded, matched.needs_commit);
            return Ok(());
        }
        if publish.qos == QoS::AtLeastOnce {
            let reason = if matched.any { ReasonCode::Success } else { ReasonCode::NoMatchingSubscribers };
            self.answer(conn, AckKind::PubAck, id, reason, matched.needs_commit);
            return Ok(());
        }
        let Some(session) = self.sessions.get_mut(slot) else { return Ok(()) };
        // [MQTT-4.3.3-8] the message is passed on once, here; the identifier is kept until PUBREL.
        session.add_incoming(id);
        if let Some(key) = session.key {
            self.ticket.ops.push(Op::IncomingPut { session: key, id });
        }
        self.answer(conn, AckKind::PubRec, id, ReasonCode::Success, matched.needs_commit || durable_publisher);
        Ok(())
    }

    /// Whether acknowledging this message would need a commit. Only asked while the store fails or is full, so it may cost a look-up.
    pub(super) fn needs_store(&mut self, topic: TopicName<'_>, retain: bool, durable_publisher: bool) -> bool {
        if durable_publisher || retain {
            return true;
        }
        let mut matches = std::mem::take(&mut self.matches);
        self.shared.router.route(topic, 0, &mut matches);
        let durable = matches.iter().any(|found| found.durable && found.qos != QoS::AtMostOnce);
        self.matches = matches;
        durable
    }

    /// A publish that isn't taken: MQTT 5 hears why on the acknowledgement.
    pub(super) fn refuse_publish(
        &mut self,
        conn: ConnId,
        publish: &Publish<'_>,
        reason: ReasonCode,
    ) -> Result<(), ReasonCode> {
        if reason == ReasonCode::NotAuthorized {
            self.counters.dropped.not_authorized += 1;
        }
        let Some(id) = publish.id else { return Ok(()) };
        let kind = if publish.qos == QoS::ExactlyOnce { AckKind::PubRec } else { AckKind::PubAck };
        if self.version(conn) == Version::V5 {
            // [MQTT-4.3.3-9] a PUBREC of 0x80 or more ends the exchange: the identifier isn't kept.
            self.answer(conn, kind, id, reason, false);
            return Ok(());
        }
        if reason != ReasonCode::NotAuthorized {
            // To acknowledge what couldn't be stored would be a lie; MQTT 3 has no other way to say no.
            return Err(reason);
        }
        // [MQTT3-3.3.5-2] MQTT 3 acknowledges or closes; a device with one wrong topic keeps its connection.
        self.acknowledge_unrouted(conn, publish);
        Ok(())
    }

    /// Acknowledges a publish as though it had been taken.
    pub(super) fn acknowledge_unrouted(&mut self, conn: ConnId, publish: &Publish<'_>) {
        let Some(id) = publish.id else { return };
        let kind = if publish.qos == QoS::ExactlyOnce { AckKind::PubRec } else { AckKind::PubAck };
        if kind == AckKind::PubRec
            && let Some(session) =
                self.conns.get(conn.0 as usize).and_then(|c| c.session).and_then(|slot| self.sessions.get_mut(slot))
        {
            session.add_incoming(id);
            if let Some(key) = session.key {
                self.ticket.ops.push(Op::IncomingPut { session: key, id });
            }
        }
        self.answer(conn, kind, id, ReasonCode::Success, false);
    }

    /// Says an acknowledgement: now, or with the commit that it needs. What comes later never overtakes what waits
    /// [MQTT-4.6.0-2].
    pub(super) fn answer(
        &mut self,
        conn: ConnId,
        kind: AckKind,
        id: turnpike_mqtt::PacketId,
        reason: ReasonCode,
        needs_commit: bool,
    ) {
        let Some(connection) = self.conns.get_mut(conn.0 as usize) else { return };
        if needs_commit || connection.awaited > 0 {
            self.await_commit(conn, |serial| Release::Ack { conn, serial, kind, id, reason });
        } else {
            encode_ack(connection.version, kind, id, reason, writable(connection, &mut self.pool));
            touch(connection, conn, &mut self.touched);
        }
    }

    /// The topic of a PUBLISH with an alias [MQTT-3.3.2-7..12].
    /// Implements [MQTT-3.2.2-17] [MQTT-3.2.2-18].
    fn resolve_alias<'a>(&mut self, conn: ConnId, publish: &Publish<'a>) -> Result<Cow<'a, str>, ReasonCode> {
        let alias = publish.properties.topic_alias.ok_or(ReasonCode::ProtocolError)?;
        let aliases = self
            .conns
            .get_mut(conn.0 as usize)
            .and_then(|connection| connection.extras.as_mut())
            .and_then(|extras| extras.aliases_in.as_mut())
            .ok_or(ReasonCode::TopicAliasInvalid)?;
        match publish.topic {
            Some(topic) => {
                aliases.set(alias, topic).map_err(|_| ReasonCode::TopicAliasInvalid)?;
                Ok(Cow::Borrowed(topic.as_str()))
            }
            None => match aliases.resolve(alias) {
                Ok(topic) => Ok(Cow::Owned(topic.as_str().to_owned())),
                Err(error) => Err(error.reason()),
            },
        }
    }

    /// Keeps a retained message and hands a message to everybody who wants it. The caller has judged it.
    pub(super) fn publish(&mut self, parts: &MessageParts<'_>, now: Now) -> Published {
        let ops = self.ticket.ops.len();
        if parts.retain {
            self.retain(parts, now);
        }
        let mut published = self.dispatch(parts, now);
        published.needs_commit |= self.ticket.ops.len() != ops;
        published
    }

    /// Implements [MQTT3-3.3.1-7].
    pub(super) fn retain(&mut self, parts: &MessageParts<'_>, now: Now) {
        let topic = parts.topic;
        let volatile = topic.as_str().starts_with("$SYS/");
        if parts.payload.is_empty() {
            // [MQTT-3.3.1-6] [MQTT-3.3.1-7] an empty payload removes it and isn't kept.
            if self.shared.retained.remove(topic) && !volatile {
                self.ticket.ops.push(Op::RetainedDelete(topic.as_str().into()));
            }
            return;
        }
        let message = Arc::new(Message::new(&MessageParts { publisher: None, ..*parts }));
        // [MQTT-3.3.1-5]
        match self.shared.retained.set(Arc::clone(&message), now.unix_ms) {
            Ok(_) if volatile => {}
            Ok(_) => self.ticket.ops.push(Op::RetainedPut(message)),
            Err(_) => self.counters.dropped.retained_full += 1,
        }
    }

    /// Routes a message: each match gets it here or goes into the batch of its shard.
    /// Implements [MQTT-3.3.2-3] [MQTT-4.5.0-1] [MQTT-3.3.4-3] [MQTT-4.8.2-3] [MQTT3-3.1.2-5] [MQTT-4.6.0-5].
    pub(super) fn dispatch(&mut self, parts: &MessageParts<'_>, now: Now) -> Published {
        let mut matches = std::mem::take(&mut self.matches);
        let choice = self.choose();
        self.shared.router.route(parts.topic, choice, &mut matches);
        let published = self.hand_to(&matches, parts, None, now);
        self.matches = matches;
        published
    }

    /// Hands a message to all of these. `whole` is the same message as one that can be kept, if there is one.
    pub(super) fn hand_to(
        &mut self,
        matches: &Matches,
        parts: &MessageParts<'_>,
        whole: Option<&Arc<Message>>,
        now: Now,
    ) -> Published {
        self.routed += 1;
        let mut published = Published::default();
        let here = |session: SessionRef| session.shard == self.id;
        let durable_here = matches
            .iter()
            .filter(|found| here(found.session) && found.durable && found.qos.min(parts.qos) != QoS::AtMostOnce)
            .take(2)
            .count();
        let mut kept = match whole {
            Some(message) if durable_here < 2 => Kept::of(message),
            _ => Kept::new(durable_here > 1),
        };
        for found in matches.iter() {
            if found.no_local && Some(found.session) == parts.publisher {
                // [MQTT-3.8.3-3]
                continue;
            }
            published.any = true;
            let recipient = Recipient {
                slot: found.session.slot,
                generation: found.session.generation,
                qos: found.qos.min(parts.qos),
                // [MQTT-3.3.1-12] [MQTT-3.3.1-13]
                retain: parts.retain && found.retain_as_published,
                identifiers: matches.identifiers(found),
                share: matches.share(found),
            };
            if found.session.shard == self.id {
                let fate = self.deliver_one(parts, &mut kept, &recipient, self.room, now);
                published.count(recipient.qos, fate);
            } else if recipient.qos != QoS::AtMostOnce && self.shared.full.contains(found.session) {
                self.counters.dropped.queue_full += 1;
                published.count(recipient.qos, Fate::Full);
            } else {
                published.needs_commit |= self.forward(parts, found.session, found.durable, &recipient);
                published.count(recipient.qos, Fate::Taken);
            }
        }
        published
    }

    /// Adds a recipient to another shard's batch; true if its delivery is durable.
    pub(super) fn forward(
        &mut self,
        parts: &MessageParts<'_>,
        session: SessionRef,
        durable: bool,
        recipient: &Recipient<'_>,
    ) -> bool {
        let index = usize::from(session.shard.0);
        let (Some(batch), Some(last)) = (self.batches.get_mut(index), self.routed_to.get_mut(index)) else {
            return false;
        };
        if *last != self.routed {
            *last = self.routed;
            batch.message(parts);
        }
        batch.recipient(recipient);
        let durable = durable && recipient.qos != QoS::AtMostOnce;
        if durable {
            batch.turn = Some(self.turn);
        }
        durable
    }

    /// Publishes as the broker itself.
    pub(super) fn publish_own(&mut self, topic: TopicName<'_>, payload: &[u8], retain: bool, now: Now) {
        if let Ok(permit) = Permit::judge(&*self.gate, &Principal::Broker, topic) {
            let parts = MessageParts {
                topic: permit.topic(),
                properties: &[],
                payload,
                qos: QoS::AtMostOnce,
                retain,
                expires_at_ms: None,
                publisher: None,
            };
            let _ = self.publish(&parts, now);
        }
    }

    /// Bytes on their way to other shards in the open turn.
    #[must_use]
    pub fn outbound_bytes(&self) -> usize {
        self.batches.iter().map(crate::batch::Batch::bytes).sum()
    }
}

/// What became of a publish.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Published {
    /// Somebody wanted it.
    pub(super) any: bool,
    /// It may be acknowledged only with the open turn's ticket.
    pub(super) needs_commit: bool,
    /// A session that was to have it with QoS 1 or 2 took it.
    taken: bool,
    /// The queue of such a session was full.
    full: bool,
}

impl Published {
    /// Nobody wanted it.
    pub(super) const NONE: Self = Self { any: false, needs_commit: false, taken: false, full: false };

    /// What became of the same message on another topic, besides.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            any: self.any || other.any,
            needs_commit: self.needs_commit || other.needs_commit,
            taken: self.taken || other.taken,
            full: self.full || other.full,
        }
    }

    fn count(&mut self, qos: QoS, fate: Fate) {
        if qos != QoS::AtMostOnce {
            self.taken |= fate == Fate::Taken;
            self.full |= fate == Fate::Full;
        }
    }

    /// Every session that was to have it with QoS 1 or 2 was full: to call it delivered would be a lie.
    pub(super) fn is_refused(self) -> bool {
        self.full && !self.taken
    }
}
