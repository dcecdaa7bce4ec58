//! What the API asks for, as changes to commit and to apply. Whoever plans holds the control plane's lock until it has applied
//! ([`crate::registry`]).

use ipnet::IpNet;

use super::People;
use super::apps::{App, KeySource, Products, TokenRules};
use super::bindings::{Binding, DeviceKey, Role, User};
use super::change::Change;
use super::codes::{Code, CodeHash, SessionCode};
use super::ids::{AccessKey, AppId, TenantId, UserKey};
use super::jwks::KeySet;
use super::record::{app_owner, service_owner};
use super::services::{Grant, Service};
use crate::names::ProductKey;
use crate::plan::Making;
use crate::registry::Registry;
use crate::secret::{Sealed, Secret};

/// Devices that one user may be bound to.
pub const DEVICES_PER_USER_MAX: usize = 10_000;
/// Users that one device may be bound to, its owner included.
pub const USERS_PER_DEVICE_MAX: usize = 64;
/// Users that an app may have, if it isn't said.
pub const USERS_MAX: u32 = 2_000_000;
/// Products that an app may be limited to.
pub const PRODUCTS_MAX: usize = 10_000;
/// Networks of a service.
pub const NETWORKS_MAX: usize = 100;
/// Grants of a service.
pub const GRANTS_MAX: usize = 1_000;
/// The most that an issuer's clock may be off, in seconds.
pub const LEEWAY_MAX_S: u16 = 300;
/// Session codes of one user.
pub const CODES_PER_USER_MAX: usize = 20;
/// Session codes in all.
pub const CODES_MAX: usize = 1_000_000;
/// The longest that a session code may be good for, in seconds: a day.
pub const CODE_TTL_MAX_S: u32 = 24 * 3600;
/// Bytes of an issuer, an audience, a URL or a path.
pub const TEXT_BYTES_MAX: usize = 2048;
/// The least of an app's or a service's secret, in bytes: what signs tokens has to be as long as their hash (RFC 7518, 3.2).
pub const SECRET_BYTES_MIN: usize = 32;

/// Why nothing is changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PlanError {
    /// It isn't there.
    #[error("there is no such app")]
    NoSuchApp,
    /// Users of a deleted app of that id are still being removed.
    #[error("an app of that id is still being deleted")]
    AppBeingDeleted,
    /// It isn't there.
    #[error("there is no such user")]
    NoSuchUser,
    /// It isn't there.
    #[error("there is no such service")]
    NoSuchService,
    /// It isn't there.
    #[error("there is no such product")]
    NoSuchProduct,
    /// It isn't there.
    #[error("there is no such device")]
    NoSuchDevice,
    /// Below [`SECRET_BYTES_MIN`].
    #[error("the secret of an app or a service has at least 32 bytes")]
    WeakSecret,
    /// Above one of the bounds of this module.
    #[error("that is more than there may be")]
    TooMuch,
    /// The keys for tokens aren't a JWK set with a key that can be used.
    #[error("that is no set of keys that tokens can be checked with")]
    BadKeys,
    /// The user's app isn't for that product, or it is another tenant's.
    #[error("the app is not for that product")]
    ProductNotAllowed,
    /// Tenants don't share devices, so what is bound stays where it is.
    #[error("devices of that product are bound to users")]
    ProductBound,
    /// Somebody else has it.
    #[error("the device is bound to another owner")]
    OwnedByAnother,
    /// Nobody owns it, so nobody can share it.
    #[error("the device has no owner")]
    NoOwner,
    /// Only the owner shares and passes on.
    #[error("the user is not the owner of the device")]
    NotOwner,
    /// It isn't bound.
    #[error("the user is not bound to the device")]
    NotBound,
    /// Its owner can't be given less, and a share can't be given to nobody.
    #[error("the user owns the device")]
    IsOwner,
    /// Ownership passes with [`People::plan_transfer`].
    #[error("ownership is not shared")]
    OwnerShared,
    /// A new user of that id has to wait: what is left of the old one is being erased.
    #[error("the user of that id is still being erased")]
    BeingErased,
    /// It would have expired already.
    #[error("a share must not have expired")]
    Expired,
}

