//! Who is bound to which device: both ways, in memory, for a million devices.
//!
//! ```text
//! device ─▶ links: user, role, until when        control, read, and the feed of what it publishes
//! user   ─▶ state, devices                        lists, deletion, export
//! ```
//!
//! A device has at most one owner, and whoever else is bound to it is so by a share. Shares live on the owner's binding: they end when it
//! ends or passes to somebody else. So who gave a share needn't be kept: the owner, or an administrator in the owner's name.
//!
//! Costs: a question is two look-ups, each a hash and a read lock of 64, and a walk over the device's links; figures stand in
//! [`super`]'s header. A device whose owner alone is bound to it has 5 bytes of links.
//!
//! **Invariant:** a link never names a user that is another's by now. A user's place is used again only when nothing links to it: links go
//! first, under the device's lock, under which readers follow them.
//!
//! **Invariant:** a share that has expired by `Bindings::advance`'s clock counts as none, whether the store has forgotten it or not.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::ids::UserKey;
use super::shelf::{Ref, Shelf};
use crate::names::{DeviceName, ProductKey};

/// What a user may do with a device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Role {
    /// Reads what it publishes and what it is told.
    View = 0,
    /// The same, and tells it what to do.
    Control = 1,
    /// The same, and shares it, passes it on, gives it up.
    Owner = 2,
}

impl Role {
    /// As it is called in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Control => "control",
            Self::Owner => "owner",
        }
    }

    pub(crate) fn from_bits(bits: u8) -> Option<Self> {
        [Self::View, Self::Control, Self::Owner].into_iter().find(|role| *role as u8 == bits)
    }
}

/// How a user is bound to a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Binding {
    /// What the user may do.
    pub role: Role,
    /// From when on it counts no more, seconds since 1970 UTC, up to the year 2106; owners' bindings have none.
    pub expires_at_s: Option<u32>,
    /// Given by an administrator, not by the owner.
    pub by_admin: bool,
}

/// What a user is, besides the name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct User {
    /// A frozen user doesn't get in and may do nothing; bindings stay.
    pub frozen: bool,
    /// Seconds since 1970 UTC, up to the year 2106.
    pub created_at_s: u32,
}

/// A device, as bindings name it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct DeviceKey {
    /// Product key.
    pub product: ProductKey,
    /// Its name there.
    pub device: DeviceName,
}

const ROLE: u8 = 3;
const EXPIRES: u8 = 4;
const BY_ADMIN: u8 = 8;
const PRINT: u8 = 0xF0;

const PRESENT: u8 = 1;
const FROZEN: u8 = 2;
/// Flags and the moment of creation.
const USER_HEAD: usize = 5;

/// Users and bindings. Read by every shard, changed by the control plane, one change at a time.
#[derive(Debug, Default)]
pub struct Bindings {
    devices: Shelf,
    users: Shelf,
    /// Of links that expire: when, device, user.
    expiries: Mutex<BTreeSet<(u32, Ref, Ref)>>,
    /// Seconds since 1970 UTC; never goes back.
    clock_s: AtomicU64,
    links: AtomicU64,
}

/// One user of a device, 5 or 9 bytes: flags, user, expiry. `print` is in the flags: most links of others are passed over by it.
#[derive(Clone, Copy)]
struct Link {
    user: Ref,
    print: u8,
    binding: Binding,
}

impl Bindings {
    /// What a user may do with a device, now; none for a user that is unknown or frozen.
    #[inline]
    pub(crate) fn role(&self, app: &str, user: &str, product: &str, device: &str) -> Option<Role> {
        // The device first: its links lead to their users, so that one of the two needn't be looked up.
        let print = self.users.print(app, user);
        self.devices.with(product, device, |_, tail| {
            let is_user = |link: &Link| self.users.at_if(link.user, app, user, |tail| state(tail) == Some(false));
            let found =
                links(tail).filter(|link| link.print == print).find_map(|link| Some((is_user(&link)?, link.binding)));
            let (active, binding) = found?;
            (active && self.is_valid(&binding)).then_some(binding.role)
        })?
    }

    /// Whether any user may be bound to a device, shares that have expired included.
    pub(crate) fn is_bound(&self, product: &str, device: &str) -> bool {
        self.links.load(Ordering::Relaxed) != 0 && self.devices.with(product, device, |_, _| ()).is_some()
    }

