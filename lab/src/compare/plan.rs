use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::{CapacityError, Policy, capacity};
use crate::gateway::{Balancing, Gateway, GatewayError, Topology, envoy_binary};
use crate::load::{LoadError, Progress, Settings, drive};
use crate::model::Fleet;
use crate::report::{Comparison, RunReport, Series};
use crate::serve::{FleetServer, Options, StartError};
use crate::workload::{Request, Workload, WorkloadError};

/// What to compare, and on what.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The servers.
    pub fleet: Fleet,
    /// What is asked of them.
    pub workload: Workload,
    /// The policies, in their order in the result; the last is the one that the others are measured by.
    pub policies: Vec<Policy>,
    /// The part of the fleet's [`capacity`] that is asked for, 0.01 to 2.
    pub load: f64,
    /// Requests of a run.
    pub requests: usize,
    /// The seed of each run. At least one, no two alike.
    pub seeds: Vec<u64>,
    /// Seconds of emulated time in a second of real time.
    pub time_scale: f64,
    /// The part of the requests, 0 to 0.9, that comes first and is not measured.
    pub warm_up: f64,
    /// Emulated time after which a request is given up.
    pub timeout: Duration,
    /// Envoy's worker threads.
    pub workers: u32,
}

/// All that one needs to know to compare again.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Setting {
    /// The servers' names.
    pub servers: Vec<String>,
    /// Sizes and arrivals.
    pub workload: String,
    /// Requests per second that all servers together can serve when they are always busy.
    pub capacity: f64,
    /// The part of the capacity that was asked for.
    pub load: f64,
    /// Requests per second.
    pub rate: f64,
    /// Requests of a run, those of the warm-up too.
    pub requests: usize,
    /// The part of the requests that was not measured.
    pub warm_up: f64,
    /// Seconds of emulated time in a second of real time.
    pub time_scale: f64,
    /// Seconds of emulated time after which a request was given up.
    pub timeout_seconds: f64,
    /// Envoy's worker threads.
    pub workers: u32,
}

/// Where a comparison is.
#[derive(Clone, Debug)]
pub struct Step {
    /// The policy under test.
    pub policy: String,
    /// The seed of its arrivals.
    pub seed: u64,
    /// Which run it is, from 0.
    pub run: usize,
    /// How far it has come; `None` before its first request.
    pub progress: Option<Progress>,
}

