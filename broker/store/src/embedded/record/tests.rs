use proptest::prelude::*;
use turnpike_core::durable::Op;

use super::*;
use crate::testing::any_op;

fn decode_all(bytes: &[u8]) {
    let _ = decode_session(bytes);
    let _ = decode_subscription(b"a/b", bytes);
    let _ = decode_incoming(bytes);
    let _ = decode_message(bytes, None);
    let _ = decode_owed(bytes);
    let _ = decode_registry(b"k", bytes);
    let _ = decode_counter(bytes);
    let _ = split_session(bytes).map(|(_, rest)| (parse_incoming_key(rest), parse_u64_key(rest)));
}

fn encode(op: &Op) -> Vec<u8> {
    match op {
        Op::SessionPut(_, record) => encode_session(record),
        Op::SubscriptionPut { filter, options, identifier, .. } => encode_subscription(filter, *options, *identifier),
        Op::MessagePut(_, message) | Op::RetainedPut(message) => encode_message(message),
        Op::OwedPut { owed, .. } => encode_owed(owed),
        Op::RegistryPut(key, value) => encode_registry(key, value),
        _ => Vec::new(),
    }
}

proptest! {
    #[test]
    fn no_bytes_make_decoding_panic(first in 0u8..32, rest in proptest::collection::vec(any::<u8>(), 0..80)) {
        let mut bytes = vec![first];
        bytes.extend(rest);
        decode_all(&bytes);
    }

    #[test]
    fn altered_records_dont_make_decoding_panic(op in any_op(), at in any::<prop::sample::Index>(), with in any::<u8>()) {
        let mut bytes = encode(&op);
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            decode_all(&bytes[..at]);
            bytes[at] ^= with;
            decode_all(&bytes);
        }
    }

    #[test]
    fn what_is_encoded_is_decoded(op in any_op()) {
        let bytes = encode(&op);
        match &op {
            Op::SessionPut(_, record) => prop_assert_eq!(&decode_session(&bytes).unwrap(), &**record),
            Op::MessagePut(_, message) => prop_assert_eq!(&decode_message(&bytes, None).unwrap(), &**message),
            Op::OwedPut { owed, .. } => match (decode_owed(&bytes).unwrap(), &owed.body) {
                (StoredOwed::Whole(got), Body::Released) => prop_assert_eq!(got, crate::memory::released()),
                (StoredOwed::Whole(got), _) => prop_assert_eq!(&got, owed),
                (StoredOwed::Shared(mut got, id), Body::Shared(expected, _)) => {
                    prop_assert_eq!(id, *expected);
                    got.body = owed.body.clone();
                    prop_assert_eq!(&got, owed);
                }
                _ => prop_assert!(false, "another kind of body"),
            },
            _ => {}
        }
    }
}

#[test]
fn sizes_on_disk() {
    let message = Arc::new(crate::testing::message("dev/p/d/up/a", &[0; 200]));
    let owed = crate::testing::owed(Body::Inline(message));
    assert_eq!(encode_owed(&owed).len(), 2 + 1 + 13 + 1 + 200);
}

#[test]
fn keys_sort_by_session_then_number_and_long_text_fits() {
    assert!(owed_key(SessionKey(1), Seq(u64::MAX)) < owed_key(SessionKey(2), Seq(0)));
    assert!(owed_key(SessionKey(1), Seq(255)) < owed_key(SessionKey(1), Seq(256)));
    let (a, b) = ("x".repeat(65_535), "x".repeat(65_534));
    let (a, b) = (text_key(&[0; 8], a.as_bytes()), text_key(&[0; 8], b.as_bytes()));
    assert!(a != b && a.len() <= usize::from(u16::MAX));
}
