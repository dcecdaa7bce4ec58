//! The HTTP side: health, metrics, and the API for products and devices.
//!
//! Its own thread with a single-threaded runtime: it may wait, shards may not. A change is decided against the registry, committed, applied,
//! and only then answered; sessions that it concerns are judged again.

mod access;
mod api;
mod audit;
mod bans;
mod batch;
mod connects;
mod import;
mod lists;
mod openapi;
mod packages;
mod register;
mod vendors;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use turnpike_authz::Gatekeeper;
use turnpike_authz::audit::Described;
use turnpike_authz::guard::Guard;
use turnpike_authz::guarded::Guarded;
use turnpike_authz::names::DeviceName;
use turnpike_authz::plan::Change;
use turnpike_authz::quota::{Caller, Quotas};

pub use audit::Auditing;
pub use connects::{Connects, Questions};

use batch::Batch;

use crate::metrics;
use crate::registrar::Registrar;
use crate::server::{Control, StoreHealth};

/// Bytes of a request's body, but for imports.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Requests served at once; more wait.
const REQUESTS_MAX: usize = 256;
/// How long a change may wait for its commit before the caller is told to try again.
const COMMIT_TIME_MAX: Duration = Duration::from_secs(10);

/// What every handler needs.
#[derive(Clone)]
pub struct Api {
    control: Control,
    gate: Arc<Gatekeeper>,
    quotas: Arc<Quotas>,
    guard: Arc<Guard>,
    /// Hash of the bearer token: comparing hashes takes the same time wherever the texts differ.
    token: [u8; 32],
    /// One change at a time: what is decided must still hold when it is applied.
    changing: Arc<tokio::sync::Mutex<()>>,
    busy: Arc<tokio::sync::Semaphore>,
    audit: audit::Desk,
    registrar: Arc<Registrar>,
    /// Registrations served at once.
    registering: Arc<tokio::sync::Semaphore>,
}

impl Api {
    /// Serves these.
    #[must_use]
    pub fn new(
        control: Control,
        guarded: &Guarded<Gatekeeper>,
        token: &str,
        auditing: Auditing,
        registrar: Arc<Registrar>,
    ) -> Self {
        Self {
            control,
            gate: Arc::clone(guarded.gate()),
            quotas: Arc::clone(guarded.quotas()),
            guard: Arc::clone(guarded.guard()),
            token: Sha256::digest(token).into(),
            changing: Arc::default(),
            busy: Arc::new(tokio::sync::Semaphore::new(REQUESTS_MAX)),
            audit: audit::Desk::new(auditing, token),
            registrar,
            registering: Arc::new(tokio::sync::Semaphore::new(register::REQUESTS_MAX)),
        }
    }

