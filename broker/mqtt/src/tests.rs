//! Round trips, truncations and garbage for every packet; and a table of what is refused, and how.

mod arbitrary;
mod hot;

use proptest::prelude::*;

use crate::*;

fn text() -> impl Strategy<Value = String> {
    proptest::string::string_regex("[a-zA-Z0-9 äöü中文]{0,12}").expect("a regex")
}

fn topic() -> impl Strategy<Value = String> {
    proptest::string::string_regex("[a-z0-9中]{1,5}(/[a-z0-9]{0,5}){0,4}").expect("a regex")
}

fn version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V31), Just(Version::V311), Just(Version::V5)]
}

fn qos() -> impl Strategy<Value = QoS> {
    prop_oneof![Just(QoS::AtMostOnce), Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)]
}

fn forwardable() -> impl Strategy<Value = Vec<u8>> {
    let user = proptest::collection::vec((text(), text()), 0..4);
    (proptest::option::of(0..2_u8), proptest::option::of(text()), proptest::option::of(topic()), user).prop_map(
        |(format, content, response, user)| {
            let mut bytes = Vec::new();
            if let Some(format) = format {
                ForwardableItem::PayloadFormat(format).encode(&mut bytes);
            }
            if let Some(content) = &content {
                ForwardableItem::ContentType(content).encode(&mut bytes);
            }
            if let Some(response) = &response {
                ForwardableItem::ResponseTopic(response).encode(&mut bytes);
            }
            for (name, value) in &user {
                ForwardableItem::User(name, value).encode(&mut bytes);
            }
            bytes
        },
    )
}

