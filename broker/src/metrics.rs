//! Prometheus metrics, made from the figures of the shards, the committer and the gate when they are asked for.
//!
//! Labels are bounded: shards, QoS, directions, reasons. Never a client id, a topic or a device.

use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};
use turnpike_authz::Gatekeeper;
use turnpike_authz::callout::Counts;
use turnpike_authz::guarded::Guarded;
use turnpike_authz::people::People;
use turnpike_core::counters::{Dropped, Flow};
use turnpike_store::stats::{CommitStats, LATENCY_BOUNDS_US};

use crate::audit::AuditStatus;
use crate::commands::CommandDesk;
use crate::desk::ByCode;
use crate::desks::Desks;
use crate::ota::OtaDesk;
use crate::registrar::Registrar;
use crate::server::Totals;
use crate::shard::ShardStats;

/// A figure of a shard.
type Figure = fn(&ShardStats) -> u64;

/// Labels of one sample.
type Labels<'a> = &'a [(&'a str, &'a str)];

/// The families of one answer.
#[derive(Default)]
struct Families(Vec<MetricFamily>);

impl Families {
    fn family(&mut self, name: &str, help: &str, kind: MetricType, samples: Vec<Metric>) {
        if samples.is_empty() {
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(format!("turnpike_{name}"));
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(samples);
        self.0.push(family);
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, help, MetricType::GAUGE, vec![gauge(&[], value)]);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, help, MetricType::COUNTER, vec![counter(&[], value)]);
    }
}

fn labelled(labels: Labels<'_>) -> Metric {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    Metric::from_label(labels.iter().map(pair).collect())
}

fn gauge(labels: Labels<'_>, value: u64) -> Metric {
    let mut metric = labelled(labels);
    let mut gauge = Gauge::default();
    gauge.set_value(value as f64);
    metric.set_gauge(gauge);
    metric
}

fn counter(labels: Labels<'_>, value: u64) -> Metric {
    let mut metric = labelled(labels);
    let mut counter = Counter::default();
    counter.set_value(value as f64);
    metric.set_counter(counter);
    metric
}

