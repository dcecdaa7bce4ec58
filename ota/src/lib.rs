//! Firmware out: images, campaigns, offers, downloads; and the commands beside them.
//!
//! What decides is here, without socket, clock, file or randomness: they are arguments. `../DESIGN.md` has the flow and the invariants.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing))]

pub mod block;
pub mod campaign;
pub mod catalog;
pub mod command;
mod cut;
mod fields;
pub mod filter;
pub mod firmware;
pub mod fleet;
pub mod ids;
pub mod logs;
pub mod machine;
pub mod record;
pub mod schedule;
pub mod signature;
pub mod target;
pub mod token;
pub mod upload;
pub mod wire;
pub mod zone;
