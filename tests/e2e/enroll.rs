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

#[test]
fn operators_are_told_what_is_wrong() {
    let broker = house(&[], 5);
    let http = broker.http();
    for (body, status) in [
        (json!({ "ways": ["burn-in"], "package": 9 }), 404),
        (json!({ "ways": ["by-hand"] }), 400),
        (json!({ "ways": "burn-in" }), 400),
        (json!({ "ways": [], "secret": "short" }), 400),
        (json!({ "ways": [], "secrets": [] }), 400),
    ] {
        assert_eq!(http.put(&path("/registration"), &body.to_string()).status, status, "{body}");
    }
    assert_eq!(http.put("/api/v1/products/toaster/registration", r#"{"ways": []}"#).status, 404);
    let issue = |count: Value| error(&post(&broker, "/packages/1/keys", &json!({ "count": count })));
    assert_eq!(issue(json!(6)), code(409, "capacity"));
    assert_eq!((issue(json!(0)).0, issue(json!(10_001)).0, issue(json!("5")).0), (400, 400, 400));
    assert_eq!(post(&broker, "/packages/1/keys", &json!({ "count": 4 })).status, 201);
    let shown = http.get(&path("/packages/1/keys?from=1&limit=2")).json();
    assert_eq!(shown["keys"].as_array().map(Vec::len), Some(2));
    assert_eq!(error(&http.put(&path("/packages/1"), r#"{"quota": 3}"#)), code(409, "quota"));
    assert_eq!(http.get(&path("/packages/7")).status, 404);
    assert_eq!(post(&broker, "/packages", &json!({ "quota": -1 })).status, 400);
    assert_eq!(post(&broker, "/packages", &json!({ "quota": 1 })).json()["package"], 2);
    let numbers = http.get(&path("/packages")).json();
    let numbers: Vec<_> =
        numbers["packages"].as_array().expect("a list").iter().map(|p| p["package"].as_u64()).collect();
    assert_eq!(numbers, [Some(1), Some(2)]);
    // Nobody without the token, and nobody sees the product's secret.
    for rest in ["/packages", "/registration", "/packages/1/keys", "/lists/mac"] {
        assert_eq!(device(&broker).get(&path(rest)).status, 401);
    }
    assert!(!http.get(&path("/registration")).body.contains(PRODUCT_SECRET));
    for action in ["package_put", "keys_issue", "keys_show", "product_registration"] {
        assert!(!audited(&broker, action).is_empty(), "{action}");
    }
    let document = http.get("/api/openapi.json").json();
    for path in ["/api/v1/register", "/api/v1/products/{product}/packages/{package}/keys", "/auth/register/device"] {
        assert!(document["paths"][path].is_object(), "{path}");
    }
}

#[test]
fn a_list_is_uploaded_read_by_page_and_emptied() {
    let broker = house(&["listed"], 100);
    let http = broker.http();
    let csv = "kind,identifier\nmac,00:1A:2B:3C:4D:5E\nimei,490154203237518\nimei,490154203237519\nserial,SN-0001\n\
               serial,SN-0001\ncolour,red\nmac\n\nserial,SN-0002";
    let report = upload(&broker, csv);
    assert_eq!((&report["listed"], &report["kept"], &report["refused"]), (&json!(4), &json!(1), &json!(3)));
    let lines: Vec<_> =
        report["faults"].as_array().expect("a list").iter().map(|fault| fault["line"].as_u64()).collect();
    assert_eq!(lines, [Some(4), Some(7), Some(8)]);
    let one = |rest: &str| http.put(&path(&format!("/packages/1/list/{rest}")), "").status;
    assert_eq!(
        [one("serial/SN-0003"), one("serial/SN-0003"), one("mac/nonsense"), one("colour/x")],
        [201, 200, 400, 400]
    );
    let first = http.get(&path("/lists/serial?limit=2")).json();
    assert_eq!((&first["identifiers"][1]["identifier"], &first["next"]), (&json!("SN-0002"), &json!("SN-0002")));
    let second = http.get(&path("/lists/serial?limit=2&after=SN-0002")).json();
    assert_eq!((second["identifiers"].as_array().map(Vec::len), &second["next"]), (Some(1), &Value::Null));
    let made = register(&broker, &listed("001a.2b3c.4d5e"));
    assert_eq!((made.status, text(&made, "device")), (201, "001A2B3C4D5E".to_owned()));
    assert!(logs_in(&broker, "001A2B3C4D5E", &text(&made, "secret")));
    let mac = path("/lists/mac/00-1A-2B-3C-4D-5E");
    assert_eq!(http.get(&mac).json()["device"], "001A2B3C4D5E");
    assert_eq!(error(&http.delete(&mac)), code(409, "in_use"));
    assert_eq!(http.post(&format!("{mac}/release"), "", "").status, 204);
    assert_eq!((http.delete(&mac).status, http.delete(&mac).status), (204, 404));
    assert_eq!(error(&register(&broker, &listed("001a.2b3c.4d5e"))), code(404, "unknown"));
    // With the product goes all of it; a new one of that name begins with nothing.
    assert_eq!(http.delete(&path("")).status, 204);
    assert_eq!(http.put(&path(""), "{}").status, 201);
    assert_eq!(http.get(&path("/registration")).json(), json!({ "ways": [], "has_secret": false }));
    assert_eq!(http.get(&path("/packages")).json()["packages"], json!([]));
    assert_eq!(http.get(&path("/lists/imei")).json()["identifiers"], json!([]));
}

/// A file of many lines, of which few are kept in memory at once.
#[test]
fn a_long_list_survives_kill_9() {
    let mut broker = house(&["listed"], 100);
    let csv: String = (0..20_000).map(|n| format!("serial,SN-{n:06}\n")).collect();
    assert_eq!(upload(&broker, &csv)["listed"], 20_000);
    broker.kill();
    broker.restart();
    assert_eq!(broker.http().get(&path("/packages/1")).json()["listed"], 20_000);
    assert_eq!(register(&broker, &listed("SN-019999")).status, 201);
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

fn form(broker: &Broker, path: &str, headers: &str, body: &str) -> Answer {
    let headers = format!("content-type: application/x-www-form-urlencoded\r\n{headers}");
    device(broker).request_with("POST", path, &headers, body)
}

#[test]
fn aliyun_over_http() {
    let broker = house(&["aliyun"], 10);
    upload(&broker, "serial,SN-0001\n");
    let ask = |name: &str, secret: &str, headers: &str| {
        let sign = hmac_sha256(secret, &format!("deviceName{name}productKey{PRODUCT}random567"));
        let body = format!("productKey={PRODUCT}&deviceName={name}&random=567&sign={sign}&signMethod=hmacsha256");
        let answer = form(&broker, "/auth/register/device", headers, &body);
        (answer.status, answer.json())
    };
    let refused = |status: u16, message: &str| (status, json!({ "code": status, "message": message }));
    assert_eq!(ask("SN-0001", PRODUCT_SECRET, ""), refused(403, "tls_required"));
    assert_eq!(ask("SN-0001", "another secret", TLS), refused(403, "wrong_key"));
    assert_eq!(ask("SN-0002", PRODUCT_SECRET, TLS), refused(404, "unknown"));
    assert_eq!(form(&broker, "/auth/register/device", TLS, "productKey=lamp").status, 400);
    let (status, made) = ask("SN-0001", PRODUCT_SECRET, TLS);
    assert_eq!((status, &made["code"], &made["data"]["deviceName"]), (200, &json!(200), &json!("SN-0001")));
    assert!(logs_in(&broker, "SN-0001", made["data"]["deviceSecret"].as_str().expect("a secret")));
    assert_eq!(ask("SN-0001", PRODUCT_SECRET, TLS), refused(409, "exists"));
}

/// What a tencent device makes of the answer's payload.
fn tencent_psk(payload: &str) -> String {
    let mut bytes = STANDARD.decode(payload).expect("base64");
    let key = PRODUCT_SECRET.as_bytes()[..16].try_into().expect("16 bytes");
    let plain = cbc::Decryptor::<Aes128>::new(key, &[b'0'; 16].into()).decrypt_padded::<ZeroPadding>(&mut bytes);
    let psk: Value = serde_json::from_slice(plain.expect("zeros")).expect("JSON");
    assert_eq!(psk["encryptionType"], 2);
    psk["psk"].as_str().expect("a text").to_owned()
}

#[test]
fn tencent_in_both_ways() {
    let broker = house(&["tencent"], 10);
    upload(&broker, "serial,SN-0001\n");
    let older = |name: &str, secret: &str| {
        let text = format!("deviceName={name}&nonce=77&productId={PRODUCT}&timestamp=1551000000");
        let signature = STANDARD.encode(hmac_sha1(secret, &text));
        let body = json!({ "deviceName": name, "nonce": 77, "productId": PRODUCT, "timestamp": 1_551_000_000, "signature": signature });
        let answer = device(&broker).post("/register/dev", "application/json", &body.to_string());
        (answer.status, answer.json())
    };
    assert_eq!(older("SN-0001", "another secret"), (403, json!({ "code": 403, "message": "wrong_key" })));
    assert_eq!(older("SN-0002", PRODUCT_SECRET).0, 404);
    let (status, made) = older("SN-0001", PRODUCT_SECRET);
    assert_eq!((status, &made["code"]), (200, &json!(0)), "{made}");
    let psk = tencent_psk(made["payload"].as_str().expect("a text"));
    assert_eq!(STANDARD.decode(&psk).map(|psk| psk.len()), Ok(16));
    assert!(logs_in(&broker, "SN-0001", &psk));
    assert_eq!(older("SN-0001", PRODUCT_SECRET).0, 409);

    set_ways(&broker, &["tencent-unlisted"]);
    let newer = |name: &str| {
        let body = json!({ "ProductId": PRODUCT, "DeviceName": name }).to_string();
        let hash = hex::encode(<Sha256 as sha2::Digest>::digest(body.as_bytes()));
        let host = broker.http().address;
        let text = format!("POST\n{host}\n/device/register\n\nHmacSha256\n1551\n5456\n{hash}");
        let signature = STANDARD.encode(hex::decode(hmac_sha256(PRODUCT_SECRET, &text)).expect("hex"));
        let headers = format!(
            "x-tc-algorithm: HmacSha256\r\nx-tc-timestamp: 1551\r\nx-tc-nonce: 5456\r\nx-tc-signature: {signature}\r\n"
        );
        let answer = device(&broker).request_with("POST", "/device/register", &headers, &body);
        (answer.status, answer.json()["Response"].clone())
    };
    let (status, made) = newer("SN-0077");
    assert_eq!(status, 200, "{made}");
    assert!(logs_in(&broker, "SN-0077", &tencent_psk(made["Payload"].as_str().expect("a text"))));
    let (status, refused) = newer("SN-0077");
    assert_eq!((status, &refused["Error"]["Code"]), (409, &json!("exists")));
    assert!(refused["RequestId"].as_str().is_some_and(|id| id.len() == 32));
}

/// Block by block, as the devices have it.
fn gizwits_cipher() -> Aes128 {
    Aes128::new_from_slice(&hex::decode(PRODUCT_SECRET).expect("hex")).expect("16 bytes")
}

fn gizwits_sealed(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let padding = 16 - bytes.len() % 16;
    bytes.resize(bytes.len() + padding, u8::try_from(padding).expect("small"));
    for block in bytes.as_chunks_mut::<16>().0 {
        gizwits_cipher().encrypt_block(block.into());
    }
    hex::encode(bytes)
}

fn gizwits_opened(text: &str) -> String {
    let mut bytes = hex::decode(text).expect("hex");
    for block in bytes.as_chunks_mut::<16>().0 {
        gizwits_cipher().decrypt_block(block.into());
    }
    let padding = usize::from(*bytes.last().expect("a block"));
    bytes.truncate(bytes.len() - padding);
    String::from_utf8(bytes).expect("text")
}

#[test]
fn gizwits_in_the_clear_and_encrypted() {
    let broker = house(&["gizwits", "gizwits-sealed"], 10);
    upload(&broker, "mac,001A2B3C4D5E\nmac,001A2B3C4D5F\n");
    let profiles = r#"{"profiles": ["native", "gizwits-legacy"]}"#;
    assert_eq!(broker.http().put(&path("/profiles"), profiles).status, 200);
    let ask = |mac: &str, passcode: &str| {
        form(&broker, "/dev/devices", "", &format!("passcode={passcode}&mac={mac}&product_key={PRODUCT}"))
    };
    let made = ask("001A2B3C4D5E", "QWERTYUIOP");
    assert_eq!(made.status, 201, "{made:?}");
    let did = made.body.strip_prefix("did=").expect("an id").to_owned();
    assert_eq!(did.len(), 22);
    // It asks whenever it starts.
    assert_eq!(ask("001A2B3C4D5E", "QWERTYUIOP").body, made.body);
    assert_eq!((ask("001A2B3C4D5E", "ANOTHERONE").status, ask("001A2B3C4D5A", "QWERTYUIOP").status), (409, 404));
    assert_eq!(form(&broker, "/dev/devices", "", "mac=1").status, 400);
    let provisioned = device(&broker).get(&format!("/dev/devices/{did}"));
    assert!(provisioned.body.starts_with("host=mqtt.example.com&port=1883&server_ts="), "{provisioned:?}");
    let connect = Connect::new(Version::V31, &did).login(&did, "QWERTYUIOP");
    assert_eq!(Client::open(broker.mqtt(), &connect).1.code, 0);

    let sealed = gizwits_sealed("mac=001A2B3C4D5F&passcode=ASDFGHJKLZ&type=normal");
    let sealed_path = format!("/dev/{PRODUCT}/device");
    let made = form(&broker, &sealed_path, "", &format!("data={sealed}"));
    assert_eq!(made.status, 201, "{made:?}");
    let did = gizwits_opened(&made.body).strip_prefix("did=").expect("an id").to_owned();
    let connect = Connect::new(Version::V311, &did).login(&did, "ASDFGHJKLZ");
    assert_eq!(Client::open(broker.mqtt(), &connect).1.code, 0);
    let provisioned = gizwits_opened(&device(&broker).get(&format!("{sealed_path}/{did}")).body);
    assert!(provisioned.starts_with("host=mqtt.example.com&port=1883&"), "{provisioned}");
    assert_eq!(form(&broker, &sealed_path, "", &format!("data={}", "00".repeat(16))).status, 403);
}

/// Sends a CONNECT through TLS, and gives what comes back until the broker ends the connection, or its first packet if the broker lets the client in for longer.
#[track_caller]
fn through_tls(broker: &Broker, version: Version, login: &Credential) -> Vec<Packet> {
    let authority = std::fs::read(broker.data().join("pki/ca.pem")).expect("a certificate");
    let name = "localhost".try_into().expect("a name");
    let session = rustls::ClientConnection::new(Arc::new(trusting(&authority)), name).expect("a session");
    let stream = TcpStream::connect(broker.address("mqtts")).expect("it listens");
    stream.set_read_timeout(Some(SOON)).expect("a timeout");
    let mut stream = rustls::StreamOwned::new(session, stream);
    let connect = Connect::new(version, &login.client_id).login(&login.user, &login.password);
    stream.write_all(&connect.encode()).expect("sent");
    let (mut bytes, mut packets) = (Vec::new(), Vec::new());
    loop {
        while let Some((packet, length)) = decode(version, &bytes) {
            bytes.drain(..length);
            packets.push(packet);
        }
        let is_registering = login.client_id.contains("authType=reg");
        if !packets.is_empty() && !is_registering {
            return packets;
        }
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk) {
            Ok(0) => return packets,
            Ok(length) => bytes.extend(&chunk[..length]),
            Err(error) => {
                let is_end = matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset);
                assert!(is_end, "{error}: {packets:?}");
                return packets;
            }
        }
    }
}

fn trusting(authority: &[u8]) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority).expect("PEM")).expect("a certificate");
    let provider = rustls::crypto::ring::default_provider().into();
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

fn registering(kind: &str, name: &str, secret: &str) -> Credential {
    let mode = if kind == "register" { "2" } else { "-2" };
    Credential {
        client_id: format!("{name}.{PRODUCT}|securemode={mode},authType={kind},random=567,signmethod=hmacsha256|"),
        user: format!("{name}&{PRODUCT}"),
        password: hmac_sha256(secret, &format!("deviceName{name}productKey{PRODUCT}random567")),
    }
}

/// The code of the CONNACK, and the topic and the JSON of what was pushed.
#[track_caller]
fn pushed(packets: &[Packet]) -> (u8, Option<(String, Value)>) {
    match packets {
        [Packet::ConnAck(ack)] => (ack.code, None),
        [Packet::ConnAck(ack), Packet::Publish(publish)] => {
            assert!(!ack.session_present && publish.qos == 0 && !publish.retain);
            (ack.code, Some((publish.topic.clone(), serde_json::from_str(publish.text()).expect("JSON"))))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn aliyun_by_connect() {
    let mut broker = house(&["aliyun"], 3);
    upload(&broker, "serial,SN-0001\nserial,SN-0002\nserial,SN-0003\nserial,SN-0004\n");
    let ask = |broker: &Broker, version, login: &Credential| pushed(&through_tls(broker, version, login));
    let plain = |version, login: &Credential| {
        let connect = Connect::new(version, &login.client_id).login(&login.user, &login.password);
        Client::open(broker.mqtt(), &connect).1.code
    };
    let first = registering("register", "SN-0001", PRODUCT_SECRET);
    assert_eq!((plain(Version::V311, &first), plain(Version::V5, &first)), (5, 0x87), "not without TLS");
    let (code, push) = ask(&broker, Version::V311, &first);
    let (topic, said) = push.expect("a push");
    assert_eq!((code, topic.as_str()), (0, "/ext/register"));
    assert_eq!((&said["productKey"], &said["deviceName"]), (&json!(PRODUCT), &json!("SN-0001")));
    let secret = said["deviceSecret"].as_str().expect("a secret").to_owned();
    let login = aliyun("SN-0001", &secret);
    assert_eq!(plain(Version::V311, &login), 0);
    let (code, push) = ask(&broker, Version::V5, &registering("register", "SN-0002", PRODUCT_SECRET));
    assert!(code == 0 && push.is_some());
    for (name, product_secret, mqtt3, mqtt5) in [
        ("SN-0001", PRODUCT_SECRET, 2, 0x85),
        ("SN-0009", PRODUCT_SECRET, 4, 0x86),
        ("SN-0003", "another secret", 4, 0x86),
    ] {
        let login = registering("register", name, product_secret);
        assert_eq!(ask(&broker, Version::V311, &login), (mqtt3, None), "{name}");
        assert_eq!(ask(&broker, Version::V5, &login), (mqtt5, None), "{name}");
    }
    assert_eq!(ask(&broker, Version::V5, &registering("regnwl", "SN-0099", PRODUCT_SECRET)), (0x87, None));
    assert!(ask(&broker, Version::V5, &registering("register", "SN-0003", PRODUCT_SECRET)).1.is_some());
    let fourth = registering("register", "SN-0004", PRODUCT_SECRET);
    assert_eq!(ask(&broker, Version::V5, &fourth), (0x97, None), "capacity");
    let expired = json!({ "quota": 9, "expires_at": now_ms() / 1000 });
    assert_eq!(broker.http().put(&path("/packages/1"), &expired.to_string()).status, 200);
    assert_eq!(ask(&broker, Version::V5, &fourth), (0x8A, None), "expired");
    let registered = audited(&broker, "register");
    let made = registered.iter().find(|record| record["result"] == "accepted").expect("on record");
    assert_eq!(
        (&made["detail"]["way"], &made["target"]),
        (&json!("aliyun"), &json!(format!("device:{PRODUCT}/SN-0001")))
    );
    assert!(made["source"].as_str().is_some_and(|source| source.starts_with("127.0.0.1:")));
    broker.kill();
    broker.restart();
    assert_eq!(ask(&broker, Version::V311, &first), (2, None));
    let connect = Connect::new(Version::V311, &login.client_id).login(&login.user, &login.password);
    assert_eq!(Client::open(broker.mqtt(), &connect).1.code, 0);
}

#[test]
fn aliyun_by_connect_under_any_name_with_a_token() {
    let broker = house(&["aliyun-unlisted"], 10);
    let login = registering("regnwl", "SN-0001", PRODUCT_SECRET);
    let (code, push) = pushed(&through_tls(&broker, Version::V311, &login));
    let (topic, said) = push.expect("a push");
    assert_eq!((code, topic.as_str(), &said["deviceName"]), (0, "/ext/regnwl", &json!("SN-0001")));
    let text = |field: &str| said[field].as_str().expect("a text").to_owned();
    let later = Credential {
        client_id: format!("{}|authType=connwl,securemode=-2,_v=1|", text("clientId")),
        user: format!("SN-0001&{PRODUCT}"),
        password: text("deviceToken"),
    };
    assert_eq!(pushed(&through_tls(&broker, Version::V311, &later)), (0, None));
    let connect = Connect::new(Version::V311, &later.client_id).login(&later.user, &later.password);
    assert_eq!(Client::open(broker.mqtt(), &connect).1.code, 5, "the token isn't for those who listen");
    let forged = Credential { password: "0".repeat(32), ..later };
    assert_eq!(pushed(&through_tls(&broker, Version::V311, &forged)), (4, None));
    assert_eq!(pushed(&through_tls(&broker, Version::V311, &login)), (2, None));
}

#[test]
fn of_many_connects_at_once_one_registers() {
    let broker = house(&["aliyun"], 100);
    upload(&broker, "serial,SN-0001\n");
    let login = registering("register", "SN-0001", PRODUCT_SECRET);
    let answers: Vec<_> = thread::scope(|scope| {
        let ask = || pushed(&through_tls(&broker, Version::V5, &login));
        let running: Vec<_> = (0..6).map(|_| scope.spawn(ask)).collect();
        running.into_iter().map(|thread| thread.join().expect("an answer")).collect()
    });
    assert_eq!(answers.iter().filter(|(code, push)| *code == 0 && push.is_some()).count(), 1);
    assert_eq!(answers.iter().filter(|(code, push)| *code == 0x85 && push.is_none()).count(), 5, "{answers:?}");
}

#[test]
fn where_devices_do_not_register_a_connect_that_wants_to_is_told_so_at_once() {
    let broker = Setup::closed().config("[registration]\nenabled = false\n").start();
    let login = registering("register", "SN-0001", PRODUCT_SECRET);
    for (version, code) in [(Version::V311, 3), (Version::V5, 0x88)] {
        let connect = Connect::new(version, &login.client_id).login(&login.user, &login.password);
        assert_eq!(Client::open(broker.mqtt(), &connect).1.code, code);
    }
    until("the audit has it", SOON, || {
        let has = |record: &Value| record["cause"] == "unavailable";
        audited(&broker, "log_in").iter().any(has).then_some(())
    });
}
