//! What an operator relies on: signals, reload, health, metrics, `$SYS`.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Instant;

use turnpike_tests::broker::{Broker, Setup, command};
use turnpike_tests::certificate::Authority;
use turnpike_tests::client::{Client, End};
use turnpike_tests::http::Http;
use turnpike_tests::peers::{self, arg};
use turnpike_tests::time::{SOON, until};
use turnpike_tests::wire::{self, Connect, Publish, Version};

/// Its reader has gone, as it is with a full disk.
#[test]
fn a_log_that_cant_be_written_ends_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = command();
    command.args(["serve", "--anonymous", "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data"]);
    let mut broker = command.arg(folder.path()).stderr(Stdio::piped()).spawn().expect("it starts");
    let log = BufReader::new(broker.stderr.take().expect("its log"));
    let mut addresses = Vec::new();
    for line in log.lines().map_while(Result::ok) {
        let address = line.split_once("address=").filter(|_| line.contains("listening"));
        addresses.extend(address.and_then(|(_, address)| address.trim().parse::<SocketAddr>().ok()));
        if line.contains("serving") {
            break;
        }
    }
    let [mqtt, http] = addresses[..] else { panic!("{addresses:?}") };
    // The lines from here on have no reader; a signal to read the settings anew makes one.
    let pid = broker.id().to_string();
    assert!(Command::new("kill").args(["-HUP", &pid]).status().expect("kill").success());
    let http = Http { address: http, token: None };
    until("it has answered", SOON, || (http.get("/readyz").status == 200).then_some(()));
    let mut client = Client::connect(mqtt, &Connect::new(Version::V5, "one"));
    assert_eq!(client.subscribe(&[("t", 1)]), [1]);
    client.send(&Publish::new("t", "still there").encode(Version::V5));
    assert_eq!(client.take().payload, b"still there");
    assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
    assert!(broker.wait().expect("its end").success());
}

#[test]
fn sigterm_says_goodbye_and_ends_with_0() {
    let mut broker = Broker::start();
    let mut five = broker.clean(Version::V5, "five");
    let mut three = broker.clean(Version::V311, "three");
    let durable = Connect::durable(Version::V5, "durable", 1000);
    let mut watcher = broker.client(&durable);
    watcher.subscribe(&[("t", 1)]);
    let mut publisher = broker.clean(Version::V5, "publisher");
    publisher.publish(&Publish::new("t", "kept").qos(1, 1));
    let _ = watcher.publish_in();
    broker.signal(libc::SIGTERM);
    assert_eq!(five.end(), End::Disconnected(0x8b));
    assert_eq!(three.end(), End::Closed);
    assert_eq!(watcher.end(), End::Disconnected(0x8b));
    assert!(broker.wait().success(), "{}", broker.log());
    broker.restart();
    let mut watcher = broker.client(&durable);
    assert_eq!(watcher.take().text(), "kept");
}

#[test]
fn sigint_ends_it_too() {
    let mut broker = Broker::start();
    broker.signal(libc::SIGINT);
    assert!(broker.wait().success(), "{}", broker.log());
}

#[test]
fn sighup_swaps_certificates_without_dropping_a_connection() {
    let folder = tempfile::tempdir().expect("a folder");
    let old = Authority::new(folder.path(), "old");
    let new = Authority::new(folder.path(), "new");
    let identity = old.sign("broker");
    let broker = Setup::listeners(&["mqtts", "mqtt"], &identity).flag("--anonymous").start();
    let port = broker.address("mqtts").port().to_string();
    let publish = |authority: &Authority| {
        let mut command = peers::mosquitto("mosquitto_pub");
        command.args([
            "-h",
            "localhost",
            "-p",
            &port,
            "--cafile",
            &arg(&authority.certificate),
            "-t",
            "t",
            "-m",
            "x",
            "-q",
            "1",
        ]);
        command.output().expect("mosquitto_pub").status.success()
    };
    assert!(publish(&old));
    assert!(!publish(&new));
    let mut plain = broker.clean(Version::V5, "plain");
    plain.subscribe(&[("t", 0)]);
    let replacement = new.sign("broker");
    assert_eq!(replacement.certificate, identity.certificate, "the same files");
    broker.signal(libc::SIGHUP);
    until("the new certificate is served", SOON, || publish(&new).then_some(()));
    assert!(!publish(&old));
    assert!(plain.drain().iter().all(|packet| matches!(packet, wire::Packet::Publish(_))), "still connected");
}

