//! Firmware: what there is of each product, its upload, and what a product demands of it.
//!
//! An upload is begun by a POST that says what the file is, goes on by PUTs that each say where their part begins, and ends by a POST that has it verified. A PUT that
//! breaks off keeps what has come; the next one goes on from there.

mod storing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use turnpike_authz::audit::{Action, Key, Subject, Value};
use turnpike_authz::keys::PublicKey;
use turnpike_authz::names::ProductKey;
use turnpike_ota::catalog::{CatalogError, Change, Planned};
use turnpike_ota::firmware::{Contents, Declared, Demands, Firmware, RunsOn, State as Stage, TargetRule};
use turnpike_ota::ids::FirmwareId;
use turnpike_ota::signature::{Detached, Keys, SignatureError};
use turnpike_ota::target::Target;
use turnpike_ota::upload::UploadError;
use utoipa::ToSchema;

use super::api::{now_s, page_limit};
use super::campaigns::NumberedPage;
use super::extract::{Asked, Bodiless, Bounded, Path, Query, body, whole_body};
use super::{Api, COMMIT_TIME_MAX, Problem};
use crate::ota::{Changing, FileError, OtaDesk, Stage as OnItsWay, Writing};

/// Bytes that are written at once.
const WRITE_BYTES: usize = 1 << 20;
/// The header that says where a part begins, and the one that says where to go on.
const UPLOAD_OFFSET: &str = "upload-offset";

/// What operators are served, below `/api/v1`.
pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/products/{product}/firmware", get(list_firmware).post(create_firmware))
        .route("/products/{product}/firmware/{firmware}", get(show_firmware).delete(delete_firmware))
        .route("/products/{product}/firmware/{firmware}/content", put(put_content))
        .route("/products/{product}/firmware/{firmware}/finish", post(finish_firmware))
        .route("/products/{product}/firmware/{firmware}/withdraw", post(withdraw_firmware))
        .route("/products/{product}/ota", get(show_demands).put(put_demands))
}

/// A firmware to be uploaded.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateFirmware {
    /// `module`, `mcu`, `default` or a component's name; `default` if absent.
    target: Option<String>,
    /// What a device reports once it runs.
    version: String,
    /// The hardware versions that it runs on.
    hardware: Option<Vec<String>>,
    /// Said expressly in place of `hardware`: it runs on any.
    any_hardware: Option<bool>,
    /// The release counter; if absent, of a patch that of its whole firmware, else 0.
    release: Option<u64>,
    /// The version that it is a patch for.
    base: Option<String>,
    note: Option<String>,
    /// Bytes of the file.
    size: u64,
    /// Of the file, in hexadecimal: checked at the end.
    sha256: Option<String>,
    md5: Option<String>,
    crc32: Option<String>,
}

impl Asked for CreateFirmware {
    const FIELDS: &'static [&'static str] =
        &["target", "version", "hardware", "any_hardware", "release", "base", "note", "size", "sha256", "md5", "crc32"];
}

/// A detached signature of the file's SHA-256.
#[derive(Deserialize, ToSchema, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct FinishFirmware {
    /// In base64.
    signature: Option<String>,
    /// Fingerprint of the key; any of the product's if absent.
    key: Option<String>,
}

impl Asked for FinishFirmware {
    const FIELDS: &'static [&'static str] = &["signature", "key"];
}

/// A firmware.
#[derive(Serialize, ToSchema)]
pub(super) struct FirmwareView {
    firmware: u64,
    product: String,
    target: String,
    version: String,
    /// The hardware versions that it runs on; absent: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    hardware: Option<Vec<String>>,
    release: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    base: Option<String>,
    note: String,
    /// Seconds since 1970 UTC.
    created_at: u64,
    /// `uploading`, `storing` (finished, and on its way to the bucket), `ready`, `refused` or `withdrawn`.
    state: &'static str,
    /// Why it was refused, or hasn't reached the bucket.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    /// Bytes of the file, as declared or as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    md5: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    crc32: Option<String>,
    /// Fingerprint of the key by which it is signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    signed_by: Option<String>,
    /// Where the file is to be put.
    #[serde(skip_serializing_if = "Option::is_none")]
    upload: Option<String>,
    /// Bytes that have come; told where the upload is asked for alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    uploaded: Option<u64>,
}

