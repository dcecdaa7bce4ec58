//! `aliyun`: Alibaba Cloud IoT's one-device-one-secret.
//!
//! Client id `{id}|securemode=…,signmethod=…,timestamp=…|` (in any order, others ignored), user name `{device}&{product}`, password the hex HMAC,
//! of either case, of `clientId{id}deviceName{device}productKey{product}timestamp{timestamp}`; without `timestamp…` where the client
//! id has none. SDKs put constants and seconds there, so it proves nothing about freshness: a captured password opens
//! until the secret is changed. Products that must not have that allow `native` alone.
//!
//! A device that has registered itself under a name that nobody had listed ([`crate::presale::aliyun`]) has a token and no secret to sign with: `authType=connwl`
//! stands in the client id, the token is the password, and TLS hides it.
//!
//! The Node SDK's timestamp is that of the log-in, so the session is `{id}`'s.

use super::{Holder, Identity, Login, Profile, SignMethod};
use crate::signed::{aliyun_text, is_same, is_signature_hex};

/// What an aliyun SDK sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Aliyun<'a> {
    product: &'a str,
    device: &'a str,
    /// What stands before the first `|`.
    id: &'a str,
    method: SignMethod,
    /// As sent, if it was.
    timestamp: Option<&'a str>,
    signature: &'a str,
    /// The signature is the secret itself.
    is_token: bool,
}

impl<'a> Aliyun<'a> {
    pub(super) fn parse(client_id: &'a str, user_name: &'a str, signature: &'a str) -> Option<Self> {
        let (device, product) = user_name.split_once('&')?;
        let (id, rest) = client_id.split_once('|')?;
        let (mut method, mut timestamp, mut is_token) = (None, None, false);
        for pair in rest.trim_end_matches('|').split(',') {
            match pair.split_once('=') {
                Some(("signmethod", value)) => method = Some(SignMethod::parse(value)?),
                Some(("timestamp", value)) => timestamp = Some(value),
                Some(("authType", "connwl")) => is_token = true,
                _ => {}
            }
        }
        // The vendor's documents make hmacmd5 the default.
        let method = method.unwrap_or(SignMethod::Md5);
        Some(Self { product, device, id, method, timestamp, signature, is_token })
    }
}

impl<'a> Login<'a> for Aliyun<'a> {
    fn profile(&self) -> Profile {
        Profile::Aliyun
    }

    fn identity(&self) -> Identity<'a> {
        Identity { named: Some((self.product, self.device)), searched: None }
    }

    fn is_signed_by(&self, holder: &Holder<'_>) -> bool {
        if self.is_token {
            return is_same(self.signature.as_bytes(), holder.secret.expose());
        }
        let text = aliyun_text(self.id, self.product, self.device, self.timestamp);
        is_signature_hex(self.method, holder.secret.expose(), &text, self.signature)
    }

    fn shows_secret(&self) -> bool {
        self.is_token
    }

    fn lasting_client_id(&self) -> Option<&'a str> {
        Some(self.id)
    }
}
