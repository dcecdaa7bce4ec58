//! Stored data: a device hands in what it kept, a durable back end gets each record once.

mod held;

use serde_json::{Value, json};
use turnpike_tests::broker::{Broker, Setup};
use turnpike_tests::client::{Client, End};
use turnpike_tests::credential::{PRODUCT, native, now_ms, service};
use turnpike_tests::time::{SOON, until};
use turnpike_tests::wire::{Connect, Packet, Prop, Publish, Version};

const SECRET: &str = "000102030405060708090a0b0c0d0e0f";
const SERVICE_SECRET: &str = "0123456789abcdef0123456789abcdef-of-a-service";

/// A broker with the devices `one` and `two`, and a service that may read.
fn house(config: &str) -> Broker {
    let broker = Setup::closed().config(config).start();
    let http = broker.http();
    assert_eq!(http.put(&format!("/api/v1/products/{PRODUCT}"), "{}").status, 201);
    put_device(&broker, "one");
    put_device(&broker, "two");
    let body = json!({ "secret": SERVICE_SECRET, "grants": [{ "rights": ["read_up", "read_system"] }] });
    let made = http.put("/api/v1/services/reader", &body.to_string());
    assert!(matches!(made.status, 200 | 201), "{made:?}");
    broker
}

fn put_device(broker: &Broker, device: &str) {
    let path = format!("/api/v1/products/{PRODUCT}/devices/{device}");
    assert_eq!(broker.http().put(&path, &json!({ "secret": SECRET }).to_string()).status, 201);
}

/// A device that hears its answers.
fn device(broker: &Broker, version: Version, name: &str) -> Client {
    let login = native(&format!("{name}-{}", now_ms()), name, SECRET);
    let mut client = broker.client(&Connect::new(version, &login.client_id).login(&login.user, &login.password));
    assert_eq!(client.subscribe(&[(&format!("dev/{PRODUCT}/{name}/backfill/+"), 1)]), [1]);
    client
}

/// A back end whose session outlives its connections.
fn back_end(broker: &Broker, version: Version) -> Client {
    let login = service("reader", "reader", SERVICE_SECRET);
    broker.client(&Connect::durable(version, "reader", 3600).login(&login.user, &login.password))
}

fn record(boot: u64, seq: u64, topic: &str, payload: &str) -> Value {
    json!({ "boot": boot, "seq": seq, "ts": now_ms(), "topic": topic, "payload": payload })
}

fn records(boot: u64, seqs: impl IntoIterator<Item = u64>) -> Value {
    seqs.into_iter().map(|seq| record(boot, seq, "up/temp", &format!("{boot}-{seq}"))).collect::<Vec<_>>().into()
}

/// Hands in a batch; the reason code of the acknowledgement, and what is answered.
fn hand_in(client: &mut Client, name: &str, batch: &Value) -> (u8, String, Value) {
    let publish = Publish::new(&format!("dev/{PRODUCT}/{name}/backfill"), batch.to_string()).qos(1, 1);
    client.send(&publish.encode(client.version()));
    let (mut code, mut answer) = (None, None);
    while code.is_none() || answer.is_none() {
        match client.take_either() {
            Packet::Publish(publish) => {
                let what = publish.topic.rsplit('/').next().unwrap_or_default().to_owned();
                let payload: Value = serde_json::from_str(publish.text()).expect("JSON");
                answer = Some((what, payload));
            }
            Packet::PubAck(found) => code = Some(found.code()),
            other => panic!("{other:?}"),
        }
    }
    let (what, payload) = answer.expect("an answer");
    (code.expect("an acknowledgement"), what, payload)
}

/// So many messages, acknowledged.
fn collect(back_end: &mut Client, count: usize) -> Vec<Publish> {
    (0..count).map(|_| back_end.take()).collect()
}

fn texts(publishes: &[Publish]) -> Vec<&str> {
    publishes.iter().map(Publish::text).collect()
}

#[test]
fn each_record_comes_on_its_own_topic_in_order_and_says_that_it_is_history() {
    let broker = house("");
    for version in [Version::V311, Version::V5] {
        let mut reader = back_end(&broker, version);
        assert_eq!(reader.subscribe(&[(&format!("dev/{PRODUCT}/+/up/#"), 1)]), [1]);
        let name = if version == Version::V5 { "one" } else { "two" };
        let mut client = device(&broker, version, name);
        let ts = now_ms() - 3_600_000;
        let mut batch = records(1, 1..=3);
        batch[1]["ts"] = ts.into();
        batch[2]["topic"] = format!("dev/{PRODUCT}/{name}/up/door").into();
        let (code, what, said) = hand_in(&mut client, name, &batch);
        assert_eq!((code, what.as_str()), (0, "ack"));
        assert_eq!(said, json!({ "boot": 1, "upto": 3, "gaps": [], "taken": 3, "known": 0 }));
        let got = collect(&mut reader, 3);
        assert_eq!(texts(&got), ["1-1", "1-2", "1-3"]);
        let topics: Vec<_> = got.iter().map(|publish| publish.topic.as_str()).collect();
        let whole = |rest: &str| format!("dev/{PRODUCT}/{name}/up/{rest}");
        assert_eq!(topics, [whole("temp"), whole("temp"), whole("door")]);
        if version == Version::V5 {
            let expected = [Prop::User("ts".into(), ts.to_string()), Prop::User("historical".into(), "1".into())];
            assert_eq!(got[1].props, expected);
        }
        reader.disconnect();
    }
}

