//! What the tests of firmware share: a broker that devices download from, and a device.

use std::collections::VecDeque;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use turnpike_tests::broker::{Broker, Setup};
use turnpike_tests::certificate::Authority;
use turnpike_tests::client::Client;
use turnpike_tests::credential::{PRODUCT, SECRET, native};
use turnpike_tests::http::{Answer, Http};
use turnpike_tests::time::{SOON, until};
use turnpike_tests::wire::{Connect, Packet, Publish, Version};

use crate::gate::register;

/// A broker that devices download from.
pub(crate) struct World {
    pub(crate) broker: Broker,
    pub(crate) folder: TempDir,
}

pub(crate) fn world() -> World {
    world_with("[ota]\naddress = \"127.0.0.1:0\"\n")
}

/// `section` opens the address for downloads.
pub(crate) fn world_with(section: &str) -> World {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Authority::new(folder.path(), "servers").sign("server");
    let setup = Setup::listeners(&["mqtt"], &server).and_listener(section);
    let broker = setup.start();
    register(&broker);
    for device in ["three", "four"] {
        let path = format!("/api/v1/products/{PRODUCT}/devices/{device}");
        let answer = broker.http().put(&path, &format!(r#"{{"secret": "{SECRET}"}}"#));
        assert_eq!(answer.status, 201, "{answer:?}");
    }
    World { broker, folder }
}

/// A file that is a text, so that it can be sent as one; no two parts of it are the same.
pub(crate) fn content(seed: u32, bytes: usize) -> String {
    let lines = (0..).map(|line: u32| format!("{seed:08x} {line:08x}\n"));
    let mut text = String::with_capacity(bytes + 18);
    lines.take_while(|_| true).find(|line| {
        text.push_str(line);
        text.len() >= bytes
    });
    text.truncate(bytes);
    text
}

pub(crate) fn sha256(bytes: impl AsRef<[u8]>) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// ISO-HDLC, a bit at a time.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 })
    })
}

#[track_caller]
pub(crate) fn is(answer: &Answer, status: u16, code: &str) {
    let said = answer.body.parse::<Value>().map(|body| body["error"]["code"].clone()).unwrap_or_default();
    assert_eq!((answer.status, said.as_str().unwrap_or_default()), (status, code), "{answer:?}");
}

impl World {
    pub(crate) fn http(&self) -> Http {
        self.broker.http()
    }

    pub(crate) fn path(rest: &str) -> String {
        format!("/api/v1/products/{PRODUCT}/{rest}")
    }

    #[track_caller]
    pub(crate) fn create(&self, version: &str, content: &str) -> (u64, String) {
        let body = json!({
            "target": "mcu", "version": version, "any_hardware": true, "size": content.len(), "sha256": sha256(content),
        });
        let answer = self.http().post(&Self::path("firmware"), "application/json", &body.to_string());
        assert_eq!(answer.status, 201, "{answer:?}");
        let made = answer.json();
        (made["firmware"].as_u64().expect("a number"), made["upload"].as_str().expect("a path").to_owned())
    }

    pub(crate) fn put(&self, upload: &str, offset: usize, part: &str) -> Answer {
        self.http().request_with("PUT", upload, &format!("upload-offset: {offset}\r\n"), part)
    }

    pub(crate) fn finish(&self, firmware: u64, body: &Value) -> Answer {
        let path = Self::path(&format!("firmware/{firmware}/finish"));
        self.http().post(&path, "application/json", &body.to_string())
    }

    /// A firmware that is ready.
    #[track_caller]
    pub(crate) fn firmware(&self, version: &str, content: &str) -> u64 {
        let (firmware, upload) = self.create(version, content);
        let answer = self.put(&upload, 0, content);
        assert_eq!(answer.status, 200, "{answer:?}");
        let answer = self.finish(firmware, &json!({}));
        assert_eq!((answer.status, answer.json()["state"].as_str()), (200, Some("ready")), "{answer:?}");
        firmware
    }

    /// Asks for a campaign.
    pub(crate) fn begin(&self, settings: &Value) -> Answer {
        self.http().post("/api/v1/campaigns", "application/json", &settings.to_string())
    }

    #[track_caller]
    pub(crate) fn campaign(&self, settings: &Value) -> u64 {
        let answer = self.begin(settings);
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()["campaign"].as_u64().expect("a number")
    }

    pub(crate) fn show(&self, campaign: u64) -> Value {
        self.http().get(&format!("/api/v1/campaigns/{campaign}")).json()
    }

    #[track_caller]
    pub(crate) fn reaches(&self, campaign: u64, state: &str) -> Value {
        until(state, SOON, || Some(self.show(campaign)).filter(|shown| shown["state"] == state))
    }

