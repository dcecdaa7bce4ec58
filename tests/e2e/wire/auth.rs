//! AUTH: challenge and response (MQTT 5, 4.12).

use turnpike_tests::client::{Client, End};
use turnpike_tests::credential::{PRODUCT, SECRET, answer, native};
use turnpike_tests::wire::{self, Connect, Packet, Prop, Version, one};

use crate::gate::registered;

const METHOD: &str = "HMAC-SHA256";

fn connect(client_id: &str, device: &str) -> Connect {
    let mut connect = Connect::new(Version::V5, client_id).prop(Prop::AuthMethod(METHOD.to_owned()));
    connect.user = Some(format!("{PRODUCT}/{device}"));
    connect
}

/// The broker's challenge; the method must be repeated. [MQTT-4.12.0-2] [MQTT-4.12.0-5]
#[track_caller]
fn challenge(client: &mut Client) -> Vec<u8> {
    let Packet::Auth { code, props } = client.recv() else { panic!("AUTH expected") };
    assert_eq!(code, 0x18);
    assert!(props.contains(&Prop::AuthMethod(METHOD.to_owned())), "{props:?}");
    one(&props, |prop| match prop {
        Prop::AuthData(data) => Some(data.clone()),
        _ => None,
    })
}

fn reply(method: &str, data: &str) -> Vec<u8> {
    wire::auth(0x18, &[Prop::AuthMethod(method.to_owned()), Prop::AuthData(data.as_bytes().to_vec())])
}

#[test]
fn who_answers_the_challenge_is_let_in() {
    let broker = registered();
    let mut challenges = Vec::new();
    for _ in 0..2 {
        let mut client = Client::raw(broker.mqtt(), Version::V5);
        client.send(&connect("c", "one").encode());
        let data = challenge(&mut client);
        client.send(&reply(METHOD, &answer("c", "one", SECRET, &data)));
        let Packet::ConnAck(ack) = client.recv() else { panic!("CONNACK expected") };
        assert_eq!(ack.code, 0);
        assert!(ack.props.contains(&Prop::AuthMethod(METHOD.to_owned())), "{ack:?}");
        client.quiet();
        challenges.push(data);
        client.disconnect();
    }
    assert_ne!(challenges[0], challenges[1], "a challenge is never repeated");
    assert!(challenges[0].len() >= 16);
}

