//! CONNECT and AUTH: from the first bytes of a connection to a live session.

use std::sync::Arc;

use turnpike_mqtt::{
    Auth, AuthProperties, ConnAck, ConnAckProperties, Connect, ConnectReason, DecodeError, Frame, Packet, PacketType,
    ReasonCode, TopicAliases, TopicFilter, Version, decode, decode_connect, encode, frame,
};

use super::durability::Release;
use super::lifecycle::{Leaving, Timer};
use super::{Next, Shard, home};
use crate::clock::Now;
use crate::connection::{Challenged, Connection, Extras, State};
use crate::durable::Op;
use crate::gate::{
    Admission, Arrival, Attempt, Attested, ChallengeState, Gate, Passage, Permit, Principal, Stated, TakeOver, Verdict,
    Visit,
};
use crate::ids::{ClientId, ConnId, SessionRef};
use crate::message::{Message, MessageParts};
use crate::router::Subscriber;
use crate::session::{Session, Will};

impl<G: Gate> Shard<G> {
    /// The first packet of a connection: it must be CONNECT [MQTT-3.1.0-1].
    /// Implements [MQTT-3.1.4-6].
    pub(super) fn first_packet(&mut self, conn: ConnId, frame: Frame<'_>, now: Now) -> Next {
        if frame.packet_type() != PacketType::Connect {
            self.counters.protocol_errors += 1;
            self.end(conn);
            return Next::Ending;
        }
        let connect = match decode_connect(frame) {
            Ok(connect) => connect,
            Err(error) => {
                self.refuse_undecodable(conn, frame, &error);
                return Next::Ending;
            }
        };
        if !connect.client_id.is_empty() {
            let home = home(connect.client_id, self.shards);
            if home != self.id {
                return Next::Move(home);
            }
        }
        let Some(connection) = self.conns.get_mut(conn.0 as usize) else { return Next::Ending };
        connection.version = connect.version;
        if let Err(reason) = self.gate.attempted(connection.addr.ip(), now) {
            self.tell_kept_out(conn, &connect, Passage::TurnedAway(reason), now);
            self.refuse(conn, reason);
            return Next::Ending;
        }
        if let Some(reason) = self.unacceptable(&connect) {
            self.refuse(conn, reason);
            return Next::Ending;
        }
        let verdict = self.ask_gate(conn, &connect, now);
        self.act_on(conn, &connect, frame, verdict, now)
    }

    /// [MQTT-3.1.4-1] [MQTT-3.1.2-2]: what couldn't be decoded is refused in the words of the version that it claims.
    fn refuse_undecodable(&mut self, conn: ConnId, frame: Frame<'_>, error: &DecodeError) {
        self.counters.protocol_errors += 1;
        let claims_v5 = frame.body.starts_with(b"\x00\x04MQTT\x05");
        let wrong_level = matches!(error, DecodeError::UnsupportedProtocolVersion);
        let reason = ConnectReason::try_from(error.reason()).unwrap_or(ConnectReason::MalformedPacket);
        if let Some(connection) = self.conns.get_mut(conn.0 as usize) {
            let level = frame.body.get(6).copied().unwrap_or(0);
            connection.version = if claims_v5 || (wrong_level && level > 5) { Version::V5 } else { Version::V311 };
        }
        if claims_v5 || wrong_level {
            self.refuse(conn, reason);
        } else {
            // [MQTT3-3.1.4-1] MQTT 3 closes without a CONNACK.
            self.end(conn);
        }
    }

    /// What is wrong with a CONNECT whatever its credentials.
    /// Implements [MQTT-3.1.3-5] [MQTT-3.1.3-8] [MQTT3-3.1.3-7].
    fn unacceptable(&self, connect: &Connect<'_>) -> Option<ConnectReason> {
        let id = connect.client_id;
        if id.len() > usize::from(self.limits.client_id_bytes_max) {
            return Some(ConnectReason::ClientIdentifierNotValid);
        }
        // [MQTT3-3.1.3-8] an assigned id without clean session could never be used again; 3.1 has no assigned ids.
        if id.is_empty()
            && (connect.version == Version::V31 || (connect.version == Version::V311 && !connect.clean_start))
        {
            return Some(ConnectReason::ClientIdentifierNotValid);
        }
        None
    }

