//! What each way to log in costs the broker: its CPU of a log-in, and how much that is beyond one by nobody over the same transport.
//!
//! Two brokers run side by side, one that lets everybody in and one that asks. In each round every way takes its turn, and each round
//! begins with another one; the figure is the median. All that the process does for a log-in is in it: accept, handshake, verification,
//! the nonce that is kept, the audit's record, the session. Each way logs in as one device under as many client ids as there are log-ins.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use chacha20::ChaCha20Rng;
use chacha20::rand_core::SeedableRng;
use clap::Args;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use ring::rand::{SecureRandom, SystemRandom};
use rsa::RsaPrivateKey;
use rsa::pkcs8::{EncodePrivateKey, EncodePublicKey};
use turnpike_authz::credential::{self, SignedRequest};
use turnpike_authz::keys::PrivateKey;

use crate::cli::conduct;
use crate::compare::brokers::Broker;
use crate::identity::{Device, Identity, Login};
use crate::spec::{Certificate, Scenario, Spec, Tls};

const PRODUCT: &str = "bench";
const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// Least bits of a key that every product takes.
const RSA_BITS: usize = 2048;

/// How often, and whose.
#[derive(Args, Clone, Debug)]
pub struct Logins {
    /// This broker's program [default: `turnpike` beside this program].
    #[arg(long, value_name = "PATH")]
    pub turnpike: Option<PathBuf>,
    /// Log-ins of each way in a round.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub count: u32,
    /// How often each way has its turn; the median counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
}

/// A way to log in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Anonymous,
    Aliyun,
    Native,
    Signature,
    AnonymousTls,
    Certificate,
}

impl Way {
    const ALL: [Self; 6] =
        [Self::Anonymous, Self::Aliyun, Self::Native, Self::Signature, Self::AnonymousTls, Self::Certificate];

    fn name(self) -> &'static str {
        match self {
            Self::Anonymous => "nobody",
            Self::Aliyun => "HMAC-SHA256, profile `aliyun`",
            Self::Native => "HMAC-SHA256, profile `native` (its nonce is kept)",
            Self::Signature => "RSA-2048 signature, profile `native` (its nonce is kept)",
            Self::AnonymousTls => "nobody, over TLS 1.3",
            Self::Certificate => "X.509 over TLS 1.3, P-256, by the product's CA",
        }
    }

    /// By nobody over the same transport.
    fn base(self) -> Self {
        if self.has_tls() { Self::AnonymousTls } else { Self::Anonymous }
    }

    fn has_tls(self) -> bool {
        matches!(self, Self::AnonymousTls | Self::Certificate)
    }

    /// Microseconds beyond the base that it may cost.
    fn most(self) -> Option<f64> {
        match self {
            Self::Aliyun | Self::Native => Some(30.0),
            Self::Signature => Some(120.0),
            _ => None,
        }
    }
}

