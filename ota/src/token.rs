//! Download tokens: leave for one device to fetch one firmware for a while.
//!
//! A token is opaque to devices: base64url of a layout byte, the numbers, the device's names and an HMAC-SHA256 under the broker's own key. That its campaign
//! hasn't stopped, whoever serves the download asks the scheduler: so stopping voids what is out there, and nothing is kept for each token.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::ids::{CampaignId, FirmwareId};

const LAYOUT: u8 = 1;
const MAC_BYTES: usize = 32;
/// Longer isn't looked at.
const TEXT_BYTES_MAX: usize = 512;

/// What a token says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    /// What may be fetched.
    pub firmware: FirmwareId,
    /// On whose behalf.
    pub campaign: CampaignId,
    /// The device's product key.
    pub product: Box<str>,
    /// The device's name.
    pub device: Box<str>,
    /// Seconds since 1970 UTC from which on it is void.
    pub expires_at_s: u64,
}

/// Why a token isn't taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TokenError {
    /// It isn't one of ours: changed, cut, or made up.
    #[error("the token is not valid")]
    Invalid,
    /// It was one.
    #[error("the token has expired; a new check gives a new one")]
    Expired,
}

/// What tokens are made and checked under.
pub struct TokenKey(Hmac<Sha256>);

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenKey(…)")
    }
}

impl TokenKey {
    /// A key of 32 random bytes, or derived from such.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        Self(<Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("HMAC takes a key of any length"))
    }

    /// The token of a grant: URL-safe text.
    #[must_use]
    pub fn seal(&self, grant: &Grant) -> String {
        let mut bytes = vec![LAYOUT];
        bytes.extend(grant.firmware.0.to_be_bytes());
        bytes.extend(grant.campaign.0.to_be_bytes());
        bytes.extend(grant.expires_at_s.to_be_bytes());
        bytes.extend(grant.product.as_bytes());
        bytes.push(0);
        bytes.extend(grant.device.as_bytes());
        let mac = self.0.clone().chain_update(&bytes).finalize().into_bytes();
        bytes.extend(mac);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// What a token grants.
    ///
    /// # Errors
    /// [`TokenError`]. The comparison takes a constant time.
    pub fn open(&self, token: &str, now_s: u64) -> Result<Grant, TokenError> {
        let grant = self.opened(token).ok_or(TokenError::Invalid)?;
        if grant.expires_at_s <= now_s { Err(TokenError::Expired) } else { Ok(grant) }
    }

    fn opened(&self, token: &str) -> Option<Grant> {
        if token.len() > TEXT_BYTES_MAX {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (said, mac) = bytes.split_at_checked(bytes.len().checked_sub(MAC_BYTES)?)?;
        self.0.clone().chain_update(said).verify_slice(mac).ok()?;
        let (&layout, rest) = said.split_first()?;
        let (firmware, rest) = rest.split_first_chunk::<8>()?;
        let (campaign, rest) = rest.split_first_chunk::<8>()?;
        let (expires, names) = rest.split_first_chunk::<8>()?;
        let (product, device) = std::str::from_utf8(names).ok()?.split_once('\0')?;
        (layout == LAYOUT).then(|| Grant {
            firmware: FirmwareId(u64::from_be_bytes(*firmware)),
            campaign: CampaignId(u64::from_be_bytes(*campaign)),
            product: product.into(),
            device: device.into(),
            expires_at_s: u64::from_be_bytes(*expires),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn grant() -> Grant {
        Grant {
            firmware: FirmwareId(7),
            campaign: CampaignId(3),
            product: "lamp".into(),
            device: "one".into(),
            expires_at_s: 1_000,
        }
    }

    #[test]
    fn a_token_gives_back_its_grant_until_it_expires() {
        let key = TokenKey::new(&[5; 32]);
        let token = key.seal(&grant());
        assert_eq!(key.open(&token, 999), Ok(grant()));
        assert_eq!(key.open(&token, 1_000), Err(TokenError::Expired));
        assert_eq!(TokenKey::new(&[6; 32]).open(&token, 999), Err(TokenError::Invalid));
        assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{token}");
    }

    #[test]
    fn a_changed_token_is_none() {
        let key = TokenKey::new(&[5; 32]);
        let bytes = URL_SAFE_NO_PAD.decode(key.seal(&grant())).expect("base64");
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(key.open(&URL_SAFE_NO_PAD.encode(&changed), 0), Err(TokenError::Invalid), "{at}");
            assert_eq!(key.open(&URL_SAFE_NO_PAD.encode(&bytes[..at]), 0), Err(TokenError::Invalid), "{at}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_a_token(text in ".{0,600}") {
            prop_assert_eq!(TokenKey::new(&[5; 32]).open(&text, 0), Err(TokenError::Invalid));
        }
    }
}
