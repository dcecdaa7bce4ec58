//! What becomes of live sessions when what they may do changes.
//!
//! Whoever isn't welcome any more is closed. A subscription that isn't allowed any more is taken away, the retained messages that it was
//! still to have with it. Users and services lose what waits for them and may not be read any more, too; what a shared subscription
//! brought goes to another member. (A device's topics are its own for good: what waits for it on some of them goes when its owner changes,
//! [`Shard::withdraw`].)
//!
//! What is on its way is left: what was sent on this connection and not acknowledged, and what is in its out buffer. What another shard
//! sent meanwhile can still come into the queue; so a session of a user or service is judged when it is resumed, too.

use std::net::{IpAddr, SocketAddr};

use turnpike_mqtt::{ReasonCode, TopicFilter, TopicName};

use super::Shard;
use super::lifecycle::Leaving;
use crate::clock::Now;
use crate::concern::Concern;
use crate::gate::{Gate, Principal};
use crate::ids::{ClientId, ConnId};
use crate::message::Message;
use crate::session::Session;

/// A session, as its owner is told of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionView {
    /// Its client id.
    pub client: ClientId,
    /// From where it is connected, if it is.
    pub peer: Option<SocketAddr>,
    /// Since when it isn't, milliseconds since 1970 UTC.
    pub disconnected_at_ms: Option<u64>,
    /// How long it outlives its connection, seconds; `u32::MAX` for ever.
    pub expiry_s: u32,
    /// How many subscriptions it has.
    pub subscriptions: usize,
    /// How many messages wait for it.
    pub queued: usize,
}

/// Whether a principal hears what is published on a topic now, the best last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Reach {
    /// None of its sessions has a connection.
    Absent,
    /// It is connected, and hasn't subscribed to it.
    Deaf,
    /// It is connected, and would hear it.
    Hears,
}

impl<G: Gate> Shard<G> {
    /// The registry has changed for a product, or for one device of it.
    pub fn rejudge(&mut self, product: &str, device: Option<&str>, now: Now) {
        let concern = match device {
            Some(device) => Concern::device(product, device),
            None => Concern::Product(product.into()),
        };
        self.judge_again(&concern, now);
    }

    /// Something has changed for these: their sessions are judged by what holds now.
    pub fn judge_again(&mut self, concern: &Concern, now: Now) {
        for slot in self.principals.concerned(concern, &self.sessions) {
            let Some(session) = self.sessions.get_mut(slot) else { continue };
            session.fed = self.gate.has_feed(&session.principal);
            let peer = session.conn.and_then(|conn| self.conns.get(conn.0 as usize)).map(|connection| connection.addr);
            if !self.gate.still_welcome_from(&session.principal, peer) {
                self.cut(slot, now);
            } else if self.has_other_terms(slot) {
                self.end_for_other_terms(slot, now);
            } else {
                self.remeter_one(slot, now);
                self.judge_rights(slot, now);
            }
        }
    }

    /// Closes a session's connection, if it has one. A device's will says that it is away. A user's or service's is a command, which whoever is shut out
    /// doesn't give any more.
    fn cut(&mut self, slot: u32, now: Now) {
        if let Some(session) = self.sessions.get_mut(slot)
            && session.principal.has_lent_rights()
            && session.will.take().is_some()
        {
            self.counters.dropped.not_authorized += 1;
        }
        let Some(conn) = self.sessions.get(slot).and_then(|session| session.conn) else { return };
        if self.conns.get(conn.0 as usize).is_some_and(crate::connection::Connection::is_live) {
            self.say_disconnect(conn, ReasonCode::NotAuthorized);
        }
        self.detach(conn, Leaving::Abruptly, now);
        self.end(conn);
    }

    /// Addresses have been shut out by hand: their connections are closed. MQTT 5 is told 0x98, since no DISCONNECT may say 0x8A, banned
    /// [MQTT-3.14.2-1]. Sessions stay, as those of whoever goes away do. Looks at every connection.
    pub fn shut_out(&mut self, is_shut_out: &dyn Fn(IpAddr) -> bool, now: Now) {
        let meant = self.conns.iter().filter(|(_, connection)| is_shut_out(connection.addr.ip()));
        let meant: Vec<ConnId> = meant.filter_map(|(key, _)| u32::try_from(key).ok().map(ConnId)).collect();
        for conn in meant {
            if self.conns.get(conn.0 as usize).is_some_and(crate::connection::Connection::is_live) {
                self.say_disconnect(conn, ReasonCode::AdministrativeAction);
            }
            self.detach(conn, Leaving::Abruptly, now);
            self.end(conn);
        }
    }

    /// A client has come to its session, which may be as it left it.
    pub(super) fn judge_attached(&mut self, slot: u32, principal: Option<Principal>, now: Now) {
        let Some(session) = self.sessions.get_mut(slot) else { return };
        let resumed = principal.is_some();
        if let Some(principal) = principal {
            // Equal, and it may have come in another way.
            session.principal = principal;
        }
        session.fed = self.gate.has_feed(&session.principal);
        if resumed && session.principal.has_lent_rights() {
            self.judge_rights(slot, now);
        }
    }

