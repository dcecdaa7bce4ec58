use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use turnpike_mqtt::{Auth, AuthProperties, Disconnect, Packet, Version, decode, encode, frame};

use super::*;
use crate::gate::{Admission, Attempt, Principal, Verdict};
use crate::limits::Limits;
use crate::shard::Next;
use crate::shard::testing::{alone, everything_is_allowed, nobody_is_challenged, peer};

const START: Now = Now { mono_ms: 1_000, unix_ms: 1_700_000_000_000 };
const FOREVER: u64 = u64::MAX;

/// Lets everybody in until a time that can be changed; [`FOREVER`] is without an end.
struct Until(AtomicU64);

impl Gate for Until {
    fn authenticate(&self, _: &Attempt<'_>, _: Now, _: [u8; 32]) -> Verdict {
        let until_ms = Some(self.0.load(Ordering::Relaxed)).filter(|until_ms| *until_ms != FOREVER);
        Verdict::Granted(Admission { until_ms, ..Admission::new(Principal::Anonymous) })
    }
    nobody_is_challenged!();
    everything_is_allowed!();
}

struct World {
    shard: Shard<Until>,
    gate: Arc<Until>,
    conn: ConnId,
    version: Version,
}

fn later(ms: u64) -> Now {
    Now { mono_ms: START.mono_ms + ms, unix_ms: START.unix_ms + ms }
}

/// A client whose authentication is good for so long, and whose CONNECT is taken.
fn world(version: Version, good_for_ms: u64) -> World {
    let gate = Arc::new(Until(AtomicU64::new(START.unix_ms.saturating_add(good_for_ms))));
    let mut shard = alone(&gate, Limits::default(), START);
    let conn = shard.open(peer(true), START).expect("room");
    // Keep alive 0, clean start, client id `c`; in MQTT 5 with an authentication method `M`.
    let connect: &[u8] = match version {
        Version::V5 => b"\x10\x12\x00\x04MQTT\x05\x02\x00\x00\x04\x15\x00\x01M\x00\x01c",
        _ => b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01c",
    };
    let _ = shard.receive(conn, connect, START);
    World { shard, gate, conn, version }
}

impl World {
    /// What has been said to the client, and whether it is closed then.
    fn said(&mut self, now: Now) -> (Vec<Vec<u8>>, bool) {
        let output = self.shard.output(self.conn);
        let (mut bytes, close) = (output.bytes.to_vec(), output.close);
        self.shard.wrote(self.conn, bytes.len(), now);
        let mut packets = Vec::new();
        while let Ok(Some(found)) = frame(&bytes, u32::MAX) {
            let rest = bytes.split_off(found.len());
            packets.push(std::mem::replace(&mut bytes, rest));
        }
        (packets, close)
    }

    /// Ticks as the shell would, until a moment.
    fn run_until(&mut self, end: Now) {
        while let Some(at_ms) = self.shard.next_deadline().filter(|at_ms| *at_ms <= end.mono_ms) {
            // The wheel may ask for a moment that has passed.
            self.shard.tick(later(at_ms.saturating_sub(START.mono_ms)));
        }
        self.shard.tick(end);
    }

    fn prove_again(&mut self, now: Now) -> Next {
        let properties = AuthProperties { method: Some("M"), ..AuthProperties::default() };
        let mut bytes = Vec::new();
        encode(self.version, &Packet::Auth(Auth { reason: ReasonCode::ReAuthenticate, properties }), &mut bytes);
        self.shard.receive(self.conn, &bytes, now).next
    }
}

fn is_disconnect(bytes: &[u8], reason: ReasonCode) -> bool {
    let Ok(Some(found)) = frame(bytes, u32::MAX) else { return false };
    matches!(decode(Version::V5, found), Ok(Packet::Disconnect(Disconnect { reason: said, .. })) if said == reason)
}

#[test]
fn a_connection_ends_with_what_let_it_in() {
    for version in [Version::V5, Version::V311] {
        let mut world = world(version, 60_000);
        let (said, close) = world.said(START);
        assert!(!close && said.len() == 1, "CONNACK");
        world.run_until(later(59_900));
        assert_eq!(world.said(later(59_900)), (vec![], false));
        world.run_until(later(60_100));
        let (said, close) = world.said(later(60_100));
        assert!(close);
        match version {
            Version::V5 => assert!(said.len() == 1 && is_disconnect(&said[0], ReasonCode::NotAuthorized), "{said:?}"),
            _ => assert!(said.is_empty(), "MQTT 3 has no words for it"),
        }
        assert_eq!(world.shard.counters().clients, 0);
    }
}

#[test]
fn what_has_ended_lets_nobody_in() {
    for (version, refusal) in [(Version::V5, 0x87), (Version::V311, 5)] {
        let mut world = world(version, 0);
        let (said, close) = world.said(START);
        assert!(close);
        assert_eq!((said[0][0], said[0][3]), (0x20, refusal));
    }
}

#[test]
fn a_client_that_proves_itself_again_stays_and_has_one_timer() {
    let mut world = world(Version::V5, 60_000);
    let _ = world.said(START);
    let timers = world.shard.wheel.len();
    for n in 1..100 {
        world.gate.0.store(START.unix_ms + 60_000 + n * 1_000, Ordering::Relaxed);
        assert_eq!(world.prove_again(later(n)), Next::Continue);
        let (said, close) = world.said(later(n));
        assert!(!close && said.len() == 1, "AUTH with success");
    }
    assert_eq!(world.shard.wheel.len(), timers);
    world.run_until(later(158_900));
    assert_eq!(world.said(later(158_900)), (vec![], false));
    world.run_until(later(159_100));
    assert!(world.said(later(159_100)).1);
}

#[test]
fn a_proof_that_ends_sooner_or_never_counts_from_then_on() {
    let mut sooner = world(Version::V5, 60_000);
    sooner.gate.0.store(START.unix_ms + 5_000, Ordering::Relaxed);
    assert_eq!(sooner.prove_again(later(1)), Next::Continue);
    let _ = sooner.said(later(1));
    sooner.run_until(later(5_100));
    assert!(sooner.said(later(5_100)).1);

    let mut never = world(Version::V5, 60_000);
    never.gate.0.store(FOREVER, Ordering::Relaxed);
    assert_eq!(never.prove_again(later(1)), Next::Continue);
    let _ = never.said(later(1));
    never.run_until(later(1_000_000));
    assert_eq!(never.said(later(1_000_000)), (vec![], false));

    let mut past = world(Version::V5, 60_000);
    past.gate.0.store(START.unix_ms, Ordering::Relaxed);
    assert_eq!(past.prove_again(later(1)), Next::Ending, "a proof that has ended is none");
}

#[test]
fn a_clock_that_was_set_back_is_waited_for() {
    let mut world = world(Version::V311, 60_000);
    let _ = world.said(START);
    let back = |ms| Now { unix_ms: START.unix_ms + ms - 30_000, ..later(ms) };
    world.shard.tick(back(60_100));
    assert_eq!(world.said(later(60_100)), (vec![], false));
    world.shard.tick(back(90_200));
    assert!(world.said(later(90_200)).1);
}
