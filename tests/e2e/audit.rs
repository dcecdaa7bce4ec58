//! Who did what, as an operator finds it out.

use serde_json::Value;
use turnpike_tests::broker::{Broker, Setup, command};
use turnpike_tests::client::Client;
use turnpike_tests::credential::{PRODUCT, SECRET, aliyun, native};
use turnpike_tests::http::Http;
use turnpike_tests::time::{SOON, until};
use turnpike_tests::wire::{Connect, Version};

use crate::gate::{register, registered};

/// Records that fit, oldest first.
#[track_caller]
fn records(broker: &Broker, query: &str) -> Vec<Value> {
    let answer = broker.http().get(&format!("/api/v1/audit?order=asc&limit=1000{query}"));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["records"].as_array().expect("a list").clone()
}

/// The same, once there are so many.
#[track_caller]
fn records_of(broker: &Broker, query: &str, count: usize) -> Vec<Value> {
    until("the records are there", SOON, || Some(records(broker, query)).filter(|found| found.len() >= count))
}

fn texts<'a>(records: &'a [Value], field: &str) -> Vec<&'a str> {
    records.iter().map(|record| record[field].as_str().unwrap_or("")).collect()
}

#[track_caller]
fn verify(broker: &Broker) -> (Option<i32>, String) {
    verify_with(broker, &[])
}

