//! Users, apps and back ends: who they are, whom a device is bound to, what each may do.
//!
//! ```text
//! HTTP API ─▶ People::plan_… ─▶ Change ─▶ store (the shell commits it) ─▶ People::apply ─▶ whom it concerns is judged again
//! SUBSCRIBE, PUBLISH of a user or a service ─▶ policy, over what was applied
//! PUBLISH of a device ─▶ bindings ─▶ feeds of the users that are bound to it
//! ```
//!
//! - An **app** has users, a secret that signs their tokens, and products that it is for. Disabled, it cuts off all of them.
//! - A **user** is `{app}:{user}` wherever a whole id is needed, as in the topics of its feed, `user/{app}:{user}/…`: apps name
//!   their users as they like, and two apps may have an `alice`.
//! - A **binding** says what a user may do with a device ([`bindings`]).
//! - A **service** is a back end ([`services`]): tenants' services see the products of their tenant.
//!
//! Users log in as `{app}/{user}` with a token or a session code, services as `$svc/{access key}` ([`log_in`]).
//!
//! # Figures
//!
//! Printed by `cargo run --release -p turnpike-authz --example people`, on the 2-core machine, which had other work beside it. A million devices of
//! one product, names of 15 bytes; 200,000 users of 12, each bound to five of them.
//!
//! | what | cost |
//! |---|---|
//! | a device in memory, in the registry | 207 bytes |
//! | a binding, and a fifth of a user | 92 bytes |
//! | a binding applied, and a fifth of a user | 1.3–1.7 µs |
//! | a user publishes under `dev/…/down/…`: allowed, refused | 84–94 ns, 74–104 ns |
//! | the same of a thousand users in turn (misses of the cache) | 160–200 ns, 131–197 ns |
//! | the same, a thousand in turn among a million devices | 300–340 ns, 240–330 ns |
//! | a service publishes | 48–59 ns |
//! | whose feeds a message goes to: one device, a thousand in turn, 100,000 | 67 ns, 300 ns, 850 ns |
//! | whether a device has feeds that has none (asked when it connects) | 12–51 ns |
//!
//! Time moves by [`People::advance`], which the control plane calls when [`People::next_expiry_s`] says, and at least once a second.
//! Changes are applied one at a time, under the control plane's lock ([`crate::registry`]).

pub mod apps;
pub mod bindings;
pub mod change;
pub mod codes;
mod counts;
mod erase;
pub mod erasure;
mod export;
mod fields;
pub mod ids;
pub mod jwks;
pub mod key_desk;
pub mod log_in;
pub mod log_ins;
pub mod plan;
mod policy;
pub mod proofs;
mod record;
pub mod services;
mod shelf;
mod tokens;

use std::sync::Arc;

use turnpike_core::concern::Concern;
use turnpike_core::gate::{CameBy, ServiceIdentity, UserIdentity};

use self::apps::{App, Apps, KeySource};
use self::bindings::{Bindings, DeviceKey};
pub use self::change::Change;
use self::change::user_concern;
use self::codes::{CodeHash, Codes};
use self::counts::BindingCounts;
use self::erasure::Erasures;
use self::ids::{AccessKey, AppId, TenantId, UserKey};
use self::jwks::KeySet;
use self::key_desk::KeyDesk;
use self::log_ins::{LogIn, LogIns, NewPlace, Place};
use self::policy::Access;
pub use self::policy::addressed;
use self::proofs::Proofs;
use self::record::{app_owner, service_owner};
use self::services::{Service, Services};
use crate::record::RecordError;
use crate::secret::{MasterKey, SealError};

/// All of them. Read by every shard, changed by the control plane.
#[derive(Debug, Default)]
pub struct People {
    apps: Apps,
    bindings: Bindings,
    services: Services,
    codes: Codes,
    log_ins: LogIns,
    proofs: Proofs,
    erasures: Erasures,
    key_desk: KeyDesk,
    binding_counts: BindingCounts,
}

