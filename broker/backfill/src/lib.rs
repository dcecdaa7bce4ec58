//! Stored data in: what devices kept while they were offline arrives in batches, and each record is published once, in order.
//!
//! No socket, clock, thread or file: time is an argument. `../DESIGN.md` has the flow and the invariants.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing))]
