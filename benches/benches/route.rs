//! Looking up who wants a topic, with few subscriptions and with many.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use turnpike_core::ids::{SessionRef, ShardId};
use turnpike_core::router::{Matches, Router, Subscriber};
use turnpike_mqtt::{QoS, SubscribeOptions, TopicFilter, TopicName};

fn router(devices: u32, suffix: &str) -> Router {
    let router = Router::new();
    for slot in 0..devices {
        let filter = format!("dev/p/device-{slot:07}/down/{suffix}");
        let session = SessionRef { shard: ShardId(0), slot, generation: 1 };
        let subscriber = Subscriber::new(session, SubscribeOptions::qos(QoS::AtLeastOnce), 0, false);
        router.subscribe(TopicFilter::parse(&filter).expect("a filter"), None, subscriber, true);
    }
    router
}

fn route(c: &mut Criterion) {
    for (name, suffix) in [("exact", "set"), ("wildcard", "#")] {
        for devices in [1_000, 1_000_000] {
            let router = router(devices, suffix);
            let mut matches = Matches::new();
            let mut slot = 0;
            c.bench_function(&format!("route {name}, {devices} filters"), |b| {
                b.iter(|| {
                    // A thousand topics, so that the text costs the same in both.
                    slot = (slot + 1) % 1_000;
                    let topic = format!("dev/p/device-{slot:07}/down/set");
                    router.route(TopicName::from_validated(black_box(&topic)), 0, &mut matches);
                    black_box(matches.len())
                });
            });
        }
    }
}

criterion_group!(benches, route);
criterion_main!(benches);
