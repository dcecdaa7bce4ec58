//! What bindings cost in memory, and what users' and services' topics and feeds cost in time: `people [devices]`.

#![allow(clippy::print_stdout, missing_docs)]

use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

use turnpike_authz::labels::LabelsRequest;
use turnpike_authz::names::{DeviceName, ProductKey};
use turnpike_authz::people::bindings::{Binding, DeviceKey, Role, User};
use turnpike_authz::people::ids::{AccessKey, AppId, UserKey};
use turnpike_authz::people::plan::{AppRequest, ServiceRequest};
use turnpike_authz::people::services::{Grant, Right};
use turnpike_authz::people::{Change, People};
use turnpike_authz::plan::{DeviceRequest, Making};
use turnpike_authz::registry::Registry;
use turnpike_authz::secret::MasterKey;
use turnpike_core::gate::{ServiceIdentity, UserIdentity};

const PRODUCT: &str = "a1B2c3D4e5F";
/// Devices of one user.
const DEVICES: u64 = 5;
const ROUNDS: u64 = 5_000_000;

fn main() -> Result<(), Box<dyn Error>> {
    let devices: u64 = std::env::args().nth(1).map_or(Ok(1_000_000), |text| text.parse())?;
    let (registry, people, key) = (Registry::new(), People::new(), MasterKey::new([7; 32]));
    let making = Making { key: &key, random: [1; 28], now_s: 1 };
    let product = ProductKey::parse(PRODUCT)?;
    registry.apply(registry.plan_put_product(&product, None, 1)?.0);
    people.apply(people.plan_put_app(&AppId::parse("app")?, AppRequest::default(), &making)?.change);
    let grants = Some(vec![Grant { product: Some(product.clone()), rights: Right::ALL.into_iter().collect() }]);
    let request = ServiceRequest { grants, ..ServiceRequest::default() };
    people.apply(people.plan_put_service(&AccessKey::parse("back-end")?, request, &making)?.change);

    let before = resident_bytes()?;
    for n in 0..devices {
        let made =
            registry.plan_put_device(&product, &DeviceName::parse(&device(n))?, DeviceRequest::default(), &making)?;
        registry.apply(made.change);
    }
    let with_devices = resident_bytes()?;
    let start = Instant::now();
    for n in 0..devices / DEVICES {
        people.apply(Change::PutUser(UserKey::parse("app", &user(n))?, User { frozen: false, created_at_s: 1 }));
    }
    for n in 0..devices {
        bind(&people, n, n / DEVICES, Role::Owner)?;
    }
    println!("binding: {:.2} µs, users included", start.elapsed().as_secs_f64() * 1e6 / devices as f64);
    let with_bindings = resident_bytes()?;
    println!("memory of a device: {} bytes", (with_devices - before) / devices);
    println!("memory of a binding, a fifth of a user included: {} bytes", (with_bindings - with_devices) / devices);
    println!("both: {} bytes", (with_bindings - before) / devices);
    for n in 0..devices {
        // A few sets, as fleets have them.
        let (tag, region) = (format!("group-{}", n % 10), format!("region-{}", n % 3));
        let labels = LabelsRequest::new(Some([tag.as_str(), "beta"]), Some(&region))?;
        registry
            .plan_label_device(&product, &DeviceName::parse(&device(n))?, &labels)
            .map(|change| registry.apply(change));
    }
    println!("memory of a device's labels: {} bytes", (resident_bytes()? - with_bindings) / devices);

    topics(&people, devices);
    feeds(&people, devices);
    let start = Instant::now();
    for n in 0..50_000 {
        bind(&people, n, n / DEVICES + 1, Role::View)?;
    }
    println!("a share of 50,000: {:.2} µs", start.elapsed().as_secs_f64() * 1e6 / 50_000.0);
    Ok(())
}

fn device(n: u64) -> String {
    format!("serial-{n:08}")
}

fn user(n: u64) -> String {
    format!("user-{n:07}")
}

fn bind(people: &People, of: u64, to: u64, role: Role) -> Result<(), Box<dyn Error>> {
    let device = DeviceKey { product: ProductKey::parse(PRODUCT)?, device: DeviceName::parse(&device(of))? };
    let binding = Binding { role, expires_at_s: None, by_admin: false };
    people.apply(Change::Bind(device, UserKey::parse("app", &user(to))?, binding));
    Ok(())
}

fn measure(what: &str, mut f: impl FnMut(u64) -> bool, expected: bool) {
    let start = Instant::now();
    for n in 0..ROUNDS {
        assert_eq!(f(n), expected);
    }
    println!("{what}: {:.1} ns", start.elapsed().as_secs_f64() * 1e9 / ROUNDS as f64);
}

fn topics(people: &People, devices: u64) {
    // One, and a thousand, are in the cache; all of them aren't.
    for spread in [DEVICES, 1_000, devices] {
        let many = 1_000.min(spread);
        let pick = |n: u64| n % many * (spread / many);
        let users: Vec<UserIdentity> = (0..many)
            .map(|n| UserIdentity { app: "app".into(), user: user(pick(n) / DEVICES).into(), code: None })
            .collect();
        let owned: Vec<String> = (0..many).map(|n| format!("dev/{PRODUCT}/{}/down/set", device(pick(n)))).collect();
        let others: Vec<String> =
            (0..many).map(|n| format!("dev/{PRODUCT}/{}/down/set", device((pick(n) + 50) % devices))).collect();
        let at = |n: u64| usize::try_from(n * 7 % many).expect("small");
        println!("among {spread} devices:");
        let publish = |topics: &[String], n: u64| people.user_may_publish(&users[at(n)], black_box(&topics[at(n)]));
        measure("  a user publishes, allowed", |n| publish(&owned, n), true);
        measure("  a user publishes, refused", |n| publish(&others, n), false);
        let service = ServiceIdentity { key: "back-end".into() };
        let serve = |n: u64| people.service_may_publish(&service, black_box(&owned[at(n)]));
        measure("  a service publishes, allowed", serve, true);
    }
}

fn feeds(people: &People, devices: u64) {
    for spread in [1, 1_000, 100_000] {
        let topics: Vec<(String, String)> = (0..spread)
            .map(|n| {
                let name = device(n * 7919 % devices);
                let topic = format!("dev/{PRODUCT}/{name}/up/temperature");
                (name, topic)
            })
            .collect();
        println!("among {spread} devices:");
        let at = |n: u64| usize::try_from(n % spread).expect("small");
        let fed = |n: u64| {
            let (name, topic) = &topics[at(n)];
            let mut users = 0;
            people.feed(PRODUCT, name, black_box(topic), |_, _| users += 1);
            users == 1
        };
        measure("  the feed of a device with an owner", fed, true);
        measure("  whether a device has one that hasn't", |n| people.has_feed("another", &topics[at(n)].0), false);
    }
}

fn resident_bytes() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}
