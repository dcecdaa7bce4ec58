//! Who may come in, and what they may do then.

use turnpike_tests::broker::{Broker, Setup};
use turnpike_tests::client::{Client, End};
use turnpike_tests::credential::{self, Credential, PRODUCT, SECRET, native};
use turnpike_tests::time::{SOON, until};
use turnpike_tests::wire::{Connect, Publish, Version, Will};

/// A broker that knows the product and two of its devices.
pub(crate) fn registered() -> Broker {
    let broker = Setup::closed().start();
    register(&broker);
    broker
}

pub(crate) fn register(broker: &Broker) {
    let http = broker.http();
    let answer = http.put(&format!("/api/v1/products/{PRODUCT}"), "{}");
    assert!((200..300).contains(&answer.status), "{answer:?}");
    for device in ["one", "two"] {
        let answer = http.put(&device_path(device), &format!(r#"{{"secret": "{SECRET}"}}"#));
        assert!((200..300).contains(&answer.status), "{answer:?}");
    }
}

fn device_path(device: &str) -> String {
    format!("/api/v1/products/{PRODUCT}/devices/{device}")
}

fn connect(version: Version, credential: &Credential) -> Connect {
    Connect::new(version, &credential.client_id).login(&credential.user, &credential.password)
}

#[track_caller]
fn code(broker: &Broker, version: Version, credential: &Credential) -> u8 {
    let (mut client, ack) = Client::open(broker.mqtt(), &connect(version, credential));
    if ack.code != 0 {
        assert_eq!(client.end(), End::Closed);
        assert!(!ack.session_present && ack.props.is_empty(), "no more than the code: {ack:?}");
    }
    ack.code
}

#[test]
fn a_device_with_its_secret_is_let_in() {
    let broker = registered();
    for version in Version::ALL {
        assert_eq!(code(&broker, version, &native("any-client-id", "one", SECRET)), 0, "{version:?}");
        assert_eq!(code(&broker, version, &credential::aliyun("one", SECRET)), 0, "{version:?}");
        assert_eq!(code(&broker, version, &credential::aliyun_sha1("one", SECRET)), 0, "{version:?}");
    }
}

#[test]
fn whoever_is_wrong_gets_the_right_code_and_nothing_else() {
    let broker = registered();
    let good = native("c", "one", SECRET);
    let old = credential::now_ms() - 11 * 60 * 1000;
    let wrong = [
        ("another secret", native("c", "one", "ffffffffffffffffffffffffffffffff")),
        ("an unknown device", native("c", "three", SECRET)),
        ("an unknown product", Credential { user: "toaster/one".to_owned(), ..native("c", "one", SECRET) }),
        ("another client id", Credential { client_id: "d".to_owned(), ..native("c", "one", SECRET) }),
        ("another device", Credential { user: format!("{PRODUCT}/two"), ..native("c", "one", SECRET) }),
        ("a stale timestamp", credential::native_at("c", "one", SECRET, old, "n-old")),
        (
            "a timestamp of the future",
            credential::native_at("c", "one", SECRET, credential::now_ms() + 660_000, "n-new"),
        ),
        ("an empty password", Credential { password: String::new(), ..good.clone() }),
        ("a password of no format", Credential { password: "secret".to_owned(), ..good.clone() }),
        ("the secret itself", Credential { password: SECRET.to_owned(), ..good.clone() }),
        ("aliyun with another secret", credential::aliyun("one", "ffffffffffffffffffffffffffffffff")),
        ("aliyun, unknown device", credential::aliyun("three", SECRET)),
        ("a user name of no format", Credential { user: "somebody".to_owned(), ..good.clone() }),
    ];
    for (what, credential) in &wrong {
        for (version, expected) in [(Version::V31, 4), (Version::V311, 4), (Version::V5, 0x86)] {
            assert_eq!(code(&broker, version, credential), expected, "{what} in {version:?}");
        }
    }
    for (version, expected) in [(Version::V311, [4, 5]), (Version::V5, [0x86, 0x87])] {
        let (_client, ack) = Client::open(broker.mqtt(), &Connect::new(version, "nobody"));
        assert!(expected.contains(&ack.code), "no credentials at all: {ack:?}");
    }
}

#[test]
fn a_nonce_is_good_once() {
    let broker = registered();
    let credential = native("c", "one", SECRET);
    assert_eq!(code(&broker, Version::V5, &credential), 0);
    assert_eq!(code(&broker, Version::V5, &credential), 0x86);
    assert_eq!(code(&broker, Version::V311, &credential), 4);
    assert_eq!(code(&broker, Version::V311, &native("c", "one", SECRET)), 0);
}

#[test]
fn a_nonce_is_good_once_across_kill_9() {
    let mut broker = registered();
    let captured = native("c", "one", SECRET);
    assert_eq!(code(&broker, Version::V5, &captured), 0);
    for _ in 0..2 {
        broker.kill();
        broker.restart();
        assert_eq!(code(&broker, Version::V5, &captured), 0x86);
        assert_eq!(code(&broker, Version::V5, &native("c", "one", SECRET)), 0);
    }
}

#[test]
fn a_client_id_with_the_time_in_it_is_one_session() {
    let broker = registered();
    // The Node SDK of aliyun: clean session 0, and the time of the log-in in the client id.
    let at = |timestamp: u64| {
        let id = format!("{PRODUCT}&one");
        let text = format!("clientId{id}deviceNameoneproductKey{PRODUCT}timestamp{timestamp}");
        let client_id = format!("{id}|securemode=3,signmethod=hmacsha1,timestamp={timestamp},lan=NodeJS,_v=1.2.8|");
        let password = credential::hmac_sha1(SECRET, &text);
        Connect::new(Version::V311, &client_id).login(&format!("one&{PRODUCT}"), &password).clean(false)
    };
    let mut first = broker.client(&at(1_795_231_053_661));
    let (_second, ack) = Client::open(broker.mqtt(), &at(1_795_231_053_662));
    assert_eq!((ack.code, ack.session_present), (0, true));
    assert_eq!(first.end(), End::Closed, "its connection gives way");
}

#[test]
fn a_disabled_device_is_closed_and_stays_out() {
    let broker = registered();
    let mut five = broker.client(&connect(Version::V5, &native("five", "one", SECRET)));
    let mut three = broker.client(&connect(Version::V311, &native("three", "one", SECRET)));
    let mut other = broker.client(&connect(Version::V5, &native("other", "two", SECRET)));
    set_enabled(&broker, "one", false);
    let end = five.end();
    assert!(matches!(end, End::Disconnected(0x87 | 0x98)), "{end:?}");
    assert_eq!(three.end(), End::Closed);
    other.quiet();
    assert_eq!(code(&broker, Version::V5, &native("five", "one", SECRET)), 0x87);
    assert_eq!(code(&broker, Version::V311, &native("three", "one", SECRET)), 5);
    // Who doesn't know the secret doesn't learn that the device is disabled.
    assert_eq!(code(&broker, Version::V5, &native("five", "one", "ffffffffffffffffffffffffffffffff")), 0x86);
    set_enabled(&broker, "one", true);
    assert_eq!(code(&broker, Version::V5, &native("five", "one", SECRET)), 0);
}

fn set_enabled(broker: &Broker, device: &str, enabled: bool) {
    let answer = broker.http().patch(&device_path(device), &format!(r#"{{"enabled": {enabled}}}"#));
    assert!((200..300).contains(&answer.status), "{answer:?}");
}

#[test]
fn a_deleted_device_is_closed_and_unknown() {
    let broker = registered();
    let mut client = broker.client(&connect(Version::V5, &native("c", "one", SECRET)));
    let answer = broker.http().delete(&device_path("one"));
    assert!((200..300).contains(&answer.status), "{answer:?}");
    assert!(matches!(client.end(), End::Disconnected(_)));
    assert_eq!(code(&broker, Version::V5, &native("c", "one", SECRET)), 0x86);
    assert_eq!(broker.http().get(&device_path("one")).status, 404);
}

#[test]
fn the_registry_survives_kill_9() {
    let mut broker = registered();
    set_enabled(&broker, "two", false);
    broker.kill();
    broker.restart();
    assert_eq!(code(&broker, Version::V5, &native("c", "one", SECRET)), 0);
    assert_eq!(code(&broker, Version::V5, &native("c", "two", SECRET)), 0x87);
}

#[test]
fn a_device_publishes_and_subscribes_under_its_own_topics_only() {
    let broker = registered();
    let mut client = broker.client(&connect(Version::V5, &native("c", "one", SECRET)));
    let own_up = format!("dev/{PRODUCT}/one/up/state");
    let own_down = format!("dev/{PRODUCT}/one/down/#");
    assert!(client.publish(&Publish::new(&own_up, "x").qos(1, 1)) < 0x80);
    assert_eq!(client.subscribe(&[(&own_down, 1)]), [1]);
    for topic in [
        format!("dev/{PRODUCT}/two/up/state"),
        format!("dev/{PRODUCT}/one/down/state"),
        "dev/toaster/one/up/state".to_owned(),
        "anything".to_owned(),
        format!("dev/{PRODUCT}/one"),
        format!("/{PRODUCT}/two/user/update"),
        "$SYS/broker/uptime".to_owned(),
    ] {
        assert_eq!(client.publish(&Publish::new(&topic, "x").qos(1, 2)), 0x87, "{topic}");
        assert_eq!(client.publish(&Publish::new(&topic, "x").qos(2, 3)), 0x87, "{topic}");
    }
    let filters = [
        format!("dev/{PRODUCT}/two/down/#"),
        format!("dev/{PRODUCT}/+/down/#"),
        "dev/#".to_owned(),
        "#".to_owned(),
        "+/+/+/down/x".to_owned(),
        format!("dev/{PRODUCT}/one/up/#"),
        "$SYS/#".to_owned(),
        "$share/group/#".to_owned(),
    ];
    let mut request: Vec<(&str, u8)> = filters.iter().map(|filter| (filter.as_str(), 0)).collect();
    request.insert(3, (&own_down, 0));
    let codes = client.subscribe(&request);
    let expected: Vec<u8> = (0..request.len()).map(|n| if n == 3 { 0 } else { 0x87 }).collect();
    assert_eq!(codes, expected, "refusing one neither closes the connection nor hurts the others");
    client.quiet();
}

#[test]
fn mqtt_3_devices_are_held_to_the_same() {
    let broker = registered();
    let mut client = broker.client(&connect(Version::V311, &native("c", "one", SECRET)));
    // [MQTT3-3.9.3-2]
    let own = format!("dev/{PRODUCT}/one/down/x");
    assert_eq!(client.subscribe(&[("#", 1), (&own, 1), ("dev/#", 0)]), [0x80, 1, 0x80]);
    let mut watcher = broker.client(&connect(Version::V311, &native("w", "two", SECRET)));
    let watched = format!("dev/{PRODUCT}/two/down/x");
    assert_eq!(watcher.subscribe(&[(&watched, 0)]), [0]);
    // [MQTT3-3.3.5-2] Acknowledged and dropped, or the connection is closed.
    client.send(&Publish::new(&watched, "x").qos(1, 1).encode(Version::V311));
    let _ = client.recv_or_end();
    watcher.quiet();
}

#[test]
fn devices_do_not_hear_each_other() {
    let broker = registered();
    let topic = |device: &str| format!("/{PRODUCT}/{device}/user/get");
    let mut one = broker.client(&connect(Version::V311, &credential::aliyun("one", SECRET)));
    assert_eq!(one.subscribe(&[(&topic("one"), 1), (&topic("two"), 1)]), [1, 0x80]);
    let mut two = broker.client(&connect(Version::V311, &credential::aliyun("two", SECRET)));
    two.send(&Publish::new(&topic("one"), "intruder").qos(1, 1).encode(Version::V311));
    let _ = two.recv_or_end();
    one.quiet();
}

#[test]
fn the_sixteen_subscriptions_of_the_node_sdk_do_not_close_the_connection() {
    let broker = registered();
    let credential = credential::aliyun("one", SECRET);
    let mut client = broker.client(&connect(Version::V311, &credential).clean(false));
    let base = format!("{PRODUCT}/one");
    let filters: Vec<String> = [
        format!("/sys/{base}/thing/event/+/post_reply"),
        format!("/sys/{base}/thing/service/#"),
        format!("/sys/{base}/thing/deviceinfo/update_reply"),
        format!("/sys/{base}/thing/config/push"),
        format!("/sys/{base}/rrpc/request/+"),
        format!("/shadow/get/{base}"),
        format!("/ext/rrpc/+/{base}/#"),
        format!("/ota/device/upgrade/{base}"),
        format!("/{base}/user/get"),
        format!("/sys/{base}/thing/topo/add_reply"),
    ]
    .into();
    let request: Vec<(&str, u8)> = filters.iter().map(|filter| (filter.as_str(), 0)).collect();
    let codes = client.subscribe(&request);
    assert_eq!((codes[0], codes[1], codes[7], codes[8]), (0, 0, 0, 0), "{codes:?}");
    client.quiet();
}

#[test]
fn a_will_needs_leave_like_any_publication() {
    let broker = registered();
    let mut watcher = broker.client(&connect(Version::V5, &native("w", "two", SECRET)));
    let watched = format!("dev/{PRODUCT}/two/down/x");
    watcher.subscribe(&[(&watched, 0)]);
    let forbidden = connect(Version::V5, &native("c", "one", SECRET)).will(Will::new(&watched, b"intruder"));
    let (client, ack) = Client::open(broker.mqtt(), &forbidden);
    assert!(matches!(ack.code, 0 | 0x87), "{ack:?}");
    client.drop_connection();
    let allowed = connect(Version::V5, &native("c2", "one", SECRET))
        .will(Will::new(&format!("dev/{PRODUCT}/one/up/gone"), b"gone"));
    broker.client(&allowed).drop_connection();
    watcher.quiet();
}

#[test]
fn devices_are_imported_from_csv_and_listed_by_page() {
    let broker = registered();
    let http = broker.http();
    let mut csv = String::from("device,secret\n");
    for n in 0..5000 {
        csv += &format!("imported{n:05},{:032x}\n", n + 1);
    }
    let answer = http.post(&format!("/api/v1/products/{PRODUCT}/devices/import"), "text/csv", &csv);
    assert!((200..300).contains(&answer.status), "{answer:?}");
    let mut names = Vec::new();
    let mut after = String::new();
    loop {
        let page = http.get(&format!("/api/v1/products/{PRODUCT}/devices?limit=1000{after}"));
        assert_eq!(page.status, 200, "{page:?}");
        assert!(!page.body.contains(SECRET), "a list tells no secrets");
        let page = page.json();
        let devices = page["devices"].as_array().expect("a list").clone();
        assert!(devices.len() <= 1000);
        names.extend(devices.iter().map(|device| device["device"].as_str().expect("a name").to_owned()));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(names.len(), 5002, "each once");
    assert!(names.is_sorted());
    let secret = format!("{:032x}", 4711 + 1);
    assert_eq!(code(&broker, Version::V5, &native("c", "imported04711", &secret)), 0);
}

#[test]
fn a_faulty_line_of_an_import_is_named() {
    let broker = registered();
    let csv = format!("device,secret\ngood,{SECRET}\nbad/name,{SECRET}\nalso-good,{SECRET}\n");
    let answer = broker.http().post(&format!("/api/v1/products/{PRODUCT}/devices/import"), "text/csv", &csv);
    assert!(answer.body.contains('3'), "the third line is at fault: {answer:?}");
    assert!(!answer.body.contains(SECRET));
}

#[test]
fn names_that_would_break_topics_are_refused() {
    let broker = registered();
    for device in ["a%2Fb", "%23", "%2B", "a%26b", "a%7Cb", "%00"] {
        let answer = broker.http().put(&device_path(device), "{}");
        assert!((400..500).contains(&answer.status), "{device}: {answer:?}");
    }
    assert_eq!(broker.http().put("/api/v1/products/unknown/devices/x", "{}").status, 404);
}

#[test]
fn secrets_are_nowhere_in_clear() {
    let mut broker = registered();
    assert_eq!(code(&broker, Version::V5, &native("c", "one", SECRET)), 0);
    assert_eq!(code(&broker, Version::V5, &native("c", "one", "ffffffffffffffffffffffffffffffff")), 0x86);
    broker.stop();
    let mut folders = vec![broker.data()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder").map_while(Result::ok) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = std::fs::read(&path).expect("readable");
            for form in [SECRET.as_bytes().to_vec(), hex::decode(SECRET).expect("hex")] {
                let found = bytes.windows(form.len()).any(|window| window == form);
                assert!(!found, "the secret is in {}", path.display());
            }
        }
    }
    assert!(!broker.log().contains(SECRET), "the secret is in the log");
}

#[test]
fn the_password_of_a_device_can_be_made_by_the_command() {
    let broker = registered();
    for profile in ["native", "aliyun"] {
        let output = turnpike_tests::broker::command()
            .args(["credential", "--profile", profile, "--product", PRODUCT, "--device", "one", "--secret", SECRET])
            .output()
            .expect("it runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        let value = |names: &[&str]| {
            let line = text.lines().find(|line| names.iter().any(|name| line.to_lowercase().starts_with(name)));
            let line = line.unwrap_or_else(|| panic!("none of {names:?} in {text}"));
            line.split_once([':', '=']).expect("name and value").1.trim().trim_matches(['\'', '"']).to_owned()
        };
        let credential = Credential {
            client_id: value(&["client id", "client-id", "client_id"]),
            user: value(&["user"]),
            password: value(&["password"]),
        };
        assert_eq!(code(&broker, Version::V311, &credential), 0, "{profile}: {text}");
    }
}

#[test]
fn the_demo_device_is_made_once_and_its_lines_work() {
    // Without flags the default ports would be taken; listeners by flag leave the rest as it is.
    let mut broker = Setup::closed().start();
    let products = broker.http().get("/api/v1/products").json();
    let count = |products: &serde_json::Value| products["products"].as_array().expect("a list").len();
    assert_eq!((count(&products), products["products"][0]["product"].as_str()), (1, Some("demo")), "{products}");
    broker.stop();
    broker.restart();
    assert_eq!(broker.http().get("/api/v1/products").json(), products);
}

#[test]
fn with_a_configuration_there_is_no_demo_device() {
    let broker = Setup::closed().config("drain_timeout_s = 1\n").start();
    assert_eq!(broker.http().get("/api/v1/products").json()["products"], serde_json::json!([]));
    assert_eq!(broker.http().get("/api/v1/products/demo/devices/device-1").status, 404);
}

#[test]
fn nobody_enters_unknown() {
    let broker = Setup::closed().start();
    for version in Version::ALL {
        let (mut client, ack) = Client::open(broker.mqtt(), &Connect::new(version, "anybody"));
        assert_ne!(ack.code, 0);
        assert_eq!(client.end(), End::Closed);
    }
}

#[test]
fn a_back_end_cannot_be_impersonated_by_a_client_id() {
    // Another device with the same client id is another client: it neither gets the session nor ends it.
    let broker = registered();
    let mut one = broker.client(&connect(Version::V5, &native("shared-id", "one", SECRET)));
    let (_other, ack) = Client::open(broker.mqtt(), &connect(Version::V5, &native("shared-id", "two", SECRET)));
    assert!(ack.code == 0 && !ack.session_present, "{ack:?}");
    one.quiet();
}

#[test]
fn a_durable_session_of_one_device_is_not_resumed_by_another() {
    let broker = registered();
    let durable = |device: &str| {
        let credential = native("shared-id", device, SECRET);
        Connect::durable(Version::V5, &credential.client_id, 1000).login(&credential.user, &credential.password)
    };
    let mut one = broker.client(&durable("one"));
    one.subscribe(&[(&format!("dev/{PRODUCT}/one/down/#"), 1)]);
    one.disconnect();
    let (mut two, ack) = Client::open(broker.mqtt(), &durable("two"));
    assert!(ack.code != 0 || !ack.session_present, "{ack:?}");
    if ack.code == 0 {
        two.quiet();
    }
    until("the broker is still well", SOON, || (broker.http().get("/healthz").status == 200).then_some(()));
}
