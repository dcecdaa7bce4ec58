//! Registration in the ways of vendors, at the paths that their devices have built in. What the requests are stands in
//! [`turnpike_authz::presale`]; aliyun's over MQTT is the gate's.

use std::convert::Infallible;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use turnpike_authz::presale::register::Proven;
use turnpike_authz::presale::{Desk, Proof, RegisterError, Registration, Way, aliyun, gizwits, tencent};
use turnpike_authz::secret::Secret;
use turnpike_ota::wire::gizwits::Check;

use super::api::now_s;
use super::extract::{Bounded, Path};
use super::register::{Guest, Refused};
use super::{Api, COMMIT_TIME_MAX};
use crate::provision::random;

/// Where vendors' devices ask.
pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/auth/register/device", post(aliyun))
        .route("/register/dev", post(tencent))
        .route(TENCENT_SIGNED, post(tencent_signed_by_headers))
        .route("/dev/devices", post(gizwits))
        .route("/dev/devices/{did}", get(gizwits_provision))
        .route("/dev/ota/v4.1/update_and_check/{did}", post(gizwits_check))
        .route("/dev/{product}/device", post(gizwits_sealed))
        .route("/dev/{product}/device/{did}", get(gizwits_provision_sealed))
}

/// The path is signed, too.
const TENCENT_SIGNED: &str = "/device/register";

const JSON: [(header::HeaderName, &str); 1] = [(header::CONTENT_TYPE, "application/json; charset=utf-8")];
const FORM: [(header::HeaderName, &str); 1] = [(header::CONTENT_TYPE, "application/x-www-form-urlencoded")];

impl Api {
    /// Registers a device whose vendor's request `prove` finds right under the product's secret. Gives that secret, too: some answers are encrypted
    /// under it.
    pub(super) async fn register_by_vendor(
        &self,
        guest: &Guest,
        product: &str,
        prove: impl FnOnce(&Desk<'_>, &Secret) -> Result<Proven, RegisterError>,
    ) -> Result<(Registration, Secret), Refused> {
        // Proved before the wait for the lock: strangers who prove nothing don't queue there. The product's secret may change meanwhile; then
        // the one that the device has proved is the one that it had when it asked.
        let asked = {
            let book = self.registrar.book();
            let desk = Desk { registry: self.gate.registry(), book: &book, key: self.gate.master_key() };
            desk.product_secret(product).and_then(|secret| Ok((prove(&desk, &secret)?, secret)))
        };
        let (proven, secret) = asked.inspect_err(|error| self.not_registered(guest, product, *error))?;
        let made = self.register(guest, product, None, |_| Ok(Proof::Vendor(&proven))).await?;
        Ok((made, secret))
    }

    fn malformed(&self, guest: &Guest) -> Refused {
        self.not_registered(guest, "", RegisterError::Malformed);
        RegisterError::Malformed.into()
    }
}

fn aliyun_refused(refused: Refused) -> Response {
    let body = serde_json::json!({ "code": refused.status().as_u16(), "message": refused.code() });
    (refused.status(), JSON, body.to_string()).into_response()
}

/// Aliyun: a form.
#[utoipa::path(post, path = "/auth/register/device", request_body(content = String, content_type = "application/x-www-form-urlencoded", description = "`productKey=&deviceName=&random=&sign=&signMethod=`"), responses((status = 200, description = "`{code: 200, data: {productKey, deviceName, deviceSecret}}`"), (status = 400), (status = 403), (status = 404), (status = 409), (status = 410), (status = 429), (status = 503)))]
pub(super) async fn aliyun(
    State(api): State<Api>,
    Extension(guest): Extension<Guest>,
    Bounded(bytes): Bounded,
) -> Response {
    let fields = gizwits::form(&bytes).unwrap_or_default();
    let Some(claim) = aliyun::Claim::from_form(&fields) else { return aliyun_refused(api.malformed(&guest)) };
    match api.register_by_vendor(&guest, claim.product, |_, secret| claim.prove(secret)).await {
        Ok((made, _)) => match turnpike_authz::names::ProductKey::parse(claim.product) {
            Ok(product) => (JSON, aliyun::body(&product, &made)).into_response(),
            Err(_) => aliyun_refused(RegisterError::Malformed.into()),
        },
        Err(refused) => aliyun_refused(refused),
    }
}

/// A body of Tencent's older kind.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct TencentBody {
    device_name: String,
    nonce: i64,
    product_id: String,
    timestamp: i64,
    signature: String,
}

/// A body of the newer kind.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct TencentSignedBody {
    product_id: String,
    device_name: String,
}

/// Whether devices of the product have to be listed: they needn't if the product takes any.
fn must_be_listed(desk: &Desk<'_>, product: &str) -> bool {
    !desk.book.settings(product).ways.contains(Way::TencentUnlisted)
}

fn tencent_refused(refused: Refused) -> Response {
    let body = serde_json::json!({ "code": refused.status().as_u16(), "message": refused.code() });
    (refused.status(), JSON, body.to_string()).into_response()
}

