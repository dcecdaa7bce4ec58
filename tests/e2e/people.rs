//! Apps, users, bindings and services: who may do what, before a change, while connected, and after it.

use std::io::{Read, Write};
use std::net::TcpListener;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use rcgen::SigningKey;
use serde_json::{Value, json};
use turnpike_tests::broker::{Broker, Setup};
use turnpike_tests::client::{Client, End};
use turnpike_tests::credential::{PRODUCT, SECRET, native, now_ms};
use turnpike_tests::time::{SOON, until};
use turnpike_tests::wire::{Connect, Packet, Publish, Version};

use crate::limits::taken_of;

const APP: &str = "home";

/// A broker of one shard, so that what was delivered before a PINGRESP is known; the product; the app, whose secret it is.
struct World {
    broker: Broker,
    secret: String,
}

fn token(secret: &str, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&json!({ "alg": "HS256" })), part(claims));
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).expect("any key");
    mac.update(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

fn claims(app: &str, user: &str) -> Value {
    json!({ "sub": user, "aud": app, "exp": now_ms() / 1000 + 3600 })
}

fn user_path(user: &str, rest: &str) -> String {
    format!("/api/v1/apps/{APP}/users/{user}{rest}")
}

fn device_path(device: &str, rest: &str) -> String {
    format!("/api/v1/products/{PRODUCT}/devices/{device}{rest}")
}

impl World {
    fn new() -> Self {
        Self::with("shards = 1\n")
    }

    fn with(toml: &str) -> Self {
        let broker = Setup::closed().config(toml).start();
        let mut world = Self { broker, secret: String::new() };
        world.ask("PUT", &format!("/api/v1/products/{PRODUCT}"), &json!({}));
        let app = world.ask("PUT", &format!("/api/v1/apps/{APP}"), &json!({}));
        world.secret = app["secret"].as_str().expect("shown once").to_owned();
        world
    }

    /// A request that succeeds.
    #[track_caller]
    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.broker.http().request(method, path, "application/json", &body);
        assert!((200..300).contains(&answer.status), "{method} {path} {body}: {answer:?}");
        if answer.body.is_empty() { Value::Null } else { answer.json() }
    }

    /// The status and code of one that doesn't.
    #[track_caller]
    fn refused(&self, method: &str, path: &str, body: &Value) -> (u16, String) {
        let answer = self.broker.http().request(method, path, "application/json", &body.to_string());
        (answer.status, answer.json()["error"]["code"].as_str().unwrap_or("").to_owned())
    }

    fn put_device(&self, device: &str) {
        self.ask("PUT", &device_path(device, ""), &json!({ "secret": SECRET }));
    }

    fn put_user(&self, user: &str) {
        self.ask("PUT", &user_path(user, ""), &Value::Null);
    }

    /// By a passcode that the device has shown.
    fn bind(&self, device: &str, user: &str) {
        let proof = self.ask("POST", &device_path(device, "/proofs"), &json!({ "kind": "passcode" }));
        let body = json!({ "product": PRODUCT, "device": device, "passcode": proof["text"] });
        self.ask("POST", &user_path(user, "/devices"), &body);
    }

    fn share(&self, device: &str, user: &str, share: &Value) {
        self.ask("PUT", &device_path(device, &format!("/users/{APP}/{user}")), share);
    }

    fn unbind(&self, device: &str, user: &str) {
        self.ask("DELETE", &device_path(device, &format!("/users/{APP}/{user}")), &Value::Null);
    }

    fn user_connect(&self, client: &str, user: &str) -> Connect {
        let token = token(&self.secret, &claims(APP, user));
        Connect::new(Version::V5, client).login(&format!("{APP}/{user}"), &token)
    }

    fn service_connect(client: &str, service: &str) -> Connect {
        let login = turnpike_tests::credential::service(client, service, SERVICE_SECRET);
        Connect::new(Version::V5, client).login(&login.user, &login.password)
    }

    fn put_service(&self, service: &str, change: &Value) {
        let mut body = json!({ "secret": SERVICE_SECRET });
        for (key, value) in change.as_object().expect("fields") {
            body[key] = value.clone();
        }
        self.ask("PUT", &format!("/api/v1/services/{service}"), &body);
    }

    /// What an operator finds in the audit.
    fn audited(&self, query: &str) -> Vec<Value> {
        let records = self.ask("GET", &format!("/api/v1/audit?order=asc&limit=1000&{query}"), &Value::Null);
        records["records"].as_array().expect("a list").clone()
    }
}

