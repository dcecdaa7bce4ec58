//! Users, services and devices of one shard, while what they may do changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use turnpike_mqtt::{Packet, TopicName, Version, decode, frame};

use super::*;
use crate::durable::{Op, Part};
use crate::feed::Feed;
use crate::gate::{Admission, Attempt, DeviceIdentity, ServiceIdentity, UserIdentity, Verdict};
use crate::ids::ConnId;
use crate::limits::Limits;
use crate::shard::testing::{alone, nobody_is_challenged};
use crate::shard::{Next, Peer};

const NOW: Now = Now { mono_ms: 1_000, unix_ms: 1_700_000_000_000 };

/// User names are `u/NAME`, `s/KEY`, `d/NAME`. All is allowed but what is forbidden by the beginning of a topic.
#[derive(Default)]
struct Rules {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    forbidden: BTreeSet<(String, String)>,
    /// What waits on these isn't handed out, though the filters are allowed.
    unreceived: BTreeSet<(String, String)>,
    unwelcome: BTreeSet<String>,
    networks: BTreeMap<String, u8>,
    feeds: BTreeMap<String, Vec<String>>,
    asked: u32,
}

fn principal(user_name: &str) -> Principal {
    let (kind, name) = user_name.split_once('/').expect("a kind and a name");
    match kind {
        "u" => Principal::User(Arc::new(UserIdentity { app: "a".into(), user: name.into(), by: None })),
        "s" => Principal::Service(Arc::new(ServiceIdentity { key: name.into() })),
        _ => Principal::Device(Arc::new(DeviceIdentity::new("p", name))),
    }
}

fn name(principal: &Principal) -> String {
    match principal {
        Principal::User(identity) => format!("u/{}", identity.user),
        Principal::Service(identity) => format!("s/{}", identity.key),
        Principal::Device(identity) => format!("d/{}", identity.device),
        Principal::Anonymous | Principal::Platform(_) | Principal::Broker => "broker".to_owned(),
    }
}

impl Rules {
    fn may(&self, principal: &Principal, topic: &str) -> bool {
        let name = name(principal);
        let state = self.state.lock();
        !state.forbidden.iter().any(|(who, what)| *who == name && topic.starts_with(what.as_str()))
    }
}

impl Gate for Rules {
    fn authenticate(&self, attempt: &Attempt<'_>, _: Now, _: [u8; 32]) -> Verdict {
        Verdict::Granted(Admission::new(principal(attempt.user_name.expect("a name"))))
    }
    nobody_is_challenged!();
    fn may_publish(&self, principal: &Principal, topic: TopicName<'_>) -> bool {
        self.may(principal, topic.as_str())
    }
    fn may_subscribe(&self, principal: &Principal, filter: TopicFilter<'_>) -> bool {
        self.may(principal, filter.as_str())
    }
    fn may_receive(&self, principal: &Principal, topic: TopicName<'_>) -> bool {
        let one = (name(principal), topic.as_str().to_owned());
        self.may(principal, topic.as_str()) && !self.state.lock().unreceived.contains(&one)
    }
    fn still_welcome(&self, principal: &Principal) -> bool {
        !self.state.lock().unwelcome.contains(&name(principal))
    }
    fn still_welcome_from(&self, principal: &Principal, peer: Option<SocketAddr>) -> bool {
        let network = self.state.lock().networks.get(&name(principal)).copied();
        let inside = match (network, peer) {
            (Some(network), Some(SocketAddr::V4(peer))) => peer.ip().octets()[0] == network,
            _ => true,
        };
        inside && self.still_welcome(principal)
    }
    fn has_feed(&self, principal: &Principal) -> bool {
        self.state.lock().feeds.contains_key(&name(principal))
    }
    fn feed(&self, principal: &Principal, topic: TopicName<'_>, feed: &mut Feed) {
        let mut state = self.state.lock();
        state.asked += 1;
        for user in state.feeds.get(&name(principal)).into_iter().flatten() {
            feed.add(user, topic);
        }
    }
}

struct World {
    shard: Shard<Rules>,
    gate: Arc<Rules>,
    parts: Vec<Part>,
}

fn world() -> World {
    let gate = Arc::new(Rules::default());
    let shard = alone(&gate, Limits::default(), NOW);
    World { shard, gate, parts: Vec::new() }
}

fn text(text: &str) -> Vec<u8> {
    [&u16::try_from(text.len()).expect("short").to_be_bytes()[..], text.as_bytes()].concat()
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let length = u8::try_from(body.len()).ok().filter(|length| *length < 128).expect("short");
    [&[first, length][..], body].concat()
}

