//! Registration of a device at the [`Desk`].

use turnpike_core::durable::Op;

use super::book::{Change, PackageId, Settings};
use super::burn::{self, BurnKey, KeyId};
use super::desk::Desk;
use super::identifier::{Identifier, Kind};
use super::{RegisterError, Way};
use crate::names::{DeviceName, ProductKey};
use crate::plan::{self, DeviceRequest, Making, PlanError};
use crate::registry::{Device, owner};
use crate::secret::Secret;

/// How long a device that has proved its key is given the answer again, in seconds: the first may have been lost on the way.
pub const REPEAT_S: u64 = 600;

/// A device's request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Product key.
    pub product: &'a str,
    /// The name that the device wants, of those that register by a key; without one, a name is made.
    pub name: Option<&'a str>,
    /// What entitles it.
    pub proof: Proof<'a>,
    /// Whether it came through TLS.
    pub tls: bool,
}

/// What entitles a device to be registered.
#[derive(Clone, Copy, Debug)]
pub enum Proof<'a> {
    /// A whole burn-in key: only over TLS.
    Key(&'a str),
    /// A signature by a burn-in key; the secret of the answer is encrypted.
    Signed {
        /// `{package}-{index}`.
        key: &'a str,
        /// 8 to 64 visible characters.
        nonce: &'a str,
        /// 64 hexadecimal digits.
        signature: &'a str,
    },
    /// An identifier, of whatever kind it may be: only over TLS.
    Listed(&'a str),
    /// A vendor's way, verified.
    Vendor(&'a Proven),
}

impl Proof<'_> {
    /// What a request without TLS may be recorded by, and must not be used by again: whose it is, its key or its device, and what is new in it.
    #[must_use]
    pub fn once(&self) -> Option<(&str, &str)> {
        match self {
            Self::Signed { key, nonce, .. } => Some((key, nonce)),
            Self::Vendor(proven) => Some((&proven.subject, proven.once.as_deref()?)),
            Self::Key(_) | Self::Listed(_) => None,
        }
    }

    /// Whether the request or the answer shows a secret.
    fn needs_tls(&self) -> bool {
        match self {
            Self::Key(_) | Self::Listed(_) => true,
            Self::Signed { .. } => false,
            Self::Vendor(proven) => matches!(proven.way, Way::Aliyun | Way::AliyunUnlisted),
        }
    }
}

/// That a vendor's request was found right. Only the verification makes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proven {
    pub(super) product: ProductKey,
    pub(super) way: Way,
    /// A name for the ways that take any, otherwise what has to be listed.
    pub(super) subject: Box<str>,
    /// The device's own secret.
    pub(super) secret: Option<Secret>,
    /// What is new in each request, of a way that has a nonce and needs no TLS.
    pub(super) once: Option<Box<str>>,
}

impl Proven {
    /// Its product, for the request.
    #[must_use]
    pub fn product(&self) -> &ProductKey {
        &self.product
    }

    /// The vendor's way.
    #[must_use]
    pub fn way(&self) -> Way {
        self.way
    }
}

/// Random bytes for one registration.
#[derive(Clone, Copy)]
pub struct Fresh {
    /// For the secret and its seal.
    pub making: [u8; 28],
    /// For a made name.
    pub name: [u8; 22],
    /// For the encryption of the answer, or a secret in a vendor's form.
    pub answer: [u8; 16],
}

impl std::fmt::Debug for Fresh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fresh(…)")
    }
}

/// A registration, to be committed and applied, then answered.
#[derive(Clone, Debug)]
#[must_use]
pub struct Registration {
    /// The device.
    pub name: DeviceName,
    /// Its secret.
    pub secret: Secret,
    /// How it came in.
    pub way: Way,
    /// The secret for a device without TLS ([`BurnKey::seal`]): the answer has this in place of the secret.
    pub sealed: Option<Vec<u8>>,
    /// The device in the registry; none if it is there, and the answer is given again.
    pub device: Option<plan::Change>,
    /// What it counts against; none if the answer is given again.
    pub package: Option<PackageId>,
    /// What it uses up.
    pub changes: Vec<Change>,
}

impl Registration {
    /// All that is committed, at once.
    #[must_use]
    pub fn ops(&self) -> Vec<Op> {
        self.device.iter().map(plan::Change::op).chain(self.changes.iter().map(Change::op)).collect()
    }
}

/// What a registration uses up.
enum Uses {
    Key(KeyId),
    Identifier(Identifier, PackageId),
}

