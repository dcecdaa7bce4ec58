//! Import of devices: a CSV of any length, read as it comes and committed in batches. Memory doesn't grow with it.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use serde::Serialize;
use turnpike_authz::import::{Faults, FirstRow, Import, Report, first_row, is_label_header};
use turnpike_authz::labels::LabelsRequest;
use turnpike_authz::plan::Making;
use utoipa::ToSchema;

use super::api::{now_s, product_key};
use super::extract::Path;
use super::lines::{LineFault, Lines, fields, told};
use super::{Api, Problem};
use crate::provision::random;

/// What became of an import.
#[derive(Serialize, ToSchema)]
pub(super) struct Imported {
    /// New devices.
    created: u64,
    /// Devices that got the line's secret.
    replaced: u64,
    /// Lines that weren't taken.
    refused: u64,
    /// The first hundred of these.
    faults: Vec<LineFault>,
}

// A POST to any device comes here, so that `import` is a device's name like any other: its GET, PUT, PATCH and DELETE are its own.
/// Creates or replaces devices from lines `device,secret`, or with their labels `device,secret,tags,region`: tags are separated by `;`, and what is empty stays as it is. The header is optional. A
/// first line that looks like another header is refused. Lines before a failure of the store stay imported.
#[utoipa::path(post, path = "/api/v1/products/{product}/devices/import", params(("product" = String, Path)), request_body(content = String, content_type = "text/csv", description = "lines `device,secret` or `device,secret,tags,region`"), responses((status = 200, body = Imported)), security(("token" = [])))]
pub(super) async fn import_devices(
    State(api): State<Api>,
    Path((product, device)): Path<(String, String)>,
    body: Body,
) -> Response {
    if device != "import" {
        let allowed = [(header::ALLOW, "GET,HEAD,PUT,PATCH,DELETE")];
        return (allowed, Problem::method_not_allowed()).into_response();
    }
    import_into(&api, &product, body).await.into_response()
}

async fn import_into(api: &Api, product: &str, body: Body) -> Result<Json<Imported>, Problem> {
    let import = Import::new(api.gate.registry(), product_key(product)?)?;
    let mut importing =
        Importing { api, import, line: 0, is_begun: false, changing: None, unreadable: Faults::default() };
    let mut lines = Lines::default();
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Problem::invalid("the body broke off; what came before is imported"))?;
        for byte in chunk {
            if let Some(line) = lines.push(byte) {
                importing.line(&line).await?;
            }
        }
        // An upload that stalls must not hold up other changes.
        importing.flush().await?;
    }
    if let Some(line) = lines.finish() {
        importing.line(&line).await?;
    }
    importing.flush().await?;
    Ok(Json(importing.result()))
}

/// A line's fields: device, secret, tags, region; the last two are empty where they aren't there.
type Row = [String; 4];

/// Nothing for an empty line.
fn row(line: &[u8]) -> Result<Option<Row>, &'static str> {
    let Some(fields) = fields(line)? else { return Ok(None) };
    let mut fields = fields.into_iter();
    let row: Row = std::array::from_fn(|_| fields.next().unwrap_or_default());
    if fields.next().is_some() {
        return Err("it has more than the fields device,secret,tags,region");
    }
    let [_, secret, ..] = &row;
    if secret.is_empty() {
        return Err("the secret is missing; PUT of a single device makes one and tells it");
    }
    Ok(Some(row))
}

struct Importing<'a> {
    api: &'a Api,
    import: Import<'a>,
    line: u64,
    /// A row has come, be it the header.
    is_begun: bool,
    /// Other changes wait meanwhile.
    changing: Option<tokio::sync::OwnedMutexGuard<()>>,
    /// Lines that are no rows.
    unreadable: Faults<&'static str>,
}

impl Importing<'_> {
    async fn line(&mut self, line: &[u8]) -> Result<(), Problem> {
        self.line += 1;
        // Held from a batch's first row, which is planned against the registry, to its commit, and not for the whole import.
        if self.changing.is_none() {
            self.changing = Some(self.api.changing.clone().lock_owned().await);
        }
        // Spreadsheets put a byte order mark before the first field.
        let line = if self.line == 1 { line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line) } else { line };
        match row(line) {
            Ok(None) => {}
            Ok(Some(row)) if !std::mem::replace(&mut self.is_begun, true) => {
                let [device, secret, tags, region] = &row;
                match first_row(device, secret) {
                    FirstRow::Header if is_label_header(tags, region) => {}
                    FirstRow::Device => self.device(&row),
                    FirstRow::Header | FirstRow::UnknownHeader => return Err(self.unknown_header()),
                }
            }
            Ok(Some(row)) => self.device(&row),
            Err(message) => self.unreadable.add(self.line, message),
        }
        if self.import.is_full() { self.flush().await } else { Ok(()) }
    }

    fn device(&mut self, [device, secret, tags, region]: &Row) {
        let making = Making { key: self.api.gate.master_key(), random: random(), now_s: now_s() };
        // What is wrong with a row is in the report.
        let labels = LabelsRequest::of_fields(tags, region);
        let _ = self.import.labelled_row(self.line, device, Some(secret), labels, &making);
    }

    /// Not a fault of one line: in a file whose columns aren't known, no line means what it seems to.
    fn unknown_header(&self) -> Problem {
        let message = format!(
            "line {} looks like a header, and not like device,secret or device,secret,tags,region; nothing is imported",
            self.line
        );
        Problem::new(StatusCode::BAD_REQUEST, "unknown_header", message)
    }

    async fn flush(&mut self) -> Result<(), Problem> {
        let _changing = self.changing.take();
        let batch = self.import.take();
        if batch.is_empty() { Ok(()) } else { self.api.commit_labelled(batch).await }
    }

    fn result(&self) -> Imported {
        let Report { created, replaced, ref refused, .. } = *self.import.report();
        let (refused, faults) = told(&self.unreadable, refused);
        Imported { created, replaced, refused, faults }
    }
}
