use proptest::prelude::*;
use turnpike_mqtt::{TopicFilter, TopicName};

use super::*;

// Of a product that takes every profile, unless it says otherwise.

fn may_publish(product: &str, device: &str, topic: &str) -> bool {
    super::may_publish(product, device, topic, || ProfileSet::ALL)
}

fn may_subscribe(product: &str, device: &str, filter: &str) -> bool {
    super::may_subscribe(product, device, filter, || ProfileSet::ALL)
}

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
        ("dev/p/d/backfill", true, true),
        ("dev/p/d/backfill/", false, true),
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

/// A tencent product key.
const PK: &str = "LD8S5J1L07";

#[test]
fn vendors_topics_are_the_devices_own() {
    for (topic, publish, read) in [
        ("LD8S5J1L07/d/data", true, true),
        ("LD8S5J1L07/d/a/b", true, true),
        ("LD8S5J1L07/d/", false, true),
        ("LD8S5J1L07/d", false, true),
        ("LD8S5J1L07/e/data", false, false),
        ("LD8S5J1L08/d/data", false, false),
        ("$thing/up/property/LD8S5J1L07/d", true, false),
        ("$thing/down/property/LD8S5J1L07/d", false, true),
        ("$thing/down/property/LD8S5J1L07/d/x", false, false),
        ("$thing/down/property/LD8S5J1L07/e", false, false),
        ("$thing/down/property/other/LD8S5J1L07/d", false, false),
        ("$thing/down//LD8S5J1L07/d", false, false),
        ("$thing/down/LD8S5J1L07/d", false, false),
        ("$thing/side/property/LD8S5J1L07/d", false, false),
        ("$ota/report/LD8S5J1L07/d", true, false),
        ("$ota/update/LD8S5J1L07/d", false, true),
        ("$ota/update/LD8S5J1L07/e", false, false),
        ("$shadow/operation/LD8S5J1L07/d", true, false),
        ("$shadow/operation/result/LD8S5J1L07/d", false, true),
        ("$shadow/operation/result/LD8S5J1L07/e", false, false),
        ("$sys/operation/LD8S5J1L07/d", true, false),
        ("$sys/operation/result/LD8S5J1L07/d", false, true),
        ("$rrpc/rxd/LD8S5J1L07/d/1", false, true),
        ("$rrpc/txd/LD8S5J1L07/d/1", true, false),
        ("$rrpc/txd/LD8S5J1L07/d", false, false),
        ("$rrpc/rxd/LD8S5J1L07/e/1", false, false),
        ("$broadcast/rxd/LD8S5J1L07/d", false, false),
        ("$oc/devices/d/sys/properties/report", true, true),
        ("$oc/devices/LD8S5J1L07_d/sys/commands/request_id=1", true, true),
        ("$oc/devices/LD8S5J1L07_d/user/x", true, true),
        ("$oc/devices/LD8S5J1L07_d/sys", false, true),
        ("$oc/devices/LD8S5J1L07_d/other/x", false, false),
        ("$oc/devices/LD8S5J1L07_e/sys/x", false, false),
        ("$oc/devices/LD8S5J1L07d/sys/x", false, false),
        ("$oc/devices/e/sys/x", false, false),
        ("$oc/d/sys/x", false, false),
        ("tylink/d/thing/property/report", true, true),
        ("tylink/e/thing/property/report", false, false),
        ("tylink/d", false, true),
        ("tylink/", false, false),
        ("tylink", false, false),
        ("devices/d/messages/events", true, false),
        ("devices/d/messages/events/", true, false),
        ("devices/d/messages/events/$.ct=application%2Fjson&a=b", true, false),
        ("devices/d/messages/eventsx", false, false),
        ("devices/d/messages/devicebound/a=b", false, true),
        ("devices/d/messages/devicebound", false, true),
        ("devices/e/messages/devicebound/x", false, false),
        ("devices/d/modules/m/messages/events/", false, false),
        ("$iothub/twin/res/200/?$rid=1", false, false),
        ("$iothub/twin/GET/?$rid=1", false, false),
        ("$iothub/methods/POST/reboot/?$rid=1", false, false),
        ("dev2app/d", true, false),
        ("dev2app/d/app", true, false),
        ("dev2app/d/", false, false),
        ("dev2app/d/app/x", false, false),
        ("dev2app/e", false, false),
        ("dev2app/dd", false, false),
        ("dev2app", false, false),
        ("cli2ser_req", true, false),
        ("cli2ser_req/", false, false),
        ("cli2ser_req/x", false, false),
        ("app2dev/d/app", false, true),
        ("app2dev/d", false, true),
        ("app2dev/e/app", false, false),
        ("ser2cli_res/d", false, true),
        ("ser2cli_res/e", false, false),
        ("ser2cli_res/d/x", false, false),
        ("ser2cli_noti/LD8S5J1L07", false, true),
        ("ser2cli_noti/LD8S5J1L08", false, false),
        ("ser2cli_noti/d", false, false),
        ("$SYS/broker/uptime", false, false),
        ("$SYS/operation/LD8S5J1L07/d", false, false),
        ("$thing", false, false),
        ("$", false, false),
        ("", false, false),
    ] {
        assert_eq!(may_publish(PK, "d", topic), publish, "publish {topic}");
        assert_eq!(may_subscribe(PK, "d", topic), read, "read {topic}");
    }
}

