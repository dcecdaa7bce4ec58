//! What a run came to, for people and for programs.

pub mod html;
pub mod json;
mod svg;
pub mod text;

/// Quantiles that are told.
pub const QUANTILES: [(&str, f64); 6] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999), ("max", 1.0)];
