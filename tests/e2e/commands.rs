//! Commands for devices: at once, when they come, until their deadline, across `kill -9`.

use std::collections::VecDeque;

use serde_json::{Value, json};
use turnpike_tests::broker::{Broker, Setup};
use turnpike_tests::client::Client;
use turnpike_tests::credential::{PRODUCT, SECRET, native, now_ms, service};
use turnpike_tests::http::Answer;
use turnpike_tests::peers;
use turnpike_tests::time::{SOON, until};
use turnpike_tests::wire::{Connect, Packet, Publish, Version};

use crate::gate::register;

const SERVICE_SECRET: &str = "0123456789abcdef0123456789abcdef-of-a-service";

fn world(config: &str) -> Broker {
    let broker = Setup::closed().config(config).start();
    register(&broker);
    broker
}

fn path(device: &str, rest: &str) -> String {
    format!("/api/v1/products/{PRODUCT}/devices/{device}/{rest}")
}

#[track_caller]
fn is(answer: &Answer, status: u16, code: &str) {
    let said = answer.body.parse::<Value>().map(|body| body["error"]["code"].clone()).unwrap_or_default();
    assert_eq!((answer.status, said.as_str().unwrap_or_default()), (status, code), "{answer:?}");
}

fn post(broker: &Broker, path: &str, body: &Value) -> Answer {
    broker.http().post(path, "application/json", &body.to_string())
}

/// Asks; the command's number.
#[track_caller]
fn ask(broker: &Broker, device: &str, body: &Value) -> u64 {
    let answer = post(broker, &path(device, "commands"), body);
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()["id"].as_u64().expect("a number")
}

