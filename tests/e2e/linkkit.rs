//! The `aliyun-iot-linkkit` SDK as it comes from PyPI: nothing of it is patched, its own settings name the broker.

use std::path::Path;

use serde_json::json;
use turnpike_tests::broker::{Broker, Setup};
use turnpike_tests::certificate::Authority;
use turnpike_tests::client::Client;
use turnpike_tests::credential::{self, PRODUCT, SECRET};
use turnpike_tests::peers::{self, Peer, arg};
use turnpike_tests::time::{SOON, until};
use turnpike_tests::wire::{Connect, Publish, Version};

use crate::gate::{register, registered};
use crate::ota::{World, content};

/// The device's program.
fn sdk(port: u16, device: &str, secret: &str, authority: Option<&Path>) -> Peer {
    let mut command = peers::python_with_linkkit("linkkit_tour.py");
    command.args([&port.to_string(), PRODUCT, device, secret]).args(authority.map(arg));
    Peer::start(command)
}

/// A second session of the device, which speaks for the platform: of these topics a device may both publish and read.
fn platform(broker: &Broker, filters: &[&str]) -> Client {
    let login = credential::native("platform", "one", SECRET);
    let mut platform =
        broker.client(&Connect::new(Version::V311, &login.client_id).login(&login.user, &login.password));
    for filter in filters {
        assert_eq!(platform.subscribe(&[(filter, 1)]), [1], "{filter}");
    }
    platform
}

fn sys(rest: &str) -> String {
    format!("/sys/{PRODUCT}/one/thing/{rest}")
}

fn user(rest: &str) -> String {
    format!("/{PRODUCT}/one/user/{rest}")
}

/// What came, and on which topic.
#[track_caller]
fn heard(platform: &mut Client, topic: &str) -> serde_json::Value {
    let publish = platform.take();
    assert_eq!(publish.topic, topic);
    serde_json::from_slice(&publish.payload).expect("JSON")
}

/// At QoS 0, since the device's answer may come before an acknowledgement.
fn tell(platform: &mut Client, topic: &str, payload: &serde_json::Value) {
    platform.send(&Publish::new(topic, payload.to_string()).encode(Version::V311));
}

#[track_caller]
fn connected(device: &mut Peer) {
    device.expect("connected 0 0");
    device.expect("enabled");
}

#[track_caller]
fn subscribe(device: &mut Peer, topic: &str) {
    device.say(&format!("subscribe {topic}"));
    device.expect("subscribed 1");
}

