//! Records of the registry, as the store keeps them.
//!
//! | key | value |
//! |---|---|
//! | `p\0{product}` | layout, flags, created (seconds, 8 bytes) |
//! | `a\0{product}` | layout, allowed profiles (bits, one byte, or two if it takes two); absent where they are `native` and `aliyun` |
//! | `d\0{product}\0{device}` | layout, flags, created (seconds, 8 bytes), sealed secret, if there is one |
//! | `k\0{product}\0{device}` | layout, then for each public key and certificate: kind, length (2 bytes), the `SubjectPublicKeyInfo` or the SHA-256 |
//! | `y\0{product}` | layout, flags (2 bytes) of what it demands of log-ins; absent where that is nothing |
//! | `pl\0{product}` | layout, then what is done with payloads ([`PayloadPolicy::encode`]); absent where they are plain |
//! | `c\0{product}` | layout, then for each CA certificate: length (2 bytes), the certificate |
//! | `t\0{product}\0{device}` | layout, what the device is expected to state: MAC (6 bytes), length and text of the firmware's version, sealed factor |
//! | `v\0{product}` | layout, the name of who judges its devices; absent where the broker does |
//! | `l\0{product}` | layout, flags, then up to two rates of messages and two of bytes as text, each after its length (a byte) |
//! | `r\0{product}\0{device}` | layout, then a rate of messages and one of bytes, in the same way |
//! | `g\0{product}\0{device}` | layout, then the region and each tag as text after its length (a byte, 0 where there is no region); absent where it has neither |
//! | `m\0{mark}` | layout |
//!
//! Numbers are big-endian. A secret is sealed for the key of its record, so it opens in no other.

use std::sync::Arc;

use turnpike_core::durable::Op;

use crate::attest::{Expectation, factor_owner};
use crate::cipher::PayloadPolicy;
use crate::keys::Proofs;
use crate::labels::Labels;
use crate::limits::{WrittenFlow, WrittenLimits};
use crate::names::{DeviceName, ProductKey};
use crate::plan::Change;
use crate::product::ProductPolicy;
use crate::profile::ProfileSet;
use crate::registry::{Device, Product};
use crate::secret::Sealed;
use crate::verifier::VerifierName;
use crate::x509::Authorities;

/// First byte of each value.
const LAYOUT: u8 = 1;
const ENABLED: u8 = 1;

/// Why a record of the store can't be taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordError {
    /// Written by a later version.
    #[error("a registry record has layout {0}; this version reads layout {LAYOUT}")]
    Layout(u8),
    /// It isn't what such a record is.
    #[error("a registry record of {0} is damaged")]
    Damaged(String),
    /// It is somebody else's, who says this.
    #[error("{0}")]
    Foreign(String),
}

/// Whom a device's secret is sealed for: the key of its record.
#[must_use]
pub fn owner(product: &str, device: &str) -> String {
    // Each log-in needs it.
    ["d\0", product, "\0", device].concat()
}

pub(crate) fn encode(change: &Change) -> Op {
    match change {
        Change::PutProduct(key, product) => {
            Op::RegistryPut(product_key('p', key), value(product.enabled, product.created_at_s, &[]))
        }
        Change::DeleteProduct(key) => Op::RegistryDelete(product_key('p', key)),
        Change::AllowProfiles(key, ProfileSet::DEFAULT) => Op::RegistryDelete(product_key('a', key)),
        Change::AllowProfiles(key, profiles) => {
            let value = match profiles.bits().to_be_bytes() {
                [0, low] => Box::from([LAYOUT, low]),
                [high, low] => Box::from([LAYOUT, high, low]) as Box<[u8]>,
            };
            Op::RegistryPut(product_key('a', key), value)
        }
        Change::PutDevice(product, name, device) => {
            let value = value(device.enabled, device.created_at_s, device.secret.as_bytes());
            Op::RegistryPut(device_key(product, name), value)
        }
        Change::DeleteDevice(product, name) => Op::RegistryDelete(device_key(product, name)),
        Change::SetProofs(product, name, proofs) => {
            let key = format!("k\0{product}\0{name}").into_bytes().into();
            put_or_delete(key, proofs.as_ref().map(|proofs| proofs.to_record()))
        }
        Change::SetPolicy(key, policy) => {
            let record = (*policy != ProductPolicy::default()).then(|| policy.to_record().to_vec());
            put_or_delete(product_key('y', key), record)
        }
        Change::SetPayloads(key, policy) => {
            let record = (*policy != PayloadPolicy::Plain).then(|| policy.encode());
            put_or_delete(format!("pl\0{key}").into_bytes().into(), record)
        }
        Change::SetAuthorities(key, authorities) => {
            put_or_delete(product_key('c', key), authorities.as_ref().map(|authorities| authorities.to_record()))
        }
        Change::SetExpectation(product, name, expectation) => {
            let key = factor_owner(product.as_str(), name.as_str()).into_bytes().into();
            put_or_delete(key, expectation.as_ref().map(|expectation| expectation.to_record()))
        }
        Change::SetVerifier(key, verifier) => {
            put_or_delete(product_key('v', key), verifier.as_ref().map(|name| name.as_str().as_bytes().to_vec()))
        }
        Change::LimitProduct(key, limits) => {
            put_or_delete(product_key('l', key), limits.as_ref().map(|limits| limits.to_record()))
        }
        Change::LimitDevice(product, name, flow) => {
            let key = format!("r\0{product}\0{name}").into_bytes().into();
            put_or_delete(key, flow.as_ref().map(|flow| flow.to_record()))
        }
        Change::SetLabels(product, name, labels) => {
            let key = format!("g\0{product}\0{name}").into_bytes().into();
            put_or_delete(key, labels.as_ref().map(|labels| labels.to_record()))
        }
        Change::Mark(mark) => Op::RegistryPut(format!("m\0{mark}").into_bytes().into(), Box::from([LAYOUT])),
    }
}

