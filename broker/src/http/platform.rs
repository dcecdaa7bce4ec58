//! The listener for other clouds: HTTPS with a certificate of the client's, a POST of a flat JSON object, and codes for answers.
//! `authz/PLATFORM.md` has the requests.
//!
//! ```text
//! door: accept ─▶ not banned? ─▶ TLS, certificate ─▶ desk: one of the requests? ─▶ JSON ─▶ Request ─▶ admitted? ─▶ done, on record ─▶ signed answer
//! ```
//!
//! On a thread of its own with a single-threaded runtime, as the operators' API is. Bounds: connections, the time of a handshake, of a head and of a body, bytes of
//! a head and of a body, the time of a connection.

mod book;
mod desk;
mod door;
mod json;
mod work;

pub use book::{Book, NotCommitted};
pub use desk::{Desk, DeskParts};
pub use door::Door;

/// Bytes of a body.
const BODY_BYTES_MAX: usize = 64 << 10;