/// Properties, services, firmware and topics of one's own, both ways.
fn tour(broker: &Broker, device: &mut Peer) {
    connected(device);
    let (post, own) = (sys("event/property/post"), user("update"));
    let (set_reply, blink_reply) = (sys("service/property/set_reply"), sys("service/blink_reply"));
    let firmware = sys("ota/firmware/get");
    let mut platform = platform(broker, &[&post, &own, &set_reply, &blink_reply, &firmware]);

    for name in ["event/property/post_reply", "service/property/set", "service/blink", "ota/firmware/get_reply"] {
        subscribe(device, &sys(name));
    }
    subscribe(device, &format!("/ota/device/upgrade/{PRODUCT}/one"));
    subscribe(device, &user("get"));

    device.say(&format!(r#"publish {own} {{"n": 1}}"#));
    device.expect("published");
    assert_eq!(heard(&mut platform, &own), json!({ "n": 1 }));
    platform.publish(&Publish::new(&user("get"), "down").qos(1, 1));
    device.expect(&format!("message {} 1 down", user("get")));

    device.say(r#"post {"power": 1}"#);
    let posted = heard(&mut platform, &post);
    assert_eq!((&posted["method"], &posted["params"]), (&json!("thing.event.property.post"), &json!({ "power": 1 })));
    let reply = json!({ "id": posted["id"], "code": 200, "data": {}, "message": "success" });
    tell(&mut platform, &sys("event/property/post_reply"), &reply);
    device.expect("posted 200 success");

    tell(&mut platform, &sys("service/property/set"), &json!({ "id": "7", "params": { "power": 0 } }));
    device.expect(r#"set {"power": 0}"#);
    assert_eq!(heard(&mut platform, &set_reply)["id"], "7");
    tell(&mut platform, &sys("service/blink"), &json!({ "id": "8", "params": {} }));
    device.expect("called blink 8 {}");
    device.say("answer blink 8");
    assert_eq!(heard(&mut platform, &blink_reply)["code"], 200);

    for command in ["version 1.0", "firmware"] {
        device.say(command);
        device.expect("published");
    }
    heard(&mut platform, &firmware);
    let (url, sign) = ("https://localhost/firmware", "00");
    let data = json!({ "url": url, "version": "1.1", "size": "1", "signMethod": "Md5", "sign": sign });
    tell(&mut platform, &sys("ota/firmware/get_reply"), &json!({ "id": "9", "code": "1000", "data": data }));
    device.expect(&format!("upgrade 2 1.1 {url}"));
}

/// It leaves and comes back, and is thrown out and comes back by itself.
fn comes_back(broker: &Broker, device: &mut Peer) {
    device.say("reconnect");
    device.expect("disconnected 0");
    connected(device);
    subscribe(device, &user("get"));
    let path = format!("/api/v1/products/{PRODUCT}/devices/one");
    for action in ["disable", "enable"] {
        assert_eq!(broker.http().post(&format!("{path}/{action}"), "application/json", "").status, 200, "{action}");
    }
    assert!(device.line().starts_with("disconnected "));
    connected(device);
    subscribe(device, &user("get"));
    tell(&mut platform(broker, &[]), &user("get"), &json!({ "n": 3 }));
    device.expect(&format!(r#"message {} 0 {{"n":3}}"#, user("get")));
    device.say("leave");
    device.expect("disconnected 0");
    device.finish();
}

#[test]
fn the_sdk_over_tcp() {
    let broker = registered();
    let mut device = sdk(broker.mqtt().port(), "one", SECRET, None);
    tour(&broker, &mut device);
    comes_back(&broker, &mut device);
}

#[test]
fn the_sdk_over_tls() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new(folder.path(), "test");
    let broker = Setup::listeners(&["mqtt", "mqtts"], &authority.sign("broker")).start();
    register(&broker);
    let mut device = sdk(broker.address("mqtts").port(), "one", SECRET, Some(&authority.certificate));
    tour(&broker, &mut device);
    comes_back(&broker, &mut device);
}

/// Firmware from the report of the old version to that of the new one, pushed to one who is there and answered to one who asks.
fn takes_firmware(world: &World, port: u16, folder: &Path, authority: Option<&Path>) {
    let taken = folder.join("taken");
    let mut command = peers::python_with_linkkit("linkkit_ota.py");
    command.args([&port.to_string(), PRODUCT, "one", SECRET, &arg(&taken)]).args(authority.map(arg));
    let mut device = Peer::start(command);
    device.expect("connected 0");
    device.say("report mcu 1.0");
    until("its version is known", SOON, || {
        let checks = world
            .http()
            .get("/metrics")
            .body
            .lines()
            .find_map(|line| line.strip_prefix("turnpike_ota_total{what=\"checks\"} ").map(str::to_owned));
        checks.filter(|checks| checks != "0")
    });
    let file = content(8, 400_001);
    let firmware = world.firmware("2.0", &file);
    // By its version: the report was understood.
    let campaign = world.campaign(&json!({"name": "linkkit", "firmware": firmware, "versions": ["1.0"]}));
    device.expect("told 1 2.0 400001 Md5 mcu");
    device.say("query mcu");
    device.expect("told 2 2.0 400001 Md5 mcu");
    device.say("download");
    device.expect("downloaded SUCCESS");
    assert!(std::fs::read(&taken).expect("a file") == file.as_bytes());
    for (percent, state) in [("40", "downloading"), ("100", "downloaded")] {
        device.say(&format!("step mcu {percent}"));
        until(state, SOON, || Some(()).filter(|()| world.state(campaign, "one")["state"] == state));
    }
    device.say("report mcu 2.0");
    let shown = world.reaches(campaign, "completed");
    assert_eq!(shown["groups"][0]["counts"]["succeeded"], 1, "{shown}");
    device.say("leave");
    device.finish();
}

#[test]
fn the_sdk_takes_firmware_over_http() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Authority::new(folder.path(), "test").sign("broker");
    let broker = Setup::listeners(&["mqtt"], &server).and_listener("[ota]\naddress = \"127.0.0.1:0\"\n").start();
    register(&broker);
    let world = World { broker, folder };
    takes_firmware(&world, world.broker.mqtt().port(), world.folder.path(), None);
}

#[test]
fn the_sdk_takes_firmware_over_https() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new(folder.path(), "test");
    let server = authority.sign("broker");
    let toml = format!(
        "[ota]\naddress = \"127.0.0.1:0\"\n[[ota.tls.certificates]]\nchain_file = {:?}\nkey_file = {:?}\n",
        server.certificate, server.key
    );
    let broker = Setup::listeners(&["mqtt", "mqtts"], &server).and_listener(&toml).start();
    register(&broker);
    let world = World { broker, folder };
    let port = world.broker.address("mqtts").port();
    takes_firmware(&world, port, world.folder.path(), Some(&authority.certificate));
}

#[test]
fn the_sdk_with_another_secret_stays_out() {
    let broker = registered();
    // What it says is nothing: the SDK tries again and tells its user of what succeeds alone.
    let _device = sdk(broker.mqtt().port(), "one", "1123456789abcdef0123456789abcdef", None);
    until("it is refused", SOON, || {
        let records = broker.http().get("/api/v1/audit?action=log_in").json();
        let last = records["records"].as_array().expect("a list").first().cloned()?;
        assert_eq!((&last["result"], &last["cause"]), (&json!("refused"), &json!("wrong_signature")));
        Some(())
    });
}
