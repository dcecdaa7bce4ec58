//! MQTT over plain TCP: within a shard, across shards, awkward reads and writes, ends.

use super::*;
use crate::shard::SystemMessage;

#[test]
fn messages_reach_subscribers_on_every_shard() {
    let (server, address) = start(vec![tcp_listener()]);
    let mut subscribers: Vec<_> = (0..SHARDS)
        .map(|shard| {
            let mut client = Client::new(tcp(address)).connect(&client_of(shard, "sub"));
            client.subscribe("a/+", 1);
            client
        })
        .collect();
    for shard in 0..SHARDS {
        let mut publisher = Client::new(tcp(address)).connect(&client_of(shard, "pub"));
        publisher.publish("a/b", b"zero");
        publisher.send(&packet(0x32, &[&text("a/b"), &[0, 7][..], b"one"].concat()));
        assert_eq!(publisher.receive(), (0x40, vec![0, 7]));
        for subscriber in &mut subscribers {
            assert_eq!(subscriber.expect_publish("a/b"), b"zero");
            assert_eq!(subscriber.expect_publish("a/b"), b"one");
        }
    }
    let adopted: u64 = server.control().stats_blocking().iter().map(|shard| shard.net.adopted).sum();
    let accepted: u64 = server.control().stats_blocking().iter().map(|shard| shard.net.accepted).sum();
    assert_eq!(accepted, 4);
    assert!(adopted <= 4);
    assert!(server.drain(PATIENCE));
}

#[test]
fn a_packet_may_come_byte_by_byte() {
    let (server, address) = start(vec![tcp_listener()]);
    for shard in 0..SHARDS {
        let mut client = Client::new(tcp(address));
        for byte in connect_packet(&client_of(shard, "slow"), false) {
            client.send(&[byte]);
            std::thread::yield_now();
        }
        assert_eq!(client.receive().0, 0x20);
        client.ping();
    }
    drop(server);
}

