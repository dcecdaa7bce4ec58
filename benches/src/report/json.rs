//! A report as JSON. Times in microseconds or seconds, as the names say; no secret is in it.

use serde_json::{Map, Value, json};

use super::{QUANTILES, text};
use crate::conduct::{Report, Usage};
use crate::outcome::{Counts, Latency};
use crate::spec::Pace;

/// The whole report.
#[must_use]
pub fn render(report: &Report) -> Value {
    let (spec, outcome) = (&report.spec, &report.outcome);
    let (window, rate) = match spec.pace {
        Pace::Window(window) => (Some(window), None),
        Pace::Rate(rate) => (None, Some(rate)),
    };
    let cpu_us = Some(text::cpu_us(report)).filter(|cpu| cpu.is_finite());
    json!({
        "run": {
            "scenario": spec.scenario,
            "description": text::describe(spec),
            "address": spec.address,
            "publishers": spec.publishers,
            "subscribers": spec.subscribers,
            "qos": spec.qos as u8,
            "mqtt_level": spec.version as u8,
            "tls": spec.tls.is_some(),
            "websocket": spec.websocket.is_some(),
            "payload_bytes": spec.payload,
            "window": window,
            "rate_per_s": rate,
            "durable": spec.durable,
            "offline": spec.offline,
            "processes": spec.processes,
            "identity": spec.identity.describe(),
            "machine": crate::cpu::machine(),
        },
        "connecting": {
            "connected": outcome.connecting.count(),
            "usage": usage(&report.connecting),
            "per_s": report.connecting.rate(outcome.connecting.count()),
            "cpu_us_each": report.connecting.cpu_us_per(outcome.connecting.count()),
            "latency_us": latency(&outcome.connecting),
        },
        "memory": report.broker_bytes.map(|(before, after)| json!({
            "before_bytes": before,
            "after_bytes": after,
            "bytes_per_connection": text::bytes_per_connection(report),
        })),
        "measured": {
            "usage": usage(&report.measured),
            "counts": counts(outcome.measured),
            "delivered_per_s": report.measured.rate(outcome.measured.delivered),
            "acked_per_s": report.measured.rate(outcome.measured.acked),
            "cpu_us_per_delivery": cpu_us,
            "own_cpu_us_per_delivery": outcome.own_cpu_ns as f64 / 1000.0 / text::deliveries(report).max(1) as f64,
            "latency_us": latency(&outcome.latency),
        },
        "retained": report.retained.map(|(stored, fetched)| json!({
            "stored": usage(&stored),
            "stored_per_s": stored.rate(outcome.total.published),
            "fetched": usage(&fetched),
            "fetched_per_s": fetched.rate(outcome.total.delivered),
        })),
        "total": counts(outcome.total),
        "faults": {
            "lost": outcome.lost(spec.copies()),
            "repeated": outcome.repeated,
            "out_of_order": outcome.reordered,
            "unsent": outcome.unsent,
            "stalled_windows": outcome.stalls,
            "failures": outcome.failures,
        },
        "samples": report.samples.iter().map(|sample| json!({
            "at_s": sample.at_s,
            "counts": counts(sample.counts),
            "broker_cpu_s": sample.cpu.map(|cpu| cpu.as_secs_f64()),
            "broker_resident_bytes": sample.resident_bytes,
        })).collect::<Vec<_>>(),
    })
}

fn usage(usage: &Usage) -> Value {
    json!({ "elapsed_s": usage.elapsed.as_secs_f64(), "cpu_s": usage.cpu.map(|cpu| cpu.as_secs_f64()) })
}

fn counts(counts: Counts) -> Value {
    json!({ "published": counts.published, "acked": counts.acked, "delivered": counts.delivered, "ready": counts.ready })
}

fn latency(latency: &Latency) -> Value {
    let mut map = Map::new();
    map.insert("count".to_owned(), latency.count().into());
    if latency.count() > 0 {
        map.insert("mean".to_owned(), latency.mean_us().into());
        for (name, quantile) in QUANTILES {
            map.insert(name.to_owned(), latency.quantile_us(quantile).into());
        }
    }
    Value::Object(map)
}