#[track_caller]
fn show(broker: &Broker, device: &str, id: u64) -> Value {
    let answer = broker.http().get(&path(device, &format!("commands/{id}")));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

#[track_caller]
fn reaches(broker: &Broker, device: &str, id: u64, state: &str) -> Value {
    until(state, SOON, || Some(show(broker, device, id)).filter(|shown| shown["state"] == state))
}

/// Records of what was done, of which there is at least one soon.
fn audited(broker: &Broker, action: &str) -> Vec<Value> {
    let path = format!("/api/v1/audit?order=asc&limit=1000&action={action}");
    until(action, SOON, || {
        let records = broker.http().get(&path).json()["records"].as_array().expect("a list").clone();
        Some(records).filter(|records| !records.is_empty())
    })
}

#[track_caller]
fn counted(broker: &Broker, what: &str, count: u64) {
    let metrics = broker.http().get("/metrics").body;
    let line = format!("turnpike_commands_total{{what=\"{what}\"}} {count}\n");
    assert!(metrics.contains(&line), "{line}: {metrics}");
}

/// A device with what has come to it.
struct Device {
    client: Client,
    name: &'static str,
    id: u16,
    heard: VecDeque<Publish>,
}

impl Device {
    /// It has come, and has subscribed to nothing.
    fn silent(broker: &Broker, name: &'static str, version: Version) -> Self {
        let login = native(&format!("{name}-{}", now_ms()), name, SECRET);
        let connect = Connect::new(version, &login.client_id).login(&login.user, &login.password);
        Self { client: broker.client(&connect), name, id: 0, heard: VecDeque::new() }
    }

    fn new(broker: &Broker, name: &'static str) -> Self {
        let mut device = Self::silent(broker, name, Version::V5);
        device.listen();
        device
    }

    fn topic(&self, rest: &str) -> String {
        format!("dev/{PRODUCT}/{}/sys/{rest}", self.name)
    }

    fn listen(&mut self) {
        let topics = [self.topic("cmd"), self.topic("log/ack")];
        assert_eq!(self.client.subscribe(&[(&topics[0], 1), (&topics[1], 1)]), [1, 1]);
    }

    /// Publishes, and waits for the acknowledgement; its code.
    #[track_caller]
    fn publish(&mut self, rest: &str, payload: impl AsRef<[u8]>) -> u8 {
        let topic = self.topic(rest);
        self.publish_on(&topic, payload)
    }

    #[track_caller]
    fn publish_on(&mut self, topic: &str, payload: impl AsRef<[u8]>) -> u8 {
        self.id += 1;
        self.client.publish_past(&Publish::new(topic, payload).qos(1, self.id), &mut self.heard)
    }

    #[track_caller]
    fn reply(&mut self, id: u64, state: &str) -> u8 {
        self.publish("cmd/reply", json!({"id": id, "state": state, "reason": format!("it is {state}")}).to_string())
    }

    #[track_caller]
    fn hear(&mut self, rest: &str) -> Value {
        let heard = self.heard.pop_front().unwrap_or_else(|| self.client.take());
        assert_eq!(heard.topic, self.topic(rest));
        serde_json::from_slice(&heard.payload).expect("JSON")
    }

    #[track_caller]
    fn command(&mut self) -> Value {
        self.hear("cmd")
    }
}

#[test]
fn a_device_that_is_there_hears_at_once_and_its_answers_are_followed_to_the_end() {
    let broker = world("");
    let mut one = Device::new(&broker, "one");
    let id = ask(&broker, "one", &json!({"command": "reboot", "arguments": {"slow": true}, "timeout_s": 60}));
    let heard = one.command();
    assert_eq!(
        (&heard["id"], &heard["command"], &heard["arguments"]),
        (&json!(id), &json!("reboot"), &json!({"slow": true}))
    );
    let shown = reaches(&broker, "one", id, "sent");
    assert_eq!((&shown["deadline"], &shown["sends"]), (&heard["deadline"], &json!(1)));
    assert_eq!(one.reply(id, "accepted"), 0);
    assert_eq!(show(&broker, "one", id)["state"], "accepted");
    assert_eq!(one.reply(id, "done"), 0);
    let shown = show(&broker, "one", id);
    assert_eq!((&shown["state"], &shown["reason"]), (&json!("done"), &json!("it is done")));
    let listed = broker.http().get(&path("one", "commands")).json();
    assert_eq!((&listed["commands"], &listed["next"]), (&json!([shown]), &Value::Null));

    let target = format!("device:{PRODUCT}/one");
    let asked = audited(&broker, "command_ask");
    assert_eq!(asked.len(), 1);
    assert!(asked[0]["actor"].as_str().is_some_and(|actor| actor.starts_with("operator:")), "{asked:?}");
    assert_eq!((&asked[0]["target"], &asked[0]["detail"]["kind"]), (&json!(target), &json!("reboot")));
    let ended = audited(&broker, "command_end");
    assert_eq!((&ended[0]["actor"], &ended[0]["detail"]["command"]), (&json!(target), &json!(id)));
    assert_eq!(ended[0]["detail"]["how"], "done");
    for what in ["asked", "sent", "accepted", "done"] {
        counted(&broker, what, 1);
    }
}

#[test]
fn a_device_that_comes_before_the_deadline_hears_once_it_has_subscribed_whoever_else_listens() {
    let broker = world("");
    let body = json!({ "secret": SERVICE_SECRET, "grants": [{ "rights": ["read_up", "read_system"] }] });
    assert!(matches!(broker.http().put("/api/v1/services/reader", &body.to_string()).status, 200 | 201));
    let login = service("reader", "reader", SERVICE_SECRET);
    let mut reader = broker.client(&Connect::new(Version::V5, "reader").login(&login.user, &login.password));
    assert_eq!(reader.subscribe(&[(&format!("dev/{PRODUCT}/+/sys/#"), 1)]), [1]);
    let id = ask(&broker, "one", &json!({"command": "wipe"}));
    assert_eq!(show(&broker, "one", id)["state"], "queued");
    let mut one = Device::silent(&broker, "one", Version::V311);
    // A device's own traffic is dealt with, and it has heard nothing, nor has the reader.
    assert_eq!(one.publish("other", "x"), 0);
    assert_eq!(reader.take().topic, one.topic("other"));
    assert_eq!(show(&broker, "one", id)["state"], "queued");
    one.listen();
    assert_eq!(
        one.command(),
        json!({"id": id, "command": "wipe", "arguments": null, "deadline": show(&broker, "one", id)["deadline"]})
    );
    assert_eq!(reader.take().topic, one.topic("cmd"), "who may read it does");
    reaches(&broker, "one", id, "sent");
    // It goes away without an answer, and comes back.
    drop(one);
    let mut one = Device::new(&broker, "one");
    assert_eq!(one.command()["id"], id);
    until("sent again", SOON, || show(&broker, "one", id)["sends"].as_u64().filter(|sends| *sends >= 2));
    assert_eq!(one.reply(id, "rejected"), 0);
    assert_eq!(show(&broker, "one", id)["state"], "rejected");
    drop(one);
    let mut one = Device::new(&broker, "one");
    let next = ask(&broker, "one", &json!({"command": "reset"}));
    assert_eq!(one.command()["id"], next, "what has ended isn't sent");
}

#[test]
fn what_is_not_answered_by_its_deadline_has_expired_and_a_late_answer_is_kept_beside() {
    let broker = world("");
    let mut one = Device::new(&broker, "one");
    let id = ask(&broker, "one", &json!({"command": "reset", "timeout_s": 1}));
    assert_eq!(one.command()["id"], id);
    reaches(&broker, "one", id, "expired");
    assert_eq!(one.reply(id, "done"), 0);
    let shown = show(&broker, "one", id);
    assert_eq!(
        (&shown["state"], &shown["late"], &shown["reason"]),
        (&json!("expired"), &json!("done"), &json!("it is done"))
    );
    counted(&broker, "expired", 1);
    counted(&broker, "reply_late", 1);
    let ended = audited(&broker, "command_end");
    assert_eq!((&ended[0]["actor"], &ended[0]["detail"]["how"]), (&json!("broker"), &json!("expired")));
    assert_eq!(audited(&broker, "command_late")[0]["detail"]["how"], "done");
    // One that its device never heard of, and one that nobody wants any more.
    let other = ask(&broker, "two", &json!({"command": "wipe"}));
    let answer = post(&broker, &path("two", &format!("commands/{other}/cancel")), &json!({}));
    assert_eq!((answer.status, &answer.json()["state"]), (200, &json!("cancelled")), "{answer:?}");
    is(&post(&broker, &path("two", &format!("commands/{other}/cancel")), &json!({})), 409, "command_ended");
    is(&post(&broker, &path("one", &format!("commands/{other}/cancel")), &json!({})), 404, "no_such_command");
    let mut two = Device::new(&broker, "two");
    let next = ask(&broker, "two", &json!({"command": "reboot"}));
    assert_eq!(two.command()["id"], next, "the cancelled one isn't sent");
    assert_eq!(audited(&broker, "command_cancel").len(), 1);
}

#[test]
fn no_command_that_was_answered_is_lost_by_a_kill() {
    let mut broker = world("");
    let mut two = Device::new(&broker, "two");
    let done = ask(&broker, "two", &json!({"command": "reboot"}));
    assert_eq!(two.command()["id"], done);
    assert_eq!(two.reply(done, "done"), 0);
    let asked: Vec<_> =
        ["reset", "upload-logs", "wipe"].map(|kind| ask(&broker, "one", &json!({"command": kind}))).into();
    broker.restart();
    assert_eq!(show(&broker, "two", done)["reason"], "it is done", "history, too");
    let mut one = Device::new(&broker, "one");
    let heard: Vec<_> = asked.iter().map(|_| one.command()["id"].as_u64().expect("a number")).collect();
    assert_eq!(heard, asked, "in their order");
    assert_eq!(one.reply(asked[0], "accepted"), 0);
    assert_eq!(one.reply(asked[1], "failed"), 0);
    broker.restart();
    for (id, state) in asked.iter().zip(["accepted", "failed", "sent"]) {
        assert_eq!(show(&broker, "one", *id)["state"], state);
    }
    let mut one = Device::new(&broker, "one");
    assert_eq!(one.command()["id"], asked[2]);
    assert_eq!(one.reply(asked[0], "done"), 0);
    assert_eq!(show(&broker, "one", asked[0])["state"], "done");
    let next = ask(&broker, "one", &json!({"command": "reboot"}));
    assert!(next > asked[2] && one.command()["id"] == next, "no number comes twice");
}

#[test]
fn each_answer_that_is_of_no_use_is_counted_by_its_fault() {
    let broker = world("");
    let (mut one, mut two) = (Device::new(&broker, "one"), Device::new(&broker, "two"));
    let id = ask(&broker, "one", &json!({"command": "wipe"}));
    assert_eq!(one.command()["id"], id);
    for payload in ["", "{", "[]", r#"{"id": "1", "state": "done"}"#, r#"{"id": 1, "state": "gone"}"#] {
        assert_eq!(one.publish("cmd/reply", payload), 0x99, "{payload}");
    }
    counted(&broker, "reply_malformed", 5);
    assert_eq!(two.reply(id, "done"), 0);
    counted(&broker, "reply_to_others", 1);
    assert_eq!(one.reply(id + 1, "done"), 0);
    counted(&broker, "reply_unknown", 1);
    assert_eq!(show(&broker, "one", id)["state"], "sent", "nobody has answered it");
    // On the other's own topic it may not publish at all.
    let publish = Publish::new(&one.topic("cmd/reply"), json!({"id": id, "state": "done"}).to_string()).qos(1, 77);
    two.client.send(&publish.encode(Version::V5));
    assert!(matches!(two.client.take_either(), Packet::PubAck(ack) if ack.code() == 0x87));
    assert_eq!(show(&broker, "one", id)["state"], "sent");
    assert_eq!([one.reply(id, "done"), one.reply(id, "done"), one.reply(id, "failed")], [0; 3]);
    counted(&broker, "reply_again", 1);
    counted(&broker, "reply_out_of_place", 1);
    assert_eq!(show(&broker, "one", id)["state"], "done");
}

#[test]
fn what_can_not_be_asked_is_refused_with_a_code_of_its_own_and_all_is_bounded() {
    let broker = world("[commands]\ndevice_open_max = 3\ncommands_max = 5\ndevice_kept_max = 2\n");
    let now_s = now_ms() / 1000;
    let long = "x".repeat(5000);
    for (device, body, status, code) in [
        ("one", json!({"command": "format"}), 400, "unknown_command"),
        ("one", json!({"command": 5}), 400, "invalid"),
        ("one", json!({"arguments": 5}), 400, "invalid"),
        ("one", json!({"command": "reboot", "argument": 5}), 400, "invalid"),
        ("one", json!({"command": "reboot", "timeout_s": "5"}), 400, "invalid"),
        ("one", json!({"command": "reboot", "timeout_s": -5}), 400, "invalid"),
        ("one", json!({"command": "reboot", "timeout_s": 5, "deadline": now_s + 9}), 400, "invalid"),
        ("one", json!({"command": "reboot", "arguments": long}), 400, "arguments"),
        ("one", json!({"command": "reboot", "timeout_s": 0}), 400, "deadline"),
        ("one", json!({"command": "reboot", "timeout_s": u64::MAX}), 400, "deadline"),
        ("one", json!({"command": "reboot", "deadline": now_s - 1}), 400, "deadline"),
        ("one", json!({"command": "reboot", "deadline": now_s + 30 * 86_400}), 400, "deadline"),
        ("nobody", json!({"command": "reboot"}), 404, "not_found"),
    ] {
        is(&post(&broker, &path(device, "commands"), &body), status, code);
    }
    for rest in ["commands/1", "commands/x", "commands/-1"] {
        is(&broker.http().get(&path("one", rest)), 404, "no_such_command");
    }
    is(&broker.http().get(&path("one", "commands?limit=0")), 400, "invalid");
    let ids = [(); 3].map(|()| ask(&broker, "one", &json!({"command": "reboot"})));
    is(&post(&broker, &path("one", "commands"), &json!({"command": "reboot"})), 409, "too_many_for_device");
    let others = [(); 2].map(|()| ask(&broker, "two", &json!({"command": "reboot"})));
    is(&post(&broker, &path("two", "commands"), &json!({"command": "reboot"})), 409, "too_many_commands");
    assert_eq!(others, [ids[2] + 1, ids[2] + 2], "a refusal takes no number");
    // What has ended makes room.
    for id in ids {
        assert_eq!(post(&broker, &path("one", &format!("commands/{id}/cancel")), &json!({})).status, 200);
    }
    let left = || broker.http().get(&path("one", "commands?limit=1")).json();
    assert_eq!(left()["commands"][0]["id"], ids[1], "two ended ones are kept");
    assert_eq!(left()["next"], ids[1]);
    ask(&broker, "two", &json!({"command": "reboot"}));
    is(&post(&broker, &path("two", "commands"), &json!({"command": "reboot"})), 409, "too_many_for_device");
    // A device that is deleted leaves nothing to whoever has its name next.
    assert_eq!(broker.http().delete(&format!("/api/v1/products/{PRODUCT}/devices/two")).status, 204);
    is(&broker.http().get(&path("two", "commands")), 404, "not_found");
    register(&broker);
    assert_eq!(broker.http().get(&path("two", "commands")).json()["commands"], json!([]));
}

/// ISO-HDLC, a bit at a time.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 })
    })
}

