//! Campaigns: which devices get a firmware, when, and how far they are.

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use turnpike_authz::audit::{Action, Key, Subject, Value};
use turnpike_authz::names::ProductKey;
use turnpike_ota::campaign::{Campaign, Refusal, State as Stage, Why};
use turnpike_ota::catalog::Unsuited;
use turnpike_ota::ids::{CampaignId, FirmwareId};
use turnpike_ota::machine::{Kind, State as Device};
use utoipa::ToSchema;

use super::api::{page_limit, product_key};
use super::audit;
use super::extract::{Asked, Bodiless, Bounded, Path, Queried, Query, whole_body};
use super::{Api, COMMIT_TIME_MAX, Problem};
use crate::ota::{CampaignRequest, Changing, Invalid, Order, OtaDesk, Unknown};
use crate::provision::random;

/// Bytes of a request: a list of a hundred thousand devices.
const BODY_BYTES_MAX: usize = 8 << 20;

/// What operators are served, below `/api/v1`. A list of devices is longer than other bodies.
pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/campaigns", get(list_campaigns).post(create_campaign))
        .route("/campaigns/{campaign}", get(show_campaign).delete(delete_campaign))
        .route("/campaigns/{campaign}/devices", get(list_campaign_devices))
        .route("/campaigns/{campaign}/approve", post(approve_campaign))
        .route("/campaigns/{campaign}/pause", post(pause_campaign))
        .route("/campaigns/{campaign}/resume", post(resume_campaign))
        .route("/campaigns/{campaign}/stop", post(stop_campaign))
        .route("/campaigns/{campaign}/retry", post(retry_campaign))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}

impl Asked for CampaignRequest {
    const FIELDS: &'static [&'static str] = &[
        "name",
        "firmware",
        "devices",
        "versions",
        "versions_not",
        "hardware",
        "tags",
        "tags_all",
        "regions",
        "share",
        "created_before",
        "groups",
        "approval",
        "start",
        "end",
        "windows",
        "zone",
        "rate",
        "downloads_max",
        "bandwidth",
        "priority",
        "dynamic",
        "limits",
        "retries_max",
        "force",
        "downgrade",
    ];
}

/// Devices in each state.
#[derive(Serialize, ToSchema, Default)]
#[allow(missing_docs, reason = "as in `Kind`")]
pub(super) struct CountsView {
    queued: u32,
    offered: u32,
    accepted: u32,
    downloading: u32,
    downloaded: u32,
    verified: u32,
    applying: u32,
    succeeded: u32,
    failed: u32,
    rejected: u32,
    timed_out: u32,
    cancelled: u32,
}

/// A group of a campaign.
#[derive(Serialize, ToSchema)]
pub(super) struct GroupView {
    /// Whether its devices may have offers.
    begun: bool,
    counts: CountsView,
}

/// A campaign.
#[derive(Serialize, ToSchema)]
pub(super) struct CampaignView {
    campaign: u64,
    /// Absent, as are `target` and `version`, of an `invalid` one whose firmware is gone.
    #[serde(skip_serializing_if = "String::is_empty")]
    product: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    target: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    version: String,
    /// `awaiting_approval`, `scheduled`, `running`, `paused`, `stopping`, `stopped` or `completed`; `invalid` is one that couldn't be taken up when the broker
    /// started: it offers nothing, and may be deleted.
    state: &'static str,
    /// Why it stops or has stopped: `by_hand`, `errors` or `ended`; of one that is `invalid` what is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<Cow<'static, str>>,
    /// The group, counted from 1, whose errors were too many.
    #[serde(skip_serializing_if = "Option::is_none")]
    failed_group: Option<u8>,
    /// Whether it waits for a threshold of success that can't be reached any more.
    stuck: bool,
    /// Seconds since 1970 UTC.
    since: u64,
    /// Seconds since 1970 UTC.
    created_at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    approved_by: Option<String>,
    /// The seed of the hash by which devices are dealt out.
    salt: u64,
    groups: Vec<GroupView>,
    /// As it was asked for.
    settings: CampaignRequest,
}