const SERVICE_SECRET: &str = "0123456789abcdef0123456789abcdef-of-a-service";

/// What somebody can do with the case's device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Can {
    read: bool,
    control: bool,
    feed: bool,
}

const ALL: Option<Can> = Some(Can { read: true, control: true, feed: true });
const LOOK: Option<Can> = Some(Can { read: true, control: false, feed: true });
const NOTHING: Option<Can> = Some(Can { read: false, control: false, feed: false });
/// A service has no feed.
const FLEET: Option<Can> = Some(Can { read: true, control: true, feed: false });
const FLEET_LOOK: Option<Can> = Some(Can { read: true, control: false, feed: false });
/// Not let in, or closed.
const OUT: Option<Can> = None;

struct Case {
    /// Also the name of the device, and of the user or service.
    name: &'static str,
    is_service: bool,
    prepare: fn(&World, &str),
    before: Option<Can>,
    change: fn(&World, &str),
    /// On the connection that was open before.
    during: Option<Can>,
    /// On a new one.
    after: Option<Can>,
}

fn user_case(name: &'static str, before: Option<Can>, after: Option<Can>) -> Case {
    Case { name, is_service: false, prepare: |_, _| {}, before, change: |_, _| {}, during: after, after }
}

fn owner_of(name: &str) -> String {
    format!("{name}-owner")
}

fn grants(product: &str, rights: &[&str]) -> Value {
    json!({ "grants": [{ "product": product, "rights": rights }] })
}

fn share(world: &World, name: &str) {
    world.share(name, name, &json!({ "role": "view" }));
}

fn full(world: &World, name: &str) {
    world.put_service(name, &grants(PRODUCT, &["read_up", "write_down"]));
}

fn cases() -> Vec<Case> {
    vec![
        Case {
            prepare: |world, name| {
                world.unbind(name, &owner_of(name));
                world.bind(name, name);
            },
            change: |world, name| world.unbind(name, name),
            ..user_case("owner-unbound", ALL, NOTHING)
        },
        Case {
            prepare: |world, name| {
                world.unbind(name, &owner_of(name));
                world.bind(name, name);
            },
            change: |world, name| {
                let user = |user: &str| json!({ "app": APP, "user": user });
                let body = json!({ "from": user(name), "to": user(&owner_of(name)) });
                world.ask("POST", &device_path(name, "/transfer"), &body);
            },
            ..user_case("owner-passes-it-on", ALL, NOTHING)
        },
        Case {
            prepare: |world, name| world.share(name, name, &json!({ "role": "control" })),
            change: share,
            ..user_case("control-to-view", ALL, LOOK)
        },
        Case {
            prepare: |world, name| world.share(name, name, &json!({ "role": "control" })),
            change: |world, name| world.unbind(name, &owner_of(name)),
            ..user_case("control-whose-owner-is-unbound", ALL, NOTHING)
        },
        Case {
            prepare: share,
            change: |world, name| world.share(name, name, &json!({ "role": "control" })),
            ..user_case("view-to-control", LOOK, ALL)
        },
        Case {
            prepare: share,
            change: |world, name| world.unbind(name, name),
            ..user_case("view-taken-back", LOOK, NOTHING)
        },
        Case { change: share, ..user_case("stranger-to-view", NOTHING, LOOK) },
        user_case("stranger", NOTHING, NOTHING),
        Case {
            prepare: |world, name| {
                let expires_at = now_ms() / 1000 + 6;
                world.share(name, name, &json!({ "role": "control", "expires_at": expires_at }));
            },
            // The clock's.
            change: |_, _| {},
            ..user_case("expired-share", ALL, NOTHING)
        },
        Case {
            prepare: share,
            change: |world, name| drop(world.ask("POST", &user_path(name, "/freeze"), &Value::Null)),
            ..user_case("frozen", LOOK, OUT)
        },
        Case {
            prepare: |world, name| {
                world.share(name, name, &json!({ "role": "control" }));
                world.ask("POST", &user_path(name, "/freeze"), &Value::Null);
            },
            change: |world, name| drop(world.ask("POST", &user_path(name, "/unfreeze"), &Value::Null)),
            ..user_case("unfrozen", OUT, ALL)
        },
        Case {
            prepare: share,
            change: |world, name| drop(world.ask("DELETE", &user_path(name, ""), &Value::Null)),
            ..user_case("deleted", LOOK, OUT)
        },
        Case {
            is_service: true,
            prepare: full,
            change: |world, name| world.put_service(name, &grants(PRODUCT, &["read_up"])),
            ..user_case("service-loses-a-grant", FLEET, FLEET_LOOK)
        },
        Case {
            is_service: true,
            prepare: |world, name| world.put_service(name, &grants("toaster", &["read_up", "write_down"])),
            change: full,
            ..user_case("service-out-of-its-grants", NOTHING, FLEET)
        },
        Case {
            is_service: true,
            prepare: full,
            change: |world, name| world.put_service(name, &json!({ "networks": ["10.0.0.0/8"] })),
            ..user_case("service-leaves-its-networks", FLEET, OUT)
        },
        Case {
            is_service: true,
            prepare: |world, name| {
                full(world, name);
                world.put_service(name, &json!({ "networks": ["192.0.2.0/24"] }));
            },
            change: |world, name| world.put_service(name, &json!({ "networks": ["127.0.0.0/8"] })),
            ..user_case("service-out-of-its-networks", OUT, FLEET)
        },
        Case {
            is_service: true,
            prepare: full,
            change: |world, name| drop(world.ask("POST", &format!("/api/v1/services/{name}/disable"), &Value::Null)),
            ..user_case("service-is-disabled", FLEET, OUT)
        },
        // The last: it concerns everybody.
        Case {
            prepare: share,
            change: |world, _| drop(world.ask("POST", &format!("/api/v1/apps/{APP}/disable"), &Value::Null)),
            ..user_case("app-is-cut-off", LOOK, OUT)
        },
    ]
}

