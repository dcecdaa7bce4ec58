//! The certification authorities of a product.

use std::fmt;
use std::time::Duration;

use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::BasicConstraints;

use super::Fingerprint;

/// Bytes of a CA certificate at the most.
const BYTES_MAX: usize = 8 << 10;

/// Why certificates aren't those of a product's authorities.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AuthorityError {
    /// None, or too many.
    #[error("a product has 1 to {} CA certificates", Authorities::MAX)]
    Count,
    /// More bytes than a CA's has.
    #[error("a CA certificate has at most {BYTES_MAX} bytes")]
    TooLong,
    /// Neither PEM nor DER of a certificate.
    #[error("a CA certificate is damaged")]
    Damaged,
    /// A certificate that may issue none: not version 3 with basic constraints that say so.
    #[error("a certificate isn't one of a CA")]
    NotCa,
    /// The same twice.
    #[error("a CA certificate is there twice")]
    Twice,
}

/// CA certificates of a product: who issues its devices' certificates.
#[derive(Clone, PartialEq, Eq)]
pub struct Authorities(Box<[CertificateDer<'static>]>);

impl Authorities {
    /// How many a product has at the most.
    pub const MAX: usize = 4;

    /// Checks a list of DERs.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn new(ders: &[&[u8]]) -> Result<Self, AuthorityError> {
        if !(1..=Self::MAX).contains(&ders.len()) {
            return Err(AuthorityError::Count);
        }
        for (at, der) in ders.iter().enumerate() {
            check(der)?;
            if ders.iter().take(at).any(|earlier| earlier == der) {
                return Err(AuthorityError::Twice);
            }
        }
        Ok(Self(ders.iter().map(|der| CertificateDer::from(der.to_vec())).collect()))
    }

    /// From a PEM file with one block `CERTIFICATE` for each.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn from_pem(text: &str) -> Result<Self, AuthorityError> {
        if text.len() > Self::MAX * BYTES_MAX * 2 {
            return Err(AuthorityError::TooLong);
        }
        let blocks = pem::parse_many(text).map_err(|_| AuthorityError::Damaged)?;
        if blocks.iter().any(|block| block.tag() != "CERTIFICATE") {
            return Err(AuthorityError::Damaged);
        }
        Self::new(&blocks.iter().map(pem::Pem::contents).collect::<Vec<_>>())
    }

    /// The certificates' DERs.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(AsRef::as_ref)
    }

    /// Whether the time of one of them is over at that moment: it would vouch for nobody. One whose time is yet to come may wait.
    #[must_use]
    pub fn has_expired(&self, unix_ms: u64) -> bool {
        self.iter().any(|ca| {
            Certificate::from_der(ca).map_or(true, |ca| {
                ca.tbs_certificate().validity().not_after.to_unix_duration().as_secs() < unix_ms / 1000
            })
        })
    }

    /// Whether one of them has issued a certificate, for clients, and all of that is good at that moment.
    #[must_use]
    pub fn vouch_for(&self, der: &[u8], unix_ms: u64) -> bool {
        self.issuer(der, unix_ms).is_some()
    }

    /// Which of them has issued a certificate, for clients, if all of that is good at that moment.
    #[must_use]
    pub fn issuer(&self, der: &[u8], unix_ms: u64) -> Option<Fingerprint> {
        let der = CertificateDer::from(der);
        let leaf = EndEntityCert::try_from(&der).ok()?;
        let time = UnixTime::since_unix_epoch(Duration::from_millis(unix_ms));
        let has_issued = |ca: &&CertificateDer<'_>| {
            let Ok(anchor) = anchor_from_trusted_cert(ca) else { return false };
            let usage = KeyUsage::client_auth();
            leaf.verify_for_usage(ALL_VERIFICATION_ALGS, &[anchor], &[], time, usage, None, None).is_ok()
        };
        self.0.iter().filter(|ca| is_good_at(ca, unix_ms)).find(has_issued).map(|ca| Fingerprint::of(ca))
    }

    /// For a record: each with its length (2 bytes).
    pub(crate) fn to_record(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for der in self.iter() {
            let length = u16::try_from(der.len()).expect("bounded when it was made");
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(der);
        }
        bytes
    }

    /// From a record.
    pub(crate) fn from_record(mut bytes: &[u8]) -> Option<Self> {
        let mut ders = Vec::new();
        while !bytes.is_empty() && ders.len() < Self::MAX {
            let (length, rest) = bytes.split_first_chunk::<2>()?;
            let (der, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
            ders.push(der);
            bytes = rest;
        }
        bytes.is_empty().then(|| Self::new(&ders).ok())?
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(Fingerprint::of)).finish()
    }
}

fn check(der: &[u8]) -> Result<(), AuthorityError> {
    if der.len() > BYTES_MAX {
        return Err(AuthorityError::TooLong);
    }
    let certificate = Certificate::from_der(der).map_err(|_| AuthorityError::Damaged)?;
    anchor_from_trusted_cert(&CertificateDer::from(der)).map_err(|_| AuthorityError::Damaged)?;
    match certificate.tbs_certificate().get_extension::<BasicConstraints>() {
        Ok(Some((_, constraints))) if constraints.ca => Ok(()),
        _ => Err(AuthorityError::NotCa),
    }
}

/// An anchor's time is nothing that `webpki` looks at.
fn is_good_at(ca: &CertificateDer<'_>, unix_ms: u64) -> bool {
    let Ok(certificate) = Certificate::from_der(ca) else { return false };
    let validity = certificate.tbs_certificate().validity();
    let seconds = unix_ms / 1000;
    (validity.not_before.to_unix_duration().as_secs()..=validity.not_after.to_unix_duration().as_secs())
        .contains(&seconds)
}
