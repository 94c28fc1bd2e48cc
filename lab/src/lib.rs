//! Emulated model servers, open-loop load and side-by-side comparisons.

pub mod model;
pub mod workload;
