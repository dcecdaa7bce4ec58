//! Other clouds: mutual TLS, tokens, signatures, users' data keys, and what may be done with them.

use std::cell::Cell;

use aes::Aes256;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cfb_mode::cipher::KeyIvInit;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use turnpike_tests::broker::{Broker, Setup};
use turnpike_tests::certificate::{Authority, Identity};
use turnpike_tests::client::Client;
use turnpike_tests::credential::{PRODUCT, hmac_sha256 as hmac, native, now_ms};
use turnpike_tests::http::Answer;
use turnpike_tests::https::Https;
use turnpike_tests::time::{SOON, until};
use turnpike_tests::wire::{Connect, Publish, Version};

use crate::gate::register;

const SECRET: &str = turnpike_tests::credential::SECRET;

/// A broker that platforms may come to, and their certificates.
struct World {
    broker: Broker,
    folder: TempDir,
    partners: Authority,
}

/// A platform's side.
struct Cloud {
    https: Https,
    plat_id: u64,
    auth_token: String,
    nonce: Cell<u64>,
}

fn world() -> World {
    world_with("")
}

/// The same with more in the configuration.
fn world_with(more: &str) -> World {
    let folder = tempfile::tempdir().expect("a folder");
    let servers = Authority::new(folder.path(), "servers");
    let partners = Authority::new(folder.path(), "partners");
    let server = servers.sign("server");
    let toml = format!(
        "[platform]\naddress = \"127.0.0.1:0\"\n[platform.tls]\nclient_ca_files = [{:?}]\n[[platform.tls.certificates]]\nchain_file = {:?}\nkey_file = {:?}\n{more}",
        partners.certificate, server.certificate, server.key
    );
    let broker = Setup::listeners(&["mqtt"], &server).and_listener(&toml).start();
    register(&broker);
    World { broker, folder, partners }
}

fn fingerprint(identity: &Identity) -> String {
    let pem = std::fs::read_to_string(&identity.certificate).expect("a file");
    let base64: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    hex::encode(Sha256::digest(STANDARD.decode(base64).expect("PEM")))
}

/// What the page for partners says is signed.
fn canonical(path: &str, fields: &Map<String, Value>) -> String {
    canonical_of("POST", path, fields)
}

fn canonical_of(method: &str, path: &str, fields: &Map<String, Value>) -> String {
    let mut names: Vec<&String> = fields.keys().filter(|name| *name != "sign").collect();
    names.sort();
    let line = |name: &&String| match &fields[*name] {
        Value::String(text) => format!("{name}={text}\n"),
        other => format!("{name}={other}\n"),
    };
    format!("turnpike-platform-1\n{method}\n{path}\n{}", names.iter().map(line).collect::<String>())
}

impl World {
    fn https(&self, identity: Option<&Identity>) -> Https {
        Https::new(self.broker.address("platform"), &self.folder.path().join("servers-ca.pem"), identity)
    }

    /// A platform that may control the product of the tests.
    #[track_caller]
    fn cloud(&self, name: &str, control: bool) -> Cloud {
        let identity = self.partners.sign_for_days(name, 365);
        let body = json!({
            "name": name,
            "certificates": [fingerprint(&identity)],
            "products": [{"product": PRODUCT, "control": control}],
        });
        let answer = self.broker.http().post("/api/v1/platforms", "application/json", &body.to_string());
        assert_eq!(answer.status, 201, "{answer:?}");
        let made = answer.json();
        Cloud {
            https: self.https(Some(&identity)),
            plat_id: made["plat_id"].as_u64().expect("a number"),
            auth_token: made["auth_token"].as_str().expect("a token").to_owned(),
            nonce: Cell::new(0),
        }
    }

    fn audit(&self, action: &str) -> Vec<Value> {
        let path = format!("/api/v1/audit?order=asc&limit=1000&action={action}");
        self.broker.http().get(&path).json()["records"].as_array().expect("a list").clone()
    }

