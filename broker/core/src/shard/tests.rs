//! Shards driven by hand: bytes in, bytes out, every commit at once.

use std::net::SocketAddr;

use turnpike_mqtt::{
    AckKind, Connect, ConnectProperties, Forwardable, PacketId, Publish, PublishProperties, QoS, SubscribeOptions,
    TopicFilter, encode_ack, encode_publish, encode_subscribe,
};

use super::*;
use crate::durable::Op;
use crate::gate::{Admission, Attempt, Principal, Verdict};
use crate::shard::testing::{everything_is_allowed, nobody_is_challenged, several};

mod forgetting;
mod full_disk;
mod full_queues;
mod partial;

const NOW: Now = Now { mono_ms: 1_000, unix_ms: 1_700_000_000_000 };

/// Lets everybody do everything.
struct Open;

impl Gate for Open {
    fn authenticate(&self, _: &Attempt<'_>, _: Now, _: [u8; 32]) -> Verdict {
        Verdict::Granted(Admission::new(Principal::Anonymous))
    }
    nobody_is_challenged!();
    everything_is_allowed!();
}

/// A connection and the shard that it is on.
#[derive(Clone, Copy)]
struct Client {
    shard: usize,
    conn: ConnId,
    version: Version,
}

/// Some shards and what was committed.
struct Broker {
    shards: Vec<Shard<Open>>,
    shared: Arc<Shared>,
    committed: Vec<Op>,
}

impl Broker {
    fn new(shards: u16, limits: Limits) -> Self {
        let (shards, shared) = several(shards, &Arc::new(Open), limits, NOW);
        Self { shards, shared, committed: Vec::new() }
    }

    /// A client id whose home is that shard.
    fn id_at(&self, shard: u16) -> String {
        let shards = u16::try_from(self.shards.len()).unwrap();
        (0..).map(|n| format!("client-{n}")).find(|id| home(id, shards) == ShardId(shard)).unwrap()
    }

    fn connect(&mut self, id: &str, version: Version, expiry_s: u32) -> Client {
        let shard = usize::from(home(id, u16::try_from(self.shards.len()).unwrap()).0);
        let addr = SocketAddr::from(([127, 0, 0, 1], 1));
        let conn = self.shards[shard].open(Peer { addr, tls: false, certificate: None }, NOW).unwrap();
        let client = Client { shard, conn, version };
        let properties = match version {
            Version::V5 => ConnectProperties { session_expiry_s: Some(expiry_s), ..ConnectProperties::default() },
            _ => ConnectProperties::default(),
        };
        let connect = Connect {
            version,
            bridge: false,
            clean_start: expiry_s == 0,
            keep_alive_s: 0,
            client_id: id,
            will: None,
            user_name: None,
            password: None,
            properties,
        };
        let mut bytes = Vec::new();
        encode(version, &Packet::Connect(Box::new(connect)), &mut bytes);
        self.say(client, &bytes);
        client
    }

    fn subscribe(&mut self, client: Client, filter: &str) {
        let mut bytes = Vec::new();
        let request = [(TopicFilter::parse(filter).unwrap(), SubscribeOptions::qos(QoS::ExactlyOnce))];
        encode_subscribe(client.version, PacketId::new(1).unwrap(), None, request, &mut bytes);
        self.say(client, &bytes);
    }

    fn close(&mut self, client: Client) {
        self.shards[client.shard].closed(client.conn, NOW);
        self.turn();
    }

    /// Publishes, and gives the reason of the acknowledgement.
    fn publish(&mut self, client: Client, topic: &str, qos: QoS, id: u16, retain: bool) -> Option<ReasonCode> {
        let publish = Publish {
            dup: false,
            qos,
            retain,
            topic: Some(TopicName::parse(topic).unwrap()),
            id: PacketId::new(id).filter(|_| qos != QoS::AtMostOnce),
            properties: PublishProperties { forwardable: Forwardable::default(), ..PublishProperties::default() },
            payload: b"x",
        };
        let mut bytes = Vec::new();
        encode_publish(client.version, &publish, &mut bytes);
        let said = self.say(client, &bytes);
        packets(client.version, &said, |packet| match packet {
            Packet::PubAck(ack) | Packet::PubRec(ack) => Some(ack.reason),
            _ => None,
        })
        .pop()
    }

    fn acknowledge(&mut self, client: Client, id: PacketId) {
        let mut bytes = Vec::new();
        encode_ack(client.version, AckKind::PubAck, id, ReasonCode::Success, &mut bytes);
        self.say(client, &bytes);
    }

    /// Bytes of a client; gives what it is answered.
    fn say(&mut self, client: Client, bytes: &[u8]) -> Vec<u8> {
        let received = self.shards[client.shard].receive(client.conn, bytes, NOW);
        assert_eq!(received.consumed, bytes.len());
        self.turn();
        self.heard(client)
    }

    /// What waits to be written to a client.
    fn heard(&mut self, client: Client) -> Vec<u8> {
        let said = self.shards[client.shard].output(client.conn).bytes.to_vec();
        self.shards[client.shard].wrote(client.conn, said.len(), NOW);
        said
    }

    /// Ends turns, carries batches and commits until nothing moves.
    fn turn(&mut self) {
        loop {
            let (mut tickets, mut moved) = (Vec::new(), false);
            for from in 0..self.shards.len() {
                let output = self.shards[from].end_turn();
                let mut parts = output.parts;
                for (to, batch) in output.batches {
                    moved = true;
                    parts.extend(self.shards[usize::from(to.0)].deliver(&batch, NOW));
                }
                for part in parts {
                    tickets.push(part.ticket);
                    self.committed.extend(part.ops);
                }
            }
            for shard in &mut self.shards {
                shard.committed(&tickets, NOW);
            }
            if tickets.is_empty() && !moved {
                return;
            }
        }
    }
}

/// What `f` finds in the packets of a stream.
fn packets<T>(version: Version, mut bytes: &[u8], mut f: impl FnMut(&Packet<'_>) -> Option<T>) -> Vec<T> {
    let mut found = Vec::new();
    while let Some(frame) = frame(bytes, u32::MAX).unwrap() {
        found.extend(f(&decode(version, frame).unwrap()));
        bytes = &bytes[frame.len()..];
    }
    found
}
