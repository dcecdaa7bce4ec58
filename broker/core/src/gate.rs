//! The gate: who may come in, and what they may do. `authz` implements it; the core asks.
//!
//! A decision is a value: [`Permit`] can be made by [`Permit::judge`] alone, and the router takes nothing without one.

use std::any::Any;
use std::fmt;
use std::net::IpAddr;

use turnpike_mqtt::{ConnectReason, ReasonCode, TopicFilter, TopicName};

use crate::clock::Now;
use crate::mask::fmt_masked;
use crate::meter::Meter;

/// Why a client is who it is. Small: every session keeps one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Principal {
    /// Let in by `--anonymous`: every topic.
    Anonymous,
    /// A device of a product.
    Device(std::sync::Arc<DeviceIdentity>),
    /// The broker itself: wills, `$SYS`.
    Broker,
}

/// A device that has proved who it is. Its name is masked in `Debug`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct DeviceIdentity {
    /// The product key.
    pub product: Box<str>,
    /// The device's name, unique within its product.
    pub device: Box<str>,
}

impl fmt::Debug for DeviceIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.product)?;
        fmt_masked(&self.device, f)
    }
}

/// A CONNECT, as the gate sees it. `Debug` says whence it came, and nothing of who or with what.
#[derive(Clone, Copy)]
pub struct Attempt<'a> {
    /// Client id as sent; empty if the client wants one assigned.
    pub client_id: &'a str,
    /// User name, if sent.
    pub user_name: Option<&'a str>,
    /// Password, if sent.
    pub password: Option<&'a [u8]>,
    /// The peer's address (from the PROXY header where the listener has one).
    pub peer: std::net::SocketAddr,
    /// Whether the bytes came through TLS.
    pub tls: bool,
    /// DER of the client certificate that TLS has verified, if there is one.
    pub certificate: Option<&'a [u8]>,
    /// Authentication method and data of MQTT 5 (3.1.2.11.9), if sent.
    pub enhanced: Option<(&'a str, &'a [u8])>,
}

impl fmt::Debug for Attempt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt").field("peer", &self.peer).field("tls", &self.tls).finish_non_exhaustive()
    }
}

/// What the gate says to an [`Attempt`] or to an AUTH that continues one.
#[derive(Debug)]
#[must_use]
pub enum Verdict {
    /// Come in.
    Granted(Admission),
    /// MQTT 5 challenge: send AUTH 0x18 with `data` and keep `state` for the answer.
    Challenge {
        /// Authentication data of the AUTH packet.
        data: Vec<u8>,
        /// Given back to [`Gate::proceed`].
        state: Box<ChallengeState>,
    },
    /// Only somebody outside of the process can tell. The connection waits with its CONNECT and isn't read; the shell has the question answered,
    /// and the answer comes back in [`Gate::conclude`]. For a client that is in already and proves itself again, it is a no.
    Pending(Question),
    /// Served, and not let in: CONNACK says success, one message follows, the connection ends. There is no session. For a client that is in
    /// already and proves itself again, it is a no.
    Dismissed(Box<Parting>),
    /// Stay out. The reason goes on the wire (mapped to a return code for MQTT 3) and into the metrics. The cause, one word of the
    /// gate's own, never goes on the wire: it comes back in [`Passage::Refused`].
    Refused(ConnectReason, &'static str),
}

/// What a client hears that doesn't come in ([`Verdict::Dismissed`]), at QoS 0. `Debug` shows the topic alone: the rest may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Parting {
    /// A topic name.
    pub topic: Box<str>,
    /// The application's bytes.
    pub payload: Vec<u8>,
}

impl fmt::Debug for Parting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parting").field("topic", &self.topic).finish_non_exhaustive()
    }
}

/// What a gate asks somebody outside. The core carries it to the shell and looks at nothing in it; the gate and whoever answers
/// have agreed on a type.
pub struct Question(Box<dyn Any + Send>);

