//! What a device is known by before it is registered: the MAC address of its Wi-Fi module, the IMEI of its modem, its serial number.

use std::fmt;
use std::str::FromStr;

use crate::names::DeviceName;

/// What an identifier is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// A MAC address of 48 bits.
    Mac,
    /// An IMEI of 15 digits.
    Imei,
    /// A serial number.
    Serial,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Mac, Self::Imei, Self::Serial];

    /// As it is called in uploads and in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mac => "mac",
            Self::Imei => "imei",
            Self::Serial => "serial",
        }
    }
}

impl FromStr for Kind {
    type Err = IdentifierError;

    fn from_str(text: &str) -> Result<Self, IdentifierError> {
        Self::ALL.into_iter().find(|kind| kind.as_str().eq_ignore_ascii_case(text)).ok_or(IdentifierError::Kind)
    }
}

/// Why a text is no identifier.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IdentifierError {
    /// No kind of that name.
    #[error("an identifier is a mac, an imei or a serial")]
    Kind,
    /// In none of the ways in which MAC addresses are written.
    #[error("a MAC address is 12 hexadecimal digits, together, in pairs by : or -, or in fours by .")]
    Mac,
    /// All zeros, or of a group: no device has it.
    #[error("a MAC address of a device isn't zero and isn't a group's")]
    MacOfNobody,
    /// Not 15 digits.
    #[error("an IMEI is 15 digits")]
    Imei,
    /// Its last digit isn't the check digit: it has been mistyped.
    #[error("the check digit of an IMEI is wrong")]
    ImeiCheck,
    /// Not a name.
    #[error("a serial number is 4 to 64 letters, digits and - _ . : @")]
    Serial,
}

/// An identifier.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identifier {
    /// 48 bits.
    Mac(u64),
    /// 15 digits.
    Imei(u64),
    /// 4 to 64 characters of a [`DeviceName`].
    Serial(Box<str>),
}

impl Identifier {
    /// Checks a text, white space around it allowed.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(kind: Kind, text: &str) -> Result<Self, IdentifierError> {
        let text = text.trim();
        match kind {
            Kind::Mac => mac(text).map(Self::Mac),
            Kind::Imei => imei(text).map(Self::Imei),
            Kind::Serial => {
                let fits = text.len() >= 4 && DeviceName::parse(text).is_ok();
                if fits { Ok(Self::Serial(text.into())) } else { Err(IdentifierError::Serial) }
            }
        }
    }

    /// All that a text may be, the strictest first: what a device says without saying what it is.
    pub fn readings(text: &str) -> impl Iterator<Item = Self> {
        Kind::ALL.into_iter().filter_map(move |kind| Self::parse(kind, text).ok())
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Mac(_) => Kind::Mac,
            Self::Imei(_) => Kind::Imei,
            Self::Serial(_) => Kind::Serial,
        }
    }
}

/// In the one form that devices are named by: 12 capital hexadecimal digits, 15 digits, the serial number. It parses back.
impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mac(bits) => write!(f, "{bits:012X}"),
            Self::Imei(digits) => write!(f, "{digits:015}"),
            Self::Serial(text) => f.write_str(text),
        }
    }
}

impl fmt::Debug for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head: String = self.to_string().chars().take(4).collect();
        write!(f, "{} {head}…", self.kind().as_str())
    }
}

fn mac(text: &str) -> Result<u64, IdentifierError> {
    let group = match text.len() {
        12 => 12,
        14 => 4,
        17 => 2,
        _ => return Err(IdentifierError::Mac),
    };
    let mut separators = text.bytes().skip(group).step_by(group + 1);
    let is_one_separator = match separators.next() {
        None => true,
        Some(first) => {
            (if group == 4 { b".".as_slice() } else { b":-" }).contains(&first) && separators.all(|b| b == first)
        }
    };
    let digits: String = text.chars().enumerate().filter(|(at, _)| at % (group + 1) != group).map(|(_, c)| c).collect();
    let is_hex = digits.len() == 12 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_one_separator || !is_hex {
        return Err(IdentifierError::Mac);
    }
    let bits = u64::from_str_radix(&digits, 16).map_err(|_| IdentifierError::Mac)?;
    // The lowest bit of the first byte marks a group's.
    if bits == 0 || bits & (1 << 40) != 0 { Err(IdentifierError::MacOfNobody) } else { Ok(bits) }
}

