//! Other people's clients: mosquitto's, paho-mqtt, mqtt.js and rumqttc, over TCP, TLS and WebSocket.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use turnpike_tests::broker::{Broker, Setup};
use turnpike_tests::certificate::Authority;
use turnpike_tests::peers::{self, Peer, arg};
use turnpike_tests::time::SOON;

/// A broker with every kind of listener, and the authority that signed its certificate.
struct Everywhere {
    broker: Broker,
    authority: PathBuf,
    _folder: tempfile::TempDir,
}

impl Everywhere {
    #[track_caller]
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::new(folder.path(), "test");
        let kinds = ["mqtt", "mqtts", "ws", "wss"];
        let broker = Setup::listeners(&kinds, &authority.sign("broker")).flag("--anonymous").start();
        Self { broker, authority: authority.certificate, _folder: folder }
    }

    fn address(&self, transport: &str) -> SocketAddr {
        let listener = match transport {
            "tcp" | "mqtt" => "mqtt",
            "tls" | "mqtts" => "mqtts",
            other => other,
        };
        self.broker.address(listener)
    }
}

fn paho(transport: &str) {
    let everywhere = Everywhere::start();
    let address = everywhere.address(transport);
    for version in ["3", "4", "5"] {
        let mut command = peers::python("paho_tour.py");
        command.args([transport, "localhost", &address.port().to_string(), version]);
        if matches!(transport, "tls" | "wss") {
            command.arg(&everywhere.authority);
        }
        assert_eq!(peers::run(command).trim(), "ok", "{transport} {version}");
    }
}

#[test]
fn paho_over_tcp() {
    paho("tcp");
}

#[test]
fn paho_over_tls() {
    paho("tls");
}

#[test]
fn paho_over_websocket() {
    paho("ws");
}

#[test]
fn paho_over_websocket_with_tls() {
    paho("wss");
}

fn mqttjs(scheme: &str) {
    let everywhere = Everywhere::start();
    let address = everywhere.address(scheme);
    let path = if scheme.starts_with("ws") { "/mqtt" } else { "" };
    for version in ["3", "4", "5"] {
        let mut command = peers::javascript("mqttjs_tour.mjs");
        command.args([format!("{scheme}://localhost:{}{path}", address.port()), version.to_owned()]);
        if matches!(scheme, "mqtts" | "wss") {
            command.arg(&everywhere.authority);
        }
        assert_eq!(peers::run(command).trim(), "ok", "{scheme} {version}");
    }
}

#[test]
fn mqttjs_over_tcp() {
    mqttjs("mqtt");
}

#[test]
fn mqttjs_over_tls() {
    mqttjs("mqtts");
}

#[test]
fn mqttjs_over_websocket() {
    mqttjs("ws");
}

#[test]
fn mqttjs_over_websocket_with_tls() {
    mqttjs("wss");
}

/// mosquitto's two programs, at one listener.
struct Mosquitto {
    everywhere: Everywhere,
    transport: &'static str,
    version: &'static str,
}

impl Mosquitto {
    #[track_caller]
    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = peers::mosquitto(program);
        let port = self.everywhere.address(self.transport).port().to_string();
        command.args(["-h", "localhost", "-p", &port, "-V", self.version]);
        if self.transport == "tls" {
            command.args(["--cafile", &arg(&self.everywhere.authority)]);
        }
        command.args(arguments);
        command
    }

    #[track_caller]
    fn publish(&self, arguments: &[&str]) {
        peers::run(self.command("mosquitto_pub", arguments));
    }

    /// A subscriber that prints what comes; it is subscribed when this returns.
    #[track_caller]
    fn subscribe(&self, arguments: &[&str]) -> Peer {
        let ready = format!("ready/{}", arguments.join("").replace(['/', '#', '+', '$', ' '], "-"));
        let mut all = vec!["-F", "%q %r %t %p", "-t", &ready];
        all.extend(arguments);
        let mut peer = Peer::start(self.command("mosquitto_sub", &all));
        // Retained: whether it subscribes before or after, it comes once the subscription is there.
        self.publish(&["-q", "1", "-r", "-t", &ready, "-m", "now"]);
        let line = peer.line();
        assert!(line.ends_with("now"), "{line}");
        self.publish(&["-q", "1", "-r", "-t", &ready, "-n"]);
        // A message that is published while the subscription is made may come both live and retained.
        while !peer.line().ends_with(' ') {}
        peer
    }

    fn tour(&self) {
        let mut subscriber = self.subscribe(&["-q", "2", "-t", "m/#"]);
        for qos in ["0", "1", "2"] {
            self.publish(&["-q", qos, "-t", "m/qos", "-m", "hello"]);
            subscriber.expect(&format!("{qos} 0 m/qos hello"));
        }
        self.publish(&["-q", "1", "-r", "-t", "kept", "-m", "kept"]);
        let output = peers::run(self.command("mosquitto_sub", &["-F", "%r %p", "-t", "kept", "-C", "1", "-W", "20"]));
        assert_eq!(output.trim(), "1 kept");
        self.publish(&["-q", "1", "-r", "-t", "kept", "-n"]);

        let mut mortal =
            self.subscribe(&["-i", "mortal", "-t", "x", "--will-topic", "m/will", "--will-payload", "gone"]);
        mortal.kill();
        subscriber.expect("0 0 m/will gone");

        let session: &[&str] = match self.version {
            "mqttv5" => &["-c", "-i", "sleeper", "-x", "100", "-q", "2", "-t", "queue"],
            _ => &["-c", "-i", "sleeper", "-q", "2", "-t", "queue"],
        };
        let mut register = session.to_vec();
        register.push("-E");
        peers::run(self.command("mosquitto_sub", &register));
        for (qos, text) in [("1", "first"), ("2", "second")] {
            self.publish(&["-q", qos, "-t", "queue", "-m", text]);
        }
        let mut collect = session.to_vec();
        collect.extend(["-C", "2", "-W", "20"]);
        assert_eq!(peers::run(self.command("mosquitto_sub", &collect)), "first\nsecond\n");

        let mut members = [
            self.subscribe(&["-i", "member1", "-q", "1", "-t", "$share/group/shared"]),
            self.subscribe(&["-i", "member2", "-q", "1", "-t", "$share/group/shared"]),
        ];
        for n in 0..10 {
            self.publish(&["-q", "1", "-t", "shared", "-m", &n.to_string()]);
        }
        for member in &mut members {
            for _ in 0..5 {
                assert!(member.line().starts_with("1 0 shared "));
            }
        }
    }
}