    /// Implements [MQTT-3.1.4-2] [MQTT-4.12.0-1] [MQTT-4.12.0-6].
    fn ask_gate(&mut self, conn: ConnId, connect: &Connect<'_>, now: Now) -> Verdict {
        let mut random = [0; 32];
        if connect.properties.authentication_method.is_some() {
            // Only a challenge needs it, and it costs a system call.
            (self.entropy)(&mut random);
        }
        let Some(connection) = self.conns.get(conn.0 as usize) else {
            return Verdict::Refused(ConnectReason::UnspecifiedError, "no_connection");
        };
        let attempt = attempt(connection, connect);
        self.gate.authenticate(&attempt, now, random)
    }

    pub(super) fn act_on(
        &mut self,
        conn: ConnId,
        connect: &Connect<'_>,
        frame: Frame<'_>,
        verdict: Verdict,
        now: Now,
    ) -> Next {
        self.judged = true;
        match verdict {
            Verdict::Refused(reason, cause) => {
                self.tell_kept_out(conn, connect, Passage::Refused(cause), now);
                self.refuse(conn, reason);
                Next::Ending
            }
            Verdict::Challenge { data, state } => {
                self.send_auth(conn, ReasonCode::ContinueAuthentication, &state.method, Some(&data));
                let mut bytes = Vec::new();
                frame.copy_to(&mut bytes);
                if let Some(connection) = self.conns.get_mut(conn.0 as usize) {
                    let challenged = Challenged { connect: bytes.into_boxed_slice(), state: *state };
                    connection.state = State::Challenged(Box::new(challenged));
                }
                Next::Continue
            }
            Verdict::Pending(question) => {
                self.ask(conn, frame, question, now);
                Next::Continue
            }
            Verdict::Dismissed(parting) => {
                self.dismiss(conn, connect, &parting);
                Next::Ending
            }
            Verdict::Granted(admission) => {
                if let Some((reason, cause)) = self.attest(conn, connect, &admission, now).refused {
                    self.tell_kept_out(conn, connect, Passage::Refused(cause), now);
                    self.refuse(conn, reason);
                    return Next::Ending;
                }
                match self.admit(conn, connect, admission, now) {
                    Ok(next) => next,
                    Err(reason) => {
                        self.tell_kept_out(conn, connect, Passage::TurnedAway(reason), now);
                        self.refuse(conn, reason);
                        Next::Ending
                    }
                }
            }
        }
    }

    /// What the gate makes of what a client states of itself.
    fn attest(&self, conn: ConnId, connect: &Connect<'_>, admission: &Admission, now: Now) -> Attested {
        let Some(connection) = self.conns.get(conn.0 as usize) else { return Attested::default() };
        let stated = Stated {
            principal: &admission.principal,
            user_name: connect.user_name,
            properties: connect.properties.user,
            address: connection.addr.ip(),
        };
        self.gate.attest(&stated, now)
    }

    /// Tells the gate of a client that didn't come in.
    pub(super) fn tell_kept_out(&self, conn: ConnId, connect: &Connect<'_>, passage: Passage, now: Now) {
        let Some(connection) = self.conns.get(conn.0 as usize) else { return };
        let visit = Visit {
            client_id: connect.client_id,
            principal: None,
            user_name: connect.user_name,
            peer: connection.addr,
            tls: connection.tls,
        };
        self.gate.passed(&visit, passage, now);
    }

    fn send_auth(&mut self, conn: ConnId, reason: ReasonCode, method: &str, data: Option<&[u8]>) {
        let properties = AuthProperties { method: Some(method), data, ..AuthProperties::default() };
        self.send(conn, &Packet::Auth(Auth { reason, properties }));
    }

