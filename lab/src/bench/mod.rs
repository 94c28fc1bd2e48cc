//! What the filter costs: processor time and latency of Envoy with it and without it, side by side.
//!
//! Absolute times of a shared machine mean little, so everything is a ratio of things that ran in turn within the same
//! seconds: in each round every variant is driven once, the ratio is taken within the round, and the median of the rounds
//! is reported with their spread.

mod answerer;
mod capacity;
mod closed_loop;
mod compared;
mod cost_goals;
mod devices;
mod faults;
mod goal;
mod goals;
mod machine;
mod memory;
mod overhead;
mod page;
mod report;
mod simulated;
mod simulated_faults;
mod start;
mod suite;
mod sweep;
mod wire;

pub use answerer::{Answer, Answerer};
pub use capacity::{
    Shown, WaitError, measure_equal_slots, measure_head_of_line, measure_overload, measure_tenants,
    measure_unequal_slots, measure_wake_ups,
};
pub use closed_loop::{DriveError, Driven, Load, Until, drive, posts};
pub use compared::comparison_table;
pub use cost_goals::{overhead_goals, worker_goals};
pub use devices::{Chooser, SharedGpus, SharedGpusError, SharedGpusRow, shared_gpus_table};
pub use faults::{
    Check, Contender, Event, FaultError, Row as FaultRow, Run, Scenario as FaultScenario, Setup,
    fault_scenarios, faults_table, judge, run_together,
};
pub use goal::{Goal, measured_goals_table};
pub use goals::{Checked, Missed, missed, to_bound, to_least_request};
pub use machine::describe_machine;
pub use memory::{MemoryRow, measure_memory, memory_table};
pub use overhead::{
    BenchError, Case, Counted, Figures, Options, Row, cores, measure, split_by_cores,
};
pub use page::{NoSuchPart, replace_part};
pub use report::{render, to_json, workers_table};
pub use simulated::{goals_table, simulated_table};
pub use simulated_faults::{SIMULATED_FAULTS, simulate_fault, simulated_faults_table};
pub use start::{StartRow, measure_start, start_table};
pub use suite::{Bound, Trial, short_trials, trials};
pub use sweep::{SWEEPS, Sweep};
