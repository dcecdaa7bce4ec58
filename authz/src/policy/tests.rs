use proptest::prelude::*;
use turnpike_mqtt::{TopicFilter, TopicName};

use super::*;

#[test]
fn a_device_has_its_own_topics_and_no_others() {
    for (topic, publish, read) in [
        ("dev/p/d/up/x", true, false),
        ("dev/p/d/up/x/y", true, false),
        ("dev/p/d/up/", false, false),
        ("dev/p/d/up", false, false),
        ("dev/p/d/down/x", false, true),
        ("dev/p/d/down", false, true),
        ("dev/p/d/down/", false, true),
        ("dev/p/d/ota/x", true, true),
        ("dev/p/d/backfill/x", true, true),
        ("dev/p/d/sys/x", true, true),
        ("dev/p/d/sys", false, true),
        ("dev/p/d/sysx/x", false, false),
        ("dev/p/d/other/x", false, false),
        ("dev/p/d/", false, false),
        ("dev/p/d", false, false),
        ("dev/p", false, false),
        ("dev/", false, false),
        ("dev/p/e/up/x", false, false),
        ("dev/q/d/up/x", false, false),
        ("dev/p/dd/up/x", false, false),
        ("dev/pp/d/up/x", false, false),
        ("dev/p/d2/down/x", false, false),
        ("DEV/p/d/up/x", false, false),
        ("user/u/dev/p/d/up/x", false, false),
        ("/dev/p/d/up/x", false, false),
        ("/p/d/user/x", true, true),
        ("/p/d/user/", false, true),
        ("/p/d/user", false, true),
        ("/p/d/other/x", false, false),
        ("/p/e/user/x", false, false),
        ("/sys/p/d/thing/event/property/post", true, true),
        ("/sys/p/e/thing/event", false, false),
        ("/sys/x/p/d/thing", false, false),
        ("/ota/device/inform/p/d", true, false),
        ("/ota/device/progress/p/d", true, false),
        ("/ota/device/upgrade/p/d", false, true),
        ("/ota/device/upgrade/p/e", false, false),
        ("/ota/device/upgrade/p/d/x", false, false),
        ("/shadow/update/p/d", true, false),
        ("/shadow/get/p/d", false, true),
        ("/shadow/get/p/e", false, false),
        ("/ext/error/p/d", true, true),
        ("/ext/ntp/p/d/request", true, true),
        ("/ext/session/p/d/combine/login", true, true),
        ("/ext/ntp/p/e/request", false, false),
        ("/ext//p/d/request", false, false),
        ("/ext/p/d", false, false),
        ("/ext/rrpc/1/p/d/user/x", true, true),
        ("/ext/rrpc/1//p/d/user/x", true, true),
        ("/ext/rrpc/1/p/e/user/x", false, false),
        ("/ext/rrpc//p/d/user/x", false, false),
        // Of device p of product x.
        ("/ext/session/x/p/d", false, false),
        ("/ext/rrpc/1/x/p/d/y", false, false),
        // Not of device d of product p, but of device p of product rrpc.
        ("/ext/rrpc/p/d", false, false),
        ("/broadcast/p/x", false, false),
        ("$SYS/broker/uptime", false, false),
        ("a", false, false),
        ("/", false, false),
        ("//", false, false),
    ] {
        assert_eq!(may_publish("p", "d", topic), publish, "publish {topic}");
        assert_eq!(may_subscribe("p", "d", topic), read, "read {topic}");
    }
}

#[test]
fn a_filter_is_literal_up_to_the_level_that_decides() {
    for filter in [
        "#",
        "+",
        "+/#",
        "/#",
        "+/p/d/down/x",
        "dev/#",
        "dev/+/d/down/x",
        "dev/p/+/down/x",
        "dev/p/#",
        "dev/p/d/#",
        "dev/p/d/+",
        "dev/p/d/+/x",
        "dev/p/d/+/#",
        "dev/p/d/up/#",
        "/sys/+/d/x",
        "/sys/#",
        "/sys/p/+/#",
        "/+/p/d/x",
        "/p/d/#",
        "/p/d/+/x",
        "/ota/device/+/p/d",
        "/ota/device/upgrade/p/+",
        "/ota/device/upgrade/#",
        "/shadow/+/p/d",
        "/shadow/get/#",
        "/ext/#",
        "/ext/+/p/d/x",
        "/ext/rrpc/#",
        "/ext/rrpc/+/#",
        "/ext/rrpc/+/+/d/x",
        "/broadcast/p/#",
    ] {
        assert!(!may_subscribe("p", "d", filter), "{filter}");
    }
    for filter in [
        "dev/p/d/down/#",
        "dev/p/d/down/+/x",
        "dev/p/d/sys/+",
        "/p/d/user/#",
        "/sys/p/d/#",
        "/sys/p/d/thing/service/+",
        "/ext/rrpc/+/p/d/#",
        "/ext/rrpc/+//p/d/user/+",
        "/ext/session/p/d/#",
    ] {
        assert!(may_subscribe("p", "d", filter), "{filter}");
    }
}