    /// Takes away what a session's principal may not read any more.
    fn judge_rights(&mut self, slot: u32, now: Now) {
        let Some(session) = self.sessions.get_mut(slot) else { return };
        let (gate, principal) = (&self.gate, &session.principal);
        let may_read = |filter: &str| {
            let filter = TopicFilter::from_validated(filter);
            gate.may_subscribe(principal, filter.share().map_or(filter, |(_, inner)| inner))
        };
        let subscriptions = session.subscriptions.iter().filter(|subscription| !may_read(&subscription.filter));
        let taken: Vec<Box<str>> = subscriptions.map(|subscription| subscription.filter.clone()).collect();
        if let Some(walks) = session.walks.as_mut() {
            walks.retain(|walk| may_read(&walk.filter));
        }
        session.walks = session.walks.take().filter(|walks| !walks.is_empty());
        let is_judged = principal.has_lent_rights();
        for filter in taken {
            self.unsubscribe_one(slot, TopicFilter::from_validated(&filter));
        }
        if is_judged {
            self.keep_queued(slot, now, |gate, principal, message| gate.may_receive(principal, message.topic()));
        }
    }

    /// Takes away what waits on these filters for whoever is concerned, and hasn't been sent on this connection.
    pub fn withdraw(&mut self, concern: &Concern, filters: &[Box<str>], now: Now) {
        for slot in self.principals.concerned(concern, &self.sessions) {
            self.keep_queued(slot, now, |_, _, message| {
                !filters.iter().any(|filter| TopicFilter::from_validated(filter).matches(message.topic()))
            });
        }
    }

    /// Leaves of what waits for a session what is to be kept.
    fn keep_queued(&mut self, slot: u32, now: Now, mut keep: impl FnMut(&G, &Principal, &Message) -> bool) {
        let Some(session) = self.sessions.get_mut(slot) else { return };
        let Some(outgoing) = session.outgoing.as_mut() else { return };
        let before = outgoing.messages();
        let withdrawn = outgoing.withdraw(&mut |message: &Message| keep(&self.gate, &session.principal, message));
        let gone = before - outgoing.messages();
        let handed_on = withdrawn.iter().filter(|(_, entry)| entry.share.is_some()).count();
        self.counters.queued_messages -= gone as u64;
        self.counters.dropped.not_authorized += (gone - handed_on) as u64;
        let key = session.key;
        for (seq, entry) in withdrawn {
            self.record_done(key, seq, entry.message.as_deref());
            self.hand_on(&entry, now);
        }
    }

    /// The sessions of a principal, in no order.
    #[must_use]
    pub fn sessions_of(&self, principal: &Principal) -> Vec<SessionView> {
        let slots = self.principals.concerned(&Concern::Principal(principal.clone()), &self.sessions);
        let sessions = slots.into_iter().filter_map(|slot| self.sessions.get(slot));
        sessions
            .map(|session| SessionView {
                client: session.client.clone(),
                peer: session.conn.and_then(|conn| Some(self.conns.get(conn.0 as usize)?.addr)),
                disconnected_at_ms: session.conn.is_none().then_some(session.disconnected_at_ms),
                expiry_s: session.expiry_s,
                subscriptions: session.subscriptions.len(),
                queued: session.outgoing.as_ref().map_or(0, |outgoing| outgoing.messages()),
            })
            .collect()
    }

    /// Whether a principal hears what is published on a topic now. Shared subscriptions don't count: another of the group may hear it.
    #[must_use]
    pub fn reach(&self, principal: &Principal, topic: TopicName<'_>) -> Reach {
        let slots = self.principals.concerned(&Concern::Principal(principal.clone()), &self.sessions);
        let connected = slots.into_iter().filter_map(|slot| self.sessions.get(slot)).filter(|one| one.conn.is_some());
        let reach = connected.map(|session| {
            let mut filters = session.subscriptions.iter().map(|one| TopicFilter::from_validated(&one.filter));
            if filters.any(|filter| filter.matches(topic)) { Reach::Hears } else { Reach::Deaf }
        });
        reach.max().unwrap_or(Reach::Absent)
    }

    /// Signs a principal out of one of its sessions: the connection is closed, and the session ends with all that it was owed. False if there is
    /// no such session of that principal.
    pub fn sign_out(&mut self, principal: &Principal, client: &str, now: Now) -> bool {
        let Some(slot) = self.sessions.find(client, principal) else { return false };
        self.end_for_good(slot, now);
        true
    }

    /// Ends every session of these, connected or not, with all that it was owed.
    pub fn forget(&mut self, concern: &Concern, now: Now) {
        for slot in self.principals.concerned(concern, &self.sessions) {
            self.end_for_good(slot, now);
        }
    }

    /// Ends the sessions of those who exist no more, as a crash between their end and this may have left them.
    pub fn forget_gone(&mut self, now: Now) {
        let is_gone = |session: &Session| self.gate.is_gone(&session.principal);
        let gone: Vec<u32> =
            self.sessions.iter().filter(|(_, session)| is_gone(session)).map(|(slot, _)| slot).collect();
        for slot in gone {
            self.end_for_good(slot, now);
        }
    }

    fn end_for_good(&mut self, slot: u32, now: Now) {
        let Some(generation) = self.sessions.get(slot).map(|session| session.generation) else { return };
        self.cut(slot, now);
        // A session of expiry 0 has ended with its connection.
        if self.sessions.get(slot).is_some_and(|session| session.generation == generation) {
            self.end_session(slot, now);
        }
    }
}

#[cfg(test)]
mod tests;
