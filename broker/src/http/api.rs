//! Products and devices.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use turnpike_authz::labels::{self, Labels, LabelsRequest, Wanted};
use turnpike_authz::names::{DeviceName, ProductKey};
use turnpike_authz::plan::{Change, DeviceRequest, Making, PlanError};
use turnpike_authz::registry::{Device, Product};
use turnpike_authz::secret::Secret;
use utoipa::ToSchema;

use super::batch::Batch;
use super::extract::{Asked, Bodiless, Bounded, Page, Path, Queried, Query, body, whole_body};
use super::{Api, COMMIT_TIME_MAX, Problem};
use crate::edit::Edit;
use crate::provision::random;

/// Items of a page, unless the caller says otherwise.
const PAGE: usize = 100;
/// Items of a page at the most; also devices deleted in one commit.
pub(super) const PAGE_MAX: usize = 1000;

impl Page {
    pub(super) fn limit(&self) -> Result<usize, Problem> {
        page_limit(self.limit)
    }
}

/// How many items a page has, where so many were asked for.
pub(super) fn page_limit(asked: Option<usize>) -> Result<usize, Problem> {
    match asked.unwrap_or(PAGE) {
        limit @ 1..=PAGE_MAX => Ok(limit),
        _ => Err(Problem::invalid(format!("limit must be from 1 to {PAGE_MAX}"))),
    }
}

/// A product.
#[derive(Serialize, ToSchema)]
pub(super) struct ProductView {
    /// Product key.
    product: String,
    /// A disabled product lets none of its devices in.
    enabled: bool,
    /// Seconds since 1970 UTC.
    created_at: u64,
    /// How many devices it has.
    devices: usize,
}

/// A page of products, in the order of their keys.
#[derive(Serialize, ToSchema)]
pub(super) struct ProductPage {
    products: Vec<ProductView>,
    /// `after` of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A device.
#[derive(Serialize, ToSchema)]
pub(super) struct DeviceView {
    /// Product key.
    product: String,
    /// Device name.
    device: String,
    /// A disabled device isn't let in.
    enabled: bool,
    /// Seconds since 1970 UTC.
    created_at: u64,
    /// Its tags, its groups among them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    /// Where it is; absent where that isn't known.
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<String>,
    /// The secret, where it was made by this request; it is never shown again.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

/// A page of devices, in the order of their names.
#[derive(Serialize, ToSchema)]
pub(super) struct DevicePage {
    devices: Vec<DeviceView>,
    /// `after` of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// What a product is created or replaced with.
#[derive(Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PutProduct {
    /// As it is, or true where it is new.
    enabled: Option<bool>,
}

/// What a device is created or replaced with.
#[derive(Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PutDevice {
    /// 8 to 256 bytes. Without it a device keeps the secret that it has, and a new one gets one made.
    secret: Option<String>,
    /// As it is, or true where it is new.
    enabled: Option<bool>,
    /// At most eight of 1 to 64 bytes, in place of those that it has.
    tags: Option<Vec<String>>,
    /// 1 to 64 bytes; empty: none.
    region: Option<String>,
}

/// A change of what is there.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Patch {
    /// Lets in or shuts out.
    enabled: bool,
}

/// A change of a device that is there; what isn't said stays as it is.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PatchDevice {
    /// Lets in or shuts out.
    enabled: Option<bool>,
    /// At most eight of 1 to 64 bytes, in place of those that it has.
    tags: Option<Vec<String>>,
    /// 1 to 64 bytes; empty: none.
    region: Option<String>,
}

/// Which page of devices.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DevicesPage {
    limit: Option<usize>,
    after: Option<String>,
    /// Separated by commas.
    tag: Option<String>,
    region: Option<String>,
}

impl Queried for DevicesPage {
    const MESSAGE: &'static str =
        "the query takes limit, a whole number from 1 to 1000, after, tag and region, each once, and nothing else";
}

impl Asked for PutProduct {
    const FIELDS: &'static [&'static str] = &["enabled"];
}

