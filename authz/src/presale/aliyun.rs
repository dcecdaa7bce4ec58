//! Aliyun's dynamic registration: the product's secret signs for a device that has none yet.
//!
//! - Over MQTT: client id `{id}|authType=register,random={r},signmethod=…,securemode=2|` (in any order, others ignored), user name
//!   `{device}&{product}`, password the hex HMAC, of either case, of `deviceName{device}productKey{product}random{r}` under the product's
//!   secret. The broker lets it in for nothing else: it sends the answer without a SUBSCRIBE and closes. `authType=regnwl` (`securemode=-2`) is for
//!   names that nobody has listed.
//! - Over HTTP: `POST /auth/register/device`, a form of `productKey`, `deviceName`, `random`, `sign`, `signMethod`.
//!
//! What a `regnwl` gives is a client id and a token; the later log-in is one of [`crate::profile::Aliyun`].

use super::register::Proven;
use super::{RegisterError, Registration, Way};
use crate::names::ProductKey;
use crate::profile::SignMethod;
use crate::secret::Secret;
use crate::signed::is_signature_hex;

/// A request, taken apart and not yet believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim<'a> {
    /// Product key.
    pub product: &'a str,
    /// Device name.
    pub device: &'a str,
    random: &'a str,
    method: SignMethod,
    signature: &'a str,
    is_listed: bool,
}

fn method(text: &str) -> Option<SignMethod> {
    let all = [SignMethod::Sha256, SignMethod::Sha1, SignMethod::Md5];
    all.into_iter().find(|method| method.as_str().eq_ignore_ascii_case(text))
}

/// The value of a key between the bars of a client id.
fn extra<'a>(client_id: &'a str, key: &str) -> Option<&'a str> {
    let (_, extras) = client_id.split_once('|')?;
    let mut pairs = extras.trim_end_matches('|').split(',').filter_map(|pair| pair.split_once('='));
    pairs.find(|(name, _)| *name == key).map(|(_, value)| value)
}

impl<'a> Claim<'a> {
    /// From a CONNECT; none if it is another log-in, or malformed.
    #[must_use]
    pub fn from_connect(client_id: &'a str, user_name: &'a str, password: &'a [u8]) -> Option<Self> {
        let is_listed = match extra(client_id, "authType")? {
            "register" => true,
            "regnwl" => false,
            _ => return None,
        };
        let (device, product) = user_name.split_once('&')?;
        let (random, method) = (extra(client_id, "random")?, method(extra(client_id, "signmethod")?)?);
        let signature = std::str::from_utf8(password).ok()?;
        Some(Self { product, device, random, method, signature, is_listed })
    }

    /// From the decoded fields of a form; none if one is missing.
    #[must_use]
    pub fn from_form(fields: &'a [(String, String)]) -> Option<Self> {
        let field = |name| fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let (product, device) = (field("productKey")?, field("deviceName")?);
        let (random, signature) = (field("random")?, field("sign")?);
        Some(Self { product, device, random, method: method(field("signMethod")?)?, signature, is_listed: true })
    }

    /// Verifies it under the product's secret ([`super::Desk::product_secret`]).
    ///
    /// # Errors
    /// [`RegisterError::WrongKey`], [`RegisterError::Malformed`].
    pub fn prove(&self, product_secret: &Secret) -> Result<Proven, RegisterError> {
        let Self { product, device, random, .. } = *self;
        let text = format!("deviceName{device}productKey{product}random{random}");
        if !is_signature_hex(self.method, product_secret.expose(), &text, self.signature) {
            return Err(RegisterError::WrongKey);
        }
        let product = ProductKey::parse(product).map_err(|_| RegisterError::Malformed)?;
        let way = if self.is_listed { Way::Aliyun } else { Way::AliyunUnlisted };
        Ok(Proven { product, way, subject: device.into(), secret: None, once: None })
    }
}

/// The secret of a registered device as text: one that was made here is.
fn text(secret: &Secret) -> &str {
    std::str::from_utf8(secret.expose()).unwrap_or_default()
}