/// A histogram in seconds of counts that aren't cumulative yet; the last has no bound.
fn histogram(labels: Labels<'_>, counts: &[u64], bounds_us: impl Iterator<Item = u64>, sum_us: u64) -> Metric {
    let mut cumulative = 0;
    let buckets = counts.iter().zip(bounds_us).map(|(count, bound_us)| {
        cumulative += count;
        let mut bucket = Bucket::default();
        bucket.set_cumulative_count(cumulative);
        bucket.set_upper_bound(bound_us as f64 / 1e6);
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(counts.iter().sum());
    histogram.set_sample_sum(sum_us as f64 / 1e6);
    let mut metric = labelled(labels);
    metric.set_histogram(histogram);
    metric
}

/// All metrics in the text format.
///
/// # Errors
/// The encoder's.
pub fn text(
    shards: &[ShardStats],
    commits: &CommitStats,
    totals: &Totals,
    (guarded, registrar): (&Guarded<Gatekeeper>, &Registrar),
    (audit, desks): (Option<&AuditStatus>, &Desks),
    mono_ms: u64,
) -> Result<Vec<u8>, prometheus::Error> {
    let mut families = Families::default();
    clients(&mut families, shards, guarded.gate(), mono_ms);
    guard(&mut families, guarded);
    guarded.gate().callout().into_iter().for_each(|callout| called_out(&mut families, &callout.counts()));
    let samples = registrar.counts().map(|(outcome, count)| counter(&[("outcome", outcome)], count)).collect();
    families.family("registrations_total", "Registrations of devices asked for.", MetricType::COUNTER, samples);
    people(&mut families, guarded.gate().people(), mono_ms);
    desks.ota.iter().for_each(|ota| firmware(&mut families, ota));
    desks.commands.iter().for_each(|desk| commands(&mut families, desk));
    if let Some(platforms) = guarded.gate().platforms() {
        let samples = platforms.outcomes().map(|(outcome, count)| counter(&[("outcome", outcome)], count)).collect();
        let help = "Requests of other clouds, by how they ended.";
        families.family("platform_requests_total", help, MetricType::COUNTER, samples);
    }
    if let Some(backfill) = &desks.backfill {
        let counts = backfill.counts().all();
        let samples = counts.map(|(outcome, count)| counter(&[("outcome", outcome)], count)).to_vec();
        families.family(
            "backfill_total",
            "Stored data: batches and records, by what became of them.",
            MetricType::COUNTER,
            samples,
        );
        let samples = by_code(&backfill.counts().refusals);
        let help = "Batches and records refused, by why, as their devices are told.";
        families.family("backfill_refused_total", help, MetricType::COUNTER, samples);
    }
    messages(&mut families, shards);
    store(&mut families, commits, totals);
    audit.into_iter().for_each(|status| audited(&mut families, status));
    per_shard(&mut families, shards);
    process(&mut families);
    let mut text = Vec::new();
    TextEncoder::new().encode(&families.0, &mut text)?;
    Ok(text)
}

fn sum(shards: &[ShardStats], figure: impl Fn(&ShardStats) -> u64) -> u64 {
    shards.iter().map(figure).sum()
}

/// A counter for each word.
fn by_code(counts: &ByCode) -> Vec<Metric> {
    counts.all().into_iter().map(|(code, count)| counter(&[("code", code)], count)).collect()
}

/// What has gone out as firmware.
fn firmware(families: &mut Families, ota: &OtaDesk) {
    let samples = ota.counts().all().map(|(what, count)| counter(&[("what", what)], count)).into();
    let help =
        "Firmware: offers, checks, reports, faults of devices, blocks over MQTT, downloads over HTTP, and their bytes.";
    families.family("ota_total", help, MetricType::COUNTER, samples);
    let help = "Firmware, or parts of it, that an operator has uploaded and that weren't taken, by what was wrong.";
    families.family("firmware_refused_total", help, MetricType::COUNTER, by_code(ota.refused()));
    let help = "Campaigns that an operator has asked for and that weren't made, by why.";
    families.family("campaign_refused_total", help, MetricType::COUNTER, by_code(ota.campaigns_refused()));
    let help = "Downloads of firmware that were refused or broken off, by why.";
    families.family("ota_denied_total", help, MetricType::COUNTER, by_code(ota.denied()));
    let help = "Messages of devices about firmware that were of no use, by what was wrong with them.";
    families.family("ota_faults_total", help, MetricType::COUNTER, by_code(ota.faults()));
    let Some((counts, on_their_way)) = ota.bucket() else { return };
    let samples = counts.all().map(|(what, count)| counter(&[("what", what)], count)).into();
    let help =
        "Firmware in a bucket: files stored and removed, pages fetched and shared, and what has failed, by cause.";
    families.family("ota_bucket_total", help, MetricType::COUNTER, samples);
    families.gauge("ota_storing", "Files of firmware on their way to the bucket.", on_their_way as u64);
}

/// What devices were asked to do.
fn commands(families: &mut Families, desk: &CommandDesk) {
    let samples = desk.counts().all().map(|(what, count)| counter(&[("what", what)], count)).collect();
    let help = "Commands for devices: asked for, sent, what devices have answered, and answers that were of no use.";
    families.family("commands_total", help, MetricType::COUNTER, samples);
    let (open, ended) = desk.state().book.counts();
    let samples = [("open", open), ("ended", ended)].map(|(state, count)| gauge(&[("state", state)], count as u64));
    families.family("commands", "Commands that are kept.", MetricType::GAUGE, samples.to_vec());
    let samples = desk.log_counts().all().map(|(what, count)| counter(&[("what", what)], count)).collect();
    let help = "Logs of devices: chunks, questions, logs kept, given up, and pushed out by later ones of their device.";
    families.family("device_logs_total", help, MetricType::COUNTER, samples);
    let samples = desk.log_counts().refused().map(|(reason, count)| counter(&[("reason", reason)], count)).collect();
    let help = "Chunks and logs of devices that were refused.";
    families.family("device_logs_refused_total", help, MetricType::COUNTER, samples);
    let (logs, bytes) = desk.logs().shelf.counts();
    families.gauge("device_logs", "Logs of devices that are kept.", logs as u64);
    families.gauge("device_logs_bytes", "Bytes of these.", bytes);
}

/// What limits and guard have done, and how much they remember.
fn guard(families: &mut Families, guarded: &Guarded<Gatekeeper>) {
    let counts = guarded.guard().counts();
    let counts = [
        ("failure", counts.failures),
        ("ban", counts.bans),
        ("refused_at_accept", counts.refused_at_accept),
        ("denied", counts.denied),
        ("flapping", counts.flapping),
        ("clone", counts.clones),
        ("attestation_mismatch", counts.attestation_mismatches),
        ("alarm", counts.alarms),
    ];
    let samples = counts.map(|(event, count)| counter(&[("event", event)], count)).to_vec();
    families.family("guard_events_total", "What the guard has seen and done.", MetricType::COUNTER, samples);
    let of = |by: &'static str, remembered: &[(&'static str, usize)]| {
        let figure = |(what, count): &(&str, usize)| gauge(&[("by", by), ("what", what)], *count as u64);
        remembered.iter().map(figure).collect::<Vec<_>>()
    };
    let samples = [of("limits", &guarded.quotas().remembered()), of("guard", &guarded.guard().remembered())].concat();
    families.family("remembered", "Entries of limits and guard, which are bounded.", MetricType::GAUGE, samples);
}

