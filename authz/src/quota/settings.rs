//! What the limits are.

use std::net::IpAddr;

use ipnet::IpNet;
use turnpike_core::meter::{Excess, FlowRate, Rate};

use super::Windows;

/// Limits of everybody who has none of their own. `Default` is no limit at all.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Settings {
    /// Each device.
    pub each_device: FlowRate,
    /// Each product, all its devices together.
    pub product: FlowRate,
    /// Each user, all the user's sessions together.
    pub each_user: FlowRate,
    /// Each app, all its users together.
    pub app: FlowRate,
    /// What MQTT 5 clients see of it.
    pub excess: Excess,
    /// Each address.
    pub origin: OriginLimits,
    /// The HTTP API.
    pub requests: RequestLimits,
    /// Networks whose addresses are not limited as such: gateways of carriers, proxies, the operator's own.
    pub exempt: Vec<IpNet>,
}

impl Settings {
    /// Whether an address isn't limited as such.
    #[must_use]
    pub fn is_exempt(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.exempt.iter().any(|net| net.contains(&address))
    }
}

/// Of one address, or of one IPv6 /64.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OriginLimits {
    /// Connections open at once. Those that broke off without a word count until keep alive finds out, so leave room for twice
    /// the clients that are behind one address.
    pub connections_max: Option<u32>,
    /// Attempts to connect, successful or not.
    pub attempts: Rate,
}

/// Of callers of the HTTP API.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RequestLimits {
    /// Each address.
    pub address: Windows,
    /// Each app.
    pub app: Windows,
    /// Each user.
    pub user: Windows,
    /// Each back end.
    pub service: Windows,
    /// Each other cloud.
    pub platform: Windows,
}

/// Of one product, where it differs from [`Settings`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ProductLimits {
    /// Each device, in place of [`Settings::each_device`].
    pub each: Option<FlowRate>,
    /// All devices, in place of [`Settings::product`].
    pub whole: Option<FlowRate>,
    /// In place of [`Settings::excess`].
    pub excess: Option<Excess>,
}

impl ProductLimits {
    pub(super) fn each(&self, settings: &Settings) -> (FlowRate, Excess) {
        (self.each.unwrap_or(settings.each_device), self.excess.unwrap_or(settings.excess))
    }

    pub(super) fn whole(&self, settings: &Settings) -> FlowRate {
        self.whole.unwrap_or(settings.product)
    }
}

/// Of one app, where it differs from [`Settings`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AppLimits {
    /// Each user, in place of [`Settings::each_user`].
    pub each: Option<FlowRate>,
    /// All users, in place of [`Settings::app`].
    pub whole: Option<FlowRate>,
    /// Requests of the app, in place of [`RequestLimits::app`].
    pub app_requests: Option<Windows>,
    /// Requests of each user, in place of [`RequestLimits::user`].
    pub user_requests: Option<Windows>,
}

impl AppLimits {
    pub(super) fn each(&self, settings: &Settings) -> FlowRate {
        self.each.unwrap_or(settings.each_user)
    }

    pub(super) fn whole(&self, settings: &Settings) -> FlowRate {
        self.whole.unwrap_or(settings.app)
    }
}

/// How much is remembered at most. Beyond it the least is forgotten first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sizes {
    /// Addresses with connections or fresh attempts, 29 to 58 bytes each.
    pub origins_max: usize,
    /// Devices and users that something limits and that have sessions or something to pay, 29 to 58 bytes each and 48 for the cells.
    pub owners_max: usize,
    /// Callers of the HTTP API, 76 to 152 bytes each.
    pub callers_max: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { origins_max: 1 << 20, owners_max: 1 << 21, callers_max: 1 << 17 }
    }
}
