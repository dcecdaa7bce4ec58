//! The audit's mark: its last record, kept in the store as well. Whoever removes the audit together with its head, or puts older files in their
//! place, is found out at the next start: the audit ends before the mark.
//!
//! The mark follows every [`INTERVAL`] and at the end, and is never ahead of the audit's disk. It follows an audit that ends before it only once
//! that audit says so itself, on disk.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use turnpike_authz::audit::chain::{ChainKey, Link};
use turnpike_authz::audit::head::{self, Head};
use turnpike_authz::audit::{Action, Event, Key, Value};
use turnpike_core::durable::Op;

use crate::audit::{Audit, AuditSink, now_ms};
use crate::server::{Control, StoreHealth};

/// How often the mark follows the audit.
const INTERVAL: Duration = Duration::from_secs(10);
/// How long the last commit before the end may take.
const TIME_MAX: Duration = Duration::from_secs(2);
/// Key of the record. No other has it: those of the registry begin with one or two letters.
const RECORD: &[u8] = b"audit\0head";

/// The mark as the store had it at the start.
#[derive(Clone, Default, Debug)]
pub(super) struct Found(Arc<OnceLock<Box<[u8]>>>);

/// What the mark says against the audit that was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Finding {
    /// There is nothing of an audit that had so many records.
    Gone { mark: u64 },
    /// It ends before the mark.
    Short { last: u64, mark: u64 },
    /// Its last record is another than the mark's.
    Other { last: u64 },
    /// The mark isn't genuine.
    Forged { last: u64 },
}

/// Has the mark follow the audit.
pub(super) struct Keeper {
    sink: AuditSink,
    key: ChainKey,
    control: Control,
    /// What the store has.
    kept: Mutex<Link>,
    /// Whether what was found is on disk.
    told: AtomicBool,
}

impl Found {
    /// Takes the record of the store, if it is this one.
    pub(super) fn load(&self, key: &[u8], value: &[u8]) -> bool {
        key == RECORD && self.0.set(value.into()).is_ok()
    }

    /// Holds the mark against what was opened. None if it is as it should be, or if there is none yet.
    pub(super) fn judge(&self, key: &ChainKey, opened: Link) -> Option<Finding> {
        let last = opened.sequence;
        let (mark, is_ours) = match head::decode(std::slice::from_ref(key), self.0.get()?) {
            Head::Known(mark) => (mark, true),
            // Under a former master key: its number counts.
            Head::OtherKey(mark) => (mark, false),
            Head::None => return Some(Finding::Forged { last }),
        };
        match mark.sequence {
            0 => None,
            mark if last == 0 => Some(Finding::Gone { mark }),
            mark if last < mark => Some(Finding::Short { last, mark }),
            same if last == same && is_ours && mark.mac != opened.mac => Some(Finding::Other { last }),
            _ => None,
        }
    }

    /// The last record that the store knows, which needn't be kept again.
    fn link(&self, key: &ChainKey) -> Link {
        let bytes = self.0.get().map(|bytes| &**bytes).unwrap_or_default();
        match head::decode(std::slice::from_ref(key), bytes) {
            Head::Known(link) => link,
            Head::OtherKey(_) | Head::None => Link::START,
        }
    }
}

impl Finding {
    /// Says it in the log, with the numbers of both.
    pub(super) fn log(self) {
        match self {
            Self::Gone { mark } => {
                tracing::error!(mark, "this broker had an audit before, and it is gone; a new one begins");
            }
            Self::Short { last, mark } => {
                tracing::error!(last, mark, "the audit ends before the last record that the store knows of");
            }
            Self::Other { last } => tracing::error!(last, "the audit's last record is another than the store's"),
            Self::Forged { last } => tracing::error!(last, "the store's mark of the audit has been changed"),
        }
    }

    /// Queues its record; the future ends when that is on disk.
    fn record(self, sink: &AuditSink) -> impl Future<Output = bool> + Send + use<> {
        let how = |how| (Key::How, Value::Word(how));
        let number = |key, number| (key, Value::Number(number));
        let (action, details) = match self {
            Self::Gone { mark } => (Action::ChainLost, vec![number(Key::Last, mark)]),
            Self::Short { last, mark } => {
                let details = vec![number(Key::Sequence, last), number(Key::Last, mark), how("ends_before_mark")];
                (Action::DamageFound, details)
            }
            Self::Other { last } => (Action::DamageFound, vec![number(Key::Sequence, last), how("other_than_mark")]),
            Self::Forged { last } => (Action::DamageFound, vec![number(Key::Sequence, last), how("mark_changed")]),
        };
        let written = sink.record_durable(&Event::own(now_ms(), action, &details));
        async { written.await.is_ok() }
    }
}

