//! The gate: who may come in, and what they may do. `authz` implements it; the core asks.
//!
//! A decision is a value: [`Permit`] can be made by [`Permit::judge`] alone, and the router takes nothing without one.

use std::any::Any;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use turnpike_mqtt::{ConnectReason, ReasonCode, TopicFilter, TopicName, UserProperties};

use crate::cipher::PayloadCipher;
use crate::clock::Now;
use crate::feed::Feed;
use crate::mask::fmt_masked;
use crate::meter::Meter;

/// Why a client is who it is. Small: every session keeps one.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Principal {
    /// Let in by `--anonymous`: every topic.
    Anonymous,
    /// A device of a product.
    Device(Arc<DeviceIdentity>),
    /// A user of an app.
    User(Arc<UserIdentity>),
    /// A back end.
    Service(Arc<ServiceIdentity>),
    /// Another cloud. It has no session: what it publishes comes in by [`crate::shard::Shard::publish_for`].
    Platform(Arc<PlatformIdentity>),
    /// The broker itself: wills, `$SYS`.
    Broker,
}

impl Principal {
    /// A user or a service: what it may do with devices was given to it and can be taken away, unlike a device's own topics.
    #[must_use]
    pub const fn has_lent_rights(&self) -> bool {
        matches!(self, Self::User(_) | Self::Service(_))
    }
}

/// A platform that has proved who it is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PlatformIdentity {
    /// Its number, as digits.
    pub id: Box<str>,
}

/// A device that has proved who it is. Its name is masked in `Debug`.
#[derive(Clone)]
pub struct DeviceIdentity {
    /// The product key.
    pub product: Box<str>,
    /// The device's name, unique within its product.
    pub device: Box<str>,
    /// How it has proved that. No part of who it is: two identities are the same if product and name are.
    pub means: Means,
}

/// How a device has come in, in the gate's own terms, so that [`Gate::still_welcome`] can judge a live session by what let it in. `Default`
/// is for one of whom that isn't known, as of a session that was restored.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Means {
    /// What it was.
    pub flags: u32,
    /// Which of several it was; none where there was but one. Apart, since most devices have a secret and every session keeps this.
    pub marks: Option<Box<[u64; 2]>>,
}

impl DeviceIdentity {
    /// A device of which it isn't known how it came in.
    #[must_use]
    pub fn new(product: impl Into<Box<str>>, device: impl Into<Box<str>>) -> Self {
        Self { product: product.into(), device: device.into(), means: Means::default() }
    }

    fn name(&self) -> (&str, &str) {
        (&self.product, &self.device)
    }
}

impl PartialEq for DeviceIdentity {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for DeviceIdentity {}

impl Hash for DeviceIdentity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

/// A user who has proved who it is. Two are equal if app and user are, however they came in.
#[derive(Clone)]
pub struct UserIdentity {
    /// The app.
    pub app: Box<str>,
    /// The user's id, unique within the app.
    pub user: Box<str>,
    /// What let it in, as long as that may be taken back. Not kept with a durable session, which nobody is in after a restart.
    pub by: Option<CameBy>,
}

/// What let a user in, by a number that tells it from others of its kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CameBy {
    /// A session code.
    Code(u64),
    /// A token, signed with this key.
    Key(u64),
}

impl PartialEq for UserIdentity {
    fn eq(&self, other: &Self) -> bool {
        self.app == other.app && self.user == other.user
    }
}

impl Eq for UserIdentity {}

impl Hash for UserIdentity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.app, &self.user).hash(state);
    }
}

impl fmt::Debug for UserIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.app)?;
        fmt_masked(&self.user, f)
    }
}

/// A service that has proved who it is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ServiceIdentity {
    /// Its access key.
    pub key: Box<str>,
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
#[derive(Debug)]
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
    /// What seals the connection's payloads, if anything does. A proof on a live connection changes nothing about it.
    pub cipher: Option<Box<dyn PayloadCipher>>,
}

/// A cipher is compared by its being there.
impl PartialEq for Admission {
    fn eq(&self, other: &Self) -> bool {
        let Self { principal, data, client_id, until_ms, cipher } = self;
        *principal == other.principal
            && *data == other.data
            && *client_id == other.client_id
            && *until_ms == other.until_ms
            && cipher.is_some() == other.cipher.is_some()
    }
}

impl Admission {
    /// Without terms.
    #[must_use]
    pub fn new(principal: Principal) -> Self {
        Self { principal, data: None, client_id: None, until_ms: None, cipher: None }
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

/// A client that was let in and is about to get its session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrival<'a> {
    /// Who it is.
    pub principal: &'a Principal,
    /// Where it comes from.
    pub address: IpAddr,
    /// From where the connection comes that ends for it, if it takes one over.
    pub instead_of: Option<IpAddr>,
}

/// A client that was let in, and the parts of its CONNECT in which it may state which firmware it runs on which module.
#[derive(Clone, Copy)]
pub struct Stated<'a> {
    /// Who it is.
    pub principal: &'a Principal,
    /// User name, if sent.
    pub user_name: Option<&'a str>,
    /// User properties of the CONNECT; none in MQTT 3.
    pub properties: UserProperties<'a>,
    /// Where it comes from.
    pub address: IpAddr,
}

