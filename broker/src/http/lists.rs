//! Allow-lists: MAC addresses, IMEIs, serial numbers, as a file or one by one.

use std::str::FromStr;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use futures_util::StreamExt;
use serde::Serialize;
use turnpike_authz::import::Faults;
use turnpike_authz::names::ProductKey;
use turnpike_authz::presale::book::Listed;
use turnpike_authz::presale::desk::DeskError;
use turnpike_authz::presale::list::{ListImport, Report, RowError};
use turnpike_authz::presale::{Identifier, Kind};
use utoipa::ToSchema;

use super::api::product_key;
use super::batch::Batch;
use super::extract::{Bodiless, Page, Path, Query};
use super::lines::{LineFault, Lines, fields, told};
use super::packages::package_id;
use super::{Api, Problem};

/// What became of an upload.
#[derive(Serialize, ToSchema)]
pub(super) struct ListReport {
    /// New on the list.
    listed: u64,
    /// Were on it.
    kept: u64,
    /// Lines that weren't taken.
    refused: u64,
    /// The first hundred of these.
    faults: Vec<LineFault>,
}

/// An identifier on a list.
#[derive(Serialize, ToSchema)]
pub(super) struct ListedView {
    /// As it is kept: a MAC address is 12 hexadecimal digits.
    identifier: String,
    /// Its package.
    package: u32,
    /// The device that it has registered.
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
}

/// A page of identifiers, in order; serial numbers of more than 24 characters come last.
#[derive(Serialize, ToSchema)]
pub(super) struct ListPage {
    identifiers: Vec<ListedView>,
    /// `after` of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

fn view(identifier: &Identifier, listed: &Listed) -> ListedView {
    ListedView {
        identifier: identifier.to_string(),
        package: listed.package.get(),
        device: listed.device.as_ref().map(ToString::to_string),
    }
}

fn kind(text: &str) -> Result<Kind, Problem> {
    Kind::from_str(text).map_err(|error| Problem::invalid(error.to_string()))
}

fn identifier(kind: Kind, text: &str) -> Result<Identifier, Problem> {
    Identifier::parse(kind, text).map_err(|error| Problem::invalid(error.to_string()))
}

impl From<RowError> for Problem {
    fn from(error: RowError) -> Self {
        match error {
            RowError::Identifier(_) => Self::invalid(error.to_string()),
            RowError::NoSuchPackage => Self::not_found(&error.to_string()),
            RowError::OtherPackage => Self::new(StatusCode::CONFLICT, "other_package", error.to_string()),
            RowError::Full => Self::new(StatusCode::CONFLICT, "full", error.to_string()),
        }
    }
}

impl Api {
    /// Commits what an upload has so far.
    async fn flush_list(&self, import: &mut ListImport) -> Result<(), Problem> {
        let _changing = self.changing.lock().await;
        let changes = self.plan_at_desk(|desk| Ok::<_, Problem>(import.take(desk.book)))?;
        if changes.is_empty() { Ok(()) } else { self.commit_batch(Batch::of_book(changes)).await }
    }

    fn listed(&self, product: &ProductKey, identifier: &Identifier) -> Result<Listed, DeskError> {
        self.registrar.book().listed(product.as_str(), identifier).ok_or(DeskError::NotListed)
    }
}

/// An upload, and its lines that are no rows.
struct Upload {
    import: ListImport,
    line: u64,
    unreadable: Faults<&'static str>,
}

impl Upload {
    fn line(&mut self, line: &[u8]) {
        self.line += 1;
        match row(line) {
            Ok(None) => {}
            Ok(Some((kind, _))) if self.line == 1 && kind == "kind" => {}
            Ok(Some((kind, text))) => match Kind::from_str(&kind) {
                // What is wrong with a row is in the report.
                Ok(kind) => drop(self.import.row(self.line, kind, &text)),
                Err(_) => self.unreadable.add(self.line, "an identifier is a mac, an imei or a serial"),
            },
            Err(message) => self.unreadable.add(self.line, message),
        }
    }

    fn result(&self) -> ListReport {
        let Report { listed, kept, ref refused } = *self.import.report();
        let (refused, faults) = told(&self.unreadable, refused);
        ListReport { listed, kept, refused, faults }
    }
}

/// A line's two fields; nothing for an empty line.
fn row(line: &[u8]) -> Result<Option<(String, String)>, &'static str> {
    match fields(line)?.map(<[String; 2]>::try_from) {
        None => Ok(None),
        Some(Ok([kind, identifier])) => Ok(Some((kind, identifier))),
        Some(Err(_)) => Err("it doesn't have the two fields kind,identifier"),
    }
}

/// Puts identifiers on the list of a package: lines `kind,identifier`, the kind being `mac`, `imei` or `serial`; the header is optional. Lines before a
/// failure of the store stay listed.
#[utoipa::path(post, path = "/api/v1/products/{product}/packages/{package}/list", params(("product" = String, Path), ("package" = u32, Path)), request_body(content = String, content_type = "text/csv", description = "lines `kind,identifier`"), responses((status = 200, body = ListReport), (status = 404), (status = 503)), security(("token" = [])))]
pub(super) async fn import_list(
    State(api): State<Api>,
    Path((product, package)): Path<(String, u32)>,
    body: Body,
) -> Result<Json<ListReport>, Problem> {
    let (key, id) = (product_key(&product)?, package_id(package)?);
    api.registrar.book().package(key.as_str(), id).ok_or(DeskError::NoSuchPackage)?;
    let import = ListImport::new(key, id);
    let mut upload = Upload { import, line: 0, unreadable: Faults::default() };
    let mut lines = Lines::default();
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Problem::invalid("the body broke off; what came before may be listed"))?;
        for byte in chunk {
            if let Some(line) = lines.push(byte) {
                upload.line(&line);
                if upload.import.is_full() {
                    api.flush_list(&mut upload.import).await?;
                }
            }
        }
    }
    if let Some(line) = lines.finish() {
        upload.line(&line);
    }
    api.flush_list(&mut upload.import).await?;
    Ok(Json(upload.result()))
}

