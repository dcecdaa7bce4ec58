//! Devices that somebody judges over HTTP: the broker's real process, and a small server of the test's own at the other end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use turnpike_tests::broker::{Broker, Setup};
use turnpike_tests::certificate::{Authority, Identity};
use turnpike_tests::client::{Client, End};
use turnpike_tests::credential::{PRODUCT, SECRET, native};
use turnpike_tests::time::{SOON, until};
use turnpike_tests::wire::{Connect, Packet, Publish, Version, subscribe};

use crate::gate::register;

/// What the server does with a question.
enum Reply {
    /// Status and body.
    Says(u16, String),
    /// It closes the connection.
    Hangs,
    /// It waits until the test says so, or ends.
    Waits(Receiver<Value>),
}

type Judge = dyn Fn(&Value) -> Reply + Send + Sync;

/// The other end: one thread a connection.
struct Judges {
    address: SocketAddr,
    /// Head and body of each question.
    seen: Arc<Mutex<Vec<(String, Value)>>>,
}

trait Wire: Read + Write {}
impl<T: Read + Write> Wire for T {}

impl Judges {
    fn start(judge: impl Fn(&Value) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0".parse().expect("an address"), None, judge)
    }

    fn start_at(
        address: SocketAddr,
        identity: Option<&Identity>,
        judge: impl Fn(&Value) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).expect("a free port");
        let judges = Self { address: listener.local_addr().expect("an address"), seen: Arc::default() };
        let (seen, judge): (_, Arc<Judge>) = (Arc::clone(&judges.seen), Arc::new(judge));
        let tls = identity.map(server_tls);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (seen, judge, tls) = (Arc::clone(&seen), Arc::clone(&judge), tls.clone());
                std::thread::spawn(move || {
                    let wire: Box<dyn Wire> = match tls {
                        None => Box::new(stream),
                        Some(config) => {
                            let session = rustls::ServerConnection::new(config).expect("a session");
                            Box::new(rustls::StreamOwned::new(session, stream))
                        }
                    };
                    serve(wire, &seen, &*judge);
                });
            }
        });
        judges
    }

    fn url(&self) -> String {
        format!("http://{}/judge?v=1", self.address)
    }

    fn count(&self) -> usize {
        self.seen.lock().expect("whole").len()
    }
}

fn server_tls(identity: &Identity) -> Arc<rustls::ServerConfig> {
    let chain = CertificateDer::pem_file_iter(&identity.certificate).expect("a file").map(|found| found.expect("PEM"));
    let key = PrivateKeyDer::from_pem_file(&identity.key).expect("a key");
    let builder = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("versions").with_no_client_auth();
    Arc::new(builder.with_single_cert(chain.collect(), key).expect("they fit"))
}

/// Questions of one connection, until it closes.
fn serve(wire: Box<dyn Wire>, seen: &Mutex<Vec<(String, Value)>>, judge: &Judge) {
    let mut reader = BufReader::new(wire);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.expect("a length")];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        seen.lock().expect("whole").push((head, body.clone()));
        let (status, text) = match judge(&body) {
            Reply::Says(status, text) => (status, text),
            Reply::Hangs => return,
            Reply::Waits(answer) => match answer.recv() {
                Ok(answer) => (200, answer.to_string()),
                Err(_) => return,
            },
        };
        let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n{text}", text.len());
        if reader.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
        let _ = reader.get_mut().flush();
    }
}

fn says(answer: &Value) -> Reply {
    Reply::Says(200, answer.to_string())
}

fn granted(device: &str) -> Reply {
    says(&json!({ "result": "granted", "device": device }))
}

/// Lets in whom the password `open` is sent for, and nobody else.
fn usual(question: &Value) -> Reply {
    let device = question["user_name"].as_str().and_then(|name| name.split_once('/')).map_or("", |(_, device)| device);
    match question["password"].as_str() {
        // base64 of `open`, `other`
        Some("b3Blbg==") => granted(device),
        Some("b3RoZXI=") => says(&json!({ "result": "not_mine" })),
        _ => says(&json!({ "result": "refused" })),
    }
}

fn setup(url: &str, more: &str) -> Setup {
    Setup::closed().config(&format!("[callout]\nurl = \"{url}\"\n{more}\n"))
}

/// A broker whose product is judged by whoever is at that URL.
fn judged(url: &str, more: &str) -> Broker {
    let broker = setup(url, more).start();
    register(&broker);
    name_verifier(&broker, "callout");
    broker
}

