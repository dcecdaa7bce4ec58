//! Import of devices: a CSV of any length, read as it comes and committed in batches. Memory doesn't grow with it.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::Json;
use futures_util::StreamExt;
use serde::Serialize;
use turnpike_authz::names::ProductKey;
use turnpike_authz::registry::{Change, Device, owner};
use turnpike_authz::secret::Secret;
use utoipa::ToSchema;

use super::api::{device_name, now_s};
use super::{Api, Problem};
use crate::provision::random;

/// Devices in one commit.
const BATCH: usize = 1000;
/// Faults that are told.
const FAULTS_MAX: usize = 100;
/// Bytes of one line.
const LINE_BYTES_MAX: usize = 1024;

/// What became of an import.
#[derive(Serialize, ToSchema, Default)]
pub(super) struct Imported {
    /// Devices created or replaced.
    imported: u64,
    /// Lines that weren't taken.
    failed: u64,
    /// The first hundred of these.
    faults: Vec<LineFault>,
}

/// A line that wasn't taken.
#[derive(Serialize, ToSchema)]
pub(super) struct LineFault {
    /// From 1, the header included.
    line: u64,
    /// What is wrong with it.
    message: String,
}

/// Creates or replaces devices from lines `device,secret`; the header is optional. Lines before a failure of the store stay imported.
#[utoipa::path(post, path = "/api/v1/products/{product}/devices/import", params(("product" = String, Path)), request_body(content = String, content_type = "text/csv", description = "lines `device,secret`"), responses((status = 200, body = Imported), (status = 404), (status = 503)), security(("token" = [])))]
pub(super) async fn import_devices(
    State(api): State<Api>,
    Path(product): Path<String>,
    body: Body,
) -> Result<Json<Imported>, Problem> {
    let (key, _) = api.existing_product(&product)?;
    let mut import = Import { api: &api, key, line: 0, batch: Vec::with_capacity(BATCH), result: Imported::default() };
    let mut lines = Lines::default();
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Problem::invalid("the body broke off; what came before is imported"))?;
        for byte in chunk {
            if let Some(line) = lines.push(byte) {
                import.line(&line).await?;
            }
        }
    }
    if let Some(line) = lines.finish() {
        import.line(&line).await?;
    }
    import.flush().await?;
    api.control.rejudge(&product, None);
    Ok(Json(import.result))
}

/// Cuts bytes into lines, of which it keeps so much as a valid one can have.
#[derive(Default)]
struct Lines {
    line: Vec<u8>,
}

impl Lines {
    fn push(&mut self, byte: u8) -> Option<Vec<u8>> {
        if byte == b'\n' {
            return Some(std::mem::take(&mut self.line));
        }
        if self.line.len() <= LINE_BYTES_MAX {
            self.line.push(byte);
        }
        None
    }

    fn finish(self) -> Option<Vec<u8>> {
        (!self.line.is_empty()).then_some(self.line)
    }
}

struct Import<'a> {
    api: &'a Api,
    key: ProductKey,
    line: u64,
    batch: Vec<Change>,
    result: Imported,
}

impl Import<'_> {
    async fn line(&mut self, line: &[u8]) -> Result<(), Problem> {
        self.line += 1;
        match self.change(line) {
            Ok(None) => {}
            Ok(Some(change)) => self.batch.push(change),
            Err(message) => {
                self.result.failed += 1;
                if self.result.faults.len() < FAULTS_MAX {
                    self.result.faults.push(LineFault { line: self.line, message });
                }
            }
        }
        if self.batch.len() >= BATCH { self.flush().await } else { Ok(()) }
    }

    /// What a line asks for; nothing for a header or an empty line.
    fn change(&self, line: &[u8]) -> Result<Option<Change>, String> {
        if line.len() > LINE_BYTES_MAX {
            return Err(format!("a line has at most {LINE_BYTES_MAX} bytes"));
        }
        let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).trim(csv::Trim::All).from_reader(line);
        let mut record = csv::StringRecord::new();
        if !reader.read_record(&mut record).map_err(|_| "it is no CSV in UTF-8".to_owned())? {
            return Ok(None);
        }
        let mut fields = record.iter();
        let (name, secret) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        if fields.next().is_some() {
            return Err("it has more than the two fields device,secret".to_owned());
        }
        if self.line == 1 && name == "device" {
            return Ok(None);
        }
        let name = device_name(name).map_err(|problem| problem.message)?;
        if secret.is_empty() {
            return Err("secret: is missing; create single devices without one by PUT, which tells the one it makes".to_owned());
        }
        let secret = Secret::new(secret.as_bytes()).map_err(|error| error.to_string())?;
        let sealed =
            self.api.gate.master_key().seal(&owner(self.key.as_str(), name.as_str()), &secret, random());
        let device = Device { enabled: true, created_at_s: now_s(), secret: sealed };
        Ok(Some(Change::PutDevice(self.key.clone(), name, device)))
    }

    async fn flush(&mut self) -> Result<(), Problem> {
        let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH));
        let count = batch.len() as u64;
        if count > 0 {
            // Not held for the whole import: other changes go on in between.
            let _changing = self.api.changing.lock().await;
            self.api.existing_product(self.key.as_str())?;
            self.api.commit(batch).await?;
            self.result.imported += count;
        }
        Ok(())
    }
}