    fn router(self) -> Router {
        let device = get(api::show_device).put(api::put_device).patch(api::patch_device).delete(api::delete_device);
        let product =
            get(api::show_product).put(api::put_product).patch(api::patch_product).delete(api::delete_product);
        let guarded = Router::new()
            .route("/products", get(api::list_products))
            .route("/products/{product}", product)
            .route("/products/{product}/enable", post(api::enable_product))
            .route("/products/{product}/disable", post(api::disable_product))
            .route("/products/{product}/devices", get(api::list_devices))
            .route("/products/{product}/devices/{device}", device)
            .route("/products/{product}/devices/{device}/enable", post(api::enable_device))
            .route("/products/{product}/devices/{device}/disable", post(api::disable_device))
            .route("/audit", get(audit::search_audit))
            .route("/products/{product}/profiles", get(access::show_profiles).put(access::put_profiles))
            .route("/products/{product}/policy", get(access::show_policy).put(access::put_policy))
            .route("/products/{product}/authorities", put(access::put_authorities))
            .route(
                "/products/{product}/devices/{device}/keys",
                get(access::show_keys).put(access::put_keys).delete(access::delete_keys),
            )
            .route("/bans", get(bans::list_bans).post(bans::put_ban).delete(bans::delete_ban))
            .merge(packages::routes())
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .route(
                "/products/{product}/devices/import",
                post(import::import_devices).layer(DefaultBodyLimit::disable()),
            )
            .route(
                "/products/{product}/packages/{package}/list",
                post(lists::import_list).layer(DefaultBodyLimit::disable()),
            )
            .layer(middleware::from_fn_with_state(self.clone(), authorize));
        let settings = self.registrar.settings();
        let registration =
            if settings.enabled && settings.address.is_none() { register::routes(self.clone()) } else { Router::new() };
        Router::new()
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics_text))
            .route("/api/openapi.json", get(openapi::document))
            .nest("/api/v1", guarded)
            .fallback(|| async { Problem::not_found("there is nothing at this path") })
            .layer(middleware::from_fn_with_state(self.clone(), bounded))
            // Of strangers, with bounds of its own: they must not keep operators out.
            .merge(registration)
            .with_state(self)
    }

    /// What an address serves that is for devices alone.
    fn registration_router(self) -> Router {
        register::routes(self.clone())
            .fallback(|| async { Problem::not_found("there is nothing at this path") })
            .with_state(self)
    }

    /// Puts changes on record, commits them, applies them, and has the sessions that they concern judged again. The caller holds
    /// `changing`. Whoever asked is known by the request that this is called in.
    async fn commit(&self, changes: Vec<Change>) -> Result<(), Problem> {
        self.commit_batch(Batch::of_registry(changes)).await
    }

    /// The same for changes of packages and lists.
    async fn commit_batch(&self, batch: Batch) -> Result<(), Problem> {
        let described = self.describe(&batch);
        self.commit_described(&described, batch).await
    }

    async fn commit_described(&self, described: &[Described], batch: Batch) -> Result<(), Problem> {
        if let StoreHealth::Failing(fault) = self.control.health().store {
            tracing::warn!(%fault, "a change of the registry was refused");
            return Err(Problem::store());
        }
        self.audit.accept(described).await?;
        let committed = self.commit_accepted(batch).await;
        if committed.is_err() {
            self.audit.fail(described, "store_unavailable");
        }
        committed
    }

    async fn commit_accepted(&self, batch: Batch) -> Result<(), Problem> {
        let mut committed = self.control.commit_registry(batch.ops());
        let Ok(outcome) = tokio::time::timeout(COMMIT_TIME_MAX, &mut committed).await else {
            // Nothing is confirmed; but if it does reach the disk, memory has to follow.
            let (api, doubt) = (self.clone(), self.registrar.doubt());
            tokio::spawn(async move {
                if committed.await.is_ok() {
                    api.apply(batch);
                }
                drop(doubt);
            });
            return Err(Problem::store());
        };
        outcome.map_err(|_| Problem::store())?;
        self.apply(batch);
        Ok(())
    }

    /// What an address hears that asks too often.
    fn over_limit(&self, source: SocketAddr) -> Option<Response> {
        let wait = self.quotas.request(&[Caller::Address(source.ip())], self.control.now()).err()?;
        let after_s = wait.after_ms.div_ceil(1000).to_string();
        let message = format!("this address asks too often; try again in {after_s} s");
        let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", message);
        Some(([(header::RETRY_AFTER, after_s)], problem).into_response())
    }

    fn apply(&self, batch: Batch) {
        self.registrar.apply(batch.book);
        for change in batch.registry {
            let concerned = change.concerns().map(|(product, device)| (product.clone(), device.cloned()));
            self.gate.registry().apply(change);
            if let Some((product, device)) = concerned {
                self.control.rejudge(product.as_str(), device.as_ref().map(DeviceName::as_str));
            }
        }
    }
}