/// What is asked of an app; what isn't said stays as it is.
#[derive(Clone, Debug, Default)]
pub struct AppRequest {
    /// Its tenant, which never changes afterwards; the default one, if it isn't said.
    pub tenant: Option<TenantId>,
    /// Its secret; one is made for a new app, if none is given.
    pub secret: Option<Secret>,
    /// Have a new secret made.
    pub renew_secret: bool,
    /// Whether its users get in.
    pub enabled: Option<bool>,
    /// What it is for.
    pub products: Option<Products>,
    /// How its tokens are checked.
    pub tokens: Option<TokenRules>,
    /// How many users it may have.
    pub users_max: Option<u32>,
}

/// What is asked of a service; what isn't said stays as it is.
#[derive(Clone, Debug, Default)]
pub struct ServiceRequest {
    /// Its tenant, which never changes afterwards; the default one, if it isn't said.
    pub tenant: Option<TenantId>,
    /// Its secret; one is made for a new service, if none is given.
    pub secret: Option<Secret>,
    /// Have a new secret made.
    pub renew_secret: bool,
    /// Whether it gets in.
    pub enabled: Option<bool>,
    /// Where it may come from.
    pub networks: Option<Vec<IpNet>>,
    /// What it may do.
    pub grants: Option<Vec<Grant>>,
}

/// An app or a service to be made or changed.
#[derive(Clone, Debug)]
pub struct Made {
    /// To be committed and applied.
    pub change: Change,
    /// The secret, where it is new; it is shown once.
    pub secret: Option<Secret>,
    /// Whether there was none of that name.
    pub is_new: bool,
}

/// The secret to be kept: the old one, one that is given, or one that is made.
fn secret(
    owner: &str,
    before: Option<&Sealed>,
    given: Option<Secret>,
    renew: bool,
    making: &Making<'_>,
) -> Result<(Sealed, Option<Secret>), PlanError> {
    if given.as_ref().is_some_and(|given| given.expose().len() < SECRET_BYTES_MIN) {
        return Err(PlanError::WeakSecret);
    }
    match (before, given) {
        (Some(before), None) if !renew => Ok((before.clone(), None)),
        (_, given) => {
            let made = making.random.first_chunk().expect("16 of 28 bytes");
            let nonce = making.random.last_chunk().expect("12 of 28 bytes");
            let secret = given.unwrap_or_else(|| Secret::generate(*made));
            Ok((making.key.seal(owner, &secret, *nonce), Some(secret)))
        }
    }
}

fn check_tokens(tokens: &TokenRules) -> Result<(), PlanError> {
    let long = |text: &Option<Box<str>>| text.as_ref().is_some_and(|text| text.len() > TEXT_BYTES_MAX);
    match &tokens.keys {
        KeySource::Url(text) | KeySource::File(text) if text.len() > TEXT_BYTES_MAX => return Err(PlanError::TooMuch),
        KeySource::Document(text) if KeySet::parse(text).is_err() => return Err(PlanError::BadKeys),
        KeySource::None | KeySource::Document(_) | KeySource::Url(_) | KeySource::File(_) => {}
    }
    let too_much = long(&tokens.issuer) || long(&tokens.audience) || tokens.leeway_s > LEEWAY_MAX_S;
    if too_much { Err(PlanError::TooMuch) } else { Ok(()) }
}