/// Users: what is to be erased of them, and what they are bound to.
fn people(families: &mut Families, people: &People, mono_ms: u64) {
    let now_s = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
    let tally = people.erasure_tally(now_s);
    let states =
        [("waiting", tally.waiting), ("running", tally.running), ("failing", tally.failing), ("done", tally.done)];
    let samples = states.map(|(state, count)| gauge(&[("state", state)], count));
    families.family("erasures", "Erasures of users; of those done, reports.", MetricType::GAUGE, samples.to_vec());
    families.gauge("erasures_overdue", "Erasures of users that should have been done.", tally.overdue);
    let keys = people.key_desk().figures(mono_ms);
    let fetches = [("ok", keys.fetched), ("failed", keys.failed)].map(|(of, count)| counter(&[("outcome", of)], count));
    let help = "Fetches of keys for users' tokens (JWK sets).";
    families.family("jwks_fetches_total", help, MetricType::COUNTER, fetches.to_vec());
    let help = "Fetches of keys that a token with an unknown key has asked for.";
    families.counter("jwks_fetches_asked_total", help, keys.asked);
    families.gauge("jwks_sources", "Places that keys for tokens are fetched from.", keys.sources);
    families.gauge("jwks_age_seconds", "Age of the set of keys that is the oldest.", keys.oldest_ms / 1000);
    let changes = people.binding_changes().map(|(change, count)| counter(&[("change", change)], count)).to_vec();
    families.family("binding_changes_total", "Bindings made, changed and ended.", MetricType::COUNTER, changes);
    families.gauge("bindings", "Devices bound to users: one for each user of a device.", people.bindings().len());
}

