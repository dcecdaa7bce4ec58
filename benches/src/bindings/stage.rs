//! The broker, and who is in it: the service, the devices that publish and their users, and one user more.

use std::net::SocketAddr;
use std::path::Path;
use std::time::SystemTime;

use anyhow::Context;
use serde_json::{Value, json};
use turnpike_authz::credential;
use turnpike_authz::profile::Profile;
use turnpike_authz::secret::Secret;

use super::Bindings;
use super::probe::Probe;
use crate::compare::brokers::Broker;
use crate::http::Http;
use crate::identity::{Device, Identity, Login};
use crate::spec::{Pace, Scenario, Spec};

pub(super) const PRODUCT: &str = "bench";
pub(super) const APP: &str = "home";
const SERVICE: &str = "back-end";
/// As log-ins name a service's product.
const SERVICE_PRODUCT: &str = "$svc";
const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// Has nothing of its own.
const GUEST: &str = "guest";
/// Of a user's session code: longer than any run.
pub(super) const CODE_TTL_S: u32 = 86_400;

pub(super) struct Stage {
    broker: Broker,
    devices: usize,
    window: u32,
}

impl Stage {
    pub(super) fn new(program: &Path, bindings: &Bindings) -> anyhow::Result<Self> {
        let broker = Broker::turnpike(program, false, None, "shards = 1\n")?;
        let stage = Self { broker, devices: usize::from(bindings.devices), window: bindings.window };
        let mut http = stage.http()?;
        http.ask("PUT", &format!("/api/v1/products/{PRODUCT}"), "{}")?;
        http.ask("PUT", &format!("/api/v1/apps/{APP}"), "{}")?;
        let service = json!({ "secret": SECRET, "grants": [{ "product": PRODUCT, "rights": ["read_up"] }] });
        http.ask("PUT", &format!("/api/v1/services/{SERVICE}"), &service.to_string())?;
        for n in 0..stage.devices {
            let secret = json!({ "secret": SECRET }).to_string();
            http.ask("PUT", &device_path(&device(n), ""), &secret)?;
            http.ask("PUT", &user_path(&user(n), ""), "")?;
            bind(&mut http, PRODUCT, &device(n), &user(n))?;
        }
        http.ask("PUT", &user_path(GUEST, ""), "")?;
        Ok(stage)
    }

    pub(super) fn http(&self) -> anyhow::Result<Http> {
        self.broker.http()
    }

    pub(super) fn pid(&self) -> u32 {
        self.broker.pid()
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.broker.address
    }

    /// What the traffic is: the service first, then the users, then the devices.
    pub(super) fn spec(&self) -> anyhow::Result<Spec> {
        let mut http = self.http()?;
        let mut logins = vec![service_login()?];
        for n in 0..self.devices {
            logins.push(user_login(&mut http, &user(n))?);
        }
        let family = Device { product: PRODUCT.to_owned(), name: device("{i}"), secret: SECRET.to_owned() };
        let profile = Profile::Native.as_str().to_owned();
        let spec = Spec {
            publishers: self.devices,
            subscribers: self.devices + 1,
            pace: Pace::Window(self.window),
            identity: Identity::Family { profile, device: family, count: self.devices }.check()?,
            back_end: Identity::Lines(logins),
            ..Spec::new(Scenario::Feed, self.address())
        };
        Ok(spec.check()?)
    }

    /// Sees when a share of the first device holds.
    pub(super) fn probe(&self) -> anyhow::Result<Probe> {
        let login = user_login(&mut self.http()?, GUEST)?;
        let share = device_path(&device(0), &format!("/users/{APP}/{GUEST}"));
        Probe::new(self.address(), &login, &format!("user/{APP}:{GUEST}/#"), share)
    }
}

fn device(n: impl std::fmt::Display) -> String {
    format!("d{n}")
}

fn user(n: usize) -> String {
    format!("u{n}")
}

pub(super) fn user_path(user: &str, rest: &str) -> String {
    format!("/api/v1/apps/{APP}/users/{user}{rest}")
}

pub(super) fn device_path(device: &str, rest: &str) -> String {
    format!("/api/v1/products/{PRODUCT}/devices/{device}{rest}")
}

/// Makes a user the owner of a device, by a passcode that the device has shown.
pub(super) fn bind(http: &mut Http, product: &str, device: &str, user: &str) -> anyhow::Result<()> {
    let proof = http.ask("POST", &device_path(device, "/proofs"), r#"{"kind":"passcode"}"#)?;
    let body = json!({ "product": product, "device": device, "passcode": text(&proof, "text")? });
    http.ask("POST", &user_path(user, "/devices"), &body.to_string())?;
    Ok(())
}

fn text(answer: &str, field: &str) -> anyhow::Result<String> {
    let answer: Value = serde_json::from_str(answer)?;
    Ok(answer[field].as_str().with_context(|| format!("no {field} in the answer"))?.to_owned())
}

fn user_login(http: &mut Http, user: &str) -> anyhow::Result<Login> {
    let code = http.ask("POST", &user_path(user, "/codes"), &json!({ "ttl_s": CODE_TTL_S }).to_string())?;
    let password = Some(text(&code, "code")?);
    Ok(Login { client_id: format!("bench-{user}"), user_name: Some(format!("{APP}/{user}")), password })
}

fn service_login() -> anyhow::Result<Login> {
    let now_ms = u64::try_from(SystemTime::UNIX_EPOCH.elapsed()?.as_millis())?;
    let secret = Secret::new(SECRET.as_bytes())?;
    let made = credential::native(SERVICE_PRODUCT, SERVICE, &secret, "bench-service", now_ms, "bench");
    Ok(Login { client_id: made.client_id, user_name: Some(made.user_name), password: Some(made.password) })
}
