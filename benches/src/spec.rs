//! What to run.

use std::net::SocketAddr;
use std::time::Duration;

use turnpike_authz::credential;
use turnpike_authz::profile::SignMethod;
use turnpike_authz::secret::Secret;
use turnpike_mqtt::{QoS, Version};

/// Who talks to whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scenario {
    /// Each publisher has a subscriber of its own.
    Pair,
    /// All publishers to each subscriber.
    FanIn,
    /// Each message to all subscribers.
    FanOut,
    /// Connections that say nothing.
    Idle,
}

/// A device to log in as.
#[derive(Clone, Debug)]
pub struct Device {
    /// Product key.
    pub product: String,
    /// Device name.
    pub name: String,
    /// Its secret.
    pub secret: Secret,
}

/// One run of one process.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Who talks to whom.
    pub scenario: Scenario,
    /// Where the broker listens.
    pub address: SocketAddr,
    /// How many publish.
    pub publishers: usize,
    /// How many subscribe.
    pub subscribers: usize,
    /// Of publications and subscriptions.
    pub qos: QoS,
    /// What is spoken.
    pub version: Version,
    /// Messages of one publisher under way at once, until the last subscriber has them.
    pub window: u32,
    /// Bytes of a message, at least 16.
    pub payload: usize,
    /// Time before the measurement.
    pub warmup: Duration,
    /// Time of the measurement; for `Idle`, of the hold.
    pub duration: Duration,
    /// Seconds.
    pub keep_alive_s: u16,
    /// CONNECTs under way at once.
    pub connecting_max: usize,
    /// The broker's process.
    pub broker_pid: Option<u32>,
    /// Whom the clients log in as; nobody if the broker lets everybody in.
    pub device: Option<Device>,
}

/// What a client's CONNECT says.
#[derive(Clone, Debug)]
pub struct Login {
    /// Client id.
    pub client_id: String,
    /// User name.
    pub user_name: Option<String>,
    /// Password.
    pub password: Option<String>,
}

impl Spec {
    /// The topic of a publisher: one that the device may publish on and read.
    #[must_use]
    pub fn topic(&self, publisher: usize) -> String {
        match &self.device {
            Some(device) => format!("dev/{}/{}/sys/bench/{publisher}", device.product, device.name),
            None => format!("bench/{publisher}"),
        }
    }

    /// Credentials of a client.
    #[must_use]
    pub fn login(&self, client: usize) -> Login {
        let id = format!("bench-{}-{client}", std::process::id());
        match &self.device {
            Some(device) => {
                let made =
                    credential::aliyun(&device.product, &device.name, &device.secret, &id, SignMethod::Sha256, None);
                Login { client_id: made.client_id, user_name: Some(made.user_name), password: Some(made.password) }
            }
            None => Login { client_id: id, user_name: None, password: None },
        }
    }
}