/// A page of firmware, the oldest first.
#[derive(Serialize, ToSchema)]
pub(super) struct FirmwarePage {
    firmware: Vec<FirmwareView>,
    /// `after` of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<u64>,
}

/// How much has come.
#[derive(Serialize, ToSchema)]
pub(super) struct Uploaded {
    /// Bytes; the next part begins here.
    uploaded: u64,
    size: u64,
}

/// What a product demands of the firmware of a target.
#[derive(Serialize, Deserialize, ToSchema, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TargetView {
    /// The smallest release counter that may be uploaded and offered.
    release_min: u64,
    /// The hardware that there is; empty: whatever the firmware says.
    hardware: BTreeSet<String>,
}

/// A key that signs firmware.
#[derive(Serialize, ToSchema)]
pub(super) struct SignerView {
    kind: String,
    fingerprint: String,
}

/// What a product demands of its firmware.
#[derive(Serialize, ToSchema)]
pub(super) struct DemandsView {
    signature_required: bool,
    keys: Vec<SignerView>,
    targets: BTreeMap<String, TargetView>,
}

/// What it is to demand.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PutDemands {
    /// Whether a firmware without a signature is refused; false if absent.
    signature_required: Option<bool>,
    /// Public keys as PEM, Ed25519, ECDSA P-256 or RSA, eight at most; none if absent.
    keys: Option<Vec<String>>,
    /// By name; `module`, `mcu` and `default` if absent.
    targets: Option<BTreeMap<String, TargetView>>,
}

impl Asked for PutDemands {
    const FIELDS: &'static [&'static str] = &["signature_required", "keys", "targets"];
}

fn code(error: &CatalogError) -> (StatusCode, &'static str) {
    match error {
        CatalogError::NoSuchFirmware => (StatusCode::NOT_FOUND, "no_such_firmware"),
        CatalogError::UnknownTarget => (StatusCode::CONFLICT, "unknown_target"),
        CatalogError::UnknownHardware => (StatusCode::CONFLICT, "unknown_hardware"),
        CatalogError::VersionExists(_) => (StatusCode::CONFLICT, "version_exists"),
        CatalogError::BaseIsVersion => (StatusCode::BAD_REQUEST, "base_is_version"),
        CatalogError::Rollback { .. } => (StatusCode::CONFLICT, "rollback"),
        CatalogError::ReleaseDiffers { .. } => (StatusCode::CONFLICT, "release_differs"),
        CatalogError::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
        CatalogError::Empty => (StatusCode::BAD_REQUEST, "empty"),
        CatalogError::NoteTooLong => (StatusCode::BAD_REQUEST, "note_too_long"),
        CatalogError::TooMany => (StatusCode::CONFLICT, "too_many_firmware"),
        CatalogError::WrongSize { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "wrong_size"),
        CatalogError::WrongSha256 => (StatusCode::UNPROCESSABLE_ENTITY, "wrong_sha256"),
        CatalogError::WrongMd5 => (StatusCode::UNPROCESSABLE_ENTITY, "wrong_md5"),
        CatalogError::WrongCrc32 => (StatusCode::UNPROCESSABLE_ENTITY, "wrong_crc32"),
        CatalogError::Signature(SignatureError::Missing) => (StatusCode::UNPROCESSABLE_ENTITY, "signature_missing"),
        CatalogError::Signature(SignatureError::UnknownKey) => {
            (StatusCode::UNPROCESSABLE_ENTITY, "signature_unknown_key")
        }
        CatalogError::Signature(SignatureError::Wrong) => (StatusCode::UNPROCESSABLE_ENTITY, "signature_wrong"),
        CatalogError::NotUploading => (StatusCode::CONFLICT, "not_uploading"),
        CatalogError::NotReady => (StatusCode::CONFLICT, "firmware_not_ready"),
        CatalogError::InUse => (StatusCode::CONFLICT, "in_use"),
        CatalogError::Demands(_) => (StatusCode::BAD_REQUEST, "invalid"),
    }
}

impl From<CatalogError> for Problem {
    fn from(error: CatalogError) -> Self {
        let (status, code) = code(&error);
        Self::new(status, code, error.to_string())
    }
}

