//! What a firmware is for: a target within the device, a version, the hardware that it runs on.

use std::fmt;
use std::str::FromStr;

/// Bytes of a target's, a version's or a hardware's name.
pub const NAME_BYTES_MAX: usize = 64;

/// What is wrong with a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NameError {
    /// Nothing, or more than [`NAME_BYTES_MAX`].
    #[error("it has 1 to {NAME_BYTES_MAX} characters")]
    Length,
    /// Something else than letters, digits and `. _ - + :`.
    #[error("it has letters, digits and . _ - + : only")]
    Character,
}

fn checked(text: &str) -> Result<Box<str>, NameError> {
    if text.is_empty() || text.len() > NAME_BYTES_MAX {
        return Err(NameError::Length);
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+:".contains(&byte);
    if text.bytes().all(allowed) { Ok(text.into()) } else { Err(NameError::Character) }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(Box<str>);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                checked(text).map(Self)
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
    /// Which part of a device a firmware is for: `module` (what talks to the network), `mcu`, or a component's name. A firmware of one is never
    /// offered to another.
    Target
}

name! {
    /// A version, as the maker writes it. Versions are compared for being the same and nothing else; which one is newer, a firmware's release counter
    /// says.
    Version
}

name! {
    /// A hardware version that a firmware runs on.
    Hardware
}

impl Target {
    /// The one that devices mean which name none, as aliyun's `default` module.
    pub const DEFAULT: &'static str = "default";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        assert_eq!("mcu".parse::<Target>().map(|target| target.to_string()), Ok("mcu".to_owned()));
        assert_eq!("".parse::<Version>(), Err(NameError::Length));
        assert_eq!("x".repeat(65).parse::<Version>(), Err(NameError::Length));
        for text in ["a/b", "a b", "+#", "ä"] {
            assert_eq!(text.parse::<Hardware>(), Err(NameError::Character), "{text}");
        }
    }
}
