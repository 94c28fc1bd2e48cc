//! Emulated model servers, open-loop load and side-by-side comparisons.

pub mod gateway;
pub mod load;
pub mod model;
pub mod workload;