impl Question {
    /// Wraps what both sides know.
    #[must_use]
    pub fn new<T: Send + 'static>(asked: T) -> Self {
        Self(Box::new(asked))
    }

    /// What was wrapped; none if it is of another type.
    #[must_use]
    pub fn into_inner<T: 'static>(self) -> Option<T> {
        self.0.downcast().ok().map(|asked| *asked)
    }

    /// What was wrapped, or this again if it is of another type.
    ///
    /// # Errors
    /// It is.
    pub fn downcast<T: 'static>(self) -> Result<T, Self> {
        self.0.downcast().map(|asked| *asked).map_err(Self)
    }
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Question(…)")
    }
}

/// What somebody outside has answered to a [`Question`], in the same manner.
pub struct Answer(Box<dyn Any + Send>);

impl Answer {
    /// Wraps what both sides know.
    #[must_use]
    pub fn new<T: Send + 'static>(said: T) -> Self {
        Self(Box::new(said))
    }

    /// What was wrapped; none if it is of another type.
    #[must_use]
    pub fn into_inner<T: 'static>(self) -> Option<T> {
        self.0.downcast().ok().map(|said| *said)
    }

    /// What was wrapped, or this again if it is of another type.
    ///
    /// # Errors
    /// It is.
    pub fn downcast<T: 'static>(self) -> Result<T, Self> {
        self.0.downcast().map(|said| *said).map_err(Self)
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answer(…)")
    }
}

/// Who comes in, and on what terms.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Admission {
    /// Who it is.
    pub principal: Principal,
    /// The server's authentication data for the CONNACK or the AUTH, if the method has any.
    pub data: Option<Vec<u8>>,
    /// The client id that the session gets, where it isn't the one that was sent.
    pub client_id: Option<Box<str>>,
    /// Milliseconds since 1970 UTC at which what let it in is no longer good, such as a certificate: the connection is closed
    /// then (0x87), unless the client has proved itself again. None: it never ends.
    pub until_ms: Option<u64>,
}

impl Admission {
    /// Without terms.
    #[must_use]
    pub fn new(principal: Principal) -> Self {
        Self { principal, data: None, client_id: None, until_ms: None }
    }

    /// Whether it hasn't ended.
    #[must_use]
    pub fn is_good_at(&self, now: Now) -> bool {
        self.until_ms.is_none_or(|until_ms| until_ms > now.unix_ms)
    }
}

/// A client, as the gate hears of its coming and going.
#[derive(Clone, Copy)]
pub struct Visit<'a> {
    /// Client id: of the session, or as sent where there is none.
    pub client_id: &'a str,
    /// Who it is; none for one that was kept out.
    pub principal: Option<&'a Principal>,
    /// User name as sent, where it was kept out: a claim, and nothing that was proved.
    pub user_name: Option<&'a str>,
    /// The peer's address (from the PROXY header where the listener has one).
    pub peer: std::net::SocketAddr,
    /// Whether the bytes came through TLS.
    pub tls: bool,
}

impl fmt::Debug for Visit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Visit").field("peer", &self.peer).field("tls", &self.tls).finish_non_exhaustive()
    }
}

/// What became of a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Passage {
    /// It has a session, or will have one with the commit under way.
    In,
    /// The gate has refused it, for this cause.
    Refused(&'static str),
    /// The gate would have let it in, and the core could not.
    TurnedAway(ConnectReason),
    /// It has gone.
    Out(Departure),
}

/// How a client has gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Departure {
    /// DISCONNECT 0x00.
    Cleanly,
    /// Any other way.
    Abruptly,
    /// The same client has connected again.
    TakenOver,
}

/// An unfinished challenge-response exchange. `Debug` shows the method alone.
#[derive(Clone, PartialEq, Eq)]
pub struct ChallengeState {
    /// The method named in CONNECT; every AUTH must repeat it [MQTT-4.12.0-5].
    pub method: Box<str>,
    /// Whatever the gate needs to check the answer.
    pub data: Vec<u8>,
    /// The identity claimed, e.g. the user name.
    pub claim: Box<str>,
}

impl fmt::Debug for ChallengeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChallengeState").field("method", &self.method).finish_non_exhaustive()
    }
}

/// What becomes of a connection before it has said anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Entry {
    /// It is closed without a word.
    Closed,
    /// It may speak.
    Free,
    /// It may speak, and [`Gate::left`] is to be told when it ends.
    Counted,
}