impl Asked for PutDevice {
    const FIELDS: &'static [&'static str] = &["secret", "enabled", "tags", "region"];
}

impl Asked for PatchDevice {
    const FIELDS: &'static [&'static str] = &["enabled", "tags", "region"];
}

impl Asked for Patch {
    const FIELDS: &'static [&'static str] = &["enabled"];
}

pub(super) fn product_key(text: &str) -> Result<ProductKey, Problem> {
    ProductKey::parse(text).map_err(|error| Problem::invalid(format!("product: {error}")))
}

pub(super) fn device_name(text: &str) -> Result<DeviceName, Problem> {
    DeviceName::parse(text).map_err(|error| Problem::invalid(format!("device: {error}")))
}

pub(super) fn now_s() -> u64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs())
}

impl From<PlanError> for Problem {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::NoSuchProduct | PlanError::NoSuchDevice => Self::not_found(&error.to_string()),
            PlanError::BeingDeleted => Self::new(StatusCode::CONFLICT, "being_deleted", error.to_string()),
            PlanError::WeakKey => Self::new(StatusCode::CONFLICT, "weak_key", error.to_string()),
            PlanError::CertificateTaken => Self::new(StatusCode::CONFLICT, "certificate_taken", error.to_string()),
            PlanError::NameTaken => Self::new(StatusCode::CONFLICT, "name_taken", error.to_string()),
        }
    }
}

impl Api {
    fn view_product(&self, key: &ProductKey, product: Product) -> ProductView {
        ProductView {
            product: key.to_string(),
            enabled: product.enabled,
            created_at: product.created_at_s,
            devices: self.gate.registry().device_count(key.as_str()),
        }
    }

    pub(super) fn existing_product(&self, key: &str) -> Result<(ProductKey, Product), Problem> {
        let product = self.gate.registry().product(key).ok_or(PlanError::NoSuchProduct)?;
        Ok((product_key(key)?, product))
    }

    pub(super) fn existing_device(&self, product: &str, name: &str) -> Result<(DeviceName, Device), Problem> {
        self.existing_product(product)?;
        let device = self.gate.registry().device(product, name).ok_or(PlanError::NoSuchDevice)?;
        Ok((device_name(name)?, device))
    }

    /// A device, with the secret that was made for it.
    fn view_made(&self, product: &str, device: &str, made: Option<&Secret>) -> Result<DeviceView, Problem> {
        let (name, after) = self.existing_device(product, device)?;
        let secret = made.map(|secret| String::from_utf8_lossy(secret.expose()).into_owned());
        Ok(DeviceView { secret, ..self.view_device(product, &name, &after) })
    }

    async fn set_product_enabled(&self, product: &str, enabled: bool) -> Result<Json<ProductView>, Problem> {
        let _changing = self.changing.lock().await;
        let key = product_key(product)?;
        self.commit(vec![self.gate.registry().plan_enable_product(&key, enabled)?]).await?;
        let (key, after) = self.existing_product(product)?;
        Ok(Json(self.view_product(&key, after)))
    }

    async fn set_device_enabled(&self, product: &str, name: &str, enabled: bool) -> Result<Json<DeviceView>, Problem> {
        let _changing = self.changing.lock().await;
        let (key, parsed) = (product_key(product)?, device_name(name)?);
        self.commit(vec![self.gate.registry().plan_enable_device(&key, &parsed, enabled)?]).await?;
        let (parsed, after) = self.existing_device(product, name)?;
        Ok(Json(self.view_device(product, &parsed, &after)))
    }

    fn view_device(&self, product: &str, name: &DeviceName, device: &Device) -> DeviceView {
        let labels = self.gate.registry().labels(product, name.as_str());
        let tags = labels.as_deref().map(Labels::tags).unwrap_or_default();
        DeviceView {
            product: product.to_owned(),
            device: name.to_string(),
            enabled: device.enabled,
            created_at: device.created_at_s,
            tags: tags.iter().map(ToString::to_string).collect(),
            region: labels.as_deref().and_then(Labels::region).map(str::to_owned),
            secret: None,
        }
    }

