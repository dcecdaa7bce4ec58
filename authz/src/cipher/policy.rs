//! What a product does with payloads: a record of the product, and what its sessions are set up by.

use std::fmt;
use std::str::FromStr;

/// A cipher of payloads. Its number stands in each frame, and in records; it never changes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Suite {
    /// AES-128-GCM.
    Gcm = 1,
    /// AES-128-CFB (128-bit feedback), encrypt-then-MAC with HMAC-SHA256 truncated to 16 bytes. Legacy.
    Cfb = 2,
    /// AES-128-CBC with PKCS#7 padding, encrypt-then-MAC as in CFB: `A128CBC-HS256` of RFC 7518. Legacy.
    Cbc = 3,
}

impl Suite {
    /// All of them; the first is the default.
    pub const ALL: [Self; 3] = [Self::Gcm, Self::Cfb, Self::Cbc];

    /// As it is called in configuration and in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gcm => "aes-128-gcm",
            Self::Cfb => "aes-128-cfb",
            Self::Cbc => "aes-128-cbc",
        }
    }

    /// From its number; none if there is none of that number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| *suite as u8 == number)
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Suite {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        Self::ALL.into_iter().find(|suite| suite.as_str() == text).ok_or(PolicyError::Suite)
    }
}

/// Why a policy can't be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PolicyError {
    /// No suite of that name.
    #[error("there is no such suite; there are aes-128-gcm, aes-128-cfb and aes-128-cbc")]
    Suite,
    /// None, or one twice.
    #[error("a product's suites are one to three, each once")]
    Suites,
    /// [`CipherPolicy::rekey_after_s`].
    #[error("a key lasts 10 to 86400 seconds")]
    RekeyAfter,
    /// [`CipherPolicy::rekey_messages`].
    #[error("a key lasts for 16 to 1000000000 messages")]
    RekeyMessages,
    /// [`CipherPolicy::grace_s`].
    #[error("the grace of a former key is at least a second and at most half of what a key lasts")]
    Grace,
}

/// The cipher of a product's payloads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CipherPolicy {
    /// In the order of [`CipherPolicy::suites`], then repeats of the last.
    suites: [Suite; 3],
    suites_len: u8,
    rekey_after_s: u32,
    rekey_messages: u32,
    grace_s: u32,
}

impl Default for CipherPolicy {
    /// AES-128-GCM alone, a new key each hour or 100,000 messages, a minute of grace.
    fn default() -> Self {
        let suites = [Suite::Gcm; 3];
        Self { suites, suites_len: 1, rekey_after_s: 3600, rekey_messages: 100_000, grace_s: 60 }
    }
}

impl CipherPolicy {
    /// Checks a policy. Of `suites`, a device that names none gets the first.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(suites: &[Suite], rekey_after_s: u32, rekey_messages: u32, grace_s: u32) -> Result<Self, PolicyError> {
        let is_twice = |(at, suite): (usize, &Suite)| suites.iter().take(at).any(|other| other == suite);
        let Some(last) = suites.last().filter(|_| suites.len() <= 3 && !suites.iter().enumerate().any(is_twice)) else {
            return Err(PolicyError::Suites);
        };
        let mut list = [*last; 3];
        list.iter_mut().zip(suites).for_each(|(slot, suite)| *slot = *suite);
        if !(10..=86_400).contains(&rekey_after_s) {
            return Err(PolicyError::RekeyAfter);
        }
        if !(16..=1_000_000_000).contains(&rekey_messages) {
            return Err(PolicyError::RekeyMessages);
        }
        if grace_s == 0 || grace_s > rekey_after_s / 2 {
            return Err(PolicyError::Grace);
        }
        let suites_len = u8::try_from(suites.len()).map_err(|_| PolicyError::Suites)?;
        Ok(Self { suites: list, suites_len, rekey_after_s, rekey_messages, grace_s })
    }

    /// The suites that a device may choose from.
    #[must_use]
    pub fn suites(&self) -> &[Suite] {
        self.suites.get(..usize::from(self.suites_len)).unwrap_or(&self.suites)
    }

    /// The suite of a device that names none.
    #[must_use]
    pub fn default_suite(&self) -> Suite {
        let [first, ..] = self.suites;
        first
    }

    /// Seconds after which a new epoch is announced: 10 to 86,400.
    #[must_use]
    pub fn rekey_after_s(&self) -> u32 {
        self.rekey_after_s
    }

    /// Messages, of both directions together, after which a new epoch is announced: 16 to 1,000,000,000.
    #[must_use]
    pub fn rekey_messages(&self) -> u32 {
        self.rekey_messages
    }

    /// Seconds for which the epoch before the announced one is still taken: 1 to half of [`Self::rekey_after_s`].
    #[must_use]
    pub fn grace_s(&self) -> u32 {
        self.grace_s
    }
}

/// What a product does with payloads.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PayloadPolicy {
    /// They are what they are; nothing is sealed.
    #[default]
    Plain,
    /// The devices and the applications seal them in their own way: they pass untouched, and nothing of the broker looks into them.
    Transparent,
    /// On connections without TLS they are sealed between device and broker.
    Cipher(CipherPolicy),
}