    /// The packet that answers a challenge [MQTT-3.1.2-30]: AUTH or DISCONNECT, nothing else.
    pub(super) fn challenged_packet(&mut self, conn: ConnId, answer: Frame<'_>, now: Now) -> Next {
        let taken = self.conns.get_mut(conn.0 as usize).map(|c| std::mem::replace(&mut c.state, State::Opened));
        let Some(State::Challenged(challenged)) = taken else { return Next::Ending };
        let Challenged { connect: bytes, state } = *challenged;
        let packet = decode(Version::V5, answer);
        let data = match &packet {
            Ok(Packet::Auth(auth)) => match answer_data(auth, &state) {
                Ok(data) => data,
                Err(reason) => {
                    self.refuse(conn, reason);
                    return Next::Ending;
                }
            },
            Ok(Packet::Disconnect(_)) => {
                // It has changed its mind, and wants no answer.
                self.end(conn);
                return Next::Ending;
            }
            _ => {
                self.refuse(conn, ConnectReason::ProtocolError);
                return Next::Ending;
            }
        };
        let Ok(Some(connect_frame)) = frame(&bytes, u32::MAX) else { return Next::Ending };
        let Ok(connect) = decode_connect(connect_frame) else { return Next::Ending };
        let verdict = {
            let Some(connection) = self.conns.get(conn.0 as usize) else { return Next::Ending };
            let attempt = Attempt { enhanced: Some((&state.method, data)), ..attempt(connection, &connect) };
            self.gate.proceed(&attempt, &state, data, now)
        };
        self.act_on(conn, &connect, connect_frame, verdict, now)
    }

    /// AUTH of a live connection: it proves itself again (MQTT 5, 4.12.1), or goes on doing so.
    pub(super) fn on_auth(&mut self, conn: ConnId, auth: &Auth<'_>, now: Now) -> Result<(), ReasonCode> {
        let Some(connection) = self.conns.get_mut(conn.0 as usize) else { return Ok(()) };
        let method = connection.extras.as_ref().and_then(|extras| extras.method.clone());
        // [MQTT-4.12.0-7] without a method in CONNECT there is no AUTH; [MQTT-4.12.0-5] [MQTT-4.12.1-1] the method stays the same.
        let method = method.ok_or(ReasonCode::ProtocolError)?;
        if auth.properties.method != Some(&*method) {
            return Err(ReasonCode::ProtocolError);
        }
        let state = std::mem::replace(&mut connection.state, State::Live);
        let Some(session) = connection.session.and_then(|slot| self.sessions.get(slot)) else { return Ok(()) };
        let user_name = match &session.principal {
            Principal::Device(identity) => Some(format!("{}/{}", identity.product, identity.device)),
            Principal::User(identity) => Some(format!("{}/{}", identity.app, identity.user)),
            Principal::Service(identity) => Some(format!("$svc/{}", identity.key)),
            Principal::Anonymous | Principal::Platform(_) | Principal::Broker => None,
        };
        let data = auth.properties.data.unwrap_or_default();
        let attempt = Attempt {
            client_id: session.client.as_str(),
            user_name: user_name.as_deref(),
            password: None,
            peer: connection.addr,
            tls: connection.tls,
            certificate: connection.certificate.as_deref(),
            enhanced: Some((&method, data)),
        };
        let verdict = match (&state, auth.reason) {
            (State::Reauthenticating(state), ReasonCode::ContinueAuthentication) => {
                self.gate.proceed(&attempt, state, data, now)
            }
            (State::Live, ReasonCode::ReAuthenticate) => {
                let mut random = [0; 32];
                (self.entropy)(&mut random);
                self.gate.authenticate(&attempt, now, random)
            }
            _ => return Err(ReasonCode::ProtocolError),
        };
        self.judged = true;
        match verdict {
            Verdict::Granted(admission) if admission.principal == session.principal && admission.is_good_at(now) => {
                if let Some(session) = connection.session.and_then(|slot| self.sessions.get_mut(slot)) {
                    session.principal = admission.principal;
                }
                self.end_authentication_at(conn, admission.until_ms, now);
                self.send_auth(conn, ReasonCode::Success, &method, admission.data.as_deref());
                Ok(())
            }
            Verdict::Challenge { data, state } => {
                connection.state = State::Reauthenticating(state);
                self.send_auth(conn, ReasonCode::ContinueAuthentication, &method, Some(&data));
                Ok(())
            }
            // [MQTT-4.12.1-2]
            Verdict::Granted(_) | Verdict::Pending(_) | Verdict::Dismissed(_) | Verdict::Refused(..) => {
                Err(ReasonCode::NotAuthorized)
            }
        }
    }