impl From<FileError> for Problem {
    fn from(error: FileError) -> Self {
        let (status, code) = match &error {
            FileError::NotUploading => (StatusCode::CONFLICT, "not_uploading"),
            FileError::Busy => (StatusCode::CONFLICT, "upload_busy"),
            FileError::Storing => (StatusCode::CONFLICT, "storing"),
            FileError::Upload(UploadError::Gap { .. }) => (StatusCode::CONFLICT, "upload_gap"),
            FileError::Upload(UploadError::Overlap { .. }) => (StatusCode::CONFLICT, "upload_overlap"),
            FileError::Upload(UploadError::Beyond { .. }) => (StatusCode::PAYLOAD_TOO_LARGE, "upload_beyond"),
            FileError::Upload(UploadError::Expired) => (StatusCode::GONE, "upload_expired"),
            FileError::Upload(UploadError::Finished) => (StatusCode::CONFLICT, "upload_finished"),
            FileError::Upload(UploadError::Incomplete { .. }) => (StatusCode::CONFLICT, "upload_incomplete"),
            FileError::Upload(UploadError::Empty) => (StatusCode::BAD_REQUEST, "empty"),
            FileError::Io(error) => {
                tracing::error!(%error, "a firmware can't be written");
                (StatusCode::INSUFFICIENT_STORAGE, "unwritable")
            }
        };
        Self::new(status, code, error.to_string())
    }
}

fn firmware_id(text: &str) -> Result<FirmwareId, Problem> {
    text.parse().map(FirmwareId).map_err(|_| CatalogError::NoSuchFirmware.into())
}

fn parsed<T: std::str::FromStr>(field: &str, text: &str) -> Result<T, Problem>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error| Problem::invalid(format!("{field}: {error}")))
}

fn digest<const N: usize>(field: &str, text: Option<&str>) -> Result<Option<[u8; N]>, Problem> {
    let read = |text| {
        let mut digest = [0; N];
        hex::decode_to_slice(text, &mut digest).map(|()| digest)
    };
    let wrong = |_| Problem::invalid(format!("{field}: {} hexadecimal digits", 2 * N));
    text.map(read).transpose().map_err(wrong)
}

impl CreateFirmware {
    fn planned(self, product: ProductKey) -> Result<Planned, Problem> {
        let runs_on = match (&self.hardware, self.any_hardware) {
            (Some(hardware), None | Some(false)) => {
                let listed = hardware.iter().map(|hardware| parsed("hardware", hardware));
                let listed = listed.collect::<Result<Vec<_>, _>>()?;
                RunsOn::listed(listed).map_err(|error| Problem::invalid(error.to_string()))?
            }
            (None, Some(true)) => RunsOn::Any,
            _ => return Err(Problem::invalid("either hardware lists what it runs on, or any_hardware is true")),
        };
        Ok(Planned {
            product,
            target: parsed("target", self.target.as_deref().unwrap_or(Target::DEFAULT))?,
            version: parsed("version", &self.version)?,
            runs_on,
            release: self.release,
            base: self.base.as_deref().map(|base| parsed("base", base)).transpose()?,
            note: self.note.unwrap_or_default().into(),
            declared: Declared {
                bytes: Some(self.size),
                sha256: digest("sha256", self.sha256.as_deref())?,
                md5: digest("md5", self.md5.as_deref())?,
                crc32: digest("crc32", self.crc32.as_deref())?.map(u32::from_be_bytes),
            },
        })
    }
}

/// The same, and whether it is on its way to the bucket.
fn view_of(ota: &OtaDesk, firmware: &Firmware) -> FirmwareView {
    let mut view = view(firmware);
    if let Some(stage) = ota.stage(firmware.id).filter(|_| view.state == "uploading") {
        (view.state, view.upload) = ("storing", None);
        view.why = if let OnItsWay::Waiting(error) = stage { Some(error.to_string()) } else { None };
    }
    view
}

