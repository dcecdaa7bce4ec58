//! The data plane with real sockets, two shards, a store in memory, and a gate that lets everybody in.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use turnpike_core::clock::Now;
use turnpike_core::gate::{Admission, Attempt, ChallengeState, Principal, Verdict};
use turnpike_core::shard::home;
use turnpike_mqtt::{TopicFilter, TopicName};
use turnpike_store::memory::MemoryStore;

use super::*;

mod crowds;
mod handshakes;
mod limits;
mod tcp;
mod tls;

const SHARDS: u16 = 2;
/// No event that a test waits for takes so long on a machine that works.
const PATIENCE: Duration = Duration::from_secs(20);

/// In an `impl Gate`: who is in may do everything, for ever, and a challenge is always met.
macro_rules! everything_is_allowed {
    () => {
        fn proceed(&self, _: &Attempt<'_>, _: &ChallengeState, _: &[u8], _: Now) -> Verdict {
            Verdict::Granted(Admission::new(Principal::Anonymous))
        }

        fn may_publish(&self, _: &Principal, _: TopicName<'_>) -> bool {
            true
        }

        fn may_subscribe(&self, _: &Principal, _: TopicFilter<'_>) -> bool {
            true
        }

        fn still_welcome(&self, _: &Principal) -> bool {
            true
        }
    };
}
use everything_is_allowed;

/// Everybody may do everything.
struct Open;

impl Gate for Open {
    fn authenticate(&self, _: &Attempt<'_>, _: Now, _: [u8; 32]) -> Verdict {
        Verdict::Granted(Admission::new(Principal::Anonymous))
    }

    everything_is_allowed!();
}

fn tcp_listener() -> ListenerSettings {
    ListenerSettings {
        name: "tcp".to_owned(),
        address: ([127, 0, 0, 1], 0).into(),
        tls: None,
        websocket: None,
        proxy_protocol: false,
    }
}

fn parts(listeners: Vec<ListenerSettings>) -> ServerParts<Open> {
    parts_behind(Arc::new(Open), listeners)
}

fn parts_behind<G: Gate>(gate: Arc<G>, listeners: Vec<ListenerSettings>) -> ServerParts<G> {
    ServerParts {
        listeners,
        limits: Limits::default(),
        transport: TransportLimits::default(),
        commit: turnpike_store::Limits::default(),
        shards: SHARDS,
        first_descriptor_kept: u32::MAX,
        gate,
        store: Box::new(MemoryStore::new()),
        asker: None,
        desk: None,
        registry: Box::new(|_, _| {}),
    }
}

fn start(listeners: Vec<ListenerSettings>) -> (Server, SocketAddr) {
    let server = Server::start(parts(listeners)).expect("starts");
    let address = server.addresses()[0].1;
    (server, address)
}

/// A client id that is at home on that shard.
fn client_of(shard: u16, name: &str) -> String {
    (0..).map(|n| format!("{name}{n}")).find(|id| home(id, SHARDS) == ShardId(shard)).expect("one of many")
}

/// Something that MQTT is spoken over.
trait Wire: Read + Write {}
impl<T: Read + Write> Wire for T {}

/// A client that speaks MQTT 3.1.1, or 5 if it says so.
struct Client<W: Wire> {
    wire: W,
    five: bool,
}

fn tcp(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("sets");
    stream.set_nodelay(true).expect("sets");
    stream
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut length = body.len();
    loop {
        let more = length > 127;
        bytes.push(u8::try_from(length & 127).expect("7 bits") | if more { 128 } else { 0 });
        length >>= 7;
        if !more {
            break;
        }
    }
    bytes.extend(body);
    bytes
}

fn text(text: &str) -> Vec<u8> {
    let mut bytes = u16::try_from(text.len()).expect("short").to_be_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

fn connect_packet(id: &str, five: bool) -> Vec<u8> {
    let mut body = text("MQTT");
    body.extend([if five { 5 } else { 4 }, 2, 0, 60]);
    if five {
        body.push(0);
    }
    body.extend(text(id));
    packet(0x10, &body)
}

fn publish_packet(topic: &str, payload: &[u8]) -> Vec<u8> {
    packet(0x30, &[&text(topic), payload].concat())
}

impl<W: Wire> Client<W> {
    fn new(wire: W) -> Self {
        Self { wire, five: false }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.wire.write_all(bytes).expect("sends");
        self.wire.flush().expect("sends");
    }

    /// The next packet: first byte and body.
    fn try_receive(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut byte = [0];
        self.wire.read_exact(&mut byte)?;
        let [first] = byte;
        let (mut length, mut shift) = (0, 0);
        loop {
            self.wire.read_exact(&mut byte)?;
            length |= usize::from(byte[0] & 127) << shift;
            shift += 7;
            if byte[0] < 128 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.wire.read_exact(&mut body)?;
        Ok((first, body))
    }

    fn receive(&mut self) -> (u8, Vec<u8>) {
        self.try_receive().expect("a packet")
    }

    fn connect(mut self, id: &str) -> Self {
        self.send(&connect_packet(id, self.five));
        let (first, body) = self.receive();
        assert_eq!((first, body[1]), (0x20, 0), "CONNACK, accepted");
        self
    }

    fn subscribe(&mut self, filter: &str, qos: u8) {
        let properties: &[u8] = if self.five { &[0] } else { &[] };
        self.send(&packet(0x82, &[&[0, 1], properties, &text(filter), &[qos]].concat()));
        assert_eq!(self.receive().0, 0x90, "SUBACK");
    }

    fn publish(&mut self, topic: &str, payload: &[u8]) {
        self.send(&publish_packet(topic, payload));
    }

    /// The payload of the next packet, a PUBLISH to that topic of an MQTT 3.1.1 client.
    fn expect_publish(&mut self, topic: &str) -> Vec<u8> {
        let (first, body) = self.receive();
        assert_eq!(first & 0xf0, 0x30, "PUBLISH");
        let body = body.strip_prefix(text(topic).as_slice()).expect("the topic");
        body[if first & 6 == 0 { 0 } else { 2 }..].to_vec()
    }

    /// A round trip.
    fn ping(&mut self) {
        self.send(&[0xc0, 0]);
        assert_eq!(self.receive().0, 0xd0, "PINGRESP");
    }

    fn expect_end(&mut self) {
        match self.try_receive() {
            Ok(packet) => panic!("{packet:?} instead of the end"),
            Err(error) => assert_ne!(error.kind(), io::ErrorKind::WouldBlock, "the end didn't come"),
        }
    }
}

/// Waits until the figures of the shards satisfy `enough`.
fn until(server: &Server, enough: impl Fn(&[crate::shard::ShardStats]) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let stats = server.control().stats_blocking();
        if enough(&stats) {
            return;
        }
        assert!(Instant::now() < deadline, "{stats:?}");
        std::thread::yield_now();
    }
}