    /// Lets a client in: its session is found or made, an older connection of the same client gives way.
    /// Implements [MQTT-3.1.3-2] [MQTT-3.1.4-4] [MQTT-3.1.4-5] [MQTT-3.2.0-1] [MQTT-3.2.0-2].
    fn admit(
        &mut self,
        conn: ConnId,
        connect: &Connect<'_>,
        admission: Admission,
        now: Now,
    ) -> Result<Next, ConnectReason> {
        if !admission.is_good_at(now) {
            return Err(ConnectReason::NotAuthorized);
        }
        let Admission { principal, data, client_id, until_ms, cipher } = admission;
        let data = data.as_deref();
        let will = self.judge_will(connect, &principal)?;
        let assigned = if connect.client_id.is_empty() { Some(self.new_client_id(&principal)) } else { None };
        let other = assigned.as_deref().or(client_id.as_deref());
        let client = ClientId::new(other.unwrap_or(connect.client_id));
        // That of the id that was sent is known to be here.
        if other.is_some_and(|id| home(id, self.shards) != self.id) {
            // Its session would be out of reach of everybody else who names it.
            return Err(ConnectReason::ClientIdentifierNotValid);
        }
        // A client id is a name, not a proof: nobody takes over somebody else's session, or is kept out by one.
        let existing = self.sessions.find(client.as_str(), &principal);
        if let Some(slot) = existing {
            self.judge_take_over(conn, slot, now)?;
        }
        self.judge_arrival(conn, existing, &principal, now)?;
        let expiry_s = self.granted_expiry(connect);
        // On a full disk a session that exists goes on: what it acknowledges makes room.
        let served = if existing.is_some() { self.shared.store_serving() } else { self.shared.store_accepts() };
        if expiry_s > 0 && !served {
            return Err(ConnectReason::ServerUnavailable);
        }
        let cipher = self.begin_cipher(connect, cipher, now)?;
        let mut bytes = Vec::new();
        if let Some(most) = connect.properties.maximum_packet_size {
            let ack = self.connack(connect, false, assigned.as_deref(), expiry_s, data);
            encode(connect.version, &Packet::ConnAck(Box::new(ack)), &mut bytes);
            if bytes.len() > most as usize {
                // [MQTT-3.1.2-24] there is nothing that could be said to such a client.
                self.end(conn);
                return Ok(Next::Ending);
            }
            bytes.clear();
        }
        let ops = self.ticket.ops.len();
        let existing = existing.and_then(|slot| self.take_over(slot, connect.clean_start, now));
        let committed_before = existing.is_some();
        let (slot, resumed_by) = match existing {
            Some(slot) => (slot, Some(principal)),
            None => (self.new_session(client, principal, connect.version, expiry_s)?, None),
        };
        self.attach(conn, slot, connect, expiry_s, will, now);
        self.judge_attached(slot, resumed_by, now);
        self.end_authentication_at(conn, until_ms, now);
        self.give_cipher(conn, cipher);
        self.tell_passage(conn, slot, Passage::In, now);
        let ack = self.connack(connect, committed_before, assigned.as_deref(), expiry_s, data);
        encode(connect.version, &Packet::ConnAck(Box::new(ack)), &mut bytes);
        self.counters.accepted += 1;
        // What is confirmed for the first time must be on disk: a new durable session, or the end of an old one.
        if !committed_before && self.ticket.ops.len() != ops {
            if let Some(connection) = self.conns.get_mut(conn.0 as usize) {
                connection.state = State::Settling;
            }
            let bytes = bytes.into_boxed_slice();
            self.await_commit(conn, |serial| Release::Connected { conn, serial, bytes });
        } else {
            self.send_bytes(conn, &bytes);
            self.go_live(conn, now);
        }
        Ok(Next::Continue)
    }

