//! What devices hand in that is bad: counted by what is wrong with it, and put on record. The first of a kind of a device in a minute is a record, and so many of all
//! at most; the next record says how many had none. So nobody fills the audit with bad batches.

use std::collections::HashSet;

use parking_lot::Mutex;
use turnpike_authz::audit::{Action, Event, Key as Detail, Outcome, Subject, Value};
use turnpike_core::gate::DeviceIdentity;

use super::under_way::Key;
use crate::audit::AuditSink;
use crate::desk::ByCode;

const MINUTE_MS: u64 = 60_000;
/// Records a minute, of all devices together.
const RECORDS_MAX: usize = 200;

/// Puts refusals on record.
pub(super) struct Refusals {
    audit: AuditSink,
    minute: Mutex<Minute>,
}

impl Refusals {
    pub(super) fn new(audit: AuditSink) -> Self {
        Self { audit, minute: Mutex::default() }
    }

    /// A batch, or a record and all after it, was refused.
    pub(super) fn note(&self, counts: &ByCode, device: &DeviceIdentity, code: &'static str, now_unix_ms: u64) {
        counts.add(code);
        let Some(unrecorded) = self.minute.lock().note(device, code, now_unix_ms) else { return };
        let details = [(Detail::Count, Value::Number(unrecorded))];
        self.audit.record(&Event {
            actor: Subject::identity(device),
            outcome: Outcome::Refused(code),
            ..Event::own(now_unix_ms, Action::BackfillRefused, if unrecorded == 0 { &[] } else { &details })
        });
    }
}

/// What was put on record in a minute.
#[derive(Debug, Default)]
struct Minute {
    number: u64,
    recorded: HashSet<(Key, &'static str)>,
    unrecorded: u64,
}

impl Minute {
    /// Whether a refusal is put on record: how many before it weren't.
    fn note(&mut self, device: &DeviceIdentity, code: &'static str, now_ms: u64) -> Option<u64> {
        let number = now_ms / MINUTE_MS;
        if self.number != number {
            self.number = number;
            self.recorded.clear();
        }
        let key = ((device.product.clone(), device.device.clone()), code);
        if self.recorded.len() >= RECORDS_MAX || !self.recorded.insert(key) {
            self.unrecorded += 1;
            return None;
        }
        Some(std::mem::take(&mut self.unrecorded))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_a_kind_in_a_minute_is_a_record() {
        let (mut minute, one, two) = (Minute::default(), DeviceIdentity::new("p", "1"), DeviceIdentity::new("p", "2"));
        assert_eq!(minute.note(&one, "too_old", 0), Some(0));
        assert_eq!(minute.note(&one, "too_old", 59_999), None);
        assert_eq!(minute.note(&one, "in_future", 5), Some(1));
        assert_eq!(minute.note(&two, "too_old", 5), Some(0));
        assert_eq!(minute.note(&two, "too_old", 6), None);
        assert_eq!(minute.note(&one, "too_old", 60_000), Some(1));
    }

    #[test]
    fn a_minute_has_no_more_records_than_that() {
        let (mut minute, mut records) = (Minute::default(), 0);
        for number in 0..10_000 {
            let device = DeviceIdentity::new("p", number.to_string());
            records += usize::from(minute.note(&device, "malformed", 1).is_some());
        }
        assert_eq!((records, minute.recorded.len()), (RECORDS_MAX, RECORDS_MAX));
        let unrecorded = 10_000 - RECORDS_MAX as u64;
        assert_eq!(minute.note(&DeviceIdentity::new("p", "0"), "malformed", MINUTE_MS), Some(unrecorded));
    }

    #[test]
    fn each_code_has_a_count() {
        let (counts, refusals) = (ByCode::default(), Refusals::new(AuditSink::disabled()));
        let device = DeviceIdentity::new("p", "d");
        for code in ["too_old", "too_dense", "too_old"] {
            refusals.note(&counts, &device, code, 1);
        }
        assert_eq!(counts.all(), [("too_dense", 1), ("too_old", 2)]);
    }
}
