//! What to run. A value of [`Spec`] went through [`Spec::check`] and is given to the workers as JSON.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use turnpike_mqtt::{QoS, TopicName, Version};

use crate::identity::Identity;
use crate::plan::Plan;

/// Bytes at the front of a payload: time of publication, publisher, sequence number.
pub const STAMP_BYTES: usize = 16;

/// Streams (a publisher seen by a subscriber) that are kept in order of magnitude at most, over all subscribers.
const STREAMS_MAX: usize = 20_000_000;

/// Who talks to whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scenario {
    /// Connect everybody, and no more.
    Connect,
    /// Connections that say nothing.
    Idle,
    /// Each publisher has a subscriber of its own.
    Pair,
    /// All publishers to each subscriber, each on its own topic.
    FanIn,
    /// Each message to all subscribers.
    FanOut,
    /// Publishers to one shared subscription.
    Shared,
    /// Messages are retained, and then fetched by subscribers.
    Retained,
    /// Devices send telemetry at a rate to a shared group of back ends, which send commands down to each.
    Mixed,
    /// A subscriber that reads beside some that don't.
    Slow,
    /// What each device publishes goes to a service and to the feed of the device's user. The service and then the users are `back_end`.
    Feed,
}

/// How fast publishers are.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pace {
    /// Closed loop: so many messages of one publisher are under way at once.
    Window(u32),
    /// Open loop: so many a second, all publishers together. Latency counts from when a message was due.
    Rate(f64),
}

/// TLS.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Tls {
    /// PEM file of the authorities that are trusted.
    pub ca: Option<PathBuf>,
    /// Take any certificate.
    pub insecure: bool,
    /// Name that the certificate must have; the address if none.
    pub server_name: Option<String>,
    /// What the clients show.
    pub certificate: Option<Certificate>,
}

/// A certificate of the clients, and its private key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Certificate {
    /// PEM file of the certificate and of those that lead up to its authority.
    pub chain: PathBuf,
    /// PEM file of the key.
    pub key: PathBuf,
}

/// How clients log in over time.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Connecting {
    /// CONNECTs under way at once, all processes together.
    pub outstanding_max: usize,
    /// A ramp: so many a second. None: a storm.
    pub rate: Option<f64>,
    /// Disconnect as soon as connected.
    pub close: bool,
}

/// One run.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// Who talks to whom.
    pub scenario: Scenario,
    /// Where the broker listens.
    pub address: SocketAddr,
    /// TLS, if spoken.
    pub tls: Option<Tls>,
    /// Path of a WebSocket, if spoken.
    pub websocket: Option<String>,
    /// Addresses to connect from, in turn; the kernel's choice if empty.
    pub sources: Vec<IpAddr>,
    /// How many publish; in `Connect` and `Idle`, how many connect. In `Mixed`: devices.
    pub publishers: usize,
    /// How many subscribe. In `Mixed`: back ends. In `Slow`: those that don't read. In `Feed`: the service and a user for each device.
    pub subscribers: usize,
    /// Of publications and subscriptions.
    #[serde(with = "qos")]
    pub qos: QoS,
    /// What is spoken.
    #[serde(with = "version")]
    pub version: Version,
    /// How fast publishers are.
    pub pace: Pace,
    /// `Mixed`: commands a second, all back ends together.
    pub down_rate: f64,
    /// `Retained`: messages a publisher.
    pub messages: usize,
    /// Bytes of a message.
    pub payload: usize,
    /// Time before the measurement.
    pub warmup: Duration,
    /// Time of the measurement; for `Idle`, of the hold.
    pub duration: Duration,
    /// The most that stragglers are waited for.
    pub drain: Duration,
    /// Seconds; 0 for none.
    pub keep_alive_s: u16,
    /// How clients log in over time.
    pub connecting: Connecting,
    /// Who the clients are.
    pub identity: Identity,
    /// `Mixed`: who the back ends are. `Feed`: who subscribes.
    pub back_end: Identity,
    /// Topic of a publisher, with {i}, {product}, {device}.
    pub topic: Option<String>,
    /// Name of the shared subscription.
    pub group: String,
    /// Subscribers have sessions that outlive the connection.
    pub durable: bool,
    /// Durable subscribers leave before the first message.
    pub offline: bool,
    /// Worker processes.
    pub processes: usize,
    /// Makes client ids of this run unlike those of others.
    pub run: u32,
}

/// Why a specification can't be run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault(pub String);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fault {}

impl Spec {
    /// Pairs over plain TCP with nothing special; what tests and comparisons start from.
    #[must_use]
    pub fn new(scenario: Scenario, address: SocketAddr) -> Self {
        Self {
            scenario,
            address,
            tls: None,
            websocket: None,
            sources: Vec::new(),
            publishers: 1,
            subscribers: 1,
            qos: QoS::AtMostOnce,
            version: Version::V311,
            pace: Pace::Window(16),
            down_rate: 100.0,
            messages: 1000,
            payload: 64,
            warmup: Duration::from_secs(1),
            duration: Duration::from_secs(5),
            drain: Duration::from_secs(5),
            keep_alive_s: 300,
            connecting: Connecting { outstanding_max: 64, rate: None, close: false },
            identity: Identity::Anonymous,
            back_end: Identity::Anonymous,
            topic: None,
            group: "bench".to_owned(),
            durable: false,
            offline: false,
            processes: 1,
            run: std::process::id(),
        }
    }