    /// Whether a connection may take a session over from another. If the gate says no because the client is welcome no more, the other
    /// goes, too.
    fn judge_take_over(&mut self, conn: ConnId, slot: u32, now: Now) -> Result<(), ConnectReason> {
        let Some(session) = self.sessions.get(slot) else { return Ok(()) };
        let Some(old) = session.conn else { return Ok(()) };
        let address = |conn: ConnId| self.conns.get(conn.0 as usize).map(|connection| connection.addr.ip());
        let (Some(from), Some(to)) = (address(old), address(conn)) else { return Ok(()) };
        let judged = self.gate.taken_over(TakeOver { principal: &session.principal, from, to }, now);
        if judged.is_err() && !self.gate.still_welcome(&session.principal) {
            self.say_disconnect(old, ReasonCode::NotAuthorized);
            self.detach(old, Leaving::Abruptly, now);
            self.end(old);
        }
        judged
    }

    /// Whether a client may come in beside the connections that it has, but for that of the session in `existing`, which ends.
    fn judge_arrival(
        &self,
        conn: ConnId,
        existing: Option<u32>,
        principal: &Principal,
        now: Now,
    ) -> Result<(), ConnectReason> {
        let address = |conn: ConnId| self.conns.get(conn.0 as usize).map(|connection| connection.addr.ip());
        let Some(from) = address(conn) else { return Ok(()) };
        let old = existing.and_then(|slot| self.sessions.get(slot)).and_then(|session| session.conn);
        self.gate.arrives(Arrival { principal, address: from, instead_of: old.and_then(address) }, now)
    }

    /// The will, if its topic may be published on.
    /// Implements [MQTT-3.1.3-10].
    fn judge_will(&self, connect: &Connect<'_>, principal: &Principal) -> Result<Option<Box<Will>>, ConnectReason> {
        let Some(will) = &connect.will else { return Ok(None) };
        let permit = Permit::judge(&*self.gate, principal, will.topic).map_err(|_| ConnectReason::NotAuthorized)?;
        let mut properties = Vec::new();
        will.properties.forwardable.copy_to(&mut properties);
        let message = Message::new(&MessageParts {
            topic: permit.topic(),
            properties: &properties,
            payload: will.payload,
            qos: will.qos,
            retain: will.retain,
            expires_at_ms: None,
            publisher: None,
        });
        Ok(Some(Box::new(Will {
            message: Arc::new(message),
            delay_s: will.properties.delay_s,
            expiry_s: will.properties.message_expiry_s,
            due_ms: None,
        })))
    }

    /// An id that nobody has, whose home is here [MQTT-3.1.3-6] [MQTT-3.2.2-16].
    fn new_client_id(&mut self, principal: &Principal) -> String {
        loop {
            let mut random = [0; 12];
            (self.entropy)(&mut random);
            let id = random.iter().fold(String::from("auto-"), |id, byte| format!("{id}{byte:02x}"));
            if home(&id, self.shards) == self.id && self.sessions.find(&id, principal).is_none() {
                return id;
            }
        }
    }

    fn granted_expiry(&self, connect: &Connect<'_>) -> u32 {
        let asked = match connect.version {
            // [MQTT-3.1.2-23]
            Version::V5 => connect.properties.session_expiry_s.unwrap_or(0),
            Version::V31 | Version::V311 if connect.clean_start => 0,
            Version::V31 | Version::V311 => self.limits.session_expiry_mqtt3_s,
        };
        asked.min(self.limits.session_expiry_max_s)
    }

