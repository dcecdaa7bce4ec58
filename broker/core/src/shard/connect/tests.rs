use std::collections::BTreeSet;

use turnpike_mqtt::ConnectProperties;

use super::*;
use crate::counters::Counters;
use crate::limits::Limits;
use crate::shard::testing::{everything_is_allowed, nobody_is_challenged, peer, several};

const SHARDS: u16 = 7;
const NOW: Now = Now { mono_ms: 1, unix_ms: 1_700_000_000_000 };

/// Lets everybody in as whom the user name says to be.
struct Named;

impl Gate for Named {
    fn authenticate(&self, attempt: &Attempt<'_>, _: Now, _: [u8; 32]) -> Verdict {
        let client_id = attempt.user_name.map(Box::from);
        Verdict::Granted(Admission { client_id, ..Admission::new(Principal::Anonymous) })
    }

    nobody_is_challenged!();

    everything_is_allowed!();
}

fn shards() -> Vec<Shard<Named>> {
    several(SHARDS, &Arc::new(Named), Limits::default(), NOW).0
}

/// Logs in on the first shard, and on the one that it is sent to. The CONNACK's bytes.
fn log_in(shards: &mut [Shard<Named>], client_id: &str, lasting: Option<&str>) -> Vec<u8> {
    let connect = Connect {
        version: Version::V311,
        bridge: false,
        clean_start: true,
        keep_alive_s: 0,
        client_id,
        will: None,
        user_name: lasting,
        password: None,
        properties: ConnectProperties::default(),
    };
    let mut bytes = Vec::new();
    encode(Version::V311, &Packet::Connect(Box::new(connect)), &mut bytes);
    let mut at = 0;
    for _ in 0..2 {
        let shard = &mut shards[at];
        let conn = shard.open(peer(false), NOW).expect("room");
        match shard.receive(conn, &bytes, NOW).next {
            Next::Move(to) => {
                shard.closed(conn, NOW);
                at = usize::from(to.0);
            }
            Next::Continue | Next::Ending | Next::Pause => return shard.output(conn).bytes.to_vec(),
        }
    }
    panic!("sent on twice");
}

fn total(shards: &[Shard<Named>], of: impl Fn(&Counters) -> u64) -> u64 {
    shards.iter().map(|shard| of(&shard.counters())).sum()
}

const ACCEPTED: [u8; 4] = [0x20, 2, 0, 0];

#[test]
fn a_client_id_that_changes_at_each_log_in_is_one_session() {
    for (ends, lasting) in [
        (["|securemode=3,timestamp=1795231143|", "|securemode=3,timestamp=1795231144|", "|"], "p&d"),
        (["_0_1_2025041401", "_0_0_2025041402", "_0_1_2026010100"], "p_d"),
    ] {
        let mut shards = shards();
        for (before, end) in ends.into_iter().enumerate() {
            assert_eq!(log_in(&mut shards, &format!("{lasting}{end}"), Some(lasting)), ACCEPTED);
            assert_eq!(total(&shards, |counters| counters.sessions), 1);
            assert_eq!(total(&shards, |counters| counters.taken_over), before as u64);
        }
        // Without the gate's word for it, they are different clients.
        for end in ends {
            assert_eq!(log_in(&mut shards, &format!("{lasting}{end}"), None), ACCEPTED);
        }
        assert_eq!(total(&shards, |counters| counters.sessions), 4);
    }
}

#[test]
fn a_session_that_is_at_home_elsewhere_is_refused() {
    let mut shards = shards();
    let elsewhere: Vec<String> =
        (0..50).map(|n| format!("d{n}")).filter(|id| home(id, SHARDS) != home("d", SHARDS)).collect();
    assert!(elsewhere.len() > 20);
    for other in &elsewhere {
        assert_eq!(log_in(&mut shards, "d|x|", Some(other)), [0x20, 2, 0, 2]);
    }
    assert_eq!(total(&shards, |counters| counters.sessions), 0);
}

#[test]
fn what_sdks_change_in_a_client_id_moves_nobody() {
    let homes: BTreeSet<u16> = (0..100).map(|n| home(&format!("{n}"), SHARDS).0).collect();
    assert_eq!(homes.len(), usize::from(SHARDS));
    for id in ["a", "p.d", "6203cc94c7fb24029b110408_88888888", "a_0_0_20250414", "é"] {
        for end in ["|x", "|", "|a|b", "_0_1_2025041401", "_0_0_2025041401_0_1_2025041402", "_0_0_2025041401|x"] {
            assert_eq!(home(&format!("{id}{end}"), SHARDS), home(id, SHARDS), "{id}{end}");
        }
    }
    for odd in ["|", "||", "", "_0_0_2025041401", "_0_0_2025041401_0_0_2025041401"] {
        assert_eq!(home(odd, SHARDS), home("", SHARDS), "{odd}");
    }
}
