//! Live messages beside history, and how long each takes.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use turnpike_mqtt::QoS;

use super::Fleet;
use super::broker::{LIVE, PRODUCT, device_login, service_login};
use super::client::{Came, Client};

pub(super) struct Live {
    times: Arc<Mutex<Histogram<u64>>>,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Live {
    /// One device publishes at a steady rate, one reader reads; both come back after the broker was killed.
    pub(super) fn start(fleet: &Arc<Fleet>) -> anyhow::Result<Self> {
        let times = Arc::new(Mutex::new(Histogram::new_with_max(60_000_000, 3)?));
        let over = Arc::new(AtomicBool::new(false));
        let begun = Instant::now();
        let mut threads = Vec::new();
        let (fleet_of_reader, histogram, end) = (Arc::clone(fleet), Arc::clone(&times), Arc::clone(&over));
        threads.push(thread::Builder::new().name("live-reader".to_owned()).spawn(move || {
            while !end.load(Relaxed) {
                let _ = read(&fleet_of_reader, &histogram, &end, begun);
                thread::sleep(Duration::from_millis(20));
            }
        })?);
        let (fleet, end) = (Arc::clone(fleet), Arc::clone(&over));
        threads.push(thread::Builder::new().name("live-device".to_owned()).spawn(move || {
            while !end.load(Relaxed) {
                let _ = publish(&fleet, &end, begun);
                thread::sleep(Duration::from_millis(20));
            }
        })?);
        Ok(Self { times, over, threads })
    }

    /// Median and 99th percentile since the last call, microseconds.
    pub(super) fn take(&self) -> (u64, u64) {
        let Ok(mut times) = self.times.lock() else { return (0, 0) };
        let found = (times.value_at_quantile(0.5), times.value_at_quantile(0.99));
        times.reset();
        found
    }

    pub(super) fn finish(self) -> (u64, u64) {
        let found = self.take();
        self.over.store(true, Relaxed);
        for thread in self.threads {
            let _ = thread.join();
        }
        found
    }
}

fn micros(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX)
}

fn read(fleet: &Fleet, times: &Mutex<Histogram<u64>>, over: &AtomicBool, begun: Instant) -> anyhow::Result<()> {
    let mut client = Client::connect(fleet.broker.address, &service_login("bench-live-reader")?, None)?;
    client.subscribe(&format!("dev/{PRODUCT}/{LIVE}/up/now"), QoS::AtMostOnce)?;
    client.set_patience(Duration::from_millis(100))?;
    while !over.load(Relaxed) {
        if let Some(Came::Message { payload, .. }) = client.next()?
            && let Ok(sent) = payload.as_slice().try_into().map(u64::from_be_bytes)
            && let Ok(mut times) = times.lock()
        {
            times.saturating_record(micros(begun).saturating_sub(sent));
        }
    }
    Ok(())
}

fn publish(fleet: &Fleet, over: &AtomicBool, begun: Instant) -> anyhow::Result<()> {
    let login = device_login(LIVE, &format!("{PRODUCT}.{LIVE}"))?;
    let mut client = Client::connect(fleet.broker.address, &login, None)?;
    let apart = Duration::from_secs(1) / fleet.plan.live;
    let mut due = Instant::now();
    while !over.load(Relaxed) {
        client.publish(&format!("dev/{PRODUCT}/{LIVE}/up/now"), &micros(begun).to_be_bytes(), QoS::AtMostOnce, 0)?;
        due += apart;
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok(())
}
