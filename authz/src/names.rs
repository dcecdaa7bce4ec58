//! Product keys and device names. What is one of these is safe in a topic level, a user name and a client id.

use std::fmt;

use turnpike_core::mask::{Identifier, fmt_masked};

/// Why a text is no name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NameError {
    /// Nothing.
    #[error("a name must have at least one character")]
    Empty,
    /// More than 64 bytes.
    #[error("a name has at most 64 characters")]
    TooLong,
    /// A character that has a meaning in topics or credentials, or isn't printable ASCII.
    #[error("a name consists of letters, digits and - _ . : @, and {0:?} is none of these")]
    Character(char),
    /// `.` or `..`: clients and proxies take such a part out of a URL.
    #[error("a name can't be . or ..")]
    Dots,
}

/// 1 to 64 of `A–Z a–z 0–9 - _ . : @`.
pub(crate) fn check(text: &str) -> Result<(), NameError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.:@".contains(c);
    match text.len() {
        0 => Err(NameError::Empty),
        65.. => Err(NameError::TooLong),
        _ if matches!(text, "." | "..") => Err(NameError::Dots),
        _ => text.chars().find(|c| !allowed(*c)).map_or(Ok(()), |c| Err(NameError::Character(c))),
    }
}

/// A checked text, of which the crate has several kinds: the check, `parse`, `as_str`, and the traits by which maps look it up and logs mask it.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Box<str>);

        impl $name {
            /// Checks a text.
            ///
            /// # Errors
            /// What is wrong with it.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                let check: fn(&str) -> Result<(), NameError> = $check;
                check(text).map(|()| Self(text.into()))
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Identifier for $name {
            fn identifier(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}
pub(crate) use name;

name! {
    /// A product key: 1 to 64 of `A–Z a–z 0–9 - _ . : @`.
    #[derive(Debug)]
    ProductKey, check
}

name! {
    /// A device's name, unique within its product: 1 to 64 of `A–Z a–z 0–9 - _ . : @`. Masked in `Debug`.
    DeviceName, check
}

impl fmt::Debug for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_masked(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_safe_in_topics_and_credentials() {
        for good in ["a", "a1B2c3D4e5F", "dev-001_x.y:z@w", &"n".repeat(64)] {
            assert_eq!(DeviceName::parse(good).map(|name| name.to_string()), Ok(good.to_owned()));
        }
        assert_eq!(ProductKey::parse(""), Err(NameError::Empty));
        assert_eq!(ProductKey::parse(&"n".repeat(65)), Err(NameError::TooLong));
        for bad in ['/', '+', '#', '$', '&', '|', ';', ',', '=', ' ', '\0', '\n', '\u{7f}', 'é'] {
            assert_eq!(ProductKey::parse(&format!("a{bad}")), Err(NameError::Character(bad)));
        }
    }

    #[test]
    fn a_device_name_is_masked_where_it_is_printed() {
        let name = DeviceName::parse("serial-0001").expect("a name");
        assert_eq!(format!("{name:?}"), "se…01(11)");
    }
}