/// Encodes, decodes, encodes again: the bytes are the same, and every prefix is incomplete.
fn round_trip(version: Version, packet: &Packet<'_>) {
    let mut bytes = Vec::new();
    encode(version, packet, &mut bytes);
    let whole = frame(&bytes, u32::MAX).expect("a frame").expect("a whole frame");
    assert_eq!(whole.len(), bytes.len());
    let decoded = decode(version, whole).expect("a packet");
    let mut again = Vec::new();
    encode(version, &decoded, &mut again);
    assert_eq!(bytes, again);
    for cut in 0..bytes.len() {
        assert_eq!(frame(&bytes[..cut], u32::MAX), Ok(None), "cut at {cut}");
    }
    for cut in 0..whole.body.len() {
        // A body that is shorter than the packet must never panic, whatever it decodes to.
        let mut short = vec![whole.first];
        encode::variable(&mut short, cut as u32);
        short.extend_from_slice(&whole.body[..cut]);
        if let Ok(Some(frame)) = frame(&short, u32::MAX) {
            let _ = decode(version, frame);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn connect_round_trips(
        version in version(), clean in any::<bool>(), keep in any::<u16>(), id in text(), user in proptest::option::of(text()),
        password in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20)),
        will in proptest::option::of((topic(), qos(), any::<bool>(), any::<u32>(), forwardable())),
        expiry in proptest::option::of(any::<u32>()), window in proptest::option::of(1_u16..),
    ) {
        let v5 = version == Version::V5;
        let password = password.as_deref().filter(|_| v5 || user.is_some());
        let connect = Connect {
            version, bridge: false, clean_start: clean, keep_alive_s: keep, client_id: &id,
            will: will.as_ref().map(|(topic, qos, retain, delay, forwardable)| Will {
                topic: TopicName::parse(topic).expect("a topic"), payload: b"gone", qos: *qos, retain: *retain,
                properties: if v5 {
                    WillProperties {
                        delay_s: *delay, message_expiry_s: expiry, forwardable: Forwardable::from_encoded(forwardable),
                    }
                } else { WillProperties::default() },
            }),
            user_name: user.as_deref(), password,
            properties: if v5 {
                ConnectProperties { session_expiry_s: expiry, receive_maximum: window, ..ConnectProperties::default() }
            } else { ConnectProperties::default() },
        };
        round_trip(version, &Packet::Connect(Box::new(connect)));
    }

    #[test]
    fn publish_round_trips(
        version in version(), dup in any::<bool>(), qos in qos(), retain in any::<bool>(), topic in topic(), id in 1_u16..,
        alias in proptest::option::of(1_u16..), expiry in proptest::option::of(any::<u32>()), forwardable in forwardable(),
        payload in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let with_id = qos != QoS::AtMostOnce;
        let publish = Publish {
            dup: dup && with_id, qos, retain, topic: Some(TopicName::parse(&topic).expect("a topic")),
            id: if with_id { PacketId::new(id) } else { None },
            properties: if version == Version::V5 {
                PublishProperties {
                    message_expiry_s: expiry, topic_alias: alias, forwardable: Forwardable::from_encoded(&forwardable),
                    subscription_identifiers: &[],
                }
            } else { PublishProperties::default() },
            payload: &payload,
        };
        round_trip(version, &Packet::Publish(publish));
    }

    #[test]
    fn a_delivery_is_as_long_as_it_says_and_keeps_what_is_forwarded(
        version in version(), qos in qos(), topic in topic(), alias in proptest::option::of(1_u16..),
        expiry in proptest::option::of(any::<u32>()), identifiers in proptest::collection::vec(1_u32..268_435_456, 0..4),
        forwardable in forwardable(), payload in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let delivery = Delivery {
            dup: false, qos, retain: true, topic: TopicName::parse(&topic).expect("a topic"), topic_alias: alias,
            omit_topic: alias.is_some(), id: if qos == QoS::AtMostOnce { None } else { PacketId::new(7) },
            message_expiry_s: expiry, identifiers: &identifiers, forwardable: &forwardable, payload: &payload,
        };
        let delivery = if version == Version::V5 { delivery } else { Delivery { omit_topic: false, ..delivery } };
        let mut bytes = Vec::new();
        encode_delivery(version, &delivery, &mut bytes);
        prop_assert_eq!(bytes.len(), delivery_len(version, &delivery));
        let decoded = decode_publish(version, frame(&bytes, u32::MAX).expect("a frame").expect("whole")).expect("a packet");
        prop_assert_eq!(decoded.payload, &payload[..]);
        if version == Version::V5 {
            prop_assert_eq!(decoded.properties.identifiers().collect::<Vec<_>>(), identifiers);
            let mut kept = Vec::new();
            decoded.properties.forwardable.copy_to(&mut kept);
            prop_assert_eq!(kept, forwardable);
            prop_assert_eq!(decoded.properties.message_expiry_s, expiry);
        }
    }

    #[test]
    fn subscribe_round_trips(version in version(), filters in proptest::collection::vec((topic(), 0..3_u8), 1..5), id in 1_u16..) {
        let requests = filters.iter().map(|(filter, qos)| {
            (TopicFilter::parse(filter).expect("a filter"), SubscribeOptions::qos(QoS::try_from(*qos).expect("a QoS")))
        });
        let mut bytes = Vec::new();
        encode_subscribe(version, PacketId::new(id).expect("not 0"), Some(9), requests.clone(), &mut bytes);
        let packet = decode(version, frame(&bytes, u32::MAX).expect("a frame").expect("whole")).expect("a packet");
        let Packet::Subscribe(subscribe) = packet else { panic!("SUBSCRIBE") };
        prop_assert_eq!(subscribe.filters.iter().collect::<Vec<_>>(), requests.collect::<Vec<_>>());
        round_trip(version, &Packet::Subscribe(subscribe));
    }

    #[test]
    fn acks_round_trip(version in version(), id in 1_u16.., text in text()) {
        let id = PacketId::new(id).expect("not 0");
        for reason in [ReasonCode::Success, ReasonCode::NoMatchingSubscribers, ReasonCode::QuotaExceeded] {
            for reason_string in [None, Some(text.as_str())] {
                let properties = AckProperties { reason_string, ..AckProperties::default() };
                let reason = if version == Version::V5 { reason } else { ReasonCode::Success };
                round_trip(version, &Packet::PubAck(Ack { id, reason, properties }));
                round_trip(version, &Packet::PubRec(Ack { id, reason, properties }));
                round_trip(version, &Packet::PubRel(Ack { id, reason: ReasonCode::Success, properties }));
                round_trip(version, &Packet::PubComp(Ack { id, reason: ReasonCode::Success, properties }));
                round_trip(version, &Packet::SubAck(SubAck { id, properties, codes: &[0, 1, 0x80] }));
                let codes: &[u8] = if version.is_v5() { &[0, 0x11, 0x87] } else { &[] };
                round_trip(version, &Packet::UnsubAck(SubAck { id, properties, codes }));
            }
        }
    }

    #[test]
    fn garbage_never_panics(version in version(), bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(Some(frame)) = frame(&bytes, 1 << 20) {
            let _ = decode(version, frame);
            let _ = decode_connect(frame);
        }
    }

    #[test]
    fn garbage_bodies_never_panic(version in version(), first in any::<u8>(), body in proptest::collection::vec(any::<u8>(), 0..127)) {
        let mut bytes = vec![first, body.len() as u8];
        bytes.extend_from_slice(&body);
        if let Ok(Some(frame)) = frame(&bytes, 1 << 20)
            && let Ok(Packet::Publish(publish)) = decode(version, frame)
        {
            let _ = publish.properties.forwardable.iter().count();
            publish.properties.forwardable.copy_to(&mut Vec::new());
        }
    }
}

