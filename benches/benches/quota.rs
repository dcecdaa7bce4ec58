//! What rate limits cost a publish, a connect and a request; and what a million addresses cost in memory, and a million devices that owe something.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]
#![allow(clippy::print_stdout, reason = "criterion measures no memory")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use criterion::{Criterion, criterion_group, criterion_main};
use turnpike_authz::quota::{Caller, OriginLimits, Quotas, RequestLimits, Settings, Sizes, Subject, parse_rate};
use turnpike_core::clock::Now;
use turnpike_core::meter::{FlowRate, Manner, Meter};

/// The broker's own, since memory is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SIZES: Sizes = Sizes { origins_max: 1 << 21, owners_max: 1 << 21, callers_max: 1 << 20 };

fn now(mono_ms: u64) -> Now {
    Now { mono_ms, unix_ms: mono_ms }
}

fn flow(messages: &str, bytes: &str) -> FlowRate {
    FlowRate { messages: parse_rate(messages).expect("a rate"), bytes: parse_rate(bytes).expect("a rate") }
}

fn settings(product: FlowRate) -> Settings {
    let requests =
        RequestLimits { address: "1000000/1s, 20000000/60s".parse().expect("windows"), ..RequestLimits::default() };
    Settings {
        each_device: flow("1000000/s", "1000000000/s"),
        product,
        each_user: flow("1000000/s", "1000000000/s"),
        app: flow("1000000000/s", "1000000000000/s"),
        origin: OriginLimits { connections_max: Some(100), attempts: parse_rate("100/s").expect("a rate") },
        requests,
        ..Settings::default()
    }
}

fn address(n: u32) -> IpAddr {
    Ipv4Addr::from_bits(n.wrapping_mul(2_654_435_761)).into()
}

fn publish(c: &mut Criterion) {
    let alone = Quotas::new(settings(FlowRate::UNLIMITED), SIZES);
    let together = Quotas::new(settings(flow("1000000000/s", "1000000000000/s")), SIZES);
    let device = Subject::Device { product: "lamp", device: "one" };
    let user = Subject::User { app: "home", user: "ada" };
    let kinds = [
        ("device", alone.meter(device, now(1))),
        ("device and product", together.meter(device, now(1))),
        ("user and app", together.meter(user, now(1))),
    ];
    let mut now_ns = 0;
    let mut one = |meter: &mut Meter, manner| {
        now_ns += 1_000;
        meter.publish(black_box(now_ns), black_box(64), manner)
    };
    for (name, meter) in kinds {
        let mut meter = meter.expect("limited");
        for (word, manner) in [("slowed", Manner::Slow), ("refused", Manner::Refuse)] {
            c.bench_function(&format!("publish check, {name}, {word}"), |b| b.iter(|| one(&mut meter, manner)));
        }
    }
    let two = Subject::Device { product: "lamp", device: "two" };
    for (name, quotas, other) in [
        ("device and product, another core at the same product", &together, two),
        ("device, another core at the same device", &alone, device),
        ("device and product, another core at the same device", &together, device),
    ] {
        for (word, manner) in [("slowed", Manner::Slow), ("refused", Manner::Refuse)] {
            let mut meter = quotas.meter(device, now(1)).expect("limited");
            let mut other = quotas.meter(other, now(1)).expect("limited");
            let over = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let mut now_ns = 0;
                    while !over.load(Relaxed) {
                        now_ns += 1_000;
                        let _ = black_box(other.publish(now_ns, 64, manner));
                    }
                });
                c.bench_function(&format!("publish check, {name}, {word}"), |b| b.iter(|| one(&mut meter, manner)));
                over.store(true, Relaxed);
            });
        }
    }
}

/// All of them owe something, so none is forgotten.
fn owners() {
    let quotas = Quotas::new(settings(FlowRate::UNLIMITED), SIZES);
    let before = resident_bytes();
    for n in 0..1_000_000 {
        let name = n.to_string();
        let device = Subject::Device { product: "lamp", device: &name };
        let mut meter = quotas.meter(device, now(1)).expect("limited");
        for _ in 0..2 {
            let _ = meter.publish(1_000_000_000_000, 64, Manner::Slow);
        }
        quotas.settle(device, &meter, now(1));
    }
    println!("memory: {} bytes a device of a million that owe something", (resident_bytes() - before) / 1_000_000);
    println!("memory: {:?}", quotas.remembered());
    quotas.sweep(now(2_000_000));
    println!("memory: {:?} when all is paid", quotas.remembered());
}

fn tables(c: &mut Criterion) {
    owners();
    let quotas = Quotas::new(settings(FlowRate::UNLIMITED), SIZES);
    let before = resident_bytes();
    for n in 0..1_000_000 {
        assert!(quotas.attempt(address(n), now(1)));
    }
    println!("memory: {} bytes an address of a million", (resident_bytes() - before) / 1_000_000);
    let mut n = 0;
    c.bench_function("attempt to connect, of a million addresses", |b| {
        b.iter(|| {
            n = (n + 1) % 1_000_000;
            quotas.attempt(black_box(address(n)), now(1))
        });
    });
    c.bench_function("connection entered and left, of a million addresses", |b| {
        b.iter(|| {
            n = (n + 1) % 1_000_000;
            let _ = black_box(quotas.entered(address(n), now(1)));
            quotas.left(address(n));
        });
    });
    c.bench_function("request to the API, two windows", |b| {
        b.iter(|| quotas.request(&[Caller::Address(black_box(address(1)))], now(1)).is_ok());
    });
    c.bench_function("meter of a session made, of a device without another", |b| {
        b.iter(|| quotas.meter(Subject::Device { product: "lamp", device: black_box("one") }, now(1)));
    });
    let _held = quotas.meter(Subject::Device { product: "lamp", device: "two" }, now(1));
    c.bench_function("meter of a session made, of a device with another", |b| {
        b.iter(|| quotas.meter(Subject::Device { product: "lamp", device: black_box("two") }, now(1)));
    });
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("in every status");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).expect("a number of kB") * 1024
}

criterion_group!(benches, publish, tables);
criterion_main!(benches);
