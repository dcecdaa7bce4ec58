//! Where durable state lives: the embedded engine, memory, and the group commit.
//!
//! ```text
//! shards ── Part ──▶ CommitterHandle ──▶ group::Assembler ──▶ Store::commit (one sync) ──▶ CommitEvent::Committed
//! ```
//!
//! `../DESIGN.md` has the definitions, the invariants, the layout on disk and what is assumed of the medium.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing))]

pub mod committer;
pub mod embedded;
pub mod error;
pub mod faulty;
pub mod group;
pub mod memory;
pub mod stats;
#[cfg(test)]
mod testing;

use turnpike_core::durable::{Part, Recovery};
use turnpike_core::ids::{MessageId, SessionKey};

pub use committer::{CommitEvent, Committer, CommitterHandle, Limits};
pub use error::StoreError;

/// Keeps what [`turnpike_core::durable::Op`] describes. One owner, one caller at a time.
pub trait Store: Send {
    /// Applies all operations of all parts, in their order, as one: when it returns `Ok` they are on disk, whole.
    ///
    /// After an error nothing is known but this: the group is there whole or not at all. The caller calls
    /// [`heal`](Self::heal), and commits the same group again before any other. Doing so twice changes nothing, since every
    /// operation is a put or a delete by key.
    ///
    /// # Errors
    ///
    /// What went wrong and where; see [`StoreError`].
    fn commit(&mut self, group: &[Part]) -> Result<(), StoreError>;

    /// Hands out everything that is kept: registry, retained messages, sessions in the order of their keys. Called once, before the
    /// first commit. Removes what nothing refers to: entries whose session or shared body is gone, bodies that nobody is owed.
    ///
    /// # Errors
    ///
    /// A record that can't be read or doesn't decode is [`StoreError::Damaged`]; it is never skipped.
    fn recover(&mut self, into: &mut dyn Recovery) -> Result<RecoverySummary, StoreError>;

    /// Makes the store usable again after a failed commit, or says that it still isn't.
    ///
    /// # Errors
    ///
    /// The reason that still stands.
    fn heal(&mut self) -> Result<(), StoreError>;

    /// Whether space runs out, so that no more should be asked to be kept. What makes room, and what is under way, is still
    /// committed. May ask the operating system; called after each commit, and about once a second while it says yes.
    fn is_low(&mut self) -> bool {
        false
    }

    /// Releases files and locks in good order. The store takes nothing afterwards.
    ///
    /// # Errors
    ///
    /// What could not be written back; nothing that was committed is at stake.
    fn close(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// What [`Store::recover`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecoverySummary {
    /// The lowest session key that was never used.
    pub next_session_key: SessionKey,
    /// The lowest message id that was never used.
    pub next_message_id: MessageId,
    /// How many records of each kind.
    pub counts: RecoveryCounts,
}

/// How many records of each kind [`Store::recover`] handed out or removed.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RecoveryCounts {
    /// Sessions.
    pub sessions: u64,
    /// Subscriptions of these sessions.
    pub subscriptions: u64,
    /// Messages owed to these sessions.
    pub owed: u64,
    /// Incoming QoS 2 identifiers of these sessions.
    pub incoming: u64,
    /// Bodies that several owed entries share.
    pub bodies: u64,
    /// Retained messages.
    pub retained: u64,
    /// Records of the registry.
    pub registry: u64,
    /// Records that nothing referred to, removed.
    pub orphans_removed: u64,
}

impl Default for RecoverySummary {
    fn default() -> Self {
        Self { next_session_key: SessionKey(1), next_message_id: MessageId(1), counts: RecoveryCounts::default() }
    }
}
