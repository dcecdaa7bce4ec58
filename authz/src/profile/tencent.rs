//! `tencent`: Tencent Cloud IoT Hub and IoT Explorer.
//!
//! User name `{product}{device};{appid};{connid};{expiry}`, password `{hex};hmacsha1` or `{hex};hmacsha256`: the HMAC of the whole user name
//! under the device's key, which the vendor's console and SDKs write in base64; the registry has it in that form. A product
//! key has ten characters, and that is where the first field is cut. It opens until `{expiry}` (Unix seconds), as often as one likes; SDKs choose
//! it, and some choose the year 2999.
//!
//! The client id is `{product}{device}`. It isn't signed, and firmware in the field sends others, so it isn't looked at.

use turnpike_core::clock::Now;

use super::{Freshness, Holder, Identity, Login, Profile, SignMethod, digits};
use crate::signed::{is_signature_hex, key_of_base64};

/// Characters of a product key.
pub(crate) const PRODUCT_CHARS: usize = 10;

/// What a tencent SDK sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tencent<'a> {
    product: &'a str,
    device: &'a str,
    /// What is signed.
    user_name: &'a str,
    expiry_s: u64,
    method: SignMethod,
    signature: &'a str,
}

/// Signature and hash of a password, if it is one of this profile.
pub(super) fn signature(password: &str) -> Option<(&str, SignMethod)> {
    let (signature, method) = password.rsplit_once(';')?;
    let method = SignMethod::parse(method).filter(|method| *method != SignMethod::Md5)?;
    Some((signature, method))
}

impl<'a> Tencent<'a> {
    pub(super) fn parse(user_name: &'a str, (signature, method): (&'a str, SignMethod)) -> Option<Self> {
        let mut fields = user_name.split(';');
        let (id, _appid, _connid, expiry) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let (product, device) = id.split_at_checked(PRODUCT_CHARS)?;
        if fields.next().is_some() || device.is_empty() {
            return None;
        }
        Some(Self { product, device, user_name, expiry_s: digits(expiry)?, method, signature })
    }
}

impl<'a> Login<'a> for Tencent<'a> {
    fn profile(&self) -> Profile {
        Profile::Tencent
    }

    fn identity(&self) -> Identity<'a> {
        Identity { named: Some((self.product, self.device)), searched: None }
    }

    fn freshness(&self, now: Now) -> Freshness<'a> {
        if self.expiry_s > now.unix_s() { Freshness::Enough } else { Freshness::Stale }
    }

    fn is_signed_by(&self, holder: &Holder<'_>) -> bool {
        let (key, is_key) = key_of_base64(holder.secret);
        is_signature_hex(self.method, &key, self.user_name, self.signature) && is_key
    }
}