fn put_or_delete(key: Box<[u8]>, rest: Option<Vec<u8>>) -> Op {
    match rest {
        Some(rest) => Op::RegistryPut(key, [&[LAYOUT][..], &rest].concat().into()),
        None => Op::RegistryDelete(key),
    }
}

fn product_key(kind: char, product: &ProductKey) -> Box<[u8]> {
    format!("{kind}\0{product}").into_bytes().into()
}

fn device_key(product: &ProductKey, device: &DeviceName) -> Box<[u8]> {
    owner(product.as_str(), device.as_str()).into_bytes().into()
}

fn value(enabled: bool, created_at_s: u64, rest: &[u8]) -> Box<[u8]> {
    let head = [LAYOUT, if enabled { ENABLED } else { 0 }];
    [&head[..], &created_at_s.to_be_bytes(), rest].concat().into()
}

/// The change that made a record.
pub(crate) fn decode(key: &[u8], value: &[u8]) -> Result<Change, RecordError> {
    let text = std::str::from_utf8(key).map_err(|_| RecordError::Damaged("an unreadable key".to_owned()))?;
    let mut parts = text.split('\0');
    let (kind, first, second) = (parts.next(), parts.next(), parts.next());
    // Without the device's name: this ends up in a log.
    let damaged = || RecordError::Damaged(format!("kind {:?} and {:?}", kind.unwrap_or(""), first.unwrap_or("")));
    let (&layout, rest) = value.split_first().ok_or_else(damaged)?;
    if layout != LAYOUT {
        return Err(RecordError::Layout(layout));
    }
    if parts.next().is_some() {
        return Err(damaged());
    }
    let first = first.ok_or_else(damaged)?;
    let product = || ProductKey::parse(first).map_err(|_| damaged());
    match (kind, second) {
        (Some("m"), None) if rest.is_empty() => Ok(Change::Mark(first.into())),
        (Some("p"), None) => {
            let (enabled, created_at_s, rest) = head(rest).ok_or_else(damaged)?;
            let whole = rest.is_empty().then_some(Product { enabled, created_at_s });
            Ok(Change::PutProduct(product()?, whole.ok_or_else(damaged)?))
        }
        (Some("a"), None) => {
            let bits = match *rest {
                [low] => u16::from(low),
                [high, low] if high > 0 => u16::from_be_bytes([high, low]),
                _ => return Err(damaged()),
            };
            let profiles = ProfileSet::from_bits(bits).filter(|profiles| *profiles != ProfileSet::DEFAULT);
            Ok(Change::AllowProfiles(product()?, profiles.ok_or_else(damaged)?))
        }
        (Some("d"), Some(device)) => {
            let (enabled, created_at_s, rest) = head(rest).ok_or_else(damaged)?;
            let name = DeviceName::parse(device).map_err(|_| damaged())?;
            let device = Device { enabled, created_at_s, secret: Sealed::from_bytes(rest) };
            Ok(Change::PutDevice(product()?, name, device))
        }
        (Some("k"), Some(device)) => {
            let name = DeviceName::parse(device).map_err(|_| damaged())?;
            let proofs = Proofs::from_record(rest).ok_or_else(damaged)?;
            Ok(Change::SetProofs(product()?, name, Some(Arc::new(proofs))))
        }
        (Some("y"), None) => {
            let policy = ProductPolicy::from_record(rest).filter(|policy| *policy != ProductPolicy::default());
            Ok(Change::SetPolicy(product()?, policy.ok_or_else(damaged)?))
        }
        (Some("pl"), None) => {
            let policy = PayloadPolicy::decode(rest).filter(|policy| *policy != PayloadPolicy::Plain);
            Ok(Change::SetPayloads(product()?, policy.ok_or_else(damaged)?))
        }
        (Some("c"), None) => {
            let authorities = Authorities::from_record(rest).ok_or_else(damaged)?;
            Ok(Change::SetAuthorities(product()?, Some(Arc::new(authorities))))
        }
        (Some("t"), Some(device)) => {
            let name = DeviceName::parse(device).map_err(|_| damaged())?;
            let expectation = Expectation::from_record(rest).ok_or_else(damaged)?;
            Ok(Change::SetExpectation(product()?, name, Some(Arc::new(expectation))))
        }
        (Some("v"), None) => {
            let name = std::str::from_utf8(rest).ok().and_then(|name| VerifierName::parse(name).ok());
            Ok(Change::SetVerifier(product()?, Some(name.ok_or_else(damaged)?)))
        }
        (Some("l"), None) => {
            let limits = WrittenLimits::from_record(rest).ok_or_else(damaged)?;
            Ok(Change::LimitProduct(product()?, Some(Arc::new(limits))))
        }
        (Some("r"), Some(device)) => {
            let name = DeviceName::parse(device).map_err(|_| damaged())?;
            let flow = WrittenFlow::from_record(rest).ok_or_else(damaged)?;
            Ok(Change::LimitDevice(product()?, name, Some(Arc::new(flow))))
        }
        (Some("g"), Some(device)) => {
            let name = DeviceName::parse(device).map_err(|_| damaged())?;
            let labels = Labels::from_record(rest).ok_or_else(damaged)?;
            Ok(Change::SetLabels(product()?, name, Some(Arc::new(labels))))
        }
        _ => Err(damaged()),
    }
}

