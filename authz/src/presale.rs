//! Pre-authorization and registration: how a device that has left the factory without a secret gets one, and no other device does.
//!
//! ```text
//! operator ─▶ package (quota, expiry) ─▶ burn-in keys ─▶ production line ─▶ device
//!                                   └──▶ allow-list of MAC, IMEI, serial numbers
//! device ─▶ request ─▶ Desk::plan_register ─▶ changes (committed together) ─▶ answer: name and secret
//! ```
//!
//! A product says which ways it takes ([`Ways`]); none, until it says otherwise. Each registration counts against the quota of one package, and
//! each burn-in key and each listed identifier registers one device.
//!
//! | way | what proves it | who is registered |
//! |---|---|---|
//! | burn-in key | the key, over TLS; or a signature by it, and the secret comes back encrypted | whoever the device says it is, or a made name |
//! | listed | nothing: the identifier is on the list, and the first that comes gets it | the identifier |
//! | aliyun `register`, tencent | a signature by the product's secret | the device's name, which is a listed identifier |
//! | aliyun `regnwl`, tencent unlisted | the same | the device's name |
//! | gizwits | nothing; or encryption under the product's secret | a made name; the MAC address is listed, the secret is the device's own |
//!
//! Over TLS alone, since the answer (or the request) shows a secret: a whole burn-in key, listed, both of aliyun's. The others encrypt with AES-128, or send
//! nothing but what the device has made, as gizwits does in the clear.
//!
//! **A lost answer.** The device asks again. Whoever has proved a burn-in key is given the same answer for ten minutes ([`register::REPEAT_S`]); after that,
//! and by every way that proves no more than that somebody knows the product's secret or the identifier, it hears that it exists: a
//! second device must not get the first one's secret. Then the operator releases the key or the identifier ([`Desk::plan_release_key`]). A gizwits device
//! has its secret already and hears its id again whenever it asks with the same passcode.
//!
//! **Invariant:** as in [`crate::registry`], memory is changed after the commit, and whoever plans holds the control plane's lock until it has
//! applied. All that a registration changes is in one commit: a device, and what is used up by it.

use std::fmt;

pub mod aliyun;
pub mod book;
pub mod burn;
pub mod connect;
pub mod desk;
pub mod gizwits;
pub mod identifier;
pub mod list;
mod lists;
mod record;
pub mod register;
pub mod tencent;

pub use book::{Book, Change, Package, PackageId, Settings};
pub use desk::Desk;
pub use identifier::{Identifier, IdentifierError, Kind};
pub use record::is_record;
pub use register::{Proof, Registration, Request};

/// A way of registration. Its bit in a record never changes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Way {
    /// By a burn-in key.
    BurnIn = 1,
    /// By a listed identifier alone.
    Listed = 2,
    /// Aliyun's `register`: the name is listed, the product's secret signs.
    Aliyun = 4,
    /// Aliyun's `regnwl`: any name, the product's secret signs.
    AliyunUnlisted = 8,
    /// Tencent's: the name is listed, the product's secret signs.
    Tencent = 16,
    /// Tencent's with devices made on the way: any name, the product's secret signs.
    TencentUnlisted = 32,
    /// Gizwits', in the clear: the MAC address is listed.
    Gizwits = 64,
    /// Gizwits', encrypted under the product's secret: the MAC address is listed.
    GizwitsSealed = 128,
}

impl Way {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::BurnIn,
        Self::Listed,
        Self::Aliyun,
        Self::AliyunUnlisted,
        Self::Tencent,
        Self::TencentUnlisted,
        Self::Gizwits,
        Self::GizwitsSealed,
    ];

    /// As it is called in the API and in the audit.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BurnIn => "burn-in",
            Self::Listed => "listed",
            Self::Aliyun => "aliyun",
            Self::AliyunUnlisted => "aliyun-unlisted",
            Self::Tencent => "tencent",
            Self::TencentUnlisted => "tencent-unlisted",
            Self::Gizwits => "gizwits",
            Self::GizwitsSealed => "gizwits-sealed",
        }
    }
}

impl std::str::FromStr for Way {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|way| way.as_str() == text);
        let known = || Self::ALL.map(Self::as_str).join(", ");
        found.ok_or_else(|| format!("there is no way of registration {text:?}; there are {}", known()))
    }
}

/// The ways that a product takes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Ways(u8);

impl Ways {
    /// From the bits of a record.
    #[must_use]
    pub fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// For a record.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Whether it is one of them.
    #[must_use]
    pub fn contains(self, way: Way) -> bool {
        self.0 & way as u8 != 0
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = Way> {
        Way::ALL.into_iter().filter(move |way| self.contains(*way))
    }
}

impl FromIterator<Way> for Ways {
    fn from_iter<I: IntoIterator<Item = Way>>(ways: I) -> Self {
        Self(ways.into_iter().fold(0, |bits, way| bits | way as u8))
    }
}

impl fmt::Debug for Ways {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

macro_rules! errors {
    ($($(#[$doc:meta])* $name:ident = $label:literal, $text:literal;)*) => {
        /// Why a device isn't registered.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
        pub enum RegisterError { $($(#[$doc])* #[error($text)] $name,)* }

        impl RegisterError {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// As the code of an answer, and the label of a metric.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

errors! {
    /// It isn't what such a request is.
    Malformed = "malformed", "the request is malformed";
    /// The product doesn't exist, is disabled, or doesn't take this way.
    NotAllowed = "not_allowed", "the product doesn't take this registration";
    /// No such package, a key that was never issued, an identifier that isn't listed.
    Unknown = "unknown", "the key or the identifier is unknown";
    /// The answer would show a secret to whoever listens.
    TlsRequired = "tls_required", "this registration needs TLS";
    /// The key's secret, or the signature, is wrong.
    WrongKey = "wrong_key", "the key or the signature is wrong";
    /// The package has expired, or is disabled.
    Expired = "expired", "the package has expired";
    /// The package's quota is used up.
    Capacity = "capacity", "the quota of the package is used up";
    /// The key or the identifier has registered a device, or there is a device of that name.
    Exists = "exists", "the device is registered already";
    /// The request, or its nonce, has been used within the last twenty minutes: a nonce is new for each request.
    Replayed = "replayed", "the request has been used before; it needs a new nonce";
    /// A secret of the product or of the package doesn't open: another master key, a damaged record.
    Sealed = "sealed", "a secret doesn't open under the master key";
}
