//! What the filter costs: processor time and latency of Envoy with it and without it, side by side.
//!
//! Absolute times of a shared machine mean little, so everything is a ratio of things that ran in turn within the same
//! seconds: in each round every variant is driven once, the ratio is taken within the round, and the median of the rounds
//! is reported with their spread.

mod answerer;
mod closed_loop;
mod goals;
mod machine;
mod overhead;
mod page;
mod report;
mod suite;

pub use answerer::Answerer;
pub use closed_loop::{DriveError, Driven, drive};
pub use goals::{Missed, missed};
pub use machine::describe_machine;
pub use overhead::{BenchError, Case, Figures, Options, Row, measure};
pub use page::{NoSuchPart, replace_part};
pub use report::{render, to_json};
pub use suite::{Bound, Trial, short_trials, trials};
