//! Firmware out: uploads and what is wrong with them, campaigns in groups, downloads over HTTP and MQTT that break and go on.

mod held;
mod s3;
mod world;

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::TcpStream;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use turnpike_tests::broker::Setup;
use turnpike_tests::certificate::Authority;
use turnpike_tests::credential::{PRODUCT, SECRET, native};
use turnpike_tests::http::Http;
use turnpike_tests::https::Https;
use turnpike_tests::peers;
use turnpike_tests::time::{SOON, until};
use turnpike_tests::wire::{Publish, Version};

use crate::gate::register;

pub(crate) use world::*;

#[test]
fn a_canary_that_fails_stops_a_campaign_and_a_fixed_firmware_goes_through() {
    let world = world();
    let mut devices = ["one", "two", "three", "four"].map(|name| world.device(name));
    for device in &mut devices {
        assert_eq!(device.check("1.0")["offer"], Value::Null);
    }
    let (bad, good) = (content(1, 50_000), content(2, 300_000));
    let groups = json!([{"trial": ["one"], "errors": 1}, {"count": 1, "errors": 1}, {"rest": true}]);

    let first = world.firmware("2.0", &bad);
    let stopped = world.campaign(&json!({"name": "spring", "firmware": first, "groups": groups}));
    let [one, others @ ..] = &mut devices;
    let pushed = one.offer();
    let offer = &pushed["offer"];
    assert_eq!((&offer["version"], &offer["target"], &offer["size"]), (&json!("2.0"), &json!("mcu"), &json!(50_000)));
    let link = offer["url"].as_str().expect("a link").to_owned();
    let (status, _, body) = world.fetch(&link, "");
    assert!(status == 200 && body == bad.as_bytes());
    one.progress(offer, "applying");
    assert_eq!(world.state(stopped, "one")["state"], "applying");
    // It comes back with what it had.
    let answer = one.check("1.0");
    assert_eq!((&answer["offer"], &answer["failed"]["offer"]), (&Value::Null, &json!(first)), "{answer}");
    let shown = world.reaches(stopped, "stopped");
    assert_eq!((&shown["why"], &shown["failed_group"]), (&json!("errors"), &json!(1)));
    assert_eq!(world.state(stopped, "one")["state"], "failed");
    for other in others.iter() {
        assert_eq!(world.state(stopped, other.name)["state"], "cancelled");
    }
    let (status, _, body) = world.fetch(&link, "");
    assert_eq!((status, String::from_utf8_lossy(&body).contains("campaign_stopped")), (403, true));
    let refused = world.http().post(&format!("/api/v1/campaigns/{stopped}/resume"), "", "");
    is(&refused, 409, "campaign_state");

    let second = world.firmware("2.1", &good);
    let fixed = world.campaign(&json!({"name": "fixed", "firmware": second, "groups": groups}));
    let pushed = one.offer();
    assert_eq!(pushed["offer"]["version"], "2.1");
    one.update(&world, &pushed["offer"], &good);
    // The second group has one, by the hash of its name.
    let next = until("the second group begins", SOON, || {
        others.iter().position(|other| world.state(fixed, other.name)["state"] == "offered")
    });
    let waiting = others.iter().filter(|other| world.state(fixed, other.name)["state"] == "queued").count();
    assert_eq!(waiting, 2);
    let pushed = others[next].offer();
    others[next].update(&world, &pushed["offer"], &good);
    for (at, other) in others.iter_mut().enumerate() {
        if at != next {
            let pushed = other.offer();
            other.update(&world, &pushed["offer"], &good);
        }
    }
    let shown = world.reaches(fixed, "completed");
    let succeeded: Vec<_> =
        shown["groups"].as_array().expect("a list").iter().map(|group| &group["counts"]["succeeded"]).collect();
    assert_eq!(succeeded, [&json!(1), &json!(1), &json!(2)]);
    for action in ["firmware_create", "firmware_finish", "campaign_create"] {
        assert!(world.audited(action).len() >= 2, "{action}");
    }
    // Of what is over nothing needs to be kept.
    let path = |rest: String| World::path(&rest);
    is(&world.http().delete(&path(format!("firmware/{first}"))), 409, "in_use");
    assert_eq!(world.http().delete(&format!("/api/v1/campaigns/{stopped}")).status, 204);
    assert_eq!(world.http().delete(&path(format!("firmware/{first}"))).status, 204);
    assert_eq!(world.http().get(&format!("/api/v1/campaigns/{stopped}")).status, 404);
    assert_eq!(world.audited("campaign_stop")[0]["detail"]["how"], "errors");
}

