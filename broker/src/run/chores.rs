//! The registry's own affairs at a start: what a crash left half deleted, and the demo device.
//!
//! They need the store, and a start doesn't wait for it: on a full disk the broker is up, says why it isn't ready, and can be stopped.

use std::sync::Arc;
use std::time::Duration;

use turnpike_authz::Gatekeeper;
use turnpike_authz::plan::Change;
use turnpike_core::durable::Op;

use super::auditing;
use crate::audit::AuditSink;
use crate::http::Changing;
use crate::provision;
use crate::server::{Control, StoreHealth};

/// Devices removed in one commit.
const SWEEP_DEVICES: usize = 1000;
/// After so long without a commit others may change the registry again, who hear from the store themselves.
const COMMIT_TIME_MAX: Duration = Duration::from_secs(10);
/// How often a failing store is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What they need.
pub(super) struct Chores {
    pub(super) control: Control,
    pub(super) gate: Arc<Gatekeeper>,
    pub(super) changing: Changing,
    pub(super) audit: AuditSink,
}

/// What became of a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Done {
    Changed,
    /// There was nothing to change.
    Nothing,
    /// The broker has ended before.
    Ended,
}

impl Chores {
    /// Does them one after the other, as soon as the store allows it; gives up when the broker ends.
    pub(super) fn run(&self) {
        let registry = self.gate.registry();
        self.change(|| auditing::mark(registry, &self.audit));
        for product in registry.swept_products() {
            loop {
                match self.change(|| registry.plan_sweep(&product, SWEEP_DEVICES)) {
                    Done::Changed => {}
                    Done::Nothing => break,
                    Done::Ended => return,
                }
            }
        }
        self.change(|| {
            let changes = provision::demo(registry, self.gate.master_key(), now_s());
            auditing::tell(registry, &changes, &self.audit);
            changes
        });
    }

    /// Commits and applies what `plan` says.
    fn change(&self, plan: impl FnOnce() -> Vec<Change>) -> Done {
        while let StoreHealth::Failing(_) = self.control.health().store {
            if self.control.health().draining {
                return Done::Ended;
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        let mut held = Some(self.changing.blocking_lock());
        let changes = plan();
        if changes.is_empty() {
            return Done::Nothing;
        }
        let ops: Vec<Op> = changes.iter().map(Change::op).collect();
        let mut committed = self.control.commit_registry(ops);
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() else {
            return Done::Ended;
        };
        let outcome = runtime.block_on(async {
            if let Ok(outcome) = tokio::time::timeout(COMMIT_TIME_MAX, &mut committed).await {
                return outcome;
            }
            tracing::warn!(
                "the registry's first entries aren't stored yet: the store doesn't answer; they will be when it does"
            );
            drop(held.take());
            committed.await
        });
        if outcome.is_err() {
            return Done::Ended;
        }
        for change in changes {
            self.gate.registry().apply(change);
        }
        Done::Changed
    }
}

fn now_s() -> u64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs())
}
