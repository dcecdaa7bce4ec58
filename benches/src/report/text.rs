//! A report as text.

use std::fmt::Write;

use super::QUANTILES;
use crate::conduct::{Report, Usage};
use crate::outcome::Latency;
use crate::spec::{Pace, Scenario, Spec};

/// What was run, in one line.
#[must_use]
pub fn describe(spec: &Spec) -> String {
    let scenario = format!("{:?}", spec.scenario).to_lowercase();
    let clients = match spec.scenario {
        Scenario::Connect | Scenario::Idle => format!("{} connections", spec.publishers),
        Scenario::Pair => format!("{} pairs", spec.publishers),
        Scenario::Mixed => format!("{} devices, {} back ends", spec.publishers, spec.subscribers),
        Scenario::Slow => format!("{} publishers, a reader, {} that don't read", spec.publishers, spec.subscribers),
        Scenario::Retained => {
            format!("{} × {} messages to {} subscribers", spec.publishers, spec.messages, spec.subscribers)
        }
        _ => format!("{} → {}", spec.publishers, spec.subscribers),
    };
    let transport = match (&spec.tls, &spec.websocket) {
        (None, None) => "TCP",
        (Some(_), None) => "TLS",
        (None, Some(_)) => "WebSocket",
        (Some(_), Some(_)) => "WebSocket over TLS",
    };
    let version = match spec.version as u8 {
        3 => "3.1",
        4 => "3.1.1",
        _ => "5",
    };
    let mut text = format!("{scenario}: {clients}, MQTT {version} over {transport}, {}", spec.identity.describe());
    if spec.is_loaded() {
        let pace = match spec.pace {
            Pace::Window(window) => format!("window {window}"),
            Pace::Rate(rate) => format!("{rate:.0}/s"),
        };
        let _ = write!(text, ", QoS {}, {} bytes, {pace}", spec.qos as u8, spec.payload);
    }
    if spec.durable {
        text.push_str(if spec.offline { ", durable sessions, offline" } else { ", durable sessions" });
    }
    if spec.processes > 1 {
        let _ = write!(text, ", {} processes", spec.processes);
    }
    text
}

/// The whole report.
#[must_use]
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    let outcome = &report.outcome;
    let mut line = |name: &str, value: &str| _ = writeln!(text, "{name:<14}{value}");
    line("run", &describe(&report.spec));
    connections(report, &mut line);
    if let Some((stored, fetched)) = &report.retained {
        let total = outcome.total;
        line("stored", &speed(stored, total.published));
        line("fetched", &speed(fetched, total.delivered));
    } else if report.spec.is_loaded() {
        let measured = outcome.measured;
        line("published", &speed(&report.measured, measured.published));
        if report.spec.qos as u8 > 0 {
            line("acknowledged", &speed(&report.measured, measured.acked));
        }
        line("delivered", &speed(&report.measured, measured.delivered));
    }
    if report.spec.is_loaded() {
        let lost = outcome.lost(report.spec.copies());
        let mut faults = format!("{lost} lost, {} repeated, {} out of order", outcome.repeated, outcome.reordered);
        if outcome.unsent > 0 {
            let _ = write!(faults, ", {} due and not sent", outcome.unsent);
        }
        if outcome.stalls > 0 {
            let _ = write!(faults, ", {} windows stood still", outcome.stalls);
        }
        line("faults", &faults);
        if let Some(cores) = report.measured.cores() {
            line("broker CPU", &format!("{:.3} µs a delivery, {:.0} % of a core", cpu_us(report), cores * 100.0));
        }
        let own_us = outcome.own_cpu_ns as f64 / 1000.0 / deliveries(report).max(1) as f64;
        if outcome.own_cpu_ns > 0 {
            line("own CPU", &format!("{own_us:.3} µs a delivery"));
        }
        line("latency", &latency(&outcome.latency));
    }
    for (reason, count) in &outcome.failures {
        line("failed", &format!("{count} × {reason}"));
    }
    text
}

fn connections(report: &Report, line: &mut impl FnMut(&str, &str)) {
    let connected = report.outcome.connecting.count();
    let mut text = speed(&report.connecting, connected);
    if let Some(cpu) = report.connecting.cpu_us_per(connected) {
        text.push_str(&format!(", broker CPU {cpu:.1} µs each"));
    }
    line("connected", &text);
    if report.spec.scenario == Scenario::Connect || report.spec.scenario == Scenario::Idle {
        line("to CONNACK", &latency(&report.outcome.connecting));
    }
    if let Some(bytes) = bytes_per_connection(report) {
        line("memory", &format!("{bytes:.0} bytes a connection"));
    } else if let Some((before, after)) = report.broker_bytes {
        line("memory", &format!("{:.1} MB before, {:.1} MB after", before as f64 / 1e6, after as f64 / 1e6));
    }
    if report.spec.scenario == Scenario::Idle
        && let Some(cores) = report.measured.cores()
    {
        line("idle CPU", &format!("{:.2} % of a core", cores * 100.0));
    }
}

/// Private memory that the broker has more, for each connection, where connections are all that it has more.
#[must_use]
pub fn bytes_per_connection(report: &Report) -> Option<f64> {
    let only_connects = matches!(report.spec.scenario, Scenario::Connect | Scenario::Idle);
    let (before, after) = report.broker_bytes.filter(|_| only_connects && !report.spec.connecting.close)?;
    Some((after as f64 - before as f64) / report.outcome.connecting.count().max(1) as f64)
}

/// What the broker's CPU is divided by: deliveries, or acknowledged messages where nobody receives.
#[must_use]
pub fn deliveries(report: &Report) -> u64 {
    let counts = if report.retained.is_some() { report.outcome.total } else { report.outcome.measured };
    if report.spec.copies() == 0 { counts.acked.max(counts.published) } else { counts.delivered }
}

/// The broker's CPU for a delivery, in microseconds; NaN if its process isn't known or nothing came.
#[must_use]
pub fn cpu_us(report: &Report) -> f64 {
    report.measured.cpu_us_per(deliveries(report)).unwrap_or(f64::NAN)
}

fn speed(usage: &Usage, n: u64) -> String {
    format!("{n} in {:.2} s ({:.0}/s)", usage.elapsed.as_secs_f64(), usage.rate(n))
}

fn latency(latency: &Latency) -> String {
    if latency.count() == 0 {
        return "–".to_owned();
    }
    let parts: Vec<String> =
        QUANTILES.iter().map(|(name, quantile)| format!("{name} {}", time(latency.quantile_us(*quantile)))).collect();
    parts.join("  ")
}

/// A time in microseconds, in the unit that suits it.
pub(super) fn time(us: f64) -> String {
    match us {
        _ if us < 1000.0 => format!("{us:.0} µs"),
        _ if us < 10_000.0 => format!("{:.2} ms", us / 1e3),
        _ if us < 1_000_000.0 => format!("{:.0} ms", us / 1e3),
        _ => format!("{:.2} s", us / 1e6),
    }
}
