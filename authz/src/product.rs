//! What a product demands of its devices' log-ins.

/// Demands and permissions of a product, all absent unless given. Live sessions that don't meet them are closed, but for attestations.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct ProductPolicy {
    /// Devices may have RSA keys of 1024 bits, which can be broken at a price.
    pub allow_rsa_1024: bool,
    /// A device comes through TLS.
    pub require_tls: bool,
    /// A device shows a certificate of its own, whatever else it shows; so it comes through TLS.
    pub require_certificate: bool,
    /// A device states which firmware it runs on which module, and states what is expected ([`crate::attest`]). From the next log-in on.
    pub require_attestation: bool,
    /// Whether a device is refused that is suspected to have a clone; none for what the configuration says. Changes for suspicions to come.
    pub refuse_clones: Option<bool>,
}

const ALLOW_RSA_1024: u16 = 1;
const REQUIRE_TLS: u16 = 2;
const REQUIRE_CERTIFICATE: u16 = 4;
const REFUSE_CLONES: u16 = 8;
const BEAR_CLONES: u16 = 16;
const REQUIRE_ATTESTATION: u16 = 32;

impl ProductPolicy {
    /// For a record: two bytes of flags. A flag's bit never changes.
    pub(crate) fn to_record(self) -> [u8; 2] {
        let flag = |set: bool, bit: u16| if set { bit } else { 0 };
        let flags = flag(self.allow_rsa_1024, ALLOW_RSA_1024)
            | flag(self.require_tls, REQUIRE_TLS)
            | flag(self.require_certificate, REQUIRE_CERTIFICATE)
            | flag(self.refuse_clones == Some(true), REFUSE_CLONES)
            | flag(self.refuse_clones == Some(false), BEAR_CLONES)
            | flag(self.require_attestation, REQUIRE_ATTESTATION);
        flags.to_be_bytes()
    }

    /// From a record; none if it has flags that this version doesn't know, since they might be demands.
    pub(crate) fn from_record(bytes: &[u8]) -> Option<Self> {
        let flags = u16::from_be_bytes(bytes.try_into().ok()?);
        let known =
            ALLOW_RSA_1024 | REQUIRE_TLS | REQUIRE_CERTIFICATE | REFUSE_CLONES | BEAR_CLONES | REQUIRE_ATTESTATION;
        let refuse_clones = match (flags & REFUSE_CLONES != 0, flags & BEAR_CLONES != 0) {
            (true, true) => return None,
            (true, false) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        };
        (flags & !known == 0).then_some(Self {
            allow_rsa_1024: flags & ALLOW_RSA_1024 != 0,
            require_tls: flags & REQUIRE_TLS != 0,
            require_certificate: flags & REQUIRE_CERTIFICATE != 0,
            require_attestation: flags & REQUIRE_ATTESTATION != 0,
            refuse_clones,
        })
    }
}
