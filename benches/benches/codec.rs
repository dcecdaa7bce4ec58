//! Decoding and encoding of PUBLISH, the broker's hottest functions.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use turnpike_mqtt::{Delivery, PacketId, QoS, TopicName, Version, decode_publish, encode_ack, encode_delivery, frame};

fn delivery(payload: &[u8]) -> Delivery<'_> {
    Delivery {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: TopicName::parse("dev/product-1/device-0001/up/telemetry").expect("a topic name"),
        topic_alias: None,
        omit_topic: false,
        id: PacketId::new(7),
        message_expiry_s: None,
        identifiers: &[],
        forwardable: &[],
        payload,
    }
}

fn codec(c: &mut Criterion) {
    let payload = [b'x'; 64];
    for (name, version) in [("3.1.1", Version::V311), ("5", Version::V5)] {
        let mut bytes = Vec::new();
        encode_delivery(version, &delivery(&payload), &mut bytes);
        let mut group = c.benchmark_group(format!("PUBLISH {name}"));
        group.throughput(Throughput::Elements(1));
        group.bench_function("decode", |b| {
            b.iter(|| {
                let frame = frame(black_box(&bytes), u32::MAX).expect("a frame").expect("a whole one");
                black_box(decode_publish(version, frame).expect("a packet").payload.len())
            });
        });
        let mut out = Vec::with_capacity(256);
        group.bench_function("encode", |b| {
            b.iter(|| {
                out.clear();
                encode_delivery(version, black_box(&delivery(&payload)), &mut out);
                black_box(out.len())
            });
        });
        group.finish();
    }
    let mut out = Vec::with_capacity(16);
    let id = PacketId::new(7).expect("not 0");
    c.bench_function("encode PUBACK", |b| {
        b.iter(|| {
            out.clear();
            encode_ack(
                Version::V311,
                turnpike_mqtt::AckKind::PubAck,
                black_box(id),
                turnpike_mqtt::ReasonCode::Success,
                &mut out,
            );
            black_box(out.len())
        });
    });
}

criterion_group!(benches, codec);
criterion_main!(benches);