#[track_caller]
fn name_verifier(broker: &Broker, name: &str) {
    let path = format!("/api/v1/products/{PRODUCT}/verifier");
    let answer = broker.http().put(&path, &json!({ "verifier": name }).to_string());
    assert_eq!((answer.status, answer.json()["verifier"].as_str()), (200, Some(name)), "{answer:?}");
}

fn connect(version: Version, device: &str, password: &str) -> Connect {
    Connect::new(version, &format!("id-{device}")).login(&format!("{PRODUCT}/{device}"), password)
}

#[track_caller]
fn code(broker: &Broker, version: Version, device: &str, password: &str) -> u8 {
    Client::open(broker.mqtt(), &connect(version, device, password)).1.code
}

/// A metric's value.
#[track_caller]
fn metric(broker: &Broker, name: &str) -> u64 {
    let text = broker.http().get("/metrics").body;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned));
    line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().expect("a number")
}

/// Waits until the audit has just these causes of refused log-ins, in this order.
#[track_caller]
fn audit_has(broker: &Broker, expected: &[&str]) {
    let causes = || {
        let records = broker.http().get("/api/v1/audit?order=asc&limit=1000&action=log_in").json();
        let records = records["records"].as_array().expect("a list").clone();
        let causes = records.iter().filter_map(|record| record["cause"].as_str().map(str::to_owned));
        causes.collect::<Vec<_>>()
    };
    // What is on its way there is written within moments.
    until("the audit has it", SOON, || (causes().len() >= expected.len()).then_some(()));
    assert_eq!(causes(), expected);
}

