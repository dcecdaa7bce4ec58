//! The audit, from the API's side: who calls, what goes on record before it is done, and search.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use turnpike_authz::audit::chain::ChainKey;
use turnpike_authz::audit::{Action, Event, Key, Outcome, Subject, TokenId, Value};
use turnpike_authz::names::{DeviceName, ProductKey};
use utoipa::ToSchema;

use super::extract::{Queried, Query};
use super::{Api, Problem};
use crate::audit::{self, AuditError, AuditSink, Cursor, Entry, Moment, Pattern, now_ms};
use crate::edit::Told;

/// Records of a page, unless the caller says otherwise.
const PAGE: usize = 100;
/// Records of a page at the most.
const PAGE_MAX: usize = 1000;
/// Searches at once; each reads files on a thread of its own.
const SEARCHES_MAX: usize = 2;
/// How long a record may take to reach the disk before the caller is told to try again.
const WRITE_TIME_MAX: Duration = Duration::from_secs(10);

tokio::task_local! {
    /// Who has sent the request that is being served. Known where changes are committed, so that no handler can forget to say it.
    static CALLER: Caller;
}

#[derive(Clone, Copy)]
struct Caller {
    /// None: a stranger.
    token: Option<TokenId>,
    source: Option<SocketAddr>,
}

/// What the API needs of the audit.
#[derive(Clone, Debug)]
pub struct Auditing {
    /// Where records go.
    pub sink: AuditSink,
    /// Tells tokens from each other.
    pub key: ChainKey,
    /// Whether nothing is changed that can't be put on record.
    pub required: bool,
}

/// Puts on record what is asked for.
#[derive(Clone)]
pub(super) struct Desk {
    sink: AuditSink,
    required: bool,
    token: TokenId,
    searches: Arc<Semaphore>,
}

impl Desk {
    pub(super) fn new(auditing: Auditing, token: &str) -> Self {
        Self {
            token: TokenId::of(&auditing.key, token.as_bytes()),
            sink: auditing.sink,
            required: auditing.required,
            searches: Arc::new(Semaphore::new(SEARCHES_MAX)),
        }
    }

    pub(super) fn sink(&self) -> &AuditSink {
        &self.sink
    }

    /// Serves a request of somebody who has shown the token.
    pub(super) async fn called_from<F: Future>(&self, source: Option<SocketAddr>, serve: F) -> F::Output {
        CALLER.scope(Caller { token: Some(self.token), source }, serve).await
    }

    /// Serves a request of somebody who has shown nothing.
    pub(super) async fn called_by_stranger<F: Future>(source: SocketAddr, serve: F) -> F::Output {
        CALLER.scope(Caller { token: None, source: Some(source) }, serve).await
    }

    /// Puts on record what a request has come to that changed nothing.
    pub(super) fn note(&self, action: Action, target: Option<Subject<'_>>, outcome: Outcome) {
        let (actor, source) = Self::caller();
        self.sink.record(&Event { at_ms: now_ms(), actor, source, action, target, outcome, details: &[] });
    }

    /// Somebody has not shown the token.
    pub(super) fn refused(&self, source: Option<SocketAddr>) {
        self.sink.record(&Event {
            at_ms: now_ms(),
            actor: Subject::Unknown,
            source,
            action: Action::ApiRefused,
            target: None,
            outcome: Outcome::Refused("wrong_token"),
            details: &[],
        });
    }

    /// Who has sent the request that is being served, as records name them.
    pub(super) fn caller_name() -> String {
        match Self::caller().0 {
            Subject::Operator(token) => format!("operator:{token}"),
            _ => "broker".to_owned(),
        }
    }

    fn caller() -> (Subject<'static>, Option<SocketAddr>) {
        let caller =
            CALLER.try_with(|caller| (caller.token.map_or(Subject::Unknown, Subject::Operator), caller.source));
        caller.unwrap_or((Subject::Broker, None))
    }

    /// Has changes on record before they are made. If that can't be, they must not be made.
    pub(super) async fn accept(&self, changes: &[Told]) -> Result<(), Problem> {
        let record = |change: &Told| {
            change.tell(now_ms(), Self::caller(), Outcome::Accepted, |event| self.sink.record_durable(event))
        };
        // All of them first: they share an fsync.
        let written: Vec<_> = changes.iter().map(record).collect();
        for written in written {
            let outcome = tokio::time::timeout(WRITE_TIME_MAX, written).await;
            let fault = match outcome {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => error,
                Err(_) => AuditError::Unwritable("it takes too long".to_owned()),
            };
            if self.required {
                tracing::warn!(%fault, "a change was refused, since it can't be audited");
                // Some of it may be on record: then it is on record, too, that it wasn't done.
                self.fail(changes, "not_audited");
                return Err(Problem::audit());
            }
            tracing::warn!(%fault, "a change is made that isn't on record");
        }
        Ok(())
    }

    /// Has a ban or its lifting on record before it is done.
    pub(super) async fn accept_ban(&self, action: Action, address: IpAddr, prefix: u8) -> Result<(), Problem> {
        let details = [(Key::Address, Value::Address(address)), (Key::Prefix, Value::Number(u64::from(prefix)))];
        self.accept_one(action, Subject::Address(address), &details).await
    }

    /// Has it on record that a device is pardoned before it is.
    pub(super) async fn accept_pardon(&self, product: &ProductKey, device: &DeviceName) -> Result<(), Problem> {
        self.accept_one(Action::Pardon, Subject::device(product, device), &[]).await
    }

