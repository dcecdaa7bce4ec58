//! The HTTP that the crate `object_store` is given: hyper with kept connections, TLS by rustls. It also reads what is wrong out of an answer, a status and the
//! bucket's word for it, and nothing else of it: what a bucket says about signatures has no place in a log.

use std::error::Error;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use axum::http::{StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector as Tcp};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse, HttpResponseBody,
    HttpService,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tower_service::Service;

use super::ShelfError;

/// To connect, and once more for the handshake.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// A connection that wasn't used for so long isn't used again.
const IDLE_MAX: Duration = Duration::from_secs(15);
/// Connections that are kept.
const IDLE_CONNECTIONS_MAX: usize = 16;
/// Bytes of an answer that says what is wrong.
const FAULT_BYTES_MAX: usize = 64 << 10;
/// Letters of the word for it.
const CODE_BYTES_MAX: usize = 64;

/// Why a bucket can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    /// The file of authorities.
    #[error("{}: {reason}", file.display())]
    Authorities {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// TLS, a fault of this program.
    #[error("TLS can't be set up: {0}")]
    Tls(rustls::Error),
    /// Credentials.
    #[error("{0}")]
    Credentials(String),
    /// What is said of the bucket.
    #[error("{0}")]
    Bucket(String),
}

/// Gives the one client that there is.
#[derive(Debug)]
pub(super) struct Connector(pub(super) HttpClient);

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(self.0.clone())
    }
}

/// A client that trusts the authorities of a file, or the system's (`SSL_CERT_FILE`, `SSL_CERT_DIR` name others).
pub(super) fn client(ca_file: Option<&Path>) -> Result<HttpClient, SetupError> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
        Some(file) => {
            let fault = |reason: String| SetupError::Authorities { file: file.to_owned(), reason };
            let pem = std::fs::read(file).map_err(|error| fault(format!("can't be read: {error}")))?;
            for found in CertificateDer::pem_slice_iter(&pem) {
                let found = found.map_err(|error| fault(format!("not a PEM file of certificates: {error}")))?;
                roots.add(found).map_err(|error| fault(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(fault("holds no certificate".to_owned()));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let tls = builder.map_err(SetupError::Tls)?.with_root_certificates(roots).with_no_client_auth();
    let mut tcp = Tcp::new();
    tcp.set_connect_timeout(Some(CONNECT_TIME_MAX));
    tcp.set_nodelay(true);
    tcp.enforce_http(false);
    let dial = Dial { tcp, tls: TlsConnector::from(Arc::new(tls)) };
    let mut builder = legacy::Client::builder(TokioExecutor::new());
    builder.pool_idle_timeout(IDLE_MAX).pool_max_idle_per_host(IDLE_CONNECTIONS_MAX).pool_timer(TokioTimer::new());
    Ok(HttpClient::new(Caller(builder.build(dial))))
}

/// Opens connections: with TLS where the URL says so. That it may say otherwise, the configuration has allowed.
#[derive(Clone)]
struct Dial {
    tcp: Tcp,
    tls: TlsConnector,
}

/// A connection.
trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

impl Connection for Box<dyn Wire> {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

type Failure = Box<dyn Error + Send + Sync>;

impl Service<Uri> for Dial {
    type Response = TokioIo<Box<dyn Wire>>;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Failure>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let name = uri.scheme_str().filter(|scheme| *scheme == "https").and_then(|_| uri.host()).map(|host| {
            ServerName::try_from(host.trim_start_matches('[').trim_end_matches(']').to_owned()).map_err(Failure::from)
        });
        let (connecting, tls) = (self.tcp.call(uri), self.tls.clone());
        Box::pin(async move {
            let stream = connecting.await?.into_inner();
            let wire: Box<dyn Wire> = match name {
                None => Box::new(stream),
                Some(name) => {
                    let handshake = tls.connect(name?, stream);
                    Box::new(tokio::time::timeout(CONNECT_TIME_MAX, handshake).await??)
                }
            };
            Ok(TokioIo::new(wire))
        })
    }
}

struct Caller(legacy::Client<Dial, HttpRequestBody>);

impl std::fmt::Debug for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Caller")
    }
}

#[async_trait]
impl HttpService for Caller {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let answer = self.0.request(request).await.map_err(|error| {
            let kind = if error.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Interrupted };
            HttpError::new(kind, Broken(root(&error)))
        })?;
        let (head, body) = answer.into_parts();
        if head.status.is_success() {
            let body = body.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, Broken(root(&error))));
            return Ok(HttpResponse::from_parts(head, HttpResponseBody::new(body)));
        }
        let said = Limited::new(body, FAULT_BYTES_MAX).collect().await;
        let code = said.ok().and_then(|said| code(&String::from_utf8_lossy(&said.to_bytes())));
        let answered = Answered { status: head.status, code: code.unwrap_or_default() };
        let kind = if answered.is_passing() { HttpErrorKind::Interrupted } else { HttpErrorKind::Unknown };
        Err(HttpError::new(kind, answered))
    }
}