#[test]
fn who_is_let_in_is_for_the_other_end_to_say() {
    let judges = Judges::start(usual);
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("token");
    std::fs::write(&secret, "Bearer of-the-broker\n").expect("written");
    let more = format!("header = \"x-token\"\nheader_file = \"{}\"", secret.display());
    let broker = judged(&judges.url(), &more);
    for (version, refused) in [(Version::V311, 4), (Version::V5, 0x86)] {
        let mut client = broker.client(&connect(version, "one", "open"));
        assert_eq!(client.subscribe(&[(&format!("dev/{PRODUCT}/one/down/#"), 1)]), [1], "it is that device");
        assert_eq!(client.publish(&Publish::new(&format!("dev/{PRODUCT}/one/up/x"), "1").qos(1, 1)) & 0x80, 0);
        assert_eq!(code(&broker, version, "one", "shut"), refused);
        assert_eq!(code(&broker, version, "three", "open"), refused, "not registered");
        assert_eq!(code(&broker, version, "one", "other"), refused, "not theirs, and not ours");
    }
    // What is not theirs may be ours.
    let ours = native("id-one", "one", SECRET);
    let passed_on = Judges::start(|_| says(&json!({ "result": "not_mine" })));
    let other = judged(&passed_on.url(), "");
    assert_eq!(code(&other, Version::V5, "one", &ours.password), 0);
    assert_eq!(code(&other, Version::V5, "one", &ours.password), 0x86, "its nonce is good once");

    let seen = judges.seen.lock().expect("whole");
    let (head, question) = &seen[0];
    assert!(head.starts_with("POST /judge?v=1 HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("x-token: Bearer of-the-broker\r\n") && head.contains("content-type: application/json\r\n"));
    let port = question["port"].as_u64().expect("a port");
    let expected = json!({
        "version": 1, "product": PRODUCT, "client_id": "id-one", "user_name": format!("{PRODUCT}/one"),
        "password": "b3Blbg==", "address": "127.0.0.1", "port": port, "tls": false, "certificate": null,
    });
    assert_eq!(*question, expected);
    let refused = ["verifier_refused", "unknown_device", "malformed"];
    audit_has(&broker, &[refused, refused].concat());
    assert_eq!(metric(&broker, "turnpike_callout_calls_total{outcome=\"granted\"}"), 4);
    assert!(!broker.log().contains("of-the-broker"));
}

#[test]
fn who_waits_for_an_answer_holds_up_nobody_and_loses_nothing() {
    let (answers, waiting): (Sender<Receiver<Value>>, _) = channel();
    let waiting = Mutex::new(waiting);
    let judges = Judges::start(move |_| Reply::Waits(waiting.lock().expect("whole").recv().expect("a way to answer")));
    let broker = judged(&judges.url(), "timeout_ms = 10000");
    let next = || {
        let (answer, receiver) = channel();
        answers.send(receiver).expect("the server lives");
        answer
    };
    let one = next();
    let mut waits = Client::raw(broker.mqtt(), Version::V5);
    let topic = format!("dev/{PRODUCT}/one/up/x");
    let behind = [
        connect(Version::V5, "one", "open").encode(),
        subscribe(Version::V5, 1, &[(&format!("dev/{PRODUCT}/one/down/#"), 0)], &[]),
        Publish::new(&topic, "1").qos(1, 2).encode(Version::V5),
    ];
    // MQTT 5 allows it (3.1.4): all of it before the CONNACK.
    waits.send(&behind.concat());
    until("it is asked", SOON, || (judges.count() == 1).then_some(()));
    assert_eq!(metric(&broker, "turnpike_callout_under_way"), 1);
    // Others come and go meanwhile: of another product, and one that gives up.
    let http = broker.http();
    assert_eq!(http.put("/api/v1/products/plain", "{}").status, 201);
    assert_eq!(http.put("/api/v1/products/plain/devices/one", &json!({ "secret": SECRET }).to_string()).status, 201);
    let text = format!("v1\nc\nplain\none\n{}\nn", turnpike_tests::credential::now_ms());
    let password = format!(
        "v1;{};n;{}",
        text.split('\n').nth(4).expect("a time"),
        turnpike_tests::credential::hmac_sha256(SECRET, &text)
    );
    assert_eq!(Client::open(broker.mqtt(), &Connect::new(Version::V5, "c").login("plain/one", &password)).1.code, 0);
    let two = next();
    let mut gives_up = Client::raw(broker.mqtt(), Version::V311);
    gives_up.send(&connect(Version::V311, "two", "open").encode());
    until("it is asked", SOON, || (judges.count() == 2).then_some(()));
    gives_up.drop_connection();
    two.send(json!({ "result": "granted", "device": "two" })).expect("it waits");
    until("that is dealt with", SOON, || (metric(&broker, "turnpike_callout_under_way") == 1).then_some(()));
    one.send(json!({ "result": "granted", "device": "one" })).expect("it waits");
    let Packet::ConnAck(ack) = waits.recv() else { panic!("CONNACK first") };
    assert_eq!(ack.code, 0);
    let answered = [waits.recv(), waits.recv()];
    assert!(answered.iter().any(|packet| matches!(packet, Packet::SubAck(_))), "{answered:?}");
    assert!(answered.iter().any(|packet| matches!(packet, Packet::PubAck(_))), "{answered:?}");
    // The same client id again: the older connection gives way only when the answer has come.
    let again = next();
    let mut newer = Client::raw(broker.mqtt(), Version::V5);
    newer.send(&connect(Version::V5, "one", "open").encode());
    until("it is asked", SOON, || (judges.count() == 3).then_some(()));
    waits.quiet();
    again.send(json!({ "result": "granted", "device": "one" })).expect("it waits");
    assert_eq!(waits.end(), End::Disconnected(0x8E));
    assert!(matches!(newer.recv(), Packet::ConnAck(ack) if ack.code == 0));
}

#[test]
fn a_broker_that_ends_waits_for_no_answer() {
    let (_answers, waiting) = channel::<Value>();
    let waiting = Mutex::new(Some(waiting));
    let judges = Judges::start(move |_| match waiting.lock().expect("whole").take() {
        Some(waiting) => Reply::Waits(waiting),
        None => Reply::Hangs,
    });
    let mut broker = judged(&judges.url(), "timeout_ms = 10000");
    let mut client = Client::raw(broker.mqtt(), Version::V5);
    client.send(&connect(Version::V5, "one", "open").encode());
    until("it is asked", SOON, || (judges.count() == 1).then_some(()));
    broker.stop();
    assert_eq!(client.end(), End::Closed);
}

#[test]
fn nobody_gets_in_when_there_is_no_answer_or_none_that_makes_sense() {
    let judges = Judges::start(|question| match question["user_name"].as_str() {
        Some("lamp/slow") => Reply::Waits(channel_that_never_answers()),
        Some("lamp/hangs") => Reply::Hangs,
        Some("lamp/garbage") => Reply::Says(200, "granted".to_owned()),
        Some("lamp/long") => Reply::Says(200, format!("{{\"result\": \"refused\"{}}}", " ".repeat(20_000))),
        Some("lamp/error") => Reply::Says(500, json!({ "result": "granted", "device": "one" }).to_string()),
        Some("lamp/moved") => Reply::Says(302, json!({ "result": "granted", "device": "one" }).to_string()),
        Some("lamp/typo") => says(&json!({ "result": "granted", "device": "one", "cashe_s": 5 })),
        _ => granted("one"),
    });
    let broker = judged(&judges.url(), "timeout_ms = 300\nbreaker_failures = 1000");
    let mut expected = Vec::new();
    for (device, cause) in [
        ("slow", "callout_timed_out"),
        ("hangs", "callout_failed"),
        ("garbage", "callout_garbage"),
        ("long", "callout_garbage"),
        ("error", "callout_garbage"),
        ("moved", "callout_garbage"),
        ("typo", "callout_garbage"),
    ] {
        for (version, unavailable) in [(Version::V31, 3), (Version::V311, 3), (Version::V5, 0x88)] {
            assert_eq!(code(&broker, version, device, "open"), unavailable, "{device}");
            expected.push(cause);
        }
    }
    assert_eq!(code(&broker, Version::V5, "one", "open"), 0, "who is answered for gets in");
    audit_has(&broker, &expected);
    assert_eq!(metric(&broker, "turnpike_logins_refused_total{reason=\"callout_garbage\"}"), 15);
    assert_eq!(metric(&broker, "turnpike_callout_calls_total{outcome=\"timed_out\"}"), 3);
    assert_eq!(metric(&broker, "turnpike_callout_open"), 0);
}

fn channel_that_never_answers() -> Receiver<Value> {
    let (sender, receiver) = channel();
    // Kept for ever: dropping it would be an answer, too.
    std::mem::forget(sender);
    receiver
}

#[test]
fn the_breaker_opens_and_closes_and_what_is_known_needs_no_answer() {
    let cached = |question: &Value| match question["user_name"].as_str() {
        Some("lamp/one") => says(&json!({ "result": "granted", "device": "one", "cache_s": 3600 })),
        _ => usual(question),
    };
    // A server that can be taken away: an answer of its own, or none.
    let up = Arc::new(Mutex::new(true));
    let is_up = Arc::clone(&up);
    let judges =
        Judges::start(move |question| if *is_up.lock().expect("whole") { cached(question) } else { Reply::Hangs });
    let settings = "breaker_failures = 3\nbreaker_open_ms = 60000\nbreaker_open_most_ms = 60000\ncache_most_s = 3600";
    let broker = judged(&judges.url(), settings);
    assert_eq!(code(&broker, Version::V5, "one", "open"), 0);
    *up.lock().expect("whole") = false;
    for _ in 0..3 {
        assert_eq!(code(&broker, Version::V5, "two", "open"), 0x88);
    }
    broker.wait_for_log("the call-out fails");
    let asked = judges.count();
    *up.lock().expect("whole") = true;
    assert_eq!(code(&broker, Version::V5, "two", "open"), 0x88, "it could be asked, and isn't");
    assert_eq!(code(&broker, Version::V5, "one", "open"), 0, "from what is known");
    assert_eq!(code(&broker, Version::V5, "one", "Open"), 0x88, "of another password nothing is");
    assert_eq!(judges.count(), asked);
    assert_eq!(metric(&broker, "turnpike_callout_unasked_total{why=\"cached\"}"), 1);
    assert_eq!(metric(&broker, "turnpike_callout_unasked_total{why=\"broken\"}"), 2);
    assert_eq!(metric(&broker, "turnpike_callout_open"), 1);
    let ready = broker.http().get("/readyz");
    assert!(ready.status == 200 && ready.json()["degraded"][0].as_str().is_some_and(|why| why.contains("callout")));
    audit_has(&broker, &[["callout_failed"; 3].as_slice(), &["callout_broken"; 2]].concat());
}

#[test]
fn the_breaker_closes_again() {
    // A port that nobody listens on.
    let dead = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let settings = "breaker_failures = 1\nbreaker_open_ms = 50\nbreaker_open_most_ms = 50";
    let broker = judged(&format!("http://{dead}/"), settings);
    assert_eq!(code(&broker, Version::V311, "one", "open"), 3);
    assert_eq!(metric(&broker, "turnpike_callout_calls_total{outcome=\"failed\"}"), 1);
    let _judges = Judges::start_at(dead, None, usual);
    until("it is asked again", SOON, || (code(&broker, Version::V5, "one", "open") == 0).then_some(()));
    broker.wait_for_log("the call-out answers again");
    assert_eq!(metric(&broker, "turnpike_callout_open"), 0);
    assert_eq!(broker.http().get("/readyz").json()["degraded"], json!([]));
    // However many calls failed between.
    let changes = || broker.http().get("/api/v1/audit?order=asc&action=callout*").json()["records"].clone();
    until("both are on record", SOON, || (changes().as_array()?.len() >= 2).then_some(()));
    let fields = |field: &str| {
        changes().as_array().expect("a list").iter().map(|record| record[field].clone()).collect::<Vec<_>>()
    };
    assert_eq!(fields("action"), [json!("callout_open"), json!("callout_close")]);
    assert_eq!((fields("cause")[0].as_str(), fields("result")[1].as_str()), (Some("callout_failed"), Some("ok")));
}

#[test]
fn calls_are_bounded() {
    let judges = Judges::start(|_| Reply::Waits(channel_that_never_answers()));
    let broker = judged(&judges.url(), "calls_max = 1\nwaiting_max = 1\ntimeout_ms = 5000");
    let waits = |device: &str| {
        let mut client = Client::raw(broker.mqtt(), Version::V5);
        client.send(&connect(Version::V5, device, "open").encode());
        client
    };
    let (_one, _two) = (waits("one"), waits("two"));
    until("both are on their way", SOON, || (metric(&broker, "turnpike_callout_under_way") == 2).then_some(()));
    assert_eq!(code(&broker, Version::V5, "three", "open"), 0x88);
    audit_has(&broker, &["callout_busy"]);
    assert_eq!(judges.count(), 1);
}

#[test]
fn a_product_s_devices_do_not_get_around_its_verifier() {
    let judges = Judges::start(usual);
    let mut broker = judged(&judges.url(), "");
    let login = native("id-one", "one", SECRET);
    assert_eq!(code(&broker, Version::V5, "one", &login.password), 0x86, "its secret is none of theirs");
    audit_has(&broker, &["verifier_refused"]);
    // Without the call-out, and after a crash, they still name it.
    broker.restart_as(Setup::closed());
    let login = native("id-one", "one", SECRET);
    assert_eq!(code(&broker, Version::V5, "one", &login.password), 0x88);
    assert_eq!(code(&broker, Version::V5, "one", "open"), 0x88);
    audit_has(&broker, &["verifier_refused", "verifier_missing", "verifier_missing"]);
    let path = format!("/api/v1/products/{PRODUCT}/verifier");
    for (body, status) in [(r#"{"verifier": "callout"}"#, 400), (r#"{"verifier": 1}"#, 400), (r#"{"x": 1}"#, 400)] {
        assert_eq!(broker.http().put(&path, body).status, status, "{body}");
    }
    assert_eq!(broker.http().put("/api/v1/products/nothing/verifier", "{}").status, 404);
    assert_eq!(broker.http().get(&path).json()["verifier"], "callout");
    assert_eq!(broker.http().put(&path, "{}").status, 200);
    assert_eq!(code(&broker, Version::V5, "one", &login.password), 0);
}

#[test]
fn strangers_are_asked_about_where_that_is_wanted() {
    let judges = Judges::start(|question| match question["user_name"].as_str() {
        Some("serial 42") => says(&json!({ "result": "granted", "product": PRODUCT, "device": "one" })),
        Some("serial 43") => says(&json!({ "result": "granted", "product": "plain", "device": "one" })),
        _ => says(&json!({ "result": "not_mine" })),
    });
    let broker = judged(&judges.url(), "strangers = true");
    assert_eq!(broker.http().put("/api/v1/products/plain", "{}").status, 201);
    assert_eq!(broker.http().put("/api/v1/products/plain/devices/one", "{}").status, 201);
    let code = |user: &str| {
        let connect = Connect::new(Version::V5, "c").login(user, "x");
        Client::open(broker.mqtt(), &connect).1.code
    };
    assert_eq!(["serial 42", "serial 43", "serial 44"].map(code), [0, 0x86, 0x86]);
    assert_eq!(judges.seen.lock().expect("whole")[0].1["product"], Value::Null);
}

#[test]
fn the_other_end_is_known_by_its_certificate() {
    let folder = tempfile::tempdir().expect("a folder");
    let (authority, other) = (Authority::new(folder.path(), "judges"), Authority::new(folder.path(), "others"));
    let address = "127.0.0.1:0".parse().expect("an address");
    let judges = Judges::start_at(address, Some(&authority.sign("judge")), usual);
    let url = format!("https://localhost:{}/", judges.address.port());
    let code_with = |authority: &Authority| {
        let broker = judged(&url, &format!("ca_file = \"{}\"", authority.certificate.display()));
        code(&broker, Version::V5, "one", "open")
    };
    assert_eq!(code_with(&authority), 0);
    assert_eq!(code_with(&other), 0x88);
    assert_eq!(judges.count(), 1, "nothing is told to whom we don't know");
}