    /// What is to become of the client's session; the slot if it goes on. [MQTT-3.1.2-4] [MQTT-3.1.2-5] [MQTT-3.1.4-3]
    /// Implements [MQTT3-3.1.4-2] [MQTT3-3.1.2-4].
    fn take_over(&mut self, slot: u32, clean_start: bool, now: Now) -> Option<u32> {
        let session = self.sessions.get(slot)?;
        let goes_on = !clean_start && session.expiry_s > 0;
        let generation = session.generation;
        if let Some(old) = session.conn {
            self.counters.taken_over += 1;
            // [MQTT-3.14.0-1] one whose CONNACK still waits for its commit just ends.
            if self.conns.get(old.0 as usize).is_some_and(Connection::is_live) {
                self.say_disconnect(old, ReasonCode::SessionTakenOver);
            }
            self.detach(old, if goes_on { Leaving::TakenOver } else { Leaving::Replaced }, now);
            self.end(old);
        }
        if goes_on {
            return Some(slot);
        }
        // A session of expiry 0 has ended with its connection.
        if self.sessions.get(slot).is_some_and(|session| session.generation == generation) {
            self.end_session(slot, now);
        }
        None
    }

    /// Implements [MQTT-3.1.2-6].
    fn new_session(
        &mut self,
        client: ClientId,
        principal: Principal,
        version: Version,
        expiry_s: u32,
    ) -> Result<u32, ConnectReason> {
        if self.sessions.len() >= self.limits.sessions_max as usize {
            return Err(ConnectReason::QuotaExceeded);
        }
        self.next_generation = self.next_generation.wrapping_add(1);
        let slot = self.sessions.insert(Session {
            key: (expiry_s > 0).then(|| self.shared.new_session_key()),
            generation: self.next_generation,
            expiry_s,
            mqtt3: version != Version::V5,
            ..Session::new(client, principal)
        });
        self.principals.insert(slot, &mut self.sessions);
        Ok(slot)
    }

    /// Joins a connection and its session.
    /// Implements [MQTT-3.1.2-7] [MQTT3-3.1.2-12].
    fn attach(
        &mut self,
        conn: ConnId,
        slot: u32,
        connect: &Connect<'_>,
        expiry_s: u32,
        will: Option<Box<Will>>,
        now: Now,
    ) {
        let keep_alive_s = self.granted_keep_alive(connect);
        let (Some(connection), Some(session)) = (self.conns.get_mut(conn.0 as usize), self.sessions.get_mut(slot))
        else {
            return;
        };
        connection.session = Some(slot);
        let properties = &connect.properties;
        connection.window =
            properties.receive_maximum.unwrap_or(self.limits.inflight_max).min(self.limits.inflight_max);
        connection.packet_bytes_max = properties.maximum_packet_size.unwrap_or(u32::MAX);
        connection.idle_max_ms = u32::from(keep_alive_s) * 1500;
        let aliases_out_max = properties.topic_alias_maximum.unwrap_or(0).min(self.limits.topic_alias_out_max);
        let aliases_in = connect.version == Version::V5 && self.limits.topic_alias_in_max > 0;
        if aliases_in || aliases_out_max > 0 || properties.authentication_method.is_some() {
            connection.extras = Some(Box::new(Extras {
                aliases_in: aliases_in.then(|| TopicAliases::new(self.limits.topic_alias_in_max)),
                aliases_out_max,
                method: properties.authentication_method.map(Box::from),
                ..Extras::default()
            }));
        }
        if connection.idle_max_ms > 0 {
            let timer = Timer::KeepAlive { conn, serial: connection.serial };
            self.wheel.insert(now.mono_ms + u64::from(connection.idle_max_ms), timer);
        }
        self.counters.clients += 1;
        session.conn = Some(conn);
        session.will = will;
        session.mqtt3 = connect.version != Version::V5;
        let durable_before = session.key.is_some();
        session.expiry_s = expiry_s;
        match session.key {
            Some(key) if expiry_s == 0 => {
                // It ends with this connection now: nothing of it needs to survive.
                session.key = None;
                self.ticket.ops.push(Op::SessionDelete(key));
            }
            _ => self.record_session(slot),
        }
        let durable = expiry_s > 0;
        if durable != durable_before {
            self.resubscribe(slot);
        }
        self.remeter_one(slot, now);
        self.set_online(slot, true);
    }