    /// Refuses what can't be run or would say nothing.
    ///
    /// # Errors
    /// The first fault.
    pub fn check(self) -> Result<Self, Fault> {
        let fault = |text: &str| Err(Fault(text.to_owned()));
        if self.publishers == 0 || (self.subscribers == 0 && self.has_subscribers()) {
            return fault("there must be at least one publisher and one subscriber");
        }
        if self.processes == 0 || self.connecting.outstanding_max < self.processes {
            return fault("each process needs room for one CONNECT");
        }
        match self.pace {
            Pace::Window(0) => return fault("a window of 0 lets nothing through"),
            Pace::Rate(rate) if !(rate > 0.0 && rate.is_finite()) => return fault("the rate must be above 0"),
            _ => {}
        }
        if self.scenario == Scenario::Mixed && (!matches!(self.pace, Pace::Rate(_)) || self.down_rate <= 0.0) {
            return fault("`mixed` is an open loop: it needs --rate and --down-rate");
        }
        if self.is_loaded() && self.payload < STAMP_BYTES {
            return Err(Fault(format!("a payload needs {STAMP_BYTES} bytes for its stamp")));
        }
        if self.scenario == Scenario::Pair && self.publishers != self.subscribers {
            return fault("pairs are as many subscribers as publishers");
        }
        if self.scenario == Scenario::Feed {
            let lines = if let Identity::Lines(lines) = &self.back_end { lines.as_slice() } else { &[] };
            if self.subscribers != self.publishers + 1 || lines.len() < self.subscribers {
                return fault("feeds need a service and a user for each device, and what they log in with");
            }
        }
        if let Identity::Lines(lines) = &self.identity
            && lines.len() < Plan::clients(&self)
        {
            let (have, need) = (lines.len(), Plan::clients(&self));
            return Err(Fault(format!("{have} ready-made credentials for {need} clients: each needs its own")));
        }
        if let Some(topic) = &self.topic
            && TopicName::parse(topic).is_err()
        {
            return fault("the topic is none that can be published on");
        }
        if self.offline && !self.durable {
            return fault("only durable subscribers can be offline");
        }
        if self.durable && self.qos == QoS::AtMostOnce {
            return fault("nothing of QoS 0 is durable");
        }
        if self.is_loaded() && self.credit() == Credit::Impossible {
            return fault("a window at QoS 0 needs both ends in one process: use one process, pairs, or a rate");
        }
        if self.streams() > STREAMS_MAX {
            return fault("so many publishers seen by so many subscribers can't be kept in order");
        }
        Ok(self)
    }

    fn streams(&self) -> usize {
        match self.scenario {
            Scenario::FanIn | Scenario::FanOut => self.publishers.saturating_mul(self.subscribers),
            _ => self.publishers + self.subscribers,
        }
    }

    fn has_subscribers(&self) -> bool {
        !matches!(self.scenario, Scenario::Connect | Scenario::Idle | Scenario::Slow)
    }

    /// Whether messages are published.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        !matches!(self.scenario, Scenario::Connect | Scenario::Idle)
    }

    /// How many deliveries one message brings, over all processes.
    #[must_use]
    pub fn copies(&self) -> usize {
        match self.scenario {
            _ if self.offline => 0,
            Scenario::Connect | Scenario::Idle => 0,
            Scenario::Pair | Scenario::Shared | Scenario::Mixed | Scenario::Slow => 1,
            // The service, and the user.
            Scenario::Feed => 2,
            Scenario::FanIn | Scenario::FanOut | Scenario::Retained => self.subscribers,
        }
    }

    /// What gives a publisher room for its next message.
    #[must_use]
    pub fn credit(&self) -> Credit {
        let together = self.processes == 1 || matches!(self.scenario, Scenario::Pair | Scenario::Slow);
        match (self.pace, self.qos) {
            (Pace::Rate(_), _) => Credit::None,
            (Pace::Window(_), _) if together && self.copies() > 0 && self.scenario != Scenario::Retained => {
                Credit::Deliveries(self.copies() as u64)
            }
            (Pace::Window(_), QoS::AtMostOnce) if self.scenario == Scenario::Retained => Credit::None,
            (Pace::Window(_), QoS::AtMostOnce) => Credit::Impossible,
            (Pace::Window(_), _) => Credit::Acks,
        }
    }
}

/// What gives a publisher room for its next message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Credit {
    /// So many deliveries in this process.
    Deliveries(u64),
    /// The broker's last acknowledgement.
    Acks,
    /// Nothing does: it goes by time.
    None,
    /// Nothing in this process can tell.
    Impossible,
}