#[test]
fn health_readiness_and_metrics_need_no_token_and_the_api_does() {
    let broker = Broker::start();
    let stranger = Http { address: broker.address("http"), token: None };
    for path in ["/healthz", "/readyz", "/metrics", "/api/openapi.json"] {
        assert_eq!(stranger.get(path).status, 200, "{path}");
    }
    assert_eq!(stranger.get("/api/v1/products").status, 401);
    let guesser = Http { token: Some("wrong".to_owned()), ..stranger.clone() };
    assert_eq!(guesser.get("/api/v1/products").status, 401);
    assert_eq!(broker.http().get("/api/v1/products").status, 200);
    assert_eq!(stranger.get("/nothing/here").status, 404);
    let document = stranger.get("/api/openapi.json").json();
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with('3')));
}

#[test]
fn metrics_count_what_happens_and_name_nobody() {
    let broker = Broker::start();
    let mut client = broker.clean(Version::V5, "very-private-client-id");
    client.subscribe(&[("very/private/topic", 1)]);
    for n in 1..=5 {
        client.send(&Publish::new("very/private/topic", "x").qos(1, n).encode(Version::V5));
        let _ = client.take_either();
        let _ = client.take_either();
    }
    let _ = Client::open(broker.mqtt(), &Connect::new(Version::V311, "").clean(false));
    let metrics = broker.http().get("/metrics").body;
    assert!(!metrics.contains("very-private-client-id") && !metrics.contains("very/private"), "{metrics}");
    for part in ["connections", "connects", "messages", "bytes", "queue", "commit", "turn"] {
        let family = metrics.lines().any(|line| line.starts_with("# TYPE turnpike_") && line.contains(part));
        assert!(family, "no family about {part} in:\n{metrics}");
    }
    for line in metrics.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let value = line.rsplit(' ').next().expect("a value");
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
}

#[test]
fn sys_topics_tell_the_state() {
    let broker = Broker::start();
    let mut client = broker.clean(Version::V311, "operator");
    client.subscribe(&[("$SYS/#", 0)]);
    let begin = Instant::now();
    let mut seen = Vec::new();
    while begin.elapsed() < SOON && !seen.iter().any(|topic: &String| topic.contains("connected")) {
        seen.push(client.take().topic);
    }
    assert!(seen.iter().any(|topic| topic.contains("clients/connected")), "{seen:?}");
}

#[test]
fn faults_of_a_configuration_are_all_listed() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("bad.toml");
    let text = "nonsense = 1\n[limits]\nreceive_max = 0\npacket_bytes_max = 0\nno_such_limit = 5\n";
    std::fs::write(&file, text).expect("written");
    let output = command().arg("check").arg("--config").arg(&file).output().expect("it runs");
    assert_eq!(output.status.code(), Some(64));
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    for part in ["bad.toml", "nonsense", "receive_max", "packet_bytes_max", "no_such_limit"] {
        assert!(said.contains(part), "{part} isn't mentioned: {said}");
    }
    std::fs::write(&file, "").expect("written");
    assert!(command().arg("check").arg("--config").arg(&file).status().expect("it runs").success());
}