/// The PUBLISH that answers over MQTT: topic and payload. `client_id`: the device's part for later log-ins, of letters and digits.
#[must_use]
pub fn push(product: &ProductKey, registration: &Registration, client_id: &str) -> (&'static str, String) {
    let (name, secret) = (&registration.name, text(&registration.secret));
    // Names and made secrets have no character that JSON escapes.
    if registration.way == Way::AliyunUnlisted {
        let payload = format!(
            r#"{{"clientId":"{client_id}","productKey":"{product}","deviceName":"{name}","deviceToken":"{secret}"}}"#
        );
        return ("/ext/regnwl", payload);
    }
    ("/ext/register", format!(r#"{{"productKey":"{product}","deviceName":"{name}","deviceSecret":"{secret}"}}"#))
}

/// The body that answers over HTTP.
#[must_use]
pub fn body(product: &ProductKey, registration: &Registration) -> String {
    let (name, secret) = (&registration.name, text(&registration.secret));
    let data = format!(r#"{{"productKey":"{product}","deviceName":"{name}","deviceSecret":"{secret}"}}"#);
    format!(r#"{{"code":200,"data":{data},"message":"success"}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signed::sign;

    fn secret() -> Secret {
        Secret::new(b"product secret").expect("a secret")
    }

    fn signature(method: SignMethod) -> String {
        hex::encode(sign(method, secret().expose(), "deviceNameSN-0001productKeya1B2c3random567"))
    }

    #[test]
    fn the_ways_in_which_sdks_ask() {
        for (client_id, method, way) in [
            (
                "SN-0001.a1B2c3|random=567,authType=register,securemode=2,signmethod=hmacsha256|",
                SignMethod::Sha256,
                Way::Aliyun,
            ),
            ("SN-0001|securemode=2,authType=register,random=567,signmethod=hmacsha1|", SignMethod::Sha1, Way::Aliyun),
            (
                "SN-0001|securemode=-2,authType=regnwl,random=567,signmethod=hmacmd5,instanceId=x|",
                SignMethod::Md5,
                Way::AliyunUnlisted,
            ),
        ] {
            for password in [signature(method), signature(method).to_uppercase()] {
                let claim = Claim::from_connect(client_id, "SN-0001&a1B2c3", password.as_bytes()).expect("a claim");
                let proven = claim.prove(&secret()).expect("signed");
                assert_eq!((proven.way, proven.product.as_str(), &*proven.subject), (way, "a1B2c3", "SN-0001"));
            }
            let claim = Claim::from_connect(client_id, "SN-0002&a1B2c3", b"00").expect("a claim");
            assert_eq!(claim.prove(&secret()), Err(RegisterError::WrongKey));
        }
        let fields =
            [("productKey", "a1B2c3"), ("deviceName", "SN-0001"), ("random", "567"), ("signMethod", "hmacmd5")];
        let mut fields: Vec<(String, String)> = fields.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
        assert_eq!(Claim::from_form(&fields), None);
        fields.push(("sign".to_owned(), signature(SignMethod::Md5)));
        assert!(Claim::from_form(&fields).expect("a claim").prove(&secret()).is_ok());
        assert_eq!(
            Claim::from_form(&fields).expect("a claim").prove(&Secret::generate([0; 16])),
            Err(RegisterError::WrongKey)
        );
    }

    #[test]
    fn other_log_ins_are_left_alone() {
        for client_id in [
            "id|securemode=3,signmethod=hmacsha1|",
            "id",
            "id|authType=connwl|",
            "id|authType=register,signmethod=hmacsha1|",
            "id|authType=register,random=1|",
            "id|authType=register,random=1,signmethod=none|",
        ] {
            assert_eq!(Claim::from_connect(client_id, "d&p", b"00"), None, "{client_id}");
        }
        assert_eq!(Claim::from_connect("id|authType=register,random=1,signmethod=hmacsha1|", "d", b"00"), None);
        assert_eq!(Claim::from_connect("id|authType=register,random=1,signmethod=hmacsha1|", "d&p", b"\xFF"), None);
    }
}
