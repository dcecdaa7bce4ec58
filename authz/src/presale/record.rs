//! Records of packages and lists, beside those of the registry ([`crate::registry`]).
//!
//! | key | value |
//! |---|---|
//! | `ps\0{product}` | layout, ways (bits), package (0 if none), sealed secret of the product if there is one |
//! | `pp\0{product}\0{package}` | layout, flags, created (seconds, 8 bytes), expires (the same, all ones if never), quota, issued, sealed secret |
//! | `pi\0{product}\0{kind}\0{identifier}` | layout, package, the device's name if it has registered one |
//! | `pk\0{product}\0{package}\0{index}` | layout, the device's name |
//!
//! Numbers are big-endian, of 4 bytes where nothing else is said; in keys they are decimal.

use turnpike_core::durable::Op;

use super::Ways;
use super::book::{Change, Package, PackageId, Settings};
use super::identifier::{Identifier, Kind};
use crate::names::{DeviceName, ProductKey};
use crate::record::RecordError;
use crate::secret::Sealed;

const LAYOUT: u8 = 1;
const ENABLED: u8 = 1;
const NEVER: u64 = u64::MAX;

/// Whether a record of the registry is one of these, and not one of [`crate::registry::Registry::load`].
#[must_use]
pub fn is_record(key: &[u8]) -> bool {
    matches!(key, [b'p', b's' | b'p' | b'i' | b'k', 0, ..])
}

pub(super) fn encode(change: &Change) -> Op {
    let bytes = |text: String| text.into_bytes().into_boxed_slice();
    match change {
        Change::PutSettings(product, settings) => {
            let key = bytes(format!("ps\0{product}"));
            if *settings == Settings::default() {
                return Op::RegistryDelete(key);
            }
            let package = settings.package.map_or(0, PackageId::get).to_be_bytes();
            let secret = settings.secret.as_ref().map_or(&[][..], Sealed::as_bytes);
            Op::RegistryPut(key, [&[LAYOUT, settings.ways.bits()], &package[..], secret].concat().into())
        }
        Change::PutPackage(product, id, package) => {
            let head = [LAYOUT, if package.enabled { ENABLED } else { 0 }];
            let value = [
                &head[..],
                &package.created_at_s.to_be_bytes(),
                &package.expires_at_s.unwrap_or(NEVER).to_be_bytes(),
                &package.quota.to_be_bytes(),
                &package.issued.to_be_bytes(),
                package.secret.as_bytes(),
            ];
            Op::RegistryPut(bytes(format!("pp\0{product}\0{id}")), value.concat().into())
        }
        Change::DeletePackage(product, id) => Op::RegistryDelete(bytes(format!("pp\0{product}\0{id}"))),
        Change::List(product, identifier, package, device) => {
            let device = device.as_ref().map_or("", DeviceName::as_str);
            let value = [&[LAYOUT], &package.get().to_be_bytes()[..], device.as_bytes()];
            Op::RegistryPut(bytes(identifier_key(product, identifier)), value.concat().into())
        }
        Change::Unlist(product, identifier) => Op::RegistryDelete(bytes(identifier_key(product, identifier))),
        Change::UseKey(product, id, index, device) => {
            let value = [&[LAYOUT], device.as_str().as_bytes()];
            Op::RegistryPut(bytes(format!("pk\0{product}\0{id}\0{index}")), value.concat().into())
        }
        Change::ReleaseKey(product, id, index) => Op::RegistryDelete(bytes(format!("pk\0{product}\0{id}\0{index}"))),
    }
}

fn identifier_key(product: &ProductKey, identifier: &Identifier) -> String {
    format!("pi\0{product}\0{}\0{identifier}", identifier.kind().as_str())
}

/// The change that made a record.
pub(super) fn decode(key: &[u8], value: &[u8]) -> Result<Change, RecordError> {
    let text = std::str::from_utf8(key).map_err(|_| RecordError::Damaged("an unreadable key".to_owned()))?;
    let parts: Vec<&str> = text.split('\0').collect();
    // Without the rest: that identifies a device, and this ends up in a log.
    let damaged = || RecordError::Damaged(parts.iter().take(2).copied().collect::<Vec<_>>().join(" of "));
    let (&layout, rest) = value.split_first().ok_or_else(damaged)?;
    if layout != LAYOUT {
        return Err(RecordError::Layout(layout));
    }
    let change = match parts.as_slice() {
        ["ps", product] => settings(rest).map(|settings| (product, Part::Settings(settings))),
        ["pp", product, id] => number(id)
            .and_then(PackageId::new)
            .zip(package(rest))
            .map(|(id, package)| (product, Part::Package(id, package))),
        ["pi", product, kind, identifier] => listing(kind, identifier, rest).map(|part| (product, part)),
        ["pk", product, id, index] => key_use(id, index, rest).map(|part| (product, part)),
        _ => None,
    };
    let (product, part) = change.ok_or_else(damaged)?;
    let product = ProductKey::parse(product).map_err(|_| damaged())?;
    Ok(match part {
        Part::Settings(settings) => Change::PutSettings(product, settings),
        Part::Package(id, package) => Change::PutPackage(product, id, package),
        Part::Listing(identifier, id, device) => Change::List(product, identifier, id, device),
        Part::KeyUse(id, index, device) => Change::UseKey(product, id, index, device),
    })
}

/// A record without its product.
enum Part {
    Settings(Settings),
    Package(PackageId, Package),
    Listing(Identifier, PackageId, Option<DeviceName>),
    KeyUse(PackageId, u32, DeviceName),
}

