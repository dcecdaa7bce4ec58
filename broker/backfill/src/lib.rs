//! Stored data in: what devices kept while they were offline arrives in batches, and each record is published once, in order.
//!
//! No socket, clock, thread or file: time is an argument. `../DESIGN.md` has the flow and the invariants, `../FORMAT.md` what devices send.
//!
//! ```text
//! batch::decode ─▶ Batch::check ─▶ budget::Budget::ask, pace::Pacer::slot ─▶ ledger::Ledger::{judge, take} ─▶ answer::Tally, answer::Ack
//! ```

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing))]

pub mod answer;
pub mod batch;
pub mod bounds;
pub mod budget;
mod hash;
pub mod ledger;
pub mod pace;
pub mod packed;