/// Measures, and prints a table in Markdown.
///
/// # Errors
/// A broker that doesn't start, or refuses a client.
pub fn run(logins: &Logins) -> anyhow::Result<()> {
    let program = match &logins.turnpike {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("turnpike"),
    };
    let stage = Stage::new(&program)?;
    let mut figures = vec![Vec::new(); Way::ALL.len()];
    for round in 0..logins.rounds {
        for turn in 0..Way::ALL.len() {
            let at = (turn + round as usize) % Way::ALL.len();
            let way = Way::ALL[at];
            let figure = stage.measure(way, logins.count, round);
            figures[at].push(figure.with_context(|| way.name().to_owned())?);
        }
    }
    let medians: Vec<f64> = figures.into_iter().map(median).collect();
    let of = |way: Way| Way::ALL.iter().position(|other| *other == way).map_or(f64::NAN, |at| medians[at]);
    println!(
        "CPU of the broker, µs a log-in; median of {} × {}; {}\n",
        logins.rounds,
        logins.count,
        crate::cpu::machine()
    );
    println!("| log-in | CPU | beyond nobody's | to reach |\n|---|---|---|---|");
    for way in Way::ALL {
        let beyond = if way == way.base() { "–".to_owned() } else { format!("{:.1}", of(way) - of(way.base())) };
        let most = way.most().map_or("–".to_owned(), |most| format!("≤ {most:.0}"));
        println!("| {} | {:.1} | {beyond} | {most} |", way.name(), of(way));
    }
    Ok(())
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Two brokers, and what the clients log in with.
struct Stage {
    open: Broker,
    closed: Broker,
    key: PrivateKey,
    certificate: Certificate,
    _folder: tempfile::TempDir,
}

impl Stage {
    fn new(program: &Path) -> anyhow::Result<Self> {
        let (mut authority, authority_key) = (CertificateParams::default(), KeyPair::generate()?);
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = authority.self_signed(&authority_key)?.pem();
        let [open, closed] =
            [Broker::turnpike(program, true, Some(&pem), "")?, Broker::turnpike(program, false, Some(&pem), "")?];

        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed).map_err(|_| anyhow::anyhow!("no random bytes"))?;
        let private = RsaPrivateKey::new(&mut ChaCha20Rng::from_seed(seed), RSA_BITS)?;
        let text = |tag: &str, der: &[u8]| pem::encode(&pem::Pem::new(tag, der));
        let key = PrivateKey::from_pem(&text("PRIVATE KEY", private.to_pkcs8_der()?.as_bytes()), &SystemRandom::new())?;
        let public = text("PUBLIC KEY", private.to_public_key().to_public_key_der()?.as_bytes());

        let product = format!("/api/v1/products/{PRODUCT}");
        closed.ask("PUT", &product, "{}")?;
        closed.ask("PUT", &format!("{product}/authorities"), &pem)?;
        closed.ask("PUT", &format!("{product}/devices/d"), &serde_json::json!({ "secret": SECRET }).to_string())?;
        let keys = serde_json::json!({ "keys": [public] }).to_string();
        closed.ask("PUT", &format!("{product}/devices/k/keys"), &keys)?;
        closed.ask("PUT", &format!("{product}/devices/c"), "{}")?;

        let (mut leaf, leaf_key) = (CertificateParams::default(), KeyPair::generate()?);
        leaf.distinguished_name.push(DnType::CommonName, format!("{PRODUCT}/c"));
        let leaf = leaf.signed_by(&leaf_key, &Issuer::new(authority, authority_key))?;
        let folder = tempfile::tempdir()?;
        let certificate =
            Certificate { chain: folder.path().join("device.pem"), key: folder.path().join("device.key") };
        std::fs::write(&certificate.chain, leaf.pem())?;
        std::fs::write(&certificate.key, leaf_key.serialize_pem())?;
        Ok(Self { open, closed, key, certificate, _folder: folder })
    }

    /// Microseconds of the broker's CPU for a log-in.
    fn measure(&self, way: Way, count: u32, round: u32) -> anyhow::Result<f64> {
        let broker = if way == way.base() { &self.open } else { &self.closed };
        let tls = broker.tls.as_ref().filter(|_| way.has_tls());
        let spec = Spec {
            address: tls.map_or(broker.address, |tls| tls.address),
            tls: tls.map(|tls| Tls {
                ca: Some(tls.ca.clone()),
                insecure: false,
                server_name: Some("localhost".to_owned()),
                certificate: (way == Way::Certificate).then(|| self.certificate.clone()),
            }),
            publishers: count as usize,
            subscribers: 0,
            duration: Duration::ZERO,
            identity: self.identity(way, count, round)?,
            // Client ids of each round are new to the broker, so that no session is taken over.
            run: std::process::id().wrapping_mul(1000).wrapping_add(round * 10 + way as u32),
            ..Spec::new(Scenario::Connect, broker.address)
        };
        let report = conduct(&spec.check()?, Some(broker.pid()), false)?;
        let failures: Vec<String> = report.outcome.failures.iter().map(|(why, n)| format!("{why} ({n})")).collect();
        anyhow::ensure!(failures.is_empty(), "{}", failures.join("; "));
        report.connecting.cpu_us_per(report.outcome.connecting.count()).context("the broker's CPU can't be read")
    }

    fn identity(&self, way: Way, count: u32, round: u32) -> anyhow::Result<Identity> {
        let signing = |profile: &str| {
            let (product, name, secret) = (PRODUCT.to_owned(), "d".to_owned(), SECRET.to_owned());
            Identity::Family { profile: profile.to_owned(), device: Device { product, name, secret }, count: 1 }
        };
        Ok(match way {
            Way::Anonymous | Way::AnonymousTls | Way::Certificate => Identity::Anonymous,
            Way::Aliyun => signing("aliyun").check()?,
            Way::Native => signing("native").check()?,
            Way::Signature => Identity::Lines((0..count).map(|n| self.signed(round, n)).collect::<Result<_, _>>()?),
        })
    }

    /// Made before the measurement: signing costs the client far more than verifying costs the broker.
    fn signed(&self, round: u32, n: u32) -> anyhow::Result<Login> {
        let since = SystemTime::UNIX_EPOCH.elapsed()?;
        let (client_id, nonce) = (format!("signed-{round}-{n}"), format!("{round}.{n}"));
        let request = SignedRequest {
            product: PRODUCT,
            device: "k",
            key: &self.key,
            client_id: Some(&client_id),
            timestamp_ms: u64::try_from(since.as_millis())?,
            nonce: &nonce,
        };
        let made = credential::native_signed(&request, &SystemRandom::new())?;
        Ok(Login { client_id: made.client_id, user_name: Some(made.user_name), password: Some(made.password) })
    }
}
