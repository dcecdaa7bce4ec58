//! What a product demands of its firmware, and what isn't taken: each fault by its own code, counted and on record, and what was accepted before stays.
//! Keys and signatures are openssl's.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use turnpike_tests::http::Answer;
use turnpike_tests::time::{SOON, until};

use crate::ota::{World, content, is, world};

/// Runs openssl in a folder.
#[track_caller]
fn openssl(folder: &Path, arguments: &str) {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output().expect("openssl");
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A key that signs firmware, made for the test.
struct Signer {
    folder: PathBuf,
    name: &'static str,
    sign: &'static str,
}

impl Signer {
    const PSS: &'static str = "dgst -sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest";

    fn new(folder: &Path, name: &'static str, make: &str, sign: &'static str) -> Self {
        openssl(folder, &format!("{make} -out {name}.pem"));
        openssl(folder, &format!("pkey -in {name}.pem -pubout -out {name}.pub"));
        Self { folder: folder.to_owned(), name, sign }
    }

    fn public(&self) -> String {
        std::fs::read_to_string(self.folder.join(format!("{}.pub", self.name))).expect("a key")
    }

    /// A signature of a message, in base64.
    fn sign(&self, message: &[u8]) -> String {
        let Self { folder, name, sign } = self;
        std::fs::write(folder.join("message"), message).expect("written");
        let end = if sign.starts_with("pkeyutl") { "-in message" } else { "message" };
        let key = if sign.starts_with("pkeyutl") { "-inkey" } else { "-sign" };
        openssl(folder, &format!("{sign} {key} {name}.pem -out signature {end}"));
        STANDARD.encode(std::fs::read(folder.join("signature")).expect("a signature"))
    }

    /// Of a file: of its SHA-256.
    fn of(&self, file: &str) -> String {
        self.sign(&Sha256::digest(file))
    }

    /// As a device does that holds the public key.
    fn verifies(&self, file: &str, signature: &str) {
        let Self { folder, name, sign } = self;
        std::fs::write(folder.join("message"), Sha256::digest(file)).expect("written");
        std::fs::write(folder.join("signature"), STANDARD.decode(signature).expect("base64")).expect("written");
        let arguments = if sign.starts_with("pkeyutl") {
            format!("pkeyutl -verify -pubin -inkey {name}.pub -rawin -in message -sigfile signature")
        } else {
            format!("{sign} -verify {name}.pub -signature signature message")
        };
        openssl(folder, &arguments);
    }
}

fn signers(folder: &Path) -> [Signer; 3] {
    [
        Signer::new(folder, "ed25519", "genpkey -algorithm ed25519", "pkeyutl -sign -rawin"),
        Signer::new(folder, "p256", "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256", "dgst -sha256"),
        Signer::new(folder, "rsa", "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048", Signer::PSS),
    ]
}

impl World {
    #[track_caller]
    fn demand(&self, demands: &Value) -> Value {
        let answer = self.http().put(&Self::path("ota"), &demands.to_string());
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    fn declare(&self, wanted: &Value) -> Answer {
        self.http().post(&Self::path("firmware"), "application/json", &wanted.to_string())
    }

    /// A file that has come whole and isn't verified yet.
    #[track_caller]
    fn uploaded(&self, wanted: &Value, content: &str) -> u64 {
        let mut wanted = wanted.clone();
        wanted["size"] = json!(content.len());
        let answer = self.declare(&wanted);
        assert_eq!(answer.status, 201, "{answer:?}");
        let made = answer.json();
        let answer = self.put(made["upload"].as_str().expect("a path"), 0, content);
        assert_eq!(answer.status, 200, "{answer:?}");
        made["firmware"].as_u64().expect("a number")
    }

    fn shown(&self, firmware: u64) -> Value {
        self.http().get(&Self::path(&format!("firmware/{firmware}"))).json()
    }

    /// How often a fault was counted.
    fn counted(&self, code: &str) -> u64 {
        let line = format!("turnpike_firmware_refused_total{{code=\"{code}\"}} ");
        let metrics = self.http().get("/metrics").body;
        metrics.lines().find_map(|found| found.strip_prefix(&line)?.parse().ok()).unwrap_or(0)
    }

    /// Each of these was counted so often, and is on record as often.
    #[track_caller]
    fn told(&self, faults: &[(&str, &str, u64)]) {
        for (action, code, times) in faults {
            assert_eq!(self.counted(code), *times, "{code}");
            // What was refused waits for no record.
            until(code, SOON, || {
                let records = self.audited(action);
                let is_it = |record: &&Value| record["result"] == "failed" && record["cause"] == *code;
                (records.iter().filter(is_it).count() as u64 == *times).then_some(())
            });
        }
    }
}

#[test]
fn a_product_that_demands_signatures_takes_no_firmware_without() {
    let world = world();
    let folder = world.folder.path();
    let signers = signers(folder);
    let [ed25519, p256, rsa] = &signers;
    let stranger = Signer::new(folder, "stranger", "genpkey -algorithm ed25519", "pkeyutl -sign -rawin");
    let before = world.firmware("0.9", "what was there before");
    let keys: Vec<_> = signers.iter().map(Signer::public).collect();
    let demands = world.demand(&json!({"signature_required": true, "keys": keys}));
    let fingerprints: Vec<&str> =
        demands["keys"].as_array().expect("a list").iter().filter_map(|key| key["fingerprint"].as_str()).collect();
    assert_eq!(fingerprints.len(), 3, "{demands}");

    let mut version = 0;
    let mut upload = |file: &str| {
        version += 1;
        let wanted = json!({"target": "mcu", "version": format!("1.{version}"), "any_hardware": true});
        world.uploaded(&wanted, file)
    };
    let file = content(20, 40_000);
    let refused = |firmware, body: Value, code| {
        is(&world.finish(firmware, &body), 422, code);
        assert_eq!(world.shown(firmware)["state"], "refused", "{code}");
    };
    refused(upload(&file), json!({}), "signature_missing");
    // Of other bytes; by a key that isn't the product's; of the file in place of its SHA-256; named as another key's; no signature at all.
    for signature in [p256.of("something else"), stranger.of(&file), rsa.sign(file.as_bytes()), STANDARD.encode("x")] {
        refused(upload(&file), json!({"signature": signature}), "signature_wrong");
    }
    let misnamed = json!({"signature": p256.of(&file), "key": fingerprints[0]});
    refused(upload(&file), misnamed, "signature_wrong");
    let unknown = json!({"signature": stranger.of(&file), "key": "00".repeat(32)});
    refused(upload(&file), unknown, "signature_unknown_key");
    let firmware = upload(&file);
    is(&world.finish(firmware, &json!({"signature": "no base64!"})), 400, "invalid");
    assert_eq!(world.shown(firmware)["state"], "uploading", "it can be finished yet");

    let mut accepted = Vec::new();
    for (at, signer) in [ed25519, p256, rsa].into_iter().enumerate() {
        let firmware = upload(&file);
        let done = world.finish(firmware, &json!({"signature": signer.of(&file)}));
        let told = done.json();
        assert_eq!((&told["state"], &told["signed_by"]), (&json!("ready"), &json!(fingerprints[at])), "{done:?}");
        accepted.push(firmware);
    }
    let named = json!({"signature": ed25519.of(&file), "key": fingerprints[0]});
    assert_eq!(world.finish(upload(&file), &named).status, 200);

    let finish = "firmware_finish";
    world.told(&[
        (finish, "signature_missing", 1),
        (finish, "signature_wrong", 5),
        (finish, "signature_unknown_key", 1),
    ]);
    for firmware in accepted.iter().chain([&before]) {
        assert_eq!(world.shown(*firmware)["state"], "ready");
    }
    // A device is shown the signature, and what isn't signed isn't offered any more.
    let mut one = world.device("one");
    let unsigned = json!({"name": "unsigned", "firmware": before, "devices": ["one"], "priority": 9});
    is(&world.begin(&unsigned), 409, "signature_missing");
    let signed = world.campaign(&json!({"name": "signed", "firmware": accepted[1], "devices": ["one"]}));
    let offer = one.offer()["offer"].clone();
    assert_eq!(offer["version"], world.shown(accepted[1])["version"]);
    p256.verifies(&file, offer["signature"].as_str().expect("a signature"));
    one.update(&world, &offer, &file);
    world.reaches(signed, "completed");
}

#[test]
fn what_doesnt_fit_is_refused_and_what_was_accepted_stays() {
    let world = world();
    let targets = json!({"mcu": {"release_min": 3, "hardware": ["A1", "B2"]}});
    world.demand(&json!({ "targets": targets }));
    let fitting = json!({"target": "mcu", "version": "1.0", "hardware": ["A1"], "release": 3, "size": 9});
    let with = |changes: Value| {
        let mut wanted = fitting.clone();
        for (field, value) in changes.as_object().expect("an object") {
            wanted[field] = value.clone();
        }
        wanted
    };
    let accepted = world.uploaded(&fitting, "what fits");
    assert_eq!(world.finish(accepted, &json!({})).json()["state"], "ready");
    let any = json!({"target": "mcu", "version": "3.0", "any_hardware": true, "release": 3, "size": 9});
    for (wanted, status, code) in [
        (with(json!({"version": "2.9", "release": 2})), 409, "rollback"),
        (with(json!({"version": "2.9", "release": 0})), 409, "rollback"),
        (with(json!({"version": "2.9", "target": "radio"})), 409, "unknown_target"),
        (with(json!({"version": "2.9", "hardware": ["A1", "C3"]})), 409, "unknown_hardware"),
        (any, 409, "unknown_hardware"),
        (with(json!({})), 409, "version_exists"),
        (with(json!({"version": "2.9", "size": 5_000_000_000_u64})), 413, "too_large"),
    ] {
        is(&world.declare(&wanted), status, code);
    }

    // Parts that are missing, and bytes that aren't what was said.
    let truncated = world.declare(&with(json!({"version": "2.1"}))).json();
    let (upload, firmware) = (truncated["upload"].as_str().expect("a path"), truncated["firmware"].as_u64());
    assert_eq!(world.put(upload, 0, "what").json()["uploaded"], 4);
    is(&world.put(upload, 6, "its"), 409, "upload_gap");
    is(&world.put(upload, 4, " fits and more"), 413, "upload_beyond");
    let firmware = firmware.expect("a number");
    is(&world.finish(firmware, &json!({})), 409, "upload_incomplete");
    assert_eq!(world.shown(firmware)["state"], "uploading", "the rest may come yet");
    for (at, (digest, wrong)) in
        [("sha256", "00".repeat(32)), ("md5", "00".repeat(16)), ("crc32", "00".repeat(4))].into_iter().enumerate()
    {
        let wanted = with(json!({"version": format!("2.{}", at + 2), digest: wrong}));
        let firmware = world.uploaded(&wanted, "what fits");
        is(&world.finish(firmware, &json!({})), 422, &format!("wrong_{digest}"));
        assert_eq!(world.shown(firmware)["state"], "refused");
    }
    let (create, upload, finish) = ("firmware_create", "firmware_upload", "firmware_finish");
    world.told(&[
        (create, "rollback", 2),
        (create, "unknown_target", 1),
        (create, "unknown_hardware", 2),
        (create, "version_exists", 1),
        (create, "too_large", 1),
        (upload, "upload_gap", 1),
        (upload, "upload_beyond", 1),
        (finish, "upload_incomplete", 1),
        (finish, "wrong_sha256", 1),
        (finish, "wrong_md5", 1),
        (finish, "wrong_crc32", 1),
    ]);

    // The counter goes up: what is there stays, and is offered to nobody.
    let targets = json!({"mcu": {"release_min": 4, "hardware": ["A1", "B2"]}});
    world.demand(&json!({ "targets": targets }));
    assert_eq!(world.shown(accepted)["state"], "ready");
    let newer = world.uploaded(&with(json!({"version": "4.0", "release": 4})), "what fits");
    assert_eq!(world.finish(newer, &json!({})).json()["state"], "ready");
    let mut one = world.device("one");
    assert_eq!(one.say("ota/check", &json!({"versions": {"mcu": "0.1"}, "hardware": "A1"})), 0);
    assert_eq!(one.offer()["offer"], Value::Null);
    is(&world.begin(&json!({"name": "old", "firmware": accepted, "devices": ["one"]})), 409, "rollback");
    world.campaign(&json!({"name": "new", "firmware": newer, "devices": ["one"]}));
    let offered = one.offer();
    assert_eq!(offered["offer"]["version"], "4.0", "{offered}");
}
