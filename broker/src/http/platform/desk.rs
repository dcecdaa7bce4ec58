//! One request: read, judged, done, answered, and on record.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use turnpike_authz::audit::{Action, Event, Id, Outcome, Subject};
use turnpike_authz::guard::{Guard, SecurityEvent};
use turnpike_authz::platform::{self, Admitted, Cause, Code, Operation, PlatId, Users};
use turnpike_authz::quota::{Caller, Quotas};
use turnpike_authz::registry::Registry;
use turnpike_authz::x509::Leaf;

use super::book::Book;
use super::{BODY_BYTES_MAX, json};
use crate::audit::{AuditSink, now_ms};
use crate::presence::Presence;
use crate::server::Control;

/// How long a body may take.
const BODY_TIME_MAX: Duration = Duration::from_secs(10);
/// The header of an answer that is signed.
const SIGN: &str = "turnpike-sign";

/// What a desk is made of.
pub struct DeskParts {
    /// The platforms.
    pub book: Book,
    /// The devices.
    pub registry: Arc<Registry>,
    /// Which of them are connected.
    pub presence: Arc<Presence>,
    /// What users may do.
    pub users: Arc<dyn Users>,
    /// The data plane.
    pub control: Control,
    /// Where records go.
    pub audit: AuditSink,
    /// Whether nothing is done that can't be put on record.
    pub audit_required: bool,
    /// Rates.
    pub quotas: Arc<Quotas>,
    /// Bans.
    pub guard: Arc<Guard>,
}

/// Serves requests. Cheap to clone.
#[derive(Clone)]
pub struct Desk(pub(super) Arc<DeskParts>);

/// Who has a connection.
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    pub(super) certificate: Leaf,
}

/// A request that can't be answered with what was asked for.
pub(super) struct Failed {
    pub(super) cause: Cause,
    /// Whose it is, where that was proved.
    pub(super) platform: Option<PlatId>,
}

impl From<Cause> for Failed {
    fn from(cause: Cause) -> Self {
        Self { cause, platform: None }
    }
}

impl Desk {
    /// A desk of these.
    #[must_use]
    pub fn new(parts: DeskParts) -> Self {
        Self(Arc::new(parts))
    }

    /// Whether an address may speak.
    pub(super) fn accepts(&self, address: SocketAddr) -> bool {
        self.0.guard.accepts(address.ip(), self.0.control.now())
    }

    pub(super) async fn answer(&self, request: Request<Incoming>, peer: &Peer) -> Response<Body> {
        match self.serve(request, peer).await {
            Ok((body, admitted)) => {
                self.0.book.platforms().note_outcome(None);
                signed(body, &admitted)
            }
            Err(failed) => {
                self.0.book.platforms().note_outcome(Some(failed.cause));
                self.tell_failed(&failed, peer);
                refusal(failed.cause.code())
            }
        }
    }

    async fn serve(&self, request: Request<Incoming>, peer: &Peer) -> Result<(Vec<u8>, Admitted), Failed> {
        let desk = &*self.0;
        let callers = [Caller::Address(peer.address.ip())];
        desk.quotas.request(&callers, desk.control.now()).map_err(|_| Cause::TooMany)?;
        let operation = Operation::at(request.uri().path()).filter(|_| request.uri().query().is_none());
        let method = platform::Method::parse(request.method().as_str());
        let (operation, method) = operation.zip(method).ok_or(Cause::UnknownRequest)?;
        if !is_json(request.headers().get(header::CONTENT_TYPE)) {
            return Err(Cause::MediaType.into());
        }
        let bytes = body(request).await?;
        let request = platform::Request::read(operation, method, json::fields(&bytes)?)?;
        let admitted = desk.book.platforms().admit(&request, &peer.certificate, &desk.quotas, desk.control.now());
        let admitted = admitted.map_err(|refused| Failed { cause: refused.cause, platform: refused.platform })?;
        let failed = |cause| Failed { cause, platform: Some(admitted.platform) };
        let body = self.work(&request, &admitted, peer).await.map_err(failed)?;
        Ok((body, admitted))
    }

    fn tell_failed(&self, failed: &Failed, peer: &Peer) {
        let Failed { cause, platform } = failed;
        if cause.code() == Code::Identity {
            let now = self.0.control.now();
            let events: Vec<SecurityEvent> = self.0.guard.failed(peer.address.ip(), None, now);
            events.iter().for_each(|event| self.0.audit.record_security(event));
        }
        let actor = platform.as_ref().map_or(Subject::Unknown, |platform| Subject::Platform(Id::of(platform)));
        self.0.audit.record(&Event {
            at_ms: now_ms(),
            actor,
            source: Some(peer.address),
            action: Action::ApiRefused,
            target: None,
            outcome: Outcome::Refused(cause.label()),
            details: &[],
        });
    }
}

async fn body(request: Request<Incoming>) -> Result<Vec<u8>, Cause> {
    let declared = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if declared.is_some_and(|bytes: u64| bytes > BODY_BYTES_MAX as u64) {
        return Err(Cause::TooLarge);
    }
    let read = to_bytes(Body::new(request.into_body()), BODY_BYTES_MAX);
    // Whoever breaks off, or is too slow, doesn't hear which it was.
    let read = tokio::time::timeout(BODY_TIME_MAX, read).await.map_err(|_| Cause::Malformed)?;
    read.map(|bytes| bytes.to_vec()).map_err(|_| Cause::TooLarge)
}

/// `application/json`, and if it names a character set, UTF-8.
fn is_json(value: Option<&HeaderValue>) -> bool {
    let Some(text) = value.and_then(|value| value.to_str().ok()) else { return false };
    let mut parts = text.split(';').map(str::trim);
    let is_type = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"));
    let is_utf8 = |part: &str| {
        part.split_once('=').is_some_and(|(name, value)| {
            name.eq_ignore_ascii_case("charset") && value.trim_matches('"').eq_ignore_ascii_case("utf-8")
        })
    };
    is_type && parts.all(is_utf8)
}

fn response(status: StatusCode, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn signed(body: Vec<u8>, admitted: &Admitted) -> Response<Body> {
    let sign = HeaderValue::from_str(&admitted.sign(&body));
    let mut response = response(StatusCode::OK, body);
    response.headers_mut().extend(sign.ok().map(|sign| (header::HeaderName::from_static(SIGN), sign)));
    response
}

/// A number, and nothing that was sent or that is known.
fn refusal(code: Code) -> Response<Body> {
    let status = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::BAD_REQUEST);
    response(status, format!("{{\"code\":{}}}", code.number()).into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_in_utf_8_is_json() {
        let is = |text| is_json(Some(&HeaderValue::from_str(text).expect("a header")));
        for good in ["application/json", "Application/JSON; charset=UTF-8", "application/json;charset=\"utf-8\""] {
            assert!(is(good), "{good}");
        }
        for bad in ["", "text/json", "application/json; charset=gbk", "application/json; x", "application/jsonx"] {
            assert!(!is(bad), "{bad}");
        }
        assert!(!is_json(None));
    }
}
