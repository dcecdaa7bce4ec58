//! Who may log in how, how fast a client may go, and who is shut out.

use std::io::{Read, Write};
use std::net::TcpStream;

use turnpike_tests::broker::{Broker, Setup, command};
use turnpike_tests::certificate::Authority;
use turnpike_tests::client::Client;
use turnpike_tests::credential::{Credential, PRODUCT, SECRET, aliyun, native};
use turnpike_tests::time::SOON;
use turnpike_tests::wire::{Connect, Publish, Version};

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
        "refuse_clones": false,
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
    assert_eq!(put("").json()["authorities"], serde_json::json!([]));
    assert!(actions(&broker).contains(&"product_authorities".to_owned()));
}

#[test]
fn a_device_logs_in_by_its_key_until_it_is_taken_away() {
    let broker = registered();
    let folder = tempfile::tempdir().expect("a folder");
    let (pair, file) = (rcgen::KeyPair::generate().expect("a key"), folder.path().join("key.pem"));
    std::fs::write(&file, pair.serialize_pem()).expect("written");
    let path = product_path("devices/keyed/keys");
    let body = serde_json::json!({ "keys": [pair.public_key_pem()] }).to_string();
    let answer = broker.http().put(&path, &body);
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(broker.http().put(&path, &body).status, 200, "it is there");
    let log_in = || {
        let mut command = command();
        let options =
            ["credential", "--profile", "native", "--product", PRODUCT, "--device", "keyed", "--json", "--key"];
        let output = command.args(options).arg(&file).output().expect("it runs");
        assert!(output.status.success(), "{output:?}");
        let made: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let text = |name: &str| made[name].as_str().expect("a text").to_owned();
        code(&broker, &Credential { client_id: text("client_id"), user: text("user_name"), password: text("password") })
    };
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
    assert_eq!(broker.http().get("/api/v1/bans").json()["bans"][0]["cause"], "failures");
    assert_eq!(broker.http().delete("/api/v1/bans?network=127.0.0.1").status, 204);
    assert_eq!(code(&broker, &native("c", "one", SECRET)), 0);
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
