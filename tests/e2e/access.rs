//! Who may log in how, how fast a client may go, and who is shut out.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use turnpike_tests::broker::{Broker, Setup, command};
use turnpike_tests::certificate::Authority;
use turnpike_tests::client::{Client, End};
use turnpike_tests::credential::{Credential, PRODUCT, SECRET, aliyun, native};
use turnpike_tests::http::Http;
use turnpike_tests::time::SOON;
use turnpike_tests::wire::{Connect, Packet, Publish, Version};

use crate::gate::{register, registered};

fn product_path(rest: &str) -> String {
    format!("/api/v1/products/{PRODUCT}/{rest}")
}

#[track_caller]
fn code(broker: &Broker, login: &Credential) -> u8 {
    let connect = Connect::new(Version::V5, &login.client_id).login(&login.user, &login.password);
    Client::open(broker.mqtt(), &connect).1.code
}

/// Causes of refused log-ins, or actions of operators, as the audit has them.
#[track_caller]
fn actions(broker: &Broker) -> Vec<String> {
    let records = broker.http().get("/api/v1/audit?order=asc&limit=1000&actor=operator:*").json();
    let records = records["records"].as_array().expect("a list").clone();
    records.iter().map(|record| record["action"].as_str().unwrap_or("").to_owned()).collect()
}

