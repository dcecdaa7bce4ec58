//! What each client sees of limits, by version and QoS.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use parking_lot::Mutex;
use turnpike_mqtt::{
    Ack, AckProperties, Connect, ConnectProperties, ConnectReason, Packet, PacketId, Publish, PublishProperties, QoS,
    SubscribeOptions, TopicFilter, TopicName, decode, encode, encode_publish, encode_subscribe, frame,
};

use super::*;
use crate::gate::{Admission, Attempt, DeviceIdentity, Entry, Principal, TakeOver, Verdict};
use crate::limits::Limits;
use crate::meter::{Allowance, Debt, Excess, FlowRate, Meter, Rate};
use crate::shard::testing::{alone, nobody_is_challenged};
use crate::shard::{Next, Peer};

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];
const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
/// Nobody is limited whose client id isn't this.
const FAST: &str = "fast";

/// Ten messages a second, two at once.
fn two_and_ten_a_second() -> FlowRate {
    FlowRate { messages: Rate::new(10, 1_000_000_000, 2).expect("a rate"), ..FlowRate::UNLIMITED }
}

/// Lets everybody in; limits one client.
#[derive(Default)]
struct Limiting {
    allowance: Mutex<Option<Arc<Allowance>>>,
    debt: Mutex<Debt>,
    banned: Mutex<Vec<IpAddr>>,
    crowded: Mutex<Vec<IpAddr>>,
    entered: Mutex<i32>,
    take_overs: Mutex<Vec<(IpAddr, IpAddr)>>,
    refuse_take_overs: Mutex<bool>,
    unwelcome: Mutex<bool>,
    refuse_attempts: Mutex<Option<ConnectReason>>,
}

impl Gate for Limiting {
    fn authenticate(&self, attempt: &Attempt<'_>, _: Now, _: [u8; 32]) -> Verdict {
        let identity = DeviceIdentity::new("p", attempt.client_id);
        Verdict::Granted(Admission::new(Principal::Device(Arc::new(identity))))
    }

    nobody_is_challenged!();

    fn may_publish(&self, _: &Principal, topic: TopicName<'_>) -> bool {
        topic.as_str() != "forbidden"
    }

    fn may_subscribe(&self, _: &Principal, _: TopicFilter<'_>) -> bool {
        true
    }

    fn still_welcome(&self, _: &Principal) -> bool {
        !*self.unwelcome.lock()
    }

    fn accepts(&self, address: IpAddr, _: Now) -> bool {
        !self.banned.lock().contains(&address)
    }

    fn attempted(&self, _: IpAddr, _: Now) -> Result<(), ConnectReason> {
        self.refuse_attempts.lock().map_or(Ok(()), Err)
    }

    fn entered(&self, address: IpAddr, _: Now) -> Entry {
        if self.crowded.lock().contains(&address) {
            return Entry::Closed;
        }
        *self.entered.lock() += 1;
        Entry::Counted
    }

    fn left(&self, _: IpAddr) {
        *self.entered.lock() -= 1;
    }

    fn meter(&self, principal: &Principal, _: Now) -> Option<Meter> {
        let Principal::Device(identity) = principal else { return None };
        let allowance = self.allowance.lock().clone().filter(|_| *identity.device == *FAST)?;
        Some(Meter::new(allowance, None, std::mem::take(&mut *self.debt.lock())))
    }

    fn settle(&self, _: &Principal, meter: &Meter, _: Now) {
        *self.debt.lock() = meter.debt();
    }

    fn taken_over(&self, take_over: TakeOver<'_>, _: Now) -> Result<(), ConnectReason> {
        self.take_overs.lock().push((take_over.from, take_over.to));
        if *self.refuse_take_overs.lock() { Err(ConnectReason::Banned) } else { Ok(()) }
    }
}

/// A client as the shell serves it.
struct Client {
    conn: ConnId,
    version: Version,
    /// Bytes that the shard hasn't consumed.
    kept: Vec<u8>,
    paused: bool,
    closed: bool,
    /// What it has been sent.
    out: Vec<u8>,
}

struct World {
    shard: Shard<Limiting>,
    gate: Arc<Limiting>,
    now: Now,
    clients: Vec<Client>,
}

fn address(last: u8) -> SocketAddr {
    ([192, 0, 2, last], 40_000).into()
}