fn view(firmware: &Firmware) -> FirmwareView {
    let (state, why, declared, contents) = match &firmware.state {
        Stage::Uploading(declared) => ("uploading", None, *declared, None),
        Stage::Ready(contents) => ("ready", None, declared_by(contents), contents.signed.as_ref()),
        Stage::Refused { why } => ("refused", Some(why.to_string()), Declared::default(), None),
        Stage::Withdrawn(contents) => ("withdrawn", None, declared_by(contents), contents.signed.as_ref()),
    };
    let (id, product) = (firmware.id, &firmware.product);
    let is_uploading = matches!(firmware.state, Stage::Uploading(_));
    FirmwareView {
        firmware: id.0,
        product: product.to_string(),
        target: firmware.target.to_string(),
        version: firmware.version.to_string(),
        hardware: match &firmware.runs_on {
            RunsOn::Any => None,
            RunsOn::Listed(listed) => Some(listed.iter().map(ToString::to_string).collect()),
        },
        release: firmware.release,
        base: firmware.base.as_ref().map(ToString::to_string),
        note: firmware.note.to_string(),
        created_at: firmware.created_at_s,
        state,
        why,
        size: declared.bytes,
        sha256: declared.sha256.map(hex::encode),
        md5: declared.md5.map(hex::encode),
        crc32: declared.crc32.map(|crc32| format!("{crc32:08x}")),
        signed_by: contents.map(|signed| signed.key.to_string()),
        upload: is_uploading.then(|| format!("/api/v1/products/{product}/firmware/{id}/content")),
        uploaded: None,
    }
}

fn declared_by(contents: &Contents) -> Declared {
    let whole = &contents.whole;
    Declared {
        bytes: Some(whole.bytes),
        sha256: Some(whole.digests.sha256),
        md5: Some(whole.digests.md5),
        crc32: Some(whole.digests.crc32),
    }
}

impl Api {
    /// A firmware of a product.
    fn existing_firmware(&self, product: &str, firmware: &str) -> Result<(ProductKey, Arc<Firmware>), Problem> {
        let (key, _) = self.existing_product(product)?;
        let state = self.ota()?.state();
        let found = state.catalog.get(firmware_id(firmware)?).filter(|found| found.product == key);
        Ok((key, found.cloned().ok_or(CatalogError::NoSuchFirmware)?))
    }

    /// Puts changes on record, commits them, and applies them. The right to change things goes with them, until it is known whether they are on disk; `then`
    /// hears of that.
    async fn commit_catalog(
        &self,
        changing: Changing,
        (action, product, firmware): (Action, &ProductKey, Option<FirmwareId>),
        changes: Vec<Change>,
        then: impl FnOnce(&Arc<OtaDesk>, bool) + Send + 'static,
    ) -> Result<(), Problem> {
        let ota = self.ota()?;
        let target = Subject::product(product);
        let details: Vec<_> = firmware.map(|id| (Key::Firmware, Value::Number(id.0))).into_iter().collect();
        self.audit.accept_one(action, target, &details).await?;
        let changed = ota.change_catalog(changing, changes, then);
        if let Ok(Ok(true)) = tokio::time::timeout(COMMIT_TIME_MAX, changed).await {
            return Ok(());
        }
        self.audit.fail_one(action, target, "store_unavailable");
        Err(Problem::store())
    }

    /// Puts on record that a firmware isn't taken, and counts why.
    fn refuse_firmware(&self, action: Action, product: &ProductKey, why: impl Into<Problem>) -> Problem {
        let problem = why.into();
        self.audit.fail_one(action, Subject::product(product), problem.code);
        if let Some(ota) = &self.desks.ota {
            ota.refused().add(problem.code);
        }
        problem
    }
}

/// Removes a firmware's file once the catalog knows it no more.
fn discard(id: FirmwareId) -> impl FnOnce(&Arc<OtaDesk>, bool) + Send {
    move |ota, is_on_disk| {
        if is_on_disk {
            ota.discard(id);
        }
    }
}

