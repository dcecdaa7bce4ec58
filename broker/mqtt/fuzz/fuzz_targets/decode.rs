//! Bytes of a peer: nothing panics, and what decodes is encoded to something that decodes to the same.
//! `cargo +nightly fuzz run decode` in `broker/mqtt`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use turnpike_mqtt::{Packet, Version, decode, encode, frame};

/// Larger frames only make the fuzzer slower.
const PACKET_BYTES_MAX: u32 = 1 << 16;

fuzz_target!(|input: (u8, &[u8])| {
    let (selector, mut rest) = input;
    let version = [Version::V31, Version::V311, Version::V5][usize::from(selector) % 3];
    while let Ok(Some(frame)) = frame(rest, PACKET_BYTES_MAX) {
        rest = &rest[frame.len()..];
        if let Ok(packet) = decode(version, frame) {
            stays_the_same(version, &packet);
        }
    }
});

fn stays_the_same(version: Version, packet: &Packet<'_>) {
    // CONNECT says its version itself.
    let version = if let Packet::Connect(connect) = packet { connect.version } else { version };
    read(packet);
    let (mut once, mut twice) = (Vec::new(), Vec::new());
    encode(version, packet, &mut once);
    let whole = frame(&once, u32::MAX).expect("a frame").expect("a whole frame");
    let again = decode(version, whole).expect("what was encoded");
    encode(version, &again, &mut twice);
    assert_eq!(once, twice);
}

/// Reads what decoding leaves encoded.
fn read(packet: &Packet<'_>) {
    match packet {
        Packet::Publish(publish) => {
            let forwardable = publish.properties.forwardable;
            let mut copy = Vec::new();
            forwardable.copy_to(&mut copy);
            assert_eq!(copy.len(), forwardable.len());
            let _ = (forwardable.iter().count(), publish.properties.identifiers().count());
        }
        Packet::Subscribe(subscribe) => assert!(subscribe.filters.iter().count() > 0),
        Packet::Unsubscribe(unsubscribe) => assert!(unsubscribe.filters.iter().count() > 0),
        Packet::Connect(connect) => {
            let _ = connect.properties.user.iter().count();
        }
        _ => {}
    }
}