/// 3GPP TS 23.003, annex B: the last digit is Luhn's over the fourteen before it. Separators that people write are let through.
fn imei(text: &str) -> Result<u64, IdentifierError> {
    let digits: String = text.chars().filter(|c| !matches!(c, '-' | ' ' | '/')).collect();
    if digits.len() != 15 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(IdentifierError::Imei);
    }
    let luhn = |(at, byte): (usize, u8)| {
        let digit = u32::from(byte - b'0') * if at % 2 == 1 { 2 } else { 1 };
        digit / 10 + digit % 10
    };
    if digits.bytes().enumerate().map(luhn).sum::<u32>() % 10 != 0 {
        return Err(IdentifierError::ImeiCheck);
    }
    digits.parse().map_err(|_| IdentifierError::Imei)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_mac_address_in_all_its_forms() {
        for text in ["00:1A:2b:3C:4d:5E", "00-1a-2B-3c-4D-5e", "001A.2B3C.4D5E", "001a2b3c4d5e", " 001A2B3C4D5E\n"] {
            assert_eq!(Identifier::parse(Kind::Mac, text).map(|id| id.to_string()), Ok("001A2B3C4D5E".to_owned()));
        }
        for text in [
            "",
            "001A2B3C4D5",
            "001A2B3C4D5G",
            "00:1A:2B:3C:4D:5",
            "00:1A:2B:3C-4D-5E",
            "001A:2B3C:4D5E",
            "00.1A.2B.3C.4D.5E",
            "0:01A:2B:3C:4D:5E",
            "001A2B3C4D5E6F",
            "+01A2B3C4D5E",
            "00:1A:2B:3C:4D:é",
        ] {
            assert_eq!(Identifier::parse(Kind::Mac, text), Err(IdentifierError::Mac), "{text}");
        }
        for text in ["000000000000", "FFFFFFFFFFFF", "01:00:5E:00:00:01"] {
            assert_eq!(Identifier::parse(Kind::Mac, text), Err(IdentifierError::MacOfNobody));
        }
    }

    #[test]
    fn an_imei_has_its_check_digit() {
        // The example of the GSM Association, and one that begins with a zero.
        for (text, shown) in [
            ("490154203237518", "490154203237518"),
            ("49-015420-323751-8", "490154203237518"),
            ("01 326300 123456 5", "013263001234565"),
        ] {
            assert_eq!(Identifier::parse(Kind::Imei, text).map(|id| id.to_string()), Ok(shown.to_owned()));
        }
        for text in ["490154203237519", "490154203237581"] {
            assert_eq!(Identifier::parse(Kind::Imei, text), Err(IdentifierError::ImeiCheck));
        }
        for text in ["", "49015420323751", "4901542032375180", "49015420323751x", "+90154203237518"] {
            assert_eq!(Identifier::parse(Kind::Imei, text), Err(IdentifierError::Imei));
        }
    }

    #[test]
    fn a_text_may_be_several_things() {
        let readings = |text| Identifier::readings(text).map(|id| id.kind()).collect::<Vec<_>>();
        assert_eq!(readings("490154203237518"), [Kind::Imei, Kind::Serial]);
        assert_eq!(readings("001A2B3C4D5E"), [Kind::Mac, Kind::Serial]);
        assert_eq!(readings("SN-0001"), [Kind::Serial]);
        assert!(readings("abc").is_empty());
        assert_eq!("MAC".parse(), Ok(Kind::Mac));
        assert_eq!("iccid".parse::<Kind>(), Err(IdentifierError::Kind));
    }

    #[test]
    fn an_identifier_is_masked_where_it_is_printed() {
        let id = Identifier::parse(Kind::Serial, "serial-0001").expect("a serial");
        assert_eq!(format!("{id:?}"), "serial seri…");
    }

    proptest! {
        #[test]
        fn what_is_shown_parses_back(kind in proptest::sample::select(&Kind::ALL), text in "[0-9A-Fa-f:. -]{0,20}|[A-Z0-9-]{4,64}|\\PC{0,20}") {
            if let Ok(id) = Identifier::parse(kind, &text) {
                prop_assert_eq!(Identifier::parse(kind, &id.to_string()), Ok(id.clone()));
                prop_assert!(DeviceName::parse(&id.to_string()).is_ok(), "it can name a device");
            }
        }

        #[test]
        fn one_wrong_digit_of_an_imei_is_noticed(at in 0_usize..15, other in 0_u8..10) {
            let mut digits = *b"490154203237518";
            let is_same = digits[at] == b'0' + other;
            digits[at] = b'0' + other;
            let text = std::str::from_utf8(&digits).expect("digits");
            prop_assert_eq!(Identifier::parse(Kind::Imei, text).is_ok(), is_same);
        }
    }
}
