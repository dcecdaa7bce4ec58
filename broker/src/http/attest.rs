//! What a device is expected to state of itself: its module, its firmware, under its factor (`turnpike_authz::attest`).

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use turnpike_authz::attest::{Expectation, Firmware, MacAddress};
use turnpike_authz::secret::Secret;
use utoipa::ToSchema;

use super::api::{device_name, product_key};
use super::extract::{Asked, Bounded, Path, whole_body};
use super::{Api, Problem};
use crate::provision::random;

/// What a device is expected to state.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PutAttestation {
    /// The module's MAC: twelve hexadecimal digits, in pairs that may be parted by colons or hyphens.
    mac: String,
    /// The firmware's version; absent: whichever the device states.
    firmware: Option<String>,
    /// The factor that was burned in with the identity, 8 to 256 bytes; one is made where there is none.
    factor: Option<String>,
}

/// What a device is expected to state.
#[derive(Serialize, ToSchema)]
pub(super) struct AttestationView {
    mac: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    firmware: Option<String>,
    /// The factor, if it was made just now: it isn't shown again.
    #[serde(skip_serializing_if = "Option::is_none")]
    factor: Option<String>,
}

impl Asked for PutAttestation {
    const FIELDS: &'static [&'static str] = &["mac", "firmware", "factor"];
}

impl From<&Expectation> for AttestationView {
    fn from(expectation: &Expectation) -> Self {
        let firmware = expectation.firmware.as_ref().map(|firmware| firmware.as_str().to_owned());
        Self { mac: expectation.mac.to_string(), firmware, factor: None }
    }
}

/// What a device is expected to state of itself.
#[utoipa::path(get, path = "/api/v1/products/{product}/devices/{device}/attestation", params(("product" = String, Path), ("device" = String, Path)), responses((status = 200, body = AttestationView)), security(("token" = [])))]
pub(super) async fn show_attestation(
    State(api): State<Api>,
    Path((product, device)): Path<(String, String)>,
) -> Result<Json<AttestationView>, Problem> {
    api.existing_device(&product, &device)?;
    let expectation = api.gate.registry().expectation(&product, &device);
    let expectation = expectation.ok_or_else(|| Problem::not_found("nothing is expected of that device"))?;
    Ok(Json((&*expectation).into()))
}

/// Says what a device is expected to state of itself, from the next log-in on.
#[utoipa::path(put, path = "/api/v1/products/{product}/devices/{device}/attestation", params(("product" = String, Path), ("device" = String, Path)), request_body = PutAttestation, responses((status = 200, body = AttestationView)), security(("token" = [])))]
pub(super) async fn put_attestation(
    State(api): State<Api>,
    Path((product, device)): Path<(String, String)>,
    Bounded(bytes): Bounded,
) -> Result<Json<AttestationView>, Problem> {
    let asked: PutAttestation = whole_body(&bytes)?;
    let (key, name) = (product_key(&product)?, device_name(&device)?);
    let mac: MacAddress = asked.mac.parse().map_err(|error| Problem::invalid(format!("mac: {error}")))?;
    let firmware = asked.firmware.as_deref().map(Firmware::parse).transpose();
    let firmware = firmware.map_err(|error| Problem::invalid(format!("firmware: {error}")))?;
    let given = asked.factor.as_ref().map(|factor| Secret::new(factor.as_bytes())).transpose();
    let given = given.map_err(|_| Problem::invalid("factor: it has 8 to 256 bytes"))?;
    let made = given.is_none();
    let factor = given.unwrap_or_else(|| Secret::generate(random()));
    let seal = (api.gate.master_key(), random());
    let expectation = Expectation::new((key.as_str(), name.as_str()), mac, firmware, &factor, seal);
    let mut view = AttestationView::from(&expectation);
    view.factor = made.then(|| String::from_utf8_lossy(factor.expose()).into_owned());
    let _changing = api.changing.lock().await;
    api.commit(vec![api.gate.registry().plan_set_expectation(&key, &name, Some(expectation))?]).await?;
    Ok(Json(view))
}

/// Says that nothing is expected of a device.
#[utoipa::path(delete, path = "/api/v1/products/{product}/devices/{device}/attestation", params(("product" = String, Path), ("device" = String, Path)), responses((status = 204)), security(("token" = [])))]
pub(super) async fn delete_attestation(
    State(api): State<Api>,
    Path((product, device)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let (key, name) = (product_key(&product)?, device_name(&device)?);
    let _changing = api.changing.lock().await;
    api.commit(vec![api.gate.registry().plan_set_expectation(&key, &name, None)?]).await?;
    Ok(StatusCode::NO_CONTENT)
}
