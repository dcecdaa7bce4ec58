//! The load harness: any MQTT broker at an address, and the floor to hold it against.
//!
//! ```text
//! cli ─▶ Spec ─▶ conduct (the parent: phases, CPU and memory of the broker) ─▶ Report ─▶ text, JSON, HTML
//!                   │ commands        ▲ events
//!                   ▼                 │
//!                load (a process or a thread each): one epoll loop, its share of the clients
//! ```
//!
//! **Invariant:** the parent generates no load, and a worker looks at nothing but its sockets and the clock. Times are
//! `CLOCK_MONOTONIC`, which is the same in all processes, so a message may be stamped in one and read in another.

#![allow(clippy::print_stdout, reason = "the package is a command that prints")]

pub mod backfill;
mod behind;
pub mod bindings;
pub mod cli;
pub mod clock;
pub mod compare;
pub mod conduct;
pub mod cpu;
pub mod floor;
mod http;
pub mod identity;
pub mod load;
pub mod logins;
pub mod ota;
pub mod outcome;
pub mod plan;
pub mod protocol;
pub mod report;
pub mod spec;
pub mod workers;
