//! What users see of servers that fail, hang, slow down, load, or are full: a real Envoy with Paceline beside one with `LEAST_REQUEST` and
//! Envoy's own outlier detection and health checks.
//!
//! The contenders of a [`Scenario`] run at the same time, each with servers and an Envoy of its own, on the same requests: what else the machine
//! does hits all of them. Times are real.

mod contender;
mod run;
mod scenario;
mod scenarios;
mod verdict;

pub use contender::{Contender, Setup};
pub use run::{FaultError, Run, run_together};
pub use scenario::{Check, Event, Scenario};
pub use scenarios::fault_scenarios;
pub use verdict::{Row, faults_table, judge};
