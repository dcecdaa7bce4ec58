//! An HTTP/1.1 client for one address: POST of JSON, one answer, connections kept for the next call.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::uri::{PathAndQuery, Scheme};
use axum::http::{HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::CalloutSettings;

/// Bytes of an answer; one that is longer is none.
pub(super) const ANSWER_BYTES_MAX: usize = 16 << 10;
/// A connection that wasn't used for so long isn't used again: the other end, or something between, may be about to close it.
const IDLE_MAX: Duration = Duration::from_secs(15);

/// Why a call-out can't be started.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A file can't be read, or isn't what it should be.
    #[error("{}: {reason}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Where it should go to.
    #[error("{0}")]
    Url(&'static str),
    /// `https` and no authorities.
    #[error("https needs the authorities of the other end's certificate")]
    NoAuthority,
    /// A fault of this program, or no random numbers.
    #[error("TLS can't be set up: {0}")]
    Tls(rustls::Error),
    /// The thread.
    #[error("a thread can't be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum CallError {
    /// No connection, or it broke.
    Failed(String),
    /// The answer isn't one.
    Garbage(String),
}

type Sender = SendRequest<Full<Bytes>>;

/// The client.
pub(super) struct Client {
    host: String,
    port: u16,
    /// For the header `host`.
    authority: HeaderValue,
    path: PathAndQuery,
    header: Option<(HeaderName, HeaderValue)>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    idle: Mutex<Vec<(Sender, Instant)>>,
    idle_max: usize,
}

/// What a URL has to say.
struct Target {
    host: String,
    port: u16,
    authority: HeaderValue,
    tls: bool,
}

impl Client {
    pub(super) fn new(settings: &CalloutSettings) -> Result<Self, SetupError> {
        let Target { host, port, authority, tls } = target(&settings.url)?;
        let tls = match (tls, &settings.ca_file) {
            (false, _) => None,
            (true, None) => return Err(SetupError::NoAuthority),
            (true, Some(file)) => {
                let name = ServerName::try_from(host.clone()).map_err(|_| SetupError::Url("no name of a server"))?;
                Some((connector(file)?, name))
            }
        };
        let header = settings.header.as_ref().map(|(name, file)| value(file).map(|value| (name.clone(), value)));
        Ok(Self {
            host,
            port,
            authority,
            path: settings.url.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")),
            header: header.transpose()?,
            tls,
            idle: Mutex::default(),
            idle_max: settings.bounds.calls_max,
        })
    }

    /// Sends a body and gives the answer's. A question that a kept connection broke on is asked once more.
    pub(super) async fn post(&self, body: Vec<u8>) -> Result<Vec<u8>, CallError> {
        let body = Bytes::from(body);
        while let Some(mut sender) = self.take_idle() {
            // It is closed, or about to be: the other end has had enough of it.
            if sender.ready().await.is_err() {
                continue;
            }
            match self.send(sender, body.clone()).await {
                Err(SendError::Unanswered(_)) => break,
                Err(SendError::Said(error)) => return Err(error),
                Ok(answer) => return Ok(answer),
            }
        }
        match self.send(self.connect().await?, body).await {
            Err(SendError::Unanswered(error)) => Err(failed(error)),
            Err(SendError::Said(error)) => Err(error),
            Ok(answer) => Ok(answer),
        }
    }

    fn take_idle(&self) -> Option<Sender> {
        let mut idle = self.idle.lock();
        idle.retain(|(sender, since)| !sender.is_closed() && since.elapsed() < IDLE_MAX);
        idle.pop().map(|(sender, _)| sender)
    }

    async fn send(&self, mut sender: Sender, body: Bytes) -> Result<Vec<u8>, SendError> {
        let mut request = Request::post(Uri::from(self.path.clone()))
            .header(header::HOST, &self.authority)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json");
        if let Some((name, value)) = &self.header {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body)).expect("every part was checked");
        let answer = sender.send_request(request).await.map_err(SendError::Unanswered)?;
        if answer.status() != StatusCode::OK {
            return Err(SendError::Said(CallError::Garbage(format!("status {}", answer.status().as_u16()))));
        }
        let collected = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(|error| {
            SendError::Said(match error.is::<LengthLimitError>() {
                true => CallError::Garbage(format!("more than {ANSWER_BYTES_MAX} bytes")),
                false => CallError::Failed(error.to_string()),
            })
        })?;
        let mut idle = self.idle.lock();
        if idle.len() < self.idle_max {
            idle.push((sender, Instant::now()));
        }
        Ok(collected.to_bytes().to_vec())
    }

    async fn connect(&self) -> Result<Sender, CallError> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        match &self.tls {
            None => open(stream).await,
            Some((connector, name)) => open(connector.connect(name.clone(), stream).await.map_err(failed)?).await,
        }
    }
}

