//! End to end: the real broker process and real sockets.

mod access;
mod audit;
mod bad_input;
mod clients;
mod durable;
mod gate;
mod harness;
mod limits;
mod ops;
mod people;
mod slow;
mod wire;
