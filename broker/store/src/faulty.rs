//! A store that fails on demand, for tests of what depends on it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use turnpike_core::durable::{Part, Recovery};

use crate::{RecoverySummary, Store, StoreError};

/// What is to fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The commit has no effect and fails.
    Before,
    /// The commit takes effect and fails all the same: its outcome is unknown to the caller.
    After,
}

/// Says which commits and heals of a [`FaultyStore`] fail. Shared with the test.
#[derive(Clone, Default, Debug)]
pub struct FaultPlan(Arc<Mutex<Plan>>);

#[derive(Default, Debug)]
struct Plan {
    commits: u64,
    faults: Vec<(u64, Fault)>,
    broken: Option<Fault>,
    heals_to_fail: u64,
    must_heal: bool,
    low: bool,
}

impl FaultPlan {
    /// The `n`th commit from the start (the first is 1) fails.
    pub fn fail_commit(&self, n: u64, fault: Fault) {
        self.0.lock().faults.push((n, fault));
    }

    /// Every commit and heal fails, until [`repair`](Self::repair).
    pub fn break_down(&self, fault: Fault) {
        self.0.lock().broken = Some(fault);
    }

    /// Ends [`break_down`](Self::break_down).
    pub fn repair(&self) {
        self.0.lock().broken = None;
    }

    /// The next `n` heals fail.
    pub fn fail_heals(&self, n: u64) {
        self.0.lock().heals_to_fail = n;
    }

    /// Space runs out, or doesn't any more.
    pub fn set_low(&self, low: bool) {
        self.0.lock().low = low;
    }

    /// Commits that were attempted.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.0.lock().commits
    }
}

/// Passes everything on to another store, except what the plan says must fail.
#[derive(Debug)]
pub struct FaultyStore<S> {
    inner: S,
    plan: FaultPlan,
}

impl<S: Store> FaultyStore<S> {
    /// Wraps a store.
    pub fn new(inner: S, plan: FaultPlan) -> Self {
        Self { inner, plan }
    }
}

impl<S: Store> Store for FaultyStore<S> {
    fn commit(&mut self, group: &[Part]) -> Result<(), StoreError> {
        let fault = {
            let mut plan = self.plan.0.lock();
            assert!(!plan.must_heal, "a failed commit is followed by a heal");
            plan.commits += 1;
            let n = plan.commits;
            let fault = plan.broken.or_else(|| plan.faults.iter().find(|(at, _)| *at == n).map(|(_, fault)| *fault));
            plan.must_heal = fault.is_some();
            fault
        };
        match fault {
            None => self.inner.commit(group),
            Some(Fault::Before) => Err(injected("commit")),
            Some(Fault::After) => {
                self.inner.commit(group)?;
                Err(injected("commit"))
            }
        }
    }

    fn recover(&mut self, into: &mut dyn Recovery) -> Result<RecoverySummary, StoreError> {
        self.inner.recover(into)
    }

    fn heal(&mut self) -> Result<(), StoreError> {
        let mut plan = self.plan.0.lock();
        if plan.broken.is_some() {
            return Err(injected("open again"));
        }
        if let Some(left) = plan.heals_to_fail.checked_sub(1) {
            plan.heals_to_fail = left;
            return Err(injected("open again"));
        }
        plan.must_heal = false;
        drop(plan);
        self.inner.heal()
    }

    fn is_low(&mut self) -> bool {
        self.plan.0.lock().low || self.inner.is_low()
    }

    fn close(&mut self) -> Result<(), StoreError> {
        self.inner.close()
    }
}

fn injected(action: &'static str) -> StoreError {
    StoreError::Io { path: PathBuf::from("(injected)"), action, source: io::Error::other("injected fault") }
}
