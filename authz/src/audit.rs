//! The audit: who did what to whom, in lines that can't be changed, taken away or put in unseen.
//!
//! ```text
//! Event ─encode─▶ body ─▶ Link::append ─▶ {"seq":7,…body…,"mac":"…"}          a segment: a file of such lines
//!                                             mac = HMAC-SHA256(key, mac of the line before ‖ the line up to its mac)
//! segments ─▶ Verifier ─▶ Fault: which line is changed, missing, out of order
//! ```
//!
//! **The chain.** Each line's `mac` covers the line and, through the `mac` before it, all lines before it. The key is derived from the
//! master key: who can write the files and not read that key can't make the chain again. The first line of a segment
//! repeats the last `mac` of the segment before, so that the chain can be followed from any segment on: retention may remove the oldest ones.
//!
//! **The head.** Cutting lines off the end leaves a chain that is good as far as it goes. So the sequence number and `mac` of the last line that
//! is on disk are kept apart ([`head`]), under the same key. Who puts an old head *and* the old end of the chain back isn't found by these
//! files alone; an anchor that was taken elsewhere in time (a metric, a line of the log) finds him too ([`chain::Verifier::expect`]).
//!
//! **Never a secret.** An [`Event`] is made of closed enums, numbers, addresses and [`Id`]s, and an `Id` can be made only of
//! types that say of themselves that they are identifiers ([`Identifier`]):
//!
//! ```compile_fail
//! use turnpike_authz::{audit::Id, secret::Secret};
//! let secret = Secret::generate([0; 16]);
//! let id = Id::of(&secret);
//! ```
//!
//! ```compile_fail
//! let id = turnpike_authz::audit::Id::of("whatever was at hand");
//! ```
//!
//! There is no file, clock or thread here: the shell owns these.
//!
//! **Figures**, of `cargo run --release -p turnpike-authz --example audit_cost` on the 2-core machine, two runs: a log-in is 272 bytes; encoding it costs
//! the shard 0.34–0.35 µs, chaining it the writer 0.51–0.53 µs, verifying it 0.95 µs.

pub mod chain;
mod change;
mod event;
pub mod head;
mod id;
mod people;

pub use change::{Described, describe};
pub use event::{Action, Event, Key, Outcome, Subject, Value};
pub use id::{Claimed, Id, TokenId, client};
pub use people::{DescribedPeople, describe_people};
pub use turnpike_core::mask::{Identifier, Masked};

/// Bytes that a line may have, its line feed not counted. A longer one is none of ours.
pub const LINE_BYTES_MAX: usize = 32 << 10;
