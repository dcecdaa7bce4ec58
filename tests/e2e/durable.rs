//! What survives: `kill -9` under load, a restart, a disk without room.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use turnpike_tests::broker::{Broker, Setup};
use turnpike_tests::client::{Client, End};
use turnpike_tests::time::{SOON, until};
use turnpike_tests::wire::{self, Connect, Packet, Publish, Version};

const KILLS: u32 = 20;
const PUBLISHERS: usize = 4;
const SUBSCRIBERS: usize = 4;

/// A client that stands a broker that dies: every operation may end with the connection.
struct Survivor {
    stream: std::net::TcpStream,
    buffer: Vec<u8>,
}

impl Survivor {
    /// Connects with a durable session; none while nobody listens. Says whether the session was there.
    fn connect(address: SocketAddr, id: &str) -> Option<(Self, bool)> {
        let stream = std::net::TcpStream::connect_timeout(&address, SOON).ok()?;
        stream.set_read_timeout(Some(Duration::from_millis(500))).ok()?;
        stream.set_nodelay(true).ok()?;
        let mut survivor = Self { stream, buffer: Vec::new() };
        survivor.send(&Connect::durable(Version::V5, id, 1000).encode())?;
        loop {
            match survivor.recv()? {
                Some(Packet::ConnAck(ack)) => {
                    assert_eq!(ack.code, 0, "{id}");
                    return Some((survivor, ack.session_present));
                }
                Some(other) => panic!("{other:?} before CONNACK"),
                None => {}
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Option<()> {
        use std::io::Write;
        self.stream.write_all(bytes).ok()
    }

    /// None if the connection is gone; none inside if nothing came for a while.
    fn recv(&mut self) -> Option<Option<Packet>> {
        use std::io::{ErrorKind, Read};
        loop {
            if let Some((packet, length)) = wire::decode(Version::V5, &self.buffer) {
                self.buffer.drain(..length);
                return Some(Some(packet));
            }
            let mut chunk = [0; 16384];
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(length) => self.buffer.extend(&chunk[..length]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Some(None),
                Err(_) => return None,
            }
        }
    }
}

/// What all threads share.
struct Load {
    address: RwLock<SocketAddr>,
    stop: AtomicBool,
    /// Acknowledged messages of all publishers since the last kill: the load is on when it grows.
    acknowledged: AtomicU32,
    /// Sessions that were missing.
    lost_sessions: Mutex<Vec<String>>,
}

impl Load {
    fn connect(&self, id: &str, known: &mut bool) -> Option<Survivor> {
        let address = *self.address.read().expect("the address");
        let (survivor, present) = Survivor::connect(address, id)?;
        if *known && !present {
            self.lost_sessions.lock().expect("a list").push(id.to_owned());
        }
        *known = true;
        Some(survivor)
    }
}

/// Publishes one message after the other, at QoS 1 and 2 in turn, each until it is acknowledged. Gives what was acknowledged.
fn publish(load: &Load, name: usize) -> Vec<String> {
    let id = format!("publisher{name}");
    let mut known = false;
    let mut acknowledged = Vec::new();
    let mut connection = None;
    let mut n = 0u32;
    // The message under way: number, packet identifier, and whether PUBREC has come.
    let mut open: Option<(u32, u16, bool)> = None;
    while !load.stop.load(Ordering::Relaxed) || open.is_some() {
        let Some(survivor) = connection.as_mut() else {
            connection = load.connect(&id, &mut known);
            if let (Some(survivor), Some((number, packet, released))) = (connection.as_mut(), open) {
                // A client with a session repeats what is open.
                let bytes = if released { wire::ack(6, packet, 0) } else { message(name, number, packet, true) };
                if survivor.send(&bytes).is_none() {
                    connection = None;
                }
            }
            continue;
        };
        let Some((number, packet, _)) = open else {
            n += 1;
            let packet = u16::try_from(n % 60_000 + 1).expect("small");
            open = Some((n, packet, false));
            if survivor.send(&message(name, n, packet, false)).is_none() {
                connection = None;
            }
            continue;
        };
        match survivor.recv() {
            None => connection = None,
            Some(None) => {}
            Some(Some(Packet::PubAck(ack) | Packet::PubComp(ack))) => {
                assert_eq!(ack.id, packet);
                acknowledged.push(text(name, number));
                load.acknowledged.fetch_add(1, Ordering::Relaxed);
                open = None;
            }
            Some(Some(Packet::PubRec(ack))) => {
                assert_eq!((ack.id, ack.code() < 0x80), (packet, true));
                open = Some((number, packet, true));
                if survivor.send(&wire::ack(6, packet, 0)).is_none() {
                    connection = None;
                }
            }
            Some(Some(other)) => panic!("{other:?} to a publisher"),
        }
    }
    acknowledged
}

fn qos(number: u32) -> u8 {
    if number.is_multiple_of(2) { 1 } else { 2 }
}

fn text(name: usize, number: u32) -> String {
    format!("{name}:{number}:{}", qos(number))
}

fn message(name: usize, number: u32, packet: u16, again: bool) -> Vec<u8> {
    let mut publish = Publish::new(&format!("load/{name}"), text(name, number)).qos(qos(number), packet);
    publish.dup = again;
    publish.encode(Version::V5)
}

/// What a subscriber has seen. A client owns a QoS 2 message once, keyed by packet identifier until PUBREL, as the protocol says.
#[derive(Default)]
struct Seen {
    all: BTreeSet<String>,
    twice: Vec<String>,
    open: BTreeSet<u16>,
}

impl Seen {
    /// Takes a packet; the answer to it.
    fn take(&mut self, packet: Packet) -> Option<Vec<u8>> {
        match packet {
            Packet::Publish(publish) => {
                let text = publish.text().to_owned();
                if publish.qos == 2 {
                    if self.open.insert(publish.id) && !self.all.insert(text.clone()) {
                        self.twice.push(text);
                    }
                    return Some(wire::ack(5, publish.id, 0));
                }
                self.all.insert(text);
                Some(wire::ack(4, publish.id, 0))
            }
            Packet::PubRel(ack) => {
                self.open.remove(&ack.id);
                Some(wire::ack(7, ack.id, 0))
            }
            Packet::PingResp => None,
            other => panic!("{other:?} to a subscriber"),
        }
    }
}

/// Receives with a durable session, comes and goes; at the end it collects what is left.
fn subscribe(load: &Load, name: usize, seen: &mut Seen) {
    let id = format!("subscriber{name}");
    let mut known = true; // Made before the load began.
    let mut connection: Option<Survivor> = None;
    let mut taken = 0u32;
    while !load.stop.load(Ordering::Relaxed) {
        let Some(survivor) = connection.as_mut() else {
            connection = load.connect(&id, &mut known);
            continue;
        };
        match survivor.recv() {
            None => connection = None,
            Some(None) => {}
            Some(Some(packet)) => {
                taken += 1;
                let answer = seen.take(packet);
                if answer.is_some_and(|bytes| survivor.send(&bytes).is_none()) {
                    connection = None;
                }
                // Leaves in good order now and then, or breaks off.
                if taken % 700 == u32::try_from(name * 100).expect("small") {
                    if name.is_multiple_of(2)
                        && let Some(survivor) = connection.as_mut()
                    {
                        let _ = survivor.send(&wire::disconnect(0, &[]));
                    }
                    connection = None;
                }
            }
        }
    }
}

/// Collects what is still owed, from a broker that stays up.
fn collect(broker: &Broker, name: usize, seen: &mut Seen, expected: &BTreeSet<String>) {
    let connect = Connect::durable(Version::V5, &format!("subscriber{name}"), 1000);
    let (mut client, ack) = Client::open(broker.mqtt(), &connect);
    assert!(ack.session_present, "subscriber {name}");
    while !expected.is_subset(&seen.all) {
        let Some(packet) = client.recv_within(SOON) else { break };
        if let Some(answer) = seen.take(packet) {
            client.send(&answer);
        }
    }
    for packet in client.drain() {
        if let Some(answer) = seen.take(packet) {
            client.send(&answer);
        }
    }
}

#[test]
fn nothing_that_was_acknowledged_is_lost_by_kill_9() {
    let mut broker = Broker::start();
    for name in 0..SUBSCRIBERS {
        let mut client = broker.client(&Connect::durable(Version::V5, &format!("subscriber{name}"), 1000));
        client.subscribe(&[("load/#", 2)]);
        client.disconnect();
    }
    let load = Arc::new(Load {
        address: RwLock::new(broker.mqtt()),
        stop: AtomicBool::new(false),
        acknowledged: AtomicU32::new(0),
        lost_sessions: Mutex::new(Vec::new()),
    });
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|name| {
            let load = Arc::clone(&load);
            std::thread::spawn(move || publish(&load, name))
        })
        .collect();
    let subscribers: Vec<_> = (0..SUBSCRIBERS)
        .map(|name| {
            let load = Arc::clone(&load);
            std::thread::spawn(move || {
                let mut seen = Seen::default();
                subscribe(&load, name, &mut seen);
                seen
            })
        })
        .collect();
    for round in 0..KILLS {
        load.acknowledged.store(0, Ordering::Relaxed);
        // Under load, and never at the same point of it.
        let enough = 20 + round * 7;
        until("messages flow", SOON, || (load.acknowledged.load(Ordering::Relaxed) >= enough).then_some(()));
        broker.kill();
        broker.restart();
        *load.address.write().expect("the address") = broker.mqtt();
    }
    load.stop.store(true, Ordering::Relaxed);
    let acknowledged: BTreeSet<String> =
        publishers.into_iter().flat_map(|thread| thread.join().expect("a publisher")).collect();
    assert!(acknowledged.len() > 20 * usize::try_from(KILLS).expect("small"));
    for (name, thread) in subscribers.into_iter().enumerate() {
        let mut seen = thread.join().expect("a subscriber");
        collect(&broker, name, &mut seen, &acknowledged);
        let missing: Vec<&String> = acknowledged.difference(&seen.all).collect();
        assert!(missing.is_empty(), "subscriber {name} never got {} acknowledged: {missing:?}", missing.len());
        assert!(seen.twice.is_empty(), "subscriber {name} got QoS 2 twice: {:?}", seen.twice);
    }
    let lost = load.lost_sessions.lock().expect("a list");
    assert!(lost.is_empty(), "sessions that were not present: {lost:?}");
}

#[test]
fn a_restart_keeps_sessions_subscriptions_and_both_directions_of_qos_2() {
    let mut broker = Broker::start();
    for gently in [true, false] {
        let connect = Connect::durable(Version::V5, "keeper", 1000);
        let mut client = broker.client(&connect);
        client.subscribe(&[("in/#", 2), ("$share/group/shared", 1)]);
        let mut publisher = broker.client(&Connect::durable(Version::V5, "sender", 1000));
        // Delivered and past PUBREC; delivered and open; not delivered yet.
        publisher.publish(&Publish::new("in/1", "released").qos(2, 1));
        publisher.publish(&Publish::new("in/2", "open").qos(2, 2));
        let released = client.publish_in();
        let open = client.publish_in();
        client.send(&wire::ack(5, released.id, 0));
        assert_eq!(client.ack_in(6).id, released.id);
        client.drop_connection();
        publisher.publish(&Publish::new("in/3", "waiting").qos(1, 3));
        publisher.publish(&Publish::new("shared", "shared").qos(1, 4));
        // Taken from the publisher and not released by it.
        publisher.send(&Publish::new("in/4", "once").qos(2, 77).encode(Version::V5));
        assert_eq!(publisher.ack_in(5).id, 77);
        if gently {
            broker.stop();
        } else {
            broker.kill();
        }
        broker.restart();

        let (mut publisher, ack) = Client::open(broker.mqtt(), &Connect::durable(Version::V5, "sender", 1000));
        assert!(ack.session_present);
        publisher.send(&Publish::new("in/4", "once").qos(2, 77).dup().encode(Version::V5));
        assert_eq!(publisher.ack_in(5).id, 77);
        publisher.send(&wire::ack(6, 77, 0));
        assert_eq!(publisher.ack_in(7).id, 77);

        let (mut client, ack) = Client::open(broker.mqtt(), &connect);
        assert!(ack.session_present);
        let mut texts = Vec::new();
        let mut pubrel = None;
        for packet in client.drain() {
            match packet {
                Packet::PubRel(ack) => {
                    assert_eq!(ack.id, released.id);
                    pubrel = Some(ack.id);
                    client.send(&wire::ack(7, ack.id, 0));
                }
                Packet::Publish(publish) => {
                    if publish.text() == "open" {
                        assert_eq!((publish.id, publish.dup), (open.id, true));
                    }
                    texts.push(publish.text().to_owned());
                    client.send(&wire::ack(3 + publish.qos, publish.id, 0));
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(pubrel, Some(released.id), "gently: {gently}");
        texts.sort();
        assert_eq!(texts, ["once", "open", "shared", "waiting"], "gently: {gently}");
        // The subscriptions are still there; PUBRELs for what was just taken come in between.
        publisher.publish(&Publish::new("in/5", "new").qos(1, 5));
        loop {
            match client.take_either() {
                Packet::PubRel(ack) => client.send(&wire::ack(7, ack.id, 0)),
                Packet::Publish(publish) => {
                    assert_eq!(publish.text(), "new");
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        client.disconnect_with(0, &[wire::Prop::SessionExpiry(0)]);
        publisher.disconnect_with(0, &[wire::Prop::SessionExpiry(0)]);
    }
}

#[test]
fn a_session_that_expired_while_the_broker_was_down_is_gone() {
    let mut broker = Broker::start();
    let connect = Connect::durable(Version::V5, "expiring", 1);
    let lasting = Connect::durable(Version::V5, "lasting", 1000);
    // In good order: after a kill the end of the connection would count from the restart.
    broker.client(&connect).disconnect();
    broker.client(&lasting).disconnect();
    broker.stop();
    turnpike_tests::time::pass(Duration::from_millis(2500));
    broker.restart();
    assert!(!Client::open(broker.mqtt(), &connect).1.session_present);
    assert!(Client::open(broker.mqtt(), &lasting).1.session_present);
}

#[test]
fn sessions_that_end_with_their_connection_leave_nothing_behind() {
    let mut broker = Broker::start();
    let mut client = broker.clean(Version::V5, "brief");
    client.subscribe(&[("t", 1)]);
    broker.kill();
    broker.restart();
    let (mut client, ack) = Client::open(broker.mqtt(), &Connect::durable(Version::V5, "brief", 10));
    assert!(!ack.session_present);
    let mut publisher = broker.clean(Version::V5, "publisher");
    assert_eq!(publisher.publish(&Publish::new("t", "x").qos(1, 1)), 0x10);
    client.quiet();
}

#[test]
fn a_full_disk_stops_acknowledgements_and_not_the_broker() {
    let mut broker = Setup::anonymous().start();
    let connect = Connect::durable(Version::V5, "durable", 1000);
    let mut client = broker.client(&connect);
    client.subscribe(&[("t", 1)]);
    client.disconnect();
    let mut publisher = broker.clean(Version::V5, "publisher");
    let mut acknowledged = 0u32;
    let payload = |n: u32| format!("{n}:{}", "x".repeat(2000));
    for n in 1..=20 {
        assert_eq!(publisher.publish(&Publish::new("t", payload(n)).qos(1, 1)), 0);
        acknowledged = n;
    }
    // From now on no file may grow; SIGXFSZ is the broker's to ignore.
    broker.set_file_bytes_max(0);
    let http = broker.http();
    let mut refused = false;
    let deadline = std::time::Instant::now() + SOON;
    while !refused {
        assert!(std::time::Instant::now() < deadline, "the broker goes on acknowledging without a disk");
        publisher.send(&Publish::new("t", payload(acknowledged + 1)).qos(1, 1).encode(Version::V5));
        match publisher.recv_within(Duration::from_secs(2)) {
            Some(Packet::PubAck(ack)) if ack.code() < 0x80 => acknowledged += 1,
            Some(Packet::PubAck(ack)) => {
                assert!(matches!(ack.code(), 0x97 | 0x83 | 0x80), "{ack:?}");
                refused = true;
            }
            Some(Packet::Disconnect { .. }) | None => refused = true,
            Some(other) => panic!("{other:?}"),
        }
    }
    until("readiness goes off", SOON, || (http.get("/readyz").status == 503).then_some(()));
    assert_eq!(http.get("/healthz").status, 200);
    // What needs no disk goes on.
    let mut watcher = broker.clean(Version::V5, "watcher");
    watcher.subscribe(&[("live", 0)]);
    let mut other = broker.clean(Version::V311, "other");
    other.publish(&Publish::new("live", "still here"));
    assert_eq!(watcher.take().text(), "still here");

    broker.set_file_bytes_max(u64::MAX);
    until("readiness comes back", SOON, || (http.get("/readyz").status == 200).then_some(()));
    let mut publisher = broker.clean(Version::V5, "publisher-2");
    until("publications are taken again", SOON, || {
        (publisher.publish(&Publish::new("t", "after").qos(1, 9)) == 0).then_some(())
    });
    broker.kill();
    broker.restart();
    let (mut client, ack) = Client::open(broker.mqtt(), &connect);
    assert!(ack.session_present);
    for n in 1..=acknowledged {
        assert_eq!(client.take().text(), payload(n), "an acknowledged message is missing");
    }
    // One may follow whose acknowledgement never came: it is allowed to be there.
    let rest: Vec<String> = std::iter::from_fn(|| match client.recv_within(Duration::from_millis(500)) {
        Some(Packet::Publish(publish)) => {
            client.send(&wire::ack(4, publish.id, 0));
            Some(publish.text().to_owned())
        }
        _ => None,
    })
    .collect();
    assert_eq!(rest.last().map(String::as_str), Some("after"), "{} more", rest.len());
}

#[test]
fn two_brokers_do_not_share_a_data_folder() {
    let broker = Broker::start();
    let output = turnpike_tests::broker::command()
        .args(["serve", "--anonymous", "--mqtt", "127.0.0.1:0", "--data"])
        .arg(broker.data())
        .output()
        .expect("it starts");
    assert!(!output.status.success());
    let mut client = broker.clean(Version::V311, "still-served");
    client.quiet();
    client.send(&wire::disconnect(0, &[]));
    assert_eq!(client.end(), End::Closed);
}
