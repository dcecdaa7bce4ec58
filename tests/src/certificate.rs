//! Certificates, made when a test needs them.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// A certificate authority, and files of what it has signed.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
    /// The authority's own certificate.
    pub certificate: PathBuf,
}

/// A certificate and its key, as PEM files.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "said by the names")]
pub struct Identity {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    /// A new one, with its files in `folder`.
    ///
    /// # Panics
    /// The folder can't be written.
    #[must_use]
    pub fn new(folder: &Path, name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate");
        let certificate = folder.join(format!("{name}-ca.pem"));
        std::fs::write(&certificate, issuer.pem()).expect("written");
        Self { issuer, folder: folder.to_owned(), certificate }
    }

    /// Signs a certificate for `localhost` and 127.0.0.1.
    ///
    /// # Panics
    /// The folder can't be written.
    #[must_use]
    pub fn sign(&self, name: &str) -> Identity {
        self.signed(name, |_| {})
    }

    /// The same, valid from yesterday on for so many days.
    ///
    /// # Panics
    /// The folder can't be written.
    #[must_use]
    pub fn sign_for_days(&self, name: &str, days: u64) -> Identity {
        let day = |days| Duration::from_secs(days * 24 * 60 * 60);
        let today = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970");
        self.signed(name, |params| {
            params.not_before = rcgen::date_time_ymd(1970, 1, 1) + (today - day(1));
            params.not_after = params.not_before + day(days);
        })
    }

    fn signed(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).expect("valid names");
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        change(&mut params);
        let signed = params.signed_by(&key, &self.issuer).expect("signed");
        let identity = Identity {
            certificate: self.folder.join(format!("{name}.pem")),
            key: self.folder.join(format!("{name}.key")),
        };
        std::fs::write(&identity.certificate, signed.pem()).expect("written");
        std::fs::write(&identity.key, key.serialize_pem()).expect("written");
        identity
    }
}
