//! Rate limits: who may send, connect and ask how much.
//!
//! | of | what | kept where | above it |
//! |---|---|---|---|
//! | a device | messages and bytes a second, by its product or its own | cells that all its sessions' [`Meter`]s hold | slowed, or 0x97 ([`turnpike_core::meter`]) |
//! | a product | the same, of all its devices together | a [`Pool`] that the meters hold | likewise |
//! | a user of an app | the same, by the app's limits or those of all | likewise: cells that all its sessions hold | likewise |
//! | an app | the same, of all its users | a [`Pool`] | likewise |
//! | an address (IPv6: a /64) | connections open at once | a table | CONNACK 0x97 (3.x: 3); twice as many and 16: closed at accept |
//! | an address | attempts to connect in a time | the same entry | CONNACK 0x9F (3.x: 3) |
//! | an address, app, user, service, platform | requests to the HTTP API by [`Windows`] | a table | 429 and when to come back |
//!
//! Everything changes at run time. Rates that live sessions hold change under them with the next message; where a limit begins, ends or moves from a
//! product to a device, the shards are to ask for the meters of the sessions concerned again (`Shard::rejudge`,
//! `Shard::remeter`). What was taken before stays taken.
//!
//! Memory is bounded by [`Sizes`]. The cells of a device or a user are shared by all its sessions, whatever their client ids and shards, and kept
//! until the last has ended and what is owed is paid, so that neither reconnecting nor more connections buy anything.
//!
//! # Figures
//!
//! `cargo bench -p turnpike-bench --bench quota`, 2-core machine with other work beside it:
//!
//! | what | cost |
//! |---|---|
//! | a publish: a device's own rate, slowed or refused | 11–13 ns |
//! | of a device and its product, of a user and an app | 19–25 ns |
//! | of a device, while another core publishes as the same device | 50–63 ns |
//! | of a device and its product, while another core publishes in the same product without a pause: slowed, refused | 68, 105 ns |
//! | a meter of a session that begins | 136–147 ns |
//! | an attempt to connect, of a million addresses | 114–122 ns |
//! | a connection entered and left, of a million addresses | 239–287 ns |
//! | a request to the API, two windows | 275–314 ns |
//! | a device or user of a million that owe something | 88 bytes |
//! | an address of a million | 57–58 bytes |
//!
//! [`Pool`]: turnpike_core::meter::Pool

mod settings;
mod text;
mod window;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::RwLock;
use turnpike_core::clock::Now;
use turnpike_core::gate::Entry;
use turnpike_core::meter::{Allowance, Cells, FlowRate, Meter, Pool};

pub use settings::{AppLimits, OriginLimits, ProductLimits, RequestLimits, Settings, Sizes};
pub(crate) use text::count_and_period;
pub use text::{TextError, parse_rate};
pub use window::{WINDOWS_MAX, Windows};

use crate::origin::Origin;
use crate::table::{Fades, Table};
use window::Counts;

/// A SipHash of a name under a key of this process: without it nobody finds two names with one, and of a million owners two share one in one of
/// 37 million processes. They would share a rate. Half as long as a digest, and a third of its time.
type Key = u64;

/// Connections of an address that are told why they are refused, beyond those it may have: as many again, and this many.
const TOLD_CONNECTIONS: u32 = 16;

/// Whom a session is metered as.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Subject<'a> {
    /// A device.
    Device {
        /// Its product.
        product: &'a str,
        /// Its name.
        device: &'a str,
    },
    /// A user of an app.
    User {
        /// The app's id.
        app: &'a str,
        /// The user's id, unique within the app.
        user: &'a str,
    },
}

