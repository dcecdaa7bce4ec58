//! Pre-authorization, for operators: how a product's devices register, packages and their burn-in keys. Lists: [`super::lists`].

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use serde::{Deserialize, Serialize};
use turnpike_authz::audit::Described;
use turnpike_authz::names::ProductKey;
use turnpike_authz::plan::Making;
use turnpike_authz::presale::book::Standing;
use turnpike_authz::presale::burn::KeyId;
use turnpike_authz::presale::desk::{DeskError, KEYS_MAX, PackageRequest, Release};
use turnpike_authz::presale::list::Sweep;
use turnpike_authz::presale::{Desk, PackageId, Settings, Way};
use turnpike_authz::secret::Secret;
use utoipa::ToSchema;

use super::api::{PAGE_MAX, now_s, page_limit, product_key};
use super::batch::Batch;
use super::extract::{Asked, Bodiless, Bounded, Path, Queried, Query, whole_body};
use super::{Api, Problem, lists};
use crate::edit::Told;
use crate::provision::random;

/// What operators are served, below `/api/v1`.
pub(super) fn routes() -> Router<Api> {
    let package = get(show_package).put(put_package).delete(delete_package);
    Router::new()
        .route("/products/{product}/registration", get(show_registration).put(put_registration))
        .route("/products/{product}/packages", get(list_packages).post(create_package))
        .route("/products/{product}/packages/{package}", package)
        .route("/products/{product}/packages/{package}/keys", get(show_keys).post(issue_keys))
        .route("/products/{product}/packages/{package}/registered", get(list_used_keys))
        .route("/products/{product}/packages/{package}/keys/{index}/release", post(release_key))
        .route("/products/{product}/packages/{package}/list/{kind}/{identifier}", put(lists::put_identifier))
        .route("/products/{product}/lists/{kind}", get(lists::show_list))
        .route("/products/{product}/lists/{kind}/{identifier}", get(lists::show_identifier).delete(lists::unlist))
        .route("/products/{product}/lists/{kind}/{identifier}/release", post(lists::release_identifier))
}

/// How a product's devices register.
#[derive(Serialize, ToSchema)]
pub(super) struct RegistrationView {
    /// Ways that it takes: `burn-in`, `listed`, `aliyun`, `aliyun-unlisted`, `tencent`, `tencent-unlisted`, `gizwits`, `gizwits-sealed`.
    ways: Vec<&'static str>,
    /// The package that devices count against which are on no list.
    #[serde(skip_serializing_if = "Option::is_none")]
    package: Option<u32>,
    /// Whether the product has a secret, which the vendors' ways need. It is never shown.
    has_secret: bool,
}

/// What it is set to.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PutRegistration {
    ways: Vec<String>,
    package: Option<u32>,
    /// The product's secret, 8 to 256 bytes; as it was, if none is given.
    secret: Option<String>,
}

impl Asked for PutRegistration {
    const FIELDS: &'static [&'static str] = &["ways", "package", "secret"];
}

/// A pre-authorization package.
#[derive(Serialize, ToSchema)]
pub(super) struct PackageView {
    /// Its number within the product.
    package: u32,
    /// How many devices it may register.
    quota: u32,
    /// Seconds since 1970 UTC from which it registers nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
    /// A disabled one registers nothing.
    enabled: bool,
    /// Seconds since 1970 UTC.
    created_at: u64,
    /// Burn-in keys issued.
    issued: u32,
    /// Devices registered.
    used: u64,
    /// Identifiers on its list, used or not.
    listed: u64,
}

/// A product's packages, in the order of their numbers.
#[derive(Serialize, ToSchema)]
pub(super) struct PackageList {
    packages: Vec<PackageView>,
}

/// What a package is created or replaced with.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PutPackage {
    /// How many devices it may register.
    quota: u32,
    /// Seconds since 1970 UTC from which it registers nothing; absent: it doesn't expire.
    expires_at: Option<u64>,
    /// True, if absent.
    enabled: Option<bool>,
}

