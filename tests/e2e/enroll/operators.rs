//! What operators do: packages, keys, lists, and what they are told of their mistakes.

use super::*;

#[test]
fn operators_are_told_what_is_wrong() {
    let broker = house(&[], 5);
    let http = broker.http();
    for (body, status) in [
        (json!({ "ways": ["burn-in"], "package": 9 }), 404),
        (json!({ "ways": ["by-hand"] }), 400),
        (json!({ "ways": "burn-in" }), 400),
        (json!({ "ways": [], "secret": "short" }), 400),
        (json!({ "ways": [], "secrets": [] }), 400),
    ] {
        assert_eq!(http.put(&path("/registration"), &body.to_string()).status, status, "{body}");
    }
    assert_eq!(http.put("/api/v1/products/toaster/registration", r#"{"ways": []}"#).status, 404);
    let issue = |count: Value| error(&post(&broker, "/packages/1/keys", &json!({ "count": count })));
    assert_eq!(issue(json!(6)), code(409, "capacity"));
    assert_eq!((issue(json!(0)).0, issue(json!(10_001)).0, issue(json!("5")).0), (400, 400, 400));
    assert_eq!(post(&broker, "/packages/1/keys", &json!({ "count": 4 })).status, 201);
    let shown = http.get(&path("/packages/1/keys?from=1&limit=2")).json();
    assert_eq!(shown["keys"].as_array().map(Vec::len), Some(2));
    assert_eq!(error(&http.put(&path("/packages/1"), r#"{"quota": 3}"#)), code(409, "quota"));
    assert_eq!(http.get(&path("/packages/7")).status, 404);
    assert_eq!(post(&broker, "/packages", &json!({ "quota": -1 })).status, 400);
    assert_eq!(post(&broker, "/packages", &json!({ "quota": 1 })).json()["package"], 2);
    let numbers = http.get(&path("/packages")).json();
    let numbers: Vec<_> =
        numbers["packages"].as_array().expect("a list").iter().map(|p| p["package"].as_u64()).collect();
    assert_eq!(numbers, [Some(1), Some(2)]);
    // Nobody without the token, and nobody sees the product's secret.
    for rest in ["/packages", "/registration", "/packages/1/keys", "/lists/mac"] {
        assert_eq!(device(&broker).get(&path(rest)).status, 401);
    }
    assert!(!http.get(&path("/registration")).body.contains(PRODUCT_SECRET));
    for action in ["package_put", "keys_issue", "keys_show", "product_registration"] {
        assert!(!audited(&broker, action).is_empty(), "{action}");
    }
    let document = http.get("/api/openapi.json").json();
    for path in ["/api/v1/register", "/api/v1/products/{product}/packages/{package}/keys", "/auth/register/device"] {
        assert!(document["paths"][path].is_object(), "{path}");
    }
}

#[test]
fn a_list_is_uploaded_read_by_page_and_emptied() {
    let broker = house(&["listed"], 100);
    let http = broker.http();
    let csv = "kind,identifier\nmac,00:1A:2B:3C:4D:5E\nimei,490154203237518\nimei,490154203237519\nserial,SN-0001\n\
               serial,SN-0001\ncolour,red\nmac\n\nserial,SN-0002";
    let report = upload(&broker, csv);
    assert_eq!((&report["listed"], &report["kept"], &report["refused"]), (&json!(4), &json!(1), &json!(3)));
    let lines: Vec<_> =
        report["faults"].as_array().expect("a list").iter().map(|fault| fault["line"].as_u64()).collect();
    assert_eq!(lines, [Some(4), Some(7), Some(8)]);
    let one = |rest: &str| http.put(&path(&format!("/packages/1/list/{rest}")), "").status;
    assert_eq!(
        [one("serial/SN-0003"), one("serial/SN-0003"), one("mac/nonsense"), one("colour/x")],
        [201, 200, 400, 400]
    );
    let first = http.get(&path("/lists/serial?limit=2")).json();
    assert_eq!((&first["identifiers"][1]["identifier"], &first["next"]), (&json!("SN-0002"), &json!("SN-0002")));
    let second = http.get(&path("/lists/serial?limit=2&after=SN-0002")).json();
    assert_eq!((second["identifiers"].as_array().map(Vec::len), &second["next"]), (Some(1), &Value::Null));
    let made = register(&broker, &listed("001a.2b3c.4d5e"));
    assert_eq!((made.status, text(&made, "device")), (201, "001A2B3C4D5E".to_owned()));
    assert!(logs_in(&broker, "001A2B3C4D5E", &text(&made, "secret")));
    let mac = path("/lists/mac/00-1A-2B-3C-4D-5E");
    assert_eq!(http.get(&mac).json()["device"], "001A2B3C4D5E");
    assert_eq!(error(&http.delete(&mac)), code(409, "in_use"));
    assert_eq!(http.post(&format!("{mac}/release"), "", "").status, 204);
    assert_eq!((http.delete(&mac).status, http.delete(&mac).status), (204, 404));
    assert_eq!(error(&register(&broker, &listed("001a.2b3c.4d5e"))), code(404, "unknown"));
    // With the product goes all of it; a new one of that name begins with nothing.
    assert_eq!(http.delete(&path("")).status, 204);
    assert_eq!(http.put(&path(""), "{}").status, 201);
    assert_eq!(http.get(&path("/registration")).json(), json!({ "ways": [], "has_secret": false }));
    assert_eq!(http.get(&path("/packages")).json()["packages"], json!([]));
    assert_eq!(http.get(&path("/lists/imei")).json()["identifiers"], json!([]));
}

/// A file of many lines, of which few are kept in memory at once.
#[test]
fn a_long_list_survives_kill_9() {
    let mut broker = house(&["listed"], 100);
    let csv: String = (0..20_000).map(|n| format!("serial,SN-{n:06}\n")).collect();
    assert_eq!(upload(&broker, &csv)["listed"], 20_000);
    broker.kill();
    broker.restart();
    assert_eq!(broker.http().get(&path("/packages/1")).json()["listed"], 20_000);
    assert_eq!(register(&broker, &listed("SN-019999")).status, 201);
}