    /// State of a device.
    pub(crate) fn state(&self, campaign: u64, device: &str) -> Value {
        let page = self.http().get(&format!("/api/v1/campaigns/{campaign}/devices")).json();
        let devices = page["devices"].as_array().expect("a list").clone();
        devices.into_iter().find(|shown| shown["device"] == device).expect("it is in the campaign")
    }

    pub(crate) fn device(&self, name: &'static str) -> Device {
        let mut device = Device { client: self.client(name), name, id: 0, heard: VecDeque::new() };
        device.listen();
        device
    }

    pub(crate) fn client(&self, name: &str) -> Client {
        let credential = native(name, name, SECRET);
        let connect = Connect::new(Version::V5, &credential.client_id).login(&credential.user, &credential.password);
        Client::connect(self.broker.mqtt(), &connect)
    }

    pub(crate) fn audited(&self, action: &str) -> Vec<Value> {
        let path = format!("/api/v1/audit?order=asc&limit=1000&action={action}");
        self.http().get(&path).json()["records"].as_array().expect("a list").clone()
    }

    /// Asks for a link that a device was offered, at the address where downloads are now.
    pub(crate) fn fetch(&self, url: &str, headers: &str) -> (u16, String, Vec<u8>) {
        let address = self.broker.address("ota");
        let path = &url[url.find("/ota/v1/").expect("a link")..];
        let http = Http { address, token: None };
        let answer = http.send("GET", path, headers, "");
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
        let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        (status, head, answer[end + 4..].to_vec())
    }
}

/// A device with what has come to it.
pub(crate) struct Device {
    pub(crate) client: Client,
    pub(crate) name: &'static str,
    pub(crate) id: u16,
    pub(crate) heard: VecDeque<Publish>,
}

impl Device {
    pub(crate) fn topic(&self, rest: &str) -> String {
        format!("dev/{PRODUCT}/{}/{rest}", self.name)
    }

    pub(crate) fn listen(&mut self) {
        let (offers, blocks) = (self.topic("ota/offer"), self.topic("ota/block"));
        assert_eq!(self.client.subscribe(&[(&offers, 1), (&blocks, 0)]), [1, 0]);
    }

    /// Publishes, and waits for the acknowledgement; its code.
    #[track_caller]
    pub(crate) fn publish(&mut self, topic: &str, payload: impl AsRef<[u8]>) -> u8 {
        self.id += 1;
        self.client.publish_past(&Publish::new(topic, payload).qos(1, self.id), &mut self.heard)
    }

    #[track_caller]
    pub(crate) fn say(&mut self, rest: &str, message: &Value) -> u8 {
        let topic = self.topic(rest);
        self.publish(&topic, message.to_string())
    }

    /// The next message.
    #[track_caller]
    pub(crate) fn hear(&mut self) -> Publish {
        if let Some(heard) = self.heard.pop_front() {
            return heard;
        }
        match self.client.take_either() {
            Packet::Publish(publish) => publish,
            other => panic!("{other:?}"),
        }
    }

    /// The next offer, pushed or answered.
    #[track_caller]
    pub(crate) fn offer(&mut self) -> Value {
        let heard = self.hear();
        assert_eq!(heard.topic, self.topic("ota/offer"));
        serde_json::from_slice(&heard.payload).expect("JSON")
    }

    /// Checks, and what it is answered. What was pushed before has no number.
    #[track_caller]
    pub(crate) fn check(&mut self, version: &str) -> Value {
        self.check_as(version, None)
    }

    #[track_caller]
    pub(crate) fn check_as(&mut self, version: &str, hardware: Option<&str>) -> Value {
        let id = u32::from(self.id) + 1;
        let mut check = json!({"id": id, "versions": {"mcu": version}});
        if let Some(hardware) = hardware {
            check["hardware"] = hardware.into();
        }
        assert_eq!(self.say("ota/check", &check), 0);
        loop {
            let answer = self.offer();
            if answer["id"] == id {
                return answer;
            }
            assert_eq!(answer["id"], Value::Null, "{answer}");
        }
    }

    #[track_caller]
    pub(crate) fn progress(&mut self, offer: &Value, state: &str) {
        let reason = if state == "failed" { json!("space") } else { Value::Null };
        assert_eq!(self.say("ota/progress", &json!({"offer": offer["offer"], "state": state, "reason": reason})), 0);
    }

    /// Takes an offer to its end: downloads, applies, and comes back with the new version.
    #[track_caller]
    pub(crate) fn update(&mut self, world: &World, offer: &Value, content: &str) {
        let (status, _, body) = world.fetch(offer["url"].as_str().expect("a link"), "");
        assert!(status == 200 && body == content.as_bytes(), "{status}");
        assert_eq!(offer["sha256"], sha256(&body));
        for state in ["accepted", "downloading", "downloaded", "verified", "applying"] {
            self.progress(offer, state);
        }
        let answer = self.check(offer["version"].as_str().expect("a version"));
        assert_eq!(answer["offer"], Value::Null, "{answer}");
    }
}