/// The topic of a PUBLISH.
fn topic(bytes: &[u8]) -> Option<String> {
    match decode(Version::V311, frame(bytes, u32::MAX).ok()??) {
        Ok(Packet::Publish(publish)) => publish.topic.map(|topic| topic.as_str().to_owned()),
        _ => None,
    }
}

impl World {
    fn connect_with(&mut self, user_name: &str, clean: bool, will: Option<&str>) -> ConnId {
        let peer = Peer { addr: SocketAddr::from(([10, 0, 0, 1], 1)), tls: true, certificate: None };
        let conn = self.shard.open(peer, NOW).expect("room");
        let flags = 0x80 | if clean { 2 } else { 0 } | if will.is_some() { 4 } else { 0 };
        let mut body = [&b"\x00\x04MQTT\x04"[..], &[flags, 0, 0]].concat();
        body.extend(text(user_name));
        if let Some(topic) = will {
            body.extend(text(topic));
            body.extend(text("gone"));
        }
        body.extend(text(user_name));
        self.receive(conn, &packet(0x10, &body));
        self.commit();
        let said = self.said(conn);
        assert!(matches!(said.first().map(|bytes| bytes[0]), Some(0x20)), "CONNACK");
        conn
    }

    fn connect(&mut self, user_name: &str) -> ConnId {
        self.connect_with(user_name, true, None)
    }

    fn receive(&mut self, conn: ConnId, bytes: &[u8]) {
        let next = self.shard.receive(conn, bytes, NOW).next;
        assert!(matches!(next, Next::Continue | Next::Pause), "{next:?}");
    }

    /// Topics of what is delivered at once.
    fn subscribe(&mut self, conn: ConnId, filter: &str, qos: u8) -> Vec<String> {
        let body = [&[0, 1][..], &text(filter), &[qos]].concat();
        self.receive(conn, &packet(0x82, &body));
        self.commit();
        let said = self.said(conn);
        assert!(said.iter().any(|bytes| bytes[0] == 0x90 && bytes.last() == Some(&qos)), "SUBACK");
        said.iter().filter_map(|bytes| topic(bytes)).collect()
    }

    fn publish(&mut self, conn: ConnId, topic: &str, qos: u8) {
        let id: &[u8] = if qos > 0 { &[0, 9] } else { &[] };
        self.receive(conn, &packet(0x30 | qos << 1, &[&text(topic), id, b"x"].concat()));
    }

    /// Everything is on disk.
    fn commit(&mut self) {
        loop {
            let parts = self.shard.end_turn().parts;
            if parts.is_empty() {
                break;
            }
            let tickets: Vec<_> = parts.iter().map(|part| part.ticket).collect();
            self.parts.extend(parts);
            self.shard.committed(&tickets, NOW);
        }
    }

    fn said(&mut self, conn: ConnId) -> Vec<Vec<u8>> {
        let mut bytes = self.shard.output(conn).bytes.to_vec();
        self.shard.wrote(conn, bytes.len(), NOW);
        let mut packets = Vec::new();
        while let Ok(Some(found)) = frame(&bytes, u32::MAX) {
            let rest = bytes.split_off(found.len());
            packets.push(std::mem::replace(&mut bytes, rest));
        }
        packets
    }

    /// Topics of what was delivered.
    fn delivered(&mut self, conn: ConnId) -> Vec<String> {
        self.said(conn).iter().filter_map(|bytes| topic(bytes)).collect()
    }

    fn change(&mut self, who: &str, f: impl FnOnce(&mut State)) {
        f(&mut self.gate.state.lock());
        self.shard.judge_again(&Concern::Principal(principal(who)), NOW);
        self.commit();
    }

    fn forbid(&mut self, who: &str, what: &str) {
        self.change(who, |state| {
            state.forbidden.insert((who.to_owned(), what.to_owned()));
        });
    }

    fn is_closed(&self, conn: ConnId) -> bool {
        self.shard.output(conn).close
    }

    fn owed(&self) -> i64 {
        let count = |op: &Op| match op {
            Op::OwedPut { .. } => 1,
            Op::OwedDelete { .. } => -1,
            _ => 0,
        };
        self.parts.iter().flat_map(|part| &part.ops).map(count).sum()
    }
}