/// A chunk of a log, by the document.
fn chunk(log: u32, number: u16, count: u16, bytes: &[u8]) -> Vec<u8> {
    let header = [&log.to_be_bytes()[..], &number.to_be_bytes(), &count.to_be_bytes(), &crc32(bytes).to_be_bytes()];
    [&header.concat(), bytes].concat()
}

/// What is missing of a log?
fn question(log: u32, count: u16, whole: &[u8]) -> Vec<u8> {
    [&log.to_be_bytes()[..], &[0; 2], &count.to_be_bytes(), &crc32(whole).to_be_bytes()].concat()
}

/// Zeros, as densely as the fixed codes of DEFLATE (RFC 1951, section 3.2.6) have them: 258 bytes in 13 bits. A zlib stream of one block.
fn bomb(matches: usize) -> Vec<u8> {
    let mut bits = Bits::default();
    // The last block, with fixed codes: a literal 0 is 8 bits, a match of length 258 is 8, its distance of 1 is 5.
    bits.put(0b1, 1);
    bits.put(0b01, 2);
    bits.put_code(0x30, 8);
    for _ in 0..matches {
        bits.put_code(0b1100_0101, 8);
        bits.put_code(0, 5);
    }
    bits.put_code(0, 7);
    let length = 1 + 258 * matches as u64;
    // Adler-32 of zeros.
    let adler = u32::try_from(length % 65521).expect("small");
    let adler = (adler << 16) | 1;
    [&[0x78, 0x9C][..], &bits.bytes, &adler.to_be_bytes()].concat()
}