/// Somebody on a connection, and the device whose case it is.
struct Bench<'a> {
    name: &'a str,
    is_service: bool,
    client: Client,
    device: Client,
    next: u16,
}

impl<'a> Bench<'a> {
    /// None if somebody isn't let in.
    fn open(world: &World, case: &'a Case, client: &str) -> Option<Self> {
        let connect = match case.is_service {
            true => World::service_connect(client, case.name),
            false => world.user_connect(client, case.name),
        };
        let (client, ack) = Client::open(world.broker.mqtt(), &connect);
        if ack.code != 0 {
            assert!(matches!(ack.code, 0x86 | 0x87), "{}: {ack:?}", case.name);
            return None;
        }
        let login = native(case.name, case.name, SECRET);
        let connect = Connect::new(Version::V5, &login.client_id).login(&login.user, &login.password);
        let mut device = world.broker.client(&connect);
        assert_eq!(device.subscribe(&[(&format!("dev/{PRODUCT}/{}/down/#", case.name), 0)]), [0]);
        Some(Self { name: case.name, is_service: case.is_service, client, device, next: 1 })
    }

    fn topic(&self, rest: &str) -> String {
        format!("dev/{PRODUCT}/{}/{rest}", self.name)
    }

    fn feed(&self) -> String {
        if self.is_service {
            format!("user/{APP}:{}/#", owner_of(self.name))
        } else {
            format!("user/{APP}:{}/#", self.name)
        }
    }

    /// Asks for whatever there is. A user's own feed is there, whether something comes or not.
    #[track_caller]
    fn subscribe(&mut self) {
        let codes = self.client.subscribe(&[(&self.topic("up/#"), 0), (&self.feed(), 0)]);
        assert!(codes.iter().all(|code| matches!(code, 0 | 0x87)), "{codes:?}");
        assert_eq!(codes[1] == 0, !self.is_service, "{}: a feed is its user's own", self.name);
        let others = ["user/home:nobody/#", "dev/+/+/up/#", "dev/#", "#", "user/#", "user/+/dev/#"];
        let codes = self.client.subscribe(&others.map(|filter| (filter, 0)));
        assert_eq!(codes, [0x87; 6], "{}", self.name);
    }

