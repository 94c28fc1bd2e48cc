//! A run: what it is made of, and what it showed.

mod clock;
mod finished;

use std::num::NonZeroUsize;
use std::time::Duration;

use paceline::outcome::Outcome;

use super::balancer::{Counters, LoadBalancer};
use super::call::{Call, Caller, Ending};
use crate::model::{Control, ControlError, DeviceSpec, ServerSpec, Time};
use clock::Engine;

/// All of a run but the policy. Equal setups bring equal load to every policy.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The servers, by number.
    pub servers: Vec<ServerSpec>,
    /// The devices that some of them share.
    pub devices: Vec<DeviceSpec>,
    /// Requests per second that each of them can do at most, for bounds that know it.
    pub capacities: Vec<f64>,
    /// Which of them may be chosen from the start.
    pub present: Vec<bool>,
    /// The calls; in an open loop in the order of their arrivals.
    pub calls: Vec<Call>,
    /// Who sends them.
    pub callers: Vec<Caller>,
    /// How many of them, the first, come before the workload and are in no figure.
    pub before: usize,
    /// A closed loop: so many clients, each of which sends its next call when its last one ended.
    pub concurrency: Option<NonZeroUsize>,
    /// What happens to servers and gateways, in the order of time.
    pub incidents: Vec<Incident>,
    /// When the gateway gives a call up, counted from the sending.
    pub timeout: Option<Duration>,
    /// Gateway processes, which know nothing of each other.
    pub gateways: usize,
    /// Workers in each of them.
    pub workers: usize,
    /// Decides what is random about the servers and the policy.
    pub seed: u64,
}

/// Something that happens to servers or gateways at a certain time.
#[derive(Clone, Debug, PartialEq)]
pub struct Incident {
    /// When.
    pub at: Time,
    /// What.
    pub what: Happening,
}

/// The kinds of [`Incident`].
#[derive(Clone, Debug, PartialEq)]
pub enum Happening {
    /// A server is told something.
    Control {
        /// Which server.
        server: usize,
        /// What it is told.
        control: Control,
    },
    /// Gateways learn of a server.
    Join(usize),
    /// Gateways are told to send no more calls to a server.
    Leave(usize),
    /// A worker ends without a word and another takes its place.
    RestartWorker {
        /// In which process.
        gateway: usize,
        /// Which of its workers.
        worker: usize,
    },
    /// From now on gateways hear so of the ends of calls.
    Reports(Reports),
}

/// How gateways hear of the ends of their calls.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reports {
    /// The part of the ends, 0 to 1, of which they never hear.
    pub lost: f64,
    /// How late they hear of the others.
    pub delay: Duration,
}

/// What a run showed.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// What became of each call.
    pub endings: Vec<Ending>,
    /// How many of them, the first, are in no figure.
    pub before: usize,
    /// The most calls that were outstanding at once, by server.
    pub peak_outstanding: Vec<usize>,
    /// Times that a sequence was preempted for want of KV memory.
    pub preemptions: u64,
    /// Times that a device ran out of memory, and all its servers crashed.
    pub crashes: u64,
    /// What the policy counted.
    pub counters: Counters,
}

/// Runs `setup` under a policy, to the end of its last call.
///
/// # Errors
/// A server is told something that it cannot be.
pub fn run(setup: &Setup, balancer: &mut dyn LoadBalancer) -> Result<Run, ControlError> {
    let mut engine = Engine::new(setup, balancer);
    engine.run()?;
    Ok(engine.finish())
}

impl Run {
    /// How many calls ended so.
    pub fn count(&self, outcome: Outcome) -> usize {
        let endings = self.endings.iter();
        endings
            .filter(|it| it.end.is_some() && it.outcome == outcome)
            .count()
    }
}
