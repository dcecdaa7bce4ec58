//! What a client's certificate says.

use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::asn1::{Ia5StringRef, ObjectIdentifier, PrintableStringRef, TeletexStringRef, Utf8StringRef};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::Fingerprint;
use crate::names::{DeviceName, ProductKey};

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// Bytes of a certificate at the most.
const BYTES_MAX: usize = 16 << 10;
/// Names of one certificate that are looked at.
const NAMES_MAX: usize = 32;
/// `{product}/{device}`.
const NAME_BYTES_MAX: usize = 64 + 1 + 64;

/// A client's certificate, as far as it matters here. Its signature isn't checked by reading it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leaf {
    /// SHA-256 of its DER.
    pub fingerprint: Fingerprint,
    /// It is good from then on, milliseconds since 1970 UTC.
    pub not_before_ms: u64,
    /// And until then.
    pub not_after_ms: u64,
    names: Vec<Box<str>>,
}

impl Leaf {
    /// Reads a certificate; none if it isn't one, or isn't DER.
    #[must_use]
    pub fn read(der: &[u8]) -> Option<Self> {
        if der.len() > BYTES_MAX {
            return None;
        }
        let certificate = Certificate::from_der(der).ok()?;
        let inner = certificate.tbs_certificate();
        let ms = |time: x509_cert::time::Time| u64::try_from(time.to_unix_duration().as_millis()).unwrap_or(u64::MAX);
        let attributes = inner.subject().iter();
        let common = attributes.filter(|attribute| attribute.oid == COMMON_NAME).filter_map(|attribute| {
            let value = &attribute.value;
            let utf8 = value.decode_as::<Utf8StringRef<'_>>().map(|text| text.as_str().to_owned());
            let printable = || value.decode_as::<PrintableStringRef<'_>>().map(|text| text.as_str().to_owned());
            let ia5 = || value.decode_as::<Ia5StringRef<'_>>().map(|text| text.as_str().to_owned());
            let teletex = || value.decode_as::<TeletexStringRef<'_>>().map(|text| text.as_str().to_owned());
            utf8.or_else(|_| printable()).or_else(|_| ia5()).or_else(|_| teletex()).ok()
        });
        let alternatives = inner.get_extension::<SubjectAltName>().ok()?.map(|(_, alternatives)| alternatives.0);
        let alternatives = alternatives.into_iter().flatten().filter_map(|name| match name {
            GeneralName::DnsName(text) | GeneralName::UniformResourceIdentifier(text) => Some(text.as_str().to_owned()),
            _ => None,
        });
        let names = common.chain(alternatives).filter(|name| name.len() <= NAME_BYTES_MAX).take(NAMES_MAX);
        Some(Self {
            fingerprint: Fingerprint::of(der),
            not_before_ms: ms(inner.validity().not_before),
            // It is good through that second (RFC 5280, 4.1.2.5).
            not_after_ms: ms(inner.validity().not_after).saturating_add(999),
            names: names.map(String::into_boxed_str).collect(),
        })
    }

    /// Whether it names a device, with its product or without.
    #[must_use]
    pub fn names(&self, product: &str, device: &str) -> bool {
        self.names.iter().any(|name| match name.split_once('/') {
            Some((named, rest)) => named == product && rest == device,
            None => **name == *device,
        })
    }

    /// The device of a product that it names, if it names one with its product.
    #[must_use]
    pub fn whose(&self) -> Option<(&str, &str)> {
        let is_name =
            |(product, device): &(&str, &str)| ProductKey::parse(product).is_ok() && DeviceName::parse(device).is_ok();
        self.names.iter().find_map(|name| name.split_once('/').filter(is_name))
    }

    /// Whether its time has come and isn't over.
    #[must_use]
    pub fn is_good_at(&self, unix_ms: u64) -> bool {
        (self.not_before_ms..=self.not_after_ms).contains(&unix_ms)
    }
}
