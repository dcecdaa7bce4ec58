//! The API's description of itself.

use axum::Json;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};

use super::{access, api, audit, bans, import, lists, packages, register, vendors};

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
        access::put_authorities,
        access::show_keys,
        access::put_keys,
        access::delete_keys,
        bans::list_bans,
        bans::put_ban,
        bans::delete_ban,
        api::enable_device,
        api::disable_device,
        import::import_devices,
        audit::search_audit,
        packages::show_registration,
        packages::put_registration,
        packages::list_packages,
        packages::create_package,
        packages::show_package,
        packages::put_package,
        packages::delete_package,
        packages::issue_keys,
        packages::show_keys,
        packages::list_used_keys,
        packages::release_key,
        lists::import_list,
        lists::put_identifier,
        lists::show_list,
        lists::show_identifier,
        lists::unlist,
        lists::release_identifier,
        register::register,
        vendors::aliyun,
        vendors::tencent,
        vendors::tencent_signed_by_headers,
        vendors::gizwits,
        vendors::gizwits_sealed,
        vendors::gizwits_provision,
        vendors::gizwits_provision_sealed,
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