/// Firmware of a product, by page.
#[utoipa::path(get, path = "/api/v1/products/{product}/firmware", params(("product" = String, Path), ("limit" = Option<usize>, Query, description = "1 to 1000; default 100"), ("after" = Option<u64>, Query, description = "`next` of the page before")), responses((status = 200, body = FirmwarePage)), security(("token" = [])))]
pub(super) async fn list_firmware(
    State(api): State<Api>,
    Path(product): Path<String>,
    Query(page): Query<NumberedPage>,
) -> Result<Json<FirmwarePage>, Problem> {
    let limit = page_limit(page.limit)?;
    let (key, _) = api.existing_product(&product)?;
    let ota = api.ota()?;
    let state = ota.state();
    let mut left =
        state.catalog.of_product(key.as_str()).filter(|found| page.after.is_none_or(|after| found.id.0 > after));
    let firmware: Vec<_> = left.by_ref().take(limit).map(|found| view_of(ota, found)).collect();
    let next = left.next().and(firmware.last().map(|last| last.firmware));
    Ok(Json(FirmwarePage { firmware, next }))
}

/// One firmware; while it is being uploaded, with the bytes that have come.
#[utoipa::path(get, path = "/api/v1/products/{product}/firmware/{firmware}", params(("product" = String, Path), ("firmware" = u64, Path)), responses((status = 200, body = FirmwareView), (status = 404)), security(("token" = [])))]
pub(super) async fn show_firmware(
    State(api): State<Api>,
    Path((product, firmware)): Path<(String, String)>,
) -> Result<Json<FirmwareView>, Problem> {
    let (_, found) = api.existing_firmware(&product, &firmware)?;
    let ota = api.ota()?;
    let mut view = view_of(ota, &found);
    if view.state == "uploading" {
        view.uploaded = ota.uploaded(found.id);
    }
    Ok(Json(view))
}

/// Begins an upload: says what the file is. The answer says where to put it.
#[utoipa::path(post, path = "/api/v1/products/{product}/firmware", params(("product" = String, Path)), request_body = CreateFirmware, responses((status = 201, body = FirmwareView), (status = 400), (status = 404), (status = 409), (status = 413), (status = 503)), security(("token" = [])))]
pub(super) async fn create_firmware(
    State(api): State<Api>,
    Path(product): Path<String>,
    Bounded(bytes): Bounded,
) -> Result<(StatusCode, Json<FirmwareView>), Problem> {
    let asked: CreateFirmware = whole_body(&bytes)?;
    let ota = api.ota()?;
    let (key, _) = api.existing_product(&product)?;
    let refuse = |error: CatalogError| api.refuse_firmware(Action::FirmwareCreate, &key, error);
    if asked.size > ota.settings().firmware_bytes_max {
        return Err(refuse(CatalogError::TooLarge));
    }
    let planned = asked.planned(key.clone())?;
    let changing = Api::at_firmware(ota).await?;
    api.existing_product(&product)?;
    let planned = ota.state().catalog.plan_create(planned, now_s());
    let (id, change) = planned.map_err(refuse)?;
    let whose = (Action::FirmwareCreate, &key, Some(id));
    api.commit_catalog(changing, whose, vec![change], |_, _| ()).await?;
    let (_, made) = api.existing_firmware(&product, &id.to_string())?;
    Ok((StatusCode::CREATED, Json(view(&made))))
}

/// Where a part begins. What `Content-Range` says beside that has to be so.
fn place(headers: &HeaderMap, declared: Option<u64>) -> Result<u64, Problem> {
    let wrong = || {
        Problem::invalid(
            "Content-Range must be bytes first-last/size, Upload-Offset a whole number; neither: from the beginning",
        )
    };
    let text = |name: &str| headers.get(name).map(|value| value.to_str().map_err(|_| wrong())).transpose();
    match (text("content-range")?, text(UPLOAD_OFFSET)?) {
        (None, None) => Ok(0),
        (None, Some(offset)) => offset.parse().map_err(|_| wrong()),
        (Some(range), None) => {
            let range = range.strip_prefix("bytes ").ok_or_else(wrong)?;
            let (range, size) = range.split_once('/').ok_or_else(wrong)?;
            let (first, last) = range.split_once('-').ok_or_else(wrong)?;
            let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
            let (first, last) = (number(first)?, number(last)?);
            let length = last.checked_sub(first).and_then(|length| length.checked_add(1)).ok_or_else(wrong)?;
            let is_size =
                size == "*" || declared.is_none_or(|declared| number(size).is_ok_and(|size| size == declared));
            let is_length = text("content-length")?.map(number).transpose()?.is_none_or(|sent| sent == length);
            if is_size && is_length { Ok(first) } else { Err(wrong()) }
        }
        (Some(_), Some(_)) => Err(wrong()),
    }
}

