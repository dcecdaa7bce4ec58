//! A user who is given a share and has it taken back, and sees when that holds.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Context;
use turnpike_mqtt::{
    Connect, ConnectProperties, Packet, PacketId, PacketType, QoS, SubscribeOptions, TopicFilter, Version, encode,
    encode_subscribe, frame,
};

use crate::http::Http;
use crate::identity::Login;

const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// A feed on which nothing comes for so long is at its end; the traffic brings a message far more often.
const QUIET: Duration = Duration::from_millis(200);

/// How soon a change was in force, from when it was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct InForce {
    /// The answer to the request for a share.
    pub(super) answered: Duration,
    /// The first message to whom it is given.
    pub(super) shared: Duration,
    /// After the request to take it back, the last message.
    pub(super) unshared: Duration,
}

pub(super) struct Probe {
    stream: TcpStream,
    received: Vec<u8>,
    /// Path of the share.
    share: String,
}

impl Probe {
    pub(super) fn new(address: SocketAddr, login: &Login, feed: &str, share: String) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let mut probe = Self { stream, received: Vec::new(), share };
        let mut out = Vec::new();
        let connect = Connect {
            version: Version::V311,
            bridge: false,
            clean_start: true,
            keep_alive_s: 0,
            client_id: &login.client_id,
            will: None,
            user_name: login.user_name.as_deref(),
            password: login.password.as_deref().map(str::as_bytes),
            properties: ConnectProperties::default(),
        };
        encode(Version::V311, &Packet::Connect(Box::new(connect)), &mut out);
        let filter = TopicFilter::parse(feed).context("the feed's filter")?;
        let id = PacketId::new(1).context("1 is an id")?;
        let request = (filter, SubscribeOptions::qos(QoS::AtMostOnce));
        encode_subscribe(Version::V311, id, None, [request], &mut out);
        probe.stream.write_all(&out)?;
        probe.next(PacketType::SubAck, ANSWER_TIME_MAX)?.context("the guest can't subscribe")?;
        Ok(probe)
    }

    /// Gives the share and takes it back.
    pub(super) fn last_change(&mut self, http: &mut Http) -> anyhow::Result<InForce> {
        let asked = Instant::now();
        http.ask("PUT", &self.share, r#"{"role":"view"}"#)?;
        let answered = asked.elapsed();
        let first = self.next(PacketType::Publish, ANSWER_TIME_MAX)?.context("the share brings nothing")?;
        let shared = first.duration_since(asked);

        let asked = Instant::now();
        http.ask("DELETE", &self.share, "")?;
        let mut last = asked;
        let deadline = asked + ANSWER_TIME_MAX;
        while let Some(at) = self.next(PacketType::Publish, QUIET)? {
            anyhow::ensure!(at < deadline, "the share was taken back, and still brings something");
            last = at;
        }
        Ok(InForce { answered, shared, unshared: last.duration_since(asked) })
    }

    /// When the next packet of a type came; none in that time. Others are passed over.
    fn next(&mut self, wanted: PacketType, time_max: Duration) -> anyhow::Result<Option<Instant>> {
        let mut buffer = [0; 16 << 10];
        self.stream.set_read_timeout(Some(time_max))?;
        loop {
            while let Some(frame) = frame(&self.received, u32::MAX)? {
                let (found, length) = (frame.packet_type() == wanted, frame.len());
                self.received.drain(..length);
                if found {
                    return Ok(Some(Instant::now()));
                }
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => anyhow::bail!("the broker closed the guest's connection"),
                Ok(length) => self.received.extend_from_slice(&buffer[..length]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
