//! Every kind of packet, valid and then damaged; and matching against an independent implementation.

use super::*;

/// Numbers and texts that any packet is made of.
#[derive(Clone, Debug)]
struct Parts {
    version: Version,
    kind: u8,
    id: u16,
    number: u32,
    flag: bool,
    text: String,
    topic: String,
    forwardable: Vec<u8>,
    payload: Vec<u8>,
}

fn parts() -> impl Strategy<Value = Parts> {
    let numbers = (version(), 0..15_u8, 1_u16.., any::<u32>(), any::<bool>());
    (numbers, text(), topic(), forwardable(), proptest::collection::vec(any::<u8>(), 0..200)).prop_map(
        |((version, kind, id, number, flag), text, topic, forwardable, payload)| Parts {
            version,
            kind,
            id,
            number,
            flag,
            text,
            topic,
            forwardable,
            payload,
        },
    )
}

impl Parts {
    fn encoded(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let id = PacketId::new(self.id).expect("not 0");
        let text = self.flag.then_some(self.text.as_str());
        let mut encoded_user = Vec::new();
        ForwardableItem::User(&self.text, &self.topic).encode(&mut encoded_user);
        let user = UserProperties::from_encoded(&encoded_user);
        let properties = AckProperties { reason_string: text, user };
        let ack = Ack { id, reason: ReasonCode::Success, properties };
        let packet = match self.kind {
            0 => self.connect(user),
            1 => Packet::ConnAck(Box::new(self.connack(user))),
            2 => Packet::Publish(self.publish(id)),
            3 => Packet::PubAck(ack),
            4 => Packet::PubRec(ack),
            5 => Packet::PubRel(ack),
            6 => Packet::PubComp(ack),
            7 => {
                let options = SubscribeOptions { no_local: self.flag, ..SubscribeOptions::qos(QoS::AtLeastOnce) };
                let filter = TopicFilter::parse(&self.topic).expect("a filter");
                let identifier = self.flag.then_some(self.number >> 4 | 1);
                let requests = [(filter, options), (TopicFilter::from_validated("+/#"), options)];
                encode_subscribe(self.version, id, identifier, requests, &mut out);
                return out;
            }
            8 => Packet::SubAck(SubAck { id, properties, codes: &[0, 1, 2, 0x80] }),
            9 => {
                encode_unsubscribe(self.version, id, [TopicFilter::from_validated("a/+")], &mut out);
                return out;
            }
            10 => Packet::UnsubAck(SubAck { id, properties, codes: &[0, 0x11, 0x87] }),
            11 => Packet::PingReq,
            12 => Packet::PingResp,
            13 => Packet::Disconnect(Disconnect {
                reason: ReasonCode::DisconnectWithWill,
                properties: DisconnectProperties {
                    session_expiry_s: self.flag.then_some(self.number),
                    reason_string: text,
                    user,
                    server_reference: text,
                },
            }),
            _ => Packet::Auth(Auth {
                reason: ReasonCode::ReAuthenticate,
                properties: AuthProperties {
                    method: Some(&self.text),
                    data: self.flag.then_some(&self.payload),
                    reason_string: text,
                    user,
                },
            }),
        };
        encode(self.version, &packet, &mut out);
        out
    }

    fn publish<'a>(&'a self, id: PacketId) -> Publish<'a> {
        Publish {
            dup: self.flag,
            qos: if self.flag { QoS::ExactlyOnce } else { QoS::AtMostOnce },
            retain: self.flag,
            topic: TopicName::parse(&self.topic).ok(),
            id: self.flag.then_some(id),
            properties: PublishProperties {
                message_expiry_s: Some(self.number),
                topic_alias: self.flag.then_some(self.id),
                forwardable: Forwardable::from_encoded(&self.forwardable),
                subscription_identifiers: &[],
            },
            payload: &self.payload,
        }
    }

    fn connect<'a>(&'a self, user: UserProperties<'a>) -> Packet<'a> {
        let will = Will {
            topic: TopicName::from_validated(&self.topic),
            payload: &self.payload,
            qos: QoS::AtLeastOnce,
            retain: self.flag,
            properties: WillProperties {
                delay_s: self.number,
                message_expiry_s: Some(self.number),
                forwardable: Forwardable::from_encoded(&self.forwardable),
            },
        };
        Packet::Connect(Box::new(Connect {
            version: self.version,
            bridge: self.flag,
            clean_start: self.flag,
            keep_alive_s: self.id,
            client_id: &self.text,
            will: self.flag.then_some(will),
            user_name: Some(&self.topic),
            password: self.flag.then_some(&self.payload),
            properties: ConnectProperties {
                session_expiry_s: Some(self.number),
                receive_maximum: Some(self.id),
                maximum_packet_size: Some(self.number | 1),
                topic_alias_maximum: Some(self.id),
                request_response_information: self.flag,
                request_problem_information: Some(self.flag),
                user,
                authentication_method: self.flag.then_some(&self.text),
                authentication_data: self.flag.then_some(&self.payload),
            },
        }))
    }

    fn connack<'a>(&'a self, user: UserProperties<'a>) -> ConnAck<'a> {
        let text = Some(self.text.as_str());
        let flag = Some(self.flag);
        ConnAck {
            session_present: self.flag,
            reason: ConnectReason::ALL[self.number as usize % ConnectReason::ALL.len()],
            properties: ConnAckProperties {
                session_expiry_s: Some(self.number),
                receive_maximum: Some(self.id),
                maximum_qos: Some(u8::from(self.flag)),
                retain_available: flag,
                maximum_packet_size: Some(self.number | 1),
                assigned_client_id: text,
                topic_alias_maximum: Some(self.id),
                reason_string: text,
                user,
                wildcard_available: flag,
                identifiers_available: flag,
                shared_available: flag,
                server_keep_alive_s: Some(self.id),
                response_information: text,
                server_reference: text,
                authentication_method: text,
                authentication_data: flag.map(|_| self.payload.as_slice()),
            },
        }
    }
}