/// Uploads a file, or a part of it. What has come stays, also where the request breaks off: `Upload-Offset` in the answer, or `uploaded` of the firmware, says
/// where to go on. A part begins where the last one ended.
#[utoipa::path(put, path = "/api/v1/products/{product}/firmware/{firmware}/content", params(("product" = String, Path), ("firmware" = u64, Path), ("Upload-Offset" = Option<u64>, Header, description = "where the part begins; or Content-Range")), request_body(content = String, content_type = "application/octet-stream"), responses((status = 200, body = Uploaded), (status = 404), (status = 409), (status = 413), (status = 507)), security(("token" = [])))]
pub(super) async fn put_content(
    State(api): State<Api>,
    Path((product, firmware)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let (owner, found) = api.existing_firmware(&product, &firmware)?;
    let declared = if let Stage::Uploading(declared) = found.state { declared.bytes } else { None };
    let offset = place(&headers, declared)?;
    let subject = Subject::product(&owner);
    api.audit.accept_one(Action::FirmwareUpload, subject, &[(Key::Firmware, Value::Number(found.id.0))]).await?;
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0);
    let refuse = |problem: Problem| api.refuse_firmware(Action::FirmwareUpload, &owner, problem);
    let writing = api.ota()?.spool(found.id, now_s()).await.map_err(|error| refuse(error.into()))?;
    let have = writing.have();
    let taken = match writing.accept(offset, length, now_s()) {
        Ok(()) => take(writing, body).await,
        Err(error) => Err((error.into(), have)),
    };
    let at = |have: u64| [(UPLOAD_OFFSET, HeaderValue::from(have))];
    match taken {
        Ok(have) => Ok((at(have), Json(Uploaded { uploaded: have, size: declared.unwrap_or(have) })).into_response()),
        Err((problem, have)) => Ok((at(have), refuse(problem)).into_response()),
    }
}

/// Writes what comes, a bounded part at a time. Gives how much there is.
async fn take(mut writing: Writing, body: Body) -> Result<u64, (Problem, u64)> {
    let mut chunks = body.into_data_stream();
    let mut gathered = Vec::with_capacity(WRITE_BYTES);
    let mut is_broken = false;
    loop {
        let chunk = chunks.next().await;
        if let Some(Ok(chunk)) = &chunk {
            gathered.extend_from_slice(chunk);
        }
        let is_over = !matches!(chunk, Some(Ok(_)));
        is_broken |= matches!(chunk, Some(Err(_)));
        if gathered.len() >= WRITE_BYTES || is_over && !gathered.is_empty() {
            let have = writing.have();
            let bytes = std::mem::replace(&mut gathered, Vec::with_capacity(WRITE_BYTES));
            writing = writing.write(bytes, now_s()).await.map_err(|error| (error.into(), have))?;
        }
        if is_over {
            break;
        }
    }
    let have = writing.have();
    let broken =
        || Problem::new(StatusCode::BAD_REQUEST, "upload_broken", "the body broke off; what came before is kept");
    if is_broken { Err((broken(), have)) } else { Ok(have) }
}