/// Beginnings of what is allowed, so that allowed filters come up often.
fn beginning() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(vec![
        "",
        "dev/p/d/",
        "dev/p/d/down/",
        "/p/d/",
        "/p/d/user/",
        "/sys/p/d/",
        "/ext/rrpc/",
        "/ext/x/p/d/",
        "/ota/device/upgrade/p/",
        "/shadow/get/p/",
    ])
}

fn levels() -> impl Strategy<Value = String> {
    let level = proptest::sample::select(vec![
        "dev", "p", "d", "e", "down", "up", "sys", "user", "ext", "rrpc", "ota", "device", "upgrade", "+", "#", "", "x",
    ]);
    (beginning(), proptest::collection::vec(level, 1..6))
        .prop_map(|(beginning, levels)| beginning.to_owned() + &levels.join("/"))
}

/// A topic that a filter matches: its wildcards filled in.
fn filled(filter: &str, fill: &[&str]) -> String {
    let mut fill = fill.iter().cycle();
    let levels = filter.split('/').map(|level| if level == "+" { fill.next().copied().unwrap_or("x") } else { level });
    let topic = levels.collect::<Vec<_>>().join("/");
    match topic.strip_suffix('#') {
        Some(parent) if fill.next().is_some_and(|level| level.is_empty()) => parent.trim_end_matches('/').to_owned(),
        Some(parent) => format!("{parent}x/y"),
        None => topic,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]

    #[test]
    fn whatever_an_allowed_filter_matches_may_be_read(
        filter in levels(),
        other in levels(),
        fill in proptest::collection::vec(proptest::sample::select(vec!["", "x", "p", "d", "up"]), 3),
    ) {
        let Ok(parsed) = TopicFilter::parse(&filter) else { return Ok(()) };
        if !may_subscribe("p", "d", &filter) {
            return Ok(());
        }
        for topic in [filled(&filter, &fill), other] {
            if let Ok(name) = TopicName::parse(&topic) && parsed.matches(name) {
                prop_assert!(may_subscribe("p", "d", &topic), "{} matches {}", filter, topic);
            }
        }
    }

    /// Whoever they are, two devices share no topic.
    #[test]
    fn no_topic_belongs_to_two_devices(topic in levels(), q in "p|d|e|x|dev|sys|ext|rrpc|user", e in "p|d|e|x|user|device|down") {
        if (q.as_str(), e.as_str()) != ("p", "d") {
            prop_assert!(!(may_publish("p", "d", &topic) && may_publish(&q, &e, &topic)), "{}", topic);
            prop_assert!(!(may_subscribe("p", "d", &topic) && may_subscribe(&q, &e, &topic)), "{}", topic);
            prop_assert!(!(may_publish("p", "d", &topic) && may_subscribe(&q, &e, &topic)), "{}", topic);
        }
    }
}

#[test]
fn own_filters_take_what_a_device_may_publish_and_nobody_elses() {
    let filters = own_filters("p", "d");
    let taken = |topic: &str| {
        let name = TopicName::parse(topic).unwrap();
        filters.iter().any(|filter| TopicFilter::parse(filter).unwrap().matches(name))
    };
    let of = |device: &str| {
        ["dev/p/{}/up/x", "dev/p/{}/sys/x/y", "/p/{}/user/x", "/sys/p/{}/thing/x", "/ota/device/inform/p/{}"]
            .into_iter()
            .chain(["/shadow/update/p/{}", "/ext/rrpc/7/p/{}/x", "/ext/rrpc/7//p/{}/x"])
            .map(|form| form.replace("{}", device))
            .collect::<Vec<_>>()
    };
    for topic in of("d") {
        assert!(may_publish("p", "d", &topic) && taken(&topic), "{topic}");
    }
    for topic in of("e") {
        assert!(!taken(&topic), "{topic}");
    }
}
