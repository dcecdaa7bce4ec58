//! Payloads of devices without TLS: sealed between them and the broker, plain for everybody else.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use turnpike_authz::cipher::device::DeviceCipher;
use turnpike_authz::cipher::offer::wrapped_hash;
use turnpike_authz::cipher::wrap::PublicPlatformKey;
use turnpike_authz::cipher::{DeviceKey, Material, Offer, Suite};
use turnpike_authz::secret::Secret;
use turnpike_core::gate::DeviceIdentity;
use turnpike_tests::broker::{Broker, Setup};
use turnpike_tests::certificate::Authority;
use turnpike_tests::client::{Client, End};
use turnpike_tests::credential::{self, PRODUCT, SECRET, aliyun, native_at};
use turnpike_tests::peers;
use turnpike_tests::time::{SOON, until};
use turnpike_tests::wire::{Connect, Packet, Publish, Version, user};

use crate::gate::{register, registered};

/// New keys after 16 messages, but not before the second of grace is over.
const SHORT: &str = r#"{"mode": "cipher", "rekey_messages": 16, "grace_s": 1}"#;
const LONG: &str = r#"{"mode": "cipher", "suites": ["aes-128-gcm", "aes-128-cbc"]}"#;

fn path() -> String {
    format!("/api/v1/products/{PRODUCT}/payloads")
}

#[track_caller]
fn set(broker: &Broker, body: &str) {
    let answer = broker.http().put(&path(), body);
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// A counter of the broker's.
fn count(broker: &Broker, name: &str) -> u64 {
    let text = broker.http().get("/metrics").body;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}"));
    line.trim().parse().expect("a number")
}

fn refused(broker: &Broker, reason: &str) -> u64 {
    count(broker, &format!("turnpike_payloads_refused_total{{reason=\"{reason}\"}}"))
}

/// A nonce that was never used before.
fn nonce() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{:08x}{:08x}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn cipher_of(device: &str, suite: Suite, nonce: &str) -> DeviceCipher {
    let who = Arc::new(DeviceIdentity { product: PRODUCT.into(), device: device.into(), means: Default::default() });
    let secret = Secret::new(SECRET.as_bytes()).expect("a secret");
    DeviceCipher::new(who, suite, Material::Secret(&secret), nonce.as_bytes())
}

/// A device without TLS, as its firmware would be.
struct Device {
    name: String,
    client: Client,
    cipher: DeviceCipher,
    /// Epochs heard of.
    epochs: u32,
    /// What came for it, opened.
    inbox: VecDeque<(String, Vec<u8>)>,
    next_id: u16,
}

impl Device {
    fn new(name: &str, client: Client, cipher: DeviceCipher) -> Self {
        Self { name: name.to_owned(), client, cipher, epochs: 0, inbox: VecDeque::new(), next_id: 0 }
    }

    /// Logs in with a native credential, whose nonce makes the keys, and hears the first announcement.
    #[track_caller]
    fn log_in(broker: &Broker, version: Version, name: &str, suite: Suite) -> Self {
        let suffix = match suite {
            Suite::Gcm => "",
            Suite::Cfb => "~cfb",
            Suite::Cbc => "~cbc",
        };
        let nonce = nonce() + suffix;
        let login = native_at(&format!("c-{name}"), name, SECRET, credential::now_ms(), &nonce);
        let connect = Connect::new(version, &login.client_id).login(&login.user, &login.password);
        let mut device = Self::new(name, broker.client(&connect), cipher_of(name, suite, &nonce));
        device.hear_announcement();
        device
    }

    fn topic(&self, rest: &str) -> String {
        format!("dev/{PRODUCT}/{}/{rest}", self.name)
    }

    #[track_caller]
    fn hear_announcement(&mut self) {
        let publish = self.client.publish_in();
        assert_eq!((publish.topic.clone(), publish.qos), (self.topic("sys/key"), 0));
        assert_eq!(self.cipher.hear(&publish.payload), Ok(true));
        self.epochs += 1;
    }

