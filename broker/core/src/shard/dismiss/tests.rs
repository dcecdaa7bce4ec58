use std::sync::Arc;

use turnpike_mqtt::{Connect, ConnectProperties, Packet, Version, decode, encode, frame};

use crate::clock::Now;
use crate::gate::{Attempt, ChallengeState, Gate, Parting, Verdict};
use crate::limits::Limits;
use crate::shard::Next;
use crate::shard::testing::{alone, everything_is_allowed, peer};

/// Gives everybody one message, and lets nobody in.
struct Hatch;

impl Gate for Hatch {
    fn authenticate(&self, _: &Attempt<'_>, _: Now, _: [u8; 32]) -> Verdict {
        Verdict::Dismissed(Box::new(Parting { topic: "/ext/register".into(), payload: b"secret".to_vec() }))
    }

    fn proceed(&self, attempt: &Attempt<'_>, _: &ChallengeState, _: &[u8], now: Now) -> Verdict {
        self.authenticate(attempt, now, [0; 32])
    }

    everything_is_allowed!();
}

#[test]
fn a_client_that_is_dismissed_gets_its_message_and_no_session() {
    for version in [Version::V311, Version::V5] {
        let now = Now { mono_ms: 0, unix_ms: 1_700_000_000_000 };
        let mut shard = alone(&Arc::new(Hatch), Limits::default(), now);
        let conn = shard.open(peer(false), now).expect("room");
        let connect = Connect {
            version,
            bridge: false,
            clean_start: false,
            keep_alive_s: 1,
            client_id: "c",
            will: None,
            user_name: None,
            password: None,
            properties: ConnectProperties { session_expiry_s: Some(60), ..ConnectProperties::default() },
        };
        let mut bytes = Vec::new();
        encode(version, &Packet::Connect(Box::new(connect)), &mut bytes);
        // What it sends behind its CONNECT isn't looked at.
        bytes.extend([0xC0, 0]);
        assert_eq!(shard.receive(conn, &bytes, now).next, Next::Ending);
        let mut out: &[u8] = shard.output(conn).bytes;
        let mut packets = Vec::new();
        while let Ok(Some(one)) = frame(out, u32::MAX) {
            let length = one.len();
            packets.push(match decode(version, one).expect("a packet") {
                Packet::ConnAck(ack) => format!("{:?} {}", ack.reason, ack.session_present),
                Packet::Publish(publish) => {
                    format!("{} {}", publish.topic.expect("a topic"), publish.payload.escape_ascii())
                }
                other => format!("{other:?}"),
            });
            out = out.get(length..).unwrap_or_default();
        }
        assert_eq!(packets, ["Success false", "/ext/register secret"]);
        assert_eq!((shard.counters().sessions, shard.counters().clients), (0, 0));
    }
    let parting = Parting { topic: "t".into(), payload: b"secret".to_vec() };
    assert!(!format!("{parting:?}").contains("secret"));
}
