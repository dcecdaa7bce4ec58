//! What a campaign has said and begun holds: over the broker's end, a full disk, devices that change, and devices that ask for what isn't theirs.

use std::time::{SystemTime, UNIX_EPOCH};

use super::*;

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

impl World {
    /// A firmware that is ready, with what else is said of it.
    #[track_caller]
    fn special(&self, version: &str, content: &str, more: &Value) -> Value {
        let mut body = json!({"target": "mcu", "version": version, "size": content.len()});
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        if body["hardware"] == Value::Null {
            body["any_hardware"] = true.into();
        }
        let answer = self.http().post(&Self::path("firmware"), "application/json", &body.to_string());
        assert_eq!(answer.status, 201, "{answer:?}");
        let made = answer.json();
        assert_eq!(self.put(made["upload"].as_str().expect("a path"), 0, content).status, 200);
        let done = self.finish(made["firmware"].as_u64().expect("a number"), &json!({}));
        assert_eq!(done.status, 200, "{done:?}");
        done.json()
    }

    /// Names of a campaign's devices.
    fn named(&self, campaign: u64) -> Vec<String> {
        let page = self.http().get(&format!("/api/v1/campaigns/{campaign}/devices")).json();
        let devices = page["devices"].as_array().expect("a list");
        let mut names: Vec<_> =
            devices.iter().map(|shown| shown["device"].as_str().expect("a name").to_owned()).collect();
        names.sort();
        names
    }

    fn counted_by(&self, family: &str, code: &str) -> u64 {
        let line = format!("turnpike_{family}{{code=\"{code}\"}} ");
        let metrics = self.http().get("/metrics").body;
        metrics.lines().find_map(|found| found.strip_prefix(&line)?.parse().ok()).unwrap_or(0)
    }

    fn again(&mut self) {
        self.broker.kill();
        self.broker.restart();
    }
}

#[test]
fn a_restart_finds_the_devices_of_a_campaign_whatever_they_have_reported_since() {
    let mut world = world();
    let (mut one, mut two, mut three) = (world.device("one"), world.device("two"), world.device("three"));
    for (device, version) in [(&mut one, "1.0"), (&mut two, "1.0"), (&mut three, "0.9")] {
        device.check(version);
    }
    let firmware = world.firmware("2.0", "a firmware");
    let later = now_s() + 9999;
    let by_version = json!({"name": "c", "firmware": firmware, "versions": ["1.0"], "start": later});
    let by_version = world.campaign(&by_version);
    let all = world.campaign(&json!({"name": "all", "firmware": firmware, "start": later, "priority": 1}));
    let answer = world.http().put(&World::path("devices/young"), &json!({"secret": SECRET}).to_string());
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(world.named(by_version), ["one", "two"]);
    let before = world.named(all);
    two.check("1.1");
    three.check("1.0");
    world.again();
    assert_eq!(world.named(by_version), ["one", "two"]);
    assert_eq!(world.named(all), before, "who came in the same second");
    world.again();
    assert_eq!(world.named(by_version), ["one", "two"], "nor after another one");
}

#[test]
fn a_retry_that_was_answered_survives_the_brokers_end() {
    let mut world = world();
    let firmware = world.firmware("2.0", "a firmware");
    let one = world.device("one");
    let campaign =
        world.campaign(&json!({"name": "c", "firmware": firmware, "devices": ["one"], "limits": {"offered_s": 1}}));
    world.reaches(campaign, "completed");
    assert_eq!(world.state(campaign, "one")["state"], "timed_out");
    drop(one);
    let answer = world.http().post(&format!("/api/v1/campaigns/{campaign}/retry"), "", "");
    assert_eq!(answer.status, 200, "{answer:?}");
    world.again();
    until("it is tried again", SOON, || (world.state(campaign, "one")["state"] == "queued").then_some(()));
}