impl People {
    /// Creates an app or changes it.
    ///
    /// # Errors
    /// [`PlanError::AppBeingDeleted`], [`PlanError::WeakSecret`], [`PlanError::TooMuch`], [`PlanError::BadKeys`].
    pub fn plan_put_app(&self, id: &AppId, request: AppRequest, making: &Making<'_>) -> Result<Made, PlanError> {
        let before = self.app(id.as_str());
        if before.is_none() && self.bindings.user_count(id.as_str()) > 0 {
            return Err(PlanError::AppBeingDeleted);
        }
        let AppRequest { tenant, secret: given, renew_secret, enabled, products, tokens, users_max } = request;
        if matches!(&products, Some(Products::Only(only)) if only.len() > PRODUCTS_MAX) {
            return Err(PlanError::TooMuch);
        }
        tokens.as_ref().map_or(Ok(()), check_tokens)?;
        let sealed = before.as_ref().map(|app| &app.secret);
        let (sealed, secret) = secret(&app_owner(id.as_str()), sealed, given, renew_secret, making)?;
        let is_new = before.is_none();
        let mut app = before.map_or_else(
            || App {
                tenant: tenant.unwrap_or_default(),
                secret: sealed.clone(),
                enabled: true,
                created_at_s: making.now_s,
                products: Products::All,
                tokens: TokenRules::default(),
                users_max: USERS_MAX,
            },
            |app| App::clone(&app),
        );
        app.secret = sealed;
        app.enabled = enabled.unwrap_or(app.enabled);
        app.products = products.unwrap_or(app.products);
        app.tokens = tokens.unwrap_or(app.tokens);
        app.users_max = users_max.unwrap_or(app.users_max);
        Ok(Made { change: Change::PutApp(id.clone(), app), secret, is_new })
    }

    /// Deletes an app. After this has been applied, [`Self::plan_sweep`] removes its users.
    ///
    /// # Errors
    /// [`PlanError::NoSuchApp`].
    pub fn plan_delete_app(&self, id: &AppId) -> Result<Change, PlanError> {
        self.app(id.as_str()).ok_or(PlanError::NoSuchApp)?;
        Ok(Change::DeleteApp(id.clone()))
    }

    /// Removes up to `limit` users of a deleted app, with all that is theirs; nothing is left of it when there is nothing to remove.
    #[must_use]
    pub fn plan_sweep(&self, id: &AppId, limit: usize) -> Vec<Change> {
        if self.app(id.as_str()).is_some() {
            return Vec::new();
        }
        let users = self.bindings.any_users(id.as_str(), limit);
        users.iter().flat_map(|user| self.deletion(user)).collect()
    }

    /// Creates a user, or leaves it as it is; also says whether it is new.
    ///
    /// # Errors
    /// [`PlanError::NoSuchApp`], [`PlanError::TooMuch`] above the app's bound; [`PlanError::BeingErased`].
    pub fn plan_put_user(&self, key: &UserKey, now_s: u64) -> Result<(Change, bool), PlanError> {
        let app = self.app(key.app.as_str()).ok_or(PlanError::NoSuchApp)?;
        let before = self.bindings.user(key.app.as_str(), key.user.as_str());
        if before.is_none() && self.bindings.user_count(key.app.as_str()) >= u64::from(app.users_max) {
            return Err(PlanError::TooMuch);
        }
        if before.is_none() && self.is_to_be_erased(key) {
            return Err(PlanError::BeingErased);
        }
        let new = User { frozen: false, created_at_s: u32::try_from(now_s).unwrap_or(u32::MAX) };
        Ok((Change::PutUser(key.clone(), before.unwrap_or(new)), before.is_none()))
    }

    /// Freezes a user, or lets it in again.
    ///
    /// # Errors
    /// [`PlanError::NoSuchUser`].
    pub fn plan_freeze_user(&self, key: &UserKey, frozen: bool) -> Result<Change, PlanError> {
        Ok(Change::PutUser(key.clone(), User { frozen, ..self.registered(key)? }))
    }

    /// What an erasure deletes, without the erasure.
    #[cfg(test)]
    pub(crate) fn plan_delete_user(&self, key: &UserKey) -> Result<Vec<Change>, PlanError> {
        self.registered(key).map(|_| self.deletion(key))
    }

    /// The end of a user's records: bindings, and with those of an owner the shares of its devices; session codes; log-ins. Its sessions and what
    /// waits for it are the shards' to end ([`turnpike_core::shard::Shard::forget`]).
    pub(super) fn deletion(&self, key: &UserKey) -> Vec<Change> {
        let devices = self.bindings.devices_of(key).into_iter();
        let unbound = devices.flat_map(|(device, binding)| self.unbinding(&device, key, binding.role));
        let last = [Change::DeleteLogIns(key.clone()), Change::DeleteUser(key.clone())];
        unbound.chain(self.plan_revoke_codes(key, None)).chain(last).collect()
    }