#[test]
fn an_offer_waits_until_a_device_says_what_hardware_it_has() {
    let world = world();
    let text = content(3, 1_000);
    let body =
        json!({"target": "mcu", "version": "2.0", "hardware": ["A1"], "size": text.len(), "sha256": sha256(&text)});
    let made = world.http().post(&World::path("firmware"), "application/json", &body.to_string()).json();
    let firmware = made["firmware"].as_u64().expect("a number");
    assert_eq!(world.put(made["upload"].as_str().expect("a path"), 0, &text).status, 200);
    assert_eq!(world.finish(firmware, &json!({})).status, 200);
    let campaign = world.campaign(&json!({"name": "spring", "firmware": firmware, "groups": [{"rest": true}]}));
    // They come before they can say anything.
    let [mut one, mut two] = ["one", "two"].map(|name| world.device(name));
    for name in ["one", "two"] {
        let state = until("it is withheld", SOON, || {
            Some(world.state(campaign, name)).filter(|state| state["reason"] != Value::Null && state["reason"] != 0)
        });
        assert_eq!(state["state"], "queued", "{state}");
    }
    let answer = one.check_as("1.0", Some("A1"));
    assert_eq!(answer["offer"]["version"], "2.0", "{answer}");
    one.progress(&answer["offer"], "applying");
    assert_eq!(one.check_as("2.0", Some("A1"))["offer"], Value::Null);
    // The wrong one never gets it.
    assert_eq!(two.check_as("1.0", Some("B7"))["offer"], Value::Null);
    assert_eq!(world.state(campaign, "two")["state"], "rejected");
    let states = ["one", "three", "four"].map(|name| world.state(campaign, name)["state"].clone());
    assert_eq!(states, ["succeeded", "queued", "queued"]);
}

#[test]
fn a_download_that_breaks_goes_on_by_range() {
    let world = world();
    let mut one = world.device("one");
    let file = content(3, 3_000_000);
    let firmware = world.firmware("3.0", &file);
    world.campaign(&json!({"name": "c", "firmware": firmware, "devices": ["one"]}));
    let offer = one.offer()["offer"].clone();
    let url = offer["url"].as_str().expect("a link");

    let break_at = file.len() * 37 / 100;
    let mut stream = TcpStream::connect(world.broker.address("ota")).expect("it listens");
    stream.set_read_timeout(Some(SOON)).expect("a timeout");
    let path = &url[url.find("/ota/").expect("a path")..];
    write!(stream, "GET {path} HTTP/1.1\r\nhost: broker\r\n\r\n").expect("sent");
    let mut got = Vec::new();
    let mut chunk = [0; 8192];
    let begin = loop {
        let read = stream.read(&mut chunk).expect("bytes");
        got.extend_from_slice(&chunk[..read]);
        if let Some(end) = got.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
    };
    while got.len() - begin < break_at {
        let read = stream.read(&mut chunk).expect("bytes");
        got.extend_from_slice(&chunk[..read]);
    }
    drop(stream);
    let head = String::from_utf8_lossy(&got[..begin]).to_ascii_lowercase();
    let etag = head.lines().find_map(|line| line.strip_prefix("etag: ")).expect("a tag").to_owned();
    assert_eq!(etag, format!("\"{}\"", sha256(&file)));
    let mut whole = got[begin..begin + break_at].to_vec();

    let (status, head, rest) = world.fetch(url, &format!("range: bytes={break_at}-\r\nif-range: {etag}\r\n"));
    assert_eq!(status, 206);
    assert!(head.contains(&format!("content-range: bytes {break_at}-{}/{}", file.len() - 1, file.len())), "{head}");
    whole.extend(rest);
    assert!(whole == file.as_bytes() && sha256(&whole) == offer["sha256"]);

    let (status, _, all) = world.fetch(url, "range: bytes=5-\r\nif-range: \"another\"\r\n");
    assert!(status == 200 && all == file.as_bytes());
    let (status, head, _) = world.fetch(url, "range: bytes=3000000-\r\n");
    assert!(status == 416 && head.contains("content-range: bytes */3000000"), "{head}");
    assert_eq!(world.fetch(url, &format!("if-none-match: {etag}\r\n")).0, 304);
    let address = world.broker.address("ota");
    let head = Http { address, token: None }.request("HEAD", path, "", "");
    assert!(head.status == 200 && head.head.contains("content-length: 3000000") && head.body.is_empty());

    let token = &url[url.find("token=").expect("a token")..];
    let other = world.firmware("3.1", "another");
    for (link, code) in [
        (format!("/ota/v1/{firmware}"), "token_missing"),
        (format!("/ota/v1/{firmware}?token=AAAA"), "token_invalid"),
        (format!("/ota/v1/{other}?{token}"), "token_invalid"),
    ] {
        let (status, _, body) = world.fetch(&link, "");
        assert_eq!((status, String::from_utf8_lossy(&body).contains(code)), (403, true), "{link}");
    }
    let withdrawn = world.http().post(&World::path(&format!("firmware/{firmware}/withdraw")), "", "");
    assert_eq!(withdrawn.json()["state"], "withdrawn");
    assert_eq!(world.fetch(url, "").0, 403);
    is(&world.http().delete(&World::path(&format!("firmware/{firmware}"))), 409, "in_use");
    assert_eq!(world.http().delete(&World::path(&format!("firmware/{other}"))).status, 204);
}

