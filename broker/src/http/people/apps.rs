//! Apps.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use turnpike_authz::people::apps::{App, KeySource, Products, TokenRules};
use turnpike_authz::people::ids::AppId;
use turnpike_authz::people::plan::{AppRequest, PlanError};
use turnpike_authz::plan::Making;
use utoipa::ToSchema;

use super::super::api::{now_s, product_key};
use super::super::extract::{Asked, Bodiless, Bounded, Page, Path, Query, body};
use super::super::{Api, Problem};
use super::{app_id, secret, shown, tenant_id};
use crate::fetch::Target;
use crate::provision::random;

/// Users of a deleted app that one commit removes.
const SWEEP_USERS: usize = 100;
/// In place of product keys: all of them.
const ALL: &str = "*";

/// How an app's tokens are checked.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(in super::super) struct Tokens {
    /// Tokens that the app's secret signs (HS256) are taken.
    hs256: bool,
    /// Public keys that sign others (RS256, ES256, EdDSA): a JWK set. At most one of the three.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    keys: Option<Value>,
    /// Where such a set is fetched from every five minutes, by https.
    #[serde(skip_serializing_if = "Option::is_none")]
    keys_url: Option<String>,
    /// The path of a file with such a set, read every five minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    keys_file: Option<String>,
    /// What `iss` must be; anything, if it isn't said.
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<String>,
    /// What `aud` must be or contain; the app's id, if it isn't said.
    #[serde(skip_serializing_if = "Option::is_none")]
    audience: Option<String>,
    /// How far the issuer's clock may be off, in seconds; at most 300.
    leeway_s: u16,
}

impl Default for Tokens {
    fn default() -> Self {
        Self::of(&TokenRules::default())
    }
}

impl Tokens {
    fn of(rules: &TokenRules) -> Self {
        let (mut keys, mut keys_url, mut keys_file) = (None, None, None);
        match &rules.keys {
            KeySource::None => {}
            KeySource::Document(text) => keys = serde_json::from_str(text).ok(),
            KeySource::Url(url) => keys_url = Some(url.to_string()),
            KeySource::File(path) => keys_file = Some(path.to_string()),
        }
        Self {
            hs256: rules.hs256,
            keys,
            keys_url,
            keys_file,
            issuer: rules.issuer.as_deref().map(str::to_owned),
            audience: rules.audience.as_deref().map(str::to_owned),
            leeway_s: rules.leeway_s,
        }
    }

    fn rules(self) -> Result<TokenRules, Problem> {
        let keys = match (self.keys, self.keys_url, self.keys_file) {
            (None, None, None) => KeySource::None,
            (Some(document), None, None) if has_private(&document) => {
                return Err(Problem::invalid(
                    "tokens.keys: public keys alone; nothing was kept, and the private parts are better not used any more",
                ));
            }
            (Some(document), None, None) => KeySource::Document(document.to_string().into()),
            (None, Some(url), None) => {
                Target::parse(&url).map_err(|error| Problem::invalid(format!("tokens.keys_url: {error}")))?;
                KeySource::Url(url.into())
            }
            (None, None, Some(path)) if path.starts_with('/') => KeySource::File(path.into()),
            (None, None, Some(_)) => return Err(Problem::invalid("tokens.keys_file must be an absolute path")),
            _ => return Err(Problem::invalid("tokens: one of keys, keys_url and keys_file")),
        };
        let text = |text: Option<String>| text.map(String::into_boxed_str);
        Ok(TokenRules {
            hs256: self.hs256,
            keys,
            issuer: text(self.issuer),
            audience: text(self.audience),
            leeway_s: self.leeway_s,
        })
    }
}

/// What an app is created or changed with. What is absent stays as it is.
#[derive(Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct PutApp {
    /// Whose it is: `default`, if it isn't said. It never changes.
    tenant: Option<String>,
    /// 32 to 256 bytes. A new app gets one made, if there is none here.
    secret: Option<String>,
    /// Whether its users may come in.
    enabled: Option<bool>,
    /// Keys of the products that its users may be bound to; `*` for all of the tenant's.
    products: Option<Vec<String>>,
    /// How many users it may have.
    users_max: Option<u32>,
    /// How its tokens are checked.
    tokens: Option<Tokens>,
}