#[test]
fn what_a_device_publishes_reaches_the_feeds_of_its_users() {
    let mut world = world();
    world.gate.state.lock().feeds.insert("d/fed".to_owned(), vec!["a:1".to_owned(), "a:2".to_owned()]);
    let (fed, plain) = (world.connect("d/fed"), world.connect("d/plain"));
    let (one, other) = (world.connect("u/1"), world.connect_with("u/2", false, None));
    world.subscribe(one, "user/a:1/#", 0);
    world.subscribe(one, "dev/p/fed/up/#", 0);
    world.subscribe(other, "user/a:2/dev/p/+/up/x", 1);
    world.publish(plain, "dev/p/plain/up/x", 1);
    assert_eq!(world.gate.state.lock().asked, 0, "whoever has no feed isn't asked for");
    world.publish(fed, "dev/p/fed/up/x", 1);
    assert!(world.said(fed).is_empty(), "the acknowledgement waits for what a durable feed is owed");
    world.commit();
    assert_eq!(world.said(fed), [vec![0x40, 2, 0, 9]]);
    assert_eq!(world.delivered(one), ["dev/p/fed/up/x", "user/a:1/dev/p/fed/up/x"]);
    assert_eq!(world.delivered(other), ["user/a:2/dev/p/fed/up/x"]);
    // A binding comes, another goes: what is asked with each message holds at once, the flag when it is judged.
    world.gate.state.lock().feeds.insert("d/fed".to_owned(), vec!["a:2".to_owned()]);
    world.publish(fed, "dev/p/fed/up/x", 0);
    assert_eq!(world.delivered(one), ["dev/p/fed/up/x"]);
    world.change("d/plain", |state| {
        state.feeds.insert("d/plain".to_owned(), vec!["a:1".to_owned()]);
    });
    world.publish(plain, "dev/p/plain/up/x", 0);
    assert_eq!(world.delivered(one), ["user/a:1/dev/p/plain/up/x"]);
    world.change("d/plain", |state| {
        state.feeds.remove("d/plain");
    });
    let asked = world.gate.state.lock().asked;
    world.publish(plain, "dev/p/plain/up/x", 0);
    assert_eq!((world.delivered(one).len(), world.gate.state.lock().asked), (0, asked));
}

#[test]
fn a_device_s_will_reaches_the_feeds_too_and_nothing_is_retained_there() {
    let mut world = world();
    world.gate.state.lock().feeds.insert("d/fed".to_owned(), vec!["a:1".to_owned()]);
    let fed = world.connect_with("d/fed", true, Some("dev/p/fed/up/gone"));
    let user = world.connect("u/1");
    world.subscribe(user, "user/a:1/#", 0);
    world.receive(fed, &packet(0x31, &[&text("dev/p/fed/up/state")[..], b"on"].concat()));
    let delivered = world.said(user);
    assert_eq!(delivered.len(), 1);
    assert_eq!(delivered[0][0] & 1, 0, "not as retained");
    world.shard.closed(fed, NOW);
    assert_eq!(world.delivered(user), ["user/a:1/dev/p/fed/up/gone"]);
    let late = world.connect("u/1b");
    assert!(world.subscribe(late, "user/a:1/#", 0).is_empty());
    assert_eq!(world.subscribe(late, "dev/p/fed/up/#", 0), ["dev/p/fed/up/state"]);
}

#[test]
fn while_the_store_fails_nothing_is_taken_that_a_feed_is_owed() {
    let mut world = world();
    world.gate.state.lock().feeds.insert("d/fed".to_owned(), vec!["a:1".to_owned()]);
    let (fed, user) = (world.connect("d/fed"), world.connect_with("u/1", false, None));
    world.subscribe(user, "user/a:1/#", 1);
    world.shard.shared.set_store_serving(false);
    world.publish(fed, "dev/p/fed/up/x", 0);
    assert_eq!(world.delivered(user).len(), 1, "QoS 0 needs no store");
    let body = [&text("dev/p/fed/up/x")[..], &[0, 9], b"x"].concat();
    assert_eq!(world.shard.receive(fed, &packet(0x32, &body), NOW).next, Next::Ending);
    assert_eq!(world.owed(), 0);
}