    /// The users who read what a device publishes: app and id.
    pub(crate) fn readers(&self, product: &str, device: &str, mut f: impl FnMut(&str, &str)) {
        self.devices.with(product, device, |_, tail| {
            for link in links(tail).filter(|link| self.is_valid(&link.binding)) {
                self.users.at(link.user, |app, user, tail| {
                    if state(tail) == Some(false) {
                        f(app, user);
                    }
                });
            }
        });
    }

    fn is_valid(&self, binding: &Binding) -> bool {
        binding.expires_at_s.is_none_or(|at_s| self.now_s() < u64::from(at_s))
    }

    /// The clock that expiries are held against.
    pub(crate) fn now_s(&self) -> u64 {
        self.clock_s.load(Ordering::Relaxed)
    }

    /// Moves the clock on.
    pub(crate) fn advance(&self, now_s: u64) {
        self.clock_s.fetch_max(now_s, Ordering::Relaxed);
    }

    /// When the next share expires, or did and is still there.
    pub(crate) fn next_expiry_s(&self) -> Option<u64> {
        self.expiries.lock().first().map(|(at_s, _, _)| u64::from(*at_s))
    }

    /// Up to `limit` shares that have expired.
    pub(crate) fn expired(&self, limit: usize) -> Vec<(DeviceKey, UserKey)> {
        let now_s = self.now_s();
        let due: Vec<(Ref, Ref)> = {
            let expiries = self.expiries.lock();
            expiries.iter().take_while(|due| u64::from(due.0) <= now_s).take(limit).map(|due| (due.1, due.2)).collect()
        };
        due.into_iter().filter_map(|(device, user)| Some((self.device_key(device)?, self.user_key(user)?))).collect()
    }

    /// A user, if it is registered.
    #[must_use]
    pub fn user(&self, app: &str, user: &str) -> Option<User> {
        self.users.with(app, user, |_, tail| user_of(tail))?
    }

    /// How many users an app has.
    #[must_use]
    pub fn user_count(&self, app: &str) -> u64 {
        self.users.group_len(app)
    }

    /// Up to `limit` users of an app behind a cursor, in no order that means anything, and the cursor of the next page.
    #[must_use]
    pub fn users(&self, app: &str, after: Option<u32>, limit: usize) -> (Vec<(UserKey, User)>, Option<u32>) {
        let (mut page, mut last) = (Vec::new(), None);
        if limit == 0 {
            return (page, last);
        }
        self.users.scan(after.map(Ref), |at, group, name, tail| {
            if group == app
                && let (Some(user), Ok(key)) = (user_of(tail), UserKey::parse(group, name))
            {
                page.push((key, user));
                last = Some(at.0);
            }
            page.len() < limit
        });
        let next = last.filter(|_| page.len() == limit);
        (page, next)
    }

    /// Up to `limit` users of an app, registered or not.
    pub(crate) fn any_users(&self, app: &str, limit: usize) -> Vec<UserKey> {
        let mut found = Vec::new();
        if self.users.group_len(app) == 0 {
            return found;
        }
        self.users.scan(None, |_, group, name, _| {
            if group == app {
                found.extend(UserKey::parse(group, name));
            }
            found.len() < limit
        });
        found
    }

    /// The app of each user, registered or not.
    pub(crate) fn apps_of_users(&self, mut f: impl FnMut(&str)) {
        self.users.scan(None, |_, app, _, _| {
            f(app);
            true
        });
    }

    /// How a user is bound to a device, whether it has expired or not.
    #[must_use]
    pub fn binding(&self, device: &DeviceKey, user: &UserKey) -> Option<Binding> {
        self.users_of(device).into_iter().find(|(known, _)| known == user).map(|(_, binding)| binding)
    }

    /// The owner of a device.
    #[must_use]
    pub fn owner(&self, device: &DeviceKey) -> Option<UserKey> {
        self.users_of(device).into_iter().find(|(_, binding)| binding.role == Role::Owner).map(|(user, _)| user)
    }

