//! The registry's own affairs at a start: what a crash left half deleted, and the demo device.
//!
//! They need the store, and a start doesn't wait for it: on a full disk the broker is up, says why it isn't ready, and can be stopped.

use std::sync::Arc;
use std::time::Duration;

use turnpike_authz::Gatekeeper;
use turnpike_authz::plan::Change;
use turnpike_authz::presale;
use turnpike_authz::presale::list::Sweep;
use turnpike_core::durable::Op;

use super::auditing;
use crate::audit::AuditSink;
use crate::http::Changing;
use crate::provision;
use crate::registrar::Registrar;
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
    pub(super) registrar: Arc<Registrar>,
    pub(super) changing: Changing,
    pub(super) audit: AuditSink,
    /// Whether a demo device is wanted, where there is none yet.
    pub(super) demo: bool,
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
        if self.sweep_packages() == Done::Ended {
            return;
        }
        self.control.forget_gone();
        if !self.demo {
            return;
        }
        self.change(|| {
            let changes = provision::demo(registry, self.gate.master_key(), now_s());
            auditing::tell(registry, &changes, &self.audit);
            changes
        });
    }

    /// Goes on removing keys and lists of packages whose deletion a crash has interrupted.
    fn sweep_packages(&self) -> Done {
        let left = self.registrar.book().swept_packages();
        for (product, package) in left {
            let mut sweep = Sweep::new(product, package);
            let mut is_over = false;
            while !is_over {
                let done = self.commit(|| {
                    let step = sweep.step(&self.registrar.book(), SWEEP_DEVICES);
                    is_over = step.is_none();
                    let changes = step.unwrap_or_default();
                    let ops = changes.iter().map(presale::Change::op).collect();
                    (ops, || self.registrar.apply(changes))
                });
                if done == Done::Ended {
                    return done;
                }
            }
        }
        Done::Nothing
    }

    /// Commits and applies what `plan` says.
    fn change(&self, plan: impl FnOnce() -> Vec<Change>) -> Done {
        self.commit(|| {
            let changes = plan();
            let ops = changes.iter().map(Change::op).collect();
            (ops, || changes.into_iter().for_each(|change| self.gate.registry().apply(change)))
        })
    }

    /// Commits what `plan` says, and then has it applied.
    fn commit<A: FnOnce()>(&self, plan: impl FnOnce() -> (Vec<Op>, A)) -> Done {
        while let StoreHealth::Failing(_) = self.control.health().store {
            if self.control.health().draining {
                return Done::Ended;
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        let mut held = Some(self.changing.blocking_lock());
        let (ops, apply) = plan();
        if ops.is_empty() {
            return Done::Nothing;
        }
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
        apply();
        Done::Changed
    }
}

fn now_s() -> u64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs())
}