/// Ends an upload: size, digests and signature are verified. A file that isn't what it should be is refused, and its version may be uploaded again. Where
/// files go to a bucket, what was verified is brought there, however long that takes: 202, or why it hasn't succeeded yet; asked again, it is tried again.
#[utoipa::path(post, path = "/api/v1/products/{product}/firmware/{firmware}/finish", params(("product" = String, Path), ("firmware" = u64, Path)), request_body = Option<FinishFirmware>, responses((status = 200, body = FirmwareView), (status = 202, description = "accepted, and still on its way to the bucket", body = FirmwareView), (status = 404), (status = 409), (status = 422), (status = 502), (status = 503)), security(("token" = [])))]
pub(super) async fn finish_firmware(
    State(api): State<Api>,
    Path((product, firmware)): Path<(String, String)>,
    Bounded(bytes): Bounded,
) -> Result<Response, Problem> {
    let FinishFirmware { signature, key } = body(&bytes)?;
    let detached = match signature {
        None => None,
        Some(signature) => {
            let signature = STANDARD.decode(signature).map_err(|_| Problem::invalid("signature: base64"))?;
            let key = key.as_deref().map(|key| parsed("key", key)).transpose()?;
            Some(Detached { signature: signature.into(), key })
        }
    };
    let ota = api.ota()?;
    let (owner, found) = api.existing_firmware(&product, &firmware)?;
    let id = found.id;
    if ota.stage(id).is_some() {
        return api.stored(&owner, id).await;
    }
    // Held to the end: nobody writes to it any more.
    let whole = match ota.spool(id, now_s()).await {
        Ok(writing) => writing.finish(now_s()).await,
        Err(error) => Err(error),
    };
    let (writing, whole) = whole.map_err(|error| api.refuse_firmware(Action::FirmwareFinish, &owner, error))?;
    let changing = Api::at_firmware(ota).await?;
    let planned = ota.state().catalog.plan_finish(id, &whole, detached.as_ref());
    let whose = (Action::FirmwareFinish, &owner, Some(id));
    match planned {
        Ok(_) if ota.has_bucket() => {
            let detail = [(Key::Firmware, Value::Number(id.0))];
            api.audit.accept_one(Action::FirmwareFinish, Subject::product(&owner), &detail).await?;
            ota.begin_storing((writing, whole), id, detached.as_ref())?;
            drop(changing);
            return api.stored(&owner, id).await;
        }
        Ok(change) => {
            ota.keep(id).map_err(FileError::Io)?;
            // Where it couldn't be committed, the next try reads it anew.
            api.commit_catalog(changing, whose, vec![change], move |ota, _| ota.let_go(id)).await?;
        }
        Err(error) => {
            let refused = ota.state().catalog.plan_refuse(id, &error.to_string())?;
            api.commit_catalog(changing, whose, vec![refused], discard(id)).await?;
            return Err(api.refuse_firmware(Action::FirmwareFinish, &owner, error));
        }
    }
    let (_, after) = api.existing_firmware(&product, &firmware)?;
    Ok(Json(view(&after)).into_response())
}

/// Has a firmware offered no more. Campaigns that have it offer nothing from then on; links are void.
#[utoipa::path(post, path = "/api/v1/products/{product}/firmware/{firmware}/withdraw", params(("product" = String, Path), ("firmware" = u64, Path)), responses((status = 200, body = FirmwareView), (status = 404), (status = 409)), security(("token" = [])))]
pub(super) async fn withdraw_firmware(
    State(api): State<Api>,
    Path((product, firmware)): Path<(String, String)>,
    _: Bodiless,
) -> Result<Json<FirmwareView>, Problem> {
    let ota = api.ota()?;
    let (owner, found) = api.existing_firmware(&product, &firmware)?;
    let changing = Api::at_firmware(ota).await?;
    let change = ota.state().catalog.plan_withdraw(found.id)?;
    let whose = (Action::FirmwareWithdraw, &owner, Some(found.id));
    api.commit_catalog(changing, whose, vec![change], |_, _| ()).await?;
    let (_, after) = api.existing_firmware(&product, &firmware)?;
    Ok(Json(view(&after)))
}

