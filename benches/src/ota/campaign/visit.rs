//! What one device of a campaign says and hears, without a socket: it comes, takes its offer, says how far it is, goes, and comes back with what it runs then.
//!
//! ```text
//! Entering ─▶ Checking ─▶ Accepting ─▶ (stays) ─▶ Downloading ─▶ Told ─▶ Applying ─▶ gone ─▶ Entering ─▶ Checking ─▶ over
//!                                                      └─▶ Failing ─▶ over
//! ```

use anyhow::Context;
use turnpike_mqtt::{
    AckKind, Connect, ConnectProperties, Packet, PacketId, Publish, PublishProperties, QoS, ReasonCode,
    SubscribeOptions, TopicFilter, TopicName, Version, encode, encode_ack, encode_publish, encode_subscribe,
};
use turnpike_ota::block::opened;

use crate::ota::Way;
use crate::ota::device::{Offer, check, get, progress, topic};
use crate::ota::stage::{NEW, OLD, device, device_login};

const SUBSCRIBE: u16 = 1;
const CHECK: u16 = 2;
const PROGRESS: u16 = 3;
const GET: u16 = 4;

/// What all devices have in common.
pub(super) struct Terms {
    pub(super) way: Way,
    pub(super) file: String,
    pub(super) block_bytes: usize,
    pub(super) failing: u32,
}

impl Terms {
    /// Whether a device is one of those that fail.
    pub(super) const fn fails(&self, n: u32) -> bool {
        self.failing > 0 && n % self.failing == self.failing - 1
    }
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub(super) enum Next {
    /// Wait for what comes.
    Wait,
    /// Wait a while, then [`Visit::download`].
    Stay,
    /// Download this path, then [`Visit::downloaded`].
    Fetch(String),
    /// Send what there is, disconnect and come again.
    Return,
    /// Send what there is, disconnect: that was all.
    Over,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Entering,
    Checking,
    Accepting,
    Downloading,
    Told,
    Applying,
    Failing,
}

/// A device, over both of its connections.
#[derive(Debug)]
pub(super) struct Visit {
    n: u32,
    phase: Phase,
    /// It has been here, and runs the new version.
    returns: bool,
    offer: Option<Offer>,
    /// Bytes that have come in blocks.
    taken: usize,
    /// Of the request for blocks, or of the check.
    acknowledged: bool,
    /// There is nothing for it, as it should be.
    released: bool,
    /// Offers that came after it had the new version, unasked.
    late: u32,
}

impl Visit {
    pub(super) const fn new(n: u32) -> Self {
        let (phase, offer) = (Phase::Entering, None);
        Self { n, phase, returns: false, offer, taken: 0, acknowledged: false, released: false, late: 0 }
    }

    pub(super) const fn number(&self) -> u32 {
        self.n
    }

    /// Offers that came unasked after it had the new version.
    pub(super) const fn late(&self) -> u32 {
        self.late
    }

    /// Begins a connection.
    pub(super) fn enter(&mut self, out: &mut Vec<u8>) -> anyhow::Result<()> {
        let login = device_login(self.n)?;
        let connect = Connect {
            version: Version::V5,
            bridge: false,
            clean_start: true,
            keep_alive_s: 0,
            client_id: &login.client_id,
            will: None,
            user_name: Some(&login.user_name),
            password: Some(login.password.as_bytes()),
            properties: ConnectProperties::default(),
        };
        encode(Version::V5, &Packet::Connect(Box::new(connect)), out);
        (self.phase, self.acknowledged) = (Phase::Entering, false);
        Ok(())
    }

    /// Takes a packet.
    pub(super) fn handle(&mut self, packet: &Packet<'_>, terms: &Terms, out: &mut Vec<u8>) -> anyhow::Result<Next> {
        match packet {
            Packet::ConnAck(ack) => {
                anyhow::ensure!((ack.reason as u8) < 0x80, "a log-in was refused: {:?}", ack.reason);
                anyhow::ensure!(self.phase == Phase::Entering, "let in twice");
                self.check(out)?;
                Ok(Next::Wait)
            }
            Packet::Publish(publish) => self.hear(publish, terms, out),
            Packet::PubAck(ack) => {
                anyhow::ensure!((ack.reason as u8) < 0x80, "a message was refused: {:?}", ack.reason);
                self.proceed(ack.id.get(), terms, out)
            }
            Packet::Disconnect(said) => anyhow::bail!("disconnected: {:?}", said.reason),
            _ => Ok(Next::Wait),
        }
    }

    /// Subscribes, and says what it runs.
    fn check(&mut self, out: &mut Vec<u8>) -> anyhow::Result<()> {
        let (name, id) = (device(self.n), PacketId::new(SUBSCRIBE).context("not 0")?);
        let filter = topic(&name, "+");
        let filter = TopicFilter::parse(&filter).context("a filter")?;
        let request = (filter, SubscribeOptions::qos(QoS::AtLeastOnce));
        encode_subscribe(Version::V5, id, None, [request], out);
        self.say("check", &check(if self.returns { NEW } else { OLD }), CHECK, out)?;
        self.phase = Phase::Checking;
        Ok(())
    }