#[test]
fn what_was_taken_is_known_and_gaps_are_named() {
    let broker = house("");
    let mut reader = back_end(&broker, Version::V5);
    reader.subscribe(&[(&format!("dev/{PRODUCT}/+/up/#"), 1)]);
    let mut client = device(&broker, Version::V5, "one");
    let said = |client: &mut Client, batch: &Value| hand_in(client, "one", batch).2;
    let answer = |upto: u64, gaps: Value, taken: u64, known: u64| json!({ "boot": 7, "upto": upto, "gaps": gaps, "taken": taken, "known": known });
    assert_eq!(said(&mut client, &records(7, [1, 2, 5])), answer(2, json!([[3, 4]]), 3, 0));
    assert_eq!(said(&mut client, &records(7, [1, 2, 5])), answer(2, json!([[3, 4]]), 0, 3));
    // A sequence that goes back is nothing new; what fills the gap is.
    assert_eq!(said(&mut client, &records(7, [2, 3])), answer(3, json!([[4, 4]]), 1, 1));
    let lost = json!({ "records": records(7, [6]), "lost": [[7, 4, 4]] });
    assert_eq!(said(&mut client, &lost), answer(6, json!([]), 1, 0));
    assert_eq!(texts(&collect(&mut reader, 5)), ["7-1", "7-2", "7-5", "7-3", "7-6"]);
    reader.quiet();
    let metrics = broker.http().get("/metrics").body;
    for line in ["{outcome=\"taken\"} 5", "{outcome=\"known\"} 4"] {
        assert!(metrics.contains(&format!("turnpike_backfill_total{line}")), "{line}: {metrics}");
    }
}

#[test]
fn nothing_comes_twice_although_the_broker_is_killed_before_the_device_hears_of_it() {
    let mut broker = house("");
    let mut reader = back_end(&broker, Version::V5);
    reader.subscribe(&[(&format!("dev/{PRODUCT}/+/up/#"), 1)]);
    reader.disconnect_with(0, &[]);
    let mut seen = Vec::new();
    for round in 0..5_u64 {
        let batch = records(1, round * 100 + 1..=round * 100 + 100);
        let mut client = device(&broker, Version::V5, "one");
        let publish = Publish::new(&format!("dev/{PRODUCT}/one/backfill"), batch.to_string()).qos(1, 1);
        client.send(&publish.encode(Version::V5));
        if round % 2 == 0 {
            // Somewhere on the way: its first records may be on disk, or all, or none.
            let _ = client.recv();
        }
        broker.kill();
        broker.restart();
        let mut client = device(&broker, Version::V5, "one");
        let (code, what, said) = hand_in(&mut client, "one", &batch);
        assert_eq!((code, what.as_str(), &said["upto"]), (0, "ack", &json!(round * 100 + 100)), "{said}");
        assert_eq!(said["taken"].as_u64().zip(said["known"].as_u64()).map(|(taken, known)| taken + known), Some(100));
    }
    let mut reader = back_end(&broker, Version::V5);
    while seen.len() < 500 {
        seen.push(reader.take().text().to_owned());
    }
    reader.quiet();
    let expected: Vec<_> = (1..=500).map(|seq| format!("1-{seq}")).collect();
    assert_eq!(seen, expected);
}