    /// Takes the next packet; messages and announcements are dealt with.
    #[track_caller]
    fn take(&mut self) -> Packet {
        let packet = self.client.take_either();
        if let Packet::Publish(publish) = &packet {
            if publish.topic == self.topic("sys/key") {
                self.epochs += u32::from(self.cipher.hear(&publish.payload).expect("the broker's"));
            } else {
                let payload = self.cipher.open_down(&publish.topic, &publish.payload).expect("sealed for it, once");
                self.inbox.push_back((publish.topic.clone(), payload));
            }
        }
        packet
    }

    #[track_caller]
    fn received(&mut self) -> (String, Vec<u8>) {
        loop {
            match self.inbox.pop_front() {
                Some(message) => return message,
                None => drop(self.take()),
            }
        }
    }

    fn sealed(&mut self, rest: &str, payload: &[u8]) -> Publish {
        let topic = self.topic(rest);
        let frame = self.cipher.seal_up(&topic, payload).expect("announced");
        Publish::new(&topic, frame)
    }

    /// Publishes at QoS 1 as it is; the reason of the acknowledgement.
    #[track_caller]
    fn send(&mut self, publish: &Publish) -> u8 {
        self.next_id = self.next_id % 60_000 + 1;
        let id = self.next_id;
        self.client.send(&publish.clone().qos(1, id).encode(self.client.version()));
        loop {
            match self.take() {
                Packet::PubAck(ack) if ack.id == id => return ack.code(),
                Packet::Publish(_) => {}
                other => panic!("PUBACK {id} expected, not {other:?}"),
            }
        }
    }

    #[track_caller]
    fn publish(&mut self, rest: &str, payload: &[u8]) -> u8 {
        let publish = self.sealed(rest, payload);
        self.send(&publish)
    }

    /// Publishes as `PAYLOAD.md` has it: what was sealed in an epoch that is over by now is sealed anew.
    #[track_caller]
    fn publish_surely(&mut self, rest: &str, payload: &[u8]) -> u8 {
        loop {
            match self.publish(rest, payload) {
                0x87 => {}
                code => return code,
            }
        }
    }

    #[track_caller]
    fn subscribe(&mut self, rest: &str) {
        let topic = self.topic(rest);
        assert_eq!(self.client.subscribe(&[(&topic, 1)]), [1]);
    }
}

/// Over TLS, by somebody else's client: what it sees of a device's topics.
struct Observer {
    client: rumqttc::Client,
    connection: rumqttc::Connection,
}

