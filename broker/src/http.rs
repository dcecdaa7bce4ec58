//! The HTTP side: health, metrics, and the API for products and devices.
//!
//! Its own thread with a single-threaded runtime: it may wait, shards may not. A change is decided against the registry, committed, applied,
//! and only then answered; sessions that it concerns are judged again.

mod access;
mod api;
mod attest;
mod audit;
mod bans;
mod batch;
mod campaigns;
mod commands;
mod connections;
mod connects;
mod extract;
mod firmware;
mod import;
mod limits;
mod lines;
mod lists;
mod logs;
mod openapi;
mod packages;
mod payloads;
mod people;
pub mod platform;
mod platforms;
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
use axum::routing::{get, post};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use turnpike_authz::Gatekeeper;
use turnpike_authz::guarded::Guarded;
use turnpike_authz::plan::Change;
use turnpike_authz::quota::Caller;

pub use audit::Auditing;
pub use connects::{Connects, Questions};

use self::batch::Batch;
use self::connections::Bounds;
use crate::desks::Desks;
use crate::edit::{Edit, Told};
use crate::erasure::Eraser;
use crate::metrics;
use crate::registrar::Registrar;
use crate::server::{Control, StoreHealth};

/// Bytes of a request's body, but for imports.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Requests served at once; more wait.
const REQUESTS_MAX: usize = 256;
/// How long a change may wait for its commit before the caller is told to try again.
const COMMIT_TIME_MAX: Duration = Duration::from_secs(10);

/// One change of the registry at a time: what is decided must still hold when it is applied.
pub type Changing = Arc<tokio::sync::Mutex<()>>;

/// What an [`Api`] is made of.
pub struct ApiParts<'a> {
    /// The running broker.
    pub control: Control,
    /// Who may come in, and how fast.
    pub guarded: Arc<Guarded<Gatekeeper>>,
    /// The administrator's.
    pub token: &'a str,
    /// Held by whoever changes the registry beside the API.
    pub changing: Changing,
    /// Where changes are put on record.
    pub auditing: Auditing,
    /// Who registers devices.
    pub registrar: Arc<Registrar>,
    /// Other clouds.
    pub book: platform::Book,
    /// Who erases users.
    pub eraser: Eraser,
    /// Who is handed messages of devices.
    pub desks: Desks,
}

/// What every handler needs.
#[derive(Clone)]
pub struct Api {
    control: Control,
    gate: Arc<Gatekeeper>,
    guarded: Arc<Guarded<Gatekeeper>>,
    /// Hash of the bearer token: comparing hashes takes the same time wherever the texts differ.
    token: [u8; 32],
    changing: Changing,
    busy: Arc<tokio::sync::Semaphore>,
    audit: audit::Desk,
    registrar: Arc<Registrar>,
    desks: Desks,
    /// Other clouds.
    book: platform::Book,
    eraser: Eraser,
    /// Registrations served at once.
    registering: Arc<tokio::sync::Semaphore>,
    /// Logs of devices read at once.
    reading: Arc<tokio::sync::Semaphore>,
}

impl Api {
    /// Serves these.
    #[must_use]
    pub fn new(parts: ApiParts<'_>) -> Self {
        let ApiParts { control, guarded, token, changing, auditing, registrar, book, eraser, desks } = parts;
        Self {
            control,
            book,
            eraser,
            gate: Arc::clone(guarded.gate()),
            guarded,
            token: Sha256::digest(token).into(),
            changing,
            busy: Arc::new(tokio::sync::Semaphore::new(REQUESTS_MAX)),
            audit: audit::Desk::new(auditing, token),
            registrar,
            desks,
            reading: Arc::new(tokio::sync::Semaphore::new(logs::READS_MAX)),
            registering: Arc::new(tokio::sync::Semaphore::new(register::REQUESTS_MAX)),
        }
    }

    fn is_token(&self, given: &str) -> bool {
        let hash: [u8; 32] = Sha256::digest(given).into();
        hash.iter().zip(&self.token).fold(0, |different, (a, b)| different | (a ^ b)) == 0
    }

