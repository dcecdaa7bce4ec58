//! The section `[callout]`.

use std::path::PathBuf;
use std::time::Duration;

use axum::http::{HeaderName, Uri};
use turnpike_authz::callout::{BreakerTerms, Settings};

use super::read::Section;
use crate::callout::{Caller, CalloutSettings, SetupError};

/// The call-out, if there is a URL.
pub(super) fn read(section: &mut Section<'_>) -> Option<CalloutSettings> {
    section.required("url");
    let mut text = String::new();
    section.text("url", &mut text);
    let url = text.parse::<Uri>();
    if url.is_err() && !text.is_empty() {
        section.fault("url", "must be a URL such as \"https://auth.example/judge\"");
    }
    let mut settings = CalloutSettings {
        url: url.as_ref().cloned().unwrap_or_default(),
        ca_file: None,
        header: None,
        timeout: Duration::from_millis(2_000),
        bounds: Settings {
            calls_max: 64,
            waiting_max: 1_024,
            breaker: BreakerTerms { failures: 5, open_ms: 1_000, open_most_ms: 30_000, probe_ms: 0 },
            cache_ms: 0,
            cache_most_ms: 300_000,
            cache_entries_max: 100_000,
            strangers: false,
        },
    };
    section.optional_path("ca_file", &mut settings.ca_file);
    settings.header = header(section);
    section.millis("timeout_ms", &mut settings.timeout, 10..=10_000);
    let bounds = &mut settings.bounds;
    section.integer("calls_max", &mut bounds.calls_max, 1..=10_000);
    section.integer("waiting_max", &mut bounds.waiting_max, 0..=1_000_000);
    section.integer("breaker_failures", &mut bounds.breaker.failures, 1..=1_000_000);
    section.integer("breaker_open_ms", &mut bounds.breaker.open_ms, 1..=3_600_000);
    section.integer("breaker_open_most_ms", &mut bounds.breaker.open_most_ms, 1..=3_600_000);
    seconds(section, "cache_s", &mut bounds.cache_ms);
    seconds(section, "cache_most_s", &mut bounds.cache_most_ms);
    section.integer("cache_entries_max", &mut bounds.cache_entries_max, 0..=100_000_000);
    section.boolean("strangers", &mut bounds.strangers);
    // A probe has waited for its place and for its answer by then.
    bounds.breaker.probe_ms = u64::try_from(settings.timeout.as_millis()).unwrap_or(u64::MAX).saturating_mul(2);
    if url.is_err() {
        return None;
    }
    match Caller::check(&settings) {
        Ok(()) => {}
        Err(fault @ SetupError::Url(_)) => section.fault("url", fault.to_string()),
        Err(fault @ SetupError::NoAuthority) => section.fault("ca_file", fault.to_string()),
        Err(SetupError::File { file, reason }) => {
            let key = if settings.ca_file.as_ref() == Some(&file) { "ca_file" } else { "header_file" };
            section.fault(key, format!("{}: {reason}", file.display()));
        }
        Err(fault @ (SetupError::Tls(_) | SetupError::Thread(_))) => section.fault("", fault.to_string()),
    }
    Some(settings)
}

fn header(section: &mut Section<'_>) -> Option<(HeaderName, PathBuf)> {
    let mut file = None;
    section.optional_path("header_file", &mut file);
    let mut name = HeaderName::from_static("authorization");
    section.parsed("header", &mut name, "a header's name, such as \"authorization\"");
    file.map(|file| (name, file))
}

fn seconds(section: &mut Section<'_>, key: &str, into_ms: &mut u64) {
    let mut seconds = *into_ms / 1000;
    section.integer(key, &mut seconds, 0..=86_400);
    *into_ms = seconds * 1000;
}