#[test]
fn a_subscription_whose_right_is_gone_is_taken_away() {
    let mut world = world();
    let (user, other) = (world.connect("u/1"), world.connect("u/2"));
    let device = world.connect("d/1");
    for conn in [user, other] {
        world.subscribe(conn, "dev/p/1/up/#", 0);
    }
    world.subscribe(user, "dev/p/2/up/#", 0);
    world.forbid("u/1", "dev/p/1/");
    world.publish(device, "dev/p/1/up/x", 0);
    world.publish(device, "dev/p/2/up/x", 0);
    assert_eq!(world.delivered(user), ["dev/p/2/up/x"]);
    assert_eq!(world.delivered(other), ["dev/p/1/up/x"], "the others keep theirs");
    assert!(!world.is_closed(user));
    world.change("u/1", |state| {
        state.unwelcome.insert("u/1".to_owned());
    });
    assert!(world.is_closed(user) && !world.is_closed(other));
}

#[test]
fn a_concern_reaches_all_of_an_app_and_nobody_else() {
    let mut world = world();
    let conns = ["u/1", "u/2", "s/k", "d/1"].map(|name| world.connect(name));
    world.gate.state.lock().unwelcome.extend(["u/1", "u/2", "s/k", "d/1"].map(str::to_owned));
    for (concern, closed) in [
        (Concern::App("b".into()), [false; 4]),
        (Concern::Principal(principal("u/1")), [true, false, false, false]),
        (Concern::App("a".into()), [true, true, false, false]),
        (Concern::Services, [true, true, true, false]),
        (Concern::Product("q".into()), [true, true, true, false]),
        (Concern::Product("p".into()), [true; 4]),
    ] {
        world.shard.judge_again(&concern, NOW);
        assert_eq!(conns.map(|conn| world.is_closed(conn)), closed, "{concern:?}");
    }
}

#[test]
fn a_service_outside_its_networks_is_closed() {
    let mut world = world();
    let service = world.connect("s/k");
    world.change("s/k", |state| {
        state.networks.insert("s/k".to_owned(), 10);
    });
    assert!(!world.is_closed(service));
    world.change("s/k", |state| {
        state.networks.insert("s/k".to_owned(), 11);
    });
    assert!(world.is_closed(service));
}

#[test]
fn what_waits_and_may_not_be_read_any_more_is_dropped() {
    let mut world = world();
    let (user, device) = (world.connect_with("u/1", false, None), world.connect("d/1"));
    world.subscribe(user, "dev/p/+/up/#", 2);
    world.shard.closed(user, NOW);
    for (topic, qos) in [("dev/p/1/up/x", 1), ("dev/p/2/up/x", 1), ("dev/p/1/up/y", 2), ("dev/p/2/up/y", 1)] {
        world.publish(device, topic, qos);
    }
    assert_eq!(world.owed(), 0);
    world.commit();
    assert_eq!(world.owed(), 4);
    world.forbid("u/1", "dev/p/1/");
    assert_eq!((world.owed(), world.shard.counters().queued_messages), (2, 2));
    assert_eq!(world.shard.counters().dropped.not_authorized, 2);
    // One more comes on a way that isn't cut: a batch of another shard that was sent before.
    world.publish(device, "dev/p/1/up/z", 1);
    world.commit();
    assert_eq!(world.owed(), 3);
    let user = world.connect_with("u/1", false, None);
    assert_eq!(world.owed(), 2, "a session is judged when it is resumed");
    assert_eq!(world.delivered(user), [] as [&str; 0], "CONNACK was read with what followed it");
    assert_eq!(world.shard.counters().queued_messages, 2);
}

#[test]
fn what_waits_for_its_commit_goes_behind_it() {
    let mut world = world();
    let (user, device) = (world.connect_with("u/1", false, None), world.connect("d/1"));
    world.subscribe(user, "dev/p/+/up/#", 1);
    world.publish(device, "dev/p/1/up/x", 1);
    world.publish(device, "dev/p/2/up/x", 1);
    let output = world.shard.end_turn();
    let ticket = output.parts[0].ticket;
    world.parts.extend(output.parts);
    world.gate.state.lock().forbidden.insert(("u/1".to_owned(), "dev/p/1/".to_owned()));
    world.shard.judge_again(&Concern::Principal(principal("u/1")), NOW);
    assert_eq!(world.owed(), 2);
    let judged = world.shard.end_turn().parts;
    assert!(!judged.iter().flat_map(|part| &part.ops).any(|op| matches!(op, Op::OwedDelete { .. })));
    world.parts.extend(judged);
    world.shard.committed(&[ticket], NOW);
    world.commit();
    assert_eq!((world.owed(), world.delivered(user)), (1, vec!["dev/p/2/up/x".to_owned()]));
    assert_eq!(world.shard.counters().dropped.not_authorized, 1);
}

