//! TLS: what a listener is configured with, and the rustls configuration made of it.

use std::path::PathBuf;

/// TLS of one listener.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsSettings {
    /// Certificates with their keys. A client that names a server gets the certificate that is valid for the name; one that names none,
    /// or an unknown one, gets the first. Never empty.
    pub certificates: Vec<CertificateSettings>,
    /// Whether clients show a certificate.
    pub client_auth: ClientAuth,
    /// PEM files of the authorities that client certificates are checked against.
    pub client_ca_files: Vec<PathBuf>,
    /// PEM or DER files of certificate revocation lists. If there are any, the issuer of every client certificate must have one.
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

/// A version of TLS.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum TlsVersion {
    /// 1.2, with ECDHE and AEAD suites alone.
    #[default]
    V1_2,
    /// 1.3.
    V1_3,
}
