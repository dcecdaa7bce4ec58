//! What users and services may do, judged by what holds now. Without allocation; what it costs stands in [`super`]'s header.
//!
//! | topics | view | control, owner | service |
//! |---|---|---|---|
//! | `dev/{p}/{d}/up/…` | read | read | read: `read_up` |
//! | `dev/{p}/{d}/down/…` | read | read, publish | read: `read_down`, publish: `write_down` |
//! | `dev/{p}/{d}/{ota,backfill,sys}/…` | – | – | read: `read_system` |
//! | `/sys/{p}/{d}/…`, `/{p}/{d}/user/…` | – | – | read: `read_vendor`, publish: `write_vendor` |
//! | `user/{app}:{user}/…`, the user's own | read | read | – |
//!
//! A user subscribes to devices by name; a service to whole products too (`$share/g/dev/{p}/+/up/#`), whose name is always literal: a
//! wildcard there would match other tenants' products. A filter whose direction is a wildcard needs all three rights to read.
//! Nobody publishes on a feed: the broker does.

use super::People;
use super::bindings::{DeviceKey, Role};
use super::services::{Right, Rights};
use crate::names::{DeviceName, ProductKey};

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Access {
    Publish,
    Read,
}

/// A topic or filter under `dev/` or of a vendor's form.
struct DeviceTopic<'a> {
    product: &'a str,
    device: &'a str,
    direction: Direction,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
    System,
    Vendor,
    /// A wildcard, or nothing behind the device.
    Any,
}

/// The first level, and what follows its separator; none at the end of the topic.
#[inline]
fn level(topic: &str) -> (&str, Option<&str>) {
    // Levels are short: the standard library's search for a character takes longer to begin.
    let at = topic.bytes().position(|byte| byte == b'/').unwrap_or(topic.len());
    (topic.get(..at).unwrap_or(topic), topic.get(at + 1..))
}

impl<'a> DeviceTopic<'a> {
    #[inline]
    fn parse(topic: &'a str, access: Access) -> Option<Self> {
        match topic.strip_prefix("dev/") {
            Some(rest) => Self::native(rest, access),
            None => Self::vendor(topic.strip_prefix('/')?, access),
        }
    }

    #[inline]
    fn native(rest: &'a str, access: Access) -> Option<Self> {
        let (product, rest) = level(rest);
        let Some(rest) = rest else { return (access == Access::Read).then_some(Self::whole(product)) };
        let (device, rest) = level(rest);
        if device == "#" {
            return Some(Self::whole(product));
        }
        let (direction, rest) = rest.map_or(("#", None), level);
        let direction = match direction {
            "up" => Direction::Up,
            "down" => Direction::Down,
            "ota" | "backfill" | "sys" => Direction::System,
            "+" | "#" => Direction::Any,
            _ => return None,
        };
        // As devices: what is published goes further down.
        let is_whole = access == Access::Read || rest.is_some_and(|rest| !rest.is_empty());
        is_whole.then_some(Self { product, device, direction })
    }

    /// A filter that says no device: `dev/{p}/#`, or its parent.
    fn whole(product: &'a str) -> Self {
        Self { product, device: "+", direction: Direction::Any }
    }

    fn vendor(rest: &'a str, access: Access) -> Option<Self> {
        let (first, rest) = rest.split_once('/')?;
        let is_below = |rest: &str| access == Access::Read || !rest.is_empty();
        let (product, device, below) = if first == "sys" {
            let (product, rest) = rest.split_once('/')?;
            let (device, rest) = rest.split_once('/')?;
            (product, device, rest)
        } else {
            let (device, rest) = rest.split_once('/')?;
            (first, device, rest.strip_prefix("user/")?)
        };
        (device != "#" && is_below(below)).then_some(Self { product, device, direction: Direction::Vendor })
    }

    fn rights(&self, access: Access) -> Option<Rights> {
        match (self.direction, access) {
            (Direction::Up, Access::Read) => Some(Right::ReadUp.into()),
            (Direction::Down, Access::Read) => Some(Right::ReadDown.into()),
            (Direction::System, Access::Read) => Some(Right::ReadSystem.into()),
            (Direction::Vendor, Access::Read) => Some(Right::ReadVendor.into()),
            (Direction::Any, Access::Read) => Some(Rights::READ_DEVICE),
            (Direction::Down, Access::Publish) => Some(Right::WriteDown.into()),
            (Direction::Vendor, Access::Publish) => Some(Right::WriteVendor.into()),
            (Direction::Up | Direction::System | Direction::Any, Access::Publish) => None,
        }
    }
}

/// The device that is told something on a topic that a service may publish on.
#[must_use]
pub fn addressed(topic: &str) -> Option<DeviceKey> {
    let DeviceTopic { product, device, .. } = DeviceTopic::parse(topic, Access::Publish)?;
    Some(DeviceKey { product: ProductKey::parse(product).ok()?, device: DeviceName::parse(device).ok()? })
}

/// What follows the user in a topic or filter of the user's own feed: empty, or from a separator on.
#[inline]
fn within_feed<'a>(app: &str, user: &str, topic: &'a str) -> Option<&'a str> {
    let rest = topic.strip_prefix("user/").and_then(|topic| topic.strip_prefix(app)?.strip_prefix(':'));
    let rest = rest.and_then(|rest| rest.strip_prefix(user));
    rest.filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The topic on which a device published what has come to a user's own feed.
pub(super) fn fed<'a>(app: &str, user: &str, topic: &'a str) -> Option<&'a str> {
    within_feed(app, user, topic)?.strip_prefix('/').filter(|topic| topic.starts_with("dev/"))
}

impl People {
    pub(super) fn user_may(&self, app: &str, user: &str, topic: &str, access: Access) -> bool {
        if access == Access::Read && within_feed(app, user, topic).is_some() {
            return self.is_user_active(app, user);
        }
        // Vendors' topics and the system's are no business of users.
        let Some(topic) = topic.strip_prefix("dev/").and_then(|rest| DeviceTopic::native(rest, access)) else {
            return false;
        };
        let least = match (topic.direction, access) {
            (Direction::Down, Access::Publish) => Role::Control,
            (Direction::Up | Direction::Down, Access::Read) => Role::View,
            _ => return false,
        };
        // A wildcard is nobody's name, so a filter with one in its place finds no binding.
        self.apps.allows(app, topic.product)
            && self.bindings.role(app, user, topic.product, topic.device).is_some_and(|role| role >= least)
    }

    pub(super) fn service_may(&self, key: &str, topic: &str, access: Access) -> bool {
        let Some(topic) = DeviceTopic::parse(topic, access) else { return false };
        let Some(rights) = topic.rights(access) else { return false };
        topic.product != "+" && topic.product != "#" && self.services.may(key, topic.product, rights)
    }
}

#[cfg(test)]
mod tests;