    fn router(self) -> Router {
        let device = get(api::show_device)
            .put(api::put_device)
            .patch(api::patch_device)
            .delete(api::delete_device)
            .post(import::import_devices);
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
            .route("/products/{product}/devices/{device}/pardon", post(bans::pardon_device))
            .route("/products/{product}/devices/{device}/secret", post(api::renew_secret).delete(access::drop_secret))
            .route("/products/{product}/profiles", get(access::show_profiles).put(access::put_profiles))
            .route("/products/{product}/policy", get(access::show_policy).put(access::put_policy))
            .route("/products/{product}/payloads", get(payloads::show_payloads).put(payloads::put_payloads))
            .route("/products/{product}/verifier", get(access::show_verifier).put(access::put_verifier))
            .route(
                "/products/{product}/limits",
                get(limits::show_limits).put(limits::put_limits).delete(limits::delete_limits),
            )
            .route(
                "/products/{product}/devices/{device}/limits",
                get(limits::show_device_limits).put(limits::put_device_limits).delete(limits::delete_device_limits),
            )
            .route("/products/{product}/authorities", get(access::show_authorities).put(access::put_authorities))
            .route(
                "/products/{product}/devices/{device}/keys",
                get(access::show_keys).put(access::put_keys).delete(access::delete_keys),
            )
            .route("/platforms", get(platforms::list_platforms).post(platforms::create_platform))
            .route(
                "/platforms/{platform}",
                get(platforms::show_platform).patch(platforms::edit_platform).delete(platforms::delete_platform),
            )
            .route("/platforms/{platform}/auth-token", post(platforms::renew_auth_token))
            .route(
                "/products/{product}/devices/{device}/attestation",
                get(attest::show_attestation).put(attest::put_attestation).delete(attest::delete_attestation),
            )
            .route("/bans", get(bans::list_bans).post(bans::put_ban).delete(bans::delete_ban))
            .route("/audit", get(audit::search_audit))
            .merge(packages::routes())
            .route("/products/{product}/packages/{package}/list", post(lists::import_list))
            .merge(people::routes())
            .merge(firmware::routes())
            .merge(campaigns::routes())
            .merge(commands::routes())
            .merge(logs::routes())
            .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
            // Imports read their body as it comes, and aren't bounded by this.
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
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
            .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
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

    /// Changes the registry.
    async fn commit(&self, changes: Vec<Change>) -> Result<(), Problem> {
        self.commit_all(changes.into_iter().map(Edit::from).collect()).await
    }

    /// Puts changes on record, commits them, applies them, and has the sessions that they concern judged again. The caller holds
    /// `changing`. Whoever asked is known by the request that this is called in.
    async fn commit_all(&self, changes: Vec<Edit>) -> Result<(), Problem> {
        self.commit_batch(Batch { edits: changes, book: Vec::new() }).await
    }

    /// The same with changes of packages and lists.
    async fn commit_batch(&self, batch: Batch) -> Result<(), Problem> {
        let described = self.describe(&batch);
        self.commit_described(&described, batch).await
    }

    async fn commit_described(&self, described: &[Told], batch: Batch) -> Result<(), Problem> {
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
        let wait = self.guarded.quotas().request(&[Caller::Address(source.ip())], self.control.now()).err()?;
        let after_s = wait.after_ms.div_ceil(1000).to_string();
        let message = format!("this address asks too often; try again in {after_s} s");
        let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", message);
        Some(([(header::RETRY_AFTER, after_s)], problem).into_response())
    }

    fn apply(&self, batch: Batch) {
        self.registrar.apply(batch.book);
        batch.edits.into_iter().for_each(|edit| edit.apply(&self.guarded, &self.control));
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
            runtime.block_on(async {
                tokio::spawn(beside);
                connections::serve(TcpListener::from_std(listener)?, router, Bounds::DEFAULT).await;
                Ok(())
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

    fn method_not_allowed() -> Self {
        let message = "this path doesn't take this method; the header Allow says which it takes";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
    }

    fn banned() -> Self {
        Self::new(StatusCode::FORBIDDEN, "banned", "this address is banned")
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", message)
    }

    fn store() -> Self {
        let message = "the store doesn't take changes at the moment; nothing is confirmed, try again later";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", message)
    }
}

pub(crate) use connections::{Share, Shares};

/// Serves one connection of devices: of another listener than ours.
pub(crate) async fn converse<S>(stream: S, peer: SocketAddr, router: Router) -> Result<(), hyper::Error>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    connections::converse(stream, peer, router, Bounds::DEFAULT).await
}

/// An error as the API says it, for other listeners than ours.
pub(crate) fn refused(status: StatusCode, code: &'static str, message: &str) -> Response {
    Problem::new(status, code, message).into_response()
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "error": { "code": self.code, "message": self.message } });
        (self.status, axum::Json(body)).into_response()
    }
}