    /// What can be done now; none once the connection has been closed.
    #[track_caller]
    fn look(&mut self) -> Option<Can> {
        self.next += 1;
        let (id, text) = (self.next, self.next.to_string());
        assert!(matches!(self.device.publish(&Publish::new(&self.topic("up/state"), &text).qos(1, id)), 0 | 0x10));
        self.client.try_send(&Publish::new(&self.topic("down/set"), &text).qos(1, id).encode(Version::V5));
        // PINGREQ
        self.client.try_send(&[0xc0, 0]);
        let (mut read, mut feed, mut control) = (false, false, None);
        loop {
            match self.client.recv_or_end()? {
                Packet::PingResp => break,
                Packet::Publish(publish) if publish.topic == self.topic("up/state") => {
                    assert_eq!(publish.text(), text);
                    read = true;
                }
                // Of this very log-in, within a second.
                Packet::Publish(publish) if publish.topic == format!("user/{APP}:{}/sys/new_place", self.name) => {}
                Packet::Publish(publish) => {
                    assert_eq!(publish.topic, format!("user/{APP}:{}/{}", self.name, self.topic("up/state")));
                    feed = true;
                }
                Packet::PubAck(ack) => control = Some(ack.code()),
                Packet::Disconnect { code, .. } => {
                    assert_eq!(code, 0x87, "{}", self.name);
                    return None;
                }
                other => panic!("{}: {other:?}", self.name),
            }
        }
        let told = self.device.drain().into_iter().any(|packet| match packet {
            Packet::Publish(publish) => publish.topic == self.topic("down/set") && publish.text() == text,
            _ => false,
        });
        // QoS 1: the answer may wait for the disk.
        let control = match control {
            Some(code) => code < 0x80,
            None => self.client.ack_in(4).code() < 0x80,
        };
        assert_eq!(control, told, "{}: what is acknowledged reaches the device, and nothing else", self.name);
        Some(Can { read, control, feed })
    }
}

#[test]
fn who_may_do_what_before_during_and_after_a_change() {
    let world = World::new();
    world.ask("PUT", "/api/v1/products/toaster", &json!({}));
    for case in cases() {
        let name = case.name;
        world.put_device(name);
        if !case.is_service {
            world.put_user(name);
            world.put_user(&owner_of(name));
            world.bind(name, &owner_of(name));
        }
        (case.prepare)(&world, name);
        let mut open = Bench::open(&world, &case, &format!("{name}-1"));
        let before = open.as_mut().and_then(|bench| {
            bench.subscribe();
            bench.look()
        });
        assert_eq!(before, case.before, "{name}, before");
        (case.change)(&world, name);
        if let Some(bench) = &mut open {
            // What was gained can be had on the same connection; what was lost is lost without asking.
            let gains = |can: Option<Can>| can.is_some_and(|can| can.read);
            let mut asks = gains(case.during) && !gains(case.before);
            until(name, SOON, || {
                if std::mem::take(&mut asks) {
                    bench.subscribe();
                }
                (bench.look() == case.during).then_some(())
            });
            if case.during.is_some() {
                assert_eq!(bench.look(), case.during, "{name}, while connected, and it stays so");
            }
        }
        drop(open);
        let after = Bench::open(&world, &case, &format!("{name}-2")).and_then(|mut bench| {
            bench.subscribe();
            bench.look()
        });
        assert_eq!(after, case.after, "{name}, after");
    }
}

#[test]
fn services_see_their_tenants_products_alone_and_what_they_do_is_on_record() {
    let world = World::new();
    world.put_device("one");
    world.ask("PUT", &format!("/api/v1/products/{PRODUCT}/tenant"), &json!({ "tenant": "acme" }));
    let all = json!({ "grants": [{ "rights": ["read_up", "write_down"] }] });
    let of_acme = json!({ "tenant": "acme", "grants": all["grants"] });
    world.put_service("theirs", &of_acme);
    world.put_service("others", &all);
    let shared = format!("$share/g/dev/{PRODUCT}/+/up/#");
    let mut theirs = world.broker.client(&World::service_connect("t", "theirs"));
    let mut others = world.broker.client(&World::service_connect("o", "others"));
    assert_eq!((theirs.subscribe(&[(&shared, 0)]), others.subscribe(&[(&shared, 0)])), (vec![0], vec![0x87]));
    let down = format!("dev/{PRODUCT}/one/down/set");
    assert_eq!(others.publish(&Publish::new(&down, "on").qos(1, 1)), 0x87);
    assert!(theirs.publish(&Publish::new(&down, "on").qos(1, 1)) < 0x80);
    let controls = until("the control is on record", SOON, || {
        let found = world.audited("action=control");
        (!found.is_empty()).then_some(found)
    });
    assert_eq!(controls.len(), 1, "{controls:?}");
    assert_eq!((&controls[0]["actor"], &controls[0]["target"]), (&"service:theirs".into(), &"device:lamp/one".into()));
    world.ask("POST", "/api/v1/services/theirs/disable", &Value::Null);
    assert_eq!(theirs.end(), End::Disconnected(0x87));
    assert_eq!(Client::open(world.broker.mqtt(), &World::service_connect("t", "theirs")).1.code, 0x87);
}

