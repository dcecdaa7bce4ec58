//! Named records, packed: what a million devices and users of bindings are kept in.
//!
//! A record has a group (a product, an app), a name within it, and bytes, its *tail*. It is one allocation, `group name tail`, the group as
//! a number of the part that it is in; a slot of 16 bytes points to it, and 4 bytes of a hash table to the slot. A
//! [`Ref`] names a slot in 4 bytes, so that records point to each other.
//!
//! - look-up by name, and by `Ref`: O(1), one read lock of 64;
//! - change: O(length of the record), one write lock of 64;
//! - [`Shelf::scan`]: all records in the order of their refs.
//!
//! What lost: *a map of structs with names and vectors*: three allocations and 48 bytes of headers for a device that one user is bound to.
//! *A sorted array of hashes*: names have to be listed, and to be compared, since whoever makes names could make them collide.
//!
//! **Invariant:** a record with an empty tail isn't kept; its ref is used again. Whoever keeps refs takes them away first.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use parking_lot::RwLock;

const PARTS: usize = 64;
const PART_BITS: u32 = PARTS.trailing_zeros();
/// Of names and groups; [`crate::names`] allows no more.
const NAME_BYTES_MAX: usize = 64;

/// Names a record: its part in the low bits, its slot above.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Ref(pub(crate) u32);

/// The records.
#[derive(Debug)]
pub(crate) struct Shelf {
    parts: Box<[RwLock<Part>]>,
    hasher: RandomState,
}

#[derive(Default, Debug)]
struct Part {
    groups: Vec<Group>,
    free_groups: Vec<u32>,
    group_index: HashTable<u32>,
    slots: Vec<Option<Box<[u8]>>>,
    free: Vec<u32>,
    index: HashTable<u32>,
}

/// The text is in place: one miss of the cache less for each look-up.
#[derive(Debug)]
struct Group {
    text: [u8; NAME_BYTES_MAX],
    length: u8,
    records: u32,
}

/// A record, taken apart.
#[derive(Clone, Copy)]
struct Parsed<'a> {
    group: u32,
    name: &'a [u8],
    tail: &'a [u8],
}

impl Default for Shelf {
    fn default() -> Self {
        Self { parts: (0..PARTS).map(|_| RwLock::default()).collect(), hasher: RandomState::default() }
    }
}

impl Shelf {
    /// Looks a record up by its name.
    #[inline]
    pub(crate) fn with<R>(&self, group: &str, name: &str, f: impl FnOnce(Ref, &[u8]) -> R) -> Option<R> {
        let hash = self.hash(group.as_bytes(), name.as_bytes());
        let (at, part) = self.part(hash)?;
        let part = part.read();
        let slot = part.find(hash, group.as_bytes(), name.as_bytes())?;
        Some(f(reference(at, slot), part.record(slot)?.tail))
    }

    /// Looks a record up by its ref: group, name, tail.
    pub(crate) fn at<R>(&self, at: Ref, f: impl FnOnce(&str, &str, &[u8]) -> R) -> Option<R> {
        let part = self.parts.get(at.0 as usize % PARTS)?.read();
        let record = part.record(at.0 >> PART_BITS)?;
        Some(f(text(part.group(record.group)), text(record.name), record.tail))
    }

    /// The same, if the record has that name: cheaper than looking it up.
    #[inline]
    pub(crate) fn at_if<R>(&self, at: Ref, group: &str, name: &str, f: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let part = self.parts.get(at.0 as usize % PARTS)?.read();
        let record = part.record(at.0 >> PART_BITS)?;
        let same = record.name == name.as_bytes() && part.group(record.group) == group.as_bytes();
        same.then(|| f(record.tail))
    }

    /// Four bits of a name, in the upper half of the byte.
    #[inline]
    pub(crate) fn print(&self, group: &str, name: &str) -> u8 {
        (self.hash(group.as_bytes(), name.as_bytes()) >> 40) as u8 & 0xF0
    }