/// As DEFLATE packs them: fields from the lowest bit on, codes from the highest.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    used: usize,
}

impl Bits {
    fn put(&mut self, value: u32, count: usize) {
        for at in 0..count {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            let bit = u8::try_from((value >> at) & 1).expect("a bit");
            *self.bytes.last_mut().expect("pushed") |= bit << (self.used % 8);
            self.used += 1;
        }
    }

    fn put_code(&mut self, code: u32, count: usize) {
        (0..count).rev().for_each(|at| self.put((code >> at) & 1, 1));
    }
}

fn logs(broker: &Broker, device: &str) -> Vec<Value> {
    broker.http().get(&path(device, "logs")).json()["logs"].as_array().expect("a list").clone()
}

/// The bytes of a log.
#[track_caller]
fn download(broker: &Broker, device: &str, log: &Value, query: &str) -> Vec<u8> {
    let answer = broker.http().send("GET", &path(device, &format!("logs/{log}{query}")), "", "");
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200") && head.contains("content-length: "), "{head}");
    answer[end + 4..].to_vec()
}

/// No two lines of it are the same.
fn text(lines: u32) -> Vec<u8> {
    (0..lines)
        .flat_map(|line| format!("{line} the valve is {:08x}\n", line.wrapping_mul(2_654_435_761)).into_bytes())
        .collect()
}

