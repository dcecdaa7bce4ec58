//! What the tests of this crate share.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::sync::Arc;

use proptest::prelude::*;
use turnpike_core::durable::{Body, Op, Owed, Part, RecoveredSession, Recovery, SessionRecord};
use turnpike_core::ids::{ClientId, MessageId, Seq, SessionKey, ShardId, Ticket, Turn};
use turnpike_core::message::{Message, MessageParts};
use turnpike_mqtt::{PacketId, QoS, TopicName};

use crate::{RecoverySummary, Store};

/// Everything that a store holds.
#[derive(Default, PartialEq, Debug)]
pub(crate) struct Contents {
    pub(crate) sessions: Vec<RecoveredSession>,
    pub(crate) retained: Vec<Message>,
    pub(crate) registry: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Recovery for Contents {
    fn session(&mut self, session: RecoveredSession) {
        self.sessions.push(session);
    }

    fn retained(&mut self, message: Message) {
        self.retained.push(message);
    }

    fn registry(&mut self, key: &[u8], value: &[u8]) {
        self.registry.insert(key.to_vec(), value.to_vec());
    }
}

pub(crate) fn contents(store: &mut dyn Store) -> (Contents, RecoverySummary) {
    let mut contents = Contents::default();
    let summary = store.recover(&mut contents).expect("the store can be read");
    contents.retained.sort_by_key(|message| message.topic().as_str().to_owned());
    for session in &mut contents.sessions {
        session.subscriptions.sort();
    }
    (contents, summary)
}

pub(crate) fn ticket(turn: u64, ops: Vec<Op>) -> Part {
    Part { ticket: Ticket { origin: ShardId(0), turn: Turn(turn) }, parts: Some(1), ops }
}

pub(crate) fn message(topic: &str, payload: &[u8]) -> Message {
    Message::new(&MessageParts {
        topic: TopicName::from_validated(topic),
        properties: &[],
        payload,
        qos: QoS::AtLeastOnce,
        retain: false,
        expires_at_ms: None,
        publisher: None,
    })
}

pub(crate) fn session(client: &str) -> Arc<SessionRecord> {
    Arc::new(SessionRecord {
        client: ClientId::new(client),
        expiry_s: 3_600,
        disconnected_at_ms: None,
        mqtt3: false,
        principal: "".into(),
        will: None,
    })
}

pub(crate) fn owed(body: Body) -> Owed {
    Owed { qos: QoS::AtLeastOnce, retain: false, identifiers: Box::default(), share: None, body }
}

pub(crate) fn packet_id(id: u16) -> PacketId {
    PacketId(NonZeroU16::new(id).expect("not 0"))
}

fn any_qos() -> impl Strategy<Value = QoS> {
    prop_oneof![Just(QoS::AtMostOnce), Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)]
}

fn any_message() -> impl Strategy<Value = Arc<Message>> {
    let payload = prop_oneof![
        4 => proptest::collection::vec(any::<u8>(), 0..200),
        1 => proptest::collection::vec(any::<u8>(), 5_000..20_000),
    ];
    let parts = ("[a-c]{1,2}(/[a-c]{1,2}){0,2}", proptest::collection::vec(any::<u8>(), 0..20), payload);
    (parts, any_qos(), any::<bool>(), any::<Option<u64>>()).prop_map(
        |((topic, properties, payload), qos, retain, at)| {
            Arc::new(Message::new(&MessageParts {
                topic: TopicName::from_validated(&topic),
                properties: &properties,
                payload: &payload,
                qos,
                retain,
                expires_at_ms: at,
                publisher: None,
            }))
        },
    )
}

fn any_session() -> impl Strategy<Value = Arc<SessionRecord>> {
    let text = ("[a-zé]{0,12}", "[a-z]{0,8}");
    (text, any::<u32>(), any::<Option<u64>>(), any::<bool>(), proptest::option::of((any_message(), any::<u64>())))
        .prop_map(|((client, principal), expiry_s, disconnected_at_ms, mqtt3, will)| {
            let client = ClientId::new(&client);
            Arc::new(SessionRecord { client, expiry_s, disconnected_at_ms, mqtt3, principal: principal.into(), will })
        })
}

fn any_owed() -> impl Strategy<Value = Owed> {
    let body = prop_oneof![
        any_message().prop_map(Body::Inline),
        (1u64..12, any_message()).prop_map(|(id, message)| Body::Shared(MessageId(id), message)),
        Just(Body::Released),
    ];
    let share = proptest::option::of("\\$share/[a-c]/[a-c]".prop_map(Arc::from));
    (any_qos(), any::<bool>(), proptest::collection::vec(any::<u32>(), 0..3), share, body).prop_map(
        |(qos, retain, identifiers, share, body)| Owed { qos, retain, identifiers: identifiers.into(), share, body },
    )
}

/// Operations on so few keys that they meet.
pub(crate) fn any_op() -> impl Strategy<Value = Op> {
    let session = (0u64..8).prop_map(SessionKey);
    let place = (session.clone(), (0u64..20).prop_map(Seq));
    let identifier = (session.clone(), (1u16..6).prop_map(packet_id));
    let filter = prop_oneof![8 => "[a-c]/(#|\\+)?", 1 => Just("x".repeat(65_400))];
    let filter = (session.clone(), filter.prop_map(String::into_boxed_str));
    let id = (1u64..12).prop_map(MessageId);
    let key = proptest::collection::vec(0u8..3, 1..4).prop_map(Vec::into_boxed_slice);
    let value = proptest::collection::vec(any::<u8>(), 0..50).prop_map(Vec::into_boxed_slice);
    prop_oneof![
        6 => (session.clone(), any_session()).prop_map(|(key, record)| Op::SessionPut(key, record)),
        1 => session.prop_map(Op::SessionDelete),
        4 => (filter.clone(), any::<u8>(), any::<u32>()).prop_map(|((session, filter), options, identifier)| {
            Op::SubscriptionPut { session, filter, options, identifier }
        }),
        2 => filter.prop_map(|(session, filter)| Op::SubscriptionDelete { session, filter }),
        4 => (id.clone(), any_message()).prop_map(|(id, message)| Op::MessagePut(id, message)),
        2 => id.prop_map(Op::MessageDelete),
        10 => (place.clone(), any_owed()).prop_map(|((session, seq), owed)| Op::OwedPut { session, seq, owed }),
        2 => place.clone().prop_map(|(session, seq)| Op::OwedReleased { session, seq }),
        6 => place.prop_map(|(session, seq)| Op::OwedDelete { session, seq }),
        3 => identifier.clone().prop_map(|(session, id)| Op::IncomingPut { session, id }),
        2 => identifier.prop_map(|(session, id)| Op::IncomingDelete { session, id }),
        3 => any_message().prop_map(Op::RetainedPut),
        2 => "[a-c]{1,2}".prop_map(|topic| Op::RetainedDelete(topic.into_boxed_str())),
        3 => (key.clone(), value).prop_map(|(key, value)| Op::RegistryPut(key, value)),
        1 => key.prop_map(Op::RegistryDelete),
    ]
}