#[test]
fn a_product_takes_the_log_in_formats_that_it_says() {
    let broker = registered();
    let (http, path) = (broker.http(), product_path("profiles"));
    assert_eq!(http.get(&path).json()["profiles"], serde_json::json!(["native", "aliyun"]));
    assert_eq!(code(&broker, &aliyun("one", SECRET)), 0);
    let answer = http.put(&path, r#"{"profiles": ["native", "tuya"]}"#);
    assert_eq!((answer.status, answer.json()["profiles"].clone()), (200, serde_json::json!(["native", "tuya"])));
    assert_eq!(code(&broker, &aliyun("one", SECRET)), 0x87);
    assert_eq!(code(&broker, &native("c", "one", SECRET)), 0);
    for wrong in [r#"{"profiles": ["nativ"]}"#, r#"{"profiles": "native"}"#, r#"{"profiles": [], "x": 1}"#, "{}", "x"] {
        assert_eq!(http.put(&path, wrong).status, 400, "{wrong}");
    }
    assert_eq!(http.put("/api/v1/products/nothing/profiles", r#"{"profiles": []}"#).status, 404);
    assert!(actions(&broker).contains(&"product_profiles".to_owned()));
}

#[test]
fn a_product_can_demand_tls() {
    let mut broker = registered();
    let path = product_path("policy");
    let none = serde_json::json!({
        "allow_rsa_1024": false, "require_tls": false, "require_certificate": false, "require_attestation": false,
    });
    assert_eq!(broker.http().get(&path).json(), none);
    assert_eq!(broker.http().put(&path, r#"{"require_tls": true}"#).status, 200);
    assert_eq!(code(&broker, &native("c", "one", SECRET)), 0x87);
    // What was answered has reached the disk.
    broker.kill();
    broker.restart();
    assert_eq!(broker.http().get(&path).json()["require_tls"], true);
    assert_eq!(code(&broker, &native("c", "one", SECRET)), 0x87);
    assert_eq!(broker.http().put(&path, "{}").status, 200);
    assert_eq!(code(&broker, &native("c", "one", SECRET)), 0);
    assert_eq!(broker.http().put(&path, r#"{"require_tsl": true}"#).status, 400);
    assert!(actions(&broker).contains(&"product_settings".to_owned()));
}

#[track_caller]
fn enter(broker: &Broker, login: &Credential) -> Client {
    broker.client(&Connect::new(Version::V5, &login.client_id).login(&login.user, &login.password))
}

#[test]
fn live_sessions_are_closed_that_a_product_would_not_take_any_more() {
    let broker = registered();
    let http = broker.http();
    let (mut by_aliyun, mut by_native) =
        (enter(&broker, &aliyun("one", SECRET)), enter(&broker, &native("n", "one", SECRET)));
    assert_eq!(http.put(&product_path("profiles"), r#"{"profiles": ["native"]}"#).status, 200);
    assert_eq!(by_aliyun.end(), End::Disconnected(0x87));
    by_native.quiet();
    assert_eq!(http.put(&product_path("policy"), r#"{"allow_rsa_1024": true}"#).status, 200);
    by_native.quiet();
    assert_eq!(http.put(&product_path("policy"), r#"{"require_tls": true}"#).status, 200);
    assert_eq!(by_native.end(), End::Disconnected(0x87));
}

#[test]
fn live_sessions_are_closed_that_came_in_by_what_is_taken_away() {
    let broker = registered();
    let http = broker.http();
    let path = product_path("devices/one/keys");
    let (_folder, key, put) = key_pair();
    assert_eq!(http.put(&path, &put).status, 200);
    let (mut keyed, mut by_secret) =
        (enter(&broker, &by_key("one", &key)), enter(&broker, &native("n", "one", SECRET)));
    // Another secret counts from the next log-in on.
    assert_eq!(http.post(&product_path("devices/one/secret"), "application/json", "").status, 200);
    by_secret.quiet();
    assert_eq!(http.delete(&product_path("devices/one/secret")).status, 204);
    assert_eq!(by_secret.end(), End::Disconnected(0x87));
    assert_eq!(code(&broker, &native("n", "one", SECRET)), 0x86);
    keyed.quiet();
    assert_eq!(http.put(&path, &key_pair().2).status, 200);
    assert_eq!(keyed.end(), End::Disconnected(0x87));
}

/// A folder with a private key in a file, and the body that puts its public key.
fn key_pair() -> (tempfile::TempDir, PathBuf, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let (pair, file) = (rcgen::KeyPair::generate().expect("a key"), folder.path().join("key.pem"));
    std::fs::write(&file, pair.serialize_pem()).expect("written");
    (folder, file, serde_json::json!({ "keys": [pair.public_key_pem()] }).to_string())
}

/// What the command makes of a private key.
#[track_caller]
fn by_key(device: &str, file: &Path) -> Credential {
    let mut command = command();
    let options = ["credential", "--profile", "native", "--product", PRODUCT, "--device", device, "--json", "--key"];
    let output = command.args(options).arg(file).output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let made: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let text = |name: &str| made[name].as_str().expect("a text").to_owned();
    Credential { client_id: text("client_id"), user: text("user_name"), password: text("password") }
}

#[test]
fn authorities_of_a_product_are_taken_as_pem() {
    let broker = registered();
    let folder = tempfile::tempdir().expect("a folder");
    let pem = std::fs::read_to_string(Authority::new(folder.path(), "maker").certificate).expect("a certificate");
    let put = |body: &str| broker.http().request("PUT", &product_path("authorities"), "application/x-pem-file", body);
    let answer = put(&pem);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["authorities"].as_array().map(Vec::len), Some(1));
    let wrong = put("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    assert_eq!((wrong.status, wrong.json()["error"]["code"].as_str()), (400, Some("invalid")));
    assert_eq!(broker.http().get(&product_path("authorities")).json(), answer.json());
    assert_eq!(put("").json()["authorities"], serde_json::json!([]));
    assert!(actions(&broker).contains(&"product_authorities".to_owned()));
}

#[test]
fn a_device_logs_in_by_its_key_until_it_is_taken_away() {
    let broker = registered();
    let (_folder, file, body) = key_pair();
    let path = product_path("devices/keyed/keys");
    let answer = broker.http().put(&path, &body);
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(broker.http().put(&path, &body).status, 200, "it is there");
    let log_in = || code(&broker, &by_key("keyed", &file));
    assert_eq!(log_in(), 0);
    assert_eq!(broker.http().get(&path).json()["keys"].as_array().map(Vec::len), Some(1));
    assert_eq!(broker.http().put(&path, r#"{"keys": ["no key"]}"#).status, 400);
    assert_eq!(broker.http().put(&path, "{}").status, 400, "none at all");
    assert_eq!(broker.http().delete(&path).status, 204);
    assert_eq!(log_in(), 0x86);
    assert!(actions(&broker).iter().filter(|action| *action == "device_keys").count() >= 3);
}

/// Whether anybody at this address is heard.
fn is_heard(broker: &Broker) -> bool {
    let mut stream = TcpStream::connect(broker.mqtt()).expect("the kernel accepts");
    stream.set_read_timeout(Some(SOON)).expect("a timeout");
    // MQTT 3.1.1, client id `x`, no credentials: a CONNACK, if anything.
    let _ = stream.write_all(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01x");
    matches!(stream.read(&mut [0]), Ok(1))
}

#[test]
fn a_network_is_banned_by_hand_until_that_is_lifted() {
    let broker = registered();
    let http = broker.http();
    assert!(is_heard(&broker));
    assert_eq!(
        http.post("/api/v1/bans", "application/json", r#"{"network": "127.0.0.0/8", "note": "a test"}"#).status,
        204
    );
    assert!(!is_heard(&broker));
    let bans = http.get("/api/v1/bans").json();
    assert_eq!(bans["bans"], serde_json::json!([{ "network": "127.0.0.0/8", "cause": "manual", "note": "a test" }]));
    assert_eq!(http.delete("/api/v1/bans?network=127.0.0.0/8").status, 204);
    assert_eq!(http.delete("/api/v1/bans?network=127.0.0.0/8").status, 404);
    assert!(is_heard(&broker));
    for wrong in [r#"{"network": "here"}"#, r#"{"network": "10.0.0.1", "for": 5}"#, "{}"] {
        assert_eq!(http.post("/api/v1/bans", "application/json", wrong).status, 400, "{wrong}");
    }
    let said = actions(&broker);
    assert!(said.contains(&"ban".to_owned()) && said.contains(&"unban".to_owned()), "{said:?}");
}

#[test]
fn failures_from_loopback_ban_nobody() {
    let broker = registered();
    for _ in 0..20 {
        assert_eq!(code(&broker, &native("c", "one", "ffffffffffffffffffffffffffffffff")), 0x86);
    }
    assert_eq!(code(&broker, &native("c", "one", SECRET)), 0);
}

#[test]
fn failures_ban_an_address_that_is_not_exempt() {
    let broker = Setup::closed().config("[guard]\nexempt = []\n").start();
    register(&broker);
    for _ in 0..5 {
        assert_eq!(code(&broker, &native("c", "one", "ffffffffffffffffffffffffffffffff")), 0x86);
    }
    assert!(!is_heard(&broker));
    assert_eq!(broker.http().get("/api/v1/bans").status, 403, "nor by the API");
}

#[test]
fn a_device_above_its_rate_is_refused_where_that_is_asked_for() {
    let limits = "[limits.device]\nmessages = \"1/1d\"\n[limits.excess]\nrefuse_acked = true\n";
    let broker = Setup::closed().config(limits).start();
    register(&broker);
    let login = native("c", "one", SECRET);
    let mut client = broker.client(&Connect::new(Version::V5, &login.client_id).login(&login.user, &login.password));
    let topic = format!("dev/{PRODUCT}/one/up/x");
    // Taken, and nobody has subscribed.
    assert_eq!(client.publish(&Publish::new(&topic, "1").qos(1, 1)), 0x10);
    assert_eq!(client.publish(&Publish::new(&topic, "2").qos(1, 2)), 0x97);
}

#[test]
fn an_address_that_asks_the_api_too_often_is_told_when_to_come_back() {
    let broker = Setup::closed().config("[limits.address]\nrequests = \"3/1h\"\n").start();
    for _ in 0..3 {
        assert_eq!(broker.http().get("/api/v1/products").status, 200);
    }
    let answer = broker.http().get("/api/v1/products");
    assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (429, Some("too_many_requests")));
    assert!(answer.head.contains("retry-after: "), "{answer:?}");
    assert_eq!(broker.http().get("/readyz").status, 200, "health is nobody's quota");
}

/// Connects as from that address.
#[track_caller]
fn from(broker: &Broker, address: &str, login: &Credential) -> (Client, Option<u8>) {
    let mut client = Client::raw(broker.mqtt(), Version::V5);
    let connect = Connect::new(Version::V5, &login.client_id).login(&login.user, &login.password);
    client.send(&[format!("PROXY TCP4 {address} 192.0.2.254 5000 1883\r\n").as_bytes(), &connect.encode()].concat());
    match client.recv_or_end() {
        Some(Packet::ConnAck(ack)) => (client, Some(ack.code)),
        None => (client, None),
        Some(other) => panic!("{other:?}"),
    }
}

#[test]
fn failures_ban_the_address_that_the_proxy_tells() {
    let broker = Setup::behind_proxy("[guard]\naddress_failures = \"3/1d\"\n").start();
    register(&broker);
    let code = |address: &str, secret: &str| from(&broker, address, &native("c", "one", secret)).1;
    for _ in 0..3 {
        assert_eq!(code("192.0.2.1", "ffffffffffffffffffffffffffffffff"), Some(0x86));
    }
    assert_eq!(code("192.0.2.1", SECRET), None, "not a byte");
    assert_eq!(code("192.0.2.2", SECRET), Some(0), "a neighbour");
    let metrics = broker.http().get("/metrics").body;
    for line in [r#"turnpike_guard_events_total{event="failure"} 3"#, r#"turnpike_guard_events_total{event="ban"} 1"#] {
        assert!(metrics.contains(line), "no {line} in {metrics}");
    }
    assert_eq!(broker.http().get("/api/v1/bans").json()["bans"][0]["cause"], "failures");
    assert_eq!(broker.http().delete("/api/v1/bans?network=192.0.2.1").status, 204);
    assert_eq!(code("192.0.2.1", SECRET), Some(0));
}

#[test]
fn guesses_at_the_administrators_token_ban_the_address() {
    // Tests come from loopback.
    let broker = Setup::closed().config("[guard]\naddress_failures = \"3/1d\"\nexempt = []\n").start();
    let address = broker.address("http");
    let asked = |token: Option<&str>| Http { address, token: token.map(str::to_owned) }.get("/api/v1/products").status;
    for _ in 0..5 {
        assert_eq!(asked(None), 401, "no guess");
    }
    for n in 0..3 {
        assert_eq!(asked(Some(&format!("guess {n}"))), 401);
    }
    assert_eq!(asked(Some("guess 3")), 403);
    assert_eq!(asked(None), 403);
    assert_eq!(broker.http().get("/api/v1/products").status, 403, "even the right one");
    assert_eq!(broker.http().get("/readyz").status, 200);
    let metrics = broker.http().get("/metrics").body;
    for line in [r#"turnpike_guard_events_total{event="failure"} 3"#, r#"turnpike_guard_events_total{event="ban"} 1"#] {
        assert!(metrics.contains(line), "no {line} in {metrics}");
    }
}

#[test]
fn a_clone_is_refused_where_the_product_says_so_until_it_is_pardoned() {
    let mut broker = Setup::behind_proxy("[guard]\nclones = \"2/1d\"\n").start();
    register(&broker);
    let policy = |broker: &Broker, body: &str| assert_eq!(broker.http().put(&product_path("policy"), body).status, 200);
    policy(&broker, r#"{"refuse_clones": true}"#);
    // What was answered is in force after a crash.
    broker.kill();
    broker.restart();
    let places = ["192.0.2.1", "198.51.100.1"];
    let fight = |broker: &Broker| {
        let codes = (0..6).map(|n| {
            let (client, code) = from(broker, places[n % 2], &native("same", "one", SECRET));
            (client, code.expect("an answer"))
        });
        let (_clients, codes): (Vec<Client>, Vec<u8>) = codes.unzip();
        codes
    };
    let codes = fight(&broker);
    assert!(codes.starts_with(&[0, 0]) && codes.ends_with(&[0x8A, 0x8A]), "{codes:02x?}");
    assert_eq!(from(&broker, places[0], &native("another", "one", SECRET)).1, Some(0x8A));
    assert_eq!(from(&broker, places[0], &native("c", "two", SECRET)).1, Some(0));
    assert_eq!(broker.http().post(&product_path("devices/one/pardon"), "application/json", "").status, 204);
    assert_eq!(broker.http().post(&product_path("devices/none/pardon"), "application/json", "").status, 404);
    assert_eq!(from(&broker, places[0], &native("another", "one", SECRET)).1, Some(0));
    assert!(actions(&broker).contains(&"pardon".to_owned()));
    // Only told, by default.
    policy(&broker, "{}");
    assert!(fight(&broker).iter().all(|code| *code == 0));
}

/// A session that outlives its connection, subscribed to the device's own topic.
fn durable(broker: &Broker, device: &str, client_id: &str) -> (Client, bool) {
    let login = native(client_id, device, SECRET);
    let connect = Connect::durable(Version::V5, client_id, 1000).login(&login.user, &login.password);
    let (client, ack) = Client::open(broker.mqtt(), &connect);
    assert_eq!(ack.code, 0, "{device} as {client_id}");
    (client, ack.session_present)
}

#[test]
fn nobody_is_kept_out_by_another_device_with_its_client_id() {
    let broker = registered();
    let down = |device: &str| format!("dev/{PRODUCT}/{device}/sys/box");
    for device in ["one", "two"] {
        let (mut client, present) = durable(&broker, device, "the-same");
        assert!(!present, "{device}");
        assert_eq!(client.subscribe(&[(&down(device), 1)]), [1]);
        client.disconnect();
    }
    let mut sender = enter(&broker, &native("sender", "one", SECRET));
    assert_eq!(sender.publish(&Publish::new(&down("one"), "of one").qos(1, 1)), 0);
    // Both at once, each in its own session.
    let ((mut one, of_one), (mut two, of_two)) =
        (durable(&broker, "one", "the-same"), durable(&broker, "two", "the-same"));
    assert!(of_one && of_two);
    assert_eq!(one.publish_in().text(), "of one");
    two.quiet();
}

#[test]
fn a_deleted_device_leaves_nothing_to_the_next_of_its_name() {
    let broker = registered();
    let http = broker.http();
    let topic = format!("dev/{PRODUCT}/one/sys/box");
    let whole = |http: &Http| {
        assert_eq!(http.delete(&product_path("devices/one")).status, 204);
        register(&broker);
    };
    let product = |http: &Http| {
        assert_eq!(http.delete(&format!("/api/v1/products/{PRODUCT}")).status, 204);
        register(&broker);
    };
    let ways: [&dyn Fn(&Http); 2] = [&whole, &product];
    for delete in ways {
        let (mut client, present) = durable(&broker, "one", "c");
        assert!(!present);
        assert_eq!(client.subscribe(&[(&topic, 1)]), [1]);
        client.disconnect();
        let mut sender = enter(&broker, &native("sender", "one", SECRET));
        assert_eq!(sender.publish(&Publish::new(&topic, "of the former owner").qos(1, 1)), 0);
        delete(&http);
        assert_eq!(sender.end(), End::Disconnected(0x87));
    }
    let (mut client, present) = durable(&broker, "one", "c");
    assert!(!present);
    client.quiet();
}