/// The token of an `Authorization` header. The scheme's case doesn't matter (RFC 9110, section 11.1); a token isn't empty.
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.trim().split_once(' ')?;
    Some(token.trim()).filter(|token| !token.is_empty() && scheme.eq_ignore_ascii_case("bearer"))
}

/// Lets through whoever has the token. A wrong one counts against the address as a failed log-in does.
async fn authorize(State(api): State<Api>, request: Request, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(bearer);
    let source = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
    // Behind a proxy it isn't the proxy that is banned.
    let guesser = source.map(|source| api.guest(source, request.headers()).source.ip());
    if guesser.is_some_and(|address| api.guarded.guard().admits_operator(address, api.control.now()).is_err()) {
        return Problem::banned().into_response();
    }
    // Guesses at the token count, too.
    if let Some(problem) = source.and_then(|source| api.over_limit(source)) {
        return problem;
    }
    if given.is_some_and(|token| api.is_token(token)) {
        api.audit.called_from(source, next.run(request)).await
    } else {
        api.audit.refused(source);
        // Without any token it is nobody's guess: a browser asks so before it has one.
        if let Some(address) = guesser.filter(|_| given.is_some()) {
            let events = api.guarded.guard().failed(address, None, api.control.now());
            events.iter().for_each(|event| api.audit.sink().record_security(event));
        }
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
    let degraded = degraded(&api);
    (status, axum::Json(serde_json::json!({ "ready": ready, "reasons": reasons, "degraded": degraded })))
        .into_response()
}

/// What keeps some clients out, of whom another broker would let in no more: it turns nobody away.
fn degraded(api: &Api) -> Vec<&'static str> {
    let is_open = api.gate.callout().is_some_and(|callout| callout.counts().open);
    let mut degraded = Vec::new();
    if is_open {
        degraded.push("callout: it fails, and nobody is called");
    }
    if api.gate.nonces().is_full(api.control.now().mono_ms) {
        degraded.push("nonces: they find no room, and log-ins that use one are refused");
    }
    degraded
}

async fn metrics_text(State(api): State<Api>) -> Response {
    let stats = api.control.stats().await;
    let audit = api.audit.sink().is_kept().then(|| api.audit.sink().status());
    match metrics::text(
        &stats,
        api.control.commit_stats(),
        &api.control.totals(),
        (&api.guarded, &api.registrar),
        (audit.as_ref(), &api.desks),
        api.control.now().mono_ms,
    ) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics can't be encoded");
            let message = "the metrics can't be told; the log says why";
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_token_is_there_or_not() {
        for header in ["Bearer t0ken", "bearer t0ken", "BEARER  t0ken "] {
            assert_eq!(bearer(header), Some("t0ken"), "{header:?}");
        }
        for header in ["", "Bearer", "Bearer ", "bearer   ", "Basic t0ken", "t0ken", "Bearert0ken"] {
            assert_eq!(bearer(header), None, "{header:?}");
        }
    }
}