    #[track_caller]
    fn device(&self) -> Client {
        let good = native("one", "one", SECRET);
        self.broker.client(&Connect::new(Version::V5, &good.client_id).login(&good.user, &good.password))
    }
}

impl Cloud {
    /// The fields of a request, not signed yet.
    fn fields(&self, more: &Value) -> Map<String, Value> {
        self.nonce.set(self.nonce.get() + 1);
        let mut fields = more.as_object().expect("an object").clone();
        fields.insert("plat_id".to_owned(), self.plat_id.into());
        fields.insert("timestamp".to_owned(), now_ms().into());
        fields.insert("nonce".to_owned(), format!("{:032x}", self.nonce.get()).into());
        fields
    }

    fn signed(&self, path: &str, mut fields: Map<String, Value>) -> String {
        fields.insert("sign".to_owned(), hmac(&self.auth_token, &canonical(path, &fields)).into());
        Value::Object(fields).to_string()
    }

    #[track_caller]
    fn send(&self, path: &str, body: &str) -> Answer {
        self.https.request("POST", path, "application/json; charset=utf-8", body).expect("an answer")
    }

    /// Asks, and checks that the answer is signed for this request.
    #[track_caller]
    fn ask(&self, path: &str, more: &Value) -> Value {
        let path = format!("/platform/v1/{path}");
        let fields = self.fields(more);
        let nonce = fields["nonce"].as_str().expect("a text").to_owned();
        let answer = self.send(&path, &self.signed(&path, fields));
        let code = answer.json()["code"].as_u64().expect("a code");
        if code == 0 {
            let text = format!("turnpike-platform-1\nanswer\n{path}\n{nonce}\n{}", answer.body);
            let sign = answer.head.lines().find_map(|line| line.strip_prefix("turnpike-sign: "));
            assert_eq!(sign.map(str::trim), Some(&*hmac(&self.auth_token, &text)), "{answer:?}");
        } else {
            refused(&answer, code);
        }
        answer.json()
    }

    #[track_caller]
    fn log_in(&self) -> (String, String) {
        tokens(&self.ask("login", &json!({})))
    }
}

#[track_caller]
fn tokens(answer: &Value) -> (String, String) {
    let text = |name: &str| answer[name].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
    assert_eq!(
        (answer["access_expires_s"].as_u64(), answer["refresh_expires_s"].as_u64()),
        (Some(7200), Some(1_209_600))
    );
    let pair = (text("access_token"), text("refresh_token"));
    for token in [&pair.0, &pair.1] {
        let has = |class: fn(char) -> bool| token.contains(class);
        assert!(token.len() >= 32 && has(|c| c.is_ascii_uppercase()) && has(|c| c.is_ascii_lowercase()));
        assert!(has(|c| c.is_ascii_digit()) && has(|c| c.is_ascii_punctuation()), "{token}");
    }
    pair
}

/// An error is a number and nothing else.
#[track_caller]
fn refused(answer: &Answer, code: u64) {
    assert_eq!(answer.body, format!("{{\"code\":{code}}}"), "{answer:?}");
    assert!((400..600).contains(&answer.status) && !answer.head.contains("turnpike-sign"), "{answer:?}");
}

#[track_caller]
fn code(answer: &Value) -> u64 {
    answer["code"].as_u64().expect("a code")
}

fn with(token: &str, more: &Value) -> Value {
    let mut fields = more.as_object().expect("an object").clone();
    fields.insert("access_token".to_owned(), token.into());
    Value::Object(fields)
}

fn command(topic: &str, payload: &[u8]) -> Value {
    json!({
        "product": PRODUCT, "device": "one", "topic": topic, "qos": 1, "expires_s": 60, "payload": STANDARD.encode(payload),
    })
}

