//! What a product does with its devices' payloads on connections without TLS.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use turnpike_authz::cipher::{CipherPolicy, PayloadPolicy, Suite};
use utoipa::ToSchema;

use super::api::product_key;
use super::extract::{Asked, Bounded, Path, whole_body};
use super::{Api, Problem};

/// What is done with payloads.
#[derive(Serialize, Deserialize, ToSchema, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mode {
    /// They are what they are.
    Plain,
    /// Devices and applications seal them in their own way: they pass untouched.
    Transparent,
    /// On connections without TLS they are sealed between device and broker, as `authz/PAYLOAD.md` says.
    Cipher,
}

/// What a product does with payloads. Beside `mode` there are fields of the cipher alone; one that is absent gets its default.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PayloadsView {
    mode: Mode,
    /// `aes-128-gcm`, `aes-128-cfb`, `aes-128-cbc`: which a device may use. One that names none gets the first. Default: `aes-128-gcm` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    suites: Option<Vec<String>>,
    /// Seconds after which new keys are announced, 10 to 86,400. Default: 3,600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rekey_after_s: Option<u32>,
    /// Messages of both directions after which new keys are announced, 16 to 1,000,000,000. Default: 100,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rekey_messages: Option<u32>,
    /// Seconds for which the former keys are still taken, 1 to half of `rekey_after_s`. Default: 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    grace_s: Option<u32>,
}

impl Asked for PayloadsView {
    const FIELDS: &'static [&'static str] = &["mode", "suites", "rekey_after_s", "rekey_messages", "grace_s"];
}

impl From<PayloadPolicy> for PayloadsView {
    fn from(policy: PayloadPolicy) -> Self {
        let bare = |mode| Self { mode, suites: None, rekey_after_s: None, rekey_messages: None, grace_s: None };
        match policy {
            PayloadPolicy::Plain => bare(Mode::Plain),
            PayloadPolicy::Transparent => bare(Mode::Transparent),
            PayloadPolicy::Cipher(policy) => Self {
                mode: Mode::Cipher,
                suites: Some(policy.suites().iter().map(Suite::to_string).collect()),
                rekey_after_s: Some(policy.rekey_after_s()),
                rekey_messages: Some(policy.rekey_messages()),
                grace_s: Some(policy.grace_s()),
            },
        }
    }
}

impl PayloadsView {
    fn policy(&self) -> Result<PayloadPolicy, Problem> {
        let Self { mode, suites, rekey_after_s, rekey_messages, grace_s } = self;
        if *mode != Mode::Cipher {
            let is_bare = suites.is_none() && [rekey_after_s, rekey_messages, grace_s].iter().all(|n| n.is_none());
            let only = "suites, rekey_after_s, rekey_messages and grace_s are of the mode cipher alone";
            return match mode {
                _ if !is_bare => Err(Problem::invalid(only)),
                Mode::Transparent => Ok(PayloadPolicy::Transparent),
                Mode::Plain | Mode::Cipher => Ok(PayloadPolicy::Plain),
            };
        }
        let invalid = |error: turnpike_authz::cipher::policy::PolicyError| Problem::invalid(error.to_string());
        let default = CipherPolicy::default();
        let suites = match suites {
            Some(names) => names.iter().map(|name| name.parse()).collect::<Result<Vec<Suite>, _>>().map_err(invalid)?,
            None => default.suites().to_vec(),
        };
        let policy = CipherPolicy::new(
            &suites,
            rekey_after_s.unwrap_or(default.rekey_after_s()),
            rekey_messages.unwrap_or(default.rekey_messages()),
            grace_s.unwrap_or(default.grace_s()),
        );
        policy.map(PayloadPolicy::Cipher).map_err(invalid)
    }
}

/// What a product does with payloads.
#[utoipa::path(get, path = "/api/v1/products/{product}/payloads", params(("product" = String, Path)), responses((status = 200, body = PayloadsView)), security(("token" = [])))]
pub(super) async fn show_payloads(
    State(api): State<Api>,
    Path(product): Path<String>,
) -> Result<Json<PayloadsView>, Problem> {
    api.existing_product(&product)?;
    Ok(Json(api.gate.registry().payloads(&product).unwrap_or_default().into()))
}

/// Says what a product does with payloads. Connections for which this makes the difference between sealed and plain are closed; numbers and
/// suites count from the next connection on.
#[utoipa::path(put, path = "/api/v1/products/{product}/payloads", params(("product" = String, Path)), request_body = PayloadsView, responses((status = 200, body = PayloadsView)), security(("token" = [])))]
pub(super) async fn put_payloads(
    State(api): State<Api>,
    Path(product): Path<String>,
    Bounded(bytes): Bounded,
) -> Result<Json<PayloadsView>, Problem> {
    let policy = whole_body::<PayloadsView>(&bytes)?.policy()?;
    let key = product_key(&product)?;
    let _changing = api.changing.lock().await;
    api.commit(vec![api.gate.registry().plan_set_payloads(&key, policy)?]).await?;
    Ok(Json(policy.into()))
}