    /// Everybody who is bound to a device, expired shares included.
    #[must_use]
    pub fn users_of(&self, device: &DeviceKey) -> Vec<(UserKey, Binding)> {
        let found = self.devices.with(device.product.as_str(), device.device.as_str(), |_, tail| {
            links(tail).filter_map(|link| Some((self.user_key(link.user)?, link.binding))).collect()
        });
        found.unwrap_or_default()
    }

    /// Every device that a user is bound to, expired shares included.
    #[must_use]
    pub fn devices_of(&self, user: &UserKey) -> Vec<(DeviceKey, Binding)> {
        let (app, name) = (user.app.as_str(), user.user.as_str());
        let Some((at, devices)) = self.users.with(app, name, |at, tail| (at, refs(tail).collect::<Vec<_>>())) else {
            return Vec::new();
        };
        let bound = |device: Ref| {
            self.devices.at(device, |product, name, tail| {
                let link = links(tail).find(|link| link.user == at)?;
                Some((device_key(product, name)?, link.binding))
            })?
        };
        devices.into_iter().filter_map(bound).collect()
    }

    /// How many devices a user is bound to.
    #[must_use]
    pub fn device_count(&self, user: &UserKey) -> usize {
        let count = |_, tail: &[u8]| refs(tail).count();
        self.users.with(user.app.as_str(), user.user.as_str(), count).unwrap_or(0)
    }

    /// How many bindings there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.links.load(Ordering::Relaxed)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Up to `limit` devices of a product that somebody is bound to.
    pub(crate) fn bound_devices(&self, product: &str, limit: usize) -> Vec<DeviceKey> {
        let mut found = Vec::new();
        if self.devices.group_len(product) == 0 {
            return found;
        }
        self.devices.scan(None, |_, group, name, _| {
            if group == product {
                found.extend(device_key(group, name));
            }
            found.len() < limit
        });
        found
    }

    pub(crate) fn put_user(&self, key: &UserKey, user: User) {
        self.users.change(key.app.as_str(), key.user.as_str(), |tail| set_user(tail, Some(user)));
    }

    /// Forgets a user, and whatever links are left of it.
    pub(crate) fn delete_user(&self, key: &UserKey) {
        for (device, _) in self.devices_of(key) {
            self.unbind(&device, key);
        }
        self.users.change(key.app.as_str(), key.user.as_str(), |tail| set_user(tail, None));
    }

    /// Binds a user, who may not have been loaded yet, or changes how it is bound: nobody sees it unbound in between.
    pub(crate) fn bind(&self, device: &DeviceKey, user: &UserKey, binding: Binding) {
        let at_user = self.users.change(user.app.as_str(), user.user.as_str(), hold_user);
        let print = self.users.print(user.app.as_str(), user.user.as_str());
        let mut before = None;
        let at = self.devices.change(device.product.as_str(), device.device.as_str(), |tail| {
            before = take_link(tail, at_user);
            push_link(tail, &Link { user: at_user, print, binding });
        });
        if before.is_none() {
            self.users.change_at(at_user, |tail| push_ref(tail, at));
            self.links.fetch_add(1, Ordering::Relaxed);
        }
        let mut expiries = self.expiries.lock();
        if let Some(at_s) = before.and_then(|before| before.expires_at_s) {
            expiries.remove(&(at_s, at, at_user));
        }
        if let Some(at_s) = binding.expires_at_s {
            expiries.insert((at_s, at, at_user));
        }
    }

    /// Unbinds a user; nothing happens if it isn't bound.
    pub(crate) fn unbind(&self, device: &DeviceKey, user: &UserKey) {
        let Some(at_user) = self.users.with(user.app.as_str(), user.user.as_str(), |at, _| at) else { return };
        let Some(at) = self.devices.with(device.product.as_str(), device.device.as_str(), |at, _| at) else { return };
        let mut before = None;
        self.devices.change_at(at, |tail| before = take_link(tail, at_user));
        let Some(before) = before else { return };
        self.users.change_at(at_user, |tail| {
            remove_ref(tail, at);
            forget_unheld(tail);
        });
        if let Some(at_s) = before.expires_at_s {
            self.expiries.lock().remove(&(at_s, at, at_user));
        }
        self.links.fetch_sub(1, Ordering::Relaxed);
    }

    fn user_key(&self, at: Ref) -> Option<UserKey> {
        self.users.at(at, |app, user, _| UserKey::parse(app, user).ok())?
    }

