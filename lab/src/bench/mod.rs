//! What the filter costs: processor time and latency of Envoy with it and without it, side by side.
//!
//! Absolute times of a shared machine mean little, so everything is a ratio of things that ran in turn within the same
//! seconds: in each round every variant is driven once, the ratio is taken within the round, and the median of the rounds
//! is reported with their spread.

mod answerer;
mod closed_loop;
mod compared;
mod goals;
mod machine;
mod memory;
mod overhead;
mod page;
mod report;
mod simulated;
mod suite;
mod sweep;

pub use answerer::Answerer;
pub use closed_loop::{DriveError, Driven, drive};
pub use compared::comparison_table;
pub use goals::{Checked, Missed, missed, to_bound, to_least_request};
pub use machine::describe_machine;
pub use memory::{MemoryRow, measure_memory, memory_table};
pub use overhead::{BenchError, Case, Figures, Options, Row, measure};
pub use page::{NoSuchPart, replace_part};
pub use report::{render, to_json};
pub use simulated::{goals_table, simulated_table};
pub use suite::{Bound, Trial, short_trials, trials};
pub use sweep::{SWEEPS, Sweep};
