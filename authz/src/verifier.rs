//! Algorithms of one's own: a product names who judges its devices, instead of the log-in formats that the broker knows.
//!
//! A [`Verifier`] is compiled in ([`crate::Gatekeeper::judged_by`]) and decides at once. Who can't be compiled in is asked over HTTP: that is the
//! verifier named [`VerifierName::CALLOUT`] ([`crate::callout`], and CALLOUT.md for those who write the other end).
//!
//! | the attempt | who judges it |
//! |---|---|
//! | its user name (`{product}/…`, `…&{product}`) or its format names a product that names a verifier | that verifier |
//! | and the verifier says [`Opinion::NotMine`] | the broker's own formats |
//! | and there is no such verifier in this broker | nobody: it is refused (0x88) |
//! | it is of no format that the broker knows, and names no product that exists | each compiled-in verifier in its order, then the call-out where that is configured, until one doesn't say `NotMine` |
//! | any other | the broker's own formats; right credentials of a device whose product names a verifier are refused (0x87) |
//!
//! Whatever a verifier says, the device must be registered in a product that names this very verifier, both enabled, and what the
//! product demands besides (TLS, a certificate) is held. Enhanced authentication (MQTT 5) is the broker's own: such a product takes none.

use std::fmt;

use turnpike_core::clock::Now;
use turnpike_core::gate::Attempt;

use crate::names::{DeviceName, ProductKey};

/// Bytes of a verifier's name.
pub const NAME_BYTES_MAX: usize = 32;

/// Judges devices by an algorithm of its own.
///
/// Called on a shard's thread for each attempt that is its to judge: a function of its own unchanging state, the attempt and the time,
/// within microseconds. It opens no file, waits for no lock and keeps no password. Who has to wait for somebody is a call-out.
///
/// It sees attempts as strangers sent them, so it must take any bytes, and should take as long for a device that isn't known as
/// for a wrong proof.
///
/// ```
/// use turnpike_authz::names::{DeviceName, ProductKey};
/// use turnpike_authz::verifier::{Grant, Opinion, Verifier, VerifierName};
/// use turnpike_core::clock::Now;
/// use turnpike_core::gate::Attempt;
///
/// /// Devices that prove themselves by their certificates alone, whose user name is `acme:` and the device.
/// #[derive(Debug)]
/// struct Acme(VerifierName, ProductKey);
///
/// impl Verifier for Acme {
///     fn name(&self) -> &VerifierName {
///         &self.0
///     }
///
///     fn judge(&self, attempt: &Attempt<'_>, _now: Now) -> Opinion {
///         let Some(device) = attempt.user_name.and_then(|name| name.strip_prefix("acme:")) else {
///             return Opinion::NotMine;
///         };
///         match DeviceName::parse(device) {
///             Ok(device) if attempt.certificate.is_some() => Opinion::Granted(Grant::new(self.1.clone(), device)),
///             _ => Opinion::Refused,
///         }
///     }
/// }
/// ```
pub trait Verifier: Send + Sync + fmt::Debug {
    /// What products call it by.
    fn name(&self) -> &VerifierName;

    /// Judges an attempt.
    fn judge(&self, attempt: &Attempt<'_>, now: Now) -> Opinion;
}

/// What a verifier says of an attempt.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub enum Opinion {
    /// It is this device.
    Granted(Grant),
    /// It is mine to judge, and the proof isn't right. Counted as a failed log-in, as a wrong password is.
    Refused,
    /// Somebody else may judge it.
    NotMine,
}

/// Who somebody is, by a verifier's word.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    /// The product; it must name the verifier.
    pub product: ProductKey,
    /// The device; it must be registered.
    pub device: DeviceName,
    /// Milliseconds since 1970 UTC at which the connection is to be closed, unless the client has come anew; none: never.
    pub until_ms: Option<u64>,
}

impl Grant {
    /// Without an end.
    #[must_use]
    pub fn new(product: ProductKey, device: DeviceName) -> Self {
        Self { product, device, until_ms: None }
    }
}

/// A verifier's name: 1 to 32 small letters, digits and hyphens.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct VerifierName(Box<str>);

/// Why a text isn't a verifier's name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a verifier's name is 1 to {NAME_BYTES_MAX} small letters, digits and hyphens")]
pub struct NotVerifierName;

impl VerifierName {
    /// The name of the call-out over HTTP.
    pub const CALLOUT: &str = "callout";

    /// Checks a name.
    ///
    /// # Errors
    /// [`NotVerifierName`]
    pub fn parse(text: &str) -> Result<Self, NotVerifierName> {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_name = (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(fits);
        if is_name { Ok(Self(text.into())) } else { Err(NotVerifierName) }
    }

    /// [`Self::CALLOUT`].
    #[must_use]
    pub fn callout() -> Self {
        Self(Self::CALLOUT.into())
    }

    /// As it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the call-out's.
    #[must_use]
    pub fn is_callout(&self) -> bool {
        &*self.0 == Self::CALLOUT
    }
}

impl fmt::Display for VerifierName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words() {
        for good in ["a", "acme-2", "callout", &"x".repeat(32)] {
            assert_eq!(VerifierName::parse(good).expect("a name").as_str(), good);
        }
        for bad in ["", "A", "a b", "a_b", "ä", "a\0", &"x".repeat(33)] {
            assert_eq!(VerifierName::parse(bad), Err(NotVerifierName), "{bad:?}");
        }
        assert!(VerifierName::callout().is_callout());
        assert_eq!(VerifierName::parse(VerifierName::CALLOUT), Ok(VerifierName::callout()));
    }
}