#[test]
fn a_device_gets_and_reports_only_what_it_was_offered_and_goes_on_with_that() {
    let mut world = world();
    let mut one = world.device("one");
    one.check_as("1.0", Some("A1"));
    let (mine, others) = (content(1, 10_000), content(2, 10_000));
    let first = world.special("2.0", &mine, &json!({"hardware": ["A1"]}))["firmware"].clone();
    let other = world.special("2.0", &others, &json!({"hardware": ["A2"]}))["firmware"].clone();
    let campaign = world.campaign(&json!({"name": "c", "firmware": first, "devices": ["one"]}));
    let offer = one.offer()["offer"].clone();
    assert_eq!(offer["offer"], first);
    assert_eq!(one.say("ota/get", &json!({"offer": other, "size": 256, "offset": 0, "count": 1})), 0x99);
    one.say("ota/progress", &json!({"offer": other, "state": "downloading", "percent": 5}));
    assert_eq!(world.state(campaign, "one")["state"], "offered");
    assert_eq!(world.counted_by("ota_faults_total", "no_offer"), 2);

    one.say("ota/progress", &json!({"offer": first, "state": "downloading", "percent": 37}));
    // A patch that comes meanwhile is for others.
    let patch = json!({"hardware": ["A1"], "base": "1.0"});
    let patch = world.special("2.0", "a patch", &patch)["firmware"].clone();
    assert_eq!(one.check_as("1.0", Some("A1"))["offer"]["offer"], first);
    assert_eq!(one.say("ota/get", &json!({"offer": patch, "size": 256, "offset": 0, "count": 1})), 0x99);
    one.say("ota/progress", &json!({"offer": first, "state": "failed", "reason": "space"}));
    assert_eq!(world.state(campaign, "one")["state"], "failed");

    let retried = world.http().post(&format!("/api/v1/campaigns/{campaign}/retry"), "", "");
    assert_eq!(retried.status, 200, "{retried:?}");
    let pushed = until("it is offered the patch", SOON, || {
        Some(one.check_as("1.0", Some("A1"))).filter(|answer| answer["offer"] != Value::Null)
    });
    assert_eq!(pushed["offer"]["offer"], patch);
    drop(one);
    // Also after a restart, and when another patch has come.
    world.again();
    let mut one = world.device("one");
    assert_eq!(one.check_as("1.0", Some("A1"))["offer"]["offer"], patch);
    assert_eq!(one.say("ota/get", &json!({"offer": patch, "size": 256, "offset": 0, "count": 1})), 0);
}

#[test]
fn a_patch_or_an_upload_that_has_only_begun_makes_no_device_unsuitable() {
    let world = world();
    let mut one = world.device("one");
    one.check("3.0");
    world.special("3.0", "three", &json!({"release": 1}));
    let whole = world.special("3.1", "three and one", &json!({"release": 2}))["firmware"].clone();
    let patch = world.special("3.1", "and one", &json!({"base": "3.0"}));
    assert_eq!(patch["release"], 2, "as its whole firmware");
    let other = json!({
        "target": "mcu", "version": "3.1", "base": "2.0", "release": 1, "any_hardware": true, "size": 5,
    });
    is(&world.http().post(&World::path("firmware"), "application/json", &other.to_string()), 409, "release_differs");
    let campaign = world.campaign(&json!({"name": "c", "firmware": whole, "devices": ["one"]}));
    let offer = one.offer()["offer"].clone();
    assert_eq!(offer["offer"], patch["firmware"]);
    one.progress(&offer, "applying");
    assert_eq!(one.check("3.1")["offer"], Value::Null);
    world.reaches(campaign, "completed");

    // Somebody has said 4.0, of a greater release, and never sent it; a device runs that.
    let begun = json!({"target": "mcu", "version": "4.0", "release": 9, "any_hardware": true, "size": 5});
    assert_eq!(world.http().post(&World::path("firmware"), "application/json", &begun.to_string()).status, 201);
    let next = world.special("3.2", "three and two", &json!({"release": 3}))["firmware"].clone();
    let mut two = world.device("two");
    two.check("4.0");
    world.campaign(&json!({"name": "c", "firmware": next, "devices": ["two"]}));
    assert_eq!(two.offer()["offer"]["version"], "3.2");

    // The product has no such part any more.
    let demands = json!({"targets": {"module": {"release_min": 0, "hardware": []}}});
    assert_eq!(world.http().put(&World::path("ota"), &demands.to_string()).status, 200);
    let wanted = json!({"name": "c", "firmware": next, "devices": ["three"]});
    let answer = world.begin(&wanted);
    is(&answer, 409, "unknown_target");
    until("it is on record", SOON, || {
        world.audited("campaign_create").into_iter().find(|record| record["cause"] == "unknown_target")
    });
    assert_eq!(world.counted_by("campaign_refused_total", "unknown_target"), 1);
}

/// Begins a download and reads its head.
fn begin(world: &World, url: &str) -> TcpStream {
    let mut stream = TcpStream::connect(world.broker.address("ota")).expect("it listens");
    stream.set_read_timeout(Some(SOON)).expect("a timeout");
    let path = &url[url.find("/ota/").expect("a path")..];
    write!(stream, "GET {path} HTTP/1.1\r\nhost: broker\r\n\r\n").expect("sent");
    let mut head = [0; 12];
    stream.read_exact(&mut head).expect("an answer");
    assert_eq!(&head, b"HTTP/1.1 200");
    stream
}