#[test]
fn anonymous_is_refused_beyond_loopback() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = command()
        .args(["serve", "--anonymous", "--mqtt", "0.0.0.0:0", "--data"])
        .arg(folder.path())
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(64), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn an_admin_token_is_made_and_kept_where_none_is_given() {
    use std::os::unix::fs::PermissionsExt;

    let broker = Setup::anonymous().env("TURNPIKE_ADMIN_TOKEN", "").start();
    let file = std::fs::read_dir(broker.data())
        .expect("the data folder")
        .map_while(Result::ok)
        .find(|entry| entry.file_name().to_string_lossy().contains("token"))
        .expect("a file with the token");
    let mode = file.metadata().expect("metadata").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let token = std::fs::read_to_string(file.path()).expect("readable").trim().to_owned();
    let http = Http { address: broker.address("http"), token: Some(token.clone()) };
    assert_eq!(http.get("/api/v1/products").status, 200);
    assert!(!broker.log().contains(&token), "the token is in the log");
}

/// A folder and whatever is below it.
fn below(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = vec![folder.to_owned()];
    for entry in std::fs::read_dir(folder).expect("a folder").map_while(Result::ok) {
        match entry.file_type().expect("a type").is_dir() {
            true => found.extend(below(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found
}

#[test]
fn nobody_else_can_read_what_is_in_the_data_folder() {
    use std::os::unix::fs::PermissionsExt;

    let mut broker = Broker::start();
    let mut client = broker.client(&Connect::durable(Version::V5, "durable", 1000));
    client.subscribe(&[("t", 1)]);
    let _ = broker.http().put("/api/v1/products/lamp", "{}");
    let files = below(&broker.data());
    assert!(files.iter().any(|file| file.extension().is_some_and(|ending| ending == "jnl")), "{files:?}");
    for file in files {
        let mode = std::fs::metadata(&file).expect("there").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}: {mode:o}", file.display());
    }
    broker.stop();
    std::fs::set_permissions(broker.data(), PermissionsExt::from_mode(0o755)).expect("ours");
    broker.restart();
    broker.wait_for_log("others could read the data folder");
    assert_eq!(std::fs::metadata(broker.data()).expect("there").permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_disk_that_is_full_from_the_first_start_on_keeps_nothing_but_readiness() {
    // More than any disk has free, so the store takes nothing, not even that there is an audit.
    let full = "drain_timeout_s = 1\n[store]\nfree_bytes_min = 9_000_000_000_000_000_000\n";
    let mut broker = Setup::closed().config(full).not_ready().start();
    let http = broker.http();
    let ready = until("it isn't ready", SOON, || Some(http.get("/readyz")).filter(|ready| ready.status == 503));
    assert!(ready.body.contains("store"), "{}", ready.body);
    assert_eq!(http.get("/healthz").status, 200);
    assert_eq!(http.get("/api/v1/products").status, 200);
    broker.signal(libc::SIGTERM);
    broker.wait();
}

#[test]
fn a_broker_that_runs_out_of_descriptors_sheds_and_stays_in_reach() {
    let broker = Setup::anonymous().descriptors_max(300).start();
    broker.wait_for_log("connections_max");
    let mut bystander = broker.clean(Version::V5, "bystander");
    // Each is answered, or closed; none hangs.
    let mut clients: Vec<_> = (0..400)
        .map(|n| {
            let mut client = Client::raw(broker.mqtt(), Version::V311);
            let sent = client.try_send(&Connect::new(Version::V311, &format!("many{n}")).encode());
            (client, sent)
        })
        .collect();
    let shed =
        clients.iter_mut().map(|(client, sent)| !*sent || client.recv_or_end().is_none()).filter(|shed| *shed).count();
    assert!((100..400).contains(&shed), "{shed} of 400 shed");
    assert_eq!(broker.http().get("/healthz").status, 200);
    let metrics = broker.http().get("/metrics").body;
    let line = metrics.lines().find(|line| line.starts_with("turnpike_connections_shed_total")).expect("the metric");
    assert_eq!(line.rsplit(' ').next().and_then(|count| count.parse::<usize>().ok()), Some(shed));
    bystander.quiet();
    drop(clients);
    until("there is room again", SOON, || {
        let mut client = Client::raw(broker.mqtt(), Version::V311);
        let sent = client.try_send(&Connect::new(Version::V311, "later").encode());
        (sent && client.recv_or_end().is_some()).then_some(())
    });
}
