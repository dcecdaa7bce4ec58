//! A connection's protocol state. The socket, TLS and WebSocket are the shell's.

use std::net::SocketAddr;

use smallvec::SmallVec;
use turnpike_mqtt::{TopicAliases, TopicName, Version};

use crate::cipher::PayloadCipher;
use crate::gate::ChallengeState;

/// Who is at the other end, as far as the transport knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Address, from the PROXY header where the listener takes one.
    pub addr: SocketAddr,
    /// Whether the bytes come through TLS.
    pub tls: bool,
    /// DER of the client certificate that TLS has verified.
    pub certificate: Option<Box<[u8]>>,
}

/// Where a connection stands.
///
/// ```text
///  Opened ──CONNECT──▶ (Challenged ──AUTH──▶) (Asking ──answer──▶) Settling ──commit──▶ Live ──▶ Ending
///                                                                  └── nothing to commit ──▶ Live
/// ```
#[derive(Debug)]
pub(crate) enum State {
    /// Waits for CONNECT.
    Opened,
    /// Waits for the AUTH that answers a challenge; holds the CONNECT's bytes to go on with [MQTT-4.12.0-4].
    Challenged(Box<Challenged>),
    /// Somebody outside is asked about the CONNECT, which it holds; nothing is read.
    Asking(Box<Asking>),
    /// The session's creation is being committed; CONNACK waits for it and nothing is read.
    Settling,
    /// CONNACK is out.
    Live,
    /// Live, and the client proves itself again (MQTT 5, 4.12.1).
    Reauthenticating(Box<ChallengeState>),
    /// The last bytes are being written.
    Ending,
}

/// A CONNECT about which somebody outside is asked.
#[derive(Debug)]
pub(crate) struct Asking {
    pub(crate) connect: Box<[u8]>,
}

/// A CONNECT that waits for the rest of its authentication exchange.
#[derive(Debug)]
pub(crate) struct Challenged {
    pub(crate) connect: Box<[u8]>,
    pub(crate) state: ChallengeState,
}

/// What only some connections need, most of them MQTT 5.
#[derive(Debug, Default)]
pub(crate) struct Extras {
    pub(crate) aliases_in: Option<TopicAliases>,
    /// Topics that have an alias towards the client, in the order of their aliases from 1.
    pub(crate) aliases_out: Vec<Box<str>>,
    pub(crate) aliases_out_max: u16,
    /// Method of the enhanced authentication that let it in.
    pub(crate) method: Option<Box<str>>,
    /// When its authentication ends, if it does.
    pub(crate) until: Option<Box<Until>>,
    /// What seals its payloads; some exactly if [`Connection::sealing`] isn't [`Sealing::Never`].
    pub(crate) sealer: Option<Box<Sealer>>,
}

/// Whether a connection's payloads are sealed. Here, so that a connection without a cipher pays for a byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sealing {
    /// They are plain.
    Never,
    /// They are to be, and the device has to say hello first.
    AwaitingHello,
    /// They are.
    On,
}

/// What seals a connection's payloads, and the timers that wait for it.
#[derive(Debug)]
pub(crate) struct Sealer {
    pub(crate) cipher: Box<dyn PayloadCipher>,
    /// When its timers fire, the last one first: each was set because it is due before those that there were.
    pub(crate) armed_ms: SmallVec<[u64; 4]>,
}

/// The end of an authentication, and the timer that waits for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Until {
    /// Milliseconds since 1970 UTC; none if a later proof is good for ever.
    pub(crate) unix_ms: Option<u64>,
    /// When the first of its timers fires, on the monotonic clock.
    pub(crate) armed_ms: u64,
}