/// Why a request has no answer.
enum SendError {
    /// The connection broke before one came.
    Unanswered(hyper::Error),
    /// What came is none.
    Said(CallError),
}

fn failed(error: impl std::fmt::Display) -> CallError {
    CallError::Failed(error.to_string())
}

/// A connection that is driven by a task of its own, which ends with it.
async fn open(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<Sender, CallError> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    tokio::spawn(async move {
        // Whoever waits for an answer hears of it, too.
        let _ = connection.await;
    });
    Ok(sender)
}

fn target(url: &Uri) -> Result<Target, SetupError> {
    let authority =
        url.authority().ok_or(SetupError::Url("must be a whole URL, such as https://auth.example/judge"))?;
    if authority.as_str().contains('@') {
        return Err(SetupError::Url("must have no user in it; a header is for that"));
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let is_loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let tls = match url.scheme() {
        Some(scheme) if *scheme == Scheme::HTTPS => true,
        Some(scheme) if *scheme == Scheme::HTTP && is_loopback => false,
        _ => return Err(SetupError::Url("must begin with https://, or with http:// if it is on loopback")),
    };
    let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let authority = HeaderValue::from_str(authority.as_str()).map_err(|_| SetupError::Url("is no URL"))?;
    Ok(Target { host, port, authority, tls })
}

fn connector(file: &Path) -> Result<TlsConnector, SetupError> {
    let fault = |reason: String| SetupError::File { file: file.to_owned(), reason };
    let mut roots = RootCertStore::empty();
    let found = CertificateDer::pem_file_iter(file).map_err(|error| fault(error.to_string()))?;
    for certificate in found {
        let certificate = certificate.map_err(|error| fault(error.to_string()))?;
        roots.add(certificate).map_err(|error| fault(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(fault("has no certificate".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = builder.map_err(SetupError::Tls)?.with_root_certificates(roots).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The value of a header: a file's content without the white space around it.
fn value(file: &Path) -> Result<HeaderValue, SetupError> {
    let fault = |reason: String| SetupError::File { file: file.to_owned(), reason };
    let text = std::fs::read_to_string(file).map_err(|error| fault(error.to_string()))?;
    let mut value = HeaderValue::from_str(text.trim()).map_err(|_| fault("isn't the value of a header".to_owned()))?;
    if value.is_empty() {
        return Err(fault("is empty".to_owned()));
    }
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_loopback_alone() {
        for (url, host, port, tls) in [
            ("http://127.0.0.1:9000/judge", "127.0.0.1", 9000, false),
            ("http://localhost", "localhost", 80, false),
            ("http://[::1]:1/", "::1", 1, false),
            ("https://auth.example/judge?x=1", "auth.example", 443, true),
            ("https://192.0.2.1:8443/", "192.0.2.1", 8443, true),
        ] {
            let target = target(&url.parse().expect("a URL")).expect(url);
            assert_eq!((target.host.as_str(), target.port, target.tls), (host, port, tls));
        }
        for url in
            ["http://auth.example/", "http://192.0.2.1/", "ftp://127.0.0.1/", "/judge", "https://a:b@auth.example/"]
        {
            assert!(target(&url.parse().expect("a URL")).is_err(), "{url}");
        }
    }
}
