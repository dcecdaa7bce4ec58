//! End to end: the real broker process and real sockets.

mod access;
mod audit;
mod bad_input;
mod callout;
mod clients;
mod clones;
mod durable;
mod gate;
mod harness;
mod ops;
mod slow;
mod wire;
