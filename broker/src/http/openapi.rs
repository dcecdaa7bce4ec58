//! The API's description of itself.

use axum::Json;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa::{OpenApi, ToSchema};

use super::people::{apps, bindings, erasures, services, users};
use super::{
    access, api, attest, audit, bans, campaigns, firmware, import, limits, lists, packages, payloads, platforms,
    register, vendors,
};

#[derive(OpenApi)]
#[openapi(
    info(title = "Turnpike", description = "Products and devices of the broker, apps and their users, services, who may come in, and its audit. Errors are {\"error\": {\"code\", \"message\"}}, also 404 for a path and 405 for a method that isn't here."),
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
        access::show_authorities,
        access::put_authorities,
        payloads::show_payloads,
        payloads::put_payloads,
        access::drop_secret,
        limits::show_limits,
        limits::put_limits,
        limits::delete_limits,
        limits::show_device_limits,
        limits::put_device_limits,
        limits::delete_device_limits,
        access::show_keys,
        access::put_keys,
        access::delete_keys,
        platforms::list_platforms,
        platforms::show_platform,
        platforms::create_platform,
        platforms::edit_platform,
        platforms::renew_auth_token,
        platforms::delete_platform,
        attest::show_attestation,
        attest::put_attestation,
        attest::delete_attestation,
        bans::list_bans,
        bans::put_ban,
        bans::delete_ban,
        bans::pardon_device,
        api::enable_device,
        api::disable_device,
        api::renew_secret,
        import::import_devices,
        audit::search_audit,
        firmware::list_firmware,
        firmware::show_firmware,
        firmware::create_firmware,
        firmware::put_content,
        firmware::finish_firmware,
        firmware::withdraw_firmware,
        firmware::delete_firmware,
        firmware::show_demands,
        firmware::put_demands,
        campaigns::list_campaigns,
        campaigns::show_campaign,
        campaigns::create_campaign,
        campaigns::list_campaign_devices,
        campaigns::delete_campaign,
        campaigns::approve_campaign,
        campaigns::pause_campaign,
        campaigns::resume_campaign,
        campaigns::stop_campaign,
        campaigns::retry_campaign,
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
        vendors::gizwits_check,
        apps::list_apps,
        apps::show_app,
        apps::put_app,
        apps::enable_app,
        apps::disable_app,
        apps::renew_app_secret,
        apps::delete_app,
        users::list_users,
        users::show_user,
        users::put_user,
        users::freeze_user,
        users::unfreeze_user,
        users::export_user,
        users::delete_user,
        erasures::erase_user,
        erasures::list_erasures,
        erasures::show_erasure,
        users::sign_out,
        users::issue_code,
        users::revoke_codes,
        users::revoke_code,
        bindings::list_of_device,
        bindings::list_of_user,
        bindings::issue_proof,
        bindings::bind,
        bindings::share,
        bindings::unbind,
        bindings::transfer,
        services::list_services,
        services::show_service,
        services::put_service,
        services::enable_service,
        services::disable_service,
        services::renew_service_secret,
        services::delete_service,
        services::show_tenant,
        services::put_tenant,
    ),
    components(schemas(Failure)),
    modifiers(&Token, &Failures)
)]
struct Document;

struct Token;

impl utoipa::Modify for Token {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        document.components.get_or_insert_default().add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

/// Any error.
#[derive(ToSchema)]
#[allow(dead_code, reason = "it describes what `Problem` answers with")]
struct Failure {
    error: FailureText,
}

/// What an error says. Nothing of what was sent is in it.
#[derive(ToSchema)]
#[allow(dead_code, reason = "it describes what `Problem` answers with")]
struct FailureText {
    /// For programs.
    code: String,
    /// For people.
    message: String,
}

/// Adds the errors that each operation may answer with.
struct Failures;

impl utoipa::Modify for Failures {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        for (path, item) in &mut document.paths.paths {
            for (method, operation) in [
                ("GET", &mut item.get),
                ("PUT", &mut item.put),
                ("POST", &mut item.post),
                ("PATCH", &mut item.patch),
                ("DELETE", &mut item.delete),
            ] {
                if let Some(operation) = operation {
                    add_failures(path, method, operation);
                }
            }
        }
    }
}

fn add_failures(path: &str, method: &str, operation: &mut Operation) {
    let is_import = path.ends_with("/import");
    let makes_product = method == "PUT" && path.ends_with("/{product}");
    let creates = makes_product || method == "PUT" && (path.ends_with("/{app}") || path.ends_with("/{service}"));
    let failures = [
        ("400", "the path, the query or the body can't be used", true),
        ("401", "a bearer token is needed", true),
        ("404", "there is no such thing", path.contains('{') && !creates),
        ("405", "the path doesn't take this method: what a POST to a device gets whose name isn't `import`", is_import),
        ("409", "a product of that key is still being deleted", makes_product),
        ("413", "the body is too large", operation.request_body.is_some() && !is_import),
        ("429", "this address asks too often; the header Retry-After says when to try again", true),
        ("503", "the store doesn't take changes at the moment", method != "GET"),
    ];
    let content = || ContentBuilder::new().schema(Some(Ref::from_schema_name("Failure"))).build();
    for (status, response) in &mut operation.responses.responses {
        // Those that an operation tells itself say the same in the same form.
        if let (true, RefOr::T(response)) = (status.starts_with(['4', '5']), response) {
            response.content.insert("application/json".to_owned(), content());
        }
    }
    for (status, description, _) in failures.into_iter().filter(|(_, _, can_happen)| *can_happen) {
        let response = ResponseBuilder::new().description(description).content("application/json", content()).build();
        operation.responses.responses.entry(status.to_owned()).or_insert(RefOr::T(response));
    }
}

/// `GET /api/openapi.json`
pub(super) async fn document() -> Json<utoipa::openapi::OpenApi> {
    Json(Document::openapi())
}
