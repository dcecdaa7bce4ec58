//! End to end: the real broker process and real sockets.

mod access;
mod audit;
mod backfill;
mod bad_input;
mod callout;
mod certificates;
mod cipher;
mod clients;
mod clones;
mod durable;
mod enroll;
mod erasure;
mod firmware;
mod gate;
mod harness;
mod labels;
mod limits;
mod linkkit;
mod ops;
mod ota;
mod people;
mod platform;
mod profiles;
mod slow;
mod wire;
