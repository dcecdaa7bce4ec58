//! The log-in formats that devices speak, as the broker reads them. [`crate::credential`] writes them.
//!
//! A file for each says what it looks like. What is common to them, and how one is told from another ([`Claim::parse`]), is here.
//!
//! | profile | names the product | a captured password opens | MQTT topics |
//! |---|---|---|---|
//! | `native` | yes | nothing | `dev/…` |
//! | `native` by challenge | yes | – | `dev/…` |
//! | `aliyun` | yes | until the secret is changed | `/…` |
//! | `tencent` | yes | until the expiry that the device chose | `{product}/{device}/…`, `$thing/…`, `$ota/…` |
//! | `huawei` | perhaps | within its hour, or until the secret is changed | `$oc/…` |
//! | `tuya` | no | for ten minutes | `tylink/…` |
//! | `azure` | no | until the expiry that the device chose | `devices/…` |
//! | `gizwits-legacy` | no | until the secret is changed | `dev2app/…`, `app2dev/…` |
//! | `gizwits` | no | nothing, and after twenty minutes until the secret is changed | `dev2app/…`, `app2dev/…` |
//!
//! A product takes `native` and `aliyun` unless it says otherwise ([`ProfileSet::DEFAULT`]).
//!
//! Where no product is named, the device is looked for by its name in the products that take the profile
//! ([`crate::registry::Registry::find_by_device_name`]); of several of that name it is the one whose secret verifies. The vendors' ids are unique in their
//! clouds, and their topics rely on it: **in the products that take one of these profiles, a name must not come twice**, else the
//! devices of that name could read each other's vendor topics. So the second one is refused ([`crate::registry::Registry::namesake`]).

mod aliyun;
mod azure;
mod gizwits;
mod huawei;
mod native;
mod set;
mod tencent;
mod tuya;

use std::fmt;

use turnpike_core::clock::Now;

use crate::secret::Secret;

pub use aliyun::Aliyun;
pub use azure::Azure;
pub use gizwits::{Gizwits, GizwitsLegacy};
pub use huawei::Huawei;
pub use native::{Native, answers};
pub use set::{Profile, ProfileSet};
pub use tencent::Tencent;
pub use tuya::Tuya;

pub(crate) use azure::escaped;
pub(crate) use huawei::hour_of;
pub(crate) use tencent::PRODUCT_CHARS;

/// The hash of a signature.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SignMethod {
    /// `hmacsha256`.
    Sha256,
    /// `hmacsha1`.
    Sha1,
    /// `hmacmd5`.
    Md5,
}

impl SignMethod {
    /// As it stands in an aliyun client id and in a tencent password.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "hmacsha256",
            Self::Sha1 => "hmacsha1",
            Self::Md5 => "hmacmd5",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Sha256, Self::Sha1, Self::Md5].into_iter().find(|method| method.as_str().eq_ignore_ascii_case(text))
    }
}

/// Whom a claim names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity<'a> {
    /// Product and device.
    pub named: Option<(&'a str, &'a str)>,
    /// A device's name, of whichever product takes the profile. Where both are there, either may be meant.
    pub searched: Option<&'a str>,
}

/// Whose secret a claim is held against.
#[derive(Clone, Copy, Debug)]
pub struct Holder<'a> {
    /// The product key.
    pub product: &'a str,
    /// The device's secret.
    pub secret: &'a Secret,
}

/// What a claim says of its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Freshness<'a> {
    /// Its time is over, or hasn't come.
    Stale,
    /// Right, or the profile knows no time.
    Enough,
    /// Right, and good once.
    Once {
        /// Visible ASCII characters.
        nonce: &'a str,
        /// Until when it has to be remembered, milliseconds since 1970 UTC.
        until_ms: u64,
    },
}

/// What every format knows of its claims.
trait Login<'a> {
    fn profile(&self) -> Profile;

    fn identity(&self) -> Identity<'a>;

    fn freshness(&self, _now: Now) -> Freshness<'a> {
        Freshness::Enough
    }

    /// Takes the same time wherever the difference is.
    fn is_signed_by(&self, holder: &Holder<'_>) -> bool;

    /// Whether what it sends is the secret itself, so that it has to come through TLS.
    fn shows_secret(&self) -> bool {
        false
    }

    /// The client id without what changes from one log-in to the next.
    fn lasting_client_id(&self) -> Option<&'a str> {
        None
    }
}

