//! Platforms, as an operator makes and changes them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use turnpike_authz::audit::{Action, Id, Key, Subject, Value};
use turnpike_authz::platform::{AuthMaking, Change, Created, Edit, Grant, PlanError, PlatId, Platform};
use turnpike_authz::x509::Fingerprint;
use utoipa::ToSchema;

use super::api::{now_s, product_key};
use super::extract::{Asked, Bodiless, Bounded, Path, Queried, Query, whole_body};
use super::platform::NotCommitted;
use super::{Api, Problem};
use crate::provision::random;

/// Platforms of a page.
const PAGE_MAX: usize = 100;

/// A product that a platform may use.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GrantView {
    /// The product's key.
    product: String,
    /// Whether the platform may send its devices messages, and not only read.
    control: bool,
}

/// A platform.
#[derive(Serialize, ToSchema)]
pub(super) struct PlatformView {
    /// 16 digits.
    plat_id: u64,
    name: String,
    enabled: bool,
    /// Seconds since 1970 UTC.
    created_at: u64,
    /// SHA-256 of its certificates, in hexadecimal digits.
    certificates: Vec<String>,
    products: Vec<GrantView>,
    /// How many log-ins it has.
    log_ins: usize,
    /// Only in the answer to the request that made it; it is never shown again.
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_token: Option<String>,
}

/// A page of platforms, in the order of their numbers.
#[derive(Serialize, ToSchema)]
pub(super) struct PlatformPage {
    platforms: Vec<PlatformView>,
    /// `after` of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<u64>,
}

/// What a platform is created with.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreatePlatform {
    /// What you call it: 1 to 64 bytes.
    name: String,
    /// SHA-256 of its client certificates, in hexadecimal digits, 1 to 4.
    certificates: Vec<String>,
    /// What it may use; nothing if it isn't said.
    #[serde(default)]
    products: Vec<GrantView>,
}

/// A change of a platform; what isn't said stays.
#[derive(Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct EditPlatform {
    name: Option<String>,
    /// Disabling ends its log-ins.
    enabled: Option<bool>,
    certificates: Option<Vec<String>>,
    products: Option<Vec<GrantView>>,
}

/// Which page.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    after: Option<u64>,
}

impl Queried for Page {
    const MESSAGE: &'static str = "the query takes after, a number of 16 digits, once, and nothing else";
}

impl Asked for CreatePlatform {
    const FIELDS: &'static [&'static str] = &["name", "certificates", "products"];
}

impl Asked for EditPlatform {
    const FIELDS: &'static [&'static str] = &["name", "enabled", "certificates", "products"];
}

impl From<PlanError> for Problem {
    fn from(error: PlanError) -> Self {
        let message = error.to_string();
        match error {
            PlanError::NoSuchPlatform => Self::not_found(&message),
            PlanError::CertificateTaken => Self::new(StatusCode::CONFLICT, "certificate_taken", message),
            PlanError::TooMany => Self::new(StatusCode::CONFLICT, "too_many_platforms", message),
            PlanError::NumberTaken => Self::new(StatusCode::SERVICE_UNAVAILABLE, "number_taken", message),
            PlanError::Name | PlanError::Certificates | PlanError::Grants => Self::invalid(message),
        }
    }
}

impl From<NotCommitted> for Problem {
    fn from(_: NotCommitted) -> Self {
        Self::store()
    }
}

impl EditPlatform {
    fn edit(self) -> Result<Edit, Problem> {
        let print = |text: &String| {
            text.parse::<Fingerprint>().map_err(|error| Problem::invalid(format!("certificates: {error}")))
        };
        let grant = |view: &GrantView| Ok(Grant { product: product_key(&view.product)?, control: view.control });
        Ok(Edit {
            name: self.name.map(String::into_boxed_str),
            enabled: self.enabled,
            certificates: self.certificates.map(|all| all.iter().map(print).collect()).transpose()?,
            grants: self.products.map(|all| all.iter().map(grant).collect::<Result<_, Problem>>()).transpose()?,
        })
    }
}