#[test]
fn tokens_are_refreshed_once_and_end_with_log_out() {
    let mut world = world();
    let cloud = world.cloud("cloud", true);
    let (access, refresh) = cloud.log_in();
    let list = json!({"product": PRODUCT, "after": "", "limit": 100});
    let page = cloud.ask("devices/list", &with(&access, &list));
    let names: Vec<&str> =
        page["devices"].as_array().expect("a list").iter().filter_map(|d| d["device"].as_str()).collect();
    assert_eq!((names, page["next"].as_str()), (vec!["one", "two"], Some("")));

    let (newer, next) = tokens(&cloud.ask("refresh", &json!({"refresh_token": refresh})));
    assert_eq!(code(&cloud.ask("devices/list", &with(&access, &list))), 2005, "the old one is void");
    assert_eq!(code(&cloud.ask("devices/list", &with(&newer, &list))), 0);
    // A second use means that two have it.
    assert_eq!(code(&cloud.ask("refresh", &json!({"refresh_token": refresh}))), 2005);
    assert_eq!(code(&cloud.ask("devices/list", &with(&newer, &list))), 2005);
    assert_eq!(code(&cloud.ask("refresh", &json!({"refresh_token": next}))), 2005);
    until("it is on record", SOON, || (world.audit("token_revoke").len() == 1).then_some(()));

    // `kill -9` keeps RefreshTokens, and no AccessToken.
    let (access, refresh) = cloud.log_in();
    world.broker.kill();
    world.broker.restart();
    let cloud = Cloud { https: cloud.https.at(world.broker.address("platform")), ..cloud };
    assert_eq!(code(&cloud.ask("devices/list", &with(&access, &list))), 2005);
    let (access, refresh) = tokens(&cloud.ask("refresh", &json!({"refresh_token": refresh})));
    assert_eq!(code(&cloud.ask("devices/list", &with(&access, &list))), 0);

    assert_eq!(code(&cloud.ask("logout", &with(&access, &json!({})))), 0);
    assert_eq!(code(&cloud.ask("devices/list", &with(&access, &list))), 2005);
    assert_eq!(code(&cloud.ask("refresh", &json!({"refresh_token": refresh}))), 2005);
}

#[test]
fn who_is_not_the_platform_is_refused_and_does_not_hear_why() {
    let world = world();
    let cloud = world.cloud("cloud", true);
    let other = world.cloud("other", true);
    let path = "/platform/v1/login";
    let good = || cloud.signed(path, cloud.fields(&json!({})));

    // No certificate, one of another authority, another platform's, one for too long.
    let no_answer = |https: &Https| https.request("POST", path, "application/json", &good()).is_none();
    assert!(no_answer(&world.https(None)));
    let strangers = Authority::new(world.folder.path(), "strangers");
    assert!(no_answer(&world.https(Some(&strangers.sign_for_days("stranger", 365)))));
    refused(&other.send(path, &good()), 2001);
    let long = world.partners.sign_for_days("long", 800);
    let id = cloud.plat_id;
    let both = json!({"certificates": [fingerprint(&long)]});
    assert_eq!(world.broker.http().patch(&format!("/api/v1/platforms/{id}"), &both.to_string()).status, 200);
    let long =
        Cloud { https: world.https(Some(&long)), auth_token: cloud.auth_token.clone(), ..world.cloud("x", true) };
    let body = Cloud { plat_id: id, nonce: Cell::new(1000), ..long };
    refused(&body.send(path, &body.signed(path, body.fields(&json!({})))), 2001);
    // Its own is no longer bound.
    refused(&cloud.send(path, &good()), 2001);

    // Another number, another secret, an altered field.
    let cloud = other;
    let mut fields = cloud.fields(&json!({}));
    fields["plat_id"] = 1_234_567_890_123_456_u64.into();
    refused(&cloud.send(path, &cloud.signed(path, fields)), 2001);
    let wrong = Cloud { auth_token: "x".repeat(48), nonce: Cell::new(2000), https: cloud.https.clone(), ..cloud };
    refused(&wrong.send(path, &wrong.signed(path, wrong.fields(&json!({})))), 2001);
    let cloud = world.cloud("third", true);
    let body = cloud.signed(path, cloud.fields(&json!({})));
    let mut altered: Map<String, Value> = serde_json::from_str(&body).expect("JSON");
    altered["nonce"] = "f".repeat(32).into();
    refused(&cloud.send(path, &Value::Object(altered).to_string()), 2001);
    // None of it has used the nonce up.
    assert_eq!(cloud.send(path, &body).json()["code"], 0);
}