impl World {
    fn new() -> Self {
        let gate = Arc::new(Limiting::default());
        let shard = alone(&gate, Limits::default(), Now::default());
        Self { shard, gate, now: Now::default(), clients: Vec::new() }
    }

    fn limit(&self, flow: FlowRate, excess: Excess) {
        *self.gate.allowance.lock() = Some(Arc::new(Allowance::new(flow, excess)));
    }

    /// Connects; gives the client's index.
    fn connect(&mut self, version: Version, client_id: &str, from: u8) -> usize {
        self.connect_with(version, client_id, from, 0)
    }

    fn connect_with(&mut self, version: Version, client_id: &str, from: u8, keep_alive_s: u16) -> usize {
        let peer = Peer { addr: address(from), tls: false, certificate: None };
        let conn = self.shard.open(peer, self.now).expect("room");
        self.clients.push(Client { conn, version, kept: Vec::new(), paused: false, closed: false, out: Vec::new() });
        let connect = Connect {
            version,
            bridge: false,
            clean_start: true,
            keep_alive_s,
            client_id,
            will: None,
            user_name: None,
            password: None,
            properties: ConnectProperties::default(),
        };
        let mut bytes = Vec::new();
        encode(version, &Packet::Connect(Box::new(connect)), &mut bytes);
        let index = self.clients.len() - 1;
        self.feed(index, &bytes);
        index
    }

    /// Bytes that come from a client; read unless it is paused.
    fn feed(&mut self, index: usize, bytes: &[u8]) {
        let client = &mut self.clients[index];
        client.kept.extend_from_slice(bytes);
        if client.paused || client.closed {
            return;
        }
        let received = self.shard.receive(client.conn, &client.kept, self.now);
        client.kept.drain(..received.consumed);
        client.paused = received.next == Next::Pause;
        self.settle();
    }

    /// The rest of a turn.
    fn settle(&mut self) {
        while let Some(conn) = self.shard.next_touched() {
            let output = self.shard.output(conn);
            let client = self.clients.iter_mut().rfind(|client| client.conn == conn && !client.closed);
            let client = client.expect("a client");
            client.out.extend_from_slice(output.bytes);
            let (length, close) = (output.bytes.len(), output.close);
            self.shard.wrote(conn, length, self.now);
            if close {
                client.closed = true;
                self.shard.closed(conn, self.now);
            }
        }
        while let Some(conn) = self.shard.next_resumed() {
            let index = self.clients.iter().rposition(|client| client.conn == conn).expect("a client");
            self.clients[index].paused = false;
            self.feed(index, &[]);
        }
        assert!(self.shard.end_turn().parts.is_empty(), "nothing here is durable");
    }

    /// Time passes, as the shell lets it: from one deadline to the next.
    fn pass(&mut self, ms: u64) {
        let until = self.now.mono_ms + ms;
        while let Some(at_ms) = self.shard.next_deadline().filter(|at_ms| *at_ms <= until) {
            self.now.mono_ms = at_ms.max(self.now.mono_ms);
            self.shard.tick(self.now);
            self.settle();
        }
        self.now.mono_ms = until;
    }

    /// Five messages, in one piece.
    fn publish_five(&mut self, index: usize, qos: QoS, topic: &str) {
        let version = self.clients[index].version;
        let bytes: Vec<u8> = (1..=5).flat_map(|n| publish(version, qos, n, topic)).collect();
        self.feed(index, &bytes);
    }

    /// What a client was sent since it was asked last.
    fn heard(&mut self, index: usize) -> Vec<Heard> {
        let client = &mut self.clients[index];
        let bytes = std::mem::take(&mut client.out);
        let (mut rest, mut heard) = (&bytes[..], Vec::new());
        while let Some(found) = frame(rest, u32::MAX).expect("frames") {
            heard.push(match decode(client.version, found).expect("a packet") {
                Packet::ConnAck(ack) => Heard::ConnAck(ack.reason),
                Packet::PubAck(ack) | Packet::PubRec(ack) => Heard::Ack(ack.id.get(), ack.reason),
                Packet::Publish(publish) => Heard::Publish(publish.payload.first().copied().unwrap_or(0)),
                Packet::PingResp => Heard::PingResp,
                Packet::SubAck(_) => Heard::SubAck,
                Packet::Disconnect(disconnect) => Heard::Disconnect(disconnect.reason),
                other => panic!("{other:?}"),
            });
            rest = &rest[found.len()..];
        }
        heard
    }

