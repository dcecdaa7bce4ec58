//! Labels of devices: tags, which name the groups that a device is in as well, and the region that it is in. Lists and firmware campaigns choose by them; they
//! decide nothing about who comes in.
//!
//! A region is a field of its own, since a device is in one: a tag with a prefix would let it be in two.
//!
//! Most devices have none, and those that have some share a few sets of them. So labels are apart from the device ([`Labelled`]): a device without costs nothing,
//! one with costs its name and a pointer, and equal sets are kept once.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use crate::names::DeviceName;

/// Tags of a device.
pub const TAGS_MAX: usize = 8;
/// Bytes of a tag, and of a region.
pub const LABEL_BYTES_MAX: usize = 64;

/// Why labels aren't taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LabelError {
    /// A tag without a character.
    #[error("a tag has at least one character")]
    Empty,
    /// More than [`LABEL_BYTES_MAX`].
    #[error("a tag, or a region, has at most {LABEL_BYTES_MAX} bytes")]
    TooLong,
    /// A character that separates tags where they are listed, or can't be seen.
    #[error("a tag, or a region, has no white space, no control characters and none of , ; and quotation marks")]
    Character,
    /// More than [`TAGS_MAX`].
    #[error("a device has at most {TAGS_MAX} tags")]
    TooMany,
}

/// Checks a tag or a region.
///
/// # Errors
/// What is wrong with it.
pub fn check(text: &str) -> Result<(), LabelError> {
    let is_separator = |c: char| c.is_whitespace() || c.is_control() || matches!(c, ',' | ';' | '"');
    match text.len() {
        0 => Err(LabelError::Empty),
        1..=LABEL_BYTES_MAX if text.contains(is_separator) => Err(LabelError::Character),
        1..=LABEL_BYTES_MAX => Ok(()),
        _ => Err(LabelError::TooLong),
    }
}

/// What a device has of them; at least one tag or the region.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Labels {
    /// Ascending, each once.
    tags: Box<[Box<str>]>,
    region: Option<Box<str>>,
}

impl Labels {
    /// In their order, each once.
    #[must_use]
    pub fn tags(&self) -> &[Box<str>] {
        &self.tags
    }

    /// Where it is.
    #[must_use]
    pub fn region(&self) -> Option<&str> {
        self.region.as_deref()
    }

    /// As records have it: the region after its length, 0 where there is none, then each tag after its length.
    pub(crate) fn to_record(&self) -> Vec<u8> {
        let mut record = Vec::new();
        for text in std::iter::once(self.region().unwrap_or("")).chain(self.tags.iter().map(AsRef::as_ref)) {
            record.push(u8::try_from(text.len()).expect("64 bytes at most"));
            record.extend_from_slice(text.as_bytes());
        }
        record
    }

    /// None where it isn't as [`Self::to_record`] writes it.
    pub(crate) fn from_record(mut record: &[u8]) -> Option<Self> {
        let mut texts = Vec::new();
        while let Some((&length, rest)) = record.split_first() {
            let (text, rest) = rest.split_at_checked(usize::from(length))?;
            texts.push(std::str::from_utf8(text).ok()?);
            record = rest;
        }
        let (&region, tags) = texts.split_first()?;
        let is_fine = |text: &&str| check(text).is_ok();
        let are_tags = tags.len() <= TAGS_MAX && tags.iter().all(is_fine) && tags.is_sorted_by(|a, b| a < b);
        let has_any = !region.is_empty() || !tags.is_empty();
        let labels = Self {
            tags: tags.iter().map(|tag| Box::from(*tag)).collect(),
            region: Some(region).filter(|region| !region.is_empty()).map(Box::from),
        };
        (are_tags && has_any && (region.is_empty() || is_fine(&region))).then_some(labels)
    }
}

/// What is asked of a device's labels; what isn't said stays as it is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LabelsRequest {
    tags: Option<BTreeSet<Box<str>>>,
    /// Without one where it is empty.
    region: Option<Box<str>>,
}