/// Reads `--sources`: a count of loopback addresses, or addresses and ranges of them, separated by commas.
///
/// # Errors
/// What is no address.
pub fn parse_sources(text: &str) -> Result<Vec<IpAddr>, Fault> {
    let loopback = |n: u32| IpAddr::V4(Ipv4Addr::from(0x7F00_0000 + n));
    if let Ok(count) = text.parse::<u32>() {
        return if (1..=0x00FF_FFFE).contains(&count) {
            Ok((1..=count).map(loopback).collect())
        } else {
            Err(Fault("sources: 1 to 16,777,214 loopback addresses".to_owned()))
        };
    }
    let mut found = Vec::new();
    for part in text.split(',') {
        let bad = || Fault(format!("sources: {part:?} is neither a count, an address, nor a range of IPv4 addresses"));
        match part.split_once('-') {
            None => found.push(part.trim().parse().map_err(|_| bad())?),
            Some((first, last)) => {
                let first: Ipv4Addr = first.trim().parse().map_err(|_| bad())?;
                let last: Ipv4Addr = last.trim().parse().map_err(|_| bad())?;
                if first > last {
                    return Err(bad());
                }
                found.extend((u32::from(first)..=u32::from(last)).map(|n| IpAddr::V4(Ipv4Addr::from(n))));
            }
        }
    }
    Ok(found)
}

/// [`QoS`] as a number.
mod qos {
    use serde::{Deserialize, Deserializer, Serializer, de};
    use turnpike_mqtt::QoS;

    pub(super) fn serialize<S: Serializer>(qos: &QoS, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(*qos as u8)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<QoS, D::Error> {
        QoS::try_from(u8::deserialize(deserializer)?).map_err(|_| de::Error::custom("no QoS"))
    }
}

/// [`Version`] as its level.
mod version {
    use serde::{Deserialize, Deserializer, Serializer, de};
    use turnpike_mqtt::Version;

    pub(super) fn serialize<S: Serializer>(version: &Version, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(*version as u8)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Version, D::Error> {
        Version::from_level(u8::deserialize(deserializer)?).ok_or_else(|| de::Error::custom("no version of MQTT"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs() -> Spec {
        Spec::new(Scenario::Pair, "127.0.0.1:1883".parse().expect("an address"))
    }

    #[test]
    fn what_says_nothing_is_refused() {
        assert!(pairs().check().is_ok());
        let refused = [
            Spec { publishers: 0, ..pairs() },
            Spec { subscribers: 2, ..pairs() },
            Spec { payload: 8, ..pairs() },
            Spec { pace: Pace::Window(0), ..pairs() },
            Spec { pace: Pace::Rate(f64::NAN), ..pairs() },
            Spec { offline: true, qos: QoS::AtLeastOnce, ..pairs() },
            Spec { durable: true, ..pairs() },
            Spec { scenario: Scenario::FanIn, processes: 2, ..pairs() },
            Spec { scenario: Scenario::Mixed, ..pairs() },
            Spec { topic: Some("a/#".to_owned()), ..pairs() },
            Spec { identity: Identity::Lines(Vec::new()), ..pairs() },
            Spec { scenario: Scenario::Feed, subscribers: 2, ..pairs() },
            Spec { scenario: Scenario::FanIn, publishers: 10_000, subscribers: 10_000, ..pairs() },
        ];
        for spec in refused {
            assert!(spec.clone().check().is_err(), "{spec:?}");
        }
    }

    #[test]
    fn what_opens_the_window() {
        assert_eq!(pairs().credit(), Credit::Deliveries(1));
        let fan_out = Spec { scenario: Scenario::FanOut, subscribers: 100, ..pairs() };
        assert_eq!(fan_out.credit(), Credit::Deliveries(100));
        assert_eq!(Spec { processes: 2, ..fan_out.clone() }.credit(), Credit::Impossible);
        assert_eq!(Spec { processes: 2, qos: QoS::AtLeastOnce, ..fan_out }.credit(), Credit::Acks);
        assert_eq!(Spec { pace: Pace::Rate(1.0), ..pairs() }.credit(), Credit::None);
        let offline = Spec { durable: true, offline: true, qos: QoS::AtLeastOnce, ..pairs() };
        assert_eq!(offline.credit(), Credit::Acks);
    }

    #[test]
    fn sources_are_counts_lists_and_ranges() {
        let text = |sources: Vec<IpAddr>| sources.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(text(parse_sources("2").expect("a count")), "127.0.0.1 127.0.0.2");
        assert_eq!(text(parse_sources("127.0.0.9,::1").expect("a list")), "127.0.0.9 ::1");
        assert_eq!(text(parse_sources("127.0.0.255-127.0.1.1").expect("a range")), "127.0.0.255 127.0.1.0 127.0.1.1");
        for bad in ["", "0", "17000000", "x", "127.0.0.1-", "::1-::2", "127.0.0.2-127.0.0.1"] {
            assert!(parse_sources(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn it_survives_json() {
        let spec =
            Spec { tls: Some(Tls::default()), pace: Pace::Rate(10.5), sources: vec![[127, 0, 0, 1].into()], ..pairs() };
        let json = serde_json::to_string(&spec).expect("JSON");
        assert_eq!(serde_json::from_str::<Spec>(&json).expect("the same"), spec);
    }
}
