//! Live messages beside a campaign, and how long each takes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use turnpike_mqtt::QoS;

use super::stage::{LIVE, LIVE_PRODUCT, live_login, service_login};
use crate::backfill::client::{Came, Client};

/// How long the last messages may take.
const LAST: Duration = Duration::from_secs(5);

pub(super) struct Live {
    shared: Arc<Shared>,
    device: JoinHandle<anyhow::Result<()>>,
    reader: JoinHandle<anyhow::Result<()>>,
}

struct Shared {
    begun: Instant,
    times: Mutex<Histogram<u64>>,
    sent: AtomicU64,
    came: AtomicU64,
    over: AtomicBool,
}

/// Microseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Times {
    pub(super) p50: u64,
    pub(super) p99: u64,
    pub(super) max: u64,
}

impl Live {
    /// One device publishes `rate` messages a second, a service reads them.
    pub(super) fn start(address: SocketAddr, rate: u32) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared {
            begun: Instant::now(),
            times: Mutex::new(Histogram::new_with_max(60_000_000, 3)?),
            sent: AtomicU64::new(0),
            came: AtomicU64::new(0),
            over: AtomicBool::new(false),
        });
        let mut service = Client::connect(address, &service_login()?, None)?;
        service.subscribe(&topic(), QoS::AtMostOnce)?;
        // The subscription's acknowledgement.
        service.next()?;
        service.set_patience(Duration::from_millis(100))?;
        let device = Client::connect(address, &live_login()?, None)?;
        let spawn = |name: &str, work: Box<dyn FnOnce() -> anyhow::Result<()> + Send>| {
            thread::Builder::new().name(name.to_owned()).spawn(work)
        };
        let of_reader = Arc::clone(&shared);
        let reader = spawn("live-reader", Box::new(move || of_reader.read(service)))?;
        let of_device = Arc::clone(&shared);
        let device = spawn("live-device", Box::new(move || of_device.publish(device, rate)))?;
        Ok(Self { shared, device, reader })
    }

    /// Those since the last call.
    pub(super) fn take(&self) -> Times {
        let Ok(mut times) = self.shared.times.lock() else { return Times { p50: 0, p99: 0, max: 0 } };
        let at = |quantile| times.value_at_quantile(quantile);
        let found = Times { p50: at(0.5), p99: at(0.99), max: times.max() };
        times.reset();
        found
    }

    /// Ends it. Messages that didn't come.
    pub(super) fn finish(self) -> anyhow::Result<u64> {
        self.shared.over.store(true, Relaxed);
        for thread in [self.device, self.reader] {
            thread.join().map_err(|_| anyhow::anyhow!("a live client has panicked"))??;
        }
        Ok(self.shared.sent.load(Relaxed).saturating_sub(self.shared.came.load(Relaxed)))
    }
}

fn topic() -> String {
    format!("dev/{LIVE_PRODUCT}/{LIVE}/up/now")
}

impl Shared {
    fn micros(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// All that comes, until nobody sends any more and all of it is here.
    fn read(&self, mut client: Client) -> anyhow::Result<()> {
        let mut over = None;
        loop {
            match client.next()? {
                Some(Came::Message { payload, .. }) => {
                    let sent = u64::from_be_bytes(payload.as_slice().try_into()?);
                    if let Ok(mut times) = self.times.lock() {
                        times.saturating_record(self.micros().saturating_sub(sent));
                    }
                    self.came.fetch_add(1, Relaxed);
                }
                Some(_) => {}
                None if self.over.load(Relaxed) => {
                    let since = *over.get_or_insert_with(Instant::now);
                    if self.came.load(Relaxed) >= self.sent.load(Relaxed) || since.elapsed() > LAST {
                        return Ok(());
                    }
                }
                None => {}
            }
        }
    }

    fn publish(&self, mut client: Client, rate: u32) -> anyhow::Result<()> {
        let (apart, topic) = (Duration::from_secs(1) / rate, topic());
        let mut due = Instant::now();
        while !self.over.load(Relaxed) {
            client.publish(&topic, &self.micros().to_be_bytes(), QoS::AtMostOnce, 0)?;
            self.sent.fetch_add(1, Relaxed);
            due += apart;
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        Ok(())
    }
}