/// Blocks that have come, each whole.
struct Blocks {
    size: usize,
    file: Vec<Option<Vec<u8>>>,
}

impl Blocks {
    #[track_caller]
    fn take(&mut self, offer: u64, heard: &Publish) {
        let (header, bytes) = heard.payload.split_at(16);
        let field = |at: usize| u32::from_be_bytes(header[at * 4..at * 4 + 4].try_into().expect("four"));
        assert_eq!((u64::from(field(0)), field(2) as usize, field(3)), (offer, bytes.len(), crc32(bytes)));
        self.file[field(1) as usize / self.size] = Some(bytes.to_vec());
    }

    fn missing(&self) -> usize {
        self.file.iter().filter(|block| block.is_none()).count()
    }

    /// A bitmap from a block on, of at most so many blocks.
    fn bitmap(&self, from: usize, most: usize) -> String {
        let mut bits = vec![0_u8; most.div_ceil(8)];
        let range = self.file.iter().skip(from).take(most).enumerate();
        range.filter(|(_, block)| block.is_none()).for_each(|(at, _)| bits[at / 8] |= 0x80 >> (at % 8));
        STANDARD.encode(bits)
    }
}

#[test]
fn a_download_over_mqtt_survives_the_broker() {
    const SIZE: usize = 4096;
    let mut world = world();
    let mut one = world.device("one");
    one.check("1.0");
    let file = content(4, 600_001);
    let firmware = world.firmware("4.0", &file);
    let campaign = world.campaign(&json!({"name": "c", "firmware": firmware, "devices": ["one"]}));
    let offer = one.offer()["offer"].clone();
    assert_eq!((&offer["offer"], &offer["mqtt"]["max"]), (&json!(firmware), &json!(131_072)));
    let mut blocks = Blocks { size: SIZE, file: vec![None; file.len().div_ceil(SIZE)] };

    one.progress(&offer, "accepted");
    one.progress(&offer, "downloading");
    for first in [0, 40] {
        let ask = json!({"offer": firmware, "size": SIZE, "offset": first * SIZE, "count": 16});
        assert_eq!(one.say("ota/get", &ask), 0);
        for _ in 0..16 {
            let heard = one.hear();
            blocks.take(firmware, &heard);
        }
    }
    let refused = one.say("ota/get", &json!({"offer": firmware, "size": 100, "offset": 0, "count": 1}));
    assert_eq!(refused, 0x99, "payload format invalid");
    let refused = one.say("ota/get", &json!({"offer": 77, "size": SIZE, "offset": 0, "count": 1}));
    assert_eq!(refused, 0x99, "no such offer");

    // In the midst of a request.
    let topic = one.topic("ota/get");
    let ask = json!({"offer": firmware, "size": SIZE, "offset": 100 * SIZE, "count": 40});
    one.client.send(&Publish::new(&topic, ask.to_string()).qos(1, 900).encode(Version::V5));
    world.broker.kill();
    world.broker.restart();
    let mut one = world.device("one");
    assert_eq!(world.state(campaign, "one")["state"], "downloading");
    let again = one.check("1.0")["offer"].clone();
    assert_eq!((&again["offer"], &again["sha256"]), (&offer["offer"], &offer["sha256"]));
    while blocks.missing() > 0 {
        let from = blocks.file.iter().position(Option::is_none).expect("one is missing");
        let before = blocks.missing();
        let ask = json!({"offer": firmware, "size": SIZE, "from": from, "missing": blocks.bitmap(from, 64)});
        assert_eq!(one.say("ota/get", &ask), 0);
        let expected = blocks.file.iter().skip(from).take(64).filter(|block| block.is_none()).count();
        for _ in 0..expected {
            let heard = one.hear();
            if heard.topic == one.topic("ota/block") {
                blocks.take(firmware, &heard);
            }
        }
        assert!(blocks.missing() < before);
    }
    let whole: Vec<u8> = blocks.file.into_iter().flatten().flatten().collect();
    assert!(whole == file.as_bytes() && sha256(&whole) == again["sha256"]);
    one.progress(&again, "applying");
    one.heard.clear();
    assert_eq!(one.check("4.0")["offer"], Value::Null);
    world.reaches(campaign, "completed");
    // What is over stays over, also after a restart.
    world.broker.restart();
    assert_eq!(world.show(campaign)["state"], "completed");
    assert_eq!(world.state(campaign, "one")["state"], "succeeded");
}

