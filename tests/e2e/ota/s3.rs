//! Firmware in a bucket: brought there whole or not at all, whatever is down or killed meanwhile, and read out of it by devices.

use turnpike_tests::bucket::{Gate, Server};

use super::*;

const BUCKET: &str = "firmware";
const SECRET_KEY: &str = "a-secret-access-key";

/// A broker that keeps firmware in a bucket, and what stands between them.
struct Stored {
    world: World,
    server: Server,
    gate: Gate,
}

/// `more`: of the section.
fn stored(more: &str) -> Stored {
    let server = Server::start();
    server.make(BUCKET);
    let gate = Gate::before(server.address());
    let section = format!(
        "[ota]\naddress = \"127.0.0.1:0\"\n[ota.s3]\nbucket = \"{BUCKET}\"\nprefix = \"plant/\"\nendpoint = \"http://{}\"\n\
         allow_http = true\n{more}\n",
        gate.address()
    );
    Stored { world: world_with(&section), server, gate }
}

fn keys() -> String {
    format!("access_key_id = \"AKIA\"\nsecret_access_key = \"{SECRET_KEY}\"")
}

impl Stored {
    fn show(&self, firmware: u64) -> Value {
        self.world.http().get(&World::path(&format!("firmware/{firmware}"))).json()
    }

    /// A firmware of which all has come, not finished.
    #[track_caller]
    fn uploaded(&self, version: &str, content: &str) -> (u64, String) {
        let (firmware, upload) = self.world.create(version, content);
        let answer = self.world.put(&upload, 0, content);
        assert_eq!(answer.status, 200, "{answer:?}");
        (firmware, upload)
    }

    #[track_caller]
    fn becomes_ready(&self, firmware: u64) {
        until("it is ready", SOON, || (self.show(firmware)["state"] == "ready").then_some(()));
    }

    /// A firmware that is ready.
    #[track_caller]
    fn ready(&self, version: &str, content: &str) -> u64 {
        let (firmware, _) = self.uploaded(version, content);
        let answer = self.world.finish(firmware, &json!({}));
        assert!(matches!(answer.status, 200 | 202), "{answer:?}");
        self.becomes_ready(firmware);
        firmware
    }

    /// The object of a firmware is all that there is of it, in the bucket and in the folder.
    #[track_caller]
    fn holds(&self, firmware: u64, content: &str) {
        let name = format!("plant/{firmware}-{}.bin", sha256(content));
        let beginning = format!("plant/{firmware}-");
        let objects: Vec<_> =
            self.server.objects(BUCKET).into_iter().filter(|name| name.starts_with(&beginning)).collect();
        assert_eq!(objects, [name.as_str()]);
        assert!(self.server.content(BUCKET, &name) == content.as_bytes());
        assert_eq!(self.server.unfinished(BUCKET), [""; 0]);
        until("the folder is empty", SOON, || (self.files(firmware).is_empty()).then_some(()));
    }

    /// What the folder has of a firmware.
    fn files(&self, firmware: u64) -> Vec<String> {
        let entries = std::fs::read_dir(self.world.broker.data().join("firmware")).expect("a folder").flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with(&format!("{firmware}."))).collect()
    }

    fn metric(&self, name: &str) -> u64 {
        let metrics = self.world.http().get("/metrics").body;
        let value = metrics.lines().find_map(|line| line.strip_prefix(&format!("turnpike_{name} ")).map(str::to_owned));
        value.and_then(|value| value.parse::<f64>().ok()).map_or(0, |value| value as u64)
    }

    /// The link that a device is offered for a firmware.
    #[track_caller]
    fn link(&self, firmware: u64, device: &mut Device) -> String {
        self.world.campaign(&json!({"name": "c", "firmware": firmware, "devices": [device.name]}));
        device.offer()["offer"]["url"].as_str().expect("a link").to_owned()
    }
}

