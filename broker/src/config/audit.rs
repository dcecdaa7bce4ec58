//! The section `[audit]`.

use super::Fault;
use super::read::Section;
use crate::audit::{AuditSettings, SIX_MONTHS_DAYS};

pub(super) fn read(section: &mut Section<'_>, audit: &mut AuditSettings) {
    section.boolean("enabled", &mut audit.enabled);
    section.optional_path("folder", &mut audit.folder);
    section.integer("retention_days", &mut audit.retention_days, 1..=36_500);
    section.integer("segment_bytes_max", &mut audit.segment_bytes_max, 64 << 10..=1 << 40);
    section.millis("sync_interval_ms", &mut audit.sync_interval, 1..=60_000);
    section.integer("queue_records_max", &mut audit.queue_records_max, 1_000..=10_000_000);
    section.integer("refusals_per_s_max", &mut audit.refusals_per_s_max, 0..=1_000_000);
    section.boolean("required", &mut audit.required);
}

/// What the standards for platforms of this class wouldn't accept.
pub(super) fn warning(audit: &AuditSettings) -> Option<Fault> {
    let (key, message) = match audit {
        AuditSettings { enabled: false, .. } => ("audit.enabled", "nobody will know who did what".to_owned()),
        AuditSettings { retention_days, .. } if *retention_days < SIX_MONTHS_DAYS => {
            ("audit.retention_days", format!("less than six months ({SIX_MONTHS_DAYS} days)"))
        }
        _ => return None,
    };
    Some(Fault { key: key.to_owned(), message })
}