fn plat_id(text: &str) -> Result<PlatId, Problem> {
    PlatId::parse(text).ok_or_else(|| PlanError::NoSuchPlatform.into())
}

fn making() -> AuthMaking {
    AuthMaking { number: random(), token: random(), seal: random(), now_ms: now_s() * 1000 }
}

impl Api {
    fn view_platform(&self, id: PlatId, platform: &Platform) -> PlatformView {
        let grant = |grant: &Grant| GrantView { product: grant.product.to_string(), control: grant.control };
        PlatformView {
            plat_id: id.number(),
            name: platform.name.to_string(),
            enabled: platform.enabled,
            created_at: platform.created_at_s,
            certificates: platform.certificates.iter().map(Fingerprint::to_string).collect(),
            products: platform.grants.iter().map(grant).collect(),
            log_ins: self.book.platforms().log_ins(id),
            auth_token: None,
        }
    }

    fn existing_platform(&self, id: PlatId) -> Result<Arc<Platform>, Problem> {
        self.book.platforms().platform(id).ok_or_else(|| PlanError::NoSuchPlatform.into())
    }

    /// Products that are granted must be there: another's mistake in a name would be a grant of whatever comes to be called so.
    fn check_grants(&self, edit: &Edit) -> Result<(), Problem> {
        edit.grants.iter().flatten().try_for_each(|grant| self.existing_product(grant.product.as_str()).map(drop))
    }

    /// Puts changes of a platform on record, commits and applies them. The caller holds the book's lock.
    async fn commit_platform(&self, action: Action, id: PlatId, changes: Vec<Change>) -> Result<(), Problem> {
        let enabled = changes.iter().find_map(|change| match change {
            Change::PutPlatform(_, platform) => Some((Key::Enabled, Value::Flag(platform.enabled))),
            Change::DeletePlatform(_) | Change::PutFamily(..) | Change::EndFamily(..) => None,
        });
        let details: Vec<_> = enabled.into_iter().collect();
        self.audit.accept_one(action, Subject::Platform(Id::of(&id)), &details).await?;
        let committed = self.book.commit(changes).await;
        if committed.is_err() {
            self.audit.fail_one(action, Subject::Platform(Id::of(&id)), "store_unavailable");
        }
        Ok(committed?)
    }

    /// Takes a product that is being deleted away from all platforms.
    pub(super) async fn forget_granted(&self, product: &turnpike_authz::names::ProductKey) -> Result<(), Problem> {
        let _changing = self.book.lock().await;
        Ok(self.book.commit(self.book.platforms().plan_forget_product(product)).await?)
    }
}

/// Platforms, by page.
#[utoipa::path(get, path = "/api/v1/platforms", params(("after" = Option<u64>, Query, description = "`next` of the page before")), responses((status = 200, body = PlatformPage), (status = 401)), security(("token" = [])))]
pub(super) async fn list_platforms(
    State(api): State<Api>,
    Query(page): Query<Page>,
) -> Result<Json<PlatformPage>, Problem> {
    let after = page.after.map(|number| PlatId::new(number).ok_or_else(|| Problem::invalid("after: 16 digits")));
    let found = api.book.platforms().list(after.transpose()?, PAGE_MAX + 1);
    let next = (found.len() > PAGE_MAX).then(|| found.get(PAGE_MAX - 1).map(|(id, _)| id.number())).flatten();
    let platforms = found.iter().take(PAGE_MAX).map(|(id, platform)| api.view_platform(*id, platform)).collect();
    Ok(Json(PlatformPage { platforms, next }))
}

/// One platform. Its AuthToken is never shown again.
#[utoipa::path(get, path = "/api/v1/platforms/{platform}", params(("platform" = String, Path, description = "PlatID")), responses((status = 200, body = PlatformView), (status = 404)), security(("token" = [])))]
pub(super) async fn show_platform(
    State(api): State<Api>,
    Path(platform): Path<String>,
) -> Result<Json<PlatformView>, Problem> {
    let id = plat_id(&platform)?;
    Ok(Json(api.view_platform(id, &*api.existing_platform(id)?)))
}

