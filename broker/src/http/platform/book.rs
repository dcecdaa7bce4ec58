//! Platforms and the store together: a change is committed, then applied, one at a time.

use std::sync::Arc;

use turnpike_authz::platform::{Change, Platforms};

use super::super::COMMIT_TIME_MAX;
use crate::server::{Control, StoreHealth};

/// The store doesn't take changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotCommitted;

/// All platforms, and where their changes go. Cheap to clone.
#[derive(Clone)]
pub struct Book {
    platforms: Arc<Platforms>,
    control: Control,
    /// One change at a time: what is decided must still hold when it is applied.
    changing: Arc<tokio::sync::Mutex<()>>,
}

impl Book {
    /// Of these.
    #[must_use]
    pub fn new(platforms: Arc<Platforms>, control: Control) -> Self {
        Self { platforms, control, changing: Arc::default() }
    }

    /// The platforms.
    #[must_use]
    pub fn platforms(&self) -> &Arc<Platforms> {
        &self.platforms
    }

    /// The data plane.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// To be held from planning to committing.
    pub(in super::super) async fn lock(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.changing.lock().await
    }

    /// Commits changes and applies them. The caller holds the lock.
    pub(in super::super) async fn commit(&self, changes: Vec<Change>) -> Result<(), NotCommitted> {
        if changes.is_empty() {
            return Ok(());
        }
        if let StoreHealth::Failing(fault) = self.control.health().store {
            tracing::warn!(%fault, "a change of platforms was refused");
            return Err(NotCommitted);
        }
        let mut committed = self.control.commit_registry(changes.iter().map(Change::op).collect());
        let Ok(outcome) = tokio::time::timeout(COMMIT_TIME_MAX, &mut committed).await else {
            // Nothing is confirmed; but if it does reach the disk, memory has to follow.
            let platforms = Arc::clone(&self.platforms);
            tokio::spawn(async move {
                if committed.await.is_ok() {
                    changes.into_iter().for_each(|change| platforms.apply(change));
                }
            });
            return Err(NotCommitted);
        };
        outcome.map_err(|_| NotCommitted)?;
        changes.into_iter().for_each(|change| self.platforms.apply(change));
        Ok(())
    }
}