    fn device_key(&self, at: Ref) -> Option<DeviceKey> {
        self.devices.at(at, |product, name, _| device_key(product, name))?
    }
}

fn device_key(product: &str, name: &str) -> Option<DeviceKey> {
    Some(DeviceKey { product: ProductKey::parse(product).ok()?, device: DeviceName::parse(name).ok()? })
}

/// The links in a device's tail.
fn links(mut tail: &[u8]) -> impl Iterator<Item = Link> + '_ {
    std::iter::from_fn(move || {
        let (&flags, rest) = tail.split_first()?;
        let (user, rest) = rest.split_first_chunk::<4>()?;
        tail = rest;
        let mut expires_at_s = None;
        if flags & EXPIRES != 0 {
            let (at_s, rest) = rest.split_first_chunk::<4>()?;
            tail = rest;
            expires_at_s = Some(u32::from_le_bytes(*at_s));
        }
        let binding = Binding { role: Role::from_bits(flags & ROLE)?, expires_at_s, by_admin: flags & BY_ADMIN != 0 };
        Some(Link { user: Ref(u32::from_le_bytes(*user)), print: flags & PRINT, binding })
    })
}

fn push_link(tail: &mut Vec<u8>, link: &Link) {
    let Binding { role, expires_at_s, by_admin } = link.binding;
    let flags = role as u8 | if expires_at_s.is_some() { EXPIRES } else { 0 } | if by_admin { BY_ADMIN } else { 0 };
    tail.push(flags | link.print);
    tail.extend_from_slice(&link.user.0.to_le_bytes());
    tail.extend(expires_at_s.map(u32::to_le_bytes).into_iter().flatten());
}

/// Takes a user's link out.
fn take_link(tail: &mut Vec<u8>, user: Ref) -> Option<Binding> {
    let found = links(tail).find(|link| link.user == user)?;
    let left: Vec<Link> = links(tail).filter(|link| link.user != user).collect();
    tail.clear();
    left.iter().for_each(|link| push_link(tail, link));
    Some(found.binding)
}

/// Whether a user is frozen, of one that is registered.
#[inline]
fn state(tail: &[u8]) -> Option<bool> {
    tail.first().filter(|flags| *flags & PRESENT != 0).map(|flags| flags & FROZEN != 0)
}

fn user_of(tail: &[u8]) -> Option<User> {
    let (&flags, rest) = tail.split_first()?;
    let created = rest.first_chunk::<4>()?;
    (flags & PRESENT != 0).then_some(User { frozen: flags & FROZEN != 0, created_at_s: u32::from_le_bytes(*created) })
}

/// The devices in a user's tail.
fn refs(tail: &[u8]) -> impl Iterator<Item = Ref> + '_ {
    tail.get(USER_HEAD..).unwrap_or_default().as_chunks::<4>().0.iter().map(|bytes| Ref(u32::from_le_bytes(*bytes)))
}

/// Makes a place for a user that isn't registered, if there is none.
fn hold_user(tail: &mut Vec<u8>) {
    if tail.is_empty() {
        tail.resize(USER_HEAD, 0);
    }
}

/// Gives the place of a user back that neither is registered nor has devices.
fn forget_unheld(tail: &mut Vec<u8>) {
    if state(tail).is_none() && refs(tail).next().is_none() {
        tail.clear();
    }
}

fn set_user(tail: &mut Vec<u8>, user: Option<User>) {
    hold_user(tail);
    let flags = user.map_or(0, |user| PRESENT | if user.frozen { FROZEN } else { 0 });
    let created = user.map_or(0, |user| user.created_at_s).to_le_bytes();
    tail.splice(..USER_HEAD, [flags].into_iter().chain(created));
    forget_unheld(tail);
}

fn push_ref(tail: &mut Vec<u8>, at: Ref) {
    tail.extend_from_slice(&at.0.to_le_bytes());
}

fn remove_ref(tail: &mut Vec<u8>, at: Ref) {
    let index = refs(tail).position(|known| known == at);
    if let Some(index) = index {
        tail.drain(USER_HEAD + index * 4..USER_HEAD + index * 4 + 4);
    }
}

#[cfg(test)]
mod tests;
