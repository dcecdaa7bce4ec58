//! A blocking MQTT client: as much as devices and a back end need here.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context;
use turnpike_authz::credential::Credentials;
use turnpike_mqtt::{
    AckKind, Connect, ConnectProperties, Packet, PacketId, Publish, PublishProperties, QoS, ReasonCode,
    SubscribeOptions, TopicFilter, TopicName, Version, decode, encode, encode_ack, encode_publish, encode_subscribe,
    frame,
};

pub(crate) struct Client {
    stream: TcpStream,
    received: Vec<u8>,
    used: usize,
    out: Vec<u8>,
}

/// What came.
pub(crate) enum Came {
    Message { topic: String, payload: Vec<u8>, dup: bool, qos1: Option<PacketId> },
    Acknowledged,
    Other,
}

impl Client {
    /// Connects and is let in. `lasting_s`: how long its session outlives it.
    pub(crate) fn connect(address: SocketAddr, login: &Credentials, lasting_s: Option<u32>) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut client = Self { stream, received: Vec::new(), used: 0, out: Vec::new() };
        let properties = ConnectProperties { session_expiry_s: lasting_s, ..ConnectProperties::default() };
        let connect = Connect {
            version: Version::V5,
            bridge: false,
            clean_start: lasting_s.is_none(),
            keep_alive_s: 0,
            client_id: &login.client_id,
            will: None,
            user_name: Some(&login.user_name),
            password: Some(login.password.as_bytes()),
            properties,
        };
        encode(Version::V5, &Packet::Connect(Box::new(connect)), &mut client.out);
        client.flush()?;
        client.skip("CONNACK")?;
        Ok(client)
    }

    pub(crate) fn subscribe(&mut self, filter: &str, qos: QoS) -> anyhow::Result<()> {
        let filter = TopicFilter::parse(filter).context("a filter")?;
        let id = PacketId::new(1).context("not 0")?;
        encode_subscribe(Version::V5, id, None, [(filter, SubscribeOptions::qos(qos))], &mut self.out);
        self.flush()
    }

    pub(crate) fn publish(&mut self, topic: &str, payload: &[u8], qos: QoS, id: u16) -> anyhow::Result<()> {
        let publish = Publish {
            dup: false,
            qos,
            retain: false,
            topic: Some(TopicName::parse(topic).context("a topic")?),
            id: PacketId::new(id).filter(|_| qos != QoS::AtMostOnce),
            properties: PublishProperties::default(),
            payload,
        };
        encode_publish(Version::V5, &publish, &mut self.out);
        self.flush()
    }

    /// Acknowledges, with the next flush.
    pub(crate) fn acknowledge(&mut self, id: PacketId) {
        encode_ack(Version::V5, AckKind::PubAck, id, ReasonCode::Success, &mut self.out);
    }

    pub(crate) fn flush(&mut self) -> anyhow::Result<()> {
        self.stream.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    pub(crate) fn set_patience(&self, patience: Duration) -> anyhow::Result<()> {
        Ok(self.stream.set_read_timeout(Some(patience))?)
    }

    /// Whether what was read has been looked at whole, so that the next look waits.
    pub(crate) fn is_drained(&self) -> bool {
        !matches!(frame(self.received.get(self.used..).unwrap_or_default(), u32::MAX), Ok(Some(_)))
    }

    /// The next packet; none if nothing came in time.
    pub(crate) fn next(&mut self) -> anyhow::Result<Option<Came>> {
        let mut buffer = [0; 64 << 10];
        loop {
            let rest = self.received.get(self.used..).unwrap_or_default();
            if let Some(found) = frame(rest, u32::MAX)? {
                let length = found.len();
                let came = match decode(Version::V5, found)? {
                    Packet::Publish(publish) => Came::Message {
                        topic: publish.topic.map(|topic| topic.as_str().to_owned()).unwrap_or_default(),
                        payload: publish.payload.to_vec(),
                        dup: publish.dup,
                        qos1: publish.id.filter(|_| publish.qos == QoS::AtLeastOnce),
                    },
                    Packet::PubAck(_) => Came::Acknowledged,
                    Packet::ConnAck(ack) => {
                        anyhow::ensure!((ack.reason as u8) < 0x80, "refused: {:?}", ack.reason);
                        Came::Other
                    }
                    Packet::Disconnect(disconnect) => anyhow::bail!("disconnected: {:?}", disconnect.reason),
                    _ => Came::Other,
                };
                self.used += length;
                return Ok(Some(came));
            }
            self.received.drain(..self.used);
            self.used = 0;
            match self.stream.read(&mut buffer) {
                Ok(0) => anyhow::bail!("the broker closed the connection"),
                Ok(length) => self.received.extend_from_slice(&buffer[..length]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn skip(&mut self, what: &str) -> anyhow::Result<()> {
        self.next()?.with_context(|| format!("no {what}"))?;
        Ok(())
    }
}
