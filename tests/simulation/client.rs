//! A client that follows the specification, and remembers what it was told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use turnpike_mqtt::{
    Ack, AckKind, Connect, ConnectProperties, ConnectReason, Forwardable, Packet, PacketId, Publish, PublishProperties,
    QoS, SubscribeOptions, TopicFilter, TopicName, Version, decode, encode, encode_ack, encode_publish,
    encode_subscribe, frame,
};

/// Identity of a message: publisher and number.
pub(crate) type Number = (usize, u32);

/// What a publisher still has to do for a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Publish,
    Release,
}

/// A client with a durable session. It survives crashes of the broker; its connection doesn't.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) index: usize,
    pub(crate) id: String,
    version: Version,
    subscribes: bool,
    pub(crate) connected: bool,
    pub(crate) subscribed: bool,
    was_confirmed: bool,
    sent_on_connection: BTreeSet<u16>,
    next_number: u32,
    next_id: u16,
    pending: BTreeMap<u16, (Number, QoS, Stage)>,
    order: VecDeque<u16>,
    /// Messages that the broker has taken over, with their QoS.
    pub(crate) acknowledged: Vec<(Number, QoS)>,
    incoming: BTreeSet<u16>,
    /// What the application got, in order.
    pub(crate) delivered: Vec<(Number, QoS)>,
    /// Bytes from the broker that are no whole packet yet.
    partial: Vec<u8>,
    /// Bytes for the broker.
    pub(crate) out: Vec<u8>,
    /// Acknowledgements that the application takes its time for.
    withheld: VecDeque<(AckKind, PacketId)>,
}

impl Client {
    pub(crate) fn new(index: usize, subscribes: bool) -> Self {
        Self {
            index,
            id: format!("client-{index}"),
            version: if index.is_multiple_of(2) { Version::V5 } else { Version::V311 },
            subscribes,
            connected: false,
            subscribed: false,
            was_confirmed: false,
            sent_on_connection: BTreeSet::new(),
            next_number: 0,
            next_id: 0,
            pending: BTreeMap::new(),
            order: VecDeque::new(),
            acknowledged: Vec::new(),
            incoming: BTreeSet::new(),
            delivered: Vec::new(),
            partial: Vec::new(),
            out: Vec::new(),
            withheld: VecDeque::new(),
        }
    }

    /// The connection is gone.
    pub(crate) fn disconnected(&mut self) {
        self.connected = false;
        self.partial.clear();
        self.out.clear();
        self.withheld.clear();
        self.sent_on_connection.clear();
    }

    /// Begins a connection.
    pub(crate) fn connect(&mut self) {
        let connect = Connect {
            version: self.version,
            bridge: false,
            clean_start: false,
            keep_alive_s: 0,
            client_id: &self.id,
            will: None,
            user_name: None,
            password: None,
            properties: ConnectProperties { session_expiry_s: Some(u32::MAX), ..ConnectProperties::default() },
        };
        encode(self.version, &Packet::Connect(Box::new(connect)), &mut self.out);
    }

    /// Publishes one message, if the window has room.
    pub(crate) fn publish(&mut self, qos: QoS) {
        if !self.connected || self.pending.len() >= 8 {
            return;
        }
        let number = (self.index, self.next_number);
        self.next_number += 1;
        loop {
            self.next_id = self.next_id % 20 + 1;
            if !self.pending.contains_key(&self.next_id) {
                break;
            }
        }
        self.pending.insert(self.next_id, (number, qos, Stage::Publish));
        self.order.push_back(self.next_id);
        self.send_publish(self.next_id, number, qos, false);
    }

    fn send_publish(&mut self, id: u16, number: Number, qos: QoS, dup: bool) {
        let payload = format!("{} {}", number.0, number.1);
        let publish = Publish {
            dup,
            qos,
            retain: false,
            topic: Some(TopicName::parse("news").expect("a topic name")),
            id: PacketId::new(id),
            properties: PublishProperties { forwardable: Forwardable::default(), ..PublishProperties::default() },
            payload: payload.as_bytes(),
        };
        self.sent_on_connection.insert(id);
        encode_publish(self.version, &publish, &mut self.out);
    }

    /// Sends an acknowledgement that was withheld.
    pub(crate) fn acknowledge(&mut self) {
        if let Some((kind, id)) = self.withheld.pop_front() {
            encode_ack(self.version, kind, id, turnpike_mqtt::ReasonCode::Success, &mut self.out);
        }
    }

