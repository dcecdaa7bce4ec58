//! The vectors of `authz/PAYLOAD.md`: its lines are what this makes.

use turnpike_core::gate::DeviceIdentity;

use super::frame::{self, Context, Direction, Header};
use super::keys::Root;
use super::policy::Suite;
use super::{Cipher, Material, Terms, key_topic};
use crate::cipher::policy::CipherPolicy;
use crate::secret::Secret;

const DEVICE_NONCE: &[u8] = b"3f9a6c1e0b7d4e52";
const BROKER_NONCE: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
const EPOCH: u32 = 7;

fn vectors() -> Vec<String> {
    let who = DeviceIdentity::new("p1", "d1");
    let secret = Secret::new(b"0123456789abcdef0123456789abcdef").expect("a secret");
    let root = Root::new(secret.expose(), DEVICE_NONCE, &BROKER_NONCE);
    let mut lines = Vec::new();
    for suite in Suite::ALL {
        let (up, down) = root.lanes(&who, suite, EPOCH);
        lines.push(format!("{suite}"));
        for (name, key) in
            [("up_mac  ", &up.mac), ("up_enc  ", &up.enc), ("down_mac", &down.mac), ("down_enc", &down.enc)]
        {
            lines.push(format!("  {name} {}", hex::encode(key)));
        }
        let header = Header { suite, epoch: EPOCH, counter: 5 };
        for (direction, lane, topic, payload) in [
            (Direction::Up, &up, "dev/p1/d1/up/t", r#"{"t":20.5}"#),
            (Direction::Up, &up, "dev/p1/d1/up/t", ""),
            (Direction::Down, &down, "dev/p1/d1/down/t", "a payload longer than a block"),
        ] {
            let frame = frame::seal(lane, header, Context { direction, who: &who, topic }, payload.as_bytes());
            lines.push(format!("  {direction:?}, {topic}, counter 5, payload `{payload}`"));
            lines.push(format!("    {}", hex::encode(frame)));
        }
        let terms = Terms { nonce: DEVICE_NONCE.into(), suite, wrapped: None };
        let policy = CipherPolicy::new(&Suite::ALL, 3600, 100_000, 60).expect("a policy");
        let mut random = [0; 20];
        random[..16].copy_from_slice(&BROKER_NONCE);
        random[19] = u8::try_from(EPOCH * 2).expect("small");
        let mut cipher = Cipher::begin(
            who.clone().into(),
            &policy,
            (&terms, Material::Secret(&secret)),
            (turnpike_core::clock::Now::default(), random),
        );
        assert_eq!(cipher.epoch(), EPOCH);
        lines.push(format!("  announcement on {}, counter 0: 3600 s, 100000 messages, 60 s", key_topic(&who)));
        lines.push(format!("    {}", hex::encode(cipher.announce().payload)));
    }
    lines
}

#[test]
fn the_document_says_what_the_code_does() {
    let document = include_str!("../../PAYLOAD.md");
    let section = document.split("## Vectors").nth(1).expect("a section of vectors");
    let block = section.split("```").nth(1).expect("a block of lines").trim_matches('\n');
    assert_eq!(block, vectors().join("\n"));
}
