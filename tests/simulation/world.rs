//! Shards, store, clients, and everything that can happen between them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use turnpike_core::batch::Batch;
use turnpike_core::clock::Now;
use turnpike_core::durable::{RecoveredSession, Recovery};
use turnpike_core::gate::{Admission, Answer, Attempt, ChallengeState, Gate, Principal, Question, Verdict};
use turnpike_core::ids::{ConnId, ShardId, Ticket};
use turnpike_core::limits::Limits;
use turnpike_core::message::Message;
use turnpike_core::shard::{InquiryId, Next, Peer, Setup, Shard, home};
use turnpike_core::shared::Shared;
use turnpike_mqtt::{ConnectReason, QoS, TopicFilter, TopicName};
use turnpike_store::Store;
use turnpike_store::group::{Assembler, Complete};
use turnpike_store::memory::MemoryStore;

use crate::client::Client;

/// Publishers come first.
const PUBLISHERS: usize = 3;
const CLIENTS: usize = 6;

/// Lets everybody do everything; every other one after somebody was asked.
#[derive(Default)]
struct Open(AtomicU32);

impl Gate for Open {
    fn authenticate(&self, _: &Attempt<'_>, _: Now, _: [u8; 32]) -> Verdict {
        match self.0.fetch_add(1, Relaxed) % 2 {
            0 => Verdict::Granted(Admission::new(Principal::Anonymous)),
            _ => Verdict::Pending(Question::new(())),
        }
    }
    fn conclude(&self, _: &Attempt<'_>, _: Answer, _: Now) -> Verdict {
        Verdict::Granted(Admission::new(Principal::Anonymous))
    }
    fn proceed(&self, _: &Attempt<'_>, _: &ChallengeState, _: &[u8], _: Now) -> Verdict {
        Verdict::Refused(ConnectReason::BadAuthenticationMethod, "bad_method")
    }
    fn may_publish(&self, _: &Principal, _: TopicName<'_>) -> bool {
        true
    }
    fn may_subscribe(&self, _: &Principal, _: TopicFilter<'_>) -> bool {
        true
    }
    fn still_welcome(&self, _: &Principal) -> bool {
        true
    }
}

/// The two ends of a client's connection.
struct Link {
    shard: usize,
    conn: ConnId,
    /// Bytes that the shard hasn't consumed.
    kept: Vec<u8>,
    paused: bool,
}

/// What the process holds: all of it is lost in a crash.
struct Process {
    shards: Vec<Shard<Open>>,
    links: BTreeMap<usize, Link>,
    /// Batches on their way, by sender and receiver.
    transit: BTreeMap<(usize, usize), VecDeque<Batch>>,
    assembler: Assembler,
    complete: VecDeque<Complete>,
    /// CONNECTs about which somebody is asked: the shard, and which.
    asked: VecDeque<(usize, InquiryId)>,
    /// Commits that a shard hasn't heard of.
    news: Vec<VecDeque<Vec<Ticket>>>,
}

/// Everything.
pub(crate) struct World {
    random: u64,
    now: Now,
    store: MemoryStore,
    shards: u16,
    process: Process,
    clients: Vec<Client>,
    crashes: u32,
}

#[derive(Default)]
struct Recovered(Vec<RecoveredSession>);

impl Recovery for Recovered {
    fn session(&mut self, session: RecoveredSession) {
        self.0.push(session);
    }
    fn retained(&mut self, _: Message) {}
    fn registry(&mut self, _: &[u8], _: &[u8]) {}
}

fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Process {
    fn start(store: &mut MemoryStore, shards: u16, seed: u64, now: Now) -> Self {
        let limits = Arc::new(Limits {
            receive_max: 64,
            inflight_max: 5,
            connect_timeout_ms: u32::MAX,
            answer_timeout_ms: u32::MAX,
            packet_time_max_s: u32::MAX,
            ..Limits::default()
        });
        let (shared, gate) = (Arc::new(Shared::new(&limits)), Arc::new(Open::default()));
        let mut recovered = Recovered::default();
        let summary = store.recover(&mut recovered).expect("memory doesn't fail");
        shared.continue_from(summary.next_session_key, summary.next_message_id);
        let mut process = Self {
            shards: (0..shards)
                .map(|id| {
                    let mut state = seed ^ u64::from(id);
                    Shard::new(Setup {
                        id: ShardId(id),
                        shards,
                        shared: Arc::clone(&shared),
                        gate: Arc::clone(&gate),
                        limits: Arc::clone(&limits),
                        entropy: Box::new(move |bytes| bytes.fill_with(|| splitmix(&mut state) as u8)),
                        now,
                    })
                })
                .collect(),
            links: BTreeMap::new(),
            transit: BTreeMap::new(),
            assembler: Assembler::default(),
            complete: VecDeque::new(),
            asked: VecDeque::new(),
            news: vec![VecDeque::new(); usize::from(shards)],
        };
        for session in recovered.0 {
            let shard = home(session.record.client.as_str(), shards);
            process.shards[usize::from(shard.0)].restore(session, now);
        }
        process
    }

    /// Ends a shard's turn: what it has to say goes on its way.
    fn end_turn(&mut self, shard: usize) {
        while let Some(inquiry) = self.shards[shard].next_inquiry() {
            self.asked.push_back((shard, inquiry.id));
        }
        let output = self.shards[shard].end_turn();
        for (to, batch) in output.batches {
            self.transit.entry((shard, usize::from(to.0))).or_default().push_back(batch);
        }
        for part in output.parts {
            self.assembler.add(part, &mut self.complete);
        }
    }
}

impl World {
    pub(crate) fn new(seed: u64, shards: u16) -> Self {
        let now = Now { mono_ms: 1_000, unix_ms: 1_700_000_000_000 };
        let mut store = MemoryStore::new();
        let process = Process::start(&mut store, shards, seed, now);
        let clients = (0..CLIENTS).map(|index| Client::new(index, index >= PUBLISHERS)).collect();
        Self { random: seed, now, store, shards, process, clients, crashes: 0 }
    }

    fn below(&mut self, n: usize) -> usize {
        (splitmix(&mut self.random) % n as u64) as usize
    }

    /// One thing happens.
    pub(crate) fn step(&mut self) {
        let client = self.below(CLIENTS);
        match self.below(100) {
            0 if self.below(16) == 0 => self.crash(),
            0 if self.below(3) != 0 => {}
            0 => self.break_link(client),
            1..=9 => self.connect(client),
            10..=24 => self.publish(client),
            25..=34 => self.clients[client].acknowledge(),
            35..=54 => self.carry_to_broker(client),
            55..=69 => self.carry_to_client(client),
            70..=79 => self.carry_batch(),
            80..=87 => self.commit(),
            88..=93 => self.tell_commit(),
            94..=96 => self.answer(),
            _ => self.tick(),
        }
    }

    fn crash(&mut self) {
        self.crashes += 1;
        for client in &mut self.clients {
            client.disconnected();
        }
        self.process = Process::start(&mut self.store, self.shards, self.random, self.now);
    }

    fn break_link(&mut self, client: usize) {
        if let Some(link) = self.process.links.remove(&client) {
            self.process.shards[link.shard].closed(link.conn, self.now);
            self.process.end_turn(link.shard);
        }
        self.clients[client].disconnected();
    }

    fn connect(&mut self, client: usize) {
        if self.process.links.contains_key(&client) {
            return;
        }
        let shard = self.below(usize::from(self.shards));
        if let Some(conn) = self.process.shards[shard].open(peer(), self.now) {
            self.process.links.insert(client, Link { shard, conn, kept: Vec::new(), paused: false });
            self.clients[client].connect();
        }
    }