fn files(broker: &Broker) -> usize {
    std::fs::read_dir(broker.data().join("logs")).expect("a folder").count()
}

#[track_caller]
fn log_counted(broker: &Broker, family: &str, label: &str, count: u64) {
    let metrics = broker.http().get("/metrics").body;
    let line = format!("turnpike_device_logs_{family}{{{label}}} {count}\n");
    assert!(metrics.contains(&line), "{line}: {metrics}");
}

#[test]
fn paho_mqtt_is_asked_for_its_log_and_what_it_sends_is_read_byte_for_byte() {
    let mut broker = world("");
    let log = text(2000);
    let file = broker.folder().join("device.log");
    std::fs::write(&file, &log).expect("written");
    let id = ask(&broker, "one", &json!({"command": "upload-logs", "arguments": {"since": 0}}));
    let (first, second) = (native("one-a", "one", SECRET), native("one-b", "one", SECRET));
    let mut command = peers::python("log_device.py");
    let address = broker.mqtt();
    command.args([&address.ip().to_string(), &address.port().to_string(), PRODUCT, "one"]);
    command.args([&first.client_id, &first.password, &second.client_id, &second.password]).arg(&file);
    assert_eq!(peers::run(command).trim(), "ok");
    let shown = show(&broker, "one", id);
    assert_eq!((&shown["state"], &shown["sends"]), (&json!("done"), &json!(1)));
    for killed in [false, true] {
        if killed {
            broker.restart();
        }
        let kept = logs(&broker, "one");
        assert_eq!(kept.len(), 1, "{kept:?}");
        assert_eq!((&kept[0]["command"], &kept[0]["packing"]), (&json!(id), &json!("zlib")));
        assert_eq!(kept[0]["size"], log.len());
        assert!(download(&broker, "one", &kept[0]["log"], "") == log, "byte for byte");
        let sent = download(&broker, "one", &kept[0]["log"], "?as=sent");
        assert_eq!(kept[0]["sent_size"], sent.len());
        assert_eq!(kept[0]["sent_crc32"], format!("{:08x}", crc32(&sent)));
    }
    let taken = audited(&broker, "log_take");
    assert_eq!((taken.len(), &taken[0]["actor"]), (1, &json!(format!("device:{PRODUCT}/one"))));
    assert_eq!(audited(&broker, "log_read").len(), 4);
    let log = format!("logs/{}", logs(&broker, "one")[0]["log"]);
    is(&broker.http().get(&path("two", &log)), 404, "no_such_log");
    is(&broker.http().delete(&path("two", &log)), 404, "no_such_log");
    is(&broker.http().get(&path("one", &format!("{log}?as=text"))), 400, "invalid");
    assert_eq!(broker.http().delete(&path("one", &log)).status, 204);
    is(&broker.http().get(&path("one", &log)), 404, "no_such_log");
    assert_eq!(audited(&broker, "log_delete").len(), 1);
    until("its file goes", SOON, || Some(()).filter(|()| files(&broker) == 0));
}