    /// Tells the router anew of every subscription, after the session's durability has changed.
    fn resubscribe(&self, slot: u32) {
        let Some(session) = self.sessions.get(slot) else { return };
        let reference = SessionRef { shard: self.id, slot, generation: session.generation };
        for known in &session.subscriptions {
            let filter = TopicFilter::from_validated(&known.filter);
            let (share, inner) = filter.share().map_or((None, filter), |(name, inner)| (Some(name), inner));
            let subscriber = Subscriber::new(reference, known.options, known.identifier, session.key.is_some());
            self.shared.router.subscribe(inner, share, subscriber, true);
        }
    }

    /// The keep alive in force, in seconds [MQTT-3.1.2-21].
    /// Implements [MQTT-3.2.2-22].
    fn granted_keep_alive(&self, connect: &Connect<'_>) -> u16 {
        let most = self.limits.keep_alive_max_s;
        match (connect.version, connect.keep_alive_s) {
            (Version::V5, asked) if most != u16::MAX && (asked == 0 || asked > most) => most,
            (_, asked) => asked,
        }
    }

    /// Implements [MQTT-3.1.3-7].
    pub(super) fn connack<'a>(
        &self,
        connect: &Connect<'a>,
        session_present: bool,
        assigned: Option<&'a str>,
        expiry_s: u32,
        data: Option<&'a [u8]>,
    ) -> ConnAck<'a> {
        let limits = &self.limits;
        let keep_alive_s = self.granted_keep_alive(connect);
        let properties = ConnAckProperties {
            session_expiry_s: (expiry_s != connect.properties.session_expiry_s.unwrap_or(0)).then_some(expiry_s),
            receive_maximum: (limits.receive_max != u16::MAX).then_some(limits.receive_max),
            maximum_packet_size: Some(limits.packet_bytes_max),
            assigned_client_id: assigned,
            topic_alias_maximum: (limits.topic_alias_in_max > 0).then_some(limits.topic_alias_in_max),
            server_keep_alive_s: (keep_alive_s != connect.keep_alive_s).then_some(keep_alive_s),
            authentication_method: connect.properties.authentication_method,
            authentication_data: data,
            ..ConnAckProperties::default()
        };
        // [MQTT-3.2.2-2] [MQTT-3.2.2-3] MQTT 3.1 has no session present flag; the encoder leaves it out there.
        ConnAck { session_present, reason: ConnectReason::Success, properties }
    }

    /// CONNACK is written: what the session is owed follows.
    pub(super) fn go_live(&mut self, conn: ConnId, now: Now) {
        let Some(connection) = self.conns.get_mut(conn.0 as usize) else { return };
        connection.state = State::Live;
        // While its creation was being committed, it wasn't read.
        connection.last_heard_ms = now.mono_ms;
        let slot = connection.session;
        // Whatever came behind the CONNECT was kept.
        if connection.paused {
            connection.paused = false;
            self.resumed.push_back(conn);
        }
        self.renew_keys(conn, now);
        if let Some(slot) = slot {
            self.pump(slot, now);
        }
    }
}

/// What a CONNECT says to the gate.
pub(super) fn attempt<'a>(connection: &'a Connection, connect: &Connect<'a>) -> Attempt<'a> {
    let properties = &connect.properties;
    Attempt {
        client_id: connect.client_id,
        user_name: connect.user_name,
        password: connect.password,
        peer: connection.addr,
        tls: connection.tls,
        certificate: connection.certificate.as_deref(),
        enhanced: properties.authentication_method.map(|m| (m, properties.authentication_data.unwrap_or_default())),
    }
}

/// The data of an AUTH that continues a challenge [MQTT-4.12.0-2] [MQTT-4.12.0-3].
fn answer_data<'a>(auth: &Auth<'a>, state: &ChallengeState) -> Result<&'a [u8], ConnectReason> {
    if auth.reason != ReasonCode::ContinueAuthentication {
        return Err(ConnectReason::ProtocolError);
    }
    if auth.properties.method != Some(&*state.method) {
        return Err(ConnectReason::BadAuthenticationMethod);
    }
    Ok(auth.properties.data.unwrap_or_default())
}

#[cfg(test)]
mod tests;