#[test]
fn a_device_is_bound_by_what_proves_that_it_is_at_hand() {
    let world = World::new();
    for device in ["typed", "scanned", "pressed"] {
        world.put_device(device);
    }
    world.put_user("o");
    let devices = user_path("o", "/devices");
    let issue = |device: &str, kind: &str| world.ask("POST", &device_path(device, "/proofs"), &json!({ "kind": kind }));
    let by = |device: &str, passcode: &str| json!({ "product": PRODUCT, "device": device, "passcode": passcode });
    let wrong = (403, "wrong_proof".to_owned());
    assert_eq!(world.refused("POST", &devices, &by("typed", "AAAAAAAA")), wrong, "none was issued");
    let code = issue("typed", "passcode")["text"].as_str().expect("a text").to_owned();
    for _ in 0..5 {
        assert_eq!(world.refused("POST", &devices, &by("typed", "wrong")), wrong);
    }
    assert_eq!(world.refused("POST", &devices, &by("typed", &code)), wrong, "five wrong ones void it");
    let code = issue("typed", "passcode")["text"].as_str().expect("a text").to_owned();
    world.ask("POST", &devices, &by("typed", &code.to_lowercase()));
    assert_eq!(world.refused("POST", &devices, &by("typed", &code)), wrong, "once");
    let scanned = json!({ "qr": issue("scanned", "qr")["text"] });
    world.ask("POST", &devices, &scanned);
    assert_eq!(world.refused("POST", &devices, &scanned), wrong);
    let pressed = json!({ "product": PRODUCT, "device": "pressed" });
    assert_eq!(world.refused("POST", &devices, &pressed), wrong);
    issue("pressed", "presence");
    world.ask("POST", &devices, &pressed);
    let bound = world.ask("GET", &devices, &Value::Null);
    let names: Vec<_> = bound["devices"].as_array().expect("a list").iter().map(|device| &device["device"]).collect();
    assert_eq!(names, ["pressed", "scanned", "typed"]);
    assert_eq!(world.audited("action=bind").iter().filter(|record| record["result"] == "refused").count(), 10);
    for wrong in
        [json!({}), json!({ "device": "typed" }), json!({ "qr": "x" }), json!({ "product": 5 }), json!({ "x": 1 })]
    {
        assert_eq!(world.refused("POST", &devices, &wrong), (400, "invalid".to_owned()), "{wrong}");
    }
}

#[test]
fn a_code_for_binding_outlives_a_kill_and_what_voided_it_does_too() {
    let mut world = World::new();
    for device in ["printed", "typed", "pressed", "guessed"] {
        world.put_device(device);
    }
    world.put_user("o");
    let issue = |world: &World, device: &str, kind: &str| {
        world.ask("POST", &device_path(device, "/proofs"), &json!({ "kind": kind }))["text"].clone()
    };
    let by = |device: &str, passcode: &Value| json!({ "product": PRODUCT, "device": device, "passcode": passcode });
    let printed = json!({ "qr": issue(&world, "printed", "qr") });
    let typed = by("typed", &issue(&world, "typed", "passcode"));
    let guessed = by("guessed", &issue(&world, "guessed", "passcode"));
    issue(&world, "pressed", "presence");
    let devices = user_path("o", "/devices");
    let wrong = (403, "wrong_proof".to_owned());
    for _ in 0..5 {
        assert_eq!(world.refused("POST", &devices, &by("guessed", &json!("wrong"))), wrong);
    }
    world.broker.kill();
    world.broker.restart();
    world.ask("POST", &devices, &printed);
    world.ask("POST", &devices, &typed);
    assert_eq!(world.refused("POST", &devices, &guessed), wrong);
    let pressed = json!({ "product": PRODUCT, "device": "pressed" });
    assert_eq!(world.refused("POST", &devices, &pressed), wrong, "a window is closed by a restart");
    world.broker.kill();
    world.broker.restart();
    for device in ["printed", "typed"] {
        world.unbind(device, "o");
    }
    assert_eq!(world.refused("POST", &devices, &printed), wrong, "once");
    assert_eq!(world.refused("POST", &devices, &typed), wrong, "once");
}