impl fmt::Debug for Stated<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stated").field("principal", self.principal).finish_non_exhaustive()
    }
}

/// What a gate makes of a [`Stated`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[must_use]
pub struct Attested {
    /// It isn't what was expected. By itself that keeps nobody out; a gate around this one may hold it against the client.
    pub wrong: bool,
    /// It is kept out: what the CONNACK says, and the cause for [`Passage::Refused`].
    pub refused: Option<(ConnectReason, &'static str)>,
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

    /// What was said to attempts is about to be heard. What the gate has to remember of them, so that nothing is heard twice after a crash, is
    /// to be kept by now: once for all that a turn has judged. Called by the shard's thread.
    fn keep_judged(&self) {}

    /// May it publish there?
    fn may_publish(&self, principal: &Principal, topic: TopicName<'_>) -> bool;

    /// May it subscribe to that? The filter is without the `$share/{name}/` prefix.
    fn may_subscribe(&self, principal: &Principal, filter: TopicFilter<'_>) -> bool;

    /// May it be given what waits for it on that topic? A right to read many topics by one filter may be made of rights to each of them, as a user's feed is
    /// made of bindings: then this is less than [`Gate::may_subscribe`].
    fn may_receive(&self, principal: &Principal, topic: TopicName<'_>) -> bool {
        // A topic name is a filter that matches itself alone.
        self.may_subscribe(principal, TopicFilter::from_validated(topic.as_str()))
    }

    /// Are the payloads of its connections sealed between the broker and it? Asked for live sessions when the registry has changed; a
    /// connection for which the answer has changed is ended, since it was made on other terms.
    fn seals(&self, _principal: &Principal, _tls: bool) -> bool {
        false
    }

    /// Is it still welcome? Asked for live sessions when the registry has changed.
    fn still_welcome(&self, principal: &Principal) -> bool;

    /// The same for a session, and from where it is connected, if it is.
    fn still_welcome_from(&self, principal: &Principal, peer: Option<std::net::SocketAddr>) -> bool {
        let _ = peer;
        self.still_welcome(principal)
    }

    /// Whether what it publishes may go to users' feeds. Asked when it connects and when it is judged again.
    fn has_feed(&self, principal: &Principal) -> bool {
        let _ = principal;
        false
    }

    /// The feeds that something goes to which it publishes on a topic, into `feed`, which is empty. Asked with each message of those that
    /// have feeds.
    fn feed(&self, principal: &Principal, topic: TopicName<'_>, feed: &mut Feed) {
        let _ = (principal, topic, feed);
    }

    /// Does it exist no more, so that nobody will ever come back to its session?
    fn is_gone(&self, _principal: &Principal) -> bool {
        false
    }

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

    /// Judges what a client states of itself, once it is known who it is.
    fn attest(&self, _stated: &Stated<'_>, _now: Now) -> Attested {
        Attested::default()
    }

    /// A client takes over its session. An error refuses the new connection, and the old one stays.
    ///
    /// # Errors
    /// What the CONNACK says.
    fn taken_over(&self, _take_over: TakeOver<'_>, _now: Now) -> Result<(), ConnectReason> {
        Ok(())
    }

    /// Who is to have what a device publishes on a topic, on which it may publish. Asked with each message of a device.
    fn handling(&self, device: &DeviceIdentity, topic: TopicName<'_>) -> Handling {
        let _ = (device, topic);
        Handling::Routed
    }

    /// A client is about to get its session. An error refuses it, and an older connection that it would take over stays. What was said of it before
    /// holds for this connection alone; whether it has others is for a gate to know that counts [`Self::passed`].
    ///
    /// # Errors
    /// What the CONNACK says.
    fn arrives(&self, _arrival: Arrival<'_>, _now: Now) -> Result<(), ConnectReason> {
        Ok(())
    }

    /// A service publishes, and may. Called by the shard's thread: it must not wait.
    fn controlled(&self, service: &Principal, topic: TopicName<'_>, now: Now) {
        let _ = (service, topic, now);
    }

    /// Hears what became of a client: of each that was judged, whether it came in, and of each that came in, that it went. Called by
    /// the shard's thread: it must not wait.
    fn passed(&self, visit: &Visit<'_>, passage: Passage, now: Now) {
        let _ = (visit, passage, now);
    }
}

/// Who is to have what a device publishes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Handling {
    /// Whoever subscribes to it.
    Routed,
    /// A desk of the broker's own, by [`crate::shard::Shard::next_errand`]; the acknowledgement waits until the desk is done.
    Handed {
        /// And whoever subscribes to it.
        routed: bool,
    },
}

/// Leave to publish one message on one topic.
///
/// ```compile_fail
/// let topic = turnpike_mqtt::TopicName::new("a").unwrap();
/// let permit = turnpike_core::gate::Permit { topic, _sealed: () };
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
