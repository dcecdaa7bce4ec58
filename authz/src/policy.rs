//! What a device may do: publish and read under its own topics. Pure functions of texts, without allocation; what they cost stands in the crate's header.
//!
//! | profile | topics | publish | read |
//! |---|---|---|---|
//! | any | `dev/{product}/{device}/up/…` | yes | no |
//! | | `dev/{product}/{device}/down/…` | no | yes |
//! | | `dev/{product}/{device}/{ota,backfill,sys}/…` | yes | yes |
//! | `aliyun` | `/{pk}/{dn}/user/…`, `/sys/{pk}/{dn}/…` | yes | yes |
//! | | `/ota/device/{inform,progress,request}/{pk}/{dn}` | yes | no |
//! | | `/ota/device/{upgrade,reply}/{pk}/{dn}` | no | yes |
//! | | `/shadow/update/{pk}/{dn}` | yes | no |
//! | | `/shadow/get/{pk}/{dn}` | no | yes |
//! | | `/ext/{service}/{pk}/{dn}[/…]`, the service not `rrpc` | yes | yes |
//! | | `/ext/rrpc/{id}/{pk}/{dn}/…`, `/ext/rrpc/{id}//{pk}/{dn}/…` (`{id}` may be `+`) | yes | yes |
//! | others | `policy/vendors.rs` says which | | |
//!
//! The topics of a profile are a device's only if its product takes the profile.
//!
//! `…` is at least one character where a device publishes. `x/#` matches its parent `x` too, so the parents of what may be read may be read.
//!
//! **Invariant:** the device's names stand at a fixed level of each form. A form that looked for them would give device `d` of product `p`
//! a topic of device `p` of product `x`.
//!
//! **Invariant:** a filter is allowed only if every topic that it matches may be read: its levels up to the one that decides are
//! literal. Names have no wildcards, so comparing the levels as texts is enough.
//!
//! **Invariant:** the first level of a topic says whose form it is, so no topic is a device's by one form and another's by a second one.

mod vendors;

use crate::profile::{Profile, ProfileSet};

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Access {
    Publish,
    Read,
}

/// Whether a device may publish on a topic name. `allowed`: the profiles that its product takes; asked only where it matters.
#[must_use]
pub fn may_publish(product: &str, device: &str, topic: &str, allowed: impl FnOnce() -> ProfileSet) -> bool {
    is_allowed(product, device, topic, Access::Publish, allowed)
}

/// Whether a device may subscribe to a filter (without its `$share/{name}/` prefix), or be given what is on a topic. `allowed` as for
/// [`may_publish`].
#[must_use]
pub fn may_subscribe(product: &str, device: &str, filter: &str, allowed: impl FnOnce() -> ProfileSet) -> bool {
    is_allowed(product, device, filter, Access::Read, allowed)
}

#[inline]
fn is_allowed(product: &str, device: &str, topic: &str, access: Access, allowed: impl FnOnce() -> ProfileSet) -> bool {
    if let Some(rest) = topic.strip_prefix("dev/") {
        return native(product, device, rest, access);
    }
    if let Some(rest) = topic.strip_prefix('/') {
        return aliyun(product, device, rest, access) && allowed().contains(Profile::Aliyun);
    }
    vendors::family(product, device, topic, access).is_some_and(|family| family.is_taken(allowed()))
}

/// Filters of the topics that are a device's own in a product that takes these profiles, for removing what it left there. `/ext/{service}/{pk}/{dn}` isn't among them: its
/// wildcard would take `/ext/rrpc/{pk}/{dn}/…`, which is a call of other devices.
#[must_use]
pub fn own_filters(product: &str, device: &str, allowed: ProfileSet) -> Vec<Box<str>> {
    let own = format!("{product}/{device}");
    let filters = [
        format!("dev/{own}/#"),
        format!("/{own}/user/#"),
        format!("/sys/{own}/#"),
        format!("/ota/device/+/{own}"),
        format!("/shadow/+/{own}"),
        format!("/ext/rrpc/+/{own}/#"),
        format!("/ext/rrpc/+//{own}/#"),
    ];
    filters.into_iter().chain(vendors::own_filters(product, device, allowed)).map(String::into_boxed_str).collect()
}

/// What follows a level, with its separator; empty at the end of the topic. None if the topic doesn't begin with that level.
fn past<'a>(topic: &'a str, level: &str) -> Option<&'a str> {
    topic.strip_prefix(level).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The first level and what follows its separator. Levels are short: looking at each byte beats a search made for long texts.
fn cut(topic: &str) -> Option<(&str, &str)> {
    let at = topic.bytes().position(|byte| byte == b'/')?;
    Some((topic.get(..at)?, topic.get(at + 1..)?))
}

/// What follows `{product}/{device}`, with its separator.
fn own<'a>(product: &str, device: &str, topic: &'a str) -> Option<&'a str> {
    past(past(topic, product)?.strip_prefix('/')?, device)
}

/// Whether a rest goes further down. What has no further level, or an empty one, may be read, since `#` and `+` match it.
fn is_below(rest: &str, access: Access) -> bool {
    rest.len() > 1 || access == Access::Read
}

fn native(product: &str, device: &str, topic: &str, access: Access) -> bool {
    let rest = own(product, device, topic);
    let Some(rest) = rest.and_then(|rest| rest.strip_prefix('/')) else { return false };
    let (direction, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let may = match direction {
        "up" => access == Access::Publish,
        "down" => access == Access::Read,
        "ota" | "backfill" | "sys" => true,
        _ => false,
    };
    // Stored data is handed in on the level itself.
    may && (is_below(rest, access) || (direction == "backfill" && rest.is_empty()))
}

fn aliyun(product: &str, device: &str, topic: &str, access: Access) -> bool {
    let Some((first, rest)) = cut(topic) else { return false };
    let exactly = |topic| own(product, device, topic).is_some_and(str::is_empty);
    match first {
        "sys" => own(product, device, rest).is_some_and(|rest| is_below(rest, access)),
        "ota" => match rest.strip_prefix("device/").and_then(cut) {
            Some(("inform" | "progress" | "request", rest)) => access == Access::Publish && exactly(rest),
            Some(("upgrade" | "reply", rest)) => access == Access::Read && exactly(rest),
            _ => false,
        },
        "shadow" => match cut(rest) {
            Some(("update", rest)) => access == Access::Publish && exactly(rest),
            Some(("get", rest)) => access == Access::Read && exactly(rest),
            _ => false,
        },
        "ext" => ext(product, device, rest, access),
        _ => {
            let user = own(product, device, topic).and_then(|rest| rest.strip_prefix('/'));
            user.and_then(|rest| past(rest, "user")).is_some_and(|rest| is_below(rest, access))
        }
    }
}

fn ext(product: &str, device: &str, topic: &str, access: Access) -> bool {
    match cut(topic) {
        // The id numbers a call, whoever is called; whose call it is stands behind it.
        Some(("rrpc", call)) => cut(call).is_some_and(|(id, rest)| {
            let rest = rest.strip_prefix('/').unwrap_or(rest);
            !id.is_empty() && id != "#" && own(product, device, rest).is_some_and(|rest| is_below(rest, access))
        }),
        Some((service, rest)) => {
            let literal = !service.is_empty() && service != "+";
            literal && own(product, device, rest).is_some()
        }
        None => false,
    }
}

#[cfg(test)]
mod tests;