/// Who asks the HTTP API.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Caller<'a> {
    /// Whoever is at this address.
    Address(IpAddr),
    /// An app.
    App(&'a str),
    /// A user of an app.
    User(&'a str, &'a str),
    /// A back end, by its access key.
    Service(&'a str),
    /// Another cloud, by its id.
    Platform(&'a str),
}

/// A request that has to wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("over the limit; to be tried again in {after_ms} ms")]
pub struct RetryAfter {
    /// Milliseconds, at least 1.
    pub after_ms: u64,
}

/// All limits and what was taken of them. One value for all shards and the HTTP API.
#[derive(Debug)]
pub struct Quotas {
    settings: RwLock<Arc<Settings>>,
    /// Only of products, devices and apps that have limits of their own, or whose sessions have been metered.
    products: RwLock<HashMap<Box<str>, Arc<ProductQuota>>>,
    devices: RwLock<HashMap<Key, DeviceQuota>>,
    apps: RwLock<HashMap<Box<str>, Arc<AppQuota>>>,
    names: RandomState,
    owners: Table<Key, Owner>,
    origins: Table<Origin, OriginCell>,
    requests: Table<Key, Counts>,
}

#[derive(Debug)]
struct ProductQuota {
    own: RwLock<ProductLimits>,
    /// Of each device.
    each: Arc<Allowance>,
    /// Of all devices.
    whole: Arc<Pool>,
}

/// Of a device with a rate of its own.
#[derive(Clone, Debug)]
struct DeviceQuota {
    flow: FlowRate,
    own: Arc<Allowance>,
}

#[derive(Debug)]
struct AppQuota {
    own: RwLock<AppLimits>,
    /// Of each user.
    each: Arc<Allowance>,
    /// Of all users.
    whole: Arc<Pool>,
}

/// Of one address.
#[derive(Clone, Copy, Debug, Default)]
struct OriginCell {
    attempts_tat_ns: u64,
    open: u32,
}

impl Fades for OriginCell {
    fn weight(&self, now_ns: u64) -> u64 {
        // Seconds that are owed, and connections that would go uncounted.
        u64::from(self.open).saturating_add(self.attempts_tat_ns.saturating_sub(now_ns).div_ceil(1_000_000_000))
    }
}

/// The cells of a device or a user, while a session holds them or something is owed.
#[derive(Debug, Default)]
struct Owner(Option<Arc<Cells>>);

impl Fades for Owner {
    fn weight(&self, now_ns: u64) -> u64 {
        let Some(cells) = &self.0 else { return 0 };
        // While a session holds them, other cells beside them would double the rate.
        cells.debt().owed_ns(now_ns).max(u64::from(Arc::strong_count(cells) > 1))
    }
}

/// Nanoseconds of the clock that never goes back.
fn nanos(now: Now) -> u64 {
    now.mono_ms.saturating_mul(1_000_000)
}

impl Quotas {
    /// Nothing taken yet.
    #[must_use]
    pub fn new(settings: Settings, sizes: Sizes) -> Self {
        Self {
            settings: RwLock::new(Arc::new(settings)),
            products: RwLock::default(),
            devices: RwLock::default(),
            apps: RwLock::default(),
            names: RandomState::default(),
            owners: Table::new(sizes.owners_max),
            origins: Table::new(sizes.origins_max),
            requests: Table::new(sizes.callers_max),
        }
    }

    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read())
    }

    /// Other settings from now on; limits of single products, devices and apps stay. Then have the shards meter all sessions again.
    pub fn set(&self, settings: Settings) {
        let settings = Arc::new(settings);
        *self.settings.write() = Arc::clone(&settings);
        for product in self.products.read().values() {
            product.refresh(&settings);
        }
        for app in self.apps.read().values() {
            app.refresh(&settings);
        }
    }

    /// Gives a product limits of its own in place of the settings', `default()` for none. Then have the shards judge its sessions again.
    pub fn limit_product(&self, product: &str, limits: ProductLimits) {
        let quota = self.product(product);
        *quota.own.write() = limits;
        quota.refresh(&self.settings());
    }

    /// Gives a device a rate of its own in place of its product's (what its product may as a whole, and what MQTT 5 clients see of it, stay), or takes it away. Then have the shards judge its sessions again.
    pub fn limit_device(&self, product: &str, device: &str, flow: Option<FlowRate>) {
        let key = self.names.hash_one(Subject::Device { product, device });
        match flow {
            Some(flow) => {
                let own = Arc::default();
                self.devices.write().insert(key, DeviceQuota { flow, own });
            }
            None => drop(self.devices.write().remove(&key)),
        }
    }

    /// Gives an app limits of its own, `default()` for none. Then have the shards meter all sessions again.
    pub fn limit_app(&self, app: &str, limits: AppLimits) {
        let quota = self.app(app);
        *quota.own.write() = limits;
        quota.refresh(&self.settings());
    }

    fn product(&self, product: &str) -> Arc<ProductQuota> {
        if let Some(found) = self.products.read().get(product) {
            return Arc::clone(found);
        }
        let settings = self.settings();
        let mut products = self.products.write();
        Arc::clone(products.entry(product.into()).or_insert_with(|| {
            let quota = ProductQuota { own: RwLock::default(), each: Arc::default(), whole: Arc::default() };
            quota.refresh(&settings);
            Arc::new(quota)
        }))
    }

    fn app(&self, app: &str) -> Arc<AppQuota> {
        if let Some(found) = self.apps.read().get(app) {
            return Arc::clone(found);
        }
        let settings = self.settings();
        let mut apps = self.apps.write();
        Arc::clone(apps.entry(app.into()).or_insert_with(|| {
            let quota = AppQuota { own: RwLock::default(), each: Arc::default(), whole: Arc::default() };
            quota.refresh(&settings);
            Arc::new(quota)
        }))
    }

    /// A session's meter, which charges what all sessions of its subject charge; none if nothing limits it, and what was owed is forgiven then.
    /// For clients that have proved who they are: each product and app that is named is remembered.
    #[must_use]
    pub fn meter(&self, subject: Subject<'_>, now: Now) -> Option<Meter> {
        let limits = match subject {
            Subject::Device { product, device } => self.device_limits(product, device),
            Subject::User { app, .. } => self.user_limits(app),
        };
        let Some((allowance, pool)) = limits else {
            if !self.owners.is_empty() {
                self.owners.remove(self.names.hash_one(subject));
            }
            return None;
        };
        let own = |owner: &mut Owner| Arc::clone(owner.0.get_or_insert_default());
        Some(Meter::sharing(allowance, pool, self.owners.with(self.names.hash_one(subject), nanos(now), own)))
    }

    fn device_limits(&self, product: &str, device: &str) -> Option<(Arc<Allowance>, Option<Arc<Pool>>)> {
        let settings = self.settings();
        let own = self.device(product, device);
        let known = self.products.read().get(product).map(Arc::clone);
        if known.is_none() && own.is_none() && settings.each_device.is_unlimited() && settings.product.is_unlimited() {
            return None;
        }
        let quota = known.unwrap_or_else(|| self.product(product));
        let limits = *quota.own.read();
        let (flow, excess) = limits.each(&settings);
        let pool = (!limits.whole(&settings).is_unlimited()).then(|| Arc::clone(&quota.whole));
        match own {
            Some(device) => {
                // The rate is the device's, the manner the product's.
                device.own.set(device.flow, excess);
                (pool.is_some() || !device.flow.is_unlimited()).then_some((device.own, pool))
            }
            None => (pool.is_some() || !flow.is_unlimited()).then(|| (Arc::clone(&quota.each), pool)),
        }
    }

    fn device(&self, product: &str, device: &str) -> Option<DeviceQuota> {
        let devices = self.devices.read();
        // Few devices have one, often none has: then no name is hashed.
        if devices.is_empty() {
            None
        } else {
            devices.get(&self.names.hash_one(Subject::Device { product, device })).cloned()
        }
    }

    fn user_limits(&self, app: &str) -> Option<(Arc<Allowance>, Option<Arc<Pool>>)> {
        let settings = self.settings();
        let known = self.apps.read().get(app).map(Arc::clone);
        if known.is_none() && settings.each_user.is_unlimited() && settings.app.is_unlimited() {
            return None;
        }
        let quota = known.unwrap_or_else(|| self.app(app));
        let limits = *quota.own.read();
        let pool = (!limits.whole(&settings).is_unlimited()).then(|| Arc::clone(&quota.whole));
        (pool.is_some() || !limits.each(&settings).is_unlimited()).then(|| (Arc::clone(&quota.each), pool))
    }

    /// Keeps what a session that ends still owes, for the next one of its subject, even if its cells have had to make room meanwhile.
    pub fn settle(&self, subject: Subject<'_>, meter: &Meter, now: Now) {
        let (debt, now_ns) = (meter.debt(), nanos(now));
        if !debt.is_paid(now_ns) {
            self.owners.with(self.names.hash_one(subject), now_ns, |owner| {
                owner.0.get_or_insert_with(|| Arc::clone(meter.cells())).owe(debt);
            });
        }
    }

    /// A connection has been opened. [`Quotas::left`] takes it back if the answer is [`Entry::Counted`].
    pub fn entered(&self, address: IpAddr, now: Now) -> Entry {
        let settings = self.settings();
        let Some(most) = settings.origin.connections_max else { return Entry::Free };
        if settings.is_exempt(address) {
            return Entry::Free;
        }
        let hard = most.saturating_mul(2).saturating_add(TOLD_CONNECTIONS);
        self.origins.with(Origin::of(address), nanos(now), |cell| {
            if cell.open >= hard {
                return Entry::Closed;
            }
            cell.open += 1;
            Entry::Counted
        })
    }

    /// A counted connection has ended.
    pub fn left(&self, address: IpAddr) {
        self.origins.change(Origin::of(address), |cell| cell.open = cell.open.saturating_sub(1));
    }

    /// Whether an address has more connections than it may: whoever connects then is told 0x97.
    #[must_use]
    pub fn is_crowded(&self, address: IpAddr) -> bool {
        let settings = self.settings();
        let Some(most) = settings.origin.connections_max else { return false };
        self.origins.peek(Origin::of(address), |cell| cell.open > most).unwrap_or(false)
    }

    /// An attempt to connect: false above the rate, and whoever connects then is told 0x9F.
    pub fn attempt(&self, address: IpAddr, now: Now) -> bool {
        let settings = self.settings();
        let rate = settings.origin.attempts;
        if rate.is_unlimited() || settings.is_exempt(address) {
            return true;
        }
        let now_ns = nanos(now);
        self.origins.with(Origin::of(address), now_ns, |cell| rate.take(&mut cell.attempts_tat_ns, 1, now_ns)).is_ok()
    }

    /// A request to the HTTP API by all that its caller is: an address, and perhaps a user and the user's app. It takes one of each, or of none.
    ///
    /// # Errors
    /// [`RetryAfter`]: one of them is over its limit.
    pub fn request(&self, callers: &[Caller<'_>], now: Now) -> Result<(), RetryAfter> {
        let settings = self.settings();
        for (index, caller) in callers.iter().enumerate() {
            let windows = self.windows(caller, &settings);
            if windows.is_unlimited() {
                continue;
            }
            let taken =
                self.requests.with(self.caller(*caller), now.mono_ms, |counts| counts.take(&windows, now.mono_ms));
            if let Err(after_ms) = taken {
                for earlier in callers.iter().take(index) {
                    let windows = self.windows(earlier, &settings);
                    self.requests.change(self.caller(*earlier), |counts| counts.give_back(&windows));
                }
                return Err(RetryAfter { after_ms });
            }
        }
        Ok(())
    }

    /// All addresses of one origin are one caller.
    fn caller(&self, caller: Caller<'_>) -> Key {
        match caller {
            Caller::Address(address) => self.names.hash_one((b'i', Origin::of(address))),
            other => self.names.hash_one(other),
        }
    }

    fn windows(&self, caller: &Caller<'_>, settings: &Settings) -> Windows {
        let of_app = |app: &str| self.apps.read().get(app).map(|quota| *quota.own.read());
        match *caller {
            Caller::Address(address) if settings.is_exempt(address) => Windows::default(),
            Caller::Address(_) => settings.requests.address,
            Caller::App(app) => of_app(app).and_then(|own| own.app_requests).unwrap_or(settings.requests.app),
            Caller::User(app, _) => of_app(app).and_then(|own| own.user_requests).unwrap_or(settings.requests.user),
            Caller::Service(_) => settings.requests.service,
            Caller::Platform(_) => settings.requests.platform,
        }
    }

    /// Frees what is paid for. Tables in use do that by themselves; call it now and then (a minute) for those that aren't any more.
    pub fn sweep(&self, now: Now) {
        self.owners.sweep(nanos(now));
        self.origins.sweep(nanos(now));
        self.requests.sweep(now.mono_ms);
    }

    /// How many addresses, devices and users, and callers of the API are remembered, for metrics.
    #[must_use]
    pub fn remembered(&self) -> [(&'static str, usize); 3] {
        [("origins", self.origins.len()), ("owners", self.owners.len()), ("callers", self.requests.len())]
    }
}

impl ProductQuota {
    fn refresh(&self, settings: &Settings) {
        let own = *self.own.read();
        let (flow, excess) = own.each(settings);
        self.each.set(flow, excess);
        self.whole.set(own.whole(settings));
    }
}

impl AppQuota {
    fn refresh(&self, settings: &Settings) {
        let own = *self.own.read();
        self.each.set(own.each(settings), settings.excess);
        self.whole.set(own.whole(settings));
    }
}

#[cfg(test)]
mod tests;
