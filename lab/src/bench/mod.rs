//! What the filter costs: processor time and latency of Envoy with it and without it, side by side.
//!
//! Absolute times of a shared machine mean little, so everything is a ratio of things that ran in turn within the same
//! seconds: in each round every variant is driven once, the ratio is taken within the round, and the median of the rounds
//! is reported with their spread.

mod answerer;
mod closed_loop;
mod overhead;
mod report;

pub use answerer::Answerer;
pub use closed_loop::{DriveError, Driven, drive};
pub use overhead::{BenchError, Case, Figures, Options, Row, measure};
pub use report::{render, to_json};
