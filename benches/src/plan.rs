//! From a specification to clients: what each one does, and which worker has it.

use crate::identity::{Identity, Login};
use crate::spec::{Scenario, Spec};

/// A client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Number in the run.
    pub index: usize,
    /// Connects in this stage.
    pub stage: u8,
    /// Number of its identity.
    pub identity: usize,
    /// What it subscribes to.
    pub subscription: Option<Subscription>,
    /// What it publishes.
    pub publication: Option<Publication>,
}

/// What a client subscribes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subscription {
    /// Topic filters.
    pub filters: Vec<String>,
    /// How its messages are followed.
    pub streams: Streams,
    /// It never reads what it is sent.
    pub deaf: bool,
}

/// How the messages that a subscriber gets are followed, to find what is lost, repeated or out of order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Streams {
    /// It hears this publisher alone.
    One(u32),
    /// It hears every publisher.
    Each,
    /// It is one of a group that together hears every publisher: any order will do.
    Group,
}

/// What a client publishes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Publication {
    /// Number of the publisher in the run.
    pub publisher: u32,
    /// First topic; further ones are made by [`Plan::topic_of`].
    pub topic: String,
    /// Topics, one after the other.
    pub topics: usize,
    /// RETAIN.
    pub retain: bool,
}

/// Stages of connecting.
pub const STAGES: u8 = 2;

impl Plan {
    /// The clients of a worker.
    #[must_use]
    pub fn of_worker(spec: &Spec, worker: usize) -> Vec<Self> {
        (0..Self::clients(spec))
            .filter(|index| Self::owner(spec, *index) == worker)
            .map(|index| Self::new(spec, index))
            .collect()
    }

    /// How many clients a run has.
    #[must_use]
    pub fn clients(spec: &Spec) -> usize {
        match spec.scenario {
            Scenario::Connect | Scenario::Idle => spec.publishers,
            Scenario::Slow => 1 + spec.subscribers + spec.publishers,
            _ => spec.subscribers + spec.publishers,
        }
    }

    /// Which worker has a client. The two of a pair are together.
    fn owner(spec: &Spec, index: usize) -> usize {
        match spec.scenario {
            Scenario::Slow => 0,
            Scenario::Connect | Scenario::Idle => index % spec.processes,
            _ if index < spec.subscribers => index % spec.processes,
            _ => (index - spec.subscribers) % spec.processes,
        }
    }

    /// The client with this number.
    #[must_use]
    pub fn new(spec: &Spec, index: usize) -> Self {
        let idle = Self { index, stage: 0, identity: index, subscription: None, publication: None };
        match spec.scenario {
            Scenario::Connect | Scenario::Idle => idle,
            Scenario::Mixed => Self::mixed(spec, &idle),
            Scenario::Slow => Self::slow(spec, &idle),
            Scenario::Feed => Self::feed(spec, &idle),
            _ if index < spec.subscribers => Self::subscriber(spec, &idle),
            _ => Self::publisher(spec, &idle, index - spec.subscribers),
        }
    }

    fn subscriber(spec: &Spec, idle: &Self) -> Self {
        let index = idle.index;
        let (filters, streams) = match spec.scenario {
            Scenario::Pair => (vec![topic(spec, index)], Streams::One(index as u32)),
            Scenario::Shared => {
                let filter = format!("$share/{}/{}", spec.group, every_topic(spec));
                (vec![filter], Streams::Group)
            }
            Scenario::Retained => (vec![format!("{}/#", every_topic(spec))], Streams::Group),
            // A list of its own for few, as a back end has that watches some devices: no wildcard is needed.
            _ if spec.publishers <= 64 => ((0..spec.publishers).map(|n| topic(spec, n)).collect(), Streams::Each),
            _ => (vec![every_topic(spec)], Streams::Each),
        };
        let stage = u8::from(spec.scenario == Scenario::Retained);
        let subscription = Some(Subscription { filters, streams, deaf: false });
        Self { stage, identity: identity(spec, index), subscription, ..idle.clone() }
    }

    fn publisher(spec: &Spec, idle: &Self, number: usize) -> Self {
        let retain = spec.scenario == Scenario::Retained;
        let publication = Publication {
            publisher: number as u32,
            topic: topic(spec, number),
            topics: if retain { spec.messages } else { 1 },
            retain,
        };
        let stage = u8::from(!retain);
        Self { stage, identity: identity(spec, number), publication: Some(publication), ..idle.clone() }
    }

