//! What a product demands of its devices' log-ins.

/// Demands and permissions of a product, all absent unless given. In force from the next log-in on: live sessions stay.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct ProductPolicy {
    /// Devices may have RSA keys of 1024 bits, which can be broken at a price.
    pub allow_rsa_1024: bool,
    /// A device comes through TLS.
    pub require_tls: bool,
    /// A device shows a certificate of its own, whatever else it shows; so it comes through TLS.
    pub require_certificate: bool,
    /// A device states which firmware it runs on which module, and states what is expected ([`crate::attest`]).
    pub require_attestation: bool,
    /// A device that seems to have a clone is refused for a while, and so is the clone ([`crate::guard`]).
    pub refuse_clones: bool,
}

const ALLOW_RSA_1024: u16 = 1;
const REQUIRE_TLS: u16 = 2;
const REQUIRE_CERTIFICATE: u16 = 4;
const REQUIRE_ATTESTATION: u16 = 32;
const REFUSE_CLONES: u16 = 8;

impl ProductPolicy {
    /// For a record: two bytes of flags. A flag's bit never changes.
    pub(crate) fn to_record(self) -> [u8; 2] {
        let flag = |set: bool, bit: u16| if set { bit } else { 0 };
        let flags = flag(self.allow_rsa_1024, ALLOW_RSA_1024)
            | flag(self.require_tls, REQUIRE_TLS)
            | flag(self.require_certificate, REQUIRE_CERTIFICATE)
            | flag(self.require_attestation, REQUIRE_ATTESTATION)
            | flag(self.refuse_clones, REFUSE_CLONES);
        flags.to_be_bytes()
    }

    /// From a record; none if it has flags that this version doesn't know, since they might be demands.
    pub(crate) fn from_record(bytes: &[u8]) -> Option<Self> {
        let flags = u16::from_be_bytes(bytes.try_into().ok()?);
        let known = ALLOW_RSA_1024 | REQUIRE_TLS | REQUIRE_CERTIFICATE | REQUIRE_ATTESTATION | REFUSE_CLONES;
        (flags & !known == 0).then_some(Self {
            allow_rsa_1024: flags & ALLOW_RSA_1024 != 0,
            require_tls: flags & REQUIRE_TLS != 0,
            require_certificate: flags & REQUIRE_CERTIFICATE != 0,
            require_attestation: flags & REQUIRE_ATTESTATION != 0,
            refuse_clones: flags & REFUSE_CLONES != 0,
        })
    }
}
