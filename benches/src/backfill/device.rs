//! A device: batch after batch, each kept until it is acknowledged.

use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, SystemTime};

use minicbor::Encoder;
use serde_json::Value;
use turnpike_mqtt::QoS;

use super::Fleet;
use super::broker::{PRODUCT, device, device_login};
use super::client::{Came, Client};

/// Before a connection is tried again that the broker's end has cost.
const AGAIN: Duration = Duration::from_millis(50);

/// Plays one device after another until there is none left.
pub(super) fn play(fleet: &Fleet) -> anyhow::Result<()> {
    loop {
        let Ok(n) = u32::try_from(fleet.next.fetch_add(1, Relaxed)) else { return Ok(()) };
        if n >= fleet.plan.devices || fleet.failed.load(Relaxed) {
            return Ok(());
        }
        hand_in_all(fleet, n)?;
    }
}

fn hand_in_all(fleet: &Fleet, n: u32) -> anyhow::Result<()> {
    let (plan, name) = (&fleet.plan, device(n));
    let topic = format!("dev/{PRODUCT}/{name}/backfill");
    let mut connection = None;
    let (mut first, mut number) = (1, n);
    while first <= plan.records {
        let last = (first + plan.batch - 1).min(plan.records);
        let batch = encode(first, last)?;
        number += 1;
        let times = if plan.twice > 0 && number % plan.twice == 0 { 2 } else { 1 };
        for _ in 0..times {
            loop {
                anyhow::ensure!(!fleet.failed.load(Relaxed), "another device has failed");
                let sent = attempt(fleet, &mut connection, &name, &topic, &batch);
                match sent {
                    Ok(Said::Taken(taken)) => {
                        fleet.taken.fetch_add(taken, Relaxed);
                        break;
                    }
                    Ok(Said::Later(pause)) => {
                        fleet.paced.fetch_add(1, Relaxed);
                        thread::sleep(pause);
                    }
                    // The broker was killed: the ack, and maybe the batch, is lost.
                    Err(_) if plan.kills > 0 => {
                        connection = None;
                        thread::sleep(AGAIN);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        first = last + 1;
    }
    Ok(())
}

enum Said {
    /// So many were new.
    Taken(u64),
    Later(Duration),
}

fn attempt(
    fleet: &Fleet,
    connection: &mut Option<Client>,
    name: &str,
    topic: &str,
    batch: &[u8],
) -> anyhow::Result<Said> {
    let client = match connection {
        Some(client) => client,
        None => {
            let login = device_login(name, &format!("{PRODUCT}.{name}"))?;
            let mut client = Client::connect(fleet.broker.address, &login, None)?;
            client.subscribe(&format!("{topic}/+"), QoS::AtLeastOnce)?;
            connection.insert(client)
        }
    };
    client.publish(topic, batch, QoS::AtLeastOnce, 1)?;
    let (mut said, mut acknowledged) = (None, false);
    while said.is_none() || !acknowledged {
        match client.next()? {
            Some(Came::Message { topic, payload, qos1, .. }) => {
                if let Some(id) = qos1 {
                    client.acknowledge(id);
                    client.flush()?;
                }
                said = Some(read(&topic, &payload)?);
            }
            Some(Came::Acknowledged) => acknowledged = true,
            Some(Came::Other) => {}
            None => anyhow::bail!("no answer"),
        }
    }
    said.ok_or_else(|| anyhow::anyhow!("no answer"))
}

fn read(topic: &str, payload: &[u8]) -> anyhow::Result<Said> {
    // Answers are in the encoding of the batch: CBOR, of which the two fields are looked for that count here.
    let mut decoder = minicbor::Decoder::new(payload);
    let fields = decoder.map()?.unwrap_or_default();
    let mut found = Value::Null;
    for _ in 0..fields {
        let key = decoder.str()?.to_owned();
        match key.as_str() {
            "taken" | "after_ms" => found = decoder.u64()?.into(),
            "error" => anyhow::bail!("the batch was refused"),
            _ => decoder.skip()?,
        }
    }
    let number = found.as_u64().unwrap_or_default();
    Ok(if topic.ends_with("/ack") { Said::Taken(number) } else { Said::Later(Duration::from_millis(number.max(1))) })
}

/// Records as arrays, the shortest form.
fn encode(first: u32, last: u32) -> anyhow::Result<Vec<u8>> {
    let now_ms = u64::try_from(SystemTime::UNIX_EPOCH.elapsed()?.as_millis())?;
    let mut out = Encoder::new(Vec::new());
    out.array(u64::from(last - first + 1))?;
    for seq in first..=last {
        out.array(5)?.u32(1)?.u32(seq)?.u64(now_ms)?.str("up/t")?.bytes(&seq.to_be_bytes())?;
    }
    Ok(out.into_writer())
}