    /// Back ends have the first numbers. They aren't devices, so they have an identity of their own.
    fn mixed(spec: &Spec, idle: &Self) -> Self {
        let index = idle.index;
        if index < spec.subscribers {
            let filter = format!("$share/{}/{}", spec.group, place(spec, usize::MAX, "up/#"));
            let publication = Publication {
                publisher: (spec.publishers + index) as u32,
                topic: place(spec, 0, "down/command"),
                topics: spec.publishers,
                retain: false,
            };
            let subscription = Subscription { filters: vec![filter], streams: Streams::Group, deaf: false };
            return Self { subscription: Some(subscription), publication: Some(publication), ..idle.clone() };
        }
        let device = index - spec.subscribers;
        let subscription =
            Subscription { filters: vec![place(spec, device, "down/command")], streams: Streams::Group, deaf: false };
        let publication = Publication {
            publisher: device as u32,
            topic: place(spec, device, "up/telemetry"),
            topics: 1,
            retain: false,
        };
        Self {
            stage: 1,
            identity: device,
            subscription: Some(subscription),
            publication: Some(publication),
            ..idle.clone()
        }
    }

    /// The first one reads, the others that subscribe don't.
    fn slow(spec: &Spec, idle: &Self) -> Self {
        let index = idle.index;
        if index > spec.subscribers {
            return Self::publisher(spec, idle, index - spec.subscribers - 1);
        }
        let filters = (0..spec.publishers.min(64)).map(|n| topic(spec, n)).collect();
        let subscription = Subscription { filters, streams: Streams::Each, deaf: index > 0 };
        Self { identity: identity(spec, 0), subscription: Some(subscription), ..idle.clone() }
    }

    /// The service has the first number, then come the users, then the devices.
    fn feed(spec: &Spec, idle: &Self) -> Self {
        let index = idle.index;
        let subscribes = |filter, streams| {
            let subscription = Subscription { filters: vec![filter], streams, deaf: false };
            Self { subscription: Some(subscription), ..idle.clone() }
        };
        if index == 0 {
            return subscribes(place(spec, usize::MAX, "up/#"), Streams::Each);
        }
        if index < spec.subscribers {
            let user = idle.login(spec, 0).user_name.unwrap_or_default().replacen('/', ":", 1);
            return subscribes(format!("user/{user}/#"), Streams::One(index as u32 - 1));
        }
        let device = index - spec.subscribers;
        let topic = place(spec, device, "up/telemetry");
        let publication = Publication { publisher: device as u32, topic, topics: 1, retain: false };
        Self { stage: 1, identity: device, publication: Some(publication), ..idle.clone() }
    }

    /// The topic of a publication's message number `message`.
    #[must_use]
    pub fn topic_of(spec: &Spec, publication: &Publication, message: u64) -> String {
        let number = (message % publication.topics.max(1) as u64) as usize;
        match spec.scenario {
            Scenario::Retained => format!("{}/{number}", publication.topic),
            Scenario::Mixed if publication.topics > 1 => place(spec, number, "down/command"),
            _ => publication.topic.clone(),
        }
    }

    /// What the client says to log in. `unique` is never the same twice in a run.
    #[must_use]
    pub fn login(&self, spec: &Spec, unique: u64) -> Login {
        let is_back_end = matches!(spec.scenario, Scenario::Mixed | Scenario::Feed) && self.index < spec.subscribers;
        let identity = if is_back_end { &spec.back_end } else { &spec.identity };
        // Ready-made credentials are one client's each.
        let number = if matches!(identity, Identity::Lines(_)) { self.index } else { self.identity };
        identity.login(number, format!("bench-{}-{}", spec.run, self.index), unique)
    }
}

/// Pairs are two connections of one device. Where everybody meets on one topic, everybody is the same device, since a device may
/// use its own topics only.
fn identity(spec: &Spec, number: usize) -> usize {
    match spec.scenario {
        Scenario::Pair => number,
        _ => 0,
    }
}

/// The topic that a publisher has.
fn topic(spec: &Spec, publisher: usize) -> String {
    let number = match spec.scenario {
        // One topic for all of them, since everybody hears everybody.
        Scenario::FanOut => 0,
        _ => publisher,
    };
    fill(spec, identity(spec, publisher), &number.to_string())
}

/// A filter for the topics of all publishers.
fn every_topic(spec: &Spec) -> String {
    fill(spec, identity(spec, 0), "+")
}

fn fill(spec: &Spec, identity: usize, number: &str) -> String {
    let device = spec.identity.device(identity);
    let standard = if device.is_some() { "dev/{product}/{device}/sys/bench/{i}" } else { "bench/{i}" };
    let (product, device) = device.unwrap_or_default();
    let template = spec.topic.as_deref().unwrap_or(standard);
    template.replace("{i}", number).replace("{product}", &product).replace("{device}", &device)
}