/// Serves the API on a thread of its own until the process ends, and registers devices that ask by CONNECT. Gives the address.
///
/// # Errors
/// The address can't be bound, or the thread not be started.
pub fn serve(address: SocketAddr, api: Api, questions: Questions) -> std::io::Result<SocketAddr> {
    serve_router("http", address, api.clone().router(), api.answer_connects(questions))
}

/// Serves the registration of devices, and nothing else, in the same way.
///
/// # Errors
/// As [`serve`].
pub fn serve_registration(address: SocketAddr, api: Api) -> std::io::Result<SocketAddr> {
    serve_router("registration", address, api.registration_router(), async {})
}

fn serve_router(
    name: &'static str,
    address: SocketAddr,
    router: Router,
    beside: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let served = runtime.and_then(|runtime| {
            let service = router.into_make_service_with_connect_info::<SocketAddr>();
            runtime.block_on(async {
                tokio::spawn(beside);
                axum::serve(TcpListener::from_std(listener)?, service).await
            })
        });
        if let Err(error) = served {
            tracing::error!(name, %error, "an HTTP server has ended");
        }
    })?;
    Ok(address)
}

/// An error as the API says it: a code for programs and a sentence for people, and nothing of what was sent.
#[derive(Debug)]
struct Problem {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    fn not_found(message: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", message)
    }

    fn store() -> Self {
        let message = "the store doesn't take changes at the moment; nothing is confirmed, try again later";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", message)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "error": { "code": self.code, "message": self.message } });
        (self.status, axum::Json(body)).into_response()
    }
}

/// Lets through whoever has the token.
async fn authorize(State(api): State<Api>, request: Request, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    let hash: [u8; 32] = Sha256::digest(token.trim()).into();
    let source = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
    // Guesses at the token count, too.
    if let Some(problem) = source.and_then(|source| api.over_limit(source)) {
        return problem;
    }
    let same = hash.iter().zip(&api.token).fold(0, |different, (a, b)| different | (a ^ b)) == 0;
    if same {
        api.audit.called_from(source, next.run(request)).await
    } else {
        api.audit.refused(source);
        let problem = Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "a bearer token is needed");
        ([(header::WWW_AUTHENTICATE, "Bearer")], problem).into_response()
    }
}

/// At most so many requests at once.
async fn bounded(State(api): State<Api>, request: Request, next: Next) -> Response {
    match api.busy.clone().acquire_owned().await {
        Ok(_permit) => next.run(request).await,
        Err(_) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "ending", "the broker is ending").into_response(),
    }
}

/// The process is alive: every shard has shown so within seconds.
async fn healthz(State(api): State<Api>) -> Response {
    let health = api.control.health();
    let silent: Vec<u16> = health.silent_shards.iter().map(|shard| shard.0).collect();
    let alive = silent.is_empty() && !health.dead;
    let status = if alive { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, axum::Json(serde_json::json!({ "alive": alive, "silent_shards": silent }))).into_response()
}

/// Clients may be sent here.
async fn readyz(State(api): State<Api>) -> Response {
    let health = api.control.health();
    let mut reasons = Vec::new();
    if let StoreHealth::Failing(fault) = &health.store {
        reasons.push(format!("store: {fault}"));
    }
    reasons.extend(health.silent_shards.iter().map(|shard| format!("shard {} is silent", shard.0)));
    if health.draining {
        reasons.push("draining".to_owned());
    }
    let audit = api.audit.sink().fault();
    let ready = health.is_ready() && audit.is_none();
    reasons.extend(audit.map(|fault| format!("audit: {fault}")));
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, axum::Json(serde_json::json!({ "ready": ready, "reasons": reasons }))).into_response()
}

async fn metrics_text(State(api): State<Api>) -> Response {
    let stats = api.control.stats().await;
    let audit = api.audit.sink().is_kept().then(|| api.audit.sink().status());
    match metrics::text(
        &stats,
        api.control.commit_stats(),
        &api.control.totals(),
        (&api.gate, &api.registrar),
        audit.as_ref(),
    ) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics can't be encoded");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