#[test]
fn each_fault_of_an_upload_is_told_apart_and_what_came_stays() {
    let world = world();
    let file = content(5, 2_500_000);
    let (firmware, upload) = world.create("1.0", &file);
    is(&world.put(&upload, 5, &file[5..10]), 409, "upload_gap");
    assert_eq!(world.put(&upload, 0, &file[..1_200_000]).json()["uploaded"], 1_200_000);
    is(&world.put(&upload, 0, &file[..10]), 409, "upload_overlap");
    is(&world.put(&upload, 1_200_000, &format!("{file}x")), 413, "upload_beyond");
    is(&world.finish(firmware, &json!({})), 409, "upload_incomplete");
    is(
        &world.http().post(
            "/api/v1/campaigns",
            "application/json",
            &json!({"name": "c", "firmware": firmware}).to_string(),
        ),
        409,
        "firmware_not_ready",
    );

    // An upload that breaks off keeps what came, and a broker that is killed does, too.
    let mut world = world;
    let mut stream = TcpStream::connect(world.http().address).expect("it listens");
    let (token, rest) = (world.http().token.expect("a token"), &file[1_200_000..]);
    let head = format!(
        "PUT {upload} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nupload-offset: 1200000\r\ncontent-length: {}\r\n\r\n",
        rest.len()
    );
    stream.write_all(head.as_bytes()).expect("sent");
    stream.write_all(&rest.as_bytes()[..500_000]).expect("sent");
    drop(stream);
    let shown = World::path(&format!("firmware/{firmware}"));
    let uploaded = |world: &World| world.http().get(&shown).json()["uploaded"].as_u64();
    let have = until("what came is kept", SOON, || uploaded(&world).filter(|have| *have > 1_200_000));
    world.broker.kill();
    world.broker.restart();
    let have = usize::try_from(uploaded(&world).filter(|now| *now == have).expect("it is as it was")).expect("small");
    assert_eq!(world.put(&upload, have, &file[have..]).json()["uploaded"], file.len());
    let done = world.finish(firmware, &json!({})).json();
    assert_eq!((&done["state"], &done["sha256"]), (&json!("ready"), &json!(sha256(&file))));
    is(&world.put(&upload, 0, &file), 409, "not_uploading");

    let (wrong, upload) = world.create("2.0", "as it should be");
    assert_eq!(world.put(&upload, 0, "as it should bE").status, 200);
    is(&world.finish(wrong, &json!({})), 422, "wrong_sha256");
    let refused = world.http().get(&World::path(&format!("firmware/{wrong}"))).json();
    assert_eq!(refused["state"], "refused");
    assert_eq!(world.firmware("2.0", "as it should be"), wrong + 1, "its version may come again");

    for (body, status, code) in [
        (json!({"target": "mcu", "version": "2.0", "any_hardware": true, "size": 5}), 409, "version_exists"),
        (json!({"target": "radio", "version": "9", "any_hardware": true, "size": 5}), 409, "unknown_target"),
        (json!({"version": "9", "any_hardware": true, "size": 0}), 400, "empty"),
        (json!({"version": "9", "any_hardware": true, "size": 5_000_000_000_u64}), 413, "too_large"),
        (json!({"version": "9", "size": 5}), 400, "invalid"),
        (json!({"version": "9", "base": "9", "any_hardware": true, "size": 5}), 400, "base_is_version"),
    ] {
        is(&world.http().post(&World::path("firmware"), "application/json", &body.to_string()), status, code);
    }
    for (body, status, code) in [
        (json!({"name": "c", "firmware": 999}), 404, "no_such_firmware"),
        (json!({"name": "", "firmware": firmware}), 400, "invalid"),
        (json!({"name": "c", "firmware": firmware, "devices": ["nobody"]}), 409, "no_devices"),
        (
            json!({"name": "c", "firmware": firmware, "groups": [{"trial": ["nobody"]}, {"rest": true}]}),
            409,
            "trial_absent",
        ),
    ] {
        is(&world.begin(&body), status, code);
    }
    let signed = world.http().put(&World::path("ota"), &json!({"signature_required": true}).to_string());
    is(&signed, 400, "invalid");
}

