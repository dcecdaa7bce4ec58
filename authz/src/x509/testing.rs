//! Certificates made for a test.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
    date_time_ymd,
};

use super::Authorities;

/// A CA with its key.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: Vec<u8>,
}

/// From 2020 to 2040, for clients, with no name.
pub(crate) fn client() -> CertificateParams {
    let mut params = CertificateParams::default();
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2040, 1, 1));
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

pub(crate) fn named(common_name: &str) -> CertificateParams {
    let mut params = client();
    params.distinguished_name.push(DnType::CommonName, DnValue::Utf8String(common_name.to_owned()));
    params
}

pub(crate) fn with_alternatives(alternatives: Vec<SanType>) -> CertificateParams {
    let mut params = client();
    params.subject_alt_names = alternatives;
    params
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        Self::made(name, None)
    }

    /// An intermediate one.
    pub(crate) fn below(&self, name: &str) -> Self {
        Self::made(name, Some(self))
    }

    fn made(name: &str, above: Option<&Self>) -> Self {
        let key = KeyPair::generate().expect("makes a key");
        let mut params = named(name);
        params.extended_key_usages.clear();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let made = match above {
            Some(above) => params.signed_by(&key, &above.issuer),
            None => params.self_signed(&key),
        };
        Self { der: made.expect("signs").der().to_vec(), issuer: Issuer::new(params, key) }
    }

    pub(crate) fn der(&self) -> &[u8] {
        &self.der
    }

    pub(crate) fn authorities(&self) -> Authorities {
        Authorities::new(&[&self.der]).expect("one")
    }

    /// The DER of a certificate with a key of its own.
    pub(crate) fn issue(&self, params: &CertificateParams) -> Vec<u8> {
        let key = KeyPair::generate().expect("makes a key");
        params.signed_by(&key, &self.issuer).expect("signs").der().to_vec()
    }
}