#[test]
fn devices_take_firmware_out_of_a_bucket_by_range_and_in_blocks() {
    const SIZE: usize = 4096;
    let stored = stored(&keys());
    let world = &stored.world;
    // Three parts; the last is short.
    let large = content(1, (17 << 20) + 5);
    let first = stored.ready("1.0", &large);
    stored.holds(first, &large);
    assert!(stored.gate.seen("POST ") == 2 && stored.gate.seen("PUT ") == 3);
    let mut one = world.device("one");
    let link = stored.link(first, &mut one);
    let (status, _, body) = world.fetch(&link, "");
    assert!(status == 200 && body == large.as_bytes());
    let (from, to) = ((8 << 20) - 3, (8 << 20) + 300_000);
    let (status, head, body) = world.fetch(&link, &format!("range: bytes={from}-{to}\r\n"));
    assert!(status == 206 && head.contains(&format!("content-range: bytes {from}-{to}/{}", large.len())), "{head}");
    assert!(body == large.as_bytes()[from..=to]);
    assert_eq!(world.fetch(&link, "range: bytes=99999999-\r\n").0, 416);
    let fetched = stored.metric("ota_bucket_total{what=\"fetched\"}");
    assert_eq!(fetched, large.len().div_ceil(256 << 10) as u64, "each page once");

    // In blocks, to two devices: the bucket is asked once for each page, not for each block and each device.
    let small = content(2, 600_001);
    let second = stored.ready("2.0", &small);
    stored.holds(second, &small);
    let devices = ["two", "three"];
    let campaign = world.campaign(&json!({"name": "b", "firmware": second, "devices": devices}));
    world.reaches(campaign, "running");
    for name in devices {
        let mut device = world.device(name);
        let offer = device.check("1.0")["offer"].clone();
        assert_eq!(offer["offer"], json!(second));
        device.heard.clear();
        let mut blocks = Blocks { size: SIZE, file: vec![None; small.len().div_ceil(SIZE)] };
        while let Some(from) = blocks.file.iter().position(Option::is_none) {
            let ask = json!({"offer": second, "size": SIZE, "from": from, "missing": blocks.bitmap(from, 64)});
            let expected = blocks.file.iter().skip(from).take(64).filter(|block| block.is_none()).count();
            assert_eq!(device.say("ota/get", &ask), 0);
            for _ in 0..expected {
                let heard = device.hear();
                if heard.topic == device.topic("ota/block") {
                    blocks.take(second, &heard);
                }
            }
        }
        let whole: Vec<u8> = blocks.file.into_iter().flatten().flatten().collect();
        assert!(whole == small.as_bytes(), "{name}");
        device.progress(&offer, "applying");
        assert_eq!(device.check("2.0")["offer"], Value::Null);
    }
    world.reaches(campaign, "completed");
    assert_eq!(stored.metric("ota_bucket_total{what=\"fetched\"}") - fetched, 3);

    // Deleted, and gone from the bucket; what is in use stays.
    is(&world.http().delete(&World::path(&format!("firmware/{first}"))), 409, "in_use");
    assert_eq!(world.http().delete(&format!("/api/v1/campaigns/{campaign}")).status, 204);
    assert_eq!(world.http().delete(&World::path(&format!("firmware/{second}"))).status, 204);
    until("its object goes", SOON, || (stored.server.objects(BUCKET).len() == 1).then_some(()));
    stored.holds(first, &large);

    for action in ["firmware_finish", "firmware_delete"] {
        assert!(!world.audited(action).is_empty(), "{action}");
    }
    let told = world.broker.log() + &world.http().get("/api/v1/audit?limit=1000").body;
    assert!(!told.contains(SECRET_KEY) && !told.contains("AKIA"));
}

#[test]
fn a_bucket_that_is_down_or_denies_is_told_apart_and_loses_nothing() {
    let stored = stored(&keys());
    let world = &stored.world;
    let file = content(3, 300_000);
    let ready = stored.ready("1.0", &file);
    let (firmware, upload) = stored.uploaded("2.0", &file);
    stored.gate.shut();
    is(&world.finish(firmware, &json!({})), 503, "bucket_unreachable");
    let shown = stored.show(firmware);
    assert!(shown["state"] == "storing" && shown["why"].as_str().is_some_and(|why| why.contains("reached")), "{shown}");
    is(&world.put(&upload, 0, &file), 409, "storing");
    let campaign = json!({"name": "c", "firmware": firmware}).to_string();
    is(&world.http().post("/api/v1/campaigns", "application/json", &campaign), 409, "firmware_not_ready");
    // A device of another firmware hears that it is to come again.
    let mut one = world.device("one");
    let link = stored.link(ready, &mut one);
    let (status, head, body) = world.fetch(&link, "");
    assert!(
        status == 503
            && head.contains("retry-after: ")
            && String::from_utf8_lossy(&body).contains("bucket_unreachable")
    );
    let ask = json!({"offer": ready, "size": 4096, "offset": 0, "count": 1});
    assert_eq!(one.say("ota/get", &ask), 0x83, "implementation specific error");
    assert!(stored.metric("ota_bucket_total{what=\"unreachable\"}") > 1);
    assert_eq!(stored.metric("ota_storing"), 1);

    // It denies, since it knows no keys; asked again, it is tried again, and says what it is now.
    stored.server.demand_credentials(true);
    stored.gate.open();
    until("it is denied", SOON, || (world.finish(firmware, &json!({})).status == 502).then_some(()));
    is(&world.finish(firmware, &json!({})), 502, "bucket_denied");
    assert!(stored.show(firmware)["why"].as_str().is_some_and(|why| why.contains("denies access: 403")));

    // It goes on by itself.
    stored.server.demand_credentials(false);
    stored.becomes_ready(firmware);
    stored.holds(firmware, &file);
    until("it can be downloaded again", SOON, || (world.fetch(&link, "").2 == file.as_bytes()).then_some(()));
    assert_eq!(stored.metric("ota_storing"), 0);

    // An object that somebody has removed.
    let gone = stored.ready("3.0", "here today");
    let mut two = world.device("two");
    let link = stored.link(gone, &mut two);
    let name = format!("plant/{gone}-{}.bin", sha256("here today"));
    assert_eq!(stored.server.ask("DELETE", &format!("/{BUCKET}/{name}")).status, 204);
    let (status, _, body) = world.fetch(&link, "");
    assert!(status == 502 && String::from_utf8_lossy(&body).contains("bucket_missing"), "{status}");
}

