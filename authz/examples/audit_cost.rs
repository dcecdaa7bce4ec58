//! What a log-in costs the audit: on the shard (encoding), on the writer (the chain), and who verifies it.

#![allow(clippy::print_stdout, missing_docs)]

use std::time::{Duration, Instant};

use turnpike_authz::audit::chain::{ChainKey, Link, Verifier};
use turnpike_authz::audit::{Action, Event, Key, Outcome, Subject, Value, client};
use turnpike_authz::secret::MasterKey;
use turnpike_core::gate::DeviceIdentity;

const RECORDS: usize = 200_000;

fn main() {
    let key = ChainKey::new(&MasterKey::new([7; 32]));
    let identity = DeviceIdentity::new("a1B2c3D4e5F", "serial-00000001");
    let event = Event {
        at_ms: 1_700_000_000_000,
        actor: Subject::identity(&identity),
        source: Some(([10, 1, 2, 3], 45678).into()),
        action: Action::LogIn,
        target: None,
        outcome: Outcome::Ok,
        details: &[(Key::Client, Value::Id(client("a1B2c3D4e5F.serial-00000001"))), (Key::Tls, Value::Flag(true))],
    };
    let say = |what: &str, spent: Duration| println!("{what}: {:.0} ns", spent.as_secs_f64() * 1e9 / RECORDS as f64);
    let (mut body, mut start) = (Vec::new(), Instant::now());
    for _ in 0..RECORDS {
        body.clear();
        event.encode(&mut body);
    }
    say("encoding a log-in", start.elapsed());
    let (mut link, mut lines) = (Link::START, Vec::new());
    link.begin_segment(&key, b"\"time\":1,\"actor\":\"broker\"", &mut lines);
    start = Instant::now();
    for _ in 1..RECORDS {
        link.append(&key, &body, &mut lines);
    }
    say("chaining it", start.elapsed());
    println!("a record: {} bytes", lines.len() / RECORDS);
    let keys = [key];
    let mut verifier = Verifier::new(&keys);
    start = Instant::now();
    for line in lines.trim_ascii_end().split(|byte| *byte == b'\n') {
        verifier.line(line).expect("whole");
    }
    say("verifying it", start.elapsed());
}