impl Desk<'_> {
    /// Registers a device.
    ///
    /// # Errors
    /// [`RegisterError`].
    pub fn plan_register(
        &self,
        request: &Request<'_>,
        now_s: u64,
        fresh: &Fresh,
    ) -> Result<Registration, RegisterError> {
        let product = ProductKey::parse(request.product).map_err(|_| RegisterError::Malformed)?;
        let is_enabled = self.registry.product(product.as_str()).is_some_and(|product| product.enabled);
        let settings = self.book.settings(product.as_str());
        let way = match request.proof {
            Proof::Key(_) | Proof::Signed { .. } => Way::BurnIn,
            Proof::Listed(_) => Way::Listed,
            Proof::Vendor(proven) => proven.way,
        };
        if !is_enabled || !settings.ways.contains(way) {
            return Err(RegisterError::NotAllowed);
        }
        if !request.tls && request.proof.needs_tls() {
            return Err(RegisterError::TlsRequired);
        }
        match request.proof {
            Proof::Key(text) => {
                let (id, key) = BurnKey::parse(text).ok_or(RegisterError::Malformed)?;
                if self.burn_key(&product, id)? != key {
                    return Err(RegisterError::WrongKey);
                }
                self.by_key(&product, id, request.name, now_s, fresh)
            }
            Proof::Signed { key, nonce, signature } => {
                let id = KeyId::parse(key).ok_or(RegisterError::Malformed)?;
                if !(8..=64).contains(&nonce.len()) || !nonce.bytes().all(|byte| byte.is_ascii_graphic()) {
                    return Err(RegisterError::Malformed);
                }
                let burn_key = self.burn_key(&product, id)?;
                let fields = (product.as_str(), request.name.unwrap_or(""), id, nonce);
                if !burn_key.signed(fields, signature) {
                    return Err(RegisterError::WrongKey);
                }
                let made = self.by_key(&product, id, request.name, now_s, fresh)?;
                let whose = (product.as_str(), made.name.as_str());
                let sealed = burn_key.seal(nonce, whose, &made.secret, fresh.answer);
                Ok(Registration { sealed: Some(sealed), ..made })
            }
            Proof::Listed(text) => {
                let (identifier, package) = self.on_list(&product, text)?;
                let name = DeviceName::parse(&identifier.to_string()).map_err(|_| RegisterError::Malformed)?;
                let uses = Uses::Identifier(identifier, package);
                self.made((&product, name, way), uses, None, (now_s, fresh))
            }
            Proof::Vendor(proven) if proven.product == product => {
                self.by_vendor(&product, proven, &settings, (now_s, fresh))
            }
            Proof::Vendor(_) => Err(RegisterError::Malformed),
        }
    }

    /// A burn-in key that has been issued.
    fn burn_key(&self, product: &ProductKey, id: KeyId) -> Result<BurnKey, RegisterError> {
        let package = self.book.package(product.as_str(), id.package).ok_or(RegisterError::Unknown)?.package;
        if id.index >= package.issued {
            return Err(RegisterError::Unknown);
        }
        let secret = self.key.open(&burn::owner(product.as_str(), id.package), &package.secret);
        Ok(BurnKey::derive(&secret.map_err(|_| RegisterError::Sealed)?, product, id))
    }

    /// The device has proved its key.
    fn by_key(
        &self,
        product: &ProductKey,
        id: KeyId,
        name: Option<&str>,
        now_s: u64,
        fresh: &Fresh,
    ) -> Result<Registration, RegisterError> {
        let wanted = name.map(DeviceName::parse).transpose().map_err(|_| RegisterError::Malformed)?;
        if let Some(user) = self.book.key_user(product.as_str(), id.package, id.index) {
            let is_same = wanted.is_none_or(|wanted| wanted == *user);
            let device = self.registry.device(product.as_str(), user.as_str()).filter(|_| is_same);
            let device = device.filter(|device| now_s.saturating_sub(device.created_at_s) <= REPEAT_S);
            return self.again(product, user, device, Way::BurnIn);
        }
        let name = wanted.unwrap_or_else(|| made_name(fresh.name));
        self.made((product, name, Way::BurnIn), Uses::Key(id), None, (now_s, fresh))
    }

    /// The answer once more.
    fn again(
        &self,
        product: &ProductKey,
        name: &DeviceName,
        device: Option<Device>,
        way: Way,
    ) -> Result<Registration, RegisterError> {
        let device = device.ok_or(RegisterError::Exists)?;
        let secret = self.key.open(&owner(product.as_str(), name.as_str()), &device.secret);
        let secret = secret.map_err(|_| RegisterError::Sealed)?;
        Ok(Registration {
            name: name.clone(),
            secret,
            way,
            sealed: None,
            device: None,
            package: None,
            changes: Vec::new(),
        })
    }

    /// What a text is on the product's list, unless it has registered a device.
    fn on_list(&self, product: &ProductKey, text: &str) -> Result<(Identifier, PackageId), RegisterError> {
        let mut error = RegisterError::Malformed;
        for identifier in Identifier::readings(text) {
            error = match self.book.listed(product.as_str(), &identifier) {
                Some(listed) if listed.device.is_none() => return Ok((identifier, listed.package)),
                Some(_) => return Err(RegisterError::Exists),
                None => RegisterError::Unknown,
            };
        }
        Err(error)
    }

    fn by_vendor(
        &self,
        product: &ProductKey,
        proven: &Proven,
        settings: &Settings,
        (now_s, fresh): (u64, &Fresh),
    ) -> Result<Registration, RegisterError> {
        let subject = &*proven.subject;
        let named = || DeviceName::parse(subject).map_err(|_| RegisterError::Malformed);
        let (name, uses) = match proven.way {
            Way::Gizwits | Way::GizwitsSealed => {
                if let Some(again) = self.same_passcode(product, proven) {
                    return Ok(again);
                }
                let (identifier, package) = self.on_list(product, subject)?;
                (made_name(fresh.name), Uses::Identifier(identifier, package))
            }
            Way::AliyunUnlisted | Way::TencentUnlisted => {
                let package = settings.package.ok_or(RegisterError::NotAllowed)?;
                // As if it had been listed just before: it counts, and registers once.
                let listed = Identifier::readings(subject).find(|id| self.book.listed(product.as_str(), id).is_some());
                let (identifier, package) = match listed {
                    Some(_) => self.on_list(product, subject)?,
                    None => {
                        let serial = Identifier::parse(Kind::Serial, subject).map_err(|_| RegisterError::Malformed)?;
                        (serial, package)
                    }
                };
                (named()?, Uses::Identifier(identifier, package))
            }
            Way::Aliyun | Way::Tencent | Way::BurnIn | Way::Listed => {
                let (identifier, package) = self.on_list(product, subject)?;
                (named()?, Uses::Identifier(identifier, package))
            }
        };
        let secret = match proven.way {
            Way::Tencent | Way::TencentUnlisted => Some(super::tencent::psk(fresh.answer)),
            _ => proven.secret.clone(),
        };
        self.made((product, name, proven.way), uses, secret, (now_s, fresh))
    }

    /// A gizwits device asks again and again, with the passcode that it has made: it has been registered if that is its secret.
    fn same_passcode(&self, product: &ProductKey, proven: &Proven) -> Option<Registration> {
        let user = Identifier::readings(&proven.subject)
            .find_map(|identifier| self.book.listed(product.as_str(), &identifier)?.device)?;
        let device = self.registry.device(product.as_str(), user.as_str());
        let again = self.again(product, &user, device, proven.way).ok()?;
        (Some(&again.secret) == proven.secret.as_ref()).then_some(again)
    }

    fn made(
        &self,
        (product, name, way): (&ProductKey, DeviceName, Way),
        uses: Uses,
        secret: Option<Secret>,
        (now_s, fresh): (u64, &Fresh),
    ) -> Result<Registration, RegisterError> {
        if self.registry.device(product.as_str(), name.as_str()).is_some() {
            return Err(RegisterError::Exists);
        }
        let id = match &uses {
            Uses::Key(key) => key.package,
            Uses::Identifier(_, package) => *package,
        };
        let standing = self.book.package(product.as_str(), id).ok_or(RegisterError::Unknown)?;
        if !standing.package.enabled || standing.package.expires_at_s.is_some_and(|at| now_s >= at) {
            return Err(RegisterError::Expired);
        }
        if standing.used >= u64::from(standing.package.quota) {
            return Err(RegisterError::Capacity);
        }
        let making = Making { key: self.key, random: fresh.making, now_s };
        let given = secret.clone();
        let made =
            self.registry.plan_put_device(product, &name, DeviceRequest { secret, enabled: Some(true) }, &making);
        let made = made.map_err(|error| match error {
            PlanError::NameTaken => RegisterError::Exists,
            _ => RegisterError::NotAllowed,
        })?;
        let change = match uses {
            Uses::Key(key) => Change::UseKey(product.clone(), key.package, key.index, name.clone()),
            Uses::Identifier(identifier, package) => {
                Change::List(product.clone(), identifier, package, Some(name.clone()))
            }
        };
        // It is made unless it was given.
        let secret = made.secret.or(given).ok_or(RegisterError::NotAllowed)?;
        let device = Some(made.change);
        Ok(Registration { name, secret, way, sealed: None, device, package: Some(id), changes: vec![change] })
    }
}

/// 22 letters and digits: 130 bits, in the shape of a gizwits did.
fn made_name(random: [u8; 22]) -> DeviceName {
    const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let letter =
        |byte: &u8| ALPHABET.get(usize::from(*byte) % ALPHABET.len()).map_or('A', |letter| char::from(*letter));
    DeviceName::parse(&random.iter().map(letter).collect::<String>()).expect("letters and digits")
}