    /// Changes a record's tail, which is empty if there was none; if it is empty afterwards, there is none any more.
    pub(crate) fn change(&self, group: &str, name: &str, f: impl FnOnce(&mut Vec<u8>)) -> Ref {
        let (group, name) = (group.as_bytes(), name.as_bytes());
        let hash = self.hash(group, name);
        let at = (hash >> 32) as usize % PARTS;
        let Some(part) = self.parts.get(at) else { return Ref(u32::MAX) };
        let mut part = part.write();
        let slot = match part.find(hash, group, name) {
            Some(slot) => slot,
            None => part.insert(hash, group, name, self),
        };
        part.change(slot, f, |part, record| self.hash(part.group(record.group), record.name));
        reference(at, slot)
    }

    /// The same for a record that exists; nothing happens if it doesn't.
    pub(crate) fn change_at(&self, at: Ref, f: impl FnOnce(&mut Vec<u8>)) {
        let Some(part) = self.parts.get(at.0 as usize % PARTS) else { return };
        let mut part = part.write();
        if part.record(at.0 >> PART_BITS).is_some() {
            part.change(at.0 >> PART_BITS, f, |part, record| self.hash(part.group(record.group), record.name));
        }
    }

    /// Every record behind `after`, in the order of parts and slots, until `f` says that it has enough. What changes meanwhile may be missed.
    pub(crate) fn scan(&self, after: Option<Ref>, mut f: impl FnMut(Ref, &str, &str, &[u8]) -> bool) {
        let (first_part, first_slot) = after.map_or((0, 0), |at| (at.0 as usize % PARTS, (at.0 >> PART_BITS) + 1));
        for (at, part) in self.parts.iter().enumerate().skip(first_part) {
            let part = part.read();
            let from = if at == first_part { first_slot } else { 0 };
            for slot in from..u32::try_from(part.slots.len()).unwrap_or(u32::MAX) {
                let Some(record) = part.record(slot) else { continue };
                if !f(reference(at, slot), text(part.group(record.group)), text(record.name), record.tail) {
                    return;
                }
            }
        }
    }

    /// How many records a group has.
    pub(crate) fn group_len(&self, group: &str) -> u64 {
        let hash = self.hash_group(group.as_bytes());
        let count = |part: &RwLock<Part>| {
            let part = part.read();
            let number = part.find_group(hash, group.as_bytes())?;
            part.groups.get(number as usize).map(|group| u64::from(group.records))
        };
        self.parts.iter().filter_map(count).sum()
    }

    fn part(&self, hash: u64) -> Option<(usize, &RwLock<Part>)> {
        let at = (hash >> 32) as usize % PARTS;
        self.parts.get(at).map(|part| (at, part))
    }

    #[inline]
    fn hash(&self, group: &[u8], name: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(group);
        hasher.write(name);
        hasher.finish()
    }

    fn hash_group(&self, group: &[u8]) -> u64 {
        self.hash(group, &[])
    }
}

impl Group {
    #[inline]
    fn text(&self) -> &[u8] {
        self.text.get(..usize::from(self.length)).unwrap_or_default()
    }

    fn set(&mut self, text: &[u8]) {
        let length = text.len().min(NAME_BYTES_MAX);
        if let (Some(to), Some(from)) = (self.text.get_mut(..length), text.get(..length)) {
            to.copy_from_slice(from);
        }
        self.length = u8::try_from(length).expect("at most 64");
    }
}

impl Part {
    #[inline]
    fn find(&self, hash: u64, group: &[u8], name: &[u8]) -> Option<u32> {
        let same = |slot: &u32| {
            self.record(*slot).is_some_and(|record| record.name == name && self.group(record.group) == group)
        };
        self.index.find(hash, same).copied()
    }

