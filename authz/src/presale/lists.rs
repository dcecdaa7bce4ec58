//! The identifiers of a product's allow-lists.
//!
//! B-trees whose values are 4 bytes. `cargo run --release -p turnpike-authz --example list_figures` prints what an identifier costs, a million of a kind
//! in ascending order (which packs a B-tree worst) and scattered:
//!
//! | what | bytes |
//! |---|---|
//! | MAC, IMEI | 23–29 |
//! | a serial number of up to 24 characters | 47–58 |
//! | a longer one, of 28 characters | 82–90 |
//!
//! The short serial numbers stand in the tree itself: a boxed text of 16 characters took 66–74 bytes. Only identifiers used for a device of another name
//! remember which.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::book::PackageId;
use super::identifier::{Identifier, Kind};
use crate::names::DeviceName;

/// What is known of a listed identifier.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// Its package.
    pub package: PackageId,
    /// The device that it has registered.
    pub device: Option<DeviceName>,
}

/// The package, and in the highest bit whether it has registered a device.
#[derive(Clone, Copy)]
struct Entry(u32);

const USED: u32 = 1 << 31;

impl Entry {
    fn new(package: PackageId, is_used: bool) -> Self {
        Self(package.get() | if is_used { USED } else { 0 })
    }

    fn package(self) -> Option<PackageId> {
        PackageId::new(self.0 & !USED)
    }

    fn is_used(self) -> bool {
        self.0 & USED != 0
    }
}

/// A serial number of up to 24 characters, zeros behind it. None of its characters is a zero, so the order is that of the texts.
type Short = [u8; 24];

fn short(text: &str) -> Option<Short> {
    let mut bytes = [0; 24];
    bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
    Some(bytes)
}

fn text(bytes: &Short) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default().trim_end_matches('\0')
}

/// The lists of a product.
#[derive(Default)]
pub(super) struct Lists {
    macs: BTreeMap<u64, Entry>,
    imeis: BTreeMap<u64, Entry>,
    short: BTreeMap<Short, Entry>,
    long: BTreeMap<Box<str>, Entry>,
    /// Devices of used identifiers, where the device isn't named by it.
    named: BTreeMap<Identifier, DeviceName>,
}

impl Lists {
    /// Puts on the list. It isn't there.
    pub(super) fn insert(&mut self, identifier: Identifier, package: PackageId, device: Option<DeviceName>) {
        let entry = Entry::new(package, device.is_some());
        if let Some(device) = device.filter(|device| device.as_str() != identifier.to_string()) {
            self.named.insert(identifier.clone(), device);
        }
        match identifier {
            Identifier::Mac(bits) => self.macs.insert(bits, entry),
            Identifier::Imei(digits) => self.imeis.insert(digits, entry),
            Identifier::Serial(text) => match short(&text) {
                Some(text) => self.short.insert(text, entry),
                None => self.long.insert(text, entry),
            },
        };
    }

    /// Takes off the list; says what was known of it.
    pub(super) fn remove(&mut self, identifier: &Identifier) -> Option<Listed> {
        let listed = self.get(identifier)?;
        match identifier {
            Identifier::Mac(bits) => self.macs.remove(bits),
            Identifier::Imei(digits) => self.imeis.remove(digits),
            Identifier::Serial(text) => match short(text) {
                Some(text) => self.short.remove(&text),
                None => self.long.remove(text),
            },
        };
        self.named.remove(identifier);
        Some(listed)
    }

    /// What is known of an identifier; none if it isn't listed.
    pub(super) fn get(&self, identifier: &Identifier) -> Option<Listed> {
        let entry = match identifier {
            Identifier::Mac(bits) => self.macs.get(bits),
            Identifier::Imei(digits) => self.imeis.get(digits),
            Identifier::Serial(text) => match short(text) {
                Some(text) => self.short.get(&text),
                None => self.long.get(text),
            },
        };
        self.listed(identifier, *entry?)
    }

    fn listed(&self, identifier: &Identifier, entry: Entry) -> Option<Listed> {
        let by_itself = || DeviceName::parse(&identifier.to_string()).ok();
        let device = if entry.is_used() { self.named.get(identifier).cloned().or_else(by_itself) } else { None };
        entry.package().map(|package| Listed { package, device })
    }