#[track_caller]
fn verify_with(broker: &Broker, options: &[&str]) -> (Option<i32>, String) {
    let mut verify = command();
    verify.args(["audit", "verify", "--data"]).arg(broker.data()).args(options);
    let output = verify.output().expect("it runs");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn log_ins_refusals_and_log_outs_are_on_record() {
    let broker = registered();
    let good = native("client-of-one", "one", SECRET);
    let client = broker.client(&Connect::new(Version::V5, &good.client_id).login(&good.user, &good.password));
    client.disconnect();
    let sdk = aliyun("two", SECRET);
    drop(broker.client(&Connect::new(Version::V311, &sdk.client_id).login(&sdk.user, &sdk.password)));
    let wrong = native("client-of-one", "one", "ffffffffffffffffffffffffffffffff");
    let (_, ack) = Client::open(broker.mqtt(), &Connect::new(Version::V5, "c").login(&wrong.user, &wrong.password));
    assert_ne!(ack.code, 0);
    let unknown = native("c", "three", SECRET);
    let _ = Client::open(broker.mqtt(), &Connect::new(Version::V5, "c").login(&unknown.user, &unknown.password));
    let mistaken = Connect::new(Version::V5, "c").login("hunter2-is-my-password", "whatever");
    let _ = Client::open(broker.mqtt(), &mistaken);

    let log_ins = records_of(&broker, "&action=log_in", 5);
    assert_eq!(texts(&log_ins, "result"), ["ok", "ok", "refused", "refused", "refused"]);
    assert_eq!(texts(&log_ins, "cause"), ["", "", "wrong_signature", "unknown_device", "malformed"]);
    let (one, two) = (format!("device:{PRODUCT}/one"), format!("device:{PRODUCT}/two"));
    assert_eq!(texts(&log_ins, "actor"), [&*one, &*two, "unknown", "unknown", "unknown"]);
    // Whom they said they were; a user name of no format is not kept.
    assert_eq!(texts(&log_ins, "target"), ["", "", &*one, &*format!("device:{PRODUCT}/three"), ""]);
    assert!(texts(&log_ins, "source").iter().all(|source| source.starts_with("127.0.0.1:")));
    let client_ids: Vec<&str> = log_ins.iter().filter_map(|record| record["detail"]["client"].as_str()).collect();
    assert_eq!(client_ids, ["client-of-one", &*format!("{PRODUCT}.two"), "c", "c", "c"]);

    let mut ways: Vec<(String, String)> = records_of(&broker, "&action=log_out", 2)
        .iter()
        .map(|record| (record["actor"].to_string(), record["detail"]["how"].to_string()))
        .collect();
    ways.sort();
    let expected = [(one.clone(), "cleanly"), (two, "abruptly")];
    assert_eq!(ways, expected.map(|(actor, how)| (format!("\"{actor}\""), format!("\"{how}\""))));
    assert_eq!(records(&broker, &format!("&actor={one}")).len(), 2);
    assert_eq!(records(&broker, &format!("&target={one}&action=log_in")).len(), 1);
}

#[test]
fn changes_are_on_record_before_they_are_answered_and_never_with_a_secret() {
    let mut broker = registered();
    let path = format!("/api/v1/products/{PRODUCT}/devices/one");
    let http = broker.http();
    assert_eq!(http.post(&format!("{path}/disable"), "", "").status, 200);
    // `kill -9` right after the answer loses nothing that was answered.
    broker.kill();
    broker.restart();
    assert_eq!(broker.http().delete(&path).status, 204);
    let csv = "device,secret\nthree,secret-of-three\nfour,secret-of-four\n";
    let import = format!("/api/v1/products/{PRODUCT}/devices/import");
    assert_eq!(broker.http().post(&import, "text/csv", csv).status, 200);
    assert_eq!(broker.http().delete("/api/v1/products/nothing").status, 404);
    let stranger = Http { token: Some("guess-of-the-token".to_owned()), ..broker.http() };
    assert_eq!(stranger.get("/api/v1/audit").status, 401);

    let changes: Vec<Value> = records(&broker, "&actor=operator:*");
    let changes: Vec<Value> = changes.into_iter().filter(|record| record["action"] != "audit_read").collect();
    let expected =
        ["product_create", "device_create", "device_create", "device_disable", "device_delete", "devices_import"];
    assert_eq!(texts(&changes, "action"), expected);
    assert!(texts(&changes, "result").iter().all(|result| *result == "accepted"));
    let last = changes.last().expect("changes");
    assert_eq!((last["detail"]["count"].as_u64(), last["detail"]["last"].as_str()), (Some(2), Some("four")));
    assert_eq!(records_of(&broker, "&action=api_refused", 1).len(), 1);
    assert_eq!(texts(&records(&broker, "&action=broker_start"), "actor"), ["broker", "broker"]);

    broker.stop();
    let (code, said) = verify(&broker);
    assert_eq!(code, Some(0), "{said}");
    let files = std::fs::read_dir(broker.data().join("audit")).expect("an audit");
    for file in files.map(|entry| entry.expect("an entry").path()) {
        let text = std::fs::read_to_string(&file).expect("text");
        for secret in [SECRET, "secret-of-three", "guess-of-the-token", turnpike_tests::broker::ADMIN_TOKEN] {
            assert!(!text.contains(secret), "{secret} is in {}", file.display());
        }
    }
    assert!(!broker.log().contains(SECRET));
}

#[test]
fn the_search_is_paged_bounded_and_strict() {
    let broker = registered();
    let http = broker.http();
    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let page = http.get(&format!("/api/v1/audit?limit=2&action=device*{after}")).json();
        let records = page["records"].as_array().expect("a list");
        assert!(records.len() <= 2);
        seen.extend(records.iter().map(|record| record["seq"].as_u64().expect("a number")));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    // Two of the tests', and the demo's is there only where nobody has made a product before it.
    assert!(seen.len() >= 2 && seen.windows(2).all(|pair| pair[0] > pair[1]), "{seen:?}");
    for query in ["limit=0", "limit=1001", "order=up", "after=x", "from=yesterday", "unknown=1"] {
        assert_eq!(http.get(&format!("/api/v1/audit?{query}")).status, 400, "{query}");
    }
    assert_eq!(http.get("/api/v1/audit?from=2020-01-01&to=2020-01-02").json()["records"], serde_json::json!([]));
    let document = http.get("/api/openapi.json").json();
    assert!(document["paths"]["/api/v1/audit"]["get"].is_object());
}

#[test]
fn while_the_disk_is_full_nothing_changes_unrecorded_and_devices_still_come_in() {
    let data = tempfile::tempdir().expect("a folder");
    // The audit on its own, so that the store goes on when the audit can't.
    let folder = data.path().join("audit");
    let setup = Setup::closed().config(&format!("[audit]\nfolder = {folder:?}\n[store]\nengine = \"memory\"\n"));
    let mut broker = setup.start();
    register(&broker);
    let http = broker.http();
    broker.set_file_bytes_max(0);
    let good = native("c", "one", SECRET);
    drop(broker.client(&Connect::new(Version::V5, &good.client_id).login(&good.user, &good.password)));
    let path = format!("/api/v1/products/{PRODUCT}/devices/one");
    let refused = http.delete(&path);
    assert_eq!((refused.status, refused.json()["error"]["code"].as_str()), (503, Some("audit_unavailable")));
    assert_eq!(http.get(&path).status, 200, "it is as it was");
    let ready = http.get("/readyz");
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("audit"), "{ready:?}");
    assert!(http.get("/metrics").body.contains("turnpike_audit_healthy 0"));
    let other = native("d", "two", SECRET);
    drop(broker.client(&Connect::new(Version::V5, &other.client_id).login(&other.user, &other.password)));

    broker.set_file_bytes_max(u64::MAX);
    until("it is ready again", SOON, || (http.get("/readyz").status == 200).then_some(()));
    assert_eq!(http.delete(&path).status, 204);
    // Both log-ins waited.
    assert_eq!(records(&broker, "&action=log_in").len(), 2);
    broker.stop();
    let mut verify = command();
    verify.args(["audit", "verify", "--config"]).arg(broker.folder().join("turnpike.toml"));
    verify.arg("--data").arg(broker.data());
    // It says itself that something could not be kept.
    let output = verify.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let (_, rest) = said.split_once("--accept-dropped ").expect("told how many");
    let events = rest.split(' ').next().expect("a number").to_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let output = verify.args(["--accept-dropped", &events]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn an_audit_that_is_gone_is_missed() {
    let mut broker = Broker::start();
    broker.stop();
    std::fs::remove_dir_all(broker.data().join("audit")).expect("removed");
    broker.restart();
    broker.wait_for_log("this broker had an audit before");
    assert_eq!(records_of(&broker, "&action=chain_lost", 1).len(), 1);
    broker.stop();
    stays_noticed(&broker);
}

/// However often the broker starts, until an operator says that it is known.
#[track_caller]
fn stays_noticed(broker: &Broker) {
    let (code, said) = verify(broker);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("begun anew 1 times") && !said.contains("missing\n"), "{said}");
    let (code, said) = verify_with(broker, &["--accept-damages", "1"]);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn a_restart_doesnt_heal_an_audit_that_was_cut_short() {
    let mut broker = Broker::start();
    for n in 0..10 {
        assert!(broker.http().put(&format!("/api/v1/products/p{n}"), "{}").status < 300);
    }
    broker.stop();
    let folder = broker.data().join("audit");
    let files = std::fs::read_dir(&folder).expect("an audit").map(|entry| entry.expect("an entry").path());
    let segment =
        files.filter(|file| file.extension().is_some_and(|ending| ending == "jsonl")).max().expect("a segment");
    let text = std::fs::read_to_string(&segment).expect("text");
    let kept: String = text.split_inclusive('\n').take(4).collect();
    std::fs::write(&segment, kept).expect("cut");
    std::fs::remove_file(folder.join("head")).expect("removed");
    assert_eq!(verify(&broker).0, Some(1));
    broker.restart();
    broker.stop();
    stays_noticed(&broker);
}

#[test]
fn an_audit_that_goes_under_the_broker_is_missed_at_once() {
    let data = tempfile::tempdir().expect("a folder");
    let folder = data.path().join("audit");
    let mut broker = Setup::closed().config(&format!("[audit]\nfolder = {folder:?}\n")).start();
    let http = broker.http();
    assert!(http.put("/api/v1/products/one", "{}").status < 300);
    // A file in the folder's place keeps the broker from making it again for now.
    std::fs::remove_dir_all(&folder).expect("removed");
    std::fs::write(&folder, "").expect("a file");
    let refused = http.put("/api/v1/products/two", "{}");
    assert_eq!((refused.status, refused.json()["error"]["code"].as_str()), (503, Some("audit_unavailable")));
    assert_eq!(http.get("/api/v1/products/two").status, 404, "nothing has changed");
    let ready = http.get("/readyz");
    assert!(ready.status == 503 && ready.body.contains("audit"), "{ready:?}");
    assert!(http.get("/metrics").body.contains("turnpike_audit_healthy 0"));
    broker.wait_for_log("was removed or replaced under the broker");

    std::fs::remove_file(&folder).expect("removed");
    until("it is ready again", SOON, || (http.get("/readyz").status == 200).then_some(()));
    assert!(http.put("/api/v1/products/two", "{}").status < 300);
    let damages = records_of(&broker, "&action=damage_found", 1);
    assert_eq!((damages.len(), damages[0]["detail"]["how"].as_str()), (1, Some("files_gone")));
    // The first went with the folder; the second was refused, and made when it was asked for again.
    let made = |target: &str| records(&broker, &format!("&action=product_create&target={target}"));
    assert_eq!(made("product:one"), [] as [Value; 0]);
    assert_eq!(texts(&made("product:two"), "result"), ["failed", "accepted"]);
    broker.stop();
    let config = broker.folder().join("turnpike.toml");
    let (code, said) = verify_with(&broker, &["--config", config.to_str().expect("a path")]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("no record says that they were removed") && said.contains("1 times"), "{said}");
}

#[test]
fn an_older_audit_put_in_its_place_is_found_out() {
    let mut broker = Broker::start();
    assert!(broker.http().put("/api/v1/products/one", "{}").status < 300);
    broker.stop();
    let (folder, older) = (broker.data().join("audit"), broker.folder().join("older"));
    copy(&folder, &older);
    broker.restart();
    for n in 0..20 {
        assert!(broker.http().put(&format!("/api/v1/products/p{n}"), "{}").status < 300);
    }
    broker.stop();
    // Segments and head fit: of itself nothing is missing.
    std::fs::remove_dir_all(&folder).expect("removed");
    copy(&older, &folder);
    let (code, said) = verify(&broker);
    assert_eq!(code, Some(0), "{said}");
    broker.restart();
    broker.wait_for_log("the audit ends before the last record that the store knows of");
    let found = &records_of(&broker, "&action=damage_found", 1)[0]["detail"];
    let (last, mark) = (found["sequence"].as_u64().expect("a number"), found["last"].as_u64().expect("a number"));
    assert!(mark >= last + 20, "{found}");
    broker.stop();
    // It is said once, and stays said.
    broker.restart();
    broker.stop();
    stays_noticed(&broker);
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir(to).expect("a folder");
    for file in std::fs::read_dir(from).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        std::fs::copy(&file, to.join(file.file_name().expect("a name"))).expect("copied");
    }
}
