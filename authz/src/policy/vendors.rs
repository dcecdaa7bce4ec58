//! Topics of the profiles that a product takes only if it says so.
//!
//! | profile | topics | publish | read |
//! |---|---|---|---|
//! | `tencent` | `{product}/{device}/…` | yes | yes |
//! | | `$thing/up/{kind}/{product}/{device}`, `$ota/report/…`, `$shadow/operation/…`, `$sys/operation/…`, `$rrpc/txd/…/{id}` | yes | no |
//! | | `$thing/down/{kind}/{product}/{device}`, `$ota/update/…`, `$shadow/operation/result/…`, `$sys/operation/result/…`, `$rrpc/rxd/…/{id}` | no | yes |
//! | `huawei` | `$oc/devices/{id}/{sys,user}/…`, the id `{product}_{device}` or `{device}` | yes | yes |
//! | `tuya` | `tylink/{device}/…` | yes | yes |
//! | `azure` | `devices/{device}/messages/events[/…]` | yes | no |
//! | | `devices/{device}/messages/devicebound[/…]` | no | yes |
//! | `gizwits`, `gizwits-legacy` | `dev2app/{device}`, `dev2app/{device}/{app client id}`, `cli2ser_req` | yes | no |
//! | | `app2dev/{device}/…`, `ser2cli_res/{device}`, `ser2cli_noti/{product}` | no | yes |
//!
//! Azure's `$iothub/…` (twins, direct methods) is nobody's: these topics name no device, so one device would read another's. Where a topic
//! names no product, the device's name must be its only owner in all products that take the profile ([`crate::profile`]). All devices
//! of gizwits publish on `cli2ser_req`, and those of a product read `ser2cli_noti/{product}`; no device reads the one or publishes on the other.
//!
//! A tencent product key has ten characters, which none of the other first levels has, so `{product}/{device}/…` is none of them.

use super::{Access, cut, is_below, own, past};
use crate::profile::{PRODUCT_CHARS, Profile, ProfileSet};

/// Whose form of topic it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Family {
    Tencent,
    Huawei,
    Tuya,
    Azure,
    Gizwits,
}

impl Family {
    /// Whether a product that takes these profiles has such topics.
    pub(super) fn is_taken(self, allowed: ProfileSet) -> bool {
        match self {
            Self::Tencent => allowed.contains(Profile::Tencent),
            Self::Huawei => allowed.contains(Profile::Huawei),
            Self::Tuya => allowed.contains(Profile::Tuya),
            Self::Azure => allowed.contains(Profile::Azure),
            Self::Gizwits => allowed.contains(Profile::Gizwits) || allowed.contains(Profile::GizwitsLegacy),
        }
    }
}

impl Family {
    const ALL: [Self; 5] = [Self::Tencent, Self::Huawei, Self::Tuya, Self::Azure, Self::Gizwits];

    /// Filters of the topics that are a device's own by this form.
    fn own_filters(self, product: &str, device: &str) -> Vec<String> {
        let own = format!("{product}/{device}");
        match self {
            // Only such a key is a tencent product's.
            Self::Tencent if product.len() != PRODUCT_CHARS => Vec::new(),
            Self::Tencent => {
                let exact = ["$ota/report", "$ota/update", "$shadow/operation", "$shadow/operation/result"];
                let exact = exact.into_iter().chain([
                    "$sys/operation",
                    "$sys/operation/result",
                    "$thing/up/+",
                    "$thing/down/+",
                ]);
                let below = [format!("{own}/#"), format!("$rrpc/txd/{own}/#"), format!("$rrpc/rxd/{own}/#")];
                exact.map(|form| format!("{form}/{own}")).chain(below).collect()
            }
            Self::Huawei => {
                let ids = [format!("{product}_{device}"), device.to_owned()];
                ids.into_iter().map(|id| format!("$oc/devices/{id}/#")).collect()
            }
            Self::Tuya => vec![format!("tylink/{device}/#")],
            Self::Azure => vec![format!("devices/{device}/messages/#")],
            Self::Gizwits => {
                vec![format!("dev2app/{device}/#"), format!("app2dev/{device}/#"), format!("ser2cli_res/{device}")]
            }
        }
    }
}

