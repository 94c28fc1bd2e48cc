//! Policies side by side, on the same requests: emulated servers, a real Envoy, open-loop load.
//!
//! A [`Plan`] says what to compare and on what; [`Plan::prepare`] finds out whether it can be done, and [`Prepared::run`] does it. Absolute figures are those of emulated servers; what is worth knowing is
//! how policies compare within one run of it.

mod capacity;
mod plan;
mod policy;

pub use capacity::{CapacityError, capacities, capacity};
pub use plan::{CompareError, Observer, Plan, Prepared, Setting, Step};
pub use policy::Policy;
