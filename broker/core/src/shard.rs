//! One shard, without I/O: bytes of connections go in, bytes for connections, batches for other shards and durable operations
//! come out.
//!
//! The order of a turn, for whoever drives it:
//!
//! 1. inputs, any number in any order: [`Shard::open`], [`Shard::receive`], [`Shard::closed`], [`Shard::deliver`],
//!    [`Shard::committed`], or [`Shard::note_committed`] and [`Shard::say_committed`], [`Shard::answered`], [`Shard::errand_done`],
//!    [`Shard::tick`];
//! 2. [`Shard::keep_judged`] before anything is written, then
//!    [`Shard::next_touched`] until it is empty: write each connection's [`Shard::output`], say how much with [`Shard::wrote`];
//! 3. [`Shard::next_resumed`] until it is empty: feed these connections what was kept of them;
//! 4. [`Shard::next_inquiry`] until there is none: have these questions answered, whenever that may be;
//! 5. [`Shard::next_errand`] until there is none: hand these messages to their desks;
//! 6. [`Shard::end_turn`]: hand the batches to their shards and the parts to the committer.
//!
//! Every connection that `open` returned gets exactly one `closed`.

mod acks;
mod asking;
mod cipher;
mod connect;
mod deliver;
mod dismiss;
mod durability;
mod errand;
mod feed;
mod history;
mod judge;
mod judged;
mod lifecycle;
mod outside;
mod partial;
mod principals;
mod publish;
mod restore;
mod subscribe;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod throttle;
mod until;

use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use turnpike_mqtt::{
    DecodeError, Frame, Packet, PacketType, ReasonCode, TopicName, Version, decode, decode_publish, encode, frame,
};

use crate::batch::Batch;
use crate::clock::Now;
pub use crate::connection::Peer;
use crate::connection::{Connection, State};
use crate::counters::Counters;
use crate::durable::Part;
use crate::feed::Feed;
use crate::gate::{Entry, Gate};
use crate::ids::{ConnId, MessageId, SessionRef, ShardId, Turn};
use crate::limits::Limits;
use crate::retain::Walk;
use crate::router::Matches;
use crate::sessions::Sessions;
use crate::shared::Shared;
use crate::table::Table;
use crate::wheel::Wheel;

pub use asking::{Inquiry, InquiryId};
use deliver::Room;
use durability::{Release, TicketBuffer};
use errand::Handed;
pub use errand::{Errand, ErrandId};
pub use judge::{Reach, SessionView};
use lifecycle::Timer;
pub use outside::Taken;
use partial::Partials;
use principals::Principals;
use throttle::PauseEnd;

/// Out buffers that a shard keeps for reuse.
const POOL_BUFFERS_MAX: usize = 256;
/// A larger buffer isn't kept.
const POOL_BUFFER_BYTES_MAX: usize = 64 << 10;

/// Fills a slice with random bytes.
pub type Entropy = Box<dyn FnMut(&mut [u8]) + Send>;

/// What a shard is made from.
pub struct Setup<G> {
    /// Its index.
    pub id: ShardId,
    /// How many there are.
    pub shards: u16,
    /// What it shares with the others.
    pub shared: Arc<Shared>,
    /// Who may come in.
    pub gate: Arc<G>,
    /// The bounds.
    pub limits: Arc<Limits>,
    /// Fills a slice with random bytes that peers can't foretell (challenges, assigned client ids).
    pub entropy: Entropy,
    /// The moment of its making.
    pub now: Now,
}

/// What became of received bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct Received {
    /// Bytes taken. The rest is an unfinished frame, which the shell keeps and presents again with what follows.
    pub consumed: usize,
    /// How to go on.
    pub next: Next,
}

/// How to go on with a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Read on.
    Continue,
    /// It belongs to that shard: `closed` here, `open` and `receive` there, with all bytes not consumed.
    Move(ShardId),
    /// Keep the bytes and read no more until [`Shard::next_resumed`] names the connection.
    Pause,
    /// It is ending: read no more.
    Ending,
}

