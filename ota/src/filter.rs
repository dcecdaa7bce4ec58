//! Which devices a campaign is for.
//!
//! What is empty asks for nothing; everything else has to hold at once.

use std::collections::BTreeSet;

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Hundredths of a percent in the whole.
pub const WHOLE: u16 = 10_000;

/// Names that a part of a filter has at most.
pub const NAMES_MAX: usize = 1000;

/// Devices that a filter names at most.
pub const DEVICES_MAX: usize = 100_000;

/// A device that might be in a campaign.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Candidate<'a> {
    /// The product key.
    pub product: &'a str,
    /// The device's name.
    pub device: &'a str,
    /// What it runs on the campaign's target, as far as it has said.
    pub version: Option<&'a str>,
    /// Its hardware version, as far as it has said.
    pub hardware: Option<&'a str>,
    /// Tags that it has, its groups among them.
    pub tags: &'a [Box<str>],
    /// Where it is, as far as that is known.
    pub region: Option<&'a str>,
    /// Seconds since 1970 UTC.
    pub created_at_s: u64,
}

/// Versions that devices must run now. A device that hasn't said what it runs is in no list and outside of none.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Versions {
    /// Any, unknown ones too.
    #[default]
    Any,
    /// One of these.
    Of(BTreeSet<Box<str>>),
    /// Another one than these.
    Not(BTreeSet<Box<str>>),
}

/// Which devices a campaign is for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Filter {
    /// The product key.
    pub product: Box<str>,
    /// What they run now.
    pub versions: Versions,
    /// They have at least one of these tags.
    pub tags: BTreeSet<Box<str>>,
    /// They have all of these tags.
    pub tags_all: BTreeSet<Box<str>>,
    /// They are one of these.
    pub devices: BTreeSet<Box<str>>,
    /// They are in one of these regions.
    pub regions: BTreeSet<Box<str>>,
    /// They have one of these hardware versions.
    pub hardware: BTreeSet<Box<str>>,
    /// A part of them, in hundredths of a percent, 1 to [`WHOLE`]. See [`hash`].
    pub share: Option<u16>,
    /// They have been created before this, seconds since 1970 UTC.
    pub created_before_s: Option<u64>,
}

/// What a device's place in a campaign follows from: XXH3 (64 bits) of the device's name with the campaign's salt as the seed. A device is in a
/// share of `n` hundredths of a percent if the hash modulo 10,000 is below `n`: in Python
/// `xxhash.xxh3_64_intdigest(name, seed=salt) % 10000 < n`. Groups take devices in the order of their hashes.
///
/// A device stays where it is however many others come and go, a greater share has all devices of a smaller one, and another salt deals anew.
#[must_use]
pub fn hash(salt: u64, device: &str) -> u64 {
    xxh3_64_with_seed(device.as_bytes(), salt)
}

impl Filter {
    /// A device is meant.
    #[must_use]
    pub fn matches(&self, candidate: &Candidate<'_>, salt: u64) -> bool {
        let listed = |list: &BTreeSet<Box<str>>, what: Option<&str>| {
            list.is_empty() || what.is_some_and(|what| list.contains(what))
        };
        let versions = match &self.versions {
            Versions::Any => true,
            Versions::Of(list) => candidate.version.is_some_and(|version| list.contains(version)),
            Versions::Not(list) => candidate.version.is_some_and(|version| !list.contains(version)),
        };
        *self.product == *candidate.product
            && versions
            && listed(&self.devices, Some(candidate.device))
            && listed(&self.regions, candidate.region)
            && listed(&self.hardware, candidate.hardware)
            && (self.tags.is_empty() || candidate.tags.iter().any(|tag| self.tags.contains(tag)))
            && self.tags_all.iter().all(|tag| candidate.tags.contains(tag))
            && self.created_before_s.is_none_or(|before_s| candidate.created_at_s < before_s)
            && self.share.is_none_or(|share| hash(salt, candidate.device) % u64::from(WHOLE) < u64::from(share))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    static TAGS: LazyLock<[Box<str>; 2]> = LazyLock::new(|| ["beta", "shop"].map(Box::from));

    fn known() -> Candidate<'static> {
        Candidate {
            product: "lamp",
            device: "d1",
            version: Some("1.0"),
            hardware: Some("A1"),
            tags: &*TAGS,
            region: Some("cn-east"),
            created_at_s: 100,
        }
    }