impl Asked for PutPackage {
    const FIELDS: &'static [&'static str] = &["quota", "expires_at", "enabled"];
}

/// How many keys are wanted.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct IssueKeys {
    /// 1 to 10,000.
    count: u32,
}

impl Asked for IssueKeys {
    const FIELDS: &'static [&'static str] = &["count"];
}

/// Burn-in keys, for the production line.
#[derive(Serialize, ToSchema)]
pub(super) struct KeyList {
    /// `{package}-{index}-{32 hexadecimal digits}`.
    keys: Vec<String>,
}

/// Which keys that have been issued are shown again.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyRange {
    from: Option<u32>,
    limit: Option<u32>,
}

impl Queried for KeyRange {
    const MESSAGE: &'static str = "the query takes from and limit, whole numbers, each once, and nothing else";
}

/// Which used keys.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UsedPage {
    after: Option<u32>,
    limit: Option<usize>,
}

impl Queried for UsedPage {
    const MESSAGE: &'static str = "the query takes after and limit, whole numbers, each once, and nothing else";
}

/// A burn-in key that has registered a device.
#[derive(Serialize, ToSchema)]
pub(super) struct UsedKey {
    index: u32,
    device: String,
}

/// A page of used keys, in the order of their indices.
#[derive(Serialize, ToSchema)]
pub(super) struct UsedKeys {
    registered: Vec<UsedKey>,
    /// `after` of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<u32>,
}

impl From<DeskError> for Problem {
    fn from(error: DeskError) -> Self {
        let (status, code) = match error {
            DeskError::NoSuchProduct
            | DeskError::NoSuchPackage
            | DeskError::NotListed
            | DeskError::NothingToRelease => (StatusCode::NOT_FOUND, "not_found"),
            DeskError::TooManyPackages => (StatusCode::CONFLICT, "too_many_packages"),
            DeskError::Quota => (StatusCode::CONFLICT, "quota"),
            DeskError::Capacity => (StatusCode::CONFLICT, "capacity"),
            DeskError::InUse => (StatusCode::CONFLICT, "in_use"),
            DeskError::Sealed => (StatusCode::SERVICE_UNAVAILABLE, "sealed"),
        };
        Self::new(status, code, error.to_string())
    }
}

fn view(id: PackageId, standing: &Standing) -> PackageView {
    let package = &standing.package;
    PackageView {
        package: id.get(),
        quota: package.quota,
        expires_at: package.expires_at_s,
        enabled: package.enabled,
        created_at: package.created_at_s,
        issued: package.issued,
        used: standing.used,
        listed: standing.listed,
    }
}

impl PutPackage {
    fn request(&self) -> PackageRequest {
        PackageRequest { quota: self.quota, expires_at_s: self.expires_at, enabled: self.enabled.unwrap_or(true) }
    }
}

pub(super) fn package_id(number: u32) -> Result<PackageId, Problem> {
    PackageId::new(number).ok_or(DeskError::NoSuchPackage).map_err(Problem::from)
}