/// A client that takes over its session from an older connection of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TakeOver<'a> {
    /// Who it is, by both connections.
    pub principal: &'a Principal,
    /// Where the connection came from that has to go.
    pub from: IpAddr,
    /// Where the new one comes from.
    pub to: IpAddr,
}

/// Phases *accept*, *authenticate*, *publish-in*, *subscribe* and *detach*. One value is shared by all shards. What has a body here is for gates that
/// limit; a gate that doesn't leaves it alone.
pub trait Gate: Send + Sync {
    /// Judges a CONNECT. Synchronous, over state in memory; `random` is fresh for each call.
    fn authenticate(&self, attempt: &Attempt<'_>, now: Now, random: [u8; 32]) -> Verdict;

    /// Judges the answer to a challenge.
    fn proceed(&self, attempt: &Attempt<'_>, state: &ChallengeState, data: &[u8], now: Now) -> Verdict;

    /// Judges an attempt for which [`Verdict::Pending`] was said, now that there is an answer. Much may have changed since. A gate that asks
    /// nobody has nothing to conclude, and lets nobody in.
    fn conclude(&self, _attempt: &Attempt<'_>, _answer: Answer, _now: Now) -> Verdict {
        Verdict::Refused(ConnectReason::ServerUnavailable, "not_asked")
    }

    /// May it publish there?
    fn may_publish(&self, principal: &Principal, topic: TopicName<'_>) -> bool;

    /// May it subscribe to that? The filter is without the `$share/{name}/` prefix.
    fn may_subscribe(&self, principal: &Principal, filter: TopicFilter<'_>) -> bool;

    /// Is it still welcome? Asked for live sessions when the registry has changed.
    fn still_welcome(&self, principal: &Principal) -> bool;

    /// May anybody at that address speak? Asked for each accepted socket, before TLS; no means that it is closed.
    fn accepts(&self, _address: IpAddr, _now: Now) -> bool {
        true
    }

    /// A connection is open: TLS and the like are done, the address is the client's own.
    fn entered(&self, _address: IpAddr, _now: Now) -> Entry {
        Entry::Free
    }

    /// A connection that was [`Entry::Counted`] has ended (or has moved to another shard, and enters there).
    fn left(&self, _address: IpAddr) {}

    /// An address sends a CONNECT. Asked before anything of it is looked at.
    ///
    /// # Errors
    /// What the CONNACK says.
    fn attempted(&self, _address: IpAddr, _now: Now) -> Result<(), ConnectReason> {
        Ok(())
    }

    /// The meter of a session that begins, if anything limits it. Asked again for live sessions when limits have changed; what they owe
    /// goes with them.
    fn meter(&self, _principal: &Principal, _now: Now) -> Option<Meter> {
        None
    }

    /// A session with a meter has ended: what it owes may be kept for the client's next one.
    fn settle(&self, _principal: &Principal, _meter: &Meter, _now: Now) {}

    /// A client takes over its session. An error refuses the new connection, and the old one stays.
    ///
    /// # Errors
    /// What the CONNACK says.
    fn taken_over(&self, _take_over: TakeOver<'_>, _now: Now) -> Result<(), ConnectReason> {
        Ok(())
    }

    /// Hears what became of a client: of each that was judged, whether it came in, and of each that came in, that it went. Called by
    /// the shard's thread: it must not wait.
    fn passed(&self, visit: &Visit<'_>, passage: Passage, now: Now) {
        let _ = (visit, passage, now);
    }
}

/// Leave to publish one message on one topic.
///
/// ```compile_fail
/// let permit = turnpike_core::gate::Permit { topic: todo!(), _sealed: () };
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Permit<'a> {
    topic: TopicName<'a>,
    _sealed: (),
}

impl<'a> Permit<'a> {
    /// Asks the gate.
    ///
    /// # Errors
    /// [`ReasonCode::NotAuthorized`] if it says no.
    pub fn judge<G: Gate + ?Sized>(gate: &G, principal: &Principal, topic: TopicName<'a>) -> Result<Self, ReasonCode> {
        if gate.may_publish(principal, topic) {
            Ok(Self { topic, _sealed: () })
        } else {
            Err(ReasonCode::NotAuthorized)
        }
    }

    /// Where it holds.
    #[must_use]
    pub fn topic(self) -> TopicName<'a> {
        self.topic
    }
}
