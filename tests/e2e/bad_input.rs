//! What strangers and broken devices send: it closes their own connection, with the right reason, and costs nobody else anything.

use std::io::Read;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use turnpike_tests::broker::{Broker, Setup};
use turnpike_tests::client::{Client, End};
use turnpike_tests::time::{SOON, until};
use turnpike_tests::wire::{self, Connect, Packet, Publish, Version};

/// What a client that is connected sends, and the reason that a client of MQTT 5 gets. `'…'` is text, the rest is hexadecimal.
const MQTT_5: &[(&str, &str, &[u8])] = &[
    // Fixed header
    ("reserved type 0", "00 00", &[0x81, 0x82]),
    ("CONNACK from a client", "20 03 00 00 00", &[0x82, 0x81]),
    ("SUBACK from a client", "90 04 0001 00 00", &[0x82, 0x81]),
    ("UNSUBACK from a client", "b0 04 0001 00 00", &[0x82, 0x81]),
    ("PINGRESP from a client", "d0 00", &[0x82, 0x81]),
    ("remaining length of five bytes", "30 80 80 80 80 01", &[0x81]),
    ("remaining length of four bytes and a continuation", "30 ff ff ff ff", &[0x81]),
    ("PINGREQ with flags", "c1 00", &[0x81]),
    ("PINGREQ with a body", "c0 01 00", &[0x81]),
    ("PUBACK with flags", "41 02 0001", &[0x81]),
    ("PUBREC with flags", "54 02 0001", &[0x81]),
    ("PUBREL without its flag", "60 02 0001", &[0x81]),
    ("PUBREL with others", "66 02 0001", &[0x81]),
    ("PUBCOMP with flags", "72 02 0001", &[0x81]),
    ("SUBSCRIBE without its flag", "80 07 0001 00 0001 'a' 00", &[0x81]),
    ("SUBSCRIBE with others", "8a 07 0001 00 0001 'a' 00", &[0x81]),
    ("UNSUBSCRIBE without its flag", "a0 06 0001 00 0001 'a'", &[0x81]),
    ("DISCONNECT with flags", "e1 00", &[0x81]),
    ("AUTH with flags", "f1 00", &[0x81, 0x82]),
    // PUBLISH
    ("QoS 3", "36 06 0001 'a' 0001 00", &[0x81]),
    ("DUP without QoS", "38 04 0001 'a' 00", &[0x81]),
    ("packet identifier 0", "32 06 0001 'a' 0000 00", &[0x82, 0x81]),
    ("QoS 1 without an identifier", "32 03 0001 'a'", &[0x81]),
    ("an empty PUBLISH", "30 00", &[0x81]),
    ("a topic that is longer than the packet", "30 04 0009 'ab'", &[0x81]),
    ("an empty topic", "30 03 0000 00", &[0x81, 0x82]),
    ("a topic with #", "30 04 0001 '#' 00", &[0x81, 0x90]),
    ("a topic with +", "30 05 0002 'a+' 00", &[0x81, 0x90]),
    ("a topic with U+0000", "30 06 0003 61 00 62 00", &[0x81]),
    ("a topic with a surrogate", "30 06 0003 ed a0 80 00", &[0x81]),
    ("a topic in an over-long encoding", "30 05 0002 c0 af 00", &[0x81]),
    ("a topic of half a character", "30 04 0001 c3 00", &[0x81]),
    ("a topic with U+0001", "30 04 0001 01 00", &[0x81]),
    ("a topic with U+001F", "30 04 0001 1f 00", &[0x81]),
    ("a topic with U+007F", "30 04 0001 7f 00", &[0x81]),
    ("a topic with U+009F", "30 05 0002 c2 9f 00", &[0x81]),
    ("a topic with U+FFFF", "30 06 0003 ef bf bf 00", &[0x81]),
    ("properties that are not there", "30 03 0001 'a'", &[0x81]),
    ("properties that end after the packet", "30 04 0001 'a' 05", &[0x81]),
    ("a property length in too many bytes", "30 08 0001 'a' 80 80 80 80 00", &[0x81]),
    ("an unknown property", "30 06 0001 'a' 02 7f 00", &[0x81]),
    ("a property identifier in two bytes that needs one", "30 07 0001 'a' 03 81 00 01", &[0x81]),
    ("a property without its value", "30 05 0001 'a' 01 01", &[0x81]),
    ("a property cut short", "30 06 0001 'a' 02 23 00", &[0x81]),
    ("a property of CONNECT", "30 09 0001 'a' 05 11 00000001", &[0x82, 0x81]),
    ("payload format 2", "30 06 0001 'a' 02 01 02", &[0x82, 0x81]),
    ("payload format twice", "30 08 0001 'a' 04 01 01 01 01", &[0x82]),
    ("expiry twice", "30 0e 0001 'a' 0a 02 00000001 02 00000001", &[0x82]),
    ("topic alias twice", "30 0a 0001 'a' 06 23 0001 23 0001", &[0x82]),
    ("response topic twice", "30 0c 0001 'a' 08 08 0001 'b' 08 0001 'b'", &[0x82]),
    ("correlation data twice", "30 0c 0001 'a' 08 09 0001 'b' 09 0001 'b'", &[0x82]),
    ("content type twice", "30 0c 0001 'a' 08 03 0001 'b' 03 0001 'b'", &[0x82]),
    ("content type that isn't UTF-8", "30 08 0001 'a' 04 03 0001 ff", &[0x81]),
    ("a user property without a value", "30 08 0001 'a' 04 26 0001 'b'", &[0x81]),
    ("a user property that isn't UTF-8", "30 0b 0001 'a' 07 26 0001 'b' 0001 ff", &[0x81]),
    ("a subscription identifier", "30 06 0001 'a' 02 0b 01", &[0x82, 0x81]),
    // Acknowledgements
    ("an empty PUBACK", "40 00", &[0x81]),
    ("half a PUBACK", "40 01 00", &[0x81]),
    ("PUBACK 0", "40 02 0000", &[0x82, 0x81]),
    ("PUBREC 0", "50 02 0000", &[0x82, 0x81]),
    ("PUBREL 0", "62 02 0000", &[0x82, 0x81]),
    ("PUBCOMP 0", "70 02 0000", &[0x82, 0x81]),
    ("PUBACK with an unknown reason", "40 04 0001 ff 00", &[0x82, 0x81]),
    ("PUBREL with an unknown reason", "62 03 0001 01", &[0x82, 0x81]),
    ("PUBACK with bytes left over", "40 05 0001 00 00 00", &[0x81]),
    ("PUBACK with properties past the end", "40 04 0001 00 01", &[0x81]),
    ("PUBACK with a property of PUBLISH", "40 06 0001 00 02 01 00", &[0x82, 0x81]),
    ("PUBACK with two reason strings", "40 0c 0001 00 08 1f 0001 'a' 1f 0001 'a'", &[0x82]),
    // SUBSCRIBE
    ("an empty SUBSCRIBE", "82 00", &[0x81]),
    ("SUBSCRIBE without a filter", "82 03 0001 00", &[0x81, 0x82]),
    ("SUBSCRIBE 0", "82 07 0000 00 0001 'a' 00", &[0x81, 0x82]),
    ("SUBSCRIBE without options", "82 06 0001 00 0001 'a'", &[0x81]),
    ("SUBSCRIBE with a byte left over", "82 08 0001 00 0001 'a' 00 00", &[0x81]),
    ("an empty filter", "82 06 0001 00 0000 00", &[0x81]),
    ("a good filter and an empty one", "82 0a 0001 00 0001 'a' 00 0000 00", &[0x81]),
    ("a filter longer than the packet", "82 07 0001 00 0009 'a' 00", &[0x81]),
    ("a filter that isn't UTF-8", "82 07 0001 00 0001 ff 00", &[0x81]),
    ("a filter with U+0000", "82 07 0001 00 0001 00 00", &[0x81]),
    ("a filter with QoS 3", "82 07 0001 00 0001 'a' 03", &[0x81, 0x82]),
    ("retain handling 3", "82 07 0001 00 0001 'a' 30", &[0x81, 0x82]),
    ("reserved options 40", "82 07 0001 00 0001 'a' 40", &[0x81]),
    ("reserved options 80", "82 07 0001 00 0001 'a' 80", &[0x81]),
    ("subscription identifier 0", "82 09 0001 02 0b 00 0001 'a' 00", &[0x82, 0x81]),
    ("two subscription identifiers", "82 0b 0001 04 0b 01 0b 02 0001 'a' 00", &[0x82]),
    ("a subscription identifier of five bytes", "82 0d 0001 06 0b 80 80 80 80 01 0001 'a' 00", &[0x81]),
    ("a subscription identifier in more bytes than it needs", "82 0a 0001 03 0b 80 00 0001 'a' 00", &[0x81]),
    ("SUBSCRIBE with a property of PUBLISH", "82 09 0001 02 01 00 0001 'a' 00", &[0x81, 0x82]),
    // UNSUBSCRIBE
    ("an empty UNSUBSCRIBE", "a2 00", &[0x81]),
    ("UNSUBSCRIBE without a filter", "a2 03 0001 00", &[0x81, 0x82]),
    ("UNSUBSCRIBE 0", "a2 06 0000 00 0001 'a'", &[0x81, 0x82]),
    ("UNSUBSCRIBE with an empty filter", "a2 05 0001 00 0000", &[0x81]),
    ("UNSUBSCRIBE with a filter cut short", "a2 05 0001 00 0001", &[0x81]),
    ("UNSUBSCRIBE with a subscription identifier", "a2 08 0001 02 0b 01 0001 'a'", &[0x81, 0x82]),
    // DISCONNECT and AUTH
    ("DISCONNECT with half a property", "e0 06 00 04 11 000000", &[0x81]),
    ("DISCONNECT with bytes left over", "e0 03 00 00 00", &[0x81]),
    ("DISCONNECT with two reason strings", "e0 0a 00 08 1f 0001 'a' 1f 0001 'b'", &[0x82]),
    ("DISCONNECT with a property of PUBLISH", "e0 04 00 02 01 00", &[0x82, 0x81]),
    ("AUTH without a method", "f0 02 18 00", &[0x82]),
    ("AUTH where none was agreed", "f0 00", &[0x82]),
];