    /// Up to `limit` identifiers of a kind after one, in order, long serial numbers last.
    pub(super) fn page(&self, kind: Kind, after: Option<&Identifier>, limit: usize) -> Vec<(Identifier, Listed)> {
        let number = match after {
            Some(Identifier::Mac(number) | Identifier::Imei(number)) => Bound::Excluded(*number),
            Some(Identifier::Serial(_)) | None => Bound::Unbounded,
        };
        let page: Vec<(Identifier, Entry)> = match kind {
            Kind::Mac => {
                let range = self.macs.range((number, Bound::Unbounded)).take(limit);
                range.map(|(bits, entry)| (Identifier::Mac(*bits), *entry)).collect()
            }
            Kind::Imei => {
                let range = self.imeis.range((number, Bound::Unbounded)).take(limit);
                range.map(|(digits, entry)| (Identifier::Imei(*digits), *entry)).collect()
            }
            Kind::Serial => self.serials(after, limit),
        };
        let known = |(identifier, entry)| Some((self.listed(&identifier, entry)?, identifier));
        page.into_iter().filter_map(known).map(|(listed, identifier)| (identifier, listed)).collect()
    }

    fn serials(&self, after: Option<&Identifier>, limit: usize) -> Vec<(Identifier, Entry)> {
        let after = match after {
            Some(Identifier::Serial(text)) => Some(&**text),
            Some(Identifier::Mac(_) | Identifier::Imei(_)) | None => None,
        };
        let is_long = after.is_some_and(|text| short(text).is_none());
        let from_short = after.and_then(short).map_or(Bound::Unbounded, Bound::Excluded);
        let from_long = after.filter(|_| is_long).map_or(Bound::Unbounded, Bound::Excluded);
        let short = self.short.range((from_short, Bound::Unbounded)).take(if is_long { 0 } else { limit });
        let short = short.map(|(bytes, entry)| (Identifier::Serial(text(bytes).into()), *entry));
        let long = self.long.range::<str, _>((from_long, Bound::Unbounded));
        short.chain(long.map(|(text, entry)| (Identifier::Serial(text.clone()), *entry))).take(limit).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn identifier() -> impl Strategy<Value = Identifier> {
        prop_oneof![
            (1_u64..9).prop_map(Identifier::Mac),
            (1_u64..9).prop_map(Identifier::Imei),
            "[a-c]{4,6}|[a-c]{23,26}".prop_map(|text| Identifier::Serial(text.into())),
        ]
    }

    proptest! {
        #[test]
        fn as_a_plain_map_has_it(
            steps in proptest::collection::vec((identifier(), any::<bool>(), 1_u32..4, proptest::option::of("[a-z]{1,9}")), 1..60),
            limit in 1_usize..5,
        ) {
            let (mut lists, mut plain) = (Lists::default(), BTreeMap::new());
            for (identifier, is_removed, package, device) in steps {
                prop_assert_eq!(lists.remove(&identifier), plain.remove(&identifier));
                if !is_removed {
                    let package = PackageId::new(package).expect("a number");
                    let device = device.map(|text| DeviceName::parse(&text).expect("a name"));
                    lists.insert(identifier.clone(), package, device.clone());
                    plain.insert(identifier.clone(), Listed { package, device });
                }
                prop_assert_eq!(lists.get(&identifier), plain.get(&identifier).cloned());
            }
            for kind in Kind::ALL {
                let (mut pages, mut after) = (Vec::new(), None);
                loop {
                    let page = lists.page(kind, after.as_ref(), limit);
                    let Some((last, _)) = page.last() else { break };
                    prop_assert!(page.len() <= limit);
                    after = Some(last.clone());
                    pages.extend(page);
                }
                let mut expected: Vec<(Identifier, Listed)> =
                    plain.iter().filter(|(id, _)| id.kind() == kind).map(|(id, listed)| (id.clone(), listed.clone())).collect();
                expected.sort_by_key(|(id, _)| id.to_string().len() > 24);
                prop_assert_eq!(pages, expected);
            }
        }
    }
}