#[test]
fn a_wrong_answer_is_refused() {
    let broker = registered();
    for (device, secret) in [("one", "ffffffffffffffffffffffffffffffff"), ("unknown", SECRET)] {
        let mut client = Client::raw(broker.mqtt(), Version::V5);
        client.send(&connect("c", device).encode());
        // An unknown device is challenged like any other, or refused at once.
        match client.recv() {
            Packet::Auth { props, .. } => {
                let data = one(&props, |prop| match prop {
                    Prop::AuthData(data) => Some(data.clone()),
                    _ => None,
                });
                client.send(&reply(METHOD, &answer("c", device, secret, &data)));
                let end = client.end();
                assert!(matches!(end, End::Refused(0x86 | 0x87)), "{device}: {end:?}");
            }
            Packet::ConnAck(ack) => assert!(matches!(ack.code, 0x86 | 0x87) && device == "unknown"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_answer_to_an_old_challenge_is_refused() {
    let broker = registered();
    let mut first = Client::raw(broker.mqtt(), Version::V5);
    first.send(&connect("c", "one").encode());
    let old = challenge(&mut first);
    let mut second = Client::raw(broker.mqtt(), Version::V5);
    second.send(&connect("c", "one").encode());
    let _ = challenge(&mut second);
    second.send(&reply(METHOD, &answer("c", "one", SECRET, &old)));
    assert!(matches!(second.end(), End::Refused(0x86 | 0x87)));
}

#[test]
fn an_unknown_method_is_refused() {
    // [MQTT-4.12.0-1]
    let broker = registered();
    for method in ["SCRAM-SHA-256", "", "hmac-sha256"] {
        let mut client = Client::raw(broker.mqtt(), Version::V5);
        client.send(&Connect::new(Version::V5, "c").prop(Prop::AuthMethod(method.to_owned())).encode());
        assert_eq!(client.end(), End::Refused(0x8c), "{method:?}");
    }
}

#[test]
fn another_method_in_the_answer_is_an_error() {
    let broker = registered();
    let mut client = Client::raw(broker.mqtt(), Version::V5);
    client.send(&connect("c", "one").encode());
    let data = challenge(&mut client);
    client.send(&reply("SCRAM-SHA-256", &answer("c", "one", SECRET, &data)));
    let end = client.end();
    assert!(matches!(end, End::Refused(0x82 | 0x8c) | End::Closed), "{end:?}");
}

#[test]
fn nothing_but_auth_and_disconnect_may_come_during_the_exchange() {
    // [MQTT-3.1.2-30]
    let broker = registered();
    for bytes in
        [wire::PINGREQ.to_vec(), wire::Publish::new("a", "b").encode(Version::V5), connect("c", "one").encode()]
    {
        let mut client = Client::raw(broker.mqtt(), Version::V5);
        client.send(&connect("c", "one").encode());
        let _ = challenge(&mut client);
        client.send(&bytes);
        let end = client.end();
        assert!(matches!(end, End::Refused(_) | End::Closed), "{end:?}");
    }
    let mut client = Client::raw(broker.mqtt(), Version::V5);
    client.send(&connect("c", "one").encode());
    let _ = challenge(&mut client);
    client.send(&wire::disconnect(0, &[]));
    assert_eq!(client.end(), End::Closed);
}

#[test]
fn the_will_of_an_unfinished_exchange_is_nobodys() {
    let broker = registered();
    let watching = native("w", "one", SECRET);
    let own = format!("dev/{PRODUCT}/one/down/x");
    let mut watcher =
        broker.client(&Connect::new(Version::V5, &watching.client_id).login(&watching.user, &watching.password));
    watcher.subscribe(&[(&own, 0)]);
    let mut client = Client::raw(broker.mqtt(), Version::V5);
    client.send(&connect("c", "one").will(wire::Will::new(&own, b"gone")).encode());
    let _ = challenge(&mut client);
    client.drop_connection();
    watcher.quiet();
}

#[test]
fn re_authentication_keeps_the_connection_if_it_succeeds() {
    // [MQTT-4.12.1-1] [MQTT-4.12.1-2]
    let broker = registered();
    let enter = || {
        let mut client = Client::raw(broker.mqtt(), Version::V5);
        client.send(&connect("c", "one").encode());
        let data = challenge(&mut client);
        client.send(&reply(METHOD, &answer("c", "one", SECRET, &data)));
        assert!(matches!(client.recv(), Packet::ConnAck(ack) if ack.code == 0));
        client
    };
    let again = || wire::auth(0x19, &[Prop::AuthMethod(METHOD.to_owned())]);
    let mut client = enter();
    client.send(&again());
    let data = challenge(&mut client);
    client.quiet();
    client.send(&reply(METHOD, &answer("c", "one", SECRET, &data)));
    let Packet::Auth { code, props } = client.recv() else { panic!("AUTH expected") };
    assert_eq!(code, 0);
    assert!(props.contains(&Prop::AuthMethod(METHOD.to_owned())));
    client.quiet();
    // A wrong answer ends it.
    client.send(&again());
    let _ = challenge(&mut client);
    client.send(&reply(METHOD, "nonsense"));
    let end = client.end();
    assert!(matches!(end, End::Disconnected(0x86 | 0x87)), "{end:?}");
    // So does another method.
    let mut client = enter();
    client.send(&wire::auth(0x19, &[Prop::AuthMethod("other".to_owned())]));
    let end = client.end();
    assert!(matches!(end, End::Disconnected(0x82 | 0x8c)), "{end:?}");
}

#[test]
fn a_connection_without_a_method_has_no_auth() {
    // [MQTT-4.12.0-6] [MQTT-4.12.0-7]
    let broker = registered();
    let credential = native("c", "one", SECRET);
    let connect = Connect::new(Version::V5, "c").login(&credential.user, &credential.password);
    let (mut client, ack) = Client::open(broker.mqtt(), &connect);
    assert!(!ack.props.iter().any(|prop| matches!(prop, Prop::AuthMethod(_) | Prop::AuthData(_))), "{ack:?}");
    client.send(&wire::auth(0x19, &[Prop::AuthMethod(METHOD.to_owned())]));
    assert_eq!(client.end(), End::Disconnected(0x82));
}
