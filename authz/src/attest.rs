//! What a device states of itself at log-in, and what is expected of it: which firmware runs on which module.
//!
//! The value is the HMAC-SHA256 under the device's *factor* of `"v1a\n{firmware}\n{mac}"` ([`Attestation::of`]), in 64 hexadecimal digits.
//! `firmware` is the version that the device states; `mac` are the twelve lower-case hexadecimal digits of the module's MAC; the factor is burned in
//! with the identity, and is kept here sealed under the master key, as the secret is.
//!
//! | how it is stated | where |
//! |---|---|
//! | MQTT 5 | two user properties of CONNECT: `turnpike-firmware` and `turnpike-attestation` |
//! | any version | behind the user name: `{user name}?firmware={version}&attestation={value}`. Nobody else sees this end: not the log-in format, not the audit |
//!
//! A version is 1 to 64 visible ASCII characters without `?` and `&`. A user name can't be as long as the addition where the format bounds it; those
//! that the broker knows don't.
//!
//! | the device | its product says nothing | [`crate::product::ProductPolicy::refuse_clones`] | [`crate::product::ProductPolicy::require_attestation`] |
//! |---|---|---|---|
//! | nothing is expected of it | comes in | comes in | refused (0x87), `attestation_missing` |
//! | states nothing | comes in | comes in | refused (0x87), `attestation_missing` |
//! | states the right value | comes in | comes in | comes in |
//! | states another value, another firmware, or what is no statement | an alarm; comes in | an alarm; refused (0x8A) with its identity for a while, `attestation_mismatch` | an alarm; refused (0x87) |
//!
//! Whoever reads the factor out of the flash can make any value: this finds copies, not the burglar ([`crate::guard`]).

use std::fmt;

use turnpike_mqtt::UserProperties;

use crate::guard::Attestation;
use crate::secret::{MasterKey, SealError, Sealed, Secret};

/// User property of CONNECT: the firmware's version.
pub const FIRMWARE_PROPERTY: &str = "turnpike-firmware";
/// User property of CONNECT: the attestation value.
pub const ATTESTATION_PROPERTY: &str = "turnpike-attestation";

const SUFFIX: &str = "?firmware=";
/// Its first character.
const SUFFIX_BEGIN: char = '?';
const SECOND: &str = "&attestation=";
const FIRMWARE_BYTES_MAX: usize = 64;

/// The version of a firmware.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Firmware(Box<str>);

/// Why a text isn't a firmware's version.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a firmware's version is 1 to {FIRMWARE_BYTES_MAX} visible ASCII characters without ? and &")]
pub struct NotFirmware;

impl Firmware {
    /// Checks a text.
    ///
    /// # Errors
    /// [`NotFirmware`]
    pub fn parse(text: &str) -> Result<Self, NotFirmware> {
        let fits = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'&');
        let is_version = (1..=FIRMWARE_BYTES_MAX).contains(&text.len()) && text.bytes().all(fits);
        if is_version { Ok(Self(text.into())) } else { Err(NotFirmware) }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A module's MAC. `Debug` shows none of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MacAddress([u8; 6]);

/// Why a text isn't a MAC.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a MAC is twelve hexadecimal digits, in pairs that may be parted by colons or hyphens")]
pub struct NotMac;

impl MacAddress {
    /// From its bytes.
    #[must_use]
    pub fn new(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(self) -> [u8; 6] {
        self.0
    }
}

impl std::str::FromStr for MacAddress {
    type Err = NotMac;

    fn from_str(text: &str) -> Result<Self, NotMac> {
        let plain: String = match text.len() {
            12 => text.to_owned(),
            17 => text.split([':', '-']).collect(),
            _ => return Err(NotMac),
        };
        let mut bytes = [0; 6];
        hex::decode_to_slice(plain, &mut bytes).map_err(|_| NotMac)?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacAddress(…)")
    }
}

/// What is expected of a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Expectation {
    /// Its module.
    pub mac: MacAddress,
    /// Its firmware; none: whichever it states.
    pub firmware: Option<Firmware>,
    /// Its factor, sealed for [`factor_owner`].
    pub factor: Sealed,
}

/// Whom a device's factor is sealed for: it opens in no other record.
#[must_use]
pub fn factor_owner(product: &str, device: &str) -> String {
    format!("t\0{product}\0{device}")
}

impl Expectation {
    /// For a device's record.
    #[must_use]
    pub fn new(
        (product, device): (&str, &str),
        mac: MacAddress,
        firmware: Option<Firmware>,
        factor: &Secret,
        (key, nonce): (&MasterKey, [u8; 12]),
    ) -> Self {
        Self { mac, firmware, factor: key.seal(&factor_owner(product, device), factor, nonce) }
    }

