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
//! Printed by `cargo run --release -p turnpike-authz --example figures`; the lowest and the highest of five to eight runs on the 2-core
//! machine, which had other work beside it. A million devices of one product, names of 15 and secrets of 32 bytes.
//!
//! | what | cost |
//! |---|---|
//! | a device in memory | 208–211 bytes (a secret of 256 bytes, as long as one may be, adds 224) |
//! | a log-in by `native` | 2.9–5.7 µs |
//! | the same with a wrong secret | 2.7–4.8 µs |
//! | the same of an unknown device | 2.4–3.7 µs |
//! | a log-in by `native` with a challenge, both steps | 2.8–5.0 µs |
//! | a log-in by `aliyun`, hmacsha256 | 2.7–3.3 µs |
//! | a publish under `dev/…`: allowed, refused | 18–33 ns, 9–16 ns |
//! | a publish under `/sys/…`, `/ext/rrpc/…` | 18–29 ns, 39–63 ns |
//! | a row of an import, planned and applied | 1.4–2.3 µs |
//! | a page of 100 devices | 29–46 µs |
//! | a nonce taken (two runs) | 0.26–0.27 µs, 48 bytes while it is remembered |

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing))]

pub mod cipher;
pub mod credential;
pub mod gate;
pub mod import;
pub mod names;
pub mod nonce;
pub mod plan;
pub mod policy;
pub mod presale;
pub mod profile;
mod record;
pub mod refusal;
pub mod registry;
pub mod secret;
mod signed;

pub use credential::Credentials;
pub use gate::Gatekeeper;
pub use refusal::Refusal;
