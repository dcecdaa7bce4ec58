//! A value that says which firmware runs on which module: HMAC-SHA256 under the *encryption factor* that was burned in with the
//! identity, over the firmware's version and the module's MAC.
//!
//! A clone that has the credentials and runs on another module, or altered firmware that says its own version, makes another value. Whoever reads
//! the factor out of the flash can make any: this finds copies, not the burglar.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// An attestation value. It is no secret, and doesn't prove freshness.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Attestation([u8; 32]);

/// Why a text isn't an attestation value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("an attestation value is 64 hexadecimal digits")]
pub struct NotAttestation;

impl Attestation {
    /// The HMAC-SHA256 under `factor` of `"v1a\n{firmware}\n{mac}"`: the version as the device states it, the MAC as twelve lower-case
    /// hexadecimal digits.
    #[must_use]
    pub fn of(factor: &[u8], firmware: &str, mac: [u8; 6]) -> Self {
        let mut hmac = Hmac::<Sha256>::new_from_slice(factor).expect("HMAC takes keys of any length");
        hmac.update(b"v1a\n");
        hmac.update(firmware.as_bytes());
        hmac.update(b"\n");
        hmac.update(hex::encode(mac).as_bytes());
        Self(hmac.finalize().into_bytes().into())
    }

    /// Whether a device presented this value. Takes the same time wherever the difference is.
    #[must_use]
    pub fn is(&self, presented: &Self) -> bool {
        self.0.ct_eq(&presented.0).into()
    }
}

impl std::str::FromStr for Attestation {
    type Err = NotAttestation;

    fn from_str(text: &str) -> Result<Self, NotAttestation> {
        let mut value = [0; 32];
        hex::decode_to_slice(text, &mut value).map_err(|_| NotAttestation)?;
        Ok(Self(value))
    }
}

impl std::fmt::Display for Attestation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl std::fmt::Debug for Attestation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Attestation(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [0, 0x1b, 0x44, 0x11, 0x3a, 0xb7];

    #[test]
    fn the_value_is_what_the_text_says() {
        // Made with `printf 'v1a\n1.2.3\n001b44113ab7' | openssl dgst -sha256 -hmac factor`.
        let text = "634db2ecf359f295debccbd89928de64b3bb3225562d6a7e5e03cfffd91aaefc";
        assert_eq!(Attestation::of(b"factor", "1.2.3", MAC).to_string(), text);
    }

    #[test]
    fn other_firmware_another_module_or_another_factor_make_another_value() {
        let registered = Attestation::of(b"factor", "1.2.3", MAC);
        assert!(registered.is(&Attestation::of(b"factor", "1.2.3", MAC)));
        let others = [
            Attestation::of(b"factor", "1.2.4", MAC),
            Attestation::of(b"factor", "1.2.3", [1; 6]),
            Attestation::of(b"fact0r", "1.2.3", MAC),
        ];
        assert!(others.iter().all(|other| !registered.is(other)));
    }

    #[test]
    fn it_is_read_as_it_is_written() {
        let value = Attestation::of(b"factor", "1.2.3", MAC);
        assert_eq!(value.to_string().parse(), Ok(value));
        assert_eq!(value.to_string().to_uppercase().parse(), Ok(value));
        for text in ["", "00", &"0".repeat(63), &"0".repeat(65), &"g".repeat(64), &"ü".repeat(32)] {
            assert_eq!(text.parse::<Attestation>(), Err(NotAttestation));
        }
    }
}