impl People {
    /// Nobody.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a record of the store is for [`Self::load`], and not for [`crate::registry::Registry::load`].
    #[must_use]
    pub fn is_record(key: &[u8]) -> bool {
        record::is_ours(key)
    }

    /// Takes a record back at start, in any order.
    ///
    /// # Errors
    /// [`RecordError`]; the caller refuses to start on it.
    pub fn load(&self, key: &[u8], value: &[u8]) -> Result<(), RecordError> {
        record::decode(key, value).map(|change| self.take(change))
    }

    /// Makes a committed change visible.
    pub fn apply(&self, change: Change) {
        self.binding_counts.count(&self.bindings, &change);
        self.take(change);
    }

    fn take(&self, change: Change) {
        match change {
            Change::PutApp(id, app) => self.apps.put(id, app),
            Change::DeleteApp(id) => self.apps.delete(&id),
            Change::PutUser(key, user) => self.bindings.put_user(&key, user),
            Change::DeleteUser(key) => {
                self.bindings.delete_user(&key);
                self.log_ins.forget(&key);
            }
            Change::Bind(device, user, binding) => self.bindings.bind(&device, &user, binding),
            Change::Unbind(device, user) => self.bindings.unbind(&device, &user),
            Change::PutCode(hash, code) => self.codes.put(hash, code),
            Change::DeleteCode(hash, _) => self.codes.delete(hash),
            Change::PutLogIns(key, record) => self.log_ins.load(&key, &record),
            Change::DeleteLogIns(key) => self.log_ins.forget(&key),
            Change::PutService(key, service) => self.services.put(key, service),
            Change::DeleteService(key) => self.services.delete(&key),
            Change::SetTenant(product, tenant) => self.services.set_tenant(product, tenant),
            Change::PutProofs(device, stored) => self.proofs.put(&device, stored),
            Change::DeleteProofs(device) => self.proofs.use_up(&device),
            Change::PutErasure(number, erasure) => self.erasures.put(number, *erasure),
            Change::DeleteErasure(number) => self.erasures.delete(number),
        }
    }

    /// Moves the clock on (seconds since 1970 UTC); it never goes back. Says who is to be judged again, since a share of theirs has expired:
    /// at most `limit` shares at once, and those again until [`Self::plan_expire`] has removed them.
    #[must_use]
    pub fn advance(&self, now_s: u64, limit: usize) -> Vec<Concern> {
        self.bindings.advance(now_s);
        self.bindings.expired(limit).iter().map(|(_, user)| user_concern(user)).collect()
    }