#[test]
fn what_a_service_may_not_have_any_more_goes_to_another_of_its_share() {
    let mut world = world();
    let (one, device) = (world.connect_with("s/1", false, None), world.connect("d/1"));
    world.subscribe(one, "$share/g/dev/p/+/up/#", 1);
    world.shard.closed(one, NOW);
    world.publish(device, "dev/p/1/up/x", 1);
    world.commit();
    assert_eq!(world.owed(), 1);
    let two = world.connect("s/2");
    world.subscribe(two, "$share/g/dev/p/+/up/#", 1);
    world.forbid("s/1", "dev/p/");
    assert_eq!(world.delivered(two), ["dev/p/1/up/x"]);
    assert_eq!((world.owed(), world.shard.counters().dropped.not_authorized), (0, 0));
}

#[test]
fn a_will_whose_right_is_gone_is_not_published() {
    let mut world = world();
    let device = world.connect("d/1");
    world.subscribe(device, "dev/p/1/down/#", 0);
    for forbidden in [false, true] {
        let user = world.connect_with("u/1", true, Some("dev/p/1/down/off"));
        if forbidden {
            world.forbid("u/1", "dev/p/1/");
        }
        world.shard.closed(user, NOW);
        assert_eq!(world.delivered(device).is_empty(), forbidden);
    }
}

#[test]
fn sessions_are_listed_signed_out_and_forgotten() {
    let mut world = world();
    let user = world.connect_with("u/1", false, None);
    world.subscribe(user, "dev/p/1/up/#", 1);
    let stranger = principal("u/2");
    let views = world.shard.sessions_of(&principal("u/1"));
    assert_eq!(views.len(), 1);
    assert!(views[0].client.as_str() == "u/1" && views[0].peer.is_some() && views[0].subscriptions == 1);
    assert!(world.shard.sessions_of(&stranger).is_empty());
    assert!(!world.shard.sign_out(&stranger, "u/1", NOW), "somebody else's");
    assert!(!world.shard.sign_out(&stranger, "u/9", NOW));
    assert!(world.shard.sign_out(&principal("u/1"), "u/1", NOW) && world.is_closed(user));
    world.shard.closed(user, NOW);
    assert!(world.shard.sessions_of(&principal("u/1")).is_empty() && world.shard.counters().sessions == 0);
    world.commit();
    let deleted = |world: &World| {
        world.parts.iter().flat_map(|part| &part.ops).filter(|op| matches!(op, Op::SessionDelete(_))).count()
    };
    assert_eq!(deleted(&world), 1);

    let (away, here) = (world.connect_with("u/3", false, None), world.connect("u/4"));
    world.shard.closed(away, NOW);
    assert_eq!(world.shard.sessions_of(&principal("u/3"))[0].disconnected_at_ms, Some(NOW.unix_ms));
    world.shard.forget(&Concern::App("a".into()), NOW);
    assert!(world.is_closed(here) && world.shard.counters().sessions == 0);
    world.commit();
    assert_eq!(deleted(&world), 2);
    assert_eq!(world.shard.shared.router.counts().subscriptions, 0);
}

#[test]
fn who_would_hear_a_message_is_known() {
    let mut world = world();
    let topic = TopicName::parse("dev/p/1/sys/cmd").expect("a topic");
    let reach = |world: &World| world.shard.reach(&principal("d/1"), topic);
    assert_eq!(reach(&world), Reach::Absent);
    let device = world.connect_with("d/1", false, None);
    assert_eq!(reach(&world), Reach::Deaf);
    world.subscribe(device, "dev/p/1/down/#", 1);
    assert_eq!(reach(&world), Reach::Deaf);
    world.subscribe(device, "dev/p/1/sys/+", 1);
    assert_eq!((reach(&world), world.shard.reach(&principal("d/2"), topic)), (Reach::Hears, Reach::Absent));
    world.shard.closed(device, NOW);
    assert_eq!(reach(&world), Reach::Absent, "it would be kept for it");
}

