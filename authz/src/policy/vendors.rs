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

use super::{Access, is_below, own, past};
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

/// The family by whose form a topic is the device's; none if it isn't.
pub(super) fn family(product: &str, device: &str, topic: &str, access: Access) -> Option<Family> {
    let (first, rest) = topic.split_once('/').unwrap_or((topic, ""));
    let (is_own, family) = match first {
        "$oc" => (huawei(product, device, rest, access), Family::Huawei),
        "tylink" => (past(rest, device).is_some_and(|rest| is_below(rest, access)), Family::Tuya),
        "devices" => (azure(device, rest, access), Family::Azure),
        "dev2app" | "app2dev" | "cli2ser_req" | "ser2cli_res" | "ser2cli_noti" => {
            (gizwits(product, device, topic, access), Family::Gizwits)
        }
        _ if product.len() == PRODUCT_CHARS => (tencent(product, device, topic, access), Family::Tencent),
        _ => return None,
    };
    is_own.then_some(family)
}

fn tencent(product: &str, device: &str, topic: &str, access: Access) -> bool {
    let Some(system) = topic.strip_prefix('$') else {
        return own(product, device, topic).is_some_and(|rest| is_below(rest, access));
    };
    let exactly = |topic: &str| own(product, device, topic).is_some_and(str::is_empty);
    let (publish, read) = (access == Access::Publish, access == Access::Read);
    // The kind stands in front of the names, and must be literal there.
    let kind = |rest: &str| rest.split_once('/').is_some_and(|(kind, rest)| is_literal(kind) && exactly(rest));
    let call = |rest: &str| own(product, device, rest).is_some_and(|rest| is_below(rest, access));
    match system.split_once('/').and_then(|(first, rest)| Some((first, rest.split_once('/')?))) {
        Some(("thing", ("up", rest))) => publish && kind(rest),
        Some(("thing", ("down", rest))) => read && kind(rest),
        Some(("ota", ("report", rest))) => publish && exactly(rest),
        Some(("ota", ("update", rest))) => read && exactly(rest),
        // No product is called `result`: a key has ten characters.
        Some(("shadow" | "sys", ("operation", rest))) => match rest.strip_prefix("result/") {
            Some(rest) => read && exactly(rest),
            None => publish && exactly(rest),
        },
        Some(("rrpc", ("txd", rest))) => publish && call(rest),
        Some(("rrpc", ("rxd", rest))) => read && call(rest),
        _ => false,
    }
}

fn is_literal(level: &str) -> bool {
    !level.is_empty() && level != "+" && level != "#"
}

fn huawei(product: &str, device: &str, topic: &str, access: Access) -> bool {
    let Some((id, rest)) = topic.strip_prefix("devices/").and_then(|topic| topic.split_once('/')) else { return false };
    let is_whole = |id: &str| id.strip_prefix(product).and_then(|id| id.strip_prefix('_')) == Some(device);
    let rest = past(rest, "sys").or_else(|| past(rest, "user"));
    (id == device || is_whole(id)) && rest.is_some_and(|rest| is_below(rest, access))
}

fn azure(device: &str, topic: &str, access: Access) -> bool {
    let Some(rest) = past(topic, device).and_then(|rest| rest.strip_prefix("/messages/")) else { return false };
    match access {
        // With or without a last separator, and with properties of the message behind it.
        Access::Publish => past(rest, "events").is_some(),
        Access::Read => past(rest, "devicebound").is_some(),
    }
}

fn gizwits(product: &str, device: &str, topic: &str, access: Access) -> bool {
    match (access, topic.split_once('/')) {
        (Access::Publish, None) => topic == "cli2ser_req",
        (Access::Publish, Some(("dev2app", rest))) => match past(rest, device) {
            // One level, or none.
            Some(app) => {
                app.is_empty() || app.strip_prefix('/').is_some_and(|app| !app.is_empty() && !app.contains('/'))
            }
            None => false,
        },
        (Access::Read, Some(("app2dev", rest))) => past(rest, device).is_some_and(|rest| is_below(rest, access)),
        (Access::Read, Some(("ser2cli_res", rest))) => rest == device,
        (Access::Read, Some(("ser2cli_noti", rest))) => rest == product,
        _ => false,
    }
}
