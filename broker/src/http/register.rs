//! Registration, for devices: what is open to whoever has a burn-in key, a listed identifier or a product's secret. Vendors' paths: [`super::vendors`].
//!
//! Strangers ask here. So there are bounds beside those of operators: how many are served at once, how often an address may ask, how long a
//! request may take, how long it may be. Wrong keys and unknown identifiers count as failed log-ins do, and lead to the same bans.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::extract::{ConnectInfo, DefaultBodyLimit, Extension, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use turnpike_authz::audit::{Action, Described, Outcome as Ended, Subject};
use turnpike_authz::guard::Who;
use turnpike_authz::names::ProductKey;
use turnpike_authz::presale::register::Fresh;
use turnpike_authz::presale::{self, Desk, Proof, RegisterError, Registration};
use turnpike_authz::refusal::Refusal;
use utoipa::ToSchema;

use super::api::now_s;
use super::batch::Batch;
use super::extract::{Asked, Bounded, whole_body};
use super::{Api, COMMIT_TIME_MAX, Problem, audit, vendors};
use crate::edit::Told;
use crate::provision::random;
use crate::registrar::Outcome;

/// Requests served at once; more wait.
pub(super) const REQUESTS_MAX: usize = 64;
/// Bytes of a body.
const BODY_BYTES_MAX: usize = 4096;
/// How long a request may take, its body and its commit included.
const TIME_MAX: Duration = Duration::from_secs(30);

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guest {
    /// The device's address, or that of the proxy which doesn't tell it.
    pub(super) source: SocketAddr,
    /// Whether the device came through TLS: a proxy says so.
    pub(super) tls: bool,
    /// The guard hears of failures anyway.
    pub(super) is_guarded: bool,
}

/// What devices are served.
pub(super) fn routes(api: Api) -> Router<Api> {
    Router::new()
        .route("/api/v1/register", post(register))
        .merge(vendors::routes())
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(api, receive))
}

/// Lets a stranger in, as far as anybody is.
async fn receive(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
    let Some(peer) = peer else { return Problem::not_found("nobody asks").into_response() };
    let guest = api.guest(peer, request.headers());
    let now = api.control.now();
    if !api.guarded.guard().accepts(guest.source.ip(), now) {
        return Problem::banned().into_response();
    }
    if let Err(wait) = api.registrar.asked_by(guest.source.ip(), now) {
        let after_s = wait.after_ms.div_ceil(1000).to_string();
        let message = format!("this address asks too often; try again in {after_s} s");
        let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", message);
        return ([(header::RETRY_AFTER, after_s)], problem).into_response();
    }
    request.extensions_mut().insert(guest);
    let served = async {
        let _permit = api.registering.acquire().await;
        audit::Desk::called_by_stranger(guest.source, next.run(request)).await
    };
    tokio::time::timeout(TIME_MAX, served).await.unwrap_or_else(|_| {
        Problem::new(StatusCode::REQUEST_TIMEOUT, "timeout", "the request took too long; ask again").into_response()
    })
}

/// What a device asks for. Exactly one of `key`, `signature` (with `key_id` and `nonce`) and `identifier`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Register {
    /// Product key.
    product: String,
    /// The name that the device wants; without one, a name is made. Not with `identifier`, which is the name.
    name: Option<String>,
    /// A whole burn-in key, `{package}-{index}-{32 hexadecimal digits}`: through TLS alone.
    key: Option<String>,
    /// `{package}-{index}` of the burn-in key that signs.
    key_id: Option<String>,
    /// 8 to 64 visible characters, new for each request.
    nonce: Option<String>,
    /// HMAC-SHA256 in hexadecimal digits, under the key's 16 bytes, of `turnpike registration v1\n{product}\n{name}\n{key_id}\n{nonce}`.
    signature: Option<String>,
    /// A listed MAC address, IMEI or serial number: through TLS alone.
    identifier: Option<String>,
}

impl Asked for Register {
    const FIELDS: &'static [&'static str] = &["product", "name", "key", "key_id", "nonce", "signature", "identifier"];
}

