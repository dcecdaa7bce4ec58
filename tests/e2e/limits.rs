//! What a client sees that is too fast, by MQTT version and QoS; and limits that change while it is connected.
//!
//! The limits allow one message a day, so that whatever a test waits for comes because the limit was lifted, not because time passed.

use turnpike_tests::broker::{Broker, Setup};
use turnpike_tests::client::Client;
use turnpike_tests::credential::{PRODUCT, SECRET, native};
use turnpike_tests::time::{SOON, until};
use turnpike_tests::wire::{Connect, PINGREQ, Packet, Publish, Version, ack};

use crate::gate::{register, registered};

/// What becomes of messages above the rate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Seen {
    /// They are read later.
    Slowed,
    /// 0x97 on the acknowledgement.
    Refused,
    /// Nothing: they are gone.
    Dropped,
}

const DEFAULT: &str = "{}";
const REFUSE: &str = r#"{"refuse_acked": true}"#;
const DROP: &str = r#"{"drop_unacked": true}"#;
const BOTH: &str = r#"{"refuse_acked": true, "drop_unacked": true}"#;

fn limits_path() -> String {
    format!("/api/v1/products/{PRODUCT}/limits")
}

fn device_path(device: &str, rest: &str) -> String {
    format!("/api/v1/products/{PRODUCT}/devices/{device}{rest}")
}

#[track_caller]
fn put(broker: &Broker, path: &str, body: &str) {
    let answer = broker.http().put(path, body);
    assert!((200..300).contains(&answer.status), "{path} {body}: {answer:?}");
    settled(broker);
}

/// What was changed has reached the shards: they answer for their figures after it.
#[track_caller]
fn settled(broker: &Broker) {
    assert_eq!(broker.http().get("/metrics").status, 200);
}

#[track_caller]
fn lift(broker: &Broker, path: &str) {
    assert_eq!(broker.http().delete(path).status, 204);
}

#[track_caller]
fn metric(broker: &Broker, name: &str) -> f64 {
    let text = broker.http().get("/metrics").body;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    line.unwrap_or_else(|| panic!("no {name} in {text}"))
}

#[track_caller]
fn device(broker: &Broker, version: Version, name: &str) -> Client {
    let login = native(&format!("client-of-{name}"), name, SECRET);
    broker.client(&Connect::new(version, &login.client_id).login(&login.user, &login.password))
}

/// What a client has got of what it sent itself.
#[derive(Default, PartialEq, Eq, Debug)]
struct Got {
    messages: Vec<Vec<u8>>,
    /// Code by packet identifier.
    acks: Vec<(u16, u8)>,
    pings: usize,
}

impl Got {
    #[track_caller]
    fn take(&mut self, packet: Packet) {
        match packet {
            Packet::Publish(publish) => self.messages.push(publish.payload),
            Packet::PubAck(ack) | Packet::PubRec(ack) => {
                self.acks.push((ack.id, ack.codes.first().copied().unwrap_or(0)));
            }
            Packet::PingResp => self.pings += 1,
            other => panic!("{other:?}"),
        }
    }

    fn count(&self) -> usize {
        self.messages.len() + self.acks.len() + self.pings
    }
}

#[track_caller]
fn take(client: &mut Client, packets: usize) -> Got {
    let mut got = Got::default();
    while got.count() < packets {
        got.take(client.recv());
    }
    got
}

