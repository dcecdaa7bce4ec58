//! Identities in two places: what a device states of itself, sessions that go back and forth, and whoever tries too often.

use std::path::PathBuf;

use serde_json::json;
use turnpike_tests::broker::{Broker, Setup};
use turnpike_tests::certificate::Identity;
use turnpike_tests::client::{Client, End};
use turnpike_tests::credential::{Credential, PRODUCT, SECRET, aliyun, hmac_sha256, native};
use turnpike_tests::time::{SOON, until};
use turnpike_tests::wire::{Connect, Version, user};

use crate::gate::{register, registered};

const FACTOR: &str = "burned in";
const MAC: &str = "001b44113ab7";

fn value(factor: &str, firmware: &str) -> String {
    hmac_sha256(factor, &format!("v1a\n{firmware}\n{MAC}"))
}

fn expect(broker: &Broker, body: &serde_json::Value) -> serde_json::Value {
    let answer = broker.http().put(&path("one/attestation"), &body.to_string());
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn path(rest: &str) -> String {
    format!("/api/v1/products/{PRODUCT}/devices/{rest}")
}

fn policy(broker: &Broker, policy: &serde_json::Value) {
    let answer = broker.http().put(&format!("/api/v1/products/{PRODUCT}/policy"), &policy.to_string());
    assert_eq!(answer.status, 200, "{answer:?}");
}

fn open(broker: &Broker, connect: &Connect) -> u8 {
    Client::open(broker.mqtt(), connect).1.code
}

/// MQTT 5, by user properties.
fn by_properties(login: &Credential, firmware: &str, value: &str) -> Connect {
    Connect::new(Version::V5, &login.client_id)
        .login(&login.user, &login.password)
        .prop(user("turnpike-firmware", firmware))
        .prop(user("turnpike-attestation", value))
}

/// MQTT 3.1.1, behind the user name.
fn by_user_name(login: &Credential, firmware: &str, value: &str) -> Connect {
    let user = format!("{}?firmware={firmware}&attestation={value}", login.user);
    Connect::new(Version::V311, &login.client_id).login(&user, &login.password)
}

#[track_caller]
fn metric(broker: &Broker, what: &str) -> u64 {
    let name = format!("turnpike_guard_events_total{{event=\"{what}\"}} ");
    let text = broker.http().get("/metrics").body;
    let line = text.lines().find_map(|line| line.strip_prefix(&name).map(str::to_owned));
    line.unwrap_or_else(|| panic!("no {name}")).parse().expect("a number")
}

/// Waits until there are so many records of one action.
#[track_caller]
fn audited(broker: &Broker, action: &str, count: usize) -> Vec<serde_json::Value> {
    let path = format!("/api/v1/audit?order=asc&limit=1000&action={action}");
    let records = || broker.http().get(&path).json()["records"].as_array().expect("a list").clone();
    // What is on its way there is written within moments.
    let found = until("the audit has it", SOON, || Some(records()).filter(|records| records.len() >= count));
    assert_eq!(found.len(), count, "{found:?}");
    found
}

#[test]
fn what_a_device_states_is_held_against_what_is_expected() {
    let mut broker = registered();
    assert_eq!(broker.http().get(&path("one/attestation")).status, 404);
    let shown = expect(&broker, &json!({ "mac": "00:1B:44:11:3A:B7", "factor": FACTOR }));
    assert_eq!(shown, json!({ "mac": MAC }), "a factor that was given isn't shown");
    let right = value(FACTOR, "1.2.3");
    let wrong = value("another factor", "1.2.3");
    assert_eq!(open(&broker, &by_properties(&native("c", "one", SECRET), "1.2.3", &right)), 0);
    assert_eq!(open(&broker, &by_user_name(&native("c", "one", SECRET), "1.2.3", &right)), 0);
    assert_eq!(open(&broker, &by_user_name(&aliyun("one", SECRET), "1.2.3", &right)), 0);
    assert_eq!(metric(&broker, "attestation_mismatch"), 0);
    // A product that says nothing wants to know, and no more.
    assert_eq!(open(&broker, &by_properties(&native("c", "one", SECRET), "1.2.3", &wrong)), 0);
    assert_eq!(open(&broker, &by_properties(&native("c", "one", SECRET), "1.2.4", &right)), 0);
    assert_eq!(metric(&broker, "attestation_mismatch"), 2);
    broker.wait_for_log("attestation_mismatch");
    let told = audited(&broker, "clone_detected", 2);
    assert_eq!(told[0]["target"].as_str(), Some("device:lamp/one"));
    // A product that demands it.
    policy(&broker, &json!({ "require_attestation": true }));
    for is_again in [false, true] {
        if is_again {
            // What was answered has reached the disk, and opens again.
            broker.kill();
            broker.restart();
        }
        assert_eq!(open(&broker, &by_properties(&native("c", "one", SECRET), "1.2.3", &right)), 0);
        assert_eq!(open(&broker, &by_properties(&native("c", "one", SECRET), "1.2.3", &wrong)), 0x87);
        assert_eq!(open(&broker, &by_user_name(&native("c", "one", SECRET), "1.2.3", &wrong)), 5);
        for device in ["one", "two"] {
            let login = native("c", device, SECRET);
            let bare = Connect::new(Version::V5, "c").login(&login.user, &login.password);
            assert_eq!(open(&broker, &bare), 0x87, "nothing stated, or nothing expected");
        }
    }
    // Firmware that isn't the expected one, with a value of its own that fits.
    expect(&broker, &json!({ "mac": MAC, "factor": FACTOR, "firmware": "1.2.4" }));
    assert_eq!(open(&broker, &by_properties(&native("c", "one", SECRET), "1.2.3", &right)), 0x87);
    assert_eq!(open(&broker, &by_properties(&native("c", "one", SECRET), "1.2.4", &value(FACTOR, "1.2.4"))), 0);
    for cause in ["attestation_missing", "attestation_mismatch"] {
        until("the audit has it", SOON, || {
            let records = broker.http().get("/api/v1/audit?limit=1000&action=log_in").json();
            let has = |record: &serde_json::Value| record["cause"] == cause;
            records["records"].as_array().expect("a list").iter().any(has).then_some(())
        });
    }
    audited(&broker, "device_attestation", 2);
    assert!(!broker.log().contains(FACTOR) && !broker.log().contains(&right));
}

#[test]
fn expectations_are_set_shown_and_taken_away() {
    let broker = registered();
    let made = expect(&broker, &json!({ "mac": MAC, "firmware": "1.2.3" }));
    let factor = made["factor"].as_str().expect("one is made").to_owned();
    let shown = broker.http().get(&path("one/attestation")).json();
    assert_eq!(shown, json!({ "mac": MAC, "firmware": "1.2.3" }), "shown once");
    policy(&broker, &json!({ "require_attestation": true }));
    let connect = || by_properties(&native("c", "one", SECRET), "1.2.3", &value(&factor, "1.2.3"));
    assert_eq!(open(&broker, &connect()), 0);
    assert_eq!(broker.http().delete(&path("one/attestation")).status, 204);
    assert_eq!(open(&broker, &connect()), 0x87);
    for wrong in [
        json!({ "mac": "00" }),
        json!({ "firmware": "1" }),
        json!({ "mac": MAC, "factor": "short" }),
        json!({ "mac": MAC, "firmware": "a b" }),
        json!({ "mac": MAC, "x": 1 }),
    ] {
        let answer = broker.http().put(&path("one/attestation"), &wrong.to_string());
        assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (400, Some("invalid")), "{wrong}");
    }
    assert_eq!(broker.http().put(&path("nobody/attestation"), &json!({ "mac": MAC }).to_string()).status, 404);
    // A new device of an old one's name isn't held to what was expected of the old one.
    expect(&broker, &json!({ "mac": MAC, "factor": FACTOR }));
    assert_eq!(broker.http().delete(&path("one")).status, 204);
    assert_eq!(broker.http().put(&path("one"), &json!({ "secret": SECRET }).to_string()).status, 201);
    assert_eq!(broker.http().get(&path("one/attestation")).status, 404);
}

