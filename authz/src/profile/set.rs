//! Names of the log-in formats, and sets of them.

use std::fmt;

/// A log-in format.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u16)]
pub enum Profile {
    /// Ours.
    Native = 1,
    /// Alibaba Cloud IoT's one-device-one-secret.
    Aliyun = 2,
    /// Tencent Cloud IoT Hub and IoT Explorer.
    Tencent = 4,
    /// Huawei Cloud IoTDA.
    Huawei = 8,
    /// Tuya's TuyaLink.
    Tuya = 16,
    /// Azure IoT Hub with a device's shared access key.
    Azure = 32,
    /// Gizwits' devices from before 2025: the secret is the password.
    GizwitsLegacy = 64,
    /// Gizwits' devices since 2025.
    Gizwits = 128,
}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Native,
        Self::Aliyun,
        Self::Tencent,
        Self::Huawei,
        Self::Tuya,
        Self::Azure,
        Self::GizwitsLegacy,
        Self::Gizwits,
    ];

    /// As it is called in configuration and in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Aliyun => "aliyun",
            Self::Tencent => "tencent",
            Self::Huawei => "huawei",
            Self::Tuya => "tuya",
            Self::Azure => "azure",
            Self::GizwitsLegacy => "gizwits-legacy",
            Self::Gizwits => "gizwits",
        }
    }

    /// Whether its credentials may name a device and no product, so that the device is looked for in all products that take the profile.
    #[must_use]
    pub fn is_searched(self) -> bool {
        match self {
            Self::Native | Self::Aliyun | Self::Tencent => false,
            Self::Huawei | Self::Tuya | Self::Azure | Self::GizwitsLegacy | Self::Gizwits => true,
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = || Self::ALL.map(Self::as_str).join(", ");
        let found = Self::ALL.into_iter().find(|profile| profile.as_str() == text);
        found.ok_or_else(|| format!("there is no profile {text:?}; there are {}", known()))
    }
}

/// Which profiles a product takes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProfileSet(u16);

impl ProfileSet {
    /// What a product takes that says nothing of it. The other profiles are for products that say so: most of them are weaker, and devices that
    /// name no product are looked for in each of them.
    pub const DEFAULT: Self = Self(Profile::Native as u16 | Profile::Aliyun as u16);

    /// Every profile that this version knows.
    pub const ALL: Self = Self(0xFF);

    /// From the bits of a record; none if there is one that this version doesn't know.
    #[must_use]
    pub fn from_bits(bits: u16) -> Option<Self> {
        (bits & !Self::ALL.0 == 0).then_some(Self(bits))
    }

    /// For a record. A profile's bit never changes.
    #[must_use]
    pub fn bits(self) -> u16 {
        self.0
    }

    /// Whether it is in the set.
    #[must_use]
    pub fn contains(self, profile: Profile) -> bool {
        self.0 & profile as u16 != 0
    }

    /// What is in the set.
    pub fn iter(self) -> impl Iterator<Item = Profile> {
        Profile::ALL.into_iter().filter(move |profile| self.contains(*profile))
    }
}

impl FromIterator<Profile> for ProfileSet {
    fn from_iter<I: IntoIterator<Item = Profile>>(profiles: I) -> Self {
        Self(profiles.into_iter().fold(0, |bits, profile| bits | profile as u16))
    }
}

impl fmt::Debug for ProfileSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}