/// As `encode` writes it, and in no other way: a key is looked up by its bytes.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number: &u32| number.to_string() == text)
}

fn sealed(bytes: &[u8]) -> Option<Sealed> {
    (!bytes.is_empty()).then(|| Sealed::from_bytes(bytes))
}

fn settings(rest: &[u8]) -> Option<Settings> {
    let (&ways, rest) = rest.split_first()?;
    let (package, secret) = rest.split_first_chunk()?;
    let package = match u32::from_be_bytes(*package) {
        0 => None,
        number => Some(PackageId::new(number)?),
    };
    let settings = Settings { ways: Ways::from_bits(ways), package, secret: sealed(secret) };
    (settings != Settings::default()).then_some(settings)
}

fn package(rest: &[u8]) -> Option<Package> {
    let (&flags, rest) = rest.split_first().filter(|(flags, _)| **flags & !ENABLED == 0)?;
    let (created, rest) = rest.split_first_chunk()?;
    let (expires, rest) = rest.split_first_chunk()?;
    let (quota, rest) = rest.split_first_chunk()?;
    let (issued, secret) = rest.split_first_chunk()?;
    let expires = u64::from_be_bytes(*expires);
    Some(Package {
        enabled: flags & ENABLED != 0,
        created_at_s: u64::from_be_bytes(*created),
        expires_at_s: (expires != NEVER).then_some(expires),
        quota: u32::from_be_bytes(*quota),
        issued: u32::from_be_bytes(*issued),
        secret: sealed(secret)?,
    })
}

fn name(bytes: &[u8]) -> Option<DeviceName> {
    std::str::from_utf8(bytes).ok().and_then(|text| DeviceName::parse(text).ok())
}

fn listing(kind: &str, text: &str, rest: &[u8]) -> Option<Part> {
    let kind = Kind::ALL.into_iter().find(|known| known.as_str() == kind)?;
    let identifier = Identifier::parse(kind, text).ok().filter(|identifier| identifier.to_string() == text)?;
    let (package, device) = rest.split_first_chunk()?;
    let device = if device.is_empty() { None } else { Some(name(device)?) };
    Some(Part::Listing(identifier, PackageId::new(u32::from_be_bytes(*package))?, device))
}

fn key_use(id: &str, index: &str, rest: &[u8]) -> Option<Part> {
    Some(Part::KeyUse(PackageId::new(number(id)?)?, number(index)?, name(rest)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Way;
    use super::*;

    fn put(change: &Change) -> (Box<[u8]>, Box<[u8]>) {
        crate::record::testing::put(encode(change))
    }

    fn changes() -> Vec<Change> {
        let product = || ProductKey::parse("p").expect("a name");
        let device = || DeviceName::parse("d").expect("a name");
        let id = PackageId::new(77).expect("a number");
        let secret = Sealed::from_bytes(&[9; 45]);
        let package = Package {
            enabled: true,
            created_at_s: 5,
            expires_at_s: Some(6),
            quota: 7,
            issued: 3,
            secret: secret.clone(),
        };
        let forever = Package { enabled: false, expires_at_s: None, ..package.clone() };
        let serial = Identifier::parse(Kind::Serial, "SN-1").expect("a serial");
        vec![
            Change::PutSettings(
                product(),
                Settings { ways: [Way::Listed].into_iter().collect(), ..Settings::default() },
            ),
            Change::PutSettings(product(), Settings { package: Some(id), secret: Some(secret), ..Settings::default() }),
            Change::PutPackage(product(), id, package),
            Change::PutPackage(product(), id, forever),
            Change::List(product(), Identifier::Mac(0x1A2B), id, None),
            Change::List(product(), serial, id, Some(device())),
            Change::UseKey(product(), id, 0, device()),
        ]
    }

    #[test]
    fn a_record_gives_back_what_made_it_and_damage_is_told_apart() {
        crate::record::testing::is_sound(changes(), encode, decode);
        assert!(changes().iter().all(|change| is_record(&put(change).0)));
        assert!(!is_record(b"p\0product") && !is_record(b"d\0product\0device"));
    }

    #[test]
    fn what_is_removed_is_deleted_under_the_key_that_it_was_put_under() {
        let product = || ProductKey::parse("p").expect("a name");
        let device = DeviceName::parse("d").expect("a name");
        let id = PackageId::FIRST;
        let package = changes().into_iter().find_map(|change| match change {
            Change::PutPackage(_, _, package) => Some(package),
            _ => None,
        });
        let pairs = [
            (Change::PutPackage(product(), id, package.expect("one")), Change::DeletePackage(product(), id)),
            (Change::List(product(), Identifier::Imei(1), id, None), Change::Unlist(product(), Identifier::Imei(1))),
            (Change::UseKey(product(), id, 4, device), Change::ReleaseKey(product(), id, 4)),
            (changes().remove(0), Change::PutSettings(product(), Settings::default())),
        ];
        for (made, removed) in pairs {
            assert_eq!(encode(&removed), Op::RegistryDelete(put(&made).0));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            key in proptest::collection::vec(any::<u8>(), 0..20),
            text in "p[spik]\0[a-z]{1,2}(\0[0-9a-z]{1,15}){0,2}|pi\0p\0(mac|imei|serial)\0[0-9A-F]{12}",
            value in proptest::collection::vec(0_u8..4, 0..40),
        ) {
            let _ = decode(&key, &value);
            if let Ok(change) = decode(text.as_bytes(), &value) {
                let (key, again) = put(&change);
                prop_assert_eq!((&*key, &*again), (text.as_bytes(), &*value));
            }
        }
    }
}