    /// Changes that may be of labels, too. A campaign that has drawn its groups keeps its devices, whatever their labels are then; what goes on taking devices in
    /// hears of those that it wants now. The caller holds `changing`.
    pub(super) async fn commit_labelled(&self, changes: Vec<Change>) -> Result<(), Problem> {
        let labelled = changes.iter().filter_map(|change| match change {
            Change::SetLabels(product, name, labels) => Some((product.clone(), name.clone(), labels.clone())),
            _ => None,
        });
        let labelled: Vec<_> = labelled.collect();
        let Some(ota) = self.desks.ota.as_ref().filter(|_| !labelled.is_empty()) else {
            return self.commit(changes).await;
        };
        let _changing = Self::at_firmware(ota).await?;
        // First: after a crash between the two, what was held is what it would be without.
        if let Some(held) = ota.hold(&labelled) {
            let held = tokio::time::timeout(COMMIT_TIME_MAX, held).await;
            held.map_err(|_| Problem::store())?.map_err(|_| Problem::store())?;
        }
        self.commit(changes).await?;
        labelled.iter().for_each(|(product, name, _)| ota.relabelled(product.as_str(), name.as_str()));
        Ok(())
    }
}

fn labels_request(tags: Option<&[String]>, region: Option<&str>) -> Result<LabelsRequest, Problem> {
    let tags = tags.map(|tags| tags.iter().map(String::as_str));
    LabelsRequest::new(tags, region).map_err(|error| Problem::invalid(error.to_string()))
}

/// Products, by page.
#[utoipa::path(get, path = "/api/v1/products", params(("limit" = Option<usize>, Query, description = "1 to 1000; default 100"), ("after" = Option<String>, Query, description = "`next` of the page before")), responses((status = 200, body = ProductPage)), security(("token" = [])))]
pub(super) async fn list_products(
    State(api): State<Api>,
    Query(page): Query<Page>,
) -> Result<Json<ProductPage>, Problem> {
    let limit = page.limit()?;
    let found = api.gate.registry().products(page.after.as_deref(), limit + 1);
    let next = (found.len() > limit).then(|| found.get(limit - 1).map(|(key, _)| key.to_string())).flatten();
    let products = found.iter().take(limit).map(|(key, product)| api.view_product(key, *product)).collect();
    Ok(Json(ProductPage { products, next }))
}

/// One product.
#[utoipa::path(get, path = "/api/v1/products/{product}", params(("product" = String, Path)), responses((status = 200, body = ProductView)), security(("token" = [])))]
pub(super) async fn show_product(
    State(api): State<Api>,
    Path(product): Path<String>,
) -> Result<Json<ProductView>, Problem> {
    let (key, found) = api.existing_product(&product)?;
    Ok(Json(api.view_product(&key, found)))
}

/// Creates or replaces a product. Its devices stay.
#[utoipa::path(put, path = "/api/v1/products/{product}", params(("product" = String, Path)), request_body = Option<PutProduct>, responses((status = 200, body = ProductView, description = "replaced"), (status = 201, body = ProductView, description = "created")), security(("token" = [])))]
pub(super) async fn put_product(
    State(api): State<Api>,
    Path(product): Path<String>,
    Bounded(bytes): Bounded,
) -> Result<(StatusCode, Json<ProductView>), Problem> {
    let asked: PutProduct = body(&bytes)?;
    let key = product_key(&product)?;
    let _changing = api.changing.lock().await;
    let (change, is_new) = api.gate.registry().plan_put_product(&key, asked.enabled, now_s())?;
    if is_new && api.desks.ota.as_ref().is_some_and(|ota| ota.is_swept(&key)) {
        return Err(PlanError::BeingDeleted.into());
    }
    api.commit(vec![change]).await?;
    let (key, after) = api.existing_product(&product)?;
    Ok((if is_new { StatusCode::CREATED } else { StatusCode::OK }, Json(api.view_product(&key, after))))
}