/// Where a device speaks and is spoken to; `usize::MAX` is any device.
fn place(spec: &Spec, device: usize, end: &str) -> String {
    let (product, name) = match spec.identity.device(if device == usize::MAX { 0 } else { device }) {
        Some(named) => named,
        None => ("bench".to_owned(), format!("d{device}")),
    };
    let name = if device == usize::MAX { "+" } else { name.as_str() };
    format!("dev/{product}/{name}/{end}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Device;

    fn spec(scenario: Scenario, publishers: usize, subscribers: usize) -> Spec {
        let address = "127.0.0.1:1".parse().expect("an address");
        Spec { publishers, subscribers, processes: 2, ..Spec::new(scenario, address) }
    }

    fn family() -> Identity {
        let device = Device { product: "p".into(), name: "d{i}".into(), secret: "0123456789abcdef".into() };
        Identity::Family { profile: "native".into(), device, count: 10 }
    }

    #[test]
    fn pairs_are_in_one_worker_and_on_one_topic() {
        let spec = Spec { identity: family(), ..spec(Scenario::Pair, 5, 5) };
        let workers = [Plan::of_worker(&spec, 0), Plan::of_worker(&spec, 1)];
        assert_eq!(workers.iter().map(Vec::len).sum::<usize>(), Plan::clients(&spec));
        for plans in workers {
            for publication in plans.iter().filter_map(|plan| plan.publication.as_ref()) {
                let heard = plans
                    .iter()
                    .filter_map(|plan| plan.subscription.as_ref())
                    .find(|s| s.filters[0] == publication.topic);
                assert_eq!(heard.expect("in the same worker").streams, Streams::One(publication.publisher));
            }
        }
        assert_eq!(Plan::new(&spec, 6).publication.expect("a publisher").topic, "dev/p/d1/sys/bench/1");
    }

    #[test]
    fn who_meets_whom() {
        let fan_out = Plan::new(&spec(Scenario::FanOut, 3, 2), 4).publication.expect("a publisher");
        assert_eq!((fan_out.topic.as_str(), fan_out.publisher), ("bench/0", 2));
        let fan_in = Plan::new(&spec(Scenario::FanIn, 3, 1), 0).subscription.expect("a subscriber");
        assert_eq!(fan_in.filters, ["bench/0", "bench/1", "bench/2"]);
        let many = Plan::new(&spec(Scenario::FanIn, 100, 1), 0).subscription.expect("a subscriber");
        assert_eq!(many.filters, ["bench/+"]);
        let shared = Plan::new(&spec(Scenario::Shared, 3, 2), 1).subscription.expect("a subscriber");
        assert_eq!(shared.filters, ["$share/bench/bench/+"]);
        let slow = spec(Scenario::Slow, 1, 1);
        let deaf = |index| Plan::new(&slow, index).subscription.map(|s| s.deaf);
        assert_eq!((deaf(0), deaf(1), deaf(2)), (Some(false), Some(true), None));
    }

    #[test]
    fn a_service_and_each_user_hear_a_device() {
        let login = |name: &str| Login { client_id: name.into(), user_name: Some(name.into()), password: None };
        let back_end = Identity::Lines(["$svc/s", "home/u0", "home/u1"].map(login).into());
        let spec =
            Spec { identity: family(), back_end, processes: 1, ..spec(Scenario::Feed, 2, 3) }.check().expect("valid");
        let heard = |index| Plan::new(&spec, index).subscription.expect("it listens");
        assert_eq!((heard(0).filters, heard(0).streams), (vec!["dev/p/+/up/#".to_owned()], Streams::Each));
        assert_eq!((heard(2).filters, heard(2).streams), (vec!["user/home:u1/#".to_owned()], Streams::One(1)));
        let device = Plan::new(&spec, 4);
        assert_eq!(device.login(&spec, 0).user_name.as_deref(), Some("p/d1"));
        assert_eq!(device.publication.expect("it speaks").topic, "dev/p/d1/up/telemetry");
        assert_eq!((Plan::new(&spec, 1).login(&spec, 0).client_id.as_str(), spec.copies()), ("home/u0", 2));
    }

    #[test]
    fn back_ends_speak_to_each_device() {
        let spec = spec(Scenario::Mixed, 3, 1);
        let back_end = Plan::new(&spec, 0);
        assert_eq!(back_end.subscription.expect("it listens").filters, ["$share/bench/dev/bench/+/up/#"]);
        let speaks = back_end.publication.expect("it speaks");
        assert_eq!(Plan::topic_of(&spec, &speaks, 4), "dev/bench/d1/down/command");
        let device = Plan::new(&spec, 2);
        assert_eq!(device.subscription.expect("it listens").filters, ["dev/bench/d1/down/command"]);
        assert_eq!(device.publication.expect("it speaks").topic, "dev/bench/d1/up/telemetry");
    }
}