#[test]
fn a_user_has_codes_sessions_and_log_ins_until_deleted() {
    let mut world = World::new();
    world.put_device("d");
    world.put_user("o");
    world.bind("d", "o");
    let path = |rest: &str| user_path("o", rest);
    let issued = world.ask("POST", &path("/codes"), &json!({ "ttl_s": 600 }));
    let code = issued["code"].as_str().expect("shown once").to_owned();
    let by_code = |client: &str| Connect::durable(Version::V5, client, 3600).login("home/o", &code);
    let mut phone = world.broker.client(&by_code("phone"));
    assert_eq!(phone.subscribe(&[("user/home:o/sys/#", 0)]), [0]);
    let mut tablet = world.broker.client(&world.user_connect("tablet", "o"));
    let place = std::iter::repeat_with(|| phone.publish_in()).map(|told| {
        assert_eq!(told.topic, "user/home:o/sys/new_place");
        serde_json::from_str::<Value>(told.text()).expect("JSON")
    });
    let place = place.into_iter().find(|place| place["client_id"] == "tablet").expect("it is told on the user's feed");
    assert_eq!((&place["new_device"], &place["new_address"]), (&json!(true), &json!(false)));
    let user = world.ask("GET", &path(""), &Value::Null);
    let clients: Vec<_> = user["sessions"].as_array().expect("a list").iter().map(|one| &one["client_id"]).collect();
    assert_eq!(clients, ["phone", "tablet"]);
    let log_ins: Vec<_> =
        user["log_ins"].as_array().expect("a list").iter().map(|one| (&one["client_id"], &one["by"])).collect();
    let (tablet_id, phone_id) = (json!("tablet"), json!("phone"));
    assert_eq!(log_ins, [(&tablet_id, &json!("token")), (&phone_id, &json!("code"))]);
    assert_eq!(user["places"].as_array().map(Vec::len), Some(2));
    // What is lost with a crash is a second's.
    until("both places are told of", SOON, || (world.audited("action=new_place").len() == 2).then_some(()));
    world.ask("DELETE", &path("/sessions/tablet"), &Value::Null);
    assert_eq!(tablet.end(), End::Disconnected(0x87));
    assert_eq!(world.refused("DELETE", &path("/sessions/tablet"), &Value::Null).0, 404);
    let number = issued["number"].as_str().expect("a number");
    world.ask("DELETE", &path(&format!("/codes/{number}")), &Value::Null);
    assert_eq!(phone.end(), End::Disconnected(0x87));
    assert_eq!(Client::open(world.broker.mqtt(), &by_code("phone")).1.code, 0x86);
    let expired = token(&world.secret, &json!({ "sub": "o", "aud": APP, "exp": now_ms() / 1000 - 60 }));
    assert_eq!(
        Client::open(world.broker.mqtt(), &Connect::new(Version::V5, "c").login("home/o", &expired)).1.code,
        0x87
    );
    let stored = || {
        let export = world.ask("GET", &path("/export"), &Value::Null);
        (export["log_ins"].as_array().map(Vec::len), export["devices"][0]["role"].clone())
    };
    until("log-ins are stored", SOON, || (stored() == (Some(2), json!("owner"))).then_some(()));
    world.ask("POST", &path("/codes"), &json!({}));
    world.broker.kill();
    world.broker.restart();
    let user = world.ask("GET", &path(""), &Value::Null);
    assert_eq!(user["codes"].as_array().map(Vec::len), Some(1));
    let deleted = world.ask("DELETE", &path(""), &Value::Null);
    assert_eq!((&deleted["devices"], &deleted["codes"], &deleted["sessions"]), (&json!(1), &json!(1), &json!(1)));
    assert_eq!(world.refused("GET", &path(""), &Value::Null).0, 404);
    assert_eq!(world.ask("GET", &device_path("d", "/users"), &Value::Null)["users"], json!([]));
    world.put_user("o");
    let again = world.ask("GET", &path(""), &Value::Null);
    assert_eq!(
        (&again["sessions"], &again["log_ins"], &again["codes"]),
        (&json!([]), &json!([]), &json!([])),
        "a new one"
    );
}