fn mosquitto(transport: &'static str) {
    for version in ["mqttv31", "mqttv311", "mqttv5"] {
        Mosquitto { everywhere: Everywhere::start(), transport, version }.tour();
    }
}

#[test]
fn mosquitto_over_tcp() {
    mosquitto("tcp");
}

#[test]
fn mosquitto_over_tls() {
    mosquitto("tls");
}

#[test]
fn mosquitto_sees_properties_of_mqtt_5() {
    let mosquitto = Mosquitto { everywhere: Everywhere::start(), transport: "tcp", version: "mqttv5" };
    let mut subscriber = mosquitto.subscribe(&["-t", "rich", "-F", "%C %R %D %P %p"]);
    mosquitto.publish(&[
        "-t",
        "rich",
        "-m",
        "x",
        "-D",
        "publish",
        "content-type",
        "text/plain",
        "-D",
        "publish",
        "response-topic",
        "answer",
        "-D",
        "publish",
        "correlation-data",
        "c42",
        "-D",
        "publish",
        "user-property",
        "k",
        "v",
    ]);
    subscriber.expect("text/plain answer c42 k:v x");
}

/// rumqttc, over one transport.
fn rumqttc_tour(transport: &str) {
    use rumqttc::{Client, Event, LastWill, MqttOptions, Packet, QoS, TlsConfiguration, Transport};

    let everywhere = Everywhere::start();
    let address = everywhere.address(transport);
    let options = |id: &str| {
        let mut options = MqttOptions::new(id, "localhost", address.port());
        if transport == "tls" {
            let pem = std::fs::read(&everywhere.authority).expect("the authority");
            options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(tls(&pem).into())));
        }
        options.set_keep_alive(Duration::from_secs(30)).set_max_packet_size(1 << 20, 1 << 20);
        options
    };
    let next = |connection: &mut rumqttc::Connection| loop {
        match connection.recv_timeout(SOON).expect("an event soon") {
            Ok(Event::Incoming(packet)) => return packet,
            Ok(Event::Outgoing(_)) => {}
            Err(error) => panic!("{error}"),
        }
    };
    let message = |connection: &mut rumqttc::Connection| loop {
        if let Packet::Publish(publish) = next(connection) {
            return publish;
        }
    };

    let (watcher, mut watching) = Client::new(options("watcher"), 100);
    watcher.subscribe("r/#", QoS::ExactlyOnce).expect("queued");
    while !matches!(next(&mut watching), Packet::SubAck(_)) {}
    let (publisher, mut publishing) = Client::new(options("publisher"), 100);
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        publisher.publish("r/qos", qos, false, vec![b'x'; 1000]).expect("queued");
        match qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => while !matches!(next(&mut publishing), Packet::PubAck(_)) {},
            QoS::ExactlyOnce => while !matches!(next(&mut publishing), Packet::PubComp(_)) {},
        }
        if qos == QoS::AtMostOnce {
            // Nothing answers QoS 0: it is out when the connection has been polled up to the next answer.
            publisher.subscribe("elsewhere", QoS::AtMostOnce).expect("queued");
            while !matches!(next(&mut publishing), Packet::SubAck(_)) {}
        }
        let got = message(&mut watching);
        assert_eq!((got.topic.as_str(), got.qos, got.payload.len()), ("r/qos", qos, 1000));
    }

    let mut mortal = options("mortal");
    mortal.set_last_will(LastWill::new("r/will", "gone", QoS::AtLeastOnce, false));
    let (_mortal, mut dying) = Client::new(mortal, 10);
    assert!(matches!(next(&mut dying), Packet::ConnAck(_)));
    drop(dying);
    assert_eq!(&message(&mut watching).payload[..], b"gone");

    let mut away = options("away");
    away.set_clean_session(false);
    let (client, mut connection) = Client::new(away.clone(), 10);
    client.subscribe("queue", QoS::AtLeastOnce).expect("queued");
    while !matches!(next(&mut connection), Packet::SubAck(_)) {}
    drop(connection);
    publisher.publish("queue", QoS::AtLeastOnce, true, "waiting").expect("queued");
    while !matches!(next(&mut publishing), Packet::PubAck(_)) {}
    let (_client, mut connection) = Client::new(away, 10);
    assert!(matches!(next(&mut connection), Packet::ConnAck(ack) if ack.session_present));
    assert_eq!(&message(&mut connection).payload[..], b"waiting");

    let (late, mut arriving) = Client::new(options("late"), 10);
    late.subscribe("queue", QoS::AtLeastOnce).expect("queued");
    assert!(message(&mut arriving).retain);
}

pub(crate) fn tls(authority: &[u8]) -> rustls::ClientConfig {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;

    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority).expect("PEM")).expect("a certificate");
    let provider = rustls::crypto::ring::default_provider().into();
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

#[test]
fn rumqttc_over_tcp() {
    rumqttc_tour("tcp");
}

#[test]
fn rumqttc_over_tls() {
    rumqttc_tour("tls");
}
