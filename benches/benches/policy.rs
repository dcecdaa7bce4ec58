//! What the policy's check of a publish and of a subscription costs, through the gate that the broker asks.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use turnpike_authz::Gatekeeper;
use turnpike_authz::names::ProductKey;
use turnpike_authz::profile::{Profile, ProfileSet};
use turnpike_authz::registry::Registry;
use turnpike_authz::secret::MasterKey;
use turnpike_core::gate::{DeviceIdentity, Gate, Principal};
use turnpike_mqtt::{TopicFilter, TopicName};

const DEVICE: &str = "serial-00000001";

/// A thousand products, each of which says which profiles it takes; the device is of one in their middle.
fn gate() -> Gatekeeper {
    let registry = Arc::new(Registry::new());
    for n in 0..1000 {
        let product = ProductKey::parse(&product(n)).expect("a product key");
        registry.apply(registry.plan_put_product(&product, None, 1).expect("room").0);
        let profiles = ProfileSet::from_iter([Profile::Native, Profile::Aliyun, Profile::Tuya]);
        registry.apply(registry.plan_allow_profiles(&product, profiles).expect("a product"));
    }
    Gatekeeper::new(registry, MasterKey::new([7; 32]), 1024)
}

fn product(n: u32) -> String {
    format!("a1B2c3D{n:04}")
}

fn device(c: &mut Criterion) {
    let (gate, product) = (gate(), product(500));
    let identity = DeviceIdentity::new(product.as_str(), DEVICE);
    let principal = Principal::Device(Arc::new(identity));
    for (topic, may) in [
        (format!("dev/{product}/{DEVICE}/up/telemetry"), true),
        (format!("dev/{product}/serial-00000002/up/telemetry"), false),
        (format!("/sys/{product}/{DEVICE}/thing/event/property/post"), true),
        (format!("/ext/rrpc/123456/{product}/{DEVICE}/call"), true),
        (format!("tylink/{DEVICE}/thing/property/report"), true),
    ] {
        let name = TopicName::parse(&topic).expect("a topic");
        let shown = topic.replace(&product, "{p}").replace(DEVICE, "{d}");
        let verdict = if may { "allowed" } else { "refused" };
        c.bench_function(&format!("publish by a device, {verdict}: {shown}"), |b| {
            b.iter(|| assert_eq!(gate.may_publish(black_box(&principal), black_box(name)), may));
        });
    }
    let filter = format!("dev/{product}/{DEVICE}/down/#");
    let filter = TopicFilter::parse(&filter).expect("a filter");
    c.bench_function("subscription by a device, allowed: dev/{p}/{d}/down/#", |b| {
        b.iter(|| assert!(gate.may_subscribe(black_box(&principal), black_box(filter))));
    });
}

criterion_group!(benches, device);
criterion_main!(benches);
