//! What the core does with a cipher. That of these tests is none: a sealed payload says its epoch and its number, `7.0:text`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use turnpike_mqtt::{
    Connect, ConnectProperties, Packet, PacketId, PublishProperties, SubscribeOptions, TopicFilter, UserProperties,
    decode, encode, encode_publish, encode_subscribe, frame,
};

use super::*;
use crate::cipher::Random;
use crate::gate::{Admission, Attempt, Principal, Verdict};
use crate::limits::Limits;
use crate::shard::Setup;
use crate::shard::testing::{everything_is_allowed, nobody_is_challenged, peer, setup};

const VERSIONS: [Version; 2] = [Version::V311, Version::V5];
const KEYS: &str = "keys";

#[derive(Debug)]
struct Toy {
    ready: bool,
    epoch: u32,
    sealed: u32,
    messages: u32,
    announced: bool,
    due_ms: u64,
    taken: Vec<Vec<u8>>,
}

impl Toy {
    fn announcement(&self) -> Announcement {
        Announcement { topic: KEYS.to_owned(), payload: format!("epoch {}", self.epoch).into_bytes() }
    }
}

impl PayloadCipher for Toy {
    fn begin(&mut self, properties: UserProperties<'_>, now: Now, random: Random<'_>) -> Result<(), ConnectReason> {
        if properties.iter().any(|(name, _)| name == "wrong") {
            return Err(ConnectReason::NotAuthorized);
        }
        let mut byte = [0];
        random(&mut byte);
        self.epoch = byte[0].into();
        self.due_ms = now.mono_ms + 3_600_000;
        Ok(())
    }
    fn is_ready(&self) -> bool {
        self.ready
    }
    fn is_key_topic(&self, topic: &str) -> bool {
        topic == KEYS
    }
    fn key_topic(&self) -> String {
        KEYS.to_owned()
    }
    fn hello(&mut self, payload: &[u8], _: Now, _: Random<'_>) -> Result<(), ReasonCode> {
        if self.ready || payload != b"hello" {
            return Err(ReasonCode::NotAuthorized);
        }
        self.ready = true;
        Ok(())
    }
    fn open(&mut self, _: &str, payload: &[u8], _: Now) -> Result<Vec<u8>, ReasonCode> {
        let wanted = format!("{}.", self.epoch).into_bytes();
        if !self.ready || !payload.starts_with(&wanted) {
            return Err(ReasonCode::PayloadFormatInvalid);
        }
        if self.taken.iter().any(|taken| taken == payload) {
            return Err(ReasonCode::Success);
        }
        self.taken.push(payload.to_vec());
        self.messages += 1;
        Ok(payload.splitn(2, |byte| *byte == b':').nth(1).unwrap_or_default().to_vec())
    }
    fn seal(&mut self, _: &str, payload: &[u8]) -> Option<Vec<u8>> {
        let head = format!("{}.{}:", self.epoch, self.sealed);
        self.sealed += 1;
        self.messages += 1;
        self.ready.then(|| [head.as_bytes(), payload].concat())
    }
    fn poll(&mut self, now: Now) -> Option<Announcement> {
        if self.messages >= 4 || now.mono_ms >= self.due_ms {
            (self.epoch, self.sealed, self.messages) = (self.epoch + 1, 0, 0);
            (self.announced, self.due_ms) = (false, now.mono_ms + 3_600_000);
        }
        (!std::mem::replace(&mut self.announced, true)).then(|| self.announcement())
    }
    fn announce(&mut self) -> Option<Announcement> {
        self.ready.then(|| self.announcement())
    }
    fn deadline_ms(&self) -> Option<u64> {
        self.ready.then_some(self.due_ms)
    }
}

/// Gives a cipher to clients whose id begins with `sealed`, and to those with `hello` one that waits for it.
#[derive(Default)]
struct Ciphering(AtomicBool);