/// Puts one identifier on the list of a package.
#[utoipa::path(put, path = "/api/v1/products/{product}/packages/{package}/list/{kind}/{identifier}", params(("product" = String, Path), ("package" = u32, Path), ("kind" = String, Path, description = "`mac`, `imei` or `serial`"), ("identifier" = String, Path)), responses((status = 200, body = ListedView, description = "it was there"), (status = 201, body = ListedView), (status = 400), (status = 404), (status = 409), (status = 503)), security(("token" = [])))]
pub(super) async fn put_identifier(
    State(api): State<Api>,
    Path((product, package, kind_text, text)): Path<(String, u32, String, String)>,
    _: Bodiless,
) -> Result<(StatusCode, Json<ListedView>), Problem> {
    let (key, id) = (product_key(&product)?, package_id(package)?);
    let identifier = identifier(kind(&kind_text)?, &text)?;
    let mut import = ListImport::new(key.clone(), id);
    import.row(1, identifier.kind(), &text)?;
    api.flush_list(&mut import).await?;
    if let Some((_, error)) = import.report().refused.first().first() {
        return Err((*error).into());
    }
    let status = if import.report().listed > 0 { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(view(&identifier, &api.listed(&key, &identifier)?))))
}

/// Identifiers of one kind on a product's lists, by page.
#[utoipa::path(get, path = "/api/v1/products/{product}/lists/{kind}", params(("product" = String, Path), ("kind" = String, Path, description = "`mac`, `imei` or `serial`"), ("limit" = Option<usize>, Query, description = "1 to 1000; default 100"), ("after" = Option<String>, Query, description = "`next` of the page before")), responses((status = 200, body = ListPage), (status = 400), (status = 404)), security(("token" = [])))]
pub(super) async fn show_list(
    State(api): State<Api>,
    Path((product, kind_text)): Path<(String, String)>,
    Query(page): Query<Page>,
) -> Result<Json<ListPage>, Problem> {
    let (limit, kind) = (page.limit()?, kind(&kind_text)?);
    let (key, _) = api.existing_product(&product)?;
    let after = page.after.as_deref().map(|text| identifier(kind, text)).transpose()?;
    let found = api.registrar.book().list_of(key.as_str(), kind, after.as_ref(), limit + 1);
    let next = (found.len() > limit).then(|| found.get(limit - 1).map(|(last, _)| last.to_string())).flatten();
    let identifiers = found.iter().take(limit).map(|(identifier, listed)| view(identifier, listed)).collect();
    Ok(Json(ListPage { identifiers, next }))
}

/// One identifier.
#[utoipa::path(get, path = "/api/v1/products/{product}/lists/{kind}/{identifier}", params(("product" = String, Path), ("kind" = String, Path), ("identifier" = String, Path)), responses((status = 200, body = ListedView), (status = 400), (status = 404)), security(("token" = [])))]
pub(super) async fn show_identifier(
    State(api): State<Api>,
    Path((product, kind_text, text)): Path<(String, String, String)>,
) -> Result<Json<ListedView>, Problem> {
    let identifier = identifier(kind(&kind_text)?, &text)?;
    let listed = api.listed(&product_key(&product)?, &identifier)?;
    Ok(Json(view(&identifier, &listed)))
}

/// Takes an identifier off its list. One that has registered a device has to be released first.
#[utoipa::path(delete, path = "/api/v1/products/{product}/lists/{kind}/{identifier}", params(("product" = String, Path), ("kind" = String, Path), ("identifier" = String, Path)), responses((status = 204), (status = 400), (status = 404), (status = 409), (status = 503)), security(("token" = [])))]
pub(super) async fn unlist(
    State(api): State<Api>,
    Path((product, kind_text, text)): Path<(String, String, String)>,
) -> Result<StatusCode, Problem> {
    let (key, identifier) = (product_key(&product)?, identifier(kind(&kind_text)?, &text)?);
    let _changing = api.changing.lock().await;
    let change = api.plan_at_desk(|desk| desk.plan_unlist(&key, &identifier))?;
    api.commit_batch(Batch::of_book(vec![change])).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes back what an identifier has registered: the device is deleted, and the identifier, which stays on the list, may register another.
#[utoipa::path(post, path = "/api/v1/products/{product}/lists/{kind}/{identifier}/release", params(("product" = String, Path), ("kind" = String, Path), ("identifier" = String, Path)), responses((status = 204), (status = 400), (status = 404), (status = 503)), security(("token" = [])))]
pub(super) async fn release_identifier(
    State(api): State<Api>,
    Path((product, kind_text, text)): Path<(String, String, String)>,
    _: Bodiless,
) -> Result<StatusCode, Problem> {
    let (key, identifier) = (product_key(&product)?, identifier(kind(&kind_text)?, &text)?);
    let _changing = api.changing.lock().await;
    let release = api.plan_at_desk(|desk| desk.plan_release_identifier(&key, &identifier))?;
    api.release(release).await?;
    Ok(StatusCode::NO_CONTENT)
}
