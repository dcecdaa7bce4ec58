//! Tags and regions of devices: set, listed, imported, kept; and campaigns that choose by them.

use serde_json::{Value, json};
use turnpike_tests::credential::SECRET;
use turnpike_tests::http::Answer;

use crate::ota::{World, content, is, world};

impl World {
    fn label(&self, device: &str, labels: &Value) -> Answer {
        self.http().patch(&Self::path(&format!("devices/{device}")), &labels.to_string())
    }

    #[track_caller]
    fn labelled(&self, device: &str, labels: &Value) {
        let answer = self.label(device, labels);
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// Tags and region of a device.
    fn labels(&self, device: &str) -> (Value, Value) {
        let shown = self.http().get(&Self::path(&format!("devices/{device}"))).json();
        (shown["tags"].clone(), shown["region"].clone())
    }

    /// Names of a page, and whether more may come.
    #[track_caller]
    fn listed(&self, query: &str) -> (Vec<String>, bool) {
        let page = self.http().get(&Self::path(&format!("devices?{query}"))).json();
        let devices = page["devices"].as_array().unwrap_or_else(|| panic!("{page}"));
        let names = devices.iter().map(|device| device["device"].as_str().expect("a name").to_owned());
        (names.collect(), !page["next"].is_null())
    }

    /// Names and states of a campaign's devices.
    fn members(&self, campaign: u64) -> Vec<(String, String)> {
        let page = self.http().get(&format!("/api/v1/campaigns/{campaign}/devices")).json();
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let members = page["devices"].as_array().expect("a list").iter();
        let mut members: Vec<_> = members.map(|member| (text(&member["device"]), text(&member["state"]))).collect();
        members.sort();
        members
    }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn labels_are_set_listed_and_kept() {
    let mut world = world();
    assert_eq!(world.labels("one"), (Value::Null, Value::Null));
    world.labelled("one", &json!({"tags": ["shop", "beta"], "region": "cn-east"}));
    world.labelled("two", &json!({"tags": ["beta"]}));
    let body = json!({"secret": SECRET, "tags": ["beta", "home"], "region": "eu"});
    let made = world.http().put(&World::path("devices/five"), &body.to_string());
    assert_eq!(
        (made.status, &made.json()["tags"], &made.json()["region"]),
        (201, &json!(["beta", "home"]), &json!("eu"))
    );

    let csv = format!(
        "device,secret,tags,region\nsix,{SECRET},beta;shop,cn-east\nseven,{SECRET},,us\ntwo,{SECRET},,eu\neight,{SECRET},a\"b,\n"
    );
    let report = world.http().post(&World::path("devices/import"), "text/csv", &csv).json();
    assert_eq!(
        (&report["created"], &report["replaced"], &report["refused"]),
        (&json!(2), &json!(1), &json!(1)),
        "{report}"
    );
    assert_eq!(report["faults"][0]["line"], 5, "{report}");
    let unknown = world.http().post(&World::path("devices/import"), "text/csv", "device,secret,region,tags\n");
    is(&unknown, 400, "unknown_header");

    let check = |world: &World| {
        assert_eq!(world.labels("two"), (json!(["beta"]), json!("eu")), "what a row doesn't say stays");
        assert_eq!(world.listed("tag=beta"), (names(&["five", "one", "six", "two"]), false));
        assert_eq!(world.listed("tag=shop,beta"), (names(&["one", "six"]), false));
        assert_eq!(world.listed("tag=beta&region=eu"), (names(&["five", "two"]), false));
        assert_eq!(world.listed("region=us"), (names(&["seven"]), false));
        assert_eq!(world.listed("tag=nobody"), (vec![], false));
        assert_eq!(world.listed("tag=beta&limit=2"), (names(&["five", "one"]), true));
        assert_eq!(world.listed("tag=beta&limit=2&after=one"), (names(&["six", "two"]), false));
    };
    check(&world);
    world.broker.kill();
    world.broker.restart();
    check(&world);

    world.labelled("one", &json!({"region": ""}));
    assert_eq!(world.labels("one"), (json!(["beta", "shop"]), Value::Null));
    world.labelled("one", &json!({"tags": []}));
    assert_eq!(world.labels("one"), (Value::Null, Value::Null));
    let many: Vec<_> = (0..9).map(|tag| tag.to_string()).collect();
    for bad in [
        json!({}),
        json!({ "tags": many }),
        json!({"tags": [""]}),
        json!({"tags": ["a,b"]}),
        json!({"tags": ["x".repeat(65)]}),
        json!({"region": "a b"}),
        json!({"tags": "beta"}),
        json!({"tags": ["beta"], "other": 1}),
    ] {
        is(&world.label("one", &bad), 400, "invalid");
    }
    is(&world.label("nobody", &json!({"tags": ["beta"]})), 404, "not_found");
    assert_eq!(world.http().get(&World::path("devices?tag=a%20b")).status, 400);
    assert!(!world.audited("device_labels").is_empty());

    // A new device of the name has none of the old one's.
    assert_eq!(world.http().delete(&World::path("devices/six")).status, 204);
    assert_eq!(world.http().put(&World::path("devices/six"), "{}").status, 201);
    assert_eq!(world.labels("six"), (Value::Null, Value::Null));
    assert_eq!(world.listed("tag=shop"), (vec![], false));
}

#[test]
fn campaigns_choose_by_labels_and_keep_whom_they_have_drawn() {
    let mut world = world();
    for (device, labels) in [
        ("one", json!({"tags": ["beta"], "region": "eu"})),
        ("two", json!({"tags": ["beta", "shop"]})),
        ("three", json!({"tags": ["shop"], "region": "eu"})),
    ] {
        world.labelled(device, &labels);
    }
    let file = content(30, 10_000);
    let firmware = world.firmware("2.0", &file);
    // None of them starts, so that everybody stays as they were drawn.
    let drawn = |filter: &Value| {
        let mut wanted = json!({"name": "c", "firmware": firmware, "approval": true});
        for (field, value) in filter.as_object().expect("an object") {
            wanted[field] = value.clone();
        }
        world.campaign(&wanted)
    };
    let queued =
        |devices: &[&str]| devices.iter().map(|device| ((*device).to_owned(), "queued".to_owned())).collect::<Vec<_>>();
    let beta = drawn(&json!({"tags": ["beta"]}));
    let both = drawn(&json!({"tags_all": ["beta", "shop"]}));
    let shops = drawn(&json!({"tags": ["shop", "home"], "regions": ["eu", "us"]}));
    let named = drawn(&json!({"tags": ["beta"], "devices": ["two", "four"]}));
    for (campaign, devices) in [(beta, &["one", "two"][..]), (both, &["two"]), (shops, &["three"]), (named, &["two"])] {
        assert_eq!(world.members(campaign), queued(devices), "{campaign}");
    }
    let nobody = json!({"name": "c", "firmware": firmware, "regions": ["moon"]});
    is(&world.begin(&nobody), 409, "no_devices");

    // Groups are drawn: who is in them stays, and who comes to match stays out, also after a restart.
    world.labelled("two", &json!({"tags": []}));
    let csv = format!("device,secret,tags,region\nfour,{SECRET},beta;shop,eu\n");
    assert_eq!(world.http().post(&World::path("devices/import"), "text/csv", &csv).json()["replaced"], 1);
    for restarted in [false, true] {
        if restarted {
            world.broker.kill();
            world.broker.restart();
        }
        for (campaign, devices) in
            [(beta, &["one", "two"][..]), (both, &["two"]), (shops, &["three"]), (named, &["two"])]
        {
            assert_eq!(world.members(campaign), queued(devices), "{campaign}, {restarted}");
        }
    }
    // Of what is deleted nothing is left.
    for campaign in [beta, both, shops, named] {
        let path = format!("/api/v1/campaigns/{campaign}");
        assert_eq!(world.http().post(&format!("{path}/stop"), "", "").status, 200);
        world.reaches(campaign, "stopped");
        assert_eq!(world.http().delete(&path).status, 204);
    }

    // One that goes on taking devices in has whoever comes to match.
    let mut four = world.device("four");
    assert_eq!(four.check("1.0")["offer"], Value::Null);
    let dynamic = json!({"name": "d", "firmware": firmware, "tags": ["pilot"], "dynamic": true});
    let dynamic = world.campaign(&dynamic);
    assert_eq!(world.members(dynamic), vec![]);
    world.labelled("four", &json!({"tags": ["pilot"]}));
    let pushed = four.offer();
    assert_eq!(pushed["offer"]["version"], "2.0", "{pushed}");
    four.update(&world, &pushed["offer"], &file);
    assert_eq!(world.members(dynamic), [("four".to_owned(), "succeeded".to_owned())]);
}

#[test]
fn a_dynamic_campaign_for_each_of_two_targets_sees_the_version_of_its_own() {
    let world = world();
    let targets = json!({"targets": {"mcu": {}, "radio": {}}});
    assert_eq!(world.http().put(&World::path("ota"), &targets.to_string()).status, 200);
    let mcu = world.firmware("2.0", "for the mcu");
    let body = json!({"target": "radio", "version": "5.0", "any_hardware": true, "size": 13});
    let made = world.http().post(&World::path("firmware"), "application/json", &body.to_string()).json();
    assert_eq!(world.put(made["upload"].as_str().expect("a path"), 0, "for the radio").status, 200);
    let radio = made["firmware"].as_u64().expect("a number");
    assert_eq!(world.finish(radio, &json!({})).status, 200);
    for (firmware, from) in [(mcu, "1.0"), (radio, "4.0")] {
        let campaign = world.campaign(&json!({"name": "d", "firmware": firmware, "versions": [from], "dynamic": true}));
        world.reaches(campaign, "running");
    }
    let mut one = world.device("one");
    let ask = json!({"id": 9, "versions": {"mcu": "0.9", "radio": "4.0"}, "tomorrow": {"field": [1]}});
    assert_eq!(one.say("ota/check", &ask), 0);
    let answer = one.offer();
    assert_eq!(
        (&answer["id"], &answer["offer"]["target"], &answer["offer"]["version"]),
        (&json!(9), &json!("radio"), &json!("5.0")),
        "{answer}"
    );
}