/// The same for MQTT 3.1 and 3.1.1, where the connection is closed without a word.
const MQTT_3: &[(&str, &str)] = &[
    ("reserved type 0", "00 00"),
    ("AUTH", "f0 00"),
    ("CONNACK from a client", "20 02 00 00"),
    ("SUBACK from a client", "90 03 0001 00"),
    ("remaining length of five bytes", "30 80 80 80 80 01"),
    ("PINGREQ with flags", "c1 00"),
    ("PINGREQ with a body", "c0 01 00"),
    ("PUBACK with flags", "41 02 0001"),
    ("PUBACK with a body that MQTT 5 would allow", "40 03 0001 00"),
    ("PUBREL without its flag", "60 02 0001"),
    ("PUBREL with a body that MQTT 5 would allow", "62 03 0001 00"),
    ("PUBACK 0", "40 02 0000"),
    ("half a PUBACK", "40 01 00"),
    ("QoS 3", "36 05 0001 'a' 0001"),
    ("DUP without QoS", "38 03 0001 'a'"),
    ("packet identifier 0", "32 05 0001 'a' 0000"),
    ("QoS 1 without an identifier", "32 03 0001 'a'"),
    ("an empty PUBLISH", "30 00"),
    ("an empty topic", "30 02 0000"),
    ("a topic that is longer than the packet", "30 04 0009 'ab'"),
    ("a topic with #", "30 03 0001 '#'"),
    ("a topic with +", "30 04 0002 'a+'"),
    ("a topic with U+0000", "30 05 0003 61 00 62"),
    ("a topic that isn't UTF-8", "30 03 0001 ff"),
    ("a topic with a surrogate", "30 05 0003 ed a0 80"),
    ("a topic with U+0001", "30 03 0001 01"),
    ("an empty SUBSCRIBE", "82 00"),
    ("SUBSCRIBE without a filter", "82 02 0001"),
    ("SUBSCRIBE 0", "82 06 0000 0001 'a' 00"),
    ("SUBSCRIBE without its flag", "80 06 0001 0001 'a' 00"),
    ("SUBSCRIBE without a QoS", "82 05 0001 0001 'a'"),
    ("SUBSCRIBE with a byte left over", "82 07 0001 0001 'a' 00 00"),
    ("an empty filter", "82 05 0001 0000 00"),
    ("a filter with QoS 3", "82 06 0001 0001 'a' 03"),
    ("a filter with options of MQTT 5", "82 06 0001 0001 'a' 04"),
    ("UNSUBSCRIBE without a filter", "a2 02 0001"),
    ("UNSUBSCRIBE 0", "a2 05 0000 0001 'a'"),
    ("UNSUBSCRIBE with an empty filter", "a2 04 0001 0000"),
    ("DISCONNECT with flags", "e1 00"),
    ("DISCONNECT with a reason", "e0 01 00"),
];