/// Sends three messages and a PINGREQ at once with a rate of one a day, and lifts the limit.
#[track_caller]
fn above_the_rate(broker: &Broker, name: &str, (version, qos, excess): (Version, u8, &str)) -> Seen {
    let case = format!("{version:?}, QoS {qos}, {excess}");
    let mut client = device(broker, version, name);
    let topic = format!("dev/{PRODUCT}/{name}/sys/echo");
    assert_eq!(client.subscribe(&[(&topic, 0)]), [0]);
    put(broker, &limits_path(), &format!(r#"{{"each_device": {{"messages": "1/1d"}}, "excess": {excess}}}"#));
    let throttled = metric(broker, "turnpike_connections_throttled_total");
    let dropped = metric(broker, r#"turnpike_messages_dropped_total{reason="rate_limited"}"#);
    let received = metric(broker, "turnpike_packets_received_total");
    let mut bytes = Vec::new();
    for id in 1..=3 {
        bytes.extend(Publish::new(&topic, id.to_string()).qos(qos, id).encode(version));
    }
    client.send(&[&bytes[..], &PINGREQ].concat());
    until("the client isn't read any more", SOON, || {
        (metric(broker, "turnpike_connections_throttled_total") > throttled).then_some(())
    });
    let acked = usize::from(qos > 0);
    let lost = metric(broker, r#"turnpike_messages_dropped_total{reason="rate_limited"}"#) - dropped;
    let seen = if lost == 0.0 {
        // The first is taken; the others will be when it is paid for.
        let before = take(&mut client, 1 + acked);
        assert_eq!(before.messages, [b"1"], "{case}");
        assert!(before.acks.iter().all(|(_, code)| *code == 0), "{case}: {before:?}");
        Seen::Slowed
    } else {
        // What isn't taken isn't paid for either; the PINGREQ is.
        let before = take(&mut client, 1 + 3 * acked + 1);
        assert_eq!((before.messages.as_slice(), before.pings), (&[b"1".to_vec()][..], 1), "{case}");
        assert_eq!(lost, 2.0, "{case}");
        match qos {
            0 => Seen::Dropped,
            _ => {
                assert_eq!(before.acks, [(1, 0), (2, 0x97), (3, 0x97)], "{case}");
                Seen::Refused
            }
        }
    };
    let read = if seen == Seen::Slowed { 1.0 } else { 4.0 };
    assert_eq!(metric(broker, "turnpike_packets_received_total") - received, read, "{case}: nothing more is read");
    lift(broker, &limits_path());
    if seen == Seen::Slowed {
        let after = take(&mut client, 2 + 2 * acked + 1);
        assert_eq!((after.messages.len(), after.acks.len(), after.pings), (2, 2 * acked, 1), "{case}: nothing is lost");
    }
    if qos == 2 {
        let taken = if seen == Seen::Slowed { 3 } else { 1 };
        for id in 1..=taken {
            client.send(&ack(6, id, 0));
            assert_eq!(client.ack_in(7).id, id, "{case}");
        }
    }
    // It is the same connection still.
    client.quiet();
    seen
}

#[test]
fn each_version_and_qos_sees_its_limit_as_the_table_says() {
    let broker = registered();
    let mut number = 0;
    let mut faults = Vec::new();
    for version in Version::ALL {
        for qos in 0..=2 {
            for excess in [DEFAULT, REFUSE, DROP, BOTH] {
                let expected = match (version, qos, excess) {
                    (Version::V5, 0, DROP | BOTH) => Seen::Dropped,
                    (Version::V5, 1 | 2, REFUSE | BOTH) => Seen::Refused,
                    // An acknowledgement of what was dropped would be a lie, and MQTT 3 has no other word.
                    _ => Seen::Slowed,
                };
                number += 1;
                let name = format!("d{number}");
                put(&broker, &device_path(&name, ""), &format!(r#"{{"secret": "{SECRET}"}}"#));
                let seen = above_the_rate(&broker, &name, (version, qos, excess));
                if seen != expected {
                    faults.push(format!("{version:?} QoS {qos} {excess}: {seen:?}, not {expected:?}"));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_flood_of_pings_counts_too() {
    let broker = registered();
    for version in Version::ALL {
        let mut client = device(&broker, version, "one");
        put(&broker, &device_path("one", "/limits"), r#"{"messages": "1/1d"}"#);
        let throttled = metric(&broker, "turnpike_connections_throttled_total");
        let received = metric(&broker, "turnpike_packets_received_total");
        client.send(&PINGREQ.repeat(100));
        assert_eq!(take(&mut client, 1).pings, 1, "{version:?}");
        until("the client isn't read any more", SOON, || {
            (metric(&broker, "turnpike_connections_throttled_total") > throttled).then_some(())
        });
        assert_eq!(metric(&broker, "turnpike_packets_received_total") - received, 1.0, "{version:?}");
        lift(&broker, &device_path("one", "/limits"));
        assert_eq!(take(&mut client, 99).pings, 99, "{version:?}");
        client.disconnect();
    }
}

#[test]
fn a_product_as_a_whole_has_a_limit_and_a_device_one_of_its_own() {
    let mut broker = registered();
    let refuse = r#""excess": {"refuse_acked": true}"#;
    put(&broker, &limits_path(), &format!(r#"{{"product": {{"messages": "1/1d"}}, {refuse}}}"#));
    let up = |name: &str| format!("dev/{PRODUCT}/{name}/up/x");
    let mut one = device(&broker, Version::V5, "one");
    let mut two = device(&broker, Version::V5, "two");
    assert!(one.publish(&Publish::new(&up("one"), "x").qos(1, 1)) < 0x80);
    assert_eq!(two.publish(&Publish::new(&up("two"), "x").qos(1, 1)), 0x97, "the other has had it");
    put(&broker, &limits_path(), &format!("{{{refuse}}}"));
    put(&broker, &device_path("two", "/limits"), r#"{"messages": "1/1d", "bytes": "1000/1s"}"#);
    assert!(two.publish(&Publish::new(&up("two"), "x").qos(1, 2)) < 0x80);
    assert_eq!(two.publish(&Publish::new(&up("two"), "x").qos(1, 3)), 0x97);
    assert!(one.publish(&Publish::new(&up("one"), "x").qos(1, 2)) < 0x80);
    assert!(one.publish(&Publish::new(&up("one"), "x").qos(1, 3)) < 0x80, "it has none");
    // What was answered has reached the disk.
    broker.kill();
    broker.restart();
    let own = broker.http().get(&device_path("two", "/limits")).json();
    assert_eq!(own, serde_json::json!({ "messages": "1/1d", "bytes": "1000/1s" }));
    let product = broker.http().get(&limits_path()).json();
    assert_eq!(product, serde_json::json!({ "excess": { "refuse_acked": true, "drop_unacked": false } }));
    let mut two = device(&broker, Version::V5, "two");
    assert!(two.publish(&Publish::new(&up("two"), "x").qos(1, 1)) < 0x80);
    assert_eq!(two.publish(&Publish::new(&up("two"), "x").qos(1, 2)), 0x97);
    lift(&broker, &device_path("two", "/limits"));
    settled(&broker);
    assert!(two.publish(&Publish::new(&up("two"), "x").qos(1, 3)) < 0x80);
    assert_eq!(broker.http().get(&device_path("two", "/limits")).status, 404);
}

/// The answer to a message of QoS 1; what else comes is no matter here.
#[track_caller]
fn acked(client: &mut Client, id: u16) -> u8 {
    loop {
        match client.recv() {
            Packet::PubAck(ack) => {
                assert_eq!(ack.id, id);
                return ack.code();
            }
            Packet::Publish(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// How many messages of QoS 1 the broker takes of many connections at once, which all have sent theirs before the first answer is read. The others are
/// refused with 0x97.
#[track_caller]
pub(crate) fn taken_of(clients: &mut [Client], topic: &str, each: u16) -> usize {
    for client in &mut *clients {
        let publish = |id: u16| Publish::new(topic, "x").qos(1, id).encode(Version::V5);
        client.send(&(1..=each).flat_map(publish).collect::<Vec<u8>>());
    }
    let mut codes = Vec::new();
    for client in clients {
        codes.extend((1..=each).map(|id| acked(client, id)));
    }
    let taken = codes.iter().filter(|code| **code < 0x80).count();
    assert_eq!(codes.iter().filter(|code| **code == 0x97).count(), codes.len() - taken, "{codes:02x?}");
    taken
}

#[test]
fn many_connections_of_one_device_have_the_rate_of_one() {
    let limits = "[limits.device]\nmessages = \"5/1h\"\n[limits.excess]\nrefuse_acked = true\n";
    let broker = Setup::closed().config(&format!("shards = 2\n{limits}")).start();
    register(&broker);
    let connect = |client: &str, name: &str| {
        let login = native(client, name, SECRET);
        broker.client(&Connect::new(Version::V5, &login.client_id).login(&login.user, &login.password))
    };
    let up = |name: &str| format!("dev/{PRODUCT}/{name}/up/x");
    let mut clients: Vec<Client> = (0..20).map(|n| connect(&format!("client-{n}"), "one")).collect();
    assert_eq!(taken_of(&mut clients, &up("one"), 40), 5);
    // Nor does any of them have more when it comes again, or another, while the others are there and when all are gone.
    for gone in [false, true] {
        for n in [0, 19, 20] {
            let again = connect(&format!("client-{n}"), "one");
            assert_eq!(taken_of(&mut [again], &up("one"), 3), 0, "{n}, {gone}");
        }
        clients.drain(..).for_each(Client::drop_connection);
        until("they are gone", SOON, || (metric(&broker, "turnpike_clients") == 0.0).then_some(()));
    }
    assert_eq!(taken_of(&mut [connect("other", "two")], &up("two"), 40), 5, "another device");
}

#[test]
fn who_reconnects_between_messages_has_the_rate_of_who_stays() {
    let limits = "[limits.device]\nmessages = \"5/1h\"\n[limits.excess]\nrefuse_acked = true\n";
    let broker = Setup::closed().config(limits).start();
    register(&broker);
    let topic = format!("dev/{PRODUCT}/one/up/x");
    let one_each = |n: usize| {
        let mut client = device(&broker, Version::V5, "one");
        let taken = taken_of(std::slice::from_mut(&mut client), &topic, 1);
        // In good order, or not.
        if n.is_multiple_of(2) {
            client.disconnect();
        } else {
            client.drop_connection();
        }
        taken
    };
    assert_eq!((0..20).map(one_each).collect::<Vec<_>>(), [[1; 5].as_slice(), &[0; 15]].concat());
}

#[test]
fn who_reconnects_is_not_read_before_what_it_owes_is_paid() {
    let broker = registered();
    let topic = format!("dev/{PRODUCT}/one/up/x");
    for version in Version::ALL {
        // The rate of the product as a whole, too: nobody's own is above it.
        for limits in [r#"{"each_device": {"messages": "1/1d"}}"#, r#"{"product": {"messages": "1/1d"}}"#] {
            put(&broker, &limits_path(), limits);
            let throttled = || metric(&broker, "turnpike_connections_throttled_total");
            let mut before = throttled();
            let connect = |client: usize| {
                let login = native(&format!("c{client}"), "one", SECRET);
                broker.client(&Connect::new(version, &login.client_id).login(&login.user, &login.password))
            };
            // Each is taken, and all wait for all: longer than the test can take.
            let clients: Vec<Client> = (0..10).map(connect).collect();
            for mut client in clients {
                assert!(client.publish(&Publish::new(&topic, "x").qos(1, 1)) < 0x80);
                until("the client isn't read any more", SOON, || (throttled() > before).then_some(()));
                client.drop_connection();
                before = throttled();
            }
            let mut again = connect(0);
            until("nor is the next", SOON, || (throttled() > before).then_some(()));
            lift(&broker, &limits_path());
            again.quiet();
            again.disconnect();
        }
    }
}

#[test]
fn limits_that_are_none_are_refused_and_not_repeated() {
    let broker = registered();
    for body in [
        r#"{"each_device": {"messages": "many-s3nt"}}"#,
        r#"{"each_device": {"message": "1/s"}}"#,
        r#"{"each_device": "1/s"}"#,
        r#"{"product": {"bytes": "0/1s"}}"#,
        r#"{"excess": {"refuse_acked": 1}}"#,
        r#"{"s3nt": {}}"#,
        "[]",
        "",
    ] {
        let answer = broker.http().put(&limits_path(), body);
        assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (400, Some("invalid")), "{body}");
        assert!(!answer.body.contains("s3nt"), "{answer:?}");
    }
    assert_eq!(broker.http().put(&device_path("one", "/limits"), r#"{"messages": "x"}"#).status, 400);
    assert_eq!(broker.http().put(&device_path("nobody", "/limits"), r#"{"messages": "1/s"}"#).status, 404);
    assert_eq!(broker.http().put("/api/v1/products/nothing/limits", "{}").status, 404);
    assert_eq!(broker.http().get(&limits_path()).json(), serde_json::json!({}));
    put(&broker, &limits_path(), r#"{"product": {"bytes": "1/s"}}"#);
    let records = broker.http().get("/api/v1/audit?action=product_limits").json();
    assert_eq!(records["records"].as_array().map(Vec::len), Some(1), "{records}");
}

#[test]
fn sighup_changes_the_limits_of_all_under_live_sessions() {
    let configure = |messages: &str| format!("[limits.device]\nmessages = \"{messages}\"\n");
    let broker = Setup::closed().config(&configure("unlimited")).start();
    register(&broker);
    let reload = |messages: &str, times: usize| {
        std::fs::write(broker.folder().join("turnpike.toml"), configure(messages)).expect("written");
        broker.signal(libc::SIGHUP);
        until("it is reloaded", SOON, || (broker.log().matches("reloaded").count() == times).then_some(()));
        settled(&broker);
    };
    let mut client = device(&broker, Version::V311, "one");
    client.quiet();
    reload("1/1d", 1);
    let up = Publish::new(&format!("dev/{PRODUCT}/one/up/x"), "x");
    let bytes: Vec<u8> = (1..=3).flat_map(|id| up.clone().qos(1, id).encode(Version::V311)).collect();
    client.send(&bytes);
    assert_eq!(client.ack_in(4).id, 1);
    until("the client isn't read any more", SOON, || {
        (metric(&broker, "turnpike_connections_throttled_total") > 0.0).then_some(())
    });
    reload("unlimited", 2);
    assert_eq!((client.ack_in(4).id, client.ack_in(4).id), (2, 3));
    client.quiet();
}

#[test]
fn who_connects_too_often_hears_it_in_the_words_of_its_version() {
    let reason = |version, five: u8| if version == Version::V5 { five } else { 3 };
    let code = |broker: &Broker, version| {
        let login = native("c", "one", SECRET);
        Client::open(broker.mqtt(), &Connect::new(version, &login.client_id).login(&login.user, &login.password))
    };
    for version in Version::ALL {
        let broker = Setup::closed().config("[limits.address]\nconnects = \"1/1d\"\n").start();
        register(&broker);
        assert_eq!(code(&broker, version).1.code, 0);
        assert_eq!(code(&broker, version).1.code, reason(version, 0x9F), "{version:?}");

        let broker = Setup::closed().config("[limits.address]\nconnections_max = 1\n").start();
        register(&broker);
        let (first, ack) = code(&broker, version);
        assert_eq!(ack.code, 0);
        assert_eq!(code(&broker, version).1.code, reason(version, 0x97), "{version:?}");
        first.drop_connection();
        until("there is room again", SOON, || (code(&broker, version).1.code == 0).then_some(()));
    }
}

#[test]
fn an_address_with_far_too_many_connections_is_closed_at_accept() {
    let broker = Setup::closed().config("[limits.address]\nconnections_max = 2\n").start();
    // Twice as many and sixteen are told; beyond it, nothing is said.
    let held: Vec<Client> = (0..20).map(|_| Client::raw(broker.mqtt(), Version::V5)).collect();
    until("they are accepted", SOON, || (metric(&broker, "turnpike_connections") >= 20.0).then_some(()));
    let mut next = Client::raw(broker.mqtt(), Version::V5);
    assert_eq!(next.recv_or_end(), None);
    assert!(metric(&broker, "turnpike_connections_turned_away_total") >= 1.0);
    drop(held);
}

#[test]
fn the_api_has_several_windows_at_once() {
    let broker = Setup::closed().config("[limits.address]\nrequests = \"1000/1s, 5/1d, 1000/1h\"\n").start();
    for _ in 0..5 {
        assert_eq!(broker.http().get("/api/v1/products").status, 200);
    }
    let answer = broker.http().get("/api/v1/products");
    assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (429, Some("too_many_requests")));
    let after = answer.head.lines().find_map(|line| line.strip_prefix("retry-after: ")?.trim().parse::<u64>().ok());
    assert!(after.is_some_and(|seconds| seconds > 3600), "the longest that is full says when: {answer:?}");
}

#[test]
fn one_device_cannot_use_up_the_room_for_nonces_and_its_end_is_told() {
    let broker = Setup::closed().config("nonces_max = 1000\n").start();
    let http = broker.http();
    assert!(http.put(&format!("/api/v1/products/{PRODUCT}"), "{}").status < 300);
    let devices: String = (0..30).map(|n| format!("d{n},{SECRET}\n")).collect();
    let import = format!("/api/v1/products/{PRODUCT}/devices/import");
    assert_eq!(http.post(&import, "text/csv", &format!("device,secret\n{devices}")).status, 200);
    let log_in = |device: usize| {
        let login = native("c", &format!("d{device}"), SECRET);
        let connect = Connect::new(Version::V5, "c").login(&login.user, &login.password);
        Client::open(broker.mqtt(), &connect).1.code
    };
    let mut codes = (0..200).map(|_| log_in(0));
    let let_in = codes.by_ref().take_while(|code| *code == 0).count();
    assert!((100..140).contains(&let_in), "an eighth of 1,000, not {let_in}");
    assert!(codes.all(|code| code == 0x9f));
    assert_eq!(log_in(1), 0, "nobody else is kept out");
    assert_eq!(http.get("/readyz").json()["degraded"], serde_json::json!([]));
    // All of them together can.
    let full = (0..2000).map(|n| log_in(1 + n % 29)).any(|code| code == 0x97);
    assert!(full);
    let ready = http.get("/readyz");
    assert!(ready.status == 200 && ready.json()["degraded"][0].as_str().is_some_and(|why| why.contains("nonces")));
    broker.wait_for_log("used nonces find no room");
    let told = || http.get("/api/v1/audit?action=nonces_full").json()["records"].as_array().map(Vec::len);
    until("it is on record", SOON, || (told() == Some(1)).then_some(()));
    let metrics = http.get("/metrics").body;
    assert!(metrics.contains("turnpike_logins_refused_total{reason=\"nonces_full\"} 1"), "{metrics}");
    assert!(metrics.contains("turnpike_nonces{what=\"most\"} 1008"));
}
