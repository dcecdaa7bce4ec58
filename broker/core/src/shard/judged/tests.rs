use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use turnpike_mqtt::{Connect, ConnectProperties, ConnectReason, Packet, TopicFilter, TopicName, Version, encode};

use crate::clock::Now;
use crate::gate::{Admission, Attempt, ChallengeState, Gate, Principal, Verdict};
use crate::ids::ShardId;
use crate::limits::Limits;
use crate::shard::{Peer, Setup, Shard};
use crate::shared::Shared;

/// Lets in whoever has a name, and counts how often it was told to keep what it knows.
#[derive(Default)]
struct Counting(AtomicUsize);

impl Gate for Counting {
    fn authenticate(&self, attempt: &Attempt<'_>, _: Now, _: [u8; 32]) -> Verdict {
        match attempt.user_name {
            Some(_) => Verdict::Granted(Admission::new(Principal::Anonymous)),
            None => Verdict::Refused(ConnectReason::NotAuthorized, "nameless"),
        }
    }

    fn proceed(&self, attempt: &Attempt<'_>, _: &ChallengeState, _: &[u8], now: Now) -> Verdict {
        self.authenticate(attempt, now, [0; 32])
    }

    fn keep_judged(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    fn may_publish(&self, _: &Principal, _: TopicName<'_>) -> bool {
        true
    }

    fn may_subscribe(&self, _: &Principal, _: TopicFilter<'_>) -> bool {
        true
    }

    fn still_welcome(&self, _: &Principal) -> bool {
        true
    }
}

fn connect(client_id: &str, user_name: Option<&str>) -> Vec<u8> {
    let connect = Connect {
        version: Version::V5,
        bridge: false,
        clean_start: true,
        keep_alive_s: 1,
        client_id,
        will: None,
        user_name,
        password: None,
        properties: ConnectProperties::default(),
    };
    let mut bytes = Vec::new();
    encode(Version::V5, &Packet::Connect(Box::new(connect)), &mut bytes);
    bytes
}

#[test]
fn what_a_turn_has_judged_is_kept_once_and_before_it_is_heard() {
    let now = Now { mono_ms: 0, unix_ms: 1_700_000_000_000 };
    let (gate, limits) = (Arc::new(Counting::default()), Arc::new(Limits::default()));
    let mut shard = Shard::new(Setup {
        id: ShardId(0),
        shards: 1,
        shared: Arc::new(Shared::new(&limits)),
        gate: Arc::clone(&gate),
        limits,
        entropy: Box::new(|bytes| bytes.fill(7)),
        now,
    });
    shard.keep_judged();
    assert_eq!(gate.0.load(Relaxed), 0, "nobody was judged");
    for turn in 1..4 {
        for (client_id, user_name) in [("a", Some("a")), ("b", Some("b")), ("c", None)] {
            let peer = Peer { addr: ([127, 0, 0, 1], 1).into(), tls: false, certificate: None };
            let conn = shard.open(peer, now).expect("room");
            let _ = shard.receive(conn, &connect(client_id, user_name), now);
            assert!(!shard.output(conn).bytes.is_empty());
        }
        assert_eq!(gate.0.load(Relaxed), turn - 1);
        shard.keep_judged();
        shard.keep_judged();
        assert_eq!(gate.0.load(Relaxed), turn);
    }
}
