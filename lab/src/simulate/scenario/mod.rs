//! What is simulated: a scenario is a file, and each of its cases a run of every policy with every seed.

mod events;
mod file;
mod limits;
mod one_or_many;
mod setup;

use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};

use super::call::Caller;
use super::engine::Incident;
use super::policy::Policy;
use crate::compare::CapacityError;
use crate::json::{self, JsonError};
use crate::model::{ControlError, Fleet};
use crate::workload::{Workload, WorkloadError};

pub use setup::Case;

/// A checked scenario. Its JSON form is described in `docs/simulator.md`.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name: that of its file.
    pub name: String,
    /// What it is about.
    pub description: String,
    /// The servers.
    pub fleet: Fleet,
    /// What is asked of them.
    pub workload: Workload,
    /// How much of it; a case each.
    pub offered: Offered,
    /// For how long.
    pub length: Length,
    /// Gateway processes; a case each.
    pub gateways: Vec<usize>,
    /// Workers of a gateway; a case each.
    pub workers: Vec<usize>,
    /// The part of the requests, 0 to 0.9, whose figures are not counted after the warm-up: the first ones.
    pub warm_up: f64,
    /// When gateways give a request up.
    pub timeout: Option<Duration>,
    /// Answers within this time count as good.
    pub goal: Option<Duration>,
    /// Clients that do not wait.
    pub abandonment: Option<Abandonment>,
    /// Who sends the requests; one that says nothing of itself, unless given.
    pub callers: Vec<Caller>,
    /// Requests that come before the workload, the first first. Figures leave them out.
    pub before: Vec<Before>,
    /// Which servers are there from the start.
    pub present: Vec<bool>,
    /// What happens, in the order of time.
    pub incidents: Vec<Incident>,
    /// What is compared.
    pub policies: Vec<Policy>,
    /// How many seeds; they are 1, 2, 3 and so on.
    pub seeds: usize,
    /// What the filter's configuration has beside upstreams and policy.
    pub config: Map<String, Value>,
}

/// How much is asked of the fleet.
#[derive(Clone, Debug, PartialEq)]
pub enum Offered {
    /// Parts of what the fleet can do at most.
    Load(Vec<f64>),
    /// Requests per second.
    Rate(Vec<f64>),
    /// What a trace recorded.
    Recorded,
    /// So many clients that send a request when their last one ended.
    Clients(Vec<NonZeroUsize>),
}

/// How long a run is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Length {
    /// So many requests.
    Requests(usize),
    /// Requests for so long.
    Seconds(Duration),
}

/// Clients that give up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Abandonment {
    /// The part of the requests, 0 to 1 and chosen at random.
    pub share: f64,
    /// How long they wait.
    pub after: Duration,
}

/// A request that comes before the workload.
#[derive(Clone, Debug)]
pub struct Before {
    /// How long before the workload begins.
    pub ahead: Duration,
    /// It is the first request of this.
    pub workload: Workload,
}

/// A scenario that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// Neither a scenario that is shipped nor a file that can be read.
    #[error("{}: {source}; give a JSON file or one of the scenarios {shipped}", path.display())]
    Read {
        /// What was asked for.
        path: PathBuf,
        /// Why it cannot be read.
        source: std::io::Error,
        /// The scenarios that are shipped.
        shipped: String,
    },
    /// Not such an object.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A place in it, the value there and what is allowed.
    #[error("{0}")]
    Inside(String),
    /// Its workload cannot be made.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// The fleet can do none of its workload.
    #[error(transparent)]
    Capacity(#[from] CapacityError),
    /// An event tells a server what it cannot be.
    #[error(transparent)]
    Control(#[from] ControlError),
}

impl Scenario {
    /// A scenario with defaults for all else: one gateway of one worker, nothing happens, five seeds.
    ///
    /// # Errors
    /// A load or rate out of range.
    pub fn new(fleet: Fleet, workload: Workload, offered: Offered) -> Result<Self, ScenarioError> {
        file::check_offered(&offered)?;
        Ok(Self {
            name: "scenario".to_owned(),
            description: format!("{} servers, {workload}", fleet.servers().len()),
            length: Length::Requests(file::DEFAULT_REQUESTS),
            gateways: vec![1],
            workers: vec![1],
            warm_up: file::DEFAULT_WARM_UP,
            timeout: None,
            goal: None,
            abandonment: None,
            callers: vec![Caller::default()],
            before: Vec::new(),
            present: vec![true; fleet.servers().len()],
            incidents: Vec::new(),
            policies: file::default_policies(&fleet)?,
            seeds: file::DEFAULT_SEEDS,
            config: Map::new(),
            fleet,
            workload,
            offered,
        })
    }

    /// Makes runs so many requests long.
    ///
    /// # Errors
    /// If a run cannot be so long.
    pub fn set_requests(&mut self, requests: usize) -> Result<(), ScenarioError> {
        self.length = file::check_requests(requests)?;
        Ok(())
    }

    /// Reads the JSON form; files that it names are found from `directory`.
    ///
    /// # Errors
    /// Names the place, the value and what is allowed.
    pub fn from_json(name: &str, json: &str, directory: &Path) -> Result<Self, ScenarioError> {
        json::from_slice::<file::ScenarioFile>(json.as_bytes())?.check(name, directory)
    }

    /// The cases, in an order in which the load changes slowest.
    ///
    /// # Errors
    /// The workload cannot be made, or the fleet can do nothing of it.
    pub fn cases(&self) -> Result<Vec<Case<'_>>, ScenarioError> {
        setup::cases(self)
    }
}

impl fmt::Display for Offered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Load(loads) => write!(f, "load {loads:?}"),
            Self::Rate(rates) => write!(f, "{rates:?} requests a second"),
            Self::Recorded => f.write_str("as recorded"),
            Self::Clients(clients) => write!(f, "{clients:?} clients"),
        }
    }
}