    /// Whether a device has stated what is expected. Takes the same time wherever a value differs.
    ///
    /// # Errors
    /// The factor doesn't open.
    pub fn is_met(
        &self,
        (product, device): (&str, &str),
        statement: &Statement<'_>,
        key: &MasterKey,
    ) -> Result<bool, SealError> {
        let factor = key.open(&factor_owner(product, device), &self.factor)?;
        let Ok(firmware) = Firmware::parse(statement.firmware) else { return Ok(false) };
        let Ok(presented) = statement.value.parse::<Attestation>() else { return Ok(false) };
        let expected = Attestation::of(factor.expose(), firmware.as_str(), self.mac.bytes());
        let is_known = self.firmware.as_ref().is_none_or(|known| *known == firmware);
        Ok(expected.is(&presented) && is_known)
    }

    /// For a record: MAC, length of the firmware's version, version, sealed factor.
    pub(crate) fn to_record(&self) -> Vec<u8> {
        let firmware = self.firmware.as_ref().map_or("", Firmware::as_str);
        let length = u8::try_from(firmware.len()).expect("64 at most");
        [&self.mac.0[..], &[length], firmware.as_bytes(), self.factor.as_bytes()].concat()
    }

    pub(crate) fn from_record(bytes: &[u8]) -> Option<Self> {
        let (mac, rest) = bytes.split_first_chunk::<6>()?;
        let (&length, rest) = rest.split_first()?;
        let (firmware, factor) = rest.split_at_checked(usize::from(length))?;
        let firmware = match firmware {
            [] => None,
            text => Some(Firmware::parse(std::str::from_utf8(text).ok()?).ok()?),
        };
        (!factor.is_empty()).then(|| Self { mac: MacAddress(*mac), firmware, factor: Sealed::from_bytes(factor) })
    }
}

/// What a device states of itself, as it was sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Statement<'a> {
    /// The firmware's version.
    pub firmware: &'a str,
    /// The attestation value.
    pub value: &'a str,
}

impl fmt::Debug for Statement<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Statement(…)")
    }
}

impl<'a> Statement<'a> {
    /// The statement of a CONNECT, if there is one: of its user properties, or else of its user name. What is there and isn't whole, or is
    /// there twice, is a statement that nobody expects.
    #[must_use]
    pub fn of(user_name: Option<&'a str>, properties: &UserProperties<'a>) -> Option<Self> {
        let mut found = [None; 2];
        let mut any = false;
        for (name, value) in properties.iter() {
            let place = match name {
                FIRMWARE_PROPERTY => &mut found[0],
                ATTESTATION_PROPERTY => &mut found[1],
                _ => continue,
            };
            any = true;
            *place = if place.is_none() { Some(value) } else { Some("") };
        }
        if any {
            let [firmware, value] = found.map(Option::unwrap_or_default);
            return Some(Self { firmware, value });
        }
        split(user_name?).1
    }
}

/// A user name without the statement behind it.
#[must_use]
pub fn bare_user_name(user_name: &str) -> &str {
    split(user_name).0
}

fn split(user_name: &str) -> (&str, Option<Statement<'_>>) {
    // To look for a byte takes no preparation, and hardly any user name has it.
    let split = if user_name.contains(SUFFIX_BEGIN) { user_name.split_once(SUFFIX) } else { None };
    let Some((bare, stated)) = split else { return (user_name, None) };
    let (firmware, value) = stated.split_once(SECOND).unwrap_or((stated, ""));
    (bare, Some(Statement { firmware, value }))
}

#[cfg(test)]
mod tests;