/// Whole first packets that are no good CONNECT.
const FIRST: &[(&str, &str)] = &[
    ("PUBLISH", "30 03 0001 'a'"),
    ("SUBSCRIBE", "82 06 0001 0001 'a' 00"),
    ("PINGREQ", "c0 00"),
    ("DISCONNECT", "e0 00"),
    ("AUTH", "f0 00"),
    ("PUBREL", "62 02 0001"),
    ("reserved type 0", "00 00"),
    ("HTTP", "'GET / HTTP/1.1' 0d0a 0d0a"),
    ("TLS", "16 03 01 02 00 01 00 01 fc 03 03"),
    ("CONNECT with flags", "11 0d 0004 'MQTT' 04 02 003c 0001 'x'"),
    ("an empty CONNECT", "10 00"),
    ("CONNECT that ends in the name", "10 04 0004 'MQ'"),
    ("CONNECT without a client id", "10 0a 0004 'MQTT' 04 02 003c"),
    ("CONNECT with bytes left over", "10 0e 0004 'MQTT' 04 02 003c 0001 'x' 00"),
    ("CONNECT of MQTT 5 without properties", "10 0d 0004 'MQTT' 05 02 003c 0001 'x'"),
    ("CONNECT with properties past the end", "10 0e 0004 'MQTT' 05 02 003c 7f 0001 'x'"),
    ("CONNECT with an unknown property", "10 10 0004 'MQTT' 05 02 003c 02 7f 00 0001 'x'"),
    ("a client id that isn't UTF-8", "10 0d 0004 'MQTT' 04 02 003c 0001 ff"),
    ("a client id with U+0000", "10 0d 0004 'MQTT' 04 02 003c 0001 00"),
    ("a user name that isn't UTF-8", "10 10 0004 'MQTT' 04 82 003c 0001 'x' 0001 ff"),
    ("remaining length of five bytes", "10 80 80 80 80 01"),
    ("lengths that lie", "10 07 0004 'MQTT' 04 c2 003c 000b 'test-client' 0005 'admin' 0008 'password'"),
];