#[test]
fn vendors_filters_are_literal_up_to_the_level_that_decides() {
    for filter in [
        "LD8S5J1L07/#",
        "LD8S5J1L07/+/data",
        "+/d/data",
        "$thing/down/+/LD8S5J1L07/d",
        "$thing/down/#",
        "$thing/#",
        "$thing/+/property/LD8S5J1L07/d",
        "$shadow/operation/+/LD8S5J1L07/d",
        "$shadow/operation/#",
        "$rrpc/rxd/#",
        "$oc/#",
        "$oc/devices/#",
        "$oc/devices/+/sys/#",
        "$oc/devices/d/#",
        "$oc/devices/d/+/x",
        "tylink/#",
        "tylink/+/thing",
        "devices/#",
        "devices/d/#",
        "devices/d/messages/#",
        "devices/d/messages/+",
        "devices/+/messages/devicebound/#",
        "$iothub/#",
        "$iothub/twin/res/#",
        "app2dev/#",
        "app2dev/+/x",
        "ser2cli_res/+",
        "ser2cli_res/#",
        "ser2cli_noti/#",
        "dev2app/#",
        "cli2ser_req",
    ] {
        assert!(!may_subscribe(PK, "d", filter), "{filter}");
    }
    for filter in [
        "LD8S5J1L07/d/#",
        "LD8S5J1L07/d/+",
        "$rrpc/rxd/LD8S5J1L07/d/+",
        "$oc/devices/LD8S5J1L07_d/sys/commands/#",
        "tylink/d/#",
        "tylink/d/thing/+/set",
        "devices/d/messages/devicebound/#",
        "app2dev/d/#",
    ] {
        assert!(may_subscribe(PK, "d", filter), "{filter}");
    }
}

#[test]
fn a_profiles_topics_are_for_products_that_take_it() {
    for (profiles, topic) in [
        (&[Profile::Aliyun][..], "/LD8S5J1L07/d/user/x"),
        (&[Profile::Tencent], "LD8S5J1L07/d/x"),
        (&[Profile::Tencent], "$thing/up/property/LD8S5J1L07/d"),
        (&[Profile::Huawei], "$oc/devices/d/sys/x"),
        (&[Profile::Tuya], "tylink/d/x"),
        (&[Profile::Azure], "devices/d/messages/events/"),
        (&[Profile::Gizwits, Profile::GizwitsLegacy], "dev2app/d"),
    ] {
        for profile in Profile::ALL {
            let allowed = || ProfileSet::from_iter([profile]);
            let may = super::may_publish(PK, "d", topic, allowed);
            assert_eq!(may, profiles.contains(&profile), "{topic} with {profile}");
            assert!(super::may_publish(PK, "d", "dev/LD8S5J1L07/d/up/x", allowed), "ours is everybody's");
        }
    }
    // A key of another length than tencent's might be the first level of somebody else's form.
    let tencent = || ProfileSet::from_iter([Profile::Tencent]);
    for product in ["user", "tylink", "devices", "app2dev", "ser2cli_noti", "$oc", "p"] {
        assert!(!super::may_publish(product, "d", &format!("{product}/d/x"), tencent), "{product}");
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
        "LD8S5J1L07/d/",
        "$thing/down/x/LD8S5J1L07/",
        "$shadow/operation/",
        "$shadow/operation/result/LD8S5J1L07/",
        "$rrpc/rxd/LD8S5J1L07/",
        "$oc/devices/",
        "$oc/devices/LD8S5J1L07_d/",
        "tylink/",
        "devices/d/messages/",
        "app2dev/",
        "dev2app/d/",
        "ser2cli_res/",
    ])
}

