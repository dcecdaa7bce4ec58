//! TLS: what a listener is configured with, and the rustls configuration made of it, which a reload replaces.
//!
//! A handshake uses the configuration that was current when it began; live connections keep theirs. But what client certificates are
//! judged by holds for all of them at once: each such change makes an *edition*, and a certificate that was taken under an
//! earlier one is judged again, at the end of a handshake that saw the change and by the shards under live connections
//! (`shard/certificates.rs`).
//!
//! **Invariant:** a resumed session is held to what a full handshake would be. A ticket carries the client's certificate and rustls
//! doesn't look at it again, so we do, on every resumption, against the trust anchors and revocation lists of the configuration that the
//! handshake uses (`Live::judge`). Tickets of one listener mean nothing to another, since each has its own ticket keys; and when
//! a reload changes what client certificates are judged by, the keys change too.

mod any;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use any::AnyCertificate;
use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, UnbufferedServerConnection,
    WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, HandshakeKind, RootCertStore, ServerConfig};

/// TLS of one listener.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsSettings {
    /// Certificates with their keys. A client that names a server gets the certificate that is valid for the name; one that names none,
    /// or an unknown one, gets the first. Never empty.
    pub certificates: Vec<CertificateSettings>,
    /// Whether clients show a certificate.
    pub client_auth: ClientAuth,
    /// What a client's certificate must be for the handshake to take it.
    pub client_trust: ClientTrust,
    /// PEM files of the authorities that client certificates are checked against. None with [`ClientTrust::Devices`].
    pub client_ca_files: Vec<PathBuf>,
    /// PEM or DER files of certificate revocation lists. If there are any, the issuer of every client certificate must have one;
    /// authorities between it and the anchor needn't. None with [`ClientTrust::Devices`].
    pub crl_files: Vec<PathBuf>,
    /// The oldest version spoken.
    pub min_version: TlsVersion,
}

/// A certificate and its key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertificateSettings {
    /// PEM file: the certificate, then its chain.
    pub chain_file: PathBuf,
    /// PEM file with one private key, PKCS #8, PKCS #1 or SEC 1.
    pub key_file: PathBuf,
}

/// Whether clients show a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum ClientAuth {
    /// They aren't asked.
    #[default]
    None,
    /// They may; one that they show must be valid.
    Optional,
    /// They must.
    Required,
}

/// What a client's certificate must be for the handshake to take it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum ClientTrust {
    /// Issued under the authorities of the listener's files.
    #[default]
    Files,
    /// Any whose private key the client proves: whose it is, the log-in finds out, by fingerprint or a product's authorities.
    Devices,
}

/// A version of TLS.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum TlsVersion {
    /// 1.2, with ECDHE and AEAD suites alone.
    #[default]
    V1_2,
    /// 1.3.
    V1_3,
}

/// What is wrong with a [`TlsSettings`], and in which file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read, or isn't what it should be.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A certificate and a key that don't belong together.
    #[error("the key in {} is not that of the certificate in {}", key_file.display(), chain_file.display())]
    KeyMismatch {
        /// File of the certificate.
        chain_file: PathBuf,
        /// File of the key.
        key_file: PathBuf,
    },
    /// No certificate is configured.
    #[error("TLS needs at least one certificate")]
    NoCertificate,
    /// Client certificates are asked for, and nothing says which are good.
    #[error("client certificates need at least one file of authorities")]
    NoAuthority,
    /// Files of authorities or revocation lists that nothing would be held to.
    #[error("with certificates of devices, TLS checks none against files of authorities or revocation lists")]
    UnusedTrust,
    /// The verifier of client certificates can't be made.
    #[error("client certificates can't be verified: {0}")]
    Verifier(String),
    /// No random numbers, or a fault of this program.
    #[error("TLS can't be set up: {0}")]
    Setup(rustls::Error),
}

/// TLS of a running listener.
#[derive(Debug)]
pub struct Acceptor {
    live: ArcSwap<Live>,
    websocket: bool,
}

/// What handshakes use until the next reload.
pub struct Live {
    config: Arc<ServerConfig>,
    client_auth: ClientAuth,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    trust: Trust,
    /// Counts the changes of `trust`.
    edition: u64,
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("client_auth", &self.client_auth).finish_non_exhaustive()
    }
}

/// What client certificates are judged by.
#[derive(PartialEq, Eq, Default)]
struct Trust {
    client_auth: ClientAuth,
    client_trust: ClientTrust,
    anchors: Vec<CertificateDer<'static>>,
    revoked: Vec<CertificateRevocationListDer<'static>>,
}

impl Acceptor {
    /// Reads all files.
    ///
    /// # Errors
    /// Every fault that was found.
    pub fn load(settings: &TlsSettings, websocket: bool) -> Result<Self, Vec<TlsError>> {
        let live = ArcSwap::from_pointee(load(settings, websocket, None)?);
        Ok(Self { live, websocket })
    }