/// Bytes as hex, with spaces.
fn refused(version: Version, hex: &str) -> DecodeError {
    let bytes: Vec<u8> = hex.split(' ').map(|byte| u8::from_str_radix(byte, 16).expect("hex")).collect();
    match frame(&bytes, 1_000) {
        Err(error) => error,
        Ok(None) => panic!("incomplete: {hex}"),
        Ok(Some(frame)) => decode(version, frame).expect_err(hex),
    }
}

#[test]
fn malformed_packets_are_refused_with_their_reasons() {
    use DecodeError as E;
    let v5 = [
        ("00 00", E::PacketType),
        ("30 ff ff ff ff 01", E::RemainingLength),
        ("30 80 00", E::RemainingLength),
        ("31 e9 07", E::TooLarge),
        ("36 05 00 01 61 00 01", E::QoS),
        ("38 04 00 01 61 00", E::DupWithoutQoS),
        ("32 06 00 01 61 00 00 00", E::PacketIdentifier),
        ("30 03 00 00 00", E::NoTopic),
        ("30 04 00 01 2b 00", E::Topic(TopicError::WildcardInName)),
        ("30 04 00 01 00 00", E::Topic(TopicError::ControlCharacter)),
        ("30 04 00 01 ff 00", E::Utf8),
        ("30 07 00 01 61 03 23 00 00", E::TopicAlias),
        ("30 0a 00 01 61 06 23 00 01 23 00 01", E::RepeatedProperty),
        ("30 06 00 01 61 02 01 02", E::PropertyValue),
        ("30 06 00 01 61 02 0b 00", E::PropertyValue),
        ("30 05 00 01 61 01 7f", E::UnknownProperty),
        ("30 09 00 01 61 05 11 00 00 00 01", E::MisplacedProperty),
        ("30 05 00 01 61 09 01", E::Truncated),
        ("41 02 00 01", E::Flags),
        ("60 02 00 01", E::Flags),
        ("40 02 00 00", E::PacketIdentifier),
        ("40 03 00 01 ff", E::ReasonCode),
        ("40 06 00 01 00 00 00 00", E::Trailing),
        ("80 08 00 01 00 00 01 61 00", E::Flags),
        ("82 06 00 00 00 00 01 61", E::RequestIdentifier),
        ("82 03 00 01 00", E::NoFilters),
        ("82 07 00 01 00 00 01 61 03", E::SubscribeOptions),
        ("82 07 00 01 00 00 01 61 40", E::SubscribeOptions),
        ("82 07 00 01 00 00 01 61 30", E::SubscribeOptions),
        ("82 08 00 01 00 00 03 61 2f 23", E::Truncated),
        ("82 0a 00 01 00 00 04 61 2f 62 23 00", E::Topic(TopicError::MisplacedWildcard)),
        ("82 10 00 01 00 00 0a 24 73 68 61 72 65 2f 61 2f 62 04", E::SharedNoLocal),
        ("82 0e 00 01 00 00 08 24 73 68 61 72 65 2f 61 00", E::Topic(TopicError::BadShare)),
        ("82 09 00 01 02 0b 00 00 01 61 00", E::PropertyValue),
        ("a2 03 00 01 00", E::NoFilters),
        ("c0 01 00", E::Trailing),
        ("e0 01 7f", E::ReasonCode),
        ("e0 01 84", E::ReasonCode),
        ("e0 01 91", E::ReasonCode),
        ("f0 01 01", E::ReasonCode),
        ("20 07 00 00 04 16 00 01 61", E::AuthenticationData),
        ("20 03 02 00 00", E::Flags),
        ("20 03 00 01 00", E::ReasonCode),
        ("90 04 00 01 00 03", E::ReasonCode),
        ("b0 04 00 01 00 01", E::ReasonCode),
        ("30 84 80 00 00 01 61 00", E::RemainingLength),
    ];
    for (hex, error) in v5 {
        assert_eq!(refused(Version::V5, hex), error, "{hex}");
        assert!(error.reason().is_error());
        assert!(!error.to_string().is_empty());
    }
    let v311 = [
        ("30 02 00 00", E::Topic(TopicError::Empty)),
        ("82 06 00 01 00 01 61 04", E::SubscribeOptions),
        ("40 03 00 01 00", E::Trailing),
        ("e0 01 00", E::Trailing),
        ("90 03 00 01 87", E::ReasonCode),
        ("b0 03 00 01 00", E::ReasonCode),
        ("f0 00", E::PacketType),
    ];
    for (hex, error) in v311 {
        assert_eq!(refused(Version::V311, hex), error, "{hex}");
    }
}

