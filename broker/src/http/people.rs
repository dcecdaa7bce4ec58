//! Apps, users, whom devices are bound to, and back-end services.

pub(super) mod apps;
pub(super) mod bindings;
pub(super) mod erasures;
pub(super) mod services;
pub(super) mod users;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use serde::{Deserialize, Serialize};
use turnpike_authz::names::NameError;
use turnpike_authz::people::bindings::DeviceKey;
use turnpike_authz::people::ids::{AccessKey, AppId, TenantId, UserKey};
use turnpike_authz::people::plan::PlanError;
use turnpike_authz::people::{Change, People};
use turnpike_authz::secret::Secret;
use utoipa::ToSchema;

use super::api::{device_name, product_key};
use super::{Api, Problem};
use crate::edit::{Edit, Told};

/// The routes, below `/api/v1`.
pub(super) fn routes() -> Router<Api> {
    let app = get(apps::show_app).put(apps::put_app).delete(apps::delete_app);
    let user = get(users::show_user).put(users::put_user).delete(users::delete_user);
    let service = get(services::show_service).put(services::put_service).delete(services::delete_service);
    let share = put(bindings::share).delete(bindings::unbind);
    Router::new()
        .route("/apps", get(apps::list_apps))
        .route("/apps/{app}", app)
        .route("/apps/{app}/enable", post(apps::enable_app))
        .route("/apps/{app}/disable", post(apps::disable_app))
        .route("/apps/{app}/secret", post(apps::renew_app_secret))
        .route("/apps/{app}/users", get(users::list_users))
        .route("/apps/{app}/users/{user}", user)
        .route("/apps/{app}/users/{user}/freeze", post(users::freeze_user))
        .route("/apps/{app}/users/{user}/unfreeze", post(users::unfreeze_user))
        .route("/apps/{app}/users/{user}/export", get(users::export_user))
        .route("/apps/{app}/users/{user}/erasure", post(erasures::erase_user))
        .route("/apps/{app}/erasures", get(erasures::list_erasures))
        .route("/apps/{app}/erasures/{erasure}", get(erasures::show_erasure))
        .route("/apps/{app}/users/{user}/sessions/{client}", axum::routing::delete(users::sign_out))
        .route("/apps/{app}/users/{user}/codes", post(users::issue_code).delete(users::revoke_codes))
        .route("/apps/{app}/users/{user}/codes/{code}", axum::routing::delete(users::revoke_code))
        .route("/apps/{app}/users/{user}/devices", get(bindings::list_of_user).post(bindings::bind))
        .route("/products/{product}/devices/{device}/users", get(bindings::list_of_device))
        .route("/products/{product}/devices/{device}/users/{app}/{user}", share)
        .route("/products/{product}/devices/{device}/proofs", post(bindings::issue_proof))
        .route("/products/{product}/devices/{device}/transfer", post(bindings::transfer))
        .route("/products/{product}/tenant", get(services::show_tenant).put(services::put_tenant))
        .route("/services", get(services::list_services))
        .route("/services/{service}", service)
        .route("/services/{service}/enable", post(services::enable_service))
        .route("/services/{service}/disable", post(services::disable_service))
        .route("/services/{service}/secret", post(services::renew_service_secret))
}

/// A user, in a body.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UserRef {
    /// The app's id.
    app: String,
    /// The user's id there.
    user: String,
}

impl UserRef {
    fn key(&self) -> Result<UserKey, Problem> {
        user_key(&self.app, &self.user)
    }
}

impl From<PlanError> for Problem {
    fn from(error: PlanError) -> Self {
        let conflict = |code| Self::new(StatusCode::CONFLICT, code, error.to_string());
        match error {
            PlanError::NoSuchApp
            | PlanError::NoSuchUser
            | PlanError::NoSuchService
            | PlanError::NoSuchProduct
            | PlanError::NoSuchDevice => Self::not_found(&error.to_string()),
            PlanError::AppBeingDeleted => conflict("being_deleted"),
            PlanError::WeakSecret | PlanError::BadKeys | PlanError::Expired | PlanError::OwnerShared => {
                Self::invalid(error.to_string())
            }
            PlanError::BeingErased => conflict("being_erased"),
            PlanError::TooMuch => conflict("too_many"),
            PlanError::ProductNotAllowed => conflict("product_not_allowed"),
            PlanError::ProductBound => conflict("product_bound"),
            PlanError::OwnedByAnother => conflict("owned_by_another"),
            PlanError::NoOwner => conflict("no_owner"),
            PlanError::NotOwner => conflict("not_owner"),
            PlanError::NotBound => Self::new(StatusCode::NOT_FOUND, "not_bound", error.to_string()),
            PlanError::IsOwner => conflict("is_owner"),
        }
    }
}

fn named<T>(what: &str, parsed: Result<T, NameError>) -> Result<T, Problem> {
    parsed.map_err(|error| Problem::invalid(format!("{what}: {error}")))
}

fn app_id(text: &str) -> Result<AppId, Problem> {
    named("app", AppId::parse(text))
}

fn user_key(app: &str, user: &str) -> Result<UserKey, Problem> {
    app_id(app)?;
    named("user", UserKey::parse(app, user))
}

fn access_key(text: &str) -> Result<AccessKey, Problem> {
    named("service", AccessKey::parse(text))
}

fn tenant_id(text: Option<&str>) -> Result<Option<TenantId>, Problem> {
    text.map(|text| named("tenant", TenantId::parse(text))).transpose()
}

fn device_key(product: &str, device: &str) -> Result<DeviceKey, Problem> {
    Ok(DeviceKey { product: product_key(product)?, device: device_name(device)? })
}

fn secret(text: Option<&str>) -> Result<Option<Secret>, Problem> {
    text.map(|text| Secret::new(text.as_bytes())).transpose().map_err(|error| Problem::invalid(error.to_string()))
}

/// A secret that was made, as it is shown. What is made is text.
fn shown(made: &Secret) -> Option<String> {
    String::from_utf8(made.expose().to_vec()).ok()
}

impl Api {
    fn people(&self) -> &People {
        self.gate.people()
    }

    /// Commits changes of people. The caller holds `changing`.
    async fn commit_people(&self, changes: Vec<Change>) -> Result<(), Problem> {
        self.commit_all(changes.into_iter().map(Edit::from).collect()).await
    }

    /// Has something on record that isn't a change of what is stored.
    async fn accept_deed(&self, deed: turnpike_authz::audit::DescribedPeople) -> Result<(), Problem> {
        self.audit.accept(&[Told::People(deed)]).await
    }
}
