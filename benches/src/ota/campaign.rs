//! A campaign from its creation to its end: devices come, take their firmware, and come back, beside one that publishes live messages.

mod fetchers;
mod fleet;
mod visit;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value;

use self::fleet::Fleet;
use self::visit::Terms;
use super::Ota;
use super::live::{Live, Times};
use super::memory::Watch;
use super::report::Row;
use super::stage::{Stage, content, device};
use crate::behind;
use crate::cpu;

/// Descriptors of this process, and of the broker, that devices don't get.
const KEPT_BACK: u64 = 1000;
/// From the last device's end to the campaign's.
const END_TIME_MAX: Duration = Duration::from_secs(30);

pub(super) fn run(program: &Path, plan: &Ota) -> anyhow::Result<Vec<Row>> {
    let stage = Stage::start(program, plan.devices, false, &plan.config)?;
    let terms = Arc::new(Terms {
        way: plan.way,
        file: content(plan.firmware_bytes as usize),
        block_bytes: plan.block_bytes as usize,
        failing: plan.failing,
    });
    let firmware = stage.firmware(&terms.file)?;
    let live = Live::start(stage.mqtt(), plan.live)?;
    let calm = Duration::from_secs(plan.calm_s);
    // Caches, and what is set up with the first messages.
    std::thread::sleep(calm / 5);
    live.take();
    std::thread::sleep(calm);
    let before = live.take();

    let (watch, begun) = (Watch::start(stage.pid())?, Instant::now());
    let campaign = stage.campaign(firmware)?;
    let created = begun.elapsed();
    let fleet = Fleet::new(stage.mqtt(), stage.ota, Arc::clone(&terms), plan)?;
    let (devices, rate, connections) = (plan.devices, plan.rate, connections(plan.connections));
    let playing = behind::spawn("fleet", plan.back(), move || fleet.play(devices, connections, rate))?;
    let played = behind::join(vec![playing])?.pop().context("one fleet")?;
    let is_whole = played.broken == 0;
    if let Some(fault) = &played.first_fault {
        eprintln!("{fault}");
    }
    let completed = is_whole && is_completed(&stage, campaign)?;
    let elapsed = begun.elapsed();
    let meanwhile = live.take();
    let seen = watch.finish();
    std::thread::sleep(calm);
    let after = live.take();
    let lost = live.finish()?;
    let (succeeded, failed, otherwise) = look(&stage, campaign, &terms, plan.devices)?;

    let each = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(devices);
    let mut rows = vec![
        Row::new("devices", f64::from(devices)),
        Row::new("bytes of the firmware", terms.file.len() as f64),
        Row::new("connections at once, at most", played.connected as f64),
        Row::new("seconds until the campaign was created", created.as_secs_f64()),
        Row::new("seconds until it was over", elapsed.as_secs_f64()),
        Row::new("devices a second", f64::from(devices) / elapsed.as_secs_f64()),
        Row::new("broker's CPU of a device, us", each(seen.cpu)),
        Row::new("broker's CPU, cores", seen.cpu.as_secs_f64() / elapsed.as_secs_f64()),
    ];
    rows.extend(seen.rows());
    rows.extend([Row::new("succeeded", succeeded as f64), Row::new("failed, as they were to", failed as f64)]);
    rows.push(Row::new("offers, unasked, to devices that had the version", f64::from(played.late)));
    rows.extend(live_rows(before, meanwhile, after));
    rows.extend([
        Row::none("live messages lost", lost),
        Row::none("devices in another state than they should be", otherwise),
        Row::none("devices whose connection broke", played.broken.into()),
        Row::none("campaigns that aren't completed", u64::from(!completed)),
    ]);
    Ok(rows)
}

fn live_rows(before: Times, meanwhile: Times, after: Times) -> [Row; 9] {
    let us = |name, value: u64| Row::new(name, value as f64);
    [
        us("live p50 before, us", before.p50),
        us("live p50 meanwhile, us", meanwhile.p50),
        us("live p50 after, us", after.p50),
        us("live p99 before, us", before.p99),
        us("live p99 meanwhile, us", meanwhile.p99),
        us("live p99 after, us", after.p99),
        us("live at most before, us", before.max),
        us("live at most meanwhile, us", meanwhile.max),
        us("live at most after, us", after.max),
    ]
}

/// As many as were asked for, and as descriptors allow.
fn connections(asked: u32) -> usize {
    let most = cpu::descriptor_limit().saturating_sub(KEPT_BACK).max(1);
    let wanted = if asked == 0 { most } else { u64::from(asked).min(most) };
    usize::try_from(wanted).unwrap_or(usize::MAX)
}

fn is_completed(stage: &Stage, campaign: u64) -> anyhow::Result<bool> {
    let (mut http, deadline) = (stage.http()?, Instant::now() + END_TIME_MAX);
    while Instant::now() < deadline {
        let shown: Value = serde_json::from_str(&http.ask("GET", &format!("/api/v1/campaigns/{campaign}"), "")?)?;
        if shown["state"] == "completed" {
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(false)
}

/// How each device stands: those that have succeeded and failed as they were to, and all others.
fn look(stage: &Stage, campaign: u64, terms: &Terms, devices: u32) -> anyhow::Result<(u64, u64, u64)> {
    let mut http = stage.http()?;
    let mut right = vec![false; devices as usize];
    let (mut succeeded, mut failed, mut after) = (0, 0, 0);
    loop {
        let path = format!("/api/v1/campaigns/{campaign}/devices?limit=1000&after={after}");
        let page: Value = serde_json::from_str(&http.ask("GET", &path, "")?)?;
        for shown in page["devices"].as_array().context("no list of devices")? {
            let name = shown["device"].as_str().unwrap_or_default();
            let number = name.strip_prefix('d').and_then(|number| number.parse::<u32>().ok());
            let Some(n) = number.filter(|n| *n < devices && device(*n) == name) else { continue };
            let fails = terms.fails(n);
            if shown["state"] == if fails { "failed" } else { "succeeded" }
                && !std::mem::replace(&mut right[n as usize], true)
            {
                *if fails { &mut failed } else { &mut succeeded } += 1;
            }
        }
        match page["next"].as_u64() {
            Some(next) => after = next,
            None => break,
        }
    }
    Ok((succeeded, failed, right.iter().filter(|right| !**right).count() as u64))
}
