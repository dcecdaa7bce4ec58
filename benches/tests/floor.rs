//! The program against its own floor, as somebody types it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_turnpike-bench");

/// The floor as a process; ends with the test.
struct Floor {
    child: Child,
    address: String,
}

impl Floor {
    fn start() -> Self {
        let mut child = Command::new(PROGRAM)
            .args(["floor", "--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let (_, address) = line.trim().rsplit_once("address=").expect("an address");
        Self { child, address: address.to_owned() }
    }

    fn bench(&self, arguments: &str) -> Output {
        Command::new(PROGRAM)
            .args(arguments.split(' '))
            .args(["--address", &self.address, "--broker-pid", &self.child.id().to_string()])
            .output()
            .expect("it runs")
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn it_measures_its_own_floor() {
    let floor = Floor::start();
    let said = text(&floor.bench("pair --qos 1 --seconds 0.2 --warmup 0.05"));
    assert!(said.contains("0 lost, 0 repeated, 0 out of order") && said.contains("broker CPU"), "{said}");
    assert!(said.contains("p99.9"), "{said}");
}

#[test]
fn several_processes_share_the_work() {
    let floor = Floor::start();
    let said = text(&floor.bench("pair --processes 3 --sources 2 --publishers 7 --seconds 0.2 --warmup 0.05"));
    assert!(said.contains("0 lost, 0 repeated, 0 out of order") && said.contains("3 processes"), "{said}");
}

#[test]
fn idle_connections_are_counted() {
    let floor = Floor::start();
    let said = text(&floor.bench("idle --publishers 30 --seconds 0.1"));
    assert!(said.contains("connected     30 in") && said.contains("bytes a connection"), "{said}");
}

#[test]
fn results_are_files_for_programs_and_people() {
    let floor = Floor::start();
    let folder = tempfile::tempdir().expect("a folder");
    let (json, html) = (folder.path().join("r.json"), folder.path().join("r.html"));
    let arguments = format!("fanout --seconds 0.6 --warmup 0.1 --json {} --html {}", json.display(), html.display());
    text(&floor.bench(&arguments));
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(json).expect("a file")).expect("a JSON document");
    assert_eq!(json["run"]["scenario"], "fanout");
    assert_eq!(json["faults"]["lost"], 0);
    assert!(json["measured"]["latency_us"]["p99"].as_f64().is_some_and(|us| us > 0.0), "{json}");
    let html = std::fs::read_to_string(html).expect("a file");
    assert!(html.matches("<svg").count() >= 3, "plots of rate, latency, memory");
    assert!(!html.contains("http://") || html.matches("http://").count() == html.matches("http://www.w3.org").count());
}

#[test]
fn a_broker_that_is_not_there_is_an_error() {
    let output =
        Command::new(PROGRAM).args(["pair", "--seconds", "0.1", "--address", "127.0.0.1:1"]).output().expect("it runs");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("refused"), "it says why");
}
