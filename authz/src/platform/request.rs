//! Requests: which fields each has. Every field is there in every request of its kind, each of one type, one length or range, and one set of
//! characters (4.1.3.3 b, d); anything else is no request.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use turnpike_mqtt::QoS;

use super::fields::SIGN;
use super::token::{FamilyId, TOKEN_BYTES};
use super::{Cause, Fields, IV_BYTES, PAYLOAD_BYTES_MAX, PlatId, UserId, Value};
use crate::names::{DeviceName, ProductKey};

/// Bytes of the part of a topic that a platform chooses.
const TOPIC_BYTES_MAX: usize = 128;
/// Devices of a page.
const PAGE_MAX: u64 = 100;
/// How long a control may wait for its device, in seconds.
const EXPIRY_S_MAX: u64 = 7 * 24 * 60 * 60;

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident = $path:literal, $label:literal;)*) => {
        /// What can be asked for.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Operation { $($(#[$doc])* $name,)* }

        impl Operation {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Where it is asked for.
            #[must_use]
            pub fn path(self) -> &'static str {
                match self { $(Self::$name => concat!("/platform/v1/", $path),)* }
            }

            /// One word, for the audit.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

operations! {
    /// Tokens for the AuthToken.
    LogIn = "login", "login";
    /// Tokens for a RefreshToken.
    Refresh = "refresh", "refresh";
    /// The end of the tokens.
    LogOut = "logout", "logout";
    /// A new data key for a user.
    UserLogIn = "users/login", "user_login";
    /// The end of a user's data key.
    UserLogOut = "users/logout", "user_logout";
    /// Devices of a product, by page.
    ListDevices = "devices/list", "device_list";
    /// Whether a device is connected.
    DeviceStatus = "devices/status", "device_status";
    /// A message to a device.
    ControlDevice = "devices/control", "device_control";
    /// A message to a device in the name of a user, its payload encrypted.
    ControlForUser = "users/control", "user_control";
    /// What a device has last said on a topic, encrypted for a user.
    StateForUser = "users/state", "user_state";
}

/// How it is asked: the standard has PUT beside POST, and they mean the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// `POST`.
    Post,
    /// `PUT`.
    Put,
}

impl Method {
    /// As HTTP writes it, and as it is signed; none of others.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Post, Self::Put].into_iter().find(|method| method.as_str() == text)
    }

    /// As HTTP writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Post => "POST",
            Self::Put => "PUT",
        }
    }
}

impl Operation {
    /// What is asked for at a path.
    #[must_use]
    pub fn at(path: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|operation| operation.path() == path)
    }
}

/// A request that is whole. Whether it is right is another matter: [`super::Platforms::admit`].
#[derive(Clone)]
pub struct Request {
    /// What is asked for.
    pub operation: Operation,
    /// Who asks.
    pub platform: PlatId,
    /// Milliseconds since 1970 UTC, of the platform's clock.
    pub timestamp_ms: u64,
    /// 32 hexadecimal digits.
    pub nonce: Box<str>,
    /// What is asked for, with what it takes.
    pub body: Body,
    pub(super) access: Option<Box<str>>,
    pub(super) signature: [u8; 32],
    pub(super) signed: String,
}

/// Without tokens and what is signed.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("operation", &self.operation).field("platform", &self.platform).finish()
    }
}

/// What a request takes beside who asks.
#[derive(Clone, PartialEq, Eq)]
pub enum Body {
    /// Nothing.
    LogIn,
    /// The RefreshToken.
    Refresh(Box<str>),
    /// Nothing.
    LogOut,
    /// The user.
    UserLogIn(UserId),
    /// The user.
    UserLogOut(UserId),
    /// A page of devices.
    ListDevices {
        /// Of which product.
        product: ProductKey,
        /// After this name.
        after: Option<DeviceName>,
        /// At most so many.
        limit: usize,
    },
    /// A device.
    DeviceStatus(ProductKey, DeviceName),
    /// A message; with a user its payload is encrypted.
    Control {
        /// In whose name.
        user: Option<UserId>,
        /// The message.
        message: Message,
    },
    /// The last retained message of a device.
    State {
        /// For whom it is encrypted.
        user: UserId,
        /// Of which product.
        product: ProductKey,
        /// Of which device.
        device: DeviceName,
        /// `dev/{product}/{device}/up/{topic}`.
        topic: Box<str>,
    },
}

/// Hidden: tokens and payloads are in it.
impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Body(…)")
    }
}

/// A message to a device.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Of which product.
    pub product: ProductKey,
    /// To which device.
    pub device: DeviceName,
    /// `dev/{product}/{device}/down/{topic}`.
    pub topic: Box<str>,
    /// At most once or at least once.
    pub qos: QoS,
    /// How long it may wait for the device, in seconds.
    pub expires_s: u64,
    /// As sent, out of its base64.
    pub payload: Vec<u8>,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").field("product", &self.product).field("device", &self.device).finish_non_exhaustive()
    }
}

