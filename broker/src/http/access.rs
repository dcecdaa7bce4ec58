//! How a product's devices may log in, and by what a device proves who it is.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use turnpike_authz::keys::{Proof, Proofs, PublicKey};
use turnpike_authz::product::ProductPolicy;
use turnpike_authz::profile::{Profile, ProfileSet};
use turnpike_authz::verifier::VerifierName;
use turnpike_authz::x509::{Authorities, Fingerprint};
use utoipa::ToSchema;

use super::api::{device_name, product_key};
use super::extract::{Asked, Bounded, Path, whole_body};
use super::{Api, Problem};

/// Log-in formats.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ProfileList {
    /// Names of log-in formats, such as `native`.
    profiles: Vec<String>,
}

/// What a product demands of log-ins. A key that is absent is false.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
pub(super) struct PolicyView {
    /// Devices may have RSA keys of 1024 bits.
    allow_rsa_1024: bool,
    /// A device comes through TLS.
    require_tls: bool,
    /// A device shows a certificate of its own.
    require_certificate: bool,
    /// A device states which firmware it runs on which module, and it is what is expected. In force from the next log-in on.
    require_attestation: bool,
    /// A device is refused that is suspected to have a clone; absent for what the configuration says.
    #[serde(skip_serializing_if = "Option::is_none")]
    refuse_clones: Option<bool>,
}

/// Who judges a product's devices.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct VerifierView {
    /// Such as `callout`; absent: the broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    verifier: Option<String>,
}

/// Who issues certificates of a product's devices.
#[derive(Serialize, ToSchema)]
pub(super) struct AuthoritiesView {
    /// SHA-256 of each authority's certificate, in hexadecimal digits.
    authorities: Vec<String>,
}

/// By what a device proves who it is, 1 to 4 together.
#[derive(Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct PutKeys {
    /// Public keys in PEM: RSA, ECDSA over P-256, Ed25519.
    keys: Vec<String>,
    /// SHA-256 of certificates, in hexadecimal digits.
    certificates: Vec<String>,
}

/// A public key.
#[derive(Serialize, ToSchema)]
pub(super) struct KeyView {
    /// What it is, such as `ed25519`.
    kind: String,
    /// SHA-256 of its DER, in hexadecimal digits.
    fingerprint: String,
}

/// By what a device proves who it is, beside its secret.
#[derive(Serialize, ToSchema)]
pub(super) struct KeysView {
    keys: Vec<KeyView>,
    certificates: Vec<String>,
}

impl Asked for ProfileList {
    const FIELDS: &'static [&'static str] = &["profiles"];
}

impl Asked for PolicyView {
    const FIELDS: &'static [&'static str] =
        &["allow_rsa_1024", "require_tls", "require_certificate", "require_attestation", "refuse_clones"];
}

impl Asked for VerifierView {
    const FIELDS: &'static [&'static str] = &["verifier"];
}

impl Asked for PutKeys {
    const FIELDS: &'static [&'static str] = &["keys", "certificates"];
}

impl From<ProductPolicy> for PolicyView {
    fn from(policy: ProductPolicy) -> Self {
        let ProductPolicy { allow_rsa_1024, require_tls, require_certificate, require_attestation, refuse_clones } =
            policy;
        Self { allow_rsa_1024, require_tls, require_certificate, require_attestation, refuse_clones }
    }
}

impl From<PolicyView> for ProductPolicy {
    fn from(view: PolicyView) -> Self {
        let PolicyView { allow_rsa_1024, require_tls, require_certificate, require_attestation, refuse_clones } = view;
        Self { allow_rsa_1024, require_tls, require_certificate, require_attestation, refuse_clones }
    }
}

impl PutKeys {
    fn proofs(&self) -> Result<Proofs, Problem> {
        let invalid = |error: &dyn std::fmt::Display| Problem::invalid(error.to_string());
        let keys =
            self.keys.iter().map(|pem| PublicKey::parse(pem.as_bytes()).map(Proof::Key).map_err(|e| invalid(&e)));
        let certificates = self
            .certificates
            .iter()
            .map(|text| text.parse::<Fingerprint>().map(Proof::Certificate).map_err(|error| invalid(&error)));
        let proofs = keys.chain(certificates).collect::<Result<Vec<_>, _>>()?;
        Proofs::new(proofs).map_err(|error| invalid(&error))
    }
}

impl Api {
    fn view_profiles(&self, product: &str) -> Json<ProfileList> {
        let set = self.gate.registry().profiles(product).unwrap_or(ProfileSet::DEFAULT);
        Json(ProfileList { profiles: set.iter().map(|profile| profile.as_str().to_owned()).collect() })
    }