/// What is at the bottom of an error.
fn root(error: &dyn Error) -> String {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    root.to_string()
}

/// The connection.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Broken(String);

/// The bucket has answered, and not done it.
#[derive(Debug, thiserror::Error)]
#[error("{} {code}", status.as_u16())]
struct Answered {
    status: StatusCode,
    code: String,
}

impl Answered {
    /// Whether it would do it at another time.
    fn is_passing(&self) -> bool {
        self.status.is_server_error()
            || matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
    }
}

/// The word for what is wrong: `<Code>` of S3's answers.
fn code(body: &str) -> Option<String> {
    let (code, _) = body.split_once("<Code>")?.1.split_once("</Code>")?;
    let is_word = code.len() <= CODE_BYTES_MAX && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_word.then(|| code.to_owned())
}

/// Why an operation has failed.
pub(super) fn cause(error: &object_store::Error) -> ShelfError {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(answered) = error.downcast_ref::<Answered>() {
            let said = answered.to_string().trim_end().to_owned();
            return match answered.status {
                _ if answered.is_passing() => ShelfError::Unreachable(said),
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ShelfError::Denied(said),
                StatusCode::NOT_FOUND => ShelfError::Missing(said),
                _ => ShelfError::Failed(said),
            };
        }
        if let Some(Broken(reason)) = error.downcast_ref() {
            return ShelfError::Unreachable(reason.clone());
        }
        if let Some(unusable) = error.downcast_ref::<super::credentials::Unusable>() {
            return ShelfError::Denied(unusable.to_string());
        }
        next = error.source();
    }
    // Of the crate's own making: what a bucket has answered comes through above.
    ShelfError::Failed("an answer that isn't understood".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_bucket_answers_is_told_apart() {
        let failed = |status: u16, code: &str| {
            let answered = Answered { status: StatusCode::from_u16(status).expect("a status"), code: code.to_owned() };
            let source = Box::new(HttpError::new(HttpErrorKind::Unknown, answered));
            cause(&object_store::Error::Generic { store: "S3", source })
        };
        assert_eq!(failed(403, "AccessDenied"), ShelfError::Denied("403 AccessDenied".to_owned()));
        assert_eq!(failed(404, ""), ShelfError::Missing("404".to_owned()));
        assert_eq!(failed(503, "SlowDown"), ShelfError::Unreachable("503 SlowDown".to_owned()));
        assert_eq!(failed(301, "PermanentRedirect"), ShelfError::Failed("301 PermanentRedirect".to_owned()));
        let source = Box::new(HttpError::new(HttpErrorKind::Connect, Broken("refused".to_owned())));
        let broken = cause(&object_store::Error::Generic { store: "S3", source });
        assert_eq!(broken, ShelfError::Unreachable("refused".to_owned()));
    }

    #[test]
    fn nothing_but_a_word_is_taken_from_an_answer() {
        let denied = "<Error><Code>SignatureDoesNotMatch</Code><StringToSign>AWS4…</StringToSign></Error>";
        assert_eq!(code(denied).as_deref(), Some("SignatureDoesNotMatch"));
        for other in ["", "<Code>", "<Code>a b</Code>", "<Code>\n</Code>", &format!("<Code>{}</Code>", "a".repeat(65))]
        {
            assert_eq!(code(other), None, "{other}");
        }
    }
}