#[test]
fn who_is_shut_out_is_closed_and_keeps_the_session() {
    let mut world = world();
    let (user, waiting) = (world.connect_with("u/1", false, None), {
        let peer = Peer { addr: SocketAddr::from(([10, 0, 0, 1], 9)), tls: false, certificate: None };
        world.shard.open(peer, NOW).expect("room")
    });
    world.shard.shut_out(&|address| address == IpAddr::from([10, 0, 0, 2]), NOW);
    assert!(!world.is_closed(user) && !world.is_closed(waiting));
    world.shard.shut_out(&|address| address == IpAddr::from([10, 0, 0, 1]), NOW);
    assert!(world.is_closed(user) && world.is_closed(waiting), "also who hasn't said anything yet");
    world.shard.closed(user, NOW);
    world.shard.closed(waiting, NOW);
    assert_eq!(world.shard.sessions_of(&principal("u/1"))[0].disconnected_at_ms, Some(NOW.unix_ms));
    world.shard.shut_out(&|_| true, NOW);
    assert_eq!(world.shard.counters().connections, 0);
}

#[test]
fn many_principals_keep_their_own_sessions() {
    let mut world = world();
    let conns: Vec<ConnId> = (0..300).map(|n| world.connect(&format!("u/{n}"))).collect();
    for (n, conn) in conns.iter().enumerate().step_by(3) {
        world.shard.closed(*conn, NOW);
        assert!(world.shard.sessions_of(&principal(&format!("u/{n}"))).is_empty());
    }
    for n in (0..300).filter(|n| n % 3 != 0) {
        let views = world.shard.sessions_of(&principal(&format!("u/{n}")));
        assert_eq!(views.iter().map(|view| view.client.as_str()).collect::<Vec<_>>(), [format!("u/{n}")]);
    }
}

#[test]
fn what_waits_in_a_feed_is_judged_by_what_the_feed_is_of() {
    let mut world = world();
    world.gate.state.lock().feeds.insert("d/fed".to_owned(), vec!["a:1".to_owned()]);
    let fed = world.connect("d/fed");
    let one = world.connect_with("u/1", false, None);
    world.subscribe(one, "user/a:1/#", 1);
    world.shard.closed(one, NOW);
    world.publish(fed, "dev/p/fed/up/x", 1);
    world.publish(fed, "dev/p/fed/up/y", 1);
    world.commit();
    let before = world.owed();
    assert_eq!(before, 2);
    // The user may still subscribe to all of the feed.
    world.change("u/1", |state| {
        state.unreceived.insert(("u/1".to_owned(), "user/a:1/dev/p/fed/up/x".to_owned()));
    });
    assert_eq!(world.owed(), 1);
    assert_eq!((world.shard.counters().queued_messages, world.shard.counters().dropped.not_authorized), (1, 1));
}

#[test]
fn what_waits_for_a_device_on_some_topics_can_be_taken_away() {
    let mut world = world();
    let device = world.connect_with("d/one", false, None);
    world.subscribe(device, "dev/p/one/#", 1);
    world.shard.closed(device, NOW);
    let user = world.connect("u/1");
    for topic in ["dev/p/one/down/open", "dev/p/one/ota/offer", "dev/p/one/down/close"] {
        world.publish(user, topic, 1);
    }
    world.commit();
    assert_eq!(world.owed(), 3);
    world.shard.withdraw(&Concern::device("p", "one"), &["dev/p/one/down/#".into()], NOW);
    world.commit();
    assert_eq!(world.owed(), 1);
    assert_eq!((world.shard.counters().queued_messages, world.shard.counters().dropped.not_authorized), (1, 2));
}

#[test]
fn whoever_is_shut_out_gives_no_last_command() {
    let mut world = world();
    let device = world.connect("d/one");
    world.subscribe(device, "dev/p/one/down/#", 0);
    let user = world.connect_with("u/1", true, Some("dev/p/one/down/open"));
    assert!(world.shard.sign_out(&principal("u/1"), "u/1", NOW));
    world.commit();
    assert!(world.is_closed(user) && world.delivered(device).is_empty());
    // A device that is shut out is away, which is what its will says.
    let watcher = world.connect("s/1");
    world.subscribe(watcher, "dev/p/two/up/#", 0);
    let two = world.connect_with("d/two", true, Some("dev/p/two/up/gone"));
    world.change("d/two", |state| {
        state.unwelcome.insert("d/two".to_owned());
    });
    assert!(world.is_closed(two));
    assert_eq!(world.delivered(watcher), ["dev/p/two/up/gone"]);
    // A user's broken connection is one that the user didn't close: that will is given, if the user may still come in.
    let _ = world.connect_with("u/2", true, Some("dev/p/one/down/stop"));
    let lost = world.connect_with("u/3", true, Some("dev/p/one/down/stop"));
    world.shard.closed(lost, NOW);
    assert_eq!(world.delivered(device), ["dev/p/one/down/stop"]);
}