    fn registered(&self, key: &UserKey) -> Result<User, PlanError> {
        self.app(key.app.as_str()).ok_or(PlanError::NoSuchApp)?;
        self.bindings.user(key.app.as_str(), key.user.as_str()).ok_or(PlanError::NoSuchUser)
    }

    /// Whether a user may be bound to a device at all.
    fn bindable(&self, registry: &Registry, device: &DeviceKey, user: &UserKey) -> Result<(), PlanError> {
        self.registered(user)?;
        let app = self.app(user.app.as_str()).ok_or(PlanError::NoSuchApp)?;
        let product = device.product.as_str();
        registry.product(product).ok_or(PlanError::NoSuchProduct)?;
        if !app.products.contains(product) || !self.services.is_of(product, &app.tenant) {
            return Err(PlanError::ProductNotAllowed);
        }
        registry.device(product, device.device.as_str()).map(drop).ok_or(PlanError::NoSuchDevice)
    }

    /// Makes a user the owner of a device that has none. That the device is at the user's hands (passcode, QR code, a button pressed) has been
    /// proved to the caller.
    ///
    /// # Errors
    /// [`PlanError::OwnedByAnother`]; whatever keeps the user from being bound to the device; [`PlanError::TooMuch`].
    pub fn plan_bind(
        &self,
        registry: &Registry,
        device: &DeviceKey,
        user: &UserKey,
        by_admin: bool,
    ) -> Result<Change, PlanError> {
        self.bindable(registry, device, user)?;
        if self.bindings.owner(device).is_some_and(|owner| owner != *user) {
            return Err(PlanError::OwnedByAnother);
        }
        self.has_room(device, user)?;
        let binding = Binding { role: Role::Owner, expires_at_s: None, by_admin };
        Ok(Change::Bind(device.clone(), user.clone(), binding))
    }

    fn has_room(&self, device: &DeviceKey, user: &UserKey) -> Result<(), PlanError> {
        let users = self.bindings.users_of(device);
        let is_new = users.iter().all(|(known, _)| known != user);
        let full = users.len() >= USERS_PER_DEVICE_MAX || self.bindings.device_count(user) >= DEVICES_PER_USER_MAX;
        if is_new && full { Err(PlanError::TooMuch) } else { Ok(()) }
    }

    /// Shares a device with a user, or changes the share. `by`: the owner who does it; none for an administrator.
    ///
    /// # Errors
    /// [`PlanError::NoOwner`], [`PlanError::NotOwner`], [`PlanError::IsOwner`], [`PlanError::OwnerShared`],
    /// [`PlanError::Expired`]; whatever keeps the user from being bound to the device; [`PlanError::TooMuch`].
    pub fn plan_share(
        &self,
        registry: &Registry,
        device: &DeviceKey,
        by: Option<&UserKey>,
        share: &Share<'_>,
        now_s: u64,
    ) -> Result<Change, PlanError> {
        let owner = self.bindings.owner(device).ok_or(PlanError::NoOwner)?;
        if by.is_some_and(|by| *by != owner) {
            return Err(PlanError::NotOwner);
        }
        if *share.with == owner {
            return Err(PlanError::IsOwner);
        }
        if share.role == Role::Owner {
            return Err(PlanError::OwnerShared);
        }
        if share.expires_at_s.is_some_and(|at_s| u64::from(at_s) <= now_s) {
            return Err(PlanError::Expired);
        }
        self.bindable(registry, device, share.with)?;
        self.has_room(device, share.with)?;
        let binding = Binding { role: share.role, expires_at_s: share.expires_at_s, by_admin: by.is_none() };
        Ok(Change::Bind(device.clone(), share.with.clone(), binding))
    }

