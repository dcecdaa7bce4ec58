//! A blocking client that does nothing by itself: no acknowledgement, no ping, no reconnection, unless the test says so.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use crate::time::SOON;
use crate::wire::{self, Ack, ConnAck, Connect, PINGREQ, Packet, Prop, Publish, Version};

/// A connection.
pub struct Client {
    stream: TcpStream,
    version: Version,
    buffer: Vec<u8>,
    /// Came while something else was waited for.
    early: VecDeque<Packet>,
    next_id: u16,
}

/// How a connection ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// The socket was closed, nothing was said.
    Closed,
    /// After a DISCONNECT with this reason (MQTT 5).
    Disconnected(u8),
    /// After a CONNACK with this code.
    Refused(u8),
}

impl Client {
    /// Opens a socket and says nothing.
    ///
    /// # Panics
    /// Nobody listens there.
    #[must_use]
    #[track_caller]
    pub fn raw(address: SocketAddr, version: Version) -> Self {
        let stream = TcpStream::connect_timeout(&address, SOON).expect("the broker listens");
        stream.set_read_timeout(Some(SOON)).expect("a timeout");
        stream.set_write_timeout(Some(SOON)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Self { stream, version, buffer: Vec::new(), early: VecDeque::new(), next_id: 1000 }
    }

    /// Connects and gives the CONNACK, whatever it says.
    #[must_use]
    #[track_caller]
    pub fn open(address: SocketAddr, connect: &Connect) -> (Self, ConnAck) {
        let mut client = Self::raw(address, connect.version);
        client.send(&connect.encode());
        match client.recv() {
            Packet::ConnAck(ack) => (client, ack),
            other => panic!("CONNACK expected, not {other:?}"),
        }
    }

    /// Connects, and is let in.
    #[must_use]
    #[track_caller]
    pub fn connect(address: SocketAddr, connect: &Connect) -> Self {
        let (client, ack) = Self::open(address, connect);
        assert_eq!(ack.code, 0, "{ack:?}");
        client
    }

    /// Connects with a clean session under that id.
    #[must_use]
    #[track_caller]
    pub fn clean(address: SocketAddr, version: Version, id: &str) -> Self {
        Self::connect(address, &Connect::new(version, id))
    }

    /// The protocol version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Sends bytes as they are.
    ///
    /// # Panics
    /// The connection is broken.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the connection takes bytes");
    }

    /// Sends what can be sent; the broker may close meanwhile. True if all went out.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// The next packet.
    ///
    /// # Panics
    /// None comes soon, or the connection ends.
    #[must_use]
    #[track_caller]
    pub fn recv(&mut self) -> Packet {
        match self.recv_or_end() {
            Some(packet) => packet,
            None => panic!("the broker closed the connection"),
        }
    }

    /// The next packet, or none if the connection ends.
    ///
    /// # Panics
    /// Neither happens soon.
    #[track_caller]
    pub fn recv_or_end(&mut self) -> Option<Packet> {
        if let Some(packet) = self.early.pop_front() {
            return Some(packet);
        }
        self.read()
    }

