//! The number of a platform, and the pseudonym of a user.

use std::fmt;

use turnpike_core::mask::{Identifier, fmt_masked};

use super::token::Stream;

/// A platform's random number: 16 decimal digits, small enough that every JSON parser reads it exactly (4.1.2.1 a, 4.1.3.3 b).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PlatId([u8; 16]);

impl PlatId {
    /// The lowest.
    pub const LEAST: u64 = 1_000_000_000_000_000;
    /// The highest: 2⁵³ − 1.
    pub const MOST: u64 = (1 << 53) - 1;

    /// Draws one of all, each as likely as the other.
    #[must_use]
    pub fn draw(random: [u8; 32]) -> Self {
        let mut stream = Stream::new(&random, "platform id", "", 0);
        loop {
            let bytes = std::array::from_fn(|_| stream.byte());
            // The lowest 53 bits: seven of eight draws are in the range.
            let number = Self::LEAST.saturating_add(u64::from_be_bytes(bytes) & Self::MOST);
            if let Some(id) = Self::new(number) {
                return id;
            }
        }
    }

    /// From a number of its range.
    #[must_use]
    pub fn new(number: u64) -> Option<Self> {
        if !(Self::LEAST..=Self::MOST).contains(&number) {
            return None;
        }
        number.to_string().as_bytes().try_into().ok().map(Self)
    }

    /// From 16 digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| is_digits).and_then(Self::new)
    }

    /// The number.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.as_str().parse().unwrap_or(Self::LEAST)
    }

    /// Its digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl Identifier for PlatId {
    fn identifier(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for PlatId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for PlatId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_masked(self.as_str(), f)
    }
}

/// A user of a platform, as the platform's salted HMAC-SHA256 of what it calls them (4.1.3.1 b 2): 64 hexadecimal digits in lower case. Masked in
/// `Debug`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(Box<str>);

impl UserId {
    /// Checks a text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        (text.len() == 64 && text.bytes().all(is_digit)).then(|| Self(text.into()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Identifier for UserId {
    fn identifier(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_masked(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_sixteen_digits_that_a_double_holds() {
        for n in 0..=255 {
            let id = PlatId::draw([n; 32]);
            assert_eq!(id.as_str().len(), 16);
            assert_eq!((PlatId::parse(id.as_str()), PlatId::new(id.number())), (Some(id), Some(id)));
            #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let through_a_double = id.number() as f64 as u64;
            assert_eq!(through_a_double, id.number());
        }
        assert_eq!(PlatId::new(PlatId::LEAST - 1), None);
        assert_eq!(PlatId::new(PlatId::MOST + 1), None);
        for bad in ["", "123", "+100000000000000", "10000000000000000", "1000000000000 00", "９000000000000000"] {
            assert_eq!(PlatId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_user_is_a_hash_in_one_spelling() {
        let good = "0123456789abcdef".repeat(4);
        assert_eq!(UserId::parse(&good).map(|user| user.as_str().to_owned()), Some(good.clone()));
        for bad in [&good[1..], &good.to_uppercase(), "+8613800138000", &format!("{good}0"), &"g".repeat(64)] {
            assert_eq!(UserId::parse(bad), None, "{bad}");
        }
        assert!(!format!("{:?}", UserId::parse(&good)).contains("456789"));
    }
}