fn clients(families: &mut Families, shards: &[ShardStats], gate: &Gatekeeper, mono_ms: u64) {
    families.gauge("connections", "Sockets open, handshakes included.", sum(shards, |shard| shard.links));
    families.gauge("clients", "Clients connected.", sum(shards, |shard| shard.core.clients));
    families.gauge("sessions", "Sessions, with a connection or without.", sum(shards, |shard| shard.core.sessions));
    families.gauge("partial_bytes", "Bytes of unfinished packets.", sum(shards, |shard| shard.core.partial_bytes));
    families.gauge(
        "handshakes",
        "PROXY, TLS and WebSocket handshakes under way.",
        sum(shards, |shard| shard.handshakes),
    );
    families.counter("connections_accepted_total", "Sockets accepted.", sum(shards, |shard| shard.net.accepted));
    families.counter(
        "connections_turned_away_total",
        "Connections closed without a word, their address being banned or having too many.",
        sum(shards, |s| s.core.turned_away),
    );
    families.counter(
        "connections_throttled_total",
        "Pauses in which a client was not read, being too fast.",
        sum(shards, |s| s.core.throttled),
    );
    families.counter("connections_shed_total", "Sockets dropped at once, being too many.", sum(shards, |s| s.net.shed));
    let handshakes: [(&str, Figure); 3] = [
        ("done", |shard| shard.net.handshakes_done),
        ("failed", |shard| shard.net.handshakes_failed),
        ("timed_out", |shard| shard.net.handshakes_timed_out),
    ];
    let samples = handshakes.map(|(result, figure)| counter(&[("result", result)], sum(shards, figure)));
    families.family("handshakes_total", "Handshakes ended.", MetricType::COUNTER, samples.to_vec());
    let mut connects = vec![counter(&[("reason", "success")], sum(shards, |shard| shard.core.accepted))];
    let mut refused = std::collections::BTreeMap::<String, u64>::new();
    for (reason, count) in shards.iter().flat_map(|shard| &shard.core.refused) {
        *refused.entry(snake(&format!("{reason:?}"))).or_default() += count;
    }
    connects.extend(refused.iter().map(|(reason, count)| counter(&[("reason", reason)], *count)));
    families.family("connects_total", "CONNECTs answered, by reason.", MetricType::COUNTER, connects);
    let refusals = gate.refusals().map(|(refusal, count)| counter(&[("reason", refusal.label())], count)).collect();
    families.family("logins_refused_total", "Log-ins refused, by what was wrong.", MetricType::COUNTER, refusals);
    let (used, most) = gate.nonces().room(mono_ms);
    let room = [gauge(&[("what", "used")], used as u64), gauge(&[("what", "most")], most as u64)].to_vec();
    families.family(
        "nonces",
        "Nonces of log-ins used in twenty minutes, and the most that find room.",
        MetricType::GAUGE,
        room,
    );
    let payloads = gate.payload_counts();
    let drops = payloads.drops.iter().map(|(error, count)| counter(&[("reason", error.label())], count)).collect();
    let help = "Payloads of devices without TLS that were dropped, by reason.";
    families.family("payloads_refused_total", help, MetricType::COUNTER, drops);
    let help = "Epochs of payload keys announced to devices without TLS.";
    families.family("payload_epochs_total", help, MetricType::COUNTER, vec![counter(&[], payloads.epochs())]);
    let ended: [(&str, Figure); 5] = [
        ("protocol_error", |shard| shard.core.protocol_errors),
        ("keep_alive", |shard| shard.core.keep_alive_timeouts),
        ("packet_time", |shard| shard.core.packets_timed_out),
        ("partial_bytes", |shard| shard.core.partials_shed),
        ("taken_over", |shard| shard.core.taken_over),
    ];
    let samples = ended.map(|(reason, figure)| counter(&[("reason", reason)], sum(shards, figure)));
    families.family(
        "connections_ended_total",
        "Connections that the broker ended.",
        MetricType::COUNTER,
        samples.to_vec(),
    );
}

