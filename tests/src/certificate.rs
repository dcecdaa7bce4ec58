//! Certificates, made when a test needs them.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, IsCa, KeyIdMethod, KeyPair,
    RevokedCertParams, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use sha2::{Digest, Sha256};

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
        Self::made(folder, name, |_| {})
    }

    /// One whose time was over yesterday.
    ///
    /// # Panics
    /// The folder can't be written.
    #[must_use]
    pub fn expired(folder: &Path, name: &str) -> Self {
        Self::made(folder, name, |params| {
            params.not_before = rcgen::date_time_ymd(1970, 1, 1) + until_days_from_now(-10);
            params.not_after = rcgen::date_time_ymd(1970, 1, 1) + until_days_from_now(-1);
        })
    }

    fn made(folder: &Path, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = CertificateParams::default();
        change(&mut params);
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
        self.signed(name, |params| {
            params.not_before = rcgen::date_time_ymd(1970, 1, 1) + until_days_from_now(-1);
            params.not_after = params.not_before + day(days);
        })
    }

    /// The same as [`Self::sign`] with a serial number, to be revoked by.
    ///
    /// # Panics
    /// The folder can't be written.
    #[must_use]
    pub fn sign_numbered(&self, name: &str, serial: u64) -> Identity {
        self.signed(name, |params| params.serial_number = Some(SerialNumber::from(serial)))
    }

    /// Writes the authority's revocation list with these serial numbers, valid for a year from two days ago. Gives the file, always the same one.
    ///
    /// # Panics
    /// The folder can't be written.
    pub fn revoke(&self, serials: &[u64]) -> PathBuf {
        self.revoke_until(serials, 363)
    }

    /// The same, valid until so many days from now; before 0 the list has expired.
    ///
    /// # Panics
    /// The folder can't be written.
    pub fn revoke_until(&self, serials: &[u64], days: i64) -> PathBuf {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: rcgen::date_time_ymd(1970, 1, 1) + until_days_from_now(-2),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(1970, 1, 1) + until_days_from_now(-2),
            next_update: rcgen::date_time_ymd(1970, 1, 1) + until_days_from_now(days),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let file = self.folder.join("revoked.crl");
        let signed = list.signed_by(&self.issuer).expect("signed");
        std::fs::write(&file, signed.pem().expect("PEM")).expect("written");
        file
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

impl Identity {
    /// A certificate that its own key has signed, in `folder`.
    ///
    /// # Panics
    /// The folder can't be written.
    #[must_use]
    pub fn self_signed(folder: &Path, name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let certificate = params.self_signed(&key).expect("signed");
        let identity =
            Self { certificate: folder.join(format!("{name}.pem")), key: folder.join(format!("{name}.key")) };
        std::fs::write(&identity.certificate, certificate.pem()).expect("written");
        std::fs::write(&identity.key, key.serialize_pem()).expect("written");
        identity
    }

    /// SHA-256 of the certificate's DER, in hexadecimal digits.
    ///
    /// # Panics
    /// The file can't be read.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let der = CertificateDer::from_pem_file(&self.certificate).expect("a certificate");
        hex::encode(Sha256::digest(&der))
    }
}

fn day(days: u64) -> Duration {
    Duration::from_secs(days * 24 * 60 * 60)
}

/// From 1970 until so many days from now. (The type of the moments themselves is no name that is known here.)
fn until_days_from_now(days: i64) -> Duration {
    let today = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970");
    if days < 0 { today - day(days.unsigned_abs()) } else { today + day(days.unsigned_abs()) }
}
