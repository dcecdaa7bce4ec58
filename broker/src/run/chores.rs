//! The registry's own affairs at a start: what a crash left half deleted, and the demo device.
//!
//! They need the store, and a start doesn't wait for it: on a full disk the broker is up, says why it isn't ready, and can be stopped.

use std::time::Duration;

use turnpike_authz::Gatekeeper;
use turnpike_authz::plan::Change;
use turnpike_core::durable::Op;

use crate::http::Changing;
use crate::provision;
use crate::server::{Control, StoreHealth};

/// Devices removed in one commit.
const SWEEP_DEVICES: usize = 1000;
/// After so long without a commit others may change the registry again, who hear from the store themselves.
const COMMIT_TIME_MAX: Duration = Duration::from_secs(10);
/// How often a failing store is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Does them one after the other, as soon as the store allows it; gives up when the broker ends.
pub(super) fn run(control: &Control, gate: &Gatekeeper, changing: &Changing) {
    let registry = gate.registry();
    for product in registry.swept_products() {
        loop {
            match change(control, gate, changing, || registry.plan_sweep(&product, SWEEP_DEVICES)) {
                Done::Changed => {}
                Done::Nothing => break,
                Done::Ended => return,
            }
        }
    }
    change(control, gate, changing, || provision::demo(registry, gate.master_key(), now_s()));
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

/// Commits and applies what `plan` says.
fn change(control: &Control, gate: &Gatekeeper, changing: &Changing, plan: impl FnOnce() -> Vec<Change>) -> Done {
    while let StoreHealth::Failing(_) = control.health().store {
        if control.health().draining {
            return Done::Ended;
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
    let mut held = Some(changing.blocking_lock());
    let changes = plan();
    if changes.is_empty() {
        return Done::Nothing;
    }
    let ops: Vec<Op> = changes.iter().map(Change::op).collect();
    let mut committed = control.commit_registry(ops);
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() else { return Done::Ended };
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
        gate.registry().apply(change);
    }
    Done::Changed
}

fn now_s() -> u64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs())
}