/// Filters of the topics that are a device's own by the forms of these profiles.
pub(super) fn own_filters(product: &str, device: &str, allowed: ProfileSet) -> impl Iterator<Item = String> {
    let taken = Family::ALL.into_iter().filter(move |family| family.is_taken(allowed));
    taken.flat_map(move |family| family.own_filters(product, device))
}

/// The family by whose form a topic is the device's; none if it isn't.
pub(super) fn family(product: &str, device: &str, topic: &str, access: Access) -> Option<Family> {
    let (first, rest) = cut(topic).unwrap_or((topic, ""));
    let (is_own, family) = match first {
        "$oc" => (huawei(product, device, rest, access), Family::Huawei),
        "tylink" => (past(rest, device).is_some_and(|rest| is_below(rest, access)), Family::Tuya),
        "devices" => (azure(device, rest, access), Family::Azure),
        "dev2app" | "app2dev" | "cli2ser_req" | "ser2cli_res" | "ser2cli_noti" => {
            (gizwits(product, device, (first, rest), topic, access), Family::Gizwits)
        }
        _ if product.len() != PRODUCT_CHARS => return None,
        _ if first == product => (past(rest, device).is_some_and(|rest| is_below(rest, access)), Family::Tencent),
        _ => (tencent(product, device, (first, rest), access), Family::Tencent),
    };
    is_own.then_some(family)
}

fn tencent(product: &str, device: &str, (first, rest): (&str, &str), access: Access) -> bool {
    let Some((way, rest)) = cut(rest) else { return false };
    let exactly = |topic: &str| own(product, device, topic).is_some_and(str::is_empty);
    let call = |topic: &str| own(product, device, topic).is_some_and(|rest| is_below(rest, access));
    // The kind stands in front of the names, and must be literal there.
    let kind = |topic: &str| cut(topic).is_some_and(|(kind, rest)| is_literal(kind) && exactly(rest));
    match (access, first, way) {
        (Access::Publish, "$thing", "up") | (Access::Read, "$thing", "down") => kind(rest),
        (Access::Publish, "$ota", "report") | (Access::Read, "$ota", "update") => exactly(rest),
        (Access::Publish, "$shadow" | "$sys", "operation") => exactly(rest),
        // No product is called `result`: a key has ten characters.
        (Access::Read, "$shadow" | "$sys", "operation") => rest.strip_prefix("result/").is_some_and(exactly),
        (Access::Publish, "$rrpc", "txd") | (Access::Read, "$rrpc", "rxd") => call(rest),
        _ => false,
    }
}

fn is_literal(level: &str) -> bool {
    !level.is_empty() && level != "+" && level != "#"
}

fn huawei(product: &str, device: &str, topic: &str, access: Access) -> bool {
    let Some(topic) = topic.strip_prefix("devices/") else { return false };
    let whole = || past(topic.strip_prefix(product)?.strip_prefix('_')?, device);
    let rest = whole().or_else(|| past(topic, device)).and_then(|rest| rest.strip_prefix('/'));
    let rest = rest.and_then(|rest| past(rest, "sys").or_else(|| past(rest, "user")));
    rest.is_some_and(|rest| is_below(rest, access))
}

fn azure(device: &str, topic: &str, access: Access) -> bool {
    let Some(rest) = past(topic, device).and_then(|rest| rest.strip_prefix("/messages/")) else { return false };
    match access {
        // With or without a last separator, and with properties of the message behind it.
        Access::Publish => past(rest, "events").is_some(),
        Access::Read => past(rest, "devicebound").is_some(),
    }
}

fn gizwits(product: &str, device: &str, (first, rest): (&str, &str), topic: &str, access: Access) -> bool {
    match (access, first) {
        (Access::Publish, "cli2ser_req") => first == topic,
        (Access::Publish, "dev2app") => match past(rest, device) {
            Some("") => true,
            // One level more.
            Some(app) => app.len() > 1 && !app.bytes().skip(1).any(|byte| byte == b'/'),
            None => false,
        },
        (Access::Read, "app2dev") => past(rest, device).is_some_and(|rest| is_below(rest, access)),
        (Access::Read, "ser2cli_res") => rest == device,
        (Access::Read, "ser2cli_noti") => rest == product,
        _ => false,
    }
}