    /// The next packet from the socket, past those that came early.
    #[track_caller]
    fn read(&mut self) -> Option<Packet> {
        loop {
            if let Some((packet, length)) = wire::decode(self.version, &self.buffer) {
                self.buffer.drain(..length);
                return Some(packet);
            }
            let mut chunk = [0; 65536];
            match self.stream.read(&mut chunk) {
                Ok(0) => {
                    assert!(self.buffer.is_empty(), "the connection ended within a packet: {:02x?}", self.buffer);
                    return None;
                }
                Ok(length) => self.buffer.extend(&chunk[..length]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    panic!("nothing came within {SOON:?}; {} bytes of a packet", self.buffer.len())
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A reset is an end, too.
                Err(_) => return None,
            }
        }
    }

    /// Whether a packet is there or comes within that time; for rates, not for synchronisation.
    #[track_caller]
    pub fn recv_within(&mut self, within: Duration) -> Option<Packet> {
        if !self.early.is_empty() || wire::decode(self.version, &self.buffer).is_some() {
            return Some(self.recv());
        }
        self.stream.set_read_timeout(Some(within)).expect("a timeout");
        let mut byte = [0];
        let ready = self.stream.peek(&mut byte);
        self.stream.set_read_timeout(Some(SOON)).expect("a timeout");
        ready.is_ok().then(|| self.recv())
    }

    /// The next packet is a PUBLISH.
    #[must_use]
    #[track_caller]
    pub fn publish_in(&mut self) -> Publish {
        match self.recv() {
            Packet::Publish(publish) => publish,
            other => panic!("PUBLISH expected, not {other:?}"),
        }
    }

    /// The next packet is a PUBLISH; it is taken as its QoS demands, to the last packet of the exchange.
    #[must_use]
    #[track_caller]
    pub fn take(&mut self) -> Publish {
        let publish = self.publish_in();
        match publish.qos {
            0 => {}
            1 => self.send(&wire::ack(4, publish.id, 0)),
            _ => {
                self.send(&wire::ack(5, publish.id, 0));
                self.wait_for(|packet| matches!(packet, Packet::PubRel(ack) if ack.id == publish.id));
                self.send(&wire::ack(7, publish.id, 0));
            }
        }
        publish
    }

    /// The next packet, whatever it is; a PUBLISH is acknowledged at QoS 1.
    #[track_caller]
    pub fn take_either(&mut self) -> Packet {
        let packet = self.recv();
        if let Packet::Publish(Publish { qos: 1, id, .. }) = &packet {
            self.send(&wire::ack(4, *id, 0));
        }
        packet
    }

    /// Reads until that packet comes; what comes before it waits its turn.
    #[track_caller]
    fn wait_for(&mut self, wanted: impl Fn(&Packet) -> bool) -> Packet {
        loop {
            match self.read() {
                Some(packet) if wanted(&packet) => return packet,
                Some(packet) => self.early.push_back(packet),
                None => panic!("the broker closed the connection"),
            }
        }
    }

    /// The next packet is an acknowledgement of that kind: 4 to 7, 9 (SUBACK), 11 (UNSUBACK).
    #[must_use]
    #[track_caller]
    pub fn ack_in(&mut self, kind: u8) -> Ack {
        let packet = self.recv();
        match (kind, packet) {
            (4, Packet::PubAck(ack))
            | (5, Packet::PubRec(ack))
            | (6, Packet::PubRel(ack))
            | (7, Packet::PubComp(ack))
            | (9, Packet::SubAck(ack))
            | (11, Packet::UnsubAck(ack)) => ack,
            (kind, other) => panic!("acknowledgement of kind {kind} expected, not {other:?}"),
        }
    }

    /// Subscribes; the codes. Messages may come before the SUBACK, and wait. With MQTT 5 the second half of each pair is the options byte.
    #[track_caller]
    pub fn subscribe(&mut self, filters: &[(&str, u8)]) -> Vec<u8> {
        self.subscribe_with(filters, &[])
    }

    /// The same with properties.
    #[track_caller]
    pub fn subscribe_with(&mut self, filters: &[(&str, u8)], props: &[Prop]) -> Vec<u8> {
        self.next_id += 1;
        let id = self.next_id;
        self.send(&wire::subscribe(self.version, id, filters, props));
        let packet = self.wait_for(|packet| matches!(packet, Packet::SubAck(_)));
        let Packet::SubAck(ack) = packet else { unreachable!("it was asked for") };
        assert_eq!(ack.id, id);
        assert_eq!(ack.codes.len(), filters.len(), "a code for each filter");
        ack.codes
    }

    /// Unsubscribes; the codes (none in MQTT 3).
    #[track_caller]
    pub fn unsubscribe(&mut self, filters: &[&str]) -> Vec<u8> {
        self.next_id += 1;
        let id = self.next_id;
        self.send(&wire::unsubscribe(self.version, id, filters));
        let packet = self.wait_for(|packet| matches!(packet, Packet::UnsubAck(_)));
        let Packet::UnsubAck(ack) = packet else { unreachable!("it was asked for") };
        assert_eq!(ack.id, id);
        ack.codes
    }

    /// Publishes and completes the exchange; the reason code of the first acknowledgement. Nothing else may come in between.
    #[track_caller]
    pub fn publish(&mut self, publish: &Publish) -> u8 {
        self.send(&publish.encode(self.version));
        match publish.qos {
            0 => 0,
            1 => {
                let ack = self.ack_in(4);
                assert_eq!(ack.id, publish.id);
                ack.code()
            }
            _ => {
                let ack = self.ack_in(5);
                assert_eq!(ack.id, publish.id);
                if ack.code() < 0x80 {
                    self.send(&wire::ack(6, publish.id, 0));
                    let complete = self.ack_in(7);
                    assert_eq!((complete.id, complete.code()), (publish.id, 0));
                }
                ack.code()
            }
        }
    }

    /// The same at QoS 1, past messages that come in between: they are kept.
    ///
    /// # Panics
    /// Something else comes.
    #[track_caller]
    pub fn publish_past(&mut self, publish: &Publish, heard: &mut VecDeque<Publish>) -> u8 {
        self.send(&publish.encode(self.version));
        loop {
            match self.take_either() {
                Packet::PubAck(ack) => {
                    assert_eq!(ack.id, publish.id);
                    return ack.code();
                }
                Packet::Publish(publish) => heard.push_back(publish),
                other => panic!("{other:?}"),
            }
        }
    }

    /// All that was sent before this has been answered: PINGREQ, and the next packet is its answer.
    #[track_caller]
    pub fn quiet(&mut self) {
        self.send(&PINGREQ);
        assert_eq!(self.recv(), Packet::PingResp);
    }

    /// Everything up to the answer of a PINGREQ sent now.
    #[must_use]
    #[track_caller]
    pub fn drain(&mut self) -> Vec<Packet> {
        self.send(&PINGREQ);
        let mut packets = Vec::new();
        loop {
            match self.recv() {
                Packet::PingResp => return packets,
                packet => packets.push(packet),
            }
        }
    }

    /// The connection ends now; packets before the end are skipped.
    #[must_use]
    #[track_caller]
    pub fn end(&mut self) -> End {
        let mut end = End::Closed;
        while let Some(packet) = self.recv_or_end() {
            assert_eq!(end, End::Closed, "{packet:?} after the end was announced");
            match packet {
                Packet::Disconnect { code, .. } => end = End::Disconnected(code),
                Packet::ConnAck(ack) if ack.code != 0 => end = End::Refused(ack.code),
                _ => {}
            }
        }
        end
    }

    /// The same, or none if the connection stays open that long; for tables of faults, where all failures are told together.
    #[must_use]
    #[track_caller]
    pub fn end_within(&mut self, within: Duration) -> Option<End> {
        let deadline = std::time::Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(std::time::Instant::now()).max(Duration::from_millis(1));
            self.stream.set_read_timeout(Some(left)).expect("a timeout");
            match self.stream.peek(&mut [0]) {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return None,
                _ => {}
            }
            self.stream.set_read_timeout(Some(SOON)).expect("a timeout");
            match self.recv_or_end() {
                Some(Packet::Disconnect { code, .. }) => {
                    assert_eq!(self.end(), End::Closed);
                    return Some(End::Disconnected(code));
                }
                Some(_) => {}
                None => return Some(End::Closed),
            }
        }
    }