/// Enables or disables a product. Disabling closes the connections of its devices.
#[utoipa::path(patch, path = "/api/v1/products/{product}", params(("product" = String, Path)), request_body = Patch, responses((status = 200, body = ProductView)), security(("token" = [])))]
pub(super) async fn patch_product(
    State(api): State<Api>,
    Path(product): Path<String>,
    Bounded(bytes): Bounded,
) -> Result<Json<ProductView>, Problem> {
    let asked: Patch = whole_body(&bytes)?;
    api.set_product_enabled(&product, asked.enabled).await
}

/// Enables a product.
#[utoipa::path(post, path = "/api/v1/products/{product}/enable", params(("product" = String, Path)), responses((status = 200, body = ProductView)), security(("token" = [])))]
pub(super) async fn enable_product(
    State(api): State<Api>,
    Path(product): Path<String>,
    _: Bodiless,
) -> Result<Json<ProductView>, Problem> {
    api.set_product_enabled(&product, true).await
}

/// Disables a product and closes the connections of its devices.
#[utoipa::path(post, path = "/api/v1/products/{product}/disable", params(("product" = String, Path)), responses((status = 200, body = ProductView)), security(("token" = [])))]
pub(super) async fn disable_product(
    State(api): State<Api>,
    Path(product): Path<String>,
    _: Bodiless,
) -> Result<Json<ProductView>, Problem> {
    api.set_product_enabled(&product, false).await
}

/// Deletes a product and all its devices, and closes their connections.
#[utoipa::path(delete, path = "/api/v1/products/{product}", params(("product" = String, Path)), responses((status = 204, description = "deleted")), security(("token" = [])))]
pub(super) async fn delete_product(State(api): State<Api>, Path(product): Path<String>) -> Result<StatusCode, Problem> {
    let _changing = api.changing.lock().await;
    let key = product_key(&product)?;
    let deleted = api.gate.registry().plan_delete_product(&key)?;
    // Before: what is bound must not outlive its device.
    loop {
        let unbound = api.gate.people().plan_forget_product(&key, PAGE_MAX);
        if unbound.is_empty() {
            break;
        }
        api.commit_all(unbound.into_iter().map(Edit::from).collect()).await?;
    }
    let book = api.plan_at_desk(|desk| Ok::<_, Problem>(desk.plan_delete_product(&key)))?;
    // First: another product of that key must not be the platforms'.
    api.forget_granted(&key).await?;
    api.commit_batch(Batch { edits: vec![deleted.into()], book }).await?;
    api.sweep(&key).await?;
    api.sweep_packages().await?;
    if let Some(ota) = &api.desks.ota {
        // What takes longer goes on without us.
        let _ = tokio::time::timeout(COMMIT_TIME_MAX, ota.wait_until_swept(&key)).await;
    }
    Ok(StatusCode::NO_CONTENT)
}

impl Api {
    /// Removes what a deleted product has left, a bounded part at a time.
    pub(super) async fn sweep(&self, key: &ProductKey) -> Result<(), Problem> {
        loop {
            let changes = self.gate.registry().plan_sweep(key, PAGE_MAX);
            if changes.is_empty() {
                return Ok(());
            }
            self.commit(changes).await?;
        }
    }
}