#[test]
fn devices_of_aliyun_are_answered_as_their_sdk_expects() {
    let world = world();
    let mut one = Device { client: world.client("one"), name: "one", id: 0, heard: VecDeque::new() };
    let [inform, upgrade, progress] =
        ["inform", "upgrade", "progress"].map(|word| format!("/ota/device/{word}/{PRODUCT}/one"));
    let [get, reply] = ["get", "get_reply"].map(|word| format!("/sys/{PRODUCT}/one/thing/ota/firmware/{word}"));
    assert_eq!(one.client.subscribe(&[(&upgrade, 1), (&reply, 1)]), [1, 1]);
    one.publish(&inform, json!({"id": "1", "params": {"version": "1.0", "module": "mcu"}}).to_string());
    one.publish(
        &get,
        json!({"id": "2", "version": "1.0", "params": {"module": "mcu"}, "method": "thing.ota.firmware.get"})
            .to_string(),
    );
    let nothing = one.hear();
    let answer: Value = serde_json::from_slice(&nothing.payload).expect("JSON");
    assert_eq!((nothing.topic.as_str(), &answer["code"], &answer["data"]), (reply.as_str(), &json!(200), &json!({})));

    let file = content(6, 10_000);
    let firmware = world.firmware("2.0", &file);
    let campaign = world.campaign(&json!({"name": "c", "firmware": firmware, "devices": ["one"]}));
    let pushed = one.hear();
    let told: Value = serde_json::from_slice(&pushed.payload).expect("JSON");
    assert_eq!(
        (pushed.topic.as_str(), &told["code"], &told["data"]["signMethod"]),
        (upgrade.as_str(), &json!("1000"), &json!("Md5"))
    );
    one.publish(
        &get,
        json!({"id": "3", "version": "1.0", "params": {"module": "mcu"}, "method": "thing.ota.firmware.get"})
            .to_string(),
    );
    let answer: Value = serde_json::from_slice(&one.hear().payload).expect("JSON");
    assert_eq!(
        (&answer["id"], &answer["data"]["size"], &answer["data"]["version"]),
        (&json!("3"), &json!(10_000), &json!("2.0"))
    );
    let (status, _, body) = world.fetch(answer["data"]["url"].as_str().expect("a link"), "");
    assert!(status == 200 && body == file.as_bytes());
    for step in ["50", "100"] {
        one.publish(&progress, json!({"id": "4", "params": {"step": step, "desc": "", "module": "mcu"}}).to_string());
    }
    assert_eq!(world.state(campaign, "one")["state"], "downloaded");
    one.publish(&inform, json!({"id": "5", "params": {"version": "2.0", "module": "mcu"}}).to_string());
    world.reaches(campaign, "completed");
}

