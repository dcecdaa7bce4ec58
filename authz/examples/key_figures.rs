//! What log-ins by key and by certificate cost, and what a device with a key costs in memory: `key_figures [log-ins]`.

#![allow(clippy::print_stdout, missing_docs)]

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use chacha20::ChaCha20Rng;
use chacha20::rand_core::SeedableRng;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ED25519};
use ring::rand::{SecureRandom, SystemRandom};
use rsa::RsaPrivateKey;
use rsa::pkcs8::EncodePrivateKey;
use turnpike_authz::Gatekeeper;
use turnpike_authz::credential::{self, Credentials, SignedRequest};
use turnpike_authz::keys::{PrivateKey, Proof, Proofs};
use turnpike_authz::names::{DeviceName, ProductKey};
use turnpike_authz::product::ProductPolicy;
use turnpike_authz::registry::Registry;
use turnpike_authz::secret::MasterKey;
use turnpike_authz::x509::{Authorities, Fingerprint};
use turnpike_core::clock::Now;
use turnpike_core::gate::{Attempt, Gate, Verdict};

const NOW: Now = Now { mono_ms: 0, unix_ms: 1_700_000_000_000 };
const PRODUCT: &str = "a1B2c3D4e5F";
const DEVICE: &str = "serial-00000001";
const DEVICES: u64 = 200_000;

fn main() -> Result<(), Box<dyn Error>> {
    let logins: u64 = std::env::args().nth(1).map_or(Ok(2_000), |text| text.parse())?;
    let registry = Arc::new(Registry::new());
    let product = ProductKey::parse(PRODUCT)?;
    registry.apply(registry.plan_put_product(&product, None, 1)?.0);
    let policy = ProductPolicy { allow_rsa_1024: true, ..ProductPolicy::default() };
    registry.apply(registry.plan_set_policy(&product, policy)?);
    let gate = Gatekeeper::new(Arc::clone(&registry), MasterKey::new([7; 32]), 1 << 20);
    let rsa = |bits| -> Result<String, Box<dyn Error>> {
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed).map_err(|_| "no random bytes")?;
        let key = RsaPrivateKey::new(&mut ChaCha20Rng::from_seed(seed), bits)?;
        Ok(pem::encode(&pem::Pem::new("PRIVATE KEY", key.to_pkcs8_der()?.as_bytes())))
    };
    let keys = [
        ("RSA-1024", rsa(1024)?),
        ("RSA-2048", rsa(2048)?),
        ("RSA-4096", rsa(4096)?),
        ("ECDSA P-256", KeyPair::generate()?.serialize_pem()),
        ("Ed25519", KeyPair::generate_for(&PKCS_ED25519)?.serialize_pem()),
    ];
    for (what, pem) in keys {
        let random = SystemRandom::new();
        let key = PrivateKey::from_pem(&pem, &random)?;
        put(&registry, &product, DEVICE, Proof::Key(key.public().clone()))?;
        let made = |device, text: &str| -> Result<Vec<Credentials>, Box<dyn Error>> {
            (0..logins)
                .map(|n| {
                    let nonce = format!("{what}{text}{n}").replace(' ', "");
                    let timestamp_ms = NOW.unix_ms;
                    let request = SignedRequest {
                        product: PRODUCT,
                        device,
                        key: &key,
                        client_id: None,
                        timestamp_ms,
                        nonce: &nonce,
                    };
                    Ok(credential::native_signed(&request, &random)?)
                })
                .collect()
        };
        time(&gate, what, true, &made(DEVICE, "right")?);
        let mut wrong = made(DEVICE, "wrong")?;
        wrong.iter_mut().for_each(|made| made.client_id.push('x'));
        time(&gate, &format!("{what}, wrong signature"), false, &wrong);
        time(&gate, &format!("{what}, unknown device"), false, &made("nobody", "nobody")?);
    }
    certificates(&registry, &gate, &product, logins)?;
    memory(&registry, &product)
}

fn put(registry: &Registry, product: &ProductKey, device: &str, proof: Proof) -> Result<(), Box<dyn Error>> {
    let proofs = Proofs::new(vec![proof])?;
    let (changes, _) = registry.plan_put_keyed_device(product, &DeviceName::parse(device)?, proofs, None, 1)?;
    changes.into_iter().for_each(|change| registry.apply(change));
    Ok(())
}

fn attempt() -> Attempt<'static> {
    let peer = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    let (user_name, password, certificate, enhanced) = (None, None, None, None);
    Attempt { client_id: "c", user_name, password, peer, tls: true, certificate, enhanced }
}

fn time(gate: &Gatekeeper, what: &str, granted: bool, made: &[Credentials]) {
    let start = Instant::now();
    for made in made {
        let (user_name, password) = (Some(&*made.user_name), Some(made.password.as_bytes()));
        let attempt = Attempt { client_id: &made.client_id, user_name, password, ..attempt() };
        assert_eq!(matches!(gate.authenticate(&attempt, NOW, [0; 32]), Verdict::Granted(_)), granted);
    }
    println!("{what}: {:.1} µs a log-in", start.elapsed().as_secs_f64() * 1e6 / made.len() as f64);
}

fn certificates(
    registry: &Registry,
    gate: &Gatekeeper,
    product: &ProductKey,
    logins: u64,
) -> Result<(), Box<dyn Error>> {
    let (mut ca, ca_key) = (CertificateParams::default(), KeyPair::generate()?);
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = ca.self_signed(&ca_key)?;
    let issuer = Issuer::new(ca, ca_key);
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, format!("{PRODUCT}/{DEVICE}"));
    let der = params.signed_by(&KeyPair::generate()?, &issuer)?.der().to_vec();
    let time = |what: &str| {
        let start = Instant::now();
        for _ in 0..logins {
            let attempt = Attempt { certificate: Some(&der), ..attempt() };
            assert!(matches!(gate.authenticate(&attempt, NOW, [0; 32]), Verdict::Granted(_)));
        }
        println!("certificate, {what}: {:.1} µs a log-in", start.elapsed().as_secs_f64() * 1e6 / logins as f64);
    };
    registry.apply(registry.plan_set_authorities(product, Some(Authorities::new(&[authority.der()])?))?);
    time("by the product's CA (P-256)");
    put(registry, product, DEVICE, Proof::Certificate(Fingerprint::of(&der)))?;
    time("by its fingerprint");
    Ok(())
}

/// A device with one Ed25519 key and no secret.
fn memory(registry: &Registry, product: &ProductKey) -> Result<(), Box<dyn Error>> {
    let before = resident_bytes()?;
    for n in 0..DEVICES {
        let mut der = *b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        der[36..].copy_from_slice(&n.to_be_bytes());
        let key = turnpike_authz::keys::PublicKey::from_der(&der)?;
        put(registry, product, &format!("keyed-{n:09}"), Proof::Key(key))?;
    }
    println!("memory: {} bytes a device with an Ed25519 key", (resident_bytes()? - before) / DEVICES);
    Ok(())
}

fn resident_bytes() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}
