//! Platforms from their creation to their end, on a clock of the tests.

mod records;
mod requests;
mod sessions;

use std::sync::LazyLock;

use turnpike_core::clock::Now;

use super::*;
use crate::names::ProductKey;
use crate::quota::{Quotas, Settings, Sizes};
use crate::secret::MasterKey;
use crate::x509::{Fingerprint, Leaf, testing};

const START_MS: u64 = 1_800_000_000_000;
const NONCES_MAX: usize = 16_000;

pub(super) fn at(ms: u64) -> Now {
    Now { mono_ms: 1_000 + ms, unix_ms: START_MS + ms }
}

/// A certificate valid for so many days.
fn leaf(name: &[u8], days: u64) -> Leaf {
    static LEAF: LazyLock<Leaf> = LazyLock::new(|| {
        let der = testing::Authority::new("ca").issue(&testing::named("client"));
        Leaf::read(&der).expect("a certificate")
    });
    let mut leaf = LEAF.clone();
    leaf.fingerprint = Fingerprint::of(name);
    leaf.not_before_ms = START_MS - WINDOW_MS;
    leaf.not_after_ms = leaf.not_before_ms + days * 24 * 60 * 60 * 1000;
    leaf
}

pub(super) fn product(text: &str) -> ProductKey {
    ProductKey::parse(text).expect("a name")
}

fn user(n: u8) -> UserId {
    UserId::parse(&hex::encode([n; 32])).expect("a user")
}

/// Platforms, one of which is at hand.
struct World {
    platforms: Platforms,
    quotas: Quotas,
    id: PlatId,
    auth: Token,
    certificate: Leaf,
    nonce: std::cell::Cell<u64>,
}

fn making(n: u8) -> AuthMaking {
    AuthMaking { number: [n; 32], token: [n; 32], seal: [n; 12], now_ms: START_MS }
}

fn random(n: u8) -> LogInRandom {
    LogInRandom { family: [n; 8], access: [n; 32], refresh: [n; 32] }
}

fn edit(name: &str, certificate: &[u8]) -> Edit {
    Edit {
        name: Some(name.into()),
        certificates: Some(vec![Fingerprint::of(certificate)]),
        grants: Some(vec![
            Grant { product: product("lamp"), control: true },
            Grant { product: product("meter"), control: false },
        ]),
        enabled: None,
    }
}

impl World {
    fn new() -> Self {
        let platforms = Platforms::new(MasterKey::new([7; 32]), NONCES_MAX);
        let Created { id, auth_token, changes } =
            platforms.plan_create(edit("cloud", b"one"), &making(1)).expect("made");
        changes.into_iter().for_each(|change| platforms.apply(change));
        let certificate = leaf(b"one", 730);
        let quotas = Quotas::new(Settings::default(), Sizes::default());
        Self { platforms, quotas, id, auth: auth_token, certificate, nonce: std::cell::Cell::new(0) }
    }

    /// Fields that every request has, signed last.
    fn fields(&self, operation: Operation, more: &[(&str, Value)], now: Now) -> Fields {
        self.nonce.set(self.nonce.get() + 1);
        let mut fields = Fields::new();
        let nonce = format!("{:032x}", self.nonce.get());
        let head = [
            ("plat_id", Value::Number(self.id.number())),
            ("timestamp", Value::Number(now.unix_ms)),
            ("nonce", Value::Text(nonce.into())),
        ];
        for (name, value) in head.iter().chain(more) {
            fields.put(name, value.clone()).expect("a field");
        }
        let signature =
            sign(self.auth.expose().as_bytes(), &[fields.canonical(Method::Post, operation.path()).as_bytes()]);
        fields.put("sign", Value::Text(signature.into())).expect("a field");
        fields
    }

    fn request(&self, operation: Operation, more: &[(&str, Value)], now: Now) -> Request {
        Request::read(operation, Method::Post, self.fields(operation, more, now)).expect("a request")
    }

    fn admit(&self, request: &Request, now: Now) -> Result<Admitted, Cause> {
        self.platforms.admit(request, &self.certificate, &self.quotas, now).map_err(|refused| refused.cause)
    }

    fn apply(&self, changes: Vec<Change>) {
        changes.into_iter().for_each(|change| self.platforms.apply(change));
    }

    fn log_in(&self, n: u8, now: Now) -> Issued {
        self.admit(&self.request(Operation::LogIn, &[], now), now).expect("admitted");
        let issued = self.platforms.plan_log_in(self.id, &random(n), now).expect("issued");
        self.apply(issued.changes.clone());
        issued
    }

    /// Whether an AccessToken is good.
    fn access(&self, token: &Token, now: Now) -> Result<FamilyId, Cause> {
        let request = self.request(Operation::LogOut, &[("access_token", text(token.expose()))], now);
        self.admit(&request, now).map(|admitted| admitted.family.expect("of a log-in"))
    }
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}