#[test]
fn chunks_come_in_any_order_and_each_fault_is_told_and_counted() {
    let broker = world("");
    let mut one = Device::new(&broker, "one");
    let log = text(100);
    let parts: Vec<_> = log.chunks(400).collect();
    let count = u16::try_from(parts.len()).expect("few");
    let part = |number: u16| chunk(5, number, count, parts[usize::from(number)]);
    assert_eq!(one.publish("log", part(count - 1)), 0);
    let missing: Vec<_> = (0..count - 1).collect();
    assert_eq!(one.hear("log/ack"), json!({"log": 5, "state": "missing", "chunks": missing}));
    assert_eq!(one.publish("log", part(1)), 0);
    assert_eq!(one.publish("log", part(1)), 0, "again");
    let mut broken = part(0);
    *broken.last_mut().expect("a byte") ^= 1;
    for (payload, code, reason) in [
        (broken, 0x99, "broken"),
        (chunk(5, 0, count, b"another text"), 0, ""),
        (chunk(5, 0, count, parts[0]), 0x99, "contradiction"),
        (chunk(5, count, count, b"x"), 0x99, "no_such_chunk"),
        (chunk(5, 0, 0, b"x"), 0x99, "no_such_chunk"),
        (chunk(6, 0, 2000, b"x"), 0x99, "too_many_chunks"),
        (vec![0, 0, 0, 9, 1], 0x99, "malformed"),
        (chunk(6, 0, 2, b"x"), 0, ""),
        (chunk(7, 0, 2, b"x"), 0x97, "device_full"),
    ] {
        assert_eq!(one.publish("log", &payload), code, "{reason}");
        if !reason.is_empty() {
            let log = u32::from_be_bytes(*payload.first_chunk().expect("a number"));
            assert_eq!(one.hear("log/ack"), json!({"log": log, "state": "refused", "reason": reason}));
        }
    }
    assert_eq!(one.publish("log", vec![1]), 0x99);
    assert_eq!(one.hear("log/ack")["reason"], "malformed");
    for (reason, times) in
        [("broken", 1), ("contradiction", 1), ("no_such_chunk", 2), ("malformed", 2), ("device_full", 1)]
    {
        log_counted(&broker, "refused_total", &format!("reason=\"{reason}\""), times);
    }
    // Another log of that number is on the way: this one takes the next.
    let part = |number: u16| chunk(6, number, 2, [b"x", b"y"][usize::from(number)]);
    assert_eq!(one.publish("log", question(6, 2, b"xy")), 0);
    assert_eq!(one.hear("log/ack")["chunks"], json!([1]));
    assert_eq!(one.publish("log", part(1)), 0);
    assert_eq!(one.hear("log/ack"), json!({"log": 6, "state": "kept"}));
    assert_eq!(one.publish("log", question(6, 2, b"xy")), 0);
    assert_eq!(one.hear("log/ack"), json!({"log": 6, "state": "kept"}), "it is known");
    assert_eq!(one.publish("log", question(6, 2, b"yx")), 0);
    assert_eq!(one.hear("log/ack")["chunks"], json!([0, 1]), "another log of that number isn't");
    let kept = logs(&broker, "one");
    assert_eq!(download(&broker, "one", &kept[0]["log"], ""), b"xy");
    assert_eq!((&kept[0]["command"], &kept[0]["packing"]), (&Value::Null, &Value::Null));
}