    fn hear(&mut self, publish: &Publish<'_>, terms: &Terms, out: &mut Vec<u8>) -> anyhow::Result<Next> {
        if let Some(id) = publish.id.filter(|_| publish.qos == QoS::AtLeastOnce) {
            encode_ack(Version::V5, AckKind::PubAck, id, ReasonCode::Success, out);
        }
        let topic = publish.topic.map(TopicName::as_str).unwrap_or_default();
        if topic.ends_with("/block") {
            self.block(publish.payload, terms)?;
            return self.if_whole(terms, out);
        }
        // Any later offer is the same one again.
        if self.phase != Phase::Checking || !topic.ends_with("/offer") {
            return Ok(Next::Wait);
        }
        match Offer::read(publish.payload)? {
            None => {
                self.released = self.returns;
                Ok(self.if_released())
            }
            // Sent before it had the version, maybe; asked now, the broker knows.
            Some(offer) if self.returns && !offer.answers => {
                self.late += 1;
                Ok(Next::Wait)
            }
            Some(_) if self.returns => anyhow::bail!("a device that has the new version is offered it"),
            Some(offer) => {
                anyhow::ensure!(offer.bytes == terms.file.len(), "another file's size");
                self.tell(&offer, "accepted", out)?;
                (self.offer, self.phase) = (Some(offer), Phase::Accepting);
                Ok(Next::Wait)
            }
        }
    }

    /// A message of its own is acknowledged.
    fn proceed(&mut self, id: u16, terms: &Terms, out: &mut Vec<u8>) -> anyhow::Result<Next> {
        match (self.phase, id) {
            (Phase::Checking, CHECK) => {
                self.acknowledged = true;
                Ok(self.if_released())
            }
            (Phase::Accepting, PROGRESS) => Ok(Next::Stay),
            (Phase::Downloading, GET) => {
                self.acknowledged = true;
                self.if_whole(terms, out)
            }
            (Phase::Told, PROGRESS) => {
                let offer = self.offer.take().context("it has an offer")?;
                self.tell(&offer, "applying", out)?;
                self.phase = Phase::Applying;
                Ok(Next::Wait)
            }
            (Phase::Applying, PROGRESS) => {
                self.returns = true;
                Ok(Next::Return)
            }
            (Phase::Failing, PROGRESS) => Ok(Next::Over),
            _ => Ok(Next::Wait),
        }
    }

    /// Begins to download.
    pub(super) fn download(&mut self, terms: &Terms, out: &mut Vec<u8>) -> anyhow::Result<Next> {
        let offer = self.offer.as_ref().context("it has an offer")?;
        (self.phase, self.acknowledged) = (Phase::Downloading, false);
        match terms.way {
            Way::Blocks => {
                let count = terms.file.len().div_ceil(terms.block_bytes);
                let request = get(offer.number, terms.block_bytes, 0, count);
                self.say("get", &request, GET, out)?;
                Ok(Next::Wait)
            }
            Way::Http => Ok(Next::Fetch(offer.path.clone())),
            Way::None => {
                self.downloaded(terms, out)?;
                Ok(Next::Wait)
            }
        }
    }

    /// The file is here: it says so, or that it has failed.
    pub(super) fn downloaded(&mut self, terms: &Terms, out: &mut Vec<u8>) -> anyhow::Result<()> {
        let offer = self.offer.clone().context("it has an offer")?;
        let fails = terms.fails(self.n);
        self.tell(&offer, if fails { "failed" } else { "downloaded" }, out)?;
        self.phase = if fails { Phase::Failing } else { Phase::Told };
        Ok(())
    }

    fn block(&mut self, payload: &[u8], terms: &Terms) -> anyhow::Result<()> {
        let Some((of, offset, bytes)) = opened(payload) else { anyhow::bail!("a block isn't whole") };
        anyhow::ensure!(self.phase == Phase::Downloading && offset as usize == self.taken, "a block out of order");
        anyhow::ensure!(self.offer.as_ref().is_some_and(|offer| offer.number == of), "a block of something else");
        let expected = terms.file.as_bytes().get(self.taken..self.taken + bytes.len());
        anyhow::ensure!(expected == Some(bytes), "a block of other bytes than the file's");
        self.taken += bytes.len();
        Ok(())
    }

    fn if_whole(&mut self, terms: &Terms, out: &mut Vec<u8>) -> anyhow::Result<Next> {
        if self.acknowledged && self.taken == terms.file.len() {
            self.downloaded(terms, out)?;
        }
        Ok(Next::Wait)
    }

    const fn if_released(&self) -> Next {
        if self.returns && self.released && self.acknowledged { Next::Over } else { Next::Wait }
    }

    fn tell(&self, offer: &Offer, state: &str, out: &mut Vec<u8>) -> anyhow::Result<()> {
        self.say("progress", &progress(offer.number, state), PROGRESS, out)
    }

    fn say(&self, rest: &str, payload: &str, id: u16, out: &mut Vec<u8>) -> anyhow::Result<()> {
        let topic = topic(&device(self.n), rest);
        let publish = Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: Some(TopicName::parse(&topic).context("a topic")?),
            id: PacketId::new(id),
            properties: PublishProperties::default(),
            payload: payload.as_bytes(),
        };
        encode_publish(Version::V5, &publish, out);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
