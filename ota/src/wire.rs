//! What devices say about firmware, and what they hear.
//!
//! | module | whose |
//! |---|---|
//! | [`native`] | ours: `dev/{p}/{d}/ota/…` |
//! | [`aliyun`] | `/ota/device/…` and `/sys/…/thing/ota/firmware/…` |
//! | [`gizwits`] | a form over HTTP, and a notice on `ser2cli_res/{did}` |
//!
//! Devices can't be reflashed because a broker is stricter than the one before: fields that aren't known are passed over. Those that are known have their type,
//! lengths have their limits, and each fault is told apart.

use serde::Deserialize;
use serde::de::{MapAccess, Visitor};

use crate::cut::cut;
use crate::target::NameError;

pub mod aliyun;
pub mod gizwits;
pub mod native;
#[cfg(test)]
pub(crate) mod testing;

/// Longer messages aren't looked at.
pub const MESSAGE_BYTES_MAX: usize = 8192;
/// Bytes of a text that a device gives as a reason; what is longer is cut.
pub const REASON_BYTES_MAX: usize = 128;
/// Versions that a device reports at once.
pub const VERSIONS_MAX: usize = 32;

/// Why a message isn't taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WireError {
    /// More than [`MESSAGE_BYTES_MAX`].
    #[error("the message has more than {MESSAGE_BYTES_MAX} bytes")]
    TooLong,
    /// Not the JSON, or not the form, of such a message: something is missing or of another type.
    #[error("the message is malformed, or a field is missing or of the wrong type")]
    Malformed,
    /// More than [`VERSIONS_MAX`].
    #[error("a device reports {VERSIONS_MAX} versions at most")]
    TooManyVersions,
    /// Two versions of one target.
    #[error("a target has two versions")]
    Twice,
    /// A name that can't be one.
    #[error("{field}: {error}")]
    Name {
        /// Where.
        field: &'static str,
        /// What is wrong with it.
        error: NameError,
    },
    /// A number or word that it may not have.
    #[error("{field} is out of its range")]
    Range {
        /// Where.
        field: &'static str,
    },
}

/// What a request is known by to whoever sent it: a number or a text of up to 64 bytes, which the answer repeats.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(untagged)]
pub enum RequestId {
    /// A number.
    Number(i64),
    /// A text.
    Text(Box<str>),
}

/// How far a device says it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// It takes the offer.
    Accepted,
    /// So many percent, 0 to 100.
    Downloading(u8),
    /// All bytes are there.
    Downloaded,
    /// Digests and signature are right.
    Verified,
    /// It writes them, or boots.
    Applying,
    /// It couldn't.
    Failed {
        /// Another try may do better.
        retryable: bool,
    },
    /// It doesn't want to.
    Rejected,
}

/// Why, in a device's words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Why {
    /// A number: below 1000 as in [`Why::NAMED`], from there on the product's own.
    Code(u16),
    /// A text that isn't one of [`Why::NAMED`], up to [`REASON_BYTES_MAX`].
    Text(Box<str>),
}

impl Why {
    /// Reasons that have a name and a number.
    pub const NAMED: [(&'static str, u16); 9] = [
        ("digest", 10),
        ("signature", 11),
        ("download", 12),
        ("space", 13),
        ("apply", 14),
        ("busy", 20),
        ("power", 21),
        ("user", 22),
        ("unsuitable", 23),
    ];

    /// The number, where it has one.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Code(code) => Some(*code),
            Self::Text(_) => None,
        }
    }

    fn from_text(text: &str) -> Self {
        let named = Self::NAMED.iter().find(|(name, _)| *name == text);
        named.map_or_else(|| Self::Text(cut(text, REASON_BYTES_MAX).into()), |(_, code)| Self::Code(*code))
    }

    /// Whether a device that failed for this may be asked once more: not where the same file would fail in the same way.
    fn is_retryable(&self) -> bool {
        !matches!(self, Self::Code(11 | 14 | 23))
    }
}

fn read<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T, WireError> {
    if payload.len() > MESSAGE_BYTES_MAX {
        return Err(WireError::TooLong);
    }
    serde_json::from_slice(payload).map_err(|_| WireError::Malformed)
}

fn name<T: std::str::FromStr<Err = NameError>>(field: &'static str, text: &str) -> Result<T, WireError> {
    text.parse().map_err(|error| WireError::Name { field, error })
}

/// A number, or a text: what devices put into ids, steps and reasons.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Number(i64),
    Text(String),
}

impl Scalar {
    fn id(self) -> Result<RequestId, WireError> {
        match self {
            Self::Number(number) => Ok(RequestId::Number(number)),
            Self::Text(text) if text.len() <= 64 => Ok(RequestId::Text(text.into())),
            Self::Text(_) => Err(WireError::Range { field: "id" }),
        }
    }

    fn why(self) -> Result<Option<Why>, WireError> {
        match self {
            Self::Number(number) => u16::try_from(number)
                .map(|code| Some(Why::Code(code)))
                .map_err(|_| WireError::Range { field: "reason" }),
            Self::Text(text) => Ok((!text.is_empty()).then(|| Why::from_text(&text))),
        }
    }
}

/// The members of an object in their order, also those that are there twice.
struct Pairs(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Pairs;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = members.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        from.deserialize_map(Members)
    }
}