#[test]
fn a_bomb_is_refused_and_limits_are_kept() {
    let config = "[commands.logs]\nbytes_max = 4096\ndevice_logs_max = 3\ndevice_bytes_max = 6000\ntotal_bytes_max = 9_000\n\
                  unpacked_bytes_max = 100_000\nratio_max = 100\n";
    let broker = world(config);
    let (mut one, mut two) = (Device::new(&broker, "one"), Device::new(&broker, "two"));
    let refused = |device: &mut Device, log: u32, bytes: &[u8], reason: &str| {
        assert_eq!(device.publish("log", chunk(log, 0, 1, bytes)), 0x97, "{reason}");
        assert_eq!(device.hear("log/ack"), json!({"log": log, "state": "refused", "reason": reason}));
        log_counted(&broker, "refused_total", &format!("reason=\"{reason}\""), 1);
    };
    let kept = |device: &mut Device, log: u32, bytes: &[u8]| {
        assert_eq!(device.publish("log", chunk(log, 0, 1, bytes)), 0);
        assert_eq!(device.hear("log/ack"), json!({"log": log, "state": "kept"}));
    };
    refused(&mut one, 1, &bomb(300), "too_dense");
    refused(&mut one, 2, &bomb(2000), "unpacked_too_long");
    refused(&mut one, 3, &[b'x'; 5000], "log_too_long");
    assert_eq!((logs(&broker, "one"), files(&broker)), (vec![], 0));
    for log in 1..=4 {
        kept(&mut one, log, format!("log {log}").as_bytes());
    }
    let numbers = |device: &str| {
        logs(&broker, device).iter().map(|log| log["number"].as_u64().expect("a number")).collect::<Vec<_>>()
    };
    assert_eq!(numbers("one"), [2, 3, 4], "the oldest made room");
    kept(&mut one, 4, b"log 4");
    assert_eq!(numbers("one"), [2, 3, 4], "the same isn't kept twice");
    kept(&mut one, 5, &[b'5'; 4000]);
    kept(&mut one, 6, &[b'6'; 4000]);
    assert_eq!(numbers("one"), [6], "bytes, too");
    kept(&mut two, 1, &[b'1'; 4000]);
    refused(&mut two, 2, &[b'2'; 1500], "no_room");
    assert_eq!((numbers("one"), numbers("two")), (vec![6], vec![1]), "no device pushes out another's");
    log_counted(&broker, "total", "what=\"pushed_out\"", 5);
    assert!(broker.http().get("/metrics").body.contains("turnpike_device_logs_bytes 8000\n"));
    until("files of what went are gone", SOON, || Some(()).filter(|()| files(&broker) == 2));
}

#[test]
fn a_file_without_a_record_and_a_record_without_a_file_are_gone_after_a_crash() {
    let mut broker = world("");
    let mut one = Device::new(&broker, "one");
    for log in [1, 2] {
        assert_eq!(one.publish("log", chunk(log, 0, 1, b"a log")), 0);
        assert_eq!(one.hear("log/ack")["state"], "kept");
    }
    let folder = broker.data().join("logs");
    broker.kill();
    std::fs::remove_file(folder.join("1.log")).expect("it is there");
    std::fs::write(folder.join("77.log"), "nobody's").expect("written");
    std::fs::write(folder.join("78.part"), "half of one").expect("written");
    broker.restart();
    let kept = logs(&broker, "one");
    assert_eq!((kept.len(), &kept[0]["number"], files(&broker)), (1, &json!(2), 1));
    broker.wait_for_log("logs are gone whose files are");
    broker.restart();
    assert_eq!(logs(&broker, "one").len(), 1);
    assert!(!broker.log().contains("logs are gone"), "once");
}