#[test]
fn a_clone_is_refused_with_its_original_where_the_product_says_so() {
    let mut broker = registered();
    expect(&broker, &json!({ "mac": MAC, "factor": FACTOR }));
    policy(&broker, &json!({ "refuse_clones": true }));
    // The guard learns of it again after a restart.
    broker.kill();
    broker.restart();
    let right = value(FACTOR, "1");
    let (mut original, ack) = Client::open(broker.mqtt(), &by_properties(&native("c", "one", SECRET), "1", &right));
    assert_eq!(ack.code, 0);
    assert_eq!(open(&broker, &by_properties(&native("c", "one", SECRET), "1", &"0".repeat(64))), 0x8A);
    assert_eq!(original.end(), End::Disconnected(0x87), "what it has open is closed");
    assert_eq!(open(&broker, &by_properties(&native("c", "one", SECRET), "1", &right)), 0x8A, "nobody knows which");
    assert_eq!(open(&broker, &by_properties(&native("c", "two", SECRET), "1", &right)), 0, "nothing is expected of it");
}

/// A proxy's word for where a client comes from.
fn from(broker: &Broker, last: u8, connect: &Connect) -> (Client, Option<u8>) {
    let mut client = Client::raw(broker.address("proxied"), connect.version);
    let port = broker.address("proxied").port();
    client.send(format!("PROXY TCP4 192.0.{last}.1 127.0.0.1 4000 {port}\r\n").as_bytes());
    client.send(&connect.encode());
    let code = match client.recv_or_end() {
        Some(turnpike_tests::wire::Packet::ConnAck(ack)) => Some(ack.code),
        Some(other) => panic!("{other:?}"),
        None => None,
    };
    (client, code)
}