/// What is to be written to a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Output<'a> {
    /// Bytes for the transport.
    pub bytes: &'a [u8],
    /// When they are written, close the connection and call [`Shard::closed`].
    pub close: bool,
}

/// What leaves a shard at the end of a turn.
#[derive(Debug, Default)]
#[must_use]
pub struct TurnOutput {
    /// For other shards, at most one each. A shard's batches must arrive in order.
    pub batches: Vec<(ShardId, Batch)>,
    /// For the committer.
    pub parts: Vec<Part>,
}

/// A shard.
pub struct Shard<G> {
    id: ShardId,
    shards: u16,
    shared: Arc<Shared>,
    gate: Arc<G>,
    limits: Arc<Limits>,
    entropy: Entropy,
    /// State of a generator for choices that peers gain nothing from foretelling (members of shared subscriptions).
    choice: u64,
    conns: Table<Connection>,
    next_serial: u32,
    sessions: Sessions,
    principals: Principals,
    next_generation: u32,
    wheel: Wheel<Timer>,
    due: Vec<Timer>,
    /// Ends of the pauses of connections that were too fast.
    pauses: Wheel<PauseEnd>,
    pauses_due: Vec<PauseEnd>,
    next_pause: u32,
    pool: Vec<Vec<u8>>,
    touched: VecDeque<ConnId>,
    resumed: VecDeque<ConnId>,
    matches: Matches,
    feed: Feed,
    scratch: Vec<u8>,
    batches: Vec<Batch>,
    /// Publishes routed so far; tells a batch whether it has this one's message already.
    routed: u64,
    routed_to: Vec<u64>,
    /// The turn that is open.
    turn: Turn,
    /// What the open turn, or the batch being delivered, wants committed.
    ticket: TicketBuffer,
    /// By origin: tickets that this shard has a part in and that aren't on disk.
    waiting: Vec<VecDeque<(Turn, Vec<Release>)>>,
    /// What waited for tickets that are on disk, in their order.
    sayable: VecDeque<std::vec::IntoIter<Release>>,
    /// How many owed entries refer to a shared body.
    bodies: HashMap<MessageId, u32, foldhash::fast::RandomState>,
    /// Packets that have begun and haven't ended.
    partials: Partials,
    /// Sessions whose walk through retained messages goes on in the next turn.
    walking: VecDeque<u32>,
    /// Questions of this turn to somebody outside.
    inquiries: VecDeque<Inquiry>,
    /// Sessions of this shard that are marked as full.
    full: VecDeque<SessionRef>,
    /// Retained messages that are to go.
    forgetting: VecDeque<Walk>,
    /// What came from outside and may be said to be taken.
    taken: VecDeque<Taken>,
    /// Messages of this turn for desks.
    errands: VecDeque<Errand>,
    /// Those that desks are at, whether or not their connections are still there, and their bytes.
    handed: HashMap<ErrandId, Handed, foldhash::fast::RandomState>,
    handed_bytes: usize,
    /// How far what is published now may fill a queue here: live messages to its bounds.
    room: Room,
    /// The gate has judged since it was last told to keep what it has to remember.
    judged: bool,
    draining: bool,
    counters: Counters,
}

impl<G> fmt::Debug for Shard<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shard").field("id", &self.id).field("counters", &self.counters).finish_non_exhaustive()
    }
}

/// The home shard of a client id: every shard of every process computes the same.
///
/// What device SDKs change in it from one log-in to the next doesn't count: all from the first `|` on, and after that
/// any number of ends such as `_0_0_2025041401`. Only the gate knows whether a client id means this ([`crate::gate::Verdict`]), and it is asked
/// on the home shard; so the id with and the one without these parts must be at home in the same place.
#[must_use]
pub fn home(client_id: &str, shards: u16) -> ShardId {
    // FNV-1a: the choice must not depend on a process's random seed, since restored sessions are dealt out by it.
    let hash = lasting_part(client_id.as_bytes())
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let index = (u128::from(hash.wrapping_mul(0x9e37_79b9_7f4a_7c15)) * u128::from(shards.max(1))) >> 64;
    ShardId(u16::try_from(index).expect("less than the number of shards"))
}