    /// Passes a device on to another owner. Shares end: the new owner decides anew.
    ///
    /// # Errors
    /// [`PlanError::NotOwner`], [`PlanError::IsOwner`]; whatever keeps the user from being bound to the device; [`PlanError::TooMuch`].
    pub fn plan_transfer(
        &self,
        registry: &Registry,
        device: &DeviceKey,
        from: &UserKey,
        to: &UserKey,
        by_admin: bool,
    ) -> Result<Vec<Change>, PlanError> {
        if self.bindings.owner(device).as_ref() != Some(from) {
            return Err(PlanError::NotOwner);
        }
        if from == to {
            return Err(PlanError::IsOwner);
        }
        self.bindable(registry, device, to)?;
        if self.bindings.device_count(to) >= DEVICES_PER_USER_MAX {
            return Err(PlanError::TooMuch);
        }
        let mut changes = self.unbinding(device, from, Role::Owner);
        changes.retain(|change| !matches!(change, Change::Unbind(_, user) if user == to));
        let binding = Binding { role: Role::Owner, expires_at_s: None, by_admin };
        changes.push(Change::Bind(device.clone(), to.clone(), binding));
        Ok(changes)
    }

    /// Unbinds a user; if it is the owner, everybody.
    ///
    /// # Errors
    /// [`PlanError::NotBound`].
    pub fn plan_unbind(&self, device: &DeviceKey, user: &UserKey) -> Result<Vec<Change>, PlanError> {
        let binding = self.bindings.binding(device, user).ok_or(PlanError::NotBound)?;
        Ok(self.unbinding(device, user, binding.role))
    }

    fn unbinding(&self, device: &DeviceKey, user: &UserKey, role: Role) -> Vec<Change> {
        match role {
            Role::Owner => self.plan_forget_device(device),
            Role::View | Role::Control => vec![Change::Unbind(device.clone(), user.clone())],
        }
    }

    /// Unbinds everybody from a device: to be applied before the device is deleted.
    #[must_use]
    pub fn plan_forget_device(&self, device: &DeviceKey) -> Vec<Change> {
        let users = self.bindings.users_of(device).into_iter();
        users.map(|(user, _)| Change::Unbind(device.clone(), user)).collect()
    }

    /// Unbinds everybody from up to `limit` devices of a product that is being deleted; there are none left when there is nothing to do.
    #[must_use]
    pub fn plan_forget_product(&self, product: &ProductKey, limit: usize) -> Vec<Change> {
        let devices = self.bindings.bound_devices(product.as_str(), limit);
        let mut changes: Vec<Change> = devices.iter().flat_map(|device| self.plan_forget_device(device)).collect();
        changes.extend(self.proofs.of_product(product, limit).into_iter().map(Change::DeleteProofs));
        if changes.is_empty() && self.services.tenant_of(product.as_str()) != TenantId::default() {
            changes.push(Change::SetTenant(product.clone(), TenantId::default()));
        }
        changes
    }

    /// Voids the proofs that a device has: with its binding, and before its end.
    #[must_use]
    pub fn plan_use_up(&self, device: &DeviceKey) -> Option<Change> {
        self.proofs.has(device).then(|| Change::DeleteProofs(device.clone()))
    }

    /// Removes up to `limit` shares and as many session codes and devices' proofs that have expired. They have counted for nothing since they did.
    #[must_use]
    pub fn plan_expire(&self, limit: usize) -> Vec<Change> {
        let shares = self.bindings.expired(limit).into_iter().map(|(device, user)| Change::Unbind(device, user));
        let codes = self.codes.expired(self.bindings.now_s(), limit).into_iter();
        let codes = codes.filter_map(|hash| Some(Change::DeleteCode(hash, self.codes.find(hash)?.user)));
        let proofs = self.proofs.expired(self.bindings.now_s(), limit).into_iter().map(Change::DeleteProofs);
        shares.chain(codes).chain(proofs).collect()
    }

    /// Issues a session code that is good for so many seconds, at most [`CODE_TTL_MAX_S`]. `random` is fresh.
    ///
    /// # Errors
    /// [`PlanError::NoSuchUser`], [`PlanError::TooMuch`].
    pub fn plan_issue_code(
        &self,
        user: &UserKey,
        ttl_s: u32,
        random: [u8; 32],
        now_s: u64,
    ) -> Result<Issued, PlanError> {
        self.registered(user)?;
        let full = self.codes.of(user).len() >= CODES_PER_USER_MAX || self.codes.len() >= CODES_MAX;
        if full || !(1..=CODE_TTL_MAX_S).contains(&ttl_s) {
            return Err(PlanError::TooMuch);
        }
        let code = SessionCode::new(random);
        let hash = CodeHash::of(code.expose());
        let expires_at_s = now_s.saturating_add(u64::from(ttl_s));
        let change = Change::PutCode(hash, Code { user: user.clone(), expires_at_s });
        Ok(Issued { change, code, number: hash.number(), expires_at_s })
    }