    /// Reads all files again, and changes nothing yet.
    ///
    /// # Errors
    /// Every fault that was found.
    pub fn prepare(&self, settings: &TlsSettings) -> Result<Live, Vec<TlsError>> {
        load(settings, self.websocket, Some(&self.live.load()))
    }

    /// Whether `live` judges client certificates by something else than what is in force.
    pub(crate) fn judges_anew(&self, live: &Live) -> bool {
        self.live.load().edition != live.edition
    }

    /// New handshakes use `live` from now on.
    pub fn install(&self, live: Live) {
        self.live.store(Arc::new(live));
    }

    /// What a handshake that begins now uses.
    pub(crate) fn live(&self) -> Arc<Live> {
        self.live.load_full()
    }
}

impl Live {
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// Which edition of what client certificates are judged by.
    pub(crate) fn edition(&self) -> u64 {
        self.edition
    }

    /// Judges what a client has shown, leaf first and never empty, as a full handshake would now. Where none is taken any more, none is good.
    pub(crate) fn judge_shown(&self, shown: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        let (Some(verifier), Some((leaf, chain))) = (&self.verifier, shown.split_first()) else {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        };
        verifier.verify_client_cert(leaf, chain, UnixTime::now()).map(|_| ())
    }

    /// Judges a finished handshake: a resumed one hasn't been held to client authentication by rustls.
    pub(crate) fn judge(&self, conn: &UnbufferedServerConnection) -> Result<(), rustls::Error> {
        if conn.handshake_kind() != Some(HandshakeKind::Resumed) {
            return Ok(());
        }
        match (&self.verifier, conn.peer_certificates()) {
            (Some(_), Some(shown)) => self.judge_shown(shown),
            (Some(_), None) if self.client_auth == ClientAuth::Required => Err(rustls::Error::NoCertificatesPresented),
            (Some(_) | None, _) => Ok(()),
        }
    }
}

fn load(settings: &TlsSettings, websocket: bool, before: Option<&Live>) -> Result<Live, Vec<TlsError>> {
    let provider = Arc::new(ring::default_provider());
    let mut faults = Vec::new();
    let resolver = load_certificates(&settings.certificates, &provider, &mut faults);
    let trust = load_trust(settings, &mut faults);
    let verifier = verifier(&trust, &provider).unwrap_or_else(|error| {
        faults.extend(error.filter(|_| faults.is_empty()));
        None
    });
    let (Some(resolver), true) = (resolver, faults.is_empty()) else { return Err(faults) };
    let (edition, ticketer) = match before {
        Some(before) if before.trust == trust => (before.edition, Some(Arc::clone(&before.config.ticketer))),
        Some(before) => (before.edition + 1, None),
        None => (0, None),
    };
    let ticketer = ticketer.map_or_else(ring::Ticketer::new, Ok).map_err(|error| vec![TlsError::Setup(error)])?;
    let config = configure(settings, websocket, provider, resolver, verifier.clone(), ticketer)
        .map_err(|error| vec![TlsError::Setup(error)])?;
    Ok(Live { config: Arc::new(config), client_auth: settings.client_auth, verifier, trust, edition })
}

fn configure(
    settings: &TlsSettings,
    websocket: bool,
    provider: Arc<CryptoProvider>,
    resolver: Resolver,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    ticketer: Arc<dyn ProducesTickets>,
) -> Result<ServerConfig, rustls::Error> {
    let versions: &[_] = match settings.min_version {
        TlsVersion::V1_2 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        TlsVersion::V1_3 => &[&rustls::version::TLS13],
    };
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions)?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(resolver));
    // A client that offers protocols, none of them ours, is refused; one that offers none is welcome. The second name is what SDKs
    // of a large cloud offer for MQTT.
    let protocols: &[&[u8]] = if websocket { &[b"http/1.1"] } else { &[b"mqtt", b"x-amzn-mqtt-ca"] };
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    // Resumption is by ticket alone: a table of sessions would cost memory for each client that ever came.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = ticketer;
    // A client uses a ticket once, and a device has one connection at a time.
    config.send_tls13_tickets = 1;
    Ok(config)
}

fn load_trust(settings: &TlsSettings, faults: &mut Vec<TlsError>) -> Trust {
    if settings.client_auth == ClientAuth::None {
        return Trust::default();
    }
    let mut trust =
        Trust { client_auth: settings.client_auth, client_trust: settings.client_trust, ..Trust::default() };
    if settings.client_trust == ClientTrust::Devices {
        if !settings.client_ca_files.is_empty() || !settings.crl_files.is_empty() {
            faults.push(TlsError::UnusedTrust);
        }
        return trust;
    }
    if settings.client_ca_files.is_empty() {
        faults.push(TlsError::NoAuthority);
    }
    for path in &settings.client_ca_files {
        match certificates(path) {
            Ok(anchors) => trust.anchors.extend(anchors),
            Err(fault) => faults.push(fault),
        }
    }
    for path in &settings.crl_files {
        match revocation_lists(path) {
            Ok(lists) => trust.revoked.extend(lists),
            Err(fault) => faults.push(fault),
        }
    }
    trust
}

