//! Platforms: other clouds, which come in over HTTPS with a certificate of their own and act for their users. What they are asked for is
//! chapter 4 of T/CHEAA 0001.2 (*Cloud to cloud interconnection for smart household appliances, part 2: information security*); numbers
//! in brackets are its sections. `../PLATFORM.md` says the same to the platforms' engineers.
//!
//! ```text
//! body ─▶ Fields ─▶ Request::read ─▶ Platforms::admit ─▶ Admitted ─▶ plan_log_in, plan_refresh, data keys, a control …
//!         flat JSON   typed, whole     who? signed? fresh? once?          │
//!                                      is the access token good?          └▶ Admitted::sign: the answer proves the broker, too
//! operator ─▶ Platforms::plan_… ─▶ Change ─▶ store ─▶ Platforms::apply
//! ```
//!
//! **Who.** A platform has a random number ([`PlatId`], 4.1.2.1 a), a secret that both sides sign with and that never travels again
//! ([`Token`] of kind *AuthToken*, 4.1.2.1 b; sealed under the master key), and one to four certificates (4.1.2.1 c: the pair is good between these two
//! platforms alone). A request is let in only if all three fit together; which of them doesn't, nobody is told.
//!
//! **Log-in.** It gives a *family* of tokens: an AccessToken of two hours and a RefreshToken of fourteen days (4.1.2.2). A refresh uses the RefreshToken up
//! and replaces both. Using it again means that two have it: the family ends. Both are kept as SHA-256 alone: they are made of 280 bits, so
//! nothing slower is needed. The AccessTokens live in memory; after a restart a platform refreshes.
//!
//! **Requests** (4.1.3.2) have a timestamp of at most ten minutes from the broker's clock, a nonce that is good once, and an HMAC-SHA256 over method, path and
//! all fields ([`Fields::canonical`]).
//!
//! **Personal data** (4.1.3.1) travel encrypted under a key of one user, good for an hour ([`DataKey`]). The user is an HMAC-SHA256 of whatever the
//! platform calls them ([`UserId`]): no name, number or address of a person gets here.
//!
//! Everything is bounded: see the constants of this module.

mod cause;
mod counts;
mod data_key;
mod fields;
mod id;
mod judge;
mod plan;
mod record;
mod request;
mod session;
mod table;
mod token;
mod users;

#[cfg(test)]
mod tests;

pub use cause::{Cause, Code};
pub use data_key::{DataKey, IV_BYTES, IssuedKey};
pub use fields::{Fields, Value};
pub use id::{PlatId, UserId};
pub use judge::{Admitted, Refused, sign};
pub use plan::{AuthMaking, Created, Edit, PlanError};
pub use record::{Change, RecordError, is_ours};
pub use request::{Body, Message, Method, Operation, Request};
pub use session::{Issued, LogInRandom, Refresh};
pub use table::{Grant, Platform, Platforms};
pub use token::{Family, FamilyId, Token};
pub use users::{PlatformDecides, Users};

/// How long an AccessToken is good, in milliseconds (4.1.2.2 c).
pub const ACCESS_MS: u64 = 2 * 60 * 60 * 1000;
/// How long a RefreshToken is good, in milliseconds (4.1.2.2 c).
pub const REFRESH_MS: u64 = 14 * 24 * 60 * 60 * 1000;
/// How long a user's data key is good, in milliseconds (4.1.3.1 a 2).
pub const DATA_KEY_MS: u64 = 60 * 60 * 1000;
/// How far a timestamp may be from the broker's clock, in milliseconds (4.1.3.2 b).
pub const WINDOW_MS: u64 = crate::nonce::WINDOW_MS;
/// How long a platform's certificate may be valid in all, in milliseconds (4.1.1 b): 24 months, the longest there are, and a day.
pub const CERTIFICATE_MS_MAX: u64 = (731 + 1) * 24 * 60 * 60 * 1000;

/// Platforms.
pub const PLATFORMS_MAX: usize = 1_000;
/// Certificates of one platform: the one in use, and those that are to follow it.
pub const CERTIFICATES_MAX: usize = 4;
/// Products that one platform is granted.
pub const GRANTS_MAX: usize = 1_000;
/// Log-ins of one platform at a time; one more ends the oldest.
pub const FAMILIES_MAX: usize = 8;
/// Users of one platform who have a data key at a time, about 120 bytes each.
pub const DATA_KEYS_MAX: usize = 100_000;
/// Bytes of a payload, in either direction.
pub const PAYLOAD_BYTES_MAX: usize = 32 << 10;