impl Asked for PutApp {
    const FIELDS: &'static [&'static str] = &["tenant", "secret", "enabled", "products", "users_max", "tokens"];
}

/// An app.
#[derive(Serialize, ToSchema)]
pub(in super::super) struct AppView {
    app: String,
    tenant: String,
    /// False: all its clients are cut off.
    enabled: bool,
    /// Seconds since 1970 UTC.
    created_at: u64,
    /// Keys of its products, or `*`.
    products: Vec<String>,
    users: u64,
    users_max: u32,
    tokens: Tokens,
    /// The secret, where this request made it; it is never shown again.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

/// A page of apps, in the order of their ids.
#[derive(Serialize, ToSchema)]
pub(in super::super) struct AppPage {
    apps: Vec<AppView>,
    /// `after` of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Whether a JWK set has what its owner alone should have (RFC 7518, 6.2.2, 6.3.2, 6.4.1).
fn has_private(set: &Value) -> bool {
    const MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];
    let keys = set.get("keys").and_then(Value::as_array).into_iter().flatten();
    keys.filter_map(Value::as_object).any(|key| MEMBERS.iter().any(|member| key.contains_key(*member)))
}

fn products(keys: &[String]) -> Result<Products, Problem> {
    match keys {
        [all] if all == ALL => Ok(Products::All),
        keys => Ok(Products::Only(keys.iter().map(|key| product_key(key)).collect::<Result<BTreeSet<_>, _>>()?)),
    }
}

impl Api {
    fn view_app(&self, id: &AppId, app: &App) -> AppView {
        let products = match &app.products {
            Products::All => vec![ALL.to_owned()],
            Products::Only(only) => only.iter().map(ToString::to_string).collect(),
        };
        AppView {
            app: id.to_string(),
            tenant: app.tenant.to_string(),
            enabled: app.enabled,
            created_at: app.created_at_s,
            products,
            users: self.people().bindings().user_count(id.as_str()),
            users_max: app.users_max,
            tokens: Tokens::of(&app.tokens),
            secret: None,
        }
    }

    fn existing_app(&self, id: &AppId) -> Result<AppView, Problem> {
        let app = self.people().app(id.as_str()).ok_or(PlanError::NoSuchApp)?;
        Ok(self.view_app(id, &app))
    }

    async fn change_app(&self, id: &AppId, request: AppRequest) -> Result<(StatusCode, Json<AppView>), Problem> {
        let making = Making { key: self.gate.master_key(), random: random(), now_s: now_s() };
        let is_given = request.secret.is_some();
        let made = self.people().plan_put_app(id, request, &making)?;
        self.commit_people(vec![made.change]).await?;
        let secret = made.secret.filter(|_| !is_given).as_ref().and_then(shown);
        let status = if made.is_new { StatusCode::CREATED } else { StatusCode::OK };
        Ok((status, Json(AppView { secret, ..self.existing_app(id)? })))
    }

