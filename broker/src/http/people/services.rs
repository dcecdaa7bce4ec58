//! Back-end services, and whose products are.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use turnpike_authz::people::ids::{AccessKey, TenantId};
use turnpike_authz::people::plan::{PlanError, ServiceRequest};
use turnpike_authz::people::services::{Grant, Right, Rights, Service};
use turnpike_authz::plan::Making;
use utoipa::ToSchema;

use super::super::api::{now_s, product_key};
use super::super::extract::{Asked, Bodiless, Bounded, Page, Path, Query, body, whole_body};
use super::super::{Api, Problem};
use super::{access_key, named, secret, shown, tenant_id};
use crate::provision::random;

/// What a service may do.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct GrantView {
    /// A product key; absent: all of the tenant's.
    #[serde(skip_serializing_if = "Option::is_none")]
    product: Option<String>,
    /// `read_up`, `read_down`, `write_down`, `read_system`, `read_vendor`, `write_vendor`.
    rights: Vec<String>,
}

/// What a service is created or changed with. What is absent stays as it is.
#[derive(Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct PutService {
    /// Whose it is: `default`, if it isn't said. It never changes.
    tenant: Option<String>,
    /// 32 to 256 bytes. A new service gets one made, if there is none here.
    secret: Option<String>,
    /// Whether it may come in.
    enabled: Option<bool>,
    /// Where it may come from: addresses, and networks such as `192.0.2.0/24`; from anywhere, if the list is empty.
    networks: Option<Vec<String>>,
    /// What it may do.
    grants: Option<Vec<GrantView>>,
}

impl Asked for PutService {
    const FIELDS: &'static [&'static str] = &["tenant", "secret", "enabled", "networks", "grants"];
}

/// A service.
#[derive(Serialize, ToSchema)]
pub(in super::super) struct ServiceView {
    /// Its access key.
    service: String,
    tenant: String,
    enabled: bool,
    /// Seconds since 1970 UTC.
    created_at: u64,
    networks: Vec<String>,
    grants: Vec<GrantView>,
    /// The secret, where this request made it; it is never shown again.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

/// A page of services, in the order of their access keys.
#[derive(Serialize, ToSchema)]
pub(in super::super) struct ServicePage {
    services: Vec<ServiceView>,
    /// `after` of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Whose a product is.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct TenantView {
    /// `default`, if it was given to nobody.
    tenant: String,
}

impl Asked for TenantView {
    const FIELDS: &'static [&'static str] = &["tenant"];
}

fn networks(texts: &[String]) -> Result<Vec<IpNet>, Problem> {
    let network = |text: &String| {
        let address = || text.parse::<std::net::IpAddr>().map(IpNet::from);
        text.parse::<IpNet>().or_else(|_| address())
    };
    let parsed: Result<Vec<_>, _> = texts.iter().map(network).collect();
    parsed.map_err(|_| Problem::invalid("networks: addresses and networks, such as 192.0.2.0/24"))
}

fn grants(views: &[GrantView]) -> Result<Vec<Grant>, Problem> {
    let right = |text: &String| Right::ALL.into_iter().find(|right| right.as_str() == text);
    let known = || Problem::invalid(format!("grants: the rights are {}", Right::ALL.map(Right::as_str).join(", ")));
    let grant = |view: &GrantView| {
        let product = view.product.as_deref().map(product_key).transpose()?;
        let rights: Option<Rights> = view.rights.iter().map(right).collect();
        Ok(Grant { product, rights: rights.ok_or_else(known)? })
    };
    views.iter().map(grant).collect()
}

fn view(key: &AccessKey, service: &Service) -> ServiceView {
    let grant = |grant: &Grant| GrantView {
        product: grant.product.as_ref().map(ToString::to_string),
        rights: grant.rights.iter().map(|right| right.as_str().to_owned()).collect(),
    };
    ServiceView {
        service: key.to_string(),
        tenant: service.tenant.to_string(),
        enabled: service.enabled,
        created_at: service.created_at_s,
        networks: service.networks.iter().map(ToString::to_string).collect(),
        grants: service.grants.iter().map(grant).collect(),
        secret: None,
    }
}

impl Api {
    fn existing_service(&self, key: &AccessKey) -> Result<ServiceView, Problem> {
        let service = self.people().service(key.as_str()).ok_or(PlanError::NoSuchService)?;
        Ok(view(key, &service))
    }

    async fn change_service(
        &self,
        key: &AccessKey,
        request: ServiceRequest,
    ) -> Result<(StatusCode, Json<ServiceView>), Problem> {
        let making = Making { key: self.gate.master_key(), random: random(), now_s: now_s() };
        let is_given = request.secret.is_some();
        let made = self.people().plan_put_service(key, request, &making)?;
        self.commit_people(vec![made.change]).await?;
        let secret = made.secret.filter(|_| !is_given).as_ref().and_then(shown);
        let status = if made.is_new { StatusCode::CREATED } else { StatusCode::OK };
        Ok((status, Json(ServiceView { secret, ..self.existing_service(key)? })))
    }

    async fn change_existing_service(
        &self,
        service: &str,
        request: ServiceRequest,
    ) -> Result<Json<ServiceView>, Problem> {
        let key = access_key(service)?;
        let _changing = self.changing.lock().await;
        self.existing_service(&key)?;
        Ok(self.change_service(&key, request).await?.1)
    }
}