#[test]
fn a_request_is_good_once_and_in_its_time() {
    let mut world = world();
    let cloud = world.cloud("cloud", true);
    let path = "/platform/v1/login";
    let body = cloud.signed(path, cloud.fields(&json!({})));
    assert_eq!(cloud.send(path, &body).json()["code"], 0);
    refused(&cloud.send(path, &body), 2004);
    for late in [-660_000_i64, 660_000] {
        let mut fields = cloud.fields(&json!({}));
        fields["timestamp"] = now_ms().saturating_add_signed(late).into();
        refused(&cloud.send(path, &cloud.signed(path, fields)), 2003);
    }
    world.broker.kill();
    world.broker.restart();
    let cloud = Cloud { https: cloud.https.at(world.broker.address("platform")), ..cloud };
    refused(&cloud.send(path, &body), 2004);
    assert_eq!(code(&cloud.ask("login", &json!({}))), 0);
}

#[test]
fn a_platform_has_a_rate_of_its_own() {
    let world = world_with("[limits.platform]\nrequests = \"1000/1s, 3/1d\"\n");
    let (cloud, other) = (world.cloud("cloud", true), world.cloud("other", true));
    let path = "/platform/v1/login";
    // What isn't proved to be its doesn't count.
    for _ in 0..4 {
        let mut fields = cloud.fields(&json!({}));
        fields.insert("sign".to_owned(), "0".repeat(64).into());
        refused(&cloud.send(path, &Value::Object(fields).to_string()), 2001);
    }
    let (access, _) = cloud.log_in();
    let list = json!({"product": PRODUCT, "after": "", "limit": 100});
    let codes: Vec<u64> = (0..4).map(|_| code(&cloud.ask("devices/list", &with(&access, &list)))).collect();
    assert_eq!(codes, [0, 0, 4001, 4001]);
    other.log_in();
    let refusals = || world.audit("api_refused").iter().filter(|record| record["cause"] == "too_many").count();
    until("both are on record", SOON, || (refusals() == 2).then_some(()));
}

#[test]
fn what_is_no_request_is_refused_and_not_repeated() {
    let world = world();
    let cloud = world.cloud("cloud", true);
    let path = "/platform/v1/login";
    let body = |change: fn(&mut Map<String, Value>)| {
        let mut fields = cloud.fields(&json!({}));
        change(&mut fields);
        cloud.signed(path, fields)
    };
    let bad: [(&str, String); 9] = [
        ("an unknown field", body(|fields| drop(fields.insert("more".to_owned(), 1.into())))),
        ("a missing field", body(|fields| drop(fields.remove("nonce")))),
        ("a text for a number", body(|fields| fields["plat_id"] = fields["plat_id"].to_string().into())),
        ("a number for a text", body(|fields| fields["nonce"] = 1.into())),
        ("null", body(|fields| fields["nonce"] = Value::Null)),
        ("a list", body(|fields| fields["nonce"] = json!(["x"]))),
        ("another length", body(|fields| fields["nonce"] = "ab".into())),
        ("no JSON", "<script>".to_owned()),
        ("nothing", String::new()),
    ];
    for (what, body) in bad {
        let answer = cloud.send(path, &body);
        assert_eq!(answer.status, 400, "{what}");
        refused(&answer, 1004);
    }
    let long = format!("{{\"nonce\":\"{}\"}}", "x".repeat(64 << 10));
    // Refused before it has been read, so the connection's end may overtake the answer.
    if let Some(answer) = cloud.https.request("POST", path, "application/json", &long) {
        refused(&answer, 1003);
    }
    let good = || body(|_| {});
    let with = |method, path, kind| cloud.https.request(method, path, kind, &good()).expect("an answer");
    for kind in ["text/plain", "application/json; charset=gbk", "application/x-www-form-urlencoded"] {
        refused(&with("POST", path, kind), 1002);
    }
    for (method, path) in [("GET", path), ("DELETE", path), ("POST", "/platform/v1/nothing"), ("POST", "/healthz")] {
        refused(&with(method, path, "application/json"), 1001);
    }
    refused(&with("POST", "/platform/v1/login?x=1", "application/json"), 1001);
    assert_eq!(code(&cloud.ask("login", &json!({}))), 0, "after all of that");
}