fn lasting_part(client_id: &[u8]) -> &[u8] {
    let mut part = client_id.split(|byte| *byte == b'|').next().unwrap_or(client_id);
    while let Some((rest, [b'_', _, b'_', _, b'_', hour @ ..])) = part.split_last_chunk::<15>()
        && hour.iter().all(u8::is_ascii_digit)
    {
        part = rest;
    }
    part
}

impl<G: Gate> Shard<G> {
    /// An empty shard.
    #[must_use]
    pub fn new(setup: Setup<G>) -> Self {
        let shards = usize::from(setup.shards);
        let mut shard = Self {
            id: setup.id,
            shards: setup.shards,
            shared: setup.shared,
            gate: setup.gate,
            limits: setup.limits,
            entropy: setup.entropy,
            choice: 0,
            conns: Table::new(),
            next_serial: 0,
            sessions: Sessions::new(),
            next_generation: 0,
            principals: Principals::default(),
            wheel: Wheel::new(setup.now.mono_ms),
            due: Vec::new(),
            pauses: Wheel::with_tick(setup.now.mono_ms, throttle::TICK_MS),
            pauses_due: Vec::new(),
            next_pause: 0,
            pool: Vec::new(),
            touched: VecDeque::new(),
            resumed: VecDeque::new(),
            matches: Matches::default(),
            feed: Feed::default(),
            scratch: Vec::new(),
            batches: (0..shards).map(|_| Batch::new(setup.id)).collect(),
            routed: 0,
            routed_to: vec![0; shards],
            turn: Turn(1),
            ticket: TicketBuffer::default(),
            waiting: (0..shards).map(|_| VecDeque::new()).collect(),
            sayable: VecDeque::new(),
            bodies: HashMap::default(),
            partials: Partials::default(),
            walking: VecDeque::new(),
            inquiries: VecDeque::new(),
            full: VecDeque::new(),
            forgetting: VecDeque::new(),
            taken: VecDeque::new(),
            errands: VecDeque::new(),
            handed: HashMap::default(),
            handed_bytes: 0,
            room: Room::Bounds,
            judged: false,
            draining: false,
            counters: Counters::default(),
        };
        let mut seed = [0; 8];
        (shard.entropy)(&mut seed);
        shard.choice = u64::from_le_bytes(seed);
        shard.wheel.insert(setup.now.mono_ms + lifecycle::SWEEP_MS, Timer::Sweep);
        shard
    }

    /// Whether a socket from that address is to be served. For the moment at which it is accepted, so that a banned address costs no
    /// handshake; not where the address is a proxy's.
    pub fn accepts(&mut self, address: IpAddr, now: Now) -> bool {
        let accepts = self.gate.accepts(address, now);
        self.counters.turned_away += u64::from(!accepts);
        accepts
    }

    /// A connection has been accepted. `None` if there are too many, or its address is shut out: drop the socket.
    pub fn open(&mut self, peer: Peer, now: Now) -> Option<ConnId> {
        if self.conns.len() >= self.limits.connections_max as usize || self.draining {
            return None;
        }
        let counted = match self.gate.entered(peer.addr.ip(), now) {
            Entry::Closed => {
                self.counters.turned_away += 1;
                return None;
            }
            Entry::Free => false,
            Entry::Counted => true,
        };
        self.next_serial = self.next_serial.wrapping_add(1);
        let mut connection = Connection::new(self.next_serial, peer, now.mono_ms);
        connection.counted = counted;
        let key = self.conns.insert(connection);
        let conn = ConnId(u32::try_from(key).expect("bounded by connections_max"));
        self.counters.opened += 1;
        let due_ms = now.mono_ms + u64::from(self.limits.connect_timeout_ms);
        self.wheel.insert(due_ms, Timer::Connect { conn, serial: self.next_serial });
        Some(conn)
    }

