//! The API's description of itself.

use axum::Json;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};

use super::{access, api, attest, audit, bans, import};

#[derive(OpenApi)]
#[openapi(
    info(title = "Turnpike", description = "Products and devices of the broker, and its audit. Errors are {\"error\": {\"code\", \"message\"}}."),
    paths(
        api::list_products,
        api::show_product,
        api::put_product,
        api::patch_product,
        api::delete_product,
        api::enable_product,
        api::disable_product,
        api::list_devices,
        api::show_device,
        api::put_device,
        api::patch_device,
        api::delete_device,
        access::show_profiles,
        access::put_profiles,
        access::show_policy,
        access::put_policy,
        access::show_verifier,
        access::put_verifier,
        access::put_authorities,
        access::show_keys,
        access::put_keys,
        access::delete_keys,
        attest::show_attestation,
        attest::put_attestation,
        attest::delete_attestation,
        bans::list_bans,
        bans::put_ban,
        bans::delete_ban,
        api::enable_device,
        api::disable_device,
        import::import_devices,
        audit::search_audit,
    ),
    modifiers(&Token)
)]
struct Document;

struct Token;

impl utoipa::Modify for Token {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        document.components.get_or_insert_default().add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

/// `GET /api/openapi.json`
pub(super) async fn document() -> Json<utoipa::openapi::OpenApi> {
    Json(Document::openapi())
}