/// A page of campaigns, the oldest first.
#[derive(Serialize, ToSchema)]
pub(super) struct CampaignPage {
    campaigns: Vec<CampaignView>,
    /// `after` of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<u64>,
}

/// Which page.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NumberedPage {
    pub(super) limit: Option<usize>,
    pub(super) after: Option<u64>,
}

impl Queried for NumberedPage {
    const MESSAGE: &'static str =
        "the query takes limit, a whole number from 1 to 1000, and after, a whole number, each once, and nothing else";
}

/// A device of a campaign.
#[derive(Serialize, ToSchema)]
pub(super) struct MemberView {
    device: String,
    /// Counted from 1.
    group: u32,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    percent: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retryable: Option<bool>,
    /// A number of the table of reasons; 0: none.
    reason: u16,
    /// Seconds since 1970 UTC.
    since: u32,
    /// How often it was tried again.
    retries: u8,
}

/// A page of devices of a campaign, in no order that means anything.
#[derive(Serialize, ToSchema)]
pub(super) struct MemberPage {
    devices: Vec<MemberView>,
    /// `after` of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<u64>,
}

/// Which devices of a campaign.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MembersPage {
    limit: Option<usize>,
    after: Option<u32>,
    state: Option<String>,
}

impl Queried for MembersPage {
    const MESSAGE: &'static str = "the query takes limit, a whole number from 1 to 1000, after, a whole number, and state, each once, and nothing else";
}

impl From<Unknown> for Problem {
    fn from(error: Unknown) -> Self {
        use turnpike_ota::schedule::AddError;
        let (status, code) = match &error {
            Unknown::Firmware => (StatusCode::NOT_FOUND, "no_such_firmware"),
            Unknown::NotReady => (StatusCode::CONFLICT, "firmware_not_ready"),
            Unknown::Unsuited(Unsuited::Target) => (StatusCode::CONFLICT, "unknown_target"),
            Unknown::Unsuited(Unsuited::Rollback) => (StatusCode::CONFLICT, "rollback"),
            Unknown::Unsuited(Unsuited::Unsigned) => (StatusCode::CONFLICT, "signature_missing"),
            Unknown::Unsuited(_) => (StatusCode::CONFLICT, "unsuited"),
            Unknown::Store => return Self::store(),
            Unknown::Request(_) | Unknown::Faults(_) => (StatusCode::BAD_REQUEST, "invalid"),
            Unknown::Add(AddError::Exists) => (StatusCode::CONFLICT, "campaign_exists"),
            Unknown::Add(AddError::TooManyLive) => (StatusCode::CONFLICT, "too_many_campaigns"),
            Unknown::Add(AddError::TooManyDevices) => (StatusCode::CONFLICT, "too_many_devices"),
            Unknown::Add(AddError::Nobody) => (StatusCode::CONFLICT, "no_devices"),
            Unknown::Add(AddError::TrialAbsent(_)) => (StatusCode::CONFLICT, "trial_absent"),
            Unknown::Add(AddError::State(_)) => (StatusCode::CONFLICT, "campaign_state"),
        };
        Self::new(status, code, error.to_string())
    }
}

impl From<Refusal> for Problem {
    fn from(error: Refusal) -> Self {
        match error {
            Refusal::Unknown => Self::not_found("there is no such campaign"),
            Refusal::State(state) => {
                let message = format!("that can't be done to a campaign that is {}", stage(state).0);
                Self::new(StatusCode::CONFLICT, "campaign_state", message)
            }
        }
    }
}

fn stage(state: Stage) -> (&'static str, Option<Why>) {
    match state {
        Stage::Draft => ("draft", None),
        Stage::AwaitingApproval => ("awaiting_approval", None),
        Stage::Scheduled => ("scheduled", None),
        Stage::Running => ("running", None),
        Stage::Paused => ("paused", None),
        Stage::Stopping(why) => ("stopping", Some(why)),
        Stage::Stopped(why) => ("stopped", Some(why)),
        Stage::Completed => ("completed", None),
    }
}