/// Everything that a product can have: firmware, whole and half, a campaign, demands, reports, commands, logs.
fn furnish(broker: &Broker) -> u64 {
    let product = |rest: &str| format!("/api/v1/products/{PRODUCT}/{rest}");
    let http = broker.http();
    let demands = json!({"targets": {"mcu": {"release_min": 1, "hardware": []}}});
    assert_eq!(http.put(&product("ota"), &demands.to_string()).status, 200);
    let mut firmware = 0;
    for version in ["2.0", "3.0"] {
        let body = json!({"target": "mcu", "version": version, "any_hardware": true, "size": 5, "release": 1});
        firmware = post(broker, &product("firmware"), &body).json()["firmware"].as_u64().expect("a number");
        let upload = http.request_with("PUT", &product(&format!("firmware/{firmware}/content")), "", "12345");
        assert_eq!(upload.status, 200, "{upload:?}");
        if version == "2.0" {
            assert_eq!(post(broker, &product(&format!("firmware/{firmware}/finish")), &json!({})).status, 200);
            let campaign = json!({"name": "c", "firmware": firmware});
            assert_eq!(post(broker, "/api/v1/campaigns", &campaign).status, 201);
        }
    }
    let mut one = Device::new(broker, "one");
    let check = json!({"id": 1, "versions": {"mcu": "1.0"}}).to_string();
    assert_eq!(one.publish_on(&format!("dev/{PRODUCT}/one/ota/check"), check), 0);
    assert_eq!(one.publish("log", chunk(1, 0, 1, b"a log")), 0);
    assert_eq!(one.hear("log/ack")["state"], "kept");
    for device in ["one", "two"] {
        ask(broker, device, &json!({"command": "wipe"}));
    }
    firmware
}

#[test]
fn a_product_that_is_deleted_leaves_nothing_also_if_the_broker_is_killed_meanwhile() {
    for killed in [false, true] {
        let mut broker = world("");
        let last = furnish(&broker);
        let product = format!("/api/v1/products/{PRODUCT}");
        let firmware_files =
            |broker: &Broker| std::fs::read_dir(broker.data().join("firmware")).expect("a folder").count();
        assert_eq!((firmware_files(&broker), files(&broker)), (2, 1));
        if killed {
            // As far as it gets.
            let (http, path) = (broker.http(), product.clone());
            let deleting = std::thread::spawn(move || http.send("DELETE", &path, "", ""));
            until("it has begun", SOON, || Some(()).filter(|()| broker.http().get(&product).status == 404));
            broker.restart();
            deleting.join().expect("it ends");
        } else {
            assert_eq!(broker.http().delete(&product).status, 204);
        }
        until("the name is free", SOON, || {
            let status = broker.http().put(&product, "{}").status;
            assert!(matches!(status, 201 | 409), "{status}");
            Some(()).filter(|()| status == 201)
        });
        register(&broker);
        let get = |path: &str| get_json(&broker, path);
        assert_eq!(get(&format!("{product}/firmware"))["firmware"], json!([]));
        assert_eq!(get("/api/v1/campaigns")["campaigns"], json!([]));
        assert_eq!(
            get(&format!("{product}/ota"))["targets"]["mcu"]["release_min"],
            0,
            "the demands are those of a new one"
        );
        for device in ["one", "two"] {
            assert_eq!(get(&path(device, "commands"))["commands"], json!([]));
            assert_eq!(logs(&broker, device), Vec::<Value>::new());
        }
        until("files", SOON, || Some(()).filter(|()| (firmware_files(&broker), files(&broker)) == (0, 0)));
        // What was left would come back now, and numbers would come twice.
        broker.restart();
        assert_eq!(get_json(&broker, "/api/v1/campaigns")["campaigns"], json!([]));
        assert_eq!(get_json(&broker, &format!("{product}/firmware"))["firmware"], json!([]));
        assert_eq!(furnish(&broker), last + 2);
        let asked = get_json(&broker, &path("one", "commands"));
        assert_eq!(asked["commands"][0]["id"], 3);
    }
}

fn get_json(broker: &Broker, path: &str) -> Value {
    broker.http().get(path).json()
}
