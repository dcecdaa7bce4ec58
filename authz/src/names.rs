//! Product keys and device names. What is one of these is safe in a topic level, a user name and a client id.

use std::fmt;

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
    #[error("a name consists of letters, digits and - _ . : @")]
    Character,
}

fn check(text: &str) -> Result<(), NameError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:@".contains(&byte);
    match text.len() {
        0 => Err(NameError::Empty),
        65.. => Err(NameError::TooLong),
        _ if text.bytes().all(allowed) => Ok(()),
        _ => Err(NameError::Character),
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Box<str>);

        impl $name {
            /// Checks a text.
            ///
            /// # Errors
            /// What is wrong with it.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                check(text).map(|()| Self(text.into()))
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
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

name! {
    /// A product key: 1 to 64 of `A–Z a–z 0–9 - _ . : @`.
    #[derive(Debug)]
    ProductKey
}

name! {
    /// A device's name, unique within its product: 1 to 64 of `A–Z a–z 0–9 - _ . : @`. Masked in `Debug`.
    DeviceName
}

impl fmt::Debug for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head: String = self.0.chars().take(4).collect();
        write!(f, "{head}…({})", self.0.len())
    }
}