fn bytes(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for (n, part) in text.split('\'').enumerate() {
        if n % 2 == 1 {
            out.extend(part.as_bytes());
        } else {
            let digits: String = part.split_whitespace().collect();
            out.extend(hex::decode(&digits).unwrap_or_else(|error| panic!("{text}: {error}")));
        }
    }
    out
}

/// A connection that must not notice anything.
struct Bystander {
    client: Client,
    count: u32,
}

impl Bystander {
    fn new(broker: &Broker) -> Self {
        let mut client = broker.clean(Version::V5, "bystander");
        client.subscribe(&[("quiet/place", 1)]);
        Self { client, count: 0 }
    }

    #[track_caller]
    fn is_undisturbed(&mut self) {
        self.count += 1;
        let text = self.count.to_string();
        self.client.send(&Publish::new("quiet/place", &text).encode(Version::V5));
        assert_eq!(self.client.take().text(), text);
    }
}

#[test]
fn every_fault_of_mqtt_5_has_its_reason() {
    let broker = Broker::start();
    let mut bystander = Bystander::new(&broker);
    let mut wrong = Vec::new();
    for (what, text, reasons) in MQTT_5 {
        let mut client = broker.clean(Version::V5, "faulty");
        client.try_send(&bytes(text));
        let end = client.end_within(Duration::from_secs(2));
        if !matches!(end, Some(End::Disconnected(reason)) if reasons.contains(&reason)) {
            wrong.push(format!("{what}: {end:02x?} instead of {reasons:02x?}"));
        }
        bystander.is_undisturbed();
    }
    assert!(wrong.is_empty(), "{} faults:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_fault_of_mqtt_3_closes_without_a_word() {
    let broker = Broker::start();
    let mut bystander = Bystander::new(&broker);
    for version in [Version::V31, Version::V311] {
        for (what, text) in MQTT_3 {
            let mut client = broker.clean(version, "faulty");
            client.try_send(&bytes(text));
            assert_eq!(client.recv_or_end(), None, "{what} in {version:?}");
            bystander.is_undisturbed();
        }
    }
}

#[test]
fn nothing_but_a_good_connect_opens_a_session() {
    let broker = Broker::start();
    let mut bystander = Bystander::new(&broker);
    for (what, text) in FIRST {
        let version = if text.contains("'MQTT' 05") { Version::V5 } else { Version::V311 };
        let mut client = Client::raw(broker.mqtt(), version);
        client.try_send(&bytes(text));
        let end = client.end();
        assert!(matches!(end, End::Closed | End::Refused(_)), "{what}: {end:?}");
        bystander.is_undisturbed();
    }
}

#[test]
fn a_fault_after_good_packets_does_not_undo_them() {
    let broker = Broker::start();
    let mut watcher = broker.clean(Version::V5, "watcher");
    watcher.subscribe(&[("t", 0)]);
    let mut client = broker.clean(Version::V5, "faulty");
    let mut packets = Publish::new("t", "good").encode(Version::V5);
    packets.extend([0xc1, 0]);
    packets.extend(Publish::new("t", "bad").encode(Version::V5));
    client.try_send(&packets);
    assert_eq!(client.end(), End::Disconnected(0x81));
    assert_eq!(watcher.take().text(), "good");
    watcher.quiet();
}

#[test]
fn packets_may_come_byte_by_byte() {
    let broker = Broker::start();
    for version in Version::ALL {
        let mut client = Client::raw(broker.mqtt(), version);
        let mut all = Connect::new(version, "slow").encode();
        all.extend(wire::subscribe(version, 1, &[("t", 0)], &[]));
        all.extend(Publish::new("t", "whole").encode(version));
        for byte in all {
            client.send(&[byte]);
        }
        assert!(matches!(client.recv(), Packet::ConnAck(_)));
        let _ = client.ack_in(9);
        assert_eq!(client.take().text(), "whole");
    }
}

#[test]
fn who_never_finishes_connect_is_cut_off() {
    let broker = Setup::anonymous().config("[limits]\nconnect_timeout_ms = 1000\n").start();
    let connect = Connect::new(Version::V311, "slow-loris").encode();
    let mut silent = Client::raw(broker.mqtt(), Version::V311);
    let mut dripping = Client::raw(broker.mqtt(), Version::V311);
    let begin = Instant::now();
    // A byte now and then buys no time.
    let mut sent = 0;
    until("the dripping client is cut off", SOON, || {
        let byte = connect[sent.min(connect.len() - 2)];
        if sent < connect.len() - 1 && begin.elapsed() > Duration::from_millis(100) * u32::try_from(sent).expect("few")
        {
            sent += 1;
            if !dripping.try_send(&[byte]) {
                return Some(());
            }
        }
        let mut stream: &TcpStream = dripping.stream();
        stream.set_nonblocking(true).expect("non-blocking");
        let read = stream.read(&mut [0]);
        stream.set_nonblocking(false).expect("blocking");
        matches!(read, Ok(0)).then_some(())
    });
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
    assert_eq!(silent.end(), End::Closed);
}

#[test]
fn an_announced_size_costs_no_memory() {
    let broker = Broker::start();
    let before = broker.memory();
    let mut held = Vec::new();
    // Before CONNECT, and after it: as much as the limit allows is announced, and nothing comes.
    for n in 0..200 {
        let mut client = Client::raw(broker.mqtt(), Version::V311);
        client.try_send(&[0x10, 0xff, 0xff, 0x3f]);
        held.push(client);
        let mut client = broker.clean(Version::V311, &format!("announcer{n}"));
        client.send(&[0x30, 0xff, 0xff, 0x3f]);
        held.push(client);
    }
    let mut bystander = Bystander::new(&broker);
    bystander.is_undisturbed();
    let grown = broker.memory().saturating_sub(before);
    assert!(grown < 40 << 20, "{grown} bytes for 200 announced megabytes");
}

#[test]
fn unfinished_packets_of_strangers_are_bounded_together() {
    let limits = "[limits]\npartial_bytes_max = 4_194_304\npacket_bytes_max = 1_048_576\n";
    let broker = Setup::anonymous().config(limits).start();
    let mut bystander = Bystander::new(&broker);
    let before = broker.memory();
    // A CONNECT of 65,532 bytes, all but the last few.
    let begun = [&[0x10, 0xfc, 0xff, 0x03][..], &[0; 65_000]].concat();
    let held: Vec<_> = (0..500)
        .map(|_| {
            let mut client = Client::raw(broker.mqtt(), Version::V311);
            client.try_send(&begun);
            client
        })
        .collect();
    bystander.is_undisturbed();
    let metric = |name: &str| {
        let metrics = broker.http().get("/metrics").body;
        let line = metrics.lines().find(|line| line.starts_with(name)).expect("the metric").to_owned();
        line.rsplit(' ').next().and_then(|value| value.parse::<u64>().ok()).expect("a number")
    };
    let closed = r#"turnpike_connections_ended_total{reason="partial_bytes"}"#;
    until("who is too much is closed", SOON, || (metric(closed) > 400).then_some(()));
    assert!(metric("turnpike_partial_bytes") <= 2 << 20);
    let grown = broker.memory().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes");
    drop(held);
    until("what they held is gone", SOON, || (metric("turnpike_partial_bytes") == 0).then_some(()));
}

#[test]
fn large_first_packets_are_not_taken() {
    let broker = Broker::start();
    let before = broker.memory();
    let block = vec![1u8; 1 << 20];
    for kind in 2..=15u8 {
        let mut client = Client::raw(broker.mqtt(), Version::V311);
        client.try_send(&[kind << 4, 0x80, 0x80, 0x80, 0x74]);
        for _ in 0..20 {
            if !client.try_send(&block) {
                break;
            }
        }
    }
    Bystander::new(&broker).is_undisturbed();
    let grown = broker.memory().saturating_sub(before);
    assert!(grown < 20 << 20, "{grown} bytes");
}

/// A sequence that is the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit).expect("fits")).expect("fits")
    }
}