#[test]
fn what_was_accepted_reaches_the_bucket_though_the_broker_is_killed_in_the_middle() {
    let folder = tempfile::tempdir().expect("a folder");
    let credentials = folder.path().join("credentials");
    let text = format!("[plant]\naws_access_key_id = AKIA\naws_secret_access_key = {SECRET_KEY}\n");
    std::fs::write(&credentials, text).expect("written");
    let mut stored = stored(&format!("credentials_file = {credentials:?}\nprofile = \"plant\""));
    let file = content(4, 20 << 20);
    let (firmware, _) = stored.uploaded("1.0", &file);
    stored.gate.stop_at("partNumber=2");
    let finish = World::path(&format!("firmware/{firmware}/finish"));
    let http = stored.world.http();
    let asked = std::thread::spawn(move || http.send("POST", &finish, "content-type: application/json\r\n", "{}"));
    stored.gate.wait_until_stopped();
    assert_eq!(stored.server.unfinished(BUCKET).len(), 1);
    assert_eq!(stored.show(firmware)["state"], "storing");
    stored.world.broker.kill();
    assert!(asked.join().expect("asked").is_empty());
    stored.gate.open();
    stored.world.broker.restart();
    stored.becomes_ready(firmware);
    // What the first process had begun is aborted, and there is one object.
    stored.holds(firmware, &file);

    // Killed while the bucket is down, with one accepted and one being deleted.
    let small = content(5, 100_000);
    let (waiting, _) = stored.uploaded("2.0", &small);
    stored.gate.shut();
    is(&stored.world.finish(waiting, &json!({})), 503, "bucket_unreachable");
    assert_eq!(stored.world.http().delete(&World::path(&format!("firmware/{firmware}"))).status, 204);
    stored.world.broker.kill();
    stored.world.broker.restart();
    assert_eq!(stored.show(waiting)["state"], "storing");
    stored.gate.open();
    stored.becomes_ready(waiting);
    stored.holds(waiting, &small);
    until("its object goes", SOON, || (stored.server.objects(BUCKET).len() == 1).then_some(()));

    // Deleted on its way: nothing of it stays, neither parts nor object.
    let (dropped, _) = stored.uploaded("3.0", &file);
    stored.gate.stop_at("partNumber=2");
    let path = World::path(&format!("firmware/{dropped}"));
    let (http, finish) = (stored.world.http(), format!("{path}/finish"));
    let asked = std::thread::spawn(move || http.post(&finish, "application/json", "{}").status);
    stored.gate.wait_until_stopped();
    assert_eq!(stored.world.http().delete(&path).status, 204);
    assert_eq!(asked.join().expect("asked"), 404);
    stored.gate.open();
    until("its parts go", SOON, || stored.server.unfinished(BUCKET).is_empty().then_some(()));
    until("its notes go", SOON, || stored.files(dropped).is_empty().then_some(()));
    assert_eq!(stored.server.objects(BUCKET).len(), 1);
}

#[test]
fn an_upload_goes_on_with_the_part_that_failed() {
    let stored = stored(&keys());
    let file = content(6, 17 << 20);
    let (firmware, _) = stored.uploaded("1.0", &file);
    stored.gate.stop_at("partNumber=3");
    let finish = World::path(&format!("firmware/{firmware}/finish"));
    let http = stored.world.http();
    let asked = std::thread::spawn(move || http.post(&finish, "application/json", "{}").status);
    stored.gate.wait_until_stopped();
    // The connections break, and there are no others.
    stored.gate.shut();
    assert_eq!(asked.join().expect("asked"), 503);
    stored.gate.open();
    stored.becomes_ready(firmware);
    stored.holds(firmware, &file);
    for (part, times) in [(1, 1), (2, 1)] {
        let beginning = format!("PUT /{BUCKET}/plant/{firmware}-{}.bin?partNumber={part}&", sha256(&file));
        assert_eq!(stored.gate.seen(&beginning), times, "{part}");
    }
}