/// A comparison that cannot be made.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each says what it is")]
pub enum CompareError {
    #[error("load: {0} is not allowed, 0.01 to 2 is")]
    Load(f64),
    #[error("no policy to compare: give one or more")]
    NoPolicies,
    #[error("policy {0} is given twice")]
    RepeatedPolicy(String),
    #[error("no seed: give one or more")]
    NoSeeds,
    #[error("seed {0} is given twice")]
    RepeatedSeed(u64),
    #[error("workers: {0} is not allowed, 1 to 64 is")]
    Workers(u32),
    #[error(transparent)]
    Capacity(#[from] CapacityError),
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    #[error("the emulated servers: {0}")]
    Serve(#[from] StartError),
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    #[error(transparent)]
    Driving(#[from] LoadError),
}

/// Who is told of each [`Step`].
pub type Observer = Arc<dyn Fn(Step) + Send + Sync>;

impl Plan {
    /// How many runs that is.
    pub fn runs(&self) -> usize {
        self.policies.len() * self.seeds.len()
    }

    /// Runs every policy on every seed, one run at a time. For each seed the policies follow each other, on the same requests, so
    /// that a machine that changes its pace does it to all of them. Each run has servers and an Envoy of its own.
    ///
    /// Dropping the future ends the Envoy of the moment.
    ///
    /// # Errors
    /// Whatever is missing or wrong is found before the first run; see [`CompareError`].
    pub async fn run(&self, observer: &Observer) -> Result<Comparison<Setting>, CompareError> {
        self.check()?;
        let capacity = capacity(&self.fleet, &self.workload)?;
        let rate = capacity * self.load;
        let mut reports: Vec<Vec<RunReport>> = self.policies.iter().map(|_| Vec::new()).collect();
        let mut run = 0;
        for &seed in &self.seeds {
            let requests = self.workload.requests(self.requests, Some(rate), seed)?;
            for (policy, reports) in self.policies.iter().zip(&mut reports) {
                let step = Step {
                    policy: policy.to_string(),
                    seed,
                    run,
                    progress: None,
                };
                observer(step.clone());
                reports.push(
                    self.run_one(policy, step, requests.clone(), observer)
                        .await?,
                );
                run += 1;
            }
        }
        let names = self.policies.iter().map(Policy::name);
        let series = names
            .zip(reports)
            .map(|(name, runs)| Series::new(name, runs))
            .collect();
        Ok(Comparison::new(self.setting(capacity), series))
    }

    async fn run_one(
        &self,
        policy: &Policy,
        step: Step,
        requests: Vec<Request>,
        observer: &Observer,
    ) -> Result<RunReport, CompareError> {
        let servers = FleetServer::start(
            &self.fleet,
            &Options {
                time_scale: self.time_scale,
                seed: step.seed,
                ..Options::default()
            },
        )?;
        let endpoints = servers.endpoints();
        let clusters = endpoints.iter().map(|endpoint| endpoint.name.as_str());
        let balancing = policy.balancing(clusters)?;
        let is_filter = matches!(balancing, Balancing::Filter { .. });
        let upstreams = endpoints
            .iter()
            .map(|endpoint| (endpoint.name.clone(), endpoint.address));
        let gateway = Gateway::start(&Topology {
            workers: self.workers,
            ..Topology::new(upstreams, balancing)
        })
        .await?;
        let settings = Settings {
            time_scale: self.time_scale,
            warm_up: self.warm_up,
            timeout: self.timeout,
            ..Settings::new(gateway.address().into())
        };
        let (seed, sent) = (step.seed, requests.len());
        let observer = Arc::clone(observer);
        let observe = move |progress| {
            observer(Step {
                progress: Some(progress),
                ..step.clone()
            });
        };
        let measurement = drive(requests, settings, observe).await?;
        let mut report = RunReport::new(seed, measurement);
        if is_filter {
            report.remarks.extend(passed_through(&gateway, sent).await?);
        }
        Ok(report)
    }

    fn check(&self) -> Result<(), CompareError> {
        if !(0.01..=2.0).contains(&self.load) {
            return Err(CompareError::Load(self.load));
        }
        if !(1..=64).contains(&self.workers) {
            return Err(CompareError::Workers(self.workers));
        }
        if self.policies.is_empty() {
            return Err(CompareError::NoPolicies);
        }
        if self.seeds.is_empty() {
            return Err(CompareError::NoSeeds);
        }
        if let Some(policy) = first_repeated(&self.policies) {
            return Err(CompareError::RepeatedPolicy(policy.to_string()));
        }
        if let Some(seed) = first_repeated(&self.seeds) {
            return Err(CompareError::RepeatedSeed(*seed));
        }
        envoy_binary()?;
        for policy in &self.policies {
            policy.balancing([])?;
        }
        Ok(())
    }

    fn setting(&self, capacity: f64) -> Setting {
        let servers = self.fleet.servers();
        Setting {
            servers: servers.iter().map(|server| server.name.clone()).collect(),
            workload: self.workload.to_string(),
            capacity,
            load: self.load,
            rate: capacity * self.load,
            requests: self.requests,
            warm_up: self.warm_up,
            time_scale: self.time_scale,
            timeout_seconds: self.timeout.as_secs_f64(),
            workers: self.workers,
        }
    }
}

/// Says so if the filter did not pick for every request: Envoy's own policy is part of the result then.
async fn passed_through(gateway: &Gateway, sent: usize) -> Result<Option<String>, GatewayError> {
    let stats = gateway.stats().await?;
    let passed = stats.total("paceline_pass_through_total");
    let picked = stats.total("paceline_picks_total");
    let complete = passed == 0 && picked >= sent as u64;
    Ok((!complete).then(|| {
        format!(
            "the filter picked {picked} times for {sent} requests and passed {passed} through to Envoy's own policy"
        )
    }))
}

fn first_repeated<T: PartialEq>(values: &[T]) -> Option<&T> {
    let mut rest = values;
    while let [first, after @ ..] = rest {
        if after.contains(first) {
            return Some(first);
        }
        rest = after;
    }
    None
}