#[test]
fn garbage_changes_nothing() {
    let broker = Broker::start();
    let mut bystander = Bystander::new(&broker);
    let mut random = Random(0x7475_726e_7069_6b65);
    let good: Vec<Vec<u8>> = vec![
        Publish::new("a/b", "payload").qos(1, 5).prop(wire::user("k", "v")).encode(Version::V5),
        wire::subscribe(Version::V5, 3, &[("a/+", 1), ("$share/g/b", 0)], &[wire::Prop::SubscriptionId(7)]),
        wire::unsubscribe(Version::V5, 4, &["a/+"]),
        wire::ack(6, 5, 0),
        wire::disconnect(4, &[wire::Prop::SessionExpiry(0)]),
    ];
    let mut memory = 0;
    for round in 0..3000 {
        let version = Version::ALL[random.below(3)];
        let mut client =
            if random.below(4) == 0 { Client::raw(broker.mqtt(), version) } else { broker.clean(version, "garbage") };
        for _ in 0..1 + random.below(4) {
            let mut packet = good[random.below(good.len())].clone();
            match random.below(3) {
                0 => packet = (0..random.below(64)).map(|_| random.next().to_be_bytes()[0]).collect(),
                1 => {
                    let at = random.below(packet.len());
                    packet[at] = random.next().to_be_bytes()[0];
                }
                _ => packet.truncate(random.below(packet.len())),
            }
            if !client.try_send(&packet) {
                break;
            }
        }
        client.drop_connection();
        if round % 100 == 0 {
            bystander.is_undisturbed();
        }
        if round == 1000 {
            memory = broker.memory();
        }
    }
    bystander.is_undisturbed();
    let grown = broker.memory().saturating_sub(memory);
    assert!(grown < 16 << 20, "{grown} bytes for 2000 rounds of garbage");
}
