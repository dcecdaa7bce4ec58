//! The back end: a durable session that acknowledges each record and keeps the books.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use turnpike_mqtt::QoS;

use super::Fleet;
use super::broker::{LIVE, PRODUCT, service_login};
use super::client::{Came, Client};
use crate::behind;

/// With nothing coming for so long and devices done, what hasn't come won't.
const PATIENCE: Duration = Duration::from_secs(20);
const CLIENT_ID: &str = "bench-back-end";

/// What the books say.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Counted {
    pub(super) lost: u64,
    pub(super) repeated: u64,
    pub(super) reordered: u64,
    /// Came again with DUP after the broker's end, as QoS 1 allows: the back end's acknowledgement was lost with it.
    pub(super) redelivered: u64,
}

impl Counted {
    pub(super) fn is_clean(&self) -> bool {
        self.lost == 0 && self.repeated == 0 && self.reordered == 0
    }
}

pub(super) struct BackEnd {
    thread: JoinHandle<anyhow::Result<Counted>>,
}

impl BackEnd {
    pub(super) fn start(fleet: &Arc<Fleet>, total: u64) -> anyhow::Result<Self> {
        let mut client = open(fleet)?;
        client.subscribe(&format!("dev/{PRODUCT}/+/up/t"), QoS::AtLeastOnce)?;
        let fleet = Arc::clone(fleet);
        let back = fleet.plan.back();
        let thread = behind::spawn("back-end", back, move || read(&fleet, client, total))?;
        Ok(Self { thread })
    }

    pub(super) fn finish(self) -> anyhow::Result<Counted> {
        self.thread.join().map_err(|_| anyhow::anyhow!("the back end has panicked"))?
    }
}

fn open(fleet: &Fleet) -> anyhow::Result<Client> {
    let client = Client::connect(fleet.broker.address, &service_login(CLIENT_ID)?, Some(3600))?;
    client.set_patience(Duration::from_millis(200))?;
    Ok(client)
}

fn read(fleet: &Fleet, mut client: Client, total: u64) -> anyhow::Result<Counted> {
    // Of each device, the last sequence: in order and each once, the next is one more.
    let mut last: HashMap<String, u32> = HashMap::new();
    let (mut counted, mut got, mut heard) = (Counted::default(), 0, Instant::now());
    while got < total {
        match client.next() {
            Ok(Some(Came::Message { topic, payload, dup, qos1 })) => {
                heard = Instant::now();
                if let Some(id) = qos1 {
                    client.acknowledge(id);
                }
                if client.is_drained() {
                    // Whoever closes it is noticed by the next read.
                    let _ = client.flush();
                }
                let device = topic.split('/').nth(2).unwrap_or_default();
                if device == LIVE {
                    continue;
                }
                let seq = payload.as_slice().try_into().map(u32::from_be_bytes).unwrap_or_default();
                let before = match last.get_mut(device) {
                    Some(before) => before,
                    None => last.entry(device.to_owned()).or_default(),
                };
                match seq {
                    seq if seq == *before + 1 => {
                        *before = seq;
                        got += 1;
                    }
                    seq if seq <= *before && dup => counted.redelivered += 1,
                    seq if seq <= *before => counted.repeated += 1,
                    seq => {
                        counted.reordered += 1;
                        got += u64::from(seq - *before);
                        *before = seq;
                    }
                }
            }
            Ok(Some(_)) => {}
            Ok(None) => {
                let stuck = heard.elapsed() > PATIENCE && fleet.taken.load(Relaxed) >= total;
                if stuck || fleet.failed.load(Relaxed) {
                    break;
                }
            }
            Err(error) => {
                anyhow::ensure!(fleet.plan.kills > 0, error);
                client = loop {
                    match open(fleet) {
                        Ok(client) => break client,
                        Err(_) if heard.elapsed() < PATIENCE * 3 => thread::sleep(Duration::from_millis(50)),
                        Err(error) => return Err(error),
                    }
                };
            }
        }
    }
    counted.lost = total - got.min(total);
    Ok(counted)
}