#[test]
fn packets_larger_than_any_buffer_pass() {
    let (server, address) = start(vec![tcp_listener()]);
    let mut subscriber = Client::new(tcp(address)).connect(&client_of(0, "sub"));
    subscriber.subscribe("big", 0);
    let payload: Vec<u8> = (0..900_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    for shard in 0..SHARDS {
        let mut publisher = Client::new(tcp(address)).connect(&client_of(shard, "pub"));
        publisher.publish("big", &payload);
        publisher.publish("big", b"small");
        assert!(subscriber.expect_publish("big") == payload, "the payload changed");
        assert_eq!(subscriber.expect_publish("big"), b"small");
    }
    drop(server);
}

#[test]
fn a_client_that_writes_and_closes_at_once_is_heard() {
    let (server, address) = start(vec![tcp_listener()]);
    let mut subscriber = Client::new(tcp(address)).connect("sub");
    subscriber.subscribe("last", 0);
    for shard in 0..SHARDS {
        let id = client_of(shard, "hasty");
        let all = [connect_packet(&id, false), publish_packet("last", b"word"), vec![0xe0, 0]].concat();
        let mut stream = tcp(address);
        stream.write_all(&all).expect("sends");
        drop(stream);
        assert_eq!(subscriber.expect_publish("last"), b"word");
    }
    until(&server, |stats| stats.iter().map(|shard| shard.links).sum::<u64>() == 1);
}

#[test]
fn a_malformed_packet_closes_its_connection_and_no_other() {
    let (server, address) = start(vec![tcp_listener()]);
    let mut good = Client::new(tcp(address)).connect("good");
    let mut bad = Client { wire: tcp(address), five: true }.connect(&client_of(1, "bad"));
    bad.send(&[0x36, 0x04, 0, 1, b't', 0]);
    let (first, body) = bad.receive();
    assert_eq!((first, body[0]), (0xe0, 0x81), "DISCONNECT, malformed packet");
    bad.expect_end();
    good.ping();
    drop(server);
}

#[test]
fn a_drain_says_good_bye_and_closes() {
    let (server, address) = start(vec![tcp_listener()]);
    let mut clients: Vec<_> =
        (0..SHARDS).map(|shard| Client { wire: tcp(address), five: true }.connect(&client_of(shard, "five"))).collect();
    let draining = std::thread::spawn(move || server.drain(PATIENCE));
    for client in &mut clients {
        let (first, body) = client.receive();
        assert_eq!((first, body[0]), (0xe0, 0x8b), "DISCONNECT, server shutting down");
        client.expect_end();
    }
    drop(clients);
    assert!(draining.join().expect("drains"));
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn an_idle_broker_ends_at_once() {
    let (server, _) = start(vec![tcp_listener()]);
    let begun = Instant::now();
    assert!(server.drain(PATIENCE));
    assert!(begun.elapsed() < PATIENCE / 2);
}

#[test]
fn a_full_inbox_slows_publishers_down_and_loses_nothing() {
    const MESSAGES: u32 = 5_000;
    let limits = Limits { batch_bytes_high: 512, ..Limits::default() };
    let server = Server::start(ServerParts { limits, ..parts(vec![tcp_listener()]) }).expect("starts");
    let address = server.addresses()[0].1;
    // Both shards publish to the other at once, so that each waits for the other.
    let pairs: Vec<_> = (0..SHARDS)
        .map(|shard| {
            let topic = format!("to/{shard}");
            let mut subscriber = Client::new(tcp(address)).connect(&client_of(shard, "sub"));
            subscriber.subscribe(&topic, 0);
            let publisher = Client::new(tcp(address)).connect(&client_of(1 - shard, "pub"));
            (topic, subscriber, publisher)
        })
        .collect();
    std::thread::scope(|scope| {
        for (topic, mut subscriber, mut publisher) in pairs {
            let sent = topic.clone();
            scope.spawn(move || {
                for n in 0..MESSAGES {
                    publisher.publish(&sent, &n.to_be_bytes());
                }
                publisher.ping();
            });
            scope.spawn(move || {
                for n in 0..MESSAGES {
                    assert_eq!(subscriber.expect_publish(&topic), n.to_be_bytes());
                }
            });
        }
    });
}

#[test]
fn the_registry_is_committed_and_comes_back() {
    use turnpike_core::durable::Op;

    let store = MemoryStore::new();
    let with = |registry| ServerParts { store: Box::new(store.snapshot()), registry, ..parts(vec![tcp_listener()]) };
    let server =
        Server::start(ServerParts { store: Box::new(store.clone()), ..parts(vec![tcp_listener()]) }).expect("starts");
    let committed: Vec<_> =
        (0..3_u8).map(|n| server.control().commit_registry(vec![Op::RegistryPut([n].into(), [n, n].into())])).collect();
    for receiver in committed {
        receiver.blocking_recv().expect("committed");
    }
    assert!(server.control().health().is_ready());
    assert!(server.drain(PATIENCE));

    let seen = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let into = Arc::clone(&seen);
    let again =
        Server::start(with(Box::new(move |key: &[u8], value: &[u8]| into.lock().push((key.to_vec(), value.to_vec())))));
    assert_eq!(*seen.lock(), [(vec![0], vec![0, 0]), (vec![1], vec![1, 1]), (vec![2], vec![2, 2])]);
    drop(again);
}

#[test]
fn the_broker_publishes_as_itself() {
    let (server, address) = start(vec![tcp_listener()]);
    let mut subscriber = Client::new(tcp(address)).connect(&client_of(1, "sub"));
    subscriber.subscribe("$SYS/#", 0);
    let message = SystemMessage { topic: "$SYS/broker/uptime".to_owned(), payload: b"1".to_vec(), retain: false };
    server.control().publish_system(vec![message]);
    assert_eq!(subscriber.expect_publish("$SYS/broker/uptime"), b"1");
}

#[test]
fn a_silent_client_is_cut_when_its_time_is_up() {
    let limits = Limits { connect_timeout_ms: 100, ..Limits::default() };
    let server = Server::start(ServerParts { limits, ..parts(vec![tcp_listener()]) }).expect("starts");
    let mut silent = tcp(server.addresses()[0].1);
    assert_eq!(silent.read(&mut [0]).expect("the end"), 0);
}

#[test]
fn who_would_get_a_descriptor_that_is_kept_back_is_closed() {
    let mut parts = parts(vec![tcp_listener()]);
    parts.first_descriptor_kept = 0;
    let server = Server::start(parts).expect("starts");
    for _ in 0..5 {
        let mut client = Client::new(tcp(server.addresses()[0].1));
        // It may be closed before it says anything.
        let _ = client.wire.write_all(&connect_packet("anybody", false));
        client.expect_end();
    }
    until(&server, |stats| stats.iter().map(|shard| shard.net.shed).sum::<u64>() == 5);
}