fn levels() -> impl Strategy<Value = String> {
    let level = proptest::sample::select(vec![
        "dev",
        "p",
        "d",
        "e",
        "down",
        "up",
        "sys",
        "user",
        "ext",
        "rrpc",
        "ota",
        "device",
        "upgrade",
        "+",
        "#",
        "",
        "x",
        PK,
        "result",
        "devicebound",
        "events",
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
        product in "p|LD8S5J1L07",
    ) {
        let Ok(parsed) = TopicFilter::parse(&filter) else { return Ok(()) };
        if !may_subscribe(&product, "d", &filter) {
            return Ok(());
        }
        for topic in [filled(&filter, &fill), other] {
            if let Ok(name) = TopicName::parse(&topic) && parsed.matches(name) {
                prop_assert!(may_subscribe(&product, "d", &topic), "{} matches {}", filter, topic);
            }
        }
    }

    /// Whoever they are, two devices share no topic, if their names differ wherever these are all that a topic says.
    #[test]
    fn no_topic_belongs_to_two_devices(
        topic in levels(),
        p in "p|LD8S5J1L07",
        q in "p|d|e|x|dev|sys|ext|rrpc|user|LD8S5J1L07|devices|tylink|operation1",
        e in "p|d|e|x|user|device|down|LD8S5J1L07|result",
    ) {
        let names_one = ["tylink/", "$oc/", "devices/", "dev2app/", "app2dev/", "ser2cli_res/"];
        let told_apart = e != "d" || !names_one.iter().any(|first| topic.starts_with(first));
        if (&*q, &*e) != (&*p, "d") && told_apart {
            prop_assert!(!(may_publish(&p, "d", &topic) && may_publish(&q, &e, &topic)), "{}", topic);
            prop_assert!(!(may_subscribe(&p, "d", &topic) && may_subscribe(&q, &e, &topic)), "{}", topic);
            prop_assert!(!(may_publish(&p, "d", &topic) && may_subscribe(&q, &e, &topic)), "{}", topic);
        }
    }

    #[test]
    fn no_topic_panics(topic in "\\PC{0,40}|[$a-z0-9_/+#]{0,40}", product in "\\PC{0,12}", device in "\\PC{0,5}") {
        let _ = (may_publish(&product, &device, &topic), may_subscribe(&product, &device, &topic));
    }
}

#[test]
fn own_filters_take_what_a_device_may_publish_and_nobody_elses() {
    let allowed = ProfileSet::ALL;
    for (product, forms) in [
        (
            "p",
            &[
                "dev/p/{}/up/x",
                "dev/p/{}/sys/x/y",
                "/p/{}/user/x",
                "/sys/p/{}/thing/x",
                "/ota/device/inform/p/{}",
                "/shadow/update/p/{}",
                "/ext/rrpc/7/p/{}/x",
                "/ext/rrpc/7//p/{}/x",
                "$oc/devices/p_{}/sys/x",
                "$oc/devices/{}/user/x",
                "tylink/{}/thing/x",
                "devices/{}/messages/events/x",
                "dev2app/{}",
                "dev2app/{}/app",
            ][..],
        ),
        (
            "PRODUCT001",
            &[
                "PRODUCT001/{}/data",
                "$thing/up/property/PRODUCT001/{}",
                "$ota/report/PRODUCT001/{}",
                "$shadow/operation/PRODUCT001/{}",
                "$sys/operation/PRODUCT001/{}",
                "$rrpc/txd/PRODUCT001/{}/7",
            ][..],
        ),
    ] {
        let filters = own_filters(product, "d", allowed);
        let taken = |topic: &str| {
            let name = TopicName::parse(topic).unwrap();
            filters.iter().any(|filter| TopicFilter::parse(filter).unwrap().matches(name))
        };
        for form in forms {
            let (own, other) = (form.replace("{}", "d"), form.replace("{}", "e"));
            assert!(super::may_publish(product, "d", &own, || allowed) && taken(&own), "{own}");
            assert!(!taken(&other), "{other}");
        }
    }
    assert_eq!(own_filters("p", "d", ProfileSet::DEFAULT).len(), 7, "no more than the product takes");
}
