//! Documents of others, by HTTP: one GET, no redirects, bounded in size and time.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::uri::{PathAndQuery, Scheme};
use axum::http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Why there is no document. Told to the log, and to nobody who gave the URL.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It isn't one that is fetched from.
    #[error("{0}")]
    Url(&'static str),
    /// No connection, or it broke.
    #[error("{0}")]
    Failed(String),
    /// The other end has none.
    #[error("status {0}")]
    Status(u16),
    /// It takes too long.
    #[error("it takes too long")]
    Time,
}

fn failed(error: impl std::fmt::Display) -> FetchError {
    FetchError::Failed(error.to_string())
}

/// Where documents are fetched from: `https`, or `http` on loopback.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    host: String,
    port: u16,
    authority: HeaderValue,
    path: PathAndQuery,
    tls: bool,
}

impl Target {
    /// Reads a URL.
    ///
    /// # Errors
    /// [`FetchError::Url`].
    pub fn parse(url: &str) -> Result<Self, FetchError> {
        let url: Uri = url.parse().map_err(|_| FetchError::Url("must be a URL"))?;
        let authority =
            url.authority().ok_or(FetchError::Url("must be a whole URL, such as https://id.example/keys"))?;
        if authority.as_str().contains('@') {
            return Err(FetchError::Url("must have no user in it"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let is_loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let tls = match url.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP && is_loopback => false,
            _ => return Err(FetchError::Url("must begin with https://, or with http:// if it is on loopback")),
        };
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let authority = HeaderValue::from_str(authority.as_str()).map_err(|_| FetchError::Url("must be a URL"))?;
        let path = url.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        Ok(Self { host, port, authority, path, tls })
    }
}

/// Fetches documents. Cheap to clone.
#[derive(Clone)]
pub struct Fetcher {
    tls: TlsConnector,
    bytes_max: usize,
    time_max: Duration,
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetcher").field("bytes_max", &self.bytes_max).finish_non_exhaustive()
    }
}

impl Fetcher {
    /// For documents of so many bytes, each within a time. Servers are trusted by the system's authorities (`SSL_CERT_FILE`,
    /// `SSL_CERT_DIR` name others).
    ///
    /// # Errors
    /// TLS can't be set up: a fault of this program.
    pub fn new(bytes_max: usize, time_max: Duration) -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let config = builder.with_root_certificates(roots).with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), bytes_max, time_max })
    }

    /// Fetches a document.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn get(&self, target: &Target) -> Result<Vec<u8>, FetchError> {
        tokio::time::timeout(self.time_max, self.get_unhurried(target)).await.map_err(|_| FetchError::Time)?
    }

    async fn get_unhurried(&self, target: &Target) -> Result<Vec<u8>, FetchError> {
        let stream = TcpStream::connect((target.host.as_str(), target.port)).await.map_err(failed)?;
        if !target.tls {
            return self.ask(stream, target).await;
        }
        let name = ServerName::try_from(target.host.clone()).map_err(failed)?;
        self.ask(self.tls.connect(name, stream).await.map_err(failed)?, target).await
    }

    async fn ask(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        target: &Target,
    ) -> Result<Vec<u8>, FetchError> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        let request = Request::get(Uri::from(target.path.clone()))
            .header(header::HOST, &target.authority)
            .header(header::ACCEPT, "application/json")
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(failed)?;
        let answer = async {
            let answer = sender.send_request(request).await.map_err(failed)?;
            if answer.status() != StatusCode::OK {
                return Err(FetchError::Status(answer.status().as_u16()));
            }
            let body = Limited::new(answer.into_body(), self.bytes_max).collect().await.map_err(failed)?;
            Ok(body.to_bytes().to_vec())
        };
        // The connection is driven as long as there is something to wait for, and ends with it.
        tokio::pin!(connection, answer);
        tokio::select! {
            answer = &mut answer => answer,
            ended = &mut connection => {
                ended.map_err(failed)?;
                answer.await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// What is fetched from a server that answers with these bytes, closing at once or never.
    fn fetched(answer: &'static [u8], closes: bool) -> Result<Vec<u8>, FetchError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let target =
                Target::parse(&format!("http://{}/keys?x=1", listener.local_addr().expect("bound"))).expect("a URL");
            let serve = async {
                let (mut stream, _) = listener.accept().await.expect("accepts");
                let mut asked = vec![0; 1024];
                let length = stream.read(&mut asked).await.expect("reads");
                assert!(asked[..length].starts_with(b"GET /keys?x=1 HTTP/1.1\r\n"), "{asked:?}");
                stream.write_all(answer).await.expect("writes");
                (!closes).then_some(stream)
            };
            let fetcher = Fetcher::new(16, if closes { Duration::from_secs(20) } else { Duration::from_millis(50) });
            let fetcher = fetcher.expect("TLS");
            tokio::join!(serve, fetcher.get(&target)).1
        })
    }

    #[test]
    fn a_document_is_fetched_within_its_bounds() {
        let good = fetched(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nkeys", true);
        assert_eq!(good.expect("a document"), b"keys");
        assert_eq!(fetched(b"HTTP/1.1 200 OK\r\n\r\nuntil the end", true).expect("a document"), b"until the end");
        let long = fetched(b"HTTP/1.1 200 OK\r\ncontent-length: 17\r\n\r\n0123456789abcdefg", true);
        assert!(matches!(long, Err(FetchError::Failed(_))), "{long:?}");
        let moved = fetched(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1/\r\ncontent-length: 0\r\n\r\n", true);
        assert!(matches!(moved, Err(FetchError::Status(302))), "{moved:?}");
        assert!(fetched(b"SSH-2.0-OpenSSH\r\n", true).is_err());
        let short = fetched(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nkeys", true);
        assert!(matches!(short, Err(FetchError::Failed(_))), "{short:?}");
        assert!(matches!(fetched(b"HTTP/1.1 200 OK\r\n", false), Err(FetchError::Time)));
    }

    #[test]
    fn plain_http_is_for_loopback_alone() {
        for url in ["http://127.0.0.1:9000/k", "http://localhost", "http://[::1]:1/", "https://id.example/k?x=1"] {
            assert!(Target::parse(url).is_ok(), "{url}");
        }
        for url in
            ["http://id.example/", "ftp://127.0.0.1/", "/k", "https://a:b@id.example/", "", "no url", "file:///etc"]
        {
            assert!(Target::parse(url).is_err(), "{url}");
        }
    }
}
