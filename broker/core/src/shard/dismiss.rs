//! Clients that get what they came for and don't come in ([`crate::gate::Verdict::Dismissed`]).

use turnpike_mqtt::{Connect, Packet, Publish, PublishProperties, QoS, TopicName};

use super::Shard;
use crate::gate::{Gate, Parting};
use crate::ids::ConnId;

impl<G: Gate> Shard<G> {
    /// CONNACK, the one message, the end. There is no session, and nothing that the client had sent behind its CONNECT is looked at.
    pub(super) fn dismiss(&mut self, conn: ConnId, connect: &Connect<'_>, parting: &Parting) {
        let ack = self.connack(connect, false, None, 0, None);
        self.send(conn, &Packet::ConnAck(Box::new(ack)));
        if let Ok(topic) = TopicName::parse(&parting.topic) {
            self.send(
                conn,
                &Packet::Publish(Publish {
                    dup: false,
                    qos: QoS::AtMostOnce,
                    retain: false,
                    topic: Some(topic),
                    id: None,
                    properties: PublishProperties::default(),
                    payload: &parting.payload,
                }),
            );
        }
        self.end(conn);
    }
}

#[cfg(test)]
mod tests;