/// The error is `None` where `trust` is incomplete for a reason that has been said already.
fn verifier(
    trust: &Trust,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, Option<TlsError>> {
    if trust.client_auth == ClientAuth::None {
        return Ok(None);
    }
    if trust.client_trust == ClientTrust::Devices {
        let is_mandatory = trust.client_auth == ClientAuth::Required;
        return Ok(Some(Arc::new(AnyCertificate::new(is_mandatory, provider))));
    }
    if trust.anchors.is_empty() {
        return Err(None);
    }
    let fault = |error: &dyn fmt::Display| Some(TlsError::Verifier(error.to_string()));
    let mut roots = RootCertStore::empty();
    for anchor in &trust.anchors {
        roots.add(anchor.clone()).map_err(|error| fault(&error))?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    if !trust.revoked.is_empty() {
        builder = builder.with_crls(trust.revoked.iter().cloned()).only_check_end_entity_revocation();
    }
    if trust.client_auth == ClientAuth::Optional {
        builder = builder.allow_unauthenticated();
    }
    builder.build().map(Some).map_err(|error| fault(&error))
}

fn file_fault(path: &Path, reason: impl fmt::Display) -> TlsError {
    TlsError::File { path: path.to_owned(), reason: reason.to_string() }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|error| file_fault(path, format_args!("can't be read: {error}")))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_slice_iter(&read(path)?).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| file_fault(path, format_args!("not a PEM file of certificates: {error}")))?;
    if found.is_empty() { Err(file_fault(path, "holds no certificate")) } else { Ok(found) }
}

fn revocation_lists(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let bytes = read(path)?;
    let lists = if bytes.trim_ascii_start().starts_with(b"-----BEGIN") {
        let found = CertificateRevocationListDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
        found.map_err(|error| file_fault(path, format_args!("not a PEM file of revocation lists: {error}")))?
    } else {
        vec![CertificateRevocationListDer::from(bytes)]
    };
    if lists.is_empty() {
        return Err(file_fault(path, "holds no revocation list"));
    }
    for list in &lists {
        if let Err(error) = webpki::BorrowedCertRevocationList::from_der(list) {
            return Err(file_fault(path, format_args!("not a revocation list: {error}")));
        }
    }
    Ok(lists)
}

/// Chooses a certificate for a client.
#[derive(Debug)]
struct Resolver {
    first: Arc<CertifiedKey>,
    /// Lower-case DNS names, `*.` in front of a wildcard's; several where certificates with different kinds of key share a name.
    names: HashMap<Box<str>, Vec<Arc<CertifiedKey>>>,
}

impl Resolver {
    fn named(&self, name: &str) -> Option<&[Arc<CertifiedKey>]> {
        let exact = self.names.get(name);
        let any = || self.names.get(format!("*.{}", name.split_once('.')?.1).as_str());
        exact.or_else(any).map(Vec::as_slice)
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|name| self.named(&name.to_ascii_lowercase())).unwrap_or_default();
        let usable = named.iter().find(|key| key.key.choose_scheme(hello.signature_schemes()).is_some());
        Some(Arc::clone(usable.or(named.first()).unwrap_or(&self.first)))
    }
}

fn load_certificates(
    settings: &[CertificateSettings],
    provider: &CryptoProvider,
    faults: &mut Vec<TlsError>,
) -> Option<Resolver> {
    let mut keys = Vec::new();
    for certificate in settings {
        match load_certificate(certificate, provider) {
            Ok(key) => keys.push(Arc::new(key)),
            Err(fault) => faults.push(fault),
        }
    }
    if settings.is_empty() {
        faults.push(TlsError::NoCertificate);
    }
    let mut names: HashMap<Box<str>, Vec<_>> = HashMap::new();
    for key in &keys {
        let leaf = key.cert.first().and_then(|der| webpki::EndEntityCert::try_from(der).ok());
        for name in leaf.iter().flat_map(|leaf| leaf.valid_dns_names()) {
            names.entry(name.to_ascii_lowercase().into()).or_default().push(Arc::clone(key));
        }
    }
    Some(Resolver { first: Arc::clone(keys.first()?), names })
}

fn load_certificate(settings: &CertificateSettings, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let CertificateSettings { chain_file, key_file } = settings;
    let chain = certificates(chain_file)?;
    let key = PrivateKeyDer::from_pem_slice(&read(key_file)?)
        .map_err(|error| file_fault(key_file, format_args!("holds no private key in PEM: {error}")))?;
    if let Some(leaf) = chain.first()
        && let Err(error) = webpki::EndEntityCert::try_from(leaf)
    {
        return Err(file_fault(chain_file, format_args!("its first certificate can't be used: {error}")));
    }
    let signing = provider
        .key_provider
        .load_private_key(key)
        .map_err(|error| file_fault(key_file, format_args!("its private key can't be used: {error}")))?;
    let certified = CertifiedKey::new(chain, signing);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(certified),
        Err(_) => Err(TlsError::KeyMismatch { chain_file: chain_file.clone(), key_file: key_file.clone() }),
    }
}

#[cfg(test)]
pub(crate) mod tests;