#[test]
fn a_device_has_few_downloads_and_they_end_with_the_campaign() {
    let world = world();
    let mut one = world.device("one");
    // More than fits into what the network holds.
    let file = content(1, 64 << 20);
    let firmware = world.firmware("2.0", &file);
    let campaign = world.campaign(&json!({"name": "c", "firmware": firmware, "devices": ["one"]}));
    let offer = one.offer()["offer"].clone();
    let url = offer["url"].as_str().expect("a link");
    let (mut first, second) = (begin(&world, url), begin(&world, url));
    let (status, head, body) = world.fetch(url, "");
    assert!(status == 429 && String::from_utf8_lossy(&body).contains("device_busy"), "{status} {head}");
    drop(second);
    until("a place is free", SOON, || (world.fetch(url, "range: bytes=0-9\r\n").0 == 206).then_some(()));
    let twice = format!("{url}&{}", &url[url.find("token=").expect("a token")..]);
    let (status, _, body) = world.fetch(&twice, "");
    assert!(status == 403 && String::from_utf8_lossy(&body).contains("token_missing"), "{status}");

    assert_eq!(world.http().post(&format!("/api/v1/campaigns/{campaign}/stop"), "", "").status, 200);
    let (mut got, mut chunk) = (0, vec![0; 1 << 20]);
    // An end, or an error: the device can't take it for whole.
    while let Ok(read @ 1..) = first.read(&mut chunk) {
        got += read;
    }
    assert!(got < file.len(), "it went on to the end");
    for code in ["device_busy", "token_missing", "campaign_stopped"] {
        assert!(world.counted_by("ota_denied_total", code) > 0, "{code}");
    }
}

#[test]
fn a_window_waits_for_the_zone_of_a_device() {
    let world = world();
    let firmware = world.firmware("2.0", "a firmware");
    let minute = now_s() / 60 % 1440;
    let time = |minute: u64| format!("{:02}:{:02}", minute % 1440 / 60, minute % 60);
    // Open by UTC, for an hour before and after.
    let window = format!("{}-{}", time(minute + 1380), time(minute + 60));
    let campaign = world.campaign(&json!({"name": "c", "firmware": firmware, "windows": [window]}));
    let mut one = world.device("one");
    let withheld =
        until("it is withheld", SOON, || Some(world.state(campaign, "one")).filter(|state| state["reason"] != 0));
    assert_eq!((&withheld["state"], &withheld["reason"]), (&json!("queued"), &json!(26)));
    one.say("ota/check", &json!({"id": 1, "versions": {"mcu": "1.0"}, "zone": "+06:00"}));
    assert_eq!(one.offer()["offer"], Value::Null, "it is night there");
    let mut two = world.device("two");
    two.say("ota/check", &json!({"id": 1, "versions": {"mcu": "1.0"}, "zone": "+00:00"}));
    // Somebody waits already: it is answered that there is nothing, and gets it in its turn.
    let offer = std::iter::repeat_with(|| two.offer()["offer"].clone()).take(2).find(|offer| *offer != Value::Null);
    assert_eq!(offer.expect("an offer")["version"], "2.0");
    assert_eq!(world.state(campaign, "one")["state"], "queued");
}

#[test]
fn what_a_full_disk_has_refused_does_no_harm() {
    let server = tempfile::tempdir().expect("a folder");
    let identity = Authority::new(server.path(), "servers").sign("server");
    let toml = "[ota]\naddress = \"127.0.0.1:0\"\n[audit]\nenabled = false\n";
    let broker = Setup::listeners(&["mqtt"], &identity).and_listener(toml).start();
    register(&broker);
    let mut world = World { broker, folder: server };
    let mut one = world.device("one");
    one.check("1.0");
    let (first, second) = (world.firmware("2.0", "a firmware"), world.firmware("2.1", "another"));
    let none = json!([]);
    let campaigns = |world: &World| world.http().get("/api/v1/campaigns").json()["campaigns"].clone();
    let wanted = |firmware: u64| json!({"name": "c", "firmware": firmware, "devices": ["one"]});
    let ask = |world: &World, firmware| world.begin(&wanted(firmware));
    let delete = |world: &World| world.http().delete(&World::path(&format!("firmware/{first}")));

    world.broker.set_file_bytes_max(0);
    is(&delete(&world), 503, "store_unavailable");
    // It may be deleted yet: nobody is judged by what there was before.
    is(&ask(&world, first), 503, "store_unavailable");
    world.broker.set_file_bytes_max(u64::MAX);
    until("it is deleted", SOON, || (delete(&world).status == 404).then_some(()));
    assert_eq!(campaigns(&world), none);

    world.broker.set_file_bytes_max(0);
    is(&ask(&world, second), 503, "store_unavailable");
    assert_eq!(campaigns(&world), none, "there never was one");
    world.broker.set_file_bytes_max(u64::MAX);
    until("changes are taken again", SOON, || {
        (world.http().put(&World::path("ota"), "{}").status == 200).then_some(())
    });
    one.client.quiet();
    world.again();
    assert_eq!(campaigns(&world), none);
    let campaign = world.campaign(&json!({"name": "c", "firmware": second, "devices": ["one"]}));
    assert_eq!(campaign, 2, "a number is never given again");
}