fn view(state: &crate::ota::State, campaign: &Campaign) -> CampaignView {
    let (settings, life, id) = (campaign.settings(), campaign.life(), campaign.id());
    let (word, why) = stage(life.state);
    let groups = (0..life.bounds.len()).filter_map(|group| u8::try_from(group).ok()).map(|group| {
        let count = |kind| state.scheduler.count(id, group, kind);
        GroupView {
            begun: group < life.begun,
            counts: CountsView {
                queued: count(Kind::Queued),
                offered: count(Kind::Offered),
                accepted: count(Kind::Accepted),
                downloading: count(Kind::Downloading),
                downloaded: count(Kind::Downloaded),
                verified: count(Kind::Verified),
                applying: count(Kind::Applying),
                succeeded: count(Kind::Succeeded),
                failed: count(Kind::Failed),
                rejected: count(Kind::Rejected),
                timed_out: count(Kind::TimedOut),
                cancelled: count(Kind::Cancelled),
            },
        }
    });
    CampaignView {
        campaign: id.0,
        product: settings.filter.product.to_string(),
        target: settings.target.to_string(),
        version: settings.version.to_string(),
        state: word,
        why: why.map(|why| match why {
            Why::ByHand => "by_hand".into(),
            Why::Errors { .. } => "errors".into(),
            Why::Ended => "ended".into(),
        }),
        failed_group: why.and_then(|why| match why {
            Why::Errors { group } => Some(group + 1),
            Why::ByHand | Why::Ended => None,
        }),
        stuck: state.scheduler.is_stuck(id),
        since: life.since_s,
        created_at: life.created_at_s,
        approved_by: life.approval.as_ref().map(|approval| approval.by.to_string()),
        salt: settings.salt,
        groups: groups.collect(),
        settings: state.request(id).cloned().unwrap_or_default(),
    }
}

/// Of a campaign that couldn't be taken up there is what was asked for, and what is wrong.
fn view_invalid(state: &crate::ota::State, id: CampaignId, invalid: &Invalid) -> CampaignView {
    let firmware = state.catalog.get(FirmwareId(invalid.request.firmware));
    CampaignView {
        campaign: id.0,
        product: firmware.map(|firmware| firmware.product.to_string()).unwrap_or_default(),
        target: firmware.map(|firmware| firmware.target.to_string()).unwrap_or_default(),
        version: firmware.map(|firmware| firmware.version.to_string()).unwrap_or_default(),
        state: INVALID,
        why: Some(invalid.why.clone().into()),
        failed_group: None,
        stuck: false,
        since: invalid.life.since_s,
        created_at: invalid.life.created_at_s,
        approved_by: invalid.life.approval.as_ref().map(|approval| approval.by.to_string()),
        salt: invalid.salt,
        groups: Vec::new(),
        settings: invalid.request.clone(),
    }
}

/// The state of a campaign that couldn't be taken up.
const INVALID: &str = "invalid";

impl Api {
    /// The right to change firmware and campaigns. While the store takes nothing, whoever was before keeps it.
    pub(super) async fn at_firmware(ota: &OtaDesk) -> Result<Changing, Problem> {
        tokio::time::timeout(COMMIT_TIME_MAX, ota.changing()).await.map_err(|_| Problem::store())
    }

    /// The desk for firmware.
    pub(super) fn ota(&self) -> Result<&Arc<OtaDesk>, Problem> {
        self.desks.ota.as_ref().ok_or_else(|| {
            Problem::new(StatusCode::NOT_FOUND, "ota_disabled", "ota.enabled is false in this broker's configuration")
        })
    }

