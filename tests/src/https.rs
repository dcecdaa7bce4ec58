//! HTTPS for tests, with a certificate of the client's: one request, one connection, the whole answer.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::certificate::Identity;
use crate::http::{Answer, parse};
use crate::time::SOON;

pub(crate) fn client_config(ca: &Path, identity: Option<&Identity>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).expect("a certificate")).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.expect("versions").with_root_certificates(roots);
    match identity {
        Some(identity) => {
            let chain = vec![CertificateDer::from_pem_file(&identity.certificate).expect("a certificate")];
            let key = PrivateKeyDer::from_pem_file(&identity.key).expect("a key");
            builder.with_client_auth_cert(chain, key).expect("a pair")
        }
        None => builder.with_no_client_auth(),
    }
}

/// Where requests go, and who sends them.
#[derive(Clone, Debug)]
pub struct Https {
    /// The address.
    pub address: SocketAddr,
    config: Arc<ClientConfig>,
}

impl Https {
    /// A client that trusts an authority, and shows a certificate if it has one.
    ///
    /// # Panics
    /// The files can't be read.
    #[must_use]
    pub fn new(address: SocketAddr, ca: &Path, identity: Option<&Identity>) -> Self {
        Self { address, config: Arc::new(client_config(ca, identity)) }
    }

    /// The same client, for another address.
    #[must_use]
    pub fn at(&self, address: SocketAddr) -> Self {
        Self { address, config: Arc::clone(&self.config) }
    }

    /// Any request with a body; none if the connection ends without an answer.
    ///
    /// # Panics
    /// Nobody listens, or what answers speaks no HTTP.
    #[must_use]
    #[track_caller]
    pub fn request(&self, method: &str, path: &str, content_type: &str, body: &str) -> Option<Answer> {
        let socket = TcpStream::connect_timeout(&self.address, SOON).expect("it listens");
        socket.set_read_timeout(Some(SOON)).expect("a timeout");
        let name = ServerName::try_from("localhost").expect("a name");
        let connection = ClientConnection::new(Arc::clone(&self.config), name).expect("a connection");
        let mut stream = StreamOwned::new(connection, socket);
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n"
        );
        // An answer may come before the body is read, and close the connection; it counts all the same.
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        (!answer.is_empty()).then(|| parse(&answer))
    }
}