    fn view_keys(&self, product: &str, device: &str) -> Json<KeysView> {
        let proofs = self.gate.registry().proofs(product, device);
        let key =
            |key: &PublicKey| KeyView { kind: key.kind().to_string(), fingerprint: key.fingerprint().to_string() };
        Json(KeysView {
            keys: proofs.iter().flat_map(|proofs| proofs.keys()).map(key).collect(),
            certificates: proofs
                .iter()
                .flat_map(|proofs| proofs.certificates())
                .map(|print| print.to_string())
                .collect(),
        })
    }
}

/// The log-in formats that a product takes.
#[utoipa::path(get, path = "/api/v1/products/{product}/profiles", params(("product" = String, Path)), responses((status = 200, body = ProfileList)), security(("token" = [])))]
pub(super) async fn show_profiles(
    State(api): State<Api>,
    Path(product): Path<String>,
) -> Result<Json<ProfileList>, Problem> {
    api.existing_product(&product)?;
    Ok(api.view_profiles(&product))
}

/// Says which log-in formats a product takes. Who has come in by another is closed.
#[utoipa::path(put, path = "/api/v1/products/{product}/profiles", params(("product" = String, Path)), request_body = ProfileList, responses((status = 200, body = ProfileList)), security(("token" = [])))]
pub(super) async fn put_profiles(
    State(api): State<Api>,
    Path(product): Path<String>,
    Bounded(bytes): Bounded,
) -> Result<Json<ProfileList>, Problem> {
    let asked: ProfileList = whole_body(&bytes)?;
    let key = product_key(&product)?;
    let known = || Profile::ALL.map(Profile::as_str).join(", ");
    let profiles = asked.profiles.iter().map(|name| name.parse::<Profile>());
    let set = profiles.collect::<Result<ProfileSet, _>>();
    let set = set.map_err(|_| Problem::invalid(format!("profiles: there are {}", known())))?;
    let _changing = api.changing.lock().await;
    api.commit(vec![api.gate.registry().plan_allow_profiles(&key, set)?]).await?;
    Ok(api.view_profiles(&product))
}

/// What a product demands of log-ins.
#[utoipa::path(get, path = "/api/v1/products/{product}/policy", params(("product" = String, Path)), responses((status = 200, body = PolicyView)), security(("token" = [])))]
pub(super) async fn show_policy(
    State(api): State<Api>,
    Path(product): Path<String>,
) -> Result<Json<PolicyView>, Problem> {
    api.existing_product(&product)?;
    Ok(Json(api.gate.registry().policy(&product).unwrap_or_default().into()))
}

/// Says what a product demands of log-ins. Who has come in without it is closed.
#[utoipa::path(put, path = "/api/v1/products/{product}/policy", params(("product" = String, Path)), request_body = PolicyView, responses((status = 200, body = PolicyView)), security(("token" = [])))]
pub(super) async fn put_policy(
    State(api): State<Api>,
    Path(product): Path<String>,
    Bounded(bytes): Bounded,
) -> Result<Json<PolicyView>, Problem> {
    let asked: PolicyView = whole_body(&bytes)?;
    let key = product_key(&product)?;
    let policy = ProductPolicy::from(asked);
    let _changing = api.changing.lock().await;
    api.commit(vec![api.gate.registry().plan_set_policy(&key, policy)?]).await?;
    Ok(Json(policy.into()))
}

/// Who judges a product's devices.
#[utoipa::path(get, path = "/api/v1/products/{product}/verifier", params(("product" = String, Path)), responses((status = 200, body = VerifierView)), security(("token" = [])))]
pub(super) async fn show_verifier(
    State(api): State<Api>,
    Path(product): Path<String>,
) -> Result<Json<VerifierView>, Problem> {
    api.existing_product(&product)?;
    let verifier = api.gate.registry().verifier(&product);
    Ok(Json(VerifierView { verifier: verifier.map(|name| name.to_string()) }))
}

/// Says who judges a product's devices: a verifier of this broker, or the broker itself. Who has come in by another verifier's word is closed.
#[utoipa::path(put, path = "/api/v1/products/{product}/verifier", params(("product" = String, Path)), request_body = VerifierView, responses((status = 200, body = VerifierView)), security(("token" = [])))]
pub(super) async fn put_verifier(
    State(api): State<Api>,
    Path(product): Path<String>,
    Bounded(bytes): Bounded,
) -> Result<Json<VerifierView>, Problem> {
    let VerifierView { verifier } = whole_body(&bytes)?;
    let key = product_key(&product)?;
    let known: Vec<VerifierName> = api.gate.verifiers().collect();
    let named = |name: String| known.iter().find(|known| known.as_str() == name).cloned().ok_or(());
    let verifier = verifier.map(named).transpose().map_err(|()| {
        let names: Vec<&str> = known.iter().map(VerifierName::as_str).collect();
        Problem::invalid(format!(
            "verifier: this broker has {}",
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        ))
    })?;
    let shown = verifier.as_ref().map(ToString::to_string);
    let _changing = api.changing.lock().await;
    api.commit(vec![api.gate.registry().plan_set_verifier(&key, verifier)?]).await?;
    Ok(Json(VerifierView { verifier: shown }))
}

