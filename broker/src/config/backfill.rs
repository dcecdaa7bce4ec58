//! The section `[backfill]`.

use super::access::flow;
use super::read::Section;
use crate::backfill::BackfillSettings;

const DAY_MS: u64 = 24 * 3600 * 1000;

pub(super) fn read(section: &mut Section<'_>, settings: &mut BackfillSettings) {
    section.boolean("enabled", &mut settings.enabled);
    section.integer("workers", &mut settings.workers, 1..=64);
    section.integer("devices_max", &mut settings.devices_max, 1..=1_000_000_000);
    section.integer("slice_records_max", &mut settings.slice_records_max, 1..=4_096);
    section.integer("under_way_max", &mut settings.under_way_max, 1..=1_000_000);
    section.integer("held_bytes_max", &mut settings.held_bytes_max, 1 << 20..=1 << 40);
    section.millis("hold_ms", &mut settings.hold, 0..=60_000);
    section.boolean("parallel", &mut settings.parallel);
    let bounds = &mut settings.bounds;
    section.integer("unpacked_bytes_max", &mut bounds.unpacked_bytes_max, 1024..=256 << 20);
    section.integer("ratio_max", &mut bounds.ratio_max, 1..=10_000);
    section.integer("records_max", &mut bounds.records_max, 1..=1_000_000);
    section.integer("payload_bytes_max", &mut bounds.payload_bytes_max, 1..=16 << 20);
    section.integer("boots_max", &mut bounds.boots_max, 1..=1_000);
    section.integer("ranges_max", &mut bounds.ranges_max, 1..=10_000);
    let mut days = bounds.past_ms_max / DAY_MS;
    section.integer("past_days", &mut days, 1..=3_650);
    bounds.past_ms_max = days * DAY_MS;
    let mut ahead_s = bounds.ahead_ms_max / 1000;
    section.integer("ahead_s", &mut ahead_s, 0..=30 * 86_400);
    bounds.ahead_ms_max = ahead_s * 1000;
    let budget = &mut settings.budget;
    section.integer("records_per_s_min", &mut budget.floor_records_per_s, 1..=100_000_000);
    section.integer("records_per_s_max", &mut budget.ceiling_records_per_s, 1..=100_000_000);
    if budget.ceiling_records_per_s < budget.floor_records_per_s {
        section.fault("records_per_s_max", "must not be below records_per_s_min");
    }
    section.section("device", |section| flow(section, &mut budget.device));
    section.section("product", |section| flow(section, &mut budget.product));
    let mut late_ms = budget.late_ns_max / 1_000_000;
    section.integer("late_ms", &mut late_ms, 1..=10_000);
    budget.late_ns_max = late_ms * 1_000_000;
    let pace = &mut settings.pace;
    section.integer("turn_ms", &mut pace.turn_ms, 100..=3_600_000);
    section.integer("device_records_per_s", &mut pace.device_records_per_s, 1..=10_000_000);
}
