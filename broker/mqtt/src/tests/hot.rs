//! What the two hottest functions promise: no copy on the way in, no allocation on the way out.

use std::hint::black_box;
use std::time::Instant;

use super::*;

const TOPIC: &str = "dev/thermostat/000000012345/up/telemetry";

fn delivery(payload: &[u8]) -> Delivery<'_> {
    Delivery {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: TopicName::from_validated(TOPIC),
        topic_alias: None,
        omit_topic: false,
        id: PacketId::new(7),
        message_expiry_s: None,
        identifiers: &[],
        forwardable: &[],
        payload,
    }
}

#[test]
fn a_delivery_reserves_once_and_only_appends() {
    for version in [Version::V311, Version::V5] {
        let delivery = Delivery { message_expiry_s: Some(60), identifiers: &[1, 300_000], ..delivery(&[1; 500]) };
        let mut out = Vec::with_capacity(2 + delivery_len(version, &delivery) + 3);
        out.extend_from_slice(b"ab");
        let before = (out.as_ptr(), out.capacity());
        encode_delivery(version, &delivery, &mut out);
        assert_eq!((out.as_ptr(), out.capacity()), before);
        assert!(out.starts_with(b"ab"));
    }
}

#[test]
fn a_decoded_publish_borrows_from_the_buffer() {
    let mut bytes = Vec::new();
    encode_delivery(Version::V5, &delivery(&[1; 64]), &mut bytes);
    let publish =
        decode_publish(Version::V5, frame(&bytes, 1_000).expect("a frame").expect("whole")).expect("a packet");
    let inside = bytes.as_ptr_range();
    assert!(inside.contains(&publish.payload.as_ptr()));
    assert!(publish.topic.is_some_and(|topic| inside.contains(&topic.as_str().as_ptr())));
}

/// `cargo nextest run -p turnpike-mqtt --release --run-ignored only --no-capture`
#[test]
#[ignore = "a measurement, of a release build"]
fn nanoseconds_of_the_hot_path() {
    const TIMES: u32 = 2_000_000;
    for version in [Version::V311, Version::V5] {
        let delivery = delivery(&[1; 64]);
        let (mut bytes, mut out) = (Vec::new(), Vec::with_capacity(256));
        encode_delivery(version, &delivery, &mut bytes);
        let start = Instant::now();
        for _ in 0..TIMES {
            let frame = frame(black_box(&bytes), 1 << 20).expect("a frame").expect("whole");
            black_box(decode_publish(version, frame).expect("a packet"));
        }
        let decoded = start.elapsed();
        let start = Instant::now();
        for _ in 0..TIMES {
            out.clear();
            encode_delivery(version, black_box(&delivery), &mut out);
            black_box(&out);
        }
        let encoded = start.elapsed();
        eprintln!(
            "{version:?}: decode {} ns, encode {} ns",
            (decoded / TIMES).as_nanos(),
            (encoded / TIMES).as_nanos()
        );
    }
}
