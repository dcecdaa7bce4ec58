//! A file in blocks over MQTT, to several devices at once.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Barrier};
use std::time::Instant;

use turnpike_ota::block::{REQUEST_BYTES_MAX, opened};

use super::Ota;
use super::device::Device;
use super::memory::Watch;
use super::report::Row;
use super::stage::{Stage, content};
use crate::backfill::client::Came;
use crate::behind;

/// What all of them have.
struct Download {
    address: SocketAddr,
    file: String,
    block_bytes: usize,
    /// All have their offers before the first asks.
    begin: Barrier,
    bytes: AtomicU64,
    /// Blocks that came twice, or that were asked for again.
    again: AtomicU64,
}

pub(super) fn run(program: &Path, plan: &Ota) -> anyhow::Result<Vec<Row>> {
    let stage = Stage::start(program, plan.block_devices, false, &plan.config)?;
    let file = content((plan.file_mib as usize) << 20);
    let firmware = stage.firmware(&file)?;
    stage.campaign(firmware)?;
    let download = Arc::new(Download {
        address: stage.mqtt(),
        file,
        block_bytes: plan.block_bytes as usize,
        begin: Barrier::new(plan.block_devices as usize + 1),
        bytes: AtomicU64::new(0),
        again: AtomicU64::new(0),
    });
    let devices = (0..plan.block_devices).map(|n| {
        let download = Arc::clone(&download);
        behind::spawn("device", plan.back(), move || {
            let device = Device::come(download.address, n);
            // Whoever couldn't come mustn't keep the others waiting.
            download.begin.wait();
            take(&download, device?)
        })
    });
    let devices = devices.collect::<anyhow::Result<Vec<_>>>()?;
    download.begin.wait();
    let (watch, begun) = (Watch::start(stage.pid())?, Instant::now());
    behind::join(devices)?;
    let elapsed = begun.elapsed().as_secs_f64();
    let seen = watch.finish();
    let bytes = download.bytes.load(Relaxed);
    let missing = (u64::from(plan.block_devices) * download.file.len() as u64).saturating_sub(bytes);
    let mut rows = vec![
        Row::new("devices", f64::from(plan.block_devices)),
        Row::new("bytes of a block", f64::from(plan.block_bytes)),
        Row::new("MB, each byte compared", bytes as f64 / 1e6),
        Row::new("seconds", elapsed),
        Row::new("MB a second", bytes as f64 / 1e6 / elapsed),
        Row::new("broker's CPU of an MB, ms", seen.cpu.as_secs_f64() * 1e9 / bytes as f64),
    ];
    rows.extend(seen.rows());
    rows.push(Row::new("blocks that were asked for again", download.again.load(Relaxed) as f64));
    rows.push(Row::none("bytes that are missing", missing));
    Ok(rows)
}

/// The whole file, as much with each request as one may be for.
fn take(download: &Download, mut device: Device) -> anyhow::Result<()> {
    let (size, file) = (download.block_bytes, download.file.as_bytes());
    anyhow::ensure!(device.offer.bytes == file.len(), "another file's size");
    let blocks_max = (REQUEST_BYTES_MAX as usize / size).max(1);
    let mut here = vec![false; file.len().div_ceil(size)];
    let mut first = 0;
    while first < here.len() {
        let last = here.len().min(first + blocks_max);
        device.ask(size, first * size, last - first)?;
        let (mut wanted, mut acknowledged) = (here[first..last].iter().filter(|here| !**here).count(), false);
        while wanted > 0 || !acknowledged {
            match device.client.next()? {
                Some(Came::Message { topic, payload, qos1, .. }) if topic.ends_with("/block") => {
                    anyhow::ensure!(qos1.is_none(), "a block with an acknowledgement");
                    let number = compare(&payload, device.offer.number, file, size)?;
                    if std::mem::replace(&mut here[number], true) {
                        download.again.fetch_add(1, Relaxed);
                    } else {
                        wanted -= 1;
                        download.bytes.fetch_add(payload.len() as u64 - 16, Relaxed);
                    }
                }
                Some(Came::Message { qos1: Some(id), .. }) => device.client.acknowledge(id),
                Some(Came::Acknowledged) => acknowledged = true,
                Some(Came::Message { .. } | Came::Other) => {}
                None if acknowledged => {
                    download.again.fetch_add(wanted as u64, Relaxed);
                    break;
                }
                None => anyhow::bail!("a request isn't answered"),
            }
        }
        while here.get(first) == Some(&true) {
            first += 1;
        }
    }
    Ok(())
}

/// A block that is what the file is there; its number.
fn compare(payload: &[u8], offer: u32, file: &[u8], size: usize) -> anyhow::Result<usize> {
    let Some((of, offset, bytes)) = opened(payload) else { anyhow::bail!("a block isn't whole") };
    let offset = offset as usize;
    let expected = file.get(offset..file.len().min(offset + size));
    anyhow::ensure!(of == offer && offset.is_multiple_of(size), "a block of something else");
    anyhow::ensure!(expected == Some(bytes), "a block of other bytes than the file's");
    Ok(offset / size)
}

#[cfg(test)]
mod tests {
    use turnpike_ota::block::frame;

    use super::*;

    #[test]
    fn a_block_is_compared() {
        let file = content(1000);
        let file = file.as_bytes();
        assert_eq!(compare(&frame(7, 768, &file[768..]), 7, file, 256).expect("the last"), 3);
        assert_eq!(compare(&frame(7, 256, &file[256..512]), 7, file, 256).expect("one"), 1);
        for wrong in [frame(8, 256, &file[256..512]), frame(7, 256, &file[..256]), frame(7, 256, &file[256..511])] {
            assert!(compare(&wrong, 7, file, 256).is_err());
        }
        assert!(compare(&frame(7, 100, &file[100..356]), 7, file, 256).is_err());
        assert!(compare(b"bytes", 7, file, 256).is_err());
    }
}
