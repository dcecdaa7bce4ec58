//! End to end: the real broker process and real sockets.

mod access;
mod audit;
mod bad_input;
mod clients;
mod durable;
mod gate;
mod harness;
mod ops;
mod platform;
mod slow;
mod wire;