    async fn change_existing_app(&self, app: &str, request: AppRequest) -> Result<Json<AppView>, Problem> {
        let id = app_id(app)?;
        let _changing = self.changing.lock().await;
        self.existing_app(&id)?;
        Ok(self.change_app(&id, request).await?.1)
    }
}

/// Apps, by page.
#[utoipa::path(get, path = "/api/v1/apps", params(("limit" = Option<usize>, Query, description = "1 to 1000; default 100"), ("after" = Option<String>, Query, description = "`next` of the page before")), responses((status = 200, body = AppPage)), security(("token" = [])))]
pub(in super::super) async fn list_apps(
    State(api): State<Api>,
    Query(page): Query<Page>,
) -> Result<Json<AppPage>, Problem> {
    let limit = page.limit()?;
    let found = api.people().apps(page.after.as_deref(), limit + 1);
    let next = (found.len() > limit).then(|| found.get(limit - 1).map(|(id, _)| id.to_string())).flatten();
    let apps = found.iter().take(limit).map(|(id, app)| api.view_app(id, app)).collect();
    Ok(Json(AppPage { apps, next }))
}

/// One app.
#[utoipa::path(get, path = "/api/v1/apps/{app}", params(("app" = String, Path)), responses((status = 200, body = AppView)), security(("token" = [])))]
pub(in super::super) async fn show_app(
    State(api): State<Api>,
    Path(app): Path<String>,
) -> Result<Json<AppView>, Problem> {
    Ok(Json(api.existing_app(&app_id(&app)?)?))
}

/// Creates an app or changes it.
#[utoipa::path(put, path = "/api/v1/apps/{app}", params(("app" = String, Path)), request_body = PutApp, responses((status = 200, body = AppView, description = "changed"), (status = 201, body = AppView, description = "created"), (status = 409)), security(("token" = [])))]
pub(in super::super) async fn put_app(
    State(api): State<Api>,
    Path(app): Path<String>,
    Bounded(bytes): Bounded,
) -> Result<(StatusCode, Json<AppView>), Problem> {
    let asked: PutApp = body(&bytes)?;
    let id = app_id(&app)?;
    let request = AppRequest {
        tenant: tenant_id(asked.tenant.as_deref())?,
        secret: secret(asked.secret.as_deref())?,
        renew_secret: false,
        enabled: asked.enabled,
        products: asked.products.as_deref().map(products).transpose()?,
        tokens: asked.tokens.map(Tokens::rules).transpose()?,
        users_max: asked.users_max,
    };
    let _changing = api.changing.lock().await;
    api.change_app(&id, request).await
}

/// Lets an app's users in again.
#[utoipa::path(post, path = "/api/v1/apps/{app}/enable", params(("app" = String, Path)), responses((status = 200, body = AppView)), security(("token" = [])))]
pub(in super::super) async fn enable_app(
    State(api): State<Api>,
    Path(app): Path<String>,
    _: Bodiless,
) -> Result<Json<AppView>, Problem> {
    api.change_existing_app(&app, AppRequest { enabled: Some(true), ..AppRequest::default() }).await
}

/// Cuts off all clients of an app at once, until it is enabled.
#[utoipa::path(post, path = "/api/v1/apps/{app}/disable", params(("app" = String, Path)), responses((status = 200, body = AppView)), security(("token" = [])))]
pub(in super::super) async fn disable_app(
    State(api): State<Api>,
    Path(app): Path<String>,
    _: Bodiless,
) -> Result<Json<AppView>, Problem> {
    api.change_existing_app(&app, AppRequest { enabled: Some(false), ..AppRequest::default() }).await
}

/// Makes an app a new secret, which is shown once. Tokens that the old one has signed let nobody in any more.
#[utoipa::path(post, path = "/api/v1/apps/{app}/secret", params(("app" = String, Path)), responses((status = 200, body = AppView)), security(("token" = [])))]
pub(in super::super) async fn renew_app_secret(
    State(api): State<Api>,
    Path(app): Path<String>,
    _: Bodiless,
) -> Result<Json<AppView>, Problem> {
    api.change_existing_app(&app, AppRequest { renew_secret: true, ..AppRequest::default() }).await
}

/// Deletes an app, its users, and all that is theirs.
#[utoipa::path(delete, path = "/api/v1/apps/{app}", params(("app" = String, Path)), responses((status = 204, description = "deleted")), security(("token" = [])))]
pub(in super::super) async fn delete_app(
    State(api): State<Api>,
    Path(app): Path<String>,
) -> Result<StatusCode, Problem> {
    let id = app_id(&app)?;
    let _changing = api.changing.lock().await;
    let change = api.people().plan_delete_app(&id)?;
    let concerned = change.concerns();
    api.commit_people(vec![change]).await?;
    for concern in &concerned {
        api.control.forget(concern).await;
    }
    loop {
        let changes = api.people().plan_sweep(&id, SWEEP_USERS);
        if changes.is_empty() {
            return Ok(StatusCode::NO_CONTENT);
        }
        api.commit_people(changes).await?;
    }
}