    fn view_campaign(&self, id: CampaignId) -> Result<Json<CampaignView>, Problem> {
        let state = self.ota()?.state();
        if let Some(invalid) = state.invalid_campaign(id) {
            return Ok(Json(view_invalid(&state, id, invalid)));
        }
        let campaign = state.scheduler.campaign(id).filter(|_| !state.scheduler.is_prepared(id));
        Ok(Json(view(&state, campaign.ok_or(Refusal::Unknown)?)))
    }

    /// Whose campaign it is, that an order is given to.
    fn product_of(&self, id: CampaignId) -> Result<ProductKey, Problem> {
        let state = self.ota()?.state();
        if state.invalid_campaign(id).is_some() {
            let message = "that can't be done to a campaign that is invalid; it may be deleted";
            return Err(Problem::new(StatusCode::CONFLICT, "campaign_state", message));
        }
        let campaign = state.scheduler.campaign(id).ok_or(Refusal::Unknown)?;
        ProductKey::parse(&campaign.settings().filter.product).map_err(|_| Refusal::Unknown.into())
    }

    async fn order(&self, number: &str, action: Action, order: Order) -> Result<Json<CampaignView>, Problem> {
        let id = campaign_id(number)?;
        let ota = self.ota()?;
        let changing = Self::at_firmware(ota).await?;
        let product = self.product_of(id)?;
        let target = Subject::product(&product);
        self.audit.accept_one(action, target, &[(Key::Campaign, Value::Number(id.0))]).await?;
        match ota.order_held(changing, id, order, &audit::Desk::caller_name()) {
            Ok(committed) => self.await_commit(committed, action, target).await?,
            Err(refusal) => {
                self.audit.fail_one(action, target, "campaign_state");
                return Err(refusal.into());
            }
        }
        self.view_campaign(id)
    }

    /// Waits until what was changed is on disk.
    pub(super) async fn await_commit(
        &self,
        committed: tokio::sync::oneshot::Receiver<()>,
        action: Action,
        target: Subject<'_>,
    ) -> Result<(), Problem> {
        match tokio::time::timeout(COMMIT_TIME_MAX, committed).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => {
                self.audit.fail_one(action, target, "store_unavailable");
                Err(Problem::store())
            }
        }
    }
}

fn campaign_id(text: &str) -> Result<CampaignId, Problem> {
    text.parse().map(CampaignId).map_err(|_| Refusal::Unknown.into())
}

/// Campaigns, by page.
#[utoipa::path(get, path = "/api/v1/campaigns", params(("limit" = Option<usize>, Query, description = "1 to 1000; default 100"), ("after" = Option<u64>, Query, description = "`next` of the page before")), responses((status = 200, body = CampaignPage)), security(("token" = [])))]
pub(super) async fn list_campaigns(
    State(api): State<Api>,
    Query(page): Query<NumberedPage>,
) -> Result<Json<CampaignPage>, Problem> {
    let limit = page_limit(page.limit)?;
    let state = api.ota()?.state();
    let is_left = |id: CampaignId| page.after.is_none_or(|after| id.0 > after);
    let known = state.scheduler.campaigns().map(Campaign::id).filter(|id| !state.scheduler.is_prepared(*id));
    let mut left: Vec<_> = known.chain(state.invalid().map(|(id, _)| id)).filter(|id| is_left(*id)).collect();
    left.sort_unstable();
    let shown = left.iter().take(limit).filter_map(|id| match state.invalid_campaign(*id) {
        Some(invalid) => Some(view_invalid(&state, *id, invalid)),
        None => state.scheduler.campaign(*id).map(|campaign| view(&state, campaign)),
    });
    let campaigns: Vec<_> = shown.collect();
    let next = left.get(limit).and(campaigns.last().map(|campaign| campaign.campaign));
    Ok(Json(CampaignPage { campaigns, next }))
}

