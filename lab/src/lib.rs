//! Emulated model servers, open-loop load and side-by-side comparisons.

pub mod load;
pub mod report;
pub mod workload;