    /// Publishers wait until everybody has subscribed, so that each message is owed to all.
    fn publish(&mut self, client: usize) {
        let ready = self.clients.iter().skip(PUBLISHERS).all(|client| client.subscribed);
        if client < PUBLISHERS && ready {
            let qos = if self.below(2) == 0 { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
            self.clients[client].publish(qos);
        }
    }

    /// Some bytes arrive at the broker, perhaps half a packet.
    fn carry_to_broker(&mut self, client: usize) {
        let available = self.clients[client].out.len();
        if available == 0 {
            return;
        }
        let n = self.below(available) + 1;
        let Some(link) = self.process.links.get_mut(&client) else { return };
        link.kept.extend(self.clients[client].out.drain(..n));
        self.feed(client);
    }

    fn feed(&mut self, client: usize) {
        let Some(link) = self.process.links.get_mut(&client) else { return };
        if link.paused {
            return;
        }
        let shard = link.shard;
        let received = self.process.shards[shard].receive(link.conn, &link.kept, self.now);
        link.kept.drain(..received.consumed);
        match received.next {
            Next::Continue => {}
            Next::Pause => link.paused = true,
            Next::Ending => panic!("the broker ends the connection of client {client}: {:02x?}", link.kept),
            Next::Move(to) => {
                self.process.shards[shard].closed(link.conn, self.now);
                link.shard = usize::from(to.0);
                link.conn = self.process.shards[link.shard].open(peer(), self.now).expect("within limits");
                self.process.end_turn(shard);
                self.feed(client);
                return;
            }
        }
        self.process.end_turn(shard);
        self.resume(shard);
    }

    fn resume(&mut self, shard: usize) {
        while let Some(conn) = self.process.shards[shard].next_resumed() {
            let resumed = self.process.links.iter_mut().find(|(_, link)| link.shard == shard && link.conn == conn);
            if let Some((&client, link)) = resumed {
                link.paused = false;
                self.feed(client);
            }
        }
    }

    /// Some bytes arrive at the client.
    fn carry_to_client(&mut self, client: usize) {
        let Some(link) = self.process.links.get(&client) else { return };
        let (shard, conn) = (link.shard, link.conn);
        let output = self.process.shards[shard].output(conn);
        assert!(!output.close, "the broker closes the connection of client {client}");
        if output.bytes.is_empty() {
            return;
        }
        let bytes = output.bytes.to_vec();
        let n = self.below(bytes.len()) + 1;
        self.process.shards[shard].wrote(conn, n, self.now);
        self.clients[client].receive(&bytes[..n]);
        self.process.end_turn(shard);
    }

    fn carry_batch(&mut self) {
        let waiting: Vec<_> =
            self.process.transit.iter().filter(|(_, queue)| !queue.is_empty()).map(|(&way, _)| way).collect();
        if waiting.is_empty() {
            return;
        }
        let way = waiting[self.below(waiting.len())];
        let batch = self.process.transit.get_mut(&way).and_then(VecDeque::pop_front).expect("one is waiting");
        if let Some(part) = self.process.shards[way.1].deliver(&batch, self.now) {
            self.process.assembler.add(part, &mut self.process.complete);
        }
        self.process.end_turn(way.1);
    }

    /// A group commit of some complete tickets.
    fn commit(&mut self) {
        let available = self.process.complete.len();
        if available == 0 {
            return;
        }
        let n = self.below(available) + 1;
        let group: Vec<Complete> = self.process.complete.drain(..n).collect();
        let parts: Vec<_> = group.iter().flat_map(|complete| complete.parts.iter().cloned()).collect();
        self.store.commit(&parts).expect("memory doesn't fail");
        let tickets: Vec<Ticket> = group.iter().map(|complete| complete.ticket).collect();
        for news in &mut self.process.news {
            news.push_back(tickets.clone());
        }
    }

    fn tell_commit(&mut self) {
        let shard = self.below(usize::from(self.shards));
        if let Some(tickets) = self.process.news[shard].pop_front() {
            self.process.shards[shard].committed(&tickets, self.now);
            self.process.end_turn(shard);
            self.resume(shard);
        }
    }

    /// Somebody answers about one of the CONNECTs, whose connection may have gone.
    fn answer(&mut self) {
        if self.process.asked.is_empty() {
            return;
        }
        let which = self.below(self.process.asked.len());
        let (shard, id) = self.process.asked.remove(which).expect("one of them");
        self.process.shards[shard].answered(id, Answer::new(()), self.now);
        self.process.end_turn(shard);
        self.resume(shard);
    }

    fn tick(&mut self) {
        let ms = self.below(5_000) as u64;
        self.now = Now { mono_ms: self.now.mono_ms + ms, unix_ms: self.now.unix_ms + ms };
        for shard in 0..usize::from(self.shards) {
            self.process.shards[shard].tick(self.now);
            self.process.end_turn(shard);
        }
    }

    /// No more faults and no more messages: everything under way comes to its end.
    pub(crate) fn settle(&mut self) {
        for _ in 0..20_000 {
            for client in 0..CLIENTS {
                self.connect(client);
                self.carry_to_broker(client);
                self.carry_to_client(client);
                self.clients[client].acknowledge();
            }
            self.carry_batch();
            self.commit();
            self.tell_commit();
            self.answer();
            if self.is_quiet() {
                return;
            }
        }
        panic!("the broker doesn't come to rest");
    }

    fn is_quiet(&self) -> bool {
        let process = &self.process;
        self.clients.iter().all(|client| client.is_idle() && client.out.is_empty())
            && process.transit.values().all(VecDeque::is_empty)
            && process.complete.is_empty()
            && process.asked.is_empty()
            && process.news.iter().all(VecDeque::is_empty)
            && process.links.values().all(|link| process.shards[link.shard].output(link.conn).bytes.is_empty())
            && process.shards.iter().all(|shard| shard.counters().queued_messages == 0)
    }

    /// So that a run of no messages or no crash isn't taken for a good one.
    pub(crate) fn summary(&self) -> (usize, u32) {
        (self.clients.iter().map(|client| client.acknowledged.len()).sum(), self.crashes)
    }

    /// What must hold.
    pub(crate) fn check(&self) {
        let acknowledged: Vec<_> = self.clients.iter().flat_map(|client| client.acknowledged.iter().copied()).collect();
        for subscriber in self.clients.iter().skip(PUBLISHERS) {
            let mut counts = BTreeMap::<_, u32>::new();
            for (number, _) in &subscriber.delivered {
                *counts.entry(*number).or_default() += 1;
            }
            for (number, qos) in &acknowledged {
                let count = counts.get(number).copied().unwrap_or(0);
                assert!(count > 0, "{}: {number:?} was acknowledged and never delivered", subscriber.id);
                assert!(*qos == QoS::AtLeastOnce || count == 1, "{}: {number:?} came {count} times", subscriber.id);
            }
            for (number, qos) in &subscriber.delivered {
                assert!(*qos == QoS::AtLeastOnce || counts[number] == 1, "{}: {number:?} came twice", subscriber.id);
            }
            check_order(subscriber);
        }
        for shard in &self.process.shards {
            assert_eq!(shard.counters().awaiting_commit, 0);
        }
    }
}

/// First deliveries of one publisher's messages of one QoS are in the order of their numbers.
fn check_order(subscriber: &Client) {
    let mut seen = BTreeSet::new();
    let mut last = BTreeMap::new();
    for &((publisher, number), qos) in &subscriber.delivered {
        if seen.insert((publisher, number)) {
            let before = last.insert((publisher, qos), number);
            assert!(before.is_none_or(|before| before < number), "{}: {number} after {before:?}", subscriber.id);
        }
    }
}

fn peer() -> Peer {
    Peer { addr: SocketAddr::from(([127, 0, 0, 1], 1)), tls: false, certificate: None }
}