#[test]
fn only_mqtt_5_asks_for_the_shortest_remaining_length() {
    let bytes = [0x30, 0x84, 0x80, 0x00, 0, 1, b'a', b'!'];
    let whole = frame(&bytes, 1_000).expect("a frame").expect("whole");
    assert_eq!((whole.len(), frame_size(&bytes)), (8, Some(8)));
    assert!(decode_publish(Version::V311, whole).is_ok_and(|publish| publish.payload == b"!"));
    assert_eq!(decode_publish(Version::V5, whole), Err(DecodeError::RemainingLength));
    let mut shortest = Vec::new();
    whole.copy_to(&mut shortest);
    assert_eq!(shortest, [0x30, 4, 0, 1, b'a', b'!']);
}

#[test]
fn the_header_is_refused_before_the_body_comes() {
    for (bytes, error) in [
        (&[0x00][..], DecodeError::PacketType),
        (&[0x83], DecodeError::Flags),
        (&[0x30, 0xFF, 0xFF, 0xFF, 0xFF], DecodeError::RemainingLength),
        (&[0x30, 99], DecodeError::TooLarge),
    ] {
        assert_eq!(frame(bytes, 100), Err(error));
    }
    // The fixed header counts: 2 and 98 bytes are the whole 100.
    assert_eq!(frame(&[0x30, 98], 100), Ok(None));
    assert_eq!((frame_size(&[0x30]), frame_size(&[0x30, 0x80]), frame_size(&[0x30, 98])), (None, None, Some(100)));
}

#[test]
fn a_server_refuses_subscription_identifiers() {
    let bytes = [0x30, 6, 0, 1, b'a', 2, 0x0B, 1];
    let publish = decode_publish(Version::V5, frame(&bytes, 100).expect("a frame").expect("whole")).expect("a packet");
    assert_eq!(publish.properties.identifiers().collect::<Vec<_>>(), [1]);
    assert_eq!(publish.check_from_client(), Err(DecodeError::IdentifierFromClient));
    assert_eq!(DecodeError::IdentifierFromClient.reason(), ReasonCode::ProtocolError);
    let plain = Publish { properties: PublishProperties::default(), ..publish };
    assert_eq!(plain.check_from_client(), Ok(()));
}

#[test]
fn a_refusal_has_no_session_and_a_return_code_in_mqtt_3() {
    for (reason, v311, v5) in [
        (ConnectReason::Success, [0x20, 2, 1, 0], [0x20, 3, 1, 0, 0]),
        (ConnectReason::BadUserNameOrPassword, [0x20, 2, 0, 4], [0x20, 3, 0, 0x86, 0]),
        (ConnectReason::UnsupportedProtocolVersion, [0x20, 2, 0, 1], [0x20, 3, 0, 0x84, 0]),
    ] {
        let packet =
            Packet::ConnAck(Box::new(ConnAck { session_present: true, reason, properties: Default::default() }));
        let (mut three, mut five) = (Vec::new(), Vec::new());
        encode(Version::V311, &packet, &mut three);
        encode(Version::V5, &packet, &mut five);
        assert_eq!((three.as_slice(), five.as_slice()), (&v311[..], &v5[..]));
    }
}