/// Tencent's older way: JSON, signed within.
#[utoipa::path(post, path = "/register/dev", request_body(content = String, content_type = "application/json", description = "`{deviceName, nonce, productId, timestamp, signature}`"), responses((status = 200, description = "`{code: 0, message, len, payload}`, the payload under AES-128-CBC"), (status = 400), (status = 403), (status = 404), (status = 409), (status = 410), (status = 429), (status = 503)))]
pub(super) async fn tencent(
    State(api): State<Api>,
    Extension(guest): Extension<Guest>,
    Bounded(bytes): Bounded,
) -> Response {
    let Ok(asked) = serde_json::from_slice::<TencentBody>(&bytes) else {
        return tencent_refused(api.malformed(&guest));
    };
    let names = (asked.product_id.as_str(), asked.device_name.as_str());
    let Ok(claim) = tencent::Claim::from_body(names, (asked.nonce, asked.timestamp), &asked.signature) else {
        return tencent_refused(api.malformed(&guest));
    };
    let prove = |desk: &Desk<'_>, secret: &Secret| {
        can_encrypt(secret)?;
        claim.prove(secret, must_be_listed(desk, &asked.product_id))
    };
    match api.register_by_vendor(&guest, &asked.product_id, prove).await {
        Ok((made, secret)) => match tencent::body(&made, &secret) {
            Some(body) => (JSON, body).into_response(),
            None => tencent_refused(RegisterError::NotAllowed.into()),
        },
        Err(refused) => tencent_refused(refused),
    }
}

/// Before a device is registered, and not after: the answer is encrypted under the product's secret.
fn can_encrypt(secret: &Secret) -> Result<(), RegisterError> {
    if secret.expose().len() >= 16 { Ok(()) } else { Err(RegisterError::NotAllowed) }
}

fn tencent_signed_refused(refused: Refused, request_id: &str) -> Response {
    let error = serde_json::json!({ "Code": refused.code(), "Message": refused.message() });
    let body = serde_json::json!({ "Response": { "Error": error, "RequestId": request_id } });
    (refused.status(), JSON, body.to_string()).into_response()
}

/// Tencent's newer way: JSON, signed by headers.
#[utoipa::path(post, path = "/device/register", request_body(content = String, content_type = "application/json", description = "`{ProductId, DeviceName}`; headers `X-TC-Algorithm`, `X-TC-Timestamp`, `X-TC-Nonce`, `X-TC-Signature`"), responses((status = 200, description = "`{Response: {Len, Payload, RequestId}}`, the payload under AES-128-CBC"), (status = 400), (status = 403), (status = 404), (status = 409), (status = 410), (status = 429), (status = 503)))]
pub(super) async fn tencent_signed_by_headers(
    State(api): State<Api>,
    Extension(guest): Extension<Guest>,
    headers: HeaderMap,
    Bounded(bytes): Bounded,
) -> Response {
    let request_id = hex::encode(random::<16>());
    let Ok(asked) = serde_json::from_slice::<TencentSignedBody>(&bytes) else {
        return tencent_signed_refused(api.malformed(&guest), &request_id);
    };
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let signed = tencent::Headers {
        host: text("host"),
        path: TENCENT_SIGNED,
        algorithm: text("x-tc-algorithm"),
        timestamp: text("x-tc-timestamp"),
        nonce: text("x-tc-nonce"),
        signature: text("x-tc-signature"),
    };
    let names = (asked.product_id.as_str(), asked.device_name.as_str());
    let Ok(claim) = tencent::Claim::from_headers(&signed, &bytes, names) else {
        return tencent_signed_refused(api.malformed(&guest), &request_id);
    };
    let prove = |desk: &Desk<'_>, secret: &Secret| {
        can_encrypt(secret)?;
        claim.prove(secret, must_be_listed(desk, &asked.product_id))
    };
    match api.register_by_vendor(&guest, &asked.product_id, prove).await {
        Ok((made, secret)) => match tencent::response(&made, &secret, &request_id) {
            Some(body) => (JSON, body).into_response(),
            None => tencent_signed_refused(RegisterError::NotAllowed.into(), &request_id),
        },
        Err(refused) => tencent_signed_refused(refused, &request_id),
    }
}

fn gizwits_refused(refused: Refused) -> Response {
    (refused.status(), FORM, format!("error={}", refused.code())).into_response()
}

/// Gizwits, in the clear: a form.
#[utoipa::path(post, path = "/dev/devices", request_body(content = String, content_type = "application/x-www-form-urlencoded", description = "`passcode=&mac=&product_key=`"), responses((status = 201, description = "`did=`"), (status = 400), (status = 403), (status = 404), (status = 409), (status = 410), (status = 429), (status = 503)))]
pub(super) async fn gizwits(
    State(api): State<Api>,
    Extension(guest): Extension<Guest>,
    Bounded(bytes): Bounded,
) -> Response {
    let Ok(proven) = gizwits::prove(&bytes) else { return gizwits_refused(api.malformed(&guest)) };
    let made = api.register(&guest, proven.product().as_str(), None, |_| Ok(Proof::Vendor(&proven))).await;
    gizwits_answer(made, None)
}

