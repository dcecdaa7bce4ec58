//! Identifiers as an audit keeps them.

use turnpike_core::ids::ClientId;
use turnpike_core::mask::Identifier;

use super::chain::ChainKey;
use crate::attest::bare_user_name;
use crate::cut::cut;
use crate::names::{DeviceName, ProductKey};

/// Bytes of an identifier that are kept; what is longer is cut and ends in `…`.
pub(super) const ID_BYTES_MAX: usize = 256;

/// The text of an identifier. It can't be made of a text that merely happens to be there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Id<'a>(&'a str);

impl<'a> Id<'a> {
    /// Of anything that is an identifier.
    #[must_use]
    pub fn of<T: Identifier + ?Sized>(of: &'a T) -> Self {
        Self(of.identifier())
    }

    pub(super) fn proved(text: &'a str) -> Self {
        Self(text)
    }

    /// As much of it as is kept, and whether that is less than all.
    pub(super) fn kept(self) -> (&'a str, bool) {
        let mut end = self.0.len().min(ID_BYTES_MAX);
        while !self.0.is_char_boundary(end) {
            end -= 1;
        }
        (self.0.get(..end).unwrap_or_default(), end < self.0.len())
    }
}

/// Masked, as in a log.
impl std::fmt::Debug for Id<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        turnpike_core::mask::fmt_masked(self.0, f)
    }
}

/// A client id as an audit names the client: without what some formats append to it behind a `|`, which are the terms of its signature.
#[must_use]
pub fn client(client_id: &str) -> Id<'_> {
    Id(cut(client_id, b'|').map_or(client_id, |(client, _)| client))
}

/// The id of a session's client.
impl<'a> From<&'a ClientId> for Id<'a> {
    fn from(id: &'a ClientId) -> Self {
        client(id.as_str())
    }
}

/// The device that a log-in claims to be, taken from its user name. Who mistakes the fields and types a password there doesn't find it in the
/// audit: what isn't two names isn't kept, and neither is what comes without one of the formats' separators.
#[derive(Clone, PartialEq, Eq)]
pub struct Claimed {
    /// Product key.
    pub product: ProductKey,
    /// Device name.
    pub device: DeviceName,
}

impl Claimed {
    /// `{product}/{device}`, or `{device}&{product}`, and perhaps a statement behind it ([`crate::attest`]).
    #[must_use]
    pub fn parse(user_name: &str) -> Option<Self> {
        let user_name = bare_user_name(user_name);
        let (product, device) = match user_name.split_once('/') {
            Some((product, device)) => (product, device),
            None => user_name.split_once('&').map(|(device, product)| (product, device))?,
        };
        Some(Self { product: ProductKey::parse(product).ok()?, device: DeviceName::parse(device).ok()? })
    }
}

/// Tells one bearer token from another: 32 bits of an HMAC of it under the audit's key. Nobody without that key can try guesses against it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TokenId(u32);

impl TokenId {
    /// Of a token.
    #[must_use]
    pub fn of(key: &ChainKey, token: &[u8]) -> Self {
        Self(key.pseudonym(token))
    }
}

impl std::fmt::Display for TokenId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_claim_only_two_names_are_kept() {
        let claim = |text| Claimed::parse(text).map(|claim| (claim.product.to_string(), claim.device.to_string()));
        let lamp = Some(("lamp".to_owned(), "one".to_owned()));
        assert_eq!(claim("lamp/one"), lamp);
        assert_eq!(claim("one&lamp"), lamp);
        for text in ["", "/", "&", "my password", "hunter2", "lamp/one/two", "lamp/", "a b/c", "päss&wörd"] {
            assert_eq!(claim(text), None, "{text}");
        }
    }

    #[test]
    fn an_id_is_cut_between_characters() {
        let long = "ä".repeat(ID_BYTES_MAX);
        let id = ClientId::new(&long);
        assert_eq!(Id::from(&id).kept(), ("ä".repeat(ID_BYTES_MAX / 2).as_str(), true));
        let odd = format!("x{long}");
        assert_eq!(client(&odd).kept().0.len(), ID_BYTES_MAX - 1);
        assert_eq!(client("lamp.one|securemode=3,timestamp=1|").kept(), ("lamp.one", false));
        assert!(!format!("{:?}", client("lamp.one.two.three")).contains("one"));
    }
}