/// Services, by page. Secrets are never shown.
#[utoipa::path(get, path = "/api/v1/services", params(("limit" = Option<usize>, Query, description = "1 to 1000; default 100"), ("after" = Option<String>, Query, description = "`next` of the page before")), responses((status = 200, body = ServicePage)), security(("token" = [])))]
pub(in super::super) async fn list_services(
    State(api): State<Api>,
    Query(page): Query<Page>,
) -> Result<Json<ServicePage>, Problem> {
    let limit = page.limit()?;
    let found = api.people().services(page.after.as_deref(), limit + 1);
    let next = (found.len() > limit).then(|| found.get(limit - 1).map(|(key, _)| key.to_string())).flatten();
    let services = found.iter().take(limit).map(|(key, service)| view(key, service)).collect();
    Ok(Json(ServicePage { services, next }))
}

/// One service.
#[utoipa::path(get, path = "/api/v1/services/{service}", params(("service" = String, Path)), responses((status = 200, body = ServiceView)), security(("token" = [])))]
pub(in super::super) async fn show_service(
    State(api): State<Api>,
    Path(service): Path<String>,
) -> Result<Json<ServiceView>, Problem> {
    Ok(Json(api.existing_service(&access_key(&service)?)?))
}

/// Creates a service or changes it. What it may do now, live connections may do at once, and nothing else.
#[utoipa::path(put, path = "/api/v1/services/{service}", params(("service" = String, Path)), request_body = PutService, responses((status = 200, body = ServiceView, description = "changed"), (status = 201, body = ServiceView, description = "created"), (status = 409)), security(("token" = [])))]
pub(in super::super) async fn put_service(
    State(api): State<Api>,
    Path(service): Path<String>,
    Bounded(bytes): Bounded,
) -> Result<(StatusCode, Json<ServiceView>), Problem> {
    let asked: PutService = body(&bytes)?;
    let key = access_key(&service)?;
    let request = ServiceRequest {
        tenant: tenant_id(asked.tenant.as_deref())?,
        secret: secret(asked.secret.as_deref())?,
        renew_secret: false,
        enabled: asked.enabled,
        networks: asked.networks.as_deref().map(networks).transpose()?,
        grants: asked.grants.as_deref().map(grants).transpose()?,
    };
    let _changing = api.changing.lock().await;
    api.change_service(&key, request).await
}

/// Lets a service in again.
#[utoipa::path(post, path = "/api/v1/services/{service}/enable", params(("service" = String, Path)), responses((status = 200, body = ServiceView)), security(("token" = [])))]
pub(in super::super) async fn enable_service(
    State(api): State<Api>,
    Path(service): Path<String>,
    _: Bodiless,
) -> Result<Json<ServiceView>, Problem> {
    api.change_existing_service(&service, ServiceRequest { enabled: Some(true), ..ServiceRequest::default() }).await
}

/// Closes a service's connections and keeps it out.
#[utoipa::path(post, path = "/api/v1/services/{service}/disable", params(("service" = String, Path)), responses((status = 200, body = ServiceView)), security(("token" = [])))]
pub(in super::super) async fn disable_service(
    State(api): State<Api>,
    Path(service): Path<String>,
    _: Bodiless,
) -> Result<Json<ServiceView>, Problem> {
    api.change_existing_service(&service, ServiceRequest { enabled: Some(false), ..ServiceRequest::default() }).await
}

/// Makes a service a new secret, which is shown once. Connections stay.
#[utoipa::path(post, path = "/api/v1/services/{service}/secret", params(("service" = String, Path)), responses((status = 200, body = ServiceView)), security(("token" = [])))]
pub(in super::super) async fn renew_service_secret(
    State(api): State<Api>,
    Path(service): Path<String>,
    _: Bodiless,
) -> Result<Json<ServiceView>, Problem> {
    api.change_existing_service(&service, ServiceRequest { renew_secret: true, ..ServiceRequest::default() }).await
}

/// Deletes a service, and ends its sessions.
#[utoipa::path(delete, path = "/api/v1/services/{service}", params(("service" = String, Path)), responses((status = 204, description = "deleted")), security(("token" = [])))]
pub(in super::super) async fn delete_service(
    State(api): State<Api>,
    Path(service): Path<String>,
) -> Result<StatusCode, Problem> {
    let key = access_key(&service)?;
    let _changing = api.changing.lock().await;
    let change = api.people().plan_delete_service(&key)?;
    let concerned = change.concerns();
    api.commit_people(vec![change]).await?;
    for concern in &concerned {
        api.control.forget(concern).await;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Whose a product is.
#[utoipa::path(get, path = "/api/v1/products/{product}/tenant", params(("product" = String, Path)), responses((status = 200, body = TenantView)), security(("token" = [])))]
pub(in super::super) async fn show_tenant(
    State(api): State<Api>,
    Path(product): Path<String>,
) -> Result<Json<TenantView>, Problem> {
    api.existing_product(&product)?;
    Ok(Json(TenantView { tenant: api.people().tenant_of(&product).to_string() }))
}

/// Gives a product to a tenant: its services see it, and no other's. None of its devices may be bound.
#[utoipa::path(put, path = "/api/v1/products/{product}/tenant", params(("product" = String, Path)), request_body = TenantView, responses((status = 200, body = TenantView), (status = 409)), security(("token" = [])))]
pub(in super::super) async fn put_tenant(
    State(api): State<Api>,
    Path(product): Path<String>,
    Bounded(bytes): Bounded,
) -> Result<Json<TenantView>, Problem> {
    let asked: TenantView = whole_body(&bytes)?;
    let (key, tenant) = (product_key(&product)?, named("tenant", TenantId::parse(&asked.tenant))?);
    let _changing = api.changing.lock().await;
    let change = api.people().plan_set_tenant(api.gate.registry(), &key, tenant)?;
    api.commit_people(vec![change]).await?;
    Ok(Json(asked))
}