impl Gate for Ciphering {
    fn authenticate(&self, attempt: &Attempt<'_>, _: Now, _: [u8; 32]) -> Verdict {
        let (sealed, hello) = (attempt.client_id.starts_with("sealed"), attempt.client_id.starts_with("hello"));
        let toy =
            Toy { ready: sealed, epoch: 0, sealed: 0, messages: 0, announced: false, due_ms: 0, taken: Vec::new() };
        let cipher = (sealed || hello).then(|| Box::new(toy) as Box<dyn PayloadCipher>);
        let device = crate::gate::DeviceIdentity {
            product: "p".into(),
            device: attempt.client_id.into(),
            means: Default::default(),
        };
        Verdict::Granted(Admission { cipher, ..Admission::new(Principal::Device(Arc::new(device))) })
    }
    nobody_is_challenged!();
    everything_is_allowed!();
    fn seals(&self, principal: &Principal, _: bool) -> bool {
        let Principal::Device(device) = principal else { return false };
        device.device.starts_with("sealed") != self.0.load(Ordering::Relaxed)
    }
}

/// What a client hears, in words.
fn heard(version: Version, bytes: &[u8]) -> Vec<String> {
    let (mut rest, mut words) = (bytes, Vec::new());
    while let Ok(Some(found)) = frame(rest, u32::MAX) {
        words.push(match decode(version, found).expect("a packet") {
            Packet::Publish(publish) => {
                let topic = publish.topic.map_or("-", TopicName::as_str);
                let dup = if publish.dup { " dup" } else { "" };
                let qos = publish.qos as u8;
                format!("{topic} {qos}{dup} {}", String::from_utf8_lossy(publish.payload))
            }
            Packet::PubAck(ack) => format!("puback {:#04x}", ack.reason as u8),
            Packet::PubRec(ack) => format!("pubrec {:#04x}", ack.reason as u8),
            Packet::ConnAck(ack) => format!("connack {:?}", ack.reason),
            Packet::SubAck(_) => "suback".to_owned(),
            Packet::Disconnect(disconnect) => format!("disconnect {:?}", disconnect.reason),
            other => format!("{other:?}"),
        });
        rest = &rest[found.len()..];
    }
    assert!(rest.is_empty());
    words
}

struct World {
    shard: Shard<Ciphering>,
    gate: Arc<Ciphering>,
    now: Now,
}

impl World {
    fn new() -> Self {
        let gate = Arc::new(Ciphering::default());
        let now = Now { mono_ms: 1_000, unix_ms: 1_700_000_000_000 };
        let mut next = 7;
        // Each log-in begins with another epoch: 10, 20, …
        let entropy = Box::new(move |bytes: &mut [u8]| {
            bytes.fill(next);
            next = if next == 7 { 10 } else { next + 10 };
        });
        let shard = Shard::new(Setup { entropy, ..setup(&gate, Limits::default(), now) });
        Self { shard, gate, now }
    }

    fn connect(&mut self, version: Version, id: &str, properties: ConnectProperties<'_>) -> Client {
        let conn = self.shard.open(peer(false), self.now).expect("room");
        let connect = Connect {
            version,
            bridge: false,
            clean_start: properties.session_expiry_s.is_none(),
            keep_alive_s: 0,
            properties,
            client_id: id,
            will: None,
            user_name: None,
            password: None,
        };
        let mut bytes = Vec::new();
        encode(version, &Packet::Connect(Box::new(connect)), &mut bytes);
        let client = Client { conn, version };
        self.feed(client, &bytes);
        client
    }

    /// Connected, and what is said first is done with.
    fn client(&mut self, version: Version, id: &str) -> Client {
        let client = self.connect(version, id, ConnectProperties::default());
        let said = self.said(client);
        assert_eq!(said[0], "connack Success");
        client
    }

    fn feed(&mut self, client: Client, bytes: &[u8]) {
        let _ = self.shard.receive(client.conn, bytes, self.now);
        self.commit();
    }

    /// The store has what the shard gave it.
    fn commit(&mut self) {
        let parts = self.shard.end_turn().parts;
        let tickets: Vec<_> = parts.iter().map(|part| part.ticket).collect();
        self.shard.committed(&tickets, self.now);
    }

