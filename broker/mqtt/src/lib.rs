//! MQTT 3.1, 3.1.1 and 5.0 on the wire, without I/O: packets, codec, topics and reason codes.
//!
//! Both directions of every packet decode and encode, since the broker, the harness and the tests share this crate.
//!
//! ```text
//! bytes ─▶ frame() ─▶ Frame ─▶ decode(version, frame) ─▶ Packet<'_> (borrows)      encode(version, &packet, &mut Vec<u8>)
//! ```

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing))]