/// A device that has been registered.
#[derive(Serialize, ToSchema)]
pub(super) struct Registered {
    /// Product key.
    product: String,
    /// Device name.
    device: String,
    /// Its secret, if the request wasn't signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
    /// If it was: the secret under AES-128-GCM, in hexadecimal digits. 16 random bytes, the ciphertext, the tag; key and nonce are 16 and 12 bytes of
    /// HKDF-SHA256 (the key's 16 bytes; salt: the request's nonce and the 16 random bytes; info: `turnpike registration v1`), the associated data
    /// `{product}\n{device}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    sealed: Option<String>,
}

impl Register {
    fn proof(&self) -> Result<Proof<'_>, RegisterError> {
        let Self { product: _, name, key, key_id, nonce, signature, identifier } = self;
        match (key, (key_id, nonce, signature), identifier) {
            (Some(key), (None, None, None), None) => Ok(Proof::Key(key)),
            (None, (Some(key), Some(nonce), Some(signature)), None) => Ok(Proof::Signed { key, nonce, signature }),
            (None, (None, None, None), Some(identifier)) if name.is_none() => Ok(Proof::Listed(identifier)),
            _ => Err(RegisterError::Malformed),
        }
    }
}

/// Why a device isn't registered, and nothing of what was sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Refused {
    /// By the rules of registration.
    Rule(RegisterError),
    /// The broker can't at the moment.
    Unavailable,
}

impl From<RegisterError> for Refused {
    fn from(error: RegisterError) -> Self {
        Self::Rule(error)
    }
}

impl Refused {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Rule(error) => match error {
                RegisterError::Malformed => StatusCode::BAD_REQUEST,
                RegisterError::NotAllowed | RegisterError::WrongKey | RegisterError::TlsRequired => {
                    StatusCode::FORBIDDEN
                }
                RegisterError::Unknown => StatusCode::NOT_FOUND,
                RegisterError::Expired => StatusCode::GONE,
                RegisterError::Capacity | RegisterError::Exists | RegisterError::Replayed => StatusCode::CONFLICT,
                RegisterError::Sealed => StatusCode::SERVICE_UNAVAILABLE,
            },
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The code for programs.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Rule(error) => error.label(),
            Self::Unavailable => "unavailable",
        }
    }

    /// The sentence for people.
    pub(super) fn message(self) -> String {
        match self {
            Self::Rule(error) => error.to_string(),
            Self::Unavailable => "nothing is registered at the moment; ask again later".to_owned(),
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        Problem::new(self.status(), self.code(), self.message()).into_response()
    }
}

/// Registers a device, and gives it its secret.
#[utoipa::path(post, path = "/api/v1/register", request_body = Register, responses((status = 200, body = Registered, description = "the answer once more: the key registered this device within the last ten minutes"), (status = 201, body = Registered), (status = 400, description = "`malformed`"), (status = 403, description = "`not_allowed`, `wrong_key`, `tls_required`, `banned`"), (status = 404, description = "`unknown`: no such key, or not listed"), (status = 409, description = "`exists`, `capacity`, `replayed`"), (status = 410, description = "`expired`"), (status = 429), (status = 503, description = "`unavailable`, `sealed`")))]
pub(super) async fn register(
    State(api): State<Api>,
    Extension(guest): Extension<Guest>,
    Bounded(bytes): Bounded,
) -> Result<(StatusCode, Json<Registered>), Response> {
    let asked: Register = whole_body(&bytes).map_err(|problem| {
        api.registrar.count(Outcome::Refused(RegisterError::Malformed));
        Problem { code: RegisterError::Malformed.label(), ..problem }.into_response()
    })?;
    let made = api.register(&guest, &asked.product, asked.name.as_deref(), |_| asked.proof()).await;
    let made = made.map_err(IntoResponse::into_response)?;
    let status = if made.device.is_some() { StatusCode::CREATED } else { StatusCode::OK };
    let sealed = made.sealed.as_ref().map(hex::encode);
    let secret = sealed.is_none().then(|| String::from_utf8_lossy(made.secret.expose()).into_owned());
    Ok((status, Json(Registered { product: asked.product, device: made.name.to_string(), secret, sealed })))
}