    /// A client that isn't limited, and subscribes to everything.
    fn listener(&mut self) -> usize {
        let listener = self.connect(Version::V311, "listener", 1);
        let mut bytes = Vec::new();
        let filter = TopicFilter::parse("#").expect("a filter");
        let requests = [(filter, SubscribeOptions::qos(QoS::AtMostOnce))];
        encode_subscribe(Version::V311, id(1), None, requests, &mut bytes);
        self.feed(listener, &bytes);
        self.heard(listener);
        listener
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Heard {
    ConnAck(ConnectReason),
    Ack(u16, ReasonCode),
    Publish(u8),
    PingResp,
    SubAck,
    Disconnect(ReasonCode),
}

fn id(id: u16) -> PacketId {
    PacketId::new(id).expect("not 0")
}

/// The `n`-th message, which says so.
fn publish(version: Version, qos: QoS, n: u8, topic: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let publish = Publish {
        dup: false,
        qos,
        retain: false,
        topic: Some(TopicName::parse(topic).expect("a topic")),
        id: (qos != QoS::AtMostOnce).then(|| id(u16::from(n))),
        properties: PublishProperties::default(),
        payload: &[n],
    };
    encode_publish(version, &publish, &mut bytes);
    bytes
}

fn delivered(numbers: impl IntoIterator<Item = u8>) -> Vec<Heard> {
    numbers.into_iter().map(Heard::Publish).collect()
}

fn acks(qos: QoS, reasons: &[(u16, ReasonCode)]) -> Vec<Heard> {
    match qos {
        QoS::AtMostOnce => Vec::new(),
        QoS::AtLeastOnce | QoS::ExactlyOnce => reasons.iter().map(|(id, reason)| Heard::Ack(*id, *reason)).collect(),
    }
}

/// Five messages at once of a client that may send two: which are acknowledged how, which are delivered, and whether it is read on.
#[test]
fn what_each_client_sees_by_version_and_qos() {
    let choices = [(false, false), (false, true), (true, false), (true, true)]
        .map(|(refuse_acked, drop_unacked)| Excess { refuse_acked, drop_unacked });
    for (version, qos, excess) in VERSIONS
        .into_iter()
        .flat_map(|version| QOS.map(|qos| (version, qos)))
        .flat_map(|(version, qos)| choices.map(|excess| (version, qos, excess)))
    {
        let case = format!("{version:?} {qos:?} {excess:?}");
        let mut world = World::new();
        world.limit(two_and_ten_a_second(), excess);
        let (listener, fast) = (world.listener(), world.connect(version, FAST, 2));
        assert_eq!(world.heard(fast), [Heard::ConnAck(ConnectReason::Success)], "{case}");
        world.publish_five(fast, qos, "t");
        let refused =
            version == Version::V5 && if qos == QoS::AtMostOnce { excess.drop_unacked } else { excess.refuse_acked };
        let (ok, over) = (ReasonCode::Success, ReasonCode::QuotaExceeded);
        assert_eq!(world.heard(listener), delivered(1..=2), "{case}");
        if refused {
            assert!(!world.clients[fast].paused, "{case}");
            assert_eq!(world.heard(fast), acks(qos, &[(1, ok), (2, ok), (3, over), (4, over), (5, over)]), "{case}");
            assert_eq!(world.shard.counters().dropped.rate_limited, 3, "{case}");
            world.pass(1000);
            assert_eq!(
                (world.heard(listener), world.heard(fast)),
                (vec![], vec![]),
                "{case}: what was refused is gone"
            );
            // The identifiers are free again, and there is room.
            let again: Vec<u8> = (3..=4).flat_map(|n| publish(version, qos, n, "t")).collect();
            world.feed(fast, &again);
            assert_eq!(world.heard(listener), delivered(3..=4), "{case}");
            assert_eq!(world.heard(fast), acks(qos, &[(3, ok), (4, ok)]), "{case}");
        } else {
            assert!(world.clients[fast].paused, "{case}");
            assert_eq!(world.heard(fast), acks(qos, &[(1, ok), (2, ok)]), "{case}");
            for n in 3..=5 {
                world.pass(80);
                assert_eq!((world.heard(listener), world.heard(fast)), (vec![], vec![]), "{case}: not yet");
                world.pass(20);
                assert_eq!(world.heard(listener), delivered([n]), "{case}");
                assert_eq!(world.heard(fast), acks(qos, &[(u16::from(n), ok)]), "{case}");
            }
            world.pass(1000);
            assert!(!world.clients[fast].paused && world.clients[fast].kept.is_empty(), "{case}");
            assert_eq!(world.shard.counters().dropped.rate_limited, 0, "{case}");
            assert!(world.shard.counters().throttled > 0, "{case}");
        }
        assert!(!world.clients[fast].closed, "{case}");
    }
}

#[test]
fn bytes_count_as_messages_do() {
    for version in VERSIONS {
        let mut world = World::new();
        let bytes = Rate::new(1000, 1_000_000_000, 1000).expect("a rate");
        world.limit(FlowRate { bytes, ..FlowRate::UNLIMITED }, Excess::default());
        let (listener, fast) = (world.listener(), world.connect(version, FAST, 2));
        let topic = "a/topic/counts/as/well/".repeat(20);
        world.publish_five(fast, QoS::AtMostOnce, &topic[..topic.len() - 1]);
        assert_eq!(world.heard(listener), delivered(1..=3), "the third is the one that is ahead");
        world.pass(300);
        assert_eq!(world.heard(listener), []);
        world.pass(110);
        assert_eq!(world.heard(listener), delivered([4]));
        world.pass(1000);
        assert_eq!(world.heard(listener), delivered([5]));
    }
}

#[test]
fn a_flood_of_pings_is_slowed_whatever_is_configured() {
    for version in VERSIONS {
        let mut world = World::new();
        world.limit(two_and_ten_a_second(), Excess { refuse_acked: true, drop_unacked: true });
        let fast = world.connect(version, FAST, 2);
        world.heard(fast);
        world.feed(fast, &[0xc0, 0].repeat(5));
        assert_eq!(world.heard(fast), [Heard::PingResp, Heard::PingResp]);
        assert_eq!(world.clients[fast].kept.len(), 6);
        world.pass(300);
        assert_eq!(world.heard(fast), [Heard::PingResp, Heard::PingResp, Heard::PingResp]);
    }
}

#[test]
fn a_repetition_of_what_was_taken_is_slowed_and_never_refused() {
    let mut world = World::new();
    world.limit(two_and_ten_a_second(), Excess { refuse_acked: true, drop_unacked: true });
    let fast = world.connect(Version::V5, FAST, 2);
    world.heard(fast);
    let again = publish(Version::V5, QoS::ExactlyOnce, 1, "t").repeat(5);
    world.feed(fast, &again);
    world.pass(1000);
    assert_eq!(world.heard(fast), [const { Heard::Ack(1, ReasonCode::Success) }; 5]);
    assert!(world.shard.counters().throttled > 0);
}

#[test]
fn a_refused_topic_costs_as_much_as_an_allowed_one() {
    for version in VERSIONS {
        let mut world = World::new();
        world.limit(two_and_ten_a_second(), Excess::default());
        let fast = world.connect(version, FAST, 2);
        world.publish_five(fast, QoS::AtMostOnce, "forbidden");
        assert!(world.clients[fast].paused);
        assert_eq!(world.shard.counters().dropped.not_authorized, 2);
    }
}

#[test]
fn the_others_are_served_meanwhile_and_acknowledgements_cost_nothing() {
    let mut world = World::new();
    world.limit(two_and_ten_a_second(), Excess::default());
    let (fast, other) = (world.connect(Version::V311, FAST, 2), world.connect(Version::V311, "other", 2));
    world.publish_five(fast, QoS::AtLeastOnce, "t");
    world.publish_five(other, QoS::AtLeastOnce, "t");
    assert!(world.clients[fast].paused && !world.clients[other].paused);
    world.pass(1000);
    let mut bytes = Vec::new();
    for n in 1..=100 {
        let ack = Ack { id: id(n), reason: ReasonCode::Success, properties: AckProperties::default() };
        encode(Version::V311, &Packet::PubRel(ack), &mut bytes);
    }
    world.feed(fast, &bytes);
    assert!(!world.clients[fast].paused && world.clients[fast].kept.is_empty());
}

#[test]
fn keep_alive_waits_for_whom_is_not_read_and_an_idle_connection_has_no_timer() {
    let mut world = World::new();
    let slow = Rate::new(1, 10_000_000_000, 1).expect("a rate");
    world.limit(FlowRate { messages: slow, ..FlowRate::UNLIMITED }, Excess::default());
    let fast = world.connect_with(Version::V311, FAST, 2, 1);
    assert!(world.shard.pauses.is_empty());
    world.feed(fast, &[0xc0, 0]);
    world.pass(9_990);
    assert!(world.clients[fast].paused && !world.clients[fast].closed);
    world.pass(10);
    assert!(!world.clients[fast].paused && !world.clients[fast].closed, "and counts anew from then");
    assert!(world.shard.pauses.is_empty());
    world.pass(1_490);
    assert!(!world.clients[fast].closed);
    world.pass(200);
    assert!(world.clients[fast].closed);
}

#[test]
fn limits_that_change_hold_for_live_sessions() {
    let mut world = World::new();
    let (listener, fast) = (world.listener(), world.connect(Version::V311, FAST, 2));
    world.publish_five(fast, QoS::AtMostOnce, "t");
    assert_eq!(world.heard(listener), delivered(1..=5), "no limit yet");
    world.limit(two_and_ten_a_second(), Excess::default());
    world.shard.rejudge("p", Some(FAST), world.now);
    world.publish_five(fast, QoS::AtMostOnce, "t");
    assert_eq!(world.heard(listener), delivered(1..=2));
    world.shard.remeter(world.now);
    world.settle();
    assert_eq!(world.heard(listener), [], "asking again forgives nothing");
    *world.gate.allowance.lock() = None;
    world.shard.remeter(world.now);
    world.settle();
    assert_eq!(world.heard(listener), delivered(3..=5), "no limit any more");
    world.publish_five(fast, QoS::AtMostOnce, "t");
    assert_eq!(world.heard(listener), delivered(1..=5));
    world.pass(10_000);
    assert!(world.shard.pauses.is_empty() && !world.clients[fast].paused);
}

#[test]
fn reconnecting_buys_nothing() {
    for goes_cleanly in [true, false] {
        let mut world = World::new();
        world.limit(two_and_ten_a_second(), Excess::default());
        let listener = world.listener();
        let fast = world.connect(Version::V311, FAST, 2);
        world.feed(fast, &publish(Version::V311, QoS::AtMostOnce, 1, "t"));
        world.feed(fast, &publish(Version::V311, QoS::AtMostOnce, 2, "t"));
        if goes_cleanly {
            world.pass(50);
            world.shard.closed(world.clients[fast].conn, world.now);
            world.clients[fast].closed = true;
        }
        let again = world.connect(Version::V311, FAST, 2);
        assert!(world.clients[fast].closed);
        world.heard(listener);
        world.publish_five(again, QoS::AtMostOnce, "t");
        assert_eq!(world.heard(listener), [], "not read before what was owed is paid");
        assert!(world.clients[again].paused);
        world.pass(10_000);
        assert_eq!(world.heard(listener), delivered(1..=5));
    }
}

#[test]
fn who_may_be_refused_waits_for_what_it_owes_only_with_what_is_slowed() {
    let mut world = World::new();
    let excess = Excess { refuse_acked: true, drop_unacked: false };
    world.limit(two_and_ten_a_second(), excess);
    let listener = world.listener();
    let fast = world.connect(Version::V5, FAST, 2);
    world.publish_five(fast, QoS::AtLeastOnce, "t");
    assert_eq!(world.heard(listener), delivered(1..=2));
    let again = world.connect(Version::V5, FAST, 2);
    world.heard(again);
    world.publish_five(again, QoS::AtLeastOnce, "t");
    assert_eq!(world.heard(again).len(), 5, "each is answered");
    assert_eq!(world.heard(listener), [], "all of them with a refusal");
    assert!(!world.clients[again].paused);
    world.publish_five(again, QoS::AtMostOnce, "t");
    assert!(world.clients[again].paused);
    assert_eq!(world.heard(listener), [], "the first of them isn't taken either");
    world.pass(10_000);
    assert_eq!(world.heard(listener), delivered(1..=5), "and none is lost");
}

#[test]
fn a_pause_that_was_another_connections_ends_nobodys() {
    let mut world = World::new();
    let slow = Rate::new(1, 10_000_000_000, 1).expect("a rate");
    world.limit(FlowRate { messages: slow, ..FlowRate::UNLIMITED }, Excess::default());
    let first = world.connect(Version::V311, FAST, 2);
    world.feed(first, &[0xc0, 0]);
    world.shard.closed(world.clients[first].conn, world.now);
    world.clients[first].closed = true;
    world.pass(5_000);
    let second = world.connect(Version::V311, FAST, 2);
    assert_eq!(world.clients[second].conn, world.clients[first].conn, "the place is used again");
    world.feed(second, &[0xc0, 0]);
    world.pass(14_900);
    assert!(world.clients[second].paused, "five that were owed, and ten");
    world.pass(100);
    assert!(!world.clients[second].paused);
}

#[test]
fn banned_addresses_and_crowds_are_turned_away_without_a_word() {
    let mut world = World::new();
    let (banned, crowded) = (address(66), address(67));
    world.gate.banned.lock().push(banned.ip());
    world.gate.crowded.lock().push(crowded.ip());
    assert!(!world.shard.accepts(banned.ip(), world.now) && world.shard.accepts(address(1).ip(), world.now));
    let open = |world: &mut World, addr| world.shard.open(Peer { addr, tls: false, certificate: None }, world.now);
    assert_eq!(open(&mut world, crowded), None);
    assert_eq!(world.shard.counters().turned_away, 2);
    let client = world.connect(Version::V311, "one", 1);
    assert_eq!(*world.gate.entered.lock(), 1);
    world.shard.closed(world.clients[client].conn, world.now);
    world.shard.closed(world.clients[client].conn, world.now);
    assert_eq!(*world.gate.entered.lock(), 0, "who entered leaves once");
}

#[test]
fn connects_above_a_limit_are_told_in_the_words_of_their_version() {
    for reason in [ConnectReason::QuotaExceeded, ConnectReason::ConnectionRateExceeded] {
        let mut world = World::new();
        *world.gate.refuse_attempts.lock() = Some(reason);
        let [three, four, five] = VERSIONS.map(|version| {
            let client = world.connect(version, "one", 1);
            assert!(world.clients[client].closed);
            std::mem::take(&mut world.clients[client].out)
        });
        assert_eq!((&three[..], &four[..]), (&[0x20, 2, 0, 3][..], &[0x20, 2, 0, 3][..]));
        assert_eq!(five, [0x20, 3, 0, ReasonCode::from(reason) as u8, 0]);
        assert_eq!(*world.gate.entered.lock(), 0);
    }
}

#[test]
fn a_take_over_is_told_with_both_addresses_and_may_be_refused() {
    for (version, unwelcome) in VERSIONS.into_iter().flat_map(|version| [(version, false), (version, true)]) {
        let mut world = World::new();
        let first = world.connect(version, "one", 1);
        let second = world.connect(version, "one", 2);
        assert_eq!(*world.gate.take_overs.lock(), [(address(1).ip(), address(2).ip())]);
        assert!(world.clients[first].closed && !world.clients[second].closed);
        *world.gate.refuse_take_overs.lock() = true;
        *world.gate.unwelcome.lock() = unwelcome;
        world.heard(second);
        let third = world.connect(version, "one", 3);
        let said = if version == Version::V5 { ConnectReason::Banned } else { ConnectReason::NotAuthorized };
        assert_eq!(world.heard(third), [Heard::ConnAck(said)], "{version:?}");
        assert_eq!(world.clients[second].closed, unwelcome, "it stays unless it is welcome no more");
        let told = unwelcome && version == Version::V5;
        assert_eq!(world.heard(second), Vec::from_iter(told.then_some(Heard::Disconnect(ReasonCode::NotAuthorized))));
    }
}

#[test]
fn limits_cost_an_idle_connection_little() {
    // A meter is 32 bytes more, where there is one.
    assert!(size_of::<crate::connection::Connection>() <= 160, "{}", size_of::<crate::connection::Connection>());
    assert!(size_of::<crate::session::Session>() <= 176, "{}", size_of::<crate::session::Session>());
}
