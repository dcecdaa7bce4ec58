//! Who a device is and what it may do: registry, credential profiles, policy.
//!
//! ```text
//! CONNECT ─▶ Gatekeeper ─▶ Claim (profile) ─▶ Registry ─▶ secret opened ─▶ signature ─▶ nonce ─▶ journal ─▶ Admission
//!                       ├▶ Signed (keys) ─▶ Registry ─▶ public keys ─▶ signature ─▶ nonce ─▶ journal ─▶        │
//!                       ├▶ certificate (x509) ─▶ Registry ─▶ fingerprint, or the product's CA ─▶               │
//!                       └▶ Verifier (its product names one; one of them asks over HTTP) ─▶ Registry ─▶         │
//! PUBLISH, SUBSCRIBE ─▶ policy: a function of the principal, the topic, and the profiles that the product takes
//! HTTP API ─▶ Registry::plan_… ─▶ Change ─▶ store (the shell commits it) ─▶ Registry::apply ─▶ live sessions judged again
//! ```
//!
//! There is no clock, socket, file or random source here: time and random bytes are arguments.
//!
//! # Figures
//!
//! Printed by `cargo run --release -p turnpike-authz --example figures` (keys and certificates: `--example key_figures`); the lowest and the highest of five to eight runs on the 2-core
//! machine, which had other work beside it. A million devices of one product, names of 15 and secrets of 32 bytes.
//!
//! | what | cost |
//! |---|---|
//! | a device in memory | 208–211 bytes (a secret of 256 bytes, as long as one may be, adds 224) |
//! | a log-in by `native` | 2.9–5.7 µs |
//! | the same with a wrong secret | 2.7–4.8 µs |
//! | the same of an unknown device | 2.4–3.7 µs |
//! | a log-in by `native` with a challenge, both steps | 2.8–5.0 µs |
//! | a log-in by `aliyun`, hmacsha256 | 2.7–4.1 µs |
//! | a log-in by `tuya`, one of 256 products that take it; of an unknown device | 3.7–4.1 µs, 1.5–2.0 µs |
//! | a log-in by RSA-2048, PKCS#1; refused (both paddings are tried) | 26–34 µs, 50–82 µs |
//! | the same by RSA-4096 | 94–181 µs, 189–249 µs |
//! | the same by RSA-1024, where it is allowed | 71–105 µs, 141–185 µs |
//! | the same by ECDSA P-256; by Ed25519 | 62–85 µs; 57–80 µs |
//! | a log-in by certificate: registered; by the product's CA | 2.8–4.7 µs; 69–95 µs |
//! | a device with an Ed25519 key and no secret in memory | 352–358 bytes |
//! | a publish under `dev/…`: allowed, refused | 18–33 ns, 9–16 ns |
//! | a publish under `/sys/…`, `/ext/rrpc/…`, a thousand products saying which profiles they take | 22–28 ns, 31–40 ns |
//! | a publish on a topic of a vendor: allowed, refused | 23–41 ns, 12–17 ns |
//! | a row of an import, planned and applied | 1.4–2.3 µs |
//! | a page of 100 devices | 29–46 µs |
//! | a nonce taken | 0.26–0.35 µs, 48 bytes while it is remembered |

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing))]

mod allowed;
pub mod attest;
pub mod audit;
pub mod callout;
pub mod cipher;
pub mod credential;
pub mod desk;
pub mod gate;
pub mod guard;
pub mod guarded;
pub mod import;
pub mod keys;
pub mod labels;
pub mod limits;
pub mod names;
pub mod nonce;
pub mod origin;
pub mod people;
pub mod plan;
pub mod platform;
pub mod policy;
pub mod presale;
pub mod product;
pub mod profile;
pub mod quota;
mod record;
pub mod refusal;
pub mod registry;
pub mod secret;
mod signed;
mod table;
pub mod verifier;
pub mod x509;

pub use credential::Credentials;
pub use gate::Gatekeeper;
pub use refusal::Refusal;
pub use verifier::Verifier;