fn head(bytes: &[u8]) -> Option<(bool, u64, &[u8])> {
    let (&flags, rest) = bytes.split_first()?;
    let (created, rest) = rest.split_first_chunk::<8>()?;
    (flags & !ENABLED == 0).then_some((flags & ENABLED != 0, u64::from_be_bytes(*created), rest))
}

#[cfg(test)]
pub(crate) mod testing {
    use std::fmt::Debug;

    use super::{Op, RecordError};

    /// The key and the value that are put.
    pub(crate) fn put(op: Op) -> (Box<[u8]>, Box<[u8]>) {
        match op {
            Op::RegistryPut(key, value) => (key, value),
            other => panic!("{other:?} is no put"),
        }
    }

    /// What each kind of record holds to: it gives back what made it, and another layout, a value that breaks off, and a key that goes on are told apart.
    pub(crate) fn is_sound<C: PartialEq + Debug>(
        changes: impl IntoIterator<Item = C>,
        encode: impl Fn(&C) -> Op,
        decode: impl Fn(&[u8], &[u8]) -> Result<C, RecordError>,
    ) {
        for change in changes {
            let (key, value) = put(encode(&change));
            let mut later = value.to_vec();
            later[0] = 2;
            assert_eq!(decode(&key, &later), Err(RecordError::Layout(2)));
            for broken_off in [&value[..0], &value[..1.min(value.len() - 1)]] {
                assert!(matches!(decode(&key, broken_off), Err(RecordError::Damaged(_))), "{key:?}");
            }
            assert!(matches!(decode(&[&key[..], b"\0x"].concat(), &value), Err(RecordError::Damaged(_))));
            assert!(matches!(decode(&[0xFF], &value), Err(RecordError::Damaged(_))));
            assert_eq!(decode(&key, &value), Ok(change));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cipher::CipherPolicy;
    use crate::keys::{Proof, testing};
    use crate::labels::LabelsRequest;
    use crate::profile::Profile;
    use crate::x509::Fingerprint;
    use crate::x509::testing::Authority;

    fn put(change: &Change) -> (Box<[u8]>, Box<[u8]>) {
        super::testing::put(encode(change))
    }

    fn product() -> ProductKey {
        ProductKey::parse("p").expect("a name")
    }

    fn changes() -> [Change; 15] {
        let (product, name) = (product(), DeviceName::parse("d").expect("a name"));
        let secret = Sealed::from_bytes(&[9; 61]);
        let key = Proof::Key(testing::private(&testing::ed25519_pem()).public().clone());
        let proofs = Proofs::new(vec![key, Proof::Certificate(Fingerprint::of(b"x"))]).expect("a list");
        let policy = ProductPolicy {
            allow_rsa_1024: true,
            require_certificate: true,
            require_attestation: true,
            refuse_clones: Some(false),
            ..ProductPolicy::default()
        };
        let expectation = Expectation {
            mac: crate::attest::MacAddress::new([1; 6]),
            firmware: crate::attest::Firmware::parse("1.2.3").ok(),
            factor: Sealed::from_bytes(&[9; 40]),
        };
        let flow = WrittenFlow { messages: "1/s".parse().expect("a rate"), ..WrittenFlow::default() };
        let limits = WrittenLimits { each_device: Some(flow.clone()), ..WrittenLimits::default() };
        let labels = LabelsRequest::new(Some(["beta", "shop"]), Some("eu")).expect("labels").onto(None);
        [
            Change::LimitProduct(product.clone(), Some(Arc::new(limits))),
            Change::LimitDevice(product.clone(), name.clone(), Some(Arc::new(flow))),
            Change::AllowProfiles(product.clone(), ProfileSet::from_iter([Profile::Aliyun])),
            Change::AllowProfiles(product.clone(), ProfileSet::ALL),
            Change::SetProofs(product.clone(), name.clone(), Some(Arc::new(proofs))),
            Change::SetPolicy(product.clone(), policy),
            Change::SetPayloads(product.clone(), PayloadPolicy::Transparent),
            Change::SetPayloads(product.clone(), PayloadPolicy::Cipher(CipherPolicy::default())),
            Change::SetAuthorities(product.clone(), Some(Arc::new(Authority::new("ca").authorities()))),
            Change::SetExpectation(product.clone(), name.clone(), Some(Arc::new(expectation))),
            Change::SetVerifier(product.clone(), Some(VerifierName::callout())),
            Change::SetLabels(product.clone(), name.clone(), labels),
            Change::PutProduct(product.clone(), Product { enabled: true, created_at_s: 7 }),
            Change::PutDevice(product, name, Device { enabled: false, created_at_s: u64::MAX, secret }),
            Change::Mark("demo".into()),
        ]
    }

    #[test]
    fn a_record_gives_back_what_made_it_and_damage_is_told_apart() {
        super::testing::is_sound(changes(), encode, decode);
        for change in changes() {
            let (key, value) = put(&change);
            if !matches!(change, Change::PutDevice(..) | Change::SetExpectation(..)) {
                assert!(matches!(decode(&key, &[&value[..], &[0]].concat()), Err(RecordError::Damaged(_))));
            }
        }
        let policy = Change::SetPolicy(ProductKey::parse("p").expect("a name"), ProductPolicy::default());
        assert!(matches!(encode(&policy), Op::RegistryDelete(_)), "no demands, no record");
        for flags in [[0x80, 0], [0, 0x80], [0, 24], [0, 0]] {
            assert!(matches!(decode(b"y\0p", &[LAYOUT, flags[0], flags[1]]), Err(RecordError::Damaged(_))));
        }
        let plain = Change::SetPayloads(product(), PayloadPolicy::Plain);
        assert!(matches!(encode(&plain), Op::RegistryDelete(_)), "plain, no record");
        assert!(matches!(decode(b"pl\0p", &[LAYOUT, 0]), Err(RecordError::Damaged(_))));
        let (key, value) = put(&changes()[2]);
        assert!(matches!(decode(&key, &[&value[..], &[0]].concat()), Err(RecordError::Damaged(_))));
        // Of a later version; not as it is written; absent instead.
        for bad in [&[LAYOUT, 1, 0][..], &[LAYOUT, 0, 4], &[LAYOUT, 3]] {
            assert!(matches!(decode(&key, bad), Err(RecordError::Damaged(_))), "{bad:?}");
        }
        for old in 0..3 {
            let expected = Change::AllowProfiles(product(), ProfileSet::from_bits(old.into()).expect("known"));
            assert_eq!(decode(&key, &[LAYOUT, old]), Ok(expected), "what earlier versions wrote");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            key in proptest::collection::vec(any::<u8>(), 0..20),
            text in "([padmkyctvlrg]|pl)\0[a-z/\0]{0,10}",
            value in proptest::collection::vec(0_u8..4, 0..20),
        ) {
            let _ = decode(&key, &value);
            if let Ok(change) = decode(text.as_bytes(), &value) {
                let (key, again) = put(&change);
                prop_assert_eq!((&*key, &*again), (text.as_bytes(), &*value));
            }
        }
    }
}