fn called_out(families: &mut Families, counts: &Counts) {
    let [granted, refused, not_mine] = counts.answered;
    let outcomes = [
        ("granted", granted),
        ("refused", refused),
        ("not_mine", not_mine),
        ("garbage", counts.garbage),
        ("failed", counts.failed),
        ("timed_out", counts.timed_out),
    ];
    let samples = outcomes.map(|(outcome, count)| counter(&[("outcome", outcome)], count));
    families.family("callout_calls_total", "Calls of the call-out.", MetricType::COUNTER, samples.to_vec());
    let unasked = [("busy", counts.busy), ("broken", counts.broken), ("cached", counts.cached)];
    let samples = unasked.map(|(why, count)| counter(&[("why", why)], count));
    let help = "Log-ins for which the call-out was not called: too many were, it had failed lately, or it had answered before.";
    families.family("callout_unasked_total", help, MetricType::COUNTER, samples.to_vec());
    families.counter("callout_opened_total", "Times that the call-out's breaker has opened.", counts.opened);
    families.gauge("callout_open", "1 while the call-out's breaker isn't closed.", u64::from(counts.open));
    families.gauge("callout_under_way", "Calls under way, and those that wait.", counts.under_way);
    families.gauge("callout_kept", "Answers of the call-out that are kept.", counts.kept);
}

fn messages(families: &mut Families, shards: &[ShardStats]) {
    let received: fn(&ShardStats) -> &Flow = |shard| &shard.core.received;
    let sent: fn(&ShardStats) -> &Flow = |shard| &shard.core.sent;
    let flows = [("received", received), ("sent", sent)];
    let mut by_qos = |name, help, figure: fn(&Flow) -> &[u64; 3]| {
        let mut samples = Vec::new();
        for (direction, flow) in flows {
            for (qos, index) in [("0", 0), ("1", 1), ("2", 2)] {
                let value = sum(shards, |shard| figure(flow(shard)).get(index).copied().unwrap_or(0));
                samples.push(counter(&[("direction", direction), ("qos", qos)], value));
            }
        }
        families.family(name, help, MetricType::COUNTER, samples);
    };
    by_qos("messages_total", "PUBLISH packets.", |flow| &flow.messages);
    by_qos("payload_bytes_total", "Payload bytes of PUBLISH packets.", |flow| &flow.payload_bytes);
    let bytes = [
        counter(&[("direction", "received")], sum(shards, |shard| shard.core.bytes_received)),
        counter(&[("direction", "sent")], sum(shards, |shard| shard.core.bytes_sent)),
    ];
    families.family("bytes_total", "MQTT bytes, without TLS and WebSocket.", MetricType::COUNTER, bytes.to_vec());
    families.counter("packets_received_total", "MQTT packets.", sum(shards, |shard| shard.core.packets_received));
    type Drops = fn(&Dropped) -> u64;
    let dropped: [(&str, Drops); 8] = [
        ("queue_full", |dropped| dropped.queue_full),
        ("desk_full", |dropped| dropped.desk_full),
        ("expired", |dropped| dropped.expired),
        ("too_large", |dropped| dropped.too_large),
        ("not_authorized", |dropped| dropped.not_authorized),
        ("retained_full", |dropped| dropped.retained_full),
        ("store_unavailable", |dropped| dropped.store_unavailable),
        ("rate_limited", |dropped| dropped.rate_limited),
    ];
    let samples = dropped
        .map(|(reason, figure)| counter(&[("reason", reason)], sum(shards, |shard| figure(&shard.core.dropped))));
    families.family(
        "messages_dropped_total",
        "Messages not delivered or not taken.",
        MetricType::COUNTER,
        samples.to_vec(),
    );
    let queued = sum(shards, |shard| shard.core.queued_messages);
    families.gauge("queued_messages", "Messages that wait or are under way to sessions: the queue depth.", queued);
    let awaiting = sum(shards, |shard| shard.core.awaiting_commit);
    families.gauge("awaiting_commit", "Answers and deliveries that wait for a commit.", awaiting);
}

