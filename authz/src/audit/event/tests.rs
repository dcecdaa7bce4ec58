use proptest::prelude::*;
use turnpike_core::ids::ClientId;

use super::*;
use crate::audit::LINE_BYTES_MAX;
use crate::audit::chain::{ChainKey, Line, Link};
use crate::secret::MasterKey;

fn json(event: &Event<'_>) -> serde_json::Value {
    let mut body = vec![b'{'];
    event.encode(&mut body);
    body.push(b'}');
    serde_json::from_slice(&body).expect("JSON")
}

#[test]
fn an_event_is_written_with_all_that_is_known() {
    let identity = DeviceIdentity::new("lamp", "one");
    let client = ClientId::new("lamp.one|securemode=3|");
    let event = Event {
        at_ms: 1_700_000_000_000,
        actor: Subject::identity(&identity),
        source: Some(([10, 1, 2, 3], 4567).into()),
        action: Action::LogIn,
        target: Some(Subject::Broker),
        outcome: Outcome::Refused("wrong_signature"),
        details: &[
            (Key::Client, Value::Id(Id::from(&client))),
            (Key::Tls, Value::Flag(true)),
            (Key::Count, Value::Number(u64::MAX)),
            (Key::How, Value::Word("cleanly")),
            (Key::Address, Value::Address([0, 0, 0, 0, 0, 0, 0, 1].into())),
        ],
    };
    let expected = serde_json::json!({
        "time": 1_700_000_000_000_u64, "actor": "device:lamp/one", "source": "10.1.2.3:4567", "action": "log_in",
        "target": "broker", "result": "refused", "cause": "wrong_signature",
        "detail": {"client": "lamp.one", "tls": true, "count": u64::MAX, "how": "cleanly", "address": "::1"},
    });
    assert_eq!(json(&event), expected);
    assert!(event.is_unsolicited() && !Event::own(1, Action::BrokerStart, &[]).is_unsolicited());
}

#[test]
fn labels_are_words_and_differ() {
    let actions: Vec<&str> = Action::ALL.iter().map(|action| action.label()).collect();
    let keys: Vec<&str> = Key::ALL.iter().map(|key| key.label()).collect();
    for labels in [actions, keys] {
        let distinct: std::collections::BTreeSet<&&str> = labels.iter().collect();
        assert_eq!(distinct.len(), labels.len());
        assert!(labels.iter().all(|label| label.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')));
    }
}

#[test]
fn the_longest_record_fits_a_line() {
    let id = ClientId::new(&"\u{1}".repeat(10_000));
    let details = [(Key::Client, Value::Id(Id::from(&id))); 100];
    let event = Event {
        at_ms: u64::MAX,
        actor: Subject::User(Id::from(&id), Id::from(&id)),
        source: Some(([u16::MAX; 8], u16::MAX).into()),
        action: Action::RecordsSuppressed,
        target: Some(Subject::User(Id::from(&id), Id::from(&id))),
        outcome: Outcome::Refused("profile_not_allowed"),
        details: &details,
    };
    let mut body = Vec::new();
    event.encode(&mut body);
    let mut line = Vec::new();
    let mut link = Link { sequence: u64::MAX - 1, ..Link::START };
    link.begin_segment(&ChainKey::new(&MasterKey::new([1; 32])), &body, &mut line);
    assert!(line.len() <= LINE_BYTES_MAX, "{} bytes", line.len());
    assert!(Line::parse(line.strip_suffix(b"\n").expect("a line")).is_some());
}

proptest! {
    #[test]
    fn numbers_and_addresses_read_as_displayed(value: u64, few in 0..1000_u64, ip: u32, port: u16) {
        for value in [value, few, 0, u64::MAX] {
            let mut out = b"=".to_vec();
            number(value, &mut out);
            prop_assert_eq!(out, format!("={value}").into_bytes());
        }
        for ip in [IpAddr::from(ip.to_be_bytes()), IpAddr::from([ip as u16; 8])] {
            let mut out = Vec::new();
            socket(SocketAddr::new(ip, port), &mut out);
            prop_assert_eq!(out, SocketAddr::new(ip, port).to_string().into_bytes());
        }
    }

    /// Whatever a client calls itself, its record is one line of JSON that says the same, and feigns no other member.
    #[test]
    fn any_id_is_escaped(text in "[^|]{0,60}") {
        let id = ClientId::new(&text);
        let details = [(Key::Client, Value::Id(Id::from(&id)))];
        let event = Event { actor: Subject::App(Id::from(&id)), ..Event::own(5, Action::LogIn, &details) };
        let mut body = Vec::new();
        event.encode(&mut body);
        prop_assert!(!body.iter().any(|byte| *byte < 0x20 || *byte == 0x7f));
        let read = json(&event);
        prop_assert_eq!(read["detail"]["client"].as_str(), Some(text.as_str()));
        let actor = format!("app:{text}");
        prop_assert_eq!(read["actor"].as_str(), Some(actor.as_str()));
        prop_assert_eq!(read.as_object().map(serde_json::Map::len), Some(5));
    }
}