#[test]
fn a_token_ends_its_connection() {
    let world = World::new();
    world.put_user("o");
    world.ask("PUT", &format!("/api/v1/apps/{APP}"), &json!({ "tokens": { "leeway_s": 0 } }));
    let short = token(&world.secret, &json!({ "sub": "o", "aud": APP, "exp": now_ms() / 1000 + 4 }));
    let mut client = world.broker.client(&Connect::new(Version::V5, "c").login("home/o", &short));
    assert_eq!(client.end(), End::Disconnected(0x87));
}

/// A key, as its holder publishes it, and a token that it signs.
fn signed_by(key: &rcgen::KeyPair, id: &str) -> (String, String) {
    let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "kid": id, "x": URL_SAFE_NO_PAD.encode(key.public_key_raw()) });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = json!({ "alg": "EdDSA", "kid": id });
    let signed = format!("{}.{}", part(&header), part(&claims(APP, "o")));
    let signature = URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()).expect("signs"));
    (json!({ "keys": [jwk] }).to_string(), format!("{signed}.{signature}"))
}

#[test]
fn keys_for_tokens_are_fetched_from_a_url_or_a_file() {
    let world = World::new();
    world.put_user("o");
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    let (set, token) = signed_by(&key, "k");
    let code = || Client::open(world.broker.mqtt(), &Connect::new(Version::V5, "c").login("home/o", &token)).1.code;
    let put = |tokens: &Value| world.ask("PUT", &format!("/api/v1/apps/{APP}"), &json!({ "tokens": tokens }));
    assert_eq!(code(), 0x86, "no keys");
    let file = world.broker.folder().join("keys.json");
    std::fs::write(&file, &set).expect("written");
    put(&json!({ "keys_file": file }));
    until("the file is read", SOON, || (code() == 0).then_some(()));
    put(&json!({ "hs256": true }));
    assert_eq!(code(), 0x86, "taken away");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/keys", listener.local_addr().expect("bound"));
    let served = set.clone();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("somebody asks");
        let asked = stream.read(&mut [0; 4096]).expect("reads");
        assert!(asked > 0);
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{served}", served.len());
        stream.write_all(answer.as_bytes()).expect("writes");
    });
    put(&json!({ "keys_url": url }));
    server.join().expect("served");
    until("the set is there", SOON, || (code() == 0).then_some(()));
    put(&json!({ "keys": serde_json::from_str::<Value>(&set).expect("JSON") }));
    assert_eq!(code(), 0, "given at once");
    for wrong in [
        json!({ "keys_url": "http://id.example/keys" }),
        json!({ "keys_file": "keys.json" }),
        json!({ "keys": {} }),
        json!({ "keys_url": url, "keys_file": file }),
        json!({ "alg": "none" }),
    ] {
        let body = json!({ "tokens": wrong });
        assert_eq!(world.refused("PUT", &format!("/api/v1/apps/{APP}"), &body).0, 400, "{wrong}");
    }
}

/// Serves one document after the other, the last one for ever; says how often it was asked.
fn serve_keys(documents: Vec<String>) -> (String, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/keys", listener.local_addr().expect("bound"));
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&asked);
    // It ends with the process.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("somebody asks");
            assert!(stream.read(&mut [0; 4096]).expect("reads") > 0);
            let nth = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst).min(documents.len() - 1);
            let document = &documents[nth];
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{document}", document.len());
            stream.write_all(answer.as_bytes()).expect("writes");
        }
    });
    (url, asked)
}

