//! What a device may do: publish and read under its own topics. Pure functions of texts, without allocation.
//!
//! | topics | publish | read |
//! |---|---|---|
//! | `dev/{product}/{device}/up/…` | yes | no |
//! | `dev/{product}/{device}/down/…` | no | yes |
//! | `dev/{product}/{device}/{ota,backfill,sys}/…` | yes | yes |
//! | `/{pk}/{dn}/user/…`, `/sys/{pk}/{dn}/…`, `/ext/…/{pk}/{dn}…` | yes | yes |
//! | `/ota/device/{inform,progress,request}/{pk}/{dn}` | yes | no |
//! | `/ota/device/{upgrade,reply}/{pk}/{dn}` | no | yes |
//! | `/shadow/update/{pk}/{dn}` | yes | no |
//! | `/shadow/get/{pk}/{dn}` | no | yes |
//! | `/broadcast/{pk}/…` | no | yes |
//!
//! A filter is allowed only if every topic that it matches is: its levels up to the one that decides are literal.

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Access {
    Publish,
    Read,
}

/// Whether a device may publish on a topic name.
#[must_use]
pub fn may_publish(product: &str, device: &str, topic: &str) -> bool {
    allowed(product, device, topic, Access::Publish)
}

/// Whether a device may subscribe to a filter (without its `$share/{name}/` prefix).
#[must_use]
pub fn may_subscribe(product: &str, device: &str, filter: &str) -> bool {
    allowed(product, device, filter, Access::Read)
}

fn allowed(product: &str, device: &str, topic: &str, access: Access) -> bool {
    match topic.strip_prefix('/') {
        Some(rest) => aliyun(product, device, rest, access),
        None => native(product, device, topic, access),
    }
}

/// Cuts `level/` off the front.
fn after<'a>(topic: &'a str, level: &str) -> Option<&'a str> {
    topic.strip_prefix(level)?.strip_prefix('/')
}

fn native(product: &str, device: &str, topic: &str, access: Access) -> bool {
    let Some(rest) = after(topic, "dev").and_then(|t| after(t, product)).and_then(|t| after(t, device)) else {
        return false;
    };
    let Some((direction, rest)) = rest.split_once('/') else { return false };
    let direction = match direction {
        "up" => access == Access::Publish,
        "down" => access == Access::Read,
        "ota" | "backfill" | "sys" => true,
        _ => false,
    };
    direction && !rest.is_empty()
}

fn aliyun(product: &str, device: &str, topic: &str, access: Access) -> bool {
    let own = |topic: &str| after(topic, product).is_some_and(|rest| rest == device);
    let below = |topic| after(topic, product).and_then(|rest| after(rest, device)).filter(|rest| !rest.is_empty());
    let Some((first, rest)) = topic.split_once('/') else { return false };
    match first {
        "sys" => below(rest).is_some(),
        "ota" => {
            let Some((kind, rest)) = rest.strip_prefix("device/").and_then(|rest| rest.split_once('/')) else {
                return false;
            };
            let direction = match kind {
                "inform" | "progress" | "request" => access == Access::Publish,
                "upgrade" | "reply" => access == Access::Read,
                _ => false,
            };
            direction && own(rest)
        }
        "shadow" => match rest.split_once('/') {
            Some(("update", rest)) => access == Access::Publish && own(rest),
            Some(("get", rest)) => access == Access::Read && own(rest),
            _ => false,
        },
        "ext" => ext(product, device, rest),
        "broadcast" => access == Access::Read && after(rest, product).is_some_and(|rest| !rest.is_empty()),
        _ => below(topic).and_then(|rest| after(rest, "user")).is_some_and(|rest| !rest.is_empty()),
    }
}

/// `/ext/{service}/{pk}/{dn}…`, `/ext/{service}/{verb}/{pk}/{dn}…`: the services' levels are literal, then come the device's own.
fn ext(product: &str, device: &str, mut rest: &str) -> bool {
    for _ in 0..3 {
        let Some((level, tail)) = rest.split_once('/') else { return false };
        if level == "+" || level == "#" {
            return false;
        }
        rest = tail;
        if let Some(tail) = after(rest, product) {
            return tail == device || after(tail, device).is_some_and(|tail| !tail.is_empty());
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use turnpike_mqtt::{TopicFilter, TopicName};

    use super::*;

    #[test]
    fn a_device_has_its_own_topics_and_no_others() {
        for (topic, publish, read) in [
            ("dev/p/d/up/x", true, false),
            ("dev/p/d/up/", false, false),
            ("dev/p/d/up", false, false),
            ("dev/p/d/down/x", false, true),
            ("dev/p/d/sys/x", true, true),
            ("dev/p/d/other/x", false, false),
            ("dev/p/e/up/x", false, false),
            ("dev/q/d/up/x", false, false),
            ("dev/p/dd/up/x", false, false),
            ("dev/p/d2/down/x", false, false),
            ("/p/d/user/x", true, true),
            ("/p/d/other/x", false, false),
            ("/sys/p/d/thing/event", true, true),
            ("/sys/p/e/thing/event", false, false),
            ("/ota/device/inform/p/d", true, false),
            ("/ota/device/upgrade/p/d", false, true),
            ("/ota/device/upgrade/p/d/x", false, false),
            ("/shadow/update/p/d", true, false),
            ("/shadow/get/p/d", false, true),
            ("/ext/rrpc/p/d/x", true, true),
            ("/ext/session/p/d/combine/login", true, true),
            ("/broadcast/p/x", false, true),
            ("$SYS/broker/uptime", false, false),
            ("a", false, false),
        ] {
            assert_eq!(may_publish("p", "d", topic), publish, "publish {topic}");
            assert_eq!(may_subscribe("p", "d", topic), read, "read {topic}");
        }
        for filter in [
            "#",
            "+/p/d/down/x",
            "dev/#",
            "dev/+/d/down/x",
            "dev/p/+/down/x",
            "dev/p/d/#",
            "dev/p/d/+/x",
            "/sys/+/d/x",
            "/+/p/d/x",
            "/ext/#",
            "/ext/+/p/d/x",
        ] {
            assert!(!may_subscribe("p", "d", filter), "{filter}");
        }
        for filter in ["dev/p/d/down/#", "dev/p/d/down/+/x", "/p/d/user/#", "/sys/p/d/#"] {
            assert!(may_subscribe("p", "d", filter), "{filter}");
        }
    }

    fn level() -> impl Strategy<Value = String> {
        proptest::sample::select(vec![
            "dev", "p", "d", "e", "down", "up", "sys", "user", "ext", "ota", "device", "upgrade", "+", "#", "", "x",
        ])
        .prop_map(str::to_owned)
    }

    proptest! {
        #[test]
        fn whatever_an_allowed_filter_matches_may_be_read(
            filter in proptest::collection::vec(level(), 1..7), topic in proptest::collection::vec(level(), 1..7),
        ) {
            let (filter, topic) = (filter.join("/"), topic.join("/"));
            if let (Ok(parsed), Ok(name)) = (TopicFilter::parse(&filter), TopicName::parse(&topic))
                && may_subscribe("p", "d", &filter) && parsed.matches(name)
            {
                // `x/#` matches its parent `x` too, which carries nothing that isn't the device's own.
                prop_assert!(may_subscribe("p", "d", &topic) || filter.strip_suffix("/#") == Some(&topic), "{} {}", filter, topic);
            }
        }
    }
}
