//! Batches that can't go on: what they hold, and what becomes of them.

use super::*;

const ROOM: &str = "[limits]\nqueued_messages_max = 20\n";

/// A back end that is away, with as much history as it has room for: so many records of boot 1.
fn fill_up(broker: &Broker, client: &mut Client, name: &str) -> u64 {
    let mut reader = back_end(broker, Version::V5);
    assert_eq!(reader.subscribe(&[(&format!("dev/{PRODUCT}/+/up/#"), 1)]), [1]);
    reader.disconnect_with(0, &[]);
    let taken = (1..).take_while(|seq| hand_in(client, name, &records(1, [*seq])).1 == "ack").count();
    assert!(taken > 0);
    taken as u64
}

fn counted(broker: &Broker, lines: &[&str]) -> u64 {
    let metrics = broker.http().get("/metrics").body;
    let of = |name: &str| metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
    lines.iter().map(|name| of(name).unwrap_or(0.0) as u64).sum()
}

/// Hands in again and again until it is taken.
fn insist(client: &mut Client, name: &str, batch: &Value) -> Value {
    until("an ack", SOON, || {
        let (_, what, said) = hand_in(client, name, batch);
        (what == "ack").then_some(said)
    })
}

#[test]
fn while_a_back_end_has_no_room_its_devices_hear_so_at_once_and_are_served() {
    for version in [Version::V311, Version::V5] {
        let broker = house(ROOM);
        let mut client = device(&broker, version, "one");
        let taken = fill_up(&broker, &mut client, "one");
        let publish = Publish::new(&format!("dev/{PRODUCT}/one/backfill"), records(1, [taken + 1]).to_string());
        client.send(&publish.qos(1, 1).encode(version));
        // A ping, and the live message behind it.
        let heard = client.drain();
        let paces: Vec<_> = heard.iter().filter(|packet| matches!(packet, Packet::Publish(_))).collect();
        let [Packet::Publish(pace)] = &paces[..] else { panic!("{heard:?}") };
        let said: Value = serde_json::from_str(pace.text()).expect("JSON");
        assert!(pace.topic.ends_with("/pace") && said["after_ms"].as_u64() >= Some(10_000), "{said}");
        let codes = heard.iter().filter_map(|packet| match packet {
            Packet::PubAck(ack) => Some(ack.code()),
            _ => None,
        });
        assert_eq!(codes.collect::<Vec<_>>(), [if version == Version::V5 { 0x97 } else { 0 }]);
        let mut reader = back_end(&broker, Version::V5);
        let texts: Vec<_> = collect(&mut reader, taken as usize).iter().map(|got| got.text().to_owned()).collect();
        assert_eq!(texts, (1..=taken).map(|seq| format!("1-{seq}")).collect::<Vec<_>>());
        assert_eq!(insist(&mut client, "one", &records(1, [taken + 1]))["upto"], taken + 1);
        assert_eq!(reader.take().text(), format!("1-{}", taken + 1));
        reader.quiet();
    }
}

#[test]
fn whoever_hands_in_and_leaves_again_and_again_leaves_nothing_behind() {
    let broker = house(&format!("{ROOM}errand_bytes_max = 1_048_576\n"));
    let mut client = device(&broker, Version::V5, "one");
    let taken = fill_up(&broker, &mut client, "one");
    let batch = json!([record(1, taken + 1, "up/temp", &"x".repeat(60_000))]).to_string();
    let ways = ["paced", "left", "batches"].map(|outcome| format!("turnpike_backfill_total{{outcome=\"{outcome}\"}}"));
    let ways =
        [ways[0].as_str(), ways[1].as_str(), ways[2].as_str(), "turnpike_messages_dropped_total{reason=\"desk_full\"}"];
    let before = counted(&broker, &ways);
    for round in 0..100 {
        let login = native(&format!("one-{}-{round}", now_ms()), "one", SECRET);
        let connect = Connect::new(Version::V5, &login.client_id).login(&login.user, &login.password);
        let mut ghost = broker.client(&connect);
        ghost.send(&Publish::new(&format!("dev/{PRODUCT}/one/backfill"), batch.as_str()).encode(Version::V5));
        ghost.drop_connection();
    }
    // If one waited for the other, they would be held for minutes. One whose connection broke before the broker had read it is nowhere.
    until("no batch waits", SOON, || (counted(&broker, &ways) - before >= 50).then_some(()));
    let mut other = device(&broker, Version::V5, "two");
    assert_eq!(hand_in(&mut other, "two", &records(1, [1])).1, "pace", "it is heard");
}