    /// Takes back a user's session codes: that of a number, or all. Whoever came in by one is out.
    #[must_use]
    pub fn plan_revoke_codes(&self, user: &UserKey, number: Option<u64>) -> Vec<Change> {
        let codes = self.codes.of(user).into_iter();
        let meant = codes.filter(|(hash, _)| number.is_none_or(|number| hash.number() == number));
        meant.map(|(hash, _)| Change::DeleteCode(hash, user.clone())).collect()
    }

    /// Creates a service or changes it.
    ///
    /// # Errors
    /// [`PlanError::WeakSecret`], [`PlanError::TooMuch`].
    pub fn plan_put_service(
        &self,
        key: &AccessKey,
        request: ServiceRequest,
        making: &Making<'_>,
    ) -> Result<Made, PlanError> {
        let ServiceRequest { tenant, secret: given, renew_secret, enabled, networks, grants } = request;
        let above = |length: Option<usize>, most| length.is_some_and(|length| length > most);
        if above(networks.as_ref().map(Vec::len), NETWORKS_MAX) || above(grants.as_ref().map(Vec::len), GRANTS_MAX) {
            return Err(PlanError::TooMuch);
        }
        let before = self.service(key.as_str());
        let sealed = before.as_ref().map(|service| &service.secret);
        let (sealed, secret) = secret(&service_owner(key.as_str()), sealed, given, renew_secret, making)?;
        let is_new = before.is_none();
        let mut service = before.map_or_else(
            || Service {
                tenant: tenant.unwrap_or_default(),
                secret: sealed.clone(),
                enabled: true,
                created_at_s: making.now_s,
                networks: Vec::new(),
                grants: Vec::new(),
            },
            |service| Service::clone(&service),
        );
        service.secret = sealed;
        service.enabled = enabled.unwrap_or(service.enabled);
        service.networks = networks.unwrap_or(service.networks);
        service.grants = grants.unwrap_or(service.grants);
        Ok(Made { change: Change::PutService(key.clone(), service), secret, is_new })
    }

    /// Deletes a service.
    ///
    /// # Errors
    /// [`PlanError::NoSuchService`].
    pub fn plan_delete_service(&self, key: &AccessKey) -> Result<Change, PlanError> {
        self.service(key.as_str()).ok_or(PlanError::NoSuchService)?;
        Ok(Change::DeleteService(key.clone()))
    }

    /// Gives a product to a tenant.
    ///
    /// # Errors
    /// [`PlanError::NoSuchProduct`]; [`PlanError::ProductBound`] while users are bound to its devices.
    pub fn plan_set_tenant(
        &self,
        registry: &Registry,
        product: &ProductKey,
        tenant: TenantId,
    ) -> Result<Change, PlanError> {
        registry.product(product.as_str()).ok_or(PlanError::NoSuchProduct)?;
        let moves = self.services.tenant_of(product.as_str()) != tenant;
        if moves && !self.bindings.bound_devices(product.as_str(), 1).is_empty() {
            return Err(PlanError::ProductBound);
        }
        Ok(Change::SetTenant(product.clone(), tenant))
    }
}

/// A session code to be issued.
#[derive(Clone, Debug)]
pub struct Issued {
    /// To be committed and applied; the code opens then.
    pub change: Change,
    /// The code, which is shown once.
    pub code: SessionCode,
    /// What it is listed and taken back by.
    pub number: u64,
    /// When it ends, seconds since 1970 UTC.
    pub expires_at_s: u64,
}

/// What is given with a share.
#[derive(Clone, Copy, Debug)]
pub struct Share<'a> {
    /// To whom.
    pub with: &'a UserKey,
    /// View or control.
    pub role: Role,
    /// Until when, seconds since 1970 UTC; none for good.
    pub expires_at_s: Option<u32>,
}