impl Api {
    /// Who is behind a peer, which may be a proxy.
    pub(super) fn guest(&self, peer: SocketAddr, headers: &HeaderMap) -> Guest {
        let address = peer.ip().to_canonical();
        if !self.registrar.settings().proxies.iter().any(|net| net.contains(&address)) {
            return Guest { source: peer, tls: false, is_guarded: false };
        }
        let text = |name: &str| headers.get_all(name).iter().next_back().and_then(|value| value.to_str().ok());
        // The last one is the proxy's own; what stands before it anybody may have sent.
        let last = text("x-forwarded-for").and_then(|list| list.rsplit(',').next()?.trim().parse::<IpAddr>().ok());
        let tls = text("x-forwarded-proto").is_some_and(|proto| proto.trim().eq_ignore_ascii_case("https"));
        Guest { source: last.map_or(peer, |address| SocketAddr::new(address, 0)), tls, is_guarded: false }
    }

    /// Registers a device that shows what `prove` finds. When this gives a registration, it is on disk.
    pub(super) async fn register<'p>(
        &self,
        guest: &Guest,
        product: &str,
        name: Option<&str>,
        prove: impl FnOnce(&Desk<'_>) -> Result<Proof<'p>, RegisterError>,
    ) -> Result<Registration, Refused> {
        let mut once = None;
        let changing = tokio::time::timeout(COMMIT_TIME_MAX, self.changing.lock()).await;
        let _changing = changing.map_err(|_| Refused::Unavailable)?;
        if self.registrar.is_in_doubt() {
            return Err(Refused::Unavailable);
        }
        let planned = {
            let book = self.registrar.book();
            let desk = Desk { registry: self.gate.registry(), book: &book, key: self.gate.master_key() };
            let fresh = Fresh { making: random(), name: random(), answer: random() };
            prove(&desk).and_then(|proof| {
                once = proof.once().map(|(subject, nonce)| (subject.to_owned(), nonce.to_owned()));
                let request = presale::Request { product, name, proof, tls: guest.tls };
                desk.plan_register(&request, now_s(), &fresh)
            })
        };
        let made = planned.inspect_err(|error| self.not_registered(guest, product, *error))?;
        if let Some((subject, nonce)) = once {
            self.use_once(guest, (product, &subject, &nonce), made.device.is_some())?;
        }
        let key = ProductKey::parse(product).map_err(|_| RegisterError::Malformed)?;
        let outcome = if made.device.is_some() { Outcome::Made } else { Outcome::Again };
        if outcome == Outcome::Again {
            self.audit.note(Action::Register, Some(Subject::device(&key, &made.name)), Ended::Ok);
        } else {
            let batch =
                Batch { edits: made.device.iter().cloned().map(Into::into).collect(), book: made.changes.clone() };
            let described = Told::Registry(Described::registration(&key, &made));
            self.commit_described(&[described], batch).await.map_err(|_| Refused::Unavailable)?;
        }
        self.registrar.count(outcome);
        Ok(made)
    }

    /// Whoever has recorded a request without TLS must not register by it once more when an operator has released what it has registered. The
    /// answer alone may be given again: it is sealed for whoever has asked.
    fn use_once(&self, guest: &Guest, of: (&str, &str, &str), is_new: bool) -> Result<(), Refused> {
        match self.gate.use_registration(of, self.control.now()) {
            Ok(()) => Ok(()),
            Err(Refusal::NonceReused) if !is_new => Ok(()),
            Err(Refusal::NonceReused) => {
                self.not_registered(guest, of.0, RegisterError::Replayed);
                Err(RegisterError::Replayed.into())
            }
            Err(refusal) => {
                tracing::debug!(cause = refusal.label(), "a registration finds no room for its nonce");
                Err(Refused::Unavailable)
            }
        }
    }

    /// Counts a request that came to nothing, puts it on record, and has the guard hear of a guess.
    pub(super) fn not_registered(&self, guest: &Guest, product: &str, error: RegisterError) {
        self.registrar.count(Outcome::Refused(error));
        let product = ProductKey::parse(product).ok();
        let target = product.as_ref().map(Subject::product);
        self.audit.note(Action::Register, target, Ended::Refused(error.label()));
        if !guest.is_guarded && matches!(error, RegisterError::WrongKey | RegisterError::Unknown) {
            // Of nobody: a guess at a key says nothing of a device that logs in.
            let who: Option<Who<'_>> = None;
            let events = self.guarded.guard().failed(guest.source.ip(), who, self.control.now());
            events.iter().for_each(|event| self.audit.sink().record_security(event));
        }
    }
}
