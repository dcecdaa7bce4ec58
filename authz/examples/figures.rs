//! What a device costs in memory, and what log-ins and topics cost in time: `figures [devices]`.

#![allow(clippy::print_stdout, missing_docs)]

use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use turnpike_authz::credential::{self, Credentials};
use turnpike_authz::gate::METHOD;
use turnpike_authz::import::Import;
use turnpike_authz::names::ProductKey;
use turnpike_authz::nonce::{Holder, Nonces, Use, WINDOW_MS};
use turnpike_authz::plan::Making;
use turnpike_authz::profile::{Profile, ProfileSet, SignMethod};
use turnpike_authz::registry::Registry;
use turnpike_authz::secret::{MasterKey, Secret};
use turnpike_authz::{Gatekeeper, policy};
use turnpike_core::clock::Now;
use turnpike_core::gate::{Attempt, Gate, Verdict};

const NOW: Now = Now { mono_ms: 0, unix_ms: 1_700_000_000_000 };
const LOGINS: u64 = 100_000;

fn main() -> Result<(), Box<dyn Error>> {
    let devices: u64 = std::env::args().nth(1).map_or(Ok(1_000_000), |text| text.parse())?;
    let (registry, key) = (Arc::new(Registry::new()), MasterKey::new([7; 32]));
    let product = ProductKey::parse("a1B2c3D4e5F")?;
    registry.apply(registry.plan_put_product(&product, None, 1)?.0);
    let (before, start) = (resident_bytes()?, Instant::now());
    fill(&registry, &key, &product, devices)?;
    println!("import: {:.2} µs a device", start.elapsed().as_secs_f64() * 1e6 / devices as f64);
    println!("memory: {} bytes a device", (resident_bytes()? - before) / devices);
    let start = Instant::now();
    let page = registry.devices(product.as_str(), Some("serial-00500000"), 100);
    println!("page of {}: {:.0} µs", page.len(), start.elapsed().as_secs_f64() * 1e6);

    let gate = Gatekeeper::new(registry, key, 1 << 20);
    let secret = Secret::new(b"0123456789abcdef0123456789abcdef")?;
    let wrong = Secret::new(b"another secret than the right one")?;
    let name = |n: u64| format!("serial-{:08}", n.wrapping_mul(7919) % devices);
    let native = |n: u64, name: &str, secret: &Secret| {
        credential::native(product.as_str(), name, secret, &format!("client-{n}"), NOW.unix_ms, &n.to_string())
    };
    let aliyun = |n: u64| {
        credential::aliyun(product.as_str(), &name(n), &secret, "id", SignMethod::Sha256, Some("2524608000000"))
    };
    logins("native, right", &gate, true, |n| native(n, &name(n), &secret));
    logins("native, wrong secret", &gate, false, |n| native(n, &name(n), &wrong));
    logins("native, unknown device", &gate, false, |n| native(n, &format!("{}x", name(n)), &secret));
    logins("aliyun, hmacsha256", &gate, true, aliyun);
    challenges(&gate, product.as_str(), &name, &secret);
    topics()?;
    nonces()?;
    searches()
}

fn fill(registry: &Registry, key: &MasterKey, product: &ProductKey, devices: u64) -> Result<(), Box<dyn Error>> {
    let mut import = Import::new(registry, product.clone())?;
    for n in 0..devices {
        let mut random = [0; 28];
        random[..8].copy_from_slice(&n.to_be_bytes());
        random[20..].copy_from_slice(&n.to_be_bytes());
        let making = Making { key, random, now_s: 1 };
        import.row(n, &format!("serial-{n:08}"), Some("0123456789abcdef0123456789abcdef"), &making)?;
        if import.is_full() {
            import.take().into_iter().for_each(|change| registry.apply(change));
        }
    }
    import.take().into_iter().for_each(|change| registry.apply(change));
    Ok(())
}

fn attempt<'a>(client_id: &'a str, user_name: &'a str, password: Option<&'a [u8]>) -> Attempt<'a> {
    let peer = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    Attempt { client_id, user_name: Some(user_name), password, peer, tls: false, certificate: None, enhanced: None }
}

fn logins(what: &str, gate: &Gatekeeper, granted: bool, make: impl Fn(u64) -> Credentials) {
    let made: Vec<Credentials> = (0..LOGINS).map(make).collect();
    let start = Instant::now();
    for made in &made {
        let attempt = attempt(&made.client_id, &made.user_name, Some(made.password.as_bytes()));
        let verdict = gate.authenticate(&attempt, NOW, [0; 32]);
        assert_eq!(matches!(verdict, Verdict::Granted(_)), granted);
    }
    println!("{what}: {:.2} µs a log-in", start.elapsed().as_secs_f64() * 1e6 / LOGINS as f64);
}