#[test]
fn put_means_the_same_as_post_and_is_signed_as_what_it_is() {
    let world = world();
    let cloud = world.cloud("cloud", false);
    let path = "/platform/v1/login";
    let put = |signed_as: &str| {
        let mut fields = cloud.fields(&json!({}));
        let sign = hmac(&cloud.auth_token, &canonical_of(signed_as, path, &fields));
        fields.insert("sign".to_owned(), sign.into());
        let body = Value::Object(fields).to_string();
        cloud.https.request("PUT", path, "application/json", &body).expect("an answer")
    };
    let answer = put("PUT");
    assert_eq!((answer.status, code(&answer.json())), (200, 0), "{answer:?}");
    refused(&put("POST"), 2001);
    let metrics = world.broker.http().get("/metrics").body;
    for line in ["{outcome=\"ok\"} 1", "{outcome=\"wrong_signature\"} 1", "{outcome=\"store_unavailable\"} 0"] {
        assert!(metrics.contains(&format!("turnpike_platform_requests_total{line}\n")), "{line} in {metrics}");
    }
}

#[test]
fn a_platform_controls_and_reads_what_it_is_granted_and_all_of_it_is_on_record() {
    let world = world();
    let (cloud, reader) = (world.cloud("cloud", true), world.cloud("reader", false));
    let ((access, _), (reading, _)) = (cloud.log_in(), reader.log_in());
    let status = json!({"product": PRODUCT, "device": "one"});
    assert_eq!(cloud.ask("devices/status", &with(&access, &status))["online"], false);
    let nobody = cloud.ask("devices/control", &with(&access, &command("set", b"early")));
    assert_eq!((code(&nobody), &nobody["subscribed"]), (0, &json!(false)));

    let mut device = world.device();
    assert_eq!(device.subscribe(&[(&format!("dev/{PRODUCT}/one/down/#"), 1)]), [1]);
    let answer = reader.ask("devices/status", &with(&reading, &status));
    assert_eq!((&answer["online"], &answer["enabled"]), (&json!(true), &json!(true)));
    assert!(answer["since"].as_u64().is_some_and(|since| since.abs_diff(now_ms()) < 600_000));
    let done = cloud.ask("devices/control", &with(&access, &command("set/power", b"on")));
    assert_eq!((code(&done), &done["subscribed"]), (0, &json!(true)));
    let message = device.take();
    assert_eq!((&*message.topic, &*message.payload), (&*format!("dev/{PRODUCT}/one/down/set/power"), &b"on"[..]));

    // Not for control, not a device, not a product of its own.
    assert_eq!(code(&reader.ask("devices/control", &with(&reading, &command("set", b"x")))), 3001);
    for (product, device) in [(PRODUCT, "three"), ("demo", "device-1")] {
        let mut other = command("set", b"x");
        other["product"] = product.into();
        other["device"] = device.into();
        assert_eq!(code(&cloud.ask("devices/control", &with(&access, &other))), 3001);
        let status = json!({"product": product, "device": device});
        assert_eq!(code(&cloud.ask("devices/status", &with(&access, &status))), 3001);
    }
    assert_eq!(
        code(&cloud.ask("devices/list", &with(&access, &json!({"product": "demo", "after": "", "limit": 1})))),
        3001
    );

    let controls = world.audit("control");
    let actor = format!("platform:{}", cloud.plat_id);
    let target = format!("device:{PRODUCT}/one");
    assert_eq!(controls.len(), 2, "what was refused was never accepted: {controls:?}");
    for record in &controls {
        assert_eq!((record["actor"].as_str(), record["target"].as_str()), (Some(&*actor), Some(&*target)));
        assert_eq!(record["result"], "accepted");
    }
    until("refusals are on record", SOON, || (world.audit("api_refused").len() == 6).then_some(()));

    // The operator takes it away.
    let path = format!("/api/v1/platforms/{}", cloud.plat_id);
    assert_eq!(world.broker.http().patch(&path, r#"{"products": []}"#).status, 200);
    assert_eq!(code(&cloud.ask("devices/control", &with(&access, &command("set", b"x")))), 3001);
    assert_eq!(world.broker.http().patch(&path, r#"{"enabled": false}"#).status, 200);
    assert_eq!(
        code(&cloud.ask("devices/list", &with(&access, &json!({"product": PRODUCT, "after": "", "limit": 1})))),
        2002
    );
    assert_eq!(world.broker.http().patch(&path, r#"{"enabled": true}"#).status, 200);
    assert_eq!(code(&cloud.ask("devices/status", &with(&access, &status))), 2005, "its log-ins ended");
    assert_eq!(world.broker.http().delete(&path).status, 204);
    assert_eq!(code(&cloud.ask("login", &json!({}))), 2001);
    for secret in [&cloud.auth_token, &access] {
        assert!(!world.broker.log().contains(secret.as_str()));
        for file in std::fs::read_dir(world.broker.data().join("audit")).expect("an audit") {
            let text = std::fs::read_to_string(file.expect("a file").path()).expect("text");
            assert!(!text.contains(secret.as_str()));
        }
    }
}

#[test]
fn a_control_that_was_answered_waits_for_its_device_through_kill_9() {
    let mut world = world();
    let cloud = world.cloud("cloud", true);
    let (access, _) = cloud.log_in();
    let connect = || {
        let good = native("one", "one", SECRET);
        Connect::new(Version::V311, &good.client_id).login(&good.user, &good.password).clean(false)
    };
    let mut device = world.broker.client(&connect());
    assert_eq!(device.subscribe(&[(&format!("dev/{PRODUCT}/one/down/#"), 1)]), [1]);
    device.disconnect();
    let done = cloud.ask("devices/control", &with(&access, &command("set", b"while you were away")));
    assert_eq!((code(&done), &done["subscribed"]), (0, &json!(true)));
    world.broker.kill();
    world.broker.restart();
    let (mut device, ack) = Client::open(world.broker.mqtt(), &connect());
    assert!(ack.session_present);
    assert_eq!(device.take().payload, b"while you were away");
}

#[test]
fn personal_data_travel_under_the_key_of_their_user() {
    let world = world();
    let cloud = world.cloud("cloud", true);
    let (access, _) = cloud.log_in();
    let user = hmac("salt of the platform", "somebody");
    let key = |user: &str| {
        let answer = cloud.ask("users/login", &with(&access, &json!({"user": user})));
        assert_eq!((code(&answer), answer["expires_s"].as_u64()), (0, Some(3600)));
        let key: [u8; 32] =
            hex::decode(answer["key"].as_str().expect("a key")).expect("hexadecimal").try_into().expect("256 bits");
        key
    };
    let control = |key: [u8; 32], user: &str, plain: &[u8]| {
        let iv = [7; 16];
        let mut body = plain.to_vec();
        cfb_mode::Encryptor::<Aes256>::new(&key.into(), &iv.into()).encrypt(&mut body);
        let mut fields = command("set", &[&iv[..], &body].concat());
        fields["user"] = user.into();
        cloud.ask("users/control", &with(&access, &fields))
    };
    let mut device = world.device();
    assert_eq!(device.subscribe(&[(&format!("dev/{PRODUCT}/one/down/#"), 1)]), [1]);
    assert_eq!(code(&control([1; 32], &user, b"x")), 3002, "there is no key yet");
    let first = key(&user);
    let home = b"{\"home\":\"31.23,121.47\"}";
    assert_eq!(code(&control(first, &user, home)), 0);
    assert_eq!(device.take().payload, home);

    // And back.
    let topic = format!("dev/{PRODUCT}/one/up/state");
    assert!(device.publish(&Publish::new(&topic, "22.5 degrees").qos(1, 1).retain()) < 0x80);
    let ask = json!({"product": PRODUCT, "device": "one", "topic": "state", "user": user});
    let state = cloud.ask("users/state", &with(&access, &ask));
    let sealed = STANDARD.decode(state["payload"].as_str().expect("a text")).expect("base64");
    let (iv, body) = sealed.split_at(16);
    let mut body = body.to_vec();
    assert_ne!(body, b"22.5 degrees");
    let iv: [u8; 16] = iv.try_into().expect("an IV");
    cfb_mode::Decryptor::<Aes256>::new(&first.into(), &iv.into()).decrypt(&mut body);
    assert_eq!(body, b"22.5 degrees");
    let again = cloud.ask("users/state", &with(&access, &ask));
    assert_ne!(again["payload"], state["payload"], "another IV");

    // A new key voids the old one; a log-out voids it altogether.
    let second = key(&user);
    assert_ne!(first, second);
    assert_eq!(code(&control(second, &user, b"second")), 0);
    assert_eq!(device.take().payload, b"second");
    assert_eq!(code(&cloud.ask("users/logout", &with(&access, &json!({"user": user})))), 0);
    assert_eq!(code(&control(second, &user, b"x")), 3002);
    assert_eq!(code(&cloud.ask("users/state", &with(&access, &ask))), 3002);
    let phone = json!({"user": "+8613800138000"});
    assert_eq!(code(&cloud.ask("users/login", &with(&access, &phone))), 1004, "a user is a hash");
}

#[test]
fn an_operator_makes_platforms_and_a_deleted_product_is_nobodys() {
    let world = world();
    let cloud = world.cloud("cloud", true);
    let http = world.broker.http();
    let path = format!("/api/v1/platforms/{}", cloud.plat_id);
    let shown = http.get(&path);
    assert!(shown.status == 200 && !shown.body.contains("auth_token"), "{shown:?}");
    let listed = http.get("/api/v1/platforms").json();
    assert_eq!(listed["platforms"][0]["plat_id"].as_u64(), Some(cloud.plat_id));
    let post = |body: &str| http.post("/api/v1/platforms", "application/json", body).status;
    let print = "0".repeat(64);
    assert_eq!(post(r#"{"name": "x", "certificates": []}"#), 400);
    assert_eq!(post(&format!(r#"{{"name": "x", "certificates": ["{print}"], "more": 1}}"#)), 400);
    let grant = format!(
        r#"{{"name": "x", "certificates": ["{print}"], "products": [{{"product": "nothing", "control": true}}]}}"#
    );
    assert_eq!(post(&grant), 404);
    assert_eq!(post(&format!(r#"{{"name": "x", "certificates": ["{print}"]}}"#)), 201);
    assert_eq!(post(&format!(r#"{{"name": "y", "certificates": ["{print}"]}}"#)), 409);
    assert_eq!(http.get("/api/v1/platforms/1").status, 404);

    let (access, _) = cloud.log_in();
    let renewed = http.post(&format!("{path}/auth-token"), "", "");
    let token = renewed.json()["auth_token"].as_str().expect("a token").to_owned();
    assert_eq!(code(&cloud.ask("logout", &with(&access, &json!({})))), 2001);
    let cloud = Cloud { auth_token: token, ..cloud };
    let (access, _) = cloud.log_in();
    assert_eq!(http.delete(&format!("/api/v1/products/{PRODUCT}")).status, 204);
    register(&world.broker);
    let status = json!({"product": PRODUCT, "device": "one"});
    assert_eq!(code(&cloud.ask("devices/status", &with(&access, &status))), 3001);
    let document = http.get("/api/openapi.json").json();
    assert!(document["paths"]["/api/v1/platforms/{platform}"]["patch"].is_object());
    let actions: Vec<_> = ["platform_put", "key_rotate"].iter().map(|action| world.audit(action).len()).collect();
    assert_eq!(actions, [2, 1]);
}
