//! A discrete-event simulator: what policies do to the latency of a fleet, at virtual time.
//!
//! The servers are those of [`crate::model`], and Paceline's policies are the filter's own code: its balancer, on shared data in
//! memory that each gateway's workers have in common. Equal seeds give equal figures, bit for bit, and every policy is
//! given the same calls.

mod balancer;
mod bounds;
mod call;
mod engine;
mod envoy;
mod experiment;
mod faulty;
mod fleet;
mod holding;
mod paceline;
mod plan;
mod policy;
mod prequal;
mod probed;
mod probing;
mod scenario;
mod settings;
mod shipped;
mod statistics;
mod table;
mod tower;

pub use self::paceline::Gateways;
pub use balancer::{Counters, Ended, LoadBalancer, Pick, Refused};
pub use bounds::{CentralQueue, Clairvoyant, MeanCall, Oracle, Rule, TrueWork};
pub use call::{Call, Caller, Ending};
pub use engine::{Happening, Incident, Reports, Run, Setup, run};
pub use envoy::{Guarded, LeastRequest, Random, RoundRobin};
pub use experiment::{CaseResult, Part, PolicyResult, RunResult, SeedRatios, run_case, run_one};
pub use fleet::{Fleet, Replica};
pub use plan::{Need, Plan};
pub use policy::{Bound, Other, Policy};
pub use prequal::Prequal;
pub use scenario::{Abandonment, Before, Case, Length, Offered, Scenario, ScenarioError};
pub use settings::Settings;
pub use statistics::{Bootstrap, BySeed, Estimate, Figure, Figures, Sample};
pub use table::{needs, notes, overview, picture, table};
pub use tower::PeakEwma;
