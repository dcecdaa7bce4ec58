//! Who a device is and what it may do: registry, credential profiles, policy.
//!
//! ```text
//! CONNECT ─▶ Gatekeeper ─▶ Claim (profile) ─▶ Registry ─▶ secret opened ─▶ signature ─▶ nonce ─▶ Principal
//! PUBLISH, SUBSCRIBE ─▶ policy: a function of the principal and the topic
//! HTTP API ─▶ Registry::plan_… ─▶ Change ─▶ store (the shell commits it) ─▶ Registry::apply ─▶ live sessions judged again
//! ```
//!
//! There is no clock, socket, file or random source here: time and random bytes are arguments.
//!
//! # Figures
//!
//! `cargo run --release -p turnpike-authz --example figures` prints them.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing))]

pub mod credential;
pub mod gate;
pub mod import;
pub mod names;
pub mod nonce;
pub mod plan;
pub mod policy;
pub mod profile;
mod record;
pub mod refusal;
pub mod registry;
pub mod secret;
mod signed;

pub use credential::Credentials;
pub use gate::Gatekeeper;
pub use refusal::Refusal;