impl Api {
    /// Plans at the desk. The caller holds `changing`, and keeps it until what was planned has been committed.
    pub(super) fn plan_at_desk<T, E>(&self, plan: impl FnOnce(&Desk<'_>) -> Result<T, E>) -> Result<T, Problem>
    where
        Problem: From<E>,
    {
        if self.registrar.is_in_doubt() {
            return Err(Problem::store());
        }
        self.ask_desk(plan)
    }

    /// Asks the desk what changes nothing.
    pub(super) fn ask_desk<T, E>(&self, ask: impl FnOnce(&Desk<'_>) -> Result<T, E>) -> Result<T, Problem>
    where
        Problem: From<E>,
    {
        let book = self.registrar.book();
        let desk = Desk { registry: self.gate.registry(), book: &book, key: self.gate.master_key() };
        Ok(ask(&desk)?)
    }

    /// Removes what deleted packages have left, a bounded part at a time. The caller holds `changing`. That the package was deleted is on record.
    pub(super) async fn sweep_packages(&self) -> Result<(), Problem> {
        let left = self.registrar.book().swept_packages();
        for (product, package) in left {
            let mut sweep = Sweep::new(product, package);
            loop {
                let Some(changes) = sweep.step(&self.registrar.book(), PAGE_MAX) else { break };
                let batch = Batch::of_book(changes);
                if !batch.is_empty() {
                    self.commit_described(&[], batch).await?;
                }
            }
        }
        Ok(())
    }

    /// Commits that a registration is taken back, and the end of its device.
    pub(super) async fn release(&self, release: Release) -> Result<(), Problem> {
        self.commit_batch(Batch { edits: self.unbinding(release.device), book: vec![release.change] }).await
    }

    fn view_package(&self, product: &ProductKey, id: PackageId) -> Result<Json<PackageView>, Problem> {
        let standing = self.registrar.book().package(product.as_str(), id).ok_or(DeskError::NoSuchPackage)?;
        Ok(Json(view(id, &standing)))
    }

    fn view_registration(&self, product: &ProductKey) -> Json<RegistrationView> {
        let Settings { ways, package, secret } = self.registrar.book().settings(product.as_str());
        let ways = ways.iter().map(Way::as_str).collect();
        Json(RegistrationView { ways, package: package.map(PackageId::get), has_secret: secret.is_some() })
    }
}

/// How a product's devices register.
#[utoipa::path(get, path = "/api/v1/products/{product}/registration", params(("product" = String, Path)), responses((status = 200, body = RegistrationView), (status = 404)), security(("token" = [])))]
pub(super) async fn show_registration(
    State(api): State<Api>,
    Path(product): Path<String>,
) -> Result<Json<RegistrationView>, Problem> {
    let (key, _) = api.existing_product(&product)?;
    Ok(api.view_registration(&key))
}

/// Says how a product's devices register: no way, until this says otherwise.
#[utoipa::path(put, path = "/api/v1/products/{product}/registration", params(("product" = String, Path)), request_body = PutRegistration, responses((status = 200, body = RegistrationView), (status = 400), (status = 404), (status = 503)), security(("token" = [])))]
pub(super) async fn put_registration(
    State(api): State<Api>,
    Path(product): Path<String>,
    Bounded(bytes): Bounded,
) -> Result<Json<RegistrationView>, Problem> {
    let PutRegistration { ways, package, secret } = whole_body(&bytes)?;
    let key = product_key(&product)?;
    let known = Way::ALL.map(Way::as_str).join(", ");
    let ways: Result<_, _> = ways.iter().map(|way| way.parse::<Way>()).collect();
    let ways = ways.map_err(|_| Problem::invalid(format!("ways: there are {known}")))?;
    let package = package.map(package_id).transpose()?;
    let secret = secret.map(|text| Secret::new(text.as_bytes())).transpose();
    let secret = secret.map_err(|error| Problem::invalid(error.to_string()))?;
    let _changing = api.changing.lock().await;
    let change = api.plan_at_desk(|desk| desk.plan_put_settings(&key, (ways, package), secret.as_ref(), random()))?;
    api.commit_batch(Batch::of_book(vec![change])).await?;
    Ok(api.view_registration(&key))
}

/// A product's packages: a thousand at the most.
#[utoipa::path(get, path = "/api/v1/products/{product}/packages", params(("product" = String, Path)), responses((status = 200, body = PackageList), (status = 404)), security(("token" = [])))]
pub(super) async fn list_packages(
    State(api): State<Api>,
    Path(product): Path<String>,
) -> Result<Json<PackageList>, Problem> {
    let (key, _) = api.existing_product(&product)?;
    let packages = api.registrar.book().packages(key.as_str());
    Ok(Json(PackageList { packages: packages.iter().map(|(id, standing)| view(*id, standing)).collect() }))
}

/// Creates a package.
#[utoipa::path(post, path = "/api/v1/products/{product}/packages", params(("product" = String, Path)), request_body = PutPackage, responses((status = 201, body = PackageView), (status = 400), (status = 404), (status = 409), (status = 503)), security(("token" = [])))]
pub(super) async fn create_package(
    State(api): State<Api>,
    Path(product): Path<String>,
    Bounded(bytes): Bounded,
) -> Result<(StatusCode, Json<PackageView>), Problem> {
    let asked: PutPackage = whole_body(&bytes)?;
    let key = product_key(&product)?;
    Ok((StatusCode::CREATED, api.put_package(&key, None, &asked).await?))
}

/// Changes a package: its quota, when it expires, and whether it registers at all.
#[utoipa::path(put, path = "/api/v1/products/{product}/packages/{package}", params(("product" = String, Path), ("package" = u32, Path)), request_body = PutPackage, responses((status = 200, body = PackageView), (status = 400), (status = 404), (status = 409), (status = 503)), security(("token" = [])))]
pub(super) async fn put_package(
    State(api): State<Api>,
    Path((product, package)): Path<(String, u32)>,
    Bounded(bytes): Bounded,
) -> Result<Json<PackageView>, Problem> {
    let asked: PutPackage = whole_body(&bytes)?;
    let (key, id) = (product_key(&product)?, package_id(package)?);
    api.put_package(&key, Some(id), &asked).await
}

impl Api {
    async fn put_package(
        &self,
        product: &ProductKey,
        id: Option<PackageId>,
        asked: &PutPackage,
    ) -> Result<Json<PackageView>, Problem> {
        let _changing = self.changing.lock().await;
        let making = Making { key: self.gate.master_key(), random: random(), now_s: now_s() };
        let planned = self.plan_at_desk(|desk| desk.plan_put_package(product, id, asked.request(), &making))?;
        let (id, change) = planned;
        self.commit_batch(Batch::of_book(vec![change])).await?;
        self.view_package(product, id)
    }
}

/// One package.
#[utoipa::path(get, path = "/api/v1/products/{product}/packages/{package}", params(("product" = String, Path), ("package" = u32, Path)), responses((status = 200, body = PackageView), (status = 404)), security(("token" = [])))]
pub(super) async fn show_package(
    State(api): State<Api>,
    Path((product, package)): Path<(String, u32)>,
) -> Result<Json<PackageView>, Problem> {
    let (key, _) = api.existing_product(&product)?;
    api.view_package(&key, package_id(package)?)
}

/// Revokes a package: its keys are unknown from then on, its list is removed. Devices that it has registered stay.
#[utoipa::path(delete, path = "/api/v1/products/{product}/packages/{package}", params(("product" = String, Path), ("package" = u32, Path)), responses((status = 204), (status = 404), (status = 503)), security(("token" = [])))]
pub(super) async fn delete_package(
    State(api): State<Api>,
    Path((product, package)): Path<(String, u32)>,
) -> Result<StatusCode, Problem> {
    let (key, id) = (product_key(&product)?, package_id(package)?);
    let _changing = api.changing.lock().await;
    let change = api.plan_at_desk(|desk| desk.plan_delete_package(&key, id))?;
    api.commit_batch(Batch::of_book(vec![change])).await?;
    api.sweep_packages().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Issues burn-in keys: the ones after those that have been issued.
#[utoipa::path(post, path = "/api/v1/products/{product}/packages/{package}/keys", params(("product" = String, Path), ("package" = u32, Path)), request_body = IssueKeys, responses((status = 201, body = KeyList), (status = 400), (status = 404), (status = 409, description = "more than the quota"), (status = 503)), security(("token" = [])))]
pub(super) async fn issue_keys(
    State(api): State<Api>,
    Path((product, package)): Path<(String, u32)>,
    Bounded(bytes): Bounded,
) -> Result<(StatusCode, Json<KeyList>), Problem> {
    let IssueKeys { count } = whole_body(&bytes)?;
    let (key, id) = (product_key(&product)?, package_id(package)?);
    if !(1..=KEYS_MAX).contains(&count) {
        return Err(Problem::invalid(format!("count must be from 1 to {KEYS_MAX}")));
    }
    let _changing = api.changing.lock().await;
    let (change, keys) = api.plan_at_desk(|desk| desk.plan_issue(&key, id, count))?;
    api.commit_batch(Batch::of_book(vec![change])).await?;
    Ok((StatusCode::CREATED, Json(KeyList { keys })))
}

/// Shows burn-in keys that have been issued. That they were shown is on record.
#[utoipa::path(get, path = "/api/v1/products/{product}/packages/{package}/keys", params(("product" = String, Path), ("package" = u32, Path), ("from" = Option<u32>, Query, description = "index of the first; default 0"), ("limit" = Option<u32>, Query, description = "1 to 10,000; default 1,000")), responses((status = 200, body = KeyList), (status = 400), (status = 404), (status = 503)), security(("token" = [])))]
pub(super) async fn show_keys(
    State(api): State<Api>,
    Path((product, package)): Path<(String, u32)>,
    Query(range): Query<KeyRange>,
) -> Result<Json<KeyList>, Problem> {
    let (key, id) = (product_key(&product)?, package_id(package)?);
    let limit = range.limit.unwrap_or(1000);
    if !(1..=KEYS_MAX).contains(&limit) {
        return Err(Problem::invalid(format!("limit must be from 1 to {KEYS_MAX}")));
    }
    let keys = api.ask_desk(|desk| desk.issued_keys(&key, id, range.from.unwrap_or(0), limit))?;
    api.audit.accept(&[Told::Registry(Described::keys_shown(&key, id, keys.len()))]).await?;
    Ok(Json(KeyList { keys }))
}

/// Burn-in keys that have registered a device, by page.
#[utoipa::path(get, path = "/api/v1/products/{product}/packages/{package}/registered", params(("product" = String, Path), ("package" = u32, Path), ("limit" = Option<usize>, Query, description = "1 to 1000; default 100"), ("after" = Option<u32>, Query, description = "`next` of the page before")), responses((status = 200, body = UsedKeys), (status = 404)), security(("token" = [])))]
pub(super) async fn list_used_keys(
    State(api): State<Api>,
    Path((product, package)): Path<(String, u32)>,
    Query(page): Query<UsedPage>,
) -> Result<Json<UsedKeys>, Problem> {
    let (key, id) = (product_key(&product)?, package_id(package)?);
    let limit = page_limit(page.limit)?;
    let book = api.registrar.book();
    book.package(key.as_str(), id).ok_or(DeskError::NoSuchPackage)?;
    let found = book.used_keys(key.as_str(), id, page.after, limit + 1);
    let next = (found.len() > limit).then(|| found.get(limit - 1).map(|(index, _)| *index)).flatten();
    let used = found.iter().take(limit);
    let registered = used.map(|(index, device)| UsedKey { index: *index, device: device.to_string() }).collect();
    Ok(Json(UsedKeys { registered, next }))
}

/// Takes back what a burn-in key has registered: the device is deleted, and the key may register another.
#[utoipa::path(post, path = "/api/v1/products/{product}/packages/{package}/keys/{index}/release", params(("product" = String, Path), ("package" = u32, Path), ("index" = u32, Path)), responses((status = 204), (status = 404), (status = 503)), security(("token" = [])))]
pub(super) async fn release_key(
    State(api): State<Api>,
    Path((product, package, index)): Path<(String, u32, u32)>,
    _: Bodiless,
) -> Result<StatusCode, Problem> {
    let (key, package) = (product_key(&product)?, package_id(package)?);
    let _changing = api.changing.lock().await;
    let release = api.plan_at_desk(|desk| desk.plan_release_key(&key, KeyId { package, index }))?;
    api.release(release).await?;
    Ok(StatusCode::NO_CONTENT)
}
