//! What is kept of a user, until nothing is.

use serde_json::{Value, json};
use turnpike_tests::broker::{Broker, Setup};
use turnpike_tests::client::End;
use turnpike_tests::credential::{PRODUCT, SECRET, native};
use turnpike_tests::time::{SOON, until};
use turnpike_tests::wire::{Connect, Publish, Version};

const USER: &str = "/api/v1/apps/home/users/alice@example.com";

#[track_caller]
fn ask(broker: &Broker, method: &str, path: &str, body: &Value) -> Value {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = broker.http().request(method, path, "application/json", &body);
    assert!((200..300).contains(&answer.status), "{method} {path} {body}: {answer:?}");
    if answer.body.is_empty() { Value::Null } else { answer.json() }
}

fn refused(broker: &Broker, method: &str, path: &str, body: &Value) -> (u16, String) {
    let answer = broker.http().request(method, path, "application/json", &body.to_string());
    (answer.status, answer.json()["error"]["code"].as_str().unwrap_or("").to_owned())
}

/// The app, two users, and a device that is the first one's and shared with the second.
fn prepare(broker: &Broker) {
    for path in ["/api/v1/apps/home", USER, "/api/v1/apps/home/users/bob"] {
        ask(broker, "PUT", path, &json!({}));
    }
    ask(broker, "PUT", &format!("/api/v1/products/{PRODUCT}"), &json!({}));
    let device = format!("/api/v1/products/{PRODUCT}/devices/d");
    ask(broker, "PUT", &device, &json!({ "secret": SECRET }));
    let proof = ask(broker, "POST", &format!("{device}/proofs"), &json!({ "kind": "passcode" }));
    let by = json!({ "product": PRODUCT, "device": "d", "passcode": proof["text"] });
    ask(broker, "POST", &format!("{USER}/devices"), &by);
    ask(broker, "PUT", &format!("{device}/users/home/bob"), &json!({ "role": "view" }));
}

fn report(broker: &Broker, number: &Value) -> Value {
    ask(broker, "GET", &format!("/api/v1/apps/home/erasures/{}", number.as_str().expect("a number")), &Value::Null)
}

fn done(broker: &Broker, number: &Value) -> Value {
    until("it is done", SOON, || Some(report(broker, number)).filter(|report| report["state"] == "done"))
}

fn metric(broker: &Broker, line: &str) -> bool {
    broker.http().get("/metrics").body.lines().any(|known| known == line)
}

#[test]
fn a_user_is_erased_and_the_report_says_what_was_there() {
    let broker = Setup::closed().config("shards = 1\n").start();
    prepare(&broker);
    let code = ask(&broker, "POST", &format!("{USER}/codes"), &json!({ "ttl_s": 600 }))["code"].clone();
    let login = |client: &str| {
        let connect = Connect::durable(Version::V5, client, 3600);
        connect.login("home/alice@example.com", code.as_str().expect("a code"))
    };
    let mut away = broker.client(&login("away"));
    assert_eq!(away.subscribe(&[("user/home:alice@example.com/#", 1)]), [1]);
    away.disconnect();
    let of_device = native("d", "d", SECRET);
    let connect = Connect::new(Version::V5, &of_device.client_id).login(&of_device.user, &of_device.password);
    let mut device = broker.client(&connect);
    device.publish(&Publish::new(&format!("dev/{PRODUCT}/d/up/x"), b"for her").qos(1, 1));
    let mut here = broker.client(&login("here"));
    let asked = ask(&broker, "POST", &format!("{USER}/erasure"), &Value::Null);
    assert_eq!(asked["due_at"].as_u64(), asked["asked_at"].as_u64().map(|at_s| at_s + 7 * 24 * 3600), "{asked}");
    assert_eq!(here.end(), End::Disconnected(0x87));
    let report = done(&broker, &asked["erasure"]);
    let erased = &report["erased"];
    for (kind, count) in [("account", 1), ("bindings", 1), ("shares_given", 1), ("session_codes", 1), ("log_ins", 2)] {
        assert_eq!(erased[kind], count, "{kind} in {report}");
    }
    assert_eq!((&erased["places"], &erased["sessions"]), (&json!(2), &json!(2)), "{report}");
    assert!(erased["queued_messages"].as_u64() >= Some(1), "{report}");
    assert!(!report.to_string().contains("alice@example.com"), "{report}");
    assert!(report["asked_by"].as_str().is_some_and(|by| by.starts_with("operator:")), "{report}");
    let kept: Vec<_> = report["kept"].as_array().expect("a list").iter().map(|kept| &kept["what"]).collect();
    assert!(kept.contains(&&json!("audit")), "{report}");
    assert_eq!(refused(&broker, "GET", USER, &Value::Null).0, 404);
    assert_eq!(refused(&broker, "POST", &format!("{USER}/erasure"), &json!({})).0, 404);
    let records = ask(&broker, "GET", "/api/v1/audit?order=asc&limit=1000&action=erasure_*", &Value::Null);
    let said: Vec<_> = records["records"].as_array().expect("a list").iter().map(|one| &one["action"]).collect();
    assert_eq!(said, ["erasure_ask", "erasure_done"]);
    assert!(metric(&broker, "turnpike_erasures{state=\"done\"} 1") && metric(&broker, "turnpike_erasures_overdue 0"));
    // Whoever gets the name next finds nothing.
    ask(&broker, "PUT", USER, &Value::Null);
    let export = ask(&broker, "GET", &format!("{USER}/export"), &Value::Null);
    for kind in ["devices", "shares_given", "session_codes", "log_ins", "sessions"] {
        assert_eq!(export[kind], json!([]), "{kind}");
    }
}

