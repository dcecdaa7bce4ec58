//! What a device brings to the making of keys: a nonce, a suite, or a key of its own under the platform's. `authz/PAYLOAD.md` specifies it.
//!
//! It comes in one of three ways, and the first of them that is there counts: user properties of an MQTT 5 CONNECT
//! ([`Offer::from_properties`]), the nonce of the native credential ([`Offer::from_login_nonce`]), a message of the device on the topic of keys
//! ([`Offer::from_hello`]). None of it is believed: a wrong nonce or suite makes keys that the device doesn't have. A key of the device's own is
//! another matter, since anybody can make one; so it counts only where the log-in was signed over its hash.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::frame::VERSION;
use super::policy::Suite;

/// User property of CONNECT: the device's nonce, 8 to 64 bytes.
pub const NONCE_PROPERTY: &str = "cipher-nonce";
/// User property of CONNECT: the suite's name.
pub const SUITE_PROPERTY: &str = "cipher-suite";
/// User property of CONNECT: a key under the platform's RSA key, in base64.
pub const KEY_PROPERTY: &str = "cipher-key";

/// Second byte of a hello.
pub(crate) const HELLO: u8 = 0xF1;

/// Bytes of a key of 4096 bits.
const WRAPPED_MAX: usize = 512;

/// Why an offer can't be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OfferError {
    /// It isn't what an offer is.
    #[error("an offer of a key is malformed")]
    Malformed,
    /// Shorter than 8 bytes or longer than 64.
    #[error("a nonce of a device has 8 to 64 bytes")]
    Nonce,
    /// No suite of that name or number.
    #[error("there is no such suite")]
    Suite,
}

/// What a device brings.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Offer {
    /// Its nonce, 8 to 64 bytes; without one, that of the log-in is used.
    pub nonce: Option<Box<[u8]>>,
    /// The suite; without one, the product's first is used.
    pub suite: Option<Suite>,
    /// A key under the platform's RSA key, up to 512 bytes.
    pub wrapped: Option<Box<[u8]>>,
}

fn nonce(bytes: &[u8]) -> Result<Box<[u8]>, OfferError> {
    if (8..=64).contains(&bytes.len()) { Ok(bytes.into()) } else { Err(OfferError::Nonce) }
}

impl Offer {
    /// From the user properties of a CONNECT; none if none of them is of the cipher.
    ///
    /// # Errors
    /// [`OfferError`], also if one is there twice.
    pub fn from_properties<'a>(
        properties: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Option<Self>, OfferError> {
        let mut offer = Self::default();
        for (name, value) in properties {
            let is_again = match name {
                NONCE_PROPERTY => offer.nonce.replace(nonce(value.as_bytes())?).is_some(),
                SUITE_PROPERTY => offer.suite.replace(value.parse().map_err(|_| OfferError::Suite)?).is_some(),
                KEY_PROPERTY => offer.wrapped.replace(unwrapped_text(value)?).is_some(),
                _ => false,
            };
            if is_again {
                return Err(OfferError::Malformed);
            }
        }
        Ok((offer != Self::default()).then_some(offer))
    }

    /// From the nonce of a native credential. What stands behind its last `~` names the suite: `gcm`, `cfb` or `cbc`; anything else there
    /// is part of the nonce.
    ///
    /// # Errors
    /// [`OfferError::Nonce`].
    pub fn from_login_nonce(text: &str) -> Result<Self, OfferError> {
        let suite = match text.rsplit_once('~') {
            Some((_, "gcm")) => Some(Suite::Gcm),
            Some((_, "cfb")) => Some(Suite::Cfb),
            Some((_, "cbc")) => Some(Suite::Cbc),
            _ => None,
        };
        Ok(Self { nonce: Some(nonce(text.as_bytes())?), suite, wrapped: None })
    }

    /// From what a device publishes on the topic of keys: version 1, 0xF1, the suite's number or 0, the length of the nonce or 0, the nonce,
    /// then the wrapped key, if there is one.
    ///
    /// # Errors
    /// [`OfferError`].
    pub fn from_hello(payload: &[u8]) -> Result<Self, OfferError> {
        let &[VERSION, HELLO, suite, nonce_len, ref rest @ ..] = payload else { return Err(OfferError::Malformed) };
        let (text, wrapped) = rest.split_at_checked(usize::from(nonce_len)).ok_or(OfferError::Malformed)?;
        let suite = match suite {
            0 => None,
            number => Some(Suite::from_number(number).ok_or(OfferError::Suite)?),
        };
        let nonce = if text.is_empty() { None } else { Some(nonce(text)?) };
        let wrapped = if wrapped.is_empty() { None } else { Some(sized(wrapped)?) };
        Ok(Self { nonce, suite, wrapped })
    }

    /// As a device publishes it.
    #[must_use]
    pub fn to_hello(&self) -> Vec<u8> {
        let nonce = self.nonce.as_deref().unwrap_or_default();
        let suite = self.suite.map_or(0, |suite| suite as u8);
        let head = [VERSION, HELLO, suite, super::keys::length(nonce)];
        [&head, nonce, self.wrapped.as_deref().unwrap_or_default()].concat()
    }

