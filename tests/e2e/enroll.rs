//! Registration: packages and lists by operators, and devices that get their names and secrets, in each way.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;

use aes::Aes128;
use aes::cipher::block_padding::ZeroPadding;
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, KeyInit, KeyIvInit};
use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes128Gcm, Nonce};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use sha2::Sha256;
use turnpike_tests::broker::{Broker, Setup};
use turnpike_tests::client::Client;
use turnpike_tests::credential::{Credential, PRODUCT, aliyun, hmac_sha1, hmac_sha256, native, now_ms};
use turnpike_tests::http::{Answer, Http};
use turnpike_tests::time::{SOON, until};
use turnpike_tests::wire::{Connect, Packet, Version, decode};

mod connects;
mod operators;
mod vendors;

/// 32 hexadecimal digits, as gizwits has it; tencent takes the first 16 characters.
const PRODUCT_SECRET: &str = "000102030405060708090a0b0c0d0e0f";
const TLS: &str = "x-forwarded-proto: https\r\n";
const CONFIG: &str =
    "[registration]\nproxies = [\"127.0.0.0/8\"]\nmqtt = \"mqtt.example.com:1883\"\nrequests = \"1000/1s\"\n";

/// A broker with a product that registers devices in these ways, and a package.
fn house(ways: &[&str], quota: u32) -> Broker {
    let broker = Setup::closed().listen("--mqtts").config(CONFIG).start();
    assert_eq!(broker.http().put(&path(""), "{}").status, 201);
    let made = post(&broker, "/packages", &json!({ "quota": quota }));
    assert_eq!((made.status, made.json()["package"].as_u64()), (201, Some(1)), "{made:?}");
    set_ways(&broker, ways);
    broker
}

fn set_ways(broker: &Broker, ways: &[&str]) {
    let body = json!({ "ways": ways, "package": 1, "secret": PRODUCT_SECRET });
    let set = broker.http().put(&path("/registration"), &body.to_string());
    assert_eq!((set.status, set.json()["has_secret"].as_bool()), (200, Some(true)), "{set:?}");
}

fn path(rest: &str) -> String {
    format!("/api/v1/products/{PRODUCT}{rest}")
}

#[track_caller]
fn post(broker: &Broker, rest: &str, body: &Value) -> Answer {
    broker.http().post(&path(rest), "application/json", &body.to_string())
}

#[track_caller]
fn issue(broker: &Broker, count: usize) -> Vec<String> {
    let answer = post(broker, "/packages/1/keys", &json!({ "count": count }));
    assert_eq!(answer.status, 201, "{answer:?}");
    let keys = answer.json()["keys"].as_array().expect("a list").clone();
    keys.iter().map(|key| key.as_str().expect("a text").to_owned()).collect()
}

