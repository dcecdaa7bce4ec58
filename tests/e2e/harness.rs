//! The load harness against this broker: every transport, log-ins from a file, sessions that outlive a connection.

use std::fmt::Write;
use std::net::SocketAddr;
use std::process::Command;

use serde_json::Value;
use turnpike_tests::broker::{self, Broker, Setup};
use turnpike_tests::credential::{PRODUCT, SECRET};

use crate::gate::registered;

/// Runs a scenario, and gives what it wrote for programs.
#[track_caller]
fn bench(broker: &Broker, address: SocketAddr, arguments: &str) -> Value {
    let folder = tempfile::tempdir().expect("a folder");
    let json = folder.path().join("report.json");
    let output = Command::new(broker::program("turnpike-bench"))
        .args(arguments.split_ascii_whitespace())
        .args(["--address", &address.to_string(), "--seconds", "0.3", "--warmup", "0.1", "--quiet"])
        .args(["--broker-pid", &broker.pid().to_string(), "--json"])
        .arg(&json)
        .env("TURNPIKE_DEVICE_SECRET", SECRET)
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&std::fs::read(json).expect("a report")).expect("JSON")
}

#[track_caller]
fn is_whole(report: &Value) {
    let faults = &report["faults"];
    for fault in ["lost", "repeated", "out_of_order", "stalled_windows"] {
        assert_eq!(faults[fault], 0, "{fault} in {faults}");
    }
    assert_eq!(faults["failures"], serde_json::json!({}));
    assert!(report["measured"]["counts"]["delivered"].as_u64().is_some_and(|n| n > 0), "{report}");
}

#[test]
fn every_transport_and_version() {
    let broker = Setup::anonymous().listen("--mqtts").listen("--ws").start();
    let ca = broker.data().join("pki/ca.pem");
    let tls = format!("--tls --server-name localhost --ca {}", ca.display());
    for (listener, transport) in [("mqtt", ""), ("mqtts", tls.as_str()), ("ws", "--ws")] {
        for version in [3, 4, 5] {
            let arguments = format!("pair --publishers 3 --qos 2 --mqtt-version {version} {transport}");
            is_whole(&bench(&broker, broker.address(listener), &arguments));
        }
    }
}

#[test]
fn every_scenario() {
    let broker = Setup::anonymous().start();
    let run = |arguments: &str| bench(&broker, broker.mqtt(), arguments);
    for loaded in [
        "fanin --qos 1 --processes 2",
        "fanout --subscribers 5",
        "shared --qos 1 --publishers 3",
        "mixed --qos 1 --publishers 20 --rate 2000 --down-rate 100",
        "pair --qos 1 --durable --publishers 3",
    ] {
        is_whole(&run(loaded));
    }
    for qos in 0..3 {
        let retained = run(&format!("retained --qos {qos} --publishers 3 --messages 50 --subscribers 2"));
        assert_eq!((&retained["total"]["published"], &retained["total"]["delivered"]), (&150.into(), &300.into()));
    }
    let idle = run("idle --publishers 20");
    assert_eq!(idle["connecting"]["connected"], 20);
    let left = run("connect --publishers 20 --connect-rate 500 --close");
    assert_eq!((&left["connecting"]["connected"], &left["faults"]["failures"]), (&20.into(), &serde_json::json!({})));
    let offline = run("fanin --qos 1 --durable --offline --publishers 2 --subscribers 1");
    assert!(offline["measured"]["counts"]["acked"].as_u64().is_some_and(|n| n > 0), "{offline}");
}

#[test]
fn devices_sign_for_themselves() {
    let broker = registered();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("devices.csv");
    let mut csv = "product,device,secret\n".to_owned();
    for device in ["one", "two"] {
        writeln!(csv, "{PRODUCT},{device},{SECRET}").expect("a string");
    }
    std::fs::write(&file, csv).expect("written");
    for profile in ["native", "aliyun"] {
        let from_file = format!("pair --publishers 4 --profile {profile} --credentials {}", file.display());
        is_whole(&bench(&broker, broker.mqtt(), &from_file));
        let one = format!("fanin --publishers 3 --profile {profile} --product {PRODUCT} --device one");
        is_whole(&bench(&broker, broker.mqtt(), &one));
    }
}

#[test]
fn every_way_to_log_in_is_measured() {
    let mut command = Command::new(broker::program("turnpike-bench"));
    command.args(["logins", "--count", "5", "--rounds", "1", "--turnpike"]).arg(broker::program("turnpike"));
    let table = turnpike_tests::peers::run(command);
    let figures: Vec<f64> = table
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| log-in"))
        .map(|line| line.split('|').nth(2).and_then(|figure| figure.trim().parse().ok()).expect("a figure"))
        .collect();
    assert!(figures.len() == 6 && figures.iter().all(|figure| *figure > 0.0), "{table}");
}

#[test]
fn a_run_that_says_nothing_fails() {
    let broker = Setup::anonymous().start();
    let run = |arguments: &str| {
        let output = Command::new(broker::program("turnpike-bench"))
            .args(arguments.split_ascii_whitespace())
            .args(["--address", &broker.mqtt().to_string(), "--seconds", "0.2", "--warmup", "0", "--quiet"])
            .output()
            .expect("it runs");
        assert!(!output.status.success(), "{arguments}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    for (arguments, why) in [
        ("pair --topic a/#", "topic"),
        ("pair --payload 3000000 --drain 0.1", "the broker"),
        ("pair --broker-pid 4194305", "can't be measured"),
        ("idle --sources 127.0.0.9-127.0.0.2", "sources"),
    ] {
        let said = run(arguments);
        assert!(said.contains(why), "{arguments}: {said}");
    }
}