    /// Has something on record before it is done. If that can't be, it must not be done.
    pub(super) async fn accept_one(
        &self,
        action: Action,
        target: Subject<'_>,
        details: &[(Key, Value<'_>)],
    ) -> Result<(), Problem> {
        let ((actor, source), target) = (Self::caller(), Some(target));
        let event = Event { at_ms: now_ms(), actor, source, action, target, outcome: Outcome::Accepted, details };
        let written = self.sink.record_durable(&event);
        match tokio::time::timeout(WRITE_TIME_MAX, written).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) if self.required => Err(Problem::audit()),
            Ok(Err(_)) | Err(_) => Ok(()),
        }
    }

    /// Puts on record what was asked for and not allowed.
    pub(super) fn refuse(&self, changes: &[Told], cause: &'static str) {
        for change in changes {
            change.tell(now_ms(), Self::caller(), Outcome::Refused(cause), |event| self.sink.record(event));
        }
    }

    /// Puts on record that something which was accepted could not be done.
    pub(super) fn fail_one(&self, action: Action, target: Subject<'_>, cause: &'static str) {
        let (actor, source) = Self::caller();
        let (target, outcome) = (Some(target), Outcome::Failed(cause));
        self.sink.record(&Event { at_ms: now_ms(), actor, source, action, target, outcome, details: &[] });
    }

    /// Puts on record that changes which were accepted could not be made.
    pub(super) fn fail(&self, changes: &[Told], cause: &'static str) {
        for change in changes {
            change.tell(now_ms(), Self::caller(), Outcome::Failed(cause), |event| self.sink.record(event));
        }
    }
}

impl Problem {
    fn audit() -> Self {
        let message =
            "the audit can't be written at the moment, and nothing is changed that isn't on record; try again later";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "audit_unavailable", message)
    }
}

/// What is looked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    from: Option<String>,
    to: Option<String>,
    actor: Option<String>,
    action: Option<String>,
    target: Option<String>,
    order: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
}

impl Queried for Asked {
    const MESSAGE: &'static str =
        "the query takes from, to, actor, action, target, order, limit and after, each once, and nothing else";
}

/// A page of records.
#[derive(Serialize, ToSchema)]
pub(super) struct AuditPage {
    records: Vec<Entry>,
    /// `after` of the next page, if there may be one: a page can have few records, or none, and not be the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl Asked {
    fn query(&self) -> Result<audit::Query, Problem> {
        let moment = |text: &Option<String>, name: &str, otherwise| match text.as_deref().map(str::parse::<Moment>) {
            None => Ok(otherwise),
            Some(Ok(moment)) => Ok(moment.0),
            Some(Err(error)) => Err(Problem::invalid(format!("{name}: {error}"))),
        };
        let pattern = |text: &Option<String>| text.as_deref().map(Pattern::new);
        let newest_first = match self.order.as_deref() {
            None | Some("desc") => true,
            Some("asc") => false,
            Some(_) => return Err(Problem::invalid("order must be asc or desc")),
        };
        let after = self.after.as_deref().map(str::parse::<Cursor>).transpose();
        let limit = match self.limit.unwrap_or(PAGE) {
            limit @ 1..=PAGE_MAX => limit,
            _ => return Err(Problem::invalid(format!("limit must be from 1 to {PAGE_MAX}"))),
        };
        Ok(audit::Query {
            from_ms: moment(&self.from, "from", 0)?,
            to_ms: moment(&self.to, "to", u64::MAX)?,
            actor: pattern(&self.actor),
            action: pattern(&self.action),
            target: pattern(&self.target),
            limit,
            newest_first,
            after: after.map_err(|()| Problem::invalid("after must be `next` of the page before"))?,
            ..audit::Query::default()
        })
    }
}

/// Records of the audit, newest first. Reading it is on record, too.
#[utoipa::path(get, path = "/api/v1/audit", params(("from" = Option<String>, Query, description = "from this time on: a day, RFC 3339, or milliseconds since 1970 UTC"), ("to" = Option<String>, Query, description = "before this time"), ("actor" = Option<String>, Query, description = "who, such as `operator:1b0c2d3e` or `device:lamp/one`; `*` at the end takes any ending"), ("action" = Option<String>, Query, description = "what, such as `log_in`; `*` at the end takes any ending"), ("target" = Option<String>, Query, description = "to whom; `*` at the end takes any ending"), ("order" = Option<String>, Query, description = "`desc` (default) or `asc`"), ("limit" = Option<usize>, Query, description = "1 to 1000; default 100"), ("after" = Option<String>, Query, description = "`next` of the page before")), responses((status = 200, body = AuditPage), (status = 404, description = "no audit is kept")), security(("token" = [])))]
pub(super) async fn search_audit(
    State(api): State<Api>,
    Query(asked): Query<Asked>,
) -> Result<Json<AuditPage>, Problem> {
    let query = asked.query()?;
    let sink = api.audit.sink();
    if !sink.is_kept() {
        return Err(Problem::not_found("no audit is kept"));
    }
    let (actor, source) = Desk::caller();
    let (action, target) = (Action::AuditRead, Some(Subject::Audit));
    sink.record(&Event { actor, source, target, ..Event::own(now_ms(), action, &[]) });
    let unreadable = || Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "audit_unreadable", "the audit can't be read");
    let _searching = api.audit.searches.acquire().await.map_err(|_| unreadable())?;
    let segments = sink.segments();
    let read = tokio::task::spawn_blocking(move || audit::search(&segments, &query)).await;
    let page = read.map_err(std::io::Error::other).flatten().map_err(|error| {
        tracing::error!(%error, "the audit can't be searched");
        unreadable()
    })?;
    Ok(Json(AuditPage { records: page.records, next: page.next.map(|cursor| cursor.to_string()) }))
}
