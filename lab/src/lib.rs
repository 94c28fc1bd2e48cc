//! Emulated model servers, open-loop load and side-by-side comparisons.

pub mod bench;
pub mod compare;
pub mod docker;
pub mod gateway;
pub mod image;
pub mod json;
pub mod load;
pub mod model;
pub mod report;
pub mod serve;
pub mod simulate;
pub mod workload;