/// Creates a platform. The answer has its PlatID and, this once, its AuthToken.
#[utoipa::path(post, path = "/api/v1/platforms", request_body = CreatePlatform, responses((status = 201, body = PlatformView), (status = 400), (status = 404, description = "a product isn't there"), (status = 409), (status = 503)), security(("token" = [])))]
pub(super) async fn create_platform(
    State(api): State<Api>,
    Bounded(bytes): Bounded,
) -> Result<(StatusCode, Json<PlatformView>), Problem> {
    let CreatePlatform { name, certificates, products } = whole_body(&bytes)?;
    let asked =
        EditPlatform { name: Some(name), enabled: None, certificates: Some(certificates), products: Some(products) };
    let edit = asked.edit()?;
    // Before the book's: a product can't go while it is granted.
    let _products = api.changing.lock().await;
    api.check_grants(&edit)?;
    let _changing = api.book.lock().await;
    let Created { id, auth_token, changes } = api.book.platforms().plan_create(edit, &making())?;
    api.commit_platform(Action::PlatformPut, id, changes).await?;
    let mut view = api.view_platform(id, &*api.existing_platform(id)?);
    view.auth_token = Some(auth_token.expose().to_owned());
    Ok((StatusCode::CREATED, Json(view)))
}

/// Changes a platform. Disabling it ends its log-ins.
#[utoipa::path(patch, path = "/api/v1/platforms/{platform}", params(("platform" = String, Path, description = "PlatID")), request_body = EditPlatform, responses((status = 200, body = PlatformView), (status = 400), (status = 404), (status = 409), (status = 503)), security(("token" = [])))]
pub(super) async fn edit_platform(
    State(api): State<Api>,
    Path(platform): Path<String>,
    Bounded(bytes): Bounded,
) -> Result<Json<PlatformView>, Problem> {
    let id = plat_id(&platform)?;
    let edit = whole_body::<EditPlatform>(&bytes)?.edit()?;
    let _products = api.changing.lock().await;
    api.check_grants(&edit)?;
    let _changing = api.book.lock().await;
    let changes = api.book.platforms().plan_edit(id, edit)?;
    api.commit_platform(Action::PlatformPut, id, changes).await?;
    Ok(Json(api.view_platform(id, &*api.existing_platform(id)?)))
}

/// Gives a platform another AuthToken, shown this once. Its log-ins end.
#[utoipa::path(post, path = "/api/v1/platforms/{platform}/auth-token", params(("platform" = String, Path, description = "PlatID")), responses((status = 200, body = PlatformView), (status = 404), (status = 503)), security(("token" = [])))]
pub(super) async fn renew_auth_token(
    State(api): State<Api>,
    Path(platform): Path<String>,
    _: Bodiless,
) -> Result<Json<PlatformView>, Problem> {
    let id = plat_id(&platform)?;
    let _changing = api.book.lock().await;
    let Created { auth_token, changes, .. } = api.book.platforms().plan_renew(id, &making())?;
    api.commit_platform(Action::KeyRotate, id, changes).await?;
    let mut view = api.view_platform(id, &*api.existing_platform(id)?);
    view.auth_token = Some(auth_token.expose().to_owned());
    Ok(Json(view))
}

/// Deletes a platform.
#[utoipa::path(delete, path = "/api/v1/platforms/{platform}", params(("platform" = String, Path, description = "PlatID")), responses((status = 204), (status = 404), (status = 503)), security(("token" = [])))]
pub(super) async fn delete_platform(
    State(api): State<Api>,
    Path(platform): Path<String>,
) -> Result<StatusCode, Problem> {
    let id = plat_id(&platform)?;
    let _changing = api.book.lock().await;
    let changes = api.book.platforms().plan_delete(id)?;
    api.commit_platform(Action::PlatformDelete, id, changes).await?;
    Ok(StatusCode::NO_CONTENT)
}