impl Request {
    /// Reads the fields of a request.
    ///
    /// # Errors
    /// [`Cause::Malformed`].
    pub fn read(operation: Operation, method: Method, fields: Fields) -> Result<Self, Cause> {
        let signed = fields.canonical(method, operation.path());
        let mut fields = Reader(fields);
        let platform = PlatId::new(fields.number("plat_id")?).ok_or(Cause::Malformed)?;
        let timestamp_ms = fields.number("timestamp")?;
        let nonce = fields.text("nonce", |text| text.len() == 32 && is_hex(text))?;
        let signature = fields.text(SIGN, |text| text.len() == 64 && is_hex(text))?;
        let signature = hex::decode(&*signature).ok().and_then(|bytes| bytes.try_into().ok());
        let has_access = !matches!(operation, Operation::LogIn | Operation::Refresh);
        let access = has_access.then(|| fields.token("access_token")).transpose()?;
        let body = fields.body(operation)?;
        if !fields.0.is_empty() {
            return Err(Cause::Malformed);
        }
        let signature = signature.ok_or(Cause::Malformed)?;
        Ok(Self { operation, platform, timestamp_ms, nonce, body, access, signature, signed })
    }
}

struct Reader(Fields);

impl Reader {
    fn number(&mut self, name: &str) -> Result<u64, Cause> {
        match self.0.take(name) {
            Some(Value::Number(number)) => Ok(number),
            Some(Value::Text(_)) | None => Err(Cause::Malformed),
        }
    }

    fn text(&mut self, name: &str, is_right: impl FnOnce(&str) -> bool) -> Result<Box<str>, Cause> {
        match self.0.take(name) {
            Some(Value::Text(text)) if is_right(&text) => Ok(text),
            Some(_) | None => Err(Cause::Malformed),
        }
    }

    fn token(&mut self, name: &str) -> Result<Box<str>, Cause> {
        self.text(name, |text| text.len() == TOKEN_BYTES && FamilyId::of(text).is_some())
    }

    fn user(&mut self) -> Result<UserId, Cause> {
        UserId::parse(&self.text("user", |_| true)?).ok_or(Cause::Malformed)
    }

    fn product(&mut self) -> Result<ProductKey, Cause> {
        ProductKey::parse(&self.text("product", |_| true)?).map_err(|_| Cause::Malformed)
    }

    fn device(&mut self) -> Result<DeviceName, Cause> {
        DeviceName::parse(&self.text("device", |_| true)?).map_err(|_| Cause::Malformed)
    }

    /// Levels of letters, digits, `-`, `_`, `.`; none of them empty.
    fn topic(&mut self) -> Result<Box<str>, Cause> {
        let is_character = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        self.text("topic", |text| {
            text.len() <= TOPIC_BYTES_MAX
                && text.split('/').all(|level| !level.is_empty() && level.bytes().all(is_character))
        })
    }

    fn message(&mut self, encrypted: bool) -> Result<Message, Cause> {
        let (product, device, topic) = (self.product()?, self.device()?, self.topic()?);
        let qos = match self.number("qos")? {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            _ => return Err(Cause::Malformed),
        };
        let expires_s = self.number("expires_s")?;
        let payload = STANDARD.decode(&*self.text("payload", |_| true)?).map_err(|_| Cause::Malformed)?;
        let besides = if encrypted { IV_BYTES } else { 0 };
        let fits = (besides..=PAYLOAD_BYTES_MAX + besides).contains(&payload.len());
        if !fits || !(1..=EXPIRY_S_MAX).contains(&expires_s) {
            return Err(Cause::Malformed);
        }
        Ok(Message { product, device, topic, qos, expires_s, payload })
    }

    fn body(&mut self, operation: Operation) -> Result<Body, Cause> {
        Ok(match operation {
            Operation::LogIn => Body::LogIn,
            Operation::Refresh => Body::Refresh(self.token("refresh_token")?),
            Operation::LogOut => Body::LogOut,
            Operation::UserLogIn => Body::UserLogIn(self.user()?),
            Operation::UserLogOut => Body::UserLogOut(self.user()?),
            Operation::ListDevices => {
                let product = self.product()?;
                let after = self.text("after", |_| true)?;
                let after = (!after.is_empty()).then(|| DeviceName::parse(&after)).transpose();
                let limit = self.number("limit")?;
                if !(1..=PAGE_MAX).contains(&limit) {
                    return Err(Cause::Malformed);
                }
                let limit = usize::try_from(limit).map_err(|_| Cause::Malformed)?;
                Body::ListDevices { product, after: after.map_err(|_| Cause::Malformed)?, limit }
            }
            Operation::DeviceStatus => Body::DeviceStatus(self.product()?, self.device()?),
            Operation::ControlDevice => Body::Control { user: None, message: self.message(false)? },
            Operation::ControlForUser => Body::Control { user: Some(self.user()?), message: self.message(true)? },
            Operation::StateForUser => Body::State {
                user: self.user()?,
                product: self.product()?,
                device: self.device()?,
                topic: self.topic()?,
            },
        })
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