fn challenges(gate: &Gatekeeper, product: &str, name: &impl Fn(u64) -> String, secret: &Secret) {
    let mut spent = std::time::Duration::ZERO;
    for n in 0..LOGINS {
        let name = name(n);
        let user_name = format!("{product}/{name}");
        let attempt = Attempt { enhanced: Some((METHOD, b"")), ..attempt("c", &user_name, None) };
        let start = Instant::now();
        let verdict = gate.authenticate(&attempt, NOW, [1; 32]);
        spent += start.elapsed();
        let Verdict::Challenge { data, state } = verdict else { panic!("a challenge") };
        let answer = credential::answer(secret, "c", product, &name, &data);
        let start = Instant::now();
        let verdict = gate.proceed(&attempt, &state, answer.as_bytes(), NOW);
        spent += start.elapsed();
        assert!(matches!(verdict, Verdict::Granted(_)));
    }
    println!("native, challenge: {:.2} µs a log-in", spent.as_secs_f64() * 1e6 / LOGINS as f64);
}

/// Devices of TuyaLink, which name no product: 256 products take the profile, with a thousand devices each.
fn searches() -> Result<(), Box<dyn Error>> {
    const PRODUCTS: u64 = 256;
    let (registry, key) = (Arc::new(Registry::new()), MasterKey::new([7; 32]));
    for n in 0..PRODUCTS {
        let product = ProductKey::parse(&format!("product-{n}"))?;
        registry.apply(registry.plan_put_product(&product, None, 1)?.0);
        registry.apply(registry.plan_allow_profiles(&product, ProfileSet::from_iter([Profile::Tuya]))?);
        let mut import = Import::new(&registry, product.clone())?;
        for device in 0..1000 {
            let making = Making { key: &key, random: [1; 28], now_s: 1 };
            import.row(1, &format!("serial-{n}-{device}"), Some("0123456789abcdef0123456789abcdef"), &making)?;
            if import.is_full() {
                import.take().into_iter().for_each(|change| registry.apply(change));
            }
        }
        import.take().into_iter().for_each(|change| registry.apply(change));
    }
    let gate = Gatekeeper::new(registry, key, 1000);
    let secret = Secret::new(b"0123456789abcdef0123456789abcdef")?;
    let name = |n: u64| format!("serial-{}-{}", n.wrapping_mul(7919) % PRODUCTS, n % 1000);
    let tuya = |name: &str| credential::tuya(name, &secret, NOW.unix_ms / 1000);
    logins("tuya, right", &gate, true, |n| tuya(&name(n)));
    logins("tuya, unknown device", &gate, false, |n| tuya(&format!("{}x", name(n))));
    Ok(())
}

/// A thousand products say which profiles they take.
fn topics() -> Result<(), Box<dyn Error>> {
    const ROUNDS: u32 = 10_000_000;
    let registry = Registry::new();
    for n in 0..1000 {
        let key = ProductKey::parse(&format!("a1B2c3D{n:03}"))?;
        registry.apply(registry.plan_put_product(&key, None, 1)?.0);
        let profiles = Profile::ALL.into_iter().filter(|profile| n < 200 || !profile.is_searched()).collect();
        registry.apply(registry.plan_allow_profiles(&key, profiles)?);
    }
    let (product, device) = (black_box("a1B2c3D001"), black_box("serial-00000001"));
    for (may, topic) in [
        (true, "dev/a1B2c3D001/serial-00000001/up/temperature"),
        (false, "dev/a1B2c3D001/serial-00000002/up/temperature"),
        (true, "/sys/a1B2c3D001/serial-00000001/thing/event/property/post"),
        (true, "/ext/rrpc/12345//a1B2c3D001/serial-00000001/user/get"),
        (true, "a1B2c3D001/serial-00000001/data"),
        (true, "$thing/up/property/a1B2c3D001/serial-00000001"),
        (true, "$oc/devices/a1B2c3D001_serial-00000001/sys/properties/report"),
        (true, "tylink/serial-00000001/thing/property/report"),
        (true, "devices/serial-00000001/messages/events/"),
        (true, "dev2app/serial-00000001"),
        (false, "dev2app/serial-00000002"),
        (false, "some/other/topic"),
    ] {
        let start = Instant::now();
        for _ in 0..ROUNDS {
            let allowed = || registry.allowed(product);
            assert_eq!(policy::may_publish(product, device, black_box(topic), allowed), may);
        }
        println!("may publish {topic}: {:.1} ns", start.elapsed().as_secs_f64() * 1e9 / f64::from(ROUNDS));
    }
    Ok(())
}

/// Both generations full, just before one is dropped.
fn nonces() -> Result<(), Box<dyn Error>> {
    const COUNT: usize = 1 << 20;
    let (before, nonces) = (resident_bytes()?, Nonces::new(COUNT * 2));
    let mut spent = std::time::Duration::ZERO;
    let holder = Holder { product: "a1B2c3D4e5F", device: "serial-00000001", share: Some(u32::MAX) };
    for generation in 0..2 {
        let made: Vec<String> = (0..COUNT).map(|n| format!("{generation}-{n}")).collect();
        let start = Instant::now();
        for nonce in &made {
            let used = nonces.take(holder, nonce, 0, generation * 2 * WINDOW_MS);
            assert!(matches!(used, Use::First { .. }));
        }
        spent += start.elapsed();
    }
    let taken = 2 * COUNT as u64;
    println!("nonce: {:.0} ns", spent.as_secs_f64() * 1e9 / taken as f64);
    println!("nonce: {} bytes", (resident_bytes()? - before) / taken);
    Ok(())
}

fn resident_bytes() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}