    /// When [`Self::advance`] and [`Self::plan_expire`] have something to do next, seconds since 1970 UTC; in the past, if they had and haven't
    /// done it.
    #[must_use]
    pub fn next_expiry_s(&self) -> Option<u64> {
        [self.bindings.next_expiry_s(), self.codes.next_expiry_s(), self.proofs.next_expiry_s()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Apps whose keys are elsewhere, and where: to be fetched now and then, and handed to [`Self::set_keys`].
    #[must_use]
    pub fn key_sources(&self) -> Vec<(AppId, KeySource)> {
        self.apps.key_sources()
    }

    /// Whether an app has keys that its tokens are checked with.
    #[must_use]
    pub fn has_keys(&self, id: &AppId) -> bool {
        self.apps.keys(id.as_str()).is_some()
    }

    /// When they are fetched.
    #[must_use]
    pub fn key_desk(&self) -> &KeyDesk {
        &self.key_desk
    }

    /// The keys that an app's tokens are checked with, as they were fetched. Nothing happens if there is no such app any more.
    pub fn set_keys(&self, id: AppId, keys: KeySet) {
        if self.apps.get(id.as_str()).is_some() {
            self.apps.set_keys(id, keys);
        }
    }

    /// The session codes of a user: hash and end, seconds since 1970 UTC.
    #[must_use]
    pub fn codes(&self, user: &UserKey) -> Vec<(CodeHash, u64)> {
        self.codes.of(user)
    }

    /// Users and what they are bound to.
    #[must_use]
    pub fn bindings(&self) -> &Bindings {
        &self.bindings
    }

    /// Changes of bindings since the start, by what they were.
    #[must_use]
    pub fn binding_changes(&self) -> [(&'static str, u64); 4] {
        self.binding_counts.all()
    }

    /// An app.
    #[must_use]
    pub fn app(&self, id: &str) -> Option<Arc<App>> {
        self.apps.get(id)
    }

    /// Up to `limit` apps after an id, in order. The last one's id asks for the next page.
    #[must_use]
    pub fn apps(&self, after: Option<&str>, limit: usize) -> Vec<(AppId, Arc<App>)> {
        self.apps.page(after, limit)
    }

    /// Deleted apps of which users are left: what [`Self::plan_sweep`] has to do, at start too. Looks at every user.
    #[must_use]
    pub fn swept_apps(&self) -> Vec<AppId> {
        let mut found = std::collections::BTreeSet::new();
        self.bindings.apps_of_users(|app| {
            if self.apps.get(app).is_none() && !found.contains(app) {
                found.extend(AppId::parse(app));
            }
        });
        found.into_iter().collect()
    }

    /// A service.
    #[must_use]
    pub fn service(&self, key: &str) -> Option<Arc<Service>> {
        self.services.get(key)
    }

    /// Up to `limit` services after a key, in order. The last one's key asks for the next page.
    #[must_use]
    pub fn services(&self, after: Option<&str>, limit: usize) -> Vec<(AccessKey, Arc<Service>)> {
        self.services.page(after, limit)
    }

    /// Whose a product is.
    #[must_use]
    pub fn tenant_of(&self, product: &str) -> TenantId {
        self.services.tenant_of(product)
    }

    /// Proofs that devices are at users' hands.
    #[must_use]
    pub fn proofs(&self) -> &Proofs {
        &self.proofs
    }

    /// Whether a master key opens what is kept of apps and services, tried on one of them.
    ///
    /// # Errors
    /// [`SealError`]; the caller doesn't start on it.
    pub fn check_key(&self, key: &MasterKey) -> Result<(), SealError> {
        if let Some((id, app)) = self.apps.page(None, 1).first() {
            return key.open(&app_owner(id.as_str()), &app.secret).map(drop);
        }
        match self.services.page(None, 1).first() {
            Some((access_key, service)) => key.open(&service_owner(access_key.as_str()), &service.secret).map(drop),
            None => Ok(()),
        }
    }

    /// Whether there is anything that is sealed under the master key.
    #[must_use]
    pub fn has_secrets(&self) -> bool {
        !self.apps.page(None, 1).is_empty() || !self.services.page(None, 1).is_empty()
    }

    /// The last log-ins of a user, the newest first.
    #[must_use]
    pub fn log_ins(&self, user: &UserKey) -> Vec<LogIn> {
        self.log_ins.of(user)
    }

    /// The devices that a user has logged in from, among its last log-ins, the newest first.
    #[must_use]
    pub fn places(&self, user: &UserKey) -> Vec<Place> {
        self.log_ins.places(user)
    }

    /// Log-ins of up to `limit` users, to be committed; they are visible already, so they needn't be applied. To be taken and handed to the committer
    /// under the control plane's lock: behind a user's deletion there must be none of that user.
    #[must_use]
    pub fn take_log_ins(&self, limit: usize) -> Vec<Change> {
        let changed = self.log_ins.take_changed(limit).into_iter();
        changed.map(|(user, record)| Change::PutLogIns(user, record)).collect()
    }

    /// Up to `limit` log-ins from new places, the oldest first.
    #[must_use]
    pub fn take_new_places(&self, limit: usize) -> Vec<NewPlace> {
        self.log_ins.take_events(limit)
    }

    /// Log-ins and new places that were left out, since too many waited to be taken.
    #[must_use]
    pub fn log_ins_left_out(&self) -> u64 {
        self.log_ins.left_out()
    }

    fn is_user_active(&self, app: &str, user: &str) -> bool {
        self.apps.is_enabled(app) && self.bindings.user(app, user).is_some_and(|user| !user.frozen)
    }

    /// Whether a user may publish on a topic name.
    #[must_use]
    pub fn user_may_publish(&self, user: &UserIdentity, topic: &str) -> bool {
        self.user_may(&user.app, &user.user, topic, Access::Publish)
    }

    /// Whether a user may subscribe to a filter, or be given what is on a topic.
    #[must_use]
    pub fn user_may_subscribe(&self, user: &UserIdentity, filter: &str) -> bool {
        self.user_may(&user.app, &user.user, filter, Access::Read)
    }

    /// Whether a user may be given what waits on a topic: what a device has published is for whoever is bound to it now, also by way of the user's own feed.
    #[must_use]
    pub fn user_may_receive(&self, user: &UserIdentity, topic: &str) -> bool {
        let fed = policy::fed(&user.app, &user.user, topic);
        self.user_may(&user.app, &user.user, topic, Access::Read)
            && fed.is_none_or(|original| self.user_may(&user.app, &user.user, original, Access::Read))
    }

    /// The owner of a device.
    #[must_use]
    pub fn owner(&self, device: &DeviceKey) -> Option<UserKey> {
        self.bindings.owner(device)
    }

    /// Whether a user may be connected.
    #[must_use]
    pub fn is_user_welcome(&self, user: &UserIdentity) -> bool {
        let holds = |by| match by {
            CameBy::Code(code) => self.codes.has(&user.app, &user.user, code, self.bindings.now_s()),
            CameBy::Key(key) => self.signs_tokens(&user.app, key),
        };
        self.is_user_active(&user.app, &user.user) && user.by.is_none_or(holds)
    }

    /// Whether an app takes tokens signed with the key of this mark.
    fn signs_tokens(&self, id: &str, mark: u64) -> bool {
        let by_secret = |app: &App| app.tokens.hs256 && log_in::secret_mark(&app.secret) == mark;
        self.app(id).is_some_and(|app| by_secret(&app)) || self.apps.keys(id).is_some_and(|keys| keys.has(mark))
    }

    /// Whether a service may publish on a topic name.
    #[must_use]
    pub fn service_may_publish(&self, service: &ServiceIdentity, topic: &str) -> bool {
        self.service_may(&service.key, topic, Access::Publish)
    }

    /// Whether a service may subscribe to a filter, or be given what is on a topic.
    #[must_use]
    pub fn service_may_subscribe(&self, service: &ServiceIdentity, filter: &str) -> bool {
        self.service_may(&service.key, filter, Access::Read)
    }

    /// Whether a service may be connected; `peer`: from that address, if it is.
    #[must_use]
    pub fn is_service_welcome(&self, service: &ServiceIdentity, peer: Option<std::net::IpAddr>) -> bool {
        self.services
            .get(&service.key)
            .is_some_and(|service| service.enabled && peer.is_none_or(|peer| service.may_come_from(peer)))
    }

    /// Whether anybody may be bound to a device, so that what it publishes has to go to feeds.
    #[must_use]
    pub fn has_feed(&self, product: &str, device: &str) -> bool {
        self.bindings.is_bound(product, device)
    }

    /// The users to whose feeds something goes that a device publishes on a topic: app and id. Nobody, unless it is
    /// `dev/{product}/{device}/up/…`.
    pub fn feed(&self, product: &str, device: &str, topic: &str, mut f: impl FnMut(&str, &str)) {
        let rest = topic.strip_prefix("dev/").and_then(|rest| rest.strip_prefix(product)?.strip_prefix('/'));
        let rest = rest.and_then(|rest| rest.strip_prefix(device)?.strip_prefix("/up/"));
        if rest.is_some() {
            self.bindings.readers(product, device, |app, user| {
                if self.apps.allows(app, product) {
                    f(app, user);
                }
            });
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