    /// Whether the log-in was signed over the wrapped key: its nonce is the key's hash, 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn is_signed(&self, login_nonce: &str) -> bool {
        let Some(wrapped) = &self.wrapped else { return false };
        wrapped_hash(wrapped).as_bytes().ct_eq(login_nonce.as_bytes()).into()
    }
}

/// The nonce of a native log-in that brings a wrapped key.
#[must_use]
pub fn wrapped_hash(wrapped: &[u8]) -> String {
    hex::encode(Sha256::digest(wrapped))
}

fn unwrapped_text(text: &str) -> Result<Box<[u8]>, OfferError> {
    sized(&STANDARD.decode(text).map_err(|_| OfferError::Malformed)?)
}

fn sized(wrapped: &[u8]) -> Result<Box<[u8]>, OfferError> {
    if (1..=WRAPPED_MAX).contains(&wrapped.len()) { Ok(wrapped.into()) } else { Err(OfferError::Malformed) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn properties_of_a_connect() {
        let properties = [("x", "y"), (NONCE_PROPERTY, "12345678"), (SUITE_PROPERTY, "aes-128-cfb")];
        let expected = Offer { nonce: Some((*b"12345678").into()), suite: Some(Suite::Cfb), wrapped: None };
        assert_eq!(Offer::from_properties(properties), Ok(Some(expected)));
        assert_eq!(Offer::from_properties([("x", "y"), ("x", "y")]), Ok(None));
        let key = Offer { wrapped: Some([1, 2, 3].into()), ..Offer::default() };
        assert_eq!(Offer::from_properties([(KEY_PROPERTY, "AQID")]), Ok(Some(key)));
        let long = STANDARD.encode([0; 513]);
        for (properties, error) in [
            ([(NONCE_PROPERTY, "1234567"), ("x", "y")], OfferError::Nonce),
            ([(NONCE_PROPERTY, "12345678"), (NONCE_PROPERTY, "12345678")], OfferError::Malformed),
            ([(SUITE_PROPERTY, "none"), ("x", "y")], OfferError::Suite),
            ([(KEY_PROPERTY, "AQ"), ("x", "y")], OfferError::Malformed),
            ([(KEY_PROPERTY, ""), ("x", "y")], OfferError::Malformed),
            ([(KEY_PROPERTY, &long), ("x", "y")], OfferError::Malformed),
        ] {
            assert_eq!(Offer::from_properties(properties), Err(error));
        }
    }

    #[test]
    fn the_nonce_of_a_log_in_may_name_the_suite() {
        for (text, suite) in [
            ("3f9a6c1e", None),
            ("3f9a6c1e~cbc", Some(Suite::Cbc)),
            ("3f9a~x~gcm", Some(Suite::Gcm)),
            ("3f9a6c1e~none", None),
            ("3f9a~cbc6c1e", None),
        ] {
            let offer = Offer::from_login_nonce(text).expect("an offer");
            assert_eq!((offer.nonce.as_deref(), offer.suite), (Some(text.as_bytes()), suite));
        }
        assert_eq!(Offer::from_login_nonce("1234567"), Err(OfferError::Nonce));
        assert_eq!(Offer::from_login_nonce(&"1".repeat(65)), Err(OfferError::Nonce));
    }

    #[test]
    fn a_key_counts_where_the_log_in_is_signed_over_its_hash() {
        let offer = Offer { wrapped: Some([1, 2, 3].into()), ..Offer::default() };
        assert!(offer.is_signed("039058c6f2c0cb492c533b0a4d14ef77cc0f78abccced5287d84a1a2011cfb81"));
        assert!(!offer.is_signed("039058c6f2c0cb492c533b0a4d14ef77cc0f78abccced5287d84a1a2011cfb82"));
        assert!(!offer.is_signed(""));
        assert!(!Offer::default().is_signed(&wrapped_hash(&[])));
    }

    proptest! {
        #[test]
        fn a_hello_gives_back_the_offer(
            nonce in proptest::option::of(proptest::collection::vec(any::<u8>(), 8..=64)),
            suite in proptest::option::of(proptest::sample::select(&Suite::ALL)),
            wrapped in proptest::option::of(proptest::collection::vec(any::<u8>(), 1..=512)),
        ) {
            let offer = Offer { nonce: nonce.map(Into::into), suite, wrapped: wrapped.map(Into::into) };
            prop_assert_eq!(Offer::from_hello(&offer.to_hello()), Ok(offer));
        }

        #[test]
        fn no_bytes_panic(mut payload in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Offer::from_hello(&payload);
            payload.iter_mut().zip([VERSION, HELLO]).for_each(|(byte, value)| *byte = value);
            if let Ok(offer) = Offer::from_hello(&payload) {
                prop_assert_eq!(offer.to_hello(), payload);
            }
        }
    }
}