    /// Everything has been said and done.
    pub(crate) fn is_idle(&self) -> bool {
        self.connected && (!self.subscribes || self.subscribed) && self.pending.is_empty() && self.withheld.is_empty()
    }

    /// Bytes from the broker.
    pub(crate) fn receive(&mut self, bytes: &[u8]) {
        self.partial.extend_from_slice(bytes);
        let partial = std::mem::take(&mut self.partial);
        let mut rest = partial.as_slice();
        while let Some(frame) = frame(rest, u32::MAX).expect("the broker sends frames") {
            let packet = decode(self.version, frame).expect("the broker sends packets");
            self.packet(&packet);
            rest = &rest[frame.len()..];
        }
        self.partial = rest.to_vec();
    }

    fn packet(&mut self, packet: &Packet<'_>) {
        match packet {
            Packet::ConnAck(ack) => {
                assert_eq!(ack.reason, ConnectReason::Success);
                assert!(ack.session_present || !self.was_confirmed, "{}: a confirmed session is gone", self.id);
                self.was_confirmed = true;
                self.connected = true;
                self.go_on();
            }
            Packet::SubAck(ack) => {
                assert_eq!(ack.codes, [2]);
                self.subscribed = true;
            }
            Packet::PubAck(ack) => self.taken(ack, QoS::AtLeastOnce),
            Packet::PubRec(ack) => self.taken(ack, QoS::ExactlyOnce),
            Packet::PubComp(ack) => {
                let (_, _, stage) = self.pending.remove(&ack.id.get()).expect("PUBCOMP of something under way");
                assert_eq!(stage, Stage::Release);
                self.order.retain(|id| *id != ack.id.get());
            }
            Packet::Publish(publish) => self.delivery(publish),
            Packet::PubRel(ack) => {
                self.incoming.remove(&ack.id.get());
                self.withheld.push_back((AckKind::PubComp, ack.id));
            }
            other => panic!("{}: unexpected {other:?}", self.id),
        }
    }

    /// What was under way goes on, in order [MQTT-4.4.0-1].
    fn go_on(&mut self) {
        if self.subscribes && !self.subscribed {
            let filter = TopicFilter::parse("news").expect("a filter");
            let id = PacketId::new(100).expect("not 0");
            let request = [(filter, SubscribeOptions::qos(QoS::ExactlyOnce))];
            encode_subscribe(self.version, id, None, request, &mut self.out);
        }
        for id in self.order.clone() {
            let (number, qos, stage) = self.pending[&id];
            match stage {
                Stage::Publish => self.send_publish(id, number, qos, true),
                Stage::Release => self.send_release(id),
            }
        }
    }

    fn send_release(&mut self, id: u16) {
        let id = PacketId::new(id).expect("not 0");
        encode_ack(self.version, AckKind::PubRel, id, turnpike_mqtt::ReasonCode::Success, &mut self.out);
    }

    fn taken(&mut self, ack: &Ack<'_>, qos: QoS) {
        let id = ack.id.get();
        let entry = self.pending.get_mut(&id).expect("an acknowledgement of something under way");
        assert_eq!(entry.1, qos);
        if entry.2 == Stage::Publish {
            self.acknowledged.push((entry.0, qos));
        }
        if qos == QoS::AtLeastOnce {
            self.pending.remove(&id);
            self.order.retain(|known| *known != id);
        } else {
            entry.2 = Stage::Release;
            self.send_release(id);
        }
    }

    fn delivery(&mut self, publish: &Publish<'_>) {
        let text = std::str::from_utf8(publish.payload).expect("text");
        let (publisher, number) = text.split_once(' ').expect("two numbers");
        let number = (publisher.parse().expect("a number"), number.parse().expect("a number"));
        let id = publish.id.expect("published with QoS 1 or 2");
        match publish.qos {
            QoS::ExactlyOnce => {
                if self.incoming.insert(id.get()) {
                    self.delivered.push((number, QoS::ExactlyOnce));
                }
                self.withheld.push_back((AckKind::PubRec, id));
            }
            QoS::AtLeastOnce => {
                self.delivered.push((number, QoS::AtLeastOnce));
                self.withheld.push_back((AckKind::PubAck, id));
            }
            QoS::AtMostOnce => panic!("a delivery of QoS 0 of a message of QoS 1 or 2"),
        }
    }
}