fn proxied(guard: &str) -> Broker {
    let listeners = "[http]\naddress = \"127.0.0.1:0\"\n[[listeners]]\nkind = \"mqtt\"\nname = \"proxied\"\n\
                     address = \"127.0.0.1:0\"\nproxy_protocol = true\n";
    let plain = Identity { certificate: PathBuf::new(), key: PathBuf::new() };
    let broker = Setup::listeners(&["mqtt"], &plain).config(&format!("[guard]\n{guard}\n{listeners}")).start();
    register(&broker);
    broker
}

fn login(device: &str, secret: &str) -> Connect {
    let login = native("c", device, secret);
    Connect::new(Version::V5, &login.client_id).login(&login.user, &login.password)
}

#[test]
fn a_session_that_goes_back_and_forth_between_two_places_is_two_devices() {
    for (refuse, last) in [(false, 0), (true, 0x8A)] {
        let broker = proxied("clones = \"2/10m\"");
        policy(&broker, &json!({ "refuse_clones": refuse }));
        let mut held = Vec::new();
        let mut code = None;
        for place in [1, 2, 1, 2, 1] {
            let (client, said) = from(&broker, place, &login("one", SECRET));
            held.push(client);
            code = said;
            if said != Some(0) {
                break;
            }
        }
        assert_eq!(code, Some(last));
        assert_eq!(metric(&broker, "clone"), 1);
        broker.wait_for_log("clone_suspected");
        assert_eq!(audited(&broker, "clone_detected", 1)[0]["target"].as_str(), Some("device:lamp/one"));
    }
}

#[test]
fn a_network_that_is_banned_by_hand_loses_its_connections() {
    let broker = proxied("");
    let (mut here, code) = from(&broker, 1, &login("one", SECRET));
    assert_eq!(code, Some(0));
    let (mut elsewhere, code) = from(&broker, 2, &login("two", SECRET));
    assert_eq!(code, Some(0));
    let mut silent = Client::raw(broker.address("proxied"), Version::V5);
    let port = broker.address("proxied").port();
    silent.send(format!("PROXY TCP4 192.0.1.9 127.0.0.1 4000 {port}\r\n").as_bytes());
    let ban = json!({ "network": "::ffff:192.0.1.0/120" });
    assert_eq!(broker.http().post("/api/v1/bans", "application/json", &ban.to_string()).status, 204);
    assert_eq!(here.end(), End::Disconnected(0x98), "0x8A is no reason of a DISCONNECT");
    assert!(matches!(silent.end(), End::Closed));
    elsewhere.quiet();
    assert_eq!(from(&broker, 1, &login("one", SECRET)).1, None, "closed without a word");
    assert_eq!(broker.http().delete("/api/v1/bans?network=192.0.1.0/24").status, 204);
    assert_eq!(from(&broker, 1, &login("one", SECRET)).1, Some(0));
}

/// With a client id of its own, so that nothing is taken over.
fn login_as(client_id: &str, device: &str) -> Connect {
    let login = native(client_id, device, SECRET);
    Connect::new(Version::V5, &login.client_id).login(&login.user, &login.password)
}

#[test]
fn a_device_that_is_in_two_networks_at_once_is_two() {
    let broker = proxied("");
    // Client ids enough for the connections to be at home on several shards.
    let mut held: Vec<Client> = Vec::new();
    for n in 0..8 {
        let (client, code) = from(&broker, 1, &login_as(&format!("here-{n}"), "one"));
        assert_eq!(code, Some(0));
        held.push(client);
    }
    assert_eq!(from(&broker, 2, &login_as("elsewhere", "two")).1, Some(0));
    assert_eq!(metric(&broker, "clone"), 0, "several connections from one network, and another device");
    let (_clone, code) = from(&broker, 2, &login_as("there", "one"));
    assert_eq!(code, Some(0), "its product only wants to know");
    assert_eq!(metric(&broker, "clone"), 1);
    broker.wait_for_log("clone_connected");
    assert_eq!(audited(&broker, "clone_detected", 1)[0]["target"].as_str(), Some("device:lamp/one"));
    held.push(from(&broker, 3, &login_as("anywhere", "one")).0);
    assert_eq!(metric(&broker, "clone"), 1, "it was told");
}

