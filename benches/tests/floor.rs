//! The load against the floor, both in this process and as programs.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use turnpike_bench::floor::Floor;
use turnpike_bench::load::Load;
use turnpike_bench::spec::{Scenario, Spec};
use turnpike_mqtt::{QoS, Version};

fn spec(address: std::net::SocketAddr, scenario: Scenario, qos: QoS, version: Version) -> Spec {
    Spec {
        scenario,
        address,
        publishers: if scenario == Scenario::FanOut { 1 } else { 3 },
        subscribers: if scenario == Scenario::FanIn { 1 } else { 3 },
        qos,
        version,
        window: 5,
        payload: 64,
        warmup: Duration::from_millis(20),
        duration: Duration::from_millis(100),
        keep_alive_s: 60,
        connecting_max: 2,
        broker_pid: None,
        device: None,
    }
}

#[test]
fn nothing_is_lost_on_the_way_through_the_floor() {
    let floor = Floor::bind("127.0.0.1:0".parse().expect("an address")).expect("bound");
    let address = floor.address().expect("an address");
    std::thread::spawn(move || floor.run());
    for scenario in [Scenario::Pair, Scenario::FanIn, Scenario::FanOut] {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
            for version in [Version::V311, Version::V5] {
                let spec = spec(address, scenario, qos, version);
                let outcome = Load::new(&spec).expect("epoll").run().expect("a run");
                assert!(outcome.deliveries > 0, "{spec:?}");
                assert_eq!((outcome.lost, outcome.repeated), (0, 0), "{spec:?}");
                assert_eq!(outcome.latency_us.len(), outcome.deliveries);
                assert_eq!(outcome.connections, spec.publishers + spec.subscribers);
            }
        }
    }
}

#[test]
fn idle_connections_are_counted() {
    let floor = Floor::bind("127.0.0.1:0".parse().expect("an address")).expect("bound");
    let address = floor.address().expect("an address");
    std::thread::spawn(move || floor.run());
    let mut spec = spec(address, Scenario::Idle, QoS::AtMostOnce, Version::V311);
    spec.broker_pid = Some(std::process::id());
    let outcome = Load::new(&spec).expect("epoll").run().expect("a run");
    assert_eq!((outcome.connections, outcome.deliveries), (6, 0));
    assert!(outcome.broker_bytes.is_some() && outcome.connecting.1.is_some());
}

#[test]
fn the_program_measures_its_own_floor() {
    let program = env!("CARGO_BIN_EXE_turnpike-bench");
    let mut floor = Command::new(program)
        .args(["floor", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut line = String::new();
    BufReader::new(floor.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    let (_, address) = line.trim().rsplit_once("address=").expect("an address");
    let output = Command::new(program)
        .args(["pair", "--qos", "1", "--seconds", "0.2", "--warmup", "0.05", "--address", address])
        .args(["--broker-pid", &floor.id().to_string()])
        .output()
        .expect("it runs");
    let _ = floor.kill();
    let _ = floor.wait();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("lost          0, repeated 0") && text.contains("broker CPU"), "{text}");
}

#[test]
fn a_broker_that_is_not_there_is_an_error() {
    let output = Command::new(env!("CARGO_BIN_EXE_turnpike-bench"))
        .args(["pair", "--seconds", "0.1", "--address", "127.0.0.1:1"])
        .output()
        .expect("it runs");
    assert!(!output.status.success());
}