/// What decodes is encoded to something that decodes to the same.
fn stays_the_same(version: Version, packet: &Packet<'_>) {
    let (mut once, mut twice) = (Vec::new(), Vec::new());
    encode(version, packet, &mut once);
    let again = decode(version, frame(&once, u32::MAX).expect("a frame").expect("whole")).expect("a packet");
    encode(version, &again, &mut twice);
    assert_eq!(once, twice, "{packet:?}");
    match (packet, &again) {
        (Packet::Publish(one), Packet::Publish(two)) => {
            assert_eq!((one.topic, one.id, one.payload), (two.topic, two.id, two.payload));
            assert!(one.properties.identifiers().eq(two.properties.identifiers()));
            assert!(one.properties.forwardable.iter().eq(two.properties.forwardable.iter()));
        }
        (Packet::Subscribe(one), Packet::Subscribe(two)) => assert!(one.filters.iter().eq(two.filters.iter())),
        (Packet::Unsubscribe(one), Packet::Unsubscribe(two)) => assert!(one.filters.iter().eq(two.filters.iter())),
        (Packet::Connect(one), Packet::Connect(two)) => {
            assert_eq!((one.client_id, one.user_name, one.password), (two.client_id, two.user_name, two.password));
            assert!(one.properties.user.iter().eq(two.properties.user.iter()));
        }
        (one, two) => assert_eq!(std::mem::discriminant(one), std::mem::discriminant(two)),
    }
}

/// Matching by definition: level by level, recursively (MQTT 5, 4.7.1).
fn matches_by_definition(filter: &[&str], topic: &[&str]) -> bool {
    match (filter, topic) {
        ([], []) | (["#"], _) => true,
        (["+", filter @ ..], [_, topic @ ..]) => matches_by_definition(filter, topic),
        ([level, filter @ ..], [name, topic @ ..]) => level == name && matches_by_definition(filter, topic),
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn every_packet_decodes_to_itself(parts in parts()) {
        let bytes = parts.encoded();
        let whole = frame(&bytes, u32::MAX).expect("a frame").expect("whole");
        match decode(parts.version, whole) {
            Ok(packet) => {
                round_trip(parts.version, &packet);
                stays_the_same(parts.version, &packet);
            }
            Err(error) => assert_eq!((error, parts.kind, parts.version.is_v5()), (DecodeError::PacketType, 14, false)),
        }
    }

    #[test]
    fn damaged_packets_never_panic(
        parts in parts(), damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..5),
        cut in proptest::option::of(any::<proptest::sample::Index>()),
    ) {
        let mut bytes = parts.encoded();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(Some(frame)) = frame(&bytes, 1 << 20)
            && let Ok(packet) = decode(parts.version, frame)
        {
            let version = if let Packet::Connect(connect) = &packet { connect.version } else { parts.version };
            stays_the_same(version, &packet);
        }
    }

    #[test]
    fn garbage_sections_never_panic(section in proptest::collection::vec(prop_oneof![0..0x2B_u8, any::<u8>()], 0..40)) {
        for head in [&[0x30, 0, 0, 1, b'a'][..], &[0x40, 0, 0, 1, 0], &[0x82, 0, 0, 1], &[0x20, 0, 0, 0], &[0xE0, 0, 0]] {
            let mut bytes = [head, &[section.len() as u8], &section].concat();
            bytes[1] = bytes.len() as u8 - 2;
            if let Ok(packet) = decode(Version::V5, frame(&bytes, 1_000).expect("a frame").expect("whole")) {
                stays_the_same(Version::V5, &packet);
            }
        }
    }

    #[test]
    fn matching_is_what_it_is_by_definition(filter in "([ab$+]|)(/([ab+]|)){0,3}(/#)?", topic in "([ab$]|)(/([ab]|)){0,4}") {
        prop_assume!(!filter.is_empty() && !topic.is_empty());
        let levels: Vec<&str> = filter.split('/').collect();
        let names: Vec<&str> = topic.split('/').collect();
        let own = topic.starts_with('$') && matches!(levels[0], "+" | "#");
        let expected = !own && matches_by_definition(&levels, &names);
        let filter = TopicFilter::parse(&filter).expect("a filter");
        prop_assert_eq!(filter.matches(TopicName::parse(&topic).expect("a name")), expected);
    }

    #[test]
    fn names_are_refused_for_their_first_fault(text in "[a-c/+#\u{1}\u{7f}é]{0,40}") {
        let expected = match text.chars().find(|c| c.is_control() || matches!(c, '+' | '#')) {
            None if text.is_empty() => Err(TopicError::Empty),
            None => Ok(text.as_str()),
            Some('+' | '#') => Err(TopicError::WildcardInName),
            Some(_) => Err(TopicError::ControlCharacter),
        };
        prop_assert_eq!(TopicName::parse(&text).map(TopicName::as_str), expected);
    }
}