#[test]
fn levels_name_versions() {
    for version in [Version::V31, Version::V311, Version::V5] {
        assert_eq!(Version::from_level(version as u8), Some(version));
    }
    assert_eq!(Version::from_level(6), None);
}

#[test]
fn malformed_connects_are_refused() {
    use DecodeError as E;
    for (hex, error) in [
        ("10 0c 00 04 4d 51 54 54 06 02 00 00 00 00", E::UnsupportedProtocolVersion),
        ("10 0c 00 04 4d 51 54 58 04 02 00 00 00 00", E::ProtocolName),
        ("10 0c 00 04 4d 51 54 54 04 03 00 00 00 00", E::ConnectFlags),
        ("10 0c 00 04 4d 51 54 54 04 08 00 00 00 00", E::ConnectFlags),
        ("10 0c 00 04 4d 51 54 54 04 42 00 00 00 00", E::ConnectFlags),
        ("10 0d 00 04 4d 51 54 54 04 02 00 00 00 00 00", E::Trailing),
        ("10 0c 00 04 4d 51 54 54 04 82 00 00 00 00", E::Truncated),
        ("10 10 00 04 4d 51 54 54 05 02 00 00 03 21 00 00 00 00", E::PropertyValue),
        ("10 11 00 04 4d 51 54 54 05 02 00 00 04 16 00 01 61 00 00", E::AuthenticationData),
        ("10 12 00 04 4d 51 54 54 05 02 00 00 05 18 00 00 00 01 00 00", E::MisplacedProperty),
    ] {
        let hex = hex.to_owned();
        let bytes: Vec<u8> = hex.split(' ').map(|byte| u8::from_str_radix(byte, 16).expect("hex")).collect();
        let bytes = [&bytes[..1], &[bytes.len() as u8 - 2], &bytes[2..]].concat();
        assert_eq!(
            refused(Version::V5, &bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ")),
            error,
            "{hex}"
        );
    }
}

#[test]
fn filters_match_as_the_specification_says() {
    for (filter, topic, expected) in [
        ("sport/tennis/player1/#", "sport/tennis/player1", true),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
        ("sport/#", "sport", true),
        ("#", "a/b", true),
        ("+", "finance", true),
        ("+", "/finance", false),
        ("+/+", "/finance", true),
        ("/+", "/finance", true),
        ("sport/+", "sport", false),
        ("sport/+", "sport/", true),
        ("#", "$SYS/x", false),
        ("+/x", "$SYS/x", false),
        ("$SYS/#", "$SYS/x", true),
        ("a//b", "a//b", true),
        ("a/+/b", "a//b", true),
        ("A", "a", false),
    ] {
        let filter = TopicFilter::parse(filter).expect("a filter");
        assert_eq!(filter.matches(TopicName::parse(topic).expect("a name")), expected, "{filter} {topic}");
    }
}

#[test]
fn filters_that_are_none_are_refused() {
    for text in [
        "",
        "a#",
        "#/a",
        "a+/b",
        "a/+b",
        "a/#/b",
        "$share",
        "$share/",
        "$share/a",
        "$share/a/",
        "$share//a",
        "$share/+/a",
        "$share/#/a",
    ] {
        assert!(TopicFilter::parse(text).is_err(), "{text}");
    }
    let shared = TopicFilter::parse("$share/group/a/+").expect("a filter");
    assert_eq!(shared.share().map(|(name, inner)| (name, inner.as_str())), Some(("group", "a/+")));
}

#[test]
fn aliases_are_bounded() {
    let mut aliases = TopicAliases::new(2);
    let topic = TopicName::parse("t").expect("a name");
    assert_eq!(aliases.resolve(1), Err(AliasError::Unknown));
    assert_eq!(aliases.set(3, topic), Err(AliasError::OutOfRange));
    assert_eq!(aliases.set(0, topic), Err(AliasError::OutOfRange));
    assert_eq!(aliases.set(2, topic), Ok(()));
    assert_eq!(aliases.resolve(2), Ok(topic));
}
