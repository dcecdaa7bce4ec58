//! Rate limits, in tables within `[limits]`, and the section `[guard]`.

use turnpike_authz::guard::{self, Terms, Threshold};
use turnpike_authz::quota::{self, RequestLimits, Windows, parse_rate};
use turnpike_core::meter::{FlowRate, Rate};

use super::read::Section;

/// What one platform may ask: at this pace it fills three fifths of the room for nonces, so that others are heard beside it.
const PLATFORM_REQUESTS: &str = "1000/1s, 30000/60s";

/// Rates without a configuration.
pub(super) fn default_rates() -> quota::Settings {
    let platform = PLATFORM_REQUESTS.parse().expect("windows, as a test says");
    quota::Settings { requests: RequestLimits { platform, ..RequestLimits::default() }, ..quota::Settings::default() }
}

/// The tables of rates within `[limits]`.
pub(super) fn rates(limits: &mut Section<'_>, rates: &mut quota::Settings) {
    limits.section("device", |section| flow(section, &mut rates.each_device));
    limits.section("product", |section| flow(section, &mut rates.product));
    limits.section("user", |section| flow(section, &mut rates.each_user));
    limits.section("app", |section| flow(section, &mut rates.app));
    limits.section("platform", |section| windows(section, "requests", &mut rates.requests.platform));
    limits.section("excess", |section| {
        section.boolean("refuse_acked", &mut rates.excess.refuse_acked);
        section.boolean("drop_unacked", &mut rates.excess.drop_unacked);
    });
    limits.section("address", |section| {
        let mut most = rates.origin.connections_max.unwrap_or(0);
        section.integer("connections_max", &mut most, 0..=10_000_000);
        rates.origin.connections_max = (most > 0).then_some(most);
        rate(section, "connects", &mut rates.origin.attempts);
        windows(section, "requests", &mut rates.requests.address);
        section.networks("exempt", &mut rates.exempt);
    });
}

pub(super) fn flow(section: &mut Section<'_>, flow: &mut FlowRate) {
    rate(section, "messages", &mut flow.messages);
    rate(section, "bytes", &mut flow.bytes);
}

fn rate(section: &mut Section<'_>, key: &str, into: &mut Rate) {
    section.read(key, into, |text| parse_rate(text).map_err(|error| error.to_string()));
}

fn windows(section: &mut Section<'_>, key: &str, into: &mut Windows) {
    section.read(key, into, |text| text.parse::<Windows>().map_err(|error| error.to_string()));
}

/// The section `[guard]`.
pub(super) fn guard(section: &mut Section<'_>, guard: &mut guard::Settings) {
    let mut enabled = true;
    section.boolean("enabled", &mut enabled);
    threshold(section, "address_failures", &mut guard.origin_failures);
    terms(section, "ban", &mut guard.origin_bans);
    section.integer("free_failures", &mut guard.free_failures, 0..=1_000_000);
    if let Some(back_off) = &mut guard.back_off {
        terms(section, "back_off", back_off);
    }
    threshold(section, "identity_failures", &mut guard.identity_failures);
    threshold(section, "product_failures", &mut guard.product_failures);
    threshold(section, "flapping", &mut guard.flapping);
    terms(section, "flapping_ban", &mut guard.flapping_bans);
    threshold(section, "clones", &mut guard.clones);
    section.boolean("clones_at_once", &mut guard.clones_at_once);
    section.boolean("refuse_clones", &mut guard.refuse_clones);
    whole_seconds(section, "refuse_clones_s", &mut guard.refuse_clones_ms);
    section.networks("exempt", &mut guard.exempt);
    section.boolean("loopback", &mut guard.loopback);
    if !enabled {
        guard.switch_off();
    }
}

fn threshold(section: &mut Section<'_>, key: &str, into: &mut Option<Threshold>) {
    section.read(key, into, |text| match text {
        "off" => Ok(None),
        text => text.parse().map(Some).map_err(|error: guard::NotThreshold| error.to_string()),
    });
}

/// `{key}_first_s` and `{key}_most_s`.
fn terms(section: &mut Section<'_>, key: &str, terms: &mut Terms) {
    whole_seconds(section, &format!("{key}_first_s"), &mut terms.first_ms);
    whole_seconds(section, &format!("{key}_most_s"), &mut terms.most_ms);
}

fn whole_seconds(section: &mut Section<'_>, key: &str, into_ms: &mut u64) {
    let mut seconds = *into_ms / 1000;
    section.integer(key, &mut seconds, 1..=86_400 * 365);
    *into_ms = seconds * 1000;
}
