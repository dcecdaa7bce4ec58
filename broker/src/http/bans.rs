//! Bans, as an operator sees and makes them. Those by hand are kept; those for failures end with the process.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use turnpike_authz::audit::{Action, Subject};
use turnpike_authz::guard::{BanCause, KeptBan, Who};
use utoipa::ToSchema;

use super::api::{device_name, product_key};
use super::extract::{Asked, Bodiless, Bounded, Path, Queried, Query, whole_body};
use super::{Api, Problem};

/// Bans of each cause that are listed.
const LISTED_MAX: usize = 1000;

/// A ban in force.
#[derive(Serialize, ToSchema)]
pub(super) struct BanView {
    /// Such as `192.0.2.0/24`.
    network: String,
    /// `failures` or `manual`.
    cause: &'static str,
    /// Seconds that are left; absent for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_s: Option<u64>,
    /// Of a ban by hand.
    note: String,
}

/// Bans in force, 1,000 of each cause at most.
#[derive(Serialize, ToSchema)]
pub(super) struct BanList {
    bans: Vec<BanView>,
}

/// A network to be banned.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PutBan {
    /// An address, or a network such as `192.0.2.0/24`.
    network: String,
    /// Seconds; absent: until it is lifted.
    for_s: Option<u64>,
    /// Why, cut to 200 bytes.
    #[serde(default)]
    note: String,
}

/// Which ban is lifted.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Lifted {
    network: String,
}

impl Asked for PutBan {
    const FIELDS: &'static [&'static str] = &["network", "for_s", "note"];
}

impl Queried for Lifted {
    const MESSAGE: &'static str = "the query takes network, once, and nothing else";
}

fn network(text: &str) -> Result<IpNet, Problem> {
    let address = || text.parse::<std::net::IpAddr>().map(IpNet::from);
    let invalid = || Problem::invalid("network: an address or a network, such as 192.0.2.0/24");
    text.parse().or_else(|_| address()).map_err(|_| invalid())
}

/// Bans in force.
#[utoipa::path(get, path = "/api/v1/bans", responses((status = 200, body = BanList)), security(("token" = [])))]
pub(super) async fn list_bans(State(api): State<Api>) -> Json<BanList> {
    let mut bans = api.guarded.guard().bans(LISTED_MAX, api.control.now());
    bans.sort_by_key(|ban| ban.network);
    let view = |ban: turnpike_authz::guard::Ban| BanView {
        network: ban.network.to_string(),
        cause: match ban.cause {
            BanCause::Failures => "failures",
            BanCause::Manual => "manual",
        },
        left_s: ban.left_ms.map(|left_ms| left_ms.div_ceil(1000)),
        note: ban.note.into_string(),
    };
    Json(BanList { bans: bans.into_iter().map(view).collect() })
}

/// Bans a network. Its connections are closed, and none is accepted any more.
#[utoipa::path(post, path = "/api/v1/bans", request_body = PutBan, responses((status = 204), (status = 409, description = "there are too many"), (status = 503, description = "in force, and not kept over a restart")), security(("token" = [])))]
pub(super) async fn put_ban(State(api): State<Api>, Bounded(bytes): Bounded) -> Result<StatusCode, Problem> {
    let asked: PutBan = whole_body(&bytes)?;
    let network = network(&asked.network)?;
    let for_ms = asked.for_s.map(|for_s| for_s.saturating_mul(1000));
    api.audit.accept_ban(Action::Ban, network.addr(), network.prefix_len()).await?;
    let full = |error: turnpike_authz::guard::BlocklistFull| {
        Problem::new(StatusCode::CONFLICT, "too_many_bans", error.to_string())
    };
    let banned = api.guarded.guard().ban(network, &asked.note, for_ms, api.control.now()).map_err(full)?;
    // After the ban: who is closed can't come back.
    api.control.shut_out(banned);
    let until_ms = for_ms.map(|for_ms| api.control.now().unix_ms.saturating_add(for_ms));
    let kept = KeptBan { network: banned, until_ms, note: asked.note.into() };
    // In force already: it doesn't wait for a disk that is full, and the answer says so.
    api.await_commit(api.control.commit_registry(vec![kept.put()]), Action::Ban, Subject::Address(network.addr()))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lifts the bans of a network and of its addresses.
#[utoipa::path(delete, path = "/api/v1/bans", params(("network" = String, Query, description = "an address or a network")), responses((status = 204)), security(("token" = [])))]
pub(super) async fn delete_ban(State(api): State<Api>, Query(lifted): Query<Lifted>) -> Result<StatusCode, Problem> {
    let network = network(&lifted.network)?;
    api.audit.accept_ban(Action::Unban, network.addr(), network.prefix_len()).await?;
    if !api.guarded.guard().unban(network, api.control.now()) {
        return Err(Problem::not_found("there is no such ban"));
    }
    let committed = api.control.commit_registry(vec![KeptBan::delete(network)]);
    api.await_commit(committed, Action::Unban, Subject::Address(network.addr())).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Forgets what is held against a device: that it is suspected to have a clone, and that it has to wait after failures.
#[utoipa::path(post, path = "/api/v1/products/{product}/devices/{device}/pardon", params(("product" = String, Path), ("device" = String, Path)), responses((status = 204)), security(("token" = [])))]
pub(super) async fn pardon_device(
    State(api): State<Api>,
    Path((product, device)): Path<(String, String)>,
    _: Bodiless,
) -> Result<StatusCode, Problem> {
    api.existing_device(&product, &device)?;
    let (key, name) = (product_key(&product)?, device_name(&device)?);
    api.audit.accept_pardon(&key, &name).await?;
    api.guarded.guard().pardon(Who { product: &product, name: &device }, api.control.now());
    Ok(StatusCode::NO_CONTENT)
}
