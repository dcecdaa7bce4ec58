//! Workers as threads, against the floor on a port of its own.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use turnpike_mqtt::{QoS, Version};

use crate::conduct::{self, Report};
use crate::floor::Floor;
use crate::spec::{Pace, Scenario, Spec};
use crate::workers::Workers;

fn floor() -> SocketAddr {
    let floor = Floor::bind("127.0.0.1:0".parse().expect("an address")).expect("bound");
    let address = floor.address().expect("bound");
    thread::spawn(move || floor.run());
    address
}

fn spec(scenario: Scenario, publishers: usize, subscribers: usize, qos: QoS) -> Spec {
    Spec {
        publishers,
        subscribers,
        qos,
        warmup: Duration::from_millis(50),
        duration: Duration::from_millis(300),
        ..Spec::new(scenario, floor())
    }
}

#[track_caller]
fn run(spec: Spec) -> Report {
    let spec = spec.check().expect("it can be run");
    let workers = Workers::threads(&spec).expect("workers");
    conduct::run(&spec, None, workers, false).expect("a run")
}

/// Everything that was sent has come, once and in order.
#[track_caller]
fn is_whole(report: &Report) {
    let outcome = &report.outcome;
    assert!(outcome.measured.delivered > 0, "{outcome:?}");
    assert_eq!(outcome.total.delivered, outcome.total.published * report.spec.copies() as u64);
    assert_eq!((outcome.lost(report.spec.copies()), outcome.repeated, outcome.reordered, outcome.stalls), (0, 0, 0, 0));
    assert!(outcome.failures.is_empty(), "{:?}", outcome.failures);
    assert!(outcome.latency.count() > 0);
}

#[test]
fn pairs_get_what_is_sent() {
    for (qos, version) in [(QoS::AtMostOnce, Version::V311), (QoS::AtLeastOnce, Version::V5)] {
        let report = run(Spec { version, ..spec(Scenario::Pair, 5, 5, qos) });
        is_whole(&report);
        let acked = if qos == QoS::AtMostOnce { 0 } else { report.outcome.total.published };
        assert_eq!(report.outcome.total.acked, acked);
        assert_eq!(report.outcome.connecting.count(), 10);
    }
}

#[test]
fn many_to_one_and_one_to_many() {
    is_whole(&run(spec(Scenario::FanIn, 7, 1, QoS::AtLeastOnce)));
    is_whole(&run(spec(Scenario::FanOut, 1, 7, QoS::AtMostOnce)));
    is_whole(&run(Spec { processes: 2, ..spec(Scenario::FanOut, 1, 7, QoS::AtLeastOnce) }));
    is_whole(&run(Spec { processes: 3, ..spec(Scenario::Pair, 7, 7, QoS::AtMostOnce) }));
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let report = run(Spec {
        pace: Pace::Rate(2000.0),
        warmup: Duration::ZERO,
        duration: Duration::from_millis(500),
        ..spec(Scenario::Pair, 3, 3, QoS::AtLeastOnce)
    });
    is_whole(&report);
    let published = report.outcome.total.published;
    assert!((900..=1001).contains(&published), "{published} of 1000 in half a second");
    assert!(report.outcome.unsent <= 1000 - published.min(1000));
}

#[test]
fn connections_come_and_go() {
    let idle = Spec { keep_alive_s: 1, ..spec(Scenario::Idle, 50, 0, QoS::AtMostOnce) };
    let report = run(idle.clone());
    assert_eq!((report.outcome.connecting.count(), report.outcome.total.ready), (50, 50));
    let mut ramp = Spec { scenario: Scenario::Connect, publishers: 20, ..idle };
    (ramp.connecting.rate, ramp.connecting.close) = (Some(200.0), true);
    let report = run(ramp);
    assert_eq!(report.outcome.connecting.count(), 20);
    assert!(report.connecting.elapsed >= Duration::from_millis(90), "{:?}", report.connecting.elapsed);
}

#[test]
fn who_is_not_there_is_told() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("bound").local_addr().expect("an address");
    let spec = Spec { address: nobody, ..spec(Scenario::Pair, 1, 1, QoS::AtMostOnce) };
    let workers = Workers::threads(&spec).expect("workers");
    let error = conduct::run(&spec, None, workers, false).expect_err("nobody listens").to_string();
    assert!(error.contains("refused"), "{error}");
}