/// Who issues the certificates of a product's devices.
#[utoipa::path(get, path = "/api/v1/products/{product}/authorities", params(("product" = String, Path)), responses((status = 200, body = AuthoritiesView)), security(("token" = [])))]
pub(super) async fn show_authorities(
    State(api): State<Api>,
    Path(product): Path<String>,
) -> Result<Json<AuthoritiesView>, Problem> {
    api.existing_product(&product)?;
    let given = api.gate.registry().authorities(&product);
    let prints = given.iter().flat_map(|given| given.iter()).map(|der| Fingerprint::of(der).to_string()).collect();
    Ok(Json(AuthoritiesView { authorities: prints }))
}

/// Says who issues the certificates of a product's devices: certificates in PEM. An empty body takes all of them away. Who has come in by one that is gone is closed.
#[utoipa::path(put, path = "/api/v1/products/{product}/authorities", params(("product" = String, Path)), request_body(content = String, content_type = "application/x-pem-file"), responses((status = 200, body = AuthoritiesView)), security(("token" = [])))]
pub(super) async fn put_authorities(
    State(api): State<Api>,
    Path(product): Path<String>,
    Bounded(bytes): Bounded,
) -> Result<Json<AuthoritiesView>, Problem> {
    let key = product_key(&product)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| Problem::invalid("the body isn't PEM"))?;
    let given = (!text.trim().is_empty()).then(|| Authorities::from_pem(text)).transpose();
    let given = given.map_err(|error| Problem::invalid(error.to_string()))?;
    if given.as_ref().is_some_and(|given| given.has_expired(crate::audit::now_ms())) {
        return Err(Problem::invalid("a CA certificate has expired"));
    }
    let prints = given.iter().flat_map(Authorities::iter).map(|der| Fingerprint::of(der).to_string()).collect();
    let _changing = api.changing.lock().await;
    api.commit(vec![api.gate.registry().plan_set_authorities(&key, given)?]).await?;
    Ok(Json(AuthoritiesView { authorities: prints }))
}

/// The public keys and certificates of a device.
#[utoipa::path(get, path = "/api/v1/products/{product}/devices/{device}/keys", params(("product" = String, Path), ("device" = String, Path)), responses((status = 200, body = KeysView)), security(("token" = [])))]
pub(super) async fn show_keys(
    State(api): State<Api>,
    Path((product, device)): Path<(String, String)>,
) -> Result<Json<KeysView>, Problem> {
    api.existing_device(&product, &device)?;
    Ok(api.view_keys(&product, &device))
}

/// Says which public keys and certificates a device has, in place of those that it had; who has come in by one of these is closed. Its secret stays; a device that isn't there is
/// created, and has none.
#[utoipa::path(put, path = "/api/v1/products/{product}/devices/{device}/keys", params(("product" = String, Path), ("device" = String, Path)), request_body = PutKeys, responses((status = 200, body = KeysView, description = "replaced"), (status = 201, body = KeysView, description = "the device was created"), (status = 409)), security(("token" = [])))]
pub(super) async fn put_keys(
    State(api): State<Api>,
    Path((product, device)): Path<(String, String)>,
    Bounded(bytes): Bounded,
) -> Result<(StatusCode, Json<KeysView>), Problem> {
    let asked: PutKeys = whole_body(&bytes)?;
    let (key, name) = (product_key(&product)?, device_name(&device)?);
    let proofs = asked.proofs()?;
    let _changing = api.changing.lock().await;
    let registry = api.gate.registry();
    let (changes, is_new) = registry.plan_put_keyed_device(&key, &name, proofs, None, super::api::now_s())?;
    api.commit(changes).await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, api.view_keys(&product, &device)))
}

/// Takes all public keys and certificates of a device away, and closes who has come in by one.
#[utoipa::path(delete, path = "/api/v1/products/{product}/devices/{device}/keys", params(("product" = String, Path), ("device" = String, Path)), responses((status = 204)), security(("token" = [])))]
pub(super) async fn delete_keys(
    State(api): State<Api>,
    Path((product, device)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let (key, name) = (product_key(&product)?, device_name(&device)?);
    let _changing = api.changing.lock().await;
    api.commit(vec![api.gate.registry().plan_set_device_keys(&key, &name, None)?]).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes a device's secret away, and closes who has come in by it: it logs in by key or certificate from then on.
#[utoipa::path(delete, path = "/api/v1/products/{product}/devices/{device}/secret", params(("product" = String, Path), ("device" = String, Path)), responses((status = 204, description = "it has none")), security(("token" = [])))]
pub(super) async fn drop_secret(
    State(api): State<Api>,
    Path((product, device)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let (key, name) = (product_key(&product)?, device_name(&device)?);
    let _changing = api.changing.lock().await;
    api.commit(vec![api.gate.registry().plan_drop_secret(&key, &name)?]).await?;
    Ok(StatusCode::NO_CONTENT)
}
