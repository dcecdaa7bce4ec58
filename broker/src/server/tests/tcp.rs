//! MQTT over plain TCP: within a shard, across shards, awkward reads and writes, ends.

use super::*;

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
