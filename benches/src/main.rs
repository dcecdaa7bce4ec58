//! The `turnpike-bench` binary.
fn main() {}
