//! Reports as one page that needs nothing else: figures, plots, and the text for those who read that.

use std::fmt::Write;

use super::svg::{self, Line, Plot};
use super::{QUANTILES, text};
use crate::conduct::{Report, Sample};
use crate::outcome::Latency;

const STYLE: &str = include_str!("style.css");

/// The whole page.
#[must_use]
pub fn render(reports: &[Report]) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>turnpike-bench</title>\n<style>\n{STYLE}</style>\n<h1>turnpike-bench</h1>\n<p class=\"machine\">{}</p>\n",
        escape(&crate::cpu::machine())
    );
    reports.iter().for_each(|report| section(report, &mut page));
    page.push_str("</html>\n");
    page
}

fn section(report: &Report, page: &mut String) {
    let _ = writeln!(page, "<section>\n<h2>{}</h2>", escape(&text::describe(&report.spec)));
    page.push_str("<div class=\"figures\">\n");
    for (name, value, unit) in figures(report) {
        let _ = writeln!(page, "<div><b>{value}</b> <i>{unit}</i><span>{name}</span></div>");
    }
    page.push_str("</div>\n");
    let latencies = [("delivery", &report.outcome.latency), ("to CONNACK", &report.outcome.connecting)];
    page.push_str(&quantile_table(&latencies));
    page.push_str("<div class=\"plots\">\n");
    for plot in plots(report, &latencies).into_iter().flatten() {
        let _ = writeln!(page, "<figure>{plot}</figure>");
    }
    page.push_str("</div>\n");
    let _ = writeln!(page, "<details><summary>As text</summary><pre>{}</pre></details>", escape(&text::render(report)));
    page.push_str("</section>\n");
}

/// Name, value, unit.
fn figures(report: &Report) -> Vec<(&'static str, String, &'static str)> {
    let outcome = &report.outcome;
    let mut found = vec![("connections", outcome.connecting.count().to_string(), "")];
    if report.spec.is_loaded() && report.retained.is_none() {
        let rate = |n| format!("{:.0}", report.measured.rate(n));
        found.push(("published", rate(outcome.measured.published), "/s"));
        found.push(("delivered", rate(outcome.measured.delivered), "/s"));
    }
    if let Some((stored, fetched)) = &report.retained {
        found.push(("stored", format!("{:.0}", stored.rate(outcome.total.published)), "/s"));
        found.push(("fetched", format!("{:.0}", fetched.rate(outcome.total.delivered)), "/s"));
    }
    if report.spec.is_loaded() {
        let faults = outcome.lost(report.spec.copies()) + outcome.repeated + outcome.reordered;
        found.push(("lost, repeated, out of order", faults.to_string(), ""));
        let cpu = text::cpu_us(report);
        if cpu.is_finite() {
            found.push(("broker CPU a delivery", format!("{cpu:.2}"), "µs"));
        }
    } else if let Some(cpu) = report.connecting.cpu_us_per(outcome.connecting.count()) {
        found.push(("broker CPU to accept one", format!("{cpu:.1}"), "µs"));
    }
    if let Some(bytes) = text::bytes_per_connection(report) {
        found.push(("broker memory a connection", format!("{bytes:.0}"), "bytes"));
    }
    let failures: u64 = outcome.failures.values().sum();
    if failures > 0 {
        found.push(("failed connections", failures.to_string(), ""));
    }
    found
}

fn quantile_table(latencies: &[(&str, &Latency)]) -> String {
    let mut table = "<table><tr><th>latency</th>".to_owned();
    QUANTILES.iter().for_each(|(name, _)| _ = write!(table, "<th>{name}</th>"));
    table.push_str("</tr>\n");
    for (name, latency) in latencies.iter().filter(|(_, latency)| latency.count() > 0) {
        let _ = write!(table, "<tr><td>{name}</td>");
        for (_, quantile) in QUANTILES {
            let _ = write!(table, "<td>{}</td>", text::time(latency.quantile_us(quantile)));
        }
        table.push_str("</tr>\n");
    }
    table + "</table>\n"
}

fn plots(report: &Report, latencies: &[(&str, &Latency)]) -> [Option<String>; 4] {
    let samples = &report.samples;
    let speed = |name: &str, count: fn(&Sample) -> u64| Line { name: name.to_owned(), points: rates(samples, count) };
    let mut lines = vec![speed("connected", |sample| sample.counts.ready)];
    if report.spec.is_loaded() {
        lines = vec![
            speed("published", |sample| sample.counts.published),
            speed("delivered", |sample| sample.counts.delivered),
        ];
        if report.spec.qos as u8 > 0 {
            lines.push(speed("acknowledged", |sample| sample.counts.acked));
        }
    }
    let cores = rates(samples, |sample| sample.cpu.map_or(0, |cpu| u64::try_from(cpu.as_nanos()).unwrap_or(0)));
    let cores = cores.into_iter().map(|(x, per_s)| (x, per_s / 1e9)).collect();
    let memory = |sample: &Sample| Some((sample.at_s, sample.resident_bytes? as f64 / 1e6));
    let one = |points| vec![Line { name: String::new(), points }];
    let quantiles =
        latencies.iter().filter(|(_, latency)| latency.count() > 0).map(|(name, latency)| stretched(name, latency));
    [
        svg::over_time(&Plot { title: "Rate", x: "seconds", y: "a second", lines }),
        svg::quantiles(&Plot { title: "Latency", x: "quantile", y: "", lines: quantiles.collect() }),
        svg::over_time(&Plot { title: "CPU of the broker", x: "seconds", y: "cores", lines: one(cores) }),
        svg::over_time(&Plot {
            title: "Resident memory of the broker",
            x: "seconds",
            y: "MB",
            lines: one(samples.iter().filter_map(memory).collect()),
        }),
    ]
}

/// Differences between samples, a second.
fn rates(samples: &[Sample], count: impl Fn(&Sample) -> u64) -> Vec<(f64, f64)> {
    let rate = |pair: &[Sample]| {
        let [before, after] = pair else { return None };
        let span_s = after.at_s - before.at_s;
        (span_s > 0.0).then(|| (after.at_s, count(after).saturating_sub(count(before)) as f64 / span_s))
    };
    samples.windows(2).filter_map(rate).collect()
}

/// Up to the last quantile that more than one latency is above of.
fn stretched(name: &str, latency: &Latency) -> Line {
    let end = (latency.count() as f64).log10().clamp(0.5, 6.0);
    let steps = 120;
    let point = |step: u32| {
        let nines = end * f64::from(step) / f64::from(steps);
        (nines, latency.quantile_us(1.0 - 10_f64.powf(-nines)))
    };
    Line { name: name.to_owned(), points: (0..=steps).map(point).collect() }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
