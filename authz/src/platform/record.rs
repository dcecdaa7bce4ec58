//! Changes of platforms, and their records in the store, beside the registry's.
//!
//! | key | value |
//! |---|---|
//! | `xp\0{PlatID}` | layout, flags, created (seconds, 8 bytes), name, certificates, grants, sealed AuthToken |
//! | `xr\0{PlatID}\0{family}` | layout, until (milliseconds since 1970 UTC, 8 bytes), SHA-256 of the RefreshToken |
//!
//! Numbers are big-endian. A name is its length (1 byte) and its bytes; certificates are a count (1 byte) and 32 bytes each; grants a count (2 bytes)
//! and each flags, length (1 byte) and product; what is sealed goes to the end, sealed for the key of the record.

use std::sync::Arc;

use turnpike_core::durable::Op;

use super::table::{Grant, Platform};
use super::token::{Family, FamilyId, TokenHash};
use super::{CERTIFICATES_MAX, GRANTS_MAX, PlatId};
use crate::names::ProductKey;
pub use crate::record::RecordError;
use crate::secret::Sealed;
use crate::x509::Fingerprint;

/// First byte of each value.
const LAYOUT: u8 = 1;
const ENABLED: u8 = 1;
const CONTROL: u8 = 1;
/// Bytes of a platform's name.
pub(super) const NAME_BYTES_MAX: usize = 64;

/// A change of what is durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Create or replace.
    PutPlatform(PlatId, Arc<Platform>),
    /// Remove. [`Self::EndFamily`] goes before it for each family, in the same commit.
    DeletePlatform(PlatId),
    /// A log-in, or its refresh.
    PutFamily(PlatId, Family),
    /// The end of a log-in.
    EndFamily(PlatId, FamilyId),
}

/// Whether a record of the store is one of these.
#[must_use]
pub fn is_ours(key: &[u8]) -> bool {
    matches!(key, [b'x', b'p' | b'r', 0, ..])
}

/// Whom a platform's AuthToken is sealed for.
pub(super) fn owner(id: PlatId) -> String {
    format!("xp\0{id}")
}

fn family_key(id: PlatId, family: FamilyId) -> Box<[u8]> {
    format!("xr\0{id}\0{family}").into_bytes().into()
}

impl Change {
    /// What the store is to be told.
    #[must_use]
    pub fn op(&self) -> Op {
        match self {
            Self::PutPlatform(id, platform) => Op::RegistryPut(owner(*id).into_bytes().into(), encode(platform)),
            Self::DeletePlatform(id) => Op::RegistryDelete(owner(*id).into_bytes().into()),
            Self::PutFamily(id, family) => {
                let value = [&[LAYOUT][..], &family.until_ms.to_be_bytes(), &family.refresh.0].concat();
                Op::RegistryPut(family_key(*id, family.id), value.into())
            }
            Self::EndFamily(id, family) => Op::RegistryDelete(family_key(*id, *family)),
        }
    }

    /// The change that made a record.
    pub(super) fn decode(key: &[u8], value: &[u8]) -> Result<Self, RecordError> {
        let damaged = || RecordError::Damaged("a platform".to_owned());
        let text = std::str::from_utf8(key).map_err(|_| damaged())?;
        let (&layout, rest) = value.split_first().ok_or_else(damaged)?;
        if layout != LAYOUT {
            return Err(RecordError::Layout(layout));
        }
        let mut parts = text.split('\0');
        let (kind, id, family) = (parts.next(), parts.next().and_then(PlatId::parse), parts.next());
        let id = id.filter(|_| parts.next().is_none()).ok_or_else(damaged)?;
        match (kind, family) {
            (Some("xp"), None) => {
                let platform = decode(rest).ok_or_else(damaged)?;
                Ok(Self::PutPlatform(id, Arc::new(platform)))
            }
            (Some("xr"), Some(family)) => {
                let (until, hash) = rest.split_first_chunk::<8>().ok_or_else(damaged)?;
                Ok(Self::PutFamily(
                    id,
                    Family {
                        id: FamilyId::parse(family).ok_or_else(damaged)?,
                        refresh: TokenHash(hash.try_into().map_err(|_| damaged())?),
                        until_ms: u64::from_be_bytes(*until),
                        access: None,
                    },
                ))
            }
            _ => Err(damaged()),
        }
    }
}

fn encode(platform: &Platform) -> Box<[u8]> {
    // The plans hold to the bounds; what doesn't fit its length would be refused at the next start.
    let short = |length: usize| u8::try_from(length).unwrap_or(u8::MAX);
    let mut out = vec![LAYOUT, if platform.enabled { ENABLED } else { 0 }];
    out.extend(platform.created_at_s.to_be_bytes());
    out.push(short(platform.name.len()));
    out.extend(platform.name.as_bytes());
    out.push(short(platform.certificates.len()));
    platform.certificates.iter().for_each(|certificate| out.extend(certificate.as_bytes()));
    out.extend(u16::try_from(platform.grants.len()).unwrap_or(u16::MAX).to_be_bytes());
    for grant in &platform.grants {
        let product = grant.product.as_str();
        out.extend([if grant.control { CONTROL } else { 0 }, short(product.len())]);
        out.extend(product.as_bytes());
    }
    out.extend(platform.auth.as_bytes());
    out.into()
}

fn decode(bytes: &[u8]) -> Option<Platform> {
    let (&flags, rest) = bytes.split_first()?;
    let (created, rest) = rest.split_first_chunk::<8>()?;
    let (name, rest) = short_text(rest)?;
    let (&count, mut rest) = rest.split_first()?;
    let mut certificates = Vec::new();
    for _ in 0..count {
        let (certificate, after) = rest.split_first_chunk::<32>()?;
        certificates.push(Fingerprint::from_bytes(*certificate));
        rest = after;
    }
    let (count, mut rest) = rest.split_first_chunk::<2>()?;
    let mut grants = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (&flags, after) = rest.split_first()?;
        let (product, after) = short_text(after)?;
        grants.push(Grant { product: ProductKey::parse(product).ok()?, control: flags & CONTROL != 0 });
        rest = after;
        if flags & !CONTROL != 0 {
            return None;
        }
    }
    let bounded = certificates.len() <= CERTIFICATES_MAX && grants.len() <= GRANTS_MAX && name.len() <= NAME_BYTES_MAX;
    (flags & !ENABLED == 0 && bounded).then(|| Platform {
        name: name.into(),
        enabled: flags & ENABLED != 0,
        created_at_s: u64::from_be_bytes(*created),
        certificates,
        grants,
        auth: Sealed::from_bytes(rest),
    })
}

fn short_text(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (&length, rest) = bytes.split_first()?;
    let (text, rest) = rest.split_at_checked(usize::from(length))?;
    Some((std::str::from_utf8(text).ok()?, rest))
}