impl LabelsRequest {
    /// These tags in place of all others, and this region; no region where it is empty. A tag that comes twice is one.
    ///
    /// # Errors
    /// [`LabelError`].
    pub fn new<'a>(tags: Option<impl IntoIterator<Item = &'a str>>, region: Option<&str>) -> Result<Self, LabelError> {
        let tags = tags.map(|tags| tags.into_iter().map(|tag| check(tag).map(|()| Box::from(tag))).collect());
        let tags: Option<BTreeSet<_>> = tags.transpose()?;
        if tags.as_ref().is_some_and(|tags| tags.len() > TAGS_MAX) {
            return Err(LabelError::TooMany);
        }
        region.filter(|region| !region.is_empty()).map_or(Ok(()), check)?;
        Ok(Self { tags, region: region.map(Box::from) })
    }

    /// Two fields of a table: tags separated by `;` or white space, and the region. What is empty stays as it is.
    ///
    /// # Errors
    /// [`LabelError`].
    pub fn of_fields(tags: &str, region: &str) -> Result<Self, LabelError> {
        let tags: Vec<_> = tags.split(|c: char| c == ';' || c.is_whitespace()).filter(|tag| !tag.is_empty()).collect();
        Self::new(Some(tags).filter(|tags| !tags.is_empty()), Some(region).filter(|region| !region.is_empty()))
    }

    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What a device has then; none where nothing is left.
    #[must_use]
    pub fn onto(&self, before: Option<&Labels>) -> Option<Arc<Labels>> {
        let tags = match &self.tags {
            Some(tags) => tags.iter().cloned().collect(),
            None => before.map(|before| before.tags.clone()).unwrap_or_default(),
        };
        let region = match &self.region {
            Some(region) => Some(region.clone()).filter(|region| !region.is_empty()),
            None => before.and_then(|before| before.region.clone()),
        };
        (!tags.is_empty() || region.is_some()).then(|| Arc::new(Labels { tags, region }))
    }
}

/// Which devices are looked for by their labels.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wanted {
    /// They have all of these.
    pub tags: BTreeSet<Box<str>>,
    /// And are there, if it is said.
    pub region: Option<Box<str>>,
}

impl Wanted {
    fn has(&self, labels: &Labels) -> bool {
        let is_there = self.region.as_deref().is_none_or(|region| labels.region() == Some(region));
        is_there && self.tags.iter().all(|tag| labels.tags.contains(tag))
    }
}

/// Devices of a product that have labels. Equal sets are one: [`Self::set`] is one look-up in each of two maps.
#[derive(Debug, Default)]
pub(crate) struct Labelled {
    devices: BTreeMap<DeviceName, Arc<Labels>>,
    sets: HashSet<Arc<Labels>, foldhash::fast::RandomState>,
}

impl Labelled {
    pub(crate) fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Labels>> {
        self.devices.get(name)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &DeviceName> {
        self.devices.keys()
    }

    pub(crate) fn all(&self) -> &BTreeMap<DeviceName, Arc<Labels>> {
        &self.devices
    }

    pub(crate) fn set(&mut self, name: DeviceName, labels: Option<Arc<Labels>>) {
        let before = match labels {
            Some(labels) => {
                let shared = match self.sets.get(&labels) {
                    Some(shared) => Arc::clone(shared),
                    None => {
                        self.sets.insert(Arc::clone(&labels));
                        labels
                    }
                };
                self.devices.insert(name, shared)
            }
            None => self.devices.remove(&name),
        };
        // The set's own and this one: nobody has it any more.
        if let Some(before) = before.filter(|before| Arc::strong_count(before) == 2) {
            self.sets.remove(&before);
        }
        // Of those that somebody was looking at just then.
        if self.sets.len() > self.devices.len() {
            self.sets.retain(|set| Arc::strong_count(set) > 1);
        }
    }

    /// Up to `limit` devices after a name that have what is wanted, of the next `looks`; and the last one looked at, if there are more.
    pub(crate) fn find(
        &self,
        wanted: &Wanted,
        after: Option<&str>,
        (limit, looks): (usize, usize),
    ) -> (Vec<DeviceName>, Option<DeviceName>) {
        let (mut found, mut last) = (Vec::new(), None::<&DeviceName>);
        let range = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        for (looked, (name, labels)) in self.devices.range::<str, _>(range).enumerate() {
            if found.len() == limit || looked == looks {
                return (found, last.cloned());
            }
            if wanted.has(labels) {
                found.push(name.clone());
            }
            last = Some(name);
        }
        (found, None)
    }
}

#[cfg(test)]
mod tests;