#[test]
fn the_later_of_two_connections_from_two_networks_is_refused_where_the_product_says_so() {
    let broker = proxied("flapping = \"off\"");
    policy(&broker, &json!({ "refuse_clones": true }));
    let (mut here, code) = from(&broker, 1, &login_as("here", "one"));
    assert_eq!(code, Some(0));
    for n in 0..4 {
        assert_eq!(from(&broker, 2, &login_as(&format!("there-{n}"), "one")).1, Some(0x8A));
    }
    assert_eq!(metric(&broker, "clone"), 1);
    audited(&broker, "clone_detected", 1);
    here.quiet();
    // It moves and takes its session along, and then that is where it is.
    let (moved, code) = from(&broker, 2, &login_as("here", "one"));
    assert_eq!((code, here.end()), (Some(0), End::Disconnected(0x8E)));
    assert_eq!(from(&broker, 1, &login_as("back", "one")).1, Some(0x8A));
    moved.disconnect();
    // What a client sends last and what another sends first have no order.
    until("nothing of it is left there", SOON, || {
        (from(&broker, 1, &login_as("back", "one")).1 == Some(0)).then_some(())
    });
}

#[test]
fn a_device_may_be_in_several_networks_where_that_is_said() {
    let broker = proxied("clones_at_once = false\nrefuse_clones = true");
    let held = [1, 2, 3].map(|place| from(&broker, place, &login_as(&format!("at-{place}"), "one")));
    assert_eq!(held.map(|(_, code)| code), [Some(0); 3]);
    assert_eq!(metric(&broker, "clone"), 0);
}

const WRONG: &str = "ffffffffffffffffffffffffffffffff";

#[test]
fn an_address_that_guesses_is_banned_for_longer_each_time() {
    let broker = proxied("address_failures = \"3/1m\"\nfree_failures = 1000\nban_first_s = 5\nban_most_s = 600");
    let bans = || broker.http().get("/api/v1/bans").json()["bans"].as_array().expect("a list").clone();
    let mut left = Vec::new();
    for _ in 0..2 {
        until("no ban is left", SOON, || bans().is_empty().then_some(()));
        for _ in 0..3 {
            assert_eq!(from(&broker, 1, &login("one", WRONG)).1, Some(0x86));
        }
        left.push(bans()[0]["left_s"].as_u64().expect("a time"));
        assert_eq!(from(&broker, 1, &login("two", SECRET)).1, None, "closed without a word");
        assert_eq!(from(&broker, 2, &login("two", SECRET)).1, Some(0), "elsewhere all is well");
    }
    assert!((1..=5).contains(&left[0]) && (6..=10).contains(&left[1]), "{left:?}");
    assert_eq!(metric(&broker, "ban"), 2);
    assert_eq!(audited(&broker, "ban", 2)[0]["target"].as_str(), Some("address:192.0.1.1"));
}

#[test]
fn an_identity_waits_where_it_was_guessed_at_and_a_product_under_attack_is_told_of() {
    let settings = "address_failures = \"off\"\nfree_failures = 2\nback_off_first_s = 60\nback_off_most_s = 600\n\
                    identity_failures = \"3/10m\"\nproduct_failures = \"4/1m\"";
    let broker = proxied(settings);
    for _ in 0..3 {
        assert_eq!(from(&broker, 1, &login("one", WRONG)).1, Some(0x86));
    }
    assert_eq!(from(&broker, 1, &login("one", SECRET)).1, Some(0x9F), "it waits here");
    assert_eq!(from(&broker, 2, &login("one", SECRET)).1, Some(0), "and nowhere else");
    assert_eq!(from(&broker, 1, &login("two", WRONG)).1, Some(0x86), "nor does another");
    broker.wait_for_log("identity_under_attack");
    broker.wait_for_log("product_under_attack");
    assert_eq!((metric(&broker, "failure"), metric(&broker, "alarm")), (4, 2));
}

#[test]
fn a_client_that_flaps_is_kept_out_for_a_while() {
    let broker = proxied("flapping = \"3/1m\"\nflapping_ban_first_s = 60");
    let codes: Vec<Option<u8>> = (0..4).map(|_| from(&broker, 1, &login("one", SECRET)).1).collect();
    assert_eq!(codes, [Some(0), Some(0), Some(0x9F), Some(0x9F)]);
    assert_eq!(from(&broker, 2, &login("one", SECRET)).1, Some(0));
    assert_eq!(metric(&broker, "flapping"), 1);
    assert_eq!(audited(&broker, "ban", 1)[0]["target"].as_str(), Some("device:lamp/one"));
    broker.wait_for_log("flapping");
}