/// Devices of a product, by page. Secrets are never shown. With `tag` or `region` those alone that have these labels: a page may have fewer than it could, or none, and
/// yet not be the last.
#[utoipa::path(get, path = "/api/v1/products/{product}/devices", params(("product" = String, Path), ("limit" = Option<usize>, Query, description = "1 to 1000; default 100"), ("after" = Option<String>, Query, description = "`next` of the page before"), ("tag" = Option<String>, Query, description = "a tag, or several separated by commas, all of which the device has"), ("region" = Option<String>, Query, description = "the region that the device is in")), responses((status = 200, body = DevicePage)), security(("token" = [])))]
pub(super) async fn list_devices(
    State(api): State<Api>,
    Path(product): Path<String>,
    Query(page): Query<DevicesPage>,
) -> Result<Json<DevicePage>, Problem> {
    /// Devices that one request looks at.
    const LOOKS: usize = 100_000;
    let limit = page_limit(page.limit)?;
    api.existing_product(&product)?;
    if page.tag.is_some() || page.region.is_some() {
        let check = |text: &str| labels::check(text).map_err(|error| Problem::invalid(error.to_string()));
        let tags = page.tag.as_deref().into_iter().flat_map(|tags| tags.split(','));
        let tags = tags.map(|tag| check(tag).map(|()| Box::from(tag))).collect::<Result<_, _>>()?;
        page.region.as_deref().map_or(Ok(()), check)?;
        let wanted = Wanted { tags, region: page.region.map(Into::into) };
        let found = api.gate.registry().labelled(&product, &wanted, page.after.as_deref(), (limit, LOOKS));
        let devices = found.0.iter().map(|(name, device)| api.view_device(&product, name, device)).collect();
        return Ok(Json(DevicePage { devices, next: found.1.map(|name| name.to_string()) }));
    }
    let found = api.gate.registry().devices(&product, page.after.as_deref(), limit + 1);
    let next = (found.len() > limit).then(|| found.get(limit - 1).map(|(name, _)| name.to_string())).flatten();
    let devices = found.iter().take(limit).map(|(name, device)| api.view_device(&product, name, device)).collect();
    Ok(Json(DevicePage { devices, next }))
}

/// One device.
#[utoipa::path(get, path = "/api/v1/products/{product}/devices/{device}", params(("product" = String, Path), ("device" = String, Path)), responses((status = 200, body = DeviceView)), security(("token" = [])))]
pub(super) async fn show_device(
    State(api): State<Api>,
    Path((product, device)): Path<(String, String)>,
) -> Result<Json<DeviceView>, Problem> {
    let (name, found) = api.existing_device(&product, &device)?;
    Ok(Json(api.view_device(&product, &name, &found)))
}

/// Creates or replaces a device; what isn't said stays as it is. A new device gets a secret made if none is given, and the answer
/// tells it; one that exists keeps its own. Its connection is closed only if it is disabled: another secret counts from the next log-in.
#[utoipa::path(put, path = "/api/v1/products/{product}/devices/{device}", params(("product" = String, Path), ("device" = String, Path)), request_body = Option<PutDevice>, responses((status = 200, body = DeviceView, description = "replaced"), (status = 201, body = DeviceView, description = "created")), security(("token" = [])))]
pub(super) async fn put_device(
    State(api): State<Api>,
    Path((product, device)): Path<(String, String)>,
    Bounded(bytes): Bounded,
) -> Result<(StatusCode, Json<DeviceView>), Problem> {
    let asked: PutDevice = body(&bytes)?;
    let name = device_name(&device)?;
    let key = product_key(&product)?;
    let given = asked.secret.as_deref().map(|text| Secret::new(text.as_bytes())).transpose();
    let secret = given.map_err(|error| Problem::invalid(error.to_string()))?;
    let labels = labels_request(asked.tags.as_deref(), asked.region.as_deref())?;
    let _changing = api.changing.lock().await;
    let making = Making { key: api.gate.master_key(), random: random(), now_s: now_s() };
    let request = DeviceRequest { secret, enabled: asked.enabled };
    let made = api.gate.registry().plan_put_device(&key, &name, request, &making)?;
    let labelled = api.gate.registry().plan_label_device(&key, &name, &labels);
    api.commit_labelled([made.change].into_iter().chain(labelled).collect()).await?;
    let status = if made.is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(api.view_made(&product, &device, made.secret.as_ref())?)))
}

