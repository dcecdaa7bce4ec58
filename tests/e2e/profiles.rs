//! Each log-in format, from `turnpike credential` to the door and through it.

use turnpike_tests::broker::{Broker, Setup, command};
use turnpike_tests::client::{Client, End};
use turnpike_tests::credential::Credential;
use turnpike_tests::peers;
use turnpike_tests::wire::{Connect, Publish, Version};

const DEVICE: &str = "one";
const HEX: &str = "0123456789abcdef0123456789abcdef";
const BASE64: &str = "acyv3QDJrRa0fW5UE58KnQ==";

/// A log-in format, and a product that takes no other.
struct Profile {
    name: &'static str,
    product: &'static str,
    secret: &'static str,
    /// Where such a device publishes.
    topic: &'static str,
    /// What the signature stands behind in the password, where it isn't at its front.
    begins: Option<&'static str>,
}

// A product key of tencent has ten characters.
#[rustfmt::skip]
const PROFILES: [Profile; 8] = [
    Profile { name: "native", product: "lamp", secret: HEX, topic: "dev/lamp/one/up/state", begins: Some(";") },
    Profile { name: "aliyun", product: "a1B2c3D4e5F", secret: HEX, topic: "/sys/a1B2c3D4e5F/one/thing/event/property/post", begins: None },
    Profile { name: "tencent", product: "LD8S5J1L07", secret: BASE64, topic: "$thing/up/property/LD8S5J1L07/one", begins: None },
    Profile { name: "huawei", product: "6203cc94", secret: HEX, topic: "$oc/devices/6203cc94_one/sys/properties/report", begins: None },
    Profile { name: "tuya", product: "lamp", secret: HEX, topic: "tylink/one/thing/property/report", begins: None },
    Profile { name: "azure", product: "hub", secret: BASE64, topic: "devices/one/messages/events/", begins: Some("sig=") },
    Profile { name: "gizwits-legacy", product: "lamp", secret: "ABCDEFGHIJ", topic: "dev2app/one", begins: None },
    Profile { name: "gizwits", product: "lamp", secret: "8caaaa8b11e0,b1223028af054bb1", topic: "dev2app/one", begins: None },
];

impl Profile {
    /// A broker that knows the device.
    fn start(&self) -> Broker {
        let broker = Setup::closed().start();
        let path = format!("/api/v1/products/{}", self.product);
        let put = |rest: &str, body: &str| {
            let answer = broker.http().put(&format!("{path}{rest}"), body);
            assert!((200..300).contains(&answer.status), "{}: {answer:?}", self.name);
        };
        put("", "{}");
        put("/profiles", &format!(r#"{{"profiles": ["{}"]}}"#, self.name));
        put(&format!("/devices/{DEVICE}"), &format!(r#"{{"secret": "{}"}}"#, self.secret));
        broker
    }

    /// What `turnpike credential` says: fresh ones, since some formats are good once.
    fn credential(&self, secret: &str) -> Credential {
        let output = command()
            .args(["credential", "--json", "--profile", self.name, "--product", self.product, "--device", DEVICE])
            .env("TURNPIKE_DEVICE_SECRET", secret)
            .output()
            .expect("it runs");
        assert!(output.status.success(), "{}: {output:?}", self.name);
        let made: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let text = |name: &str| made[name].as_str().expect("a text").to_owned();
        Credential { client_id: text("client_id"), user: text("user_name"), password: text("password") }
    }

    /// Credentials with one character of the signature changed.
    fn forged(&self) -> Credential {
        let mut made = self.credential(self.secret);
        let at = self.begins.map_or(0, |text| made.password.rfind(text).expect("a signature") + text.len());
        let other = if &made.password[at..=at] == "a" { "b" } else { "a" };
        made.password.replace_range(at..=at, other);
        made
    }
}

/// Another one of the same length, by its first character.
fn other(secret: &str) -> String {
    let first = if secret.starts_with('f') { "e" } else { "f" };
    format!("{first}{}", &secret[1..])
}

#[track_caller]
fn open(broker: &Broker, version: Version, login: &Credential) -> (Client, u8) {
    let connect = Connect::new(version, &login.client_id).login(&login.user, &login.password);
    let (client, ack) = Client::open(broker.mqtt(), &connect);
    (client, ack.code)
}

#[test]
fn every_profile_logs_in_and_publishes_on_its_topics() {
    for profile in PROFILES {
        let broker = profile.start();
        for version in Version::ALL {
            let (mut client, code) = open(&broker, version, &profile.credential(profile.secret));
            assert_eq!(code, 0, "{} {version:?}", profile.name);
            let reason = client.publish(&Publish::new(profile.topic, "x").qos(1, 1));
            assert!(reason < 0x80, "{} {version:?}: {reason:#x}", profile.name);
        }
        let (mut client, _) = open(&broker, Version::V5, &profile.credential(profile.secret));
        let strange = profile.topic.replace(DEVICE, "two");
        assert_eq!(client.publish(&Publish::new(&strange, "x").qos(1, 1)), 0x87, "{}", profile.name);
    }
}

#[test]
fn every_profile_is_refused_by_one_changed_character() {
    for profile in PROFILES {
        let broker = profile.start();
        for (what, login) in [
            ("a character of the signature", profile.forged()),
            ("a character of the secret", profile.credential(&other(profile.secret))),
        ] {
            let (mut client, code) = open(&broker, Version::V5, &login);
            assert_eq!((code, client.end()), (0x86, End::Closed), "{}, {what}", profile.name);
        }
        let (_client, code) = open(&broker, Version::V5, &profile.credential(profile.secret));
        assert_eq!(code, 0, "{}: the right one is good as ever", profile.name);
    }
}

#[test]
fn every_profile_logs_in_with_mosquitto() {
    for profile in PROFILES {
        let broker = profile.start();
        let login = profile.credential(profile.secret);
        let mut command = peers::mosquitto("mosquitto_pub");
        command.args(["-h", "127.0.0.1", "-p", &broker.mqtt().port().to_string()]);
        command.args(["-i", &login.client_id, "-u", &login.user, "-P", &login.password]);
        command.args(["-q", "1", "-t", profile.topic, "-m", "x"]);
        peers::run(command);
    }
}
