//! Registration by CONNECT, as aliyun's devices do it.

use super::*;

/// Sends a CONNECT through TLS, and gives what comes back until the broker ends the connection, or its first packet if the broker lets the client in for longer.
#[track_caller]
fn through_tls(broker: &Broker, version: Version, login: &Credential) -> Vec<Packet> {
    let authority = std::fs::read(broker.data().join("pki/ca.pem")).expect("a certificate");
    let name = "localhost".try_into().expect("a name");
    let session = rustls::ClientConnection::new(Arc::new(trusting(&authority)), name).expect("a session");
    let stream = TcpStream::connect(broker.address("mqtts")).expect("it listens");
    stream.set_read_timeout(Some(SOON)).expect("a timeout");
    let mut stream = rustls::StreamOwned::new(session, stream);
    let connect = Connect::new(version, &login.client_id).login(&login.user, &login.password);
    stream.write_all(&connect.encode()).expect("sent");
    let (mut bytes, mut packets) = (Vec::new(), Vec::new());
    loop {
        while let Some((packet, length)) = decode(version, &bytes) {
            bytes.drain(..length);
            packets.push(packet);
        }
        let is_registering = login.client_id.contains("authType=reg");
        if !packets.is_empty() && !is_registering {
            return packets;
        }
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk) {
            Ok(0) => return packets,
            Ok(length) => bytes.extend(&chunk[..length]),
            Err(error) => {
                let is_end = matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset);
                assert!(is_end, "{error}: {packets:?}");
                return packets;
            }
        }
    }
}

fn trusting(authority: &[u8]) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority).expect("PEM")).expect("a certificate");
    let provider = rustls::crypto::ring::default_provider().into();
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

fn registering(kind: &str, name: &str, secret: &str) -> Credential {
    let mode = if kind == "register" { "2" } else { "-2" };
    Credential {
        client_id: format!("{name}.{PRODUCT}|securemode={mode},authType={kind},random=567,signmethod=hmacsha256|"),
        user: format!("{name}&{PRODUCT}"),
        password: hmac_sha256(secret, &format!("deviceName{name}productKey{PRODUCT}random567")),
    }
}