impl PayloadPolicy {
    /// What seals the payloads of a connection: nothing where TLS does.
    #[must_use]
    pub fn cipher(&self, is_tls: bool) -> Option<&CipherPolicy> {
        match self {
            Self::Cipher(policy) if !is_tls => Some(policy),
            Self::Cipher(_) | Self::Plain | Self::Transparent => None,
        }
    }

    /// Whether the broker may look into payloads.
    #[must_use]
    pub fn is_legible(&self) -> bool {
        *self != Self::Transparent
    }

    /// For a record: kind (0 plain, 1 transparent, 2 cipher); of a cipher the number of suites, their numbers, and seconds,
    /// messages and grace as big-endian 4-byte numbers.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Plain => vec![0],
            Self::Transparent => vec![1],
            Self::Cipher(policy) => {
                let mut bytes = vec![2, policy.suites_len];
                bytes.extend(policy.suites().iter().map(|suite| *suite as u8));
                for number in [policy.rekey_after_s, policy.rekey_messages, policy.grace_s] {
                    bytes.extend(number.to_be_bytes());
                }
                bytes
            }
        }
    }

    /// From a record; none if this version wouldn't have written it.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0] => Some(Self::Plain),
            [1] => Some(Self::Transparent),
            [2, len, rest @ ..] => {
                let (suites, rest) = rest.split_at_checked(usize::from(*len))?;
                let suites: Option<Vec<Suite>> = suites.iter().map(|number| Suite::from_number(*number)).collect();
                let (after, rest) = rest.split_first_chunk()?;
                let (messages, rest) = rest.split_first_chunk()?;
                let grace = <[u8; 4]>::try_from(rest).ok()?;
                let [after, messages, grace] = [*after, *messages, grace].map(u32::from_be_bytes);
                CipherPolicy::new(&suites?, after, messages, grace).ok().map(Self::Cipher)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_policy_is_refused_for_what_is_wrong_with_it() {
        use PolicyError as E;
        use Suite::{Cbc, Cfb, Gcm};
        assert_eq!(CipherPolicy::new(&[Gcm], 3600, 100_000, 60), Ok(CipherPolicy::default()));
        let cases: [(&[Suite], u32, u32, u32, PolicyError); 9] = [
            (&[], 3600, 1000, 60, E::Suites),
            (&[Gcm, Cbc, Gcm], 3600, 1000, 60, E::Suites),
            (&[Gcm, Cbc, Cfb, Gcm], 3600, 1000, 60, E::Suites),
            (&[Gcm], 9, 1000, 1, E::RekeyAfter),
            (&[Gcm], 86_401, 1000, 60, E::RekeyAfter),
            (&[Gcm], 3600, 15, 60, E::RekeyMessages),
            (&[Gcm], 3600, 1_000_000_001, 60, E::RekeyMessages),
            (&[Gcm], 3600, 1000, 0, E::Grace),
            (&[Gcm], 3600, 1000, 1801, E::Grace),
        ];
        for (suites, after, messages, grace, error) in cases {
            assert_eq!(CipherPolicy::new(suites, after, messages, grace), Err(error));
        }
    }

    #[test]
    fn only_a_connection_without_tls_is_ciphered() {
        let cipher = PayloadPolicy::Cipher(CipherPolicy::default());
        assert_eq!(cipher.cipher(false), Some(&CipherPolicy::default()));
        for (policy, is_tls) in [(cipher, true), (PayloadPolicy::Plain, false), (PayloadPolicy::Transparent, false)] {
            assert_eq!(policy.cipher(is_tls), None);
        }
        assert!(cipher.is_legible() && PayloadPolicy::Plain.is_legible() && !PayloadPolicy::Transparent.is_legible());
    }

    #[test]
    fn a_suite_goes_by_its_name() {
        for suite in Suite::ALL {
            assert_eq!(suite.to_string().parse(), Ok(suite));
            assert_eq!(Suite::from_number(suite as u8), Some(suite));
        }
        assert_eq!("AES".parse::<Suite>(), Err(PolicyError::Suite));
        assert_eq!(Suite::from_number(0), None);
    }

    proptest! {
        #[test]
        fn a_record_gives_back_the_policy(
            suites in proptest::sample::subsequence(Suite::ALL.to_vec(), 1..=3).prop_shuffle(),
            after in 10_u32..=86_400, messages in 16_u32..=1_000_000_000, grace in 1_u32..=5,
        ) {
            let policy = CipherPolicy::new(&suites, after, messages, grace).expect("within the ranges");
            prop_assert_eq!(policy.suites(), &*suites);
            prop_assert_eq!(policy.default_suite(), suites[0]);
            for policy in [PayloadPolicy::Cipher(policy), PayloadPolicy::Plain, PayloadPolicy::Transparent] {
                let bytes = policy.encode();
                prop_assert_eq!(PayloadPolicy::decode(&bytes), Some(policy));
                prop_assert_eq!(PayloadPolicy::decode(&[&bytes[..], &[0]].concat()), None);
                prop_assert_eq!(PayloadPolicy::decode(&bytes[..bytes.len() - 1]), None);
            }
        }

        #[test]
        fn what_is_decoded_was_encoded(bytes in proptest::collection::vec(0_u8..4, 0..20)) {
            if let Some(policy) = PayloadPolicy::decode(&bytes) {
                prop_assert_eq!(policy.encode(), bytes);
            }
        }
    }
}
