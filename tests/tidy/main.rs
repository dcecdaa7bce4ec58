//! What a compiler doesn't check: the purity of the pure crates, the directions of dependencies, the length of files and functions,
//! and that every normative statement of the specification is cited in the code or waived.

mod source;
mod statements;

use std::collections::{BTreeMap, BTreeSet};

use source::{File, files, manifest, workspace};

/// Crates that are given time and randomness and own no resource.
const PURE: &[&str] = &["broker/mqtt", "broker/core", "broker/backfill", "authz", "ota"];

#[test]
fn pure_crates_hold_no_runtime_clock_socket_thread_or_randomness() {
    const FORBIDDEN: &[(&str, &str)] = &[
        ("tokio", "a runtime"),
        ("async fn", "a runtime"),
        ("mio::", "sockets"),
        ("TcpStream", "a socket"),
        ("TcpListener", "a socket"),
        ("UdpSocket", "a socket"),
        ("UnixStream", "a socket"),
        ("std::fs", "files"),
        ("Instant::now", "a clock"),
        ("SystemTime::now", "a clock"),
        ("time::Instant", "a clock"),
        ("time::SystemTime", "a clock"),
        ("thread::spawn", "threads"),
        ("thread::sleep", "a clock"),
        ("thread_rng", "randomness"),
        ("rand::", "randomness"),
        ("getrandom", "randomness"),
        ("RandomState::new", "randomness"),
    ];
    let mut faults = Vec::new();
    for folder in PURE {
        for file in files(folder).iter().filter(|file| file.is_product()) {
            for (number, line) in file.code() {
                for (word, what) in FORBIDDEN {
                    if line.contains(word) {
                        faults.push(format!(
                            "{}:{number}: `{word}` in a pure crate: {what} must be an argument",
                            file.path
                        ));
                    }
                }
            }
        }
    }
    none(&faults);
}

#[test]
fn dependencies_point_inwards() {
    // Crate, and which crates of ours it may use.
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("broker/mqtt", &[][..]),
        ("broker/core", &["turnpike-mqtt"]),
        ("broker/store", &["turnpike-mqtt", "turnpike-core"]),
        ("broker/backfill", &["turnpike-mqtt", "turnpike-core"]),
        ("authz", &["turnpike-mqtt", "turnpike-core"]),
        ("ota", &["turnpike-mqtt", "turnpike-core", "turnpike-authz"]),
        (
            "broker",
            &[
                "turnpike-mqtt",
                "turnpike-core",
                "turnpike-store",
                "turnpike-authz",
                "turnpike-backfill",
                "turnpike-ota",
            ],
        ),
        ("benches", &["turnpike-mqtt", "turnpike-core", "turnpike-authz", "turnpike-store", "turnpike-ota"]),
    ]);
    let mut faults = Vec::new();
    for (folder, ours) in &allowed {
        for name in manifest(folder, &["dependencies"]) {
            if name.starts_with("turnpike") && !ours.contains(&name.as_str()) {
                faults.push(format!("{folder} must not depend on {name}"));
            }
        }
    }
    for member in workspace() {
        assert!(
            allowed.contains_key(member.as_str()) || member == "tests",
            "{member} is new: say here what it may depend on"
        );
    }
    none(&faults);
}

#[test]
fn what_only_one_crate_may_use() {
    // Only these may use it: the engine can be replaced, and so can TLS.
    const OWNERS: &[(&str, &[&str])] = &[
        ("fjall", &["broker/store"]),
        ("redb", &["broker/store"]),
        ("redis", &["broker/store"]),
        ("rustls", &["broker", "benches", "tests"]),
        ("mio", &["broker", "benches"]),
        ("axum", &["broker"]),
        ("tokio", &["broker"]),
        ("aes-gcm", &["authz", "tests"]),
        ("anyhow", &["broker", "benches"]),
    ];
    let mut faults = Vec::new();
    for folder in workspace() {
        let used: BTreeSet<String> = manifest(&folder, &["dependencies"]).into_iter().collect();
        for (name, owners) in OWNERS {
            if used.contains(*name) && !owners.contains(&folder.as_str()) {
                faults.push(format!("{folder} must not depend on {name}; only {owners:?} may"));
            }
        }
    }
    none(&faults);
}

#[test]
fn files_and_functions_are_short() {
    const FILE_LINES_MAX: usize = 700;
    const FUNCTION_LINES_MAX: usize = 130;
    let mut faults = Vec::new();
    for file in all_rust() {
        let lines = file.product_lines();
        if file.is_product() && lines > FILE_LINES_MAX {
            faults.push(format!("{}: {lines} lines before its tests, more than {FILE_LINES_MAX}", file.path));
        }
        for (name, number, length) in file.functions() {
            if length > FUNCTION_LINES_MAX {
                faults.push(format!(
                    "{}:{number}: `{name}` has {length} lines, more than {FUNCTION_LINES_MAX}",
                    file.path
                ));
            }
        }
    }
    none(&faults);
}

#[test]
fn nothing_is_left_to_do() {
    let mut faults = Vec::new();
    // Put together, so that this file doesn't find itself.
    let words =
        [["to", "do!("].concat(), ["unimple", "mented!("].concat(), ["TO", "DO"].concat(), ["FIX", "ME"].concat()];
    for file in all_rust() {
        for (number, line) in file.text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word.as_str())) && !line.trim_start().starts_with("///") {
                faults.push(format!("{}:{}: {}", file.path, number + 1, line.trim()));
            }
        }
    }
    none(&faults);
}

#[test]
fn tests_do_not_sleep_to_synchronise() {
    let mut faults = Vec::new();
    for file in all_rust() {
        if file.path == "tests/src/time.rs" || file.path == "tests/tidy/main.rs" {
            continue;
        }
        for (number, line) in file.test_code() {
            if ["thread::sleep", "time::sleep", "sleep_ms"].iter().any(|word| line.contains(word)) {
                faults.push(format!("{}:{number}: wait for an event with a deadline instead", file.path));
            }
        }
    }
    none(&faults);
}

#[test]
fn unsafe_code_says_why_it_pays() {
    let mut faults = Vec::new();
    for file in all_rust().into_iter().filter(|file| file.path != "tests/tidy/main.rs") {
        let first =
            file.text.lines().take_while(|line| line.starts_with("//!") || line.starts_with("#!")).collect::<String>();
        if file
            .code()
            .any(|(_, line)| line.contains("unsafe {") || line.contains("unsafe fn") || line.contains("unsafe impl"))
            && !first.to_lowercase().contains("unsafe")
        {
            faults.push(format!("{}: the header must say why `unsafe` pays", file.path));
        }
    }
    none(&faults);
}

fn all_rust() -> Vec<File> {
    ["broker", "authz", "benches", "tests"].iter().flat_map(|folder| files(folder)).collect()
}

#[track_caller]
fn none(faults: &[String]) {
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}