/// What a CONNECT says of itself, taken apart and not yet believed. `Debug` shows its format alone.
#[derive(Clone, PartialEq, Eq)]
pub enum Claim<'a> {
    /// `native`.
    Native(Native<'a>),
    /// `aliyun`.
    Aliyun(Aliyun<'a>),
    /// `tencent`.
    Tencent(Tencent<'a>),
    /// `huawei`.
    Huawei(Huawei<'a>),
    /// `tuya`.
    Tuya(Tuya<'a>),
    /// `azure`.
    Azure(Azure<'a>),
    /// `gizwits-legacy`.
    GizwitsLegacy(GizwitsLegacy<'a>),
    /// `gizwits`.
    Gizwits(Gizwits<'a>),
}

impl fmt::Debug for Claim<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Claim({}, …)", self.profile())
    }
}

impl<'a> Claim<'a> {
    /// Takes credentials apart; `None` if they are of no known format.
    ///
    /// Each question below is asked of those alone to whom the ones above don't apply. A yes decides: what is then no such credential
    /// is nothing else either.
    ///
    /// | the profile is | if |
    /// |---|---|
    /// | `native` | the password begins with `v1;` |
    /// | `azure` | it begins with `SharedAccessSignature ` |
    /// | `tencent` | it ends with `;hmacsha1` or `;hmacsha256` |
    /// | `tuya` | the client id is `tuyalink_` and what the user name has before its first bar |
    /// | `aliyun` | the client id has a bar, and the user name an ampersand |
    /// | `gizwits` | one of client id and user name has a bar |
    /// | `gizwits-legacy` | client id and user name are the same |
    /// | `huawei` | the client id is the user name and `_0_…` |
    #[must_use]
    pub fn parse(client_id: &'a str, user_name: &'a str, password: &'a [u8]) -> Option<Self> {
        let password = std::str::from_utf8(password).ok()?;
        if let Some(rest) = password.strip_prefix(native::PREFIX) {
            return Native::parse(client_id, user_name, rest).map(Self::Native);
        }
        if let Some(rest) = password.strip_prefix(azure::PREFIX) {
            return Azure::parse(client_id, user_name, rest).map(Self::Azure);
        }
        if let Some(signature) = tencent::signature(password) {
            return Tencent::parse(user_name, signature).map(Self::Tencent);
        }
        let user = user_name.split_once('|').map(|(user, _)| user);
        if let Some(device) = client_id.strip_prefix(tuya::PREFIX)
            && user == Some(device)
        {
            return Tuya::parse(device, user_name, password).map(Self::Tuya);
        }
        match (client_id.contains('|'), user) {
            (true, _) if user_name.contains('&') => Aliyun::parse(client_id, user_name, password).map(Self::Aliyun),
            (true, _) => Gizwits::parse(user_name, client_id, password).map(Self::Gizwits),
            (false, Some(_)) => Gizwits::parse(client_id, user_name, password).map(Self::Gizwits),
            (false, None) if client_id == user_name => {
                GizwitsLegacy::parse(client_id, password).map(Self::GizwitsLegacy)
            }
            (false, None) => {
                let rest = client_id.strip_prefix(user_name)?.strip_prefix("_0_")?;
                Huawei::parse(user_name, rest, password).map(Self::Huawei)
            }
        }
    }

    fn login(&self) -> &dyn Login<'a> {
        match self {
            Self::Native(login) => login,
            Self::Aliyun(login) => login,
            Self::Tencent(login) => login,
            Self::Huawei(login) => login,
            Self::Tuya(login) => login,
            Self::Azure(login) => login,
            Self::GizwitsLegacy(login) => login,
            Self::Gizwits(login) => login,
        }
    }

    /// The format.
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.login().profile()
    }

    /// The identity claimed.
    #[must_use]
    pub fn identity(&self) -> Identity<'a> {
        self.login().identity()
    }

    /// Whether it is of now, and whether it is good once.
    #[must_use]
    pub fn freshness(&self, now: Now) -> Freshness<'a> {
        self.login().freshness(now)
    }

    /// Whether the signature was made by this holder. Takes the same time wherever the difference is.
    #[must_use]
    pub fn is_signed_by(&self, holder: &Holder<'_>) -> bool {
        self.login().is_signed_by(holder)
    }

    /// Whether it holds the secret itself and has to come through TLS, whatever the product demands.
    #[must_use]
    pub fn shows_secret(&self) -> bool {
        self.login().shows_secret()
    }

    /// The client id without what changes from one log-in to the next, where the format has such parts: whose session it is.
    #[must_use]
    pub fn lasting_client_id(&self) -> Option<&'a str> {
        self.login().lasting_client_id().filter(|id| !id.is_empty())
    }
}

/// A number in decimal digits. `parse` would take a sign, which what is signed doesn't have.
fn digits(text: &str) -> Option<u64> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests;