impl Observer {
    fn log_in(broker: &Broker, authority: &Authority, device: &str) -> Self {
        use rumqttc::{MqttOptions, TlsConfiguration, Transport};

        let id = format!("observer-{}", nonce());
        let login = native_at(&id, device, SECRET, credential::now_ms(), &nonce());
        let pem = std::fs::read(&authority.certificate).expect("the authority");
        let mut options = MqttOptions::new(id, "localhost", broker.address("mqtts").port());
        let tls = crate::clients::tls(&pem);
        options.set_credentials(login.user, login.password);
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(tls.into())));
        let (client, connection) = rumqttc::Client::new(options, 100);
        client.subscribe(format!("dev/{PRODUCT}/{device}/backfill/#"), rumqttc::QoS::AtLeastOnce).expect("queued");
        let mut observer = Self { client, connection };
        while !matches!(observer.next(), rumqttc::Packet::SubAck(_)) {}
        observer
    }

    fn next(&mut self) -> rumqttc::Packet {
        loop {
            match self.connection.recv_timeout(SOON).expect("an event soon") {
                Ok(rumqttc::Event::Incoming(packet)) => return packet,
                Ok(rumqttc::Event::Outgoing(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn message(&mut self) -> Vec<u8> {
        loop {
            if let rumqttc::Packet::Publish(publish) = self.next() {
                return publish.payload.to_vec();
            }
        }
    }
}

fn with_tls() -> (Broker, Authority, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new(folder.path(), "test");
    let broker = Setup::listeners(&["mqtt", "mqtts"], &authority.sign("broker")).start();
    register(&broker);
    (broker, authority, folder)
}

#[test]
fn only_the_device_without_tls_sees_sealed_payloads() {
    let (broker, authority, _folder) = with_tls();
    set(&broker, LONG);
    let mut observer = Observer::log_in(&broker, &authority, "one");
    for (version, suite) in [(Version::V311, Suite::Gcm), (Version::V5, Suite::Cbc)] {
        let mut device = Device::log_in(&broker, version, "one", suite);
        device.subscribe("backfill/back/#");
        assert_eq!(device.publish("backfill/t", b"from the device"), 0);
        assert_eq!(observer.message(), b"from the device");
        let mut twice = device.sealed("backfill/t", b"once");
        assert_eq!((device.send(&twice), device.send(&twice)), (0, 0), "a repetition was taken the first time");
        *twice.payload.last_mut().expect("a tag") ^= 1;
        let altered = if version == Version::V5 { 0x99 } else { 0 };
        assert_eq!(device.send(&twice), altered);
        let plain = Publish::new(&device.topic("backfill/t"), b"plain");
        assert_eq!(device.send(&plain), altered);
        let elsewhere = Publish { topic: device.topic("backfill/u"), ..device.sealed("backfill/t", b"moved") };
        assert_eq!(device.send(&elsewhere), altered);
        let kept = device.sealed("backfill/back/kept", b"kept").retain();
        assert_eq!(device.send(&kept), 0);
        assert_eq!(observer.message(), b"once", "and not twice");
        assert_eq!(observer.message(), b"kept", "and nothing between");
        assert_eq!(device.received(), (device.topic("backfill/back/kept"), b"kept".to_vec()));
        let down = device.topic("backfill/back/x");
        observer.client.publish(&down, rumqttc::QoS::AtLeastOnce, false, "to the device").expect("queued");
        assert_eq!(observer.message(), b"to the device");
        assert_eq!(device.received(), (down, b"to the device".to_vec()));
        // A retained message is kept plain, and sealed for who comes next.
        let mut late = Observer::log_in(&broker, &authority, "one");
        assert_eq!(late.message(), b"kept");
        device.client.disconnect();
        let mut again = Device::log_in(&broker, version, "one", suite);
        again.subscribe("backfill/back/#");
        assert_eq!(again.received().1, b"kept");
        let empty = again.sealed("backfill/back/kept", b"").retain();
        assert_eq!((again.send(&empty), again.received().1), (0, Vec::new()), "an empty payload deletes it");
        assert_eq!(observer.message(), b"");
        again.client.disconnect();
    }
    assert_eq!([refused(&broker, "replayed"), refused(&broker, "malformed"), refused(&broker, "altered")], [2, 2, 4]);
    assert_eq!(count(&broker, "turnpike_payload_epochs_total"), 4, "two log-ins of each");
    // Whoever has TLS needs no cipher, and a suite that isn't the product's lets nobody in.
    let nonce = nonce() + "~cfb";
    let login = native_at("c", "one", SECRET, credential::now_ms(), &nonce);
    let connect = Connect::new(Version::V5, "c").login(&login.user, &login.password);
    assert_eq!(Client::open(broker.mqtt(), &connect).1.code, 0x87);
}

#[test]
fn a_device_whose_credential_has_no_nonce_says_hello() {
    let broker = registered();
    set(&broker, LONG);
    let topic = format!("dev/{PRODUCT}/one/sys/key");
    for version in [Version::V311, Version::V5] {
        let nonce = nonce();
        let login = aliyun("one", SECRET);
        let connect = Connect::new(version, &login.client_id).login(&login.user, &login.password);
        let mut device = Device::new("one", broker.client(&connect), cipher_of("one", Suite::Gcm, &nonce));
        device.subscribe("backfill/#");
        // Neither plain nor sealed before there are keys.
        let plain = Publish::new(&device.topic("backfill/t"), b"plain");
        assert_eq!(device.send(&plain), if version == Version::V5 { 0x87 } else { 0 });
        let offer = Offer { nonce: Some(nonce.as_bytes().into()), ..Offer::default() };
        assert_eq!(device.send(&Publish::new(&topic, offer.to_hello())), 0);
        while device.epochs == 0 {
            let _ = device.take();
        }
        assert_eq!(device.publish("backfill/t", b"sealed"), 0);
        assert_eq!(device.received().1, b"sealed", "and nothing before it");
        let again = device.send(&Publish::new(&topic, offer.to_hello()));
        assert_eq!(again, if version == Version::V5 { 0x87 } else { 0 }, "one hello in a connection");
        assert_eq!(device.publish("backfill/t", b"still sealed"), 0);
        device.client.disconnect();
    }
    // MQTT 5 has properties for it.
    let nonce = nonce();
    let login = aliyun("one", SECRET);
    let connect = Connect::new(Version::V5, &login.client_id).login(&login.user, &login.password);
    let connect = connect.prop(user("cipher-nonce", &nonce)).prop(user("cipher-suite", "aes-128-cbc"));
    let mut device = Device::new("one", broker.client(&connect), cipher_of("one", Suite::Cbc, &nonce));
    device.hear_announcement();
    device.subscribe("sys/+");
    let repeated = device.take();
    assert!(matches!(repeated, Packet::Publish(publish) if publish.topic == topic), "once more when it subscribes");
    assert_eq!((device.publish("backfill/t", b"x"), device.epochs), (0x10, 1));
}

#[test]
fn a_product_says_what_is_done_with_payloads() {
    let mut broker = registered();
    assert_eq!(broker.http().get(&path()).json(), serde_json::json!({ "mode": "plain" }));
    let login = credential::native("c", "one", SECRET);
    let mut plain = broker.client(&Connect::new(Version::V5, "c").login(&login.user, &login.password));
    set(&broker, SHORT);
    assert_eq!(plain.end(), End::Disconnected(0x98), "it came in on other terms");
    broker.kill();
    broker.restart();
    let short = serde_json::json!({
        "mode": "cipher", "suites": ["aes-128-gcm"], "rekey_after_s": 3600, "rekey_messages": 16, "grace_s": 1
    });
    assert_eq!(broker.http().get(&path()).json(), short);
    for wrong in [
        "{}",
        r#"{"mode": "rot13"}"#,
        r#"{"mode": "plain", "grace_s": 5}"#,
        r#"{"mode": "cipher", "suites": []}"#,
        r#"{"mode": "cipher", "suites": ["aes-128-ecb"]}"#,
        r#"{"mode": "cipher", "rekey_after_s": 9}"#,
        r#"{"mode": "cipher", "rekey_messages": 15}"#,
        r#"{"mode": "cipher", "grace_s": 1801}"#,
    ] {
        assert_eq!(broker.http().put(&path(), wrong).status, 400, "{wrong}");
    }
    assert_eq!(broker.http().put("/api/v1/products/nothing/payloads", SHORT).status, 404);
    let mut device = Device::log_in(&broker, Version::V5, "one", Suite::Gcm);
    // Nothing of the broker touches these.
    set(&broker, r#"{"mode": "transparent"}"#);
    assert_eq!(device.client.end(), End::Disconnected(0x98));
    let login = credential::native("c", "one", SECRET);
    let mut client = broker.client(&Connect::new(Version::V311, "c").login(&login.user, &login.password));
    let topic = format!("dev/{PRODUCT}/one/backfill/x");
    assert_eq!(client.subscribe(&[(&topic, 0)]), [0]);
    client.send(&Publish::new(&topic, [0x01, 0x01, 0xFF, 0x00]).encode(Version::V311));
    assert_eq!(client.publish_in().payload, [0x01, 0x01, 0xFF, 0x00]);
    let actions = broker.http().get("/api/v1/audit?action=product_settings&limit=10").json();
    assert_eq!(actions["records"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_device_that_misses_new_keys_is_refused_after_the_grace_and_told() {
    let broker = registered();
    set(&broker, SHORT);
    let mut device = Device::log_in(&broker, Version::V5, "one", Suite::Gcm);
    // It doesn't listen to announcements.
    let mut heard = Vec::new();
    let mut send = |device: &mut Device, id: u16| {
        let publish = device.sealed("backfill/t", b"x").qos(1, id);
        device.client.send(&publish.encode(Version::V5));
        loop {
            match device.client.recv() {
                Packet::PubAck(ack) => return (ack.code(), std::mem::take(&mut heard)),
                Packet::Publish(publish) => heard.push(publish.payload),
                other => panic!("PUBACK expected, not {other:?}"),
            }
        }
    };
    let mut announcements = Vec::new();
    for id in 1..=16 {
        let (code, heard) = send(&mut device, id);
        assert_eq!(code, 0x10, "nobody subscribes, and it is taken");
        announcements.extend(heard);
    }
    let mut id = 17;
    until("the grace ends", SOON, || {
        id += 1;
        let (code, heard) = send(&mut device, id);
        announcements.extend(heard);
        (code != 0x10).then(|| assert_eq!(code, 0x87))
    });
    assert!(refused(&broker, "epoch_over") >= 1);
    // With what it has been told, it goes on.
    let newest = announcements.iter().map(|payload| device.cipher.hear(payload)).filter(|heard| *heard == Ok(true));
    assert!(newest.count() >= 1);
    assert_eq!(device.publish("backfill/t", b"x"), 0x10);
}

/// Lets this process have more descriptors than the usual 1,024; so has the broker that it starts.
fn raise_descriptors() {
    let mut command = std::process::Command::new("prlimit");
    command.arg(format!("--pid={}", std::process::id())).arg("--nofile=4096:");
    assert!(command.status().expect("prlimit").success());
}

const FLEET: usize = 1000;
const EPOCHS: u32 = 10;

/// A part of the fleet: each device publishes, and gets what it published, until everybody has seen enough epochs. What was sent and came, by
/// device.
fn drive(broker: &Broker, names: &[String], behind: &AtomicUsize) -> HashMap<String, u64> {
    let mut devices: Vec<Device> =
        names.iter().map(|name| Device::log_in(broker, Version::V5, name, Suite::Gcm)).collect();
    for device in &mut devices {
        device.subscribe("backfill/#");
    }
    let (mut sent, mut arrived) = (0_u64, HashMap::new());
    let mut are_done = false;
    while behind.load(Ordering::Relaxed) > 0 {
        for device in &mut devices {
            assert_eq!(
                device.publish_surely("backfill/n", &sent.to_be_bytes()),
                0,
                "{} in epoch {}",
                device.name,
                device.epochs
            );
        }
        for device in &mut devices {
            let (_, payload) = device.received();
            assert_eq!(payload, sent.to_be_bytes(), "{}: each once, in order", device.name);
            *arrived.entry(device.name.clone()).or_default() += 1;
        }
        sent += 1;
        if !are_done && devices.iter().all(|device| device.epochs > EPOCHS) {
            are_done = true;
            behind.fetch_sub(1, Ordering::Relaxed);
        }
    }
    assert!(arrived.values().all(|count| *count == sent));
    arrived
}

#[test]
fn a_thousand_devices_lose_nothing_across_ten_epochs() {
    raise_descriptors();
    let broker = registered();
    set(&broker, SHORT);
    let names: Vec<String> = (0..FLEET).map(|n| format!("fleet{n:04}")).collect();
    let csv = names.iter().fold(String::from("device,secret\n"), |csv, name| csv + &format!("{name},{SECRET}\n"));
    let answer = broker.http().post(&format!("/api/v1/products/{PRODUCT}/devices/import"), "text/csv", &csv);
    assert!((200..300).contains(&answer.status), "{answer:?}");
    let parts: Vec<&[String]> = names.chunks(FLEET / 8).collect();
    let behind = AtomicUsize::new(parts.len());
    let arrived: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> =
            parts.iter().map(|part| scope.spawn(|| drive(&broker, part, &behind).values().sum::<u64>())).collect();
        threads.into_iter().map(|thread| thread.join().expect("no device lost a message")).sum()
    });
    let epochs = count(&broker, "turnpike_payload_epochs_total");
    assert!(epochs >= FLEET as u64 * u64::from(EPOCHS + 1), "{epochs}");
    assert!(arrived >= FLEET as u64 * u64::from(EPOCHS) * 8);
    // A device that is late by more than the grace hears so, and seals anew.
    for reason in ["malformed", "suite", "epoch_unknown", "altered", "replayed", "too_old"] {
        assert_eq!(refused(&broker, reason), 0, "{reason}");
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = bytes.chunks(3).flat_map(|three| {
        let bits = three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        (0..4).map(move |n| match n <= three.len() {
            true => char::from(DIGITS[(bits >> (18 - 6 * n)) as usize & 63]),
            false => '=',
        })
    });
    digits.collect()
}

#[test]
fn a_device_may_bring_a_key_under_the_platforms() {
    let mut broker = registered();
    set(&broker, LONG);
    let folder = tempfile::tempdir().expect("a folder");
    let (private, public) = (broker.data().join("platform-key.pem"), folder.path().join("public.pem"));
    broker.stop();
    let openssl = |arguments: &str, input: Option<&std::path::Path>, output: &std::path::Path| {
        let mut command = std::process::Command::new("openssl");
        command.args(arguments.split(' ')).arg("-out").arg(output);
        if let Some(file) = input {
            command.arg("-in").arg(file);
        }
        assert!(command.output().expect("openssl").status.success(), "{arguments}");
    };
    openssl("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048", None, &private);
    std::fs::set_permissions(&private, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("its own file");
    openssl("pkey -pubout", Some(&private), &public);
    broker.restart();
    let pem = std::fs::read_to_string(&public).expect("a key");
    let key = DeviceKey::new([9; 32]);
    let wrapped = PublicPlatformKey::from_pem(&pem).expect("a key").wrap(&key, [7; 32]);
    for nonce in [wrapped_hash(&wrapped), nonce()] {
        let login = native_at("c", "one", SECRET, credential::now_ms(), &nonce);
        let connect = Connect::new(Version::V5, "c").login(&login.user, &login.password);
        let connect = connect.prop(user("cipher-key", &base64(&wrapped)));
        let (client, ack) = Client::open(broker.mqtt(), &connect);
        if ack.code != 0 {
            assert_eq!((ack.code, nonce.len()), (0x87, 16), "only a log-in that signs the key's hash");
            continue;
        }
        let who = Arc::new(DeviceIdentity { product: PRODUCT.into(), device: "one".into(), means: Default::default() });
        let cipher = DeviceCipher::new(who, Suite::Gcm, Material::Key(&key), nonce.as_bytes());
        let mut device = Device::new("one", client, cipher);
        device.hear_announcement();
        device.subscribe("backfill/#");
        assert_eq!(device.publish("backfill/t", b"x"), 0);
        assert_eq!((device.received().1, nonce.len()), (b"x".to_vec(), 64));
    }
}

#[test]
fn the_python_of_the_document_does_what_it_says() {
    let broker = registered();
    set(&broker, r#"{"mode": "cipher"}"#);
    let nonce = nonce();
    let login = native_at("python", "one", SECRET, credential::now_ms(), &nonce);
    let (address, mut command) = (broker.mqtt(), peers::python("payload.py"));
    command.arg(address.ip().to_string()).arg(address.port().to_string());
    command.arg(peers::tests().join("../authz/PAYLOAD.md")).args([PRODUCT, "one", SECRET]);
    command.args([&login.client_id, &login.user, &login.password, &nonce]);
    assert_eq!(peers::run(command).trim(), "ok");
}