    /// The connection ends now as a protocol violation should: with this reason in MQTT 5, without a word before.
    #[track_caller]
    pub fn ends_with(&mut self, reason: u8) {
        let expected = if self.version == Version::V5 { End::Disconnected(reason) } else { End::Closed };
        assert_eq!(self.end(), expected);
    }

    /// Ends in good order and waits for the broker to close.
    #[track_caller]
    pub fn disconnect(mut self) {
        self.send(&wire::disconnect(0, &[]));
        assert_eq!(self.end(), End::Closed);
    }

    /// Ends with a DISCONNECT that says more.
    #[track_caller]
    pub fn disconnect_with(mut self, code: u8, props: &[Prop]) {
        self.send(&wire::disconnect(code, props));
        assert_eq!(self.end(), End::Closed);
    }

    /// Breaks the connection without a word.
    pub fn drop_connection(self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// The socket, for tests that go below packets.
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }
}

/// Subscribes to the topic of [`fence`].
#[track_caller]
pub fn expect_fence(subscriber: &mut Client) {
    assert_eq!(subscriber.subscribe(&[("fence", 0)]), [0]);
}

/// What came to `subscriber` before a message that `publisher` sends now. Messages of one publisher keep their order, so whatever it
/// published before and isn't in the answer was not delivered.
#[must_use]
#[track_caller]
pub fn fence(publisher: &mut Client, subscriber: &mut Client) -> Vec<Publish> {
    publisher.send(&Publish::new("fence", "").encode(publisher.version));
    let mut before = Vec::new();
    loop {
        let publish = subscriber.take();
        if publish.topic == "fence" {
            return before;
        }
        before.push(publish);
    }
}
