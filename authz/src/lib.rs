//! Who a device is and what it may do: registry, credential profiles, policy.
//!
//! ```text
//! CONNECT ─▶ Gatekeeper ─▶ Claim (profile) ─▶ Registry ─▶ secret opened ─▶ signature ─▶ nonce ─▶ Principal
//! PUBLISH, SUBSCRIBE ─▶ policy: a function of the principal and the topic
//! ```
//!
//! There is no clock, socket, file or random source here: time and random bytes are arguments.

pub mod gate;
pub mod names;
pub mod nonce;
pub mod policy;
pub mod profile;
pub mod registry;
pub mod secret;

pub use gate::{Gatekeeper, Refusal};