#[test]
fn one_that_waits_survives_a_kill_and_deletion_hastens_it() {
    let mut broker = Setup::closed().start();
    prepare(&broker);
    let later = json!({ "wait_s": 100_000, "due_s": 200_000 });
    let asked = ask(&broker, "POST", &format!("{USER}/erasure"), &later);
    assert_eq!((&asked["state"], &asked["user"]), (&json!("waiting"), &json!("alice@example.com")));
    assert!(metric(&broker, "turnpike_erasures{state=\"waiting\"} 1"));
    broker.kill();
    broker.restart();
    assert_eq!(report(&broker, &asked["erasure"]), asked, "as it was");
    let again = ask(&broker, "POST", &format!("{USER}/erasure"), &later);
    assert_eq!(again["erasure"], asked["erasure"]);
    let deleted = ask(&broker, "DELETE", USER, &Value::Null);
    assert_eq!((&deleted["erasure"], &deleted["devices"]), (&asked["erasure"], &json!(1)));
    assert_eq!(report(&broker, &asked["erasure"])["state"], "done");
    broker.kill();
    broker.restart();
    let list = ask(&broker, "GET", "/api/v1/apps/home/erasures", &Value::Null);
    assert_eq!(list["erasures"].as_array().map(Vec::len), Some(1));
    assert_eq!(list["erasures"][0]["erased"]["shares_given"], 1);
    for wrong in [json!({ "wait_s": 600_000 }), json!({ "due_s": 604_801 }), json!({ "wait_s": 2, "due_s": 1 })] {
        let refused = refused(&broker, "POST", "/api/v1/apps/home/users/bob/erasure", &wrong);
        assert_eq!(refused, (400, "invalid".to_owned()), "{wrong}");
    }
    let missing = "/api/v1/apps/home/erasures/1";
    assert_eq!(refused(&broker, "GET", missing, &Value::Null).0, 404);
}

#[test]
fn retained_messages_of_a_feed_go_and_stay_gone() {
    // Only who comes in unknown can put them there: nobody else publishes on feeds.
    let mut broker = Setup::anonymous().start();
    for path in ["/api/v1/apps/home", USER] {
        ask(&broker, "PUT", path, &json!({}));
    }
    let mut client = broker.clean(Version::V5, "c");
    for topic in ["user/home:alice@example.com/a/b", "user/home:alice@example.com/c", "user/home:bob/a"] {
        client.publish(&Publish::new(topic, b"x").qos(1, 1).retain());
    }
    let asked = ask(&broker, "POST", &format!("{USER}/erasure"), &Value::Null);
    assert_eq!(done(&broker, &asked["erasure"])["erased"]["retained_messages"], 2);
    broker.kill();
    broker.restart();
    let mut client = broker.clean(Version::V5, "c");
    client.subscribe(&[("user/#", 0)]);
    assert_eq!(client.publish_in().topic, "user/home:bob/a");
    client.quiet();
}
