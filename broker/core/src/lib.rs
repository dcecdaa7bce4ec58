//! The broker without I/O: sessions, router, retained messages, wills, limits, and the state machine of one shard.
//!
//! Time and randomness are arguments; there is no clock, socket, thread or global here, so the same code runs in the
//! broker and in simulation. `../DESIGN.md` says how the pieces meet.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing))]

pub mod batch;
pub mod clock;
pub mod concern;
mod connection;
pub mod counters;
pub mod durable;
pub mod feed;
mod full;
pub mod gate;
pub mod ids;
pub mod limits;
pub mod mask;
pub mod message;
pub mod meter;
mod outgoing;
pub mod retain;
pub mod router;
mod session;
mod sessions;
pub mod shard;
pub mod shared;
pub mod table;
pub mod wheel;