#[test]
fn paho_mqtt_takes_firmware_over_https_and_mqtt() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new(folder.path(), "servers");
    let server = authority.sign("server");
    let toml = format!(
        "[ota]\naddress = \"127.0.0.1:0\"\n[[ota.tls.certificates]]\nchain_file = {:?}\nkey_file = {:?}\n",
        server.certificate, server.key
    );
    let broker = Setup::listeners(&["mqtt"], &server).and_listener(&toml).start();
    register(&broker);
    let (ca, taken) = (authority.certificate.clone(), folder.path().join("taken"));
    let world = World { broker, folder };
    let file = content(7, 700_003);
    let firmware = world.firmware("2.0", &file);
    // One after the other, the second once the first has succeeded.
    let groups = json!([{"trial": ["one"]}, {"rest": true}]);
    let campaign = world.campaign(&json!({"name": "paho", "firmware": firmware, "groups": groups}));
    for (way, device) in [("https", "one"), ("mqtt", "two")] {
        let credential = native(device, device, SECRET);
        let mut command = peers::python("ota_device.py");
        let address = world.broker.mqtt();
        command.args([way, &address.ip().to_string(), &address.port().to_string(), PRODUCT, device]);
        command.args([&credential.client_id, &credential.password]).arg(&ca).arg("1.0").arg(&taken);
        assert_eq!(peers::run(command).trim(), "ok", "{way}");
        assert!(std::fs::read(&taken).expect("a file") == file.as_bytes(), "{way}");
        assert_eq!(world.state(campaign, device)["state"], "succeeded");
        std::fs::remove_file(&taken).expect("removed");
    }
    world.reaches(campaign, "completed");
}

#[test]
fn a_reload_takes_new_certificates_for_downloads() {
    let folders = [tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder")];
    let authorities = folders.each_ref().map(|folder| Authority::new(folder.path(), "servers"));
    let [before, after] = authorities.each_ref().map(|authority| authority.sign("server"));
    let toml = format!(
        "[ota]\naddress = \"127.0.0.1:0\"\n[[ota.tls.certificates]]\nchain_file = {:?}\nkey_file = {:?}\n",
        before.certificate, before.key
    );
    let broker = Setup::listeners(&["mqtt"], &before).and_listener(&toml).start();
    let address = broker.address("ota");
    let [old, new] = authorities.each_ref().map(|authority| authority.certificate.clone());
    // A client for each time: one that has been here resumes its session and looks at no certificate.
    let trusts = |authority: &std::path::Path| {
        let client = Https::new(address, authority, None);
        client.request("GET", "/ota/v1/1", "text/plain", "").map(|answer| answer.status)
    };
    let reload = |line: &str| {
        let times = || broker.log().matches(line).count();
        let so_far = times();
        broker.signal(libc::SIGHUP);
        until(line, SOON, || (times() > so_far).then_some(()));
    };
    assert_eq!((trusts(&old), trusts(&new)), (Some(403), None));
    std::fs::write(&before.key, "no key").expect("written");
    reload("not reloaded: ");
    assert_eq!((trusts(&old), trusts(&new)), (Some(403), None), "all stays as it is");
    for (from, to) in [(&after.certificate, &before.certificate), (&after.key, &before.key)] {
        std::fs::copy(from, to).expect("copied");
    }
    reload(" reloaded");
    assert!(!broker.log().contains("needs a restart"));
    assert_eq!((trusts(&old), trusts(&new)), (None, Some(403)));
}