#[test]
fn what_is_wrong_is_named_and_what_came_before_it_stays() {
    let broker = house("[backfill]\nunpacked_bytes_max = 100_000\nratio_max = 20\n");
    let mut reader = back_end(&broker, Version::V5);
    reader.subscribe(&[(&format!("dev/{PRODUCT}/+/up/#"), 1)]);
    let mut client = device(&broker, Version::V5, "one");
    let foreign = format!("dev/{PRODUCT}/two/up/temp");
    let own = format!("dev/{PRODUCT}/one/ota/check");
    let at = |boot: u64, ts: i64| json!({ "boot": boot, "seq": 2, "ts": ts, "topic": "up/temp", "payload": "x" });
    let now = i64::try_from(now_ms()).expect("a time");
    let mut expected = Vec::new();
    for (boot, bad, code) in [
        (1, record(1, 2, &foreign, "x"), "not_allowed"),
        (2, record(2, 2, &own, "x"), "reserved_topic"),
        (3, record(3, 2, "up/#", "x"), "bad_topic"),
        (4, at(4, now - 91 * 86_400_000), "too_old"),
        (5, at(5, now + 3_600_000), "in_future"),
        (6, at(6, now + 30 * 365 * 86_400_000), "clock_off"),
        (7, json!({ "boot": 7, "seq": 2 }), "field_missing"),
        (8, json!({ "boot": "1", "seq": 2, "ts": 1, "topic": "up/t", "payload": "" }), "field_wrong"),
    ] {
        let batch = json!([record(boot, 1, "up/temp", &format!("{boot}-1")), bad, record(boot, 3, "up/temp", "never")]);
        let (reason, what, said) = hand_in(&mut client, "one", &batch);
        assert_eq!((reason, what.as_str()), (0, "ack"), "{code}");
        assert_eq!((&said["error"], &said["taken"]), (&json!({ "index": 1, "code": code }), &json!(1)), "{said}");
        expected.push(format!("{boot}-1"));
    }
    assert_eq!(texts(&collect(&mut reader, expected.len())), expected);
    let large = json!([record(9, 1, "up/temp", &"x".repeat(100_000))]);
    assert_eq!(hand_in(&mut client, "one", &large).2["error"]["code"], "too_large");
    for (payload, code) in [("[{\"boot\": 1", "cut_short"), ("no batch", "not_a_batch")] {
        let publish = Publish::new(&format!("dev/{PRODUCT}/one/backfill"), payload).qos(1, 1);
        client.send(&publish.encode(Version::V5));
        let said = until("an answer", SOON, || match client.take_either() {
            Packet::Publish(publish) => Some(String::from_utf8_lossy(&publish.payload).into_owned()),
            _ => None,
        });
        assert!(said.contains(code), "{payload}: {said}");
        let _ = client.drain();
    }
    reader.quiet();
}

#[test]
fn a_device_that_is_too_fast_is_told_when_to_come_again() {
    let broker = house("[backfill]\nhold_ms = 0\n[backfill.device]\nmessages = \"10/1h burst 10\"\n");
    let mut client = device(&broker, Version::V5, "one");
    assert_eq!(hand_in(&mut client, "one", &records(1, 1..=10)).2["upto"], 10);
    let (code, what, said) = hand_in(&mut client, "one", &records(1, 11..=20));
    assert_eq!((code, what.as_str()), (0x97, "pace"));
    assert!(said["after_ms"].as_u64().is_some_and(|ms| ms > 1_000_000), "{said}");
    // MQTT 3 has no such word, and keeps its connection.
    let mut client = device(&broker, Version::V311, "one");
    let (code, what, _) = hand_in(&mut client, "one", &records(1, 11..=20));
    assert_eq!((code, what.as_str()), (0, "pace"));
    client.quiet();
    // What was taken before may always be asked about.
    assert_eq!(hand_in(&mut client, "one", &records(1, 1..=10)).2["known"], 10);
}

#[test]
fn a_device_of_an_old_name_begins_anew() {
    let broker = house("");
    let mut client = device(&broker, Version::V5, "one");
    assert_eq!(hand_in(&mut client, "one", &records(1, 1..=5)).2["taken"], 5);
    let path = format!("/api/v1/products/{PRODUCT}/devices/one");
    assert_eq!(broker.http().delete(&path).status, 204);
    assert_eq!(client.end(), End::Disconnected(0x87));
    put_device(&broker, "one");
    let mut client = device(&broker, Version::V5, "one");
    assert_eq!(hand_in(&mut client, "one", &records(1, 1..=5)).2["taken"], 5);
}

#[test]
fn old_subscribers_may_have_history_on_a_topic_of_its_own() {
    let broker = house("[backfill]\nparallel = true\n");
    let mut reader = back_end(&broker, Version::V311);
    let filter = format!("dev/{PRODUCT}/+/backfill/history/#");
    assert_eq!(reader.subscribe(&[(&filter, 1)]), [1]);
    let mut client = device(&broker, Version::V311, "one");
    let batch = json!([record(1, 1, "up/temp", "21.5")]);
    let ts = &batch[0]["ts"];
    hand_in(&mut client, "one", &batch);
    let got = reader.take();
    assert_eq!(got.topic, format!("dev/{PRODUCT}/one/backfill/history/{ts}/up/temp"));
    assert_eq!(got.text(), "21.5");
}

#[test]
fn where_the_desk_is_closed_a_batch_is_a_message_like_any_other() {
    let broker = house("[backfill]\nenabled = false\n");
    let mut reader = back_end(&broker, Version::V5);
    let filter = format!("dev/{PRODUCT}/+/backfill");
    assert_eq!(reader.subscribe(&[(&filter, 1)]), [1]);
    let mut client = device(&broker, Version::V5, "one");
    assert_eq!(client.publish(&Publish::new(&format!("dev/{PRODUCT}/one/backfill"), "[]").qos(1, 1)), 0);
    assert_eq!(reader.take().text(), "[]");
}