/// The code of the CONNACK, and the topic and the JSON of what was pushed.
#[track_caller]
fn pushed(packets: &[Packet]) -> (u8, Option<(String, Value)>) {
    match packets {
        [Packet::ConnAck(ack)] => (ack.code, None),
        [Packet::ConnAck(ack), Packet::Publish(publish)] => {
            assert!(!ack.session_present && publish.qos == 0 && !publish.retain);
            (ack.code, Some((publish.topic.clone(), serde_json::from_str(publish.text()).expect("JSON"))))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn aliyun_by_connect() {
    let mut broker = house(&["aliyun"], 3);
    upload(&broker, "serial,SN-0001\nserial,SN-0002\nserial,SN-0003\nserial,SN-0004\n");
    let ask = |broker: &Broker, version, login: &Credential| pushed(&through_tls(broker, version, login));
    let plain = |version, login: &Credential| {
        let connect = Connect::new(version, &login.client_id).login(&login.user, &login.password);
        Client::open(broker.mqtt(), &connect).1.code
    };
    let first = registering("register", "SN-0001", PRODUCT_SECRET);
    assert_eq!((plain(Version::V311, &first), plain(Version::V5, &first)), (5, 0x87), "not without TLS");
    let (code, push) = ask(&broker, Version::V311, &first);
    let (topic, said) = push.expect("a push");
    assert_eq!((code, topic.as_str()), (0, "/ext/register"));
    assert_eq!((&said["productKey"], &said["deviceName"]), (&json!(PRODUCT), &json!("SN-0001")));
    let secret = said["deviceSecret"].as_str().expect("a secret").to_owned();
    let login = aliyun("SN-0001", &secret);
    assert_eq!(plain(Version::V311, &login), 0);
    let (code, push) = ask(&broker, Version::V5, &registering("register", "SN-0002", PRODUCT_SECRET));
    assert!(code == 0 && push.is_some());
    for (name, product_secret, mqtt3, mqtt5) in [
        ("SN-0001", PRODUCT_SECRET, 2, 0x85),
        ("SN-0009", PRODUCT_SECRET, 4, 0x86),
        ("SN-0003", "another secret", 4, 0x86),
    ] {
        let login = registering("register", name, product_secret);
        assert_eq!(ask(&broker, Version::V311, &login), (mqtt3, None), "{name}");
        assert_eq!(ask(&broker, Version::V5, &login), (mqtt5, None), "{name}");
    }
    assert_eq!(ask(&broker, Version::V5, &registering("regnwl", "SN-0099", PRODUCT_SECRET)), (0x87, None));
    assert!(ask(&broker, Version::V5, &registering("register", "SN-0003", PRODUCT_SECRET)).1.is_some());
    let fourth = registering("register", "SN-0004", PRODUCT_SECRET);
    assert_eq!(ask(&broker, Version::V5, &fourth), (0x97, None), "capacity");
    let expired = json!({ "quota": 9, "expires_at": now_ms() / 1000 });
    assert_eq!(broker.http().put(&path("/packages/1"), &expired.to_string()).status, 200);
    assert_eq!(ask(&broker, Version::V5, &fourth), (0x8A, None), "expired");
    let registered = audited(&broker, "register");
    let made = registered.iter().find(|record| record["result"] == "accepted").expect("on record");
    assert_eq!(
        (&made["detail"]["way"], &made["target"]),
        (&json!("aliyun"), &json!(format!("device:{PRODUCT}/SN-0001")))
    );
    assert!(made["source"].as_str().is_some_and(|source| source.starts_with("127.0.0.1:")));
    broker.kill();
    broker.restart();
    assert_eq!(ask(&broker, Version::V311, &first), (2, None));
    let connect = Connect::new(Version::V311, &login.client_id).login(&login.user, &login.password);
    assert_eq!(Client::open(broker.mqtt(), &connect).1.code, 0);
}

#[test]
fn aliyun_by_connect_under_any_name_with_a_token() {
    let broker = house(&["aliyun-unlisted"], 10);
    let login = registering("regnwl", "SN-0001", PRODUCT_SECRET);
    let (code, push) = pushed(&through_tls(&broker, Version::V311, &login));
    let (topic, said) = push.expect("a push");
    assert_eq!((code, topic.as_str(), &said["deviceName"]), (0, "/ext/regnwl", &json!("SN-0001")));
    let text = |field: &str| said[field].as_str().expect("a text").to_owned();
    let later = Credential {
        client_id: format!("{}|authType=connwl,securemode=-2,_v=1|", text("clientId")),
        user: format!("SN-0001&{PRODUCT}"),
        password: text("deviceToken"),
    };
    assert_eq!(pushed(&through_tls(&broker, Version::V311, &later)), (0, None));
    let connect = Connect::new(Version::V311, &later.client_id).login(&later.user, &later.password);
    assert_eq!(Client::open(broker.mqtt(), &connect).1.code, 5, "the token isn't for those who listen");
    let forged = Credential { password: "0".repeat(32), ..later };
    assert_eq!(pushed(&through_tls(&broker, Version::V311, &forged)), (4, None));
    assert_eq!(pushed(&through_tls(&broker, Version::V311, &login)), (2, None));
}

#[test]
fn of_many_connects_at_once_one_registers() {
    let broker = house(&["aliyun"], 100);
    upload(&broker, "serial,SN-0001\n");
    let login = registering("register", "SN-0001", PRODUCT_SECRET);
    let answers: Vec<_> = thread::scope(|scope| {
        let ask = || pushed(&through_tls(&broker, Version::V5, &login));
        let running: Vec<_> = (0..6).map(|_| scope.spawn(ask)).collect();
        running.into_iter().map(|thread| thread.join().expect("an answer")).collect()
    });
    assert_eq!(answers.iter().filter(|(code, push)| *code == 0 && push.is_some()).count(), 1);
    assert_eq!(answers.iter().filter(|(code, push)| *code == 0x85 && push.is_none()).count(), 5, "{answers:?}");
}

#[test]
fn where_devices_do_not_register_a_connect_that_wants_to_is_told_so_at_once() {
    let broker = Setup::closed().config("[registration]\nenabled = false\n").start();
    let login = registering("register", "SN-0001", PRODUCT_SECRET);
    for (version, code) in [(Version::V311, 3), (Version::V5, 0x88)] {
        let connect = Connect::new(version, &login.client_id).login(&login.user, &login.password);
        assert_eq!(Client::open(broker.mqtt(), &connect).1.code, code);
    }
    until("the audit has it", SOON, || {
        let has = |record: &Value| record["cause"] == "unavailable";
        audited(&broker, "log_in").iter().any(has).then_some(())
    });
}