    /// Bytes have come. Takes whole packets and acts on them.
    pub fn receive(&mut self, conn: ConnId, bytes: &[u8], now: Now) -> Received {
        let mut consumed = 0;
        let next = loop {
            let Some(connection) = self.conns.get_mut(conn.0 as usize) else { break Next::Ending };
            match connection.state {
                State::Ending => break Next::Ending,
                State::Settling | State::Asking(_) => {
                    connection.paused = true;
                    break Next::Pause;
                }
                State::Opened | State::Challenged(_) | State::Live | State::Reauthenticating(_) => {}
            }
            if connection.throttled != 0 || connection.handed {
                connection.paused = true;
                break Next::Pause;
            }
            // Answers to an MQTT 3 client have no receive maximum to bound them; not being read slows it down.
            if connection.awaited > u32::from(self.limits.receive_max).saturating_mul(2) {
                connection.paused = true;
                break Next::Pause;
            }
            let (live, version) = (connection.is_live(), connection.version);
            let rest = bytes.get(consumed..).unwrap_or_default();
            let frame = match frame(rest, packet_bytes_max(&self.limits, live)) {
                Ok(Some(frame)) => frame,
                Ok(None) if rest.is_empty() => break Next::Continue,
                Ok(None) if self.note_partial(conn, rest.len(), consumed == 0, now) => {
                    self.counters.bytes_received += consumed as u64;
                    return Received { consumed, next: Next::Continue };
                }
                Ok(None) => break Next::Ending,
                Err(error) => {
                    self.fail(conn, error.reason(), now);
                    break Next::Ending;
                }
            };
            let length = frame.len();
            connection.last_heard_ms = now.mono_ms;
            if connection.owes && self.waits_for_debt(conn, version, &frame, now) {
                break Next::Pause;
            }
            self.counters.packets_received += 1;
            let next =
                if live { self.live_packet(conn, version, frame, now) } else { self.early_packet(conn, frame, now) };
            match next {
                // If that was its end, the next round says so.
                Next::Continue => consumed += length,
                Next::Pause => {
                    consumed += length;
                    break Next::Pause;
                }
                Next::Move(shard) => break Next::Move(shard),
                Next::Ending => {
                    consumed += length;
                    break Next::Ending;
                }
            }
        };
        self.no_partial(conn);
        self.counters.bytes_received += consumed as u64;
        Received { consumed, next }
    }

    /// A packet before the session is live. `Pause` and `Ending` say that it was consumed, `Move` that it wasn't.
    fn early_packet(&mut self, conn: ConnId, frame: Frame<'_>, now: Now) -> Next {
        match self.conns.get(conn.0 as usize).map(|connection| &connection.state) {
            Some(State::Opened) => self.first_packet(conn, frame, now),
            Some(State::Challenged(_)) => self.challenged_packet(conn, frame, now),
            Some(State::Settling | State::Asking(_) | State::Live | State::Reauthenticating(_) | State::Ending)
            | None => Next::Ending,
        }
    }

    /// A packet of a live connection; it is consumed, whatever comes of it.
    #[inline]
    fn live_packet(&mut self, conn: ConnId, version: Version, frame: Frame<'_>, now: Now) -> Next {
        let outcome = match frame.packet_type() {
            PacketType::Publish => decode_publish(version, frame)
                .map_err(DecodeError::reason)
                .and_then(|publish| self.on_publish(conn, &publish, frame.len(), now)),
            // [MQTT-3.1.0-2] whatever it says.
            PacketType::Connect => Err(ReasonCode::ProtocolError),
            kind => {
                self.meter_packet(conn, kind, now);
                decode(version, frame)
                    .map_err(DecodeError::reason)
                    .and_then(|packet| self.on_packet(conn, &packet, now))
            }
        };
        match outcome {
            Ok(()) => Next::Continue,
            Err(reason) => {
                self.fail(conn, reason, now);
                Next::Ending
            }
        }
    }