    fn said(&mut self, client: Client) -> Vec<String> {
        let bytes = self.shard.output(client.conn).bytes.to_vec();
        self.shard.wrote(client.conn, bytes.len(), self.now);
        heard(client.version, &bytes)
    }

    fn publish(&mut self, client: Client, topic: &str, qos: u8, id: u16, payload: &str) {
        self.publish_with(client, topic, qos, id, payload, (false, PublishProperties::default()));
    }

    fn publish_with(
        &mut self,
        client: Client,
        topic: &str,
        qos: u8,
        id: u16,
        payload: &str,
        (retain, properties): (bool, PublishProperties<'_>),
    ) {
        let publish = Publish {
            dup: false,
            qos: [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(qos)],
            retain,
            topic: Some(topic).filter(|topic| !topic.is_empty()).map(TopicName::from_validated),
            id: PacketId::new(id).filter(|_| qos > 0),
            properties,
            payload: payload.as_bytes(),
        };
        let mut bytes = Vec::new();
        encode_publish(client.version, &publish, &mut bytes);
        self.feed(client, &bytes);
    }

    fn subscribe(&mut self, client: Client, filter: &str, qos: QoS) {
        let (id, filter) = (PacketId::new(9).expect("not 0"), TopicFilter::from_validated(filter));
        let mut bytes = Vec::new();
        encode_subscribe(client.version, id, None, [(filter, SubscribeOptions::qos(qos))], &mut bytes);
        self.feed(client, &bytes);
    }
}

#[derive(Clone, Copy)]
struct Client {
    conn: ConnId,
    version: Version,
}

#[test]
fn payloads_are_opened_before_they_are_routed_and_sealed_when_they_are_written() {
    for version in VERSIONS {
        let mut world = World::new();
        let plain = world.client(version, "plain");
        world.subscribe(plain, "#", QoS::ExactlyOnce);
        let device = world.connect(version, "sealed", ConnectProperties::default());
        assert_eq!(world.said(device), ["connack Success", "keys 0 epoch 10"]);
        world.subscribe(device, "down", QoS::AtLeastOnce);
        assert_eq!(world.said(device), ["suback"]);
        world.said(plain);
        world.publish_with(device, "up", 1, 1, "10.0:one", (true, PublishProperties::default()));
        assert_eq!((world.said(plain), world.said(device)), (vec!["up 1 one".into()], vec!["puback 0x00".into()]));
        for (qos, sealed) in ["10.0:", "10.1:"].into_iter().enumerate() {
            let qos = u8::try_from(qos).expect("small");
            world.publish(plain, "down", qos, 5, "x");
            assert_eq!(world.said(device), [format!("down {qos} {sealed}x")]);
        }
        // The retained message was kept as it was opened: plain for one, sealed for the other.
        world.said(plain);
        world.subscribe(plain, "up", QoS::AtMostOnce);
        assert_eq!(world.said(plain), ["suback", "up 0 one"]);
        world.subscribe(device, "up", QoS::AtMostOnce);
        // The fourth message of its epoch is the last.
        assert_eq!(world.said(device), ["suback", "up 0 10.2:one", "keys 0 epoch 11"]);
        world.publish(plain, "down", 0, 0, "x");
        assert_eq!(world.said(device), ["down 0 11.0:x"]);
    }
}

#[test]
fn what_does_not_open_is_dropped_and_answered() {
    for version in VERSIONS {
        let mut world = World::new();
        let (plain, device) = (world.client(version, "plain"), world.client(version, "sealed"));
        world.subscribe(plain, "#", QoS::AtMostOnce);
        world.said(plain);
        let is_5 = version == Version::V5;
        let refused = if is_5 { "0x99" } else { "0x00" };
        world.publish(device, "up", 0, 0, "plain");
        assert_eq!(world.said(device), [""; 0]);
        world.publish(device, "up", 1, 1, "");
        world.publish(device, "up", 2, 2, "9.0:void");
        assert_eq!(world.said(device), [format!("puback {refused}"), format!("pubrec {refused}")]);
        // A refused identifier is free again; one that MQTT 3 believes taken waits for PUBREL, as any does.
        world.publish(device, "up", 2, 2, "10.0:x");
        assert_eq!(world.said(device), ["pubrec 0x00"]);
        assert_eq!(world.said(plain), vec!["up 0 x"; usize::from(is_5)]);
        world.publish(device, "up", 1, 1, "10.1:y");
        world.publish(device, "up", 1, 1, "10.1:y");
        assert_eq!(world.said(device), ["puback 0x00", "puback 0x00"], "it was taken the first time");
        assert_eq!(world.said(plain), ["up 0 y"]);
        // [MQTT-4.3.3-10] what QoS 2 repeats isn't opened again.
        world.publish(device, "up", 2, 3, "10.2:z");
        world.publish(device, "up", 2, 3, "10.2:z");
        let said = world.said(device);
        assert_eq!(said.iter().filter(|word| *word == "pubrec 0x00").count(), 2, "{said:?}");
        assert_eq!(world.said(plain), ["up 0 z"]);
    }
}

#[test]
fn nothing_is_sent_before_there_are_keys() {
    for version in VERSIONS {
        let mut world = World::new();
        let (plain, device) = (world.client(version, "plain"), world.client(version, "hello"));
        world.subscribe(plain, "#", QoS::AtMostOnce);
        world.publish_with(plain, "kept", 0, 0, "kept", (true, PublishProperties::default()));
        world.subscribe(device, "down", QoS::AtLeastOnce);
        world.publish(plain, "down", 0, 0, "first");
        world.publish(plain, "down", 1, 1, "second");
        world.subscribe(device, "kept", QoS::AtMostOnce);
        world.subscribe(device, KEYS, QoS::AtMostOnce);
        world.publish(device, "up", 1, 1, "10.0:x");
        let refused = if version == Version::V5 { "puback 0x99" } else { "puback 0x00" };
        assert_eq!(world.said(device), ["suback", "suback", "suback", refused]);
        world.said(plain);
        world.publish(device, KEYS, 1, 2, "hello");
        assert_eq!(world.said(plain), [""; 0], "it isn't routed");
        let mut said = world.said(device);
        world.shard.tick(world.now);
        said.extend(world.said(device));
        assert_eq!(said[..2], ["puback 0x00", "keys 0 epoch 10"]);
        let mut texts: Vec<_> = said[2..].iter().map(|word| word.rsplit(':').next().expect("a text")).collect();
        texts.sort_unstable();
        assert_eq!(texts, ["first", "kept", "second"]);
        assert!(said[2..].iter().all(|word| word.contains(" 10.")), "{said:?}");
        world.publish(device, KEYS, 1, 3, "hello");
        let again = if version == Version::V5 { "puback 0x87" } else { "puback 0x00" };
        assert_eq!(world.said(device), [again]);
    }
}

#[test]
fn what_is_sent_again_is_sealed_anew() {
    let durable = ConnectProperties { session_expiry_s: Some(100), ..ConnectProperties::default() };
    let mut world = World::new();
    let (plain, device) = (world.client(Version::V5, "plain"), world.connect(Version::V5, "sealed", durable));
    world.subscribe(device, "down", QoS::ExactlyOnce);
    world.said(device);
    world.publish(plain, "down", 1, 1, "one");
    world.publish(plain, "down", 2, 2, "two");
    assert_eq!(world.said(device), ["down 1 10.0:one", "down 2 10.1:two"]);
    world.shard.closed(device.conn, world.now);
    let again = world.connect(Version::V5, "sealed", durable);
    assert_eq!(
        world.said(again),
        ["connack Success", "keys 0 epoch 20", "down 1 dup 20.0:one", "down 2 dup 20.1:two"],
        "the announcement goes first"
    );
    // What it had sealed under the old keys is void.
    world.publish(again, "up", 1, 1, "10.9:x");
    assert_eq!(world.said(again), ["puback 0x99"]);
}

#[test]
fn aliases_stand_for_topics_and_sealed_payloads_have_their_size() {
    let mut world = World::new();
    let plain = world.client(Version::V5, "plain");
    world.subscribe(plain, "#", QoS::AtMostOnce);
    world.said(plain);
    let small = ConnectProperties {
        maximum_packet_size: Some(30),
        topic_alias_maximum: Some(2),
        ..ConnectProperties::default()
    };
    let device = world.connect(Version::V5, "sealed", small);
    world.subscribe(device, "down", QoS::AtMostOnce);
    world.said(device);
    let aliased = PublishProperties { topic_alias: Some(1), ..PublishProperties::default() };
    world.publish_with(device, "up", 0, 0, "10.0:x", (false, aliased));
    world.publish_with(device, "", 0, 0, "10.1:y", (false, aliased));
    assert_eq!(world.said(plain), ["up 0 x", "up 0 y"]);
    // 2 + 2 + 4 of the topic, 1 + 3 of the alias, and the payload: 18 bytes fit.
    world.publish(plain, "down", 0, 0, "thirteen byte");
    world.publish(plain, "down", 0, 0, "fourteen bytes of it");
    assert_eq!(world.said(device), ["down 0 10.0:thirteen byte", "keys 0 epoch 11"]);
    assert_eq!(world.shard.counters().dropped.too_large, 1, "20 bytes would fit unsealed, since the alias is known");
}

#[test]
fn keys_are_announced_in_time_and_to_who_subscribes() {
    for version in VERSIONS {
        let mut world = World::new();
        let device = world.client(version, "sealed");
        for (filter, says) in [("k/#", vec!["suback"]), ("+", vec!["suback", "keys 0 epoch 10"])] {
            world.subscribe(device, filter, QoS::AtMostOnce);
            assert_eq!(world.said(device), says);
        }
        for epoch in 11..40 {
            // Messages end some epochs, time ends the others.
            if epoch % 3 != 0 {
                for n in 0..4 {
                    world.publish(device, "x/y", 0, 0, &format!("{}.{n}:x", epoch - 1));
                }
            } else {
                let end = world.now.mono_ms + 3_600_000;
                while let Some(at_ms) = world.shard.next_deadline().filter(|at_ms| *at_ms <= end) {
                    world.now.mono_ms = world.now.mono_ms.max(at_ms);
                    world.shard.tick(world.now);
                }
            }
            assert_eq!(world.said(device), [format!("keys 0 epoch {epoch}")]);
            let timers = world.shard.sealer(device.conn).expect("a cipher").armed_ms.len();
            assert!(timers <= 2, "{timers} timers of one connection");
        }
        world.shard.closed(device.conn, world.now);
        world.now.mono_ms += 10_000_000;
        world.shard.tick(world.now);
    }
}

#[test]
fn a_connection_on_other_terms_is_refused_or_ended() {
    let mut world = World::new();
    let wrong = turnpike_mqtt::ForwardableItem::User("wrong", "");
    let mut bytes = Vec::new();
    wrong.encode(&mut bytes);
    let properties = ConnectProperties { user: UserProperties::from_encoded(&bytes), ..ConnectProperties::default() };
    let refused = world.connect(Version::V5, "sealed", properties);
    assert_eq!(world.said(refused), ["connack NotAuthorized"]);
    assert!(world.shard.output(refused.conn).close);

    let (sealed, plain) = (world.client(Version::V5, "sealed-1"), world.client(Version::V5, "plain"));
    world.shard.rejudge("p", None, world.now);
    assert_eq!((world.said(sealed), world.said(plain)), (Vec::new(), Vec::new()), "nothing has changed");
    world.gate.0.store(true, Ordering::Relaxed);
    world.shard.rejudge("p", None, world.now);
    for client in [sealed, plain] {
        assert_eq!(world.said(client), ["disconnect AdministrativeAction"]);
        assert!(world.shard.output(client.conn).close);
    }
}