fn store(families: &mut Families, commits: &CommitStats, totals: &Totals) {
    use std::sync::atomic::Ordering::Relaxed;
    families.gauge("subscriptions", "Subscriptions.", totals.subscriptions);
    families.gauge("retained_messages", "Retained messages.", totals.retained_messages);
    families.gauge("retained_bytes", "Bytes of retained messages.", totals.retained_bytes);
    families.counter("commits_total", "Group commits.", commits.commits.load(Relaxed));
    families.counter("commit_failures_total", "Group commits that failed.", commits.failures.load(Relaxed));
    families.counter("commit_ops_total", "Operations committed.", commits.ops.load(Relaxed));
    families.gauge("commit_tickets_ready", "Tickets that wait for a commit.", commits.ready_tickets.load(Relaxed));
    families.gauge(
        "commit_tickets_incomplete",
        "Tickets that wait for parts.",
        commits.incomplete_tickets.load(Relaxed),
    );
    families.gauge("commit_pending_bytes", "Bytes that wait for a commit.", commits.pending_bytes.load(Relaxed));
    families.gauge("store_healthy", "1 while commits succeed.", u64::from(commits.is_healthy()));
    let (counts, sum_us) = commits.latency();
    let sample = histogram(&[], &counts, LATENCY_BOUNDS_US.iter().copied(), sum_us);
    families.family("commit_seconds", "How long commits took.", MetricType::HISTOGRAM, vec![sample]);
}

fn audited(families: &mut Families, status: &AuditStatus) {
    families.gauge("audit_healthy", "1 while the audit can be written.", u64::from(status.fault.is_none()));
    families.gauge(
        "audit_sequence",
        "Number of the audit's last record: never less than before.",
        status.anchor.sequence,
    );
    families.counter("audit_records_total", "Records of the audit written.", status.written);
    families.counter("audit_dropped_total", "Events that could not be kept.", status.dropped);
    families.counter("audit_suppressed_total", "Refused log-ins that were counted and not kept.", status.suppressed);
    families.counter("audit_failures_total", "Writes of the audit that failed.", status.failures);
    families.gauge("audit_queued", "Records that wait to be written.", status.queued);
    families.gauge("audit_segments", "Segments of the audit.", status.segments);
    families.gauge("audit_bytes", "Bytes of the audit.", status.bytes);
}

fn per_shard(families: &mut Families, shards: &[ShardStats]) {
    let names: Vec<String> = shards.iter().map(|shard| shard.shard.0.to_string()).collect();
    let named = || names.iter().map(String::as_str).zip(shards);
    let turns = named().map(|(name, shard)| {
        histogram(&[("shard", name)], &shard.turns.buckets, (0..).map(|power| 1 << power), shard.turns.sum_us)
    });
    families.family(
        "shard_turn_seconds",
        "How long turns took that had something to do.",
        MetricType::HISTOGRAM,
        turns.collect(),
    );
    let inboxes = named().map(|(name, shard)| gauge(&[("shard", name)], shard.inbox_bytes));
    families.family("shard_inbox_bytes", "Bytes that other shards have sent.", MetricType::GAUGE, inboxes.collect());
    let stalled = named().map(|(name, shard)| counter(&[("shard", name)], shard.net.stalled_turns));
    families.family(
        "shard_stalled_turns_total",
        "Turns in which sockets weren't read.",
        MetricType::COUNTER,
        stalled.collect(),
    );
}

fn process(families: &mut Families) {
    let version = gauge(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    families.family("build_info", "The version.", MetricType::GAUGE, vec![version]);
    let stat = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes = |field: &str| {
        let line = stat.lines().find_map(|line| line.strip_prefix(field))?;
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()
    };
    if let Some(resident) = kilobytes("VmRSS:") {
        families.gauge("process_resident_bytes", "Memory in use.", resident * 1024);
    }
    if let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") {
        families.gauge("process_open_fds", "Descriptors open.", descriptors.count() as u64);
    }
}

/// `BadUserNameOrPassword` as `bad_user_name_or_password`.
fn snake(name: &str) -> String {
    let mut text = String::new();
    for character in name.chars() {
        if character.is_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(character.to_ascii_lowercase());
    }
    text
}