/// One campaign, with counts by group and state.
#[utoipa::path(get, path = "/api/v1/campaigns/{campaign}", params(("campaign" = u64, Path)), responses((status = 200, body = CampaignView), (status = 404)), security(("token" = [])))]
pub(super) async fn show_campaign(
    State(api): State<Api>,
    Path(campaign): Path<String>,
) -> Result<Json<CampaignView>, Problem> {
    api.view_campaign(campaign_id(&campaign)?)
}

/// Makes a campaign and draws its groups from the devices that there are. It starts by itself, or once it is approved.
#[utoipa::path(post, path = "/api/v1/campaigns", request_body = CampaignRequest, responses((status = 201, body = CampaignView), (status = 400), (status = 404), (status = 409), (status = 503)), security(("token" = [])))]
pub(super) async fn create_campaign(
    State(api): State<Api>,
    Bounded(bytes): Bounded,
) -> Result<(StatusCode, Json<CampaignView>), Problem> {
    let request: CampaignRequest = whole_body(&bytes)?;
    let ota = Arc::clone(api.ota()?);
    let changing = Api::at_firmware(&ota).await?;
    let firmware = FirmwareId(request.firmware);
    let found = ota.state().catalog.get(firmware).map(|firmware| firmware.product.clone());
    let product = found.ok_or(Unknown::Firmware)?;
    api.existing_product(product_key(product.as_str())?.as_str())?;
    let target = Subject::product(&product);
    let details = [(Key::Firmware, Value::Number(firmware.0))];
    api.audit.accept_one(Action::CampaignCreate, target, &details).await?;
    let created = ota.create_campaign(changing, request, u64::from_be_bytes(random()), COMMIT_TIME_MAX).await;
    match created.map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the log says why"))? {
        Ok(id) => Ok((StatusCode::CREATED, api.view_campaign(id)?)),
        Err(error) => {
            let problem = Problem::from(error);
            api.audit.fail_one(Action::CampaignCreate, target, problem.code);
            ota.campaigns_refused().add(problem.code);
            Err(problem)
        }
    }
}

/// Devices of a campaign, by page, with their states; with `state` those in one alone, of which a page may have none and yet not be the last.
#[utoipa::path(get, path = "/api/v1/campaigns/{campaign}/devices", params(("campaign" = u64, Path), ("limit" = Option<usize>, Query, description = "1 to 1000; default 100"), ("after" = Option<u32>, Query, description = "`next` of the page before"), ("state" = Option<String>, Query, description = "such as `failed`")), responses((status = 200, body = MemberPage), (status = 404)), security(("token" = [])))]
pub(super) async fn list_campaign_devices(
    State(api): State<Api>,
    Path(campaign): Path<String>,
    Query(page): Query<MembersPage>,
) -> Result<Json<MemberPage>, Problem> {
    /// Devices that one request looks at.
    const LOOKS: usize = 100_000;
    let (id, limit) = (campaign_id(&campaign)?, page_limit(page.limit)?);
    let wanted = page.state.as_deref().map(|word| {
        let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == word);
        kind.ok_or_else(|| Problem::invalid("state: it is one of the words by which devices' states are told"))
    });
    let wanted = wanted.transpose()?;
    let state = api.ota()?.state();
    if state.invalid_campaign(id).is_none() {
        state.scheduler.campaign(id).filter(|_| !state.scheduler.is_prepared(id)).ok_or(Refusal::Unknown)?;
    }
    let (mut devices, mut next) = (Vec::new(), None);
    for (looked, (slot, member)) in state.scheduler.members(id, page.after.unwrap_or(0)).enumerate() {
        if devices.len() == limit || looked == LOOKS {
            next = Some(u64::from(slot));
            break;
        }
        let at = member.standing.state;
        if wanted.is_some_and(|wanted| wanted != at.kind()) {
            continue;
        }
        let Some((_, device)) = state.scheduler.name(member.device) else { continue };
        devices.push(MemberView {
            device: device.to_owned(),
            group: u32::from(member.group) + 1,
            state: at.kind().as_str(),
            percent: if let Device::Downloading(percent) = at { Some(percent) } else { None },
            retryable: if let Device::Failed { retryable } = at { Some(retryable) } else { None },
            reason: member.standing.reason.0,
            since: member.standing.since_s,
            retries: member.retries,
        });
    }
    Ok(Json(MemberPage { devices, next }))
}

