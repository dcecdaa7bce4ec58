//! A publisher: a frame that is encoded once and patched for each message.

use std::collections::VecDeque;

use turnpike_mqtt::{PacketId, Publish, PublishProperties, QoS, TopicName, Version, encode_publish};

use crate::plan::{Plan, Publication};
use crate::spec::{STAMP_BYTES, Scenario, Spec};

/// Unacknowledged messages of a client of MQTT 3, which isn't told how many the broker takes.
const UNACKED_MAX: u64 = 1000;

pub(super) struct Publisher {
    pub(super) number: u32,
    /// Messages published.
    pub(super) sent: u64,
    /// Messages whose last acknowledgement came.
    acked: u64,
    unacked_max: u64,
    /// Something more could have been sent, if only the broker had acknowledged more.
    pub(super) is_blocked: bool,
    /// Open loop: when the next message is due.
    pub(super) due_ns: u64,
    publication: Publication,
    frame: Vec<u8>,
    id_at: Option<usize>,
    stamp_at: usize,
    next_id: u16,
    /// When the unacknowledged ones were published, where nobody receives them.
    sent_at_ns: Option<VecDeque<u64>>,
}

impl Publisher {
    pub(super) fn new(spec: &Spec, publication: &Publication) -> Self {
        let mut publisher = Self {
            number: publication.publisher,
            sent: 0,
            acked: 0,
            unacked_max: if spec.qos == QoS::AtMostOnce { u64::MAX } else { UNACKED_MAX },
            is_blocked: false,
            due_ns: u64::MAX,
            publication: publication.clone(),
            frame: Vec::new(),
            id_at: None,
            stamp_at: 0,
            next_id: 0,
            sent_at_ns: (spec.copies() == 0 && spec.qos != QoS::AtMostOnce).then(VecDeque::new),
        };
        publisher.encode(spec, &publication.topic);
        publisher
    }

    fn encode(&mut self, spec: &Spec, topic: &str) {
        let payload = vec![b'x'; spec.payload.max(STAMP_BYTES)];
        let publish = Publish {
            dup: false,
            qos: spec.qos,
            retain: self.publication.retain,
            topic: TopicName::parse(topic).ok(),
            id: if spec.qos == QoS::AtMostOnce { None } else { PacketId::new(1) },
            properties: PublishProperties::default(),
            payload: &payload,
        };
        self.frame.clear();
        encode_publish(spec.version, &publish, &mut self.frame);
        self.stamp_at = self.frame.len() - payload.len();
        let properties = usize::from(spec.version == Version::V5);
        self.id_at = publish.id.map(|_| self.stamp_at - properties - 2);
    }

    /// The broker takes so many unacknowledged messages.
    pub(super) fn limit(&mut self, receive_max: u16) {
        self.unacked_max = self.unacked_max.min(u64::from(receive_max));
    }

    /// Messages that are still to be sent, of those that there are.
    pub(super) fn left(&self) -> u64 {
        if self.publication.retain { (self.publication.topics as u64).saturating_sub(self.sent) } else { u64::MAX }
    }

    /// How many more may be unacknowledged.
    pub(super) fn unacked_room(&self) -> u64 {
        self.unacked_max.saturating_sub(self.sent.saturating_sub(self.acked))
    }

    /// The last acknowledgement of a message came. When that was published, if it was noted.
    pub(super) fn acked(&mut self) -> Option<u64> {
        self.acked += 1;
        self.sent_at_ns.as_mut().and_then(VecDeque::pop_front)
    }

    /// Appends the next message.
    #[inline]
    pub(super) fn publish(&mut self, spec: &Spec, out: &mut Vec<u8>, at_ns: u64) {
        if self.publication.topics > 1 {
            let topic = Plan::topic_of(spec, &self.publication, self.sent);
            self.encode(spec, &topic);
        }
        self.sent += 1;
        if let Some(at) = self.id_at {
            self.next_id = self.next_id % u16::MAX + 1;
            self.frame[at..at + 2].copy_from_slice(&self.next_id.to_be_bytes());
        }
        let stamp = &mut self.frame[self.stamp_at..self.stamp_at + STAMP_BYTES];
        stamp[0..8].copy_from_slice(&at_ns.to_le_bytes());
        stamp[8..12].copy_from_slice(&self.number.to_le_bytes());
        stamp[12..16].copy_from_slice(&(self.sent as u32).to_le_bytes());
        out.extend_from_slice(&self.frame);
        if let Some(sent_at_ns) = &mut self.sent_at_ns {
            sent_at_ns.push_back(at_ns);
        }
    }

    /// Appends an empty message for each topic that has a retained one.
    pub(super) fn clear_retained(&mut self, spec: &Spec, out: &mut Vec<u8>) {
        debug_assert_eq!(spec.scenario, Scenario::Retained);
        for message in 0..self.sent.min(self.publication.topics as u64) {
            let topic = Plan::topic_of(spec, &self.publication, message);
            let publish = Publish {
                dup: false,
                qos: QoS::AtMostOnce,
                retain: true,
                topic: TopicName::parse(&topic).ok(),
                id: None,
                properties: PublishProperties::default(),
                payload: &[],
            };
            encode_publish(spec.version, &publish, out);
        }
    }
}
