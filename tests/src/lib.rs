//! What the end-to-end tests stand on: the real broker as a process, and clients that say exactly what a test wants said.
//!
//! [`wire`] is a second, independent codec, written from the specification and not from `turnpike-mqtt`: a misreading that the
//! broker's encoder and decoder share would otherwise go unseen. [`client`] speaks it over a blocking socket, [`broker`] starts,
//! kills and restarts the process, [`http`] asks its API, [`peers`] finds the other people's clients, [`bucket`] is an S3.

pub mod broker;
pub mod bucket;
pub mod certificate;
pub mod client;
pub mod credential;
pub mod http;
pub mod https;
pub mod mqtts;
pub mod peers;
pub mod time;
pub mod wire;
