//! How fast the devices of a product may be, and a single one, where it isn't as the configuration says for all.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use turnpike_authz::limits::{WrittenFlow, WrittenLimits, WrittenRate};
use turnpike_core::meter::Excess;
use utoipa::ToSchema;

use super::api::{device_name, product_key};
use super::extract::{Asked, Bounded, Path, whole_body};
use super::{Api, Problem};

/// Messages and bytes of a client: a count and a time, and how much at once, such as `100/1s burst 500`.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Flow {
    /// `unlimited` where it isn't said.
    #[serde(default = "unlimited")]
    messages: String,
    /// `unlimited` where it isn't said.
    #[serde(default = "unlimited")]
    bytes: String,
}

/// Limits of a product. What is absent is as the configuration says for all.
#[derive(Serialize, Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    /// Each device.
    #[serde(skip_serializing_if = "Option::is_none")]
    each_device: Option<Flow>,
    /// All devices together.
    #[serde(skip_serializing_if = "Option::is_none")]
    product: Option<Flow>,
    /// What MQTT 5 clients see of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    excess: Option<ExcessView>,
}

/// What MQTT 5 clients see of a limit. Where both are false they are read more slowly, as others are.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
pub(super) struct ExcessView {
    /// QoS 1 and 2 are refused with 0x97.
    refuse_acked: bool,
    /// QoS 0 is dropped.
    drop_unacked: bool,
}

impl Asked for Flow {
    const FIELDS: &'static [&'static str] = &["messages", "bytes"];
}

impl Asked for Limits {
    const FIELDS: &'static [&'static str] = &["each_device", "product", "excess"];
}

fn unlimited() -> String {
    WrittenRate::default().as_str().to_owned()
}

impl Flow {
    fn written(&self, of: &str) -> Result<WrittenFlow, Problem> {
        let rate = |name: &str, text: &str| {
            let form = "a count and a time, such as 100/1s or 100/1s burst 500, or unlimited";
            text.parse::<WrittenRate>().map_err(|_| Problem::invalid(format!("{of}{name}: {form}")))
        };
        Ok(WrittenFlow { messages: rate("messages", &self.messages)?, bytes: rate("bytes", &self.bytes)? })
    }

    fn of(flow: &WrittenFlow) -> Self {
        Self { messages: flow.messages.as_str().to_owned(), bytes: flow.bytes.as_str().to_owned() }
    }
}

impl Limits {
    fn written(&self) -> Result<WrittenLimits, Problem> {
        let excess = |ExcessView { refuse_acked, drop_unacked }: &ExcessView| Excess {
            refuse_acked: *refuse_acked,
            drop_unacked: *drop_unacked,
        };
        Ok(WrittenLimits {
            each_device: self.each_device.as_ref().map(|flow| flow.written("each_device.")).transpose()?,
            product: self.product.as_ref().map(|flow| flow.written("product.")).transpose()?,
            excess: self.excess.as_ref().map(excess),
        })
    }

    fn of(limits: &WrittenLimits) -> Self {
        let excess = |Excess { refuse_acked, drop_unacked }: Excess| ExcessView { refuse_acked, drop_unacked };
        Self {
            each_device: limits.each_device.as_ref().map(Flow::of),
            product: limits.product.as_ref().map(Flow::of),
            excess: limits.excess.map(excess),
        }
    }
}

impl Api {
    fn view_limits(&self, product: &str) -> Json<Limits> {
        Json(self.gate.registry().product_limits(product).map_or_else(Limits::default, |limits| Limits::of(&limits)))
    }
}

/// A product's own limits.
#[utoipa::path(get, path = "/api/v1/products/{product}/limits", params(("product" = String, Path)), responses((status = 200, body = Limits)), security(("token" = [])))]
pub(super) async fn show_limits(State(api): State<Api>, Path(product): Path<String>) -> Result<Json<Limits>, Problem> {
    api.existing_product(&product)?;
    Ok(api.view_limits(&product))
}

/// Gives a product limits of its own, in place of those that it had. Live sessions keep to them from their next message on.
#[utoipa::path(put, path = "/api/v1/products/{product}/limits", params(("product" = String, Path)), request_body = Limits, responses((status = 200, body = Limits)), security(("token" = [])))]
pub(super) async fn put_limits(
    State(api): State<Api>,
    Path(product): Path<String>,
    Bounded(bytes): Bounded,
) -> Result<Json<Limits>, Problem> {
    let asked: Limits = whole_body(&bytes)?;
    let (key, limits) = (product_key(&product)?, asked.written()?);
    let _changing = api.changing.lock().await;
    api.commit(vec![api.gate.registry().plan_limit_product(&key, Some(limits))?]).await?;
    Ok(api.view_limits(&product))
}

/// Takes a product's own limits away: those of the configuration hold.
#[utoipa::path(delete, path = "/api/v1/products/{product}/limits", params(("product" = String, Path)), responses((status = 204, description = "it has none")), security(("token" = [])))]
pub(super) async fn delete_limits(State(api): State<Api>, Path(product): Path<String>) -> Result<StatusCode, Problem> {
    let key = product_key(&product)?;
    let _changing = api.changing.lock().await;
    api.commit(vec![api.gate.registry().plan_limit_product(&key, None)?]).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A device's own limit.
#[utoipa::path(get, path = "/api/v1/products/{product}/devices/{device}/limits", params(("product" = String, Path), ("device" = String, Path)), responses((status = 200, body = Flow), (status = 404, description = "there is no such device, or it has no limit of its own")), security(("token" = [])))]
pub(super) async fn show_device_limits(
    State(api): State<Api>,
    Path((product, device)): Path<(String, String)>,
) -> Result<Json<Flow>, Problem> {
    api.existing_device(&product, &device)?;
    let own = api.gate.registry().device_limit(&product, &device);
    own.map(|flow| Json(Flow::of(&flow))).ok_or_else(|| Problem::not_found("the device has no limit of its own"))
}

/// Gives a device a limit of its own, in place of what its product allows each. The product's limit of all holds, too.
#[utoipa::path(put, path = "/api/v1/products/{product}/devices/{device}/limits", params(("product" = String, Path), ("device" = String, Path)), request_body = Flow, responses((status = 200, body = Flow)), security(("token" = [])))]
pub(super) async fn put_device_limits(
    State(api): State<Api>,
    Path((product, device)): Path<(String, String)>,
    Bounded(bytes): Bounded,
) -> Result<Json<Flow>, Problem> {
    let asked: Flow = whole_body(&bytes)?;
    let (key, name, flow) = (product_key(&product)?, device_name(&device)?, asked.written("")?);
    let view = Flow::of(&flow);
    let _changing = api.changing.lock().await;
    api.commit(vec![api.gate.registry().plan_limit_device(&key, &name, Some(flow))?]).await?;
    Ok(Json(view))
}

/// Takes a device's own limit away: that of its product holds.
#[utoipa::path(delete, path = "/api/v1/products/{product}/devices/{device}/limits", params(("product" = String, Path), ("device" = String, Path)), responses((status = 204, description = "it has none")), security(("token" = [])))]
pub(super) async fn delete_device_limits(
    State(api): State<Api>,
    Path((product, device)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let (key, name) = (product_key(&product)?, device_name(&device)?);
    let _changing = api.changing.lock().await;
    api.commit(vec![api.gate.registry().plan_limit_device(&key, &name, None)?]).await?;
    Ok(StatusCode::NO_CONTENT)
}