impl Extras {
    /// The alias of a topic towards the client, if there is one, and whether the client knows it already [MQTT-3.3.2-7].
    /// Implements [MQTT-3.1.2-26] [MQTT-3.1.2-27].
    pub(crate) fn alias_out(&mut self, topic: TopicName<'_>) -> (Option<u16>, bool) {
        let known = self.aliases_out.iter().position(|known| **known == *topic.as_str());
        let index = match known {
            Some(index) => index,
            None if self.aliases_out.len() < usize::from(self.aliases_out_max) => {
                self.aliases_out.push(topic.as_str().into());
                self.aliases_out.len() - 1
            }
            None => return (None, false),
        };
        (u16::try_from(index + 1).ok(), known.is_some())
    }
}

/// DER of the client's certificate, if it has shown one: few do, so that is 8 bytes and not 16.
#[derive(Debug)]
pub(crate) struct Certificate(Option<Box<Der>>);

#[derive(Debug)]
struct Der(Box<[u8]>);

impl Certificate {
    pub(crate) fn as_deref(&self) -> Option<&[u8]> {
        self.0.as_ref().map(|der| &*der.0)
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Tells this connection from others that had the same [`crate::ids::ConnId`].
    pub(crate) serial: u32,
    pub(crate) state: State,
    pub(crate) version: Version,
    pub(crate) tls: bool,
    pub(crate) touched: bool,
    pub(crate) paused: bool,
    /// The gate counts it, and is told of its end.
    pub(crate) counted: bool,
    /// The shard has an entry for its unfinished packets.
    pub(crate) partial: bool,
    pub(crate) sealing: Sealing,
    /// A desk is at a message of its.
    pub(crate) handed: bool,
    /// Slot of its session, once it has one.
    pub(crate) session: Option<u32>,
    pub(crate) addr: SocketAddr,
    pub(crate) certificate: Certificate,
    /// Encoded and not yet taken by the transport, from `written` on.
    pub(crate) out: Vec<u8>,
    pub(crate) written: u32,
    /// 1.5 × keep alive; 0 for none.
    pub(crate) idle_max_ms: u32,
    pub(crate) last_heard_ms: u64,
    /// The client's receive maximum.
    pub(crate) window: u16,
    /// The client's maximum packet size.
    pub(crate) packet_bytes_max: u32,
    /// Answers of this connection that wait for a commit.
    pub(crate) awaited: u32,
    /// Of these, PUBACKs.
    pub(crate) awaited_pubacks: u32,
    /// Which pause it is in for being too fast; 0 for none.
    pub(crate) throttled: u32,
    /// Its owner owed something when it began, and what is slowed is to wait for that; what may be refused is.
    pub(crate) owes: bool,
    pub(crate) extras: Option<Box<Extras>>,
}

impl Connection {
    pub(crate) fn new(serial: u32, peer: Peer, now_ms: u64) -> Self {
        Self {
            serial,
            state: State::Opened,
            version: Version::V311,
            tls: peer.tls,
            touched: false,
            paused: false,
            counted: false,
            partial: false,
            sealing: Sealing::Never,
            handed: false,
            session: None,
            addr: peer.addr,
            certificate: Certificate(peer.certificate.map(|der| Box::new(Der(der)))),
            out: Vec::new(),
            written: 0,
            idle_max_ms: 0,
            last_heard_ms: now_ms,
            window: u16::MAX,
            packet_bytes_max: u32::MAX,
            awaited: 0,
            awaited_pubacks: 0,
            throttled: 0,
            owes: false,
            extras: None,
        }
    }

    /// Messages may be encoded for it.
    pub(crate) fn is_live(&self) -> bool {
        matches!(self.state, State::Live | State::Reauthenticating(_))
    }

    /// Whether more may be encoded for it: there is room below `high` bytes, and keys where they are needed.
    pub(crate) fn has_room(&self, high: usize) -> bool {
        self.pending() < high && self.sealing != Sealing::AwaitingHello
    }

    /// Bytes that the transport hasn't taken.
    pub(crate) fn pending(&self) -> usize {
        self.out.len() - self.written as usize
    }
}