#[test]
fn nothing_of_a_device_that_is_no_more_comes_after_it() {
    let broker = house(ROOM);
    let mut client = device(&broker, Version::V5, "one");
    let taken = fill_up(&broker, &mut client, "one");
    let batch = records(1, taken + 1..=taken + 100);
    let publish = Publish::new(&format!("dev/{PRODUCT}/one/backfill"), batch.to_string()).qos(1, 1);
    client.send(&publish.encode(Version::V5));
    assert_eq!(broker.http().delete(&format!("/api/v1/products/{PRODUCT}/devices/one")).status, 204);
    put_device(&broker, "one");
    let mut reader = back_end(&broker, Version::V5);
    let old = collect(&mut reader, taken as usize);
    assert_eq!(old.last().map(Publish::text), Some(&*format!("1-{taken}")));
    let mut client = device(&broker, Version::V5, "one");
    let said = insist(&mut client, "one", &records(1, 1..=3));
    assert_eq!(said, json!({ "boot": 1, "upto": 3, "gaps": [], "taken": 3, "known": 0 }));
    let mut broker = broker;
    broker.kill();
    broker.restart();
    let mut client = device(&broker, Version::V5, "one");
    let said = insist(&mut client, "one", &records(1, 1..=4));
    assert_eq!(said, json!({ "boot": 1, "upto": 4, "gaps": [], "taken": 1, "known": 3 }));
}

#[test]
fn what_is_said_to_be_lost_is_kept_before_it_is_confirmed() {
    let mut broker = house("");
    let mut client = device(&broker, Version::V5, "one");
    let foreign = record(1, 6, &format!("dev/{PRODUCT}/two/up/temp"), "x");
    let batch = json!({ "records": [foreign], "lost": [[1, 1, 5]] });
    let (_, what, said) = hand_in(&mut client, "one", &batch);
    let error = json!({ "index": 0, "code": "not_allowed" });
    let expected = json!({ "boot": 1, "upto": 5, "gaps": [], "taken": 0, "known": 0, "error": error });
    assert_eq!((what.as_str(), said), ("ack", expected));
    for restart in [false, true] {
        if restart {
            broker.kill();
            broker.restart();
            client = device(&broker, Version::V5, "one");
        }
        let said = hand_in(&mut client, "one", &records(1, [5])).2;
        assert_eq!((&said["upto"], &said["gaps"]), (&json!(5), &json!([])), "{restart}");
    }
    assert_eq!(hand_in(&mut client, "one", &records(1, [6])).2["upto"], 6);
}

#[test]
fn every_batch_is_answered_in_its_own_way_of_writing() {
    let broker = house("");
    let mut client = device(&broker, Version::V5, "one");
    for empty in [json!([]), json!({ "records": [] })] {
        let (_, what, said) = hand_in(&mut client, "one", &empty);
        assert_eq!((what.as_str(), said), ("ack", json!({ "upto": 0, "gaps": [], "taken": 0, "known": 0 })));
    }
    assert_eq!(hand_in(&mut client, "one", &records(3, 1..=2)).2["upto"], 2);
    let said = hand_in(&mut client, "one", &json!([record(3, 3, "up/#", "x")])).2;
    let error = json!({ "index": 0, "code": "bad_topic" });
    assert_eq!(said, json!({ "boot": 3, "upto": 2, "gaps": [], "taken": 0, "known": 0, "error": error }));
    let mut publish = Publish::new(&format!("dev/{PRODUCT}/one/backfill"), "no zlib").qos(1, 1);
    publish.props.push(Prop::ContentType("application/json+zlib".into()));
    client.send(&publish.encode(Version::V5));
    let said = until("an answer", SOON, || match client.take_either() {
        Packet::Publish(publish) => Some(serde_json::from_slice::<Value>(&publish.payload).expect("JSON")),
        _ => None,
    });
    assert_eq!(said["error"]["code"], "packed_damaged");
}

#[test]
fn what_is_refused_is_counted_by_its_kind_and_the_first_of_a_kind_is_on_record() {
    let broker = house("");
    let mut client = device(&broker, Version::V5, "one");
    for _ in 0..3 {
        for topic in ["up/#", "/ota/device/inform/p/d"] {
            hand_in(&mut client, "one", &json!([record(1, 1, topic, "x")]));
        }
    }
    assert_eq!(counted(&broker, &["turnpike_backfill_refused_total{code=\"bad_topic\"}"]), 3);
    assert_eq!(counted(&broker, &["turnpike_backfill_refused_total{code=\"reserved_topic\"}"]), 3);
    assert_eq!(counted(&broker, &["turnpike_backfill_total{outcome=\"refused\"}"]), 6);
    let on_record = || {
        let answer = broker.http().get("/api/v1/audit?order=asc&limit=1000&action=backfill_refused").json();
        answer["records"].as_array().expect("a list").clone()
    };
    let found = until("both are on record", SOON, || Some(on_record()).filter(|found| found.len() >= 2));
    // The minute may have ended in between.
    let causes: Vec<_> = found.iter().filter_map(|found| found["cause"].as_str()).collect();
    assert!(causes.contains(&"bad_topic") && causes.contains(&"reserved_topic") && causes.len() <= 4, "{found:?}");
    assert!(
        found.iter().all(|found| found["actor"].as_str().is_some_and(|actor| actor.ends_with("/one"))),
        "{found:?}"
    );
}