fn gizwits_answer(made: Result<Registration, Refused>, secret: Option<&Secret>) -> Response {
    match made.and_then(|made| gizwits::body(&made, secret).map_err(Refused::from)) {
        Ok(body) => (StatusCode::CREATED, FORM, body).into_response(),
        Err(refused) => gizwits_refused(refused),
    }
}

/// Gizwits, encrypted under the product's secret.
#[utoipa::path(post, path = "/dev/{product}/device", params(("product" = String, Path)), request_body(content = String, content_type = "application/x-www-form-urlencoded", description = "`data=` hexadecimal digits of AES-128 of `mac=&passcode=&type=`"), responses((status = 201, description = "hexadecimal digits of AES-128 of `did=`"), (status = 400), (status = 403), (status = 404), (status = 409), (status = 410), (status = 429), (status = 503)))]
pub(super) async fn gizwits_sealed(
    State(api): State<Api>,
    Extension(guest): Extension<Guest>,
    Path(product): Path<String>,
    Bounded(bytes): Bounded,
) -> Response {
    let prove = |_: &Desk<'_>, secret: &Secret| gizwits::prove_sealed(&product, &bytes, secret);
    match api.register_by_vendor(&guest, &product, prove).await {
        Ok((made, secret)) => gizwits_answer(Ok(made), Some(&secret)),
        Err(refused) => gizwits_refused(refused),
    }
}

impl Api {
    /// Where to connect to, which is the same for everybody: whether there is such a device isn't told.
    fn provision(&self, secret: Option<&Secret>) -> Response {
        let Some((host, port)) = &self.registrar.settings().mqtt else {
            return gizwits_refused(RegisterError::NotAllowed.into());
        };
        match gizwits::provision(host, *port, now_s(), secret) {
            Ok(body) => (FORM, body).into_response(),
            Err(error) => gizwits_refused(error.into()),
        }
    }
}

/// Gizwits: where a device connects to.
#[utoipa::path(get, path = "/dev/devices/{did}", params(("did" = String, Path)), responses((status = 200, description = "`host=&port=&server_ts=&…`"), (status = 403, description = "`registration.mqtt` isn't configured"), (status = 429)))]
pub(super) async fn gizwits_provision(State(api): State<Api>) -> Response {
    api.provision(None)
}

/// The same, encrypted under the product's secret.
#[utoipa::path(get, path = "/dev/{product}/device/{did}", params(("product" = String, Path), ("did" = String, Path)), responses((status = 200, description = "hexadecimal digits of AES-128 of `host=&port=&server_ts=&…`"), (status = 403), (status = 429)))]
pub(super) async fn gizwits_provision_sealed(
    State(api): State<Api>,
    Path((product, _)): Path<(String, String)>,
) -> Response {
    let secret = api.ask_desk(|desk| Ok::<_, super::Problem>(desk.product_secret(&product)));
    match secret {
        Ok(Ok(secret)) => api.provision(Some(&secret)),
        Ok(Err(error)) => gizwits_refused(error.into()),
        Err(_) => gizwits_refused(Refused::Unavailable),
    }
}

/// Gizwits: whether there is firmware for a part of the device. The answer is sent in chunks, since the line end behind them is what some of these devices look for.
#[utoipa::path(post, path = "/dev/ota/v4.1/update_and_check/{did}", params(("did" = String, Path)), request_body(content = String, content_type = "application/x-www-form-urlencoded", description = "`passcode=&type=&hard_version=&soft_version=`, the type 1 for the module or 2 for the MCU"), responses((status = 200, description = "`soft_ver=&download_url=`"), (status = 400), (status = 403), (status = 404, description = "there is nothing"), (status = 429), (status = 503)))]
pub(super) async fn gizwits_check(
    State(api): State<Api>,
    Extension(guest): Extension<Guest>,
    Path(did): Path<String>,
    Bounded(bytes): Bounded,
) -> Response {
    let said = |status: StatusCode, error: &str| (status, FORM, format!("error={error}")).into_response();
    let Some(ota) = &api.ota else { return said(StatusCode::NOT_FOUND, "no_update") };
    let Ok(check) = Check::read(&bytes) else { return said(StatusCode::BAD_REQUEST, "malformed") };
    let Some(product) = api.gate.passcode_owner(&did, &check.passcode, guest.tls) else {
        // A guess, as at any other door.
        if !guest.is_guarded {
            let events = api.guarded.guard().failed(guest.source.ip(), None, api.control.now());
            events.iter().for_each(|event| api.audit.sink().record_security(event));
        }
        return said(StatusCode::FORBIDDEN, "wrong_passcode");
    };
    let (answer, committed) = ota.gizwits_check(product.as_str(), &did, check);
    if let Some(committed) = committed
        && !matches!(tokio::time::timeout(COMMIT_TIME_MAX, committed).await, Ok(Ok(())))
    {
        return said(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable");
    }
    match answer {
        Some(answer) => {
            let chunk = futures_util::stream::once(std::future::ready(Ok::<_, Infallible>(answer)));
            (FORM, Body::from_stream(chunk)).into_response()
        }
        None => said(StatusCode::NOT_FOUND, "no_update"),
    }
}