impl Keeper {
    /// Puts what was found on record, and has the mark follow from then on, on a thread of its own until the process ends.
    pub(super) fn start(
        (audit, key): (&Audit, ChainKey),
        control: Control,
        found: &Found,
        finding: Option<Finding>,
    ) -> std::io::Result<Option<Arc<Self>>> {
        if !audit.is_kept() {
            return Ok(None);
        }
        let (sink, kept) = (audit.sink(), Mutex::new(found.link(&key)));
        let keeper = Arc::new(Self { sink, key, control, kept, told: AtomicBool::new(finding.is_none()) });
        // Queued before this returns: nothing of this run stands before it but its start.
        let first = finding.map(|finding| (finding, finding.record(&keeper.sink)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let work = Arc::clone(&keeper);
        std::thread::Builder::new().name("audit-mark".to_owned()).spawn(move || {
            runtime.block_on(async {
                if let Some((finding, written)) = first {
                    let mut is_written = written.await;
                    while !is_written {
                        tokio::time::sleep(INTERVAL).await;
                        is_written = finding.record(&work.sink).await;
                    }
                    work.told.store(true, SeqCst);
                }
                loop {
                    work.keep().await;
                    tokio::time::sleep(INTERVAL).await;
                }
            });
        })?;
        Ok(Some(keeper))
    }

    /// Brings the mark up to the audit, before the store closes.
    pub(super) fn keep_last(&self) {
        if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() {
            runtime.block_on(async { drop(tokio::time::timeout(TIME_MAX, self.keep()).await) });
        }
    }

    async fn keep(&self) {
        let anchor = self.sink.status().anchor;
        let is_due = self.told.load(SeqCst) && *self.kept.lock() != anchor;
        if !is_due || self.control.health().store != StoreHealth::Ok {
            return;
        }
        let slot = head::encode(&self.key, anchor);
        let op = Op::RegistryPut(RECORD.into(), slot.trim_ascii_end().iter().copied().chain([b'\n']).collect());
        if self.control.commit_registry(vec![op]).await.is_ok() {
            *self.kept.lock() = anchor;
        }
    }
}

#[cfg(test)]
mod tests {
    use turnpike_authz::secret::MasterKey;

    use super::*;

    fn key(seed: u8) -> ChainKey {
        ChainKey::new(&MasterKey::new([seed; 32]))
    }

    fn link(lines: u64) -> Link {
        let mut link = Link::START;
        (0..lines).for_each(|_| link.append(&key(1), b"\"time\":1", &mut Vec::new()));
        link
    }

    fn found(mark: &[u8]) -> Found {
        let found = Found::default();
        assert!(found.load(RECORD, mark));
        found
    }

    #[test]
    fn an_audit_that_goes_on_from_the_mark_is_right() {
        let (key, mark) = (key(1), found(&head::encode(&key(1), link(5))));
        for lines in [5, 6, 100] {
            assert_eq!(mark.judge(&key, link(lines)), None);
        }
        assert_eq!(Found::default().judge(&key, link(3)), None, "there is none yet");
        assert_eq!(found(&head::encode(&key, Link::START)).judge(&key, Link::START), None);
    }

    #[test]
    fn one_that_ends_before_it_is_found_out() {
        let (key, mark) = (key(1), found(&head::encode(&key(1), link(5))));
        assert_eq!(mark.judge(&key, link(4)), Some(Finding::Short { last: 4, mark: 5 }));
        assert_eq!(mark.judge(&key, Link::START), Some(Finding::Gone { mark: 5 }));
        let mut other = link(4);
        other.append(&key, b"\"time\":2", &mut Vec::new());
        assert_eq!(mark.judge(&key, other), Some(Finding::Other { last: 5 }));
    }

    #[test]
    fn a_mark_that_is_not_genuine_is_no_mark() {
        let mut forged = head::encode(&key(1), link(5));
        forged[25] ^= 1;
        for bytes in [&forged[..], b"", b"x"] {
            assert_eq!(found(bytes).judge(&key(1), link(9)), Some(Finding::Forged { last: 9 }));
        }
        // A new master key leaves the number.
        let mark = found(&head::encode(&key(2), link(5)));
        assert_eq!(mark.judge(&key(1), link(4)), Some(Finding::Short { last: 4, mark: 5 }));
        assert_eq!(mark.judge(&key(1), link(5)), None);
    }

    #[test]
    fn other_records_are_others() {
        assert!(!Found::default().load(b"m\0audit", b"x"));
    }
}