    /// A packet of a live connection that isn't PUBLISH.
    fn on_packet(&mut self, conn: ConnId, packet: &Packet<'_>, now: Now) -> Result<(), ReasonCode> {
        match packet {
            Packet::Publish(publish) => self.on_publish(conn, publish, publish.payload.len(), now),
            Packet::PubAck(ack) => self.on_puback(conn, ack, now),
            Packet::PubRec(ack) => self.on_pubrec(conn, ack, now),
            Packet::PubRel(ack) => self.on_pubrel(conn, ack),
            Packet::PubComp(ack) => self.on_pubcomp(conn, ack, now),
            Packet::Subscribe(subscribe) => self.on_subscribe(conn, subscribe, now),
            Packet::Unsubscribe(unsubscribe) => self.on_unsubscribe(conn, unsubscribe),
            Packet::PingReq => {
                // [MQTT-3.12.4-1]
                self.send(conn, &Packet::PingResp);
                Ok(())
            }
            Packet::Disconnect(disconnect) => self.on_disconnect(conn, disconnect, now),
            Packet::Auth(auth) => self.on_auth(conn, auth, now),
            // A second CONNECT; the others only a server sends.
            Packet::Connect(_) | Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                Err(ReasonCode::ProtocolError)
            }
        }
    }

    /// The socket is gone, whoever ended it. Frees the identifier.
    pub fn closed(&mut self, conn: ConnId, now: Now) {
        if self.conns.contains(conn.0 as usize) {
            self.forget_partial(conn);
            self.abandon_errand(conn);
            self.detach(conn, lifecycle::Leaving::Abruptly, now);
            if let Some(connection) = self.conns.remove(conn.0 as usize) {
                if connection.counted {
                    self.gate.left(connection.addr.ip());
                }
                self.recycle(connection.out);
            }
        }
    }

    /// Messages from another shard. The part, if there is one, goes to the committer.
    pub fn deliver(&mut self, batch: &Batch, now: Now) -> Option<Part> {
        let foreign = batch.turn.map(|turn| (turn, std::mem::take(&mut self.ticket)));
        self.deliver_batch(batch, now);
        let (turn, own) = foreign?;
        let ticket = std::mem::replace(&mut self.ticket, own);
        Some(self.part_of_foreign(batch.from, turn, ticket))
    }

    /// A connection with bytes to write or to be closed; each is named once until it is touched again.
    pub fn next_touched(&mut self) -> Option<ConnId> {
        while let Some(conn) = self.touched.pop_front() {
            if let Some(connection) = self.conns.get_mut(conn.0 as usize) {
                connection.touched = false;
                return Some(conn);
            }
        }
        None
    }

    /// What is to be written to a connection.
    #[must_use]
    pub fn output(&self, conn: ConnId) -> Output<'_> {
        match self.conns.get(conn.0 as usize) {
            Some(connection) => Output {
                bytes: connection.out.get(connection.written as usize..).unwrap_or_default(),
                close: matches!(connection.state, State::Ending),
            },
            None => Output { bytes: &[], close: true },
        }
    }

    /// The transport has taken `n` bytes. What waited for room is encoded, and the connection touched again.
    pub fn wrote(&mut self, conn: ConnId, n: usize, now: Now) {
        let Some(connection) = self.conns.get_mut(conn.0 as usize) else { return };
        self.counters.bytes_sent += n as u64;
        connection.written += u32::try_from(n).expect("no more than waits, which has a bound");
        let mut empty = Vec::new();
        if connection.pending() == 0 {
            connection.written = 0;
            empty = std::mem::take(&mut connection.out);
        } else if connection.written as usize > connection.pending() {
            connection.out.drain(..connection.written as usize);
            connection.written = 0;
        }
        let has_room = connection.pending() < self.limits.out_bytes_high as usize;
        let slot = connection.session.filter(|_| has_room);
        self.recycle(empty);
        if let Some(slot) = slot
            && self.has_backlog(slot)
        {
            self.pump(slot, now);
        }
    }

    /// A connection whose reading was paused and may go on.
    pub fn next_resumed(&mut self) -> Option<ConnId> {
        while let Some(conn) = self.resumed.pop_front() {
            if self.conns.contains(conn.0 as usize) {
                return Some(conn);
            }
        }
        None
    }

    /// Closes the turn.
    pub fn end_turn(&mut self) -> TurnOutput {
        self.look_at_full(deliver::FULL_LOOKS);
        let mut output = TurnOutput::default();
        let mut durable = 0;
        for (index, batch) in self.batches.iter_mut().enumerate() {
            if !batch.is_empty() {
                durable += u16::from(batch.turn.is_some());
                let full = std::mem::replace(batch, Batch::new(self.id));
                let to = ShardId(u16::try_from(index).expect("as many batches as shards"));
                output.batches.push((to, full));
            }
        }
        output.parts.extend(self.close_ticket(durable));
        output
    }

    /// What was counted. Gauges are as of now.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut counters = self.counters.clone();
        counters.connections = self.conns.len() as u64;
        counters.partial_bytes = self.partials.bytes();
        counters.sessions = self.sessions.len() as u64;
        counters.awaiting_commit = self.waiting.iter().flatten().map(|(_, releases)| releases.len() as u64).sum();
        counters
    }

    /// Uses other bounds from now on. Sessions keep what they were granted.
    pub fn set_limits(&mut self, limits: Arc<Limits>) {
        self.limits = limits;
    }

    /// Publishes as the broker itself (`$SYS`).
    pub fn publish_system(&mut self, topic: TopicName<'_>, payload: &[u8], retain: bool, now: Now) {
        self.publish_own(topic, payload, retain, now);
    }

    /// Encodes a packet for a connection.
    fn send(&mut self, conn: ConnId, packet: &Packet<'_>) {
        let Some(connection) = self.conns.get_mut(conn.0 as usize) else { return };
        let version = connection.version;
        encode(version, packet, writable(connection, &mut self.pool));
        touch(connection, conn, &mut self.touched);
    }

    /// Appends encoded bytes.
    fn send_bytes(&mut self, conn: ConnId, bytes: &[u8]) {
        let Some(connection) = self.conns.get_mut(conn.0 as usize) else { return };
        writable(connection, &mut self.pool).extend_from_slice(bytes);
        touch(connection, conn, &mut self.touched);
    }

    fn touch(&mut self, conn: ConnId) {
        if let Some(connection) = self.conns.get_mut(conn.0 as usize) {
            touch(connection, conn, &mut self.touched);
        }
    }

    fn recycle(&mut self, mut buffer: Vec<u8>) {
        let useful = buffer.capacity() > 0 && buffer.capacity() <= POOL_BUFFER_BYTES_MAX;
        if useful && self.pool.len() < POOL_BUFFERS_MAX {
            buffer.clear();
            self.pool.push(buffer);
        }
    }

    /// The next number of the generator for choices (splitmix64).
    fn choose(&mut self) -> u64 {
        self.choice = self.choice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.choice;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn version(&self, conn: ConnId) -> Version {
        self.conns.get(conn.0 as usize).map_or(Version::V311, |connection| connection.version)
    }
}

/// Largest packet, bytes, from a client that is let in, or from somebody who isn't yet.
#[inline]
fn packet_bytes_max(limits: &Limits, live: bool) -> u32 {
    let most = limits.packet_bytes_max;
    if live { most } else { most.min(limits.connect_bytes_max) }
}

/// Has a connection named by [`Shard::next_touched`].
#[inline]
fn touch(connection: &mut Connection, conn: ConnId, touched: &mut VecDeque<ConnId>) {
    if !connection.touched {
        connection.touched = true;
        touched.push_back(conn);
    }
}

/// The buffer to encode into; an idle connection gets one from the pool.
fn writable<'a>(connection: &'a mut Connection, pool: &mut Vec<Vec<u8>>) -> &'a mut Vec<u8> {
    if connection.out.capacity() == 0 {
        connection.out = pool.pop().unwrap_or_default();
    }
    &mut connection.out
}
