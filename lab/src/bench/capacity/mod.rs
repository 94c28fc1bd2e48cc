//! What it brings that requests wait in the gateway: on a real Envoy, with the requests of the simulator's own scenarios.
//!
//! Each part sends what a scenario `held-*` would simulate to emulated servers that take one request at a time, so that what is measured
//! can be held against what is simulated of the same requests, such as one central queue.

mod head_of_line;
mod overload;
mod run;
mod slots;
mod tenants;
mod wake;

use super::Goal;

pub use head_of_line::measure_head_of_line;
pub use overload::measure_overload;
pub use run::WaitError;
pub use slots::{measure_equal_slots, measure_unequal_slots};
pub use tenants::measure_tenants;
pub use wake::measure_wake_ups;

/// What a part has shown.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    /// The figures, as Markdown.
    pub text: String,
    /// What they should be.
    pub goals: Vec<Goal>,
    /// What makes them void.
    pub remarks: Vec<String>,
}