/// Forgets a campaign that is over, with the states of its devices. Its firmware may be deleted then.
#[utoipa::path(delete, path = "/api/v1/campaigns/{campaign}", params(("campaign" = u64, Path)), responses((status = 204, description = "deleted"), (status = 404), (status = 409)), security(("token" = [])))]
pub(super) async fn delete_campaign(
    State(api): State<Api>,
    Path(campaign): Path<String>,
    _: Bodiless,
) -> Result<StatusCode, Problem> {
    let id = campaign_id(&campaign)?;
    let ota = api.ota()?;
    let changing = Api::at_firmware(ota).await?;
    let details = [(Key::Campaign, Value::Number(id.0))];
    if ota.state().invalid_campaign(id).is_some() {
        let target = Subject::Broker;
        api.audit.accept_one(Action::CampaignDelete, target, &details).await?;
        api.await_commit(ota.delete_held(changing, id)?, Action::CampaignDelete, target).await?;
        return Ok(StatusCode::NO_CONTENT);
    }
    let product = api.product_of(id)?;
    let target = Subject::product(&product);
    api.audit.accept_one(Action::CampaignDelete, target, &details).await?;
    match ota.delete_held(changing, id) {
        Ok(committed) => api.await_commit(committed, Action::CampaignDelete, target).await?,
        Err(refusal) => {
            api.audit.fail_one(Action::CampaignDelete, target, "campaign_state");
            return Err(refusal.into());
        }
    }
    Ok(StatusCode::NO_CONTENT)
}

macro_rules! orders {
    ($($(#[$doc:meta])* $name:ident = $order:ident, $action:ident;)*) => {
        $($(#[$doc])*
        pub(super) async fn $name(
            State(api): State<Api>,
            Path(campaign): Path<String>,
            _: Bodiless,
        ) -> Result<Json<CampaignView>, Problem> {
            api.order(&campaign, Action::$action, Order::$order).await
        })*
    };
}

orders! {
    /// Lets a campaign start that awaits approval.
    #[utoipa::path(post, path = "/api/v1/campaigns/{campaign}/approve", params(("campaign" = u64, Path)), responses((status = 200, body = CampaignView), (status = 404), (status = 409)), security(("token" = [])))]
    approve_campaign = Approve, CampaignApprove;
    /// No more offers; devices that have one go on.
    #[utoipa::path(post, path = "/api/v1/campaigns/{campaign}/pause", params(("campaign" = u64, Path)), responses((status = 200, body = CampaignView), (status = 404), (status = 409)), security(("token" = [])))]
    pause_campaign = Pause, CampaignPause;
    /// Offers again.
    #[utoipa::path(post, path = "/api/v1/campaigns/{campaign}/resume", params(("campaign" = u64, Path)), responses((status = 200, body = CampaignView), (status = 404), (status = 409)), security(("token" = [])))]
    resume_campaign = Resume, CampaignResume;
    /// Stops a campaign: links are void, and devices that haven't begun to apply are cancelled.
    #[utoipa::path(post, path = "/api/v1/campaigns/{campaign}/stop", params(("campaign" = u64, Path)), responses((status = 200, body = CampaignView), (status = 404), (status = 409)), security(("token" = [])))]
    stop_campaign = Stop, CampaignStop;
    /// Tries devices again that have failed and may be asked once more.
    #[utoipa::path(post, path = "/api/v1/campaigns/{campaign}/retry", params(("campaign" = u64, Path)), responses((status = 200, body = CampaignView), (status = 404), (status = 409)), security(("token" = [])))]
    retry_campaign = Retry, CampaignRetry;
}