/// Makes a new secret for a device; the answer tells it, and nothing does later. It counts from the next log-in.
#[utoipa::path(post, path = "/api/v1/products/{product}/devices/{device}/secret", params(("product" = String, Path), ("device" = String, Path)), responses((status = 200, body = DeviceView)), security(("token" = [])))]
pub(super) async fn renew_secret(
    State(api): State<Api>,
    Path((product, device)): Path<(String, String)>,
    _: Bodiless,
) -> Result<Json<DeviceView>, Problem> {
    let (key, name) = (product_key(&product)?, device_name(&device)?);
    let _changing = api.changing.lock().await;
    let making = Making { key: api.gate.master_key(), random: random(), now_s: now_s() };
    let made = api.gate.registry().plan_renew_secret(&key, &name, &making)?;
    api.commit(vec![made.change]).await?;
    Ok(Json(api.view_made(&product, &device, made.secret.as_ref())?))
}

/// Enables or disables a device, or gives it other tags or another region. Disabling closes its connection.
#[utoipa::path(patch, path = "/api/v1/products/{product}/devices/{device}", params(("product" = String, Path), ("device" = String, Path)), request_body = PatchDevice, responses((status = 200, body = DeviceView)), security(("token" = [])))]
pub(super) async fn patch_device(
    State(api): State<Api>,
    Path((product, device)): Path<(String, String)>,
    Bounded(bytes): Bounded,
) -> Result<Json<DeviceView>, Problem> {
    let asked: PatchDevice = whole_body(&bytes)?;
    let labels = labels_request(asked.tags.as_deref(), asked.region.as_deref())?;
    if asked.enabled.is_none() && labels.is_empty() {
        return Err(Problem::invalid("the body has none of the fields enabled, tags, region"));
    }
    let (key, name) = (product_key(&product)?, device_name(&device)?);
    let _changing = api.changing.lock().await;
    api.existing_device(&product, &device)?;
    let registry = api.gate.registry();
    let enabled = asked.enabled.map(|enabled| registry.plan_enable_device(&key, &name, enabled)).transpose()?;
    let changes: Vec<_> = enabled.into_iter().chain(registry.plan_label_device(&key, &name, &labels)).collect();
    if !changes.is_empty() {
        api.commit_labelled(changes).await?;
    }
    let (name, after) = api.existing_device(&product, &device)?;
    Ok(Json(api.view_device(&product, &name, &after)))
}

/// Enables a device.
#[utoipa::path(post, path = "/api/v1/products/{product}/devices/{device}/enable", params(("product" = String, Path), ("device" = String, Path)), responses((status = 200, body = DeviceView)), security(("token" = [])))]
pub(super) async fn enable_device(
    State(api): State<Api>,
    Path((product, device)): Path<(String, String)>,
    _: Bodiless,
) -> Result<Json<DeviceView>, Problem> {
    api.set_device_enabled(&product, &device, true).await
}

/// Disables a device and closes its connection.
#[utoipa::path(post, path = "/api/v1/products/{product}/devices/{device}/disable", params(("product" = String, Path), ("device" = String, Path)), responses((status = 200, body = DeviceView)), security(("token" = [])))]
pub(super) async fn disable_device(
    State(api): State<Api>,
    Path((product, device)): Path<(String, String)>,
    _: Bodiless,
) -> Result<Json<DeviceView>, Problem> {
    api.set_device_enabled(&product, &device, false).await
}

/// Deletes a device and closes its connection.
#[utoipa::path(delete, path = "/api/v1/products/{product}/devices/{device}", params(("product" = String, Path), ("device" = String, Path)), responses((status = 204, description = "deleted")), security(("token" = [])))]
pub(super) async fn delete_device(
    State(api): State<Api>,
    Path((product, device)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let _changing = api.changing.lock().await;
    let (key, name) = (product_key(&product)?, device_name(&device)?);
    let deleted = api.gate.registry().plan_delete_device(&key, &name)?;
    api.commit_all(api.unbinding(deleted)).await?;
    Ok(StatusCode::NO_CONTENT)
}