/// Deletes a firmware and its file. One that a campaign has stays.
#[utoipa::path(delete, path = "/api/v1/products/{product}/firmware/{firmware}", params(("product" = String, Path), ("firmware" = u64, Path)), responses((status = 204, description = "deleted"), (status = 404), (status = 409)), security(("token" = [])))]
pub(super) async fn delete_firmware(
    State(api): State<Api>,
    Path((product, firmware)): Path<(String, String)>,
    _: Bodiless,
) -> Result<StatusCode, Problem> {
    let ota = api.ota()?;
    let (owner, found) = api.existing_firmware(&product, &firmware)?;
    let changing = Api::at_firmware(ota).await?;
    let changes = {
        let state = ota.state();
        state.catalog.plan_delete(found.id, state.is_in_use(found.id))?
    };
    ota.mark_gone(found.id).map_err(FileError::Io)?;
    let whose = (Action::FirmwareDelete, &owner, Some(found.id));
    api.commit_catalog(changing, whose, changes.into(), discard(found.id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn view_demands(demands: &Demands) -> DemandsView {
    let signer =
        |key: &PublicKey| SignerView { kind: key.kind().to_string(), fingerprint: key.fingerprint().to_string() };
    let target = |(target, rule): (&Target, &TargetRule)| {
        let hardware = rule.hardware.iter().map(ToString::to_string).collect();
        (target.to_string(), TargetView { release_min: rule.release_min, hardware })
    };
    DemandsView {
        signature_required: demands.signature_required,
        keys: demands.keys.as_slice().iter().map(signer).collect(),
        targets: demands.targets.iter().map(target).collect(),
    }
}

/// What a product demands of its firmware.
#[utoipa::path(get, path = "/api/v1/products/{product}/ota", params(("product" = String, Path)), responses((status = 200, body = DemandsView), (status = 404)), security(("token" = [])))]
pub(super) async fn show_demands(
    State(api): State<Api>,
    Path(product): Path<String>,
) -> Result<Json<DemandsView>, Problem> {
    let (key, _) = api.existing_product(&product)?;
    Ok(Json(view_demands(&api.ota()?.state().catalog.demands(key.as_str()))))
}

/// Says what a product demands of its firmware: keys, signatures, targets, release counters, hardware. What was uploaded before stays, and is offered only if
/// it meets this too.
#[utoipa::path(put, path = "/api/v1/products/{product}/ota", params(("product" = String, Path)), request_body = PutDemands, responses((status = 200, body = DemandsView), (status = 400), (status = 404)), security(("token" = [])))]
pub(super) async fn put_demands(
    State(api): State<Api>,
    Path(product): Path<String>,
    Bounded(bytes): Bounded,
) -> Result<Json<DemandsView>, Problem> {
    let PutDemands { signature_required, keys, targets } = whole_body(&bytes)?;
    let (owner, _) = api.existing_product(&product)?;
    let keys = keys.unwrap_or_default();
    let keys = keys.iter().map(|pem| PublicKey::parse(pem.as_bytes()));
    let keys = keys.collect::<Result<Vec<_>, _>>().map_err(|error| Problem::invalid(format!("keys: {error}")))?;
    let keys = Keys::new(keys).map_err(|error| Problem::invalid(format!("keys: {error}")))?;
    let mut demands = Demands { signature_required: signature_required.unwrap_or(false), keys, ..Demands::default() };
    if let Some(targets) = targets {
        let rule = |(target, rule): (String, TargetView)| {
            let hardware = rule.hardware.iter().map(|hardware| parsed("hardware", hardware));
            let hardware = hardware.collect::<Result<_, _>>()?;
            Ok((parsed("targets", &target)?, TargetRule { release_min: rule.release_min, hardware }))
        };
        demands.targets = targets.into_iter().map(rule).collect::<Result<_, Problem>>()?;
    }
    let ota = api.ota()?;
    let changing = Api::at_firmware(ota).await?;
    api.existing_product(&product)?;
    let change = ota.state().catalog.plan_demands(&owner, demands)?;
    api.commit_catalog(changing, (Action::FirmwareDemands, &owner, None), vec![change], |_, _| ()).await?;
    Ok(Json(view_demands(&ota.state().catalog.demands(owner.as_str()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_begins_where_it_says_and_is_what_it_says() {
        let of = |headers: &[(&'static str, &str)]| {
            let headers = headers.iter().map(|(name, value)| {
                (header::HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"))
            });
            place(&headers.collect(), Some(100)).ok()
        };
        assert_eq!(of(&[]), Some(0));
        assert_eq!(of(&[(UPLOAD_OFFSET, "7")]), Some(7));
        for (range, length, expected) in [
            ("bytes 5-9/100", "5", Some(5)),
            ("bytes 5-9/*", "5", Some(5)),
            ("bytes 5-9/77", "5", None),
            ("bytes 5-9/*", "6", None),
            ("bytes 5-3/*", "1", None),
            ("bytes 5-/*", "1", None),
            ("bytes 5-9", "5", None),
            ("bytes 0-18446744073709551615/*", "1", None),
            ("lines 5-9/*", "5", None),
        ] {
            assert_eq!(of(&[("content-range", range), ("content-length", length)]), expected, "{range}");
        }
        assert_eq!(of(&[("content-range", "bytes 5-9/*"), (UPLOAD_OFFSET, "5")]), None);
    }
}