#[test]
fn a_new_key_of_an_issuer_is_fetched_when_a_token_names_it_and_not_too_often() {
    let world = World::new();
    world.put_user("o");
    let [old, new, unknown] = [(); 3].map(|()| rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key"));
    let ((old_set, old), (new_set, new)) = (signed_by(&old, "old"), signed_by(&new, "new"));
    let (_, unknown) = signed_by(&unknown, "unknown");
    let (url, asked) = serve_keys(vec![old_set, new_set]);
    let code =
        |token: &str| Client::open(world.broker.mqtt(), &Connect::new(Version::V5, "c").login("home/o", token)).1.code;
    world.ask("PUT", &format!("/api/v1/apps/{APP}"), &json!({ "tokens": { "keys_url": url } }));
    until("the old set is there", SOON, || (code(&old) == 0).then_some(()));
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 1);
    // It says that it is to be tried again, and isn't held against anybody.
    assert_eq!(code(&new), 0x88);
    until("the new set is there", SOON, || (code(&new) == 0).then_some(()));
    assert_eq!(code(&unknown), 0x86, "within the half minute nothing is fetched for it");
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 2);
    // An app that comes to the same place later has its keys without another fetch.
    world.ask("PUT", "/api/v1/apps/second", &json!({ "tokens": { "keys_url": url, "audience": APP } }));
    world.ask("PUT", "/api/v1/apps/second/users/o", &Value::Null);
    let second = || Client::open(world.broker.mqtt(), &Connect::new(Version::V5, "c").login("second/o", &new)).1.code;
    until("the second app has them", SOON, || (second() == 0).then_some(()));
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 2);
    let metrics = world.broker.http().get("/metrics").body;
    for line in ["jwks_fetches_total{outcome=\"ok\"} 2", "jwks_fetches_asked_total 1", "jwks_sources 1"] {
        assert!(metrics.contains(&format!("turnpike_{line}\n")), "{line} in {metrics}");
    }
}

#[test]
fn what_is_deleted_takes_its_bindings_with_it() {
    let world = World::new();
    for device in ["one", "two"] {
        world.put_device(device);
        world.put_user("o");
        world.bind(device, "o");
    }
    world.ask("DELETE", &device_path("one", ""), &Value::Null);
    let devices = |world: &World| world.ask("GET", &user_path("o", "/devices"), &Value::Null)["devices"].clone();
    assert_eq!(devices(&world).as_array().map(Vec::len), Some(1));
    world.ask("DELETE", &format!("/api/v1/products/{PRODUCT}"), &Value::Null);
    assert_eq!(devices(&world), json!([]));
    world.ask("DELETE", &format!("/api/v1/apps/{APP}"), &Value::Null);
    assert_eq!(world.refused("GET", &user_path("o", ""), &Value::Null), (404, "not_found".to_owned()));
    let said: Vec<_> = world.audited("actor=operator:*").iter().map(|record| record["action"].clone()).collect();
    for action in ["bind", "unbind", "device_delete", "product_delete", "app_delete", "user_delete", "proof_issue"] {
        assert!(said.contains(&json!(action)), "{action} in {said:?}");
    }
    assert!(!world.broker.log().contains(&world.secret));
}

#[test]
fn many_connections_of_one_user_have_the_rate_of_one() {
    let limits =
        "[limits.user]\nmessages = \"5/1h\"\n[limits.app]\nmessages = \"7/1h\"\n[limits.excess]\nrefuse_acked = true\n";
    let world = World::with(&format!("shards = 2\n{limits}"));
    world.put_device("one");
    let down = format!("dev/{PRODUCT}/one/down/x");
    for user in ["ada", "bob"] {
        world.put_user(user);
    }
    world.bind("one", "ada");
    world.share("one", "bob", &json!({ "role": "control" }));
    let connect = |n: usize, user: &str| world.broker.client(&world.user_connect(&format!("{user}-{n}"), user));
    let mut clients: Vec<Client> = (0..20).map(|n| connect(n, "ada")).collect();
    assert_eq!(taken_of(&mut clients, &down, 40), 5);
    clients.drain(..).for_each(Client::drop_connection);
    for n in 0..3 {
        assert_eq!(taken_of(&mut [connect(n, "ada")], &down, 3), 0, "{n}");
    }
    let mut clients: Vec<Client> = (0..20).map(|n| connect(n, "bob")).collect();
    assert_eq!(taken_of(&mut clients, &down, 40), 2, "what the app has left");
}