fn upload(broker: &Broker, csv: &str) -> Value {
    let answer = broker.http().post(&path("/packages/1/list"), "text/csv", csv);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// As a device, which has no token.
fn device(broker: &Broker) -> Http {
    Http { token: None, ..broker.http() }
}

#[track_caller]
fn register(broker: &Broker, body: &Value) -> Answer {
    device(broker).request_with("POST", "/api/v1/register", TLS, &body.to_string())
}

fn by_key(key: &str, name: Option<&str>) -> Value {
    match name {
        Some(name) => json!({ "product": PRODUCT, "key": key, "name": name }),
        None => json!({ "product": PRODUCT, "key": key }),
    }
}

fn listed(identifier: &str) -> Value {
    json!({ "product": PRODUCT, "identifier": identifier })
}

fn error(answer: &Answer) -> (u16, String) {
    (answer.status, answer.json()["error"]["code"].as_str().unwrap_or_default().to_owned())
}

fn code(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

/// Whether the secret opens the door.
fn logs_in(broker: &Broker, name: &str, secret: &str) -> bool {
    let login = native("c", name, secret);
    let connect = Connect::new(Version::V5, &login.client_id).login(&login.user, &login.password);
    Client::open(broker.mqtt(), &connect).1.code == 0
}

#[track_caller]
fn text(answer: &Answer, field: &str) -> String {
    answer.json()[field].as_str().unwrap_or_else(|| panic!("{field} in {answer:?}")).to_owned()
}

fn audited(broker: &Broker, action: &str) -> Vec<Value> {
    let answer = broker.http().get(&format!("/api/v1/audit?order=asc&limit=1000&action={action}")).json();
    answer["records"].as_array().expect("a list").clone()
}

#[test]
fn a_burn_in_key_registers_one_device_once() {
    let broker = house(&["burn-in"], 10);
    let keys = issue(&broker, 2);
    let made = register(&broker, &by_key(&keys[0], Some("d1")));
    assert_eq!((made.status, text(&made, "device")), (201, "d1".to_owned()), "{made:?}");
    let secret = text(&made, "secret");
    assert!(logs_in(&broker, "d1", &secret));
    // The answer was lost.
    let again = register(&broker, &by_key(&keys[0], None));
    assert_eq!((again.status, text(&again, "secret")), (200, secret));
    assert_eq!(error(&register(&broker, &by_key(&keys[0], Some("d2")))), code(409, "exists"));
    assert_eq!(error(&register(&broker, &by_key(&keys[1], Some("d1")))), code(409, "exists"));
    let unnamed = register(&broker, &by_key(&keys[1], None));
    let name = text(&unnamed, "device");
    assert_eq!(name.len(), 22);
    assert!(logs_in(&broker, &name, &text(&unnamed, "secret")));
    let package = broker.http().get(&path("/packages/1")).json();
    assert_eq!((package["used"].as_u64(), package["issued"].as_u64()), (Some(2), Some(2)));
    let used = broker.http().get(&path("/packages/1/registered?limit=1")).json();
    assert_eq!((&used["registered"], &used["next"]), (&json!([{ "index": 0, "device": "d1" }]), &json!(0)));
    let rest = broker.http().get(&path("/packages/1/registered?limit=1&after=0")).json();
    assert_eq!((&rest["registered"][0]["device"], &rest["next"]), (&json!(name), &Value::Null));
    // Released, the key is as good as new.
    assert_eq!(broker.http().post(&path("/packages/1/keys/0/release"), "", "").status, 204);
    assert_eq!(broker.http().get(&path("/devices/d1")).status, 404);
    assert_eq!(broker.http().post(&path("/packages/1/keys/0/release"), "", "").status, 404);
    assert_eq!(register(&broker, &by_key(&keys[0], Some("d2"))).status, 201);
    let registered = audited(&broker, "register");
    let results: Vec<_> = registered.iter().map(|record| record["result"].as_str().unwrap_or_default()).collect();
    assert_eq!(results, ["accepted", "ok", "refused", "refused", "accepted", "accepted"]);
    assert_eq!(registered[0]["target"], format!("device:{PRODUCT}/d1"));
    assert_eq!(registered[0]["detail"], json!({ "package": 1, "way": "burn-in" }));
    assert_eq!(registered[2]["cause"], "exists");
    assert_eq!(audited(&broker, "registration_release").len(), 1);
}

#[test]
fn each_error_has_its_code() {
    let broker = house(&["burn-in", "listed"], 2);
    let keys = issue(&broker, 2);
    upload(&broker, "serial,SN-0001\nserial,SN-0002\nserial,SN-0003\n");
    let flipped = if keys[0].ends_with('0') { '1' } else { '0' };
    let wrong = format!("{}{flipped}", &keys[0][..keys[0].len() - 1]);
    for (body, expected) in [
        (json!({}), code(400, "malformed")),
        (json!({ "product": PRODUCT, "key": keys[0], "colour": 1 }), code(400, "malformed")),
        (json!({ "product": PRODUCT, "key": 5 }), code(400, "malformed")),
        (json!({ "product": PRODUCT }), code(400, "malformed")),
        (json!({ "product": PRODUCT, "key": keys[0], "identifier": "SN-0001" }), code(400, "malformed")),
        (json!({ "product": PRODUCT, "name": "d", "identifier": "SN-0001" }), code(400, "malformed")),
        (by_key("nonsense", None), code(400, "malformed")),
        (by_key(&keys[0], Some("a/b")), code(400, "malformed")),
        (listed("?"), code(400, "malformed")),
        (json!({ "product": "toaster", "key": keys[0] }), code(403, "not_allowed")),
        (by_key(&wrong, None), code(403, "wrong_key")),
        (by_key(&keys[0].replacen("1-0-", "1-7-", 1), None), code(404, "unknown")),
        (by_key(&keys[0].replacen("1-0-", "9-0-", 1), None), code(404, "unknown")),
        (listed("SN-0009"), code(404, "unknown")),
    ] {
        let answer = register(&broker, &body);
        assert_eq!(error(&answer), expected, "{body}");
        assert!(!answer.body.contains("colour") && !answer.body.contains(&keys[0]), "{answer:?}");
    }
    assert_eq!(error(&device(&broker).post("/api/v1/register", "", "no JSON")), code(400, "malformed"));
    assert_eq!(device(&broker).post("/api/v1/register", "", &"x".repeat(5000)).status, 413);
    for body in [by_key(&keys[0], None), listed("SN-0001")] {
        let answer = device(&broker).post("/api/v1/register", "application/json", &body.to_string());
        assert_eq!(error(&answer), code(403, "tls_required"));
    }
    let put = |quota: u32, rest: Value| {
        let mut body = json!({ "quota": quota });
        body.as_object_mut().expect("an object").extend(rest.as_object().expect("an object").clone());
        let answer = broker.http().put(&path("/packages/1"), &body.to_string());
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    put(2, json!({ "expires_at": now_ms() / 1000 }));
    assert_eq!(error(&register(&broker, &by_key(&keys[0], None))), code(410, "expired"));
    put(2, json!({ "enabled": false }));
    assert_eq!(error(&register(&broker, &by_key(&keys[0], None))), code(410, "expired"));
    put(2, json!({ "expires_at": now_ms() / 1000 + 1000 }));
    assert_eq!(register(&broker, &by_key(&keys[0], None)).status, 201);
    assert_eq!(register(&broker, &listed("SN-0001")).status, 201);
    assert_eq!(error(&register(&broker, &listed("SN-0001"))), code(409, "exists"));
    assert_eq!(error(&register(&broker, &listed("SN-0002"))), code(409, "capacity"));
    assert_eq!(error(&register(&broker, &by_key(&keys[1], None))), code(409, "capacity"));
    put(9, json!({}));
    assert_eq!(register(&broker, &listed("SN-0002")).status, 201);
    set_ways(&broker, &["listed"]);
    assert_eq!(error(&register(&broker, &by_key(&keys[1], None))), code(403, "not_allowed"));
    // Revoked.
    set_ways(&broker, &["burn-in", "listed"]);
    assert_eq!(broker.http().delete(&path("/packages/1")).status, 204);
    assert_eq!(error(&register(&broker, &by_key(&keys[1], None))), code(404, "unknown"));
    assert_eq!(error(&register(&broker, &listed("SN-0003"))), code(404, "unknown"));
    assert_eq!(broker.http().get(&path("/lists/serial")).json()["identifiers"], json!([]));
    let metrics = broker.http().get("/metrics").body;
    for line in
        ["{outcome=\"made\"} 3", "{outcome=\"capacity\"} 2", "{outcome=\"expired\"} 2", "{outcome=\"exists\"} 1"]
    {
        assert!(metrics.contains(&format!("turnpike_registrations_total{line}")), "{line}");
    }
}

/// The 16 bytes of a burn-in key.
fn key_bytes(key: &str) -> Vec<u8> {
    hex::decode(key.rsplit('-').next().expect("digits")).expect("hex")
}

fn hmac(key: &[u8], text: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any key");
    mac.update(text.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

/// What a device without TLS asks for.
fn signed(key: &str, name: &str, nonce: &str) -> Value {
    let id = key.rsplit_once('-').expect("an id").0;
    let signature = hmac(&key_bytes(key), &format!("turnpike registration v1\n{PRODUCT}\n{name}\n{id}\n{nonce}"));
    json!({ "product": PRODUCT, "name": name, "key_id": id, "nonce": nonce, "signature": signature })
}

/// And what it makes of the answer.
fn opened(key: &str, nonce: &str, name: &str, sealed: &str) -> String {
    let sealed = hex::decode(sealed).expect("hex");
    let (random, ciphertext) = sealed.split_at(16);
    let mut keys = [0; 28];
    let salt = [nonce.as_bytes(), random].concat();
    Hkdf::<Sha256>::new(Some(&salt), &key_bytes(key)).expand(b"turnpike registration v1", &mut keys).expect("28 bytes");
    let cipher = Aes128Gcm::new_from_slice(&keys[..16]).expect("16 bytes");
    let nonce = Nonce::try_from(&keys[16..]).expect("12 bytes");
    let associated = format!("{PRODUCT}\n{name}");
    let opened = cipher.decrypt(&nonce, Payload { msg: ciphertext, aad: associated.as_bytes() }).expect("opens");
    String::from_utf8(opened).expect("text")
}

#[test]
fn a_device_without_tls_gets_its_secret_under_aes() {
    let broker = house(&["burn-in"], 10);
    let keys = issue(&broker, 1);
    let ask = |body: &Value| device(&broker).post("/api/v1/register", "application/json", &body.to_string());
    let mut forged = signed(&keys[0], "d1", "nonce-001");
    forged["name"] = json!("d2");
    assert_eq!(error(&ask(&forged)), code(403, "wrong_key"));
    let made = ask(&signed(&keys[0], "d1", "nonce-001"));
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(made.json()["secret"], Value::Null);
    let secret = opened(&keys[0], "nonce-001", "d1", &text(&made, "sealed"));
    assert!(logs_in(&broker, "d1", &secret));
    let again = ask(&signed(&keys[0], "d1", "nonce-002"));
    assert_eq!((again.status, opened(&keys[0], "nonce-002", "d1", &text(&again, "sealed"))), (200, secret));
    // Who repeats a request hears the answer again, as long as it is only that.
    assert_eq!(ask(&signed(&keys[0], "d1", "nonce-001")).status, 200);
}

#[test]
fn a_recorded_request_registers_nothing_again() {
    let mut broker = house(&["burn-in"], 10);
    let keys = issue(&broker, 1);
    let recorded = [signed(&keys[0], "d1", "nonce-001"), signed(&keys[0], "d1", "nonce-002")];
    let statuses = recorded.each_ref().map(|body| register(&broker, body).status);
    assert_eq!(statuses, [201, 200]);
    assert_eq!(broker.http().post(&path("/packages/1/keys/0/release"), "", "").status, 204);
    for body in &recorded {
        assert_eq!(error(&register(&broker, body)), code(409, "replayed"));
    }
    broker.kill();
    broker.restart();
    assert_eq!(error(&register(&broker, &recorded[0])), code(409, "replayed"));
    assert_eq!(broker.http().get(&path("/devices/d1")).status, 404);
    assert_eq!(register(&broker, &signed(&keys[0], "d1", "nonce-003")).status, 201);
}

#[test]
fn of_many_at_once_one_is_registered() {
    let broker = house(&["burn-in", "listed"], 100);
    let keys = issue(&broker, 1);
    upload(&broker, "serial,SN-0001\n");
    let at_once = |bodies: Vec<Value>| -> Vec<Answer> {
        thread::scope(|scope| {
            let running: Vec<_> = bodies.iter().map(|body| scope.spawn(|| register(&broker, body))).collect();
            running.into_iter().map(|thread| thread.join().expect("an answer")).collect()
        })
    };
    let statuses = |answers: &[Answer]| {
        let mut statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
        statuses.sort_unstable();
        statuses
    };
    let by_names = at_once((0..8).map(|n| by_key(&keys[0], Some(&format!("d{n}")))).collect());
    assert_eq!(statuses(&by_names), [201, 409, 409, 409, 409, 409, 409, 409]);
    let by_identifier = at_once(vec![listed("SN-0001"); 8]);
    assert_eq!(statuses(&by_identifier), [201, 409, 409, 409, 409, 409, 409, 409]);
    let devices = broker.http().get(&path("/devices")).json();
    assert_eq!(devices["devices"].as_array().map(Vec::len), Some(2));
    assert_eq!(broker.http().get(&path("/packages/1")).json()["used"], 2);
}

#[test]
fn what_was_answered_survives_kill_9_and_a_lost_answer_is_given_again() {
    let mut broker = house(&["burn-in", "listed"], 100);
    let keys = issue(&broker, 5);
    upload(&broker, "serial,SN-0001\n");
    let first = register(&broker, &by_key(&keys[0], Some("d0")));
    assert_eq!(register(&broker, &listed("SN-0001")).status, 201);
    broker.kill();
    broker.restart();
    let again = register(&broker, &by_key(&keys[0], Some("d0")));
    assert_eq!((again.status, text(&again, "secret")), (200, text(&first, "secret")));
    assert_eq!(error(&register(&broker, &by_key(&keys[0], Some("other")))), code(409, "exists"));
    // An identifier proves too little for that: the operator has to release it.
    assert_eq!(error(&register(&broker, &listed("SN-0001"))), code(409, "exists"));
    // Killed somewhere on the way, a few times: whatever was answered or not, a key has one device, and the device knows its secret in the end.
    for (round, key) in keys.iter().enumerate().skip(1) {
        let http = device(&broker);
        let (key, names) = (key.clone(), [format!("a{round}"), format!("b{round}")]);
        let asking = {
            let body = by_key(&key, Some(&names[0])).to_string();
            thread::spawn(move || http.send("POST", "/api/v1/register", TLS, &body))
        };
        if round % 2 == 0 {
            asking.join().expect("asked");
            broker.kill();
        } else {
            broker.kill();
            let _ = asking.join();
        }
        broker.restart();
        let mine = register(&broker, &by_key(&key, Some(&names[0])));
        assert!(matches!(mine.status, 200 | 201), "{mine:?}");
        assert_eq!(error(&register(&broker, &by_key(&key, Some(&names[1])))), code(409, "exists"));
        assert!(logs_in(&broker, &names[0], &text(&mine, "secret")));
    }
    assert_eq!(broker.http().get(&path("/packages/1")).json()["used"], 6);
}

#[test]
fn strangers_are_held_back() {
    let config = "[registration]\nrequests = \"3/1h\"\nproxies = [\"127.0.0.0/8\"]\n[guard]\nexempt = []\n";
    let broker = Setup::closed().config(config).start();
    assert_eq!(broker.http().put(&path(""), "{}").status, 201);
    let from = |address: &str| {
        let headers = format!("x-forwarded-for: 203.0.113.9, {address}\r\n{TLS}");
        let body = listed("SN-0001").to_string();
        device(&broker).request_with("POST", "/api/v1/register", &headers, &body)
    };
    let statuses: Vec<_> = (0..4).map(|_| from("192.0.2.1").status).collect();
    assert_eq!(statuses, [403, 403, 403, 429]);
    assert_eq!(from("192.0.2.2").status, 403, "another address");
    assert!(from("192.0.2.1").head.contains("retry-after: "));
    // A banned one isn't heard.
    let ban = r#"{"network": "192.0.2.2/32"}"#;
    assert_eq!(broker.http().post("/api/v1/bans", "application/json", ban).status, 204);
    assert_eq!(error(&from("192.0.2.2")), code(403, "banned"));
    assert_eq!(error(&from("192.0.2.3")), code(403, "not_allowed"));
}

#[test]
fn guesses_lead_to_a_ban() {
    let config = "[registration]\nproxies = [\"127.0.0.0/8\"]\nrequests = \"1000/1s\"\n[guard]\nexempt = []\n";
    let broker = Setup::closed().config(config).start();
    assert_eq!(broker.http().put(&path(""), "{}").status, 201);
    assert_eq!(broker.http().put(&path("/registration"), r#"{"ways": ["listed"]}"#).status, 200);
    let guess = |n: u32| {
        let headers = format!("x-forwarded-for: 192.0.2.7\r\n{TLS}");
        let body = listed(&format!("SN-{n:04}")).to_string();
        error(&device(&broker).request_with("POST", "/api/v1/register", &headers, &body))
    };
    let answers: Vec<_> = (0..30).map(guess).collect();
    assert_eq!(answers[0], code(404, "unknown"));
    assert_eq!(answers[29], code(403, "banned"));
}

#[test]
fn devices_may_have_an_address_of_their_own() {
    let config = "[registration]\naddress = \"127.0.0.1:0\"\n";
    let broker = Setup::closed().config(config).start();
    broker.wait_for_log("name=registration");
    let log = broker.log();
    let line = log.lines().find(|line| line.contains("name=registration")).expect("it listens");
    let address = line.split("address=").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("an address");
    let door = Http { address: address.parse().expect("an address"), token: None };
    assert_eq!(error(&door.post("/api/v1/register", "", &listed("SN-0001").to_string())), code(403, "not_allowed"));
    for path in ["/api/v1/products", "/metrics", "/healthz"] {
        assert_eq!(door.get(path).status, 404, "{path}");
    }
    assert_eq!(device(&broker).post("/api/v1/register", "", "{}").status, 404, "not beside the API");
}