    fn set(names: &[&str]) -> BTreeSet<Box<str>> {
        names.iter().map(|name| (*name).into()).collect()
    }

    fn lamps() -> Filter {
        Filter { product: "lamp".into(), ..Filter::default() }
    }

    #[test]
    fn everything_that_is_asked_for_has_to_hold() {
        let cases = [
            (lamps(), true),
            (Filter { product: "fan".into(), ..lamps() }, false),
            (Filter { versions: Versions::Of(set(&["1.0", "1.1"])), ..lamps() }, true),
            (Filter { versions: Versions::Of(set(&["1.1"])), ..lamps() }, false),
            (Filter { versions: Versions::Not(set(&["1.1"])), ..lamps() }, true),
            (Filter { versions: Versions::Not(set(&["1.0"])), ..lamps() }, false),
            (Filter { tags: set(&["shop", "home"]), ..lamps() }, true),
            (Filter { tags: set(&["home"]), ..lamps() }, false),
            (Filter { tags_all: set(&["shop", "beta"]), ..lamps() }, true),
            (Filter { tags_all: set(&["shop", "home"]), ..lamps() }, false),
            (Filter { tags: set(&["home"]), tags_all: set(&["shop"]), ..lamps() }, false),
            (Filter { devices: set(&["d1", "d2"]), ..lamps() }, true),
            (Filter { devices: set(&["d2"]), ..lamps() }, false),
            (Filter { regions: set(&["cn-east"]), ..lamps() }, true),
            (Filter { regions: set(&["eu"]), ..lamps() }, false),
            (Filter { hardware: set(&["A1"]), ..lamps() }, true),
            (Filter { hardware: set(&["B"]), ..lamps() }, false),
            (Filter { created_before_s: Some(101), ..lamps() }, true),
            (Filter { created_before_s: Some(100), ..lamps() }, false),
            (Filter { share: Some(WHOLE), ..lamps() }, true),
            (Filter { tags: set(&["shop"]), regions: set(&["eu"]), ..lamps() }, false),
        ];
        for (filter, matches) in cases {
            assert_eq!(filter.matches(&known(), 7), matches, "{filter:?}");
        }
    }

    #[test]
    fn what_isnt_known_is_in_no_list_and_outside_of_none() {
        let silent = Candidate { version: None, hardware: None, region: None, tags: &[], ..known() };
        assert!(lamps().matches(&silent, 7));
        for filter in [
            Filter { versions: Versions::Of(set(&["1.0"])), ..lamps() },
            Filter { versions: Versions::Not(set(&["2.0"])), ..lamps() },
            Filter { hardware: set(&["A1"]), ..lamps() },
            Filter { regions: set(&["eu"]), ..lamps() },
            Filter { tags: set(&["beta"]), ..lamps() },
            Filter { tags_all: set(&["beta"]), ..lamps() },
        ] {
            assert!(!filter.matches(&silent, 7), "{filter:?}");
        }
    }

    /// The values that the reference implementation gives for an empty input: others can compute the hash.
    #[test]
    fn the_hash_is_xxh3() {
        assert_eq!(hash(0, ""), 0x2d06_8005_38d3_94c2);
        assert_ne!(hash(1, "d1"), hash(2, "d1"));
    }

    #[test]
    fn a_share_is_about_that_many_and_within_every_greater_one() {
        let names: Vec<String> = (0..20_000).map(|number| format!("device-{number:06}")).collect();
        let within = |share, salt, device: &str| {
            Filter { share: Some(share), ..lamps() }.matches(&Candidate { device, ..known() }, salt)
        };
        for salt in [0, 1, u64::MAX] {
            let tenth = names.iter().filter(|name| within(1000, salt, name)).count();
            // Five deviations of a binomial distribution.
            assert!((1788..2212).contains(&tenth), "{tenth} of 20,000");
            assert!(names.iter().all(|name| !within(1000, salt, name) || within(1001, salt, name)));
        }
        let both = names.iter().filter(|name| within(1000, 1, name) && within(1000, 2, name)).count();
        assert!((130..270).contains(&both), "another salt deals anew: {both} of 20,000");
    }
}