    #[inline]
    fn record(&self, slot: u32) -> Option<Parsed<'_>> {
        parse(self.slots.get(slot as usize)?.as_deref()?)
    }

    #[inline]
    fn group(&self, number: u32) -> &[u8] {
        self.groups.get(number as usize).map_or(&[], Group::text)
    }

    fn find_group(&self, hash: u64, text: &[u8]) -> Option<u32> {
        self.group_index.find(hash, |number| self.group(*number) == text).copied()
    }

    /// Adds a record with an empty tail.
    fn insert(&mut self, hash: u64, group: &[u8], name: &[u8], shelf: &Shelf) -> u32 {
        let number = self.group_number(group, shelf);
        let record = pack(number, name, &[]);
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(None);
                u32::try_from(self.slots.len() - 1).expect("memory ends before 2^26 records a part")
            }
        };
        if let Some(free) = self.slots.get_mut(slot as usize) {
            *free = Some(record);
        }
        let (slots, groups) = (&self.slots, &self.groups);
        self.index.insert_unique(hash, slot, |slot| {
            let record = slots.get(*slot as usize).and_then(|slot| parse(slot.as_deref()?));
            record.map_or(0, |record| {
                let group = groups.get(record.group as usize).map_or(&[][..], Group::text);
                shelf.hash(group, record.name)
            })
        });
        slot
    }

    fn group_number(&mut self, text: &[u8], shelf: &Shelf) -> u32 {
        let hash = shelf.hash_group(text);
        let number = match self.find_group(hash, text) {
            Some(number) => number,
            None => {
                let number = self.free_groups.pop().unwrap_or_else(|| {
                    self.groups.push(Group { text: [0; NAME_BYTES_MAX], length: 0, records: 0 });
                    u32::try_from(self.groups.len() - 1).expect("fewer groups than records")
                });
                if let Some(group) = self.groups.get_mut(number as usize) {
                    group.set(text);
                }
                let groups = &self.groups;
                let rehash = |number: &u32| shelf.hash_group(groups.get(*number as usize).map_or(&[][..], Group::text));
                self.group_index.insert_unique(hash, number, rehash);
                number
            }
        };
        if let Some(group) = self.groups.get_mut(number as usize) {
            group.records += 1;
        }
        number
    }

    fn change(&mut self, slot: u32, f: impl FnOnce(&mut Vec<u8>), hash: impl Fn(&Self, Parsed<'_>) -> u64) {
        let Some(record) = self.record(slot) else { return };
        let mut tail = record.tail.to_vec();
        f(&mut tail);
        if !tail.is_empty() {
            let packed = pack(record.group, record.name, &tail);
            if let Some(place) = self.slots.get_mut(slot as usize) {
                *place = Some(packed);
            }
            return;
        }
        let (hash, number) = (hash(self, record), record.group);
        if let Ok(entry) = self.index.find_entry(hash, |known| *known == slot) {
            entry.remove();
        }
        if let Some(place) = self.slots.get_mut(slot as usize) {
            *place = None;
            self.free.push(slot);
        }
        self.leave_group(number);
    }

    fn leave_group(&mut self, number: u32) {
        let Some(group) = self.groups.get_mut(number as usize) else { return };
        group.records -= 1;
        if group.records == 0 {
            self.free_groups.push(number);
            self.group_index.retain(|known| *known != number);
        }
    }
}

/// What was packed from a text.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

fn reference(part: usize, slot: u32) -> Ref {
    Ref(slot << PART_BITS | u32::try_from(part).expect("64 parts"))
}

fn pack(group: u32, name: &[u8], tail: &[u8]) -> Box<[u8]> {
    let mut record = Vec::with_capacity(name.len() + tail.len() + 6);
    let mut left = group;
    while left >= 0x80 {
        record.push(left as u8 | 0x80);
        left >>= 7;
    }
    record.push(left as u8);
    record.push(u8::try_from(name.len()).expect("a name has at most 64 characters"));
    record.extend_from_slice(name);
    record.extend_from_slice(tail);
    record.into_boxed_slice()
}

#[inline]
fn parse(record: &[u8]) -> Option<Parsed<'_>> {
    let (mut group, mut rest, mut shift) = (0_u32, record, 0);
    loop {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        group |= u32::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            break;
        }
        shift += 7;
    }
    let (&length, rest) = rest.split_first()?;
    let (name, tail) = rest.split_at_checked(usize::from(length))?;
    Some(Parsed { group, name, tail })
}

#[cfg(test)]
mod tests;
